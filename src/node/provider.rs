//! Language models that are not in files of this machine: a server's, and answers
//! that were given before.

use std::{collections::BTreeMap, path::Path};

use anyhow::Result;
use serde_json::json;

use crate::{
    digest::{Digest, FileMemo},
    models::{endpoint::Settings, replay::Replay},
};

/// A model behind an OpenAI-compatible server.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointModel {
    /// How to ask it.
    pub settings: Settings,
    /// What the user says tells its states apart.
    pub revision: Option<String>,
}

impl EndpointModel {
    /// What a result can depend on: the model's name, its revision and what is
    /// added to requests, but not where it is served, or how fast.
    pub fn parts(&self) -> BTreeMap<&'static str, Digest> {
        let model = json!({
            "model": self.settings.model,
            "revision": self.revision,
            "extra": self.settings.extra,
        });
        let digest = Digest::of_json("runner endpoint model v1", &model);
        BTreeMap::from([("endpoint", digest)])
    }
}

/// A file of answers that were given before.
pub struct ReplayFile {
    /// The answers.
    pub answers: Replay,
    digest: Digest,
}

impl ReplayFile {
    /// Reads the file.
    ///
    /// # Errors
    /// When it cannot be read; the message names the line.
    pub fn open(path: &Path, memo: &FileMemo) -> Result<Self> {
        Ok(Self {
            answers: Replay::open(path)?,
            digest: memo.digest_of(path)?,
        })
    }

    /// What a result can depend on: the file's content.
    pub fn parts(&self) -> BTreeMap<&'static str, Digest> {
        BTreeMap::from([("answers", self.digest)])
    }
}
