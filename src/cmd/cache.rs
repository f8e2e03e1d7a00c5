//! `runner cache`: what the store holds, whether it is sound, and what may go.

mod audit;
mod push;
mod remote;

use std::{process::ExitCode, time::Duration};

use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::json;

use super::{
    CORRUPT, Exit, PipelineArgs, load, open_store, print, print_json, shared::open_shared,
};
use crate::{
    cli::Global,
    digest::{Digest, FileMemo},
    reading::size::time,
    report::words::{count, size},
    run::{Verdict, plan},
    store::{Count, GcPolicy, GcReport},
};

/// Looking after the store.
#[derive(Subcommand, Debug)]
pub enum CacheCommand {
    /// Count what the store holds.
    Stats(JsonArgs),
    /// Read everything and compare it with its digest; exit 5 if something is damaged.
    ///
    /// What is damaged is moved to `quarantine/`, and the next run computes it
    /// again. `--no-repair` only looks.
    Verify(VerifyArgs),
    /// Collect what was not used for long, or what is too much.
    ///
    /// Results that a pin keeps, and those younger than the grace time, stay.
    /// What is collected lies in `trash/` for a day first.
    ///
    /// Example: runner cache gc --max-age 30d --max-size 50GB --dry-run
    Gc(GcArgs),
    /// Keep the results of a pipeline from collection.
    Pin(PinArgs),
    /// Remove a pin.
    Unpin(UnpinArgs),
    /// List the pins.
    Pins(JsonArgs),
    /// Compute a sample of a pipeline's stored results again and compare; exit 6 if one differs.
    ///
    /// Example: runner cache audit pipelines/table7.toml --sample 2%
    Audit(audit::AuditArgs),
    /// Upload what was computed here and the shared caches lack.
    ///
    /// `exec` does that by itself; this is for what was computed before there was a
    /// shared cache, or while it could not be reached.
    Push(push::PushArgs),
    /// List keys for which different results are known.
    Divergent(JsonArgs),
}

/// Arguments of lists.
#[derive(Args, Debug)]
pub struct JsonArgs {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Arguments of `verify`.
#[derive(Args, Debug)]
pub struct VerifyArgs {
    /// Verify this shared cache instead of the local store; exit 6 if records are not trusted.
    #[arg(long, value_name = "NAME")]
    remote: Option<String>,
    /// Only look: leave what is damaged where it is.
    #[arg(long)]
    no_repair: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Arguments of `gc`.
#[derive(Args, Debug)]
pub struct GcArgs {
    /// Collect in this shared cache instead of the local store, by the time since uploads.
    #[arg(long, value_name = "NAME")]
    remote: Option<String>,
    /// Collect what was last used longer ago: 12h, 30d.
    #[arg(long, value_name = "TIME", value_parser = time)]
    max_age: Option<Duration>,
    /// Collect the longest unused until this is enough: 500MB, 50GB.
    #[arg(long, value_name = "SIZE", value_parser = crate::pipeline::bytes)]
    max_size: Option<u64>,
    /// Keep what was written or used within this time, since a run may need it.
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "7d")]
    grace: Duration,
    /// Only say what would go.
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Delete at once what lies in the trash.
    #[arg(long)]
    empty_trash: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Arguments of `pin`.
#[derive(Args, Debug)]
pub struct PinArgs {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// Name of the pin [default: the pipeline's name].
    #[arg(long)]
    name: Option<String>,
}

/// Arguments of `unpin`.
#[derive(Args, Debug)]
pub struct UnpinArgs {
    /// Name of the pin.
    name: String,
}

/// Runs one of them.
pub(super) fn run(command: &CacheCommand, global: &Global) -> Result<ExitCode> {
    match command {
        CacheCommand::Stats(args) => stats(args, global),
        CacheCommand::Verify(args) => verify(args, global),
        CacheCommand::Gc(args) => gc(args, global),
        CacheCommand::Pin(args) => pin(args, global),
        CacheCommand::Unpin(args) => unpin(args, global),
        CacheCommand::Pins(args) => pins(args, global),
        CacheCommand::Audit(args) => audit::run(args, global),
        CacheCommand::Push(args) => push::push(args, global),
        CacheCommand::Divergent(args) => push::divergent(args, global),
    }
}

fn stats(args: &JsonArgs, global: &Global) -> Result<ExitCode> {
    let store = open_store(global, None)?;
    let stats = store.stats()?;
    if args.json {
        print_json(&json!({"root": store.root(), "stats": stats}))?;
        return Ok(ExitCode::SUCCESS);
    }
    let line =
        |what: &str, c: Count| format!("{what:<11} {:>9}  {:>10}\n", count(c.files), size(c.bytes));
    let mut text = format!("{}\n", store.root().display());
    text.push_str(&line("objects", stats.objects));
    text.push_str(&line("records", stats.records));
    text.push_str(&line("packs", stats.packs));
    text.push_str(&format!("{:<11} {:>9}\n", "items", count(stats.items)));
    text.push_str(&line("runs", stats.runs));
    for (what, c) in [
        ("quarantine", stats.quarantine),
        ("trash", stats.trash),
        ("unfinished", stats.unfinished),
    ] {
        if c.files > 0 {
            text.push_str(&line(what, c));
        }
    }
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn verify(args: &VerifyArgs, global: &Global) -> Result<ExitCode> {
    let bar = indicatif::ProgressBar::new(0).with_style(
        indicatif::ProgressStyle::with_template("verifying {bar:30} {bytes}/{total_bytes} {eta}")
            .unwrap_or_else(|_| indicatif::ProgressStyle::default_bar()),
    );
    if let Some(name) = &args.remote {
        let shared = open_shared(global, None)?;
        return remote::verify(&shared, name, !args.no_repair, args.json, &bar);
    }
    let store = open_store(global, None)?;
    let report = store.verify(!args.no_repair, &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    })?;
    bar.finish_and_clear();
    let code = if report.is_clean() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(CORRUPT)
    };
    if args.json {
        print_json(&report)?;
        return Ok(code);
    }
    let mut text = String::new();
    for problem in &report.problems {
        let mended = if problem.repaired {
            "; moved to quarantine"
        } else {
            ""
        };
        text.push_str(&format!("{}: {}{mended}\n", problem.path, problem.reason));
    }
    text.push_str(&format!(
        "read {} objects, {} records and {} packs ({}): {}\n",
        count(report.objects),
        count(report.records),
        count(report.packs),
        size(report.bytes),
        match report.problems.len() {
            0 => "all sound".to_owned(),
            1 => "1 is damaged".to_owned(),
            n => format!("{n} are damaged"),
        }
    ));
    if !report.is_clean() {
        text.push_str("hint: run your pipelines again; what was damaged is computed anew\n");
    }
    print(&text)?;
    Ok(code)
}

fn gc(args: &GcArgs, global: &Global) -> Result<ExitCode> {
    if args.max_age.is_none() && args.max_size.is_none() && !args.empty_trash {
        return Err(Exit::usage(
            "gc needs a limit\nhint: try `runner cache gc --max-age 30d --dry-run`",
        ));
    }
    let policy = GcPolicy {
        max_age: args.max_age,
        max_size: args.max_size,
        grace: args.grace,
        trash: if args.empty_trash {
            Duration::ZERO
        } else {
            GcPolicy::default().trash
        },
        dry_run: args.dry_run,
    };
    if let Some(name) = &args.remote {
        let shared = open_shared(global, None)?;
        return remote::gc(&shared, name, &policy, args.json);
    }
    let store = open_store(global, None)?;
    let report = store.gc(&policy, &[])?;
    if args.json {
        print_json(&report)?;
    } else {
        print(&told(&report, args.dry_run))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// `collected 3 records (2 KB)`, a line for each.
fn counts(verb: &str, list: &[(&str, Count)]) -> String {
    list.iter()
        .map(|(what, c)| format!("{verb} {} {what} ({})\n", count(c.files), size(c.bytes)))
        .collect()
}

fn told(report: &GcReport, dry: bool) -> String {
    let verb = if dry { "would collect" } else { "collected" };
    let mut text = counts(
        verb,
        &[
            ("records", report.records),
            ("broken records", report.broken),
            ("objects", report.objects),
            ("packs of items", report.packs),
        ],
    );
    if report.emptied.files > 0 {
        let verb = if dry { "would delete" } else { "deleted" };
        text.push_str(&format!(
            "{verb} {} files for good ({})\n",
            count(report.emptied.files),
            size(report.emptied.bytes)
        ));
    }
    text.push_str(&format!(
        "{} files stay ({})\n",
        count(report.kept.files),
        size(report.kept.bytes)
    ));
    text
}

fn pin(args: &PinArgs, global: &Global) -> Result<ExitCode> {
    let graph = load(&args.pipeline)?;
    let store = open_store(global, Some(&args.pipeline.file))?;
    let memo = FileMemo::open_default();
    let plans = plan(&graph, &store, &memo, None)?;
    let _ = memo.save();
    let hits = plans
        .iter()
        .filter(|(_, plan)| plan.verdict == Verdict::Hit);
    let mut keys: Vec<Digest> = hits.clone().filter_map(|(_, plan)| plan.key).collect();
    let nodes = keys.len();
    keys.extend(hits.filter_map(|(_, plan)| plan.space));
    let name = args.name.as_deref().unwrap_or(&graph.name);
    if nodes == 0 {
        return Err(Exit::usage(format!(
            "`{}` has no results to keep\nhint: run it first",
            graph.name
        )));
    }
    store.pin(name, &keys)?;
    print(&format!(
        "pinned {nodes} of {} nodes as `{name}`\n",
        graph.nodes.len()
    ))?;
    Ok(ExitCode::SUCCESS)
}

fn unpin(args: &UnpinArgs, global: &Global) -> Result<ExitCode> {
    let store = open_store(global, None)?;
    if !store.unpin(&args.name)? {
        return Err(Exit::usage(format!(
            "there is no pin `{}`\nhint: `runner cache pins` lists them",
            args.name
        )));
    }
    print(&format!("unpinned `{}`\n", args.name))?;
    Ok(ExitCode::SUCCESS)
}

fn pins(args: &JsonArgs, global: &Global) -> Result<ExitCode> {
    let pins = open_store(global, None)?.pins()?;
    if args.json {
        print_json(&pins)?;
    } else if pins.is_empty() {
        print("no pins\n")?;
    } else {
        let text: String = pins
            .iter()
            .map(|(name, keys)| format!("{name:<24} {} keys\n", keys.len()))
            .collect();
        print(&text)?;
    }
    Ok(ExitCode::SUCCESS)
}
