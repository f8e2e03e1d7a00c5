//! Attention of one token over what it has seen, for heads that share keys.
//!
//! Keys and values pass through the cache once for all the query heads that
//! share them. Scores are dot products by whole vectors, and values are summed
//! from the first to the last: neither depends on where one run of keys ends and
//! the next begins.

use std::cell::RefCell;

use pulp::{Simd, WithSimd};

use super::{dispatch, rows::softmax_of};

/// Keys whose scores are summed side by side.
const ABREAST: usize = 4;
/// Vectors of a value that are summed side by side.
const VECTORS: usize = 8;
/// Values that stay in the first-level cache while the heads pass.
const VALUES: usize = 32;

thread_local! {
    /// Scores, then weights: [heads, keys].
    static SCORES: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// softmax(q · keysᵀ / √dim) · values for every query head of `queries`
/// [heads, dim], in `out` [heads, dim]. Keys and values come in runs one after
/// another, each [len, dim]. Without any keys the result is zero.
///
/// # Panics
/// When `out` is not as long as `queries`, or a run has keys without values.
pub(crate) fn attention(queries: &[f32], runs: &[(&[f32], &[f32])], dim: usize, out: &mut [f32]) {
    assert_eq!(queries.len(), out.len(), "numbers of the result");
    let keys: usize = runs.iter().map(|(keys, _)| keys.len() / dim).sum();
    let heads = queries.len() / dim;
    out.fill(0.0);
    if keys == 0 {
        return;
    }
    SCORES.with_borrow_mut(|scores| {
        scores.resize(heads * keys, 0.0);
        dispatch(Attention {
            queries,
            runs,
            dim,
            keys,
            scores,
            out,
        });
    });
}

struct Attention<'a> {
    queries: &'a [f32],
    runs: &'a [(&'a [f32], &'a [f32])],
    dim: usize,
    keys: usize,
    scores: &'a mut [f32],
    out: &'a mut [f32],
}

impl WithSimd for Attention<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self {
            queries,
            dim,
            keys: all,
            ..
        } = self;
        let mut first = 0;
        for (keys, _) in self.runs {
            for keys in keys.chunks(ABREAST * dim) {
                let count = keys.len() / dim;
                let heads = self.scores.chunks_exact_mut(all);
                for (query, scores) in queries.chunks_exact(dim).zip(heads) {
                    let scores = &mut scores[first..first + count];
                    if count == ABREAST {
                        dots::<S, ABREAST>(simd, query, keys, scores);
                    } else {
                        for (key, score) in keys.chunks_exact(dim).zip(scores.chunks_mut(1)) {
                            dots::<S, 1>(simd, query, key, score);
                        }
                    }
                }
                first += count;
            }
        }
        let scale = 1.0 / (dim as f32).sqrt();
        for scores in self.scores.chunks_exact_mut(all) {
            softmax_of(scores, scale);
        }
        let mut first = 0;
        for (_, values) in self.runs {
            for values in values.chunks(VALUES * dim) {
                let count = values.len() / dim;
                let heads = self.out.chunks_exact_mut(dim);
                for (out, weights) in heads.zip(self.scores.chunks_exact(all)) {
                    let weights = &weights[first..first + count];
                    let mut column = 0;
                    while dim - column >= VECTORS * S::F32_LANES {
                        weigh::<S, VECTORS>(simd, weights, values, column, out);
                        column += VECTORS * S::F32_LANES;
                    }
                    while dim - column >= S::F32_LANES {
                        weigh::<S, 1>(simd, weights, values, column, out);
                        column += S::F32_LANES;
                    }
                    for (column, out) in out.iter_mut().enumerate().skip(column) {
                        for (weight, value) in weights.iter().zip(values.chunks_exact(dim)) {
                            *out += weight * value[column];
                        }
                    }
                }
                first += count;
            }
        }
    }
}

/// The dot products of a query and `N` keys that lie one after another.
#[inline(always)]
fn dots<S: Simd, const N: usize>(simd: S, query: &[f32], keys: &[f32], scores: &mut [f32]) {
    let dim = query.len();
    let (query, tail) = S::as_simd_f32s(query);
    let keys: [(&[S::f32s], &[f32]); N] =
        std::array::from_fn(|j| S::as_simd_f32s(&keys[j * dim..][..dim]));
    let mut sums = [simd.splat_f32s(0.0); N];
    for (i, query) in query.iter().enumerate() {
        for (sum, (key, _)) in sums.iter_mut().zip(keys) {
            *sum = simd.mul_add_e_f32s(*query, key[i], *sum);
        }
    }
    if !tail.is_empty() {
        let query = simd.partial_load_f32s(tail);
        for (sum, (_, key)) in sums.iter_mut().zip(keys) {
            *sum = simd.mul_add_e_f32s(query, simd.partial_load_f32s(key), *sum);
        }
    }
    for (score, sum) in scores.iter_mut().zip(sums) {
        *score = simd.reduce_sum_f32s(sum);
    }
}

/// Adds the weighted sum of `values`, of `N` vectors from `column` on, to `out`.
#[inline(always)]
fn weigh<S: Simd, const N: usize>(
    simd: S,
    weights: &[f32],
    values: &[f32],
    column: usize,
    out: &mut [f32],
) {
    let dim = out.len();
    let columns = column..column + N * S::F32_LANES;
    let (out, _) = S::as_mut_simd_f32s(&mut out[columns.clone()]);
    let mut sums: [S::f32s; N] = std::array::from_fn(|i| out[i]);
    for (weight, value) in weights.iter().zip(values.chunks_exact(dim)) {
        let weight = simd.splat_f32s(*weight);
        let (value, _) = S::as_simd_f32s(&value[columns.clone()]);
        for (sum, value) in sums.iter_mut().zip(value) {
            *sum = simd.mul_add_e_f32s(weight, *value, *sum);
        }
    }
    out.copy_from_slice(&sums);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::cpu::tests::{at_every_width, error, numbers};

    fn defined(queries: &[f32], keys: &[f32], values: &[f32], dim: usize) -> Vec<f64> {
        let mut out = Vec::new();
        for query in queries.chunks(dim) {
            let dot = |key: &[f32]| -> f64 {
                (query.iter().zip(key))
                    .map(|(q, k)| f64::from(*q) * f64::from(*k))
                    .sum()
            };
            let weights = keys
                .chunks(dim)
                .map(|key| (dot(key) / (dim as f64).sqrt()).exp());
            let weights: Vec<f64> = weights.collect();
            let total: f64 = weights.iter().sum();
            out.extend((0..dim).map(|column| {
                let weighed = weights.iter().zip(values.chunks(dim));
                weighed.map(|(w, v)| w * f64::from(v[column])).sum::<f64>() / total
            }));
        }
        out
    }

    #[test]
    fn attention_is_its_definition_wherever_the_runs_are_cut() {
        at_every_width(|| {
            for dim in [1, 5, 16, 64, 77, 128, 160] {
                for (heads, len) in [(1, 1), (4, 7), (3, 50), (2, 131)] {
                    let queries = numbers(heads * dim, 1);
                    let (keys, values) = (numbers(len * dim, 2), numbers(len * dim, 3));
                    let expected = defined(&queries, &keys, &values, dim);
                    let mut whole: Option<Vec<f32>> = None;
                    for cut in [0, 1, len / 2, len - 1, len] {
                        let (first, second) =
                            (keys.split_at(cut * dim), values.split_at(cut * dim));
                        let runs = [(first.0, second.0), (first.1, second.1)];
                        let mut out = vec![f32::NAN; heads * dim];
                        attention(&queries, &runs, dim, &mut out);
                        assert!(error(&out, &expected) < 1e-6, "{dim} {heads} {len} {cut}");
                        let whole = whole.get_or_insert_with(|| out.clone());
                        assert_eq!(*whole, out, "{dim} {heads} {len} {cut}");
                    }
                    // A head alone has the same bits.
                    let mut out = vec![f32::NAN; dim];
                    attention(&queries[..dim], &[(&keys, &values)], dim, &mut out);
                    assert!(whole.unwrap().starts_with(&out));
                }
            }
        });
    }

    #[test]
    fn nothing_seen_gives_zeros() {
        let mut out = [1.0; 4];
        attention(&[1.0; 4], &[(&[], &[])], 2, &mut out);
        assert!(out.iter().all(|x| *x == 0.0));
    }
}
