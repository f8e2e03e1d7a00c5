//! From numbers to places on an axis, and the round numbers to write along it.

use super::numbers;

/// An axis: numbers from `low` to `high` lie from pixel `from` to pixel `to`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Scale {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
    log: bool,
}

/// A number with its writing.
pub(super) type Tick = (f64, String);

impl Scale {
    /// A scale over `low` to `high`, which differ; above zero when `log`.
    pub(super) fn new((low, high): (f64, f64), (from, to): (f64, f64), log: bool) -> Self {
        let of = |number: f64| if log { number.log10() } else { number };
        Self {
            low: of(low),
            high: of(high),
            from,
            to,
            log,
        }
    }

    /// The place of a number, never outside the axis.
    pub(super) fn at(&self, number: f64) -> f64 {
        let number = if self.log { number.log10() } else { number };
        let share = ((number - self.low) / (self.high - self.low)).clamp(0.0, 1.0);
        self.from + share * (self.to - self.from)
    }
}

/// Least and largest of `numbers`.
pub(super) fn range(numbers: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    numbers.fold(None, |range, n| match range {
        None => Some((n, n)),
        Some((low, high)) => Some((n.min(low), n.max(high))),
    })
}

/// `low` and `high` moved apart where they are (nearly) equal, by about `share` of their size.
pub(super) fn apart((low, high): (f64, f64), share: f64) -> (f64, f64) {
    let size = low.abs().max(high.abs());
    if high - low > size * 1e-9 && high - low > 1e-90 {
        return (low, high);
    }
    let by = if size > 1e-80 { size * share } else { 1.0 };
    (low - by, high + by)
}

/// A power of ten.
fn ten(power: i32) -> f64 {
    // Parsing rounds correctly, so ticks are the same everywhere.
    format!("1e{power}").parse().unwrap_or(1.0)
}

/// The step of 1, 2 or 5 times a power of ten that divides `span` into about
/// `target` parts, as factor and power.
fn step(span: f64, target: f64) -> (f64, i32) {
    let raw = span / target;
    let mut power = format!("{raw:e}")
        .split_once('e')
        .and_then(|(_, power)| power.parse().ok())
        .unwrap_or(0);
    let lead = raw / ten(power);
    let factor = match lead {
        l if l < 1.5 => 1.0,
        l if l < 3.5 => 2.0,
        l if l < 7.5 => 5.0,
        _ => {
            power += 1;
            1.0
        }
    };
    (factor, power)
}

/// Multiples of a round step between `low` and `high`, about `target` of them;
/// with `whole`, whole numbers only.
pub(super) fn ticks((low, high): (f64, f64), target: f64, whole: bool) -> Vec<Tick> {
    let (factor, power) = match step(high - low, target) {
        (_, power) if whole && power < 0 => (1.0, 0),
        step => step,
    };
    let width = factor * ten(power);
    let (first, last) = (
        (low / width - 1e-9).ceil() as i64,
        (high / width + 1e-9).floor() as i64,
    );
    (first..=last)
        .take(50)
        .map(|i| {
            let number = i as f64 * width;
            (number, write(number, power))
        })
        .collect()
}

/// `low` and `high` moved outwards to the next round numbers, and the ticks between them.
pub(super) fn rounded((low, high): (f64, f64), target: f64) -> ((f64, f64), Vec<Tick>) {
    let (factor, power) = step(high - low, target);
    let width = factor * ten(power);
    let out = (
        (low / width + 1e-9).floor() * width,
        (high / width - 1e-9).ceil() * width,
    );
    (out, ticks(out, (out.1 - out.0) / width, false))
}

fn write(number: f64, power: i32) -> String {
    if number == 0.0 {
        return "0".to_owned();
    }
    if power < -5 || number.abs() >= 1e7 {
        return numbers::scientific(number);
    }
    numbers::fixed(number, (-power).max(0) as usize)
}

/// Round numbers between `low` and `high`, both above zero, for a logarithmic axis.
pub(super) fn log_ticks((low, high): (f64, f64)) -> Vec<Tick> {
    let powers = low.log10().floor() as i32..=high.log10().ceil() as i32;
    let every = (powers.end() - powers.start()) / 9 + 1;
    let of = |factors: &[f64]| -> Vec<Tick> {
        powers
            .clone()
            .filter(|power| power.rem_euclid(every) == 0)
            .flat_map(|power| factors.iter().map(move |f| f * ten(power)))
            .filter(|n| (low * 0.999..=high * 1.001).contains(n))
            .map(|n| (n, numbers::short(n)))
            .collect()
    };
    let tens = of(&[1.0]);
    if tens.len() >= 4 {
        return tens;
    }
    let more = of(&[1.0, 2.0, 5.0]);
    if more.len() >= 2 {
        return more;
    }
    ticks((low, high), 4.0, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(ticks: &[Tick]) -> Vec<&str> {
        ticks.iter().map(|(_, text)| text.as_str()).collect()
    }

    #[test]
    fn ticks_are_round_numbers() {
        assert_eq!(
            written(&ticks((0.0, 1.0), 5.0, false)),
            ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]
        );
        assert_eq!(written(&ticks((-3.0, 12.0), 4.0, false)), ["0", "5", "10"]);
        assert_eq!(
            written(&ticks((0.0, 3.0), 10.0, true)),
            ["0", "1", "2", "3"]
        );
        assert_eq!(
            written(&ticks((0.0, 3e-7), 3.0, false)),
            ["0", "1e-7", "2e-7", "3e-7"]
        );
    }

    #[test]
    fn an_axis_ends_at_round_numbers() {
        let ((low, high), ticks) = rounded((61.3, 70.2), 5.0);
        assert_eq!((low, high), (60.0, 72.0));
        assert_eq!(written(&ticks), ["60", "62", "64", "66", "68", "70", "72"]);
        let ((low, high), _) = rounded((0.0, 10.0), 5.0);
        assert_eq!((low, high), (0.0, 10.0));
    }

    #[test]
    fn logarithmic_ticks_are_powers_or_few_steps_between() {
        assert_eq!(
            written(&log_ticks((3.0, 100.0))),
            ["5", "10", "20", "50", "100"]
        );
        assert_eq!(
            written(&log_ticks((1e-6, 1e-2))),
            ["1e-6", "1e-5", "1e-4", "0.001", "0.01"]
        );
        assert_eq!(written(&log_ticks((31.0, 34.0))), ["31", "32", "33", "34"]);
    }

    #[test]
    fn equal_numbers_are_moved_apart() {
        assert_eq!(apart((5.0, 5.0), 0.1), (4.5, 5.5));
        assert_eq!(apart((0.0, 0.0), 0.1), (-1.0, 1.0));
        assert_eq!(apart((0.0, 2.0), 0.1), (0.0, 2.0));
        let (low, high) = apart((1e-300, 1e-300), 0.1);
        assert!(low < high);
    }

    #[test]
    fn a_scale_goes_from_end_to_end() {
        let log = Scale::new((1.0, 100.0), (0.0, 200.0), true);
        assert!((log.at(10.0) - 100.0).abs() < 1e-9);
        let down = Scale::new((0.0, 4.0), (100.0, 0.0), false);
        assert!((down.at(1.0) - 75.0).abs() < 1e-9);
        assert!((down.at(9.0) - 0.0).abs() < 1e-9, "clamped");
    }
}
