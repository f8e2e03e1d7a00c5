//! One file of a URL: what is checked, resumed, tried again and replaced.

use super::*;

#[test]
fn a_file_is_downloaded_checked_and_then_left_alone() {
    let scene = scene(|_, content| Act::File(content, "v1"));
    let (result, events) = run(&scene.job, &quick());
    let outcome = result.unwrap();
    scene.assert_done();
    assert_eq!(outcome.commit, None);
    assert_eq!(outcome.files[0].path, scene.job.to);
    assert_eq!(
        outcome.files[0].digest,
        format!("sha256:{}", sha256(&scene.content))
    );
    assert!(!outcome.files[0].present);
    let last = events.last().unwrap();
    assert!(
        matches!(last, Event::Verified { size: 50_000, .. }),
        "{last:?}"
    );
    let bytes = Event::Bytes {
        file: "file.bin".to_owned(),
        done: 50_000,
        total: Some(50_000),
    };
    assert_eq!(count(&events, |event| *event == bytes), 1, "{events:?}");
    assert!(done(&scene.job, &quick()).files[0].present);
    assert_eq!(scene.server.seen().len(), 1);
}

#[test]
fn a_cut_connection_is_resumed_where_it_ended() {
    let scene = scene(|seen, content| match seen.attempt {
        0..3 => Act::Cut(content, "v1", 13_000),
        _ => Act::File(content, "v1"),
    });
    let (result, events) = run(&scene.job, &quick());
    result.unwrap();
    scene.assert_done();
    let asked: Vec<Option<usize>> = scene.server.seen().iter().map(Seen::from).collect();
    assert_eq!(asked, [None, Some(13_000), Some(26_000), Some(39_000)]);
    assert_eq!(scene.server.seen()[1].headers["if-range"], "\"v1\"");
    assert_eq!(count(&events, |e| matches!(e, Event::Retry { .. })), 3);
    assert_eq!(
        count(&events, |e| matches!(
            e,
            Event::Start {
                resumed: 39_000,
                ..
            }
        )),
        1
    );
}

#[test]
fn a_stall_ends_after_the_timeout_and_is_resumed() {
    let scene = scene(|seen, content| match seen.attempt {
        0 => Act::Hang,
        1 => Act::Stall(content, "v1", 20_000),
        _ => Act::File(content, "v1"),
    });
    let (result, events) = run(&scene.job, &quick());
    result.unwrap();
    scene.assert_done();
    let retried = count(
        &events,
        |event| matches!(event, Event::Retry { reason, .. } if reason.contains("for 2 s")),
    );
    assert_eq!(retried, 2, "{events:?}");
    assert_eq!(scene.server.seen()[2].from(), Some(20_000));
}

#[test]
fn an_interrupted_fetch_is_resumed_by_the_next_one() {
    let scene = scene(|seen, content| match seen.attempt {
        0 => Act::Cut(content, "v1", 30_000),
        _ => Act::File(content, "v1"),
    });
    let once = Settings {
        attempts: 1,
        ..quick()
    };
    let message = error(&scene.job, &once);
    assert!(message.contains("closed the connection"), "{message}");
    assert_eq!(
        names(scene.folder.path()),
        ["data/file.bin.part", "data/file.bin.part.json"]
    );
    done(&scene.job, &once);
    scene.assert_done();
    assert_eq!(scene.server.seen()[1].from(), Some(30_000));
}

#[test]
fn a_whole_part_needs_no_bytes_more() {
    let scene = scene(|seen, content| match seen.attempt {
        0 => Act::Cut(content, "v1", 49_999),
        _ => Act::File(content, "v1"),
    });
    let once = Settings {
        attempts: 1,
        ..quick()
    };
    error(&scene.job, &once);
    // As if the fetch had been killed before the last rename.
    scene.write(".part", &scene.content);
    done(&scene.job, &once);
    scene.assert_done();
    assert_eq!(scene.server.seen()[1].from(), Some(50_000));
}

#[test]
fn a_server_that_ignores_ranges_sends_all_again() {
    let scene = scene(|seen, content| match seen.attempt {
        0 => Act::Cut(content, "v1", 30_000),
        _ => Act::Status(200, "etag: \"v1\"\r\n".to_owned(), content),
    });
    let (result, events) = run(&scene.job, &quick());
    result.unwrap();
    scene.assert_done();
    assert_eq!(count(&events, |e| matches!(e, Event::Restart { .. })), 1);
}

#[test]
fn a_file_that_changes_between_two_requests_is_not_mixed() {
    // The first version is cut; the second is the right one.
    let scene = scene(|seen, content| match seen.attempt {
        0 => Act::Cut(bytes(2, 50_000), "v1", 30_000),
        _ => Act::File(content, "v2"),
    });
    let (result, events) = run(&scene.job, &quick());
    result.unwrap();
    scene.assert_done();
    assert_eq!(scene.server.seen()[1].headers["if-range"], "\"v1\"");
    assert_eq!(count(&events, |e| matches!(e, Event::Restart { .. })), 1);
    assert_eq!(scene.server.seen().len(), 2);
}

#[test]
fn a_mix_that_the_server_does_not_prevent_is_found_and_begun_anew() {
    // A server with ranges whose versions all have the same name.
    let scene = scene(|seen, content| match seen.attempt {
        0 => Act::Cut(bytes(2, 50_000), "same", 30_000),
        _ => Act::File(content, "same"),
    });
    let (result, events) = run(&scene.job, &quick());
    result.unwrap();
    scene.assert_done();
    let asked: Vec<Option<usize>> = scene.server.seen().iter().map(Seen::from).collect();
    assert_eq!(asked, [None, Some(30_000), None]);
    assert_eq!(count(&events, |e| matches!(e, Event::Restart { .. })), 1);
}

#[test]
fn a_part_of_another_digest_is_not_resumed() {
    let scene = scene(|_, content| Act::File(content, "v1"));
    scene.write(".part", &bytes(3, 40_000));
    scene.write(
        ".part.json",
        br#"{"expected":"sha256:00","size":null,"origin":"x","validator":"\"v1\""}"#,
    );
    done(&scene.job, &quick());
    scene.assert_done();
    assert_eq!(scene.server.seen()[0].from(), None);
    // Nor is one without a note.
    std::fs::remove_file(&scene.job.to).unwrap();
    scene.write(".part", &bytes(3, 40_000));
    done(&scene.job, &quick());
    scene.assert_done();
}

#[test]
fn ranges_that_were_not_asked_for_are_not_written() {
    let scene = scene(|seen, content| match seen.attempt {
        0 => Act::Cut(content, "v1", 30_000),
        1 => Act::Status(
            206,
            "content-range: bytes 10000-49999/50000\r\n".to_owned(),
            content[10_000..].to_vec(),
        ),
        _ => Act::File(content, "v1"),
    });
    done(&scene.job, &quick());
    scene.assert_done();
    assert_eq!(scene.server.seen()[2].from(), None);
}

#[test]
fn a_length_that_is_a_lie_is_found_out() {
    // More promised than sent.
    let more = scene(|seen, content| match seen.attempt {
        0 => {
            let mut raw = b"HTTP/1.1 200 X\r\ncontent-length: 60000\r\n\r\n".to_vec();
            raw.extend(content);
            Act::Raw(raw)
        }
        _ => Act::File(content, "v1"),
    });
    done(&more.job, &quick());
    more.assert_done();
    // Less promised than there is.
    let less = scene(|_, content| {
        let mut raw = b"HTTP/1.1 200 X\r\ncontent-length: 40000\r\n\r\n".to_vec();
        raw.extend(content);
        Act::Raw(raw)
    });
    assert!(error(&less.job, &quick()).contains("is expected"));
    // No length at all, and cut.
    let none = scene(|seen, mut content| {
        let mut raw = b"HTTP/1.1 200 X\r\n\r\n".to_vec();
        if seen.attempt == 0 {
            content.truncate(30_000);
        }
        raw.extend(content);
        Act::Raw(raw)
    });
    done(&none.job, &quick());
    none.assert_done();
    // A last chunk that never comes.
    let chunks = scene(|seen, content| match seen.attempt {
        0 => {
            let mut raw = b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n7530\r\n".to_vec();
            raw.extend(&content[..30_000]);
            raw.extend(b"\r\n");
            Act::Raw(raw)
        }
        _ => Act::File(content, "v1"),
    });
    done(&chunks.job, &quick());
    chunks.assert_done();
}

#[test]
fn a_busy_server_is_asked_again_when_it_says_so() {
    let scene = scene(|seen, content| match seen.attempt {
        0 => Act::Status(503, String::new(), b"busy".to_vec()),
        1 => Act::Status(429, "retry-after: 1\r\n".to_owned(), Vec::new()),
        _ => Act::File(content, "v1"),
    });
    let (result, events) = run(&scene.job, &quick());
    result.unwrap();
    scene.assert_done();
    let seen = scene.server.seen();
    assert!(seen[2].at - seen[1].at >= Duration::from_secs(1));
    let waits: Vec<Duration> = events
        .iter()
        .filter_map(|event| match event {
            Event::Retry { wait, .. } => Some(*wait),
            _ => None,
        })
        .collect();
    assert_eq!(waits, [Duration::from_millis(10), Duration::from_secs(1)]);
}

#[test]
fn an_existing_file_that_is_wrong_is_kept_unless_forced() {
    let scene = scene(|_, content| Act::File(content, "v1"));
    scene.write("", b"mine");
    let message = error(&scene.job, &quick());
    for part in [
        &format!("is sha256:{}", sha256(b"mine")),
        "hint: `--force` replaces it",
    ] {
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(std::fs::read(&scene.job.to).unwrap(), b"mine");
    assert!(scene.server.seen().is_empty());
    let force = Settings {
        force: true,
        ..quick()
    };
    let (result, events) = run(&scene.job, &force);
    result.unwrap();
    scene.assert_done();
    let warned = |event: &Event| matches!(event, Event::Warning { text } if text.ends_with("it is replaced"));
    assert_eq!(count(&events, warned), 1, "{events:?}");
    // A right file is left alone even then.
    assert!(done(&scene.job, &force).files[0].present);
}

#[test]
fn md5_is_checked_where_it_is_all_there_is() {
    let content = b"abc".to_vec();
    let server = Faulty::start(move |_| Act::File(content.clone(), "v1"));
    let folder = tempfile::tempdir().unwrap();
    let mut job = single(&server.url(), &folder.path().join("abc"), b"abc");
    let source = |sha256: Option<&str>, md5: &str| Source::Url {
        url: format!("{}/abc", server.url()),
        sha256: sha256.map(str::to_owned),
        md5: Some(md5.to_owned()),
    };
    job.source = source(None, "900150983cd24fb0d6963f7d28e17f73");
    assert!(error(&job, &quick()).contains("is md5:900150983cd24fb0d6963f7d28e17f72"));
    // Where both are given, both are checked.
    job.source = source(Some(&sha256(b"abd")), "900150983cd24fb0d6963f7d28e17f72");
    assert!(error(&job, &quick()).contains("sha256:"));
    job.source = source(None, "900150983CD24FB0D6963F7D28E17F72");
    let outcome = done(&job, &quick());
    assert_eq!(
        outcome.files[0].digest,
        "md5:900150983cd24fb0d6963f7d28e17f72"
    );
}
