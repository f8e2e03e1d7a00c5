//! From the figures behind one cell to the cell.

use super::super::figure::{Figure, Form, Reading, SELECTED, write};
use crate::table::{Cell, Note};

/// The sign of a mean over fewer points than asked.
const PARTIAL: &str = "†";

/// Which notes a table needs.
#[derive(Default)]
pub(super) struct Flags {
    pub(super) interval: bool,
    pub(super) deviation: bool,
    pub(super) paired: bool,
    pub(super) selected: bool,
    pub(super) partial: bool,
}

impl Flags {
    /// The notes; `mean_over` is the axis that means were taken over.
    pub(super) fn notes(&self, mean_over: Option<&str>) -> Vec<Note> {
        let mut notes = Vec::new();
        if self.selected {
            notes.push(Note::marked(
                SELECTED,
                "selected on this split: labels of the scored images had a part in choosing the prompts.",
            ));
        }
        if self.partial {
            notes.push(Note::marked(
                PARTIAL,
                "mean over fewer points than asked: the other nodes failed or did not run.",
            ));
        }
        if self.interval {
            notes.push(Note::new("In brackets: the 95% Wilson interval."));
        }
        if self.deviation
            && let Some(axis) = mean_over
        {
            notes.push(Note::new(format!(
                "Mean over `{axis}` ± the sample's standard deviation."
            )));
        }
        if self.paired {
            notes.push(Note::new(
                "Difference from the baseline in percentage points; won and lost: images that only this \
                 classifier, and only the baseline, got right; p: McNemar's exact test.",
            ));
        }
        notes
    }
}

/// The cell of `figures`: the only one, or their mean with `mean`.
pub(super) fn figure_cell(figures: &[Figure], mean: bool, flags: &mut Flags) -> Cell {
    let readings: Vec<&Reading> = figures
        .iter()
        .filter_map(|figure| match figure {
            Figure::Reading(reading) => Some(reading),
            _ => None,
        })
        .collect();
    let cell = match readings.as_slice() {
        [] if figures.is_empty() => return Cell::default(),
        [] if figures.contains(&Figure::Unknown) => Cell {
            text: "?".into(),
            ..Cell::missing()
        },
        [] if figures.contains(&Figure::Failed) => Cell::failed(),
        [] => Cell::missing(),
        [first, ..] if !mean || figures.len() == 1 => {
            flags.interval |= first.interval.is_some();
            flags.paired |= first.paired.is_some();
            first.cell()
        }
        [first, ..] => {
            let cell = mean_cell(&readings, first, figures.len());
            flags.deviation |= readings.len() > 1;
            flags.partial |= readings.len() < figures.len();
            cell
        }
    };
    flags.selected |= cell.mark.contains(SELECTED);
    cell
}

/// Mean and sample deviation (divisor n − 1) of `readings`.
fn mean_cell(readings: &[&Reading], first: &Reading, asked: usize) -> Cell {
    let n = readings.len() as f64;
    let mean = readings.iter().map(|r| r.value).sum::<f64>() / n;
    let form = match first.form {
        Form::Count => Form::Plain,
        form => form,
    };
    let mut cell = Cell::number(mean, write(mean, form));
    if readings.len() > 1 {
        let squares = readings.iter().map(|r| (r.value - mean).powi(2));
        let deviation = (squares.sum::<f64>() / (n - 1.0)).sqrt();
        let written = write(deviation, form);
        cell.detail = format!("± {}", written.trim_start_matches('+'));
        cell.more = vec![("deviation", deviation), ("n", n)];
    }
    if readings.len() < asked {
        let comma = if cell.detail.is_empty() { "" } else { ", " };
        cell.detail += &format!("{comma}{} of {asked}", readings.len());
    }
    let selected = readings.iter().any(|r| r.selected);
    cell.mark = match (selected, readings.len() < asked) {
        (true, true) => "*†",
        (true, false) => SELECTED,
        (false, true) => PARTIAL,
        (false, false) => "",
    };
    cell
}
