//! What a worker does with one node: items looked up, computed and committed
//! batch by batch, then the artifact, then its record.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::Sender,
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::{Event, Fingerprint, keep::Keeper, seek::Sought};
use crate::{
    artifact::{Content, FileEntry, Manifest, Output},
    digest::Digest,
    node::{Budget, Ctx, Done, Input, Inputs, Item, Models, Node},
    pipeline::NodeId,
    store::{Committed, Output as RecordOutput, Record, Side, Store},
};

/// Everything that a worker needs for one node.
pub(super) struct Job {
    pub(super) id: NodeId,
    pub(super) node: Arc<dyn Node>,
    pub(super) kind: &'static str,
    pub(super) inputs: Inputs,
    pub(super) fingerprint: Fingerprint,
    pub(super) recipe: Digest,
    pub(super) budget: Budget,
    /// Compute items even if the store has them, and replace the record.
    pub(super) force: bool,
    /// Compute it only to compare it with this artifact; nothing is committed.
    pub(super) audit: Option<Digest>,
    pub(super) provenance: Value,
    /// Why it runs, in a sentence.
    pub(super) why: String,
}

impl Job {
    /// The same, computed only to be compared with `artifact`.
    pub(super) fn compared_with(mut self, artifact: Digest) -> Self {
        self.audit = Some(artifact);
        "to compare it with what is stored".clone_into(&mut self.why);
        self
    }

    /// Whether items are computed even if the store has them.
    fn redo(&self) -> bool {
        self.force || self.audit.is_some()
    }
}

/// A finished node.
pub(super) struct Finished {
    pub(super) artifact: Digest,
    pub(super) took: Duration,
    /// Items computed and items found.
    pub(super) items: (u64, u64),
}

/// What a worker tells the loop.
pub(super) enum Message {
    Event(Event),
    Done(NodeId, Result<Finished>),
    Sought(NodeId, Result<Sought>),
}

/// The run was stopped by the user before this node was done.
#[derive(Debug, thiserror::Error)]
#[error("stopped by the user")]
pub(super) struct Stopped;

/// Files of an input could not be fetched, though a record says that they are there.
#[derive(Debug, thiserror::Error)]
#[error("the files of the artifact {} can no longer be had", .0.short())]
pub(super) struct Missing(pub(super) Digest);

/// Runs one node to its record.
pub(super) fn execute(
    job: &Job,
    store: &Store,
    models: Option<&mut Models>,
    device: &str,
    stop: &AtomicBool,
    tell: &Sender<Message>,
) -> Result<Finished> {
    for input in job.inputs.iter().flat_map(|(_, list)| list) {
        if let Input::Artifact { files, digest, .. } = input
            && !files.bring()
        {
            bail!(Missing(*digest));
        }
    }
    let began = Instant::now();
    let started = SystemTime::now();
    let send = |event| {
        // The loop outlives its workers, so nothing is lost here.
        let _ = tell.send(Message::Event(event));
    };
    send(Event::Started {
        node: job.id,
        key: job.fingerprint.key,
        why: job.why.clone(),
    });
    let stopped = || stop.load(Ordering::Relaxed);
    let warn = |message| {
        send(Event::Warning {
            node: Some(job.id),
            message,
        });
    };
    let progress = |done, total, unit: &str| {
        send(Event::Progress {
            node: job.id,
            done,
            total,
            unit: unit.to_owned(),
        });
    };
    let mut ctx = Ctx {
        models,
        stop: &stopped,
        warn: &warn,
        progress: &progress,
        budget: job.budget,
    };
    let (done, items) = run_items(job, store, &mut ctx, &send)?;
    if stopped() {
        bail!(Stopped);
    }
    let output = match job.node.finish(&job.inputs, &done, &mut ctx) {
        Ok(output) => output,
        // A kind that gave up because it was asked to has not failed.
        Err(_) if stopped() => bail!(Stopped),
        Err(error) => return Err(error),
    };
    let manifest = put(store, output, &job.inputs)?;
    if job.audit.is_some() {
        return Ok(Finished {
            artifact: Digest::of(&manifest.bytes()),
            took: began.elapsed(),
            items,
        });
    }
    let artifact = store.put(&manifest.bytes())?;
    let mut provenance = job.provenance.clone();
    if let Some(map) = provenance.as_object_mut() {
        let since = started.duration_since(UNIX_EPOCH).unwrap_or_default();
        map.insert("started".into(), since.as_secs().into());
        map.insert("seconds".into(), json!(began.elapsed().as_secs_f64()));
        map.insert("device".into(), device.into());
        map.insert("items_computed".into(), items.0.into());
        map.insert("items_found".into(), items.1.into());
    }
    let record = Record {
        key: job.fingerprint.key,
        artifact,
        kind: job.kind.to_owned(),
        outputs: record_outputs(&manifest, artifact),
        fingerprint: job.fingerprint.content.clone(),
        recipe: Some(job.recipe),
        provenance,
    };
    let artifact = match commit(store, &record, job.force)? {
        Committed::New => artifact,
        Committed::Adopted(other) => {
            if other.artifact != artifact {
                warn(format!(
                    "another run recorded a different result for the same key ({} there, {} here); the first one stays\nhint: `runner cache divergent` lists such keys",
                    other.artifact.short(),
                    artifact.short()
                ));
                let side = |artifact, by: &Value| {
                    Side::new(
                        artifact,
                        format!("{} on {}", words(&by["user"]), words(&by["host"])),
                    )
                };
                let sides = [
                    side(other.artifact, &other.provenance),
                    side(artifact, &record.provenance),
                ];
                store.diverged(&record.key, &sides);
            }
            other.artifact
        }
    };
    Ok(Finished {
        artifact,
        took: began.elapsed(),
        items,
    })
}

fn words(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}

fn commit(store: &Store, record: &Record, force: bool) -> Result<Committed> {
    Ok(if force {
        store.replace(record)?
    } else {
        store.commit(record)?
    })
}

/// Everything that must be present for the record to count: the manifest first.
fn record_outputs(manifest: &Manifest, artifact: Digest) -> Vec<RecordOutput> {
    let head = RecordOutput {
        name: "manifest.json".to_owned(),
        digest: artifact,
        size: manifest.bytes().len() as u64,
    };
    let files = manifest.files.iter().map(|file| RecordOutput {
        name: file.name.clone(),
        digest: file.digest,
        size: file.size,
    });
    std::iter::once(head).chain(files).collect()
}

/// Stores an output's files.
fn put(store: &Store, output: Output, inputs: &Inputs) -> Result<Manifest> {
    let mut files = Vec::new();
    for (name, content) in output.files {
        let (digest, size) = match content {
            Content::Bytes(bytes) => (store.put(&bytes)?, bytes.len() as u64),
            Content::File(path) => (store.put_file(&path)?, fs_err::metadata(&path)?.len()),
        };
        files.push(FileEntry { name, digest, size });
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    ensure!(
        files.windows(2).all(|pair| pair[0].name != pair[1].name),
        "two files of the artifact have one name"
    );
    Ok(Manifest {
        r#type: output.r#type,
        files,
        labels: output.labels.into_iter().chain(inputs.labels()).collect(),
    })
}

/// Asks for items until there are no new ones; returns their values and how
/// many were computed and found.
fn run_items(
    job: &Job,
    store: &Store,
    ctx: &mut Ctx<'_>,
    send: &dyn Fn(Event),
) -> Result<(Done, (u64, u64))> {
    let mut done = Done::default();
    let (mut computed, mut found) = (0, 0);
    let Some(space) = job.node.space(&job.inputs)? else {
        return Ok((done, (0, 0)));
    };
    let space = item_space(job.kind, &space);
    let mut known = store.items(&space)?;
    let mut pulled = job.redo();
    loop {
        let items = job.node.items(&job.inputs, &done)?;
        ensure!(
            items.len() >= done.len(),
            "kind `{}` took back items that were done",
            job.kind
        );
        let new = &items[done.len()..];
        if new.is_empty() {
            if job.audit.is_none() {
                store.share_items(&space);
            }
            return Ok((done, (computed, found)));
        }
        let absent = |item: &Item| !known.contains(&item_key(item));
        if !pulled && new.iter().any(absent) {
            // Others may have computed some of them; asked once.
            pulled = true;
            if store.pull_items(&space) > 0 {
                known = store.items(&space)?;
            }
        }
        let mut values: HashMap<usize, Arc<[u8]>> = HashMap::new();
        if !job.redo() {
            for (i, item) in new.iter().enumerate() {
                if let Some(value) = known.get(&item_key(item)) {
                    values.insert(i, value.into());
                }
            }
        }
        found += values.len() as u64;
        send(Event::Items {
            node: job.id,
            total: items.len() as u64,
            cached: found,
        });
        let missing: Vec<usize> = (0..new.len()).filter(|i| !values.contains_key(i)).collect();
        let size = job.node.batch(job.budget.batch).max(1);
        for chunk in missing.chunks(size) {
            if (ctx.stop)() {
                bail!(Stopped);
            }
            let batch: Vec<Item> = chunk.iter().map(|i| new[*i].clone()).collect();
            let mut keeper = Keeper::new(store, &space, &batch, send, job.id);
            if job.audit.is_some() {
                keeper.only_tell();
            }
            let result = (job.node).compute(
                &job.inputs,
                &batch,
                &done,
                &mut |place, value| keeper.keep(place, value),
                ctx,
            );
            // What is finished survives a failure of the rest.
            keeper.commit()?;
            result?;
            let (kept, count) = keeper.finish();
            computed += count;
            for (place, value) in kept.iter().enumerate() {
                match value {
                    Some(value) => values.insert(chunk[place], value.clone()),
                    None if (ctx.stop)() => bail!(Stopped),
                    None => bail!(
                        "kind `{}` gave no value for item {} of {}",
                        job.kind,
                        place + 1,
                        batch.len()
                    ),
                };
            }
        }
        for (i, item) in new.iter().enumerate() {
            let value = values.remove(&i).context("an item has no value")?;
            done.list.push((item.clone(), value));
        }
    }
}

/// The space of items of `kind` that share `what`.
pub(super) fn item_space(kind: &str, what: &Value) -> Digest {
    Digest::of_json(
        "runner item space v1",
        &json!({"kind": kind, "space": what}),
    )
}

/// The key of an item inside its space.
pub(super) fn item_key(item: &Item) -> Digest {
    Digest::derived("runner item key v1", &item.id)
}
