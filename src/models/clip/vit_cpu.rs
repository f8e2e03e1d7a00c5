//! The image tower of ViT-B/32 and its kin in f32 on one thread of the CPU.
//!
//! The same layers as in [`vit`](super::vit), over
//! [`cpu`](crate::models::cpu)'s kernels.

use anyhow::Result;

use super::{
    config::VitConfig,
    tensors::Source,
    transformer::BlockNames,
    transformer_cpu::{CpuNorm, CpuTransformer, Projection},
    vit::{AFTER, BEFORE, CLASS, PATCHES, POSITIONS, PROJECTION},
};
use crate::models::cpu::{Finish, Packed, Rows, Scratch};

/// Images to tokens: patches, positions, some of the blocks.
#[derive(Debug)]
pub(super) struct CpuVitTrunk {
    /// [patch² · 3, width] over a patch's pixels, channels last.
    patches: Packed,
    /// [tokens, width], the class token added to the first.
    position: Vec<f32>,
    before: CpuNorm,
    blocks: CpuTransformer,
    size: usize,
    patch: usize,
}

impl CpuVitTrunk {
    /// The first `blocks` blocks and what is below them.
    pub(super) fn load(source: &mut Source<'_>, config: &VitConfig, blocks: usize) -> Result<Self> {
        let transformer = &config.transformer;
        let (width, patch) = (config.transformer.width, config.patch);
        let square = patch * patch;
        let filters = (source.weights).take_f32(PATCHES, &[width, 3, patch, patch])?;
        // [width, 3, y, x] → the order of pixels, [y, x, 3].
        let filter = |i: usize, o: usize| filters[(o * 3 + i % 3) * square + i / 3];
        let mut position = (source.weights).take_f32(POSITIONS, &[config.tokens(), width])?;
        let class = source.weights.take_f32(CLASS, &[width])?;
        for (position, class) in position.iter_mut().zip(class) {
            *position += class;
        }
        Ok(Self {
            patches: Packed::new(square * 3, width, filter),
            position,
            before: CpuNorm::load(source, BEFORE, width)?,
            blocks: CpuTransformer::load(source, BlockNames::IMAGE, transformer, blocks, false)?,
            size: config.size,
            patch,
        })
    }

    /// Numbers of an image's tokens.
    pub(super) fn numbers(&self) -> usize {
        self.position.len()
    }

    /// Normalised images [n, size, size, 3] → tokens [n, patches + 1, width]
    /// after all blocks.
    pub(super) fn forward(&self, images: &[f32], scratch: &mut Scratch) -> Vec<f32> {
        let x = self.embed(images, scratch, |_, _| {});
        self.blocks.forward_all(x, &self.spans(images), scratch)
    }

    /// The rows of each image's tokens.
    fn spans(&self, images: &[f32]) -> Vec<std::ops::Range<usize>> {
        let tokens = self.position.len() / self.patches.n();
        let n = images.len() / (self.size * self.size * 3);
        (0..n).map(|i| i * tokens..(i + 1) * tokens).collect()
    }

    /// Images → tokens before the first block, rows of all images; `trace` sees
    /// them with their positions and after the normalization.
    fn embed(
        &self,
        images: &[f32],
        scratch: &mut Scratch,
        mut trace: impl FnMut(&str, &[f32]),
    ) -> Vec<f32> {
        let (size, patch, width) = (self.size, self.patch, self.patches.n());
        let side = size / patch;
        let tokens = side * side + 1;
        let n = images.len() / (size * size * 3);
        let mut x = scratch.take(n * tokens * width);
        let line = patch * 3;
        let mut cut = scratch.take(side * side * patch * line);
        for (image, x) in
            (images.chunks_exact(size * size * 3)).zip(x.chunks_exact_mut(tokens * width))
        {
            for (i, cut) in cut.chunks_exact_mut(line).enumerate() {
                let (tile, y) = (i / patch, i % patch);
                let (row, column) = (tile / side * patch + y, tile % side * line);
                cut.copy_from_slice(&image[row * size * 3 + column..][..line]);
            }
            x.copy_from_slice(&self.position);
            let rows = Rows {
                data: &cut,
                stride: patch * line,
            };
            let finish = Finish {
                add: Some(&self.position[width..]),
                ..Finish::PLAIN
            };
            (self.patches).product(rows, side * side, finish, &mut x[width..], width);
        }
        scratch.give(cut);
        trace("patches", &x);
        self.before.apply(&mut x);
        trace("ln_pre", &x);
        x
    }
}

/// The whole image tower.
#[derive(Debug)]
pub(super) struct CpuVit {
    trunk: CpuVitTrunk,
    after: CpuNorm,
    projection: Projection,
}

impl CpuVit {
    pub(super) fn load(source: &mut Source<'_>, config: &VitConfig, embed: usize) -> Result<Self> {
        let transformer = &config.transformer;
        Ok(Self {
            trunk: CpuVitTrunk::load(source, config, transformer.layers)?,
            after: CpuNorm::load(source, AFTER, transformer.width)?,
            projection: Projection::load(source, PROJECTION, transformer.width, embed)?,
        })
    }

    /// Normalised images [n, size, size, 3] → features [n, embed].
    pub(super) fn forward(
        &self,
        images: &[f32],
        scratch: &mut Scratch,
        mut trace: impl FnMut(&str, &[f32]),
    ) -> Vec<f32> {
        let x = self.trunk.embed(images, scratch, &mut trace);
        let spans = self.trunk.spans(images);
        let classes: Vec<usize> = spans.iter().map(|span| span.start).collect();
        let mut block = 0;
        let blocks = &self.trunk.blocks;
        let mut rows = blocks.forward(x, &spans, &classes, scratch, |x| {
            trace(&format!("vision_block{block}"), x);
            block += 1;
        });
        self.after.apply(&mut rows);
        self.projection.forward(&rows)
    }
}
