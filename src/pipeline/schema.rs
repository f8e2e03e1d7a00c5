//! JSON Schema of pipeline files, for completion in editors.

use schemars::{JsonSchema, schema_for};
use serde_json::{Map, Value, json};

use super::{downloads::FetchTable, entries::ExecTable, models::ModelTable, tables::Table};
use crate::{
    artifact::Type,
    data::DataSpec,
    node::{Accept, KindInfo, Port},
    nodes::KINDS,
};

/// The schema of a whole file, made from the kinds and from the types that
/// read the other sections.
pub fn schema() -> Value {
    schema_of(KINDS)
}

fn schema_of(kinds: &[KindInfo]) -> Value {
    let mut definitions = Map::new();
    let node = node(kinds, &mut definitions);
    let mut data = section::<DataSpec>("DataSpec", &mut definitions);
    let mut model = section::<ModelTable>("ModelTable", &mut definitions);
    let fetch = section::<FetchTable>("FetchTable", &mut definitions);
    definitions.insert("fetch".into(), fetch);
    for entry in [&mut data, &mut model] {
        entry["properties"]["fetch"] = json!({
            "description": "Where `runner fetch` gets the files from.",
            "$ref": "#/$defs/fetch",
        });
    }
    let exec = section::<ExecTable>("ExecTable", &mut definitions);
    let table = table(&mut definitions);
    definitions.insert("node".into(), node);
    definitions.insert("data".into(), data);
    definitions.insert("model".into(), model);
    definitions.insert("exec".into(), exec);
    definitions.insert("table".into(), table);
    definitions.insert("round".into(), round());
    definitions.insert("matrix".into(), matrix());
    let mut sections = json!({
        "params": {
            "description": "Values that `${name}` stands for; `-s name=value` sets one.",
            "type": "object",
        },
        "sweep": {
            "description": "Parameters with several values: the whole file once per point; nodes that do not see the parameter are shared.",
            "$ref": "#/$defs/matrix",
        },
        "exec": {
            "description": "Settings for nodes that have none of their own; never part of a result.",
            "$ref": "#/$defs/exec",
        },
        "data": named("Data sets by name.", "data"),
        "models": named("Models by name.", "model"),
        "nodes": named("Nodes by name.", "node"),
        "rounds": named("Bounded loops by name.", "round"),
        "tables": named("Tables that are printed at the end, by name.", "table"),
    });
    let profile = json!({
        "type": "object",
        "properties": sections,
        "additionalProperties": false,
    });
    let head = json!({
        "version": {"description": "Version of the format.", "const": super::document::VERSION},
        "name": {"description": "Name of the pipeline; the file's name by default.", "type": "string"},
        "title": {"description": "A heading for people.", "type": "string"},
        "extends": {"description": "A file whose entries this one shares; its own replace them.", "type": "string"},
        "seed": {"description": "Seed of every node that draws and has none of its own.", "type": "integer", "minimum": 0},
        "profiles": {
            "description": "Entries that `--profile NAME` lays over the file's.",
            "type": "object",
            "additionalProperties": profile,
        },
    });
    if let (Some(sections), Value::Object(head)) = (sections.as_object_mut(), head) {
        sections.extend(head);
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Pipeline of runner",
        "type": "object",
        "properties": sections,
        "required": ["version"],
        "additionalProperties": false,
        "$defs": definitions,
    })
}

fn named(description: &str, definition: &str) -> Value {
    json!({
        "description": description,
        "type": "object",
        "propertyNames": {"pattern": "^[A-Za-z_][A-Za-z0-9_-]*$"},
        "additionalProperties": {"$ref": format!("#/$defs/{definition}")},
    })
}

/// A schema made by `schemars`, with its definitions moved to ours under `prefix`.
fn adopt(schema: Value, prefix: &str, definitions: &mut Map<String, Value>) -> Map<String, Value> {
    let Value::Object(mut schema) = schema else {
        return Map::new();
    };
    schema.remove("$schema");
    schema.remove("title");
    if let Some(Value::Object(own)) = schema.remove("$defs") {
        for (name, mut definition) in own {
            rename(&mut definition, prefix);
            definitions.insert(format!("{prefix}.{name}"), definition);
        }
    }
    let mut schema = Value::Object(schema);
    rename(&mut schema, prefix);
    match schema {
        Value::Object(schema) => schema,
        _ => Map::new(),
    }
}

/// Points references to the definitions under `prefix`.
fn rename(value: &mut Value, prefix: &str) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match value {
                    Value::String(text) if key == "$ref" => {
                        *text = text.replacen("#/$defs/", &format!("#/$defs/{prefix}."), 1);
                    }
                    other => rename(other, prefix),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|item| rename(item, prefix)),
        _ => {}
    }
}

fn section<T: JsonSchema>(prefix: &str, definitions: &mut Map<String, Value>) -> Value {
    let mut schema = adopt(schema_for!(T).to_value(), prefix, definitions);
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        properties.values_mut().for_each(or_substituted);
    }
    Value::Object(schema)
}

/// Lets `"${name}"` stand where another type is wanted.
fn or_substituted(schema: &mut Value) {
    if schema.get("type") == Some(&json!("string")) {
        return;
    }
    let mut inner = std::mem::take(schema);
    let mut outer = Map::new();
    if let Some(inner) = inner.as_object_mut() {
        for key in ["description", "default"] {
            if let Some(value) = inner.remove(key) {
                outer.insert(key.to_owned(), value);
            }
        }
    }
    let text = json!({"type": "string", "pattern": "\\$\\{"});
    outer.insert("anyOf".into(), json!([inner, text]));
    *schema = Value::Object(outer);
}

/// A node: its kind decides which fields it has.
fn node(kinds: &[KindInfo], definitions: &mut Map<String, Value>) -> Value {
    let shown: Vec<&KindInfo> = kinds.iter().filter(|kind| !kind.hidden).collect();
    let choices: Vec<Value> = shown
        .iter()
        .map(|kind| of_kind(kind, definitions))
        .collect();
    json!({
        "type": "object",
        "required": ["kind"],
        "properties": {
            "kind": {
                "description": "What the node does.",
                "enum": shown.iter().map(|kind| kind.name).collect::<Vec<_>>(),
            },
        },
        "oneOf": choices,
    })
}

fn of_kind(kind: &KindInfo, definitions: &mut Map<String, Value>) -> Value {
    let mut schema = adopt((kind.schema)().to_value(), kind.name, definitions);
    let mut properties = Map::new();
    properties.insert(
        "kind".into(),
        json!({"const": kind.name, "description": kind.summary}),
    );
    for port in kind.ports {
        properties.insert(port.name.into(), reference(port));
    }
    let mut required = vec![json!("kind")];
    required.extend(
        kind.ports
            .iter()
            .filter(|port| port.required)
            .map(|port| json!(port.name)),
    );
    if let Some(Value::Object(params)) = schema.remove("properties") {
        for (name, mut param) in params {
            or_substituted(&mut param);
            properties.insert(name, param);
        }
    }
    for file in kind.files {
        let description = format!("A text file that is read into `{}`.", file.sets);
        properties.insert(
            file.field.into(),
            json!({"type": "string", "description": description}),
        );
    }
    if let Some(Value::Array(params)) = schema.remove("required") {
        let from_file = |name: &Value| kind.files.iter().any(|file| name == file.sets);
        let filled_in = |name: &Value| kind.draws && (name == "seed" || name == "stream");
        required.extend(
            params
                .into_iter()
                .filter(|name| !from_file(name) && !filled_in(name)),
        );
    }
    properties.insert(
        "matrix".into(),
        json!({"description": "Repeats the node at every point of these axes.", "$ref": "#/$defs/matrix"}),
    );
    properties.insert(
        "exec".into(),
        json!({"description": "Settings that never change the result.", "$ref": "#/$defs/exec"}),
    );
    json!({
        "title": kind.name,
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

fn reference(port: &Port) -> Value {
    let accepts: Vec<String> = port.accepts.iter().map(|accept| what(*accept)).collect();
    let description = format!("{} Takes {}.", port.doc, accepts.join(" or "));
    let list = json!({"type": "array", "items": {"type": "string"}});
    if port.many || port.accepts.contains(&Accept::Classes) {
        json!({"description": description, "anyOf": [{"type": "string"}, list]})
    } else {
        json!({"description": description, "type": "string"})
    }
}

fn what(accept: Accept) -> String {
    match accept {
        Accept::Artifact(Type::Probe) => "a probe".to_owned(),
        Accept::Artifact(made) => format!("a node or round that makes {made}"),
        Accept::Split => "a split of a data set, such as `cifar10.test`".to_owned(),
        Accept::Classes => {
            "a data set, a node that carries classes, or a list of class names".to_owned()
        }
        Accept::Clip => "a CLIP model or a node that makes one".to_owned(),
        Accept::Llm => "a language model".to_owned(),
    }
}

fn round() -> Value {
    json!({
        "description": "A loop: `previous` is the result of the round before, `${round}` the number of the round.",
        "type": "object",
        "properties": {
            "count": {
                "description": "How many rounds.",
                "anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": "\\$\\{"}],
            },
            "result": {"description": "Which of its nodes is the result of a round.", "type": "string"},
            "matrix": {"description": "Repeats the whole loop.", "$ref": "#/$defs/matrix"},
            "nodes": named("Its nodes by name.", "node"),
        },
        "required": ["count", "result", "nodes"],
        "additionalProperties": false,
    })
}

fn matrix() -> Value {
    json!({
        "type": "object",
        "additionalProperties": {
            "anyOf": [
                {"type": "array", "minItems": 1, "items": {"type": ["string", "number", "boolean"]}},
                {"type": "string", "pattern": "^\\$\\{[^}]*\\}$"},
            ],
        },
    })
}

fn table(definitions: &mut Map<String, Value>) -> Value {
    let mut table = section::<Table>("Table", definitions);
    let place = json!({"type": "string", "pattern": ":"});
    let list = json!({"anyOf": [{"type": "array"}, {"type": "number"}, place]});
    let value = json!({
        "anyOf": [
            {"type": "string"},
            {
                "type": "object",
                "properties": {
                    "value": {"type": "string"},
                    "label": {"description": "Its heading.", "type": "string"},
                    "published": described(&list, "Published figures in the order of the rows."),
                },
                "required": ["value"],
                "additionalProperties": false,
            },
        ],
    });
    if let Some(Value::Object(properties)) = table.get_mut("properties") {
        let mut one = value.clone();
        one["description"] = "What it shows: `node.value`, such as `eval.top1`.".into();
        properties.insert("value".into(), one);
        properties.insert(
            "values".into(),
            json!({"description": "Several values, each with its own column.", "type": "array", "items": value}),
        );
        properties.insert(
            "published".into(),
            json!({
                "description": "Published figures by row, or by row and column; or where they are: \"published.toml:table4\".",
                "anyOf": [{"type": "object"}, place],
            }),
        );
        let overall = "What the published figures of all classes together are, by column: a column whose classes do not give it is told.";
        properties.insert("overall".into(), described(&list, overall));
    }
    table
}

/// `schema` with a sentence about it.
fn described(schema: &Value, description: &str) -> Value {
    let mut schema = schema.clone();
    schema["description"] = description.into();
    schema
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every `$ref` below `value`.
    fn references(value: &Value, out: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    match value.as_str() {
                        Some(text) if key == "$ref" => out.push(text.to_owned()),
                        _ => references(value, out),
                    }
                }
            }
            Value::Array(list) => list.iter().for_each(|item| references(item, out)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let schema = schema();
        let mut list = Vec::new();
        references(&schema, &mut list);
        assert!(list.len() > 10);
        for reference in list {
            let name = reference.strip_prefix("#/$defs/").unwrap();
            assert!(schema["$defs"].get(name).is_some(), "{reference}");
        }
    }

    #[test]
    fn every_kind_that_is_not_hidden_has_its_fields() {
        let schema = schema();
        let choices = schema["$defs"]["node"]["oneOf"].as_array().unwrap();
        let shown: Vec<_> = KINDS.iter().filter(|kind| !kind.hidden).collect();
        assert_eq!(choices.len(), shown.len());
        for (choice, kind) in choices.iter().zip(shown) {
            let properties = choice["properties"].as_object().unwrap();
            assert_eq!(properties["kind"]["const"], kind.name);
            for port in kind.ports {
                assert!(
                    properties.contains_key(port.name),
                    "{}.{}",
                    kind.name,
                    port.name
                );
            }
            for file in kind.files {
                assert!(properties.contains_key(file.field) && properties.contains_key(file.sets));
            }
        }
    }
}
