//! Why a node runs, in plain sentences made from two fingerprints.

use serde_json::Value;

use super::{Change, changes, fingerprint::defaults};
use crate::pipeline::{Graph, NodeId, Source};

/// Why `id` runs: what differs between the fingerprint that it had last
/// (`before`) and the one that it has now.
pub fn reason(graph: &Graph, id: NodeId, before: Option<&Value>, now: &Value) -> String {
    let Some(before) = before else {
        return "it has not run before".to_owned();
    };
    let changes = changes(before, now);
    if changes.is_empty() {
        return "its result is no longer in the store".to_owned();
    }
    changes
        .iter()
        .map(|change| sentence(graph, id, change))
        .collect::<Vec<_>>()
        .join("; ")
}

fn sentence(graph: &Graph, id: NodeId, change: &Change) -> String {
    let instance = graph.node(id);
    match change {
        Change::Kind(before, now) => format!("kind changed: {before} → {now}"),
        Change::Param(name, before, now) => {
            // A key leaves out what equals its default; a person wants to read it.
            let defaults = defaults(&(instance.kind.schema)().to_value());
            let full = |value: &Value| match (value, defaults.get(name)) {
                (Value::Null, Some(default)) => show(default),
                _ => show(value),
            };
            let mut text = format!("{name} {} → {}", full(before), full(now));
            if instance
                .saw
                .values()
                .any(|seen| seen.set && &seen.value == now)
            {
                text.push_str(" (set by -s)");
            }
            text
        }
        Change::Input(port, part) => {
            let source = instance.inputs.iter().find(|(name, _)| name == port);
            match source.map(|(_, source)| source) {
                Some(Source::Node(from)) => format!(
                    "input `{port}` changed: `{}` gave another result",
                    graph.node(*from).id
                ),
                Some(Source::Model(name)) => format!("model `{name}` changed ({part})"),
                Some(Source::Split(data, split)) => {
                    format!("data `{data}.{split}` changed ({part})")
                }
                Some(Source::DataClasses(data)) => format!("the classes of `{data}` changed"),
                Some(Source::Classes(_)) => "the classes changed".to_owned(),
                Some(Source::Empty(_)) | None => format!("input `{port}` changed"),
            }
        }
    }
}

/// A parameter's value in few words; `null` stands for the default.
fn show(value: &Value) -> String {
    match value {
        Value::Null => "the default".to_owned(),
        Value::String(text) if text.chars().count() > 40 => {
            let start: String = text.chars().take(37).collect();
            format!("\"{start}…\"")
        }
        other => {
            let text = other.to_string();
            if text.chars().count() > 60 {
                "another value".to_owned()
            } else {
                text
            }
        }
    }
}
