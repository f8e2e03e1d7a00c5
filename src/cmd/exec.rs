//! `runner exec`: run what changed and print the result tables.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::IsTerminal,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use clap::Args;
use serde_json::{Value, json};

use super::{
    Exit, NODE_FAILED, PipelineArgs, STOPPED, load, load_with, nodes_called, open_to_write, page,
    print, print_json, say,
    shared::{self, Shared},
    with_upstream,
};
use crate::{
    cli::Global,
    digest::FileMemo,
    models::device,
    node::DeviceChoice,
    pipeline::{Graph, NodeId},
    project::Project,
    report::{EventLog, Plain, Progress, Sink, words::size},
    run::{
        self, Event, Outcome, Results, RunEntry, RunNode, Settings, State, UpToDate, index_name,
    },
    store::Store,
};

/// Arguments of `exec`.
#[derive(Args, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of the command line"
)]
pub struct ExecArgs {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// Where models run: auto, cpu or cuda:N.
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    device: String,
    /// Run only these nodes; what they need must be in the store.
    #[arg(long, value_name = "NODE", conflicts_with = "until")]
    only: Vec<String>,
    /// Run these nodes and what they need, nothing else.
    #[arg(long, value_name = "NODE")]
    until: Vec<String>,
    /// Run these nodes even if the store has their results.
    #[arg(long, value_name = "NODE")]
    force: Vec<String>,
    /// Compute what somebody else computes at this moment, instead of waiting for it.
    #[arg(long)]
    no_wait: bool,
    /// Do not wait for uploads to the shared caches: another process goes on with them.
    #[arg(long)]
    detach_uploads: bool,
    /// Write every event as a line of JSON.
    #[arg(long, value_name = "FILE")]
    events: Option<PathBuf>,
    /// Print the tables as JSON.
    #[arg(long)]
    json: bool,
    /// Say only what went wrong.
    #[arg(short, long)]
    quiet: bool,
}

/// Set by the first interrupt; the second one ends the process.
static STOP: AtomicBool = AtomicBool::new(false);

/// Loads, opens the store, runs, prints.
pub(super) fn run(args: &ExecArgs, global: &Global) -> Result<ExitCode> {
    let began = SystemTime::now();
    if !args.pipeline.file.is_file() {
        // Tells that, and makes no store for a mistyped name.
        load(&args.pipeline)?;
    }
    let store = open_to_write(global, Some(&args.pipeline.file))?;
    let index = index_name(&args.pipeline.file, &what_matters(args, global));
    if args.force.is_empty()
        && args.events.is_none()
        && let Some(done) = UpToDate::load(&store, &index)
    {
        return nothing_to_do(args, &done);
    }
    let project = Project::load(&shared::root(Some(&args.pipeline.file)))?;
    shared::connect(&store, &project, global)?;
    let shared = Shared { store, project };
    shared::check_required(&shared)?;
    let store = shared.store;
    let graph = load_with(&args.pipeline, store.is_shared())?;
    let memo = FileMemo::open_default();
    let settings = settings(args, &graph)?;
    check_only(args, &graph, &store, &memo)?;
    let outcome = watch(
        args.events.as_deref(),
        args.quiet,
        global,
        &graph,
        &store,
        &memo,
        &settings,
    )?;
    let _ = memo.save();
    let seconds = began
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let mut entry = entry(args, &graph, &outcome, &settings, seconds);
    let page = page::of_run(&graph, &store, &outcome, &entry, &settings.run);
    entry.tables = serde_json::to_value(&page.tables)?;
    let mut saved = Ok(());
    if worth_a_line(&outcome) {
        let run = serde_json::to_value(&entry)?;
        saved = store.save_run(&settings.run, &run);
        store.share_run(&settings.run, &run);
    }
    // Whoever waited for a table sees it, even where the disk has no room for a report.
    let printed = page::printed(&page);
    if args.json {
        print_json(&printed.json)?;
    } else {
        print(&printed.text)?;
    }
    saved?;
    let report = page::write(&page, &store, &graph)?;
    tell(args, &format!("report: {}", report.display()));
    let uploaded = uploads(args, global, &store)?;
    let (_, _, failed, blocked) = outcome.counts();
    collect(args, &store, &shared.project);
    if outcome.stopped {
        tell(args, &resume(&outcome));
        return Ok(ExitCode::from(STOPPED));
    }
    let unread = page::unread(&page);
    for line in &unread {
        say(&format!("error: {line}"));
    }
    if !unread.is_empty() {
        say("hint: run the same again: what cannot be read is computed anew");
    }
    if failed > 0 || !unread.is_empty() {
        return Ok(ExitCode::from(NODE_FAILED));
    }
    if blocked == 0
        && args.only.is_empty()
        && uploaded
        // Without data or models nothing tells whether they would change anything.
        && let Ok(leaves) = page::leaf_files(&graph)
    {
        let mut files = graph.files.clone();
        files.extend(leaves);
        files.push(report.clone());
        UpToDate::save(
            &store,
            &index,
            began,
            files,
            Results::of(&outcome),
            (printed.text, printed.json),
            Some(report),
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// Waits for the uploads, or leaves them to another process; says whether nothing is left.
fn uploads(args: &ExecArgs, global: &Global, store: &Store) -> Result<bool> {
    if let Some(reason) = store.cannot_upload() {
        tell(args, &format!("note: {reason}"));
    }
    if args.detach_uploads {
        let left = shared::detach(global, store, &args.pipeline.file)?;
        if left > 0 {
            tell(
                args,
                &format!("{left} results are being uploaded by another process"),
            );
        }
        // What it does is not known here.
        return Ok(left == 0);
    }
    // Whoever stops the run does not want to wait; the next run goes on with what is left.
    let report = shared::finish_uploads(store, &|| STOP.load(Ordering::Relaxed));
    for line in shared::told(&report) {
        tell(args, &line);
    }
    Ok(report.is_complete())
}

/// Once a day, what is older or more than the project's limits allow is collected.
fn collect(args: &ExecArgs, store: &Store, project: &Project) {
    let collected = store.gc_daily(project.limits.max_age, project.limits.max_size);
    let Some(report) = collected else {
        return;
    };
    let bytes = report.records.bytes + report.objects.bytes + report.packs.bytes;
    if report.records.files + report.objects.files + report.packs.files > 0 {
        tell(
            args,
            &format!(
                "collected {} that were not used for long; they lie in trash/ for a day \
                 (limits: `[cache]` in runner.toml; `runner cache pin` keeps results)",
                size(bytes)
            ),
        );
    }
}

/// What on the command line changes what is computed or printed.
fn what_matters(args: &ExecArgs, global: &Global) -> Value {
    json!({
        "shared": shared::what_matters(global, &args.pipeline.file),
        "set": args.pipeline.set, "profile": args.pipeline.profiles,
        "until": args.until, "only": args.only, "cwd": std::env::current_dir().ok(),
    })
}

fn nothing_to_do(args: &ExecArgs, done: &UpToDate) -> Result<ExitCode> {
    if args.json {
        print_json(&done.json)?;
    } else {
        print(&done.printed)?;
    }
    let plural = if done.nodes == 1 { "" } else { "s" };
    tell(
        args,
        &format!(
            "{} node{plural}: all up to date, nothing to run",
            done.nodes
        ),
    );
    if let Some(report) = &done.report {
        tell(args, &format!("report: {}", report.display()));
    }
    Ok(ExitCode::SUCCESS)
}

/// The device called `name`.
pub(super) fn device(name: &str, quiet: bool) -> Result<DeviceChoice> {
    let device = match name {
        "auto" => {
            let (device, line) = device::auto();
            if let Some(line) = line.filter(|_| !quiet) {
                say(&line);
            }
            device
        }
        name => name
            .parse::<DeviceChoice>()
            .map_err(|error| Exit::usage(error.to_string().replace("use cpu", "use auto, cpu")))?,
    };
    device::open(&device)?;
    Ok(device)
}

/// Computes the nodes of `sample` again, which are stored, and compares.
pub(super) fn audit(
    global: &Global,
    graph: &Graph,
    store: &Store,
    memo: &FileMemo,
    sample: BTreeSet<NodeId>,
    device: DeviceChoice,
) -> Result<Outcome> {
    let provenance = provenance(&device);
    let settings = Settings {
        run: run_id(),
        device,
        wanted: Some(with_upstream(graph, &sample)),
        force: BTreeSet::new(),
        audit: sample,
        patient: false,
        provenance,
        stop: &STOP,
    };
    watch(None, false, global, graph, store, memo, &settings)
}

fn settings(args: &ExecArgs, graph: &Graph) -> Result<Settings> {
    let device = device(&args.device, args.quiet)?;
    let wanted = match (args.only.as_slice(), args.until.as_slice()) {
        ([], []) => None,
        ([], until) => Some(with_upstream(graph, &nodes_called(graph, until)?)),
        (only, _) => Some(with_upstream(graph, &nodes_called(graph, only)?)),
    };
    let provenance = provenance(&device);
    Ok(Settings {
        run: run_id(),
        device,
        wanted,
        force: nodes_called(graph, &args.force)?,
        audit: BTreeSet::new(),
        patient: !args.no_wait,
        provenance,
        stop: &STOP,
    })
}

/// `--only` runs nothing but the named nodes: what they need must be there.
fn check_only(args: &ExecArgs, graph: &Graph, store: &Store, memo: &FileMemo) -> Result<()> {
    if args.only.is_empty() {
        return Ok(());
    }
    let only = nodes_called(graph, &args.only)?;
    let upstream = with_upstream(graph, &only);
    let missing: Vec<String> = run::plan(graph, store, memo, Some(&upstream))?
        .into_iter()
        .filter(|(id, plan)| !only.contains(id) && plan.verdict != run::Verdict::Hit)
        .map(|(_, plan)| format!("`{}`", plan.node))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Exit::usage(format!(
        "--only needs the results of {}, which the store does not have\nhint: use --until to run them too",
        missing.join(", ")
    )))
}

/// Runs with everybody who wants to hear of it.
fn watch(
    events: Option<&Path>,
    quiet: bool,
    global: &Global,
    graph: &Graph,
    store: &Store,
    memo: &FileMemo,
    settings: &Settings,
) -> Result<Outcome> {
    let mut sinks: Vec<Box<dyn Sink + Send>> = Vec::new();
    if quiet {
        sinks.push(Box::new(Quiet));
    } else if std::io::stderr().is_terminal() {
        sinks.push(Box::new(Progress::new(global.color.stderr())));
    } else {
        sinks.push(Box::new(Plain::new(std::io::stderr())));
    }
    let mut log = match events {
        Some(path) => {
            let file = fs_err::File::create(path).context("failed to open the file for events")?;
            // Not buffered: whoever follows the file sees each event when it is told.
            Some(EventLog::new(file))
        }
        None => None,
    };
    catch_interrupts()?;
    silence_panics();
    let outcome = run::run(graph, store, memo, settings, &mut |event: Event| {
        sinks.event(&event, graph);
        if let Some(log) = &mut log {
            log.event(&event, graph);
        }
    })?;
    if let Some(log) = log {
        log.finish().context("failed to write the file of events")?;
    }
    Ok(outcome)
}

/// What `--quiet` leaves: failures.
struct Quiet;

impl Sink for Quiet {
    fn event(&mut self, event: &Event, graph: &Graph) {
        if let Event::Failed { node, message } = event {
            say(&format!(
                "error: `{}` failed: {message}",
                graph.node(*node).id
            ));
        }
    }
}

/// The first interrupt asks the run to stop; the second ends the process.
fn catch_interrupts() -> Result<()> {
    ctrlc::set_handler(|| {
        if STOP.swap(true, Ordering::Relaxed) {
            std::process::exit(i32::from(STOPPED));
        }
    })
    .context("failed to catch interrupts")
}

/// A panic in a worker becomes a failed node; its text is in that error.
fn silence_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let name = std::thread::current().name().unwrap_or_default().to_owned();
        if name.starts_with("runner ") {
            tracing::debug!("{info}");
        } else {
            before(info);
        }
    }));
}

/// What is remembered of the run.
fn entry(
    args: &ExecArgs,
    graph: &Graph,
    outcome: &Outcome,
    settings: &Settings,
    started: u64,
) -> RunEntry {
    let nodes: BTreeMap<String, RunNode> = graph
        .ids()
        .zip(&outcome.nodes)
        .filter(|(_, node)| node.state != State::Unwanted)
        .map(|(id, node)| (graph.node(id).id.clone(), run_node(node)))
        .collect();
    RunEntry {
        pipeline: graph.name.clone(),
        file: args.pipeline.file.display().to_string(),
        started,
        seconds: outcome.took.as_secs_f64(),
        command: std::env::args().collect(),
        provenance: settings.provenance.clone(),
        stopped: outcome.stopped,
        nodes,
        tables: Value::Null,
    }
}

fn run_node(node: &run::NodeOutcome) -> RunNode {
    let state = match (node.state, node.hit) {
        (State::Done, true) => "hit",
        (State::Done, false) => "ran",
        (State::Failed, _) => "failed",
        _ => "blocked",
    };
    RunNode {
        state: state.to_owned(),
        key: node.key,
        seconds: node.took.as_secs_f64(),
        items: node.items,
        by: node.by.clone(),
        why: node.error.clone().unwrap_or_else(|| node.why.clone()),
    }
}

/// A run that found everything adds nothing to the history.
fn worth_a_line(outcome: &Outcome) -> bool {
    outcome
        .nodes
        .iter()
        .any(|node| !node.hit && node.state != State::Unwanted)
}

fn resume(outcome: &Outcome) -> String {
    let (hits, ran, _, blocked) = outcome.counts();
    let command: Vec<String> = std::env::args().collect();
    format!(
        "stopped: {} nodes are done and kept, {blocked} are left; every finished batch is kept too\nhint: to resume, run the same again: {}",
        hits + ran,
        command.join(" ")
    )
}

/// A name that sorts by time: `20261123-140501-1a2b`.
fn run_id() -> String {
    let now = jiff::Timestamp::now();
    let salt = std::process::id() ^ now.subsec_nanosecond().unsigned_abs();
    format!("{}-{:04x}", now.strftime("%Y%m%d-%H%M%S"), salt & 0xffff)
}

/// Who computes, where and with what: noted in every record, never in a key.
fn provenance(device: &DeviceChoice) -> Value {
    json!({
        "program": format!("runner {}", env!("CARGO_PKG_VERSION")),
        "device": device.to_string(),
        "burn": "0.22.1",
        "host": rustix::system::uname().nodename().to_string_lossy(),
        "user": std::env::var("USER").ok(),
        "system": format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
    })
}

/// Says something on stderr, unless only errors are wanted.
fn tell(args: &ExecArgs, text: &str) {
    if !args.quiet {
        say(text);
    }
}
