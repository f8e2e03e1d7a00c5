//! `runner check`: all errors of a pipeline file at once.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use serde_json::json;

use super::{PIPELINE, PipelineArgs, load, print, print_json};
use crate::{cli::Global, diagnostic::Diagnostics, project::Project};

/// Arguments of `check`.
#[derive(Args, Debug)]
pub struct CheckArgs {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// Print errors as JSON.
    #[arg(long)]
    json: bool,
}

/// Loads the pipeline, and its project's `runner.toml`, and says what it holds.
pub(super) fn run(args: &CheckArgs, _: &Global) -> Result<ExitCode> {
    let loaded = load(&args.pipeline).and_then(|graph| {
        Project::load(&graph.root)?;
        Ok(graph)
    });
    let graph = match loaded {
        Ok(graph) => graph,
        Err(error) if args.json && error.is::<Diagnostics>() => {
            if let Some(diagnostics) = error.downcast_ref::<Diagnostics>() {
                print_json(&json!({"ok": false, "errors": diagnostics}))?;
            }
            return Ok(ExitCode::from(PIPELINE));
        }
        Err(error) => return Err(error),
    };
    if args.json {
        print_json(&json!({"ok": true, "name": graph.name, "nodes": graph.nodes.len()}))?;
    } else {
        print(&format!(
            "{}: ok, {} node{}, {} table{}\n",
            args.pipeline.file.display(),
            graph.nodes.len(),
            if graph.nodes.len() == 1 { "" } else { "s" },
            graph.tables.len(),
            if graph.tables.len() == 1 { "" } else { "s" },
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}
