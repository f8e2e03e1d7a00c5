//! The graph of a pipeline as text, for Mermaid, for Graphviz, and as JSON.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use serde_json::{Value, json};
use unicode_width::UnicodeWidthStr as _;

use super::{
    sketch::{Block, Round, Sketch, dots, source_words},
    words,
};
use crate::{
    pipeline::{Graph, Point, Source},
    table::one_line,
};

/// The graph for a terminal: a line a node name, with its axes and what it
/// reads; nodes of a round stand under its name.
pub fn text(graph: &Graph) -> String {
    let sketch = Sketch::by(&dots(graph), true);
    let mut lines: Vec<[String; 3]> = Vec::new();
    let mut round = None;
    for block in &sketch.blocks {
        let here = block.round.as_ref().map(|(name, _)| name.as_str());
        if here != round
            && let Some(name) = here
        {
            lines.push([name.to_owned(), rounds(graph, block), String::new()]);
        }
        round = here;
        let short = match here {
            Some(name) => format!(
                "  {}",
                block.title.trim_start_matches(name).trim_start_matches('.')
            ),
            None => block.title.clone(),
        };
        let axes = axes(graph, block);
        let space = if axes.is_empty() { "" } else { " " };
        lines.push([
            format!("{short}{space}{axes}"),
            block.kind.clone(),
            reads(graph, block),
        ]);
    }
    let width = |i: usize| lines.iter().map(|line| line[i].width()).max().unwrap_or(0);
    let widths = [width(0), width(1)];
    let heading = graph
        .title
        .as_ref()
        .map(|title| format!(": {title}"))
        .unwrap_or_default();
    let mut out = format!("{}{}\n", graph.name, one_line(&heading));
    let _ = writeln!(
        out,
        "{} of {}\n",
        words::counted(graph.nodes.len(), "node"),
        words::counted(sketch.blocks.len(), "name")
    );
    for line in &lines {
        let [name, kind, reads] = line.each_ref().map(|cell| one_line(cell));
        let (a, b) = (
            widths[0] - name.width().min(widths[0]),
            widths[1] - kind.width().min(widths[1]),
        );
        let arrow = if reads.is_empty() { "" } else { "← " };
        let line = format!("{name}{:a$}  {kind}{:b$}  {arrow}{reads}", "", "");
        let _ = writeln!(out, "{}", line.trim_end());
    }
    out
}

fn rounds(graph: &Graph, block: &Block) -> String {
    let all: BTreeSet<String> = block
        .nodes
        .iter()
        .filter_map(|i| graph.nodes[*i].at.get("round").map(ToString::to_string))
        .collect();
    words::counted(all.len(), "round")
}

/// `n=0,1,2 seed=0…9`, the round left out.
fn axes(graph: &Graph, block: &Block) -> String {
    let mut points: BTreeMap<&str, Vec<&Point>> = BTreeMap::new();
    for i in &block.nodes {
        for (axis, point) in &graph.nodes[*i].at {
            let list = points.entry(axis).or_default();
            if axis != "round" && !list.contains(&point) {
                list.push(point);
            }
        }
    }
    points.retain(|_, list| !list.is_empty());
    let axis = |(axis, list): (&str, Vec<&Point>)| {
        let points: Vec<_> = list.iter().map(ToString::to_string).collect();
        match points.as_slice() {
            [first, .., last] if points.len() > 5 => format!("{axis}={first}…{last}"),
            all => format!("{axis}={}", all.join(",")),
        }
    };
    points.into_iter().map(axis).collect::<Vec<_>>().join(" ")
}

/// What the nodes of a block read, by name, each once.
fn reads(graph: &Graph, block: &Block) -> String {
    let mut names: Vec<String> = Vec::new();
    let own = block.round.as_ref().map(|(round, _)| round.as_str());
    for i in &block.nodes {
        let node = &graph.nodes[*i];
        for (_, source) in &node.inputs {
            let name = match source {
                Source::Empty(_) => continue,
                Source::Node(id) => {
                    let other = graph.node(*id);
                    let short = match own {
                        Some(own) => other
                            .name
                            .strip_prefix(own)
                            .and_then(|n| n.strip_prefix('.')),
                        None => None,
                    };
                    let earlier = short.is_some() && other.at.get("round") != node.at.get("round");
                    let before = if earlier { " of the round before" } else { "" };
                    format!("{}{before}", short.unwrap_or(&other.name))
                }
                other => source_words(graph, other),
            };
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    names.join(", ")
}

/// Blocks by round and number, in order; `None` for those outside rounds.
fn by_round(sketch: &Sketch) -> Vec<(Option<Round>, Vec<usize>)> {
    let mut groups: Vec<(Option<Round>, Vec<usize>)> = Vec::new();
    for (i, block) in sketch.blocks.iter().enumerate() {
        match groups.iter_mut().find(|(round, _)| *round == block.round) {
            Some((_, list)) => list.push(i),
            None => groups.push((block.round.clone(), vec![i])),
        }
    }
    groups
}

fn round_title((name, number): &Round) -> String {
    match number {
        Some(number) => format!("{name}, round {number}"),
        None => format!("{name}, all rounds"),
    }
}

/// The graph as a Mermaid flowchart; rounds are subgraphs.
pub fn mermaid(graph: &Graph) -> String {
    let sketch = Sketch::new(&dots(graph));
    // Mermaid has no backslash; entities work in quoted labels.
    let escape = |text: &str| {
        let text = one_line(text).replace('&', "&amp;").replace('"', "&quot;");
        text.replace('<', "&lt;").replace('>', "&gt;")
    };
    let mut out = String::from("flowchart TD\n");
    for (g, (round, blocks)) in by_round(&sketch).iter().enumerate() {
        let indent = if round.is_some() { "    " } else { "  " };
        if let Some(round) = round {
            let _ = writeln!(out, "  subgraph r{g}[\"{}\"]", escape(&round_title(round)));
        }
        for i in blocks {
            let block = &sketch.blocks[*i];
            let times = block
                .times()
                .map(|times| format!(" {times}"))
                .unwrap_or_default();
            let _ = writeln!(
                out,
                "{indent}n{i}[\"{}{times}<br><small>{}</small>\"]",
                escape(&block.title),
                escape(&block.kind)
            );
        }
        if round.is_some() {
            out += "  end\n";
        }
    }
    for (from, to) in &sketch.edges {
        let _ = writeln!(out, "  n{from} --> n{to}");
    }
    for (from, to) in &sketch.back {
        let _ = writeln!(out, "  n{from} -.-> n{to}");
    }
    out
}

/// The graph for Graphviz; rounds are clusters.
pub fn dot(graph: &Graph) -> String {
    let sketch = Sketch::new(&dots(graph));
    let escape = |text: &str| one_line(text).replace('\\', "\\\\").replace('"', "\\\"");
    let mut out = format!("digraph \"{}\" {{\n", escape(&graph.name));
    out += "  node [shape=box, style=rounded, fontname=\"sans-serif\", fontsize=11];\n";
    out += "  edge [arrowsize=0.6];\n";
    for (g, (round, blocks)) in by_round(&sketch).iter().enumerate() {
        let indent = if round.is_some() { "    " } else { "  " };
        if let Some(round) = round {
            let _ = writeln!(
                out,
                "  subgraph cluster_{g} {{\n    label=\"{}\";",
                escape(&round_title(round))
            );
        }
        for i in blocks {
            let block = &sketch.blocks[*i];
            let times = block
                .times()
                .map(|times| format!(" {times}"))
                .unwrap_or_default();
            let (title, kind) = (escape(&block.title), escape(&block.kind));
            let _ = writeln!(out, "{indent}n{i} [label=\"{title}{times}\\n{kind}\"];");
        }
        if round.is_some() {
            out += "  }\n";
        }
    }
    for (from, to) in &sketch.edges {
        let _ = writeln!(out, "  n{from} -> n{to};");
    }
    for (from, to) in &sketch.back {
        let _ = writeln!(out, "  n{from} -> n{to} [style=dashed, constraint=false];");
    }
    out + "}\n"
}

/// The graph as JSON: every instance with its kind, axes and inputs.
pub fn json(graph: &Graph) -> Value {
    let nodes = graph.ids().map(|id| {
        let node = graph.node(id);
        let inputs = node.inputs.iter().map(|(port, source)| {
            let is_node = matches!(source, Source::Node(_));
            json!({"port": port, "source": source_words(graph, source), "node": is_node})
        });
        let at: BTreeMap<_, _> = node
            .at
            .iter()
            .map(|(axis, point)| {
                let value = match point {
                    Point::Int(x) => json!(x),
                    Point::Float(x) => json!(x),
                    Point::Text(x) => json!(x),
                    Point::Bool(x) => json!(x),
                };
                (axis, value)
            })
            .collect();
        json!({
            "id": node.id,
            "name": node.name,
            "kind": node.kind.name,
            "output": node.output,
            "at": at,
            "inputs": inputs.collect::<Vec<_>>(),
            "params": node.params,
        })
    });
    json!({"name": graph.name, "title": graph.title, "nodes": nodes.collect::<Vec<_>>()})
}

#[cfg(test)]
mod tests {
    use super::{
        super::sample::{matrix, refinement},
        *,
    };

    #[test]
    fn text_tells_every_name_once() {
        insta::assert_snapshot!(text(&refinement()));
    }

    #[test]
    fn mermaid_puts_rounds_into_subgraphs() {
        insta::assert_snapshot!(mermaid(&refinement()));
    }

    #[test]
    fn dot_puts_rounds_into_clusters() {
        insta::assert_snapshot!(dot(&refinement()));
    }

    #[test]
    fn a_wide_matrix_is_one_line() {
        insta::assert_snapshot!(text(&matrix(300, 2)));
    }

    #[test]
    fn names_cannot_break_out_of_labels() {
        let mut graph = refinement();
        graph.nodes[0].id = "a\"] --> b".into();
        graph.nodes[0].name = graph.nodes[0].id.clone();
        assert!(mermaid(&graph).contains("n0[\"a&quot;] --&gt; b<br>"));
        assert!(dot(&graph).contains("n0 [label=\"a\\\"] --> b\\n"));
    }

    #[test]
    fn json_names_every_instance() {
        let value = json(&refinement());
        assert_eq!(value["nodes"].as_array().unwrap().len(), 19);
        assert_eq!(value["nodes"][2]["at"]["round"], 1);
        assert_eq!(value["nodes"][0]["inputs"][1]["source"], "cifar10.test");
    }
}
