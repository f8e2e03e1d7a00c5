//! The weight formats of bitsandbytes: 4 bit in blocks, and LLM.int8.
//!
//! [`Nf4`] holds a linear map as 4-bit positions in a table of 16 numbers, with
//! one scale per block (`QLoRA`, arXiv 2305.14314), and [`Int8`] as 8-bit
//! integers with one scale per row (LLM.int8, arXiv 2208.07339). Both are made
//! from numbers as `bitsandbytes` makes them, or read from the tensors that
//! `transformers` saves; [`QuantConfig`] is what a model's `config.json` says.
//! No tensor library is needed: bytes and `f32` in and out.
//!
//! What is written here was compared with bitsandbytes 0.50.2 on the CPU, bit
//! for bit (`tests/fixtures/quant`); what is said of CUDA was read in its source
//! and not run. Its parts do not all agree, so this is what is followed:
//!
//! | step | here | elsewhere in bitsandbytes |
//! |---|---|---|
//! | 4 bit: x·(1/absmax) | rounded division, then a product | CUDA divides with `--use_fast_math`, up to one unit in the last place off |
//! | 4 bit: between two numbers of the table | the upper one only if strictly above the midpoint | CUDA: the same, with four of the 15 midpoints one unit off |
//! | 4 bit: last block, if shorter | x/absmax | CUDA: x·(1/absmax) |
//! | 4 bit: a block of zeros | absmax 0 (1e-38 if shorter), codes of 0.0 | CUDA: 0·∞, hence the codes of −1.0 |
//! | double: the scales' mean | the exact sum, rounded once | a sum in f32, in an order that depends on device and threads |
//! | double: nearest of 256 | CUDA's search, a tie to the even position | the CPU library looks up x in a grid of 65,536, which is coarser than the table near zero; the PyTorch fallback sends ties down |
//! | int8: x·(127/absmax) | `f32(1/absmax)·127`, as PyTorch divides a number by a tensor | CUDA: `__fdividef`, up to two units off; x = absmax/2 is a tie that this decides |
//!
//! For weights of bf16 the first two rows make no difference: tests try all pairs
//! of a number and a scale (and find a single pair for f16). A file's own codes
//! and tables are used as they are, so the others only matter for weights that
//! are quantised here.
//!
//! One thing is a mistake rather than a difference: on processors with AVX-512
//! bitsandbytes 0.50's CPU library dequantises 4-bit weights wrongly whose rows
//! are a multiple of 16 but not of the block size, because it looks up scales by
//! row. Here, as on CUDA, blocks run on from one row to the next.
//!
//! # The product with 4-bit weights
//!
//! `Linear4bit` casts x to `bnb_4bit_compute_dtype` (call it T), and then
//! 1. scales: `f32(map[u8]·nested_absmax)`, then `+ offset`, each rounded to f32;
//! 2. weights: `table[code]·absmax` in f32, rounded to **T, the type of x**, not
//!    to the type that the file's `quant_state` names, which only
//!    `dequantize_4bit` returns;
//! 3. `x·Wᵀ + bias` as PyTorch multiplies two matrices of T (sums in f32),
//!    rounded to T, then cast to x's first type.
//!
//! Two shortcuts of bitsandbytes round otherwise and are not imitated. CUDA has a
//! kernel for few rows (4 always, more by shape) whose scales are fused into one
//! rounding and whose weights are `T(T(table[code])·T(absmax))`. Where a processor
//! has AVX512-BF16, the CPU code rounds x, scales and table to bf16 before
//! anything is multiplied, whatever T is.
//!
//! The product with int8 weights is described at [`Int8::linear`].

mod config;
mod dynamic_map;
mod int8;
mod linear;
mod nested;
mod nf4;
mod raw;
mod round;
mod state;

pub use self::{
    config::{QuantConfig, Scheme},
    dynamic_map::dynamic_map,
    int8::Int8,
    linear::{Forward, Kernels},
    nested::{Nested, Scales},
    nf4::{NF4, Nf4},
    raw::weight_of,
    round::Round,
};

use std::ops::Range;

use anyhow::{Result, ensure};

use super::weights::RawTensor;

/// The sizes of blocks that bitsandbytes knows.
const BLOCKSIZES: [usize; 8] = [32, 64, 128, 256, 512, 1024, 2048, 4096];

/// About how many numbers a thread takes at a time.
const PIECE: usize = 1 << 16;

/// Refuses rows that a matrix does not have, and numbers that are not theirs.
fn check_rows([outs, ins]: [usize; 2], rows: &Range<usize>, out: &[f32]) -> Result<()> {
    ensure!(
        rows.start <= rows.end && rows.end <= outs,
        "a weight of {outs} rows has no rows {rows:?}"
    );
    ensure!(
        out.len() == rows.len() * ins,
        "{} rows of {ins} do not fit {} numbers",
        rows.len(),
        out.len()
    );
    Ok(())
}

/// How many numbers a matrix has, which must be some and countable.
fn count([outs, ins]: [usize; 2]) -> Result<usize> {
    let n = outs
        .checked_mul(ins)
        .filter(|&n| isize::try_from(n).is_ok());
    ensure!(
        n.is_some_and(|n| n > 0),
        "a weight of shape [{outs}, {ins}] cannot be quantised"
    );
    Ok(outs * ins)
}

/// The largest magnitude; NaN if there is one, as PyTorch's `max` has it.
///
/// Without the sign, floating-point numbers are in the order of their bits, and
/// NaNs come last.
#[expect(
    clippy::inline_always,
    reason = "only what is inlined into a function with vector features becomes vector code"
)]
#[inline(always)]
fn absmax(values: &[f32]) -> f32 {
    let most = values
        .iter()
        .fold(0, |most: u32, v| most.max(v.to_bits() & 0x7fff_ffff));
    f32::from_bits(most)
}

#[cfg(test)]
mod tests;
