//! Refusals, limits and dead servers: what is given up, and what is kept.

use super::*;

#[test]
fn a_dead_server_is_given_up_after_the_retries() {
    let mut settings = quick(&url(Faulty::nowhere()));
    settings.retries = 2;
    let got = ask_until(settings, 300, &|| false);
    let left = got.unanswered();
    assert_eq!((left.answered, left.requests), (0, 300));
    assert!(left.failed.len() < 30, "{}", left.failed.len());
    let error = got.error();
    assert!(error.contains("300 of 300 requests"), "{error}");
    assert!(
        error.contains("in 3 attempts each") && error.contains("refused"),
        "{error}"
    );
    assert!(
        error.contains("\nhint: is the server running at `http://127.0.0.1:"),
        "{error}"
    );
    assert!(got.notes.len() < 40, "{}", got.notes.len());
}

#[test]
fn a_server_that_dies_half_way_leaves_what_it_answered() {
    let server = Faulty::start(|seen| match seen.before {
        0..20 => echo(seen),
        _ => Act::Raw(Vec::new()),
    });
    let mut settings = quick(&server.url());
    settings.retries = 2;
    settings.parallel = 4;
    let got = ask_until(settings, 100, &|| false);
    assert_eq!(got.texts.len(), 20);
    assert_eq!(got.unanswered().answered, 20);
    assert!(server.seen().len() < 100, "{}", server.seen().len());
    assert!(
        got.error().contains("80 of 100 requests"),
        "{}",
        got.error()
    );
}

#[test]
fn one_request_that_is_always_refused_does_not_lose_the_others() {
    let (got, seen) = asked(40, |seen| match seen.prompt.as_str() {
        "prompt 0" => Act::Status(
            400,
            String::new(),
            r#"{"error":{"message":"max_tokens is too large"}}"#.to_owned(),
        ),
        "prompt 17" => Act::Status(
            422,
            String::new(),
            r#"{"detail":[{"msg":"bad"}]}"#.to_owned(),
        ),
        "prompt 18" => Act::Body(completion("half").replace("\"stop\"", "\"content_filter\"")),
        "prompt 19" => Act::Body("never JSON".to_owned()),
        _ => echo(seen),
    });
    assert_eq!(got.texts.len(), 36);
    assert_eq!(got.failed(), [0, 17, 18, 19]);
    assert_eq!(got.unanswered().gave_up, None);
    let count = |prompt: &str| seen.iter().filter(|s| s.prompt == prompt).count();
    assert_eq!(
        (count("prompt 0"), count("prompt 17"), count("prompt 18")),
        (1, 1, 1)
    );
    assert_eq!(count("prompt 19"), 7);
    let error = got.error();
    assert!(
        error.contains("request 0: the server said 400: max_tokens is too large; request 17"),
        "{error}"
    );
    assert!(
        error.contains("content filter") && error.contains("and 1 more"),
        "{error}"
    );
    assert!(
        error.contains("\nhint: the request sets `max_tokens`"),
        "{error}"
    );
    let told: BTreeSet<usize> = (got.notes.iter())
        .filter_map(|note| match note {
            Note::Failed(Failed { request, .. }) => Some(*request),
            _ => None,
        })
        .collect();
    assert_eq!(told, BTreeSet::from([0, 17, 18, 19]));
}

#[test]
fn refusals_that_are_all_alike_end_the_call_early() {
    let (got, seen) = asked(300, |_| {
        Act::Status(
            400,
            String::new(),
            r#"{"error":{"message":"Unrecognized request argument: max_tokens"}}"#.to_owned(),
        )
    });
    assert!(seen.len() < 30, "{}", seen.len());
    assert!(
        got.error()
            .contains("all of the first 8 were refused alike"),
        "{}",
        got.error()
    );
    let (got, seen) = asked(30, |seen| {
        Act::Status(400, String::new(), format!("{} is too long", seen.prompt))
    });
    assert_eq!((seen.len(), got.failed().len()), (30, 30));
}

#[test]
fn a_wrong_key_and_a_wrong_model_end_the_call_with_a_hint() {
    let server = Faulty::start(|seen| match seen.target.as_str() {
        "GET /v1/models" => {
            Act::Body(r#"{"object":"list","data":[{"id":"a"},{"id":"b"}]}"#.to_owned())
        }
        _ => Act::Status(
            404,
            String::new(),
            r#"{"object":"error","message":"The model `m` does not exist.","code":404}"#.to_owned(),
        ),
    });
    let got = ask_until(quick(&server.url()), 300, &|| false);
    let error = got.error();
    assert!(
        error.contains("the server said 404: The model `m` does not exist."),
        "{error}"
    );
    assert!(
        error.ends_with("hint: `model` is `m`, but the server has `a`, `b`"),
        "{error}"
    );
    assert!(server.seen().len() < 40, "{}", server.seen().len());
    let endpoint = Endpoint::open_with(quick(&server.url()), &|_| None).unwrap();
    assert_eq!(endpoint.models().unwrap(), ["a", "b"]);

    let (got, seen) = asked(300, |_| {
        Act::Status(401, String::new(), "who are you?".to_owned())
    });
    assert!(seen.len() <= 8, "{}", seen.len());
    assert!(
        got.error().contains("the server said 401: who are you?"),
        "{}",
        got.error()
    );
    assert!(got.error().contains("`api_key_env`"), "{}", got.error());

    let (got, _) = asked(1, |_| {
        Act::Status(404, String::new(), "<h1>Not Found</h1>".to_owned())
    });
    assert!(
        got.error().contains("usually ends in `/v1`"),
        "{}",
        got.error()
    );
}

#[test]
fn a_refusal_in_the_middle_waits_for_what_is_under_way() {
    let (got, _) = asked(8, |seen| match seen.prompt.as_str() {
        "prompt 3" => Act::After(
            Duration::from_millis(50),
            Box::new(Act::Status(401, String::new(), String::new())),
        ),
        _ => Act::After(Duration::from_millis(150), Box::new(echo(seen))),
    });
    assert_eq!(got.texts.len(), 7);
    assert!(got.error().contains("1 of 8 requests"), "{}", got.error());
}

#[test]
fn a_rate_limit_pauses_all_requests_as_long_as_the_server_says() {
    let server = Faulty::start(|seen| match seen.before {
        4 => Act::Status(
            429,
            "retry-after: 0.3\r\n".to_owned(),
            "slow down".to_owned(),
        ),
        _ => Act::After(Duration::from_millis(5), Box::new(echo(seen))),
    });
    let mut settings = quick(&server.url());
    settings.parallel = 2;
    // One pause; with none allowed the call ends if nothing else is under way.
    settings.retries = 1;
    let got = ask_until(settings, 12, &|| false);
    all_echoed(&got, 12);
    let pauses = |got: &Got| {
        got.notes
            .iter()
            .filter(|n| matches!(n, Note::Pausing { .. }))
            .count()
    };
    assert_eq!(pauses(&got), 1);
    assert_eq!(
        got.notes[0].to_string(),
        "the server said 429: slow down; waiting 0.3 s"
    );
    // The other worker may send a request before the first hears of the limit.
    let seen = server.seen();
    let gaps = seen.windows(2).map(|pair| pair[1].at - pair[0].at);
    let longest = gaps.max().unwrap();
    assert!(longest >= Duration::from_millis(250), "{longest:?}");
}

#[test]
fn many_rate_limits_lose_nothing_while_some_answers_come() {
    let server = Faulty::start(move |seen| {
        if seen.before.is_multiple_of(3) {
            echo(seen)
        } else {
            Act::Status(429, String::new(), String::new())
        }
    });
    let mut settings = quick(&server.url());
    settings.retries = 3;
    all_echoed(&ask_until(settings, 40, &|| false), 40);
}

#[test]
fn a_limit_without_end_or_of_an_hour_is_given_up() {
    let (got, seen) = asked(100, |_| Act::Status(429, String::new(), "full".to_owned()));
    assert!(
        got.error()
            .contains("after 6 pauses there was still no answer"),
        "{}",
        got.error()
    );
    assert!(
        got.error().contains("hint: lower `parallel`"),
        "{}",
        got.error()
    );
    assert!(seen.len() < 50, "{}", seen.len());
    let begun = Instant::now();
    let (got, _) = asked(100, |_| {
        Act::Status(429, "retry-after: 3600\r\n".to_owned(), String::new())
    });
    assert!(
        got.error()
            .contains("asks for a pause of 3600 s, and at most 600 s"),
        "{}",
        got.error()
    );
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_run_of_requests_of_one_prompt_that_all_fail_does_not_lose_the_others() {
    for bad in [
        Act::Status(400, String::new(), "too long".to_owned()),
        Act::Status(500, String::new(), "too long".to_owned()),
    ] {
        let server = Faulty::start(move |seen| match seen.prompt.as_str() {
            "bad" => bad.clone(),
            _ => echo(seen),
        });
        let mut settings = quick(&server.url());
        settings.parallel = 1;
        settings.retries = 1;
        let endpoint = Endpoint::open_with(settings, &|_| None).unwrap();
        let mut all = requests(20);
        for request in &mut all[..11] {
            request.user = "bad".to_owned();
        }
        let mut answered = Vec::new();
        let mut on_answer = |index, _| {
            answered.push(index);
            Ok(())
        };
        let error = endpoint
            .ask(&all, &mut on_answer, &mut |_| {}, &|| false)
            .unwrap_err();
        assert_eq!(answered, (11..20).collect::<Vec<_>>(), "{error}");
    }
}

#[test]
fn failures_between_answers_are_no_dead_server() {
    let server = Faulty::start(|seen| {
        let number: usize = seen.prompt["prompt ".len()..].parse().unwrap();
        match number % 3 {
            0 => Act::Body("never JSON".to_owned()),
            _ => echo(seen),
        }
    });
    let mut settings = quick(&server.url());
    settings.parallel = 1;
    settings.retries = 0;
    let got = ask_until(settings, 60, &|| false);
    assert_eq!((got.texts.len(), got.failed().len()), (40, 20));
}
