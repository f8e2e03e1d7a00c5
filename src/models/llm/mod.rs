//! Decoder language models from Hugging Face folders: Mistral and Llama.
//!
//! A folder holds `config.json`, `tokenizer.json`, a chat template and weights
//! as `model.safetensors` or in shards. Numbers follow transformers: f32 on the
//! CPU, the weights' own type on other devices.

mod config;
mod cpu;
mod decoder;
mod device;
mod generate;
mod quantize;
mod rope;
mod tensors;
#[cfg(test)]
mod tests;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, bail, ensure};
use burn::tensor::{DType, Device};

pub use config::{Config, Rope, Scaling};
pub use generate::{Finish, Generation, Limits, OnAnswer, Progress, Request, Stopped};
pub use quantize::Quantize;

use self::{decoder::Decoder, tensors::Reader};
use super::{
    chat::ChatTemplate,
    grammar::{Grammar, Vocabulary},
    tokenizer::Tokenizer,
    weights::{INDEXES, Weights},
};

/// Names of single files of weights, best first.
const SINGLE: [&str; 2] = ["model.safetensors", "pytorch_model.bin"];

/// A language model with its tokenizer and chat template.
#[derive(Debug)]
pub struct Llm {
    decoder: Decoder,
    tokenizer: Arc<Tokenizer>,
    chat: ChatTemplate,
    vocabulary: std::sync::OnceLock<Arc<Vocabulary>>,
}

/// The numbers that a model's weights are held in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Precision {
    /// Weights are rounded to this type: F32, F16 or BF16. On the CPU F32 keeps
    /// the type that the file has, since products compute in f32 anyway; on
    /// other devices activations have this type too.
    pub dtype: DType,
    /// What full-precision weights are quantised to while they are read.
    pub quantize: Option<Quantize>,
}

impl From<DType> for Precision {
    fn from(dtype: DType) -> Self {
        Self {
            dtype,
            quantize: None,
        }
    }
}

impl Llm {
    /// Loads a Hugging Face folder onto `device`.
    ///
    /// On a device, quantised weights are expanded once as far as `room` bytes
    /// go, and at each use beyond that; the CPU multiplies them as they are.
    ///
    /// # Errors
    /// Names the file, and the field or tensor, that is missing or wrong.
    pub fn load(folder: &Path, precision: Precision, device: &Device, room: u64) -> Result<Self> {
        let room = (*device != Device::flex()).then_some(room);
        Self::load_with(folder, precision, device, room)
    }

    /// As [`Llm::load`]; our own kernels compute where there is no `room`, and
    /// burn's where there is.
    fn load_with(
        folder: &Path,
        precision: Precision,
        device: &Device,
        room: Option<u64>,
    ) -> Result<Self> {
        let Precision { dtype, quantize } = precision;
        ensure!(
            matches!(dtype, DType::F32 | DType::F16 | DType::BF16),
            "weights of a language model are f32, f16 or bf16, not {dtype:?}"
        );
        let config = Config::open(folder)?;
        let tokenizer = Arc::new(Tokenizer::open_folder(folder)?);
        ensure!(
            (tokenizer.largest_id() as usize) < config.vocab,
            "`{}` has tokens up to {}, but `config.json` has a `vocab_size` of {}",
            tokenizer.path().display(),
            tokenizer.largest_id(),
            config.vocab
        );
        let chat = ChatTemplate::open(folder)?;
        let weights = open_weights(folder)?;
        let decoder = Reader::new(&config, weights, dtype, quantize)
            .and_then(|reader| match room {
                None => cpu::Decoder::load(&config, reader).map(|d| Decoder::Cpu(Box::new(d))),
                Some(room) => device::Decoder::load(&config, reader, dtype, device, room)
                    .map(|d| Decoder::Device(Box::new(d))),
            })
            .with_context(|| format!("failed to load the language model `{}`", folder.display()))?;
        Ok(Self {
            decoder,
            tokenizer,
            chat,
            vocabulary: std::sync::OnceLock::new(),
        })
    }

    /// What the model's configuration says.
    pub fn config(&self) -> &Config {
        self.decoder.config()
    }

    /// Bytes of its weights on the CPU; not known of other devices.
    pub fn bytes(&self) -> usize {
        match &self.decoder {
            Decoder::Cpu(decoder) => decoder.bytes(),
            Decoder::Device(_) => 0,
        }
    }

    /// The model's tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The model's chat template.
    pub fn chat(&self) -> &ChatTemplate {
        &self.chat
    }

    /// The token ids of a conversation of one user turn, ready to be answered.
    ///
    /// # Errors
    /// When the chat template refuses it.
    pub fn prompt_ids(&self, user: &str, system: Option<&str>) -> Result<Vec<u32>> {
        self.chat.prompt_ids(&self.tokenizer, user, system)
    }

    /// What forces an answer to be one JSON object of `count` attributes of at
    /// most `most_chars` characters each.
    ///
    /// # Errors
    /// When the tokenizer has no tokens for it.
    pub fn attributes_grammar(&self, count: usize, most_chars: usize) -> Result<Grammar> {
        Grammar::attributes(&self.vocabulary()?, count, most_chars)
    }

    fn vocabulary(&self) -> Result<Arc<Vocabulary>> {
        if let Some(known) = self.vocabulary.get() {
            return Ok(Arc::clone(known));
        }
        let tokenizer = &self.tokenizer;
        let ids = 0..u32::try_from(self.config().vocab).unwrap_or(u32::MAX);
        let tokens = ids.map(|id| tokenizer.token_bytes(id)).collect();
        let own = Arc::clone(tokenizer);
        let vocabulary = Vocabulary::new(tokens, &self.config().eos, move |text| own.encode(text))
            .with_context(|| format!("failed to use `{}` for JSON", tokenizer.path().display()))?;
        let vocabulary = Arc::new(vocabulary);
        Ok(Arc::clone(self.vocabulary.get_or_init(|| vocabulary)))
    }

    /// Logits [tokens, vocab], row-major, after every token of one text.
    ///
    /// # Errors
    /// When an id is out of range, or the device fails.
    pub fn logits(&self, ids: &[u32]) -> Result<Vec<f32>> {
        let vocab = self.config().vocab;
        ensure!(
            !ids.is_empty() && ids.len() <= self.config().max_positions,
            "a text of {} tokens is out of range",
            ids.len()
        );
        ensure!(
            ids.iter().all(|&id| (id as usize) < vocab),
            "a token is not among the model's {vocab}"
        );
        self.decoder.logits(ids)
    }
}

/// The files that a model is read from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// Configuration and weights.
    pub weights: Vec<PathBuf>,
    /// Tokenizer and chat template.
    pub tokenizer: Vec<PathBuf>,
}

/// The files of a Hugging Face folder that [`Llm::load`] reads.
///
/// # Errors
/// When there are no weights, or their index cannot be read.
pub fn files(folder: &Path) -> Result<Files> {
    let there = |names: &[&str]| -> Vec<PathBuf> {
        let paths = names.iter().map(|name| folder.join(name));
        paths.filter(|path| path.exists()).collect()
    };
    let mut weights = there(&["config.json", "generation_config.json"]);
    match stored(folder)? {
        Stored::Single(path) => weights.push(path),
        Stored::Sharded => weights.extend(Weights::shards(folder)?),
    }
    let mut tokenizer = there(&super::chat::FILES);
    tokenizer.extend(Tokenizer::files(folder));
    tokenizer.sort();
    tokenizer.dedup();
    Ok(Files { weights, tokenizer })
}

/// How a folder holds its weights.
enum Stored {
    Single(PathBuf),
    Sharded,
}

fn stored(folder: &Path) -> Result<Stored> {
    // As in the reference, safetensors come before PyTorch's own files.
    for (single, index) in SINGLE.iter().zip(&INDEXES) {
        if folder.join(single).exists() {
            return Ok(Stored::Single(folder.join(single)));
        }
        if folder.join(index).exists() {
            return Ok(Stored::Sharded);
        }
    }
    bail!(
        "`{}` holds no weights\nhint: looked for `{}` and `{}`",
        folder.display(),
        SINGLE.join("`, `"),
        INDEXES.join("`, `")
    )
}

/// Opens a folder's weights, in one file or in several.
fn open_weights(folder: &Path) -> Result<Weights> {
    Ok(match stored(folder)? {
        Stored::Single(path) => Weights::open(&path)?,
        Stored::Sharded => Weights::open_sharded(folder)?,
    })
}
