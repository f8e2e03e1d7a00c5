//! The engine: ready → key → lookup → hit, or execute → commit. It prints
//! nothing; everything it has to say is an [`Event`].

mod event;
mod execute;
mod fingerprint;
mod history;
mod keep;
mod lease;
mod local;
mod plan;
mod reason;
mod recipe;
mod resolve;
mod seek;
mod state;
mod step;
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
    recipe::recipes,
    resolve::read_manifest,
    state::State,
    uptodate::{Results, UpToDate, index_name},
};
use self::{
    execute::Message,
    lease::Beat,
    local::{Workers, wait},
    resolve::Resolver,
    state::States,
    step::{Loop, models_of},
};
use crate::{
    artifact::Manifest,
    digest::{Digest, FileMemo},
    node::DeviceChoice,
    pipeline::{Graph, NodeId},
    store::{Record, Store},
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
    /// Nodes that are computed again, if the store has them, only to compare the results.
    pub audit: BTreeSet<NodeId>,
    /// Whether a node that somebody else computes at this moment is waited for.
    pub patient: bool,
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
    /// The key of the person who computed it, if it came from a shared cache.
    pub by: Option<String>,
    /// Whether a repetition gave the same, if there was one.
    pub audit: Option<bool>,
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
        recipes: recipes(graph),
        banned: vec![false; graph.nodes.len()],
        model_users: model_users(graph, &wanted),
        running: 0,
    };
    emit(Event::RunStarted {
        nodes: graph.ids().filter(|id| wanted(*id)).count(),
        run: settings.run.clone(),
        device: settings.device.to_string(),
    });
    let (tell, messages) = channel();
    let beat = Beat::new(
        &settings.run,
        settings.provenance["user"].as_str().unwrap_or("somebody"),
        settings.provenance["host"].as_str().unwrap_or("?"),
    );
    let stopped = std::thread::scope(|scope| -> Result<bool> {
        beat.start(scope, store);
        // However this ends.
        let _end = Ending(&beat);
        let mut emit = |event: Event| {
            beat.note(&event, graph);
            emit(event);
        };
        let emit: &mut dyn FnMut(Event) = &mut emit;
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
                Message::Sought(id, sought) => loop_.sought(id, sought, &mut workers, emit),
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
            by: None,
            audit: None,
            why: String::new(),
            error: None,
        }
    }
}

/// Ends the renewals of a lease when it is dropped.
struct Ending<'a>(&'a Beat);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
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

/// The record of `key`, here or as it was fetched from a shared cache, and whose key signed it.
///
/// # Errors
/// When the store cannot be read.
pub fn record(store: &Store, key: &Digest) -> Result<Option<(Record, Option<String>)>> {
    if let Some(record) = store.lookup(key)? {
        return Ok(Some((record, None)));
    }
    let shared = store.remembered(key);
    Ok(shared.map(|shared| (shared.record, Some(shared.signer))))
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
