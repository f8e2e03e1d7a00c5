//! Objects: bytes under the name of their BLAKE3.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rustix::fs::{Timespec, Timestamps, UTIME_NOW, futimens};

use super::{
    Inner, Store, StoreError,
    dir::Found,
    publish::{Place, Present},
    record::{Reference, Written},
    shard,
    tmp::local_time,
};
use crate::digest::{Digest, Identity};

/// A good object met again after this long is marked as used, so that it is not collected
/// between being found and being named by a record.
const FRESH: Duration = Duration::from_hours(1);
/// Bytes read at once.
const BUFFER: usize = 1 << 18;
/// From here on the hash is worth more than one thread.
const LARGE: usize = 1 << 21;

impl Store {
    /// Stores `bytes` and returns their digest, once they are on the disk.
    ///
    /// # Errors
    /// The store is read-only, or the system refused to write.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
        let digest = hash(bytes);
        let place = object_place(&digest);
        if !self.0.adopt(&place, &digest, bytes.len() as u64)? {
            let tmp = self.0.tmp_with(bytes)?;
            self.0
                .publish_object(&place, &digest, bytes.len() as u64, tmp)?;
        }
        Ok(digest)
    }

    /// Stores the bytes of the file at `path`, read in pieces, and returns their digest.
    ///
    /// # Errors
    /// The file cannot be read, the store is read-only, or the system refused to write.
    pub fn put_file(&self, path: &Path) -> Result<Digest, StoreError> {
        let unreadable = |error: io::Error| StoreError::io("read", path, error);
        let mut file = File::open(path).map_err(unreadable)?;
        let identity = Identity::of(&file.metadata().map_err(unreadable)?);
        if let Some(digest) = self.0.memo.known(&identity)
            && self
                .0
                .adopt(&object_place(&digest), &digest, identity.size)?
        {
            return Ok(digest);
        }
        let mut tmp = self.0.tmp()?;
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; BUFFER];
        let mut size = 0;
        loop {
            let read = match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(unreadable(error)),
            };
            hasher.update(&buffer[..read]);
            size += read as u64;
            let written = tmp.file().write_all(&buffer[..read]);
            written.map_err(|error| self.0.io("write in", "tmp", error))?;
        }
        let digest = Digest::from_bytes(*hasher.finalize().as_bytes());
        self.0
            .publish_object(&object_place(&digest), &digest, size, tmp)?;
        Ok(digest)
    }

    /// The bytes of an object, verified; nothing if it is absent, or was bad and is now in
    /// quarantine. One that a believed record of a shared cache names is fetched.
    ///
    /// # Errors
    /// The system refused for a reason that says nothing about the object.
    pub fn get(&self, digest: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.object_bytes(digest)
    }

    /// The file of an object, to be read in place; verified here, or remembered to be verified
    /// on this machine and unchanged since. It must not be written.
    ///
    /// # Errors
    /// The system refused for a reason that says nothing about the object.
    pub fn object_path(&self, digest: &Digest) -> Result<Option<PathBuf>, StoreError> {
        if let Some(beneath) = self.0.beneath.get()
            && let Some(path) = beneath.object_path(digest)?
        {
            return Ok(Some(path));
        }
        match self.object_path_here(digest)? {
            None if self.0.fetch_object(digest) => self.object_path_here(digest),
            found => Ok(found),
        }
    }

    fn object_path_here(&self, digest: &Digest) -> Result<Option<PathBuf>, StoreError> {
        let place = object_place(digest);
        let path = place.path();
        let failed = |error| self.0.io("read", &path, error);
        let found = self.0.look_or_restore(&place, digest).map_err(failed)?;
        match self.0.judge_found(found, digest, None) {
            Present::Good(_) => Ok(Some(self.0.root.join(path))),
            Present::Absent => Ok(None),
            Present::Bad(reason, id) => {
                self.0.set_aside(&place, id, &reason);
                Ok(None)
            }
        }
    }

    /// Whether a regular file of `size` bytes has the object's name. Its bytes are not read.
    pub fn has(&self, digest: &Digest, size: u64) -> bool {
        self.0.has(&Reference {
            digest: *digest,
            size,
        })
    }
}

impl Inner {
    pub(super) fn object_bytes(&self, digest: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        if let Some(Store(beneath)) = self.beneath.get()
            && let Some(bytes) = beneath.object_bytes_here(digest)?
        {
            return Ok(Some(bytes));
        }
        match self.object_bytes_here(digest)? {
            None if self.fetch_object(digest) => self.object_bytes_here(digest),
            found => Ok(found),
        }
    }

    /// As [`object_bytes`](Self::object_bytes), without asking a shared cache.
    pub(super) fn object_bytes_here(&self, digest: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        let place = object_place(digest);
        let path = place.path();
        let failed = |error| self.io("read", &path, error);
        let found = self.look_or_restore(&place, digest).map_err(failed)?;
        let (reason, id) = match found {
            Found::Absent => return Ok(None),
            Found::Strange(what, id) => (what, id),
            Found::File(file, identity) => match read_exactly(file, identity.size) {
                Ok(bytes) if hash(&bytes) == *digest => return Ok(Some(bytes)),
                Ok(_) => (
                    "its bytes are not those of its name".to_owned(),
                    Some(identity.file),
                ),
                Err(error) => (format!("unreadable ({error})"), Some(identity.file)),
            },
        };
        self.set_aside(&place, id, &reason);
        Ok(None)
    }

    pub(super) fn has(&self, object: &Reference) -> bool {
        self.looked(object).unwrap_or(false)
    }

    /// As [`has`](Self::has), for whoever would act on it that something is missing.
    ///
    /// # Errors
    /// Whether it is there cannot be told.
    pub(super) fn looked(&self, object: &Reference) -> io::Result<bool> {
        let place = object_place(&object.digest);
        let size = || self.dir.size(&place.path());
        if let Some(Store(beneath)) = self.beneath.get()
            && beneath.looked(object)?
        {
            return Ok(true);
        }
        Ok(match size()? {
            Some(there) => there == object.size,
            None => self.restore(&place, &object.digest) && size()? == Some(object.size),
        })
    }

    /// The first of a record's objects that is not there.
    ///
    /// # Errors
    /// Whether they are there cannot be told.
    pub(super) fn missing(&self, written: &Written) -> io::Result<Option<Reference>> {
        for object in written.references() {
            if !self.looked(&object)? {
                return Ok(Some(object));
            }
        }
        Ok(None)
    }

    /// As [`has`](Self::has), and marks the object as used.
    ///
    /// # Errors
    /// Whether it is there cannot be told.
    pub(super) fn touch(&self, object: &Reference) -> Result<bool, StoreError> {
        let path = object_place(&object.digest).path();
        let failed = |error| self.io("look at", &path, error);
        let there = self.looked(object).map_err(failed)?;
        if there && let Ok(Found::File(file, at)) = self.dir.look(&path) {
            self.freshen(&file, &at, FRESH);
        }
        Ok(there)
    }

    /// Whether the object is there and good; it is then on the disk, and marked as used.
    fn adopt(&self, place: &Place, digest: &Digest, size: u64) -> Result<bool, StoreError> {
        if self.read_only {
            return Err(StoreError::ReadOnly(self.root.clone()));
        }
        let path = place.path();
        let failed = |error| self.io("read", &path, error);
        let found = self.look_or_restore(place, digest).map_err(failed)?;
        match self.judge_found(found, digest, Some(size)) {
            Present::Good((file, identity)) => {
                self.freshen(&file, &identity, FRESH);
                let dir = self.folder(&place.folder).map_err(failed)?;
                self.settle(&dir, &place.name).map_err(failed)?;
                Ok(true)
            }
            Present::Bad(reason, id) => {
                self.quarantine(place, id, &reason).map_err(failed)?;
                Ok(false)
            }
            Present::Absent => Ok(false),
        }
    }

    pub(super) fn publish_object(
        &self,
        place: &Place,
        digest: &Digest,
        size: u64,
        tmp: super::tmp::Tmp,
    ) -> Result<(), StoreError> {
        let judge = |path: &str| Ok(self.judge_found(self.dir.look(path)?, digest, Some(size)));
        if let Some((file, identity)) = self.publish(place, tmp, &judge)? {
            self.freshen(&file, &identity, FRESH);
        }
        Ok(())
    }

    /// Judges what was found under an object's name, by its size first if that is known.
    pub(super) fn judge_found(
        &self,
        found: Found,
        digest: &Digest,
        size: Option<u64>,
    ) -> Present<(File, Identity)> {
        let (mut file, identity) = match found {
            Found::Absent => return Present::Absent,
            Found::Strange(what, id) => return Present::Bad(what, id),
            Found::File(file, identity) => (file, identity),
        };
        let bad = |reason: String| Present::Bad(reason, Some(identity.file));
        if let Some(size) = size.filter(|size| *size != identity.size) {
            return bad(format!("it has {} bytes, not {size}", identity.size));
        }
        let began = SystemTime::now();
        if self.memo.known(&identity) != Some(*digest) {
            match hash_file(&mut file) {
                Ok(found) if found == *digest => {}
                Ok(_) => return bad("its bytes are not those of its name".to_owned()),
                Err(error) => return bad(format!("unreadable ({error})")),
            }
            let unchanged = file.metadata().is_ok_and(|m| Identity::of(&m) == identity);
            if unchanged {
                self.memo.remember(&identity, began, *digest);
            }
        }
        Present::Good((file, identity))
    }

    fn look_or_restore(&self, place: &Place, digest: &Digest) -> io::Result<Found> {
        let path = place.path();
        match self.dir.look(&path)? {
            Found::Absent if self.restore(place, digest) => self.dir.look(&path),
            found => Ok(found),
        }
    }

    /// Links an object back that was collected into the trash a short while ago.
    pub(super) fn restore(&self, place: &Place, digest: &Digest) -> bool {
        if self.read_only {
            return false;
        }
        let name = trash_name(digest);
        self.dir
            .names_in("trash")
            .unwrap_or_default()
            .iter()
            .any(|day| {
                let Ok(trash) = self.dir.dir(&format!("trash/{day}")) else {
                    return false;
                };
                if !matches!(trash.look(&name), Ok(Found::File(..))) {
                    return false;
                }
                let Ok(folder) = self.folder(&place.folder) else {
                    return false;
                };
                if let Ok(Found::File(file, identity)) = trash.look(&name) {
                    self.freshen(&file, &identity, Duration::ZERO);
                }
                trash.rename_new(&name, &folder, &place.name).is_ok()
                    || trash.rename(&name, &folder, &place.name).is_ok()
            })
    }

    /// Quarantines on behalf of a reader, who has its miss whether or not that succeeds.
    pub(super) fn set_aside(&self, place: &Place, id: Option<(u64, u64)>, reason: &str) {
        if let Err(error) = self.quarantine(place, id, reason) {
            self.warn(&place.path(), &format!("cannot be moved away ({error})"));
        }
    }

    /// Sets the modification time of a file to now if it is older than `age` on the clock that
    /// stamps the files: with this machine's own, which may be days behind, nothing that is used
    /// would look old enough, and the collection of another machine would take it.
    pub(super) fn freshen(&self, file: &File, identity: &Identity, age: Duration) {
        let now = i128::from(local_time()) + i128::from(self.skew);
        if now - i128::from(identity.mtime) >= age.as_nanos() as i128 {
            let now = Timespec {
                tv_sec: 0,
                tv_nsec: UTIME_NOW,
            };
            let times = Timestamps {
                last_access: now,
                last_modification: now,
            };
            // Only a hint to the collector, and refused on files of other users.
            let _ = futimens(file, &times);
        }
    }
}

/// Where an object belongs.
pub(super) fn object_place(digest: &Digest) -> Place {
    shard("objects", digest)
}

/// An object's name in the trash.
pub(super) fn trash_name(digest: &Digest) -> String {
    format!("object-{digest}")
}

/// The digest of bytes, by several threads if there are many.
pub(super) fn hash(bytes: &[u8]) -> Digest {
    if bytes.len() < LARGE {
        return Digest::of(bytes);
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update_rayon(bytes);
    Digest::from_bytes(*hasher.finalize().as_bytes())
}

pub(super) fn hash_file(file: &mut File) -> io::Result<Digest> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(file)?;
    Ok(Digest::from_bytes(*hasher.finalize().as_bytes()))
}

/// Reads a file of a known size; one that is longer or shorter by now is an error.
pub(super) fn read_exactly(mut file: File, size: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let size = usize::try_from(size).map_err(io::Error::other)?;
    bytes
        .try_reserve_exact(size + 1)
        .map_err(io::Error::other)?;
    (&mut file).take(size as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() == size {
        Ok(bytes)
    } else {
        Err(io::Error::other("its size changes"))
    }
}
