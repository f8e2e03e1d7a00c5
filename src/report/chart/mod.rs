//! Charts as SVG: lines, bars and learning curves from plain numbers, and the
//! chart of a result table.
//!
//! Colours are classes (`c0` to `c11`) that the page's style gives a colour in
//! either theme; no drawing carries a style of its own. Shapes of markers and
//! dashes say the same without colour. Every drawing is an image with a title
//! and a description in words, and equal input gives equal bytes.

mod bars;
mod canvas;
mod curves;
mod lines;
mod marker;
mod numbers;
mod scale;
mod table;
mod text;

pub use self::{
    bars::bars,
    curves::{Curve, curves},
    lines::lines,
    table::of_table,
};

/// Series with a colour and a shape of their own; what exceeds them is left out with a note.
pub const MOST_SERIES: usize = 12;

/// A line chart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lines {
    /// What it shows, in a few words.
    pub title: String,
    /// Whether the title is drawn; if not, it is only read aloud.
    pub titled: bool,
    /// What stands along the horizontal axis.
    pub x_label: String,
    /// What stands along the vertical axis, with its unit: `top-1, %`.
    pub y_label: String,
    /// The kind of the horizontal axis.
    pub x: X,
    /// Whether a horizontal axis of numbers is logarithmic; numbers of zero and
    /// below have no place on it.
    pub x_log: bool,
    /// What `low` and `high` of a point are: `95% interval`. May be empty.
    pub spread: String,
    /// The series, at most [`MOST_SERIES`].
    pub series: Vec<Series>,
    /// Sentences below the chart.
    pub notes: Vec<String>,
}

/// The kind of a horizontal axis.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum X {
    /// A point stands at its number.
    #[default]
    Numbers,
    /// A point's `x` is the index of a word.
    Words(Vec<String>),
}

/// One line of a line chart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// Its points in any order.
    pub points: Vec<Point>,
    /// Dashed with hollow markers, as published figures are. Named like another
    /// series with ` published` added, it shares that one's colour and shape.
    pub dashed: bool,
}

/// One point of a series. A point whose `y` is no finite number is a gap.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Point {
    /// Its place on the horizontal axis.
    pub x: f64,
    /// Its value.
    pub y: f64,
    /// Lower end of what it may be.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
    /// A sign beside it that a note explains, such as `*` for "selected on this split".
    pub mark: &'static str,
}

impl Point {
    /// A point without an interval or a mark.
    pub fn new(x: f64, y: f64) -> Self {
        Self {
            x,
            y,
            ..Self::default()
        }
    }
}

/// Horizontal bars.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bars {
    /// What they show, in a few words.
    pub title: String,
    /// Whether the title is drawn; if not, it is only read aloud.
    pub titled: bool,
    /// What the bars measure, with its unit.
    pub x_label: String,
    /// What `low` and `high` of a bar are: `95% interval`. May be empty.
    pub spread: String,
    /// What it means that a bar is chosen: `chosen`. May be empty.
    pub chosen: String,
    /// Headings, which may be empty, each with its bars from top to bottom.
    pub groups: Vec<(String, Vec<Bar>)>,
    /// Sentences below the chart.
    pub notes: Vec<String>,
}

/// One bar.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bar {
    /// What it stands for.
    pub label: String,
    /// Its length; a value that is no finite number leaves its place empty.
    pub value: f64,
    /// Lower end of what the value may be.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
    /// Whether it is accented.
    pub chosen: bool,
    /// Words after its value, in a lighter voice; without a value, in its place.
    pub detail: String,
}

/// Whether a number can be placed in a drawing. The limit is far beyond all
/// measurements and keeps sums and differences of two numbers finite.
fn drawable(number: f64) -> bool {
    number.is_finite() && number.abs() <= 1e100
}

/// An interval's ends, in order, where both can be drawn.
fn interval(low: Option<f64>, high: Option<f64>) -> Option<(f64, f64)> {
    let (low, high) = (low?, high?);
    (drawable(low) && drawable(high)).then_some((low.min(high), low.max(high)))
}

#[cfg(test)]
mod tests;
