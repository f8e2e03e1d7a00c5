//! What the store costs: `cargo test --release store::costs -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use super::*;

/// The mean time of one of `count` runs of `work`.
fn time<T>(count: u32, mut work: impl FnMut(u32) -> T) -> Duration {
    let start = Instant::now();
    for i in 0..count {
        work(i);
    }
    start.elapsed() / count
}

#[test]
#[ignore = "prints measurements, and checks nothing"]
#[expect(clippy::print_stdout, reason = "a measurement is for reading")]
fn costs() {
    for durable in [true, false] {
        let folder = tempfile::tempdir_in(".").unwrap();
        let store = open_with(folder.path(), durable).unwrap();
        let bytes = |i: u32| format!("bytes of {i}").repeat(100).into_bytes();
        println!("\nfsync: {durable}");
        let count = 200;
        let put = time(count, |i| store.put(&bytes(i)).unwrap());
        let again = time(count, |i| store.put(&bytes(i)).unwrap());
        println!("put an object of 1 kB {put:?}, again {again:?}");
        let commit = time(count, |i| {
            let record = record(&store, &format!("k{i}"), &bytes(i + 10_000));
            store.commit(&record).unwrap();
        });
        println!("commit an object and a record {commit:?}");
        let key = |i: u32| Digest::of(format!("k{i}").as_bytes());
        let lookup = time(count, |i| assert!(store.lookup(&key(i)).unwrap().is_some()));
        let miss = time(count, |i| {
            assert!(store.lookup(&key(i + count)).unwrap().is_none());
        });
        println!("look a record up {lookup:?}, in vain {miss:?}");
        let get = time(count, |i| {
            assert!(store.get(&Digest::of(&bytes(i))).unwrap().is_some());
        });
        println!("get an object {get:?}");

        let space = Digest::of(b"space");
        let items: Vec<_> = (0..1000_u32)
            .map(|i| (Digest::of(&i.to_le_bytes()), vec![i as u8; 2048]))
            .collect();
        let packs = time(16, |i| {
            let batch = &items[i as usize * 64..1000.min((i as usize + 1) * 64)];
            store.commit_items(&space, batch).unwrap();
        });
        println!("commit a pack of 64 items of 2 kB {packs:?}");
        let open = time(20, |_| store.items(&space).unwrap());
        let read = time(20, |_| {
            let found = store.items(&space).unwrap();
            for (key, value) in &items {
                assert_eq!(found.get(key).as_ref(), Some(value));
            }
        });
        println!(
            "1,000 items in 16 packs: read the headers {open:?}; with all values {read:?}, {:?} an item",
            read / 1000
        );
        std::thread::sleep(Duration::from_millis(30));
        let generation = time(100, |_| store.generation());
        println!("generation {generation:?}");
    }
    let folder = tempfile::tempdir_in(".").unwrap();
    let store = open(folder.path());
    let commit = time(10_000, |i| {
        store
            .commit(&record(
                &store,
                &format!("k{i}"),
                format!("b{i}").as_bytes(),
            ))
            .unwrap();
    });
    println!("\n10,000 nodes without fsync: commit {commit:?}");
    std::thread::sleep(Duration::from_millis(30));
    println!("generation {:?}", time(100, |_| store.generation()));
    let lookup = time(10_000, |i| {
        store
            .lookup(&Digest::of(format!("k{i}").as_bytes()))
            .unwrap()
    });
    println!("look a record up {lookup:?}");
    println!("open {:?}", time(100, |_| open(folder.path())));
    println!("count {:?}", time(1, |_| store.stats().unwrap()));
    println!(
        "verify {:?}",
        time(1, |_| store.verify(false, &mut |_, _| ()).unwrap())
    );
    let dry = runner::store::GcPolicy {
        dry_run: true,
        ..Default::default()
    };
    println!(
        "collect, dry {:?}",
        time(1, |_| store.gc(&dry, &[]).unwrap())
    );
}
