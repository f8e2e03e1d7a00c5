//! `coop`: learns the words before the class names as vectors, on the embeddings
//! of a few labelled images (context optimization, Zhou et al. 2022).

use std::{collections::BTreeSet, f64::consts::PI};

use anyhow::{Context, Result, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    artifact::{Artifact, Content, Embeddings, Output, Row, Type, json_bytes},
    models::clip::{Coop as Learner, CoopState, Sgd, Start},
    node::{Accept, Complaint, Ctx, Done, Inputs, Item, Keep, Kind, Node, Pool, Port},
    nodes::{
        draw::Draw,
        epochs,
        held::Held,
        vectors::{labels, sound},
    },
};

/// Raised when the numbers of an epoch change.
const ITEM_VERSION: u32 = 1;
/// Names the draws of this kind.
const DRAWS: &str = "runner coop draws v1";
/// Vectors of a context where nothing else is said.
const CONTEXT: usize = 16;
/// Standard deviation of a random context, as the reference has it.
const DEVIATION: f64 = 0.02;
/// The first epoch's learning rate, as the reference has it.
const WARM_UP: f64 = 1e-5;

/// Parameters of `coop`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Coop {
    /// Images of each class that train, drawn at random; 0 takes all.
    #[serde(default)]
    shots: usize,
    /// Vectors of the context; 16 by default, or as many as `init` has tokens.
    #[serde(default)]
    #[schemars(range(min = 1))]
    context: Option<usize>,
    /// Every class learns a context of its own.
    #[serde(default)]
    class_specific: bool,
    /// Words whose embeddings the context starts from, such as "a photo of a"; random
    /// vectors by default.
    #[serde(default)]
    init: Option<String>,
    /// Passes over the training images. The learning rate falls to 0 over all of
    /// them, so another number trains all epochs anew.
    #[serde(default = "fifty")]
    #[schemars(range(min = 1))]
    epochs: usize,
    /// SGD's learning rate after the first epoch, in which it is 1e-5.
    #[serde(default = "rate")]
    learning_rate: f64,
    /// SGD's momentum.
    #[serde(default = "momentum")]
    momentum: f64,
    /// SGD's weight decay.
    #[serde(default = "decay")]
    weight_decay: f64,
    /// Images in a step; the rest of an epoch that fills no batch is left out, unless
    /// there are fewer images in all.
    #[serde(default = "batch_size")]
    #[schemars(range(min = 1))]
    batch_size: usize,
    /// Shots, context and order differ between seeds; the file's `seed` by default.
    #[serde(default)]
    seed: u64,
    /// Shots, context and order differ between streams; the round by default.
    #[serde(default)]
    stream: u64,
    #[serde(skip)]
    #[schemars(skip)]
    held: Held<Training>,
}

fn fifty() -> usize {
    50
}
fn rate() -> f64 {
    0.002
}
fn momentum() -> f64 {
    0.9
}
fn decay() -> f64 {
    5e-4
}
fn batch_size() -> usize {
    32
}

/// A context in training with the images that train it.
struct Training {
    learner: Learner,
    images: Embeddings,
    labels: Vec<usize>,
    /// Places in `images` of those that train.
    shots: Vec<usize>,
}

/// What is kept of an epoch before its numbers.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Epoch {
    /// Mean loss over the images of its steps.
    loss: f64,
    /// Share of them that were right, in percent, while it trained.
    accuracy: f64,
}

impl Node for Coop {
    fn output(&self, _: &BTreeSet<&str>) -> Type {
        Type::TextEmbeddings
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
        for (field, value) in [
            ("epochs", self.epochs),
            ("batch_size", self.batch_size),
            ("context", self.context.unwrap_or(CONTEXT)),
        ] {
            if value == 0 {
                let hint = "write a whole number above 0";
                complain(field, "must be at least 1".to_owned(), hint);
            }
        }
        if !(self.learning_rate > 0.0 && self.learning_rate.is_finite()) {
            let message = format!("{} is no learning rate", self.learning_rate);
            complain("learning_rate", message, "0.002 is CoOp's own");
        }
        if !(0.0..1.0).contains(&self.momentum) {
            let message = format!("{} is no momentum", self.momentum);
            complain("momentum", message, "0.9 is CoOp's own; 0 turns it off");
        }
        if !(self.weight_decay >= 0.0 && self.weight_decay.is_finite()) {
            let message = format!("{} is no weight decay", self.weight_decay);
            complain(
                "weight_decay",
                message,
                "5e-4 is CoOp's own; 0 turns it off",
            );
        }
        if self.init.is_some() && self.context.is_some() {
            let message = "the words of `init` say how long the context is".to_owned();
            complain("context", message, "remove `context` or `init`");
        }
        out
    }

    fn reads(&self, port: &str, _: &BTreeSet<&str>) -> Option<&'static [&'static str]> {
        (port == "model").then_some(&["text", "scale"])
    }

    fn pool(&self, _: &Inputs) -> Pool {
        Pool::Model
    }

    fn space(&self, inputs: &Inputs) -> Result<Option<Value>> {
        let model = inputs.model("model")?;
        Ok(Some(json!({
            "text": model.part("text")?,
            "scale": model.part("scale")?,
            "train": inputs.get("train")?.parts()?,
            "shots": self.shots,
            "context": self.context.unwrap_or(CONTEXT),
            "class_specific": self.class_specific,
            "init": self.init,
            "epochs": self.epochs,
            "learning_rate": self.learning_rate,
            "momentum": self.momentum,
            "weight_decay": self.weight_decay,
            "batch_size": self.batch_size,
            "seed": self.seed,
            "stream": self.stream,
            "version": ITEM_VERSION,
        })))
    }

    /// An epoch is an item: a killed run goes on after the last whole one.
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
        let mut training = self.training(inputs, done, ctx)?;
        let order = self.draw(epoch, "order").order(training.shots.len());
        let mut seen = 0;
        let (mut loss, mut right) = (0.0, 0);
        let sgd = Sgd {
            rate: self.rate(epoch),
            momentum: self.momentum,
            weight_decay: self.weight_decay,
        };
        let whole = order.len() >= self.batch_size;
        for chunk in order.chunks(self.batch_size) {
            if (ctx.stop)() {
                return Ok(());
            }
            if whole && chunk.len() < self.batch_size {
                break;
            }
            let rows: Vec<usize> = chunk.iter().map(|i| training.shots[*i]).collect();
            let images: Vec<f32> = (rows.iter())
                .flat_map(|row| training.images.row(*row))
                .copied()
                .collect();
            let labels: Vec<usize> = rows.iter().map(|row| training.labels[*row]).collect();
            let learned = training.learner.step(&images, &labels, sgd)?;
            ensure!(
                learned.loss.is_finite(),
                "the loss is no longer finite in epoch {}\nhint: a smaller `learning_rate` may help",
                epoch + 1
            );
            loss += learned.loss * rows.len() as f64;
            right += learned.correct;
            seen += rows.len();
            (ctx.progress)(seen as u64, order.len() as u64, "images");
        }
        let measured = Epoch {
            loss: loss / seen.max(1) as f64,
            accuracy: 100.0 * right as f64 / seen.max(1) as f64,
        };
        let value = encode(measured, &training.learner.state()?)?;
        let space = self.space(inputs)?.unwrap_or_default();
        self.held.put(training, space, &value);
        keep(0, value)
    }

    fn finish(&self, inputs: &Inputs, done: &Done, ctx: &mut Ctx<'_>) -> Result<Output> {
        let Training {
            learner, images, ..
        } = self.training(inputs, done, ctx)?;
        let (_, labels_of) = labels("train", &images)?;
        let curve: Vec<Epoch> = (done.list.iter())
            .map(|(_, value)| Ok(decode(value)?.0))
            .collect::<Result<_>>()?;
        let data = learner.embeddings()?;
        let places: String = (1..=learner.length()).map(|i| format!("[V]{i} ")).collect();
        let rows = (images.classes.iter().enumerate())
            .map(|(class_index, class)| Row {
                text: Some(format!("{places}{}.", class.replace('_', " "))),
                class: class.clone(),
                class_index,
                ..Row::default()
            })
            .collect();
        let mut output = Embeddings {
            images: false,
            dim: data.len() / images.classes.len(),
            data,
            rows,
            classes: images.classes,
            labels_of: None,
        }
        .output()?;
        let bytes = json_bytes(&curve)?;
        output
            .files
            .push(("curve.json".to_owned(), Content::Bytes(bytes)));
        output.labels.push(labels_of);
        Ok(output)
    }
}

impl Coop {
    fn draw(&self, epoch: usize, purpose: &str) -> Draw {
        Draw::of_epoch(DRAWS, self.seed, self.stream, epoch, purpose)
    }

    /// The learning rate of an epoch: one at 1e-5, then the cosine from its
    /// beginning, so that the last epoch is not quite at its end.
    fn rate(&self, epoch: usize) -> f64 {
        match epoch.checked_sub(1) {
            None => WARM_UP,
            Some(i) => {
                let turned = PI * i as f64 / self.epochs as f64;
                self.learning_rate * f64::midpoint(1.0, turned.cos())
            }
        }
    }

    /// The images that train: `shots` of each class, all where it has fewer.
    fn shots(&self, labels: &[usize], classes: usize) -> Vec<usize> {
        if self.shots == 0 {
            return (0..labels.len()).collect();
        }
        let mut draw = self.draw(0, "shots");
        let mut all: Vec<usize> = (0..classes)
            .flat_map(|class| {
                let places = (0..labels.len()).filter(|i| labels[*i] == class);
                let places: Vec<usize> = places.collect();
                let order = draw.order(places.len()).into_iter().take(self.shots);
                order.map(|i| places[i]).collect::<Vec<_>>()
            })
            .collect();
        all.sort_unstable();
        all
    }

    /// A context in the state after the last epoch that is done.
    fn training(&self, inputs: &Inputs, done: &Done, ctx: &mut Ctx<'_>) -> Result<Training> {
        let space = self.space(inputs)?.unwrap_or_default();
        let last = done.list.last().map(|(_, value)| value.as_ref());
        if let Some(training) = self.held.take(&space, last) {
            return Ok(training);
        }
        let images: Embeddings = inputs.artifact("train")?;
        sound("train", &images)?;
        let (labels, _) = labels("train", &images)?;
        let shots = self.shots(&labels, images.classes.len());
        let files = inputs.model("model")?.checkpoint()?;
        let config = files.config();
        ensure!(
            images.dim == config.embed_dim,
            "`train` has embeddings of {} dimensions, and the model makes {}\nhint: encode them with the same model",
            images.dim,
            config.embed_dim
        );
        let contexts = if self.class_specific {
            images.classes.len()
        } else {
            1
        };
        let width = config.text.transformer.width;
        let numbers = contexts * self.context.unwrap_or(CONTEXT) * width;
        let mut draw = self.draw(0, "context");
        let vectors: Vec<f32> = (0..numbers)
            .map(|_| (DEVIATION * draw.normal()) as f32)
            .collect();
        let start = match &self.init {
            Some(words) => Start::Text(words),
            None => Start::Vectors(&vectors),
        };
        let device = ctx.models()?.device()?;
        let classes = &images.classes;
        let mut learner = Learner::load(&files, classes, start, self.class_specific, &device)?;
        if let Some(value) = last {
            learner.restore(decode(value)?.1)?;
        }
        Ok(Training {
            learner,
            images,
            labels,
            shots,
        })
    }
}

/// An epoch's line of JSON, then the context and the momentum, f32 each.
fn encode(epoch: Epoch, state: &CoopState) -> Result<Vec<u8>> {
    let mut out = serde_json::to_vec(&epoch)?;
    out.push(b'\n');
    let numbers = state.context.iter().chain(&state.momentum);
    out.extend(numbers.flat_map(|x| x.to_le_bytes()));
    Ok(out)
}

/// Reads [`encode`]'s bytes.
fn decode(bytes: &[u8]) -> Result<(Epoch, CoopState)> {
    let end = (bytes.iter().position(|b| *b == b'\n')).context("an epoch has no head")?;
    let (chunks, rest) = bytes[end + 1..].as_chunks::<4>();
    ensure!(
        rest.is_empty() && chunks.len().is_multiple_of(2),
        "an epoch is cut off"
    );
    let numbers: Vec<f32> = chunks.iter().map(|b| f32::from_le_bytes(*b)).collect();
    let (context, momentum) = numbers.split_at(numbers.len() / 2);
    let state = CoopState {
        context: context.to_vec(),
        momentum: momentum.to_vec(),
    };
    Ok((serde_json::from_slice(&bytes[..end])?, state))
}

impl Kind for Coop {
    const NAME: &'static str = "coop";
    const VERSION: u32 = 1;
    const PORTS: &'static [Port] = &[
        Port::required(
            "model",
            &[Accept::Clip],
            "The CLIP model whose text tower reads the context.",
        ),
        Port::required(
            "train",
            &[Accept::Artifact(Type::ImageEmbeddings)],
            "Embeddings of labelled images by the same model.",
        ),
    ];
    const DRAWS: bool = true;
    const SUMMARY: &'static str = "learns the words before the class names as vectors (CoOp)";
    const DOC: &'static str = r#"Context optimization (Zhou et al. 2022, "Learning to Prompt for Vision-Language
Models"): a prompt is `context` vectors, the class's name and a full stop. The vectors
are learnt, everything else stays as it is: logits = exp(logit_scale) · image · text,
cross entropy over the classes, SGD with momentum. One context serves all classes,
unless `class_specific` gives each its own. It starts from N(0, 0.02), or from the
embeddings of the words of `init`.

The images are embeddings made before, so a step costs only the prompts. CoOp's own
code crops and flips the images anew in each epoch; this does not, and its figures may
differ for that reason. `shots` images of each class are drawn by the seed, 0 takes all.
Computed in f32, whatever the model's dtype.

As in CoOp's code: SGD with momentum 0.9 and weight decay 5e-4, learning rate 0.002,
1e-5 in the first epoch and then along half a cosine, batches of 32. The paper has
50 epochs for 1 shot, 100 for 2 or 4 and 200 for 8 or 16.

Each epoch is kept: a stopped run goes on after the last whole epoch.

Artifact: text embeddings with one row a class, whose `text` is `[V]1 … [V]16 cat.`, for
`zeroshot_eval` and whatever else takes a classifier; and `curve.json` (loss and accuracy
on the training images of each epoch, while it trained). The labels of `train` chose them.

Example:

    [nodes.train_images]
    kind = "clip_encode"
    model = "clip"
    images = "cifar10.train"

    [nodes.learnt]
    kind = "coop"
    model = "clip"
    train = "train_images"
    shots = 16
    epochs = 200

    [nodes.learnt_eval]
    kind = "zeroshot_eval"
    images = "images"
    classifier = "learnt"
"#;
}

#[cfg(test)]
mod tests {
    use std::{io::Read, sync::Arc};

    use flate2::read::GzDecoder;

    use super::*;
    use crate::{
        digest::FileMemo,
        node::{Budget, DeviceChoice, Family, Input, ModelFolder, Models},
        nodes::in_memory,
    };

    /// The small model of `tests/fixtures/finetune/resnet`, unpacked.
    fn model() -> (tempfile::TempDir, Input) {
        let folder = tempfile::tempdir().unwrap();
        let from = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let from = from.join("tests/fixtures/finetune/resnet");
        let config = "open_clip_config.json";
        fs_err::copy(from.join(config), folder.path().join(config)).unwrap();
        let weights = "open_clip_model.safetensors";
        let mut bytes = Vec::new();
        let file = fs_err::File::open(from.join(format!("{weights}.gz"))).unwrap();
        GzDecoder::new(file).read_to_end(&mut bytes).unwrap();
        fs_err::write(folder.path().join(weights), bytes).unwrap();
        let memo = FileMemo::in_memory();
        let path = folder.path().to_owned();
        let model = ModelFolder::open(path, Family::Clip, None, "f32", &memo).unwrap();
        (folder, Input::Model(Arc::new(model)))
    }

    /// Twenty-one images of two classes, each near an axis of its own.
    fn train() -> Embeddings {
        let rows: Vec<[f32; 12]> = (0..21)
            .map(|i| {
                let mut row = [0.0; 12];
                row[i % 2] = 0.8;
                row[2 + i % 10] = 0.6;
                row
            })
            .collect();
        let rows: Vec<(usize, &[f32])> = (rows.iter().enumerate())
            .map(|(i, row)| (i % 2, row.as_slice()))
            .collect();
        in_memory::images(&["cat", "long_ears"], &rows)
    }

    /// Trains the epochs that `done` lacks of `upto`; `again` makes the node anew
    /// before each, as a run does that was killed.
    fn epochs(text: &str, inputs: &Inputs, done: &mut Done, upto: usize, again: bool) -> Output {
        let mut models = Models::new(DeviceChoice::Cpu);
        let mut ctx = Ctx {
            models: Some(&mut models),
            stop: &|| false,
            warn: &|text| panic!("{text}"),
            progress: &|_, _, _| {},
            budget: Budget::default(),
        };
        let mut node = coop(text);
        while done.len() < upto {
            if again {
                node = coop(text);
            }
            let items = node.items(inputs, done).unwrap();
            let batch = &items[done.len()..];
            let mut value = None;
            let mut keep = |_: usize, bytes: Vec<u8>| {
                value = Some(bytes);
                Ok(())
            };
            node.compute(inputs, batch, done, &mut keep, &mut ctx)
                .unwrap();
            let value: Arc<[u8]> = value.unwrap().into();
            done.list.push((batch[0].clone(), value));
        }
        node.finish(inputs, done, &mut ctx).unwrap()
    }

    #[test]
    fn a_killed_run_goes_on_to_the_same_classifier_which_tells_whose_labels_made_it() {
        let (_folder, model) = model();
        let mut inputs = Inputs::default();
        inputs.connect("model", model);
        inputs.connect("train", in_memory::input(&train(), &[]));
        let text = "{\"epochs\": 4, \"batch_size\": 8, \"context\": 3, \"learning_rate\": 0.3}";
        let (mut through, mut again) = (Done::default(), Done::default());
        let output = epochs(text, &inputs, &mut through, 4, false);
        let resumed = epochs(text, &inputs, &mut again, 4, true);
        let values = |done: &Done| -> Vec<Arc<[u8]>> {
            done.list.iter().map(|(_, value)| value.clone()).collect()
        };
        assert_eq!(values(&through), values(&again));
        let bytes = |output: &Output, name: &str| {
            let file = output.files.iter().find(|(file, _)| file == name);
            match file.map(|(_, content)| content) {
                Some(Content::Bytes(bytes)) => bytes.clone(),
                other => panic!("{name}: {other:?}"),
            }
        };
        for (name, _) in &output.files {
            assert_eq!(bytes(&output, name), bytes(&resumed, name));
        }
        assert_eq!(output.labels, [in_memory::labels("test")]);
        let texts = Embeddings::decode(&|name| Ok(bytes(&output, name))).unwrap();
        sound("the result", &texts).unwrap();
        let read = |i: usize| texts.rows[i].text.as_deref().unwrap();
        assert_eq!(read(0), "[V]1 [V]2 [V]3 cat.");
        assert_eq!(read(1), "[V]1 [V]2 [V]3 long ears.");
        assert_eq!(texts.classes, ["cat", "long_ears"]);
        let curve: Vec<Epoch> = serde_json::from_slice(&bytes(&output, "curve.json")).unwrap();
        assert_eq!(curve.len(), 4);
        assert!(curve[3].loss < curve[0].loss, "something is learnt");
        // Another seed starts elsewhere.
        let other = text.replace('}', ", \"seed\": 1}");
        let mut done = Done::default();
        epochs(&other, &inputs, &mut done, 1, false);
        assert_ne!(values(&done)[0], values(&through)[0]);
    }

    #[test]
    fn embeddings_of_another_model_are_refused() {
        let (_folder, model) = model();
        let mut inputs = Inputs::default();
        inputs.connect("model", model);
        let images = in_memory::images(&["cat"], &[(0, &[1.0, 0.0])]);
        inputs.connect("train", in_memory::input(&images, &[]));
        let mut models = Models::new(DeviceChoice::Cpu);
        let mut ctx = Ctx {
            models: Some(&mut models),
            stop: &|| false,
            warn: &|_| {},
            progress: &|_, _, _| {},
            budget: Budget::default(),
        };
        let error = coop("{}").training(&inputs, &Done::default(), &mut ctx);
        let message = error.err().unwrap().to_string();
        assert!(message.starts_with("`train` has embeddings of 2 dimensions"));
    }

    fn coop(text: &str) -> Coop {
        serde_json::from_str(text).unwrap()
    }

    /// `schedule(10, 0.002)` of `tests/fixtures/finetune/coop.py`, by torch's schedulers.
    #[test]
    fn the_learning_rate_is_that_of_torchs_schedulers() {
        let coop = coop("{\"epochs\": 10}");
        let rates: Vec<f64> = (0..10).map(|epoch| coop.rate(epoch)).collect();
        for (ours, theirs) in rates.iter().zip(SCHEDULE) {
            assert!((ours - theirs).abs() < 1e-12, "{rates:?}");
        }
    }

    const SCHEDULE: [f64; 10] = [
        1e-05,
        0.002,
        0.0019510565162951536,
        0.0018090169943749473,
        0.0015877852522924731,
        0.0013090169943749475,
        0.001,
        0.0006909830056250527,
        0.000412214747707527,
        0.00019098300562505268,
    ];

    #[test]
    fn shots_are_drawn_from_each_class_by_the_seed() {
        let labels: Vec<usize> = (0..60).map(|i| if i == 0 { 2 } else { i % 2 }).collect();
        let shots = |seed| coop(&format!("{{\"shots\": 4, \"seed\": {seed}}}")).shots(&labels, 4);
        let first = shots(1);
        let of = |class| first.iter().filter(|i| labels[**i] == class).count();
        assert_eq!([of(0), of(1), of(2), of(3)], [4, 4, 1, 0]);
        assert!(first.is_sorted() && first.windows(2).all(|pair| pair[0] != pair[1]));
        assert_eq!(first, shots(1));
        assert_ne!(first, shots(2));
        assert_eq!(coop("{}").shots(&labels, 4).len(), 60);
    }

    #[test]
    fn an_epoch_is_read_as_it_was_written() {
        let state = CoopState {
            context: vec![1.5, -0.25],
            momentum: vec![f32::MIN_POSITIVE, 3.0],
        };
        let epoch = Epoch {
            loss: 1.25,
            accuracy: 50.0,
        };
        let bytes = encode(epoch, &state).unwrap();
        let (again, read) = decode(&bytes).unwrap();
        assert_eq!(read, state);
        assert_eq!(again.loss.to_bits(), epoch.loss.to_bits());
        assert_eq!(again.accuracy.to_bits(), epoch.accuracy.to_bits());
        assert!(decode(&bytes[..bytes.len() - 1]).is_err());
        assert!(decode(&bytes[..bytes.len() - 4]).is_err());
        assert!(decode(b"").is_err());
    }

    #[test]
    fn parameters_that_mean_nothing_are_named() {
        let fields = |text: &str| -> Vec<&'static str> {
            let complaints = coop(text).check(&BTreeSet::new());
            complaints.into_iter().filter_map(|c| c.field).collect()
        };
        assert!(fields("{}").is_empty());
        assert!(fields("{\"init\": \"a photo of a\", \"class_specific\": true}").is_empty());
        let both = "{\"init\": \"a photo of a\", \"context\": 4}";
        assert_eq!(fields(both), ["context"]);
        assert_eq!(
            fields("{\"epochs\": 0, \"batch_size\": 0, \"context\": 0, \"learning_rate\": 0}"),
            ["epochs", "batch_size", "context", "learning_rate"]
        );
        assert_eq!(
            fields("{\"momentum\": 1.0, \"weight_decay\": -1.0}"),
            ["momentum", "weight_decay"]
        );
    }
}
