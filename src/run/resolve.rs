//! From references to inputs: opens data sets and model folders once and
//! hands out stored artifacts.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock},
};

use anyhow::{Context, Result, anyhow, bail};

use super::seek::files;
use crate::{
    artifact::{Manifest, Type},
    data::{ClassList, DataSet},
    digest::{Digest, FileMemo},
    node::{ArtifactFiles, Family, Input, Inputs, ModelFolder, ReplayFile},
    pipeline::{Graph, ModelFiles, ModelSource, ModelSpec, NodeId, Source},
    store::{Store, StoreError},
};

/// The manifest that is the artifact `artifact`.
///
/// # Errors
/// When the store no longer has it or it cannot be read.
pub fn read_manifest(store: &Store, artifact: &Digest) -> Result<Manifest> {
    let name = artifact.short();
    let bytes = store
        .get(artifact)?
        .with_context(|| format!("the manifest {name} is not in the store"))?;
    serde_json::from_slice(&bytes).with_context(|| format!("failed to read the manifest {name}"))
}

/// Opens what the leaves of a graph name, each thing once.
pub(super) struct Resolver<'a> {
    graph: &'a Graph,
    store: &'a Store,
    memo: &'a FileMemo,
    data: BTreeMap<String, Arc<DataSet>>,
    models: BTreeMap<String, Input>,
    made_models: HashMap<Digest, Arc<ModelFolder>>,
    artifacts: Vec<Option<Made>>,
    warnings: Vec<String>,
}

/// An artifact that is in the store.
#[derive(Clone)]
pub(super) struct Made {
    pub(super) digest: Digest,
    pub(super) manifest: Arc<Manifest>,
    files: Arc<StoredFiles>,
}

impl<'a> Resolver<'a> {
    pub(super) fn new(graph: &'a Graph, store: &'a Store, memo: &'a FileMemo) -> Self {
        Self {
            graph,
            store,
            memo,
            data: BTreeMap::new(),
            models: BTreeMap::new(),
            made_models: HashMap::new(),
            artifacts: vec![None; graph.nodes.len()],
            warnings: Vec::new(),
        }
    }

    /// Notes that `id`'s artifact is in the store.
    ///
    /// # Errors
    /// When its manifest cannot be read.
    pub(super) fn made(&mut self, id: NodeId, artifact: Digest) -> Result<()> {
        let manifest = Arc::new(read_manifest(self.store, &artifact)?);
        self.artifacts[id.index()] = Some(Made {
            digest: artifact,
            files: Arc::new(StoredFiles {
                store: self.store.clone(),
                manifest: manifest.clone(),
                folder: OnceLock::new(),
                making: Mutex::new(()),
            }),
            manifest,
        });
        Ok(())
    }

    /// The artifact of `id`, once it is made.
    pub(super) fn artifact(&self, id: NodeId) -> Option<&Made> {
        self.artifacts[id.index()].as_ref()
    }

    /// Notes the artifact that a record names, if what a run needs of it is in the store: its
    /// manifest, and undamaged whatever the report is made of; other files are verified when
    /// they are read.
    ///
    /// # Errors
    /// Whether it is there cannot be told.
    pub(super) fn found(&mut self, id: NodeId, artifact: Digest) -> Result<bool> {
        match self.made(id, artifact) {
            Ok(()) => {}
            Err(error) if error.is::<StoreError>() => return Err(error),
            Err(_) => return Ok(false),
        }
        let manifest = self.artifact(id).map(|made| made.manifest.clone());
        let reported = manifest.filter(|manifest| manifest.r#type.is_reported());
        for file in reported.iter().flat_map(|manifest| &manifest.files) {
            if self.store.object_path(&file.digest)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The inputs of `id`; everything upstream has been [`made`](Self::made).
    ///
    /// # Errors
    /// When data or a model cannot be read, with the file's name.
    pub(super) fn inputs(&mut self, id: NodeId) -> Result<Inputs> {
        let graph = self.graph;
        let instance = graph.node(id);
        let mut inputs = Inputs::default();
        for (port, source) in &instance.inputs {
            let input = match source {
                Source::Node(from) => self.made_by(*from)?,
                Source::Empty(r#type) => Input::Empty(*r#type),
                Source::Split(data, split) => {
                    let set = self.data_set(data)?;
                    let split = set
                        .split(split)
                        .ok_or_else(|| anyhow!("data set `{data}` has no split `{split}`"))?;
                    Input::Split(split.clone())
                }
                Source::DataClasses(data) => Input::Classes(self.data_set(data)?.classes().clone()),
                Source::Classes(names) => Input::Classes(Arc::new(ClassList::new(names.clone())?)),
                Source::Model(name) => self.model(name)?,
            };
            inputs.connect(port, input);
        }
        Ok(inputs)
    }

    fn made_by(&mut self, from: NodeId) -> Result<Input> {
        let Some(made) = self.artifacts[from.index()].clone() else {
            bail!("`{}` is not done", self.graph.node(from).id);
        };
        if made.manifest.r#type != Type::Weights {
            return Ok(Input::Artifact {
                manifest: made.manifest,
                digest: made.digest,
                files: made.files,
            });
        }
        if let Some(folder) = self.made_models.get(&made.digest) {
            return Ok(Input::Model(folder.clone()));
        }
        let dtype = self.dtype_upstream(from);
        let mut folder =
            ModelFolder::open(made.files.folder()?, Family::Clip, None, &dtype, self.memo)?;
        folder.labels = made.manifest.labels.iter().cloned().collect();
        folder.keep = Some(made.files.clone());
        let folder = Arc::new(folder);
        self.made_models.insert(made.digest, folder.clone());
        Ok(Input::Model(folder))
    }

    /// A tuned model keeps the dtype of the model that it was tuned from.
    fn dtype_upstream(&self, from: NodeId) -> String {
        let source = self
            .graph
            .node(from)
            .inputs
            .iter()
            .find(|(port, _)| *port == "model");
        match source {
            Some((_, Source::Model(name))) => match &self.graph.models[name].source {
                ModelSource::Files(files) => files.dtype.clone(),
                _ => "f32".to_owned(),
            },
            Some((_, Source::Node(node))) => self.dtype_upstream(*node),
            _ => "f32".to_owned(),
        }
    }

    /// What the data sets opened since the last call have to say.
    pub(super) fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    /// Identity of the loaded model behind the `[models]` entry `name`, if it was opened.
    pub(super) fn model_id(&self, name: &str) -> Option<String> {
        match self.models.get(name)? {
            Input::Model(folder) => Some(crate::node::id(folder)),
            _ => None,
        }
    }

    fn data_set(&mut self, name: &str) -> Result<Arc<DataSet>> {
        if let Some(set) = self.data.get(name) {
            return Ok(set.clone());
        }
        let spec = self
            .graph
            .data
            .get(name)
            .with_context(|| format!("there is no data set `{name}`"))?;
        let set = Arc::new(
            DataSet::open(spec, self.memo)
                .with_context(|| format!("failed to open data set `{name}`"))?,
        );
        let about = |warning: &String| format!("data set `{name}`: {warning}");
        self.warnings.extend(set.warnings().iter().map(about));
        self.data.insert(name.to_owned(), set.clone());
        Ok(set)
    }

    fn model(&mut self, name: &str) -> Result<Input> {
        if let Some(model) = self.models.get(name) {
            return Ok(model.clone());
        }
        let spec = self
            .graph
            .models
            .get(name)
            .with_context(|| format!("there is no model `{name}`"))?;
        let failed = || format!("failed to open model `{name}`");
        let model = match &spec.source {
            ModelSource::Files(files) => {
                Input::Model(self.folder(name, spec, files).with_context(failed)?)
            }
            ModelSource::Endpoint(model) => Input::Endpoint(Arc::new((**model).clone())),
            ModelSource::Replay(path) => {
                let file = ReplayFile::open(path, self.memo).with_context(failed)?;
                Input::Replay(Arc::new(file))
            }
        };
        self.models.insert(name.to_owned(), model.clone());
        Ok(model)
    }
}

impl Resolver<'_> {
    fn folder(&self, name: &str, spec: &ModelSpec, files: &ModelFiles) -> Result<Arc<ModelFolder>> {
        let architecture = files.architecture.as_deref();
        let path = files.path.clone();
        let mut model =
            ModelFolder::open(path, spec.family, architecture, &files.dtype, self.memo)?;
        model.quantize = files.quantize;
        if let Some(pinned) = spec.digest
            && pinned != model.digest()
        {
            bail!(
                "model `{name}` in `{}` is not the pinned one: it has the digest blake3:{}\nhint: put the files back, or change `digest`",
                files.path.display(),
                model.digest()
            );
        }
        Ok(Arc::new(model))
    }
}

/// A stored artifact's files.
pub(super) struct StoredFiles {
    store: Store,
    manifest: Arc<Manifest>,
    folder: OnceLock<tempfile::TempDir>,
    making: Mutex<()>,
}

impl ArtifactFiles for StoredFiles {
    fn read(&self, name: &str) -> Result<Vec<u8>> {
        let file = self
            .manifest
            .file(name)
            .with_context(|| format!("the artifact has no file `{name}`"))?;
        self.store
            .get(&file.digest)?
            .with_context(|| format!("`{name}` ({}) is no longer in the store\nhint: run again; what is missing is computed anew", file.digest.short()))
    }

    fn bring(&self) -> bool {
        self.store.fetch(&files(&self.manifest)).is_empty()
    }

    fn folder(&self) -> Result<PathBuf> {
        let _making = self.making.lock();
        if let Some(folder) = self.folder.get() {
            return Ok(folder.path().to_owned());
        }
        let folder = tempfile::tempdir()?;
        for file in &self.manifest.files {
            let object = self.store.object_path(&file.digest)?.with_context(|| {
                format!("`{}` is no longer in the store\nhint: run again", file.name)
            })?;
            let link = folder.path().join(&file.name);
            if let Some(parent) = link.parent() {
                fs_err::create_dir_all(parent)?;
            }
            // Links, not copies: weights can be large, and objects are never changed in place.
            fs_err::os::unix::fs::symlink(std::path::absolute(object)?, &link)?;
        }
        let path = folder.path().to_owned();
        let _ = self.folder.set(folder);
        Ok(path)
    }
}
