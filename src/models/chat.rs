//! Chat templates: from what a user says to the token ids that a model was trained on.
//!
//! A template comes as `chat_template.jinja` or in `tokenizer_config.json`, and
//! renders with the settings and functions of transformers'
//! `apply_chat_template`, whose ids ordinary text gets. Special tokens come from
//! the template only: where a message spells one out, it is broken up before
//! the text is encoded, so that nobody can end a turn from within.

use std::{fmt, path::Path};

use anyhow::{Context, Result, anyhow, bail};
use minijinja::{Environment, ErrorKind, Value, context, syntax::SyntaxConfig, value::Kwargs};
use serde::{Deserialize, Serialize};

use super::{
    tokenizer::{Placed, Tokenizer},
    weights::read_small,
};

/// The longest configuration or template file read, in bytes. Some
/// configurations list every added token.
const LONGEST: u64 = 16 << 20;
/// What one rendering may cost: about a million instructions, or 64 MB.
const FUEL: u64 = 1_000_000;
/// Characters without a meaning, one of which marks a broken token. The first
/// is tried first.
const MARKS: [char; 4] = ['\u{F8FF}', '\u{E000}', '\u{10FFFD}', '\u{F0000}'];

/// A compiled chat template.
pub struct ChatTemplate {
    environment: Environment<'static>,
    /// The file it came from, named in errors.
    source: String,
    bos: Option<String>,
    eos: Option<String>,
}

impl fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatTemplate")
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

/// The fields of `tokenizer_config.json` and `special_tokens_map.json` in use.
#[derive(Default, Deserialize)]
struct Config {
    #[serde(default)]
    chat_template: Option<serde_json::Value>,
    #[serde(default)]
    bos_token: Option<serde_json::Value>,
    #[serde(default)]
    eos_token: Option<serde_json::Value>,
}

impl ChatTemplate {
    /// Reads the template of a Hugging Face folder.
    ///
    /// # Errors
    /// Names the file when there is no template or it does not compile.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join("tokenizer_config.json");
        let mut config: Config = read_json(&path)?.unwrap_or_default();
        let map: Config = read_json(&folder.join("special_tokens_map.json"))?.unwrap_or_default();
        let bos = config.bos_token.take().or(map.bos_token);
        let eos = config.eos_token.take().or(map.eos_token);
        let jinja = folder.join("chat_template.jinja");
        let (source, template) = if jinja.exists() {
            let bytes = read_small(&jinja, LONGEST)?;
            let text = String::from_utf8(bytes)
                .map_err(|_| anyhow!("`{}` is not UTF-8", jinja.display()))?;
            (jinja.display().to_string(), text)
        } else {
            let source = path.display().to_string();
            let text = default_template(config.chat_template.as_ref())
                .with_context(|| format!("no chat template in `{source}`"))?;
            (source, text)
        };
        Self::compile(
            &template,
            &source,
            text_of(bos.as_ref()),
            text_of(eos.as_ref()),
        )
    }

    /// Compiles a template; `source` names it in errors.
    ///
    /// # Errors
    /// When it is no template.
    pub fn compile(
        template: &str,
        source: &str,
        bos: Option<String>,
        eos: Option<String>,
    ) -> Result<Self> {
        let mut environment = Environment::new();
        let mut syntax = SyntaxConfig::builder();
        let syntax = syntax.trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.context("failed to set up chat templates")?);
        environment.set_fuel(Some(FUEL));
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", strftime_now);
        environment.add_filter("tojson", tojson);
        environment
            .add_template_owned("chat", template.to_owned())
            .map_err(|error| anyhow!("`{source}` is not a chat template: {}", shown(&error)))?;
        Ok(Self {
            environment,
            source: source.to_owned(),
            bos,
            eos,
        })
    }

    /// The text of a conversation of one user turn, up to where the model answers.
    ///
    /// # Errors
    /// When the template refuses it, for instance one without a place for a
    /// system text.
    pub fn render(&self, user: &str, system: Option<&str>) -> Result<String> {
        let turn = |role: &str, content: &str| context! { role, content };
        let system = system.map(|content| turn("system", content));
        let messages: Vec<Value> = system.into_iter().chain([turn("user", user)]).collect();
        let mut names = context! {
            messages,
            tools => (),
            documents => (),
            add_generation_prompt => true,
        };
        // As in the reference, a token that is not set is not defined either.
        if let Some(bos) = &self.bos {
            names = context! { bos_token => bos, ..names };
        }
        if let Some(eos) = &self.eos {
            names = context! { eos_token => eos, ..names };
        }
        let template = self.environment.get_template("chat");
        template
            .and_then(|template| template.render(names))
            .map_err(|error| anyhow!("`{}`: {}", self.source, shown(&error)))
            .context("failed to apply the chat template")
    }

    /// The token ids of a conversation of one user turn.
    ///
    /// # Errors
    /// When the template or the tokenizer refuses it.
    pub fn prompt_ids(
        &self,
        tokenizer: &Tokenizer,
        user: &str,
        system: Option<&str>,
    ) -> Result<Vec<u32>> {
        // What the template itself puts in is what it puts around a plain letter.
        let plain = |text: &str| if text.trim().is_empty() { "" } else { "x" };
        let expected = self.render(plain(user), system.map(plain))?;
        let expected = specials(tokenizer, &expected, &tokenizer.encode_placed(&expected)?);
        let spelled_out = [Some(user), system]
            .into_iter()
            .flatten()
            .any(|text| !tokenizer.special_starts(text).is_empty());
        if !spelled_out {
            let text = self.render(user, system)?;
            let tokens = tokenizer.encode_placed(&text)?;
            if specials(tokenizer, &text, &tokens) == expected {
                return Ok(tokens.iter().map(|token| token.id).collect());
            }
        }
        for mark in MARKS {
            if user.contains(mark) || system.is_some_and(|text| text.contains(mark)) {
                continue;
            }
            let marked = |text: &str| break_up(tokenizer, text, mark);
            let text = self.render(&marked(user), system.map(marked).as_deref())?;
            let tokens = tokenizer.encode_placed(&text)?;
            let Some(tokens) = without(&tokens, &text, mark) else {
                continue;
            };
            if specials(tokenizer, &text, &tokens) == expected {
                return Ok(tokens.iter().map(|token| token.id).collect());
            }
        }
        bail!(
            "the text of a prompt would become special tokens of `{}`\n\
             hint: remove what looks like a control token from the text",
            tokenizer.path().display()
        );
    }
}

/// The special tokens among the `tokens` of `text`, in order.
fn specials(tokenizer: &Tokenizer, text: &str, tokens: &[Placed]) -> Vec<u32> {
    let covered = |token: &Placed| text.get(token.start..token.end).unwrap_or_default();
    (tokens.iter())
        .filter(|token| tokenizer.is_special(token.id, covered(token)))
        .map(|token| token.id)
        .collect()
}

/// Puts `mark` behind the first character of everything that spells a special token.
fn break_up(tokenizer: &Tokenizer, text: &str, mark: char) -> String {
    let starts = tokenizer.special_starts(text);
    let mut broken = String::with_capacity(text.len());
    for (at, character) in text.char_indices() {
        broken.push(character);
        if starts.contains(&at) {
            broken.push(mark);
        }
    }
    broken
}

/// Takes the tokens of the marks out; nothing if a token spans more than a mark.
fn without(tokens: &[Placed], text: &str, mark: char) -> Option<Vec<Placed>> {
    let mut kept = Vec::with_capacity(tokens.len());
    for token in tokens {
        let covered = text.get(token.start..token.end)?;
        if !covered.contains(mark) {
            kept.push(*token);
        } else if covered.chars().any(|c| c != mark) {
            return None;
        }
    }
    Some(kept)
}

/// The template of a configuration: a text, or the one named `default` in a list.
fn default_template(value: Option<&serde_json::Value>) -> Option<String> {
    match value? {
        serde_json::Value::String(text) => Some(text.clone()),
        serde_json::Value::Array(named) => named
            .iter()
            .find(|entry| entry.get("name").and_then(|n| n.as_str()) == Some("default"))
            .and_then(|entry| entry.get("template")?.as_str())
            .map(str::to_owned),
        _ => None,
    }
}

/// A token written as a text or as an object with `content`.
fn text_of(token: Option<&serde_json::Value>) -> Option<String> {
    let token = token?;
    (token.as_str())
        .or_else(|| token.get("content")?.as_str())
        .map(str::to_owned)
}

/// Reads a JSON file that may be absent.
fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<Option<T>> {
    if !path.exists() {
        return Ok(None);
    }
    let bytes = read_small(path, LONGEST)?;
    let value = serde_json::from_slice(&bytes)
        .with_context(|| format!("`{}` does not have the expected fields", path.display()))?;
    Ok(Some(value))
}

/// An error of the template engine in one line.
fn shown(error: &minijinja::Error) -> String {
    let line = error
        .line()
        .map_or(String::new(), |n| format!(" (line {n})"));
    match error.detail() {
        Some(detail) => format!("{detail}{line}"),
        None => format!("{}{line}", error.kind()),
    }
}

fn raise_exception(message: &str) -> std::result::Result<String, minijinja::Error> {
    Err(minijinja::Error::new(
        ErrorKind::InvalidOperation,
        format!("the template refuses: {message}"),
    ))
}

fn strftime_now(format: &str) -> std::result::Result<String, minijinja::Error> {
    jiff::fmt::strtime::format(format, &jiff::ZonedDateTime::now())
        .map_err(|error| minijinja::Error::new(ErrorKind::InvalidOperation, error.to_string()))
}

/// JSON as Python writes it: without HTML escapes, with a space after `,` and `:`.
#[expect(clippy::needless_pass_by_value, reason = "the signature of a filter")]
fn tojson(value: &Value, options: Kwargs) -> std::result::Result<Value, minijinja::Error> {
    let indent: Option<usize> = options.get("indent")?;
    let failed = |error: serde_json::Error| {
        minijinja::Error::new(ErrorKind::BadSerialization, error.to_string())
    };
    let mut bytes = Vec::new();
    if let Some(indent) = indent {
        let indent = " ".repeat(indent.min(16));
        let pretty = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
        let mut out = serde_json::Serializer::with_formatter(&mut bytes, pretty);
        value.serialize(&mut out).map_err(failed)?;
    } else {
        let mut out = serde_json::Serializer::with_formatter(&mut bytes, Spaced);
        value.serialize(&mut out).map_err(failed)?;
    }
    options.assert_all_used()?;
    Ok(Value::from_safe_string(
        String::from_utf8_lossy(&bytes).into_owned(),
    ))
}

struct Spaced;

impl serde_json::ser::Formatter for Spaced {
    fn begin_array_value<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        out.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        out.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
    ) -> std::io::Result<()> {
        out.write_all(b": ")
    }
}
