//! What an evaluation measured: `metrics.json` and `predictions.safetensors`.

use anyhow::{Context, Result, bail, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Artifact, Type, from_json, json_bytes};

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
}

/// A paired comparison with a baseline on the same images.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Paired {
    /// Difference of top-1 in percentage points.
    pub difference: f64,
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
    /// What was learned on the way: a point an epoch, empty unless fine-tuned.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub curve: Vec<f64>,
}

/// The outcome of an evaluation.
///
/// Files: `metrics.json`, `predictions.safetensors` (`predictions`, `labels` i64 `[n]`,
/// `confidence` f32 `[n]`).
#[derive(Clone, Debug, PartialEq)]
pub struct Metrics {
    /// The numbers.
    pub table: MetricsTable,
    /// Predicted class of each image.
    pub predictions: Vec<i64>,
    /// True class of each image.
    pub labels: Vec<i64>,
    /// The softmax share of each prediction.
    pub confidence: Vec<f32>,
}

impl Artifact for Metrics {
    fn kind(&self) -> Type {
        Type::Metrics
    }

    fn encode(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let bytes =
            |list: &[i64]| -> Vec<u8> { list.iter().flat_map(|x| x.to_le_bytes()).collect() };
        let (predictions, labels) = (bytes(&self.predictions), bytes(&self.labels));
        let confidence: Vec<u8> = (self.confidence.iter())
            .flat_map(|x| x.to_le_bytes())
            .collect();
        let view = |dtype, data| {
            safetensors::tensor::TensorView::new(dtype, vec![self.predictions.len()], data)
        };
        let tensors = vec![
            ("labels", view(safetensors::Dtype::I64, &labels)?),
            ("predictions", view(safetensors::Dtype::I64, &predictions)?),
            ("confidence", view(safetensors::Dtype::F32, &confidence)?),
        ];
        Ok(vec![
            ("metrics.json".into(), json_bytes(&self.table)?),
            (
                "predictions.safetensors".into(),
                safetensors::serialize(tensors, None)?,
            ),
        ])
    }

    fn decode(read: &dyn Fn(&str) -> Result<Vec<u8>>) -> Result<Self> {
        let bytes = read("predictions.safetensors")?;
        let tensors = safetensors::SafeTensors::deserialize(&bytes)
            .context("failed to read `predictions.safetensors`")?;
        let ints = |name: &str| -> Result<Vec<i64>> {
            let tensor = tensors.tensor(name)?;
            ensure!(
                tensor.dtype() == safetensors::Dtype::I64,
                "`{name}` is not i64"
            );
            Ok(tensor
                .data()
                .as_chunks::<8>()
                .0
                .iter()
                .map(|b| i64::from_le_bytes(*b))
                .collect())
        };
        let (predictions, labels) = (ints("predictions")?, ints("labels")?);
        let confidence = tensors.tensor("confidence")?;
        ensure!(
            confidence.dtype() == safetensors::Dtype::F32,
            "`confidence` is not f32"
        );
        let confidence: Vec<f32> = (confidence.data().as_chunks::<4>().0.iter())
            .map(|b| f32::from_le_bytes(*b))
            .collect();
        if predictions.len() != labels.len() || predictions.len() != confidence.len() {
            bail!("`predictions`, `labels` and `confidence` differ in length");
        }
        Ok(Self {
            table: from_json("metrics.json", &read("metrics.json")?)?,
            predictions,
            labels,
            confidence,
        })
    }
}
