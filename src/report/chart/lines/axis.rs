//! The horizontal axis of a line chart: where points stand, and what is written below.

use super::{
    super::{
        Lines, X,
        canvas::{Anchor, Canvas},
        drawable, numbers,
        scale::{Scale, Tick, apart, log_ticks, range, ticks},
        text::{LINE, cut_middle, width, wrap},
    },
    Line,
};

/// The longest slanted name.
const LONGEST: f64 = 150.0;

/// Sine and cosine of the angle of slanted names, 40°.
const SLANT: (f64, f64) = (0.643, 0.766);

/// A horizontal axis with its place.
pub(super) struct Axis {
    left: f64,
    right: f64,
    place: Place,
    labels: Labels,
}

enum Place {
    Numbers(Scale),
    /// Words in fields of equal width.
    Words {
        field: f64,
    },
}

enum Labels {
    /// Numbers with their places.
    Numbers(Vec<Tick>),
    /// Words in a few lines each.
    Level(Vec<Vec<String>>),
    /// Every so many words, slanted.
    Slanted { words: Vec<String>, every: usize },
}

impl Axis {
    /// The axis of a drawing; `from` is left of the plot, `to` the drawing's right end.
    pub(super) fn new(chart: &Lines, lines: &[Line<'_>], (from, to): (f64, f64)) -> Self {
        match &chart.x {
            X::Numbers => Self::numbers(chart, lines, (from, to)),
            X::Words(words) => Self::words(words, (from, to)),
        }
    }

    fn numbers(chart: &Lines, lines: &[Line<'_>], (from, to): (f64, f64)) -> Self {
        let mut all: Vec<f64> = lines
            .iter()
            .flat_map(|line| line.points.iter().map(|p| p.x))
            .filter(|x| drawable(*x))
            .collect();
        all.sort_by(f64::total_cmp);
        all.dedup();
        let ends = range(all.iter().copied()).unwrap_or((1.0, 1.0));
        let ends = if chart.x_log {
            let (low, high) = if ends.1 / ends.0 > 1.001 {
                ends
            } else {
                (ends.0 / 2.0, ends.1 * 2.0)
            };
            // Three hundredths of the axis on either side.
            let air = (high / low).powf(0.03);
            (low / air, high * air)
        } else {
            let (low, high) = apart(ends, 0.2);
            let air = (high - low) * 0.03;
            (low - air, high + air)
        };
        let whole = all.iter().all(|x| x.fract() == 0.0);
        let exact = exact(&all, chart.x_log);
        let place = |left: f64, right: f64| {
            let scale = Scale::new(ends, (left, right), chart.x_log);
            if exact.len() > 1 && fits(&exact, &scale) {
                return (scale, exact.clone());
            }
            if let [only] = all.as_slice() {
                return (scale, vec![(*only, numbers::short(*only))]);
            }
            let mut list = if chart.x_log {
                log_ticks(ends)
            } else {
                ticks(ends, 7.0, whole)
            };
            while list.len() > 2 && !fits(&list, &scale) {
                list = list.into_iter().step_by(2).collect();
            }
            (scale, list)
        };
        // Once more with room for half a number at either end.
        let (_, ticks) = place(from, to - 16.0);
        let half = ticks.iter().map(|(_, t)| width(t)).fold(0.0, f64::max) / 2.0;
        let (left, right) = (from.max(half + 2.0), to - half.max(14.0) - 2.0);
        let (scale, ticks) = place(left, right);
        Self {
            left,
            right,
            place: Place::Numbers(scale),
            labels: Labels::Numbers(ticks),
        }
    }

    fn words(words: &[String], (from, to): (f64, f64)) -> Self {
        let right = to - 8.0;
        let count = words.len().max(1) as f64;
        let field = (right - from) / count;
        let level: Vec<_> = words.iter().map(|w| wrap(w, field - 8.0, 3)).collect();
        let whole = |(word, lines): (&String, &Vec<String>)| {
            !lines.iter().any(|line| line.ends_with('…')) || word.ends_with('…')
        };
        if words.iter().zip(&level).all(whole) {
            return Self {
                left: from,
                right,
                place: Place::Words { field },
                labels: Labels::Level(level),
            };
        }
        // The first slanted name may reach left of the plot, which then gives way.
        let words = shortened(words);
        let reach = |i: usize, word: &String| {
            width(word) * SLANT.1 + 4.0 - (i as f64 + 0.5) * (right - from) / count
        };
        let left = words
            .iter()
            .enumerate()
            .map(|(i, word)| reach(i, word))
            .fold(from, f64::max)
            .min(from.max(LONGEST));
        let field = (right - left) / count;
        Self {
            left,
            right,
            place: Place::Words { field },
            labels: Labels::Slanted {
                words,
                every: ((LINE + 2.0) / field).ceil().max(1.0) as usize,
            },
        }
    }

    /// Left and right end of the plot.
    pub(super) fn ends(&self) -> (f64, f64) {
        (self.left, self.right)
    }

    fn at(&self, x: f64) -> f64 {
        match &self.place {
            Place::Numbers(scale) => scale.at(x),
            Place::Words { field } => self.left + (x + 0.5) * field,
        }
    }

    /// Draws line, ticks and words below the plot; returns where the next thing may stand.
    pub(super) fn draw(&self, canvas: &mut Canvas, y: f64) -> f64 {
        canvas.line("axis", (self.left, y), (self.right, y));
        match &self.labels {
            Labels::Numbers(ticks) => {
                for (number, text) in ticks {
                    let x = self.at(*number);
                    canvas.line("axis", (x, y), (x, y + 4.0));
                    canvas.text(x, y + 18.0, Anchor::Middle, "", text);
                }
                y + 22.0
            }
            Labels::Level(words) => {
                for (i, lines) in words.iter().enumerate() {
                    let x = self.at(i as f64);
                    canvas.line("axis", (x, y), (x, y + 4.0));
                    canvas.block(x, y + 18.0, Anchor::Middle, "", lines);
                }
                let most = words.iter().map(Vec::len).max().unwrap_or(1);
                y + 6.0 + most as f64 * LINE
            }
            Labels::Slanted { words, every } => {
                let mut longest = 0.0_f64;
                for (i, word) in words.iter().enumerate().step_by(*every) {
                    let x = self.at(i as f64);
                    canvas.line("axis", (x, y), (x, y + 4.0));
                    canvas.slanted(x + 4.0, y + 14.0, word);
                    longest = longest.max(width(word));
                }
                y + 18.0 + longest * SLANT.0
            }
        }
    }
}

/// Words short enough to slant: when some are too long, all give up what they
/// begin with in common, and then what they have too much in the middle.
fn shortened(words: &[String]) -> Vec<String> {
    let shared = match words {
        [first, rest @ ..] if words.iter().any(|word| width(word) > LONGEST) => {
            let alike = |other: &String| {
                let pairs = first.chars().zip(other.chars());
                pairs.take_while(|(a, b)| a == b).count()
            };
            rest.iter().map(alike).min().unwrap_or(0)
        }
        _ => 0,
    };
    let short = |word: &String| {
        if shared < 5 {
            return cut_middle(word, LONGEST);
        }
        let own: String = word.chars().skip(shared).collect();
        cut_middle(&format!("…{own}"), LONGEST)
    };
    words.iter().map(short).collect()
}

/// The data's own numbers as ticks, with equally many decimals: none when they
/// are too many or too long to write.
fn exact(all: &[f64], log: bool) -> Vec<Tick> {
    if all.len() > 12 {
        return Vec::new();
    }
    let plain: Vec<String> = all.iter().map(|x| format!("{x}")).collect();
    let decimals = |text: &String| text.split_once('.').map_or(0, |(_, d)| d.len());
    let most = plain.iter().map(decimals).max().unwrap_or(0);
    all.iter()
        .zip(&plain)
        .map(|(x, plain)| {
            let size = x.abs();
            let text = match () {
                () if size > 0.0 && !(0.001..1e7).contains(&size) => numbers::scientific(*x),
                () if most > 4 => return None,
                () if log => numbers::fixed(*x, decimals(plain)),
                () => numbers::fixed(*x, most),
            };
            Some((*x, text))
        })
        .collect::<Option<_>>()
        .unwrap_or_default()
}

fn fits(ticks: &[Tick], scale: &Scale) -> bool {
    ticks.windows(2).all(|pair| {
        let [(a, left), (b, right)] = pair else {
            return true;
        };
        let room = (scale.at(*b) - scale.at(*a)).abs();
        room >= f64::midpoint(width(left), width(right)) + 8.0
    })
}

/// Where the points of each series stand: whiskers of one place stand a little
/// beside each other, so that none hides another.
pub(super) struct Across<'a> {
    axis: &'a Axis,
    step: f64,
    middle: f64,
}

impl<'a> Across<'a> {
    pub(super) fn new(axis: &'a Axis, lines: &[Line<'_>], bands: bool) -> Self {
        let mut all: Vec<f64> = lines
            .iter()
            .flat_map(|line| line.drawn().map(|p| axis.at(p.x)))
            .collect();
        all.sort_by(f64::total_cmp);
        let gaps = all.windows(2).map(|pair| pair[1] - pair[0]);
        let gap = gaps.filter(|gap| *gap > 0.05).fold(60.0, f64::min);
        let intervals = lines
            .iter()
            .flat_map(Line::drawn)
            .any(|p| p.low.is_some() && p.high.is_some());
        let step = if bands || !intervals || lines.len() < 2 {
            0.0
        } else {
            (gap * 0.5 / lines.len() as f64).min(7.0)
        };
        Self {
            axis,
            step,
            middle: lines.len().saturating_sub(1) as f64 / 2.0,
        }
    }

    /// The places of series `index`.
    pub(super) fn of(&self, index: usize) -> impl Fn(f64) -> f64 + '_ {
        let aside = (index as f64 - self.middle) * self.step;
        let (left, right) = self.axis.ends();
        move |x| (self.axis.at(x) + aside).clamp(left, right)
    }
}
