//! A table as GitHub-flavoured Markdown.

use std::fmt::Write as _;

use unicode_width::UnicodeWidthStr as _;

use super::{Table, one_line, text::pad};

impl Table {
    /// The table as Markdown, its source aligned too.
    pub fn to_markdown(&self) -> String {
        let heads: Vec<_> = self.columns.iter().map(|c| escape(&c.head)).collect();
        let rows: Vec<Vec<_>> = self
            .rows
            .iter()
            .map(|row| row.iter().map(|cell| escape(&cell.flat())).collect())
            .collect();
        let widths: Vec<_> = (0..heads.len())
            .map(|i| {
                let cells = rows.iter().filter_map(|row| row.get(i));
                let widest = cells.map(|cell| cell.width()).max().unwrap_or(0);
                widest.max(heads[i].width()).max(3)
            })
            .collect();
        let line = |cells: &[String]| {
            let cells = cells.iter().zip(&widths).zip(&self.columns);
            let cells: Vec<_> = cells
                .map(|((cell, width), column)| pad(cell, *width, column.right))
                .collect();
            format!("| {} |\n", cells.join(" | "))
        };
        let mut out = String::new();
        if !self.title.is_empty() {
            let _ = writeln!(out, "**{}**\n", escape(&self.title));
        }
        out += &line(&heads);
        let rules: Vec<_> = self
            .columns
            .iter()
            .zip(&widths)
            .map(|(column, width)| {
                if column.right {
                    "-".repeat(width - 1) + ":"
                } else {
                    "-".repeat(*width)
                }
            })
            .collect();
        out += &line(&rules);
        for row in &rows {
            out += &line(row);
        }
        if !self.notes.is_empty() {
            out.push('\n');
        }
        for note in &self.notes {
            let space = if note.mark.is_empty() { "" } else { " " };
            let text = format!("{}{space}{}", note.mark, note.text);
            let _ = writeln!(out, "{}  ", escape(&text));
        }
        out
    }
}

/// `text` with everything escaped that Markdown would read; an underscore
/// inside a word stays, as `GitHub` does not take it for emphasis.
fn escape(text: &str) -> String {
    let text: Vec<char> = one_line(text).chars().collect();
    let mut out = String::new();
    for (i, c) in text.iter().enumerate() {
        let word = |at: Option<usize>| {
            at.and_then(|at| text.get(at))
                .is_some_and(|c| c.is_alphanumeric())
        };
        match c {
            '_' if word(i.checked_sub(1)) && word(Some(i + 1)) => {}
            '\\' | '|' | '*' | '_' | '`' | '~' => out.push('\\'),
            '<' => {
                out += "&lt;";
                continue;
            }
            '>' => {
                out += "&gt;";
                continue;
            }
            '&' => {
                out += "&amp;";
                continue;
            }
            _ => {}
        }
        out.push(*c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{super::tests::sample, escape};

    #[test]
    fn markdown_is_aligned_in_its_source() {
        insta::assert_snapshot!(sample().to_markdown());
    }

    #[test]
    fn only_what_markdown_reads_is_escaped() {
        assert_eq!(escape("mean_per_class"), "mean_per_class");
        assert_eq!(escape("_x_ a|b *c* <i>"), r"\_x\_ a\|b \*c\* &lt;i&gt;");
    }
}
