//! Similarities of embeddings by one dot product whose additions have a fixed
//! order: the same bits on every machine, in any tile and on any thread.
//!
//! An accumulator per lane takes every eighth product; the lanes are then added
//! in a fixed tree. Multiplication and addition are rounded apart (no fused
//! multiply-add), which every processor does alike. Kinds compare similarities
//! for ties, so all of them must use this one.

/// Accumulators of one dot product.
const LANES: usize = 8;
/// Rows of the first factor that a tile takes at once.
const TILE: usize = 2;
/// Rows of the first factor that stay in the processor's cache.
const BLOCK: usize = 24;

/// The dot product of two vectors of the same length.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    tile([a], [b])[0][0]
}

/// `out[i · m + j]` = `rows[i]` · `columns[j]`, for `m` columns.
///
/// All vectors have the same length, and `out` has room for all pairs. Equal
/// to [`dot`] bit for bit.
pub(super) fn product(rows: &[&[f32]], columns: &[&[f32]], out: &mut [f32]) {
    let m = columns.len();
    for (block, first) in rows.chunks(BLOCK).zip((0..).step_by(BLOCK)) {
        let (column_pairs, last_column) = columns.as_chunks::<TILE>();
        let (row_pairs, last_row) = block.as_chunks::<TILE>();
        for (j, pair) in column_pairs.iter().enumerate() {
            let at = |i: usize| (first + i) * m + TILE * j;
            for (i, row) in row_pairs.iter().enumerate() {
                for (r, sums) in tile(*row, *pair).iter().enumerate() {
                    out[at(TILE * i + r)..][..TILE].copy_from_slice(sums);
                }
            }
            for (i, row) in last_row.iter().enumerate() {
                let i = TILE * row_pairs.len() + i;
                out[at(i)..][..TILE].copy_from_slice(&tile([*row], *pair)[0]);
            }
        }
        for column in last_column {
            for (i, row) in block.iter().enumerate() {
                out[(first + i) * m + m - 1] = dot(row, column);
            }
        }
    }
}

/// All dot products of `R` with `C` vectors; each is summed in the same order
/// whatever `R` and `C` are.
#[expect(
    clippy::inline_always,
    reason = "one copy a shape keeps the accumulators in registers"
)]
#[inline(always)]
fn tile<const R: usize, const C: usize>(rows: [&[f32]; R], columns: [&[f32]; C]) -> [[f32; C]; R] {
    let steps = rows[0].len() / LANES;
    let (a, b) = (
        rows.map(|row| row.as_chunks().0),
        columns.map(|column| column.as_chunks().0),
    );
    let (a, b) = (a.map(|row| &row[..steps]), b.map(|column| &column[..steps]));
    let mut sums = [[[0.0; LANES]; C]; R];
    for k in 0..steps {
        step(&mut sums, a.map(|row| row[k]), b.map(|column| column[k]));
    }
    if steps * LANES < rows[0].len() {
        step(&mut sums, rows.map(rest), columns.map(rest));
    }
    sums.map(|row| row.map(|s| ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]))))
}

/// Adds one product to every accumulator. All indices are known when this is
/// compiled: one that is not would take the accumulators out of registers.
#[expect(clippy::inline_always, reason = "as for its caller")]
#[inline(always)]
fn step<const R: usize, const C: usize>(
    sums: &mut [[[f32; LANES]; C]; R],
    rows: [[f32; LANES]; R],
    columns: [[f32; LANES]; C],
) {
    for r in 0..R {
        for c in 0..C {
            for lane in 0..LANES {
                sums[r][c][lane] += rows[r][lane] * columns[c][lane];
            }
        }
    }
}

/// What is left of a vector after whole steps, filled up with zeros.
fn rest(vector: &[f32]) -> [f32; LANES] {
    let (_, left) = vector.as_chunks::<LANES>();
    let mut filled = [0.0; LANES];
    filled[..left.len()].copy_from_slice(left);
    filled
}

/// The index of the largest value; of equal ones the first.
pub(super) fn argmax<T: PartialOrd>(values: &[T]) -> usize {
    let mut best = 0;
    for (i, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = i;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The order of additions, written as plainly as it can be.
    fn plain(a: &[f32], b: &[f32]) -> f32 {
        let lane = |lane: usize| {
            let mut sum = 0.0_f32;
            for k in (lane..a.len()).step_by(8) {
                sum += a[k] * b[k];
            }
            sum
        };
        let far = |i: usize| lane(i) + lane(i + 4);
        (far(0) + far(2)) + (far(1) + far(3))
    }

    #[test]
    fn a_dot_product_is_what_the_hand_computes() {
        assert_eq!(
            dot(&[1.0, 2.0, 3.0], &[4.0, 5.0, -6.0]).to_bits(),
            (-4.0_f32).to_bits()
        );
        assert_eq!(dot(&[], &[]).to_bits(), 0.0_f32.to_bits());
        // 2^24 + 1 is lost when both fall to one lane, and kept when they do not.
        let (big, one) = (16_777_216.0_f32, 1.0_f32);
        let mut a = [0.0_f32; 10];
        (a[0], a[8], a[9]) = (big, one, one);
        assert_eq!(dot(&a, &[1.0; 10]).to_bits(), big.to_bits());
    }

    #[test]
    fn the_first_of_equal_values_is_the_largest() {
        assert_eq!(argmax(&[1.0_f32, 3.0, 3.0, 2.0]), 1);
        assert_eq!(argmax(&[-1.0_f32]), 0);
    }

    proptest! {
        #[test]
        fn every_shape_of_product_has_the_bits_of_the_plain_order(
            n in 0_usize..60, m in 0_usize..6, dim in 1_usize..40, seed in any::<u64>(),
        ) {
            let mut state = seed | 1;
            let mut draw = |count: usize| -> Vec<f32> {
                (0..count)
                    .map(|_| {
                        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        (state >> 40) as f32 / 8_388_608.0 - 1.0
                    })
                    .collect()
            };
            let (rows, columns) = (draw(n * dim), draw(m * dim));
            let rows: Vec<&[f32]> = rows.chunks(dim).collect();
            let columns: Vec<&[f32]> = columns.chunks(dim).collect();
            let mut out = vec![f32::NAN; n * m];
            product(&rows, &columns, &mut out);
            for (i, row) in rows.iter().enumerate() {
                for (j, column) in columns.iter().enumerate() {
                    prop_assert_eq!(out[i * m + j].to_bits(), plain(row, column).to_bits());
                    prop_assert_eq!(dot(row, column).to_bits(), plain(row, column).to_bits());
                }
            }
        }
    }
}
