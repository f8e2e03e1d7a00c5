//! CLIP's tokenizer: byte-level BPE over cleaned, lower-case text.
//!
//! The reference is `open_clip`'s `SimpleTokenizer` (after openai/CLIP,
//! `simple_tokenizer.py`). The merges are `OpenAI`'s published file; see
//! `merges/LICENSE`.

use std::{collections::HashMap, io::Read, sync::OnceLock};

use anyhow::{Context, Result, ensure};
use flate2::read::GzDecoder;
use regex::Regex;

use super::clean::clean;

/// Starts every text.
pub const START: u32 = 49_406;
/// Ends every text; the largest token, so that `argmax` finds it.
pub const END: u32 = 49_407;

const MERGES_GZ: &[u8] = include_bytes!("merges/bpe_simple_vocab_16e6.txt.gz");
/// Merges used of the file; the rest were for a larger vocabulary.
const MERGES: usize = 48_894;

/// One token a match: contractions, words, single digits, runs of the rest.
const PATTERN: &str = concat!(
    "(?i)<start_of_text>|<end_of_text>|'s|'t|'re|'ve|'m|'ll|'d",
    r"|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
);

/// A text as tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// Start, text, end; not padded, at most the context's length.
    pub ids: Vec<u32>,
    /// Whether tokens were cut off to fit.
    pub truncated: bool,
    /// Whether the reference might have cleaned the text further; see
    /// [`clean`](super::clean::clean).
    pub uncertain: bool,
}

impl Tokens {
    /// The position of the text's end: the first [`END`].
    pub fn end(&self) -> usize {
        let found = self.ids.iter().position(|&id| id == END);
        found.unwrap_or(self.ids.len().saturating_sub(1))
    }
}

/// CLIP's vocabulary and merges.
#[derive(Debug)]
pub struct Tokenizer {
    pattern: Regex,
    /// Token of each byte inside a word; 256 more when it ends the word.
    bytes: [u32; 256],
    /// What two neighbours merge into; smaller results merge first.
    merges: HashMap<(u32, u32), u32>,
}

impl Tokenizer {
    /// The one tokenizer of the process, built on first use.
    ///
    /// # Errors
    /// Never with the merges that are built in.
    pub fn shared() -> Result<&'static Self> {
        static SHARED: OnceLock<Result<Tokenizer>> = OnceLock::new();
        let shared = SHARED.get_or_init(Self::new).as_ref();
        shared.map_err(|error| anyhow::anyhow!("{error:#}"))
    }

    fn new() -> Result<Self> {
        let mut file = String::new();
        GzDecoder::new(MERGES_GZ).read_to_string(&mut file)?;
        let bytes = byte_tokens();
        let mut tokens: HashMap<String, u32> = HashMap::new();
        for (character, token) in byte_characters().into_iter().zip(bytes) {
            tokens.insert(character.to_string(), token);
            tokens.insert(format!("{character}</w>"), token + 256);
        }
        let mut merges = HashMap::new();
        for (line, token) in file.lines().skip(1).take(MERGES).zip(512..) {
            let (left, right) = line.split_once(' ').context("a merge is no pair")?;
            let id = |part| {
                tokens
                    .get(part)
                    .copied()
                    .context("a merge of unknown tokens")
            };
            merges.insert((id(left)?, id(right)?), token);
            tokens.insert(format!("{left}{right}"), token);
        }
        ensure!(tokens.len() == START as usize, "{} tokens", tokens.len());
        let pattern = Regex::new(PATTERN)?;
        Ok(Self {
            pattern,
            bytes,
            merges,
        })
    }

    /// The tokens of `text`, cut to `context` with the last one [`END`].
    pub fn tokenize(&self, text: &str, context: usize) -> Tokens {
        let cleaned = clean(text);
        let mut ids = vec![START];
        let mut truncated = false;
        for word in self.pattern.find_iter(&cleaned.text) {
            // The rest of a long text would be cut off anyway.
            if ids.len() >= context {
                truncated = true;
                break;
            }
            self.encode_word(word.as_str(), &mut ids);
        }
        ids.push(END);
        if ids.len() > context {
            truncated = true;
            ids.truncate(context);
            if let Some(last) = ids.last_mut() {
                *last = END;
            }
        }
        Tokens {
            ids,
            truncated,
            uncertain: cleaned.uncertain,
        }
    }

    /// Appends the tokens of one match of the pattern.
    fn encode_word(&self, word: &str, ids: &mut Vec<u32>) {
        match word {
            "<start_of_text>" => return ids.push(START),
            "<end_of_text>" => return ids.push(END),
            _ => {}
        }
        let mut parts: Vec<u32> = word.bytes().map(|b| self.bytes[usize::from(b)]).collect();
        if let Some(last) = parts.last_mut() {
            *last += 256;
        }
        loop {
            let best = (parts.windows(2))
                .filter_map(|pair| {
                    Some((self.merges.get(&(pair[0], pair[1]))?, (pair[0], pair[1])))
                })
                .min();
            let Some((&token, pair)) = best else { break };
            let mut merged = Vec::with_capacity(parts.len());
            let mut i = 0;
            while i < parts.len() {
                if parts.get(i..i + 2) == Some(&[pair.0, pair.1]) {
                    merged.push(token);
                    i += 2;
                } else {
                    merged.push(parts[i]);
                    i += 1;
                }
            }
            parts = merged;
        }
        ids.append(&mut parts);
    }
}

/// Whether a byte stands for itself among GPT-2's printable characters.
fn is_printable(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff)
}

/// GPT-2's printable character for each byte: those that print stand for
/// themselves, the others follow from U+0100 on.
fn byte_characters() -> [char; 256] {
    let mut others = '\u{100}'..='\u{200}';
    std::array::from_fn(|byte| {
        let byte = byte as u8;
        let other = if is_printable(byte) {
            None
        } else {
            others.next()
        };
        other.unwrap_or(char::from(byte))
    })
}

/// The token of each byte: printable bytes first, then the others.
fn byte_tokens() -> [u32; 256] {
    let printable = (0..=255).filter(|&b| is_printable(b));
    let others = (0..=255).filter(|&b| !is_printable(b));
    let mut tokens = [0; 256];
    for (token, byte) in (0..).zip(printable.chain(others)) {
        tokens[usize::from(byte)] = token;
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(text: &str) -> Vec<u32> {
        Tokenizer::shared().unwrap().tokenize(text, 77).ids
    }

    #[test]
    fn published_tokens_are_met() {
        for (text, expected) in [
            ("a diagram", &[320, 22697][..]),
            ("a cat", &[320, 2368]),
            ("airplane", &[16451]),
            ("a photo of a airplane", &[320, 1125, 539, 320, 16451]),
            ("a photo of a airplane.", &[320, 1125, 539, 320, 16451, 269]),
            (
                "This is a photo of a airplane because of long",
                &[589, 533, 320, 1125, 539, 320, 16451, 1631, 539, 1538],
            ),
            (
                "a photo of a airplane because of long and tail-finned",
                &[
                    320, 1125, 539, 320, 16451, 1631, 539, 1538, 537, 4132, 268, 735, 1369,
                ],
            ),
            (
                "a photo of a cat because of fur_color and whiskers_length and ear_shape",
                &[
                    320, 1125, 539, 320, 2368, 1631, 539, 9686, 318, 3140, 537, 6024, 2880, 318,
                    10130, 537, 8373, 318, 6448,
                ],
            ),
            ("You should've done this", &[592, 1535, 1200, 1700, 589]),
            ("", &[]),
            ("<end_of_text>", &[END]),
        ] {
            let mut whole = vec![START];
            whole.extend(expected);
            whole.push(END);
            assert_eq!(ids(text), whole, "{text}");
        }
    }

    #[test]
    fn long_text_is_cut_with_the_end_kept() {
        let tokens = Tokenizer::shared()
            .unwrap()
            .tokenize(&"cat ".repeat(76), 77);
        assert!(tokens.truncated);
        assert_eq!(tokens.ids.len(), 77);
        assert_eq!(tokens.ids[75..], [2368, END]);
        let fits = Tokenizer::shared()
            .unwrap()
            .tokenize(&"cat ".repeat(75), 77);
        assert!(!fits.truncated);
        assert_eq!(fits.ids, tokens.ids);
    }

    #[test]
    fn an_end_inside_the_text_is_its_end() {
        let tokens = Tokenizer::shared()
            .unwrap()
            .tokenize("a <end_of_text> cat", 77);
        assert_eq!(tokens.end(), 2);
    }
}
