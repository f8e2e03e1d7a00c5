//! CIFAR-10 and CIFAR-100 in their binary form: records of label bytes and
//! 3,072 planar pixels (<https://www.cs.toronto.edu/~kriz/cifar.html>).

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::{Format, Labels, Pixels, read};

const SIDE: usize = 32;
const PLANE: usize = SIDE * SIDE;
const IMAGE: usize = 3 * PLANE;

const TRAIN: [&str; 5] = [
    "data_batch_1.bin",
    "data_batch_2.bin",
    "data_batch_3.bin",
    "data_batch_4.bin",
    "data_batch_5.bin",
];

/// Names of the files of `format`.
pub(super) const fn file_names(format: Format) -> &'static [&'static str] {
    match format {
        Format::Cifar10 => &[
            TRAIN[0],
            TRAIN[1],
            TRAIN[2],
            TRAIN[3],
            TRAIN[4],
            "test_batch.bin",
            "batches.meta.txt",
        ],
        Format::Cifar100 => &[
            "train.bin",
            "test.bin",
            "fine_label_names.txt",
            "coarse_label_names.txt",
        ],
    }
}

/// The images of a split, planar as in the files, without their labels.
pub(super) struct Images(Vec<u8>);

impl Images {
    /// All pixels, image after image.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Keeps the first `n` images.
    pub(super) fn truncate(&mut self, n: usize) {
        self.0.truncate(n.saturating_mul(IMAGE));
    }

    /// Image `i`, interleaved.
    pub(super) fn get(&self, i: usize) -> Pixels {
        let planar = &self.0[i * IMAGE..(i + 1) * IMAGE];
        let mut rgb = Vec::with_capacity(IMAGE);
        for p in 0..PLANE {
            rgb.extend([planar[p], planar[PLANE + p], planar[2 * PLANE + p]]);
        }
        Pixels {
            width: SIDE,
            height: SIDE,
            rgb,
        }
    }
}

/// What the files say, before overrides.
pub(super) struct Raw {
    pub(super) classes: Vec<String>,
    pub(super) splits: Vec<(&'static str, Vec<usize>, Images)>,
}

pub(super) fn read_cifar10(folder: &Path) -> Result<Raw> {
    let classes = names(folder, "batches.meta.txt")?;
    let mut train = (Vec::new(), Vec::new());
    for name in TRAIN {
        let (labels, pixels) = records(folder, name, 1, 0, classes.len())?;
        train.0.extend(labels);
        train.1.extend(pixels);
    }
    let test = records(folder, "test_batch.bin", 1, 0, classes.len())?;
    Ok(Raw {
        classes,
        splits: vec![
            ("train", train.0, Images(train.1)),
            ("test", test.0, Images(test.1)),
        ],
    })
}

pub(super) fn read_cifar100(folder: &Path, labels: Labels) -> Result<Raw> {
    let (column, list) = match labels {
        Labels::Coarse => (0, "coarse_label_names.txt"),
        Labels::Fine => (1, "fine_label_names.txt"),
    };
    let classes = names(folder, list)?;
    let train = records(folder, "train.bin", 2, column, classes.len())?;
    let test = records(folder, "test.bin", 2, column, classes.len())?;
    Ok(Raw {
        classes,
        splits: vec![
            ("train", train.0, Images(train.1)),
            ("test", test.0, Images(test.1)),
        ],
    })
}

/// One class name a line; CIFAR-100's underscores stay as they are.
fn names(folder: &Path, name: &str) -> Result<Vec<String>> {
    let path = folder.join(name);
    let text = String::from_utf8(read(&path)?)
        .with_context(|| format!("failed to read `{}`", path.display()))?;
    let names: Vec<String> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect();
    ensure!(!names.is_empty(), "`{}` names no class", path.display());
    Ok(names)
}

/// Labels (of `column`) and pixels of one file whose records begin with
/// `label_bytes` label bytes.
fn records(
    folder: &Path,
    name: &str,
    label_bytes: usize,
    column: usize,
    classes: usize,
) -> Result<(Vec<usize>, Vec<u8>)> {
    let path = folder.join(name);
    let bytes = read(&path)?;
    let size = label_bytes + IMAGE;
    if bytes.is_empty() || bytes.len() % size != 0 {
        bail!(
            "`{}` has {} bytes, which is no multiple of the record size {size}\nhint: the file is truncated or of another format; unpack or download it again",
            path.display(),
            bytes.len()
        );
    }
    let mut labels = Vec::with_capacity(bytes.len() / size);
    let mut pixels = Vec::with_capacity(bytes.len());
    for (i, record) in bytes.chunks_exact(size).enumerate() {
        let label = usize::from(record[column]);
        ensure!(
            label < classes,
            "record {i} of `{}` has the label {label}, but there are {classes} class names",
            path.display()
        );
        labels.push(label);
        pixels.extend(&record[label_bytes..]);
    }
    Ok((labels, pixels))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{DataSet, DataSpec};

    fn write(folder: &Path, label_bytes: usize, names: &[&str], records: &[(u8, u8)]) {
        for name in names {
            let mut bytes = Vec::new();
            for (label, fill) in records {
                bytes.extend(std::iter::repeat_n(*label, label_bytes));
                bytes.extend((0..IMAGE).map(|i| fill.wrapping_add((i / PLANE) as u8)));
            }
            fs_err::write(folder.join(name), bytes).unwrap();
        }
    }

    fn spec(folder: &Path) -> DataSpec {
        DataSpec {
            format: Format::Cifar10,
            path: folder.to_owned(),
            labels: Labels::Fine,
            class_names: None,
            limit: None,
            digest: None,
        }
    }

    fn small() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), 1, &TRAIN, &[(0, 10), (1, 20)]);
        write(folder.path(), 1, &["test_batch.bin"], &[(1, 7)]);
        fs_err::write(folder.path().join("batches.meta.txt"), "cat\ndog\n\n").unwrap();
        folder
    }

    #[test]
    fn records_become_interleaved_images_with_labels() {
        let folder = small();
        let set = DataSet::open(&spec(folder.path())).unwrap();
        let train = set.split("train").unwrap();
        assert_eq!(train.labels(), [0, 1, 0, 1, 0, 1, 0, 1, 0, 1]);
        assert_eq!(train.image(1).rgb[..6], [20, 21, 22, 20, 21, 22]);
        assert_eq!(set.classes().names(), ["cat", "dog"]);
    }

    #[test]
    fn a_limit_and_other_names_are_taken() {
        let folder = small();
        let mut spec = spec(folder.path());
        let whole = DataSet::open(&spec).unwrap();
        spec.limit = Some(3);
        spec.class_names = Some(vec!["kitten".into(), "puppy".into()]);
        let set = DataSet::open(&spec).unwrap();
        assert_eq!(set.split("train").unwrap().len(), 3);
        assert_eq!(set.classes().names(), ["kitten", "puppy"]);
        assert_eq!(
            set.split("test").unwrap().images_digest(),
            whole.split("test").unwrap().images_digest(),
            "names do not touch the images' digest"
        );
        assert_ne!(set.digest(), whole.digest());
    }

    #[test]
    fn broken_files_are_named() {
        let folder = small();
        let error = |spec: &DataSpec| format!("{:#}", DataSet::open(spec).err().unwrap());
        let path = folder.path().join("data_batch_3.bin");
        let good = fs_err::read(&path).unwrap();
        fs_err::write(&path, &good[..100]).unwrap();
        assert!(error(&spec(folder.path())).contains("data_batch_3.bin"));
        fs_err::write(&path, b"").unwrap();
        assert!(error(&spec(folder.path())).contains("record size 3073"));
        let mut wrong = good.clone();
        wrong[0] = 2;
        fs_err::write(&path, wrong).unwrap();
        assert!(error(&spec(folder.path())).contains("the label 2"));
        fs_err::remove_file(&path).unwrap();
        assert!(error(&spec(folder.path())).contains("data_batch_3.bin"));
    }

    #[test]
    fn another_file_is_not_the_pinned_one() {
        let folder = small();
        let mut pinned = spec(folder.path());
        pinned.digest = Some(DataSet::open(&pinned).unwrap().digest());
        assert!(DataSet::open(&pinned).is_ok());
        write(folder.path(), 1, &["test_batch.bin"], &[(1, 8)]);
        assert!(DataSet::open(&pinned).is_err());
    }
}
