//! The checked graph: what the engine works on once no text is looked at again.

use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc};

use serde_json::Value;

use crate::{
    artifact::Type,
    data::DataSpec,
    node::{EndpointModel, Family, KindInfo, Node, Quantize},
    table::Draw,
};

/// Index of a node instance in [`Graph::nodes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct NodeId(pub u32);

impl NodeId {
    /// As an index.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A point on an axis: matrix and sweep values keep their TOML type.
#[derive(Clone, Debug, PartialEq)]
pub enum Point {
    /// A round's or an integer's value.
    Int(i64),
    /// A floating-point value.
    Float(f64),
    /// A word.
    Text(String),
    /// A truth value.
    Bool(bool),
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(x) => x.fmt(f),
            Self::Float(x) => write!(f, "{x:?}"),
            Self::Text(x) => x.fmt(f),
            Self::Bool(x) => x.fmt(f),
        }
    }
}

/// Where a reference field leads.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// The artifact of another instance (also a model made by `finetune`).
    Node(NodeId),
    /// Round 0 of a round: nothing yet, of this type.
    Empty(Type),
    /// A split of an entry of `[data]`; the entry's name and the split's.
    Split(String, String),
    /// The class names of an entry of `[data]`.
    DataClasses(String),
    /// Class names written out.
    Classes(Vec<String>),
    /// An entry of `[models]`.
    Model(String),
}

/// Settings of one node that never change a result.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exec {
    /// `cpu`, `cuda:0`, …; the command line's choice when `None`.
    pub device: Option<String>,
    /// Items computed at once.
    pub batch: Option<usize>,
    /// The most bytes of a language model's keys and values.
    pub kv_memory: Option<u64>,
    /// The most bytes of a GPU for a language model's weights.
    pub weights_memory: Option<u64>,
    /// The most bytes of memory for features that training keeps.
    pub features_memory: Option<u64>,
}

/// One node instance.
pub struct Instance {
    /// Unique name for people and commands: `images`, `refine.propose@2`, `eval@n=1,temperature=0.5`.
    pub id: String,
    /// The node's name without its axes: `images`, `refine.propose`.
    pub name: String,
    /// Its place on every axis, by axis name; rounds are the axis `round`.
    pub at: BTreeMap<String, Point>,
    /// Its kind.
    pub kind: &'static KindInfo,
    /// Ready to work.
    pub node: Arc<dyn Node>,
    /// All its parameters with defaults, as JSON: the key drops those that equal their default.
    pub params: Value,
    /// Type of its artifact.
    pub output: Type,
    /// Where each connected port leads; a port that takes a list occurs once per entry.
    pub inputs: Vec<(&'static str, Source)>,
    /// Execution settings.
    pub exec: Exec,
    /// `[params]` (and sweep values) that the table saw through `${…}`, with
    /// what they were and whether `-s` set them: for `why`.
    pub saw: BTreeMap<String, Seen>,
}

/// A parameter that a node's table saw.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// Its value.
    pub value: Value,
    /// Whether `-s` set it.
    pub set: bool,
}

/// An entry of `[models]`.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelSpec {
    /// Where it is.
    pub source: ModelSource,
    /// What it is.
    pub family: Family,
    /// `blake3:…` that it must have.
    pub digest: Option<crate::digest::Digest>,
}

/// Where a model is.
#[derive(Clone, Debug, PartialEq)]
pub enum ModelSource {
    /// In files of this machine.
    Files(ModelFiles),
    /// Behind a server.
    Endpoint(Box<EndpointModel>),
    /// Nowhere: its answers are in this file.
    Replay(PathBuf),
}

/// A model in files of this machine.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelFiles {
    /// Absolute folder, or file of weights.
    pub path: PathBuf,
    /// `f32`, `f16`, `bf16`.
    pub dtype: String,
    /// What weights are quantised to while they are read.
    pub quantize: Option<Quantize>,
    /// The name of its architecture, where no file tells it.
    pub architecture: Option<String>,
}

/// An entry of `[tables]`.
#[derive(Clone, Debug, PartialEq)]
pub struct TableSpec {
    /// Its name in the file.
    pub name: String,
    /// A heading.
    pub title: Option<String>,
    /// Axis whose points are rows; `class` lists the classes of a per-class value.
    pub rows: Option<String>,
    /// Axis whose points are columns.
    pub columns: Option<String>,
    /// `node.value` entries, in order.
    pub values: Vec<TableValue>,
    /// Axis that is averaged away (mean and deviation).
    pub mean_over: Option<String>,
    /// Published figures by row, then by column: by name, or in the order of the columns.
    pub published: BTreeMap<String, Value>,
    /// What the published figures of all classes together are, by column.
    pub overall: Vec<f64>,
    /// The class whose candidates are rows.
    pub class: Option<String>,
    /// How the report draws it.
    pub draw: Option<Draw>,
}

/// One value that a table lists.
#[derive(Clone, Debug, PartialEq)]
pub struct TableValue {
    /// Heading; `node.value` by default.
    pub label: String,
    /// Instances of the node, in file order; a cell picks by axes.
    pub instances: Vec<NodeId>,
    /// Which number: `top1`, `top5`, `mean_per_class`, `per_class`, `difference`, ….
    pub field: String,
    /// Published figures in the order of the rows.
    pub published: Vec<Value>,
}

/// A whole checked pipeline.
pub struct Graph {
    /// The pipeline's name.
    pub name: String,
    /// Its title.
    pub title: Option<String>,
    /// All instances; every node comes after those it needs.
    pub nodes: Vec<Instance>,
    /// For each node the nodes that need it, ascending.
    pub dependents: Vec<Vec<NodeId>>,
    /// For each node those it needs, ascending and distinct.
    pub dependencies: Vec<Vec<NodeId>>,
    /// Entries of `[data]` that a node names, with absolute paths.
    pub data: BTreeMap<String, DataSpec>,
    /// Entries of `[models]` that a node names.
    pub models: BTreeMap<String, ModelSpec>,
    /// Tables to print at the end.
    pub tables: Vec<TableSpec>,
    /// Every file that was read to build this, absolute.
    pub files: Vec<PathBuf>,
    /// Project root: nearest folder above the pipeline with a `runner.toml`, else the current folder.
    pub root: PathBuf,
    /// Settings for nodes that have none of their own.
    pub exec: Exec,
}

impl Graph {
    /// The instance called `id` here.
    pub fn node(&self, id: NodeId) -> &Instance {
        &self.nodes[id.index()]
    }

    /// Ids of all nodes.
    pub fn ids(&self) -> impl DoubleEndedIterator<Item = NodeId> + use<> {
        (0..self.nodes.len() as u32).map(NodeId)
    }
}
