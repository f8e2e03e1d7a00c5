//! The steps of the loop: what happens to a node between being ready and being
//! done.

use std::collections::BTreeMap;

use anyhow::Result;

use super::{
    Event, Fingerprint, History, NodeOutcome, Settings, State,
    execute::{self, Job, Missing, Stopped},
    local::Workers,
    reason,
    resolve::Resolver,
    seek::{Seek, Sought},
    state::States,
};
use crate::{
    digest::Digest,
    node::{Budget, Inputs},
    pipeline::{Graph, NodeId, Source},
    store::{Side, Store},
};

/// What the loop holds between two steps.
pub(super) struct Loop<'a> {
    pub(super) graph: &'a Graph,
    pub(super) store: &'a Store,
    pub(super) settings: &'a Settings,
    pub(super) history: History,
    pub(super) resolver: Resolver<'a>,
    pub(super) states: States,
    pub(super) nodes: Vec<NodeOutcome>,
    pub(super) recipes: Vec<Digest>,
    /// Nodes whose shared results could not be fetched: they are computed here.
    pub(super) banned: Vec<bool>,
    /// For each `[models]` entry how many unfinished nodes use it.
    pub(super) model_users: BTreeMap<String, usize>,
    pub(super) running: usize,
}

impl Loop<'_> {
    /// Ready → Done by a hit, Running, or Failed when inputs cannot be had.
    pub(super) fn start(
        &mut self,
        id: NodeId,
        workers: &mut Workers<'_, '_>,
        emit: &mut dyn FnMut(Event),
    ) {
        let found = self.look_up(id, emit);
        let shared = self.store.is_shared() && !self.banned[id.index()];
        let what = match found {
            Ok(None) => return self.done(id, workers),
            Ok(Some(job)) if job.force || job.audit.is_some() => {
                return self.compute(Box::new(job), workers);
            }
            Ok(Some(job)) => {
                let key = &job.fingerprint.key;
                if !shared && self.store.working_on(key, &self.settings.run).is_none() {
                    return self.compute(Box::new(job), workers);
                }
                Ok(Box::new(job))
            }
            Err(error) if !shared => return self.fail(id, &error, workers, emit),
            Err(error) => Err(error),
        };
        self.states.set(self.graph, id, State::Running);
        self.running += 1;
        let wanted = |next: &NodeId| self.states.get(*next) != State::Unwanted;
        workers.seek(Seek {
            id,
            what,
            recipe: self.recipes[id.index()],
            run: self.settings.run.clone(),
            patient: self.settings.patient,
            ask: shared,
            needed: self.graph.dependents[id.index()].iter().any(wanted),
        });
    }

    /// Gives a job to a worker.
    fn compute(&mut self, job: Box<Job>, workers: &mut Workers<'_, '_>) {
        let instance = self.graph.node(job.id);
        let named = instance.exec.device.as_ref();
        let device = match named.or(self.graph.exec.device.as_ref()) {
            Some(name) => name
                .parse()
                .unwrap_or_else(|_| self.settings.device.clone()),
            None => self.settings.device.clone(),
        };
        self.states.set(self.graph, job.id, State::Running);
        self.running += 1;
        let pool = instance.node.pool(&job.inputs);
        workers.start(*job, pool, &device);
    }

    /// What others have, or are about to have, of a node.
    pub(super) fn sought(
        &mut self,
        id: NodeId,
        sought: Result<Sought>,
        workers: &mut Workers<'_, '_>,
        emit: &mut dyn FnMut(Event),
    ) {
        self.running -= 1;
        match sought {
            Ok(Sought::Compute(job)) => self.compute(job, workers),
            Ok(Sought::Found {
                key,
                artifact,
                by,
                by_recipe,
            }) => {
                if let Err(error) = self.resolver.made(id, artifact) {
                    return self.fail(id, &error, workers, emit);
                }
                if self.settings.audit.contains(&id)
                    && !by_recipe
                    && let Ok(job) = self.audit_job(id, artifact)
                {
                    return self.compute(Box::new(job), workers);
                }
                if by_recipe {
                    let who = by.as_deref().unwrap_or("somebody");
                    emit(Event::Warning {
                        node: Some(id),
                        message: format!(
                            "its inputs are not all here: the result is the one that `{who}` got for the same file"
                        ),
                    });
                }
                self.hit(id, key, artifact, by, emit);
                self.done(id, workers);
            }
            Err(error) if error.is::<Stopped>() => {
                self.states.set(self.graph, id, State::Blocked);
            }
            Err(error) => self.fail(id, &error, workers, emit),
        }
    }

    fn hit(
        &mut self,
        id: NodeId,
        key: Digest,
        artifact: Digest,
        by: Option<String>,
        emit: &mut dyn FnMut(Event),
    ) {
        let node = &mut self.nodes[id.index()];
        node.hit = true;
        node.key = Some(key);
        node.artifact = Some(artifact);
        node.by.clone_from(&by);
        node.manifest = self.resolver.artifact(id).map(|made| made.manifest.clone());
        emit(Event::Hit { node: id, key, by });
    }

    /// Marks a node as done, and shares its result if it was computed here.
    fn done(&mut self, id: NodeId, workers: &Workers<'_, '_>) {
        if let Some(key) = self.nodes[id.index()].key {
            self.store.share(&key);
        }
        self.release_models(id, workers);
        self.states.set(self.graph, id, State::Done);
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
        let fingerprint = Fingerprint::of(self.graph, id, &inputs)?;
        let key = fingerprint.key;
        self.nodes[id.index()].key = Some(key);
        let force = self.settings.force.contains(&id);
        if !force
            && let Some(record) = self.store.lookup(&key)?
            && self.resolver.found(id, record.artifact)?
        {
            if self.settings.audit.contains(&id) {
                let job = self.job(id, inputs, fingerprint, false);
                return Ok(Some(job.compared_with(record.artifact)));
            }
            self.hit(id, key, record.artifact, None, emit);
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

    /// What computes `id` again, only to compare it with `artifact`.
    fn audit_job(&mut self, id: NodeId, artifact: Digest) -> Result<Job> {
        let inputs = self.resolver.inputs(id)?;
        let fingerprint = Fingerprint::of(self.graph, id, &inputs)?;
        let job = self.job(id, inputs, fingerprint, false);
        Ok(job.compared_with(artifact))
    }

    fn job(&self, id: NodeId, inputs: Inputs, fingerprint: Fingerprint, force: bool) -> Job {
        let instance = self.graph.node(id);
        Job {
            id,
            node: instance.node.clone(),
            kind: instance.kind.name,
            inputs,
            fingerprint,
            recipe: self.recipes[id.index()],
            budget: Budget {
                batch: instance.exec.batch.or(self.graph.exec.batch),
                kv_memory: (instance.exec.kv_memory).or(self.graph.exec.kv_memory),
                weights_memory: (instance.exec.weights_memory).or(self.graph.exec.weights_memory),
                features_memory: (instance.exec.features_memory)
                    .or(self.graph.exec.features_memory),
            },
            force,
            audit: None,
            provenance: self.settings.provenance.clone(),
            why: self.nodes[id.index()].why.clone(),
        }
    }

    /// Running → Done or Failed.
    pub(super) fn finished(
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
            Err(error) => {
                if let Some(Missing(artifact)) = error.downcast_ref::<Missing>()
                    && self.rewind(id, *artifact, emit)
                {
                    return;
                }
                return self.fail(id, &error, workers, emit);
            }
        };
        if self.settings.audit.contains(&id)
            && let Some(made) = self.resolver.artifact(id)
        {
            return self.audited(id, made.digest, &finished, workers, emit);
        }
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
        self.done(id, workers);
    }

    /// Running → Done with what is stored, whatever the repetition gave.
    fn audited(
        &mut self,
        id: NodeId,
        stored: Digest,
        finished: &execute::Finished,
        workers: &Workers<'_, '_>,
        emit: &mut dyn FnMut(Event),
    ) {
        let same = stored == finished.artifact;
        let node = &mut self.nodes[id.index()];
        node.hit = true;
        node.audit = Some(same);
        node.artifact = Some(stored);
        node.took = finished.took;
        node.manifest = self.resolver.artifact(id).map(|made| made.manifest.clone());
        if !same && let Some(key) = node.key {
            let sides = [
                Side::new(stored, "what is stored"),
                Side::new(finished.artifact, "a repetition on this machine"),
            ];
            self.store.diverged(&key, &sides);
        }
        emit(Event::Audited {
            node: id,
            same,
            took: finished.took,
        });
        self.release_models(id, workers);
        self.states.set(self.graph, id, State::Done);
    }

    /// Takes back the node upstream of `id` that made `artifact`, whose files can no longer be
    /// fetched: it is computed here, and `id` waits for it. Says whether there is such a node.
    fn rewind(&mut self, id: NodeId, artifact: Digest, emit: &mut dyn FnMut(Event)) -> bool {
        let made = |from: &NodeId| {
            let made = self.resolver.artifact(*from);
            made.is_some_and(|made| made.digest == artifact) && !self.banned[from.index()]
        };
        let makers = self.graph.dependencies[id.index()].iter().copied();
        let Some(from) = makers.into_iter().find(made) else {
            return false;
        };
        self.banned[from.index()] = true;
        if self.states.get(from) == State::Done {
            if let Some(key) = self.nodes[from.index()].key {
                self.store.forget(&key);
            }
            self.nodes[from.index()].hit = false;
            for name in models_of(self.graph, from) {
                *self.model_users.entry(name).or_insert(0) += 1;
            }
            emit(Event::Warning {
                node: Some(from),
                message:
                    "its files can no longer be fetched from the shared cache; it is computed here"
                        .to_owned(),
            });
            self.states.reopen(self.graph, from);
        }
        self.states.wait(self.graph, id);
        true
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
pub(super) fn models_of(graph: &Graph, id: NodeId) -> Vec<String> {
    let sources = graph.node(id).inputs.iter();
    sources
        .filter_map(|(_, source)| match source {
            Source::Model(name) => Some(name.clone()),
            _ => None,
        })
        .collect()
}
