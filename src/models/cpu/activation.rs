//! Activations and the exponential in f32, written so that compilers make
//! vector code of them.

/// What happens to the numbers of a hidden layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activation {
    /// Nothing.
    Identity,
    /// max(x, 0).
    Relu,
    /// x·Φ(x) by the error function.
    Gelu,
    /// x·σ(1.702·x).
    QuickGelu,
}

impl Activation {
    /// Applies it to every number of `xs`.
    #[inline(always)]
    pub(super) fn apply(self, xs: &mut [f32]) {
        match self {
            Self::Identity => {}
            Self::Relu => xs.iter_mut().for_each(|x| *x = x.max(0.0)),
            Self::Gelu => xs.iter_mut().for_each(|x| *x = gelu(*x)),
            Self::QuickGelu => xs.iter_mut().for_each(|x| *x /= 1.0 + exp(-1.702 * *x)),
        }
    }
}

/// eˣ to about one unit in the last place; beyond the range of f32 its ends.
///
/// x = n·ln 2 + r with |r| ≤ ln 2 / 2, ln 2 in two parts so that r is exact,
/// and a polynomial for eʳ.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    const HIGH: f32 = 0.693_359_4;
    const LOW: f32 = -2.121_944_4e-4;
    let x = x.clamp(-87.3, 88.7);
    let n = (x * std::f32::consts::LOG2_E).round_ties_even();
    let r = x - n * HIGH - n * LOW;
    // Taylor's series; the first term left out is below 2e-8 of the sum.
    let p = 1.0 / 5040.0_f32;
    let p = p * r + 1.0 / 720.0;
    let p = p * r + 1.0 / 120.0;
    let p = p * r + 1.0 / 24.0;
    let p = p * r + 1.0 / 6.0;
    let p = p * r + 0.5;
    let p = p * r * r + r + 1.0;
    // Two factors, since 2¹²⁸ has no f32.
    let half = (n as i32) >> 1;
    let power = |n: i32| f32::from_bits(((n + 127) << 23) as u32);
    p * power(half) * power(n as i32 - half)
}

/// x·σ(x).
#[inline(always)]
pub(super) fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// x·(1 + erf(x / √2)) / 2 with Abramowitz and Stegun's formula 7.1.26, whose
/// error function is off by at most 1.5e-7.
#[inline(always)]
fn gelu(x: f32) -> f32 {
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * z);
    let p = 1.061_405_4_f32;
    let p = p * t - 1.453_152_1;
    let p = p * t + 1.421_413_8;
    let p = p * t - 0.284_496_72;
    let p = p * t + 0.254_829_6;
    let tail = 0.5 * p * t * exp(-z * z);
    // Φ(x) from the tail on the side of x.
    x * if x < 0.0 { tail } else { 1.0 - tail }
}
