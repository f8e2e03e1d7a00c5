//! `finetune`: trains the last layers of both towers of a CLIP model on a
//! labelled split; its artifact is a model folder.

mod checkpoint;
mod prompts;
mod training;
mod validation;

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::{
    checkpoint::{Checkpoint, Epoch},
    prompts::{pick, texts},
    training::Training,
    validation::{Measured, Validation},
};
use crate::{
    artifact::{Content, LabelUse, Output, Type, json_bytes},
    models::clip::{ImageLayers, Layers, TextLayers, write_folder},
    node::{
        Accept, CLIP_CONFIG, CLIP_WEIGHTS, Complaint, Ctx, Done, Inputs, Item, Keep, Kind, Node,
        Pool, Port,
    },
    nodes::{draw::Draw, epochs, held::Held},
};

/// Raised when the numbers of an epoch change.
const ITEM_VERSION: u32 = 2;
/// Names the draws of this kind.
const DRAWS: &str = "runner finetune draws v1";

/// When a class with several prompts draws another one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Redraw {
    /// Once an epoch.
    #[default]
    Epoch,
    /// For every batch.
    Batch,
}

/// Parameters of `finetune`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Finetune {
    /// Passes over the training images.
    #[serde(default = "ten")]
    #[schemars(range(min = 1))]
    epochs: usize,
    /// AdamW's learning rate.
    #[serde(default = "rate")]
    learning_rate: f64,
    /// AdamW's decoupled weight decay.
    #[serde(default)]
    weight_decay: f64,
    /// Images in a step; changes the result.
    #[serde(default = "batch_size")]
    #[schemars(range(min = 1))]
    batch_size: usize,
    /// Factor of the cosine similarities in the loss.
    #[serde(default = "alpha")]
    alpha: f64,
    /// Layers of the image tower that are trained: "layer4+attnpool" or
    /// "layer4.last+attnpool" of a `ModifiedResNet`, "resblocks[-2:]" (any number) of
    /// a ViT, "none"; "auto" is the first or the third.
    #[serde(default)]
    image_layers: ImageLayers,
    /// Layers of the text tower that are trained: "resblocks[-2:]" (any number) or
    /// "none".
    #[serde(default)]
    text_layers: TextLayers,
    /// When a class with several prompts draws another one.
    #[serde(default)]
    redraw: Redraw,
    /// Order and draws differ between seeds; the file's `seed` by default.
    #[serde(default)]
    seed: u64,
    /// Order and draws differ between streams; the round by default.
    #[serde(default)]
    stream: u64,
    #[serde(skip)]
    #[schemars(skip)]
    held: Held<Training>,
}

fn ten() -> usize {
    10
}
fn rate() -> f64 {
    1e-5
}
fn batch_size() -> usize {
    128
}
fn alpha() -> f64 {
    50.0
}

impl Node for Finetune {
    fn output(&self, _: &BTreeSet<&str>) -> Type {
        Type::Weights
    }

    fn check(&self, ports: &BTreeSet<&str>) -> Vec<Complaint> {
        let mut out = Vec::new();
        let mut complain = |field, message: String, hint: &str| {
            out.push(Complaint {
                field: Some(field),
                message,
                hint: Some(hint.to_owned()),
            });
        };
        if !(self.learning_rate > 0.0 && self.learning_rate <= 1.0) {
            complain(
                "learning_rate",
                format!("{} is no learning rate", self.learning_rate),
                "1e-5 is the study's scale; it must be above 0 and at most 1",
            );
        }
        if !(self.weight_decay >= 0.0 && self.weight_decay.is_finite()) {
            complain(
                "weight_decay",
                format!("{} is no weight decay", self.weight_decay),
                "0 turns it off",
            );
        }
        if !(self.alpha > 0.0 && self.alpha.is_finite()) {
            complain(
                "alpha",
                format!("{} is no scale", self.alpha),
                "the study has 50",
            );
        }
        for (field, value) in [("epochs", self.epochs), ("batch_size", self.batch_size)] {
            if value == 0 {
                complain(
                    field,
                    "must be at least 1".to_owned(),
                    "write a whole number above 0",
                );
            }
        }
        if self.image_layers == ImageLayers::None && self.text_layers == TextLayers::None {
            complain(
                "text_layers",
                "nothing is trained".to_owned(),
                "name the layers of one tower, such as text_layers = \"resblocks[-2:]\"",
            );
        }
        if ports.contains("validation_prompts") && !ports.contains("validation") {
            complain(
                "validation_prompts",
                "there are no images to measure with them".to_owned(),
                "add `validation = …`, a split such as \"cifar10.test\"",
            );
        }
        out
    }

    fn pool(&self, _: &Inputs) -> Pool {
        Pool::Model
    }

    fn space(&self, inputs: &Inputs) -> Result<Option<Value>> {
        let model = inputs.model("model")?;
        let train = inputs.split("train")?;
        // Before anything is computed, and in words that `auto` does not hide.
        let layers = self.layers().resolve(model.checkpoint()?.config())?;
        Ok(Some(json!({
            "model": model.parts(),
            "dtype": model.dtype,
            "images": train.images_digest(),
            "labels": train.labels_digest(),
            "prompts": texts(inputs, "prompts")?,
            "learning_rate": self.learning_rate,
            "weight_decay": self.weight_decay,
            "batch_size": self.batch_size,
            "alpha": self.alpha,
            "image_layers": layers.image,
            "text_layers": layers.text,
            "redraw": self.redraw,
            "seed": self.seed,
            "stream": self.stream,
            "version": ITEM_VERSION,
        })))
    }

    /// An epoch is an item: a killed run goes on after the last whole one, and
    /// more epochs cost only themselves.
    fn items(&self, _: &Inputs, done: &Done) -> Result<Vec<Item>> {
        Ok(epochs::items(done, self.epochs))
    }

    fn batch(&self, _: Option<usize>) -> usize {
        1
    }

    fn compute(
        &self,
        inputs: &Inputs,
        batch: &[Item],
        done: &Done,
        keep: &mut Keep<'_>,
        ctx: &mut Ctx<'_>,
    ) -> Result<()> {
        let epoch = epochs::of_batch(batch)?;
        let train = inputs.split("train")?;
        let prompts = texts(inputs, "prompts")?;
        ensure!(
            prompts.len() == train.classes().names().len(),
            "`prompts` has texts for {} classes, but `train` has {}\nhint: give both the same `classes`",
            prompts.len(),
            train.classes().names().len()
        );
        let mut training = self.training(inputs, done, ctx)?;
        let draw = |purpose| Draw::of_epoch(DRAWS, self.seed, self.stream, epoch, purpose);
        let order = draw("order").order(train.len());
        let mut draw = draw("prompts");
        let mut chosen = pick(&prompts, &mut draw);
        let (mut loss, mut right) = (0.0, 0);
        let steps = order.len().div_ceil(self.batch_size) as u64;
        for (step, chunk) in order.chunks(self.batch_size).enumerate() {
            if (ctx.stop)() {
                return Ok(());
            }
            if self.redraw == Redraw::Batch && step > 0 {
                chosen = pick(&prompts, &mut draw);
            }
            let features = training.features(train, chunk)?;
            let labels: Vec<usize> = chunk.iter().map(|i| train.labels()[*i]).collect();
            let learned = (training.trainer).step(
                &features,
                &labels,
                &chosen,
                self.alpha,
                self.learning_rate,
            )?;
            ensure!(
                learned.loss.is_finite(),
                "the loss is no longer finite at step {} of epoch {}\nhint: a smaller `learning_rate` may help",
                step + 1,
                epoch + 1
            );
            loss += learned.loss * chunk.len() as f64;
            right += learned.correct;
            (ctx.progress)(step as u64 + 1, steps, "steps");
        }
        let checkpoint = Checkpoint {
            state: training.trainer.state()?,
            epoch: Epoch {
                loss: loss / train.len().max(1) as f64,
                accuracy: 100.0 * right as f64 / train.len().max(1) as f64,
            },
        };
        let value = checkpoint.encode()?;
        let space = self.space(inputs)?.unwrap_or_default();
        self.held.put(training, space, &value);
        keep(0, value)
    }

    fn finish(&self, inputs: &Inputs, done: &Done, ctx: &mut Ctx<'_>) -> Result<Output> {
        let train = inputs.split("train")?;
        let mut validation = self.validation(inputs, done, ctx)?;
        let mut curve = Vec::new();
        let mut last = None;
        for (i, (_, value)) in done.list.iter().enumerate() {
            let Checkpoint { state, epoch } = Checkpoint::decode(value)?;
            let measured = match &mut validation {
                Some(validation) => Some(validation.measure(state.clone(), self.alpha, ctx)?),
                None => None,
            };
            (ctx.progress)(i as u64 + 1, done.len() as u64, "epochs measured");
            curve.push(Point {
                epoch,
                validation: measured,
            });
            last = Some(state);
        }
        drop(validation);
        let state = last.context("no epoch was trained")?;
        let folder = tempfile::tempdir()?;
        write_folder(
            folder.path(),
            &inputs.model("model")?.checkpoint()?,
            &state.tensors,
        )?;
        let read = |name: &str| -> Result<(String, Content)> {
            Ok((
                name.to_owned(),
                Content::Bytes(fs_err::read(folder.path().join(name))?),
            ))
        };
        let labels = vec![LabelUse {
            data: train.labels_digest(),
            split: train.name().to_owned(),
            rows: "all".to_owned(),
        }];
        Ok(Output {
            r#type: Type::Weights,
            files: vec![
                read(CLIP_CONFIG)?,
                read(CLIP_WEIGHTS)?,
                ("curve.json".to_owned(), Content::Bytes(json_bytes(&curve)?)),
            ],
            labels,
        })
    }
}

impl Finetune {
    /// The layers that are trained.
    fn layers(&self) -> Layers {
        Layers {
            image: self.image_layers,
            text: self.text_layers,
        }
    }

    /// A trainer in the state after the last epoch that is done.
    fn training(&self, inputs: &Inputs, done: &Done, ctx: &mut Ctx<'_>) -> Result<Training> {
        let space = self.space(inputs)?.unwrap_or_default();
        let last = done.list.last().map(|(_, value)| value.as_ref());
        if let Some(training) = self.held.take(&space, last) {
            return Ok(training);
        }
        let device = ctx.models()?.device()?;
        let files = inputs.model("model")?.checkpoint()?;
        let images = inputs.split("train")?.len();
        let mut training = Training::new(&files, self.layers(), self.weight_decay as f32, &device)?;
        training.keep_features(images, &ctx.budget);
        if let Some(value) = last {
            training.trainer.restore(Checkpoint::decode(value)?.state)?;
        }
        Ok(training)
    }

    /// What measures every epoch, if `validation` is connected.
    fn validation(
        &self,
        inputs: &Inputs,
        done: &Done,
        ctx: &mut Ctx<'_>,
    ) -> Result<Option<Validation>> {
        if !inputs.has("validation") {
            self.held.clear();
            return Ok(None);
        }
        let split = inputs.split("validation")?.clone();
        let port = if inputs.has("validation_prompts") {
            "validation_prompts"
        } else {
            "prompts"
        };
        let prompts = texts(inputs, port)?;
        let classes = inputs.split("train")?.classes().names();
        ensure!(
            split.classes().names() == classes && prompts.len() == classes.len(),
            "`validation` and `{port}` must have the classes of `train`, in the same order\nhint: give all the same `classes`"
        );
        let mut texts = Vec::new();
        for (class, mut list) in classes.iter().zip(prompts) {
            let hint = "hint: `validation_prompts` takes a node with one text for each class";
            ensure!(
                list.len() == 1,
                "class `{class}` has {} texts in `{port}`, but validation needs one\n{hint}",
                list.len()
            );
            texts.append(&mut list);
        }
        let mut training = self.training(inputs, done, ctx)?;
        training.keep_features(split.len(), &ctx.budget);
        Ok(Some(Validation::new(
            training,
            split,
            texts,
            self.batch_size,
        )))
    }
}

/// An epoch's entry of `curve.json`.
#[derive(Serialize)]
struct Point {
    #[serde(flatten)]
    epoch: Epoch,
    #[serde(skip_serializing_if = "Option::is_none")]
    validation: Option<Measured>,
}

impl Kind for Finetune {
    const NAME: &'static str = "finetune";
    const VERSION: u32 = 2;
    const PORTS: &'static [Port] = &[
        Port::required("model", &[Accept::Clip], "The CLIP model to start from."),
        Port::required(
            "train",
            &[Accept::Split],
            "Labelled images, such as `cifar10.train`.",
        ),
        Port::required(
            "prompts",
            &[Accept::Artifact(Type::TextEmbeddings)],
            "Texts of each class; several of one class are drawn from at random.",
        ),
        Port::optional(
            "validation",
            &[Accept::Split],
            "Labelled images on which every epoch is measured; nothing is chosen by them.",
        ),
        Port::optional(
            "validation_prompts",
            &[Accept::Artifact(Type::TextEmbeddings)],
            "One text of each class for `validation`; those of `prompts` by default.",
        ),
    ];
    const DRAWS: bool = true;
    const SUMMARY: &'static str = "trains the last layers of both towers of a CLIP model";
    const DOC: &'static str = r#"Trains the last layers of both towers on a labelled split: z = f / (‖f‖ + 1e-6),
logits = alpha · z_image · z_text, cross entropy over the classes, AdamW. BatchNorm
keeps its statistics. Texts are those of `prompts`; a class with several texts draws one
at random each epoch (or batch), which is how attributes change while training.

What is trained, by open_clip's names:

    image_layers = "layer4+attnpool"        the last two layers of a ModifiedResNet
    image_layers = "layer4.last+attnpool"   only the last bottleneck of layer4, and attnpool
    image_layers = "resblocks[-2:]"         the last two blocks of a ViT, or any number
    image_layers = "none"
    text_layers = "resblocks[-2:]"          the last two blocks, or any number
    text_layers = "none"

`image_layers` is "auto" by default: "layer4+attnpool" of a ModifiedResNet and
"resblocks[-2:]" of a ViT. `ln_post` and `proj` of a ViT, `ln_final`, `text_projection`
and `logit_scale` stay as they are.

Each epoch is kept: a stopped run goes on after the last whole epoch, and raising
`epochs` trains only the new ones. On the CPU the output of the layers that do not train
is kept in memory from one epoch to the next, 4 GB of it unless
`exec = { features_memory = "16GB" }` says otherwise; that changes no result.

With `validation`, a labelled split, every epoch is measured on it: with the texts of
`validation_prompts`, or those of `prompts` where each class has one. Nothing is chosen
by these numbers and no epoch depends on them, so the split may be evaluated later, and
adding it trains nothing anew.

Artifact: an open_clip folder (`open_clip_config.json`, `open_clip_model.safetensors`)
that other nodes take as `model`, and `curve.json`: of each epoch the loss and the
training accuracy while it trained, and with `validation` its loss, top-1 and (from six
classes on) top-5 accuracy after the epoch, `validation = {loss, top1, top5}`.
`runner show FILE NODE --to DIR` writes it where `[models]` can name it.

Example:

    [nodes.tuned]
    kind = "finetune"
    model = "clip"
    train = "cifar10.train"
    prompts = "prompts@1"
    epochs = 10
    learning_rate = 1e-5
    image_layers = "layer4.last+attnpool"
    validation = "cifar10.test"
    validation_prompts = "prompts@0"
"#;
}
