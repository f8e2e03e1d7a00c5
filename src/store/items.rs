//! Items: many small values under keys of their own, a batch to a file.

use std::{
    collections::{HashMap, hash_map::Entry as MapEntry},
    fs::File,
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use super::{
    Inner, Store, StoreError,
    dir::{Dir, Found},
    lock,
    objects::{hash, read_exactly},
    pack,
    publish::{Place, Present},
    shard,
};
use crate::digest::Digest;

/// Packs kept open at once.
const OPEN: usize = 32;
/// A pack that is read this long after it was last used is marked as used.
const DAY: Duration = Duration::from_hours(24);

/// The items of one space as they were when it was read; see [`Store::items`].
#[derive(Debug)]
pub struct Items {
    store: Store,
    folder: Option<Dir>,
    path: String,
    packs: Vec<String>,
    found: HashMap<Digest, Located>,
    /// Where a key is also found, when several packs hold it.
    others: HashMap<Digest, Vec<Located>>,
    open: Mutex<HashMap<usize, Arc<File>>>,
}

#[derive(Debug, Clone, Copy)]
struct Located {
    pack: usize,
    entry: pack::Entry,
}

impl Store {
    /// Reads where the items of `space` lie. A pack whose header is bad goes into quarantine,
    /// and its items are absent.
    ///
    /// # Errors
    /// The system refused for a reason that says nothing about a pack.
    pub fn items(&self, space: &Digest) -> Result<Items, StoreError> {
        let path = space_path(space);
        let failed = |error: io::Error| self.0.io("read", &path, error);
        self.0.lift_packs(space)?;
        let mut items = Items {
            store: self.clone(),
            folder: None,
            path: path.clone(),
            packs: Vec::new(),
            found: HashMap::new(),
            others: HashMap::new(),
            open: Mutex::default(),
        };
        let Some(stat) = self.0.dir.stat(&path).map_err(failed)? else {
            return Ok(items);
        };
        if !super::dir::is_folder(&stat) {
            self.0.warn(&path, "not a folder");
            return Ok(items);
        }
        let folder = self.0.dir.dir(&path).map_err(failed)?;
        for name in folder.names().map_err(failed)? {
            let (file, identity) = match folder.look(&name).map_err(failed)? {
                Found::Absent => continue,
                Found::File(file, identity) => (file, identity),
                Found::Strange(what, id) => {
                    self.0.set_aside(&Place::new(&path, &name), id, &what);
                    continue;
                }
            };
            let reason = match pack::entries(&file, identity.size) {
                Ok(Some(entries)) => {
                    items.add(name, &entries);
                    if !self.0.read_only {
                        self.0.freshen(&file, &identity, DAY);
                    }
                    continue;
                }
                Ok(None) => "its header is damaged".to_owned(),
                Err(error) => format!("unreadable ({error})"),
            };
            let id = Some(identity.file);
            self.0.set_aside(&Place::new(&path, &name), id, &reason);
        }
        items.folder = Some(folder);
        Ok(items)
    }

    /// Commits a batch of items as one file, which is on the disk afterwards. Items that are
    /// already there are not looked for; of several values of a key any one may be found.
    ///
    /// # Errors
    /// The store is read-only, or the system refused to write.
    pub fn commit_items(
        &self,
        space: &Digest,
        batch: &[(Digest, Vec<u8>)],
    ) -> Result<(), StoreError> {
        if batch.is_empty() {
            return Ok(());
        }
        let bytes = pack::encode(batch);
        let digest = hash(&bytes);
        let place = Place::new(&space_path(space), &digest.to_string());
        let tmp = self.0.tmp_with(&bytes)?;
        let size = bytes.len() as u64;
        let judge = |path: &str| self.0.judge_pack(path, &digest, Some(size));
        self.0.publish(&place, tmp, &judge)?;
        Ok(())
    }
}

impl Items {
    /// The value of an item, verified; nothing if it is absent, or its bytes are damaged.
    pub fn get(&self, key: &Digest) -> Option<Vec<u8>> {
        let first = self.found.get(key)?;
        let others = self.others.get(key).into_iter().flatten();
        std::iter::once(first)
            .chain(others)
            .find_map(|at| self.read(at))
    }

    /// Whether there is an item of this key; its bytes are not read.
    pub fn contains(&self, key: &Digest) -> bool {
        self.found.contains_key(key)
    }

    /// The keys, in no order.
    pub fn keys(&self) -> impl Iterator<Item = &Digest> {
        self.found.keys()
    }

    /// How many items there are.
    pub fn len(&self) -> usize {
        self.found.len()
    }

    /// Whether there is no item.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    fn add(&mut self, name: String, entries: &[pack::Entry]) {
        let pack = self.packs.len();
        self.packs.push(name);
        self.found.reserve(entries.len());
        for entry in entries {
            let located = Located {
                pack,
                entry: *entry,
            };
            // Packs come in the order of their names: everybody finds the same one first.
            match self.found.entry(entry.key) {
                MapEntry::Vacant(place) => {
                    place.insert(located);
                }
                MapEntry::Occupied(_) => {
                    self.others.entry(entry.key).or_default().push(located);
                }
            }
        }
    }

    fn read(&self, at: &Located) -> Option<Vec<u8>> {
        let name = &self.packs[at.pack];
        let reason = match self.file(at.pack).and_then(|file| match file {
            Some(file) => pack::value(&file, &at.entry),
            // Collected since; a miss like any other.
            None => Ok(None),
        }) {
            Ok(Some(value)) => return Some(value),
            Ok(None) => "the bytes of an item are not those that were written".to_owned(),
            Err(error) => format!("unreadable ({error})"),
        };
        self.store.0.warn(&format!("{}/{name}", self.path), &reason);
        None
    }

    fn file(&self, pack: usize) -> io::Result<Option<Arc<File>>> {
        let mut open = lock(&self.open);
        if let Some(file) = open.get(&pack) {
            return Ok(Some(file.clone()));
        }
        let Some(folder) = &self.folder else {
            return Ok(None);
        };
        let Found::File(file, _) = folder.look(&self.packs[pack])? else {
            return Ok(None);
        };
        if open.len() >= OPEN {
            open.clear();
        }
        let file = Arc::new(file);
        open.insert(pack, file.clone());
        Ok(Some(file))
    }
}

impl Inner {
    /// Judges the pack at `path` by its name, which is the digest of its bytes.
    /// A size that is known is compared first.
    pub(super) fn judge_pack(
        &self,
        path: &str,
        digest: &Digest,
        size: Option<u64>,
    ) -> io::Result<Present<()>> {
        Ok(match self.dir.look(path)? {
            Found::Absent => Present::Absent,
            Found::Strange(what, id) => Present::Bad(what, id),
            Found::File(file, identity) => {
                let id = Some(identity.file);
                if size.is_some_and(|size| size != identity.size) {
                    return Ok(Present::Bad("it has another size".to_owned(), id));
                }
                match read_exactly(file, identity.size) {
                    Ok(bytes) if hash(&bytes) == *digest => Present::Good(()),
                    Ok(_) => Present::Bad("its bytes are not those of its name".to_owned(), id),
                    Err(error) => Present::Bad(format!("unreadable ({error})"), id),
                }
            }
        })
    }

    /// The good items of a damaged pack.
    pub(super) fn salvage(&self, path: &str) -> io::Result<Vec<(Digest, Vec<u8>)>> {
        let Found::File(file, identity) = self.dir.look(path)? else {
            return Ok(Vec::new());
        };
        let entries = pack::entries(&file, identity.size)?.unwrap_or_default();
        let value = |entry: &pack::Entry| Some((entry.key, pack::value(&file, entry).ok()??));
        Ok(entries.iter().filter_map(value).collect())
    }
}

/// The folder of a space.
pub(super) fn space_path(space: &Digest) -> String {
    shard("items", space).path()
}
