//! Workers on this machine: one thread for each device, which owns the models
//! loaded there, and a few threads for nodes without a model. They start what
//! they are given and answer on one channel; they never call back.

use std::{
    any::Any,
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex,
        atomic::AtomicBool,
        mpsc::{Receiver, Sender, channel},
    },
    thread::{self, Scope},
};

use anyhow::{Result, anyhow};

use super::{
    Event,
    execute::{Job, Message, execute},
    seek::{Seek, seek},
};
use crate::{
    node::{DeviceChoice, Models, Pool},
    store::Store,
};

/// Nodes that are sought at once: each mostly waits for an answer.
const SEEKERS: usize = 16;

/// What a device's thread is asked to do.
enum Work {
    Run(Box<Job>),
    /// Whether somebody else has it, or is about to.
    Seek(Box<Seek>),
    /// No later node needs this model.
    Release(String),
}

/// The workers of one run; they end when this is dropped.
pub(super) struct Workers<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    store: &'env Store,
    stop: &'env AtomicBool,
    tell: Sender<Message>,
    cpu: Sender<Work>,
    /// Made with the first node that is sought.
    seekers: Option<Sender<Work>>,
    devices: BTreeMap<String, Sender<Work>>,
}

impl<'scope, 'env> Workers<'scope, 'env> {
    /// Starts `threads` threads for nodes without a model; device threads
    /// start with their first node.
    pub(super) fn new(
        scope: &'scope Scope<'scope, 'env>,
        store: &'env Store,
        stop: &'env AtomicBool,
        tell: Sender<Message>,
        threads: usize,
    ) -> Self {
        let cpu = pool(scope, "cpu", threads, store, stop, &tell);
        Self {
            scope,
            store,
            stop,
            tell,
            cpu,
            seekers: None,
            devices: BTreeMap::new(),
        }
    }

    /// Gives `job` to a thread of `pool`; `device` matters for [`Pool::Model`].
    pub(super) fn start(&mut self, job: Job, pool: Pool, device: &DeviceChoice) {
        let queue = match pool {
            Pool::Cpu => &self.cpu,
            Pool::Model => self.device(device),
        };
        // A thread only ends after its queue is dropped.
        let _ = queue.send(Work::Run(Box::new(job)));
    }

    /// Asks for a node before it is computed, on a thread that may wait.
    pub(super) fn seek(&mut self, what: Seek) {
        let (scope, store, stop) = (self.scope, self.store, self.stop);
        let tell = &self.tell;
        let queue = self
            .seekers
            .get_or_insert_with(|| pool(scope, "seek", SEEKERS, store, stop, tell));
        // A thread only ends after its queue is dropped.
        let _ = queue.send(Work::Seek(Box::new(what)));
    }

    /// Tells every device that no later node needs `model`.
    pub(super) fn release(&self, model: &str) {
        for queue in self.devices.values() {
            let _ = queue.send(Work::Release(model.to_owned()));
        }
    }

    fn device(&mut self, device: &DeviceChoice) -> &Sender<Work> {
        let (scope, store, stop) = (self.scope, self.store, self.stop);
        let tell = &self.tell;
        self.devices.entry(device.to_string()).or_insert_with(|| {
            let (queue, jobs) = channel();
            let (jobs, tell, device) = (Arc::new(Mutex::new(jobs)), tell.clone(), device.clone());
            spawn(scope, &device.to_string(), move || {
                serve(&jobs, Some(Models::new(device)), store, stop, &tell);
            });
            queue
        })
    }
}

/// Threads that share one queue and load no model.
fn pool<'scope, 'env>(
    scope: &'scope Scope<'scope, 'env>,
    name: &str,
    threads: usize,
    store: &'env Store,
    stop: &'env AtomicBool,
    tell: &Sender<Message>,
) -> Sender<Work> {
    let (queue, jobs) = channel();
    let jobs = Arc::new(Mutex::new(jobs));
    for _ in 0..threads {
        let (jobs, tell) = (Arc::clone(&jobs), tell.clone());
        spawn(scope, name, move || serve(&jobs, None, store, stop, &tell));
    }
    queue
}

fn spawn<'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    work: impl FnOnce() + Send + 'scope,
) {
    let builder = thread::Builder::new().name(format!("runner {name}"));
    // Without a thread nothing can run; the loop sees the queue closed.
    let _ = builder.spawn_scoped(scope, work);
}

/// A thread's life: jobs until the queue is dropped.
fn serve(
    jobs: &Mutex<Receiver<Work>>,
    mut models: Option<Models>,
    store: &Store,
    stop: &AtomicBool,
    tell: &Sender<Message>,
) {
    let mut poisoned: Option<String> = None;
    loop {
        let next = match jobs.lock() {
            Ok(jobs) => jobs.recv(),
            Err(_) => return,
        };
        let job = match next {
            Ok(Work::Run(job)) => job,
            Ok(Work::Seek(what)) => {
                let id = what.id;
                let sought = catch_unwind(AssertUnwindSafe(|| seek(*what, store, stop, tell)));
                let sought = sought.unwrap_or_else(|panic| {
                    Err(anyhow!("panicked: {}", panic_text(panic.as_ref())))
                });
                if tell.send(Message::Sought(id, sought)).is_err() {
                    return;
                }
                continue;
            }
            Ok(Work::Release(model)) => {
                if let Some(models) = &mut models {
                    models.release(&model);
                }
                continue;
            }
            Err(_) => return,
        };
        if let Some(models) = &mut models {
            let (tell, node) = (tell.clone(), job.id);
            models.when_loading(move |folder| {
                let model = folder.display().to_string();
                let _ = tell.send(Message::Event(Event::Loading { node, model }));
            });
        }
        let device = models
            .as_ref()
            .map_or_else(|| "cpu".to_owned(), Models::device_name);
        let result = match &poisoned {
            Some(reason) => Err(anyhow!("{device} stopped working earlier in this run: {reason}")),
            None => catch_unwind(AssertUnwindSafe(|| {
                execute(&job, store, models.as_mut(), &device, stop, tell)
            }))
            .unwrap_or_else(|panic| {
                let reason = panic_text(panic.as_ref());
                // A panic on a GPU leaves its stream in an unknown state.
                if models.as_ref().is_some_and(Models::is_cuda) {
                    poisoned = Some(reason.clone());
                }
                Err(anyhow!("panicked: {reason}\nhint: this is a bug in `{}`; please report it with the pipeline", job.kind))
            }),
        };
        if tell.send(Message::Done(job.id, result)).is_err() {
            return;
        }
    }
}

/// The message of a panic.
fn panic_text(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without a message".to_owned())
}

/// Receives the next message; an error means that no worker is left.
pub(super) fn wait(messages: &Receiver<Message>) -> Result<Message> {
    messages.recv().map_err(|_| anyhow!("all workers ended"))
}
