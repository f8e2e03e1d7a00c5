//! One file of a URL that is not to be had: what is said, and what is left behind.

use super::*;

#[test]
fn wrong_bytes_are_deleted_and_told() {
    let scene = scene(|_, _| Act::File(bytes(2, 50_000), "v1"));
    let message = error(&scene.job, &quick());
    let found = sha256(&bytes(2, 50_000));
    for part in [
        "`data.cifar10`",
        &format!("is sha256:{found}, but sha256:{}", sha256(&scene.content)),
        "it was deleted",
        "hint: is the digest copied right?",
    ] {
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(names(scene.folder.path()), [""; 0]);
    // Bytes of one whole reply are not asked for again.
    assert_eq!(scene.server.seen().len(), 1);
}

#[test]
fn a_server_that_stays_busy_is_given_up() {
    let busy = scene(|_, _| Act::Status(503, String::new(), b"busy".to_vec()));
    let message = error(&busy.job, &quick());
    assert!(
        message.contains("said 503: busy (tried 6 times)"),
        "{message}"
    );
    assert!(message.contains("hint: download by hand"), "{message}");
    assert_eq!(busy.server.seen().len(), 6);
    let long = scene(|_, _| Act::Status(429, "retry-after: 86400\r\n".to_owned(), Vec::new()));
    let message = error(&long.job, &quick());
    assert!(
        message.contains("wants to be left alone for 86400 s"),
        "{message}"
    );
    assert_eq!(long.server.seen().len(), 1);
}

#[test]
fn a_web_page_is_not_taken_for_the_file() {
    let page = b"\n<!DOCTYPE html><title>log in</title>".to_vec();
    for kind in ["text/html; charset=utf-8", "application/octet-stream"] {
        let page = page.clone();
        let scene =
            scene(move |_, _| Act::Status(200, format!("content-type: {kind}\r\n"), page.clone()));
        let message = error(&scene.job, &quick());
        assert!(
            message.contains("sent a web page instead of the file"),
            "{message}"
        );
        assert_eq!(scene.server.seen().len(), 1);
        assert_eq!(names(scene.folder.path()), [""; 0]);
    }
    // What has arrived before is kept.
    let kept = scene(move |seen, content| match seen.attempt {
        0 => Act::Cut(content, "v1", 30_000),
        1 => Act::Status(200, "content-type: text/html\r\n".to_owned(), page.clone()),
        _ => Act::File(content, "v1"),
    });
    error(&kept.job, &quick());
    done(&kept.job, &quick());
    kept.assert_done();
    assert_eq!(kept.server.seen()[2].from(), Some(30_000));
}

#[test]
fn what_is_no_file_is_never_replaced() {
    let scene = scene(|_, content| Act::File(content, "v1"));
    std::fs::create_dir_all(&scene.job.to).unwrap();
    let force = Settings {
        force: true,
        ..quick()
    };
    assert!(error(&scene.job, &force).contains("is not a file"));
    std::fs::remove_dir(&scene.job.to).unwrap();
    // A part that is a link would write somewhere else.
    let outside = scene.folder.path().join("outside");
    std::fs::write(&outside, "mine").unwrap();
    let part = scene.job.to.with_file_name("file.bin.part");
    std::os::unix::fs::symlink(&outside, part).unwrap();
    let message = error(&scene.job, &force);
    assert!(message.contains("failed to write"), "{message}");
    assert_eq!(std::fs::read(&outside).unwrap(), b"mine");
}

#[test]
fn statuses_that_do_not_pass_are_told_at_once() {
    for (status, hint) in [
        (404, "is `url` right, and is the file still there?"),
        (403, "the file is not free to download"),
        (451, "download by hand"),
    ] {
        let scene = scene(move |_, _| Act::Status(status, String::new(), b"no".to_vec()));
        let message = error(&scene.job, &quick());
        assert!(message.contains(&format!("said {status}: no")), "{message}");
        assert!(message.contains(hint), "{message}");
        assert_eq!(scene.server.seen().len(), 1);
    }
}

#[test]
fn an_unreachable_host_is_told_with_what_to_do_by_hand() {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("file.bin");
    let job = single(&Faulty::nowhere(), &to, b"x");
    let (result, events) = run(&job, &quick());
    let message = format!("{:#}", result.unwrap_err());
    for part in [
        "`127.0.0.1` was not reached: it refuses connections (tried 3 times)",
        "hint: download by hand",
        &format!("to `{}`", to.display()),
        &sha256(b"x"),
    ] {
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(count(&events, |e| matches!(e, Event::Retry { .. })), 2);
    assert_eq!(names(folder.path()), [""; 0]);
}

#[test]
fn addresses_that_are_not_safe_are_refused_before_anything_is_asked() {
    let job = |url: &str, sha256: Option<String>| Job {
        name: "data.x".to_owned(),
        source: Source::Url {
            url: url.to_owned(),
            sha256,
            md5: None,
        },
        to: PathBuf::from("nowhere/x"),
    };
    let good = Some("a".repeat(64));
    for (url, sha256, reason) in [
        ("http://example.org/x", good.clone(), "over `https` only"),
        ("ftp://example.org/x", good.clone(), "does not begin with"),
        (
            "https://me:secret@example.org/x",
            good.clone(),
            "a name or a password",
        ),
        ("https://example.org/a b", good, "not an address"),
        ("https://example.org/x", None, "needs the `sha256`"),
        (
            "https://example.org/x",
            Some("12".to_owned()),
            "no sha256 of 64",
        ),
    ] {
        let message = error(&job(url, sha256), &quick());
        assert!(
            message.contains("`data.x`") && message.contains(reason),
            "{message}"
        );
        assert!(!message.contains("secret"), "{message}");
    }
}

#[test]
fn redirects_are_followed_but_not_for_ever_nor_to_plain_connections() {
    let scene = scene(|seen, content| match seen.path.as_str() {
        "/file.bin" => Act::Status(302, "location: /a/b?x=1\r\n".to_owned(), Vec::new()),
        "/a/b?x=1" => Act::Status(307, "location: c\r\n".to_owned(), Vec::new()),
        _ => Act::File(content, "v1"),
    });
    done(&scene.job, &quick());
    scene.assert_done();
    assert_eq!(scene.server.seen()[2].path, "/a/c");
    let endless = self::scene(|_, _| Act::Status(302, "location: /x\r\n".to_owned(), Vec::new()));
    let message = error(&endless.job, &quick());
    assert!(
        message.contains("redirects more than 10 times"),
        "{message}"
    );
    let plain = self::scene(|_, _| {
        Act::Status(
            302,
            "location: http://example.org/?signed=1\r\n".to_owned(),
            Vec::new(),
        )
    });
    let message = error(&plain.job, &quick());
    assert!(
        message.contains("to `example.org` over plain `http`"),
        "{message}"
    );
    assert!(!message.contains("signed"), "{message}");
}
