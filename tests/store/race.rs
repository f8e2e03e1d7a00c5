//! Several writers at once: one record of each key, and everybody has that one.

use std::{
    collections::HashMap,
    env,
    process::{Child, Command, Stdio},
    sync::Barrier,
    thread,
    time::Duration,
};

use super::*;

/// What a process that a test starts of itself has to do.
pub(crate) const JOB: &str = "RUNNER_STORE_TEST_JOB";

/// A process of this test binary that does `job`, written as words.
pub(crate) fn job(words: &[&str]) -> Command {
    command(&env::current_exe().unwrap(), words)
}

/// The same with another copy of the binary.
pub(super) fn command(program: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(program);
    command
        .args([
            "store::race::does_the_job_of_another_test",
            "--exact",
            "--nocapture",
        ])
        .env(JOB, words.join("\n"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command
}

/// Not a test of its own: other tests run it in a process of its own.
#[test]
#[expect(
    clippy::print_stdout,
    reason = "the test that started the process reads it"
)]
fn does_the_job_of_another_test() {
    let Ok(job) = env::var(JOB) else {
        return;
    };
    let words: Vec<&str> = job.split('\n').collect();
    match words[..] {
        ["race", root, name] => {
            let store = open(Path::new(root));
            for i in 0..50 {
                thread::sleep(Duration::from_micros(
                    u64::from(Digest::of(format!("{name}{i}").as_bytes()).as_bytes()[0]) * 8,
                ));
                let mine = record(
                    &store,
                    &format!("key {i}"),
                    format!("{name} {i}").as_bytes(),
                );
                let (new, outputs) = match store.commit(&mine).unwrap() {
                    Committed::New => (true, mine.outputs),
                    Committed::Adopted(first) => (false, first.outputs),
                };
                println!("{i} {new} {}", outputs[0].digest);
            }
        }
        ["work", root, durable, count] => {
            let store = open_with(Path::new(root), durable == "true").unwrap();
            for i in 0..count.parse().unwrap() {
                work(&store, i);
                println!("{i}");
            }
        }
        ["once", root] => match open_with(Path::new(root), true) {
            Ok(store) if store.read_only() => println!("read only {}", seen(&store, 0)),
            Ok(store) => {
                let done = try_work(&store, 0);
                println!(
                    "{}",
                    done.map_or_else(|e| format!("failed to {e}"), |()| "done".into())
                );
            }
            Err(error) => println!("failed to {error}"),
        },
        _ => panic!("unknown job"),
    }
}

/// Does what a node does: objects, items, record. The bytes follow from the number alone.
pub(super) fn work(store: &Store, i: u32) {
    try_work(store, i).unwrap();
}

fn try_work(store: &Store, i: u32) -> Result<(), StoreError> {
    let bytes = format!("bytes {i}").repeat(200);
    store.commit_items(
        &Digest::of(b"space"),
        &[(Digest::of(&i.to_le_bytes()), vec![1; 100])],
    )?;
    let digest = store.put(bytes.as_bytes())?;
    let record = Record {
        key: Digest::of(format!("key {i}").as_bytes()),
        outputs: vec![Output {
            name: "a".into(),
            digest,
            size: bytes.len() as u64,
        }],
        artifact: digest,
        kind: "probe".into(),
        fingerprint: json!(i),
        recipe: None,
        provenance: json!(null),
    };
    match store.commit(&record)? {
        Committed::New => Ok(()),
        Committed::Adopted(first) => {
            assert_eq!(first, record);
            Ok(())
        }
    }
}

/// Whether the work of number `i` is there; panics if it is there and wrong, or only in part.
pub(super) fn seen(store: &Store, i: u32) -> bool {
    let key = Digest::of(format!("key {i}").as_bytes());
    let found = find(store, i);
    assert!(found.is_some() || store.lookup(&key).unwrap().is_none());
    assert_ne!(found, Some(false));
    found.is_some()
}

/// Whether the bytes of number `i` are right, nothing if they or a part of them are not there.
pub(crate) fn find(store: &Store, i: u32) -> Option<bool> {
    let key = Digest::of(format!("key {i}").as_bytes());
    let record = store.lookup(&key).unwrap()?;
    let bytes = store.get(&record.outputs[0].digest).unwrap()?;
    let items = store.items(&Digest::of(b"space")).unwrap();
    let item = items.get(&Digest::of(&i.to_le_bytes()))?;
    Some(bytes == format!("bytes {i}").repeat(200).as_bytes() && item == [1; 100])
}

fn output(child: Child) -> String {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn eight_processes_record_each_of_fifty_keys_once_even_over_damaged_records() {
    for damaged in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("cache");
        let store = open(&root);
        if damaged {
            for i in 0..50 {
                let old = record(&store, &format!("key {i}"), b"old");
                store.commit(&old).unwrap();
            }
            for file in part(&store, "actions") {
                fs::remove_file(root.join(&file)).unwrap();
                fs::write(root.join(&file), "damaged").unwrap();
            }
        }
        let start = |i: usize| job(&["race", root.to_str().unwrap(), &format!("p{i}")]).spawn();
        let children: Vec<_> = (0..8).map(|i| start(i).unwrap()).collect();
        let mut seen: HashMap<u32, Vec<(bool, Digest)>> = HashMap::new();
        for child in children {
            for line in output(child).lines() {
                let words: Vec<&str> = line.split(' ').collect();
                if let [i, new, digest] = words[..]
                    && let (Ok(i), Ok(digest)) = (i.parse(), digest.parse())
                {
                    seen.entry(i).or_default().push((new == "true", digest));
                }
            }
        }
        assert_eq!(seen.len(), 50);
        for (i, told) in seen {
            assert_eq!(told.len(), 8);
            let winners: Vec<_> = told.iter().filter(|(new, _)| *new).collect();
            assert_eq!(winners.len(), 1, "key {i}, damaged: {damaged}");
            assert!(
                told.iter().all(|(_, digest)| *digest == winners[0].1),
                "key {i}"
            );
            let key = Digest::of(format!("key {i}").as_bytes());
            let found = store.lookup(&key).unwrap().unwrap();
            assert_eq!(found.outputs[0].digest, winners[0].1);
        }
        assert_eq!(part(&store, "tmp"), [""; 0]);
        assert!(store.verify(false, &mut |_, _| ()).unwrap().is_clean());
    }
}

#[test]
fn threads_that_commit_the_same_keys_make_one_record_of_each() {
    let folder = tempfile::tempdir().unwrap();
    let shared = open(folder.path());
    let barrier = Barrier::new(6);
    let new: Vec<usize> = thread::scope(|scope| {
        let run = |i: usize| {
            // Half of them share a store, the others have one of their own on the same folder.
            let store = if i.is_multiple_of(2) {
                shared.clone()
            } else {
                open(folder.path())
            };
            let barrier = &barrier;
            scope.spawn(move || {
                barrier.wait();
                let commit = |key: &usize| {
                    let bytes = format!("{i} {key}");
                    let mine = record(&store, &key.to_string(), bytes.as_bytes());
                    store.commit(&mine).unwrap() == Committed::New
                };
                (0..200).filter(commit).count()
            })
        };
        let threads: Vec<_> = (0..6).map(run).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert_eq!(new.iter().sum::<usize>(), 200, "{new:?}");
    assert_eq!(part(&shared, "actions").len(), 200);
    assert_eq!(shared.take_warnings(), []);
}

#[test]
fn a_writer_killed_at_any_moment_leaves_nothing_wrong_and_loses_nothing_told() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("cache");
    let mut told_in_all = 0;
    for round in 0..30_u64 {
        if round.is_multiple_of(10) {
            let _ = fs::remove_dir_all(&root);
        }
        let mut child = job(&["work", root.to_str().unwrap(), "false", "40"])
            .spawn()
            .unwrap();
        thread::sleep(Duration::from_millis(1 + (round * 37) % 23));
        child.kill().unwrap();
        let text = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        // The last line may be cut off.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let told: Vec<u32> = whole.lines().filter_map(|line| line.parse().ok()).collect();
        told_in_all += told.len();
        let store = open(&root);
        assert_eq!(part(&store, "tmp"), [""; 0], "round {round}");
        for i in 0..40 {
            assert!(
                seen(&store, i) || !told.contains(&i),
                "round {round}: {i} was lost"
            );
        }
        assert_eq!(store.take_warnings(), [], "round {round}");
        assert!(
            store.verify(false, &mut |_, _| ()).unwrap().is_clean(),
            "round {round}"
        );
    }
    assert!(told_in_all > 0);
    let store = open(&root);
    for i in 0..40 {
        work(&store, i);
        assert!(seen(&store, i));
    }
}
