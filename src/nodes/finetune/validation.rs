//! What a model in training makes of images that do not train it.

use std::sync::Arc;

use anyhow::{Result, bail};
use serde::Serialize;

use super::training::Training;
use crate::{data::Split, models::clip::TrainState, node::Ctx};

/// Classes below which top-5 accuracy says nothing.
const CLASSES_FOR_TOP5: usize = 6;

/// An epoch measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Measured {
    /// Mean loss.
    loss: f64,
    /// Share of images whose class is first, in percent.
    top1: f64,
    /// Share of images whose class is among the first five, in percent, where
    /// there are six classes at least.
    #[serde(skip_serializing_if = "Option::is_none")]
    top5: Option<f64>,
}

/// Images, a text for each class, and a trainer to put states into.
pub(super) struct Validation {
    training: Training,
    split: Arc<Split>,
    texts: Vec<String>,
    batch: usize,
}

impl Validation {
    pub(super) fn new(
        training: Training,
        split: Arc<Split>,
        texts: Vec<String>,
        batch: usize,
    ) -> Self {
        Self {
            training,
            split,
            texts,
            batch,
        }
    }

    /// What the model in `state` makes of the images.
    pub(super) fn measure(
        &mut self,
        state: TrainState,
        alpha: f64,
        ctx: &Ctx<'_>,
    ) -> Result<Measured> {
        self.training.trainer.restore(state)?;
        let all: Vec<usize> = (0..self.split.len()).collect();
        let (mut loss, mut first, mut five) = (0.0, 0_usize, 0_usize);
        for which in all.chunks(self.batch) {
            if (ctx.stop)() {
                bail!("stopped while an epoch was measured");
            }
            let features = self.training.features(&self.split, which)?;
            let labels: Vec<usize> = which.iter().map(|i| self.split.labels()[*i]).collect();
            let judged = (self.training.trainer).judge(&features, &labels, &self.texts, alpha)?;
            loss += judged.loss * which.len() as f64;
            first += judged.ahead.iter().filter(|ahead| **ahead == 0).count();
            five += judged.ahead.iter().filter(|ahead| **ahead < 5).count();
        }
        let images = all.len().max(1) as f64;
        let percent = |count: usize| 100.0 * count as f64 / images;
        Ok(Measured {
            loss: loss / images,
            top1: percent(first),
            top5: (self.texts.len() >= CLASSES_FOR_TOP5).then(|| percent(five)),
        })
    }
}
