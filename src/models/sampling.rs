//! Drawing the next token on the host, with numbers that depend on a key and a step alone.
//!
//! The order is that of Hugging Face's `generate`: temperature, `top_k`,
//! `top_p`, `min_p`, softmax. The draw walks the cumulated probabilities in the
//! order of token ids, so that one uniform number gives comparable tokens at
//! different temperatures (common random numbers).

#![expect(
    clippy::inline_always,
    reason = "only what is inlined into a function with vector features becomes vector code"
)]

use std::cmp::Ordering;

use anyhow::{Result, ensure};

/// Logits looked at in one go.
const CHUNK: usize = 64;
/// Weights added up before their sum is looked at.
const BLOCK: usize = 512;
/// Sums side by side, so that one addition need not wait for the last.
const LANES: usize = 8;
/// Bins of weights: 16 for every halving, the last for all that is left.
const BINS: usize = 1024;
/// The least exponent that gives a weight other than 0, near the least normal f64.
const LEAST_EXPONENT: f64 = -708.0;

/// How tokens are chosen from logits.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 takes the most probable token, ties to the lowest id.
    pub temperature: f64,
    /// Keeps this many most probable tokens, and those that tie with the last;
    /// 0 keeps all. Hugging Face's own default is 50.
    pub top_k: usize,
    /// Keeps the smallest set of most probable tokens that holds more than this
    /// probability, of what `top_k` left; of equals, lower ids are kept first. 1
    /// keeps all.
    pub top_p: f64,
    /// Keeps the tokens that are at least this many times as probable as the most
    /// probable one; 0 keeps all. Nguyen et al., *Turning Up the Heat: Min-p
    /// Sampling*, 2024.
    pub min_p: f64,
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
            min_p: 0.0,
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
        ensure!(
            (0.0..=1.0).contains(&self.min_p),
            "`min_p` is {}, but must be from 0 to 1",
            self.min_p
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
    let Some(weigher) = Weigher::new(logits, sampling.temperature) else {
        return 0;
    };
    if sampling.temperature <= 0.0 {
        return weigher.best;
    }
    if !cuts(sampling.top_k, logits.len()) && sampling.top_p >= 1.0 {
        return draw_from_all(logits, &weigher, sampling.min_p, u);
    }
    let kept = left(logits, &weigher, sampling);
    let total: f64 = kept.iter().map(|(_, weight)| weight).sum();
    walk(kept.iter().copied(), u * total)
}

/// The highest logit's id, the lowest among equals.
pub fn greedy(logits: &[f32]) -> u32 {
    let mut best = (0, f32::NEG_INFINITY);
    for (index, chunk) in logits.chunks(CHUNK).enumerate() {
        if !any(chunk, |logit| logit > best.1) {
            continue;
        }
        for (at, &logit) in chunk.iter().enumerate() {
            if logit > best.1 {
                best = (index * CHUNK + at, logit);
            }
        }
    }
    best.0 as u32
}

/// The tokens left by `top_k`, `top_p` and `min_p` in the order of their ids,
/// with weights proportional to their probabilities.
///
/// The most probable token's weight is 1. Weights below the least normal f64 are 0.
pub fn distribution(logits: &[f32], sampling: &Sampling) -> Vec<(u32, f64)> {
    Weigher::new(logits, sampling.temperature)
        .map(|weigher| left(logits, &weigher, sampling))
        .unwrap_or_default()
}

/// As [`distribution`], with at least one token possible.
fn left(logits: &[f32], weigher: &Weigher, sampling: &Sampling) -> Vec<(u32, f64)> {
    if cuts(sampling.top_k, logits.len()) {
        let kept = weigher.each(&highest(logits, sampling.top_k));
        let total = kept.iter().map(|(_, weight)| weight).sum();
        return after_top_k(kept.iter().copied(), total, sampling);
    }
    let weights = weigher.all(logits, 0.0);
    let total = blocks(&weights).sum();
    let possible = (0..).zip(&weights).zip(logits);
    let possible = possible.filter(|(_, logit)| **logit > f32::NEG_INFINITY);
    after_top_k(
        possible.map(|((id, &weight), _)| (id, weight)),
        total,
        sampling,
    )
}

/// What `top_p` and `min_p` leave of tokens whose weights add up to `total`.
fn after_top_k(
    tokens: impl Iterator<Item = (u32, f64)> + Clone,
    total: f64,
    sampling: &Sampling,
) -> Vec<(u32, f64)> {
    let last = if sampling.top_p < 1.0 {
        last_of_top_p(tokens.clone(), total, sampling.top_p)
    } else {
        None
    };
    let in_top_p = |token: &(u32, f64)| last.is_none_or(|last| falling(token, &last).is_le());
    // Renormalising changes no ratio, so what top_p leaves needs none here.
    tokens
        .filter(|token| is_kept(token.1, sampling.min_p) && in_top_p(token))
        .collect()
}

/// Whether `top_k` drops anything of so many tokens.
fn cuts(top_k: usize, tokens: usize) -> bool {
    0 < top_k && top_k < tokens
}

/// Whether a weight beside a highest of 1 is kept by `min_p`; compared in f32, as
/// in the reference, so that equal shares are equal.
#[inline(always)]
fn is_kept(weight: f64, min_p: f64) -> bool {
    weight as f32 >= min_p as f32
}

/// Whether the test holds for any, without an early end that would keep the
/// comparisons from being done side by side.
fn any(logits: &[f32], test: impl Fn(f32) -> bool) -> bool {
    (logits.iter()).fold(false, |found, &logit| found | test(logit))
}

/// The `count` highest logits, and those that tie with the last of them, in the
/// order of their ids, without the impossible.
fn highest(logits: &[f32], count: usize) -> Vec<(u32, f32)> {
    let mut kept = if count * 4 <= logits.len() / CHUNK {
        candidates::<CHUNK>(logits, count)
    } else if count * 4 <= logits.len() / LANES {
        candidates::<LANES>(logits, count)
    } else {
        candidates::<1>(logits, count)
    };
    if count < kept.len() {
        let least = nth_highest(kept.iter().map(|&(_, logit)| logit), count);
        kept.retain(|&(_, logit)| logit >= least);
    }
    kept
}

/// The possible logits that are no less than the `count`th highest of the chunks'
/// maxima, which the `count`th highest of all is not below.
fn candidates<const SIZE: usize>(logits: &[f32], count: usize) -> Vec<(u32, f32)> {
    let greater = |most: f32, &logit: &f32| if logit > most { logit } else { most };
    let (chunks, rest) = logits.as_chunks::<SIZE>();
    let highest = |chunk: &[f32; SIZE]| chunk.iter().fold(f32::NEG_INFINITY, greater);
    let maxima: Vec<f32> = chunks.iter().map(highest).collect();
    let least = nth_highest(maxima.iter().copied(), count);
    let mut kept = Vec::new();
    let mut collect = |first: usize, logits: &[f32]| {
        let possible = |&(_, logit): &(u32, f32)| logit >= least && logit > f32::NEG_INFINITY;
        kept.extend(
            (first as u32..)
                .zip(logits.iter().copied())
                .filter(possible),
        );
    };
    for (index, (chunk, &most)) in chunks.iter().zip(&maxima).enumerate() {
        if most >= least {
            collect(index * SIZE, chunk);
        }
    }
    collect(chunks.len() * SIZE, rest);
    kept
}

/// The `count`th highest, minus infinity where there are fewer.
fn nth_highest(logits: impl Iterator<Item = f32>, count: usize) -> f32 {
    let mut order: Vec<f32> = logits.collect();
    if count == 0 || order.len() < count {
        return f32::NEG_INFINITY;
    }
    let (_, &mut least, _) = order.select_nth_unstable_by(count - 1, |a, b| b.total_cmp(a));
    least
}

/// The order from the most probable token down; of equals, the lower id comes first.
fn falling(a: &(u32, f64), b: &(u32, f64)) -> Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

/// The last token to keep, so that the weight of all after it stays within
/// 1 - `top_p` of `total`; `None` if there are no tokens.
///
/// Weights are added up by bins first, so that only one bin's tokens are sorted.
fn last_of_top_p(
    tokens: impl Iterator<Item = (u32, f64)> + Clone,
    total: f64,
    top_p: f64,
) -> Option<(u32, f64)> {
    // Compared in f32, as in the reference, so that equal shares are equal.
    let enough = |sum: f64| ((total - sum) / total) as f32 <= (1.0 - top_p) as f32;
    let mut masses = vec![0.0; BINS];
    for (_, weight) in tokens.clone() {
        masses[bin(weight)] += weight;
    }
    let (mut above, mut seen, mut edge) = (0.0, 0.0, 0);
    for (bin, mass) in masses.iter().enumerate().filter(|(_, mass)| **mass > 0.0) {
        (above, edge) = (seen, bin);
        seen += mass;
        if enough(seen) {
            break;
        }
    }
    let mut order: Vec<_> = tokens.filter(|token| bin(token.1) == edge).collect();
    order.sort_unstable_by(falling);
    let last = order.iter().find(|(_, weight)| {
        above += weight;
        enough(above)
    });
    // Rounding may leave the whole just short of enough.
    last.or(order.last()).copied()
}

/// Weights of one bin differ by less than 7%; a higher bin has lower weights.
fn bin(weight: f64) -> usize {
    // The exponent and the first four bits after the point, from 1 down.
    let place = |x: f64| x.to_bits() >> 48;
    (place(1.0).saturating_sub(place(weight)) as usize).min(BINS - 1)
}

/// Turns logits into weights, of which the highest is 1.
struct Weigher {
    /// Id of the highest logit.
    best: u32,
    highest: f64,
    temperature: f64,
}

impl Weigher {
    /// `None` if no token is possible.
    fn new(logits: &[f32], temperature: f64) -> Option<Self> {
        let best = greedy(logits);
        let &highest = logits.get(best as usize)?;
        (highest > f32::NEG_INFINITY).then(|| Self {
            best,
            highest: finite(highest),
            // Its inverse must be finite.
            temperature: temperature.max(1e-300),
        })
    }

    /// A logit's weight, 0 for one that is no number.
    #[inline(always)]
    fn weight(&self, logit: f32) -> f64 {
        exp((finite(logit) - self.highest) * self.temperature.recip())
    }

    fn each(&self, tokens: &[(u32, f32)]) -> Vec<(u32, f64)> {
        (tokens.iter())
            .map(|&(id, logit)| (id, self.weight(logit)))
            .collect()
    }

    /// The weights of all logits; those that `min_p` drops are 0.
    fn all(&self, logits: &[f32], min_p: f64) -> Vec<f64> {
        let mut weights = vec![0.0; logits.len()];
        pulp::Arch::new().dispatch(|| {
            for (weight, &logit) in weights.iter_mut().zip(logits) {
                let all = self.weight(logit);
                *weight = if is_kept(all, min_p) { all } else { 0.0 };
            }
        });
        weights
    }
}

/// A logit, with infinity as the largest number: equals share what there is.
#[inline(always)]
fn finite(logit: f32) -> f64 {
    f64::from(if logit > f32::MAX { f32::MAX } else { logit })
}

/// The exponential of a number from 0 down, within 2 units in the last place.
///
/// Unlike the system's it has the same bits on every machine, and a loop over it
/// runs on vectors.
#[inline(always)]
fn exp(x: f64) -> f64 {
    use std::f64::consts::LOG2_E;
    // Adding this leaves the nearest whole number in the low bits, 1023 above it.
    const SHIFT: f64 = 6755399441055744.0 + 1023.0;
    // ln 2 in two parts, the first with zeros at its end so that products are exact.
    const LN2_HIGH: f64 = 6.931471803691238e-1;
    const LN2_LOW: f64 = 1.9082149292705877e-10;
    let shifted = x * LOG2_E + SHIFT;
    let whole = shifted - SHIFT;
    let r = (x - whole * LN2_HIGH) - whole * LN2_LOW;
    // Taylor's series: |r| is at most ln 2 / 2, where the first term left out is 4e-18.
    let mut sum = 1.0 / 6227020800.0;
    for inverse in [
        479001600.0,
        39916800.0,
        3628800.0,
        362880.0,
        40320.0,
        5040.0,
        720.0,
        120.0,
        24.0,
        6.0,
        2.0,
        1.0,
        1.0,
    ] {
        sum = sum * r + 1.0 / inverse;
    }
    let scale = f64::from_bits(shifted.to_bits() << 52);
    if x >= LEAST_EXPONENT {
        sum * scale
    } else {
        0.0
    }
}

/// The sum of every block of weights.
fn blocks(weights: &[f64]) -> impl Iterator<Item = f64> {
    weights.chunks(BLOCK).map(|block| {
        let mut sums = [0.0; LANES];
        let (whole, rest) = block.as_chunks::<LANES>();
        for weights in whole {
            for (sum, weight) in sums.iter_mut().zip(weights) {
                *sum += weight;
            }
        }
        for (sum, weight) in sums.iter_mut().zip(rest) {
            *sum += weight;
        }
        sums.iter().sum()
    })
}

/// Draws without a list of tokens: where neither `top_k` nor `top_p` drops any.
fn draw_from_all(logits: &[f32], weigher: &Weigher, min_p: f64, u: f64) -> u32 {
    let weights = weigher.all(logits, min_p);
    let sums: Vec<f64> = blocks(&weights).collect();
    let target = u * sums.iter().sum::<f64>();
    let mut seen = 0.0;
    let mut found = (0, 0.0);
    for (index, &sum) in sums.iter().enumerate() {
        if sum == 0.0 {
            continue;
        }
        found = (index * BLOCK, seen);
        seen += sum;
        if seen > target {
            break;
        }
    }
    let (first, before) = found;
    let block = weights.into_iter().skip(first).take(BLOCK);
    walk((first as u32..).zip(block), target - before)
}

/// The first token at which the cumulated weights exceed `target`, else the last possible.
fn walk(tokens: impl Iterator<Item = (u32, f64)>, target: f64) -> u32 {
    let mut seen = 0.0;
    let mut last = 0;
    for (id, weight) in tokens {
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    fn at(temperature: f64, top_k: usize, top_p: f64) -> Sampling {
        Sampling {
            temperature,
            top_k,
            top_p,
            ..Sampling::default()
        }
    }

    fn with_min_p(sampling: Sampling, min_p: f64) -> Sampling {
        Sampling { min_p, ..sampling }
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

    #[test]
    fn min_p_keeps_what_is_near_enough_to_the_most_probable() {
        let logits = [0.5f32.ln(), 0.3f32.ln(), 0.2f32.ln(), f32::NEG_INFINITY];
        let ids_at = |min_p| ids(&logits, &with_min_p(at(1.0, 0, 1.0), min_p));
        assert_eq!(ids_at(0.0), [0, 1, 2]);
        // The bounds are 0.6 and 0.4 of the highest.
        assert_eq!(ids_at(0.39), [0, 1, 2]);
        assert_eq!(ids_at(0.41), [0, 1]);
        assert_eq!(ids_at(0.61), [0]);
        assert_eq!(ids_at(1.0), [0]);
        // Halving the temperature squares the ratios.
        assert_eq!(ids(&logits, &with_min_p(at(0.5, 0, 1.0), 0.35)), [0, 1]);
        assert_eq!(
            ids(&[1.0, 2.0, 2.0, 1.9], &with_min_p(at(1.0, 0, 1.0), 1.0)),
            [1, 2]
        );
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let error = |sampling: Sampling| match sampling.check() {
            Ok(()) => String::new(),
            Err(error) => error.to_string(),
        };
        for min_p in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
            let error = error(with_min_p(Sampling::default(), min_p));
            assert!(error.contains("`min_p`"), "{error}");
        }
        for top_p in [0.0, 1.1, f64::NAN] {
            assert!(error(at(1.0, 0, top_p)).contains("`top_p`"));
        }
        for temperature in [-1.0, f64::NAN, f64::INFINITY] {
            assert!(error(at(temperature, 0, 1.0)).contains("`temperature`"));
        }
        assert_eq!(error(with_min_p(at(0.0, 0, 1.0), 1.0)), "");
    }

    #[derive(Deserialize)]
    struct Fixture {
        order: Vec<String>,
        cases: Vec<Case>,
    }

    /// One case of `tests/fixtures/llm/sampling.py`.
    #[derive(Deserialize)]
    struct Case {
        logits: Vec<Option<f32>>,
        temperature: f64,
        top_k: usize,
        top_p: f64,
        min_p: f64,
        tied: bool,
        kept: Vec<u32>,
        probabilities: Vec<f64>,
    }

    impl Case {
        /// How far f32 may be off: the reference rounds each scaled logit.
        fn tolerance(&self) -> f64 {
            let most = (self.logits.iter().flatten()).fold(0.0, |most: f32, l| most.max(l.abs()));
            ((f64::from(most) / self.temperature + 2.0) * f64::from(f32::EPSILON)).min(1e-3)
        }
    }

    /// The largest error of a probability, or why the kept tokens differ.
    fn error_of(case: &Case, sampling: &Sampling) -> std::result::Result<f64, String> {
        let logits: Vec<f32> = (case.logits.iter())
            .map(|logit| logit.unwrap_or(f32::NEG_INFINITY))
            .collect();
        let kept = distribution(&logits, sampling);
        let total: f64 = kept.iter().map(|(_, weight)| weight).sum();
        let mut ours: Vec<(u32, f64)> = kept.iter().map(|(id, w)| (*id, w / total)).collect();
        let mut theirs: Vec<(u32, f64)> = (case.kept.iter().copied())
            .zip(case.probabilities.iter().copied())
            .collect();
        if case.tied {
            // Which of the equals at top_p's bound stay is chance in the reference.
            for side in [&mut ours, &mut theirs] {
                side.sort_by(|a, b| a.1.total_cmp(&b.1));
                for token in side.iter_mut() {
                    token.0 = 0;
                }
            }
        }
        let ids = |side: &[(u32, f64)]| side.iter().map(|token| token.0).collect::<Vec<_>>();
        if ids(&ours) != ids(&theirs) {
            return Err(format!("{:?} instead of {:?}", ids(&ours), ids(&theirs)));
        }
        Ok((ours.iter().zip(&theirs)).fold(0.0, |most: f64, (a, b)| most.max((a.1 - b.1).abs())))
    }

    #[test]
    fn what_is_left_is_what_transformers_leaves() -> Result<()> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/llm/sampling.json");
        let fixture: Fixture = serde_json::from_slice(&std::fs::read(path)?)?;
        let order = ["Temperature", "TopK", "TopP", "MinP"].map(|n| format!("{n}LogitsWarper"));
        assert_eq!(fixture.order, order);
        let mut caught = [0; 4];
        for (index, case) in fixture.cases.iter().enumerate() {
            let right = with_min_p(at(case.temperature, case.top_k, case.top_p), case.min_p);
            let error = error_of(case, &right);
            let fits = |error: &std::result::Result<f64, String>| {
                (error.as_ref()).is_ok_and(|error| *error < case.tolerance())
            };
            assert!(fits(&error), "case {index}: {error:?}");
            let changed = |change: fn(&mut Sampling)| {
                let mut wrong = right.clone();
                change(&mut wrong);
                (wrong != right).then_some(wrong)
            };
            let wrong = [
                changed(|wrong| wrong.temperature = 1.0),
                changed(|wrong| wrong.top_k = 0),
                changed(|wrong| wrong.top_p = 1.0),
                changed(|wrong| wrong.min_p = 0.0),
            ];
            for (caught, wrong) in caught.iter_mut().zip(wrong) {
                let missed = wrong.is_none_or(|wrong| fits(&error_of(case, &wrong)));
                *caught += usize::from(!missed);
            }
        }
        assert!(caught.iter().all(|count| *count > 3), "{caught:?}");
        Ok(())
    }

    /// A filter of logits; minus infinity is out.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        Temperature,
        TopK,
        TopP,
        MinP,
    }

    const ORDER: [Step; 4] = [Step::Temperature, Step::TopK, Step::TopP, Step::MinP];

    fn softmax(scores: &[f64]) -> Vec<f64> {
        let highest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|s| (s - highest).exp()).collect();
        let total: f64 = weights.iter().sum();
        weights.iter().map(|weight| weight / total).collect()
    }

    /// Probabilities after the steps in the order given, written plainly.
    fn exact(logits: &[f32], sampling: &Sampling, steps: &[Step]) -> Vec<f64> {
        let mut scores: Vec<f64> = logits.iter().copied().map(f64::from).collect();
        for step in steps {
            let probabilities = softmax(&scores);
            let mut order: Vec<usize> = (0..scores.len()).collect();
            // From the least probable up; of equals, the higher id first.
            order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]).then(b.cmp(&a)));
            let most = order[order.len() - 1];
            let mut out = vec![false; scores.len()];
            match step {
                Step::Temperature => {
                    scores = scores.iter().map(|s| s / sampling.temperature).collect();
                }
                Step::TopK if 0 < sampling.top_k && sampling.top_k < scores.len() => {
                    let least = scores[order[order.len() - sampling.top_k]];
                    (0..out.len()).for_each(|i| out[i] = scores[i] < least);
                }
                Step::TopP if sampling.top_p < 1.0 => {
                    let mut sum = 0.0;
                    for &id in &order[..order.len() - 1] {
                        sum += probabilities[id];
                        out[id] = sum <= 1.0 - sampling.top_p;
                    }
                }
                Step::MinP => {
                    let least = sampling.min_p * probabilities[most];
                    (0..out.len()).for_each(|i| out[i] = probabilities[i] < least);
                }
                Step::TopK | Step::TopP => {}
            }
            for (score, out) in scores.iter_mut().zip(out) {
                *score = if out { f64::NEG_INFINITY } else { *score };
            }
        }
        softmax(&scores)
    }

    /// Upper 0.1% points of the chi-square distribution are far below this for
    /// the 40 degrees of freedom or fewer used here (73.4 at 40).
    fn chi_square(logits: &[f32], sampling: &Sampling, exact: &[f64], draws: u64) -> f64 {
        let mut counts = vec![0u64; logits.len()];
        for step in 0..draws {
            counts[draw(logits, sampling, uniform(&[3; 32], step)) as usize] += 1;
        }
        (counts.iter().zip(exact))
            .map(|(&count, &p)| {
                let expected = p * draws as f64;
                let off = (count as f64 - expected).powi(2);
                // A token that cannot be, once drawn, is infinitely far off.
                if off == 0.0 { 0.0 } else { off / expected }
            })
            .sum()
    }

    #[test]
    fn drawn_tokens_follow_the_whole_chain_and_no_other_order() {
        use Step::{MinP, Temperature, TopK, TopP};
        // The 40 tokens fall off evenly. Of these, top_k keeps 24 and top_p of those 14;
        // alone, top_p would keep 18 and min_p 20, and top_p of these 12.
        let logits: Vec<f32> = (0..40).map(|i| ((i * 17) % 40) as f32 * 0.11).collect();
        let sampling = with_min_p(at(1.6, 24, 0.75), 0.26);
        let right = exact(&logits, &sampling, &ORDER);
        assert_eq!(right.iter().filter(|p| **p > 0.0).count(), 14);
        let chi = chi_square(&logits, &sampling, &right, 200_000);
        assert!(chi < 73.4, "chi-square {chi}");
        for wrong in [
            // llama.cpp's place for the temperature.
            [TopK, TopP, MinP, Temperature],
            [Temperature, TopP, TopK, MinP],
            [Temperature, MinP, TopK, TopP],
            [Temperature, TopK, MinP, TopP],
        ] {
            let chi = chi_square(
                &logits,
                &sampling,
                &exact(&logits, &sampling, &wrong),
                200_000,
            );
            assert!(chi > 73.4, "{wrong:?} passed with {chi}");
        }
        for wrong in [
            with_min_p(at(1.6, 0, 0.75), 0.26),
            with_min_p(at(1.6, 24, 1.0), 0.26),
            with_min_p(at(1.8, 24, 0.75), 0.26),
        ] {
            let chi = chi_square(&logits, &wrong, &right, 200_000);
            assert!(chi > 73.4, "{wrong:?} passed with {chi}");
        }
        // Where min_p keeps 12, fewer than top_p.
        let sampling = with_min_p(at(1.6, 24, 0.75), 0.45);
        let right = exact(&logits, &sampling, &ORDER);
        let chi = chi_square(&logits, &sampling, &right, 200_000);
        assert!(chi < 73.4, "chi-square {chi}");
        let chi = chi_square(&logits, &with_min_p(sampling, 0.0), &right, 200_000);
        assert!(chi > 73.4, "without min_p it passed with {chi}");
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

    #[test]
    fn weights_are_exponentials_to_the_last_places() {
        let mut most: f64 = 0.0;
        for i in 0..200_000 {
            let x = -f64::from(i) * 708.0 / 200_000.0;
            most = most.max((exp(x) / x.exp() - 1.0).abs());
        }
        assert!(most < 2.0 * f64::EPSILON, "{most:e}");
        assert_eq!(exp(0.0).to_bits(), 1.0f64.to_bits());
        assert_eq!(exp(-0.5).to_bits(), 0x3fe3_68b2_fc6f_960a);
        for x in [-709.0, -1e300, f64::NEG_INFINITY, f64::NAN] {
            assert_eq!(exp(x).to_bits(), 0, "{x}");
        }
    }

    #[test]
    fn logits_that_are_no_number_or_infinite_have_a_meaning() {
        let (nan, inf) = (f32::NAN, f32::INFINITY);
        let every = at(1.0, 0, 1.0);
        for sampling in [
            every.clone(),
            at(1.0, 2, 1.0),
            at(0.7, 3, 0.9),
            at(0.0, 0, 1.0),
        ] {
            assert_eq!(draw(&[], &sampling, 0.5), 0);
            assert_eq!(draw(&[nan, nan], &sampling, 0.9), 0);
            assert_eq!(draw(&[-inf, -inf, nan], &sampling, 0.9), 0);
            assert_eq!(draw(&[nan, -inf, -3e38, nan], &sampling, 0.0), 2);
            assert_eq!(draw(&[1.0, f32::MAX / 2.0, nan], &sampling, 0.99), 1);
        }
        assert_eq!(ids(&[nan, 1.0, -inf, 2.0], &every), [1, 3]);
        // Infinite logits share what there is.
        assert_eq!(draw(&[1.0, inf, 3.0, inf], &every, 0.49), 1);
        assert_eq!(draw(&[1.0, inf, 3.0, inf], &every, 0.51), 3);
        // A temperature next to nothing leaves the highest.
        let cold = at(f64::MIN_POSITIVE, 0, 1.0);
        assert_eq!(draw(&[1.0, 1.5, 1.25], &cold, 0.99), 1);
    }

    #[test]
    fn a_draw_among_many_finds_its_place_in_every_block() {
        let count = 3 * BLOCK + 5;
        // Every third token is possible, or nearly impossible, or out by min_p.
        let logits: Vec<f32> = (0..count).map(|i| [0.0, -800.0, -3.0][i % 3]).collect();
        let possible: Vec<u32> = (0..count as u32).filter(|id| id % 3 == 0).collect();
        for (sampling, fast) in [
            (with_min_p(at(1.0, 0, 1.0), 0.1), true),
            (with_min_p(at(1.0, 0, 1.0 - 1e-9), 0.1), false),
        ] {
            for (place, &id) in possible.iter().enumerate() {
                let u = (place as f64 + 0.5) / possible.len() as f64;
                assert_eq!(draw(&logits, &sampling, u), id, "all at once: {fast}");
            }
        }
    }

    /// Logits as of a model in bf16: many ties, a few impossible ones.
    fn rounded() -> impl Strategy<Value = Vec<f32>> {
        let logit = prop_oneof![
            20 => (-80i32..80).prop_map(|i| i as f32 / 8.0),
            1 => Just(f32::NEG_INFINITY),
        ];
        prop::collection::vec(logit, 1..700).prop_map(|mut logits| {
            logits[0] = 1.0;
            logits
        })
    }

    proptest! {
        #[test]
        fn the_fast_way_leaves_what_the_plain_way_leaves(
            logits in rounded(),
            temperature in 0.2..4.0f64,
            top_k in prop_oneof![Just(0usize), 1..20usize, 1..800usize],
            top_p in prop_oneof![Just(1.0), 0.01..1.0f64],
            min_p in prop_oneof![Just(0.0), 0.001..0.999f64],
            u in 0.0..1.0f64,
        ) {
            let sampling = with_min_p(at(temperature, top_k, top_p), min_p);
            let plain = exact(&logits, &sampling, &ORDER);
            let mut fast = vec![0.0; logits.len()];
            let kept = distribution(&logits, &sampling);
            let total: f64 = kept.iter().map(|(_, weight)| weight).sum();
            for (id, weight) in &kept {
                fast[*id as usize] = weight / total;
            }
            for (id, (a, b)) in fast.iter().zip(&plain).enumerate() {
                prop_assert!((a - b).abs() < 1e-13, "token {}: {} and {}", id, a, b);
            }
            prop_assert!(kept.is_sorted_by_key(|token| token.0));
            // The drawn token is the one at whose share of the line u lies.
            let drawn = draw(&logits, &sampling, u) as usize;
            let before: f64 = plain[..drawn].iter().sum();
            prop_assert!(before - 1e-12 <= u && u < before + plain[drawn] + 1e-12);
        }

        #[test]
        fn any_logits_give_a_token_in_range(
            logits in prop::collection::vec(prop::num::f32::ANY, 1..40),
            temperature in 0.0..10.0f64,
            top_k in 0usize..50,
            top_p in 0.01..=1.0f64,
            min_p in 0.0..=1.0f64,
            u in 0.0..1.0f64,
        ) {
            let id = draw(&logits, &with_min_p(at(temperature, top_k, top_p), min_p), u);
            prop_assert!((id as usize) < logits.len());
        }
    }
}
