//! Consumers of events and records: result tables, live progress, logs, the
//! HTML page and drawings of the graph. Nobody but `cmd` imports this room.

mod answers;
mod figure;
pub mod results;
#[cfg(test)]
mod sample;

pub use self::answers::AnswersSummary;
