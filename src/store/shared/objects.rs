//! Objects that are elsewhere: fetched when they are read, compared with their names.

use std::{fs::File, io::Write};

use super::{Sharing, peer::Peer, spread::spread};
use crate::{
    digest::Digest,
    store::{Inner, Store, StoreError, lock, objects::object_place},
};

/// What is wrong with an entry whose name is the digest of other bytes.
pub(super) const OTHER_BYTES: &str = "its bytes are not those of its name";

impl Store {
    /// Brings objects into this store from the shared ones, several at once; says which are not
    /// here afterwards. Only objects that a believed record names are asked for.
    pub fn fetch(&self, objects: &[(Digest, u64)]) -> Vec<Digest> {
        let absent = |(digest, size): &(Digest, u64)| {
            (!self.has(digest, *size) && !self.0.fetch_object(digest)).then_some(*digest)
        };
        spread(objects, absent).into_iter().flatten().collect()
    }

    /// How many bytes of objects are not in this store.
    pub fn absent(&self, objects: &[(Digest, u64)]) -> u64 {
        let away = objects
            .iter()
            .filter(|(digest, size)| !self.has(digest, *size));
        away.map(|(_, size)| size).sum()
    }
}

/// Hashes what it passes on.
struct Hashing<'a> {
    file: &'a mut File,
    hasher: blake3::Hasher,
    /// What the local disk said.
    error: Option<std::io::Error>,
}

impl Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.hasher.update(bytes);
        if let Err(error) = self.file.write_all(bytes) {
            let kind = error.kind();
            self.error = Some(error);
            return Err(kind.into());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Inner {
    /// Fetches an object whose size a believed document told; says whether it is here now.
    pub(in crate::store) fn fetch_object(&self, digest: &Digest) -> bool {
        let Some(sharing) = self.sharing() else {
            return false;
        };
        let size = lock(&sharing.expected).get(digest).copied();
        let Some(size) = size.filter(|_| !self.read_only) else {
            return false;
        };
        sharing.peers.iter().any(|peer| {
            let got = self.fetch_from(sharing, peer, digest, size);
            got.unwrap_or_else(|error| {
                self.warn_once(sharing, "the local cache", &error.to_string());
                false
            })
        })
    }

    fn fetch_from(
        &self,
        sharing: &Sharing,
        peer: &Peer,
        digest: &Digest,
        size: u64,
    ) -> Result<bool, StoreError> {
        let place = object_place(digest);
        let path = place.path();
        let mut tmp = self.tmp()?;
        let mut sink = Hashing {
            file: tmp.file(),
            hasher: blake3::Hasher::new(),
            error: None,
        };
        let answer = self.ask(sharing, peer, |peer| {
            peer.remote.read(&path, size, &mut sink)
        });
        let (hash, error) = (sink.hasher.finalize(), sink.error);
        if let Some(error) = error {
            return Err(self.io("write in", "tmp", error));
        }
        if answer != Some(true) {
            return Ok(false);
        }
        if Digest::from_bytes(*hash.as_bytes()) != *digest {
            peer.distrust(digest);
            self.refuse(sharing, peer, &path, OTHER_BYTES);
            return Ok(false);
        }
        self.publish_object(&place, digest, size, tmp)?;
        Ok(true)
    }
}
