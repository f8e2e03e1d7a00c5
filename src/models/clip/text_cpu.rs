//! The text tower in f32 on one thread of the CPU.
//!
//! The same layers as in [`text`](super::text), over
//! [`cpu`](crate::models::cpu)'s kernels. Texts lie one after the other, each to
//! its end: nothing behind a text's end token can change its embedding.

use anyhow::Result;

use super::{
    config::Config,
    tensors::Source,
    tokenizer::Tokens,
    transformer::BlockNames,
    transformer_cpu::{CpuNorm, CpuTransformer, Projection},
};
use crate::models::cpu::Scratch;

/// The whole text tower.
#[derive(Debug)]
pub(super) struct CpuText {
    /// [vocabulary, width].
    embedding: Vec<f32>,
    /// [context, width].
    position: Vec<f32>,
    blocks: CpuTransformer,
    norm: CpuNorm,
    projection: Projection,
    width: usize,
}

impl CpuText {
    pub(super) fn load(source: &mut Source<'_>, config: &Config) -> Result<Self> {
        let text = &config.text;
        let width = text.transformer.width;
        Ok(Self {
            embedding: (source.weights)
                .take_f32("token_embedding.weight", &[text.vocabulary, width])?,
            position: (source.weights).take_f32("positional_embedding", &[text.context, width])?,
            blocks: CpuTransformer::load(
                source,
                BlockNames::TEXT,
                &text.transformer,
                text.transformer.layers,
                true,
            )?,
            norm: CpuNorm::load(source, "ln_final", width)?,
            projection: Projection::load(source, "text_projection", width, config.embed_dim)?,
            width,
        })
    }

    /// Texts → features [n, embed]; `trace` sees all texts' rows, first as they
    /// are embedded, then after each block but the last.
    pub(super) fn forward(
        &self,
        texts: &[&Tokens],
        scratch: &mut Scratch,
        mut trace: impl FnMut(&[f32]),
    ) -> Vec<f32> {
        let (mut spans, mut ends, mut row) = (Vec::new(), Vec::new(), 0);
        for text in texts {
            ends.push(row + text.end());
            spans.push(row..row + text.end() + 1);
            row += text.end() + 1;
        }
        let width = self.width;
        let mut x = scratch.take(row * width);
        let tokens = texts
            .iter()
            .flat_map(|text| text.ids[..=text.end()].iter().enumerate());
        for (x, (place, id)) in x.chunks_exact_mut(width).zip(tokens) {
            let embedding = &self.embedding[*id as usize * width..][..width];
            let position = &self.position[place * width..][..width];
            for ((x, e), p) in x.iter_mut().zip(embedding).zip(position) {
                *x = e + p;
            }
        }
        trace(&x);
        let mut rows = self.blocks.forward(x, &spans, &ends, scratch, trace);
        self.norm.apply(&mut rows);
        self.projection.forward(&rows)
    }
}
