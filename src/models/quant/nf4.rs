//! Weights of 4 bits in blocks: positions in a table of 16, one scale per block.

use std::ops::Range;

use anyhow::{Result, bail, ensure};
use rayon::prelude::*;

use super::{
    BLOCKSIZES, PIECE, RawTensor, Round, absmax, check_rows, count,
    nested::{Nested, Scales},
    raw::{Take, need},
    state::State,
};

/// The NF4 table: quantiles of the normal distribution, zero among them.
#[expect(clippy::excessive_precision, reason = "as they are published")]
pub const NF4: [f32; 16] = [
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
];

/// What must be exceeded for the next position.
pub(super) const MIDPOINTS: [f32; 15] = {
    let mut midpoints = [0.0; 15];
    let mut i = 0;
    while i < 15 {
        midpoints[i] = f32::midpoint(NF4[i], NF4[i + 1]);
        i += 1;
    }
    midpoints
};

/// The code of 0.0, which fills up the last byte of an odd number of weights.
const ZERO: u8 = 7;

/// Scales are at least this where they are divided by.
const LEAST: f32 = 1e-38;

/// How many numbers are encoded side by side.
const LANES: usize = 32;

/// A weight [outs, ins] in 4 bits.
///
/// The numbers, in row-major order, are cut into blocks without regard to rows;
/// the last block may be shorter. Number i is `table[code]·absmax[i / blocksize]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Nf4 {
    shape: [usize; 2],
    blocksize: usize,
    dtype: Round,
    /// Two a byte, the first in the high half.
    codes: Vec<u8>,
    table: [f32; 16],
    pub(super) scales: Scales,
}

impl Nf4 {
    /// Quantises the rows of a weight [outs, ins] to NF4.
    ///
    /// `row(r, out)` writes row `r`, `ins` numbers, and may be called from many
    /// threads and more than once for a row; the whole weight is never in
    /// memory as `f32`. `dtype` is the type that the numbers have, which only
    /// [`Nf4::dtype`] reports.
    ///
    /// In a block with a NaN every code is 15 and the scale NaN; in one with an
    /// infinity the scale is infinite and the codes those of 0.0 (15 where the
    /// infinity was), as in bitsandbytes.
    ///
    /// # Errors
    ///
    /// An empty or uncountable shape, or a `blocksize` other than 32, 64, 128,
    /// 256, 512, 1024, 2048 and 4096.
    pub fn quantize(
        shape: [usize; 2],
        blocksize: usize,
        dtype: Round,
        row: impl Fn(usize, &mut [f32]) + Sync,
    ) -> Result<Self> {
        let n = count(shape)?;
        check_blocksize(blocksize)?;
        let ins = shape[1];
        let mut codes = vec![0; n.div_ceil(2)];
        let mut absmax = vec![0.0; n.div_ceil(blocksize)];
        let piece = piece(ins, blocksize);
        (codes.par_chunks_mut(piece / 2))
            .zip(absmax.par_chunks_mut(piece / blocksize))
            .enumerate()
            .for_each_init(Vec::new, |rows, (i, (codes, absmax))| {
                let start = i * piece;
                let end = n.min(start + piece);
                let first = start / ins;
                rows.resize((end.div_ceil(ins) - first) * ins, 0.0);
                for (r, out) in rows.chunks_exact_mut(ins).enumerate() {
                    row(first + r, out);
                }
                if let Some(values) = rows.get(start - first * ins..end - first * ins) {
                    encode(values, blocksize, codes, absmax);
                }
            });
        Ok(Self {
            shape,
            blocksize,
            dtype,
            codes,
            table: NF4,
            scales: Scales::Plain(absmax),
        })
    }

    /// Quantises numbers that lie in memory, row after row.
    ///
    /// # Errors
    ///
    /// As [`Nf4::quantize`], and another number of values than the shape says.
    pub fn from_values(
        values: &[f32],
        shape: [usize; 2],
        blocksize: usize,
        dtype: Round,
    ) -> Result<Self> {
        let n = count(shape)?;
        ensure!(
            values.len() == n,
            "{} numbers are not of shape {shape:?}",
            values.len()
        );
        let ins = shape[1];
        Self::quantize(shape, blocksize, dtype, |r, out| {
            out.copy_from_slice(&values[r * ins..(r + 1) * ins]);
        })
    }

    /// Quantises the scales too: 8.25 bits become 8 + 32/256 a block.
    ///
    /// Scales that are nested already stay as they are.
    ///
    /// # Errors
    ///
    /// A scale is not finite, because the weight holds a NaN or an infinity.
    pub fn double_quantize(mut self) -> Result<Self> {
        if let Scales::Plain(absmax) = &self.scales {
            self.scales = Scales::Nested(Nested::quantize(absmax)?);
        }
        Ok(self)
    }

    /// Reads the weight `name` and what accompanies it, as bitsandbytes saves
    /// them.
    ///
    /// `take` gives the tensor of a name, or `None` if there is none. The codes
    /// may be stored under any type of 1, 2, 4 or 8 bytes
    /// (`bnb_4bit_quant_storage`). The table is the file's, so that FP4 weights
    /// are read too.
    ///
    /// # Errors
    ///
    /// A tensor that is missing, or whose type, shape or length does not fit the
    /// others; numbers that are not finite; a state that is not understood. The
    /// message names the tensor.
    pub fn read(
        name: &str,
        mut take: impl FnMut(&str) -> Result<Option<RawTensor>>,
    ) -> Result<Self> {
        let take: &mut Take = &mut take;
        let state = State::read(name, take)?;
        let shape = state.shape;
        let n = count(shape)?;
        let blocks = n.div_ceil(state.blocksize);

        let key = format!("{name}.quant_map");
        let table = need(take, &key)?.numbers(&key, 16)?;
        let Ok(table) = <[f32; 16]>::try_from(table) else {
            bail!("tensor `{key}`: expected 16 numbers");
        };
        let key = format!("{name}.absmax");
        let absmax = need(take, &key)?;
        let scales = match state.nested {
            None => Scales::Plain(absmax.numbers(&key, blocks)?),
            Some(nested) => {
                absmax.expect(&key, "U8", &[blocks])?;
                let codes = absmax.exactly(&key, blocks)?;
                let key = format!("{name}.nested_quant_map");
                let map = need(take, &key)?.numbers(&key, 256)?;
                let Ok(map) = <Box<[f32; 256]>>::try_from(map) else {
                    bail!("tensor `{key}`: expected 256 numbers");
                };
                let key = format!("{name}.nested_absmax");
                let most = need(take, &key)?.numbers(&key, blocks.div_ceil(nested.blocksize))?;
                Scales::Nested(Nested::from_parts(
                    codes,
                    map,
                    most,
                    nested.blocksize,
                    nested.offset,
                )?)
            }
        };
        let codes = need(take, name)?;
        let storage = ["U8", "I8", "F16", "BF16", "F32", "F64"];
        ensure!(
            storage.contains(&codes.dtype.as_str()),
            "tensor `{name}`: expected packed codes (U8), found {}",
            codes.dtype
        );
        Ok(Self {
            shape,
            blocksize: state.blocksize,
            dtype: state.dtype,
            codes: codes.exactly(name, n.div_ceil(2))?,
            table,
            scales,
        })
    }

    /// [outs, ins].
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// How many numbers share a scale.
    pub fn blocksize(&self) -> usize {
        self.blocksize
    }

    /// The type that the numbers had, and that `dequantize_4bit` returns.
    pub fn dtype(&self) -> Round {
        self.dtype
    }

    /// The codes, two a byte, the first in the high half.
    pub fn codes(&self) -> &[u8] {
        &self.codes
    }

    /// What the codes are positions in.
    pub fn table(&self) -> &[f32; 16] {
        &self.table
    }

    /// One scale per block.
    pub fn scales(&self) -> &Scales {
        &self.scales
    }

    /// One scale per block as numbers.
    pub fn absmax(&self) -> Vec<f32> {
        self.scales.to_vec()
    }

    /// How much memory the weight takes, in bytes.
    pub fn size(&self) -> usize {
        let scales = match &self.scales {
            Scales::Plain(absmax) => absmax.len() * 4,
            Scales::Nested(nested) => nested.codes.len() + (nested.absmax.len() + 256) * 4,
        };
        self.codes.len() + scales
    }

    /// The weight [outs, ins] as numbers, rounded to a type: `table[code]·absmax`
    /// in f32, then rounded once more.
    pub fn dequantize(&self, round: Round) -> Vec<f32> {
        let [outs, ins] = self.shape;
        let mut out = vec![0.0; outs * ins];
        let rows = (PIECE / ins).max(1);
        out.par_chunks_mut(rows * ins)
            .enumerate()
            .for_each(|(i, out)| self.decode(i * rows * ins, round, out));
        out
    }

    /// Some rows of [`Nf4::dequantize`], into `out` [rows, ins].
    ///
    /// # Errors
    ///
    /// Rows that the weight does not have, or an `out` of another length.
    pub fn dequantize_rows(&self, rows: Range<usize>, round: Round, out: &mut [f32]) -> Result<()> {
        let ins = self.shape[1];
        check_rows(self.shape, &rows, out)?;
        self.decode(rows.start * ins, round, out);
        Ok(())
    }

    /// Numbers from the `start`th on.
    fn decode(&self, start: usize, round: Round, mut out: &mut [f32]) {
        let mut at = start;
        while !out.is_empty() {
            let block = at / self.blocksize;
            let left = (block + 1) * self.blocksize - at;
            let (now, later) = out.split_at_mut(left.min(out.len()));
            // Within a block there are 16 numbers only; they are rounded once.
            let absmax = self.scales.get(block).unwrap_or(f32::NAN);
            let table = self.table.map(|value| round.of(value * absmax));
            self.look_up(at, &table, now);
            at += now.len();
            out = later;
        }
    }

    /// Numbers from the `start`th on, all of one block.
    fn look_up(&self, start: usize, table: &[f32; 16], mut out: &mut [f32]) {
        let mut bytes = self.codes.get(start / 2..).unwrap_or_default();
        if start % 2 == 1
            && let (Some((byte, rest)), Some((first, others))) = (
                bytes.split_first(),
                std::mem::take(&mut out).split_first_mut(),
            )
        {
            *first = table[usize::from(byte & 15)];
            (bytes, out) = (rest, others);
        }
        let (pairs, last) = out.as_chunks_mut::<2>();
        for (pair, byte) in pairs.iter_mut().zip(bytes) {
            *pair = [table[usize::from(byte >> 4)], table[usize::from(byte & 15)]];
        }
        if let (Some(last), Some(byte)) = (last.first_mut(), bytes.get(pairs.len())) {
            *last = table[usize::from(byte >> 4)];
        }
    }
}

/// Refuses sizes of blocks that bitsandbytes does not have.
pub(super) fn check_blocksize(blocksize: usize) -> Result<()> {
    ensure!(
        BLOCKSIZES.contains(&blocksize),
        "a block of {blocksize} numbers is not among {BLOCKSIZES:?}"
    );
    Ok(())
}

/// How many numbers a thread encodes at a time: whole blocks, and whole rows
/// where that is not too many, so that no row is asked for twice.
fn piece(ins: usize, blocksize: usize) -> usize {
    let mut common = (ins, blocksize);
    while common.1 != 0 {
        common = (common.1, common.0 % common.1);
    }
    match (ins / common.0).checked_mul(blocksize) {
        Some(unit) if unit <= 16 * PIECE => unit * (PIECE / unit).max(1),
        _ => PIECE,
    }
}

/// Encodes whole blocks, of which the last may be shorter.
fn encode(values: &[f32], blocksize: usize, codes: &mut [u8], scales: &mut [f32]) {
    pulp::Arch::new().dispatch(|| {
        let blocks = values
            .chunks(blocksize)
            .zip(codes.chunks_mut(blocksize / 2));
        for ((values, codes), scale) in blocks.zip(scales) {
            if values.len() == blocksize {
                *scale = full(values, codes);
            } else {
                *scale = partial(values, codes);
            }
        }
    });
}

/// Encodes a block whose length is a multiple of [`LANES`], and returns its scale.
#[expect(
    clippy::inline_always,
    reason = "only what is inlined into a function with vector features becomes vector code"
)]
#[inline(always)]
fn full(values: &[f32], codes: &mut [u8]) -> f32 {
    let absmax = absmax(values);
    // Not `max`, which would hide a NaN.
    let inverse = 1.0 / if absmax < LEAST { LEAST } else { absmax };
    let values = values.as_chunks::<LANES>().0;
    let codes = codes.as_chunks_mut::<{ LANES / 2 }>().0;
    for (values, codes) in values.iter().zip(codes) {
        // Counting what is not exceeded makes no branches, and 15 of a NaN.
        let mut found = [15u32; LANES];
        for midpoint in MIDPOINTS {
            for (found, value) in found.iter_mut().zip(values) {
                *found -= u32::from(value * inverse <= midpoint);
            }
        }
        for (code, pair) in codes.iter_mut().zip(found.as_chunks::<2>().0) {
            *code = (pair[0] << 4 | pair[1]) as u8;
        }
    }
    absmax
}

/// Encodes a block that is shorter than the others, and returns its scale.
fn partial(values: &[f32], codes: &mut [u8]) -> f32 {
    let absmax = absmax(values);
    let absmax = if absmax < LEAST { LEAST } else { absmax };
    for (code, pair) in codes.iter_mut().zip(values.chunks(2)) {
        let low = pair.get(1).map_or(ZERO, |value| nearest(value / absmax));
        *code = nearest(pair[0] / absmax) << 4 | low;
    }
    absmax
}

/// The position of the number of the table that is nearest to `x` in [−1, 1].
pub(super) fn nearest(x: f32) -> u8 {
    15 - MIDPOINTS.iter().filter(|&&midpoint| x <= midpoint).count() as u8
}
