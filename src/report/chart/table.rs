//! From a result table to its chart.

mod heat;

use super::{
    super::figure::KEPT, Bar, Bars, Lines, Point, Series, X, bars, lines, lines::Frame, numbers,
};
use crate::table::{Cell, Draw, Style, Table};

/// Series of one unit share a chart when the largest numbers of each differ by
/// less than this factor; else the smaller ones would lie flat on the axis.
const FACTOR: f64 = 12.0;

/// Size of a chart among others.
const PANEL: Frame = Frame {
    width: 480.0,
    plot: 190.0,
    legend: true,
};

/// The chart of a table as an HTML fragment, or `None` when it has no numbers
/// that can be drawn this way.
///
/// The first column names the rows; every other column with a number is a
/// series, those headed `published` or `… published` dashed ones; what stands
/// beside them, ours minus the published figure, is left out. Names of rows
/// that are all numbers give an axis of numbers, a logarithmic one when they
/// are spread so. `low` and `high`, or `deviation`, of a cell give its
/// interval. Columns of different units or sizes get charts of their own, side
/// by side in a `<div class="charts">`.
pub fn of_table(table: &Table, draw: Draw) -> Option<String> {
    let columns = columns(table);
    if columns.is_empty() {
        return None;
    }
    match draw {
        Draw::Heat => Some(heat::heat(table, &columns)),
        Draw::Lines => line_charts(table, &columns),
        Draw::Bars => bar_charts(table, &columns),
    }
}

/// A column of numbers.
struct NumberColumn<'a> {
    head: &'a str,
    published: bool,
    cells: Vec<&'a Cell>,
}

impl NumberColumn<'_> {
    fn numbers(&self) -> impl Iterator<Item = f64> {
        self.cells.iter().filter_map(|cell| cell.number)
    }

    /// Whether it holds differences from a baseline, in percentage points.
    fn is_change(&self) -> bool {
        self.cells.iter().any(|cell| more(cell, "won").is_some())
    }

    /// How its numbers are written: digits after the point, and whether with a
    /// sign. Numbers of one unit are written alike.
    fn form(&self) -> (usize, bool) {
        let texts = || {
            let cells = self.cells.iter().filter(|cell| cell.number.is_some());
            cells.map(|cell| cell.text.as_str())
        };
        let digits = |text: &str| text.split_once('.').map_or(0, |(_, rest)| rest.len());
        (
            texts().map(digits).max().unwrap_or(0),
            self.is_change() || texts().any(|text| text.starts_with('+')),
        )
    }
}

/// The columns that are drawn, in order.
fn columns(table: &Table) -> Vec<NumberColumn<'_>> {
    let head = |i: usize| table.columns.get(i).map_or("", |c| c.head.as_str());
    let published = |i: usize| head(i) == "published" || head(i).ends_with(" published");
    (1..table.columns.len())
        .filter(|i| {
            let difference = head(*i) == "difference" || head(*i).ends_with("− published");
            !(difference && published(i - 1))
        })
        .map(|i| NumberColumn {
            head: head(i),
            published: published(i),
            cells: table.rows.iter().filter_map(|row| row.get(i)).collect(),
        })
        .filter(|column| column.numbers().any(super::drawable))
        .collect()
}

/// The columns that share an axis.
type Panel<'a> = Vec<&'a NumberColumn<'a>>;

fn panels<'a>(columns: &'a [NumberColumn<'a>]) -> Vec<Panel<'a>> {
    let largest = |column: &NumberColumn<'_>| {
        let sizes = column.numbers().filter(|n| super::drawable(*n));
        sizes.fold(0.0, |m: f64, n| m.max(n.abs()))
    };
    let alike = |a: &NumberColumn<'_>, b: &NumberColumn<'_>| {
        let (a_size, b_size) = (largest(a), largest(b));
        let close = a_size <= b_size * FACTOR && b_size <= a_size * FACTOR;
        a.form() == b.form() && (close || a_size == 0.0 || b_size == 0.0)
    };
    let mut panels: Vec<Panel<'a>> = Vec::new();
    for (i, column) in columns.iter().enumerate() {
        let before = i.checked_sub(1).map(|i| &columns[i]);
        let place = panels.iter().position(|panel| {
            // A published figure stands with ours, whatever their sizes.
            let ours = before.filter(|_| column.published);
            match ours {
                Some(ours) => panel.iter().any(|other| std::ptr::eq(*other, ours)),
                None => panel.iter().all(|other| alike(other, column)),
            }
        });
        match place {
            Some(place) => panels[place].push(column),
            None => panels.push(vec![column]),
        }
    }
    panels
}

/// What lies between `low` and `high` of a panel's cells, in words.
fn spread(panel: &Panel<'_>) -> &'static str {
    let cells = || panel.iter().flat_map(|column| &column.cells);
    let has = |name: &str| cells().any(|cell| more(cell, name).is_some());
    match (has("low"), has("deviation")) {
        (true, true) => "95% intervals, of means ± the standard deviation",
        (true, false) => "95% intervals",
        (false, true) => "mean ± standard deviation",
        (false, false) => "",
    }
}

fn more(cell: &Cell, name: &str) -> Option<f64> {
    let found = cell.more.iter().find(|(n, _)| *n == name);
    found.map(|(_, number)| *number)
}

/// Ends of a cell's interval.
fn ends(cell: &Cell) -> (Option<f64>, Option<f64>) {
    match (cell.number, more(cell, "deviation")) {
        (Some(mean), Some(by)) => (Some(mean - by), Some(mean + by)),
        _ => (more(cell, "low"), more(cell, "high")),
    }
}

/// The unit of a panel for its axis: shares with an interval are percentages.
fn unit(panel: &Panel<'_>) -> String {
    let changes = panel.iter().any(|column| column.is_change());
    let shares = panel.iter().any(|column| {
        let mut cells = column.cells.iter();
        cells.any(|cell| more(cell, "low").is_some() && more(cell, "high").is_some())
    });
    let ours: Vec<_> = panel.iter().filter(|column| !column.published).collect();
    match ours.as_slice() {
        [only] if changes => format!("{}, percentage points", only.head),
        _ if changes => "percentage points".to_owned(),
        [only] if shares && !only.head.contains('%') => format!("{}, %", only.head),
        [only] => only.head.to_owned(),
        _ if shares => "%".to_owned(),
        _ if panel.iter().all(|column| column.form().0 == 0) => "number".to_owned(),
        _ => "value".to_owned(),
    }
}

/// The table's notes that explain a mark in the panel, other than `but`.
fn notes(table: &Table, panel: &Panel<'_>, but: &str) -> Vec<String> {
    let used = |mark: &str| {
        let mut cells = panel.iter().flat_map(|column| &column.cells);
        !mark.is_empty() && mark != but && cells.any(|cell| cell.mark.contains(mark))
    };
    let notes = table.notes.iter().filter(|note| used(note.mark));
    notes
        .map(|note| format!("{} {}", note.mark, note.text))
        .collect()
}

/// Names of the rows as numbers, where all are.
fn row_numbers(table: &Table) -> Option<Vec<f64>> {
    let number = |row: &Vec<Cell>| {
        let cell = row.first()?;
        let number = cell.number.or_else(|| cell.text.trim().parse().ok());
        number.filter(|n| super::drawable(*n))
    };
    table.rows.iter().map(number).collect()
}

/// Whether numbers are spread like 3, 10, 30, 100: far, and mostly near the low end.
fn spread_out(numbers: &[f64]) -> bool {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.dedup();
    let [first, .., last] = sorted.as_slice() else {
        return false;
    };
    let widest = sorted.windows(2).map(|w| w[1] - w[0]).fold(0.0, f64::max);
    sorted.len() > 2 && *first > 0.0 && last / first >= 20.0 && widest > (last - first) * 0.5
}

fn line_charts(table: &Table, columns: &[NumberColumn<'_>]) -> Option<String> {
    let numbers = row_numbers(table);
    let x_log = numbers.as_deref().is_some_and(spread_out);
    let words = || table.rows.iter().map(|row| row_name(row)).collect();
    let panels = panels(columns);
    let chart = |panel: &Panel<'_>| Lines {
        title: title(table, panel, panels.len()),
        titled: false,
        x_label: table
            .columns
            .first()
            .map_or(String::new(), |c| c.head.clone()),
        y_label: unit(panel),
        x: match numbers {
            Some(_) => X::Numbers,
            None => X::Words(words()),
        },
        x_log,
        spread: spread(panel).to_owned(),
        series: panel
            .iter()
            .map(|column| Series {
                name: column.head.to_owned(),
                dashed: column.published,
                points: column
                    .cells
                    .iter()
                    .enumerate()
                    .filter(|(_, cell)| cell.number.is_some() || cell.style != Style::Plain)
                    .map(|(i, cell)| Point {
                        x: numbers.as_ref().map_or(i as f64, |n| n[i]),
                        y: cell.number.unwrap_or(f64::NAN),
                        low: ends(cell).0,
                        high: ends(cell).1,
                        mark: cell.mark,
                    })
                    .collect(),
            })
            .collect(),
        notes: notes(table, panel, ""),
    };
    let charts: Vec<_> = match panels.as_slice() {
        [only] => vec![lines(&chart(only))],
        list => list
            .iter()
            .map(|panel| lines::draw(&chart(panel), PANEL))
            .collect(),
    };
    together(&charts)
}

fn bar_charts(table: &Table, columns: &[NumberColumn<'_>]) -> Option<String> {
    let panels = panels(columns);
    let chart = |panel: &Panel<'_>| {
        let mut cells = panel.iter().flat_map(|column| &column.cells);
        let kept = cells.any(|cell| cell.mark.contains(KEPT));
        let bar = |label: &str, cell: &Cell, published: bool| Bar {
            label: label.to_owned(),
            value: cell.number.unwrap_or(f64::NAN),
            low: ends(cell).0,
            high: ends(cell).1,
            chosen: if kept {
                cell.mark.contains(KEPT)
            } else {
                !published
            },
            detail: match cell.number {
                None => cell.text.clone(),
                Some(_) => cell.mark.replace(KEPT, ""),
            },
        };
        let shown = |cell: &Cell| cell.number.is_some() || cell.style != Style::Plain;
        let groups = if let [only] = panel.as_slice() {
            let rows = table.rows.iter().zip(&only.cells);
            let rows = rows.filter(|(_, cell)| shown(cell));
            let bars = rows.map(|(row, cell)| bar(&row_name(row), cell, only.published));
            vec![(String::new(), bars.collect())]
        } else {
            let group = |(i, row): (usize, &Vec<Cell>)| {
                let cells = panel.iter().filter_map(|column| {
                    let cell = column.cells.get(i).filter(|cell| shown(cell))?;
                    Some(bar(column.head, cell, column.published))
                });
                (row_name(row), cells.collect())
            };
            table.rows.iter().enumerate().map(group).collect()
        };
        Bars {
            title: title(table, panel, panels.len()),
            titled: false,
            x_label: unit(panel),
            spread: spread(panel).to_owned(),
            chosen: if kept { "kept" } else { "ours" }.to_owned(),
            groups,
            // The chart itself says what an accent means.
            notes: notes(table, panel, KEPT),
        }
    };
    let charts: Vec<_> = match panels.as_slice() {
        [only] => vec![bars(&chart(only))],
        list => list
            .iter()
            .map(|panel| bars::draw(&chart(panel), PANEL.width))
            .collect(),
    };
    together(&charts)
}

/// The title of a panel; among several, with the names of its columns.
fn title(table: &Table, panel: &Panel<'_>, panels: usize) -> String {
    let title = match table.title.as_str() {
        "" => &table.name,
        title => title,
    };
    if panels < 2 {
        return title.to_owned();
    }
    let heads: Vec<_> = panel.iter().map(|column| column.head).collect();
    format!("{title}: {}", heads.join(", "))
}

fn row_name(row: &[Cell]) -> String {
    let name = row.first().map_or("", |cell| cell.text.as_str());
    match name {
        "" => "all".to_owned(),
        name => name.to_owned(),
    }
}

fn together(charts: &[String]) -> Option<String> {
    match charts {
        [] => None,
        [only] => Some(format!(
            "<div class=\"scroll\" tabindex=\"0\">\n{only}</div>\n"
        )),
        list => Some(format!("<div class=\"charts\">\n{}</div>\n", list.concat())),
    }
}
