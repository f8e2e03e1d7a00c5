//! A comparison as text for a terminal: `runner diff RUN RUN`.

use std::{fmt::Write as _, time::Duration};

use super::{
    super::words, Cause, CellChange, Comparison, Direction, NodeChange, Presence, RunSide,
    TableChange, nodes::in_short, tables,
};
use crate::table::{Cell, Column, Note, Table, one_line};

/// Nodes that are listed in full.
const MOST: usize = 40;

/// What differs between two runs as text that ends with a new line.
pub fn compare_text(a: &RunSide, b: &RunSide) -> String {
    Comparison::of(a, b).to_text()
}

impl Comparison {
    /// The comparison as text that ends with a new line; an equal row or table is only counted.
    pub fn to_text(&self) -> String {
        let mut out = self.heads().to_text(false, None);
        let _ = writeln!(out, "\n{}", self.summary);
        if !self.parameters.is_empty() {
            out += "\nParameters\n";
            for change in &self.parameters {
                let (a, b) = in_short(&change.pair);
                let name = one_line(&change.pair.name);
                let _ = writeln!(out, "  {name}: {a} → {b}, in {}", some(&change.nodes));
            }
        }
        self.push_nodes(&mut out);
        for node in &self.nodes {
            push_contents(&mut out, node);
        }
        for table in &self.tables {
            push_table(&mut out, table);
        }
        out
    }

    /// Both runs, a line each.
    fn heads(&self) -> Table {
        let all = [
            ("started", [&self.a.started, &self.b.started]),
            ("machine", [&self.a.machine, &self.b.machine]),
            ("version", [&self.a.version, &self.b.version]),
            ("command", [&self.a.command, &self.b.command]),
        ];
        let shown: Vec<_> = all
            .iter()
            .filter(|(_, [a, b])| !a.is_empty() || !b.is_empty())
            .collect();
        let mut columns = vec![
            Column::words(""),
            Column::words("run"),
            Column::words("took"),
        ];
        columns.extend(shown.iter().map(|(head, _)| Column::words(*head)));
        let row = |side: usize| {
            let about = [&self.a, &self.b][side];
            let took = about.took.map_or("–".to_owned(), |seconds| {
                words::duration(Duration::try_from_secs_f64(seconds).unwrap_or_default())
            });
            let mut row = vec![
                Cell::head(["A", "B"][side]),
                Cell::words(about.id.clone()),
                Cell::words(took),
            ];
            row.extend(
                shown
                    .iter()
                    .map(|(_, both)| Cell::words(both[side].clone())),
            );
            row
        };
        Table {
            columns,
            rows: vec![row(0), row(1)],
            ..Table::default()
        }
    }

    fn push_nodes(&self, out: &mut String) {
        let of = |cause: Cause| {
            let nodes = self.nodes.iter().filter(move |node| node.cause == cause);
            nodes.collect::<Vec<_>>()
        };
        for (heading, list) in [
            ("Nodes that differ by themselves", of(Cause::Own)),
            ("Nodes that differ by what they read", of(Cause::Inputs)),
            ("Nodes that differ in their result alone", of(Cause::Result)),
        ] {
            if list.is_empty() {
                continue;
            }
            let _ = writeln!(out, "\n{heading}");
            for node in list.iter().take(MOST) {
                let id = one_line(&node.id);
                let _ = writeln!(out, "  {id}: {}", node.sentences.join("; "));
            }
            if list.len() > MOST {
                let _ = writeln!(out, "  and {} more", list.len() - MOST);
            }
        }
        for (name, list) in [("A", &self.only_a), ("B", &self.only_b)] {
            if !list.is_empty() {
                let _ = writeln!(out, "\nOnly in {name}: {}", some(list));
            }
        }
        if self.same_nodes > 0 && !self.equal {
            let verb = if self.same_nodes == 1 { "is" } else { "are" };
            let counted = words::counted(self.same_nodes, "node");
            let _ = writeln!(out, "\n{counted} {verb} the same.");
        }
    }
}

/// What a node chose or was answered otherwise.
fn push_contents(out: &mut String, node: &NodeChange) {
    if !node.attributes.is_empty() {
        let _ = writeln!(out, "\nAttributes of {}", one_line(&node.id));
        for change in &node.attributes {
            let signed = |sign: &str, list: &[String]| {
                let signed = list.iter().map(|x| format!("{sign}{}", one_line(x)));
                signed.collect::<Vec<_>>()
            };
            let mut parts = signed("− ", &change.lost);
            parts.extend(signed("+ ", &change.gained));
            if parts.is_empty() {
                parts.push("in another order".to_owned());
            }
            let class = one_line(&change.class);
            let _ = writeln!(out, "  {class}: {}", parts.join(", "));
        }
    }
    if !node.answers.is_empty() {
        let _ = writeln!(out, "\nAnswers of {}", one_line(&node.id));
        for change in &node.answers {
            let decimals = if change.name.ends_with("_percent") {
                2
            } else {
                0
            };
            let _ = writeln!(
                out,
                "  {}: {:.decimals$} → {:.decimals$}, {}",
                change.name.replace('_', " "),
                change.a,
                change.b,
                tables::write(change.b - change.a, decimals)
            );
        }
    }
}

fn push_table(out: &mut String, table: &TableChange) {
    let title = one_line(&table.title);
    match table.presence {
        Presence::OnlyA => return push_line(out, &format!("{title}: only in A.")),
        Presence::OnlyB => return push_line(out, &format!("{title}: only in B.")),
        Presence::Both if !table.changed => {
            return push_line(out, &format!("{title}: the same in both."));
        }
        Presence::Both => out.push('\n'),
    }
    let columns: Vec<usize> = (0..table.columns.len())
        .filter(|i| table.columns[*i].changed)
        .collect();
    let mut shown = Table {
        title: table.title.clone(),
        columns: vec![Column::words(table.corner.clone())],
        ..Table::default()
    };
    for i in &columns {
        let head = &table.columns[*i].head;
        shown.columns.push(Column::numbers(format!("{head}, A")));
        shown.columns.push(Column::numbers("B"));
        shown.columns.push(Column::numbers("B − A"));
    }
    let changed = |row: &&super::RowChange| row.changed || row.presence != Presence::Both;
    for row in table.rows.iter().filter(changed) {
        let mut cells = vec![Cell::head(match row.presence {
            Presence::Both => row.head.clone(),
            Presence::OnlyA => format!("{} (only in A)", row.head),
            Presence::OnlyB => format!("{} (only in B)", row.head),
        })];
        for i in &columns {
            let change = &row.cells[*i];
            let value = |(text, mark, _): &(String, String, String)| {
                Cell::words(format!(
                    "{}{mark}",
                    if text.is_empty() { "–" } else { text }
                ))
            };
            cells.extend([value(&change.a), value(&change.b), difference(change)]);
        }
        shown.rows.push(cells);
    }
    let same = table.rows.len() - shown.rows.len();
    if same > 0 {
        let verb = if same == 1 { "is" } else { "are" };
        let counted = words::counted(same, "row");
        shown
            .notes
            .push(Note::new(format!("{counted} {verb} the same.")));
    }
    *out += &shown.to_text(false, None);
}

fn difference(change: &CellChange) -> Cell {
    Cell::words(match change.direction {
        Direction::Same => "=".to_owned(),
        direction if change.text.is_empty() => direction.sign().to_owned(),
        direction => format!("{} {}", change.text, direction.sign()),
    })
}

fn push_line(out: &mut String, line: &str) {
    let _ = writeln!(out, "\n{line}");
}

/// The first few of many names.
fn some(names: &[String]) -> String {
    const SHOWN: usize = 8;
    let list: Vec<_> = names
        .iter()
        .take(SHOWN)
        .map(|name| one_line(name))
        .collect();
    let more = match names.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{}{more}", list.join(", "))
}
