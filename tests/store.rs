//! The store from outside: what is put comes back, and the first record wins.

use runner::{
    digest::{Digest, FileMemo},
    store::{Committed, Options, Output, Record, Store},
};
use serde_json::json;
use std::{path::Path, sync::Arc};

/// A store that does not wait for the disk, with a memory of its own.
fn open(root: &Path) -> Store {
    let options = Options {
        durable: false,
        memo: Arc::new(FileMemo::in_memory()),
    };
    Store::open_with(root, options).unwrap()
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

#[test]
fn what_is_put_and_committed_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("cache"));
    let first = record(&store, "key", b"bytes");
    assert_eq!(store.lookup(&first.key).unwrap(), None);
    assert_eq!(store.commit(&first).unwrap(), Committed::New);
    let second = record(&store, "key", b"other bytes");
    let adopted = Committed::Adopted(first.clone());
    assert_eq!(store.commit(&second).unwrap(), adopted);
    let store = open(&folder.path().join("cache"));
    assert_eq!(store.lookup(&first.key).unwrap(), Some(first.clone()));
    let digest = first.outputs[0].digest;
    assert_eq!(store.get(&digest).unwrap().as_deref(), Some(&b"bytes"[..]));
    let path = store.object_path(&digest).unwrap().unwrap();
    assert_eq!(std::fs::read(path).unwrap(), b"bytes");
    let space = Digest::of(b"space");
    let batch: Vec<_> = (0..9_u8).map(|i| (Digest::of(&[i]), vec![i; 9])).collect();
    store.commit_items(&space, &batch).unwrap();
    let items = store.items(&space).unwrap();
    assert_eq!(items.len(), 9);
    assert_eq!(items.get(&batch[3].0), Some(vec![3; 9]));
    store.save_run("r1", &json!({"a": 1})).unwrap();
    assert_eq!(store.runs().unwrap(), [("r1".to_owned(), json!({"a": 1}))]);
    store.save_index("noop", b"index");
    assert_eq!(store.load_index("noop").as_deref(), Some(&b"index"[..]));
    let generation = store.generation();
    assert_eq!(generation, store.generation());
    store.put(b"new").unwrap();
    assert_ne!(generation, store.generation());
    assert_eq!(store.take_warnings(), []);
}
