//! Where CIFAR's files are: in a folder, in a folder within it, or in an archive.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use super::{archive, python};
use crate::data::{DataSpec, Format, Labels, shown};

/// How the files are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Binary,
    Python,
}

/// One published form of a data set.
pub(super) struct Layout {
    pub(super) format: Format,
    pub(super) form: Form,
    /// The folder in the archive.
    folder: &'static str,
    /// The archive as it is published.
    archive: &'static str,
    pub(super) train: &'static [&'static str],
    pub(super) test: &'static [&'static str],
    /// Files with the names of classes; CIFAR-100's binary form has a second for the coarse ones.
    pub(super) names: &'static [&'static str],
}

/// All four, binary ones first.
pub(super) const LAYOUTS: [Layout; 4] = [
    Layout {
        format: Format::Cifar10,
        form: Form::Binary,
        folder: "cifar-10-batches-bin",
        archive: "cifar-10-binary.tar.gz",
        train: &[
            "data_batch_1.bin",
            "data_batch_2.bin",
            "data_batch_3.bin",
            "data_batch_4.bin",
            "data_batch_5.bin",
        ],
        test: &["test_batch.bin"],
        names: &["batches.meta.txt"],
    },
    Layout {
        format: Format::Cifar100,
        form: Form::Binary,
        folder: "cifar-100-binary",
        archive: "cifar-100-binary.tar.gz",
        train: &["train.bin"],
        test: &["test.bin"],
        names: &["fine_label_names.txt", "coarse_label_names.txt"],
    },
    Layout {
        format: Format::Cifar10,
        form: Form::Python,
        folder: "cifar-10-batches-py",
        archive: "cifar-10-python.tar.gz",
        train: &[
            "data_batch_1",
            "data_batch_2",
            "data_batch_3",
            "data_batch_4",
            "data_batch_5",
        ],
        test: &["test_batch"],
        names: &["batches.meta"],
    },
    Layout {
        format: Format::Cifar100,
        form: Form::Python,
        folder: "cifar-100-python",
        archive: "cifar-100-python.tar.gz",
        train: &["train"],
        test: &["test"],
        names: &["meta"],
    },
];

impl Layout {
    /// All files of this form.
    pub(super) fn files(&self) -> impl Iterator<Item = &'static str> + Clone {
        let lists = [self.train, self.test, self.names];
        lists.into_iter().flatten().copied()
    }

    /// The keys of labels and of class names in pickles.
    pub(super) const fn keys(&self, labels: Labels) -> (&'static str, &'static str) {
        python::keys(self.format, labels)
    }
}

/// What people call the data set, and what they write for it.
pub(super) const fn names(format: Format) -> (&'static str, &'static str) {
    match format {
        Format::Cifar10 => ("CIFAR-10", "cifar10"),
        Format::Cifar100 => ("CIFAR-100", "cifar100"),
        Format::Folder => ("a folder of images", "folder"),
    }
}

/// Where a whole data set was found.
pub(super) enum Place {
    Folder {
        /// Below the path that was named.
        within: Option<PathBuf>,
        folder: PathBuf,
        layout: &'static Layout,
    },
    Archive {
        within: Option<PathBuf>,
        file: PathBuf,
    },
}

impl Place {
    /// The files that it consists of, and the folder whose entries decided that.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let (within, mut files) = match self {
            Self::Folder {
                within,
                folder,
                layout,
            } => (
                within,
                layout.files().map(|name| folder.join(name)).collect(),
            ),
            Self::Archive { within, file } => (within, vec![file.clone()]),
        };
        files.extend(within.clone());
        files
    }
}

/// Where it was looked for in vain.
pub(super) struct Missing {
    path: PathBuf,
    format: Format,
    /// The form of which most is there, its folder, and its files that are not.
    nearest: Option<(&'static Layout, PathBuf, Vec<&'static str>)>,
    /// A whole data set of the other format that is there instead.
    other: Option<Format>,
}

/// Finds the files at `path`, which are not opened.
pub(super) fn locate(format: Format, path: &Path) -> Result<Place, Missing> {
    if path.is_file() {
        return Ok(Place::Archive {
            within: None,
            file: path.to_owned(),
        });
    }
    let mut missing = Missing {
        path: path.to_owned(),
        format,
        nearest: None,
        other: None,
    };
    if !path.is_dir() {
        return Err(missing);
    }
    let within = Some(path.to_owned());
    for inside in [false, true] {
        for layout in &LAYOUTS {
            let folder = if inside {
                path.join(layout.folder)
            } else {
                path.to_owned()
            };
            let absent: Vec<_> = layout
                .files()
                .filter(|name| !folder.join(name).is_file())
                .collect();
            if layout.format != format {
                if absent.is_empty() {
                    missing.other = Some(layout.format);
                }
            } else if absent.is_empty() {
                return Ok(Place::Folder {
                    within: within.filter(|_| inside),
                    folder,
                    layout,
                });
            } else if absent.len() < layout.files().count()
                && missing
                    .nearest
                    .as_ref()
                    .is_none_or(|(.., fewest)| absent.len() < fewest.len())
            {
                missing.nearest = Some((layout, folder, absent));
            }
        }
    }
    for layout in LAYOUTS.iter().filter(|layout| layout.format == format) {
        let file = path.join(layout.archive);
        if file.is_file() {
            return Ok(Place::Archive { within, file });
        }
    }
    Err(missing)
}

impl Missing {
    fn layouts(&self) -> impl Iterator<Item = &'static Layout> {
        LAYOUTS.iter().filter(|layout| layout.format == self.format)
    }

    /// The files that would make the data set.
    pub(super) fn wanted(&self) -> Vec<PathBuf> {
        let first = self
            .layouts()
            .next()
            .map(|layout| (layout, self.path.clone()));
        let nearest = self
            .nearest
            .as_ref()
            .map(|(layout, folder, _)| (*layout, folder.clone()));
        let files = |(layout, folder): (&Layout, PathBuf)| {
            layout.files().map(|name| folder.join(name)).collect()
        };
        nearest.or(first).map(files).unwrap_or_default()
    }

    /// What is lacking, in words that follow "lacks".
    pub(super) fn words(&self) -> String {
        let path = shown(&self.path);
        if !self.path.exists() {
            return format!("its folder or archive: `{path}` does not exist");
        }
        if let Some((_, folder, absent)) = &self.nearest {
            let first = absent
                .first()
                .map_or_else(String::new, |name| shown(&folder.join(name)));
            return match absent.len() {
                1 => format!("the file `{first}`"),
                n => format!("the file `{first}` and {} more in that folder", n - 1),
            };
        }
        let mut looked = Vec::new();
        for layout in self.layouts() {
            let first = layout.files().next().unwrap_or_default();
            let more = layout.files().count() - 1;
            looked.push(format!("`{first}` and {more} more"));
            looked.extend([layout.folder, layout.archive].map(|name| format!("`{name}`")));
        }
        let last = looked.pop().unwrap_or_default();
        format!(
            "all its files: `{path}` holds neither {} nor {last}",
            looked.join(", ")
        )
    }

    /// As an error, with what may have been meant.
    pub(super) fn explained(&self, spec: &DataSpec) -> String {
        let (name, _) = names(self.format);
        let hint = if let Some(other) = self.other {
            let (other, format) = names(other);
            format!("the folder holds {other}: write format = \"{format}\"")
        } else if self.path.is_dir() && self.nearest.is_none() && has_folders(&self.path) {
            format!(
                "for folders of images write format = \"folder\"; {name} itself is at https://www.cs.toronto.edu/~kriz/cifar.html"
            )
        } else if self.nearest.is_some() {
            "unpack or download the data set again".to_owned()
        } else {
            format!(
                "name the folder or the `.tar.gz` as downloaded from https://www.cs.toronto.edu/~kriz/cifar.html; a path is relative to the file that names it, and `{}` was looked for",
                spec.path.display()
            )
        };
        format!("{name} lacks {}\nhint: {hint}", self.words())
    }
}

fn has_folders(path: &Path) -> bool {
    fs::read_dir(path).is_ok_and(|entries| entries.flatten().any(|entry| entry.path().is_dir()))
}

/// Files that can be taken by name.
pub(super) enum Source {
    Folder(PathBuf, &'static Layout),
    Archive(archive::Archive),
}

impl Source {
    /// Reads an archive; a folder's files are read when they are taken.
    pub(super) fn open(place: &Place, format: Format) -> Result<Self> {
        match place {
            Place::Folder { folder, layout, .. } => Ok(Self::Folder(folder.clone(), layout)),
            Place::Archive { file, .. } => archive::Archive::read(file, format).map(Self::Archive),
        }
    }

    pub(super) fn layout(&self) -> &'static Layout {
        match self {
            Self::Folder(_, layout) => layout,
            Self::Archive(archive) => archive.layout,
        }
    }

    /// The bytes of the file called `name`, and the name to show for it. An
    /// archive's can be taken once.
    pub(super) fn take(&mut self, name: &str) -> Result<(Vec<u8>, String)> {
        match self {
            Self::Folder(folder, _) => {
                let path = folder.join(name);
                let size = fs_err::metadata(&path)
                    .context("failed to read a data set")?
                    .len();
                ensure!(
                    size <= archive::MOST_BYTES as u64,
                    "`{}` has {size} bytes, more than any file of the data set",
                    shown(&path)
                );
                let bytes = fs_err::read(&path).context("failed to read a data set")?;
                Ok((bytes, shown(&path)))
            }
            Self::Archive(archive) => archive.take(name),
        }
    }
}
