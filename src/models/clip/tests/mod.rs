//! Equality with `open_clip` on small random towers, stage by stage.
//!
//! The fixtures and the script that made them are in `tests/fixtures/clip`.

mod coop;
mod finetune;
mod folders;
mod full;
mod layouts;
mod manifests;
mod tokens;
mod towers;

use std::{collections::BTreeMap, io::Read, path::PathBuf};

use flate2::read::GzDecoder;
use tempfile::TempDir;

use super::*;
use crate::models::{image::resize_and_crop, weights::Weights};

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

/// The model `name` as its user would have it, every file unpacked.
fn folder(name: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs_err::read_dir(root_of(name)).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_name().unwrap().to_str().unwrap();
        if file.starts_with("expected") || path.is_dir() {
            continue;
        }
        match file.strip_suffix(".gz") {
            Some(plain) => {
                let bytes = fixture(&format!("{name}/{file}"));
                fs_err::write(folder.path().join(plain), bytes).unwrap();
            }
            None => drop(fs_err::copy(&path, folder.path().join(file)).unwrap()),
        }
    }
    if name == "bin" {
        let config = format!("{}/../quick/{}", root_of("bin"), config::CONFIG_FILE);
        fs_err::copy(config, folder.path().join(config::CONFIG_FILE)).unwrap();
    }
    folder
}

/// What a user names of such a folder: `OpenAI`'s archives are files.
fn model(folder: &Path) -> PathBuf {
    let archive = folder.join("model.pt");
    if archive.exists() {
        archive
    } else {
        folder.to_owned()
    }
}

fn root_of(name: &str) -> String {
    format!("{}/tests/fixtures/clip/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Tensors by name with their shapes.
type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// The tensors of a packed file of fixtures.
fn unpacked(path: &str) -> Tensors {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("expected.safetensors");
    fs_err::write(&file, fixture(path)).unwrap();
    let mut weights = Weights::open(&file).unwrap();
    (weights.tensors().into_iter())
        .map(|t| {
            let values = weights.take_f32(&t.name, &t.shape).unwrap();
            (t.name, (t.shape, values))
        })
        .collect()
}

fn expected(name: &str) -> Tensors {
    // The same weights in another format.
    let name = if name == "bin" { "quick" } else { name };
    unpacked(&format!("{name}/expected.safetensors.gz"))
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

fn rows_of<const D: usize>(x: &Tensor<D>) -> Vec<f32> {
    rows(x.clone()).unwrap()
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
    let files = Checkpoint::open(folder.path(), None).unwrap();
    let load = |tower| Clip::load_tower(&files, tower, DType::F32, &Device::flex()).unwrap();
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
    assert!(image.tokenizer.is_none(), "images need no tokenizer");
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
