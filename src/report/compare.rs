//! What differs between two runs: parameters, nodes, choices and every number
//! of their tables. Computed once, shown as text, as a page or as JSON.

mod nodes;
mod page;
mod tables;
mod text;

use serde::Serialize;

pub use self::{
    nodes::{AnswersChange, AttributesChange, Cause, NodeChange, Pair, ParameterChange},
    page::compare_html,
    tables::{CellChange, ColumnChange, Direction, Presence, RowChange, TableChange},
    text::compare_text,
};
use super::AnswersSummary;
use crate::{artifact::Attributes, table::Table};

/// One of two runs; what is empty is not shown.
#[derive(Clone, Debug, Default)]
pub struct RunSide {
    /// Its identity in the history.
    pub id: String,
    /// When it started, as people write it.
    pub started: String,
    /// The command line.
    pub command: String,
    /// Name of the machine.
    pub machine: String,
    /// Version of the program.
    pub version: String,
    /// Seconds that it took.
    pub took: Option<f64>,
    /// Its tables, as [`super::build_tables`] gives them.
    pub tables: Vec<Table>,
    /// Its nodes, in the graph's order.
    pub nodes: Vec<SideNode>,
}

/// One node of a run.
#[derive(Clone, Debug, Default)]
pub struct SideNode {
    /// Unique name: `refine.propose@2`.
    pub id: String,
    /// Its kind with the version: `llm_generate version 3`.
    pub kind: String,
    /// Its key.
    pub key: Option<String>,
    /// What became of it: `hit`, `ran`, `failed` or `blocked`.
    pub state: String,
    /// Seconds that it took.
    pub seconds: Option<f64>,
    /// Its parameters as text.
    pub params: Vec<(String, String)>,
    /// What its key holds of its inputs: port and part (`model.text`) with a digest.
    pub inputs: Vec<(String, String)>,
    /// Digest of its artifact; `None` when it gave none.
    pub artifact: Option<String>,
    /// For a selection or a ranking: what it chose.
    pub attributes: Option<Attributes>,
    /// For an LLM's answers: what became of them.
    pub answers: Option<AnswersSummary>,
}

/// What differs between two runs, `a` and `b`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// About the first run.
    pub a: About,
    /// About the second run.
    pub b: About,
    /// Whether nothing that was computed differs.
    pub equal: bool,
    /// What differs, in one sentence.
    pub summary: String,
    /// Parameters that differ, each with the nodes where it does.
    pub parameters: Vec<ParameterChange>,
    /// Nodes of both runs that differ, in the order of `b`.
    pub nodes: Vec<NodeChange>,
    /// Nodes of both runs with the same key and the same result.
    pub same_nodes: usize,
    /// Nodes that only `a` has.
    pub only_a: Vec<String>,
    /// Nodes that only `b` has.
    pub only_b: Vec<String>,
    /// Tables of either run.
    pub tables: Vec<TableChange>,
}

/// About a run as a whole.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct About {
    /// Its identity in the history.
    pub id: String,
    /// When it started.
    pub started: String,
    /// The command line.
    pub command: String,
    /// Name of the machine.
    pub machine: String,
    /// Version of the program.
    pub version: String,
    /// Seconds that it took.
    pub took: Option<f64>,
    /// Its nodes.
    pub nodes: usize,
}

impl About {
    fn of(side: &RunSide) -> Self {
        Self {
            id: side.id.clone(),
            started: side.started.clone(),
            command: side.command.clone(),
            machine: side.machine.clone(),
            version: side.version.clone(),
            took: side.took,
            nodes: side.nodes.len(),
        }
    }
}

impl Comparison {
    /// Compares `a` with `b`. Nodes are paired by their names, tables, rows and
    /// columns by their headings.
    pub fn of(a: &RunSide, b: &RunSide) -> Self {
        let nodes = nodes::changes(a, b);
        let tables = tables::changes(&a.tables, &b.tables);
        let mut comparison = Self {
            a: About::of(a),
            b: About::of(b),
            equal: false,
            summary: String::new(),
            parameters: nodes::parameters(&nodes),
            same_nodes: nodes::paired(a, b).len() - nodes.len(),
            only_a: nodes::only(a, b),
            only_b: nodes::only(b, a),
            nodes,
            tables,
        };
        comparison.equal = comparison.nodes.is_empty()
            && comparison.only_a.is_empty()
            && comparison.only_b.is_empty()
            && comparison.changed_tables() == 0;
        comparison.summary = if comparison.equal {
            sameness(b)
        } else {
            comparison.in_words()
        };
        comparison
    }

    fn changed_tables(&self) -> usize {
        let tables = self.tables.iter();
        tables
            .filter(|table| table.presence != Presence::Both || table.changed)
            .count()
    }

    fn in_words(&self) -> String {
        let mut parts = Vec::new();
        let counts = [
            (self.parameters.len(), "parameter"),
            (self.nodes.len(), "node"),
            (self.changed_tables(), "table"),
        ];
        for (number, noun) in counts {
            if number > 0 {
                parts.push(super::words::counted(number, noun));
            }
        }
        let list = match parts.as_slice() {
            [] => String::new(),
            [only] => only.clone(),
            [start @ .., last] => format!("{} and {last}", start.join(", ")),
        };
        let differ: usize = counts.iter().map(|(number, _)| number).sum();
        let mut out = match differ {
            0 => String::new(),
            1 => format!("{list} differs."),
            _ => format!("{list} differ."),
        };
        for (only, name) in [(&self.only_a, "A"), (&self.only_b, "B")] {
            if !only.is_empty() {
                let verb = if only.len() == 1 { "is" } else { "are" };
                let counted = super::words::counted(only.len(), "node");
                let space = if out.is_empty() { "" } else { " " };
                out += &format!("{space}{counted} {verb} only in {name}.");
            }
        }
        out
    }
}

/// What is the same in two runs that do not differ, `side` being one of them.
fn sameness(side: &RunSide) -> String {
    let undone = side
        .nodes
        .iter()
        .filter(|node| node.artifact.is_none())
        .count();
    match undone {
        0 => "Nothing differs: every node has the same key and gave the same result.".to_owned(),
        _ => format!(
            "Nothing differs, though {} gave no result in either.",
            super::words::counted(undone, "node")
        ),
    }
}

#[cfg(test)]
mod tests;
