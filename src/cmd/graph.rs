//! `runner graph`: the graph of a pipeline in a format for people or programs.

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::{
    pipeline::Graph,
    report::{graph_text, svg},
};

/// Formats of `runner graph --format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A line a node name, for reading
    #[default]
    Text,
    /// A Mermaid flowchart, for Markdown
    Mermaid,
    /// Graphviz
    Dot,
    /// A drawing
    Svg,
    /// Every instance with its kind, axes, inputs and parameters
    Json,
}

/// The graph in `format`, with a new line at its end.
///
/// # Errors
/// When it has too many names to be drawn as SVG.
pub fn render(graph: &Graph, format: Format) -> Result<String> {
    Ok(match format {
        Format::Text => graph_text::text(graph),
        Format::Mermaid => graph_text::mermaid(graph),
        Format::Dot => graph_text::dot(graph),
        Format::Json => format!("{:#}\n", graph_text::json(graph)),
        Format::Svg => svg::graph(graph).with_context(|| {
            let nodes = graph.nodes.len();
            format!(
                "failed to draw `{}`: its {nodes} nodes have too many names\nhint: `--format dot` has no limit",
                graph.name
            )
        })?,
    })
}
