//! Three rounds of greedy selection beside the study's loop: 100 candidates a
//! round, 10 classes, 10,000 images, 1,024 dimensions; then all classes' prompts
//! chosen together from the candidates of all rounds.
//! `cargo bench --bench selection`
#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]
#![expect(
    clippy::unwrap_used,
    reason = "a benchmark stops at the first surprise"
)]

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use runner::{
    artifact::{Artifact, Attributes, Content, Embeddings, LabelUse, Manifest, Row},
    digest::Digest,
    node::{ArtifactFiles, Budget, Ctx, Done, Input, Inputs},
    nodes::kind,
};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

const IMAGES: usize = 10_000;
const CLASSES: usize = 10;
const CANDIDATES: usize = 100;
const ROUNDS: usize = 3;
const DIM: usize = 1024;
/// Candidates of class 0 that the plain loop tries in each round.
const PART: usize = 3;
/// Random starts of the longer joint selection.
const RESTARTS: usize = 20;

struct Files(BTreeMap<String, Vec<u8>>);

impl ArtifactFiles for Files {
    fn bring(&self) -> bool {
        true
    }

    fn read(&self, name: &str) -> Result<Vec<u8>> {
        Ok(self.0.get(name).context("no such file")?.clone())
    }

    fn folder(&self) -> Result<PathBuf> {
        bail!("these files are in memory")
    }
}

/// Random directions around the centre of each row's class, so that most images are
/// right; `attributes` are those that a text carries, the candidate last.
fn embeddings(rows: &[(usize, Vec<String>)], spread: f32, state: &mut u64) -> Embeddings {
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
    for (class, _) in rows {
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
        rows: rows
            .iter()
            .map(|(class, attributes)| Row {
                class: names[*class].clone(),
                class_index: *class,
                attributes: attributes.clone(),
                candidate: attributes.last().cloned(),
                ..Row::default()
            })
            .collect(),
        classes: names,
        labels_of: None,
    }
}

/// `CANDIDATES` texts for each class, each with what the class has so far.
fn candidates(round: usize, chosen: &Attributes, state: &mut u64) -> Embeddings {
    let rows: Vec<(usize, Vec<String>)> = (0..CLASSES * CANDIDATES)
        .map(|i| {
            let class = i / CANDIDATES;
            let mut attributes = chosen.of(&format!("class {class}")).to_vec();
            attributes.push(format!("attribute {i} of round {round}"));
            (class, attributes)
        })
        .collect();
    embeddings(&rows, 0.4, state)
}

fn input<A: Artifact>(artifact: &A) -> Input {
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

/// What a node of this kind with these parameters makes of `ports`, and how long that takes: its inputs
/// are decoded, and its result is encoded, within the time.
fn select(name: &str, parameters: &str, ports: &[(&'static str, Input)]) -> (Attributes, Duration) {
    let mut inputs = Inputs::default();
    for (port, input) in ports {
        inputs.connect(port, input.clone());
    }
    let table = DeTable::parse(parameters).unwrap();
    let table = Spanned::new(table.span(), DeValue::Table(table.into_inner()));
    let node = (kind(name).unwrap().parse)(table).unwrap().node;
    let mut ctx = Ctx {
        models: None,
        stop: &|| false,
        warn: &|text| println!("{text}"),
        progress: &|_, _, _| {},
        budget: Budget::default(),
    };
    let began = Instant::now();
    let output = node.finish(&inputs, &Done::default(), &mut ctx).unwrap();
    let time = began.elapsed();
    let found = Attributes::decode(&|_| match &output.files[0].1 {
        Content::Bytes(bytes) => Ok(bytes.clone()),
        Content::File(_) => bail!("not in memory"),
    });
    (found.unwrap(), time)
}

/// The study's loop: every candidate of class 0 classifies every image anew.
fn plain_loop(images: &Embeddings, plain: &Embeddings, candidate: &[f32]) -> u64 {
    let mut texts: Vec<&[f32]> = (0..CLASSES).map(|class| plain.row(class)).collect();
    texts[0] = candidate;
    classify(images, &texts)
}

/// Images whose class has the largest logit, of equal ones the first.
fn classify(images: &Embeddings, texts: &[&[f32]]) -> u64 {
    let mut right = 0;
    for (i, row) in images.rows.iter().enumerate() {
        let mut best = (0, f32::NEG_INFINITY);
        for (class, text) in texts.iter().enumerate() {
            let logit: f32 = images.row(i).iter().zip(*text).map(|(x, y)| x * y).sum();
            if logit > best.1 {
                best = (class, logit);
            }
        }
        right += u64::from(best.0 == row.class_index);
    }
    right
}

/// Images that are right when every class has its chosen text of `lists`.
fn together(images: &Embeddings, lists: &[Embeddings], chosen: &Attributes) -> u64 {
    let texts: Vec<&[f32]> = chosen
        .classes
        .iter()
        .map(|entry| {
            let all = lists.iter();
            let mut found = all.flat_map(|list| (0..list.len()).map(move |i| (list, i)));
            let of = |(list, i): &(&Embeddings, usize)| {
                let row = &list.rows[*i];
                row.class == entry.class && row.attributes == entry.attributes
            };
            let (list, i) = found.find(of).unwrap();
            list.row(i)
        })
        .collect();
    classify(images, &texts)
}

fn main() {
    let mut state = 1;
    let labels: Vec<(usize, Vec<String>)> =
        (0..IMAGES).map(|i| (i % CLASSES, Vec::new())).collect();
    let mut images = embeddings(&labels, 1.0, &mut state);
    images.images = true;
    images.labels_of = Some(LabelUse {
        data: Digest::of(b"bench"),
        split: "train".into(),
        rows: "all".into(),
    });
    let plain: Vec<(usize, Vec<String>)> = (0..CLASSES).map(|i| (i, Vec::new())).collect();
    let plain = embeddings(&plain, 0.4, &mut state);
    let fixed = [("images", input(&images)), ("baseline", input(&plain))];
    let threads = thread::available_parallelism().map_or(1, usize::from);
    println!(
        "{CANDIDATES} candidates x {CLASSES} classes x {ROUNDS} rounds, {IMAGES} images, {DIM} dimensions, {threads} threads"
    );

    let (mut chosen, mut lists) = (Attributes::default(), Vec::new());
    let (mut selection, mut plainly) = (Duration::ZERO, Duration::ZERO);
    for round in 0..ROUNDS {
        let texts = candidates(round, &chosen, &mut state);
        let mut ports = fixed.to_vec();
        ports.push(("candidates", input(&texts)));
        ports.push(("chosen", input(&chosen)));
        let (found, time) = select("greedy_select", "", &ports);
        selection += time;
        println!(
            "greedy_select, round {}: {:.2} s",
            round + 1,
            time.as_secs_f64()
        );
        let began = Instant::now();
        let counts: Vec<u64> = (0..PART)
            .map(|i| plain_loop(&images, &plain, texts.row(i)))
            .collect();
        plainly += began.elapsed();
        for (i, count) in counts.iter().enumerate() {
            let scored = found.classes[0].candidates[i].score;
            assert_eq!(scored.to_bits(), (*count as f64).to_bits(), "equal counts");
        }
        chosen = found;
        lists.push(texts);
    }
    let (all, tried) = (CLASSES * CANDIDATES * ROUNDS, PART * ROUNDS);
    let loop_time = plainly.as_secs_f64() / tried as f64 * all as f64;
    println!(
        "greedy_select, {ROUNDS} rounds: {:.2} s, inputs decoded and results encoded",
        selection.as_secs_f64()
    );
    println!(
        "the study's loop, one thread: {loop_time:.0} s, from {tried} of {all} candidates with equal counts: {:.0} times as long",
        loop_time / selection.as_secs_f64()
    );

    let mut ports = fixed.to_vec();
    ports.extend(lists.iter().map(|list| ("candidates", input(list))));
    lists.push(plain);
    let greedy = together(&images, &lists, &chosen);
    println!("the greedy choice of all classes together: {greedy} images right");
    ports.push(("start", input(&chosen)));
    for restarts in [0, RESTARTS] {
        let (found, time) = select("joint_select", &format!("restarts = {restarts}"), &ports);
        let right = together(&images, &lists, &found);
        let scored = found.classes[0].score;
        assert_eq!(scored.map(f64::to_bits), Some((right as f64).to_bits()));
        assert!(right >= greedy, "never worse than its start");
        println!(
            "joint_select, {restarts} random starts besides it: {:.2} s, {right} images right",
            time.as_secs_f64()
        );
    }
}
