//! Keys and values in host memory.
//!
//! Every row has its own length and nothing is padded. What a row has seen is a
//! prompt, perhaps shared with other rows, and the row's own tokens.

use std::sync::Arc;

use rayon::prelude::*;

use crate::models::llm::{config::Config, rope::RopeTable};

/// Numbers that are worth spreading over threads.
const SPREAD: usize = 1 << 14;

/// Widths that attention needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) dim: usize,
    /// How many tokens a token sees, itself included.
    pub(super) window: usize,
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
    pub(super) fn group(self) -> usize {
        self.heads / self.kv_heads
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
pub(in crate::models::llm) struct Run {
    layers: Vec<Layer>,
    capacity: usize,
    /// Positions in use.
    pub(in crate::models::llm) len: usize,
}

impl Run {
    pub(in crate::models::llm) fn new(config: &Config, capacity: usize) -> Self {
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

    /// One head's keys and values of the positions from `from` to `to`.
    pub(super) fn head(
        &self,
        layer: usize,
        head: usize,
        [from, to]: [usize; 2],
        dim: usize,
    ) -> (&[f32], &[f32]) {
        let start = head * self.capacity;
        let range = (start + from) * dim..(start + to) * dim;
        let layer = &self.layers[layer];
        (&layer.keys[range.clone()], &layer.values[range])
    }
}

/// What one row has seen.
#[derive(Debug)]
pub(in crate::models::llm) struct Row {
    pub(super) prompt: Arc<Run>,
    pub(super) answer: Run,
}

impl Row {
    pub(in crate::models::llm) fn new(prompt: &Arc<Run>, answer: Run) -> Self {
        Self {
            prompt: Arc::clone(prompt),
            answer,
        }
    }
}

/// Turns the queries and keys of new tokens to their positions and stores keys
/// and values; `lengths` says how many tokens each row has. The caller counts
/// them in after the last layer.
#[expect(
    clippy::too_many_arguments,
    reason = "three matrices and where they go"
)]
pub(super) fn place(
    q: &mut [f32],
    k: &mut [f32],
    v: &[f32],
    layer: usize,
    rows: &mut [&mut Row],
    lengths: &[usize],
    shape: Shape,
    rope: &RopeTable,
) {
    let (wide, narrow) = (shape.heads * shape.dim, shape.kv_heads * shape.dim);
    let mut work = Vec::with_capacity(rows.len());
    let (mut q, mut k, mut v) = (q, k, v);
    for (row, &len) in rows.iter_mut().zip(lengths) {
        let (queries, rest) = q.split_at_mut(len * wide);
        q = rest;
        let (keys, rest) = k.split_at_mut(len * narrow);
        k = rest;
        let (values, rest) = v.split_at(len * narrow);
        v = rest;
        work.push((row, queries, keys, values));
    }
    let least = SPREAD / (wide + narrow) + 1;
    (work.into_par_iter())
        .with_min_len(least)
        .for_each(|(row, queries, keys, values)| {
            let tokens = (queries.chunks_exact_mut(wide))
                .zip(keys.chunks_exact_mut(narrow))
                .zip(values.chunks_exact(narrow));
            for (i, ((queries, keys), values)) in tokens.enumerate() {
                let at = row.answer.len + i;
                rope.turn(queries, row.prompt.len + at);
                rope.turn(keys, row.prompt.len + at);
                row.answer.put(layer, at, keys, values, shape.dim);
            }
        });
}
