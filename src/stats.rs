//! Intervals and tests for counts of images, in nothing but the four
//! operations and square roots, so that every machine gets the same bits.

mod bootstrap;
mod holm;
mod means;

pub use bootstrap::{Stratum, paired_bootstrap};
pub use holm::holm;
pub use means::{contradicts, mean_deviation};

/// The 97.5% point of the standard normal distribution.
const Z95: f64 = 1.959_963_984_540_054;

/// The 95% Wilson interval of a share, as fractions of 1.
///
/// Nothing is known about a share of no images: `(0, 1)`.
/// Source: Wilson, "Probable inference, the law of succession, and statistical
/// inference", 1927; `proportion_confint(method="wilson")` in statsmodels.
pub fn wilson(correct: u64, total: u64) -> (f64, f64) {
    if total == 0 {
        return (0.0, 1.0);
    }
    let n = total as f64;
    let share = correct as f64 / n;
    let z2 = Z95 * Z95;
    let middle = (share + z2 / (2.0 * n)) / (1.0 + z2 / n);
    let half = Z95 / (1.0 + z2 / n) * (share * (1.0 - share) / n + z2 / (4.0 * n * n)).sqrt();
    // At the ends the two terms are equal and only rounding is left of them.
    let low = if correct == 0 { 0.0 } else { middle - half };
    let high = if correct >= total { 1.0 } else { middle + half };
    (low.max(0.0), high.min(1.0))
}

/// McNemar's exact two-sided p-value: how likely a fair coin splits the pairs
/// that differ at least as unevenly as `won` to `lost`.
///
/// 1 when no pair differs. Values below the smallest `f64` are 0. Takes time
/// in proportion to `won + lost`.
/// Source: `mcnemar(exact=True)` in statsmodels.
pub fn mcnemar_exact(won: u64, lost: u64) -> f64 {
    let (fewer, pairs) = (won.min(lost), won + lost);
    if won == lost {
        return 1.0;
    }
    // The tail's terms C(pairs, k) / C(pairs, fewer), from k = fewer down; each
    // is less than the one before, so the sum ends where rounding loses them.
    let (mut tail, mut term) = (1.0, 1.0);
    for k in (1..=fewer).rev() {
        term *= k as f64 / (pairs - k + 1) as f64;
        if term < tail * (f64::EPSILON / 4.0) {
            break;
        }
        tail += term;
    }
    // C(pairs, fewer) / 2^pairs: halving whenever the product passes 1 keeps it in range.
    let (mut p, mut halvings) = (tail, 0);
    for i in 1..=fewer {
        p *= (pairs - fewer + i) as f64 / i as f64;
        while p > 1.0 && halvings < pairs {
            p *= 0.5;
            halvings += 1;
        }
    }
    while halvings < pairs && p > 0.0 {
        p *= 0.5;
        halvings += 1;
    }
    (2.0 * p).min(1.0)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// Written by `tests/fixtures/stats/make.py` with scipy and statsmodels.
    pub(super) fn fixture() -> Value {
        serde_json::from_str(include_str!("../tests/fixtures/stats/stats.json")).unwrap()
    }

    pub(super) fn numbers(row: &Value) -> Vec<f64> {
        row.as_array()
            .unwrap()
            .iter()
            .map(|x| x.as_f64().unwrap())
            .collect()
    }

    #[test]
    fn wilson_intervals_equal_those_of_statsmodels() {
        let fixture = fixture();
        let rows = fixture["wilson"].as_array().unwrap();
        assert!(rows.len() > 20);
        for row in rows {
            let row = numbers(row);
            let (low, high) = wilson(row[0] as u64, row[1] as u64);
            assert!((low - row[2]).abs() < 1e-14, "{row:?}: {low}");
            assert!((high - row[3]).abs() < 1e-14, "{row:?}: {high}");
        }
    }

    #[test]
    fn mcnemar_p_values_equal_those_of_statsmodels() {
        let fixture = fixture();
        let rows = fixture["mcnemar"].as_array().unwrap();
        assert!(rows.len() > 20);
        for row in rows {
            let row = numbers(row);
            let p = mcnemar_exact(row[0] as u64, row[1] as u64);
            assert!(
                (p - row[2]).abs() <= 1e-10 * row[2],
                "{row:?}: {p} for {}",
                row[2]
            );
        }
    }

    #[test]
    fn mcnemar_p_values_of_many_pairs_equal_sums_of_sixty_digits() {
        let fixture = fixture();
        let rows = fixture["mcnemar_large"].as_array().unwrap();
        assert!(rows.len() >= 10);
        for row in rows {
            let row = numbers(row);
            let p = mcnemar_exact(row[0] as u64, row[1] as u64);
            assert!((p - row[2]).abs() <= 1e-10 * row[2], "{row:?}: {p}");
        }
    }

    #[test]
    fn intervals_hold_the_share_and_no_image_says_nothing() {
        assert_eq!(wilson(0, 0), (0.0, 1.0));
        assert_eq!(wilson(0, 10).0.to_bits(), 0.0_f64.to_bits());
        assert_eq!(wilson(10, 10).1.to_bits(), 1.0_f64.to_bits());
        for total in 1..60 {
            for correct in 0..=total {
                let share = correct as f64 / total as f64;
                let (low, high) = wilson(correct, total);
                assert!(low <= share && share <= high, "{correct} of {total}");
            }
        }
    }

    #[test]
    fn a_coin_that_never_falls_the_other_way_halves_p_each_time() {
        for pairs in 1..1000_i32 {
            let p = mcnemar_exact(u64::from(pairs.unsigned_abs()), 0);
            assert_eq!(p.to_bits(), 2.0_f64.powi(1 - pairs).to_bits(), "{pairs}");
        }
        assert_eq!(mcnemar_exact(0, 5000).to_bits(), 0.0_f64.to_bits());
        assert_eq!(mcnemar_exact(7, 7).to_bits(), 1.0_f64.to_bits());
        assert_eq!(mcnemar_exact(3, 9).to_bits(), mcnemar_exact(9, 3).to_bits());
    }
}
