//! A table as comma-separated values (RFC 4180).

use super::{Cell, Table};

impl Table {
    /// The table as CSV: numbers unrounded, and a column of its own for every
    /// number behind a detail (`eval.top1 low`). Titles and notes are left out.
    pub fn to_csv(&self) -> String {
        let more: Vec<Vec<&str>> = (0..self.columns.len())
            .map(|i| {
                let mut names = Vec::new();
                for cell in self.rows.iter().filter_map(|row| row.get(i)) {
                    for (name, _) in &cell.more {
                        if !names.contains(name) {
                            names.push(*name);
                        }
                    }
                }
                names
            })
            .collect();
        let heads = self.columns.iter().zip(&more).flat_map(|(column, more)| {
            let more = more.iter().map(|name| format!("{} {name}", column.head));
            std::iter::once(column.head.clone()).chain(more)
        });
        let mut out = record(heads);
        for row in &self.rows {
            let fields = row.iter().zip(&more).flat_map(|(cell, more)| {
                let more = more.iter().map(|name| {
                    let found = cell.more.iter().find(|(n, _)| n == name);
                    found.map_or(String::new(), |(_, x)| x.to_string())
                });
                std::iter::once(main(cell)).chain(more)
            });
            out += &record(fields);
        }
        out
    }
}

fn main(cell: &Cell) -> String {
    match (cell.number, cell.style) {
        (Some(number), _) => number.to_string(),
        (None, super::Style::Missing) => String::new(),
        (None, _) => cell.text.clone(),
    }
}

fn record(fields: impl Iterator<Item = String>) -> String {
    fields
        .map(|field| quote(&field))
        .collect::<Vec<_>>()
        .join(",")
        + "\r\n"
}

fn quote(field: &str) -> String {
    if field.contains(['"', ',', '\r', '\n']) || field.starts_with(' ') || field.ends_with(' ') {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::sample, quote};

    #[test]
    fn csv_keeps_every_digit_and_every_number() {
        insta::assert_snapshot!(sample().to_csv());
    }

    #[test]
    fn records_end_as_the_rfc_says() {
        assert!(sample().to_csv().lines().count() == 4);
        assert!(sample().to_csv().ends_with("\r\n"));
    }

    #[test]
    fn a_field_is_quoted_only_where_it_must_be() {
        assert_eq!(quote("plain"), "plain");
        assert_eq!(quote("a,b"), "\"a,b\"");
        assert_eq!(quote("say \"x\""), "\"say \"\"x\"\"\"");
        assert_eq!(quote("two\nlines"), "\"two\nlines\"");
    }
}
