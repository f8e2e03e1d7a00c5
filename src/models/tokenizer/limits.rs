//! What a `tokenizer.json` may ask for, told before it is built.
//!
//! A few lines of such a file can make a text grow without end or a pattern take
//! exponential time. Published files come nowhere near these limits.

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::Value;

use super::sentencepiece::Charsmap;

/// The longest text while it is normalised and split, in bytes. The crate keeps
/// 16 more bytes for each.
pub(super) const MOST_EXPANDED: usize = 32 << 20;
/// The most parts of the normalizer, the pre-tokenizer and the decoder together.
const MOST_PARTS: usize = 64;
/// The most by which these may lengthen a text. Llama 2's is 12.
const MOST_GROWTH: usize = 1 << 12;
/// The longest pattern, in bytes. Llama 3's has 130.
const LONGEST_PATTERN: usize = 1 << 13;

/// A file's limits, and what else the crate does not tell.
pub(super) struct Limits {
    /// The `unk_token` of the model.
    pub(super) unknown: Option<String>,
    /// The texts and ids of the added tokens.
    pub(super) added: Vec<(String, u64)>,
    /// How many bytes a byte of text can become.
    pub(super) expansion: usize,
    /// Whether the time that a text takes has no other bound than a clock.
    pub(super) watched: bool,
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    added_tokens: Vec<Added>,
    normalizer: Option<Value>,
    pre_tokenizer: Option<Value>,
    decoder: Option<Value>,
    model: Model,
}

#[derive(Deserialize)]
struct Added {
    id: u64,
    content: String,
}

#[derive(Deserialize)]
struct Model {
    #[serde(rename = "type")]
    kind: Option<String>,
    unk_token: Option<String>,
    dropout: Option<f64>,
    /// Old files leave the type out; only BPE has merges.
    merges: Option<IgnoredAny>,
}

impl Limits {
    /// Reads a file's bytes.
    pub(super) fn read(bytes: &[u8]) -> Result<Self> {
        let file: File = serde_json::from_slice(bytes)?;
        ensure!(
            file.model.dropout.is_none_or(|dropout| dropout == 0.0),
            "its `dropout` would give a text other tokens each time\nhint: set it to null"
        );
        let mut growth = Growth::default();
        for part in [&file.normalizer, &file.decoder].into_iter().flatten() {
            growth.add(part, false)?;
        }
        if let Some(part) = &file.pre_tokenizer {
            growth.add(part, true)?;
        }
        let bpe = file.model.kind.as_deref() == Some("BPE")
            || file.model.kind.is_none() && file.model.merges.is_some();
        Ok(Self {
            unknown: file.model.unk_token,
            added: (file.added_tokens.into_iter())
                .map(|added| (added.content, added.id))
                .collect(),
            expansion: growth.factor,
            watched: !bpe || growth.patterns_look_around,
        })
    }
}

/// What the parts of a file do to a text, taken together.
struct Growth {
    factor: usize,
    parts: usize,
    patterns_look_around: bool,
}

impl Default for Growth {
    fn default() -> Self {
        Self {
            factor: 1,
            parts: 0,
            patterns_look_around: false,
        }
    }
}

impl Growth {
    /// Adds a part and the parts in it. Only where a text is split may a pattern
    /// look around: elsewhere the crate takes a failure for the end of the text.
    fn add(&mut self, part: &Value, splits: bool) -> Result<()> {
        let mut waiting = vec![part];
        while let Some(part) = waiting.pop() {
            for value in part.as_object().into_iter().flat_map(|map| map.values()) {
                waiting.extend(value.as_array().into_iter().flatten());
                // A part may be a field of another.
                waiting.extend(Some(value).filter(|value| value.get("type").is_some()));
            }
            let Some(kind) = part.get("type").and_then(Value::as_str) else {
                continue;
            };
            self.parts += 1;
            ensure!(
                self.parts <= MOST_PARTS,
                "its normalizer, pre-tokenizer and decoder have more than the {MOST_PARTS} parts \
                 allowed"
            );
            let factor = growth_of(kind, part).with_context(|| format!("the part `{kind}`"))?;
            self.factor = self.factor.saturating_mul(factor);
            ensure!(
                self.factor <= MOST_GROWTH,
                "its normalizer, pre-tokenizer and decoder could make a text more than \
                 {MOST_GROWTH} times longer"
            );
            if let Some(pattern) = part.pointer("/pattern/Regex").and_then(Value::as_str) {
                self.pattern(pattern, splits)?;
            }
        }
        Ok(())
    }

    fn pattern(&mut self, pattern: &str, splits: bool) -> Result<()> {
        ensure!(
            pattern.len() <= LONGEST_PATTERN,
            "a pattern of {} bytes is longer than the {LONGEST_PATTERN} allowed",
            pattern.len()
        );
        // What this crate accepts takes linear time in the other one too.
        if regex::Regex::new(pattern).is_ok() {
            return Ok(());
        }
        if !splits {
            bail!("the pattern `{pattern}` looks around, which only a pre-tokenizer may do");
        }
        self.patterns_look_around = true;
        Ok(())
    }
}

/// How many times longer a part can make a text.
fn growth_of(kind: &str, part: &Value) -> Result<usize> {
    let length = |path: &str| part.pointer(path).and_then(Value::as_str).map(str::len);
    Ok(match kind {
        "Replace" => {
            let content = length("/content").unwrap_or(0);
            match length("/pattern/String") {
                Some(pattern @ 1..) => content.div_ceil(pattern).max(1),
                // A pattern may match between any two characters.
                _ => content + 1,
            }
        }
        "Prepend" => length("/prepend").unwrap_or(0) + 1,
        "Precompiled" => {
            let text = part.get("precompiled_charsmap").and_then(Value::as_str);
            let blob = base64(text.unwrap_or_default()).context("it is not base64")?;
            Charsmap::read(&blob)?.longest().max(1)
        }
        // One ligature has 18 letters; three bytes become 33.
        "NFKC" | "NFKD" | "NFC" | "NFD" => 12,
        "BertNormalizer" => 24,
        "Metaspace" => 4,
        "ByteLevel" | "Lowercase" => 2,
        _ => 1,
    })
}

/// The bytes of a text in base64.
fn base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0_u32, 0);
    for byte in text.trim_end_matches('=').bytes() {
        let six = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(six);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    Some(bytes)
}
