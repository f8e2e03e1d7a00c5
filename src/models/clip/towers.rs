//! Both towers of a model, each in the form that suits its device.

use anyhow::Result;
use burn::tensor::{DType, Device, Tensor, TensorData};

use super::{
    attnpool::AttentionPool,
    config::{Config, ImageConfig, ResnetConfig},
    resnet::{ModifiedResNet, Trunk},
    resnet_cpu::{CpuTrunk, Map},
    rows,
    runner::Runner,
    tensors::Source,
    text,
    text_cpu::CpuText,
    tokenizer::Tokens,
    vit::Vit,
    vit_cpu::CpuVit,
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

/// The frozen beginning of a `ModifiedResNet` in f32.
#[derive(Debug)]
pub(super) enum ResnetTrunk {
    /// Over burn.
    Burn(Box<Trunk>),
    /// Over the CPU's kernels.
    Cpu(Box<CpuTrunk>),
}

impl ResnetTrunk {
    /// The stem and the first `stages` stages.
    pub(super) fn load(
        source: &mut Source<'_>,
        config: &ResnetConfig,
        stages: usize,
    ) -> Result<Self> {
        Ok(if on_kernels(source.dtype, source.device) {
            Self::Cpu(Box::new(CpuTrunk::load(source, config, stages)?))
        } else {
            Self::Burn(Box::new(Trunk::load(source, config, stages)?))
        })
    }

    /// Prepared images → features [n, c, h, w].
    pub(super) fn forward(&self, images: &[&Rgb8], runner: &Runner) -> Tensor<4> {
        match self {
            Self::Burn(trunk) => trunk.forward(runner.planes(images)),
            Self::Cpu(trunk) => {
                let map = trunk.forward(&runner.pixels(images), &mut Scratch::default());
                let side = map.side;
                let x = places(map, images.len());
                let [n, _, channels] = x.dims();
                x.swap_dims(1, 2).reshape([n, channels, side, side])
            }
        }
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
