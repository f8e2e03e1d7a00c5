//! Training the tails of both towers: one step of the study's loss.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use burn::{
    module::{Module, ModuleMapper, Param, ParamId},
    tensor::{Device, Int, Tensor, TensorData, activation::log_softmax},
};

use super::{
    checkpoint::Checkpoint,
    tail::{ClipTrunk, ImageTail, Named, Split, TextTail, export, param_id},
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

/// A model in training.
pub struct Trainer {
    trunk: ClipTrunk,
    tails: Tails,
    adamw: Adamw,
    device: Device,
}

#[derive(Module, Debug)]
struct Tails {
    image: ImageTail,
    text: TextTail,
}

impl Trainer {
    /// Loads a model; `blocks` last blocks of the text tower and
    /// `layer4` and `attnpool` of the image tower are trained.
    ///
    /// # Errors
    /// As [`Split::load`].
    pub fn load(
        checkpoint: &Checkpoint,
        blocks: usize,
        weight_decay: f32,
        device: &Device,
    ) -> Result<Self> {
        let Split { trunk, image, text } = Split::load(checkpoint, blocks, device)?;
        Ok(Self {
            trunk,
            tails: Tails { image, text },
            adamw: Adamw::new(weight_decay),
            device: device.clone(),
        })
    }

    /// The image as [`Trainer::step`] takes it, of the tower's size: a batch of
    /// photographs need not be held whole.
    pub fn prepare(&self, image: &Rgb8) -> Rgb8 {
        self.trunk.prepare(image)
    }

    /// One step on `images` of the classes `labels`; `texts[c]` is the text of
    /// class c. z = f / (‖f‖ + 1e-6), logits = `alpha` · zᵢ · zₜᵀ, cross
    /// entropy over the classes, AdamW with rate `rate`.
    ///
    /// # Errors
    /// When there is no image, a label has no text, or the device fails.
    pub fn step(
        &mut self,
        images: &[Rgb8],
        labels: &[usize],
        texts: &[String],
        alpha: f64,
        rate: f64,
    ) -> Result<Learned> {
        ensure!(
            !images.is_empty() && images.len() == labels.len(),
            "train on {} images with {} labels",
            images.len(),
            labels.len()
        );
        ensure!(
            labels.iter().all(|label| *label < texts.len()),
            "a label is beyond the {} classes that have a text",
            texts.len()
        );
        let (n, classes) = (labels.len(), texts.len());
        let image = self.trunk.image_features(images)?.autodiff();
        let (hidden, ends) = self.trunk.text_hidden(texts)?;
        let image = normalize(self.tails.image.forward(image));
        let text = normalize(self.tails.text.forward(hidden.autodiff(), &ends));
        let logits = image.matmul(text.transpose()).mul_scalar(alpha);
        let wanted: Vec<i64> = labels.iter().map(|label| *label as i64).collect();
        let wanted = TensorData::new(wanted, [n, 1]);
        let index = Tensor::<2, Int>::from_data(wanted, &logits.device());
        let loss = log_softmax(logits.clone(), 1).gather(1, index).mean().neg();
        let gradients = loss.backward();
        self.tails = self.adamw.step(rate, self.tails.clone(), &gradients);
        let logits = floats(&logits.inner())?;
        let correct = logits
            .chunks_exact(classes)
            .zip(labels)
            .filter(|(row, label)| largest(row) == **label)
            .count();
        Ok(Learned {
            loss: f64::from(floats(&loss.inner())?.first().copied().unwrap_or(f32::NAN)),
            correct,
        })
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

fn floats<const D: usize>(tensor: &Tensor<D>) -> Result<Vec<f32>> {
    let data = tensor.clone().try_into_data()?;
    data.try_to_vec::<f32>()
        .map_err(|error| anyhow::anyhow!("{error:?}"))
        .context("failed to read numbers from the device")
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
