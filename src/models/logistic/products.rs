//! Products of f32 rows with f64 vectors, whose additions have a fixed order.
//!
//! Multiplication and addition are rounded apart, which every processor does
//! alike, so that wider vectors change the time and not the bits.

#![expect(
    clippy::inline_always,
    reason = "only what is inlined into a function with vector features becomes vector code"
)]

use pulp::{Arch, Simd, WithSimd};

/// Accumulators of one dot product.
const LANES: usize = 8;
/// Rows that stay in the processor's cache while vectors pass.
const BLOCK: usize = 24;

/// `out[i · m + j]` = row i · vector j, for m vectors of length `dim`, close together.
pub(super) fn product(rows: &[f32], vectors: &[f64], dim: usize, out: &mut [f64]) {
    Arch::new().dispatch(Product {
        rows,
        vectors,
        dim,
        out,
    });
}

struct Product<'a> {
    rows: &'a [f32],
    vectors: &'a [f64],
    dim: usize,
    out: &'a mut [f64],
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self {
            rows,
            vectors,
            dim,
            out,
        } = self;
        let m = vectors.len() / dim;
        for (rows, out) in rows.chunks(BLOCK * dim).zip(out.chunks_mut(BLOCK * m)) {
            for (j, pair) in vectors.chunks(2 * dim).enumerate() {
                let (a, b) = pair.split_at(dim);
                for (i, rows) in rows.chunks(2 * dim).enumerate() {
                    let (first, second) = rows.split_at(dim);
                    let at = 2 * i * m + 2 * j;
                    match (second.is_empty(), b.is_empty()) {
                        (false, false) => {
                            let sums = tile([first, second], [a, b]);
                            out[at..][..2].copy_from_slice(&sums[0]);
                            out[at + m..][..2].copy_from_slice(&sums[1]);
                        }
                        (true, false) => out[at..][..2].copy_from_slice(&tile([first], [a, b])[0]),
                        (false, true) => {
                            let sums = tile([first, second], [a]);
                            (out[at], out[at + m]) = (sums[0][0], sums[1][0]);
                        }
                        (true, true) => out[at] = tile([first], [a])[0][0],
                    }
                }
            }
        }
    }
}

/// All dot products of `R` rows with `C` vectors; each is summed in the same order
/// whatever `R` and `C` are.
#[inline(always)]
fn tile<const R: usize, const C: usize>(rows: [&[f32]; R], vectors: [&[f64]; C]) -> [[f64; C]; R] {
    let (a, b) = (
        rows.map(<[f32]>::as_chunks::<LANES>),
        vectors.map(<[f64]>::as_chunks::<LANES>),
    );
    let steps = rows[0].len() / LANES;
    let (a_whole, b_whole) = (a.map(|row| &row.0[..steps]), b.map(|v| &v.0[..steps]));
    let mut sums = [[[0.0; LANES]; C]; R];
    for k in 0..steps {
        step(&mut sums, a_whole.map(|row| row[k]), b_whole.map(|v| v[k]));
    }
    if steps * LANES < rows[0].len() {
        step(
            &mut sums,
            a.map(|row| filled(row.1)),
            b.map(|v| filled(v.1)),
        );
    }
    sums.map(|row| row.map(|s| ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]))))
}

/// The rest of a vector, with zeros behind.
#[inline(always)]
fn filled<T: Copy + Default>(rest: &[T]) -> [T; LANES] {
    let mut out = [T::default(); LANES];
    out[..rest.len()].copy_from_slice(rest);
    out
}

/// Adds one product to every accumulator.
#[inline(always)]
fn step<const R: usize, const C: usize>(
    sums: &mut [[[f64; LANES]; C]; R],
    rows: [[f32; LANES]; R],
    vectors: [[f64; LANES]; C],
) {
    for r in 0..R {
        let row = rows[r].map(f64::from);
        for c in 0..C {
            for lane in 0..LANES {
                sums[r][c][lane] += row[lane] * vectors[c][lane];
            }
        }
    }
}

/// `out[j]` += Σᵢ `factors[i · m + j]` · row i, for m sums of length `dim`, close together.
pub(super) fn accumulate(rows: &[f32], factors: &[f64], dim: usize, out: &mut [f64]) {
    Arch::new().dispatch(Accumulate {
        rows,
        factors,
        dim,
        out,
    });
}

struct Accumulate<'a> {
    rows: &'a [f32],
    factors: &'a [f64],
    dim: usize,
    out: &'a mut [f64],
}

impl WithSimd for Accumulate<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self {
            rows,
            factors,
            dim,
            out,
        } = self;
        let m = out.len() / dim;
        for (rows, factors) in rows.chunks(BLOCK * dim).zip(factors.chunks(BLOCK * m)) {
            for (j, pair) in out.chunks_mut(2 * dim).enumerate() {
                let (a, b) = pair.split_at_mut(dim);
                let mut quads = rows.chunks_exact(4 * dim);
                let mut i = 0;
                for four in &mut quads {
                    let rows = [0, 1, 2, 3].map(|r| &four[r * dim..][..dim]);
                    let factor = |c: usize| [0, 1, 2, 3].map(|r| factors[(i + r) * m + 2 * j + c]);
                    if b.is_empty() {
                        add(rows, [factor(0)], [&mut *a]);
                    } else {
                        add(rows, [factor(0), factor(1)], [&mut *a, &mut *b]);
                    }
                    i += 4;
                }
                for row in quads.remainder().chunks(dim) {
                    let factor = |c: usize| [factors[i * m + 2 * j + c]];
                    add([row], [factor(0)], [&mut *a]);
                    if !b.is_empty() {
                        add([row], [factor(1)], [&mut *b]);
                    }
                    i += 1;
                }
            }
        }
    }
}

/// Adds `R` rows, times factors, to each of `C` sums.
#[inline(always)]
fn add<const R: usize, const C: usize>(
    rows: [&[f32]; R],
    factors: [[f64; R]; C],
    sums: [&mut [f64]; C],
) {
    let rows = rows.map(<[f32]>::as_chunks::<LANES>);
    let sums = sums.map(<[f64]>::as_chunks_mut::<LANES>);
    let steps = sums[0].0.len();
    let whole = rows.map(|row| &row.0[..steps]);
    for k in 0..steps {
        let row = whole.map(|row| row[k].map(f64::from));
        for c in 0..C {
            let mut more = [0.0; LANES];
            for r in 0..R {
                for lane in 0..LANES {
                    more[lane] += factors[c][r] * row[r][lane];
                }
            }
            for (sum, more) in sums[c].0[k].iter_mut().zip(more) {
                *sum += more;
            }
        }
    }
    for c in 0..C {
        for (k, sum) in sums[c].1.iter_mut().enumerate() {
            let mut more = 0.0;
            for r in 0..R {
                more += factors[c][r] * f64::from(rows[r].1[k]);
            }
            *sum += more;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(i: usize) -> f64 {
        ((i * 37 + i * i % 101) % 211) as f64 / 100.0 - 1.0
    }

    #[test]
    fn products_and_sums_equal_plain_loops_for_every_shape() {
        for (n, dim, m) in [
            (1, 1, 1),
            (2, 8, 2),
            (3, 7, 3),
            (25, 9, 1),
            (53, 19, 5),
            (96, 16, 4),
        ] {
            let rows: Vec<f32> = (0..n * dim).map(|i| wave(i) as f32).collect();
            let vectors: Vec<f64> = (0..m * dim).map(|i| wave(i + 5)).collect();
            let mut out = vec![f64::NAN; n * m];
            product(&rows, &vectors, dim, &mut out);
            let factors: Vec<f64> = (0..n * m).map(|i| wave(i + 9)).collect();
            let mut sums = vec![0.25; m * dim];
            accumulate(&rows, &factors, dim, &mut sums);
            for j in 0..m {
                for i in 0..n {
                    let terms =
                        (0..dim).map(|k| f64::from(rows[i * dim + k]) * vectors[j * dim + k]);
                    assert!((out[i * m + j] - terms.sum::<f64>()).abs() < 1e-12);
                }
                for k in 0..dim {
                    let terms = (0..n).map(|i| f64::from(rows[i * dim + k]) * factors[i * m + j]);
                    assert!((sums[j * dim + k] - 0.25 - terms.sum::<f64>()).abs() < 1e-12);
                }
            }
        }
    }

    #[test]
    fn a_product_has_the_same_bits_in_any_company() {
        let (dim, m) = (21, 3);
        let rows: Vec<f32> = (0..7 * dim).map(|i| wave(i) as f32).collect();
        let vectors: Vec<f64> = (0..m * dim).map(|i| wave(i + 5)).collect();
        let mut all = vec![0.0; 7 * m];
        product(&rows, &vectors, dim, &mut all);
        for i in 0..7 {
            for j in 0..m {
                let mut one = [0.0];
                product(
                    &rows[i * dim..][..dim],
                    &vectors[j * dim..][..dim],
                    dim,
                    &mut one,
                );
                assert_eq!(one[0].to_bits(), all[i * m + j].to_bits());
            }
        }
    }

    #[test]
    fn wider_vectors_change_no_bit() {
        let (dim, m, n) = (37, 3, 30);
        let rows: Vec<f32> = (0..n * dim).map(|i| wave(i) as f32 / 3.0).collect();
        let vectors: Vec<f64> = (0..m * dim).map(|i| wave(i + 5) / 7.0).collect();
        let (mut wide, mut narrow) = (vec![0.0; n * m], vec![0.0; n * m]);
        product(&rows, &vectors, dim, &mut wide);
        let work = Product {
            rows: &rows,
            vectors: &vectors,
            dim,
            out: &mut narrow,
        };
        Simd::vectorize(pulp::Scalar, work);
        assert_eq!(wide, narrow);
        let factors = wide;
        let (mut wide, mut narrow) = (vec![0.0; dim * m], vec![0.0; dim * m]);
        accumulate(&rows, &factors, dim, &mut wide);
        let work = Accumulate {
            rows: &rows,
            factors: &factors,
            dim,
            out: &mut narrow,
        };
        Simd::vectorize(pulp::Scalar, work);
        assert_eq!(wide, narrow);
    }
}
