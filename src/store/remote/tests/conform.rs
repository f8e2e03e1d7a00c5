//! What every remote does: folders, and real servers that `tests/remotes/servers.sh` starts.

use std::{
    collections::BTreeSet,
    io::Write as _,
    path::Path,
    sync::{
        Barrier,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Instant, SystemTime},
};

use super::{
    super::{Body, Fault, Remote, open, open_with, wire::Limits},
    bytes_of, env, full, s3_env, say, skip,
};
use crate::store::tmp::random;

/// What a remote is expected to do; `strict` where its conditional writes are said to be real.
fn conform(remote: &dyn Remote, strict: bool, rounds: usize, large: bool) {
    let name = remote.name().to_owned();
    // Absent.
    assert_eq!(remote.get("objects/ab/none", 10), Ok(None));
    assert_eq!(
        remote.read("objects/ab/none", 10, &mut Vec::new()),
        Ok(false)
    );
    assert_eq!(remote.stat("objects/ab/none"), Ok(None));
    assert_eq!(remote.list("objects", 10), Ok(vec![]));
    assert_eq!(remote.remove("objects/ab/none"), Ok(()));
    // Written once.
    let one = "objects/ab/one";
    assert_eq!(remote.put_new(one, Body::Bytes(b"first")), Ok(true));
    assert_eq!(remote.put_new(one, Body::Bytes(b"second")), Ok(false));
    assert_eq!(remote.get(one, 5), Ok(Some(b"first".to_vec())));
    assert!(matches!(remote.get(one, 4), Err(Fault::Wrong(_))));
    let mut sink = Vec::new();
    assert_eq!(remote.read(one, 5, &mut sink), Ok(true));
    assert_eq!(sink, b"first");
    for size in [4, 6] {
        let read = remote.read(one, size, &mut Vec::new());
        assert!(matches!(read, Err(Fault::Wrong(_))), "{read:?}");
    }
    // Empty ones, too.
    assert_eq!(
        remote.put_new("objects/ab/empty", Body::Bytes(b"")),
        Ok(true)
    );
    assert_eq!(remote.get("objects/ab/empty", 5), Ok(Some(vec![])));
    assert_eq!(remote.remove("objects/ab/empty"), Ok(()));
    // Size, date and clock.
    let now = remote.now().unwrap();
    let entry = remote.stat(one).unwrap().unwrap();
    assert_eq!((entry.path.as_str(), entry.size), (one, 5));
    let second = 1_000_000_000;
    assert!(
        (now - entry.modified).abs() < 600 * second,
        "{now} {entry:?}"
    );
    let here = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as i64;
    assert!((now - here).abs() < 600 * second);
    // Replaced.
    assert_eq!(remote.replace(one, b"third!"), Ok(()));
    assert_eq!(remote.get(one, 100), Ok(Some(b"third!".to_vec())));
    assert_eq!(remote.replace("leases/new", b"lease"), Ok(()));
    assert_eq!(remote.get("leases/new", 5), Ok(Some(b"lease".to_vec())));
    // Listed.
    let all = ["objects/ab/one", "objects/ab/two", "objects/cd/ef/three"];
    for path in &all[1..] {
        assert_eq!(remote.put_new(path, Body::Bytes(b"x")), Ok(true), "{path}");
    }
    let listed = remote.list("objects", 100).unwrap();
    let names: BTreeSet<_> = listed.iter().map(|entry| entry.path.as_str()).collect();
    assert_eq!(names, BTreeSet::from(all), "{name}");
    for entry in &listed {
        assert_eq!(entry.size, if entry.path == one { 6 } else { 1 });
        assert!((now - entry.modified).abs() < 600 * second);
    }
    assert_eq!(remote.list("objects", 2).unwrap().len(), 2);
    assert_eq!(remote.list("objects/cd", 100).unwrap().len(), 1);
    assert_eq!(
        remote.list("tmp", 100),
        Ok(vec![]),
        "{name} leaves things behind"
    );
    // Removed.
    for path in all {
        assert_eq!(remote.remove(path), Ok(()));
        assert_eq!(remote.get(path, 10), Ok(None));
    }
    assert_eq!(remote.list("objects", 10), Ok(vec![]));
    // Long ones.
    let mut sizes = vec![20_000_000];
    sizes.extend(large.then_some(70_000_003));
    for size in sizes {
        let bytes = bytes_of(size as u64, size);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        let path = format!("objects/ef/{size}");
        let body = Body::File(&file, size as u64);
        let since = Instant::now();
        assert_eq!(remote.put_new(&path, body), Ok(true));
        let put = since.elapsed();
        assert_eq!(remote.put_new(&path, body), Ok(false));
        assert_eq!(remote.stat(&path).unwrap().unwrap().size, size as u64);
        let since = Instant::now();
        let mut back = Vec::new();
        assert_eq!(remote.read(&path, size as u64, &mut back), Ok(true));
        assert!(back == bytes, "{name}: other bytes came back");
        let mega = size as f64 / 1e6;
        say(&format!(
            "{name}: {mega:.0} MB written at {:.0} MB/s, read at {:.0} MB/s",
            mega / put.as_secs_f64(),
            mega / since.elapsed().as_secs_f64()
        ));
        assert!(matches!(remote.get(&path, 1000), Err(Fault::Wrong(_))));
        assert_eq!(remote.remove(&path), Ok(()));
    }
    race(remote, strict, rounds);
}

/// Lets all writers write at once while `read` is done over and over.
fn beside<W: FnOnce() + Send>(writers: impl Iterator<Item = W>, read: impl Fn() + Sync) {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            while !over.load(SeqCst) {
                read();
            }
        });
        let writers: Vec<_> = writers.map(|write| scope.spawn(write)).collect();
        let ends: Vec<_> = writers
            .into_iter()
            .map(thread::ScopedJoinHandle::join)
            .collect();
        over.store(true, SeqCst);
        reader.join().unwrap();
        for end in ends {
            end.unwrap();
        }
    });
}

/// 16 writers of one entry: whole bytes for readers at any time, and one winner.
fn race(remote: &dyn Remote, strict: bool, rounds: usize) {
    const SIZE: usize = 200_000;
    let bodies: Vec<_> = (0..16)
        .map(|writer| bytes_of(writer * 2 + 99, SIZE))
        .collect();
    let mut winners = Vec::new();
    for round in 0..rounds {
        let path = format!("objects/aa/race{round}");
        let (won, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let last = AtomicUsize::new(0);
        let start = Barrier::new(bodies.len());
        let (won, failed, last, path, start) = (&won, &failed, &last, &path, &start);
        let writers = (bodies.iter().enumerate()).map(|(number, body)| {
            move || {
                start.wait();
                match remote.put_new(path, Body::Bytes(body)) {
                    Ok(true) => {
                        last.store(number, SeqCst);
                        won.fetch_add(1, SeqCst);
                    }
                    Ok(false) => {}
                    Err(fault) => {
                        say(&format!("{}: {fault}", remote.name()));
                        failed.fetch_add(1, SeqCst);
                    }
                }
            }
        });
        beside(writers, || {
            let found = remote.get(path, 10 * SIZE as u64).unwrap();
            assert!(
                found.is_none_or(|found| bodies.contains(&found)),
                "{}: torn or mixed bytes in round {round}",
                remote.name()
            );
        });
        assert_eq!(failed.load(SeqCst), 0, "{}", remote.name());
        let bytes = remote.get(path, SIZE as u64).unwrap().unwrap();
        if won.load(SeqCst) == 1 {
            assert!(
                bytes == bodies[last.load(SeqCst)],
                "the winner's bytes do not stay"
            );
        } else {
            assert!(bodies.contains(&bytes));
        }
        winners.push(won.load(SeqCst));
        // In place of each other: readers always find one of them.
        let writers = (bodies[..4].iter()).map(|body| || remote.replace(path, body).unwrap());
        beside(writers, || {
            let found = remote.get(path, SIZE as u64).unwrap();
            assert!(found.is_some_and(|found| bodies.contains(&found)));
        });
        remote.remove(path).unwrap();
    }
    say(&format!(
        "{}: winners of 16 writers: {winners:?}",
        remote.name()
    ));
    let least = winners.iter().all(|&count| count >= 1);
    let one = winners.iter().all(|&count| count == 1);
    assert!(least && (one || !strict), "{}: {winners:?}", remote.name());
}

#[test]
fn a_shared_folder_does_what_a_remote_must() {
    let folder = tempfile::tempdir().unwrap();
    let remote = open("dir", "shared", folder.path(), false).unwrap();
    conform(&*remote, true, if full() { 20 } else { 3 }, full());
    assert!(folder.path().join("shared/FORMAT").exists());
}

#[test]
fn a_bucket_does_what_a_remote_must() {
    for (variable, strict) in [("RUNNER_TEST_S3", true), ("RUNNER_TEST_S3_RACY", false)] {
        let Ok(endpoint) = std::env::var(variable) else {
            skip(&format!(
                "set {variable}=http://127.0.0.1:PORT to a server of tests/remotes/servers.sh"
            ));
            continue;
        };
        let url = format!("s3://runner-test/t-{:016x}", random());
        let env = s3_env(&endpoint, "test-key", "test-secret");
        let base = Path::new("/");
        let remote = open_with(variable, &url, base, false, Limits::default(), env).unwrap();
        conform(&*remote, strict, 20, true);
        let env = s3_env(&endpoint, "test-key", "test-secret");
        let bad = "s3://no-such-bucket-here/x";
        let remote = open_with("bad", bad, base, false, Limits::default(), env).unwrap();
        let found = remote.get("objects/ab/one", 5);
        say(&format!(
            "{variable}: a bucket that is not there: {found:?}"
        ));
        let made = remote.put_new("objects/ab/one", Body::Bytes(b"x"));
        // s3s-fs knows no difference to a bucket that is empty.
        if strict {
            assert!(matches!(found, Err(Fault::Wrong(_))), "{found:?}");
            assert!(made.is_err(), "{made:?}");
        }
    }
}

#[test]
fn an_azure_container_does_what_a_remote_must() {
    let Ok(endpoint) = std::env::var("RUNNER_TEST_AZURE") else {
        skip(
            "set RUNNER_TEST_AZURE=http://127.0.0.1:PORT/runner to a server of tests/remotes/servers.sh",
        );
        return;
    };
    let url = format!("az://runner-test/t-{:016x}", random());
    let env = env(&[
        ("AZURE_STORAGE_ACCOUNT_NAME", "runner"),
        ("AZURE_STORAGE_ACCOUNT_KEY", "dGVzdC1rZXk="),
        ("AZURE_ALLOW_HTTP", "true"),
        ("AZURE_STORAGE_ENDPOINT", &endpoint),
    ]);
    let base = Path::new("/");
    let remote = open_with("azure", &url, base, false, Limits::default(), env).unwrap();
    conform(&*remote, true, 20, true);
}

#[test]
fn a_webdav_server_does_what_a_remote_must() {
    let Ok(url) = std::env::var("RUNNER_TEST_DAV") else {
        skip(
            "set RUNNER_TEST_DAV=http://127.0.0.1:PORT/dav to a server of tests/remotes/servers.sh",
        );
        return;
    };
    let url = format!("{url}/t/{:016x}", random());
    let remote = open("dav", &url, Path::new("/"), false).unwrap();
    // nginx looks whether there is one and then moves: now and then two are told to be first.
    conform(&*remote, false, 20, true);
    // The same files from a server that only gives them out.
    let Ok(plain) = std::env::var("RUNNER_TEST_PLAIN") else {
        skip("set RUNNER_TEST_PLAIN=http://127.0.0.1:PORT/plain to the same folder without DAV");
        return;
    };
    remote.replace("objects/ab/one", b"first").unwrap();
    let folder = url.split("/dav").nth(1).unwrap();
    let remote = open("plain", &format!("{plain}{folder}"), Path::new("/"), false).unwrap();
    assert_eq!(remote.get("objects/ab/one", 5), Ok(Some(b"first".to_vec())));
    assert_eq!(remote.get("objects/ab/none", 5), Ok(None));
    assert_eq!(remote.stat("objects/ab/one").unwrap().unwrap().size, 5);
    let list = remote.list("objects", 10);
    assert!(matches!(list, Err(Fault::Unsupported(_))), "{list:?}");
    for made in [
        remote
            .put_new("objects/ab/two", Body::Bytes(b"x"))
            .map(|_| ()),
        remote.replace("objects/ab/one", b"x"),
        remote.remove("objects/ab/one"),
    ] {
        assert!(matches!(made, Err(Fault::Denied(_))), "{made:?}");
    }
}
