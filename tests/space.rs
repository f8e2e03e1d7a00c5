//! A folder of its own for a test, with the program run inside it.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

/// A temporary project folder.
pub(crate) struct Space {
    folder: tempfile::TempDir,
}

/// What a run of the program gave.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Space {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("runner.toml"), "").unwrap();
        Self { folder }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn cache(&self) -> PathBuf {
        self.path().join("cache")
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> &Self {
        std::fs::write(self.path().join(name), text).unwrap();
        self
    }

    /// A command of the program that sees nothing of this machine's settings.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_runner"));
        command
            .args(args)
            .current_dir(self.path())
            .env_remove("RUNNER_CACHE")
            .env("HOME", self.path().join("home"))
            .env("RUNNER_STATE", self.path().join("state"))
            .env("RUNNER_CONFIG", self.path().join("config"))
            .env("NO_COLOR", "1")
            .stdin(Stdio::null());
        command
    }

    /// Runs the program to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        let Output {
            status,
            stdout,
            stderr,
        } = self.command(args).output().unwrap();
        Ran {
            code: status.code().unwrap_or(-1),
            stdout: String::from_utf8(stdout).unwrap(),
            stderr: String::from_utf8(stderr).unwrap(),
        }
    }

    /// Starts the program and returns at once.
    pub(crate) fn start(&self, args: &[&str]) -> Child {
        self.command(args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    /// Runs `exec` with events; returns what happened to each node: `hit`, `ran`, ….
    pub(crate) fn exec(&self, args: &[&str]) -> (Ran, Vec<(String, String)>) {
        let mut all = vec!["exec"];
        all.extend(args);
        all.extend(["--events", "events.jsonl"]);
        let ran = self.run(&all);
        (ran, self.happened())
    }

    /// Node and event of the last `exec`, for events that end a node.
    pub(crate) fn happened(&self) -> Vec<(String, String)> {
        self.events()
            .into_iter()
            .filter_map(|event| {
                let word = event["event"].as_str()?;
                let node = event["node"].as_str()?;
                ["hit", "ran", "failed", "blocked"]
                    .contains(&word)
                    .then(|| (node.to_owned(), word.to_owned()))
            })
            .collect()
    }

    /// All events of the last `exec`.
    pub(crate) fn events(&self) -> Vec<serde_json::Value> {
        std::fs::read_to_string(self.path().join("events.jsonl"))
            .unwrap_or_default()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

/// What happened to `node`.
pub(crate) fn of<'a>(happened: &'a [(String, String)], node: &str) -> &'a str {
    happened
        .iter()
        .find(|(name, _)| name == node)
        .map_or("nothing", |(_, word)| word)
}
