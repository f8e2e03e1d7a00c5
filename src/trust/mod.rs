//! Whose records are believed: keys, signatures, and the user's `trust.toml`.
//!
//! A domain is a folder of records in a shared cache, by default one a person. A record is
//! believed when a key of its domain signed it. What is trusted stands in a folder of the user
//! and never in a project, so that a project cannot make anybody believe its records.
//!
//! ```toml
//! # trust.toml
//! require_signatures = true          # the default
//! [[domain]]
//! name = "ana"
//! keys = ["ana-1:…"]
//! write_as = "ana-1"                 # only in the own domain: the secret key in keys/ana-1.key
//! [revoked]
//! keys = ["carol-1:…"]
//! ```

mod edit;
mod error;
mod file;
mod folder;
mod key;

use std::path::{Path, PathBuf};

pub use edit::{Created, Revoked, add, create, remove, revoke};
pub use error::{Refusal, TrustError};
pub use key::{PublicKey, SecretKey, Subject};

/// The most signatures that a document may have.
const MOST_SIGNATURES: usize = 16;

/// Whose records are believed; read from a folder of the user, never from a project.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    unsigned: bool,
    domains: Vec<Domain>,
    revoked: Vec<PublicKey>,
    secret: Option<SecretKey>,
    cannot_write: Option<String>,
}

/// A domain and its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domain {
    /// Its name.
    pub name: String,
    /// The keys whose signatures count in it, revoked ones among them.
    pub keys: Vec<PublicKey>,
    /// The name of the own key, in the own domain.
    pub write_as: Option<String>,
}

/// Where own records are written, and the key that signs them.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    /// The domain.
    pub domain: &'a str,
    /// The key.
    pub key: &'a SecretKey,
}

/// Who signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signer {
    /// The key's name; `nobody` where a document without a signature is believed.
    pub name: String,
}

impl Trust {
    /// `RUNNER_CONFIG`, else `$XDG_CONFIG_HOME/runner`, else `~/.config/runner`.
    pub fn folder() -> Option<PathBuf> {
        folder::of_user(|name| std::env::var_os(name))
    }

    /// Reads `trust.toml` and the own secret key in `folder`; an absent file is an empty trust.
    ///
    /// Without the secret key, as on a machine that has only a copy of `trust.toml`, records
    /// are read and none is written: see [`Trust::cannot_write`].
    ///
    /// # Errors
    /// A file cannot be read or understood, or others than its owner can read the secret key
    /// or change `trust.toml`.
    pub fn load(folder: &Path) -> Result<Self, TrustError> {
        let Some((path, text)) = folder::read_trust(folder)? else {
            return Ok(Self::default());
        };
        let file = file::parse(&path, &text)?;
        let mut trust = Self {
            unsigned: !file.require_signatures,
            domains: file.domains,
            revoked: file.revoked,
            secret: None,
            cannot_write: None,
        };
        let own = trust.own().and_then(|domain| {
            let name = domain.write_as.as_deref()?;
            domain.keys.iter().find(|key| key.name == name)
        });
        let Some(public) = own.cloned() else {
            return Ok(trust);
        };
        if trust.is_revoked(&public.name) {
            trust.cannot_write = Some(format!(
                "your key `{}` was revoked\nhint: `runner key new` makes another",
                public.name
            ));
            return Ok(trust);
        }
        match folder::read_secret(folder, &public)? {
            Some(secret) => trust.secret = Some(secret),
            None => {
                trust.cannot_write = Some(format!(
                    "the secret key `{}` is not on this machine\n\
                     hint: `runner key new` makes one for it",
                    folder::secret_path(folder, &public.name).display()
                ));
            }
        }
        Ok(trust)
    }

    /// Write domains in the order in which they are read: those with a key that counts.
    pub fn domains(&self) -> impl Iterator<Item = &str> {
        self.domains
            .iter()
            .filter(|domain| domain.keys.iter().any(|key| !self.is_revoked(&key.name)))
            .map(|domain| domain.name.as_str())
    }

    /// Where own records are written, and the key that signs them.
    pub fn writer(&self) -> Option<Writer<'_>> {
        Some(Writer {
            domain: &self.own()?.name,
            key: self.secret.as_ref()?,
        })
    }

    /// Why there is no [`Trust::writer`] although `trust.toml` names one.
    pub fn cannot_write(&self) -> Option<&str> {
        self.cannot_write.as_deref()
    }

    /// Whether what is not signed is refused.
    pub fn require_signatures(&self) -> bool {
        !self.unsigned
    }

    /// All domains with their keys, as `trust.toml` has them.
    pub fn all_domains(&self) -> &[Domain] {
        &self.domains
    }

    /// The keys that count nowhere.
    pub fn revoked(&self) -> &[PublicKey] {
        &self.revoked
    }

    /// Whether the key of this name was revoked. `trust.toml` has no key under two names.
    pub fn is_revoked(&self, name: &str) -> bool {
        self.revoked.iter().any(|key| key.name == name)
    }

    /// The domain in which own records are written.
    pub fn own(&self) -> Option<&Domain> {
        self.domains.iter().find(|domain| domain.write_as.is_some())
    }

    /// Who signed: the first signature in `lines` (each `sig NAME:BASE64`) by a key of
    /// `domain` that verifies.
    ///
    /// A signature that is not good does no harm beside a good one, since anybody could add
    /// it. Lines that are no signatures do: nobody writes them.
    ///
    /// # Errors
    /// Why the document is not believed. Of several reasons the gravest: a wrong signature,
    /// then a revoked key, then an unknown one.
    pub fn check(
        &self,
        subject: Subject,
        domain: &str,
        line: &str,
        lines: &[&str],
    ) -> Result<Signer, Refusal> {
        let domain = self
            .domains
            .iter()
            .find(|known| known.name == domain)
            .ok_or(Refusal::UnknownDomain)?;
        if lines.len() > MOST_SIGNATURES {
            return Err(Refusal::Malformed);
        }
        let signatures: Option<Vec<_>> = lines.iter().map(|line| key::signature(line)).collect();
        let signatures = signatures.ok_or(Refusal::Malformed)?;
        if signatures.is_empty() {
            return if self.unsigned {
                Ok(Signer {
                    name: "nobody".to_owned(),
                })
            } else {
                Err(Refusal::Unsigned)
            };
        }
        let mut refusals = Vec::new();
        for (name, signature) in signatures {
            let key = domain.keys.iter().find(|key| key.name == name);
            let revoked = self.is_revoked(name);
            let name = name.to_owned();
            match key {
                _ if revoked => refusals.push(Refusal::Revoked(name)),
                None => refusals.push(Refusal::UnknownKey(name)),
                Some(key) if key.verifies(subject, line, &signature) => {
                    return Ok(Signer { name });
                }
                Some(_) => refusals.push(Refusal::WrongSignature(name)),
            }
        }
        let gravity = |refusal: &Refusal| match refusal {
            Refusal::WrongSignature(_) => 0,
            Refusal::Revoked(_) => 1,
            _ => 2,
        };
        // The first of equals.
        Err(refusals
            .into_iter()
            .min_by_key(gravity)
            .unwrap_or(Refusal::Unsigned))
    }
}

#[cfg(test)]
mod tests;
