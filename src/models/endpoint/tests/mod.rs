//! The client against a server that does as it is told.

mod faults;
mod limits;
mod mix;

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use super::{
    Endpoint, Failed, Note, Reply, Request, Settings, Unanswered,
    faulty::{Act, Faulty, Seen, completion, reply, url},
};
use crate::models::llm::Stopped;

/// What a call handed over.
#[derive(Default)]
struct Got {
    texts: BTreeMap<usize, String>,
    order: Vec<usize>,
    notes: Vec<Note>,
    error: Option<anyhow::Error>,
}

impl Got {
    fn error(&self) -> String {
        self.error
            .as_ref()
            .map(|e| format!("{e:#}"))
            .unwrap_or_default()
    }

    fn unanswered(&self) -> &Unanswered {
        self.error.as_ref().unwrap().downcast_ref().unwrap()
    }

    fn failed(&self) -> Vec<usize> {
        self.unanswered().failed.iter().map(|f| f.request).collect()
    }
}

/// Settings for a server that is near and quick, on a machine that may be busy.
fn quick(url: &str) -> Settings {
    Settings {
        timeout: Duration::from_secs(2),
        connect_timeout: Duration::from_secs(2),
        backoff: Duration::from_millis(4),
        ..Settings::new(url, "m")
    }
}

fn requests(count: usize) -> Vec<Request> {
    (0..count)
        .map(|i| Request {
            user: format!("prompt {i}"),
            max_tokens: 8,
            temperature: 0.5,
            seed: 7,
            ..Request::default()
        })
        .collect()
}

fn ask_until(settings: Settings, count: usize, stop: &dyn Fn() -> bool) -> Got {
    let endpoint = Endpoint::open_with(settings, &|_| None).unwrap();
    ask(&endpoint, count, stop)
}

fn ask(endpoint: &Endpoint, count: usize, stop: &dyn Fn() -> bool) -> Got {
    let mut got = Got::default();
    let mut on_answer = |index: usize, reply: Reply| {
        got.order.push(index);
        assert!(
            got.texts.insert(index, reply.text).is_none(),
            "{index} twice"
        );
        Ok(())
    };
    let mut on_note = |note| got.notes.push(note);
    got.error = endpoint
        .ask(&requests(count), &mut on_answer, &mut on_note, stop)
        .err();
    got
}

/// Asks `count` requests of a server that follows `script`.
fn asked(count: usize, script: impl Fn(&Seen) -> Act + Send + Sync + 'static) -> (Got, Vec<Seen>) {
    let server = Faulty::start(script);
    let got = ask_until(quick(&server.url()), count, &|| false);
    (got, server.seen())
}

fn echo(seen: &Seen) -> Act {
    Act::Answer(format!("echo of {}", seen.prompt))
}

fn all_echoed(got: &Got, count: usize) {
    assert!(got.error.is_none(), "{}", got.error());
    assert_eq!(got.texts.len(), count);
    for (index, text) in &got.texts {
        assert_eq!(text, &format!("echo of prompt {index}"));
    }
}

#[test]
fn every_request_is_answered_and_no_more_are_under_way_than_allowed() {
    let server = Faulty::start(|seen| Act::After(Duration::from_millis(10), Box::new(echo(seen))));
    let mut settings = quick(&server.url());
    settings.parallel = 3;
    let got = ask_until(settings, 20, &|| false);
    all_echoed(&got, 20);
    assert!(got.notes.is_empty());
    assert_eq!(server.seen().len(), 20);
    assert!((2..=3).contains(&server.most_at_once()));
}

#[test]
fn what_is_sent_is_a_chat_request_without_a_key_unless_one_is_named() {
    let server = Faulty::start(echo);
    let settings = quick(&format!("{}/", server.url()));
    all_echoed(&ask_until(settings, 1, &|| false), 1);
    let seen = server.seen().remove(0);
    assert_eq!(seen.target, "POST /v1/chat/completions");
    assert_eq!(
        seen.body.to_string(),
        concat!(
            r#"{"model":"m","messages":[{"role":"user","content":"prompt 0"}],"max_tokens":8,"#,
            r#""temperature":0.5,"top_p":1.0,"top_k":-1,"min_p":0.0,"seed":7}"#
        )
    );
    assert_eq!(seen.headers["content-type"], "application/json");
    assert_eq!(seen.headers["connection"], "close");
    assert!(!seen.headers.contains_key("authorization"));
    assert!(!seen.headers.contains_key("expect"));
}

#[test]
fn a_reply_says_which_model_answered_and_how_long_it_was() {
    let server = Faulty::start(echo);
    let endpoint = Endpoint::open(quick(&server.url())).unwrap();
    let mut replies = Vec::new();
    let mut on_answer = |_, reply| {
        replies.push(reply);
        Ok(())
    };
    endpoint
        .ask(&requests(1), &mut on_answer, &mut |_| {}, &|| false)
        .unwrap();
    assert_eq!(replies[0].model.as_deref(), Some("faulty-1"));
    assert_eq!(replies[0].prompt_tokens, Some(3));
    assert_eq!(replies[0].completion_tokens, Some(4));
}

#[test]
fn answers_are_handed_over_as_they_come_in_any_order() {
    let (got, _) = asked(3, |seen| {
        let late = seen.prompt == "prompt 0";
        Act::After(
            Duration::from_millis(if late { 150 } else { 1 }),
            Box::new(echo(seen)),
        )
    });
    all_echoed(&got, 3);
    assert_eq!(got.order.last(), Some(&0));
}

#[test]
fn redirects_are_not_followed_and_the_key_goes_nowhere_else() {
    let other = Faulty::start(echo);
    let to = other.url();
    let server = Faulty::start(move |_| {
        Act::Status(
            307,
            format!("location: {to}/chat/completions\r\n"),
            String::new(),
        )
    });
    let mut settings = quick(&server.url());
    settings.api_key_env = Some("K".to_owned());
    let endpoint = Endpoint::open_with(settings, &|name| {
        (name == "K").then(|| "sk-1234567890".into())
    })
    .unwrap();
    let got = ask(&endpoint, 3, &|| false);
    assert!(
        got.error().contains("redirects are not followed"),
        "{}",
        got.error()
    );
    assert!(other.seen().is_empty());
    assert!(server.seen().len() <= 3);
}

#[test]
fn a_stop_is_honoured_at_once_while_everything_hangs_and_closes_the_connections() {
    let server = Faulty::start(|seen| match seen.before {
        0..3 => echo(seen),
        _ => Act::Hang,
    });
    let mut settings = quick(&server.url());
    settings.timeout = Duration::from_mins(1);
    let asked_to_stop = Cell::new(None);
    let got = ask_until(settings, 50, &|| {
        // Three are answered, and all of the eight workers wait.
        if asked_to_stop.get().is_none() && server.seen().len() == 11 {
            asked_to_stop.set(Some(Instant::now()));
        }
        let asked = asked_to_stop.get();
        asked.is_some_and(|asked| asked.elapsed() > Duration::from_millis(200))
    });
    // Long before the end of any time limit.
    assert!(asked_to_stop.get().unwrap().elapsed() < Duration::from_secs(10));
    assert!(got.error.as_ref().unwrap().is::<Stopped>());
    assert_eq!(got.texts.len(), 3);
    let begun = Instant::now();
    while server.gone() < 8 && begun.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(server.gone(), 8, "connections were left open");
}

#[test]
fn a_stop_is_honoured_during_waits_and_connects() {
    let mut settings = quick(&url(Faulty::nowhere()));
    settings.backoff = Duration::from_mins(1);
    // An address of a network that no host may use: connecting hangs or fails.
    let mut lost = quick("http://192.0.2.1:9/v1");
    lost.connect_timeout = Duration::from_secs(30);
    // Where it fails, this too waits until it is stopped.
    lost.backoff = settings.backoff;
    for settings in [settings, lost] {
        let begun = Instant::now();
        let got = ask_until(settings, 20, &|| {
            begun.elapsed() > Duration::from_millis(150)
        });
        assert!(
            got.error.as_ref().unwrap().is::<Stopped>(),
            "{}",
            got.error()
        );
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "{:?}",
            begun.elapsed()
        );
    }
}

#[test]
fn the_key_is_sent_but_never_shown() {
    const KEY: &str = "sk-proj-0123456789abcdef";
    let seen_key = |seen: &Seen| seen.headers["authorization"] == format!("Bearer {KEY}");
    for status in [400, 401, 403, 404, 429, 500, 307, 200] {
        let server = Faulty::start(move |seen| {
            assert!(seen_key(seen));
            let half = &KEY[..15];
            Act::Status(
                status,
                format!("location: http://h/{KEY}\r\n"),
                format!(
                    "{{\"error\":{{\"message\":\"bad key {KEY}, or {half}\",\"code\":\"{KEY}\"}}}}"
                ),
            )
        });
        let mut settings = quick(&server.url());
        settings.api_key_env = Some("MY_KEY".to_owned());
        settings.retries = 1;
        let env = |name: &str| (name == "MY_KEY").then(|| KEY.into());
        let endpoint = Endpoint::open_with(settings, &env).unwrap();
        let got = ask(&endpoint, 2, &|| false);
        let shown = format!(
            "{endpoint:?} {:?} {:?} {} {:?}",
            got.error,
            got.notes,
            got.error(),
            endpoint.models().map_err(|e| format!("{e:#}"))
        );
        assert!(!server.seen().is_empty());
        for piece in [&KEY[..8], "01234567", &KEY[16..]] {
            assert!(!shown.contains(piece), "{status}: {shown}");
        }
        assert!(shown.contains("[key]"), "{status}: {shown}");
    }
}

#[test]
fn settings_out_of_range_and_a_missing_key_are_refused() {
    let refused = |change: &dyn Fn(&mut Settings)| {
        let mut settings = Settings::new("http://localhost:8000/v1", "m");
        change(&mut settings);
        format!(
            "{:#}",
            Endpoint::open_with(settings, &|_| None).unwrap_err()
        )
    };
    assert!(refused(&|s| s.parallel = 0).starts_with("`parallel`"));
    assert!(refused(&|s| s.parallel = 1000).starts_with("`parallel`"));
    assert!(refused(&|s| s.model = " ".to_owned()).starts_with("`model`"));
    assert!(refused(&|s| s.timeout = Duration::ZERO).starts_with("`timeout`"));
    assert!(refused(&|s| s.requests_per_minute = Some(0)).starts_with("`requests_per_minute`"));
    assert!(refused(&|s| s.url = "localhost".to_owned()).starts_with("`url`"));
    assert!(refused(&|s| s.api_key_env = Some("NO_KEY".to_owned())).contains("`NO_KEY`"));
    assert!(
        refused(&|s| s.extra = [("n".to_owned(), 2.into())].into_iter().collect()).contains("`n`")
    );
}

#[test]
fn no_request_needs_no_server() {
    let got = ask_until(quick(&url(Faulty::nowhere())), 0, &|| false);
    assert!(got.error.is_none());
}

#[test]
fn an_answer_that_cannot_be_kept_ends_the_call() {
    let server = Faulty::start(|seen| match seen.before {
        0..5 => echo(seen),
        _ => Act::Hang,
    });
    let mut settings = quick(&server.url());
    settings.timeout = Duration::from_mins(1);
    let endpoint = Endpoint::open_with(settings, &|_| None).unwrap();
    let mut kept = 0;
    let mut on_answer = |_, _| {
        kept += 1;
        anyhow::ensure!(kept < 3, "the disk is full");
        Ok(())
    };
    let begun = Instant::now();
    let error = endpoint
        .ask(&requests(100), &mut on_answer, &mut |_| {}, &|| false)
        .unwrap_err();
    assert_eq!(error.to_string(), "the disk is full");
    assert_eq!(kept, 3);
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[test]
fn fields_that_a_server_does_not_take_are_left_out_where_that_changes_nothing() {
    let server = Faulty::start(|seen| {
        let unknown = ["top_k", "min_p"]
            .into_iter()
            .find(|name| !seen.body[name].is_null());
        let refused = |text: String| {
            Act::Status(
                400,
                String::new(),
                format!("{{\"error\":{{\"message\":{text:?}}}}}"),
            )
        };
        match unknown {
            Some(name) => refused(format!("Unrecognized request argument supplied: {name}")),
            None if !seen.body["max_tokens"].is_null() => refused(
                "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.".to_owned(),
            ),
            None => echo(seen),
        }
    });
    let got = ask_until(quick(&server.url()), 40, &|| false);
    all_echoed(&got, 40);
    let told: BTreeSet<&str> = got.notes.iter().map(Note::reason).collect();
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(
        told.iter()
            .any(|note| note.starts_with("the server does not take `min_p`"))
    );
    let last = server.seen().pop().unwrap().body;
    assert_eq!(last["max_completion_tokens"], 8);
    assert_eq!(last["temperature"], 0.5);
    assert!(server.seen().len() <= 40 + 3 * 8, "{}", server.seen().len());
}

#[test]
fn a_field_that_matters_is_never_left_out() {
    let server = Faulty::start(|seen| {
        let text = format!(
            "Unsupported value: 'temperature' is not supported, {}",
            seen.before
        );
        Act::Status(400, String::new(), text)
    });
    let got = ask_until(quick(&server.url()), 3, &|| false);
    assert_eq!(got.failed(), [0, 1, 2]);
    assert!(got.error().ends_with("hint: the request sets `temperature`; leave it out, or change it, if this server does not take it"), "{}", got.error());
    assert_eq!(server.seen().len(), 3);
}

#[test]
fn an_endpoint_can_be_shared_by_threads() {
    fn shared<T: Clone + Send + Sync>(_: &T) {}
    shared(&Endpoint::open_with(quick("http://localhost:1/v1"), &|_| None).unwrap());
}
