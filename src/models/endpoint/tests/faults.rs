//! Faults that pass: each is asked again, and none is taken for an answer.

use super::*;

/// One fault before each request's proper answer.
fn passes(fault: impl Fn() -> Act + Send + Sync + 'static) -> Got {
    let (got, seen) = asked(2, move |seen| match seen.attempt {
        0 => fault(),
        _ => echo(seen),
    });
    all_echoed(&got, 2);
    assert_eq!(seen.len(), 4, "each request was to be asked twice");
    got
}

#[test]
fn faults_that_pass_are_asked_again_and_never_taken_for_an_answer() {
    let whole = reply(200, "", &completion("wrong"));
    let cut = whole.len() - 9;
    let body = completion("wrong");
    let chunk = |size: &str, end: &str| {
        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{size}\r\n{body}\r\n{end}")
            .into_bytes()
    };
    let faults: Vec<(&str, &str, Act)> = vec![
        (
            "an empty body",
            "the reply is empty",
            Act::Body(String::new()),
        ),
        (
            "a web page",
            "the reply is a web page",
            Act::Body("<!doctype html><p>Sign in</p>".to_owned()),
        ),
        (
            "cut JSON",
            "JSON is cut off",
            Act::Body(body[..body.len() - 4].to_owned()),
        ),
        (
            "two JSON texts",
            "not JSON",
            Act::Body(format!("{body}{body}")),
        ),
        (
            "wrong types",
            "not a chat answer",
            Act::Body(body.replace("\"wrong\"", "[1]")),
        ),
        (
            "no choices",
            "0 choices",
            Act::Body(r#"{"choices":[]}"#.to_owned()),
        ),
        (
            "null content",
            "no text",
            Act::Body(body.replace("\"wrong\"", "null")),
        ),
        (
            "an error in 200",
            "out of memory",
            Act::Body(r#"{"error":{"message":"out of memory","code":500}}"#.to_owned()),
        ),
        (
            "less than the content-length",
            "closed before the answer",
            Act::Raw(whole[..cut].to_vec()),
        ),
        (
            "more than the content-length",
            "JSON is cut off",
            Act::Raw(format!("HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n{body}").into_bytes()),
        ),
        (
            "two content-lengths",
            "not proper HTTP",
            Act::Raw(
                format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                )
                .into_bytes(),
            ),
        ),
        (
            "a cut chunk",
            "closed before the answer",
            Act::Raw(chunk("fff", "")),
        ),
        (
            "no last chunk",
            "closed before the answer",
            Act::Raw(chunk(&format!("{:x}", body.len()), "")),
        ),
        (
            "a bad chunk",
            "not proper HTTP",
            Act::Raw(chunk("zz", "0\r\n\r\n")),
        ),
        ("no reply", "closed before the answer", Act::Raw(Vec::new())),
        (
            "half a head",
            "closed before the answer",
            Act::Raw(b"HTTP/1.1 200 OK\r\ncontent-le".to_vec()),
        ),
        (
            "a reset at once",
            "the connection broke",
            Act::Reset(Vec::new()),
        ),
        (
            "a reset in the middle",
            "the connection",
            Act::Reset(whole[..cut].to_vec()),
        ),
        (
            "not HTTP",
            "not proper HTTP",
            Act::Raw(b"SSH-2.0-OpenSSH_9.6\r\n".to_vec()),
        ),
        (
            "noise",
            "not proper HTTP",
            Act::Raw((0..2000u32).map(|i| ((i * 7919) >> 3) as u8).collect()),
        ),
        (
            "HTTP/9",
            "not proper HTTP",
            Act::Raw(b"HTTP/9.1 200 OK\r\n\r\n".to_vec()),
        ),
        (
            "a huge header",
            "longer than 65536",
            Act::Raw(format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "a".repeat(1 << 20)).into_bytes()),
        ),
        (
            "endless headers",
            "not proper HTTP",
            Act::Raw(format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(50_000)).into_bytes()),
        ),
        (
            "a packed body",
            "not JSON",
            Act::Status(
                200,
                "content-encoding: gzip\r\n".to_owned(),
                "\u{1f}...".to_owned(),
            ),
        ),
    ];
    for (name, expected, fault) in faults {
        let got = passes(move || fault.clone());
        // Never that the time was over.
        let reason = got.notes[0].reason();
        assert!(reason.contains(expected), "{name}: {reason}");
    }
}

#[test]
fn a_body_of_unknown_length_is_read_to_its_end() {
    let (got, seen) = asked(1, |seen| {
        let body = completion(&format!("echo of {}", seen.prompt));
        Act::Raw(format!("HTTP/1.1 200 OK\r\n\r\n{body}").into_bytes())
    });
    all_echoed(&got, 1);
    assert_eq!(seen.len(), 1);
}

#[test]
fn busy_statuses_are_tried_again() {
    for status in [408, 409, 425, 500, 502, 503, 504] {
        let server = Faulty::start(move |seen| match seen.attempt {
            0..3 => Act::Status(status, String::new(), "busy".to_owned()),
            _ => echo(seen),
        });
        let got = ask_until(quick(&server.url()), 2, &|| false);
        all_echoed(&got, 2);
        assert_eq!(server.seen().len(), 8, "{status}");
        let Note::Retrying { reason, .. } = &got.notes[0] else {
            panic!("{:?}", got.notes)
        };
        assert_eq!(reason, &format!("the server said {status}: busy"));
    }
}

#[test]
fn a_body_without_end_and_a_slow_drip_end_by_their_limits() {
    let server = Faulty::start(|seen| match seen.attempt {
        0 => Act::Endless,
        _ => echo(seen),
    });
    let mut settings = quick(&server.url());
    settings.timeout = Duration::from_secs(20);
    let got = ask_until(settings, 1, &|| false);
    all_echoed(&got, 1);
    assert_eq!(
        got.notes[0].reason(),
        "the reply is longer than 16777216 bytes"
    );
    let got = passes(|| {
        let whole = reply(200, "", &completion("wrong"));
        Act::Drip(whole, Duration::from_millis(100))
    });
    assert_eq!(got.notes[0].reason(), "no whole answer within 2 s");
}

#[test]
fn a_server_that_hangs_is_left_after_the_timeout() {
    let begun = Instant::now();
    let got = passes(|| Act::Hang);
    assert!(
        (2_000..20_000).contains(&begun.elapsed().as_millis()),
        "{:?}",
        begun.elapsed()
    );
    let Note::Retrying { reason, .. } = &got.notes[0] else {
        panic!("{:?}", got.notes)
    };
    assert_eq!(reason, "no whole answer within 2 s");
}

#[test]
fn a_server_that_starts_late_is_waited_for() {
    let address = Faulty::nowhere();
    let late = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(150));
        Faulty::start_at(address, echo)
    });
    let mut settings = quick(&url(address));
    settings.backoff = Duration::from_millis(60);
    settings.retries = 20;
    let got = ask_until(settings, 3, &|| false);
    all_echoed(&got, 3);
    assert!(!got.notes.is_empty());
    drop(late.join().unwrap());
}
