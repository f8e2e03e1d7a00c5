//! Collection: removing what is old, or the oldest of what is too much, but nothing in use.
//!
//! Records and packs are kept while they are young, pinned, or found by a run under way; objects while a record names
//! them, or they are young. Looking something up makes it young again. What goes lies in the
//! trash for a day, where readers still find objects. If all that fails for a run under way, it
//! has a miss and computes again.

use std::{
    collections::{HashMap, HashSet},
    io,
    time::Duration,
};

use jiff::Timestamp;
use serde::Serialize;

use super::{
    Inner, Store, StoreError,
    dir::Found,
    list::{Count, Listed},
    objects::{read_exactly, trash_name},
    record::{LONGEST, Written},
    records::{DAY, DOMAIN},
    unshard,
};
use crate::digest::Digest;

/// What to collect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GcPolicy {
    /// Collect what was last used longer ago than this.
    pub max_age: Option<Duration>,
    /// Collect the longest unused until the rest takes at most this many bytes.
    pub max_size: Option<u64>,
    /// Keep what was written or used within this time, whatever else: a run may need it.
    pub grace: Duration,
    /// How long what was collected lies in the trash; zero deletes at once.
    pub trash: Duration,
    /// Only say what would go.
    pub dry_run: bool,
}

impl Default for GcPolicy {
    fn default() -> Self {
        Self {
            max_age: None,
            max_size: None,
            grace: Duration::from_hours(7 * 24),
            trash: Duration::from_hours(24),
            dry_run: false,
        }
    }
}

/// What a collection did, or would do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct GcReport {
    /// Records collected for their age or for space.
    pub records: Count,
    /// Records collected because they are damaged or their objects are missing.
    pub broken: Count,
    /// Objects collected.
    pub objects: Count,
    /// Packs collected.
    pub packs: Count,
    /// Records and runs of others collected; they can be fetched again.
    pub fetched: Count,
    /// Files deleted for good from trash and quarantine.
    pub emptied: Count,
    /// What stays.
    pub kept: Count,
    /// Unreferenced objects that stay only because they are younger than the grace time.
    pub young: Count,
}

/// A record or a pack, which go by age.
struct Candidate {
    entry: Listed,
    what: What,
    /// The objects that the record names.
    objects: HashSet<Digest>,
    /// Whether it must stay, whatever its age.
    held: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Record,
    Broken,
    Pack,
    /// Something that was fetched from a shared cache, and can be again.
    Fetched,
}

struct Object {
    entry: Listed,
    users: u32,
}

impl Store {
    /// Collects by `policy`. Records of the keys in `live`, and the items of spaces among them,
    /// stay like pinned ones.
    ///
    /// # Errors
    /// A pin or a folder cannot be read, the store is read-only, or the system refused. What was
    /// collected until then is consistent.
    pub fn gc(&self, policy: &GcPolicy, live: &[Digest]) -> Result<GcReport, StoreError> {
        if self.0.read_only && !policy.dry_run {
            return Err(StoreError::ReadOnly(self.0.root.clone()));
        }
        let mut keep: HashSet<Digest> = live.iter().copied().collect();
        keep.extend(self.pins()?.into_values().flatten());
        keep.extend(self.0.leased());
        self.0
            .collect(policy, &keep)
            .map_err(|error| self.0.io("collect in", "", error))
    }
}

impl Store {
    /// Collects by these limits if that was not done here for a day, as well as that goes.
    pub fn gc_daily(&self, max_age: Option<Duration>, max_size: Option<u64>) -> Option<GcReport> {
        const STAMP: &str = "collected";
        let inner = &self.0;
        if inner.read_only || (max_age.is_none() && max_size.is_none()) {
            return None;
        }
        let now = inner.now().ok()?;
        let last = self.load_index(STAMP);
        let last = last.and_then(|bytes| Some(i64::from_le_bytes(bytes.try_into().ok()?)));
        // A stamp from the future is that of a clock that was wrong.
        if last.is_some_and(|last| last <= now && now - last < DAY.as_nanos() as i64) {
            return None;
        }
        self.save_index(STAMP, &now.to_le_bytes());
        // A new store has nothing that is old.
        last?;
        let policy = GcPolicy {
            max_age,
            max_size,
            ..GcPolicy::default()
        };
        match self.gc(&policy, &[]) {
            Ok(report) => Some(report),
            Err(error) => {
                inner.warn("", &error.to_string());
                None
            }
        }
    }
}

impl Inner {
    fn collect(&self, policy: &GcPolicy, keep: &HashSet<Digest>) -> io::Result<GcReport> {
        // The clock that stamps the files; a machine's own may be days off.
        let now = if self.read_only {
            Timestamp::now().as_nanosecond() as i64
        } else {
            self.now()?
        };
        let mut report = GcReport::default();
        self.empty(policy, now, &mut report.emptied)?;
        let is_young = |entry: &Listed| before(now, policy.grace) < entry.mtime;

        // Records first: an object put meanwhile is then listed, and one named is not missed.
        let mut candidates = self.candidates(keep, &is_young)?;
        let mut objects: HashMap<Digest, Object> = HashMap::new();
        for entry in self.objects()? {
            if let (Some(digest), true) = (entry.digest, entry.regular) {
                objects.insert(digest, Object { entry, users: 0 });
            }
        }
        for candidate in &candidates {
            for digest in &candidate.objects {
                if let Some(object) = objects.get_mut(digest) {
                    object.users += 1;
                }
            }
        }

        // What goes however much there is; then the longest unused until the rest fits.
        candidates.sort_by_key(|c| (c.what != What::Broken, c.entry.mtime));
        let mut size: u64 = candidates.iter().map(|c| c.entry.size).sum();
        size += objects
            .values()
            .filter(|object| object.users > 0 || is_young(&object.entry))
            .map(|object| object.entry.size)
            .sum::<u64>();
        let mut gone = Vec::new();
        for candidate in candidates {
            let old = policy
                .max_age
                .is_some_and(|age| candidate.entry.mtime < before(now, age));
            let much = policy.max_size.is_some_and(|most| size > most);
            let goes = candidate.what == What::Broken || (!candidate.held && (old || much));
            if !goes {
                report.kept.add(candidate.entry.size);
                continue;
            }
            size -= candidate.entry.size;
            for digest in &candidate.objects {
                if let Some(object) = objects.get_mut(digest) {
                    object.users -= 1;
                    if object.users == 0 && !is_young(&object.entry) {
                        size -= object.entry.size;
                    }
                }
            }
            gone.push(candidate);
        }

        // Records before the objects they name.
        for candidate in &gone {
            let space = candidate.entry.place.folder.replace('/', "-");
            let name = format!("{space}-{}", candidate.entry.place.name);
            if policy.dry_run || self.discard(&candidate.entry, &name, policy, now)? {
                let count = match candidate.what {
                    What::Record => &mut report.records,
                    What::Broken => &mut report.broken,
                    What::Pack => &mut report.packs,
                    What::Fetched => &mut report.fetched,
                };
                count.add(candidate.entry.size);
            }
        }
        for (digest, object) in &objects {
            if object.users > 0 {
                report.kept.add(object.entry.size);
            } else if is_young(&object.entry) {
                report.kept.add(object.entry.size);
                report.young.add(object.entry.size);
            } else if policy.dry_run
                || self.discard(&object.entry, &trash_name(digest), policy, now)?
            {
                report.objects.add(object.entry.size);
            }
        }
        Ok(report)
    }

    fn candidates(
        &self,
        keep: &HashSet<Digest>,
        is_young: &dyn Fn(&Listed) -> bool,
    ) -> io::Result<Vec<Candidate>> {
        let mut all = Vec::new();
        for entry in self.records()? {
            let Some(key) = entry.digest else {
                continue;
            };
            // What cannot be told must not count as unused: nothing is collected then.
            let unknown = |error: io::Error| {
                let path = entry.place.path();
                io::Error::new(
                    error.kind(),
                    format!("{path} or its objects: {error}\nhint: see `runner cache verify`"),
                )
            };
            let bytes = self.readable(&entry.place.path()).map_err(unknown)?;
            let Some(bytes) = bytes else {
                continue;
            };
            let (what, objects) = match Written::decode(&bytes, &key, DOMAIN) {
                Ok(written) if self.missing(&written).map_err(unknown)?.is_none() => {
                    (What::Record, written.named())
                }
                Err(unreadable) if !unreadable.damaged => (What::Record, mentioned(&bytes)),
                _ => (What::Broken, HashSet::new()),
            };
            all.push(Candidate {
                held: keep.contains(&key) || is_young(&entry),
                entry,
                what,
                objects,
            });
        }
        for (domain, entry) in self.fetched()? {
            let bytes = self.bytes_of(&entry.place.path(), LONGEST as u64);
            let key = entry
                .digest
                .filter(|_| entry.place.folder.starts_with("fetched/actions/"));
            let written = key
                .zip(bytes)
                .and_then(|(key, bytes)| Written::decode(&bytes, &key, &domain).ok());
            all.push(Candidate {
                held: key.is_some_and(|key| keep.contains(&key)) || is_young(&entry),
                entry,
                what: What::Fetched,
                objects: written.map(|written| written.named()).unwrap_or_default(),
            });
        }
        for entry in self.packs()? {
            let mut folders = entry.place.folder.rsplit('/');
            let (rest, first) = (folders.next(), folders.next());
            let space = unshard(first.unwrap_or_default(), rest.unwrap_or_default());
            if entry.digest.is_some() && entry.regular {
                all.push(Candidate {
                    held: space.is_some_and(|s| keep.contains(&s)) || is_young(&entry),
                    entry,
                    what: What::Pack,
                    objects: HashSet::new(),
                });
            }
        }
        Ok(all)
    }

    /// Moves an entry to the trash, or deletes it; not if it was used or replaced since it was
    /// listed. Says whether it went.
    fn discard(&self, entry: &Listed, name: &str, policy: &GcPolicy, now: i64) -> io::Result<bool> {
        let folder = self.folder(&entry.place.folder)?;
        let Some(stat) = folder.stat(&entry.place.name)? else {
            return Ok(false);
        };
        if super::dir::mtime(&stat) != entry.mtime || super::dir::file_id(&stat) != entry.id {
            return Ok(false);
        }
        let result = if policy.trash.is_zero() {
            folder.unlink(&entry.place.name)
        } else {
            let trash = self.folder(&format!("trash/{}", day(now)))?;
            folder
                .rename(&entry.place.name, &trash, name)
                .map_err(Into::into)
        };
        match result {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The bytes of the record at `path`, or nothing where there is no file that could be a record.
    ///
    /// # Errors
    /// What there is cannot be read.
    fn readable(&self, path: &str) -> io::Result<Option<Vec<u8>>> {
        match self.dir.look(path)? {
            Found::File(file, identity) if identity.size <= LONGEST as u64 => {
                read_exactly(file, identity.size).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Deletes what has been in the trash, or in quarantine, for long enough.
    fn empty(&self, policy: &GcPolicy, now: i64, emptied: &mut Count) -> io::Result<()> {
        for day in self.list("trash")? {
            if day.mtime > before(now, policy.trash) {
                continue;
            }
            for entry in self.list(&day.place.path())? {
                self.delete(&entry, policy, emptied)?;
            }
            if !policy.dry_run {
                // Not empty if another process has just collected into it.
                let _ = self.folder("trash")?.remove_dir(&day.place.name);
            }
        }
        for entry in self.list("quarantine")? {
            if entry.ctime < before(now, policy.grace) {
                self.delete(&entry, policy, emptied)?;
            }
        }
        Ok(())
    }

    fn delete(&self, entry: &Listed, policy: &GcPolicy, emptied: &mut Count) -> io::Result<()> {
        let deleted = policy.dry_run || {
            let folder = self.dir.dir(&entry.place.folder)?;
            folder.unlink(&entry.place.name).is_ok()
        };
        if deleted {
            emptied.add(entry.size);
        }
        Ok(())
    }
}

fn before(now: i64, age: Duration) -> i64 {
    now.saturating_sub(i64::try_from(age.as_nanos()).unwrap_or(i64::MAX))
}

/// The day of a time in nanoseconds, as `yyyymmdd`.
fn day(now: i64) -> String {
    let time = Timestamp::from_nanosecond(i128::from(now)).unwrap_or_default();
    time.strftime("%Y%m%d").to_string()
}

/// Every digest that a record's text mentions: what a record of another version may name.
fn mentioned(text: &[u8]) -> HashSet<Digest> {
    text.split(|byte| !byte.is_ascii_hexdigit())
        .filter(|run| run.len() == 64)
        .filter_map(|run| str::from_utf8(run).ok()?.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_universal_time() {
        assert_eq!(day(0), "19700101");
        assert_eq!(day(951_868_799 * 1_000_000_000), "20000229");
        assert_eq!(day(951_868_800 * 1_000_000_000), "20000301");
    }

    #[test]
    fn a_record_of_a_later_version_still_holds_its_objects() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let text = format!(
            r#"{{"v":9,"tree":{{"x":["{a}"]}},"c":"{b}","d":"{}"}}"#,
            "a".repeat(65)
        );
        assert_eq!(mentioned(text.as_bytes()), HashSet::from([a, b]));
    }
}
