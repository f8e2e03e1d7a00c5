//! What a node's reference fields lead to once everything upstream is done.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use anyhow::{Context, Result, bail};

use super::{EndpointModel, ModelFolder, ReplayFile};
use crate::{
    artifact::{Answers, Artifact, Attributes, Embeddings, LabelUse, Manifest, Type},
    data::{ClassList, Split},
    digest::Digest,
};

/// Access to a stored artifact's files.
pub trait ArtifactFiles: Send + Sync {
    /// The verified bytes of the file called `name`.
    fn read(&self, name: &str) -> Result<Vec<u8>>;

    /// Makes sure that all files are on this machine, fetching those that are elsewhere; says
    /// whether they are.
    fn bring(&self) -> bool;

    /// A folder that holds all files under their names, for loaders that want paths.
    fn folder(&self) -> Result<PathBuf>;
}

/// One resolved reference.
#[derive(Clone)]
pub enum Input {
    /// An artifact of another node.
    Artifact {
        /// Its list of files.
        manifest: Arc<Manifest>,
        /// Its digest.
        digest: Digest,
        /// Its bytes.
        files: Arc<dyn ArtifactFiles>,
    },
    /// Round 0: nothing chosen yet.
    Empty(Type),
    /// A split of a data set.
    Split(Arc<Split>),
    /// Class names of a data set or written in the file.
    Classes(Arc<ClassList>),
    /// A model folder.
    Model(Arc<ModelFolder>),
    /// A language model behind a server.
    Endpoint(Arc<EndpointModel>),
    /// A language model's answers in a file.
    Replay(Arc<ReplayFile>),
}

impl Input {
    /// Digests of the parts that a result can depend on, by name: `content`
    /// of an artifact; `images`, `labels`, `classes` of data; a model's parts.
    pub fn parts(&self) -> Result<BTreeMap<&'static str, Digest>> {
        Ok(match self {
            Self::Artifact { digest, .. } => BTreeMap::from([("content", *digest)]),
            Self::Empty(_) => {
                BTreeMap::from([("content", Digest::derived("runner empty v1", b""))])
            }
            Self::Split(split) => BTreeMap::from([
                ("images", split.images_digest()),
                ("labels", split.labels_digest()),
                ("classes", split.classes().digest()),
            ]),
            Self::Classes(classes) => BTreeMap::from([("classes", classes.digest())]),
            Self::Model(model) => model.parts().clone(),
            Self::Endpoint(model) => model.parts(),
            Self::Replay(file) => file.parts(),
        })
    }

    /// Labels that had a part in what is behind this input.
    pub fn labels(&self) -> Vec<LabelUse> {
        match self {
            Self::Artifact { manifest, .. } => manifest.labels.iter().cloned().collect(),
            Self::Model(model) => model.labels.clone(),
            _ => Vec::new(),
        }
    }
}

/// All inputs of one node, by port.
#[derive(Clone, Default)]
pub struct Inputs {
    ports: BTreeMap<&'static str, Vec<Input>>,
}

impl Inputs {
    /// Connects `input` to `port`; a port that takes a list keeps the order.
    pub fn connect(&mut self, port: &'static str, input: Input) {
        self.ports.entry(port).or_default().push(input);
    }

    /// Every port with what it leads to.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &[Input])> {
        self.ports
            .iter()
            .map(|(port, list)| (*port, list.as_slice()))
    }

    /// Whether something is connected to `port`.
    pub fn has(&self, port: &str) -> bool {
        self.ports.contains_key(port)
    }

    /// The single input of `port`.
    ///
    /// # Errors
    /// When nothing is connected.
    pub fn get(&self, port: &str) -> Result<&Input> {
        self.ports
            .get(port)
            .and_then(|list| list.first())
            .with_context(|| format!("nothing is connected to `{port}`"))
    }

    /// The artifact behind `port`, decoded.
    ///
    /// # Errors
    /// When `port` leads to something else or the artifact cannot be read.
    pub fn artifact<A: Artifact>(&self, port: &str) -> Result<A> {
        decoded(port, self.get(port)?)
    }

    /// The artifacts behind `port`, which takes a list, decoded and in its order.
    ///
    /// # Errors
    /// As [`Self::artifact`].
    pub fn artifacts<A: Artifact>(&self, port: &str) -> Result<Vec<A>> {
        let list = self.ports.get(port).into_iter().flatten();
        list.map(|input| decoded(port, input)).collect()
    }

    /// The attributes chosen so far behind `port`; none for round 0 or when
    /// nothing is connected.
    pub fn attributes(&self, port: &str) -> Result<Attributes> {
        match self.ports.get(port).and_then(|list| list.first()) {
            None | Some(Input::Empty(_)) => Ok(Attributes::default()),
            Some(_) => self.artifact(port),
        }
    }

    /// The split behind `port`.
    pub fn split(&self, port: &str) -> Result<&Arc<Split>> {
        match self.get(port)? {
            Input::Split(split) => Ok(split),
            _ => bail!("`{port}` does not lead to a split of a data set"),
        }
    }

    /// The model behind `port`.
    pub fn model(&self, port: &str) -> Result<&Arc<ModelFolder>> {
        match self.get(port)? {
            Input::Model(model) => Ok(model),
            _ => bail!("`{port}` does not lead to a model folder"),
        }
    }

    /// The class names behind `port`, in index order.
    pub fn classes(&self, port: &str) -> Result<Vec<String>> {
        match self.get(port)? {
            Input::Split(split) => Ok(split.classes().names().to_vec()),
            Input::Classes(classes) => Ok(classes.names().to_vec()),
            Input::Artifact { manifest, .. } => match manifest.r#type {
                Type::ImageEmbeddings | Type::TextEmbeddings => {
                    Ok(self.artifact::<Embeddings>(port)?.classes)
                }
                Type::Answers => Ok(self.artifact::<Answers>(port)?.classes),
                Type::Attributes => Ok(self
                    .artifact::<Attributes>(port)?
                    .classes
                    .into_iter()
                    .map(|entry| entry.class)
                    .collect()),
                other => bail!("`{port}` leads to {other}, which carry no classes"),
            },
            Input::Empty(_) | Input::Model(_) | Input::Endpoint(_) | Input::Replay(_) => {
                bail!("`{port}` does not lead to classes")
            }
        }
    }

    /// Labels that had a part in any input: what the artifact inherits.
    pub fn labels(&self) -> Vec<LabelUse> {
        self.ports
            .values()
            .flatten()
            .flat_map(Input::labels)
            .collect()
    }
}

fn decoded<A: Artifact>(port: &str, input: &Input) -> Result<A> {
    match input {
        Input::Artifact { files, .. } => A::decode(&|name| files.read(name))
            .with_context(|| format!("failed to read the artifact behind `{port}`")),
        _ => bail!("`{port}` does not lead to an artifact"),
    }
}
