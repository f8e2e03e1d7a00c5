//! `runner log`: earlier runs, newest first.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use serde_json::json;

use super::{Exit, open_store, page::when, print, print_json};
use crate::{
    cli::Global,
    run::{RunEntry, all},
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
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Lists runs, or shows one.
pub(super) fn run(args: &LogArgs, global: &Global) -> Result<ExitCode> {
    let store = open_store(global, None)?;
    let mut runs = all(&store)?;
    runs.reverse();
    if let Some(name) = &args.run {
        let Some((id, entry)) = runs.iter().find(|(id, _)| id.starts_with(name.as_str())) else {
            return Err(Exit::usage(format!(
                "there is no run `{name}`\nhint: `runner log` lists them"
            )));
        };
        if args.json {
            print_json(&json!({"run": id, "entry": entry}))?;
        } else {
            print(&in_full(id, entry))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    runs.retain(|(_, entry)| {
        args.pipeline
            .as_ref()
            .is_none_or(|name| *name == entry.pipeline)
    });
    runs.truncate(args.number);
    if args.json {
        let list: Vec<_> = runs
            .iter()
            .map(|(id, entry)| json!({"run": id, "entry": entry}))
            .collect();
        print_json(&list)?;
    } else if runs.is_empty() {
        print("no runs yet\n")?;
    } else {
        let text: String = runs
            .iter()
            .map(|(id, entry)| in_a_line(id, entry))
            .collect();
        print(&text)?;
    }
    Ok(ExitCode::SUCCESS)
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

fn in_a_line(id: &str, entry: &RunEntry) -> String {
    format!(
        "{id}  {}  {:<12} {:>7.1} s  {}\n",
        when(entry.started),
        entry.pipeline,
        entry.seconds,
        counts(entry)
    )
}

fn in_full(id: &str, entry: &RunEntry) -> String {
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
    for (name, node) in &entry.nodes {
        let key = node.key.map(|key| key.short()).unwrap_or_default();
        text.push_str(&format!(
            "{:<8} {key:<8} {:>7.1} s  {name}",
            node.state, node.seconds
        ));
        if !node.why.is_empty() {
            text.push_str(&format!(": {}", node.why));
        }
        text.push('\n');
    }
    text
}
