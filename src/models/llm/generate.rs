//! Answering many prompts at once.
//!
//! Equal prompts are read once. Rows that finish make room for waiting requests,
//! so a batch stays full until nothing waits. On the CPU an answer is the same
//! bits in every batch; on other devices floats, and with them rare ties, may
//! depend on it.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use anyhow::{Context, Result, ensure};
use rayon::prelude::*;

use super::{
    Llm,
    decoder::{Decoder, Kv, Prompt},
    rope::RopeTable,
};
use crate::models::{
    grammar::{Grammar, Matcher},
    sampling::{Sampling, draw, uniform},
};

/// Words this large are worth several threads to sample from.
const LARGE_VOCABULARY: usize = 8192;

/// One answer wanted.
#[derive(Clone, Debug)]
pub struct Request {
    /// The prompt, as [`Llm::prompt_ids`] gives it.
    pub prompt_ids: Vec<u32>,
    /// How tokens are drawn and when the answer ends.
    pub sampling: Sampling,
    /// Names the stream of random numbers; equal keys draw equal numbers.
    pub key: [u8; 32],
    /// What the answer must look like, if anything. Tokens that have no
    /// alternative are read without being drawn; the random numbers of the
    /// others are the same as if they had been.
    pub grammar: Option<Arc<Grammar>>,
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    /// The tokens of the answer, without the one that ended it.
    pub token_ids: Vec<u32>,
    /// Their text, cut before a stop text.
    pub text: String,
    /// Why the answer ended.
    pub finish: Finish,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model ended it, or what it must look like left nothing to add.
    Eos,
    /// A stop text appeared.
    Stop,
    /// It reached its token limit.
    Length,
}

/// Bounds on what is computed at once; they never change an answer on the CPU.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most answers written at a time.
    pub rows: usize,
    /// The most bytes of keys and values.
    pub kv_bytes: u64,
    /// The most prompt tokens read at a time, beyond the first prompt.
    pub prefill_tokens: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            rows: 128,
            kv_bytes: 4 << 30,
            prefill_tokens: 2048,
        }
    }
}

/// How far a call of [`Llm::generate`] is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Answers finished.
    pub finished: usize,
    /// Answers wanted.
    pub wanted: usize,
    /// Tokens written so far.
    pub tokens: usize,
}

/// Somebody asked to stop before all answers were finished.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("stopped before all answers were finished")]
pub struct Stopped;

/// Takes an answer and the place of its request.
pub type OnAnswer<'a> = dyn FnMut(usize, Generation) -> Result<()> + 'a;

/// An answer being written.
struct Live {
    request: usize,
    ids: Vec<u32>,
    /// How many of `ids` the decoder has read.
    read: usize,
    matcher: Option<Matcher>,
}

/// What waits, what is ready to be answered, and what is being answered.
struct Batch<'a> {
    llm: &'a Llm,
    requests: &'a [Request],
    rope: RopeTable,
    /// Distinct prompts, and each request's.
    prompts: Vec<&'a [u32]>,
    prompt_of: Vec<usize>,
    /// Requests that still wait, by prompt.
    waiting_for: Vec<usize>,
    waiting: VecDeque<usize>,
    ready: HashMap<usize, Prompt>,
    slots: Vec<Option<Live>>,
    kv: Kv,
    done: Vec<(usize, Generation)>,
    progress: Progress,
}

impl Llm {
    /// Answers all requests; `on_answer` gets each answer as soon as it is
    /// finished, whatever its place.
    ///
    /// `on_step` hears of every step; where `stop` says so, the call ends with
    /// [`Stopped`].
    ///
    /// # Errors
    /// When a request is out of range, the device fails, or `on_answer` does.
    pub fn generate(
        &self,
        requests: &[Request],
        limits: &Limits,
        on_answer: &mut OnAnswer<'_>,
        on_step: &mut dyn FnMut(Progress),
        stop: &dyn Fn() -> bool,
    ) -> Result<()> {
        if requests.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::new(self, requests, limits)?;
        loop {
            batch.admit(limits)?;
            on_step(batch.progress);
            for (request, answer) in batch.done.drain(..) {
                on_answer(request, answer)?;
            }
            if batch.live().is_empty() && batch.waiting.is_empty() {
                return Ok(());
            }
            if stop() {
                return Err(Stopped.into());
            }
            batch.step()?;
        }
    }

    fn check(&self, request: &Request) -> Result<()> {
        request.sampling.check()?;
        ensure!(!request.prompt_ids.is_empty(), "a prompt has no tokens");
        let vocab = self.config().vocab;
        if let Some(id) = (request.prompt_ids.iter()).find(|&&id| id as usize >= vocab) {
            anyhow::bail!("token {id} is not among the model's {vocab}");
        }
        let (prompt, most) = (request.prompt_ids.len(), self.config().max_positions);
        ensure!(
            prompt.saturating_add(request.sampling.max_tokens) <= most,
            "a prompt of {prompt} tokens and an answer of up to {} are longer than the model's {most}\n\
             hint: lower `max_tokens` or shorten the prompt",
            request.sampling.max_tokens
        );
        Ok(())
    }
}

impl<'a> Batch<'a> {
    fn new(llm: &'a Llm, requests: &'a [Request], limits: &Limits) -> Result<Self> {
        let mut prompts: Vec<&[u32]> = Vec::new();
        let mut known: HashMap<&[u32], usize> = HashMap::new();
        let mut prompt_of = Vec::with_capacity(requests.len());
        for request in requests {
            llm.check(request)?;
            let prompt = *known.entry(&request.prompt_ids).or_insert_with(|| {
                prompts.push(&request.prompt_ids);
                prompts.len() - 1
            });
            prompt_of.push(prompt);
        }
        let mut waiting_for = vec![0; prompts.len()];
        for &prompt in &prompt_of {
            waiting_for[prompt] += 1;
        }
        // Requests of one prompt follow each other, so that few prompts are held.
        let mut waiting: Vec<usize> = (0..requests.len()).collect();
        waiting.sort_by_key(|&request| prompt_of[request]);
        let len = |request: &Request| request.prompt_ids.len() + request.sampling.max_tokens;
        let longest = requests.iter().map(len).max().unwrap_or(0);
        let longest_prompt = prompts.iter().map(|prompt| prompt.len()).max().unwrap_or(0);
        let row_bytes = llm.decoder.row_bytes(longest).max(1) as u64;
        ensure!(
            row_bytes <= limits.kv_bytes,
            "the keys and values of one answer need {row_bytes} bytes, more than the {} allowed\n\
             hint: lower `max_tokens`, or raise `kv_memory` in `[exec]`",
            limits.kv_bytes
        );
        let rows = (limits.rows.max(1))
            .min(requests.len())
            .min(usize::try_from(limits.kv_bytes / row_bytes).unwrap_or(usize::MAX));
        Ok(Self {
            llm,
            requests,
            rope: RopeTable::new(llm.config(), longest),
            prompts,
            prompt_of,
            waiting_for,
            waiting: waiting.into(),
            ready: HashMap::new(),
            slots: (0..rows).map(|_| None).collect(),
            kv: llm.decoder.memory(rows, longest, longest_prompt),
            done: Vec::new(),
            progress: Progress {
                wanted: requests.len(),
                ..Progress::default()
            },
        })
    }

    /// The slots in use, in ascending order.
    fn live(&self) -> Vec<usize> {
        (0..self.slots.len())
            .filter(|&slot| self.slots[slot].is_some())
            .collect()
    }

    /// Gives free rows to waiting requests.
    fn admit(&mut self, limits: &Limits) -> Result<()> {
        loop {
            let live = self.live().len();
            let free = self.slots.len() - live;
            // Reading a few prompts at a time is worth a few empty rows.
            if self.waiting.is_empty() || (live > 0 && free * 4 < self.slots.len()) {
                return Ok(());
            }
            self.read_prompts(free, limits)?;
            let before = self.waiting.len();
            for _ in 0..free {
                let Some(&request) = self.waiting.front() else {
                    break;
                };
                let prompt = self.prompt_of[request];
                let Some(ready) = self.ready.get(&prompt).cloned() else {
                    break;
                };
                self.waiting.pop_front();
                self.waiting_for[prompt] -= 1;
                if self.waiting_for[prompt] == 0 {
                    self.ready.remove(&prompt);
                }
                self.seat(request, &ready)?;
            }
            ensure!(self.waiting.len() < before, "no prompt could be read");
        }
    }

    /// Reads prompts of the next `free` requests, as many as go at a time.
    fn read_prompts(&mut self, free: usize, limits: &Limits) -> Result<()> {
        let mut next: Vec<usize> = Vec::new();
        let mut longest = 0;
        for &request in self.waiting.iter().take(free) {
            let prompt = self.prompt_of[request];
            if self.ready.contains_key(&prompt) || next.contains(&prompt) {
                continue;
            }
            // Padding counts where there is any.
            longest = longest.max(self.prompts[prompt].len());
            if !next.is_empty() && longest * (next.len() + 1) > limits.prefill_tokens {
                break;
            }
            next.push(prompt);
        }
        if next.is_empty() {
            return Ok(());
        }
        let texts: Vec<&[u32]> = next.iter().map(|&prompt| self.prompts[prompt]).collect();
        let read = self.llm.decoder.prefill(&texts, &self.rope)?;
        self.ready.extend(next.into_iter().zip(read));
        Ok(())
    }

    /// Begins an answer, and gives it a row if there is more to come than the
    /// first token.
    fn seat(&mut self, request: usize, prompt: &Prompt) -> Result<()> {
        let wanted = &self.requests[request];
        let mut live = Live {
            request,
            ids: Vec::new(),
            read: 0,
            matcher: (wanted.grammar.as_deref())
                .map(Grammar::start)
                .transpose()?,
        };
        let mut done = self.add_forced(&mut live)?;
        if done.is_none() && live.ids.is_empty() {
            let id = choose(&mut live, wanted, &prompt.logits)?;
            done = self.extend(&mut live, id)?;
        }
        self.progress.tokens += live.ids.len();
        if let Some(done) = done {
            self.finish(request, done);
            return Ok(());
        }
        let slot = (self.slots.iter()).position(Option::is_none);
        let slot = slot.context("no row is free")?;
        let max_tokens = wanted.sampling.max_tokens;
        (self.llm.decoder).seat(&mut self.kv, slot, prompt, max_tokens)?;
        self.slots[slot] = Some(live);
        Ok(())
    }

    /// Reads what every row has written and draws its next token.
    fn step(&mut self) -> Result<()> {
        let waiting: Vec<&[u32]> = (self.slots.iter())
            .map(|slot| slot.as_ref().map_or(&[][..], |live| &live.ids[live.read..]))
            .collect();
        let left: Vec<usize> = (self.slots.iter())
            .map(|slot| {
                slot.as_ref().map_or(0, |live| {
                    self.requests[live.request].sampling.max_tokens - live.read
                })
            })
            .collect();
        let decoder = &self.llm.decoder;
        let (taken, logits) = decoder.decode(&mut self.kv, &waiting, &left, &self.rope)?;
        let vocab = self.llm.config().vocab;
        let requests = self.requests;
        let pick = |(slot, live): (usize, &mut Option<Live>)| -> Result<Option<(usize, u32)>> {
            let Some(live) = live else {
                return Ok(None);
            };
            live.read += taken[slot];
            if live.read < live.ids.len() {
                return Ok(None);
            }
            let logits = logits.of(slot, vocab).context("a row has no logits")?;
            let id = choose(live, &requests[live.request], logits)?;
            Ok(Some((slot, id)))
        };
        let drawn: Vec<Option<(usize, u32)>> = if vocab >= LARGE_VOCABULARY {
            let slots = self.slots.par_iter_mut().enumerate();
            slots.map(pick).collect::<Result<_>>()?
        } else {
            let slots = self.slots.iter_mut().enumerate();
            slots.map(pick).collect::<Result<_>>()?
        };
        for (slot, id) in drawn.into_iter().flatten() {
            let Some(mut live) = self.slots[slot].take() else {
                continue;
            };
            let before = live.ids.len();
            let mut done = self.extend(&mut live, id)?;
            if done.is_none() {
                done = self.add_forced(&mut live)?;
            }
            self.progress.tokens += live.ids.len().saturating_sub(before);
            match done {
                Some(done) => {
                    Decoder::free(&mut self.kv, slot);
                    self.finish(live.request, done);
                }
                None => self.slots[slot] = Some(live),
            }
        }
        self.close_gaps();
        Ok(())
    }

    /// Drops empty rows where they would cost more than dropping them.
    fn close_gaps(&mut self) {
        let live = self.live();
        let worth = self.waiting.is_empty() && live.len() * 2 <= self.slots.len();
        if worth && !live.is_empty() {
            self.llm.decoder.retain(&mut self.kv, &live);
            self.slots.retain(Option::is_some);
        }
    }

    /// Adds the tokens that have no alternative; the whole answer if they end it.
    fn add_forced(&self, live: &mut Live) -> Result<Option<Generation>> {
        let Some(matcher) = &mut live.matcher else {
            return Ok(None);
        };
        let mut forced = matcher.forced()?.into_iter();
        let whole = matcher.finished();
        while let Some(id) = forced.next() {
            if let Some(done) = self.add(live, id, whole && forced.len() == 0)? {
                return Ok(Some(done));
            }
        }
        if whole {
            return self.end(live, Finish::Eos, None).map(Some);
        }
        Ok(None)
    }

    /// Adds a drawn token to an answer; the whole answer if that ends it.
    fn extend(&self, live: &mut Live, id: u32) -> Result<Option<Generation>> {
        if self.llm.config().eos.contains(&id) {
            return self.end(live, Finish::Eos, None).map(Some);
        }
        let mut whole = false;
        if let Some(matcher) = &mut live.matcher {
            matcher.take(id)?;
            whole = matcher.finished();
        }
        self.add(live, id, whole)
    }

    /// Adds a token; `whole` says that what the answer must look like leaves
    /// nothing to add after it.
    fn add(&self, live: &mut Live, id: u32, whole: bool) -> Result<Option<Generation>> {
        let sampling = &self.requests[live.request].sampling;
        live.ids.push(id);
        if whole {
            return self.end(live, Finish::Eos, None).map(Some);
        }
        if !sampling.stop.is_empty() {
            let whole = self.llm.tokenizer.decode(&live.ids)?;
            let stops = sampling.stop.iter();
            if let Some(at) = stops.filter_map(|stop| whole.find(stop.as_str())).min() {
                let text = whole[..at].to_owned();
                return self.end(live, Finish::Stop, Some(text)).map(Some);
            }
        }
        if live.ids.len() >= sampling.max_tokens {
            return self.end(live, Finish::Length, None).map(Some);
        }
        Ok(None)
    }

    fn end(&self, live: &mut Live, finish: Finish, text: Option<String>) -> Result<Generation> {
        let text = match text {
            Some(text) => text,
            None => self.llm.tokenizer.decode(&live.ids)?,
        };
        Ok(Generation {
            token_ids: std::mem::take(&mut live.ids),
            text,
            finish,
        })
    }

    fn finish(&mut self, request: usize, done: Generation) {
        self.done.push((request, done));
        self.progress.finished += 1;
    }
}

/// Draws the next token of an answer; the step of the random numbers is the
/// token's place in the answer.
fn choose(live: &mut Live, request: &Request, logits: &[f32]) -> Result<u32> {
    let u = uniform(&request.key, live.ids.len() as u64);
    match &mut live.matcher {
        None => Ok(draw(logits, &request.sampling, u)),
        Some(matcher) => {
            let mut logits = logits.to_vec();
            matcher.mask(&mut logits)?;
            Ok(draw(&logits, &request.sampling, u))
        }
    }
}
