//! Architectures by the names that `open_clip` gives them, for files of weights
//! that come without a configuration.

use anyhow::{Context, Result};

use super::{
    Activation, Config, ImageConfig, Preprocess, ResnetConfig, TextConfig, TransformerConfig,
    VOCABULARY, VitConfig,
};

/// Ends the name of an architecture whose activation is `QuickGELU`.
const QUICK: &str = "-quickgelu";

/// Name, width of the space, image tower, width of the text tower.
const ALL: [(&str, usize, Image, usize); 10] = [
    ("RN50", 1024, Image::Resnet([3, 4, 6, 3], 64, 224), 512),
    ("RN101", 512, Image::Resnet([3, 4, 23, 3], 64, 224), 512),
    ("RN50x4", 640, Image::Resnet([4, 6, 10, 6], 80, 288), 640),
    ("RN50x16", 768, Image::Resnet([6, 8, 18, 8], 96, 384), 768),
    (
        "RN50x64",
        1024,
        Image::Resnet([3, 15, 36, 10], 128, 448),
        1024,
    ),
    ("ViT-B-32", 512, Image::Vit(768, 12, 32, 224), 512),
    ("ViT-B-16", 512, Image::Vit(768, 12, 16, 224), 512),
    ("ViT-L-14", 768, Image::Vit(1024, 24, 14, 224), 768),
    ("ViT-L-14-336", 768, Image::Vit(1024, 24, 14, 336), 768),
    ("ViT-B-32-256", 512, Image::Vit(768, 12, 32, 256), 512),
];

/// An image tower in one line.
enum Image {
    /// Layers, width, side of the image.
    Resnet([usize; 4], usize, usize),
    /// Width, layers, side of a patch, side of the image.
    Vit(usize, usize, usize, usize),
}

/// The names that [`named`] knows, without those for `QuickGELU`.
pub fn architectures() -> Vec<&'static str> {
    ALL.iter().map(|(name, ..)| *name).collect()
}

/// The architecture called `name`: one of [`architectures`], with `-quickgelu`
/// after it for weights that were trained so, such as all of `OpenAI`'s.
///
/// # Errors
/// When there is none of that name; the message lists all.
pub(in crate::models::clip) fn named(name: &str) -> Result<Config> {
    let (plain, activation) = match name.strip_suffix(QUICK) {
        Some(plain) => (plain, Activation::QuickGelu),
        None => (name, Activation::Gelu),
    };
    let (_, embed_dim, image, width) = (ALL.iter())
        .find(|(known, ..)| *known == plain)
        .with_context(|| {
            format!(
                "there is no architecture `{name}`\nhint: {}, each also with {QUICK}",
                architectures().join(", ")
            )
        })?;
    let blocks = |width: usize, layers: usize| TransformerConfig {
        width,
        heads: width / 64,
        layers,
        hidden: width * 4,
        activation,
    };
    Ok(Config {
        embed_dim: *embed_dim,
        image: match *image {
            Image::Resnet(layers, width, size) => ImageConfig::Resnet(ResnetConfig {
                layers,
                width,
                size,
                heads: width * 32 / 64,
            }),
            Image::Vit(width, layers, patch, size) => ImageConfig::Vit(VitConfig {
                size,
                patch,
                transformer: blocks(width, layers),
            }),
        },
        text: TextConfig {
            context: 77,
            vocabulary: VOCABULARY,
            transformer: blocks(*width, 12),
        },
        preprocess: Preprocess::default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quickgelu_is_part_of_a_name() {
        let config = named("RN50-quickgelu").unwrap();
        assert_eq!(config.text.transformer.activation, Activation::QuickGelu);
        let plain = named("ViT-L-14-336").unwrap();
        assert_eq!(plain.text.transformer.activation, Activation::Gelu);
        let ImageConfig::Vit(vit) = plain.image else {
            panic!("a ViT")
        };
        assert_eq!((vit.tokens(), vit.transformer.heads), (577, 16));
        let error = named("RN51").unwrap_err().to_string();
        assert!(error.contains("hint: RN50, RN101"), "{error}");
    }
}
