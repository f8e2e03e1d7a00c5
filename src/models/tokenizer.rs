//! `tokenizer.json` of a Hugging Face folder: text to token ids and back.

use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet},
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow};

use super::weights::read_small;

/// The longest file read, in bytes. Llama 3's is 9 MB, Gemma's 33 MB.
const LONGEST: u64 = 128 << 20;
/// The longest text encoded, in bytes.
const LONGEST_TEXT: usize = 4 << 20;

/// A tokenizer and the tokens that mean something to the model beyond text.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    path: PathBuf,
    special: BTreeMap<u32, String>,
    largest_id: u32,
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

impl Tokenizer {
    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// Names the file when it cannot be read or is no tokenizer.
    pub fn open(path: &Path) -> Result<Self> {
        let bytes = read_small(path, LONGEST)?;
        let mut inner = guarded(|| tokenizers::Tokenizer::from_bytes(&bytes))
            .with_context(|| format!("`{}` is not a tokenizer", path.display()))?;
        // A chat prompt is whole and alone: neither cut nor filled up.
        guarded(|| {
            inner.with_padding(None);
            inner.with_truncation(None).map(|_| ())
        })
        .with_context(|| format!("`{}` is not a tokenizer", path.display()))?;
        let added = inner.get_added_tokens_decoder();
        // A byte or word that is unknown becomes this one, which text may do.
        let unknown = unknown_token(&bytes);
        let special = (added.iter()).filter(|(_, token)| {
            token.special && !token.content.is_empty() && Some(&token.content) != unknown.as_ref()
        });
        let special = (special.map(|(&id, token)| (id, token.content.clone()))).collect();
        let largest_id = inner.get_vocab(true).into_values().max().unwrap_or(0);
        Ok(Self {
            inner,
            path: path.to_owned(),
            special,
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

    /// The id of a token by its text.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Encodes text in which special tokens are recognised; adds none.
    ///
    /// # Errors
    /// When the tokenizer fails on the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.encode_placed(text)?.iter().map(|t| t.id).collect())
    }

    /// As [`Tokenizer::encode`], with the place of each token in the text.
    pub(super) fn encode_placed(&self, text: &str) -> Result<Vec<Placed>> {
        anyhow::ensure!(
            text.len() <= LONGEST_TEXT,
            "a text of {} bytes is longer than the {LONGEST_TEXT} allowed",
            text.len()
        );
        let encoding = guarded(|| self.inner.encode(text, false))
            .with_context(|| format!("`{}` failed on a text", self.path.display()))?;
        let ids = encoding.get_ids().iter();
        let places = encoding.get_offsets().iter();
        Ok(ids
            .zip(places)
            .map(|(&id, &(start, end))| Placed { id, start, end })
            .collect())
    }

    /// The text of token ids, without special tokens.
    ///
    /// # Errors
    /// When the tokenizer fails on the ids.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        guarded(|| self.inner.decode(ids, true))
            .with_context(|| format!("`{}` failed to decode", self.path.display()))
    }

    /// Whether a token means something beyond the part of the text it covers.
    ///
    /// Some files call the byte tokens special, which stand for text all the same
    /// unless they are spelled out.
    pub(super) fn is_special(&self, id: u32, covered: &str) -> bool {
        self.special.get(&id).is_some_and(|text| {
            let byte = text.len() == 6 && text.starts_with("<0x") && text.ends_with('>');
            !byte || covered.trim() == text
        })
    }

    /// Where special tokens' texts start in `text`, in bytes.
    pub(super) fn special_starts(&self, text: &str) -> BTreeSet<usize> {
        (self.special.values())
            .flat_map(|special| starts(text, special))
            .collect()
    }
}

/// Every place where `part` starts, overlapping ones included.
fn starts<'a>(text: &'a str, part: &'a str) -> impl Iterator<Item = usize> + 'a {
    let mut from = 0;
    std::iter::from_fn(move || {
        let start = from + text.get(from..)?.find(part)?;
        from = start + text[start..].chars().next().map_or(1, char::len_utf8);
        Some(start)
    })
}

/// The `unk_token` of the file's model.
fn unknown_token(bytes: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct File {
        model: Model,
    }
    #[derive(serde::Deserialize)]
    struct Model {
        #[serde(default)]
        unk_token: Option<String>,
    }
    let file: File = serde_json::from_slice(bytes).ok()?;
    file.model.unk_token
}

/// Runs code of the tokenizers crate, which panics on some hostile files.
fn guarded<T>(
    run: impl FnOnce() -> std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>,
) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result.map_err(|error| anyhow!("{error}")),
        Err(panic) => Err(anyhow!("{}", panic_text(panic.as_ref()))),
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = (panic.downcast_ref::<String>().map(String::as_str))
        .or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("the tokenizer panicked").to_owned()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use serde_json::{Value, json};

    use super::*;

    fn open(change: impl FnOnce(&mut Value)) -> Result<Tokenizer> {
        let fixture = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/fixtures/llm/mistral/tokenizer.json"
        );
        let mut file: Value = serde_json::from_slice(&std::fs::read(fixture)?)?;
        change(&mut file);
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("tokenizer.json");
        std::fs::write(&path, file.to_string())?;
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
}
