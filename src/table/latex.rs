//! A table as LaTeX for the `booktabs` package.

use std::fmt::Write as _;

use super::{Cell, Style, Table, one_line};

impl Table {
    /// The table as a `table` environment; needs `\usepackage{booktabs}`.
    pub fn to_latex(&self) -> String {
        let sides: String = self
            .columns
            .iter()
            .map(|column| if column.right { 'r' } else { 'l' })
            .collect();
        let mut out = format!(
            "% \\usepackage{{booktabs}}\n\\begin{{table}}\n\\centering\n\\begin{{tabular}}{{{sides}}}\n\\toprule\n"
        );
        let heads: Vec<_> = self.columns.iter().map(|c| escape(&c.head)).collect();
        out += &line(&heads);
        out += "\\midrule\n";
        for row in &self.rows {
            out += &line(&row.iter().map(cell).collect::<Vec<_>>());
        }
        out += "\\bottomrule\n\\end{tabular}\n";
        for note in &self.notes {
            let mark = superscript(note.mark);
            let _ = writeln!(
                out,
                "\\par\\smallskip{{\\footnotesize {mark}{}}}",
                escape(&note.text)
            );
        }
        if !self.title.is_empty() {
            let _ = writeln!(out, "\\caption{{{}}}", escape(&self.title));
        }
        let _ = writeln!(out, "\\label{{tab:{}}}\n\\end{{table}}", label(&self.name));
        out
    }
}

fn line(cells: &[String]) -> String {
    cells.join(" & ") + " \\\\\n"
}

fn cell(cell: &Cell) -> String {
    let text = match (cell.number, cell.style) {
        // Signs are mathematics: a hyphen is no minus.
        (Some(_), _) if cell.text.starts_with(['+', '-']) => format!("${}$", cell.text),
        (_, Style::Failed) => format!("\\textit{{{}}}", escape(&cell.text)),
        _ => escape(&cell.text),
    };
    let mark = superscript(cell.mark);
    if cell.detail.is_empty() {
        text + &mark
    } else {
        format!("{text}{mark} {{\\footnotesize {}}}", escape(&cell.detail))
    }
}

fn superscript(mark: &str) -> String {
    match mark {
        "" => String::new(),
        "†" => "$^{\\dagger}$".into(),
        "‡" => "$^{\\ddagger}$".into(),
        other => format!("$^{{{}}}$", escape(other)),
    }
}

/// Characters that a label may hold without surprises.
fn label(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect()
}

fn escape(text: &str) -> String {
    let mut out = String::new();
    for c in one_line(text).chars() {
        match c {
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => {
                out.push('\\');
                out.push(c);
            }
            '\\' => out += "\\textbackslash{}",
            '~' => out += "\\textasciitilde{}",
            '^' => out += "\\textasciicircum{}",
            '<' => out += "\\textless{}",
            '>' => out += "\\textgreater{}",
            '|' => out += "\\textbar{}",
            '"' => out += "''",
            '±' => out += "$\\pm$",
            '−' => out += "$-$",
            '–' => out += "--",
            '…' => out += "\\ldots{}",
            '\u{fffd}' => out.push('?'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{super::tests::sample, escape};

    #[test]
    fn latex_uses_the_rules_of_booktabs() {
        insta::assert_snapshot!(sample().to_latex());
    }

    #[test]
    fn no_character_of_latex_survives_unescaped() {
        assert_eq!(
            escape(r"50% {a_b} \input"),
            r"50\% \{a\_b\} \textbackslash{}input"
        );
    }
}
