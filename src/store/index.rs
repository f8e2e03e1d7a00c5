//! Derived files that may be deleted at any time, and the state of the store they hold for.

use std::{
    thread,
    time::{Duration, SystemTime},
};

use rustix::fs::{AtFlags, statat};
use serde::{Deserialize, Serialize};

use super::{
    Inner, Store, check_name,
    dir::{Dir, Found, file_id, is_folder, is_regular, mtime},
    objects::{object_place, read_exactly},
    records::record_place,
    tmp::random,
};
use crate::digest::Digest;

const CONTEXT: &str = "runner index v1";
const LONGEST: u64 = 256 << 20;
/// A folder changed this shortly ago may change again with the clock of the file system, which
/// ticks every 1 to 10 ms, still the same.
const TICK: Duration = Duration::from_millis(20);
/// The same where a file system counts whole seconds.
const SECOND: Duration = Duration::from_millis(1100);

/// Which objects, records and packs are in the store, as far as their folders tell.
///
/// While two generations are equal, no object, record or pack was added, removed or replaced in
/// between. (Bytes changed in place do not show; reading finds those.) A caller that trusts an
/// equal generation looks no record up, so it should look them up once a day nevertheless: that
/// marks them as used for the collector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation(Digest);

impl Store {
    /// The present generation; about a microsecond for each folder.
    ///
    /// If a folder was changed within the last 20 ms, it waits that long. If it still changes,
    /// or a folder cannot be read, the result equals no other.
    pub fn generation(&self) -> Generation {
        for _ in 0..2 {
            let Some((digest, newest)) = self.0.folders() else {
                break;
            };
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            let now = now.unwrap_or_default().as_nanos() as i64;
            let whole = newest % 1_000_000_000 == 0;
            let tick = if whole { SECOND } else { TICK };
            // Also when the file system's clock runs a little ahead.
            if (now - newest).unsigned_abs() > tick.as_nanos() as u64 {
                return Generation(digest);
            }
            thread::sleep(TICK);
        }
        Generation(Digest::of(&random().to_le_bytes()))
    }

    /// What tells whether the records of `keys` and `objects` are the files that they were:
    /// a digest of the identity, size and modification time of each. `None` when one is not
    /// there. Whatever else was added to the store or taken from it does not show.
    pub fn stamp(&self, keys: &[Digest], objects: &[Digest]) -> Option<Digest> {
        let records = keys.iter().map(record_place);
        let mut hasher = blake3::Hasher::new_derive_key("runner stamp v1");
        for place in records.chain(objects.iter().map(object_place)) {
            let stat = self.0.dir.stat(&place.path()).ok().flatten();
            let stat = stat.filter(is_regular)?;
            let (device, inode) = file_id(&stat);
            for number in [device, inode, stat.st_size as u64, mtime(&stat) as u64] {
                hasher.update(&number.to_le_bytes());
            }
        }
        Some(Digest::from_bytes(*hasher.finalize().as_bytes()))
    }

    /// The derived file `name`, if it is as it was saved.
    pub fn load_index(&self, name: &str) -> Option<Vec<u8>> {
        self.0.index_bytes(name)
    }

    /// Saves the derived file `name`, as well as that goes: without it the next run is slower.
    pub fn save_index(&self, name: &str, bytes: &[u8]) {
        self.0.save_index_bytes(name, bytes);
    }
}

impl Inner {
    pub(super) fn index_bytes(&self, name: &str) -> Option<Vec<u8>> {
        check_name(name).ok()?;
        let path = format!("index/{name}");
        let mut bytes = self.bytes_of(&path, LONGEST)?;
        let (body, hash) = bytes.split_last_chunk::<32>()?;
        if index_hash(body) != Digest::from_bytes(*hash) {
            self.warn(&path, "damaged, and ignored");
            return None;
        }
        bytes.truncate(bytes.len() - 32);
        Some(bytes)
    }

    pub(super) fn save_index_bytes(&self, name: &str, bytes: &[u8]) {
        if check_name(name).is_err() || self.read_only {
            return;
        }
        let hash = index_hash(bytes);
        let whole = [bytes, hash.as_bytes()].concat();
        if let Err(error) = self.replace("index", name, &whole, false) {
            self.warn(&format!("index/{name}"), &error.to_string());
        }
    }

    /// The bytes of the regular file at `path`, if it has at most `longest`.
    pub(super) fn bytes_of(&self, path: &str, longest: u64) -> Option<Vec<u8>> {
        match self.dir.look(path) {
            Ok(Found::File(file, identity)) if identity.size <= longest => {
                read_exactly(file, identity.size).ok()
            }
            _ => None,
        }
    }

    /// A digest of every folder's identity and modification time, and the newest of those.
    fn folders(&self) -> Option<(Digest, i64)> {
        let mut hasher = blake3::Hasher::new_derive_key("runner generation v1");
        let mut newest = 0;
        for (name, depth) in [("objects", 1), ("actions", 2), ("items", 2)] {
            note_below(&self.dir, name, depth, &mut hasher, &mut newest)?;
        }
        Some((Digest::from_bytes(*hasher.finalize().as_bytes()), newest))
    }
}

/// Notes the folder `name` in `dir`, and those in it down to `depth` levels.
fn note_below(
    dir: &Dir,
    name: &str,
    depth: usize,
    hasher: &mut blake3::Hasher,
    newest: &mut i64,
) -> Option<()> {
    let stat = match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if is_folder(&stat) => stat,
        Ok(_) | Err(rustix::io::Errno::NOENT) => return Some(()),
        Err(_) => return None,
    };
    let (device, inode) = file_id(&stat);
    let modified = mtime(&stat);
    hasher.update(&(name.len() as u64).to_le_bytes());
    hasher.update(name.as_bytes());
    hasher.update(&device.to_le_bytes());
    hasher.update(&inode.to_le_bytes());
    hasher.update(&modified.to_le_bytes());
    *newest = modified.max(*newest);
    if depth > 0 {
        let below = dir.dir(name).ok()?;
        for name in below.names().ok()? {
            note_below(&below, &name, depth - 1, hasher, newest)?;
        }
    }
    hasher.update(&u64::MAX.to_le_bytes());
    Some(())
}

fn index_hash(bytes: &[u8]) -> Digest {
    Digest::derived(CONTEXT, bytes)
}
