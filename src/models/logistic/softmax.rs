//! The softmax and its exponential, with the same bits on every machine.

#![expect(
    clippy::inline_always,
    reason = "only what is inlined into a function with vector features becomes vector code"
)]

use pulp::{Arch, Simd, WithSimd};

/// Makes each row's logits, `[n, m]`, the derivatives of its cross entropy by them: the
/// softmax less 1 for the label. With m = 1 the logit is that of class 1 of two, and
/// the derivative by it is left.
pub(super) fn residuals(logits: &mut [f64], m: usize, labels: &[usize]) {
    Arch::new().dispatch(Residuals { logits, m, labels });
}

struct Residuals<'a> {
    logits: &'a mut [f64],
    m: usize,
    labels: &'a [usize],
}

impl WithSimd for Residuals<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        if self.m == 1 {
            for (logit, label) in self.logits.iter_mut().zip(self.labels) {
                let less = exp(-logit.abs());
                let share = if *logit >= 0.0 { 1.0 } else { less } / (1.0 + less);
                *logit = share - *label as f64;
            }
            return;
        }
        for (row, label) in self.logits.chunks_exact_mut(self.m).zip(self.labels) {
            let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            for x in row.iter_mut() {
                *x = exp(*x - largest);
            }
            let total: f64 = row.iter().sum();
            for x in row.iter_mut() {
                *x /= total;
            }
            row[*label] -= 1.0;
        }
    }
}

/// 1 / i!.
const TERMS: [f64; 14] = {
    let mut terms = [1.0; 14];
    let mut i = 1;
    while i < terms.len() {
        terms[i] = terms[i - 1] / i as f64;
        i += 1;
    }
    terms
};
/// ln 2 in two parts; multiples of the first by small whole numbers are exact.
const LN_2: (f64, f64) = (0.693_147_180_369_123_8, 1.908_214_929_270_587_7e-10);
/// 1.5 · 2⁵²: a number of this size has no digits after the point, and small whole
/// numbers added to it are the last bits of its representation.
const WHOLE: f64 = 6_755_399_441_055_744.0;

/// eˣ for x ≤ 0, in additions and multiplications alone: `f64::exp` is the
/// platform's, whose last bit differs. Below −700 it stays at e⁻⁷⁰⁰, next to nothing.
///
/// x = k · ln 2 + r with |r| ≤ ½ ln 2; eʳ by its Taylor series to r¹³, and 2ᵏ by
/// writing k where a number's exponent is. There is no branch, so that several
/// numbers are computed at once.
#[inline(always)]
fn exp(x: f64) -> f64 {
    let x = x.max(-700.0);
    let shifted = x * std::f64::consts::LOG2_E + WHOLE;
    let k = shifted - WHOLE;
    let r = (x - k * LN_2.0) - k * LN_2.1;
    let mut sum = TERMS[13];
    for i in (0..13).rev() {
        sum = sum * r + TERMS[i];
    }
    // −1010 ≤ k ≤ 0, so the exponent stays that of a normal number.
    sum * f64::from_bits((shifted.to_bits() << 52).wrapping_add(1.0_f64.to_bits()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponential_is_right_to_its_last_digits() {
        for i in 0..70_000 {
            let x = -f64::from(i) / 100.03;
            let (ours, theirs) = (exp(x), x.exp());
            assert!(
                (ours - theirs).abs() <= 4e-16 * theirs,
                "{x}: {ours} {theirs}"
            );
        }
        assert_eq!(exp(0.0).to_bits(), 1.0_f64.to_bits());
        assert!(exp(-1e9) > 0.0 && exp(-1e9) < 1e-300);
    }

    #[test]
    fn residuals_are_the_softmax_less_the_label() {
        let mut rows = [1.0, 3.0, 2.0, -900.0, 0.0, 900.0];
        residuals(&mut rows, 3, &[1, 2]);
        let total = (-2.0_f64).exp() + 1.0 + (-1.0_f64).exp();
        let expected = [
            (-2.0_f64).exp() / total,
            1.0 / total - 1.0,
            (-1.0_f64).exp() / total,
            0.0,
            0.0,
            0.0,
        ];
        for (x, expected) in rows.iter().zip(expected) {
            assert!((x - expected).abs() < 1e-15, "{x} {expected}");
        }
        let mut two = [2.0, -2.0, -2.0, 1000.0, -1000.0];
        residuals(&mut two, 1, &[1, 1, 0, 1, 1]);
        let wrong = 1.0 / (1.0 + 2.0_f64.exp());
        for (x, expected) in two.iter().zip([-wrong, wrong - 1.0, wrong, 0.0, -1.0]) {
            assert!((x - expected).abs() < 1e-15, "{x} {expected}");
        }
    }

    #[test]
    fn wider_vectors_change_no_bit() {
        for m in [1, 3, 10, 33] {
            let wave = |i: usize| ((i * 37 + i * i % 101) % 211) as f64 / 7.0;
            let mut wide: Vec<f64> = (0..20 * m).map(wave).collect();
            let mut narrow = wide.clone();
            let labels: Vec<usize> = (0..20).map(|i| i % m.max(2)).collect();
            residuals(&mut wide, m, &labels);
            let work = Residuals {
                logits: &mut narrow,
                m,
                labels: &labels,
            };
            Simd::vectorize(pulp::Scalar, work);
            let bits = |x: &[f64]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&wide), bits(&narrow));
        }
    }
}
