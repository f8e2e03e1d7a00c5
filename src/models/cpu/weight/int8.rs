//! `LLM.int8()`: integers of eight bits, whose products are summed as integers.
//!
//! Activations are quantised row by row; those beyond a threshold are left out
//! and multiplied as they are. `bitsandbytes` leaves out the whole column of a
//! batch instead, so that rows depend on each other; here each row is as if it
//! were alone (Dettmers et al., 2022, arXiv 2208.07339).

use anyhow::{Context, Result, ensure};
use half::f16;
use pulp::{Simd, WithSimd, bytemuck::cast};
use rayon::prelude::*;

use super::{
    nf4::{Rounding, ToBf16, ToF16},
    numbers::{Aligned, Format, WIDTH},
};
use crate::models::cpu::dispatch;

/// 1/127 as bitsandbytes writes it.
#[expect(clippy::excessive_precision, reason = "as it is in the source")]
const PER_127: f32 = 7.874015718698502e-3;
/// 1/127² as bitsandbytes' code for the CPU has it.
const PER_127_SQUARED: f32 = 6.200124e-5;
/// Inputs whose products, of at most 128 · 127 each, surely fit in an `i32`.
const INPUTS: usize = i32::MAX as usize / (128 * 127);
/// Rows that are worth quantising by several threads.
const ROWS: usize = 8;

/// The panels of a weight, as integers.
#[derive(Debug)]
pub(super) struct Int8 {
    /// [panels, pairs of terms, width, 2].
    codes: Aligned<i8>,
    /// [panels, width].
    scales: Vec<f32>,
    k: usize,
    width: usize,
    threshold: f32,
    activations: Format,
}

/// Rows of activations as integers.
pub(super) struct Quantized {
    /// [m, pairs of terms].
    pairs: Vec<[i16; 2]>,
    rows: Vec<Row>,
}

/// What else there is to know of a row.
#[derive(Clone, Default)]
struct Row {
    scale: f32,
    /// Columns and numbers that the integers leave out.
    outliers: Vec<(usize, f32)>,
}

impl Int8 {
    /// See [`Weight::int8`](super::Weight::int8).
    pub(super) fn new(
        [n, k, width]: [usize; 3],
        codes: &[i8],
        scales: &[f32],
        threshold: f32,
        activations: Format,
    ) -> Result<Self> {
        let count = n.checked_mul(k).context("a weight without end")?;
        ensure!(
            codes.len() == count && scales.len() == n,
            "{n} × {k} integers need {n} scales, found {} and {}",
            codes.len(),
            scales.len()
        );
        ensure!(k <= INPUTS, "sums of {k} products of integers may overflow");
        ensure!(
            threshold >= 0.0,
            "a threshold of {threshold} is not possible"
        );
        let panels = n.div_ceil(width);
        let size = k.div_ceil(2) * width * 2;
        let mut packed = Aligned::new(panels * size);
        let chunks = packed.get_mut().par_chunks_mut(size.max(1)).enumerate();
        chunks.for_each(|(i, panel)| {
            for column in 0..width.min(n - i * width) {
                let row = &codes[(i * width + column) * k..][..k];
                for (row, out) in row.chunks(2).zip(panel.chunks_exact_mut(2 * width)) {
                    out[2 * column..][..row.len()].copy_from_slice(row);
                }
            }
        });
        let mut scales = scales.to_vec();
        scales.resize(panels * width, 0.0);
        Ok(Self {
            codes: packed,
            scales,
            k,
            width,
            // It is compared with activations of half precision.
            threshold: f16::from_f32(threshold).to_f32(),
            activations,
        })
    }

    pub(super) fn bytes(&self) -> usize {
        self.codes.bytes() + self.scales.len() * size_of::<f32>()
    }

    /// One column.
    pub(super) fn column(&self, column: usize, out: &mut [f32]) {
        let scale = self.scales[column];
        let (panel, column) = (self.panel(column / self.width), column % self.width);
        for (term, out) in out.iter_mut().enumerate() {
            let code = panel[term / 2 * 2 * self.width + 2 * column + term % 2];
            *out = self.activations.round(dequantized(code, scale));
        }
    }

    fn panel(&self, panel: usize) -> &[i8] {
        let size = self.k.div_ceil(2) * self.width * 2;
        &self.codes.get()[panel * size..][..size]
    }

    /// Rows of activations [m, k] as integers.
    pub(super) fn quantize(&self, x: &[f32], m: usize) -> Quantized {
        let pairs = self.k.div_ceil(2);
        let mut quantized = Quantized {
            pairs: vec![[0; 2]; m * pairs],
            rows: vec![Row::default(); m],
        };
        if self.k > 0 {
            (quantized.pairs.par_chunks_mut(pairs))
                .zip(quantized.rows.par_iter_mut())
                .zip(x.par_chunks(self.k))
                .with_min_len(ROWS)
                .for_each_init(Vec::new, |halves, ((pairs, row), x)| {
                    halves.resize(x.len(), 0.0);
                    *row = self.quantize_row(x, halves, pairs);
                });
        }
        quantized
    }

    /// In the order of roundings of bitsandbytes' code in PyTorch.
    fn quantize_row(&self, x: &[f32], halves: &mut [f32], pairs: &mut [[i16; 2]]) -> Row {
        let threshold = self.threshold;
        // Not `>=`, so that what is no number is left out too.
        // What is no number is left out too: it has no integer.
        let left_out = |half: f32| threshold > 0.0 && (half.abs() >= threshold || half.is_nan());
        let (scale, any) = dispatch(|| {
            let (mut scale, mut any) = (0.0_f32, false);
            for (half, x) in halves.iter_mut().zip(x) {
                let rounded = ToF16::of(*x);
                any |= left_out(rounded);
                *half = if left_out(rounded) { 0.0 } else { rounded };
                scale = scale.max(half.abs());
            }
            let factor = 1.0 / scale * 127.0;
            let code = |half: f32| i16::from((half * factor).round_ties_even() as i8);
            let (whole, rest) = halves.as_chunks::<2>();
            for (pair, halves) in pairs.iter_mut().zip(whole) {
                *pair = halves.map(code);
            }
            if let (Some(pair), Some(half)) = (pairs.last_mut(), rest.first()) {
                *pair = [code(*half), 0];
            }
            (scale, any)
        });
        let mut outliers = Vec::new();
        if any {
            let columns = x.iter().copied().enumerate();
            outliers.extend(columns.filter(|(_, x)| left_out(ToF16::of(*x))));
        }
        Row { scale, outliers }
    }
}

/// One number of a weight.
#[inline(always)]
fn dequantized(code: i8, scale: f32) -> f32 {
    f32::from(code) * scale * PER_127
}

/// Rows from `row` on by panels from `panel` on.
#[derive(Clone, Copy)]
pub(super) struct Block<'a> {
    pub(super) weight: &'a Int8,
    pub(super) x: &'a Quantized,
    pub(super) row: usize,
    pub(super) panel: usize,
}

impl Block<'_> {
    /// Computes the block; `out` has a slice for every row.
    pub(super) fn run<S: Simd>(self, simd: S, out: &mut [&mut [f32]]) {
        let panels = out[0].len().div_ceil(self.weight.width);
        for panel in 0..panels {
            let mut row = 0;
            while row < out.len() {
                let (block, left) = (self, &mut out[row..]);
                let tile = Tile::<1> {
                    block,
                    row,
                    panel,
                    out: left,
                };
                row += match tile.out.len() {
                    8.. => simd.vectorize(tile.of::<8>()),
                    4.. => simd.vectorize(tile.of::<4>()),
                    2.. => simd.vectorize(tile.of::<2>()),
                    _ => simd.vectorize(tile),
                };
            }
        }
    }
}

/// `M` rows, the first ones of `out`, by a panel.
struct Tile<'a, 'b, 'c, const M: usize> {
    block: Block<'a>,
    row: usize,
    panel: usize,
    out: &'b mut [&'c mut [f32]],
}

impl<'a, 'b, 'c, const M: usize> Tile<'a, 'b, 'c, M> {
    fn of<const M2: usize>(self) -> Tile<'a, 'b, 'c, M2> {
        Tile {
            block: self.block,
            row: self.row,
            panel: self.panel,
            out: self.out,
        }
    }
}

impl<const M: usize> WithSimd for Tile<'_, '_, '_, M> {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> usize {
        let Block { weight, x, .. } = self.block;
        let panel = self.block.panel + self.panel;
        let row = self.block.row + self.row;
        let width = 2 * S::F32_LANES;
        let codes = weight.panel(panel);
        let pairs = weight.k.div_ceil(2);
        let rows: [&[[i16; 2]]; M] =
            std::array::from_fn(|m| &x.pairs[(row + m) * pairs..][..pairs]);
        let mut sums = [[simd.splat_i32s(0); 2]; M];
        for i in 0..pairs {
            let codes = &codes[i * 2 * width..][..2 * width];
            let first = widened(simd, &codes[..width]);
            let second = widened(simd, &codes[width..]);
            for (row, sums) in rows.iter().zip(&mut sums) {
                sums[0] = add_products(simd, first, row[i], sums[0]);
                sums[1] = add_products(simd, second, row[i], sums[1]);
            }
        }
        let from = self.panel * width;
        let scales = &weight.scales[panel * width..][..width];
        for ((m, sums), out) in sums.into_iter().enumerate().zip(&mut *self.out) {
            let columns = width.min(out.len() - from);
            let out = &mut out[from..from + columns];
            let mut y = [0.0; WIDTH];
            for (y, sum) in y.iter_mut().zip(integers::<S>(sums)) {
                *y = sum as f32;
            }
            let row = &x.rows[row + m];
            let y = &mut y[..width];
            match weight.activations {
                Format::F32 => finish(y, row, scales, codes, |x| x),
                Format::Bf16 => finish(y, row, scales, codes, ToBf16::of),
                Format::F16 => finish(y, row, scales, codes, ToF16::of),
            }
            out.copy_from_slice(&y[..columns]);
        }
        M
    }
}

/// Sums of integers `y` become numbers, and what was left out is added.
#[inline(always)]
fn finish(y: &mut [f32], row: &Row, scales: &[f32], codes: &[i8], round: impl Fn(f32) -> f32) {
    for (y, scale) in y.iter_mut().zip(scales) {
        *y = round(*y * (row.scale * scale) * PER_127_SQUARED);
    }
    if row.outliers.is_empty() {
        return;
    }
    let width = y.len();
    let mut sums = [-0.0_f32; WIDTH];
    for (term, x) in &row.outliers {
        let pairs = codes[term / 2 * 2 * width..][..2 * width]
            .as_chunks::<2>()
            .0;
        for ((sum, codes), scale) in sums.iter_mut().zip(pairs).zip(scales) {
            *sum += x * round(dequantized(codes[term % 2], *scale));
        }
    }
    for (y, sum) in y.iter_mut().zip(sums) {
        *y = round(*y + sum);
    }
}

/// A vector's columns, two terms of each, as pairs of 16 bits.
#[cfg_attr(not(target_arch = "x86_64"), allow(unused_variables))]
#[inline(always)]
fn widened<S: Simd>(simd: S, codes: &[i8]) -> S::i32s {
    #[cfg(target_arch = "x86_64")]
    {
        let simd: &dyn std::any::Any = &simd;
        if let (Some(simd), Ok(codes)) = (
            simd.downcast_ref::<pulp::x86::V4>(),
            <[i8; 32]>::try_from(codes),
        ) {
            return cast(simd.avx512bw._mm512_cvtepi8_epi16(cast(codes)));
        }
        if let (Some(simd), Ok(codes)) = (
            simd.downcast_ref::<pulp::x86::V3>(),
            <[i8; 16]>::try_from(codes),
        ) {
            return cast(simd.avx2._mm256_cvtepi8_epi16(cast(codes)));
        }
    }
    let mut pairs = [0; WIDTH];
    for (pair, codes) in pairs.iter_mut().zip(codes.as_chunks::<2>().0) {
        *pair = i32::from(codes[0]) & 0xffff | i32::from(codes[1]) << 16;
    }
    S::as_simd_i32s(&pairs).0[0]
}

/// Adds the products of two terms to the sums of a vector's columns.
#[cfg_attr(not(target_arch = "x86_64"), allow(unused_variables))]
#[inline(always)]
fn add_products<S: Simd>(simd: S, codes: S::i32s, x: [i16; 2], sums: S::i32s) -> S::i32s {
    #[cfg(target_arch = "x86_64")]
    {
        let simd: &dyn std::any::Any = &simd;
        if let Some(simd) = simd.downcast_ref::<pulp::x86::V4>() {
            let x = simd.avx512f._mm512_set1_epi32(cast(x));
            let products = simd.avx512bw._mm512_madd_epi16(cast(codes), x);
            return cast(simd.avx512f._mm512_add_epi32(cast(sums), products));
        }
        if let Some(simd) = simd.downcast_ref::<pulp::x86::V3>() {
            let x = simd.avx._mm256_set1_epi32(cast(x));
            let products = simd.avx2._mm256_madd_epi16(cast(codes), x);
            return cast(simd.avx2._mm256_add_epi32(cast(sums), products));
        }
    }
    let mut all = integers::<S>([sums; 2]);
    for (sum, codes) in all.iter_mut().zip(integers::<S>([codes; 2])) {
        *sum += (codes as i16 as i32) * i32::from(x[0]) + (codes >> 16) * i32::from(x[1]);
    }
    S::as_simd_i32s(&all).0[0]
}

/// Two vectors as an array that may be longer.
#[inline(always)]
fn integers<S: Simd>(vectors: [S::i32s; 2]) -> [i32; WIDTH] {
    let mut out = [0; WIDTH];
    S::as_mut_simd_i32s(&mut out).0[..2].copy_from_slice(&vectors);
    out
}
