//! Values of a batch on their way to the store: committed in packs while the
//! batch is still being computed, so that a kill loses little.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::{Event, execute::item_key};
use crate::{digest::Digest, node::Item, pipeline::NodeId, store::Store};

/// No finished value waits longer than this for the next one before it is stored.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// This many values are stored together, once the first has waited for
/// [`SHORTEST_WAIT`]: a pack costs a file and an fsync, and a batch that is done
/// at once is one pack.
const PACK: usize = 32;
const SHORTEST_WAIT: Duration = Duration::from_millis(100);

/// The values of one batch.
pub(super) struct Keeper<'a> {
    store: &'a Store,
    space: &'a Digest,
    batch: &'a [Item],
    send: &'a dyn Fn(Event),
    node: NodeId,
    values: Vec<Option<Arc<[u8]>>>,
    /// Places of values that are not stored yet.
    pending: Vec<usize>,
    /// When the first of them came.
    since: Instant,
    /// Values that count as computed.
    count: u64,
    /// Whether values are stored at all.
    store_them: bool,
}

impl<'a> Keeper<'a> {
    pub(super) fn new(
        store: &'a Store,
        space: &'a Digest,
        batch: &'a [Item],
        send: &'a dyn Fn(Event),
        node: NodeId,
    ) -> Self {
        Self {
            store,
            space,
            batch,
            send,
            node,
            values: vec![None; batch.len()],
            pending: Vec::new(),
            since: Instant::now(),
            count: 0,
            store_them: true,
        }
    }

    /// Stores nothing: the values are only compared with earlier ones.
    pub(super) fn only_tell(&mut self) {
        self.store_them = false;
    }

    /// Takes the value of the item at `place`.
    pub(super) fn keep(&mut self, place: usize, value: Vec<u8>) -> Result<()> {
        let slot = (self.values.get_mut(place)).context("a value for an item that is not there")?;
        ensure!(slot.is_none(), "two values for one item");
        *slot = Some(value.into());
        if self.pending.is_empty() {
            self.since = Instant::now();
        }
        self.pending.push(place);
        let waited = self.since.elapsed();
        let full = self.pending.len() >= PACK && waited >= SHORTEST_WAIT;
        if full || waited >= LONGEST_WAIT {
            self.commit()?;
        }
        Ok(())
    }

    /// Stores what is not stored yet: one file and one fsync.
    pub(super) fn commit(&mut self) -> Result<()> {
        let mut pack = Vec::new();
        for place in &self.pending {
            // An empty value was not computed.
            if let Some(value) = self.values[*place]
                .as_ref()
                .filter(|value| !value.is_empty())
            {
                pack.push((item_key(&self.batch[*place]), value.to_vec()));
            }
        }
        if !pack.is_empty() && self.store_them {
            (self.store)
                .commit_items(self.space, &pack)
                .context("failed to store finished items")?;
        }
        self.count += pack.len() as u64;
        if !self.pending.is_empty() {
            (self.send)(Event::Batch {
                node: self.node,
                items: self.pending.len() as u64,
            });
        }
        self.pending.clear();
        Ok(())
    }

    /// All values, and how many were computed.
    pub(super) fn finish(self) -> (Vec<Option<Arc<[u8]>>>, u64) {
        (self.values, self.count)
    }
}
