//! Keys and values in host memory, and attention over them, for the CPU.
//!
//! Every row has its own length, nothing is padded, and a row's sums run in an
//! order that depends on that row alone: its answer cannot depend on the batch.

use std::sync::Arc;

use rayon::prelude::*;

use super::{config::Config, rope::RopeTable};

/// Independent partial sums of a dot product.
const LANES: usize = 16;
/// Products a task must be worth before work is spread over threads.
const TASK: usize = 1 << 15;

/// Widths that attention needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    heads: usize,
    kv_heads: usize,
    dim: usize,
    window: usize,
}

impl Shape {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            heads: config.heads,
            kv_heads: config.kv_heads,
            dim: config.head_dim,
            window: config.window.unwrap_or(usize::MAX),
        }
    }

    /// Query heads that share a key and value head.
    fn group(self) -> usize {
        self.heads / self.kv_heads
    }

    /// Numbers of one token: queries, keys and values.
    fn width(self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.dim
    }
}

/// Keys and values of one layer for a run of positions: [`kv_heads`, capacity, dim].
#[derive(Clone, Debug, Default)]
struct Layer {
    keys: Vec<f32>,
    values: Vec<f32>,
}

/// Keys and values of successive positions in every layer.
#[derive(Clone, Debug)]
pub(super) struct Run {
    layers: Vec<Layer>,
    capacity: usize,
    pub(super) len: usize,
}

impl Run {
    pub(super) fn new(config: &Config, capacity: usize) -> Self {
        let size = config.kv_heads * capacity * config.head_dim;
        let layer = Layer {
            keys: vec![0.0; size],
            values: vec![0.0; size],
        };
        Self {
            layers: vec![layer; config.layers],
            capacity,
            len: 0,
        }
    }

    /// Writes one token's keys and values at `at`.
    fn put(&mut self, layer: usize, at: usize, keys: &[f32], values: &[f32], dim: usize) {
        let capacity = self.capacity;
        let layer = &mut self.layers[layer];
        for (store, new) in [(&mut layer.keys, keys), (&mut layer.values, values)] {
            for (head, new) in new.chunks_exact(dim).enumerate() {
                let start = (head * capacity + at) * dim;
                store[start..start + dim].copy_from_slice(new);
            }
        }
    }

    /// One head's keys and values of the first `len` positions.
    fn head(&self, layer: usize, head: usize, len: usize, dim: usize) -> (&[f32], &[f32]) {
        let start = head * self.capacity * dim;
        let range = start..start + len * dim;
        let layer = &self.layers[layer];
        (&layer.keys[range.clone()], &layer.values[range])
    }
}

/// What one row has seen: a prompt, perhaps shared with other rows, and its own answer.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) prompt: Arc<Run>,
    pub(super) answer: Run,
}

/// Attention over prompts that start from nothing and lie one after another.
///
/// `qkv` is [tokens, width]; the result is [tokens, heads * dim], zeros for
/// tokens that belong to no prompt.
pub(super) fn prefill(
    mut qkv: Vec<f32>,
    layer: usize,
    runs: &mut [Run],
    lengths: &[usize],
    shape: Shape,
    rope: &RopeTable,
) -> Vec<f32> {
    let width = shape.width();
    let mut places = Vec::new();
    for (index, (run, &len)) in runs.iter_mut().zip(lengths).enumerate() {
        for position in 0..len {
            let token = &mut qkv[places.len() * width..][..width];
            place(token, position, run, layer, position, shape, rope);
            places.push((index, position));
        }
    }
    let runs = &*runs;
    let mut out = vec![0.0; qkv.len() / width * shape.heads * shape.dim];
    attend(
        &mut out,
        &qkv,
        shape,
        &places,
        |&(index, position), head| {
            let (keys, values) = runs[index].head(layer, head, position + 1, shape.dim);
            [(keys, values), (&[], &[])]
        },
    );
    out
}

/// Attention of one new token for each row, which joins the row's answer.
///
/// The caller counts the token in after the last layer.
pub(super) fn decode(
    mut qkv: Vec<f32>,
    layer: usize,
    rows: &mut [Row],
    shape: Shape,
    rope: &RopeTable,
) -> Vec<f32> {
    let width = shape.width();
    for (row, token) in rows.iter_mut().zip(qkv.chunks_exact_mut(width)) {
        let at = row.answer.len;
        place(
            token,
            row.prompt.len + at,
            &mut row.answer,
            layer,
            at,
            shape,
            rope,
        );
    }
    let rows = &*rows;
    let mut out = vec![0.0; qkv.len() / width * shape.heads * shape.dim];
    attend(&mut out, &qkv, shape, rows, |row, head| {
        let (prompt, answer) = (&row.prompt, &row.answer);
        [
            prompt.head(layer, head, prompt.len, shape.dim),
            answer.head(layer, head, answer.len + 1, shape.dim),
        ]
    });
    out
}

/// Turns a token's queries and keys to its position and stores keys and values.
fn place(
    token: &mut [f32],
    position: usize,
    run: &mut Run,
    layer: usize,
    at: usize,
    shape: Shape,
    rope: &RopeTable,
) {
    let (turned, values) = token.split_at_mut((shape.heads + shape.kv_heads) * shape.dim);
    rope.turn(turned, position);
    run.put(
        layer,
        at,
        &turned[shape.heads * shape.dim..],
        values,
        shape.dim,
    );
}

/// Fills `out` for each token and key head; `seen` gives keys and values in two parts.
fn attend<'a, T: Sync>(
    out: &mut [f32],
    qkv: &[f32],
    shape: Shape,
    tokens: &'a [T],
    seen: impl Fn(&'a T, usize) -> [(&'a [f32], &'a [f32]); 2] + Sync,
) {
    let chunk = shape.group() * shape.dim;
    let work = |(index, out): (usize, &mut [f32])| {
        let (token, head) = (index / shape.kv_heads, index % shape.kv_heads);
        let queries = &qkv[token * shape.width() + head * chunk..][..chunk];
        if let Some(token) = tokens.get(token) {
            let parts = visible(seen(token, head), shape);
            for (query, out) in
                (queries.chunks_exact(shape.dim)).zip(out.chunks_exact_mut(shape.dim))
            {
                one(query, &parts, out);
            }
        }
    };
    // A guess at the length seen is enough to decide how to share the work.
    let products = tokens.first().map_or(0, |token| {
        seen(token, 0).iter().map(|part| part.0.len()).sum()
    });
    let least = (TASK / (products * shape.group()).max(1)).max(1);
    out.par_chunks_mut(chunk)
        .enumerate()
        .with_min_len(least)
        .for_each(work);
}

/// Leaves out what the window hides.
fn visible<'a>(parts: [(&'a [f32], &'a [f32]); 2], shape: Shape) -> [(&'a [f32], &'a [f32]); 2] {
    let len: usize = parts.iter().map(|part| part.0.len() / shape.dim).sum();
    let mut hidden = len.saturating_sub(shape.window) * shape.dim;
    parts.map(|(keys, values)| {
        let cut = hidden.min(keys.len());
        hidden -= cut;
        (&keys[cut..], &values[cut..])
    })
}

/// Softmax attention of one query head.
fn one(query: &[f32], parts: &[(&[f32], &[f32]); 2], out: &mut [f32]) {
    let dim = query.len();
    let scale = 1.0 / (dim as f32).sqrt();
    let mut scores: Vec<f32> = (parts.iter())
        .flat_map(|(keys, _)| keys.chunks_exact(dim))
        .map(|key| dot(query, key) * scale)
        .collect();
    let highest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut total = 0.0;
    for score in &mut scores {
        *score = (*score - highest).exp();
        total += *score;
    }
    let values = parts
        .iter()
        .flat_map(|(_, values)| values.chunks_exact(dim));
    for (weight, value) in scores.iter().zip(values) {
        for (out, value) in out.iter_mut().zip(value) {
            *out += weight * value;
        }
    }
    for out in out {
        *out /= total;
    }
}

/// A dot product whose order of sums depends on its length only.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (a, a_rest) = a.as_chunks::<LANES>();
    let (b, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a.iter().zip(b) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += a * b;
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    lanes.iter().sum::<f32>() + rest
}
