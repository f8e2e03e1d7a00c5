//! The cache: objects named by their BLAKE3, records of what was computed, packs of items.
//!
//! Objects are durable before a record names them; everything is published by one atomic step
//! and never edited in place; every read is verified. Damage and absence are misses, so no lock
//! is needed: two runners at once, or a killed one, leave nothing that a later run must repair.
//!
//! ```text
//! CACHEDIR.TAG  FORMAT                   "runner-cache 1 blake3"
//! objects/ab/<62 hex>                    bytes, read-only
//! actions/<domain>/ab/<62 hex>           a record; the first one wins
//! items/ab/<62 hex of space>/<64 hex>    a pack of small values
//! runs/<id>.json  pins/<name>  index/<name>  leases/<run>  divergences/<key>.json
//! fetched/                               signed records of others, see [`shared`]
//! tmp/<host>-<pid>-<random>  quarantine/  trash/<yyyymmdd>/
//! ```

mod dir;
mod divergence;
mod document;
mod error;
#[doc(hidden)]
pub mod fuzz;
mod gc;
mod index;
mod items;
mod list;
mod objects;
mod overlay;
mod pack;
mod pins;
mod publish;
mod record;
mod records;
mod remote;
mod runs;
mod shared;
mod tmp;
mod verify;

use std::{
    collections::HashSet,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use rustix::io::Errno;

use self::{
    dir::{Dir, Found},
    publish::{Place, Present},
};
pub use self::{
    divergence::{Divergence, Side},
    error::{Hint, StoreError, advice},
    gc::{GcPolicy, GcReport},
    index::Generation,
    items::Items,
    list::{Count, Stats},
    record::{Output, Record},
    records::Committed,
    shared::{
        Lease, PendingUpload, RemoteGc, RemoteOptions, RemoteProblem, RemoteRun, RemoteVerify,
        Shared, UploadReport, UploadState, Working,
    },
    verify::{Problem, VerifyReport},
};
use crate::digest::{Digest, FileMemo};

/// The format of a store, as `FORMAT` states it.
const FORMAT: u32 = 1;
const TAG: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55\n\
    # A cache made by runner. It may be deleted: what it held is then computed again.\n";
/// What may lie in a store's folder before its `FORMAT` does.
const LAYOUT: [&str; 18] = [
    "CACHEDIR.TAG",
    "FORMAT",
    "objects",
    "actions",
    "items",
    "runs",
    "leases",
    "divergences",
    "fetched",
    "recipes",
    "packs",
    "epoch",
    "pins",
    "index",
    "tmp",
    "quarantine",
    "trash",
    "lost+found",
];
/// More warnings than this are counted no further.
const MOST_WARNINGS: usize = 1000;

/// A store in a folder. Clones share it; threads and processes may use one folder at once.
#[derive(Debug, Clone)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    dir: Dir,
    read_only: bool,
    durable: bool,
    host: String,
    memo: Arc<FileMemo>,
    /// How far the clock that stamps the files is ahead of this machine's, in nanoseconds.
    skew: i64,
    /// Folders whose own entries this process knows to be on the disk.
    settled: Mutex<HashSet<String>>,
    warnings: Mutex<Vec<Warning>>,
    /// Held while a divergence is noted.
    diverging: Mutex<()>,
    /// What other runs on this store were last seen to compute.
    leases_seen: Mutex<shared::Seen>,
    /// The shared caches behind this store, once they are connected.
    sharing: OnceLock<shared::Sharing>,
    /// A store that can only be read, and that this one lies over.
    beneath: OnceLock<Store>,
}

/// How a store is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whether what is acknowledged survives a power cut (`fsync`). Without it a cut can leave
    /// damaged entries, which are found on reading and computed again.
    pub durable: bool,
    /// Where digests of verified objects are remembered; share it with whoever digests data.
    pub memo: Arc<FileMemo>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            durable: true,
            memo: Arc::new(FileMemo::open_default()),
        }
    }
}

/// Something found in the store that was not as it should be, and was treated as a miss.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The entry, relative to the store's folder.
    pub path: String,
    /// What is wrong with it.
    pub reason: String,
}

impl Store {
    /// Opens the store in the folder `root`, making it if there is none.
    ///
    /// A folder that cannot be written is opened for reading; see [`read_only`](Self::read_only).
    ///
    /// # Errors
    /// The folder holds something else, a store of a later format, or cannot be made or read.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        Self::open_with(root, Options::default())
    }

    /// Opens the store in the folder `root` with `options`.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn open_with(root: &Path, options: Options) -> Result<Self, StoreError> {
        let failed = |error: io::Error| StoreError::io("open the cache", root, error);
        let new: Vec<_> = root.ancestors().take_while(|path| !path.exists()).collect();
        std::fs::create_dir_all(root).map_err(failed)?;
        let full = std::fs::canonicalize(root).map_err(failed)?;
        let dir = Dir::open(&full).map_err(failed)?;
        let mut inner = Inner::new(full, dir, options);
        if inner.durable {
            for folder in new.iter().filter_map(|path| path.parent()) {
                let folder = if folder == Path::new("") {
                    Path::new(".")
                } else {
                    folder
                };
                Dir::open(folder)
                    .and_then(|folder| folder.sync())
                    .map_err(failed)?;
            }
        }
        let known = inner.check_kind(root)?;
        match inner.sweep() {
            Ok(skew) => inner.skew = skew,
            Err(error) if is_refusal(&error) => inner.read_only = true,
            // A full disk, say: what is there can be read, and each write will say so.
            Err(_) if known => {}
            Err(error) => return Err(failed(error)),
        }
        if !inner.read_only {
            if !known {
                inner.write_once(
                    "FORMAT",
                    format!("runner-cache {FORMAT} blake3\n").as_bytes(),
                )?;
                inner.check_format()?;
            }
            if !matches!(inner.dir.look("CACHEDIR.TAG"), Ok(Found::File(..))) {
                // The tag only tells other tools not to back the folder up.
                let _ = inner.write_once("CACHEDIR.TAG", TAG);
            }
        }
        Ok(Self(Arc::new(inner)))
    }

    /// Opens the store in the folder `root`, which must be there, and never writes in it.
    fn open_to_read(root: &Path, options: Options) -> Result<Self, StoreError> {
        let failed = |error: io::Error| StoreError::io("open the cache", root, error);
        let full = std::fs::canonicalize(root).map_err(failed)?;
        let dir = Dir::open(&full).map_err(failed)?;
        let mut inner = Inner::new(full, dir, options);
        inner.read_only = true;
        inner.check_kind(root)?;
        Ok(Self(Arc::new(inner)))
    }

    /// The store's folder.
    pub fn root(&self) -> &Path {
        &self.0.root
    }

    /// Whether the folder can only be read; every write then gives [`StoreError::ReadOnly`].
    pub fn read_only(&self) -> bool {
        self.0.read_only
    }

    /// Takes what was found wrong since the last call (at most 1,000 entries).
    pub fn take_warnings(&self) -> Vec<Warning> {
        std::mem::take(&mut *lock(&self.0.warnings))
    }
}

impl Inner {
    fn new(root: PathBuf, dir: Dir, options: Options) -> Self {
        Self {
            root,
            dir,
            read_only: false,
            durable: options.durable,
            host: tmp::host(),
            memo: options.memo,
            skew: 0,
            settled: Mutex::default(),
            warnings: Mutex::default(),
            diverging: Mutex::default(),
            leases_seen: Mutex::default(),
            sharing: OnceLock::new(),
            beneath: OnceLock::new(),
        }
    }

    /// Refuses a folder that holds something else; says whether `FORMAT` is there already.
    fn check_kind(&self, root: &Path) -> Result<bool, StoreError> {
        let known = self.check_format()?;
        if !known {
            let names = self.dir.names();
            let names = names.map_err(|error| StoreError::io("open the cache", root, error))?;
            if names.iter().any(|name| !LAYOUT.contains(&name.as_str())) {
                return Err(StoreError::NotACache(root.to_owned()));
            }
        }
        Ok(known)
    }

    /// Checks `FORMAT`; says whether there is one.
    fn check_format(&self) -> Result<bool, StoreError> {
        let failed = |error| StoreError::io("read", self.root.join("FORMAT"), error);
        let found = match self.dir.look("FORMAT").map_err(failed)? {
            Found::Absent => return Ok(false),
            Found::File(file, _) => {
                let mut text = Vec::new();
                io::Read::read_to_end(&mut io::Read::take(file, 64), &mut text).map_err(failed)?;
                String::from_utf8_lossy(&text).into_owned()
            }
            Found::Strange(what, _) => what,
        };
        let number = found
            .strip_prefix("runner-cache ")
            .and_then(|rest| rest.split_whitespace().next()?.parse::<u32>().ok());
        match number {
            Some(found) if found > FORMAT => Err(StoreError::NewerFormat {
                root: self.root.clone(),
                found,
                known: FORMAT,
            }),
            Some(FORMAT) if found == format!("runner-cache {FORMAT} blake3\n") => Ok(true),
            _ => Err(StoreError::UnknownFormat {
                root: self.root.clone(),
                found: found.lines().next().unwrap_or_default().to_owned(),
            }),
        }
    }

    fn write_once(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let place = Place::new("", name);
        let tmp = self.tmp_with(bytes)?;
        self.publish(&place, tmp, &|path| {
            Ok(match self.dir.look(path)? {
                Found::File(..) => Present::Good(()),
                Found::Absent => Present::Absent,
                Found::Strange(what, id) => Present::Bad(what, id),
            })
        })?;
        Ok(())
    }

    fn warn(&self, path: &str, reason: &str) {
        tracing::warn!(path, reason, "a cache entry is not as it should be");
        self.note(path, reason);
    }

    /// Keeps a warning for whoever asks for those of this process.
    fn note(&self, path: &str, reason: &str) {
        let mut warnings = lock(&self.warnings);
        if warnings.len() < MOST_WARNINGS {
            warnings.push(Warning {
                path: path.to_owned(),
                reason: reason.to_owned(),
            });
        }
    }

    /// An error of the operating system about something in the store.
    fn io(&self, action: &'static str, path: &str, error: impl Into<io::Error>) -> StoreError {
        StoreError::io(action, self.root.join(path), error)
    }
}

/// The folder and name of an entry named by a digest.
fn shard(prefix: &str, digest: &Digest) -> Place {
    let hex = digest.to_string();
    Place::new(&format!("{prefix}/{}", &hex[..2]), &hex[2..])
}

/// The digest that names the entry `name` in the shard `folder`.
fn unshard(folder: &str, name: &str) -> Option<Digest> {
    let hex = format!("{folder}{name}");
    // Upper-case digits would be another file of the same digest.
    let plain = hex.len() == 64 && !hex.bytes().any(|b| b.is_ascii_uppercase());
    plain.then(|| hex.parse().ok())?
}

/// Whether a name can be a file name on every system, and hides nothing.
fn check_name(name: &str) -> Result<(), StoreError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let good =
        (1..=128).contains(&name.len()) && name.bytes().all(plain) && !name.starts_with(['.', '-']);
    good.then_some(())
        .ok_or_else(|| StoreError::BadName(name.to_owned()))
}

/// Whether the system said that this user may not write here.
fn is_refusal(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::ROFS | Errno::ACCESS | Errno::PERM)
    )
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
