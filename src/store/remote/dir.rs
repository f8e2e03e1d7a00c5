//! A shared folder: a store of its own, on a file system that others write to as well.
//!
//! Everything goes through the store's handle on its folder, which follows no link and reads only
//! regular files, and everything is published as in a store. What others planted in place of an
//! entry is a wrong answer to a reader, and goes into quarantine when the entry is written.

use std::{
    fs::File,
    io::{self, Write},
    path::Path,
    sync::Arc,
};

use rustix::io::Errno;

use super::{Body, Entry, Fault, PIECE, Remote, collect, copy, is_plain, not_of_size, read_at};
use crate::{
    digest::FileMemo,
    store::{
        Inner, Options, Store, StoreError,
        dir::{Dir, Found, is_folder, is_regular, mtime},
        publish::{Place, Present},
        tmp::Tmp,
    },
};

/// Folders deeper than this are not listed; a store's own are four deep.
const DEEPEST: usize = 8;

/// A shared folder, or why it is not there.
#[derive(Debug)]
pub(super) struct Shared {
    name: String,
    store: Result<Store, Fault>,
}

impl Shared {
    /// Opens the folder at `root`, making it, but none above it, unless it is only to be read.
    pub(super) fn open(name: &str, root: &Path, read_only: bool) -> Result<Self, StoreError> {
        let options = Options {
            durable: true,
            memo: Arc::new(FileMemo::in_memory()),
        };
        let opened = if read_only {
            Store::open_to_read(root, options)
        } else {
            std::fs::create_dir(root)
                .or_else(|error| match error.kind() {
                    io::ErrorKind::AlreadyExists => Ok(()),
                    // Of a file system that can only be read, say: opening tells.
                    _ if root.exists() => Ok(()),
                    _ => Err(StoreError::io("make", root, error)),
                })
                .and_then(|()| Store::open_with(root, options))
        };
        let store = match opened {
            Ok(store) => Ok(store),
            Err(StoreError::Io { cause, .. }) => Err(match fault("open it", &cause) {
                Fault::Offline(reason) => Fault::Offline(format!("{reason}; is it mounted?")),
                fault => fault,
            }),
            Err(error) => return Err(error),
        };
        Ok(Self {
            name: name.to_owned(),
            store,
        })
    }

    fn inner(&self) -> Result<&Inner, Fault> {
        match &self.store {
            Ok(store) => Ok(&store.0),
            Err(fault) => Err(fault.clone()),
        }
    }

    fn file(&self, path: &str) -> Result<Option<(File, u64)>, Fault> {
        match self.inner()?.dir.look(path) {
            Ok(Found::File(file, identity)) => Ok(Some((file, identity.size))),
            Ok(Found::Absent) => Ok(None),
            Ok(Found::Strange(what, _)) => Err(Fault::Wrong(format!("`{path}` is {what}"))),
            Err(error) => Err(fault("open it", &error)),
        }
    }
}

impl Remote for Shared {
    fn name(&self) -> &str {
        &self.name
    }

    fn get(&self, path: &str, most: u64) -> Result<Option<Vec<u8>>, Fault> {
        let Some((mut file, size)) = self.file(path)? else {
            return Ok(None);
        };
        collect(&mut file, most, size, |error| fault("read it", error)).map(Some)
    }

    fn read(&self, path: &str, size: u64, sink: &mut dyn Write) -> Result<bool, Fault> {
        let Some((mut file, found)) = self.file(path)? else {
            return Ok(false);
        };
        if found != size {
            return Err(not_of_size(found, size));
        }
        copy(&mut file, size, sink, |error| fault("read it", error))?;
        Ok(true)
    }

    fn put_new(&self, path: &str, body: Body<'_>) -> Result<bool, Fault> {
        let inner = self.inner()?;
        let place = place(path);
        // A long file is not copied for nothing.
        if matches!(body, Body::File(..)) && matches!(self.file(path), Ok(Some(_))) {
            let settled =
                (inner.folder(&place.folder)).and_then(|folder| inner.settle(&folder, &place.name));
            return settled.map(|()| false).map_err(|e| fault("read it", &e));
        }
        let mut tmp = inner.tmp().map_err(|error| refused(&error))?;
        fill(&mut tmp, body)?;
        let judge = |path: &str| {
            Ok(match inner.dir.look(path)? {
                Found::File(..) => Present::Good(()),
                Found::Absent => Present::Absent,
                Found::Strange(what, id) => Present::Bad(what, id),
            })
        };
        let there = inner.publish(&place, tmp, &judge);
        Ok(there.map_err(|error| refused(&error))?.is_none())
    }

    fn replace(&self, path: &str, bytes: &[u8]) -> Result<(), Fault> {
        let inner = self.inner()?;
        let mut tmp = inner.tmp().map_err(|error| refused(&error))?;
        fill(&mut tmp, Body::Bytes(bytes))?;
        inner
            .overwrite(&place(path), tmp, 0o444, inner.durable)
            .map_err(|error| refused(&error))
    }

    fn stat(&self, path: &str) -> Result<Option<Entry>, Fault> {
        let stat = self.inner()?.dir.stat(path);
        match stat.map_err(|error| fault("look at it", &error))? {
            None => Ok(None),
            Some(stat) if is_regular(&stat) => Ok(Some(Entry {
                path: path.to_owned(),
                size: stat.st_size as u64,
                modified: mtime(&stat),
            })),
            Some(_) => Err(Fault::Wrong(format!("`{path}` is not a file"))),
        }
    }

    fn list(&self, folder: &str, most: usize) -> Result<Vec<Entry>, Fault> {
        let inner = self.inner()?;
        let mut entries = Vec::new();
        let dir = match inner.dir.dir(folder) {
            Ok(dir) => dir,
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::NOENT) => return Ok(entries),
                _ => return Err(fault("list it", &error)),
            },
        };
        gather(&dir, folder, DEEPEST, most, &mut entries).map_err(|e| fault("list it", &e))?;
        Ok(entries)
    }

    fn remove(&self, path: &str) -> Result<(), Fault> {
        let inner = self.inner()?;
        if inner.read_only {
            return Err(refused(&StoreError::ReadOnly(inner.root.clone())));
        }
        let place = place(path);
        let folder = match place.folder.as_str() {
            "" => inner.dir.try_clone(),
            folder => inner.dir.dir(folder),
        };
        let removed = folder.and_then(|folder| folder.unlink(&place.name));
        match removed {
            Ok(()) => Ok(()),
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::NOENT) => Ok(()),
                _ => Err(fault("remove it", &error)),
            },
        }
    }

    fn now(&self) -> Result<i64, Fault> {
        let inner = self.inner()?;
        if inner.read_only {
            return Err(refused(&StoreError::ReadOnly(inner.root.clone())));
        }
        inner.now().map_err(|error| fault("write in it", &error))
    }
}

fn place(path: &str) -> Place {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    Place::new(folder, name)
}

fn fill(tmp: &mut Tmp, body: Body<'_>) -> Result<(), Fault> {
    let failed = |error: io::Error| fault("write in it", &error);
    match body {
        Body::Bytes(bytes) => tmp.file().write_all(bytes).map_err(failed),
        Body::File(file, size) => {
            let mut piece = vec![0; PIECE.min(size as usize)];
            let mut at = 0;
            while at < size {
                let want = piece.len().min((size - at) as usize);
                read_at(file, &mut piece[..want], at)?;
                tmp.file().write_all(&piece[..want]).map_err(failed)?;
                at += want as u64;
            }
            Ok(())
        }
    }
}

fn gather(
    dir: &Dir,
    folder: &str,
    deep: usize,
    most: usize,
    entries: &mut Vec<Entry>,
) -> io::Result<()> {
    for name in dir.names()? {
        if entries.len() >= most {
            break;
        }
        // Planted names and entries of other kinds are not ours to tell of.
        let (true, Some(stat)) = (is_plain(&name), dir.stat(&name)?) else {
            continue;
        };
        let path = format!("{folder}/{name}");
        if is_regular(&stat) {
            entries.push(Entry {
                path,
                size: stat.st_size as u64,
                modified: mtime(&stat),
            });
        } else if is_folder(&stat) && deep > 0 {
            match dir.dir(&name) {
                Ok(below) => gather(&below, &path, deep - 1, most, entries)?,
                // Removed or replaced meanwhile.
                Err(error) => match Errno::from_io_error(&error) {
                    Some(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => {}
                    _ => return Err(error),
                },
            }
        }
    }
    Ok(())
}

fn refused(error: &StoreError) -> Fault {
    match error {
        StoreError::Io { action, cause, .. } => fault(action, cause),
        StoreError::ReadOnly(_) => Fault::Denied("the folder can only be read".to_owned()),
        error => Fault::Wrong(error.to_string()),
    }
}

/// What an error of the file system says about the place.
fn fault(action: &str, error: &io::Error) -> Fault {
    let text = format!("failed to {action}: {error}");
    match Errno::from_io_error(error) {
        Some(
            Errno::ACCESS | Errno::PERM | Errno::ROFS | Errno::NOSPC | Errno::DQUOT | Errno::FBIG,
        ) => Fault::Denied(text),
        Some(Errno::LOOP | Errno::NOTDIR | Errno::ISDIR | Errno::NXIO | Errno::XDEV) => {
            Fault::Wrong(text)
        }
        Some(_) => Fault::Offline(text),
        None => Fault::Wrong(text),
    }
}
