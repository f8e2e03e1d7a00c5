//! `config.json` and `preprocessor_config.json` of a `CLIPModel` folder.
//!
//! Field names and defaults are transformers' (`CLIPTextConfig`,
//! `CLIPVisionConfig`, `CLIPImageProcessor`). Such files carry much that has
//! nothing to do with the model (settings of generation, of dropout), so only
//! what would change an embedding is looked at.

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value};

use super::{
    Activation, Config, ImageConfig, Preprocess, TextConfig, TransformerConfig, VOCABULARY,
    VitConfig,
    fields::{Fields, shown},
};

/// The file's name in a model folder.
pub(in crate::models::clip) const CONFIG_FILE: &str = "config.json";
/// The file that tells how images are prepared, if there is one.
pub(in crate::models::clip) const PREPROCESSOR: &str = "preprocessor_config.json";

/// Reads the two files of a folder.
///
/// # Errors
/// When the first is not that of a `CLIPModel`, or one asks for something that
/// is not supported; the message names the file and the field.
pub(in crate::models::clip) fn hugging_face(
    config: &[u8],
    preprocessor: Option<&[u8]>,
) -> Result<Config> {
    let file: Value = serde_json::from_slice(config).context("it is not JSON")?;
    let fields = Fields::of(&file, "")?;
    fields.word("model_type", "clip")?;
    let embed_dim = fields.count("projection_dim", Some(512), 1..=65_536)?;
    let text = tower(&file, "text_config", text_tower)?;
    let image = tower(&file, "vision_config", image_tower)?;
    let preprocess = match preprocessor {
        None => Preprocess::default(),
        Some(bytes) => preparation(bytes, image.size)
            .with_context(|| format!("read `{PREPROCESSOR}` beside it"))?,
    };
    Ok(Config {
        embed_dim,
        image: ImageConfig::Vit(image),
        text,
        preprocess,
    })
}

/// A tower's table. Older files say it twice, and transformers takes the second
/// one, `…_dict`, with defaults for what that lacks; where the two then mean
/// different models, nobody can know which one is meant.
fn tower<T: PartialEq>(
    file: &Value,
    name: &str,
    read: impl Fn(&Fields<'_>) -> Result<T>,
) -> Result<T> {
    let given = |name: &str| -> Result<Option<T>> {
        match file.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(table) => read(&Fields::of(table, name)?).map(Some),
        }
    };
    let twice = format!("{name}_dict");
    match (given(name)?, given(&twice)?) {
        (Some(first), Some(second)) if first != second => bail!(
            "`{name}` and `{twice}` describe different models\nhint: remove the one that is wrong"
        ),
        (Some(tower), _) | (None, Some(tower)) => Ok(tower),
        (None, None) => read(&Fields::of(&Value::Object(Map::new()), name)?),
    }
}

fn text_tower(fields: &Fields<'_>) -> Result<TextConfig> {
    let vocabulary = fields.count("vocab_size", Some(VOCABULARY), 1..=1 << 24)?;
    ensure!(
        vocabulary == VOCABULARY,
        "`text_config.vocab_size` is {vocabulary}, but CLIP's tokenizer has {VOCABULARY} tokens"
    );
    // 2 in older files, where the largest token of a text was meant: the same
    // place, since no token is larger than the end's.
    let end = fields.count("eos_token_id", Some(VOCABULARY - 1), 0..=1 << 24)?;
    ensure!(
        end == 2 || end == VOCABULARY - 1,
        "`text_config.eos_token_id` is {end}, but CLIP's texts end with {}",
        VOCABULARY - 1
    );
    Ok(TextConfig {
        context: fields.count("max_position_embeddings", Some(77), 2..=4096)?,
        vocabulary,
        transformer: blocks(fields, [512, 8, 12, 2048])?,
    })
}

fn image_tower(fields: &Fields<'_>) -> Result<VitConfig> {
    fields.count("num_channels", Some(3), 3..=3)?;
    let vit = VitConfig {
        size: fields.count("image_size", Some(224), 1..=2048)?,
        patch: fields.count("patch_size", Some(32), 1..=2048)?,
        transformer: blocks(fields, [768, 12, 12, 3072])?,
    };
    ensure!(
        vit.size.is_multiple_of(vit.patch),
        "`vision_config.patch_size` is {}, which does not divide the image size {}",
        vit.patch,
        vit.size
    );
    Ok(vit)
}

/// Width, heads, layers and hidden width, with their defaults.
fn blocks(fields: &Fields<'_>, defaults: [usize; 4]) -> Result<TransformerConfig> {
    let [width, heads, layers, hidden] = defaults;
    let blocks = TransformerConfig {
        width: fields.count("hidden_size", Some(width), 1..=16_384)?,
        heads: fields.count("num_attention_heads", Some(heads), 1..=1024)?,
        layers: fields.count("num_hidden_layers", Some(layers), 1..=256)?,
        hidden: fields.count("intermediate_size", Some(hidden), 1..=1 << 20)?,
        activation: match fields.map.get("hidden_act") {
            None | Some(Value::Null) => Activation::QuickGelu,
            Some(Value::String(word)) if word == "quick_gelu" => Activation::QuickGelu,
            Some(Value::String(word)) if word == "gelu" => Activation::Gelu,
            other => bail!(
                "`{}` is {}, but only \"quick_gelu\" and \"gelu\" are supported",
                fields.full("hidden_act"),
                shown(other)
            ),
        },
    };
    ensure!(
        blocks.width.is_multiple_of(blocks.heads),
        "`{}` is {}, which does not divide the width {}",
        fields.full("num_attention_heads"),
        blocks.heads,
        blocks.width
    );
    let epsilon = fields.map.get("layer_norm_eps");
    ensure!(
        epsilon.is_none_or(|e| e.is_null() || e.as_f64() == Some(1e-5)),
        "`{}` is {}, but only 1e-5 is supported",
        fields.full("layer_norm_eps"),
        shown(epsilon)
    );
    Ok(blocks)
}

fn preparation(bytes: &[u8], size: usize) -> Result<Preprocess> {
    let file: Value = serde_json::from_slice(bytes).context("it is not JSON")?;
    let fields = Fields::of(&file, "")?;
    for (name, wanted) in [
        ("do_resize", true),
        ("do_center_crop", true),
        ("do_normalize", true),
        ("do_rescale", true),
        ("do_pad", false),
    ] {
        match fields.map.get(name) {
            None | Some(Value::Null) => {}
            Some(Value::Bool(found)) if *found == wanted => {}
            other => bail!(
                "`{name}` is {}, but only {wanted} is supported",
                shown(other)
            ),
        }
    }
    // Pillow's number of the bicubic filter.
    fields.count("resample", Some(3), 3..=3)?;
    let same = |value: &Value| value.as_u64() == Some(size as u64);
    for (name, sides) in [
        ("size", &["shortest_edge", "height", "width"][..]),
        ("crop_size", &["height", "width"]),
    ] {
        match fields.map.get(name) {
            None | Some(Value::Null) => {}
            Some(Value::Object(map))
                if map
                    .iter()
                    .all(|(k, v)| v.is_null() || sides.contains(&k.as_str()) && same(v)) => {}
            Some(value) if same(value) => {}
            other => bail!(
                "`{name}` is {}, but the image tower takes {size}",
                shown(other)
            ),
        }
    }
    let scale = fields.map.get("rescale_factor");
    ensure!(
        scale.is_none_or(
            |f| f.is_null() || f.as_f64().is_some_and(|f| (f * 255.0 - 1.0).abs() < 1e-6)
        ),
        "`rescale_factor` is {}, but only 1/255 is supported",
        shown(scale)
    );
    let default = Preprocess::default();
    let std = fields.triple("image_std", default.std)?;
    ensure!(std.iter().all(|s| *s > 0.0), "`image_std` must be positive");
    Ok(Preprocess {
        mean: fields.triple("image_mean", default.mean)?,
        std,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const B32: &str = r#"{"model_type": "clip", "projection_dim": 512, "architectures": ["CLIPModel"],
        "text_config": {"eos_token_id": 2, "hidden_act": "quick_gelu", "top_k": 50},
        "text_config_dict": {"num_hidden_layers": 12},
        "vision_config": {"patch_size": 32, "hidden_act": "gelu", "layer_norm_eps": 1e-05}}"#;
    const PREPARATION: &str = r#"{"crop_size": {"height": 224, "width": 224}, "do_center_crop": true,
        "do_resize": true, "resample": 3, "size": {"shortest_edge": 224},
        "image_mean": [0.5, 0.4, 0.3], "rescale_factor": 0.00392156862745098}"#;

    #[test]
    fn defaults_are_those_of_transformers() {
        let config = hugging_face(B32.as_bytes(), Some(PREPARATION.as_bytes())).unwrap();
        assert_eq!(config.text.transformer.layers, 12);
        assert_eq!(config.text.transformer.activation, Activation::QuickGelu);
        let ImageConfig::Vit(vit) = &config.image else {
            panic!("a ViT")
        };
        assert_eq!(vit.transformer.activation, Activation::Gelu);
        assert_eq!((vit.tokens(), vit.transformer.hidden), (50, 3072));
        assert!((config.preprocess.mean[1] - 0.4).abs() < 1e-7);
    }

    #[test]
    fn what_would_change_an_embedding_is_refused_by_field() {
        for (from, to, reason) in [
            ("\"clip\"", "\"siglip\"", "`model_type` is \"siglip\""),
            ("\"gelu\"", "\"gelu_new\"", "`vision_config.hidden_act`"),
            ("1e-05", "1e-06", "`vision_config.layer_norm_eps`"),
            (
                "\"patch_size\": 32",
                "\"patch_size\": 30",
                "does not divide",
            ),
            (
                "\"eos_token_id\": 2",
                "\"eos_token_id\": 7",
                "eos_token_id` is 7",
            ),
            ("\"top_k\": 50", "\"vocab_size\": 50", "vocab_size` is 50"),
            (
                "{\"num_hidden_layers\": 12}",
                "[]",
                "text_config_dict` is []",
            ),
            (
                "{\"num_hidden_layers\": 12}",
                "{\"num_hidden_layers\": 11}",
                "different models",
            ),
        ] {
            assert!(B32.contains(from), "{from}");
            let error = hugging_face(B32.replacen(from, to, 1).as_bytes(), None).unwrap_err();
            assert!(format!("{error:#}").contains(reason), "{to}: {error:#}");
        }
        for (from, to, reason) in [
            ("\"resample\": 3", "\"resample\": 2", "`resample` is 2"),
            ("\"do_resize\": true", "\"do_resize\": false", "`do_resize`"),
            (
                "\"shortest_edge\": 224",
                "\"shortest_edge\": 336",
                "takes 224",
            ),
            ("0.0039", "0.0139", "`rescale_factor`"),
        ] {
            let wrong = PREPARATION.replacen(from, to, 1);
            let error = hugging_face(B32.as_bytes(), Some(wrong.as_bytes())).unwrap_err();
            assert!(format!("{error:#}").contains(reason), "{to}: {error:#}");
            assert!(format!("{error:#}").contains(PREPROCESSOR), "{error:#}");
        }
    }
}
