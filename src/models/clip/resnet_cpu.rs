//! The convolutions of `ModifiedResNet` in f32 on one thread of the CPU.
//!
//! The same layers as in [`resnet`](super::resnet), channels last, over
//! [`cpu`](crate::models::cpu)'s kernels.

use anyhow::Result;

use super::{
    config::ResnetConfig,
    resnet::{Folded, Place, stem},
    tensors::Source,
};
use crate::models::cpu::{Activation, Conv3x3, Linear, Packed, Scratch};

/// Pixels of images that pass the stem and the first two stages together:
/// their maps are large, and stay in the caches for few images only.
const EARLY_PIXELS: usize = 2 * 224 * 224;
/// Stages that are early.
const EARLY: usize = 2;

/// A convolution of one pixel.
fn conv1x1(folded: Folded) -> Linear {
    Linear::of(&folded.weight, folded.shape[1], folded.bias)
}

fn conv3x3(folded: Folded) -> Conv3x3 {
    Conv3x3::new(&folded.weight, folded.shape[1], folded.bias)
}

/// A bottleneck.
#[derive(Debug)]
struct Bottleneck {
    conv1: Linear,
    conv2: Conv3x3,
    conv3: Linear,
    downsample: Option<Linear>,
    stride: usize,
}

impl Bottleneck {
    fn load(source: &mut Source<'_>, place: &Place) -> Result<Self> {
        let [one, two, three, four] = place.shapes();
        let mut conv = |conv: &str, bn: &str, shape| {
            Folded::load(source, &place.name(conv), &place.name(bn), shape)
        };
        Ok(Self {
            conv1: conv1x1(conv("conv1", "bn1", one)?),
            conv2: conv3x3(conv("conv2", "bn2", two)?),
            conv3: conv1x1(conv("conv3", "bn3", three)?),
            downsample: (place.downsamples())
                .then(|| conv("downsample.0", "downsample.1", four).map(conv1x1))
                .transpose()?,
            stride: place.stride,
        })
    }

    fn forward(&self, x: Map, scratch: &mut Scratch) -> Map {
        let side = x.side;
        let one = self.conv1.forward(&x.data, None, Activation::Relu, scratch);
        let mut two = Map {
            data: scratch.take(one.len()),
            side,
        };
        (self.conv2).forward(&one, [side; 2], Activation::Relu, &mut two.data, scratch);
        scratch.give(one);
        if self.stride > 1 {
            two = pool(two, self.conv3.input(), scratch);
        }
        let side = two.side;
        let shortcut = match &self.downsample {
            Some(conv) => {
                let pooled = if self.stride > 1 {
                    pool(x, conv.input(), scratch)
                } else {
                    x
                };
                let shortcut = conv.forward(&pooled.data, None, Activation::Identity, scratch);
                scratch.give(pooled.data);
                shortcut
            }
            None => x.data,
        };
        let data = (self.conv3).forward(&two.data, Some(&shortcut), Activation::Relu, scratch);
        scratch.give(two.data);
        scratch.give(shortcut);
        Map { data, side }
    }
}

/// Square maps of some images: [n, side, side, channels].
pub(super) struct Map {
    pub(super) data: Vec<f32>,
    pub(super) side: usize,
}

/// Averages squares of two by two pixels; an odd last row or column is left out.
fn pool(x: Map, channels: usize, scratch: &mut Scratch) -> Map {
    let (side, half) = (x.side, x.side / 2);
    let images = x.data.len() / (side * side * channels);
    let mut data = scratch.take(images * half * half * channels);
    for (i, out) in data.chunks_exact_mut(channels).enumerate() {
        let (image, y, column) = (i / (half * half), i / half % half, i % half);
        let at = |dy, dx| {
            let pixel = (image * side + 2 * y + dy) * side + 2 * column + dx;
            &x.data[pixel * channels..][..channels]
        };
        let (a, b, c, d) = (at(0, 0), at(0, 1), at(1, 0), at(1, 1));
        for (i, out) in out.iter_mut().enumerate() {
            *out = ((a[i] + b[i]) + (c[i] + d[i])) * 0.25;
        }
    }
    scratch.give(x.data);
    Map { data, side: half }
}

/// The image tower up to some stage.
#[derive(Debug)]
pub(super) struct CpuTrunk {
    /// 3×3 of stride 2, as a product over the 27 numbers around a pixel.
    conv1: Linear,
    conv2: Conv3x3,
    conv3: Conv3x3,
    stages: Vec<Vec<Bottleneck>>,
    size: usize,
}

impl CpuTrunk {
    /// The stem and the first `stages` stages.
    pub(super) fn load(
        source: &mut Source<'_>,
        config: &ResnetConfig,
        stages: usize,
    ) -> Result<Self> {
        let [one, two, three] = stem(config);
        let mut conv =
            |(conv, bn, shape): (String, String, _)| Folded::load(source, &conv, &bn, shape);
        let one = conv(one)?;
        let output = one.shape[0];
        // [out, 3, y, x] → the order of a pixel's neighbours, [y, x, 3].
        let weight = |place: usize, o: usize| one.weight[(o * 3 + place % 3) * 9 + place / 3];
        Ok(Self {
            conv1: Linear::new(Packed::new(27, output, weight), one.bias.clone()),
            conv2: conv3x3(conv(two)?),
            conv3: conv3x3(conv(three)?),
            stages: Place::stages(config, stages, |place| Bottleneck::load(source, place))?,
            size: config.size,
        })
    }

    /// Normalised images [n, size, size, 3] → the last stage's maps.
    pub(super) fn forward(&self, images: &[f32], scratch: &mut Scratch) -> Map {
        let pixels = self.size * self.size;
        let together = (EARLY_PIXELS / pixels).max(1);
        let early = self.stages.len().min(EARLY);
        let mut all = Map {
            data: Vec::new(),
            side: 0,
        };
        for images in images.chunks(together * pixels * 3) {
            let mut x = self.stem(images, scratch);
            for stage in 0..early {
                x = self.stage(stage, x, scratch);
            }
            all.side = x.side;
            all.data.extend_from_slice(&x.data);
            scratch.give(x.data);
        }
        for stage in early..self.stages.len() {
            all = self.stage(stage, all, scratch);
        }
        all
    }

    /// How many images `images` holds.
    pub(super) fn images(&self, images: &[f32]) -> usize {
        images.len() / (self.size * self.size * 3)
    }

    /// Images to the map before the first stage, a quarter as long and wide.
    pub(super) fn stem(&self, images: &[f32], scratch: &mut Scratch) -> Map {
        let (size, side) = (self.size, self.size / 2);
        let n = self.images(images);
        let mut around = scratch.take(n * side * side * 27);
        for (i, around) in around.chunks_exact_mut(27).enumerate() {
            let (image, y, x) = (i / (side * side), i / side % side, i % side);
            for (dy, row) in around.chunks_exact_mut(9).enumerate() {
                // Padding is above and left of the first pixel only.
                let Some(y) = (2 * y + dy).checked_sub(1) else {
                    row.fill(0.0);
                    continue;
                };
                let line = &images[(image * size + y) * size * 3..][..size * 3];
                match (2 * x).checked_sub(1) {
                    Some(x) => row.copy_from_slice(&line[x * 3..x * 3 + 9]),
                    None => {
                        row[..3].fill(0.0);
                        row[3..].copy_from_slice(&line[..6]);
                    }
                }
            }
        }
        let one = self.conv1.forward(&around, None, Activation::Relu, scratch);
        scratch.give(around);
        let channels = self.conv1.output();
        let mut two = scratch.take(one.len());
        (self.conv2).forward(&one, [side; 2], Activation::Relu, &mut two, scratch);
        scratch.give(one);
        let mut three = scratch.take(two.len() * 2);
        (self.conv3).forward(&two, [side; 2], Activation::Relu, &mut three, scratch);
        scratch.give(two);
        let three = Map { data: three, side };
        pool(three, 2 * channels, scratch)
    }

    /// Stage `i`, counted from 0.
    pub(super) fn stage(&self, i: usize, x: Map, scratch: &mut Scratch) -> Map {
        (self.stages[i].iter()).fold(x, |x, block| block.forward(x, scratch))
    }
}
