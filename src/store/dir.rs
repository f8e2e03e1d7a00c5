//! A handle on a folder whose operations stay inside it and follow no symbolic link.
//!
//! Anybody who may write to a shared cache can plant links and pipes in it. Every path is
//! therefore resolved below an open folder with links refused, and only regular files are read.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use rustix::{
    fs::{self, AtFlags, FileType, Mode, OFlags, Stat},
    io::Errno,
};

use crate::digest::Identity;

/// An open folder.
#[derive(Debug)]
pub(super) struct Dir(OwnedFd);

/// What is found at a path where a regular file should be.
#[derive(Debug)]
pub(super) enum Found {
    /// A regular file, open for reading, and its state when it was opened.
    File(File, Identity),
    /// Nothing.
    Absent,
    /// Something that must not be read, in words, and its device and inode if known.
    Strange(String, Option<(u64, u64)>),
}

const READ: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY);
const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW);

/// How often a stale handle is asked for again.
const RETRIES: usize = 3;

impl Dir {
    /// Opens the folder at `path`, which may be reached through links: it is the user's choice.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(fs::open(path, flags, Mode::empty())?))
    }

    /// Another handle on the same folder.
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self(self.0.try_clone()?))
    }

    /// Opens the folder at `path` below this one.
    pub(super) fn dir(&self, path: &str) -> io::Result<Self> {
        Ok(Self(open_beneath(&self.0, path, FOLDER, Mode::empty())?))
    }

    /// Looks at what is at `path` below this folder, without ever blocking on it.
    ///
    /// # Errors
    /// Only what says nothing about the entry, such as too many open files.
    pub(super) fn look(&self, path: &str) -> io::Result<Found> {
        let strange = |what: &str| Found::Strange(what.to_owned(), self.file_id(path));
        let fd = match open_beneath(&self.0, path, READ, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(Found::Absent),
            Err(Errno::LOOP) => return Ok(strange("a symbolic link")),
            Err(Errno::NOTDIR) => return Ok(strange("a file in place of its folder")),
            Err(Errno::NXIO | Errno::NODEV) => return Ok(strange("a socket or a device")),
            Err(error @ (Errno::ACCESS | Errno::PERM | Errno::IO)) => {
                return Ok(strange(&format!("unreadable ({})", io::Error::from(error))));
            }
            Err(error) => return Err(error.into()),
        };
        let file = File::from(fd);
        let metadata = file.metadata()?;
        let identity = Identity::of(&metadata);
        if metadata.is_file() {
            return Ok(Found::File(file, identity));
        }
        let what = if metadata.is_dir() {
            "a folder"
        } else {
            "a pipe or a device"
        };
        Ok(Found::Strange(what.to_owned(), Some(identity.file)))
    }

    /// The state of the entry at `path` itself, or nothing if there is none.
    pub(super) fn stat(&self, path: &str) -> io::Result<Option<Stat>> {
        let result = match path.rsplit_once('/') {
            Some((folder, name)) => {
                open_beneath(&self.0, folder, FOLDER, Mode::empty()).and_then(|fd| state(&fd, name))
            }
            None => state(&self.0, path),
        };
        match result {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The device and inode of the entry at `path`.
    pub(super) fn file_id(&self, path: &str) -> Option<(u64, u64)> {
        self.stat(path).ok().flatten().map(|stat| file_id(&stat))
    }

    /// The size of the regular file at `path`, if there is one.
    pub(super) fn size(&self, path: &str) -> io::Result<Option<u64>> {
        let stat = self.stat(path)?.filter(is_regular);
        Ok(stat.map(|stat| stat.st_size as u64))
    }

    /// Makes the folder `name` in this one; says whether it was not there.
    pub(super) fn make(&self, name: &str) -> io::Result<bool> {
        match fs::mkdirat(&self.0, name, Mode::from_raw_mode(0o777)) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Creates the file at `path` for writing; it must not exist.
    pub(super) fn create(&self, path: &str) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let fd = open_beneath(&self.0, path, flags, Mode::from_raw_mode(0o600))?;
        Ok(File::from(fd))
    }

    /// Gives the file `from` in this folder a second name `to` in another, which must be free.
    pub(super) fn link(&self, from: &str, other: &Self, to: &str) -> rustix::io::Result<()> {
        fs::linkat(&self.0, from, &other.0, to, AtFlags::empty())
    }

    /// Renames, replacing what is there.
    pub(super) fn rename(&self, from: &str, other: &Self, to: &str) -> rustix::io::Result<()> {
        fs::renameat(&self.0, from, &other.0, to)
    }

    /// Renames, refusing to replace; `INVAL`, `NOSYS` or `OPNOTSUPP` where this is not known.
    pub(super) fn rename_new(&self, from: &str, other: &Self, to: &str) -> rustix::io::Result<()> {
        #[cfg(any(target_os = "linux", target_os = "macos"))]
        {
            fs::renameat_with(&self.0, from, &other.0, to, fs::RenameFlags::NOREPLACE)
        }
        #[cfg(not(any(target_os = "linux", target_os = "macos")))]
        {
            Err(Errno::NOSYS)
        }
    }

    /// Removes the file or link `name`.
    pub(super) fn unlink(&self, name: &str) -> io::Result<()> {
        Ok(fs::unlinkat(&self.0, name, AtFlags::empty())?)
    }

    /// Removes the empty folder `name`.
    pub(super) fn remove_dir(&self, name: &str) -> io::Result<()> {
        Ok(fs::unlinkat(&self.0, name, AtFlags::REMOVEDIR)?)
    }

    /// Forces the folder's entries to the disk, where the file system knows how to.
    pub(super) fn sync(&self) -> io::Result<()> {
        match fs::fsync(&self.0) {
            Ok(()) | Err(Errno::INVAL | Errno::NOTSUP | Errno::BADF) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The names in this folder in order, without those that begin with a dot.
    pub(super) fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::Dir::read_from(&self.0)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if !name.starts_with('.') {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// The names in the folder at `path`, none if there is no such folder.
    pub(super) fn names_in(&self, path: &str) -> io::Result<Vec<String>> {
        match self.dir(path) {
            Ok(dir) => dir.names(),
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(Vec::new()),
                _ => Err(error),
            },
        }
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The device and inode that a state tells.
pub(super) fn file_id(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

/// Whether a state is that of a regular file.
pub(super) fn is_regular(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

/// Modification time in nanoseconds since 1970.
pub(super) fn mtime(stat: &Stat) -> i64 {
    stat.st_mtime
        .saturating_mul(1_000_000_000)
        .saturating_add(stat.st_mtime_nsec as i64)
}

/// Asks again while the answer is that a handle is stale. On a network file system that only
/// says that somebody replaced the file or its folder meanwhile, and nothing about either.
fn until_fresh<T>(mut ask: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    for _ in 0..RETRIES {
        match ask() {
            Err(Errno::STALE) => {}
            result => return result,
        }
    }
    ask()
}

fn state(folder: &OwnedFd, name: &str) -> rustix::io::Result<Stat> {
    until_fresh(|| fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW))
}

/// Opens `path` below `folder`; no component may be a link.
fn open_beneath(
    folder: &OwnedFd,
    path: &str,
    flags: OFlags,
    mode: Mode,
) -> rustix::io::Result<OwnedFd> {
    until_fresh(|| open_once(folder, path, flags, mode))
}

fn open_once(
    folder: &OwnedFd,
    path: &str,
    flags: OFlags,
    mode: Mode,
) -> rustix::io::Result<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC;
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::ResolveFlags;
        static UNKNOWN: AtomicBool = AtomicBool::new(false);
        if !UNKNOWN.load(Ordering::Relaxed) {
            let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
            match fs::openat2(folder, path, flags, mode, beneath) {
                Err(Errno::NOSYS) => UNKNOWN.store(true, Ordering::Relaxed),
                // Some sandboxes refuse the call itself in this way.
                Err(Errno::PERM) => {}
                result => return result,
            }
        }
    }
    walk_beneath(folder, path, flags, mode)
}

/// The same, one component at a time, for systems without `openat2`.
fn walk_beneath(
    folder: &OwnedFd,
    path: &str,
    flags: OFlags,
    mode: Mode,
) -> rustix::io::Result<OwnedFd> {
    let mut parents: Vec<&str> = path.split('/').collect();
    if parents.iter().any(|part| matches!(*part, "" | "." | "..")) {
        return Err(Errno::XDEV);
    }
    let name = parents.pop().unwrap_or_default();
    let mut at: Option<OwnedFd> = None;
    for part in parents {
        let from = at.as_ref().unwrap_or(folder);
        let next = fs::openat(from, part, FOLDER | OFlags::CLOEXEC, Mode::empty());
        at = Some(next.map_err(|error| match error {
            // A link opened as a folder without following it is "not a folder" to some.
            Errno::MLINK => Errno::LOOP,
            error => error,
        })?);
    }
    fs::openat(
        at.as_ref().unwrap_or(folder),
        name,
        flags | OFlags::NOFOLLOW,
        mode,
    )
}

/// Whether a state is that of a folder.
pub(super) fn is_folder(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

/// Change time in nanoseconds since 1970.
pub(super) fn ctime(stat: &Stat) -> i64 {
    stat.st_ctime
        .saturating_mul(1_000_000_000)
        .saturating_add(stat.st_ctime_nsec as i64)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn no_way_of_opening_follows_a_link_or_leaves_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let (root, out) = (folder.path().join("root"), folder.path().join("out"));
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::fs::create_dir(&out).unwrap();
        std::fs::write(root.join("a/b/file"), b"x").unwrap();
        std::fs::write(out.join("file"), b"x").unwrap();
        symlink(&out, root.join("a/link")).unwrap();
        symlink("b/file", root.join("a/inner")).unwrap();
        let dir = Dir::open(&root).unwrap();
        let open = [open_beneath, walk_beneath];
        for open in open {
            let at = |path| open(&dir.0, path, READ, Mode::empty()).map(|_| ());
            assert_eq!(at("a/b/file"), Ok(()));
            assert_eq!(at("a/inner"), Err(Errno::LOOP));
            assert!(at("a/link/file").is_err());
            assert!(at("a/link").is_err());
            assert_eq!(at("../out/file"), Err(Errno::XDEV));
            assert_eq!(at("/etc/passwd"), Err(Errno::XDEV));
            assert_eq!(at("a/b/none"), Err(Errno::NOENT));
        }
    }

    #[test]
    fn a_stale_handle_is_asked_for_again_three_times() {
        for (stale, expected) in [(0, Ok(1)), (3, Ok(4)), (4, Err(Errno::STALE))] {
            let mut asked = 0;
            let result = until_fresh(|| {
                asked += 1;
                if asked > stale {
                    Ok(asked)
                } else {
                    Err(Errno::STALE)
                }
            });
            assert_eq!(result, expected);
        }
        let result: rustix::io::Result<()> = until_fresh(|| Err(Errno::NOENT));
        assert_eq!(result, Err(Errno::NOENT));
    }
}
