//! Fine-tuning against PyTorch's autograd over `open_clip`'s modules: losses and
//! gradients of twenty steps, the mistakes that they show, and going on from a
//! state. The fixtures and their script are in `tests/fixtures/finetune`.

use std::ops::RangeInclusive;

use safetensors::{Dtype, SafeTensors};

use super::*;
use crate::models::clip::{features::FeatureCache, tail, train::Tails};

const STEPS: usize = 20;
const BATCH: usize = 6;
const ALPHA: f64 = 20.0;
const RATE: f64 = 1e-3;
const DECAY: f32 = 1.0;
const NAMES: [&str; 4] = ["cat", "dog", "airplane", "ship"];
const TEMPLATES: [&str; 3] = ["a photo of a {}", "a {} because of long ears", "{}"];

/// The largest relative error of a loss.
const LOSS: f64 = 1e-4;
/// The largest error of a gradient: of its norm and in the Euclidean norm
/// against its norm, of an element against the largest element.
const GRADIENT: f64 = 1e-4;

/// Folder, file of the reference, and what is trained.
const CASES: [(&str, &str, Layers); 3] = [
    (
        "../finetune/resnet",
        "expected_layer4",
        Layers {
            image: ImageLayers::Layer4,
            text: TextLayers::Blocks(2),
        },
    ),
    (
        "../finetune/resnet",
        "expected_layer4_last",
        Layers {
            image: ImageLayers::Layer4Last,
            text: TextLayers::Blocks(1),
        },
    ),
    (
        "../finetune/vit",
        "expected_resblocks",
        Layers {
            image: ImageLayers::Blocks(2),
            text: TextLayers::Blocks(1),
        },
    ),
];

/// The script's `mix`.
fn mix(i: u64) -> u64 {
    let mut v = i.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    v ^= v >> 29;
    v.wrapping_mul(0xBF58_476D_1CE4_E5B9)
}

/// The script's `picture`.
fn picture(label: usize, number: usize) -> Rgb8 {
    let pixel = |i: usize| {
        let (y, x) = (i / 96, i / 3 % 32);
        let stripe = ((x + y) / (label + 2) % 2 * 128) as u64;
        (stripe + (mix((i + number * 1_000_003) as u64) >> 57)) as u8
    };
    Rgb8::new(32, 32, (0..32 * 32 * 3).map(pixel).collect()).unwrap()
}

/// The label of image `number`.
fn label(number: usize) -> usize {
    let (step, i) = (number / BATCH, number % BATCH);
    (step * 3 + i) % NAMES.len()
}

#[expect(clippy::unnecessary_wraps, reason = "as the cache fetches images")]
fn image(number: usize) -> Result<Rgb8> {
    Ok(picture(label(number), number))
}

fn texts_at(step: usize) -> Vec<String> {
    (NAMES.iter().enumerate())
        .map(|(i, name)| TEMPLATES[(step + i) % TEMPLATES.len()].replace("{}", name))
        .collect()
}

/// A reference's numbers by name.
pub(super) struct Reference(Vec<u8>);

impl Reference {
    pub(super) fn open(folder: &str, file: &str) -> Self {
        Self(fixture(&format!("{folder}/{file}.safetensors.gz")))
    }

    pub(super) fn names(&self, prefix: &str) -> Vec<String> {
        let tensors = SafeTensors::deserialize(&self.0).unwrap();
        let mut names: Vec<String> = (tensors.names().into_iter())
            .filter_map(|name| Some(name.strip_prefix(prefix)?.to_owned()))
            .collect();
        names.sort_unstable();
        names
    }

    pub(super) fn get(&self, name: &str) -> Vec<f64> {
        let tensors = SafeTensors::deserialize(&self.0).unwrap();
        let tensor = tensors.tensor(name).unwrap();
        let data = tensor.data();
        match tensor.dtype() {
            Dtype::F64 => (data.as_chunks().0.iter())
                .map(|b| f64::from_le_bytes(*b))
                .collect(),
            Dtype::F32 => (data.as_chunks().0.iter())
                .map(|b| f64::from(f32::from_le_bytes(*b)))
                .collect(),
            Dtype::I16 => (data.as_chunks().0.iter())
                .map(|b| f64::from(i16::from_le_bytes(*b)))
                .collect(),
            other => panic!("{other:?}"),
        }
    }
}

fn trainer(folder: &str, layers: Layers) -> Trainer {
    let folder = super::folder(folder);
    let files = Checkpoint::open(folder.path(), None).unwrap();
    Trainer::load(&files, layers, DECAY, &Device::flex()).unwrap()
}

/// Gradients by tensor.
type Gradients = BTreeMap<String, Vec<f32>>;

/// The losses of twenty steps; `see` is shown each step's gradients.
fn train(trainer: &mut Trainer, alpha: f64, see: &mut dyn FnMut(usize, Gradients)) -> Vec<f64> {
    let config = trainer.trunk().config().clone();
    (0..STEPS)
        .map(|step| {
            let numbers = step * BATCH..(step + 1) * BATCH;
            let labels: Vec<usize> = numbers.clone().map(label).collect();
            let images: Vec<Rgb8> = numbers.map(|i| image(i).unwrap()).collect();
            let features = trainer.features(&images).unwrap();
            let mut look = |tails: &Tails, gradients: &burn::tensor::Gradients| {
                see(step, tail::gradients(tails, &config, gradients));
            };
            let texts = texts_at(step);
            let learned = trainer.step_seen(&features, &labels, &texts, alpha, RATE, &mut look);
            learned.unwrap().loss
        })
        .collect()
}

/// The largest relative error of `ours`.
pub(super) fn off(ours: &[f64], theirs: &[f64]) -> f64 {
    assert_eq!(ours.len(), theirs.len());
    let pairs = ours.iter().zip(theirs);
    pairs.map(|(a, b)| ((a - b) / b).abs()).fold(0.0, f64::max)
}

/// How far a gradient is from step `step` of the reference, in units of the
/// tolerance: 1 is the most that is allowed.
fn gradient_off(reference: &Reference, step: usize, name: &str, ours: &[f32]) -> f64 {
    let norm = reference.get(&format!("norm/{name}"))[step];
    let square = |x: &f32| f64::from(*x) * f64::from(*x);
    let length = ours.iter().map(square).sum::<f64>().sqrt();
    let sketches = &reference.get(&format!("sketch/{name}"))[step * 8..][..8];
    // The mean square of differences under random signs is that of their length.
    let squares = sketches.iter().enumerate().map(|(k, theirs)| {
        let sign = |i: usize| {
            if mix(((k as u64) << 40) + i as u64) >> 63 == 1 {
                1.0
            } else {
                -1.0
            }
        };
        let ours: f64 = ours
            .iter()
            .enumerate()
            .map(|(i, g)| f64::from(*g) * sign(i))
            .sum();
        (ours - theirs).powi(2)
    });
    let distance = (squares.sum::<f64>() / 8.0).sqrt();
    let mut worst = ((length - norm).abs() / norm).max(distance / norm);
    let at = match step {
        0 => "first",
        step if step + 1 == STEPS => "last",
        _ => return worst / GRADIENT,
    };
    let largest = reference.get(&format!("{at}_max/{name}"))[0];
    let elements = reference.get(&format!("{at}/{name}"));
    assert_eq!(elements.len(), ours.len(), "{name}");
    for (ours, theirs) in ours.iter().zip(elements) {
        // Half a step of the 16 bits that the reference is stored in is none of ours.
        let off = (f64::from(*ours) / largest - theirs / 32767.0).abs() - 0.5 / 32767.0;
        worst = worst.max(off);
    }
    worst / GRADIENT
}

#[test]
fn losses_and_gradients_of_twenty_steps_equal_pytorchs() {
    for (folder, file, layers) in CASES {
        let reference = Reference::open(folder, file);
        let expected = reference.names("norm/");
        let mut worst = (0.0, String::new());
        let mut see = |step: usize, gradients: Gradients| {
            let names: Vec<&String> = gradients.keys().collect();
            assert_eq!(names, expected.iter().collect::<Vec<_>>(), "{file}");
            for (name, ours) in &gradients {
                let off = gradient_off(&reference, step, name, ours);
                if off > worst.0 {
                    worst = (off, format!("{name} at step {}", step + 1));
                }
            }
        };
        let losses = train(&mut trainer(folder, layers), ALPHA, &mut see);
        let theirs = reference.get("losses");
        let loss = off(&losses, &theirs);
        let (gradient, name) = (worst.0 * GRADIENT, worst.1);
        assert!(loss <= LOSS, "{file}: a loss is off by {loss:e}");
        assert!(
            gradient <= GRADIENT,
            "{file}: {name} is off by {gradient:e}"
        );
        assert!(theirs[0] > 1.05 * theirs[STEPS - 1], "something is learnt");
        // What PyTorch computes with a mistake is told from ours.
        let mistakes = reference.names("wrong/");
        assert!(mistakes.len() >= 4, "{mistakes:?}");
        for mistake in mistakes {
            let wrong = off(&losses, &reference.get(&format!("wrong/{mistake}")));
            assert!(wrong > 2.0 * LOSS, "{file}: {mistake} differs by {wrong:e}");
        }
    }
}

#[test]
fn a_mistake_of_ours_breaks_the_comparison() {
    let (folder, file, layers) = CASES[0];
    let reference = Reference::open(folder, file);
    let theirs = reference.get("losses");
    let worst_of = |alpha: f64, change: &dyn Fn(&mut Vec<f32>)| {
        let mut worst: f64 = 0.0;
        let mut see = |step: usize, gradients: Gradients| {
            for (name, mut ours) in gradients {
                change(&mut ours);
                worst = worst.max(gradient_off(&reference, step, &name, &ours));
            }
        };
        let losses = train(&mut trainer(folder, layers), alpha, &mut see);
        (off(&losses, &theirs) / LOSS, worst)
    };
    let (loss, gradient) = worst_of(ALPHA * 1.001, &|_| {});
    assert!(loss > 1.0 && gradient > 1.0, "alpha: {loss} {gradient}");
    let (_, gradient) = worst_of(ALPHA, &|g| g.iter_mut().for_each(|x| *x *= 1.0003));
    assert!(gradient > 1.0, "a factor: {gradient}");
    let (_, gradient) = worst_of(ALPHA, &|g| g.reverse());
    assert!(gradient > 1.0, "the order: {gradient}");
}

/// Trains `epochs` over sixteen images in batches of five.
fn pass(trainer: &mut Trainer, cache: &mut FeatureCache, epochs: RangeInclusive<usize>) {
    for epoch in epochs {
        let mut order: Vec<usize> = (0..16).collect();
        order.sort_by_key(|i| mix((epoch * 16 + i) as u64));
        for which in order.chunks(5) {
            let labels: Vec<usize> = which.iter().map(|i| label(*i)).collect();
            let features = cache.features(trainer, which, &image).unwrap();
            let texts = texts_at(epoch);
            trainer
                .step(&features, &labels, &texts, ALPHA, RATE)
                .unwrap();
        }
    }
}

#[test]
fn a_run_killed_in_epoch_two_goes_on_to_the_same_bits_whatever_features_are_kept() {
    let frozen = |image, text| Layers { image, text };
    let cases = CASES
        .into_iter()
        .map(|(folder, _, layers)| (folder, layers));
    let more = [
        (
            "../finetune/resnet",
            frozen(ImageLayers::None, TextLayers::Blocks(1)),
        ),
        (
            "../finetune/vit",
            frozen(ImageLayers::Auto, TextLayers::None),
        ),
    ];
    for (folder, layers) in cases.chain(more) {
        let mut through = trainer(folder, layers);
        let mut all = FeatureCache::new(16, u64::MAX);
        pass(&mut through, &mut all, 1..=1);
        let parted = through.state().unwrap();
        assert_eq!(all.kept(), 16);
        pass(&mut through, &mut all, 2..=3);
        let expected = through.state().unwrap();
        let some = through.features(&[image(0).unwrap()]).unwrap().row_bytes() * 7;
        for (room, kept) in [(u64::MAX, 16), (some, 7), (0, 0)] {
            let mut again = trainer(folder, layers);
            again.restore(parted.clone()).unwrap();
            let mut cache = FeatureCache::new(16, room);
            pass(&mut again, &mut cache, 2..=3);
            assert_eq!(cache.kept(), kept);
            let state = again.state().unwrap();
            assert_eq!(state.steps, expected.steps);
            assert_eq!(state.moments, expected.moments);
            let bytes = |state: &TrainState| -> Vec<(String, Vec<u8>)> {
                let tensors = state.tensors.iter();
                tensors
                    .map(|(name, data)| (name.clone(), data.as_bytes().to_vec()))
                    .collect()
            };
            assert_eq!(
                bytes(&state),
                bytes(&expected),
                "{folder}: {layers:?}, {kept} kept"
            );
            assert_ne!(bytes(&state), bytes(&parted));
        }
    }
}

#[test]
fn images_are_judged_by_the_logits_that_train() {
    let (folder, _, layers) = CASES[2];
    let mut trainer = trainer(folder, layers);
    let labels: Vec<usize> = (0..6).map(label).collect();
    let images: Vec<Rgb8> = (0..6).map(|i| image(i).unwrap()).collect();
    let features = trainer.features(&images).unwrap();
    let texts = texts_at(0);
    let judged = trainer.judge(&features, &labels, &texts, ALPHA).unwrap();
    let learned = trainer
        .step(&features, &labels, &texts, ALPHA, RATE)
        .unwrap();
    assert_eq!(judged.loss.to_bits(), learned.loss.to_bits());
    let first = judged.ahead.iter().filter(|ahead| **ahead == 0).count();
    assert_eq!(first, learned.correct);
    assert!(judged.ahead.iter().all(|ahead| *ahead < NAMES.len()));
    let one = trainer.judge(&features, &labels, &vec!["cat".to_owned(); 4], ALPHA);
    assert_eq!(
        one.unwrap().ahead,
        labels,
        "of equal classes the first is ahead"
    );
    let error = trainer
        .judge(&features, &labels[1..], &texts, ALPHA)
        .unwrap_err();
    assert!(
        error.to_string().contains("6 images with 5 labels"),
        "{error}"
    );
}
