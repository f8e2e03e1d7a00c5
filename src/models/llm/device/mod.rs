//! The decoder on a device: burn's tensors, for CUDA.
//!
//! Numbers follow transformers: weights and activations in the weights' own
//! type, norms and softmax in f32, roundings in the reference's order.

mod cache;
mod linear;
mod norm;

use anyhow::{Context, Result, ensure};
use burn::tensor::{DType, Device, Int, Tensor, TensorData, activation::silu};

pub(super) use self::cache::{Kv, Prompt};
use self::{
    linear::{Linear, Place},
    norm::RmsNorm,
};
use super::{
    config::Config,
    rope::RopeTable,
    tensors::{self, Reader},
};

/// A decoder's weights on one device.
#[derive(Debug)]
pub(super) struct Decoder {
    config: Config,
    device: Device,
    dtype: DType,
    embedding: Tensor<2>,
    blocks: Vec<Block>,
    norm: RmsNorm,
    head: Linear,
}

#[derive(Debug)]
struct Block {
    attention_norm: RmsNorm,
    /// Queries, keys and values in one product.
    qkv: Linear,
    out: Linear,
    mlp_norm: RmsNorm,
    /// Gate and up in one product.
    gate_up: Linear,
    down: Linear,
}

impl Decoder {
    /// Takes all tensors. `dtype` is that of weights and activations; weights in
    /// full take at most about `room` bytes, if quantised ones can make it so.
    pub(super) fn load(
        config: &Config,
        mut reader: Reader<'_>,
        dtype: DType,
        device: &Device,
        room: u64,
    ) -> Result<Self> {
        let mut place = Place {
            device: device.clone(),
            dtype,
            room,
        };
        let vector = |values: Vec<f32>| {
            let data = TensorData::new(values, [1, config.hidden]);
            let weight = Tensor::<2>::from_data(data, (device, DType::F32)).cast(dtype);
            RmsNorm::new(weight, config.norm_eps)
        };
        // First, so that they have room in full.
        let embedding = place.tensor(reader.table(tensors::EMBEDDING)?);
        let head = if config.tied {
            Linear::over(embedding.clone())
        } else {
            Linear::over(place.tensor(reader.table(tensors::HEAD)?))
        };
        place.room = room.saturating_sub((config.vocab * config.hidden * dtype.size() * 2) as u64);
        let mut blocks = Vec::with_capacity(config.layers);
        for layer in 0..config.layers {
            let block = reader.block(layer)?;
            blocks.push(Block {
                attention_norm: vector(block.attention_norm),
                mlp_norm: vector(block.mlp_norm),
                qkv: Linear::new(vec![block.q, block.k, block.v], &mut place),
                out: Linear::new(vec![block.out], &mut place),
                gate_up: Linear::new(vec![block.gate, block.up], &mut place),
                down: Linear::new(vec![block.down], &mut place),
            });
            // What was read is not needed on the host while the next is read.
            device.sync().map_err(anyhow::Error::msg)?;
        }
        let norm = vector(reader.norm()?);
        reader.finish()?;
        device.sync().map_err(anyhow::Error::msg)?;
        Ok(Self {
            config: config.clone(),
            device: device.clone(),
            dtype,
            embedding,
            blocks,
            norm,
            head,
        })
    }

    /// What the model's configuration says.
    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// Bytes of keys and values that a row of up to `longest` tokens takes.
    pub(super) fn row_bytes(&self, longest: usize) -> usize {
        let numbers = 2 * self.config.layers * self.config.kv_heads * self.config.head_dim;
        Kv::row_bytes(longest, numbers * self.dtype.size())
    }

    /// Room for a batch of `rows` rows, none of them given out.
    pub(super) fn memory(&self, rows: usize, longest: usize, longest_prompt: usize) -> Kv {
        let (dtype, device) = (self.dtype, &self.device);
        Kv::new(&self.config, rows, longest, longest_prompt, dtype, device)
    }

    /// Keeps these rows only, in this order.
    pub(super) fn retain(&self, kv: &mut Kv, kept: &[usize]) {
        kv.retain(kept, &self.device);
    }

    /// Reads prompts: keys, values and the logits after the last token of each.
    pub(super) fn prefill(
        &self,
        prompts: &[&[u32]],
        rope: &RopeTable,
    ) -> Result<Vec<(Prompt, Vec<f32>)>> {
        let (hidden, last, memories) = self.read(prompts, rope)?;
        let logits = self.logits_at(hidden, &last)?;
        let logits = logits.chunks_exact(self.config.vocab).map(<[f32]>::to_vec);
        Ok(memories.into_iter().zip(logits).collect())
    }

    /// Logits [tokens, vocab] after every token of one text.
    pub(super) fn logits(&self, ids: &[u32]) -> Result<Vec<f32>> {
        let rope = RopeTable::new(&self.config, ids.len());
        let (hidden, _, _) = self.read(&[ids], &rope)?;
        let all: Vec<usize> = (0..ids.len()).collect();
        self.logits_at(hidden, &all)
    }

    /// Hidden states of all tokens, the index of each prompt's last, and memories.
    fn read(
        &self,
        prompts: &[&[u32]],
        rope: &RopeTable,
    ) -> Result<(Tensor<2>, Vec<usize>, Vec<Prompt>)> {
        let lengths: Vec<usize> = prompts.iter().map(|prompt| prompt.len()).collect();
        ensure!(lengths.iter().all(|&len| len > 0), "a prompt has no tokens");
        let mut prefill = cache::Prefill::new(&self.config, &lengths, &self.device);
        let (ids, positions) = prefill.tokens(prompts, 0);
        let turns = rope.tensors(&positions, self.dtype, &self.device);
        let hidden = self.blocks(&ids, &mut |_, qkv| {
            prefill.attend(cache::split(qkv, &self.config, &turns))
        });
        let last = (lengths.iter().enumerate())
            .map(|(index, len)| prefill.index(index, len - 1))
            .collect();
        Ok((hidden, last, prefill.finish()))
    }

    /// Adds tokens to every row, as many of its `waiting` ones as there is room
    /// for; how many, and the logits [rows, vocab] after the last of them.
    ///
    /// `left` says how many tokens each row may still get; rows that have no
    /// tokens waiting are empty, and their logits mean nothing.
    pub(super) fn decode(
        &self,
        kv: &mut Kv,
        waiting: &[&[u32]],
        left: &[usize],
        rope: &RopeTable,
    ) -> Result<(Vec<usize>, Vec<f32>)> {
        let step = kv.plan(waiting, left, &self.device);
        let turns = rope.tensors(&step.positions, self.dtype, &self.device);
        let hidden = self.blocks(&step.ids, &mut |layer, qkv| {
            kv.decode(layer, cache::split(qkv, &self.config, &turns), &step)
        });
        kv.advance(&step);
        let last: Vec<usize> = (1..=waiting.len())
            .map(|row| row * step.width - 1)
            .collect();
        let logits = self.logits_at(hidden, &last)?;
        Ok((step.taken, logits))
    }

    /// Runs all blocks over tokens; `attend` maps a layer's queries, keys and
    /// values to what attention gives.
    fn blocks(
        &self,
        ids: &[u32],
        attend: &mut dyn FnMut(usize, Tensor<2>) -> Tensor<2>,
    ) -> Tensor<2> {
        let ids = self.indices(ids.iter().map(|&id| id as i32).collect());
        let mut x = self.embedding.clone().select(0, ids);
        let inner = self.config.intermediate;
        for (layer, block) in self.blocks.iter().enumerate() {
            let qkv = block.qkv.forward(block.attention_norm.forward(x.clone()));
            x = x + block.out.forward(attend(layer, qkv));
            let both = block.gate_up.forward(block.mlp_norm.forward(x.clone()));
            // The reference's SiLU rounds once, at its end.
            let gate = silu(both.clone().narrow(1, 0, inner).cast(DType::F32)).cast(self.dtype);
            x = x + block.down.forward(gate * both.narrow(1, inner, inner));
        }
        x
    }

    /// Logits [tokens, vocab] of these tokens.
    fn logits_at(&self, hidden: Tensor<2>, tokens: &[usize]) -> Result<Vec<f32>> {
        let index = self.indices(tokens.iter().map(|&at| at as i32).collect());
        let logits = (self.head).forward(self.norm.forward(hidden.select(0, index)));
        (logits.cast(DType::F32).try_into_vec_as::<f32>())
            .map_err(anyhow::Error::msg)
            .context("failed to read logits")
    }

    fn indices(&self, values: Vec<i32>) -> Tensor<1, Int> {
        let count = values.len();
        Tensor::from_data(TensorData::new(values, [count]), (&self.device, DType::I32))
    }
}
