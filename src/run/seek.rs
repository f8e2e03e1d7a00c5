//! Before a node is computed: whether a shared cache has it, and whether
//! somebody else is computing it at this moment.

use std::{
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::Sender,
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::{
    Event,
    execute::{Job, Message, Stopped},
    resolve::read_manifest,
};
use crate::{
    artifact::{Manifest, Type},
    digest::Digest,
    pipeline::NodeId,
    store::{Shared, Store},
};

/// Files up to this size are fetched with the record; others when they are read.
const SMALL: u64 = 1 << 20;
/// Time between two looks at whether somebody else is done.
const PAUSE: Duration = Duration::from_secs(1);
/// Time between two questions to the shared caches about the same.
const PAUSE_FAR: Duration = Duration::from_secs(10);

/// What is sought, by whom.
pub(super) struct Seek {
    pub(super) id: NodeId,
    /// Its key, or why there is none.
    pub(super) what: Result<Box<Job>>,
    pub(super) recipe: Digest,
    /// This run, which does not wait for itself.
    pub(super) run: String,
    /// Whether somebody else's work is waited for.
    pub(super) patient: bool,
    /// Whether shared caches are asked: not for what could not be fetched before.
    pub(super) ask: bool,
    /// Whether another node needs it.
    pub(super) needed: bool,
}

/// What came of it.
pub(super) enum Sought {
    /// A record whose files are here, or can be fetched.
    Found {
        key: Digest,
        artifact: Digest,
        by: Option<String>,
        /// Whether it was found by its recipe, as inputs are absent.
        by_recipe: bool,
    },
    /// Nobody has it: it must be computed here.
    Compute(Box<Job>),
}

/// Seeks one node.
pub(super) fn seek(
    seek: Seek,
    store: &Store,
    stop: &AtomicBool,
    tell: &Sender<Message>,
) -> Result<Sought> {
    let job = match seek.what {
        Ok(job) => job,
        Err(error) => {
            // Only where shared caches are asked; else the node has failed.
            let shared = store.find_by_recipe(&seek.recipe);
            return match shared.filter(|shared| bring(store, shared, seek.needed)) {
                Some(shared) => Ok(found(shared, true)),
                None => Err(error),
            };
        }
    };
    let key = job.fingerprint.key;
    let mut asked: Option<Instant> = None;
    let mut told: Option<Instant> = None;
    loop {
        if stop.load(Ordering::Relaxed) {
            return Err(Stopped.into());
        }
        if told.is_some()
            && let Some(record) = store.lookup(&key)?
        {
            return Ok(Sought::Found {
                key,
                artifact: record.artifact,
                by: None,
                by_recipe: false,
            });
        }
        if seek.ask && asked.is_none_or(|asked| asked.elapsed() >= PAUSE_FAR) {
            asked = Some(Instant::now());
            let shared = store.find(&key);
            if let Some(shared) = shared.filter(|shared| bring(store, shared, seek.needed)) {
                return Ok(found(shared, false));
            }
        }
        let holder = store.working_on(&key, &seek.run).filter(|_| seek.patient);
        let Some(holder) = holder else {
            return Ok(Sought::Compute(job));
        };
        if told.is_none_or(|told| told.elapsed() >= PAUSE_FAR) {
            told = Some(Instant::now());
            let event = Event::Held {
                node: seek.id,
                who: holder.who,
                host: holder.host,
                done: holder.done,
                total: holder.total,
            };
            // The loop outlives its workers.
            let _ = tell.send(Message::Event(event));
        }
        thread::sleep(PAUSE);
    }
}

fn found(shared: Shared, by_recipe: bool) -> Sought {
    Sought::Found {
        key: shared.record.key,
        artifact: shared.record.artifact,
        by: Some(shared.signer),
        by_recipe,
    }
}

/// Fetches the list of an artifact's files and the small ones among them; all of a model that
/// another node needs, since its key is made of them, and all of what the tables are made of.
/// Says whether that went well.
fn bring(store: &Store, shared: &Shared, needed: bool) -> bool {
    let Ok(manifest) = read_manifest(store, &shared.record.artifact) else {
        return false;
    };
    let kind = manifest.r#type;
    let all = kind.is_reported() || (needed && kind == Type::Weights);
    let now: Vec<_> = files(&manifest)
        .into_iter()
        .filter(|(_, size)| all || *size <= SMALL)
        .collect();
    store.fetch(&now).is_empty()
}

/// Digests and sizes of an artifact's files.
pub(super) fn files(manifest: &Manifest) -> Vec<(Digest, u64)> {
    let file = |file: &crate::artifact::FileEntry| (file.digest, file.size);
    manifest.files.iter().map(file).collect()
}
