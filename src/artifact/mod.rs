//! What flows along an edge of the graph, and its files: open formats with
//! canonical bytes (no times, paths, devices or random order).

mod answers;
mod metrics;
mod part;

use std::{collections::BTreeSet, fmt, path::PathBuf};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub use self::answers::{Answer, Answers, Dropped, Finish, Flag};
pub use self::metrics::{Change, ClassChange, ClassMetrics, Metrics, MetricsTable, Paired, Share};
pub use self::part::Part;
use crate::digest::{Digest, canonical};

/// The type of an artifact: what an edge of the graph carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Type {
    /// Embeddings of a split's images, with labels.
    ImageEmbeddings,
    /// Embeddings of texts, each belonging to a class.
    TextEmbeddings,
    /// Answers of an LLM, with the attributes parsed from them.
    Answers,
    /// Attributes chosen for each class, best or first chosen first.
    Attributes,
    /// What an evaluation measured.
    Metrics,
    /// A model folder that `[models]` can name.
    Weights,
    /// Bytes of the hidden kind `probe`.
    Probe,
}

impl Type {
    /// Whether tables and the report are made of all of its files, so that a run needs them.
    pub const fn is_reported(self) -> bool {
        matches!(self, Self::Answers | Self::Attributes | Self::Metrics)
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ImageEmbeddings => "image embeddings",
            Self::TextEmbeddings => "text embeddings",
            Self::Answers => "answers",
            Self::Attributes => "attributes",
            Self::Metrics => "metrics",
            Self::Weights => "model weights",
            Self::Probe => "probe bytes",
        })
    }
}

/// One file of an artifact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Name inside the artifact, with `/` between folders.
    pub name: String,
    /// BLAKE3 of the bytes.
    pub digest: Digest,
    /// Length in bytes.
    pub size: u64,
}

/// Labels that had a part in an artifact: of which data, which split, which rows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LabelUse {
    /// Digest of the labels that were read.
    pub data: Digest,
    /// Name of the split in its data set.
    pub split: String,
    /// The [`Part`] that was read.
    pub rows: String,
}

impl LabelUse {
    /// Whether both may have read the label of the same image: a part that is
    /// not known may be anything.
    pub fn overlaps(&self, other: &Self) -> bool {
        let apart = || match (self.rows.parse::<Part>(), other.rows.parse::<Part>()) {
            (Ok(a), Ok(b)) => a.apart(b),
            _ => false,
        };
        self.data == other.data && self.split == other.split && !apart()
    }
}

/// The list of an artifact's files; its digest is the artifact's identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// What the artifact is.
    pub r#type: Type,
    /// Its files, ordered by name.
    pub files: Vec<FileEntry>,
    /// Labels that chose what is in it: the union of its own and its inputs'.
    pub labels: BTreeSet<LabelUse>,
}

impl Manifest {
    /// The manifest's canonical bytes, stored as an object of their own.
    pub fn bytes(&self) -> Vec<u8> {
        let value = serde_json::to_value(self).unwrap_or_default();
        canonical(&value).into_bytes()
    }

    /// The artifact's digest: that of [`Self::bytes`].
    pub fn digest(&self) -> Digest {
        Digest::of(&self.bytes())
    }

    /// The entry called `name`.
    pub fn file(&self, name: &str) -> Option<&FileEntry> {
        self.files.iter().find(|file| file.name == name)
    }
}

/// Where a new file's bytes are.
#[derive(Debug)]
pub enum Content {
    /// In memory.
    Bytes(Vec<u8>),
    /// In a file that may be copied (weights too large to hold).
    File(PathBuf),
}

/// A finished node's artifact before it is stored.
#[derive(Debug)]
pub struct Output {
    /// What it is.
    pub r#type: Type,
    /// Its files in any order; names are unique.
    pub files: Vec<(String, Content)>,
    /// Labels that this node itself read to choose something.
    pub labels: Vec<LabelUse>,
}

/// A value with a fixed set of files.
pub trait Artifact: Sized {
    /// Its type on an edge.
    fn kind(&self) -> Type;

    /// Its files, in canonical bytes.
    fn encode(&self) -> Result<Vec<(String, Vec<u8>)>>;

    /// Reads it back; `read` gives a file's verified bytes by name.
    fn decode(read: &dyn Fn(&str) -> Result<Vec<u8>>) -> Result<Self>;

    /// The value as a node's output without labels of its own.
    fn output(&self) -> Result<Output> {
        Ok(Output {
            r#type: self.kind(),
            files: self
                .encode()?
                .into_iter()
                .map(|(name, bytes)| (name, Content::Bytes(bytes)))
                .collect(),
            labels: Vec::new(),
        })
    }
}

/// One row of [`Embeddings`]: a line of `items.jsonl`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// The encoded string, for texts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The image's name in its split, for images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Name of the class the row belongs to (a text's class, an image's label).
    pub class: String,
    /// Index of that class.
    pub class_index: usize,
    /// Attributes in the text, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<String>,
    /// The attribute on trial, when the text carries one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<String>,
    /// Which of several templates made the text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<usize>,
}

/// L2-normalised embeddings of images or texts.
///
/// Files: `embeddings.safetensors` (`embeddings` f32 `[n, d]`; `labels` i64
/// `[n]` for images), `items.jsonl` (a [`Row`] a line), `classes.json`.
#[derive(Clone, Debug, PartialEq)]
pub struct Embeddings {
    /// Whether the rows are images of a split (else texts).
    pub images: bool,
    /// Row-major `[n, dim]`.
    pub data: Vec<f32>,
    /// Length of one row.
    pub dim: usize,
    /// What each row is.
    pub rows: Vec<Row>,
    /// Class names in index order.
    pub classes: Vec<String>,
    /// For images: which labels these are (data digest and split).
    pub labels_of: Option<LabelUse>,
}

impl Embeddings {
    /// Row `i`.
    pub fn row(&self, i: usize) -> &[f32] {
        &self.data[i * self.dim..(i + 1) * self.dim]
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

impl Artifact for Embeddings {
    fn kind(&self) -> Type {
        if self.images {
            Type::ImageEmbeddings
        } else {
            Type::TextEmbeddings
        }
    }

    fn encode(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let floats: Vec<u8> = self.data.iter().flat_map(|x| x.to_le_bytes()).collect();
        let labels: Vec<u8> = self
            .rows
            .iter()
            .flat_map(|row| (row.class_index as i64).to_le_bytes())
            .collect();
        let shape = vec![self.rows.len(), self.dim];
        let mut tensors = vec![(
            "embeddings",
            safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape, &floats)?,
        )];
        if self.images {
            let shape = vec![self.rows.len()];
            tensors.push((
                "labels",
                safetensors::tensor::TensorView::new(safetensors::Dtype::I64, shape, &labels)?,
            ));
        }
        let head = EmbeddingsHead {
            classes: self.classes.clone(),
            labels_of: self.labels_of.clone(),
            images: self.images,
        };
        Ok(vec![
            ("classes.json".into(), json_bytes(&head)?),
            (
                "embeddings.safetensors".into(),
                safetensors::serialize(tensors, None)?,
            ),
            ("items.jsonl".into(), lines(&self.rows)?),
        ])
    }

    fn decode(read: &dyn Fn(&str) -> Result<Vec<u8>>) -> Result<Self> {
        let head: EmbeddingsHead = from_json("classes.json", &read("classes.json")?)?;
        let bytes = read("embeddings.safetensors")?;
        let tensors = safetensors::SafeTensors::deserialize(&bytes)
            .context("failed to read `embeddings.safetensors`")?;
        let tensor = tensors.tensor("embeddings")?;
        ensure!(
            tensor.dtype() == safetensors::Dtype::F32 && tensor.shape().len() == 2,
            "`embeddings` is not a matrix of f32"
        );
        let rows: Vec<Row> = from_lines("items.jsonl", &read("items.jsonl")?)?;
        ensure!(
            rows.len() == tensor.shape()[0],
            "`items.jsonl` has {} lines for {} embeddings",
            rows.len(),
            tensor.shape()[0]
        );
        Ok(Self {
            images: head.images,
            dim: tensor.shape()[1],
            data: floats(tensor.data()),
            rows,
            classes: head.classes,
            labels_of: head.labels_of,
        })
    }
}

#[derive(Serialize, Deserialize)]
struct EmbeddingsHead {
    classes: Vec<String>,
    images: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    labels_of: Option<LabelUse>,
}

/// A candidate with its score.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scored {
    /// The attribute.
    pub attribute: String,
    /// Correct images (greedy selection) or cosine similarity (ranking).
    pub score: f64,
}

/// What was chosen for one class.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassAttributes {
    /// The class's name.
    pub class: String,
    /// Chosen attributes, in the order in which a prompt names them.
    pub attributes: Vec<String>,
    /// Score of the attributes together, where they were chosen by one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// Everything that was weighed, in candidate order (selection) or best first (ranking).
    #[serde(default)]
    pub candidates: Vec<Scored>,
    /// What the same score is without any candidate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<f64>,
    /// Images that the score counts, for accuracies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images: Option<usize>,
}

/// Attributes for each class: the outcome of a selection or a ranking.
///
/// File: `attributes.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attributes {
    /// One entry a class, in index order; empty means "nothing chosen yet".
    pub classes: Vec<ClassAttributes>,
}

impl Attributes {
    /// The attributes of the class called `name`.
    pub fn of(&self, name: &str) -> &[String] {
        self.classes
            .iter()
            .find(|entry| entry.class == name)
            .map_or(&[], |entry| &entry.attributes)
    }
}

impl Artifact for Attributes {
    fn kind(&self) -> Type {
        Type::Attributes
    }

    fn encode(&self) -> Result<Vec<(String, Vec<u8>)>> {
        Ok(vec![("attributes.json".into(), json_bytes(self)?)])
    }

    fn decode(read: &dyn Fn(&str) -> Result<Vec<u8>>) -> Result<Self> {
        from_json("attributes.json", &read("attributes.json")?)
    }
}

/// Little-endian f32 values of `bytes`.
fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|b| f32::from_le_bytes(*b))
        .collect()
}

/// Canonical, indented-by-nothing JSON with a final newline.
pub fn json_bytes<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    Ok((canonical(&serde_json::to_value(value)?) + "\n").into_bytes())
}

fn lines<T: Serialize>(rows: &[T]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    for row in rows {
        out.extend(json_bytes(row)?);
    }
    Ok(out)
}

fn from_json<T: DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).with_context(|| format!("failed to read `{name}`"))
}

fn from_lines<T: DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<Vec<T>> {
    bytes
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| from_json(name, line))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip<A: Artifact + PartialEq + fmt::Debug>(value: &A) {
        let files = value.encode().unwrap();
        let read = |name: &str| {
            let file = files.iter().find(|(n, _)| n == name);
            Ok(file.context("no such file")?.1.clone())
        };
        assert_eq!(&A::decode(&read).unwrap(), value);
        assert_eq!(value.encode().unwrap(), files, "bytes are canonical");
    }

    #[test]
    fn every_artifact_survives_its_files() {
        round_trip(&Embeddings {
            images: false,
            data: vec![1.0, 0.0, -0.6, 0.8],
            dim: 2,
            rows: vec![
                Row {
                    text: Some("a photo of a cat".into()),
                    class: "cat".into(),
                    attributes: vec!["soft fur".into()],
                    candidate: Some("soft fur".into()),
                    ..Row::default()
                },
                Row {
                    class: "dog".into(),
                    class_index: 1,
                    ..Row::default()
                },
            ],
            classes: vec!["cat".into(), "dog".into()],
            labels_of: None,
        });
        round_trip(&Attributes {
            classes: vec![ClassAttributes {
                class: "cat".into(),
                attributes: vec!["soft".into()],
                score: Some(3.0),
                candidates: vec![Scored {
                    attribute: "soft".into(),
                    score: 3.0,
                }],
                baseline: Some(2.0),
                images: Some(10),
            }],
        });
    }

    #[test]
    fn label_uses_overlap_when_an_image_may_be_in_both() {
        let of = |data: &[u8], split: &str, rows: &str| LabelUse {
            data: Digest::of(data),
            split: split.into(),
            rows: rows.into(),
        };
        let all = of(b"a", "test", "all");
        assert!(all.overlaps(&all) && all.overlaps(&of(b"a", "test", "even")));
        assert!(of(b"a", "test", "even").overlaps(&all));
        assert!(!of(b"a", "test", "even").overlaps(&of(b"a", "test", "odd")));
        assert!(
            !all.overlaps(&of(b"a", "train", "all")) && !all.overlaps(&of(b"b", "test", "all"))
        );
    }

    #[test]
    fn of_equal_candidates_the_first_stays() {
        let answer = |sample, attributes: &[&str], valid| Answer {
            class: "cat".into(),
            class_index: 0,
            sample,
            attempt: 0,
            attributes: attributes.iter().map(|a| (*a).to_owned()).collect(),
            valid,
            ..Answer::default()
        };
        let answers = Answers {
            answers: vec![
                answer(0, &["a", "b"], true),
                answer(1, &["x"], false),
                answer(2, &["b", "c"], true),
            ],
            classes: vec!["cat".into()],
        };
        assert_eq!(answers.candidates(0), ["a", "b", "c"]);
        round_trip(&answers);
    }
}
