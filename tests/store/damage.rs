//! Damaged and planted entries: found, never returned, replaced when computed again.

use std::{
    fs::{self, Permissions},
    io::Write,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use super::*;

/// A small sequence of numbers that is the same in every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        ((self.0 >> 33) as usize) % below
    }
}

/// Overwrites a file in place, as a bad disk or a careless hand does.
fn overwrite(path: &Path, bytes: &[u8]) {
    fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_thousand_flipped_bits_are_all_found_and_none_is_returned() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let space = Digest::of(b"space");
    let mut numbers = Numbers(7);
    let mut records = Vec::new();
    let mut values = Vec::new();
    for i in 0..12_u32 {
        let mut bytes = i.to_le_bytes().to_vec();
        bytes.resize(4 + numbers.next(500), 7);
        let record = record(&store, &i.to_string(), &bytes);
        store.commit(&record).unwrap();
        records.push((record, bytes.clone()));
        let batch: Vec<_> = (0..5_u32)
            .map(|j| {
                (
                    Digest::of(&(i * 5 + j).to_le_bytes()),
                    bytes[..=j as usize].to_vec(),
                )
            })
            .collect();
        store.commit_items(&space, &batch).unwrap();
        values.extend(batch);
    }
    store.save_index("noop", &[9; 300]);
    let targets: Vec<_> = files(folder.path())
        .into_iter()
        .filter(|file| {
            ["objects/", "actions/", "items/", "index/"]
                .iter()
                .any(|part| file.starts_with(part))
        })
        .collect();
    assert_eq!(targets.len(), 12 + 12 + 12 + 1);
    let mut by_part = [0; 4];
    for round in 0..1000 {
        let target = &targets[numbers.next(targets.len())];
        let path = folder.path().join(target);
        let good = fs::read(&path).unwrap();
        let mut bad = good.clone();
        let bit = numbers.next(bad.len() * 8);
        bad[bit / 8] ^= 1 << (bit % 8);
        overwrite(&path, &bad);

        let mut lost = 0;
        for (record, bytes) in &records {
            match store.lookup(&record.key).unwrap() {
                Some(found) => assert_eq!(found, *record, "{round}: {target}"),
                None => lost += 1,
            }
            let digest = &record.outputs[0].digest;
            // Whoever meets a bad object first moves it away.
            let get = || store.get(digest).unwrap();
            let open = || {
                store
                    .object_path(digest)
                    .unwrap()
                    .map(|path| fs::read(path).unwrap())
            };
            let found = if round % 2 == 0 {
                (get(), open())
            } else {
                (open(), get())
            };
            assert_eq!(found.0, found.1, "{round}: {target}");
            match found.0 {
                Some(found) => assert_eq!(found, *bytes, "{round}: {target}"),
                None => lost += 1,
            }
        }
        let items = store.items(&space).unwrap();
        for (key, value) in &values {
            match items.get(key) {
                Some(found) => assert_eq!(found, *value, "{round}: {target}"),
                None => lost += 1,
            }
        }
        match store.load_index("noop") {
            Some(found) => assert_eq!(found, [9; 300]),
            None => lost += 1,
        }
        let part = target.split('/').next().unwrap();
        let (slot, expected) = match part {
            "objects" => (0, 1..=1),
            "actions" => (1, 1..=1),
            "items" => (2, 1..=5),
            _ => (3, 1..=1),
        };
        by_part[slot] += 1;
        assert!(
            expected.contains(&lost),
            "{round}: bit {bit} of {target}: {lost} lost"
        );
        assert!(!store.take_warnings().is_empty(), "{round}: {target}");
        if path.exists() {
            overwrite(&path, &good);
        } else {
            fs::write(&path, &good).unwrap();
        }
    }
    assert!(by_part.iter().all(|count| *count > 5), "{by_part:?}");
    assert!(store.verify(false, &mut |_, _| ()).unwrap().is_clean());
}

type Plant = fn(path: &Path, good: &[u8], outside: &Path);

/// What may be found in place of an entry.
const PLANTS: [(&str, Plant); 12] = [
    ("empty", |path, _, _| fs::write(path, b"").unwrap()),
    ("truncated", |path, good, _| {
        fs::write(path, &good[..good.len() - 1]).unwrap();
    }),
    ("longer", |path, good, _| {
        fs::write(path, [good, b"x"].concat()).unwrap();
    }),
    ("of the same size", |path, good, _| {
        fs::write(path, vec![0x20; good.len()]).unwrap();
    }),
    ("huge", |path, _, _| {
        fs::File::create(path).unwrap().set_len(1 << 26).unwrap();
    }),
    ("a link to a file", |path, _, outside| {
        symlink(outside.join("file"), path).unwrap();
    }),
    ("a link to the right bytes", |path, good, outside| {
        fs::write(outside.join("right"), good).unwrap();
        symlink(outside.join("right"), path).unwrap();
    }),
    ("a link to nothing", |path, _, outside| {
        symlink(outside.join("none"), path).unwrap();
    }),
    ("a link to a folder", |path, _, outside| {
        symlink(outside, path).unwrap();
    }),
    ("a link to itself", |path, _, _| {
        symlink(path, path).unwrap();
    }),
    ("a pipe", |path, _, _| {
        assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    }),
    ("a folder", |path, _, _| {
        fs::create_dir(path).unwrap();
        fs::write(path.join("file"), b"x").unwrap();
    }),
];

/// Where an entry lies, its right bytes, and how to read and to write it.
struct Target<'a> {
    what: &'static str,
    path: PathBuf,
    good: Vec<u8>,
    read: Box<dyn Fn() -> bool + 'a>,
    write: Box<dyn Fn() + 'a>,
}

#[test]
fn whatever_is_in_place_of_an_entry_is_a_miss_and_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let (root, outside) = (folder.path().join("cache"), folder.path().join("outside"));
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), b"precious").unwrap();
    let store = open(&root);
    let object = Digest::of(b"object");
    let first = record(&store, "key", b"bytes");
    let (space, key) = (Digest::of(b"space"), Digest::of(b"item"));
    let batch = [(key, b"value".to_vec())];
    store.put(b"object").unwrap();
    store.commit(&first).unwrap();
    store.commit_items(&space, &batch).unwrap();
    let find = |name: &str, hint: &str| {
        let found = part(&store, name);
        root.join(found.iter().find(|file| file.contains(hint)).unwrap())
    };
    let target = |what, path: PathBuf, read, write| Target {
        what,
        good: fs::read(&path).unwrap(),
        path,
        read,
        write,
    };
    let object_file = || find("objects", &object.to_string()[2..]);
    let targets = [
        target(
            "an object, read",
            object_file(),
            Box::new(|| {
                store
                    .get(&object)
                    .unwrap()
                    .inspect(|b| assert_eq!(b, b"object"))
                    .is_some()
            }),
            Box::new(|| assert_eq!(store.put(b"object").unwrap(), object)),
        ),
        target(
            "an object, opened",
            object_file(),
            Box::new(|| {
                let path = store.object_path(&object).unwrap();
                path.inspect(|path| assert_eq!(fs::read(path).unwrap(), b"object"))
                    .is_some()
            }),
            Box::new(|| assert_eq!(store.put_file(&outside.join("object")).unwrap(), object)),
        ),
        target(
            "a record",
            find("actions", ""),
            Box::new(|| {
                store
                    .lookup(&first.key)
                    .unwrap()
                    .inspect(|r| assert_eq!(*r, first))
                    .is_some()
            }),
            Box::new(|| assert_eq!(store.commit(&first).unwrap(), Committed::New)),
        ),
        target(
            "a pack",
            find("items", ""),
            Box::new(|| {
                let found = store.items(&space).unwrap().get(&key);
                found.inspect(|value| assert_eq!(value, b"value")).is_some()
            }),
            Box::new(|| store.commit_items(&space, &batch).unwrap()),
        ),
    ];
    fs::write(outside.join("object"), b"object").unwrap();
    for target in &targets {
        // Whether the damage is first met by a reader or by a writer.
        for (plant, make) in PLANTS {
            for reads_first in [true, false] {
                let case = format!("{} is {plant}, read first: {reads_first}", target.what);
                assert!((target.read)(), "{case}");
                fs::remove_file(&target.path).unwrap();
                make(&target.path, &target.good, &outside);
                store.take_warnings();
                if reads_first {
                    assert!(!(target.read)(), "{case}");
                    assert!(!store.take_warnings().is_empty(), "{case}");
                }
                (target.write)();
                assert!((target.read)(), "{case}");
                assert_eq!(fs::read(&target.path).unwrap(), target.good, "{case}");
                assert!(
                    fs::symlink_metadata(&target.path).unwrap().is_file(),
                    "{case}"
                );
                let precious = fs::read(outside.join("file")).unwrap();
                assert_eq!(precious, b"precious", "{case}");
            }
        }
    }
    assert_eq!(files(&outside), ["file", "object", "right"]);
    assert_eq!(part(&store, "tmp"), [""; 0]);
    assert!(store.verify(false, &mut |_, _| ()).unwrap().is_clean());
}

#[test]
fn nothing_is_written_through_a_link_in_place_of_a_folder() {
    let object = Digest::of(b"object").to_string();
    let shard = format!("objects/{}", &object[..2]);
    for planted in [
        "objects",
        &shard,
        "actions",
        "items",
        "tmp",
        "quarantine",
        "index",
        "runs",
        "pins",
        "trash",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (root, outside) = (folder.path().join("cache"), folder.path().join("outside"));
        fs::create_dir_all(root.join(planted).parent().unwrap()).unwrap();
        fs::create_dir(&outside).unwrap();
        symlink(&outside, root.join(planted)).unwrap();
        let Ok(store) = open_with(&root, false) else {
            assert_eq!(planted, "tmp");
            assert_eq!(files(&outside), [""; 0]);
            continue;
        };
        let put = store.put(b"object");
        assert_eq!(put.is_err(), planted.starts_with("objects"), "{planted}");
        assert_eq!(
            store.get(&Digest::of(b"object")).unwrap().is_some(),
            put.is_ok(),
            "{planted}"
        );
        if put.is_ok() {
            let committed = store.commit(&record(&store, "key", b"bytes"));
            assert_eq!(committed.is_err(), planted == "actions", "{planted}");
        }
        let batch = [(Digest::of(b"item"), vec![1])];
        let committed = store.commit_items(&Digest::of(b"space"), &batch);
        assert_eq!(committed.is_err(), planted == "items", "{planted}");
        assert_eq!(
            store.save_run("run", &json!(1)).is_err(),
            planted == "runs",
            "{planted}"
        );
        assert_eq!(
            store.pin("pin", &[]).is_err(),
            planted == "pins",
            "{planted}"
        );
        store.save_index("index", b"x");
        let _ = store.gc(&runner::store::GcPolicy::default(), &[]);
        let _ = store.verify(true, &mut |_, _| ());
        assert_eq!(files(&outside), [""; 0], "{planted}");
    }
}

#[test]
fn an_object_changed_in_place_is_read_again_although_it_was_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let memo = Arc::new(FileMemo::in_memory());
    let options = Options {
        durable: false,
        memo: memo.clone(),
    };
    let store = Store::open_with(folder.path(), options).unwrap();
    let digest = store.put(b"object").unwrap();
    // Only what has been at rest for two seconds is remembered.
    std::thread::sleep(Duration::from_millis(2100));
    let path = store.object_path(&digest).unwrap().unwrap();
    let identity = || runner::digest::Identity::of(&fs::metadata(&path).unwrap());
    assert_eq!(memo.known(&identity()), Some(digest));
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    overwrite(&path, b"OBJECT");
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_times(fs::FileTimes::new().set_modified(modified))
        .unwrap();
    drop(file);
    assert_eq!(store.object_path(&digest).unwrap(), None);
    assert!(!path.exists());
}

#[test]
fn a_run_or_an_index_that_cannot_be_read_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    for id in ["a", "b", "c"] {
        store.save_run(id, &json!(id)).unwrap();
    }
    let at = |id: &str| folder.path().join(format!("runs/{id}.json"));
    fs::write(at("a"), "{").unwrap();
    fs::remove_file(at("b")).unwrap();
    symlink(at("c"), at("b")).unwrap();
    let runs = store.runs().unwrap();
    assert_eq!(runs, [("c".to_owned(), json!("c"))]);
    assert_eq!(store.take_warnings().len(), 2);
    store.save_index("i", b"x");
    let mut file = fs::File::options()
        .append(true)
        .open(folder.path().join("index/i"))
        .unwrap();
    file.write_all(b"y").unwrap();
    assert_eq!(store.load_index("i"), None);
    assert_eq!(store.load_index("none"), None);
}
