//! Every event as a line of JSON, for other programs (`--events FILE`).

use std::io::{self, Write};

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::Sink;
use crate::{
    pipeline::{Graph, NodeId},
    run::Event,
};

/// Writes JSON Lines to `out`: `time` (RFC 3339, UTC), `event`, and the
/// event's own fields with nodes by name and times in seconds.
pub struct EventLog<W> {
    out: W,
    now: fn() -> Timestamp,
    error: Option<io::Error>,
}

impl<W: Write> EventLog<W> {
    /// A log that starts now.
    pub fn new(out: W) -> Self {
        Self {
            out,
            now: Timestamp::now,
            error: None,
        }
    }

    /// Flushes the log.
    ///
    /// # Errors
    /// The first error in writing; nothing is written after it.
    pub fn finish(mut self) -> io::Result<()> {
        match self.error.take() {
            Some(error) => Err(error),
            None => self.out.flush(),
        }
    }

    fn write(&mut self, event: &Event, graph: &Graph) -> io::Result<()> {
        let mut line = Map::new();
        let time = format!("{:.3}", (self.now)());
        line.insert("time".into(), time.into());
        if let Value::Object(fields) = serde_json::to_value(event)? {
            line.extend(fields);
        }
        for name in ["node", "by"] {
            let id = line.get(name).and_then(Value::as_u64);
            if let Some(id) = id {
                let node = graph.node(NodeId(id as u32));
                line.insert(name.into(), node.id.as_str().into());
            }
        }
        // One call a line, so that a reader never sees half of one.
        let mut bytes = serde_json::to_vec(&line)?;
        bytes.push(b'\n');
        self.out.write_all(&bytes)
    }
}

impl<W: Write> Sink for EventLog<W> {
    fn event(&mut self, event: &Event, graph: &Graph) {
        if self.error.is_none() {
            self.error = self.write(event, graph).err();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::sample::{refinement, story},
        *,
    };

    #[test]
    fn nodes_have_names_and_lines_a_time() {
        let graph = refinement();
        let mut log = EventLog::new(Vec::new());
        log.now = || Timestamp::UNIX_EPOCH;
        for (_, event) in story(&graph) {
            log.event(&event, &graph);
        }
        insta::assert_snapshot!(String::from_utf8(log.out).unwrap());
    }

    #[test]
    fn the_first_error_in_writing_is_told_at_the_end() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::Error::other("disk full"))
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let graph = refinement();
        let mut log = EventLog::new(Full);
        log.event(&Event::Stopping, &graph);
        assert_eq!(log.finish().unwrap_err().to_string(), "disk full");
    }
}
