//! `[tables]`: which values of which instances a printed table holds.

use std::{collections::BTreeMap, ops::Range};

use schemars::JsonSchema;
use serde::{Deserialize, de::IgnoredAny};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

pub(super) use super::published::Figures;
use super::{
    cells::look_up,
    document::{Entry, wrong},
    findings::Findings,
    graph::{Instance, NodeId, TableSpec, TableValue},
    names::suggest,
    reading::{Subject, read},
    substitute::{Params, Scope as Substituted, Substitution},
    world::World,
};
use crate::{
    diagnostic::{Diagnostic, Place},
    table::Draw,
};

/// An entry of `[tables]` without its values, which are strings or tables.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Table {
    /// A heading.
    #[serde(default)]
    title: Option<String>,
    /// Axis whose points are rows; `class` for the classes of a value per class,
    /// `candidate` for the candidates of the class that `class` names.
    #[serde(default)]
    rows: Option<String>,
    /// Axis whose points are columns.
    #[serde(default)]
    columns: Option<String>,
    /// Axis that is averaged away.
    #[serde(default)]
    mean_over: Option<String>,
    /// The class whose candidates are rows.
    #[serde(default)]
    class: Option<String>,
    /// How the report draws the table.
    #[serde(default)]
    draw: Option<Draw>,
    // These are read by hand; here they only count as known.
    #[serde(default, rename = "value")]
    #[schemars(skip)]
    _value: IgnoredAny,
    #[serde(default, rename = "values")]
    #[schemars(skip)]
    _values: IgnoredAny,
    #[serde(default, rename = "published")]
    #[schemars(skip)]
    _published: IgnoredAny,
    #[serde(default, rename = "overall")]
    #[schemars(skip)]
    _overall: IgnoredAny,
}

/// What entries of `[tables]` may name.
#[derive(Clone, Copy)]
pub(super) struct Scope<'s, 'w, 'v, 'a> {
    pub(super) world: &'s World<'w, 'v, 'a>,
    pub(super) params: &'s Params<'a>,
    /// All instances; none in a file with other errors.
    pub(super) nodes: &'s [Instance],
    pub(super) by_name: &'s BTreeMap<&'s str, Vec<NodeId>>,
}

/// Reads one table and looks up its instances. Without `nodes`, in a file with
/// other errors, its axes are not checked.
pub(super) fn table<'a>(
    entry: &Entry<'a>,
    scope: &Scope<'_, '_, '_, 'a>,
    figures: &mut Figures,
    found: &mut Findings,
) -> Option<TableSpec> {
    let params = Substituted::of_params(scope.params, scope.world.sweep);
    let mut substitution = Substitution {
        scope: &params,
        source: &entry.source,
        found,
        saw: BTreeMap::new(),
    };
    let table = substitution.table(&entry.table)?;
    let (value, values) = (table.get("value").cloned(), table.get("values").cloned());
    let published = table.get("published").cloned();
    let overall = table.get("overall").cloned();
    let spans: BTreeMap<String, Range<usize>> = table
        .iter()
        .map(|(key, value)| (key.get_ref().to_string(), value.span()))
        .collect();
    let what = format!("table `{}`", entry.name);
    let subject = Subject {
        what: &what,
        source: &entry.source,
        header: entry.header.clone(),
        missing: &[],
    };
    let text: Table = read(&subject, table, found)?;
    let written = match (value, values) {
        (Some(value), None) => one(entry, "value", &value, found).into_iter().collect(),
        (None, Some(values)) => many(entry, values, found),
        (Some(_), Some(values)) => {
            let place = Place::new(&entry.source, values.span());
            found.push(
                Diagnostic::at(place, "`value` and `values` say the same thing")
                    .label("one of the two must go"),
            );
            return None;
        }
        (None, None) => {
            found.push(
                Diagnostic::at(entry.place(), format!("{what} lacks the field `value`"))
                    .label("what shall it show?")
                    .hint(
                        "write `value = \"eval.top1\"` or `values = [\"eval.top1\", …]`".to_owned(),
                    ),
            );
            return None;
        }
    };
    let mut values = Vec::new();
    for value in written {
        match look_up(&value.text, scope.world, scope.nodes, scope.by_name) {
            Ok((instances, field)) => {
                let label = value.label.unwrap_or(value.text);
                let published = value.published;
                let published = published.map(|value| figures.list(entry, &value, found));
                let listed = TableValue {
                    label,
                    instances,
                    field,
                    published: published.unwrap_or_default(),
                };
                values.push((listed, value.span));
            }
            Err(problem) => found.push(
                Diagnostic::at(Place::new(&entry.source, value.span), problem.message)
                    .label(problem.label)
                    .hint(problem.hint),
            ),
        }
    }
    if !scope.nodes.is_empty() {
        check_axes(entry, &text, &spans, &values, scope.nodes, found);
    }
    if text.class.is_none()
        && [&text.rows, &text.columns]
            .into_iter()
            .any(|axis| axis.as_deref() == Some("candidate"))
    {
        found.push(
            Diagnostic::at(
                entry.place(),
                format!("{what} does not say whose candidates it lists"),
            )
            .hint("add `class = \"…\"`, the name of a class".to_owned()),
        );
    }
    Some(TableSpec {
        name: entry.name.to_string(),
        title: text.title,
        rows: text.rows,
        columns: text.columns,
        values: values.into_iter().map(|(value, _)| value).collect(),
        mean_over: text.mean_over,
        published: published.map_or_else(BTreeMap::new, |value| figures.map(entry, &value, found)),
        overall: overall.map_or_else(Vec::new, |value| {
            let list = figures.list(entry, &value, found);
            list.iter().filter_map(serde_json::Value::as_f64).collect()
        }),
        class: text.class,
        draw: text.draw,
    })
}

struct WrittenValue<'a> {
    text: String,
    span: Range<usize>,
    label: Option<String>,
    published: Option<Spanned<DeValue<'a>>>,
}

fn one<'a>(
    entry: &Entry<'_>,
    field: &str,
    value: &Spanned<DeValue<'a>>,
    found: &mut Findings,
) -> Option<WrittenValue<'a>> {
    let span = value.span();
    match value.get_ref() {
        DeValue::String(text) => Some(WrittenValue {
            text: text.as_ref().to_owned(),
            span,
            label: None,
            published: None,
        }),
        DeValue::Table(table) => labelled(entry, table, span, found),
        _ => {
            let takes = "a string such as \"eval.top1\", or a table with `value` and `label`";
            found.push(wrong(field, takes, &entry.source, value));
            None
        }
    }
}

/// `{ value = "eval.top1", label = "Top-1" }`.
fn labelled<'a>(
    entry: &Entry<'_>,
    table: &DeTable<'a>,
    span: Range<usize>,
    found: &mut Findings,
) -> Option<WrittenValue<'a>> {
    let (mut text, mut label, mut published) = (None, None, None);
    for (key, value) in table {
        let slot = match key.get_ref().as_ref() {
            "value" => &mut text,
            "label" => &mut label,
            "published" => {
                published = Some(value.clone());
                continue;
            }
            other => {
                found.push(
                    Diagnostic::at(
                        Place::new(&entry.source, key.span()),
                        format!("unknown field `{other}` in a value of a table"),
                    )
                    .label("no such field")
                    .hint(suggest(
                        other,
                        "fields",
                        ["value", "label", "published"],
                    )),
                );
                continue;
            }
        };
        match value.get_ref().as_str() {
            Some(word) => *slot = Some((word.to_owned(), value.span())),
            None => found.push(wrong(key.get_ref(), "a string", &entry.source, value)),
        }
    }
    let Some((text, span)) = text else {
        let place = Place::new(&entry.source, span);
        found.push(Diagnostic::at(
            place,
            "a value of a table lacks the field `value`",
        ));
        return None;
    };
    Some(WrittenValue {
        text,
        span,
        label: label.map(|(label, _)| label),
        published,
    })
}

fn many<'a>(
    entry: &Entry<'_>,
    values: Spanned<DeValue<'a>>,
    found: &mut Findings,
) -> Vec<WrittenValue<'a>> {
    if !values.get_ref().is_array() {
        found.push(wrong("values", "a list", &entry.source, &values));
        return Vec::new();
    }
    match values.into_inner() {
        DeValue::Array(list) => list
            .into_iter()
            .filter_map(|value| one(entry, "values", &value, found))
            .collect(),
        _ => Vec::new(),
    }
}

/// Every axis of every value must be on rows or columns, or be averaged away.
fn check_axes(
    entry: &Entry<'_>,
    text: &Table,
    spans: &BTreeMap<String, Range<usize>>,
    values: &[(TableValue, Range<usize>)],
    nodes: &[Instance],
    found: &mut Findings,
) {
    let named = [
        ("rows", &text.rows),
        ("columns", &text.columns),
        ("mean_over", &text.mean_over),
    ];
    // Axes on which the instances of each value differ or at least stand.
    let mut known: BTreeMap<&str, bool> = BTreeMap::new();
    let mut left = Vec::new();
    for (value, span) in values {
        let Some(first) = value.instances.first().map(|id| &nodes[id.index()]) else {
            continue;
        };
        for (axis, point) in &first.at {
            let differ = value
                .instances
                .iter()
                .any(|id| nodes[id.index()].at.get(axis) != Some(point));
            *known.entry(axis).or_default() |= differ;
            let placed = named.iter().any(|(_, name)| name.as_deref() == Some(axis));
            if differ && !placed {
                left.push((axis, span.clone()));
            }
        }
    }
    for (field, name) in named {
        let Some(name) = name else { continue };
        let class = matches!(name.as_str(), "class" | "candidate") && field != "mean_over";
        if class || known.contains_key(name.as_str()) || values.is_empty() {
            continue;
        }
        let span = spans.get(field).cloned().unwrap_or(entry.header.clone());
        let axes = known.keys().copied().collect::<Vec<_>>();
        found.push(
            Diagnostic::at(
                Place::new(&entry.source, span),
                format!("the values of table `{}` have no axis `{name}`", entry.name),
            )
            .label("no such axis")
            .hint(suggest(name, "their axes", axes)),
        );
    }
    for (axis, span) in left {
        found.push(
            Diagnostic::at(
                Place::new(&entry.source, span),
                format!("table `{}` has no place for the axis `{axis}`", entry.name),
            )
            .label(format!("one value for each `{axis}`"))
            .hint(format!(
                "put `{axis}` on `rows` or `columns`, average it with `mean_over`, or pick a point with `@`"
            )),
        );
    }
}
