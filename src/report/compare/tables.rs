//! Tables of two runs, number by number.

use serde::Serialize;

use crate::table::{Cell, Style, Table};

/// In which of two runs something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    /// In both.
    Both,
    /// In the first only.
    OnlyA,
    /// In the second only.
    OnlyB,
}

/// A table of two runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TableChange {
    /// Its name for files.
    pub name: String,
    /// Its heading.
    pub title: String,
    /// Who has it.
    pub presence: Presence,
    /// Whether any cell differs.
    pub changed: bool,
    /// Heading of the names of the rows.
    pub corner: String,
    /// Columns of either run, without the names of the rows.
    pub columns: Vec<ColumnChange>,
    /// Rows of either run.
    pub rows: Vec<RowChange>,
    /// Sentences below the tables of either run: the mark in the cells, which may be empty, and the words.
    pub notes: Vec<(String, String)>,
}

/// A column of two tables.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ColumnChange {
    /// Its heading.
    pub head: String,
    /// Who has it.
    pub presence: Presence,
    /// Whether any of its cells differs in a row of both runs.
    pub changed: bool,
}

/// A row of two tables.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RowChange {
    /// Its name.
    pub head: String,
    /// Who has it.
    pub presence: Presence,
    /// Whether any of its cells differs.
    pub changed: bool,
    /// A cell a column.
    pub cells: Vec<CellChange>,
}

/// A cell of two tables.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CellChange {
    /// Text, mark and detail in the first run.
    pub a: (String, String, String),
    /// Text, mark and detail in the second run.
    pub b: (String, String, String),
    /// The number in the second run minus that in the first.
    pub difference: Option<f64>,
    /// The difference as it is written: `+0.85`; empty without one.
    pub text: String,
    /// Where it went.
    pub direction: Direction,
}

/// How a cell differs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Not at all.
    #[default]
    Same,
    /// A larger number in the second run.
    Up,
    /// A smaller number in the second run.
    Down,
    /// In words, in an interval, or in one run only.
    Other,
}

impl Direction {
    /// Its sign.
    pub const fn sign(self) -> &'static str {
        match self {
            Self::Same => "",
            Self::Up => "▲",
            Self::Down => "▼",
            Self::Other => "≠",
        }
    }
}

/// The tables of both runs, in the order of `b`, then those that only `a` has.
pub(super) fn changes(a: &[Table], b: &[Table]) -> Vec<TableChange> {
    let names = |list: &[Table]| list.iter().map(|table| table.name.clone()).collect();
    let empty = Table::default();
    union(names(b), names(a))
        .into_iter()
        .map(|(_, of_b, of_a)| {
            let (before, now) = (of_a.map(|i| &a[i]), of_b.map(|i| &b[i]));
            let presence = presence(before.is_some(), now.is_some());
            table(before.unwrap_or(&empty), now.unwrap_or(&empty), presence)
        })
        .collect()
}

fn presence(a: bool, b: bool) -> Presence {
    match (a, b) {
        (true, false) => Presence::OnlyA,
        (false, true) => Presence::OnlyB,
        _ => Presence::Both,
    }
}

/// Names of either list, those of the first in order, then the rest of the
/// second, with their places. The second of two equal names pairs with the second.
fn union(first: Vec<String>, second: Vec<String>) -> Vec<(String, Option<usize>, Option<usize>)> {
    let mut left: Vec<Option<String>> = second.into_iter().map(Some).collect();
    let mut out = Vec::new();
    for (i, name) in first.into_iter().enumerate() {
        let place = left.iter().position(|other| other.as_ref() == Some(&name));
        if let Some(place) = place {
            left[place] = None;
        }
        out.push((name, Some(i), place));
    }
    for (i, name) in left.into_iter().enumerate() {
        out.extend(name.map(|name| (name, None, Some(i))));
    }
    out
}

fn table(a: &Table, b: &Table, presence: Presence) -> TableChange {
    let heads = |table: &Table| {
        let columns = table.columns.iter().skip(1);
        columns.map(|column| column.head.clone()).collect()
    };
    let names = |table: &Table| {
        let name = |row: &Vec<Cell>| row.first().map_or(String::new(), |c| c.text.clone());
        table.rows.iter().map(name).collect()
    };
    let columns = union(heads(b), heads(a));
    let cell = |table: &Table, row: Option<usize>, column: Option<usize>| {
        table.rows.get(row?)?.get(column? + 1).cloned()
    };
    let rows: Vec<RowChange> = union(names(b), names(a))
        .into_iter()
        .map(|(head, row_b, row_a)| {
            let cells: Vec<CellChange> = columns
                .iter()
                .map(|(_, column_b, column_a)| {
                    change(
                        cell(a, row_a, *column_a).as_ref(),
                        cell(b, row_b, *column_b).as_ref(),
                    )
                })
                .collect();
            RowChange {
                head,
                presence: self::presence(row_a.is_some(), row_b.is_some()),
                changed: cells.iter().any(|cell| cell.direction != Direction::Same),
                cells,
            }
        })
        .collect();
    // A row of one run alone has nothing to be compared with.
    let differs = |i: usize| {
        let both = rows.iter().filter(|row| row.presence == Presence::Both);
        both.map(|row| row.cells[i].direction)
            .any(|direction| direction != Direction::Same)
    };
    let columns = columns
        .iter()
        .enumerate()
        .map(|(i, (head, of_b, of_a))| ColumnChange {
            head: head.clone(),
            presence: self::presence(of_a.is_some(), of_b.is_some()),
            changed: differs(i),
        })
        .collect();
    let some = if presence == Presence::OnlyA { a } else { b };
    let mut notes: Vec<(String, String)> = Vec::new();
    for note in b.notes.iter().chain(&a.notes) {
        let note = (note.mark.to_owned(), note.text.clone());
        if !notes.contains(&note) {
            notes.push(note);
        }
    }
    TableChange {
        name: some.name.clone(),
        title: if some.title.is_empty() {
            some.name.clone()
        } else {
            some.title.clone()
        },
        presence,
        changed: rows
            .iter()
            .any(|row| row.changed || row.presence != Presence::Both),
        corner: some
            .columns
            .first()
            .map_or(String::new(), |c| c.head.clone()),
        columns,
        rows,
        notes,
    }
}

fn change(a: Option<&Cell>, b: Option<&Cell>) -> CellChange {
    let written = |cell: Option<&Cell>| {
        cell.map_or_else(Default::default, |cell| {
            (cell.text.clone(), cell.mark.to_owned(), cell.detail.clone())
        })
    };
    let (of_a, of_b) = (written(a), written(b));
    let numbers = a.and_then(|a| a.number).zip(b.and_then(|b| b.number));
    let difference = numbers.map(|(a, b)| b - a).filter(|d| d.is_finite());
    let fails = |cell: Option<&Cell>| cell.is_some_and(|cell| cell.style == Style::Failed);
    let direction = match difference {
        Some(difference) if difference > 0.0 => Direction::Up,
        Some(difference) if difference < 0.0 => Direction::Down,
        _ if of_a == of_b && fails(a) == fails(b) => Direction::Same,
        _ => Direction::Other,
    };
    let text = match difference {
        Some(difference) if direction != Direction::Same => {
            write(difference, decimals(&of_a.0).max(decimals(&of_b.0)))
        }
        _ => String::new(),
    };
    CellChange {
        a: of_a,
        b: of_b,
        difference,
        text,
        direction,
    }
}

fn decimals(text: &str) -> usize {
    text.split_once('.').map_or(0, |(_, rest)| {
        rest.bytes().take_while(u8::is_ascii_digit).count()
    })
}

/// A difference with its sign, and enough digits not to read zero.
pub(super) fn write(difference: f64, decimals: usize) -> String {
    let text = format!("{difference:+.decimals$}");
    if difference != 0.0 && text.bytes().all(|b| !(b'1'..=b'9').contains(&b)) {
        return format!("{difference:+.1e}");
    }
    text
}
