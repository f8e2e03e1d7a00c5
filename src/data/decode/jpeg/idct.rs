//! The inverse discrete cosine transform of 8×8 blocks, in the integer
//! arithmetic of libjpeg's "slow" transform, so that every byte is the same.
//!
//! It is the algorithm of C. Loeffler, A. Ligtenberg and G. Moschytz,
//! "Practical fast 1-D DCT algorithms with 11 multiplications" (ICASSP 1989),
//! columns first, with constants of 13 fractional bits and 2 more bits kept
//! between the passes.

use std::num::Wrapping;

type Int = Wrapping<i32>;

/// Fractional bits of the constants.
const FRACTION: usize = 13;
/// Extra bits between the passes.
const EXTRA: usize = 2;

const fn fix(x: f64) -> Int {
    Wrapping((x * (1 << FRACTION) as f64 + 0.5) as i32)
}

const C0_298: Int = fix(0.298_631_336);
const C0_390: Int = fix(0.390_180_644);
const C0_541: Int = fix(0.541_196_100);
const C0_765: Int = fix(0.765_366_865);
const C0_899: Int = fix(0.899_976_223);
const C1_175: Int = fix(1.175_875_602);
const C1_501: Int = fix(1.501_321_110);
const C1_847: Int = fix(1.847_759_065);
const C1_961: Int = fix(1.961_570_560);
const C2_053: Int = fix(2.053_119_869);
const C2_562: Int = fix(2.562_915_447);
const C3_072: Int = fix(3.072_711_026);

/// One line of eight values, scaled by 2^13 and not yet rounded.
fn line(x: [Int; 8]) -> [Int; 8] {
    let shared = (x[2] + x[6]) * C0_541;
    let even2 = shared - x[6] * C1_847;
    let even3 = shared + x[2] * C0_765;
    let even0 = (x[0] + x[4]) << FRACTION;
    let even1 = (x[0] - x[4]) << FRACTION;
    let even = [even0 + even3, even1 + even2, even1 - even2, even0 - even3];

    let all = (x[7] + x[3] + x[5] + x[1]) * C1_175;
    let a = -(x[7] + x[1]) * C0_899;
    let b = -(x[5] + x[3]) * C2_562;
    let c = all - (x[7] + x[3]) * C1_961;
    let d = all - (x[5] + x[1]) * C0_390;
    let odd = [
        x[1] * C1_501 + a + d,
        x[3] * C3_072 + b + c,
        x[5] * C2_053 + b + d,
        x[7] * C0_298 + a + c,
    ];
    [
        even[0] + odd[0],
        even[1] + odd[1],
        even[2] + odd[2],
        even[3] + odd[3],
        even[3] - odd[3],
        even[2] - odd[2],
        even[1] - odd[1],
        even[0] - odd[0],
    ]
}

fn rounded(x: Int, bits: usize) -> Int {
    (x + Wrapping(1 << (bits - 1))) >> bits
}

/// The 64 samples of a block of coefficients in natural order, times `quant`.
pub(super) fn block(coefficients: &[i16; 64], quant: &[u16; 64]) -> [u8; 64] {
    if coefficients[1..].iter().all(|c| *c == 0) {
        let dc = Wrapping(i32::from(
            coefficients[0].wrapping_mul(quant[0].cast_signed()),
        ));
        let flat = rounded(dc << EXTRA, EXTRA + 3).0 + 128;
        return [flat.clamp(0, 255) as u8; 64];
    }
    // Products wrap to 16 bits as in libjpeg-turbo's vector code; those of real images fit.
    let value = |i: usize| {
        let product = coefficients[i].wrapping_mul(quant[i].cast_signed());
        Wrapping(i32::from(product))
    };
    let mut between = [Wrapping(0_i32); 64];
    for column in 0..8 {
        let out = line(std::array::from_fn(|row| value(row * 8 + column)));
        for (row, x) in out.into_iter().enumerate() {
            let kept = rounded(x, FRACTION - EXTRA).0;
            between[row * 8 + column] = Wrapping(kept.clamp(-32_768, 32_767));
        }
    }
    let mut samples = [0; 64];
    for (row, line_out) in between
        .as_chunks::<8>()
        .0
        .iter()
        .zip(samples.chunks_exact_mut(8))
    {
        for (x, sample) in line(*row).into_iter().zip(line_out) {
            let x = rounded(x, FRACTION + EXTRA + 3).0;
            *sample = (x + 128).clamp(0, 255) as u8;
        }
    }
    samples
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_of_one_value_is_flat() {
        let mut coefficients = [0; 64];
        coefficients[0] = 10;
        assert_eq!(block(&coefficients, &[16; 64]), [148; 64]);
        coefficients[0] = -300;
        assert_eq!(block(&coefficients, &[16; 64]), [0; 64]);
    }

    #[test]
    fn it_is_the_inverse_cosine_transform() {
        let mut state = 1_u32;
        for _ in 0..200 {
            let mut coefficients = [0_i16; 64];
            for c in &mut coefficients {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                *c = ((state >> 24) as i16 - 128) / 6;
            }
            let got = block(&coefficients, &[3; 64]);
            for y in 0..8 {
                for x in 0..8 {
                    let mut sum = 0.0;
                    for v in 0..8 {
                        for u in 0..8 {
                            let scale = |k: usize| if k == 0 { 0.5_f64.sqrt() } else { 1.0 };
                            let wave = |k: usize, at: usize| {
                                ((2 * at + 1) as f64 * k as f64 * std::f64::consts::PI / 16.0).cos()
                            };
                            let c = f64::from(coefficients[v * 8 + u]) * 3.0;
                            sum += scale(u) * scale(v) * c * wave(u, x) * wave(v, y) / 4.0;
                        }
                    }
                    let want = (sum + 128.0).clamp(0.0, 255.0);
                    assert!((f64::from(got[y * 8 + x]) - want).abs() < 0.6);
                }
            }
        }
    }
}
