//! Which layers are trained, by the names that `open_clip` gives them.

use std::{borrow::Cow, fmt};

use anyhow::{Result, bail, ensure};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::config::{Config, ImageConfig};

/// Blocks that are trained where nothing else is said.
const BLOCKS: usize = 2;

/// Layers of the image tower that are trained; all others stay as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ImageLayers {
    /// `auto`: `layer4+attnpool` of a `ModifiedResNet`, `resblocks[-2:]` of a ViT.
    #[default]
    Auto,
    /// `layer4+attnpool` of a `ModifiedResNet`.
    Layer4,
    /// `layer4.last+attnpool`: the last bottleneck of `layer4`, and `attnpool`.
    Layer4Last,
    /// `resblocks[-n:]`: the last n blocks of a ViT, at least one; `ln_post` and
    /// `proj` above them are not trained.
    Blocks(usize),
    /// `none`.
    None,
}

/// Layers of the text tower that are trained; `ln_final`, `text_projection` and
/// `logit_scale` never are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum TextLayers {
    /// `resblocks[-n:]`: the last n blocks, at least one.
    Blocks(usize),
    /// `none`.
    None,
}

impl Default for TextLayers {
    fn default() -> Self {
        Self::Blocks(BLOCKS)
    }
}

/// Layers of both towers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layers {
    /// Of the image tower.
    pub image: ImageLayers,
    /// Of the text tower.
    pub text: TextLayers,
}

impl Layers {
    /// The same for a model of this shape, without `auto`.
    ///
    /// # Errors
    /// When the model lacks the layers, or none at all would be trained.
    pub fn resolve(self, config: &Config) -> Result<Self> {
        let image = self.image.resolve(&config.image)?;
        let text = self.text.blocks();
        enough("text", text, config.text.transformer.layers)?;
        ensure!(
            image != ImageLayers::None || text > 0,
            "train nothing: both `image_layers` and `text_layers` are `none`\n\
             hint: name the layers of one tower, such as text_layers = \"resblocks[-2:]\""
        );
        Ok(Self { image, ..self })
    }
}

impl ImageLayers {
    /// The pattern of all choices, for schemas.
    const PATTERN: &str =
        r"^(auto|layer4\+attnpool|layer4\.last\+attnpool|resblocks\[-[1-9][0-9]*:\]|none)$";

    /// The same for a tower of this shape, never `auto`.
    fn resolve(self, config: &ImageConfig) -> Result<Self> {
        match (self, config) {
            (Self::Auto, ImageConfig::Resnet(_)) => Ok(Self::Layer4),
            (Self::Auto, ImageConfig::Vit(vit)) => {
                Ok(Self::Blocks(BLOCKS.min(vit.transformer.layers)))
            }
            (Self::Layer4 | Self::Layer4Last, ImageConfig::Vit(_)) => bail!(
                "train `{self}` of the image tower: it is a ViT, which has no such layers\n\
                 hint: image_layers = \"resblocks[-2:]\" trains its last two blocks; \"auto\" takes \
                 what the tower has"
            ),
            (Self::Blocks(_), ImageConfig::Resnet(_)) => bail!(
                "train `{self}` of the image tower: it is a ModifiedResNet, which has no such layers\n\
                 hint: image_layers = \"layer4+attnpool\" trains its last two; \"auto\" takes what the \
                 tower has"
            ),
            (Self::Blocks(blocks), ImageConfig::Vit(vit)) => {
                enough("image", blocks, vit.transformer.layers)?;
                Ok(self)
            }
            _ => Ok(self),
        }
    }
}

impl TextLayers {
    /// The pattern of all choices, for schemas.
    const PATTERN: &str = r"^(resblocks\[-[1-9][0-9]*:\]|none)$";

    /// How many of the last blocks are trained.
    pub fn blocks(self) -> usize {
        match self {
            Self::Blocks(blocks) => blocks,
            Self::None => 0,
        }
    }
}

/// Checks that a tower of `layers` blocks has `blocks` last ones.
fn enough(tower: &str, blocks: usize, layers: usize) -> Result<()> {
    ensure!(
        blocks <= layers,
        "train the last {blocks} blocks of the {tower} tower: it has {layers}\n\
         hint: {tower}_layers = \"resblocks[-{layers}:]\" trains all of them"
    );
    Ok(())
}

/// The n of `resblocks[-n:]`.
fn last_blocks(word: &str) -> Option<usize> {
    let digits = word.strip_prefix("resblocks[-")?.strip_suffix(":]")?;
    let plain = digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
    digits.parse().ok().filter(|_| plain)
}

impl TryFrom<String> for ImageLayers {
    type Error = String;

    fn try_from(word: String) -> Result<Self, String> {
        match (word.as_str(), last_blocks(&word)) {
            ("auto", _) => Ok(Self::Auto),
            ("layer4+attnpool", _) => Ok(Self::Layer4),
            ("layer4.last+attnpool", _) => Ok(Self::Layer4Last),
            ("none", _) => Ok(Self::None),
            (_, Some(blocks)) => Ok(Self::Blocks(blocks)),
            _ => Err(format!(
                "`{word}` names no layers of an image tower; possible are `auto`, \
                 `layer4+attnpool`, `layer4.last+attnpool`, `resblocks[-2:]` with any number, `none`"
            )),
        }
    }
}

impl TryFrom<String> for TextLayers {
    type Error = String;

    fn try_from(word: String) -> Result<Self, String> {
        match (word.as_str(), last_blocks(&word)) {
            ("none", _) => Ok(Self::None),
            (_, Some(blocks)) => Ok(Self::Blocks(blocks)),
            _ => Err(format!(
                "`{word}` names no layers of a text tower; possible are `resblocks[-2:]` with any \
                 number, `none`"
            )),
        }
    }
}

impl fmt::Display for ImageLayers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Layer4 => f.write_str("layer4+attnpool"),
            Self::Layer4Last => f.write_str("layer4.last+attnpool"),
            Self::Blocks(blocks) => write!(f, "resblocks[-{blocks}:]"),
            Self::None => f.write_str("none"),
        }
    }
}

impl fmt::Display for TextLayers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blocks(blocks) => write!(f, "resblocks[-{blocks}:]"),
            Self::None => f.write_str("none"),
        }
    }
}

impl From<ImageLayers> for String {
    fn from(layers: ImageLayers) -> Self {
        layers.to_string()
    }
}

impl From<TextLayers> for String {
    fn from(layers: TextLayers) -> Self {
        layers.to_string()
    }
}

impl JsonSchema for ImageLayers {
    fn schema_name() -> Cow<'static, str> {
        "ImageLayers".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": Self::PATTERN})
    }
}

impl JsonSchema for TextLayers {
    fn schema_name() -> Cow<'static, str> {
        "TextLayers".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": Self::PATTERN})
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::clip::config::named;

    #[test]
    fn a_word_is_read_and_written_alike_and_others_are_refused_with_the_choices() {
        for word in [
            "auto",
            "layer4+attnpool",
            "layer4.last+attnpool",
            "resblocks[-1:]",
            "resblocks[-12:]",
            "none",
        ] {
            let layers = ImageLayers::try_from(word.to_owned()).unwrap();
            assert_eq!(layers.to_string(), word);
        }
        let pattern = regex::Regex::new(ImageLayers::PATTERN).unwrap();
        for word in [
            "layer3",
            "resblocks[-0:]",
            "resblocks[-+2:]",
            "resblocks[-02:]",
            "resblocks[2:]",
            "resblocks[-:]",
            "",
        ] {
            let error = ImageLayers::try_from(word.to_owned()).unwrap_err();
            assert!(error.contains("`layer4.last+attnpool`"), "{error}");
            assert!(TextLayers::try_from(word.to_owned()).is_err());
            assert!(!pattern.is_match(word), "{word}");
        }
        let text = |word: &str| TextLayers::try_from(word.to_owned());
        assert_eq!(text("resblocks[-2:]"), Ok(TextLayers::default()));
        assert_eq!(text("none").unwrap().blocks(), 0);
        assert!(text("auto").unwrap_err().contains("`resblocks[-2:]`"));
        let json = serde_json::to_string(&ImageLayers::Blocks(3)).unwrap();
        assert_eq!(json, "\"resblocks[-3:]\"");
        assert!(serde_json::from_str::<ImageLayers>("\"layer5\"").is_err());
    }

    #[test]
    fn layers_that_the_model_lacks_are_refused() {
        let (resnet, vit) = (named("RN50").unwrap(), named("ViT-B-32").unwrap());
        let resolve = |config: &Config, image, text| Layers { image, text }.resolve(config);
        let two = TextLayers::Blocks(2);
        let auto = |config| resolve(config, ImageLayers::Auto, two).unwrap().image;
        assert_eq!(auto(&resnet), ImageLayers::Layer4);
        assert_eq!(auto(&vit), ImageLayers::Blocks(2));
        let refused = |config, image, text| {
            let error = resolve(config, image, text).unwrap_err().to_string();
            assert!(error.contains("\nhint: "), "{error}");
            error
        };
        let error = refused(&vit, ImageLayers::Layer4Last, two);
        assert!(error.starts_with("train `layer4.last+attnpool` of the image tower: it is a ViT"));
        let error = refused(&resnet, ImageLayers::Blocks(2), two);
        assert!(error.starts_with("train `resblocks[-2:]` of the image tower: it is a Mod"));
        let error = refused(&vit, ImageLayers::Blocks(13), two);
        assert!(error.starts_with("train the last 13 blocks of the image tower: it has 12"));
        let error = refused(&resnet, ImageLayers::Auto, TextLayers::Blocks(13));
        assert!(error.starts_with("train the last 13 blocks of the text tower: it has 12"));
        let error = refused(&vit, ImageLayers::None, TextLayers::None);
        assert!(error.starts_with("train nothing"));
        assert!(resolve(&vit, ImageLayers::None, two).is_ok());
        assert!(resolve(&vit, ImageLayers::Blocks(12), TextLayers::None).is_ok());
    }
}
