//! What can go wrong with keys and trust, and why a document is not believed.

use std::{io, path::PathBuf};

/// A failure of the folder of keys, or of what is to be put there.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// No name of a key.
    #[error(
        "use `{0}` as a key's name\n\
         hint: small letters, digits, `.` and `_`, then `-` and a number, at most 64 in all: `ana-1`"
    )]
    BadName(String),
    /// No name of a domain.
    #[error(
        "use `{0}` as a domain\n\
         hint: small letters, digits, `.`, `_` and `-`, at most 64: `ana`"
    )]
    BadDomain(String),
    /// The domain of results that are not shared.
    #[error(
        "use `local` as a domain: it is that of every machine's own results\n\
         hint: name another, such as `--domain ana`"
    )]
    LocalDomain,
    /// No public key.
    #[error(
        "read the key `{text}`: {reason}\n\
         hint: `runner key show` prints the line to give: `ana-1:` and 44 letters and digits"
    )]
    BadKey {
        /// What was given, shortened.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A secret key where a public one belongs.
    #[error(
        "use a secret key as a public one\n\
         hint: keep that file to yourself; `runner key show` prints the line to give to others"
    )]
    SecretGiven,
    /// No random numbers.
    #[error("get random numbers from the system: {0}")]
    Random(String),
    /// Neither `RUNNER_CONFIG` nor a home folder.
    #[error(
        "find the folder of your settings\n\
         hint: set RUNNER_CONFIG to a folder of yours, as an absolute path"
    )]
    NoFolder,
    /// `trust.toml` cannot be understood.
    #[error("read `{}`{}: {message}", path.display(), line.map(|n| format!(", line {n}")).unwrap_or_default())]
    File {
        /// The file.
        path: PathBuf,
        /// Where in it, counted from 1.
        line: Option<usize>,
        /// What is wrong, and what may help.
        message: String,
    },
    /// A file of a secret key that is none.
    #[error("read the secret key `{}`: {reason}", path.display())]
    BadSecret {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A file that others may read or change.
    #[error(
        "use `{}`: others on this machine may {what} it\n\
         hint: chmod {mode} {}", path.display(), path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// What others may do.
        what: &'static str,
        /// The mode that it should have.
        mode: &'static str,
    },
    /// A change that makes no sense as things are.
    #[error("{0}")]
    Refused(String),
    /// A change that the program cannot make in a file that a person wrote.
    #[error(
        "change `{}`, which is written in a way that this program cannot edit\n\
         hint: {todo}", path.display()
    )]
    CannotEdit {
        /// The file.
        path: PathBuf,
        /// What to do by hand.
        todo: String,
    },
    /// The operating system refused.
    #[error("{action} `{}`: {source}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl TrustError {
    /// Whether what was asked for is wrong, as opposed to what was found.
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::BadName(_)
                | Self::BadDomain(_)
                | Self::LocalDomain
                | Self::BadKey { .. }
                | Self::SecretGiven
                | Self::Refused(_)
        )
    }

    pub(super) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}

/// Why a signed document is not believed; a reason that reads on after "refused: ".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No domain of that name is trusted.
    #[error("its domain is none that you trust")]
    UnknownDomain,
    /// There is no signature.
    #[error("it is not signed")]
    Unsigned,
    /// The signer's key does not belong to the domain.
    #[error("it is signed by `{0}`, which is no trusted key of its domain")]
    UnknownKey(String),
    /// The signer's key was revoked.
    #[error("it is signed by `{0}`, whose key was revoked")]
    Revoked(String),
    /// The signature is not the key's, or not for this text.
    #[error("its signature by `{0}` is wrong")]
    WrongSignature(String),
    /// No list of signatures.
    #[error("its signatures cannot be read")]
    Malformed,
}
