//! Normalization and softmax of rows.

use super::{activation::exp, dispatch};

/// Layer normalization of every row of `x`, which are as long as `weight` and
/// `bias`: (x - mean) / √(variance + ε) · weight + bias.
pub(crate) fn layer_norm(x: &mut [f32], weight: &[f32], bias: &[f32], epsilon: f32) {
    let width = weight.len();
    dispatch(|| {
        for row in x.chunks_exact_mut(width) {
            let mean = sum(row, |x| x) / width as f32;
            let variance = sum(row, |x| (x - mean) * (x - mean)) / width as f32;
            let factor = 1.0 / (variance + epsilon).sqrt();
            for ((x, weight), bias) in row.iter_mut().zip(weight).zip(bias) {
                *x = (*x - mean) * factor * weight + bias;
            }
        }
    });
}

/// Root-mean-square normalization (Zhang and Sennrich, 2019) of every row of
/// `x`, which are as long as `weight`: x / √(mean of x² + ε) · weight, in `out`.
pub(crate) fn rms_norm(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    let width = weight.len();
    if width == 0 {
        return;
    }
    dispatch(|| {
        for (row, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
            let factor = 1.0 / (sum(row, |x| x * x) / width as f32 + epsilon).sqrt();
            for ((out, x), weight) in out.iter_mut().zip(row).zip(weight) {
                *out = x * factor * weight;
            }
        }
    });
}

/// softmax(scale · row) over the first `seen` places; the others become 0.
pub(crate) fn softmax(row: &mut [f32], seen: usize, scale: f32) {
    let (row, hidden) = row.split_at_mut(seen);
    hidden.fill(0.0);
    dispatch(|| softmax_of(row, scale));
}

/// softmax(scale · row), as part of another kernel.
#[inline(always)]
pub(super) fn softmax_of(row: &mut [f32], scale: f32) {
    let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    for x in &mut *row {
        *x = exp((*x - largest) * scale);
    }
    let factor = 1.0 / sum(row, |x| x);
    for x in &mut *row {
        *x *= factor;
    }
}

/// The sum of `f` of every number, in sixteen parts, which is vector code and
/// rounds less.
#[inline(always)]
fn sum(xs: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut parts = [0.0_f32; 16];
    let (chunks, rest) = xs.as_chunks::<16>();
    for chunk in chunks {
        for (part, x) in parts.iter_mut().zip(chunk) {
            *part += f(*x);
        }
    }
    for (part, x) in parts.iter_mut().zip(rest) {
        *part += f(*x);
    }
    parts.iter().sum()
}
