//! Files of a hub: its list, its commits, its refusals, its token.

use super::*;

/// A hub with these files, of which those that end in `.safetensors` are large.
fn hub(files: &[(&str, Vec<u8>)]) -> Faulty {
    let files: Vec<(String, Vec<u8>)> = (files.iter())
        .map(|(name, content)| ((*name).to_owned(), content.clone()))
        .collect();
    Faulty::start(move |seen| serve(seen, &files))
}

fn serve(seen: &Seen, files: &[(String, Vec<u8>)]) -> Act {
    if seen.path == format!("/api/models/owner/name/tree/{COMMIT}?recursive=true") {
        let mut list: Vec<Value> = (files.iter())
            .map(|(name, content)| entry(name, content, name.ends_with(".safetensors")))
            .collect();
        list.push(json!({"type": "directory", "path": "sub", "size": 0, "oid": "x"}));
        return reply(&Value::Array(list));
    }
    let root = format!("/owner/name/resolve/{COMMIT}/");
    let file = seen.path.strip_prefix(&root);
    match files.iter().find(|(name, _)| Some(name.as_str()) == file) {
        Some((_, content)) => Act::File(content.clone(), "v1"),
        None => Act::Status(
            404,
            "x-error-code: EntryNotFound\r\n".to_owned(),
            Vec::new(),
        ),
    }
}

fn files() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("config.json", b"{\"a\": 1}".to_vec()),
        ("README.md", b"# x".to_vec()),
        ("empty.txt", Vec::new()),
        ("model-1.safetensors", bytes(1, 300_000)),
        ("model-2.safetensors", bytes(2, 200_000)),
        ("sub/model.safetensors", bytes(3, 1000)),
    ]
}

#[test]
fn the_files_that_match_are_downloaded_into_the_folder() {
    let server = hub(&files());
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("models/clip");
    let job = repository(&to, &["config.json", "*.safetensors"]);
    let (result, events) = run(&job, &quick_hub(&server));
    let outcome = result.unwrap();
    assert_eq!(
        names(&to),
        ["config.json", "model-1.safetensors", "model-2.safetensors"]
    );
    assert_eq!(
        std::fs::read(to.join("model-1.safetensors")).unwrap(),
        bytes(1, 300_000)
    );
    assert_eq!(outcome.commit.as_deref(), Some(COMMIT));
    let digests: Vec<&str> = outcome.files.iter().map(|f| f.digest.as_str()).collect();
    assert_eq!(digests[0], format!("git-sha1:{}", git_blob(b"{\"a\": 1}")));
    assert_eq!(digests[1], format!("sha256:{}", sha256(&bytes(1, 300_000))));
    let listed = Event::Listed {
        files: 3,
        bytes: Some(500_008),
        commit: Some(COMMIT.to_owned()),
    };
    assert_eq!(count(&events, |event| *event == listed), 1, "{events:?}");
    assert_eq!(count(&events, |e| matches!(e, Event::Moving { .. })), 0);
    // Another time, only the list is asked for; all files with folders and empty ones.
    let all = repository(&to, &[]);
    let outcome = done(&all, &quick_hub(&server));
    assert_eq!(outcome.files.len(), 6);
    assert_eq!(outcome.files.iter().filter(|file| file.present).count(), 3);
    assert_eq!(
        std::fs::read(to.join("sub/model.safetensors")).unwrap(),
        bytes(3, 1000)
    );
    assert_eq!(std::fs::read(to.join("empty.txt")).unwrap(), b"");
    assert_eq!(
        server.seen_of("resolve").len(),
        5,
        "an empty file needs no request"
    );
    assert!(
        server
            .seen()
            .iter()
            .all(|seen| seen.headers["accept-encoding"] == "identity")
    );
}

#[test]
fn a_tag_is_resolved_to_its_commit_first_and_told() {
    let server = Faulty::start(move |seen| match seen.path.as_str() {
        "/api/models/owner/name/revision/refs%2Fpr%2F1" => reply(&json!({"sha": COMMIT})),
        _ => serve(seen, &[("config.json".to_owned(), b"{}".to_vec())]),
    });
    let folder = tempfile::tempdir().unwrap();
    let mut job = repository(folder.path(), &[]);
    if let Source::HuggingFace { revision, .. } = &mut job.source {
        *revision = "refs/pr/1".to_owned();
    }
    let (result, events) = run(&job, &quick_hub(&server));
    assert_eq!(result.unwrap().commit.as_deref(), Some(COMMIT));
    let moving = Event::Moving {
        revision: "refs/pr/1".to_owned(),
        commit: COMMIT.to_owned(),
    };
    assert_eq!(count(&events, |event| *event == moving), 1, "{events:?}");
    assert_eq!(names(folder.path()), ["config.json"]);
}

#[test]
fn a_list_of_several_pages_is_read_to_its_end() {
    let server = Faulty::start(move |seen| {
        let page = |name: &str, next: &str| {
            let list = json!([entry(name, b"x", false)]).to_string();
            let link = match next {
                "" => String::new(),
                next => format!("link: <{next}>; rel=\"next\"\r\n"),
            };
            Act::Status(200, link, list.into_bytes())
        };
        let path = format!("/api/models/owner/name/tree/{COMMIT}?recursive=true");
        match seen.path.strip_prefix(&path) {
            Some("") => page("a", &format!("{path}&cursor=2")),
            Some("&cursor=2") => page("b", &format!("{path}&cursor=3")),
            Some("&cursor=3") => page("c", ""),
            _ => Act::File(b"x".to_vec(), "v1"),
        }
    });
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(
        done(&repository(folder.path(), &[]), &quick_hub(&server))
            .files
            .len(),
        3
    );
    assert_eq!(names(folder.path()), ["a", "b", "c"]);
}

#[test]
fn the_token_stays_with_the_hub_when_it_redirects() {
    let content = bytes(1, 5000);
    let list = json!([entry("m.safetensors", &content, true)]);
    let cdn = Faulty::start(move |_| Act::File(content.clone(), "v1"));
    let location = format!("location: {}/blob?Signature=SIGNED\r\n", cdn.url());
    let server = Faulty::start(move |seen| {
        if seen.path.contains("/tree/") {
            return reply(&list);
        }
        if seen.path.contains("/resolve/") {
            return Act::Status(302, "location: /moved\r\n".to_owned(), Vec::new());
        }
        Act::Status(302, location.clone(), Vec::new())
    });
    let folder = tempfile::tempdir().unwrap();
    let job = repository(folder.path(), &[]);
    let (result, events) = run(&job, &quick_hub(&server));
    result.unwrap();
    assert!(!format!("{events:?}").contains("SIGNED"));
    let bearer = format!("Bearer {TOKEN}");
    let sent = server.seen();
    assert_eq!(sent.len(), 3);
    assert!(
        sent.iter()
            .all(|seen| seen.headers["authorization"] == bearer),
        "{sent:?}"
    );
    let sent = cdn.seen();
    assert_eq!(sent.len(), 1);
    assert!(!format!("{sent:?}").contains(TOKEN), "{sent:?}");
}

#[test]
fn a_url_is_never_sent_the_token() {
    let server = Faulty::start(|_| Act::File(b"x".to_vec(), "v1"));
    let folder = tempfile::tempdir().unwrap();
    let job = single(&server.url(), &folder.path().join("x"), b"x");
    done(&job, &quick_hub(&server));
    assert!(!server.seen()[0].headers.contains_key("authorization"));
}

#[test]
fn refusals_say_what_to_do() {
    for (status, code, expected) in [
        (401, "GatedRepo", "accept its licence at HUB/owner/name"),
        (403, "GatedRepo", "the token in `HF_TOKEN` was sent"),
        (401, "RepoNotFound", "no such repository, or it is private"),
        (404, "RevisionNotFound", "is `revision` right?"),
        (
            404,
            "RepoNotFound",
            "are `hugging_face` and `revision` right?",
        ),
    ] {
        let server = Faulty::start(move |_| {
            let headers =
                format!("x-error-code: {code}\r\nx-error-message: no, {TOKEN} may not\r\n");
            Act::Status(status, headers, Vec::new())
        });
        let folder = tempfile::tempdir().unwrap();
        // `run` asserts that an echoed token is taken out.
        let message = error(&repository(folder.path(), &["a.bin"]), &quick_hub(&server));
        assert!(
            message.contains(&expected.replace("HUB", &server.url())),
            "{message}"
        );
        assert!(
            message.contains(&format!("said {status}: no, [key] may not")),
            "{message}"
        );
        assert_eq!(server.seen().len(), 1);
        if status != 404 {
            let url = format!("{}/owner/name/resolve/{COMMIT}/a.bin", server.url());
            assert!(
                message.contains(&url) && message.contains("hf download"),
                "{message}"
            );
        }
    }
    let server = Faulty::start(|_| Act::Status(401, String::new(), Vec::new()));
    let without = Settings {
        hf_token: None,
        ..quick_hub(&server)
    };
    let folder = tempfile::tempdir().unwrap();
    let message = error(&repository(folder.path(), &[]), &without);
    assert!(message.contains("set `HF_TOKEN`"), "{message}");
    assert!(!server.seen()[0].headers.contains_key("authorization"));
}

#[test]
fn names_that_lead_out_of_the_folder_are_refused() {
    for name in [
        "../x",
        "/etc/x",
        "a/../../x",
        "C:\\x",
        "a\0b",
        ".git/hooks/x",
    ] {
        let server = Faulty::start(move |_| {
            reply(&json!([entry("ok", b"x", false), entry(name, b"x", false)]))
        });
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("a/b");
        let message = error(&repository(&to, &[]), &quick_hub(&server));
        assert!(
            message.contains("the server lists a file"),
            "{name}: {message}"
        );
        assert_eq!(names(folder.path()), [""; 0]);
        assert_eq!(server.seen_of("resolve").len(), 0);
    }
}

#[test]
fn folders_that_are_links_are_not_written_through() {
    let server = hub(&files());
    let folder = tempfile::tempdir().unwrap();
    let outside = folder.path().join("outside");
    let real = folder.path().join("real");
    std::fs::create_dir(&outside).unwrap();
    std::fs::create_dir(&real).unwrap();
    std::os::unix::fs::symlink(&outside, real.join("sub")).unwrap();
    let message = error(&repository(&real, &["sub/*"]), &quick_hub(&server));
    assert!(message.contains("is a link"), "{message}");
    assert_eq!(names(&outside), [""; 0]);
    // The folder itself may be a link that its owner has made.
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&real, &link).unwrap();
    done(&repository(&link, &["config.json"]), &quick_hub(&server));
    assert!(real.join("config.json").is_file());
}

#[test]
fn a_pattern_without_a_file_names_what_there_is() {
    let server = hub(&files());
    let folder = tempfile::tempdir().unwrap();
    let message = error(&repository(folder.path(), &["*.bin"]), &quick_hub(&server));
    assert!(message.contains("it has no file `*.bin`"), "{message}");
    assert!(
        message.contains("hint: there are `config.json`"),
        "{message}"
    );
}

#[test]
fn pins_of_the_pipeline_hold_whatever_the_hub_lists() {
    let server = hub(&files());
    let folder = tempfile::tempdir().unwrap();
    let pinned = |file: &str, digest: String| {
        let mut job = repository(folder.path(), &["config.json", "model-1.safetensors"]);
        if let Source::HuggingFace { sha256, .. } = &mut job.source {
            sha256.insert(file.to_owned(), digest);
        }
        job
    };
    let message = error(
        &pinned("model-1.safetensors", sha256(b"x")),
        &quick_hub(&server),
    );
    assert!(message.contains("but the hub lists it as"), "{message}");
    let message = error(&pinned("config.json", sha256(b"x")), &quick_hub(&server));
    assert!(
        message.contains("what was downloaded is sha256:"),
        "{message}"
    );
    let message = error(&pinned("other", sha256(b"x")), &quick_hub(&server));
    assert!(message.contains("not among the files"), "{message}");
    let right = pinned("config.json", sha256(b"{\"a\": 1}"));
    let outcome = done(&right, &quick_hub(&server));
    assert_eq!(
        outcome.files[0].digest,
        format!("sha256:{}", sha256(b"{\"a\": 1}"))
    );
}

#[test]
fn small_files_with_other_bytes_or_lengths_than_listed_are_refused() {
    let serving = |content: &'static [u8]| {
        Faulty::start(move |seen| {
            if seen.path.contains("/tree/") {
                reply(&json!([entry("config.json", b"{\"a\": 1}", false)]))
            } else {
                Act::File(content.to_vec(), "v1")
            }
        })
    };
    let folder = tempfile::tempdir().unwrap();
    let job = repository(folder.path(), &[]);
    let message = error(&job, &quick_hub(&serving(b"{\"a\": 2}")));
    assert!(
        message.contains("what was downloaded is git-sha1:"),
        "{message}"
    );
    let message = error(&job, &quick_hub(&serving(b"{\"a\": 10}")));
    assert!(
        message.contains("a file of 9 bytes, but 8 are expected"),
        "{message}"
    );
    assert_eq!(names(folder.path()), [""; 0]);
}

#[test]
fn a_chunked_body_longer_than_listed_is_not_written_to_its_end() {
    let server = Faulty::start(move |seen| {
        if seen.path.contains("/tree/") {
            return reply(&json!([entry("a", b"x", false)]));
        }
        let mut raw = b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
        for _ in 0..100 {
            raw.extend(b"2710\r\n");
            raw.extend([b'y'; 10_000]);
            raw.extend(b"\r\n");
        }
        raw.extend(b"0\r\n\r\n");
        Act::Raw(raw)
    });
    let folder = tempfile::tempdir().unwrap();
    let message = error(&repository(folder.path(), &[]), &quick_hub(&server));
    assert!(message.contains("more bytes than it has said"), "{message}");
    assert_eq!(names(folder.path()), [""; 0]);
}

#[test]
fn a_file_of_another_commit_is_refused() {
    let server = Faulty::start(move |seen| {
        if seen.path.contains("/tree/") {
            reply(&json!([entry("a", b"x", false)]))
        } else {
            Act::Status(
                200,
                format!("x-repo-commit: {}\r\n", "f".repeat(40)),
                b"x".to_vec(),
            )
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let message = error(&repository(folder.path(), &[]), &quick_hub(&server));
    assert!(message.contains("from another commit"), "{message}");
}

#[test]
fn lists_that_are_none_are_told() {
    for (body, expected) in [
        (&b"<html>log in</html>"[..], "a web page instead of a list"),
        (b"{\"error\": 1}", "not of the known form"),
        (b"[]", "it has no files"),
        (
            b"[{\"type\": \"file\", \"path\": \"a\", \"oid\": \"12\"}]",
            "without a digest",
        ),
        (b"[{", "no JSON (tried 2 times)"),
    ] {
        let server = Faulty::start(move |_| Act::Status(200, String::new(), body.to_vec()));
        let folder = tempfile::tempdir().unwrap();
        let twice = Settings {
            attempts: 2,
            ..quick_hub(&server)
        };
        let message = error(&repository(folder.path(), &[]), &twice);
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn what_to_download_by_hand_is_told_in_full() {
    let settings = Settings::default();
    let job = repository(
        Path::new("models/my clip"),
        &["config.json", "*.safetensors"],
    );
    let text = by_hand(&job, &settings);
    for part in [
        "hf download owner/name --include config.json --include '*.safetensors' \
         --revision 0123456789abcdef0123456789abcdef01234567 --local-dir 'models/my clip'",
        "https://huggingface.co/owner/name/resolve/0123456789abcdef0123456789abcdef01234567/config.json",
        "to `models/my clip/config.json`",
        "`*.safetensors` of https://huggingface.co/owner/name/tree/0123456789",
    ] {
        assert!(text.contains(part), "{text}");
    }
    let single = single("https://a.org", Path::new("data/x"), b"x");
    assert_eq!(
        by_hand(&single, &settings),
        format!(
            "download by hand\n  https://a.org/file.bin\n  to `data/x`\n  \
             sha256 {} (`sha256sum data/x` prints it)",
            sha256(b"x")
        )
    );
    // Once the list is known, every file is told with its digest.
    let server = Faulty::start(move |seen| {
        if seen.path.contains("/tree/") {
            reply(&json!([entry("sub/m.safetensors", b"xyz", true)]))
        } else {
            Act::Status(500, String::new(), Vec::new())
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let message = error(&repository(folder.path(), &[]), &quick_hub(&server));
    assert!(
        message.contains("/sub/m.safetensors\n") && message.contains(&sha256(b"xyz")),
        "{message}"
    );
}
