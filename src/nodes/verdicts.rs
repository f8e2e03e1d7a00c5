//! From what a classifier makes of each image to an evaluation: accuracies,
//! intervals, and the paired comparison with a baseline.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    artifact::{
        Change, ClassChange, ClassMetrics, Embeddings, LabelUse, Metrics, MetricsTable, Paired,
        Share, Type,
    },
    node::{Input, Inputs},
    nodes::{
        labelled::LabelledImages,
        similarity::{argmax, product},
        vectors::{agree, class_means, class_vectors, sound},
    },
    stats::{Stratum, holm, mcnemar_exact, paired_bootstrap, wilson},
};

/// Images that one task of a thread takes.
const BLOCK: usize = 96;
/// Classes below which top-5 accuracy says nothing.
const CLASSES_FOR_TOP5: usize = 6;
/// Resamples of a bootstrap interval.
const RESAMPLES: usize = 10_000;

/// How several texts of one class make one classifier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Ensemble {
    /// The mean of their embeddings, scaled to length 1 (CLIP's template ensembles).
    #[default]
    Embeddings,
    /// The mean of their similarities to the image (Menon and Vondrick's
    /// description ensembles).
    Similarities,
}

impl Ensemble {
    /// One vector for each class of `texts`.
    pub(super) fn vectors(self, port: &str, texts: &Embeddings) -> Result<Vec<Vec<f32>>> {
        match self {
            Self::Embeddings => class_vectors(port, texts),
            Self::Similarities => class_means(port, texts),
        }
    }
}

/// What a classifier makes of one image.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Verdict {
    pub(super) prediction: usize,
    /// Classes ahead of the label.
    pub(super) ahead: usize,
    /// The prediction's share in the softmax of the logits.
    pub(super) confidence: f32,
}

impl Verdict {
    /// Ranks the logits of one image; of equal ones the class with the lowest
    /// index is ahead.
    pub(super) fn new(logits: &[f64], label: usize) -> Self {
        let own = logits[label];
        let before = logits[..label].iter().filter(|x| **x >= own).count();
        let after = logits[label..].iter().filter(|x| **x > own).count();
        let prediction = argmax(logits);
        let largest = logits[prediction];
        let terms = logits.iter().map(|x| (x - largest).exp());
        Self {
            prediction,
            ahead: before + after,
            confidence: (1.0 / terms.sum::<f64>()) as f32,
        }
    }
}

/// Compares every image with one vector a class; logits are `scale` · similarity.
pub(super) fn judge(images: &LabelledImages, classes: &[Vec<f32>], scale: f64) -> Vec<Verdict> {
    let rows = images.vectors();
    let columns: Vec<&[f32]> = classes.iter().map(Vec::as_slice).collect();
    rows.par_chunks(BLOCK)
        .zip(images.labels.par_chunks(BLOCK))
        .flat_map_iter(|(rows, labels)| {
            let mut out = vec![0.0; rows.len() * columns.len()];
            product(rows, &columns, &mut out);
            let verdicts: Vec<Verdict> = out
                .chunks_exact(columns.len())
                .zip(labels)
                .map(|(row, label)| {
                    let logits: Vec<f64> = row.iter().map(|x| scale * f64::from(*x)).collect();
                    Verdict::new(&logits, *label)
                })
                .collect();
            verdicts
        })
        .collect()
}

/// The texts behind `port` as a classifier of `images`.
pub(super) fn classifier(
    inputs: &Inputs,
    port: &str,
    images: &LabelledImages,
    ensemble: Ensemble,
) -> Result<Vec<Vec<f32>>> {
    let texts: Embeddings = inputs.artifact(port)?;
    sound(port, &texts)?;
    agree(("images", &images.embeddings), (port, &texts))?;
    ensemble.vectors(port, &texts)
}

/// The evaluation of a classifier with these verdicts on `images`. Labels behind
/// the ports `chosen_by`, and `read`, which the node itself learnt from, chose it. The port `baseline`, if connected, leads to
/// texts, to be averaged as `ensemble` says, or to another evaluation.
pub(super) fn metrics(
    inputs: &Inputs,
    images: &LabelledImages,
    verdicts: &[Verdict],
    chosen_by: &[&str],
    read: &[LabelUse],
    ensemble: Ensemble,
) -> Result<Metrics> {
    let leaks = |ports: &[&str]| -> Result<bool> {
        let mut uses: Vec<LabelUse> = Vec::new();
        for port in ports {
            uses.extend(inputs.get(port)?.labels());
        }
        Ok(uses.iter().any(|used| used.overlaps(&images.labels_of)))
    };
    let selected = leaks(chosen_by)? || read.iter().any(|used| used.overlaps(&images.labels_of));
    let mut outcome = Outcome {
        classes: images.embeddings.classes.clone(),
        scored: images.labels_of.clone(),
        selected,
        rows: images.places.iter().map(|place| *place as i64).collect(),
        labels: images.labels.iter().map(|label| *label as i64).collect(),
        predictions: verdicts.iter().map(|v| v.prediction as i64).collect(),
        ranks: verdicts.iter().map(|v| v.ahead as i64).collect(),
        confidence: verdicts.iter().map(|v| v.confidence).collect(),
        baseline: None,
    };
    if !inputs.has("baseline") {
        return outcome.metrics(Vec::new());
    }
    outcome.baseline = Some(match inputs.get("baseline")? {
        Input::Artifact { manifest, .. } if manifest.r#type == Type::Metrics => {
            Baseline::of_evaluation(&inputs.artifact("baseline")?, &outcome)?
        }
        _ => {
            let texts = classifier(inputs, "baseline", images, ensemble)?;
            let found = judge(images, &texts, 1.0);
            Baseline {
                predictions: found.iter().map(|v| v.prediction as i64).collect(),
                selected: leaks(&["baseline"])?,
            }
        }
    });
    outcome.metrics(images.names())
}

/// What a baseline predicts for the images of an evaluation.
pub(super) struct Baseline {
    predictions: Vec<i64>,
    /// Whether labels of these images had a part in it.
    selected: bool,
}

impl Baseline {
    /// Another evaluation's predictions for the images of `outcome`.
    ///
    /// # Errors
    /// When it is about other images, fewer of them, or other classes.
    pub(super) fn of_evaluation(baseline: &Metrics, outcome: &Outcome) -> Result<Self> {
        let (theirs, ours) = (&baseline.table.scored, &outcome.scored);
        ensure!(
            theirs.data == ours.data && theirs.split == ours.split,
            "`baseline` scores other images\nhint: let both evaluations score the same split of the same data"
        );
        let names = baseline.table.per_class.iter().map(|class| &class.class);
        ensure!(
            names.eq(outcome.classes.iter()),
            "`baseline` lists other classes\nhint: give both evaluations the same classes"
        );
        let known: BTreeMap<i64, i64> = (baseline.rows.iter().copied())
            .zip(baseline.predictions.iter().copied())
            .collect();
        let predictions = (outcome.rows.iter())
            .map(|row| known.get(row).copied())
            .collect::<Option<Vec<i64>>>()
            .with_context(|| {
                format!(
                    "`baseline` scores only {} of `{}`, and this evaluation {}\nhint: let `rows` of the baseline cover those that are compared",
                    theirs.rows, theirs.split, ours.rows
                )
            })?;
        Ok(Self {
            predictions,
            selected: baseline.table.selected_on_this_split,
        })
    }
}

/// Per-image results, ready to be counted.
pub(super) struct Outcome {
    pub(super) classes: Vec<String>,
    pub(super) scored: LabelUse,
    pub(super) selected: bool,
    pub(super) rows: Vec<i64>,
    pub(super) labels: Vec<i64>,
    pub(super) predictions: Vec<i64>,
    pub(super) ranks: Vec<i64>,
    pub(super) confidence: Vec<f32>,
    pub(super) baseline: Option<Baseline>,
}

impl Outcome {
    /// Counts; `names` are the images', needed only beside a baseline.
    pub(super) fn metrics(self, names: Vec<String>) -> Result<Metrics> {
        let mut table = self.tabulate()?;
        let mut changes = Vec::new();
        if let Some(baseline) = &self.baseline {
            let fair = !self.selected && !baseline.selected;
            let strata = self.compare(&baseline.predictions, fair, &mut table);
            table.paired = Some(paired(&strata, fair));
            for (i, name) in names.into_iter().enumerate() {
                let (ours, theirs) = (self.predictions[i], baseline.predictions[i]);
                let label = self.labels[i];
                if (ours == label) != (theirs == label) {
                    let class = |index: i64| self.classes[index as usize].clone();
                    changes.push(Change {
                        image: name,
                        class: class(label),
                        prediction: class(ours),
                        baseline: class(theirs),
                    });
                }
            }
        }
        Ok(Metrics {
            table,
            rows: self.rows,
            labels: self.labels,
            predictions: self.predictions,
            ranks: self.ranks,
            confidence: self.confidence,
            changes,
        })
    }

    /// Accuracies and confusion without any comparison.
    fn tabulate(&self) -> Result<MetricsTable> {
        let classes = self.classes.len();
        let mut confusion = vec![vec![0_u64; classes]; classes];
        for (label, prediction) in self.labels.iter().zip(&self.predictions) {
            let cell = confusion
                .get_mut(*label as usize)
                .and_then(|row| row.get_mut(*prediction as usize));
            *cell.context("a label or a prediction is of no known class")? += 1;
        }
        let total = self.labels.len() as u64;
        let within = |places: i64| self.ranks.iter().filter(|rank| **rank < places).count() as u64;
        let per_class: Vec<ClassMetrics> = (self.classes.iter().enumerate())
            .map(|(i, class)| ClassMetrics {
                class: class.clone(),
                top1: share(confusion[i][i], confusion[i].iter().sum()),
                change: None,
            })
            .collect();
        // Counted twice on purpose: from ranks and from the confusion.
        let top1 = share(within(1), total);
        let by_class: u64 = per_class.iter().map(|class| class.top1.correct).sum();
        if by_class != top1.correct {
            bail!(
                "{} images are right, but {by_class} by class: this is a bug",
                top1.correct
            );
        }
        let seen: Vec<f64> = (per_class.iter())
            .filter(|class| class.top1.total > 0)
            .map(|class| class.top1.percent)
            .collect();
        Ok(MetricsTable {
            top1,
            top5: (classes >= CLASSES_FOR_TOP5).then(|| share(within(5), total)),
            mean_per_class: seen.iter().sum::<f64>() / seen.len().max(1) as f64,
            per_class,
            confusion,
            paired: None,
            selected_on_this_split: self.selected,
            scored: self.scored.clone(),
            curve: Vec::new(),
        })
    }

    /// Writes each class's change into `table`; returns all classes' counts.
    fn compare(&self, baseline: &[i64], fair: bool, table: &mut MetricsTable) -> Vec<Stratum> {
        let mut strata: Vec<Stratum> = (table.per_class.iter())
            .map(|class| Stratum {
                images: class.top1.total,
                won: 0,
                lost: 0,
            })
            .collect();
        for ((label, ours), theirs) in self.labels.iter().zip(&self.predictions).zip(baseline) {
            let stratum = &mut strata[*label as usize];
            match (ours == label, theirs == label) {
                (true, false) => stratum.won += 1,
                (false, true) => stratum.lost += 1,
                _ => {}
            }
        }
        // Classes without an image are no comparison.
        let p: Vec<f64> = (strata.iter())
            .filter(|class| class.images > 0)
            .map(|class| mcnemar_exact(class.won, class.lost))
            .collect();
        let mut adjusted = holm(&p).into_iter().zip(p);
        for (class, stratum) in table.per_class.iter_mut().zip(&strata) {
            if stratum.images == 0 {
                continue;
            }
            let p = adjusted.next();
            class.change = Some(ClassChange {
                difference: points(stratum),
                won: stratum.won,
                lost: stratum.lost,
                p_value: p.filter(|_| fair).map(|(_, p)| p),
                p_holm: p.filter(|_| fair).map(|(adjusted, _)| adjusted),
            });
        }
        strata
    }
}

/// The comparison over all classes; `fair` when no label of theirs chose anything.
fn paired(strata: &[Stratum], fair: bool) -> Paired {
    let all = Stratum {
        images: strata.iter().map(|class| class.images).sum(),
        won: strata.iter().map(|class| class.won).sum(),
        lost: strata.iter().map(|class| class.lost).sum(),
    };
    let key = blake3::derive_key("runner bootstrap v1", b"");
    let (low, high) = paired_bootstrap(strata, RESAMPLES, &key);
    Paired {
        difference: points(&all),
        low: 100.0 * low,
        high: 100.0 * high,
        won: all.won,
        lost: all.lost,
        p_value: fair.then(|| mcnemar_exact(all.won, all.lost)),
    }
}

/// Won minus lost, in percentage points.
fn points(stratum: &Stratum) -> f64 {
    100.0 * (stratum.won as f64 - stratum.lost as f64) / stratum.images.max(1) as f64
}

/// A share in percent with its 95% Wilson interval; of no images 0, from 0 to 100.
fn share(correct: u64, total: u64) -> Share {
    let (low, high) = wilson(correct, total);
    Share {
        correct,
        total,
        percent: if total == 0 {
            0.0
        } else {
            100.0 * correct as f64 / total as f64
        },
        low: 100.0 * low,
        high: 100.0 * high,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_equal_logits_the_class_with_the_lowest_index_is_ahead() {
        let verdict = Verdict::new(&[1.0, 2.0, 2.0, 0.0], 2);
        assert_eq!((verdict.prediction, verdict.ahead), (1, 1));
        assert_eq!(Verdict::new(&[1.0, 2.0, 2.0, 0.0], 1).ahead, 0);
        assert_eq!(Verdict::new(&[0.0; 6], 5).ahead, 5);
    }

    #[test]
    fn the_confidence_is_the_predictions_softmax() {
        // exp(1.6) / (exp(1.6) + exp(1.2)).
        let verdict = Verdict::new(&[1.6, 1.2], 1);
        assert!((f64::from(verdict.confidence) - 0.598_687_660_112_452_1).abs() < 1e-7);
        assert!((Verdict::new(&[50.0, 50.0], 0).confidence - 0.5).abs() < 1e-7);
    }
}
