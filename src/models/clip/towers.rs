//! Both towers of a model, each in the form that suits its device.

use anyhow::Result;
use burn::tensor::{DType, Device, Tensor, TensorData};

use super::{
    attnpool::AttentionPool,
    config::{Config, ImageConfig, ResnetConfig, VitConfig},
    resnet::{ModifiedResNet, Trunk},
    resnet_cpu::{CpuTrunk, Map},
    rows,
    runner::Runner,
    tensors::Source,
    text,
    text_cpu::CpuText,
    tokenizer::Tokens,
    vit::{Vit, VitTrunk},
    vit_cpu::{CpuVit, CpuVitTrunk},
};
use crate::models::{cpu::Scratch, image::Rgb8};

/// Whether the kernels for the CPU take this model.
pub(super) fn on_kernels(dtype: DType, device: &Device) -> bool {
    dtype == DType::F32 && *device == Device::flex()
}

/// An image tower.
#[derive(Debug)]
pub(super) enum ImageTower {
    /// A `ModifiedResNet` over burn.
    Resnet(Box<ModifiedResNet>),
    /// A `ModifiedResNet` over the CPU's kernels.
    ResnetCpu(Box<CpuResnet>),
    /// A vision transformer over burn.
    Vit(Box<Vit>),
    /// A vision transformer over the CPU's kernels.
    VitCpu(Box<CpuVit>),
}

impl ImageTower {
    pub(super) fn load(source: &mut Source<'_>, config: &Config) -> Result<Self> {
        let embed = config.embed_dim;
        let kernels = on_kernels(source.dtype, source.device);
        Ok(match (&config.image, kernels) {
            (ImageConfig::Resnet(resnet), false) => {
                Self::Resnet(Box::new(ModifiedResNet::load(source, resnet, embed)?))
            }
            (ImageConfig::Resnet(resnet), true) => {
                Self::ResnetCpu(Box::new(CpuResnet::load(source, resnet, embed)?))
            }
            (ImageConfig::Vit(vit), false) => Self::Vit(Box::new(Vit::load(source, vit, embed)?)),
            (ImageConfig::Vit(vit), true) => {
                Self::VitCpu(Box::new(CpuVit::load(source, vit, embed)?))
            }
        })
    }

    /// Resized images → features, row-major [n, embed].
    pub(super) fn forward(&self, images: &[&Rgb8], runner: &Runner) -> Result<Vec<f32>> {
        match self {
            Self::Resnet(tower) => {
                let filled = runner.bucket(images);
                kept(tower.forward(runner.planes(&filled)), images.len())
            }
            Self::Vit(tower) => {
                let filled = runner.bucket(images);
                kept(tower.forward(runner.planes(&filled)), images.len())
            }
            Self::ResnetCpu(tower) => tower.forward(&runner.pixels(images)),
            Self::VitCpu(tower) => {
                let scratch = &mut Scratch::default();
                Ok(tower.forward(&runner.pixels(images), scratch, |_, _| {}))
            }
        }
    }
}

/// The first `n` rows on the host; the others only filled a bucket.
fn kept(features: Tensor<2>, n: usize) -> Result<Vec<f32>> {
    rows(features.narrow(0, 0, n))
}

/// The maps of `n` images as burn takes them: [n, side · side, channels].
fn places(map: Map, n: usize) -> Tensor<3> {
    let places = map.side * map.side;
    let channels = map.data.len() / (n * places);
    let data = TensorData::new(map.data, [n, places, channels]);
    Tensor::from_data(data, &Device::flex())
}

/// A `ModifiedResNet` on the CPU: the attention pool is a small part, and burn's.
#[derive(Debug)]
pub(super) struct CpuResnet {
    pub(super) trunk: CpuTrunk,
    pub(super) attnpool: AttentionPool,
}

impl CpuResnet {
    fn load(source: &mut Source<'_>, config: &ResnetConfig, embed: usize) -> Result<Self> {
        Ok(Self {
            trunk: CpuTrunk::load(source, config, 4)?,
            attnpool: AttentionPool::load(source, config, embed)?,
        })
    }

    /// Normalised images [n, size, size, 3] → features [n, embed].
    pub(super) fn forward(&self, images: &[f32]) -> Result<Vec<f32>> {
        let map = self.trunk.forward(images, &mut Scratch::default());
        rows(
            self.attnpool
                .forward(places(map, self.trunk.images(images))),
        )
    }
}

/// The frozen beginning of an image tower in f32; it may be all of it.
#[derive(Debug)]
pub(super) enum ImageTrunk {
    /// Of a `ModifiedResNet` over burn.
    Resnet(Box<Trunk>),
    /// Of a `ModifiedResNet` over the CPU's kernels.
    ResnetCpu(Box<CpuTrunk>),
    /// Of a vision transformer over burn.
    Vit(Box<VitTrunk>),
    /// Of a vision transformer over the CPU's kernels.
    VitCpu(Box<CpuVitTrunk>),
    /// All of either family.
    Whole(Box<ImageTower>),
}

impl ImageTrunk {
    /// The stem and the first stages, without the last `blocks` bottlenecks of
    /// `layer4`.
    pub(super) fn load_resnet(
        source: &mut Source<'_>,
        config: &ResnetConfig,
        blocks: usize,
    ) -> Result<Self> {
        let mut config = config.clone();
        config.layers[3] = config.layers[3].saturating_sub(blocks);
        Ok(if on_kernels(source.dtype, source.device) {
            Self::ResnetCpu(Box::new(CpuTrunk::load(source, &config, 4)?))
        } else {
            Self::Resnet(Box::new(Trunk::load(source, &config, 4)?))
        })
    }

    /// A vision transformer without its last `blocks` blocks.
    pub(super) fn load_vit(
        source: &mut Source<'_>,
        config: &VitConfig,
        blocks: usize,
    ) -> Result<Self> {
        let first = config.transformer.layers.saturating_sub(blocks);
        Ok(if on_kernels(source.dtype, source.device) {
            Self::VitCpu(Box::new(CpuVitTrunk::load(source, config, first)?))
        } else {
            Self::Vit(Box::new(VitTrunk::load(source, config, first)?))
        })
    }

    /// Prepared images → features, one row an image: of a `ModifiedResNet`
    /// [channels, side, side], of a vision transformer [tokens, width], of a
    /// whole tower [embed]. An image's row does not depend on the others, on
    /// the CPU not even in its last bit.
    pub(super) fn forward(&self, images: &[&Rgb8], runner: &Runner) -> Result<Tensor<2>> {
        let n = images.len();
        Ok(match self {
            Self::Resnet(trunk) => trunk.forward(runner.planes(images)).flatten(1, 3),
            Self::ResnetCpu(trunk) => {
                let map = trunk.forward(&runner.pixels(images), &mut Scratch::default());
                places(map, n).swap_dims(1, 2).flatten(1, 2)
            }
            Self::Vit(trunk) => trunk.trace(runner.planes(images), |_, _| {}).flatten(1, 2),
            Self::VitCpu(trunk) => {
                let rows = trunk.forward(&runner.pixels(images), &mut Scratch::default());
                let data = TensorData::new(rows, [n, trunk.numbers()]);
                Tensor::from_data(data, &Device::flex())
            }
            Self::Whole(tower) => {
                let rows = tower.forward(images, runner)?;
                let embed = rows.len() / n;
                Tensor::from_data(TensorData::new(rows, [n, embed]), runner.device())
            }
        })
    }
}

/// A text tower.
#[derive(Debug)]
pub(super) enum TextTower {
    /// Over burn.
    Burn(Box<text::TextTower>),
    /// Over the CPU's kernels.
    Cpu(Box<CpuText>),
}

impl TextTower {
    pub(super) fn load(source: &mut Source<'_>, config: &Config) -> Result<Self> {
        Ok(if on_kernels(source.dtype, source.device) {
            Self::Cpu(Box::new(CpuText::load(source, config)?))
        } else {
            Self::Burn(Box::new(text::TextTower::load(source, config)?))
        })
    }

    /// Texts → features, row-major [n, embed].
    pub(super) fn forward(&self, texts: &[&Tokens], runner: &Runner) -> Result<Vec<f32>> {
        match self {
            Self::Burn(tower) => {
                let filled = runner.bucket(texts);
                kept(tower.forward(&filled, runner), texts.len())
            }
            Self::Cpu(tower) => Ok(tower.forward(texts, &mut Scratch::default(), |_| {})),
        }
    }
}
