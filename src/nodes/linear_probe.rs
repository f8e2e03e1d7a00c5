//! `linear_probe`: logistic regression on the embeddings of labelled images, and how
//! many other images it gets right.

use std::{borrow::Cow, collections::BTreeSet};

use anyhow::{Result, bail, ensure};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    draw::Draw,
    labelled::LabelledImages,
    listed,
    vectors::agree,
    verdicts::{Ensemble, Verdict, metrics},
};
use crate::{
    artifact::{Artifact, Output, Part, Type},
    models::logistic::{Ending, LogisticRegression},
    node::{Accept, Complaint, Ctx, Done, Inputs, Kind, Node, Port},
};

/// Largest entry of the objective's gradient that is as good as 0, for `c` up to 1.
/// Weights are then right to about as many digits.
const TOLERANCE: f64 = 1e-6;

/// Parameters of `linear_probe`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LinearProbe {
    /// Weight of the training images' losses against the penalty on the weights:
    /// scikit-learn's `C`. The default is that of CLIP's example, which does not
    /// scale embeddings to length 1.
    #[serde(default = "clip_example")]
    c: f64,
    /// Most steps of L-BFGS.
    #[serde(default = "thousand")]
    #[schemars(range(min = 1))]
    max_iterations: usize,
    /// Training images of each class, drawn at random; 0 takes all.
    #[serde(default)]
    shots: usize,
    /// Which of the training images are taken, before `shots` are drawn.
    #[serde(default)]
    train_rows: Part,
    /// Which of the images are scored.
    #[serde(default)]
    rows: Part,
    /// Draws differ between seeds; the file's `seed` by default.
    #[serde(default)]
    seed: u64,
    /// Draws differ between streams; the round by default.
    #[serde(default)]
    stream: u64,
}

fn clip_example() -> f64 {
    0.316
}
fn thousand() -> usize {
    1000
}

impl Node for LinearProbe {
    fn output(&self, _: &BTreeSet<&str>) -> Type {
        Type::Metrics
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
        if !(self.c > 0.0 && self.c.is_finite()) {
            complain(
                "c",
                format!("{} is no weight of the losses", self.c),
                "CLIP's example has 0.316; it must be above 0",
            );
        }
        if self.max_iterations == 0 {
            complain(
                "max_iterations",
                "nothing would be learnt".to_owned(),
                "it must be at least 1",
            );
        }
        out
    }

    fn finish(&self, inputs: &Inputs, _: &Done, ctx: &mut Ctx<'_>) -> Result<Output> {
        let train = LabelledImages::read(inputs, "train", self.train_rows)?;
        let images = LabelledImages::read(inputs, "images", self.rows)?;
        agree(("train", &train.embeddings), ("images", &images.embeddings))?;
        let taken = self.taken(&train, ctx.warn)?;
        let data = if taken.len() == train.labels.len() {
            Cow::Borrowed(&train.embeddings.data)
        } else {
            let rows = taken.iter().map(|i| train.embeddings.row(*i));
            Cow::Owned(rows.flatten().copied().collect())
        };
        let labels: Vec<usize> = taken.iter().map(|i| train.labels[*i]).collect();
        let regression = LogisticRegression {
            c: self.c,
            max_iterations: self.max_iterations,
            tolerance: TOLERANCE * self.c.max(1.0),
        };
        let most = self.max_iterations as u64;
        let progress = |done: usize, _: f64| (ctx.progress)(done as u64, most, "iterations");
        let fit = regression.fit(&data, train.embeddings.dim, &labels, &progress, ctx.stop)?;
        match fit.ending {
            Ending::Converged => {}
            Ending::Stopped => bail!("stopped by the user"),
            Ending::OutOfIterations => (ctx.warn)(format!(
                "the regression has not converged after {} iterations: its gradient is {:.1e}, not {:.0e}\nhint: raise `max_iterations`",
                fit.iterations, fit.gradient, regression.tolerance
            )),
            Ending::OutOfPrecision => (ctx.warn)(format!(
                "the regression has not converged: rounding ended it after {} iterations with a gradient of {:.1e}, not {:.0e}\nhint: a smaller `c` may help",
                fit.iterations, fit.gradient, regression.tolerance
            )),
        }
        let classes = images.embeddings.classes.len();
        let logits = fit.logits(&images.embeddings.data, classes);
        let verdicts: Vec<Verdict> = logits
            .par_chunks(classes)
            .zip(&images.labels)
            .map(|(row, label)| Verdict::new(row, *label))
            .collect();
        let chosen_by = ["train", "images"];
        let read = [train.labels_of];
        let found = metrics(inputs, &images, &verdicts, &chosen_by, &read, Ensemble::default())?;
        Ok(Output {
            labels: read.to_vec(),
            ..found.output()?
        })
    }
}

impl LinearProbe {
    /// The training images that are used, ascending.
    fn taken(&self, train: &LabelledImages, warn: &dyn Fn(String)) -> Result<Vec<usize>> {
        let names = &train.embeddings.classes;
        let mut of_class = vec![Vec::new(); names.len()];
        for (i, label) in train.labels.iter().enumerate() {
            of_class[*label].push(i);
        }
        let (mut none, mut few) = (Vec::new(), Vec::new());
        let mut taken = Vec::new();
        for (class, images) in names.iter().zip(&of_class) {
            match images.len() {
                0 => none.push(class.as_str()),
                n if n < self.shots => few.push(class.as_str()),
                _ => {}
            }
            if self.shots == 0 {
                taken.extend(images);
                continue;
            }
            let key = json!({"seed": self.seed, "stream": self.stream, "class": class});
            let order = Draw::new("runner linear_probe shots v1", &key).order(images.len());
            taken.extend(order.iter().take(self.shots).map(|i| images[*i]));
        }
        let seen = names.len() - none.len();
        ensure!(
            seen > 1,
            "`train` has images of only one class, so there is nothing to tell apart\nhint: train on images of at least two of the {} classes",
            names.len()
        );
        if !none.is_empty() {
            warn(format!(
                "no training image of {}: no image is taken for one of them",
                listed(&none)
            ));
        }
        if !few.is_empty() {
            warn(format!(
                "fewer than shots = {} training images of {}: all of them are taken",
                self.shots,
                listed(&few)
            ));
        }
        taken.sort_unstable();
        Ok(taken)
    }
}

impl Kind for LinearProbe {
    const NAME: &'static str = "linear_probe";
    const VERSION: u32 = 1;
    const PORTS: &'static [Port] = &[
        Port::required(
            "train",
            &[Accept::Artifact(Type::ImageEmbeddings)],
            "Images to learn from, with their labels.",
        ),
        Port::required(
            "images",
            &[Accept::Artifact(Type::ImageEmbeddings)],
            "Images to classify, with their labels.",
        ),
        Port::optional(
            "baseline",
            &[
                Accept::Artifact(Type::TextEmbeddings),
                Accept::Artifact(Type::Metrics),
            ],
            "For the paired comparison: texts of each class, or another evaluation of these images.",
        ),
    ];
    const DRAWS: bool = true;
    const SUMMARY: &'static str = "trains a linear classifier on image embeddings and measures it";
    const DOC: &'static str = r#"Fits a multinomial logistic regression to the embeddings of `train` and their labels,
classifies `images` with it, and counts as `zeroshot_eval` does.

The regression is scikit-learn's LogisticRegression(C=c): the minimum of
c · (sum of cross entropies) + ½ ‖weights‖², with intercepts that are not penalised;
two classes have one vector of weights. The minimum is unique, and L-BFGS goes on until
no entry of the gradient is above 1e-6 (times c, where c > 1), or `max_iterations`: then
there is a warning.

`c` is 0.316 by default, as in the example of CLIP's repository. That example does not
scale embeddings to length 1, as they are here; embeddings of length L with C = c are
fitted like those of length 1 with C = c · L², so a larger `c` may do better. Choose it
on training images, not on those of the result: with `train_rows = "except fold 1/5"`
and `rows = "fold 1/5"` the same split does for both.

`shots` draws that many training images of each class, by `seed` and `stream`: fewer
shots of the same seed are among more. With equal inputs the same bits come out on any
machine, however many threads it has. A class without training images is never
predicted.

The labels of `train` are noted in the result. When they are labels of the very images
that are scored, it says `selected_on_this_split` and there is no p-value.

Artifact: as that of `zeroshot_eval` (`metrics.json`; `predictions.safetensors`, where
`confidence` is the predicted class's probability; with a baseline `changes.jsonl`).

Example:

    [nodes.probe]
    kind = "linear_probe"
    train = "train_images"
    images = "test_images"
    baseline = "zeroshot"
    c = 0.316
    shots = 16

    [tables.accuracy]
    values = ["zeroshot.top1", "probe.top1", "probe.difference"]
"#;
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;
    use crate::artifact::MetricsTable;
    use crate::{
        artifact::{Embeddings, LabelUse, Metrics},
        node::{Budget, Input},
        nodes::in_memory::{finish, images, input, labels, texts},
    };

    const CLASSES: [&str; 3] = ["cat", "dog", "owl"];

    fn probe() -> LinearProbe {
        serde_json::from_str("{\"c\": 10}").unwrap()
    }

    /// `n` images of unit length, turn by turn of each class in `of`, near the axis
    /// of their class.
    fn around(of: &[usize], n: usize, split: &str) -> Embeddings {
        let rows: Vec<(usize, Vec<f32>)> = (0..n)
            .map(|i| {
                let class = of[i % of.len()];
                let noise = |k: usize| ((i * 31 + k * 17 + i * i * k) % 23) as f32 / 23.0;
                let mut row: Vec<f32> = (0..4).map(|k| noise(k) * 0.8).collect();
                row[class] += 1.0;
                let length = row.iter().map(|x| x * x).sum::<f32>().sqrt();
                (class, row.into_iter().map(|x| x / length).collect())
            })
            .collect();
        let rows: Vec<(usize, &[f32])> = rows.iter().map(|(c, row)| (*c, &row[..])).collect();
        Embeddings {
            labels_of: Some(labels(split)),
            ..images(&CLASSES, &rows)
        }
    }

    type Ran = (Metrics, Vec<LabelUse>, Vec<String>);

    fn run(probe: &LinearProbe, train: &Embeddings, test: &Embeddings) -> Result<Ran> {
        let ports = vec![("train", input(train, &[])), ("images", input(test, &[]))];
        finish(probe, ports)
    }

    #[test]
    fn it_learns_the_classes_and_notes_whose_labels_it_learnt_from() {
        let train = around(&[0, 1, 2], 90, "train");
        let test = around(&[2, 0, 1, 1], 50, "test");
        let (metrics, used, warnings) = run(&probe(), &train, &test).unwrap();
        assert_eq!(used, [labels("train")]);
        assert!(warnings.is_empty(), "{warnings:?}");
        assert_eq!(metrics.labels.len(), 50);
        assert!(metrics.table.top1.correct >= 47, "{:?}", metrics.table.top1);
        assert!(!metrics.table.selected_on_this_split);
        assert!(
            metrics
                .confidence
                .iter()
                .all(|p| *p > 1.0 / 3.0 && *p <= 1.0)
        );
        // Less regularisation makes it surer.
        let strict = LinearProbe { c: 0.01, ..probe() };
        let (vague, _, _) = run(&strict, &train, &test).unwrap();
        let mean = |m: &Metrics| m.confidence.iter().sum::<f32>() / 50.0;
        assert!(mean(&vague) < 0.5 && mean(&metrics) > 0.6);
    }

    #[test]
    fn it_gives_the_probabilities_of_the_regression() {
        let train = around(&[0, 1, 2], 60, "train");
        let test = around(&[0, 1, 2], 12, "test");
        let (metrics, ..) = run(&probe(), &train, &test).unwrap();
        let regression = LogisticRegression {
            c: 10.0,
            max_iterations: 1000,
            tolerance: 1e-9,
        };
        let of = |e: &Embeddings| e.rows.iter().map(|row| row.class_index).collect::<Vec<_>>();
        let fit = regression
            .fit(&train.data, 4, &of(&train), &|_, _| {}, &|| false)
            .unwrap();
        let logits = fit.logits(&test.data, 3);
        for (i, row) in logits.chunks(3).enumerate() {
            let largest = metrics.predictions[i] as usize;
            let total: f64 = row.iter().map(|x| (x - row[largest]).exp()).sum();
            assert!((f64::from(metrics.confidence[i]) - 1.0 / total).abs() < 1e-6);
            let ahead = row.iter().filter(|x| **x > row[test.rows[i].class_index]);
            assert_eq!(metrics.ranks[i], ahead.count() as i64);
        }
    }

    #[test]
    fn a_baseline_is_texts_or_another_evaluation() {
        let train = around(&[0, 1, 2], 60, "train");
        let test = around(&[0, 1, 2], 30, "test");
        let axis = |class: usize| (0..4).map(|k| f32::from(k == class)).collect::<Vec<_>>();
        // Cats and dogs are taken for each other.
        let swapped = [axis(1), axis(0), axis(2)];
        let rows: Vec<(usize, &[f32])> = (0..3).map(|i| (i, &swapped[i][..])).collect();
        let with = |baseline: Input| {
            let ports = vec![
                ("train", input(&train, &[])),
                ("images", input(&test, &[])),
                ("baseline", baseline),
            ];
            finish::<Metrics>(&probe(), ports).unwrap().0
        };
        let paired = with(input(&texts(&CLASSES, &rows), &[]))
            .table
            .paired
            .unwrap();
        assert!(paired.won >= 18 && paired.lost <= 2, "{paired:?}");
        assert!(paired.p_value.unwrap() < 0.001);
        let (alone, ..) = run(&probe(), &train, &test).unwrap();
        let paired = with(input(&alone, &[])).table.paired.unwrap();
        assert_eq!((paired.won, paired.lost), (0, 0), "it equals itself");
    }

    #[test]
    fn training_on_the_scored_images_is_told() {
        let axes: Vec<Vec<f32>> = (0..3)
            .map(|c| (0..4).map(|k| f32::from(k == c)).collect())
            .collect();
        let rows: Vec<(usize, &[f32])> = (0..3).map(|i| (i, &axes[2 - i][..])).collect();
        let table = |probe: LinearProbe, split, chose: &[LabelUse]| {
            let ports = vec![
                ("train", input(&around(&[0, 1, 2], 60, split), chose)),
                ("images", input(&around(&[0, 1, 2], 60, "test"), &[])),
                ("baseline", input(&texts(&CLASSES, &rows), &[])),
            ];
            finish::<Metrics>(&probe, ports).unwrap().0.table
        };
        let fair = |table: &MetricsTable| {
            let paired = table.paired.unwrap().p_value.is_some();
            for class in &table.per_class {
                let change = class.change.unwrap();
                assert_eq!(
                    (change.p_value.is_some(), change.p_holm.is_some()),
                    (paired, paired)
                );
            }
            assert_ne!(paired, table.selected_on_this_split);
            paired
        };
        assert!(fair(&table(probe(), "train", &[])));
        assert!(!fair(&table(probe(), "test", &[])));
        let chosen = [labels("test")];
        assert!(
            !fair(&table(probe(), "train", &chosen)),
            "the model saw them"
        );
        let fold = |text: &str| text.parse::<Part>().unwrap();
        let apart = LinearProbe {
            train_rows: fold("except fold 1/5"),
            rows: fold("fold 1/5"),
            ..probe()
        };
        let table = table(apart, "test", &[]);
        assert!(fair(&table), "folds share no image");
        assert_eq!(table.top1.total, 12);
    }

    /// Which of 60 images are taken.
    fn taken(probe: &LinearProbe) -> Vec<usize> {
        let train = around(&[0, 1, 2], 60, "train");
        let mut inputs = Inputs::default();
        inputs.connect("train", input(&train, &[]));
        let train = LabelledImages::read(&inputs, "train", Part::All).unwrap();
        probe.taken(&train, &|text| panic!("{text}")).unwrap()
    }

    #[test]
    fn shots_are_drawn_of_each_class_and_fewer_are_among_more() {
        assert_eq!(taken(&probe()), (0..60).collect::<Vec<_>>());
        let shots = |shots, seed, stream| {
            taken(&LinearProbe {
                shots,
                seed,
                stream,
                ..probe()
            })
        };
        let four = shots(4, 1, 0);
        assert_eq!(four.len(), 12);
        for class in 0..3 {
            assert_eq!(four.iter().filter(|i| *i % 3 == class).count(), 4);
        }
        assert!(four.is_sorted());
        assert_eq!(four, shots(4, 1, 0));
        assert_ne!(four, shots(4, 2, 0));
        assert_ne!(four, shots(4, 1, 1));
        let one = shots(1, 1, 0);
        assert!(one.iter().all(|i| four.contains(i)));
        assert_eq!(shots(20, 1, 0).len(), 60);
        // Over many seeds every image has its turn.
        let mut times = [0; 60];
        for seed in 0..300 {
            for i in shots(4, seed, 0) {
                times[i] += 1;
            }
        }
        assert!(times.iter().all(|n| (30..95).contains(n)), "{times:?}");
    }

    #[test]
    fn classes_with_few_or_no_images_are_named() {
        let mut train = around(&[0, 2], 20, "train");
        let test = around(&[0, 1, 2], 30, "test");
        let few = LinearProbe {
            shots: 11,
            ..probe()
        };
        let (metrics, _, warnings) = run(&few, &train, &test).unwrap();
        assert_eq!(
            warnings,
            [
                "no training image of `dog`: no image is taken for one of them",
                "fewer than shots = 11 training images of `cat`, `owl`: all of them are taken",
            ]
        );
        assert!(metrics.predictions.iter().all(|class| *class != 1));
        let dogs = metrics.labels.iter().zip(&metrics.ranks);
        assert!(
            dogs.filter(|(label, _)| **label == 1)
                .all(|(_, rank)| *rank == 2)
        );
        assert_eq!(metrics.table.per_class[1].top1.correct, 0);
        train.rows.iter_mut().for_each(|row| row.class_index = 0);
        let error = run(&probe(), &train, &test).unwrap_err().to_string();
        assert!(
            error.starts_with("`train` has images of only one class"),
            "{error}"
        );
        assert!(error.contains("\nhint: "));
    }

    #[test]
    fn a_regression_that_is_cut_short_warns_and_one_that_is_stopped_fails() {
        let (train, test) = (
            around(&[0, 1, 2], 60, "train"),
            around(&[0, 1, 2], 9, "test"),
        );
        let short = LinearProbe {
            max_iterations: 2,
            ..probe()
        };
        let (_, _, warnings) = run(&short, &train, &test).unwrap();
        let [warning] = warnings.as_slice() else {
            panic!("{warnings:?}")
        };
        assert!(
            warning.starts_with(
                "the regression has not converged after 2 iterations: its gradient is "
            ),
            "{warning}"
        );
        assert!(
            warning.ends_with(", not 1e-5\nhint: raise `max_iterations`"),
            "{warning}"
        );

        let mut inputs = Inputs::default();
        inputs.connect("train", input(&train, &[]));
        inputs.connect("images", input(&test, &[]));
        let calls = Cell::new(0);
        let seen = std::sync::Mutex::new(Vec::new());
        let warned = RefCell::new(Vec::new());
        let mut ctx = Ctx {
            models: None,
            stop: &|| calls.replace(calls.get() + 1) == 2,
            warn: &|text| warned.borrow_mut().push(text),
            progress: &|done, most, what| seen.lock().unwrap().push((done, most, what.to_owned())),
            budget: Budget::default(),
        };
        let error = probe()
            .finish(&inputs, &Done::default(), &mut ctx)
            .unwrap_err();
        assert_eq!(error.to_string(), "stopped by the user");
        assert!(warned.into_inner().is_empty());
        let steps = (0..3).map(|i| (i, 1000, "iterations".to_owned()));
        assert_eq!(seen.into_inner().unwrap(), steps.collect::<Vec<_>>());
    }

    #[test]
    fn ports_that_do_not_fit_and_parameters_without_a_sense_are_named() {
        let train = around(&[0, 1, 2], 30, "train");
        let mut other = around(&[0, 1, 2], 30, "test");
        other.classes.swap(0, 1);
        let error = run(&probe(), &train, &other).unwrap_err().to_string();
        assert!(error.starts_with(
            "`train` and `images` list different classes: class 0 is `cat` in `train` and `dog` in `images`\nhint: "
        ));
        let mut unlabelled = train.clone();
        unlabelled.labels_of = None;
        let error = run(&probe(), &unlabelled, &train).unwrap_err().to_string();
        assert_eq!(error, "the images of `train` have no labels");

        let complaints = |text: &str| -> Vec<&str> {
            let probe: LinearProbe = serde_json::from_str(text).unwrap();
            let found = probe.check(&BTreeSet::new());
            found
                .iter()
                .filter_map(|complaint| complaint.field)
                .collect()
        };
        assert!(complaints("{}").is_empty());
        assert_eq!(complaints("{\"c\": 0}"), ["c"]);
        assert_eq!(
            complaints("{\"c\": -1.5, \"max_iterations\": 0}"),
            ["c", "max_iterations"]
        );
        let defaults: LinearProbe = serde_json::from_str("{}").unwrap();
        assert_eq!(
            (defaults.c.to_bits(), defaults.max_iterations),
            (0.316_f64.to_bits(), 1000)
        );
    }
}
