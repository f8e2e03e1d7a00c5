//! Care of a shared cache: collecting what is old or too much, and reading it all again.

use std::collections::{HashMap, HashSet};

use serde::Serialize;

use super::{leases, objects::OTHER_BYTES, peer::Peer, spread::spread};
use crate::{
    digest::Digest,
    store::{
        GcPolicy, Inner, Store, StoreError,
        dir::Found,
        document::Document,
        list::Count,
        objects::object_place,
        record::{CONTEXT, LONGEST, Written},
        remote::{Body, Entry, Fault, Remote},
        shard,
        tmp::random,
        unshard,
    },
    trust::Subject,
};

/// No more entries of one folder are listed.
const MOST: usize = 50_000_000;
/// An unfinished entry this old was left behind.
const UNFINISHED: i64 = 24 * 3600 * 1_000_000_000;

/// What a collection of a shared cache did, or would do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct RemoteGc {
    /// Records that went for their age or for space.
    pub records: Count,
    /// Records that went because nobody can read them.
    pub broken: Count,
    /// Objects and packs that went.
    pub objects: Count,
    /// Runs, lists and unfinished entries that went.
    pub others: Count,
    /// What stays.
    pub kept: Count,
}

/// What a verification of a shared cache found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RemoteVerify {
    /// Objects and packs read.
    pub objects: u64,
    /// Records read.
    pub records: u64,
    /// Bytes read.
    pub bytes: u64,
    /// What is wrong.
    pub problems: Vec<RemoteProblem>,
}

/// An entry of a shared cache that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RemoteProblem {
    /// The entry.
    pub path: String,
    /// What is wrong with it.
    pub reason: String,
    /// Whether it is sound but not believed: unsigned, or signed by a key that is not trusted.
    pub untrusted: bool,
    /// Whether it was put right or removed.
    pub repaired: bool,
}

/// A record of a shared cache, as far as a collection needs it.
struct Kept {
    entry: Entry,
    domain: String,
    /// Nothing if nobody can read it.
    written: Option<Written>,
}

impl Store {
    /// Collects in the shared cache `name` by `policy`: records by the time since they were
    /// uploaded, then objects that no record names. What runs under way have found stays, and
    /// everything younger than the grace time. The shared cache's own clock counts.
    ///
    /// # Errors
    /// There is no such cache, or it has a fault. What was collected until then is consistent.
    pub fn gc_remote(&self, name: &str, policy: &GcPolicy) -> Result<RemoteGc, StoreError> {
        let peer = self.peer(name)?;
        collect(peer, policy).map_err(|fault| StoreError::Remote {
            name: name.to_owned(),
            reason: fault.to_string(),
        })
    }

    /// Reads every entry of the shared cache `name`. With `repair`, objects are put right from
    /// this store, or removed with the records that name them; what is not believed is left.
    ///
    /// # Errors
    /// There is no such cache, or it cannot be listed.
    pub fn verify_remote(
        &self,
        name: &str,
        repair: bool,
        progress: &(dyn Fn(u64, u64) + Sync),
    ) -> Result<RemoteVerify, StoreError> {
        let peer = self.peer(name)?;
        self.0
            .verify_peer(peer, repair, progress)
            .map_err(|fault| StoreError::Remote {
                name: name.to_owned(),
                reason: fault.to_string(),
            })
    }

    fn peer(&self, name: &str) -> Result<&Peer, StoreError> {
        let sharing = self.0.sharing();
        let wrong = |reason: String| StoreError::Remote {
            name: name.to_owned(),
            reason,
        };
        let peer = sharing.and_then(|sharing| sharing.peer(name));
        let peer = peer.ok_or_else(|| wrong("there is none of this name".to_owned()))?;
        peer.reach().map_err(wrong)?;
        Ok(peer)
    }
}

fn collect(peer: &Peer, policy: &GcPolicy) -> Result<RemoteGc, Fault> {
    let remote = &*peer.remote;
    let now = remote.now()?;
    let old = |entry: &Entry, age: std::time::Duration| {
        now.saturating_sub(entry.modified) > i64::try_from(age.as_nanos()).unwrap_or(i64::MAX)
    };
    let young = |entry: &Entry| !old(entry, policy.grace);
    let live: HashSet<Digest> = leases::fresh(remote)?
        .into_iter()
        .flat_map(|lease| {
            let working = lease.working.into_iter().map(|working| working.key);
            working.chain(lease.keys).collect::<Vec<_>>()
        })
        .collect();
    let mut report = RemoteGc::default();
    let mut records = records(remote)?;
    let objects: HashMap<Digest, Entry> = remote
        .list("objects", MOST)?
        .into_iter()
        .filter_map(|entry| Some((named(&entry.path)?, entry)))
        .collect();
    let mut users: HashMap<Digest, u32> = HashMap::new();
    let uses = |record: &Kept| -> HashSet<Digest> {
        record
            .written
            .as_ref()
            .map(Written::named)
            .unwrap_or_default()
    };
    for digest in records.iter().flat_map(uses) {
        *users.entry(digest).or_default() += 1;
    }
    let mut size: u64 = objects.values().map(|entry| entry.size).sum();
    size += records.iter().map(|record| record.entry.size).sum::<u64>();

    // The longest uploaded first; what nobody can read before all.
    records.sort_by_key(|record| (record.written.is_some(), record.entry.modified));
    let mut gone = Vec::new();
    for record in records {
        let held = young(&record.entry)
            || record
                .written
                .as_ref()
                .is_some_and(|written| live.contains(&written.key));
        let much = policy.max_size.is_some_and(|most| size > most);
        let aged = policy.max_age.is_some_and(|age| old(&record.entry, age));
        if held || !(record.written.is_none() || much || aged) {
            report.kept.add(record.entry.size);
            continue;
        }
        size -= record.entry.size;
        for digest in uses(&record) {
            let count = users.entry(digest).or_default();
            *count -= 1;
            if *count == 0
                && let Some(object) = objects.get(&digest)
            {
                size -= object.size;
            }
        }
        gone.push(record);
    }
    let mut paths = Vec::new();
    for record in &gone {
        if record.written.is_some() {
            report.records.add(record.entry.size);
        } else {
            report.broken.add(record.entry.size);
        }
        paths.push(record.entry.path.clone());
        if let Some(recipe) = record.written.as_ref().and_then(|written| written.recipe) {
            paths.push(shard(&format!("recipes/{}", record.domain), &recipe).path());
        }
    }
    for folder in ["runs", "packs", "tmp"] {
        let age = if folder == "tmp" {
            Some(std::time::Duration::from_nanos(UNFINISHED as u64))
        } else {
            policy.max_age
        };
        for entry in remote.list(folder, MOST)? {
            if age.is_some_and(|age| old(&entry, age)) && !young(&entry) {
                report.others.add(entry.size);
                paths.push(entry.path);
            }
        }
    }
    // A pack is written together with the list that names it.
    for entry in remote.list("items", MOST)? {
        if policy.max_age.is_some_and(|age| old(&entry, age)) && !young(&entry) {
            report.objects.add(entry.size);
            paths.push(entry.path);
        } else {
            report.kept.add(entry.size);
        }
    }
    if !policy.dry_run && !paths.is_empty() {
        // From here on nobody trusts his memory of what is there.
        remote.replace("epoch", format!("{:016x}\n", random()).as_bytes())?;
        remove(remote, &paths)?;
    }
    // Records that came meanwhile may name an object that had lost its last one.
    if !policy.dry_run {
        for digest in self::records(remote)?.iter().flat_map(uses) {
            *users.entry(digest).or_default() += 1;
        }
    }
    let mut orphans = Vec::new();
    for (digest, entry) in &objects {
        if users.get(digest).copied().unwrap_or(0) > 0 || young(entry) {
            report.kept.add(entry.size);
        } else {
            report.objects.add(entry.size);
            orphans.push(entry.path.clone());
        }
    }
    if !policy.dry_run {
        remove(remote, &orphans)?;
    }
    Ok(report)
}

/// Every record, read.
fn records(remote: &dyn Remote) -> Result<Vec<Kept>, Fault> {
    let entries = remote.list("actions", MOST)?;
    spread(&entries, |entry| {
        let domain = entry.path.split('/').nth(1).unwrap_or_default().to_owned();
        let bytes = remote.get(&entry.path, LONGEST as u64);
        let written = match bytes {
            Ok(bytes) => named(&entry.path)
                .zip(bytes)
                .and_then(|(key, bytes)| Written::decode(&bytes, &key, &domain).ok()),
            Err(Fault::Wrong(_)) => None,
            Err(fault) => return Err(fault),
        };
        Ok(Kept {
            entry: entry.clone(),
            domain,
            written,
        })
    })
    .into_iter()
    .collect()
}

fn remove(remote: &dyn Remote, paths: &[String]) -> Result<(), Fault> {
    spread(paths, |path| remote.remove(path))
        .into_iter()
        .collect()
}

/// The digest that names an entry such as `objects/ab/…`.
fn named(path: &str) -> Option<Digest> {
    let mut parts = path.rsplit('/');
    let (name, folder) = (parts.next()?, parts.next()?);
    unshard(folder, name)
}

impl Inner {
    fn verify_peer(
        &self,
        peer: &Peer,
        repair: bool,
        progress: &(dyn Fn(u64, u64) + Sync),
    ) -> Result<RemoteVerify, Fault> {
        let remote = &*peer.remote;
        let objects = remote.list("objects", MOST)?;
        let packs = remote.list("items", MOST)?;
        let entries: Vec<(&Entry, Option<Digest>)> = objects
            .iter()
            .map(|entry| (entry, named(&entry.path)))
            .chain(packs.iter().map(|entry| {
                let name = entry.path.rsplit('/').next().unwrap_or_default();
                (entry, unshard("", name))
            }))
            .collect();
        let total = entries.iter().map(|(entry, _)| entry.size).sum();
        let read = std::sync::atomic::AtomicU64::new(0);
        let judged = spread(&entries, |(entry, digest)| {
            let bad = judge(remote, entry, *digest);
            let read = read.fetch_add(entry.size, std::sync::atomic::Ordering::Relaxed);
            progress(read + entry.size, total);
            bad
        });
        let mut report = RemoteVerify {
            objects: entries.len() as u64,
            bytes: total,
            ..RemoteVerify::default()
        };
        let mut sizes: HashMap<Digest, u64> = HashMap::new();
        for ((entry, digest), bad) in entries.iter().zip(judged) {
            let object = entry.path.starts_with("objects/");
            let mended = match &bad {
                Some(_) if repair => self.mend(remote, entry, digest.filter(|_| object)),
                _ => Mended::No,
            };
            let size = match mended {
                Mended::Right(size) => size,
                Mended::No | Mended::Removed => entry.size,
            };
            if let Some(reason) = bad {
                report.problems.push(RemoteProblem {
                    path: entry.path.clone(),
                    reason,
                    untrusted: false,
                    repaired: mended != Mended::No,
                });
                if !matches!(mended, Mended::Right(_)) {
                    continue;
                }
            }
            if let Some(digest) = digest.filter(|_| object) {
                sizes.insert(digest, size);
            }
        }
        self.verify_records(remote, repair, &sizes, &mut report)?;
        Ok(report)
    }

    fn verify_records(
        &self,
        remote: &dyn Remote,
        repair: bool,
        sizes: &HashMap<Digest, u64>,
        report: &mut RemoteVerify,
    ) -> Result<(), Fault> {
        let entries = remote.list("actions", MOST)?;
        report.records = entries.len() as u64;
        let judged = spread(&entries, |entry| self.judge_record(remote, entry, sizes));
        for (entry, bad) in entries.iter().zip(judged) {
            let Some((reason, untrusted)) = bad else {
                continue;
            };
            let repaired = repair && !untrusted && remote.remove(&entry.path).is_ok();
            report.problems.push(RemoteProblem {
                path: entry.path.clone(),
                reason,
                untrusted,
                repaired,
            });
        }
        Ok(())
    }

    /// What is wrong with a record, and whether it is only not believed.
    fn judge_record(
        &self,
        remote: &dyn Remote,
        entry: &Entry,
        sizes: &HashMap<Digest, u64>,
    ) -> Option<(String, bool)> {
        let domain = entry.path.split('/').nth(1).unwrap_or_default();
        let bytes = match remote.get(&entry.path, LONGEST as u64) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return None,
            Err(fault) => return Some((fault.to_string(), false)),
        };
        let Some(key) = named(&entry.path) else {
            return Some(("its name is not one of a record".to_owned(), false));
        };
        let opened = Document::open(CONTEXT, &bytes, LONGEST);
        let read = opened.and_then(|document| {
            let written = Written::of_key(&document, &key, domain)?;
            Ok((document, written))
        });
        let (document, written) = match read {
            Ok(read) => read,
            // A later version's record is none of our business.
            Err(bad) => return bad.damaged.then_some((bad.reason, false)),
        };
        let missing = |object: &crate::store::record::Reference| {
            sizes.get(&object.digest) != Some(&object.size)
        };
        if let Some(object) = written.references().find(missing) {
            let reason = format!("its object {} is missing or damaged", object.digest.short());
            return Some((reason, false));
        }
        let sharing = self.sharing()?;
        let checked =
            sharing
                .trust
                .check(Subject::Record, domain, document.line, &document.signatures);
        checked.err().map(|refusal| (refusal.to_string(), true))
    }

    /// Puts an entry right from this store if it has it, else removes it.
    fn mend(&self, remote: &dyn Remote, entry: &Entry, object: Option<Digest>) -> Mended {
        if remote.remove(&entry.path).is_err() {
            return Mended::No;
        }
        let Some(digest) = object else {
            return Mended::Removed;
        };
        let path = object_place(&digest).path();
        if let Ok(Some(_)) = self.object_bytes_here(&digest)
            && let Ok(Found::File(file, identity)) = self.dir.look(&path)
            && remote
                .put_new(&path, Body::File(&file, identity.size))
                .is_ok()
        {
            return Mended::Right(identity.size);
        }
        Mended::Removed
    }
}

#[derive(PartialEq, Eq)]
enum Mended {
    No,
    Removed,
    /// The size that it has now.
    Right(u64),
}

/// What is wrong with an object or a pack, by reading all of it.
fn judge(remote: &dyn Remote, entry: &Entry, digest: Option<Digest>) -> Option<String> {
    let Some(digest) = digest else {
        return Some("its name is not one of an object".to_owned());
    };
    let mut hasher = blake3::Hasher::new();
    match remote.read(&entry.path, entry.size, &mut hasher) {
        Ok(true) if Digest::from_bytes(*hasher.finalize().as_bytes()) == digest => None,
        Ok(true) => Some(OTHER_BYTES.to_owned()),
        Ok(false) => None,
        Err(fault) => Some(fault.to_string()),
    }
}
