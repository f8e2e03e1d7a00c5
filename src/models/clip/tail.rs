//! A model cut in two: a frozen trunk, and above it what is trained.
//!
//! Of the image tower `layer4` (or its last bottleneck) and `attnpool` of a
//! `ModifiedResNet`, the batch normalizations' affine parameters included and
//! their running statistics frozen, or the last blocks of a vision transformer;
//! of the text tower the last blocks. The normalizations and projections that
//! follow the last blocks stay as they are.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow, ensure};
use burn::{
    module::{Module, ModuleVisitor, Param, ParamId},
    tensor::{DType, Device, Tensor, TensorData},
};

use super::{
    checkpoint::Checkpoint,
    config::{Config, ImageConfig, ResnetConfig, VitConfig},
    folder,
    layers::{ImageLayers, Layers},
    resnet::Place,
    runner::{CPU_TEXTS, Runner},
    tensors::Source,
    text::{TextHead, TextTrunk},
    tokenize,
    tokenizer::{Tokenizer, Tokens, TooLong},
    towers::{ImageTower, ImageTrunk},
    trained::{TrainedBlock, TrainedBottleneck, TrainedPool, param_id},
    transformer::{Block, BlockNames, causal_mask},
    vit::VitHead,
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
    /// Loads a model, cut below `layers`.
    ///
    /// # Errors
    /// As [`Clip::load`](super::Clip::load) and [`Layers::resolve`].
    pub fn load(checkpoint: &Checkpoint, layers: Layers, device: &Device) -> Result<Self> {
        let config = checkpoint.config().clone();
        let layers = layers.resolve(&config)?;
        let text_layers = config.text.transformer.layers;
        let first = text_layers.saturating_sub(layers.text.blocks());
        let mut weights = checkpoint.checked()?;
        let frozen = device.clone().without_autodiff();
        let trained = device.clone().autodiff();
        let source = &mut Source {
            weights: &mut weights,
            dtype: DType::F32,
            device: &frozen,
        };
        let cut = Cut::new(layers.image, &config)?;
        let image = cut.trunk(source, &config)?;
        let text = TextTrunk::load(source, &config, first)?;
        source.device = &trained;
        Ok(Self {
            image: cut.tail(source, &config)?,
            text: TextTail::load(source, &config, first..text_layers)?,
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

/// Where an image tower is cut.
enum Cut<'a> {
    /// Below the last bottlenecks of `layer4`.
    Resnet(&'a ResnetConfig, usize),
    /// Below the last blocks.
    Vit(&'a VitConfig, usize),
    /// Above all layers.
    Nowhere,
}

impl<'a> Cut<'a> {
    /// Where `layers`, which the tower has, begin.
    fn new(layers: ImageLayers, config: &'a Config) -> Result<Self> {
        Ok(match (layers, &config.image) {
            (ImageLayers::None, _) => Self::Nowhere,
            (ImageLayers::Layer4, ImageConfig::Resnet(resnet)) => {
                Self::Resnet(resnet, resnet.layers[3])
            }
            (ImageLayers::Layer4Last, ImageConfig::Resnet(resnet)) => Self::Resnet(resnet, 1),
            (ImageLayers::Blocks(blocks), ImageConfig::Vit(vit)) => Self::Vit(vit, blocks),
            _ => return Err(anyhow!("the image tower has no layers `{layers}`")),
        })
    }

    fn trunk(&self, source: &mut Source<'_>, config: &Config) -> Result<ImageTrunk> {
        match *self {
            Self::Resnet(resnet, blocks) => ImageTrunk::load_resnet(source, resnet, blocks),
            Self::Vit(vit, blocks) => ImageTrunk::load_vit(source, vit, blocks),
            Self::Nowhere => Ok(ImageTrunk::Whole(Box::new(ImageTower::load(
                source, config,
            )?))),
        }
    }

    fn tail(&self, source: &mut Source<'_>, config: &Config) -> Result<ImageTail> {
        let embed = config.embed_dim;
        match *self {
            Self::Resnet(resnet, blocks) => {
                let places = Place::stage(resnet, 4);
                let first = places.len().saturating_sub(blocks);
                // `layer3` has half the channels of `layer4` and twice its side.
                let shape = match first {
                    0 => [resnet.features() / 2, resnet.size / 16, resnet.size / 16],
                    _ => [resnet.features(), resnet.side(), resnet.side()],
                };
                let blocks = (places[first..].iter())
                    .map(|place| TrainedBottleneck::load(source, place))
                    .collect::<Result<_>>()?;
                Ok(ImageTail::Resnet(ResnetTail {
                    blocks,
                    pool: TrainedPool::load(source, resnet, embed)?,
                    shape,
                }))
            }
            Self::Vit(vit, blocks) => {
                let layers = vit.transformer.layers;
                let range = layers.saturating_sub(blocks)..layers;
                let names = BlockNames::IMAGE;
                let blocks = Block::load_all(source, names, &vit.transformer, range.clone())?;
                Ok(ImageTail::Vit(VitTail {
                    blocks: trained(names, range, blocks),
                    head: VitHead::load(source, vit, embed)?,
                    shape: [vit.tokens(), vit.transformer.width],
                }))
            }
            Self::Nowhere => Ok(ImageTail::Frozen(embed)),
        }
    }
}

/// The blocks `range` of the tower with these names, all trained.
fn trained(
    names: BlockNames,
    range: std::ops::Range<usize>,
    blocks: Vec<Block>,
) -> Vec<TrainedBlock> {
    (range.zip(blocks))
        .map(|(i, block)| TrainedBlock::new(names, i, block))
        .collect()
}

/// The frozen beginnings of both towers.
#[derive(Debug)]
pub struct ClipTrunk {
    config: Config,
    image: ImageTrunk,
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

    /// Whether it computes on the CPU, where an image's features are the same
    /// bits in every batch.
    pub(super) fn on_cpu(&self) -> bool {
        self.runner.on_cpu()
    }

    /// The input of the image tower's trained layers, one row an image:
    /// [channels, side, side] of a `ModifiedResNet`, [tokens, width] of a vision
    /// transformer, [`embed_dim`] where none is trained. At least one image.
    ///
    /// # Errors
    /// When the device fails.
    pub fn image_features(&self, images: &[Rgb8]) -> Result<Tensor<2>> {
        let parts = (self.runner).map_items(images, self.runner.images(), |images| {
            let prepared: Vec<Rgb8> = images.iter().map(|i| self.runner.prepare(i)).collect();
            let prepared: Vec<&Rgb8> = prepared.iter().collect();
            self.image.forward(&prepared, &self.runner)
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

/// The trained layers of an image tower and the frozen ones above them.
#[derive(Module, Debug)]
#[expect(private_interfaces, reason = "only this module looks inside")]
pub enum ImageTail {
    /// Of a `ModifiedResNet`.
    Resnet(ResnetTail),
    /// Of a vision transformer.
    Vit(VitTail),
    /// None; the width of the features.
    Frozen(usize),
}

/// The last bottlenecks of `layer4`, and `attnpool`.
#[derive(Module, Debug)]
struct ResnetTail {
    blocks: Vec<TrainedBottleneck>,
    pool: TrainedPool,
    /// Of an image's features: channels and sides.
    #[module(skip)]
    shape: [usize; 3],
}

/// The last blocks of a vision transformer, with the frozen head above them.
#[derive(Module, Debug)]
struct VitTail {
    blocks: Vec<TrainedBlock>,
    #[module(skip)]
    head: VitHead,
    /// Of an image's features: tokens and width.
    #[module(skip)]
    shape: [usize; 2],
}

impl ImageTail {
    /// Rows of [`ClipTrunk::image_features`] → [n, `embed_dim`], not normalised.
    pub fn forward(&self, features: Tensor<2>) -> Tensor<2> {
        let n = features.dims()[0];
        match self {
            Self::Resnet(tail) => {
                let [c, h, w] = tail.shape;
                let mut x: Tensor<4> = features.reshape([n, c, h, w]);
                for block in &tail.blocks {
                    x = block.folded().forward(x);
                }
                let [n, c, h, w] = x.dims();
                (tail.pool.pool()).forward(x.reshape([n, c, h * w]).swap_dims(1, 2))
            }
            Self::Vit(tail) => {
                let [tokens, width] = tail.shape;
                let mut x: Tensor<3> = features.reshape([n, tokens, width]);
                for block in &tail.blocks {
                    x = block.block().forward(x, None);
                }
                tail.head.forward(x)
            }
            Self::Frozen(_) => features,
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
            blocks: trained(BlockNames::TEXT, range, blocks),
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
