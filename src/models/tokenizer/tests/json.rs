//! Changed and hostile `tokenizer.json` files.

use super::*;

fn open(change: impl FnOnce(&mut Value)) -> Result<Tokenizer> {
    let mut file: Value = serde_json::from_slice(&fs::read(fixture("mistral/tokenizer.json"))?)?;
    change(&mut file);
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("tokenizer.json");
    fs::write(&path, file.to_string())?;
    Tokenizer::open(&path)
}

#[test]
fn hostile_files_end_soon_in_an_error_or_do_their_work() -> Result<()> {
    let nested = |kind: &str, list: &str, depth: usize| {
        let mut value = json!({"type": kind, list: []});
        for _ in 0..depth {
            value = json!({"type": kind, list: [value]});
        }
        value
    };
    let start = Instant::now();
    for depth in [10, 55] {
        for (field, list) in [
            ("pre_tokenizer", "pretokenizers"),
            ("normalizer", "normalizers"),
            ("post_processor", "processors"),
            ("decoder", "decoders"),
        ] {
            let value = nested("Sequence", list, depth);
            let opened = open(|file| file[field] = value);
            if let Ok(tokenizer) = opened {
                tokenizer.encode("a cat")?;
            }
        }
    }
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "nesting took {:?}",
        start.elapsed()
    );
    let start = Instant::now();
    for pattern in ["(?=(a+)+b)c", "(a|a|a)*(?!a)b", "(.*)*\\1x"] {
        let opened = open(|file| {
            file["pre_tokenizer"] = json!({
                "type": "Split", "pattern": {"Regex": pattern},
                "behavior": "Isolated", "invert": false
            });
        });
        if let Ok(tokenizer) = opened {
            // Whether this fails is for the pattern's engine to say.
            let _ = tokenizer.encode(&"a".repeat(2000));
        }
    }
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "patterns took {:?}",
        start.elapsed()
    );
    for change in [
        json!({"type": "BPE", "vocab": {"a": 4_294_967_295u32}, "merges": []}),
        json!({"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "b"]]}),
        json!({"type": "Unigram", "vocab": [], "unk_id": 7}),
        json!({"type": "WordPiece", "vocab": {}, "unk_token": "u", "max_input_chars_per_word": 0,
               "continuing_subword_prefix": "##"}),
    ] {
        if let Ok(tokenizer) = open(|file| file["model"] = change) {
            let _ = tokenizer.encode("a cat [INST]");
            let _ = tokenizer.decode(&[0, 1, 5, 4_000_000_000]);
        }
    }
    Ok(())
}

#[test]
fn decoders_that_do_more_than_join_bytes_have_no_bytes_of_tokens() -> Result<()> {
    for decoder in [
        json!(null),
        json!({"type": "WordPiece", "prefix": "##", "cleanup": true}),
        json!({"type": "Replace", "pattern": {"Regex": "a+"}, "content": " "}),
    ] {
        let tokenizer = open(|file| file["decoder"] = decoder)?;
        assert_eq!(tokenizer.token_bytes(270), None);
    }
    let added = json!({"id": 300, "content": "a ▁é", "special": false, "normalized": false,
        "lstrip": false, "rstrip": false, "single_word": false});
    let tokenizer = open(|file| {
        let list = file["added_tokens"].as_array_mut();
        list.unwrap().push(added);
    })?;
    assert_eq!(
        tokenizer.token_bytes(tokenizer.largest_id()),
        Some("a ▁é".as_bytes().to_vec())
    );
    Ok(())
}

#[test]
fn padding_and_truncation_of_the_file_are_left_out() -> Result<()> {
    let plain = open(|_| {})?.encode("a long tail and a red nose")?;
    let changed = open(|file| {
        file["truncation"] = json!({"direction": "Right", "max_length": 3,
            "strategy": "LongestFirst", "stride": 0});
        file["padding"] = json!({"strategy": {"Fixed": 64}, "direction": "Left",
            "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "<unk>"});
    })?;
    assert_eq!(changed.encode("a long tail and a red nose")?, plain);
    Ok(())
}

fn failure(change: impl FnOnce(&mut Value)) -> String {
    match open(change) {
        Ok(_) => String::new(),
        Err(error) => format!("{error:#}"),
    }
}

#[test]
fn parts_that_would_make_a_text_grow_without_end_are_refused() {
    let replace = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aa"});
    let anywhere =
        json!({"type": "Replace", "pattern": {"Regex": ""}, "content": "b".repeat(9000)});
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
        "use_regex": false});
    let prepend = json!({"type": "Prepend", "prepend": "x".repeat(1 << 20)});
    for (field, kind, list, part, count) in [
        ("normalizer", "Sequence", "normalizers", &replace, 40),
        ("normalizer", "Sequence", "normalizers", &anywhere, 1),
        ("normalizer", "Sequence", "normalizers", &prepend, 1),
        ("decoder", "Sequence", "decoders", &replace, 40),
        ("pre_tokenizer", "Sequence", "pretokenizers", &bytes, 40),
    ] {
        let parts = vec![part.clone(); count];
        let error = failure(|file| file[field] = json!({"type": kind, list: parts}));
        assert!(error.contains("times longer"), "{field}: {error}");
    }
    let strip = json!({"type": "Strip", "strip_left": true, "strip_right": true});
    let error = failure(|file| {
        file["normalizer"] = json!({"type": "Sequence", "normalizers": vec![strip; 65]});
    });
    assert!(error.contains("64 parts"), "{error}");
    // Where the limit allows a part, it bounds the text.
    let tokenizer = open(|file| {
        let parts = vec![replace; 8];
        file["normalizer"] = json!({"type": "Sequence", "normalizers": parts});
    });
    let tokenizer = tokenizer.unwrap();
    assert!(tokenizer.encode("a").unwrap().len() >= 256);
    let error = format!("{:#}", tokenizer.encode(&"a".repeat(1 << 20)).unwrap_err());
    assert!(error.contains("that its parts allow"), "{error}");
}

#[test]
fn patterns_that_look_around_are_for_splitting_only() {
    let pattern = json!({"Regex": "a(?!b)"});
    let replace = json!({"type": "Replace", "pattern": pattern, "content": ""});
    let error = failure(|file| file["normalizer"] = replace.clone());
    assert!(error.contains("looks around"), "{error}");
    let error = failure(|file| file["decoder"] = replace);
    assert!(error.contains("looks around"), "{error}");
    let split = |pattern: Value| json!({"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": false});
    assert!(open(|file| file["pre_tokenizer"] = split(pattern)).is_ok());
    let long = json!({"Regex": "a".repeat(1 << 14)});
    let error = failure(|file| file["pre_tokenizer"] = split(long));
    assert!(error.contains("longer than"), "{error}");
}

#[test]
fn ids_that_are_shared_or_out_of_order_are_refused() {
    let added = |id: u64, content: &str| {
        json!({"id": id, "content": content, "special": true, "normalized": false,
            "lstrip": false, "rstrip": false, "single_word": false})
    };
    for id in [301, 1_000_000, 4_000_000_000] {
        let error = failure(|file| {
            file["added_tokens"]
                .as_array_mut()
                .unwrap()
                .push(added(id, "<new>"));
        });
        assert!(
            error.contains("`<new>`") && error.contains(&id.to_string()),
            "{error}"
        );
    }
    assert!(
        open(|file| {
            file["added_tokens"]
                .as_array_mut()
                .unwrap()
                .push(added(300, "<new>"));
        })
        .is_ok()
    );
    let error = failure(|file| file["model"]["vocab"]["q"] = json!(270));
    assert!(error.contains("two tokens have the id 270"), "{error}");
    let error = failure(|file| file["model"]["dropout"] = json!(0.1));
    assert!(error.contains("`dropout`"), "{error}");
    let error = failure(|file| file["model"]["vocab"]["q"] = json!(-1));
    assert!(!error.is_empty());
}

#[test]
fn a_run_of_spaces_that_the_pattern_gives_up_on_is_refused() {
    let tokenizer = read("llama").unwrap();
    let text = |spaces: usize| format!("{}b c", " ".repeat(spaces));
    assert!(tokenizer.encode(&text(499_000)).is_ok());
    let error = format!("{:#}", tokenizer.encode(&text(500_000)).unwrap_err());
    assert!(error.contains("longer than the 500000"), "{error}");
}
