//! The image tower of ViT-B/32 and its kin: patches as tokens of a transformer.
//!
//! Dosovitskiy et al. 2021 with a normalization before the first block;
//! `open_clip` `transformer.py` (`VisionTransformer`). The class token's row is
//! the image's.

use anyhow::Result;
use burn::tensor::Tensor;

use super::{
    config::VitConfig,
    tensors::Source,
    transformer::{Block, BlockNames, Norm},
};
use crate::models::weights::Expected;

/// Names of the tensors outside the blocks.
pub(super) const PATCHES: &str = "visual.conv1.weight";
pub(super) const CLASS: &str = "visual.class_embedding";
pub(super) const POSITIONS: &str = "visual.positional_embedding";
pub(super) const BEFORE: &str = "visual.ln_pre";
pub(super) const AFTER: &str = "visual.ln_post";
pub(super) const PROJECTION: &str = "visual.proj";

/// Images to tokens: patches, positions, some of the blocks.
#[derive(Clone, Debug)]
pub(super) struct VitTrunk {
    /// [width, 3 · patch²], a convolution whose stride is its side.
    patches: Tensor<2>,
    /// [1, 1, width].
    class: Tensor<3>,
    /// [tokens, width].
    position: Tensor<2>,
    before: Norm,
    blocks: Vec<Block>,
    patch: usize,
}

impl VitTrunk {
    /// The first `blocks` blocks and what is below them.
    pub(super) fn load(source: &mut Source<'_>, config: &VitConfig, blocks: usize) -> Result<Self> {
        let (width, patch) = (config.transformer.width, config.patch);
        let patches: Tensor<4> = source.tensor(PATCHES, [width, 3, patch, patch])?;
        Ok(Self {
            patches: patches.reshape([width, 3 * patch * patch]),
            class: source.tensor(CLASS, [width])?.reshape([1, 1, width]),
            position: source.tensor(POSITIONS, [config.tokens(), width])?,
            before: Norm::load(source, BEFORE, width)?,
            blocks: Block::load_all(source, BlockNames::IMAGE, &config.transformer, 0..blocks)?,
            patch,
        })
    }

    /// Normalised images [n, 3, side, side] → tokens [n, patches + 1, width].
    ///
    /// `trace` sees the tokens with their positions, after the first
    /// normalization, and after each block.
    pub(super) fn trace(
        &self,
        images: Tensor<4>,
        mut trace: impl FnMut(&str, &Tensor<3>),
    ) -> Tensor<3> {
        let [n, _, size, _] = images.dims();
        let (side, patch) = (size / self.patch, self.patch);
        let width = self.position.dims()[1];
        let cut: Tensor<2> = images
            .reshape([n, 3, side, patch, side, patch])
            .permute([0, 2, 4, 1, 3, 5])
            .reshape([n * side * side, 3 * patch * patch]);
        let patches: Tensor<3> =
            cut.matmul(self.patches.clone().transpose())
                .reshape([n, side * side, width]);
        let x = Tensor::cat(vec![self.class.clone().repeat_dim(0, n), patches], 1);
        let x = x + self.position.clone().unsqueeze();
        trace("patches", &x);
        let tokens = x.dims()[1];
        let mut x: Tensor<3> =
            (self.before.forward(x.reshape([n * tokens, width]))).reshape([n, tokens, width]);
        trace("ln_pre", &x);
        for (i, block) in self.blocks.iter().enumerate() {
            x = block.forward(x, None);
            trace(&format!("vision_block{i}"), &x);
        }
        x
    }
}

/// Tokens to features: the class token's row, normalization, projection.
#[derive(Clone, Debug)]
pub(super) struct VitHead {
    norm: Norm,
    /// [width, embed], multiplied from the right.
    projection: Tensor<2>,
}

impl VitHead {
    pub(super) fn load(source: &mut Source<'_>, config: &VitConfig, embed: usize) -> Result<Self> {
        let width = config.transformer.width;
        Ok(Self {
            norm: Norm::load(source, AFTER, width)?,
            projection: source.tensor(PROJECTION, [width, embed])?,
        })
    }

    /// [n, tokens, width] → [n, embed].
    pub(super) fn forward(&self, x: Tensor<3>) -> Tensor<2> {
        let [n, _, width] = x.dims();
        let class = x.narrow(1, 0, 1).reshape([n, width]);
        self.norm.forward(class).matmul(self.projection.clone())
    }
}

/// The whole image tower.
#[derive(Clone, Debug)]
pub(super) struct Vit {
    trunk: VitTrunk,
    head: VitHead,
}

impl Vit {
    pub(super) fn load(source: &mut Source<'_>, config: &VitConfig, embed: usize) -> Result<Self> {
        Ok(Self {
            trunk: VitTrunk::load(source, config, config.transformer.layers)?,
            head: VitHead::load(source, config, embed)?,
        })
    }

    /// Normalised images [n, 3, side, side] → features [n, embed].
    pub(super) fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        self.trace(images, |_, _| {})
    }

    /// As [`Vit::forward`]; `trace` is that of [`VitTrunk::trace`].
    pub(super) fn trace(
        &self,
        images: Tensor<4>,
        trace: impl FnMut(&str, &Tensor<3>),
    ) -> Tensor<2> {
        self.head.forward(self.trunk.trace(images, trace))
    }
}

/// Every tensor of the image tower.
pub(super) fn expected(config: &VitConfig, embed: usize) -> Vec<Expected> {
    let (width, patch) = (config.transformer.width, config.patch);
    let mut all = vec![
        (PATCHES.to_owned(), vec![width, 3, patch, patch]),
        (CLASS.to_owned(), vec![width]),
        (POSITIONS.to_owned(), vec![config.tokens(), width]),
        (PROJECTION.to_owned(), vec![width, embed]),
    ];
    for norm in [BEFORE, AFTER] {
        all.extend(["weight", "bias"].map(|part| (format!("{norm}.{part}"), vec![width])));
    }
    let blocks = 0..config.transformer.layers;
    all.extend(blocks.flat_map(|i| BlockNames::IMAGE.expected(&config.transformer, i)));
    all
}
