//! Products with weights against their definition, and bit for bit against themselves.

use rayon::ThreadPool;

use super::*;
use crate::models::cpu::tests::{at_every_width, error, numbers};

const FORMATS: [Format; 3] = [Format::F32, Format::Bf16, Format::F16];
/// Outputs and inputs, most of them multiples of nothing.
const SHAPES: [[usize; 2]; 4] = [[1, 1], [5, 7], [33, 40], [70, 261]];
/// Rows, more than are computed at a time.
const MOST: usize = 200;

fn pools() -> Vec<ThreadPool> {
    let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    (1..=3).map(|threads| pool(threads).unwrap()).collect()
}

fn dense(format: Format, n: usize, k: usize, numbers: &[f32]) -> Weight {
    Weight::dense(format, n, k, |i, row| {
        row.copy_from_slice(&numbers[i * k..][..k]);
    })
}

/// All rows of a weight.
fn rows_of(weight: &Weight) -> Vec<f32> {
    let mut all = vec![0.0; weight.n * weight.k];
    for (i, row) in all.chunks_mut(weight.k).enumerate() {
        weight.row(i, row);
    }
    all
}

/// x · weightᵀ in f64.
fn defined(weight: &[f32], x: &[f32], k: usize) -> Vec<f64> {
    let dot = |x: &[f32], w: &[f32]| {
        (x.iter().zip(w))
            .map(|(x, w)| f64::from(*x) * f64::from(*w))
            .sum()
    };
    (x.chunks(k))
        .flat_map(|x| weight.chunks(k).map(move |w| dot(x, w)))
        .collect()
}

fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|x| x.to_bits()).collect()
}

/// Runs `product` (rows, how many, result) for 1 to 130 rows and some more on 1 to
/// 3 threads, for fewer numbers where a weight is not small; every row must have
/// the bits that it has alone. The result of all rows.
fn same_bits_always(
    pools: &[ThreadPool],
    x: &[f32],
    [n, k]: [usize; 2],
    product: impl Fn(&[f32], usize, &mut [f32]) + Sync,
) -> Vec<f32> {
    let mut alone = vec![0.0; MOST * n];
    for (x, out) in x.chunks(k).zip(alone.chunks_mut(n)) {
        product(x, 1, out);
    }
    let small = n * k < 1500;
    let some = [25, 36, 37, 64, 130, 193, MOST];
    let counts = (1..=130).chain([191, 192, 193, MOST]);
    for m in counts.filter(|m| small || *m < 15 || some.contains(m)) {
        // All pools for some, the next one for the rest.
        let pools = if m < 4 || m % 13 == 0 {
            pools
        } else {
            &pools[m % pools.len()..][..1]
        };
        for pool in pools {
            let mut out = vec![f32::NAN; m * n];
            in_pool(pool, || product(&x[..m * k], m, &mut out));
            assert_eq!(bits(&out), bits(&alone[..m * n]), "{m} rows of {k} to {n}");
        }
    }
    alone
}

/// Does `work` with `pool` as the current one, with this thread's vectors.
fn in_pool(pool: &ThreadPool, work: impl FnOnce() + Send) {
    let vectors = crate::models::cpu::tests::VECTORS.get();
    pool.install(|| {
        let before = crate::models::cpu::tests::VECTORS.replace(vectors);
        work();
        crate::models::cpu::tests::VECTORS.set(before);
    });
}

#[test]
fn a_row_has_the_same_bits_among_any_number_of_rows_and_threads() {
    let pools = pools();
    at_every_width(|| {
        for format in FORMATS {
            for [n, k] in SHAPES {
                let (w, x) = (numbers(n * k, 1), numbers(MOST * k, 2));
                let weight = dense(format, n, k, &w);
                let out = same_bits_always(&pools, &x, [n, k], |x, m, out| {
                    weight.product(x, m, None, out);
                });
                let off = error(&out, &defined(&rows_of(&weight), &x, k));
                assert!(off < 1e-6, "{format:?} {n} {k}: {off:e}");
            }
        }
    });
}

#[test]
fn a_gated_product_is_made_of_two() {
    let pools = pools();
    at_every_width(|| {
        for format in FORMATS {
            for [n, k] in SHAPES {
                let x = numbers(MOST * k, 2);
                let [gate, up] = [1, 3].map(|seed| dense(format, n, k, &numbers(n * k, seed)));
                let [gates, ups] = [&gate, &up].map(|weight| defined(&rows_of(weight), &x, k));
                let gated = Gated::new(gate, up);
                let out = same_bits_always(&pools, &x, [n, k], |x, m, out| {
                    gated.product(x, m, out);
                });
                let expected: Vec<f64> = (gates.iter().zip(&ups))
                    .map(|(g, u)| g / (1.0 + (-g).exp()) * u)
                    .collect();
                let off = error(&out, &expected);
                assert!(off < 2e-6, "{format:?} {n} {k}: {off:e}");
            }
        }
    });
}

#[test]
fn rows_of_a_weight_are_those_it_was_made_of_rounded_to_its_format() {
    at_every_width(|| {
        for [n, k] in SHAPES {
            let w = numbers(n * k, 5);
            for format in FORMATS {
                let rounded: Vec<f32> = (w.iter())
                    .map(|x| match format {
                        Format::F32 => *x,
                        Format::Bf16 => half::bf16::from_f32(*x).to_f32(),
                        Format::F16 => half::f16::from_f32(*x).to_f32(),
                    })
                    .collect();
                assert_eq!(rows_of(&dense(format, n, k, &w)), rounded);
            }
        }
    });
}

#[test]
fn a_product_ends_with_a_residual_of_either_kind() {
    at_every_width(|| {
        for m in [1, 3, 20] {
            let [n, k] = [70, 300];
            let (x, rest) = (numbers(m * k, 2), numbers(m * n, 4));
            let weight = dense(Format::Bf16, n, k, &numbers(n * k, 1));
            let mut out = vec![0.0; m * n];
            weight.product(&x, m, Some(&rest), &mut out);
            let mut expected = defined(&rows_of(&weight), &x, k);
            for (out, rest) in expected.iter_mut().zip(&rest) {
                *out += f64::from(*rest);
            }
            assert!(error(&out, &expected) < 1e-6);
            let mut sum = rest;
            weight.accumulate(&x, m, &mut sum);
            assert_eq!(bits(&sum), bits(&out));
        }
    });
}

#[test]
fn empty_products_are_empty() {
    let weight = dense(Format::Bf16, 0, 3, &[]);
    weight.product(&[0.0; 6], 2, None, &mut []);
    let weight = dense(Format::Bf16, 3, 0, &[]);
    let mut out = [1.0; 6];
    weight.product(&[], 2, None, &mut out);
    assert_eq!(bits(&out), [0; 6]);
    let weight = dense(Format::F32, 3, 2, &[0.0; 6]);
    weight.product(&[], 0, None, &mut []);
}

/// Codes, scales and table that make numbers about as large as a real weight's.
fn quantized(n: usize, k: usize, block: usize) -> (Vec<u8>, Vec<f32>, [f32; 16]) {
    let count = n * k;
    let codes = numbers(count.div_ceil(2), 7);
    let codes = codes.iter().map(|x| (x * 128.0 + 128.0) as u8).collect();
    let scales = numbers(count.div_ceil(block), 8);
    let scales = scales.iter().map(|x| (x + 1.0) * 0.07).collect();
    (
        codes,
        scales,
        std::array::from_fn(|i| (i as f32 - 7.0) / 8.3),
    )
}

#[test]
fn codes_of_four_bits_are_multiplied_like_the_numbers_they_stand_for() {
    let pools = pools();
    at_every_width(|| {
        for ([n, k], block) in [
            ([1, 1], 64),
            ([5, 7], 32),
            ([13, 96], 64),
            ([40, 257], 64),
            ([34, 320], 64),
            ([10, 64], 128),
            ([9, 480], 96),
        ] {
            for round in FORMATS {
                let (codes, scales, table) = quantized(n, k, block);
                let expected: Vec<f32> = (0..n * k)
                    .map(|i| {
                        let code = codes[i / 2] >> if i % 2 == 0 { 4 } else { 0 } & 15;
                        let x = table[usize::from(code & 15)] * scales[i / block];
                        round.round(x)
                    })
                    .collect();
                let weight = Weight::nf4([n, k], &codes, &scales, block, table, round).unwrap();
                assert_eq!(bits(&rows_of(&weight)), bits(&expected), "{n} {k} {block}");
                let x = numbers(MOST * k, 2);
                let out = same_bits_always(&pools, &x, [n, k], |x, m, out| {
                    weight.product(x, m, None, out);
                });
                // The numbers kept as f32 are summed in the same order.
                let plain = dense(Format::F32, n, k, &expected);
                let mut same = vec![0.0; out.len()];
                plain.product(&x, MOST, None, &mut same);
                assert_eq!(bits(&out), bits(&same), "{round:?} {n} {k} {block}");
            }
        }
    });
}

/// bitsandbytes' product of one row, step by step.
fn int8_alone(x: &[f32], codes: &[i8], scales: &[f32], round: Format) -> Vec<f32> {
    let halves: Vec<f32> = x.iter().map(|x| Format::F16.round(*x)).collect();
    let kept: Vec<f32> = (halves.iter())
        .map(|h| if h.abs() >= 6.0 { 0.0 } else { *h })
        .collect();
    let scale = kept.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
    let factor = 1.0 / scale * 127.0;
    let integers: Vec<i64> = kept
        .iter()
        .map(|h| (h * factor).round_ties_even() as i8 as i64)
        .collect();
    let row = |(codes, own): (&[i8], &f32)| {
        let sum: i64 = integers
            .iter()
            .zip(codes)
            .map(|(a, b)| a * i64::from(*b))
            .sum();
        let y = round.round(sum as f32 * (scale * own) * 6.200124e-5);
        let mut left_out = (halves.iter().zip(x).zip(codes)).filter(|((h, _), _)| h.abs() >= 6.0);
        let value = |code: i8| round.round(f32::from(code) * own * 7.874_016e-3);
        let first = left_out.next().map(|((_, x), code)| x * value(*code));
        let Some(first) = first else { return y };
        let sum = left_out.fold(first, |sum, ((_, x), code)| sum + x * value(*code));
        round.round(y + sum)
    };
    codes.chunks(x.len()).zip(scales).map(row).collect()
}

#[test]
fn integers_are_multiplied_as_bitsandbytes_does_it_for_each_row_alone() {
    let pools = pools();
    at_every_width(|| {
        for [n, k] in [[1, 1], [5, 7], [33, 40], [70, 31]] {
            for round in FORMATS {
                let codes = numbers(n * k, 5);
                let codes: Vec<i8> = codes.iter().map(|x| (x * 128.0) as i8).collect();
                let scales: Vec<f32> = numbers(n, 6).iter().map(|x| x * 0.1 + 0.2).collect();
                let weight = Weight::int8([n, k], &codes, &scales, 6.0, round).unwrap();
                // A few outliers in some rows, none in others, zeros in one.
                let mut x = numbers(MOST * k, 2);
                for (i, x) in x.iter_mut().enumerate() {
                    *x = round.round(match (i / k, i % k) {
                        (7, _) => 0.0,
                        (4, 0) => 6.0,
                        // In half precision this is 6.
                        (5, 0) => 5.9999,
                        (8, 0) => -7.0,
                        (9, 0) => 5.9,
                        (row, _) if row % 3 == 0 && i % 97 == 0 => *x * 40.0,
                        _ => *x,
                    });
                }
                let out = same_bits_always(&pools, &x, [n, k], |x, m, out| {
                    weight.product(x, m, None, out);
                });
                let expected: Vec<f32> = x
                    .chunks(k)
                    .flat_map(|x| int8_alone(x, &codes, &scales, round))
                    .collect();
                assert_eq!(bits(&out), bits(&expected), "{round:?} {n} {k}");
                let rows: Vec<f32> = (codes.iter().enumerate())
                    .map(|(i, code)| f32::from(*code) * scales[i / k] * 7.874_016e-3)
                    .map(|x| round.round(x))
                    .collect();
                assert_eq!(bits(&rows_of(&weight)), bits(&rows));
                // A residual is added to the rounded result.
                let rest = numbers(3 * n, 9);
                let mut sum = vec![0.0; 3 * n];
                weight.product(&x[..3 * k], 3, Some(&rest), &mut sum);
                let added: Vec<f32> = out.iter().zip(&rest).map(|(a, b)| a + b).collect();
                assert_eq!(bits(&sum), bits(&added));
            }
        }
    });
}

#[test]
fn integers_that_do_not_fit_are_refused() {
    let int8 = |n, k, codes: usize, scales: usize, threshold| {
        let scales = vec![1.0; scales];
        Weight::int8([n, k], &vec![1; codes], &scales, threshold, Format::F32).map(|_| ())
    };
    assert!(int8(2, 3, 6, 2, 6.0).is_ok());
    assert!(int8(2, 3, 5, 2, 6.0).is_err());
    assert!(int8(2, 3, 6, 3, 6.0).is_err());
    assert!(int8(2, 3, 6, 2, -1.0).is_err());
    assert!(int8(2, 3, 6, 2, f32::NAN).is_err());
    assert!(int8(1, 132_105, 132_105, 1, 6.0).is_err());
    assert!(int8(usize::MAX, 3, 6, 2, 6.0).is_err());
}
