//! What this machine remembers to have uploaded, so that a run asks nobody about what is there.

use std::collections::HashSet;

use super::{Sharing, peer::Peer};
use crate::{
    digest::Digest,
    store::{Inner, lock},
};

/// What this machine remembers to have uploaded to one shared cache.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Changes with every collection there.
    epoch: [u8; 32],
    entries: HashSet<Digest>,
    changed: bool,
}

impl Inner {
    /// Whether the shared cache `i` is known to have an entry from here.
    pub(super) fn is_known(&self, sharing: &Sharing, i: usize, entry: &Digest) -> bool {
        self.with_known(sharing, i, |known| known.entries.contains(entry))
    }

    pub(super) fn note_known(
        &self,
        sharing: &Sharing,
        i: usize,
        entries: impl IntoIterator<Item = Digest>,
    ) {
        self.with_known(sharing, i, |known| {
            known.entries.extend(entries);
            known.changed = true;
        });
    }

    fn with_known<T>(&self, sharing: &Sharing, i: usize, work: impl FnOnce(&mut Known) -> T) -> T {
        let mut state = lock(&sharing.uploads.state);
        if state.known.get(i).is_none_or(Option::is_none) {
            drop(state);
            let known = self.load_known(&sharing.peers[i]);
            state = lock(&sharing.uploads.state);
            if state.known.len() <= i {
                state.known.resize_with(i + 1, || None);
            }
            state.known[i].get_or_insert(known);
        }
        work(state.known[i].get_or_insert_default())
    }

    fn load_known(&self, peer: &Peer) -> Known {
        let epoch = peer.epoch();
        let mut known = Known {
            epoch,
            ..Known::default()
        };
        let store = self.index_bytes(&known_name(peer));
        let Some((first, rest)) = store.as_deref().and_then(<[u8]>::split_first_chunk::<32>) else {
            return known;
        };
        if *first == epoch {
            let entries = rest.as_chunks::<32>().0;
            known.entries = entries
                .iter()
                .map(|bytes| Digest::from_bytes(*bytes))
                .collect();
        }
        known
    }

    /// Remembers for later runs what the shared caches have.
    pub(super) fn save_known(&self, sharing: &Sharing) {
        let mut state = lock(&sharing.uploads.state);
        for (peer, known) in sharing.peers.iter().zip(&mut state.known) {
            let Some(known) = known.as_mut().filter(|known| known.changed) else {
                continue;
            };
            known.changed = false;
            // Another process may have added to it meanwhile; what it added and this one
            // does not know is only looked for again.
            let mut bytes = known.epoch.to_vec();
            known
                .entries
                .iter()
                .for_each(|entry| bytes.extend(entry.as_bytes()));
            self.save_index_bytes(&known_name(peer), &bytes);
        }
    }
}

fn known_name(peer: &Peer) -> String {
    format!("uploaded-{}", peer.id)
}
