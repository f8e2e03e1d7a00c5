//! Files of both kinds, whole and hostile.
//!
//! The fixtures are made by `tests/fixtures/llm/tokenizer/make.py`.

use std::{
    fs,
    time::{Duration, Instant},
};

use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

#[expect(clippy::print_stderr, reason = "a test that does not run says so")]
/// Where Mistral's own file lies, which is not a part of the repository.
pub(in crate::models) fn real_model() -> Option<PathBuf> {
    let name = "mistral_instruct_tokenizer_240323.model.v3";
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = root.parent()?.join("shared/data").join(name);
    if path.exists() {
        return Some(path);
    }
    eprintln!("skipped: there is no `{}`", path.display());
    None
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/llm")
        .join(name)
}

#[derive(Deserialize)]
struct Golden {
    plain_fragments: Vec<String>,
    control_fragments: Vec<String>,
    counts: Vec<u64>,
    real: Case,
    legacy: Case,
    not_legacy: Case,
    ruled: Case,
    unused: Case,
}

#[derive(Deserialize)]
struct Case {
    seed: u64,
    count: usize,
    hashes: String,
    #[serde(default)]
    decoded: Vec<(Vec<u32>, String)>,
}

fn golden() -> Golden {
    serde_json::from_slice(&fs::read(fixture("tokenizer/ids.json")).unwrap()).unwrap()
}

/// The texts of a case, drawn as in `make.py`.
fn drawn(case: &Case, counts: &[u64], fragments: &[&String]) -> Vec<String> {
    let mut state = case.seed;
    let mut below = |n: u64| {
        state = (state.wrapping_mul(6364136223846793005)).wrapping_add(1442695040888963407);
        (state >> 33) % n
    };
    let mut texts = Vec::new();
    for _ in 0..case.count {
        let length = counts[below(counts.len() as u64) as usize];
        let mut text = String::new();
        for _ in 0..length {
            if below(8) == 0 {
                let code = below(0x3000) as u32;
                text.push(char::from_u32(code).filter(|_| code >= 0x20).unwrap_or(' '));
            } else {
                text += fragments[below(fragments.len() as u64) as usize];
            }
        }
        texts.push(text);
    }
    texts
}

fn hashed(ids: &[u32]) -> String {
    let hash = (ids.iter().flat_map(|id| id.to_le_bytes()))
        .fold(0xCBF2_9CE4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3)
        });
    format!("{:08x}", (hash ^ hash >> 32) as u32)
}

fn check(tokenizer: &Tokenizer, case: &Case, golden: &Golden, controls: bool) {
    let controls: &[String] = if controls {
        &golden.control_fragments
    } else {
        &[]
    };
    let fragments: Vec<&String> = golden.plain_fragments.iter().chain(controls).collect();
    let texts = drawn(case, &golden.counts, &fragments);
    assert_eq!(case.hashes.len(), 8 * texts.len());
    for (at, text) in texts.iter().enumerate() {
        let ids = tokenizer.encode(text).unwrap();
        assert_eq!(
            hashed(&ids),
            case.hashes[8 * at..8 * at + 8],
            "{text:?} became {ids:?}"
        );
    }
    for (ids, text) in &case.decoded {
        assert_eq!(tokenizer.decode(ids).unwrap(), *text);
    }
}

/// A folder with a `SentencePiece` file and other files by name.
fn pieces_folder(model: &Path, files: &[(&str, Value)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(model, folder.path().join("tokenizer.model")).unwrap();
    for (name, value) in files {
        fs::write(folder.path().join(name), value.to_string()).unwrap();
    }
    folder
}

#[test]
fn ids_of_mistrals_file_are_those_of_sentencepiece() {
    let Some(path) = real_model() else { return };
    let golden = golden();
    let start = Instant::now();
    let tokenizer = Tokenizer::open(&path).unwrap();
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(tokenizer.largest_id(), 32_767);
    check(&tokenizer, &golden.real, &golden, false);
}

#[test]
fn ids_around_special_tokens_are_those_of_transformers() {
    let Some(path) = real_model() else { return };
    let golden = golden();
    for (legacy, case) in [(true, &golden.legacy), (false, &golden.not_legacy)] {
        let config = json!({ "legacy": legacy });
        let folder = pieces_folder(&path, &[("tokenizer_config.json", config)]);
        let tokenizer = Tokenizer::open_folder(folder.path()).unwrap();
        check(&tokenizer, case, &golden, true);
    }
}

#[test]
fn tables_of_characters_and_pieces_of_all_kinds_are_as_in_sentencepiece() {
    let golden = golden();
    for (name, case) in [("ruled", &golden.ruled), ("unused", &golden.unused)] {
        let tokenizer = Tokenizer::open(&fixture(&format!("tokenizer/{name}.model"))).unwrap();
        check(&tokenizer, case, &golden, false);
        assert_eq!(case.decoded.len(), 7);
    }
}

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

fn read(name: &str) -> Result<Tokenizer> {
    Tokenizer::open_folder(&fixture(name))
}

#[test]
fn the_bytes_of_a_texts_tokens_are_the_text() -> Result<()> {
    let bytes: String = (1..=255).map(char::from).collect();
    for (name, prefix) in [("mistral", " "), ("llama", "")] {
        let tokenizer = read(name)?;
        for text in [
            "a cat",
            "  two  spaces\n\tand a tab ",
            "Éclair naïve — “quotes” 日本語 🐈‍⬛ ǅ",
            &bytes,
        ] {
            let ids = tokenizer.encode(text)?;
            let tokens = ids.iter().filter_map(|&id| tokenizer.token_bytes(id));
            let whole = String::from_utf8(tokens.flatten().collect())?;
            // This file adds no space where there is one.
            let prefix = if text.starts_with(' ') { "" } else { prefix };
            assert_eq!(whole, format!("{prefix}{text}"), "{name}");
        }
    }
    Ok(())
}

#[test]
fn every_byte_has_a_token_and_special_tokens_have_none() -> Result<()> {
    for (name, special) in [
        (
            "mistral",
            &["<unk>", "<s>", "</s>", "[INST]", "[/INST]"][..],
        ),
        ("llama", &["<|begin|>", "<|end|>", "<|start|>", "<|mid|>"]),
    ] {
        let tokenizer = read(name)?;
        for id in 0..=tokenizer.largest_id() + 2 {
            let ids = special.iter().filter_map(|text| tokenizer.id(text));
            let ordinary = id <= tokenizer.largest_id() && ids.into_iter().all(|other| other != id);
            assert_eq!(
                tokenizer.token_bytes(id).is_some(),
                ordinary,
                "{name}: {id}"
            );
        }
        let ids = 0..=tokenizer.largest_id();
        let single: BTreeSet<u8> = ids
            .filter_map(|id| match tokenizer.token_bytes(id)?.as_slice() {
                [byte] => Some(*byte),
                _ => None,
            })
            .collect();
        assert_eq!(single.len(), 256, "{name}");
    }
    let tokenizer = read("mistral")?;
    assert_eq!(tokenizer.token_bytes(5 + 10), Some(b"\n".to_vec()));
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
