//! Tensors of transformers' `CLIPModel` under `open_clip`'s names.
//!
//! transformers `modeling_clip.py`: queries, keys and values are separate, both
//! projections are linear layers, hence the other way round, and one name is
//! misspelt for ever (`pre_layrnorm`).

use anyhow::Result;

use super::config::{Config, ImageConfig, TransformerConfig, VitConfig};
use crate::models::weights::{Expected, Weights};

/// What begins the names of a tower's tensors, there and here.
const TOWERS: [(&str, &str); 2] = [("text_model", ""), ("vision_model", "visual.")];

/// Names outside the blocks, there and here.
const NAMES: [(&str, &str); 14] = [
    (
        "text_model.embeddings.token_embedding.weight",
        "token_embedding.weight",
    ),
    (
        "text_model.embeddings.position_embedding.weight",
        "positional_embedding",
    ),
    ("text_model.final_layer_norm.weight", "ln_final.weight"),
    ("text_model.final_layer_norm.bias", "ln_final.bias"),
    ("text_projection.weight", TEXT_PROJECTION),
    (
        "vision_model.embeddings.class_embedding",
        "visual.class_embedding",
    ),
    (
        "vision_model.embeddings.patch_embedding.weight",
        "visual.conv1.weight",
    ),
    (
        "vision_model.embeddings.position_embedding.weight",
        "visual.positional_embedding",
    ),
    ("vision_model.pre_layrnorm.weight", "visual.ln_pre.weight"),
    ("vision_model.pre_layrnorm.bias", "visual.ln_pre.bias"),
    (
        "vision_model.post_layernorm.weight",
        "visual.ln_post.weight",
    ),
    ("vision_model.post_layernorm.bias", "visual.ln_post.bias"),
    ("visual_projection.weight", IMAGE_PROJECTION),
    ("logit_scale", "logit_scale"),
];
const TEXT_PROJECTION: &str = "text_projection";
const IMAGE_PROJECTION: &str = "visual.proj";

/// Parts of a block, there and here.
const PARTS: [(&str, &str); 8] = [
    ("self_attn.q_proj", "attn.q_proj"),
    ("self_attn.k_proj", "attn.k_proj"),
    ("self_attn.v_proj", "attn.v_proj"),
    ("self_attn.out_proj", "attn.out_proj"),
    ("layer_norm1", "ln_1"),
    ("layer_norm2", "ln_2"),
    ("mlp.fc1", "mlp.c_fc"),
    ("mlp.fc2", "mlp.c_proj"),
];

/// Gives the tensors of a `CLIPModel` `open_clip`'s names and shapes.
///
/// # Errors
/// When one is missing, left over or of another shape; by its own name.
pub(super) fn rename(weights: &mut Weights, config: &Config) -> Result<()> {
    // Older files carry the numbers of places, which nobody needs.
    weights.ignore(|name| name.ends_with(".position_ids"));
    let ImageConfig::Vit(vit) = &config.image else {
        anyhow::bail!("a `CLIPModel` has no ModifiedResNet");
    };
    weights.check(&expected(config, vit))?;
    weights.rename(plain)?;
    for (prefix, blocks) in [
        ("", &config.text.transformer),
        ("visual.", &vit.transformer),
    ] {
        for i in 0..blocks.layers {
            for part in ["weight", "bias"] {
                let name = |name: &str| format!("{prefix}transformer.resblocks.{i}.attn.{name}");
                let parts = ["q", "k", "v"].map(|x| name(&format!("{x}_proj.{part}")));
                let parts = parts.each_ref().map(String::as_str);
                weights.stack(&name(&format!("in_proj_{part}")), &parts)?;
            }
        }
    }
    weights.transpose(TEXT_PROJECTION)?;
    weights.transpose(IMAGE_PROJECTION)?;
    Ok(())
}

/// A tensor's name here; one that is not known stays as it is.
fn plain(name: &str) -> String {
    if let Some((_, plain)) = NAMES.iter().find(|(there, _)| *there == name) {
        return (*plain).to_owned();
    }
    let in_block = || {
        let (tower, here) = TOWERS.iter().find(|(tower, _)| name.starts_with(tower))?;
        let rest = name[tower.len()..].strip_prefix(".encoder.layers.")?;
        let (index, rest) = rest.split_once('.')?;
        let (part, end) = rest.rsplit_once('.')?;
        let (_, part) = PARTS.iter().find(|(there, _)| *there == part)?;
        Some(format!("{here}transformer.resblocks.{index}.{part}.{end}"))
    };
    in_block().unwrap_or_else(|| name.to_owned())
}

/// Every tensor of a `CLIPModel` by its own name.
fn expected(config: &Config, vit: &VitConfig) -> Vec<Expected> {
    let text = &config.text;
    let (tw, vw, embed) = (
        text.transformer.width,
        vit.transformer.width,
        config.embed_dim,
    );
    let shapes = [
        vec![text.vocabulary, tw],
        vec![text.context, tw],
        vec![tw],
        vec![tw],
        vec![embed, tw],
        vec![vw],
        vec![vw, 3, vit.patch, vit.patch],
        vec![vit.tokens(), vw],
        vec![vw],
        vec![vw],
        vec![vw],
        vec![vw],
        vec![embed, vw],
        vec![],
    ];
    let mut all: Vec<Expected> = (NAMES.iter().zip(shapes))
        .map(|((name, _), shape)| ((*name).to_owned(), shape))
        .collect();
    for ((tower, _), blocks) in TOWERS.iter().zip([&text.transformer, &vit.transformer]) {
        let TransformerConfig { width, hidden, .. } = *blocks;
        for i in 0..blocks.layers {
            for (part, _) in PARTS {
                let shape = match part {
                    "mlp.fc1" => vec![hidden, width],
                    "mlp.fc2" => vec![width, hidden],
                    _ if part.starts_with("layer_norm") => vec![width],
                    _ => vec![width, width],
                };
                let name = format!("{tower}.encoder.layers.{i}.{part}");
                all.push((format!("{name}.bias"), vec![shape[0]]));
                all.push((format!("{name}.weight"), shape));
            }
        }
    }
    all
}
