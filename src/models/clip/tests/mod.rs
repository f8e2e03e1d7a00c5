//! Equality with `open_clip` on small random towers, stage by stage.
//!
//! The fixtures and the script that made them are in `tests/fixtures/clip`.

mod folders;

use std::{collections::BTreeMap, io::Read};

use flate2::read::GzDecoder;
use tempfile::TempDir;

use super::{config::Activation, tensors::EPSILON, text::TextTower, *};
use crate::models::weights::Weights;

/// The largest relative error of a stage, in the Euclidean norm.
const STAGE: f64 = 1e-5;
/// The smallest cosine of an embedding.
const COSINE: f64 = 0.999_999;

const TEXTS: [&str; 5] = [
    "a photo of a airplane",
    "This is a photo of a cat because of fur_color and whiskers_length.",
    "dog",
    "",
    "a <end_of_text> inside",
];

fn fixture(path: &str) -> Vec<u8> {
    let path = format!("{}/tests/fixtures/clip/{path}", env!("CARGO_MANIFEST_DIR"));
    let file = fs_err::File::open(path).unwrap();
    let mut bytes = Vec::new();
    GzDecoder::new(file).read_to_end(&mut bytes).unwrap();
    bytes
}

fn folder(name: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let root = format!("{}/tests/fixtures/clip/{name}", env!("CARGO_MANIFEST_DIR"));
    let config = format!("{root}/{}", config::CONFIG_FILE);
    fs_err::copy(config, folder.path().join(config::CONFIG_FILE)).unwrap();
    let weights = fixture(&format!("{name}/open_clip_model.safetensors.gz"));
    fs_err::write(folder.path().join("open_clip_model.safetensors"), weights).unwrap();
    folder
}

fn expected(name: &str) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("expected.safetensors");
    fs_err::write(&path, fixture(&format!("{name}/expected.safetensors.gz"))).unwrap();
    let mut weights = Weights::open(&path).unwrap();
    (weights.tensors().into_iter())
        .map(|t| {
            let values = weights.take_f32(&t.name, &t.shape).unwrap();
            (t.name, (t.shape, values))
        })
        .collect()
}

/// The bytes that `make.py` computes.
fn noise(width: usize, height: usize, seed: u64) -> Rgb8 {
    let byte = |i: u64| {
        let mut v = (i + seed * 1_000_003 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        v ^= v >> 29;
        (v.wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 56) as u8
    };
    let pixels = (0..(width * height * 3) as u64).map(byte).collect();
    Rgb8::new(width, height, pixels).unwrap()
}

fn images() -> Vec<Rgb8> {
    vec![noise(32, 32, 32), noise(50, 40, 50), noise(33, 90, 33)]
}

fn texts() -> Vec<String> {
    let long = "cat ".repeat(90);
    TEXTS
        .into_iter()
        .chain([long.as_str()])
        .map(str::to_owned)
        .collect()
}

/// ‖a - b‖ / ‖b‖.
fn error(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let square = |x: f64| x * x;
    let difference: f64 = a
        .iter()
        .zip(b)
        .map(|(&a, &b)| square(f64::from(a) - f64::from(b)))
        .sum();
    (difference / b.iter().map(|&b| square(f64::from(b))).sum::<f64>()).sqrt()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter()
            .zip(b)
            .map(|(&a, &b)| f64::from(a) * f64::from(b))
            .sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

fn worst_cosine(a: &[f32], b: &[f32], width: usize) -> f64 {
    assert_eq!(a.len(), b.len());
    let rows = a.chunks(width).zip(b.chunks(width));
    rows.map(|(a, b)| cosine(a, b)).fold(1.0, f64::min)
}

fn load(name: &str, dtype: DType) -> Clip {
    Clip::load(folder(name).path(), dtype, &Device::flex()).unwrap()
}

/// Errors of the text tower's stages against the reference.
fn text_errors(tower: &TextTower, texts: &[&Tokens], name: &str) -> Vec<f64> {
    let expected = expected(name);
    let mut errors = Vec::new();
    let t = texts.iter().map(|t| t.end() + 1).max().unwrap().min(20);
    let ends: Vec<usize> = texts.iter().map(|t| t.end()).collect();
    tower.trunk.trace(texts, t, |x| {
        let key = match errors.len() {
            0 => "embedded".to_owned(),
            i => format!("block{}", i - 1),
        };
        let (shape, all) = &expected[&key];
        let (rows, width) = (shape[1], shape[2]);
        // A text that ends early has other padding, which nothing looks at.
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for (i, x) in rows_of(x).chunks(t * width).enumerate() {
            let kept = (ends[i] + 1).min(t) * width;
            ours.extend(&x[..kept]);
            theirs.extend(&all[i * rows * width..][..kept]);
        }
        errors.push(error(&ours, &theirs));
    });
    let features = rows(tower.forward(texts)).unwrap();
    errors.push(error(&features, &expected["text_features"].1));
    errors
}

fn rows_of<const D: usize>(x: &Tensor<D>) -> Vec<f32> {
    rows(x.clone()).unwrap()
}

#[test]
fn every_stage_of_the_image_tower_equals_the_reference() {
    for name in ["quick", "gelu"] {
        let clip = load(name, DType::F32);
        let expected = expected(name);
        let images = images();
        let pixels = clip.runner.pixels(&images.iter().collect::<Vec<_>>());
        let tower = clip.image.as_ref().unwrap();
        let mut stages = 0;
        let map = tower.trunk.trace(pixels, |stage, x| {
            let error = error(&rows_of(x), &expected[stage].1);
            assert!(error < STAGE, "{name} {stage}: {error:e}");
            stages += 1;
        });
        assert_eq!(stages, 5);
        let features = rows(tower.attnpool.forward(map)).unwrap();
        let error = error(&features, &expected["image_features"].1);
        assert!(error < STAGE, "{name}: {error:e}");
        let embeddings = clip.encode_images(&images).unwrap();
        let cosine = worst_cosine(
            &embeddings,
            &expected["image_embeddings"].1,
            clip.embed_dim(),
        );
        assert!(cosine > COSINE, "{name}: {cosine}");
    }
}

#[test]
fn every_stage_of_the_text_tower_equals_the_reference() {
    for name in ["quick", "gelu"] {
        let clip = load(name, DType::F32);
        let tokens = tokenize(&texts(), &clip.config).unwrap();
        let tokens: Vec<&Tokens> = tokens.iter().collect();
        for (stage, error) in text_errors(clip.text.as_ref().unwrap(), &tokens, name)
            .iter()
            .enumerate()
        {
            assert!(*error < STAGE, "{name} stage {stage}: {error:e}");
        }
        let embeddings = clip.encode_texts(&texts()).unwrap();
        let expected = &expected(name)["text_embeddings"].1;
        let cosine = worst_cosine(&embeddings, expected, clip.embed_dim());
        assert!(cosine > COSINE, "{name}: {cosine}");
    }
}

#[test]
fn mistakes_break_the_tolerances() {
    let folder = folder("quick");
    let config = Config::read(folder.path()).unwrap();
    let device = Device::flex();
    let tower = |config: &Config| {
        let mut weights = folder::open_checked(folder.path(), config).unwrap();
        let source = &mut Source {
            weights: &mut weights,
            dtype: DType::F32,
            device: &device,
        };
        TextTower::load(source, config).unwrap()
    };
    let tokens = tokenize(&texts(), &config).unwrap();
    let errors = |config: &Config, tokens: &[Tokens]| {
        text_errors(&tower(config), &tokens.iter().collect::<Vec<_>>(), "quick")
    };
    let gelu = Config {
        activation: Activation::Gelu,
        ..config.clone()
    };
    let gelu = errors(&gelu, &tokens);
    assert!(gelu[1] > 10.0 * STAGE, "GELU for QuickGELU: {gelu:?}");
    // The end one place too early.
    let mut cut = tokens.clone();
    for text in &mut cut {
        text.ids.truncate(text.end());
        text.ids.push(0);
    }
    let early = errors(&config, &cut);
    assert!(
        early[early.len() - 1] > 10.0 * STAGE,
        "wrong end: {early:?}"
    );
    let mut heads = config.clone();
    heads.text.heads = 2;
    let heads = errors(&heads, &tokens);
    assert!(heads[1] > 10.0 * STAGE, "wrong heads: {heads:?}");
    // An ε of 1e-3 in place of 1e-5, through the variance it is added to.
    let mut weights = folder::open_checked(folder.path(), &config).unwrap();
    for raw in weights.tensor_digest_source(|name| name == "visual.bn1.running_var") {
        let bytes = raw.unwrap().bytes;
        let variance = half::f16::from_le_bytes([bytes[0], bytes[1]]).to_f64();
        let ratio = ((variance + EPSILON) / (variance + 1e-3)).sqrt();
        assert!(1.0 - ratio > 10.0 * STAGE, "{ratio}");
    }
}

#[test]
fn half_precision_stays_close_and_is_not_the_same() {
    for dtype in [DType::F16, DType::BF16] {
        let clip = load("quick", dtype);
        let embeddings = clip.encode_images(&images()).unwrap();
        let expected = expected("quick");
        let width = clip.embed_dim();
        let cosine = worst_cosine(&embeddings, &expected["image_embeddings"].1, width);
        assert!(
            (0.999..0.999_999_9).contains(&cosine),
            "{dtype:?}: {cosine}"
        );
        let embeddings = clip.encode_texts(&texts()).unwrap();
        let cosine = worst_cosine(&embeddings, &expected["text_embeddings"].1, width);
        assert!(
            (0.999..0.999_999_9).contains(&cosine),
            "{dtype:?}: {cosine}"
        );
    }
}

#[test]
fn the_batch_does_not_change_an_embedding() {
    let clip = load("gelu", DType::F32);
    let images: Vec<Rgb8> = (0..37).map(|seed| noise(32, 32, seed)).collect();
    let together = clip.encode_images(&images).unwrap();
    let alone: Vec<f32> = images
        .iter()
        .flat_map(|i| clip.encode_images(std::slice::from_ref(i)).unwrap())
        .collect();
    assert!(error(&together, &alone) < 1e-6);
    let together = clip.encode_texts(&texts()).unwrap();
    let alone: Vec<f32> = texts()
        .iter()
        .flat_map(|t| clip.encode_texts(std::slice::from_ref(t)).unwrap())
        .collect();
    assert!(error(&together, &alone) < 1e-6);
}

#[test]
fn one_tower_is_enough_for_its_work() {
    let folder = folder("quick");
    let load = |tower| Clip::load_tower(folder.path(), tower, DType::F32, &Device::flex()).unwrap();
    let both = load(Tower::Both);
    assert!((both.logit_scale() - 2.5f32.exp()).abs() < 1e-4);
    let text = load(Tower::Text);
    assert_eq!(
        text.encode_texts(&texts()).unwrap(),
        both.encode_texts(&texts()).unwrap()
    );
    assert!(
        text.encode_images(&images())
            .unwrap_err()
            .to_string()
            .contains("image tower")
    );
    let image = load(Tower::Image);
    assert_eq!(
        image.encode_images(&images()).unwrap(),
        both.encode_images(&images()).unwrap()
    );
    assert!(
        image
            .encode_texts(&texts())
            .unwrap_err()
            .to_string()
            .contains("text tower")
    );
    assert!(both.encode_images(&[]).unwrap().is_empty());
    assert!(both.encode_texts(&[]).unwrap().is_empty());
}

#[test]
fn strings_are_tokenized_as_the_reference_does() {
    let tokenizer = Tokenizer::shared().unwrap();
    let lines = String::from_utf8(fixture("tokens.jsonl.gz")).unwrap();
    let mut wrong = Vec::new();
    for line in lines.lines() {
        let (text, ids): (String, Vec<u32>) = serde_json::from_str(line).unwrap();
        let tokens = tokenizer.tokenize(&text, 77);
        if tokens.ids != ids {
            wrong.push((text, tokens.ids, ids));
        }
    }
    assert_eq!(lines.lines().count(), 2000);
    assert!(
        wrong.is_empty(),
        "{} differ, first: {:?}",
        wrong.len(),
        &wrong[..wrong.len().min(12)]
    );
}

#[test]
fn resizing_equals_pillow_in_every_byte() {
    let path = format!(
        "{}/tests/fixtures/clip/resize.json",
        env!("CARGO_MANIFEST_DIR")
    );
    let cases: Vec<[u64; 4]> = serde_json::from_slice(&fs_err::read(path).unwrap()).unwrap();
    assert!(cases.len() >= 200);
    for (i, &[width, height, size, crc]) in cases.iter().enumerate() {
        let mut image = noise(width as usize, height as usize, i as u64);
        if i % 7 == 3 {
            let pixels = image
                .pixels()
                .iter()
                .map(|&x| if x > 127 { 255 } else { 0 })
                .collect();
            image = Rgb8::new(width as usize, height as usize, pixels).unwrap();
        }
        let mut sum = flate2::Crc::new();
        sum.update(resize_and_crop(&image, size as usize).pixels());
        assert_eq!(u64::from(sum.sum()), crc, "{width}×{height} to {size}");
    }
}
