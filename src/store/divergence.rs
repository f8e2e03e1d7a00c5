//! Divergences: one key for which different bytes were computed. The first result stays, and
//! both are named here for a person to look into.

use serde::{Deserialize, Serialize};

use super::{Inner, Store, StoreError, lock};
use crate::digest::Digest;

/// No more sides of one divergence are kept.
const MOST: usize = 32;

/// A key with different results.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Divergence {
    /// The key.
    pub key: Digest,
    /// The results, the one that stays first.
    pub sides: Vec<Side>,
}

/// One of the results.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Side {
    /// Digest of the artifact's manifest.
    pub artifact: Digest,
    /// Who computed it: a key's name, or words.
    pub by: String,
}

impl Side {
    /// The result `artifact`, computed by `by`.
    pub fn new(artifact: Digest, by: impl Into<String>) -> Self {
        Self {
            artifact,
            by: by.into(),
        }
    }
}

impl Store {
    /// Notes that different results are known for `key`.
    pub fn diverged(&self, key: &Digest, sides: &[Side]) {
        self.0.note_divergence(key, sides);
    }

    /// Every divergence met so far.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn divergences(&self) -> Result<Vec<Divergence>, StoreError> {
        let names = self.0.dir.names_in("divergences");
        let names = names.map_err(|error| self.0.io("read", "divergences", error))?;
        Ok(names
            .iter()
            .filter_map(|name| self.0.divergence(name.strip_suffix(".json")?))
            .collect())
    }
}

impl Inner {
    fn divergence(&self, key: &str) -> Option<Divergence> {
        let json = self.document(&format!("divergences/{key}.json")).ok()??;
        serde_json::from_value(json).ok()
    }

    pub(super) fn note_divergence(&self, key: &Digest, sides: &[Side]) {
        if self.read_only {
            return;
        }
        // One after another within a process; between processes the last one's list stays.
        let _one = lock(&self.diverging);
        let name = key.to_string();
        let mut known = self.divergence(&name).unwrap_or_else(|| Divergence {
            key: *key,
            sides: Vec::new(),
        });
        let before = known.sides.len();
        for side in sides {
            let there = known
                .sides
                .iter()
                .any(|other| other.artifact == side.artifact);
            if !there && known.sides.len() < MOST {
                known.sides.push(side.clone());
            }
        }
        if known.sides.len() == before {
            return;
        }
        let saved = serde_json::to_vec(&known).map_err(|error| error.to_string());
        let saved = saved.and_then(|bytes| {
            let name = format!("{name}.json");
            self.replace("divergences", &name, &bytes, false)
                .map_err(|error| error.to_string())
        });
        if let Err(reason) = saved {
            self.warn("divergences", &reason);
        }
    }
}
