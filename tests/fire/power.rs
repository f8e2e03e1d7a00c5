//! Power cuts while nodes are committed, and disks that are really full, on an ext4 file system
//! in a file.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::fs::symlink,
    time::Instant,
};

use super::{
    image::{Cut, Image},
    *,
};
use crate::store::race;

/// Commits that a writer makes at most.
const COMMITS: u32 = 800;

/// What cuts did in all.
#[derive(Debug, Default)]
struct Seen {
    cuts: usize,
    /// Nodes that were told to be done before the cut.
    told: usize,
    /// Of these no longer there.
    lost: usize,
    /// Entries that are visible and wrong.
    corrupt: usize,
}

/// Cuts, or the reason why there can be none.
fn image(what: &str) -> Option<Image> {
    match Image::that_can_be_cut() {
        Ok(image) => Some(image),
        Err(reason) => {
            left_out(
                what,
                &format!("{reason} (needs root, /dev/loop, and perl or python3)"),
            );
            None
        }
    }
}

#[test]
fn a_power_cut_corrupts_nothing_and_loses_nothing_told_unless_fsync_is_switched_off() {
    if image("power cuts").is_none() {
        return;
    }
    let cuts = if long() { 50 } else { 2 };
    let mut numbers = Numbers(0x853c_49e6_748f_ea9b);
    for cut in [Cut::KeepJournal, Cut::DropJournal] {
        let mut durable = Seen::default();
        let mut careless = Seen::default();
        for _ in 0..cuts {
            cut_writer(cut, true, numbers.below(400), &mut durable);
        }
        for _ in 0..cuts.min(12) {
            cut_writer(cut, false, numbers.below(400), &mut careless);
        }
        saw(&format!(
            "{cut:?}: {durable:?}, without fsync: {careless:?}"
        ));
        assert_eq!(
            (durable.lost, durable.corrupt),
            (0, 0),
            "{cut:?}: {durable:?}"
        );
        assert!(durable.told >= durable.cuts, "{cut:?}: {durable:?}");
        // The test of the test: it finds what fsync is for.
        match cut {
            Cut::KeepJournal => assert!(careless.corrupt > 0, "{careless:?}"),
            Cut::DropJournal => assert!(careless.lost > 0, "{careless:?}"),
        }
    }
}

/// Cuts the power under a process that commits one node after the other.
fn cut_writer(cut: Cut, durable: bool, wait: usize, seen: &mut Seen) {
    let mut image = Image::that_can_be_cut().unwrap();
    let root = image.root().join("cache");
    let words = [
        "work",
        root.to_str().unwrap(),
        &durable.to_string(),
        &COMMITS.to_string(),
    ];
    let mut child = race::job(&words).spawn().unwrap();
    let stdout = child.stdout.take().unwrap();
    let (tell, told) = mpsc::channel();
    let reader = thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if let Ok(number) = line.parse::<u32>() {
                let _ = tell.send(number);
            }
        }
    });
    let first = told.recv_timeout(LIMIT).unwrap();
    thread::sleep(Duration::from_millis(wait as u64));
    // What is told from here on may or may not be on the disk already.
    let mut numbers: Vec<u32> = told.try_iter().collect();
    numbers.push(first);
    image.cut(cut).unwrap();
    let _ = child.kill();
    child.wait().unwrap();
    reader.join().unwrap();
    if durable {
        numbers.extend(told.try_iter());
    }
    image.repair().unwrap();

    seen.cuts += 1;
    seen.told += numbers.len();
    seen.corrupt += wrong(&root).len();
    let memo = Arc::new(FileMemo::in_memory());
    let Ok(store) = Store::open_with(
        &root,
        Options {
            durable: false,
            memo,
        },
    ) else {
        assert!(!durable, "the cache cannot be opened any more");
        seen.lost += numbers.len();
        return;
    };
    let is_there = |i: &u32| {
        let found = race::find(&store, *i);
        found.is_some_and(|good| {
            assert!(good, "{cut:?}: the bytes of {i} are others");
            true
        })
    };
    seen.lost += numbers.iter().filter(|i| !is_there(i)).count();
    drop(store);
    // The same work comes to its end afterwards.
    let words = ["work", root.to_str().unwrap(), "false", "20"];
    let again = race::job(&words).output().unwrap();
    assert!(again.status.success());
    assert_eq!(files(&root.join("tmp")), Vec::<PathBuf>::new());
}

#[test]
fn a_run_whose_power_is_cut_goes_on_from_what_it_told() {
    if image("power cuts of runs").is_none() {
        return;
    }
    let cuts = if long() { 50 } else { 2 };
    let mut numbers = Numbers(0xda3e_39cb_94b9_5bdb);
    let (mut nodes, mut items, mut whole) = (0, 0, 600);
    for cut in [Cut::KeepJournal, Cut::DropJournal] {
        for round in 0..cuts {
            let mut image = Image::that_can_be_cut().unwrap();
            let space = project();
            let cache = image.root().join("cache");
            fs::create_dir(&cache).unwrap();
            fs::File::open(image.root()).unwrap().sync_all().unwrap();
            symlink(&cache, space.cache()).unwrap();
            let began = Instant::now();
            let child = start(&space, ONE, "events.jsonl", &[]);
            let pid = child.id().to_string();
            let wait = numbers.below(whole);
            let waiter = thread::spawn(move || end(child, "a run under a power cut"));
            while began.elapsed() < Duration::from_millis(wait as u64) && !waiter.is_finished() {
                thread::sleep(Duration::from_millis(2));
            }
            image.cut(cut).unwrap();
            if !waiter.is_finished() {
                let _ = Command::new("kill")
                    .args(["-9", &pid])
                    .stderr(Stdio::null())
                    .status();
            } else if round == 0 {
                whole = began.elapsed().as_millis() as usize;
            }
            let ended = waiter.join().unwrap();
            let told = Told::by(&space, "events.jsonl", &ended.stderr);
            image.repair().unwrap();
            nodes += told.nodes.len();
            items += told.items.values().sum::<u64>();
            heals(&space, ONE, &told, &format!("{cut:?} after {wait} ms"));
        }
    }
    saw(&format!(
        "{} runs cut: {nodes} nodes and {items} items were told before, all are there",
        2 * cuts
    ));
}

#[test]
fn a_disk_that_is_really_full_is_told_with_a_hint_and_goes_on_with_more_room() {
    let mut numbers = Numbers(0xc4ce_b9fe_1a85_ec53);
    let (mut failed, rounds) = (0, if long() { 40 } else { 3 });
    for _ in 0..rounds {
        let image = match Image::new(6) {
            Ok(image) => image,
            Err(reason) => {
                return left_out(
                    "a full disk",
                    &format!("{reason} (needs root and /dev/loop)"),
                );
            }
        };
        let space = project();
        let cache = image.root().join("cache");
        fs::create_dir(&cache).unwrap();
        symlink(&cache, space.cache()).unwrap();
        // What is left is less than a run needs.
        let filler = image.root().join("filler");
        let mut file = fs::File::create(&filler).unwrap();
        let mut full = 0;
        while let Ok(written) = file.write(&[7; 4096]) {
            full += written as u64;
        }
        let room = (1024 * numbers.below(220) as u64).min(full);
        file.set_len(full - room).unwrap();
        file.sync_all().unwrap();
        drop(file);
        let ended = under(&space, ONE, &[]);
        let case = format!("with {room} bytes of room");
        let told = Told::by(&space, "events.jsonl", &ended.stderr);
        match ended.code {
            Some(0) => assert!(
                exported(&space, ONE, &case) == reference(ONE).result,
                "{case}"
            ),
            Some(1) => {
                failed += 1;
                assert!(
                    ended.stderr.contains("No space left"),
                    "{case}: {}",
                    ended.stderr
                );
                assert!(ended.stderr.contains("hint: "), "{case}: {}", ended.stderr);
            }
            code => panic!("{case}: ended by {code:?}: {}", ended.stderr),
        }
        fs::remove_file(&filler).unwrap();
        heals(&space, ONE, &told, &case);
    }
    saw(&format!("{failed} of {rounds} runs found the disk full"));
    assert!(failed > 0);
}
