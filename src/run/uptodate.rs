//! The one derived index that makes a run with nothing to do fast: what a
//! finished run looked at, and what it printed.
//!
//! It says nothing about results by itself. It holds only while every file that
//! the run read is the same one (device, inode, size, times), and nothing was
//! added to or removed from the store's folders since, or at least its own records
//! and objects are all the same files. In any other case, or when the file is gone
//! or damaged, the graph is looked at node by node.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{NodeOutcome, Outcome, State};
use crate::{
    digest::{Digest, Identity},
    store::{Generation, Store},
};

/// A file changed less than this before the run began may change again within
/// the resolution of its times, so nothing is concluded from it.
const RACY: Duration = Duration::from_millis(20);

/// After a day the records are looked up again: that marks them as in use for
/// the collection of what is not.
const DAY: Duration = Duration::from_hours(24);

/// What a finished run looked at.
#[derive(Debug, Serialize, Deserialize)]
pub struct UpToDate {
    saved: SystemTime,
    files: Vec<(PathBuf, Identity)>,
    generation: Generation,
    results: Results,
    /// Nodes of the run, all of them in the store.
    pub nodes: usize,
    /// What the run printed to stdout.
    pub printed: String,
    /// The same as JSON.
    pub json: Value,
    /// Where its report is.
    pub report: Option<PathBuf>,
}

/// What a run's nodes have in the store.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Results {
    /// Keys of their records.
    pub keys: Vec<Digest>,
    /// Manifests and files of their artifacts.
    pub objects: Vec<Digest>,
    /// What [`Store::stamp`] said of these.
    stamp: Option<Digest>,
}

impl Results {
    /// Those of every node that is done and whose result is here; what is in a shared cache, and
    /// may not be here, was not looked at.
    pub fn of(outcome: &Outcome) -> Self {
        let done = |node: &&NodeOutcome| node.state == State::Done && node.by.is_none();
        let mut objects = BTreeSet::new();
        for node in outcome.nodes.iter().filter(done) {
            objects.extend(node.artifact);
            let files = node.manifest.iter().flat_map(|manifest| &manifest.files);
            objects.extend(files.map(|file| file.digest));
        }
        Self {
            keys: (outcome.nodes.iter().filter(done))
                .filter_map(|node| node.key)
                .collect(),
            objects: objects.into_iter().collect(),
            stamp: None,
        }
    }

    /// Whether all of it is still what it was.
    fn same(&self, store: &Store) -> bool {
        self.stamp.is_some() && self.stamp == store.stamp(&self.keys, &self.objects)
    }
}

/// The name of the index of one command: the program, the pipeline file and
/// everything on the command line that changes the graph.
pub fn index_name(pipeline: &Path, arguments: &Value) -> String {
    let program = std::env::current_exe()
        .ok()
        .and_then(|path| path.metadata().ok())
        .map(|metadata| Identity::of(&metadata));
    let place = std::path::absolute(pipeline).unwrap_or_else(|_| pipeline.to_owned());
    let what = json!({"program": program, "pipeline": place, "arguments": arguments});
    Digest::of_json("runner up-to-date index v1", &what).to_string()
}

impl UpToDate {
    /// The index called `name`, if all that it says still holds.
    pub fn load(store: &Store, name: &str) -> Option<Self> {
        let index: Self = serde_json::from_slice(&store.load_index(name)?).ok()?;
        let same = |(path, identity): &(PathBuf, Identity)| {
            fs_err::metadata(path).is_ok_and(|metadata| Identity::of(&metadata) == *identity)
        };
        let young = index.saved.elapsed().is_ok_and(|age| age < DAY);
        (young
            && index.files.iter().all(same)
            && (index.generation == store.generation() || index.results.same(store)))
        .then_some(index)
    }

    /// Saves the index of a run that began at `began`, read `files` and left
    /// every node in the store. A file that cannot be trusted to be unchanged
    /// leaves no index, which costs only time.
    pub fn save(
        store: &Store,
        name: &str,
        began: SystemTime,
        files: Vec<PathBuf>,
        mut results: Results,
        printed: (String, Value),
        report: Option<PathBuf>,
    ) {
        let began = began.checked_sub(RACY).unwrap_or(UNIX_EPOCH);
        let mut list = Vec::new();
        for path in files {
            let Ok(metadata) = fs_err::metadata(&path) else {
                return;
            };
            let changed = metadata.modified().unwrap_or(began);
            // The run's own report is newer than its begin, and nobody's input.
            if changed >= began && Some(&path) != report.as_ref() {
                return;
            }
            list.push((path, Identity::of(&metadata)));
        }
        results.stamp = store.stamp(&results.keys, &results.objects);
        let index = Self {
            saved: SystemTime::now(),
            files: list,
            generation: store.generation(),
            nodes: results.keys.len(),
            results,
            printed: printed.0,
            json: printed.1,
            report,
        };
        if let Ok(bytes) = serde_json::to_vec(&index) {
            store.save_index(name, &bytes);
        }
    }
}
