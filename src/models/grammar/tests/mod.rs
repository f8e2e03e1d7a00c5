//! Tests of constrained answers with the fixtures' vocabularies of 300 tokens.

mod refused;

use std::{path::Path, sync::LazyLock};

use regex::Regex;

use super::*;
use crate::models::{
    answer::{Parsed, parse},
    sampling::{Sampling, draw, uniform},
    tokenizer::Tokenizer,
};

fn tokenizer(name: &str) -> Arc<Tokenizer> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/llm");
    Arc::new(Tokenizer::open(&Path::new(folder).join(name).join("tokenizer.json")).unwrap())
}

/// A tokenizer's bytes, and the ids that end an answer.
fn tokens(tokenizer: &Tokenizer) -> (Vec<Option<Vec<u8>>>, u32) {
    let eos = (["</s>", "<|end|>"].iter()).find_map(|token| tokenizer.id(token));
    let bytes = (0..=tokenizer.largest_id()).map(|id| tokenizer.token_bytes(id));
    (bytes.collect(), eos.unwrap())
}

fn vocabulary(tokenizer: &Arc<Tokenizer>) -> Arc<Vocabulary> {
    let (bytes, eos) = tokens(tokenizer);
    let own = Arc::clone(tokenizer);
    Arc::new(Vocabulary::new(bytes, &[eos], move |text| own.encode(text)).unwrap())
}

/// The tokens that may come next.
fn allowed(matcher: &mut Matcher) -> Vec<u32> {
    let mut logits = vec![0.0; matcher.vocabulary.tokens()];
    matcher.mask(&mut logits).unwrap();
    let kept = logits
        .iter()
        .enumerate()
        .filter(|(_, logit)| **logit == 0.0);
    kept.map(|(id, _)| id as u32).collect()
}

/// Whether text is the beginning of an answer or a whole one, by the definition
/// of the form and nothing else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fits {
    No,
    Begun,
    Whole,
}

fn fits(text: &[u8], count: usize, most_chars: usize, leads: bool) -> Fits {
    static ODD_START: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"^[^\p{Alphabetic}\p{N}]").unwrap());
    let mut rest = text;
    if leads && rest.first() == Some(&b' ') {
        rest = &rest[1..];
    }
    let eat = |rest: &mut &[u8], fixed: &str| {
        let most = fixed.len().min(rest.len());
        let same = rest[..most] == fixed.as_bytes()[..most];
        let whole = same && most == fixed.len();
        *rest = &rest[most..];
        (same, whole)
    };
    for number in 1..=count {
        let before = if number == 1 { "{" } else { ", " };
        let (same, whole) = eat(&mut rest, &format!("{before}\"feature{number}\": \""));
        if !whole {
            return if same { Fits::Begun } else { Fits::No };
        }
        let end = rest.iter().position(|&b| b == b'"');
        let value = &rest[..end.unwrap_or(rest.len())];
        let good = |text: &str| {
            let bad = |c: char| c == '\\' || c.is_control() || (c.is_whitespace() && c != ' ');
            !text.contains(bad) && !ODD_START.is_match(text) && text.chars().count() <= most_chars
        };
        // A character that is not finished may become any of a range.
        let (whole, last) = match std::str::from_utf8(value) {
            Ok(text) => (text, None),
            Err(error) => {
                let (text, last) = value.split_at(error.valid_up_to());
                (std::str::from_utf8(text).unwrap(), Some(last))
            }
        };
        let fits = match last {
            None => good(whole),
            Some(last) => end.is_none() && may_become(last).any(|c| good(&format!("{whole}{c}"))),
        };
        if !fits {
            return Fits::No;
        }
        match end {
            None => return Fits::Begun,
            Some(0) => return Fits::No,
            Some(end) => rest = &rest[end + 1..],
        }
    }
    match eat(&mut rest, "}") {
        (true, true) if rest.is_empty() => Fits::Whole,
        (true, _) if rest.is_empty() => Fits::Begun,
        _ => Fits::No,
    }
}

/// The characters whose UTF-8 begins with these bytes, which are not all of it.
fn may_become(begun: &[u8]) -> impl Iterator<Item = char> {
    let (length, bits) = match begun[0] {
        byte @ 0xC2..=0xDF => (2, byte & 0x1F),
        byte @ 0xE0..=0xEF => (3, byte & 0x0F),
        byte @ 0xF0..=0xF4 => (4, byte & 0x07),
        // Nothing begins like this.
        _ => (begun.len(), 0),
    };
    let continues = begun[1..].iter().all(|byte| matches!(byte, 0x80..=0xBF));
    let missing = if continues {
        length.saturating_sub(begun.len())
    } else {
        0
    };
    let bits = begun[1..].iter().fold(u32::from(bits), |bits, byte| {
        bits << 6 | u32::from(byte & 0x3F)
    });
    let count = if missing == 0 {
        0
    } else {
        1u32 << (6 * missing)
    };
    (0..count)
        .filter_map(move |low| char::from_u32(bits << (6 * missing) | low))
        .filter(move |c| c.len_utf8() == length)
}

#[test]
fn the_definition_of_the_form_knows_good_from_bad() {
    let whole = r#"{"feature1": "a b", "feature2": "é"}"#;
    assert_eq!(fits(whole.as_bytes(), 2, 3, false), Fits::Whole);
    assert_eq!(fits(whole.as_bytes(), 2, 2, false), Fits::No);
    for end in 0..whole.len() {
        assert_eq!(
            fits(&whole.as_bytes()[..end], 2, 3, false),
            Fits::Begun,
            "{end}"
        );
    }
    for bad in [
        r#" {"feature1": "a b""#,
        r#"{"feature1": "" "#,
        r#"{"feature1": " a"#,
        r#"{"feature1": "-a"#,
        r#"{"feature1":"a"#,
        r#"{"feature2": "a"#,
        "{\"feature1\": \"a\u{a0}",
        "{\"feature1\": \"a\n",
        "{\"feature1\": \"\\",
        r#"{"feature1": "a", "feature2": "b"} "#,
    ] {
        assert_eq!(fits(bad.as_bytes(), 2, 3, false), Fits::No, "{bad}");
    }
    // The two bytes begin U+0080 to U+00BF, of which some are spaces or controls.
    assert_eq!(fits(b"{\"feature1\": \"a\xC2", 1, 3, false), Fits::Begun);
    assert_eq!(fits(b"{\"feature1\": \"a\xC2\x85", 1, 3, false), Fits::No);
}

#[test]
fn a_mask_allows_what_a_brute_force_check_allows() {
    for name in ["mistral", "llama"] {
        let tokenizer = tokenizer(name);
        let (bytes, eos) = tokens(&tokenizer);
        let vocabulary = vocabulary(&tokenizer);
        let (count, most_chars) = (2, 4);
        let grammar = Grammar::attributes(&vocabulary, count, most_chars).unwrap();
        // Of equal tokens one is offered.
        let offered = |id: usize| {
            let same = |other: &usize| bytes[*other] == bytes[id];
            let text = String::from_utf8(bytes[id].clone().unwrap());
            (0..bytes.len()).filter(same).count() == 1
                || (text.is_ok_and(|text| tokenizer.id(&text.replace(' ', "▁")) == Some(id as u32)))
        };
        let mut states = 0;
        for walk in 0..16u64 {
            let mut matcher = grammar.start().unwrap();
            let mut text: Vec<u8> = Vec::new();
            for step in 0.. {
                let can = allowed(&mut matcher);
                let expected: Vec<u32> = (0..bytes.len())
                    .filter(|&id| match &bytes[id] {
                        None => {
                            id as u32 == eos
                                && fits(&text, count, most_chars, vocabulary.leads()) == Fits::Whole
                        }
                        Some(token) => {
                            let next = [&text[..], token].concat();
                            fits(&next, count, most_chars, vocabulary.leads()) != Fits::No
                                && offered(id)
                        }
                    })
                    .map(|id| id as u32)
                    .collect();
                if matcher.ahead.is_empty() {
                    assert_eq!(
                        can,
                        expected,
                        "{name}: {:?}",
                        String::from_utf8_lossy(&text)
                    );
                } else {
                    assert_eq!(can.len(), 1);
                    assert!(expected.contains(&can[0]));
                }
                states += 1;
                // Half of the walks prefer bytes of characters of several.
                let wide: Vec<u32> = (can.iter().copied())
                    .filter(|&id| bytes[id as usize].as_ref().is_some_and(|b| b[0] >= 0x80))
                    .collect();
                let from = if walk % 2 == 0 && !wide.is_empty() {
                    &wide
                } else {
                    &can
                };
                let u = uniform(&[9; 32], walk * 1000 + step);
                let id = from[(u * from.len() as f64) as usize];
                matcher.take(id).unwrap();
                match &bytes[id as usize] {
                    Some(token) => text.extend(token),
                    None => break,
                }
            }
            assert_eq!(
                fits(&text, count, most_chars, vocabulary.leads()),
                Fits::Whole
            );
        }
        assert!(states > 400, "{states}");
    }
}

/// Logits that like some tokens better than an ordinary model would.
fn perverse(like: usize, bytes: &[Option<Vec<u8>>], u: f64) -> Vec<f32> {
    let mut state = (u * 1e15) as u64;
    let mut noise = || {
        // Constants of Knuth's MMIX.
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u64 << 24) as f32 * 4.0
    };
    let liked = |token: Option<&[u8]>| match (like, token) {
        (1, Some(token)) => token.contains(&b'"'),
        (2, Some(token)) => token.contains(&b'\\'),
        (3, Some(token)) => token.iter().all(u8::is_ascii_whitespace),
        (4, None) => true,
        (5, Some(token)) => token.len() == 1,
        (6, Some(token)) => token.iter().any(|&b| b >= 0x80),
        (7, Some(token)) => token.iter().all(|&b| b >= 0xF0),
        (8, Some(token)) => token.iter().any(|b| b"{}[],:".contains(b)),
        (9, Some(token)) => token.iter().any(u8::is_ascii_control),
        _ => false,
    };
    (0..bytes.len())
        .map(|id| {
            noise()
                + if liked(bytes[id].as_deref()) {
                    20.0
                } else {
                    0.0
                }
        })
        .collect()
}

#[test]
fn any_logits_give_a_valid_answer_within_the_bound() {
    for name in ["mistral", "llama"] {
        let tokenizer = tokenizer(name);
        let (bytes, eos) = tokens(&tokenizer);
        let vocabulary = vocabulary(&tokenizer);
        for (count, most_chars) in [(1, 1), (3, 12), (11, 3)] {
            let grammar = Grammar::attributes(&vocabulary, count, most_chars).unwrap();
            let sampling = Sampling {
                temperature: 1.0,
                ..Sampling::default()
            };
            for run in 0..400u64 {
                let key = *blake3::hash(&run.to_le_bytes()).as_bytes();
                let mut matcher = grammar.start().unwrap();
                let mut ids = Vec::new();
                loop {
                    let u = uniform(&key, ids.len() as u64);
                    let mut logits = perverse(run as usize % 10, &bytes, u);
                    matcher.mask(&mut logits).unwrap();
                    let id = draw(&logits, &sampling, u);
                    matcher.take(id).unwrap();
                    if id == eos {
                        break;
                    }
                    ids.push(id);
                    assert!(ids.len() <= grammar.most_tokens().unwrap(), "{name}");
                }
                assert!(matcher.finished());
                let text = tokenizer.decode(&ids).unwrap();
                let Parsed::Valid(attributes) = parse(&text, count) else {
                    panic!("{name}: {text}");
                };
                assert!(attributes.iter().all(|a| a.chars().count() <= most_chars));
                let whole: Vec<u8> = ids
                    .iter()
                    .flat_map(|&id| bytes[id as usize].clone().unwrap())
                    .collect();
                let whole = String::from_utf8(whole).unwrap();
                assert_eq!(whole.strip_prefix(' ').unwrap_or(&whole), text);
                assert!(!text.contains('\u{FFFD}'), "{text}");
            }
        }
    }
}

/// An answer with logits that depend on the position alone.
fn run(grammar: &Grammar, run: u64, jump: bool) -> (Vec<u32>, usize) {
    let key = *blake3::hash(&run.to_le_bytes()).as_bytes();
    let sampling = Sampling {
        temperature: 1.0,
        ..Sampling::default()
    };
    let mut matcher = grammar.start().unwrap();
    let (mut ids, mut drawn) = (Vec::new(), 0);
    loop {
        if jump {
            ids.extend(matcher.forced().unwrap());
            assert!(matcher.forced().unwrap().is_empty());
        }
        if matcher.finished() {
            return (ids, drawn);
        }
        let at = ids.len() as u64;
        let logits = 0..grammar.vocabulary.tokens() as u64;
        let mut logits: Vec<f32> = logits
            .map(|id| uniform(&key, at * 1000 + id) as f32)
            .collect();
        matcher.mask(&mut logits).unwrap();
        let id = draw(&logits, &sampling, uniform(&key, u64::MAX - at));
        drawn += 1;
        matcher.take(id).unwrap();
        ids.push(id);
    }
}

#[test]
fn jumping_over_forced_tokens_changes_nothing_but_the_number_of_draws() {
    for name in ["mistral", "llama"] {
        let grammar = Grammar::attributes(&vocabulary(&tokenizer(name)), 3, 6).unwrap();
        for seed in 0..100 {
            let (stepped, all) = run(&grammar, seed, false);
            let (jumped, drawn) = run(&grammar, seed, true);
            assert_eq!(stepped, jumped);
            assert_eq!(all, stepped.len());
            assert!(drawn < all, "{drawn} of {all}");
        }
    }
}

#[test]
fn the_tokens_that_the_tokenizer_makes_of_an_answer_are_allowed_and_forced() {
    let text = r#"{"feature1": "two wings", "feature2": "é — 日本", "feature3": "long"}"#;
    for (name, fewest) in [("mistral", 30), ("llama", 13)] {
        let tokenizer = tokenizer(name);
        let grammar = Grammar::attributes(&vocabulary(&tokenizer), 3, 40).unwrap();
        let ids = tokenizer.encode(text).unwrap();
        let mut matcher = grammar.start().unwrap();
        let mut forced = 0;
        for (at, &id) in ids.iter().enumerate() {
            forced += usize::from(!matcher.ahead.is_empty());
            matcher.take(id).unwrap_or_else(|error| {
                panic!(
                    "{name} at {:?}: {error:#}",
                    tokenizer.decode(&ids[..=at]).unwrap()
                )
            });
        }
        assert!(matcher.finished());
        assert!(forced >= fewest, "{name}: {forced} of {}", ids.len());
    }
}
