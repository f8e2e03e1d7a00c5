//! Root-mean-square normalisation in the rounding order of the reference.

use burn::tensor::{DType, Tensor};

/// `weight * round(x / rms(x))`: normalised in f32, rounded to the type of `x`,
/// and only then scaled (Zhang and Sennrich, 2019; transformers' `MistralRMSNorm`).
#[derive(Debug)]
pub(super) struct RmsNorm {
    weight: Tensor<2>,
    eps: f64,
}

impl RmsNorm {
    /// From weights [1, width].
    pub(super) fn new(weight: Tensor<2>, eps: f64) -> Self {
        Self { weight, eps }
    }

    /// Normalises rows [rows, width].
    pub(super) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let dtype = x.dtype();
        let x = x.cast(DType::F32);
        let square = (x.clone() * x.clone()).mean_dim(1);
        let scale = square.add_scalar(self.eps).sqrt().recip();
        (x * scale).cast(dtype) * self.weight.clone()
    }
}
