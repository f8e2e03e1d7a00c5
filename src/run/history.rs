//! Earlier runs of a pipeline: which key each node had, for `why` and `log`.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{digest::Digest, store::Store};

/// One finished (or stopped) run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunEntry {
    /// Name of the pipeline.
    pub pipeline: String,
    /// The file as it was given.
    pub file: String,
    /// Seconds since 1970, UTC.
    pub started: u64,
    /// Seconds that it took.
    pub seconds: f64,
    /// The command line.
    pub command: Vec<String>,
    /// Who and where.
    pub provenance: Value,
    /// Whether the user stopped it.
    pub stopped: bool,
    /// Every node of the run by name.
    pub nodes: BTreeMap<String, RunNode>,
    /// Its tables, as JSON; null for runs of before they were kept.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub tables: Value,
}

/// One node of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunNode {
    /// `hit`, `ran`, `failed`, `blocked`.
    pub state: String,
    /// Its key, where it had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Digest>,
    /// Seconds that it took in this run.
    #[serde(default)]
    pub seconds: f64,
    /// Items computed and found.
    #[serde(default)]
    pub items: (u64, u64),
    /// The key of the person who computed it, if it came from a shared cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Why it ran, or why it failed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// The newest run of one pipeline.
#[derive(Default)]
pub struct History {
    last: BTreeMap<String, Digest>,
}

impl History {
    /// Reads the newest keys of `pipeline`'s nodes; an unreadable history is an empty one.
    pub fn load(store: &Store, pipeline: &str) -> Self {
        let mut last = BTreeMap::new();
        for (_, entry) in all(store).unwrap_or_default() {
            if entry.pipeline == pipeline {
                for (id, node) in entry.nodes {
                    if let Some(key) = node.key {
                        last.insert(id, key);
                    }
                }
            }
        }
        Self { last }
    }

    /// The key that node `id` had last.
    pub fn key(&self, id: &str) -> Option<Digest> {
        self.last.get(id).copied()
    }

    /// What that key was made of, if its record is still there. To be compared with is no use:
    /// results that nobody wants any more are collected all the same.
    pub fn fingerprint(&self, store: &Store, id: &str) -> Option<Value> {
        let key = self.key(id)?;
        let own = store.peek(&key).ok()?;
        let record = own.or_else(|| Some(store.remembered(&key)?.record))?;
        Some(record.fingerprint)
    }
}

/// All runs, oldest first.
///
/// # Errors
/// When the folder of runs cannot be read; a single bad file is left out.
pub fn all(store: &Store) -> Result<Vec<(String, RunEntry)>> {
    let mut runs: Vec<(String, RunEntry)> = store
        .runs()?
        .into_iter()
        .filter_map(|(id, value)| Some((id, serde_json::from_value(value).ok()?)))
        .collect();
    runs.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(runs)
}
