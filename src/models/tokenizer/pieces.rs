//! A `SentencePiece` file as the tokenizer of a Hugging Face folder.
//!
//! Beside the file, `tokenizer_config.json` (`legacy`, `add_prefix_space`,
//! `added_tokens_decoder`) and `added_tokens.json` say how special tokens are
//! told from text. The reference is transformers' `LlamaTokenizer` with its
//! `SentencePiece` backend: a text is cut at its special tokens, and every stretch
//! between them is encoded by `SentencePiece`.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use anyhow::{Result, ensure};
use serde::Deserialize;

use super::{
    MOST_TEXT, Placed, SpecialNames,
    finder::{Finder, Found},
    read_json,
    sentencepiece::Model,
};

/// The largest id of an added token.
const LARGEST_ID: u32 = 1 << 24;
/// The longest normalised text, in bytes.
const MOST_EXPANDED: usize = 64 << 20;

/// A `SentencePiece` model and the tokens that a folder adds to it.
pub(super) struct Pieces {
    model: Model,
    added: BTreeMap<u32, Added>,
    /// Control pieces and added tokens.
    finder: Finder,
    /// Those that no text may become.
    special: Finder,
    /// Whether every stretch of text gets a space before it, or only the first.
    legacy: bool,
    add_prefix_space: bool,
}

/// A token that `tokenizer_config.json` or `added_tokens.json` adds.
#[derive(Clone, Debug, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "the fields of the file")]
struct Added {
    content: String,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    special: bool,
}

/// The fields of `tokenizer_config.json` in use.
#[derive(Default, Deserialize)]
struct Config {
    #[serde(default)]
    legacy: Option<bool>,
    #[serde(default)]
    add_prefix_space: Option<bool>,
    #[serde(default)]
    added_tokens_decoder: Option<BTreeMap<u32, Added>>,
}

impl Pieces {
    /// Reads a `.model` file's bytes and what lies beside it in `folder`.
    pub(super) fn read(bytes: &[u8], folder: &Path) -> Result<Self> {
        let model = Model::read(bytes)?;
        let config = read_json::<Config>(&folder.join("tokenizer_config.json"))?;
        let config = config.unwrap_or_default();
        let added = match config.added_tokens_decoder {
            Some(added) => added,
            None => added_tokens(folder)?,
        };
        let mut texts = model.controls();
        let mut special = texts.clone();
        let mut kept = BTreeMap::new();
        for (id, token) in added {
            ensure!(
                id <= LARGEST_ID,
                "the added token `{}` has the id {id}, where {LARGEST_ID} is the largest allowed",
                token.content
            );
            // The unknown piece is no token that text is searched for.
            if token.content.is_empty() || id == model.unknown_id() {
                continue;
            }
            // The folder may give a piece another name.
            texts.retain(|_, old| *old != id);
            special.retain(|_, old| *old != id);
            let other = texts.insert(token.content.clone(), id).or_else(|| {
                let known = model.id(&token.content);
                known.filter(|known| *known != id)
            });
            ensure!(
                other.is_none(),
                "the added token `{}` has the id {id}, but also {}",
                token.content,
                other.unwrap_or_default()
            );
            if token.special {
                special.insert(token.content.clone(), id);
            }
            kept.insert(id, token);
        }
        Ok(Self {
            finder: Finder::new(texts)?,
            special: Finder::new(special)?,
            added: kept,
            legacy: config.legacy.unwrap_or(true),
            add_prefix_space: config.add_prefix_space.unwrap_or(true),
            model,
        })
    }

    pub(super) fn names(&self) -> &SpecialNames {
        self.model.names()
    }

    pub(super) fn largest_id(&self) -> u32 {
        let pieces = (self.model.len() as u32).saturating_sub(1);
        let added = self.added.keys().next_back().copied();
        added.map_or(pieces, |added| added.max(pieces))
    }

    pub(super) fn id(&self, token: &str) -> Option<u32> {
        self.finder.id(token).or_else(|| {
            let id = self.model.id(token);
            id.filter(|id| !self.added.contains_key(id))
        })
    }

    /// Encodes a text in which special tokens are recognised but where `plain`
    /// says that they start as text. Tokens of text are placed where their
    /// stretch is.
    pub(super) fn encode(&self, text: &str, plain: &BTreeSet<usize>) -> Result<Vec<Placed>> {
        let most = (MOST_EXPANDED / self.model.expansion()).min(MOST_TEXT);
        ensure!(
            text.len() <= most,
            "a text of {} bytes is longer than the {most} that its normalizer allows",
            text.len()
        );
        let mut tokens = Vec::new();
        let mut done = 0;
        let mut from = 0;
        while let Some(found) = self.finder.next(text, from) {
            let skip = plain.contains(&found.start) || !self.stands_alone(text, found);
            if skip {
                let rest = text.get(found.start..).unwrap_or_default();
                from = found.start + rest.chars().next().map_or(1, char::len_utf8);
                continue;
            }
            let (start, end) = self.widened(text, found, done);
            self.stretch(text, done, start, &mut tokens);
            tokens.push(Placed {
                id: found.id,
                start: found.start,
                end: found.end,
            });
            (done, from) = (end, end);
        }
        self.stretch(text, done, text.len(), &mut tokens);
        Ok(tokens)
    }

    fn stretch(&self, text: &str, start: usize, end: usize, tokens: &mut Vec<Placed>) {
        let part = text.get(start..end).unwrap_or_default();
        if !part.is_empty() {
            let prefix = self.add_prefix_space && (self.legacy || start == 0);
            let ids = self.model.encode(part, prefix).into_iter();
            tokens.extend(ids.map(|id| Placed { id, start, end }));
        }
    }

    /// Whether a token that must not be a part of a word is none.
    fn stands_alone(&self, text: &str, found: Found) -> bool {
        let word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        let alone = self.added.get(&found.id).is_some_and(|t| t.single_word);
        let before = text.get(..found.start).and_then(|t| t.chars().next_back());
        let after = text.get(found.end..).and_then(|t| t.chars().next());
        !alone || !(word(before) || word(after))
    }

    /// Where a token starts and ends with the white space that it takes in.
    fn widened(&self, text: &str, found: Found, done: usize) -> (usize, usize) {
        let (mut start, mut end) = (found.start, found.end);
        if let Some(token) = self.added.get(&found.id) {
            if token.lstrip {
                let before = text.get(done..start).unwrap_or_default();
                start = done + before.trim_end().len();
            }
            if token.rstrip {
                let after = text.get(end..).unwrap_or_default();
                end = text.len() - after.trim_start().len();
            }
        }
        (start, end)
    }

    /// The text of ids, without special tokens and ids that are not in use.
    pub(super) fn decode(&self, ids: &[u32]) -> String {
        let mut text = Vec::new();
        let mut stripped = !(self.add_prefix_space && self.model.adds_space());
        for &id in ids {
            let Some(bytes) = self.token_bytes(id) else {
                continue;
            };
            // Spaces that encoding put before the text, or that it takes away there.
            let first = text.is_empty() && (!stripped || self.model.squeezes_spaces());
            let piece = !self.model.is_byte(id) && !self.added.contains_key(&id);
            let rest = bytes.strip_prefix(b" ").filter(|_| first && piece);
            stripped |= rest.is_some();
            text.extend_from_slice(rest.unwrap_or(&bytes));
        }
        lossy(&text)
    }

    /// See [`super::Tokenizer::token_bytes`].
    pub(super) fn token_bytes(&self, id: u32) -> Option<Vec<u8>> {
        match self.added.get(&id) {
            Some(token) if token.special => None,
            Some(token) => Some(token.content.clone().into_bytes()),
            None => self.model.token_bytes(id),
        }
    }

    /// See [`super::Tokenizer::is_special`].
    pub(super) fn is_special(&self, id: u32) -> bool {
        match self.added.get(&id) {
            Some(token) => token.special,
            None => self.model.is_control(id),
        }
    }

    /// See [`super::Tokenizer::special_starts`].
    pub(super) fn special_starts(&self, text: &str) -> BTreeSet<usize> {
        self.special.starts(text)
    }
}

/// The tokens of `added_tokens.json`, which older folders have. All of them are
/// taken for special ones: such a file does not tell.
fn added_tokens(folder: &Path) -> Result<BTreeMap<u32, Added>> {
    let path = folder.join("added_tokens.json");
    let ids: BTreeMap<String, u32> = read_json(&path)?.unwrap_or_default();
    let mut added = BTreeMap::new();
    for (content, id) in ids {
        let token = Added {
            content,
            lstrip: false,
            rstrip: false,
            single_word: false,
            special: true,
        };
        let other = added.insert(id, token);
        ensure!(
            other.is_none(),
            "`{}` has two tokens of the id {id}",
            path.display()
        );
    }
    Ok(added)
}

/// Text of bytes; each byte that is no part of a character becomes U+FFFD, as in
/// `SentencePiece`.
fn lossy(mut bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    loop {
        match std::str::from_utf8(bytes) {
            Ok(rest) => {
                text.push_str(rest);
                return text;
            }
            Err(error) => {
                let (valid, rest) = bytes.split_at(error.valid_up_to());
                text.push_str(&String::from_utf8_lossy(valid));
                text.push('\u{FFFD}');
                bytes = rest.get(1..).unwrap_or_default();
            }
        }
    }
}
