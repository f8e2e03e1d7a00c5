//! What a run would do, found out without running anything.

use std::collections::BTreeSet;

use anyhow::Result;
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

/// Plans every node of `graph` (of `wanted`, if given).
///
/// # Errors
/// When the store cannot be read.
pub fn plan(
    graph: &Graph,
    store: &Store,
    memo: &FileMemo,
    wanted: Option<&BTreeSet<NodeId>>,
) -> Result<Vec<(NodeId, NodePlan)>> {
    let history = History::load(store, &graph.name);
    let mut resolver = Resolver::new(graph, store, memo);
    let recipes = recipes(graph);
    let mut done = vec![false; graph.nodes.len()];
    let mut plans = Vec::new();
    for id in graph.ids() {
        if wanted.is_some_and(|set| !set.contains(&id)) {
            continue;
        }
        let name = &graph.node(id).id;
        let waits: Vec<&str> = graph.dependencies[id.index()]
            .iter()
            .filter(|from| !done[from.index()])
            .map(|from| graph.node(*from).id.as_str())
            .collect();
        let mut plan = NodePlan {
            node: name.clone(),
            verdict: Verdict::Waits,
            key: None,
            items: None,
            why: String::new(),
            by: None,
            bytes: None,
            space: None,
            fingerprint: None,
        };
        if !waits.is_empty() {
            plan.why = format!("waits for {}", list(&waits));
            plans.push((id, plan));
            continue;
        }
        let known = resolver.inputs(id).and_then(|inputs| {
            let fingerprint = Fingerprint::of(graph, id, &inputs)?;
            Ok((inputs, fingerprint))
        });
        let (inputs, fingerprint) = match known {
            Ok(known) => known,
            Err(error) => {
                if let Some(shared) = store.find_by_recipe(&recipes[id.index()])
                    && fetched(&mut plan, store, &mut resolver, id, shared)
                {
                    plan.why = "its inputs are not all here; found by the file alone".to_owned();
                    done[id.index()] = true;
                    plans.push((id, plan));
                    continue;
                }
                plan.verdict = Verdict::Broken;
                plan.why = format!("{error:#}");
                plans.push((id, plan));
                continue;
            }
        };
        plan.key = Some(fingerprint.key);
        let instance = graph.node(id);
        plan.space = match instance.node.space(&inputs) {
            Ok(Some(space)) => Some(item_space(instance.kind.name, &space)),
            _ => None,
        };
        if let Some(record) = store.lookup(&fingerprint.key)?
            && resolver.made(id, record.artifact).is_ok()
        {
            plan.verdict = Verdict::Hit;
            done[id.index()] = true;
        } else if let Some(shared) = store.find(&fingerprint.key)
            && fetched(&mut plan, store, &mut resolver, id, shared)
        {
            done[id.index()] = true;
        } else {
            plan.verdict = Verdict::Run;
            let before = history.fingerprint(store, name);
            plan.why = reason(graph, id, before.as_ref(), &fingerprint.content);
            plan.items = items(graph, id, &inputs, store).unwrap_or_default();
        }
        plan.fingerprint = Some(fingerprint);
        plans.push((id, plan));
    }
    Ok(plans)
}

/// Plans that `id` comes from a shared cache; says whether its list of files can be had.
fn fetched(
    plan: &mut NodePlan,
    store: &Store,
    resolver: &mut Resolver<'_>,
    id: NodeId,
    shared: Shared,
) -> bool {
    if resolver.made(id, shared.record.artifact).is_err() {
        return false;
    }
    let absent = |made: &super::resolve::Made| store.absent(&files(&made.manifest));
    plan.bytes = resolver.artifact(id).map(absent);
    plan.verdict = Verdict::Fetch;
    plan.key = Some(shared.record.key);
    plan.by = Some(shared.signer);
    true
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
