//! The image tower: CLIP's `ModifiedResNet` with its batch normalizations
//! folded into the convolutions.
//!
//! Radford et al. 2021, section 2.4; `open_clip` `modified_resnet.py`. A stem of
//! three convolutions, then bottlenecks that pool before they shrink.

use anyhow::Result;
use burn::tensor::{
    Tensor,
    activation::relu,
    module::{avg_pool2d, conv2d},
    ops::{AvgPoolOptions, ConvOptions},
};

use super::{
    attnpool::AttentionPool,
    config::ResnetConfig,
    tensors::{Scaling, Source},
};
use crate::models::weights::Expected;

/// A bottleneck's output has this many times the channels of its middle.
pub(super) const EXPANSION: usize = 4;

/// A convolution followed by a frozen batch normalization, as one.
#[derive(Clone, Debug)]
pub(super) struct Conv {
    /// [out, in, side, side].
    pub(super) weight: Tensor<4>,
    /// [out].
    pub(super) bias: Tensor<1>,
}

/// The numbers of a [`Conv`] on the host.
pub(super) struct Folded {
    /// [out, in, side, side].
    pub(super) weight: Vec<f32>,
    /// [out].
    pub(super) bias: Vec<f32>,
    pub(super) shape: [usize; 4],
}

impl Folded {
    /// Folds the convolution `conv` and the normalization `bn`.
    pub(super) fn load(
        source: &mut Source<'_>,
        conv: &str,
        bn: &str,
        shape: [usize; 4],
    ) -> Result<Self> {
        let mut weight = source.weights.take_f32(&format!("{conv}.weight"), &shape)?;
        let scaling = Scaling::load(source.weights, bn, shape[0])?;
        let mut bias = scaling.bias;
        let filters = weight.chunks_exact_mut(shape[1] * shape[2] * shape[3]);
        for (channel, filter) in filters.enumerate() {
            let factor = scaling.weight[channel] * scaling.precision[channel];
            bias[channel] -= scaling.mean[channel] * factor;
            for value in filter {
                *value *= factor;
            }
        }
        Ok(Self {
            weight,
            bias,
            shape,
        })
    }
}

impl Conv {
    fn load(source: &mut Source<'_>, conv: &str, bn: &str, shape: [usize; 4]) -> Result<Self> {
        let folded = Folded::load(source, conv, bn, shape)?;
        Ok(Self {
            weight: source.upload(folded.weight, shape),
            bias: source.upload(folded.bias, [shape[0]]),
        })
    }

    /// [n, in, h, w] → [n, out, h / stride, w / stride].
    pub(super) fn forward(&self, x: Tensor<4>, stride: usize) -> Tensor<4> {
        let side = self.weight.dims()[2];
        let padding = side / 2;
        let options = ConvOptions::new([stride; 2], [padding; 2], [1; 2], 1);
        conv2d(x, self.weight.clone(), Some(self.bias.clone()), options)
    }
}

/// Averages squares of `side` pixels.
fn pool(x: Tensor<4>, side: usize) -> Tensor<4> {
    if side == 1 {
        x
    } else {
        avg_pool2d(x, AvgPoolOptions::new([side; 2]))
    }
}

/// A residual block: 1×1, 3×3, pool, 1×1.
#[derive(Clone, Debug)]
pub(super) struct Bottleneck {
    pub(super) conv1: Conv,
    pub(super) conv2: Conv,
    pub(super) conv3: Conv,
    /// Fits the input to the output where their shapes differ.
    pub(super) downsample: Option<Conv>,
    pub(super) stride: usize,
}

impl Bottleneck {
    fn load(source: &mut Source<'_>, place: &Place) -> Result<Self> {
        let mut conv = |conv: &str, bn: &str, shape| {
            Conv::load(source, &place.name(conv), &place.name(bn), shape)
        };
        let [one, two, three, four] = place.shapes();
        Ok(Self {
            conv1: conv("conv1", "bn1", one)?,
            conv2: conv("conv2", "bn2", two)?,
            conv3: conv("conv3", "bn3", three)?,
            downsample: (place.downsamples())
                .then(|| conv("downsample.0", "downsample.1", four))
                .transpose()?,
            stride: place.stride,
        })
    }

    /// [n, c, h, w] → [n, c', h / stride, w / stride].
    pub(super) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let shortcut = match &self.downsample {
            Some(conv) => conv.forward(pool(x.clone(), self.stride), 1),
            None => x.clone(),
        };
        let x = relu(self.conv1.forward(x, 1));
        let x = relu(self.conv2.forward(x, 1));
        let x = self.conv3.forward(pool(x, self.stride), 1);
        relu(x + shortcut)
    }
}

/// Where a bottleneck stands, and what follows from it.
#[derive(Clone, Debug)]
pub(super) struct Place {
    prefix: String,
    input: usize,
    middle: usize,
    pub(super) stride: usize,
}

impl Place {
    /// The bottlenecks of stage 1 to 4, in order.
    pub(super) fn stage(config: &ResnetConfig, stage: usize) -> Vec<Self> {
        let middle = config.width << (stage - 1);
        let before = if stage == 1 {
            config.width
        } else {
            middle / 2 * EXPANSION
        };
        (0..config.layers[stage - 1])
            .map(|block| Self {
                prefix: format!("visual.layer{stage}.{block}"),
                input: if block == 0 {
                    before
                } else {
                    middle * EXPANSION
                },
                middle,
                stride: if block == 0 && stage > 1 { 2 } else { 1 },
            })
            .collect()
    }

    /// What `load` makes of each bottleneck of the first `stages` stages.
    pub(super) fn stages<B>(
        config: &ResnetConfig,
        stages: usize,
        mut load: impl FnMut(&Self) -> Result<B>,
    ) -> Result<Vec<Vec<B>>> {
        (1..=stages)
            .map(|stage| Self::stage(config, stage).iter().map(&mut load).collect())
            .collect()
    }

    pub(super) fn name(&self, part: &str) -> String {
        format!("{}.{part}", self.prefix)
    }

    pub(super) fn downsamples(&self) -> bool {
        self.stride > 1 || self.input != self.middle * EXPANSION
    }

    /// Of the three convolutions and the one of the shortcut.
    pub(super) fn shapes(&self) -> [[usize; 4]; 4] {
        let (input, middle, output) = (self.input, self.middle, self.middle * EXPANSION);
        [
            [middle, input, 1, 1],
            [middle, middle, 3, 3],
            [output, middle, 1, 1],
            [output, input, 1, 1],
        ]
    }

    /// Convolution, normalization and shape of each pair that exists.
    pub(super) fn convs(&self) -> Vec<(String, String, [usize; 4])> {
        let names = [
            ("conv1", "bn1"),
            ("conv2", "bn2"),
            ("conv3", "bn3"),
            ("downsample.0", "downsample.1"),
        ];
        (names.iter().zip(self.shapes()))
            .take(if self.downsamples() { 4 } else { 3 })
            .map(|((conv, bn), shape)| (self.name(conv), self.name(bn), shape))
            .collect()
    }
}

/// The image tower up to some stage.
#[derive(Clone, Debug)]
pub(super) struct Trunk {
    stem: [Conv; 3],
    stages: Vec<Vec<Bottleneck>>,
}

/// Names and shapes of the stem.
pub(super) fn stem(config: &ResnetConfig) -> [(String, String, [usize; 4]); 3] {
    let half = config.width / 2;
    [
        (1, [half, 3, 3, 3]),
        (2, [half, half, 3, 3]),
        (3, [config.width, half, 3, 3]),
    ]
    .map(|(i, shape)| (format!("visual.conv{i}"), format!("visual.bn{i}"), shape))
}

impl Trunk {
    /// The stem and the first `stages` stages.
    pub(super) fn load(
        source: &mut Source<'_>,
        config: &ResnetConfig,
        stages: usize,
    ) -> Result<Self> {
        let [one, two, three] = stem(config);
        let mut conv =
            |(conv, bn, shape): (String, String, _)| Conv::load(source, &conv, &bn, shape);
        let stem = [conv(one)?, conv(two)?, conv(three)?];
        let stages = Place::stages(config, stages, |place| Bottleneck::load(source, place))?;
        Ok(Self { stem, stages })
    }

    /// Calls `stage` with the result of the stem and of each stage.
    pub(super) fn trace(
        &self,
        images: Tensor<4>,
        mut stage: impl FnMut(&str, &Tensor<4>),
    ) -> Tensor<4> {
        let [one, two, three] = &self.stem;
        let x = relu(one.forward(images, 2));
        let x = relu(two.forward(x, 1));
        let mut x = pool(relu(three.forward(x, 1)), 2);
        stage("stem", &x);
        for (i, blocks) in self.stages.iter().enumerate() {
            for block in blocks {
                x = block.forward(x);
            }
            stage(["layer1", "layer2", "layer3", "layer4"][i], &x);
        }
        x
    }

    /// Normalised images [n, 3, side, side] → features [n, c, h, w].
    pub(super) fn forward(&self, images: Tensor<4>) -> Tensor<4> {
        self.trace(images, |_, _| {})
    }
}

/// The whole image tower.
#[derive(Clone, Debug)]
pub(super) struct ModifiedResNet {
    pub(super) trunk: Trunk,
    pub(super) attnpool: AttentionPool,
}

impl ModifiedResNet {
    pub(super) fn load(
        source: &mut Source<'_>,
        config: &ResnetConfig,
        embed: usize,
    ) -> Result<Self> {
        Ok(Self {
            trunk: Trunk::load(source, config, 4)?,
            attnpool: AttentionPool::load(source, config, embed)?,
        })
    }

    /// Normalised images [n, 3, side, side] → features [n, embed].
    pub(super) fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let x = self.trunk.forward(images);
        let [n, c, h, w] = x.dims();
        self.attnpool
            .forward(x.reshape([n, c, h * w]).swap_dims(1, 2))
    }
}

/// Every tensor of the image tower's convolutions.
pub(super) fn expected(config: &ResnetConfig) -> Vec<Expected> {
    let stages = (1..=4).flat_map(|stage| Place::stage(config, stage));
    let convs = stages.flat_map(|place| place.convs());
    (stem(config).into_iter().chain(convs))
        .flat_map(|(conv, bn, shape)| {
            let mut all = vec![(format!("{conv}.weight"), shape.to_vec())];
            for part in ["weight", "bias", "running_mean", "running_var"] {
                all.push((format!("{bn}.{part}"), vec![shape[0]]));
            }
            all
        })
        .collect()
}
