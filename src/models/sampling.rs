//! Drawing the next token on the host, with numbers that depend on a key and a step alone.
//!
//! The order is that of Hugging Face's `generate`: temperature, `top_k`,
//! `top_p`, softmax. The draw walks the cumulated probabilities in the order of
//! token ids, so that one uniform number gives comparable tokens at different
//! temperatures (common random numbers).

use anyhow::{Result, ensure};

/// How tokens are chosen from logits.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 takes the most probable token, ties to the lowest id.
    pub temperature: f64,
    /// Keeps this many most probable tokens, and those that tie with the last;
    /// 0 keeps all. Hugging Face's own default is 50.
    pub top_k: usize,
    /// Keeps the smallest set of most probable tokens that holds more than this
    /// probability; 1 keeps all.
    pub top_p: f64,
    /// Ends an answer that has this many tokens.
    pub max_tokens: usize,
    /// Ends an answer where one of these texts appears; the text is cut there.
    pub stop: Vec<String>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 50,
            top_p: 1.0,
            max_tokens: 256,
            stop: Vec::new(),
        }
    }
}

impl Sampling {
    /// Checks the ranges.
    ///
    /// # Errors
    /// Names the parameter that is out of range.
    pub fn check(&self) -> Result<()> {
        ensure!(
            self.temperature.is_finite() && self.temperature >= 0.0,
            "`temperature` is {}, but must be a number from 0 up",
            self.temperature
        );
        ensure!(
            self.top_p > 0.0 && self.top_p <= 1.0,
            "`top_p` is {}, but must be above 0 and at most 1",
            self.top_p
        );
        ensure!(self.max_tokens > 0, "`max_tokens` must be at least 1");
        ensure!(
            self.stop.iter().all(|text| !text.is_empty()),
            "`stop` holds an empty text"
        );
        Ok(())
    }
}

/// The uniform number in [0, 1) of one step of the stream named by `key`.
///
/// Keyed BLAKE3 as a counter-based generator: any step can be had without
/// those before it, on every machine alike.
pub fn uniform(key: &[u8; 32], step: u64) -> f64 {
    let hash = blake3::keyed_hash(key, &step.to_le_bytes());
    let bytes = hash.as_bytes().first_chunk().copied().unwrap_or_default();
    // The 53 bits that an f64 holds exactly.
    (u64::from_le_bytes(bytes) >> 11) as f64 / (1u64 << 53) as f64
}

/// The token at the place `u` in [0, 1) of the distribution that `logits` have
/// under `sampling`.
///
/// Logits that are no number count as impossible. With none possible the answer
/// is token 0.
pub fn draw(logits: &[f32], sampling: &Sampling, u: f64) -> u32 {
    if sampling.temperature <= 0.0 {
        return greedy(logits);
    }
    let kept = distribution(logits, sampling);
    let total: f64 = kept.iter().map(|(_, weight)| weight).sum();
    let target = u * total;
    let mut seen = 0.0;
    let mut last = 0;
    for &(id, weight) in &kept {
        if weight == 0.0 {
            continue;
        }
        seen += weight;
        last = id;
        if seen > target {
            break;
        }
    }
    last
}

/// The highest logit's id, the lowest among equals.
pub fn greedy(logits: &[f32]) -> u32 {
    let mut best = (0, f32::NEG_INFINITY);
    for (id, &logit) in logits.iter().enumerate() {
        if logit > best.1 {
            best = (id, logit);
        }
    }
    best.0 as u32
}

/// The tokens left by `top_k` and `top_p` in the order of their ids, with
/// weights proportional to their probabilities.
pub fn distribution(logits: &[f32], sampling: &Sampling) -> Vec<(u32, f64)> {
    let scaled = |logit: f32| f64::from(logit) / sampling.temperature.max(f64::MIN_POSITIVE);
    let mut kept: Vec<(u32, f64)> = (logits.iter().enumerate())
        .filter(|(_, logit)| !logit.is_nan())
        .map(|(id, &logit)| (id as u32, scaled(logit)))
        .collect();
    if 0 < sampling.top_k && sampling.top_k < kept.len() {
        let mut order: Vec<f64> = kept.iter().map(|&(_, score)| score).collect();
        let (_, &mut least, _) =
            order.select_nth_unstable_by(sampling.top_k - 1, |a, b| b.total_cmp(a));
        // Equal scores stay together, as in the reference.
        kept.retain(|&(_, score)| score >= least);
    }
    let highest = (kept.iter()).fold(f64::NEG_INFINITY, |most, &(_, score)| most.max(score));
    for (_, score) in &mut kept {
        *score = (*score - highest).exp();
    }
    if highest.is_infinite() {
        // Infinite logits leave no ratios to compare: all of them are equally likely.
        for (_, weight) in &mut kept {
            *weight = if weight.is_nan() { 1.0 } else { 0.0 };
        }
    }
    if sampling.top_p < 1.0 {
        keep_top_p(&mut kept, sampling.top_p);
    }
    kept
}

/// Drops the least probable tokens whose sum stays within 1 - `top_p`.
fn keep_top_p(kept: &mut Vec<(u32, f64)>, top_p: f64) {
    let total: f64 = kept.iter().map(|(_, weight)| weight).sum();
    let mut order: Vec<usize> = (0..kept.len()).collect();
    // From the least probable up; of equals, the higher id goes first.
    order.sort_by(|&a, &b| kept[a].1.total_cmp(&kept[b].1).then(b.cmp(&a)));
    let mut dropped = vec![false; kept.len()];
    let mut sum = 0.0;
    for &index in &order[..order.len().saturating_sub(1)] {
        sum += kept[index].1;
        if sum > (1.0 - top_p) * total {
            break;
        }
        dropped[index] = true;
    }
    let mut index = 0;
    kept.retain(|_| {
        index += 1;
        !dropped[index - 1]
    });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(temperature: f64, top_k: usize, top_p: f64) -> Sampling {
        Sampling {
            temperature,
            top_k,
            top_p,
            ..Sampling::default()
        }
    }

    fn ids(logits: &[f32], sampling: &Sampling) -> Vec<u32> {
        (distribution(logits, sampling).iter())
            .map(|kept| kept.0)
            .collect()
    }

    #[test]
    fn uniform_numbers_are_pinned_and_differ_by_key_and_step() {
        let key = [7; 32];
        let bits = |key, step| uniform(key, step).to_bits();
        assert_eq!(bits(&key, 0), bits(&key, 0));
        assert_ne!(bits(&key, 0), bits(&key, 1));
        assert_ne!(bits(&key, 0), bits(&[8; 32], 0));
        // Made with the Python package blake3.
        assert_eq!(bits(&key, 3), 0x3fdd_8f1b_399f_d216);
        let mean: f64 = (0..10_000).map(|step| uniform(&key, step)).sum::<f64>() / 1e4;
        // Five standard deviations of a mean of 10,000 uniform numbers.
        assert!((mean - 0.5).abs() < 0.0145, "{mean}");
    }

    #[test]
    fn greedy_takes_the_lowest_of_equal_ids() {
        assert_eq!(greedy(&[0.0, 3.0, 3.0, f32::NAN, 1.0]), 1);
        assert_eq!(draw(&[0.0, 3.0, 3.0], &at(0.0, 50, 1.0), 0.99), 1);
    }

    #[test]
    fn top_k_keeps_ties_with_the_last_kept() {
        let logits = [1.0, 2.0, 2.0, 0.0, 3.0];
        assert_eq!(ids(&logits, &at(1.0, 1, 1.0)), [4]);
        assert_eq!(ids(&logits, &at(1.0, 2, 1.0)), [1, 2, 4]);
        assert_eq!(ids(&logits, &at(1.0, 0, 1.0)), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn top_p_keeps_the_token_that_crosses_the_bound() {
        let logits = [0.5f32.ln(), 0.3f32.ln(), 0.2f32.ln()];
        assert_eq!(ids(&logits, &at(1.0, 0, 0.45)), [0]);
        assert_eq!(ids(&logits, &at(1.0, 0, 0.6)), [0, 1]);
        assert_eq!(ids(&logits, &at(1.0, 0, 0.85)), [0, 1, 2]);
        // After top_k = 2 the probabilities are 0.625 and 0.375.
        assert_eq!(ids(&logits, &at(1.0, 2, 0.6)), [0]);
    }

    /// Upper 0.1% points of the chi-square distribution are far below this for
    /// the 40 degrees of freedom or fewer used here (73.4 at 40).
    fn chi_square(logits: &[f32], sampling: &Sampling, exact: &[f64], draws: u64) -> f64 {
        let mut counts = vec![0u64; logits.len()];
        for step in 0..draws {
            counts[draw(logits, sampling, uniform(&[3; 32], step)) as usize] += 1;
        }
        (counts.iter().zip(exact))
            .filter(|(_, p)| **p > 0.0)
            .map(|(&count, &p)| {
                let expected = p * draws as f64;
                (count as f64 - expected).powi(2) / expected
            })
            .sum()
    }

    #[test]
    fn drawn_tokens_follow_the_exact_softmax_and_a_wrong_temperature_does_not() {
        let logits: Vec<f32> = (0..40).map(|i| ((i * 7) % 13) as f32 * 0.3 - 1.0).collect();
        for temperature in [0.5, 1.0, 1.4] {
            let weights: Vec<f64> = (logits.iter())
                .map(|&l| (f64::from(l) / temperature).exp())
                .collect();
            let total: f64 = weights.iter().sum();
            let exact: Vec<f64> = weights.iter().map(|w| w / total).collect();
            let right = chi_square(&logits, &at(temperature, 0, 1.0), &exact, 200_000);
            assert!(right < 73.4, "chi-square {right} at {temperature}");
            let wrong = chi_square(&logits, &at(temperature * 1.05, 0, 1.0), &exact, 200_000);
            assert!(wrong > 73.4, "a temperature 5% off passed with {wrong}");
        }
    }

    #[test]
    fn a_draw_moves_with_its_uniform_number() {
        let logits = [0.0, 1.0, 2.0, 1.0];
        let drawn: Vec<u32> = (0..100)
            .map(|i| draw(&logits, &at(1.0, 0, 1.0), f64::from(i) / 100.0))
            .collect();
        assert!(drawn.is_sorted());
        assert_eq!((drawn[0], drawn[99]), (0, 3));
    }

    proptest! {
        #[test]
        fn any_logits_give_a_token_in_range(
            logits in prop::collection::vec(prop::num::f32::ANY, 1..40),
            temperature in 0.0..10.0f64,
            top_k in 0usize..50,
            top_p in 0.01..=1.0f64,
            u in 0.0..1.0f64,
        ) {
            let id = draw(&logits, &at(temperature, top_k, top_p), u);
            prop_assert!((id as usize) < logits.len());
        }
    }
}
