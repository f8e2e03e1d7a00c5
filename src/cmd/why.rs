//! `runner why`: why one node would run, or why not, down to the root cause.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};

use super::{
    PipelineArgs, load_with, node_called, plan::items, print, print_json, shared::open_shared,
    with_upstream,
};
use crate::{
    cli::Global,
    digest::FileMemo,
    run::{NodePlan, Verdict, plan},
};

/// Arguments of `why`.
#[derive(Args, Debug)]
pub struct WhyArgs {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// The node: `eval@2`, `refine.propose@1`.
    node: String,
    /// Print JSON, with everything that the key is made of.
    #[arg(long)]
    json: bool,
}

/// Explains one node.
pub(super) fn run(args: &WhyArgs, global: &Global) -> Result<ExitCode> {
    let shared = open_shared(global, Some(&args.pipeline.file))?;
    let store = shared.store;
    let graph = load_with(&args.pipeline, store.is_shared())?;
    let id = node_called(&graph, &args.node)?;
    let upstream = with_upstream(&graph, &[id].into());
    let memo = FileMemo::open_default();
    let plans = plan(&graph, &store, &memo, Some(&upstream))?;
    let Some((_, this)) = plans.iter().find(|(node, _)| *node == id) else {
        return Ok(ExitCode::SUCCESS);
    };
    let roots: Vec<&NodePlan> = plans
        .iter()
        .filter(|(node, plan)| {
            *node != id && matches!(plan.verdict, Verdict::Run | Verdict::Broken)
        })
        .map(|(_, plan)| plan)
        .collect();
    if args.json {
        print_json(&json!({
            "node": this, "because_of": roots,
            "fingerprint": this.fingerprint.as_ref().map(|f| &f.content),
        }))?;
    } else {
        print(&explain(this, &roots))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn explain(this: &NodePlan, roots: &[&NodePlan]) -> String {
    let mut text = match this.verdict {
        Verdict::Hit => format!(
            "`{}` is up to date: nothing that counts in its key changed.\n",
            this.node
        ),
        Verdict::Fetch => format!(
            "`{}` comes from a shared cache: `{}` computed it.\n",
            this.node,
            this.by.as_deref().unwrap_or("somebody")
        ),
        Verdict::Run => {
            let items = items(this)
                .map(|items| format!("; {items}"))
                .unwrap_or_default();
            format!("`{}` would run: {}{items}.\n", this.node, this.why)
        }
        Verdict::Waits => format!(
            "`{}` {}; whether it runs depends on what they give.\n",
            this.node, this.why
        ),
        Verdict::Broken => format!("`{}` cannot run: {}.\n", this.node, this.why),
    };
    if this.verdict == Verdict::Waits {
        text.push_str("Root causes:\n");
        for root in roots {
            let items = items(root)
                .map(|items| format!("; {items}"))
                .unwrap_or_default();
            text.push_str(&format!("  `{}`: {}{items}\n", root.node, root.why));
        }
    }
    if let (Some(key), Some(fingerprint)) = (this.key, &this.fingerprint) {
        text.push_str(&format!("key    {key}\n"));
        text.push_str(&counts(&fingerprint.content));
    }
    text
}

/// What the key is made of, a line each.
fn counts(content: &Value) -> String {
    let mut text = format!(
        "kind   {} version {}\n",
        content["kind"].as_str().unwrap_or("?"),
        content["version"]
    );
    for (name, value) in content["params"].as_object().into_iter().flatten() {
        let value = value.to_string();
        let shown: String = value.chars().take(100).collect();
        let dots = if shown.len() < value.len() { "…" } else { "" };
        text.push_str(&format!("param  {name} = {shown}{dots}\n"));
    }
    for (port, entries) in content["inputs"].as_object().into_iter().flatten() {
        for entry in entries.as_array().into_iter().flatten() {
            for (part, digest) in entry.as_object().into_iter().flatten() {
                let digest = digest.as_str().unwrap_or("?");
                text.push_str(&format!(
                    "input  {port}.{part} = {}\n",
                    digest.get(..16).unwrap_or(digest)
                ));
            }
        }
    }
    text
}
