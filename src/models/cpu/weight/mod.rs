//! Weights of linear layers in few bytes, multiplied by all threads.
//!
//! A language model reads each weight once for every step of decoding: with few
//! rows a product takes as long as the memory needs, so weights stay in the
//! format they came in and become f32 a panel at a time, in the first-level
//! cache. The sum of an element runs over the inner dimension in one order, as
//! in [`Packed`](super::Packed): a row has the same bits alone or among others,
//! whatever the number of threads.

mod int8;
mod nf4;
mod numbers;
mod tile;

use std::cell::Cell;

use anyhow::Result;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use self::{
    int8::{Int8, Quantized},
    nf4::Nf4,
    numbers::{Dense, Numbers},
    tile::Block,
};
use super::{
    activation::silu,
    dispatch,
    matrix::{Finish, Lanes, Rows},
};

pub(crate) use self::numbers::Format;

/// Multiplications that are worth a task of their own.
const TASK: usize = 1 << 15;
/// Tasks for each thread, so that none waits long for the last.
const SHARES: usize = 4;
/// Panels of a task at most: their part of the result stays in the cache.
const PANELS: usize = 8;
/// Rows that are computed before the panels pass again; a multiple of every
/// height of a tile.
const ROWS: usize = 192;

/// A linear layer's weight, [n, k] as `PyTorch` has it, in panels of columns of
/// its transpose.
#[derive(Debug)]
pub(crate) struct Weight {
    n: usize,
    k: usize,
    /// Outputs of a panel; the last one is filled up with zeros.
    width: usize,
    numbers: Numbers,
}

impl Weight {
    /// A weight of `n` outputs and `k` inputs; `row(i, …)` writes output i's `k`
    /// numbers. It is called once for every output, from several threads.
    /// Numbers that `format` does not have are rounded to the nearest.
    pub(crate) fn dense(
        format: Format,
        n: usize,
        k: usize,
        row: impl Fn(usize, &mut [f32]) + Sync,
    ) -> Self {
        let width = 2 * dispatch(Lanes);
        Self {
            n,
            k,
            width,
            numbers: match format {
                Format::F32 => Numbers::F32(Dense::new([n, k, width], &row)),
                Format::Bf16 => Numbers::Bf16(Dense::new([n, k, width], &row)),
                Format::F16 => Numbers::F16(Dense::new([n, k, width], &row)),
            },
        }
    }

    /// A weight [n, k] of 4-bit `codes` in row-major order, two a byte, the
    /// first in the high half; blocks of `block` numbers, cut without regard to
    /// rows, share a scale in `absmax`. Number i is
    /// `table[code] · absmax[i / block]` in f32, then rounded to `round`
    /// (`QLoRA`, arXiv 2305.14314).
    ///
    /// It takes half a byte a number and 4 bytes a scale, of which there are
    /// more than `absmax` has if `k` is not a multiple of `block`: one for each
    /// run of as many numbers as divide both.
    ///
    /// # Errors
    ///
    /// Lengths that do not fit the shape; a scale or table that is not finite.
    pub(crate) fn nf4(
        [n, k]: [usize; 2],
        codes: &[u8],
        absmax: &[f32],
        block: usize,
        table: [f32; 16],
        round: Format,
    ) -> Result<Self> {
        let width = 2 * dispatch(Lanes);
        let numbers = Nf4::new([n, k, width], codes, absmax, block, table, round)?;
        Ok(Self {
            n,
            k,
            width,
            numbers: Numbers::Nf4(numbers),
        })
    }

    /// A weight [n, k] of `LLM.int8()`: number (i, j) is `codes[i, j] · scales[i] /
    /// 127`, `codes` being `CB` and `scales` `SCB` in `bitsandbytes`. Activations
    /// of magnitude `threshold` or more (6 by default there; 0 for none) are
    /// multiplied as they are, others as integers. `activations` is the type
    /// that activations have and results are rounded to.
    ///
    /// The result of a row has the bits that `bitsandbytes` on the CPU gives for
    /// the row alone, up to the order in which it sums what it leaves out.
    ///
    /// # Errors
    ///
    /// Lengths that do not fit the shape; a threshold below 0; so many inputs
    /// (over 132,104) that sums may overflow.
    pub(crate) fn int8(
        [n, k]: [usize; 2],
        codes: &[i8],
        scales: &[f32],
        threshold: f32,
        activations: Format,
    ) -> Result<Self> {
        let width = 2 * dispatch(Lanes);
        let numbers = Int8::new([n, k, width], codes, scales, threshold, activations)?;
        Ok(Self {
            n,
            k,
            width,
            numbers: Numbers::Int8(numbers),
        })
    }

    /// Bytes in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.numbers.bytes()
    }

    /// Output `i`'s numbers: a row of [n, k], for a weight that is also a table
    /// of embeddings.
    ///
    /// # Panics
    /// When there is no such output or `out` is not `k` long.
    pub(crate) fn row(&self, i: usize, out: &mut [f32]) {
        assert!(i < self.n && out.len() == self.k, "no such row");
        self.numbers.column(i, out);
    }

    /// x · weightᵀ + add for `m` rows `x` [m, k] in `out` [m, n], `add` being of
    /// the same shape, by the threads of the current pool.
    ///
    /// # Panics
    /// When a slice is not of that size.
    pub(crate) fn product(&self, x: &[f32], m: usize, add: Option<&[f32]>, out: &mut [f32]) {
        let finish = Finish {
            add,
            ..Finish::PLAIN
        };
        self.run(x, m, Then::Finish(finish), out);
    }

    /// Adds x · weightᵀ to `out`, which is a residual connection.
    ///
    /// # Panics
    /// When a slice is not of that size.
    pub(crate) fn accumulate(&self, x: &[f32], m: usize, out: &mut [f32]) {
        self.run(x, m, Then::Accumulate, out);
    }

    fn run(&self, x: &[f32], m: usize, then: Then<'_>, out: &mut [f32]) {
        assert_eq!(x.len(), m * self.k, "numbers of x");
        assert_eq!(out.len(), m * self.n, "numbers of the result");
        if out.is_empty() {
            return;
        }
        let integers = self.integers(x, m);
        let up = match then {
            Then::Gate(up) => up.integers(x, m),
            _ => None,
        };
        dispatch(Product {
            weight: self,
            x: Rows {
                data: x,
                stride: self.k,
            },
            integers: [integers.as_ref(), up.as_ref()],
            m,
            then,
            out,
        });
    }

    /// `x` as integers if this is a weight of integers.
    fn integers(&self, x: &[f32], m: usize) -> Option<Quantized> {
        match &self.numbers {
            Numbers::Int8(numbers) => Some(numbers.quantize(x, m)),
            _ => None,
        }
    }
}

/// The two weights in the middle of a gated MLP (Shazeer, 2020).
#[derive(Debug)]
pub(crate) struct Gated {
    gate: Weight,
    up: Weight,
}

impl Gated {
    /// Weights of the same shape.
    ///
    /// # Panics
    /// When their shapes differ.
    pub(crate) fn new(gate: Weight, up: Weight) -> Self {
        assert_eq!((gate.n, gate.k), (up.n, up.k), "shapes of gate and up");
        Self { gate, up }
    }

    /// Bytes in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.gate.bytes() + self.up.bytes()
    }

    /// silu(x · gateᵀ) · (x · upᵀ), element by element, for `m` rows `x` [m, k]
    /// in `out` [m, n], by the threads of the current pool.
    ///
    /// # Panics
    /// When a slice is not of that size.
    pub(crate) fn product(&self, x: &[f32], m: usize, out: &mut [f32]) {
        self.gate.run(x, m, Then::Gate(&self.up), out);
    }
}

/// What becomes of a product.
#[derive(Clone, Copy)]
enum Then<'a> {
    /// It is the result when it ends like this.
    Finish(Finish<'a>),
    /// It is added to the result.
    Accumulate,
    /// The result is silu(product) · (product with this).
    Gate(&'a Weight),
}

struct Product<'a> {
    weight: &'a Weight,
    x: Rows<'a>,
    /// `x` as integers for this weight, and for that of [`Then::Gate`].
    integers: [Option<&'a Quantized>; 2],
    m: usize,
    then: Then<'a>,
    out: &'a mut [f32],
}

impl WithSimd for Product<'_> {
    type Output = ();

    fn with_simd<S: Simd>(self, simd: S) {
        let Weight { n, k, width, .. } = *self.weight;
        let panels = n.div_ceil(width);
        let share = panels.div_ceil(rayon::current_num_threads() * SHARES);
        let least = TASK.div_ceil((self.m * k * width).max(1));
        let each = share.clamp(1, PANELS).max(least);
        let tasks = panels.div_ceil(each);
        // Every task writes its columns of all rows.
        let rows = self.out.chunks_mut(n);
        let mut rows: Vec<_> = rows.map(|row| row.chunks_mut(each * width)).collect();
        let mut parts: Vec<&mut [f32]> = Vec::with_capacity(self.m * tasks);
        for _ in 0..tasks {
            parts.extend(rows.iter_mut().filter_map(Iterator::next));
        }
        let columns = |(i, out)| Columns {
            weight: self.weight,
            x: self.x,
            integers: self.integers,
            then: self.then,
            panel: i * each,
            out,
        };
        if tasks == 1 {
            columns((0, &mut parts)).run(simd);
        } else {
            (parts.par_chunks_mut(self.m).enumerate()).for_each(|part| columns(part).run(simd));
        }
    }
}

/// What a thread does at a time.
struct Columns<'a, 'b> {
    weight: &'a Weight,
    x: Rows<'a>,
    integers: [Option<&'a Quantized>; 2],
    then: Then<'a>,
    /// The first panel.
    panel: usize,
    /// Every row's part of the result.
    out: &'b mut [&'a mut [f32]],
}

thread_local! {
    /// A product that is not the result.
    static OTHER: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

impl Columns<'_, '_> {
    fn run<S: Simd>(self, simd: S) {
        for (i, out) in self.out.chunks_mut(ROWS).enumerate() {
            let [own, ups] = self.integers;
            let block = |weight, integers, finish| Block {
                weight,
                x: self.x,
                integers,
                finish,
                row: i * ROWS,
                panel: self.panel,
            };
            let (other, integers) = match self.then {
                Then::Finish(finish) => {
                    block(self.weight, own, finish).run(simd, out);
                    continue;
                }
                Then::Accumulate => (self.weight, own),
                Then::Gate(up) => {
                    block(self.weight, own, Finish::PLAIN).run(simd, out);
                    (up, ups)
                }
            };
            let columns = out[0].len();
            let mut buffer = OTHER.take();
            buffer.resize(out.len() * columns, 0.0);
            let mut others: Vec<&mut [f32]> = buffer.chunks_mut(columns).collect();
            block(other, integers, Finish::PLAIN).run(simd, &mut others);
            let gate = matches!(self.then, Then::Gate(_));
            for (out, other) in out.iter_mut().zip(&others) {
                simd.vectorize(Join { gate, out, other });
            }
            OTHER.set(buffer);
        }
    }
}

/// out = silu(out) · other, or out + other.
struct Join<'a> {
    gate: bool,
    out: &'a mut [f32],
    other: &'a [f32],
}

impl WithSimd for Join<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let pairs = self.out.iter_mut().zip(self.other);
        if self.gate {
            pairs.for_each(|(out, other)| *out = silu(*out) * other);
        } else {
            pairs.for_each(|(out, other)| *out += other);
        }
    }
}

#[cfg(test)]
mod tests;
