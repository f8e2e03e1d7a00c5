//! The engine: ready → key → lookup → hit, or execute → commit. It prints
//! nothing; everything it has to say is an [`Event`].

mod event;
mod execute;
mod fingerprint;
mod history;
mod keep;
mod local;
mod plan;
mod reason;
mod resolve;
mod state;
mod uptodate;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::channel,
    },
    time::{Duration, Instant},
};

use anyhow::Result;
use serde_json::Value;

pub use self::{
    event::Event,
    fingerprint::{Change, Fingerprint, changes},
    history::{History, RunEntry, RunNode, all},
    plan::{NodePlan, Verdict, plan},
    reason::reason,
    resolve::read_manifest,
    state::State,
    uptodate::{Results, UpToDate, index_name},
};
use self::{
    execute::{Job, Message, Stopped},
    local::{Workers, wait},
    resolve::Resolver,
    state::States,
};
use crate::{
    artifact::Manifest,
    digest::{Digest, FileMemo},
    node::{Budget, DeviceChoice, Inputs},
    pipeline::{Graph, NodeId},
    store::Store,
};

/// How a run is to go.
pub struct Settings {
    /// Identity of the run in the history.
    pub run: String,
    /// Device for nodes that name none.
    pub device: DeviceChoice,
    /// Nodes of this run; all of them when `None`.
    pub wanted: Option<BTreeSet<NodeId>>,
    /// Nodes that run even if the store has them.
    pub force: BTreeSet<NodeId>,
    /// What is noted in every record: program, machine, person.
    pub provenance: Value,
    /// Set by the user's interrupt.
    pub stop: &'static AtomicBool,
}

/// How a node ended.
#[derive(Clone, Debug)]
pub struct NodeOutcome {
    /// Its last state.
    pub state: State,
    /// Whether its artifact was in the store already.
    pub hit: bool,
    /// Its key, once everything upstream was done.
    pub key: Option<Digest>,
    /// Digest of its artifact's manifest.
    pub artifact: Option<Digest>,
    /// The list of its files.
    pub manifest: Option<std::sync::Arc<Manifest>>,
    /// Time that it took in this run.
    pub took: Duration,
    /// Items computed and found.
    pub items: (u64, u64),
    /// Why it ran.
    pub why: String,
    /// Why it failed, or the node that blocks it.
    pub error: Option<String>,
}

/// How a run ended.
pub struct Outcome {
    /// One entry a node, in the graph's order.
    pub nodes: Vec<NodeOutcome>,
    /// Time in all.
    pub took: Duration,
    /// Whether the user stopped it.
    pub stopped: bool,
}

impl Outcome {
    /// Nodes that were found, ran, failed and were blocked.
    pub fn counts(&self) -> (usize, usize, usize, usize) {
        let count =
            |test: &dyn Fn(&NodeOutcome) -> bool| self.nodes.iter().filter(|n| test(n)).count();
        (
            count(&|n| n.state == State::Done && n.hit),
            count(&|n| n.state == State::Done && !n.hit),
            count(&|n| n.state == State::Failed),
            count(&|n| n.state == State::Blocked),
        )
    }
}

/// Brings every wanted node up to date.
///
/// Approach: take a ready node, resolve its inputs, make its key and ask the
/// store. A hit is done at once; a miss goes to a worker. When nothing is ready,
/// wait for a worker. A failed node blocks what depends on it and nothing else.
///
/// # Errors
/// When the engine itself cannot go on; failures of nodes are in the outcome.
pub fn run(
    graph: &Graph,
    store: &Store,
    memo: &FileMemo,
    settings: &Settings,
    emit: &mut dyn FnMut(Event),
) -> Result<Outcome> {
    let began = Instant::now();
    let history = History::load(store, &graph.name);
    let wanted = |id: NodeId| settings.wanted.as_ref().is_none_or(|set| set.contains(&id));
    let mut loop_ = Loop {
        graph,
        store,
        settings,
        history,
        resolver: Resolver::new(graph, store, memo),
        states: States::new(graph, &wanted),
        nodes: graph.ids().map(|_| NodeOutcome::new()).collect(),
        recipes: vec![None; graph.nodes.len()],
        model_users: model_users(graph, &wanted),
        running: 0,
    };
    emit(Event::RunStarted {
        nodes: graph.ids().filter(|id| wanted(*id)).count(),
        run: settings.run.clone(),
        device: settings.device.to_string(),
    });
    let (tell, messages) = channel();
    let stopped = std::thread::scope(|scope| -> Result<bool> {
        let threads = std::thread::available_parallelism().map_or(4, |n| n.get().max(4));
        let mut workers = Workers::new(scope, store, settings.stop, tell, threads);
        let mut told = false;
        loop {
            while !settings.stop.load(Ordering::Relaxed)
                && let Some(id) = loop_.states.pop_ready()
            {
                loop_.start(id, &mut workers, emit);
            }
            if settings.stop.load(Ordering::Relaxed) && !told {
                told = true;
                emit(Event::Stopping);
                loop_.states.block_rest();
            }
            if loop_.running == 0 {
                return Ok(told);
            }
            match wait(&messages)? {
                Message::Event(event) => emit(event),
                Message::Done(id, result) => loop_.finished(id, result, &workers, emit),
            }
        }
    })?;
    for id in graph.ids() {
        loop_.nodes[id.index()].state = loop_.states.get(id);
    }
    let outcome = Outcome {
        nodes: loop_.nodes,
        took: began.elapsed(),
        stopped,
    };
    let (hits, ran, failed, blocked) = outcome.counts();
    emit(Event::RunFinished {
        hits,
        ran,
        failed,
        blocked,
        took: outcome.took,
    });
    Ok(outcome)
}

impl NodeOutcome {
    fn new() -> Self {
        Self {
            state: State::Unwanted,
            hit: false,
            key: None,
            artifact: None,
            manifest: None,
            took: Duration::ZERO,
            items: (0, 0),
            why: String::new(),
            error: None,
        }
    }
}

/// What the loop holds between two steps.
struct Loop<'a> {
    graph: &'a Graph,
    store: &'a Store,
    settings: &'a Settings,
    history: History,
    resolver: Resolver<'a>,
    states: States,
    nodes: Vec<NodeOutcome>,
    recipes: Vec<Option<Digest>>,
    /// For each `[models]` entry how many unfinished nodes use it.
    model_users: BTreeMap<String, usize>,
    running: usize,
}

impl Loop<'_> {
    /// Ready → Done by a hit, Running, or Failed when inputs cannot be had.
    fn start(&mut self, id: NodeId, workers: &mut Workers<'_, '_>, emit: &mut dyn FnMut(Event)) {
        match self.look_up(id, emit) {
            Ok(None) => {
                self.release_models(id, workers);
                self.states.set(self.graph, id, State::Done);
            }
            Ok(Some(job)) => {
                let instance = self.graph.node(id);
                let device = match instance
                    .exec
                    .device
                    .as_ref()
                    .or(self.graph.exec.device.as_ref())
                {
                    Some(name) => name
                        .parse()
                        .unwrap_or_else(|_| self.settings.device.clone()),
                    None => self.settings.device.clone(),
                };
                self.states.set(self.graph, id, State::Running);
                self.running += 1;
                let pool = instance.node.pool(&job.inputs);
                workers.start(job, pool, &device);
            }
            Err(error) => self.fail(id, &error, workers, emit),
        }
    }

    /// Makes the key and asks the store; `None` is a hit.
    fn look_up(&mut self, id: NodeId, emit: &mut dyn FnMut(Event)) -> Result<Option<Job>> {
        let inputs = self.resolver.inputs(id);
        for message in self.resolver.take_warnings() {
            emit(Event::Warning {
                node: None,
                message,
            });
        }
        let inputs = inputs?;
        let recipes = &self.recipes;
        let fingerprint = Fingerprint::of(self.graph, id, &inputs, &|upstream| {
            recipes[upstream.index()].unwrap_or(Digest::from_bytes([0; 32]))
        })?;
        let key = fingerprint.key;
        self.recipes[id.index()] = Some(fingerprint.recipe);
        self.nodes[id.index()].key = Some(key);
        let force = self.settings.force.contains(&id);
        if !force
            && let Some(record) = self.store.lookup(&key)?
            && self.resolver.made(id, record.artifact).is_ok()
        {
            let node = &mut self.nodes[id.index()];
            node.hit = true;
            node.artifact = Some(record.artifact);
            node.manifest = self.resolver.artifact(id).map(|made| made.manifest.clone());
            emit(Event::Hit { node: id, key });
            return Ok(None);
        }
        let why = if force {
            "asked for by --force".to_owned()
        } else {
            let before = self
                .history
                .fingerprint(self.store, &self.graph.node(id).id);
            reason(self.graph, id, before.as_ref(), &fingerprint.content)
        };
        self.nodes[id.index()].why = why;
        Ok(Some(self.job(id, inputs, fingerprint, force)))
    }

    fn job(&self, id: NodeId, inputs: Inputs, fingerprint: Fingerprint, force: bool) -> Job {
        let instance = self.graph.node(id);
        Job {
            id,
            node: instance.node.clone(),
            kind: instance.kind.name,
            inputs,
            fingerprint,
            budget: Budget {
                batch: instance.exec.batch.or(self.graph.exec.batch),
                kv_memory: (instance.exec.kv_memory).or(self.graph.exec.kv_memory),
                weights_memory: (instance.exec.weights_memory).or(self.graph.exec.weights_memory),
                features_memory: (instance.exec.features_memory)
                    .or(self.graph.exec.features_memory),
            },
            force,
            provenance: self.settings.provenance.clone(),
            why: self.nodes[id.index()].why.clone(),
        }
    }

    /// Running → Done or Failed.
    fn finished(
        &mut self,
        id: NodeId,
        result: Result<execute::Finished>,
        workers: &Workers<'_, '_>,
        emit: &mut dyn FnMut(Event),
    ) {
        self.running -= 1;
        let finished = match result {
            Ok(finished) => finished,
            Err(error) if error.is::<Stopped>() => {
                self.states.set(self.graph, id, State::Blocked);
                return;
            }
            Err(error) => return self.fail(id, &error, workers, emit),
        };
        if let Err(error) = self.resolver.made(id, finished.artifact) {
            return self.fail(id, &error, workers, emit);
        }
        let node = &mut self.nodes[id.index()];
        node.artifact = Some(finished.artifact);
        node.manifest = self.resolver.artifact(id).map(|made| made.manifest.clone());
        node.took = finished.took;
        node.items = finished.items;
        emit(Event::Ran {
            node: id,
            key: node.key.unwrap_or(finished.artifact),
            took: finished.took,
            items: finished.items,
        });
        self.release_models(id, workers);
        self.states.set(self.graph, id, State::Done);
    }

    fn fail(
        &mut self,
        id: NodeId,
        error: &anyhow::Error,
        workers: &Workers<'_, '_>,
        emit: &mut dyn FnMut(Event),
    ) {
        let message = format!("{error:#}");
        self.nodes[id.index()].error = Some(message.clone());
        emit(Event::Failed { node: id, message });
        self.release_models(id, workers);
        for blocked in self.states.set(self.graph, id, State::Failed) {
            self.nodes[blocked.index()].error =
                Some(format!("needs `{}`, which failed", self.graph.node(id).id));
            emit(Event::Blocked {
                node: blocked,
                by: id,
            });
            self.release_models(blocked, workers);
        }
    }

    /// Counts `id` out of the users of its models; the last one frees the memory.
    fn release_models(&mut self, id: NodeId, workers: &Workers<'_, '_>) {
        for name in models_of(self.graph, id) {
            if let Some(users) = self.model_users.get_mut(&name) {
                *users -= 1;
                if *users == 0
                    && let Some(model) = self.resolver.model_id(&name)
                {
                    workers.release(&model);
                }
            }
        }
    }
}

/// Entries of `[models]` that `id` loads.
fn models_of(graph: &Graph, id: NodeId) -> Vec<String> {
    let sources = graph.node(id).inputs.iter();
    sources
        .filter_map(|(_, source)| match source {
            crate::pipeline::Source::Model(name) => Some(name.clone()),
            _ => None,
        })
        .collect()
}

fn model_users(graph: &Graph, wanted: &dyn Fn(NodeId) -> bool) -> BTreeMap<String, usize> {
    let mut users = BTreeMap::new();
    for id in graph.ids().filter(|id| wanted(*id)) {
        for name in models_of(graph, id) {
            *users.entry(name).or_insert(0) += 1;
        }
    }
    users
}

/// Reads one file of an artifact that a run left behind.
///
/// # Errors
/// When the store no longer has it.
pub fn read_file(store: &Store, manifest: &Manifest, name: &str) -> Result<Vec<u8>> {
    let file = manifest
        .file(name)
        .ok_or_else(|| anyhow::anyhow!("the artifact has no file `{name}`"))?;
    store
        .get(&file.digest)?
        .ok_or_else(|| anyhow::anyhow!("`{name}` is no longer in the store\nhint: run again"))
}
