//! How the numbers of a weight lie in memory, and how they become f32.

use half::{bf16, f16};
use pulp::Simd;
use rayon::prelude::*;

use super::{int8::Int8, nf4::Nf4};

/// How many bytes of alignment vectors want.
const LINE: usize = 64;
/// Numbers of two vectors, the longest ones.
pub(super) const WIDTH: usize = 32;

/// A format of floating-point numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// IEEE single precision.
    F32,
    /// The upper half of single precision.
    Bf16,
    /// IEEE half precision.
    F16,
}

impl Format {
    /// The nearest number of this format, of two the even one.
    pub(super) fn round(self, x: f32) -> f32 {
        match self {
            Self::F32 => x,
            Self::Bf16 => bf16::from_f32(x).to_f32(),
            Self::F16 => f16::from_f32(x).to_f32(),
        }
    }
}

/// Numbers that start on the boundary of a cache line.
#[derive(Debug, Default)]
pub(super) struct Aligned<T> {
    data: Vec<T>,
    start: usize,
    len: usize,
}

impl<T: Copy + Default> Aligned<T> {
    pub(super) fn new(len: usize) -> Self {
        let extra = LINE / size_of::<T>();
        let data = vec![T::default(); len + extra];
        let start = data.as_ptr().align_offset(LINE).min(extra);
        Self { data, start, len }
    }

    #[inline(always)]
    pub(super) fn get(&self) -> &[T] {
        &self.data[self.start..self.start + self.len]
    }

    pub(super) fn get_mut(&mut self) -> &mut [T] {
        &mut self.data[self.start..self.start + self.len]
    }

    pub(super) fn bytes(&self) -> usize {
        self.data.len() * size_of::<T>()
    }
}

/// Panels of a weight, of `width` columns and `k` terms each.
pub(super) trait Panels: Copy + Send + Sync {
    /// Terms of a panel that are read alike.
    type Run: Run;

    /// The terms of `panel` from `from` on, at most `terms` of them.
    fn run(self, panel: usize, from: usize, terms: usize) -> Self::Run;

    /// The same terms if they lie in memory as f32.
    #[inline(always)]
    fn plain(&self, _panel: usize, _from: usize, _terms: usize) -> Option<&[f32]> {
        None
    }
}

/// Some terms of a panel.
pub(super) trait Run: Copy {
    /// How many.
    fn terms(self) -> usize;

    /// Two vectors of f32, the columns of term `i`.
    fn term<S: Simd>(self, simd: S, i: usize) -> [S::f32s; 2];
}

/// Numbers of type `T`: [panels, k, width].
#[derive(Debug)]
pub(super) struct Dense<T> {
    numbers: Aligned<T>,
    k: usize,
    width: usize,
}

impl<T: Number> Dense<T> {
    /// Packs the matrix whose rows [n, k] `row` writes, each a column of panels.
    pub(super) fn new(
        [n, k, width]: [usize; 3],
        row: &(impl Fn(usize, &mut [f32]) + Sync),
    ) -> Self {
        let mut numbers = Aligned::new(n.div_ceil(width) * width * k);
        let panels = numbers.get_mut().par_chunks_mut((width * k).max(1));
        panels
            .enumerate()
            .for_each_init(Vec::new, |rows, (i, panel)| {
                let columns = width.min(n - i * width);
                rows.resize(columns * k, 0.0);
                for (column, out) in rows.chunks_mut(k).enumerate() {
                    row(i * width + column, out);
                }
                for (i, out) in panel.chunks_exact_mut(width).enumerate() {
                    for (column, out) in out[..columns].iter_mut().enumerate() {
                        *out = T::of_f32(rows[column * k + i]);
                    }
                }
            });
        Self { numbers, k, width }
    }

    pub(super) fn bytes(&self) -> usize {
        self.numbers.bytes()
    }

    /// One column.
    pub(super) fn column(&self, column: usize, out: &mut [f32]) {
        let width = self.width;
        let panel = &self.numbers.get()[column / width * self.k * width..];
        for (out, numbers) in out.iter_mut().zip(panel.chunks_exact(width)) {
            *out = numbers[column % width].to_f32();
        }
    }

    #[inline(always)]
    fn terms(&self, panel: usize, from: usize, terms: usize) -> &[T] {
        &self.numbers.get()[(panel * self.k + from) * self.width..][..terms * self.width]
    }
}

impl<'a, T: Number> Panels for &'a Dense<T> {
    type Run = DenseRun<'a, T>;

    #[inline(always)]
    fn run(self, panel: usize, from: usize, terms: usize) -> DenseRun<'a, T> {
        DenseRun {
            numbers: self.terms(panel, from, terms),
            width: self.width,
        }
    }

    #[inline(always)]
    fn plain(&self, panel: usize, from: usize, terms: usize) -> Option<&[f32]> {
        T::plain(self.terms(panel, from, terms))
    }
}

#[derive(Clone, Copy)]
pub(super) struct DenseRun<'a, T> {
    numbers: &'a [T],
    width: usize,
}

impl<T: Number> Run for DenseRun<'_, T> {
    #[inline(always)]
    fn terms(self) -> usize {
        self.numbers.len() / self.width
    }

    #[inline(always)]
    fn term<S: Simd>(self, _: S, i: usize) -> [S::f32s; 2] {
        let width = 2 * S::F32_LANES;
        let numbers = &self.numbers[i * width..][..width];
        let mut out = [0.0; WIDTH];
        for (out, x) in out[..width].iter_mut().zip(numbers) {
            *out = x.to_f32();
        }
        pair::<S>(&out)
    }
}

/// Two vectors from the start of an array.
#[inline(always)]
pub(super) fn pair<S: Simd>(numbers: &[f32; WIDTH]) -> [S::f32s; 2] {
    let (vectors, _) = S::as_simd_f32s(numbers);
    [vectors[0], vectors[1]]
}

/// What a dense weight's numbers are in memory.
pub(super) trait Number: Copy + Default + Send + Sync {
    fn of_f32(x: f32) -> Self;

    fn to_f32(self) -> f32;

    #[inline(always)]
    fn plain(_: &[Self]) -> Option<&[f32]> {
        None
    }
}

impl Number for f32 {
    fn of_f32(x: f32) -> Self {
        x
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }

    #[inline(always)]
    fn plain(numbers: &[Self]) -> Option<&[f32]> {
        Some(numbers)
    }
}

impl Number for bf16 {
    fn of_f32(x: f32) -> Self {
        Self::from_f32(x)
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
}

impl Number for f16 {
    fn of_f32(x: f32) -> Self {
        Self::from_f32(x)
    }

    /// In steps that compilers make vector code of: exponent and fraction move
    /// to their places in f32; numbers below the normal ones get an exponent by
    /// a subtraction, which is exact.
    #[inline(always)]
    fn to_f32(self) -> f32 {
        const EXPONENT: u32 = 0x1f << 23;
        let x = u32::from(self.to_bits());
        let moved = (x & 0x7fff) << 13;
        let exponent = moved & EXPONENT;
        let shifted = moved + ((127 - 15) << 23);
        let small = f32::from_bits(shifted + (1 << 23)) - f32::from_bits(113 << 23);
        let infinite = shifted + ((128 - 16) << 23);
        let size = if exponent == 0 {
            small.to_bits()
        } else if exponent == EXPONENT {
            infinite
        } else {
            shifted
        };
        f32::from_bits(size | (x & 0x8000) << 16)
    }
}

/// The panels of a weight.
#[derive(Debug)]
pub(super) enum Numbers {
    F32(Dense<f32>),
    Bf16(Dense<bf16>),
    F16(Dense<f16>),
    Nf4(Nf4),
    Int8(Int8),
}

impl Numbers {
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::F32(numbers) => numbers.bytes(),
            Self::Bf16(numbers) => numbers.bytes(),
            Self::F16(numbers) => numbers.bytes(),
            Self::Nf4(numbers) => numbers.bytes(),
            Self::Int8(numbers) => numbers.bytes(),
        }
    }

    /// One column.
    pub(super) fn column(&self, column: usize, out: &mut [f32]) {
        match self {
            Self::F32(numbers) => numbers.column(column, out),
            Self::Bf16(numbers) => numbers.column(column, out),
            Self::F16(numbers) => numbers.column(column, out),
            Self::Nf4(numbers) => numbers.column(column, out),
            Self::Int8(numbers) => numbers.column(column, out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_of_half_precision_becomes_f32() {
        for bits in 0..=u16::MAX {
            let exact = f16::from_bits(bits).to_f32();
            let ours = Number::to_f32(f16::from_bits(bits));
            assert!(ours.to_bits() == exact.to_bits() || (ours.is_nan() && exact.is_nan()));
        }
    }
}
