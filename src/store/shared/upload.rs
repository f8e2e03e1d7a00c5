//! Uploads in the background: what was computed here, signed, objects first.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Condvar, Mutex},
    thread,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Sharing, known::Known, runs};
use crate::{
    digest::Digest,
    store::{Inner, Store, StoreError, lock, remote::Fault},
};

/// Entries uploaded at once.
const THREADS: usize = 4;

/// Something to be uploaded to one shared cache.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
enum Upload {
    /// The record of a key with its objects.
    Record(Digest),
    /// The packs of a space.
    Packs(Digest),
    /// A run of the history.
    Run(String, String),
}

#[derive(Debug, Default)]
pub(super) struct Uploads {
    pub(super) state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
pub(super) struct State {
    queue: VecDeque<(usize, Upload)>,
    seen: HashSet<(usize, Upload)>,
    /// What each shared cache is known to have, in the order of the caches.
    pub(super) known: Vec<Option<Known>>,
    threads: usize,
    busy: usize,
    given_up: bool,
    pub(super) report: UploadReport,
}

/// How far the uploads are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UploadState {
    /// Records, lists and runs that wait or are on their way.
    pub left: usize,
    /// Bytes uploaded so far.
    pub bytes: u64,
}

/// What was uploaded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct UploadReport {
    /// Records.
    pub records: u64,
    /// Objects and packs.
    pub objects: u64,
    /// Bytes of all.
    pub bytes: u64,
    /// What could not be uploaded, by reason.
    pub failed: BTreeMap<String, u64>,
    /// What was left when the user gave up waiting.
    pub left: u64,
}

impl UploadReport {
    /// Whether nothing is left to be uploaded.
    pub fn is_complete(&self) -> bool {
        self.failed.is_empty() && self.left == 0
    }
}

/// Why something was not uploaded.
pub(super) enum Trouble {
    /// The shared cache has a fault.
    Fault(Fault),
    /// Something here is not as it should be.
    Here(String),
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl Store {
    /// Whether results can be uploaded: nothing, or why they cannot although a shared cache is
    /// there for it.
    pub fn cannot_upload(&self) -> Option<String> {
        let sharing = self.0.sharing()?;
        let writes = sharing.peers.iter().any(|peer| peer.write);
        if !writes || sharing.trust.writer().is_some() {
            return None;
        }
        let reason = sharing.trust.cannot_write().unwrap_or(
            "there is no key to sign it with\n\
             hint: make one with `runner key new`, and give its line to your teammates",
        );
        Some(format!(
            "nothing is uploaded to the shared cache, as {reason}"
        ))
    }

    /// Uploads the record of `key`, which was computed here, and its objects, in the background,
    /// to every shared cache that is not known to have it.
    pub fn share(&self, key: &Digest) {
        self.upload(&Upload::Record(*key));
    }

    /// Uploads the packs of `space` that a shared cache does not have.
    pub fn share_items(&self, space: &Digest) {
        self.upload(&Upload::Packs(*space));
    }

    /// Uploads what is known of a run.
    pub fn share_run(&self, id: &str, run: &Value) {
        self.upload(&Upload::Run(id.to_owned(), run.to_string()));
    }

    /// Nothing is asked here: whether a shared cache has it already is for the thread to find out.
    fn upload(&self, what: &Upload) {
        let Some(sharing) = self.0.sharing().filter(|s| s.trust.writer().is_some()) else {
            return;
        };
        for (i, _) in sharing
            .peers
            .iter()
            .enumerate()
            .filter(|(_, peer)| peer.write)
        {
            let mut state = lock(&sharing.uploads.state);
            if !state.seen.insert((i, what.clone())) {
                continue;
            }
            state.queue.push_back((i, what.clone()));
            if state.threads < THREADS {
                state.threads += 1;
                let store = self.clone();
                let name = "runner upload".to_owned();
                // Without a thread the queue is left, and said to be.
                if thread::Builder::new()
                    .name(name)
                    .spawn(move || store.0.serve())
                    .is_err()
                {
                    state.threads -= 1;
                }
            }
            drop(state);
            sharing.uploads.changed.notify_all();
        }
    }

    /// Waits for the uploads until `stop` says otherwise; `progress` hears of them now and then.
    pub fn finish_uploads(
        &self,
        stop: &dyn Fn() -> bool,
        progress: &mut dyn FnMut(UploadState),
    ) -> UploadReport {
        let Some(sharing) = self.0.sharing() else {
            return UploadReport::default();
        };
        let mut state = lock(&sharing.uploads.state);
        loop {
            let now = state.progress();
            progress(now);
            if now.left == 0 || state.threads == 0 {
                break;
            }
            if stop() {
                state.given_up = true;
                break;
            }
            let wait = Duration::from_millis(100);
            let waited = sharing.uploads.changed.wait_timeout(state, wait);
            state = waited.map_or_else(|poisoned| poisoned.into_inner().0, |(state, _)| state);
        }
        state.report.left = state.progress().left as u64;
        let report = state.report.clone();
        drop(state);
        self.0.save_known(sharing);
        report
    }

    /// Takes what waits to be uploaded, for another process to [resume](Self::resume_uploads);
    /// waits for what is on its way.
    pub fn take_uploads(&self) -> Vec<PendingUpload> {
        let Some(sharing) = self.0.sharing() else {
            return Vec::new();
        };
        let mut state = lock(&sharing.uploads.state);
        let waiting: Vec<_> = state.queue.drain(..).collect();
        drop(state);
        self.finish_uploads(&|| false, &mut |_| {});
        // Once, however many shared caches lack it: whoever resumes asks each of them.
        let waiting: HashSet<_> = waiting.into_iter().map(|(_, upload)| upload).collect();
        waiting.into_iter().map(PendingUpload).collect()
    }

    /// Goes on with what another process has left.
    pub fn resume_uploads(&self, pending: Vec<PendingUpload>) {
        for PendingUpload(upload) in pending {
            self.upload(&upload);
        }
    }

    /// Uploads every record and pack that was computed here and that a shared cache lacks.
    ///
    /// # Errors
    /// The store cannot be listed.
    pub fn share_all(&self) -> Result<(), StoreError> {
        let failed = |error| self.0.io("list", "", error);
        for record in self.0.records().map_err(failed)? {
            if let Some(key) = record.digest {
                self.share(&key);
            }
        }
        for space in self.0.spaces().map_err(failed)? {
            self.share_items(&space);
        }
        Ok(())
    }
}

/// Something that waits to be uploaded.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PendingUpload(Upload);

impl State {
    fn progress(&self) -> UploadState {
        UploadState {
            left: self.queue.len() + self.busy,
            bytes: self.report.bytes,
        }
    }
}

impl Inner {
    /// The life of an uploading thread: until the queue is empty.
    fn serve(&self) {
        let Some(sharing) = self.sharing() else {
            return;
        };
        loop {
            let mut state = lock(&sharing.uploads.state);
            let next = if state.given_up {
                None
            } else {
                state.queue.pop_front()
            };
            let Some((i, upload)) = next else {
                state.threads -= 1;
                drop(state);
                sharing.uploads.changed.notify_all();
                return;
            };
            state.busy += 1;
            drop(state);
            let work = AssertUnwindSafe(|| self.upload_one(sharing, i, &upload));
            // Whoever waits for the queue must not wait for a thread that is gone.
            let result = catch_unwind(work)
                .unwrap_or_else(|_| Err(Trouble::Here("an upload panicked".to_owned())));
            let mut state = lock(&sharing.uploads.state);
            state.busy -= 1;
            if let Err(trouble) = result {
                let reason = match trouble {
                    Trouble::Fault(fault) => {
                        format!("shared cache `{}`: {fault}", sharing.peers[i].name())
                    }
                    Trouble::Here(reason) => reason,
                };
                *state.report.failed.entry(reason).or_default() += 1;
            }
            drop(state);
            sharing.uploads.changed.notify_all();
        }
    }

    fn upload_one(&self, sharing: &Sharing, i: usize, upload: &Upload) -> Result<(), Trouble> {
        let peer = &sharing.peers[i];
        peer.reach()
            .map_err(|reason| Trouble::Here(format!("shared cache `{}`: {reason}", peer.name())))?;
        let Some(writer) = sharing.trust.writer() else {
            return Ok(());
        };
        match upload {
            Upload::Record(key) => {
                if !self.is_known(sharing, i, key) {
                    self.upload_record(sharing, peer, &writer, key)?;
                    self.note_known(sharing, i, [*key]);
                }
                Ok(())
            }
            Upload::Packs(space) => self.upload_packs(sharing, i, &writer, space),
            Upload::Run(id, json) => {
                peer.found()?;
                let (path, text) = runs::signed(&writer, id, json).map_err(Trouble::Here)?;
                Ok(peer.remote.replace(&path, text.as_bytes())?)
            }
        }
    }
}
