//! The demo's models against the reference implementations on the same files:
//! embeddings, predictions, greedy answers and ten steps of fine-tuning.
//!
//! What open_clip, PyTorch and transformers gave is in `tests/demo/`, with the
//! scripts that asked them.

use std::{collections::BTreeMap, path::PathBuf};

use burn::tensor::{DType, Device};
use runner::{
    data::{DataSet, DataSpec, Format},
    digest::FileMemo,
    models::{
        clip::{Clip, Layers, Trainer, checkpoint::Checkpoint},
        image::Rgb8,
        llm::{Limits, Llm, Request},
        sampling::Sampling,
    },
};
use serde_json::Value;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn demo(name: &str) -> PathBuf {
    root().join("pipelines/demo").join(name)
}

fn json(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(root().join("tests/demo").join(name)).unwrap()).unwrap()
}

/// A tensor of a reference file: f32 or u8 values.
fn numbers(file: &str, name: &str) -> Vec<f32> {
    let bytes = std::fs::read(root().join("tests/demo").join(file)).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let tensor = tensors.tensor(name).unwrap();
    match tensor.dtype() {
        safetensors::Dtype::F32 => tensor
            .data()
            .as_chunks::<4>()
            .0
            .iter()
            .map(|b| f32::from_le_bytes(*b))
            .collect(),
        safetensors::Dtype::U8 => tensor.data().iter().map(|b| f32::from(*b)).collect(),
        other => panic!("{other:?}"),
    }
}

fn cifar10() -> DataSet {
    let spec = DataSpec::new(Format::Cifar10, demo("cifar-10-batches-bin"));
    DataSet::open(&spec, &FileMemo::in_memory()).unwrap()
}

fn images(split: &str, which: impl Iterator<Item = usize>) -> Vec<Rgb8> {
    let set = cifar10();
    let split = set.split(split).unwrap();
    which
        .map(|i| {
            let pixels = split.image(i).unwrap();
            Rgb8::new(pixels.width, pixels.height, pixels.rgb).unwrap()
        })
        .collect()
}

fn strings(value: &Value) -> Vec<String> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s.as_str().unwrap().to_owned())
        .collect()
}

/// The smallest cosine between rows of two matrices of normalised rows.
fn worst_cosine(a: &[f32], b: &[f32], dim: usize) -> f64 {
    assert_eq!(a.len(), b.len());
    a.chunks_exact(dim)
        .zip(b.chunks_exact(dim))
        .map(|(a, b)| {
            a.iter()
                .zip(b)
                .map(|(x, y)| f64::from(*x) * f64::from(*y))
                .sum()
        })
        .fold(1.0, f64::min)
}

fn clip() -> Clip {
    Clip::load(&demo("clip"), DType::F32, &Device::flex()).unwrap()
}

#[test]
fn text_embeddings_equal_open_clips() {
    let reference = json("reference.json");
    let texts = strings(&reference["texts"]);
    let clip = clip();
    let ours = clip.encode_texts(&texts).unwrap();
    let theirs = numbers("clip.safetensors", "text_embeddings");
    let worst = worst_cosine(&ours, &theirs, clip.embed_dim());
    assert!(worst >= 0.99999, "{worst}");
    // The tolerance sees a real mistake: one letter of one text.
    let mut wrong = texts;
    wrong[0].push('s');
    let wrong = clip.encode_texts(&wrong).unwrap();
    assert!(worst_cosine(&wrong, &theirs, clip.embed_dim()) < 0.99999);
}

#[test]
fn image_embeddings_and_every_prediction_equal_open_clips() {
    let reference = json("reference.json");
    let clip = clip();
    let dim = clip.embed_dim();
    let all = clip.encode_images(&images("test", 0..2000)).unwrap();
    let theirs = numbers("clip.safetensors", "image_embeddings");
    let worst = worst_cosine(&all[..theirs.len()], &theirs, dim);
    assert!(worst >= 0.99999, "{worst}");
    for (name, texts) in reference["prompt_sets"].as_object().unwrap() {
        let classes = clip.encode_texts(&strings(texts)).unwrap();
        let theirs = numbers("clip.safetensors", &format!("predictions {name}"));
        let wrong = all
            .chunks_exact(dim)
            .zip(&theirs)
            .filter(|(image, theirs)| {
                let logits: Vec<f32> = classes
                    .chunks_exact(dim)
                    .map(|class| class.iter().zip(*image).map(|(a, b)| a * b).sum())
                    .collect();
                let best = (0..logits.len())
                    .rev()
                    .max_by(|a, b| logits[*a].total_cmp(&logits[*b]));
                best != Some(**theirs as usize)
            })
            .count();
        assert_eq!(wrong, 0, "predictions with the prompts `{name}`");
    }
}

#[test]
fn greedy_answers_equal_transformers_token_for_token() {
    let reference = json("llm.json");
    let limit = reference["limit"].as_u64().unwrap() as usize;
    let llm = Llm::load(&demo("llm"), DType::F32.into(), &Device::flex(), u64::MAX).unwrap();
    let answers = reference["answers"].as_array().unwrap();
    let ids = |value: &Value| -> Vec<u32> {
        value
            .as_array()
            .unwrap()
            .iter()
            .map(|id| id.as_u64().unwrap() as u32)
            .collect()
    };
    let mut requests = Vec::new();
    for answer in answers {
        let prompt_ids = llm
            .prompt_ids(answer["prompt"].as_str().unwrap(), None)
            .unwrap();
        assert_eq!(
            prompt_ids,
            ids(&answer["prompt_ids"]),
            "the template's tokens"
        );
        requests.push(Request {
            prompt_ids,
            sampling: Sampling {
                temperature: 0.0,
                max_tokens: limit,
                ..Sampling::default()
            },
            key: [0; 32],
            grammar: None,
        });
    }
    let mut ours = vec![None; requests.len()];
    let mut on_answer = |place: usize, answer| {
        ours[place] = Some(answer);
        Ok(())
    };
    let limits = Limits::default();
    llm.generate(&requests, &limits, &mut on_answer, &mut |_| {}, &|| false)
        .unwrap();
    for (ours, answer) in ours.into_iter().flatten().zip(answers) {
        let mut theirs = ids(&answer["ids"]);
        if theirs.last() == Some(&2) {
            theirs.pop();
        }
        assert_eq!(ours.token_ids, theirs, "{}", answer["prompt"]);
    }
}

#[test]
fn next_token_logits_equal_transformers() {
    let reference = json("llm.json");
    let llm = Llm::load(&demo("llm"), DType::F32.into(), &Device::flex(), u64::MAX).unwrap();
    for k in [0, 8] {
        let prompt = reference["answers"][k]["prompt"].as_str().unwrap();
        let ours = llm.logits(&llm.prompt_ids(prompt, None).unwrap()).unwrap();
        let theirs = numbers("llm.safetensors", &format!("logits {k}"));
        let scale = theirs.iter().fold(0_f32, |m, x| m.max(x.abs()));
        let ours = &ours[ours.len() - theirs.len()..];
        let worst = ours
            .iter()
            .zip(&theirs)
            .fold(0_f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(worst <= 1e-4 * scale, "{worst} of {scale}");
    }
}

#[test]
fn ten_steps_of_fine_tuning_equal_pytorch() {
    let reference = json("finetune.json");
    let run = &reference["runs"]["affine trained"];
    let prompts = strings(&reference["prompts"]);
    let set = cifar10();
    let labels = set.split("train").unwrap().labels().to_vec();
    let device = Device::flex().autodiff();
    let mut trainer = Trainer::load(
        &Checkpoint::open(&demo("clip"), None).unwrap(),
        Layers::default(),
        0.0,
        &device,
    )
    .unwrap();
    let losses = run["losses"].as_array().unwrap();
    for (indices, expected) in reference["indices"].as_array().unwrap().iter().zip(losses) {
        let indices: Vec<usize> = indices
            .as_array()
            .unwrap()
            .iter()
            .map(|i| i.as_u64().unwrap() as usize)
            .collect();
        let batch: Vec<usize> = indices.iter().map(|i| labels[*i]).collect();
        let images = images("train", indices.into_iter());
        let features = trainer.features(&images).unwrap();
        let learned = trainer
            .step(&features, &batch, &prompts, 50.0, 5e-4)
            .unwrap();
        let expected = expected.as_f64().unwrap();
        let off = (learned.loss - expected).abs() / expected;
        assert!(
            off <= 1e-4,
            "loss {} for {expected}: off by {off:e}",
            learned.loss
        );
    }
    let sums: BTreeMap<String, f64> = serde_json::from_value(run["absolute_sums"].clone()).unwrap();
    for (name, data) in trainer.state().unwrap().tensors {
        let ours: f64 = data
            .as_slice::<f32>()
            .unwrap()
            .iter()
            .map(|x| f64::from(x.abs()))
            .sum();
        let expected = sums[&name];
        // The third of it that belongs to the keys has no influence: its gradient
        // is rounding noise, which AdamW turns into whole steps.
        let tolerance = if name.ends_with("in_proj_bias") {
            1e-2
        } else {
            1e-4
        };
        let off = (ours - expected).abs() / expected;
        assert!(off <= tolerance, "{name}: {ours} for {expected}");
    }
}
