//! What this run tells others while it goes on: which keys it computes, how far
//! it is, and which results it relies on.

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    thread::Scope,
    time::{Duration, Instant},
};

use super::Event;
use crate::{
    pipeline::Graph,
    store::{Lease, Store, Working},
};

/// A run that is over before this says nothing.
const PATIENCE: Duration = Duration::from_secs(2);
/// Time between two renewals.
const BEAT: Duration = Duration::from_secs(10);
/// The same in shared caches.
const BEAT_FAR: Duration = Duration::from_secs(40);

/// The lease of a run, kept up to date by its events and renewed by a thread.
pub(super) struct Beat {
    state: Mutex<State>,
    over: Condvar,
}

struct State {
    lease: Lease,
    over: bool,
}

impl Beat {
    pub(super) fn new(run: &str, who: &str, host: &str) -> Self {
        Self {
            state: Mutex::new(State {
                lease: Lease::new(run, who, host),
                over: false,
            }),
            over: Condvar::new(),
        }
    }

    /// Takes in what happened.
    pub(super) fn note(&self, event: &Event, graph: &Graph) {
        let mut state = self.lock();
        let lease = &mut state.lease;
        match event {
            Event::Started { node, key, .. } => {
                lease.working.push(Working {
                    key: *key,
                    node: graph.node(*node).id.clone(),
                    who: lease.who.clone(),
                    host: lease.host.clone(),
                    done: 0,
                    total: 0,
                });
            }
            Event::Items {
                node,
                total,
                cached,
            } => {
                if let Some(working) = find(lease, &graph.node(*node).id) {
                    (working.done, working.total) = (*cached, *total);
                }
            }
            Event::Batch { node, items } => {
                if let Some(working) = find(lease, &graph.node(*node).id) {
                    working.done += items;
                }
            }
            Event::Hit { key, .. } => lease.keys.push(*key),
            Event::Ran { node, .. } | Event::Failed { node, .. } | Event::Audited { node, .. } => {
                let name = &graph.node(*node).id;
                lease.working.retain(|working| working.node != *name);
                if let Event::Ran { key, .. } = event {
                    lease.keys.push(*key);
                }
            }
            _ => {}
        }
    }

    /// Renews the lease until [`end`](Self::end), on a thread of its own.
    pub(super) fn start<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        store: &'scope Store,
    ) {
        let renew = move || {
            let mut wait = PATIENCE;
            let mut far: Option<Instant> = None;
            while let Some(lease) = self.next(wait) {
                let due = far.is_none_or(|far| far.elapsed() >= BEAT_FAR);
                if due {
                    far = Some(Instant::now());
                }
                store.announce(&lease, due);
                wait = BEAT;
            }
            if wait == BEAT {
                let run = self.lock().lease.run.clone();
                store.withdraw(&run, far.is_some());
            }
        };
        let builder = std::thread::Builder::new().name("runner lease".to_owned());
        // Without it others may compute the same, no more.
        let _ = builder.spawn_scoped(scope, renew);
    }

    /// The lease as it is after `wait`; nothing if the run ends before.
    fn next(&self, wait: Duration) -> Option<Lease> {
        let over = |state: &mut State| !state.over;
        let waited = self.over.wait_timeout_while(self.lock(), wait, over);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        (!state.over).then(|| state.lease.clone())
    }

    /// Ends the renewals; the lease is withdrawn.
    pub(super) fn end(&self) {
        self.lock().over = true;
        self.over.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn find<'a>(lease: &'a mut Lease, node: &str) -> Option<&'a mut Working> {
    lease
        .working
        .iter_mut()
        .find(|working| working.node == node)
}
