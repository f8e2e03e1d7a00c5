//! Folders of images: one folder for each class, its images anywhere below it, as
//! torchvision's `ImageFolder` takes them; with `splits`, such folders for each split.
//!
//! Other than there, hidden files and folders are left out, of formats only PNG, JPEG
//! and WebP are read, and links that lead in circles are not followed; what is left
//! out is told. Only paths and digests are held, some 80 MB for a million images.

mod layout;
mod paths;
mod walk;

use std::{io::Read, path::PathBuf};

use anyhow::{Context, Result, bail, ensure};
use rayon::prelude::*;

use self::{
    layout::Layout,
    paths::Paths,
    walk::{Found, LeftOut, MOST_IMAGES, Tally},
};
use super::{DataSpec, Images, Pixels, Raw, count, decode, listed, shown, splits};
use crate::digest::{Digest, FileMemo};

/// The longest file of an image.
const MOST_BYTES: u64 = 1 << 30;

/// The images of a split.
pub(super) struct Files {
    root: PathBuf,
    paths: Paths,
    ids: Vec<Digest>,
}

impl Files {
    /// Digest of all images.
    pub(super) fn digest(&self) -> Digest {
        let mut hasher = blake3::Hasher::new_derive_key("runner image files v1");
        for id in &self.ids {
            hasher.update(id.as_bytes());
        }
        Digest::from_bytes(*hasher.finalize().as_bytes())
    }

    /// Path of image `i` below the data set's folder.
    pub(super) fn name(&self, i: usize) -> String {
        self.paths.get(i).unwrap_or_default()
    }

    /// Identity of image `i`.
    pub(super) fn id(&self, i: usize) -> Option<Digest> {
        self.ids.get(i).copied()
    }

    /// Reads and decodes image `i`.
    pub(super) fn get(&self, i: usize) -> Result<Pixels> {
        let (Some(name), Some(id)) = (self.paths.get(i), self.ids.get(i)) else {
            bail!("there is no image {i} among {}", self.ids.len());
        };
        let path = self.root.join(name);
        let file = fs_err::File::open(&path).context("failed to read an image")?;
        let mut bytes = Vec::new();
        file.take(MOST_BYTES + 1)
            .read_to_end(&mut bytes)
            .context("failed to read an image")?;
        ensure!(
            bytes.len() as u64 <= MOST_BYTES,
            "`{}` has more than {MOST_BYTES} bytes",
            shown(&path)
        );
        // What is computed of other bytes must not be kept under this identity.
        ensure!(
            identity(Digest::of(&bytes)) == *id,
            "`{}` has changed since the data set was opened\nhint: run it again",
            shown(&path)
        );
        decode::decode(&bytes).with_context(|| format!("failed to decode `{}`", shown(&path)))
    }
}

/// Identity of an image by the digest of its file: the same file may decode to
/// other pixels when the decoder changes.
fn identity(file: Digest) -> Digest {
    let mut bytes = file.as_bytes().to_vec();
    bytes.extend(decode::VERSION.to_le_bytes());
    Digest::derived("runner image file v1", &bytes)
}

/// Reads the data set that `spec` names.
pub(super) fn read(spec: &DataSpec, memo: &FileMemo) -> Result<Raw> {
    let layout = Layout::find(spec)?;
    let classes = layout.classes();
    let mut left_out = layout.left_out(spec);
    let mut read = Vec::new();
    let mut faults = Vec::new();
    for split in &layout.splits {
        // Each class by itself, since listing waits for the disk.
        let found: Vec<Found> = classes
            .par_iter()
            .map(|class| {
                if split.classes.contains(class) {
                    walk::images(&spec.path, &split.folder_of(class))
                } else {
                    Ok(Found::default())
                }
            })
            .collect::<Result<_>>()?;
        let empty: Vec<_> = classes
            .iter()
            .zip(&found)
            .filter(|(_, found)| found.images.len() == 0)
            .map(|(class, _)| class)
            .collect();
        if !empty.is_empty() {
            faults.push(without_images(&split.name, &empty, &found));
        }
        let mut images = Vec::with_capacity(found.len());
        for part in found {
            left_out.merge(part.left_out);
            images.push(part.images);
        }
        read.push((split.name.clone(), images));
    }
    ensure!(
        faults.is_empty(),
        "{} of `{}`\nhint: put images there, or remove the folder of the class from every split",
        faults.join(", and "),
        shown(&spec.path)
    );
    let mut warnings = warnings(&left_out);
    warnings.extend(layout.one_class(spec));
    let mut splits = Vec::new();
    for (name, images) in read {
        let (labels, paths) = joined(&images, spec.limit)?;
        if let Some(limit) = spec.limit.filter(|limit| *limit < classes.len()) {
            warnings.push(format!(
                "`limit = {limit}` leaves no image of {} of the {}",
                classes.len() - limit,
                count(classes.len(), "class", "classes")
            ));
        }
        let ids = (0..paths.len())
            .into_par_iter()
            .map(|i| {
                let path = spec.path.join(paths.get(i).unwrap_or_default());
                Ok(identity(memo.digest_of(&path)?))
            })
            .collect::<Result<Vec<_>>>()
            .context("failed to read an image")?;
        let files = Files {
            root: spec.path.clone(),
            paths,
            ids,
        };
        splits.push((name, labels, Images::Files(files)));
    }
    warnings.dedup();
    Ok(Raw {
        classes,
        splits,
        warnings,
    })
}

/// Labels and paths of all classes, or of the first `limit` images taken from the
/// classes in turn; in the order of the classes either way.
fn joined(images: &[Paths], limit: Option<usize>) -> Result<(Vec<usize>, Paths)> {
    let mut take: Vec<usize> = images.iter().map(Paths::len).collect();
    let total: usize = take.iter().sum();
    ensure!(
        total <= MOST_IMAGES,
        "there are {total} images, more than {MOST_IMAGES}"
    );
    if let Some(limit) = limit.filter(|limit| *limit < total) {
        let (mut left, mut rounds) = (limit, 0);
        let mut taken = vec![0; take.len()];
        while left > 0 {
            for (taken, have) in taken.iter_mut().zip(&take) {
                if left > 0 && *have > rounds {
                    *taken += 1;
                    left -= 1;
                }
            }
            rounds += 1;
        }
        take = taken;
    }
    let (mut labels, mut paths) = (Vec::new(), Paths::default());
    for (class, (images, most)) in images.iter().zip(take).enumerate() {
        paths.extend(images, most);
        labels.resize(labels.len() + most, class);
    }
    labels.shrink_to_fit();
    paths.shrink();
    Ok((labels, paths))
}

/// "2 of 3 classes have no image in split `val`: `cat`, `dog` (3 files of other kinds)".
fn without_images(split: &str, empty: &[&String], found: &[Found]) -> String {
    let place = match split {
        "" => String::new(),
        split => format!(" in split `{split}`"),
    };
    let others: usize = found
        .iter()
        .filter(|found| found.images.len() == 0)
        .map(|found| found.left_out.others.count + found.left_out.unread.count)
        .sum();
    let others = match others {
        0 => String::new(),
        n => format!(
            " (but {})",
            count(n, "file of another kind", "files of other kinds")
        ),
    };
    format!(
        "{} of {} no image{place}: {}{others}",
        empty.len(),
        count(found.len(), "class has", "classes have"),
        listed(empty, 100)
    )
}

/// A sentence for everything that was left out.
fn warnings(left_out: &LeftOut) -> Vec<String> {
    let one = |tally: &Tally, (one, many): (&str, &str), hint: &str| {
        (tally.count > 0).then(|| {
            let more = match tally.count - tally.first.len() {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            format!(
                "{} left out: {}{more}{hint}",
                count(tally.count, one, many),
                listed(&tally.first, tally.first.len())
            )
        })
    };
    [
        one(
            &left_out.unread,
            (
                "image of a format that is not read was",
                "images of formats that are not read were",
            ),
            "\nhint: convert them to PNG, JPEG or WebP",
        ),
        one(
            &left_out.others,
            ("file that is no image was", "files that are no images were"),
            "",
        ),
        one(
            &left_out.outside,
            (
                "file beside the class folders was",
                "files beside the class folders were",
            ),
            "",
        ),
        one(
            &left_out.hidden,
            (
                "hidden image or folder was",
                "hidden images or folders were",
            ),
            "",
        ),
        one(
            &left_out.circles,
            (
                "link to a folder above it was",
                "links to folders above them were",
            ),
            "",
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// All image files and folders of the data set.
pub(super) fn files(spec: &DataSpec) -> Result<Vec<PathBuf>> {
    let mut files = vec![spec.path.clone()];
    if !spec.path.is_dir() {
        return Ok(files);
    }
    let layout = Layout::find(spec)?;
    for split in &layout.splits {
        if !split.name.is_empty() {
            files.push(spec.path.join(&split.name));
        }
        for class in &split.classes {
            let found = walk::images(&spec.path, &split.folder_of(class))?;
            files.extend(found.folders);
            files.extend(found.images.iter().map(|image| spec.path.join(image)));
        }
    }
    Ok(files)
}

/// What is lacking on disk.
pub(super) fn absent(spec: &DataSpec) -> Option<String> {
    if !spec.path.is_dir() {
        let what = if spec.path.exists() {
            "is no folder"
        } else {
            "does not exist"
        };
        return Some(format!("its folder: `{}` {what}", shown(&spec.path)));
    }
    let folders = splits(spec).into_iter().map(|split| spec.path.join(split));
    let absent: Vec<_> = folders.filter(|folder| !folder.is_dir()).collect();
    let first = shown(absent.first()?);
    Some(match absent.len() {
        1 => format!("the folder `{first}`"),
        n => format!("the folder `{first}` and {} more", n - 1),
    })
}

#[cfg(test)]
mod tests;
