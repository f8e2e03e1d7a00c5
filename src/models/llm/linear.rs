//! A linear map without bias, laid out for the device it is on.
//!
//! On the CPU the weights lie as [in, out]: the product then needs no
//! repacking, and every row of the result is the same bits however many rows
//! are multiplied together, which a test holds. Elsewhere they stay [out, in] as
//! in the file, which is what vector-matrix kernels read best.

use burn::tensor::{DType, Device, Tensor, TensorData};

use anyhow::Result;

/// Maps rows [rows, in] to [rows, out].
#[derive(Debug)]
pub(super) struct Linear {
    /// [in, out], perhaps as a view.
    weight: Tensor<2>,
    /// The most rows in one product, where more would round otherwise.
    most_rows: usize,
}

/// On products with this many columns or fewer, the CPU's matrix product cuts
/// the inner dimension otherwise for few rows than for many.
const NARROW: usize = 64;
/// Up to this inner dimension it is never cut.
const WHOLE: usize = 512;

impl Linear {
    /// From weights [out, in].
    pub(super) fn new(weight: TensorData, device: &Device) -> Result<Self> {
        let [outs, ins] = [weight.shape()[0], weight.shape()[1]];
        let weight = if *device == Device::flex() && weight.dtype() == DType::F32 {
            let values = weight
                .try_into_vec_as::<f32>()
                .map_err(anyhow::Error::msg)?;
            let turned = TensorData::new(transposed(&values, outs, ins), [ins, outs]);
            Tensor::from_data(turned, (device, DType::F32))
        } else {
            let dtype = weight.dtype();
            Tensor::<2>::from_data(weight, (device, dtype)).transpose()
        };
        Ok(Self::over(weight))
    }

    /// From a view [in, out] of weights that something else holds too.
    pub(super) fn over(weight: Tensor<2>) -> Self {
        let [ins, outs] = weight.dims();
        let flex = weight.device() == Device::flex();
        let cut = flex && outs <= NARROW && ins > WHOLE;
        Self {
            weight,
            most_rows: if cut { NARROW } else { usize::MAX },
        }
    }

    /// Maps rows [rows, in] to [rows, out].
    ///
    /// On the CPU `rows` must be at least 2 for results that do not depend on
    /// how many there are.
    pub(super) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let rows = x.dims()[0];
        if rows <= self.most_rows {
            return x.matmul(self.weight.clone());
        }
        let parts = x.split(self.most_rows, 0).into_iter().map(|part| {
            // A single row left over would take another way through the product.
            if part.dims()[0] == 1 {
                let twice = Tensor::cat(vec![part.clone(), part], 0);
                return twice.matmul(self.weight.clone()).narrow(0, 0, 1);
            }
            part.matmul(self.weight.clone())
        });
        Tensor::cat(parts.collect(), 0)
    }
}

/// [rows, columns] turned to [columns, rows], by blocks that fit a cache.
fn transposed(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    const BLOCK: usize = 32;
    let mut turned = vec![0.0; values.len()];
    for top in (0..rows).step_by(BLOCK) {
        for left in (0..columns).step_by(BLOCK) {
            for row in top..(top + BLOCK).min(rows) {
                for column in left..(left + BLOCK).min(columns) {
                    turned[column * rows + row] = values[row * columns + column];
                }
            }
        }
    }
    turned
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that round differently under any other order of sums.
    fn numbers(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        (0..count)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 24) as f32 - 0.5
            })
            .collect()
    }

    #[test]
    fn a_row_is_the_same_bits_among_any_number_of_rows() -> Result<()> {
        let device = Device::flex();
        // The demo's, a narrow and deep one, and some that fill no register evenly.
        for (ins, outs) in [
            (128, 256),
            (384, 128),
            (128, 1024),
            (700, 64),
            (77, 50),
            (1500, 300),
            (600, 5),
        ] {
            let weight = TensorData::new(numbers(ins * outs, 1), [outs, ins]);
            let linear = Linear::new(weight, &device)?;
            let most = 200;
            let x = Tensor::<2>::from_data(
                TensorData::new(numbers(most * ins, 2), [most, ins]),
                (&device, DType::F32),
            );
            let read = |y: Tensor<2>| y.try_into_vec_as::<f32>().map_err(anyhow::Error::msg);
            let all = read(linear.forward(x.clone()))?;
            for rows in [
                2, 3, 4, 5, 7, 8, 16, 17, 31, 32, 33, 48, 64, 65, 66, 100, 129, 199,
            ] {
                let some = read(linear.forward(x.clone().narrow(0, 0, rows)))?;
                let same = some
                    .iter()
                    .zip(&all)
                    .all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "{rows} rows of {ins} to {outs}");
            }
        }
        Ok(())
    }
}
