//! What a vocabulary or a grammar cannot be, other grammars, and threads.

use super::*;

#[test]
fn a_vocabulary_that_cannot_write_the_form_is_refused() {
    let tokenizer = tokenizer("mistral");
    let (bytes, eos) = tokens(&tokenizer);
    let own = Arc::clone(&tokenizer);
    let tokenize = move |text: &str| own.encode(text);
    for needed in *b"{}\": ,featur12" {
        let without = bytes
            .iter()
            .cloned()
            .map(|token| token.filter(|t| t[..] != [needed]));
        let vocabulary =
            Arc::new(Vocabulary::new(without.collect(), &[eos], tokenize.clone()).unwrap());
        let error = Grammar::attributes(&vocabulary, 2, 9)
            .unwrap_err()
            .to_string();
        let shown = format!(
            "no token of the model stands for the byte `{}`",
            needed.escape_ascii()
        );
        assert!(error.starts_with(&shown), "{error}");
        assert!(error.contains("hint:"));
        assert!(Grammar::regex(&vocabulary, "a").is_err());
    }
    let no_bytes = vec![None; bytes.len()];
    let vocabulary = Arc::new(Vocabulary::new(no_bytes, &[eos], tokenize.clone()).unwrap());
    assert!(Grammar::attributes(&vocabulary, 1, 1).is_err());

    let error = |result: Result<Vocabulary>| result.unwrap_err().to_string();
    assert!(
        error(Vocabulary::new(bytes.clone(), &[], tokenize.clone())).contains("no token that ends")
    );
    assert!(
        error(Vocabulary::new(bytes.clone(), &[300], tokenize.clone())).contains("end token 300")
    );
    let failing = |_: &str| Err(anyhow!("broken"));
    assert!(error(Vocabulary::new(bytes, &[eos], failing)).contains("failed on `{`"));
}

#[test]
fn without_all_continuing_bytes_no_token_ends_within_a_character() {
    let tokenizer = tokenizer("mistral");
    let (mut bytes, eos) = tokens(&tokenizer);
    let ring = bytes
        .iter()
        .position(|token| token.as_deref() == Some(&[0xA5]))
        .unwrap();
    bytes[ring] = None;
    let own = Arc::clone(&tokenizer);
    let vocabulary = Vocabulary::new(bytes.clone(), &[eos], move |text| own.encode(text)).unwrap();
    let grammar = Grammar::attributes(&Arc::new(vocabulary), 1, 3).unwrap();
    let mut matcher = grammar.start().unwrap();
    for id in tokenizer.encode("{\"feature1\": \"").unwrap() {
        matcher.take(id).unwrap();
    }
    let can = allowed(&mut matcher);
    assert!(can.len() > 60);
    for id in can {
        let token = bytes[id as usize].clone().unwrap();
        assert!(String::from_utf8(token).is_ok());
    }
}

#[test]
fn a_fallback_that_breaks_the_text_is_not_trusted() {
    // A tokenizer that gives other texts back: forced text is still written.
    let tokenizer = tokenizer("llama");
    let (bytes, eos) = tokens(&tokenizer);
    let own = Arc::clone(&tokenizer);
    let shout = move |text: &str| own.encode(&text.to_uppercase());
    let vocabulary = Arc::new(Vocabulary::new(bytes.clone(), &[eos], shout).unwrap());
    let grammar = Grammar::attributes(&vocabulary, 2, 5).unwrap();
    let (ids, _) = run(&grammar, 5, true);
    let text = tokenizer.decode(&ids).unwrap();
    assert!(matches!(parse(&text, 2), Parsed::Valid(_)), "{text}");
}

#[test]
fn json_schemas_and_regular_expressions_are_followed() {
    for name in ["mistral", "llama"] {
        let tokenizer = tokenizer(name);
        let vocabulary = vocabulary(&tokenizer);
        let schema = json!({
            "type": "object",
            "properties": {
                "colour": {"enum": ["red", "naïve green"]},
                "legs": {"type": "integer", "minimum": 0, "maximum": 8},
                "parts": {"type": "array", "items": {"type": "string", "minLength": 1, "maxLength": 5},
                    "minItems": 1, "maxItems": 3},
            },
            "required": ["colour", "legs", "parts"],
            "additionalProperties": false,
        });
        let grammar = Grammar::json_schema(&vocabulary, &schema).unwrap();
        for seed in 0..40 {
            let (ids, _) = run(&grammar, seed, seed % 2 == 0);
            let text = tokenizer.decode(&ids).unwrap();
            let value: Value = serde_json::from_str(&text).unwrap();
            assert!(
                ["red", "naïve green"].contains(&value["colour"].as_str().unwrap()),
                "{text}"
            );
            assert!(value["legs"].as_u64().unwrap() <= 8, "{text}");
            assert!(
                (1..=3).contains(&value["parts"].as_array().unwrap().len()),
                "{text}"
            );
            assert!(text.starts_with("{\"colour\": \""), "{text}");
        }
        let grammar = Grammar::json_schema(&vocabulary, &attributes_schema(2, 7)).unwrap();
        for seed in 0..20 {
            let text = tokenizer.decode(&run(&grammar, seed, true).0).unwrap();
            match parse(&text, 2) {
                Parsed::Valid(values) => assert!(values.iter().all(|v| v.chars().count() <= 7)),
                // A schema lets a value be a space.
                other => assert!(
                    matches!(&other, Parsed::Invalid(r) if r.ends_with("is empty")),
                    "{text}"
                ),
            }
        }
        let grammar = Grammar::regex(&vocabulary, "(yes|no)/[0-9]{2}").unwrap();
        for seed in 0..20 {
            let text = tokenizer.decode(&run(&grammar, seed, true).0).unwrap();
            let (word, number) = text.split_once('/').unwrap();
            assert!(["yes", "no"].contains(&word) && number.len() == 2, "{text}");
        }
        // The end may come where more may follow, too.
        let mut matcher = Grammar::regex(&vocabulary, "a{1,3}")
            .unwrap()
            .start()
            .unwrap();
        matcher.take(tokenizer.id("a").unwrap()).unwrap();
        assert!(!matcher.finished());
        let eos = vocabulary.eos()[0];
        assert!(allowed(&mut matcher).contains(&eos));
        matcher.take(eos).unwrap();
        assert!(matcher.finished());
        assert_eq!(allowed(&mut matcher), [eos]);
    }
}

#[test]
fn hostile_grammars_are_refused_and_wrong_tokens_are_errors() {
    let tokenizer = tokenizer("llama");
    let vocabulary = vocabulary(&tokenizer);
    for (count, most_chars) in [(0, 5), (usize::MAX, 5), (3, 0), (3, usize::MAX)] {
        assert!(Grammar::attributes(&vocabulary, count, most_chars).is_err());
    }
    for schema in [
        json!(true),
        json!({"type": "string", "minLength": 5, "maxLength": 2}),
        json!({"enum": []}),
        json!({"$ref": "https://example.com/schema.json"}),
        json!({"type": "string", "pattern": "("}),
        json!({"x-guidance": 5}),
        json!({"const": "a".repeat(300_000)}),
    ] {
        assert!(
            Grammar::json_schema(&vocabulary, &schema).is_err(),
            "{schema:.60}"
        );
    }
    for pattern in ["(", "[^\\s\\S]"] {
        assert!(Grammar::regex(&vocabulary, pattern).is_err(), "{pattern}");
    }
    let grammar = Grammar::attributes(&vocabulary, 2, 9).unwrap();
    let mut matcher = grammar.start().unwrap();
    assert!(matcher.mask(&mut [0.0; 299]).is_err());
    assert!(matcher.take(vocabulary.eos()[0]).is_err());
    assert!(matcher.take(u32::MAX).is_err());
    let forced = matcher.forced().unwrap();
    assert!(!forced.is_empty() && matcher.forced().unwrap().is_empty());
    let mut padded = vec![0.0; 310];
    matcher.mask(&mut padded).unwrap();
    assert!(
        padded[300..]
            .iter()
            .all(|logit| *logit == f32::NEG_INFINITY)
    );
    assert!(matcher.take(u32::MAX).is_err());
    assert!(
        matcher.take(tokenizer.id("a").unwrap()).is_err(),
        "an answer does not recover"
    );
    assert!(!matcher.finished() && matcher.mask(&mut padded).is_err());
}

#[test]
fn answers_can_be_followed_on_several_threads() {
    fn is_send<T: Send>() {}
    fn is_sync<T: Sync>() {}
    is_send::<Matcher>();
    is_send::<Grammar>();
    is_sync::<Vocabulary>();
    let grammar = Grammar::attributes(&vocabulary(&tokenizer("llama")), 2, 9).unwrap();
    let mut matchers: Vec<Matcher> = (0..4).map(|_| grammar.start().unwrap()).collect();
    std::thread::scope(|scope| {
        for matcher in &mut matchers {
            scope.spawn(|| allowed(matcher).len());
        }
    });
}
