//! What counts in a node's key, in one traversal that also explains it.
//!
//! | counts | does not count, kept in the record | ignored |
//! |---|---|---|
//! | kind and its version | device, machine, user, times | names of nodes |
//! | parameters that differ from their defaults | version of the program | paths |
//! | content of input artifacts | batch size | order of execution |
//! | the parts of models and data that are read | | verbosity |
//!
//! Inputs are named by content: a rerun that gives equal bytes changes nothing
//! downstream. What is known without running anything is the [recipe](super::recipe).

use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::{Map, Value, json};

use crate::{
    digest::Digest,
    node::{Input, Inputs},
    pipeline::{Graph, NodeId},
};

/// A node's key with what it was made of.
#[derive(Clone, Debug)]
pub struct Fingerprint {
    /// Digest of [`Self::content`]: what the store is asked for.
    pub key: Digest,
    /// `{kind, version, params, inputs}` with inputs named by content.
    pub content: Value,
}

impl Fingerprint {
    /// The fingerprint of `id`, whose inputs are resolved.
    ///
    /// # Errors
    /// When a model's or data set's digest cannot be computed.
    pub fn of(graph: &Graph, id: NodeId, inputs: &Inputs) -> Result<Self> {
        let content = describe(graph, id, inputs)?;
        Ok(Self {
            key: Digest::of_json("runner node key v1", &content),
            content,
        })
    }
}

fn describe(graph: &Graph, id: NodeId, inputs: &Inputs) -> Result<Value> {
    let instance = graph.node(id);
    let connected = instance.inputs.iter().map(|(port, _)| *port).collect();
    let mut ports = Map::new();
    for (port, list) in inputs.iter() {
        let wanted = instance.node.reads(port, &connected);
        let mut entries = Vec::new();
        for input in list {
            let mut parts = input.parts()?;
            if let Some(wanted) = wanted
                && !matches!(input, Input::Artifact { .. } | Input::Empty(_))
            {
                parts.retain(|part, _| wanted.contains(part));
            }
            let parts: Map<String, Value> = parts
                .iter()
                .map(|(part, digest)| ((*part).to_owned(), digest.to_string().into()))
                .collect();
            let mut entry = Value::Object(parts);
            if let (Input::Model(model), Some(map)) = (input, entry.as_object_mut()) {
                map.insert("dtype".into(), model.dtype.clone().into());
                if let Some(quantize) = model.quantize {
                    map.insert("quantize".into(), json!(quantize));
                }
            }
            entries.push(entry);
        }
        ports.insert(port.to_owned(), entries.into());
    }
    Ok(json!({
        "kind": instance.kind.name,
        "version": instance.kind.version,
        "params": significant(&instance.params, instance.kind.schema),
        "inputs": ports,
    }))
}

/// The parameters that differ from the defaults in the kind's schema, so that
/// neither writing a default out nor adding a parameter later changes a key.
pub(super) fn significant(params: &Value, schema: fn() -> schemars::Schema) -> Value {
    thread_local! {
        static DEFAULTS: std::cell::RefCell<BTreeMap<usize, BTreeMap<String, Value>>> = const { std::cell::RefCell::new(BTreeMap::new()) };
    }
    let Some(params) = params.as_object() else {
        return json!({});
    };
    DEFAULTS.with_borrow_mut(|cache| {
        let defaults = cache
            .entry(schema as *const () as usize)
            .or_insert_with(|| defaults(&schema().to_value()));
        let kept: Map<String, Value> = params
            .iter()
            .filter(|(name, value)| !value.is_null() && defaults.get(*name) != Some(value))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        kept.into()
    })
}

/// Defaults by parameter, as a kind's schema states them.
pub(super) fn defaults(schema: &Value) -> BTreeMap<String, Value> {
    schema["properties"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(name, property)| Some((name.clone(), property.get("default")?.clone())))
        .collect()
}

/// One difference between two fingerprints.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// The kind itself is another, or of another version.
    Kind(String, String),
    /// A parameter: name, before, now (`null` for "the default").
    Param(String, Value, Value),
    /// A part of an input: port, part.
    Input(String, String),
}

/// What differs between two contents of [`Fingerprint::content`].
pub fn changes(before: &Value, now: &Value) -> Vec<Change> {
    let mut out = Vec::new();
    let head = |v: &Value| {
        format!(
            "{} version {}",
            v["kind"].as_str().unwrap_or("?"),
            v["version"]
        )
    };
    if head(before) != head(now) {
        out.push(Change::Kind(head(before), head(now)));
    }
    for name in names(&before["params"], &now["params"]) {
        let (a, b) = (&before["params"][&name], &now["params"][&name]);
        if a != b {
            out.push(Change::Param(name, a.clone(), b.clone()));
        }
    }
    for port in names(&before["inputs"], &now["inputs"]) {
        let (a, b) = (&before["inputs"][&port], &now["inputs"][&port]);
        if a == b {
            continue;
        }
        let parts = match (a[0].as_object(), b[0].as_object()) {
            (Some(a), Some(b)) => a
                .keys()
                .chain(b.keys())
                .filter(|part| a.get(*part) != b.get(*part))
                .cloned()
                .collect::<std::collections::BTreeSet<_>>(),
            _ => ["connection".to_owned()].into(),
        };
        for part in parts {
            out.push(Change::Input(port.clone(), part));
        }
    }
    out
}

fn names(a: &Value, b: &Value) -> Vec<String> {
    let keys = |v: &Value| -> Vec<String> {
        v.as_object()
            .map(|map| map.keys().cloned().collect())
            .unwrap_or_default()
    };
    let mut all = keys(a);
    all.extend(keys(b));
    all.sort();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_name_what_differs_and_nothing_else() {
        let before = json!({"kind": "k", "version": 1, "params": {"t": 0.5, "n": 3},
            "inputs": {"model": [{"text": "a", "dtype": "f32"}], "classes": [{"classes": "c"}]}});
        let now = json!({"kind": "k", "version": 1, "params": {"t": 0.9},
            "inputs": {"model": [{"text": "b", "dtype": "f32"}], "classes": [{"classes": "c"}]}});
        assert_eq!(
            changes(&before, &now),
            [
                Change::Param("n".into(), json!(3), Value::Null),
                Change::Param("t".into(), json!(0.5), json!(0.9)),
                Change::Input("model".into(), "text".into()),
            ]
        );
        assert!(changes(&now, &now).is_empty());
    }
}
