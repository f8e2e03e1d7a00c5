//! Folders as torchvision takes them, and what is said of those laid out otherwise.

mod mistakes;

use std::{
    collections::BTreeMap,
    fs::{self, File, FileTimes},
    os::unix::fs::symlink,
    path::Path,
    time::{Duration, SystemTime},
};

use super::*;
use crate::data::{ClassNames, DataSet, Format, Pixels, absent, files};

fn fixture(name: &str) -> Vec<u8> {
    fs::read(
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures/data")
            .join(name),
    )
    .unwrap()
}

/// A folder with these files; the names of images decide what is in them.
fn tree(names: &[&str]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (i, name) in names.iter().enumerate() {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut bytes = fixture("pillow-rgb.png");
        bytes.extend(i.to_string().into_bytes());
        fs::write(path, bytes).unwrap();
    }
    root
}

fn spec(root: &tempfile::TempDir, splits: &[&str]) -> DataSpec {
    let mut spec = DataSpec::new(Format::Folder, root.path());
    spec.splits = splits.iter().map(|s| (*s).to_owned()).collect();
    spec
}

fn open(spec: &DataSpec) -> Result<DataSet> {
    DataSet::open(spec, &FileMemo::in_memory())
}

fn error(spec: &DataSpec) -> String {
    let text = match open(spec) {
        Ok(_) => panic!("it can be opened"),
        Err(error) => format!("{error:#}"),
    };
    assert!(text.contains("\nhint: "), "{text}");
    text
}

fn names(set: &DataSet, split: &str) -> Vec<(String, usize)> {
    let split = set.split(split).unwrap();
    (0..split.len())
        .map(|i| (split.image_name(i), split.labels()[i]))
        .collect()
}

#[test]
fn classes_and_images_are_in_the_order_of_torchvision() {
    // Classes and samples as `torchvision.datasets.ImageFolder` gives them.
    let root = tree(&[
        "b/2.png",
        "b/10.png",
        "b/x/1.JPG",
        "b/x-y/1.jpeg",
        "b/x/z/1.webp",
        "b/x/notes.txt",
        "B/1.png",
        "é/1.png",
        "a.b/1.png",
        "𝄞/1.png",
        "ﬀ/1.png",
        "b/Z.PNG",
        "b/_.png",
    ]);
    let set = open(&spec(&root, &[])).unwrap();
    assert_eq!(set.classes().names(), ["B", "a.b", "b", "é", "ﬀ", "𝄞"]);
    let expected = [
        ("B/1.png", 0),
        ("a.b/1.png", 1),
        ("b/10.png", 2),
        ("b/2.png", 2),
        ("b/Z.PNG", 2),
        ("b/_.png", 2),
        ("b/x/1.JPG", 2),
        ("b/x-y/1.jpeg", 2),
        ("b/x/z/1.webp", 2),
        ("é/1.png", 3),
        ("ﬀ/1.png", 4),
        ("𝄞/1.png", 5),
    ];
    let got = names(&set, "");
    let got: Vec<_> = got
        .iter()
        .map(|(name, label)| (name.as_str(), *label))
        .collect();
    assert_eq!(got, expected);
    assert_eq!(set.split("").unwrap().name(), "");
    assert_eq!(
        set.warnings(),
        ["1 file that is no image was left out: `b/x/notes.txt`"]
    );
}

#[test]
fn splits_are_folders_with_the_same_classes() {
    let root = tree(&[
        "train/cat/1.png",
        "train/cat/2.png",
        "train/dog/1.png",
        "val/cat/1.png",
        "val/dog/1.png",
        "rest/x.txt",
    ]);
    let set = open(&spec(&root, &["train", "val"])).unwrap();
    assert_eq!(set.classes().names(), ["cat", "dog"]);
    assert_eq!(
        names(&set, "train"),
        [
            ("train/cat/1.png".into(), 0),
            ("train/cat/2.png".into(), 0),
            ("train/dog/1.png".into(), 1)
        ]
    );
    assert_eq!(names(&set, "val").len(), 2);
    assert!(set.split("").is_none());
    assert!(set.warnings().is_empty(), "{:?}", set.warnings());
}

#[test]
fn an_image_is_decoded_by_its_content_and_known_by_its_bytes() {
    let root = tree(&["cat/0.png"]);
    let at = |name: &str| root.path().join("cat").join(name);
    fs::write(at("a.png"), fixture("pillow-420-baseline.jpg")).unwrap();
    fs::write(at("b.jpeg"), fixture("lossless.webp")).unwrap();
    fs::write(at("c.webp"), fixture("pillow-rgb.png")).unwrap();
    fs::write(at("d.jpg"), fixture("pillow-rgb.png")).unwrap();
    let set = open(&spec(&root, &[])).unwrap();
    let split = set.split("").unwrap();
    let size = |i| {
        split
            .image(i)
            .map(|Pixels { width, height, .. }| (width, height))
            .unwrap()
    };
    assert_eq!([size(1), size(2), size(3)], [(37, 29), (33, 21), (21, 13)]);
    assert_eq!(
        split.image_id(3),
        split.image_id(4),
        "equal files, one image"
    );
    assert_ne!(
        split.image_id(0),
        split.image_id(3),
        "the same pixels from other bytes"
    );
    assert_eq!(
        split.image_id(1),
        identity(Digest::of(&fixture("pillow-420-baseline.jpg")))
    );
    // Neither name, nor class, nor split is part of it.
    let other = tree(&["train/x/1.png"]);
    fs::write(
        other.path().join("train/x/1.png"),
        fixture("pillow-420-baseline.jpg"),
    )
    .unwrap();
    let other = open(&spec(&other, &["train"])).unwrap();
    assert_eq!(other.split("train").unwrap().image_id(0), split.image_id(1));
}

#[test]
fn an_image_that_cannot_be_decoded_is_named() {
    let root = tree(&["cat/1.png"]);
    let path = root.path().join("cat/2.jpg");
    let told = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let set = open(&spec(&root, &[])).unwrap();
        let text = format!("{:#}", set.split("").unwrap().image(1).unwrap_err());
        assert!(
            text.contains("failed to decode `") && text.contains("cat/2.jpg`: "),
            "{text}"
        );
        text
    };
    let jpeg = fixture("pillow-420-baseline.jpg");
    assert!(told(&jpeg[..jpeg.len() / 2]).ends_with("the file is truncated"));
    assert!(told(b"").ends_with("the file is empty"));
    assert!(told(b"GIF89a").ends_with("it is no PNG, JPEG or WebP image but a GIF image"));
    let set = open(&spec(&root, &[])).unwrap();
    assert_eq!(
        set.split("").unwrap().image(2).unwrap_err().to_string(),
        "there is no image 2 among 2"
    );
}

#[test]
fn an_image_that_changes_meanwhile_is_not_taken_for_the_old_one() {
    let root = tree(&["cat/1.png"]);
    let set = open(&spec(&root, &[])).unwrap();
    let split = set.split("").unwrap();
    assert!(split.image(0).is_ok());
    fs::write(root.path().join("cat/1.png"), fixture("pillow-l.png")).unwrap();
    let text = format!("{:#}", split.image(0).unwrap_err());
    assert!(
        text.contains("cat/1.png` has changed since the data set was opened"),
        "{text}"
    );
    fs::remove_file(root.path().join("cat/1.png")).unwrap();
    let text = format!("{:#}", split.image(0).unwrap_err());
    assert!(text.contains("cat/1.png"), "{text}");
}

#[test]
fn digests_follow_images_and_labels() {
    let root = tree(&["cat/1.png", "cat/2.png", "dog/1.png"]);
    let digests = || {
        let set = open(&spec(&root, &[])).unwrap();
        let split = set.split("").unwrap().clone();
        (split.images_digest(), split.labels_digest(), set.digest())
    };
    let first = digests();
    assert_eq!(first, digests());
    fs::rename(root.path().join("cat/2.png"), root.path().join("dog/0.png")).unwrap();
    let moved = digests();
    assert_eq!(first.0, moved.0, "the same images in the same order");
    assert_ne!(first.1, moved.1);
    fs::write(root.path().join("dog/1.png"), b"other").unwrap();
    assert_ne!(moved.0, digests().0);
}

#[test]
fn files_are_read_once_and_then_remembered() {
    let root = tree(&["cat/1.png", "cat/2.png"]);
    let path = root.path().join("cat/1.png");
    let old = SystemTime::now() - Duration::from_hours(1);
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_times(FileTimes::new().set_modified(old))
        .unwrap();
    let memo = FileMemo::in_memory();
    let mark = Digest::of(b"mark");
    let known = crate::digest::Identity::of(&fs::metadata(&path).unwrap());
    memo.remember(&known, SystemTime::now() + Duration::from_secs(10), mark);
    let set = DataSet::open(&spec(&root, &[]), &memo).unwrap();
    assert_eq!(
        set.split("").unwrap().image_id(0),
        identity(mark),
        "the file was read"
    );
}

#[test]
fn a_limit_takes_from_every_class_in_turn() {
    let root = tree(&[
        "a/1.png", "a/2.png", "a/3.png", "b/1.png", "c/1.png", "c/2.png",
    ]);
    let with = |limit| {
        let mut spec = spec(&root, &[]);
        spec.limit = Some(limit);
        let set = open(&spec).unwrap();
        let names: Vec<_> = names(&set, "").into_iter().map(|(name, _)| name).collect();
        (
            names.join(" "),
            set.split("").unwrap().labels().to_vec(),
            set.warnings().to_vec(),
        )
    };
    assert_eq!(with(3).0, "a/1.png b/1.png c/1.png");
    assert_eq!(with(5).0, "a/1.png a/2.png b/1.png c/1.png c/2.png");
    assert_eq!(with(5).1, [0, 0, 1, 2, 2]);
    assert_eq!(with(6), with(100));
    assert!(with(3).2.is_empty());
    let (names, _, warnings) = with(2);
    assert_eq!(names, "a/1.png b/1.png");
    assert_eq!(
        warnings,
        ["`limit = 2` leaves no image of 1 of the 3 classes"]
    );
}

#[test]
fn class_names_are_taken_by_position_or_by_folder() {
    let root = tree(&["n01/1.png", "n02/1.png"]);
    let mut spec = spec(&root, &[]);
    spec.class_names = Some(ClassNames::List(vec!["tench".into(), "goldfish".into()]));
    assert_eq!(
        open(&spec).unwrap().classes().names(),
        ["tench", "goldfish"]
    );
    let table = |pairs: &[(&str, &str)]| {
        let pairs = pairs
            .iter()
            .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()));
        Some(ClassNames::Table(pairs.collect::<BTreeMap<_, _>>()))
    };
    spec.class_names = table(&[("n02", "goldfish"), ("n03", "shark"), ("n04", "ray")]);
    let set = open(&spec).unwrap();
    assert_eq!(set.classes().names(), ["n01", "goldfish"]);
    let [warning] = set.warnings() else { panic!() };
    assert!(
        warning.starts_with("`class_names` names 2 folders that `"),
        "{warning}"
    );
    assert!(
        warning.ends_with("has not; the first is `n03`"),
        "{warning}"
    );
    spec.class_names = table(&[("n01", "crane"), ("n02", "crane")]);
    let text = format!("{:#}", open(&spec).err().unwrap());
    assert!(text.contains("class `crane` is named twice"), "{text}");
}

#[test]
fn what_is_left_out_is_told_and_counted() {
    let root = tree(&[
        "train/cat/1.png",
        "train/cat/2.txt",
        "train/cat/3.csv",
        "train/cat/4.bmp",
        "train/cat/.5.png",
        "train/cat/.DS_Store",
        "train/.ipynb_checkpoints/1.png",
        "train/labels.csv",
        "README.md",
    ]);
    symlink(root.path().join("train"), root.path().join("train/cat/up")).unwrap();
    symlink("..", root.path().join("train/cat/round")).unwrap();
    let set = open(&spec(&root, &["train"])).unwrap();
    assert_eq!(names(&set, "train"), [("train/cat/1.png".into(), 0)]);
    assert_eq!(
        set.warnings(),
        [
            "1 image of a format that is not read was left out: `train/cat/4.bmp`\nhint: convert them to PNG, JPEG or WebP",
            "2 files that are no images were left out: `train/cat/2.txt`, `train/cat/3.csv`",
            "2 files beside the class folders were left out: `README.md`, `train/labels.csv`",
            "2 hidden images or folders were left out: `train/.ipynb_checkpoints`, `train/cat/.5.png`",
            "2 links to folders above them were left out: `train/cat/round`, `train/cat/up`",
        ]
    );
}

#[test]
fn links_are_followed_but_not_in_circles() {
    let root = tree(&["one/cat/1.png", "store/deep/2.png", "store/3.png"]);
    symlink("../../store", root.path().join("one/cat/more")).unwrap();
    symlink("../store/3.png", root.path().join("one/4.png")).unwrap();
    symlink("../../store/3.png", root.path().join("one/cat/5.png")).unwrap();
    // A circle, and a link to itself, which leads nowhere.
    symlink("../one", root.path().join("store/back")).unwrap();
    symlink("self", root.path().join("store/self")).unwrap();
    let spec = DataSpec::new(Format::Folder, root.path().join("one"));
    let set = open(&spec).unwrap();
    let got: Vec<_> = names(&set, "").into_iter().map(|(name, _)| name).collect();
    assert_eq!(
        got,
        [
            "cat/1.png",
            "cat/5.png",
            "cat/more/3.png",
            "cat/more/deep/2.png"
        ]
    );
    assert_eq!(
        set.warnings(),
        [
            "1 file that is no image was left out: `cat/more/self`",
            "1 file beside the class folders was left out: `4.png`",
            "1 link to a folder above it was left out: `cat/more/back`",
        ]
    );
    // A link that leads nowhere is named when it is read.
    symlink("nowhere.png", root.path().join("one/cat/6.png")).unwrap();
    let text = format!("{:#}", open(&spec).err().unwrap());
    assert!(text.contains("cat/6.png"), "{text}");
}

#[test]
fn a_class_that_is_a_link_to_the_data_set_has_no_images() {
    let root = tree(&["cat/1.png"]);
    symlink(".", root.path().join("all")).unwrap();
    let text = error(&spec(&root, &[]));
    assert!(
        text.contains("1 of 2 classes have no image: `all` of"),
        "{text}"
    );
}

#[test]
fn of_much_that_is_left_out_a_few_are_named() {
    let root = tree(&[
        "a/1.png", "a/1.txt", "a/2.txt", "b/1.png", "b/1.txt", "b/2.txt", "b/3.txt",
    ]);
    let set = open(&spec(&root, &[])).unwrap();
    assert_eq!(
        set.warnings(),
        ["5 files that are no images were left out: `a/1.txt`, `a/2.txt`, `b/1.txt` and 2 more"]
    );
}

#[test]
fn what_is_no_file_is_not_waited_for() {
    let root = tree(&["cat/1.png"]);
    let socket = root.path().join("cat/2.png");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let text = error(&spec(&root, &[]));
    assert!(
        text.contains("`cat/2.png` is not UTF-8, or it is no file"),
        "{text}"
    );
}

#[test]
fn names_that_are_no_utf_8_are_told() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
    let root = tree(&["cat/1.png"]);
    let name = OsStr::from_bytes(b"cat/caf\xe9.txt");
    fs::write(root.path().join(name), b"x").unwrap();
    let set = open(&spec(&root, &[])).unwrap();
    assert!(
        set.warnings()[0].contains("`cat/caf\u{fffd}.txt`"),
        "{:?}",
        set.warnings()
    );
    fs::write(
        root.path().join(OsStr::from_bytes(b"cat/caf\xe9.png")),
        b"x",
    )
    .unwrap();
    assert!(error(&spec(&root, &[])).contains("cat/caf\u{fffd}.png` is not UTF-8"));
}

#[test]
fn classes_without_images_are_all_named() {
    let root = tree(&[
        "train/a/1.png",
        "train/b/1.png",
        "train/c/1.txt",
        "val/a/1.png",
        "val/d/1.png",
    ]);
    fs::create_dir(root.path().join("val/b")).unwrap();
    let text = error(&spec(&root, &["train", "val"]));
    assert!(
        text.contains("2 of 4 classes have no image in split `train`: `c`, `d` (but 1 file of another kind), and 2 of 4 classes have no image in split `val`: `b`, `c` of `"),
        "{text}"
    );
}

#[test]
fn files_and_folders_are_listed_for_changes() {
    let root = tree(&["train/cat/1.png", "train/cat/x/2.png", "train/cat/3.txt"]);
    let at = |name: &str| root.path().join(name);
    let mut list = files(&spec(&root, &["train"])).unwrap();
    list.sort();
    let expected = [
        "",
        "train",
        "train/cat",
        "train/cat/1.png",
        "train/cat/x",
        "train/cat/x/2.png",
    ];
    assert_eq!(
        list,
        expected.map(|name| if name.is_empty() {
            root.path().to_owned()
        } else {
            at(name)
        })
    );
}

#[test]
fn what_is_absent_is_told_without_reading_it() {
    let root = tree(&["train/cat/1.png"]);
    assert_eq!(absent(&spec(&root, &["train"])), None);
    let words = absent(&spec(&root, &["train", "val", "test"])).unwrap();
    assert!(
        words.starts_with("the folder `") && words.ends_with("/val` and 1 more"),
        "{words}"
    );
    let nowhere = DataSpec::new(Format::Folder, "no/such");
    assert_eq!(
        absent(&nowhere).unwrap(),
        "its folder: `no/such` does not exist"
    );
    assert_eq!(files(&nowhere).unwrap(), [Path::new("no/such")]);
    let file = DataSpec::new(Format::Folder, root.path().join("train/cat/1.png"));
    assert!(absent(&file).unwrap().ends_with("is no folder"));
}
