//! Digests that a file must have, and how they are computed.

use std::fmt;

use anyhow::{Result, ensure};
use md5::Md5;
use sha1::Sha1;
use sha2::{
    Sha256,
    digest::{Digest as _, DynDigest},
};

/// A digest that a file must have, in lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Pin {
    /// SHA-256 of the bytes.
    Sha256(String),
    /// MD5 of the bytes: tells damage, but not an attack.
    Md5(String),
    /// SHA-1 of `blob {size}\0` and the bytes, by which git names a file.
    GitBlob(String),
}

impl Pin {
    /// A pin of SHA-256 as a person writes it.
    ///
    /// # Errors
    /// When it is not 64 hexadecimal digits.
    pub(super) fn sha256(text: &str) -> Result<Self> {
        hex("sha256", text, 64).map(Self::Sha256)
    }

    /// A pin of MD5 as a person writes it.
    ///
    /// # Errors
    /// When it is not 32 hexadecimal digits.
    pub(super) fn md5(text: &str) -> Result<Self> {
        hex("md5", text, 32).map(Self::Md5)
    }

    /// A git blob's name as a server writes it; `None` where it is none.
    pub(super) fn git_blob(text: &str) -> Option<Self> {
        hex("oid", text, 40).ok().map(Self::GitBlob)
    }

    fn hex(&self) -> &str {
        match self {
            Self::Sha256(hex) | Self::Md5(hex) | Self::GitBlob(hex) => hex,
        }
    }

    fn with(&self, hex: String) -> Self {
        match self {
            Self::Sha256(_) => Self::Sha256(hex),
            Self::Md5(_) => Self::Md5(hex),
            Self::GitBlob(_) => Self::GitBlob(hex),
        }
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Self::Sha256(_) => "sha256",
            Self::Md5(_) => "md5",
            Self::GitBlob(_) => "git-sha1",
        };
        write!(f, "{kind}:{}", self.hex())
    }
}

fn hex(kind: &str, text: &str, digits: usize) -> Result<String> {
    let prefix = format!("{kind}:");
    let bare = text.trim();
    let bare = bare.strip_prefix(&prefix).unwrap_or(bare);
    ensure!(
        bare.len() == digits && bare.bytes().all(|b| b.is_ascii_hexdigit()),
        "`{text}` is no {kind} of {digits} hexadecimal digits"
    );
    Ok(bare.to_ascii_lowercase())
}

/// All pins as one text, which tells two expected versions of a file apart.
pub(super) fn text(pins: &[Pin]) -> String {
    let all: Vec<String> = pins.iter().map(ToString::to_string).collect();
    all.join(" ")
}

/// What a file should have been, and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Difference {
    pub(super) expected: String,
    pub(super) found: String,
}

/// The digests of all pins over bytes that come in pieces.
pub(super) struct Hasher {
    running: Vec<(Pin, Box<dyn DynDigest + Send>)>,
}

impl Hasher {
    /// Begins; `size` is the number of bytes to come, which a git blob's name begins with.
    pub(super) fn new(pins: &[Pin], size: Option<u64>) -> Self {
        let running = pins
            .iter()
            .map(|pin| {
                let hasher: Box<dyn DynDigest + Send> = match pin {
                    Pin::Sha256(_) => Box::new(Sha256::new()),
                    Pin::Md5(_) => Box::new(Md5::new()),
                    Pin::GitBlob(_) => {
                        let head = format!("blob {}\0", size.unwrap_or_default());
                        Box::new(Sha1::new_with_prefix(head))
                    }
                };
                (pin.clone(), hasher)
            })
            .collect();
        Self { running }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        for (_, hasher) in &mut self.running {
            hasher.update(bytes);
        }
    }

    /// The first pin that the bytes do not have, if any.
    pub(super) fn difference(self) -> Option<Difference> {
        self.running.into_iter().find_map(|(pin, hasher)| {
            let digits: String = hasher
                .finalize()
                .iter()
                .map(|b| format!("{b:02x}"))
                .collect();
            let found = pin.with(digits);
            (found != pin).then(|| Difference {
                expected: pin.to_string(),
                found: found.to_string(),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn difference(pins: &[Pin], bytes: &[u8]) -> Option<Difference> {
        let mut hasher = Hasher::new(pins, Some(bytes.len() as u64));
        // In two pieces, as bytes come in.
        let (a, b) = bytes.split_at(bytes.len() / 2);
        hasher.update(a);
        hasher.update(b);
        hasher.difference()
    }

    #[test]
    fn digests_are_the_published_ones_of_known_bytes() {
        // FIPS 180 and RFC 1321; `printf abc | git hash-object --stdin`.
        let pins = [
            Pin::sha256("BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD")
                .unwrap(),
            Pin::md5("md5:900150983cd24fb0d6963f7d28e17f72").unwrap(),
            Pin::git_blob("f2ba8f84ab5c1bce84a7b441cb1959cfc7093b7f").unwrap(),
        ];
        assert_eq!(difference(&pins, b"abc"), None);
        for pin in pins {
            let wrong = difference(std::slice::from_ref(&pin), b"abd").unwrap();
            assert_eq!(wrong.expected, pin.to_string());
            assert_ne!(wrong.found, wrong.expected);
        }
    }

    #[test]
    fn what_is_no_digest_is_refused() {
        for text in ["", "12", &"g".repeat(64), &"a".repeat(63)] {
            assert!(Pin::sha256(text).is_err(), "{text}");
        }
        assert!(Pin::md5(&"a".repeat(64)).is_err());
        assert_eq!(Pin::git_blob(&"a".repeat(64)), None);
    }
}
