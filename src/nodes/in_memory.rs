//! Inputs held in memory and small embeddings, for tests of kinds.

use std::{cell::RefCell, collections::BTreeMap, path::PathBuf, sync::Arc};

use anyhow::{Context, Result, bail};

use crate::{
    artifact::{Artifact, Content, Embeddings, LabelUse, Manifest, Output, Row},
    digest::Digest,
    node::{ArtifactFiles, Budget, Ctx, Done, Input, Inputs, Node},
};

/// An artifact's files without a store.
struct Files(BTreeMap<String, Vec<u8>>);

impl ArtifactFiles for Files {
    fn read(&self, name: &str) -> Result<Vec<u8>> {
        Ok(self.0.get(name).context("no such file")?.clone())
    }

    fn bring(&self) -> bool {
        true
    }

    fn folder(&self) -> Result<PathBuf> {
        bail!("these files are in memory")
    }
}

/// `artifact` as another node's result, with labels that chose it.
pub(super) fn input<A: Artifact>(artifact: &A, labels: &[LabelUse]) -> Input {
    let manifest = Manifest {
        r#type: artifact.kind(),
        files: Vec::new(),
        labels: labels.iter().cloned().collect(),
    };
    Input::Artifact {
        digest: manifest.digest(),
        manifest: Arc::new(manifest),
        files: Arc::new(Files(artifact.encode().unwrap().into_iter().collect())),
    }
}

/// Finishes `node`; returns its artifact and labels, and its warnings.
pub(super) fn finish<A: Artifact>(
    node: &dyn Node,
    ports: Vec<(&'static str, Input)>,
) -> Result<(A, Vec<LabelUse>, Vec<String>)> {
    let mut inputs = Inputs::default();
    for (port, input) in ports {
        inputs.connect(port, input);
    }
    let warnings = RefCell::new(Vec::new());
    let mut ctx = Ctx {
        models: None,
        stop: &|| false,
        warn: &|text| warnings.borrow_mut().push(text),
        progress: &|_, _, _| {},
        budget: Budget::default(),
    };
    let Output { files, labels, .. } = node.finish(&inputs, &Done::default(), &mut ctx)?;
    let artifact = A::decode(&|name| match &files
        .iter()
        .find(|(n, _)| n == name)
        .context("no such file")?
        .1
    {
        Content::Bytes(bytes) => Ok(bytes.clone()),
        Content::File(path) => Ok(fs_err::read(path)?),
    })?;
    Ok((artifact, labels, warnings.into_inner()))
}

/// Labels of all rows of the split `name`.
pub(super) fn labels(name: &str) -> LabelUse {
    LabelUse {
        data: Digest::of(name.as_bytes()),
        split: name.to_owned(),
        rows: "all".to_owned(),
    }
}

fn embeddings(classes: &[&str], rows: &[(usize, &[f32])]) -> Embeddings {
    Embeddings {
        images: false,
        data: rows
            .iter()
            .flat_map(|(_, row)| row.iter().copied())
            .collect(),
        dim: rows[0].1.len(),
        rows: rows
            .iter()
            .map(|(class_index, _)| Row {
                class: classes[*class_index].to_owned(),
                class_index: *class_index,
                ..Row::default()
            })
            .collect(),
        classes: classes.iter().map(|class| (*class).to_owned()).collect(),
        labels_of: None,
    }
}

/// Text embeddings from (class, vector) pairs.
pub(super) fn texts(classes: &[&str], rows: &[(usize, &[f32])]) -> Embeddings {
    let mut out = embeddings(classes, rows);
    for (i, row) in out.rows.iter_mut().enumerate() {
        row.text = Some(format!("text {i}"));
    }
    out
}

/// Image embeddings of the split `test` from (label, vector) pairs.
pub(super) fn images(classes: &[&str], rows: &[(usize, &[f32])]) -> Embeddings {
    let mut out = embeddings(classes, rows);
    for (i, row) in out.rows.iter_mut().enumerate() {
        row.image = Some(format!("test/{i}"));
    }
    out.images = true;
    out.labels_of = Some(labels("test"));
    out
}

/// Text embeddings of candidates from (class, attributes, vector); the last
/// attribute is the candidate.
pub(super) fn trials(classes: &[&str], rows: &[(usize, &[&str], &[f32])]) -> Embeddings {
    let plain: Vec<(usize, &[f32])> = rows.iter().map(|(class, _, row)| (*class, *row)).collect();
    let mut out = texts(classes, &plain);
    for (row, (_, attributes, _)) in out.rows.iter_mut().zip(rows) {
        row.attributes = attributes.iter().map(|a| (*a).to_owned()).collect();
        row.candidate = row.attributes.last().cloned();
    }
    out
}
