//! Data sets as users have them: images, labels and class names by split.
//!
//! CIFAR-10 and CIFAR-100 in every published form, and folders of images.

mod cifar;
mod decode;
mod folder;
mod sniff;
mod spec;

use std::{
    collections::{BTreeMap, HashSet},
    env,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, bail, ensure};

pub use self::spec::{ClassNames, DataSpec, Format, Labels, Mistake, splits};
use crate::digest::{Digest, FileMemo};

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
        let mut seen = HashSet::new();
        for (i, name) in names.iter().enumerate() {
            ensure!(!name.trim().is_empty(), "class {i} has an empty name");
            ensure!(seen.insert(name), "class `{name}` is named twice");
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

/// Where the images of a split are.
enum Images {
    /// All pixels in memory.
    Cifar(cifar::Images),
    /// Files that are decoded when they are asked for.
    Files(folder::Files),
}

/// One split: images, labels, class names.
pub struct Split {
    name: String,
    classes: Arc<ClassList>,
    labels: Vec<usize>,
    images: Images,
    images_digest: Digest,
    labels_digest: Digest,
}

impl Split {
    fn new(name: &str, classes: Arc<ClassList>, labels: Vec<usize>, images: Images) -> Self {
        let bytes: Vec<u8> = labels
            .iter()
            .flat_map(|l| (*l as u64).to_le_bytes())
            .collect();
        Self {
            name: name.to_owned(),
            classes,
            images_digest: match &images {
                Images::Cifar(images) => Digest::derived("runner images v1", images.bytes()),
                Images::Files(files) => files.digest(),
            },
            labels_digest: Digest::derived("runner labels v1", &bytes),
            labels,
            images,
        }
    }

    /// The split's name in its data set; empty if that has no splits.
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

    /// Image `i`: CIFAR's from memory, a file's read and decoded anew each time.
    ///
    /// # Errors
    /// When there is no such image, or its file cannot be read or decoded, or is
    /// another one than when the data set was opened; the message names the file.
    pub fn image(&self, i: usize) -> Result<Pixels> {
        match &self.images {
            Images::Cifar(images) => images
                .get(i)
                .with_context(|| format!("there is no image {i} among {}", self.len())),
            Images::Files(files) => files.get(i),
        }
    }

    /// What tells image `i` from all others: no label, position, name or split.
    ///
    /// CIFAR's is [`Pixels::digest`]. A file's is made of its bytes and the
    /// version of the decoder, so that no image is decoded to make a key.
    ///
    /// # Panics
    /// If `i` is not below [`len`](Self::len).
    pub fn image_id(&self, i: usize) -> Digest {
        assert!(i < self.len(), "there is no image {i} among {}", self.len());
        match &self.images {
            Images::Cifar(images) => images.get(i).map(|pixels| pixels.digest()),
            Images::Files(files) => files.id(i),
        }
        .unwrap_or_else(|| Digest::of(b""))
    }

    /// A name for image `i` that a person can find again: its position in the split,
    /// or the path of its file below the data set's folder (`train/cat/0001.png`).
    pub fn image_name(&self, i: usize) -> String {
        match &self.images {
            Images::Cifar(_) => format!("{}/{i}", self.name),
            Images::Files(files) => files.name(i),
        }
    }

    /// Digest of all images: pixels of CIFAR, files of folders.
    pub const fn images_digest(&self) -> Digest {
        self.images_digest
    }

    /// Digest of all labels.
    pub const fn labels_digest(&self) -> Digest {
        self.labels_digest
    }
}

/// A data set that has been opened.
pub struct DataSet {
    classes: Arc<ClassList>,
    splits: BTreeMap<String, Arc<Split>>,
    warnings: Vec<String>,
}

/// What the files say, before the overrides of the entry.
struct Raw {
    classes: Vec<String>,
    splits: Vec<(String, Vec<usize>, Images)>,
    warnings: Vec<String>,
}

impl DataSet {
    /// Opens the data set that `spec` names; its path is already absolute or
    /// relative to the current folder. CIFAR is read into memory; of a folder's
    /// images the digests are made, all cores at work, unless `memo` knows them.
    ///
    /// # Errors
    /// When fields of `spec` do not go together, files are missing, damaged or
    /// laid out otherwise, a label has no class, a class no image, or the digest
    /// is not the pinned one; the message names the files and what to do.
    pub fn open(spec: &DataSpec, memo: &FileMemo) -> Result<Self> {
        if let Some(mistake) = spec.mistake() {
            bail!("{mistake}");
        }
        let raw = match spec.format {
            Format::Cifar10 | Format::Cifar100 => cifar::read(spec)?,
            Format::Folder => folder::read(spec, memo)?,
        };
        let mut warnings = raw.warnings;
        let names = renamed(spec, raw.classes, &mut warnings)?;
        let classes =
            Arc::new(ClassList::new(names).with_context(|| {
                format!("failed to read the classes of `{}`", shown(&spec.path))
            })?);
        let splits = raw
            .splits
            .into_iter()
            .map(|(name, labels, images)| {
                let split = Split::new(&name, classes.clone(), labels, images);
                (name, Arc::new(split))
            })
            .collect();
        let set = Self {
            classes,
            splits,
            warnings,
        };
        if let Some(pinned) = spec.digest
            && pinned != set.digest()
        {
            bail!(
                "`{}` is not the pinned data: it has the digest blake3:{}\nhint: put the data back, or change `digest`",
                shown(&spec.path),
                set.digest()
            );
        }
        Ok(set)
    }

    /// Class names.
    pub const fn classes(&self) -> &Arc<ClassList> {
        &self.classes
    }

    /// The split called `name`; the only one of a data set without splits is called "".
    pub fn split(&self, name: &str) -> Option<&Arc<Split>> {
        self.splits.get(name)
    }

    /// What was left out or looks odd, a sentence each; to be shown to the user.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
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

/// The names that `class_names` gives to the classes called `own` in the files.
fn renamed(spec: &DataSpec, own: Vec<String>, warnings: &mut Vec<String>) -> Result<Vec<String>> {
    match &spec.class_names {
        None => Ok(own),
        Some(ClassNames::List(names)) => {
            ensure!(
                names.len() == own.len(),
                "`class_names` has {}, but `{}` has {}",
                count(names.len(), "name", "names"),
                shown(&spec.path),
                count(own.len(), "class", "classes")
            );
            Ok(names.clone())
        }
        Some(ClassNames::Table(names)) => {
            let unknown: Vec<_> = names.keys().filter(|name| !own.contains(name)).collect();
            if let Some(first) = unknown.first() {
                warnings.push(format!(
                    "`class_names` names {} that `{}` has not; the first is `{first}`",
                    count(unknown.len(), "folder", "folders"),
                    shown(&spec.path)
                ));
            }
            let renamed = own
                .into_iter()
                .map(|folder| names.get(&folder).cloned().unwrap_or(folder));
            Ok(renamed.collect())
        }
    }
}

/// The files and folders that a data set of this form consists of, for "has anything
/// changed?": when none of them did, neither did the data set.
///
/// # Errors
/// When a folder cannot be listed.
pub fn files(spec: &DataSpec) -> Result<Vec<PathBuf>> {
    match spec.format {
        Format::Cifar10 | Format::Cifar100 => Ok(cifar::files(spec)),
        Format::Folder => folder::files(spec),
    }
}

/// What is lacking on disk, in words that follow "data set `x` lacks": the first
/// missing file and how many more, with the paths that were looked for.
/// Contents are not looked at.
pub fn absent(spec: &DataSpec) -> Option<String> {
    match spec.format {
        Format::Cifar10 | Format::Cifar100 => cifar::absent(spec),
        Format::Folder => folder::absent(spec),
    }
}

/// A path as people write it: relative to the current folder, where it is below that.
fn shown(path: &Path) -> String {
    env::current_dir()
        .ok()
        .and_then(|here| path.strip_prefix(here).ok())
        .filter(|path| !path.as_os_str().is_empty())
        .unwrap_or(path)
        .display()
        .to_string()
}

/// "1 file", "1,200 files".
fn count(n: usize, one: &str, many: &str) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    format!("{out} {}", if n == 1 { one } else { many })
}

/// "`a`, `b`, `c` and 4 more".
fn listed<S: AsRef<str>>(names: &[S], most: usize) -> String {
    let quoted: Vec<_> = names
        .iter()
        .take(most)
        .map(|name| format!("`{}`", name.as_ref()))
        .collect();
    match names.len().saturating_sub(most) {
        0 => quoted.join(", "),
        more => format!("{} and {more} more", quoted.join(", ")),
    }
}

#[cfg(test)]
mod tests;
