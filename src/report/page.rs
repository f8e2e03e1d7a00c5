//! All that the HTML page shows, as plain data that whoever has the records fills in.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{answers::AnswersSummary, sketch::source_words};
use crate::{
    artifact::{Attributes, Change, FileEntry, MetricsTable},
    pipeline::{Graph, Source},
    table::Table,
};

/// One run of one pipeline.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Page {
    /// The pipeline's name.
    pub name: String,
    /// Its title.
    pub title: Option<String>,
    /// About the run as a whole.
    pub run: RunInfo,
    /// The tables, as [`super::build_tables`] gives them.
    pub tables: Vec<Table>,
    /// Every node, in the graph's order.
    pub nodes: Vec<PageNode>,
}

/// About a run as a whole; what is empty is left out.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RunInfo {
    /// Its identity in the history.
    pub id: String,
    /// When it started, as people write it.
    pub started: String,
    /// Seconds that it took.
    pub took: Option<f64>,
    /// Device of the models, in words.
    pub device: String,
    /// Name of the machine.
    pub machine: String,
    /// Version of the program.
    pub version: String,
    /// The command line.
    pub command: String,
    /// Warnings that concern no single node.
    pub warnings: Vec<String>,
}

/// What became of a node in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Its artifact was in the store.
    Hit,
    /// It ran.
    Ran,
    /// It could not run, because of a failure or a stop.
    Blocked,
    /// It failed.
    Failed,
}

impl State {
    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Ran => "ran",
            Self::Blocked => "blocked",
            Self::Failed => "failed",
        }
    }
}

/// One node.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PageNode {
    /// Unique name: `refine.propose@2`.
    pub id: String,
    /// Name without axes: `refine.propose`.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// Its place on every axis; a round is the axis `round`.
    pub at: Vec<(String, String)>,
    /// Nodes it needs, by index in [`Page::nodes`].
    pub needs: Vec<usize>,
    /// What became of it; `None` before a run.
    pub state: Option<State>,
    /// Seconds that it took in this run.
    pub took: Option<f64>,
    /// Items computed and items found in this run.
    pub items: Option<(u64, u64)>,
    /// Why it ran, in a sentence.
    pub why: Option<String>,
    /// Why it failed, or what blocked it.
    pub message: Option<String>,
    /// Warnings.
    pub warnings: Vec<String>,
    /// Its key.
    pub key: Option<String>,
    /// Digest of its artifact.
    pub artifact: Option<String>,
    /// Its parameters.
    pub params: Vec<(String, Value)>,
    /// What its ports lead to.
    pub inputs: Vec<PageInput>,
    /// Files of its artifact.
    pub files: Vec<FileEntry>,
    /// Where its artifact comes from.
    pub provenance: Option<Provenance>,
    /// For an evaluation: its numbers.
    pub metrics: Option<MetricsTable>,
    /// For a selection or a ranking: what it chose.
    pub attributes: Option<Attributes>,
    /// For an LLM's answers: what became of them.
    pub answers: Option<AnswersSummary>,
    /// For a comparison: images won and lost, the first of them.
    pub changes: Vec<Change>,
    /// For trained weights: what each epoch saw.
    pub curve: Vec<Epoch>,
}

/// One epoch of training, as `curve.json` has it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// Mean loss over its images.
    pub loss: f64,
    /// Share of its images that were right, in percent, while it trained.
    pub accuracy: f64,
}

/// A connected port.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PageInput {
    /// The port.
    pub port: String,
    /// Where it leads, in words.
    pub source: String,
    /// The node behind it, by index in [`Page::nodes`].
    pub node: Option<usize>,
    /// Digest of what was read.
    pub digest: Option<String>,
}

/// When and where an artifact was computed; what is empty is left out.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Provenance {
    /// When, as people write it.
    pub computed: String,
    /// Seconds that it took then.
    pub took: Option<f64>,
    /// On which machine.
    pub machine: String,
    /// On which device.
    pub device: String,
    /// By which version of the program.
    pub version: String,
    /// Store it was found in: `local`, or a remote's name.
    pub store: String,
}

impl Page {
    /// A page with all that is known of `graph` without a run.
    pub fn of(graph: &Graph) -> Self {
        let node = |id| {
            let node = graph.node(id);
            let params = node.params.as_object().into_iter().flatten();
            let inputs = node.inputs.iter().map(|(port, source)| PageInput {
                port: (*port).to_owned(),
                source: match source {
                    Source::Model(model) => model.clone(),
                    other => source_words(graph, other),
                },
                node: match source {
                    Source::Node(id) => Some(id.index()),
                    _ => None,
                },
                digest: None,
            });
            PageNode {
                id: node.id.clone(),
                name: node.name.clone(),
                kind: node.kind.name.to_owned(),
                at: node
                    .at
                    .iter()
                    .map(|(axis, point)| (axis.clone(), point.to_string()))
                    .collect(),
                needs: graph.dependencies[id.index()]
                    .iter()
                    .map(|need| need.index())
                    .collect(),
                params: params
                    .map(|(name, value)| (name.clone(), value.clone()))
                    .collect(),
                inputs: inputs.collect(),
                ..PageNode::default()
            }
        };
        Self {
            name: graph.name.clone(),
            title: graph.title.clone(),
            nodes: graph.ids().map(node).collect(),
            ..Self::default()
        }
    }

    /// How many nodes are in `state`.
    pub fn count(&self, state: State) -> usize {
        self.nodes
            .iter()
            .filter(|node| node.state == Some(state))
            .count()
    }
}
