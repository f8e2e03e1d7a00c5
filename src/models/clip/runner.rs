//! How a model's batches reach its device: images resized and normalised,
//! batches cut, spread over cores, or prepared while the device computes.

use std::{
    borrow::Cow,
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc::sync_channel,
    },
    thread,
};

use anyhow::{Result, anyhow};
use burn::tensor::{DType, Device, Tensor, TensorData};
use rayon::prelude::*;

use super::{config::Config, workers::Workers};
use crate::models::image::{Normalize, Rgb8, resize_and_crop};

/// Images of one forward pass on the CPU, and their pixels: late layers need
/// some images for large products, more would only need memory.
const CPU_IMAGES: usize = 32;
const CPU_PIXELS: usize = 16 * 224 * 224;
/// Texts of one forward pass on the CPU.
pub(super) const CPU_TEXTS: usize = 64;
/// Images or texts of one forward pass elsewhere.
const DEVICE_BATCH: usize = 128;
/// Sizes that batches are filled up to on a device: for every new shape its
/// kernels are compiled and tuned.
const BUCKETS: [usize; 4] = [8, 32, 64, DEVICE_BATCH];
/// Lengths of texts are filled up to multiples of this there.
const TEXT_STEP: usize = 16;
/// Batches of images that are ready before a device asks for them.
const AHEAD: usize = 2;

/// Whatever gives image `i`.
pub(super) type Fetch<'a> = dyn Fn(usize) -> Result<Cow<'a, Rgb8>> + Sync + 'a;

/// See above.
#[derive(Debug)]
pub(super) struct Runner {
    normalize: Normalize,
    size: usize,
    dtype: DType,
    device: Device,
    /// On the CPU only.
    workers: Option<Workers>,
}

impl Runner {
    pub(super) fn new(config: &Config, dtype: DType, device: &Device) -> Result<Self> {
        let on_cpu = *device == Device::flex();
        Ok(Self {
            normalize: Normalize::new(config.preprocess.mean, config.preprocess.std),
            size: config.image.size(),
            dtype,
            device: device.clone(),
            workers: on_cpu.then(Workers::new).transpose()?,
        })
    }

    /// Where tensors are.
    pub(super) fn device(&self) -> &Device {
        &self.device
    }

    /// Whether that is the CPU.
    pub(super) fn on_cpu(&self) -> bool {
        self.workers.is_some()
    }

    /// How many images make one forward pass on the CPU.
    pub(super) fn images(&self) -> usize {
        (CPU_PIXELS / (self.size * self.size)).clamp(1, CPU_IMAGES)
    }

    /// `items`, on a device with the last one repeated until a bucket is full.
    pub(super) fn bucket<T: Copy>(&self, items: &[T]) -> Vec<T> {
        let mut all = items.to_vec();
        let bucket = BUCKETS.into_iter().find(|size| *size >= items.len());
        if let (None, Some(size), Some(last)) = (&self.workers, bucket, items.last()) {
            all.resize(size, *last);
        }
        all
    }

    /// How many places texts take whose last end needs `places` of `context`.
    pub(super) fn text_places(&self, places: usize, context: usize) -> usize {
        match self.workers {
            Some(_) => places,
            None => places.next_multiple_of(TEXT_STEP).min(context).max(places),
        }
    }

    /// Works as on a device, whatever the device is.
    #[cfg(test)]
    pub(super) fn as_on_a_device(&mut self) {
        self.workers = None;
    }

    /// The image as the tower takes it, still in bytes.
    pub(super) fn prepare(&self, image: &Rgb8) -> Rgb8 {
        resize_and_crop(image, self.size)
    }

    /// Normalised planes [n, 3, size, size] of prepared images.
    pub(super) fn planes(&self, images: &[&Rgb8]) -> Tensor<4> {
        let size = self.size;
        let mut planes = vec![0.0; images.len() * 3 * size * size];
        (planes.par_chunks_exact_mut(3 * size * size).zip(images))
            .for_each(|(planes, image)| self.normalize.planes(image, planes));
        let data = TensorData::new(planes, [images.len(), 3, size, size]);
        let data = data.convert_dtype(self.dtype);
        Tensor::from_data(data, (&self.device, self.dtype))
    }

    /// Normalised pixels [n, size, size, 3] of prepared images.
    pub(super) fn pixels(&self, images: &[&Rgb8]) -> Vec<f32> {
        let one = self.size * self.size * 3;
        let mut pixels = vec![0.0; images.len() * one];
        for (pixels, image) in pixels.chunks_exact_mut(one).zip(images) {
            self.normalize.pixels(image, pixels);
        }
        pixels
    }

    /// `work` of `n` images, which `fetch` gives, prepared and in batches;
    /// `progress` is told how many are done.
    ///
    /// The result has an entry for each image: its row of the `width` numbers
    /// that `work` gives for it, or why it could not be fetched.
    pub(super) fn map_images(
        &self,
        n: usize,
        width: usize,
        fetch: &Fetch<'_>,
        work: &(dyn Fn(&[&Rgb8]) -> Result<Vec<f32>> + Sync),
        progress: &(dyn Fn(usize) + Sync),
    ) -> Result<Vec<Result<Vec<f32>>>> {
        let done = AtomicUsize::new(0);
        let prepared = |i: usize| fetch(i).map(|image| self.prepare(&image));
        let compute = |batch: Vec<Result<Rgb8>>| -> Result<Vec<Result<Vec<f32>>>> {
            let good: Vec<&Rgb8> = batch
                .iter()
                .filter_map(|image| image.as_ref().ok())
                .collect();
            let values = if good.is_empty() {
                Vec::new()
            } else {
                work(&good)?
            };
            let mut values = values.chunks_exact(width);
            progress(done.fetch_add(batch.len(), Ordering::Relaxed) + batch.len());
            (batch.into_iter())
                .map(|image| match image {
                    Ok(_) => (values.next().map(|row| Ok(row.to_vec())))
                        .ok_or_else(|| anyhow!("the model gave too few rows")),
                    Err(error) => Ok(Err(error)),
                })
                .collect()
        };
        let batches = self.map(n, self.images(), |range| {
            compute(range.map(prepared).collect())
        });
        if let Some(batches) = batches {
            return Ok(batches?.into_iter().flatten().collect());
        }
        // Images are decoded and resized on all cores while the device works.
        let ranges: Vec<_> = (0..n).step_by(DEVICE_BATCH).collect();
        thread::scope(|scope| {
            let (ready, batches) = sync_channel(AHEAD);
            scope.spawn(move || {
                for first in ranges {
                    let last = (first + DEVICE_BATCH).min(n);
                    let batch: Vec<_> = (first..last).into_par_iter().map(prepared).collect();
                    if ready.send(batch).is_err() {
                        return;
                    }
                }
            });
            let mut all = Vec::with_capacity(n);
            for batch in batches {
                all.extend(compute(batch)?);
            }
            Ok(all)
        })
    }

    /// `work` of batches of `items`, in order: on the CPU of at most `most`.
    pub(super) fn map_items<T: Sync, R: Send>(
        &self,
        items: &[T],
        most: usize,
        work: impl Fn(&[T]) -> Result<R> + Sync,
    ) -> Result<Vec<R>> {
        match self.map(items.len(), most, |range| work(&items[range])) {
            Some(results) => results,
            None => items.chunks(DEVICE_BATCH).map(work).collect(),
        }
    }

    /// `work` of ranges of at most `most` of `n` things, in order, spread over
    /// cores; `None` on a device, which takes one batch after the other.
    fn map<R: Send>(
        &self,
        n: usize,
        most: usize,
        work: impl Fn(std::ops::Range<usize>) -> Result<R> + Sync,
    ) -> Option<Result<Vec<R>>> {
        let workers = self.workers.as_ref()?;
        let size = n.div_ceil(workers.count()).clamp(1, most);
        let ranges: Vec<_> = (0..n)
            .step_by(size)
            .map(|first| first..(first + size).min(n))
            .collect();
        Some(workers.map(&ranges, |range| work(range.clone())))
    }
}
