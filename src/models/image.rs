//! Images as bytes, resized and cropped exactly as Pillow does it.
//!
//! CLIP's preprocessing resizes the shorter side with Pillow's bicubic filter
//! and cuts out the centre (torchvision's `Resize` and `CenterCrop`). Pillow
//! (`Resample.c`) filters rows and then columns in fixed point with 22
//! fractional bits and rounds to bytes after each pass; doing the same makes
//! every byte equal. The kernel is Keys' with a = -0.5, stretched when the
//! image shrinks, cut off at the border and normalised there.

use std::ops::Range;

use anyhow::{Result, ensure};

/// The longest side accepted, in pixels.
const MAX_SIDE: usize = 1 << 16;

/// Fractional bits of a weight: 8 are left for the byte, 2 against overflow.
const FRACTION: u32 = 32 - 8 - 2;

/// An image of interleaved 8-bit RGB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rgb8 {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

impl Rgb8 {
    /// An image from its `height · width · 3` bytes, row by row.
    ///
    /// # Errors
    /// When a side is zero or beyond 65,536, or the number of bytes is another.
    pub fn new(width: usize, height: usize, pixels: Vec<u8>) -> Result<Self> {
        ensure!(
            (1..=MAX_SIDE).contains(&width) && (1..=MAX_SIDE).contains(&height),
            "an image of {width}×{height} pixels cannot be used"
        );
        ensure!(
            pixels.len() == width * height * 3,
            "an image of {width}×{height} pixels has {} bytes instead of {}",
            pixels.len(),
            width * height * 3
        );
        Ok(Self {
            width,
            height,
            pixels,
        })
    }

    /// Width in pixels.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Height in pixels.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Interleaved bytes, row by row.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }
}

/// Makes the shorter side `size` pixels long and cuts out the square in the
/// centre; the result is `size` by `size`.
pub fn resize_and_crop(image: &Rgb8, size: usize) -> Rgb8 {
    let (width, height) = (image.width, image.height);
    let short = width.min(height);
    // Python's `int(size * long / short)`: one rounding, then towards zero.
    let long = (size * width.max(height)) as f64 / short as f64;
    let resized = |side: usize| if side == short { size } else { long as usize };
    let (across, down) = (resized(width), resized(height));
    let columns = windows(width, across, size);
    let rows = windows(height, down, size);
    let flat = if rows_first((width, height), (across, down)) {
        let used = used(&rows);
        let kept = &image.pixels[used.start * width * 3..used.end * width * 3];
        let narrow = filter_rows(kept, width, &columns);
        filter_columns(&narrow, size, &rows, used.start)
    } else {
        let flat = filter_columns(&image.pixels, width, &rows, 0);
        filter_rows(&flat, width, &columns)
    };
    Rgb8 {
        width: size,
        height: size,
        pixels: flat,
    }
}

/// Whether Pillow filters rows before columns. Version 13 does not where the
/// height shrinks by more than twice what the width does; older ones always
/// did, so very tall images differ between versions by single steps.
fn rows_first(from: (usize, usize), to: (usize, usize)) -> bool {
    let shrink = |from: usize, to: usize| from as i64 - to as i64;
    let (width, height) = (shrink(from.0, to.0), shrink(from.1, to.1));
    !(height > 0 && height > width * 2)
}

/// Filters every row of `pixels`, `width` pixels each.
fn filter_rows(pixels: &[u8], width: usize, columns: &[Window]) -> Vec<u8> {
    let rows = pixels.chunks_exact(width * 3);
    let mut narrow = Vec::with_capacity(rows.len() * columns.len() * 3);
    for row in rows {
        for window in columns {
            let source = &row[window.start * 3..];
            let mut sum = [1 << (FRACTION - 1); 3];
            for (pixel, weight) in source.as_chunks::<3>().0.iter().zip(&window.weights) {
                for (sum, &byte) in sum.iter_mut().zip(pixel) {
                    *sum += i32::from(byte) * weight;
                }
            }
            narrow.extend(sum.map(byte));
        }
    }
    narrow
}

/// Filters every column of `pixels`, whose first row is row `first` of the
/// image.
fn filter_columns(pixels: &[u8], width: usize, rows: &[Window], first: usize) -> Vec<u8> {
    let stride = width * 3;
    let mut flat = Vec::with_capacity(rows.len() * stride);
    let mut sums = vec![0; stride];
    for window in rows {
        sums.fill(1 << (FRACTION - 1));
        let source = &pixels[(window.start - first) * stride..];
        for (row, weight) in source.chunks_exact(stride).zip(&window.weights) {
            for (sum, &byte) in sums.iter_mut().zip(row) {
                *sum += i32::from(byte) * weight;
            }
        }
        flat.extend(sums.iter().map(|&sum| byte(sum)));
    }
    flat
}

/// A fixed-point sum as a byte.
fn byte(sum: i32) -> u8 {
    (sum >> FRACTION).clamp(0, 255) as u8
}

/// The inputs of one output position.
struct Window {
    /// First input position.
    start: usize,
    /// Fixed-point weights of it and those after it.
    weights: Vec<i32>,
}

/// The `crop` central positions of an axis resized from `from` to `to`.
fn windows(from: usize, to: usize, crop: usize) -> Vec<Window> {
    let skip = half_to_even(to - crop);
    let scale = from as f64 / to as f64;
    let stretch = scale.max(1.0);
    let support = 2.0 * stretch;
    let window = |out: usize| {
        if from == to {
            let weights = vec![1 << FRACTION];
            return Window {
                start: out,
                weights,
            };
        }
        let center = (out as f64 + 0.5) * scale;
        // Casts go towards zero and saturate, as the clipping does.
        let start = (center - support + 0.5) as usize;
        let end = ((center + support + 0.5) as usize).min(from);
        let weights: Vec<f64> = (start..end)
            .map(|i| bicubic((i as f64 - center + 0.5) * (1.0 / stretch)))
            .collect();
        let total: f64 = weights.iter().sum();
        let weights = (weights.iter())
            .map(|w| if total == 0.0 { *w } else { w / total })
            .map(|w| (w * f64::from(1 << FRACTION) + 0.5f64.copysign(w)) as i32)
            .collect();
        Window { start, weights }
    };
    (skip..skip + crop).map(window).collect()
}

/// The input positions that `windows` look at.
fn used(windows: &[Window]) -> Range<usize> {
    let start = windows.iter().map(|w| w.start).min();
    let end = windows.iter().map(|w| w.start + w.weights.len()).max();
    start.unwrap_or(0)..end.unwrap_or(0)
}

/// Half of `n`, halves rounded to the even neighbour as Python's `round` does.
fn half_to_even(n: usize) -> usize {
    n / 2 + usize::from(n % 4 == 3)
}

/// Keys' cubic convolution kernel with a = -0.5.
fn bicubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

/// From bytes to normalised numbers: (byte / 255 - mean) / deviation in f32,
/// by channel.
#[derive(Clone, Debug)]
pub struct Normalize {
    table: [[f32; 256]; 3],
}

impl Normalize {
    /// The table for `mean` and `std` of values in [0, 1].
    pub fn new(mean: [f32; 3], std: [f32; 3]) -> Self {
        let table = std::array::from_fn(|channel| {
            std::array::from_fn(|byte| (byte as f32 / 255.0 - mean[channel]) / std[channel])
        });
        Self { table }
    }

    /// Fills `planes`, three of the image's size, from `image`.
    pub fn planes(&self, image: &Rgb8, planes: &mut [f32]) {
        let size = image.width * image.height;
        for ((channel, table), plane) in
            (self.table.iter().enumerate()).zip(planes.chunks_mut(size))
        {
            for (value, pixel) in plane.iter_mut().zip(image.pixels.as_chunks::<3>().0) {
                *value = table[usize::from(pixel[channel])];
            }
        }
    }

    /// Fills `pixels`, interleaved as in `image`, from `image`.
    pub fn pixels(&self, image: &Rgb8, pixels: &mut [f32]) {
        let [red, green, blue] = &self.table;
        let bytes = image.pixels.as_chunks::<3>().0;
        for (value, [r, g, b]) in pixels.as_chunks_mut::<3>().0.iter_mut().zip(bytes) {
            *value = [
                red[usize::from(*r)],
                green[usize::from(*g)],
                blue[usize::from(*b)],
            ];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_images_are_refused() {
        Rgb8::new(0, 1, vec![]).unwrap_err();
        Rgb8::new(1, 1, vec![0; 4]).unwrap_err();
        Rgb8::new(usize::MAX, usize::MAX, vec![0; 3]).unwrap_err();
    }

    #[test]
    fn halves_are_rounded_to_even() {
        let halves: Vec<usize> = (0..9).map(half_to_even).collect();
        assert_eq!(halves, [0, 0, 1, 2, 2, 2, 3, 4, 4]);
    }

    #[test]
    fn a_flat_image_stays_flat() {
        let flat = Rgb8::new(3, 50, [7, 200, 255].repeat(150)).unwrap();
        let small = resize_and_crop(&flat, 5);
        assert_eq!(small.pixels(), [7, 200, 255].repeat(25));
    }
}
