//! Quantising full-precision weights while they are read.

use anyhow::Result;
use burn::tensor::DType;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::tensors::{Dense, Matrix, round};
use crate::models::quant::{Int8, Nf4};

/// What the matrices of blocks are quantised to; embeddings and head stay as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Quantize {
    /// `bitsandbytes`' 4-bit `NormalFloat`, in blocks of 64 (Dettmers et al., 2023).
    #[serde(rename = "nf4")]
    Nf4,
    /// The same with the blocks' scales quantised too: `bnb_4bit_use_double_quant`.
    #[serde(rename = "nf4-double")]
    Nf4Double,
    /// `LLM.int8()` (Dettmers et al., 2022).
    #[serde(rename = "int8")]
    Int8,
}

impl Quantize {
    /// The numbers per scale of NF4, as `bitsandbytes` has by default.
    const BLOCK: usize = 64;
    /// The magnitude from which `LLM.int8()` does not round activations, by default.
    const THRESHOLD: f32 = 6.0;

    /// Quantises a matrix; its numbers will be rounded to `dtype` when they are used.
    pub(super) fn apply(self, dense: &Dense, dtype: DType) -> Result<Matrix> {
        let row = |i: usize, out: &mut [f32]| dense.row(i, out);
        let nf4 = || Nf4::quantize(dense.shape, Self::BLOCK, round(dense.dtype), row);
        Ok(match self {
            Self::Nf4 => Matrix::Nf4(nf4()?, round(dtype)),
            Self::Nf4Double => Matrix::Nf4(nf4()?.double_quantize()?, round(dtype)),
            Self::Int8 => Matrix::Int8(Int8::quantize(dense.shape, row)?, Self::THRESHOLD),
        })
    }
}
