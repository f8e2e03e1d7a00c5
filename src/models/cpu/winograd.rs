//! 3×3 convolutions of stride 1 by Winograd's minimal filtering F(4×4, 3×3).
//!
//! Lavin and Gray 2016 (arXiv 1509.09308), section 4.3: a tile of 4×4 outputs
//! costs 36 multiplications a channel pair instead of 144. With overlapping
//! 6×6 input tiles d and filters g, each output tile is
//! Aᵀ[(G g Gᵀ) ⊙ (Bᵀ d B)]A; summed over channels the middle is 36 products of
//! matrices. G g Gᵀ is computed once, in f64.
//!
//! The paper interpolates at 0, ±1, ±2 and ∞. Here it is 0, ±a, ±1/a and ∞ with
//! a = 2/3, which halves the rounding error (measured: 0.6e-6 of the result in
//! place of 1.3e-6 for 64 channels; a sum in order has 0.3e-6).

use pulp::{Simd, WithSimd};

use super::{
    activation::Activation,
    dispatch,
    matrix::{Finish, Packed, Rows},
    scratch::Scratch,
};

/// Side of a tile of outputs.
const OUT: usize = 4;
/// Side of a tile of inputs.
const IN: usize = 6;
/// Numbers of an input tile.
const PLACES: usize = IN * IN;
/// Tiles that go through the three steps together, at least.
const FEWEST: usize = 48;
/// Numbers of transformed inputs and outputs that go together, about.
const TOGETHER: usize = 1 << 18;

/// The points a and b = 1/a, and a² + b².
const A: f64 = 2.0 / 3.0;
const B: f64 = 1.5;
const S: f64 = A * A + B * B;

/// The row of G for the point `p`: its powers over the product of its
/// distances to the other points.
const fn powers(p: f64, distances: f64) -> [f64; 3] {
    [1.0 / distances, p / distances, p * p / distances]
}

/// G, by rows: the points 0, a, -a, b, -b, ∞.
const G: [[f64; 3]; IN] = [
    [1.0, 0.0, 0.0],
    powers(A, 2.0 * A * A * (A * A - B * B)),
    powers(-A, 2.0 * A * A * (A * A - B * B)),
    powers(B, 2.0 * B * B * (B * B - A * A)),
    powers(-B, 2.0 * B * B * (B * B - A * A)),
    [0.0, 0.0, 1.0],
];

/// A convolution with padding 1, its filters transformed.
#[derive(Clone, Debug)]
pub(crate) struct Conv3x3 {
    input: usize,
    output: usize,
    /// One matrix [input, output] for each place of a tile.
    filters: Vec<Packed>,
    bias: Vec<f32>,
}

/// Which pixels a batch has.
#[derive(Clone, Copy, Debug)]
struct Shape {
    height: usize,
    width: usize,
    /// Tiles down and across.
    down: usize,
    across: usize,
}

impl Conv3x3 {
    /// Filters [output, input, 3, 3] as `PyTorch` stores them, and a bias [output].
    pub(crate) fn new(weight: &[f32], input: usize, bias: Vec<f32>) -> Self {
        let output = bias.len();
        let transformed = |i: usize, o: usize| {
            let filter = &weight[(o * input + i) * 9..][..9];
            let mut half = [[0.0; 3]; IN];
            for (row, g) in half.iter_mut().zip(&G) {
                for (x, value) in row.iter_mut().enumerate() {
                    *value = (0..3).map(|y| g[y] * f64::from(filter[y * 3 + x])).sum();
                }
            }
            let mut whole = [0.0; PLACES];
            for (place, value) in whole.iter_mut().enumerate() {
                let (row, g) = (&half[place / IN], &G[place % IN]);
                *value = (0..3).map(|x| row[x] * g[x]).sum::<f64>() as f32;
            }
            whole
        };
        let all: Vec<[f32; PLACES]> = (0..input * output)
            .map(|at| transformed(at / output, at % output))
            .collect();
        let filters = (0..PLACES)
            .map(|place| Packed::new(input, output, |i, o| all[i * output + o][place]))
            .collect();
        Self {
            input,
            output,
            filters,
            bias,
        }
    }

    /// [n, height, width, input] → [n, height, width, output], then `activation`.
    ///
    /// # Panics
    /// When a slice has another length.
    pub(crate) fn forward(
        &self,
        x: &[f32],
        [height, width]: [usize; 2],
        activation: Activation,
        out: &mut [f32],
        scratch: &mut Scratch,
    ) {
        let shape = Shape {
            height,
            width,
            down: height.div_ceil(OUT),
            across: width.div_ceil(OUT),
        };
        let n = x.len() / (height * width * self.input);
        assert_eq!(out.len(), n * height * width * self.output);
        let tiles = n * shape.down * shape.across;
        let channels = self.input + self.output;
        let together = (TOGETHER / (PLACES * channels)).max(FEWEST).min(tiles);
        let mut before = scratch.take(PLACES * together * self.input);
        let mut after = scratch.take(PLACES * together * self.output);
        for first in (0..tiles).step_by(together) {
            let count = together.min(tiles - first);
            dispatch(Inputs {
                x,
                shape,
                channels: self.input,
                first,
                count,
                out: &mut before,
            });
            for (place, filter) in self.filters.iter().enumerate() {
                let a = Rows {
                    data: &before[place * count * self.input..],
                    stride: self.input,
                };
                let out = &mut after[place * count * self.output..];
                filter.product(a, count, Finish::PLAIN, out, self.output);
            }
            dispatch(Outputs {
                x: &after,
                shape,
                bias: &self.bias,
                activation,
                first,
                count,
                out,
            });
        }
        scratch.give(before);
        scratch.give(after);
    }
}

impl Shape {
    /// Image and upper left output of tile `i`.
    fn place(&self, i: usize) -> (usize, usize, usize) {
        let (image, tile) = (i / (self.down * self.across), i % (self.down * self.across));
        (image, tile / self.across * OUT, tile % self.across * OUT)
    }

    /// Where a pixel's channels start, counted in pixels.
    fn pixel(&self, image: usize, y: usize, x: usize) -> usize {
        (image * self.height + y) * self.width + x
    }
}

/// Tiles of inputs → out[place][tile][channel].
struct Inputs<'a> {
    x: &'a [f32],
    shape: Shape,
    channels: usize,
    first: usize,
    count: usize,
    out: &'a mut [f32],
}

impl WithSimd for Inputs<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let c = self.channels;
        for t in 0..self.count {
            let (image, top, left) = self.shape.place(self.first + t);
            for from in (0..c).step_by(S::F32_LANES) {
                let lanes = S::F32_LANES.min(c - from);
                let zero = simd.splat_f32s(0.0);
                let mut tile = [[zero; IN]; IN];
                for (dy, row) in tile.iter_mut().enumerate() {
                    // The tile starts one pixel before its first output.
                    let y = top + dy;
                    if y < 1 || y > self.shape.height {
                        continue;
                    }
                    for (dx, value) in row.iter_mut().enumerate() {
                        let x = left + dx;
                        if x < 1 || x > self.shape.width {
                            continue;
                        }
                        let at = self.shape.pixel(image, y - 1, x - 1) * c + from;
                        *value = load(simd, &self.x[at..at + lanes]);
                    }
                }
                let tile = columns(tile, |d| bt(simd, d));
                for (y, row) in tile.into_iter().enumerate() {
                    for (x, value) in bt(simd, row).into_iter().enumerate() {
                        let at = ((y * IN + x) * self.count + t) * c + from;
                        store(simd, &mut self.out[at..at + lanes], value);
                    }
                }
            }
        }
    }
}

/// x[place][tile][channel] → pixels of the tiles' outputs.
struct Outputs<'a> {
    x: &'a [f32],
    shape: Shape,
    bias: &'a [f32],
    activation: Activation,
    first: usize,
    count: usize,
    out: &'a mut [f32],
}

impl WithSimd for Outputs<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let c = self.bias.len();
        for t in 0..self.count {
            let (image, top, left) = self.shape.place(self.first + t);
            for from in (0..c).step_by(S::F32_LANES) {
                let lanes = S::F32_LANES.min(c - from);
                let bias = load(simd, &self.bias[from..from + lanes]);
                let mut tile = [[bias; IN]; IN];
                for (y, row) in tile.iter_mut().enumerate() {
                    for (x, value) in row.iter_mut().enumerate() {
                        let at = ((y * IN + x) * self.count + t) * c + from;
                        *value = load(simd, &self.x[at..at + lanes]);
                    }
                }
                let mut half = [[bias; IN]; OUT];
                for x in 0..IN {
                    let column = at(simd, std::array::from_fn(|y| tile[y][x]));
                    for (row, value) in half.iter_mut().zip(column) {
                        row[x] = value;
                    }
                }
                for (dy, row) in half.into_iter().enumerate() {
                    let y = top + dy;
                    if y >= self.shape.height {
                        break;
                    }
                    for (dx, value) in at(simd, row).into_iter().enumerate() {
                        let x = left + dx;
                        if x >= self.shape.width {
                            break;
                        }
                        let mut value = simd.add_f32s(value, bias);
                        if self.activation == Activation::Relu {
                            value = simd.max_f32s(value, simd.splat_f32s(0.0));
                        }
                        let at = self.shape.pixel(image, y, x) * c + from;
                        store(simd, &mut self.out[at..at + lanes], value);
                    }
                }
            }
        }
    }
}

/// `f` of every column.
#[inline(always)]
fn columns<T: Copy>(tile: [[T; IN]; IN], f: impl Fn([T; IN]) -> [T; IN]) -> [[T; IN]; IN] {
    let mut out = tile;
    for x in 0..IN {
        let column = f(std::array::from_fn(|y| tile[y][x]));
        for (row, value) in out.iter_mut().zip(column) {
            row[x] = value;
        }
    }
    out
}

/// Bᵀ d: the rows of Bᵀ are the coefficients of the polynomials with all
/// points but one for roots.
#[inline(always)]
fn bt<V: Simd>(simd: V, d: [V::f32s; IN]) -> [V::f32s; IN] {
    let times = |f: f64, x, y| simd.mul_add_e_f32s(simd.splat_f32s(f as f32), x, y);
    let scaled = |f: f64, x| simd.mul_f32s(simd.splat_f32s(f as f32), x);
    let even_a = times(-B * B, d[2], d[4]);
    let odd_a = times(A, d[3], scaled(-B, d[1]));
    let even_b = times(-A * A, d[2], d[4]);
    let odd_b = times(B, d[3], scaled(-A, d[1]));
    [
        times(-S, d[2], simd.add_f32s(d[0], d[4])),
        simd.add_f32s(even_a, odd_a),
        simd.sub_f32s(even_a, odd_a),
        simd.add_f32s(even_b, odd_b),
        simd.sub_f32s(even_b, odd_b),
        times(-S, d[3], simd.add_f32s(d[1], d[5])),
    ]
}

/// Aᵀ m: the rows of Aᵀ are the points' powers.
#[inline(always)]
fn at<V: Simd>(simd: V, m: [V::f32s; IN]) -> [V::f32s; OUT] {
    let times = |f: f64, x, y| simd.mul_add_e_f32s(simd.splat_f32s(f as f32), x, y);
    let scaled = |f: f64, x| simd.mul_f32s(simd.splat_f32s(f as f32), x);
    let (sum_a, off_a) = (simd.add_f32s(m[1], m[2]), simd.sub_f32s(m[1], m[2]));
    let (sum_b, off_b) = (simd.add_f32s(m[3], m[4]), simd.sub_f32s(m[3], m[4]));
    [
        simd.add_f32s(m[0], simd.add_f32s(sum_a, sum_b)),
        times(A, off_a, scaled(B, off_b)),
        times(A * A, sum_a, scaled(B * B, sum_b)),
        times(A * A * A, off_a, times(B * B * B, off_b, m[5])),
    ]
}

#[inline(always)]
fn load<S: Simd>(simd: S, from: &[f32]) -> S::f32s {
    simd.partial_load_f32s(from)
}

#[inline(always)]
fn store<S: Simd>(simd: S, to: &mut [f32], value: S::f32s) {
    simd.partial_store_f32s(to, value);
}
