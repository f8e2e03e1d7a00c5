//! `llm_generate`: an LLM proposes attributes for each class.

mod provider;
mod read;

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::listed;
use crate::{
    artifact::{Answer, Answers, Artifact, Finish, Output, Type},
    digest::Digest,
    models::answer::Cleaning,
    node::{Accept, Complaint, Ctx, Done, Input, Inputs, Item, Keep, Kind, Node, Pool, Port, TextFile},
    nodes::template::Templates,
};

/// Raised when the tokens of one answer change.
const ITEM_VERSION: u32 = 2;
/// The most tries that one answer may have.
const MOST_ATTEMPTS: usize = 1000;

/// How an answer becomes attributes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Json {
    /// The model writes freely; an answer that is no valid object is asked again.
    #[default]
    Free,
    /// The model can write nothing but a valid object: at every token it draws
    /// from those that fit.
    Schema,
    /// The whole text, without space around it, is one attribute: a description
    /// in free words.
    Text,
    /// The raw text is kept, nothing is parsed.
    Off,
}

/// Parameters of `llm_generate`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LlmGenerate {
    /// The prompt, a minijinja template: sees `class`, `class_index`, `chosen`
    /// (attributes chosen so far) and `count` (attributes to name).
    prompt: String,
    /// A system prompt, as it is.
    #[serde(default)]
    system: Option<String>,
    /// Answers for each class.
    #[serde(default = "one")]
    #[schemars(range(min = 1))]
    answers: usize,
    /// Attributes in one answer: the object has exactly feature1 … featureN.
    #[serde(default = "three")]
    #[schemars(range(min = 1))]
    attributes: usize,
    /// Softmax temperature; 0 takes the likeliest token.
    #[serde(default = "temperature")]
    temperature: f64,
    /// Only the k likeliest tokens; 0 keeps all. 50 is what Hugging Face's `generate` does.
    #[serde(default = "top_k")]
    top_k: usize,
    /// Only the likeliest tokens that together have this probability.
    #[serde(default = "top_p")]
    top_p: f64,
    /// Only tokens at least this likely, as a share of the likeliest; 0 keeps all.
    #[serde(default)]
    min_p: f64,
    /// Tokens after which an answer is cut.
    #[serde(default = "max_tokens")]
    #[schemars(range(min = 1))]
    max_tokens: usize,
    /// Texts at which an answer is cut.
    #[serde(default)]
    stop: Vec<String>,
    /// How an answer becomes attributes.
    #[serde(default)]
    json: Json,
    /// The most characters of an attribute, with `json = "schema"`.
    #[serde(default = "max_chars")]
    #[schemars(range(min = 1))]
    max_chars: usize,
    /// What is done to attributes; nothing unless it is asked for. Never changes
    /// what is asked or kept: only `attributes`.
    #[serde(default)]
    clean: Cleaning,
    /// How often one answer is tried before it is given up.
    #[serde(default = "attempts")]
    #[schemars(range(min = 1))]
    attempts: usize,
    /// Draws differ between seeds; the file's `seed` by default.
    #[serde(default)]
    seed: u64,
    /// Draws differ between streams; the round by default.
    #[serde(default)]
    stream: u64,
}

fn one() -> usize {
    1
}
fn three() -> usize {
    3
}
fn temperature() -> f64 {
    0.5
}
fn top_k() -> usize {
    50
}
fn top_p() -> f64 {
    1.0
}
fn max_tokens() -> usize {
    128
}
fn max_chars() -> usize {
    40
}
fn attempts() -> usize {
    10
}

/// One try at one answer.
#[derive(Clone)]
struct Try {
    class_index: usize,
    sample: usize,
    attempt: usize,
    prompt: String,
    /// Key of the random numbers: never the prompt or the temperature, so that
    /// a sweep draws common random numbers.
    draws: [u8; 32],
}

/// The stored value of one try.
#[derive(Serialize, Deserialize)]
struct Raw {
    text: String,
    token_ids: Vec<u32>,
    /// Why it ended; not known of answers from a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    finish: Option<Finish>,
    /// What a server says it used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    served_by: Option<String>,
}

impl Node for LlmGenerate {
    fn output(&self, _: &BTreeSet<&str>) -> Type {
        Type::Answers
    }

    fn check(&self, _: &BTreeSet<&str>) -> Vec<Complaint> {
        let mut out = Vec::new();
        let mut complain = |field, message: String, hint: &str| {
            out.push(Complaint {
                field: Some(field),
                message,
                hint: (!hint.is_empty()).then(|| hint.to_owned()),
            });
        };
        if let Err(error) = Templates::new(std::slice::from_ref(&self.prompt)) {
            complain("prompt", format!("{error:#}"), "");
        }
        if !self.temperature.is_finite() || self.temperature < 0.0 {
            complain("temperature", format!("{} is no temperature", self.temperature), "0 is greedy; 0.2 to 1.5 is usual");
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            complain("top_p", format!("{} is no probability above 0", self.top_p), "1.0 keeps every token");
        }
        if !(0.0..=1.0).contains(&self.min_p) {
            complain("min_p", format!("{} is no share of a probability", self.min_p), "0.0 keeps every token");
        }
        if self.stop.iter().any(String::is_empty) {
            complain("stop", "an empty text would end every answer at once".to_owned(), "");
        }
        if self.attempts > MOST_ATTEMPTS {
            complain("attempts", format!("{} tries are more than {MOST_ATTEMPTS}", self.attempts), "10 is the default");
        }
        if self.clean.max_words == Some(0) {
            complain("clean", "`max_words = 0` would drop every attribute".to_owned(), "leave it out for no limit");
        }
        for (field, value) in [
            ("answers", self.answers),
            ("attributes", self.attributes),
            ("max_tokens", self.max_tokens),
            ("max_chars", self.max_chars),
            ("attempts", self.attempts),
        ] {
            if value == 0 {
                complain(field, "must be at least 1".to_owned(), "");
            }
        }
        out
    }

    fn reads(&self, port: &str, _: &BTreeSet<&str>) -> Option<&'static [&'static str]> {
        (port == "classes").then_some(&["classes"])
    }

    fn pool(&self, inputs: &Inputs) -> Pool {
        match inputs.get("model") {
            // Waiting for a server keeps no model waiting.
            Ok(Input::Endpoint(_) | Input::Replay(_)) => Pool::Cpu,
            _ => Pool::Model,
        }
    }

    fn space(&self, inputs: &Inputs) -> Result<Option<Value>> {
        provider::space(inputs.get("model")?).map(Some)
    }

    fn items(&self, inputs: &Inputs, done: &Done) -> Result<Vec<Item>> {
        let classes = inputs.classes("classes")?;
        let chosen = inputs.attributes("chosen")?;
        let templates = Templates::new(std::slice::from_ref(&self.prompt))?;
        let mut items = Vec::new();
        let mut level = Vec::new();
        for (class_index, class) in classes.iter().enumerate() {
            let prompt = templates.render(
                0,
                &json!({
                    "class": class,
                    "class_index": class_index,
                    "chosen": chosen.of(class),
                    "count": self.attributes,
                }),
            )?;
            for sample in 0..self.answers {
                level.push(self.attempt(class, class_index, sample, 0, &prompt));
            }
        }
        // Level by level: the next attempts of those that failed come after all that is done.
        loop {
            items.extend(level.iter().map(|(attempt, id)| Item::new(id.as_bytes(), attempt.clone())));
            if items.len() > done.len() || level.is_empty() {
                return Ok(items);
            }
            let values = &done.list[items.len() - level.len()..items.len()];
            let mut next = Vec::new();
            for ((attempt, _), (_, value)) in level.iter().zip(values) {
                let raw: Raw = serde_json::from_slice(value)?;
                let again = attempt.attempt + 1 < self.attempts && !self.read(&raw.text).valid;
                if again && provider::has(inputs.get("model")?, &classes[attempt.class_index], attempt) {
                    let class = &classes[attempt.class_index];
                    next.push(self.attempt(class, attempt.class_index, attempt.sample, attempt.attempt + 1, &attempt.prompt));
                }
            }
            level = next;
        }
    }

    fn batch(&self, _: Option<usize>) -> usize {
        // All at once: rows that finish make room for the next, and each answer is
        // kept when it is there. What is asked for is how many are written at a time.
        usize::MAX
    }

    fn compute(
        &self,
        inputs: &Inputs,
        batch: &[Item],
        _: &Done,
        keep: &mut Keep<'_>,
        ctx: &mut Ctx<'_>,
    ) -> Result<()> {
        let tries: Vec<&Try> = batch
            .iter()
            .map(|item| item.task().context("an item of another kind"))
            .collect::<Result<_>>()?;
        let mut keep = |place: usize, raw: &Raw| keep(place, serde_json::to_vec(raw)?);
        match inputs.get("model")? {
            Input::Model(folder) => provider::generate(self, folder, &tries, &mut keep, ctx),
            Input::Endpoint(model) => provider::ask(self, model, &tries, &mut keep, ctx),
            Input::Replay(file) => provider::replay(file, &inputs.classes("classes")?, &tries, &mut keep),
            _ => anyhow::bail!("`model` does not lead to a language model"),
        }
    }

    fn finish(&self, inputs: &Inputs, done: &Done, ctx: &mut Ctx<'_>) -> Result<Output> {
        let classes = inputs.classes("classes")?;
        let mut answers = Vec::with_capacity(done.len());
        for (item, value) in &done.list {
            let attempt: &Try = item.task().context("an item of another kind")?;
            let raw: Raw = serde_json::from_slice(value)?;
            let read = self.read(&raw.text);
            answers.push(Answer {
                class: classes[attempt.class_index].clone(),
                class_index: attempt.class_index,
                sample: attempt.sample,
                attempt: attempt.attempt,
                prompt: attempt.prompt.clone(),
                text: raw.text,
                token_ids: raw.token_ids,
                finish: raw.finish,
                served_by: raw.served_by,
                attributes: read.attributes,
                dropped: read.dropped,
                flags: read.flags,
                valid: read.valid,
                repaired: read.repaired,
                reason: read.reason,
            });
        }
        answers.sort_by_key(|a| (a.class_index, a.sample, a.attempt));
        let answers = Answers { answers, classes };
        self.warn(&answers, ctx);
        answers.output()
    }
}

impl LlmGenerate {
    /// One try and its identity: everything that changes its tokens.
    fn attempt(
        &self,
        class: &str,
        class_index: usize,
        sample: usize,
        attempt: usize,
        prompt: &str,
    ) -> (Try, String) {
        let draws = json!({
            "seed": self.seed,
            "stream": self.stream,
            "class": class,
            "sample": sample,
            "attempt": attempt,
        });
        let mut id = json!({
            "prompt": prompt,
            "system": self.system,
            "temperature": self.temperature,
            "top_k": self.top_k,
            "top_p": self.top_p,
            "max_tokens": self.max_tokens,
            "draws": draws,
        });
        // Left out where they change nothing, so that what is known stays known.
        if self.min_p > 0.0 {
            id["min_p"] = self.min_p.into();
        }
        if !self.stop.is_empty() {
            id["stop"] = json!(self.stop);
        }
        if self.json == Json::Schema {
            id["schema"] = json!({"attributes": self.attributes, "max_chars": self.max_chars});
        }
        let attempt = Try {
            class_index,
            sample,
            attempt,
            prompt: prompt.to_owned(),
            draws: *Digest::of_json("runner answer draws v1", &draws).as_bytes(),
        };
        (attempt, crate::digest::canonical(&id))
    }

    /// Tells how many answers had to be asked again, and which classes have none.
    fn warn(&self, answers: &Answers, ctx: &Ctx<'_>) {
        let first: Vec<_> = answers.answers.iter().filter(|a| a.attempt == 0).collect();
        let invalid = first.iter().filter(|a| !a.valid).count();
        if invalid > 0 {
            (ctx.warn)(format!("{invalid} of {} first answers were not valid JSON and were asked again", first.len()));
        }
        let without: Vec<&str> = (0..answers.classes.len())
            .filter(|i| !answers.answers.iter().any(|a| a.class_index == *i && a.valid))
            .map(|i| answers.classes[i].as_str())
            .collect();
        if !without.is_empty() {
            (ctx.warn)(format!(
                "no valid answer after {} attempts for {}: these classes keep what they had",
                self.attempts,
                listed(&without)
            ));
        }
    }
}

impl Kind for LlmGenerate {
    const NAME: &'static str = "llm_generate";
    const VERSION: u32 = 2;
    const PORTS: &'static [Port] = &[
        Port::required("model", &[Accept::Llm], "The language model: an entry of `[models]`."),
        Port::required("classes", &[Accept::Classes], "Classes to ask about."),
        Port::optional(
            "chosen",
            &[Accept::Artifact(Type::Attributes)],
            "Attributes chosen so far, for the prompt.",
        ),
    ];
    const FILES: &'static [TextFile] = &[TextFile {
        field: "prompt_file",
        sets: "prompt",
    }];
    const DRAWS: bool = true;
    const SUMMARY: &'static str = "asks a language model for visual attributes of each class";
    const DOC: &'static str = r#"Asks a language model for attributes of each class and keeps every raw answer.

The model is an entry of `[models]`: a Hugging Face folder (`path`), an
OpenAI-compatible server (`endpoint`), or a file of answers (`replay`). The record of an
answer is the same whoever gave it.

An answer is valid when its text is one JSON object with exactly feature1 … featureN,
all non-empty strings. One in a code fence or with text around it is repaired and
counted apart. An invalid answer is asked again with other random numbers, at most
`attempts` times; a class without any valid answer keeps what it had, with a warning.
With `json = "text"` the whole answer is one attribute, such as a sentence that describes
the class; only an empty one is asked again. With `json = "schema"` a local model can write nothing else: at each token it draws from
those that fit, and tokens without an alternative are not even drawn; a server is sent
the schema as `response_format`.

Sampling is Hugging Face's `generate`, in its order: temperature, top_k, top_p, min_p.
Temperature 0 takes the likeliest token.

Each answer is kept by model, prompt, sampling, seed, stream, class, answer and
attempt. Random numbers depend on seed, stream, class, answer and attempt, not on the
prompt or the temperature, nor on which answers are generated together. On the CPU an
answer is the same bits in every batch; on a GPU, and on a server, floats may differ
with the batch, and with them, rarely, a token.

Answers of all classes are written together: a class's prompt is read once for all its
answers, and rows that finish make room for the next. `exec = { batch = 32 }` bounds the
rows (128 by default), `exec = { kv_memory = "2GB" }` their memory. Every answer is
stored within a second of being finished, so a killed run goes on where it was.

`clean` changes attributes by rules, none of which is on by itself: cut_labels,
underscores, trim_punctuation, collapse_whitespace, lowercase, drop_field_names,
drop_names, max_words, drop_duplicates. It reads the stored answers; nothing is asked
again. What looks wrong is flagged in any case: `fur_color` (name_like), `feature2`
(field_name), `wing span: large` (labelled), more than three words.

Numbers for tables: first_invalid_percent, invalid_percent, attempts, valid, repaired,
invalid, truncated, given_up, attributes, duplicates, over_three_words, name_like, field_names,
labelled, dropped.

Artifact: `answers.jsonl` (class, sample, attempt, prompt, text, token_ids, finish,
served_by, attributes, dropped, flags, valid, repaired, reason), `classes.json`.

Example:

    [nodes.propose]
    kind = "llm_generate"
    model = "llm"
    classes = "cifar10"
    prompt_file = "prompts/attributes.j2"
    answers = 1
    attributes = 3
    temperature = 0.5
    clean = { underscores = true, lowercase = true }
"#;
}
