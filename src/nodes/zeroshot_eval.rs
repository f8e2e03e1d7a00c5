//! `zeroshot_eval`: how many images are nearest to the text of their own class.

use std::{borrow::Cow, collections::BTreeSet};

use anyhow::Result;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{
    artifact::{Artifact, Output, Part, Type},
    node::{Accept, Complaint, Ctx, Done, Inputs, Kind, Node, Port},
    nodes::{
        labelled::LabelledImages,
        verdicts::{Ensemble, classifier, judge, metrics},
    },
};

/// Parameters of `zeroshot_eval`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ZeroshotEval {
    /// Factor of the logits, scale · image · text: a number, or "model" for the
    /// one that the model behind `model` learnt. It decides how sure a prediction
    /// is (`confidence`), never which one it is.
    #[serde(default)]
    scale: Scale,
    /// How several texts of one class make one classifier.
    #[serde(default)]
    ensemble: Ensemble,
    /// Which of the images are scored.
    #[serde(default)]
    rows: Part,
}

/// Where the logits' factor comes from; written as a number or as "model".
#[derive(Clone, Copy, Debug, PartialEq)]
enum Scale {
    Fixed(f64),
    Model,
}

impl Default for Scale {
    fn default() -> Self {
        Self::Fixed(100.0)
    }
}

impl Serialize for Scale {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Fixed(scale) => serializer.serialize_f64(*scale),
            Self::Model => serializer.serialize_str("model"),
        }
    }
}

impl<'de> Deserialize<'de> for Scale {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Scale;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a number or \"model\"")
            }

            fn visit_f64<E>(self, scale: f64) -> Result<Scale, E> {
                Ok(Scale::Fixed(scale))
            }

            fn visit_i64<E>(self, scale: i64) -> Result<Scale, E> {
                Ok(Scale::Fixed(scale as f64))
            }

            fn visit_u64<E>(self, scale: u64) -> Result<Scale, E> {
                Ok(Scale::Fixed(scale as f64))
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<Scale, E> {
                match word {
                    "model" => Ok(Scale::Model),
                    _ => Err(E::invalid_value(de::Unexpected::Str(word), &self)),
                }
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for Scale {
    fn schema_name() -> Cow<'static, str> {
        "Scale".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": ["number", "string"], "pattern": "^model$"})
    }
}

impl Node for ZeroshotEval {
    fn output(&self, _: &BTreeSet<&str>) -> Type {
        Type::Metrics
    }

    fn check(&self, ports: &BTreeSet<&str>) -> Vec<Complaint> {
        let complain = |field, message: String, hint: &str| {
            vec![Complaint {
                field: Some(field),
                message,
                hint: Some(hint.to_owned()),
            }]
        };
        match self.scale {
            Scale::Fixed(scale) if !(scale > 0.0 && scale.is_finite()) => complain(
                "scale",
                format!("{scale} is no scale of logits"),
                "CLIP's own is 100; it must be above 0",
            ),
            Scale::Model if !ports.contains("model") => complain(
                "scale",
                "no model is named whose scale it is".to_owned(),
                "add `model = …`, the model that made the embeddings",
            ),
            Scale::Fixed(_) if ports.contains("model") => complain(
                "model",
                "the model matters only for its scale of logits".to_owned(),
                "remove it, or say scale = \"model\"",
            ),
            _ => Vec::new(),
        }
    }

    fn reads(&self, port: &str, _: &BTreeSet<&str>) -> Option<&'static [&'static str]> {
        (port == "model").then_some(&["scale"])
    }

    fn finish(&self, inputs: &Inputs, _: &Done, _: &mut Ctx<'_>) -> Result<Output> {
        let images = LabelledImages::read(inputs, "images", self.rows)?;
        let scale = match self.scale {
            Scale::Fixed(scale) => scale,
            Scale::Model => f64::from(inputs.model("model")?.checkpoint()?.logit_scale()?),
        };
        let texts = classifier(inputs, "classifier", &images, self.ensemble)?;
        let found = judge(&images, &texts, scale);
        // The images' own labels chose them when the model was trained on them.
        let chosen_by = ["images", "classifier"];
        metrics(inputs, &images, &found, &chosen_by, &[], self.ensemble)?.output()
    }
}

impl Kind for ZeroshotEval {
    const NAME: &'static str = "zeroshot_eval";
    const VERSION: u32 = 3;
    const PORTS: &'static [Port] = &[
        Port::required(
            "images",
            &[Accept::Artifact(Type::ImageEmbeddings)],
            "Images to classify, with their labels.",
        ),
        Port::required(
            "classifier",
            &[Accept::Artifact(Type::TextEmbeddings)],
            "Texts of each class; several of one class are averaged.",
        ),
        Port::optional(
            "baseline",
            &[Accept::Artifact(Type::TextEmbeddings), Accept::Artifact(Type::Metrics)],
            "For the paired comparison: texts of each class, or another evaluation of these images.",
        ),
        Port::optional(
            "model",
            &[Accept::Clip],
            "The model whose scale of logits `scale = \"model\"` means.",
        ),
    ];
    const SUMMARY: &'static str = "measures zero-shot accuracy, overall and for each class";
    const DOC: &'static str = r#"Classifies every image as the class whose text is nearest (the largest of
scale · image · text; of equal classes the one with the lowest index) and counts.
Several texts of a class make one classifier: with `ensemble = "embeddings"` their mean,
scaled to length 1; with "similarities" the mean of their similarities to the image.

Measured: top-1 and, from six classes on, top-5 accuracy with 95% Wilson intervals;
accuracy of each class with all classes competing, and the mean of these; the
confusion matrix. With `baseline` (texts, or another evaluation of the same images):
the difference in percentage points with its 95% interval (percentiles of 10,000 paired
resamples, each class resampled by itself), the images won and lost by name, McNemar's
exact two-sided p-value; and the same for each class, with Holm's correction for as many
comparisons as there are classes.

`rows` scores a part of the images: "even", "odd", "fold 1/5" or "except fold 1/5"
(folds hold equal shares of each class). When labels of the very images that are scored
chose the prompts or trained the model, the result says `selected_on_this_split` and
there is no p-value: such an accuracy is too good by an unknown amount.

`scale`, 100 by default as in the study, or "model" for the factor that the model behind
`model` learnt, decides how sure the predictions are: `confidence` is the predicted
class's share in the softmax.

Artifact: `metrics.json`; `predictions.safetensors` (`rows`, `labels`, `predictions`,
`ranks` i64 [n], `confidence` f32 [n]); with a baseline `changes.jsonl` (image, class,
prediction, baseline: one line for each image won or lost).

Example:

    [nodes.eval]
    kind = "zeroshot_eval"
    images = "images"
    classifier = "prompts"
    baseline = "plain"

    [tables.accuracy]
    values = ["eval.top1", "eval.difference"]
"#;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        artifact::{Attributes, Change, Embeddings, LabelUse, Metrics},
        nodes::{
            greedy_select::GreedySelect,
            in_memory::{finish, images, input, labels, texts, trials},
        },
    };

    const EAST: &[f32] = &[1.0, 0.0];
    const NORTH: &[f32] = &[0.0, 1.0];
    const NEAR_EAST: &[f32] = &[0.8, 0.6];
    const NEAR_NORTH: &[f32] = &[0.6, 0.8];
    const EVAL: ZeroshotEval = ZeroshotEval {
        scale: Scale::Fixed(100.0),
        ensemble: Ensemble::Embeddings,
        rows: Part::All,
    };

    fn eval(ports: Vec<(&'static str, crate::node::Input)>) -> Result<Metrics> {
        let (metrics, used, _) = finish(&EVAL, ports)?;
        assert!(used.is_empty(), "measuring chooses nothing");
        Ok(metrics)
    }

    /// Three cats, one of them near north, and two dogs.
    fn pets() -> Embeddings {
        images(
            &["cat", "dog"],
            &[
                (0, EAST),
                (0, NEAR_EAST),
                (0, NEAR_NORTH),
                (1, NORTH),
                (1, NEAR_EAST),
            ],
        )
    }

    #[test]
    fn accuracies_are_those_of_the_hand() {
        let classifier = texts(&["cat", "dog"], &[(0, EAST), (1, NORTH)]);
        let metrics = eval(vec![
            ("images", input(&pets(), &[])),
            ("classifier", input(&classifier, &[])),
        ])
        .unwrap();
        assert_eq!(metrics.predictions, [0, 0, 1, 1, 0]);
        assert_eq!(metrics.labels, [0, 0, 0, 1, 1]);
        let table = &metrics.table;
        assert_eq!((table.top1.correct, table.top1.total), (3, 5));
        assert_eq!(table.top1.percent.to_bits(), 60.0_f64.to_bits());
        // proportion_confint(3, 5, method="wilson") of statsmodels.
        assert!((table.top1.low - 23.072_428_127_601_29).abs() < 1e-9);
        assert!((table.top1.high - 88.237_922_576_735_22).abs() < 1e-9);
        assert_eq!(table.confusion, [[2, 1], [1, 1]]);
        assert_eq!(table.per_class[0].top1.correct, 2);
        assert_eq!(
            table.per_class[1].top1.percent.to_bits(),
            50.0_f64.to_bits()
        );
        assert!((table.mean_per_class - f64::midpoint(200.0 / 3.0, 50.0)).abs() < 1e-12);
        assert!(table.top5.is_none(), "two classes have no top-5");
        assert!(table.paired.is_none() && !table.selected_on_this_split);
    }

    #[test]
    fn the_label_may_be_among_five_and_ties_go_to_the_lowest_index() {
        let names = ["a", "b", "c", "d", "e", "f"];
        // All six classes are equally near: label 4 is the fifth, label 5 the sixth.
        let same: Vec<(usize, &[f32])> = (0..6).map(|i| (i, EAST)).collect();
        let images = images(&names, &[(0, EAST), (4, EAST), (5, EAST)]);
        let metrics = eval(vec![
            ("images", input(&images, &[])),
            ("classifier", input(&texts(&names, &same), &[])),
        ])
        .unwrap();
        assert_eq!(metrics.predictions, [0, 0, 0]);
        assert_eq!(metrics.table.top1.correct, 1);
        assert_eq!(metrics.table.top5.unwrap().correct, 2);
        let empty = &metrics.table.per_class[1].top1;
        assert_eq!(
            (empty.total, empty.percent, empty.low, empty.high),
            (0, 0.0, 0.0, 100.0)
        );
        assert!(
            (metrics.table.mean_per_class - 100.0 / 3.0).abs() < 1e-12,
            "over classes with images"
        );
    }

    #[test]
    fn a_baseline_is_compared_image_by_image() {
        let good = texts(&["cat", "dog"], &[(0, EAST), (1, NORTH)]);
        let swapped = texts(&["cat", "dog"], &[(0, NORTH), (1, EAST)]);
        let run = |classifier: &Embeddings, chose: &[LabelUse], chose_baseline: &[LabelUse]| {
            eval(vec![
                ("images", input(&pets(), &[])),
                ("classifier", input(classifier, chose)),
                ("baseline", input(&swapped, chose_baseline)),
            ])
            .unwrap()
            .table
        };
        let table = run(&good, &[labels("train")], &[]);
        let paired = table.paired.unwrap();
        assert_eq!((paired.won, paired.lost), (3, 2));
        assert_eq!(paired.difference.to_bits(), 20.0_f64.to_bits());
        assert_eq!(paired.p_value, Some(1.0));
        assert!(paired.low <= 20.0 && paired.high >= 20.0 && paired.low < paired.high);
        assert!(!table.selected_on_this_split, "train chose the prompts");
        // Cats: two won, one lost; dogs: one each.
        let change = |i: usize| table.per_class[i].change.unwrap();
        assert_eq!((change(0).won, change(0).lost), (2, 1));
        assert_eq!((change(1).won, change(1).lost), (1, 1));
        assert_eq!(change(1).difference.to_bits(), 0.0_f64.to_bits());
        assert_eq!((change(0).p_value, change(0).p_holm), (Some(1.0), Some(1.0)));

        let table = run(&good, &[labels("test"), labels("train")], &[]);
        assert!(table.selected_on_this_split);
        assert_eq!(table.paired.unwrap().p_value, None);
        let table = run(&good, &[], &[labels("test")]);
        assert!(!table.selected_on_this_split);
        assert_eq!(
            table.paired.unwrap().p_value,
            None,
            "nor with a selected baseline"
        );
    }

    #[test]
    fn images_won_and_lost_are_named() {
        let good = texts(&["cat", "dog"], &[(0, EAST), (1, NORTH)]);
        let swapped = texts(&["cat", "dog"], &[(0, NORTH), (1, EAST)]);
        let metrics = eval(vec![
            ("images", input(&pets(), &[])),
            ("classifier", input(&good, &[])),
            ("baseline", input(&swapped, &[])),
        ])
        .unwrap();
        let change = |image: &str, class: &str, prediction: &str, baseline: &str| Change {
            image: image.into(),
            class: class.into(),
            prediction: prediction.into(),
            baseline: baseline.into(),
        };
        assert_eq!(
            metrics.changes,
            [
                change("test/0", "cat", "cat", "dog"),
                change("test/1", "cat", "cat", "dog"),
                change("test/2", "cat", "dog", "cat"),
                change("test/3", "dog", "dog", "cat"),
                change("test/4", "dog", "cat", "dog"),
            ]
        );
    }

    #[test]
    fn a_part_of_the_images_is_scored_and_its_labels_may_have_been_used_elsewhere() {
        let classifier = texts(&["cat", "dog"], &[(0, EAST), (1, NORTH)]);
        let eval = ZeroshotEval { rows: Part::Odd, ..EVAL };
        let run = |chosen_on: &str| {
            let used = LabelUse { rows: chosen_on.into(), ..labels("test") };
            let ports = vec![("images", input(&pets(), &[])), ("classifier", input(&classifier, &[used]))];
            let (metrics, _, _): (Metrics, _, _) = finish(&eval, ports).unwrap();
            metrics
        };
        let metrics = run("even");
        assert_eq!((metrics.rows, metrics.labels), (vec![1, 3], vec![0, 1]));
        assert_eq!(metrics.table.scored.rows, "odd");
        assert!(!metrics.table.selected_on_this_split);
        assert!(run("all").table.selected_on_this_split);
        assert!(run("fold 1/2").table.selected_on_this_split);
    }

    #[test]
    fn another_evaluation_is_a_baseline_if_it_scores_the_same_images() {
        let good = texts(&["cat", "dog"], &[(0, EAST), (1, NORTH)]);
        let swapped = texts(&["cat", "dog"], &[(0, NORTH), (1, EAST)]);
        let of = |rows: Part, texts: &Embeddings, baseline: Option<&Metrics>| -> Result<Metrics> {
            let mut ports = vec![("images", input(&pets(), &[])), ("classifier", input(texts, &[]))];
            if let Some(baseline) = baseline {
                ports.push(("baseline", input(baseline, &[])));
            }
            Ok(finish(&ZeroshotEval { rows, ..EVAL }, ports)?.0)
        };
        let whole = of(Part::All, &swapped, None).unwrap();
        let paired = of(Part::All, &good, Some(&whole)).unwrap().table.paired.unwrap();
        assert_eq!((paired.won, paired.lost), (3, 2));
        let paired = of(Part::Odd, &good, Some(&whole)).unwrap().table.paired.unwrap();
        assert_eq!((paired.won, paired.lost), (2, 0));
        let half = of(Part::Odd, &swapped, None).unwrap();
        let error = format!("{:#}", of(Part::All, &good, Some(&half)).unwrap_err());
        assert!(error.starts_with("`baseline` scores only odd of `test`, and this evaluation all\nhint: "), "{error}");
        let mut other = whole;
        other.table.scored = labels("train");
        let error = format!("{:#}", of(Part::All, &good, Some(&other)).unwrap_err());
        assert!(error.starts_with("`baseline` scores other images\nhint: "), "{error}");
    }

    #[test]
    fn descriptions_are_averaged_by_similarity() {
        // Embeddings: the mean of east and north at 45 degrees beats the dog's north
        // text for image 2; similarities: (0.6 + 0.8) / 2 does not.
        let ensemble = texts(&["cat", "dog"], &[(0, EAST), (0, NORTH), (1, NORTH)]);
        let eval = ZeroshotEval { ensemble: Ensemble::Similarities, ..EVAL };
        let ports = vec![("images", input(&pets(), &[])), ("classifier", input(&ensemble, &[]))];
        let (metrics, _, _): (Metrics, _, _) = finish(&eval, ports).unwrap();
        assert_eq!(metrics.predictions, [0, 0, 1, 1, 0]);
    }

    #[test]
    fn a_model_trained_on_the_scored_images_is_told() {
        let classifier = texts(&["cat", "dog"], &[(0, EAST), (1, NORTH)]);
        let table = eval(vec![
            ("images", input(&pets(), &[labels("test")])),
            ("classifier", input(&classifier, &[])),
        ])
        .unwrap()
        .table;
        assert!(table.selected_on_this_split);
    }

    #[test]
    fn texts_of_several_templates_make_one_classifier() {
        // The mean of the cat's texts is at 45 degrees, where it wins every image but one.
        let ensemble = texts(&["cat", "dog"], &[(0, EAST), (0, NORTH), (1, NORTH)]);
        let metrics = eval(vec![
            ("images", input(&pets(), &[])),
            ("classifier", input(&ensemble, &[])),
        ])
        .unwrap();
        assert_eq!(metrics.predictions, [0, 0, 0, 1, 0]);
    }

    #[test]
    fn an_evaluation_of_a_selected_prompt_counts_what_the_selection_counted() {
        let classes = ["cat", "dog"];
        let plain = texts(&classes, &[(0, EAST), (1, NORTH)]);
        let candidate = trials(
            &classes,
            &[(0, &["soft"], NEAR_NORTH), (1, &["wild"], EAST)],
        );
        let (chosen, _, _): (Attributes, _, _) = finish(
            &GreedySelect::default(),
            vec![
                ("images", input(&pets(), &[])),
                ("baseline", input(&plain, &[])),
                ("candidates", input(&candidate, &[])),
            ],
        )
        .unwrap();
        for (i, class) in chosen.classes.iter().enumerate() {
            let mut prompts: Vec<(usize, &[f32])> = vec![(0, EAST), (1, NORTH)];
            prompts[i].1 = candidate.row(i);
            let metrics = eval(vec![
                ("images", input(&pets(), &[])),
                ("classifier", input(&texts(&classes, &prompts), &[])),
            ])
            .unwrap();
            assert_eq!(class.score, Some(metrics.table.top1.correct as f64));
        }
    }

    #[test]
    fn ports_that_do_not_fit_are_named() {
        let run = |images: &Embeddings, classifier: &Embeddings| {
            let ports = vec![
                ("images", input(images, &[])),
                ("classifier", input(classifier, &[])),
            ];
            format!("{:#}", eval(ports).unwrap_err())
        };
        let good = texts(&["cat", "dog"], &[(0, EAST), (1, NORTH)]);
        let order = texts(&["dog", "cat"], &[(0, EAST), (1, NORTH)]);
        assert!(run(&pets(), &order).starts_with(
            "`images` and `classifier` list different classes: class 0 is `cat` in `images` and `dog` in `classifier`\nhint: "
        ));
        let wide = texts(&["cat", "dog"], &[(0, &[1.0, 0.0, 0.0])]);
        assert!(
            run(&pets(), &wide).starts_with(
                "`images` has embeddings of 2 dimensions, and `classifier` of 3\nhint: "
            )
        );
        let missing = texts(&["cat", "dog"], &[(0, EAST)]);
        assert!(
            run(&pets(), &missing).starts_with("class `dog` has no text in `classifier`\nhint: ")
        );
        let mut bad = pets();
        bad.data[3] = f32::NAN;
        assert!(
            run(&bad, &good).starts_with(
                "row 1 of `images` (`test/1`) holds a number that is not finite\nhint: "
            )
        );
        let mut unlabelled = pets();
        unlabelled.labels_of = None;
        assert_eq!(
            run(&unlabelled, &good),
            "the images of `images` have no labels"
        );
        let complaints = |scale, ports: &[&str]| {
            let ports = ports.iter().copied().collect();
            ZeroshotEval { scale, ..EVAL }.check(&ports).len()
        };
        assert_eq!(complaints(Scale::Fixed(f64::NAN), &[]), 1);
        assert_eq!(complaints(Scale::Model, &[]), 1, "whose?");
        assert_eq!(complaints(Scale::Model, &["model"]), 0);
        assert_eq!(complaints(Scale::Fixed(50.0), &["model"]), 1, "what for?");
    }

    #[test]
    fn the_scale_is_a_number_or_the_models_and_decides_the_confidence() {
        let read = |text: &str| serde_json::from_str::<ZeroshotEval>(text).map(|eval| eval.scale);
        assert_eq!(read("{}").unwrap(), Scale::Fixed(100.0));
        assert_eq!(read("{\"scale\": 50}").unwrap(), Scale::Fixed(50.0));
        assert_eq!(read("{\"scale\": \"model\"}").unwrap(), Scale::Model);
        assert!(read("{\"scale\": \"models\"}").is_err());
        let classifier = texts(&["cat", "dog"], &[(0, EAST), (1, NORTH)]);
        let sure = |scale| {
            let eval = ZeroshotEval { scale: Scale::Fixed(scale), ..EVAL };
            let ports = vec![("images", input(&pets(), &[])), ("classifier", input(&classifier, &[]))];
            let (metrics, _, _): (Metrics, _, _) = finish(&eval, ports).unwrap();
            f64::from(metrics.confidence[1])
        };
        // exp(2 · 0.8) / (exp(2 · 0.8) + exp(2 · 0.6)).
        assert!((sure(2.0) - 0.598_687_660_112_452_1).abs() < 1e-6);
        assert!(sure(100.0) > 0.999_999);
    }
}
