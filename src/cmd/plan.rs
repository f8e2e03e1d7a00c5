//! `runner plan`: what would run, and why, without running anything.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use serde_json::json;

use super::{
    PipelineArgs, WORK, load_with, nodes_called, print, print_json, shared::open_shared,
    with_upstream,
};
use crate::{
    cli::Global,
    digest::FileMemo,
    report::words::size,
    run::{NodePlan, Verdict, plan},
};

/// Arguments of `plan`.
#[derive(Args, Debug)]
pub struct PlanArgs {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// Only these nodes and what they need.
    #[arg(long, value_name = "NODE")]
    until: Vec<String>,
    /// Exit with 4 when there is work.
    #[arg(long)]
    check: bool,
    /// List the nodes that are up to date too.
    #[arg(short, long)]
    all: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Plans and prints.
pub(super) fn run(args: &PlanArgs, global: &Global) -> Result<ExitCode> {
    let shared = open_shared(global, Some(&args.pipeline.file))?;
    let store = shared.store;
    let graph = load_with(&args.pipeline, store.is_shared())?;
    let wanted = match args.until.as_slice() {
        [] => None,
        names => Some(with_upstream(&graph, &nodes_called(&graph, names)?)),
    };
    let memo = FileMemo::open_default();
    let plans = plan(&graph, &store, &memo, wanted.as_ref())?;
    let _ = memo.save();
    let plans: Vec<NodePlan> = plans.into_iter().map(|(_, plan)| plan).collect();
    let count = |verdict| plans.iter().filter(|plan| plan.verdict == verdict).count();
    let work = plans.len() - count(Verdict::Hit) - count(Verdict::Fetch);
    if args.json {
        print_json(&json!({"pipeline": graph.name, "nodes": plans, "work": work}))?;
    } else {
        let mut text = String::new();
        for plan in &plans {
            if plan.verdict != Verdict::Hit || args.all {
                text.push_str(&line(plan));
                text.push('\n');
            }
        }
        text.push_str(&format!(
            "{} of {} nodes are up to date; {} would run, {} wait for those",
            count(Verdict::Hit),
            plans.len(),
            count(Verdict::Run),
            count(Verdict::Waits),
        ));
        if count(Verdict::Fetch) > 0 {
            let bytes = plans.iter().filter_map(|plan| plan.bytes).sum();
            text.push_str(&format!(
                "; {} come from shared caches ({})",
                count(Verdict::Fetch),
                size(bytes)
            ));
        }
        if count(Verdict::Broken) > 0 {
            text.push_str(&format!(", {} cannot run", count(Verdict::Broken)));
        }
        print(&(text + "\n"))?;
    }
    Ok(if args.check && work > 0 {
        ExitCode::from(WORK)
    } else {
        ExitCode::SUCCESS
    })
}

/// One node in a line: `run    propose@1   temperature 0.5 → 0.9; 10 of 10 items new`.
pub(super) fn line(plan: &NodePlan) -> String {
    let word = match plan.verdict {
        Verdict::Hit => "hit",
        Verdict::Fetch => "fetch",
        Verdict::Run => "run",
        Verdict::Waits => "waits",
        Verdict::Broken => "broken",
    };
    let mut text = format!("{word:<6} {}", plan.node);
    if !plan.why.is_empty() {
        text.push_str(&format!(": {}", plan.why));
    }
    if let (Some(by), Some(bytes)) = (&plan.by, plan.bytes) {
        let much = if bytes == 0 {
            "all of it here".to_owned()
        } else {
            size(bytes)
        };
        text.push_str(&format!("; from {by}, {much}"));
    }
    if let Some(items) = items(plan) {
        text.push_str(&format!("; {items}"));
    }
    text
}

/// `10 of 10 items new`.
pub(super) fn items(plan: &NodePlan) -> Option<String> {
    let (total, found) = plan.items?;
    Some(format!("{} of {total} items new", total - found))
}
