//! A server that answers in every wrong way, 300 times here and 10,000 times with `RUNNER_FIRE=1`.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Instant,
};

use super::{
    super::{Body, Remote, cloud::Cloud, dav::Dav},
    Random, bytes_of, env,
    faulty::{Act, Faulty, Seen, answer},
    full, quick, s3_env, say,
};

/// The kinds of answers of the faulty server, and whether a reader may take one for the entry.
const KINDS: [&str; 23] = [
    "whole",
    "chunked",
    "cut",
    "length too long",
    "length too short",
    "endless",
    "endless chunks",
    "page",
    "page in disguise",
    "refusal",
    "busy",
    "redirect",
    "reset",
    "stall",
    "hang",
    "packed",
    "garbage",
    "drip",
    "part",
    "two lengths",
    "bad chunk",
    "cut chunks",
    "huge head",
];

/// An answer of a kind to a request for `truth`.
fn faulty(kind: &str, truth: &[u8], method: &str, random: &mut Random) -> Act {
    let dated = "etag: \"e\"\r\nlast-modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
                 connection: close\r\n";
    let head = |lines: &str| format!("HTTP/1.1 200 OK\r\n{dated}{lines}\r\n");
    let with = |lines: &str, body: &[u8]| [head(lines).as_bytes(), body].concat();
    let size = truth.len();
    let length = |size: usize| format!("content-length: {size}\r\n");
    let cut = random.below(size);
    let chunks = |body: &[u8]| [format!("{:x}\r\n", body.len()).as_bytes(), body, b"\r\n"].concat();
    if method == "HEAD" && kind == "whole" {
        return Act::Say(with(&length(size), b""));
    }
    let chunked = "transfer-encoding: chunked\r\n";
    match kind {
        "whole" => Act::Say(with(&length(size), truth)),
        "chunked" => Act::Say(with(chunked, &[&chunks(truth), &b"0\r\n\r\n"[..]].concat())),
        "cut" => Act::Say(with(&length(size), &truth[..cut])),
        "length too long" => Act::Say(with(&length(size + 1 + cut), truth)),
        "length too short" => Act::Say(with(&length(cut), truth)),
        "endless" => Act::Endless(head("").into()),
        "endless chunks" => Act::Endless(with(chunked, b"fffffffffff\r\n")),
        "page" => {
            let body = b"<html><body>Please log in</body></html>";
            let kind = ["text/html", "Text/HTML; charset=utf-8"][random.below(2)];
            Act::Say(with(
                &format!("content-type: {kind}\r\n{}", length(body.len())),
                body,
            ))
        }
        "page in disguise" => {
            let body = b"<html><body>Please log in</body></html>";
            Act::Say(with(&length(body.len()), body))
        }
        "refusal" => {
            let status = [400, 401, 403, 405, 409, 418, 501][random.below(7)];
            answer(status, dated, b"<Error><Code>Canary</Code></Error>")
        }
        "busy" => answer(
            [408, 429, 500, 502, 503, 504][random.below(6)],
            dated,
            b"busy",
        ),
        "redirect" => {
            let status = [301, 302, 303, 307, 308][random.below(5)];
            answer(status, "location: /\r\n", b"")
        }
        "reset" => Act::Reset,
        "stall" => Act::Stall(with(&length(size), &truth[..cut])),
        "hang" => Act::Stall(Vec::new()),
        "packed" => Act::Say(with(
            &format!("content-encoding: gzip\r\n{}", length(size)),
            truth,
        )),
        "garbage" => Act::Say(bytes_of(random.next(), 1 + random.below(2000))),
        "drip" => Act::Drip(with(&length(size), truth)),
        "part" => {
            let head = format!(
                "HTTP/1.1 206 X\r\n{dated}content-range: bytes 0-{}/{size}\r\n{}\r\n",
                cut.max(1) - 1,
                length(cut.max(1))
            );
            Act::Say([head.as_bytes(), &truth[..cut.max(1)]].concat())
        }
        "two lengths" => Act::Say(with(&format!("{}{}", length(size), length(cut)), truth)),
        "bad chunk" => Act::Say(with(chunked, b"zz\r\nhello\r\n0\r\n\r\n")),
        "cut chunks" => Act::Say(with(chunked, &chunks(&truth[..cut.max(1)]))),
        "huge head" => {
            let line = format!("x-filler: {}\r\n", "y".repeat(200_000));
            Act::Say(with(&format!("{line}{}", length(size)), truth))
        }
        kind => panic!("{kind}"),
    }
}

/// Asks a server whose answers are all of one kind, in all ways; says how often it was believed.
fn question(remote: &dyn Remote, kind: &str, truth: &[u8], how: usize) -> bool {
    let path = "objects/ab/entry";
    let size = truth.len() as u64;
    let name = remote.name();
    match how {
        0 => {
            let mut sink = Vec::new();
            let read = remote.read(path, size, &mut sink);
            if let Ok(true) = read {
                assert!(
                    sink == truth,
                    "{name}: {kind}: other bytes were taken for the entry"
                );
            }
            let good = matches!(kind, "whole") || (kind == "chunked" && name == "dav");
            assert_eq!(read == Ok(true), good, "{name}: {kind}: {read:?}");
            assert_ne!(read, Ok(false), "{name}: {kind}");
            read.is_ok()
        }
        1 => {
            let got = remote.get(path, 1 << 20);
            match &got {
                // Only what is whole by its own account, which digests must tell of.
                Ok(Some(bytes)) if bytes == truth => {
                    assert!(matches!(kind, "whole" | "chunked"), "{name}: {kind}");
                }
                Ok(Some(bytes)) => {
                    assert!(
                        matches!(kind, "length too short" | "page in disguise"),
                        "{name}: {kind}: {} bytes",
                        bytes.len()
                    );
                }
                Ok(None) => panic!("{name}: {kind}: absent"),
                Err(_) => {}
            }
            got.is_ok()
        }
        2 => {
            let got = remote.get(path, size / 2 - 1);
            let believed = matches!(&got, Ok(Some(bytes)) if (bytes.len() as u64) < size / 2);
            assert!(got.is_err() || believed, "{name}: {kind}: {got:?}");
            believed
        }
        3 | 6 => {
            let made = if how == 3 {
                remote.put_new(path, Body::Bytes(truth))
            } else {
                remote.replace(path, truth).map(|()| true)
            };
            // An answer of success with the marks of an entry is all a bucket ever says, and one
            // of its refusals says that there is one already.
            let said = [
                "refusal",
                "busy",
                "redirect",
                "reset",
                "hang",
                "garbage",
                "huge head",
            ];
            let good = match made {
                Ok(true) => name == "s3" && !said.contains(&kind),
                Ok(false) => name == "s3" && (kind == "refusal" || !said.contains(&kind)),
                Err(_) => true,
            };
            assert!(good, "{name}: {kind}: {made:?}");
            made.is_ok()
        }
        4 => {
            let list = remote.list("objects", 100);
            assert!(list.is_err(), "{name}: {kind}: {list:?}");
            false
        }
        _ => {
            let stat = remote.stat(path);
            assert_ne!(stat, Ok(None), "{name}: {kind}");
            stat.is_ok()
        }
    }
}

#[test]
fn no_answer_of_a_faulty_server_is_taken_for_what_it_is_not() {
    const TRUTH: usize = 3000;
    let wanted = if full() { 10_000 } else { 300 };
    let threads = if full() { 12 } else { 4 };
    let (questions, believed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let answers = AtomicUsize::new(0);
    let since = Instant::now();
    let run = &|thread: usize| {
        let truth = bytes_of(7, TRUTH);
        let seed = std::env::var("RUNNER_FIRE_SEED").ok();
        let seed = seed.and_then(|text| text.parse().ok()).unwrap_or(2026_u64);
        let mut random = Random((seed << 8) + 2 * thread as u64 + 1);
        let now: Arc<Mutex<(&str, u64)>> = Arc::new(Mutex::new(("whole", 1)));
        let (kind, bytes) = (Arc::clone(&now), truth.clone());
        let server = Faulty::start(move |seen: &Seen| {
            let (kind, seed) = *kind.lock().unwrap();
            faulty(kind, &bytes, &seen.method, &mut Random(seed))
        });
        let endpoint = format!("http://{}", server.host());
        let host = server.host();
        let dav = Dav::open("dav", "http", &host, "c", quick(), env(&[])).unwrap();
        let s3 = s3_env(&endpoint, "key", "secret");
        let s3 = Cloud::open("s3", "s3", "bucket", "c", quick(), s3).unwrap();
        let remotes: [&dyn Remote; 2] = [&dav, &s3];
        let mut turn = thread;
        loop {
            let mine = server.answers.load(SeqCst);
            let all = full() || turn >= 14 * KINDS.len();
            if all && mine > wanted / threads {
                answers.fetch_add(mine, SeqCst);
                break;
            }
            let kind = if full() {
                KINDS[random.below(KINDS.len())]
            } else {
                // All of them, in order.
                KINDS[turn / 14 % KINDS.len()]
            };
            *now.lock().unwrap() = (kind, random.next() | 1);
            let (remote, how) = (remotes[turn % 2], turn / 2 % 7);
            turn += if full() { 1 } else { threads };
            questions.fetch_add(1, SeqCst);
            let before = server.answers.load(SeqCst);
            let yes = question(remote, kind, &truth, how);
            believed.fetch_add(usize::from(yes), SeqCst);
            let asked = server.answers.load(SeqCst) > before;
            assert!(asked || !yes, "{kind} {how}: nobody was asked");
        }
    };
    thread::scope(|scope| {
        let all: Vec<_> = (0..threads).map(|t| scope.spawn(move || run(t))).collect();
        for thread in all {
            thread.join().unwrap();
        }
    });
    say(&format!(
        "faulty server: {} answers to {} questions, {} believed, none wrongly, {:.0} s",
        answers.load(SeqCst),
        questions.load(SeqCst),
        believed.load(SeqCst),
        since.elapsed().as_secs_f64()
    ));
    assert!(answers.load(SeqCst) >= wanted);
}
