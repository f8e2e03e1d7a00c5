//! Decoder language models from Hugging Face folders: Mistral and Llama.
//!
//! A folder holds `config.json`, `tokenizer.json`, a chat template and weights
//! as `model.safetensors` or in shards. Numbers follow transformers: f32 on the
//! CPU, the weights' own type on other devices.

mod config;
mod decoder;
mod generate;
mod kv;
mod kv_device;
mod kv_host;
mod linear;
mod norm;
mod rope;
#[cfg(test)]
mod tests;

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use burn::tensor::{DType, Device};

pub use config::{Config, Rope, Scaling};
pub use generate::{Finish, Generation, Limits, Progress, Request, Stopped};

use self::decoder::Decoder;
use super::{chat::ChatTemplate, tokenizer::Tokenizer, weights::Weights};

/// A language model with its tokenizer and chat template.
#[derive(Debug)]
pub struct Llm {
    decoder: Decoder,
    tokenizer: Tokenizer,
    chat: ChatTemplate,
}

impl Llm {
    /// Loads a Hugging Face folder onto `device`.
    ///
    /// Weights are rounded to `dtype` (F32, F16 or BF16); the CPU then computes
    /// in f32.
    ///
    /// # Errors
    /// Names the file, and the field or tensor, that is missing or wrong.
    pub fn load(folder: &Path, dtype: DType, device: &Device) -> Result<Self> {
        let flex = *device == Device::flex();
        let kept = if flex { DType::F32 } else { dtype };
        Self::load_with(folder, [dtype, kept], device, flex)
    }

    /// As [`Llm::load`]; the weights are rounded to the first type and kept as
    /// the second, and `host` says where attention runs.
    fn load_with(
        folder: &Path,
        [dtype, kept]: [DType; 2],
        device: &Device,
        host: bool,
    ) -> Result<Self> {
        ensure!(
            matches!(dtype, DType::F32 | DType::F16 | DType::BF16),
            "weights of a language model are f32, f16 or bf16, not {dtype:?}"
        );
        let config = Config::open(folder)?;
        let tokenizer = Tokenizer::open(&folder.join("tokenizer.json"))?;
        ensure!(
            (tokenizer.largest_id() as usize) < config.vocab,
            "`{}` has tokens up to {}, but `config.json` has a `vocab_size` of {}",
            tokenizer.path().display(),
            tokenizer.largest_id(),
            config.vocab
        );
        let chat = ChatTemplate::open(folder)?;
        let weights = open_weights(folder)?;
        let decoder = Decoder::load(config, weights, [dtype, kept], device, host)
            .with_context(|| format!("failed to load the language model `{}`", folder.display()))?;
        Ok(Self {
            decoder,
            tokenizer,
            chat,
        })
    }

    /// What the model's configuration says.
    pub fn config(&self) -> &Config {
        &self.decoder.config
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

/// Opens `model.safetensors`, or the shards that its index names.
fn open_weights(folder: &Path) -> Result<Weights> {
    let single = folder.join("model.safetensors");
    if folder.join("model.safetensors.index.json").exists() {
        return Ok(Weights::open_sharded(folder)?);
    }
    if single.exists() {
        return Ok(Weights::open(&single)?);
    }
    bail!(
        "`{}` holds neither `model.safetensors` nor `model.safetensors.index.json`\n\
         hint: only safetensors files are read",
        folder.display()
    )
}
