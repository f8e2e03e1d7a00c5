//! The last layers of both towers as parameters to train, above a frozen trunk.
//!
//! What is trained is what "the last two layers" are in `PyTorch`: `layer4` and
//! `attnpool` of the image tower with the batch normalizations' affine
//! parameters, their running statistics frozen; and the last blocks of the
//! text tower, below a frozen final normalization and projection. Each forward
//! pass folds the parameters into the convolutions of inference, so both are
//! the same code, and gradients flow through the folding. The key bias of the
//! attention pool has no influence and is left as it is.

use std::collections::BTreeMap;

use anyhow::{Result, bail, ensure};
use burn::{
    module::{Module, ModuleVisitor, Param, ParamId},
    tensor::{DType, Device, Tensor, TensorData},
};

use super::{
    attnpool::{self, AttentionPool},
    checkpoint::Checkpoint,
    config::{Activation, Config, ImageConfig, ResnetConfig},
    folder,
    resnet::{Bottleneck, Conv, Place},
    runner::{CPU_TEXTS, Runner},
    tensors::{Scaling, Source},
    text::{TextHead, TextTrunk},
    tokenize,
    tokenizer::{Tokenizer, Tokens, TooLong},
    towers::ResnetTrunk,
    transformer::{Block, BlockNames, Linear, Norm, causal_mask},
};
use crate::models::image::Rgb8;

/// A trained tensor under its name in the checkpoint.
pub type Named = (String, TensorData);

/// A model cut in two: what stays and what is trained. All in f32.
#[derive(Debug)]
pub struct Split {
    /// Both towers' frozen beginnings, without autodiff.
    pub trunk: ClipTrunk,
    /// The image tower's end, with autodiff.
    pub image: ImageTail,
    /// The text tower's end, with autodiff.
    pub text: TextTail,
}

impl Split {
    /// Loads a model, cut below `layer4` and below the last `blocks` blocks of
    /// the text tower.
    ///
    /// # Errors
    /// As [`Clip::load`](super::Clip::load); also when there are fewer blocks, or
    /// the image tower is a ViT.
    pub fn load(checkpoint: &Checkpoint, blocks: usize, device: &Device) -> Result<Self> {
        let config = checkpoint.config().clone();
        let ImageConfig::Resnet(resnet) = &config.image else {
            bail!(
                "train a model whose image tower is a ViT: `layer4` and the attention pool of a \
                 ModifiedResNet are what is trained\nhint: use a model of the RN50 family"
            )
        };
        let layers = config.text.transformer.layers;
        ensure!(
            blocks <= layers,
            "train the last {blocks} blocks: the text tower has {layers}"
        );
        let mut weights = checkpoint.checked()?;
        let frozen = device.clone().without_autodiff();
        let trained = device.clone().autodiff();
        let source = &mut Source {
            weights: &mut weights,
            dtype: DType::F32,
            device: &frozen,
        };
        let image = ResnetTrunk::load(source, resnet, 3)?;
        let text = TextTrunk::load(source, &config, layers - blocks)?;
        source.device = &trained;
        Ok(Self {
            image: ImageTail::load(source, resnet, config.embed_dim)?,
            text: TextTail::load(source, &config, layers - blocks..layers)?,
            trunk: ClipTrunk {
                runner: Runner::new(&config, DType::F32, &frozen)?,
                tokenizer: checkpoint.tokenizer(TooLong::Cut)?,
                config,
                image,
                text,
            },
        })
    }
}

/// The frozen beginnings of both towers.
#[derive(Debug)]
pub struct ClipTrunk {
    config: Config,
    image: ResnetTrunk,
    text: TextTrunk,
    tokenizer: Tokenizer,
    runner: Runner,
}

impl ClipTrunk {
    /// The model's shape.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The image at the tower's size; once prepared it stays as it is.
    pub(super) fn prepare(&self, image: &Rgb8) -> Rgb8 {
        self.runner.prepare(image)
    }

    /// The output of `layer3`: [n, 16·width, side, side] with side = size / 16.
    /// At least one image.
    ///
    /// # Errors
    /// When the device fails.
    pub fn image_features(&self, images: &[Rgb8]) -> Result<Tensor<4>> {
        let parts = (self.runner).map_items(images, self.runner.images(), |images| {
            let prepared: Vec<Rgb8> = images.iter().map(|i| self.runner.prepare(i)).collect();
            let prepared: Vec<&Rgb8> = prepared.iter().collect();
            Ok(self.image.forward(&prepared, &self.runner))
        })?;
        ensure!(!parts.is_empty(), "compute the features of no image");
        Ok(Tensor::cat(parts, 0))
    }

    /// The hidden states below the trained blocks, [n, t, width], and where
    /// each text ends; t reaches to the last end. At least one text.
    ///
    /// # Errors
    /// When the device fails.
    pub fn text_hidden(&self, texts: &[String]) -> Result<(Tensor<3>, Vec<usize>)> {
        let tokens = tokenize(texts, &self.tokenizer, self.config.text.context)?;
        let ends: Vec<usize> = tokens.iter().map(Tokens::end).collect();
        let t = ends.iter().max().map_or(1, |end| end + 1);
        let tokens: Vec<&Tokens> = tokens.iter().collect();
        let parts =
            (self.runner).map_items(&tokens, CPU_TEXTS, |texts| Ok(self.text.forward(texts, t)))?;
        ensure!(!parts.is_empty(), "compute the hidden states of no text");
        Ok((Tensor::cat(parts, 0), ends))
    }
}

/// `layer4` and `attnpool`.
#[derive(Module, Debug)]
pub struct ImageTail {
    blocks: Vec<TrainedBottleneck>,
    position: Param<Tensor<2>>,
    q: TrainedLinear,
    k: Param<Tensor<2>>,
    v: TrainedLinear,
    out: TrainedLinear,
    #[module(skip)]
    heads: usize,
}

impl ImageTail {
    fn load(source: &mut Source<'_>, config: &ResnetConfig, embed: usize) -> Result<Self> {
        let blocks = (Place::stage(config, 4).iter())
            .map(|place| TrainedBottleneck::load(source, place))
            .collect::<Result<_>>()?;
        let pool = AttentionPool::load(source, config, embed)?;
        let name = attnpool::name;
        Ok(Self {
            blocks,
            position: param(&name("positional_embedding"), pool.position),
            q: TrainedLinear::new(&name("q_proj.weight"), &name("q_proj.bias"), pool.q),
            k: param(&name("k_proj.weight"), pool.k),
            v: TrainedLinear::new(&name("v_proj.weight"), &name("v_proj.bias"), pool.v),
            out: TrainedLinear::new(&name("c_proj.weight"), &name("c_proj.bias"), pool.out),
            heads: pool.heads,
        })
    }

    /// Features of [`ClipTrunk::image_features`] → [n, `embed_dim`], not
    /// normalised.
    pub fn forward(&self, features: Tensor<4>) -> Tensor<2> {
        let mut x = features;
        for block in &self.blocks {
            x = block.folded().forward(x);
        }
        let pool = AttentionPool {
            position: self.position.val(),
            q: self.q.linear(),
            k: self.k.val(),
            v: self.v.linear(),
            out: self.out.linear(),
            heads: self.heads,
        };
        let [n, c, h, w] = x.dims();
        pool.forward(x.reshape([n, c, h * w]).swap_dims(1, 2))
    }
}

/// A bottleneck whose convolutions and affine parameters are trained.
#[derive(Module, Debug)]
struct TrainedBottleneck {
    conv1: TrainedConv,
    conv2: TrainedConv,
    conv3: TrainedConv,
    downsample: Option<TrainedConv>,
    #[module(skip)]
    stride: usize,
}

impl TrainedBottleneck {
    fn load(source: &mut Source<'_>, place: &Place) -> Result<Self> {
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

    fn folded(&self) -> Bottleneck {
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

/// The last blocks of the text tower, with the frozen head above them.
#[derive(Module, Debug)]
pub struct TextTail {
    blocks: Vec<TrainedBlock>,
    #[module(skip)]
    head: TextHead,
}

impl TextTail {
    fn load(
        source: &mut Source<'_>,
        config: &Config,
        range: std::ops::Range<usize>,
    ) -> Result<Self> {
        let transformer = &config.text.transformer;
        let blocks = Block::load_all(source, BlockNames::TEXT, transformer, range.clone())?;
        Ok(Self {
            blocks: range
                .zip(blocks)
                .map(|(i, block)| TrainedBlock::new(i, block))
                .collect(),
            head: TextHead::load(source, config)?,
        })
    }

    /// Hidden states and ends of [`ClipTrunk::text_hidden`] →
    /// [n, `embed_dim`], not normalised.
    pub fn forward(&self, hidden: Tensor<3>, ends: &[usize]) -> Tensor<2> {
        let mask = causal_mask(hidden.dims()[1], &hidden.device());
        let mut x = hidden;
        for block in &self.blocks {
            x = block.block().forward(x, Some(&mask));
        }
        self.head.forward(x, ends)
    }
}

/// A transformer block whose every tensor is trained.
#[derive(Module, Debug)]
struct TrainedBlock {
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
    fn new(index: usize, block: Block) -> Self {
        let name = |part: &str| BlockNames::TEXT.name(index, part);
        let norm = |part: &str, norm: Norm| TrainedNorm {
            weight: param(&name(&format!("{part}.weight")), norm.weight),
            bias: param(&name(&format!("{part}.bias")), norm.bias),
        };
        let linear = |i: usize, linear| {
            let [weight, bias] = BlockNames::TEXT.linear(index, i);
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

    fn block(&self) -> Block {
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

/// Every parameter of an [`ImageTail`], a [`TextTail`] or a module of both, under
/// its name in the checkpoint, in name order, in f32.
///
/// # Errors
/// When the device fails.
pub fn export<M: Module>(tail: &M, config: &Config) -> Result<Vec<Named>> {
    named(tail, config, &|param| param.into_data())
        .into_iter()
        .map(|(name, data)| Ok((name, data?)))
        .collect()
}

/// A parameter of any rank.
trait Visited {
    /// Its values.
    fn into_data(self: Box<Self>) -> Result<TensorData>;
    /// Its gradient's values, if it has one.
    #[cfg(test)]
    fn gradient(&self, gradients: &burn::tensor::Gradients) -> Option<Vec<f32>>;
}

impl<const D: usize> Visited for Tensor<D> {
    fn into_data(self: Box<Self>) -> Result<TensorData> {
        Ok(self.without_autodiff().try_into_data()?)
    }

    #[cfg(test)]
    fn gradient(&self, gradients: &burn::tensor::Gradients) -> Option<Vec<f32>> {
        self.grad(gradients)
            .and_then(|gradient| super::rows(gradient).ok())
    }
}

/// Calls `read` with every parameter, by name.
fn named<M: Module, R>(
    module: &M,
    config: &Config,
    read: &dyn Fn(Box<dyn Visited>) -> R,
) -> BTreeMap<String, R> {
    struct Visitor<'a, R> {
        names: BTreeMap<ParamId, String>,
        read: &'a dyn Fn(Box<dyn Visited>) -> R,
        all: BTreeMap<String, R>,
    }
    impl<R> ModuleVisitor for Visitor<'_, R> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(name) = self.names.remove(&param.id) {
                self.all.insert(name, (self.read)(Box::new(param.val())));
            }
        }
    }
    let names = folder::expected(config)
        .into_iter()
        .map(|(name, _)| (param_id(&name), name));
    let mut visitor = Visitor {
        names: names.collect(),
        read,
        all: BTreeMap::new(),
    };
    module.visit(&mut visitor);
    visitor.all
}

/// The gradients of every parameter that has one, by name.
#[cfg(test)]
pub(super) fn gradients<M: Module>(
    tail: &M,
    config: &Config,
    gradients: &burn::tensor::Gradients,
) -> BTreeMap<String, Vec<f32>> {
    let all = named(tail, config, &|param| param.gradient(gradients));
    all.into_iter()
        .filter_map(|(name, gradient)| Some((name, gradient?)))
        .collect()
}
