//! The bootstrap interval of a difference in accuracy, from coins that a key
//! decides, in whole numbers up to one last division.

use rayon::prelude::*;

/// One class's images in a paired comparison of two classifiers.
///
/// An image is won when only the new classifier is right, lost when only the
/// baseline is. Together they are at most `images`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stratum {
    /// All images of the class.
    pub images: u64,
    /// Images that only the new classifier gets right.
    pub won: u64,
    /// Images that only the baseline gets right.
    pub lost: u64,
}

/// The 95% percentile interval of the difference in top-1 accuracy, new less
/// baseline, as fractions of all images (−1 to 1).
///
/// Each of the `resamples` draws, within every stratum, as many images as it
/// has, with replacement; both classifiers are judged on the same images. Only
/// an image's outcome matters for the difference, so what is drawn are counts
/// of outcomes, exactly multinomial, with no bias. The ends are the
/// 2.5% and 97.5% points, interpolated linearly between neighbours as numpy's
/// `percentile` does.
///
/// Resample `r` is decided by `key` and `r` alone: more resamples keep the
/// first ones, and the number of threads changes nothing. The order of the
/// strata matters to the draws, strata without a difference do not. Takes time
/// in proportion to `resamples` times the images.
///
/// Nothing is known from no images or no resamples: `(-1, 1)`. Counts that
/// exceed their stratum's images are cut to them.
///
/// Source: Efron & Tibshirani, "An Introduction to the Bootstrap", 1993,
/// chapters 8 (several samples) and 13 (percentile interval);
/// `scipy.stats.bootstrap(method="percentile")`.
pub fn paired_bootstrap(strata: &[Stratum], resamples: usize, key: &[u8; 32]) -> (f64, f64) {
    let images: i128 = strata.iter().map(|s| i128::from(s.images)).sum();
    if images == 0 || resamples == 0 {
        return (-1.0, 1.0);
    }
    let mut sorted = differences(strata, resamples, key);
    sorted.sort_unstable();
    (
        percentile(&sorted, 1, images),
        percentile(&sorted, 39, images),
    )
}

/// Won less lost in each resample.
fn differences(strata: &[Stratum], resamples: usize, key: &[u8; 32]) -> Vec<i128> {
    (0..resamples)
        .into_par_iter()
        .map(|resample| {
            let mut coins = Coins::new(key, resample as u64);
            strata.iter().map(|s| coins.difference(*s)).sum()
        })
        .collect()
}

/// The point `fortieths` / 40 of the way through `sorted`, divided by `images`.
///
/// Fortieths, because 2.5% and 97.5% are whole numbers of them.
fn percentile(sorted: &[i128], fortieths: usize, images: i128) -> f64 {
    let place = (sorted.len() - 1) * fortieths;
    let (below, part) = (place / 40, (place % 40) as i128);
    let above = (below + 1).min(sorted.len() - 1);
    (sorted[below] * (40 - part) + sorted[above] * part) as f64 / (40 * images) as f64
}

/// The coins of one resample: the bits of BLAKE3's extended output, keyed, of
/// the resample's number (8 bytes, little-endian); lowest bit of each byte first.
struct Coins {
    stream: blake3::OutputReader,
    block: [u8; 256],
    used: usize,
    word: u64,
    left: u64,
}

impl Coins {
    fn new(key: &[u8; 32], resample: u64) -> Self {
        let stream = blake3::Hasher::new_keyed(key)
            .update(&resample.to_le_bytes())
            .finalize_xof();
        Self {
            stream,
            block: [0; 256],
            used: 256,
            word: 0,
            left: 0,
        }
    }

    /// Won less lost among `images` draws from the stratum: first how many
    /// images with a difference are drawn, then how many of these are won.
    fn difference(&mut self, stratum: Stratum) -> i128 {
        let different = stratum.won.saturating_add(stratum.lost);
        let drawn = self.hits(stratum.images, different, stratum.images);
        let won = self.hits(drawn, stratum.won, different);
        2 * i128::from(won) - i128::from(drawn)
    }

    /// How many of `draws` draws have an outcome of the chance `part / whole`:
    /// exactly binomial, with no rounding anywhere.
    ///
    /// A draw is a real number below 1 whose binary digits are random; it hits
    /// when it is below `part / whole`. All draws are compared with that
    /// fraction at once, digit by digit. Heads: a draw's digit equals the
    /// fraction's and the draw stays open. Tails: it differs, which decides the
    /// draw, for a hit where the fraction's digit is 1. Half of the open draws
    /// drop out at each digit, so a draw takes two coins on average.
    fn hits(&mut self, draws: u64, part: u64, whole: u64) -> u64 {
        if part >= whole {
            return draws;
        }
        let (mut part, mut open, mut hits) = (part, draws, 0);
        // At `part` 0 only zeros are left of the fraction: nothing is below it.
        while open > 0 && part > 0 {
            let heads = self.heads(open);
            // The next digit is 1 where 2 · part reaches `whole` (which may not fit).
            let rest = whole - part;
            if part >= rest {
                part -= rest;
                hits += open - heads;
            } else {
                part *= 2;
            }
            open = heads;
        }
        hits
    }

    /// How many of the next `coins` bits are ones.
    fn heads(&mut self, coins: u64) -> u64 {
        let mut heads = 0;
        let mut coins = coins;
        while coins > self.left {
            heads += u64::from(self.word.count_ones());
            coins -= self.left;
            self.refill();
        }
        let rest = self.word.unbounded_shr(coins as u32);
        heads += u64::from(self.word.count_ones() - rest.count_ones());
        self.word = rest;
        self.left -= coins;
        heads
    }

    fn refill(&mut self) {
        if self.used == self.block.len() {
            self.stream.fill(&mut self.block);
            self.used = 0;
        }
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.block[self.used..self.used + 8]);
        self.word = u64::from_le_bytes(bytes);
        self.left = 64;
        self.used += 8;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::stats::tests::numbers;

    /// Written by `tests/fixtures/stats/bootstrap.py` with numpy and scipy.
    fn fixture() -> Value {
        serde_json::from_str(include_str!("../../tests/fixtures/stats/bootstrap.json")).unwrap()
    }

    fn stratum(images: u64, won: u64, lost: u64) -> Stratum {
        Stratum { images, won, lost }
    }

    fn strata(row: &Value) -> Vec<Stratum> {
        let rows = row["strata"].as_array().unwrap().iter().map(numbers);
        rows.map(|n| stratum(n[0] as u64, n[1] as u64, n[2] as u64))
            .collect()
    }

    fn key(row: &Value) -> [u8; 32] {
        let hex = row["key"].as_str().unwrap();
        std::array::from_fn(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap())
    }

    /// All strata as one, as a bootstrap that ignores the classes would see them.
    fn pooled(strata: &[Stratum]) -> Vec<Stratum> {
        let sum = |of: fn(&Stratum) -> u64| strata.iter().map(of).sum();
        vec![stratum(sum(|s| s.images), sum(|s| s.won), sum(|s| s.lost))]
    }

    /// The standard deviation of the difference that resampling tends to.
    fn deviation(strata: &[Stratum]) -> f64 {
        let images = strata.iter().map(|s| s.images).sum::<u64>() as f64;
        let variance = strata.iter().filter(|s| s.images > 0).map(|s| {
            let [n, won, lost] = [s.images, s.won, s.lost].map(|x| x as f64);
            won + lost - (won - lost) * (won - lost) / n
        });
        variance.sum::<f64>().sqrt() / images
    }

    #[test]
    fn intervals_equal_numpys_over_the_same_images_drawn_one_by_one() {
        let fixture = fixture();
        let rows = fixture["exact"].as_array().unwrap();
        assert!(rows.len() >= 8);
        for row in rows {
            let (strata, key) = (strata(row), key(row));
            let resamples = row["resamples"].as_u64().unwrap() as usize;
            let first = numbers(&row["first"]);
            let found: Vec<f64> = differences(&strata, first.len(), &key)
                .iter()
                .map(|d| *d as f64)
                .collect();
            assert_eq!(found, first, "{row}");
            let (low, high) = paired_bootstrap(&strata, resamples, &key);
            assert!(
                (low - row["low"].as_f64().unwrap()).abs() < 1e-12,
                "{row}: {low}"
            );
            assert!(
                (high - row["high"].as_f64().unwrap()).abs() < 1e-12,
                "{row}: {high}"
            );
        }
    }

    #[test]
    fn intervals_agree_with_scipys_to_the_error_of_ten_thousand_resamples() {
        let fixture = fixture();
        let rows = fixture["scipy"].as_array().unwrap();
        assert!(rows.len() >= 4);
        for row in rows {
            let strata = strata(row);
            let resamples = row["resamples"].as_u64().unwrap() as usize;
            let theirs: Vec<Vec<f64>> = row["intervals"]
                .as_array()
                .unwrap()
                .iter()
                .map(numbers)
                .collect();
            let mean = |end: usize| {
                theirs.iter().map(|interval| interval[end]).sum::<f64>() / theirs.len() as f64
            };
            // The standard error of a 2.5% point of R normal values with deviation s is
            // s √(0.025 · 0.975 / R) / φ(1.96); φ(1.96) is 0.0584. Four of them, of our
            // interval and scipy's mean together, and one image for the steps between values.
            let images = strata.iter().map(|s| s.images).sum::<u64>() as f64;
            let error = deviation(&strata) * (0.025 * 0.975 / resamples as f64).sqrt() / 0.0584;
            let allowed = 4.0 * error * (1.0 + 1.0 / theirs.len() as f64).sqrt() + 1.0 / images;
            for seed in 0..2 {
                let (low, high) = paired_bootstrap(&strata, resamples, &[seed; 32]);
                assert!((low - mean(0)).abs() < allowed, "{row}: {low}, ±{allowed}");
                assert!(
                    (high - mean(1)).abs() < allowed,
                    "{row}: {high}, ±{allowed}"
                );
            }
            if row["strata"][0][1] == 390 {
                let (low, high) = paired_bootstrap(&pooled(&strata), resamples, &[0; 32]);
                assert!(mean(0) - low > 4.0 * allowed && high - mean(1) > 4.0 * allowed);
            }
        }
    }

    #[test]
    fn every_class_keeps_its_own_number_of_images() {
        // Within a class all images are alike, so nothing varies unless classes mix.
        let strata = [stratum(1000, 1000, 0), stratum(1000, 0, 1000)];
        assert_eq!(paired_bootstrap(&strata, 500, &[1; 32]), (0.0, 0.0));
        let (low, high) = paired_bootstrap(&pooled(&strata), 500, &[1; 32]);
        assert!(low < -0.03 && high > 0.03, "{low} to {high}");
    }

    #[test]
    fn counts_of_outcomes_are_multinomial() {
        // Five draws with chances 2, 2 and 1 of 5: won less lost has 11 values.
        let draws = 100_000;
        let mut expected = BTreeMap::<i128, f64>::new();
        for outcomes in 0..5_u32.pow(5) {
            let difference = (0..5)
                .map(|i| [1, 1, -1, -1, 0][(outcomes / 5_u32.pow(i) % 5) as usize])
                .sum();
            *expected.entry(difference).or_default() += f64::from(draws) / 3125.0;
        }
        let mut found = BTreeMap::<i128, f64>::new();
        for difference in differences(&[stratum(5, 2, 2)], draws as usize, &[3; 32]) {
            *found.entry(difference).or_default() += 1.0;
        }
        assert_eq!(expected.len(), 11);
        let chi: f64 = expected
            .iter()
            .map(|(difference, e)| (found.get(difference).unwrap_or(&0.0) - e).powi(2) / e)
            .sum();
        // 99.9% point of chi-square with 10 degrees of freedom.
        assert!(chi < 29.59, "{chi}");
    }

    #[test]
    fn strata_are_drawn_apart_and_resamples_too() {
        // Independent draws: the variances of the two differences add up.
        let pair = [stratum(100, 50, 50), stratum(100, 50, 50)];
        let all = differences(&pair, 20_000, &[4; 32]);
        let mean_square =
            |d: &[i128]| d.iter().map(|d| (*d * *d) as f64).sum::<f64>() / d.len() as f64;
        // 200, with a standard error of 200 √(2 / 20 000) = 2.
        assert!((mean_square(&all) - 200.0).abs() < 8.0);
        // Neighbouring resamples: their differences have twice the variance.
        let steps: Vec<i128> = all.chunks(2).map(|d| d[0] - d[1]).collect();
        // 400, with a standard error of 400 √(2 / 10 000) = 5.7.
        assert!((mean_square(&steps) - 400.0).abs() < 23.0);
    }

    #[test]
    fn the_number_of_threads_changes_nothing() {
        let strata = [stratum(700, 90, 50), stratum(300, 10, 20)];
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            let pool = pool.build().unwrap();
            pool.install(|| differences(&strata, 700, &[5; 32]))
        };
        let one = with(1);
        assert_eq!(one, with(3));
        assert_eq!(one[..100], differences(&strata, 100, &[5; 32]));
        assert_ne!(one, differences(&strata, 700, &[6; 32]));
    }

    #[test]
    fn nothing_is_known_from_no_images_or_no_resamples() {
        assert_eq!(paired_bootstrap(&[], 100, &[0; 32]), (-1.0, 1.0));
        let empty = stratum(0, 0, 0);
        assert_eq!(paired_bootstrap(&[empty; 3], 100, &[0; 32]), (-1.0, 1.0));
        let some = stratum(10, 3, 2);
        assert_eq!(paired_bootstrap(&[some], 0, &[0; 32]), (-1.0, 1.0));
        assert_eq!(
            paired_bootstrap(&[empty, stratum(10, 0, 0)], 9, &[0; 32]),
            (0.0, 0.0)
        );
    }

    #[test]
    fn extreme_counts_neither_overflow_nor_leave_the_range() {
        let most = stratum(u64::MAX, u64::MAX, 0);
        assert_eq!(paired_bootstrap(&[most; 4], 3, &[0; 32]), (1.0, 1.0));
        // More won and lost than there are images: cut.
        let cut = stratum(1, 1 << 62, 1 << 62);
        assert_eq!(paired_bootstrap(&[cut], 200, &[0; 32]), (-1.0, 1.0));
        assert!(
            differences(&[cut], 200, &[0; 32])
                .iter()
                .all(|d| d.abs() == 1)
        );
        let over = stratum(4, u64::MAX, u64::MAX);
        let (low, high) = paired_bootstrap(&[over], 200, &[0; 32]);
        assert!(-1.0 <= low && low <= high && high <= 1.0);
    }

    #[test]
    fn percentiles_lie_on_the_line_between_neighbours() {
        // numpy.percentile([0, 10, 20, ..., 100], [2.5, 97.5]) is [2.5, 97.5].
        let sorted: Vec<i128> = (0..11).map(|x| 10 * x).collect();
        assert_eq!(percentile(&sorted, 1, 1).to_bits(), 2.5_f64.to_bits());
        assert_eq!(percentile(&sorted, 39, 1).to_bits(), 97.5_f64.to_bits());
        assert_eq!(percentile(&[-3], 39, 6).to_bits(), (-0.5_f64).to_bits());
        let exact: Vec<i128> = (0..41).collect();
        assert_eq!(percentile(&exact, 39, 1).to_bits(), 39.0_f64.to_bits());
    }

    #[test]
    fn coins_are_the_bits_of_the_stream_in_order() {
        let key = [9; 32];
        let mut bytes = [0; 2000];
        blake3::Hasher::new_keyed(&key)
            .update(&7_u64.to_le_bytes())
            .finalize_xof()
            .fill(&mut bytes);
        let bit = |i: usize| u64::from(bytes[i / 8] >> (i % 8) & 1);
        let (mut coins, mut at) = (Coins::new(&key, 7), 0);
        // Over every boundary of words and blocks, at it and off it.
        for n in (0..130).chain([64, 64, 128, 1, 63, 65, 2048, 3000]) {
            let heads: u64 = (at..at + n).map(bit).sum();
            assert_eq!(coins.heads(n as u64), heads, "{n} coins at {at}");
            at += n;
        }
    }

    /// Strata of up to 60 images, often empty or with no or only differences.
    fn any_strata() -> impl Strategy<Value = Vec<Stratum>> {
        let one = (0_u64..60, 0.0..=1.0_f64, 0.0..=1.0_f64).prop_map(|(images, share, split)| {
            let different = ((share * 1.4 - 0.2).clamp(0.0, 1.0) * images as f64) as u64;
            let won = ((split * 1.4 - 0.2).clamp(0.0, 1.0) * different as f64) as u64;
            stratum(images, won, different - won)
        });
        prop::collection::vec(one, 1..5)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn an_interval_is_in_order_in_range_and_the_same_again(
            strata in any_strata(), resamples in 1_usize..200, key in any::<[u8; 32]>(),
        ) {
            let (low, high) = paired_bootstrap(&strata, resamples, &key);
            prop_assert!(-1.0 <= low && low <= high && high <= 1.0);
            prop_assert_eq!(paired_bootstrap(&strata, resamples, &key), (low, high));
            for (stratum, others) in strata.iter().zip(1..) {
                // No class can give more than it has, whatever is drawn.
                let d = differences(&strata[..others], resamples, &key);
                let most: i128 = strata[..others].iter().map(|s| i128::from(s.images)).sum();
                prop_assert!(d.iter().all(|d| d.abs() <= most), "{stratum:?}");
            }
        }

        #[test]
        fn strata_without_variation_only_shift(
            strata in any_strata(), n in 1_u64..100, key in any::<[u8; 32]>(),
        ) {
            let plain = differences(&strata, 50, &key);
            for (extra, shift) in [
                (stratum(0, 0, 0), 0),
                (stratum(n, 0, 0), 0),
                (stratum(n, n, 0), i128::from(n)),
                (stratum(n, 0, n), -i128::from(n)),
            ] {
                let mut more = vec![extra];
                more.extend(&strata);
                let shifted: Vec<i128> = plain.iter().map(|d| d + shift).collect();
                prop_assert_eq!(differences(&more, 50, &key), shifted);
            }
        }
    }
}
