//! How a file becomes visible: whole, on the disk, under a name that was free.
//!
//! Written under `tmp/` and forced to the disk, then linked to its name, which fails if the name
//! is taken. What the file system answers is checked, since some lie: a name said to be taken is
//! looked at, and a link said to be made is looked for. Without hard links a rename that refuses
//! to replace is next, and a plain rename last.

use std::io;

use rustix::{fs::fsync, io::Errno};

use super::{
    Inner, StoreError,
    dir::{Dir, Found, is_folder},
    lock,
    tmp::{Tmp, random},
};

/// How often placing is tried; each turn removes a bad entry or falls back one step.
const ATTEMPTS: usize = 16;
/// Where an entry belongs, below the root.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) folder: String,
    pub(super) name: String,
}

impl Place {
    pub(super) fn new(folder: &str, name: &str) -> Self {
        Self {
            folder: folder.to_owned(),
            name: name.to_owned(),
        }
    }

    /// The path below the root.
    pub(super) fn path(&self) -> String {
        if self.folder.is_empty() {
            self.name.clone()
        } else {
            format!("{}/{}", self.folder, self.name)
        }
    }
}

/// What an entry that is already there turned out to be.
pub(super) enum Present<T> {
    /// As good as ours; it stays, and this is it.
    Good(T),
    /// Damaged or planted: the reason, and its device and inode.
    Bad(String, Option<(u64, u64)>),
    /// Nothing is there after all.
    Absent,
}

/// The ways to give a finished file its name, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Link,
    RenameNew,
    Rename,
}

/// What came of trying one.
pub(super) enum Placed {
    Done,
    Taken,
    /// The way does not work on this file system.
    Useless,
}

impl Inner {
    /// Publishes `tmp` at `place`. If `judge` finds the entry already there to be good, that one
    /// stays and is returned; if bad, it goes into quarantine first.
    pub(super) fn publish<T>(
        &self,
        place: &Place,
        tmp: Tmp,
        judge: &dyn Fn(&str) -> io::Result<Present<T>>,
    ) -> Result<Option<T>, StoreError> {
        self.publish_from(Way::Link, place, tmp, judge)
    }

    /// The same, beginning with a lesser way.
    pub(super) fn publish_from<T>(
        &self,
        mut way: Way,
        place: &Place,
        tmp: Tmp,
        judge: &dyn Fn(&str) -> io::Result<Present<T>>,
    ) -> Result<Option<T>, StoreError> {
        let path = place.path();
        let failed = |error: io::Error| self.io("write", &path, error);
        tmp.seal(0o444, self.durable).map_err(failed)?;
        let dir = self.folder(&place.folder).map_err(failed)?;
        for _ in 0..ATTEMPTS {
            // A plain rename would replace: only over nothing.
            let placed = if way == Way::Rename && dir.file_id(&place.name).is_some() {
                Placed::Taken
            } else {
                tmp.place(&dir, &place.name, way).map_err(failed)?
            };
            match placed {
                Placed::Done => {
                    drop(tmp);
                    if self.durable {
                        dir.sync().map_err(failed)?;
                    }
                    return Ok(None);
                }
                Placed::Useless => way = way.next(),
                Placed::Taken => match judge(&path).map_err(failed)? {
                    Present::Good(present) => {
                        self.settle(&dir, &place.name).map_err(failed)?;
                        return Ok(Some(present));
                    }
                    Present::Bad(reason, id) => {
                        self.quarantine(place, id, &reason).map_err(failed)?;
                    }
                    // Removed meanwhile, or it was never there.
                    Present::Absent => way = way.next(),
                },
            }
        }
        Err(failed(io::Error::other(
            "the name stays taken by something bad",
        )))
    }

    /// Puts `tmp` at `place` whatever is there, in one step.
    pub(super) fn overwrite(
        &self,
        place: &Place,
        tmp: Tmp,
        mode: u32,
        durable: bool,
    ) -> Result<(), StoreError> {
        let path = place.path();
        let failed = |error: io::Error| self.io("write", &path, error);
        tmp.seal(mode, durable).map_err(failed)?;
        let dir = self.folder(&place.folder).map_err(failed)?;
        if dir
            .stat(&place.name)
            .map_err(failed)?
            .as_ref()
            .is_some_and(is_folder)
        {
            self.quarantine(place, None, "a folder").map_err(failed)?;
        }
        tmp.place(&dir, &place.name, Way::Rename).map_err(failed)?;
        drop(tmp);
        if durable {
            dir.sync().map_err(failed)?;
        }
        Ok(())
    }

    /// Makes sure that an entry of somebody else's is on the disk before we rely on it.
    pub(super) fn settle(&self, dir: &Dir, name: &str) -> io::Result<()> {
        if self.durable && !self.read_only {
            if let Found::File(file, _) = dir.look(name)? {
                fsync(&file)?;
            }
            dir.sync()?;
        }
        Ok(())
    }

    /// The folder at `path`, made if absent, with its own entry on the disk.
    pub(super) fn folder(&self, path: &str) -> io::Result<Dir> {
        let mut dir = self.dir.try_clone()?;
        let known = lock(&self.settled).contains(path);
        if known && let Ok(dir) = self.dir.dir(path) {
            return Ok(dir);
        }
        for (end, part) in parts(path) {
            dir.make(part)?;
            let below = dir.dir(part)?;
            if !lock(&self.settled).contains(&path[..end]) {
                // Also if another process made it: it may not have got this far yet.
                if self.durable {
                    dir.sync()?;
                }
                lock(&self.settled).insert(path[..end].to_owned());
            }
            dir = below;
        }
        Ok(dir)
    }

    /// Moves a bad entry out of the way, if it is still the one that was judged.
    pub(super) fn quarantine(
        &self,
        place: &Place,
        id: Option<(u64, u64)>,
        reason: &str,
    ) -> io::Result<()> {
        let path = place.path();
        let there = self.dir.file_id(&path);
        if there.is_none() || (id.is_some() && there != id) {
            if id.is_none() {
                self.warn(&path, reason);
            }
            return Ok(());
        }
        self.warn(&path, reason);
        if self.read_only {
            return Ok(());
        }
        let from = self.folder(&place.folder)?;
        let jail = self.folder("quarantine")?;
        let name = format!("{}.{:08x}", path.replace('/', "-"), random() as u32);
        match from.rename(&place.name, &jail, &name) {
            Ok(()) => {}
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        if jail.file_id(&name) != there {
            // Another process replaced it in between: that one is not ours to judge.
            let back = jail.link(&name, &from, &place.name);
            let _ = match back {
                Ok(()) => jail.unlink(&name),
                Err(_) => jail
                    .rename_new(&name, &from, &place.name)
                    .map_err(Into::into),
            };
        }
        Ok(())
    }
}

impl Way {
    fn next(self) -> Self {
        match self {
            Self::Link => Self::RenameNew,
            Self::RenameNew | Self::Rename => Self::Rename,
        }
    }
}

/// The components of a path, each with where it ends.
fn parts(path: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut end = 0;
    path.split('/')
        .filter(|part| !part.is_empty())
        .map(move |part| {
            let begin = if end == 0 { 0 } else { end + 1 };
            end = begin + part.len();
            (end, part)
        })
}

#[cfg(test)]
pub(super) mod tests {
    use std::{fs, sync::Arc};

    use super::*;
    use crate::{
        digest::FileMemo,
        store::{Options, Store},
    };

    pub(in crate::store) fn store(root: &std::path::Path) -> Store {
        let options = Options {
            durable: true,
            memo: Arc::new(FileMemo::in_memory()),
        };
        Store::open_with(root, options).unwrap()
    }

    /// What an entry says of itself: `good` is good.
    fn judge(inner: &Inner) -> impl Fn(&str) -> io::Result<Present<String>> + '_ {
        move |path| {
            Ok(match inner.dir.look(path)? {
                Found::Absent => Present::Absent,
                Found::Strange(what, id) => Present::Bad(what, id),
                Found::File(file, identity) => match io::read_to_string(file)? {
                    text if text.starts_with("good") => Present::Good(text),
                    text => Present::Bad(text, Some(identity.file)),
                },
            })
        }
    }

    #[test]
    fn each_way_publishes_once_and_replaces_only_what_is_bad() {
        for way in [Way::Link, Way::RenameNew, Way::Rename] {
            let folder = tempfile::tempdir().unwrap();
            let store = store(folder.path());
            let inner = &store.0;
            let publish = |name: &str, text: &str| {
                let tmp = inner.tmp_with(text.as_bytes()).unwrap();
                let place = Place::new("objects/ab", name);
                inner.publish_from(way, &place, tmp, &judge(inner)).unwrap()
            };
            assert_eq!(publish("one", "good 1"), None);
            assert_eq!(publish("one", "good 2"), Some("good 1".to_owned()));
            let at = |name: &str| folder.path().join("objects/ab").join(name);
            assert_eq!(fs::read(at("one")).unwrap(), b"good 1");
            fs::write(at("two"), "damaged").unwrap();
            assert_eq!(publish("two", "good 3"), None);
            assert_eq!(fs::read(at("two")).unwrap(), b"good 3");
            fs::create_dir_all(at("three/below")).unwrap();
            assert_eq!(publish("three", "good 4"), None);
            assert_eq!(fs::read(at("three")).unwrap(), b"good 4");
            let count = |name: &str| fs::read_dir(folder.path().join(name)).unwrap().count();
            assert_eq!(count("tmp"), 0, "{way:?}");
            assert_eq!(count("quarantine"), 2, "{way:?}");
            assert_eq!(store.take_warnings().len(), 2);
        }
    }

    #[test]
    fn quarantine_leaves_alone_what_was_not_judged() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        let place = Place::new("objects/ab", "name");
        let path = folder.path().join("objects/ab/name");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "judged").unwrap();
        let judged = store.0.dir.file_id("objects/ab/name");
        fs::rename(&path, folder.path().join("index")).unwrap();
        fs::write(&path, "good").unwrap();
        store.0.quarantine(&place, judged, "bad").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"good");
        assert_eq!(store.take_warnings(), []);
    }

    #[test]
    fn a_path_is_taken_apart_where_its_folders_end() {
        assert_eq!(
            parts("a/bc/d").collect::<Vec<_>>(),
            [(1, "a"), (4, "bc"), (6, "d")]
        );
        assert_eq!(parts("").count(), 0);
    }
}
