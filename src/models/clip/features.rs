//! Features of the frozen trunk kept from one epoch to the next.
//!
//! The trunk never changes, so an image's features are computed once as long as
//! there is room. On the CPU they are the same bits in every batch, so what is
//! kept changes no result; elsewhere a batch's size may choose other kernels, and
//! nothing is kept.

use anyhow::{Result, ensure};
use rayon::prelude::*;

use super::train::{Features, Trainer};
use crate::models::image::Rgb8;

/// Whatever gives image i, from any thread.
type Fetch<'a> = dyn Fn(usize) -> Result<Rgb8> + Sync + 'a;

/// Features of numbered images, as many as there is room for.
#[derive(Debug)]
pub struct FeatureCache {
    rows: Vec<Option<Box<[f32]>>>,
    /// Bytes that are left.
    room: u64,
}

impl FeatureCache {
    /// For images 0 to `images`, in at most `room` bytes.
    pub fn new(images: usize, room: u64) -> Self {
        Self {
            rows: vec![None; images],
            room,
        }
    }

    /// How many images' features are kept.
    pub fn kept(&self) -> usize {
        self.rows.iter().flatten().count()
    }

    /// The features of the images `which`, in this order; `fetch` gives those
    /// whose features are not there.
    ///
    /// # Errors
    /// When an image cannot be fetched, or the device fails.
    ///
    /// # Panics
    /// When an image's number is beyond those of [`FeatureCache::new`].
    pub fn features(
        &mut self,
        trainer: &Trainer,
        which: &[usize],
        fetch: &Fetch<'_>,
    ) -> Result<Features> {
        ensure!(!which.is_empty(), "take the features of no image");
        let missing: Vec<usize> = (which.iter().copied())
            .filter(|i| self.rows[*i].is_none())
            .collect();
        let fresh = if missing.is_empty() {
            Vec::new()
        } else {
            let trunk = trainer.trunk();
            let images: Vec<Rgb8> = (missing.par_iter())
                .map(|i| Ok(trunk.prepare(&fetch(*i)?)))
                .collect::<Result<_>>()?;
            let features = trainer.features(&images)?;
            let keep = trunk.on_cpu() && features.row_bytes() <= self.room;
            if missing.len() == which.len() && !keep {
                return Ok(features);
            }
            features.rows()?
        };
        let length = (fresh.len() / missing.len().max(1)).max(1);
        let mut rows = fresh.chunks_exact(length);
        let all: Vec<&[f32]> = (which.iter())
            .filter_map(|i| self.rows[*i].as_deref().or_else(|| rows.next()))
            .collect();
        let features = trainer.features_of(&all)?;
        for (i, row) in missing.iter().zip(fresh.chunks_exact(length)) {
            let bytes = size_of_val(row) as u64;
            if bytes <= self.room && self.rows[*i].is_none() && trainer.trunk().on_cpu() {
                self.room -= bytes;
                self.rows[*i] = Some(row.into());
            }
        }
        Ok(features)
    }
}
