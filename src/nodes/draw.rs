//! Random numbers of kinds that train, from a counter: kind, epoch and purpose
//! decide, never what was drawn before, so a resumed epoch draws alike.

use serde_json::json;

use crate::digest::Digest;

/// Random numbers of one purpose in one epoch.
pub(super) struct Draw {
    stream: blake3::OutputReader,
}

impl Draw {
    /// The numbers for `purpose` in epoch `epoch` of the run with this seed and
    /// stream; `domain` names the kind and the version of its draws.
    pub(super) fn new(domain: &str, seed: u64, stream: u64, epoch: usize, purpose: &str) -> Self {
        let key = json!({"seed": seed, "stream": stream, "epoch": epoch, "purpose": purpose});
        let key = Digest::of_json(domain, &key);
        Self {
            stream: blake3::Hasher::new_keyed(key.as_bytes()).finalize_xof(),
        }
    }

    /// A whole number below `n`, all equally likely (rejecting the uneven rest).
    pub(super) fn below(&mut self, n: usize) -> usize {
        let n = (n as u64).max(1);
        let limit = u64::MAX - u64::MAX % n;
        loop {
            let mut bytes = [0; 8];
            self.stream.fill(&mut bytes);
            let x = u64::from_le_bytes(bytes);
            if x < limit {
                return (x % n) as usize;
            }
        }
    }

    /// A number of the normal distribution with mean 0 and deviation 1 (Marsaglia's
    /// polar method). It is not of the same bits everywhere: `ln` may differ.
    pub(super) fn normal(&mut self) -> f64 {
        loop {
            let mut signed = || self.below(1 << 53) as f64 / (1_u64 << 52) as f64 - 1.0;
            let (x, y) = (signed(), signed());
            let square = x * x + y * y;
            if square > 0.0 && square < 1.0 {
                return x * (-2.0 * square.ln() / square).sqrt();
            }
        }
    }

    /// A random order of `0..n` (Fisher and Yates).
    pub(super) fn order(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            let j = self.below(i + 1);
            order.swap(i, j);
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_draws_the_same_again_and_another_epoch_does_not() {
        let order = |epoch| Draw::new("test", 1, 0, epoch, "order").order(100);
        assert_eq!(order(3), order(3));
        assert_ne!(order(3), order(4));
        let other = Draw::new("another kind", 1, 0, 3, "order").order(100);
        assert_ne!(order(3), other);
        let mut sorted = order(3);
        sorted.sort_unstable();
        assert_eq!(sorted, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn normal_numbers_have_their_moments() {
        let mut draw = Draw::new("test", 7, 0, 0, "normal");
        let all: Vec<f64> = (0..40_000).map(|_| draw.normal()).collect();
        let moment = |k| all.iter().map(|x| x.powi(k)).sum::<f64>() / all.len() as f64;
        // Five standard errors of each: √(1, 2, 15, 96) / 200.
        assert!(moment(1).abs() < 0.025, "{}", moment(1));
        assert!((moment(2) - 1.0).abs() < 0.036, "{}", moment(2));
        assert!(moment(3).abs() < 0.097, "{}", moment(3));
        assert!((moment(4) - 3.0).abs() < 0.245, "{}", moment(4));
    }

    #[test]
    fn numbers_below_n_are_even() {
        let mut draw = Draw::new("test", 7, 0, 0, "even");
        let mut counts = [0_f64; 5];
        for _ in 0..50_000 {
            counts[draw.below(5)] += 1.0;
        }
        let chi: f64 = counts
            .iter()
            .map(|c| (c - 10_000.0).powi(2) / 10_000.0)
            .sum();
        // 99.9% point of chi-square with 4 degrees of freedom.
        assert!(chi < 18.47, "{chi}");
    }
}
