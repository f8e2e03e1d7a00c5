//! Ids, bytes and texts of files of both kinds.
//!
//! The fixtures are made by `tests/fixtures/llm/tokenizer/make.py`.

mod files;
mod json;

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
    for (legacy, case) in [
        (json!(true), &golden.legacy),
        (json!(null), &golden.legacy),
        (json!(false), &golden.not_legacy),
    ] {
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
fn long_texts_of_one_kind_take_linear_time_or_are_refused() {
    let start = Instant::now();
    for tokenizer in [
        read("mistral").unwrap(),
        read("llama").unwrap(),
        Tokenizer::open(&fixture("tokenizer/ruled.model")).unwrap(),
        Tokenizer::open(&fixture("tokenizer/unused.model")).unwrap(),
    ] {
        for part in ["a", " ", "é", "\n", "1", "' ", "▁"] {
            let text = part.repeat(20_000);
            assert!(tokenizer.encode(&text).is_ok(), "{part}");
        }
        let error = tokenizer.encode(&"a".repeat((1 << 20) + 1)).unwrap_err();
        assert!(format!("{error:#}").contains("longer than"), "{error:#}");
    }
    assert!(
        start.elapsed() < Duration::from_mins(1),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn bytes_of_pieces_are_the_text_behind_a_space() {
    let paths = [Some(fixture("tokenizer/unused.model")), real_model()];
    for (path, prefix) in paths.iter().zip(["", " "]) {
        let Some(path) = path else { continue };
        let tokenizer = Tokenizer::open(path).unwrap();
        let golden = golden();
        let fragments: Vec<&String> = golden.plain_fragments.iter().collect();
        for text in drawn(&golden.real, &golden.counts, &fragments) {
            let ids = tokenizer.encode(&text).unwrap();
            let bytes = ids
                .iter()
                .flat_map(|&id| tokenizer.token_bytes(id).unwrap());
            let whole = String::from_utf8(bytes.collect()).unwrap();
            assert_eq!(whole, format!("{prefix}{}", text.replace('▁', " ")));
            assert_eq!(tokenizer.decode(&ids).unwrap(), text.replace('▁', " "));
        }
        for id in 0..3 {
            assert_eq!(tokenizer.token_bytes(id), None);
        }
        let bytes: BTreeSet<u8> = (0..=tokenizer.largest_id())
            .filter_map(|id| match tokenizer.token_bytes(id)?.as_slice() {
                [byte] => Some(*byte),
                _ => None,
            })
            .collect();
        assert_eq!(bytes.len(), 256);
        assert_eq!(tokenizer.token_bytes(tokenizer.largest_id() + 1), None);
    }
}

#[test]
fn a_folder_may_rename_pieces_and_add_tokens() {
    let token = |content: &str, special: bool| {
        json!({"content": content, "special": special, "lstrip": false, "rstrip": true,
            "single_word": true, "normalized": false})
    };
    let model = fixture("tokenizer/unused.model");
    let size = Tokenizer::open(&model).unwrap().largest_id() + 1;
    let config = json!({"added_tokens_decoder": {
        "0": token("<unk>", true), "2": token("<end>", true),
        size.to_string(): token("<|more|>", true), (size + 4).to_string(): token("word", false),
    }});
    let folder = pieces_folder(&model, &[("tokenizer_config.json", config)]);
    let tokenizer = Tokenizer::open_folder(folder.path()).unwrap();
    assert_eq!(tokenizer.largest_id(), size + 4);
    assert_eq!(tokenizer.id("<end>"), Some(2));
    assert_eq!(tokenizer.id("</s>"), None);
    assert_eq!(tokenizer.encode("<end>  <|more|>").unwrap(), [2, size]);
    assert_eq!(
        tokenizer.encode("-word word").unwrap()[1..],
        [size + 4, size + 4]
    );
    assert!(
        !tokenizer
            .encode("sword words")
            .unwrap()
            .contains(&(size + 4))
    );
    assert!(
        !tokenizer
            .encode("</s> <unk>")
            .unwrap()
            .iter()
            .any(|&id| id < 3)
    );
    assert_eq!(
        tokenizer.decode(&[2, size + 4, size, 90_000]).unwrap(),
        "word"
    );
    assert_eq!(
        tokenizer.special_starts("a<end>word<s>"),
        BTreeSet::from([1, 10])
    );

    // The longest of the tokens that start at a place counts.
    let added = json!({"<|a|>": size, "<|b|>": size + 1, "<|b|>!": size + 2});
    let folder = pieces_folder(&model, &[("added_tokens.json", added)]);
    let tokenizer = Tokenizer::open_folder(folder.path()).unwrap();
    assert_eq!(
        tokenizer.encode("<|b|><|b|>!<|a|>").unwrap(),
        [size + 1, size + 2, size]
    );
    let files = Tokenizer::files(folder.path());
    assert_eq!(files.len(), 2);
    for (added, part) in [
        (json!({"<s>": 9}), "also 1"),
        (json!({"a": 7, "b": 7}), "two tokens of the id 7"),
        (json!({"a": 4_000_000_000_u32}), "largest allowed"),
        (json!({"a": -1}), "expected fields"),
    ] {
        let folder = pieces_folder(&model, &[("added_tokens.json", added)]);
        let error = format!("{:#}", Tokenizer::open_folder(folder.path()).unwrap_err());
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn the_file_of_a_folder_is_found_or_the_hint_says_what_to_add() {
    let model = fixture("tokenizer/unused.model");
    let folder = tempfile::tempdir().unwrap();
    let error =
        |folder: &TempDir| format!("{:#}", Tokenizer::open_folder(folder.path()).unwrap_err());
    assert!(
        error(&folder).contains("neither `tokenizer.json` nor"),
        "{}",
        error(&folder)
    );
    fs::write(folder.path().join("tekken.json"), "{}").unwrap();
    assert!(
        error(&folder).contains("tekken.json` is not read"),
        "{}",
        error(&folder)
    );
    for name in [
        "tokenizer.model.v1",
        "tokenizer.model.v11",
        "tokenizer.model.v3m1",
        "tokenizer.model.v3",
    ] {
        fs::copy(&model, folder.path().join(name)).unwrap();
    }
    let opened = |folder: &TempDir| {
        let tokenizer = Tokenizer::open_folder(folder.path()).unwrap();
        assert_eq!(Tokenizer::files(folder.path()), [tokenizer.path()]);
        tokenizer
            .path()
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(opened(&folder), "tokenizer.model.v11");
    fs::copy(&model, folder.path().join("tokenizer.model")).unwrap();
    assert_eq!(opened(&folder), "tokenizer.model");
    fs::copy(
        fixture("llama/tokenizer.json"),
        folder.path().join("tokenizer.json"),
    )
    .unwrap();
    assert_eq!(opened(&folder), "tokenizer.json");
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("tokenizer.model"), "IQ== 0\nIg== 1\n").unwrap();
    assert!(error(&folder).contains("tiktoken"), "{}", error(&folder));
}
