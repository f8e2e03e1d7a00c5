//! Training the tails of both towers: one step of the study's loss.

use std::collections::HashMap;

use anyhow::{Result, ensure};
use burn::{
    module::{Module, ModuleMapper, Param, ParamId},
    tensor::{Device, Gradients, Int, Tensor, TensorData, activation::log_softmax},
};

use super::{
    checkpoint::Checkpoint,
    layers::Layers,
    rows,
    tail::{ClipTrunk, ImageTail, Named, Split, TextTail, export},
    trained::param_id,
};
use crate::models::{
    adamw::{Adamw, Moments},
    image::Rgb8,
};

/// Added to a feature's length before it divides, as in the study.
const LENGTH_EPSILON: f32 = 1e-6;

/// Everything that training goes on from.
#[derive(Clone, Debug, Default)]
pub struct TrainState {
    /// Steps taken.
    pub steps: usize,
    /// Trained tensors under their names in the checkpoint, f32.
    pub tensors: Vec<Named>,
    /// The optimizer's moments.
    pub moments: Vec<Moments>,
}

/// What one step saw.
#[derive(Clone, Copy, Debug)]
pub struct Learned {
    /// Mean cross entropy of the batch, before the step.
    pub loss: f64,
    /// Images of the batch whose class had the largest logit.
    pub correct: usize,
}

/// What a model makes of images without learning from them.
#[derive(Clone, Debug)]
pub struct Judged {
    /// Their mean cross entropy.
    pub loss: f64,
    /// Of each image, how many classes are ahead of its own; of equal ones those
    /// with a lower index are.
    pub ahead: Vec<usize>,
}

/// What the frozen trunk makes of some images, on the device.
#[derive(Clone, Debug)]
pub struct Features(Tensor<2>);

impl Features {
    /// How many images.
    pub fn len(&self) -> usize {
        self.0.dims()[0]
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of one image's features.
    pub(super) fn row_bytes(&self) -> u64 {
        (self.0.dims()[1] * size_of::<f32>()) as u64
    }

    /// The numbers, one row an image.
    pub(super) fn rows(&self) -> Result<Vec<f32>> {
        rows(self.0.clone())
    }
}

/// A model in training.
pub struct Trainer {
    trunk: ClipTrunk,
    tails: Tails,
    adamw: Adamw,
    device: Device,
    /// The last step's texts and what the trunk made of them.
    texts: Option<(Vec<String>, Tensor<3>, Vec<usize>)>,
}

/// The ends of both towers.
#[derive(Module, Debug)]
pub(super) struct Tails {
    image: ImageTail,
    text: TextTail,
}

impl Trainer {
    /// Loads a model of which `layers` are trained.
    ///
    /// # Errors
    /// As [`Split::load`].
    pub fn load(
        checkpoint: &Checkpoint,
        layers: Layers,
        weight_decay: f32,
        device: &Device,
    ) -> Result<Self> {
        let Split { trunk, image, text } = Split::load(checkpoint, layers, device)?;
        Ok(Self {
            trunk,
            tails: Tails { image, text },
            adamw: Adamw::new(weight_decay),
            device: device.clone(),
            texts: None,
        })
    }

    /// What is below the trained layers.
    pub(super) fn trunk(&self) -> &ClipTrunk {
        &self.trunk
    }

    /// The image as [`Trainer::step`] takes it, of the tower's size: a batch of
    /// photographs need not be held whole.
    pub fn prepare(&self, image: &Rgb8) -> Rgb8 {
        self.trunk.prepare(image)
    }

    /// What the trunk makes of `images`; the same for as long as this trains.
    ///
    /// # Errors
    /// When there is no image, or the device fails.
    pub fn features(&self, images: &[Rgb8]) -> Result<Features> {
        Ok(Features(self.trunk.image_features(images)?))
    }

    /// Features from rows that [`Features::rows`] gave.
    pub(super) fn features_of(&self, all: &[&[f32]]) -> Result<Features> {
        let length = all.first().map_or(0, |row| row.len());
        ensure!(
            all.iter().all(|row| row.len() == length),
            "the features of some images have another length"
        );
        let data = TensorData::new(all.concat(), [all.len(), length]);
        let device = self.device.clone().without_autodiff();
        Ok(Features(Tensor::from_data(data, &device)))
    }

    /// One step on images with these features, of the classes `labels`;
    /// `texts[c]` is the text of class c. z = f / (‖f‖ + 1e-6), logits =
    /// `alpha` · zᵢ · zₜᵀ, cross entropy over the classes, AdamW with rate `rate`.
    ///
    /// # Errors
    /// When there is no image, a label has no text, or the device fails.
    pub fn step(
        &mut self,
        features: &Features,
        labels: &[usize],
        texts: &[String],
        alpha: f64,
        rate: f64,
    ) -> Result<Learned> {
        self.step_seen(features, labels, texts, alpha, rate, &mut |_, _| {})
    }

    /// As [`Trainer::step`]; `see` is shown the parameters before the step, and
    /// their gradients.
    pub(super) fn step_seen(
        &mut self,
        features: &Features,
        labels: &[usize],
        texts: &[String],
        alpha: f64,
        rate: f64,
        see: &mut dyn FnMut(&Tails, &Gradients),
    ) -> Result<Learned> {
        let logits = self.logits(features, labels, texts, alpha)?;
        let loss = cross_entropy(&logits, labels);
        let gradients = loss.backward();
        see(&self.tails, &gradients);
        self.tails = self.adamw.step(rate, self.tails.clone(), &gradients);
        learned(&logits, &loss, labels)
    }

    /// The loss of [`Trainer::step`] and where each image's class stands, without
    /// a step.
    ///
    /// # Errors
    /// As [`Trainer::step`].
    pub fn judge(
        &mut self,
        features: &Features,
        labels: &[usize],
        texts: &[String],
        alpha: f64,
    ) -> Result<Judged> {
        let logits = self.logits(features, labels, texts, alpha)?;
        let loss = cross_entropy(&logits, labels);
        let Learned { loss, .. } = learned(&logits, &loss, labels)?;
        let ahead = rows(logits.inner())?
            .chunks_exact(texts.len())
            .zip(labels)
            .map(|(row, label)| {
                let own = row[*label];
                let before = row[..*label].iter().filter(|x| **x >= own);
                before.count() + row[*label..].iter().filter(|x| **x > own).count()
            })
            .collect();
        Ok(Judged { loss, ahead })
    }

    /// `alpha` · zᵢ · zₜᵀ, [n, classes].
    fn logits(
        &mut self,
        Features(features): &Features,
        labels: &[usize],
        texts: &[String],
        alpha: f64,
    ) -> Result<Tensor<2>> {
        let n = features.dims()[0];
        ensure!(
            n > 0 && n == labels.len(),
            "train on {n} images with {} labels",
            labels.len()
        );
        ensure!(
            labels.iter().all(|label| *label < texts.len()),
            "a label is beyond the {} classes that have a text",
            texts.len()
        );
        let (hidden, ends) = self.text_hidden(texts)?;
        let image = normalize(self.tails.image.forward(features.clone().autodiff()));
        let text = normalize(self.tails.text.forward(hidden.autodiff(), &ends));
        Ok(image.matmul(text.transpose()).mul_scalar(alpha))
    }

    /// As [`ClipTrunk::text_hidden`], which is asked only for other texts than
    /// those of the last step.
    fn text_hidden(&mut self, texts: &[String]) -> Result<(Tensor<3>, Vec<usize>)> {
        if let Some((same, hidden, ends)) = &self.texts
            && same == texts
        {
            return Ok((hidden.clone(), ends.clone()));
        }
        let (hidden, ends) = self.trunk.text_hidden(texts)?;
        self.texts = Some((texts.to_vec(), hidden.clone(), ends.clone()));
        Ok((hidden, ends))
    }

    /// The state after the steps so far.
    ///
    /// # Errors
    /// When the device fails.
    pub fn state(&self) -> Result<TrainState> {
        Ok(TrainState {
            steps: self.adamw.steps(),
            tensors: export(&self.tails, self.trunk.config())?,
            moments: self.adamw.moments()?,
        })
    }

    /// Goes on from `state`.
    ///
    /// # Errors
    /// When it is the state of another model.
    pub fn restore(&mut self, state: TrainState) -> Result<()> {
        let mut put = Put {
            values: state
                .tensors
                .into_iter()
                .map(|(name, data)| (param_id(&name), data))
                .collect(),
            device: self.device.clone(),
            problem: None,
        };
        self.tails = self.tails.clone().map(&mut put);
        if let Some(problem) = put.problem {
            return Err(problem.context("failed to go on from a checkpoint"));
        }
        ensure!(
            put.values.is_empty(),
            "the checkpoint holds tensors that this model does not train"
        );
        self.adamw.restore(state.steps, state.moments, &self.device)
    }
}

/// Rows divided by their length plus [`LENGTH_EPSILON`].
fn normalize(features: Tensor<2>) -> Tensor<2> {
    let length = features.clone().square().sum_dim(1).sqrt();
    features / length.add_scalar(LENGTH_EPSILON)
}

/// Index of the largest number, the first of equal ones.
fn largest(row: &[f32]) -> usize {
    let mut best = 0;
    for (i, x) in row.iter().enumerate() {
        if *x > row[best] {
            best = i;
        }
    }
    best
}

/// The mean cross entropy of rows of logits, [1].
pub(super) fn cross_entropy(logits: &Tensor<2>, labels: &[usize]) -> Tensor<1> {
    let wanted: Vec<i64> = labels.iter().map(|label| *label as i64).collect();
    let wanted = TensorData::new(wanted, [labels.len(), 1]);
    let index = Tensor::<2, Int>::from_data(wanted, &logits.device());
    (log_softmax(logits.clone(), 1).gather(1, index))
        .mean()
        .neg()
}

/// The loss, and how many logits are largest at their label.
pub(super) fn learned(logits: &Tensor<2>, loss: &Tensor<1>, labels: &[usize]) -> Result<Learned> {
    let classes = logits.dims()[1];
    let logits = rows(logits.clone().inner())?;
    let correct = (logits.chunks_exact(classes).zip(labels))
        .filter(|(row, label)| largest(row) == **label)
        .count();
    let loss = rows(loss.clone().inner())?;
    Ok(Learned {
        loss: f64::from(loss.first().copied().unwrap_or(f32::NAN)),
        correct,
    })
}

/// Puts values into parameters by their identity.
struct Put {
    values: HashMap<ParamId, TensorData>,
    device: Device,
    problem: Option<anyhow::Error>,
}

impl ModuleMapper for Put {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (id, tensor, mapper) = param.consume();
        let tensor = match self.values.remove(&id) {
            Some(data) if data.shape().as_slice().to_vec() == tensor.dims().to_vec() => {
                Tensor::from_data(data, &self.device)
                    .autodiff()
                    .require_grad()
            }
            other => {
                let what = if other.is_some() {
                    "has another shape"
                } else {
                    "is missing"
                };
                self.problem
                    .get_or_insert_with(|| anyhow::anyhow!("a trained tensor {what}"));
                tensor
            }
        };
        Param::from_mapped_value(id, tensor, mapper)
    }
}
