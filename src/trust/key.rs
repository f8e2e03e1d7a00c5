//! Keys: their names, their texts, and signatures made and checked with them.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use zeroize::Zeroizing;

use super::TrustError;
use crate::digest::Digest;

/// The longest name of a key or a domain, in bytes.
const LONGEST_NAME: usize = 64;
/// What the file of a secret key begins with, so that nobody takes it for a public one.
const SECRET: &str = "runner-secret ";
/// What a line with a signature begins with.
const SIGNATURE: &str = "sig ";

/// What is signed; each has a signature context of its own so that one cannot stand for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// The record of a node.
    Record,
    /// A pack of items.
    Pack,
    /// The entry of a run.
    Run,
}

impl Subject {
    /// The bytes that are signed for a document with this text.
    fn message(self, line: &str) -> Vec<u8> {
        let context: &[u8] = match self {
            Self::Record => b"runner-record-v1\0",
            Self::Pack => b"runner-pack-v1\0",
            Self::Run => b"runner-run-v1\0",
        };
        [context, Digest::of(line.as_bytes()).as_bytes()].concat()
    }
}

/// Half of a key that signs; it never leaves its owner's folder. Its bytes are wiped from
/// memory when it is dropped.
#[derive(Clone)]
pub struct SecretKey {
    name: String,
    key: SigningKey,
}

impl SecretKey {
    /// A new key, from the system's random numbers.
    ///
    /// # Errors
    /// The name is none, or the system gives no random numbers.
    pub fn new(name: &str) -> Result<Self, TrustError> {
        let mut bytes = Zeroizing::new([0; 32]);
        getrandom::fill(bytes.as_mut_slice())
            .map_err(|error| TrustError::Random(error.to_string()))?;
        Self::from_bytes(name, &bytes)
    }

    /// The key with these bytes.
    pub(super) fn from_bytes(name: &str, bytes: &[u8; 32]) -> Result<Self, TrustError> {
        Ok(Self {
            name: key_name(name)?.to_owned(),
            key: SigningKey::from_bytes(bytes),
        })
    }

    /// Its name, such as `ana-1`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The half that others need.
    pub fn public(&self) -> PublicKey {
        PublicKey {
            name: self.name.clone(),
            key: self.key.verifying_key(),
        }
    }

    /// The line `sig ana-1:…` for a document whose text is `line`.
    pub fn sign(&self, subject: Subject, line: &str) -> String {
        let signature = self.key.sign(&subject.message(line));
        let text = STANDARD.encode(signature.to_bytes());
        format!("{SIGNATURE}{}:{text}", self.name)
    }

    /// What its file holds.
    pub(super) fn to_file(&self) -> Zeroizing<String> {
        let text = Zeroizing::new(STANDARD.encode(self.key.as_bytes()));
        // Of its final length from the start, so that no copy is left behind.
        let mut file = Zeroizing::new(String::with_capacity(256));
        for part in [SECRET, &self.name, ":", &text, "\n"] {
            file.push_str(part);
        }
        file
    }

    /// Reads what its file holds.
    pub(super) fn from_file(text: &str) -> Option<Self> {
        let text = text.strip_prefix(SECRET)?;
        let (name, text) = text.strip_suffix('\n').unwrap_or(text).split_once(':')?;
        let bytes = Zeroizing::new(STANDARD.decode(text).ok()?);
        let bytes: &[u8; 32] = bytes.as_slice().try_into().ok()?;
        Self::from_bytes(name, bytes).ok()
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey({})", self.name)
    }
}

/// Half of a key that tells who signed; written `ana-1:` and 32 bytes in base 64.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    pub(super) name: String,
    pub(super) key: VerifyingKey,
}

impl PublicKey {
    /// Its name, such as `ana-1`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its name without its number: `ana`.
    pub fn owner(&self) -> &str {
        self.name
            .rsplit_once('-')
            .map_or(&self.name, |(owner, _)| owner)
    }

    /// Whether it is the same key under whatever name.
    pub(super) fn has_bytes_of(&self, other: &Self) -> bool {
        self.key.as_bytes() == other.key.as_bytes()
    }

    /// Whether `signature` is this key's for a document whose text is `line`. Strict: a key or
    /// a signature for which several texts would do is never good.
    pub(super) fn verifies(&self, subject: Subject, line: &str, signature: &Signature) -> bool {
        self.key
            .verify_strict(&subject.message(line), signature)
            .is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, STANDARD.encode(self.key.as_bytes()))
    }
}

impl FromStr for PublicKey {
    type Err = TrustError;

    fn from_str(text: &str) -> Result<Self, TrustError> {
        if text.contains(SECRET.trim_end()) {
            // Not shown again: this text would be in logs next.
            return Err(TrustError::SecretGiven);
        }
        let bad = |reason| TrustError::BadKey {
            text: shown(text),
            reason,
        };
        let (name, bytes) = text
            .split_once(':')
            .ok_or_else(|| bad("there is no `:` in it"))?;
        let name = key_name(name)?;
        let bytes = STANDARD
            .decode(bytes)
            .map_err(|_| bad("what follows `:` is not base 64"))?;
        let bytes = bytes
            .as_slice()
            .try_into()
            .map_err(|_| bad("what follows `:` is not 32 bytes in base 64"))?;
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| bad("its bytes are no key"))?;
        if key.is_weak() {
            return Err(bad("anybody could sign for it"));
        }
        Ok(Self {
            name: name.to_owned(),
            key,
        })
    }
}

/// The name and the signature in a line `sig ana-1:…`.
pub(super) fn signature(line: &str) -> Option<(&str, Signature)> {
    let (name, text) = line.strip_prefix(SIGNATURE)?.split_once(':')?;
    // Longer texts are none, and need not be decoded.
    let bytes = STANDARD.decode(text.get(..88)?).ok()?;
    let name = key_name(name).ok()?;
    let bytes = bytes.as_slice().try_into().ok()?;
    (text.len() == 88).then(|| (name, Signature::from_bytes(bytes)))
}

/// `name`, if it can be the name of a key: `ana-1`.
pub(super) fn key_name(name: &str) -> Result<&str, TrustError> {
    let good = name.len() <= LONGEST_NAME
        && name
            .rsplit_once('-')
            .is_some_and(|(owner, number)| is_owner(owner) && is_number(number));
    if good {
        Ok(name)
    } else {
        Err(TrustError::BadName(shown(name)))
    }
}

/// Whether `text` can stand before the number in a key's name.
pub(super) fn is_owner(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_'))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// `name`, if it can be the name of a domain: a folder in every cache.
pub(super) fn domain_name(name: &str) -> Result<&str, TrustError> {
    let plain =
        |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
    let good = name.len() <= LONGEST_NAME
        && name.bytes().all(plain)
        && name
            .bytes()
            .next()
            .is_some_and(|b| b.is_ascii_alphanumeric());
    match name {
        "local" => Err(TrustError::LocalDomain),
        name if good => Ok(name),
        name => Err(TrustError::BadDomain(shown(name))),
    }
}

/// The start of a text from elsewhere, without what would confuse a terminal.
fn shown(text: &str) -> String {
    let plain = |c: char| if c.is_control() { '?' } else { c };
    let mut short: String = text.chars().take(80).map(plain).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}
