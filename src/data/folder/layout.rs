//! Which folders are splits and which are classes, and what to say when a data
//! set is laid out otherwise than its entry says.

use std::{collections::BTreeSet, path::Path};

use anyhow::{Result, bail, ensure};

use super::walk::{LeftOut, Listing, Sort, list, sort_of};
use crate::data::{DataSpec, count, listed, shown, sniff};

/// Names that people give to splits.
const SPLIT_NAMES: [&str; 10] = [
    "train",
    "training",
    "val",
    "valid",
    "validation",
    "test",
    "testing",
    "dev",
    "eval",
    "holdout",
];

/// A split and its class folders.
pub(super) struct SplitFolder {
    /// "" for a data set without splits.
    pub(super) name: String,
    pub(super) classes: BTreeSet<String>,
    listing: Listing,
}

impl SplitFolder {
    /// The folder of a class, relative to the data set's.
    pub(super) fn folder_of(&self, class: &str) -> String {
        within(&self.name, class)
    }
}

/// The folders of a data set.
pub(super) struct Layout {
    pub(super) splits: Vec<SplitFolder>,
}

impl Layout {
    /// Lists the folders of splits and classes.
    ///
    /// # Errors
    /// When `splits` does not go with the folders, or there are no class folders.
    pub(super) fn find(spec: &DataSpec) -> Result<Self> {
        let path = &spec.path;
        if !path.is_dir() {
            bail!("{}", no_folder(path));
        }
        let top = list(path)?;
        if spec.splits.is_empty() {
            ensure_no_splits(path, &top)?;
            return Ok(Self {
                splits: vec![SplitFolder::new(path, "", top)?],
            });
        }
        let absent: Vec<_> = spec
            .splits
            .iter()
            .filter(|name| !top.folders.contains(name))
            .collect();
        if !absent.is_empty() {
            bail!(
                "`{}` has no {}\nhint: {}",
                shown(path),
                match absent.as_slice() {
                    [one] => format!("folder `{one}`"),
                    many => format!("folders {}", listed(many, 20)),
                },
                splits_instead(path, &top, &spec.splits)
            );
        }
        let splits = spec.splits.iter().map(|name| {
            let folder = path.join(name);
            SplitFolder::new(&folder, name, list(&folder)?)
        });
        Ok(Self {
            splits: splits.collect::<Result<_>>()?,
        })
    }

    /// The classes of all splits in order.
    pub(super) fn classes(&self) -> Vec<String> {
        let all: BTreeSet<_> = self
            .splits
            .iter()
            .flat_map(|split| &split.classes)
            .collect();
        all.into_iter().cloned().collect()
    }

    /// A warning where the only class looks like a folder of classes.
    pub(super) fn one_class(&self, spec: &DataSpec) -> Option<String> {
        let [split] = self.splits.as_slice() else {
            return None;
        };
        let [only] = split.listing.folders.as_slice() else {
            return None;
        };
        let inside = list(&spec.path.join(split.folder_of(only))).ok()?;
        (inside.folders.len() > 1 && images(&inside) == 0).then(|| {
            format!(
                "the only class is `{only}`, and its images are in {}\nhint: if these are the classes, write the path of `{only}`",
                listed(&inside.folders, 5)
            )
        })
    }

    /// What stands beside the class folders.
    pub(super) fn left_out(&self, spec: &DataSpec) -> LeftOut {
        let mut left_out = LeftOut::default();
        let mut add = |split: &str, listing: &Listing| {
            for name in &listing.files {
                left_out.outside.add(|| within(split, name));
            }
            for name in &listing.hidden {
                left_out.hidden.add(|| within(split, name));
            }
        };
        if !spec.splits.is_empty()
            && let Ok(top) = list(&spec.path)
        {
            add("", &top);
        }
        for split in &self.splits {
            add(&split.name, &split.listing);
        }
        left_out
    }
}

fn within(folder: &str, name: &str) -> String {
    if folder.is_empty() {
        name.to_owned()
    } else {
        format!("{folder}/{name}")
    }
}

impl SplitFolder {
    fn new(folder: &Path, name: &str, listing: Listing) -> Result<Self> {
        let images = images(&listing);
        ensure!(
            !listing.folders.is_empty(),
            "`{}` has no class folders{}\nhint: {}",
            shown(folder),
            match images {
                0 => String::new(),
                n => format!(", but {} without a class", count(n, "image", "images")),
            },
            if listing
                .files
                .iter()
                .any(|name| name.starts_with("data_batch"))
            {
                "for CIFAR write format = \"cifar10\""
            } else {
                "put the images of each class in a folder of its own, such as `cat` and `dog`; images without classes cannot be used"
            }
        );
        Ok(Self {
            name: name.to_owned(),
            classes: listing.folders.iter().cloned().collect(),
            listing,
        })
    }
}

fn images(listing: &Listing) -> usize {
    listing
        .files
        .iter()
        .filter(|name| sort_of(name) == Sort::Image)
        .count()
}

fn no_folder(path: &Path) -> String {
    let name = shown(path);
    let Ok(mut file) = fs_err::File::open(path) else {
        return format!(
            "the folder `{name}` does not exist\nhint: a path is relative to the file that names it"
        );
    };
    let mut head = [0; 512];
    let read = std::io::Read::read(&mut file, &mut head).unwrap_or(0);
    format!(
        "`{name}` is no folder but {}\nhint: name the folder that holds the class folders; unpack an archive first",
        sniff::what(&head[..read])
    )
}

/// Whether a folder looks like a split: by its name, and because it holds folders and no images.
fn is_split_like(path: &Path, name: &str) -> bool {
    let known = SPLIT_NAMES.contains(&name.to_ascii_lowercase().as_str());
    known
        && list(&path.join(name))
            .is_ok_and(|inside| !inside.folders.is_empty() && images(&inside) == 0)
}

fn split_like<'l>(path: &Path, listing: &'l Listing) -> Vec<&'l String> {
    let folders = listing.folders.iter();
    folders.filter(|name| is_split_like(path, name)).collect()
}

/// A list of names as it is written in the entry.
fn written(names: &[&String]) -> String {
    let mut names: Vec<_> = names.iter().map(|name| format!("\"{name}\"")).collect();
    // Training first, as people say it.
    names.sort_by_key(|name| !name.to_ascii_lowercase().contains("train"));
    format!("[{}]", names.join(", "))
}

/// Refuses folders of splits that would be taken for classes. One folder called `train`
/// among others may be a class, of vehicles for example.
fn ensure_no_splits(path: &Path, top: &Listing) -> Result<()> {
    let found = split_like(path, top);
    if found.len() >= 2 || (!found.is_empty() && found.len() == top.folders.len()) {
        bail!(
            "the folders {} in `{}` look like splits, not like classes\nhint: write splits = {}",
            listed(&found, 20),
            shown(path),
            written(&found)
        );
    }
    if let [only] = top.folders.as_slice() {
        let inside = path.join(only);
        if let Ok(listing) = list(&inside)
            && !split_like(&inside, &listing).is_empty()
        {
            bail!(
                "`{}` holds only the folder `{only}`, and that holds splits\nhint: write the path of `{only}`, and splits = {}",
                shown(path),
                written(&split_like(&inside, &listing))
            );
        }
    }
    Ok(())
}

/// What to write when the folders of `splits` are not there.
fn splits_instead(path: &Path, top: &Listing, wanted: &[String]) -> String {
    let found = split_like(path, top);
    if !found.is_empty() {
        return format!("write splits = {}", written(&found));
    }
    if let [only] = top.folders.as_slice()
        && let Ok(inside) = list(&path.join(only))
        && wanted.iter().all(|name| inside.folders.contains(name))
    {
        return format!("write the path of `{only}`, which has them");
    }
    let own = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    if wanted.iter().any(|name| name == own) {
        return "the path names one split; name the folder above it, or remove `splits`".to_owned();
    }
    match top.folders.as_slice() {
        [] => "put each split in a folder of its own".to_owned(),
        folders => format!(
            "it has {}; if these are the classes, remove `splits`",
            listed(folders, 5)
        ),
    }
}
