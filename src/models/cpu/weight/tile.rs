//! A block of a product: some rows by some panels.

use std::cell::Cell;

use pulp::{Simd, WithSimd};

use super::{
    Weight,
    int8::{self, Quantized},
    nf4::{Exact, Rounded, ToBf16, ToF16},
    numbers::{Aligned, Format, Numbers, Panels, Run, WIDTH},
};
use crate::models::cpu::matrix::{Finish, PART, Rows, SHORT, TALL, multiply, store};

thread_local! {
    /// A part of a panel in f32.
    static PIECE: Cell<Aligned<f32>> = Cell::new(Aligned::new(PART * WIDTH));
}

/// Rows from `row` on by panels from `panel` on; how many, the result says.
#[derive(Clone, Copy)]
pub(super) struct Block<'a> {
    pub(super) weight: &'a Weight,
    pub(super) x: Rows<'a>,
    /// `x` as integers, for a weight of integers.
    pub(super) integers: Option<&'a Quantized>,
    pub(super) finish: Finish<'a>,
    pub(super) row: usize,
    pub(super) panel: usize,
}

/// Where in its block a tile begins.
#[derive(Clone, Copy)]
struct Place {
    row: usize,
    panel: usize,
    /// The first term of the part of the sums.
    part: usize,
    /// Panels.
    abreast: usize,
}

impl Block<'_> {
    /// Computes the block; `out` has a slice for every row.
    pub(super) fn run<S: Simd>(self, simd: S, out: &mut [&mut [f32]]) {
        match &self.weight.numbers {
            Numbers::F32(numbers) => self.run_with(simd, numbers, out),
            Numbers::Bf16(numbers) => self.run_with(simd, numbers, out),
            Numbers::F16(numbers) => self.run_with(simd, numbers, out),
            Numbers::Int8(weight) => {
                if let Some(x) = self.integers {
                    let Self { row, panel, .. } = self;
                    let block = int8::Block {
                        weight,
                        x,
                        row,
                        panel,
                    };
                    block.run(simd, out);
                    self.add(out);
                }
            }
            Numbers::Nf4(numbers) => match numbers.round() {
                Format::F32 => self.run_with(simd, Rounded(numbers, Exact), out),
                Format::Bf16 => self.run_with(simd, Rounded(numbers, ToBf16), out),
                Format::F16 => self.run_with(simd, Rounded(numbers, ToF16), out),
            },
        }
    }

    /// Adds what a product of integers ends with.
    fn add(self, out: &mut [&mut [f32]]) {
        let Weight { n, width, .. } = *self.weight;
        for (i, out) in out.iter_mut().enumerate() {
            let finish = self.finish;
            let finish = finish.of((self.row + i) * n, self.panel * width, out.len());
            for rest in [finish.bias, finish.add].into_iter().flatten() {
                out.iter_mut()
                    .zip(rest)
                    .for_each(|(out, rest)| *out += rest);
            }
        }
    }

    fn run_with<S: Simd, N: Panels>(self, simd: S, numbers: N, out: &mut [&mut [f32]]) {
        let mut piece = PIECE.take();
        let panels = out[0].len().div_ceil(self.weight.width);
        let tall = if S::F32_LANES == 16 { TALL } else { SHORT };
        let tiles = Tiles {
            block: self,
            numbers,
            piece: piece.get_mut(),
        };
        if out.len() <= tall {
            tiles.few(simd, out, panels);
        } else {
            tiles.many(simd, out, panels, tall);
        }
        PIECE.set(piece);
    }

    /// Where the parts of the sums begin.
    fn parts(&self) -> impl Iterator<Item = usize> + use<> {
        (0..self.weight.k.max(1)).step_by(PART)
    }
}

/// The tiles of a block.
struct Tiles<'a, 'b, N> {
    block: Block<'a>,
    numbers: N,
    /// Room for a part of a panel in f32.
    piece: &'b mut [f32],
}

impl<N: Panels> Tiles<'_, '_, N> {
    /// Rows of a single tile: the panels are read once, one after another.
    fn few<S: Simd>(mut self, simd: S, out: &mut [&mut [f32]], panels: usize) {
        let mut panel = 0;
        while panel < panels {
            // One row makes too few sums to hide how long each takes.
            let abreast = match out.len() {
                1 if panels - panel >= 4 => 4,
                1..=3 if panels - panel >= 2 => 2,
                _ => 1,
            };
            for part in self.block.parts() {
                let place = Place {
                    row: 0,
                    panel,
                    part,
                    abreast,
                };
                self.tile(simd, place, out);
            }
            panel += abreast;
        }
    }

    /// Rows of several tiles, all of about the same height; a part of the sums
    /// at a time, so that the rows stay in the second-level cache.
    fn many<S: Simd>(mut self, simd: S, out: &mut [&mut [f32]], panels: usize, tall: usize) {
        let tiles = out.len().div_ceil(tall);
        for part in self.block.parts() {
            for panel in 0..panels {
                for tile in 0..tiles {
                    let [row, next] = [tile, tile + 1].map(|i| out.len() * i / tiles);
                    let place = Place {
                        row,
                        panel,
                        part,
                        abreast: 1,
                    };
                    self.tile(simd, place, &mut out[row..next]);
                }
            }
        }
    }

    /// A tile of as many rows as `out` has.
    fn tile<S: Simd>(&mut self, simd: S, place: Place, out: &mut [&mut [f32]]) {
        let rows = out.len();
        let tile = Tile::<N, 1, 1> {
            block: self.block,
            numbers: self.numbers,
            piece: self.piece,
            place,
            out,
        };
        // Each is a function of its own, which keeps its sums in registers.
        match (rows, place.abreast) {
            (1, 4) => simd.vectorize(tile.of::<1, 4>()),
            (1, 2) => simd.vectorize(tile.of::<1, 2>()),
            (2, 2) => simd.vectorize(tile.of::<2, 2>()),
            (3, 2) => simd.vectorize(tile.of::<3, 2>()),
            (1, _) => simd.vectorize(tile),
            (2, _) => simd.vectorize(tile.of::<2, 1>()),
            (3, _) => simd.vectorize(tile.of::<3, 1>()),
            (4, _) => simd.vectorize(tile.of::<4, 1>()),
            (5, _) => simd.vectorize(tile.of::<5, 1>()),
            (SHORT, _) => simd.vectorize(tile.of::<SHORT, 1>()),
            // No others where vectors are shorter.
            _ if S::F32_LANES < 16 => {}
            (7, _) => simd.vectorize(tile.of::<7, 1>()),
            (8, _) => simd.vectorize(tile.of::<8, 1>()),
            (9, _) => simd.vectorize(tile.of::<9, 1>()),
            (10, _) => simd.vectorize(tile.of::<10, 1>()),
            (11, _) => simd.vectorize(tile.of::<11, 1>()),
            _ => simd.vectorize(tile.of::<TALL, 1>()),
        }
    }
}

/// `M` rows by `P` panels by a part of the sums.
struct Tile<'a, 'b, 'c, N, const M: usize, const P: usize> {
    block: Block<'a>,
    numbers: N,
    /// The first tile of several leaves the panel here for the others.
    piece: &'b mut [f32],
    place: Place,
    out: &'b mut [&'c mut [f32]],
}

impl<'a, 'b, 'c, N, const M: usize, const P: usize> Tile<'a, 'b, 'c, N, M, P> {
    fn of<const M2: usize, const P2: usize>(self) -> Tile<'a, 'b, 'c, N, M2, P2> {
        Tile {
            block: self.block,
            numbers: self.numbers,
            piece: self.piece,
            place: self.place,
            out: self.out,
        }
    }
}

impl<N: Panels, const M: usize, const P: usize> WithSimd for Tile<'_, '_, '_, N, M, P> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self {
            block: Block { weight, x, .. },
            numbers,
            place: Place { part, .. },
            piece,
            ..
        } = self;
        let (n, k, width) = (weight.n, weight.k, 2 * S::F32_LANES);
        let terms = PART.min(k - part);
        let panel = self.block.panel + self.place.panel;
        let row = self.block.row + self.place.row;
        let rows: [&[f32]; M] =
            std::array::from_fn(|m| &x.data[(row + m) * x.stride + part..][..terms]);
        let mut sums = [[[simd.splat_f32s(0.0); 2]; P]; M];
        if numbers.plain(panel, part, terms).is_some() {
            let panels =
                std::array::from_fn(|p| numbers.plain(panel + p, part, terms).unwrap_or(&[]));
            multiply::<S, M, P>(simd, rows, panels, &mut sums);
        } else if self.place.row > 0 {
            let panels = [&piece[..terms * width]; P];
            multiply::<S, M, P>(simd, rows, panels, &mut sums);
        } else {
            let (piece, _) = S::as_mut_simd_f32s(&mut piece[..terms * width]);
            let (piece, _) = piece.as_chunks_mut::<2>();
            let mut from = 0;
            while from < terms {
                let runs: [N::Run; P] =
                    std::array::from_fn(|p| numbers.run(panel + p, part + from, terms - from));
                let next = from + runs[0].terms();
                let mut at = [[simd.splat_f32s(0.0); 2]; P];
                for i in from..next {
                    for (at, run) in at.iter_mut().zip(runs) {
                        *at = run.term(simd, i - from);
                    }
                    // Tiles of fewer rows are the only ones of their panels.
                    if P == 1 && M >= 3 {
                        piece[i] = at[0];
                    }
                    for (row, sums) in rows.iter().zip(&mut sums) {
                        let a = simd.splat_f32s(row[i]);
                        for (sums, b) in sums.iter_mut().zip(at) {
                            sums[0] = simd.mul_add_e_f32s(a, b[0], sums[0]);
                            sums[1] = simd.mul_add_e_f32s(a, b[1], sums[1]);
                        }
                    }
                }
                from = next;
            }
        }
        let finish = if part + terms == k {
            self.block.finish
        } else {
            Finish::PLAIN
        };
        for ((m, sums), out) in sums.into_iter().enumerate().zip(self.out) {
            for (p, sums) in sums.into_iter().enumerate() {
                let first = (self.place.panel + p) * width;
                let columns = width.min(out.len() - first);
                let finish = finish.of((row + m) * n, (panel + p) * width, columns);
                store(
                    simd,
                    sums,
                    &mut out[first..first + columns],
                    part > 0,
                    finish,
                );
            }
        }
    }
}
