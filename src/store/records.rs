//! Records in the store: looking one up, and committing the first one of a key.

use std::{fs::File, io, time::Duration};

use serde_json::Value;

use super::{
    Inner, Store, StoreError,
    dir::Found,
    objects::read_exactly,
    publish::{Place, Present},
    record::{LONGEST, Record, Reference, Written},
    shard,
    tmp::Tmp,
};
use crate::digest::{Digest, Identity};

/// Whose records these are. Others come with shared caches.
pub(super) const DOMAIN: &str = "local";
/// A record that is looked up this long after it was last used is marked as used.
pub(super) const DAY: Duration = Duration::from_hours(24);

/// What became of a commit.
#[derive(Debug, Clone, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "one value per commit, taken apart at once"
)]
pub enum Committed {
    /// The record is in the store, and is the first one of its key.
    New,
    /// Another record of this key was there first and holds; use its outputs.
    Adopted(Record),
}

/// What a record's place holds.
pub(super) enum State {
    Good(Box<Record>, File, Identity),
    Absent,
    /// A record that cannot be used: why, what it is, and whether it is damaged as opposed to
    /// valid but of another version or with objects missing.
    Bad(String, Option<(u64, u64)>, bool),
}

impl Store {
    /// The record of `key`, if there is one that can be read, hashes to what it says, and all of
    /// whose objects are there with their sizes. Anything else is a miss; the reason is kept for
    /// [`take_warnings`](Store::take_warnings).
    ///
    /// # Errors
    /// The system refused for a reason that says nothing about the record.
    pub fn lookup(&self, key: &Digest) -> Result<Option<Record>, StoreError> {
        self.look(key, true)
    }

    /// The same without using it: the collection goes by when a record was last looked up.
    ///
    /// # Errors
    /// As for [`lookup`](Self::lookup).
    pub fn peek(&self, key: &Digest) -> Result<Option<Record>, StoreError> {
        self.look(key, false)
    }

    fn look(&self, key: &Digest, uses: bool) -> Result<Option<Record>, StoreError> {
        let place = record_place(key);
        let state = self.0.record_state(&place.path(), key);
        match state.map_err(|error| self.0.io("read", &place.path(), error))? {
            State::Good(record, file, identity) => {
                if uses && !self.0.read_only {
                    self.0.freshen(&file, &identity, DAY);
                }
                Ok(Some(*record))
            }
            State::Absent => match self.0.beneath.get() {
                Some(beneath) => beneath.look(key, uses),
                None => Ok(None),
            },
            State::Bad(reason, id, true) => {
                self.0.set_aside(&place, id, &reason);
                Ok(None)
            }
            State::Bad(reason, _, false) => {
                self.0.warn(&place.path(), &reason);
                Ok(None)
            }
        }
    }

    /// Commits a record whose objects have all been put. The first record of a key stays; a
    /// later one is dropped for it. One that cannot be used is replaced.
    ///
    /// # Errors
    /// An object is missing, the record is too large, the store is read-only, or the system
    /// refused to write. Nothing is visible then.
    pub fn commit(&self, record: &Record) -> Result<Committed, StoreError> {
        let (place, tmp) = self.prepare(record)?;
        let judge = |path: &str| {
            Ok(match self.0.record_state(path, &record.key)? {
                State::Good(record, ..) => Present::Good(record),
                State::Absent => Present::Absent,
                State::Bad(reason, id, _) => Present::Bad(reason, id),
            })
        };
        Ok(match self.0.publish(&place, tmp, &judge)? {
            None => Committed::New,
            Some(first) => Committed::Adopted(*first),
        })
    }

    /// Commits a record in place of one of the same key, in one step, for a node that was
    /// computed anew on purpose.
    ///
    /// # Errors
    /// As for [`commit`](Self::commit).
    pub fn replace(&self, record: &Record) -> Result<Committed, StoreError> {
        let (place, tmp) = self.prepare(record)?;
        self.0.overwrite(&place, tmp, 0o444, self.0.durable)?;
        Ok(Committed::New)
    }

    /// Writes a record, all of whose objects are there, to an unfinished file.
    fn prepare(&self, record: &Record) -> Result<(Place, Tmp), StoreError> {
        let bad = |reason| StoreError::BadRecord {
            key: record.key,
            reason,
        };
        for output in &record.outputs {
            let object = Reference {
                digest: output.digest,
                size: output.size,
            };
            if !self.0.touch(&object)? {
                return Err(StoreError::MissingObject {
                    key: record.key,
                    name: output.name.clone(),
                });
            }
        }
        let (written, values) = Written::of(record, DOMAIN);
        let bytes = written.encode().map_err(bad)?;
        for value in values {
            self.put(value.as_bytes())?;
        }
        let place = record_place(&record.key);
        Ok((place, self.0.tmp_with(&bytes)?))
    }
}

impl Inner {
    pub(super) fn record_state(&self, path: &str, key: &Digest) -> io::Result<State> {
        let (file, identity) = match self.dir.look(path)? {
            Found::Absent => return Ok(State::Absent),
            Found::Strange(what, id) => return Ok(State::Bad(what, id, true)),
            Found::File(file, identity) => (file, identity),
        };
        let bad = |reason, damaged| Ok(State::Bad(reason, Some(identity.file), damaged));
        if identity.size > LONGEST as u64 {
            return bad("it is too long".to_owned(), true);
        }
        let bytes = match file
            .try_clone()
            .and_then(|file| read_exactly(file, identity.size))
        {
            Ok(bytes) => bytes,
            Err(error) => return bad(format!("unreadable ({error})"), false),
        };
        let written = match Written::decode(&bytes, key, DOMAIN) {
            Ok(written) => written,
            Err(unreadable) => return bad(unreadable.reason, unreadable.damaged),
        };
        if let Some(missing) = self.missing(&written)? {
            return bad(format!("its object {} is missing", missing.digest), false);
        }
        match written.record(|object| self.value(object)) {
            Some(record) => Ok(State::Good(Box::new(record), file, identity)),
            None => bad(
                "its fingerprint or provenance cannot be read".to_owned(),
                false,
            ),
        }
    }

    pub(super) fn value(&self, object: &Reference) -> Option<Value> {
        let bytes = self.object_bytes(&object.digest).ok()??;
        serde_json::from_slice(&bytes).ok()
    }
}

/// Where the record of a key belongs.
pub(super) fn record_place(key: &Digest) -> Place {
    shard(&format!("actions/{DOMAIN}"), key)
}
