//! Kernels for the CPU, in safe Rust, in f32 unless a weight says otherwise.
//!
//! burn's CPU backend makes a pass over memory, and an allocation, of every
//! elementwise operation, and computes 3×3 convolutions at half the speed of
//! oneDNN. Here a matrix product ends with bias, residual and activation while
//! the tile is in registers, and 3×3 convolutions are Winograd's. Activations
//! are channels-last: a pixel's (or token's) channels are neighbours, so that a
//! 1×1 convolution is a product without any copying. Each runs on one thread, and
//! whoever calls spreads batches, but for [`Weight`], whose few rows leave nothing
//! else to share.

#![expect(
    clippy::inline_always,
    reason = "only what is inlined into a function with vector features becomes vector code"
)]

mod activation;
mod attention;
mod linear;
mod matrix;
mod rows;
mod scratch;
mod weight;
mod winograd;

use pulp::WithSimd;

pub(crate) use self::{
    activation::Activation,
    attention::attention,
    linear::Linear,
    matrix::{Finish, Packed, Rows},
    rows::{layer_norm, rms_norm, softmax},
    scratch::Scratch,
    weight::{Format, Gated, Weight},
    winograd::Conv3x3,
};

/// Does `work` with the widest vectors that this machine has.
fn dispatch<W: WithSimd>(work: W) -> W::Output {
    #[cfg(test)]
    let work = match tests::narrowed(work) {
        Ok(output) => return output,
        Err(work) => work,
    };
    pulp::Arch::new().dispatch(work)
}

#[cfg(test)]
mod tests;
