//! A quiet log for when nobody watches: a line when a node starts and when it
//! is done, now and then one in between, hits in a single line.

use std::{
    collections::BTreeMap,
    io::Write,
    time::{Duration, Instant},
};

use super::{
    Sink,
    journal::{Journal, Sort},
    words,
    work::Work,
};
use crate::{
    pipeline::{Graph, NodeId},
    run::Event,
};

/// Time between two lines about unfinished work.
const PAUSE: Duration = Duration::from_secs(10);

/// Above this many nodes no line tells that one starts.
const MANY: usize = 200;

/// Writes the log to `out`; an error in writing is nobody's concern.
pub struct Plain<W> {
    out: W,
    journal: Journal,
    running: BTreeMap<NodeId, Work>,
    finished: usize,
    spoke: Option<Instant>,
}

impl<W: Write> Plain<W> {
    /// A log without colour.
    pub fn new(out: W) -> Self {
        Self {
            out,
            journal: Journal::new(false, false),
            running: BTreeMap::new(),
            finished: 0,
            spoke: None,
        }
    }

    fn event_at(&mut self, event: &Event, graph: &Graph, now: Instant) {
        let many = graph.nodes.len() > MANY;
        let mut lines = Vec::new();
        match event {
            Event::RunStarted { nodes, device, .. } => {
                let nodes = words::counted(*nodes, "node");
                lines.push(format!("{}: {nodes} on {device}", graph.name));
                self.spoke = Some(now);
            }
            Event::Started { node, why, .. } => {
                self.running.insert(*node, Work::new(now));
                if !many {
                    let text = format!("{}: {why}", graph.node(*node).id);
                    let text: Vec<_> = words::clean_lines(&text).collect();
                    lines.push(self.journal.line(Sort::Start, &text.join(" ")));
                }
            }
            Event::Loading { node, .. }
            | Event::Items { node, .. }
            | Event::Batch { node, .. }
            | Event::Progress { node, .. } => {
                if let Some(work) = self.running.get_mut(node) {
                    work.update(event, now);
                }
            }
            Event::Ran { node, .. } | Event::Audited { node, .. } | Event::Failed { node, .. } => {
                self.running.remove(node);
                self.finished += 1;
            }
            Event::Hit { .. } | Event::Blocked { .. } => self.finished += 1,
            Event::Held { .. }
            | Event::Warning { .. }
            | Event::Stopping
            | Event::RunFinished { .. } => {}
        }
        lines.extend(self.journal.lines(event, graph));
        let due = self
            .spoke
            .is_some_and(|spoke| now.saturating_duration_since(spoke) >= PAUSE);
        let over = matches!(event, Event::RunFinished { .. });
        if due && !over {
            lines.extend(self.working(graph, now));
            self.spoke = Some(now);
        }
        for line in lines {
            let _ = writeln!(self.out, "{line}");
        }
        if over {
            let _ = self.out.flush();
        }
    }

    /// One line on everything that is under way.
    fn working(&self, graph: &Graph, now: Instant) -> Option<String> {
        let old = |(_, work): &(&NodeId, &Work)| now.saturating_duration_since(work.since) >= PAUSE;
        let texts: Vec<_> = self
            .running
            .iter()
            .filter(old)
            .take(4)
            .map(|(id, work)| {
                let position = work.position().map(|(done, total)| {
                    let (done, total) = (words::count(done), words::count(total));
                    format!("{done} of {total} items")
                });
                let time = words::duration(now.saturating_duration_since(work.since));
                let pace = Some(work.pace(now)).filter(|pace| !pace.is_empty());
                let all: Vec<_> = position.into_iter().chain(pace).collect();
                let words = if all.is_empty() {
                    format!("{time} so far")
                } else {
                    all.join(", ")
                };
                format!("{}: {words}", graph.node(*id).id)
            })
            .collect();
        let nodes = || {
            let (done, all) = (self.finished as u64, graph.nodes.len() as u64);
            format!("{} of {} nodes", words::count(done), words::count(all))
        };
        match texts.as_slice() {
            [] if graph.nodes.len() > MANY => Some(self.journal.line(Sort::Working, &nodes())),
            [] => None,
            texts => Some(self.journal.line(Sort::Working, &texts.join("; "))),
        }
    }
}

impl<W: Write> Sink for Plain<W> {
    fn event(&mut self, event: &Event, graph: &Graph) {
        self.event_at(event, graph, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::sample::{probes, refinement, story},
        *,
    };

    fn log(graph: &Graph, events: &[(f64, Event)]) -> String {
        let start = Instant::now();
        let mut plain = Plain::new(Vec::new());
        for (at, event) in events {
            plain.event_at(event, graph, start + Duration::from_secs_f64(*at));
        }
        String::from_utf8(plain.out).unwrap()
    }

    #[test]
    fn the_log_is_quiet_and_complete() {
        let graph = refinement();
        insta::assert_snapshot!(log(&graph, &story(&graph)));
    }

    #[test]
    fn ten_thousand_hits_are_one_line() {
        let graph = probes(10_000, 100);
        let key = crate::digest::Digest::of(b"");
        let hits = graph.ids().map(|node| {
            (
                0.0,
                Event::Hit {
                    node,
                    key,
                    by: None,
                },
            )
        });
        let mut events: Vec<_> = hits.collect();
        events.push((
            0.1,
            Event::RunFinished {
                hits: 10_000,
                ran: 0,
                failed: 0,
                blocked: 0,
                took: Duration::from_millis(93),
            },
        ));
        insta::assert_snapshot!(log(&graph, &events));
    }
}
