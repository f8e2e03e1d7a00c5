//! What lies in the store, entry by entry, and how much of it there is.

use std::io;

use serde::Serialize;

use super::{
    Inner, Store, StoreError,
    dir::{is_folder, is_regular, mtime},
    pack,
    publish::Place,
    records::DOMAIN,
    unshard,
};
use crate::digest::Digest;

/// A number of files and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    /// How many.
    pub files: u64,
    /// The sum of their sizes.
    pub bytes: u64,
}

impl Count {
    pub(super) fn add(&mut self, bytes: u64) {
        self.files += 1;
        self.bytes += bytes;
    }
}

/// What a store holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Bytes under the name of their digest.
    pub objects: Count,
    /// Records of nodes.
    pub records: Count,
    /// Files of items.
    pub packs: Count,
    /// Items in those files.
    pub items: u64,
    /// Runs in the history.
    pub runs: Count,
    /// Damaged entries that were moved away.
    pub quarantine: Count,
    /// Collected entries that are not yet deleted.
    pub trash: Count,
    /// Files being written, or left behind by a killed process and not yet swept.
    pub unfinished: Count,
}

/// An entry of the store.
#[derive(Debug, Clone)]
pub(super) struct Listed {
    pub(super) place: Place,
    /// The digest that names it; `None` if the name is none of the store's.
    pub(super) digest: Option<Digest>,
    pub(super) size: u64,
    /// Nanoseconds since 1970.
    pub(super) mtime: i64,
    /// Nanoseconds since 1970.
    pub(super) ctime: i64,
    pub(super) id: (u64, u64),
    pub(super) regular: bool,
}

impl Store {
    /// Counts what the store holds, by looking at every file's size.
    ///
    /// # Errors
    /// A folder cannot be read.
    pub fn stats(&self) -> Result<Stats, StoreError> {
        let failed = |error| self.0.io("count what is in", "", error);
        let mut stats = Stats::default();
        let sum = |list: Vec<Listed>| {
            let mut count = Count::default();
            list.iter()
                .filter(|e| e.regular)
                .for_each(|e| count.add(e.size));
            count
        };
        let packs = self.0.packs().map_err(failed)?;
        for listed in &packs {
            if let Ok(super::dir::Found::File(file, _)) = self.0.dir.look(&listed.place.path()) {
                let entries = pack::entries(&file, listed.size).ok().flatten();
                stats.items += entries.unwrap_or_default().len() as u64;
            }
        }
        stats.packs = sum(packs);
        stats.objects = sum(self.0.objects().map_err(failed)?);
        stats.records = sum(self.0.records().map_err(failed)?);
        stats.runs = sum(self.0.list("runs").map_err(failed)?);
        stats.quarantine = sum(self.0.list("quarantine").map_err(failed)?);
        stats.unfinished = sum(self.0.list("tmp").map_err(failed)?);
        for day in self.0.dir.names_in("trash").map_err(failed)? {
            let count = sum(self.0.list(&format!("trash/{day}")).map_err(failed)?);
            stats.trash.files += count.files;
            stats.trash.bytes += count.bytes;
        }
        Ok(stats)
    }
}

impl Inner {
    /// Every entry among the objects.
    pub(super) fn objects(&self) -> io::Result<Vec<Listed>> {
        self.sharded("objects")
    }

    /// Every entry among the records.
    pub(super) fn records(&self) -> io::Result<Vec<Listed>> {
        self.sharded(&format!("actions/{DOMAIN}"))
    }

    /// Every entry among the packs.
    pub(super) fn packs(&self) -> io::Result<Vec<Listed>> {
        let mut all = Vec::new();
        for space in self.sharded("items")? {
            for mut listed in self.list(&space.place.path())? {
                let whole = space.digest.is_some();
                listed.digest = unshard("", &listed.place.name).filter(|_| whole);
                all.push(listed);
            }
        }
        Ok(all)
    }

    /// Every space of items.
    pub(super) fn spaces(&self) -> io::Result<Vec<Digest>> {
        let all = self.sharded("items")?;
        Ok(all.into_iter().filter_map(|space| space.digest).collect())
    }

    /// Everything below `fetched/`, with the domain that it is of.
    pub(super) fn fetched(&self) -> io::Result<Vec<(String, Listed)>> {
        let mut all = Vec::new();
        for what in ["actions", "recipes"] {
            for domain in self.dir.names_in(&format!("fetched/{what}"))? {
                let entries = self.sharded(&format!("fetched/{what}/{domain}"))?;
                all.extend(entries.into_iter().map(|entry| (domain.clone(), entry)));
            }
        }
        for domain in self.dir.names_in("fetched/runs")? {
            let entries = self.list(&format!("fetched/runs/{domain}"))?;
            all.extend(entries.into_iter().map(|entry| (domain.clone(), entry)));
        }
        Ok(all)
    }

    fn sharded(&self, prefix: &str) -> io::Result<Vec<Listed>> {
        let mut all = Vec::new();
        for shard in self.dir.names_in(prefix)? {
            for mut listed in self.list(&format!("{prefix}/{shard}"))? {
                listed.digest = unshard(&shard, &listed.place.name);
                all.push(listed);
            }
        }
        Ok(all)
    }

    /// Every entry of the folder at `path`, in the order of their names.
    pub(super) fn list(&self, path: &str) -> io::Result<Vec<Listed>> {
        let mut all = Vec::new();
        let names = self.dir.names_in(path)?;
        if names.is_empty() {
            return Ok(all);
        }
        let dir = self.dir.dir(path)?;
        for name in names {
            // Another process may have removed it since.
            if let Some(stat) = dir.stat(&name)? {
                all.push(Listed {
                    place: Place::new(path, &name),
                    digest: None,
                    size: if is_folder(&stat) {
                        0
                    } else {
                        stat.st_size as u64
                    },
                    mtime: mtime(&stat),
                    ctime: super::dir::ctime(&stat),
                    id: super::dir::file_id(&stat),
                    regular: is_regular(&stat),
                });
            }
        }
        Ok(all)
    }
}
