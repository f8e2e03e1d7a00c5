//! Where answers come from: a model of this machine, a server, or a file.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::{ITEM_VERSION, Json, LlmGenerate, Raw, Try};
use crate::{
    artifact::Finish,
    models::{
        endpoint::{self, Endpoint, Note, Request as Question},
        grammar::attributes_schema,
        llm::{self, Limits, Llm, Progress, Request, Stopped},
        sampling::Sampling,
    },
    node::{Ctx, EndpointModel, Input, ModelFolder, ReplayFile},
};

/// Takes the answer of the try at a place.
pub(super) type KeepRaw<'a> = dyn FnMut(usize, &Raw) -> Result<()> + 'a;

/// What all answers of a provider share.
pub(super) fn space(model: &Input) -> Result<Value> {
    Ok(match model {
        Input::Model(folder) => {
            let mut space = json!({
                "weights": folder.part("weights")?,
                "tokenizer": folder.part("tokenizer")?,
                "dtype": folder.dtype,
                "version": ITEM_VERSION,
            });
            if let Some(quantize) = folder.quantize {
                space["quantize"] = json!(quantize);
            }
            space
        }
        Input::Endpoint(model) => json!({"endpoint": model.parts(), "version": ITEM_VERSION}),
        Input::Replay(file) => json!({"replay": file.parts(), "version": ITEM_VERSION}),
        _ => bail!("`model` does not lead to a language model"),
    })
}

/// Whether there is another attempt after this one: a file has no more than it has.
pub(super) fn has(model: &Input, class: &str, last: &Try) -> bool {
    match model {
        Input::Replay(file) => {
            let next = file.answers.answer(class, last.sample, last.attempt + 1);
            next.is_some()
        }
        _ => true,
    }
}

/// A model of this machine writes the answers.
pub(super) fn generate(
    node: &LlmGenerate,
    folder: &ModelFolder,
    tries: &[&Try],
    keep: &mut KeepRaw<'_>,
    ctx: &mut Ctx<'_>,
) -> Result<()> {
    let (stop, progress, budget) = (ctx.stop, ctx.progress, ctx.budget);
    let llm = ctx.models()?.llm(folder, budget.weights_memory)?;
    let requests = requests(node, &llm, tries)?;
    let usual = Limits::default();
    let limits = Limits {
        rows: budget.batch.unwrap_or(usual.rows),
        kv_bytes: budget.kv_memory.unwrap_or(usual.kv_bytes),
        ..usual
    };
    let mut on_step = |at: Progress| progress(at.finished as u64, at.wanted as u64, "answers");
    let mut on_answer = |place: usize, answer: llm::Generation| {
        let raw = Raw {
            text: answer.text,
            token_ids: answer.token_ids,
            finish: Some(finish(answer.finish)),
            served_by: None,
        };
        keep(place, &raw)
    };
    unless_stopped(llm.generate(&requests, &limits, &mut on_answer, &mut on_step, stop))
}

/// A stop is no failure: answers that were begun are given up, those that were
/// finished are kept.
fn unless_stopped(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if error.is::<Stopped>() => Ok(()),
        result => result,
    }
}

fn finish(finish: llm::Finish) -> Finish {
    match finish {
        llm::Finish::Eos => Finish::Eos,
        llm::Finish::Stop => Finish::Stop,
        llm::Finish::Length => Finish::Length,
    }
}

fn requests(node: &LlmGenerate, llm: &Llm, tries: &[&Try]) -> Result<Vec<Request>> {
    let grammar = match node.json {
        Json::Schema => Some(Arc::new(
            llm.attributes_grammar(node.attributes, node.max_chars)?,
        )),
        Json::Free | Json::Text | Json::Off => None,
    };
    let mut requests: Vec<Request> = Vec::with_capacity(tries.len());
    for (i, attempt) in tries.iter().enumerate() {
        // Tries of one class follow each other and share their prompt.
        let prompt_ids = match i.checked_sub(1) {
            Some(last) if tries[last].prompt == attempt.prompt => requests[last].prompt_ids.clone(),
            _ => llm.prompt_ids(&attempt.prompt, node.system.as_deref())?,
        };
        requests.push(Request {
            prompt_ids,
            sampling: Sampling {
                temperature: node.temperature,
                top_k: node.top_k,
                top_p: node.top_p,
                min_p: node.min_p,
                max_tokens: node.max_tokens,
                stop: node.stop.clone(),
            },
            key: attempt.draws,
            grammar: grammar.clone(),
        });
    }
    Ok(requests)
}

/// A server writes the answers.
pub(super) fn ask(
    node: &LlmGenerate,
    model: &EndpointModel,
    tries: &[&Try],
    keep: &mut KeepRaw<'_>,
    ctx: &mut Ctx<'_>,
) -> Result<()> {
    let endpoint = Endpoint::open(model.settings.clone())?;
    let schema = (node.json == Json::Schema)
        .then(|| attributes_schema(node.attributes, node.max_chars));
    let questions: Vec<Question> = tries
        .iter()
        .map(|attempt| Question {
            system: node.system.clone(),
            user: attempt.prompt.clone(),
            temperature: node.temperature,
            top_k: node.top_k,
            top_p: node.top_p,
            min_p: node.min_p,
            max_tokens: node.max_tokens,
            stop: node.stop.clone(),
            seed: seed(attempt),
            schema: schema.clone(),
        })
        .collect();
    let (mut finished, wanted) = (0, questions.len() as u64);
    let (progress, warn) = (ctx.progress, ctx.warn);
    progress(0, wanted, "answers");
    let mut on_answer = |place: usize, reply: endpoint::Reply| {
        let raw = Raw {
            text: reply.text,
            token_ids: Vec::new(),
            finish: Some(finish(reply.finish)),
            served_by: reply.model,
        };
        keep(place, &raw)?;
        finished += 1;
        progress(finished, wanted, "answers");
        Ok(())
    };
    let mut on_wait = |note: Note| warn(note.to_string());
    unless_stopped(endpoint.ask(&questions, &mut on_answer, &mut on_wait, ctx.stop))
}

/// A seed that every server takes: 31 bits.
fn seed(attempt: &Try) -> u64 {
    let bytes = attempt.draws.first_chunk().copied().unwrap_or_default();
    u64::from(u32::from_le_bytes(bytes) >> 1)
}

/// The answers are in a file.
pub(super) fn replay(
    file: &ReplayFile,
    classes: &[String],
    tries: &[&Try],
    keep: &mut KeepRaw<'_>,
) -> Result<()> {
    for (place, attempt) in tries.iter().enumerate() {
        let class = classes.get(attempt.class_index).context("no such class")?;
        let text = file.answers.needed(class, attempt.sample, attempt.attempt)?;
        let raw = Raw {
            text: text.to_owned(),
            token_ids: Vec::new(),
            finish: None,
            served_by: None,
        };
        keep(place, &raw)?;
    }
    Ok(())
}
