//! Horizontal bars.

use super::{
    Bar, Bars,
    canvas::{Anchor, Canvas},
    drawable, interval,
    numbers::{decimals, fixed, short},
    scale::{Scale, Tick, apart, range, ticks},
    text::{LINE, bold_width, cut, width, wrap},
};

/// Width of a chart on its own, in pixels.
const WIDTH: f64 = 800.0;

/// The widest labels, and the widest words at a bar's end when bars go one way
/// and when they go both, as shares of the width.
const LABEL: f64 = 0.32;
const ENDING: (f64, f64) = (0.3, 0.2);

/// Height of a bar, and of its row when the label takes one line.
const BAR: f64 = 13.0;
const ROW: f64 = 22.0;

/// Bars that are drawn at most.
const MOST: usize = 300;

/// A bar with its words, measured.
struct Row<'a> {
    bar: &'a Bar,
    /// Whether it is chosen, where some are and some are not.
    accent: Option<bool>,
    label: Vec<String>,
    value: String,
    detail: String,
}

impl Row<'_> {
    /// Width of a piece of its text, which is bold when it is chosen.
    fn width(&self, text: &str) -> f64 {
        if self.accent == Some(true) {
            bold_width(text)
        } else {
            width(text)
        }
    }

    fn height(&self) -> f64 {
        ROW + (self.label.len() as f64 - 1.0) * (LINE - 2.0)
    }

    /// Room that its words take beyond the bar.
    fn ending(&self) -> f64 {
        let detail = match self.detail.as_str() {
            "" => 0.0,
            detail => width(detail) + 7.0,
        };
        self.width(&self.value) + detail + 7.0
    }

    /// The numbers that have to have a place.
    fn reach(&self) -> (f64, f64) {
        let value = if drawable(self.bar.value) {
            self.bar.value
        } else {
            0.0
        };
        let (low, high) = interval(self.bar.low, self.bar.high).unwrap_or((value, value));
        (low.min(value), high.max(value))
    }

    /// Whether it points left.
    fn left(&self) -> bool {
        points_left(self.bar)
    }
}

fn points_left(bar: &Bar) -> bool {
    drawable(bar.value) && bar.value < 0.0
}

/// The chart as SVG, 800 pixels wide. Bars start at zero. The chosen ones are
/// accented in colour, by a tick after their label and by bold words.
pub fn bars(chart: &Bars) -> String {
    draw(chart, WIDTH)
}

pub(super) fn draw(chart: &Bars, wide: f64) -> String {
    let mut room = MOST;
    let shown: Vec<(&str, &[Bar])> = chart
        .groups
        .iter()
        .map(|(heading, bars)| {
            let bars = &bars[..bars.len().min(room)];
            room -= bars.len();
            (heading.as_str(), bars)
        })
        .filter(|(_, bars)| !bars.is_empty())
        .collect();
    let all = || shown.iter().flat_map(|(_, bars)| bars.iter());
    let numbers: Vec<f64> = all().map(|b| b.value).filter(|v| drawable(*v)).collect();
    let digits = decimals(&numbers);
    let marked = all().any(|bar| bar.chosen) && all().any(|bar| !bar.chosen);
    let both = all().any(points_left) && !all().all(points_left);
    let ending = wide * if both { ENDING.1 } else { ENDING.0 };
    let row = |bar| row(bar, digits, marked, (wide * LABEL, ending));
    let groups: Vec<(&str, Vec<Row<'_>>)> = shown
        .iter()
        .map(|(heading, bars)| (*heading, bars.iter().map(row).collect()))
        .collect();
    let rows = || groups.iter().flat_map(|(_, rows)| rows);

    let mut canvas = Canvas::default();
    let mut y = 2.0;
    if chart.titled && !chart.title.is_empty() {
        let title = wrap(&chart.title, wide * 0.94, 3);
        canvas.block(0.0, 14.0, Anchor::Start, "title", &title);
        y += title.len() as f64 * LINE + 6.0;
    }
    let Some((least, most)) = range(rows().flat_map(|row| [row.reach().0, row.reach().1])) else {
        canvas.text(
            0.0,
            y + 16.0,
            Anchor::Start,
            "",
            "There is nothing to draw.",
        );
        let y = notes(&mut canvas, chart, y + 16.0, (wide, marked));
        return canvas.finish((wide, y), &chart.title, "There is nothing to draw.");
    };
    let sign = if marked { 16.0 } else { 0.0 };
    let labels = rows()
        .flat_map(|row| row.label.iter().map(|line| row.width(line)))
        .fold(0.0, f64::max);
    let ending = |left: bool| {
        let of_side = rows().filter(|row| row.left() == left);
        of_side.map(Row::ending).fold(0.0, f64::max)
    };
    let (left, right) = (labels + sign + 10.0, wide - 2.0);
    let (before, after) = (left + ending(true), right - ending(false).max(12.0));
    let (domain, ticks) = domain((least, most), (after - before) / 70.0);
    let half = ticks.iter().map(|(_, t)| width(t)).fold(0.0, f64::max) / 2.0;
    let (before, after) = (before.max(half), after.min(right - half));
    let scale = Scale::new(domain, (before, after), false);

    // Lines first, so that they run behind the bars of all groups.
    let height: f64 = groups
        .iter()
        .map(|(heading, rows)| {
            let heading = if heading.is_empty() { 0.0 } else { 26.0 };
            heading + rows.iter().map(Row::height).sum::<f64>() + 4.0
        })
        .sum();
    for (number, text) in &ticks {
        let (x, bottom) = (scale.at(*number), y + height);
        let class = if *number == 0.0 { "zero" } else { "grid" };
        canvas.line(class, (x, y), (x, bottom));
        canvas.text(x, bottom + 15.0, Anchor::Middle, "", text);
    }
    for (heading, rows) in &groups {
        if !heading.is_empty() {
            let heading = cut(heading, wide * 0.94);
            canvas.text(0.0, y + 19.0, Anchor::Start, "heading", &heading);
            y += 26.0;
        }
        for row in rows {
            draw_row(&mut canvas, row, &scale, (sign, left, y));
            y += row.height();
        }
        y += 4.0;
    }
    y += 20.0;
    if !chart.x_label.is_empty() {
        let middle = f64::midpoint(before, after);
        let label = wrap(&chart.x_label, middle.min(wide - middle) * 1.8, 2);
        canvas.block(middle, y + 14.0, Anchor::Middle, "label", &label);
        y += label.len() as f64 * LINE + 2.0;
    }
    let y = notes(&mut canvas, chart, y, (wide, marked));
    canvas.finish((wide, y), &chart.title, &description(chart, &groups))
}

fn row(bar: &Bar, digits: usize, marked: bool, (label, ending): (f64, f64)) -> Row<'_> {
    let value = match bar.value {
        value if !drawable(value) && bar.detail.is_empty() => "no number".to_owned(),
        value if !drawable(value) => cut(&bar.detail, ending),
        value if value != 0.0 && (value.abs() < 0.0005 || value.abs() >= 1e7) => short(value),
        value => fixed(value, digits),
    };
    Row {
        bar,
        accent: marked.then_some(bar.chosen),
        label: wrap(&bar.label, label, 2),
        detail: if drawable(bar.value) {
            cut(&bar.detail, ending - width(&value))
        } else {
            String::new()
        },
        value,
    }
}

/// The numbers of the axis, from or to zero, and ticks that lie within.
fn domain((least, most): (f64, f64), target: f64) -> ((f64, f64), Vec<Tick>) {
    let ends = apart((least.min(0.0), most.max(0.0)), 1.0);
    let ends = if least >= 0.0 { (0.0, ends.1) } else { ends };
    (ends, ticks(ends, target.clamp(2.0, 6.0), false))
}

fn draw_row(canvas: &mut Canvas, row: &Row<'_>, scale: &Scale, (sign, left, y): (f64, f64, f64)) {
    let bar = row.bar;
    let middle = y + row.height() / 2.0;
    let chosen = match row.accent {
        Some(true) => " chosen",
        _ => "",
    };
    let first = middle + 4.0 - (row.label.len() as f64 - 1.0) * (LINE - 2.0) / 2.0;
    for (i, line) in row.label.iter().enumerate() {
        let y = first + i as f64 * (LINE - 2.0);
        let x = left - sign - 10.0;
        canvas.text(x, y, Anchor::End, &format!("name{chosen}"), line);
    }
    if row.accent == Some(true) {
        let x = left - 19.0;
        let points = [
            (x - 3.0, middle),
            (x, middle + 3.5),
            (x + 6.0, middle - 4.0),
        ];
        canvas.path("tick", &points, false);
    }
    let zero = scale.at(0.0);
    let mut end = zero;
    if drawable(bar.value) {
        let at = scale.at(bar.value);
        // Even a bar without length leaves a trace.
        let (from, to) = (zero.min(at), zero.max(at).max(zero.min(at) + 1.0));
        let muted = match row.accent {
            Some(false) => " muted",
            _ => "",
        };
        let spread = interval(bar.low, bar.high)
            .map(|(low, high)| format!(" [{}, {}]", short(low), short(high)))
            .unwrap_or_default();
        let space = if bar.detail.is_empty() { "" } else { ", " };
        canvas.rect(
            &format!("bar{muted}"),
            (from, middle - BAR / 2.0),
            (to - from, BAR),
            &format!(
                "{}: {}{spread}{space}{}",
                bar.label,
                short(bar.value),
                bar.detail
            ),
        );
        end = at;
        if let Some((low, high)) = interval(bar.low, bar.high) {
            let (low, high) = (scale.at(low), scale.at(high));
            canvas.whisker("whisker ink", (low, middle), (high, middle), (0.0, 3.5));
            end = if row.left() {
                end.min(low)
            } else {
                end.max(high)
            };
        }
    }
    let class = format!("value{chosen}");
    if row.left() {
        canvas.text(end - 6.0, middle + 4.0, Anchor::End, &class, &row.value);
        let x = end - 13.0 - row.width(&row.value);
        canvas.text(x, middle + 4.0, Anchor::End, "", &row.detail);
    } else {
        canvas.text(end + 6.0, middle + 4.0, Anchor::Start, &class, &row.value);
        let x = end + 13.0 + row.width(&row.value);
        canvas.text(x, middle + 4.0, Anchor::Start, "", &row.detail);
    }
}

/// The sentences below; returns where the drawing ends.
fn notes(canvas: &mut Canvas, chart: &Bars, mut y: f64, (wide, marked): (f64, bool)) -> f64 {
    let all = || chart.groups.iter().flat_map(|(_, bars)| bars);
    let mut notes = Vec::new();
    if marked && !chart.chosen.is_empty() {
        notes.push(format!("✓ {}", chart.chosen));
    }
    if !chart.spread.is_empty() && all().any(|bar| interval(bar.low, bar.high).is_some()) {
        notes.push(format!("Whiskers: {}.", chart.spread));
    }
    notes.extend(chart.notes.iter().cloned());
    let more = all().count().saturating_sub(MOST);
    if more > 0 {
        notes.push(format!(
            "{more} more left out: {MOST} bars are drawn at most."
        ));
    }
    for note in notes {
        let lines = wrap(&note, wide * 0.97, 3);
        canvas.block(0.0, y + 18.0, Anchor::Start, "", &lines);
        y += lines.len() as f64 * LINE + 2.0;
    }
    y + 8.0
}

/// The chart for those who cannot see it.
fn description(chart: &Bars, groups: &[(&str, Vec<Row<'_>>)]) -> String {
    let mut text = String::from("Bar chart.");
    if !chart.x_label.is_empty() {
        text += &format!(" Length: {}.", chart.x_label);
    }
    for (heading, rows) in groups {
        let rows: Vec<_> = rows
            .iter()
            .map(|row| {
                let chosen = match chart.chosen.as_str() {
                    "" => "accented",
                    word => word,
                };
                let chosen = if row.accent == Some(true) {
                    format!(", {chosen}")
                } else {
                    String::new()
                };
                let space = if row.detail.is_empty() { "" } else { " " };
                let label = &row.bar.label;
                format!("{label} {}{space}{}{chosen}", row.value, row.detail)
            })
            .collect();
        let colon = if heading.is_empty() { "" } else { ": " };
        text += &format!(" {heading}{colon}{}.", rows.join("; "));
    }
    text
}
