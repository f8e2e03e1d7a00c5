//! The state of every node of a run, and the only place where it changes.

use crate::pipeline::{Graph, NodeId};

/// Where a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not part of this run (`--only`, `--until`).
    Unwanted,
    /// Wanted; something it needs is not done.
    Waiting,
    /// Everything it needs is done: its key can be made.
    Ready,
    /// Its key was not in the store: it was given to a worker.
    Running,
    /// Its artifact is in the store.
    Done,
    /// It failed.
    Failed,
    /// Something it needs failed, or the user stopped the run.
    Blocked,
}

/// States of all nodes.
pub(super) struct States {
    list: Vec<State>,
    /// For each node, how many of those it needs are not done.
    missing: Vec<usize>,
    ready: Vec<NodeId>,
}

impl States {
    /// Every wanted node waits, or is ready when it needs nothing.
    pub(super) fn new(graph: &Graph, wanted: &dyn Fn(NodeId) -> bool) -> Self {
        let mut states = Self {
            list: vec![State::Unwanted; graph.nodes.len()],
            missing: graph.dependencies.iter().map(Vec::len).collect(),
            ready: Vec::new(),
        };
        // In reverse, because the ready list is taken from its end.
        for id in graph.ids().rev().filter(|id| wanted(*id)) {
            states.list[id.index()] = State::Waiting;
            if states.missing[id.index()] == 0 {
                states.set(graph, id, State::Ready);
            }
        }
        states
    }

    /// The state of `id`.
    pub(super) fn get(&self, id: NodeId) -> State {
        self.list[id.index()]
    }

    /// The next node that is ready, in file order as far as possible.
    pub(super) fn pop_ready(&mut self) -> Option<NodeId> {
        while let Some(id) = self.ready.pop() {
            if self.get(id) == State::Ready {
                return Some(id);
            }
        }
        None
    }

    /// Moves `id` to `state`; returns the nodes that this blocks. Done makes
    /// dependents ready; failed blocks everything downstream.
    pub(super) fn set(&mut self, graph: &Graph, id: NodeId, state: State) -> Vec<NodeId> {
        self.list[id.index()] = state;
        match state {
            State::Ready => self.ready.push(id),
            State::Done => {
                for next in graph.dependents[id.index()].iter().rev() {
                    self.missing[next.index()] -= 1;
                    if self.missing[next.index()] == 0 && self.get(*next) == State::Waiting {
                        self.set(graph, *next, State::Ready);
                    }
                }
            }
            State::Failed => {
                let mut blocked = Vec::new();
                let mut queue = vec![id];
                while let Some(at) = queue.pop() {
                    for next in &graph.dependents[at.index()] {
                        if matches!(self.get(*next), State::Waiting | State::Ready) {
                            self.list[next.index()] = State::Blocked;
                            blocked.push(*next);
                            queue.push(*next);
                        }
                    }
                }
                blocked.sort();
                return blocked;
            }
            State::Unwanted | State::Waiting | State::Running | State::Blocked => {}
        }
        Vec::new()
    }

    /// Takes back that `id` is done: what it made can no longer be had. It is ready again, since
    /// what it needs is done, and what waits for it waits longer. What is running goes on.
    pub(super) fn reopen(&mut self, graph: &Graph, id: NodeId) {
        for next in &graph.dependents[id.index()] {
            self.missing[next.index()] += 1;
            if self.get(*next) == State::Ready {
                self.list[next.index()] = State::Waiting;
            }
        }
        self.set(graph, id, State::Ready);
    }

    /// Lets a node that has run in vain wait again for what it needs.
    pub(super) fn wait(&mut self, graph: &Graph, id: NodeId) {
        let state = if self.missing[id.index()] == 0 {
            State::Ready
        } else {
            State::Waiting
        };
        self.set(graph, id, state);
    }

    /// Blocks every node that has not begun: the user stopped the run.
    pub(super) fn block_rest(&mut self) -> usize {
        let mut blocked = 0;
        for state in &mut self.list {
            if matches!(state, State::Waiting | State::Ready) {
                *state = State::Blocked;
                blocked += 1;
            }
        }
        self.ready.clear();
        blocked
    }
}
