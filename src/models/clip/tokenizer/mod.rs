//! CLIP's tokenizer: byte-level BPE over cleaned, lower-case text.
//!
//! The references are `open_clip`'s and `OpenAI`'s `SimpleTokenizer`, which
//! share everything but the names of two special tokens, and `transformers`'
//! `CLIPTokenizerFast`, which reads a folder's `tokenizer.json`.

mod bpe;
mod words;

use std::{path::Path, sync::OnceLock};

use anyhow::{Context, Result, anyhow, ensure};
use regex::Regex;

use self::bpe::Bpe;
use super::clean::{Unsure, clean};
use crate::models::tokenizer as file;

#[cfg(test)]
pub(super) use self::bpe::byte_characters;
pub use self::words::words;

/// Starts every text.
pub const START: u32 = 49_406;
/// Ends every text; the largest token, so that `argmax` finds it.
pub const END: u32 = 49_407;

/// Parts of words that are words of their own, in any case.
const CONTRACTIONS: &str = "'s|'t|'re|'ve|'m|'ll|'d";
/// Words, single digits, runs of the rest.
///
/// The reference's pattern ignores case everywhere. To its engine that makes
/// U+0345, whose capital is a letter, neither a letter nor of the rest.
const WORDS: &str = r"\p{L}+|\p{N}|(?i:[^\s\p{L}\p{N}])+";

/// Whose names the special tokens have inside a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// `open_clip`: `<start_of_text>` and `<end_of_text>`.
    #[default]
    OpenClip,
    /// `OpenAI`'s CLIP: `<|startoftext|>` and `<|endoftext|>`.
    OpenAi,
}

impl Dialect {
    /// The names of [`START`] and [`END`].
    pub fn special(self) -> [&'static str; 2] {
        match self {
            Self::OpenClip => ["<start_of_text>", "<end_of_text>"],
            Self::OpenAi => ["<|startoftext|>", "<|endoftext|>"],
        }
    }

    /// What the reference does with a long text unless told otherwise.
    pub fn too_long(self) -> TooLong {
        match self {
            Self::OpenClip => TooLong::Cut,
            Self::OpenAi => TooLong::Refuse,
        }
    }
}

/// What becomes of a text with more tokens than the model takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TooLong {
    /// Its tokens are cut off, the last one becomes [`END`].
    #[default]
    Cut,
    /// It is an error.
    Refuse,
}

/// A text as tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// Start, text, end; not padded, at most the context's length.
    pub ids: Vec<u32>,
    /// Whether tokens were cut off to fit.
    pub truncated: bool,
    /// Why the reference may tokenize the text otherwise; see
    /// [`Unsure::warning`].
    pub unsure: Option<Unsure>,
}

impl Tokens {
    /// The position of the text's end: the first [`END`].
    pub fn end(&self) -> usize {
        let found = self.ids.iter().position(|&id| id == END);
        found.unwrap_or(self.ids.len().saturating_sub(1))
    }
}

impl Unsure {
    /// What to tell whoever wrote `text`.
    pub fn warning(self, text: &str) -> String {
        format!(
            "CLIP's own tokenizer may read `{}` otherwise: {self}",
            shown(text)
        )
    }
}

/// CLIP's vocabulary, and how a text becomes words of it.
#[derive(Debug)]
pub struct Tokenizer {
    words: Words,
    too_long: TooLong,
}

#[derive(Debug)]
enum Words {
    BuiltIn {
        bpe: &'static Bpe,
        pattern: Regex,
        special: [&'static str; 2],
    },
    File(Box<file::Tokenizer>),
}

impl Tokenizer {
    /// `open_clip`'s tokenizer, which cuts long texts; one for the process,
    /// built on first use.
    ///
    /// # Errors
    /// Never with the merges that are built in.
    pub fn shared() -> Result<&'static Self> {
        static SHARED: OnceLock<Result<Tokenizer>> = OnceLock::new();
        let new = || Tokenizer::new(Dialect::OpenClip, TooLong::Cut);
        let shared = SHARED.get_or_init(new).as_ref();
        shared.map_err(|error| anyhow!("{error:#}"))
    }

    /// The tokenizer that is built in.
    ///
    /// # Errors
    /// Never with the merges that are built in.
    pub fn new(dialect: Dialect, too_long: TooLong) -> Result<Self> {
        let special = dialect.special();
        let [start, end] = special.map(regex::escape);
        let words = Words::BuiltIn {
            bpe: Bpe::shared()?,
            pattern: Regex::new(&format!("(?i:{start}|{end}|{CONTRACTIONS})|{WORDS}"))?,
            special,
        };
        Ok(Self { words, too_long })
    }

    /// A CLIP tokenizer from a Hugging Face folder's `tokenizer.json`.
    ///
    /// Text is cleaned as that file says, which for `OpenAI`'s models means
    /// NFC, white space and lower case, without ftfy and HTML.
    ///
    /// # Errors
    /// Names the file when it cannot be read, is no tokenizer, or is one whose
    /// tokens are not numbered as CLIP's: 49,408 tokens, the last two of them
    /// `<|startoftext|>` and `<|endoftext|>`.
    pub fn open(path: &Path, too_long: TooLong) -> Result<Self> {
        let file = file::Tokenizer::open(path)?;
        let named = format!("`{}` is not CLIP's tokenizer", path.display());
        let hint = "hint: take `tokenizer.json` from the folder of a CLIP model";
        let tokens = u64::from(file.largest_id()) + 1;
        let expected = u64::from(END) + 1;
        ensure!(
            tokens == expected,
            "{named}: it has {tokens} tokens, CLIP has {expected}\n{hint}"
        );
        for (name, id) in Dialect::OpenAi.special().into_iter().zip([START, END]) {
            let found =
                (file.id(name)).with_context(|| format!("{named}: `{name}` is missing\n{hint}"))?;
            ensure!(
                found == id,
                "{named}: `{name}` is token {found}, CLIP's is {id}\n{hint}"
            );
        }
        let words = Words::File(Box::new(file));
        Ok(Self { words, too_long })
    }

    /// The tokens of `text`: [`START`], its own, [`END`], at most `context`.
    ///
    /// # Errors
    /// Names a text that is too long, if such are refused, and one on which a
    /// `tokenizer.json` fails.
    pub fn tokenize(&self, text: &str, context: usize) -> Result<Tokens> {
        let mut ids = vec![START];
        let unsure = self.encode(text, &mut ids)?;
        ids.push(END);
        let truncated = ids.len() > context;
        if truncated {
            ensure!(
                self.too_long == TooLong::Cut,
                "tokenize `{}`: it has {} tokens, start and end included, and the model takes \
                 {context}\nhint: shorten it, or let long texts be cut",
                shown(text),
                ids.len()
            );
            ids.truncate(context);
            if let Some(last) = ids.last_mut() {
                *last = END;
            }
        }
        Ok(Tokens {
            ids,
            truncated,
            unsure,
        })
    }

    /// Appends the tokens of `text` alone.
    fn encode(&self, text: &str, ids: &mut Vec<u32>) -> Result<Option<Unsure>> {
        match &self.words {
            Words::BuiltIn {
                bpe,
                pattern,
                special,
            } => {
                let cleaned = clean(text);
                for word in pattern.find_iter(&cleaned.text).map(|word| word.as_str()) {
                    match special.iter().position(|name| *name == word) {
                        Some(0) => ids.push(START),
                        Some(_) => ids.push(END),
                        None => bpe.encode(word, ids),
                    }
                }
                Ok(cleaned.unsure)
            }
            Words::File(file) => {
                let encoded = file.encode(text);
                ids.extend(encoded.with_context(|| format!("tokenize `{}`", shown(text)))?);
                Ok(None)
            }
        }
    }
}

/// The beginning of a text, for people.
fn shown(text: &str) -> String {
    let mut rest = text.chars();
    let mut shown = String::new();
    for c in rest.by_ref().take(60) {
        if c.is_control() {
            shown.extend(c.escape_debug());
        } else {
            shown.push(c);
        }
    }
    if rest.next().is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(text: &str) -> Vec<u32> {
        let tokenizer = Tokenizer::shared().unwrap();
        tokenizer.tokenize(text, 77).unwrap().ids
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
        let tokenizer = Tokenizer::shared().unwrap();
        let tokens = tokenizer.tokenize(&"cat ".repeat(76), 77).unwrap();
        assert!(tokens.truncated);
        assert_eq!(tokens.ids.len(), 77);
        assert_eq!(tokens.ids[75..], [2368, END]);
        let fits = tokenizer.tokenize(&"cat ".repeat(75), 77).unwrap();
        assert!(!fits.truncated);
        assert_eq!(fits.ids, tokens.ids);
    }

    #[test]
    fn long_text_is_refused_by_name_where_it_is_asked_for() {
        let dialect = Dialect::OpenAi;
        let strict = Tokenizer::new(dialect, dialect.too_long()).unwrap();
        let fits = strict.tokenize(&"cat ".repeat(75), 77).unwrap();
        assert_eq!(fits.ids.len(), 77);
        let error = strict.tokenize(&"cat ".repeat(90), 77).unwrap_err();
        let text = "cat ".repeat(15);
        assert_eq!(
            error.to_string(),
            format!(
                "tokenize `{text}…`: it has 92 tokens, start and end included, and the model \
                 takes 77\nhint: shorten it, or let long texts be cut"
            )
        );
    }

    #[test]
    fn each_dialect_knows_its_own_special_tokens() {
        let openai = Tokenizer::new(Dialect::OpenAi, TooLong::Cut).unwrap();
        let ids = |text| openai.tokenize(text, 77).unwrap().ids;
        assert_eq!(
            ids("<|startoftext|><|ENDOFTEXT|>"),
            [START, START, END, END]
        );
        assert!(ids("<end_of_text>").len() > 3);
        assert!(super::tests::ids("<|endoftext|>").len() > 3);
        assert_eq!(ids("a cat"), super::tests::ids("a cat"));
    }

    #[test]
    fn an_end_inside_the_text_is_its_end() {
        let tokenizer = Tokenizer::shared().unwrap();
        let tokens = tokenizer.tokenize("a <end_of_text> cat", 77).unwrap();
        assert_eq!(tokens.end(), 2);
    }

    #[test]
    fn doubt_comes_with_the_text_and_a_way_out() {
        let tokenizer = Tokenizer::shared().unwrap();
        let tokens = tokenizer.tokenize("a \u{1c89} cat", 77).unwrap();
        assert_eq!(shown("it's\n“so”"), "it's\\n“so”");
        assert_eq!(
            tokens.unsure.unwrap().warning("a \u{1c89} cat"),
            "CLIP's own tokenizer may read `a \u{1c89} cat` otherwise: what becomes of U+1C89 \
             depends on the version of Unicode\nhint: leave that character out"
        );
        assert_eq!(tokenizer.tokenize("naïve café", 77).unwrap().unsure, None);
    }
}
