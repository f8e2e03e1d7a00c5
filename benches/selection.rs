//! Greedy selection beside the study's loop: 100 candidates, 10 classes, 10,000
//! images, 1,024 dimensions. `cargo bench --bench selection`
#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]
#![expect(
    clippy::unwrap_used,
    reason = "a benchmark stops at the first surprise"
)]

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Instant};

use anyhow::{Context, Result, bail};
use runner::{
    artifact::{Artifact, Attributes, Content, Embeddings, LabelUse, Manifest, Row},
    digest::Digest,
    node::{ArtifactFiles, Ctx, Done, Input, Inputs},
    nodes::kind,
};
use toml::{Spanned, de::DeValue};

const IMAGES: usize = 10_000;
const CLASSES: usize = 10;
const CANDIDATES: usize = 100;
const DIM: usize = 1024;
/// Candidates that the plain loop tries, of class 0.
const PART: usize = 3;

struct Files(BTreeMap<String, Vec<u8>>);

impl ArtifactFiles for Files {
    fn read(&self, name: &str) -> Result<Vec<u8>> {
        Ok(self.0.get(name).context("no such file")?.clone())
    }

    fn folder(&self) -> Result<PathBuf> {
        bail!("these files are in memory")
    }
}

/// Random directions around one of `CLASSES` centres, so that most images are right.
fn embeddings(classes: &[usize], candidates: bool, spread: f32, state: &mut u64) -> Embeddings {
    let mut draw = |scale: f32| -> Vec<f32> {
        (0..DIM)
            .map(|_| {
                *state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                scale * ((*state >> 40) as f32 / 8_388_608.0 - 1.0)
            })
            .collect()
    };
    let mut data = Vec::new();
    for class in classes {
        let mut row = draw(spread);
        for (i, x) in row.iter_mut().enumerate() {
            *x += if i % CLASSES == *class { 0.3 } else { 0.0 };
        }
        let length = row.iter().map(|x| x * x).sum::<f32>().sqrt();
        data.extend(row.iter().map(|x| x / length));
    }
    let names: Vec<String> = (0..CLASSES).map(|i| format!("class {i}")).collect();
    Embeddings {
        images: false,
        data,
        dim: DIM,
        rows: classes
            .iter()
            .enumerate()
            .map(|(i, class)| Row {
                class: names[*class].clone(),
                class_index: *class,
                attributes: vec![format!("attribute {i}")],
                candidate: candidates.then(|| format!("attribute {i}")),
                ..Row::default()
            })
            .collect(),
        classes: names,
        labels_of: None,
    }
}

fn input(artifact: &Embeddings) -> Input {
    let manifest = Manifest {
        r#type: artifact.kind(),
        files: Vec::new(),
        labels: [].into(),
    };
    Input::Artifact {
        digest: manifest.digest(),
        manifest: Arc::new(manifest),
        files: Arc::new(Files(artifact.encode().unwrap().into_iter().collect())),
    }
}

/// The study's loop: every candidate classifies every image anew.
fn plain_loop(images: &Embeddings, plain: &Embeddings, candidate: &[f32]) -> u64 {
    let mut right = 0;
    for (i, row) in images.rows.iter().enumerate() {
        let mut best = (0, f32::NEG_INFINITY);
        for class in 0..CLASSES {
            let text = if class == 0 {
                candidate
            } else {
                plain.row(class)
            };
            let logit: f32 = images.row(i).iter().zip(text).map(|(x, y)| x * y).sum();
            if logit > best.1 {
                best = (class, logit);
            }
        }
        right += u64::from(best.0 == row.class_index);
    }
    right
}

fn main() {
    let mut state = 1;
    let labels: Vec<usize> = (0..IMAGES).map(|i| i % CLASSES).collect();
    let mut images = embeddings(&labels, false, 1.0, &mut state);
    images.images = true;
    images.labels_of = Some(LabelUse {
        data: Digest::of(b"bench"),
        split: "train".into(),
        rows: "all".into(),
    });
    let plain = embeddings(&(0..CLASSES).collect::<Vec<_>>(), false, 0.4, &mut state);
    let of_class: Vec<usize> = (0..CLASSES * CANDIDATES).map(|i| i / CANDIDATES).collect();
    let candidates = embeddings(&of_class, true, 0.4, &mut state);

    let mut inputs = Inputs::default();
    inputs.connect("images", input(&images));
    inputs.connect("baseline", input(&plain));
    inputs.connect("candidates", input(&candidates));
    let table = Spanned::new(0..0, DeValue::Table(toml::de::DeTable::default()));
    let node = (kind("greedy_select").unwrap().parse)(table).unwrap().node;
    let mut ctx = Ctx {
        models: None,
        stop: &|| false,
        warn: &|text| println!("{text}"),
        progress: &|_, _, _| {},
        budget: runner::node::Budget::default(),
    };
    let mut output = None;
    for _ in 0..3 {
        let began = Instant::now();
        output = Some(node.finish(&inputs, &Done::default(), &mut ctx).unwrap());
        println!(
            "greedy_select, files read and result written: {:.2} s a round",
            began.elapsed().as_secs_f64()
        );
    }
    let files = output.unwrap().files;
    let found = Attributes::decode(&|_| match &files[0].1 {
        Content::Bytes(bytes) => Ok(bytes.clone()),
        Content::File(_) => bail!("not in memory"),
    })
    .unwrap();

    let began = Instant::now();
    for i in 0..PART {
        let count = plain_loop(&images, &plain, candidates.row(i)) as f64;
        println!(
            "candidate {i}: {} images right by selection, {count} by the plain loop",
            found.classes[0].candidates[i].score
        );
    }
    let each = began.elapsed().as_secs_f64() / PART as f64;
    println!(
        "plain loop, one thread: {each:.3} s a candidate, {:.0} s for {} (from {PART})",
        each * (CLASSES * CANDIDATES) as f64,
        CLASSES * CANDIDATES
    );
}
