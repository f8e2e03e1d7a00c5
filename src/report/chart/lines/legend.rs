//! The legend below a line chart: a sample of each line with its name.

use super::super::{
    Series,
    canvas::{Anchor, Canvas},
    marker, text,
};

/// Length of a line's sample.
const SAMPLE: f64 = 28.0;

/// Height of a row.
const ROW: f64 = 20.0;

/// Draws the entries from `y` on, row by row; returns where the next thing may stand.
pub(super) fn draw(canvas: &mut Canvas, entries: &[(&Series, usize)], y: f64, room: f64) -> f64 {
    let most = room - SAMPLE - 8.0;
    let names: Vec<_> = entries
        .iter()
        .map(|(series, _)| text::cut(&series.name, most))
        .collect();
    let widths: Vec<f64> = names
        .iter()
        .map(|name| SAMPLE + 8.0 + text::width(name) + 18.0)
        .collect();
    // Columns of one width read easier than running text, where there is room.
    let widest = widths.iter().copied().fold(0.0, f64::max);
    let columns = ((room + 18.0) / widest).floor();
    let grid = columns >= 2.0 && entries.len() as f64 > columns;
    let (mut x, mut row) = (0.0, y + ROW / 2.0);
    for (((series, look), name), width) in entries.iter().zip(&names).zip(&widths) {
        let width = if grid { widest } else { *width };
        if x > 0.0 && x + width - 18.0 > room {
            (x, row) = (0.0, row + ROW);
        }
        let dashed = if series.dashed { " dashed" } else { "" };
        canvas.line(
            &format!("line c{look}{dashed}"),
            (x, row),
            (x + SAMPLE, row),
        );
        canvas.shape(
            &format!("marker c{look}{dashed}"),
            &marker::corners(*look, (x + SAMPLE / 2.0, row)),
            &series.name,
        );
        canvas.text(x + SAMPLE + 8.0, row + 4.0, Anchor::Start, "name", name);
        x += width;
    }
    row + ROW / 2.0
}
