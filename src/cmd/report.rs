//! `runner report`: the HTML page of what the store has, without running anything.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use super::{PipelineArgs, load_with, page, print, say, shared::open_shared};
use crate::{
    artifact::Manifest,
    cli::Global,
    digest::FileMemo,
    report::{RunInfo, State},
    run::{Verdict, plan, record},
};

/// Arguments of `report`.
#[derive(Args, Debug)]
pub struct ReportArgs {
    #[command(flatten)]
    pipeline: PipelineArgs,
}

/// Looks every node up and writes the page; prints where it is.
pub(super) fn run(args: &ReportArgs, global: &Global) -> Result<ExitCode> {
    let shared = open_shared(global, Some(&args.pipeline.file))?;
    let store = shared.store;
    let graph = load_with(&args.pipeline, store.is_shared())?;
    let memo = FileMemo::open_default();
    let plans = plan(&graph, &store, &memo, None)?;
    let _ = memo.save();
    let mut known = Vec::new();
    for (_, plan) in plans {
        let record = match (plan.verdict, plan.key) {
            (Verdict::Hit | Verdict::Fetch, Some(key)) => record(&store, &key)?,
            _ => None,
        };
        let shared = record.as_ref().is_some_and(|(_, signer)| signer.is_some());
        let artifact = record.map(|(record, _)| record.artifact);
        let manifest: Option<Manifest> = match artifact {
            Some(artifact) => store
                .get(&artifact)?
                .and_then(|bytes| serde_json::from_slice(&bytes).ok()),
            None => None,
        };
        known.push(page::Known {
            state: artifact.map(|_| State::Hit),
            manifest: manifest.map(std::sync::Arc::new),
            key: plan.key,
            artifact,
            shared,
            took: None,
            items: None,
            why: plan.why,
            message: None,
        });
    }
    let info = RunInfo {
        version: format!("runner {}", env!("CARGO_PKG_VERSION")),
        ..RunInfo::default()
    };
    let page = page::of_known(&graph, &store, &known, info);
    for line in page::unread(&page) {
        say(&format!("warning: {line}"));
    }
    let written = page::write(&page, &store, &graph)?;
    print(&format!("{}\n", written.display()))?;
    Ok(ExitCode::SUCCESS)
}
