//! Whole runs under fire: kills, errors, lies, power cuts, flipped bits and wrong clocks. None
//! may ever make a wrong result, or lose what was told to be done.
//!
//! Every test has a short form, and a long one with `RUNNER_FIRE=1`. How to run these and what
//! they showed is in `tests/fire/README.md`.

mod clock;
mod errors;
mod flips;
mod image;
mod kills;
mod lies;
mod power;

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use runner::{
    digest::FileMemo,
    store::{Options, Store},
};

use crate::space::Space;

/// No run of these tests takes this long, however it goes; one that does hangs.
const LIMIT: Duration = Duration::from_mins(5);
/// Added to the names of nodes: the file of events is written 8 KiB at a time, and a small run
/// has to come to that before it is over.
const LONG_NAME: &str = "whose_name_is_so_long_that_a_few_events_about_it_fill_the_buffer_of_the_file_of_events_well_before_the_run_is_over_and_not_only_then";
/// What the hash in a record's second line is for.
const RECORD: &str = "runner record v1";
/// The node that everything else leads to.
const LAST: &str = "last";

/// Whether the long forms are asked for.
fn long() -> bool {
    env::var("RUNNER_FIRE").is_ok_and(|value| value == "1")
}

/// Says what a test leaves out, and why.
#[expect(
    clippy::print_stderr,
    reason = "a test that is left out is not left out silently"
)]
pub(crate) fn left_out(what: &str, why: &str) {
    eprintln!("left out: {what}, since {why}");
}

/// Says what a test saw; shown with `--nocapture`.
#[expect(
    clippy::print_stderr,
    reason = "the figures of a long test are its point"
)]
fn saw(figures: &str) {
    eprintln!("{figures}");
}

/// Whether `strace` can be used here; says so if not.
pub(crate) fn can_inject() -> bool {
    let trace = Command::new("strace")
        .args(["-qq", "-o", "/dev/null", "true"])
        .output();
    let can = trace.is_ok_and(|output| output.status.success());
    if !can {
        left_out("faults in system calls", "`strace` cannot be used here");
    }
    can
}

/// Does the work of each case, a few at a time, and gives what came of each.
fn each<C: Sync, R: Send>(cases: &[C], work: impl Fn(&C) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let some = || {
        let case = || cases.get(next.fetch_add(1, Ordering::Relaxed));
        std::iter::from_fn(|| case().map(&work)).collect::<Vec<R>>()
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(some)).collect();
        let results = threads.into_iter().map(|thread| match thread.join() {
            Ok(results) => results,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        results.flatten().collect()
    })
}

/// Xorshift: the same numbers in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end.max(1) as u64) as usize
    }
}

/// Six probes in three layers, two of them with items; `word` reaches half of them.
fn pipeline() -> String {
    let items = |begin: usize, count: usize| {
        let list: Vec<String> = (begin..begin + count)
            .map(|i| format!("\"i{i}\""))
            .collect();
        list.join(", ")
    };
    format!(
        r#"
version = 1
name = "fire"
[params]
word = "one"
[nodes.a0_{LONG_NAME}]
kind = "probe"
value = "a0"
items = [{}]
batch = 1
[nodes.a1_{LONG_NAME}]
kind = "probe"
value = "a1 ${{word}}"
[nodes.a2_{LONG_NAME}]
kind = "probe"
value = "a2"
[nodes.b0_{LONG_NAME}]
kind = "probe"
value = "b0"
items = [{}]
batch = 3
inputs = ["a0_{LONG_NAME}", "a1_{LONG_NAME}"]
[nodes.b1_{LONG_NAME}]
kind = "probe"
value = "b1"
inputs = ["a0_{LONG_NAME}", "a2_{LONG_NAME}"]
[nodes.{LAST}]
kind = "probe"
value = "last"
inputs = ["b0_{LONG_NAME}", "b1_{LONG_NAME}"]
"#,
        items(0, 24),
        items(100, 9),
    )
}

/// Words of the command line: the pipeline as it is, or another one that shares half of it.
const ONE: &[&str] = &["p.toml"];
const TWO: &[&str] = &["p.toml", "--set", "word=two"];

/// What a run without any fault makes.
struct Reference {
    /// The last node's bytes, which hold those of all others.
    result: Vec<u8>,
    /// Each node's key.
    keys: BTreeMap<String, String>,
}

/// The reference of [`ONE`] or [`TWO`], made once.
fn reference(words: &[&str]) -> &'static Reference {
    static BOTH: OnceLock<[Reference; 2]> = OnceLock::new();
    let both = BOTH.get_or_init(|| {
        [ONE, TWO].map(|words| {
            let space = project();
            let ran = space.exec(words).0;
            assert_eq!(ran.code, 0, "{}", ran.stderr);
            Reference {
                result: exported(&space, words, "without a fault"),
                keys: keys(&space),
            }
        })
    });
    &both[usize::from(words == TWO)]
}

/// A folder with the pipeline and nothing else.
fn project() -> Space {
    let space = Space::new();
    space.write("p.toml", &pipeline());
    space
}

/// A project whose cache has all results of [`ONE`].
fn warm() -> Space {
    static FILLED: OnceLock<Space> = OnceLock::new();
    let filled = FILLED.get_or_init(|| {
        let space = project();
        let ran = space.run(&["exec", "p.toml"]);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        space
    });
    let space = project();
    let copied = Command::new("cp")
        .arg("-a")
        .args([filled.cache(), space.cache()])
        .status();
    assert!(copied.unwrap().success());
    space
}

/// The bytes of the last node, as `show --to` gives them to a person.
fn exported(space: &Space, words: &[&str], what: &str) -> Vec<u8> {
    let to = space.path().join("exported");
    let _ = fs::remove_dir_all(&to);
    let mut all = vec!["show", words[0], LAST, "--to", "exported"];
    all.extend(&words[1..]);
    let ran = space.run(&all);
    assert_eq!(ran.code, 0, "{what}: {}", ran.stderr);
    fs::read(to.join("probe.txt")).unwrap()
}

/// The key of each node that the last run's events tell.
fn keys(space: &Space) -> BTreeMap<String, String> {
    let pair = |event: &serde_json::Value| {
        let text = |name: &str| event[name].as_str().map(str::to_owned);
        Some((text("node")?, text("key")?))
    };
    space.events().iter().filter_map(pair).collect()
}

/// How a run under a fault ended.
struct Ended {
    /// Nothing if a signal ended it.
    code: Option<i32>,
    stderr: String,
}

/// Waits for a run whose stderr is piped; ends one that hangs.
fn end(child: Child, what: &str) -> Ended {
    let pid = child.id();
    let (tell, told) = mpsc::channel();
    thread::spawn(move || tell.send(child.wait_with_output()));
    let Ok(output) = told.recv_timeout(LIMIT) else {
        let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
        panic!("{what}: hangs");
    };
    let Output { status, stderr, .. } = output.unwrap();
    Ended {
        code: status.code().filter(|_| status.signal().is_none()),
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
    }
}

/// Starts `exec` of these words with its events, under these faults if there are any.
fn start(space: &Space, words: &[&str], events: &str, faults: &[String]) -> Child {
    let mut all = vec!["exec"];
    all.extend(words);
    all.extend(["--events", events]);
    let plain = space.command(&all);
    let mut command = if faults.is_empty() {
        plain
    } else {
        let mut strace = Command::new("strace");
        let calls: BTreeSet<&str> = faults
            .iter()
            .filter_map(|fault| fault.split(':').next())
            .collect();
        let calls: Vec<&str> = calls.into_iter().collect();
        // That stops at the calls in question only; with it signals are not injected.
        let quick = faults.iter().all(|fault| !fault.contains(":signal="));
        strace
            .args(quick.then_some("--seccomp-bpf"))
            .args(["-f", "-qq", "-o"])
            .arg(space.path().join("trace"))
            .args(["-e", &format!("trace={}", calls.join(","))]);
        // One without a fault is only traced.
        for fault in faults.iter().filter(|fault| fault.contains(':')) {
            strace.arg("-e").arg(format!("inject={fault}"));
        }
        strace
            .arg(plain.get_program())
            .args(plain.get_args())
            .current_dir(space.path())
            .stdin(Stdio::null());
        for (name, value) in plain.get_envs() {
            match value {
                Some(value) => strace.env(name, value),
                None => strace.env_remove(name),
            };
        }
        strace
    };
    command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Runs `exec` of these words under these faults to its end.
fn under(space: &Space, words: &[&str], faults: &[String]) -> Ended {
    let child = start(space, words, "events.jsonl", faults);
    end(child, &format!("{faults:?}"))
}

/// How many calls the last run under faults had one injected into.
fn fired(space: &Space) -> usize {
    let trace = fs::read(space.path().join("trace")).unwrap_or_default();
    let text = String::from_utf8_lossy(&trace);
    text.lines()
        .filter(|line| line.contains("(INJECTED)"))
        .count()
}

/// What a run told to be done before it ended: nodes, and how many items of each node.
#[derive(Debug, Default)]
struct Told {
    nodes: BTreeSet<String>,
    items: BTreeMap<String, u64>,
}

impl Told {
    /// From a run's file of events and from what it said to a person.
    fn by(space: &Space, events: &str, stderr: &str) -> Self {
        let mut told = Self::default();
        let text = fs::read_to_string(space.path().join(events)).unwrap_or_default();
        // The last line may be cut off.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        for line in whole.lines() {
            let event: serde_json::Value = serde_json::from_str(line).unwrap();
            let Some(node) = event["node"].as_str() else {
                continue;
            };
            match event["event"].as_str() {
                Some("ran" | "hit") => {
                    told.nodes.insert(node.to_owned());
                }
                Some("batch") => {
                    let count = event["items"].as_u64().unwrap();
                    *told.items.entry(node.to_owned()).or_default() += count;
                }
                _ => {}
            }
        }
        // `    ran  a0  29 ms, 6 computed`, `    hit  a0, a1`.
        let whole = stderr.rsplit_once('\n').map_or("", |(whole, _)| whole);
        for line in whole.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("ran") => told.nodes.extend(words.next().map(str::to_owned)),
                Some("hit") => {
                    let name = |word: &str| word.trim_end_matches(',').to_owned();
                    told.nodes.extend(words.map(name));
                }
                _ => {}
            }
        }
        let known = |name: &String| name == LAST || name.ends_with(LONG_NAME);
        told.nodes.retain(known);
        told
    }

    fn is_empty(&self) -> bool {
        self.nodes.is_empty() && self.items.is_empty()
    }
}

/// The regular files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries {
            // Another run may take files away meanwhile.
            let Ok(entry) = entry else { continue };
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(kind) if kind.is_file() => found.push(entry.path()),
                _ => {}
            }
        }
    }
    found.sort_unstable();
    found
}

/// The digest that an entry's folder and name spell, `ab/cdef…`.
fn named(path: &Path) -> String {
    let text = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    text(path.parent().unwrap()) + &text(path)
}

/// Every visible entry of a cache that is wrong, found without the store's own code: objects
/// and packs whose bytes are not those of their names, records that cannot be read or whose
/// objects are not there.
fn wrong(cache: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut bad = |path: &Path, what: &str| found.push(format!("{}: {what}", path.display()));
    for path in files(&cache.join("objects")) {
        match fs::read(&path) {
            Ok(bytes) if blake3::hash(&bytes).to_hex().as_str() == named(&path) => {}
            Ok(_) => bad(&path, "other bytes"),
            Err(error) => bad(&path, &error.to_string()),
        }
    }
    for path in files(&cache.join("items")) {
        let name = path.file_name().unwrap().to_str().unwrap();
        match fs::read(&path) {
            Ok(bytes) if blake3::hash(&bytes).to_hex().as_str() == name => {}
            Ok(_) => bad(&path, "other bytes"),
            Err(error) => bad(&path, &error.to_string()),
        }
    }
    for path in files(&cache.join("actions")) {
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) => {
                bad(&path, &error.to_string());
                continue;
            }
        };
        let text = String::from_utf8_lossy(&bytes);
        let mut lines = text.lines();
        let first = lines.next().unwrap_or_default();
        let hash = blake3::derive_key(RECORD, first.as_bytes());
        let hash = format!("blake3:{}", blake3::Hash::from_bytes(hash).to_hex());
        let Ok(record) = serde_json::from_str::<serde_json::Value>(first) else {
            bad(&path, "no JSON");
            continue;
        };
        if lines.next() != Some(hash.as_str()) {
            bad(&path, "another hash");
        }
        if record["key"].as_str() != Some(named(&path).as_str()) {
            bad(&path, "another key");
        }
        let outputs = record["outputs"].as_array().cloned().unwrap_or_default();
        if outputs.is_empty() {
            bad(&path, "no outputs");
        }
        for output in outputs {
            let digest = output["digest"].as_str().unwrap_or_default();
            let (folder, name) = digest.split_at_checked(2).unwrap_or_default();
            let object = cache.join("objects").join(folder).join(name);
            let size = fs::metadata(object).map(|metadata| metadata.len()).ok();
            if size.is_none() || size != output["size"].as_u64() {
                bad(&path, &format!("its object {digest} is not there"));
            }
        }
    }
    found
}

/// Opens a project's cache as a run does, without waiting for the disk.
fn open(space: &Space) -> Store {
    let memo = Arc::new(FileMemo::in_memory());
    let durable = false;
    Store::open_with(&space.cache(), Options { durable, memo }).unwrap()
}

/// The oracles after a fault that may have ended the run but damaged nothing: nothing visible is
/// wrong, what was told is still there, and a plain repetition comes to the same results.
fn heals(space: &Space, words: &[&str], told: &Told, case: &str) {
    mends(space, words, told, case);
    let quarantine = files(&space.cache().join("quarantine"));
    assert!(quarantine.is_empty(), "{case}: {quarantine:?}");
}

/// The same where a sound entry may have been moved away, as long as it was put there anew.
fn mends(space: &Space, words: &[&str], told: &Told, case: &str) {
    assert_eq!(wrong(&space.cache()), [""; 0], "{case}");
    let reference = reference(words);
    let records = files(&space.cache().join("actions"));
    let there: BTreeSet<String> = records.iter().map(|path| named(path)).collect();
    for node in &told.nodes {
        let told = there.contains(&reference.keys[node]);
        assert!(told, "{case}: told of {node}, but its record is gone");
    }
    converges(space, words, told, case);
}

/// A plain repetition comes to the results of the reference, repeats nothing that was told, and
/// leaves a sound cache without leftovers.
fn converges(space: &Space, words: &[&str], told: &Told, case: &str) {
    let reference = reference(words);
    let (ran, happened) = space.exec(words);
    assert_eq!(ran.code, 0, "{case}: {}", ran.stderr);
    for node in &told.nodes {
        let word = crate::space::of(&happened, node);
        assert_eq!(word, "hit", "{case}: {node} was told to be done");
    }
    let events = space.events();
    for (node, count) in &told.items {
        let found = events
            .iter()
            .find(|event| event["event"] == "items" && event["node"] == node.as_str())
            .and_then(|event| event["cached"].as_u64());
        let hit = crate::space::of(&happened, node) == "hit";
        assert!(
            hit || found >= Some(*count),
            "{case}: {node} told of {count} items, and {found:?} were found"
        );
    }
    assert_eq!(keys(space), reference.keys, "{case}");
    assert!(exported(space, words, case) == reference.result, "{case}");
    let tmp = files(&space.cache().join("tmp"));
    assert!(tmp.is_empty(), "{case}: {tmp:?}");
    assert_eq!(wrong(&space.cache()), [""; 0], "{case}");
    let report = open(space).verify(false, &mut |_, _| ()).unwrap();
    assert!(report.is_clean(), "{case}: {report:?}");
}
