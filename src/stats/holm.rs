//! Correction of p-values for how many tests were done at once.

/// Holm's step-down adjusted p-values, in the order of `p`.
///
/// Rejecting those at most α keeps the chance of any false rejection among
/// them at most α, whatever the tests have to do with one another. Equal
/// values stay equal. A p-value outside 0 to 1 is cut to that range, and one
/// that is not a number says nothing and counts as 1.
///
/// Source: Holm, "A simple sequentially rejective multiple test procedure",
/// 1979; `multipletests(method="holm")` in statsmodels.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut ranked: Vec<(usize, f64)> = p
        .iter()
        .map(|p| if p.is_nan() { 1.0 } else { *p })
        .enumerate()
        .collect();
    ranked.sort_by(|a, b| a.1.total_cmp(&b.1));
    let mut adjusted = vec![0.0; p.len()];
    // Starting at 0 and cut at 1, so a value outside cannot get further.
    let mut highest = 0.0_f64;
    for (rank, (place, p)) in ranked.into_iter().enumerate() {
        let tests_left = (adjusted.len() - rank) as f64;
        highest = highest.max((p * tests_left).min(1.0));
        adjusted[place] = highest;
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::stats::tests::{fixture, numbers};

    #[test]
    fn adjusted_p_values_equal_those_of_statsmodels() {
        let fixture = fixture();
        let rows = fixture["holm"].as_array().unwrap();
        assert!(rows.len() >= 10);
        for row in rows {
            let (p, expected) = (numbers(&row["p"]), numbers(&row["adjusted"]));
            let adjusted = holm(&p);
            assert_eq!(adjusted.len(), expected.len());
            for (adjusted, expected) in adjusted.iter().zip(&expected) {
                assert!(
                    (adjusted - expected).abs() <= 1e-15 * expected,
                    "{p:?}: {adjusted} for {expected}"
                );
            }
        }
    }

    #[test]
    fn ties_stay_ties_and_a_later_step_is_never_below_an_earlier_one() {
        // 4 · 0.01, then 3 · 0.02 for both, then 1 · 0.03, which is raised to 0.06.
        let adjusted = holm(&[0.02, 0.03, 0.01, 0.02]);
        assert_eq!(adjusted, [0.06, 0.06, 0.04, 0.06]);
        assert_eq!(holm(&[]), [0.0; 0]);
        assert_eq!(holm(&[0.3]), [0.3]);
    }

    #[test]
    fn what_is_no_p_value_says_nothing_and_still_counts_as_a_test() {
        assert_eq!(holm(&[f64::NAN, 0.25]), [1.0, 0.5]);
        assert_eq!(holm(&[-f64::NAN, 0.25]), [1.0, 0.5]);
        assert_eq!(holm(&[f64::INFINITY, 0.25]), [1.0, 0.5]);
        assert_eq!(holm(&[-0.5, 0.25]), [0.0, 0.25]);
    }

    /// p-values with many ties and extremes, and now and then no number.
    fn p_values() -> impl Strategy<Value = Vec<f64>> {
        let one = prop_oneof![
            4 => (0_u32..20).prop_map(|x| f64::from(x) / 100.0),
            4 => 0.0..1.0_f64,
            1 => any::<u64>().prop_map(f64::from_bits),
        ];
        prop::collection::vec(one, 0..12)
    }

    /// Which tests Holm's procedure rejects at `alpha`, one step at a time: the
    /// smallest of those left, until one is too large for their number.
    fn rejected(p: &[f64], alpha: f64) -> Vec<bool> {
        let mut rejected = vec![false; p.len()];
        loop {
            let left = rejected.iter().filter(|r| !**r).count();
            let smallest = (0..p.len())
                .filter(|i| !rejected[*i])
                .min_by(|a, b| p[*a].total_cmp(&p[*b]));
            match smallest {
                Some(i) if p[i] * left as f64 <= alpha => rejected[i] = true,
                _ => return rejected,
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn every_value_is_a_p_value_between_its_own_and_bonferronis(p in p_values()) {
            let adjusted = holm(&p);
            prop_assert_eq!(adjusted.len(), p.len());
            let tests = p.len() as f64;
            for (p, adjusted) in p.iter().zip(&adjusted) {
                prop_assert!((0.0..=1.0).contains(adjusted), "{} of {}", adjusted, p);
                if (0.0..=1.0).contains(p) {
                    let bonferroni = (p * tests).min(1.0);
                    prop_assert!(p <= adjusted && *adjusted <= bonferroni);
                }
            }
        }

        #[test]
        fn values_at_most_alpha_are_those_that_the_procedure_rejects(
            p in prop::collection::vec(0.0..0.3_f64, 0..12),
            alpha in 0.0..0.999_f64,
        ) {
            let adjusted: Vec<bool> = holm(&p).iter().map(|p| *p <= alpha).collect();
            prop_assert_eq!(adjusted, rejected(&p, alpha));
        }

        #[test]
        fn another_order_only_reorders(p in p_values(), turn in 0_usize..12) {
            let mut turned = p.clone();
            turned.rotate_left(turn.min(p.len()));
            let mut expected = holm(&p);
            expected.rotate_left(turn.min(p.len()));
            prop_assert_eq!(holm(&turned), expected);
        }
    }
}
