//! A linear layer over rows, which is a 1×1 convolution over pixels too.

use super::{
    activation::Activation,
    matrix::{Finish, Packed, Rows},
    scratch::Scratch,
};

/// activation(x · weight + bias + add).
#[derive(Debug)]
pub(crate) struct Linear {
    weight: Packed,
    bias: Vec<f32>,
}

impl Linear {
    /// A layer with the packed `weight` [input, output] and `bias` [output].
    pub(crate) fn new(weight: Packed, bias: Vec<f32>) -> Self {
        Self { weight, bias }
    }

    /// A layer with a weight [output, input] as `PyTorch` stores it.
    pub(crate) fn of(weight: &[f32], input: usize, bias: Vec<f32>) -> Self {
        Self::new(Packed::of_linear(weight, input, bias.len()), bias)
    }

    /// Numbers of an input row.
    pub(crate) fn input(&self) -> usize {
        self.weight.k()
    }

    /// Numbers of an output row.
    pub(crate) fn output(&self) -> usize {
        self.weight.n()
    }

    /// [rows, input] → [rows, output].
    pub(crate) fn forward(
        &self,
        x: &[f32],
        add: Option<&[f32]>,
        activation: Activation,
        scratch: &mut Scratch,
    ) -> Vec<f32> {
        let (input, output) = (self.input(), self.output());
        let rows = x.len() / input;
        let mut out = scratch.take(rows * output);
        let finish = Finish {
            bias: Some(&self.bias),
            add,
            activation,
        };
        let x = Rows {
            data: x,
            stride: input,
        };
        self.weight.product(x, rows, finish, &mut out, output);
        out
    }
}
