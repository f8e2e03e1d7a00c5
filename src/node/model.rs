//! A model as a node sees it: a folder, what it is, and digests of its parts.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::ArtifactFiles;
use crate::{
    artifact::LabelUse,
    digest::{Digest, FileMemo},
    models::{
        clip::{
            checkpoint::{Checkpoint, is_model},
            config,
            folder::{Part, WEIGHTS_FILE},
            tokenizer::Dialect,
        },
        llm::{self, Quantize},
    },
};

/// What a model folder holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// A CLIP model in any of the formats we read: parts `image`, `text`, `scale`.
    Clip,
    /// A Hugging Face folder of a causal language model: parts `weights`, `tokenizer`.
    Llm,
}

/// The weights file of an open_clip folder that `finetune` writes.
pub const CLIP_WEIGHTS: &str = WEIGHTS_FILE;
/// The configuration of an open_clip folder.
pub const CLIP_CONFIG: &str = config::CONFIG_FILE;

/// A model's files and how they are to be loaded.
pub struct ModelFolder {
    /// Where it is: a folder, or a file of weights.
    pub path: PathBuf,
    /// The name of a CLIP model's architecture, where no file tells it.
    pub architecture: Option<String>,
    /// `f32`, `f16` or `bf16`.
    pub dtype: String,
    /// What a language model's weights are quantised to while they are read.
    pub quantize: Option<Quantize>,
    /// What it is.
    pub family: Family,
    /// Labels that trained it in this pipeline; none for an entry of `[models]`.
    pub labels: Vec<LabelUse>,
    /// Keeps a folder made for a stored artifact until the last user is done.
    pub keep: Option<Arc<dyn ArtifactFiles>>,
    parts: BTreeMap<&'static str, Digest>,
}

impl ModelFolder {
    /// Describes the folder at `path`: digests of its parts, computed alike for
    /// folders of `[models]` and for stored weights. `memo` remembers those of
    /// files that have not changed.
    ///
    /// # Errors
    /// When a file that the loader reads is missing or malformed; the message names it.
    pub fn open(
        path: PathBuf,
        family: Family,
        architecture: Option<&str>,
        dtype: &str,
        memo: &FileMemo,
    ) -> Result<Self> {
        let parts = match family {
            Family::Clip => clip_parts(&Checkpoint::open(&path, architecture)?, memo)?,
            Family::Llm => llm_parts(&path, memo)?,
        };
        Ok(Self {
            path,
            architecture: architecture.map(str::to_owned),
            dtype: dtype.to_owned(),
            quantize: None,
            family,
            labels: Vec::new(),
            keep: None,
            parts,
        })
    }

    /// A CLIP model's files.
    ///
    /// # Errors
    /// When they are no longer there or no longer a model.
    pub fn checkpoint(&self) -> Result<Checkpoint> {
        Checkpoint::open(&self.path, self.architecture.as_deref())
    }

    /// Digests of the parts that a result can depend on.
    pub const fn parts(&self) -> &BTreeMap<&'static str, Digest> {
        &self.parts
    }

    /// Digest of the part called `name`.
    ///
    /// # Errors
    /// When the family has no such part.
    pub fn part(&self, name: &str) -> Result<Digest> {
        match self.parts.get(name) {
            Some(digest) => Ok(*digest),
            None => bail!("`{}` has no part `{name}`", self.path.display()),
        }
    }

    /// Digest of all parts: what `digest = "blake3:…"` pins.
    pub fn digest(&self) -> Digest {
        Digest::of_json("runner model v1", &json!(self.parts))
    }
}

/// The architectures that `[models]` can name, such as `RN50-quickgelu`.
pub fn architectures() -> Vec<String> {
    let plain = config::architectures();
    let quick = plain.iter().map(|name| format!("{name}-quickgelu"));
    quick
        .chain(plain.iter().map(|name| (*name).to_owned()))
        .collect()
}

/// What seems to be at `path`; whether it is sound is found out when it is opened.
pub fn family(path: &Path) -> Option<Family> {
    if is_model(path) {
        Some(Family::Clip)
    } else if path.join("config.json").is_file() {
        Some(Family::Llm)
    } else {
        None
    }
}

/// The files that a model of `family` at `path` is read from.
///
/// # Errors
/// When the folder cannot be listed.
pub fn files(path: &Path, family: Family, architecture: Option<&str>) -> Result<Vec<PathBuf>> {
    match family {
        Family::Clip => Ok(Checkpoint::open(path, architecture)?.files()),
        Family::Llm => {
            let files = llm::files(path)?;
            Ok(files.weights.into_iter().chain(files.tokenizer).collect())
        }
    }
}

/// `image` and `text` hold the tensors of a tower with the part of the
/// configuration that it reads, `scale` the logit scale.
fn clip_parts(checkpoint: &Checkpoint, memo: &FileMemo) -> Result<BTreeMap<&'static str, Digest>> {
    let tensors = clip_tensors(checkpoint, memo)?;
    let tokenizer = match checkpoint.tokenizer_files() {
        (Some(path), _) => json!(memo.digest_of(path)?),
        (None, Dialect::OpenClip) => Value::Null,
        (None, Dialect::OpenAi) => json!("openai"),
    };
    let part = |name: &str, part: Part| {
        let settings = part.settings(checkpoint.config());
        let mut all = json!({"tensors": tensors[name], "config": settings});
        if part == Part::Text && !tokenizer.is_null() {
            all["tokenizer"] = tokenizer.clone();
        }
        Digest::of_json("runner clip part v1", &all)
    };
    Ok((CLIP_PARTS.iter())
        .map(|(name, which)| (*name, part(name, *which)))
        .collect())
}

const CLIP_PARTS: [(&str, Part); 3] = [
    ("image", Part::Image),
    ("text", Part::Text),
    ("scale", Part::Scale),
];

/// One digest for each part's tensors: names, types, shapes and bytes.
fn clip_tensors(checkpoint: &Checkpoint, memo: &FileMemo) -> Result<Value> {
    let tag = format!("clip tensors v2 {}", checkpoint.layout());
    let path = checkpoint.path();
    // An index can stay as it is while the files that it names change.
    let whole = !checkpoint.is_sharded();
    if let Some(known) = memo.noted(path, &tag).filter(|_| whole)
        && let Ok(value) = serde_json::from_slice(&known)
    {
        return Ok(value);
    }
    let mut weights = checkpoint.weights()?;
    let mut digests = Map::new();
    for (name, part) in CLIP_PARTS {
        let mut list = Vec::new();
        for tensor in weights.tensor_digest_source(|tensor| Part::of(tensor) == part) {
            let tensor = tensor?;
            let digest = Digest::of(&tensor.bytes);
            list.push(json!([tensor.name, tensor.dtype, tensor.shape, digest]));
        }
        let digest = Digest::of_json("runner tensors v1", &list.into());
        digests.insert(name.to_owned(), json!(digest));
    }
    let value = Value::Object(digests);
    if whole {
        memo.note(path, &tag, value.to_string().as_bytes());
    }
    Ok(value)
}

/// `tokenizer` holds the tokenizer and chat template, `weights` all else.
fn llm_parts(folder: &Path, memo: &FileMemo) -> Result<BTreeMap<&'static str, Digest>> {
    let files = llm::files(folder)?;
    let part = |mut files: Vec<PathBuf>| -> Result<Digest> {
        files.sort();
        let mut list = Vec::new();
        for path in files {
            let name = path.file_name().and_then(|n| n.to_str());
            let digest = memo
                .digest_of(&path)
                .with_context(|| format!("failed to read `{}`", path.display()))?;
            list.push(json!([name.unwrap_or_default(), digest]));
        }
        Ok(Digest::of_json("runner llm part v1", &list.into()))
    };
    Ok(BTreeMap::from([
        ("tokenizer", part(files.tokenizer)?),
        ("weights", part(files.weights)?),
    ]))
}
