//! Context optimization: the words before a class's name as vectors that are learnt.
//!
//! Zhou et al. 2022, "Learning to Prompt for Vision-Language Models" (`CoOp`),
//! equation 3 and section 3.2; `CoOp`'s `trainers/coop.py`. A prompt is the start
//! token, the context, the class's name, a full stop and the end token. Both
//! towers stay as they are; the gradient passes through the text tower to the
//! context, which SGD moves.

use anyhow::{Result, ensure};
use burn::tensor::{DType, Device, Tensor, TensorData};

use super::{
    checkpoint::{self, Checkpoint},
    normalize, rows,
    tensors::Source,
    text::TextTower,
    tokenizer::{Tokenizer, TooLong},
    train::{Learned, cross_entropy, learned},
};

/// What the context is before the first step.
#[derive(Clone, Copy, Debug)]
pub enum Start<'a> {
    /// These vectors: [length, width] for all classes, or [classes, length, width].
    Vectors(&'a [f32]),
    /// The embeddings of this text's tokens.
    Text(&'a str),
}

/// Everything that training goes on from.
#[derive(Clone, Debug, PartialEq)]
pub struct CoopState {
    /// The context, flat.
    pub context: Vec<f32>,
    /// SGD's momentum, as long; empty before the first step.
    pub momentum: Vec<f32>,
}

/// A context in training, in f32.
pub struct Coop {
    tower: TextTower,
    /// The start token, [classes, 1, width].
    before: Tensor<3>,
    /// Name, full stop, end token and padding, [classes, places, width].
    after: Tensor<3>,
    /// Where each prompt ends.
    ends: Vec<usize>,
    /// [1, length, width] for all classes, or [classes, length, width].
    context: Tensor<3>,
    momentum: Option<Tensor<3>>,
    /// The factor of the logits.
    scale: f32,
    device: Device,
}

/// What SGD is told.
#[derive(Clone, Copy, Debug)]
pub struct Sgd {
    /// Learning rate of this step.
    pub rate: f64,
    /// Factor of the last steps' direction.
    pub momentum: f64,
    /// Factor of the context that is added to its gradient.
    pub weight_decay: f64,
}

impl Coop {
    /// Loads the text tower for these classes. `specific` gives every class a
    /// context of its own.
    ///
    /// # Errors
    /// As [`Clip::load`](super::Clip::load); also when a prompt is longer than
    /// the model's context, there is no class, or the vectors do not fit.
    pub fn load(
        checkpoint: &Checkpoint,
        classes: &[String],
        start: Start<'_>,
        specific: bool,
        device: &Device,
    ) -> Result<Self> {
        let config = checkpoint.config();
        let mut weights = checkpoint.checked()?;
        let scale = checkpoint::logit_scale(&mut weights)?;
        let device = device.clone().autodiff();
        let source = &mut Source {
            weights: &mut weights,
            dtype: DType::F32,
            device: &device,
        };
        let tower = TextTower::load(source, config)?;
        let n = classes.len();
        ensure!(n > 0, "learn a context for no class");
        let contexts = if specific { n } else { 1 };
        let width = config.text.transformer.width;
        let tokenizer = checkpoint.tokenizer(TooLong::Refuse)?;
        let context: Tensor<3> = match start {
            Start::Vectors(values) => {
                let length = values.len() / (contexts * width);
                ensure!(
                    length > 0 && values.len() == contexts * length * width,
                    "start with {} numbers: a context is made of vectors of {width}",
                    values.len()
                );
                let data = TensorData::new(values.to_vec(), [contexts, length, width]);
                Tensor::from_data(data, &device)
            }
            Start::Text(text) => {
                let tokens = tokenizer.tokenize(text, config.text.context)?;
                let words: Vec<i32> = (tokens.ids[1..tokens.end()].iter())
                    .map(|id| *id as i32)
                    .collect();
                ensure!(!words.is_empty(), "start with the words of an empty text");
                tower
                    .trunk
                    .embed(words)
                    .unsqueeze::<3>()
                    .repeat_dim(0, contexts)
            }
        };
        let prompts = Prompts::new(&tokenizer, classes, context.dims()[1], config.text.context)?;
        let places = prompts.after.len() / n;
        let embed = |ids: Vec<i32>| tower.trunk.embed(ids);
        Ok(Self {
            before: embed(prompts.before).reshape([n, 1, width]),
            after: embed(prompts.after).reshape([n, places, width]),
            ends: prompts.ends,
            context: context.detach().require_grad(),
            momentum: None,
            scale,
            device,
            tower,
        })
    }

    /// How many vectors a class's context has.
    pub fn length(&self) -> usize {
        self.context.dims()[1]
    }

    /// One step on images with these embeddings, [n, `embed_dim`] of length 1 each,
    /// of the classes `labels`: logits = exp(`logit_scale`) · image · text, cross
    /// entropy over the classes, SGD as `PyTorch` has it.
    ///
    /// # Errors
    /// When there is no image, their numbers do not fit, a label is no class, or
    /// the device fails.
    pub fn step(&mut self, images: &[f32], labels: &[usize], sgd: Sgd) -> Result<Learned> {
        let (learned, gradient) = self.gradient(images, labels)?;
        let context = self.context.clone().inner();
        let direction = gradient + context.clone() * sgd.weight_decay;
        let direction = match self.momentum.take() {
            Some(last) => last * sgd.momentum + direction,
            None => direction,
        };
        let context = context - direction.clone() * sgd.rate;
        self.momentum = Some(direction);
        self.context = context.autodiff().require_grad();
        Ok(learned)
    }

    /// What [`Coop::step`] sees, and the context's gradient.
    pub(super) fn gradient(
        &self,
        images: &[f32],
        labels: &[usize],
    ) -> Result<(Learned, Tensor<3>)> {
        let (n, classes) = (labels.len(), self.ends.len());
        let texts = self.texts();
        let embed = texts.dims()[1];
        ensure!(
            n > 0 && images.len() == n * embed,
            "train on {} numbers with {n} labels: an image has {embed}",
            images.len()
        );
        ensure!(
            labels.iter().all(|label| *label < classes),
            "a label is beyond the {classes} classes"
        );
        let images = TensorData::new(images.to_vec(), [n, embed]);
        let images = Tensor::<2>::from_data(images, &self.device);
        let length = texts.clone().square().sum_dim(1).sqrt();
        let logits = images.matmul((texts / length).transpose()) * self.scale;
        let loss = cross_entropy(&logits, labels);
        let gradients = loss.backward();
        let gradient = self.context.grad(&gradients);
        let gradient = gradient.ok_or_else(|| anyhow::anyhow!("the context has no gradient"))?;
        Ok((learned(&logits, &loss, labels)?, gradient.inner()))
    }

    /// The embedding of each class's prompt, row-major [classes, `embed_dim`], each
    /// of length 1.
    ///
    /// # Errors
    /// When the device fails, or a number is not finite.
    pub fn embeddings(&self) -> Result<Vec<f32>> {
        let texts = self.texts();
        let embed = texts.dims()[1];
        let mut rows = rows(texts.inner())?;
        for row in rows.chunks_exact_mut(embed) {
            normalize(row)?;
        }
        Ok(rows)
    }

    /// Features of each class's prompt, [classes, embed], not normalised.
    fn texts(&self) -> Tensor<2> {
        let classes = self.ends.len();
        let context = match self.context.dims()[0] {
            1 => self.context.clone().repeat_dim(0, classes),
            _ => self.context.clone(),
        };
        let x = Tensor::cat(vec![self.before.clone(), context, self.after.clone()], 1);
        let hidden = self.tower.trunk.trace_embedded(x, |_| {});
        self.tower.head.forward(hidden, &self.ends)
    }

    /// The state after the steps so far.
    ///
    /// # Errors
    /// When the device fails.
    pub fn state(&self) -> Result<CoopState> {
        Ok(CoopState {
            context: rows(self.context.clone().inner())?,
            momentum: match &self.momentum {
                Some(momentum) => rows(momentum.clone())?,
                None => Vec::new(),
            },
        })
    }

    /// Goes on from `state`.
    ///
    /// # Errors
    /// When it is the state of another context.
    pub fn restore(&mut self, state: CoopState) -> Result<()> {
        let shape = self.context.dims();
        let numbers: usize = shape.iter().product();
        ensure!(
            state.context.len() == numbers && [0, numbers].contains(&state.momentum.len()),
            "go on from a context of {} numbers: this one has {numbers}",
            state.context.len()
        );
        let device = self.device.clone().without_autodiff();
        let tensor = |values| Tensor::<3>::from_data(TensorData::new(values, shape), &device);
        self.context = tensor(state.context).autodiff().require_grad();
        self.momentum = (!state.momentum.is_empty()).then(|| tensor(state.momentum));
        Ok(())
    }
}

/// Ids of the tokens around the context, row after row of one length.
struct Prompts {
    before: Vec<i32>,
    after: Vec<i32>,
    ends: Vec<usize>,
}

impl Prompts {
    /// Those of `classes`, whose contexts take `length` places of `most`.
    fn new(tokenizer: &Tokenizer, classes: &[String], length: usize, most: usize) -> Result<Self> {
        // As the reference does: words that make one token each hold the places.
        let place = "X ".repeat(length);
        let mut all = Vec::with_capacity(classes.len());
        for class in classes {
            let text = format!("{place}{}.", class.replace('_', " "));
            let tokens = tokenizer.tokenize(&text, most)?;
            ensure!(
                tokens.end() > length + 1,
                "class `{class}` has a name without a token"
            );
            all.push(tokens);
        }
        let longest = all
            .iter()
            .map(super::tokenizer::Tokens::end)
            .max()
            .unwrap_or(0);
        let row = |tokens: &super::Tokens| -> Vec<i32> {
            let ids = tokens.ids.iter().copied().chain(std::iter::repeat(0));
            (ids.take(longest + 1).skip(1 + length).map(|id| id as i32)).collect()
        };
        Ok(Self {
            before: all.iter().map(|tokens| tokens.ids[0] as i32).collect(),
            after: all.iter().flat_map(row).collect(),
            ends: all.iter().map(super::tokenizer::Tokens::end).collect(),
        })
    }
}
