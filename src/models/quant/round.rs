//! The types that numbers are rounded to while they stay `f32` here.

use half::{bf16, f16};

/// Which floating-point type a number is rounded to, to nearest, ties to even.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Round {
    /// Left as it is.
    F32,
    /// bfloat16: 8 bits of precision.
    Bf16,
    /// IEEE half precision: 11 bits; above 65,504 there is only infinity.
    F16,
}

impl Round {
    /// The type of that name in PyTorch (`float32`, `bfloat16`, `float16`).
    pub fn parse(name: &str) -> Option<Self> {
        [Self::F32, Self::Bf16, Self::F16]
            .into_iter()
            .find(|round| round.name() == name)
    }

    /// The type's name in PyTorch.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::Bf16 => "bfloat16",
            Self::F16 => "float16",
        }
    }

    /// The number of the type that is nearest to `x`.
    pub fn of(self, x: f32) -> f32 {
        match self {
            Self::F32 => x,
            Self::Bf16 => bf16::from_f32(x).to_f32(),
            Self::F16 => f16::from_f32(x).to_f32(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_go_to_even_and_large_numbers_to_infinity() {
        let tick = |bits: i32| 0.5f32.powi(bits);
        for (round, x, expected) in [
            (Round::Bf16, 1.0 + tick(8), 1.0),
            (Round::Bf16, 1.0 + 3.0 * tick(8), 1.0 + tick(6)),
            (Round::F16, 1.0 + tick(11), 1.0),
            (Round::F16, 65_520.0, f32::INFINITY),
            (Round::F32, 0.1, 0.1),
        ] {
            assert_eq!(round.of(x).to_bits(), f32::to_bits(expected), "{x}");
        }
    }

    #[test]
    fn names_are_those_of_pytorch() {
        assert_eq!(Round::parse("bfloat16"), Some(Round::Bf16));
        assert_eq!(Round::parse("float64"), None);
    }
}
