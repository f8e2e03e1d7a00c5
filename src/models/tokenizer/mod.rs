//! The tokenizer of a Hugging Face folder: text to token ids and back.
//!
//! A folder has a `tokenizer.json`, which the tokenizers crate reads as it does
//! for transformers, or only a `SentencePiece` file, as the folders of Llama 2 and
//! Mistral once had.

mod bytes;
mod finder;
mod json;
mod limits;
mod pieces;
mod sentencepiece;
#[cfg(test)]
pub(super) mod tests;

use std::{
    collections::BTreeSet,
    fmt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};

use self::{json::Json, pieces::Pieces};
use super::weights::read_small;

/// The longest file read, in bytes. Llama 3's is 9 MB, Gemma's 33 MB.
const LONGEST: u64 = 64 << 20;
/// The longest configuration beside it.
const LONGEST_CONFIG: u64 = 16 << 20;
/// The longest text encoded, in bytes: a book, and more than a model's context.
const MOST_TEXT: usize = 1 << 20;

/// A tokenizer and the tokens that mean something to the model beyond text.
pub struct Tokenizer {
    inner: Inner,
    path: PathBuf,
    largest_id: u32,
}

enum Inner {
    Json(Box<Json>),
    Pieces(Box<Pieces>),
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// A token and the bytes of the text that it covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) id: u32,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// Texts of the tokens that start, end and fill up a text, where a file names them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialNames {
    /// Starts a text.
    pub bos: Option<String>,
    /// Ends a text.
    pub eos: Option<String>,
    /// Stands for what has no token.
    pub unk: Option<String>,
    /// Fills up a batch.
    pub pad: Option<String>,
}

impl Tokenizer {
    /// Reads the tokenizer of a Hugging Face folder: `tokenizer.json` or, without
    /// one, `tokenizer.model` or the newest of Mistral's `tokenizer.model.v1`,
    /// `.v2`, `.v3`.
    ///
    /// # Errors
    /// Names the file when it cannot be read or is no tokenizer, or the folder when
    /// there is none.
    pub fn open_folder(folder: &Path) -> Result<Self> {
        if let Some(path) = find(folder) {
            return Self::open(&path);
        }
        let other = ["tekken.json", "vocab.json"].map(|name| folder.join(name));
        let hint = match other.iter().find(|path| path.exists()) {
            Some(path) => format!("`{}` is not read; ", path.display()),
            None => String::new(),
        };
        bail!(
            "`{}` holds neither `tokenizer.json` nor `tokenizer.model`\n\
             hint: {hint}put the `tokenizer.json` of the model's Hugging Face folder there",
            folder.display()
        )
    }

    /// Whether a folder's tokenizer is a `SentencePiece` file.
    pub(super) fn is_pieces(folder: &Path) -> bool {
        find(folder).is_some_and(|path| !is_json(&path))
    }

    /// The files that [`Tokenizer::open_folder`] reads beside those of the chat
    /// template ([`super::chat::FILES`]).
    pub fn files(folder: &Path) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = find(folder).into_iter().collect();
        let added = folder.join("added_tokens.json");
        if !files.iter().any(|path| is_json(path)) && added.exists() {
            files.push(added);
        }
        files
    }

    /// Reads a `tokenizer.json`, or a `SentencePiece` file with the configuration
    /// beside it.
    ///
    /// # Errors
    /// Names the file when it cannot be read or is no tokenizer.
    pub fn open(path: &Path) -> Result<Self> {
        let bytes = read_small(path, LONGEST)?;
        let inner = if is_json(path) {
            Json::read(&bytes).map(|json| Inner::Json(Box::new(json)))
        } else if is_tiktoken(&bytes) {
            bail!(
                "`{}` is in the format of tiktoken, which is not read\n\
                 hint: put the model's `tokenizer.json` into the folder",
                path.display()
            )
        } else {
            let folder = path.parent().unwrap_or(Path::new(""));
            Pieces::read(&bytes, folder).map(|pieces| Inner::Pieces(Box::new(pieces)))
        };
        let inner = inner.with_context(|| format!("`{}` is not a tokenizer", path.display()))?;
        let largest_id = match &inner {
            Inner::Json(json) => json.largest_id(),
            Inner::Pieces(pieces) => pieces.largest_id(),
        };
        Ok(Self {
            inner,
            path: path.to_owned(),
            largest_id,
        })
    }

    /// The file it was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The largest id it can produce.
    pub fn largest_id(&self) -> u32 {
        self.largest_id
    }

    /// The id of a token by its text, as the file writes it.
    pub fn id(&self, token: &str) -> Option<u32> {
        match &self.inner {
            Inner::Json(json) => json.id(token),
            Inner::Pieces(pieces) => pieces.id(token),
        }
    }

    /// The special tokens that a `SentencePiece` file itself names.
    pub fn special_names(&self) -> SpecialNames {
        match &self.inner {
            Inner::Json(_) => SpecialNames::default(),
            Inner::Pieces(pieces) => pieces.names().clone(),
        }
    }

    /// The bytes of text that a token stands for, which may be a part of a character.
    ///
    /// The bytes of a text's tokens, one after another, are the text itself but for
    /// a space that some tokenizers put before it. Nothing comes for special and
    /// unknown tokens, ids that are not in use, and files whose decoder does more
    /// than put bytes together, as those of `WordPiece` do.
    pub fn token_bytes(&self, id: u32) -> Option<Vec<u8>> {
        let bytes = match &self.inner {
            Inner::Json(json) => json.token_bytes(id),
            Inner::Pieces(pieces) => pieces.token_bytes(id),
        };
        bytes.filter(|bytes| !bytes.is_empty())
    }

    /// Encodes text in which special tokens are recognised; adds none.
    ///
    /// # Errors
    /// When the text is too long for the tokenizer, or the tokenizer fails on it.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.encode_placed(text)?.iter().map(|t| t.id).collect())
    }

    /// As [`Tokenizer::encode`], with the place of each token in the text.
    pub(super) fn encode_placed(&self, text: &str) -> Result<Vec<Placed>> {
        let encoded = checked(text).and_then(|()| match &self.inner {
            Inner::Json(json) => json.encode(text),
            Inner::Pieces(pieces) => pieces.encode(text, &BTreeSet::new()),
        });
        encoded.with_context(|| self.failed_on_text())
    }

    /// As [`Tokenizer::encode_placed`], but where `plain` says so, what looks like a
    /// special token is text. Nothing comes where the tokenizer cannot do so.
    pub(super) fn encode_except(
        &self,
        text: &str,
        plain: &BTreeSet<usize>,
    ) -> Result<Option<Vec<Placed>>> {
        let Inner::Pieces(pieces) = &self.inner else {
            return Ok(None);
        };
        let encoded = checked(text).and_then(|()| pieces.encode(text, plain));
        encoded.map(Some).with_context(|| self.failed_on_text())
    }

    fn failed_on_text(&self) -> String {
        format!("`{}` failed on a text", self.path.display())
    }

    /// The text of token ids, without special tokens.
    ///
    /// # Errors
    /// When the tokenizer fails on the ids.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        match &self.inner {
            Inner::Json(json) => json
                .decode(ids)
                .with_context(|| format!("`{}` failed to decode", self.path.display())),
            Inner::Pieces(pieces) => Ok(pieces.decode(ids)),
        }
    }

    /// Whether a token means something beyond the part of the text it covers.
    ///
    /// Some files call the byte tokens special, which stand for text all the same
    /// unless they are spelled out.
    pub(super) fn is_special(&self, id: u32, covered: &str) -> bool {
        match &self.inner {
            Inner::Json(json) => json.is_special(id, covered),
            Inner::Pieces(pieces) => pieces.is_special(id),
        }
    }

    /// Where special tokens' texts start in `text`, in bytes.
    pub(super) fn special_starts(&self, text: &str) -> BTreeSet<usize> {
        match &self.inner {
            Inner::Json(json) => json.special_starts(text),
            Inner::Pieces(pieces) => pieces.special_starts(text),
        }
    }
}

fn checked(text: &str) -> Result<()> {
    ensure!(
        text.len() <= MOST_TEXT,
        "a text of {} bytes is longer than the {MOST_TEXT} allowed",
        text.len()
    );
    Ok(())
}

/// The tokenizer's file in a folder.
fn find(folder: &Path) -> Option<PathBuf> {
    let fixed = ["tokenizer.json", "tokenizer.model"].map(|name| folder.join(name));
    if let Some(path) = fixed.into_iter().find(|path| path.exists()) {
        return Some(path);
    }
    let entries = fs_err::read_dir(folder).ok()?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let newest = names.filter_map(|name| Some((version(&name)?, name))).max();
    newest.map(|(_, name)| folder.join(name))
}

/// The version of a file that Mistral names `tokenizer.model.v3`, or
/// `tokenizer.model.v3m1` for a model that sees.
fn version(name: &str) -> Option<(u32, u32)> {
    let version = name.strip_prefix("tokenizer.model.v")?;
    let (major, minor) = version.split_once('m').unwrap_or((version, "0"));
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn is_json(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension == "json")
}

/// Whether the first line is a token in base64 and its rank.
fn is_tiktoken(bytes: &[u8]) -> bool {
    let line = bytes
        .split(|&byte| byte == b'\n')
        .next()
        .unwrap_or_default();
    let mut parts = line.split(|&byte| byte == b' ');
    let base64 = |part: &[u8]| {
        !part.is_empty()
            && part
                .iter()
                .all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(b))
    };
    parts.next().is_some_and(base64)
        && parts
            .next()
            .is_some_and(|rank| !rank.is_empty() && rank.iter().all(u8::is_ascii_digit))
        && parts.next().is_none()
}

/// Reads a JSON file that may be absent.
pub(super) fn read_json<T: for<'de> serde::Deserialize<'de>>(path: &Path) -> Result<Option<T>> {
    if !path.exists() {
        return Ok(None);
    }
    let bytes = read_small(path, LONGEST_CONFIG)?;
    let value = serde_json::from_slice(&bytes)
        .with_context(|| format!("`{}` does not have the expected fields", path.display()))?;
    Ok(Some(value))
}
