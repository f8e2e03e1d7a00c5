//! What newcomers do, and what is said to it.

use super::*;

#[test]
fn splits_that_are_not_said_are_told() {
    let root = tree(&["train/cat/1.png", "test/cat/1.png", "val/cat/1.png"]);
    let text = error(&spec(&root, &[]));
    assert!(
        text.contains("the folders `test`, `train`, `val` in"),
        "{text}"
    );
    assert!(text.ends_with("look like splits, not like classes\nhint: write splits = [\"train\", \"test\", \"val\"]"), "{text}");
    // A class may be called so.
    let root = tree(&["bus/1.png", "train/1.png"]);
    assert_eq!(
        open(&spec(&root, &[])).unwrap().classes().names(),
        ["bus", "train"]
    );
    let root = tree(&["bus/1.png", "train/steam/1.png"]);
    assert_eq!(
        open(&spec(&root, &[])).unwrap().classes().names(),
        ["bus", "train"]
    );
}

#[test]
fn a_folder_above_the_splits_is_told() {
    let root = tree(&["imagenette2/train/cat/1.png", "imagenette2/val/cat/1.png"]);
    let text = error(&spec(&root, &[]));
    assert!(
        text.ends_with("hint: write the path of `imagenette2`, and splits = [\"train\", \"val\"]"),
        "{text}"
    );
    let text = error(&spec(&root, &["train", "val"]));
    assert!(
        text.contains(
            "has no folders `train`, `val`\nhint: write the path of `imagenette2`, which has them"
        ),
        "{text}"
    );
}

#[test]
fn splits_that_are_not_there_are_told() {
    let root = tree(&["train/cat/1.png", "validation/cat/1.png"]);
    let text = error(&spec(&root, &["train", "val"]));
    assert!(
        text.contains("has no folder `val`\nhint: write splits = [\"train\", \"validation\"]"),
        "{text}"
    );
    let root = tree(&["cat/1.png", "dog/1.png"]);
    let text = error(&spec(&root, &["train"]));
    assert!(
        text.contains("it has `cat`, `dog`; if these are the classes, remove `splits`"),
        "{text}"
    );
    let root = tree(&["train/cat/1.png"]);
    let mut one = spec(&root, &["train", "test"]);
    one.path.push("train");
    assert!(error(&one).contains("the path names one split; name the folder above it"));
}

#[test]
fn images_without_class_folders_are_told() {
    let root = tree(&["1.png", "2.jpg", "notes.txt"]);
    let text = error(&spec(&root, &[]));
    assert!(text.contains("has no class folders, but 2 images without a class\nhint: put the images of each class in a folder of its own"), "{text}");
    let root = tree(&["train/cat/1.png", "test/1.png"]);
    let text = error(&spec(&root, &["train", "test"]));
    assert!(
        text.contains("test` has no class folders, but 1 image without a class"),
        "{text}"
    );
    let empty = tempfile::tempdir().unwrap();
    assert!(error(&spec(&empty, &[])).contains("has no class folders\n"));
}

#[test]
fn classes_in_one_folder_more_are_suspected() {
    let root = tree(&["pictures/cat/1.png", "pictures/dog/1.png"]);
    let set = open(&spec(&root, &[])).unwrap();
    assert_eq!(set.classes().names(), ["pictures"]);
    let [warning] = set.warnings() else {
        panic!("{:?}", set.warnings())
    };
    assert!(
        warning.contains("the only class is `pictures`, and its images are in `cat`, `dog`"),
        "{warning}"
    );
}

#[test]
fn archives_and_wrong_paths_are_told() {
    let root = tree(&["cat/1.png"]);
    let path = root.path().join("images.npz");
    fs::write(&path, b"PK\x03\x04..............x.npy").unwrap();
    let text = error(&DataSpec::new(Format::Folder, &path));
    assert!(
        text.contains("is no folder but a NumPy archive (`.npz`)"),
        "{text}"
    );
    let text = error(&DataSpec::new(Format::Folder, "no/such"));
    assert!(
        text.contains("the folder `no/such` does not exist\nhint: a path is relative"),
        "{text}"
    );
}

#[test]
fn cifar_named_as_a_folder_of_images_is_told() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("data_batch_1.bin"), b"x").unwrap();
    assert!(error(&spec(&root, &[])).ends_with("for CIFAR write format = \"cifar10\""));
}

#[test]
fn fields_that_make_no_sense_are_refused() {
    let root = tree(&["cat/1.png"]);
    let mut spec = spec(&root, &[]);
    spec.limit = Some(0);
    assert!(error(&spec).contains("`limit = 0` leaves no image"));
}
