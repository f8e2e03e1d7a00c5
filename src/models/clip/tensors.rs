//! Tensors out of a checkpoint, onto a device.

use anyhow::{Result, ensure};
use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::models::weights::Weights;

/// Where tensors come from and where they go.
pub(super) struct Source<'a> {
    pub(super) weights: &'a mut Weights,
    pub(super) dtype: DType,
    pub(super) device: &'a Device,
}

impl Source<'_> {
    /// The tensor `name`, in the model's element type.
    pub(super) fn tensor<const D: usize>(
        &mut self,
        name: &str,
        shape: [usize; D],
    ) -> Result<Tensor<D>> {
        let data = self.weights.take(name, &shape, self.dtype)?;
        Ok(Tensor::from_data(data, (self.device, self.dtype)))
    }

    /// The tensor `name` in f32, for what is computed in f32 always.
    pub(super) fn exact<const D: usize>(
        &mut self,
        name: &str,
        shape: [usize; D],
    ) -> Result<Tensor<D>> {
        let data = self.weights.take(name, &shape, DType::F32)?;
        Ok(Tensor::from_data(data, (self.device, DType::F32)))
    }

    /// Values computed on the host, in the model's element type.
    pub(super) fn upload<const D: usize>(&self, values: Vec<f32>, shape: [usize; D]) -> Tensor<D> {
        let data = TensorData::new(values, shape).convert_dtype(self.dtype);
        Tensor::from_data(data, (self.device, self.dtype))
    }
}

/// The factor and the summand of a frozen batch normalization, per channel:
/// y = factor·x + summand with factor = weight / √(variance + ε).
pub(super) struct Scaling {
    /// 1 / √(variance + ε).
    pub(super) precision: Vec<f32>,
    pub(super) mean: Vec<f32>,
    pub(super) weight: Vec<f32>,
    pub(super) bias: Vec<f32>,
}

/// `PyTorch`'s default ε of batch and layer normalizations.
pub(super) const EPSILON: f64 = 1e-5;

impl Scaling {
    /// The batch normalization under `prefix`.
    pub(super) fn load(weights: &mut Weights, prefix: &str, channels: usize) -> Result<Self> {
        let mut take = |name: &str| weights.take_f32(&format!("{prefix}.{name}"), &[channels]);
        let (weight, bias) = (take("weight")?, take("bias")?);
        let (mean, variance) = (take("running_mean")?, take("running_var")?);
        ensure!(
            variance.iter().all(|v| v.is_finite() && *v >= 0.0),
            "load `{}`: tensor `{prefix}.running_var` holds a variance below zero or no number",
            weights.path().display()
        );
        let precision = (variance.iter())
            .map(|&v| (1.0 / (f64::from(v) + EPSILON).sqrt()) as f32)
            .collect();
        Ok(Self {
            precision,
            mean,
            weight,
            bias,
        })
    }
}
