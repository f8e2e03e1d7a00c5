//! Epochs of a training as items: a killed run goes on after the last whole one, and
//! more epochs cost only themselves.

use anyhow::{Context, Result, bail};

use crate::node::{Done, Item};

/// The epochs that are done, and the next one if there is one of `all`.
pub(super) fn items(done: &Done, all: usize) -> Vec<Item> {
    let known = (done.len() + 1).min(all);
    (0..known)
        .map(|epoch| Item::new(format!("epoch {epoch}"), epoch))
        .collect()
}

/// The epoch that a batch of [`items`] is to compute.
///
/// # Errors
/// When it holds more than one.
pub(super) fn of_batch(batch: &[Item]) -> Result<usize> {
    let [item] = batch else {
        bail!("epochs are computed one at a time");
    };
    Ok(*item.task().context("an item of another kind")?)
}
