//! Attention of new tokens over everything that their rows have seen.

use rayon::prelude::*;

use super::cache::{Row, Shape};
use crate::models::cpu;

/// Products that are worth a task of their own.
const TASK: usize = 1 << 15;

/// Fills `out` [tokens, heads · dim] from turned queries of the same shape, whose
/// keys and values are stored already; `lengths` says how many tokens each row has.
///
/// A token's sums run in an order that depends on its own row alone.
pub(super) fn attend(
    out: &mut [f32],
    q: &[f32],
    layer: usize,
    rows: &[&mut Row],
    lengths: &[usize],
    shape: Shape,
) {
    let tokens: Vec<(&Row, usize)> = (rows.iter().zip(lengths))
        .flat_map(|(row, &len)| (0..len).map(move |i| (&**row, row.answer.len + i + 1)))
        .collect();
    let chunk = shape.group() * shape.dim;
    // A guess at the length seen is enough to decide how to share the work.
    let seen = tokens.last().map_or(0, |(row, own)| row.prompt.len + own);
    let least = TASK / (seen * chunk).max(1) + 1;
    (out.par_chunks_mut(chunk)
        .zip(q.par_chunks(chunk))
        .enumerate())
    .with_min_len(least)
    .for_each(|(index, (out, queries))| {
        let (token, head) = (index / shape.kv_heads, index % shape.kv_heads);
        let (row, own) = tokens[token];
        let read = row.prompt.len;
        let hidden = (read + own).saturating_sub(shape.window);
        let parts = [
            row.prompt
                .head(layer, head, [hidden.min(read), read], shape.dim),
            row.answer
                .head(layer, head, [hidden.saturating_sub(read), own], shape.dim),
        ];
        cpu::attention(queries, &parts, shape.dim, out);
    });
}
