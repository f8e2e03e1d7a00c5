//! Means: of repeated runs, and of published accuracies that must agree.

/// The mean and the sample standard deviation (n − 1 below the root) of
/// `values`, in their unit.
///
/// `None` when a deviation is not known: fewer than two values, or a result
/// that no finite number holds. Equal values deviate by exactly 0.
pub fn mean_deviation(values: &[f64]) -> Option<(f64, f64)> {
    let (first, n) = (*values.first()?, values.len() as f64);
    if values.len() < 2 {
        return None;
    }
    // Summed from the first value on, what is rounded is as small as the spread.
    let mean = first + values.iter().map(|x| x - first).sum::<f64>() / n;
    let squares: f64 = values.iter().map(|x| (x - mean) * (x - mean)).sum();
    let deviation = (squares / (n - 1.0)).sqrt();
    (mean.is_finite() && deviation.is_finite()).then_some((mean, deviation))
}

/// How far, in percentage points, rounding alone can move an overall accuracy
/// given to 0.01 from the mean of classes' accuracies given to 0.1 or finer:
/// half a unit of each one's last digit.
const ROUNDING: f64 = 0.05 + 0.005;

/// The mean of the `classes`' accuracies, when `overall` contradicts it.
///
/// All in percent. On a test set with equally many images of every class the
/// overall accuracy is the mean of the classes'. Published figures are rounded,
/// the classes' to 0.1 or finer and the overall one to 0.01, so up to 0.055
/// points of difference is no contradiction. `None` too when there is no class
/// or a figure is not a number.
pub fn contradicts(overall: f64, classes: &[f64]) -> Option<f64> {
    let mean = classes.iter().sum::<f64>() / classes.len() as f64;
    // Decimals are not exact in binary; a difference of just 0.055 is allowed.
    ((mean - overall).abs() > ROUNDING + 1e-9).then_some(mean)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::stats::tests::{fixture, numbers};

    #[test]
    fn means_and_deviations_equal_those_of_exact_fractions() {
        let fixture = fixture();
        let rows = fixture["deviation"].as_array().unwrap();
        assert!(rows.len() >= 8);
        for row in rows {
            let values = numbers(&row["values"]);
            let (mean, deviation) = mean_deviation(&values).unwrap();
            let (m, d) = (
                row["mean"].as_f64().unwrap(),
                row["deviation"].as_f64().unwrap(),
            );
            let largest = values.iter().fold(0.0_f64, |most, x| most.max(x.abs()));
            assert!(
                (mean - m).abs() <= 4e-16 * largest,
                "{values:?}: {mean} for {m}"
            );
            assert!(
                (deviation - d).abs() <= 1e-13 * d,
                "{values:?}: {deviation} for {d}"
            );
        }
    }

    #[test]
    fn a_deviation_that_is_not_known_is_none() {
        assert_eq!(mean_deviation(&[]), None);
        assert_eq!(mean_deviation(&[70.35]), None);
        assert_eq!(mean_deviation(&[1.0, f64::NAN]), None);
        assert_eq!(mean_deviation(&[f64::MAX, -f64::MAX]), None);
        assert_eq!(mean_deviation(&[f64::INFINITY; 2]), None);
        assert_eq!(mean_deviation(&[1.0, 3.0]), Some((2.0, 2.0_f64.sqrt())));
    }

    proptest! {
        #[test]
        fn equal_values_have_that_mean_and_no_deviation(x in -1e6..1e6_f64, n in 2_usize..60) {
            prop_assert_eq!(mean_deviation(&vec![x; n]), Some((x, 0.0)));
        }

        #[test]
        fn a_shift_moves_the_mean_and_keeps_the_deviation(
            values in prop::collection::vec(-100.0..100.0_f64, 2..30),
            shift in -1e6..1e6_f64,
        ) {
            let (mean, deviation) = mean_deviation(&values).unwrap();
            let shifted: Vec<f64> = values.iter().map(|x| x + shift).collect();
            let (moved, same) = mean_deviation(&shifted).unwrap();
            prop_assert!((moved - mean - shift).abs() < 1e-8);
            prop_assert!((same - deviation).abs() < 1e-8);
        }
    }

    /// Tables 4 and 5 of Tualle & Duchemin, March 2025: accuracy in percent of
    /// each `CIFAR-10` class with 0 to 3 attributes, and the overall accuracies
    /// of its Table 3 that belong to them.
    const OVERALL_4: [f64; 4] = [70.35, 72.91, 70.75, 69.67];
    const OVERALL_5: [f64; 4] = [70.35, 65.27, 63.83, 63.92];
    const TABLE_4: [[f64; 4]; 10] = [
        [74.6, 82.3, 90.1, 95.2],
        [98.2, 68.4, 81.9, 86.5],
        [87.0, 77.8, 71.7, 67.8],
        [62.1, 73.1, 78.3, 74.4],
        [56.9, 66.5, 52.9, 49.5],
        [73.0, 55.7, 53.8, 58.4],
        [29.9, 34.7, 29.4, 32.3],
        [82.3, 81.4, 87.7, 91.8],
        [70.7, 85.7, 77.9, 65.7],
        [52.9, 92.5, 83.8, 75.1],
    ];
    const TABLE_5: [[f64; 4]; 10] = [
        [74.6, 73.4, 81.5, 72.6],
        [98.2, 83.3, 85.7, 81.9],
        [87.0, 87.6, 71.2, 72.6],
        [62.1, 38.4, 67.4, 49.4],
        [56.9, 32.8, 37.0, 27.1],
        [73.0, 59.8, 70.2, 73.9],
        [29.9, 44.6, 19.8, 32.5],
        [82.3, 86.1, 79.7, 80.9],
        [70.7, 67.5, 61.0, 71.0],
        [52.9, 79.2, 64.8, 77.3],
    ];

    /// The contradicted columns and their means to 0.01.
    fn contradicted(table: &[[f64; 4]; 10], overall: [f64; 4]) -> Vec<(usize, String)> {
        (0..4)
            .filter_map(|column| {
                let classes: Vec<f64> = table.iter().map(|row| row[column]).collect();
                let mean = contradicts(overall[column], &classes)?;
                Some((column, format!("{mean:.2}")))
            })
            .collect()
    }

    #[test]
    fn three_published_columns_contradict_their_overall_accuracy_and_no_others() {
        let first = contradicted(&TABLE_4, OVERALL_4);
        assert_eq!(first, [(0, "68.76".to_owned()), (1, "71.81".to_owned())]);
        let second = contradicted(&TABLE_5, OVERALL_5);
        assert_eq!(second, [(0, "68.76".to_owned())]);
    }

    #[test]
    fn rounding_is_no_contradiction_and_a_hundredth_more_is() {
        // Every class just below 70.15 shows 70.1, and overall 70.15 is possible.
        assert_eq!(contradicts(70.15, &[70.1; 10]), None);
        assert_eq!(contradicts(70.05, &[70.1; 10]), None);
        assert!(contradicts(70.16, &[70.1; 10]).is_some());
        assert!(contradicts(70.04, &[70.1; 10]).is_some());
        // Just 0.055 of difference, over and under, as binary fractions round it.
        for tenths in 0..1000 {
            let class = f64::from(tenths) / 10.0;
            let classes = [class, class + 0.01];
            assert_eq!(contradicts(class + 0.06, &classes), None, "{class}");
            assert_eq!(contradicts(class - 0.05, &classes), None, "{class}");
        }
        assert_eq!(contradicts(70.0, &[]), None);
        assert_eq!(contradicts(f64::NAN, &[1.0]), None);
    }

    proptest! {
        #[test]
        fn true_accuracies_never_contradict_themselves_once_rounded(
            images in 50_u32..2000,
            shares in prop::collection::vec(0.0..=1.0_f64, 1..40),
        ) {
            let right: Vec<f64> = shares.iter().map(|s| (s * f64::from(images)).floor()).collect();
            let share = |right: f64, of: f64| 100.0 * right / of;
            let all = f64::from(images) * right.len() as f64;
            let overall = (share(right.iter().sum(), all) * 100.0).round() / 100.0;
            let classes: Vec<f64> = right
                .iter()
                .map(|r| (share(*r, f64::from(images)) * 10.0).round() / 10.0)
                .collect();
            prop_assert_eq!(contradicts(overall, &classes), None);
        }
    }
}
