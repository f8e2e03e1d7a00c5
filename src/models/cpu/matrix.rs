//! Products of matrices whose right side is packed once.
//!
//! A tile of the result, a dozen rows by two vectors, stays in registers while
//! it is summed; the right side lies in panels of that width, so that it is
//! read in order; the left side needs no packing, one number of each row is
//! read at a time. Rows are taken in blocks that stay in the second-level cache
//! while panel after panel passes. Long sums are made of partial ones, which
//! keeps the panel in the first-level cache and rounds less: the error grows
//! with the square root of their lengths.

use pulp::{Simd, WithSimd};

use super::{activation::Activation, dispatch};

/// Rows of a tile where vectors hold 16 numbers and there are 32 registers.
pub(super) const TALL: usize = 12;
/// Rows of a tile elsewhere.
pub(super) const SHORT: usize = 6;
/// Numbers of the left side that stay in the second-level cache.
const BLOCK: usize = 96 << 10;
/// Terms of a partial sum.
pub(super) const PART: usize = 256;

/// The right side of a product, [k, n], in panels.
#[derive(Clone, Debug)]
pub(crate) struct Packed {
    k: usize,
    n: usize,
    /// Columns of a panel; the last one is filled up with zeros.
    width: usize,
    panels: Vec<f32>,
}

/// Rows at equal distances in a slice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows<'a> {
    /// Starts with the first row.
    pub(crate) data: &'a [f32],
    /// From the start of one row to that of the next.
    pub(crate) stride: usize,
}

/// What a product ends with: out = activation(a·b + bias + add).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Finish<'a> {
    /// [n].
    pub(crate) bias: Option<&'a [f32]>,
    /// [m, n], close together.
    pub(crate) add: Option<&'a [f32]>,
    /// The activation.
    pub(crate) activation: Activation,
}

impl<'a> Finish<'a> {
    /// The product as it is.
    pub(crate) const PLAIN: Self = Self {
        bias: None,
        add: None,
        activation: Activation::Identity,
    };

    /// What `columns` columns from `from` on end with, of the row that starts
    /// `row` numbers into `add`.
    #[inline(always)]
    pub(super) fn of(self, row: usize, from: usize, columns: usize) -> Finish<'a> {
        Self {
            bias: self.bias.map(|bias| &bias[from..from + columns]),
            add: self.add.map(|add| &add[row + from..][..columns]),
            activation: self.activation,
        }
    }
}

impl Packed {
    /// Packs a matrix given by its element in row `k` and column `n`.
    pub(crate) fn new(k: usize, n: usize, element: impl Fn(usize, usize) -> f32) -> Self {
        let mut packed = Self {
            k: 0,
            n: 0,
            width: 0,
            panels: Vec::new(),
        };
        packed.fill(k, n, element);
        packed
    }

    /// A linear layer's weight as `PyTorch` stores it, [n, k] row by row.
    pub(crate) fn of_linear(weight: &[f32], k: usize, n: usize) -> Self {
        Self::new(k, n, |i, j| weight[j * k + i])
    }

    /// Packs another matrix into the same memory.
    pub(crate) fn fill(&mut self, k: usize, n: usize, element: impl Fn(usize, usize) -> f32) {
        self.width = 2 * dispatch(Lanes);
        (self.k, self.n) = (k, n);
        self.panels.clear();
        for first in (0..n).step_by(self.width) {
            for i in 0..k {
                let column = |j| if j < n { element(i, j) } else { 0.0 };
                self.panels.extend((first..first + self.width).map(column));
            }
        }
    }

    /// Rows.
    pub(crate) fn k(&self) -> usize {
        self.k
    }

    /// Columns.
    pub(crate) fn n(&self) -> usize {
        self.n
    }

    /// `m` rows of `k` numbers, `a`, times this; row i of the result starts at
    /// `out[i · stride]`.
    ///
    /// # Panics
    /// When a slice is too short for that.
    pub(crate) fn product(
        &self,
        a: Rows<'_>,
        m: usize,
        finish: Finish<'_>,
        out: &mut [f32],
        stride: usize,
    ) {
        assert!(stride >= self.n, "rows of the result overlap");
        if m > 0 && self.n > 0 {
            dispatch(Product {
                a,
                m,
                b: self,
                finish,
                out,
                stride,
            });
        }
    }
}

/// Asks how many numbers a vector holds.
pub(super) struct Lanes;

impl WithSimd for Lanes {
    type Output = usize;

    fn with_simd<S: Simd>(self, _: S) -> usize {
        S::F32_LANES
    }
}

struct Product<'a> {
    a: Rows<'a>,
    m: usize,
    b: &'a Packed,
    finish: Finish<'a>,
    out: &'a mut [f32],
    stride: usize,
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let k = self.b.k;
        let tall = if S::F32_LANES == 16 { TALL } else { SHORT };
        let block = (BLOCK / k.max(1)).next_multiple_of(tall);
        for first in (0..self.m).step_by(block) {
            let last = (first + block).min(self.m);
            for part in (0..k.max(1)).step_by(PART) {
                for j in 0..self.b.n.div_ceil(self.b.width) {
                    let at = [j, part];
                    let mut row = first;
                    if S::F32_LANES == 16 {
                        row = self.rows::<S, TALL>(simd, row, last, at);
                    }
                    row = self.rows::<S, SHORT>(simd, row, last, at);
                    row = self.rows::<S, 3>(simd, row, last, at);
                    self.rows::<S, 1>(simd, row, last, at);
                }
            }
        }
    }
}

impl Product<'_> {
    /// Tiles of `M` rows from `row` on, as long as they fit, of a panel and a
    /// part of the sums; returns the next row.
    #[inline(always)]
    fn rows<S: Simd, const M: usize>(
        &mut self,
        simd: S,
        mut row: usize,
        last: usize,
        at: [usize; 2],
    ) -> usize {
        while row + M <= last {
            self.tile::<S, M>(simd, row, at);
            row += M;
        }
        row
    }

    #[inline(always)]
    fn tile<S: Simd, const M: usize>(&mut self, simd: S, row: usize, [j, part]: [usize; 2]) {
        let (k, width) = (self.b.k, self.b.width);
        let end = (part + PART).min(k);
        let terms = end - part;
        let rows: [&[f32]; M] =
            std::array::from_fn(|m| &self.a.data[(row + m) * self.a.stride + part..][..terms]);
        let panel = &self.b.panels[(j * k + part) * width..][..terms * width];
        let mut sums = [[[simd.splat_f32s(0.0); 2]; 1]; M];
        multiply(simd, rows, [panel], &mut sums);
        let finish = if end == k { self.finish } else { Finish::PLAIN };
        let from = j * width;
        let columns = width.min(self.b.n - from);
        for (m, [sums]) in sums.into_iter().enumerate() {
            let at = (row + m) * self.stride + from;
            let end = finish.of((row + m) * self.b.n, from, columns);
            store(simd, sums, &mut self.out[at..at + columns], part > 0, end);
        }
    }
}

/// Adds the products of `M` rows and `P` panels, a number of each row and two
/// vectors of each panel at a time, to `sums`.
#[inline(always)]
pub(super) fn multiply<S: Simd, const M: usize, const P: usize>(
    simd: S,
    rows: [&[f32]; M],
    panels: [&[f32]; P],
    sums: &mut [[[S::f32s; 2]; P]; M],
) {
    let terms = rows.iter().map(|row| row.len()).min().unwrap_or(0);
    let rows = rows.map(|row| &row[..terms]);
    let panels = panels.map(|panel| &S::as_simd_f32s(panel).0.as_chunks::<2>().0[..terms]);
    for i in 0..terms {
        let b = panels.map(|panel| panel[i]);
        for (row, sums) in rows.iter().zip(&mut *sums) {
            let a = simd.splat_f32s(row[i]);
            for (sums, b) in sums.iter_mut().zip(b) {
                sums[0] = simd.mul_add_e_f32s(a, b[0], sums[0]);
                sums[1] = simd.mul_add_e_f32s(a, b[1], sums[1]);
            }
        }
    }
}

/// Writes a row of a tile to `out`, which is shorter than two vectors at the
/// end of a matrix; `again` if it holds the first part of the sums. The slices
/// of `finish` are as long as `out`.
#[inline(always)]
pub(super) fn store<S: Simd>(
    simd: S,
    sums: [S::f32s; 2],
    out: &mut [f32],
    again: bool,
    finish: Finish<'_>,
) {
    let columns = out.len();
    let lanes = S::F32_LANES.min(columns);
    for (i, mut sum) in sums.into_iter().enumerate() {
        let columns_of = i * lanes..columns.min((i + 1) * S::F32_LANES);
        if columns_of.is_empty() {
            break;
        }
        if again {
            sum = simd.add_f32s(sum, simd.partial_load_f32s(&out[columns_of.clone()]));
        }
        if let Some(bias) = finish.bias {
            sum = simd.add_f32s(sum, simd.partial_load_f32s(&bias[columns_of.clone()]));
        }
        if let Some(rest) = finish.add {
            sum = simd.add_f32s(sum, simd.partial_load_f32s(&rest[columns_of.clone()]));
        }
        if finish.activation == Activation::Relu {
            sum = simd.max_f32s(sum, simd.splat_f32s(0.0));
        }
        simd.partial_store_f32s(&mut out[columns_of], sum);
    }
    if !matches!(finish.activation, Activation::Identity | Activation::Relu) {
        finish.activation.apply(out);
    }
}
