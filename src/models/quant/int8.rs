//! Weights of LLM.int8: integers of 8 bits, one scale per row.

use anyhow::{Context, Result, bail};
use half::{f16, slice::HalfFloatSliceExt};
use rayon::prelude::*;

use super::{
    PIECE, RawTensor, Round, absmax, check_rows, count,
    raw::{Take, need},
};

/// 1/127 as bitsandbytes writes it.
#[expect(clippy::excessive_precision, reason = "as it is in the source")]
pub(super) const PER_127: f32 = 7.874015718698502e-3;

/// A weight [outs, ins] in 8 bits: number (r, c) is `codes[r, c]·scales[r]/127`.
#[derive(Debug, Clone, PartialEq)]
pub struct Int8 {
    shape: [usize; 2],
    /// `CB` in bitsandbytes.
    codes: Vec<i8>,
    /// `SCB` in bitsandbytes: the largest magnitude in each row.
    scales: Vec<f32>,
}

impl Int8 {
    /// Quantises the rows of a weight [outs, ins].
    ///
    /// `row(r, out)` writes row `r`, `ins` numbers, and may be called from many
    /// threads. As in bitsandbytes every number is first rounded to f16; then
    /// `scale = absmax`, `f32(f32(1/scale)·127)`, the product with it in f32, and
    /// the nearest integer, ties to even. A row of zeros has scale 0. A row with a number
    /// that is NaN or infinite in f16 (above 65,504) has that as its scale, and
    /// codes of 0.
    ///
    /// # Errors
    ///
    /// An empty or uncountable shape.
    pub fn quantize(shape: [usize; 2], row: impl Fn(usize, &mut [f32]) + Sync) -> Result<Self> {
        let n = count(shape)?;
        let [outs, ins] = shape;
        let mut codes = vec![0; n];
        let mut scales = vec![0.0; outs];
        let rows = (PIECE / ins).max(1);
        (codes.par_chunks_mut(rows * ins))
            .zip(scales.par_chunks_mut(rows))
            .enumerate()
            .for_each_init(
                || (vec![0.0; ins], vec![f16::ZERO; ins]),
                |(values, halves), (i, (codes, scales))| {
                    let codes = codes.chunks_exact_mut(ins);
                    for (r, (codes, scale)) in codes.zip(scales).enumerate() {
                        row(i * rows + r, values);
                        halves.convert_from_f32_slice(values);
                        halves.convert_to_f32_slice(values);
                        *scale = encode(values, codes);
                    }
                },
            );
        Ok(Self {
            shape,
            codes,
            scales,
        })
    }

    /// Reads the weight `name` (`….weight`) with `….SCB` and, if there,
    /// `….weight_format`.
    ///
    /// `take` gives the tensor of a name, or `None` if there is none.
    ///
    /// # Errors
    ///
    /// A tensor that is missing, or whose type or shape does not fit the others;
    /// a scale that is not finite; a layout other than rows (0). The message
    /// names the tensor.
    pub fn read(
        name: &str,
        mut take: impl FnMut(&str) -> Result<Option<RawTensor>>,
    ) -> Result<Self> {
        let take: &mut Take = &mut take;
        let module = (name.strip_suffix(".weight"))
            .with_context(|| format!("tensor `{name}` is no weight of an 8-bit layer"))?;
        let key = format!("{module}.weight_format");
        if let Some(format) = take(&key)?
            && !(format.dtype == "U8" && format.bytes == [0])
        {
            bail!(
                "tensor `{key}`: only rows (0 as U8) are read\n\
                 hint: save the model again with bitsandbytes 0.45 or later"
            );
        }
        let weight = need(take, name)?;
        let &[outs, ins] = weight.shape.as_slice() else {
            bail!(
                "tensor `{name}`: expected two dimensions, found shape {:?}",
                weight.shape
            );
        };
        weight.expect(name, "I8", &[outs, ins])?;
        let n = count([outs, ins]).with_context(|| format!("tensor `{name}`"))?;
        let key = format!("{module}.SCB");
        let scales = need(take, &key)?.numbers(&key, outs)?;
        let codes = weight.exactly(name, n)?;
        Ok(Self {
            shape: [outs, ins],
            codes: codes.into_iter().map(|byte| byte as i8).collect(),
            scales,
        })
    }

    /// [outs, ins].
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// [outs, ins], row-major (`CB`).
    pub fn codes(&self) -> &[i8] {
        &self.codes
    }

    /// `[outs]` (`SCB`).
    pub fn scales(&self) -> &[f32] {
        &self.scales
    }

    /// How much memory the weight takes, in bytes.
    pub fn size(&self) -> usize {
        self.codes.len() + self.scales.len() * 4
    }

    /// One row of the weight, if there is such a row.
    pub(super) fn row(&self, r: usize) -> Option<(&[i8], f32)> {
        let ins = self.shape[1];
        let codes = self.codes.get(r.checked_mul(ins)?..)?.get(..ins)?;
        Some((codes, *self.scales.get(r)?))
    }

    /// The weight [outs, ins] as numbers: `code·scale` in f32, times
    /// 7.874015718698502e-3 in f32, rounded to a type.
    pub fn dequantize(&self, round: Round) -> Vec<f32> {
        let ins = self.shape[1];
        let mut out = vec![0.0; self.codes.len()];
        let rows = (out.par_chunks_exact_mut(ins)).zip(self.codes.par_chunks_exact(ins));
        rows.zip(&self.scales).for_each(|((out, codes), &scale)| {
            for (out, &code) in out.iter_mut().zip(codes) {
                *out = round.of(dequantized(code, scale));
            }
        });
        out
    }

    /// Some rows of [`Int8::dequantize`], into `out` [rows, ins].
    ///
    /// # Errors
    ///
    /// Rows that the weight does not have, or an `out` of another length.
    pub fn dequantize_rows(
        &self,
        rows: std::ops::Range<usize>,
        round: Round,
        out: &mut [f32],
    ) -> Result<()> {
        let ins = self.shape[1];
        check_rows(self.shape, &rows, out)?;
        for (out, (codes, scale)) in
            (out.chunks_exact_mut(ins)).zip(rows.filter_map(|r| self.row(r)))
        {
            for (out, &code) in out.iter_mut().zip(codes) {
                *out = round.of(dequantized(code, scale));
            }
        }
        Ok(())
    }
}

/// One number of a row with this scale.
pub(super) fn dequantized(code: i8, scale: f32) -> f32 {
    f32::from(code) * scale * PER_127
}

/// Encodes a row of numbers of f16, and returns its scale.
fn encode(values: &[f32], codes: &mut [i8]) -> f32 {
    pulp::Arch::new().dispatch(|| {
        let scale = absmax(values);
        quantized(values, scale, codes);
        scale
    })
}

/// `round(x·((1/scale)·127))` of every number, ties to even, 0 for NaN.
///
/// PyTorch computes `127/scale` as a product with the reciprocal; a number of
/// half the scale is a tie that falls by such a difference.
#[expect(
    clippy::inline_always,
    reason = "only what is inlined into a function with vector features becomes vector code"
)]
#[inline(always)]
pub(super) fn quantized(values: &[f32], scale: f32, codes: &mut [i8]) {
    let factor = 1.0 / scale * 127.0;
    for (code, value) in codes.iter_mut().zip(values) {
        *code = (value * factor).round_ties_even() as i8;
    }
}
