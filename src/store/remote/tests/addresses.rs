//! Addresses, secrets, and places that do not answer.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use super::{
    super::{Body, Fault, GIVE_UP, open, open_with, plain},
    env,
    faulty::{Act, Faulty, answer},
    quick, s3_env,
};

#[test]
fn addresses_that_mean_nothing_or_hold_a_secret_are_refused_without_showing_it() {
    for (url, says) in [
        ("s3://key:canary@bucket/x", "AWS_ACCESS_KEY_ID"),
        ("gs://canary@bucket/x", "GOOGLE_APPLICATION_CREDENTIALS"),
        ("az://canary@bucket/x", "AZURE_STORAGE_ACCOUNT_KEY"),
        ("https://me:canary@host/x", "RUNNER_REMOTE_LAB_1_PASSWORD"),
        ("https://host/x?token=canary", "RUNNER_REMOTE_LAB_1_TOKEN"),
        ("s3:///x", "names no bucket"),
        ("s3://bucket/../x", "`..`"),
        ("https://host/a%2Fb", "`a%2Fb`"),
        ("https://ho st/a", "names no server"),
        ("file://host/x", "three slashes"),
        ("ftp://canary@host/x", "not a kind of remote"),
    ] {
        let error = open("lab-1", url, Path::new("/"), false).unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(text.contains(says), "{text}");
        assert!(text.contains("hint: "), "{text}");
        assert!(!text.contains("canary"), "{text}");
    }
    let secret = env(&[("RUNNER_REMOTE_LAB_TOKEN", "canary")]);
    let at = |url| open_with("lab", url, Path::new("/"), false, quick(), secret.clone());
    let error = at("http://example.org/x").unwrap_err().to_string();
    assert!(
        error.contains("`https`") && !error.contains("canary"),
        "{error}"
    );
    for url in ["https://example.org/x", "s3://bucket/x"] {
        let mut env = s3_env("http://127.0.0.1:1", "canary-key", "canary-secret");
        env.extend(secret.clone());
        env.insert("HTTPS_PROXY".to_owned(), "http://me:canary@proxy:1".into());
        let remote = open_with("lab", url, Path::new("/"), false, quick(), env).unwrap();
        let fault = remote.get("objects/ab/one", 9).unwrap_err();
        let text = format!("{remote:?} {fault} {fault:?}");
        assert!(
            !text.contains("canary") && !text.contains("Bearer"),
            "{text}"
        );
    }
    assert_eq!(plain("https://u:p@h/a?b=c"), "https://h/a");
}

#[test]
fn a_web_servers_secret_is_sent_to_it_alone_and_shown_nowhere() {
    let server = Faulty::start(|_| answer(403, "", b"canary-token canary-pass"));
    let url = format!("http://{}/c", server.host());
    let env = env(&[
        ("RUNNER_REMOTE_ONE_TOKEN", "canary-token"),
        ("RUNNER_REMOTE_TWO_USER", "ana"),
        ("RUNNER_REMOTE_TWO_PASSWORD", "canary-pass"),
    ]);
    for (name, header) in [
        ("one", Some("authorization: bearer canary-token")),
        // "ana:canary-pass"
        ("two", Some("authorization: basic yw5homnhbmfyes1wyxnz")),
        ("three", None),
    ] {
        let remote = open_with(name, &url, Path::new("/"), false, quick(), env.clone()).unwrap();
        let fault = remote.get("objects/ab/one", 9).unwrap_err();
        assert!(matches!(fault, Fault::Denied(_)));
        assert!(!fault.to_string().contains("canary"), "{fault}");
        assert!(!format!("{remote:?}").contains("canary-"), "{remote:?}");
        let head = server.seen.lock().unwrap().last().unwrap().head.clone();
        match header {
            Some(header) => assert!(head.contains(header), "{head}"),
            None => assert!(!head.contains("authorization"), "{head}"),
        }
    }
}

#[test]
fn a_remote_that_is_not_reached_is_given_up() {
    let server = Faulty::start(|_| answer(503, "", b""));
    let (host, answers) = (server.host(), Arc::clone(&server.answers));
    let at = |url: &str, env| open_with("x", url, Path::new("/"), false, quick(), env).unwrap();
    let s3 = || s3_env(&format!("http://{host}"), "key", "secret");
    for remote in [
        at(&format!("http://{host}/c"), env(&[])),
        at("s3://bucket/c", s3()),
    ] {
        let before = answers.load(SeqCst);
        for _ in 0..GIVE_UP {
            let fault = remote.get("objects/ab/one", 9).unwrap_err();
            assert!(
                matches!(&fault, Fault::Offline(text) if text.contains("503")),
                "{fault}"
            );
        }
        assert_eq!(answers.load(SeqCst) - before, 6, "each asked twice");
        let fault = remote.stat("objects/ab/one").unwrap_err();
        assert_eq!(
            fault,
            Fault::Offline("not asked again in this run".to_owned())
        );
        assert_eq!(answers.load(SeqCst) - before, 6);
    }
    drop(server);
    for remote in [
        at(&format!("http://{host}/c"), env(&[])),
        at("s3://bucket/c", s3()),
    ] {
        let since = Instant::now();
        for _ in 0..100 {
            assert!(matches!(
                remote.get("objects/ab/one", 9),
                Err(Fault::Offline(_))
            ));
        }
        assert!(since.elapsed() < Duration::from_secs(5));
    }
    // An answer between two failures shows that it is there.
    let number = AtomicUsize::new(0);
    let server = Faulty::start(move |seen| {
        let turn = if seen.path.is_empty() {
            0
        } else {
            number.fetch_add(1, SeqCst)
        };
        let status = if turn % 6 < 4 { 503 } else { 404 };
        answer(status, "", b"")
    });
    let remote = at(&format!("http://{}/c", server.host()), env(&[]));
    for _ in 0..4 {
        assert!(remote.get("objects/ab/one", 9).is_err());
        assert!(remote.get("objects/ab/one", 9).is_err());
        assert_eq!(remote.get("objects/ab/one", 9), Ok(None));
        assert_eq!(remote.get("objects/ab/one", 9), Ok(None));
    }
}

#[test]
fn a_move_whose_answer_is_lost_is_found_done() {
    let moves = AtomicUsize::new(0);
    let server = Faulty::start(move |seen| match seen.method.as_str() {
        _ if seen.path.is_empty() => Act::Say(Vec::new()),
        "PUT" => answer(201, "", b""),
        "MOVE" if moves.fetch_add(1, SeqCst) == 0 => Act::Say(Vec::new()),
        "HEAD" => answer(
            200,
            "last-modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n",
            b"x",
        ),
        _ => answer(404, "", b""),
    });
    let url = format!("http://{}/c", server.host());
    let remote = open_with("x", &url, Path::new("/"), false, quick(), env(&[])).unwrap();
    assert_eq!(
        remote.put_new("objects/ab/one", Body::Bytes(b"x")),
        Ok(true)
    );
    let seen = server.seen.lock().unwrap();
    let methods: Vec<_> = seen.iter().map(|seen| seen.method.as_str()).collect();
    assert_eq!(methods, ["PUT", "MOVE", "MOVE", "HEAD"]);
    assert!(seen[1].head.contains("overwrite: f"));
    assert!(
        seen[1]
            .head
            .contains(&format!("destination: {url}/objects/ab/one"))
    );
}
