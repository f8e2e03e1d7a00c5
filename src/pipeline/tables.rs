//! `[tables]`: which values of which instances a printed table holds.

use std::{collections::BTreeMap, ops::Range};

use schemars::JsonSchema;
use serde::{Deserialize, de::IgnoredAny};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    document::{Entry, wrong},
    findings::Findings,
    graph::{Instance, NodeId, TableSpec, TableValue},
    names::{nearest, quoted, suggest},
    picks,
    reading::{Subject, read},
    substitute::{Params, Scope, Substitution},
    values::{as_json, means},
    world::World,
};
use crate::diagnostic::{Diagnostic, Place};

/// An entry of `[tables]` without its values, which are strings or tables.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Table {
    /// A heading.
    #[serde(default)]
    title: Option<String>,
    /// Axis whose points are rows; `class` for the classes of a value per class.
    #[serde(default)]
    rows: Option<String>,
    /// Axis whose points are columns.
    #[serde(default)]
    columns: Option<String>,
    /// Axis that is averaged away.
    #[serde(default)]
    mean_over: Option<String>,
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
}

/// Reads one table and looks up its instances.
pub(super) fn table<'a>(
    entry: &Entry<'a>,
    world: &World<'_, '_, 'a>,
    params: &Params<'a>,
    nodes: &[Instance],
    by_name: &BTreeMap<&str, Vec<NodeId>>,
    found: &mut Findings,
) -> Option<TableSpec> {
    let scope = Scope::of_params(params, world.sweep);
    let mut substitution = Substitution {
        scope: &scope,
        source: &entry.source,
        found,
        saw: BTreeMap::new(),
    };
    let table = substitution.table(&entry.table)?;
    let (value, values) = (table.get("value").cloned(), table.get("values").cloned());
    let published = table.get("published").cloned();
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
        values.extend(look_up(entry, value, world, nodes, by_name, found));
    }
    check_axes(entry, &text, &spans, &values, nodes, found);
    Some(TableSpec {
        name: entry.name.to_string(),
        title: text.title,
        rows: text.rows,
        columns: text.columns,
        values: values.into_iter().map(|(value, _)| value).collect(),
        mean_over: text.mean_over,
        published: published.map_or_else(BTreeMap::new, |value| figures(entry, &value, found)),
    })
}

struct WrittenValue {
    text: String,
    span: Range<usize>,
    label: Option<String>,
}

fn one(
    entry: &Entry<'_>,
    field: &str,
    value: &Spanned<DeValue<'_>>,
    found: &mut Findings,
) -> Option<WrittenValue> {
    let span = value.span();
    match value.get_ref() {
        DeValue::String(text) => Some(WrittenValue {
            text: text.as_ref().to_owned(),
            span,
            label: None,
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
fn labelled(
    entry: &Entry<'_>,
    table: &DeTable<'_>,
    span: Range<usize>,
    found: &mut Findings,
) -> Option<WrittenValue> {
    let (mut text, mut label) = (None, None);
    for (key, value) in table {
        let slot = match key.get_ref().as_ref() {
            "value" => &mut text,
            "label" => &mut label,
            other => {
                found.push(
                    Diagnostic::at(
                        Place::new(&entry.source, key.span()),
                        format!("unknown field `{other}` in a value of a table"),
                    )
                    .label("no such field")
                    .hint(suggest(other, "fields", ["value", "label"])),
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
    })
}

fn many(
    entry: &Entry<'_>,
    values: Spanned<DeValue<'_>>,
    found: &mut Findings,
) -> Vec<WrittenValue> {
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

/// The instances behind `eval.top1`, `eval@n=2.top1` or `refine.eval.top1`.
fn look_up(
    entry: &Entry<'_>,
    written: WrittenValue,
    world: &World<'_, '_, '_>,
    nodes: &[Instance],
    by_name: &BTreeMap<&str, Vec<NodeId>>,
    found: &mut Findings,
) -> Option<(TableValue, Range<usize>)> {
    let place = Place::new(&entry.source, written.span.clone());
    let Some((node, field)) = written.text.rsplit_once('.') else {
        found.push(
            Diagnostic::at(
                place,
                format!("`{}` names no value of a node", written.text),
            )
            .label("`node.value` is needed")
            .hint(format!("write `{}.top1`, for example", written.text)),
        );
        return None;
    };
    let (path, picked) = match node.split_once('@') {
        Some((path, picked)) => (path, Some(picked)),
        None => (node, None),
    };
    let Some(template) = world.node(path) else {
        let names = world.node_names();
        let hint =
            nearest(path, names.iter().copied()).map(|n| format!("did you mean `{n}.{field}`?"));
        found.push(
            Diagnostic::at(place, format!("there is no node `{path}`"))
                .label("a table shows values of nodes")
                .hint(hint),
        );
        return None;
    };
    let name = world.templates.list[template].name.as_str();
    let mut instances = by_name.get(name).cloned().unwrap_or_default();
    if let Some(picked) = picked {
        let axes: Vec<&str> = instances
            .first()
            .map(|id| nodes[id.index()].at.keys().map(String::as_str).collect())
            .unwrap_or_default();
        if axes.is_empty() {
            found.push(
                Diagnostic::at(place, format!("`{path}` has one instance only"))
                    .label("nothing to pick from")
                    .hint(format!("write `{path}.{field}`")),
            );
            return None;
        }
        let template = &world.templates.list[template];
        let own: Vec<&str> = template
            .axes
            .iter()
            .map(|axis| axis.name.as_str())
            .collect();
        let positional = match (&own[..], &axes[..]) {
            _ if template.round.is_some() => Some("round"),
            ([one], _) | ([], [one]) => Some(*one),
            _ => None,
        };
        let picks = match picks::parse(picked) {
            Ok(picks) => picks,
            Err(message) => {
                found.push(Diagnostic::at(place, message));
                return None;
            }
        };
        for pick in picks {
            let axis = pick.axis.as_deref().or(positional);
            let Some(axis) = axis.filter(|axis| axes.contains(axis)) else {
                found.push(
                    Diagnostic::at(place, format!("`{node}` picks on no axis of `{path}`"))
                        .label(format!("its axes: {}", quoted(&axes)))
                        .hint(
                            axes.first()
                                .map(|axis| format!("write `{path}@{axis}=….{field}`")),
                        ),
                );
                return None;
            };
            instances.retain(|id| means(&pick.value, &nodes[id.index()].at[axis]));
        }
        if instances.is_empty() {
            found.push(
                Diagnostic::at(place, format!("there is no instance `{node}`"))
                    .label("no such instance"),
            );
            return None;
        }
    }
    let value = TableValue {
        label: written.label.unwrap_or(written.text.clone()),
        instances,
        field: field.to_owned(),
    };
    Some((value, written.span))
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
        let class = name == "class" && field != "mean_over";
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

fn figures(
    entry: &Entry<'_>,
    value: &Spanned<DeValue<'_>>,
    found: &mut Findings,
) -> BTreeMap<String, serde_json::Value> {
    let Some(table) = value.get_ref().as_table() else {
        found.push(
            wrong("published", "a table", &entry.source, value)
                .hint("write `published = { 0 = 70.35, 1 = 72.91 }`".to_owned()),
        );
        return BTreeMap::new();
    };
    table
        .iter()
        .map(|(key, value)| (key.get_ref().to_string(), as_json(value.get_ref())))
        .collect()
}
