//! CLIP (Radford et al. 2021): images and texts into one space.
//!
//! Both families of image towers, `ModifiedResNet` and ViT, from the files that
//! `open_clip`, `OpenAI` and transformers write. The reference for every number is
//! `open_clip`'s own code; `tests/fixtures/clip` holds what it computed on random
//! weights. In f32 on the CPU the towers run over [`cpu`](crate::models::cpu)'s
//! kernels, everywhere else over burn.

mod attnpool;
pub mod checkpoint;
pub mod clean;
pub mod config;
mod coop;
mod features;
pub mod folder;
mod hugging_face;
pub mod layers;
pub mod random;
mod resnet;
mod resnet_cpu;
mod runner;
pub mod tail;
mod tensors;
mod text;
mod text_cpu;
pub mod tokenizer;
mod towers;
mod train;
mod trained;
mod transformer;
mod transformer_cpu;
mod vit;
mod vit_cpu;
mod workers;

use std::{borrow::Cow, path::Path};

use anyhow::{Context, Result, ensure};
use burn::tensor::{DType, Device, Tensor};

use self::{
    checkpoint::Checkpoint,
    config::Config,
    runner::{CPU_TEXTS, Runner},
    tensors::Source,
    tokenizer::{Tokenizer, Tokens, TooLong},
    towers::{ImageTower, TextTower},
};
use crate::models::image::Rgb8;

pub use self::{
    coop::{Coop, CoopState, Sgd, Start},
    features::FeatureCache,
    folder::write_folder,
    layers::{ImageLayers, Layers, TextLayers},
    tokenizer::words,
    train::{Features, Judged, Learned, TrainState, Trainer},
};

/// Which tower to load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tower {
    /// For images only.
    Image,
    /// For texts only.
    Text,
    /// For both.
    Both,
}

/// A loaded model.
#[derive(Debug)]
pub struct Clip {
    config: Config,
    image: Option<ImageTower>,
    text: Option<TextTower>,
    /// There with the text tower.
    tokenizer: Option<Tokenizer>,
    logit_scale: f32,
    runner: Runner,
}

impl Clip {
    /// Loads both towers of the model at `path`.
    ///
    /// `dtype` (F32, F16 or BF16) is that of the weights and activations;
    /// normalizations and softmax are computed in f32 always.
    ///
    /// # Errors
    /// When a file is not there, is broken or does not fit; the message names
    /// the file and every tensor concerned.
    pub fn load(path: &Path, dtype: DType, device: &Device) -> Result<Self> {
        Self::load_tower(&Checkpoint::open(path, None)?, Tower::Both, dtype, device)
    }

    /// Loads one tower or both; the file is checked as a whole either way.
    ///
    /// # Errors
    /// As [`Clip::load`].
    pub fn load_tower(
        checkpoint: &Checkpoint,
        tower: Tower,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        ensure!(
            matches!(dtype, DType::F32 | DType::F16 | DType::BF16),
            "load a model as {dtype:?}: only F32, F16 and BF16 are supported"
        );
        let config = checkpoint.config().clone();
        let mut weights = checkpoint.checked()?;
        let scale = checkpoint::logit_scale(&mut weights)?;
        let runner = Runner::new(&config, dtype, device)?;
        let source = &mut Source {
            weights: &mut weights,
            dtype,
            device,
        };
        let image = match tower {
            Tower::Text => None,
            _ => Some(ImageTower::load(source, &config)?),
        };
        let text = match tower {
            Tower::Image => None,
            _ => Some(TextTower::load(source, &config)?),
        };
        let tokenizer = (text.is_some())
            .then(|| checkpoint.tokenizer(TooLong::Cut))
            .transpose()?;
        Ok(Self {
            config,
            image,
            text,
            tokenizer,
            logit_scale: scale,
            runner,
        })
    }

    /// Width of the shared space.
    pub fn embed_dim(&self) -> usize {
        self.config.embed_dim
    }

    /// The model's shape.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The factor of the logits that the model was trained with, about 100.
    pub fn logit_scale(&self) -> f32 {
        self.logit_scale
    }

    /// Embeds images: row-major [n, `embed_dim`], each row of length 1.
    ///
    /// # Errors
    /// When the image tower is not loaded, the device fails, or an embedding
    /// is no number (as f16 may overflow).
    pub fn encode_images(&self, images: &[Rgb8]) -> Result<Vec<f32>> {
        let fetch = |i: usize| Ok(Cow::Borrowed(&images[i]));
        let rows = self.encode_fetched(images.len(), &fetch, &|_| {})?;
        Ok(rows.into_iter().collect::<Result<Vec<_>>>()?.concat())
    }

    /// Embeds `n` images, which `fetch` gives one at a time, from any thread.
    ///
    /// `progress` is told now and then how many are done, from any thread too.
    /// Only a few batches are held, as bytes of the tower's size. An image that
    /// cannot be fetched has its error for a result; the others are embedded.
    ///
    /// # Errors
    /// As [`Clip::encode_images`].
    pub fn encode_fetched(
        &self,
        n: usize,
        fetch: &runner::Fetch<'_>,
        progress: &(dyn Fn(usize) + Sync),
    ) -> Result<Vec<Result<Vec<f32>>>> {
        let tower = (self.image.as_ref()).context("encode images without the image tower")?;
        let work = |images: &[&Rgb8]| tower.forward(images, &self.runner);
        let mut rows = (self.runner).map_images(n, self.embed_dim(), fetch, &work, progress)?;
        for (i, row) in rows.iter_mut().enumerate() {
            if let Ok(row) = row {
                normalize(row).with_context(|| format!("embed image {i}"))?;
            }
        }
        Ok(rows)
    }

    /// Embeds texts: row-major [n, `embed_dim`], each row of length 1.
    ///
    /// Texts longer than the context are cut; [`Checkpoint::tokenizer`] tells which.
    ///
    /// # Errors
    /// As [`Clip::encode_images`], for the text tower.
    pub fn encode_texts(&self, texts: &[String]) -> Result<Vec<f32>> {
        let (tower, tokenizer) = (self.text.as_ref().zip(self.tokenizer.as_ref()))
            .context("encode texts without the text tower")?;
        let tokens = tokenize(texts, tokenizer, self.config.text.context)?;
        // Neighbours of like length, so that few places are padding.
        let mut order: Vec<usize> = (0..tokens.len()).collect();
        order.sort_by_key(|&i| tokens[i].end());
        let sorted: Vec<&Tokens> = order.iter().map(|&i| &tokens[i]).collect();
        let sorted = (self.runner).map_items(&sorted, CPU_TEXTS, |texts| {
            tower.forward(texts, &self.runner)
        })?;
        let width = self.embed_dim();
        let mut embeddings = vec![0.0; texts.len() * width];
        for (&i, row) in order.iter().zip(sorted.concat().chunks_exact(width)) {
            embeddings[i * width..][..width].copy_from_slice(row);
        }
        for (i, row) in embeddings.chunks_exact_mut(width).enumerate() {
            normalize(row).with_context(|| format!("embed text {i}"))?;
        }
        Ok(embeddings)
    }
}

/// Divides a row by its length.
fn normalize(row: &mut [f32]) -> Result<()> {
    let square: f64 = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    ensure!(
        square.is_finite(),
        "the result is no number\nhint: try dtype = \"f32\""
    );
    // PyTorch's `normalize` guards against zero in the same way.
    let length = square.sqrt().max(1e-12) as f32;
    for x in row {
        *x /= length;
    }
    Ok(())
}

/// Tokens of every text.
fn tokenize(texts: &[String], tokenizer: &Tokenizer, context: usize) -> Result<Vec<Tokens>> {
    (texts.iter())
        .map(|text| tokenizer.tokenize(text, context))
        .collect()
}

/// A tensor's values on the host.
fn rows<const D: usize>(x: Tensor<D>) -> Result<Vec<f32>> {
    Ok(x.cast(DType::F32).try_into_data()?.try_into_vec()?)
}

#[cfg(test)]
mod tests;
