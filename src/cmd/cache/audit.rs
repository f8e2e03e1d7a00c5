//! `runner cache audit`: computes a sample of stored results again and compares
//! them, byte for byte: the one way to find a machine that computes wrongly.

use std::{collections::BTreeSet, process::ExitCode};

use anyhow::Result;
use clap::Args;
use serde_json::json;

use super::super::{
    PipelineArgs, UNTRUSTED, exec, load_with, print, print_json, shared::open_shared,
};
use crate::{
    cli::Global,
    digest::{Digest, FileMemo},
    node::DeviceChoice,
    pipeline::NodeId,
    run::{Verdict, plan},
};

/// Arguments of `audit`.
#[derive(Args, Debug)]
pub struct AuditArgs {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// How many of the stored results: 2%, or a number of nodes.
    #[arg(long, default_value = "2%", value_name = "SHARE", value_parser = share)]
    sample: Share,
    /// Only results that came from teammates.
    #[arg(long)]
    shared: bool,
    /// Where models run: auto, cpu or cuda:N.
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    device: String,
    /// Draws another sample.
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// How much is sampled.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Share {
    Percent(f64),
    Nodes(usize),
}

fn share(text: &str) -> Result<Share, String> {
    let wrong = || format!("`{text}` is no share; write 2% or a number of nodes");
    match text.strip_suffix('%') {
        Some(number) => number
            .trim()
            .parse()
            .ok()
            .filter(|percent| (0.0..=100.0).contains(percent))
            .map(Share::Percent)
            .ok_or_else(wrong),
        None => text.parse().map(Share::Nodes).map_err(|_| wrong()),
    }
}

/// Computes the sample again and compares.
pub(super) fn run(args: &AuditArgs, global: &Global) -> Result<ExitCode> {
    let shared = open_shared(global, Some(&args.pipeline.file))?;
    let store = &shared.store;
    let graph = load_with(&args.pipeline, false)?;
    let memo = FileMemo::open_default();
    let plans = plan(&graph, store, &memo, None)?;
    let mut stored: Vec<(NodeId, Digest, Option<String>)> = plans
        .into_iter()
        .filter(|(_, plan)| match plan.verdict {
            Verdict::Fetch => true,
            Verdict::Hit => !args.shared,
            _ => false,
        })
        .filter_map(|(id, plan)| Some((id, plan.key?, plan.by)))
        .collect();
    let all = stored.len();
    let seed = args.seed.unwrap_or_else(|| {
        let now = jiff::Timestamp::now();
        now.as_second().unsigned_abs()
    });
    // In an order that nobody who made a result could know.
    stored.sort_by_key(|(_, key, _)| {
        Digest::derived("runner audit v1", format!("{seed} {key}").as_bytes())
    });
    let count = match args.sample {
        Share::Percent(percent) => (all as f64 * percent / 100.0).ceil() as usize,
        Share::Nodes(nodes) => nodes,
    };
    stored.truncate(count);
    let sample: BTreeSet<NodeId> = stored.iter().map(|(id, ..)| *id).collect();
    let device: DeviceChoice = exec::device(&args.device, true)?;
    let outcome = exec::audit(global, &graph, store, &memo, sample.clone(), device)?;
    let _ = memo.save();
    let mut same = 0;
    let mut other = Vec::new();
    let mut failed = Vec::new();
    for (id, key, by) in &stored {
        let name = &graph.node(*id).id;
        let node = &outcome.nodes[id.index()];
        match node.audit {
            Some(true) => same += 1,
            Some(false) => other.push((name, key, by)),
            None => failed.push((name, node.error.clone().unwrap_or_default())),
        }
    }
    if args.json {
        let nodes = |(name, key, by): &(&String, &Digest, &Option<String>)| json!({"node": name, "key": key, "by": by});
        print_json(&json!({
            "stored": all, "sampled": sample.len(), "same": same, "seed": seed,
            "other": other.iter().map(nodes).collect::<Vec<_>>(),
            "failed": failed,
        }))?;
    } else {
        let mut text = String::new();
        for (name, key, by) in &other {
            let by = by
                .as_deref()
                .map_or(String::new(), |by| format!(", signed by {by}"));
            text.push_str(&format!(
                "{name}: computed again, it gives OTHER bytes (key {}{by})\n",
                key.short()
            ));
        }
        for (name, error) in &failed {
            text.push_str(&format!("{name}: could not be computed again: {error}\n"));
        }
        text.push_str(&format!(
            "{same} of {} sampled results (of {all} stored) are the same, byte for byte\n",
            sample.len()
        ));
        if !other.is_empty() {
            text.push_str(
                "hint: other devices and thread counts can differ in the last bit; `runner cache \
                 divergent` lists both results, `runner exec --force NODE` keeps yours\n",
            );
        }
        print(&text)?;
    }
    Ok(match (other.is_empty(), failed.is_empty()) {
        (false, _) => ExitCode::from(UNTRUSTED),
        (true, false) => ExitCode::from(super::super::NODE_FAILED),
        (true, true) => ExitCode::SUCCESS,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_percents_or_numbers() {
        assert_eq!(share("2%"), Ok(Share::Percent(2.0)));
        assert_eq!(share("7"), Ok(Share::Nodes(7)));
        for wrong in ["", "%", "101%", "-1", "two"] {
            assert!(share(wrong).is_err(), "{wrong}");
        }
    }
}
