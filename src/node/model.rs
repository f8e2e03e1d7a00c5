//! A model as a node sees it: a folder, what it is, and digests of its parts.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// What a model folder holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// An open_clip folder: parts `image`, `text`, `scale`.
    Clip,
    /// A Hugging Face folder of a causal language model: parts `weights`, `tokenizer`.
    Llm,
}

/// A model folder and how it is to be loaded.
pub struct ModelFolder {
    /// Where it is.
    pub path: PathBuf,
    /// `f32`, `f16` or `bf16`.
    pub dtype: String,
    /// What it is.
    pub family: Family,
    /// Digests of its parts.
    pub digests: BTreeMap<&'static str, Digest>,
}

impl ModelFolder {
    /// Digests of the parts that a result can depend on.
    pub fn parts(&self) -> Result<BTreeMap<&'static str, Digest>> {
        Ok(self.digests.clone())
    }
}

/// Models loaded on one device, owned by one thread.
pub struct Models {}
