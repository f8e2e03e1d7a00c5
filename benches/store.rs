//! Times the store's steps: `cargo bench --bench store`. Prints medians.
#![expect(clippy::print_stdout, reason = "a benchmark tells its figures")]

use std::time::{Duration, Instant};

use runner::{
    digest::Digest,
    store::{Output, Record, Store},
};
use serde_json::json;

/// The median time of `runs` calls.
fn median(runs: u32, mut step: impl FnMut(u32)) -> Duration {
    let mut times: Vec<Duration> = (0..runs)
        .map(|i| {
            let begin = Instant::now();
            step(i);
            begin.elapsed()
        })
        .collect();
    times.sort();
    times[times.len() / 2]
}

fn key(text: &str, i: u32) -> Digest {
    Digest::of(format!("{text} {i}").as_bytes())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir_in(".")?;
    let store = Store::open(&folder.path().join("cache"))?;
    let commit = median(50, |i| {
        let bytes = vec![i as u8; 4096];
        let digest = store.put(&bytes).expect("an object is stored");
        let record = Record {
            key: key("node", i),
            outputs: vec![Output {
                name: "file".into(),
                digest,
                size: 4096,
            }],
            artifact: digest,
            kind: "bench".into(),
            fingerprint: json!({"i": i}),
            recipe: None,
            provenance: json!({}),
        };
        store.commit(&record).expect("a record is stored");
    });
    println!("commit of a node (object and record, synced): {commit:?}");
    let lookup = median(50, |i| {
        let record = store.lookup(&key("node", i)).expect("the store is read");
        assert!(record.is_some());
    });
    println!("lookup of a node: {lookup:?}");
    for (items, batch) in [(1_000, 64), (10_000, 256)] {
        let space = Digest::of(format!("space {items}").as_bytes());
        let all: Vec<(Digest, Vec<u8>)> = (0..items)
            .map(|i| (key("item", i), vec![1; 4096]))
            .collect();
        let begin = Instant::now();
        for chunk in all.chunks(batch) {
            store.commit_items(&space, chunk)?;
        }
        let write = begin.elapsed();
        let read = median(9, |_| {
            let known = store.items(&space).expect("the space is read");
            assert!(all.iter().all(|(key, _)| known.get(key).is_some()));
        });
        println!(
            "{items} items of 4 KiB: written in batches of {batch} in {write:?}; all looked up and read in {read:?}, {:?} an item",
            read / items
        );
    }
    let generation = median(50, |_| {
        std::hint::black_box(store.generation());
    });
    println!("generation: {generation:?}");
    Ok(())
}
