//! A CLIP model on disk, in whatever layout: found, and read under the names
//! that `open_clip` gives its tensors.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::{
    config::{
        self, Activation, CONFIG_FILE, Config, HF_CONFIG, HF_PREPROCESSOR, ImageConfig, MAX_FILE,
    },
    folder::{WEIGHTS_FILE, expected},
    hugging_face,
    tokenizer::{Dialect, Tokenizer, TooLong},
};
use crate::models::weights::{self, Format, Weights, WeightsError, read_small};

/// Where `open_clip` puts weights, best first.
const OPEN_CLIP: [&str; 3] = [
    WEIGHTS_FILE,
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
];
/// Where transformers puts weights, best first; those of `open_clip` come last
/// under the first name too.
const TRANSFORMERS: [&str; 4] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
];
/// The tokenizer of a folder of transformers.
const TOKENIZER: &str = "tokenizer.json";
/// How files of weights end whose names tell nothing else.
const ENDINGS: [&str; 4] = ["safetensors", "pt", "pth", "bin"];

/// How a checkpoint names its tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// As `open_clip` and `OpenAI` do.
    OpenClip,
    /// As transformers does.
    HuggingFace,
}

/// A model's files and what they say of its shape.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    config: Config,
    layout: Layout,
    weights: PathBuf,
    /// The files besides the weights.
    others: Vec<PathBuf>,
    tokenizer: Option<PathBuf>,
    dialect: Dialect,
}

/// Whether a CLIP model seems to be at `path`; its files are not read whole.
pub fn is_model(path: &Path) -> bool {
    if path.is_file() {
        return path
            .extension()
            .is_some_and(|e| ENDINGS.iter().any(|known| e == *known));
    }
    path.join(CONFIG_FILE).is_file() || hugging_face_config(path).is_some()
}

/// The bytes of a `CLIPModel`'s `config.json`.
fn hugging_face_config(folder: &Path) -> Option<Vec<u8>> {
    let bytes = read_small(&folder.join(HF_CONFIG), MAX_FILE).ok()?;
    let file: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
    (file.get("model_type")?.as_str()? == "clip").then_some(bytes)
}

impl Checkpoint {
    /// Finds the model at `path`: a folder of `open_clip` or transformers, or a
    /// file of weights. `architecture` is the name that `open_clip` has for its
    /// shape, for weights beside which no configuration lies.
    ///
    /// # Errors
    /// When there are no weights or no configuration that we read, the message
    /// names what was looked for; when the configuration asks for something that
    /// is not supported; when `OpenAI`'s own weights would run with GELU.
    pub fn open(path: &Path, architecture: Option<&str>) -> Result<Self> {
        let found = match (path.is_file(), architecture) {
            (_, Some(name)) => Self::named(path, name)?,
            (true, None) => Self::file(path)?,
            (false, None) => Self::folder(path)?,
        };
        found.refuse_wrong_activation(weights::official)?;
        Ok(found)
    }

    /// Weights whose architecture the user names.
    fn named(path: &Path, name: &str) -> Result<Self> {
        let weights = if path.is_file() {
            path.to_owned()
        } else {
            lone_weights(path)?
        };
        Ok(Self::plain(weights, config::named(name)?))
    }

    /// A file of weights by itself: a configuration beside it, or `OpenAI`'s.
    fn file(path: &Path) -> Result<Self> {
        let beside = path.with_file_name(CONFIG_FILE);
        if beside.is_file() {
            let config = read_open_clip(&beside)?;
            return Ok(Self {
                others: vec![beside],
                ..Self::plain(path.to_owned(), config)
            });
        }
        let weights = open_plain(path)?;
        ensure!(
            weights.format() == Format::TorchScript,
            "find `{CONFIG_FILE}` beside `{}`\nhint: say what it is, for example \
             architecture = \"RN50-quickgelu\", or name a folder of open_clip or transformers",
            path.display()
        );
        let names: Vec<&str> = weights.names().collect();
        let config = config::from_shapes(&|name| weights.shape(name), &names)
            .with_context(|| format!("read `{}`", path.display()))?;
        if let Some(size) = weights.integers().get("input_resolution") {
            ensure!(
                *size == config.image.size() as i64,
                "read `{}`: its `input_resolution` is {size}, but its tensors are for {}",
                path.display(),
                config.image.size()
            );
        }
        Ok(Self {
            dialect: Dialect::OpenAi,
            ..Self::plain(path.to_owned(), config)
        })
    }

    /// A folder with a configuration.
    fn folder(path: &Path) -> Result<Self> {
        let first = |names: &[&str]| names.iter().map(|n| path.join(n)).find(|p| p.exists());
        let config = path.join(CONFIG_FILE);
        let open_clip = |weights| {
            Ok(Self {
                others: vec![config.clone()],
                ..Self::plain(weights, read_open_clip(&config)?)
            })
        };
        // Some folders are both: each configuration goes with its own weights.
        if config.is_file()
            && let Some(weights) = first(&OPEN_CLIP)
        {
            return open_clip(weights);
        }
        if let Some(bytes) = hugging_face_config(path)
            && let Some(weights) = first(&TRANSFORMERS)
        {
            return Self::hugging_face(path, weights, &bytes);
        }
        if config.is_file()
            && let Some(weights) = first(&TRANSFORMERS[..1])
        {
            return open_clip(weights);
        }
        ensure!(
            !config.is_file() && hugging_face_config(path).is_none(),
            "find `{}` or `{}` in `{}`\nhint: the folder has a configuration but no weights",
            OPEN_CLIP[0],
            TRANSFORMERS[0],
            path.display()
        );
        bail!(
            "find `{CONFIG_FILE}` (open_clip) or a CLIP model's `{HF_CONFIG}` (transformers) in `{}`",
            path.display()
        )
    }

    fn hugging_face(path: &Path, weights: PathBuf, config: &[u8]) -> Result<Self> {
        let mut others = vec![path.join(HF_CONFIG)];
        let preprocessor = path.join(HF_PREPROCESSOR);
        let preparation = if preprocessor.is_file() {
            let bytes = read_small(&preprocessor, MAX_FILE)?;
            others.push(preprocessor);
            Some(bytes)
        } else {
            None
        };
        let config = config::hugging_face(config, preparation.as_deref())
            .with_context(|| format!("read `{}`", others[0].display()))?;
        let tokenizer = Some(path.join(TOKENIZER)).filter(|path| path.is_file());
        others.extend(tokenizer.clone());
        Ok(Self {
            config,
            layout: Layout::HuggingFace,
            weights,
            others,
            tokenizer,
            dialect: Dialect::OpenAi,
        })
    }

    /// Nothing but weights.
    fn plain(weights: PathBuf, config: Config) -> Self {
        Self {
            config,
            layout: Layout::OpenClip,
            weights,
            others: Vec::new(),
            tokenizer: None,
            dialect: Dialect::OpenClip,
        }
    }

    /// `OpenAI` trained with `QuickGELU`, which no file of weights says: with GELU
    /// they load and give other numbers. `official` recognises their files.
    fn refuse_wrong_activation(
        &self,
        official: impl Fn(&Path) -> Result<Option<&'static str>, WeightsError>,
    ) -> Result<()> {
        let vit = match &self.config.image {
            ImageConfig::Vit(vit) => Some(vit.transformer.activation),
            ImageConfig::Resnet(_) => None,
        };
        let text = self.config.text.transformer.activation;
        if [Some(text), vit].contains(&Some(Activation::Gelu))
            && let Some(model) = official(&self.weights)?
        {
            bail!(
                "run OpenAI's {model} (`{}`) with GELU: it was trained with QuickGELU\nhint: \
                 architecture = \"…-quickgelu\", or \"quick_gelu\": true in `{CONFIG_FILE}`",
                self.weights.display()
            );
        }
        Ok(())
    }

    /// The model's shape.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The file of weights, or the index of several.
    pub fn path(&self) -> &Path {
        &self.weights
    }

    /// The tokenizer that the text tower was trained with: a folder's
    /// `tokenizer.json`, else CLIP's own.
    ///
    /// # Errors
    /// When the file is not CLIP's tokenizer.
    pub fn tokenizer(&self, too_long: TooLong) -> Result<Tokenizer> {
        match &self.tokenizer {
            Some(path) => Tokenizer::open(path, too_long),
            None => Tokenizer::new(self.dialect, too_long),
        }
    }

    /// What tells the tokenizer from CLIP's own in `open_clip`: its file, or the
    /// dialect of its special tokens.
    pub fn tokenizer_files(&self) -> (Option<&Path>, Dialect) {
        (self.tokenizer.as_deref(), self.dialect)
    }

    /// Whose names the tensors have in the file; the same file read under the
    /// other names would seem to have other parts.
    pub fn layout(&self) -> &'static str {
        match self.layout {
            Layout::OpenClip => "open_clip",
            Layout::HuggingFace => "transformers",
        }
    }

    /// Whether the weights are in several files.
    pub fn is_sharded(&self) -> bool {
        self.weights.extension().is_some_and(|e| e == "json")
    }

    /// Every file that loading the model reads.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut files = self.others.clone();
        files.push(self.weights.clone());
        if let Some(folder) = self.weights.parent().filter(|_| self.is_sharded())
            && let Ok(entries) = fs_err::read_dir(folder)
        {
            let shards = entries.filter_map(|entry| Some(entry.ok()?.path()));
            files.extend(shards.filter(|path| is_model(path)));
        }
        files.sort();
        files.dedup();
        files
    }

    /// Opens the weights under their plain names: those of `open_clip`, without
    /// the prefixes of wrappers (`module.`) and of `CustomTextCLIP` (`text.`),
    /// and without counters and masks that inference does not use.
    ///
    /// # Errors
    /// When they break their format, or a `CLIPModel`'s do not fit it.
    pub fn weights(&self) -> Result<Weights> {
        match self.layout {
            Layout::OpenClip => open_plain(&self.weights),
            Layout::HuggingFace => {
                let folder = self.weights.parent().filter(|_| self.is_sharded());
                let mut weights = match folder {
                    Some(folder) => Weights::open_sharded(folder)?,
                    None => Weights::open(&self.weights)?,
                };
                hugging_face::rename(&mut weights, &self.config)?;
                Ok(weights)
            }
        }
    }

    /// The factor of the logits that the model was trained with, about 100.
    ///
    /// # Errors
    /// When the weights have none.
    pub fn logit_scale(&self) -> Result<f32> {
        logit_scale(&mut self.weights()?)
    }

    /// Opens the weights and compares every tensor with the configuration.
    ///
    /// # Errors
    /// As [`Checkpoint::weights`]; also names every tensor that is missing, left
    /// over or of another shape.
    pub(super) fn checked(&self) -> Result<Weights> {
        let weights = self.weights()?;
        let mut all = expected(&self.config);
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
}

/// Takes out the factor of the logits; checkpoints hold its logarithm.
pub(super) fn logit_scale(weights: &mut Weights) -> Result<f32> {
    let shape = weights.shape("logit_scale").unwrap_or_default().to_vec();
    let scale = weights.take_f32("logit_scale", &shape)?;
    let first = (scale.first()).context("the tensor `logit_scale` is empty")?;
    Ok(first.exp())
}

fn read_open_clip(path: &Path) -> Result<Config> {
    let bytes = read_small(path, MAX_FILE)?;
    config::open_clip(&bytes).with_context(|| format!("read `{}`", path.display()))
}

/// Opens weights that `open_clip` or `OpenAI` named.
fn open_plain(path: &Path) -> Result<Weights> {
    let mut weights = Weights::open(path)?;
    weights.rename(plain)?;
    weights.ignore(|name| name.ends_with(".num_batches_tracked") || name == "attn_mask");
    Ok(weights)
}

/// A tensor's name without prefixes.
fn plain(name: &str) -> String {
    let name = name.strip_prefix("module.").unwrap_or(name);
    name.strip_prefix("text.").unwrap_or(name).to_owned()
}

/// The weights of a folder without a configuration.
fn lone_weights(folder: &Path) -> Result<PathBuf> {
    if let Some(known) = (OPEN_CLIP.iter().map(|name| folder.join(name))).find(|p| p.is_file()) {
        return Ok(known);
    }
    let mut found: Vec<PathBuf> = fs_err::read_dir(folder)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.is_file() && is_model(path))
        .collect();
    found.sort();
    match found.as_slice() {
        [one] => Ok(one.clone()),
        [] => bail!(
            "find weights in `{}`: no file ends with .{}",
            folder.display(),
            ENDINGS.join(", .")
        ),
        many => bail!(
            "choose among {} files of weights in `{}`\nhint: name one: path = \"{}\"",
            many.len(),
            folder.display(),
            many[0].display()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_of_openai_do_not_run_with_gelu() {
        let of = |name| Checkpoint::plain(PathBuf::from("RN50.pt"), config::named(name).unwrap());
        let official = |_: &Path| Ok(Some("RN50"));
        for gelu in ["RN50", "ViT-B-32"] {
            let error = of(gelu).refuse_wrong_activation(official).unwrap_err();
            let error = error.to_string();
            assert!(
                error.contains("OpenAI's RN50 (`RN50.pt`) with GELU"),
                "{error}"
            );
            assert!(of(gelu).refuse_wrong_activation(|_| Ok(None)).is_ok());
        }
        let quick = of("RN50-quickgelu");
        assert!(quick.refuse_wrong_activation(official).is_ok());
    }
}
