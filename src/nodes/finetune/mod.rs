//! `finetune`: trains the last layers of both towers of a CLIP model on a
//! labelled split; its artifact is a model folder.

mod checkpoint;

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::checkpoint::{Checkpoint, Epoch};
use crate::{
    artifact::{Content, Embeddings, LabelUse, Output, Type, json_bytes},
    models::{
        clip::{Trainer, write_folder},
        image::Rgb8,
    },
    node::{Accept, CLIP_CONFIG, CLIP_WEIGHTS, Complaint, Ctx, Done, Inputs, Item, Keep, Kind, Node, Pool, Port},
    nodes::draw::Draw,
};

/// Raised when the numbers of an epoch change.
const ITEM_VERSION: u32 = 1;

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
    /// Last blocks of the text tower that are trained.
    #[serde(default = "two")]
    text_blocks: usize,
    /// When a class with several prompts draws another one.
    #[serde(default)]
    redraw: Redraw,
    /// Order and draws differ between seeds; the file's `seed` by default.
    #[serde(default)]
    seed: u64,
    /// Order and draws differ between streams; the round by default.
    #[serde(default)]
    stream: u64,
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
fn two() -> usize {
    2
}

impl Node for Finetune {
    fn output(&self, _: &BTreeSet<&str>) -> Type {
        Type::Weights
    }

    fn check(&self, _: &BTreeSet<&str>) -> Vec<Complaint> {
        let mut out = Vec::new();
        let mut complain = |field, message: String, hint: &str| {
            out.push(Complaint {
                field: Some(field),
                message,
                hint: Some(hint.to_owned()),
            });
        };
        if !(self.learning_rate > 0.0 && self.learning_rate <= 1.0) {
            complain("learning_rate", format!("{} is no learning rate", self.learning_rate), "1e-5 is the study's scale; it must be above 0 and at most 1");
        }
        if !(self.weight_decay >= 0.0 && self.weight_decay.is_finite()) {
            complain("weight_decay", format!("{} is no weight decay", self.weight_decay), "0 turns it off");
        }
        if !(self.alpha > 0.0 && self.alpha.is_finite()) {
            complain("alpha", format!("{} is no scale", self.alpha), "the study has 50");
        }
        for (field, value) in [("epochs", self.epochs), ("batch_size", self.batch_size)] {
            if value == 0 {
                complain(field, "must be at least 1".to_owned(), "write a whole number above 0");
            }
        }
        out
    }

    fn pool(&self, _: &Inputs) -> Pool {
        Pool::Model
    }

    fn space(&self, inputs: &Inputs) -> Result<Option<Value>> {
        let model = inputs.model("model")?;
        let train = inputs.split("train")?;
        Ok(Some(json!({
            "model": model.parts(),
            "dtype": model.dtype,
            "images": train.images_digest(),
            "labels": train.labels_digest(),
            "prompts": Self::prompts(inputs)?,
            "learning_rate": self.learning_rate,
            "weight_decay": self.weight_decay,
            "batch_size": self.batch_size,
            "alpha": self.alpha,
            "text_blocks": self.text_blocks,
            "redraw": self.redraw,
            "seed": self.seed,
            "stream": self.stream,
            "version": ITEM_VERSION,
        })))
    }

    /// An epoch is an item: a killed run goes on after the last whole one, and
    /// more epochs cost only themselves.
    fn items(&self, _: &Inputs, done: &Done) -> Result<Vec<Item>> {
        let known = (done.len() + 1).min(self.epochs);
        Ok((0..known).map(|epoch| Item::new(format!("epoch {epoch}"), epoch)).collect())
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
        let [item] = batch else {
            anyhow::bail!("epochs are computed one at a time");
        };
        let epoch: usize = *item.task().context("an item of another kind")?;
        let train = inputs.split("train")?;
        let prompts = Self::prompts(inputs)?;
        ensure!(
            prompts.len() == train.classes().names().len(),
            "`prompts` has texts for {} classes, but `train` has {}\nhint: give both the same `classes`",
            prompts.len(),
            train.classes().names().len()
        );
        let mut trainer = self.trainer(inputs, done, ctx)?;
        let order = self.draw(epoch, "order").order(train.len());
        let mut draw = self.draw(epoch, "prompts");
        let mut texts = pick(&prompts, &mut draw);
        let (mut loss, mut right) = (0.0, 0);
        let steps = order.len().div_ceil(self.batch_size) as u64;
        for (step, chunk) in order.chunks(self.batch_size).enumerate() {
            if (ctx.stop)() {
                return Ok(());
            }
            if self.redraw == Redraw::Batch && step > 0 {
                texts = pick(&prompts, &mut draw);
            }
            let images: Vec<Rgb8> = chunk
                .iter()
                .map(|i| {
                    let pixels = train.image(*i)?;
                    let image = Rgb8::new(pixels.width, pixels.height, pixels.rgb)?;
                    Ok(trainer.prepare(&image))
                })
                .collect::<Result<_>>()?;
            let labels: Vec<usize> = chunk.iter().map(|i| train.labels()[*i]).collect();
            let learned = trainer.step(&images, &labels, &texts, self.alpha, self.learning_rate)?;
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
            state: trainer.state()?,
            epoch: Epoch {
                loss: loss / train.len().max(1) as f64,
                accuracy: 100.0 * right as f64 / train.len().max(1) as f64,
            },
        };
        keep(0, checkpoint.encode()?)
    }

    fn finish(&self, inputs: &Inputs, done: &Done, _: &mut Ctx<'_>) -> Result<Output> {
        let train = inputs.split("train")?;
        let mut curve = Vec::new();
        let mut last = None;
        for (_, value) in &done.list {
            let checkpoint = Checkpoint::decode(value)?;
            curve.push(checkpoint.epoch);
            last = Some(checkpoint.state);
        }
        let state = last.context("no epoch was trained")?;
        let folder = tempfile::tempdir()?;
        write_folder(folder.path(), &inputs.model("model")?.checkpoint()?, &state.tensors)?;
        let read = |name: &str| -> Result<(String, Content)> {
            Ok((name.to_owned(), Content::Bytes(fs_err::read(folder.path().join(name))?)))
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
    /// The texts of each class, in row order.
    fn prompts(inputs: &Inputs) -> Result<Vec<Vec<String>>> {
        let rows: Embeddings = inputs.artifact("prompts")?;
        let mut prompts = vec![Vec::new(); rows.classes.len()];
        for row in rows.rows {
            let text = row.text.context("`prompts` does not hold texts")?;
            prompts
                .get_mut(row.class_index)
                .context("a prompt belongs to no class")?
                .push(text);
        }
        for (class, texts) in rows.classes.iter().zip(&prompts) {
            ensure!(!texts.is_empty(), "class `{class}` has no prompt\nhint: the LLM gave no valid answer for it, or its candidates were left out");
        }
        Ok(prompts)
    }

    /// A trainer in the state after the last epoch that is done.
    fn trainer(&self, inputs: &Inputs, done: &Done, ctx: &mut Ctx<'_>) -> Result<Trainer> {
        let device = ctx.models()?.device()?;
        let files = inputs.model("model")?.checkpoint()?;
        let mut trainer =
            Trainer::load(&files, self.text_blocks, self.weight_decay as f32, &device)?;
        if let Some((_, value)) = done.list.last() {
            trainer.restore(Checkpoint::decode(value)?.state)?;
        }
        Ok(trainer)
    }

    /// Random numbers of one purpose in one epoch: the order of images, the choice of
    /// prompts. No epoch sees what another one drew, so a resumed epoch draws alike.
    fn draw(&self, epoch: usize, purpose: &str) -> Draw {
        let key = json!({"seed": self.seed, "stream": self.stream, "epoch": epoch, "purpose": purpose});
        Draw::new("runner finetune draws v1", &key)
    }
}

/// One prompt for each class.
fn pick(prompts: &[Vec<String>], draw: &mut Draw) -> Vec<String> {
    prompts
        .iter()
        .map(|texts| match texts.as_slice() {
            [one] => one.clone(),
            many => many[draw.below(many.len())].clone(),
        })
        .collect()
}

impl Kind for Finetune {
    const NAME: &'static str = "finetune";
    const VERSION: u32 = 1;
    const PORTS: &'static [Port] = &[
        Port::required("model", &[Accept::Clip], "The CLIP model to start from."),
        Port::required("train", &[Accept::Split], "Labelled images, such as `cifar10.train`."),
        Port::required(
            "prompts",
            &[Accept::Artifact(Type::TextEmbeddings)],
            "Texts of each class; several of one class are drawn from at random.",
        ),
    ];
    const DRAWS: bool = true;
    const SUMMARY: &'static str = "trains the last layers of both towers of a CLIP model";
    const DOC: &'static str = r#"Trains the last layers of both towers on a labelled split: z = f / (‖f‖ + 1e-6),
logits = alpha · z_image · z_text, cross entropy over the classes, AdamW. BatchNorm
keeps its statistics. Texts are those of `prompts`; a class with several texts draws one
at random each epoch (or batch), which is how attributes change while training.

Each epoch is kept: a stopped run goes on after the last whole epoch, and raising
`epochs` trains only the new ones.

Artifact: an open_clip folder (`open_clip_config.json`, `open_clip_model.safetensors`)
that other nodes take as `model`, and `curve.json` (loss and training accuracy of each
epoch). `runner show FILE NODE --to DIR` writes it where `[models]` can name it.

Example:

    [nodes.tuned]
    kind = "finetune"
    model = "clip"
    train = "cifar10.train"
    prompts = "prompts@1"
    epochs = 10
    learning_rate = 1e-5
"#;
}
