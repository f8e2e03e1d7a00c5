//! Layers whose tensors are parameters, each under its name in the checkpoint.
//!
//! A forward pass makes a layer of inference of them, so both are the same code,
//! and gradients flow through the folding of the batch normalizations. Their
//! running statistics are no parameters: they stay as they are.

use anyhow::Result;
use burn::{
    module::{Module, Param, ParamId},
    tensor::Tensor,
};

use super::{
    attnpool::{self, AttentionPool},
    config::{Activation, ResnetConfig},
    resnet::{Bottleneck, Conv, Place},
    tensors::{Scaling, Source},
    transformer::{Block, BlockNames, Linear, Norm},
};

/// A bottleneck whose convolutions and affine parameters are trained.
#[derive(Module, Debug)]
pub(super) struct TrainedBottleneck {
    conv1: TrainedConv,
    conv2: TrainedConv,
    conv3: TrainedConv,
    downsample: Option<TrainedConv>,
    #[module(skip)]
    stride: usize,
}

impl TrainedBottleneck {
    pub(super) fn load(source: &mut Source<'_>, place: &Place) -> Result<Self> {
        let mut convs = (place.convs().into_iter())
            .map(|(conv, bn, shape)| TrainedConv::load(source, &conv, &bn, shape))
            .collect::<Result<Vec<_>>>()?;
        let downsample = if place.downsamples() {
            convs.pop()
        } else {
            None
        };
        let [conv1, conv2, conv3] = <[TrainedConv; 3]>::try_from(convs)
            .map_err(|_| anyhow::anyhow!("a bottleneck has three convolutions"))?;
        Ok(Self {
            conv1,
            conv2,
            conv3,
            downsample,
            stride: place.stride,
        })
    }

    pub(super) fn folded(&self) -> Bottleneck {
        Bottleneck {
            conv1: self.conv1.folded(),
            conv2: self.conv2.folded(),
            conv3: self.conv3.folded(),
            downsample: self.downsample.as_ref().map(TrainedConv::folded),
            stride: self.stride,
        }
    }
}

/// A convolution and a batch normalization with frozen statistics.
#[derive(Module, Debug)]
struct TrainedConv {
    weight: Param<Tensor<4>>,
    gamma: Param<Tensor<1>>,
    beta: Param<Tensor<1>>,
    /// 1 / √(variance + ε).
    precision: Tensor<1>,
    mean: Tensor<1>,
}

impl TrainedConv {
    fn load(source: &mut Source<'_>, conv: &str, bn: &str, shape: [usize; 4]) -> Result<Self> {
        let conv = format!("{conv}.weight");
        let weight = source.tensor(&conv, shape)?;
        let scaling = Scaling::load(source.weights, bn, shape[0])?;
        let upload = |values| source.upload(values, [shape[0]]);
        Ok(Self {
            weight: param(&conv, weight),
            gamma: param(&format!("{bn}.weight"), upload(scaling.weight)),
            beta: param(&format!("{bn}.bias"), upload(scaling.bias)),
            precision: upload(scaling.precision),
            mean: upload(scaling.mean),
        })
    }

    fn folded(&self) -> Conv {
        let factor = self.gamma.val() * self.precision.clone();
        let out = factor.dims()[0];
        Conv {
            weight: self.weight.val() * factor.clone().reshape([out, 1, 1, 1]),
            bias: self.beta.val() - self.mean.clone() * factor,
        }
    }
}

/// `attnpool`; its key bias has no influence and is left as it is.
#[derive(Module, Debug)]
pub(super) struct TrainedPool {
    position: Param<Tensor<2>>,
    q: TrainedLinear,
    k: Param<Tensor<2>>,
    v: TrainedLinear,
    out: TrainedLinear,
    #[module(skip)]
    heads: usize,
}

impl TrainedPool {
    pub(super) fn load(
        source: &mut Source<'_>,
        config: &ResnetConfig,
        embed: usize,
    ) -> Result<Self> {
        let pool = AttentionPool::load(source, config, embed)?;
        let name = attnpool::name;
        Ok(Self {
            position: param(&name("positional_embedding"), pool.position),
            q: TrainedLinear::new(&name("q_proj.weight"), &name("q_proj.bias"), pool.q),
            k: param(&name("k_proj.weight"), pool.k),
            v: TrainedLinear::new(&name("v_proj.weight"), &name("v_proj.bias"), pool.v),
            out: TrainedLinear::new(&name("c_proj.weight"), &name("c_proj.bias"), pool.out),
            heads: pool.heads,
        })
    }

    pub(super) fn pool(&self) -> AttentionPool {
        AttentionPool {
            position: self.position.val(),
            q: self.q.linear(),
            k: self.k.val(),
            v: self.v.linear(),
            out: self.out.linear(),
            heads: self.heads,
        }
    }
}

/// A transformer block whose every tensor is trained.
#[derive(Module, Debug)]
pub(super) struct TrainedBlock {
    ln_1: TrainedNorm,
    in_proj: TrainedLinear,
    out_proj: TrainedLinear,
    ln_2: TrainedNorm,
    c_fc: TrainedLinear,
    c_proj: TrainedLinear,
    #[module(skip)]
    heads: usize,
    #[module(skip)]
    activation: Activation,
}

impl TrainedBlock {
    /// Block `index` of the tower with these names.
    pub(super) fn new(names: BlockNames, index: usize, block: Block) -> Self {
        let name = |part: &str| names.name(index, part);
        let norm = |part: &str, norm: Norm| TrainedNorm {
            weight: param(&name(&format!("{part}.weight")), norm.weight),
            bias: param(&name(&format!("{part}.bias")), norm.bias),
        };
        let linear = |i: usize, linear| {
            let [weight, bias] = names.linear(index, i);
            TrainedLinear::new(&weight, &bias, linear)
        };
        Self {
            ln_1: norm("ln_1", block.ln_1),
            in_proj: linear(0, block.in_proj),
            out_proj: linear(1, block.out_proj),
            ln_2: norm("ln_2", block.ln_2),
            c_fc: linear(2, block.c_fc),
            c_proj: linear(3, block.c_proj),
            heads: block.heads,
            activation: block.activation,
        }
    }

    pub(super) fn block(&self) -> Block {
        Block {
            ln_1: self.ln_1.norm(),
            in_proj: self.in_proj.linear(),
            out_proj: self.out_proj.linear(),
            ln_2: self.ln_2.norm(),
            c_fc: self.c_fc.linear(),
            c_proj: self.c_proj.linear(),
            heads: self.heads,
            activation: self.activation,
        }
    }
}

#[derive(Module, Debug)]
struct TrainedLinear {
    weight: Param<Tensor<2>>,
    bias: Param<Tensor<1>>,
}

impl TrainedLinear {
    fn new(weight: &str, bias: &str, linear: Linear) -> Self {
        Self {
            weight: param(weight, linear.weight),
            bias: param(bias, linear.bias),
        }
    }

    fn linear(&self) -> Linear {
        Linear {
            weight: self.weight.val(),
            bias: self.bias.val(),
        }
    }
}

#[derive(Module, Debug)]
struct TrainedNorm {
    weight: Param<Tensor<1>>,
    bias: Param<Tensor<1>>,
}

impl TrainedNorm {
    fn norm(&self) -> Norm {
        Norm {
            weight: self.weight.val(),
            bias: self.bias.val(),
        }
    }
}

/// A parameter whose identity follows from its name, so that an optimizer's
/// saved state finds it again in another process.
fn param<const D: usize>(name: &str, value: Tensor<D>) -> Param<Tensor<D>> {
    Param::initialized(param_id(name), value).set_require_grad(true)
}

/// The identity of the parameter called `name` in a checkpoint: FNV-1a of it.
pub(super) fn param_id(name: &str) -> ParamId {
    ParamId::from(name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    }))
}
