//! CLIP (Radford et al. 2021): images and texts into one space.
//!
//! Reads `open_clip` folders with a `ModifiedResNet` image tower. The reference
//! for every number is `open_clip`'s own code; `tests/fixtures/clip` holds what
//! it computed on random weights.

mod attnpool;
pub mod clean;
pub mod config;
pub mod folder;
mod resnet;
pub mod tail;
mod tensors;
mod text;
pub mod tokenizer;
mod train;
mod workers;

use std::path::Path;

use anyhow::{Context, Result, ensure};
use burn::tensor::{DType, Device, Tensor, TensorData};
use rayon::prelude::*;

use self::{
    config::Config,
    resnet::ModifiedResNet,
    tensors::Source,
    text::TextTower,
    tokenizer::{Tokenizer, Tokens},
    workers::Workers,
};
use crate::models::image::{Normalize, Rgb8, resize_and_crop};

pub use self::{
    folder::write_folder,
    train::{Learned, TrainState, Trainer},
};

/// Images of one forward pass on the CPU, and their pixels; more would leave
/// the caches, fewer leave matrix products small.
const CPU_IMAGES: usize = 32;
const CPU_PIXELS: usize = 1 << 19;
/// Texts of one forward pass on the CPU.
const CPU_TEXTS: usize = 32;
/// Images or texts of one forward pass elsewhere.
const DEVICE_BATCH: usize = 256;

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
    image: Option<ModifiedResNet>,
    text: Option<TextTower>,
    logit_scale: f32,
    runner: Runner,
}

impl Clip {
    /// Loads both towers from an `open_clip` folder.
    ///
    /// `dtype` (F32, F16 or BF16) is that of the weights and activations;
    /// normalizations and softmax are computed in f32 always.
    ///
    /// # Errors
    /// When the folder lacks a file, or a file is broken or does not fit; the
    /// message names the file and every tensor concerned.
    pub fn load(folder: &Path, dtype: DType, device: &Device) -> Result<Self> {
        Self::load_tower(folder, Tower::Both, dtype, device)
    }

    /// Loads one tower or both; the file is checked as a whole either way.
    ///
    /// # Errors
    /// As [`Clip::load`].
    pub fn load_tower(folder: &Path, tower: Tower, dtype: DType, device: &Device) -> Result<Self> {
        ensure!(
            matches!(dtype, DType::F32 | DType::F16 | DType::BF16),
            "load `{}` as {dtype:?}: only F32, F16 and BF16 are supported",
            folder.display()
        );
        let config = Config::read(folder)?;
        let mut weights = folder::open_checked(folder, &config)?;
        let shape = weights.shape("logit_scale").unwrap_or_default().to_vec();
        let scale = weights.take_f32("logit_scale", &shape)?[0].exp();
        let runner = Runner::new(&config, dtype, device)?;
        let source = &mut Source {
            weights: &mut weights,
            dtype,
            device,
        };
        let image = match tower {
            Tower::Text => None,
            _ => Some(ModifiedResNet::load(source, &config)?),
        };
        let text = match tower {
            Tower::Image => None,
            _ => Some(TextTower::load(source, &config)?),
        };
        Ok(Self {
            config,
            image,
            text,
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
        let tower = self
            .image
            .as_ref()
            .context("encode images without the image tower")?;
        let images: Vec<&Rgb8> = images.iter().collect();
        let rows = self.runner.map(&images, self.runner.images(), |images| {
            rows(tower.forward(self.runner.pixels(images)))
        })?;
        self.normalized(rows.concat(), "image")
    }

    /// Embeds texts: row-major [n, `embed_dim`], each row of length 1.
    ///
    /// Texts longer than the context are cut; [`Tokenizer::tokenize`] tells.
    ///
    /// # Errors
    /// As [`Clip::encode_images`], for the text tower.
    pub fn encode_texts(&self, texts: &[String]) -> Result<Vec<f32>> {
        let tower = self
            .text
            .as_ref()
            .context("encode texts without the text tower")?;
        let tokens = tokenize(texts, &self.config)?;
        // Neighbours of like length, so that few places are padding.
        let mut order: Vec<usize> = (0..tokens.len()).collect();
        order.sort_by_key(|&i| tokens[i].end());
        let sorted: Vec<&Tokens> = order.iter().map(|&i| &tokens[i]).collect();
        let sorted = self
            .runner
            .map(&sorted, CPU_TEXTS, |texts| rows(tower.forward(texts)))?;
        let width = self.embed_dim();
        let mut embeddings = vec![0.0; texts.len() * width];
        for (&i, row) in order.iter().zip(sorted.concat().chunks_exact(width)) {
            embeddings[i * width..][..width].copy_from_slice(row);
        }
        self.normalized(embeddings, "text")
    }

    /// Divides each row by its length.
    fn normalized(&self, mut rows: Vec<f32>, what: &str) -> Result<Vec<f32>> {
        for (i, row) in rows.chunks_exact_mut(self.embed_dim()).enumerate() {
            let square: f64 = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
            ensure!(
                square.is_finite(),
                "embed {what} {i}: the result is no number\nhint: try dtype = \"f32\""
            );
            // PyTorch's `normalize` guards against zero in the same way.
            let length = square.sqrt().max(1e-12) as f32;
            for x in row {
                *x /= length;
            }
        }
        Ok(rows)
    }
}

/// Tokens of every text.
fn tokenize(texts: &[String], config: &Config) -> Result<Vec<Tokens>> {
    let tokenizer = Tokenizer::shared()?;
    Ok((texts.iter())
        .map(|text| tokenizer.tokenize(text, config.text.context))
        .collect())
}

/// A tensor's values on the host.
fn rows<const D: usize>(x: Tensor<D>) -> Result<Vec<f32>> {
    Ok(x.cast(DType::F32).try_into_data()?.try_into_vec()?)
}

/// How a model's batches reach its device.
#[derive(Debug)]
struct Runner {
    normalize: Normalize,
    size: usize,
    dtype: DType,
    device: Device,
    /// On the CPU only.
    workers: Option<Workers>,
}

impl Runner {
    fn new(config: &Config, dtype: DType, device: &Device) -> Result<Self> {
        let on_cpu = *device == Device::flex();
        Ok(Self {
            normalize: Normalize::new(config.preprocess.mean, config.preprocess.std),
            size: config.image.size,
            dtype,
            device: device.clone(),
            workers: on_cpu.then(Workers::new).transpose()?,
        })
    }

    /// How many images make one forward pass on the CPU.
    fn images(&self) -> usize {
        (CPU_PIXELS / (self.size * self.size)).clamp(1, CPU_IMAGES)
    }

    /// Normalised pixels [n, 3, size, size].
    fn pixels(&self, images: &[&Rgb8]) -> Tensor<4> {
        let size = self.size;
        let mut planes = vec![0.0; images.len() * 3 * size * size];
        (planes.par_chunks_exact_mut(3 * size * size).zip(images)).for_each(|(planes, image)| {
            self.normalize.fill(&resize_and_crop(image, size), planes);
        });
        let data = TensorData::new(planes, [images.len(), 3, size, size]);
        let data = data.convert_dtype(self.dtype);
        Tensor::from_data(data, (&self.device, self.dtype))
    }

    /// `work` of batches of `items`, in order: on the CPU of at most `most`
    /// items and in parallel.
    fn map<T: Sync, R: Send>(
        &self,
        items: &[T],
        most: usize,
        work: impl Fn(&[T]) -> Result<R> + Sync,
    ) -> Result<Vec<R>> {
        match &self.workers {
            Some(workers) => {
                let even = items.len().div_ceil(workers.count());
                let batches: Vec<&[T]> = items.chunks(even.clamp(1, most)).collect();
                workers.map(&batches, |batch| work(batch))
            }
            None => items.chunks(DEVICE_BATCH).map(work).collect(),
        }
    }
}

#[cfg(test)]
mod tests;
