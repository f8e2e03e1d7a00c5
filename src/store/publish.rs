//! How a file becomes visible: whole, on the disk, under a name that was free.
//!
//! Written under `tmp/` and forced to the disk, then linked to its name, which fails if the name
//! is taken. What the file system answers is checked, since some lie: a name said to be taken is
//! looked at, and a link said to be made is looked for. Without hard links a rename that refuses
//! to replace is next, and a plain rename last.

use std::{
    env,
    fs::File,
    hash::{BuildHasher, RandomState},
    io::{self, Write},
    os::unix::fs::MetadataExt,
    process,
    time::{Duration, SystemTime},
};

use rustix::{
    fs::{Mode, fchmod, fsync},
    io::Errno,
    process::{Pid, test_kill_process},
};

use super::{
    Inner, StoreError,
    dir::{Dir, mtime},
    lock,
};
use crate::digest::{Digest, Identity};

/// How often placing is tried; each turn removes a bad entry or falls back one step.
const ATTEMPTS: usize = 16;
/// An unfinished file this old was left behind.
const STALE: Duration = Duration::from_hours(24);

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

enum Placed {
    Done,
    Taken,
    /// The way does not work on this file system.
    Useless,
}

/// An unfinished file; removed when dropped.
#[derive(Debug)]
pub(super) struct Tmp {
    folder: Dir,
    name: String,
    file: File,
}

impl Tmp {
    pub(super) fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Renames over what is at `name`, for what is neither shared nor named by its bytes.
    pub(super) fn replace(self, dir: &Dir, name: &str, durable: bool) -> io::Result<()> {
        fchmod(&self.file, Mode::from_raw_mode(0o644))?;
        self.folder.rename(&self.name, dir, name)?;
        if durable { dir.sync() } else { Ok(()) }
    }

    fn id(&self) -> io::Result<(u64, u64)> {
        let metadata = self.file.metadata()?;
        Ok((metadata.dev(), metadata.ino()))
    }

    fn place(&self, dir: &Dir, name: &str, way: Way) -> io::Result<Placed> {
        let id = self.id()?;
        let is_there = || dir.file_id(name) == Some(id);
        let result = match way {
            Way::Link => self.folder.link(&self.name, dir, name),
            Way::RenameNew => self.folder.rename_new(&self.name, dir, name),
            Way::Rename => self.folder.rename(&self.name, dir, name),
        };
        match result {
            Ok(()) if is_there() => Ok(Placed::Done),
            Ok(()) if way != Way::Rename => Ok(Placed::Useless),
            Ok(()) => Err(io::Error::other("renamed, but nothing is there")),
            Err(Errno::EXIST) if way != Way::Rename => Ok(Placed::Taken),
            // A reply can be lost on a network file system after the work was done.
            Err(_) if is_there() => Ok(Placed::Done),
            Err(
                Errno::PERM
                | Errno::OPNOTSUPP
                | Errno::MLINK
                | Errno::NOSYS
                | Errno::INVAL
                | Errno::XDEV,
            ) if way != Way::Rename => Ok(Placed::Useless),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for Tmp {
    fn drop(&mut self) {
        // Gone already if it was renamed; a leftover is swept when the store is next opened.
        let _ = self.folder.unlink(&self.name);
    }
}

impl Inner {
    /// A new, empty, unfinished file.
    pub(super) fn tmp(&self) -> Result<Tmp, StoreError> {
        if self.read_only {
            return Err(StoreError::ReadOnly(self.root.clone()));
        }
        self.create_tmp()
            .map_err(|error| self.io("write in", "tmp", error))
    }

    /// An unfinished file with these bytes.
    pub(super) fn tmp_with(&self, bytes: &[u8]) -> Result<Tmp, StoreError> {
        let mut tmp = self.tmp()?;
        let written = tmp.file.write_all(bytes);
        written.map_err(|error| self.io("write in", "tmp", error))?;
        Ok(tmp)
    }

    fn create_tmp(&self) -> io::Result<Tmp> {
        self.dir.make("tmp")?;
        let folder = self.dir.dir("tmp")?;
        loop {
            let name = format!("{}-{}-{:016x}", self.host, process::id(), random());
            match folder.create(&name) {
                Ok(file) => return Ok(Tmp { folder, name, file }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

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
        fchmod(&tmp.file, Mode::from_raw_mode(0o444)).map_err(|e| failed(e.into()))?;
        if self.durable {
            fsync(&tmp.file).map_err(|error| failed(error.into()))?;
        }
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

    /// Makes sure that an entry of somebody else's is on the disk before we rely on it.
    pub(super) fn settle(&self, dir: &Dir, name: &str) -> io::Result<()> {
        if self.durable && !self.read_only {
            if let super::dir::Found::File(file, _) = dir.look(name)? {
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

    /// Removes unfinished files of processes that are gone; fails where nothing can be written.
    pub(super) fn sweep(&self) -> io::Result<()> {
        let now = self.now()?;
        let folder = self.dir.dir("tmp")?;
        for name in folder.names()? {
            let gone = match owner(&name) {
                Some((host, pid)) if host == self.host => !is_alive(pid),
                _ => false,
            };
            let stale = || {
                let written = folder.stat(&name).ok().flatten();
                written.is_some_and(|stat| now - mtime(&stat) > STALE.as_nanos() as i64)
            };
            if gone || stale() {
                // Another process may be sweeping too.
                let _ = folder.unlink(&name);
            }
        }
        Ok(())
    }

    /// The time on the clock of the file system, in nanoseconds since 1970.
    pub(super) fn now(&self) -> io::Result<i64> {
        Ok(Identity::of(&self.create_tmp()?.file.metadata()?).mtime)
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

/// The host and process that an unfinished file's name tells.
fn owner(name: &str) -> Option<(&str, i32)> {
    let (rest, _random) = name.rsplit_once('-')?;
    let (host, pid) = rest.rsplit_once('-')?;
    Some((host, pid.parse().ok()?))
}

fn is_alive(pid: i32) -> bool {
    Pid::from_raw(pid.max(0)).is_some_and(|pid| test_kill_process(pid) != Err(Errno::SRCH))
}

/// This machine as far as process numbers mean the same: its name, boot and process namespace.
pub(super) fn host() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let name = read("/proc/sys/kernel/hostname");
    let name = match name.trim() {
        "" => env::var("HOSTNAME").unwrap_or_default(),
        name => name.to_owned(),
    };
    let spaces = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    let boot = read("/proc/sys/kernel/random/boot_id");
    let tag = Digest::of(format!("{boot}{}", spaces.display()).as_bytes()).short();
    let plain = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let name: String = name.chars().filter(plain).take(64).collect();
    format!("h{name}-{tag}")
}

/// A number that no other process or thread draws at the same time.
pub(super) fn random() -> u64 {
    RandomState::new().hash_one((process::id(), SystemTime::now()))
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::Arc};

    use super::*;
    use crate::{
        digest::FileMemo,
        store::{Options, Store, dir::Found},
    };

    fn store(root: &std::path::Path) -> Store {
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
    fn unfinished_files_of_the_dead_are_swept_and_those_of_the_living_kept() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        let host = &store.0.host;
        let at = |name: &str| folder.path().join("tmp").join(name);
        let dead = i32::MAX;
        let names = [
            (format!("{host}-{dead}-00"), false),
            (format!("{host}-{}-00", process::id()), true),
            (format!("elsewhere-{dead}-00"), true),
            ("elsewhere-1-01".to_owned(), false),
            ("strange".to_owned(), true),
        ];
        for (name, _) in &names {
            fs::write(at(name), "x").unwrap();
        }
        let old = SystemTime::now() - 2 * STALE;
        let file = fs::File::open(at("elsewhere-1-01")).unwrap();
        file.set_times(fs::FileTimes::new().set_modified(old))
            .unwrap();
        store.0.sweep().unwrap();
        for (name, stays) in &names {
            assert_eq!(at(name).exists(), *stays, "{name}");
        }
        let tmp = store.0.tmp().unwrap();
        assert_eq!(
            owner(&tmp.name),
            Some((host.as_str(), process::id() as i32))
        );
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
