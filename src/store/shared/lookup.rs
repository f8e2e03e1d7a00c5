//! Records of others: found in the memory of what was fetched, or asked for.

use super::{Sharing, peer::Peer};
use crate::{
    digest::Digest,
    store::{
        Inner, Store,
        dir::Found,
        publish::Place,
        record::{CONTEXT, LONGEST, Record, Written},
        records::DAY,
        remote::Fault,
        shard,
    },
    trust::Subject,
};

/// A record of somebody else that is believed.
#[derive(Debug, Clone)]
pub struct Shared {
    /// The record. Its objects may still be elsewhere.
    pub record: Record,
    /// The key that signed it.
    pub signer: String,
    /// The write domain that it is in.
    pub domain: String,
}

/// How a record is looked for.
#[derive(Debug, Clone, Copy)]
enum Name<'a> {
    Key(&'a Digest),
    Recipe(&'a Digest),
}

impl Name<'_> {
    /// Its path in a shared cache.
    fn place(self, domain: &str) -> Place {
        match self {
            Self::Key(key) => shard(&format!("actions/{domain}"), key),
            Self::Recipe(recipe) => shard(&format!("recipes/{domain}"), recipe),
        }
    }
}

impl Store {
    /// The record of `key` by somebody else, as far as it was fetched before; the network is not
    /// asked. Its objects are here, or can be asked for.
    pub fn remembered(&self, key: &Digest) -> Option<Shared> {
        self.0.remembered(Name::Key(key))
    }

    /// The record of `key` by somebody else: what was [remembered](Self::remembered), else the
    /// first one in the order of trusted domains that is believed. What is not believed is warned
    /// about and left where it is.
    pub fn find(&self, key: &Digest) -> Option<Shared> {
        self.0.find(Name::Key(key))
    }

    /// A record whose recipe is `recipe`, likewise: for a checkout that lacks data or models.
    pub fn find_by_recipe(&self, recipe: &Digest) -> Option<Shared> {
        self.0.find(Name::Recipe(recipe))
    }

    /// Forgets what was fetched for `key`: its objects can no longer be had.
    pub fn forget(&self, key: &Digest) {
        let Some(sharing) = self.0.sharing() else {
            return;
        };
        for domain in sharing.trust.domains() {
            let place = kept(&Name::Key(key).place(domain));
            if let Ok(folder) = self.0.dir.dir(&place.folder) {
                // Absent in most domains.
                let _ = folder.unlink(&place.name);
            }
        }
    }
}

impl Inner {
    fn remembered(&self, name: Name<'_>) -> Option<Shared> {
        let sharing = self.sharing()?;
        let domains = sharing.trust.domains();
        domains.into_iter().find_map(|domain| {
            let place = kept(&name.place(domain));
            let path = place.path();
            let bytes = self.bytes_of(&path, LONGEST as u64)?;
            if let Ok(Found::File(file, identity)) = self.dir.look(&path) {
                self.freshen(&file, &identity, DAY);
            }
            let (written, signer) = sharing.believe(&bytes, domain, name).ok()?;
            let near = |written: &Written| {
                let mut objects = written.references();
                objects.all(|object| self.has(&object))
            };
            if !near(&written) && !sharing.peers.iter().any(|peer| peer.reach().is_ok()) {
                return None;
            }
            self.shared(sharing, written, signer, domain)
        })
    }

    fn find(&self, name: Name<'_>) -> Option<Shared> {
        let sharing = self.sharing()?;
        if let Some(found) = self.remembered(name) {
            return Some(found);
        }
        for domain in sharing.trust.domains() {
            for peer in &sharing.peers {
                if let Some(found) = self.find_in(sharing, peer, domain, name) {
                    return Some(found);
                }
            }
        }
        None
    }

    fn find_in(
        &self,
        sharing: &Sharing,
        peer: &Peer,
        domain: &str,
        name: Name<'_>,
    ) -> Option<Shared> {
        let path = name.place(domain).path();
        let bytes = self.ask(sharing, peer, |peer| peer.remote.get(&path, LONGEST as u64))??;
        let (written, signer) = match sharing.believe(&bytes, domain, name) {
            Ok(believed) => believed,
            Err(reason) => {
                self.refuse(sharing, peer, &path, &reason);
                return None;
            }
        };
        let found = self.shared(sharing, written, signer, domain)?;
        self.keep(&name.place(domain), &bytes);
        if matches!(name, Name::Recipe(_)) {
            // Who shows or reports the result asks for its key.
            self.keep(&Name::Key(&found.record.key).place(domain), &bytes);
        }
        Some(found)
    }

    /// Asks a shared cache; `None` when it has a fault, which is warned about once.
    pub(super) fn ask<T>(
        &self,
        sharing: &Sharing,
        peer: &Peer,
        question: impl FnOnce(&Peer) -> Result<T, Fault>,
    ) -> Option<T> {
        let subject = || format!("shared cache `{}`", peer.name());
        if let Err(reason) = peer.reach() {
            self.warn_once(
                sharing,
                &subject(),
                &format!("this run goes on without it: {reason}"),
            );
            return None;
        }
        match question(peer) {
            Ok(answer) => Some(answer),
            Err(fault) => {
                self.warn_once(sharing, &subject(), &fault.to_string());
                None
            }
        }
    }

    fn shared(
        &self,
        sharing: &Sharing,
        written: Written,
        signer: String,
        domain: &str,
    ) -> Option<Shared> {
        sharing.expect(
            written
                .references()
                .map(|object| (object.digest, object.size)),
        );
        Some(Shared {
            record: written.record(|object| self.value(object))?,
            signer,
            domain: domain.to_owned(),
        })
    }

    /// Keeps a signed record, so that it need not be asked for again.
    fn keep(&self, place: &Place, bytes: &[u8]) {
        if self.read_only {
            return;
        }
        let place = kept(place);
        let kept = self
            .tmp_with(bytes)
            .and_then(|tmp| self.overwrite(&place, tmp, 0o444, false));
        if let Err(error) = kept {
            self.warn(&place.path(), &error.to_string());
        }
    }
}

impl Sharing {
    /// Checks the signature of a record's file, and that it is the one that was asked for. Says
    /// who signed it, or why it is not believed.
    fn believe(
        &self,
        bytes: &[u8],
        domain: &str,
        name: Name<'_>,
    ) -> Result<(Written, String), String> {
        let what = (Subject::Record, CONTEXT, LONGEST);
        let (document, signer) = self.signed(what, bytes, domain)?;
        let written = match name {
            Name::Key(key) => Written::of_key(&document, key, domain),
            Name::Recipe(recipe) => Written::of_recipe(&document, recipe, domain),
        };
        Ok((written.map_err(|bad| bad.reason)?, signer))
    }

    /// As [`believe`](Self::believe), for the record of a key.
    pub(super) fn believe_key(
        &self,
        bytes: &[u8],
        domain: &str,
        key: &Digest,
    ) -> Result<(Written, String), String> {
        self.believe(bytes, domain, Name::Key(key))
    }
}

/// Where the local store keeps what it fetched from `place`.
fn kept(place: &Place) -> Place {
    Place::new(&format!("fetched/{}", place.folder), &place.name)
}
