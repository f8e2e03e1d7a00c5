//! `runner graph`: the graph as text, Mermaid, DOT or SVG.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, ValueEnum};

use super::{Exit, PipelineArgs, load, print, print_json};
use crate::{
    cli::Global,
    report::{graph_text, svg},
};

/// Arguments of `graph`.
#[derive(Args, Debug)]
pub struct GraphArgs {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// How to write it.
    #[arg(short, long, value_enum, default_value_t = Form::Text)]
    format: Form,
    /// Print JSON: every instance with its kind, axes and inputs.
    #[arg(long)]
    json: bool,
}

/// A way to write a graph.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Form {
    /// Lines for a terminal.
    Text,
    /// A Mermaid flowchart.
    Mermaid,
    /// Graphviz.
    Dot,
    /// A picture.
    Svg,
}

/// Prints the graph.
pub(super) fn run(args: &GraphArgs, _: &Global) -> Result<ExitCode> {
    let graph = load(&args.pipeline)?;
    if args.json {
        print_json(&graph_text::json(&graph))?;
        return Ok(ExitCode::SUCCESS);
    }
    let text = match args.format {
        Form::Text => graph_text::text(&graph),
        Form::Mermaid => graph_text::mermaid(&graph),
        Form::Dot => graph_text::dot(&graph),
        Form::Svg => svg::graph(&graph).ok_or_else(|| {
            Exit::usage("the graph is too large to draw\nhint: use --format dot and Graphviz")
        })?,
    };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}
