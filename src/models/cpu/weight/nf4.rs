//! Numbers of four bits: positions in a table of 16, times a scale for each block.
//!
//! A byte holds two columns of a panel, one of each of the two vectors, so that
//! 16 bytes become 32 numbers by two look-ups. Scales lie beside them, one for
//! every column and as many terms as share it in all columns.

use anyhow::{Context, Result, ensure};
use pulp::Simd;
use rayon::prelude::*;

use super::numbers::{Aligned, Format, Panels, Run, WIDTH, pair};

/// The panels of a weight, as codes.
#[derive(Debug)]
pub(super) struct Nf4 {
    /// [panels, k, width / 2]: the first vector's column in the low half.
    codes: Aligned<u8>,
    /// [panels, k / every, width].
    scales: Aligned<f32>,
    every: usize,
    k: usize,
    width: usize,
    table: [f32; 16],
    round: Format,
}

impl Nf4 {
    /// See [`Weight::nf4`](super::Weight::nf4).
    pub(super) fn new(
        [n, k, width]: [usize; 3],
        codes: &[u8],
        absmax: &[f32],
        block: usize,
        table: [f32; 16],
        round: Format,
    ) -> Result<Self> {
        let count = n.checked_mul(k).context("a weight without end")?;
        ensure!(block > 0, "blocks of no numbers");
        ensure!(
            codes.len() == count.div_ceil(2) && absmax.len() == count.div_ceil(block),
            "{n} × {k} numbers in blocks of {block} need {} bytes of codes and {} scales, \
             found {} and {}",
            count.div_ceil(2),
            count.div_ceil(block),
            codes.len(),
            absmax.len()
        );
        if let Some(at) = absmax.iter().chain(&table).position(|x| !x.is_finite()) {
            anyhow::bail!("scale or table entry {at} is not finite");
        }
        // Blocks are cut without regard to rows, but begin and end at multiples
        // of this in every row.
        let every = common_divisor(k, block);
        let panels = n.div_ceil(width);
        let mut numbers = Self {
            codes: Aligned::new(panels * k * width / 2),
            scales: Aligned::new(panels * k.div_ceil(every) * width),
            every,
            k,
            width,
            table,
            round,
        };
        let half = width / 2;
        let code = |at: usize| codes[at / 2] >> (4 * (1 - at % 2)) & 15;
        let all = (numbers.codes.get_mut().par_chunks_mut((k * half).max(1)))
            .zip((numbers.scales.get_mut()).par_chunks_mut((k / every * width).max(1)));
        all.enumerate().for_each(|(i, (codes, scales))| {
            for column in 0..width.min(n - i * width) {
                let start = (i * width + column) * k;
                let shift = 4 * (column / half);
                for (term, codes) in codes.chunks_exact_mut(half).enumerate() {
                    codes[column % half] |= code(start + term) << shift;
                }
                for (run, scales) in scales.chunks_exact_mut(width).enumerate() {
                    scales[column] = absmax[(start + run * every) / block];
                }
            }
        });
        Ok(numbers)
    }

    pub(super) fn bytes(&self) -> usize {
        self.codes.bytes() + self.scales.bytes()
    }

    /// One column.
    pub(super) fn column(&self, column: usize, out: &mut [f32]) {
        let (width, half) = (self.width, self.width / 2);
        let (panel, column) = (column / width, column % width);
        let codes = &self.codes.get()[panel * self.k * half..];
        let scales = &self.scales.get()[panel * (self.k / self.every) * width..];
        for (term, out) in out.iter_mut().enumerate() {
            let code = codes[term * half + column % half] >> (4 * (column / half)) & 15;
            let scale = scales[term / self.every * width + column];
            *out = self.round.round(self.table[usize::from(code)] * scale);
        }
    }

    /// What the numbers are rounded to.
    pub(super) fn round(&self) -> Format {
        self.round
    }
}

/// The greatest number that divides both; the second if the first is zero.
fn common_divisor(mut a: usize, mut b: usize) -> usize {
    while a != 0 {
        (a, b) = (b % a, a);
    }
    b
}

/// How numbers are rounded, known when code is made.
pub(super) trait Rounding: Copy + Send + Sync {
    fn of(x: f32) -> f32;
}

/// Not at all.
#[derive(Clone, Copy)]
pub(super) struct Exact;

/// To the upper half of f32.
#[derive(Clone, Copy)]
pub(super) struct ToBf16;

/// To half precision.
#[derive(Clone, Copy)]
pub(super) struct ToF16;

impl Rounding for Exact {
    #[inline(always)]
    fn of(x: f32) -> f32 {
        x
    }
}

impl Rounding for ToBf16 {
    #[inline(always)]
    fn of(x: f32) -> f32 {
        let bits = x.to_bits();
        f32::from_bits(bits.wrapping_add(0x7fff + (bits >> 16 & 1)) & 0xffff_0000)
    }
}

impl Rounding for ToF16 {
    #[inline(always)]
    fn of(x: f32) -> f32 {
        let bits = x.to_bits() & 0x7fff_ffff;
        let normal = (bits + 0xfff + (bits >> 13 & 1)) & !0x1fff;
        // The steps of f32 here are those of the numbers below the normal ones.
        let small = (f32::from_bits(bits) + 0.5) - 0.5;
        let size = if bits < 113 << 23 {
            small.to_bits()
        } else if bits > f32::INFINITY.to_bits() {
            bits
        } else if normal >= 143 << 23 {
            f32::INFINITY.to_bits()
        } else {
            normal
        };
        f32::from_bits(size | x.to_bits() & 0x8000_0000)
    }
}

/// Codes whose numbers are rounded by `R`.
#[derive(Clone, Copy)]
pub(super) struct Rounded<'a, R>(pub(super) &'a Nf4, pub(super) R);

impl<'a, R: Rounding> Panels for Rounded<'a, R> {
    type Run = Terms<'a, R>;

    #[inline(always)]
    fn run(self, panel: usize, from: usize, terms: usize) -> Terms<'a, R> {
        let Nf4 {
            k, width, every, ..
        } = *self.0;
        let terms = terms.min(every - from % every);
        let codes = &self.0.codes.get()[(panel * k + from) * width / 2..];
        let scales = &self.0.scales.get()[(panel * (k / every) + from / every) * width..];
        Terms {
            codes: &codes[..terms * width / 2],
            scales: &scales[..width],
            table: &self.0.table,
            count: terms,
            rounding: self.1,
        }
    }
}

/// Terms that share their scales.
#[derive(Clone, Copy)]
pub(super) struct Terms<'a, R> {
    codes: &'a [u8],
    scales: &'a [f32],
    table: &'a [f32; 16],
    count: usize,
    rounding: R,
}

impl<R: Rounding> Run for Terms<'_, R> {
    #[inline(always)]
    fn terms(self) -> usize {
        self.count
    }

    #[inline(always)]
    fn term<S: Simd>(self, simd: S, i: usize) -> [S::f32s; 2] {
        let _ = self.rounding;
        let lanes = S::F32_LANES;
        let codes = &self.codes[i * lanes..][..lanes];
        let mut out = look_up(simd, codes, self.table);
        for (out, scale) in out[..2 * lanes].iter_mut().zip(&self.scales[..2 * lanes]) {
            *out = R::of(*out * scale);
        }
        pair::<S>(&out)
    }
}

/// The table's entries for the low halves of `codes`, then for the high ones.
#[cfg_attr(not(target_arch = "x86_64"), allow(unused_variables))]
#[inline(always)]
fn look_up<S: Simd>(simd: S, codes: &[u8], table: &[f32; 16]) -> [f32; WIDTH] {
    let mut out = [0.0; WIDTH];
    #[cfg(target_arch = "x86_64")]
    {
        let simd: &dyn std::any::Any = &simd;
        if let (Some(simd), Ok(codes)) = (
            simd.downcast_ref::<pulp::x86::V4>(),
            <[u8; 16]>::try_from(codes),
        ) {
            let avx = simd.avx512f;
            let table = pulp::cast(*table);
            let low = avx._mm512_cvtepu8_epi32(pulp::cast(codes));
            let high = avx._mm512_srli_epi32::<4>(low);
            // Only the four lowest bits of an index count.
            let found = [low, high].map(|at| avx._mm512_permutexvar_ps(at, table));
            let (first, second) = out.split_at_mut(16);
            first.copy_from_slice(&pulp::cast::<_, [f32; 16]>(found[0]));
            second.copy_from_slice(&pulp::cast::<_, [f32; 16]>(found[1]));
            return out;
        }
        if let (Some(simd), Ok(codes)) = (
            simd.downcast_ref::<pulp::x86::V3>(),
            <[u8; 8]>::try_from(codes),
        ) {
            let [lower, upper]: [[f32; 8]; 2] = pulp::cast(*table);
            let codes: [u64; 2] = [u64::from_le_bytes(codes), 0];
            let low = simd.avx2._mm256_cvtepu8_epi32(pulp::cast(codes));
            let high = simd.avx2._mm256_srli_epi32::<4>(low);
            for (out, at) in out.chunks_exact_mut(8).zip([low, high]) {
                let lower = simd.avx2._mm256_permutevar8x32_ps(pulp::cast(lower), at);
                let upper = simd.avx2._mm256_permutevar8x32_ps(pulp::cast(upper), at);
                let which = simd.avx2._mm256_slli_epi32::<28>(at);
                let found = simd.avx._mm256_blendv_ps(lower, upper, pulp::cast(which));
                out.copy_from_slice(&pulp::cast::<_, [f32; 8]>(found));
            }
            return out;
        }
    }
    let lanes = S::F32_LANES;
    for (i, code) in codes.iter().enumerate() {
        out[i] = table[usize::from(code & 15)];
        out[lanes + i] = table[usize::from(code >> 4)];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_rounded_as_the_half_crate_rounds_them() {
        let mut bits = 1_u32;
        for _ in 0..200_000 {
            bits = bits.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let ties = (bits & !0xfff) | (0x8000 * (bits & 1));
            for bits in [bits, ties, ties & !0x7fff, bits & 0x83ff_ffff | 0x3300_0000] {
                let x = f32::from_bits(bits);
                if !x.is_nan() {
                    let [ours, theirs] = [ToBf16::of(x), Format::Bf16.round(x)];
                    assert_eq!(ours.to_bits(), theirs.to_bits(), "{x:e}");
                    let [ours, theirs] = [ToF16::of(x), Format::F16.round(x)];
                    assert_eq!(ours.to_bits(), theirs.to_bits(), "{x:e}");
                }
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let new = |n, k, codes: &[u8], absmax: &[f32], block| {
            let shape = [n, k, 2];
            Nf4::new(shape, codes, absmax, block, [0.0; 16], Format::F32).map(|_| ())
        };
        assert!(new(2, 2, &[0; 2], &[1.0; 2], 2).is_ok());
        for (n, k, codes, scales, block) in [
            (2, 2, 3, 2, 2),
            (2, 2, 2, 1, 2),
            (2, 2, 2, 2, 0),
            (usize::MAX, 2, 2, 2, 2),
        ] {
            assert!(new(n, k, &vec![0; codes], &vec![1.0; scales], block).is_err());
        }
        let error = new(2, 2, &[0; 2], &[1.0, f32::NAN], 2).unwrap_err();
        assert!(error.to_string().contains("scale or table entry 1"));
    }
}
