//! A table as an HTML fragment; the page around it brings the style.

use std::fmt::Write as _;

use html_escape::encode_safe;

use super::{Cell, Style, Table};

impl Table {
    /// The table as a `<figure>` with caption, table and notes, everything
    /// escaped. Classes: `num`, `failed`, `missing`, `detail`.
    pub fn to_html(&self) -> String {
        let mut out = format!(
            "<figure class=\"table\" id=\"table-{}\">\n",
            encode_safe(&self.name)
        );
        if !self.title.is_empty() {
            let _ = writeln!(out, "<figcaption>{}</figcaption>", encode_safe(&self.title));
        }
        out += "<div class=\"scroll\" tabindex=\"0\"><table>\n<thead><tr>";
        for column in &self.columns {
            let class = if column.right { " class=\"num\"" } else { "" };
            let _ = write!(
                out,
                "<th scope=\"col\"{class}>{}</th>",
                encode_safe(&column.head)
            );
        }
        out += "</tr></thead>\n<tbody>\n";
        for row in &self.rows {
            out += "<tr>";
            for (cell, column) in row.iter().zip(&self.columns) {
                out += &html_cell(cell, column.right);
            }
            out += "</tr>\n";
        }
        out += "</tbody>\n</table></div>\n";
        if !self.notes.is_empty() {
            out += "<ul class=\"notes\">\n";
            for note in &self.notes {
                let mark = match note.mark {
                    "" => String::new(),
                    mark => format!("<sup>{}</sup> ", encode_safe(mark)),
                };
                let _ = writeln!(out, "<li>{mark}{}</li>", encode_safe(&note.text));
            }
            out += "</ul>\n";
        }
        out + "</figure>\n"
    }
}

fn html_cell(cell: &Cell, right: bool) -> String {
    let mut classes = Vec::new();
    if right {
        classes.push("num");
    }
    match cell.style {
        Style::Failed => classes.push("failed"),
        Style::Missing => classes.push("missing"),
        Style::Plain | Style::Head => {}
    }
    let class = match classes.as_slice() {
        [] => String::new(),
        list => format!(" class=\"{}\"", list.join(" ")),
    };
    let (tag, scope) = match cell.style {
        Style::Head => ("th", " scope=\"row\""),
        _ => ("td", ""),
    };
    let mut out = format!("<{tag}{scope}{class}>{}", encode_safe(&cell.text));
    if !cell.mark.is_empty() {
        let _ = write!(out, "<sup>{}</sup>", encode_safe(cell.mark));
    }
    if !cell.detail.is_empty() {
        let _ = write!(
            out,
            " <span class=\"detail\">{}</span>",
            encode_safe(&cell.detail)
        );
    }
    let _ = write!(out, "</{tag}>");
    out
}

#[cfg(test)]
mod tests {
    use super::super::tests::sample;

    #[test]
    fn html_escapes_everything_it_is_given() {
        let html = sample().to_html();
        assert!(!html.contains("<b>") && html.contains("&lt;b&gt;"));
        insta::assert_snapshot!(html);
    }
}
