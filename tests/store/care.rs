//! Verification, repair, collection, pins and counts.

use std::{
    os::unix::fs::symlink,
    time::{Duration, SystemTime},
};

use runner::store::{Count, GcPolicy, Stats};

use super::*;

const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

/// Makes every file of the cache, or those whose path contains `which`, this old.
fn age(store: &Store, which: &str, age: Duration) {
    for file in files(store.root())
        .iter()
        .filter(|file| file.contains(which))
    {
        let file = fs::File::open(store.root().join(file)).unwrap();
        let then = SystemTime::now() - age;
        file.set_times(fs::FileTimes::new().set_modified(then))
            .unwrap();
    }
}

/// A committed record of its own 1,000 bytes, and the path of its file.
fn commit(store: &Store, key: &str) -> (Record, String) {
    let record = record(store, key, key.repeat(1000 / key.len()).as_bytes());
    store.commit(&record).unwrap();
    let hex = record.key.to_string();
    (record, format!("actions/local/{}/{}", &hex[..2], &hex[2..]))
}

/// Collects at once, without a trash, what is older than an hour and older than `max_age`.
fn now(max_age: Option<Duration>, max_size: Option<u64>) -> GcPolicy {
    GcPolicy {
        max_age,
        max_size,
        grace: HOUR,
        trash: Duration::ZERO,
        dry_run: false,
    }
}

#[test]
fn age_collects_old_records_with_their_own_objects_only() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let (old, path) = commit(&store, "old");
    let (used, used_path) = commit(&store, "used");
    let (fresh, _) = commit(&store, "fresh");
    let mut sharing = record(&store, "sharing", b"x");
    sharing.outputs = fresh.outputs.clone();
    sharing.artifact = fresh.artifact;
    store.commit(&sharing).unwrap();
    age(&store, "objects", 40 * DAY);
    age(&store, &path, 40 * DAY);
    age(&store, &used_path, 40 * DAY);
    // A look makes it young again, but not to be compared with.
    assert!(store.lookup(&used.key).unwrap().is_some());
    assert_eq!(store.peek(&old.key).unwrap().as_ref(), Some(&old));
    let policy = now(Some(30 * DAY), None);

    let before = files(folder.path());
    let dry = store
        .gc(
            &GcPolicy {
                dry_run: true,
                ..policy
            },
            &[],
        )
        .unwrap();
    assert_eq!(files(folder.path()), before);
    let report = store.gc(&policy, &[]).unwrap();
    assert_eq!(report, dry);
    assert_eq!((report.records.files, report.broken.files), (1, 0));
    // The old record's object, and the one that no record names.
    assert_eq!(
        report.objects,
        Count {
            files: 2,
            bytes: 999 + 1
        }
    );
    assert_eq!(store.lookup(&old.key).unwrap(), None);
    for record in [&used, &fresh, &sharing] {
        assert_eq!(store.lookup(&record.key).unwrap().as_ref(), Some(record));
        assert!(store.get(&record.outputs[0].digest).unwrap().is_some());
    }
    assert_eq!(store.gc(&policy, &[]).unwrap().objects.files, 0);
    assert!(store.verify(false, &mut |_, _| ()).unwrap().is_clean());
}

#[test]
fn size_collects_the_longest_unused_until_the_rest_fits() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let mut keys = Vec::new();
    for (i, key) in ["r0", "r1", "r2", "r3", "r4", "r5"].iter().enumerate() {
        let (record, path) = commit(&store, key);
        keys.push(record.key);
        age(&store, &path, (10 - i as u32) * DAY);
    }
    age(&store, "objects", 40 * DAY);
    let space = Digest::of(b"space");
    store
        .commit_items(&space, &[(Digest::of(b"i"), vec![0; 1000])])
        .unwrap();
    age(&store, "items", 9 * DAY + HOUR);
    let stats = store.stats().unwrap();
    let total = stats.objects.bytes + stats.records.bytes + stats.packs.bytes;
    // One byte too much: the oldest goes, which is enough.
    let report = store.gc(&now(None, Some(total - 1)), &[]).unwrap();
    assert_eq!((report.records.files, report.packs.files), (1, 0));
    // Then the pack, which is older than the next record.
    let report = store.gc(&now(None, Some(total - 3000)), &[]).unwrap();
    assert_eq!((report.records.files, report.packs.files), (1, 1));
    assert!(store.items(&space).unwrap().is_empty());
    assert!(report.kept.bytes <= total - 3000);
    // Pinned and live ones stay, even if that leaves too much.
    store.pin("paper", &[keys[2]]).unwrap();
    let report = store.gc(&now(None, Some(0)), &[keys[3]]).unwrap();
    assert_eq!(report.records.files, 2);
    let left: Vec<_> = keys
        .iter()
        .map(|key| store.lookup(key).unwrap().is_some())
        .collect();
    assert_eq!(left, [false, false, true, true, false, false]);
    assert_eq!(store.stats().unwrap().objects.files, 2);
}

#[test]
fn nothing_younger_than_the_grace_time_goes() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let orphan = store.put(b"of a run under way").unwrap();
    let (record, path) = commit(&store, "young");
    let space = Digest::of(b"space");
    store
        .commit_items(&space, &[(Digest::of(b"i"), vec![0; 10])])
        .unwrap();
    age(&store, "", 59 * Duration::from_mins(1));
    let report = store.gc(&now(Some(Duration::ZERO), Some(0)), &[]).unwrap();
    assert_eq!(
        (
            report.records.files,
            report.objects.files,
            report.packs.files
        ),
        (0, 0, 0)
    );
    assert_eq!(
        report.young,
        Count {
            files: 1,
            bytes: 18
        }
    );
    assert!(store.has(&orphan, 18));
    assert!(store.lookup(&record.key).unwrap().is_some());
    // An old object that is put again, or named by a new record, is in use.
    let (named, named_path) = commit(&store, "named");
    age(&store, "", 2 * HOUR);
    store.put(b"of a run under way").unwrap();
    fs::remove_file(store.root().join(&named_path)).unwrap();
    store.commit(&named).unwrap();
    let report = store.gc(&now(Some(Duration::ZERO), Some(0)), &[]).unwrap();
    assert_eq!((report.records.files, report.objects.files), (1, 1));
    assert!(!store.root().join(path).exists());
    assert!(store.has(&orphan, 18));
    assert!(store.lookup(&named.key).unwrap().is_some());
}

#[test]
fn a_record_whose_object_is_missing_is_dropped_and_the_rest_of_it_collected() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let mut record = record(&store, "key", b"one");
    let (two, size) = (store.put(b"two").unwrap(), 3);
    record.outputs.push(Output {
        name: "two".into(),
        digest: two,
        size,
    });
    store.commit(&record).unwrap();
    age(&store, "", 2 * HOUR);
    fs::remove_file(store.object_path(&two).unwrap().unwrap()).unwrap();
    let report = store.gc(&now(None, None), &[record.key]).unwrap();
    assert_eq!((report.broken.files, report.objects.files), (1, 1));
    assert_eq!(files(folder.path()), ["CACHEDIR.TAG", "FORMAT"]);
}

#[test]
fn the_trash_keeps_objects_for_a_day_and_gives_them_back() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let (first, _) = commit(&store, "one");
    let (second, _) = commit(&store, "two");
    age(&store, "", 10 * DAY);
    let policy = GcPolicy {
        max_age: Some(DAY),
        ..GcPolicy::default()
    };
    let report = store.gc(&policy, &[]).unwrap();
    assert_eq!((report.records.files, report.objects.files), (2, 2));
    assert_eq!(store.stats().unwrap().trash.files, 4);
    assert_eq!(store.stats().unwrap().objects.files, 0);
    // A run that has the record in its hands still finds the object.
    let digest = first.outputs[0].digest;
    assert!(store.get(&digest).unwrap().is_some());
    assert!(store.has(&digest, 999));
    assert_eq!(store.stats().unwrap().trash.files, 3);
    assert_eq!(store.gc(&policy, &[]).unwrap().emptied.files, 0);
    for day in fs::read_dir(folder.path().join("trash")).unwrap() {
        let day = fs::File::open(day.unwrap().path()).unwrap();
        let then = SystemTime::now() - 2 * DAY;
        day.set_times(fs::FileTimes::new().set_modified(then))
            .unwrap();
    }
    assert_eq!(store.gc(&policy, &[]).unwrap().emptied.files, 3);
    assert_eq!(part(&store, "trash"), [""; 0]);
    assert_eq!(store.get(&second.outputs[0].digest).unwrap(), None);
    assert!(store.get(&digest).unwrap().is_some());
}

#[test]
fn pins_come_back_and_unreadable_ones_stop_the_collection() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let (record, _) = commit(&store, "key");
    let space = Digest::of(b"space");
    store
        .commit_items(&space, &[(Digest::of(b"i"), vec![0; 10])])
        .unwrap();
    store.pin("paper", &[record.key, space]).unwrap();
    store.pin("empty", &[]).unwrap();
    let pins = store.pins().unwrap();
    let names: Vec<_> = pins.keys().collect();
    assert_eq!(names, ["empty", "paper"]);
    assert_eq!(pins["paper"], [record.key, space]);
    age(&store, "", 10 * DAY);
    let policy = now(Some(DAY), Some(0));
    let report = store.gc(&policy, &[]).unwrap();
    assert_eq!(
        (
            report.records.files,
            report.packs.files,
            report.objects.files
        ),
        (0, 0, 0)
    );
    fs::write(folder.path().join("pins/paper"), "{").unwrap();
    assert!(matches!(
        store.gc(&policy, &[]),
        Err(StoreError::BadPins(_))
    ));
    assert!(store.unpin("paper").unwrap());
    assert!(!store.unpin("paper").unwrap());
    let report = store.gc(&policy, &[]).unwrap();
    assert_eq!(
        (
            report.records.files,
            report.packs.files,
            report.objects.files
        ),
        (1, 1, 1)
    );
}

#[test]
fn verification_finds_all_damage_and_repair_leaves_a_sound_store() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let path = |digest: &Digest| store.object_path(digest).unwrap().unwrap();
    let (sound, _) = commit(&store, "sound");
    let (damaged, damaged_record) = commit(&store, "damaged object");
    let (missing, missing_record) = commit(&store, "missing object");
    let (_, bad_record) = commit(&store, "bad record");
    let space = Digest::of(b"space");
    let keys: Vec<_> = (0..3_u8).map(|i| Digest::of(&[i])).collect();
    let batch: Vec<_> = keys
        .iter()
        .map(|key| (*key, key.to_string().into_bytes()))
        .collect();
    store.commit_items(&space, &batch).unwrap();
    store.save_index("noop", b"x");
    store.save_run("run", &json!(1)).unwrap();
    let clean = store.verify(true, &mut |_, _| ()).unwrap();
    assert!(clean.is_clean());
    assert_eq!((clean.objects, clean.records, clean.packs), (4, 4, 1));

    let flip = |path: std::path::PathBuf, at: usize| {
        let mut bytes = fs::read(&path).unwrap();
        let at = if at == 0 { bytes.len() - 1 } else { at };
        bytes[at] ^= 4;
        fs::remove_file(&path).unwrap();
        fs::write(path, bytes).unwrap();
    };
    flip(path(&damaged.outputs[0].digest), 0);
    fs::remove_file(path(&missing.outputs[0].digest)).unwrap();
    flip(folder.path().join(&bad_record), 20);
    let pack = part(&store, "items").remove(0);
    flip(folder.path().join(&pack), 0);
    flip(folder.path().join("index/noop"), 0);
    fs::write(folder.path().join("runs/run.json"), "{").unwrap();
    fs::create_dir_all(folder.path().join("objects/zz")).unwrap();
    fs::write(folder.path().join("objects/zz/notes"), "x").unwrap();
    let planted = format!("objects/ab/{}", "0".repeat(62));
    fs::create_dir_all(folder.path().join("objects/ab")).unwrap();
    symlink("/etc/passwd", folder.path().join(&planted)).unwrap();

    let object = |record: &Record| {
        let file = path(&record.outputs[0].digest);
        file.strip_prefix(store.root())
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned()
    };
    let hex = damaged.outputs[0].digest.to_string();
    let damaged_object = format!("objects/{}/{}", &hex[..2], &hex[2..]);
    let mut expected = [
        damaged_object,
        damaged_record,
        missing_record,
        bad_record,
        pack,
        "index/noop".to_owned(),
        "runs/run.json".to_owned(),
        "objects/zz/notes".to_owned(),
        planted,
    ];
    expected.sort_unstable();
    let before = files(folder.path());
    let mut steps = Vec::new();
    for repair in [false, true] {
        let report = store
            .verify(repair, &mut |done, total| steps.push((done, total)))
            .unwrap();
        let mut found: Vec<_> = report.problems.iter().map(|p| p.path.clone()).collect();
        found.sort_unstable();
        assert_eq!(found, expected);
        assert!(
            report
                .problems
                .iter()
                .all(|problem| problem.repaired == repair)
        );
        if !repair {
            assert_eq!(files(folder.path()), before);
        }
    }
    assert!(steps.iter().all(|(done, total)| done <= total));
    assert!(store.verify(true, &mut |_, _| ()).unwrap().is_clean());
    assert_eq!(
        store.stats().unwrap().quarantine.files,
        // The planted link is there too, but no file.
        expected.len() as u64 - 1
    );
    assert_eq!(store.lookup(&sound.key).unwrap(), Some(sound.clone()));
    assert!(!object(&sound).is_empty());
    // Two of the three items were not damaged.
    let items = store.items(&space).unwrap();
    let left = batch
        .iter()
        .filter(|(key, value)| items.get(key).as_ref() == Some(value));
    assert_eq!((left.count(), items.len()), (2, 2));
}

#[test]
fn counts_are_those_of_the_files() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    assert_eq!(store.stats().unwrap(), Stats::default());
    commit(&store, "one");
    commit(&store, "two");
    let batch: Vec<_> = (0..7_u8).map(|i| (Digest::of(&[i]), vec![i])).collect();
    store.commit_items(&Digest::of(b"space"), &batch).unwrap();
    store.save_run("run", &json!(1)).unwrap();
    let stats = store.stats().unwrap();
    assert_eq!(
        stats.objects,
        Count {
            files: 2,
            bytes: 1998
        }
    );
    assert_eq!(
        (stats.records.files, stats.packs.files, stats.items),
        (2, 1, 7)
    );
    assert_eq!(stats.runs, Count { files: 1, bytes: 2 });
    assert_eq!(
        (
            stats.quarantine.files,
            stats.trash.files,
            stats.unfinished.files
        ),
        (0, 0, 0)
    );
}
