//! Chat templates: from what a user says to the token ids that a model was trained on.
//!
//! A template comes as `chat_template.jinja` or in `tokenizer_config.json`, and
//! renders with the settings and functions of transformers'
//! `apply_chat_template`, whose ids ordinary text gets. Special tokens come from
//! the template only: where a message spells one out, it is text, so that nobody
//! can end a turn from within.
//!
//! Nothing is guessed: a folder without a template is an error. Mistral's own
//! format for its `SentencePiece` files depends on their version and on what a model
//! was tuned on, which such a file does not tell.
//!
//! What a template may cost is bounded by its length, the engine's fuel, a stack of
//! its own, the text it writes and the time that takes. One gap is the engine's: it
//! joins and compares lists that share their items without counting. A template
//! written to do harm so is an error after five seconds, but its thread goes on.
//!
//! Some templates tell the model what day it is. Prompts, and with them the keys
//! of cached answers, would then change overnight. Here the day is
//! [`DEFAULT_DATE`] unless another is given, where transformers takes today.

mod folder;
mod functions;
#[cfg(test)]
mod tests;
mod watched;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::Path,
    sync::Arc,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use jiff::civil::Date;
use minijinja::{Environment, Value, context, syntax::SyntaxConfig};

pub use self::folder::FILES;
use self::watched::Watched;
use super::tokenizer::{Placed, Tokenizer};

/// The day that templates are told where nothing else is said: what the template
/// of Llama 3.1 itself says where there is no clock.
pub const DEFAULT_DATE: Date = jiff::civil::date(2024, 7, 26);

/// What one rendering may cost: 300,000 instructions, or 19 MB of text.
const FUEL: u64 = 300_000;
/// The longest template, in bytes. Llama 3.2's has 4 kB, the longest known 20 kB;
/// the engine takes time by the square to compile one.
const LONGEST: usize = 40_000;
/// The stack on which templates are compiled, which the engine does not bound:
/// a few bytes of template take a few kilobytes of it. Untouched, it costs nothing.
const STACK: usize = 256 << 20;
/// Characters without a meaning, one of which marks a broken token. The first
/// is tried first.
const MARKS: [char; 4] = ['\u{F8FF}', '\u{E000}', '\u{10FFFD}', '\u{F0000}'];

/// A compiled chat template.
pub struct ChatTemplate {
    engine: Watched,
    /// The file it came from, named in errors.
    source: String,
    /// What the template sees beside the messages.
    tokens: Value,
    asks_date: bool,
    date: Date,
}

impl fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatTemplate")
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

impl ChatTemplate {
    /// Reads the template of a Hugging Face folder.
    ///
    /// # Errors
    /// Names the file when there is no template or it does not compile.
    pub fn open(folder: &Path) -> Result<Self> {
        let found = folder::find(folder)?;
        Self::new(&found.template, &found.source, found.tokens)
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
        let tokens = [("bos_token", bos), ("eos_token", eos)];
        let tokens = tokens
            .into_iter()
            .filter_map(|(name, token)| Some((name, token?)));
        Self::new(template, source, tokens.collect())
    }

    fn new(template: &str, source: &str, tokens: Vec<(&'static str, String)>) -> Result<Self> {
        ensure!(
            template.len() <= LONGEST,
            "`{source}` has a chat template of {} bytes, which is longer than the {LONGEST} allowed",
            template.len()
        );
        let (environment, asks_date) = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new()
                .name("chat template".to_owned())
                .stack_size(STACK)
                .spawn_scoped(scope, || compiled(template))
                .context("failed to start a thread")?;
            match thread.join() {
                Ok(compiled) => compiled,
                Err(_) => bail!("the template engine panicked"),
            }
        })
        .with_context(|| format!("`{source}` is not a chat template"))?;
        Ok(Self {
            engine: Watched::new(environment),
            source: source.to_owned(),
            // As in the reference, a token that is not set is not defined either.
            tokens: Value::from(tokens.into_iter().collect::<BTreeMap<_, _>>()),
            asks_date,
            date: DEFAULT_DATE,
        })
    }

    /// Tells the template another day.
    #[must_use]
    pub fn with_date(mut self, date: Date) -> Self {
        functions::set_date(Arc::make_mut(&mut self.engine.environment), date);
        self.date = date;
        self
    }

    /// The day that the template is told.
    pub fn date(&self) -> Date {
        self.date
    }

    /// Whether the template asks what day it is, so that prompts may change with
    /// [`ChatTemplate::with_date`].
    pub fn depends_on_date(&self) -> bool {
        self.asks_date
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
        let names = context! {
            messages,
            tools => (),
            documents => (),
            add_generation_prompt => true,
            ..self.tokens.clone()
        };
        self.engine
            .render(names)
            .map_err(|error| anyhow!("`{}`: {error:#}", self.source))
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
        let ids = |tokens: &[Placed]| tokens.iter().map(|token| token.id).collect();
        if !spelled_out {
            let text = self.render(user, system)?;
            let tokens = tokenizer.encode_placed(&text)?;
            if specials(tokenizer, &text, &tokens) == expected {
                return Ok(ids(&tokens));
            }
        }
        for mark in MARKS {
            if user.contains(mark) || system.is_some_and(|text| text.contains(mark)) {
                continue;
            }
            let marked = |text: &str| break_up(tokenizer, text, mark);
            let text = self.render(&marked(user), system.map(marked).as_deref())?;
            let (whole, plain) = unmarked(&text, mark);
            if let Some(tokens) = tokenizer.encode_except(&whole, &plain)? {
                if specials(tokenizer, &whole, &tokens) == expected {
                    return Ok(ids(&tokens));
                }
                continue;
            }
            let tokens = tokenizer.encode_placed(&text)?;
            let Some(tokens) = without(&tokens, &text, mark) else {
                continue;
            };
            if specials(tokenizer, &text, &tokens) == expected {
                return Ok(ids(&tokens));
            }
        }
        bail!(
            "the text of a prompt would become special tokens of `{}`\n\
             hint: remove what looks like a control token from the text",
            tokenizer.path().display()
        );
    }
}

/// An environment that holds a template, and whether this asks what day it is.
fn compiled(template: &str) -> Result<(Environment<'static>, bool)> {
    let mut environment = Environment::new();
    let mut syntax = SyntaxConfig::builder();
    let syntax = syntax.trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.context("failed to set up chat templates")?);
    environment.set_fuel(Some(FUEL));
    functions::add(&mut environment);
    functions::set_date(&mut environment, DEFAULT_DATE);
    environment
        .add_template_owned("chat", without_generation(template))
        .map_err(|error| anyhow!("{}", shown(&error)))?;
    let asks_date = (environment.get_template("chat"))
        .is_ok_and(|chat| chat.undeclared_variables(false).contains("strftime_now"));
    Ok((environment, asks_date))
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

/// The text without marks, and where in it the characters before them start.
fn unmarked(text: &str, mark: char) -> (String, BTreeSet<usize>) {
    let mut whole = String::with_capacity(text.len());
    let mut starts = BTreeSet::new();
    let mut last = None;
    for character in text.chars() {
        if character == mark {
            starts.extend(last);
        } else {
            last = Some(whole.len());
            whole.push(character);
        }
    }
    (whole, starts)
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

/// `{% generation %}` blocks say which part a model answered, which only training
/// asks for; like blocks of the engine, they keep the variables set in them.
fn without_generation(template: &str) -> String {
    let Ok(tags) = regex::Regex::new(r"\{%([-+]?)\s*(end)?generation\s*([-+]?)%\}") else {
        return template.to_owned();
    };
    tags.replace_all(template, "{%$1 ${2}with $3%}")
        .into_owned()
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
