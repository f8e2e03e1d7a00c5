//! The commands, one a file, and what they share: opening pipeline and store,
//! and turning errors into exit codes.

mod cache;
mod check;
mod completions;
mod diff;
mod exec;
mod fetch;
mod graph;
mod key;
mod kinds;
mod log;
mod new;
mod page;
mod plan;
mod remote;
mod report;
mod shared;
mod show;
mod why;

use std::{
    collections::BTreeSet,
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Result, anyhow, bail};
use clap::{Args, Subcommand};

use crate::{
    cli::Global,
    diagnostic::Diagnostics,
    digest::Digest,
    pipeline::{self, Graph, NodeId},
    report::check_tables,
    store::{Store, advice},
};

/// A node failed.
pub(crate) const NODE_FAILED: u8 = 1;
/// The command line is wrong.
pub(crate) const USAGE: u8 = 2;
/// The pipeline file is wrong.
pub(crate) const PIPELINE: u8 = 3;
/// `plan --check` found work.
pub(crate) const WORK: u8 = 4;
/// `cache verify` found corruption.
pub(crate) const CORRUPT: u8 = 5;
/// `cache verify` or `cache audit` found records that are not to be trusted.
pub(crate) const UNTRUSTED: u8 = 6;
/// A shared cache that is `required` cannot be reached.
pub(crate) const UNREACHABLE: u8 = 7;
/// The user stopped the run.
pub(crate) const STOPPED: u8 = 8;

/// Every command.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run what changed and print the result tables.
    Exec(exec::ExecArgs),
    /// Say what would run, and why, without running it.
    Plan(plan::PlanArgs),
    /// Explain why one node would run, or why it would not.
    Why(why::WhyArgs),
    /// Check a pipeline file; no model is loaded.
    Check(check::CheckArgs),
    /// Draw the graph as text, Mermaid, DOT or SVG.
    Graph(graph::GraphArgs),
    /// Show a node's result, or write its files to a folder.
    Show(show::ShowArgs),
    /// List earlier runs.
    Log(log::LogArgs),
    /// Say what differs between two runs.
    Diff(diff::DiffArgs),
    /// Write the HTML report of what the store has.
    Report(report::ReportArgs),
    /// Describe the kinds of nodes; print the schema for editors.
    Kinds(kinds::KindsArgs),
    /// Download the models and data that a pipeline names.
    Fetch(fetch::FetchArgs),
    /// Write a first pipeline, with a comment on everything in it.
    New(new::NewArgs),
    /// Share results: name folders and buckets in the project's `runner.toml`.
    #[command(subcommand)]
    Remote(remote::RemoteCommand),
    /// Look after the store.
    #[command(subcommand)]
    Cache(cache::CacheCommand),
    /// Make your key, and say whose results you believe.
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Print completions for a shell.
    Completions(completions::CompletionsArgs),
}

/// Which pipeline, with which parameters.
#[derive(Args, Debug, Clone)]
pub struct PipelineArgs {
    /// The pipeline file.
    pub file: PathBuf,
    /// Set a parameter: -s temperature=0.9. On a swept parameter it replaces the sweep.
    #[arg(short = 's', long = "set", value_name = "NAME=VALUE")]
    pub set: Vec<String>,
    /// Lay [profiles.NAME] over the file: --profile demo. Several are laid in order.
    #[arg(short, long = "profile", value_name = "NAME", value_delimiter = ',')]
    pub profiles: Vec<String>,
}

/// An error that has its own exit code.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Exit {
    /// The exit code.
    pub(crate) code: u8,
    /// What to tell; nothing when empty.
    pub(crate) message: String,
}

impl Exit {
    /// An error of the command line.
    pub(crate) fn usage(message: impl Into<String>) -> anyhow::Error {
        Self::with(USAGE, message)
    }

    /// An error with the exit code `code`.
    pub(crate) fn with(code: u8, message: impl Into<String>) -> anyhow::Error {
        anyhow!(Self {
            code,
            message: message.into(),
        })
    }
}

/// Runs `command`; prints its error.
pub(crate) fn dispatch(command: Command, global: &Global) -> ExitCode {
    let result = match command {
        Command::Exec(args) => exec::run(&args, global),
        Command::Plan(args) => plan::run(&args, global),
        Command::Why(args) => why::run(&args, global),
        Command::Check(args) => check::run(&args, global),
        Command::Graph(args) => graph::run(&args, global),
        Command::Show(args) => show::run(&args, global),
        Command::Log(args) => log::run(&args, global),
        Command::Diff(args) => diff::run(&args, global),
        Command::Fetch(args) => fetch::run(&args, global),
        Command::Report(args) => report::run(&args, global),
        Command::Kinds(args) => kinds::run(&args, global),
        Command::New(args) => new::run(&args),
        Command::Remote(command) => remote::run(&command),
        Command::Cache(command) => cache::run(&command, global),
        Command::Key(command) => key::run(&command),
        Command::Completions(args) => completions::run(&args),
    };
    match result {
        Ok(code) => code,
        Err(error) => fail(&error, global),
    }
}

/// Prints `error` and gives its exit code.
fn fail(error: &anyhow::Error, global: &Global) -> ExitCode {
    if let Some(io) = error.downcast_ref::<std::io::Error>()
        && io.kind() == std::io::ErrorKind::BrokenPipe
    {
        return ExitCode::SUCCESS;
    }
    if let Some(diagnostics) = error.downcast_ref::<Diagnostics>() {
        let text = diagnostics.render(global.color.stderr(), 100);
        say(text.strip_suffix('\n').unwrap_or(&text));
        return ExitCode::from(PIPELINE);
    }
    let exit = error.downcast_ref::<Exit>();
    let mut text = format!("{error:#}");
    if !text.contains("hint: ") {
        let mut causes = error.chain().filter_map(|cause| cause.downcast_ref());
        if let Some(hint) = causes.find_map(advice) {
            text.push_str(&format!("\nhint: {hint}"));
        }
    }
    if !text.is_empty() {
        say(&format!("error: {text}"));
    }
    ExitCode::from(exit.map_or(NODE_FAILED, |exit| exit.code))
}

/// Writes a line to stderr. Where that fails, as with a log file on a full disk, nobody can be
/// told, and a run does not end for it.
pub(crate) fn say(line: &str) {
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// Writes `text` to stdout.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// Writes `value` to stdout as indented JSON.
pub(crate) fn print_json<T: serde::Serialize>(value: &T) -> Result<()> {
    print(&(serde_json::to_string_pretty(value)? + "\n"))
}

/// What the command line says about the pipeline that `args` name.
pub(crate) fn options(args: &PipelineArgs) -> Result<pipeline::Options> {
    let mut set = Vec::new();
    for text in &args.set {
        let Some((name, value)) = text.split_once('=') else {
            return Err(Exit::usage(format!(
                "`-s {text}` has no `=`\nhint: write -s name=value, such as -s temperature=0.9"
            )));
        };
        set.push((name.trim().to_owned(), value.to_owned()));
    }
    Ok(pipeline::Options {
        set,
        profiles: args.profiles.clone(),
        absent: false,
    })
}

/// Loads the pipeline that `args` name.
pub(crate) fn load(args: &PipelineArgs) -> Result<Graph> {
    load_with(args, false)
}

/// Loads the pipeline that `args` name; with `absent` its data and models need
/// not be here, since a shared cache may have the results.
pub(crate) fn load_with(args: &PipelineArgs, absent: bool) -> Result<Graph> {
    let options = pipeline::Options {
        absent,
        ..options(args)?
    };
    let graph = pipeline::load(&args.file, &options)?;
    let problems = check_tables(&graph);
    if problems.is_empty() {
        return Ok(graph);
    }
    let message: Vec<String> = problems
        .iter()
        .map(|problem| {
            let hint = problem.hint.iter().map(|hint| format!("\nhint: {hint}"));
            format!(
                "table `{}`: {}{}",
                problem.table,
                problem.message,
                hint.collect::<String>()
            )
        })
        .collect();
    Err(anyhow!(Exit {
        code: PIPELINE,
        message: message.join("\nerror: "),
    }))
}

/// The folder of the store: `--cache` or `RUNNER_CACHE`, else `cache` in the
/// root of the project that `pipeline` is in.
pub(crate) fn store_folder(global: &Global, pipeline: Option<&Path>) -> PathBuf {
    global.cache.clone().unwrap_or_else(|| match pipeline {
        Some(path) => pipeline::project(path).join("cache"),
        None => pipeline::project(Path::new("pipeline.toml")).join("cache"),
    })
}

/// Opens the store to compute in it. One that can only be read gets a folder of
/// the user's own over it.
pub(crate) fn open_to_write(global: &Global, pipeline: Option<&Path>) -> Result<Store> {
    let store = open_store(global, pipeline)?;
    if !store.read_only() {
        return Ok(store);
    }
    let Some(state) = crate::digest::state_folder() else {
        return Ok(store);
    };
    let name = Digest::of(store.root().as_os_str().as_encoded_bytes()).to_string();
    let over = Store::open(&state.join("over").join(&name[..16]))?;
    tracing::warn!(
        "the cache `{}` can only be read: what is computed goes to `{}`",
        store.root().display(),
        over.root().display()
    );
    over.put_over(store);
    Ok(over)
}

/// Opens the store.
pub(crate) fn open_store(global: &Global, pipeline: Option<&Path>) -> Result<Store> {
    Ok(Store::open(&store_folder(global, pipeline))?)
}

/// The nodes that `names` mean: an instance (`eval@2`), or all instances of a
/// node (`eval`, `refine.propose`).
pub(crate) fn nodes_called(graph: &Graph, names: &[String]) -> Result<BTreeSet<NodeId>> {
    let mut found = BTreeSet::new();
    for name in names {
        let before = found.len();
        found.extend(graph.ids().filter(|id| {
            let node = graph.node(*id);
            node.id == *name || node.name == *name || node.name.rsplit('.').next() == Some(name)
        }));
        if found.len() == before {
            let ids = graph
                .nodes
                .iter()
                .flat_map(|node| [node.id.as_str(), node.name.as_str()]);
            let hint = pipeline::nearest(name, ids).map_or_else(
                || "`runner graph` lists all nodes".to_owned(),
                |close| format!("did you mean `{close}`?"),
            );
            return Err(Exit::usage(format!(
                "there is no node `{name}`\nhint: {hint}"
            )));
        }
    }
    Ok(found)
}

/// The one node that `name` means.
pub(crate) fn node_called(graph: &Graph, name: &str) -> Result<NodeId> {
    let found = nodes_called(graph, &[name.to_owned()])?;
    if found.len() > 1
        && let Some(exact) = found.iter().find(|id| graph.node(**id).id == name)
    {
        return Ok(*exact);
    }
    let mut ids = found.iter();
    match (ids.next(), ids.next()) {
        (Some(id), None) => Ok(*id),
        _ => {
            let list: Vec<&str> = found
                .iter()
                .take(8)
                .map(|id| graph.node(*id).id.as_str())
                .collect();
            bail!(Exit {
                code: USAGE,
                message: format!(
                    "`{name}` has {} instances\nhint: name one of them: {}",
                    found.len(),
                    list.join(", ")
                ),
            })
        }
    }
}

/// `wanted` and everything that it needs.
pub(crate) fn with_upstream(graph: &Graph, wanted: &BTreeSet<NodeId>) -> BTreeSet<NodeId> {
    let mut all = wanted.clone();
    // Every node comes after those it needs.
    for id in graph.ids().rev() {
        if all.contains(&id) {
            all.extend(&graph.dependencies[id.index()]);
        }
    }
    all
}
