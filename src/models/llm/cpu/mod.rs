//! The decoder on the CPU: our own kernels over weights in their own type.
//!
//! Weights stay in the type that they are stored in (or quantised), and every
//! product computes in f32. A row's numbers are the same bits whatever other
//! rows are computed with it, so that an answer cannot depend on its batch.

mod attention;
mod cache;

use std::sync::Arc;

use anyhow::{Result, ensure};
use burn::tensor::DType;
use rayon::prelude::*;

pub(super) use self::cache::{Row, Run};
use self::{attention::attend, cache::Shape};
use super::{
    config::Config,
    rope::RopeTable,
    tensors::{self, Dense, Matrix, Reader},
};
use crate::models::{
    cpu::{self, Format, Gated, Weight},
    quant::Round,
};

/// Numbers that are worth spreading over threads in passes over rows.
const SPREAD: usize = 1 << 15;

/// A decoder's weights in memory.
#[derive(Debug)]
pub(super) struct Decoder {
    config: Config,
    shape: Shape,
    /// [vocab, hidden]; the head too where weights are tied.
    embedding: Table,
    blocks: Vec<Block>,
    norm: Vec<f32>,
    head: Option<Weight>,
}

/// Tokens' vectors.
#[derive(Debug)]
enum Table {
    Plain(Dense),
    /// Packed for products, since it is the head too.
    Head(Weight),
}

#[derive(Debug)]
struct Block {
    attention_norm: Vec<f32>,
    q: Weight,
    k: Weight,
    v: Weight,
    out: Weight,
    mlp_norm: Vec<f32>,
    gate_up: Gated,
    down: Weight,
}

impl Decoder {
    /// Takes all tensors.
    pub(super) fn load(config: &Config, mut reader: Reader<'_>) -> Result<Self> {
        // The largest come first, while there is little else in memory.
        let table = reader.table(tensors::EMBEDDING)?;
        let (embedding, head) = if config.tied {
            (Table::Head(dense(&table)), None)
        } else {
            let head = dense(&reader.table(tensors::HEAD)?);
            (Table::Plain(table), Some(head))
        };
        let mut blocks = Vec::with_capacity(config.layers);
        for layer in 0..config.layers {
            let block = reader.block(layer)?;
            blocks.push(Block {
                attention_norm: block.attention_norm,
                mlp_norm: block.mlp_norm,
                q: packed(block.q)?,
                k: packed(block.k)?,
                v: packed(block.v)?,
                out: packed(block.out)?,
                gate_up: Gated::new(packed(block.gate)?, packed(block.up)?),
                down: packed(block.down)?,
            });
        }
        let norm = reader.norm()?;
        reader.finish()?;
        Ok(Self {
            shape: Shape::new(config),
            config: config.clone(),
            embedding,
            blocks,
            norm,
            head,
        })
    }

    /// Bytes of the weights.
    pub(super) fn bytes(&self) -> usize {
        let table = match &self.embedding {
            Table::Plain(table) => table.bytes(),
            Table::Head(weight) => weight.bytes(),
        };
        let blocks = self.blocks.iter().map(|block| {
            let weights = [&block.q, &block.k, &block.v, &block.out, &block.down];
            weights.map(Weight::bytes).iter().sum::<usize>() + block.gate_up.bytes()
        });
        table + blocks.sum::<usize>() + self.head.as_ref().map_or(0, Weight::bytes)
    }

    /// What the model's configuration says.
    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// A row that has seen `prompt` and will get up to `max_tokens` tokens.
    pub(super) fn row(&self, prompt: &Arc<Run>, max_tokens: usize) -> Row {
        Row::new(prompt, Run::new(&self.config, max_tokens))
    }

    /// Bytes of keys and values of one token.
    pub(super) fn kv_bytes(&self) -> usize {
        2 * self.config.layers * self.config.kv_heads * self.config.head_dim * size_of::<f32>()
    }

    /// Reads prompts: keys, values and the logits after the last token of each.
    pub(super) fn prefill(
        &self,
        prompts: &[&[u32]],
        rope: &RopeTable,
    ) -> Result<Vec<(Arc<Run>, Vec<f32>)>> {
        ensure!(
            prompts.iter().all(|prompt| !prompt.is_empty()),
            "a prompt has no tokens"
        );
        let nothing = Arc::new(Run::new(&self.config, 0));
        let mut rows: Vec<Row> = (prompts.iter())
            .map(|prompt| Row::new(&nothing, Run::new(&self.config, prompt.len())))
            .collect();
        let mut all: Vec<&mut Row> = rows.iter_mut().collect();
        let logits = self.decode(&mut all, prompts, rope);
        let runs = rows.into_iter().map(|row| Arc::new(row.answer));
        let logits = logits.chunks_exact(self.config.vocab).map(<[f32]>::to_vec);
        Ok(runs.zip(logits).collect())
    }

    /// Adds tokens to every row, at least one each; logits [rows, vocab] after
    /// the last of each.
    pub(super) fn decode(
        &self,
        rows: &mut [&mut Row],
        ids: &[&[u32]],
        rope: &RopeTable,
    ) -> Vec<f32> {
        let hidden = self.read(rows, ids, rope);
        let mut end = 0;
        let last = ids.iter().map(|ids| {
            end += ids.len();
            end - 1
        });
        self.logits_at(&hidden, &last.collect::<Vec<_>>())
    }

    /// Logits [tokens, vocab] after every token of one text.
    pub(super) fn logits(&self, ids: &[u32]) -> Vec<f32> {
        let rope = RopeTable::new(&self.config, ids.len());
        let nothing = Arc::new(Run::new(&self.config, 0));
        let mut row = Row::new(&nothing, Run::new(&self.config, ids.len()));
        let hidden = self.read(&mut [&mut row], &[ids], &rope);
        self.logits_at(&hidden, &(0..ids.len()).collect::<Vec<_>>())
    }

    /// Hidden states [tokens, hidden] of all tokens, which join their rows.
    fn read(&self, rows: &mut [&mut Row], ids: &[&[u32]], rope: &RopeTable) -> Vec<f32> {
        let hidden = self.config.hidden;
        let tokens: usize = ids.iter().map(|ids| ids.len()).sum();
        let mut x = vec![0.0; tokens * hidden];
        for (id, out) in ids
            .iter()
            .copied()
            .flatten()
            .zip(x.chunks_exact_mut(hidden))
        {
            self.embedding.row(*id as usize, out);
        }
        let lengths: Vec<usize> = ids.iter().map(|ids| ids.len()).collect();
        let mut normed = vec![0.0; x.len()];
        let heads = self.config.heads * self.config.head_dim;
        let narrow = self.config.kv_heads * self.config.head_dim;
        let [mut q, mut k, mut v] = [heads, narrow, narrow].map(|width| vec![0.0; tokens * width]);
        let mut attended = vec![0.0; tokens * heads];
        let mut inner = vec![0.0; tokens * self.config.intermediate];
        for (layer, block) in self.blocks.iter().enumerate() {
            self.normalize(&x, &block.attention_norm, &mut normed);
            block.q.product(&normed, tokens, None, &mut q);
            block.k.product(&normed, tokens, None, &mut k);
            block.v.product(&normed, tokens, None, &mut v);
            cache::place(&mut q, &mut k, &v, layer, rows, &lengths, self.shape, rope);
            attend(&mut attended, &q, layer, rows, &lengths, self.shape);
            block.out.accumulate(&attended, tokens, &mut x);
            self.normalize(&x, &block.mlp_norm, &mut normed);
            block.gate_up.product(&normed, tokens, &mut inner);
            block.down.accumulate(&inner, tokens, &mut x);
        }
        for (row, len) in rows.iter_mut().zip(&lengths) {
            row.answer.len += len;
        }
        x
    }

    /// Logits [places, vocab] of the hidden states at `places`.
    fn logits_at(&self, hidden: &[f32], places: &[usize]) -> Vec<f32> {
        let width = self.config.hidden;
        let mut last = Vec::with_capacity(places.len() * width);
        for place in places {
            last.extend_from_slice(&hidden[place * width..][..width]);
        }
        let mut normed = vec![0.0; last.len()];
        self.normalize(&last, &self.norm, &mut normed);
        let mut logits = vec![0.0; places.len() * self.config.vocab];
        let head = match (&self.head, &self.embedding) {
            (Some(head), _) | (None, Table::Head(head)) => head,
            // Without a head the weights are tied, and the table is packed.
            (None, Table::Plain(_)) => return logits,
        };
        head.product(&normed, places.len(), None, &mut logits);
        logits
    }

    fn normalize(&self, x: &[f32], weight: &[f32], out: &mut [f32]) {
        let width = weight.len();
        let eps = self.config.norm_eps as f32;
        let least = (SPREAD / width).max(1);
        (out.par_chunks_mut(width).zip(x.par_chunks(width)))
            .with_min_len(least)
            .for_each(|(out, x)| cpu::rms_norm(x, weight, eps, out));
    }
}

impl Table {
    fn row(&self, id: usize, out: &mut [f32]) {
        match self {
            Self::Plain(table) => table.row(id, out),
            Self::Head(weight) => weight.row(id, out),
        }
    }
}

fn packed(matrix: Matrix) -> Result<Weight> {
    Ok(match matrix {
        Matrix::Dense(matrix) => dense(&matrix),
        Matrix::Nf4(matrix, round) => Weight::nf4(
            matrix.shape(),
            matrix.codes(),
            &matrix.absmax(),
            matrix.blocksize(),
            *matrix.table(),
            format(round),
        )?,
        Matrix::Int8(matrix, threshold) => {
            let (codes, scales) = (matrix.codes(), matrix.scales());
            Weight::int8(matrix.shape(), codes, scales, threshold, Format::F32)?
        }
    })
}

fn format(round: Round) -> Format {
    match round {
        Round::F32 => Format::F32,
        Round::F16 => Format::F16,
        Round::Bf16 => Format::Bf16,
    }
}

fn dense(matrix: &Dense) -> Weight {
    let format = match matrix.dtype {
        DType::F16 => Format::F16,
        DType::BF16 => Format::Bf16,
        _ => Format::F32,
    };
    let [outs, ins] = matrix.shape;
    Weight::dense(format, outs, ins, |row, out| matrix.row(row, out))
}
