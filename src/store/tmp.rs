//! Unfinished files: where they are written, and how those left behind are found.

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
    publish::{Placed, Way},
};
use crate::digest::{Digest, Identity};

/// An unfinished file this old was left behind.
const STALE: Duration = Duration::from_hours(24);

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

    /// The device and inode.
    pub(super) fn id(&self) -> io::Result<(u64, u64)> {
        let metadata = self.file.metadata()?;
        Ok((metadata.dev(), metadata.ino()))
    }

    /// Sets its mode, and forces its bytes to the disk.
    pub(super) fn seal(&self, mode: u32, durable: bool) -> io::Result<()> {
        fchmod(&self.file, Mode::from_raw_mode(mode))?;
        if durable {
            fsync(&self.file)?;
        }
        Ok(())
    }

    /// Gives the file its name in `dir`, and looks whether that was done.
    pub(super) fn place(&self, dir: &Dir, name: &str, way: Way) -> io::Result<Placed> {
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
            // Another process put its own in place of ours already.
            Ok(())
                if self.folder.file_id(&self.name) != Some(id) && dir.file_id(name).is_some() =>
            {
                Ok(Placed::Done)
            }
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

    /// Removes unfinished files of processes that are gone; fails where nothing can be written.
    /// Returns how far the clock that stamps the files is ahead of this machine's.
    pub(super) fn sweep(&self) -> io::Result<i64> {
        let now = self.now()?;
        let skew = now.saturating_sub(local_time());
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
        Ok(skew)
    }

    /// The time on the clock of the file system, in nanoseconds since 1970.
    pub(super) fn now(&self) -> io::Result<i64> {
        Ok(Identity::of(&self.create_tmp()?.file.metadata()?).mtime)
    }
}

/// The time on this machine's clock, in nanoseconds since 1970.
pub(super) fn local_time() -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    i64::try_from(now.unwrap_or_default().as_nanos()).unwrap_or(i64::MAX)
}

/// The host and process that an unfinished file's name tells.
fn owner(name: &str) -> Option<(&str, i32)> {
    let (rest, _random) = name.rsplit_once('-')?;
    let (host, pid) = rest.rsplit_once('-')?;
    Some((host, pid.parse().ok()?))
}

pub(super) fn is_alive(pid: i32) -> bool {
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
    use std::fs;

    use super::*;
    use crate::store::publish::tests::store;

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
}
