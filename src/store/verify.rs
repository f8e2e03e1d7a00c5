//! Reading everything in the store again, and moving away what is damaged.

use std::{collections::HashMap, io};

use rayon::prelude::*;
use serde::Serialize;

use super::{
    Inner, Store, StoreError,
    dir::Found,
    document::Document,
    list::Listed,
    objects::{hash_file, object_place, read_exactly},
    publish::{Place, Present},
    record::{CONTEXT as RECORD, LONGEST, Written},
    records::DOMAIN,
    shared::{RUN, RUN_LONGEST},
};
use crate::digest::Digest;

/// Objects read between two reports of progress.
const CHUNK: usize = 64;

/// What a verification found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// Objects read.
    pub objects: u64,
    /// Records read.
    pub records: u64,
    /// Packs read.
    pub packs: u64,
    /// Bytes read.
    pub bytes: u64,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

/// One entry that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The entry, relative to the store's folder.
    pub path: String,
    /// What is wrong with it.
    pub reason: String,
    /// Whether it was moved away, so that what it held is computed again.
    pub repaired: bool,
}

impl VerifyReport {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }
}

impl Store {
    /// Reads every object, pack, record and index, trusting no memory of earlier readings.
    /// `progress` is told the bytes read and to be read.
    ///
    /// With `repair`, what is damaged goes into quarantine, together with records whose objects
    /// are damaged or missing; the good items of a damaged pack are kept.
    ///
    /// # Errors
    /// A folder cannot be read, whether an entry is damaged cannot be told (too many open files,
    /// say), or a repair is asked of a read-only store.
    pub fn verify(
        &self,
        repair: bool,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<VerifyReport, StoreError> {
        if repair && self.0.read_only {
            return Err(StoreError::ReadOnly(self.0.root.clone()));
        }
        let failed = |error: io::Error| self.0.io("verify", "", error);
        let records = self.0.records().map_err(failed)?;
        let objects = self.0.objects().map_err(failed)?;
        let packs = self.0.packs().map_err(failed)?;
        let lists = [&records, &objects, &packs];
        let total = lists
            .iter()
            .flat_map(|list| list.iter())
            .map(|e| e.size)
            .sum();
        let mut round = Round {
            store: self,
            repair,
            total,
            progress,
            report: VerifyReport::default(),
        };
        let good = round.objects(&objects)?;
        round.packs(&packs)?;
        round.records(&records, good)?;
        round.documents().map_err(failed)?;
        Ok(round.report)
    }
}

/// A verification under way.
struct Round<'a> {
    store: &'a Store,
    repair: bool,
    total: u64,
    progress: &'a mut dyn FnMut(u64, u64),
    report: VerifyReport,
}

impl Round<'_> {
    /// Reads the objects; says of each whether it is good.
    fn objects(&mut self, list: &[Listed]) -> Result<HashMap<Digest, bool>, StoreError> {
        let inner = &self.store.0;
        let mut known = HashMap::new();
        for chunk in list.chunks(CHUNK) {
            let judged: Vec<_> = chunk.par_iter().map(|entry| inner.inspect(entry)).collect();
            for (entry, judged) in chunk.iter().zip(judged) {
                let bad = judged.map_err(|error| self.unknown(entry, error))?;
                self.report.objects += 1;
                if let Some(digest) = entry.digest {
                    known.insert(digest, bad.is_none());
                }
                if let Some(reason) = bad {
                    self.found(&entry.place, Some(entry.id), reason);
                }
            }
            self.read(chunk.iter().map(|entry| entry.size).sum());
        }
        Ok(known)
    }

    fn packs(&mut self, list: &[Listed]) -> Result<(), StoreError> {
        for entry in list {
            let path = entry.place.path();
            self.report.packs += 1;
            let bad = match entry
                .digest
                .map(|digest| self.store.0.judge_pack(&path, &digest, None))
            {
                None => Some("its name is not one of a pack".to_owned()),
                Some(Ok(Present::Bad(reason, _))) => Some(reason),
                Some(Err(error)) => return Err(self.unknown(entry, error)),
                Some(Ok(Present::Good(()) | Present::Absent)) => None,
            };
            if let Some(mut reason) = bad {
                if self.repair
                    && entry.regular
                    && let Err(error) = self.store.salvage(&entry.place)
                {
                    reason = format!("{reason}; its good items cannot be kept: {error}");
                }
                self.found(&entry.place, Some(entry.id), reason);
            }
            self.read(entry.size);
        }
        Ok(())
    }

    fn records(
        &mut self,
        list: &[Listed],
        mut known: HashMap<Digest, bool>,
    ) -> Result<(), StoreError> {
        for entry in list {
            self.report.records += 1;
            let judged = self.bad_record(entry, &mut known);
            if let Some(reason) = judged.map_err(|error| self.unknown(entry, error))? {
                self.found(&entry.place, Some(entry.id), reason);
            }
            self.read(entry.size);
        }
        Ok(())
    }

    fn bad_record(
        &self,
        entry: &Listed,
        known: &mut HashMap<Digest, bool>,
    ) -> io::Result<Option<String>> {
        let inner = &self.store.0;
        let Some(key) = entry.digest else {
            return Ok(Some("its name is not one of a record".to_owned()));
        };
        let bytes = match inner.dir.look(&entry.place.path())? {
            Found::Absent => return Ok(None),
            Found::Strange(what, _) => return Ok(Some(what)),
            Found::File(_, identity) if identity.size > LONGEST as u64 => {
                return Ok(Some("it is too long".to_owned()));
            }
            Found::File(file, identity) => match read_exactly(file, identity.size) {
                Ok(bytes) => bytes,
                Err(error) => return Ok(Some(format!("unreadable ({error})"))),
            },
        };
        let written = match Written::decode(&bytes, &key, DOMAIN) {
            Ok(written) => written,
            Err(unreadable) => return Ok(Some(unreadable.reason)),
        };
        for object in written.references() {
            // One put after the objects were listed is not known yet.
            let good = match known.get(&object.digest) {
                Some(good) => *good,
                None => {
                    let found = inner.dir.look(&object_place(&object.digest).path())?;
                    let judged = inner.judge_found(found, &object.digest, None);
                    matches!(judged, Present::Good(_))
                }
            };
            known.insert(object.digest, good);
            if !good || !inner.looked(&object)? {
                let digest = object.digest;
                return Ok(Some(format!("its object {digest} is missing or damaged")));
            }
        }
        Ok(None)
    }

    /// Of an entry that cannot be judged: it must not count as damaged.
    fn unknown(&self, entry: &Listed, error: io::Error) -> StoreError {
        self.store.0.io("verify", &entry.place.path(), error)
    }

    /// Pins, runs and indexes. None of them is truth; a damaged list of pins stops collection.
    fn documents(&mut self) -> io::Result<()> {
        let inner = &self.store.0;
        let index = inner.dir.names_in("index")?;
        let bad = |name: &String| self.store.load_index(name).is_none();
        for name in index.into_iter().filter(bad).collect::<Vec<_>>() {
            self.found(&Place::new("index", &name), None, "damaged".to_owned());
        }
        for (_, entry) in inner.fetched()? {
            let context = if entry.place.folder.starts_with("fetched/runs/") {
                RUN
            } else {
                RECORD
            };
            let bytes = inner.bytes_of(&entry.place.path(), RUN_LONGEST as u64);
            let bad = match bytes {
                Some(bytes) => Document::open(context, &bytes, RUN_LONGEST)
                    .err()
                    .map(|bad| bad.reason),
                None => Some("unreadable, or too long".to_owned()),
            };
            if let Some(reason) = bad {
                self.found(&entry.place, Some(entry.id), reason);
            }
        }
        for name in inner.dir.names_in("runs")? {
            if let Err(reason) = inner.document(&format!("runs/{name}")) {
                self.found(&Place::new("runs", &name), None, reason);
            }
        }
        for name in inner.dir.names_in("pins")? {
            if self.store.pin_list(&name).is_err() {
                let reason = "unreadable; remove it and pin again".to_owned();
                self.report.problems.push(Problem {
                    path: format!("pins/{name}"),
                    reason,
                    repaired: false,
                });
            }
        }
        Ok(())
    }

    fn found(&mut self, place: &Place, id: Option<(u64, u64)>, mut reason: String) {
        let mut repaired = false;
        if self.repair {
            match self.store.0.quarantine(place, id, &reason) {
                Ok(()) => repaired = true,
                Err(error) => reason = format!("{reason}; it cannot be moved away: {error}"),
            }
        }
        self.report.problems.push(Problem {
            path: place.path(),
            reason,
            repaired,
        });
    }

    fn read(&mut self, bytes: u64) {
        self.report.bytes += bytes;
        (self.progress)(self.report.bytes, self.total.max(self.report.bytes));
    }
}

impl Store {
    /// Commits the good items of a damaged pack anew.
    fn salvage(&self, place: &Place) -> Result<(), StoreError> {
        let path = place.path();
        let items = self
            .0
            .salvage(&path)
            .map_err(|error| self.0.io("read", &path, error))?;
        let space = place.folder.rsplit('/').take(2).collect::<Vec<_>>();
        match space[..] {
            [rest, first] => match super::unshard(first, rest) {
                Some(space) => self.commit_items(&space, &items),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }
}

impl Inner {
    /// What is wrong with an object, by reading all of it.
    ///
    /// # Errors
    /// It cannot be told.
    fn inspect(&self, entry: &Listed) -> io::Result<Option<String>> {
        let Some(digest) = entry.digest else {
            return Ok(Some("its name is not one of an object".to_owned()));
        };
        Ok(match self.dir.look(&entry.place.path())? {
            Found::Absent => None,
            Found::Strange(what, _) => Some(what),
            Found::File(mut file, _) => match hash_file(&mut file) {
                Ok(found) if found == digest => None,
                Ok(_) => Some("its bytes are not those of its name".to_owned()),
                Err(error) => Some(format!("unreadable ({error})")),
            },
        })
    }
}
