//! What a run would do, found out without running anything.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use rayon::prelude::*;
use serde::Serialize;

use super::{
    Fingerprint, History,
    execute::{item_key, item_space},
    reason, recipes,
    resolve::Resolver,
    seek::files,
};
use crate::{
    digest::{Digest, FileMemo},
    node::{Done, Inputs},
    pipeline::{Graph, NodeId},
    store::{Shared, Store},
};

/// What would happen to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Its artifact is in the store.
    Hit,
    /// Its artifact is in a shared cache.
    Fetch,
    /// It would run.
    Run,
    /// Its key is not known until something upstream has run.
    Waits,
    /// Its inputs cannot be had.
    Broken,
}

/// The plan of one node.
#[derive(Clone, Debug, Serialize)]
pub struct NodePlan {
    /// Its name.
    pub node: String,
    /// What would happen.
    pub verdict: Verdict,
    /// Its key, if it can be known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Digest>,
    /// Items known before it starts: how many, and how many the store has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub items: Option<(u64, u64)>,
    /// Why, in a sentence.
    pub why: String,
    /// The key of the person who computed it, if it comes from a shared cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Bytes of its files that are not here, if it comes from a shared cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// The space of its items, if it has any.
    #[serde(skip)]
    pub space: Option<Digest>,
    /// What its key is made of.
    #[serde(skip)]
    pub fingerprint: Option<Fingerprint>,
}

impl NodePlan {
    fn of(graph: &Graph, id: NodeId, verdict: Verdict, why: String) -> Self {
        Self {
            node: graph.node(id).id.clone(),
            verdict,
            key: None,
            items: None,
            why,
            by: None,
            bytes: None,
            space: None,
            fingerprint: None,
        }
    }
}

/// Threads that ask the shared caches: they wait for servers, not for processors.
const ASKERS: usize = 16;

/// Plans every node of `graph` (of `wanted`, if given), in the graph's order.
///
/// Nodes whose inputs are known are planned together, so that shared caches are asked for many
/// at once.
///
/// # Errors
/// When the store cannot be read.
pub fn plan(
    graph: &Graph,
    store: &Store,
    memo: &FileMemo,
    wanted: Option<&BTreeSet<NodeId>>,
) -> Result<Vec<(NodeId, NodePlan)>> {
    let mut planner = Planner {
        graph,
        store,
        history: History::load(store, &graph.name),
        resolver: Resolver::new(graph, store, memo),
        recipes: recipes(graph),
    };
    let is_wanted = |id: &NodeId| wanted.is_none_or(|set| set.contains(id));
    let dependencies = |id: NodeId| &graph.dependencies[id.index()];
    let mut done = vec![false; graph.nodes.len()];
    // How many of its dependencies are not known to be there.
    let mut missing: Vec<usize> = graph.ids().map(|id| dependencies(id).len()).collect();
    let mut plans: Vec<(NodeId, NodePlan)> = Vec::new();
    let mut ready: Vec<NodeId> = (graph.ids().filter(is_wanted))
        .filter(|id| missing[id.index()] == 0)
        .collect();
    while !ready.is_empty() {
        let mut looked = Vec::with_capacity(ready.len());
        for id in std::mem::take(&mut ready) {
            looked.push((id, planner.look(id)?));
        }
        let answers = ask(store, &looked)?;
        for ((id, looked), answer) in looked.into_iter().zip(answers) {
            let plan = planner.decide(id, looked, answer);
            if matches!(plan.verdict, Verdict::Hit | Verdict::Fetch) {
                done[id.index()] = true;
                for &next in &graph.dependents[id.index()] {
                    missing[next.index()] -= 1;
                    if missing[next.index()] == 0 && is_wanted(&next) {
                        ready.push(next);
                    }
                }
            }
            plans.push((id, plan));
        }
    }
    for id in graph.ids().filter(is_wanted) {
        let waits: Vec<&str> = (dependencies(id).iter())
            .filter(|from| !done[from.index()])
            .map(|from| graph.node(*from).id.as_str())
            .collect();
        if !waits.is_empty() {
            let why = format!("waits for {}", list(&waits));
            plans.push((id, NodePlan::of(graph, id, Verdict::Waits, why)));
        }
    }
    plans.sort_unstable_by_key(|(id, _)| *id);
    Ok(plans)
}

/// What is known of a node before the shared caches are asked.
enum Looked {
    /// It is in the store.
    Here(Box<NodePlan>),
    /// It may be elsewhere, by its key.
    Key(Box<(NodePlan, Inputs, Fingerprint)>),
    /// Its inputs are not to be had: it may be elsewhere, by its recipe.
    Recipe(Digest, String),
}

/// Asks the shared caches for what is not here, for many nodes at once.
///
/// # Errors
/// When there can be no threads.
fn ask(store: &Store, looked: &[(NodeId, Looked)]) -> Result<Vec<Option<Shared>>> {
    let find = |(_, looked): &(NodeId, Looked)| {
        let shared = match looked {
            Looked::Here(_) => None,
            Looked::Key(known) => store.find(&known.2.key),
            Looked::Recipe(recipe, _) => store.find_by_recipe(recipe),
        }?;
        // The list of its files, too, is fetched here; who needs it sees whether it came.
        let _ = store.get(&shared.record.artifact);
        Some(shared)
    };
    let away = |(_, looked): &&(NodeId, Looked)| !matches!(looked, Looked::Here(_));
    if !store.is_shared() || looked.iter().filter(away).count() < 2 {
        return Ok(looked.iter().map(find).collect());
    }
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(ASKERS)
        .build()
        .context("failed to start threads that ask the shared caches")?;
    Ok(pool.install(|| looked.par_iter().map(find).collect()))
}

struct Planner<'a> {
    graph: &'a Graph,
    store: &'a Store,
    history: History,
    resolver: Resolver<'a>,
    recipes: Vec<Digest>,
}

impl Planner<'_> {
    /// Looks a node up here, all of whose dependencies are here or elsewhere.
    fn look(&mut self, id: NodeId) -> Result<Looked> {
        let known = self.resolver.inputs(id).and_then(|inputs| {
            let fingerprint = Fingerprint::of(self.graph, id, &inputs)?;
            Ok((inputs, fingerprint))
        });
        let (inputs, fingerprint) = match known {
            Ok(known) => known,
            Err(error) => {
                let recipe = self.recipes[id.index()];
                return Ok(Looked::Recipe(recipe, format!("{error:#}")));
            }
        };
        let mut plan = NodePlan::of(self.graph, id, Verdict::Run, String::new());
        plan.key = Some(fingerprint.key);
        let instance = self.graph.node(id);
        plan.space = match instance.node.space(&inputs) {
            Ok(Some(space)) => Some(item_space(instance.kind.name, &space)),
            _ => None,
        };
        if let Some(record) = self.store.lookup(&fingerprint.key)?
            && self.resolver.made(id, record.artifact).is_ok()
        {
            plan.verdict = Verdict::Hit;
            plan.fingerprint = Some(fingerprint);
            return Ok(Looked::Here(Box::new(plan)));
        }
        Ok(Looked::Key(Box::new((plan, inputs, fingerprint))))
    }

    /// Makes the plan of a node, given what the shared caches have of it.
    fn decide(&mut self, id: NodeId, looked: Looked, shared: Option<Shared>) -> NodePlan {
        match looked {
            Looked::Here(plan) => *plan,
            Looked::Key(known) => {
                let (mut plan, inputs, fingerprint) = *known;
                if !shared.is_some_and(|shared| self.fetched(&mut plan, id, shared)) {
                    let before = (self.history).fingerprint(self.store, &plan.node);
                    plan.why = reason(self.graph, id, before.as_ref(), &fingerprint.content);
                    plan.items = items(self.graph, id, &inputs, self.store).unwrap_or_default();
                }
                plan.fingerprint = Some(fingerprint);
                plan
            }
            Looked::Recipe(_, error) => {
                let mut plan = NodePlan::of(self.graph, id, Verdict::Broken, error);
                if shared.is_some_and(|shared| self.fetched(&mut plan, id, shared)) {
                    plan.why = "its inputs are not all here; found by the file alone".to_owned();
                }
                plan
            }
        }
    }

    /// Plans that `id` comes from a shared cache; says whether its list of files can be had.
    fn fetched(&mut self, plan: &mut NodePlan, id: NodeId, shared: Shared) -> bool {
        if self.resolver.made(id, shared.record.artifact).is_err() {
            return false;
        }
        let absent = |made: &super::resolve::Made| self.store.absent(&files(&made.manifest));
        plan.bytes = self.resolver.artifact(id).map(absent);
        plan.verdict = Verdict::Fetch;
        plan.key = Some(shared.record.key);
        plan.by = Some(shared.signer);
        true
    }
}

/// Items that `id` knows of before it starts, and how many of them are stored.
fn items(graph: &Graph, id: NodeId, inputs: &Inputs, store: &Store) -> Result<Option<(u64, u64)>> {
    let instance = graph.node(id);
    let Some(space) = instance.node.space(inputs)? else {
        return Ok(None);
    };
    let items = instance.node.items(inputs, &Done::default())?;
    let known = store.items(&item_space(instance.kind.name, &space))?;
    let found = items
        .iter()
        .filter(|item| known.get(&item_key(item)).is_some());
    Ok(Some((items.len() as u64, found.count() as u64)))
}

/// `a`, `b` and 3 more.
fn list(names: &[&str]) -> String {
    let shown: Vec<String> = names
        .iter()
        .take(3)
        .map(|name| format!("`{name}`"))
        .collect();
    match names.len() {
        0..=3 => shown.join(", "),
        n => format!("{} and {} more", shown.join(", "), n - 3),
    }
}
