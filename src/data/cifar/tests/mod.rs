//! Every published form gives the same data; every broken one says what is wrong.

mod broken;

use std::{
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
};

use flate2::{Compression, read::GzDecoder, write::GzEncoder};

use super::*;
use crate::{
    data::{ClassNames, DataSet, Format, absent, files},
    digest::FileMemo,
};

const TEN: [&str; 3] = ["airplane", "automobile", "bird"];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/data")
        .join(name)
}

fn open(spec: &DataSpec) -> Result<DataSet> {
    DataSet::open(spec, &FileMemo::in_memory())
}

fn spec(format: Format, path: impl Into<PathBuf>) -> DataSpec {
    DataSpec::new(format, path)
}

fn error(format: Format, path: impl Into<PathBuf>) -> String {
    let text = match open(&spec(format, path)) {
        Ok(_) => panic!("it can be opened"),
        Err(error) => format!("{error:#}"),
    };
    assert!(text.contains("\nhint: "), "{text}");
    text
}

/// Image `i` of the fixtures, planar.
fn image(i: usize) -> Vec<u8> {
    let value = |p: usize| match p / PLANE {
        0 => 3 * i + p % SIDE,
        1 => 5 * i + p % PLANE / SIDE,
        _ => i,
    };
    (0..IMAGE).map(|p| value(p) as u8).collect()
}

/// A file of records: label bytes and the image, for each `(labels, image)`.
fn records(list: &[(&[u8], usize)]) -> Vec<u8> {
    let records = list
        .iter()
        .map(|(labels, i)| [*labels, &image(*i)].concat());
    records.collect::<Vec<_>>().concat()
}

/// CIFAR-10 in its binary form, as the archive for Python has it.
fn ten() -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = (0..6)
        .map(|b| {
            let name = match b {
                5 => "test_batch.bin".to_owned(),
                b => format!("data_batch_{}.bin", b + 1),
            };
            let first = [(b % 3) as u8];
            (name, records(&[(&first, 2 * b), (&[2], 2 * b + 1)]))
        })
        .collect();
    files.push((
        "batches.meta.txt".into(),
        b"airplane\nautomobile\nbird\n\n".to_vec(),
    ));
    files
}

/// CIFAR-100 likewise.
fn hundred() -> Vec<(String, Vec<u8>)> {
    let labels: Vec<_> = (0..6).map(|i: u8| [i % 2, i % 5]).collect();
    let list: Vec<(&[u8], usize)> = labels.iter().map(|l| &l[..]).zip(0..).collect();
    vec![
        ("train.bin".into(), records(&list[..4])),
        ("test.bin".into(), records(&list[4..])),
        (
            "fine_label_names.txt".into(),
            b"apple\naquarium_fish\nbaby\nbear\nbeaver\n".to_vec(),
        ),
        (
            "coarse_label_names.txt".into(),
            b"aquatic_mammals\nfish\n".to_vec(),
        ),
    ]
}

fn put(folder: &Path, files: &[(String, Vec<u8>)]) {
    fs::create_dir_all(folder).unwrap();
    for (name, bytes) in files {
        fs::write(folder.join(name), bytes).unwrap();
    }
}

fn tar(folder: &str, files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        archive
            .append_data(&mut header, format!("{folder}/{name}"), &bytes[..])
            .unwrap();
    }
    archive.into_inner().unwrap()
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut out = GzEncoder::new(Vec::new(), Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

fn ungz(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    GzDecoder::new(fs::File::open(path).unwrap())
        .read_to_end(&mut bytes)
        .unwrap();
    bytes
}

/// The files that Python wrote, out of their archive.
fn python(archive: &str) -> Vec<(String, Vec<u8>)> {
    let bytes = ungz(&fixture(archive));
    let mut files = Vec::new();
    for entry in tar::Archive::new(&bytes[..]).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry
            .path()
            .unwrap()
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        if entry.header().entry_type().is_file() {
            files.push((name, bytes));
        }
    }
    files
}

/// A changed copy of `files`.
fn with(
    files: &[(String, Vec<u8>)],
    name: &str,
    change: impl Fn(&mut Vec<u8>),
) -> Vec<(String, Vec<u8>)> {
    let mut files = files.to_vec();
    let file = files.iter_mut().find(|(known, _)| known == name).unwrap();
    change(&mut file.1);
    files
}

fn without(files: &[(String, Vec<u8>)], name: &str) -> Vec<(String, Vec<u8>)> {
    files
        .iter()
        .filter(|(known, _)| known != name)
        .cloned()
        .collect()
}

/// Labels, images and their identities.
type Told = (Vec<usize>, Vec<Pixels>, Vec<String>);

/// Everything that is told of a data set.
fn all(set: &DataSet) -> (Vec<String>, [Told; 2], String) {
    let splits = ["train", "test"].map(|name| {
        let split = set.split(name).unwrap();
        let ids = (0..split.len()).map(|i| split.image_id(i).to_string());
        let images = (0..split.len()).map(|i| split.image(i).unwrap());
        (split.labels().to_vec(), images.collect(), ids.collect())
    });
    let digest = set.digest().to_string();
    (set.classes().names().to_vec(), splits, digest)
}

#[test]
fn every_form_of_cifar_10_is_the_same() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    put(&at("bin"), &ten());
    put(&at("py"), &python("cifar-10-python.tar.gz"));
    put(&at("a/cifar-10-batches-bin"), &ten());
    put(
        &at("b/cifar-10-batches-py"),
        &python("cifar-10-python.tar.gz"),
    );
    fs::create_dir(at("c")).unwrap();
    fs::write(
        at("c/cifar-10-binary.tar.gz"),
        gz(&tar("cifar-10-batches-bin", &ten())),
    )
    .unwrap();
    fs::write(at("renamed.download"), gz(&tar("x/y", &ten()))).unwrap();
    fs::write(at("unpacked.tar"), tar("cifar-10-batches-bin", &ten())).unwrap();
    let first = open(&spec(Format::Cifar10, at("bin"))).unwrap();
    let train = first.split("train").unwrap();
    assert_eq!(first.classes().names(), TEN);
    assert_eq!(train.labels(), [0, 2, 1, 2, 2, 2, 0, 2, 1, 2]);
    assert_eq!(first.split("test").unwrap().labels(), [2, 2]);
    assert_eq!(train.image(7).unwrap().rgb[..6], [21, 35, 7, 22, 35, 7]);
    assert_eq!(train.image_id(7), train.image(7).unwrap().digest());
    assert_eq!(train.image_name(7), "train/7");
    let path = fixture("cifar-10-python.tar.gz");
    for path in [
        at("py"),
        at("a"),
        at("b"),
        at("c"),
        at("renamed.download"),
        at("unpacked.tar"),
        path,
    ] {
        let set = open(&spec(Format::Cifar10, &path)).unwrap();
        assert!(all(&set) == all(&first), "{}", path.display());
    }
}

#[test]
fn every_form_of_cifar_100_is_the_same() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    put(&at("bin"), &hundred());
    put(
        &at("a/cifar-100-python"),
        &python("cifar-100-python.tar.gz"),
    );
    fs::write(at("x.tar.gz"), gz(&tar("cifar-100-binary", &hundred()))).unwrap();
    for (labels, names, train) in [
        (Labels::Fine, 5, [0, 1, 2, 3]),
        (Labels::Coarse, 2, [0, 1, 0, 1]),
    ] {
        let of = |path: PathBuf| {
            let mut spec = spec(Format::Cifar100, path);
            spec.labels = labels;
            open(&spec).unwrap()
        };
        let first = of(at("bin"));
        assert_eq!(first.classes().names().len(), names);
        assert_eq!(first.split("train").unwrap().labels(), train);
        for path in [at("a"), at("x.tar.gz"), fixture("cifar-100-python.tar.gz")] {
            assert!(all(&of(path.clone())) == all(&first), "{}", path.display());
        }
    }
}

#[test]
fn digests_stay_what_they_were() {
    // Results are stored under keys that are made of these.
    let set = open(&spec(Format::Cifar10, fixture("cifar-10-python.tar.gz"))).unwrap();
    let digest = "cac6d8f9eed8973f45e3a0419786c5464e445f6bf760325a227474f9ad45b2d9";
    assert_eq!(set.digest().to_string(), digest);
    let image = "06b4afd47197586f7ed6ce43fd40b98e11ca9fed70a6b7e6aae22a87f1f8eea6";
    assert_eq!(set.split("train").unwrap().image_id(1).to_string(), image);
    assert_eq!(
        set.split("train").unwrap().labels_digest().to_string(),
        "2b22e8f0d9e53202b6c01e949922f0e109e0aed151e73443899098ef73273148"
    );
}

#[test]
fn a_limit_and_other_names_are_taken() {
    let root = tempfile::tempdir().unwrap();
    put(root.path(), &ten());
    let mut spec = spec(Format::Cifar10, root.path());
    let whole = open(&spec).unwrap();
    spec.limit = Some(3);
    spec.class_names = Some(ClassNames::List(
        ["jet", "car", "crow"].map(str::to_owned).into(),
    ));
    let set = open(&spec).unwrap();
    let train = set.split("train").unwrap();
    assert_eq!((train.len(), train.labels()), (3, &[0, 2, 1][..]));
    assert!(train.image(2).is_ok());
    assert_eq!(
        train.image(3).unwrap_err().to_string(),
        "there is no image 3 among 3"
    );
    assert_eq!(set.classes().names(), ["jet", "car", "crow"]);
    assert_eq!(
        set.split("test").unwrap().images_digest(),
        whole.split("test").unwrap().images_digest(),
        "names do not touch the images' digest"
    );
    assert_ne!(set.digest(), whole.digest());
    spec.class_names = Some(ClassNames::List(vec!["jet".into()]));
    let error = open(&spec).err().unwrap().to_string();
    assert!(
        error.contains("has 1 name, but") && error.contains("has 3 classes"),
        "{error}"
    );
}

#[test]
fn other_data_is_not_the_pinned_data() {
    let root = tempfile::tempdir().unwrap();
    put(root.path(), &ten());
    let mut pinned = spec(Format::Cifar10, root.path());
    pinned.digest = Some(open(&pinned).unwrap().digest());
    assert!(open(&pinned).is_ok());
    put(
        root.path(),
        &with(&ten(), "test_batch.bin", |bytes| bytes[5] ^= 1),
    );
    let error = open(&pinned).err().unwrap().to_string();
    assert!(error.contains("is not the pinned data"), "{error}");
}
