//! Every stage of every family of towers, in both of its forms, against the
//! reference; and the mistakes that the tolerances catch.

use super::*;
use crate::models::{
    clip::{
        config::{Activation, ImageConfig},
        resnet::ModifiedResNet,
        tensors::EPSILON,
        text, towers,
        vit::Vit,
    },
    cpu::Scratch,
};

/// Folders of fixtures.
const FAMILIES: [&str; 10] = [
    "quick",
    "gelu",
    "rn_deep",
    "vit",
    "vit_custom",
    "hf",
    "hf_gelu",
    "openai/resnet",
    "openai/vit",
    "bin",
];

/// A stage's name and its values as the reference has them.
pub(super) type Stages = Vec<(String, Vec<f32>)>;

fn with_source<R>(
    folder: &Path,
    change: impl Fn(&mut Config),
    load: impl FnOnce(&mut Source<'_>, &Config) -> Result<R>,
) -> R {
    let files = Checkpoint::open(&model(folder), None).unwrap();
    let mut config = files.config().clone();
    change(&mut config);
    let mut weights = files.checked().unwrap();
    let source = &mut Source {
        weights: &mut weights,
        dtype: DType::F32,
        device: &Device::flex(),
    };
    load(source, &config).unwrap()
}

/// Both forms of a model's image tower.
fn image_towers(folder: &Path) -> [ImageTower; 2] {
    let burn = with_source(
        folder,
        |_| {},
        |source, config| {
            let embed = config.embed_dim;
            Ok(match &config.image {
                ImageConfig::Resnet(c) => {
                    ImageTower::Resnet(Box::new(ModifiedResNet::load(source, c, embed)?))
                }
                ImageConfig::Vit(c) => ImageTower::Vit(Box::new(Vit::load(source, c, embed)?)),
            })
        },
    );
    [burn, with_source(folder, |_| {}, ImageTower::load)]
}

/// [n, places, channels] → [n, channels, places].
fn channels_first(x: &[f32], places: usize, channels: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(x.len());
    for image in x.chunks(places * channels) {
        for c in 0..channels {
            out.extend((0..places).map(|p| image[p * channels + c]));
        }
    }
    out
}

pub(super) fn image_stages(tower: &ImageTower, images: &[Rgb8], runner: &Runner) -> Stages {
    let prepared: Vec<Rgb8> = images.iter().map(|i| runner.prepare(i)).collect();
    let prepared: Vec<&Rgb8> = prepared.iter().collect();
    let mut stages = Stages::new();
    match tower {
        ImageTower::Resnet(tower) => {
            let trunk = &tower.trunk;
            trunk.trace(runner.planes(&prepared), |stage, x| {
                stages.push((stage.to_owned(), rows_of(x)));
            });
        }
        ImageTower::ResnetCpu(tower) => {
            let scratch = &mut Scratch::default();
            let mut x = tower.trunk.stem(&runner.pixels(&prepared), scratch);
            for stage in 0..=4 {
                let places = x.side * x.side;
                let channels = x.data.len() / (images.len() * places);
                let name = match stage {
                    0 => "stem".to_owned(),
                    i => format!("layer{i}"),
                };
                stages.push((name, channels_first(&x.data, places, channels)));
                if stage < 4 {
                    x = tower.trunk.stage(stage, x, scratch);
                }
            }
        }
        ImageTower::Vit(tower) => {
            tower.trace(runner.planes(&prepared), |stage, x| {
                stages.push((stage.to_owned(), rows_of(x)));
            });
        }
        ImageTower::VitCpu(tower) => {
            let scratch = &mut Scratch::default();
            tower.forward(&runner.pixels(&prepared), scratch, |stage, x| {
                stages.push((stage.to_owned(), x.to_vec()));
            });
        }
    }
    let features = tower.forward(&prepared, runner).unwrap();
    stages.push(("image_features".to_owned(), features));
    stages
}

/// Rows of texts that end after different numbers of places, as padded to
/// `places` for each; what is behind an end stays zero.
pub(super) fn text_stages(
    tower: &TextTower,
    texts: &[&Tokens],
    places: usize,
    width: usize,
    runner: &Runner,
) -> Stages {
    let mut stages: Vec<Vec<f32>> = Vec::new();
    let ends: Vec<usize> = texts.iter().map(|text| text.end()).collect();
    let keep = |from: &dyn Fn(usize) -> usize, x: &[f32]| {
        let mut out = vec![0.0; texts.len() * places * width];
        for (i, end) in ends.iter().enumerate() {
            for place in 0..places.min(end + 1) {
                let row = &x[(from(i) + place) * width..][..width];
                out[(i * places + place) * width..][..width].copy_from_slice(row);
            }
        }
        out
    };
    match tower {
        TextTower::Burn(tower) => {
            let t = ends.iter().max().unwrap() + 1;
            tower.trunk.trace(texts, t, |x| {
                stages.push(keep(&|i| i * t, &rows_of(x)));
            });
        }
        TextTower::Cpu(tower) => {
            let starts = |i: usize| ends[..i].iter().map(|end| end + 1).sum();
            tower.forward(texts, &mut Scratch::default(), |x| {
                stages.push(keep(&starts, x));
            });
        }
    }
    let mut named: Stages = (stages.into_iter().enumerate())
        .map(|(i, x)| match i {
            0 => ("embedded".to_owned(), x),
            i => (format!("block{}", i - 1), x),
        })
        .collect();
    let features = tower.forward(texts, runner).unwrap();
    named.push(("text_features".to_owned(), features));
    named
}

/// The error of each stage against the fixture's.
fn errors(stages: &Stages, name: &str, texts: &[&Tokens]) -> Vec<(String, f64)> {
    let expected = expected(name);
    (stages.iter())
        .map(|(stage, ours)| {
            let (shape, theirs) = &expected[stage];
            let mut theirs = theirs.clone();
            if shape.len() == 3 && (stage == "embedded" || stage.starts_with("block")) {
                // Behind a text's end is padding, which nothing looks at.
                let (places, width) = (shape[1], shape[2]);
                for (text, theirs) in texts.iter().zip(theirs.chunks_mut(places * width)) {
                    let kept = (text.end() + 1).min(places) * width;
                    theirs[kept..].fill(0.0);
                }
            }
            // Some fixtures hold only the first image's maps.
            (stage.clone(), error(&ours[..theirs.len()], &theirs))
        })
        .collect()
}

fn text_errors(
    tower: &TextTower,
    tokens: &[Tokens],
    name: &str,
    runner: &Runner,
) -> Vec<(String, f64)> {
    let tokens: Vec<&Tokens> = tokens.iter().collect();
    let shape = &expected(name)["embedded"].0;
    let stages = text_stages(tower, &tokens, shape[1], shape[2], runner);
    errors(&stages, name, &tokens)
}

#[test]
fn every_stage_of_every_image_tower_equals_the_reference() {
    for name in FAMILIES {
        let folder = folder(name);
        let clip = Clip::load(&model(folder.path()), DType::F32, &Device::flex()).unwrap();
        for tower in image_towers(folder.path()) {
            let stages = image_stages(&tower, &images(), &clip.runner);
            assert!(stages.len() >= 4, "{name}: {}", stages.len());
            for (stage, error) in errors(&stages, name, &[]) {
                assert!(error < STAGE, "{name} {stage}: {error:e}");
            }
        }
        let embeddings = clip.encode_images(&images()).unwrap();
        let theirs = &expected(name)["image_embeddings"].1;
        let cosine = worst_cosine(&embeddings, theirs, clip.embed_dim());
        assert!(cosine > COSINE, "{name}: {cosine}");
    }
}

#[test]
fn every_stage_of_every_text_tower_equals_the_reference() {
    for name in FAMILIES {
        let folder = folder(name);
        let clip = Clip::load(&model(folder.path()), DType::F32, &Device::flex()).unwrap();
        let files = Checkpoint::open(&model(folder.path()), None).unwrap();
        let [_, end] = files.tokenizer_files().1.special();
        let texts: Vec<String> = (texts().iter())
            .map(|text| text.replace("<end_of_text>", end))
            .collect();
        let tokens = tokenize(&texts, clip.tokenizer.as_ref().unwrap(), 77).unwrap();
        let burn = with_source(folder.path(), |_| {}, text::TextTower::load);
        for tower in [
            &TextTower::Burn(Box::new(burn)),
            clip.text.as_ref().unwrap(),
        ] {
            let errors = text_errors(tower, &tokens, name, &clip.runner);
            assert!(errors.len() > 1, "{name}: {errors:?}");
            for (stage, error) in errors {
                assert!(error < STAGE, "{name} {stage}: {error:e}");
            }
        }
        let embeddings = clip.encode_texts(&texts).unwrap();
        let theirs = &expected(name)["text_embeddings"].1;
        let cosine = worst_cosine(&embeddings, theirs, clip.embed_dim());
        assert!(cosine > COSINE, "{name}: {cosine}");
    }
}

/// The first block's error and the features' with a tower that is wrong.
fn mistaken(name: &str, tokens: &[Tokens], change: impl Fn(&mut Config)) -> [f64; 2] {
    let folder = folder(name);
    let tower = with_source(folder.path(), change, towers::TextTower::load);
    let config = Checkpoint::open(folder.path(), None).unwrap();
    let runner = Runner::new(config.config(), DType::F32, &Device::flex()).unwrap();
    let errors = text_errors(&tower, tokens, name, &runner);
    [errors[1].1, errors[errors.len() - 1].1]
}

#[test]
fn mistakes_in_the_text_tower_break_the_tolerances() {
    let folder = folder("quick");
    let files = Checkpoint::open(folder.path(), None).unwrap();
    let tokens = tokenize(&texts(), &files.tokenizer(TooLong::Cut).unwrap(), 77).unwrap();
    let gelu = mistaken("quick", &tokens, |config| {
        config.text.transformer.activation = Activation::Gelu;
    });
    assert!(gelu[0] > 10.0 * STAGE, "GELU for QuickGELU: {gelu:?}");
    let heads = mistaken("quick", &tokens, |config| config.text.transformer.heads = 2);
    assert!(heads[0] > 10.0 * STAGE, "wrong heads: {heads:?}");
    // The end one place too early.
    let mut cut = tokens.clone();
    for text in &mut cut {
        text.ids.truncate(text.end());
        text.ids.push(0);
    }
    let early = mistaken("quick", &cut, |_| {});
    assert!(early[1] > 10.0 * STAGE, "wrong end: {early:?}");
    // An ε of 1e-3 in place of 1e-5, through the variance it is added to.
    let mut weights = files.weights().unwrap();
    for raw in weights.tensor_digest_source(|name| name == "visual.bn1.running_var") {
        let bytes = raw.unwrap().bytes;
        let variance = half::f16::from_le_bytes([bytes[0], bytes[1]]).to_f64();
        let ratio = ((variance + EPSILON) / (variance + 1e-3)).sqrt();
        assert!(1.0 - ratio > 10.0 * STAGE, "{ratio}");
    }
}

#[test]
fn mistakes_in_the_image_tower_break_the_tolerances() {
    for name in ["quick", "vit"] {
        let folder = folder(name);
        let clip = Clip::load(&model(folder.path()), DType::F32, &Device::flex()).unwrap();
        let theirs = &expected(name)["image_embeddings"].1;
        // One row of pixels from the other end: a crop that is off by one.
        let off: Vec<Rgb8> = (images().iter())
            .map(|image| {
                let image = clip.runner.prepare(image);
                let mut pixels = image.pixels().to_vec();
                pixels.rotate_left(image.width() * 3);
                Rgb8::new(image.width(), image.height(), pixels).unwrap()
            })
            .collect();
        let cosine = worst_cosine(&clip.encode_images(&off).unwrap(), theirs, clip.embed_dim());
        assert!(cosine < 0.9999, "{name}: wrong crop {cosine}");
    }
    let folder = folder("vit");
    let clip = Clip::load(&model(folder.path()), DType::F32, &Device::flex()).unwrap();
    let tower = with_source(
        folder.path(),
        |config| {
            if let ImageConfig::Vit(vit) = &mut config.image {
                vit.transformer.activation = Activation::Gelu;
            }
        },
        ImageTower::load,
    );
    let stages = image_stages(&tower, &images(), &clip.runner);
    let errors = errors(&stages, "vit", &[]);
    let (stage, error) = &errors[2];
    assert!(*error > 10.0 * STAGE, "GELU in {stage}: {error:e}");
}

#[test]
fn batches_filled_for_a_device_change_nothing() {
    for name in ["quick", "vit"] {
        let folder = folder(name);
        let here = Clip::load(folder.path(), DType::F32, &Device::flex()).unwrap();
        let mut there = Clip::load(folder.path(), DType::F32, &Device::flex()).unwrap();
        there.runner.as_on_a_device();
        let [burn, _] = image_towers(folder.path());
        there.image = Some(burn);
        let text = with_source(folder.path(), |_| {}, text::TextTower::load);
        there.text = Some(TextTower::Burn(Box::new(text)));
        // More than one batch, and the last one not full.
        let many: Vec<Rgb8> = (0..139).map(|seed| noise(32, 32, seed)).collect();
        for images in [&many[..1], &many[..9], &many] {
            let [a, b] = [&here, &there].map(|clip| clip.encode_images(images).unwrap());
            assert!(error(&a, &b) < STAGE, "{name}: {} images", images.len());
        }
        for texts in [&texts()[..1], &texts()] {
            let [a, b] = [&here, &there].map(|clip| clip.encode_texts(texts).unwrap());
            assert!(error(&a, &b) < STAGE, "{name}: {} texts", texts.len());
        }
        // An image that cannot be had leaves the others as they are.
        let fetch = |i: usize| {
            anyhow::ensure!(i != 2, "no image 2");
            Ok(Cow::Borrowed(&many[i]))
        };
        let told = std::sync::atomic::AtomicUsize::new(0);
        let [a, b] = [&here, &there].map(|clip| {
            let tell = |done| {
                told.fetch_max(done, std::sync::atomic::Ordering::Relaxed);
            };
            let rows = clip.encode_fetched(5, &fetch, &tell).unwrap();
            assert_eq!(told.swap(0, std::sync::atomic::Ordering::Relaxed), 5);
            rows
        });
        for (i, (a, b)) in a.iter().zip(&b).enumerate() {
            match (a, b) {
                (Ok(a), Ok(b)) => assert!(i != 2 && error(a, b) < STAGE),
                (Err(a), Err(_)) => assert!(i == 2 && a.to_string() == "no image 2"),
                _ => panic!("image {i} of {name}"),
            }
        }
    }
}
