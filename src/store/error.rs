//! What can go wrong with a store, beyond a miss.

use std::{fmt, io, path::PathBuf};

use rustix::io::Errno;

use crate::digest::Digest;

/// A failure of the store itself. Damage is not one: a damaged entry is a miss.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The folder holds something else.
    #[error(
        "open `{}` as a cache: the folder is not empty and holds no cache\n\
         hint: name an empty or a new folder", .0.display()
    )]
    NotACache(PathBuf),
    /// `FORMAT` says something that no version ever wrote.
    #[error(
        "open the cache `{}`: its `FORMAT` reads `{found}`\n\
         hint: if this is a cache, restore the file to `runner-cache 1 blake3`", root.display()
    )]
    UnknownFormat {
        /// The folder.
        root: PathBuf,
        /// The first line of `FORMAT`, shortened.
        found: String,
    },
    /// A later version of the program wrote the store.
    #[error(
        "open the cache `{}`: it has format {found}, and this version knows format {known}\n\
         hint: update runner, or name another cache folder", root.display()
    )]
    NewerFormat {
        /// The folder.
        root: PathBuf,
        /// The format of the store.
        found: u32,
        /// The newest format this version can read.
        known: u32,
    },
    /// Something was to be written to a store that can only be read.
    #[error("write to the cache `{}`: it is read-only", .0.display())]
    ReadOnly(PathBuf),
    /// A record may not be visible where its objects are not.
    #[error("record `{}`: its output `{name}` is not in the cache", key.short())]
    MissingObject {
        /// The record's key.
        key: Digest,
        /// The output's name.
        name: String,
    },
    /// A record that could not be read back.
    #[error("record `{}`: {reason}", key.short())]
    BadRecord {
        /// The record's key.
        key: Digest,
        /// What is wrong with it.
        reason: String,
    },
    /// A name of a run, a pin or an index that cannot be a file name everywhere.
    #[error(
        "use `{0}` as a name\n\
         hint: 1 to 128 letters, digits, `.`, `_` or `-`, not beginning with `.` or `-`"
    )]
    BadName(String),
    /// A list of pins that cannot be read; nothing is deleted while it is there.
    #[error(
        "read the pins `{0}`\n\
         hint: remove them by `unpin` and pin again"
    )]
    BadPins(String),
    /// A shared cache that cannot be used as it was asked to be.
    #[error("use the shared cache `{name}`: {reason}")]
    Remote {
        /// Its name.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// The address of a shared cache that cannot be one.
    #[error("{0}")]
    Address(String),
    /// The operating system refused.
    #[error("{action} `{}`: {cause}{hint}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// What the system said. It is in the text, so it is no source, which is printed too.
        cause: io::Error,
        /// What may help.
        hint: Hint,
    },
}

/// Advice that follows from an error of the operating system.
#[derive(Debug, Clone, Copy)]
pub struct Hint(&'static str);

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            Ok(())
        } else {
            write!(f, "\nhint: {}", self.0)
        }
    }
}

/// What helps against an error of the operating system, whatever was being done.
pub fn advice(error: &io::Error) -> Option<&'static str> {
    const FILES: &str = "raise the limit of open files (`ulimit -n`)";
    // Some errors come wrapped, with a kind and no number but in their text.
    let text = || error.to_string();
    let number = |of: Errno| text().contains(&format!("(os error {})", of.raw_os_error()));
    match (error.kind(), Errno::from_io_error(error)) {
        (io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded, _) => {
            Some("free some space, for example with `cache gc`")
        }
        (_, Some(Errno::MFILE | Errno::NFILE)) => Some(FILES),
        (_, None) if number(Errno::MFILE) || number(Errno::NFILE) => Some(FILES),
        _ => None,
    }
}

impl StoreError {
    /// The system's refusal of `action` on `path`, with what may help against it.
    pub fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
        source: impl Into<io::Error>,
    ) -> Self {
        let cause = source.into();
        let hint = match (advice(&cause), cause.kind()) {
            (Some(hint), _) => hint,
            (None, io::ErrorKind::PermissionDenied) => "check who owns the cache folder",
            (None, _) => "",
        };
        Self::Io {
            action,
            path: path.into(),
            cause,
            hint: Hint(hint),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_is_given_by_kind_and_by_number() {
        let full = io::Error::from_raw_os_error(Errno::NOSPC.raw_os_error());
        let wrapped = io::Error::new(full.kind(), "wrapped");
        for error in [full, wrapped] {
            assert!(advice(&error).unwrap().contains("cache gc"), "{error}");
        }
        let files = io::Error::from_raw_os_error(Errno::MFILE.raw_os_error());
        let wrapped = io::Error::new(files.kind(), format!("open: {files} at path `x`"));
        for error in [files, wrapped] {
            assert!(advice(&error).unwrap().contains("ulimit"), "{error}");
        }
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        assert_eq!(advice(&denied), None);
        let error = StoreError::io("write", "x", denied).to_string();
        assert!(error.contains("hint: check who owns"), "{error}");
    }
}
