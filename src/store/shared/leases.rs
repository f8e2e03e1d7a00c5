//! Leases: who works on what now, so that two people do not compute the same for an hour, and so
//! that a collection spares what a run has found.
//!
//! One file a run, written again every few seconds. Nothing is locked by it: a lease that is not
//! renewed means nothing, and two runs that work on one key do the same work twice, no more.

use std::{
    collections::HashSet,
    process,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::{Sharing, peer::Peer};
use crate::{
    digest::Digest,
    store::{Inner, Store, check_name, dir::mtime, lock, tmp},
};

/// A lease that was written longer ago is that of a run that died or sleeps.
const STALE: Duration = Duration::from_mins(1);
/// The same in a shared cache, where it is written less often.
const STALE_FAR: Duration = Duration::from_secs(150);
/// Leases are read no more often than this.
const READ_AGAIN: Duration = Duration::from_secs(1);
/// The same for those in shared caches.
const READ_AGAIN_FAR: Duration = Duration::from_secs(10);
/// The longest lease, in bytes.
const LONGEST: u64 = 4 << 20;
/// No more leases are read at once.
const MOST: usize = 1000;
/// No more keys are named in one; the newest ones.
const MOST_KEYS: usize = 20_000;

/// What a run says about itself while it goes on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Lease {
    /// The run.
    pub run: String,
    /// The person.
    pub who: String,
    /// Where.
    pub host: String,
    /// Keys that the run found or made: their records must stay.
    pub keys: Vec<Digest>,
    /// What it computes at this moment.
    pub working: Vec<Working>,
    /// The machine as far as process numbers mean the same there.
    #[serde(default)]
    machine: String,
    #[serde(default)]
    pid: u32,
}

impl Lease {
    /// The lease of a run that has found and made nothing yet.
    pub fn new(run: &str, who: &str, host: &str) -> Self {
        Self {
            run: run.to_owned(),
            who: who.to_owned(),
            host: host.to_owned(),
            ..Self::default()
        }
    }
}

/// A node that a run computes at this moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Working {
    /// Its key.
    pub key: Digest,
    /// Its name there.
    pub node: String,
    /// The person.
    pub who: String,
    /// Where.
    pub host: String,
    /// How much is done; nothing is known while `total` is zero.
    pub done: u64,
    /// Of how much.
    pub total: u64,
}

/// What runs were computing when their leases were last read.
#[derive(Debug, Default)]
pub(in crate::store) struct Seen {
    at: Option<Instant>,
    /// Each with its run.
    working: Vec<(String, Working)>,
}

impl Seen {
    /// Another run than `own_run` that computes `key`; leases are `read` again after `age`.
    fn find(
        &mut self,
        key: &Digest,
        own_run: &str,
        age: Duration,
        read: impl FnOnce() -> Vec<Lease>,
    ) -> Option<Working> {
        if self.at.is_none_or(|at| at.elapsed() >= age) {
            self.at = Some(Instant::now());
            let of = |Lease { run, working, .. }: Lease| {
                working
                    .into_iter()
                    .map(move |working| (run.clone(), working))
            };
            self.working = read().into_iter().flat_map(of).collect();
        }
        let theirs = self.working.iter().filter(|(run, _)| run != own_run);
        let mut working = theirs.map(|(_, working)| working);
        working.find(|working| working.key == *key).cloned()
    }
}

impl Store {
    /// Writes or renews the lease of a run: here, and if `far` in the shared caches that are
    /// written to. As well as that goes: without it nobody waits for this run.
    pub fn announce(&self, lease: &Lease, far: bool) {
        let inner = &self.0;
        if check_name(&lease.run).is_err() || inner.read_only {
            return;
        }
        let mut lease = lease.clone();
        lease.machine.clone_from(&inner.host);
        lease.pid = process::id();
        let surplus = lease.keys.len().saturating_sub(MOST_KEYS);
        lease.keys.drain(..surplus);
        let Ok(text) = serde_json::to_vec(&lease) else {
            return;
        };
        let _ = inner.replace("leases", &lease.run, &text, false);
        if far {
            let path = format!("leases/{}", lease.run);
            inner.for_written(&|peer| {
                let _ = peer.remote.replace(&path, &text);
            });
        }
    }

    /// Removes the lease of a run.
    pub fn withdraw(&self, run: &str, far: bool) {
        let inner = &self.0;
        if check_name(run).is_err() || inner.read_only {
            return;
        }
        if let Ok(folder) = inner.dir.dir("leases") {
            let _ = folder.unlink(run);
        }
        if far {
            let path = format!("leases/{run}");
            inner.for_written(&|peer| {
                let _ = peer.remote.remove(&path);
            });
        }
    }

    /// Another run that computes `key` at this moment, if its lease is fresh.
    pub fn working_on(&self, key: &Digest, own_run: &str) -> Option<Working> {
        let inner = &self.0;
        let near = || inner.leases();
        let found = lock(&inner.leases_seen).find(key, own_run, READ_AGAIN, near);
        found.or_else(|| {
            let sharing = inner.sharing()?;
            let far = || inner.far_leases(sharing);
            lock(&sharing.leases).find(key, own_run, READ_AGAIN_FAR, far)
        })
    }
}

impl Inner {
    /// Does `work` for every shared cache that this user writes to and that answers.
    fn for_written(&self, work: &dyn Fn(&Peer)) {
        let sharing = self.sharing().filter(|s| s.trust.writer().is_some());
        let peers = sharing.map_or(&[][..], |sharing| &sharing.peers);
        for peer in peers.iter().filter(|peer| peer.write) {
            if peer.reach().is_ok() {
                work(peer);
            }
        }
    }

    /// The fresh leases in this store.
    fn leases(&self) -> Vec<Lease> {
        let names = self.dir.names_in("leases").unwrap_or_default();
        if names.is_empty() || self.read_only {
            return Vec::new();
        }
        // The clock that stamps the files; a machine's own may be days off.
        let Ok(now) = self.now() else {
            return Vec::new();
        };
        names
            .iter()
            .take(MOST)
            .filter_map(|name| {
                let path = format!("leases/{name}");
                let written = mtime(&self.dir.stat(&path).ok()??);
                let age = now.saturating_sub(written);
                let bytes = self.bytes_of(&path, LONGEST)?;
                let lease: Lease = serde_json::from_slice(&bytes).ok()?;
                let gone = lease.machine == self.host && !tmp::is_alive(lease.pid as i32);
                if gone || age > STALE.as_nanos() as i64 {
                    if let Ok(folder) = self.dir.dir("leases") {
                        let _ = folder.unlink(name);
                    }
                    return None;
                }
                Some(lease)
            })
            .collect()
    }

    /// The keys that runs under way on this store have found or made.
    pub(in crate::store) fn leased(&self) -> HashSet<Digest> {
        let leases = self.leases().into_iter();
        leases
            .flat_map(|lease| {
                let working = lease.working.iter().map(|working| working.key);
                let keys: Vec<_> = working.chain(lease.keys.iter().copied()).collect();
                keys
            })
            .collect()
    }

    fn far_leases(&self, sharing: &Sharing) -> Vec<Lease> {
        let fresh = |peer| self.ask(sharing, peer, |peer| fresh(&*peer.remote));
        sharing.peers.iter().filter_map(fresh).flatten().collect()
    }
}

/// The fresh leases of a shared cache, by its own clock.
pub(super) fn fresh(
    remote: &dyn crate::store::remote::Remote,
) -> Result<Vec<Lease>, crate::store::remote::Fault> {
    let entries = match remote.list("leases", MOST) {
        Ok(entries) => entries,
        // A plain web server cannot list, and nobody writes leases there.
        Err(crate::store::remote::Fault::Unsupported(_)) => return Ok(Vec::new()),
        Err(fault) => return Err(fault),
    };
    if entries.is_empty() {
        return Ok(Vec::new());
    }
    let now = remote.now()?;
    let mut leases = Vec::new();
    for entry in entries {
        if now.saturating_sub(entry.modified) > STALE_FAR.as_nanos() as i64 {
            continue;
        }
        if let Some(bytes) = remote.get(&entry.path, LONGEST)?
            && let Ok(lease) = serde_json::from_slice(&bytes)
        {
            leases.push(lease);
        }
    }
    Ok(leases)
}
