//! Rotary position embedding in the rotate-half layout of Hugging Face files.
//!
//! Su et al., *`RoFormer`*, 2021. Element `i` of a head's first half turns with
//! element `i` of its second half; the original layout pairs neighbours instead
//! and needs other weights.

use burn::tensor::{DType, Device, Tensor, TensorData};

use super::config::{Config, Scaling};

/// Angles of every pair of elements at every position up to a bound.
#[derive(Debug)]
pub(super) struct RopeTable {
    /// Pairs of a head.
    half: usize,
    /// Cosines, [positions, half].
    cos: Vec<f32>,
    /// Sines, [positions, half].
    sin: Vec<f32>,
}

impl RopeTable {
    /// Angles for positions below `positions`.
    ///
    /// Rounded as the reference rounds: frequencies and angles are f32.
    pub(super) fn new(config: &Config, positions: usize) -> Self {
        let half = config.head_dim / 2;
        let frequencies = frequencies(config);
        let angles = || {
            (0..positions).flat_map(|position| {
                (frequencies.iter()).map(move |frequency| f64::from(position as f32 * frequency))
            })
        };
        Self {
            half,
            cos: angles().map(|angle| angle.cos() as f32).collect(),
            sin: angles().map(|angle| angle.sin() as f32).collect(),
        }
    }

    /// Turns the heads of one token in place.
    pub(super) fn turn(&self, heads: &mut [f32], position: usize) {
        let (cos, sin) = self.at(position);
        for head in heads.chunks_exact_mut(2 * self.half) {
            let (first, second) = head.split_at_mut(self.half);
            for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
                (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
            }
        }
    }

    /// Cosines and sines of these positions as tensors [positions, 1, half].
    pub(super) fn tensors(
        &self,
        positions: &[usize],
        dtype: DType,
        device: &Device,
    ) -> (Tensor<3>, Tensor<3>) {
        let gather = |table: &[f32]| {
            let rows = (positions.iter()).map(|p| &table[p * self.half..][..self.half]);
            let values = rows.flatten().copied().collect();
            let data = TensorData::new::<f32, _>(values, [positions.len(), 1, self.half]);
            Tensor::<3>::from_data(data, (device, DType::F32)).cast(dtype)
        };
        (gather(&self.cos), gather(&self.sin))
    }

    fn at(&self, position: usize) -> (&[f32], &[f32]) {
        let range = position * self.half..(position + 1) * self.half;
        (&self.cos[range.clone()], &self.sin[range])
    }
}

/// Turns heads [tokens, heads, `head_dim`] by cosines and sines [tokens, 1, half].
pub(super) fn turn(x: Tensor<3>, cos: &Tensor<3>, sin: &Tensor<3>) -> Tensor<3> {
    let half = x.dims()[2] / 2;
    let first = x.clone().narrow(2, 0, half);
    let second = x.narrow(2, half, half);
    let a = first.clone() * cos.clone() - second.clone() * sin.clone();
    let b = second * cos.clone() + first * sin.clone();
    Tensor::cat(vec![a, b], 2)
}

/// Radians per position of every pair.
fn frequencies(config: &Config) -> Vec<f32> {
    let dim = config.head_dim as f64;
    let plain = (0..config.head_dim / 2).map(|i| {
        let exponent = (2 * i) as f64 / dim;
        // The power is rounded before its inverse, as in the reference.
        1.0 / config.rope.theta.powf(exponent) as f32
    });
    match config.rope.scaling {
        Scaling::None => plain.collect(),
        Scaling::Linear { factor } => plain.map(|f| f / factor as f32).collect(),
        Scaling::Llama3 {
            factor,
            low,
            high,
            original,
        } => plain
            .map(|frequency| {
                let wave = std::f64::consts::TAU / f64::from(frequency);
                if wave < original / high {
                    return frequency;
                }
                let stretched = f64::from(frequency) / factor;
                if wave > original / low {
                    return stretched as f32;
                }
                let blend = (original / wave - low) / (high - low);
                ((1.0 - blend) * stretched + blend * f64::from(frequency)) as f32
            })
            .collect(),
    }
}
