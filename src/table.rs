//! Rows and columns of results, and how they are written: aligned text,
//! Markdown, CSV, LaTeX and HTML.

mod csv;
mod html;
mod latex;
mod markdown;
mod text;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A table ready to be written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// Name for files: `table2`.
    pub name: String,
    /// A heading; empty for none.
    pub title: String,
    /// Its columns.
    pub columns: Vec<Column>,
    /// Its rows, each with one cell a column.
    pub rows: Vec<Vec<Cell>>,
    /// Explanations below it.
    pub notes: Vec<Note>,
    /// How a page draws it, beside its numbers.
    pub draw: Option<Draw>,
}

/// A drawing of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Draw {
    /// A line for each column over the rows, with bands.
    Lines,
    /// A bar for each row.
    Bars,
    /// Coloured cells.
    Heat,
}

/// A column's heading and side.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// The heading.
    pub head: String,
    /// Whether its cells stand on the right, as numbers do.
    pub right: bool,
}

impl Column {
    /// A column of words.
    pub fn words(head: impl Into<String>) -> Self {
        Self {
            head: head.into(),
            right: false,
        }
    }

    /// A column of numbers.
    pub fn numbers(head: impl Into<String>) -> Self {
        Self {
            head: head.into(),
            right: true,
        }
    }
}

/// How a cell differs from its neighbours; always visible in its text too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Style {
    /// An ordinary value.
    #[default]
    Plain,
    /// Names its row.
    Head,
    /// Its node failed.
    Failed,
    /// Nothing to show.
    Missing,
}

/// One cell.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Cell {
    /// What is read first: `70.35`.
    pub text: String,
    /// What qualifies it, in a lighter voice: `[69.4, 71.2]`.
    pub detail: String,
    /// A sign that refers to a note: `*`.
    pub mark: &'static str,
    /// The number behind the text, unrounded.
    pub number: Option<f64>,
    /// Numbers behind the detail, by name; CSV gives each a column.
    pub more: Vec<(&'static str, f64)>,
    /// How it differs from its neighbours.
    pub style: Style,
}

impl Cell {
    /// Words.
    pub fn words(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            ..Self::default()
        }
    }

    /// The name of a row.
    pub fn head(text: impl Into<String>) -> Self {
        Self {
            style: Style::Head,
            ..Self::words(text)
        }
    }

    /// A number and how it is written.
    pub fn number(number: f64, text: impl Into<String>) -> Self {
        Self {
            number: Some(number),
            ..Self::words(text)
        }
    }

    /// What stands where a node failed.
    pub fn failed() -> Self {
        Self {
            style: Style::Failed,
            ..Self::words("failed")
        }
    }

    /// What stands where a node gave nothing.
    pub fn missing() -> Self {
        Self {
            style: Style::Missing,
            ..Self::words("–")
        }
    }
}

/// A sentence below a table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Note {
    /// The sign in the cells that it explains; empty when it concerns all.
    pub mark: &'static str,
    /// The sentence.
    pub text: String,
}

impl Note {
    /// A note on the whole table.
    pub fn new(text: impl Into<String>) -> Self {
        Self {
            mark: "",
            text: text.into(),
        }
    }

    /// A note on the cells that carry `mark`.
    pub fn marked(mark: &'static str, text: impl Into<String>) -> Self {
        Self {
            mark,
            text: text.into(),
        }
    }
}

/// Cells and notes as they are read back: the few words that tables are made with
/// become ours again.
mod kept {
    use serde::{Deserialize, Deserializer};

    use super::Style;

    /// All signs and all names of numbers behind a detail.
    const WORDS: [&str; 13] = [
        "*",
        "†",
        "*†",
        "✓",
        "low",
        "high",
        "won",
        "lost",
        "p",
        "deviation",
        "n",
        "images",
        "",
    ];

    /// The word itself; one that no table of this version has is left out.
    fn word(text: &str) -> Option<&'static str> {
        WORDS.into_iter().find(|word| *word == text)
    }

    #[derive(Deserialize)]
    pub(super) struct Cell {
        text: String,
        detail: String,
        mark: String,
        number: Option<f64>,
        more: Vec<(String, f64)>,
        style: Style,
    }

    impl<'de> Deserialize<'de> for super::Cell {
        fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            let cell = Cell::deserialize(from)?;
            let more = cell.more.into_iter();
            Ok(Self {
                text: cell.text,
                detail: cell.detail,
                mark: word(&cell.mark).unwrap_or_default(),
                number: cell.number,
                more: more
                    .filter_map(|(name, x)| Some((word(&name)?, x)))
                    .collect(),
                style: cell.style,
            })
        }
    }

    #[derive(Deserialize)]
    pub(super) struct Note {
        mark: String,
        text: String,
    }

    impl<'de> Deserialize<'de> for super::Note {
        fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            let note = Note::deserialize(from)?;
            Ok(Self {
                mark: word(&note.mark).unwrap_or_default(),
                text: note.text,
            })
        }
    }
}

/// `text` on one line, without characters that would move a terminal's cursor.
pub fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\r' | '\t' => ' ',
            c if c.is_control() => '\u{fffd}',
            c => c,
        })
        .collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_back_as_it_was_kept() {
        let text = serde_json::to_string(&sample()).unwrap();
        assert_eq!(serde_json::from_str::<Table>(&text).unwrap(), sample());
    }

    /// A table with everything that a renderer has to get right.
    pub(crate) fn sample() -> Table {
        let share = |number: f64, low: f64, high: f64, mark| Cell {
            detail: format!("[{low:.1}, {high:.1}]"),
            mark,
            more: vec![("low", low), ("high", high)],
            ..Cell::number(number, format!("{number:.2}"))
        };
        Table {
            name: "table2".into(),
            title: "Accuracy & number of attributes".into(),
            columns: vec![
                Column::words("class"),
                Column::numbers("eval.top1"),
                Column::numbers("published"),
            ],
            rows: vec![
                vec![
                    Cell::head("cat_1 | 50%"),
                    share(70.346, 69.44, 71.23, ""),
                    Cell::number(70.35, "70.35"),
                ],
                vec![
                    Cell::head("自動車 <b>"),
                    share(9.5, 8.94, 10.09, "*"),
                    Cell::number(-0.25, "-0.25"),
                ],
                vec![
                    Cell::head("a \"quoted\", \u{1b}[31mname"),
                    Cell::failed(),
                    Cell::missing(),
                ],
            ],
            notes: vec![
                Note::marked("*", "Selected on this split."),
                Note::new("In brackets: the 95% interval."),
            ],
            draw: None,
        }
    }
}
