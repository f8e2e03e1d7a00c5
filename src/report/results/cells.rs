//! From the figures behind one cell to the cell.

use std::{collections::BTreeSet, fmt::Write as _};

use super::super::figure::{Figure, Form, KEPT, Reading, SELECTED, write};
use crate::{
    stats::mean_deviation,
    table::{Cell, Note},
};

/// The sign of a mean over fewer points than asked.
const PARTIAL: &str = "†";

/// What a cell shows that a note has to explain.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Flag {
    Selected,
    Partial,
    Interval,
    Deviation,
    Paired,
    Kept,
}

/// Which notes a table needs.
#[derive(Default)]
pub(super) struct Flags(BTreeSet<Flag>);

impl Flags {
    fn raise(&mut self, flag: Flag, when: bool) {
        if when {
            self.0.insert(flag);
        }
    }

    /// The notes; `mean_over` is the axis that means were taken over.
    pub(super) fn notes(&self, mean_over: Option<&str>) -> Vec<Note> {
        let note = |flag: &Flag| match flag {
            Flag::Selected => Note::marked(
                SELECTED,
                "selected on this split: labels of the scored images had a part in choosing the prompts.",
            ),
            Flag::Partial => Note::marked(
                PARTIAL,
                "mean over fewer points than asked: the other nodes failed or did not run.",
            ),
            Flag::Interval => Note::new("In brackets: the 95% Wilson interval."),
            Flag::Deviation => {
                let axis = mean_over.unwrap_or("all points");
                Note::new(format!(
                    "Mean over `{axis}` ± the sample's standard deviation; where `images` stands, ± half the \
                     mean width of the 95% intervals over images."
                ))
            }
            Flag::Kept => Note::marked(KEPT, "kept."),
            Flag::Paired => Note::new(
                "Difference from the baseline in percentage points, in brackets its 95% bootstrap interval; \
                 won and lost: images that only this classifier, and only the baseline, got right; p: \
                 McNemar's exact test.",
            ),
        };
        self.0.iter().map(note).collect()
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
        [] if matches!(figures, [Figure::Words(_), ..]) => words(figures),
        [] if figures.contains(&Figure::Unknown) => Cell {
            text: "?".into(),
            ..Cell::missing()
        },
        [] if figures.contains(&Figure::Failed) => Cell::failed(),
        [] => Cell::missing(),
        [first, ..] if !mean || figures.len() == 1 => {
            flags.raise(
                Flag::Interval,
                first.interval.is_some() && first.paired.is_none(),
            );
            flags.raise(Flag::Paired, first.paired.is_some());
            flags.raise(Flag::Kept, first.kept && !first.selected);
            first.cell()
        }
        [first, ..] => {
            let cell = mean_cell(&readings, first, figures.len());
            flags.raise(Flag::Deviation, readings.len() > 1);
            flags.raise(Flag::Partial, readings.len() < figures.len());
            cell
        }
    };
    flags.raise(Flag::Selected, cell.mark.contains(SELECTED));
    cell
}

/// Different words of several nodes, each once.
fn words(figures: &[Figure]) -> Cell {
    let mut all: Vec<&str> = Vec::new();
    for figure in figures {
        if let Figure::Words(words) = figure
            && !all.contains(&words.as_str())
        {
            all.push(words);
        }
    }
    Cell::words(all.join(" / "))
}

/// Mean and sample deviation (divisor n − 1) of `readings`.
fn mean_cell(readings: &[&Reading], first: &Reading, asked: usize) -> Cell {
    let n = readings.len() as f64;
    let values: Vec<f64> = readings.iter().map(|r| r.value).collect();
    let spread = mean_deviation(&values);
    let mean = spread.map_or(first.value, |(mean, _)| mean);
    let form = match first.form {
        Form::Count => Form::Plain,
        form => form,
    };
    let mut cell = Cell::number(mean, write(mean, form));
    if let Some((_, deviation)) = spread {
        let written = write(deviation, form);
        cell.detail = format!("± {}", written.trim_start_matches('+'));
        cell.more = vec![("deviation", deviation), ("n", n)];
        let halves: Option<Vec<f64>> = (readings.iter())
            .map(|r| r.interval.map(|(low, high)| (high - low) / 2.0))
            .collect();
        if let Some(halves) = halves {
            let half = halves.iter().sum::<f64>() / n;
            let _ = write!(cell.detail, ", images ± {half:.1}");
            cell.more.push(("images", half));
        }
    }
    if readings.len() < asked {
        let comma = if cell.detail.is_empty() { "" } else { ", " };
        let _ = write!(cell.detail, "{comma}{} of {asked}", readings.len());
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
