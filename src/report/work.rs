//! How far a running node is, kept up to date by events.

use std::time::{Duration, Instant};

use super::words;
use crate::run::Event;

/// A running node.
#[derive(Debug)]
pub(super) struct Work {
    /// When it started.
    pub(super) since: Instant,
    /// When its first item could start: after its models were loaded.
    computing: Instant,
    /// Items in all and those that the store had.
    items: Option<(u64, u64)>,
    /// Items computed.
    computed: u64,
    /// Parts of the current batch.
    part: Option<(u64, u64, String)>,
    /// The model that is being loaded.
    loading: Option<String>,
}

impl Work {
    /// A node that starts now.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            since: now,
            computing: now,
            items: None,
            computed: 0,
            part: None,
            loading: None,
        }
    }

    /// Takes in an event of this node.
    pub(super) fn update(&mut self, event: &Event, now: Instant) {
        match event {
            Event::Loading { model, .. } => self.loading = Some(model.clone()),
            Event::Items { total, cached, .. } => self.items = Some((*total, *cached)),
            Event::Batch { items, .. } => {
                self.computed += items;
                self.part = None;
                self.loading = None;
            }
            Event::Progress {
                done, total, unit, ..
            } => {
                if self.loading.take().is_some() {
                    self.computing = now;
                }
                self.part = Some((*done, *total, unit.clone()));
            }
            _ => {}
        }
    }

    /// Items found or computed, and items in all.
    pub(super) fn position(&self) -> Option<(u64, u64)> {
        let (total, cached) = self.items?;
        Some(((cached + self.computed).min(total), total))
    }

    /// Items a second, once a batch is done.
    pub(super) fn rate(&self, now: Instant) -> Option<f64> {
        let seconds = now.saturating_duration_since(self.computing).as_secs_f64();
        (self.computed > 0 && seconds > 0.0).then(|| self.computed as f64 / seconds)
    }

    /// Time until the last item at the rate so far.
    pub(super) fn left(&self, now: Instant) -> Option<Duration> {
        let (done, total) = self.position()?;
        Duration::try_from_secs_f64((total - done) as f64 / self.rate(now)?).ok()
    }

    /// Rate, time left and parts in words: `12.3/s, 5 s left`.
    pub(super) fn pace(&self, now: Instant) -> String {
        let mut words = Vec::new();
        if let Some(model) = &self.loading {
            words.push(format!("loading {model}"));
        }
        if let Some(rate) = self.rate(now) {
            words.push(words::rate(rate));
        }
        match (self.left(now), self.position()) {
            (Some(left), Some((done, total))) if done < total => {
                words.push(format!("{} left", words::duration(left)));
            }
            _ => {}
        }
        if let Some((done, total, unit)) = &self.part {
            let (done, total) = (words::count(*done), words::count(*total));
            words.push(format!("{done} of {total} {unit}"));
        }
        words.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::NodeId;

    #[test]
    fn the_rate_counts_computed_items_after_the_model_was_loaded() {
        let node = NodeId(0);
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut work = Work::new(start);
        work.update(
            &Event::Items {
                node,
                total: 100,
                cached: 40,
            },
            at(0),
        );
        work.update(
            &Event::Loading {
                node,
                model: "clip".into(),
            },
            at(0),
        );
        assert_eq!(work.pace(at(5)), "loading clip");
        let progress = |done| Event::Progress {
            node,
            done,
            total: 20,
            unit: "texts".into(),
        };
        work.update(&progress(0), at(10));
        work.update(&Event::Batch { node, items: 20 }, at(20));
        assert_eq!(work.position(), Some((60, 100)));
        // 20 items in the 10 s after loading, so 40 more take 20 s.
        assert_eq!(work.pace(at(20)), "2.0/s, 20 s left");
        work.update(&progress(5), at(20));
        assert_eq!(work.pace(at(20)), "2.0/s, 20 s left, 5 of 20 texts");
    }
}
