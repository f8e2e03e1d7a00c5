//! Consumers of events and records: result tables, live progress, logs, the
//! HTML page and drawings of the graph. Nobody but `cmd` imports this room.

mod answers;
mod attributes;
pub mod chart;
pub mod compare;
mod events;
mod figure;
pub mod graph_text;
mod html;
mod journal;
mod layout;
mod page;
mod plain;
mod progress;
mod results;
mod sketch;
pub mod svg;
mod views;
pub mod words;
mod work;

#[cfg(test)]
mod sample;

pub use self::{
    answers::AnswersSummary,
    events::EventLog,
    html::html,
    page::{Epoch, Page, PageInput, PageNode, Provenance, RunInfo, State},
    plain::Plain,
    progress::Progress,
    results::{Measured, Problem, build_tables, check_tables},
};
use crate::{pipeline::Graph, run::Event};

/// Something that takes in what a run tells.
pub trait Sink {
    /// Takes in one event; called in order, from one thread at a time.
    fn event(&mut self, event: &Event, graph: &Graph);
}

impl<S: Sink + ?Sized> Sink for &mut S {
    fn event(&mut self, event: &Event, graph: &Graph) {
        (**self).event(event, graph);
    }
}

impl Sink for Vec<Box<dyn Sink + Send + '_>> {
    fn event(&mut self, event: &Event, graph: &Graph) {
        for sink in self {
            sink.event(event, graph);
        }
    }
}
