//! CLIP's throughput on random weights of full size: images and texts a second.
//!
//! Prints one line a figure, `name value unit`. `benches/clip_reference.py` runs
//! it in turn with open_clip on PyTorch and compares.
//!
//! ```sh
//! cargo bench --bench clip -- RN50-quickgelu 16 32 64
//! ```

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark stops at what it does not expect, and prints"
)]

use std::{path::Path, time::Instant};

use burn::tensor::{DType, Device};
use runner::models::{
    clip::{Clip, Tower, checkpoint::Checkpoint, random::write_random},
    image::{Rgb8, resize_and_crop},
};

/// Seconds that a figure is measured for, at least.
const SECONDS: f64 = 3.0;

/// What the study's prompts look like: 7 to 21 tokens.
const PROMPTS: [&str; 8] = [
    "a photo of a cat",
    "This is a photo of a airplane",
    "This is a photo of a airplane because of long",
    "a photo of a airplane because of long and tail-finned",
    "This is a photo of a dog because of fur and tail and ears",
    "This is a photo of a ship because of horizontal stripes and square sails",
    "This is a photo of a frog because of webbed feet and large eyes and long tongue",
    "a photo of a cat because of fur_color and whiskers_length and ear_shape",
];

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|a| !a.starts_with("--"));
    let architecture = arguments
        .next()
        .unwrap_or_else(|| "RN50-quickgelu".to_owned());
    let mut batches: Vec<usize> = arguments.filter_map(|a| a.parse().ok()).collect();
    if batches.is_empty() {
        batches = vec![16, 32, 64];
    }
    let folder = tempfile::tempdir().unwrap();
    write_random(folder.path(), &architecture).unwrap();
    let model = load(folder.path(), Tower::Image);
    for batch in &batches {
        let images: Vec<Rgb8> = (0..*batch).map(|i| picture(32, 32, i)).collect();
        let seconds = time(|| drop(model.encode_images(&images).unwrap()));
        println!(
            "{architecture}.images.{batch} {:.2} images/s",
            *batch as f64 / seconds
        );
    }
    drop(model);
    let model = load(folder.path(), Tower::Text);
    for batch in &batches {
        let texts: Vec<String> = (0..*batch)
            .map(|i| PROMPTS[i % PROMPTS.len()].to_owned())
            .collect();
        let seconds = time(|| drop(model.encode_texts(&texts).unwrap()));
        println!(
            "{architecture}.texts.{batch} {:.2} texts/s",
            *batch as f64 / seconds
        );
    }
    for (width, height) in [(32, 32), (500, 375)] {
        let image = picture(width, height, 1);
        let seconds = time(|| drop(resize_and_crop(&image, 224)));
        println!("resize.{width}x{height} {:.1} images/s", 1.0 / seconds);
    }
}

fn load(folder: &Path, tower: Tower) -> Clip {
    let files = Checkpoint::open(folder, None).unwrap();
    Clip::load_tower(&files, tower, DType::F32, &Device::flex()).unwrap()
}

/// Seconds of one call, the median of several.
fn time(mut work: impl FnMut()) -> f64 {
    work();
    let began = Instant::now();
    let mut all = Vec::new();
    while all.len() < 3 || began.elapsed().as_secs_f64() < SECONDS {
        let start = Instant::now();
        work();
        all.push(start.elapsed().as_secs_f64());
    }
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

/// An image of pixels that differ.
fn picture(width: usize, height: usize, seed: usize) -> Rgb8 {
    let pixels = (0..width * height * 3)
        .map(|i| ((i * 31 + seed * 7919) % 251) as u8)
        .collect();
    Rgb8::new(width, height, pixels).unwrap()
}
