//! A file on its way: its bytes so far, what they are to become, and who writes them.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{ErrorKind, Read, Seek, SeekFrom, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use super::{
    Event,
    desk::Desk,
    hub::Want,
    names::{NOTE, PART},
    pin::{self, Difference, Hasher, Pin},
    problem::{Problem, of_disk},
    url::Address,
};

/// How often a lock is tried that another fetch holds.
const LOCK_TICK: Duration = Duration::from_millis(100);
/// Longest note that is read, in bytes.
const LONGEST_NOTE: u64 = 64 << 10;
/// Bytes read at a time.
const PIECE: usize = 1 << 20;

/// What stands beside a part: which version of which file it is the beginning of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    /// The digests that the whole file must have.
    expected: String,
    size: Option<u64>,
    /// Scheme, host and port that it comes from.
    origin: String,
    /// What the server calls this version.
    validator: Option<String>,
}

/// A file on its way.
pub(super) struct Part {
    to: PathBuf,
    path: PathBuf,
    note_path: PathBuf,
    file: File,
    /// Holds the note, and is locked while the part is written.
    lock: File,
    note: Note,
    pins: Vec<Pin>,
    hasher: Hasher,
    done: u64,
    /// The bytes may be of two versions, or not be all.
    doubtful: bool,
    /// The part has become the file.
    finished: bool,
}

impl Drop for Part {
    /// Nothing is left where nothing has arrived.
    fn drop(&mut self) {
        if self.done == 0 && !self.finished {
            let _ = std::fs::remove_file(&self.path);
            let _ = std::fs::remove_file(&self.note_path);
        }
    }
}

impl Part {
    /// Opens the part of `to`, and takes over what is there of the same file; waits
    /// where another fetch has it, and says whether it did.
    ///
    /// # Errors
    /// When a file cannot be written; [`super::Stopped`].
    pub(super) fn open(desk: &Desk, want: &Want, to: &Path) -> Result<(Self, bool)> {
        let path = beside(to, PART);
        let note_path = beside(to, NOTE);
        let (mut lock, waited) = locked(desk, want, &note_path)?;
        let mut text = String::new();
        // What is no note is none of this file.
        let _ = (&mut lock).take(LONGEST_NOTE).read_to_string(&mut text);
        let noted: Option<Note> = serde_json::from_str(&text).ok();
        let note = Note {
            expected: pin::text(&want.pins),
            size: want.size,
            origin: Address::parse(&want.url)?.origin(),
            validator: None,
        };
        let file = open(&path)?;
        let mut part = Self {
            to: to.to_owned(),
            path,
            note_path,
            file,
            lock,
            hasher: Hasher::new(&want.pins, want.size),
            pins: want.pins.clone(),
            note,
            done: 0,
            doubtful: false,
            finished: false,
        };
        let same = noted
            .filter(|noted| noted.expected == part.note.expected && noted.size == part.note.size);
        match same {
            Some(noted) => {
                // Another server's name for a version says nothing here.
                if noted.origin == part.note.origin {
                    part.note.validator = noted.validator;
                }
                part.take_over(desk, want)?;
            }
            None => part.clear()?,
        }
        Ok((part, waited))
    }

    /// Reads what is there.
    fn take_over(&mut self, desk: &Desk, want: &Want) -> Result<()> {
        let length = self.file.metadata()?.len();
        if want.size.is_some_and(|size| length > size) {
            return Ok(self.clear()?);
        }
        if length > 0 {
            desk.tell(Event::Checking {
                file: want.file.clone(),
                size: length,
            });
        }
        let mut buffer = vec![0; PIECE];
        loop {
            if let Err(stopped) = desk.go_on() {
                // What is there stays there.
                self.done = length;
                return Err(stopped.into());
            }
            let count = (self.file.read(&mut buffer))
                .with_context(|| format!("failed to read `{}`", self.path.display()))?;
            if count == 0 {
                break;
            }
            self.hasher.update(&buffer[..count]);
            self.done += count as u64;
        }
        self.doubtful = self.done > 0;
        Ok(())
    }

    /// Bytes that are there.
    pub(super) fn done(&self) -> u64 {
        self.done
    }

    /// What the server calls the version that is there.
    pub(super) fn validator(&self) -> Option<&str> {
        self.note.validator.as_deref()
    }

    /// The next bytes follow those of an earlier reply.
    pub(super) fn resumed(&mut self) {
        self.doubtful = true;
    }

    /// The reply did not say how many bytes would come.
    pub(super) fn length_was_unknown(&mut self) {
        self.doubtful = true;
    }

    /// Whether wrong bytes may come from two versions, or from an end that came early.
    pub(super) fn is_doubtful(&self) -> bool {
        self.doubtful
    }

    /// Throws away what is there.
    pub(super) fn clear(&mut self) -> Result<(), Problem> {
        self.file
            .set_len(0)
            .and_then(|()| self.file.seek(SeekFrom::Start(0)))
            .map_err(|error| of_disk(&error, &self.path))?;
        self.done = 0;
        self.doubtful = false;
        self.note.validator = None;
        self.hasher = Hasher::new(&self.pins, self.note.size);
        Ok(())
    }

    /// Notes which version is about to be written.
    pub(super) fn note(&mut self, validator: Option<String>) -> Result<(), Problem> {
        self.note.validator = validator;
        let text = serde_json::to_vec(&self.note)
            .map_err(|error| Problem::last(format!("failed to write a note: {error}")))?;
        self.lock
            .set_len(0)
            .and_then(|()| self.lock.seek(SeekFrom::Start(0)))
            .and_then(|_| self.lock.write_all(&text))
            .map_err(|error| of_disk(&error, &self.note_path))
    }

    /// Adds bytes.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), Problem> {
        let mut rest = bytes;
        while !rest.is_empty() {
            // Bytes that were written before the disk was full count.
            match self.file.write(rest) {
                Ok(0) => return Err(of_disk(&ErrorKind::WriteZero.into(), &self.path)),
                Ok(count) => {
                    self.hasher.update(&rest[..count]);
                    self.done += count as u64;
                    rest = &rest[count..];
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(of_disk(&error, &self.path)),
            }
        }
        Ok(())
    }

    /// Whether all bytes are the expected ones; begins a new count.
    pub(super) fn difference(&mut self) -> Option<Difference> {
        let fresh = Hasher::new(&self.pins, self.note.size);
        std::mem::replace(&mut self.hasher, fresh).difference()
    }

    /// Puts the file in its place and gives its size.
    ///
    /// # Errors
    /// When it cannot be synced or renamed, or something has come into its place.
    pub(super) fn finish(mut self, replace: bool) -> Result<u64> {
        self.file
            .sync_all()
            .map_err(|error| of_disk(&error, &self.path))?;
        if !replace && std::fs::symlink_metadata(&self.to).is_ok() {
            bail!(
                "something else has come to `{}` in the meantime\n\
                 hint: fetch again, which looks at it",
                self.to.display()
            );
        }
        fs_err::rename(&self.path, &self.to).context("failed to put the file in its place")?;
        self.finished = true;
        let folder = match self.to.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        // Some file systems do not sync folders; the file itself is safe.
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
        // With the lock held, so that nobody takes a note for his own that is gone.
        let _ = std::fs::remove_file(&self.note_path);
        Ok(self.done)
    }

    /// Leaves nothing of the part.
    pub(super) fn discard(mut self) -> Result<(), Problem> {
        self.clear()
    }
}

/// The path with something added to its name.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Opens a file to read and write, and no link to one.
fn open(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)
        .map_err(|error| of_disk(&error, path).into())
}

/// The locked note. It is removed by who has finished, so that a lock counts only
/// where the file is still the one at the path.
fn locked(desk: &Desk, want: &Want, path: &Path) -> Result<(File, bool)> {
    let mut waited = false;
    loop {
        let file = open(path)?;
        match file.try_lock() {
            Ok(()) => {
                let mine = file.metadata()?;
                let there = std::fs::symlink_metadata(path);
                if there.is_ok_and(|there| there.dev() == mine.dev() && there.ino() == mine.ino()) {
                    return Ok((file, waited));
                }
            }
            Err(TryLockError::WouldBlock) => {
                if !waited {
                    desk.tell(Event::Waiting {
                        file: want.file.clone(),
                    });
                }
                waited = true;
                desk.sleep(LOCK_TICK)?;
            }
            // Some network file systems have no locks.
            Err(TryLockError::Error(error)) => {
                desk.tell(Event::Warning {
                    text: format!(
                        "`{}` cannot be locked ({error}); do not fetch it twice at a time",
                        path.display()
                    ),
                });
                return Ok((file, waited));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A part of `to` whose bytes go to `file`.
    fn part(to: &Path, file: File) -> Part {
        let lock = open(&beside(to, NOTE)).unwrap();
        let pins = vec![Pin::sha256(&"0".repeat(64)).unwrap()];
        Part {
            to: to.to_owned(),
            path: beside(to, PART),
            note_path: beside(to, NOTE),
            file,
            lock,
            note: Note::default(),
            hasher: Hasher::new(&pins, None),
            pins,
            done: 0,
            doubtful: false,
            finished: false,
        }
    }

    #[test]
    fn a_full_disk_is_told_and_the_part_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("file");
        let mut filling = part(&to, open(&beside(&to, PART)).unwrap());
        filling.write(b"abc").unwrap();
        // Every write there fails as on a full disk.
        filling.file = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let problem = filling.write(b"def").unwrap_err().to_string();
        assert!(problem.starts_with("the disk is full"), "{problem}");
        assert!(problem.contains("file.part`"), "{problem}");
        drop(filling);
        assert_eq!(std::fs::read(beside(&to, PART)).unwrap(), b"abc");
        assert!(beside(&to, NOTE).exists());
    }

    #[test]
    fn a_part_without_bytes_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("file");
        let mut empty = part(&to, open(&beside(&to, PART)).unwrap());
        empty.note(Some("\"v1\"".to_owned())).unwrap();
        assert!(beside(&to, NOTE).exists());
        drop(empty);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_has_come_in_the_meantime_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("file");
        let whole = || {
            let mut part = part(&to, open(&beside(&to, PART)).unwrap());
            part.clear().unwrap();
            part.write(b"new").unwrap();
            part
        };
        std::fs::write(&to, "mine").unwrap();
        let error = whole().finish(false).unwrap_err().to_string();
        assert!(error.contains("something else has come"), "{error}");
        assert_eq!(std::fs::read(&to).unwrap(), b"mine");
        assert_eq!(whole().finish(true).unwrap(), 3);
        assert_eq!(std::fs::read(&to).unwrap(), b"new");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
