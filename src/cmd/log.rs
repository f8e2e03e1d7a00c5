//! `runner log`: earlier runs, newest first, of everybody who shares a cache.

use std::{collections::HashSet, process::ExitCode};

use anyhow::Result;
use clap::Args;
use serde_json::json;

use super::{Exit, page::when, print, print_json, shared::open_shared};
use crate::{
    cli::Global,
    run::{RunEntry, all},
    store::{RemoteRun, Store},
};

/// Arguments of `log`.
#[derive(Args, Debug)]
pub struct LogArgs {
    /// One run in full, by its name or the start of it.
    run: Option<String>,
    /// Only runs of this pipeline.
    #[arg(short, long, value_name = "NAME")]
    pipeline: Option<String>,
    /// How many to list.
    #[arg(short = 'n', long, default_value_t = 20)]
    number: usize,
    /// Only runs of this machine; teammates' runs in shared caches are left out.
    #[arg(long)]
    local: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// A run: its name, what is known of it, and the key that signed it if it is a teammate's.
pub(super) type Run = (String, RunEntry, Option<String>);

/// At least as many runs of each teammate are looked at.
pub(super) const MOST_ASKED: usize = 100;

/// Lists runs, or shows one.
pub(super) fn run(args: &LogArgs, global: &Global) -> Result<ExitCode> {
    let store = open_shared(global, None)?.store;
    let most = if args.local {
        0
    } else {
        args.number.max(MOST_ASKED)
    };
    let mut runs = everybody(&store, most)?;
    runs.reverse();
    if let Some(name) = &args.run {
        let named = |(id, ..): &&Run| id.starts_with(name.as_str());
        let Some((id, entry, signer)) = runs.iter().find(named) else {
            return Err(Exit::usage(format!(
                "there is no run `{name}`\nhint: `runner log` lists them"
            )));
        };
        if args.json {
            print_json(&json!({"run": id, "signed_by": signer, "entry": entry}))?;
        } else {
            print(&in_full(id, entry, signer.as_deref()))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    runs.retain(|(_, entry, _)| {
        args.pipeline
            .as_ref()
            .is_none_or(|name| *name == entry.pipeline)
    });
    runs.truncate(args.number);
    if args.json {
        let list: Vec<_> = runs
            .iter()
            .map(|(id, entry, signer)| json!({"run": id, "signed_by": signer, "entry": entry}))
            .collect();
        print_json(&list)?;
    } else if runs.is_empty() {
        print("no runs yet\n")?;
    } else {
        let text: String = runs
            .iter()
            .map(|(id, entry, signer)| in_a_line(id, entry, signer.as_deref()))
            .collect();
        print(&text)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// All runs of this machine, and the newest `most` of each teammate; oldest first.
pub(super) fn everybody(store: &Store, most: usize) -> Result<Vec<Run>> {
    let mut runs: Vec<Run> = all(store)?
        .into_iter()
        .map(|(id, entry)| (id, entry, None))
        .collect();
    let mine: HashSet<String> = runs.iter().map(|(id, ..)| id.clone()).collect();
    let theirs = if most == 0 {
        Vec::new()
    } else {
        store.remote_runs(&|id| mine.contains(id), most)
    };
    let read = |run: RemoteRun| {
        let entry = serde_json::from_value(run.run).ok()?;
        Some((run.id, entry, Some(run.signer)))
    };
    runs.extend(theirs.into_iter().filter_map(read));
    runs.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(runs)
}

fn counts(entry: &RunEntry) -> String {
    let count = |state: &str| {
        entry
            .nodes
            .values()
            .filter(|node| node.state == state)
            .count()
    };
    let mut text = format!("{} ran, {} up to date", count("ran"), count("hit"));
    for state in ["failed", "blocked"] {
        if count(state) > 0 {
            text.push_str(&format!(", {} {state}", count(state)));
        }
    }
    if entry.stopped {
        text.push_str(", stopped");
    }
    text
}

fn in_a_line(id: &str, entry: &RunEntry, signer: Option<&str>) -> String {
    let who = signer.or(entry.provenance["user"].as_str()).unwrap_or("-");
    format!(
        "{id}  {}  {who:<10} {:<12} {:>7.1} s  {}\n",
        when(entry.started),
        entry.pipeline,
        entry.seconds,
        counts(entry)
    )
}

fn in_full(id: &str, entry: &RunEntry, signer: Option<&str>) -> String {
    let mut text = format!(
        "run       {id}\npipeline  {} ({})\nstarted   {}\ntook      {:.1} s\ncommand   {}\nby        {} on {} with {}\nnodes     {}\n\n",
        entry.pipeline,
        entry.file,
        when(entry.started),
        entry.seconds,
        entry.command.join(" "),
        entry.provenance["user"].as_str().unwrap_or("?"),
        entry.provenance["host"].as_str().unwrap_or("?"),
        entry.provenance["program"].as_str().unwrap_or("?"),
        counts(entry),
    );
    if let Some(signer) = signer {
        text.push_str(&format!("signed by {signer}\n\n"));
    }
    for (name, node) in &entry.nodes {
        let key = node.key.map(|key| key.short()).unwrap_or_default();
        text.push_str(&format!(
            "{:<8} {key:<8} {:>7.1} s  {name}",
            node.state, node.seconds
        ));
        if let Some(by) = &node.by {
            text.push_str(&format!(" (from {by})"));
        }
        if !node.why.is_empty() {
            text.push_str(&format!(": {}", node.why));
        }
        text.push('\n');
    }
    text
}
