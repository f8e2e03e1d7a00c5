//! Packs of items in shared caches: whole batches of answers and embeddings.
//!
//! A signed list names the packs of one space that somebody uploaded. A pack is read like an
//! object: its name is the digest of its bytes.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Sharing, objects::OTHER_BYTES, peer::Peer, spread::spread};
use crate::{
    digest::{Digest, canonical},
    store::{Inner, Store, document, items::space_path, lock, publish::Place, shard},
    trust::{Subject, Writer},
};

/// The longest list of packs, in bytes.
const LONGEST: usize = 4 << 20;
/// The largest pack that is fetched.
const LARGEST: u64 = 1 << 30;
/// No more lists of one space are read from one domain.
const MOST_LISTS: usize = 10_000;
const CONTEXT: &str = "runner packs v1";

/// What a list of packs says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct PackList {
    v: u32,
    domain: String,
    space: Digest,
    packs: Vec<ListedPack>,
}

/// One pack in a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ListedPack {
    pub(super) pack: Digest,
    pub(super) size: u64,
}

impl PackList {
    /// The path and the bytes of a signed list.
    pub(super) fn signed(
        writer: &Writer<'_>,
        space: &Digest,
        packs: &[ListedPack],
    ) -> (String, String) {
        let value = json!({
            "v": 1, "domain": writer.domain, "space": space, "packs": packs,
        });
        let line = canonical(&value);
        let name = Digest::derived(CONTEXT, line.as_bytes());
        let signature = writer.key.sign(Subject::Pack, &line);
        let path = format!("{}/{name}", folder(writer.domain, space));
        (path, document::seal(CONTEXT, &line, &[signature]))
    }
}

impl Sharing {
    /// The packs of `space` that a list names, if it is believed, else why not.
    pub(super) fn believe_packs(
        &self,
        bytes: &[u8],
        domain: &str,
        space: &Digest,
    ) -> Result<Vec<ListedPack>, String> {
        let what = (Subject::Pack, CONTEXT, LONGEST);
        let (document, _) = self.signed(what, bytes, domain)?;
        let list: PackList =
            serde_json::from_str(document.line).map_err(|error| error.to_string())?;
        if list.v != 1 || list.domain != domain || list.space != *space {
            return Err("it is the list of another space or domain".to_owned());
        }
        Ok(list.packs)
    }
}

impl Store {
    /// Brings the packs of `space` from the shared caches into this store, once in a process;
    /// says how many came.
    pub fn pull_items(&self, space: &Digest) -> u64 {
        let inner = &self.0;
        let Some(sharing) = inner.sharing().filter(|_| !inner.read_only) else {
            return 0;
        };
        if !lock(&sharing.pulled).insert(*space) {
            return 0;
        }
        let mut came = 0;
        for domain in sharing.trust.domains() {
            for peer in &sharing.peers {
                came += inner.pull_from(sharing, peer, domain, space);
            }
        }
        came
    }
}

impl Inner {
    fn pull_from(&self, sharing: &Sharing, peer: &Peer, domain: &str, space: &Digest) -> u64 {
        let folder = folder(domain, space);
        let Some(lists) = self.ask(sharing, peer, |peer| peer.remote.list(&folder, MOST_LISTS))
        else {
            return 0;
        };
        let lists: Vec<_> = lists.into_iter().map(|list| list.path).collect();
        let read = |path: &String| {
            let most = LONGEST as u64;
            let bytes = self.ask(sharing, peer, |peer| peer.remote.get(path, most))??;
            let packs = sharing.believe_packs(&bytes, domain, space);
            packs
                .map_err(|reason| self.refuse(sharing, peer, path, &reason))
                .ok()
        };
        let packs = spread(&lists, read).into_iter().flatten().flatten();
        let mut packs: Vec<_> = packs.filter(|pack| pack.size <= LARGEST).collect();
        packs.sort_unstable_by_key(|pack| pack.pack);
        packs.dedup_by_key(|pack| pack.pack);
        let pull = |pack: &ListedPack| self.pull_pack(sharing, peer, space, pack) == Some(true);
        let came = spread(&packs, pull);
        came.into_iter().filter(|new| *new).count() as u64
    }

    /// Fetches one pack; says whether it is new here.
    fn pull_pack(
        &self,
        sharing: &Sharing,
        peer: &Peer,
        space: &Digest,
        pack: &ListedPack,
    ) -> Option<bool> {
        let place = Place::new(&space_path(space), &pack.pack.to_string());
        let path = place.path();
        if self.dir.size(&path).ok().flatten() == Some(pack.size) {
            return Some(false);
        }
        let bytes = self.ask(sharing, peer, |peer| peer.remote.get(&path, pack.size))??;
        if crate::store::objects::hash(&bytes) != pack.pack {
            peer.distrust(&pack.pack);
            self.refuse(sharing, peer, &path, OTHER_BYTES);
            return None;
        }
        let judge = |path: &str| self.judge_pack(path, &pack.pack, Some(pack.size));
        let published = self
            .tmp_with(&bytes)
            .and_then(|tmp| self.publish(&place, tmp, &judge));
        if let Err(error) = published {
            self.warn_once(sharing, "the local cache", &error.to_string());
            return None;
        }
        Some(true)
    }
}

/// Where the lists of a space lie.
pub(super) fn folder(domain: &str, space: &Digest) -> String {
    shard(&format!("packs/{domain}"), space).path()
}
