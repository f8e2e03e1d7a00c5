//! `open_clip_config.json`: the shape of the two towers and the preprocessing.
//!
//! Field names and defaults are `open_clip`'s (`CLIPVisionCfg`, `CLIPTextCfg`,
//! `PreprocessCfg`). A field that would change the model in a way we do not
//! compute is refused by name, so that no setting is silently ignored.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value};

use crate::models::weights::read_small;

/// The file's name in a model folder.
pub const CONFIG_FILE: &str = "open_clip_config.json";

/// The longest configuration read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// The tokens that CLIP's tokenizer knows.
const VOCABULARY: usize = 49_408;

/// How the rows of a transformer's hidden layer are bent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// x·Φ(x) with the exact error function.
    Gelu,
    /// x·σ(1.702·x), what `OpenAI`'s weights were trained with.
    QuickGelu,
}

/// Both towers.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Width of the shared space.
    pub embed_dim: usize,
    /// The transformers' activation; the convolutions use `ReLU` always.
    pub activation: Activation,
    /// The image tower.
    pub image: ImageConfig,
    /// The text tower.
    pub text: TextConfig,
    /// From pixels to numbers.
    pub preprocess: Preprocess,
}

/// A `ModifiedResNet` (Radford et al. 2021, section 2.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageConfig {
    /// Bottlenecks of the four stages.
    pub layers: [usize; 4],
    /// Channels after the stem; the last stage has 32 times as many.
    pub width: usize,
    /// Side of the square input, in pixels.
    pub size: usize,
    /// Heads of the attention pool.
    pub heads: usize,
}

impl ImageConfig {
    /// Channels of the last stage.
    pub fn features(&self) -> usize {
        self.width * 32
    }

    /// Side of the last stage's map.
    pub fn side(&self) -> usize {
        self.size / 32
    }
}

/// A causal transformer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextConfig {
    /// Positions.
    pub context: usize,
    /// Rows of the token embedding.
    pub vocabulary: usize,
    /// Width of the residual stream.
    pub width: usize,
    /// Attention heads.
    pub heads: usize,
    /// Blocks.
    pub layers: usize,
    /// Width of a block's hidden layer.
    pub hidden: usize,
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

impl Config {
    /// Reads the configuration of the model in `folder`.
    ///
    /// # Errors
    /// When the file is missing, is no configuration, or asks for something
    /// that is not supported; the message names the file and the field.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(CONFIG_FILE);
        let bytes = read_small(&path, MAX_FILE)?;
        Self::parse(&bytes).with_context(|| format!("read `{}`", path.display()))
    }

    /// Reads a configuration from the bytes of its file.
    ///
    /// # Errors
    /// As [`Config::read`], without the file's name.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let file: Value = serde_json::from_slice(bytes).context("it is not JSON")?;
        let file = Fields::of(&file, "")?;
        file.only(&["model_cfg", "preprocess_cfg"], &[])?;
        let model = file.table("model_cfg")?;
        model.only(
            &["embed_dim", "quick_gelu", "vision_cfg", "text_cfg"],
            MODEL_NEUTRAL,
        )?;
        let embed_dim = model.count("embed_dim", None, 1..=65_536)?;
        let activation = if model.flag("quick_gelu")? {
            Activation::QuickGelu
        } else {
            Activation::Gelu
        };
        let image = image(&model.table("vision_cfg")?)?;
        let text = text(&model.table("text_cfg")?)?;
        let preprocess = match file.map.get("preprocess_cfg") {
            None | Some(Value::Null) => Preprocess::default(),
            Some(_) => preprocess(&file.table("preprocess_cfg")?, image.size)?,
        };
        Ok(Self {
            embed_dim,
            activation,
            image,
            text,
            preprocess,
        })
    }
}

/// Fields that change nothing in what we compute, whatever they hold.
const MODEL_NEUTRAL: &[&str] = &["init_logit_scale", "custom_text"];
/// Fields of training only.
const VISION_NEUTRAL: &[&str] = &[
    "mlp_ratio",
    "patch_dropout",
    "timm_drop",
    "timm_drop_path",
    "timm_model_pretrained",
    "timm_pool",
    "timm_proj",
    "timm_proj_bias",
    "attn_pooler_queries",
    "attn_pooler_heads",
    "output_tokens",
];
/// Fields for text towers or tokenizers that are refused by another field.
const TEXT_NEUTRAL: &[&str] = &[
    "pad_id",
    "eos_id",
    "hf_model_pretrained",
    "hf_proj_type",
    "hf_pooler_type",
    "output_tokens",
];

fn image(fields: &Fields<'_>) -> Result<ImageConfig> {
    fields.only(
        &["layers", "width", "image_size", "head_width", "patch_size"],
        VISION_NEUTRAL,
    )?;
    let Some(Value::Array(layers)) = fields.map.get("layers") else {
        bail!(
            "`vision_cfg.layers` is {}, but only the list of four numbers of a ModifiedResNet is \
             supported",
            shown(fields.map.get("layers"))
        );
    };
    let layers: Vec<usize> = (layers.iter())
        .filter_map(|n| {
            n.as_u64()
                .filter(|n| (1..=256).contains(n))
                .map(|n| n as usize)
        })
        .collect();
    let Ok(layers) = <[usize; 4]>::try_from(layers) else {
        bail!("`vision_cfg.layers` must be four numbers from 1 to 256");
    };
    let width = fields.count("width", Some(768), 2..=4096)?;
    let size = fields.count("image_size", Some(224), 32..=2048)?;
    let head = fields.count("head_width", Some(64), 1..=131_072)?;
    ensure!(
        width % 2 == 0,
        "`vision_cfg.width` is {width}, which is odd"
    );
    ensure!(
        size % 32 == 0,
        "`vision_cfg.image_size` is {size}, which is no multiple of 32"
    );
    // open_clip rounds the number of heads down, then needs it to divide.
    let heads = width * 32 / head;
    ensure!(
        heads > 0 && (width * 32).is_multiple_of(heads),
        "`vision_cfg.head_width` is {head}, which does not divide the {} features",
        width * 32
    );
    Ok(ImageConfig {
        layers,
        width,
        size,
        heads,
    })
}

fn text(fields: &Fields<'_>) -> Result<TextConfig> {
    fields.only(
        &[
            "context_length",
            "vocab_size",
            "width",
            "heads",
            "layers",
            "mlp_ratio",
        ],
        TEXT_NEUTRAL,
    )?;
    let width = fields.count("width", Some(512), 1..=16_384)?;
    let heads = fields.count("heads", Some(8), 1..=1024)?;
    ensure!(
        width.is_multiple_of(heads),
        "`text_cfg.heads` is {heads}, which does not divide the width {width}"
    );
    let vocabulary = fields.count("vocab_size", Some(VOCABULARY), 1..=1 << 24)?;
    ensure!(
        vocabulary == VOCABULARY,
        "`text_cfg.vocab_size` is {vocabulary}, but CLIP's tokenizer has {VOCABULARY} tokens"
    );
    let ratio = match fields.map.get("mlp_ratio") {
        None | Some(Value::Null) => 4.0,
        Some(value) => (value.as_f64().filter(|r| (0.01..=64.0).contains(r)))
            .with_context(|| format!("`text_cfg.mlp_ratio` is {}", shown(Some(value))))?,
    };
    Ok(TextConfig {
        context: fields.count("context_length", Some(77), 2..=4096)?,
        vocabulary,
        width,
        heads,
        layers: fields.count("layers", Some(12), 1..=256)?,
        hidden: ((width as f64 * ratio) as usize).max(1),
    })
}

fn preprocess(fields: &Fields<'_>, size: usize) -> Result<Preprocess> {
    fields.only(
        &[
            "mean",
            "std",
            "interpolation",
            "resize_mode",
            "size",
            "mode",
        ],
        &["fill_color"],
    )?;
    fields.word("interpolation", "bicubic")?;
    fields.word("resize_mode", "shortest")?;
    fields.word("mode", "RGB")?;
    let same = |value: &Value| value.as_u64() == Some(size as u64);
    match fields.map.get("size") {
        None | Some(Value::Null) => {}
        Some(Value::Array(sides)) if sides.len() == 2 && sides.iter().all(same) => {}
        Some(value) if same(value) => {}
        value => bail!(
            "`preprocess_cfg.size` is {}, but the image tower takes {size}",
            shown(value)
        ),
    }
    let default = Preprocess::default();
    let mean = fields.triple("mean", default.mean)?;
    let std = fields.triple("std", default.std)?;
    ensure!(
        std.iter().all(|&s| s > 0.0),
        "`preprocess_cfg.std` must be positive"
    );
    Ok(Preprocess { mean, std })
}

/// A JSON object with the path that led to it.
struct Fields<'a> {
    map: &'a Map<String, Value>,
    path: String,
}

impl<'a> Fields<'a> {
    fn of(value: &'a Value, path: &str) -> Result<Self> {
        let Value::Object(map) = value else {
            let what = if path.is_empty() { "it" } else { path };
            bail!("`{what}` is {}, not a table", shown(Some(value)));
        };
        let path = path.to_owned();
        Ok(Self { map, path })
    }

    fn table(&self, name: &str) -> Result<Self> {
        let value =
            (self.map.get(name)).with_context(|| format!("`{}` is missing", self.full(name)))?;
        Self::of(value, &self.full(name))
    }

    fn full(&self, name: &str) -> String {
        if self.path.is_empty() {
            return name.to_owned();
        }
        // `model_cfg` is left out, as open_clip's own files of architectures do.
        let path = self
            .path
            .trim_start_matches("model_cfg")
            .trim_start_matches('.');
        if path.is_empty() {
            name.to_owned()
        } else {
            format!("{path}.{name}")
        }
    }

    /// Refuses every field that is neither read nor neutral; a switch that is
    /// off, `null` or `open_clip`'s default is no different from its absence.
    fn only(&self, read: &[&str], neutral: &[&str]) -> Result<()> {
        for (name, value) in self.map {
            let off = match value {
                Value::Null | Value::Bool(false) => true,
                Value::String(word) => matches!(
                    (name.as_str(), word.as_str()),
                    ("pool_type", "argmax" | "tok")
                        | ("proj_type", "linear")
                        | ("pos_embed_type", "learnable")
                        | ("block_type", "default")
                ),
                _ => false,
            };
            let known = read.contains(&name.as_str()) || neutral.contains(&name.as_str());
            ensure!(
                known || off,
                "`{}` is {}, which is not supported",
                self.full(name),
                shown(Some(value))
            );
        }
        Ok(())
    }

    fn count(
        &self,
        name: &str,
        default: Option<usize>,
        range: std::ops::RangeInclusive<usize>,
    ) -> Result<usize> {
        let value = match (self.map.get(name), default) {
            (None | Some(Value::Null), Some(default)) => return Ok(default),
            (None | Some(Value::Null), None) => bail!("`{}` is missing", self.full(name)),
            (Some(value), _) => value,
        };
        (value.as_u64().map(|n| n as usize))
            .filter(|n| range.contains(n))
            .with_context(|| {
                format!(
                    "`{}` is {}, not a number from {} to {}",
                    self.full(name),
                    shown(Some(value)),
                    range.start(),
                    range.end()
                )
            })
    }

    fn flag(&self, name: &str) -> Result<bool> {
        match self.map.get(name) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            value => bail!(
                "`{}` is {}, not true or false",
                self.full(name),
                shown(value)
            ),
        }
    }

    fn word(&self, name: &str, only: &str) -> Result<()> {
        match self.map.get(name) {
            None | Some(Value::Null) => Ok(()),
            Some(Value::String(word)) if word == only => Ok(()),
            value => bail!(
                "`{}` is {}, but only \"{only}\" is supported",
                self.full(name),
                shown(value)
            ),
        }
    }

    fn triple(&self, name: &str, default: [f32; 3]) -> Result<[f32; 3]> {
        let value = match self.map.get(name) {
            None | Some(Value::Null) => return Ok(default),
            Some(value) => value,
        };
        let numbers: Vec<f32> = (value.as_array().into_iter().flatten())
            .filter_map(|n| n.as_f64().map(|n| n as f32).filter(|n| n.is_finite()))
            .collect();
        <[f32; 3]>::try_from(numbers).ok().with_context(|| {
            format!(
                "`{}` is {}, not three numbers",
                self.full(name),
                shown(Some(value))
            )
        })
    }
}

/// A value, cut to what fits a message.
fn shown(value: Option<&Value>) -> String {
    let text = value.map_or_else(|| "missing".to_owned(), Value::to_string);
    if text.chars().count() <= 60 {
        return text;
    }
    text.chars().take(57).chain("...".chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RN50: &str = r#"{
        "model_cfg": {
            "embed_dim": 1024, "quick_gelu": true,
            "vision_cfg": {"image_size": 224, "layers": [3, 4, 6, 3], "width": 64, "patch_size": null},
            "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12}
        },
        "preprocess_cfg": {"mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.26862954, 0.26130258, 0.27577711]}
    }"#;

    #[test]
    fn the_published_rn50_is_read() {
        let config = Config::parse(RN50.as_bytes()).unwrap();
        assert_eq!(config.activation, Activation::QuickGelu);
        assert_eq!(
            (
                config.image.heads,
                config.image.features(),
                config.image.side()
            ),
            (32, 2048, 7)
        );
        assert_eq!(config.text.hidden, 2048);
        assert_eq!(config.preprocess, Preprocess::default());
    }

    #[test]
    fn what_is_not_supported_is_refused_by_field() {
        let cases = [
            (
                "\"layers\": [3, 4, 6, 3]",
                "\"layers\": 12",
                "`vision_cfg.layers` is 12",
            ),
            (
                "\"layers\": [3, 4, 6, 3]",
                "\"layers\": [3, 4, -6, 3]",
                "four numbers from 1 to 256",
            ),
            (
                "\"layers\": [3, 4, 6, 3]",
                "\"layers\": [3, 4, 6, 1e9]",
                "four numbers from 1 to 256",
            ),
            (
                "\"width\": 64",
                "\"width\": -64",
                "`vision_cfg.width` is -64",
            ),
            ("\"width\": 64", "\"width\": 999999999999", "from 2 to 4096"),
            ("\"width\": 64", "\"width\": 63", "odd"),
            (
                "\"image_size\": 224",
                "\"image_size\": 225",
                "no multiple of 32",
            ),
            (
                "\"patch_size\": null",
                "\"timm_model_name\": \"x\"",
                "`vision_cfg.timm_model_name` is \"x\"",
            ),
            (
                "\"heads\": 8",
                "\"heads\": 7",
                "does not divide the width 512",
            ),
            ("\"heads\": 8", "\"heads\": 0", "`text_cfg.heads` is 0"),
            (
                "\"vocab_size\": 49408",
                "\"vocab_size\": 32000",
                "`text_cfg.vocab_size` is 32000",
            ),
            (
                "\"layers\": 12",
                "\"layers\": 12, \"hf_model_name\": \"roberta\"",
                "`text_cfg.hf_model_name`",
            ),
            (
                "\"layers\": 12",
                "\"layers\": 12, \"no_causal_mask\": true",
                "`text_cfg.no_causal_mask`",
            ),
            (
                "\"quick_gelu\": true",
                "\"quick_gelu\": 1",
                "`quick_gelu` is 1",
            ),
            (
                "\"embed_dim\": 1024",
                "\"embed_dim\": \"x\"",
                "`embed_dim` is \"x\"",
            ),
            ("\"embed_dim\": 1024,", "", "`embed_dim` is missing"),
            (
                "\"mean\": [0.48145466,",
                "\"mean\": [",
                "`preprocess_cfg.mean`",
            ),
            ("0.26862954", "0", "must be positive"),
            (
                "\"preprocess_cfg\": {",
                "\"preprocess_cfg\": {\"interpolation\": \"bilinear\",",
                "only \"bicubic\"",
            ),
            (
                "\"preprocess_cfg\": {",
                "\"preprocess_cfg\": {\"size\": 336,",
                "takes 224",
            ),
            (
                "\"preprocess_cfg\": {",
                "\"preprocess_cfg\": 7, \"x\": {",
                "`x` is",
            ),
        ];
        for (from, to, reason) in cases {
            assert!(RN50.contains(from), "{from}");
            let error = Config::parse(RN50.replacen(from, to, 1).as_bytes()).unwrap_err();
            assert!(format!("{error:#}").contains(reason), "{to}: {error:#}");
        }
    }

    #[test]
    fn garbage_is_refused() {
        for garbage in ["", "{", "[]", "null", "{}", "\u{0}", &"[".repeat(100_000)] {
            Config::parse(garbage.as_bytes()).unwrap_err();
        }
        assert!(Config::parse(&[0xff; 100]).is_err());
    }
}
