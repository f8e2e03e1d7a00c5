//! The parts that every drawing is put together from.

use std::fmt::Write as _;

use html_escape::encode_safe;

use super::text::{self, LINE};

/// Where text stands relative to its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// A drawing under way.
#[derive(Default)]
pub(super) struct Canvas {
    body: String,
}

/// A coordinate with one decimal.
pub(super) fn px(value: f64) -> String {
    let text = format!("{value:.1}");
    let text = text.strip_suffix(".0").unwrap_or(&text);
    if text == "-0" { "0" } else { text }.to_owned()
}

/// Text of others within an element or a quoted attribute.
pub(super) fn safe(text: &str) -> String {
    encode_safe(&text::line(text)).into_owned()
}

impl Canvas {
    /// Text with its baseline at `y`; `class` may be empty.
    pub(super) fn text(&mut self, x: f64, y: f64, anchor: Anchor, class: &str, text: &str) {
        if text.is_empty() {
            return;
        }
        let anchor = match anchor {
            Anchor::Start => "",
            Anchor::Middle => " text-anchor=\"middle\"",
            Anchor::End => " text-anchor=\"end\"",
        };
        let _ = writeln!(
            self.body,
            "<text{} x=\"{}\" y=\"{}\"{anchor}>{}</text>",
            of(class),
            px(x),
            px(y),
            safe(text)
        );
    }

    /// Text that rises to the right and ends at a point, for long names below an axis.
    pub(super) fn slanted(&mut self, x: f64, y: f64, text: &str) {
        let (x, y) = (px(x), px(y));
        let _ = writeln!(
            self.body,
            "<text x=\"{x}\" y=\"{y}\" text-anchor=\"end\" transform=\"rotate(-40 {x} {y})\">{}</text>",
            safe(text)
        );
    }

    /// Lines of text one below the other, the first baseline at `y`.
    pub(super) fn block(&mut self, x: f64, y: f64, anchor: Anchor, class: &str, lines: &[String]) {
        for (i, line) in lines.iter().enumerate() {
            self.text(x, y + i as f64 * LINE, anchor, class, line);
        }
    }

    /// A straight line.
    pub(super) fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        let _ = writeln!(
            self.body,
            "<line{} x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\"/>",
            of(class),
            px(from.0),
            px(from.1),
            px(to.0),
            px(to.1)
        );
    }

    /// A path through points: a line, or with `closed` an area.
    pub(super) fn path(&mut self, class: &str, points: &[(f64, f64)], closed: bool) {
        let _ = writeln!(
            self.body,
            "<path{} d=\"{}\"/>",
            of(class),
            through(points, closed)
        );
    }

    /// A shape with words that are shown on hovering over it.
    pub(super) fn shape(&mut self, class: &str, points: &[(f64, f64)], words: &str) {
        let _ = writeln!(
            self.body,
            "<path{} d=\"{}\"><title>{}</title></path>",
            of(class),
            through(points, true),
            safe(words)
        );
    }

    /// A rectangle with words that are shown on hovering over it.
    pub(super) fn rect(&mut self, class: &str, at: (f64, f64), size: (f64, f64), words: &str) {
        let _ = writeln!(
            self.body,
            "<rect{} x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"><title>{}</title></rect>",
            of(class),
            px(at.0),
            px(at.1),
            px(size.0.max(0.0)),
            px(size.1.max(0.0)),
            safe(words)
        );
    }

    /// A bar with a whisker's two ends; `across` is half the ends' length.
    pub(super) fn whisker(
        &mut self,
        class: &str,
        from: (f64, f64),
        to: (f64, f64),
        across: (f64, f64),
    ) {
        let end = |(x, y): (f64, f64)| {
            format!(
                "M{} {}L{} {}",
                px(x - across.0),
                px(y - across.1),
                px(x + across.0),
                px(y + across.1)
            )
        };
        let _ = writeln!(
            self.body,
            "<path{} d=\"{}{}{}\"/>",
            of(class),
            end(from),
            through(&[from, to], false),
            end(to)
        );
    }

    /// A small drawing that words stand beside, which a screen reader passes over.
    pub(super) fn inline(self, (width, height): (f64, f64)) -> String {
        format!(
            "<svg class=\"swatch\" viewBox=\"0 0 {0} {1}\" width=\"{0}\" height=\"{1}\" aria-hidden=\"true\">{2}</svg>",
            px(width),
            px(height),
            self.body.replace('\n', "")
        )
    }

    /// The whole drawing, `size` in pixels.
    pub(super) fn finish(self, size: (f64, f64), title: &str, words: &str) -> String {
        // The page lets a wide drawing shrink less, for the sake of its text.
        let class = if size.0 > 600.0 {
            "chart wide"
        } else {
            "chart"
        };
        let (width, height) = (px(size.0.ceil()), px(size.1.ceil()));
        format!(
            "<svg class=\"{class}\" xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" role=\"img\">\n<title>{}</title>\n<desc>{}</desc>\n{}</svg>\n",
            safe(title),
            safe(words),
            self.body
        )
    }
}

fn through(points: &[(f64, f64)], closed: bool) -> String {
    let mut out = String::new();
    for (i, (x, y)) in points.iter().enumerate() {
        let _ = write!(
            out,
            "{}{} {}",
            if i == 0 { "M" } else { "L" },
            px(*x),
            px(*y)
        );
    }
    if closed {
        out.push('z');
    }
    out
}

fn of(class: &str) -> String {
    if class.is_empty() {
        String::new()
    } else {
        format!(" class=\"{class}\"")
    }
}
