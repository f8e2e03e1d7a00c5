//! Places where a team's cache lies: a shared folder, a bucket, a web server.
//!
//! All are laid out like a store's folder and answer the same few questions. Nothing that they
//! say is believed beyond its length here; digests and signatures are checked by the caller.
//! Calls block, and may come from several threads at once.
//!
//! After [`GIVE_UP`] calls in a row that did not reach the place, it is not asked again while
//! this process lives: a run must not wait for each of its nodes to learn the same.

mod cloud;
mod dav;
mod dir;
mod exchange;
mod multistatus;
mod profile;
mod secret;
#[cfg(test)]
mod tests;
mod unusable;
mod wire;

use std::{
    collections::HashMap,
    ffi::OsString,
    fmt::Debug,
    fs::File,
    io::{self, Read, Write},
    os::unix::fs::FileExt,
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
};

use ureq::http::Uri;

use self::wire::Limits;
use super::StoreError;

/// So many failures to reach a place in a row, and it is not asked again.
const GIVE_UP: u32 = 3;
/// How much is copied at a time.
const PIECE: usize = 256 << 10;

/// A place that holds entries under paths such as `objects/ab/…`, laid out like a store's folder.
pub(crate) trait Remote: Send + Sync + Debug {
    /// For people, without any secret in it.
    fn name(&self) -> &str;

    /// The entry's bytes; nothing if it is absent; a fault if it is longer than `most`, of which
    /// no more than one byte further is read.
    fn get(&self, path: &str, most: u64) -> Result<Option<Vec<u8>>, Fault>;

    /// Writes the entry's bytes into `sink` in pieces; false if it is absent; a fault if it is
    /// not exactly `size` bytes. After a fault the sink holds anything. A sink that fails is a
    /// [`Fault::Wrong`] that says so.
    fn read(&self, path: &str, size: u64, sink: &mut dyn Write) -> Result<bool, Fault>;

    /// Makes the entry unless there is one, in one step for readers; says whether it was made.
    ///
    /// Some services only look first: two writers may both be told so, and the last one's bytes
    /// stay. That holds for files above 64 MiB on all clouds.
    fn put_new(&self, path: &str, body: Body<'_>) -> Result<bool, Fault>;

    /// Puts the entry in place of what is there, in one step for readers.
    fn replace(&self, path: &str, bytes: &[u8]) -> Result<(), Fault>;

    /// Size and date of an entry.
    fn stat(&self, path: &str) -> Result<Option<Entry>, Fault>;

    /// Every entry below `folder` and its folders, at most `most`. Names that no store writes
    /// are left out.
    fn list(&self, folder: &str, most: usize) -> Result<Vec<Entry>, Fault>;

    /// Removes an entry; it may be absent.
    fn remove(&self, path: &str) -> Result<(), Fault>;

    /// The time on the place's own clock, in nanoseconds since 1970: the one that dates entries.
    fn now(&self) -> Result<i64, Fault>;
}

/// An entry as a place tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Where it lies, from the place's root.
    pub(crate) path: String,
    /// Its length in bytes.
    pub(crate) size: u64,
    /// When it was written, in nanoseconds since 1970 on the place's clock.
    pub(crate) modified: i64,
}

/// What is to be written.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Body<'a> {
    /// These bytes.
    Bytes(&'a [u8]),
    /// This file from its beginning, and its size.
    File(&'a File, u64),
}

/// Why a place did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    /// It was not reached, or is too busy.
    #[error("not reachable: {0}")]
    Offline(String),
    /// It was reached and does not allow it.
    #[error("not allowed: {0}")]
    Denied(String),
    /// What it answered makes no sense.
    #[error("a wrong answer: {0}")]
    Wrong(String),
    /// It does not know how.
    #[error("not offered: {0}")]
    Unsupported(String),
}

/// Why a remote cannot be used at all: its description is wrong, a folder holds other things, or
/// there is something wrong on this machine.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// A shared folder that is no cache.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What the environment or the user's files say does not allow it on this machine.
    #[error("{0}")]
    Unusable(String),
    /// An address that means nothing here.
    #[error("use `{url}` as a remote: {reason}\nhint: {hint}")]
    Address {
        /// The address without user, password and query.
        url: String,
        /// What is wrong with it.
        reason: String,
        /// What may help.
        hint: String,
    },
}

/// What addresses of other remotes than folders begin with.
const SCHEMES: [&str; 5] = ["s3", "gs", "az", "http", "https"];

/// A remote that says to every question why it cannot be used.
pub(crate) fn unusable(name: &str, reason: String) -> Box<dyn Remote> {
    let name = plain(name);
    Box::new(unusable::Unusable { name, reason })
}

/// Opens the remote called `name` that `url` tells of.
///
/// A path or `file:///…` is a shared folder; relative paths start at `base`. A folder that is not
/// there, since its file system is not mounted, gives a remote that is offline. `s3://…`, `gs://…`
/// and `az://…` name a bucket and a folder in it, and `https://…` or `http://…` a folder of a web
/// server. Nothing is asked yet.
///
/// What else is to be known comes from the environment: `AWS_…`, `GOOGLE_…` and `AZURE_…` as their
/// own tools have them, and for a web server the variables that [`secret::variables`] names. Where
/// it says nothing, the files of those tools do: see [`profile`].
///
/// # Errors
/// The address means nothing here, has a password in it, or names a folder that is no cache; or
/// what the environment or the user's files say does not allow it.
pub(crate) fn open(
    name: &str,
    url: &str,
    base: &Path,
    read_only: bool,
) -> Result<Box<dyn Remote>, OpenError> {
    let env = std::env::vars_os();
    let env = env.filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
    open_with(name, url, base, read_only, Limits::default(), env.collect())
}

/// The same with other limits and another environment.
fn open_with(
    name: &str,
    url: &str,
    base: &Path,
    read_only: bool,
    limits: Limits,
    env: HashMap<String, OsString>,
) -> Result<Box<dyn Remote>, OpenError> {
    let wrong = |reason: &str, hint: &str| OpenError::Address {
        url: plain(url),
        reason: reason.to_owned(),
        hint: hint.to_owned(),
    };
    let name = plain(name);
    let Some((scheme, rest)) = url.split_once("://") else {
        let shared = dir::Shared::open(&name, &base.join(url), read_only)?;
        return Ok(Box::new(Guarded::new(shared, read_only)));
    };
    if scheme == "file" {
        let path = rest.strip_prefix("localhost").unwrap_or(rest);
        let path = path.starts_with('/').then(|| decode(path)).flatten();
        let path = path.ok_or_else(|| {
            wrong(
                "it names no folder of this machine",
                "write three slashes, as in `file:///data/cache`, or a plain path",
            )
        })?;
        let shared = dir::Shared::open(&name, Path::new(&path), read_only)?;
        return Ok(Box::new(Guarded::new(shared, read_only)));
    }
    if !SCHEMES.contains(&scheme) {
        return Err(wrong(
            "it is not a kind of remote",
            "write a path, `s3://…`, `gs://…`, `az://…`, `https://…` or `http://…`",
        ));
    }
    let (host, folder) = rest.split_once('/').unwrap_or((rest, ""));
    if host.contains('@') {
        return Err(wrong(
            "it has a user or a password in it, which others would read",
            &secret::hint(scheme, &name),
        ));
    }
    if rest.contains(['?', '#']) {
        return Err(wrong("it has a query in it", &secret::hint(scheme, &name)));
    }
    let folder = folder.trim_end_matches('/');
    let parts = folder.split('/').filter(|_| !folder.is_empty());
    let mut parts = parts.filter(|part| super::check_name(part).is_err());
    if let Some(part) = parts.next() {
        return Err(wrong(
            &format!("`{part}` cannot be a folder of it"),
            "use letters, digits, `.`, `_` and `-`",
        ));
    }
    if let "http" | "https" = scheme {
        if format!("{scheme}://{host}/").parse::<Uri>().is_err() {
            return Err(wrong(
                "it names no server",
                "write the server's name after the slashes, as in `https://host/folder`",
            ));
        }
        let dav = dav::Dav::open(&name, scheme, host, folder, limits, env)
            .map_err(OpenError::Unusable)?;
        return Ok(Box::new(Guarded::new(dav, read_only)));
    }
    if super::check_name(host).is_err() {
        return Err(wrong(
            "it names no bucket",
            "write the bucket's name after the slashes, as in `s3://bucket/folder`",
        ));
    }
    let cloud = cloud::Cloud::open(&name, scheme, host, folder, limits, env)
        .map_err(OpenError::Unusable)?;
    Ok(Box::new(Guarded::new(cloud, read_only)))
}

/// What all remotes have in common: they are asked only sensible questions, and not again once
/// they do not answer.
#[derive(Debug)]
struct Guarded<R> {
    remote: R,
    read_only: bool,
    /// Calls in a row that did not reach it.
    missed: AtomicU32,
}

impl<R: Remote> Guarded<R> {
    fn new(remote: R, read_only: bool) -> Self {
        Self {
            remote,
            read_only,
            missed: AtomicU32::new(0),
        }
    }

    fn ask<T>(&self, path: &str, ask: impl FnOnce(&R) -> Result<T, Fault>) -> Result<T, Fault> {
        if !is_plain(path) {
            return Err(Fault::Wrong(format!("`{path}` cannot be an entry")));
        }
        if self.missed.load(Ordering::Relaxed) >= GIVE_UP {
            return Err(Fault::Offline("not asked again in this run".to_owned()));
        }
        let answer = ask(&self.remote);
        if let Err(Fault::Offline(reason)) = &answer {
            let before = self.missed.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(remote = self.remote.name(), path, reason, "not reached");
            if before + 1 == GIVE_UP {
                tracing::warn!(remote = self.remote.name(), reason, "not asked again");
            }
        } else {
            // Calls that were under way when it was given up change nothing.
            let still = |missed| (missed < GIVE_UP).then_some(0);
            let order = Ordering::Relaxed;
            let _ = self.missed.fetch_update(order, order, still);
        }
        answer
    }

    fn write<T>(&self, path: &str, write: impl FnOnce(&R) -> Result<T, Fault>) -> Result<T, Fault> {
        if self.read_only {
            return Err(Fault::Denied("it is used for reading only".to_owned()));
        }
        self.ask(path, write)
    }
}

impl<R: Remote> Remote for Guarded<R> {
    fn name(&self) -> &str {
        self.remote.name()
    }

    fn get(&self, path: &str, most: u64) -> Result<Option<Vec<u8>>, Fault> {
        self.ask(path, |remote| remote.get(path, most))
    }

    fn read(&self, path: &str, size: u64, sink: &mut dyn Write) -> Result<bool, Fault> {
        self.ask(path, |remote| remote.read(path, size, sink))
    }

    fn put_new(&self, path: &str, body: Body<'_>) -> Result<bool, Fault> {
        self.write(path, |remote| remote.put_new(path, body))
    }

    fn replace(&self, path: &str, bytes: &[u8]) -> Result<(), Fault> {
        self.write(path, |remote| remote.replace(path, bytes))
    }

    fn stat(&self, path: &str) -> Result<Option<Entry>, Fault> {
        self.ask(path, |remote| remote.stat(path))
    }

    fn list(&self, folder: &str, most: usize) -> Result<Vec<Entry>, Fault> {
        self.ask(folder, |remote| remote.list(folder, most))
    }

    fn remove(&self, path: &str) -> Result<(), Fault> {
        self.write(path, |remote| remote.remove(path))
    }

    fn now(&self) -> Result<i64, Fault> {
        self.write("tmp", R::now)
    }
}

/// Whether all parts of a path are names that a store writes.
fn is_plain(path: &str) -> bool {
    path.len() <= 512 && path.split('/').all(|part| super::check_name(part).is_ok())
}

/// An address without what may be secret in it: user, password, query.
fn plain(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let host = host.rsplit('@').next().unwrap_or_default();
            format!("{scheme}://{host}{path}")
        }
        None => url.to_owned(),
    }
}

/// A text with `%41` and the like taken for what they stand for; nothing if that is no text.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first == b'%' {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            let digits = digits
                .bytes()
                .all(|b| b.is_ascii_hexdigit())
                .then_some(digits)?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).ok()
}

/// Copies exactly `size` bytes and makes sure that nothing follows; `failed` tells what an error
/// of the source means.
fn copy(
    source: &mut dyn Read,
    size: u64,
    sink: &mut dyn Write,
    failed: impl Fn(&io::Error) -> Fault,
) -> Result<(), Fault> {
    let mut piece = vec![0; PIECE.min(size as usize + 1)];
    let mut done = 0;
    loop {
        let count = match source.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(failed(&error)),
        };
        done += count as u64;
        if done > size {
            return Err(Fault::Wrong(format!("longer than {size} bytes")));
        }
        sink.write_all(&piece[..count]).map_err(|e| unwritten(&e))?;
    }
    if done < size {
        return Err(not_of_size(done, size));
    }
    Ok(())
}

/// At most `most` bytes, all there are.
fn collect(
    source: &mut dyn Read,
    most: u64,
    expected: u64,
    failed: impl Fn(&io::Error) -> Fault,
) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::with_capacity(expected.min(most).min(PIECE as u64) as usize);
    let read = source.take(most.saturating_add(1)).read_to_end(&mut bytes);
    read.map_err(|error| failed(&error))?;
    if bytes.len() as u64 > most {
        return Err(Fault::Wrong(format!("longer than {most} bytes")));
    }
    Ok(bytes)
}

fn unwritten(error: &io::Error) -> Fault {
    Fault::Wrong(format!("could not be written down here: {error}"))
}

fn not_of_size(found: u64, size: u64) -> Fault {
    Fault::Wrong(format!("{found} bytes in place of {size}"))
}

/// Fills `piece` from our own file.
fn read_at(file: &File, piece: &mut [u8], at: u64) -> Result<(), Fault> {
    file.read_exact_at(piece, at)
        .map_err(|error| Fault::Wrong(format!("our own file could not be read: {error}")))
}
