//! `runner fetch`: downloads the models and data that a pipeline names.

use std::{
    collections::BTreeMap,
    process::ExitCode,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Context, Result};
use clap::Args;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::{Exit, NODE_FAILED, PipelineArgs, STOPPED, options, print, say};
use crate::{
    cli::Global,
    fetch::{Event, Job, Settings, Stopped, by_hand, fetch},
    pipeline::downloads,
    report::words,
};

/// Download the models and data that a pipeline names.
///
/// Brings what is missing of each entry with `fetch` to the entry's `path`, checks
/// every byte, and goes on where an earlier fetch was interrupted. Files that are
/// there and right are left alone. `HF_TOKEN` holds the token for gated models,
/// `HF_ENDPOINT` the address of a mirror.
#[derive(Args, Debug)]
pub struct FetchArgs {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// Only these entries, such as `models.clip` or `data.cifar10`.
    entries: Vec<String>,
    /// Replace existing files that are not the right ones.
    #[arg(long)]
    force: bool,
    /// Download nothing; say what to download by hand and where to put it.
    #[arg(long)]
    print: bool,
    /// Files under way at a time.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=64))]
    parallel: u8,
}

/// Fetches each entry; what one lacks does not keep the others from being fetched.
pub(super) fn run(args: &FetchArgs, _: &Global) -> Result<ExitCode> {
    let jobs = chosen(args)?;
    let settings = Settings {
        force: args.force,
        parallel: usize::from(args.parallel),
        ..Settings::from_env()?
    };
    if args.print {
        let texts: Vec<String> = jobs.iter().map(|job| by_hand(job, &settings)).collect();
        print(&format!("{}\n", texts.join("\n\n").trim_end()))?;
        return Ok(ExitCode::SUCCESS);
    }
    let stopped = Arc::new(AtomicBool::new(false));
    let flag = stopped.clone();
    ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed))
        .context("failed to listen for an interrupt")?;
    let mut failed = Vec::new();
    for job in &jobs {
        let screen = Screen::new(&job.name);
        let result = fetch(job, &settings, &|event| screen.show(event), &|| {
            stopped.load(Ordering::Relaxed)
        });
        screen.end();
        match result {
            Ok(outcome) => {
                let new = outcome.files.iter().filter(|file| !file.present).count();
                let size: u64 = outcome.files.iter().map(|file| file.size).sum();
                print(&format!(
                    "{}: {} in `{}`, {} of them new\n",
                    job.name,
                    words::counted(outcome.files.len(), "file"),
                    job.to.display(),
                    words::count(new as u64),
                ))?;
                tracing::debug!(entry = job.name, size, "fetched");
            }
            Err(error) if error.is::<Stopped>() => {
                return Err(Exit::with(STOPPED, format!("{error:#}")));
            }
            Err(error) => failed.push(format!("{}: {error:#}", job.name)),
        }
    }
    if failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    Err(Exit::with(NODE_FAILED, failed.join("\nerror: ")))
}

/// The jobs that the command line asks for.
fn chosen(args: &FetchArgs) -> Result<Vec<Job>> {
    let jobs = downloads(&args.pipeline.file, &options(&args.pipeline)?)?;
    if jobs.is_empty() {
        return Err(Exit::usage(format!(
            "no entry of `{}` says where its files come from\nhint: add `fetch = {{ url = \"https://…\", sha256 = \"…\" }}` or `fetch = {{ hugging_face = \"owner/name\", revision = \"…\" }}` beside its `path`",
            args.pipeline.file.display()
        )));
    }
    for entry in &args.entries {
        if !jobs.iter().any(|job| job.name == *entry) {
            let known: Vec<&str> = jobs.iter().map(|job| job.name.as_str()).collect();
            return Err(Exit::usage(format!(
                "there is no `{entry}` to fetch\nhint: there are {}",
                known.join(", ")
            )));
        }
    }
    let wanted = |job: &Job| args.entries.is_empty() || args.entries.contains(&job.name);
    Ok(jobs.into_iter().filter(wanted).collect())
}

/// Bars of the files under way, on stderr.
struct Screen {
    bars: MultiProgress,
    files: Mutex<BTreeMap<String, ProgressBar>>,
    job: String,
}

impl Screen {
    fn new(job: &str) -> Self {
        Self {
            bars: MultiProgress::new(),
            files: Mutex::default(),
            job: job.to_owned(),
        }
    }

    /// A line that stays.
    fn line(&self, text: &str) {
        let line = format!("{}: {text}", self.job);
        if self.bars.is_hidden() {
            say(&line);
        } else {
            let _ = self.bars.println(line);
        }
    }

    fn bar(&self, file: &str, total: Option<u64>) -> ProgressBar {
        let mut files = self
            .files
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let bar = files.entry(file.to_owned()).or_insert_with(|| {
            let bar = self.bars.add(ProgressBar::new(0));
            let template = "  {msg} {bar:24} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.set_message(file.to_owned());
            bar
        });
        if let Some(total) = total {
            bar.set_length(total);
        }
        bar.clone()
    }

    fn done(&self, file: &str) {
        let mut files = self
            .files
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(bar) = files.remove(file) {
            bar.finish_and_clear();
        }
    }

    fn end(&self) {
        let _ = self.bars.clear();
    }

    fn show(&self, event: Event) {
        match event {
            Event::Listing { hub, repo } => {
                self.line(&format!("asks {hub} for the files of {repo}"));
            }
            Event::Listed {
                files,
                bytes,
                commit,
            } => {
                let size = bytes.map(|bytes| format!(", {}", words::size(bytes)));
                let commit = commit.map(|commit| format!(" at {commit}"));
                self.line(&format!(
                    "{}{}{}",
                    words::counted(files, "file"),
                    size.unwrap_or_default(),
                    commit.unwrap_or_default()
                ));
            }
            Event::Moving { revision, commit } => self.line(&format!(
                "warning: `{revision}` can move; write revision = \"{commit}\""
            )),
            Event::Checking { file, size } if size > 1 << 26 => {
                self.line(&format!("checks {file}, which is there"));
            }
            Event::Waiting { file } => {
                self.line(&format!(
                    "waits for another fetch, which has {file} under way"
                ));
            }
            Event::Start {
                file,
                size,
                resumed,
            } => {
                if resumed > 0 {
                    self.line(&format!(
                        "goes on with {file} after {}",
                        words::size(resumed)
                    ));
                }
                self.bar(&file, size).set_position(resumed);
            }
            Event::Bytes { file, done, total } => self.bar(&file, total).set_position(done),
            Event::Restart { file, reason } => self.line(&format!("begins {file} anew: {reason}")),
            Event::Retry { file, reason, wait } => self.line(&format!(
                "{file}: {reason}; again in {}",
                words::duration(wait)
            )),
            Event::Verified { file, size, digest } => {
                self.done(&file);
                self.line(&format!("{file}: {}, {digest}", words::size(size)));
            }
            Event::Warning { text } => self.line(&format!("warning: {text}")),
            Event::Checking { .. } | Event::Present { .. } => {}
        }
    }
}
