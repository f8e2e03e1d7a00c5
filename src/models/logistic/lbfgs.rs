//! L-BFGS: the limited memory (Nocedal and Wright, "Numerical Optimization", 2nd
//! edition, algorithms 7.4 and 7.5) and a line search for convex functions.

use std::collections::VecDeque;

use super::{dot, scale};

/// Steps that are remembered.
const STEPS: usize = 30;
/// A step is long enough when the slope is at most this share of that at its start
/// (c₂ in Nocedal and Wright's curvature condition 3.6b).
const CURVATURE: f64 = 0.1;
/// Steps that a line search tries.
const TRIES: usize = 60;

/// One step with the change of the gradient along it.
struct Step {
    /// s.
    way: Vec<f64>,
    /// y.
    bend: Vec<f64>,
    /// sᵀy.
    product: f64,
}

/// The last steps, which stand for the Hessian.
#[derive(Default)]
pub(super) struct Memory {
    steps: VecDeque<Step>,
}

impl Memory {
    /// Where to go from a point with this gradient: −H∇F, by the two-loop recursion.
    pub(super) fn direction(&self, gradient: &[f64]) -> Vec<f64> {
        let mut q: Vec<f64> = gradient.iter().map(|x| -x).collect();
        let mut shares = Vec::with_capacity(self.steps.len());
        for step in self.steps.iter().rev() {
            let share = dot(&step.way, &q) / step.product;
            add_times(&mut q, -share, &step.bend);
            shares.push(share);
        }
        // Before any step H is taken for γ times the identity, γ = sᵀy / yᵀy (7.20).
        if let Some(last) = self.steps.back() {
            scale(&mut q, last.product / dot(&last.bend, &last.bend));
        }
        for (step, share) in self.steps.iter().zip(shares.iter().rev()) {
            let back = dot(&step.bend, &q) / step.product;
            add_times(&mut q, share - back, &step.way);
        }
        q
    }

    /// Remembers a step and the gradient's change along it; forgets the oldest. A
    /// step along which rounding hides the curvature is not remembered.
    pub(super) fn push(&mut self, way: Vec<f64>, bend: Vec<f64>) {
        let product = dot(&way, &bend);
        if product.is_nan() || product <= 0.0 {
            return;
        }
        if self.steps.len() == STEPS {
            self.steps.pop_front();
        }
        self.steps.push_back(Step { way, bend, product });
    }
}

fn add_times(sum: &mut [f64], factor: f64, more: &[f64]) {
    for (sum, x) in sum.iter_mut().zip(more) {
        *sum += factor * x;
    }
}

/// A step of a convex function along a line, of which only slopes are asked: `start`
/// at 0, which is negative, and `slope` at any step.
///
/// The slope rises along the line, so a step where it is still not above 0 has
/// gone down all the way, and one where it is at least `CURVATURE · start` has
/// gone far enough. This does the work of the strong Wolfe conditions (formula 3.7)
/// without function values, which near the optimum differ only in their last bits.
/// `None` when rounding leaves no such step.
pub(super) fn line_search(start: f64, slope: impl Fn(f64) -> f64) -> Option<f64> {
    if start.is_nan() || start >= 0.0 {
        return None;
    }
    // Aims at the middle of what is accepted.
    let target = 0.5 * CURVATURE * start;
    let mut low = (0.0, start);
    let mut high: Option<(f64, f64)> = None;
    let mut step = 1.0;
    for tried in 0..TRIES {
        let found = slope(step);
        if found.is_nan() || found > 0.0 {
            high = Some((step, found));
        } else if found >= CURVATURE * start {
            return Some(step);
        } else {
            low = (step, found);
        }
        step = match high {
            None => {
                let share = (start - target) / (start - low.1).min(-0.0);
                low.0 * share.clamp(1.5, 10.0)
            }
            Some(high) => {
                // A straight line between both ends; every other time the middle,
                // for slopes that are far from straight.
                let share = (target - low.1) / (high.1 - low.1);
                let share = match tried % 2 {
                    0 if share.is_finite() => share.clamp(0.05, 0.95),
                    _ => 0.5,
                };
                low.0 + share * (high.0 - low.0)
            }
        };
    }
    (low.0 > 0.0).then_some(low.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quadratic_is_solved_in_as_many_steps_as_it_has_axes() {
        let curvature = [1.0, 30.0, 0.02, 7.0];
        let goal = [1.0, -2.0, 5.0, 0.5];
        let slope =
            |x: &[f64]| -> Vec<f64> { (0..4).map(|i| curvature[i] * (x[i] - goal[i])).collect() };
        let mut memory = Memory::default();
        let mut point = vec![0.0; 4];
        for _ in 0..4 {
            let gradient = slope(&point);
            let mut way = memory.direction(&gradient);
            // The exact step.
            let bent: f64 = (0..4).map(|i| curvature[i] * way[i] * way[i]).sum();
            let step = -dot(&gradient, &way) / bent;
            scale(&mut way, step);
            add_times(&mut point, 1.0, &way);
            let bend = slope(&point)
                .iter()
                .zip(gradient)
                .map(|(a, b)| a - b)
                .collect();
            memory.push(way, bend);
        }
        for (x, goal) in point.iter().zip(goal) {
            assert!((x - goal).abs() < 1e-9, "{point:?}");
        }
    }

    #[test]
    fn a_line_search_ends_just_before_the_lowest_point() {
        // Slopes of convex functions with lowest points near and far, smooth and kinked.
        let lines: [(&dyn Fn(f64) -> f64, f64); 5] = [
            (&|x| x - 1.0, 1.0),
            (&|x| 1e-3 * x - 1e3, 1e6),
            (&|x| 1e9 * x - 1.0, 1e-9),
            (&|x| if x < 4.0 { -1.0 + 0.001 * x } else { 1e6 }, 4.0),
            (&|x| (x - 20.0).exp() - 1.0, 20.0),
        ];
        for (i, (slope, lowest)) in lines.into_iter().enumerate() {
            let step = line_search(slope(0.0), slope).unwrap();
            assert!(slope(step) <= 0.0, "line {i}: {step}");
            assert!(step > 0.85 * lowest && step <= lowest, "line {i}: {step}");
        }
        assert_eq!(line_search(0.0, |x| x), None);
        assert_eq!(line_search(f64::NAN, |x| x), None);
        assert_eq!(line_search(-1.0, |_| 1.0), None, "nothing goes down");
    }

    #[test]
    fn only_the_last_steps_are_remembered_and_only_those_that_bend() {
        let mut memory = Memory::default();
        memory.push(vec![1.0], vec![0.0]);
        memory.push(vec![1.0], vec![-1.0]);
        assert!(memory.steps.is_empty());
        for _ in 0..STEPS + 5 {
            memory.push(vec![1.0], vec![2.0]);
        }
        assert_eq!(memory.steps.len(), STEPS);
    }
}
