//! Random numbers from a counter: a key decides them, never what was drawn for
//! something else, so that any part of the work draws alike by itself.

use serde_json::{Value, json};

use crate::digest::Digest;

/// The random numbers of one key.
pub(super) struct Draw {
    stream: blake3::OutputReader,
}

impl Draw {
    /// The numbers of `key`; in another `domain` the same key has others.
    pub(super) fn new(domain: &str, key: &Value) -> Self {
        let key = Digest::of_json(domain, key);
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

    /// The numbers for `purpose` in epoch `epoch` of a training with this seed and
    /// stream: no epoch sees what another one drew, so a resumed one draws alike.
    pub(super) fn of_epoch(
        domain: &str,
        seed: u64,
        stream: u64,
        epoch: usize,
        purpose: &str,
    ) -> Self {
        let key = json!({"seed": seed, "stream": stream, "epoch": epoch, "purpose": purpose});
        Self::new(domain, &key)
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
    fn a_key_draws_the_same_again_and_another_key_or_domain_does_not() {
        let order = |domain: &str, epoch: usize| {
            let order = Draw::new(domain, &json!({"seed": 1, "epoch": epoch})).order(100);
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..100).collect::<Vec<_>>());
            order
        };
        assert_eq!(order("a", 3), order("a", 3));
        assert_ne!(order("a", 3), order("a", 4));
        assert_ne!(order("a", 3), order("b", 3));
    }

    #[test]
    fn numbers_stay_those_that_stored_epochs_were_trained_with() {
        let drawn = |purpose| Draw::of_epoch("runner finetune draws v1", 1, 2, 3, purpose);
        let mut draw = drawn("order");
        assert_eq!(draw.order(10), [2, 8, 3, 5, 6, 9, 0, 1, 4, 7]);
        let mut draw = drawn("prompts");
        let drawn: Vec<usize> = (0..6).map(|_| draw.below(1000)).collect();
        assert_eq!(drawn, [137, 134, 296, 613, 54, 218]);
    }

    #[test]
    fn normal_numbers_have_their_moments() {
        let mut draw = Draw::of_epoch("test", 7, 0, 0, "normal");
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
        let mut draw = Draw::new("test", &json!({"seed": 7}));
        let mut counts = [0_f64; 5];
        for _ in 0..50_000 {
            counts[draw.below(5)] += 1.0;
        }
        let squares = counts.iter().map(|c| (c - 10_000.0).powi(2) / 10_000.0);
        let chi: f64 = squares.sum();
        // 99.9% point of chi-square with 4 degrees of freedom.
        assert!(chi < 18.47, "{chi}");
    }
}
