//! `open_clip_config.json`, read and written.
//!
//! Field names and defaults are `open_clip`'s (`CLIPVisionCfg`, `CLIPTextCfg`,
//! `PreprocessCfg`).

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::{
    Activation, Config, ImageConfig, Preprocess, ResnetConfig, TextConfig, TransformerConfig,
    VOCABULARY, VitConfig,
    fields::{Fields, shown},
};

/// The file's name in a model folder.
pub const CONFIG_FILE: &str = "open_clip_config.json";

/// Reads a configuration from the bytes of its file.
///
/// # Errors
/// When it is no configuration or asks for something that is not supported; the
/// message names the field.
pub(in crate::models::clip) fn open_clip(bytes: &[u8]) -> Result<Config> {
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
    let image = image(&model.table("vision_cfg")?, activation)?;
    let text = text(&model.table("text_cfg")?, activation)?;
    let preprocess = match file.map.get("preprocess_cfg") {
        None | Some(Value::Null) => Preprocess::default(),
        Some(_) => preprocess(&file.table("preprocess_cfg")?, image.size())?,
    };
    Ok(Config {
        embed_dim,
        image,
        text,
        preprocess,
    })
}

/// The configuration as `open_clip` would write it.
///
/// # Errors
/// When the two towers have different activations, which it cannot say.
pub fn to_open_clip(config: &Config) -> Result<Value> {
    let text = &config.text;
    let activation = text.transformer.activation;
    let ratio = |blocks: &TransformerConfig| blocks.hidden as f64 / blocks.width as f64;
    let vision = match &config.image {
        ImageConfig::Resnet(resnet) => json!({
            "image_size": resnet.size, "layers": resnet.layers, "width": resnet.width,
            "head_width": resnet.features() / resnet.heads, "patch_size": null,
        }),
        ImageConfig::Vit(vit) => {
            ensure!(
                vit.transformer.activation == activation,
                "its towers have different activations, which open_clip's configuration cannot say"
            );
            json!({
                "image_size": vit.size, "layers": vit.transformer.layers,
                "width": vit.transformer.width, "patch_size": vit.patch,
                "head_width": vit.transformer.width / vit.transformer.heads,
                "mlp_ratio": ratio(&vit.transformer),
            })
        }
    };
    Ok(json!({
        "model_cfg": {
            "embed_dim": config.embed_dim,
            "quick_gelu": activation == Activation::QuickGelu,
            "vision_cfg": vision,
            "text_cfg": {
                "context_length": text.context, "vocab_size": text.vocabulary,
                "width": text.transformer.width, "heads": text.transformer.heads,
                "layers": text.transformer.layers, "mlp_ratio": ratio(&text.transformer),
            },
        },
        "preprocess_cfg": {"mean": config.preprocess.mean, "std": config.preprocess.std},
    }))
}

/// Fields that change nothing in what we compute, whatever they hold.
const MODEL_NEUTRAL: &[&str] = &["init_logit_scale", "custom_text"];
/// Fields of training only.
const VISION_NEUTRAL: &[&str] = &[
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

fn image(fields: &Fields<'_>, activation: Activation) -> Result<ImageConfig> {
    fields.only(
        &[
            "layers",
            "width",
            "image_size",
            "head_width",
            "patch_size",
            "mlp_ratio",
        ],
        VISION_NEUTRAL,
    )?;
    match fields.map.get("layers") {
        Some(Value::Array(layers)) => resnet(fields, layers).map(ImageConfig::Resnet),
        _ => vit(fields, activation).map(ImageConfig::Vit),
    }
}

fn resnet(fields: &Fields<'_>, layers: &[Value]) -> Result<ResnetConfig> {
    let layers: Vec<usize> = (layers.iter())
        .filter_map(|n| {
            n.as_u64()
                .filter(|n| (1..=256).contains(n))
                .map(|n| n as usize)
        })
        .collect();
    let Ok(layers) = <[usize; 4]>::try_from(layers) else {
        bail!("`vision_cfg.layers` must be four numbers from 1 to 256, or one for a transformer");
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
    Ok(ResnetConfig {
        layers,
        width,
        size,
        heads,
    })
}

fn vit(fields: &Fields<'_>, activation: Activation) -> Result<VitConfig> {
    let width = fields.count("width", Some(768), 1..=16_384)?;
    let head = fields.count("head_width", Some(64), 1..=16_384)?;
    let heads = width / head;
    ensure!(
        heads > 0 && width.is_multiple_of(heads),
        "`vision_cfg.head_width` is {head}, which does not divide the width {width}"
    );
    let vit = VitConfig {
        size: fields.count("image_size", Some(224), 1..=2048)?,
        patch: fields.count("patch_size", Some(16), 1..=2048)?,
        transformer: TransformerConfig {
            width,
            heads,
            layers: fields.count("layers", Some(12), 1..=256)?,
            hidden: hidden(fields, width)?,
            activation,
        },
    };
    ensure!(
        vit.size.is_multiple_of(vit.patch),
        "`vision_cfg.patch_size` is {}, which does not divide the image size {}",
        vit.patch,
        vit.size
    );
    Ok(vit)
}

/// The width of a block's hidden layer, as `open_clip` rounds it.
fn hidden(fields: &Fields<'_>, width: usize) -> Result<usize> {
    let ratio = match fields.map.get("mlp_ratio") {
        None | Some(Value::Null) => 4.0,
        Some(value) => (value.as_f64().filter(|r| (0.01..=64.0).contains(r)))
            .with_context(|| format!("`{}` is {}", fields.full("mlp_ratio"), shown(Some(value))))?,
    };
    Ok(((width as f64 * ratio) as usize).max(1))
}

fn text(fields: &Fields<'_>, activation: Activation) -> Result<TextConfig> {
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
    Ok(TextConfig {
        context: fields.count("context_length", Some(77), 2..=4096)?,
        vocabulary,
        transformer: TransformerConfig {
            width,
            heads,
            layers: fields.count("layers", Some(12), 1..=256)?,
            hidden: hidden(fields, width)?,
            activation,
        },
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
        let config = open_clip(RN50.as_bytes()).unwrap();
        let ImageConfig::Resnet(image) = config.image else {
            panic!("{config:?}")
        };
        assert_eq!((image.heads, image.features(), image.side()), (32, 2048, 7));
        assert_eq!(config.text.transformer.hidden, 2048);
        assert_eq!(config.text.transformer.activation, Activation::QuickGelu);
        assert_eq!(config.preprocess, Preprocess::default());
    }

    #[test]
    fn what_is_not_supported_is_refused_by_field() {
        let cases = [
            (
                "\"layers\": [3, 4, 6, 3]",
                "\"layers\": 12, \"head_width\": 9",
                "`vision_cfg.head_width` is 9",
            ),
            (
                "\"layers\": [3, 4, 6, 3], \"width\": 64, \"patch_size\": null",
                "\"layers\": 12, \"patch_size\": 30",
                "`vision_cfg.patch_size` is 30",
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
            let error = open_clip(RN50.replacen(from, to, 1).as_bytes()).unwrap_err();
            assert!(format!("{error:#}").contains(reason), "{to}: {error:#}");
        }
    }

    #[test]
    fn garbage_is_refused() {
        for garbage in ["", "{", "[]", "null", "{}", "\u{0}", &"[".repeat(100_000)] {
            open_clip(garbage.as_bytes()).unwrap_err();
        }
        assert!(open_clip(&[0xff; 100]).is_err());
    }
}
