//! The tokens of a model as bytes, ready to be tested against a grammar.

use std::{collections::HashMap, fmt, sync::Arc};

use anyhow::{Context, Result, bail, ensure};
use llguidance::{
    ParserFactory,
    api::ParserLimits,
    toktrie::{InferenceCapabilities, TokEnv, TokRxInfo, TokTrie, TokenizerEnv},
};

/// The most tokens; the largest vocabularies in use have 262,144.
const MOST_TOKENS: usize = 1 << 20;
/// The most bytes of all tokens together: each may become a node of the trie,
/// which holds no more of them.
const MOST_BYTES: usize = (1 << 22) - 2;
/// Longer tokens, in bytes, are never offered; they are runs of spaces and dashes.
const LONGEST_TOKEN: usize = 512;
/// Runs of what stands in most values: the tokens that are in one of these are
/// tested together where they are all allowed (slices, as llguidance calls them).
const SLICES: [&str; 3] = [
    r#"[ [^"\\\p{Cc}\p{Z}]]{1,10}"#,
    r#"[ [^"\\\p{Cc}\p{Z}]]{1,30}"#,
    r#"[ [^"\\\p{Cc}\p{Z}]]+"#,
];

/// Splits a text into a model's tokens.
type Tokenize = Box<dyn Fn(&str) -> Result<Vec<u32>> + Send + Sync>;

/// What the tokens of a model are as bytes; built once per model.
///
/// Of several tokens of the same bytes one is offered: the one that the
/// tokenizer itself uses, which is never a byte-fallback token where a piece
/// exists. Tokens of more than 512 bytes are never offered. Where some byte that
/// continues a character has no token of its own, neither are tokens that end
/// within a character, so that every character can be finished.
pub struct Vocabulary {
    factory: ParserFactory,
    /// The token that is a byte alone, of each byte.
    single: Vec<Option<u32>>,
    /// Whether text at the start of an answer gets a space before it.
    leads: bool,
    tokens: usize,
    eos: Vec<u32>,
}

impl fmt::Debug for Vocabulary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vocabulary")
            .field("tokens", &self.tokens)
            .field("eos", &self.eos)
            .finish_non_exhaustive()
    }
}

impl Vocabulary {
    /// Takes the bytes of each token by its id, `None` for tokens that are no text
    /// (special, unknown, unused); the ids that end an answer; and the model's own
    /// tokenizer, which must add no special tokens.
    ///
    /// Costs about 0.1 s and 14 MB at 32,768 tokens, 0.4 s and 56 MB at 131,072.
    ///
    /// # Errors
    /// When there is nothing to end an answer with, when an id is out of range, or
    /// when the vocabulary is too large.
    pub fn new(
        mut tokens: Vec<Option<Vec<u8>>>,
        eos: &[u32],
        tokenize: impl Fn(&str) -> Result<Vec<u32>> + Send + Sync + 'static,
    ) -> Result<Self> {
        ensure!(
            tokens.len() <= MOST_TOKENS,
            "a vocabulary of {} tokens is larger than the {MOST_TOKENS} allowed",
            tokens.len()
        );
        ensure!(
            !eos.is_empty(),
            "the model has no token that ends an answer"
        );
        for &id in eos {
            let Some(token) = tokens.get_mut(id as usize) else {
                bail!(
                    "the end token {id} is not among the model's {}",
                    tokens.len()
                );
            };
            *token = None;
        }
        for token in &mut tokens {
            if (token.as_ref()).is_some_and(|bytes| !is_offered(bytes)) {
                *token = None;
            }
        }
        let single = single_bytes(&tokens);
        if !(0x80..=0xBF).all(|byte| single[byte].is_some()) {
            for token in &mut tokens {
                if (token.as_ref()).is_some_and(|bytes| ends_within_a_character(bytes)) {
                    *token = None;
                }
            }
        }
        let total: usize = tokens.iter().flatten().map(Vec::len).sum();
        ensure!(
            total <= MOST_BYTES,
            "tokens of {total} bytes in all are larger than the {MOST_BYTES} allowed"
        );
        let tokenizer = Tokenizer {
            tokens,
            tokenize: Box::new(tokenize),
        };
        let leads = tokenizer.leads().context("the tokenizer failed on `{`")?;
        let count = tokenizer.tokens.len();
        let env = tokenizer.env(eos);
        let capabilities = InferenceCapabilities {
            ff_tokens: true,
            ..InferenceCapabilities::default()
        };
        let mut factory = ParserFactory::new(&env, capabilities, &SLICES.map(str::to_owned))
            .context("failed to sort the tokens")?;
        factory.quiet();
        *factory.limits_mut() = ParserLimits {
            // About 1 kB each.
            max_lexer_states: 50_000,
            verbose_errors: false,
            ..ParserLimits::default()
        };
        Ok(Self {
            factory,
            single,
            leads,
            tokens: count,
            eos: eos.to_vec(),
        })
    }

    /// The number of ids, special ones included.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// The ids that end an answer.
    pub fn eos(&self) -> &[u32] {
        &self.eos
    }

    pub(super) fn factory(&self) -> &ParserFactory {
        &self.factory
    }

    /// Whether the tokenizer puts a space before a text, as `SentencePiece` does.
    pub(super) fn leads(&self) -> bool {
        self.leads
    }

    /// The first of these bytes that no token stands for alone.
    pub(super) fn lacks(&self, bytes: impl IntoIterator<Item = u8>) -> Option<u8> {
        (bytes.into_iter()).find(|&byte| self.byte(byte).is_none())
    }

    /// A token that is this byte alone.
    pub(super) fn byte(&self, byte: u8) -> Option<u32> {
        self.single[byte as usize]
    }
}

/// Whether a token can stand in UTF-8 text at all.
fn is_offered(bytes: &[u8]) -> bool {
    // The byte 0xFF is in no text; at the start of a token it would mark a
    // special one to llguidance.
    !bytes.is_empty() && bytes.len() <= LONGEST_TOKEN && !bytes.contains(&0xFF)
}

/// The last token that is a byte alone, of each byte.
fn single_bytes(tokens: &[Option<Vec<u8>>]) -> Vec<Option<u32>> {
    let mut single = vec![None; 256];
    for (id, token) in tokens.iter().enumerate() {
        if let Some(&[byte]) = token.as_deref() {
            single[byte as usize] = Some(id as u32);
        }
    }
    single
}

/// Whether more bytes must follow for the last character to be whole.
fn ends_within_a_character(bytes: &[u8]) -> bool {
    let tail = &bytes[bytes.len().saturating_sub(3)..];
    let needed = |byte: u8| match byte {
        0xC0..=0xDF => 2,
        0xE0..=0xEF => 3,
        0xF0..=0xFF => 4,
        _ => 1,
    };
    (tail.iter().rev().enumerate())
        .find(|(_, byte)| !matches!(byte, 0x80..=0xBF))
        .is_some_and(|(after, &byte)| after + 1 < needed(byte))
}

/// The tokenizer, with what its tokens are as bytes.
struct Tokenizer {
    tokens: Vec<Option<Vec<u8>>>,
    tokenize: Tokenize,
}

impl Tokenizer {
    /// Whether a text's first token starts with a space that the text has not.
    fn leads(&self) -> Result<bool> {
        let ids = (self.tokenize)("{")?;
        Ok(self.bytes(&ids).is_some_and(|bytes| bytes == b" {"))
    }

    fn bytes(&self, ids: &[u32]) -> Option<Vec<u8>> {
        let mut all = Vec::new();
        for &id in ids {
            all.extend_from_slice(self.tokens.get(id as usize)?.as_ref()?);
        }
        Some(all)
    }

    /// The tokens of a text within another text.
    fn within(&self, text: &str) -> Option<Vec<u32>> {
        let ids = (self.tokenize)(text).ok()?;
        if self.bytes(&ids)? == text.as_bytes() {
            return Some(ids);
        }
        // A tokenizer that puts a space before its text puts it before the line
        // break, which joins with nothing.
        let ids = (self.tokenize)(&format!("\n{text}")).ok()?;
        let mut bytes = Vec::new();
        for (index, &id) in ids.iter().enumerate().rev() {
            bytes.splice(..0, self.tokens.get(id as usize)?.as_ref()?.iter().copied());
            if bytes.len() >= text.len() {
                return (bytes == text.as_bytes()).then(|| ids[index..].to_vec());
            }
        }
        None
    }

    /// Leaves one token of those that are the same bytes.
    fn without_doubles(&self) -> Vec<Vec<u8>> {
        let mut ids_of: HashMap<&[u8], Vec<usize>> = HashMap::new();
        for (id, token) in self.tokens.iter().enumerate() {
            if let Some(bytes) = token {
                ids_of.entry(bytes).or_default().push(id);
            }
        }
        let mut words: Vec<Vec<u8>> = (self.tokens.iter())
            .map(|token| token.clone().unwrap_or_default())
            .collect();
        for (bytes, ids) in ids_of {
            let [.., last] = ids[..] else { continue };
            if ids.len() == 1 {
                continue;
            }
            let own = std::str::from_utf8(bytes)
                .ok()
                .and_then(|text| self.within(text));
            let kept = match own.as_deref() {
                Some(&[id]) => id as usize,
                _ => last,
            };
            for id in ids {
                if id != kept {
                    words[id].clear();
                }
            }
        }
        words
    }

    fn env(self, eos: &[u32]) -> TokEnv {
        let words = self.without_doubles();
        let first = eos.first().copied().unwrap_or_default();
        let info = TokRxInfo::new(words.len() as u32, first);
        let trie = TokTrie::from(&info, &words).with_eos_tokens(eos);
        Arc::new(Env {
            trie,
            tokenizer: self,
        })
    }
}

/// What llguidance asks of a tokenizer.
struct Env {
    trie: TokTrie,
    tokenizer: Tokenizer,
}

impl TokenizerEnv for Env {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    /// The model's own tokens where its tokenizer gives back the text, else the
    /// longest token at each place.
    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<u32> {
        (std::str::from_utf8(bytes).ok())
            .and_then(|text| self.tokenizer.within(text))
            .unwrap_or_else(|| self.trie.greedy_tokenize(bytes))
    }
}
