//! Files that are damaged, missing, or not what they are taken for.

use super::*;

#[test]
fn a_file_that_is_no_multiple_of_a_record_is_named_with_its_records() {
    let root = tempfile::tempdir().unwrap();
    put(
        root.path(),
        &with(&ten(), "data_batch_3.bin", |bytes| {
            bytes.truncate(3073 + 100);
        }),
    );
    let text = error(Format::Cifar10, root.path());
    assert!(
        text.contains(
            "data_batch_3.bin`: it has 3,173 bytes: 1 whole record of 3073 bytes and 100 bytes more"
        ),
        "{text}"
    );
    put(root.path(), &with(&ten(), "data_batch_3.bin", Vec::clear));
    let text = error(Format::Cifar10, root.path());
    assert!(text.contains("0 bytes: 0 whole records"), "{text}");
}

#[test]
fn a_label_without_a_class_is_named() {
    let root = tempfile::tempdir().unwrap();
    put(
        root.path(),
        &with(&ten(), "data_batch_2.bin", |bytes| bytes[3073] = 3),
    );
    let text = format!(
        "{:#}",
        open(&spec(Format::Cifar10, root.path())).err().unwrap()
    );
    assert!(
        text.contains("image 1 of `")
            && text.contains("data_batch_2.bin` has the label 3, but there are 3 class names"),
        "{text}"
    );
}

#[test]
fn missing_files_are_counted() {
    let root = tempfile::tempdir().unwrap();
    put(
        root.path(),
        &without(&without(&ten(), "data_batch_2.bin"), "test_batch.bin"),
    );
    let named = spec(Format::Cifar10, root.path());
    let words = absent(&named).unwrap();
    assert!(
        words.starts_with("the file `")
            && words.ends_with("data_batch_2.bin` and 1 more in that folder"),
        "{words}"
    );
    assert!(error(Format::Cifar10, root.path()).contains(&words));
    let files = files(&named).unwrap();
    assert_eq!(files.len(), 7, "those that would make it");

    let empty = tempfile::tempdir().unwrap();
    let words = absent(&spec(Format::Cifar10, empty.path())).unwrap();
    for looked in [
        "data_batch_1.bin` and 6 more",
        "`data_batch_1` and 6 more",
        "cifar-10-batches-py",
        "cifar-10-python.tar.gz",
    ] {
        assert!(words.contains(looked), "{looked}: {words}");
    }
    put(root.path(), &ten());
    assert_eq!(absent(&named), None);
}

#[test]
fn the_files_that_were_found_are_listed() {
    let root = tempfile::tempdir().unwrap();
    let inside = root.path().join("cifar-10-batches-py");
    put(&inside, &python("cifar-10-python.tar.gz"));
    let list = files(&spec(Format::Cifar10, root.path())).unwrap();
    assert_eq!(list.len(), 8);
    assert!(list.contains(&inside.join("batches.meta")));
    assert!(
        list.contains(&root.path().to_owned()),
        "another form may be put beside it"
    );
    let archive = fixture("cifar-10-python.tar.gz");
    assert_eq!(files(&spec(Format::Cifar10, &archive)).unwrap(), [archive]);
}

#[test]
fn broken_pickles_are_named() {
    let root = tempfile::tempdir().unwrap();
    let good = python("cifar-10-python.tar.gz");
    let broken = |file: &str, change: &dyn Fn(&mut Vec<u8>)| {
        put(root.path(), &with(&good, file, change));
        let text = format!(
            "{:#}",
            open(&spec(Format::Cifar10, root.path())).err().unwrap()
        );
        assert!(text.contains(&format!("{file}`: ")), "{text}");
        text
    };
    assert!(broken("data_batch_4", &|b| b.truncate(3000)).contains("it is no whole pickle"));
    assert!(broken("data_batch_4", &|b| *b = b"<html>".to_vec()).contains("(it is a web page)"));
    assert!(broken("batches.meta", &Vec::clear).contains("(it is an empty file)"));
    let renamed = |from: &'static [u8], to: &'static [u8]| {
        move |bytes: &mut Vec<u8>| {
            let at = bytes.windows(from.len()).position(|w| w == from).unwrap();
            bytes[at..at + from.len()].copy_from_slice(to);
        }
    };
    let text = broken("data_batch_1", &renamed(b"labels", b"libels"));
    assert!(
        text.contains("it has no `labels` but `batch_label`, `libels`, `data`, `filenames`"),
        "{text}"
    );
    let text = broken("test_batch", &renamed(b"K\x02M\x00\x0c", b"K\x02M\x00\x08"));
    assert!(text.contains("its `data` cannot be read"), "{text}");
    let text = broken("test_batch", &renamed(b"u1", b"i1"));
    assert!(text.contains("of type i1"), "{text}");
    let text = broken("batches.meta", &renamed(b"label_names", b"libel_names"));
    assert!(text.contains("it has no `label_names`"), "{text}");
}

#[test]
fn labels_and_images_must_be_as_many() {
    let root = tempfile::tempdir().unwrap();
    // The list of two labels of the first batch: 0 and 2.
    put(
        root.path(),
        &with(&python("cifar-10-python.tar.gz"), "data_batch_1", |bytes| {
            let at = bytes.windows(5).position(|w| w == b"(K\x00K\x02").unwrap();
            bytes.splice(at..at + 5, *b"(K\x00");
        }),
    );
    let text = format!(
        "{:#}",
        open(&spec(Format::Cifar10, root.path())).err().unwrap()
    );
    assert!(
        text.contains("data_batch_1`: it has 2 images but 1 label"),
        "{text}"
    );
}

#[test]
fn a_truncated_download_is_told_with_the_files_that_are_whole() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("cifar-10-binary.tar.gz");
    let whole = gz(&tar("cifar-10-batches-bin", &ten()));
    for length in (2..whole.len()).step_by(whole.len() / 40) {
        fs::write(&path, &whole[..length]).unwrap();
        let text = error(Format::Cifar10, &path);
        assert!(
            text.contains("of its 7 files are whole: the archive ends early"),
            "{length}: {text}"
        );
        assert!(text.contains("the download was cut short"), "{text}");
    }
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let text = error(Format::Cifar10, &path);
    assert!(
        ["2 of", "3 of", "4 of"].iter().any(|n| text.contains(n)),
        "{text}"
    );
    // Without compression the archive says itself how long a file is.
    let plain = tar("cifar-10-batches-bin", &ten());
    fs::write(&path, &plain[..10_000]).unwrap();
    assert!(error(Format::Cifar10, &path).contains("ends early"));
}

#[test]
fn damage_in_an_archive_does_not_pass() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("x.tar.gz");
    let whole = gz(&tar("cifar-10-batches-bin", &ten()));
    let good = open(&{
        fs::write(&path, &whole).unwrap();
        spec(Format::Cifar10, &path)
    })
    .unwrap();
    for at in (20..whole.len()).step_by(whole.len() / 60) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        fs::write(&path, &bytes).unwrap();
        if let Ok(set) = open(&spec(Format::Cifar10, &path)) {
            assert!(all(&set) == all(&good), "byte {at}");
        }
    }
    // The checksum alone.
    let mut bytes = whole.clone();
    let at = bytes.len() - 6;
    bytes[at] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let text = error(Format::Cifar10, &path);
    assert!(
        text.contains("7 of its 7 files are whole: the archive is damaged"),
        "{text}"
    );
}

#[test]
fn an_archive_that_lacks_or_doubles_files_is_told() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("x.tar.gz");
    let put = |files: &[(String, Vec<u8>)]| {
        fs::write(&path, gz(&tar("f", files))).unwrap();
        format!("{:#}", open(&spec(Format::Cifar10, &path)).err().unwrap())
    };
    let text = put(&without(
        &without(&ten(), "batches.meta.txt"),
        "data_batch_5.bin",
    ));
    assert!(
        text.contains("lacks 2 files of CIFAR-10: `data_batch_5.bin`, `batches.meta.txt`"),
        "{text}"
    );
    let mut twice = ten();
    twice.push(twice[0].clone());
    assert!(put(&twice).contains("it holds two files `data_batch_1.bin`"));
}

#[test]
fn an_archive_is_bounded() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("x.tar.gz");
    let mut header = tar::Header::new_ustar();
    header.set_path("f/data_batch_1").unwrap();
    header.set_size(1 << 40);
    header.set_cksum();
    fs::write(&path, gz(header.as_bytes())).unwrap();
    let text = format!("{:#}", open(&spec(Format::Cifar10, &path)).err().unwrap());
    assert!(
        text.contains("has 1099511627776 bytes, more than any file"),
        "{text}"
    );
}

// What newcomers do.

#[test]
fn the_archive_of_the_other_data_set_is_told() {
    let text = error(Format::Cifar10, fixture("cifar-100-python.tar.gz"));
    assert!(
        text.contains("holds CIFAR-100, not CIFAR-10\nhint: write format = \"cifar100\""),
        "{text}"
    );
    let root = tempfile::tempdir().unwrap();
    put(root.path(), &hundred());
    let text = error(Format::Cifar10, root.path());
    assert!(
        text.contains("hint: the folder holds CIFAR-100: write format = \"cifar100\""),
        "{text}"
    );
}

#[test]
fn a_wrong_path_is_told() {
    let text = error(Format::Cifar10, "no/such/folder");
    assert!(
        text.contains("CIFAR-10 lacks its folder or archive: `no/such/folder` does not exist"),
        "{text}"
    );
    assert!(
        text.contains("a path is relative to the file that names it"),
        "{text}"
    );
}

#[test]
fn one_file_of_the_set_is_told() {
    let root = tempfile::tempdir().unwrap();
    put(root.path(), &ten());
    let text = error(Format::Cifar10, root.path().join("data_batch_1.bin"));
    assert!(text.contains("name the folder that holds it"), "{text}");
}

#[test]
fn a_numpy_archive_is_told() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("cifar10.npz");
    fs::write(
        &path,
        b"PK\x03\x04\x14\0\0\0\0\0\0\0\0\0\0\0\0\0x_train.npy",
    )
    .unwrap();
    let text = error(Format::Cifar10, &path);
    assert!(
        text.contains("is no `.tar.gz` archive but a NumPy archive (`.npz`)"),
        "{text}"
    );
}

#[test]
fn a_web_page_in_place_of_the_archive_is_told() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("cifar-10-python.tar.gz");
    fs::write(&path, "<!DOCTYPE html>\n<html>404</html>").unwrap();
    assert!(error(Format::Cifar10, &path).contains("but a web page"));
}

#[test]
fn folders_of_images_are_told() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("cat")).unwrap();
    let text = error(Format::Cifar10, root.path());
    assert!(
        text.contains("for folders of images write format = \"folder\""),
        "{text}"
    );
}
