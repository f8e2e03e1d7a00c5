//! Transformer blocks with pre-normalization in f32 on one thread of the CPU.
//!
//! The same layers as in [`transformer`](super::transformer). Sequences of any
//! lengths lie one after the other as rows of one matrix, so nothing is padded.

use std::ops::Range;

use anyhow::Result;

use super::{
    config::TransformerConfig,
    tensors::{EPSILON, Source},
    transformer::BlockNames,
};
use crate::models::cpu::{Activation, Finish, Linear, Packed, Rows, Scratch, layer_norm, softmax};

fn load_linear(
    source: &mut Source<'_>,
    [weight, bias]: [String; 2],
    input: usize,
    output: usize,
) -> Result<Linear> {
    let values = source.weights.take_f32(&weight, &[output, input])?;
    let bias = source.weights.take_f32(&bias, &[output])?;
    Ok(Linear::of(&values, input, bias))
}

/// A product from the right, [in, out] in the checkpoint.
#[derive(Debug)]
pub(super) struct Projection(Packed);

impl Projection {
    pub(super) fn load(
        source: &mut Source<'_>,
        name: &str,
        input: usize,
        output: usize,
    ) -> Result<Self> {
        let values = source.weights.take_f32(name, &[input, output])?;
        Ok(Self(Packed::new(input, output, |i, o| {
            values[i * output + o]
        })))
    }

    /// [n, in] → [n, out].
    pub(super) fn forward(&self, x: &[f32]) -> Vec<f32> {
        let (input, output) = (self.0.k(), self.0.n());
        let rows = x.len() / input;
        let mut out = vec![0.0; rows * output];
        let x = Rows {
            data: x,
            stride: input,
        };
        (self.0).product(x, rows, Finish::PLAIN, &mut out, output);
        out
    }
}

/// Layer normalization of rows.
#[derive(Debug)]
pub(super) struct CpuNorm {
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl CpuNorm {
    pub(super) fn load(source: &mut Source<'_>, name: &str, width: usize) -> Result<Self> {
        Ok(Self {
            weight: source
                .weights
                .take_f32(&format!("{name}.weight"), &[width])?,
            bias: source.weights.take_f32(&format!("{name}.bias"), &[width])?,
        })
    }

    /// Normalises every row of `x`.
    pub(super) fn apply(&self, x: &mut [f32]) {
        layer_norm(x, &self.weight, &self.bias, EPSILON as f32);
    }

    fn of(&self, x: &[f32], scratch: &mut Scratch) -> Vec<f32> {
        let mut out = scratch.take(x.len());
        out.copy_from_slice(x);
        self.apply(&mut out);
        out
    }
}

/// x += attention(norm x); x += mlp(norm x).
#[derive(Debug)]
struct CpuBlock {
    ln_1: CpuNorm,
    in_proj: Linear,
    out_proj: Linear,
    ln_2: CpuNorm,
    c_fc: Linear,
    c_proj: Linear,
}

/// Some blocks, one above the other.
#[derive(Debug)]
pub(super) struct CpuTransformer {
    blocks: Vec<CpuBlock>,
    width: usize,
    heads: usize,
    activation: Activation,
    causal: bool,
}

impl CpuTransformer {
    /// The first `layers` blocks of a tower; where `causal`, no place looks at a
    /// later one.
    pub(super) fn load(
        source: &mut Source<'_>,
        names: BlockNames,
        config: &TransformerConfig,
        layers: usize,
        causal: bool,
    ) -> Result<Self> {
        let (width, hidden) = (config.width, config.hidden);
        let block = |i| {
            let mut linear =
                |at: usize, input, output| load_linear(source, names.linear(i, at), input, output);
            let (in_proj, out_proj) = (linear(0, width, 3 * width)?, linear(1, width, width)?);
            let (c_fc, c_proj) = (linear(2, width, hidden)?, linear(3, hidden, width)?);
            Ok(CpuBlock {
                ln_1: CpuNorm::load(source, &names.name(i, "ln_1"), width)?,
                in_proj,
                out_proj,
                ln_2: CpuNorm::load(source, &names.name(i, "ln_2"), width)?,
                c_fc,
                c_proj,
            })
        };
        Ok(Self {
            blocks: (0..layers).map(block).collect::<Result<_>>()?,
            width,
            heads: config.heads,
            activation: config.activation.kernel(),
            causal,
        })
    }

    /// Sequences `spans` of rows of `x`, [rows, width], through all blocks;
    /// returns the rows `kept`, one of each sequence, [sequences, width].
    ///
    /// `trace` sees all rows after each block but the last.
    pub(super) fn forward(
        &self,
        mut x: Vec<f32>,
        spans: &[Range<usize>],
        kept: &[usize],
        scratch: &mut Scratch,
        mut trace: impl FnMut(&[f32]),
    ) -> Vec<f32> {
        let Some((last, before)) = self.blocks.split_last() else {
            return gathered(&x, kept, self.width);
        };
        let all: Vec<Range<usize>> = spans.to_vec();
        for block in before {
            let mixed = self.attend(block, &x, spans, &all, scratch);
            x = self.rest(block, x, mixed, scratch);
            trace(&x);
        }
        // Above the last attention only the kept rows matter.
        let kept_spans: Vec<Range<usize>> = kept.iter().map(|&row| row..row + 1).collect();
        let mixed = self.attend(last, &x, spans, &kept_spans, scratch);
        let rows = gathered(&x, kept, self.width);
        scratch.give(x);
        self.rest(last, rows, mixed, scratch)
    }

    /// As [`CpuTransformer::forward`], but returns all rows.
    pub(super) fn forward_all(
        &self,
        mut x: Vec<f32>,
        spans: &[Range<usize>],
        scratch: &mut Scratch,
    ) -> Vec<f32> {
        for block in &self.blocks {
            let mixed = self.attend(block, &x, spans, spans, scratch);
            x = self.rest(block, x, mixed, scratch);
        }
        x
    }

    /// The mixed values of the rows `wanted[i]` among those of `spans[i]`,
    /// close together.
    fn attend(
        &self,
        block: &CpuBlock,
        x: &[f32],
        spans: &[Range<usize>],
        wanted: &[Range<usize>],
        scratch: &mut Scratch,
    ) -> Vec<f32> {
        let (width, head) = (self.width, self.width / self.heads);
        let normed = block.ln_1.of(x, scratch);
        let qkv = block
            .in_proj
            .forward(&normed, None, Activation::Identity, scratch);
        scratch.give(normed);
        let rows = wanted.iter().map(Range::len).sum::<usize>();
        let mut mixed = scratch.take(rows * width);
        let mut keys = Packed::new(0, 0, |_, _| 0.0);
        let mut values = Packed::new(0, 0, |_, _| 0.0);
        let longest = spans.iter().map(Range::len).max().unwrap_or(0);
        let tallest = wanted.iter().map(Range::len).max().unwrap_or(0);
        let mut scores = scratch.take(longest * tallest);
        let mut start = 0;
        for (span, wanted) in spans.iter().zip(wanted) {
            let (t, m) = (span.len(), wanted.len());
            let first = wanted.start - span.start;
            for h in 0..self.heads {
                let at = |row: usize, part: usize| (row * 3 + part) * width + h * head;
                keys.fill(head, t, |i, j| qkv[at(span.start + j, 1) + i]);
                values.fill(t, head, |i, j| qkv[at(span.start + i, 2) + j]);
                let queries = Rows {
                    data: &qkv[at(wanted.start, 0)..],
                    stride: 3 * width,
                };
                keys.product(queries, m, Finish::PLAIN, &mut scores, t);
                for (i, row) in scores.chunks_exact_mut(t).take(m).enumerate() {
                    let seen = if self.causal { first + i + 1 } else { t };
                    softmax(row, seen, 1.0 / (head as f32).sqrt());
                }
                let weights = Rows {
                    data: &scores,
                    stride: t,
                };
                let out = &mut mixed[start * width + h * head..];
                values.product(weights, m, Finish::PLAIN, out, width);
            }
            start += m;
        }
        scratch.give(scores);
        scratch.give(qkv);
        mixed
    }

    /// What follows the mixing: projection, residual, hidden layer.
    fn rest(
        &self,
        block: &CpuBlock,
        x: Vec<f32>,
        mixed: Vec<f32>,
        scratch: &mut Scratch,
    ) -> Vec<f32> {
        let after = (block.out_proj).forward(&mixed, Some(&x), Activation::Identity, scratch);
        scratch.give(mixed);
        scratch.give(x);
        let normed = block.ln_2.of(&after, scratch);
        let hidden = block.c_fc.forward(&normed, None, self.activation, scratch);
        scratch.give(normed);
        let out = (block.c_proj).forward(&hidden, Some(&after), Activation::Identity, scratch);
        scratch.give(hidden);
        scratch.give(after);
        out
    }
}

/// The rows `kept` of `x`, close together.
fn gathered(x: &[f32], kept: &[usize], width: usize) -> Vec<f32> {
    (kept.iter())
        .flat_map(|row| &x[row * width..][..width])
        .copied()
        .collect()
}
