//! Transformer blocks with pre-normalization, of both towers.
//!
//! Radford et al. 2021, section 2.4; `open_clip` `transformer.py`
//! (`ResidualAttentionBlock`).

use std::ops::Range;

use anyhow::Result;
use burn::tensor::{
    DType, Device, Tensor, TensorData,
    activation::{gelu, sigmoid, softmax},
    module::layer_norm,
};

use super::{
    config::{Activation, TransformerConfig},
    tensors::{EPSILON, Source},
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
    pub(super) fn load(source: &mut Source<'_>, name: &str, width: usize) -> Result<Self> {
        Ok(Self {
            weight: source.exact(&format!("{name}.weight"), [width])?,
            bias: source.exact(&format!("{name}.bias"), [width])?,
        })
    }

    pub(super) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
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

/// Where a tower's blocks are in a checkpoint.
#[derive(Clone, Copy, Debug)]
pub(super) struct BlockNames(&'static str);

impl BlockNames {
    /// Those of the text tower.
    pub(super) const TEXT: Self = Self("transformer.resblocks");
    /// Those of an image tower.
    pub(super) const IMAGE: Self = Self("visual.transformer.resblocks");

    /// Weight and bias of a block's linear layers, in the order of use.
    const LINEARS: [[&'static str; 2]; 4] = [
        ["attn.in_proj_weight", "attn.in_proj_bias"],
        ["attn.out_proj.weight", "attn.out_proj.bias"],
        ["mlp.c_fc.weight", "mlp.c_fc.bias"],
        ["mlp.c_proj.weight", "mlp.c_proj.bias"],
    ];

    /// The name of a part of block `index`.
    pub(super) fn name(self, index: usize, part: &str) -> String {
        format!("{}.{index}.{part}", self.0)
    }

    /// Weight and bias of linear layer `i` of block `index`.
    pub(super) fn linear(self, index: usize, i: usize) -> [String; 2] {
        Self::LINEARS[i].map(|part| self.name(index, part))
    }

    /// Names and shapes of the tensors of block `index`.
    pub(super) fn expected(self, config: &TransformerConfig, index: usize) -> Vec<Expected> {
        let (width, hidden) = (config.width, config.hidden);
        let norms = ["ln_1", "ln_2"].into_iter().flat_map(|norm| {
            ["weight", "bias"]
                .map(|part| (self.name(index, &format!("{norm}.{part}")), vec![width]))
        });
        let shapes = [
            [3 * width, width],
            [width, width],
            [hidden, width],
            [width, hidden],
        ];
        let linears = shapes.into_iter().enumerate().flat_map(|(i, shape)| {
            let [weight, bias] = self.linear(index, i);
            [(weight, shape.to_vec()), (bias, vec![shape[0]])]
        });
        norms.chain(linears).collect()
    }
}

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
    fn load(
        source: &mut Source<'_>,
        names: BlockNames,
        config: &TransformerConfig,
        index: usize,
    ) -> Result<Self> {
        let (width, hidden) = (config.width, config.hidden);
        let linear = |source: &mut Source<'_>, i: usize, input, output| {
            let [weight, bias] = names.linear(index, i);
            Linear::load_parts(source, &weight, &bias, input, output)
        };
        Ok(Self {
            ln_1: Norm::load(source, &names.name(index, "ln_1"), width)?,
            in_proj: linear(source, 0, width, 3 * width)?,
            out_proj: linear(source, 1, width, width)?,
            ln_2: Norm::load(source, &names.name(index, "ln_2"), width)?,
            c_fc: linear(source, 2, width, hidden)?,
            c_proj: linear(source, 3, hidden, width)?,
            heads: config.heads,
            activation: config.activation,
        })
    }

    /// The blocks `range` of a tower.
    pub(super) fn load_all(
        source: &mut Source<'_>,
        names: BlockNames,
        config: &TransformerConfig,
        range: Range<usize>,
    ) -> Result<Vec<Self>> {
        range
            .map(|index| Self::load(source, names, config, index))
            .collect()
    }

    /// [n, t, width] → the same; `mask` is [`causal_mask`], or none where every
    /// place sees all.
    pub(super) fn forward(&self, x: Tensor<3>, mask: Option<&Tensor<4>>) -> Tensor<3> {
        let [n, t, width] = x.dims();
        let x: Tensor<2> = x.reshape([n * t, width]);
        let x = x.clone() + self.attend(self.ln_1.forward(x), [n, t], mask);
        let hidden = self.activate(self.c_fc.forward(self.ln_2.forward(x.clone())));
        (x + self.c_proj.forward(hidden)).reshape([n, t, width])
    }

    fn attend(&self, x: Tensor<2>, [n, t]: [usize; 2], mask: Option<&Tensor<4>>) -> Tensor<2> {
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
        let weights = in_f32(scores, |scores| {
            let scores = match mask {
                Some(mask) => scores + mask.clone(),
                None => scores,
            };
            softmax(scores, 3)
        });
        let mixed = weights
            .matmul(part(2))
            .swap_dims(1, 2)
            .reshape([n * t, width]);
        self.out_proj.forward(mixed)
    }

    fn activate(&self, x: Tensor<2>) -> Tensor<2> {
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
