//! What an evaluation measured: `metrics.json`, `predictions.safetensors` and
//! `changes.jsonl`.

use anyhow::{Context, Result, ensure};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Artifact, LabelUse, Type, from_json, from_lines, json_bytes, lines};

/// A share of images with its 95% Wilson interval, all in percent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// Images that count.
    pub correct: u64,
    /// Images in all.
    pub total: u64,
    /// `100 · correct / total`.
    pub percent: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
}

/// Accuracy of one class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassMetrics {
    /// The class's name.
    pub class: String,
    /// Correct of this class's images, all classes competing.
    pub top1: Share,
    /// Against the baseline, where one was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<ClassChange>,
}

/// A class's share of a paired comparison.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassChange {
    /// Difference of the class's accuracy in percentage points.
    pub difference: f64,
    /// Its images right here and wrong in the baseline.
    pub won: u64,
    /// Its images wrong here and right in the baseline.
    pub lost: u64,
    /// McNemar's exact two-sided p-value, as in [`Paired`].
    pub p_value: Option<f64>,
    /// The same after Holm's correction for as many comparisons as there are classes.
    pub p_holm: Option<f64>,
}

/// A paired comparison with a baseline on the same images.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Paired {
    /// Difference of top-1 in percentage points.
    pub difference: f64,
    /// Lower end of its 95% bootstrap interval.
    pub low: f64,
    /// Upper end of that interval.
    pub high: f64,
    /// Images right here and wrong in the baseline.
    pub won: u64,
    /// Images wrong here and right in the baseline.
    pub lost: u64,
    /// McNemar's exact two-sided p-value; absent where labels of these images
    /// had a part in either of the two.
    pub p_value: Option<f64>,
}

/// The numbers of `metrics.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricsTable {
    /// Top-1 accuracy.
    pub top1: Share,
    /// Top-5 accuracy; absent below six classes.
    pub top5: Option<Share>,
    /// Mean of the classes' accuracies, in percent.
    pub mean_per_class: f64,
    /// Accuracy of each class, in index order.
    pub per_class: Vec<ClassMetrics>,
    /// `confusion[label][prediction]`, counts.
    pub confusion: Vec<Vec<u64>>,
    /// Against the baseline, where one was given.
    pub paired: Option<Paired>,
    /// Whether labels of the scored images had a part in the classifier: chose
    /// its prompts, or trained the model.
    pub selected_on_this_split: bool,
    /// Which images were scored.
    pub scored: LabelUse,
    /// What was learned on the way: a point an epoch, empty unless fine-tuned.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub curve: Vec<f64>,
}

/// An image that one of two classifiers got right: a line of `changes.jsonl`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// The image's name in its split.
    pub image: String,
    /// Its class.
    pub class: String,
    /// The class predicted here.
    pub prediction: String,
    /// The class that the baseline predicts.
    pub baseline: String,
}

impl Change {
    /// Whether it is right here (else in the baseline).
    pub fn won(&self) -> bool {
        self.prediction == self.class
    }
}

/// The outcome of an evaluation.
///
/// Files: `metrics.json`; `predictions.safetensors` (`rows`, `labels`,
/// `predictions`, `ranks` i64 `[n]`, `confidence` f32 `[n]`); with a baseline
/// `changes.jsonl`, the images won and lost.
#[derive(Clone, Debug, PartialEq)]
pub struct Metrics {
    /// The numbers.
    pub table: MetricsTable,
    /// Place of each scored image in its split.
    pub rows: Vec<i64>,
    /// True class of each image.
    pub labels: Vec<i64>,
    /// Predicted class of each image.
    pub predictions: Vec<i64>,
    /// Classes ahead of the true one: 0 where the prediction is right.
    pub ranks: Vec<i64>,
    /// The softmax share of each prediction.
    pub confidence: Vec<f32>,
    /// Images won and lost against the baseline.
    pub changes: Vec<Change>,
}

impl Metrics {
    /// The numbers alone; `read` as for [`Artifact::decode`].
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn table(read: &dyn Fn(&str) -> Result<Vec<u8>>) -> Result<MetricsTable> {
        from_json("metrics.json", &read("metrics.json")?)
    }

    /// The first `most` images won and lost, of an evaluation with a baseline.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn changes(read: &dyn Fn(&str) -> Result<Vec<u8>>, most: usize) -> Result<Vec<Change>> {
        let bytes = read("changes.jsonl")?;
        let ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
        let end = ends.map(|(at, _)| at).nth(most).unwrap_or(bytes.len());
        let mut first = from_lines("changes.jsonl", &bytes[..end])?;
        first.truncate(most);
        Ok(first)
    }
}

impl Artifact for Metrics {
    fn kind(&self) -> Type {
        Type::Metrics
    }

    fn encode(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let bytes =
            |list: &[i64]| -> Vec<u8> { list.iter().flat_map(|x| x.to_le_bytes()).collect() };
        let ints = [
            ("rows", bytes(&self.rows)),
            ("labels", bytes(&self.labels)),
            ("predictions", bytes(&self.predictions)),
            ("ranks", bytes(&self.ranks)),
        ];
        let confidence: Vec<u8> = (self.confidence.iter())
            .flat_map(|x| x.to_le_bytes())
            .collect();
        let shape = vec![self.labels.len()];
        let mut tensors = Vec::new();
        for (name, data) in &ints {
            tensors.push((*name, TensorView::new(Dtype::I64, shape.clone(), data)?));
        }
        tensors.push((
            "confidence",
            TensorView::new(Dtype::F32, shape, &confidence)?,
        ));
        let mut files = vec![
            ("metrics.json".into(), json_bytes(&self.table)?),
            (
                "predictions.safetensors".into(),
                safetensors::serialize(tensors, None)?,
            ),
        ];
        if self.table.paired.is_some() {
            files.push(("changes.jsonl".into(), lines(&self.changes)?));
        }
        Ok(files)
    }

    fn decode(read: &dyn Fn(&str) -> Result<Vec<u8>>) -> Result<Self> {
        let table = Self::table(read)?;
        let bytes = read("predictions.safetensors")?;
        let tensors =
            SafeTensors::deserialize(&bytes).context("failed to read `predictions.safetensors`")?;
        let tensor = |name: &str, dtype: Dtype| -> Result<&[u8]> {
            let tensor = tensors.tensor(name)?;
            ensure!(tensor.dtype() == dtype, "`{name}` is not {dtype:?}");
            Ok(tensor.data())
        };
        let ints = |name: &str| -> Result<Vec<i64>> {
            let words = tensor(name, Dtype::I64)?.as_chunks::<8>().0;
            Ok(words.iter().map(|b| i64::from_le_bytes(*b)).collect())
        };
        let confidence = tensor("confidence", Dtype::F32)?.as_chunks::<4>().0;
        let metrics = Self {
            rows: ints("rows")?,
            labels: ints("labels")?,
            predictions: ints("predictions")?,
            ranks: ints("ranks")?,
            confidence: confidence.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            changes: match table.paired {
                Some(_) => from_lines("changes.jsonl", &read("changes.jsonl")?)?,
                None => Vec::new(),
            },
            table,
        };
        let n = metrics.labels.len();
        let all = [
            metrics.rows.len(),
            metrics.predictions.len(),
            metrics.ranks.len(),
            metrics.confidence.len(),
        ];
        ensure!(
            all.iter().all(|len| *len == n),
            "the tensors of `predictions.safetensors` differ in length"
        );
        Ok(metrics)
    }
}
