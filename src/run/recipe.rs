//! Recipes: what a node is, known from the pipeline file alone.
//!
//! A key names its inputs by their content, so that only who has data and models can make it. A
//! recipe names the nodes upstream by their recipes, and data and models by what the file says
//! of them: the pinned digest, or the path as seen from the project's root. By it a checkout
//! without data or models finds what a teammate computed for the same file. Where everything is
//! here the key decides, and the recipe is not looked at.

use std::path::{Component, Path, PathBuf};

use serde_json::{Map, Value, json};

use super::fingerprint::significant;
use crate::{
    digest::Digest,
    pipeline::{Graph, ModelSource, NodeId, Source},
};

/// The recipes of all nodes, in the graph's order.
pub fn recipes(graph: &Graph) -> Vec<Digest> {
    let mut all: Vec<Digest> = Vec::with_capacity(graph.nodes.len());
    for id in graph.ids() {
        // Every node comes after those it needs.
        let what = describe(graph, id, &all);
        all.push(Digest::of_json("runner recipe key v2", &what));
    }
    all
}

fn describe(graph: &Graph, id: NodeId, before: &[Digest]) -> Value {
    let instance = graph.node(id);
    let mut ports: Map<String, Value> = Map::new();
    for (port, source) in &instance.inputs {
        let entry = match source {
            Source::Node(from) => json!({"recipe": before[from.index()]}),
            Source::Empty(r#type) => json!({"empty": r#type.to_string()}),
            Source::Split(name, split) => json!({"data": data(graph, name), "split": split}),
            Source::DataClasses(name) => json!({"classes of": data(graph, name)}),
            Source::Classes(names) => json!({"classes": names}),
            Source::Model(name) => json!({"model": model(graph, name)}),
        };
        let list = ports.entry((*port).to_owned()).or_insert_with(|| json!([]));
        if let Some(list) = list.as_array_mut() {
            list.push(entry);
        }
    }
    json!({
        "kind": instance.kind.name,
        "version": instance.kind.version,
        "params": significant(&instance.params, instance.kind.schema),
        "inputs": ports,
    })
}

fn data(graph: &Graph, name: &str) -> Value {
    let Some(spec) = graph.data.get(name) else {
        return Value::Null;
    };
    let mut value = serde_json::to_value(spec).unwrap_or_default();
    if let Some(map) = value.as_object_mut() {
        if spec.digest.is_some() {
            map.remove("path");
        } else {
            map.insert("path".into(), place(graph, &spec.path));
        }
    }
    value
}

fn model(graph: &Graph, name: &str) -> Value {
    let Some(spec) = graph.models.get(name) else {
        return Value::Null;
    };
    match &spec.source {
        ModelSource::Files(files) => {
            let files_are = match &spec.digest {
                Some(digest) => json!(digest),
                None => place(graph, &files.path),
            };
            json!({
                "files": files_are, "dtype": files.dtype, "quantize": files.quantize,
                "architecture": files.architecture,
            })
        }
        ModelSource::Endpoint(model) => {
            let parts: Map<String, Value> = model
                .parts()
                .into_iter()
                .map(|(part, digest)| (part.to_owned(), json!(digest)))
                .collect();
            json!({"endpoint": parts})
        }
        ModelSource::Replay(path) => json!({"replay": place(graph, path)}),
    }
}

/// A path as seen from the project's root, where checkouts of one project agree on it.
fn place(graph: &Graph, path: &Path) -> Value {
    let from = |path: &Path| -> Vec<String> {
        let part = |part: Component<'_>| part.as_os_str().to_string_lossy().into_owned();
        path.components().map(part).collect()
    };
    let (root, path) = (from(&graph.root), from(path));
    let same = root.iter().zip(&path).take_while(|(a, b)| a == b).count();
    let up = vec!["..".to_owned(); root.len() - same];
    let relative: PathBuf = up.iter().chain(&path[same..]).collect();
    relative.to_string_lossy().into()
}
