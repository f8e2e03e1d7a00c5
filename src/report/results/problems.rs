//! What is wrong with an entry of `[tables]`, said before a run and below the table.

use super::{
    super::figure::{self, Grain},
    axes,
};
use crate::{
    artifact::Type,
    pipeline::{Graph, TableSpec, TableValue},
};

/// An entry of `[tables]` that cannot give what it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The table's name.
    pub table: String,
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub hint: Option<String>,
}

/// Everything wrong with the tables of `graph` that is known before a run.
pub fn check_tables(graph: &Graph) -> Vec<Problem> {
    let mut problems = Vec::new();
    for spec in &graph.tables {
        let grain = grain(spec);
        for value in &spec.values {
            let Some(first) = value.instances.first() else {
                continue;
            };
            let output = graph.node(*first).output;
            if let Some((message, hint)) = unknown_field(output, value, grain) {
                problems.push(Problem {
                    table: spec.name.clone(),
                    message,
                    hint,
                });
            }
        }
        for axis in [&spec.rows, &spec.columns, &spec.mean_over]
            .into_iter()
            .flatten()
        {
            let known = axes(graph, &spec.values);
            if axis != "class" && axis != "candidate" && !known.contains(axis.as_str()) {
                let known: Vec<_> = known.into_iter().collect();
                problems.push(Problem {
                    table: spec.name.clone(),
                    message: format!("no value of this table varies over `{axis}`"),
                    hint: Some(match known.as_slice() {
                        [] => "its values have no axis: leave the field out".to_owned(),
                        list => format!("its values vary over {}", quoted(list)),
                    }),
                });
            }
        }
    }
    problems
}

/// What the rows and columns of a table are about.
pub(super) fn grain(spec: &TableSpec) -> Grain {
    let on = |name: &str| {
        let axes = [&spec.rows, &spec.columns];
        axes.into_iter().any(|axis| axis.as_deref() == Some(name))
    };
    match (on("candidate"), on("class")) {
        (true, _) => Grain::Candidate,
        (false, true) => Grain::Class,
        (false, false) => Grain::Whole,
    }
}

/// Why `value.field` names no number, with a hint.
pub(super) fn unknown_field(
    output: Type,
    value: &TableValue,
    grain: Grain,
) -> Option<(String, Option<String>)> {
    let known = figure::fields(output, grain);
    let by_class = grain != Grain::Whole;
    let field = value.field.as_str();
    if known.iter().any(|name| name == field) {
        return None;
    }
    if output == Type::Metrics && !by_class && figure::is_metrics_path(field) {
        return None;
    }
    let label = &value.label;
    if output == Type::Metrics && field == "per_class" {
        let hint = "put the classes on an axis: rows = \"class\"".to_owned();
        return Some((format!("`{label}` has a value for each class"), Some(hint)));
    }
    if output == Type::Metrics && by_class && figure::is_metrics_path(field) {
        let hint = format!("for each class there are {}", quoted(&known));
        return Some((
            format!("`{label}` is one value for all classes"),
            Some(hint),
        ));
    }
    let whole = figure::fields(output, Grain::Whole);
    if known.is_empty() && whole.iter().any(|name| name == field) {
        let hint = "leave `class` out of `rows` and `columns`, or show it in a table of its own"
            .to_owned();
        return Some((
            format!("`{label}` is one value for all classes"),
            Some(hint),
        ));
    }
    if known.is_empty() {
        let message = format!("`{label}` names a node that gives {output}, which have no numbers");
        let hint = "name a node of kind `zeroshot_eval`".to_owned();
        return Some((message, Some(hint)));
    }
    let near = known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(name, field), name))
        .filter(|(distance, name)| *distance <= name.len().max(3) / 3)
        .min();
    let hint = match near {
        Some((_, name)) => format!("did you mean `{name}`? There are {}", quoted(&known)),
        None => format!("there are {}", quoted(&known)),
    };
    Some((
        format!("`{label}`: there is no number called `{field}`"),
        Some(hint),
    ))
}

pub(super) fn quoted<S: AsRef<str>>(names: &[S]) -> String {
    let names: Vec<_> = names.iter().map(|n| format!("`{}`", n.as_ref())).collect();
    names.join(", ")
}
