//! What was computed of a file, remembered on this machine until the file changes.
//!
//! A file is known by its device, inode, size, and modification and change times. Any of them
//! differing makes it another file, of which nothing is known. The memory is one derived file
//! in the user's cache folder: deleting it, or damaging it, costs only time.

use std::{
    collections::HashMap,
    env,
    ffi::OsString,
    fs::{self, Metadata},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::Digest;

/// A file touched this shortly before it was read may change again within the same clock tick.
const RACY: Duration = Duration::from_secs(2);
/// How many files are remembered; beyond it, those unused for longest go. A
/// folder of a million images fits: 80 bytes each on disk, 200 in memory.
const MOST_FILES: usize = 1 << 21;
/// The longest fact kept of a file, in bytes.
const LONGEST_FACT: usize = 4096;
/// The longest memory read back, in bytes.
const LONGEST_MEMORY: u64 = 256 << 20;
const MAGIC: &[u8; 16] = b"runner-memo 1\n\0\0";
const CONTEXT: &str = "runner file memo v1";
/// The fact that holds a file's own digest.
const OWN_DIGEST: &str = "";

/// What tells one state of one file from every other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Identity {
    /// The device and the inode.
    pub file: (u64, u64),
    /// Bytes.
    pub size: u64,
    /// Modification time, nanoseconds since 1970.
    pub mtime: i64,
    /// Change time, nanoseconds since 1970.
    pub ctime: i64,
}

impl Identity {
    /// The identity that a file's metadata states.
    pub fn of(metadata: &Metadata) -> Self {
        let nanoseconds = |s: i64, ns: i64| s.saturating_mul(1_000_000_000).saturating_add(ns);
        Self {
            file: (metadata.dev(), metadata.ino()),
            size: metadata.size(),
            mtime: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            ctime: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether a read begun at `now` may be followed by a change that leaves this identity as
    /// it is, because the clock of the file system had not moved on.
    fn is_racy(&self, now: SystemTime) -> bool {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let settled = i64::try_from(now.saturating_sub(RACY).as_nanos()).unwrap_or(i64::MAX);
        self.mtime.max(self.ctime) >= settled
    }
}

/// A memory of facts about files, shared by threads, and by processes through its file.
///
/// Nothing here fails a caller: what cannot be read is forgotten, what cannot be written stays
/// in memory.
#[derive(Debug)]
pub struct FileMemo {
    path: Option<PathBuf>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    loaded: bool,
    changed: bool,
    files: HashMap<(u64, u64), Entry>,
    /// Files asked about in vain, as they were then, and when that was.
    asked: HashMap<(u64, u64), (Identity, SystemTime)>,
}

#[derive(Debug, Clone)]
struct Entry {
    identity: Identity,
    /// The day of the last use, counted from 1970.
    used: u32,
    facts: Vec<(String, Vec<u8>)>,
}

impl FileMemo {
    /// The memory in `$RUNNER_STATE`, else `$XDG_CACHE_HOME/runner`, else `~/.cache/runner`.
    pub fn open_default() -> Self {
        let path = state_folder().map(|folder| folder.join("files"));
        Self {
            path,
            state: Mutex::default(),
        }
    }

    /// The memory in the file at `path`; it need not exist, and is read when first needed.
    pub fn open(path: &Path) -> Self {
        Self {
            path: Some(path.to_owned()),
            state: Mutex::default(),
        }
    }

    /// A memory that ends with the process.
    pub fn in_memory() -> Self {
        Self {
            path: None,
            state: Mutex::default(),
        }
    }

    /// The digest of the bytes of the file at `path`, read only if it is not known.
    ///
    /// # Errors
    /// Whatever opening or reading the file gives; the message names the file.
    pub fn digest_of(&self, path: &Path) -> io::Result<Digest> {
        let before = Identity::of(&fs_err::metadata(path)?);
        if let Some(digest) = self.known(&before) {
            return Ok(digest);
        }
        let began = SystemTime::now();
        let digest = Digest::of_file(path)?;
        if Identity::of(&fs_err::metadata(path)?) == before {
            self.remember(&before, began, digest);
        }
        Ok(digest)
    }

    /// The digest remembered of the file in this very state.
    pub fn known(&self, identity: &Identity) -> Option<Digest> {
        let bytes = self.fact(identity, OWN_DIGEST)?;
        Some(Digest::from_bytes(bytes.try_into().ok()?))
    }

    /// Remembers a digest of a file that was in state `identity` before and after it was read;
    /// `began` is when the reading began. A file changed shortly before is not remembered.
    pub fn remember(&self, identity: &Identity, began: SystemTime, digest: Digest) {
        if !identity.is_racy(began) {
            self.lock().set(identity, OWN_DIGEST, digest.as_bytes());
        }
    }

    /// What was noted under `tag` of the file at `path`, if the file is as it was then.
    ///
    /// Ask before reading the file: a later [`note`](Self::note) is about the state seen here.
    pub fn noted(&self, path: &Path, tag: &str) -> Option<Vec<u8>> {
        let now = SystemTime::now();
        let identity = Identity::of(&fs::metadata(path).ok()?);
        let found = self.fact(&identity, tag);
        if found.is_none() {
            self.lock().asked.insert(identity.file, (identity, now));
        }
        found
    }

    /// Notes a fact (at most 4 KiB) derived from the file at `path` under `tag`.
    ///
    /// It is kept only if [`noted`](Self::noted) was asked before, and the file has not changed
    /// since; otherwise it could be about other bytes.
    pub fn note(&self, path: &Path, tag: &str, fact: &[u8]) {
        let Ok(metadata) = fs::metadata(path) else {
            return;
        };
        let identity = Identity::of(&metadata);
        let mut state = self.lock();
        match state.asked.get(&identity.file) {
            Some((seen, when)) if *seen == identity && !identity.is_racy(*when) => {
                state.set(&identity, tag, fact);
            }
            _ => {}
        }
    }

    /// Writes what was learnt, together with what other processes wrote meanwhile.
    ///
    /// # Errors
    /// Whatever writing the file gives; a caller may ignore it, at the price of reading again.
    pub fn save(&self) -> io::Result<()> {
        let Some(path) = &self.path else {
            return Ok(());
        };
        let mut state = self.lock();
        if !state.changed {
            return Ok(());
        }
        for (file, entry) in read(path) {
            state.files.entry(file).or_insert(entry);
        }
        state.shrink(MOST_FILES);
        if let Some(folder) = path.parent() {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)?;
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            io::Write::write_all(&mut file, &encode(&state.files))?;
            file.persist(path)?;
        }
        state.changed = false;
        Ok(())
    }

    fn fact(&self, identity: &Identity, tag: &str) -> Option<Vec<u8>> {
        let mut state = self.lock();
        let entry = state.files.get_mut(&identity.file)?;
        if entry.identity != *identity {
            return None;
        }
        let (_, fact) = entry.facts.iter().find(|(known, _)| known == tag)?;
        let fact = fact.clone();
        let used = today();
        if entry.used != used {
            entry.used = used;
            state.changed = true;
        }
        Some(fact)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.loaded {
            state.loaded = true;
            if let Some(path) = &self.path {
                state.files = read(path);
            }
        }
        state
    }
}

impl Drop for FileMemo {
    fn drop(&mut self) {
        // Derived facts: losing them costs time, and a drop has nobody to tell.
        let _ = self.save();
    }
}

impl State {
    fn set(&mut self, identity: &Identity, tag: &str, fact: &[u8]) {
        if fact.len() > LONGEST_FACT || tag.len() > usize::from(u8::MAX) {
            return;
        }
        let fresh = Entry {
            identity: *identity,
            used: today(),
            facts: Vec::new(),
        };
        let entry = self.files.entry(identity.file).or_insert(fresh.clone());
        if entry.identity != *identity {
            *entry = fresh;
        }
        entry.facts.retain(|(known, _)| known != tag);
        if entry.facts.len() < usize::from(u8::MAX) {
            entry.facts.push((tag.to_owned(), fact.to_owned()));
        }
        self.changed = true;
    }

    fn shrink(&mut self, most: usize) {
        if self.files.len() > most {
            let mut ages: Vec<_> = self.files.iter().map(|(file, e)| (e.used, *file)).collect();
            ages.sort_unstable();
            for (_, file) in &ages[..self.files.len() - most] {
                self.files.remove(file);
            }
        }
    }
}

/// Where this program keeps what is this machine's alone: `$RUNNER_STATE`, else
/// `$XDG_CACHE_HOME/runner`, else `~/.cache/runner`.
pub fn state_folder() -> Option<PathBuf> {
    folder_of(|name| env::var_os(name))
}

fn folder_of(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let absolute = |name| {
        variable(name)
            .map(PathBuf::from)
            .filter(|p| p.is_absolute())
    };
    absolute("RUNNER_STATE")
        .or_else(|| absolute("XDG_CACHE_HOME").map(|p| p.join("runner")))
        .or_else(|| absolute("HOME").map(|p| p.join(".cache/runner")))
}

fn today() -> u32 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u32::try_from(now.as_secs() / 86_400).unwrap_or(u32::MAX)
}

/// The magic, a count, the entries, and the BLAKE3 of all that; numbers are little-endian.
fn encode(files: &HashMap<(u64, u64), Entry>) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend((files.len() as u64).to_le_bytes());
    for Entry {
        identity,
        used,
        facts,
    } in files.values()
    {
        out.extend(identity.file.0.to_le_bytes());
        out.extend(identity.file.1.to_le_bytes());
        out.extend(identity.size.to_le_bytes());
        out.extend(identity.mtime.to_le_bytes());
        out.extend(identity.ctime.to_le_bytes());
        out.extend(used.to_le_bytes());
        out.push(facts.len() as u8);
        for (tag, fact) in facts {
            out.push(tag.len() as u8);
            out.extend(tag.as_bytes());
            out.extend((fact.len() as u16).to_le_bytes());
            out.extend(fact);
        }
    }
    let hash = Digest::derived(CONTEXT, &out);
    out.extend(hash.as_bytes());
    out
}

fn read(path: &Path) -> HashMap<(u64, u64), Entry> {
    let small = fs::metadata(path).is_ok_and(|m| m.is_file() && m.len() <= LONGEST_MEMORY);
    let bytes = if small { fs::read(path).ok() } else { None };
    bytes.and_then(|b| decode(&b)).unwrap_or_default()
}

fn decode(bytes: &[u8]) -> Option<HashMap<(u64, u64), Entry>> {
    let (body, hash) = bytes.split_last_chunk::<32>()?;
    if Digest::derived(CONTEXT, body).as_bytes() != hash {
        return None;
    }
    let mut rest = body.strip_prefix(MAGIC)?;
    let count = u64::from_le_bytes(take(&mut rest)?);
    let mut files = HashMap::new();
    for _ in 0..count {
        let identity = Identity {
            file: (
                u64::from_le_bytes(take(&mut rest)?),
                u64::from_le_bytes(take(&mut rest)?),
            ),
            size: u64::from_le_bytes(take(&mut rest)?),
            mtime: i64::from_le_bytes(take(&mut rest)?),
            ctime: i64::from_le_bytes(take(&mut rest)?),
        };
        let used = u32::from_le_bytes(take(&mut rest)?);
        let [count] = take(&mut rest)?;
        let mut facts = Vec::with_capacity(usize::from(count));
        for _ in 0..count {
            let [length] = take(&mut rest)?;
            let tag = String::from_utf8(rest.split_off(..usize::from(length))?.to_owned()).ok()?;
            let length = u16::from_le_bytes(take(&mut rest)?);
            facts.push((tag, rest.split_off(..usize::from(length))?.to_owned()));
        }
        let entry = Entry {
            identity,
            used,
            facts,
        };
        files.insert(identity.file, entry);
    }
    rest.is_empty().then_some(files)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    rest.split_off(..N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use std::fs::{File, FileTimes};

    use super::*;

    /// Writes a file last modified an hour ago; its change time is still now.
    fn old_file(path: &Path, bytes: &[u8]) -> Identity {
        fs::write(path, bytes).unwrap();
        let hour_ago = SystemTime::now() - Duration::from_hours(1);
        let file = File::options().write(true).open(path).unwrap();
        file.set_times(FileTimes::new().set_modified(hour_ago))
            .unwrap();
        Identity::of(&file.metadata().unwrap())
    }

    /// As if the reading had begun when the file had long been at rest.
    fn later() -> SystemTime {
        SystemTime::now() + Duration::from_secs(10)
    }

    #[test]
    fn a_digest_is_remembered_across_processes_until_the_file_changes() {
        let folder = tempfile::tempdir().unwrap();
        let (memory, file) = (folder.path().join("state/files"), folder.path().join("a"));
        let identity = old_file(&file, b"one");
        let memo = FileMemo::open(&memory);
        // A digest that is not the file's shows whether the file was read.
        memo.remember(&identity, later(), Digest::of(b"mark"));
        assert_eq!(memo.digest_of(&file).unwrap(), Digest::of(b"mark"));
        drop(memo);
        let memo = FileMemo::open(&memory);
        assert_eq!(memo.digest_of(&file).unwrap(), Digest::of(b"mark"));
        old_file(&file, b"two");
        assert_eq!(memo.digest_of(&file).unwrap(), Digest::of(b"two"));
    }

    #[test]
    fn a_file_changed_just_now_is_not_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a");
        fs::write(&file, b"one").unwrap();
        let memo = FileMemo::in_memory();
        memo.digest_of(&file).unwrap();
        let identity = Identity::of(&fs::metadata(&file).unwrap());
        assert_eq!(memo.known(&identity), None);
    }

    #[test]
    fn a_fact_is_kept_only_of_the_state_that_was_asked_about() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a");
        let identity = old_file(&file, b"one");
        let memo = FileMemo::in_memory();
        memo.note(&file, "tower", b"unasked");
        assert_eq!(memo.noted(&file, "tower"), None);
        memo.lock().asked.insert(identity.file, (identity, later()));
        memo.note(&file, "tower", b"fact");
        assert_eq!(memo.noted(&file, "tower").as_deref(), Some(&b"fact"[..]));
        assert_eq!(memo.noted(&file, "other"), None);

        // The file changes between the question and the answer.
        let identity = old_file(&file, b"two!");
        assert_eq!(memo.noted(&file, "tower"), None);
        memo.lock().asked.insert(identity.file, (identity, later()));
        old_file(&file, b"three");
        memo.note(&file, "tower", b"of two");
        assert_eq!(memo.noted(&file, "tower"), None);
    }

    #[test]
    fn two_processes_keep_what_both_learnt() {
        let folder = tempfile::tempdir().unwrap();
        let memory = folder.path().join("files");
        let a = old_file(&folder.path().join("a"), b"a");
        let b = old_file(&folder.path().join("b"), b"b");
        let (one, two) = (FileMemo::open(&memory), FileMemo::open(&memory));
        one.remember(&a, later(), Digest::of(b"a"));
        two.remember(&b, later(), Digest::of(b"b"));
        one.save().unwrap();
        two.save().unwrap();
        let memo = FileMemo::open(&memory);
        assert_eq!(memo.known(&a), Some(Digest::of(b"a")));
        assert_eq!(memo.known(&b), Some(Digest::of(b"b")));
    }

    #[test]
    fn a_damaged_memory_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let memory = folder.path().join("files");
        let a = old_file(&folder.path().join("a"), b"a");
        let memo = FileMemo::open(&memory);
        memo.remember(&a, later(), Digest::of(b"a"));
        memo.save().unwrap();
        let good = fs::read(&memory).unwrap();
        assert!(decode(&good).is_some());
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bad).is_none(), "bit {bit}");
        }
        for length in 0..good.len() {
            assert!(decode(&good[..length]).is_none(), "length {length}");
        }
    }

    #[test]
    fn the_memory_is_bounded_and_forgets_the_longest_unused() {
        let mut state = State::default();
        for ino in 0..10_u32 {
            let identity = Identity {
                file: (1, u64::from(ino)),
                size: 0,
                mtime: 0,
                ctime: 0,
            };
            state.set(&identity, OWN_DIGEST, b"x");
            state.files.get_mut(&identity.file).unwrap().used = ino;
        }
        state.shrink(3);
        let mut kept: Vec<_> = state.files.keys().map(|(_, ino)| *ino).collect();
        kept.sort_unstable();
        assert_eq!(kept, [7, 8, 9]);
    }

    #[test]
    fn the_folder_of_the_state_follows_the_environment() {
        let folder = |set: &[(&str, &str)]| {
            folder_of(|name| {
                let found = set.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| OsString::from(value))
            })
        };
        let home = ("HOME", "/home/ana");
        assert_eq!(folder(&[home]), Some("/home/ana/.cache/runner".into()));
        let xdg = ("XDG_CACHE_HOME", "/xdg");
        assert_eq!(folder(&[home, xdg]), Some("/xdg/runner".into()));
        let own = ("RUNNER_STATE", "/state");
        assert_eq!(folder(&[home, xdg, own]), Some("/state".into()));
        assert_eq!(folder(&[("XDG_CACHE_HOME", "relative")]), None);
    }
}
