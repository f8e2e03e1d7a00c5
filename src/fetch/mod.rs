//! Downloads of the models and data that a pipeline names, checked and resumed.
//!
//! A [`Job`] is one entry of a pipeline: files of a Hugging Face repository that go
//! into a folder, or one file of a URL. [`fetch`] downloads what is missing, says
//! what goes on through [`Event`]s, and prints nothing. [`by_hand`] says in words
//! what the same job would download, for machines that reach no server.
//!
//! # What is checked
//!
//! | file | must have |
//! |---|---|
//! | large files of a hub (LFS) | the size and SHA-256 that the hub lists |
//! | other files of a hub | the size and git blob SHA-1 that the hub lists |
//! | those named in `sha256` | that SHA-256, too, whatever the hub lists |
//! | a URL's | the `sha256` or `md5` of the entry |
//!
//! What the hub lists guards against damage on the way, not against the hub itself;
//! a `sha256` in the pipeline does both. MD5 guards against damage, too, but not
//! against an attacker, who can make two files of the same MD5.
//!
//! # How a file is written
//!
//! Bytes go to `NAME.part` beside the target; `NAME.part.json` notes what they are to
//! become and is locked while somebody writes, so that two fetches do not mix. When
//! all bytes are there and right, they are synced and renamed to `NAME`. After an
//! interruption the next fetch goes on where the last one stopped, with `Range` and
//! `If-Range`, so that a file that has changed since begins anew. An existing file is
//! left where it is right, and otherwise an error unless [`Settings::force`] is set.
//!
//! # What is sent, and to whom
//!
//! Only `https` is spoken, but for servers on this machine and a hub whose address in
//! `HF_ENDPOINT` begins with `http://`. The token goes to the hub's own address only:
//! not to the hosts that it redirects to, and not over a plain connection to another
//! machine. No event, error or `Debug` form holds it, nor the signed addresses of
//! redirects.

mod attempt;
mod by_hand;
mod client;
mod desk;
mod download;
#[cfg(test)]
mod faulty;
mod hub;
mod names;
mod part;
mod pin;
mod problem;
mod settings;
#[cfg(test)]
mod tests;
mod url;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};

pub use by_hand::by_hand;
pub use settings::{Settings, Token};

use self::pin::Pin;

/// Where files come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Files of a repository on a Hugging Face hub.
    HuggingFace {
        /// `owner/name`; `datasets/owner/name` for a data set.
        repo: String,
        /// A commit of 40 hexadecimal digits, or a tag or branch, which may move.
        revision: String,
        /// Which files; `*` is any characters but `/`, `**` any folders. Empty for all.
        files: Vec<String>,
        /// SHA-256 that files must have, by their names in the repository.
        sha256: BTreeMap<String, String>,
    },
    /// One file at an address. One of the two digests is needed.
    Url {
        /// Address that begins with `https://`.
        url: String,
        /// SHA-256 that the file must have, 64 hexadecimal digits.
        sha256: Option<String>,
        /// MD5 that the file must have, 32 hexadecimal digits, for publishers that give no other.
        md5: Option<String>,
    },
}

/// One entry to download.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// The entry, such as `models.clip`, for messages.
    pub name: String,
    /// Where its files come from.
    pub source: Source,
    /// The folder that files of a hub go into, or the path of a URL's file.
    pub to: PathBuf,
}

impl Job {
    /// Checks all that can be known without a server or a disk.
    ///
    /// # Errors
    /// Names the field that is wrong.
    pub fn check(&self) -> Result<()> {
        self.check_source()
            .with_context(|| format!("failed to read `fetch` of `{}`", self.name))
    }

    fn check_source(&self) -> Result<()> {
        match &self.source {
            Source::HuggingFace {
                repo,
                revision,
                files,
                sha256,
            } => {
                hub::check_repo(repo)?;
                hub::check_revision(revision)?;
                for pattern in files {
                    names::check_pattern(pattern)?;
                }
                for (file, digest) in sha256 {
                    ensure!(
                        names::check(file).is_ok() && names::is_plain(file),
                        "`{file}` in `sha256` is not the name of a file in a repository"
                    );
                    Pin::sha256(digest).with_context(|| format!("`sha256` of `{file}`"))?;
                }
            }
            Source::Url { url, .. } => {
                let address = url::Address::parse(url).context("`url` cannot be fetched")?;
                ensure!(
                    address.is_safe(),
                    "`url` is `{url}`, but files are fetched over `https` only\n\
                     hint: begin it with `https://`, or download it by hand"
                );
                ensure!(
                    self.to.file_name().is_some(),
                    "`{}` is not the path of a file",
                    self.to.display()
                );
                self.url_pins()?;
            }
        }
        Ok(())
    }

    /// The digests of a URL's file.
    fn url_pins(&self) -> Result<Vec<Pin>> {
        let Source::Url { sha256, md5, .. } = &self.source else {
            return Ok(Vec::new());
        };
        let mut pins = Vec::new();
        if let Some(digest) = sha256 {
            pins.push(Pin::sha256(digest).context("`sha256`")?);
        }
        if let Some(digest) = md5 {
            pins.push(Pin::md5(digest).context("`md5`")?);
        }
        ensure!(
            !pins.is_empty(),
            "a `url` needs the `sha256` of its file\n\
             hint: copy it from where the file is published (or `md5`, if that is all there \
             is); `sha256sum FILE` gives that of a file which you trust"
        );
        Ok(pins)
    }
}

/// What a fetch is doing. Files are named as in their repository, or by their file name.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Asks a hub for its list of files.
    Listing {
        /// Address of the hub.
        hub: String,
        /// Repository.
        repo: String,
    },
    /// What is to be fetched is known.
    Listed {
        /// Number of files.
        files: usize,
        /// Bytes in all of them; not known of a URL.
        bytes: Option<u64>,
        /// The commit that the revision stands for.
        commit: Option<String>,
    },
    /// The revision is not a commit, so that another fetch may give other files.
    Moving {
        /// As the pipeline has it.
        revision: String,
        /// What it stands for today; to be written instead.
        commit: String,
    },
    /// Reads a file that exists, to see whether it is right.
    Checking {
        /// The file.
        file: String,
        /// Its size in bytes.
        size: u64,
    },
    /// The file is there and right.
    Present {
        /// The file.
        file: String,
        /// Its size in bytes.
        size: u64,
    },
    /// Another fetch has the file under way; waits for it.
    Waiting {
        /// The file.
        file: String,
    },
    /// Bytes are coming in.
    Start {
        /// The file.
        file: String,
        /// Its size in bytes, if it is known.
        size: Option<u64>,
        /// Bytes that are there from an earlier attempt.
        resumed: u64,
    },
    /// More bytes have come in; at most ten times a second for each file, and at its end.
    Bytes {
        /// The file.
        file: String,
        /// Bytes that are there.
        done: u64,
        /// Its size in bytes, if it is known.
        total: Option<u64>,
    },
    /// What was there of the file is of no use; it begins anew.
    Restart {
        /// The file.
        file: String,
        /// A lower-case fragment.
        reason: String,
    },
    /// Something failed that may pass; it is tried again after a wait.
    Retry {
        /// The file, or the repository whose list was asked for.
        file: String,
        /// A lower-case fragment.
        reason: String,
        /// Time until the next attempt.
        wait: Duration,
    },
    /// The file is complete, right, and in its place.
    Verified {
        /// The file.
        file: String,
        /// Its size in bytes.
        size: u64,
        /// What it was checked by: `sha256:…`, `md5:…` or `git-sha1:…`.
        digest: String,
    },
    /// Something that a person should know; a sentence without its stop.
    Warning {
        /// The sentence.
        text: String,
    },
}

/// A file that is in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Where it is.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// What it was checked by: `sha256:…`, `md5:…` or `git-sha1:…`.
    pub digest: String,
    /// Whether it was there before.
    pub present: bool,
}

/// What a fetch has brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The commit that the revision stands for, of a hub.
    pub commit: Option<String>,
    /// All files of the job, sorted by path.
    pub files: Vec<Fetched>,
}

/// The fetch was stopped; what has arrived is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stopped; what has arrived is kept, and the next fetch goes on from there")]
pub struct Stopped;

/// Downloads what is missing of a job and checks all of it.
///
/// `tell` and `stop` are called on this thread; where `stop` says so, connections are
/// closed and the call ends within a second.
///
/// # Errors
/// [`Stopped`] where `stop` said so. A wrong field of the job. An existing file that
/// is not the right one, unless [`Settings::force`] is set; nothing is downloaded
/// then. A server that is not reached, refuses, or sends other bytes than expected,
/// after as many attempts as make sense. A disk that is full. What has arrived is
/// kept, but for bytes that turned out wrong. Where it helps, the hint says what to
/// download by hand.
pub fn fetch(
    job: &Job,
    settings: &Settings,
    tell: &(dyn Fn(Event) + Sync),
    stop: &dyn Fn() -> bool,
) -> Result<Outcome> {
    job.check()?;
    settings.check()?;
    desk::run(job, settings, tell, stop)
}
