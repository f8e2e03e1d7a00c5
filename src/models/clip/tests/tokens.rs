//! Equality with the reference tokenizers, string by string and on 100,000
//! generated strings.
//!
//! `tests/fixtures/clip/tokens.py` has the same generator and wrote the
//! checksums; `python tokens.py BLOCK` shows what the references make of a block.

use std::{collections::BTreeMap, path::Path};

use flate2::Crc;
use html_escape::NAMED_ENTITIES;
use rayon::prelude::*;
use serde_json::{Value, json};
use unicode_normalization::UnicodeNormalization;

use super::fixture;
use crate::models::clip::{
    clean::{clean, codepages::PAGES},
    tokenizer::{Dialect, END, START, Tokenizer, TooLong, byte_characters},
};

const STRINGS: usize = 100_000;
const BLOCK: usize = 50;
const CONTEXT: usize = 77;
/// Every how many blocks are compared: all, unless the code is not optimized.
const STEP: usize = if cfg!(debug_assertions) { 20 } else { 1 };

#[derive(serde::Deserialize)]
struct Lists {
    words: Vec<String>,
    spaces: Vec<String>,
    controls: Vec<String>,
    letters: Vec<String>,
    marks: Vec<String>,
    emoji: Vec<String>,
    joins: Vec<String>,
    suspects: Vec<String>,
    ranges: Vec<(u32, u32)>,
    endings: Vec<String>,
    numbers: Vec<String>,
}

fn read(name: &str) -> Vec<u8> {
    let root = env!("CARGO_MANIFEST_DIR");
    fs_err::read(format!("{root}/tests/fixtures/clip/{name}")).unwrap()
}

impl Lists {
    fn read() -> Self {
        serde_json::from_slice(&read("tokens_words.json")).unwrap()
    }
}

/// The generator of `tokens.py`, line by line.
struct Generator<'a> {
    state: u64,
    lists: &'a Lists,
}

impl<'a> Generator<'a> {
    /// `SplitMix64` (Steele et al. 2014).
    fn below(&mut self, n: usize) -> usize {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut x = self.state;
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((x ^ (x >> 31)) >> 32) as usize % n
    }

    fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }

    fn one(&mut self, list: &'a [String]) -> &'a str {
        &list[self.below(list.len())]
    }

    fn words(&mut self) -> String {
        let mut text = String::new();
        for _ in 0..self.pick(&[1, 2, 3, 5, 8, 30]) {
            text += self.one(&self.lists.words);
            text += self.one(&self.lists.spaces);
        }
        text
    }

    fn ascii_characters(&mut self) -> String {
        (0..=self.below(40))
            .map(|_| char::from(self.below(128) as u8))
            .collect()
    }

    fn character(&mut self) -> u32 {
        let (low, high) = self.pick(&self.lists.ranges);
        low + self.below((high - low + 1) as usize) as u32
    }

    fn characters(&mut self) -> String {
        (0..=self.below(12))
            .map(|_| char::from_u32(self.character()).unwrap())
            .collect()
    }

    fn wrongly_decoded(&mut self) -> String {
        let mut text = String::new();
        for _ in 0..=self.below(4) {
            text += self.one(&self.lists.words);
            text += self.pick(&["", " "]);
        }
        for _ in 0..self.pick(&[1, 1, 1, 2, 2, 3]) {
            let page = self.pick(&[0, 1, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
            text = decode(&text, page);
            match self.below(8) {
                0 | 1 => text = text.replace('\u{a0}', " "),
                2 => text = text.replace(|c| matches!(c, '\u{80}'..='\u{9f}'), "\u{fffd}"),
                3 => {
                    let lost = |c: char| !c.is_ascii() && self.below(12) == 0;
                    text = text.replace(lost, "?");
                }
                4 => text.retain(|_| self.below(20) != 0),
                _ => {}
            }
        }
        let before = format!("{} ", self.one(&self.lists.words));
        self.pick(&["", "", "", &before]).to_owned() + &text
    }

    fn name(&mut self) -> &'static str {
        let (name, _) = NAMED_ENTITIES[self.below(NAMED_ENTITIES.len())];
        std::str::from_utf8(name).unwrap()
    }

    fn references(&mut self) -> String {
        let mut text = String::new();
        for _ in 0..=self.below(5) {
            let form = self.below(8);
            let name = match form {
                0..=2 => self.name().to_owned(),
                3 => self.name().to_uppercase(),
                4 => "amp;".repeat(self.below(4)) + self.name(),
                _ => {
                    let character = self.character().to_string();
                    let number = match form {
                        5 => self.one(&self.lists.numbers),
                        _ => &character,
                    };
                    match form {
                        6 => {
                            let number: u128 = number.parse().unwrap();
                            format!("{}{number:x}", self.pick(&["#x", "#X"]))
                        }
                        _ => format!("#{number}"),
                    }
                }
            };
            text += "&";
            text += &name;
            text += self.one(&self.lists.endings);
        }
        text
    }

    fn accents(&mut self) -> String {
        let mut text = String::new();
        for _ in 0..=self.below(5) {
            if self.below(2) == 0 {
                text.extend(self.one(&self.lists.words).nfd());
            } else {
                text += self.one(&self.lists.letters);
            }
            for _ in 0..self.below(4) {
                text += self.one(&self.lists.marks);
            }
        }
        text
    }

    fn pairs(&mut self, first: &'a [String], second: &'a [String]) -> String {
        (0..=self.below(6))
            .map(|_| self.one(first).to_owned() + self.one(second))
            .collect()
    }

    fn part(&mut self) -> String {
        let lists = self.lists;
        match self.below(12) {
            0 | 1 => self.words(),
            2 => self.ascii_characters(),
            3 => self.characters(),
            4 | 5 => self.wrongly_decoded(),
            6 => self.references(),
            7 => self.accents(),
            8 => self.pairs(&lists.emoji, &lists.joins),
            9 => self.pairs(&lists.words, &lists.controls),
            _ => (0..2 + self.below(7))
                .map(|_| self.one(&lists.suspects))
                .collect(),
        }
    }
}

/// The bytes of `text` in UTF-8, read in a code page.
fn decode(text: &str, page: usize) -> String {
    let read = |byte: u8| match byte {
        // Python's other pages keep this control character.
        0x1a if (1..=6).contains(&page) => '\u{fffd}',
        0..=0x7f => char::from(byte),
        _ => PAGES[page].high[usize::from(byte) - 0x80],
    };
    text.bytes().map(read).collect()
}

fn string(lists: &Lists, i: usize) -> String {
    let state = (i as u64)
        .wrapping_mul(0xD134_2543_DE82_EF95)
        .wrapping_add(0x2545_F491_4F6C_DD1D);
    let mut generator = Generator { state, lists };
    let parts = generator.pick(&[1, 1, 1, 2, 3]);
    (0..parts)
        .map(|_| generator.part() + generator.pick(&["", " "]))
        .collect()
}

fn block(lists: &Lists, block: usize) -> Vec<String> {
    let strings = block * BLOCK..(block + 1) * BLOCK;
    strings.map(|i| string(lists, i)).collect()
}

/// The texts that the references agree on, whatever their versions.
fn sure(texts: &[String]) -> Vec<&str> {
    let sure = |text: &&String| clean(text).unsure.is_none();
    texts.iter().filter(sure).map(String::as_str).collect()
}

/// The checksum of the tokens of every text, as `tokens.py` computes it.
fn crc(tokenizer: &Tokenizer, texts: &[&str]) -> u32 {
    let mut crc = Crc::new();
    for text in texts {
        for id in tokenizer.tokenize(text, CONTEXT).unwrap().ids {
            crc.update(&id.to_le_bytes());
        }
    }
    crc.sum()
}

/// The lines of the fixture: for each block the checksums.
fn checksums() -> Vec<Vec<u32>> {
    let lines = String::from_utf8(fixture("tokens_crc.txt.gz")).unwrap();
    (lines.lines())
        .map(|line| {
            (line.split(' '))
                .map(|sum| u32::from_str_radix(sum, 16).unwrap())
                .collect()
        })
        .collect()
}

#[test]
fn strings_are_tokenized_as_the_reference_does() {
    let tokenizer = Tokenizer::shared().unwrap();
    let lines = String::from_utf8(fixture("tokens.jsonl.gz")).unwrap();
    let mut wrong = Vec::new();
    for line in lines.lines() {
        let (text, ids): (String, Vec<u32>) = serde_json::from_str(line).unwrap();
        let tokens = tokenizer.tokenize(&text, CONTEXT).unwrap();
        assert_eq!(tokens.unsure, None, "{text:?}");
        if tokens.ids != ids {
            wrong.push((text, tokens.ids, ids));
        }
    }
    assert_eq!(lines.lines().count(), 2000);
    assert!(
        wrong.is_empty(),
        "{} differ, first: {:?}",
        wrong.len(),
        &wrong[..wrong.len().min(12)]
    );
}

#[test]
fn a_hundred_thousand_strings_are_tokenized_as_the_references_do() {
    let lists = Lists::read();
    let expected = checksums();
    assert_eq!(expected.len(), STRINGS / BLOCK);
    let open_clip = Tokenizer::shared().unwrap();
    let openai = Tokenizer::new(Dialect::OpenAi, TooLong::Cut).unwrap();
    let wrong: Vec<(usize, [bool; 3])> = (expected.par_iter().enumerate().step_by(STEP))
        .filter_map(|(i, expected)| {
            let texts = block(&lists, i);
            let mut cleaned = Crc::new();
            let mut sure = Vec::new();
            for text in &texts {
                let clean = clean(text);
                if clean.unsure.is_none() {
                    sure.push(text.as_str());
                    cleaned.update(clean.text.as_bytes());
                } else {
                    cleaned.update(b"?");
                }
                cleaned.update(b"\n");
            }
            let sums = [cleaned.sum(), crc(open_clip, &sure), crc(&openai, &sure)];
            let right = std::array::from_fn(|i| sums[i] == expected[i]);
            (right != [true; 3]).then_some((i, right))
        })
        .collect();
    assert!(
        wrong.is_empty(),
        "{} blocks differ (cleaned, open_clip, OpenAI), first: {:?}",
        wrong.len(),
        &wrong[..wrong.len().min(8)]
    );
}

/// The `tokenizer.json` that `transformers` writes for the published merges.
fn tokenizer_json() -> Value {
    let mut file: Value = serde_json::from_slice(&read("tokens_tokenizer.json")).unwrap();
    let root = env!("CARGO_MANIFEST_DIR");
    let path = format!("{root}/src/models/clip/merges/bpe_simple_vocab_16e6.txt.gz");
    let published = fs_err::File::open(path).unwrap();
    let published = std::io::read_to_string(flate2::read::GzDecoder::new(published)).unwrap();
    let merges: Vec<(&str, &str)> = (published.lines().skip(1).take(48_894))
        .map(|line| line.split_once(' ').unwrap())
        .collect();
    let mut bytes = byte_characters();
    // Those that print stand for themselves and come first.
    bytes.sort_unstable();
    let merged = (merges.iter()).map(|(left, right)| format!("{left}{right}"));
    let vocabulary: BTreeMap<String, u32> = (bytes.iter().map(char::to_string))
        .chain(bytes.iter().map(|c| format!("{c}</w>")))
        .chain(merged)
        .chain(Dialect::OpenAi.special().map(str::to_owned))
        .zip(0..)
        .collect();
    file["model"]["vocab"] = json!(vocabulary);
    file["model"]["merges"] = json!(merges);
    file
}

/// Opens a changed `tokenizer.json`.
fn open(file: &Value) -> anyhow::Result<Tokenizer> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    fs_err::write(&path, file.to_string()).unwrap();
    Tokenizer::open(&path, TooLong::Cut)
}

#[test]
fn a_folders_tokenizer_is_read_as_transformers_does() {
    let lists = Lists::read();
    let tokenizer = open(&tokenizer_json()).unwrap();
    let expected: Vec<u32> = (checksums().iter())
        .filter_map(|sums| sums.get(3).copied())
        .collect();
    assert_eq!(expected.len(), 100);
    let wrong: Vec<usize> = (0..expected.len())
        .into_par_iter()
        .step_by(STEP)
        .filter(|&i| crc(&tokenizer, &sure(&block(&lists, i))) != expected[i])
        .collect();
    assert!(wrong.is_empty(), "blocks {wrong:?} differ");
    // Plain text comes out as from the built-in one.
    let ids = |tokenizer: &Tokenizer, text| tokenizer.tokenize(text, CONTEXT).unwrap().ids;
    let open_clip = Tokenizer::shared().unwrap();
    let long = "cat ".repeat(90);
    for text in ["", "a photo of a cat.", "it's 3.14", "CAFÉ", &long] {
        assert_eq!(ids(&tokenizer, text), ids(open_clip, text), "{text}");
    }
    assert_eq!(ids(&tokenizer, "<|endoftext|>"), [START, END, END]);
}

#[test]
fn merges_may_be_written_in_the_old_way() {
    let mut file = tokenizer_json();
    let merges = file["model"]["merges"].as_array().unwrap();
    let joined = |merge: &Value| {
        let part = |i: usize| merge[i].as_str().unwrap();
        json!(format!("{} {}", part(0), part(1)))
    };
    file["model"]["merges"] = merges.iter().map(joined).collect();
    let tokens = open(&file).unwrap().tokenize("a cat", CONTEXT).unwrap();
    assert_eq!(tokens.ids, [START, 320, 2368, END]);
}

#[test]
fn a_tokenizer_that_is_not_clips_is_refused_by_name() {
    let refusal = |change: &dyn Fn(&mut Value)| {
        let mut file = tokenizer_json();
        change(&mut file);
        open(&file).unwrap_err().to_string()
    };
    let larger = refusal(&|file| file["model"]["vocab"]["more"] = json!(49_408));
    assert!(
        larger.contains("tokenizer.json") && larger.contains("49409 tokens, CLIP has 49408"),
        "{larger}"
    );
    let swapped = refusal(&|file| {
        for (i, (name, id)) in [("<|startoftext|>", END), ("<|endoftext|>", START)]
            .iter()
            .enumerate()
        {
            file["model"]["vocab"][name] = json!(id);
            file["added_tokens"][i]["id"] = json!(id);
        }
    });
    assert!(
        swapped.contains("`<|startoftext|>` is token 49407, CLIP's is 49406"),
        "{swapped}"
    );
    let unnamed = refusal(&|file| {
        let vocabulary = file["model"]["vocab"].as_object_mut().unwrap();
        vocabulary.remove("<|startoftext|>");
        file["added_tokens"] = json!([]);
    });
    assert!(
        unnamed.contains("`<|startoftext|>` is missing"),
        "{unnamed}"
    );
    let absent = Tokenizer::open(Path::new("no/tokenizer.json"), TooLong::Cut).unwrap_err();
    assert!(
        format!("{absent:#}").contains("no/tokenizer.json"),
        "{absent:#}"
    );
}
