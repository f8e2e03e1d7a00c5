//! Data sets as they are found on disk: images, labels and class names by split.

mod cifar;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, bail, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// How a data set's files are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// `data_batch_*.bin`, `test_batch.bin`, `batches.meta.txt`; splits `train` and `test`.
    Cifar10,
    /// `train.bin`, `test.bin`, `fine_label_names.txt`, `coarse_label_names.txt`; splits `train` and `test`.
    Cifar100,
}

/// Which of CIFAR-100's two label columns counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Labels {
    /// The 100 classes.
    #[default]
    Fine,
    /// The 20 groups of classes.
    Coarse,
}

/// An entry of `[data]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataSpec {
    /// How the files are laid out.
    pub format: Format,
    /// The folder, relative to the file that names it.
    pub path: PathBuf,
    /// Which labels count (CIFAR-100 only).
    #[serde(default)]
    pub labels: Labels,
    /// Names to use in place of the files' own, in index order.
    #[serde(default)]
    pub class_names: Option<Vec<String>>,
    /// Keep only the first images of each split, for quick trials.
    #[serde(default)]
    pub limit: Option<usize>,
    /// `blake3:…` that the data must have.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub digest: Option<Digest>,
}

/// The splits that a data set of `format` has.
pub const fn splits(format: Format) -> &'static [&'static str] {
    match format {
        Format::Cifar10 | Format::Cifar100 => &["test", "train"],
    }
}

/// Class names in index order, with their digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassList {
    names: Vec<String>,
}

impl ClassList {
    /// A list of names.
    ///
    /// # Errors
    /// When it is empty or a name is empty or occurs twice.
    pub fn new(names: Vec<String>) -> Result<Self> {
        ensure!(!names.is_empty(), "there is no class");
        for (i, name) in names.iter().enumerate() {
            ensure!(!name.trim().is_empty(), "class {i} has an empty name");
            ensure!(!names[..i].contains(name), "class `{name}` is named twice");
        }
        Ok(Self { names })
    }

    /// The names.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Digest of the names in their order.
    pub fn digest(&self) -> Digest {
        Digest::of_json("runner classes v1", &serde_json::json!(self.names))
    }
}

/// An image of interleaved 8-bit RGB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pixels {
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// `height · width · 3` bytes, row by row.
    pub rgb: Vec<u8>,
}

impl Pixels {
    /// Digest of size and pixels: no label, position or class name.
    pub fn digest(&self) -> Digest {
        let mut bytes = Vec::with_capacity(self.rgb.len() + 16);
        bytes.extend((self.width as u64).to_le_bytes());
        bytes.extend((self.height as u64).to_le_bytes());
        bytes.extend(&self.rgb);
        Digest::derived("runner pixels v1", &bytes)
    }
}

/// One split: images, labels, class names.
pub struct Split {
    name: String,
    classes: Arc<ClassList>,
    labels: Vec<usize>,
    images: cifar::Images,
    images_digest: Digest,
    labels_digest: Digest,
}

impl Split {
    fn new(name: &str, classes: Arc<ClassList>, labels: Vec<usize>, images: cifar::Images) -> Self {
        let bytes: Vec<u8> = labels
            .iter()
            .flat_map(|l| (*l as u64).to_le_bytes())
            .collect();
        Self {
            name: name.to_owned(),
            classes,
            images_digest: Digest::derived("runner images v1", images.bytes()),
            labels_digest: Digest::derived("runner labels v1", &bytes),
            labels,
            images,
        }
    }

    /// The split's name in its data set.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Class names.
    pub fn classes(&self) -> &ClassList {
        &self.classes
    }

    /// Class index of each image.
    pub fn labels(&self) -> &[usize] {
        &self.labels
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Image `i`.
    pub fn image(&self, i: usize) -> Pixels {
        self.images.get(i)
    }

    /// A name for image `i` that a person can find again: its position in the split.
    pub fn image_name(&self, i: usize) -> String {
        format!("{}/{i}", self.name)
    }

    /// Digest of all pixels.
    pub const fn images_digest(&self) -> Digest {
        self.images_digest
    }

    /// Digest of all labels.
    pub const fn labels_digest(&self) -> Digest {
        self.labels_digest
    }
}

/// A data set that has been read.
pub struct DataSet {
    classes: Arc<ClassList>,
    splits: BTreeMap<String, Arc<Split>>,
}

impl DataSet {
    /// Reads the data set that `spec` names; its path is already absolute or
    /// relative to the current folder.
    ///
    /// # Errors
    /// When a file is missing, its size is no multiple of the record size, a
    /// label has no class, or the digest is not the pinned one; the message
    /// names the file.
    pub fn open(spec: &DataSpec) -> Result<Self> {
        let raw = match spec.format {
            Format::Cifar10 => cifar::read_cifar10(&spec.path)?,
            Format::Cifar100 => cifar::read_cifar100(&spec.path, spec.labels)?,
        };
        let names = match &spec.class_names {
            Some(names) => {
                ensure!(
                    names.len() == raw.classes.len(),
                    "`class_names` has {} names, but `{}` has {} classes",
                    names.len(),
                    spec.path.display(),
                    raw.classes.len()
                );
                names.clone()
            }
            None => raw.classes,
        };
        let classes =
            Arc::new(ClassList::new(names).with_context(|| {
                format!("failed to read the classes of `{}`", spec.path.display())
            })?);
        let mut splits = BTreeMap::new();
        for (name, mut labels, mut images) in raw.splits {
            if let Some(limit) = spec.limit {
                labels.truncate(limit);
                images.truncate(limit);
            }
            let split = Split::new(name, classes.clone(), labels, images);
            splits.insert(name.to_owned(), Arc::new(split));
        }
        let set = Self { classes, splits };
        if let Some(pinned) = spec.digest
            && pinned != set.digest()
        {
            bail!(
                "`{}` is not the pinned data: it has the digest blake3:{}\nhint: put the data back, or change `digest`",
                spec.path.display(),
                set.digest()
            );
        }
        Ok(set)
    }

    /// Class names.
    pub const fn classes(&self) -> &Arc<ClassList> {
        &self.classes
    }

    /// The split called `name`.
    pub fn split(&self, name: &str) -> Option<&Arc<Split>> {
        self.splits.get(name)
    }

    /// Digest of everything: what `digest = "blake3:…"` pins.
    pub fn digest(&self) -> Digest {
        let parts: BTreeMap<_, _> = self
            .splits
            .iter()
            .map(|(name, split)| (name, [split.images_digest(), split.labels_digest()]))
            .collect();
        let value = serde_json::json!({"classes": self.classes.names(), "splits": parts});
        Digest::of_json("runner data v1", &value)
    }
}

/// The files that a data set of this form consists of, for "has anything changed?".
pub fn files(spec: &DataSpec) -> Vec<PathBuf> {
    cifar::file_names(spec.format)
        .iter()
        .map(|name| spec.path.join(name))
        .collect()
}

/// Reads a whole file with a message that names it.
fn read(path: &Path) -> Result<Vec<u8>> {
    fs_err::read(path).with_context(|| "failed to read a data set".to_owned())
}
