//! A decoder on the CPU or on a device, and the memory of the rows it answers.

use std::sync::Arc;

use anyhow::{Result, bail};

use super::{config::Config, cpu, device, rope::RopeTable};

/// A decoder's weights where they compute.
#[derive(Debug)]
pub(super) enum Decoder {
    Cpu(Box<cpu::Decoder>),
    Device(Box<device::Decoder>),
}

/// A prompt that has been read: its keys and values, and what comes next.
#[derive(Clone, Debug)]
pub(super) struct Prompt {
    memory: PromptMemory,
    /// Logits after the last token.
    pub(super) logits: Arc<[f32]>,
}

#[derive(Clone, Debug)]
enum PromptMemory {
    Cpu(Arc<cpu::Run>),
    Device(device::Prompt),
}

/// Keys and values of the rows being answered.
#[derive(Debug)]
pub(super) enum Kv {
    Cpu(Vec<Option<cpu::Row>>),
    Device(device::Kv),
}

impl Decoder {
    /// Bytes of keys and values that a row of up to `longest` tokens takes.
    pub(super) fn row_bytes(&self, longest: usize) -> usize {
        match self {
            Self::Cpu(decoder) => longest.saturating_mul(decoder.kv_bytes()),
            Self::Device(decoder) => decoder.row_bytes(longest),
        }
    }

    /// Room for `rows` rows of up to `longest` tokens each, prompts of up to
    /// `longest_prompt` among them; none is given out.
    pub(super) fn memory(&self, rows: usize, longest: usize, longest_prompt: usize) -> Kv {
        match self {
            Self::Cpu(_) => Kv::Cpu((0..rows).map(|_| None).collect()),
            Self::Device(decoder) => Kv::Device(decoder.memory(rows, longest, longest_prompt)),
        }
    }

    /// Gives a row to a prompt and up to `max_tokens` tokens of an answer.
    pub(super) fn seat(
        &self,
        kv: &mut Kv,
        row: usize,
        prompt: &Prompt,
        max_tokens: usize,
    ) -> Result<()> {
        match (self, kv, &prompt.memory) {
            (Self::Cpu(decoder), Kv::Cpu(rows), PromptMemory::Cpu(run)) => {
                rows[row] = Some(decoder.row(run, max_tokens));
            }
            (_, Kv::Device(kv), PromptMemory::Device(prompt)) => kv.seat(row, prompt),
            _ => bail!("a prompt was read for another device"),
        }
        Ok(())
    }

    /// Takes a row back.
    pub(super) fn free(kv: &mut Kv, row: usize) {
        // On a device the next step finds the row without tokens.
        if let Kv::Cpu(rows) = kv {
            rows[row] = None;
        }
    }

    /// Keeps these rows only, in this order, which is ascending.
    pub(super) fn retain(&self, kv: &mut Kv, kept: &[usize]) {
        match (self, kv) {
            (Self::Device(decoder), Kv::Device(kv)) => decoder.retain(kv, kept),
            (_, Kv::Cpu(rows)) => {
                *rows = kept.iter().map(|&row| rows[row].take()).collect();
            }
            _ => {}
        }
    }

    /// Reads prompts, each of at least one token.
    pub(super) fn prefill(&self, prompts: &[&[u32]], rope: &RopeTable) -> Result<Vec<Prompt>> {
        let prompt = |memory, logits: Vec<f32>| Prompt {
            memory,
            logits: logits.into(),
        };
        Ok(match self {
            Self::Cpu(decoder) => (decoder.prefill(prompts, rope)?.into_iter())
                .map(|(run, logits)| prompt(PromptMemory::Cpu(run), logits))
                .collect(),
            Self::Device(decoder) => (decoder.prefill(prompts, rope)?.into_iter())
                .map(|(memory, logits)| prompt(PromptMemory::Device(memory), logits))
                .collect(),
        })
    }

    /// Adds tokens to rows, as many of each row's `waiting` ones as go at a
    /// time: how many, and the logits after the last of them for each row in
    /// turn, of which those of rows without waiting tokens mean nothing.
    ///
    /// `left` says how many tokens each row may still get.
    pub(super) fn decode(
        &self,
        kv: &mut Kv,
        waiting: &[&[u32]],
        left: &[usize],
        rope: &RopeTable,
    ) -> Result<(Vec<usize>, Logits)> {
        match (self, kv) {
            (Self::Cpu(decoder), Kv::Cpu(rows)) => {
                let (mut live, mut ids) = (Vec::new(), Vec::new());
                let mut places = vec![None; waiting.len()];
                for (i, (row, waiting)) in rows.iter_mut().zip(waiting).enumerate() {
                    if let Some(row) = row.as_mut().filter(|_| !waiting.is_empty()) {
                        places[i] = Some(live.len());
                        live.push(row);
                        ids.push(*waiting);
                    }
                }
                let values = decoder.decode(&mut live, &ids, rope);
                let taken = waiting.iter().map(|ids| ids.len()).collect();
                Ok((taken, Logits { values, places }))
            }
            (Self::Device(decoder), Kv::Device(kv)) => {
                let (taken, values) = decoder.decode(kv, waiting, left, rope)?;
                let places = (0..waiting.len()).map(Some).collect();
                Ok((taken, Logits { values, places }))
            }
            _ => bail!("a batch was begun on another device"),
        }
    }

    /// Logits [tokens, vocab] after every token of one text.
    pub(super) fn logits(&self, ids: &[u32]) -> Result<Vec<f32>> {
        match self {
            Self::Cpu(decoder) => Ok(decoder.logits(ids)),
            Self::Device(decoder) => decoder.logits(ids),
        }
    }

    /// What the model's configuration says.
    pub(super) fn config(&self) -> &Config {
        match self {
            Self::Cpu(decoder) => decoder.config(),
            Self::Device(decoder) => decoder.config(),
        }
    }
}

/// The logits of a step.
pub(super) struct Logits {
    values: Vec<f32>,
    /// Where each row's logits are.
    places: Vec<Option<usize>>,
}

impl Logits {
    /// Those of one row, which had tokens waiting.
    pub(super) fn of(&self, row: usize, vocab: usize) -> Option<&[f32]> {
        let place = (*self.places.get(row)?)?;
        self.values.get(place * vocab..(place + 1) * vocab)
    }
}
