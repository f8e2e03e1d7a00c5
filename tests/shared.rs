//! Teammates share what they computed: Ana runs first, Ben gets it, and nothing
//! that a shared cache does makes a run fail or a result wrong.

mod absent;
mod hostile;

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use runner::{
    artifact::Manifest,
    digest::Digest,
    store::{Output, Store},
};
use serde_json::Value;

use crate::space::{Ran, Space, of};

/// `big` is large enough not to be fetched with its record.
fn pipeline(word: &str) -> String {
    format!(
        "version = 1\nname = \"team\"\n\
         [nodes.big]\nkind = \"probe\"\nvalue = \"{}\"\n\
         [nodes.items]\nkind = \"probe\"\nitems = [\"a\", \"b\", \"c\"]\nbatch = 2\n\
         [nodes.last]\nkind = \"probe\"\nvalue = \"{word}\"\ninputs = [\"big\", \"items\"]\n",
        "x".repeat(1_300_000)
    )
}

/// A teammate with a project of the same pipeline and the same shared cache.
pub(crate) struct Mate {
    pub(crate) space: Space,
    pub(crate) key: String,
}

impl Mate {
    pub(crate) fn new(name: &str, url: &str) -> Self {
        let space = Space::new();
        space.write(
            "runner.toml",
            &format!("[[remote]]\nname = \"team\"\nurl = \"{url}\"\n"),
        );
        space.write("p.toml", &pipeline("one"));
        let made = space.run(&["key", "new", "--name", name]);
        assert_eq!(made.code, 0, "{}", made.stderr);
        let shown = space.run(&["key", "show", "--json"]);
        let start = made
            .stdout
            .find(&format!("{name}-1:"))
            .expect("the public line");
        let key = made.stdout[start..]
            .split_whitespace()
            .next()
            .unwrap()
            .to_owned();
        assert!(shown.stdout.contains(&key), "{}", shown.stdout);
        Self { space, key }
    }

    pub(crate) fn trusts(&self, other: &Self) {
        let ran = self.space.run(&["key", "trust", &other.key]);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
    }

    pub(crate) fn exec(&self, args: &[&str]) -> (Ran, Vec<(String, String)>) {
        let mut all = vec!["p.toml"];
        all.extend(args);
        self.space.exec(&all)
    }

    /// That nothing would run, and `count` nodes would come from shared caches.
    fn plans_to_fetch(&self, count: usize) -> String {
        let plan = self.space.run(&["plan", "p.toml", "--check"]);
        assert_eq!(plan.code, 0, "{}{}", plan.stdout, plan.stderr);
        let said = format!("{count} come from shared caches");
        assert!(plan.stdout.contains(&said), "{}", plan.stdout);
        plan.stdout
    }

    fn export(&self, node: &str) -> Vec<u8> {
        let ran = self.space.run(&["show", "p.toml", node, "--to", "out"]);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        std::fs::read(self.space.path().join("out/probe.txt")).unwrap()
    }

    fn keys(&self) -> Vec<(String, Digest)> {
        let events = self.space.events();
        let ended = |event: &&Value| matches!(event["event"].as_str(), Some("hit" | "ran"));
        let key = |event: &Value| {
            let key = event["key"].as_str().unwrap().parse().unwrap();
            (event["node"].as_str().unwrap().to_owned(), key)
        };
        events.iter().filter(ended).map(key).collect()
    }
}

/// Ana and Ben, who trust each other, and the folder that they share.
fn team() -> (tempfile::TempDir, Mate, Mate) {
    let folder = tempfile::tempdir().unwrap();
    let url = folder.path().join("mount/shared").display().to_string();
    std::fs::create_dir(folder.path().join("mount")).unwrap();
    let (ana, ben) = (Mate::new("ana", &url), Mate::new("ben", &url));
    ana.trusts(&ben);
    ben.trusts(&ana);
    (folder, ana, ben)
}

/// Files below `root` whose path contains `what`.
fn files(root: &Path, what: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.display().to_string().contains(what) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

const ALL: [&str; 3] = ["big", "items", "last"];

fn all(happened: &[(String, String)], word: &str) {
    for node in ALL {
        assert_eq!(of(happened, node), word, "{node} of {happened:?}");
    }
}

#[test]
fn what_one_computes_the_other_gets_and_fetches_bytes_only_where_they_are_read() {
    let (folder, ana, ben) = team();
    let (ran, happened) = ana.exec(&[]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    all(&happened, "ran");
    assert!(ran.stderr.contains("shared 3 results"), "{}", ran.stderr);

    let plan = ben.plans_to_fetch(3);
    assert!(plan.contains("from ana-1"), "{plan}");
    let (ran, happened) = ben.exec(&[]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    all(&happened, "hit");
    assert!(
        ran.stderr.contains("3 nodes computed by ana-1"),
        "{}",
        ran.stderr
    );
    // The large file stays where it is until somebody reads it.
    let large = |root: &Path| {
        let size = |path: &PathBuf| std::fs::metadata(path).unwrap().len();
        files(root, "/objects/")
            .iter()
            .filter(|path| size(path) > 1_200_000)
            .count()
    };
    assert_eq!(
        large(&ben.space.cache()),
        1,
        "what the key of `big` is made of"
    );
    assert_eq!(ben.export("last"), ana.export("last"));
    assert!(large(&ben.space.cache()) > 1);

    // Another word: only what changed runs, with inputs from the shared cache.
    ben.space.write("p.toml", &pipeline("two"));
    let (ran, happened) = ben.exec(&[]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(of(&happened, "last"), "ran");
    assert_eq!(of(&happened, "big"), "hit");
    // And back to Ana, who sees whose it is.
    ana.space.write("p.toml", &pipeline("two"));
    let (_, happened) = ana.exec(&[]);
    all(&happened, "hit");
    let shown = ana.space.run(&["show", "p.toml", "last"]);
    assert!(
        shown.stdout.contains("signed    by ben-1"),
        "{}",
        shown.stdout
    );
    let log = ana.space.run(&["log"]);
    assert!(log.stdout.contains("ben-1"), "{}", log.stdout);
    let code = ana.space.run(&["cache", "verify", "--remote", "team"]);
    assert_eq!(code.code, 0, "{}{}", code.stdout, code.stderr);
    drop(folder);
}

#[test]
fn items_of_a_node_that_changed_come_from_the_shared_cache() {
    let (_folder, ana, ben) = team();
    ana.exec(&[]);
    let text = pipeline("one").replace("[\"a\", \"b\", \"c\"]", "[\"c\", \"b\", \"d\"]");
    ben.space.write("p.toml", &text);
    let (ran, happened) = ben.exec(&[]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(of(&happened, "items"), "ran");
    let ran = ben.space.events();
    let items = ran
        .iter()
        .find(|e| e["event"] == "ran" && e["node"] == "items")
        .unwrap();
    assert_eq!(
        items["items"],
        serde_json::json!([1, 2]),
        "one computed, two found"
    );
}

#[test]
fn who_cannot_upload_is_told_why() {
    let (_folder, ana, _) = team();
    let said = |reason: &str| {
        let ran = ana.space.run(&["exec", "p.toml", "--force", "last"]);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        let note = "nothing is uploaded to the shared cache, as ";
        let found = ran.stderr.contains(&format!("{note}{reason}"));
        assert!(found, "{}", ran.stderr);
        assert!(ran.stderr.contains("hint: "), "{}", ran.stderr);
    };
    let secret = ana.space.path().join("config/keys/ana-1.key");
    let moved = secret.with_extension("away");
    std::fs::rename(&secret, &moved).unwrap();
    said("the secret key `");
    std::fs::rename(&moved, &secret).unwrap();
    let ran = ana.space.run(&["key", "revoke", "ana-1"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    said("your key `ana-1` was revoked");
    std::fs::remove_dir_all(ana.space.path().join("config")).unwrap();
    said("there is no key to sign it with");
}

#[test]
fn nobody_is_believed_who_is_not_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let url = folder.path().display().to_string();
    let (ana, ben) = (Mate::new("ana", &url), Mate::new("ben", &url));
    ana.exec(&[]);
    let (ran, happened) = ben.exec(&[]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    all(&happened, "ran");
    ben.trusts(&ana);
    // What was computed here is enough; what is new comes from Ana.
    for mate in [&ana, &ben] {
        mate.space.write("p.toml", &pipeline("three"));
        mate.exec(&[]);
    }
    assert_eq!(of(&ben.space.happened(), "last"), "hit");
    // Whoever is revoked is no longer believed, not even about what was fetched before.
    let revoked = ben.space.run(&["key", "revoke", "ana-1"]);
    assert_eq!(revoked.code, 0, "{}", revoked.stderr);
    let (ran, happened) = ben.exec(&[]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(of(&happened, "last"), "ran");
}

#[test]
fn a_poisoned_cache_poisons_nobody() {
    let (folder, ana, ben) = team();
    ana.exec(&[]);
    let shared = folder.path().join("mount/shared");
    let right = ana.export("last");
    // Somebody with access to the folder changes every object, and every other record.
    for path in files(&shared, "/objects/") {
        overwrite(&path, |bytes| bytes[0] ^= 1);
    }
    for path in files(&shared, "/items/") {
        overwrite(&path, |bytes| {
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
        });
    }
    for path in files(&shared, "/actions/").iter().step_by(2) {
        overwrite(path, |bytes| bytes[20] ^= 1);
    }
    let (ran, happened) = ben.exec(&[]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    all(&happened, "ran");
    assert_eq!(ben.export("last"), right);
    let verified = ben
        .space
        .run(&["cache", "verify", "--remote", "team", "--no-repair"]);
    assert_eq!(verified.code, 5, "{}", verified.stdout);
    let repaired = ben.space.run(&["cache", "verify", "--remote", "team"]);
    assert_eq!(repaired.code, 5, "{}", repaired.stdout);
    let clean = ben.space.run(&["cache", "verify", "--remote", "team"]);
    assert_eq!(clean.code, 0, "{}", clean.stdout);
}

fn overwrite(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn bytes_that_vanish_between_record_and_reading_are_computed_here() {
    let (folder, ana, ben) = team();
    ana.exec(&[]);
    ben.exec(&[]);
    // Ben has the records; `big`'s bytes were never read, and now they are gone.
    for path in files(&folder.path().join("mount/shared"), "/objects/") {
        std::fs::remove_file(path).unwrap();
    }
    ben.space.write("p.toml", &pipeline("two"));
    let (ran, happened) = ben.exec(&[]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(
        ran.stderr.contains("can no longer be fetched"),
        "{}",
        ran.stderr
    );
    assert_eq!(of(&happened, "last"), "ran");
    ana.space.write("p.toml", &pipeline("two"));
    ana.exec(&[]);
    assert_eq!(ben.export("last"), ana.export("last"));
}

#[test]
fn a_cache_that_is_away_costs_nobody_a_run() {
    let (folder, ana, _) = team();
    let mount = folder.path().join("mount");
    std::fs::rename(&mount, folder.path().join("elsewhere")).unwrap();
    let (ran, happened) = ana.exec(&[]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    all(&happened, "ran");
    assert!(ran.stderr.contains("team"), "{}", ran.stderr);
    // What was not uploaded then is uploaded when it is back.
    std::fs::rename(folder.path().join("elsewhere"), &mount).unwrap();
    let (ran, happened) = ana.exec(&[]);
    all(&happened, "hit");
    assert!(ran.stderr.contains("shared 3 results"), "{}", ran.stderr);
    // Offline nothing is asked, and nothing is missed.
    let (ran, _) = ana.exec(&["--offline"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    // A cache that is required is another matter.
    let text = format!(
        "[[remote]]\nname = \"team\"\nurl = \"{}/gone/x\"\nrequired = true\n",
        folder.path().display()
    );
    ana.space.write("runner.toml", &text);
    let (ran, _) = ana.exec(&[]);
    assert_eq!(ran.code, 7, "{}", ran.stderr);
    let (ran, _) = ana.exec(&["--offline"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
}

#[test]
fn uploads_can_be_left_to_another_process() {
    let (folder, ana, ben) = team();
    let (ran, _) = ana.exec(&["--detach-uploads"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let shared = folder.path().join("mount/shared");
    let records = || files(&shared, "/actions/ana/").len();
    for _ in 0..200 {
        if records() == 3 {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(records(), 3);
    all(&ben.exec(&[]).1, "hit");
}

#[test]
fn an_audit_finds_a_result_that_does_not_follow_from_its_key() {
    let (folder, ana, ben) = team();
    ana.exec(&[]);
    // Ana's machine lies about `last`: signed by her, of other bytes than its key gives.
    let key = ana
        .keys()
        .into_iter()
        .find(|(node, _)| node == "last")
        .unwrap()
        .1;
    let store = Store::open(&ana.space.cache()).unwrap();
    let mut record = store.lookup(&key).unwrap().unwrap();
    let lie = store.put(b"a lie").unwrap();
    let bytes = store.get(&record.artifact).unwrap().unwrap();
    let mut manifest: Manifest = serde_json::from_slice(&bytes).unwrap();
    manifest.files[0].digest = lie;
    manifest.files[0].size = 5;
    record.artifact = store.put(&manifest.bytes()).unwrap();
    let output = |name: &str, digest, size| Output {
        name: name.to_owned(),
        digest,
        size,
    };
    record.outputs = vec![
        output(
            "manifest.json",
            record.artifact,
            manifest.bytes().len() as u64,
        ),
        output("probe.txt", lie, 5),
    ];
    store.replace(&record).unwrap();
    let shared = folder.path().join("mount/shared");
    std::fs::remove_dir_all(shared.join("actions")).unwrap();
    std::fs::remove_dir_all(ana.space.cache().join("index")).unwrap();
    ana.exec(&[]);
    let (_, happened) = ben.exec(&[]);
    all(&happened, "hit");
    let audit = ben
        .space
        .run(&["cache", "audit", "p.toml", "--sample", "100%"]);
    assert_eq!(audit.code, 6, "{}{}", audit.stdout, audit.stderr);
    assert!(
        audit
            .stdout
            .contains("last: computed again, it gives OTHER bytes"),
        "{}",
        audit.stdout
    );
    assert!(audit.stdout.contains("signed by ana-1"), "{}", audit.stdout);
    assert!(audit.stdout.contains("2 of 3 sampled"), "{}", audit.stdout);
    let listed = ben.space.run(&["cache", "divergent"]);
    assert!(listed.stdout.contains(&key.short()), "{}", listed.stdout);
    // Nothing was changed by looking; --force puts it right.
    assert_eq!(of(&ben.exec(&["--force", "last"]).1, "last"), "ran");
    let audit = ben
        .space
        .run(&["cache", "audit", "p.toml", "--sample", "100%"]);
    assert_eq!(audit.code, 0, "{}{}", audit.stdout, audit.stderr);
}

#[test]
fn one_waits_for_the_other_who_computes_the_same() {
    let (_folder, ana, ben) = team();
    let slow = "version = 1\nname = \"slow\"\n[nodes.long]\nkind = \"probe\"\nitems = [\"a\", \"b\", \"c\", \"d\", \"e\", \"f\", \"g\", \"h\"]\nbatch = 1\nmilliseconds = 900\n";
    for mate in [&ana, &ben] {
        mate.space.write("p.toml", slow);
    }
    let mut first = ana.space.start(&["exec", "p.toml"]);
    std::thread::sleep(Duration::from_millis(3500));
    let (ran, happened) = ben.exec(&[]);
    assert!(first.wait().unwrap().success());
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(of(&happened, "long"), "hit", "{}", ran.stderr);
    assert!(
        ran.stderr.contains("is computing this on"),
        "{}",
        ran.stderr
    );
}

#[test]
fn the_lease_of_a_run_that_died_holds_nobody_up() {
    let space = Space::new();
    let slow = "version = 1\nname = \"slow\"\n[nodes.long]\nkind = \"probe\"\nitems = [\"a\", \"b\", \"c\", \"d\", \"e\"]\nbatch = 1\nmilliseconds = 900\n";
    space.write("p.toml", slow);
    let mut first = space.start(&["exec", "p.toml"]);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(files(&space.cache(), "/leases/").len(), 1);
    // Another run of the same folder waits while it lives.
    let second = space.start(&["exec", "p.toml", "--events", "events.jsonl"]);
    std::thread::sleep(Duration::from_millis(800));
    Command::new("kill")
        .args(["-9", &first.id().to_string()])
        .status()
        .unwrap();
    first.wait().unwrap();
    let status = { second }.wait().unwrap();
    assert!(status.success());
    assert_eq!(of(&space.happened(), "long"), "ran");
    assert_eq!(files(&space.cache(), "/leases/").len(), 0);
}

#[test]
fn collection_in_a_shared_cache_spares_what_is_young_or_in_use() {
    let (folder, ana, ben) = team();
    ana.exec(&[]);
    let shared = folder.path().join("mount/shared");
    let count = || files(&shared, "/actions/").len();
    let gc = |args: &[&str]| {
        let mut all = vec!["cache", "gc", "--remote", "team", "--max-age", "1d"];
        all.extend(args);
        let ran = ana.space.run(&all);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        ran.stdout
    };
    gc(&["--grace", "0s"]);
    assert_eq!(count(), 3, "all are young");
    let old = std::time::SystemTime::now() - Duration::from_hours(72);
    for path in files(&shared, "/mount/shared/") {
        let file = std::fs::File::open(&path).unwrap();
        file.set_times(std::fs::FileTimes::new().set_modified(old))
            .unwrap();
    }
    gc(&[]);
    assert_eq!(count(), 3, "younger than the grace time");
    gc(&["--grace", "1d", "--dry-run"]);
    assert_eq!(count(), 3, "only said");
    let said = gc(&["--grace", "1d"]);
    assert_eq!(count(), 0, "{said}");
    assert_eq!(files(&shared, "/objects/").len(), 0, "{said}");
    // Ana knows that her uploads are gone, and uploads again.
    ana.space.write("p.toml", &pipeline("two"));
    ana.exec(&[]);
    assert_eq!(count(), 3);
    ben.space.write("p.toml", &pipeline("two"));
    all(&ben.exec(&[]).1, "hit");
}
