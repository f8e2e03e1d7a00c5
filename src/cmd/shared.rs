//! The store with the project's shared caches behind it, and what commands say
//! about those.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::{Exit, UNREACHABLE, open_to_write};
use crate::{
    cli::Global,
    digest::Digest,
    pipeline,
    project::{FILE, Project},
    report::words::size,
    store::{RemoteOptions, Store, UploadReport, UploadState},
    trust::Trust,
};

/// Uploads that take longer than this are shown.
const PATIENCE: Duration = Duration::from_secs(1);

/// A store, and the project that it belongs to.
pub(crate) struct Shared {
    pub(crate) store: Store,
    pub(crate) project: Project,
}

/// Opens the store of the project that `pipeline` is in, with its shared caches
/// behind it unless the user is `--offline`.
pub(crate) fn open_shared(global: &Global, pipeline: Option<&Path>) -> Result<Shared> {
    let store = open_to_write(global, pipeline)?;
    let project = Project::load(&root(pipeline))?;
    connect(&store, &project, global)?;
    Ok(Shared { store, project })
}

/// Puts the project's shared caches behind `store`.
pub(crate) fn connect(store: &Store, project: &Project, global: &Global) -> Result<()> {
    if global.offline || project.remotes.is_empty() {
        return Ok(());
    }
    let remotes: Vec<_> = project
        .remotes
        .iter()
        .map(|remote| RemoteOptions {
            name: remote.name.clone(),
            url: remote.url.clone(),
            write: remote.write,
        })
        .collect();
    let trust = match Trust::folder() {
        Some(folder) => Trust::load(&folder)?,
        None => Trust::default(),
    };
    Ok(store.connect(&remotes, &project.root, trust)?)
}

/// Ends the command if a cache that is `required` cannot be reached.
pub(crate) fn check_required(shared: &Shared) -> Result<()> {
    let required = |name: &str| {
        let mut remotes = shared.project.remotes.iter();
        remotes.any(|remote| remote.required && remote.name == name)
    };
    if !shared.project.remotes.iter().any(|remote| remote.required) || !shared.store.is_shared() {
        return Ok(());
    }
    let lost = shared.store.unreachable();
    match lost.into_iter().find(|(name, _)| required(name)) {
        Some((name, reason)) => Err(Exit::with(
            UNREACHABLE,
            format!(
                "the shared cache `{name}` is required, and cannot be used: {reason}\n\
                 hint: `--offline` goes on without it; `required` is said in {FILE}"
            ),
        )),
        None => Ok(()),
    }
}

/// The project's root.
pub(crate) fn root(pipeline: Option<&Path>) -> PathBuf {
    pipeline::project(pipeline.unwrap_or(Path::new("pipeline.toml")))
}

/// What besides the pipeline decides which results are believed: digests of
/// `runner.toml` and `trust.toml`.
pub(crate) fn what_matters(global: &Global, pipeline: &Path) -> Value {
    let digest = |path: PathBuf| fs_err::read(path).ok().map(|bytes| Digest::of(&bytes));
    json!({
        "project": digest(root(Some(pipeline)).join(FILE)),
        "trust": Trust::folder().and_then(|folder| digest(folder.join("trust.toml"))),
        "offline": global.offline,
    })
}

/// Waits for the uploads with a bar, until they are done or the user stops it.
pub(crate) fn finish_uploads(store: &Store, stop: &dyn Fn() -> bool) -> UploadReport {
    let began = Instant::now();
    let mut bar: Option<ProgressBar> = None;
    let report = store.finish_uploads(stop, &mut |state: UploadState| {
        if bar.is_none() && state.left > 0 && began.elapsed() > PATIENCE {
            let style = ProgressStyle::with_template("{spinner} uploading: {msg}");
            let style = style.unwrap_or_else(|_| ProgressStyle::default_spinner());
            bar = Some(ProgressBar::new_spinner().with_style(style));
        }
        if let Some(bar) = &bar {
            let rate = state.bytes as f64 / began.elapsed().as_secs_f64();
            bar.set_message(format!(
                "{} results left, {} so far, {}/s (Ctrl-C goes on later)",
                state.left,
                size(state.bytes),
                size(rate as u64)
            ));
            bar.tick();
        }
    });
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    report
}

/// What became of the uploads, in lines; nothing if there was nothing to do.
pub(crate) fn told(report: &UploadReport) -> Vec<String> {
    let mut lines = Vec::new();
    if report.objects + report.records > 0 {
        lines.push(format!(
            "shared {} results ({}) with your teammates",
            report.records,
            size(report.bytes)
        ));
    }
    for (reason, count) in &report.failed {
        lines.push(format!("warning: {count} uploads failed: {reason}"));
    }
    if report.left > 0 {
        lines.push(format!("{} uploads are left for the next run", report.left));
    }
    lines
}

/// Starts a process of its own that uploads what waits, and goes on without it.
pub(crate) fn detach(global: &Global, store: &Store, pipeline: &Path) -> Result<usize> {
    let pending = store.take_uploads();
    if pending.is_empty() {
        return Ok(0);
    }
    let folder = store.root().join("out");
    fs_err::create_dir_all(&folder)?;
    let list = folder.join(format!("uploads-{}.json", std::process::id()));
    fs_err::write(&list, serde_json::to_vec(&pending)?)?;
    let log = fs_err::File::create(folder.join("uploads.log"))?;
    let mut command = std::process::Command::new(std::env::current_exe()?);
    command
        .args(["cache", "push", "--detached"])
        .arg(&list)
        .arg("--cache")
        .arg(store.root())
        .arg("--for")
        .arg(pipeline)
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(log.into_file());
    if global.verbose > 0 {
        command.arg("-v");
    }
    // It lives on when the terminal is closed.
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command
        .spawn()
        .context("failed to start the process that uploads")?;
    Ok(pending.len())
}
