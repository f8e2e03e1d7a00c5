//! A result table as a map of colours: every number on the steps of the page.

use std::fmt::Write as _;

use super::{
    super::{
        canvas::safe,
        drawable,
        scale::{apart, range, rounded},
    },
    NumberColumn, numbers, panels, row_name,
};
use crate::table::Table;

/// Steps of the colour scale in the page's style, `s0` to `s8`.
const STEPS: usize = 9;

/// Rows that are shown at most.
const ROWS: usize = 400;

/// The map as an HTML table with its scale. Columns of one unit share a scale;
/// where there are several units, each column has its own.
pub(super) fn heat(table: &Table, columns: &[NumberColumn<'_>]) -> String {
    let shared = panels(columns).len() == 1;
    let finite = |column: &NumberColumn<'_>| -> Vec<f64> {
        column.numbers().filter(|n| drawable(*n)).collect()
    };
    let scale = |numbers: Vec<f64>| {
        let ends = range(numbers.into_iter()).unwrap_or((0.0, 1.0));
        if shared {
            rounded(apart(ends, 0.05), 5.0).0
        } else {
            apart(ends, 0.05)
        }
    };
    let all = scale(columns.iter().flat_map(finite).collect());
    let scales: Vec<(f64, f64)> = columns
        .iter()
        .map(|column| if shared { all } else { scale(finite(column)) })
        .collect();

    let corner = table.columns.first().map_or("", |c| c.head.as_str());
    let mut out = format!(
        "<div class=\"scroll\" tabindex=\"0\"><table class=\"heat\">\n<thead><tr><th scope=\"col\">{}</th>",
        safe(corner)
    );
    for column in columns {
        let _ = write!(
            out,
            "<th scope=\"col\" class=\"num\">{}</th>",
            safe(column.head)
        );
    }
    out += "</tr></thead>\n<tbody>\n";
    for (i, row) in table.rows.iter().take(ROWS).enumerate() {
        let _ = write!(out, "<tr><th scope=\"row\">{}</th>", safe(&row_name(row)));
        for (column, (low, high)) in columns.iter().zip(&scales) {
            let cell = column.cells.get(i);
            let Some((cell, number)) =
                cell.and_then(|cell| Some((cell, cell.number.filter(|n| drawable(*n))?)))
            else {
                let text = cell.map_or("", |cell| cell.text.as_str());
                let text = if text.is_empty() { "·" } else { text };
                let _ = write!(out, "<td class=\"none\">{}</td>", safe(text));
                continue;
            };
            let step = ((number - low) / (high - low) * STEPS as f64).floor();
            let step = step.clamp(0.0, (STEPS - 1) as f64) as usize;
            let title = match cell.detail.as_str() {
                "" => String::new(),
                detail => format!(" title=\"{} {}\"", safe(&cell.text), safe(detail)),
            };
            let mark = match cell.mark {
                "" => String::new(),
                mark => format!("<sup>{}</sup>", safe(mark)),
            };
            let _ = write!(
                out,
                "<td class=\"s{step}\"{title}>{}{mark}</td>",
                safe(&cell.text)
            );
        }
        out += "</tr>\n";
    }
    out += "</tbody></table></div>\n";
    let steps: String = (0..STEPS)
        .map(|i| format!("<i class=\"s{i}\"></i>"))
        .collect();
    let (low, high) = if shared {
        (numbers::short(all.0), numbers::short(all.1))
    } else {
        ("lowest of a column".to_owned(), "highest".to_owned())
    };
    let _ = writeln!(
        out,
        "<div class=\"legend\" aria-hidden=\"true\">{low} <span>{steps}</span> {high}</div>"
    );
    if table.rows.len() > ROWS {
        let more = table.rows.len() - ROWS;
        let _ = writeln!(
            out,
            "<p class=\"notes\">{more} more rows are in the table.</p>"
        );
    }
    out
}
