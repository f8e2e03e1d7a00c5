//! A CLIP model as a folder in `open_clip`'s layout: read, checked, written.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use burn::tensor::{DType, TensorData};
use serde_json::{Value, json};

use super::{
    attnpool,
    config::{CONFIG_FILE, Config},
    resnet, text,
};
use crate::models::weights::{self, Expected, RawTensor, Weights};

/// Where `open_clip` puts weights, best first.
const WEIGHT_FILES: [&str; 3] = [
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "model.safetensors",
];

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
    /// The part that holds the tensor `name`, as [`open`] names it.
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
            activation,
            image,
            text,
            preprocess,
        } = config;
        match self {
            Self::Image => json!({
                "embed_dim": embed_dim, "layers": image.layers, "width": image.width,
                "size": image.size, "heads": image.heads,
                "mean": preprocess.mean, "std": preprocess.std,
            }),
            Self::Text => json!({
                "embed_dim": embed_dim, "activation": format!("{activation:?}"),
                "context": text.context, "width": text.width, "heads": text.heads,
                "layers": text.layers, "hidden": text.hidden,
            }),
            Self::Scale => Value::Null,
        }
    }
}

/// The files that loading the model in `folder` reads.
///
/// # Errors
/// When there is no file of weights that we read.
pub fn files(folder: &Path) -> Result<[PathBuf; 2]> {
    let found = WEIGHT_FILES
        .iter()
        .map(|name| folder.join(name))
        .find(|path| path.exists());
    match found {
        Some(weights) => Ok([folder.join(CONFIG_FILE), weights]),
        None => bail!(
            "find `{}` in `{}`\nhint: weights saved by PyTorch (.bin, .pt) have to be converted \
             to safetensors",
            WEIGHT_FILES[0],
            folder.display()
        ),
    }
}

/// Opens the weights in `folder` under their plain names: without the prefixes
/// of wrappers (`module.`) and of `CustomTextCLIP` (`text.`), and without
/// counters and masks that inference does not use.
///
/// # Errors
/// When there are none or they break the format.
pub fn open(folder: &Path) -> Result<Weights> {
    let [_, path] = files(folder)?;
    let mut weights = Weights::open(&path)?;
    weights.rename(plain)?;
    weights.ignore(|name| name.ends_with(".num_batches_tracked") || name == "attn_mask");
    Ok(weights)
}

/// Opens the weights in `folder` and compares every tensor with `config`.
pub(super) fn open_checked(folder: &Path, config: &Config) -> Result<Weights> {
    let weights = open(folder)?;
    let mut all = expected(config);
    // open_clip can also store the scale as a list of one.
    let scale = if weights.shape("logit_scale") == Some(&[1]) {
        vec![1]
    } else {
        vec![]
    };
    all.push(("logit_scale".to_owned(), scale));
    weights.check(&all)?;
    Ok(weights)
}

/// Every tensor of both towers.
pub(super) fn expected(config: &Config) -> Vec<Expected> {
    let mut all = resnet::expected(&config.image);
    all.extend(attnpool::expected(config));
    all.extend(text::expected(config));
    all
}

/// A tensor's name without prefixes.
fn plain(name: &str) -> String {
    let name = name.strip_prefix("module.").unwrap_or(name);
    name.strip_prefix("text.").unwrap_or(name).to_owned()
}

/// Writes a model folder: the model in `source` with the tensors of `trained`
/// (by plain name) put in their places, as f32. The bytes depend on nothing
/// but the tensors and the configuration.
///
/// # Errors
/// When `source` cannot be read, a trained tensor has no counterpart of its
/// shape there, or writing fails.
pub fn write_folder(dest: &Path, source: &Path, trained: &[(String, TensorData)]) -> Result<()> {
    let [config, path] = files(source)?;
    let mut weights = Weights::open(&path)?;
    let mut trained: BTreeMap<&str, &TensorData> = trained
        .iter()
        .map(|(name, data)| (name.as_str(), data))
        .collect();
    let mut tensors = Vec::new();
    let mut replaced = BTreeMap::new();
    for raw in weights.tensors() {
        let Some(data) = trained.remove(plain(&raw.name).as_str()) else {
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
        bail!("write `{name}`: `{}` has no such tensor", path.display());
    }
    fs_err::create_dir_all(dest)?;
    weights::write(
        &dest.join(WEIGHT_FILES[0]),
        tensors,
        |tensor| match replaced.remove(&tensor.name) {
            Some(bytes) => Ok(RawTensor {
                name: tensor.name.clone(),
                dtype: tensor.dtype.clone(),
                shape: tensor.shape.clone(),
                bytes,
            }),
            None => weights.raw(&tensor.name),
        },
    )?;
    let bytes = fs_err::read(&config).context("copy the configuration")?;
    fs_err::write(dest.join(CONFIG_FILE), bytes)?;
    Ok(())
}
