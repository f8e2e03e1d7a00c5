//! The store from outside: what is put comes back, and the first record wins.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, also in what it calls"
)]

mod care;
mod costs;
mod damage;
mod faults;
pub(crate) mod race;

use std::{fs, path::Path, sync::Arc};

use proptest::prelude::*;
use runner::{
    digest::{Digest, FileMemo},
    store::{Committed, Options, Output, Record, Store, StoreError},
};
use serde_json::{Value, json};

/// A store that does not wait for the disk, with a memory of its own.
fn open(root: &Path) -> Store {
    open_with(root, false).unwrap()
}

fn open_with(root: &Path, durable: bool) -> Result<Store, StoreError> {
    let memo = Arc::new(FileMemo::in_memory());
    Store::open_with(root, Options { durable, memo })
}

/// A record of `key` with one output of these bytes, which are put.
fn record(store: &Store, key: &str, bytes: &[u8]) -> Record {
    Record {
        key: Digest::of(key.as_bytes()),
        outputs: vec![Output {
            name: "answers.jsonl".into(),
            digest: store.put(bytes).unwrap(),
            size: bytes.len() as u64,
        }],
        artifact: Digest::of(bytes),
        kind: "probe".into(),
        fingerprint: json!({"kind": "probe", "params": {"x": 0.1}}),
        recipe: Some(Digest::of(b"recipe")),
        provenance: json!({"host": "here"}),
    }
}

/// The files below `root`, relative to it, in order.
fn files(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else {
                let path = entry.path();
                found.push(
                    path.strip_prefix(root)
                        .unwrap()
                        .to_str()
                        .unwrap()
                        .to_owned(),
                );
            }
        }
    }
    found.sort_unstable();
    found
}

/// The files of one part of the store.
fn part(store: &Store, name: &str) -> Vec<String> {
    let all = files(store.root()).into_iter();
    all.filter(|file| file.starts_with(&format!("{name}/")))
        .collect()
}

#[test]
fn what_is_put_and_committed_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("new/cache");
    let store = open_with(&root, true).unwrap();
    let first = record(&store, "key", b"bytes");
    assert_eq!(store.lookup(&first.key).unwrap(), None);
    assert_eq!(store.commit(&first).unwrap(), Committed::New);
    let second = record(&store, "key", b"other bytes");
    let adopted = Committed::Adopted(first.clone());
    assert_eq!(store.commit(&second).unwrap(), adopted);

    let store = open(&root);
    assert_eq!(store.lookup(&first.key).unwrap(), Some(first.clone()));
    let digest = first.outputs[0].digest;
    assert_eq!(store.get(&digest).unwrap().as_deref(), Some(&b"bytes"[..]));
    let path = store.object_path(&digest).unwrap().unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"bytes");
    assert!(fs::metadata(&path).unwrap().permissions().readonly());
    assert!(store.has(&digest, 5) && !store.has(&digest, 6));
    let (space, other) = (Digest::of(b"space"), Digest::of(b"other"));
    let batch: Vec<_> = (0..9_u8).map(|i| (Digest::of(&[i]), vec![i; 9])).collect();
    store.commit_items(&space, &batch).unwrap();
    let items = store.items(&space).unwrap();
    assert_eq!((items.len(), store.items(&other).unwrap().len()), (9, 0));
    assert_eq!(items.get(&batch[3].0), Some(vec![3; 9]));
    store.save_run("r1", &json!({"a": 1})).unwrap();
    store.save_run("r1", &json!({"a": 2})).unwrap();
    assert_eq!(store.runs().unwrap(), [("r1".to_owned(), json!({"a": 2}))]);
    store.save_index("noop", b"index");
    assert_eq!(store.load_index("noop").as_deref(), Some(&b"index"[..]));
    assert_eq!(store.take_warnings(), []);
    assert_eq!(part(&store, "tmp"), [""; 0]);
}

#[test]
fn a_record_is_replaced_on_purpose_whatever_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_with(folder.path(), true).unwrap();
    let first = record(&store, "key", b"bytes");
    assert_eq!(store.replace(&first).unwrap(), Committed::New);
    let second = record(&store, "key", b"other bytes");
    assert_eq!(store.replace(&second).unwrap(), Committed::New);
    assert_eq!(store.lookup(&first.key).unwrap(), Some(second));
    let path = folder.path().join(part(&store, "actions").remove(0));
    fs::remove_file(&path).unwrap();
    fs::create_dir_all(path.join("below")).unwrap();
    assert_eq!(store.replace(&first).unwrap(), Committed::New);
    assert_eq!(store.lookup(&first.key).unwrap(), Some(first));
    assert_eq!(part(&store, "tmp"), [""; 0]);
}

#[test]
fn a_file_is_put_without_being_read_whole_and_once_only() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("cache"));
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect();
    let path = folder.path().join("weights");
    fs::write(&path, &bytes).unwrap();
    let digest = store.put_file(&path).unwrap();
    assert_eq!(digest, Digest::of(&bytes));
    assert_eq!(store.put_file(&path).unwrap(), digest);
    assert_eq!(store.put(&bytes).unwrap(), digest);
    assert_eq!(store.get(&digest).unwrap(), Some(bytes));
    assert_eq!(store.stats().unwrap().objects.files, 1);
    assert!(store.put_file(&folder.path().join("none")).is_err());
}

#[test]
fn a_record_is_never_visible_without_its_objects() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let mut wrong = record(&store, "key", b"bytes");
    wrong.outputs[0].size += 1;
    let error = store.commit(&wrong).unwrap_err().to_string();
    assert!(
        error.ends_with("its output `answers.jsonl` is not in the cache"),
        "{error}"
    );
    let mut absent = record(&store, "key", b"bytes");
    absent.outputs[0].digest = Digest::of(b"never put");
    assert!(matches!(
        store.commit(&absent),
        Err(StoreError::MissingObject { .. })
    ));
    assert_eq!(part(&store, "actions"), [""; 0]);

    // One that disappears later makes a miss, and a new computation replaces the record.
    let good = record(&store, "key", b"bytes");
    store.commit(&good).unwrap();
    fs::remove_file(store.object_path(&good.outputs[0].digest).unwrap().unwrap()).unwrap();
    assert_eq!(store.lookup(&good.key).unwrap(), None);
    assert!(store.take_warnings()[0].reason.ends_with("is missing"));
    let again = record(&store, "key", b"other bytes");
    assert_eq!(store.commit(&again).unwrap(), Committed::New);
    assert_eq!(store.lookup(&good.key).unwrap(), Some(again));
}

#[test]
fn only_a_cache_is_opened_and_no_later_one() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("cache");
    drop(open(&root));
    assert_eq!(
        fs::read_to_string(root.join("FORMAT")).unwrap(),
        "runner-cache 1 blake3\n"
    );
    let tag = fs::read_to_string(root.join("CACHEDIR.TAG")).unwrap();
    assert!(tag.starts_with("Signature: 8a477f597d28d172789f06886806bc55\n"));
    let table = [
        (
            "runner-cache 2 blake3\n",
            "it has format 2, and this version knows format 1",
        ),
        (
            "runner-cache 1 sha256\n",
            "its `FORMAT` reads `runner-cache 1 sha256`",
        ),
        (
            "sunner-cache 1 blake3\n",
            "its `FORMAT` reads `sunner-cache 1 blake3`",
        ),
        ("", "its `FORMAT` reads ``"),
    ];
    for (text, message) in table {
        fs::remove_file(root.join("FORMAT")).unwrap();
        fs::write(root.join("FORMAT"), text).unwrap();
        let error = open_with(&root, false).unwrap_err().to_string();
        assert!(
            error.contains(message) && error.contains("\nhint: "),
            "{error}"
        );
    }
    let home = folder.path().join("home");
    fs::create_dir(&home).unwrap();
    fs::write(home.join("thesis.tex"), "x").unwrap();
    assert!(matches!(
        open_with(&home, false),
        Err(StoreError::NotACache(_))
    ));
    assert_eq!(files(&home), ["thesis.tex"]);
    assert!(open_with(&home.join("thesis.tex"), false).is_err());
}

#[test]
fn names_that_are_no_file_names_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    for name in [
        "",
        ".",
        "..",
        ".a",
        "-a",
        "a/b",
        "a\0b",
        "ä",
        "a b",
        &"a".repeat(129),
    ] {
        assert!(store.save_run(name, &json!(1)).is_err(), "{name:?}");
        assert!(store.pin(name, &[]).is_err(), "{name:?}");
        store.save_index(name, b"x");
        assert_eq!(store.load_index(name), None, "{name:?}");
    }
    assert_eq!(files(folder.path()), ["CACHEDIR.TAG", "FORMAT"]);
}

#[test]
fn a_generation_changes_with_every_entry_and_with_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let good = record(&store, "key", b"bytes");
    store.commit(&good).unwrap();
    let mut last = store.generation();
    let mut changed = |what: &str, expected: bool| {
        let next = store.generation();
        assert_eq!(next != last, expected, "{what}");
        last = next;
    };
    changed("nothing", false);
    store.lookup(&good.key).unwrap();
    store.get(&good.outputs[0].digest).unwrap();
    store.save_index("index", b"x");
    store.save_run("run", &json!(1)).unwrap();
    store.pin("pin", &[]).unwrap();
    changed("reading, and what is derived", false);
    store.put(b"bytes").unwrap();
    store.put(b"more").unwrap();
    changed("an object", true);
    store.commit(&record(&store, "other", b"bytes")).unwrap();
    changed("a record", true);
    store
        .commit_items(&Digest::of(b"s"), &[(good.key, vec![1])])
        .unwrap();
    changed("the first pack of a space", true);
    store
        .commit_items(&Digest::of(b"s"), &[(good.key, vec![2])])
        .unwrap();
    changed("another pack", true);
    fs::remove_file(store.object_path(&good.outputs[0].digest).unwrap().unwrap()).unwrap();
    changed("a lost object", true);
    fs::remove_dir_all(folder.path().join("actions")).unwrap();
    changed("lost records", true);
    let text = serde_json::to_string(&last).unwrap();
    assert_eq!(
        serde_json::from_str::<runner::store::Generation>(&text).unwrap(),
        last
    );
}

/// JSON of any shape, three levels deep.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>()
            .prop_filter("finite", |x| x.is_finite())
            .prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::hash_map(any::<String>(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_come_back_from_objects_and_items(
        values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..40),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        let space = Digest::of(b"space");
        let mut batch: Vec<_> = Vec::new();
        for (i, value) in values.iter().enumerate() {
            let digest = store.put(value).unwrap();
            prop_assert_eq!(digest, Digest::of(value));
            prop_assert_eq!(store.get(&digest).unwrap(), Some(value.clone()));
            batch.push((Digest::of(&i.to_le_bytes()), value.clone()));
        }
        let mut ends: Vec<_> = cuts.iter().map(|cut| cut.index(batch.len() + 1)).collect();
        ends.extend([0, batch.len()]);
        ends.sort_unstable();
        for pair in ends.windows(2) {
            store.commit_items(&space, &batch[pair[0]..pair[1]]).unwrap();
        }
        let items = store.items(&space).unwrap();
        prop_assert_eq!(items.len(), batch.len());
        for (key, value) in &batch {
            prop_assert_eq!(items.get(key), Some(value.clone()));
        }
        prop_assert_eq!(items.get(&Digest::of(b"absent")), None);
        prop_assert!(store.verify(false, &mut |_, _| ()).unwrap().is_clean());
    }

    #[test]
    fn any_record_comes_back(
        outputs in prop::collection::vec("[a-z]{1,9}(/[^/\\\\\\pC]{1,9}[a-z])?", 0..6),
        fingerprint in any_json(),
        provenance in any_json(),
        kind in any::<String>(),
        recipe in any::<Option<u8>>(),
        padding in 0..40_000_usize,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        let mut record = record(&store, "key", b"bytes");
        let output = record.outputs[0].clone();
        let named = |name: &String| Output { name: name.clone(), ..output.clone() };
        record.outputs = outputs.iter().map(named).collect();
        record.fingerprint = json!([fingerprint, "x".repeat(padding)]);
        record.provenance = provenance;
        record.kind = kind;
        record.recipe = recipe.map(|byte| Digest::of(&[byte]));
        prop_assert_eq!(store.commit(&record).unwrap(), Committed::New);
        let found = store.lookup(&record.key).unwrap();
        prop_assert_eq!(found.as_ref(), Some(&record));
        prop_assert_eq!(store.commit(&record).unwrap(), Committed::Adopted(record));
    }
}
