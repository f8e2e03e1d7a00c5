//! The shape of both towers and the preprocessing, wherever it is written.
//!
//! `open_clip` and transformers write it into a file; an archive of `OpenAI`'s
//! has only tensors, whose shapes tell; single files of weights need the name
//! of an architecture. A setting that would change the model in a way that we
//! do not compute is refused by name, so that none is silently ignored.

mod fields;
mod hugging_face;
mod named;
mod open_clip;
mod shapes;

pub(super) use self::{
    hugging_face::{CONFIG_FILE as HF_CONFIG, PREPROCESSOR as HF_PREPROCESSOR, hugging_face},
    named::named,
    open_clip::open_clip,
    shapes::from_shapes,
};
pub use self::{
    named::architectures,
    open_clip::{CONFIG_FILE, to_open_clip},
};
use crate::models::cpu;

/// The longest configuration read, in bytes.
pub(super) const MAX_FILE: u64 = 1 << 20;

/// The tokens that CLIP's tokenizer knows.
const VOCABULARY: usize = 49_408;

/// The activation of a transformer's hidden layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// x·Φ(x) with the exact error function.
    Gelu,
    /// x·σ(1.702·x), what `OpenAI`'s weights were trained with.
    QuickGelu,
}

impl Activation {
    /// The same in the kernels for the CPU.
    pub(super) fn kernel(self) -> cpu::Activation {
        match self {
            Self::Gelu => cpu::Activation::Gelu,
            Self::QuickGelu => cpu::Activation::QuickGelu,
        }
    }
}

/// Both towers.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Width of the shared space.
    pub embed_dim: usize,
    /// The image tower.
    pub image: ImageConfig,
    /// The text tower.
    pub text: TextConfig,
    /// From pixels to numbers.
    pub preprocess: Preprocess,
}

/// An image tower of either family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageConfig {
    /// RN50 and its kin.
    Resnet(ResnetConfig),
    /// ViT-B/32 and its kin.
    Vit(VitConfig),
}

impl ImageConfig {
    /// Side of the square input, in pixels.
    pub fn size(&self) -> usize {
        match self {
            Self::Resnet(resnet) => resnet.size,
            Self::Vit(vit) => vit.size,
        }
    }
}

/// A `ModifiedResNet` (Radford et al. 2021, section 2.4); its convolutions use
/// `ReLU` always.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResnetConfig {
    /// Bottlenecks of the four stages.
    pub layers: [usize; 4],
    /// Channels after the stem; the last stage has 32 times as many.
    pub width: usize,
    /// Side of the square input, in pixels.
    pub size: usize,
    /// Heads of the attention pool.
    pub heads: usize,
}

impl ResnetConfig {
    /// Channels of the last stage.
    pub fn features(&self) -> usize {
        self.width * 32
    }

    /// Side of the last stage's map.
    pub fn side(&self) -> usize {
        self.size / 32
    }
}

/// A vision transformer (Dosovitskiy et al. 2021) with a normalization before
/// its first block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VitConfig {
    /// Side of the square input, in pixels.
    pub size: usize,
    /// Side of a patch, in pixels.
    pub patch: usize,
    /// The blocks.
    pub transformer: TransformerConfig,
}

impl VitConfig {
    /// Patches and the class token.
    pub fn tokens(&self) -> usize {
        (self.size / self.patch).pow(2) + 1
    }
}

/// A text tower.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextConfig {
    /// Positions.
    pub context: usize,
    /// Rows of the token embedding.
    pub vocabulary: usize,
    /// The blocks, causal.
    pub transformer: TransformerConfig,
}

/// Blocks of a transformer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransformerConfig {
    /// Width of the residual stream.
    pub width: usize,
    /// Attention heads.
    pub heads: usize,
    /// Blocks.
    pub layers: usize,
    /// Width of a block's hidden layer.
    pub hidden: usize,
    /// The hidden layer's activation.
    pub activation: Activation,
}

/// What happens to pixels after the bicubic resize and the centre crop.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Preprocess {
    /// Subtracted from each channel of [0, 1].
    pub mean: [f32; 3],
    /// Divides each channel.
    pub std: [f32; 3],
}

impl Default for Preprocess {
    /// `OpenAI`'s statistics.
    fn default() -> Self {
        Self {
            mean: [0.481_454_66, 0.457_827_5, 0.408_210_72],
            std: [0.268_629_54, 0.261_302_6, 0.275_777_1],
        }
    }
}
