//! A table as aligned text for a terminal or a log.

use std::fmt::Write as _;

use unicode_width::UnicodeWidthStr as _;

use super::{Cell, Style, Table, one_line};

const BOLD: &str = "\u{1b}[1m";
const DIM: &str = "\u{1b}[2m";
const RED: &str = "\u{1b}[31m";
const RESET: &str = "\u{1b}[0m";

/// Space between columns.
const GAP: &str = "   ";

/// Widths of a column's three parts.
#[derive(Clone, Copy, Default)]
struct Widths {
    main: usize,
    mark: usize,
    detail: usize,
}

impl Widths {
    fn total(self) -> usize {
        self.main + self.mark + self.detail + usize::from(self.detail > 0)
    }
}

impl Table {
    /// The table as aligned text that ends with a new line.
    ///
    /// With `color`, escape sequences stress what the words say already. When
    /// the lines would be longer than `width`, details (intervals, deviations)
    /// are left out and a note says so.
    pub fn to_text(&self, color: bool, width: Option<usize>) -> String {
        let full = self.widths(true);
        let gaps = GAP.len() * self.columns.len().saturating_sub(1);
        let length = full.iter().map(|w| w.total()).sum::<usize>() + gaps;
        let has_details = full.iter().any(|w| w.detail > 0);
        let fits = width.is_none_or(|width| length <= width);
        if fits || !has_details {
            self.write_text(color, true, &full)
        } else {
            self.write_text(color, false, &self.widths(false))
        }
    }

    fn widths(&self, details: bool) -> Vec<Widths> {
        self.columns
            .iter()
            .enumerate()
            .map(|(i, column)| {
                let mut widths = Widths::default();
                for cell in self.rows.iter().filter_map(|row| row.get(i)) {
                    let part = |text: &str| one_line(text).width();
                    widths.main = widths.main.max(part(&cell.text));
                    widths.mark = widths.mark.max(part(cell.mark));
                    if details {
                        widths.detail = widths.detail.max(part(&cell.detail));
                    }
                }
                // A heading longer than its cells widens the part that absorbs it best.
                let lack = one_line(&column.head)
                    .width()
                    .saturating_sub(widths.total());
                if widths.detail > 0 {
                    widths.detail += lack;
                } else {
                    widths.main += lack;
                }
                widths
            })
            .collect()
    }

    fn write_text(&self, color: bool, details: bool, widths: &[Widths]) -> String {
        let paint = |text: &str, code: &str| {
            if color && !text.trim().is_empty() {
                format!("{code}{text}{RESET}")
            } else {
                text.to_owned()
            }
        };
        let mut out = String::new();
        if !self.title.is_empty() {
            let _ = writeln!(out, "{}\n", paint(&one_line(&self.title), BOLD));
        }
        let heads = self.columns.iter().zip(widths).map(|(column, widths)| {
            let head = one_line(&column.head);
            let right = column.right && widths.detail == 0;
            let main = widths.total() - widths.mark;
            paint(
                &pad(&head, if right { main } else { widths.total() }, right),
                BOLD,
            ) + &" ".repeat(if right { widths.mark } else { 0 })
        });
        push_line(&mut out, &heads.collect::<Vec<_>>());
        let rules = widths.iter().map(|w| paint(&"─".repeat(w.total()), DIM));
        push_line(&mut out, &rules.collect::<Vec<_>>());
        for row in &self.rows {
            let cells = self.columns.iter().zip(widths).zip(row);
            let cells = cells.map(|((column, widths), cell)| {
                let code = match cell.style {
                    Style::Failed => RED,
                    Style::Missing => DIM,
                    Style::Plain | Style::Head => "",
                };
                let main = pad(&one_line(&cell.text), widths.main, column.right);
                let main = if code.is_empty() {
                    main
                } else {
                    paint(&main, code)
                };
                let mut text = main + &pad(cell.mark, widths.mark, false);
                if widths.detail > 0 {
                    let detail = if details {
                        one_line(&cell.detail)
                    } else {
                        String::new()
                    };
                    text += " ";
                    text += &paint(&pad(&detail, widths.detail, false), DIM);
                }
                text
            });
            push_line(&mut out, &cells.collect::<Vec<_>>());
        }
        let left_out =
            (!details).then_some("Brackets and deviations are left out: the line is too short.");
        let notes = self.notes.iter().map(|note| {
            let space = if note.mark.is_empty() { "" } else { " " };
            format!("{}{space}{}", note.mark, one_line(&note.text))
        });
        let notes: Vec<_> = notes.chain(left_out.map(str::to_owned)).collect();
        if !notes.is_empty() {
            out.push('\n');
        }
        for note in notes {
            let _ = writeln!(out, "{}", paint(&note, DIM));
        }
        out
    }
}

fn push_line(out: &mut String, cells: &[String]) {
    out.push_str(cells.join(GAP).trim_end());
    out.push('\n');
}

/// `text` filled with spaces to `width` columns.
pub(super) fn pad(text: &str, width: usize, right: bool) -> String {
    let space = " ".repeat(width.saturating_sub(text.width()));
    if right {
        space + text
    } else {
        text.to_owned() + &space
    }
}

impl Cell {
    /// Text, mark and detail on one line, for formats without parts.
    pub(super) fn flat(&self) -> String {
        let space = if self.detail.is_empty() { "" } else { " " };
        format!("{}{}{space}{}", self.text, self.mark, self.detail)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::sample;

    #[test]
    fn text_is_aligned_and_harmless_to_a_terminal() {
        insta::assert_snapshot!(sample().to_text(false, None));
    }

    #[test]
    fn a_short_line_drops_the_details_and_says_so() {
        insta::assert_snapshot!(sample().to_text(false, Some(50)));
    }

    #[test]
    fn colour_adds_nothing_but_escape_sequences() {
        let colored = sample().to_text(true, None);
        assert!(colored.contains("\u{1b}[31mfailed") || colored.contains("failed\u{1b}[0m"));
        let mut plain = String::new();
        let mut rest = colored.as_str();
        while let Some((before, after)) = rest.split_once('\u{1b}') {
            plain += before;
            rest = after.split_once('m').map_or("", |(_, rest)| rest);
        }
        plain += rest;
        let trimmed = |text: &str| {
            text.lines()
                .map(|l| l.trim_end().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(trimmed(&plain), trimmed(&sample().to_text(false, None)));
    }
}
