//! Shared caches behind the local one: what teammates computed, and what they get from here.
//!
//! A shared cache is laid out like a store's folder, with a folder of records for each write
//! domain. A record is believed when a trusted key of its domain signed it; its objects are
//! fetched when somebody reads them, and compared with their digests. What is computed here is
//! signed and uploaded in the background: objects first, the record last.
//!
//! Nothing here fails a run: a fault of a shared cache is a miss with a warning.
//!
//! ```text
//! FORMAT  objects/ab/<62 hex>  items/ab/<62 hex of space>/<64 hex>     as in a store
//! actions/<domain>/ab/<62 hex of the key>                              a signed record
//! recipes/<domain>/ab/<62 hex of the recipe>                           the same record again
//! packs/<domain>/ab/<62 hex of space>/<64 hex>                         a signed list of packs
//! runs/<domain>/<id>                                                   a signed run
//! leases/<run>                                                         who works on what
//! ```
//! Below `fetched/` the local store keeps the signed records that it got, at the same paths.

mod items;
mod known;
mod leases;
mod lookup;
mod objects;
mod peer;
mod runs;
mod send;
mod spread;
mod tend;
mod upload;

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    sync::Mutex,
};

pub(super) use self::leases::Seen;
pub(super) use self::runs::{CONTEXT as RUN, LONGEST as RUN_LONGEST};
pub use self::{
    leases::{Lease, Working},
    lookup::Shared,
    runs::RemoteRun,
    tend::{RemoteGc, RemoteProblem, RemoteVerify},
    upload::{PendingUpload, UploadReport, UploadState},
};
use self::{peer::Peer, upload::Uploads};
use super::{Inner, Store, StoreError, document::Document, lock};
use crate::{
    digest::Digest,
    trust::{Subject, Trust},
};

/// A shared cache, as a project names it.
#[derive(Debug, Clone)]
pub struct RemoteOptions {
    /// Its name for people.
    pub name: String,
    /// A folder, `s3://`, `gs://`, `az://` or `http(s)://`.
    pub url: String,
    /// Whether results are uploaded to it.
    pub write: bool,
}

/// The shared caches of one process, and whom it believes.
#[derive(Debug)]
pub(super) struct Sharing {
    peers: Vec<Peer>,
    trust: Trust,
    /// Sizes of objects that believed records and lists name; nothing else is fetched.
    expected: Mutex<HashMap<Digest, u64>>,
    /// Spaces whose packs were asked for already.
    pulled: Mutex<HashSet<Digest>>,
    /// What has been warned about.
    told: Mutex<HashSet<String>>,
    uploads: Uploads,
    leases: Mutex<leases::Seen>,
}

impl Store {
    /// Puts shared caches behind this store. Nothing is asked of them yet. Paths in their URLs
    /// are relative to `base`.
    ///
    /// # Errors
    /// A URL cannot be one of a cache, or holds a password.
    pub fn connect(
        &self,
        remotes: &[RemoteOptions],
        base: &Path,
        trust: Trust,
    ) -> Result<(), StoreError> {
        let peers = remotes
            .iter()
            .map(|options| Peer::open(options, base))
            .collect::<Result<Vec<_>, _>>()?;
        // A second call of the same process changes nothing.
        let _ = self.0.sharing.set(Sharing {
            peers,
            trust,
            expected: Mutex::default(),
            pulled: Mutex::default(),
            told: Mutex::default(),
            uploads: Uploads::default(),
            leases: Mutex::default(),
        });
        Ok(())
    }

    /// Whether there is any shared cache.
    pub fn is_shared(&self) -> bool {
        self.0.sharing().is_some()
    }

    /// The names of shared caches that cannot be reached now; asks each of them once.
    pub fn unreachable(&self) -> Vec<(String, String)> {
        let peers = self.0.sharing().map_or(&[][..], |sharing| &sharing.peers);
        let ask = |peer: &Peer| Some((peer.name().to_owned(), peer.reach().err()?));
        peers.iter().filter_map(ask).collect()
    }
}

impl Inner {
    /// The shared caches, if there are any.
    pub(super) fn sharing(&self) -> Option<&Sharing> {
        self.sharing
            .get()
            .filter(|sharing| !sharing.peers.is_empty())
    }

    /// Warns that an entry of a shared cache is not believed, and left where it is.
    fn refuse(&self, sharing: &Sharing, peer: &Peer, path: &str, reason: &str) {
        let subject = format!("{} {path}", peer.name());
        self.warn_once(sharing, &subject, &format!("{reason}; not used"));
    }

    /// Warns once in a process about `subject`.
    fn warn_once(&self, sharing: &Sharing, subject: &str, reason: &str) {
        if lock(&sharing.told).insert(format!("{subject}: {reason}")) {
            tracing::warn!("{subject}: {reason}");
            self.note(subject, reason);
        }
    }
}

impl Sharing {
    /// The peer called `name`.
    fn peer(&self, name: &str) -> Option<&Peer> {
        self.peers.iter().find(|peer| peer.name() == name)
    }

    /// Opens a document that a key of `domain` signed as a `subject`: it and the key's name, or
    /// why it is not believed.
    fn signed<'a>(
        &self,
        (subject, context, longest): (Subject, &str, usize),
        bytes: &'a [u8],
        domain: &str,
    ) -> Result<(Document<'a>, String), String> {
        let document = Document::open(context, bytes, longest).map_err(|bad| bad.reason)?;
        let signer = self
            .trust
            .check(subject, domain, document.line, &document.signatures)
            .map_err(|refusal| refusal.to_string())?;
        Ok((document, signer.name))
    }

    /// Notes what a believed document says about the sizes of objects.
    fn expect(&self, objects: impl Iterator<Item = (Digest, u64)>) {
        lock(&self.expected).extend(objects);
    }
}
