//! The lines that stay on the screen or in a log: what became of each node.

use std::{collections::BTreeMap, time::Duration};

use super::words;
use crate::{
    pipeline::{Graph, NodeId},
    run::Event,
};

/// Lines of one sort before the rest is only counted.
const MOST: usize = 20;

/// Above this many nodes, those done within a second are only counted.
const MANY: usize = 200;

/// Turns events into lines.
pub(super) struct Journal {
    color: bool,
    list_hits: bool,
    hits: Vec<NodeId>,
    hit_count: usize,
    /// Hits that came from a shared cache, by who computed them.
    fetched: BTreeMap<String, usize>,
    failed: usize,
    /// Nodes that could not run, by the node that failed.
    blocked: BTreeMap<NodeId, Vec<NodeId>>,
    quick: usize,
}

impl Journal {
    /// With `list_hits` the first hits get a line each, else one line names them all.
    pub(super) fn new(color: bool, list_hits: bool) -> Self {
        Self {
            color,
            list_hits,
            hits: Vec::new(),
            hit_count: 0,
            fetched: BTreeMap::new(),
            failed: 0,
            blocked: BTreeMap::new(),
            quick: 0,
        }
    }

    /// The lines that `event` adds.
    pub(super) fn lines(&mut self, event: &Event, graph: &Graph) -> Vec<String> {
        let name = |id: &NodeId| words::clean_lines(&graph.node(*id).id).collect::<String>();
        match event {
            Event::Hit { node, by, .. } => {
                if let Some(by) = by {
                    *self.fetched.entry(by.clone()).or_default() += 1;
                }
                self.hit_count += 1;
                if self.hit_count > MOST {
                    return Vec::new();
                }
                if self.list_hits {
                    let from = by.as_ref().map(|by| self.dim(&format!("  from {by}")));
                    let text = name(node) + &from.unwrap_or_default();
                    return vec![self.line(Sort::Hit, &text)];
                }
                self.hits.push(*node);
                Vec::new()
            }
            Event::Ran {
                node, took, items, ..
            } => {
                if graph.nodes.len() > MANY && *took < Duration::from_secs(1) {
                    self.quick += 1;
                    return Vec::new();
                }
                let mut words = vec![words::duration(*took)];
                match *items {
                    (0, 0) => {}
                    (computed, 0) => words.push(format!("{} computed", words::count(computed))),
                    (computed, found) => words.push(format!(
                        "{} computed, {} found",
                        words::count(computed),
                        words::count(found)
                    )),
                }
                vec![self.line(
                    Sort::Ran,
                    &format!("{}  {}", name(node), self.dim(&words.join(", "))),
                )]
            }
            Event::Held {
                node,
                who,
                host,
                done,
                total,
            } => {
                let far = if *total > 0 {
                    format!(", {}% done", (done * 100).checked_div(*total).unwrap_or(0))
                } else {
                    String::new()
                };
                let text = format!(
                    "{}: {who} is computing this on {host}{far}; waiting (--no-wait computes it here)",
                    name(node)
                );
                vec![self.line(Sort::Working, &text)]
            }
            Event::Audited { node, same, took } => {
                let (sort, word) = if *same {
                    (Sort::Ran, "the same bytes")
                } else {
                    (Sort::Failed, "OTHER bytes than what is stored")
                };
                let text = format!("{}: {word}", name(node));
                let took = self.dim(&words::duration(*took));
                vec![self.line(sort, &format!("{text}  {took}"))]
            }
            Event::Failed { node, message } => {
                self.failed += 1;
                if self.failed > MOST {
                    return Vec::new();
                }
                let mut lines = vec![self.line(Sort::Failed, &name(node))];
                lines.extend(words::clean_lines(message).map(|line| format!("{:9}{line}", "")));
                lines
            }
            Event::Blocked { node, by } => {
                self.blocked.entry(*by).or_default().push(*node);
                Vec::new()
            }
            Event::Warning { node, message } => {
                let mut text: Vec<_> = words::clean_lines(message).collect();
                if let (Some(node), Some(first)) = (node, text.first_mut()) {
                    *first = format!("{}: {first}", name(node));
                }
                let mut lines =
                    vec![self.line(Sort::Warning, text.first().map_or("", |line| line))];
                lines.extend(text.iter().skip(1).map(|line| format!("{:9}{line}", "")));
                lines
            }
            Event::Stopping => vec![self.line(
                Sort::Warning,
                "stopping: batches that are under way are given up, finished ones are kept",
            )],
            Event::RunFinished {
                hits,
                ran,
                failed,
                blocked,
                took,
            } => {
                let mut lines = self.rest(&name);
                let nodes = hits + ran + failed + blocked;
                let mut parts = Vec::new();
                for (count, noun) in [
                    (hits, "hit"),
                    (ran, "ran"),
                    (failed, "failed"),
                    (blocked, "blocked"),
                ] {
                    match (*count, noun) {
                        (0, _) => {}
                        (1.., "hit") => parts.push(words::counted(*count, noun)),
                        (count, noun) => {
                            parts.push(format!("{} {noun}", words::count(count as u64)));
                        }
                    }
                }
                let parts = if parts.is_empty() {
                    String::new()
                } else {
                    format!(": {}", parts.join(", "))
                };
                let sort = if failed + blocked > 0 {
                    Sort::Incomplete
                } else {
                    Sort::Done
                };
                let text = format!(
                    "{} in {}{parts}",
                    words::counted(nodes, "node"),
                    words::duration(*took)
                );
                lines.push(self.line(sort, &text));
                lines
            }
            _ => Vec::new(),
        }
    }

    /// What was only counted so far.
    fn rest(&mut self, name: &dyn Fn(&NodeId) -> String) -> Vec<String> {
        let mut lines = Vec::new();
        if self.list_hits && self.hit_count > MOST {
            let text = format!("{} more", words::counted(self.hit_count - MOST, "node"));
            lines.push(self.line(Sort::Hit, &text));
        } else if !self.list_hits && self.hit_count > 0 {
            lines.push(self.line(Sort::Hit, &some(&self.hits, self.hit_count, name)));
        }
        for (by, count) in &self.fetched {
            let text = format!("{} computed by {by}", words::counted(*count, "node"));
            lines.push(self.line(Sort::Hit, &text));
        }
        if self.quick > 0 {
            let text = format!(
                "{} in less than a second each",
                words::counted(self.quick, "node")
            );
            lines.push(self.line(Sort::Ran, &text));
        }
        if self.failed > MOST {
            let text = format!("{} more", words::counted(self.failed - MOST, "node"));
            lines.push(self.line(Sort::Failed, &text));
        }
        for (by, nodes) in self.blocked.iter().take(MOST) {
            let text = some(nodes, nodes.len(), name);
            lines.push(self.line(Sort::Blocked, &format!("{text}: needs {}", name(by))));
        }
        lines
    }

    /// A line with its sort in the margin.
    pub(super) fn line(&self, sort: Sort, text: &str) -> String {
        let word = format!("{:>7}", sort.word());
        let word = if self.color {
            format!("\u{1b}[{}m{word}\u{1b}[0m", sort.color())
        } else {
            word
        };
        format!("{word}  {text}").trim_end().to_owned()
    }

    fn dim(&self, text: &str) -> String {
        if self.color {
            format!("\u{1b}[2m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }
}

/// A few names and how many more there are.
fn some(nodes: &[NodeId], count: usize, name: &dyn Fn(&NodeId) -> String) -> String {
    let shown = if count > 5 { 4 } else { 5 };
    let names: Vec<_> = nodes.iter().take(shown).map(name).collect();
    match count - names.len() {
        0 => names.join(", "),
        rest => format!(
            "{} and {} more",
            names.join(", "),
            words::count(rest as u64)
        ),
    }
}

/// What a line is about.
#[derive(Clone, Copy)]
pub(super) enum Sort {
    Start,
    Working,
    Hit,
    Ran,
    Failed,
    Blocked,
    Warning,
    Done,
    Incomplete,
}

impl Sort {
    fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Working => "…",
            Self::Hit => "hit",
            Self::Ran => "ran",
            Self::Failed => "failed",
            Self::Blocked => "blocked",
            Self::Warning => "warning",
            Self::Done | Self::Incomplete => "done",
        }
    }

    fn color(self) -> &'static str {
        match self {
            Self::Start | Self::Working | Self::Hit => "2",
            Self::Ran => "32",
            Self::Failed | Self::Incomplete => "1;31",
            Self::Blocked | Self::Warning => "33",
            Self::Done => "1;32",
        }
    }
}
