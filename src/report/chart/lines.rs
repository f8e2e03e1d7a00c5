//! Line charts.

mod axis;
mod legend;

use self::axis::{Across, Axis};
use super::{
    Lines, MOST_SERIES, Point, Series, X,
    canvas::{Anchor, Canvas},
    drawable, interval, marker,
    numbers::short,
    scale::{Scale, apart, range, rounded},
    text::{LINE, width, wrap},
};

/// Points of a series up to which intervals are whiskers; a band shows more.
const WHISKERS: usize = 8;

/// Points of a series up to which each has a marker.
const MARKED: usize = 30;

/// Least distance of two markers of one line with more points, in pixels.
const MARKERS: f64 = 60.0;

/// Points of a series that the description lists.
const LISTED: usize = 12;

/// Size of the plot in a drawing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    /// Width of the whole drawing.
    pub(super) width: f64,
    /// Height of the plot alone.
    pub(super) plot: f64,
    /// Whether a legend is drawn when there is need of one.
    pub(super) legend: bool,
}

/// Size of a chart on its own.
const WHOLE: Frame = Frame {
    width: 800.0,
    plot: 280.0,
    legend: true,
};

/// The chart as SVG, 800 pixels wide. Numbers that are not finite are left out
/// with a note; a chart without any point says so.
pub fn lines(chart: &Lines) -> String {
    draw(chart, WHOLE)
}

/// A series ready to draw.
struct Line<'a> {
    series: &'a Series,
    /// Its points by `x`; a gap has no `y` that can be drawn.
    points: Vec<&'a Point>,
    /// Its colour and shape.
    look: usize,
}

impl Line<'_> {
    fn drawn(&self) -> impl Iterator<Item = &Point> {
        self.points.iter().copied().filter(|p| drawable(p.y))
    }

    fn class(&self, part: &str) -> String {
        let dashed = if self.series.dashed { " dashed" } else { "" };
        format!("{part} c{}{dashed}", self.look)
    }
}

/// The series that are drawn, each with its points in order.
fn prepare(chart: &Lines) -> Vec<Line<'_>> {
    let mut looks = 0;
    let mut lines: Vec<Line<'_>> = Vec::new();
    for series in chart.series.iter().take(MOST_SERIES) {
        let mut points: Vec<&Point> = series.points.iter().filter(|p| placed(chart, p)).collect();
        points.sort_by(|a, b| a.x.total_cmp(&b.x));
        let ours = lines
            .iter()
            .find(|line| series.dashed && belongs(&series.name, line.series, lines.len()));
        let look = ours.map_or(looks, |line| line.look);
        looks = looks.max(look + 1);
        lines.push(Line {
            series,
            points,
            look,
        });
    }
    lines
}

/// Whether the published series `name` stands beside `other`, one of `all` before it.
fn belongs(name: &str, other: &Series, all: usize) -> bool {
    let ours = name.strip_suffix("published").map(str::trim_end);
    !other.dashed && ours.is_some_and(|ours| ours == other.name || (ours.is_empty() && all == 1))
}

/// Whether a point has a place on the horizontal axis.
fn placed(chart: &Lines, point: &Point) -> bool {
    match &chart.x {
        X::Numbers => drawable(point.x) && (!chart.x_log || point.x >= 1e-100),
        X::Words(words) => point.x >= 0.0 && point.x < words.len() as f64 && point.x.fract() == 0.0,
    }
}

pub(super) fn draw(chart: &Lines, frame: Frame) -> String {
    let lines = prepare(chart);
    let mut canvas = Canvas::default();
    let mut y = 0.0;
    if chart.titled && !chart.title.is_empty() {
        let title = wrap(&chart.title, frame.width * 0.94, 3);
        canvas.block(0.0, 14.0, Anchor::Start, "title", &title);
        y = title.len() as f64 * LINE + 8.0;
    }
    let ends = lines.iter().flat_map(|line| {
        line.drawn().flat_map(|p| {
            let (low, high) = interval(p.low, p.high).unwrap_or((p.y, p.y));
            [p.y, low, high]
        })
    });
    let Some(ends) = range(ends) else {
        canvas.text(
            0.0,
            y + 16.0,
            Anchor::Start,
            "",
            "There is nothing to draw.",
        );
        let y = notes(&mut canvas, chart, y + 16.0, frame, false);
        return canvas.finish((frame.width, y), &chart.title, "There is nothing to draw.");
    };
    if !chart.y_label.is_empty() {
        let label = wrap(&chart.y_label, frame.width, 2);
        canvas.block(0.0, y + 12.0, Anchor::Start, "label", &label);
        y += label.len() as f64 * LINE + 4.0;
    }
    let bands = lines.iter().any(|line| line.drawn().count() > WHISKERS);
    let (domain, ticks) = rounded(
        vertical(ends, chart),
        if frame.plot > 200.0 { 5.0 } else { 4.0 },
    );
    let (top, bottom) = (y + 8.0, y + 8.0 + frame.plot);
    let up = Scale::new(domain, (bottom, top), false);
    let label_width = ticks.iter().map(|(_, t)| width(t)).fold(0.0, f64::max);
    let axis = Axis::new(chart, &lines, (label_width + 10.0, frame.width));
    let (left, right) = axis.ends();
    for (number, text) in &ticks {
        let y = up.at(*number);
        let class = if *number == 0.0 { "zero" } else { "grid" };
        canvas.line(class, (left, y), (right, y));
        canvas.text(left - 8.0, y + 4.0, Anchor::End, "", text);
    }
    let mut y = axis.draw(&mut canvas, bottom);
    let across = Across::new(&axis, &lines, bands);
    for (i, line) in lines.iter().enumerate() {
        if bands {
            band(&mut canvas, line, &across.of(i), &up);
        } else {
            whiskers(&mut canvas, line, &across.of(i), &up);
        }
    }
    for (i, line) in lines.iter().enumerate() {
        strokes(&mut canvas, line, &across.of(i), &up);
    }
    for (i, line) in lines.iter().enumerate() {
        let place = |p: &Point| (across.of(i)(p.x), up.at(p.y));
        for point in marked(line, &place, MARKERS * i as f64 / lines.len() as f64) {
            marker(&mut canvas, chart, line, point, place(point));
        }
    }
    // Last, above the whiskers, so that nothing hides them.
    for (i, line) in lines.iter().enumerate() {
        for point in line.drawn() {
            let top_of = interval(point.low, point.high).filter(|_| !bands);
            let y = up.at(top_of.map_or(point.y, |(_, high)| high.max(point.y)));
            let y = (y - if top_of.is_some() { 1.0 } else { 5.0 }).max(top + 4.0);
            canvas.text(across.of(i)(point.x), y, Anchor::Middle, "mark", point.mark);
        }
    }
    if !chart.x_label.is_empty() {
        let log = if chart.x_log && chart.x == X::Numbers {
            " (logarithmic)"
        } else {
            ""
        };
        let label = wrap(&format!("{}{log}", chart.x_label), right - left, 2);
        let middle = f64::midpoint(left, right);
        canvas.block(middle, y + 15.0, Anchor::Middle, "label", &label);
        y += label.len() as f64 * LINE + 4.0;
    }
    if frame.legend && wants_legend(chart) {
        let entries: Vec<_> = lines.iter().map(|line| (line.series, line.look)).collect();
        y = legend::draw(&mut canvas, &entries, y + 8.0, frame.width);
    }
    let y = notes(&mut canvas, chart, y, frame, bands);
    canvas.finish(
        (frame.width, y + 4.0),
        &chart.title,
        &description(chart, &lines),
    )
}

/// The numbers of the vertical axis: some air around the data, but no
/// percentages and counts that cannot be.
fn vertical(ends: (f64, f64), chart: &Lines) -> (f64, f64) {
    let (low, high) = apart(ends, 0.05);
    let air = (high - low) * 0.04;
    let percent = chart.y_label.contains('%') && ends.0 >= 0.0 && ends.1 <= 100.0;
    let floor = if ends.0 >= 0.0 { 0.0 } else { f64::MIN };
    let roof = if percent { 100.0 } else { f64::MAX };
    ((low - air).max(floor), (high + air).min(roof))
}

fn wants_legend(chart: &Lines) -> bool {
    match chart.series.as_slice() {
        [only] => !only.name.is_empty() && only.name != chart.y_label,
        list => list.len() > 1,
    }
}

fn band(canvas: &mut Canvas, line: &Line<'_>, at: &dyn Fn(f64) -> f64, up: &Scale) {
    let edges: Vec<_> = line
        .points
        .iter()
        .map(|p| {
            let ends = interval(p.low, p.high).filter(|_| drawable(p.y));
            ends.map(|(low, high)| (at(p.x), up.at(low), up.at(high)))
        })
        .collect();
    for run in edges.split(Option::is_none) {
        let run: Vec<_> = run.iter().flatten().collect();
        if run.len() < 2 {
            continue;
        }
        let above = run.iter().map(|(x, _, high)| (*x, *high));
        let below = run.iter().rev().map(|(x, low, _)| (*x, *low));
        let around: Vec<_> = above.chain(below).collect();
        canvas.path(&line.class("band"), &around, true);
    }
}

fn whiskers(canvas: &mut Canvas, line: &Line<'_>, at: &dyn Fn(f64) -> f64, up: &Scale) {
    for point in line.drawn() {
        if let Some((low, high)) = interval(point.low, point.high) {
            let x = at(point.x);
            canvas.whisker(
                &line.class("whisker"),
                (x, up.at(low)),
                (x, up.at(high)),
                (3.0, 0.0),
            );
        }
    }
}

fn strokes(canvas: &mut Canvas, line: &Line<'_>, at: &dyn Fn(f64) -> f64, up: &Scale) {
    for run in line.points.split(|p| !drawable(p.y)) {
        if run.len() > 1 {
            let points: Vec<_> = run.iter().map(|p| (at(p.x), up.at(p.y))).collect();
            canvas.path(&line.class("line"), &points, false);
        }
    }
}

/// The points that get a marker: all of them while they are few, else some that
/// keep their distance, beginning `aside` so that lines mark different places.
fn marked<'a>(
    line: &'a Line<'a>,
    place: &dyn Fn(&Point) -> (f64, f64),
    aside: f64,
) -> Vec<&'a Point> {
    let all: Vec<&Point> = line.drawn().collect();
    let Some(first) = all.first().filter(|_| all.len() > MARKED) else {
        return all;
    };
    let mut next = place(first).0 + aside;
    all.into_iter()
        .filter(|point| {
            let x = place(point).0;
            let due = x >= next || !point.mark.is_empty();
            if due {
                next = x + MARKERS;
            }
            due
        })
        .collect()
}

/// A marker that tells its numbers on hovering.
fn marker(canvas: &mut Canvas, chart: &Lines, line: &Line<'_>, point: &Point, at: (f64, f64)) {
    let words = format!("{}: {}", line.series.name, in_words(chart, point));
    let corners = marker::corners(line.look, at);
    canvas.shape(
        &line.class("marker"),
        &corners,
        words.trim_start_matches(": "),
    );
}

/// Where a point lies, in words: `temperature 0.5: 61.31 [60.4, 62.2]`.
fn in_words(chart: &Lines, point: &Point) -> String {
    let x = match &chart.x {
        X::Numbers => short(point.x),
        X::Words(words) => words.get(point.x as usize).cloned().unwrap_or_default(),
    };
    let mut text = format!("{x}: {}{}", short(point.y), point.mark);
    if let Some((low, high)) = interval(point.low, point.high) {
        text += &format!(" [{}, {}]", short(low), short(high));
    }
    text
}

/// The sentences below the chart; returns where the next thing may stand.
fn notes(canvas: &mut Canvas, chart: &Lines, mut y: f64, frame: Frame, bands: bool) -> f64 {
    let shown = &chart.series[..chart.series.len().min(MOST_SERIES)];
    let mut notes = Vec::new();
    let points = || shown.iter().flat_map(|series| &series.points);
    if !chart.spread.is_empty() && points().any(|p| interval(p.low, p.high).is_some()) {
        let shape = if bands { "Shaded" } else { "Whiskers" };
        notes.push(format!("{shape}: {}.", chart.spread));
    }
    notes.extend(chart.notes.iter().cloned());
    let gaps = points()
        .filter(|p| placed(chart, p) && !drawable(p.y))
        .count();
    if gaps > 0 {
        let (points, have) = match gaps {
            1 => ("point", "has"),
            _ => ("points", "have"),
        };
        notes.push(format!("{gaps} {points} {have} no number."));
    }
    let off = points().filter(|p| !placed(chart, p)).count();
    if off > 0 {
        let why = match chart.x {
            X::Numbers if chart.x_log => "a logarithmic axis has numbers above zero only",
            _ => "no place on the horizontal axis",
        };
        notes.push(format!("{} left out: {why}.", several(off, "point")));
    }
    let more = chart.series.len() - shown.len();
    if more > 0 {
        notes.push(format!(
            "{} left out: {MOST_SERIES} are drawn at most.",
            several(more, "more series")
        ));
    }
    for note in notes {
        let lines = wrap(&note, frame.width * 0.97, 3);
        canvas.block(0.0, y + 18.0, Anchor::Start, "", &lines);
        y += lines.len() as f64 * LINE + 2.0;
    }
    y + 4.0
}

/// `1 point is`, `3 points are`.
fn several(number: usize, noun: &str) -> String {
    match number {
        1 => format!("1 {noun} is"),
        n if noun.ends_with('s') => format!("{n} {noun} are"),
        n => format!("{n} {noun}s are"),
    }
}

/// The chart for those who cannot see it.
fn description(chart: &Lines, lines: &[Line<'_>]) -> String {
    let mut text = String::from("Line chart.");
    for (name, label) in [("Across", &chart.x_label), ("up", &chart.y_label)] {
        if !label.is_empty() {
            text += &format!(" {name}: {label}.");
        }
    }
    for line in lines {
        let points: Vec<_> = line.drawn().map(|p| in_words(chart, p)).collect();
        let listed = match points.as_slice() {
            [] => "no number".to_owned(),
            list if list.len() <= LISTED => list.join("; "),
            [first, .., last] => {
                let by = |a: &&Point, b: &&Point| a.y.total_cmp(&b.y);
                let least = line.drawn().min_by(by).map(|p| in_words(chart, p));
                let most = line.drawn().max_by(by).map(|p| in_words(chart, p));
                format!(
                    "{} points from {first} to {last}; lowest {}; highest {}",
                    points.len(),
                    least.unwrap_or_default(),
                    most.unwrap_or_default()
                )
            }
            [only] => only.clone(),
        };
        text += &format!(" {}: {listed}.", line.series.name);
    }
    text
}
