//! The parts of a CLIP model, every tensor that it needs, and the folder that it
//! is written to.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Result, bail, ensure};
use burn::tensor::{DType, TensorData};
use serde_json::{Value, json};

use super::{
    attnpool,
    checkpoint::Checkpoint,
    config::{self, CONFIG_FILE, Config, ImageConfig},
    resnet, text, vit,
};
use crate::models::weights::{self, Expected, RawTensor};

/// The file of weights in a folder of `open_clip`.
pub const WEIGHTS_FILE: &str = "open_clip_model.safetensors";

/// What a result can depend on by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// The image tower and its preprocessing.
    Image,
    /// The text tower.
    Text,
    /// The logarithm of the logits' factor.
    Scale,
}

impl Part {
    /// The part that holds the tensor `name`, as [`Checkpoint::weights`] names it.
    pub fn of(name: &str) -> Self {
        match name {
            "logit_scale" | "logit_bias" => Self::Scale,
            _ if name.starts_with("visual.") => Self::Image,
            _ => Self::Text,
        }
    }

    /// What the configuration says about the part, for digests.
    pub fn settings(self, config: &Config) -> Value {
        let Config {
            embed_dim,
            image,
            text,
            preprocess,
        } = config;
        let blocks = |t: &config::TransformerConfig| {
            json!({
                "activation": format!("{:?}", t.activation), "width": t.width,
                "heads": t.heads, "layers": t.layers, "hidden": t.hidden,
            })
        };
        let mut settings = match (self, image) {
            (Self::Image, ImageConfig::Resnet(image)) => json!({
                "layers": image.layers, "width": image.width, "heads": image.heads,
            }),
            (Self::Image, ImageConfig::Vit(vit)) => {
                let mut all = blocks(&vit.transformer);
                all["patch"] = json!(vit.patch);
                all
            }
            (Self::Text, _) => {
                let mut all = blocks(&text.transformer);
                all["context"] = json!(text.context);
                all
            }
            (Self::Scale, _) => return Value::Null,
        };
        settings["embed_dim"] = json!(embed_dim);
        if self == Self::Image {
            settings["size"] = json!(image.size());
            settings["mean"] = json!(preprocess.mean);
            settings["std"] = json!(preprocess.std);
        }
        settings
    }
}

/// Every tensor of both towers.
pub(super) fn expected(config: &Config) -> Vec<Expected> {
    let embed = config.embed_dim;
    let mut all = match &config.image {
        ImageConfig::Resnet(resnet) => {
            let mut all = resnet::expected(resnet);
            all.extend(attnpool::expected(resnet, embed));
            all
        }
        ImageConfig::Vit(vit) => vit::expected(vit, embed),
    };
    all.extend(text::expected(config));
    all
}

/// Writes a model folder in `open_clip`'s layout: the model in `source` with the tensors of `trained`
/// (by plain name) put in their places, as f32. The bytes depend on nothing
/// but the tensors and the configuration.
///
/// # Errors
/// When `source` cannot be read, a trained tensor has no counterpart of its
/// shape there, or writing fails.
pub fn write_folder(
    dest: &Path,
    source: &Checkpoint,
    trained: &[(String, TensorData)],
) -> Result<()> {
    let mut weights = source.weights()?;
    let mut trained: BTreeMap<&str, &TensorData> = trained
        .iter()
        .map(|(name, data)| (name.as_str(), data))
        .collect();
    let mut tensors = Vec::new();
    let mut replaced = BTreeMap::new();
    for raw in weights.tensors() {
        let Some(data) = trained.remove(raw.name.as_str()) else {
            tensors.push(raw);
            continue;
        };
        ensure!(
            data.shape().as_slice() == raw.shape && data.dtype() == DType::F32,
            "write `{}`: the trained tensor has shape {:?} and type {:?}, the model's has {:?}",
            raw.name,
            data.shape().as_slice(),
            data.dtype(),
            raw.shape
        );
        let values = data
            .as_slice::<f32>()
            .map_err(|error| anyhow::anyhow!("{error}"))?;
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        replaced.insert(raw.name.clone(), bytes);
        tensors.push(weights::Tensor {
            dtype: "F32".to_owned(),
            width: 4,
            ..raw
        });
    }
    if let Some(name) = trained.keys().next() {
        bail!(
            "write `{name}`: `{}` has no such tensor",
            source.path().display()
        );
    }
    fs_err::create_dir_all(dest)?;
    weights::write(&dest.join(WEIGHTS_FILE), tensors, |tensor| {
        match replaced.remove(&tensor.name) {
            Some(bytes) => Ok(RawTensor {
                name: tensor.name.clone(),
                dtype: tensor.dtype.clone(),
                shape: tensor.shape.clone(),
                bytes,
            }),
            None => weights.raw(&tensor.name),
        }
    })?;
    let config = serde_json::to_string_pretty(&config::to_open_clip(source.config())?)?;
    fs_err::write(dest.join(CONFIG_FILE), config + "\n")?;
    Ok(())
}
