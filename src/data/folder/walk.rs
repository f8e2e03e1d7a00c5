//! Finds the images below a class folder, in torchvision's order.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};

use super::paths::Paths;
use crate::data::shown;

/// The images that are read, by the ends of their names.
const READ: [&str; 4] = [".png", ".jpg", ".jpeg", ".webp"];
/// Images of formats that are not read.
const UNREAD: [&str; 11] = [
    ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".avif", ".heic", ".jp2", ".jfif",
];

/// Folders in folders; more is no sorting of images.
const DEEPEST: usize = 32;
/// Folders below one class.
const MOST_FOLDERS: usize = 1 << 20;
/// Images below one class, and of a data set.
pub(super) const MOST_IMAGES: usize = 1 << 24;

/// What a name says of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    Image,
    /// An image of a format that is not read.
    Unread,
    Other,
}

/// Goes by the end of the name alone, as torchvision does.
pub(super) fn sort_of(name: &str) -> Sort {
    let name = name.to_ascii_lowercase();
    let ends = |list: &[&str]| list.iter().any(|end| name.ends_with(end));
    if ends(&READ) {
        Sort::Image
    } else if ends(&UNREAD) {
        Sort::Unread
    } else {
        Sort::Other
    }
}

/// How many examples of what was left out are named.
const NAMED: usize = 3;

/// How many of something were left out, and the first few of them.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) count: usize,
    pub(super) first: Vec<String>,
}

impl Tally {
    pub(super) fn add(&mut self, path: impl FnOnce() -> String) {
        self.count += 1;
        if self.first.len() < NAMED {
            self.first.push(path());
        }
    }

    pub(super) fn merge(&mut self, other: Self) {
        self.count += other.count;
        self.first.extend(other.first);
        self.first.truncate(NAMED);
    }
}

/// What was left out of a data set.
#[derive(Default)]
pub(super) struct LeftOut {
    /// Files that are no images by their names.
    pub(super) others: Tally,
    /// Images of formats that are not read.
    pub(super) unread: Tally,
    /// Hidden folders, and hidden files that look like images.
    pub(super) hidden: Tally,
    /// Links to folders above them.
    pub(super) circles: Tally,
    /// Files beside the class folders.
    pub(super) outside: Tally,
}

impl LeftOut {
    pub(super) fn merge(&mut self, other: Self) {
        self.others.merge(other.others);
        self.unread.merge(other.unread);
        self.hidden.merge(other.hidden);
        self.circles.merge(other.circles);
        self.outside.merge(other.outside);
    }
}

/// What is below a folder.
#[derive(Default)]
pub(super) struct Found {
    pub(super) images: Paths,
    pub(super) folders: Vec<PathBuf>,
    pub(super) left_out: LeftOut,
}

/// The entries of a folder, sorted by name; hidden ones apart.
#[derive(Default)]
pub(super) struct Listing {
    pub(super) folders: Vec<String>,
    pub(super) files: Vec<String>,
    /// Names that are no UTF-8, as far as they can be shown.
    odd: Vec<String>,
    pub(super) hidden: Vec<String>,
}

/// Lists a folder; links count as what they lead to.
///
/// # Errors
/// When it cannot be read, or a folder's name is no UTF-8.
pub(super) fn list(folder: &Path) -> Result<Listing> {
    let mut listing = Listing::default();
    for entry in fs_err::read_dir(folder).context("failed to list a folder of images")? {
        let entry = entry.context("failed to list a folder of images")?;
        let name = entry.file_name();
        let kind = entry
            .file_type()
            .context("failed to list a folder of images")?;
        let kind = if kind.is_symlink() {
            // One that leads nowhere stays among the files, and is named when it is opened.
            fs::metadata(entry.path()).map_or(kind, |metadata| metadata.file_type())
        } else {
            kind
        };
        let text = name.to_string_lossy();
        let whole = name.to_str().is_some();
        if text.starts_with('.') {
            if kind.is_dir() || sort_of(&text) != Sort::Other {
                listing.hidden.push(text.into_owned());
            }
        } else if kind.is_dir() {
            ensure!(
                whole,
                "the name of the folder `{text}` in `{}` is not UTF-8\nhint: rename it",
                shown(folder)
            );
            listing.folders.push(text.into_owned());
        } else if whole && (kind.is_file() || kind.is_symlink()) {
            listing.files.push(text.into_owned());
        } else {
            listing.odd.push(text.into_owned());
        }
    }
    listing.folders.sort_unstable();
    listing.files.sort_unstable();
    listing.hidden.sort_unstable();
    listing.odd.sort_unstable();
    Ok(listing)
}

/// All images below `root.join(start)`; their paths are relative to `root`.
///
/// Torchvision sorts `os.walk` by the path of the folder and each folder's files
/// by name: by code points, which is the order of UTF-8's bytes.
///
/// # Errors
/// When a folder cannot be listed, an image's name is no UTF-8, or there are
/// more folders or images than the limits allow.
pub(super) fn images(root: &Path, start: &str) -> Result<Found> {
    let mut found = Found::default();
    let mut folders: Vec<(String, Vec<String>)> = Vec::new();
    let mut waiting = Vec::new();
    let mut count = 0;
    // A link may lead back to the folder of the split or of the data set, too.
    let above: Vec<_> = Path::new(start)
        .ancestors()
        .skip(1)
        .map(|above| identity(&root.join(above)))
        .collect::<Result<_>>()?;
    enter(
        root,
        start.to_owned(),
        &above,
        &mut waiting,
        &mut found.left_out,
    )?;
    while let Some((folder, above)) = waiting.pop() {
        let path = root.join(&folder);
        let listing = list(&path)?;
        let within = |name: &str| format!("{folder}/{name}");
        for name in listing.hidden {
            found.left_out.hidden.add(|| within(&name));
        }
        for name in listing.odd {
            ensure!(
                sort_of(&name) != Sort::Image,
                "the name of the image `{}` is not UTF-8, or it is no file\nhint: rename or remove it",
                within(&name)
            );
            found.left_out.others.add(|| within(&name));
        }
        let mut images = Vec::new();
        for name in listing.files {
            match sort_of(&name) {
                Sort::Image => images.push(name),
                Sort::Unread => found.left_out.unread.add(|| within(&name)),
                Sort::Other => found.left_out.others.add(|| within(&name)),
            }
        }
        count += images.len();
        ensure!(
            count <= MOST_IMAGES,
            "`{start}` has more than {MOST_IMAGES} images"
        );
        for name in &listing.folders {
            enter(
                root,
                within(name),
                &above,
                &mut waiting,
                &mut found.left_out,
            )?;
        }
        folders.push((folder, images));
        if folders.len() + waiting.len() > MOST_FOLDERS {
            bail!("`{start}` has more than {MOST_FOLDERS} folders");
        }
    }
    folders.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    for (folder, images) in folders {
        found.images.enter(&folder);
        for name in &images {
            found.images.push(name);
        }
        found.folders.push(root.join(folder));
    }
    found.images.shrink();
    Ok(found)
}

/// A folder that is still to be listed, and what tells it and those above it.
type Waiting = (String, Vec<(u64, u64)>);

/// Remembers that `folder` is to be listed, unless it is one of those above it.
fn enter(
    root: &Path,
    folder: String,
    above: &[(u64, u64)],
    waiting: &mut Vec<Waiting>,
    left_out: &mut LeftOut,
) -> Result<()> {
    let identity = identity(&root.join(&folder))?;
    if above.contains(&identity) {
        left_out.circles.add(|| folder);
        return Ok(());
    }
    ensure!(
        above.len() < DEEPEST,
        "`{folder}` is more than {DEEPEST} folders deep"
    );
    waiting.push((folder, above.iter().copied().chain([identity]).collect()));
    Ok(())
}

/// What tells a folder from all others, however it was come to.
fn identity(folder: &Path) -> Result<(u64, u64)> {
    let metadata = fs_err::metadata(folder).context("failed to list a folder of images")?;
    Ok((metadata.dev(), metadata.ino()))
}
