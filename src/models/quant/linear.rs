//! The product of LLM.int8, step by step as bitsandbytes rounds it.

use anyhow::{Result, ensure};
use half::f16;

use super::{
    Int8, Round, absmax,
    int8::{dequantized, quantized},
};

/// Whose arithmetic a product follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernels {
    /// bitsandbytes' PyTorch code, which it runs on the CPU.
    Cpu,
    /// bitsandbytes' CUDA kernels, from their source; never compared with a device.
    Cuda,
}

/// How [`Int8::linear`] computes.
#[derive(Debug, Clone, Copy)]
pub struct Forward<'a> {
    /// From which magnitude on an activation is an outlier
    /// (`llm_int8_threshold`, 6.0 unless said otherwise); 0 for no outliers.
    pub threshold: f32,
    /// The type of the activations, and of the result.
    pub activations: Round,
    /// `[outs]`, of the activations' type.
    pub bias: Option<&'a [f32]>,
    /// Whose arithmetic.
    pub kernels: Kernels,
}

/// 1/127², of which bitsandbytes' PyTorch code lost a digit.
const CPU_SCALE: f32 = 6.200124e-05;
/// 1/127² in bitsandbytes' CUDA code.
const CUDA_SCALE: f32 = 6.200012e-05;

impl Int8 {
    /// `x·Wᵀ + bias` for `rows` rows of activations, [rows, ins] to [rows, outs].
    ///
    /// A slow and plain reference: faster kernels are to give the same numbers.
    /// T is [`Forward::activations`]; x holds numbers of T. In this order:
    ///
    /// 1. `h = f16(x)`.
    /// 2. An element of h with `|h| ≥ f16(threshold)` is an outlier, and every
    ///    column that has one, in any row, is an outlier column. Which columns
    ///    these are, and so the last digits of a row, depends on which rows are
    ///    multiplied together.
    /// 3. Scale of a row: `sx = max |h|` over its elements that are not outliers
    ///    themselves, *those in outlier columns included*.
    /// 4. `q = round(h·f32(f32(1/sx)·127))`, the product rounded to f32 before it
    ///    is rounded to an integer, ties to even; 0 in outlier columns, and all 0
    ///    if sx is 0.
    /// 5. `a = Σ q·codes` exactly, in integers, then rounded to f32 (it may pass
    ///    2²⁴ from 1,041 columns on).
    /// 6. CPU: `y = f32(f32(a·f32(sx·sw))·6.200124e-05)`, then `f32(y + bias)`,
    ///    then rounded to T. The constant is not 1/127² = 6.200012e-05 but
    ///    1.8e-5 larger.
    ///    CUDA: `fma(f32(f32(a·sx)·sw), 6.200012e-05, bias)` rounded to f16, then
    ///    to T; a bias is added so only if T is f16, and otherwise to the f16
    ///    result, rounding to f16 again.
    /// 7. If there are outlier columns: their weights `v = T(f32(f32(code·sw) ·
    ///    7.874015718698502e-3))`, and `y = T(y + Σ x·v)` with x of type T, not h.
    ///    The products are summed in f32, here in the order of columns; PyTorch
    ///    takes another order, which can change the last bit where T is f32.
    ///
    /// # Errors
    ///
    /// Lengths of `x` or bias that do not fit the weight; a threshold that is
    /// negative or not a number.
    pub fn linear(&self, x: &[f32], rows: usize, forward: Forward) -> Result<Vec<f32>> {
        let [outs, ins] = self.shape();
        ensure!(
            rows.checked_mul(ins) == Some(x.len()),
            "{} activations are not {rows} rows of {ins}",
            x.len()
        );
        ensure!(
            forward.bias.is_none_or(|bias| bias.len() == outs),
            "the bias does not have the {outs} numbers of the result"
        );
        ensure!(
            forward.threshold >= 0.0,
            "a threshold of {} is not possible",
            forward.threshold
        );
        let halves: Vec<f32> = x.iter().map(|&x| Round::F16.of(x)).collect();
        let threshold = f16::from_f32(forward.threshold).to_f32();
        let is_outlier = |h: f32| threshold > 0.0 && h.abs() >= threshold;
        let outliers: Vec<usize> = (0..ins)
            .filter(|&c| halves.iter().skip(c).step_by(ins).any(|&h| is_outlier(h)))
            .collect();

        let mut result = Vec::with_capacity(rows * outs);
        for (x, halves) in x.chunks_exact(ins).zip(halves.chunks_exact(ins)) {
            let kept: Vec<f32> = (halves.iter())
                .map(|&h| if is_outlier(h) { 0.0 } else { h })
                .collect();
            let scale = absmax(&kept);
            let mut codes = vec![0; ins];
            quantized(&kept, scale, &mut codes);
            for &c in &outliers {
                codes[c] = 0;
            }
            for r in 0..outs {
                let Some((weights, weight_scale)) = self.row(r) else {
                    continue;
                };
                let sum: i64 = (codes.iter().zip(weights))
                    .map(|(&a, &b)| i64::from(i32::from(a) * i32::from(b)))
                    .sum();
                let bias = forward.bias.and_then(|bias| bias.get(r)).copied();
                let y = forward.scaled(sum as f32, scale, weight_scale, bias);
                result.push(forward.with_outliers(y, x, weights, weight_scale, &outliers));
            }
        }
        Ok(result)
    }
}

impl Forward<'_> {
    /// Step 6: a sum of integers as a number of T.
    fn scaled(&self, sum: f32, row: f32, column: f32, bias: Option<f32>) -> f32 {
        let round = self.activations;
        match self.kernels {
            Kernels::Cpu => {
                let y = sum * (row * column) * CPU_SCALE;
                round.of(bias.map_or(y, |bias| y + bias))
            }
            Kernels::Cuda => {
                let fused = bias.filter(|_| round == Round::F16).unwrap_or(0.0);
                let y = Round::F16.of((sum * row * column).mul_add(CUDA_SCALE, fused));
                match bias {
                    Some(bias) if round != Round::F16 => round.of(Round::F16.of(y + bias)),
                    _ => round.of(y),
                }
            }
        }
    }

    /// Step 7: what outlier columns add.
    fn with_outliers(
        &self,
        y: f32,
        x: &[f32],
        weights: &[i8],
        scale: f32,
        outliers: &[usize],
    ) -> f32 {
        if outliers.is_empty() {
            return y;
        }
        let round = self.activations;
        let sum: f32 = (outliers.iter())
            .map(|&c| x[c] * round.of(dequantized(weights[c], scale)))
            .sum();
        round.of(y + sum)
    }
}
