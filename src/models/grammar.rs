//! Forces an answer of a language model into a form, token by token.
//!
//! A [`Grammar`] says which texts are allowed; a [`Matcher`] follows one answer
//! and tells before each token which ones may come. Parsing is the work of
//! [llguidance](https://github.com/guidance-ai/llguidance), which walks the trie
//! of all tokens against the derivatives of regular expressions and an Earley
//! parser; here stand the forms of answers, checks that no answer can get stuck,
//! and the bookkeeping of forced tokens.
//!
//! Where the text allows only one continuation, the tokens are those that the
//! model's own tokenizer makes of it, and [`Matcher::mask`] allows nothing else:
//! an answer is the same whether its forced tokens are drawn one by one or taken
//! at once by [`Matcher::forced`], as long as random numbers are counted by
//! position.

mod vocabulary;

use std::{collections::VecDeque, fmt, sync::Arc};

use anyhow::{Context, Result, anyhow, ensure};
use llguidance::api::{GrammarWithLexer, StopReason, TopLevelGrammar};
use serde_json::{Map, Value, json};

pub use vocabulary::Vocabulary;

/// The most attributes in one answer.
const MOST_ATTRIBUTES: usize = 1000;
/// The most characters that an attribute may be allowed.
const MOST_CHARS: usize = 4096;
/// Of a value this many characters are followed before the first answer.
const WARM_CHARS: usize = 64;
/// The longest schema or regular expression, in bytes.
const LONGEST_SOURCE: usize = 256 << 10;

/// A compiled grammar; cheap to start many answers from.
pub struct Grammar {
    start: llguidance::Matcher,
    vocabulary: Arc<Vocabulary>,
    most_tokens: Option<usize>,
}

impl fmt::Debug for Grammar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grammar")
            .field("vocabulary", &self.vocabulary)
            .field("most_tokens", &self.most_tokens)
            .finish_non_exhaustive()
    }
}

impl Grammar {
    /// One JSON object with the keys `feature1` to `featureN` in order, written as
    /// Python's `json.dumps` writes it, on one line with a space after `:` and `,`.
    ///
    /// Each value has 1 to `most_chars` characters and starts with a letter or a
    /// digit, so that it says something and the quote before it is a token of its
    /// own. None is `"`, `\`, a control character or a space other than U+0020. The
    /// text is what [`super::answer::parse`] calls valid. Where the tokenizer puts a
    /// space before a text, the answer may start with one.
    ///
    /// # Errors
    /// When a number is out of range, or the vocabulary has no token for a byte
    /// that is needed.
    pub fn attributes(
        vocabulary: &Arc<Vocabulary>,
        count: usize,
        most_chars: usize,
    ) -> Result<Self> {
        ensure!(
            (1..=MOST_ATTRIBUTES).contains(&count),
            "{count} attributes in one answer, but 1 to {MOST_ATTRIBUTES} are possible"
        );
        ensure!(
            (1..=MOST_CHARS).contains(&most_chars),
            "attributes of {most_chars} characters, but 1 to {MOST_CHARS} are possible"
        );
        let fixed = |number: usize| {
            let before = if number == 1 { "{" } else { ", " };
            format!("{before}\"feature{number}\": ")
        };
        let keys: Vec<String> = (1..=count).map(fixed).collect();
        needs(vocabulary, keys.concat().bytes().chain(*b"}"))?;
        let mut rule = String::new();
        for key in &keys {
            rule += &format!("{} VALUE ", json!(key));
        }
        let rest = most_chars - 1;
        let lark = format!(
            "start: {}{rule}\"}}\"\n\
             VALUE: /\"[\\p{{Alphabetic}}\\p{{N}}][ [^\"\\\\\\p{{Cc}}\\p{{Z}}]]{{0,{rest}}}\"/\n",
            lead(vocabulary),
        );
        let mut grammar = Self::compile(vocabulary, TopLevelGrammar::from_lark(lark))?;
        grammar.warm(&keys[0], most_chars)?;
        let fixed = 1 + keys.concat().len() + 1;
        // Quotes, and at worst four byte tokens for a character.
        grammar.most_tokens = Some(fixed + count * (2 + 4 * most_chars));
        Ok(grammar)
    }

    /// Any answer that a JSON Schema allows, on one line with a space after `:`
    /// and `,`, keys in the schema's order.
    ///
    /// Strings and arrays are as long as the schema lets them be: without
    /// `maxLength` and `maxItems` an answer may never end by itself. What
    /// [llguidance](https://github.com/guidance-ai/llguidance/blob/main/docs/json_schema.md)
    /// does not support is refused, not ignored. Its extension `x-guidance` sets
    /// other separators.
    ///
    /// # Errors
    /// When the schema is no object, too large, not supported or impossible, or
    /// when the vocabulary has no token for some byte of UTF-8 text.
    pub fn json_schema(vocabulary: &Arc<Vocabulary>, schema: &Value) -> Result<Self> {
        let mut schema = schema.clone();
        let object = schema
            .as_object_mut()
            .context("a JSON Schema must be an object")?;
        object.entry("x-guidance").or_insert_with(|| {
            json!({
                "whitespace_flexible": false,
                "item_separator": ", ",
                "key_separator": ": ",
            })
        });
        check_length(&schema.to_string())?;
        needs_text(vocabulary)?;
        let object = GrammarWithLexer {
            name: Some("object".to_owned()),
            json_schema: Some(schema),
            lark_grammar: None,
        };
        let whole = format!("start: {}@object\n", lead(vocabulary));
        let mut grammar = TopLevelGrammar::from_lark(whole);
        grammar.grammars.push(object);
        Self::compile(vocabulary, grammar).context("failed to compile the JSON Schema")
    }

    /// Any answer that a regular expression matches as a whole, in the syntax of
    /// the crate `regex` without anchors, look-around and captures.
    ///
    /// # Errors
    /// As [`Grammar::json_schema`].
    pub fn regex(vocabulary: &Arc<Vocabulary>, pattern: &str) -> Result<Self> {
        check_length(pattern)?;
        needs_text(vocabulary)?;
        let lead = if vocabulary.leads() { " ?" } else { "" };
        let grammar = TopLevelGrammar::from_regex(&format!("{lead}(?:{pattern})"));
        Self::compile(vocabulary, grammar).context("failed to compile the regular expression")
    }

    fn compile(vocabulary: &Arc<Vocabulary>, grammar: TopLevelGrammar) -> Result<Self> {
        let parser = vocabulary.factory().create_parser(grammar)?;
        let mut start = llguidance::Matcher::new(Ok(parser));
        // What cannot be satisfied at all is an error now, not in the middle.
        start.deep_clone().compute_mask_or_eos()?;
        if let Some(warning) = start.grammar_warnings().first() {
            return Err(anyhow!("{warning}"));
        }
        Ok(Self {
            start,
            vocabulary: Arc::clone(vocabulary),
            most_tokens: None,
        })
    }

    /// Follows a value once: what the parser learns about each place in it is
    /// known to all answers, which start as copies.
    fn warm(&mut self, before: &str, most_chars: usize) -> Result<()> {
        // The copy shares what it learns.
        let mut first = self.start.clone();
        let value = std::iter::repeat_n(b'e', most_chars.min(WARM_CHARS));
        for byte in before.bytes().chain([b'"']).chain(value) {
            first.compute_mask()?;
            match self.vocabulary.byte(byte) {
                Some(id) if first.validate_tokens(&[id])? == 1 => first.consume_token(id)?,
                _ => break,
            }
        }
        Ok(())
    }

    /// Starts an answer.
    ///
    /// # Errors
    /// When the grammar is too complex to follow.
    pub fn start(&self) -> Result<Matcher> {
        let mut matcher = Matcher {
            // Answers are followed in parallel and must not wait for each other.
            inner: self.start.deep_clone(),
            vocabulary: Arc::clone(&self.vocabulary),
            ahead: VecDeque::new(),
            ended: false,
        };
        matcher.look_ahead()?;
        Ok(matcher)
    }

    /// A bound on the tokens of an answer without the one that ends it, if there
    /// is one: the bytes of the longest answer, as if each had its own token.
    /// Answers written in ordinary tokens have far fewer.
    pub fn most_tokens(&self) -> Option<usize> {
        self.most_tokens
    }
}

/// The JSON Schema of the answers of [`Grammar::attributes`], for servers that
/// take one.
///
/// A server may write it with other spaces, and cannot be told which characters
/// to leave out in the dialect that all of them know.
pub fn attributes_schema(count: usize, most_chars: usize) -> Value {
    let keys: Vec<String> = (1..=count)
        .map(|number| format!("feature{number}"))
        .collect();
    let value = json!({"type": "string", "minLength": 1, "maxLength": most_chars});
    let properties: Map<String, Value> = (keys.iter())
        .map(|key| (key.clone(), value.clone()))
        .collect();
    json!({
        "type": "object",
        "properties": properties,
        "required": keys,
        "additionalProperties": false,
    })
}

/// The space that the tokenizer puts before a text, as a part of a rule.
fn lead(vocabulary: &Vocabulary) -> &'static str {
    if vocabulary.leads() { "\" \"? " } else { "" }
}

fn check_length(source: &str) -> Result<()> {
    ensure!(
        source.len() <= LONGEST_SOURCE,
        "a grammar of {} bytes is longer than the {LONGEST_SOURCE} allowed",
        source.len()
    );
    Ok(())
}

/// Whatever text has been written, each of these bytes can come next: no answer
/// gets stuck between tokens.
fn needs(vocabulary: &Vocabulary, bytes: impl IntoIterator<Item = u8>) -> Result<()> {
    if let Some(byte) = vocabulary.lacks(bytes) {
        let shown = byte.escape_ascii();
        return Err(anyhow!(
            "no token of the model stands for the byte `{shown}` alone, so its answers cannot be held to a form\n\
             hint: let it write freely with `json = \"free\"`"
        ));
    }
    Ok(())
}

/// As [`needs`], for all that text is made of.
fn needs_text(vocabulary: &Vocabulary) -> Result<()> {
    let ascii = (b"\t\n\r".iter().copied()).chain(b' '..=b'~');
    needs(vocabulary, ascii.chain(0x80..=0xBF).chain(0xC2..=0xF4))
}

/// The state of one answer.
pub struct Matcher {
    inner: llguidance::Matcher,
    vocabulary: Arc<Vocabulary>,
    /// Forced tokens that `inner` has taken and the caller has not.
    ahead: VecDeque<u32>,
    /// Whether the end token was taken.
    ended: bool,
}

impl fmt::Debug for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Matcher")
            .field("ahead", &self.ahead)
            .field("finished", &self.finished())
            .finish_non_exhaustive()
    }
}

impl Matcher {
    /// Sets the logits of all tokens that may not come next to -inf.
    ///
    /// `logits` has one number per token; more than the vocabulary has are allowed
    /// and become -inf.
    ///
    /// # Errors
    /// When there are too few logits, or the grammar is too complex to follow.
    pub fn mask(&mut self, logits: &mut [f32]) -> Result<()> {
        let tokens = self.vocabulary.tokens();
        ensure!(
            logits.len() >= tokens,
            "{} logits for {tokens} tokens",
            logits.len()
        );
        if let Some(&id) = self.ahead.front() {
            keep(logits, &[id]);
        } else if self.finished() {
            keep(logits, self.vocabulary.eos());
        } else {
            let allowed = self
                .inner
                .compute_mask()
                .map_err(|error| self.lost(&error))?;
            let mut words = allowed.as_slice().iter();
            for logits in logits.chunks_mut(32) {
                let word = words.next().copied().unwrap_or(0);
                if word == u32::MAX {
                    continue;
                }
                for (bit, logit) in logits.iter_mut().enumerate() {
                    if word & (1 << bit) == 0 {
                        *logit = f32::NEG_INFINITY;
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes the token that was drawn.
    ///
    /// # Errors
    /// When it is not among those that may come next: the answer cannot go on.
    pub fn take(&mut self, id: u32) -> Result<()> {
        let ends = self.vocabulary.eos().contains(&id);
        if let Some(&next) = self.ahead.front() {
            ensure!(id == next, "token {id} where only {next} may come");
            self.ahead.pop_front();
            return Ok(());
        }
        if self.finished() {
            ensure!(ends, "token {id} after the end of the answer");
            self.ended = true;
            return Ok(());
        }
        (self.inner.consume_token(id)).with_context(|| format!("token {id} may not come here"))?;
        if ends {
            self.ended = true;
            return Ok(());
        }
        self.look_ahead()
    }

    /// Tokens that must come next whatever is drawn, already taken; none if there
    /// is a choice or the answer is finished.
    ///
    /// # Errors
    /// When the answer has gone wrong before.
    pub fn forced(&mut self) -> Result<Vec<u32>> {
        self.check()?;
        Ok(self.ahead.drain(..).collect())
    }

    /// Whether only the end of the answer may follow.
    pub fn finished(&self) -> bool {
        self.ended || (self.ahead.is_empty() && self.inner.is_stopped() && !self.inner.is_error())
    }

    /// Takes forced tokens as far as they go.
    fn look_ahead(&mut self) -> Result<()> {
        while !self.inner.is_stopped() {
            let forced = self.inner.compute_ff_tokens();
            if forced.is_empty() {
                break;
            }
            (self.inner.consume_tokens(&forced)).map_err(|error| self.lost(&error))?;
            self.ahead.extend(forced);
        }
        self.check()
    }

    fn check(&self) -> Result<()> {
        match self.inner.get_error() {
            Some(error) => Err(self.lost(&anyhow!(error))),
            None => Ok(()),
        }
    }

    fn lost(&self, error: &anyhow::Error) -> anyhow::Error {
        let why = match self.inner.stop_reason() {
            StopReason::LexerTooComplex | StopReason::ParserTooComplex => {
                "\nhint: the grammar is too complex; use smaller bounds"
            }
            _ => "",
        };
        anyhow!("failed to follow the grammar: {error}{why}")
    }
}

/// Sets all logits but these to -inf.
fn keep(logits: &mut [f32], ids: &[u32]) {
    let kept: Vec<(usize, f32)> = (ids.iter())
        .filter_map(|&id| Some((id as usize, *logits.get(id as usize)?)))
        .collect();
    logits.fill(f32::NEG_INFINITY);
    for (id, logit) in kept {
        logits[id] = logit;
    }
}

#[cfg(test)]
mod tests;
