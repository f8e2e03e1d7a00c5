//! Fetches from servers that behave and misbehave.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
    sync::Mutex,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use super::{
    Event, Job, Outcome, Settings, Source, Stopped, Token, by_hand,
    faulty::{Act, Faulty, Seen},
    fetch,
};

mod hub;
mod refused;
mod single;
mod together;

/// A commit's name.
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// A token that must be in no text.
const TOKEN: &str = "hf_SecretSecretSecret";

/// Bytes without a pattern that could hide a mix-up.
fn bytes(seed: u32, count: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn git_blob(bytes: &[u8]) -> String {
    let mut hasher = Sha1::new();
    hasher.update(format!("blob {}\0", bytes.len()));
    hasher.update(bytes);
    hex(&hasher.finalize())
}

/// Settings whose waits are short.
fn quick() -> Settings {
    Settings {
        read_timeout: Duration::from_secs(2),
        connect_timeout: Duration::from_secs(2),
        backoff: Duration::from_millis(10),
        ..Settings::default()
    }
}

/// Settings for a hub, with a token.
fn quick_hub(server: &Faulty) -> Settings {
    Settings {
        hf_endpoint: server.url(),
        hf_token: Some(Token::new(TOKEN, "`HF_TOKEN`").unwrap()),
        ..quick()
    }
}

/// Runs a job and gives its events, too; neither holds the token.
fn run(job: &Job, settings: &Settings) -> (anyhow::Result<Outcome>, Vec<Event>) {
    let events = Mutex::new(Vec::new());
    let result = fetch(
        job,
        settings,
        &|event| events.lock().unwrap().push(event),
        &|| false,
    );
    let events = events.into_inner().unwrap();
    let text = format!(
        "{result:?} {events:?} {settings:?} {}",
        by_hand(job, settings)
    );
    assert!(!text.contains(&TOKEN[3..11]), "{text}");
    (result, events)
}

fn done(job: &Job, settings: &Settings) -> Outcome {
    run(job, settings).0.unwrap()
}

fn error(job: &Job, settings: &Settings) -> String {
    format!("{:#}", run(job, settings).0.unwrap_err())
}

fn count(events: &[Event], is: impl Fn(&Event) -> bool) -> usize {
    events.iter().filter(|event| is(event)).count()
}

/// A job for one file of a server.
fn single(server: &str, to: &Path, content: &[u8]) -> Job {
    Job {
        name: "data.cifar10".to_owned(),
        source: Source::Url {
            url: format!("{server}/file.bin"),
            sha256: Some(sha256(content)),
            md5: None,
        },
        to: to.to_owned(),
    }
}

/// A job for some files of a hub.
fn repository(to: &Path, files: &[&str]) -> Job {
    Job {
        name: "models.clip".to_owned(),
        source: Source::HuggingFace {
            repo: "owner/name".to_owned(),
            revision: COMMIT.to_owned(),
            files: files.iter().map(ToString::to_string).collect(),
            sha256: BTreeMap::new(),
        },
        to: to.to_owned(),
    }
}

/// An entry of a hub's list: of a large file, or of one in git.
fn entry(path: &str, content: &[u8], lfs: bool) -> Value {
    let mut entry = json!({
        "type": "file",
        "path": path,
        "size": content.len(),
        "oid": git_blob(content),
    });
    if lfs {
        // What git holds of a large file is a pointer with another oid.
        entry["oid"] = json!(git_blob(b"pointer"));
        entry["lfs"] = json!({
            "oid": sha256(content),
            "size": content.len(),
            "pointerSize": 134,
        });
    }
    entry
}

/// A reply with JSON.
fn reply(value: &Value) -> Act {
    Act::Status(
        200,
        "content-type: application/json\r\n".to_owned(),
        value.to_string().into_bytes(),
    )
}

/// All names below a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    fn walk(root: &Path, folder: &Path, names: &mut Vec<String>) {
        let Ok(entries) = std::fs::read_dir(folder) else {
            return;
        };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(root, &path, names);
            } else {
                let name: PathBuf = path.strip_prefix(root).unwrap().into();
                names.push(name.to_string_lossy().into_owned());
            }
        }
    }
    let mut all = Vec::new();
    walk(folder, folder, &mut all);
    all.sort();
    all
}

/// Content, a server that does as told with it, and a folder.
fn scene(act: impl Fn(&Seen, Vec<u8>) -> Act + Send + Sync + 'static) -> Scene {
    let content = bytes(1, 50_000);
    let given = content.clone();
    let server = Faulty::start(move |seen| act(seen, given.clone()));
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("data/file.bin");
    let job = single(&server.url(), &to, &content);
    Scene {
        content,
        server,
        folder,
        job,
    }
}

struct Scene {
    content: Vec<u8>,
    server: Faulty,
    folder: tempfile::TempDir,
    job: Job,
}

impl Scene {
    fn assert_done(&self) {
        assert_eq!(std::fs::read(&self.job.to).unwrap(), self.content);
        assert_eq!(names(self.folder.path()), ["data/file.bin"]);
    }

    fn write(&self, suffix: &str, content: &[u8]) {
        let mut path = self.job.to.clone().into_os_string();
        path.push(suffix);
        std::fs::create_dir_all(self.job.to.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
}
