//! The decoder: blocks of grouped attention and a gated MLP, Llama and Mistral alike.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use burn::tensor::{DType, Device, Int, Tensor, TensorData, activation::silu};

use super::{
    config::Config,
    kv::{Kv, Prompt, PromptMemory},
    kv_device, kv_host,
    linear::Linear,
    norm::RmsNorm,
    rope::RopeTable,
};
use crate::models::weights::{Expected, Weights};

/// A decoder's weights on one device.
#[derive(Debug)]
pub(super) struct Decoder {
    pub(super) config: Config,
    device: Device,
    dtype: DType,
    /// Whether attention runs on the host.
    host: bool,
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

/// Names and shapes of all tensors of a decoder.
pub(super) fn tensors(config: &Config) -> Vec<Expected> {
    let mut tensors = vec![
        (
            "model.embed_tokens.weight".to_owned(),
            vec![config.vocab, config.hidden],
        ),
        ("model.norm.weight".to_owned(), vec![config.hidden]),
    ];
    if !config.tied {
        tensors.push((
            "lm_head.weight".to_owned(),
            vec![config.vocab, config.hidden],
        ));
    }
    for layer in 0..config.layers {
        tensors.extend(layer_tensors(config, layer));
    }
    tensors
}

fn layer_tensors(config: &Config, layer: usize) -> [Expected; 9] {
    let (hidden, inner) = (config.hidden, config.intermediate);
    let (q, kv) = (
        config.heads * config.head_dim,
        config.kv_heads * config.head_dim,
    );
    [
        ("input_layernorm", vec![hidden]),
        ("post_attention_layernorm", vec![hidden]),
        ("self_attn.q_proj", vec![q, hidden]),
        ("self_attn.k_proj", vec![kv, hidden]),
        ("self_attn.v_proj", vec![kv, hidden]),
        ("self_attn.o_proj", vec![hidden, q]),
        ("mlp.gate_proj", vec![inner, hidden]),
        ("mlp.up_proj", vec![inner, hidden]),
        ("mlp.down_proj", vec![hidden, inner]),
    ]
    .map(|(name, shape)| (format!("model.layers.{layer}.{name}.weight"), shape))
}

impl Decoder {
    /// Takes all tensors from `weights`, which must hold nothing else.
    ///
    /// The weights are rounded to `dtype` and then kept and computed with as
    /// `kept`. `host` puts attention on the host, which is right for the CPU.
    pub(super) fn load(
        config: Config,
        mut weights: Weights,
        [dtype, kept]: [DType; 2],
        device: &Device,
        host: bool,
    ) -> Result<Self> {
        if config.tied {
            // Some writers repeat the shared tensor.
            weights.ignore(|name| name == "lm_head.weight");
        }
        // Old files hold the frequencies, which follow from the configuration.
        weights.ignore(|name| name.ends_with("rotary_emb.inv_freq"));
        weights.check(&tensors(&config))?;
        let mut take = |names: &[String], shapes: &[Vec<usize>]| -> Result<TensorData> {
            let mut parts = Vec::with_capacity(names.len());
            for (name, shape) in names.iter().zip(shapes) {
                let part = weights.take(name, shape, dtype)?;
                parts.push(part.try_cast(kept).map_err(anyhow::Error::msg)?);
            }
            stacked(parts)
        };
        let vector = |data: TensorData| {
            let width = data.num_elements();
            Tensor::<1>::from_data(data, (device, kept)).reshape([1, width])
        };
        let mut blocks = Vec::with_capacity(config.layers);
        for layer in 0..config.layers {
            let (names, shapes): (Vec<String>, Vec<Vec<usize>>) =
                layer_tensors(&config, layer).into_iter().unzip();
            let mut part =
                |range: std::ops::Range<usize>| take(&names[range.clone()], &shapes[range]);
            blocks.push(Block {
                attention_norm: RmsNorm::new(vector(part(0..1)?), config.norm_eps),
                mlp_norm: RmsNorm::new(vector(part(1..2)?), config.norm_eps),
                qkv: Linear::new(part(2..5)?, device)?,
                out: Linear::new(part(5..6)?, device)?,
                gate_up: Linear::new(part(6..8)?, device)?,
                down: Linear::new(part(8..9)?, device)?,
            });
        }
        let table = vec![config.vocab, config.hidden];
        let mut one = |name: &str, shape: Vec<usize>| take(&[name.to_owned()], &[shape]);
        let embedding = one("model.embed_tokens.weight", table.clone())?;
        let embedding = Tensor::<2>::from_data(embedding, (device, kept));
        let norm = vector(one("model.norm.weight", vec![config.hidden])?);
        let head = if config.tied {
            Linear::over(embedding.clone().transpose())
        } else {
            Linear::new(one("lm_head.weight", table)?, device)?
        };
        weights.finish()?;
        device.sync().map_err(anyhow::Error::msg)?;
        Ok(Self {
            norm: RmsNorm::new(norm, config.norm_eps),
            config,
            device: device.clone(),
            dtype: kept,
            host,
            embedding,
            blocks,
            head,
        })
    }

    /// Bytes of keys and values of one token.
    pub(super) fn kv_bytes(&self) -> usize {
        let numbers = 2 * self.config.layers * self.config.kv_heads * self.config.head_dim;
        numbers * if self.dtype == DType::F32 { 4 } else { 2 }
    }

    /// Room for a batch of `rows` rows, none of them given out.
    pub(super) fn memory(&self, rows: usize, longest: usize, longest_prompt: usize) -> Kv {
        if self.host {
            return Kv::Host(Vec::with_capacity(rows));
        }
        let (dtype, device) = (self.dtype, &self.device);
        Kv::Device(kv_device::Kv::new(
            &self.config,
            rows,
            longest,
            longest_prompt,
            dtype,
            device,
        ))
    }

    /// Gives row `row` to a prompt; the row after the last adds one on the host.
    pub(super) fn seat(
        &self,
        kv: &mut Kv,
        row: usize,
        prompt: &Prompt,
        max_tokens: usize,
    ) -> Result<()> {
        match (kv, &prompt.memory) {
            (Kv::Host(rows), PromptMemory::Host(run)) => {
                let seated = kv_host::Row {
                    prompt: Arc::clone(run),
                    answer: kv_host::Run::new(&self.config, max_tokens),
                };
                if row < rows.len() {
                    rows[row] = seated;
                } else {
                    rows.push(seated);
                }
            }
            (Kv::Device(kv), PromptMemory::Device(prompt)) => kv.seat(row, prompt),
            _ => anyhow::bail!("a prompt was read for another device"),
        }
        Ok(())
    }

    /// Keeps these rows only, in this order.
    pub(super) fn retain(&self, kv: &mut Kv, kept: &[usize]) {
        match kv {
            Kv::Host(rows) => {
                let mut index = 0;
                // `kept` is in ascending order.
                rows.retain(|_| {
                    index += 1;
                    kept.binary_search(&(index - 1)).is_ok()
                });
            }
            Kv::Device(kv) => kv.retain(kept, &self.device),
        }
    }

    /// Reads prompts: keys, values and the logits after the last token of each.
    pub(super) fn prefill(&self, prompts: &[&[u32]], rope: &RopeTable) -> Result<Vec<Prompt>> {
        let (hidden, last, memories) = self.read(prompts, rope)?;
        let logits = self.logits_at(hidden, &last)?;
        let logits = logits.chunks_exact(self.config.vocab).map(Arc::from);
        Ok((memories.into_iter().zip(logits))
            .map(|(memory, logits)| Prompt { memory, logits })
            .collect())
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
    ) -> Result<(Tensor<2>, Vec<usize>, Vec<PromptMemory>)> {
        let lengths: Vec<usize> = prompts.iter().map(|prompt| prompt.len()).collect();
        ensure!(lengths.iter().all(|&len| len > 0), "a prompt has no tokens");
        if self.host {
            let shape = kv_host::Shape::new(&self.config);
            let mut runs: Vec<kv_host::Run> = (lengths.iter())
                .map(|&len| kv_host::Run::new(&self.config, len))
                .collect();
            let hidden = self.blocks(&prompts.concat(), &mut |layer, qkv| {
                let out = kv_host::prefill(
                    kv_device::read(qkv)?,
                    layer,
                    &mut runs,
                    &lengths,
                    shape,
                    rope,
                );
                Ok(self.rows(out))
            })?;
            let mut end = 0;
            let last = lengths.iter().map(|len| {
                end += len;
                end - 1
            });
            let last = last.collect();
            let memories = runs.into_iter().zip(&lengths).map(|(mut run, &len)| {
                run.len = len;
                PromptMemory::Host(Arc::new(run))
            });
            return Ok((hidden, last, memories.collect()));
        }
        let mut prefill = kv_device::Prefill::new(&self.config, &lengths, &self.device);
        let (ids, positions) = prefill.tokens(prompts, 0);
        let turns = rope.tensors(&positions, self.dtype, &self.device);
        let hidden = self.blocks(&ids, &mut |_, qkv| {
            Ok(prefill.attend(kv_device::split(qkv, &self.config, &turns)))
        })?;
        let last = (lengths.iter().enumerate())
            .map(|(index, len)| prefill.index(index, len - 1))
            .collect();
        let memories = prefill.finish().into_iter().map(PromptMemory::Device);
        Ok((hidden, last, memories.collect()))
    }

    /// Adds one token to every row; logits [rows, vocab] of the next.
    ///
    /// `live` are the rows whose answers matter, in ascending order.
    pub(super) fn decode(
        &self,
        kv: &mut Kv,
        ids: &[u32],
        live: &[usize],
        rope: &RopeTable,
    ) -> Result<Vec<f32>> {
        let hidden = match kv {
            Kv::Host(rows) => {
                let shape = kv_host::Shape::new(&self.config);
                let hidden = self.blocks(ids, &mut |layer, qkv| {
                    let out = kv_host::decode(kv_device::read(qkv)?, layer, rows, shape, rope);
                    Ok(self.rows(out))
                })?;
                for row in rows {
                    row.answer.len += 1;
                }
                hidden
            }
            Kv::Device(kv) => {
                kv.make_room(live);
                let positions: Vec<usize> = (0..ids.len()).map(|row| kv.len(row)).collect();
                let turns = rope.tensors(&positions, self.dtype, &self.device);
                let mask = kv.mask(&self.device);
                let hidden = self.blocks(ids, &mut |layer, qkv| {
                    Ok(kv.decode(layer, kv_device::split(qkv, &self.config, &turns), &mask))
                })?;
                kv.advance();
                hidden
            }
        };
        let all: Vec<usize> = (0..ids.len()).collect();
        self.logits_at(hidden, &all)
    }

    /// Runs all blocks over tokens; `attend` maps a layer's queries, keys and
    /// values to what attention gives.
    fn blocks(
        &self,
        ids: &[u32],
        attend: &mut dyn FnMut(usize, Tensor<2>) -> Result<Tensor<2>>,
    ) -> Result<Tensor<2>> {
        let mut ids: Vec<i32> = ids.iter().map(|&id| id as i32).collect();
        // A single row goes another way through the CPU's matrix product and
        // would round otherwise than among others.
        if self.host && ids.len() == 1 {
            ids.push(ids[0]);
        }
        let count = ids.len();
        let ids =
            Tensor::<1, Int>::from_data(TensorData::new(ids, [count]), (&self.device, DType::I32));
        let mut x = self.embedding.clone().select(0, ids);
        let inner = self.config.intermediate;
        for (layer, block) in self.blocks.iter().enumerate() {
            let qkv = block.qkv.forward(block.attention_norm.forward(x.clone()));
            x = x + block.out.forward(attend(layer, qkv)?);
            let both = block.gate_up.forward(block.mlp_norm.forward(x.clone()));
            // The reference's SiLU rounds once, at its end.
            let gate = silu(both.clone().narrow(1, 0, inner).cast(DType::F32)).cast(self.dtype);
            x = x + block.down.forward(gate * both.narrow(1, inner, inner));
        }
        Ok(x)
    }

    /// Logits [tokens, vocab] of these tokens.
    fn logits_at(&self, hidden: Tensor<2>, tokens: &[usize]) -> Result<Vec<f32>> {
        let mut index: Vec<i32> = tokens.iter().map(|&at| at as i32).collect();
        if self.host && index.len() == 1 {
            index.push(index[0]);
        }
        let count = index.len();
        let index = Tensor::<1, Int>::from_data(
            TensorData::new(index, [count]),
            (&self.device, DType::I32),
        );
        let logits = self
            .head
            .forward(self.norm.forward(hidden.select(0, index)));
        let mut logits = kv_device::read(logits).context("failed to read logits")?;
        logits.truncate(tokens.len() * self.config.vocab);
        Ok(logits)
    }

    /// What host attention gives, as a tensor.
    fn rows(&self, values: Vec<f32>) -> Tensor<2> {
        let width = self.config.heads * self.config.head_dim;
        let rows = values.len() / width;
        Tensor::from_data(
            TensorData::new(values, [rows, width]),
            (&self.device, self.dtype),
        )
    }
}

/// Tensors of the same width, one below the other.
fn stacked(parts: Vec<TensorData>) -> Result<TensorData> {
    let mut parts = parts.into_iter();
    let first = parts.next().context("no tensors")?;
    let mut shape: Vec<usize> = first.shape().to_vec();
    let rest: Vec<TensorData> = parts.collect();
    if rest.is_empty() {
        return Ok(first);
    }
    let dtype = first.dtype();
    let mut bytes = first.into_bytes().to_vec();
    for part in rest {
        shape[0] += part.shape()[0];
        bytes.extend_from_slice(&part.into_bytes());
    }
    Ok(TensorData::from_bytes_vec(bytes, shape, dtype))
}
