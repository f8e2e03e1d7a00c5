//! The contract of a kind of node: its parameters, ports and work, and what it
//! may see while it works. A kind never sees the store, a key or an executor.

mod inputs;
mod model;
mod pool;
mod provider;

use std::{any::Any, collections::BTreeSet, sync::Arc};

use anyhow::Result;
use schemars::{JsonSchema, Schema};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use toml::{Spanned, de::DeValue};

pub use self::{
    inputs::{ArtifactFiles, Input, Inputs},
    model::{CLIP_CONFIG, CLIP_WEIGHTS, Family, ModelFolder, architectures, family, files},
    pool::{Models, id},
    provider::{EndpointModel, ReplayFile},
};
use crate::artifact::{Output, Type};
pub use crate::models::{
    device::DeviceChoice, endpoint::Settings as EndpointSettings, llm::Quantize,
};

/// What a reference field takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accept {
    /// An artifact of this type, made by another node.
    Artifact(Type),
    /// A split of a data set (`cifar10.test`), or a data set without splits.
    Split,
    /// Class names: a data set, a list of names, or a node that carries classes.
    Classes,
    /// A CLIP model: an entry of `[models]`, or a node that outputs weights.
    Clip,
    /// A language model: an entry of `[models]`, a server or a file of answers
    /// included.
    Llm,
}

/// A field of a node's table that names something else in the file.
#[derive(Clone, Copy, Debug)]
pub struct Port {
    /// The field's name.
    pub name: &'static str,
    /// What it may name; any of these.
    pub accepts: &'static [Accept],
    /// Whether it must be given.
    pub required: bool,
    /// Whether it takes a list of references.
    pub many: bool,
    /// One sentence for `runner kinds` and the schema.
    pub doc: &'static str,
}

impl Port {
    /// A port that must be given.
    pub const fn required(
        name: &'static str,
        accepts: &'static [Accept],
        doc: &'static str,
    ) -> Self {
        Self {
            name,
            accepts,
            required: true,
            many: false,
            doc,
        }
    }

    /// A port that may be left out.
    pub const fn optional(
        name: &'static str,
        accepts: &'static [Accept],
        doc: &'static str,
    ) -> Self {
        Self {
            required: false,
            ..Self::required(name, accepts, doc)
        }
    }
}

/// A parameter that can also be given as a file: `prompt_file = "a.j2"` sets
/// the parameter `prompt` to the file's text, and only the text counts.
#[derive(Clone, Copy, Debug)]
pub struct TextFile {
    /// The field that names the file.
    pub field: &'static str,
    /// The parameter that its text becomes.
    pub sets: &'static str,
}

/// Something wrong with a node's table that no single field's type shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// The field to underline; the node's own header when `None`.
    pub field: Option<&'static str>,
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub hint: Option<String>,
}

/// Where a node wants to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pool {
    /// On the thread that owns the models' device.
    Model,
    /// On any thread.
    Cpu,
}

/// One thing that a mapping kind computes and that is kept by itself: an
/// image, a text, an answer, an epoch.
#[derive(Clone)]
pub struct Item {
    /// What identifies it inside its space (pixels' digest, final string, …).
    pub id: Vec<u8>,
    /// Whatever the kind needs to compute it.
    pub task: Arc<dyn Any + Send + Sync>,
}

impl Item {
    /// An item called `id` that carries `task`.
    pub fn new<T: Any + Send + Sync>(id: impl Into<Vec<u8>>, task: T) -> Self {
        Self {
            id: id.into(),
            task: Arc::new(task),
        }
    }

    /// The task as the kind stored it; `None` if it is of another type.
    pub fn task<T: Any>(&self) -> Option<&T> {
        self.task.downcast_ref()
    }
}

/// Items that are done, in the order in which the kind asked for them.
#[derive(Default)]
pub struct Done {
    /// Each item with its value.
    pub list: Vec<(Item, Arc<[u8]>)>,
}

impl Done {
    /// How many are done.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

/// Takes the value of the item at a place of a batch; see [`Node::compute`].
pub type Keep<'a> = dyn FnMut(usize, Vec<u8>) -> Result<()> + 'a;

/// What a node may use while it works.
pub struct Ctx<'a> {
    /// Loaded models of this thread's device; `None` outside [`Pool::Model`].
    pub models: Option<&'a mut Models>,
    /// Asks whether the user wants to stop; long work asks often and returns early.
    pub stop: &'a dyn Fn() -> bool,
    /// Tells something a person should know; the run goes on.
    pub warn: &'a dyn Fn(String),
    /// Tells how far one batch is: (parts done, parts in all, what a part is).
    pub progress: &'a (dyn Fn(u64, u64, &str) + Sync),
    /// What it may take; never changes a result.
    pub budget: Budget,
}

/// What the user allows a node to take, where something is said in `exec`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// Items computed at once.
    pub batch: Option<usize>,
    /// Bytes of a language model's keys and values.
    pub kv_memory: Option<u64>,
    /// Bytes of a GPU for a language model's weights.
    pub weights_memory: Option<u64>,
    /// Bytes of memory for features that training keeps between epochs.
    pub features_memory: Option<u64>,
}

impl Ctx<'_> {
    /// The models of this thread.
    ///
    /// # Errors
    /// When the node's [`Node::pool`] is not [`Pool::Model`].
    pub fn models(&mut self) -> Result<&mut Models> {
        self.models
            .as_deref_mut()
            .ok_or_else(|| anyhow::anyhow!("this node runs on a thread without models"))
    }
}

/// A node's parameters, ready to work: what a kind implements.
///
/// A kind without items does all its work in [`Node::finish`].
pub trait Node: Send + Sync {
    /// The type of the artifact, given which ports are connected.
    fn output(&self, ports: &BTreeSet<&str>) -> Type;

    /// Checks what no single field's type shows; `ports` are those connected.
    fn check(&self, ports: &BTreeSet<&str>) -> Vec<Complaint> {
        let _ = ports;
        Vec::new()
    }

    /// Which parts of the model or data set behind `port` the result depends
    /// on; part names are those of [`Inputs::parts`]. All of them by default.
    fn reads(&self, port: &str, ports: &BTreeSet<&str>) -> Option<&'static [&'static str]> {
        let _ = (port, ports);
        None
    }

    /// Where it runs.
    fn pool(&self, inputs: &Inputs) -> Pool {
        let _ = inputs;
        Pool::Cpu
    }

    /// What all items share that changes their values: model part, numbers,
    /// version of the arithmetic. `None` for a kind without items.
    fn space(&self, inputs: &Inputs) -> Result<Option<Value>> {
        let _ = inputs;
        Ok(None)
    }

    /// All items known by now, in a fixed order that starts with those of
    /// `done`; asked again after each batch until it adds none.
    fn items(&self, inputs: &Inputs, done: &Done) -> Result<Vec<Item>> {
        let _ = (inputs, done);
        Ok(Vec::new())
    }

    /// How many items one batch holds; `asked` is what the user wants computed
    /// at once, if anything.
    fn batch(&self, asked: Option<usize>) -> usize {
        asked.unwrap_or(64)
    }

    /// Computes the values of `batch` and hands each to `keep` with its place in
    /// the batch, in any order and as soon as it is there: what was kept
    /// survives a failure and a kill. Keeping fewer values than there are items
    /// is allowed once [`Ctx::stop`] says so. An empty value says that an item
    /// could not be computed: it is not stored, the others are, and
    /// [`Node::finish`] tells.
    fn compute(
        &self,
        inputs: &Inputs,
        batch: &[Item],
        done: &Done,
        keep: &mut Keep<'_>,
        ctx: &mut Ctx<'_>,
    ) -> Result<()> {
        let _ = (inputs, batch, done, keep, ctx);
        anyhow::bail!("this kind has no items")
    }

    /// Makes the artifact from the items' values (or all of it, without items).
    fn finish(&self, inputs: &Inputs, done: &Done, ctx: &mut Ctx<'_>) -> Result<Output>;
}

/// A kind: a node's parameters with what is fixed about all such nodes.
pub trait Kind: Node + DeserializeOwned + Serialize + JsonSchema + 'static {
    /// The word in `kind = "…"`.
    const NAME: &'static str;
    /// Raised by hand when the artifact of equal inputs changes.
    const VERSION: u32;
    /// Reference fields.
    const PORTS: &'static [Port];
    /// Parameters that may be given as files.
    const FILES: &'static [TextFile] = &[];
    /// Whether it draws random numbers: then it has the parameters `seed` and
    /// `stream`, which the file's seed and the round fill in.
    const DRAWS: bool = false;
    /// One line for lists.
    const SUMMARY: &'static str;
    /// A page for `runner kinds NAME`: what it does, its files, an example in TOML.
    const DOC: &'static str;
    /// Hidden from lists.
    const HIDDEN: bool = false;
}

/// A kind as a row of the list of kinds.
#[derive(Clone, Copy)]
pub struct KindInfo {
    /// See [`Kind::NAME`].
    pub name: &'static str,
    /// See [`Kind::VERSION`].
    pub version: u32,
    /// See [`Kind::PORTS`].
    pub ports: &'static [Port],
    /// See [`Kind::FILES`].
    pub files: &'static [TextFile],
    /// See [`Kind::DRAWS`].
    pub draws: bool,
    /// See [`Kind::SUMMARY`].
    pub summary: &'static str,
    /// See [`Kind::DOC`].
    pub doc: &'static str,
    /// See [`Kind::HIDDEN`].
    pub hidden: bool,
    /// JSON Schema of the parameters (ports left out), with their defaults.
    pub schema: fn() -> Schema,
    /// Reads the parameters of one node from its table (ports left out).
    pub parse: fn(Spanned<DeValue<'_>>) -> Result<Parsed, toml::de::Error>,
}

/// A node's parameters after reading.
pub struct Parsed {
    /// Ready to work.
    pub node: Arc<dyn Node>,
    /// All parameters with defaults filled in, as JSON.
    pub params: Value,
}

impl KindInfo {
    /// The row of `K`.
    pub const fn of<K: Kind>() -> Self {
        Self {
            name: K::NAME,
            version: K::VERSION,
            ports: K::PORTS,
            files: K::FILES,
            draws: K::DRAWS,
            summary: K::SUMMARY,
            doc: K::DOC,
            hidden: K::HIDDEN,
            schema: schema_of::<K>,
            parse: parse::<K>,
        }
    }

    /// The port called `name`.
    pub fn port(&self, name: &str) -> Option<&'static Port> {
        self.ports.iter().find(|port| port.name == name)
    }
}

fn schema_of<K: Kind>() -> Schema {
    schemars::schema_for!(K)
}

fn parse<K: Kind>(table: Spanned<DeValue<'_>>) -> Result<Parsed, toml::de::Error> {
    let node = K::deserialize(toml::de::ValueDeserializer::from(table))?;
    let params = serde_json::to_value(&node).map_err(serde::de::Error::custom)?;
    Ok(Parsed {
        node: Arc::new(node),
        params,
    })
}
