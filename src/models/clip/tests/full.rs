//! RN50 and ViT-B/32 of full size against what `open_clip` computes in f64, on
//! weights that a rule makes (`full.py`); and the published lists of tensors.

use super::{
    towers::{image_stages, text_stages},
    *,
};
use crate::models::clip::{config::architectures, random::write_random};

/// How far a cosine may be from 1; `PyTorch` in f32 is 9e-11 away.
const FROM_ONE: f64 = 1e-8;

const TEXTS: [&str; 5] = [
    "a photo of a airplane",
    "a photo of a cat",
    "This is a photo of a cat because of fur_color and whiskers_length.",
    "dog",
    "",
];

#[test]
fn models_of_full_size_equal_the_reference_at_every_stage() {
    let expected = unpacked("full.safetensors.gz");
    let images = [noise(32, 32, 32), noise(300, 200, 300)];
    let long = "cat ".repeat(90);
    let texts: Vec<String> = (TEXTS.into_iter().chain([long.as_str()]))
        .map(str::to_owned)
        .collect();
    for (model, name) in [("rn50", "RN50"), ("vit_b32", "ViT-B-32")] {
        assert!(architectures().contains(&name));
        let folder = tempfile::tempdir().unwrap();
        write_random(folder.path(), &format!("{name}-quickgelu")).unwrap();
        let clip = Clip::load(folder.path(), DType::F32, &Device::flex()).unwrap();
        let mut stages = image_stages(clip.image.as_ref().unwrap(), &images, &clip.runner);
        assert!(stages.len() > 5);
        let embeddings = clip.encode_images(&images).unwrap();
        near(&embeddings, &expected[&format!("{model}.image_features")]);

        let tokens = tokenize(&texts, clip.tokenizer.as_ref().unwrap(), 77).unwrap();
        let tokens: Vec<&Tokens> = tokens.iter().collect();
        let width = clip.config.text.transformer.width;
        for (stage, x) in text_stages(
            clip.text.as_ref().unwrap(),
            &tokens,
            77,
            width,
            &clip.runner,
        ) {
            if stage == "text_features" {
                continue;
            }
            // The reference shows the vector at each text's end.
            let ends = tokens.iter().zip(x.chunks(77 * width));
            let ends = ends.flat_map(|(text, x)| x[text.end() * width..][..width].to_vec());
            stages.push((format!("text.{stage}"), ends.collect()));
        }
        let embeddings = clip.encode_texts(&texts).unwrap();
        near(&embeddings, &expected[&format!("{model}.text_features")]);

        for (stage, ours) in stages {
            let Some((shape, theirs)) = expected.get(&format!("{model}.{stage}.samples")) else {
                assert_eq!(stage, "image_features");
                continue;
            };
            let one = ours.len() / shape[0];
            let samples: Vec<f32> = (ours.chunks(one))
                .flat_map(|x| (0..16).map(|j| x[j * one / 16]).collect::<Vec<_>>())
                .collect();
            let found = error(&samples, theirs);
            assert!(found < STAGE, "{model} {stage}: {found:e}");
            let norms: Vec<f32> = (ours.chunks(one))
                .map(|x| x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt() as f32)
                .collect();
            let theirs = &expected[&format!("{model}.{stage}.norms")].1;
            assert!(error(&norms, theirs) < STAGE, "{model} {stage}");
        }
    }
}

fn near(embeddings: &[f32], (shape, features): &(Vec<usize>, Vec<f32>)) {
    let cosine = worst_cosine(embeddings, features, shape[1]);
    assert!(1.0 - cosine < FROM_ONE, "{cosine}");
}
