//! Several files and several fetches at once, stops, and full disks.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
};

use super::*;

#[test]
fn two_fetches_of_one_target_download_it_once() {
    let content = bytes(1, 50_000);
    let given = content.clone();
    let waiting = Arc::new(AtomicUsize::new(0));
    let others = Arc::clone(&waiting);
    // The first one gets its file once both others have said that they wait.
    let server = Faulty::start(move |_| {
        let begun = Instant::now();
        while others.load(SeqCst) < 2 && begun.elapsed() < Duration::from_secs(10) {
            thread::sleep(Duration::from_millis(5));
        }
        Act::File(given.clone(), "v1")
    });
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("file.bin");
    let job = single(&server.url(), &to, &content);
    let patient = Settings {
        read_timeout: Duration::from_secs(20),
        ..quick()
    };
    let tell = |event| {
        if matches!(event, Event::Waiting { .. }) {
            waiting.fetch_add(1, SeqCst);
        }
    };
    let results: Vec<Outcome> = thread::scope(|scope| {
        let running: Vec<_> = (0..3)
            .map(|_| scope.spawn(|| fetch(&job, &patient, &tell, &|| false).unwrap()))
            .collect();
        running
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let present = results
        .iter()
        .filter(|outcome| outcome.files[0].present)
        .count();
    assert_eq!(
        (present, waiting.load(SeqCst), server.seen().len()),
        (2, 2, 1)
    );
    assert_eq!(std::fs::read(&to).unwrap(), content);
    assert_eq!(names(folder.path()), ["file.bin"]);
}

#[test]
fn a_stop_ends_a_hanging_download_and_keeps_what_has_arrived() {
    let content = bytes(1, 50_000);
    let given = content.clone();
    let server = Faulty::start(move |seen| match seen.attempt {
        0 => Act::Stall(given.clone(), "v1", 30_000),
        _ => Act::File(given.clone(), "v1"),
    });
    let folder = tempfile::tempdir().unwrap();
    let job = single(&server.url(), &folder.path().join("file.bin"), &content);
    let patient = Settings {
        read_timeout: Duration::from_mins(1),
        ..quick()
    };
    let part = folder.path().join("file.bin.part");
    let arrived = || std::fs::metadata(&part).is_ok_and(|found| found.len() == 30_000);
    let asked = AtomicUsize::new(0);
    let begun = Instant::now();
    let error = fetch(&job, &patient, &|_| {}, &|| {
        asked.fetch_add(1, SeqCst);
        arrived()
    })
    .unwrap_err();
    assert!(error.is::<Stopped>(), "{error:#}");
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert!(asked.load(SeqCst) > 0 && arrived());
    done(&job, &patient);
    assert_eq!(server.seen()[1].from(), Some(30_000));
    assert_eq!(names(folder.path()), ["file.bin"]);
}

#[test]
fn a_stop_ends_waits_and_silent_servers() {
    for act in [
        Act::Hang,
        Act::Status(503, "retry-after: 300\r\n".to_owned(), Vec::new()),
    ] {
        let server = Faulty::start(move |_| act.clone());
        let folder = tempfile::tempdir().unwrap();
        let patient = Settings {
            read_timeout: Duration::from_mins(1),
            ..quick_hub(&server)
        };
        let since = Mutex::new(None);
        let begun = Instant::now();
        let error = fetch(&repository(folder.path(), &[]), &patient, &|_| {}, &|| {
            let asked = !server.seen().is_empty();
            let mut since = since.lock().unwrap();
            asked && since.get_or_insert_with(Instant::now).elapsed() > Duration::from_millis(200)
        })
        .unwrap_err();
        assert!(error.is::<Stopped>(), "{error:#}");
        assert!(begun.elapsed() < Duration::from_secs(20));
    }
}

#[test]
fn files_come_in_at_the_same_time_but_not_more_than_allowed() {
    let now = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let (counting, highest) = (Arc::clone(&now), Arc::clone(&most));
    let server = Faulty::start(move |seen| {
        if seen.path.contains("/tree/") {
            let list = (0..9)
                .map(|i| entry(&format!("f{i}"), b"x", false))
                .collect();
            return reply(&Value::Array(list));
        }
        let count = counting.fetch_add(1, SeqCst) + 1;
        highest.fetch_max(count, SeqCst);
        thread::sleep(Duration::from_millis(100));
        counting.fetch_sub(1, SeqCst);
        Act::File(b"x".to_vec(), "v1")
    });
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings {
        parallel: 3,
        read_timeout: Duration::from_secs(20),
        ..quick_hub(&server)
    };
    assert_eq!(
        done(&repository(folder.path(), &[]), &settings).files.len(),
        9
    );
    let most = most.load(SeqCst);
    assert!((2..=3).contains(&most), "{most}");
}

#[test]
fn one_file_that_fails_ends_the_others_and_keeps_their_parts() {
    let content = bytes(1, 50_000);
    let given = content.clone();
    let stalled = Arc::new(AtomicBool::new(false));
    let server = Faulty::start(move |seen| {
        if seen.path.contains("/tree/") {
            return reply(&json!([
                entry("a.safetensors", &given, true),
                entry("b.safetensors", &given, true),
            ]));
        }
        if seen.path.ends_with("/a.safetensors") {
            return match seen.attempt {
                0 => {
                    stalled.store(true, SeqCst);
                    Act::Stall(given.clone(), "v1", 30_000)
                }
                _ => Act::File(given.clone(), "v1"),
            };
        }
        while !stalled.load(SeqCst) {
            thread::sleep(Duration::from_millis(5));
        }
        thread::sleep(Duration::from_millis(300));
        match seen.attempt {
            0 => Act::Status(
                404,
                "x-error-code: EntryNotFound\r\n".to_owned(),
                Vec::new(),
            ),
            _ => Act::File(given.clone(), "v1"),
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let patient = Settings {
        read_timeout: Duration::from_mins(1),
        ..quick_hub(&server)
    };
    let job = repository(folder.path(), &[]);
    let begun = Instant::now();
    let message = error(&job, &patient);
    assert!(
        message.contains("`b.safetensors`") && message.contains("404"),
        "{message}"
    );
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert_eq!(
        names(folder.path()),
        ["a.safetensors.part", "a.safetensors.part.json"]
    );
    done(&job, &patient);
    assert_eq!(names(folder.path()), ["a.safetensors", "b.safetensors"]);
    assert_eq!(server.seen_of("/a.safetensors")[1].from(), Some(30_000));
}

#[test]
fn wrong_files_are_all_named_before_anything_is_downloaded() {
    let server = Faulty::start(|seen| {
        if seen.path.contains("/tree/") {
            reply(&json!([
                entry("a", b"x", false),
                entry("b", b"x", false),
                entry("c", b"x", false),
            ]))
        } else {
            Act::File(b"x".to_vec(), "v1")
        }
    });
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a"), "y").unwrap();
    std::os::unix::fs::symlink("nowhere", folder.path().join("c")).unwrap();
    let message = error(&repository(folder.path(), &[]), &quick_hub(&server));
    assert!(
        message.contains("/a` is git-sha1:") && message.contains("/c` is a link to nothing"),
        "{message}"
    );
    assert_eq!(server.seen_of("resolve").len(), 0);
    assert!(!folder.path().join("b").exists());
}
