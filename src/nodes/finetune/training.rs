//! A model in training, kept from one epoch to the next with what its frozen
//! trunk made of the images.

use anyhow::Result;
use burn::tensor::Device;

use crate::{
    data::Split,
    models::{
        clip::{FeatureCache, Features, Layers, Trainer, checkpoint::Checkpoint},
        image::Rgb8,
    },
    node::Budget,
};

/// Bytes of features that are kept where nothing else is said.
const FEATURES: u64 = 4 << 30;

/// A trainer and the features of the images that it sees again and again.
pub(super) struct Training {
    pub(super) trainer: Trainer,
    features: FeatureCache,
}

impl Training {
    /// Loads a model of which `layers` are trained.
    pub(super) fn new(
        files: &Checkpoint,
        layers: Layers,
        weight_decay: f32,
        device: &Device,
    ) -> Result<Self> {
        Ok(Self {
            trainer: Trainer::load(files, layers, weight_decay, device)?,
            features: FeatureCache::new(0, 0),
        })
    }

    /// From now on takes a split of `images` images, and lets go of any other's
    /// features.
    pub(super) fn keep_features(&mut self, images: usize, budget: &Budget) {
        let room = budget.features_memory.unwrap_or(FEATURES);
        self.features = FeatureCache::new(images, room);
    }

    /// The features of the images `which` of the split.
    pub(super) fn features(&mut self, split: &Split, which: &[usize]) -> Result<Features> {
        let fetch = |i: usize| {
            let pixels = split.image(i)?;
            Rgb8::new(pixels.width, pixels.height, pixels.rgb)
        };
        self.features.features(&self.trainer, which, &fetch)
    }
}
