//! The configuration that the shapes of a checkpoint's tensors tell.
//!
//! `OpenAI`'s archives hold no configuration; their own loader derives it in the
//! same way (openai/CLIP `clip/model.py`, `build_model`). Heads are 64 wide, the
//! activation is `QuickGELU`, the statistics of the images are `OpenAI`'s.

use anyhow::{Context, Result};

use super::{
    Activation, Config, ImageConfig, Preprocess, ResnetConfig, TextConfig, TransformerConfig,
    VitConfig,
};

/// Width of a head.
const HEAD: usize = 64;

/// The configuration of the model whose tensors have these shapes, by plain name.
///
/// # Errors
/// When a tensor that tells something is missing or of another rank.
pub(in crate::models::clip) fn from_shapes<'a>(
    shape: &impl Fn(&str) -> Option<&'a [usize]>,
    names: &[&str],
) -> Result<Config> {
    let side = |name: &str, i: usize| {
        (shape(name).and_then(|sides| sides.get(i).copied()))
            .filter(|side| *side > 0)
            .with_context(|| format!("tensor `{name}`, which tells the model's shape, is missing"))
    };
    // How many blocks there are under a prefix.
    let count = |prefix: &str| {
        (names.iter())
            .filter_map(|name| {
                name.strip_prefix(prefix)?
                    .split('.')
                    .next()?
                    .parse::<usize>()
                    .ok()
            })
            .max()
            .map_or(0, |last| last.saturating_add(1))
    };
    let blocks = |width: usize, prefix: &str, hidden: usize| TransformerConfig {
        width,
        heads: (width / HEAD).max(1),
        layers: count(prefix),
        hidden,
        activation: Activation::QuickGelu,
    };
    let hidden = |prefix: &str| side(&format!("{prefix}0.mlp.c_fc.weight"), 0);
    let root = |squares: usize| (squares as f64).sqrt().round() as usize;
    let image = if shape("visual.proj").is_some() {
        let prefix = "visual.transformer.resblocks.";
        let patch = side("visual.conv1.weight", 3)?;
        let width = side("visual.conv1.weight", 0)?;
        ImageConfig::Vit(VitConfig {
            size: patch * root(side("visual.positional_embedding", 0)? - 1),
            patch,
            transformer: blocks(width, prefix, hidden(prefix)?),
        })
    } else {
        let width = side("visual.layer1.0.conv1.weight", 0)?;
        let last = root(side("visual.attnpool.positional_embedding", 0)? - 1);
        ImageConfig::Resnet(ResnetConfig {
            layers: [1, 2, 3, 4].map(|stage| count(&format!("visual.layer{stage}."))),
            width,
            size: 32 * last,
            heads: (width * 32 / HEAD).max(1),
        })
    };
    let prefix = "transformer.resblocks.";
    Ok(Config {
        embed_dim: side("text_projection", 1)?,
        image,
        text: TextConfig {
            context: side("positional_embedding", 0)?,
            vocabulary: side("token_embedding.weight", 0)?,
            transformer: blocks(side("ln_final.weight", 0)?, prefix, hidden(prefix)?),
        },
        preprocess: Preprocess::default(),
    })
}
