//! The text tower: a causal transformer with pre-normalization.
//!
//! Radford et al. 2021, section 2.4; `open_clip` `transformer.py`. No mask hides
//! the padding: causality does, so texts run only to their last needed token.

use anyhow::Result;
use burn::tensor::{
    DType, Device, Int, Tensor, TensorData,
    activation::{gelu, sigmoid, softmax},
    module::layer_norm,
};

use super::{
    config::{Activation, Config, TextConfig},
    tensors::{EPSILON, Source},
    tokenizer::Tokens,
};
use crate::models::weights::Expected;

/// x · weightᵀ + bias.
#[derive(Clone, Debug)]
pub(super) struct Linear {
    /// [out, in].
    pub(super) weight: Tensor<2>,
    /// [out].
    pub(super) bias: Tensor<1>,
}

impl Linear {
    pub(super) fn load(
        source: &mut Source<'_>,
        name: &str,
        input: usize,
        output: usize,
    ) -> Result<Self> {
        Self::load_parts(
            source,
            &format!("{name}.weight"),
            &format!("{name}.bias"),
            input,
            output,
        )
    }

    fn load_parts(
        source: &mut Source<'_>,
        weight: &str,
        bias: &str,
        input: usize,
        output: usize,
    ) -> Result<Self> {
        Ok(Self {
            weight: source.tensor(weight, [output, input])?,
            bias: source.tensor(bias, [output])?,
        })
    }

    /// [n, in] → [n, out].
    pub(super) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        x.matmul(self.weight.clone().transpose()) + self.bias.clone().unsqueeze()
    }
}

/// Layer normalization over the last dimension, in f32 always.
#[derive(Clone, Debug)]
pub(super) struct Norm {
    pub(super) weight: Tensor<1>,
    pub(super) bias: Tensor<1>,
}

impl Norm {
    fn load(source: &mut Source<'_>, name: &str, width: usize) -> Result<Self> {
        Ok(Self {
            weight: source.exact(&format!("{name}.weight"), [width])?,
            bias: source.exact(&format!("{name}.bias"), [width])?,
        })
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        in_f32(x, |x| {
            layer_norm(x, self.weight.clone(), Some(self.bias.clone()), EPSILON)
        })
    }
}

/// Computes in f32 whatever the element type of `x`, which the result has too.
pub(super) fn in_f32<const D: usize>(
    x: Tensor<D>,
    f: impl FnOnce(Tensor<D>) -> Tensor<D>,
) -> Tensor<D> {
    match x.dtype() {
        DType::F32 => f(x),
        dtype => f(x.cast(DType::F32)).cast(dtype),
    }
}

/// Weight and bias of a block's linear layers, in the order of use.
pub(super) const LINEARS: [[&str; 2]; 4] = [
    ["attn.in_proj_weight", "attn.in_proj_bias"],
    ["attn.out_proj.weight", "attn.out_proj.bias"],
    ["mlp.c_fc.weight", "mlp.c_fc.bias"],
    ["mlp.c_proj.weight", "mlp.c_proj.bias"],
];

/// x += attention(norm x); x += mlp(norm x).
#[derive(Clone, Debug)]
pub(super) struct Block {
    pub(super) ln_1: Norm,
    /// Queries, keys and values, one above the other.
    pub(super) in_proj: Linear,
    pub(super) out_proj: Linear,
    pub(super) ln_2: Norm,
    pub(super) c_fc: Linear,
    pub(super) c_proj: Linear,
    pub(super) heads: usize,
    pub(super) activation: Activation,
}

impl Block {
    fn load(source: &mut Source<'_>, config: &Config, index: usize) -> Result<Self> {
        let (width, hidden) = (config.text.width, config.text.hidden);
        let name = |part: &str| block_name(index, part);
        let linear = |source: &mut Source<'_>, i: usize, input, output| {
            let [weight, bias] = LINEARS[i];
            Linear::load_parts(source, &name(weight), &name(bias), input, output)
        };
        Ok(Self {
            ln_1: Norm::load(source, &name("ln_1"), width)?,
            in_proj: linear(source, 0, width, 3 * width)?,
            out_proj: linear(source, 1, width, width)?,
            ln_2: Norm::load(source, &name("ln_2"), width)?,
            c_fc: linear(source, 2, width, hidden)?,
            c_proj: linear(source, 3, hidden, width)?,
            heads: config.text.heads,
            activation: config.activation,
        })
    }

    /// [n, t, width] → the same, `mask` being [`causal_mask`].
    pub(super) fn forward(&self, x: Tensor<3>, mask: &Tensor<4>) -> Tensor<3> {
        let [n, t, width] = x.dims();
        let x: Tensor<2> = x.reshape([n * t, width]);
        let x = x.clone() + self.attend(self.ln_1.forward(x), [n, t], mask);
        let hidden = self.bend(self.c_fc.forward(self.ln_2.forward(x.clone())));
        (x + self.c_proj.forward(hidden)).reshape([n, t, width])
    }

    fn attend(&self, x: Tensor<2>, [n, t]: [usize; 2], mask: &Tensor<4>) -> Tensor<2> {
        let width = x.dims()[1];
        let head = width / self.heads;
        let qkv = self
            .in_proj
            .forward(x)
            .reshape([n, t, 3 * self.heads, head])
            .swap_dims(1, 2);
        let part = |i: usize| qkv.clone().narrow(1, i * self.heads, self.heads);
        let scale = 1.0 / (head as f64).sqrt();
        let scores = (part(0) * scale).matmul(part(1).swap_dims(2, 3));
        let weights = in_f32(scores, |scores| softmax(scores + mask.clone(), 3));
        let mixed = weights
            .matmul(part(2))
            .swap_dims(1, 2)
            .reshape([n * t, width]);
        self.out_proj.forward(mixed)
    }

    fn bend(&self, x: Tensor<2>) -> Tensor<2> {
        match self.activation {
            Activation::Gelu => gelu(x),
            Activation::QuickGelu => x.clone() * sigmoid(x * 1.702),
        }
    }
}

/// [1, 1, t, t] in f32: -∞ where a place would look at a later one.
pub(super) fn causal_mask(t: usize, device: &Device) -> Tensor<4> {
    let values = (0..t * t).map(|i| {
        if i % t > i / t {
            f32::NEG_INFINITY
        } else {
            0.0
        }
    });
    let data = TensorData::new(values.collect(), [1, 1, t, t]);
    Tensor::from_data(data, (device, DType::F32))
}

/// The name of one of a block's tensors.
pub(super) fn block_name(index: usize, part: &str) -> String {
    format!("transformer.resblocks.{index}.{part}")
}

/// Tokens to hidden states: embedding, positions, some of the blocks.
#[derive(Clone, Debug)]
pub(super) struct TextTrunk {
    /// [vocabulary, width].
    embedding: Tensor<2>,
    /// [context, width].
    position: Tensor<2>,
    blocks: Vec<Block>,
}

impl TextTrunk {
    /// The first `blocks` blocks and what is below them.
    pub(super) fn load(source: &mut Source<'_>, config: &Config, blocks: usize) -> Result<Self> {
        let TextConfig {
            vocabulary,
            context,
            width,
            ..
        } = config.text;
        Ok(Self {
            embedding: source.tensor("token_embedding.weight", [vocabulary, width])?,
            position: source.tensor("positional_embedding", [context, width])?,
            blocks: load_blocks(source, config, 0..blocks)?,
        })
    }

    /// The first `t` tokens of each text → hidden states [n, t, width].
    ///
    /// `trace` is called with the embeddings and after each block.
    pub(super) fn trace(
        &self,
        texts: &[&Tokens],
        t: usize,
        mut trace: impl FnMut(&Tensor<3>),
    ) -> Tensor<3> {
        let ids: Vec<i32> = (texts.iter())
            .flat_map(|text| {
                let padded = text.ids.iter().copied().chain(std::iter::repeat(0));
                padded.take(t).map(|id| id as i32)
            })
            .collect();
        let device = self.embedding.device();
        let n = texts.len();
        let ids = Tensor::<1, Int>::from_data(TensorData::new(ids, [n * t]), &device);
        let width = self.position.dims()[1];
        let x: Tensor<3> = self.embedding.clone().select(0, ids).reshape([n, t, width]);
        let mut x = x + self.position.clone().narrow(0, 0, t).unsqueeze();
        trace(&x);
        let mask = causal_mask(t, &device);
        for block in &self.blocks {
            x = block.forward(x, &mask);
            trace(&x);
        }
        x
    }

    /// As [`TextTrunk::trace`].
    pub(super) fn forward(&self, texts: &[&Tokens], t: usize) -> Tensor<3> {
        self.trace(texts, t, |_| {})
    }
}

pub(super) fn load_blocks(
    source: &mut Source<'_>,
    config: &Config,
    range: std::ops::Range<usize>,
) -> Result<Vec<Block>> {
    range
        .map(|index| Block::load(source, config, index))
        .collect()
}

/// Hidden states to features: the end's place, normalization, projection.
#[derive(Clone, Debug)]
pub(super) struct TextHead {
    norm: Norm,
    /// [width, embed], multiplied from the right.
    projection: Tensor<2>,
}

impl TextHead {
    pub(super) fn load(source: &mut Source<'_>, config: &Config) -> Result<Self> {
        let width = config.text.width;
        Ok(Self {
            norm: Norm::load(source, "ln_final", width)?,
            projection: source.tensor("text_projection", [width, config.embed_dim])?,
        })
    }

    /// [n, t, width] and each text's end → [n, embed].
    pub(super) fn forward(&self, x: Tensor<3>, ends: &[usize]) -> Tensor<2> {
        let [n, t, width] = x.dims();
        let rows: Vec<i32> = ends
            .iter()
            .enumerate()
            .map(|(i, end)| (i * t + end) as i32)
            .collect();
        let rows = Tensor::<1, Int>::from_data(TensorData::new(rows, [n]), &x.device());
        let x: Tensor<2> = x.reshape([n * t, width]).select(0, rows);
        self.norm.forward(x).matmul(self.projection.clone())
    }
}

/// The whole text tower.
#[derive(Clone, Debug)]
pub(super) struct TextTower {
    pub(super) trunk: TextTrunk,
    pub(super) head: TextHead,
}

impl TextTower {
    pub(super) fn load(source: &mut Source<'_>, config: &Config) -> Result<Self> {
        Ok(Self {
            trunk: TextTrunk::load(source, config, config.text.layers)?,
            head: TextHead::load(source, config)?,
        })
    }

    /// Texts → features [n, embed], computed to the last text's end.
    pub(super) fn forward(&self, texts: &[&Tokens]) -> Tensor<2> {
        let ends: Vec<usize> = texts.iter().map(|text| text.end()).collect();
        let t = ends.iter().max().map_or(1, |end| end + 1);
        self.head.forward(self.trunk.forward(texts, t), &ends)
    }
}

/// Names and shapes of one block's tensors.
pub(super) fn expected_block(config: &TextConfig, index: usize) -> Vec<Expected> {
    let (width, hidden) = (config.width, config.hidden);
    [
        ("ln_1.weight", vec![width]),
        ("ln_1.bias", vec![width]),
        ("attn.in_proj_weight", vec![3 * width, width]),
        ("attn.in_proj_bias", vec![3 * width]),
        ("attn.out_proj.weight", vec![width, width]),
        ("attn.out_proj.bias", vec![width]),
        ("ln_2.weight", vec![width]),
        ("ln_2.bias", vec![width]),
        ("mlp.c_fc.weight", vec![hidden, width]),
        ("mlp.c_fc.bias", vec![hidden]),
        ("mlp.c_proj.weight", vec![width, hidden]),
        ("mlp.c_proj.bias", vec![width]),
    ]
    .into_iter()
    .map(|(part, shape)| (block_name(index, part), shape))
    .collect()
}

/// Every tensor of the text tower.
pub(super) fn expected(config: &Config) -> Vec<Expected> {
    let TextConfig {
        vocabulary,
        context,
        width,
        layers,
        ..
    } = config.text;
    let mut all = vec![
        ("token_embedding.weight".to_owned(), vec![vocabulary, width]),
        ("positional_embedding".to_owned(), vec![context, width]),
        ("ln_final.weight".to_owned(), vec![width]),
        ("ln_final.bias".to_owned(), vec![width]),
        ("text_projection".to_owned(), vec![width, config.embed_dim]),
    ];
    all.extend((0..layers).flat_map(|index| expected_block(&config.text, index)));
    all
}
