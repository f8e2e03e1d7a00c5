//! Answering many prompts at once.
//!
//! Equal prompts are read once. Rows that finish make room for waiting requests,
//! so a batch stays full until nothing waits. On the CPU an answer is the same
//! bits in every batch; on other devices floats, and with them rare ties, may
//! depend on it.

use std::collections::{HashMap, VecDeque};

use anyhow::{Context, Result, ensure};
use rayon::prelude::*;

use super::{Llm, kv::Kv, kv::Prompt, rope::RopeTable};
use crate::models::sampling::{Sampling, draw, uniform};

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
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    /// The tokens drawn, without the one that ended the answer.
    pub token_ids: Vec<u32>,
    /// Their text, cut before a stop text.
    pub text: String,
    /// Why the answer ended.
    pub finish: Finish,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model ended it.
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
    pub kv_bytes: usize,
    /// The most prompt tokens read at a time, beyond the first prompt.
    pub prefill_tokens: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            rows: 32,
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
    /// Tokens drawn so far.
    pub tokens: usize,
}

/// Somebody asked to stop before all answers were finished.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("stopped before all answers were finished")]
pub struct Stopped;

/// An answer being written.
struct Live {
    request: usize,
    ids: Vec<u32>,
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
    rows: usize,
    kv: Kv,
    done: Vec<Option<Generation>>,
    progress: Progress,
}

impl Llm {
    /// Answers all requests; the answers are in their order.
    ///
    /// `on_step` hears of every step; where `stop` says so, the call ends with
    /// [`Stopped`].
    ///
    /// # Errors
    /// When a request is out of range, or the device fails.
    pub fn generate(
        &self,
        requests: &[Request],
        limits: &Limits,
        on_step: &mut dyn FnMut(Progress),
        stop: &dyn Fn() -> bool,
    ) -> Result<Vec<Generation>> {
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        let mut batch = Batch::new(self, requests, limits)?;
        loop {
            batch.admit(limits)?;
            on_step(batch.progress);
            if batch.live().is_empty() && batch.waiting.is_empty() {
                break;
            }
            if stop() {
                return Err(Stopped.into());
            }
            batch.step()?;
        }
        (batch.done.into_iter())
            .map(|done| done.context("an answer was left out"))
            .collect()
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
        let row_bytes = longest.saturating_mul(llm.decoder.kv_bytes()).max(1);
        ensure!(
            row_bytes <= limits.kv_bytes,
            "the keys and values of one answer need {row_bytes} bytes, more than the {} allowed\n\
             hint: lower `max_tokens`",
            limits.kv_bytes
        );
        let rows = (limits.rows.max(1))
            .min(requests.len())
            .min(limits.kv_bytes / row_bytes);
        let kv = llm.decoder.memory(rows, longest, longest_prompt);
        let slots = match &kv {
            Kv::Host(_) => Vec::new(),
            Kv::Device(_) => (0..rows).map(|_| None).collect(),
        };
        Ok(Self {
            llm,
            requests,
            rope: RopeTable::new(llm.config(), longest),
            prompts,
            prompt_of,
            waiting_for,
            waiting: waiting.into(),
            ready: HashMap::new(),
            slots,
            rows,
            kv,
            done: vec![None; requests.len()],
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
            let free = self.rows - live;
            // Reading a few prompts at a time is worth a few empty rows.
            if self.waiting.is_empty() || (live > 0 && free * 4 < self.rows) {
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

    /// Draws a request's first token and gives it a row if there is more to come.
    fn seat(&mut self, request: usize, prompt: &Prompt) -> Result<()> {
        let wanted = &self.requests[request];
        let mut live = Live {
            request,
            ids: Vec::new(),
        };
        let next = draw(&prompt.logits, &wanted.sampling, uniform(&wanted.key, 0));
        self.progress.tokens += 1;
        if let Some(done) = self.extend(&mut live, next)? {
            self.finish(request, done);
            return Ok(());
        }
        let slot = (self.slots.iter())
            .position(Option::is_none)
            .unwrap_or(self.slots.len());
        let max_tokens = wanted.sampling.max_tokens;
        (self.llm.decoder).seat(&mut self.kv, slot, prompt, max_tokens)?;
        if slot == self.slots.len() {
            self.slots.push(Some(live));
        } else {
            self.slots[slot] = Some(live);
        }
        Ok(())
    }

    /// Draws one token for every row.
    fn step(&mut self) -> Result<()> {
        let live = self.live();
        if live.is_empty() {
            return Ok(());
        }
        let last = |slot: &Option<Live>| slot.as_ref().and_then(|live| live.ids.last().copied());
        let ids: Vec<u32> = self
            .slots
            .iter()
            .map(|slot| last(slot).unwrap_or(0))
            .collect();
        let logits = (self.llm.decoder).decode(&mut self.kv, &ids, &live, &self.rope)?;
        let vocab = self.llm.config().vocab;
        let choose = |&slot: &usize| {
            let live = self.slots[slot].as_ref()?;
            let request = &self.requests[live.request];
            let u = uniform(&request.key, live.ids.len() as u64);
            let row = &logits[slot * vocab..(slot + 1) * vocab];
            Some((slot, draw(row, &request.sampling, u)))
        };
        let drawn: Vec<(usize, u32)> = if vocab >= LARGE_VOCABULARY {
            live.par_iter().filter_map(choose).collect()
        } else {
            live.iter().filter_map(choose).collect()
        };
        self.progress.tokens += drawn.len();
        for (slot, id) in drawn {
            let Some(mut live) = self.slots[slot].take() else {
                continue;
            };
            match self.extend(&mut live, id)? {
                Some(done) => self.finish(live.request, done),
                None => self.slots[slot] = Some(live),
            }
        }
        self.close_gaps();
        Ok(())
    }

    /// Drops empty rows where that is cheap, or where they would cost more.
    fn close_gaps(&mut self) {
        let live = self.live();
        let worth = match self.kv {
            Kv::Host(_) => live.len() < self.slots.len(),
            Kv::Device(_) => self.waiting.is_empty() && live.len() * 2 <= self.slots.len(),
        };
        if worth && !live.is_empty() {
            self.llm.decoder.retain(&mut self.kv, &live);
            self.slots.retain(Option::is_some);
        } else if worth {
            // Nothing is left: the next request starts with the first row.
            if let Kv::Host(rows) = &mut self.kv {
                rows.clear();
                self.slots.clear();
            }
        }
    }

    /// Adds a token to an answer; the whole answer if that ends it.
    fn extend(&self, live: &mut Live, id: u32) -> Result<Option<Generation>> {
        let sampling = &self.requests[live.request].sampling;
        let tokenizer = &self.llm.tokenizer;
        let mut finish = None;
        if self.llm.config().eos.contains(&id) {
            finish = Some(Finish::Eos);
        } else {
            live.ids.push(id);
            if live.ids.len() >= sampling.max_tokens {
                finish = Some(Finish::Length);
            }
        }
        let mut text = None;
        if !sampling.stop.is_empty() {
            let whole = tokenizer.decode(&live.ids)?;
            let stop = sampling
                .stop
                .iter()
                .filter_map(|stop| whole.find(stop.as_str()))
                .min();
            if let Some(at) = stop {
                finish = Some(Finish::Stop);
                text = Some(whole[..at].to_owned());
            }
        }
        let Some(finish) = finish else {
            return Ok(None);
        };
        let text = match text {
            Some(text) => text,
            None => tokenizer.decode(&live.ids)?,
        };
        Ok(Some(Generation {
            token_ids: std::mem::take(&mut live.ids),
            text,
            finish,
        }))
    }

    fn finish(&mut self, request: usize, done: Generation) {
        self.done[request] = Some(done);
        self.progress.finished += 1;
    }
}
