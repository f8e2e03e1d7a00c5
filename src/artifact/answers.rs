//! What a language model answered: `answers.jsonl` and `classes.json`.

use std::collections::BTreeSet;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::{Artifact, Type, from_json, from_lines, json_bytes, lines};

/// One answer of the LLM: a line of `answers.jsonl`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// Class that the prompt asks about.
    pub class: String,
    /// Its index.
    pub class_index: usize,
    /// Which of the class's answers (0, 1, …).
    pub sample: usize,
    /// Which try at this answer (0 = the first).
    pub attempt: usize,
    /// The rendered prompt, before the chat template.
    pub prompt: String,
    /// What the model wrote, untouched.
    pub text: String,
    /// The tokens it wrote, end of sequence left out; none where a server or a
    /// file gave the text.
    pub token_ids: Vec<u32>,
    /// Why it ended, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish: Option<Finish>,
    /// The model that a server says it used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served_by: Option<String>,
    /// Attributes parsed from the text, cleaned if that was asked for; empty when
    /// it is not valid.
    pub attributes: Vec<String>,
    /// What cleaning took out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dropped: Vec<Dropped>,
    /// What is odd about attributes as they were written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<Flag>,
    /// Whether the text gave attributes.
    pub valid: bool,
    /// Whether it had to be repaired first (a code fence, text around the object).
    pub repaired: bool,
    /// Why it is not valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Finish {
    /// The model ended it.
    Eos,
    /// A stop text appeared.
    Stop,
    /// It reached its token limit.
    Length,
}

/// An attribute that cleaning took out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dropped {
    /// The attribute as it was written.
    pub attribute: String,
    /// The rule that took it out.
    pub reason: String,
}

/// An attribute that looks wrong but is used all the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Flag {
    /// The attribute as it was written.
    pub attribute: String,
    /// `field_name` (such as `feature2`), `name_like` (such as `fur_color`),
    /// `labelled` (such as `wing span: large`), `over_three_words`.
    pub odd: Vec<String>,
}

/// All answers of one `llm_generate`, every attempt included.
///
/// Files: `answers.jsonl`, `classes.json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answers {
    /// Every attempt, ordered by class, sample and attempt.
    pub answers: Vec<Answer>,
    /// Class names in index order.
    pub classes: Vec<String>,
}

impl Answers {
    /// The candidates of class `index` in (answer, key) order; of equal
    /// strings the first stays.
    pub fn candidates(&self, index: usize) -> Vec<&str> {
        let mut seen = BTreeSet::new();
        self.raw_candidates(index)
            .filter(|attribute| seen.insert(*attribute))
            .collect()
    }

    /// All attributes of class `index` in (answer, key) order, repeats included.
    pub fn raw_candidates(&self, index: usize) -> impl Iterator<Item = &str> {
        self.answers
            .iter()
            .filter(move |answer| answer.class_index == index && answer.valid)
            .flat_map(|answer| &answer.attributes)
            .map(String::as_str)
    }
}

impl Artifact for Answers {
    fn kind(&self) -> Type {
        Type::Answers
    }

    fn encode(&self) -> Result<Vec<(String, Vec<u8>)>> {
        Ok(vec![
            ("answers.jsonl".into(), lines(&self.answers)?),
            ("classes.json".into(), json_bytes(&self.classes)?),
        ])
    }

    fn decode(read: &dyn Fn(&str) -> Result<Vec<u8>>) -> Result<Self> {
        Ok(Self {
            answers: from_lines("answers.jsonl", &read("answers.jsonl")?)?,
            classes: from_json("classes.json", &read("classes.json")?)?,
        })
    }
}
