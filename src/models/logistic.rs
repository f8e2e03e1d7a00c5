//! Multinomial logistic regression with an L2 penalty: the optimum that
//! scikit-learn's `LogisticRegression` looks for, with the same bits on every
//! machine and any number of threads.
//!
//! F(W, b) = C · Σᵢ cross entropy(softmax(W xᵢ + b), yᵢ) + ½ ‖W‖², without a
//! penalty on b. This is C · n times what scikit-learn 1.9 minimises, the mean
//! cross entropy + ‖W‖² / (2 · C · n) (`l2_reg_strength = 1 / (C · sw_sum)` in
//! `_logistic.py`); the optimum is the same. Two classes have one vector of weights
//! whose logit is the second class's, as there (`HalfBinomialLoss`); only classes
//! that occur among the labels are fitted.
//!
//! The search takes place over features less their mean, which moves b and nothing
//! else because b is free, but spares L-BFGS the long way along a mean that all
//! rows share, as embeddings do. F has a curvature of at least 1 along W, so that
//! W is at most the length of the gradient away from the optimum.

mod lbfgs;
mod products;
mod softmax;

use anyhow::{Result, ensure};
use rayon::prelude::*;

use self::{
    lbfgs::{Memory, line_search},
    products::{accumulate, product},
    softmax::residuals,
};

/// Most parts that sums over rows are made of; each is one task of a thread.
const PARTS: usize = 32;
/// Fewest rows of a part.
const LEAST: usize = 256;
/// Rows whose logits are computed at once.
const BLOCK: usize = 96;

/// What to fit; see the module's text for the objective.
#[derive(Clone, Copy, Debug)]
pub struct LogisticRegression {
    /// Weight of the cross entropies against the penalty: scikit-learn's `C`.
    pub c: f64,
    /// Most steps of L-BFGS.
    pub max_iterations: usize,
    /// Largest absolute entry of F's gradient at which the optimum is reached.
    /// scikit-learn's `tol` bounds that gradient divided by C · n.
    pub tolerance: f64,
}

/// How a search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The gradient is as small as was asked for.
    Converged,
    /// All steps were taken before that.
    OutOfIterations,
    /// Rounding left no step that goes down.
    OutOfPrecision,
    /// Somebody wanted it to stop.
    Stopped,
}

/// Weights that were found.
#[derive(Clone, Debug)]
pub struct Fit {
    /// The classes among the labels, ascending.
    pub classes: Vec<usize>,
    /// `[m, dim]`, row-major: m is the number of classes, or 1 if there are two.
    pub weights: Vec<f64>,
    /// `[m]`. With three or more classes their sum is 0.
    pub intercepts: Vec<f64>,
    /// Steps taken.
    pub iterations: usize,
    /// Largest absolute entry of F's gradient.
    pub gradient: f64,
    /// Why it ended there.
    pub ending: Ending,
}

impl LogisticRegression {
    /// Fits `data`, `[n, dim]` row-major, to the class of each row, from W = 0.
    ///
    /// `progress` is told the number of steps taken and the gradient's largest entry,
    /// `stop` is asked, before each step. For m logits a row this takes about
    /// 16 · n · m bytes, and as many as 92 points of m · (dim + 1) numbers.
    ///
    /// # Errors
    /// When `c` is not above 0, sizes do not agree, a number is not finite, or
    /// there are fewer than two classes.
    pub fn fit(
        &self,
        data: &[f32],
        dim: usize,
        labels: &[usize],
        progress: &dyn Fn(usize, f64),
        stop: &dyn Fn() -> bool,
    ) -> Result<Fit> {
        let (problem, classes) = Problem::new(self.c, data, dim, labels)?;
        let mut point = vec![0.0; problem.m * (dim + 1)];
        let mut logits = vec![0.0; problem.m * labels.len()];
        let mut gradient = problem.gradient(&point, &logits);
        let mut memory = Memory::default();
        let mut iterations = 0;
        let ending = loop {
            let norm = problem.norm(&gradient);
            progress(iterations, norm);
            if norm <= self.tolerance {
                break Ending::Converged;
            }
            if iterations == self.max_iterations {
                break Ending::OutOfIterations;
            }
            if stop() {
                break Ending::Stopped;
            }
            let mut direction = memory.direction(&gradient);
            let mut change = problem.logits(&direction);
            let start = dot(&gradient, &direction);
            let slope = |step| problem.slope((&point, &logits), (&direction, &change), step);
            let Some(step) = line_search(start, slope) else {
                break Ending::OutOfPrecision;
            };
            scale(&mut direction, step);
            scale(&mut change, step);
            add(&mut point, &direction);
            add(&mut logits, &change);
            let before = std::mem::replace(&mut gradient, problem.gradient(&point, &logits));
            let bend = gradient.iter().zip(before).map(|(a, b)| a - b).collect();
            memory.push(direction, bend);
            iterations += 1;
        };
        let gradient = problem.norm(&gradient);
        let intercepts = problem.intercepts(&point);
        point.truncate(problem.m * dim);
        Ok(Fit {
            classes,
            weights: point,
            intercepts,
            iterations,
            gradient,
            ending,
        })
    }
}

impl Fit {
    /// Logits of `data`, `[n, dim]` row-major, for classes `0..classes`: `[n, classes]`.
    /// A class that had no row has a logit of −∞.
    ///
    /// # Panics
    /// When a fitted class is not among `classes`, or `data` has rows of another length.
    pub fn logits(&self, data: &[f32], classes: usize) -> Vec<f64> {
        let m = self.intercepts.len();
        let dim = self.weights.len() / m;
        assert_eq!(data.len() % dim, 0, "rows have another length");
        let mut out = vec![f64::NEG_INFINITY; data.len() / dim * classes];
        out.par_chunks_mut(BLOCK * classes)
            .zip(data.par_chunks(BLOCK * dim))
            .for_each(|(out, rows)| {
                let mut fitted = vec![0.0; rows.len() / dim * m];
                product(rows, &self.weights, dim, &mut fitted);
                for (out, fitted) in out.chunks_mut(classes).zip(fitted.chunks(m)) {
                    if m == 1 {
                        out[self.classes[0]] = 0.0;
                    }
                    let fitted_classes = &self.classes[self.classes.len() - m..];
                    for (c, class) in fitted_classes.iter().enumerate() {
                        out[*class] = fitted[c] + self.intercepts[c];
                    }
                }
            });
        out
    }
}

/// The objective over points: weights `[m, dim]`, then m intercepts of centred features.
struct Problem<'a> {
    c: f64,
    data: &'a [f32],
    dim: usize,
    /// Position of each row's class.
    labels: Vec<usize>,
    /// Logits of a row: the number of classes, or 1 if there are two.
    m: usize,
    /// Mean of each feature.
    mean: Vec<f64>,
}

impl<'a> Problem<'a> {
    /// The problem and its classes, ascending.
    fn new(c: f64, data: &'a [f32], dim: usize, labels: &[usize]) -> Result<(Self, Vec<usize>)> {
        ensure!(c > 0.0 && c.is_finite(), "`C` is {c}, but must be above 0");
        ensure!(dim > 0, "rows have no feature");
        ensure!(
            data.len() == labels.len() * dim,
            "there are {} numbers for {} rows of {dim}",
            data.len(),
            labels.len()
        );
        ensure!(
            data.iter().all(|x| x.is_finite()),
            "a feature is not finite"
        );
        let mut classes = labels.to_vec();
        classes.sort_unstable();
        classes.dedup();
        ensure!(
            classes.len() > 1,
            "a classifier needs rows of at least two classes"
        );
        let labels: Vec<usize> = labels
            .iter()
            .map(|label| classes.partition_point(|class| class < label))
            .collect();
        let m = if classes.len() == 2 { 1 } else { classes.len() };
        let mut problem = Self {
            c,
            data,
            dim,
            labels,
            m,
            mean: Vec::new(),
        };
        let share = vec![1.0 / problem.labels.len() as f64; BLOCK];
        problem.mean = problem.over_parts(dim, |rows, _, sum| {
            for block in rows.chunks(BLOCK * dim) {
                accumulate(block, &share[..block.len() / dim], dim, sum);
            }
        });
        Ok((problem, classes))
    }

    /// Rows of a part, which depends on nothing but their number.
    fn part(&self) -> usize {
        self.labels.len().div_ceil(PARTS).max(LEAST)
    }

    /// Adds up what `work` adds for the rows of each part, their first row's index
    /// given. Parts are summed in their order, whoever finishes first.
    fn over_parts(
        &self,
        width: usize,
        work: impl Fn(&[f32], usize, &mut [f64]) + Sync,
    ) -> Vec<f64> {
        let part = self.part();
        let sums: Vec<Vec<f64>> = self
            .data
            .par_chunks(part * self.dim)
            .enumerate()
            .map(|(i, rows)| {
                let mut sum = vec![0.0; width];
                work(rows, i * part, &mut sum);
                sum
            })
            .collect();
        let mut total = vec![0.0; width];
        for sum in &sums {
            add(&mut total, sum);
        }
        total
    }

    /// Logits `[n, m]` at `point`.
    fn logits(&self, point: &[f64]) -> Vec<f64> {
        let (weights, _) = point.split_at(self.m * self.dim);
        let intercepts = self.intercepts(point);
        let mut out = vec![0.0; self.labels.len() * self.m];
        out.par_chunks_mut(BLOCK * self.m)
            .zip(self.data.par_chunks(BLOCK * self.dim))
            .for_each(|(out, rows)| {
                product(rows, weights, self.dim, out);
                for row in out.chunks_mut(self.m) {
                    add(row, &intercepts);
                }
            });
        out
    }

    /// Intercepts for features that are not centred.
    fn intercepts(&self, point: &[f64]) -> Vec<f64> {
        let (weights, intercepts) = point.split_at(self.m * self.dim);
        weights
            .chunks(self.dim)
            .zip(intercepts)
            .map(|(row, intercept)| intercept - dot(row, &self.mean))
            .collect()
    }

    /// F's gradient at `point`, whose logits are known.
    fn gradient(&self, point: &[f64], logits: &[f64]) -> Vec<f64> {
        let (m, dim) = (self.m, self.dim);
        let mut gradient = self.over_parts(point.len(), |rows, first, sum| {
            let (weights, intercepts) = sum.split_at_mut(m * dim);
            let logits = logits[first * m..].chunks(BLOCK * m);
            let blocks = logits.zip(self.labels[first..].chunks(BLOCK));
            for (rows, (logits, labels)) in rows.chunks(BLOCK * dim).zip(blocks) {
                let n = rows.len() / dim;
                let mut factors = logits[..n * m].to_vec();
                residuals(&mut factors, m, &labels[..n]);
                scale(&mut factors, self.c);
                for row in factors.chunks(m) {
                    add(intercepts, row);
                }
                accumulate(rows, &factors, dim, weights);
            }
        });
        let (weights, intercepts) = gradient.split_at_mut(m * dim);
        for (row, total) in weights.chunks_mut(dim).zip(intercepts) {
            for (x, mean) in row.iter_mut().zip(&self.mean) {
                *x -= *total * mean;
            }
        }
        add(weights, &point[..m * dim]);
        gradient
    }

    /// The largest absolute entry of the gradient, for features that are not centred.
    fn norm(&self, gradient: &[f64]) -> f64 {
        let (weights, intercepts) = gradient.split_at(self.m * self.dim);
        let mut norm = intercepts.iter().fold(0.0_f64, |norm, x| norm.max(x.abs()));
        for (row, total) in weights.chunks(self.dim).zip(intercepts) {
            for (x, mean) in row.iter().zip(&self.mean) {
                norm = norm.max((x + total * mean).abs());
            }
        }
        norm
    }

    /// F's slope along (direction, its change of the logits), `step` of them away
    /// from (point, its logits).
    fn slope(&self, from: (&[f64], &[f64]), along: (&[f64], &[f64]), step: f64) -> f64 {
        let size = self.part() * self.m;
        let parts: Vec<f64> = from
            .1
            .par_chunks(size)
            .zip(along.1.par_chunks(size))
            .zip(self.labels.par_chunks(self.part()))
            .map(|((logits, change), labels)| {
                let mut slope = 0.0;
                let size = BLOCK * self.m;
                let blocks = logits.chunks(size).zip(change.chunks(size));
                for ((logits, change), labels) in blocks.zip(labels.chunks(BLOCK)) {
                    let moved = logits
                        .iter()
                        .zip(change)
                        .map(|(x, change)| x + step * change);
                    let mut moved: Vec<f64> = moved.collect();
                    residuals(&mut moved, self.m, labels);
                    slope += dot(&moved, change);
                }
                slope
            })
            .collect();
        let weights = self.m * self.dim;
        let (point, direction) = (&from.0[..weights], &along.0[..weights]);
        let penalty = dot(point, direction) + step * dot(direction, direction);
        self.c * parts.iter().sum::<f64>() + penalty
    }
}

/// The sum of products, each fourth of them in a sum of its own.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let (a, b) = (a.as_chunks::<4>(), b.as_chunks::<4>());
    let mut sums = [0.0; 4];
    for (a, b) in a.0.iter().zip(b.0) {
        for lane in 0..4 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f64 = a.1.iter().zip(b.1).map(|(a, b)| a * b).sum();
    ((sums[0] + sums[2]) + (sums[1] + sums[3])) + rest
}

fn scale(numbers: &mut [f64], factor: f64) {
    for x in numbers {
        *x *= factor;
    }
}

fn add(sum: &mut [f64], more: &[f64]) {
    for (sum, x) in sum.iter_mut().zip(more) {
        *sum += x;
    }
}

#[cfg(test)]
mod tests {
    use safetensors::SafeTensors;
    use serde_json::Value;

    use super::*;

    const FIT: LogisticRegression = LogisticRegression {
        c: 1.0,
        max_iterations: 10_000,
        tolerance: 1e-8,
    };

    /// A problem with scikit-learn's answer, by `tests/fixtures/probe/make.py`.
    struct Case {
        name: String,
        c: f64,
        classes: Vec<usize>,
        dim: usize,
        x: Vec<f32>,
        y: Vec<usize>,
        test: Vec<f32>,
        weights: Vec<f64>,
        intercepts: Vec<f64>,
        probabilities: Vec<f64>,
        predictions: Vec<usize>,
    }

    fn cases() -> Vec<Case> {
        let list: Value =
            serde_json::from_str(include_str!("../../tests/fixtures/probe/probe.json")).unwrap();
        let bytes = include_bytes!("../../tests/fixtures/probe/probe.safetensors");
        let tensors = SafeTensors::deserialize(bytes).unwrap();
        let cases = list["cases"].as_array().unwrap();
        cases
            .iter()
            .map(|case| {
                let name = case["name"].as_str().unwrap();
                let tensor = |part: &str| tensors.tensor(&format!("{name}.{part}")).unwrap();
                let f32s = |part| {
                    let words = tensor(part).data().as_chunks::<4>().0;
                    words.iter().map(|b| f32::from_le_bytes(*b)).collect()
                };
                let f64s = |part| {
                    let words = tensor(part).data().as_chunks::<8>().0;
                    words.iter().map(|b| f64::from_le_bytes(*b)).collect()
                };
                let integers = |part| {
                    let words = tensor(part).data().as_chunks::<8>().0;
                    words
                        .iter()
                        .map(|b| usize::try_from(i64::from_le_bytes(*b)).unwrap())
                        .collect()
                };
                let classes = case["classes"].as_array().unwrap();
                Case {
                    name: name.to_owned(),
                    c: case["c"].as_f64().unwrap(),
                    classes: classes
                        .iter()
                        .map(|class| class.as_u64().unwrap() as usize)
                        .collect(),
                    dim: tensor("x").shape()[1],
                    x: f32s("x"),
                    y: integers("y"),
                    test: f32s("test"),
                    weights: f64s("weights"),
                    intercepts: f64s("intercepts"),
                    probabilities: f64s("probabilities"),
                    predictions: integers("predictions"),
                }
            })
            .collect()
    }

    impl Case {
        fn fit(&self, regression: LogisticRegression) -> Fit {
            regression
                .fit(&self.x, self.dim, &self.y, &|_, _| {}, &|| false)
                .unwrap()
        }

        /// The largest difference from scikit-learn's weights and intercepts, relative
        /// to the largest of each.
        fn apart(&self, fit: &Fit) -> f64 {
            let apart = |a: &[f64], b: &[f64]| {
                let size = b.iter().fold(0.0_f64, |m, x| m.max(x.abs()));
                let most = a.iter().zip(b).map(|(a, b)| (a - b).abs());
                assert_eq!(a.len(), b.len());
                most.fold(0.0, f64::max) / size
            };
            apart(&fit.weights, &self.weights).max(apart(&fit.intercepts, &self.intercepts))
        }
    }

    #[test]
    fn weights_and_predictions_are_those_of_scikit_learn() {
        let cases = cases();
        assert!(cases.len() > 10);
        for case in cases {
            let fit = case.fit(LogisticRegression { c: case.c, ..FIT });
            assert_eq!(fit.ending, Ending::Converged, "{}", case.name);
            assert!(fit.gradient <= FIT.tolerance, "{}", case.name);
            assert_eq!(fit.classes, case.classes, "{}", case.name);
            let apart = case.apart(&fit);
            assert!(apart < 1e-5, "{}: {apart:e}", case.name);
            // Each weight by itself, unless it is tiny beside the others.
            for (ours, theirs) in fit.weights.iter().zip(&case.weights) {
                let bound = 1e-5 * theirs.abs().max(1e-3);
                assert!(
                    (ours - theirs).abs() < bound,
                    "{}: {ours} {theirs}",
                    case.name
                );
            }

            let classes = fit.classes.last().unwrap() + 2;
            let logits = fit.logits(&case.test, classes);
            let rows = logits.chunks(classes);
            assert_eq!(rows.len(), case.predictions.len());
            let theirs = case.probabilities.chunks(case.classes.len());
            for ((row, theirs), prediction) in rows.zip(theirs).zip(&case.predictions) {
                let best = (0..classes).max_by(|a, b| row[*a].total_cmp(&row[*b]));
                assert_eq!(best, Some(*prediction), "{}", case.name);
                let total: f64 = row.iter().map(|x| (x - row[*prediction]).exp()).sum();
                let share = |class: usize| (row[class] - row[*prediction]).exp() / total;
                for (class, theirs) in case.classes.iter().zip(theirs) {
                    assert!((share(*class) - theirs).abs() < 1e-6, "{}", case.name);
                }
                let missing = (0..classes).filter(|class| !case.classes.contains(class));
                assert!(
                    missing
                        .into_iter()
                        .all(|class| row[class] == f64::NEG_INFINITY)
                );
            }
        }
    }

    /// The largest entry of a gradient in plain loops: `factor` · Σ cross entropies
    /// + ½ ‖W‖², and ½ ‖b‖² if `penalised`.
    fn plain_gradient(case: &Case, factor: f64, penalised: bool) -> f64 {
        let (m, dim) = (case.intercepts.len(), case.dim);
        let mut gradient = case.weights.clone();
        let mut free = vec![0.0; m];
        if penalised {
            free.clone_from(&case.intercepts);
        }
        for (row, label) in case.x.chunks(dim).zip(&case.y) {
            let mut logits = vec![0.0; m];
            for (j, logit) in logits.iter_mut().enumerate() {
                let weights = &case.weights[j * dim..(j + 1) * dim];
                let terms = weights.iter().zip(row).map(|(w, x)| w * f64::from(*x));
                *logit = terms.sum::<f64>() + case.intercepts[j];
            }
            if m == 1 {
                logits.insert(0, 0.0);
            }
            let total: f64 = logits.iter().map(|x| x.exp()).sum();
            let first = logits.len() - m;
            for j in 0..m {
                let own = case.classes[first + j] == *label;
                let residual = logits[first + j].exp() / total - f64::from(u8::from(own));
                free[j] += factor * residual;
                for (g, x) in gradient[j * dim..].iter_mut().zip(row) {
                    *g += factor * residual * f64::from(*x);
                }
            }
        }
        gradient
            .iter()
            .chain(&free)
            .fold(0.0, |m, x| m.max(x.abs()))
    }

    #[test]
    fn no_other_scale_of_c_and_no_penalty_on_the_intercept_gives_scikit_learns_weights() {
        for case in cases() {
            let n = case.y.len() as f64;
            let at_optimum = plain_gradient(&case, case.c, false);
            assert!(at_optimum < 1e-7, "{}: {at_optimum:e}", case.name);
            for factor in [case.c / n, case.c * n, 2.0 * case.c, 0.5 * case.c] {
                assert!(plain_gradient(&case, factor, false) > 1e-3, "{}", case.name);
            }
            for factor in [case.c / n, 0.5 * case.c] {
                let fit = case.fit(LogisticRegression { c: factor, ..FIT });
                assert!(case.apart(&fit) > 1e-3, "{}", case.name);
            }
            let penalised = plain_gradient(&case, case.c, true);
            assert!(penalised > 1e-3, "{}: {penalised:e}", case.name);
        }
    }

    #[test]
    fn moving_all_rows_moves_the_intercept_and_nothing_else() {
        for case in cases().iter().filter(|case| case.name == "three") {
            let plain = case.fit(LogisticRegression { c: case.c, ..FIT });
            // Halves and whole numbers, which f32 holds next to the data's digits.
            let round = |x: &f32| (x * 1024.0).round() / 1024.0;
            let data: Vec<f32> = case.x.iter().map(round).collect();
            let moved: Vec<f32> = data.iter().map(|x| x + 300.5).collect();
            let fit = |data: &[f32]| {
                let regression = LogisticRegression { c: case.c, ..FIT };
                let quiet = (&|_, _| {}, &|| false);
                regression
                    .fit(data, case.dim, &case.y, quiet.0, quiet.1)
                    .unwrap()
            };
            let (here, there) = (fit(&data), fit(&moved));
            assert!(here.weights != plain.weights);
            for (a, b) in here.weights.iter().zip(&there.weights) {
                assert!((a - b).abs() < 1e-8, "{a} {b}");
            }
            for (j, weights) in here.weights.chunks(case.dim).enumerate() {
                let back = there.intercepts[j] + 300.5 * weights.iter().sum::<f64>();
                assert!((back - here.intercepts[j]).abs() < 1e-5);
            }
        }
    }

    /// More rows than one part and one block, of a width that no lane divides.
    fn many(classes: usize) -> (Vec<f32>, usize, Vec<usize>) {
        let (n, dim) = (1500, 19);
        let number = |i: usize| ((i * 7919 + i * i % 1013) % 1000) as f32 / 500.0 - 1.0;
        let labels: Vec<usize> = (0..n).map(|i| i * i % 31 % classes).collect();
        let lift = |i: usize| if i % dim == labels[i / dim] { 0.5 } else { 0.0 };
        (
            (0..n * dim).map(|i| number(i) + lift(i)).collect(),
            dim,
            labels,
        )
    }

    #[test]
    fn the_bits_are_the_same_with_any_number_of_threads() {
        for classes in [2, 3, 10] {
            let (data, dim, labels) = many(classes);
            let with = |threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
                pool.unwrap().install(|| {
                    let fit = FIT.fit(&data, dim, &labels, &|_, _| {}, &|| false).unwrap();
                    let logits = fit.logits(&data, classes);
                    let numbers = fit.weights.iter().chain(&fit.intercepts).chain(&logits);
                    (
                        fit.iterations,
                        numbers.map(|x| x.to_bits()).collect::<Vec<_>>(),
                    )
                })
            };
            let one = with(1);
            assert!(one.0 > 5);
            assert_eq!(one, with(2));
            assert_eq!(one, with(7));
        }
    }

    #[test]
    fn the_gradient_and_the_slope_are_those_of_the_logits() {
        for classes in [2, 5] {
            let (data, dim, labels) = many(classes);
            let (problem, _) = Problem::new(0.7, &data, dim, &labels).unwrap();
            let wave = |i: usize| ((i * 37 % 11) as f64 - 5.0) / 10.0;
            let size = problem.m * (dim + 1);
            let point: Vec<f64> = (0..size).map(wave).collect();
            let way: Vec<f64> = (0..size).map(|i| wave(i * i + 3)).collect();
            let (logits, change) = (problem.logits(&point), problem.logits(&way));
            // Cross entropies and penalty, in plain loops.
            let value = |step: f64| -> f64 {
                let at: Vec<f64> = point.iter().zip(&way).map(|(p, w)| p + step * w).collect();
                let weights = &at[..problem.m * dim];
                let losses = problem.logits(&at);
                let losses = losses
                    .chunks(problem.m)
                    .zip(&problem.labels)
                    .map(|(row, label)| {
                        let mut row = row.to_vec();
                        if row.len() == 1 {
                            row.insert(0, 0.0);
                        }
                        row.iter().map(|x| x.exp()).sum::<f64>().ln() - row[*label]
                    });
                0.7 * losses.sum::<f64>() + 0.5 * weights.iter().map(|w| w * w).sum::<f64>()
            };
            for step in [0.0, 0.4] {
                let h = 1e-5;
                let numeric = (value(step + h) - value(step - h)) / (2.0 * h);
                let slope = problem.slope((&point, &logits), (&way, &change), step);
                assert!(
                    (slope - numeric).abs() < 1e-6 * numeric.abs(),
                    "{slope} {numeric}"
                );
            }
            let gradient = problem.gradient(&point, &logits);
            let slope = problem.slope((&point, &logits), (&way, &change), 0.0);
            assert!((dot(&gradient, &way) - slope).abs() < 1e-9 * slope.abs());
        }
    }

    #[test]
    fn a_search_that_is_cut_short_says_so() {
        let (data, dim, labels) = many(3);
        let few = LogisticRegression {
            max_iterations: 2,
            ..FIT
        };
        let seen = std::cell::RefCell::new(Vec::new());
        let fit = few
            .fit(
                &data,
                dim,
                &labels,
                &|step, norm| seen.borrow_mut().push((step, norm)),
                &|| false,
            )
            .unwrap();
        assert_eq!((fit.ending, fit.iterations), (Ending::OutOfIterations, 2));
        let seen = seen.into_inner();
        assert_eq!(seen.iter().map(|s| s.0).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(seen[2].1.to_bits(), fit.gradient.to_bits());
        let calls = std::cell::Cell::new(0);
        let stop = || calls.replace(calls.get() + 1) == 3;
        let fit = FIT.fit(&data, dim, &labels, &|_, _| {}, &stop).unwrap();
        assert_eq!((fit.ending, fit.iterations), (Ending::Stopped, 3));
        let exact = LogisticRegression {
            tolerance: 0.0,
            ..FIT
        };
        let fit = exact
            .fit(&data, dim, &labels, &|_, _| {}, &|| false)
            .unwrap();
        assert_ne!(fit.ending, Ending::Stopped);
        assert!(fit.gradient < 1e-9, "{:e}", fit.gradient);
    }

    #[test]
    fn problems_without_a_sense_are_refused() {
        let error = |c: f64, data: &[f32], dim, labels: &[usize]| {
            let regression = LogisticRegression { c, ..FIT };
            let fit = regression.fit(data, dim, labels, &|_, _| {}, &|| false);
            fit.unwrap_err().to_string()
        };
        assert_eq!(
            error(0.0, &[1.0, 2.0], 1, &[0, 1]),
            "`C` is 0, but must be above 0"
        );
        assert_eq!(
            error(f64::NAN, &[1.0], 1, &[0]),
            "`C` is NaN, but must be above 0"
        );
        assert_eq!(
            error(1.0, &[1.0; 3], 2, &[0, 1]),
            "there are 3 numbers for 2 rows of 2"
        );
        assert_eq!(
            error(1.0, &[1.0, f32::NAN], 1, &[0, 1]),
            "a feature is not finite"
        );
        assert_eq!(
            error(1.0, &[1.0, 2.0], 1, &[4, 4]),
            "a classifier needs rows of at least two classes"
        );
        assert_eq!(error(1.0, &[], 0, &[]), "rows have no feature");
    }

    #[test]
    fn features_that_say_nothing_leave_the_frequencies_of_the_classes() {
        let labels = [0, 0, 0, 1, 1, 2];
        let fit = FIT
            .fit(&[2.0; 12], 2, &labels, &|_, _| {}, &|| false)
            .unwrap();
        assert!(fit.weights.iter().all(|w| w.abs() < 1e-8));
        let logits = fit.logits(&[2.0, 2.0], 3);
        let shares: Vec<f64> = logits.iter().map(|x| x.exp()).collect();
        let total: f64 = shares.iter().sum();
        for (share, expected) in shares.iter().zip([3.0, 2.0, 1.0]) {
            assert!((share / total - expected / 6.0).abs() < 1e-8);
        }
    }
}
