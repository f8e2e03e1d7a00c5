//! Cutting a model for training, writing it again, and folders that do not fit.

use std::path::Path;

use burn::tensor::TensorData;

use super::*;
use crate::models::clip::{config::CONFIG_FILE, tail::Split};

fn last(blocks: usize) -> Layers {
    Layers {
        text: TextLayers::Blocks(blocks),
        ..Layers::default()
    }
}

#[test]
fn the_split_model_computes_the_same_and_its_gradients_are_the_references() {
    for name in ["quick", "gelu"] {
        let folder = folder(name);
        let device = Device::flex();
        let files = Checkpoint::open(folder.path(), None).unwrap();
        let split = Split::load(&files, last(1), &device).unwrap();
        let config = split.trunk.config().clone();
        let expected = expected(name);
        let text = std::fs::read_to_string(format!(
            "{}/tests/fixtures/clip/{name}/gradients.json",
            env!("CARGO_MANIFEST_DIR")
        ));
        let reference: BTreeMap<String, [f64; 2]> = serde_json::from_str(&text.unwrap()).unwrap();

        let image = split
            .image
            .forward(split.trunk.image_features(&images()).unwrap());
        let (hidden, ends) = split.trunk.text_hidden(&texts()).unwrap();
        let text = split.text.forward(hidden, &ends);
        assert!(error(&rows_of(&image), &expected["image_features"].1) < STAGE);
        assert!(error(&rows_of(&text), &expected["text_features"].1) < STAGE);

        let loss = (image.clone() * wave(image.dims(), &device)).sum()
            + (text.clone() * wave(text.dims(), &device)).sum();
        let gradients = loss.backward();
        let mut found = tail::gradients(&split.image, &config, &gradients);
        found.extend(tail::gradients(&split.text, &config, &gradients));
        assert_eq!(found.len() + 1, reference.len(), "all but the key bias");
        for (name, gradient) in found {
            let [norm, product] = reference[&name];
            let square = |x: &f32| f64::from(*x) * f64::from(*x);
            let ours = gradient.iter().map(square).sum::<f64>().sqrt();
            let along: f64 = (gradient.iter().enumerate())
                .map(|(i, &g)| f64::from(g) * (i as f64 * 0.37).cos())
                .sum();
            // With one place besides the mean, the keys have no gradient but noise.
            let tolerance = 1e-4 * norm + 1e-6;
            assert!((ours - norm).abs() < tolerance, "{name}: {ours} {norm}");
            let off = (along - product).abs();
            assert!(off < tolerance, "{name}: {along} {product}");
        }
    }
}

fn wave<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    let n: usize = shape.iter().product();
    let values: Vec<f32> = (0..n).map(|i| (i as f64 * 0.37).cos() as f32).collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

#[test]
fn an_exported_model_is_a_folder_like_any_other() {
    let source = folder("quick");
    let files = Checkpoint::open(source.path(), None).unwrap();
    let split = Split::load(&files, last(2), &Device::flex()).unwrap();
    let mut trained = tail::export(&split.image, split.trunk.config()).unwrap();
    trained.extend(tail::export(&split.text, split.trunk.config()).unwrap());
    let dest = tempfile::tempdir().unwrap();
    let write = |to: &str, trained: &[tail::Named]| {
        let to = dest.path().join(to);
        folder::write_folder(&to, &files, trained).unwrap();
        to
    };
    // Untouched parameters give the same model.
    let same = Clip::load(&write("same", &trained), DType::F32, &Device::flex()).unwrap();
    let before = load("quick", DType::F32);
    assert_eq!(
        same.encode_images(&images()).unwrap(),
        before.encode_images(&images()).unwrap()
    );
    assert_eq!(
        same.encode_texts(&texts()).unwrap(),
        before.encode_texts(&texts()).unwrap()
    );
    let bytes = |folder: &str| {
        fs_err::read(dest.path().join(folder).join("open_clip_model.safetensors")).unwrap()
    };
    write("again", &trained);
    assert_eq!(bytes("same"), bytes("again"));
    // A changed one changes its tower only.
    let (name, data) = trained
        .iter_mut()
        .find(|(name, _)| name.starts_with("visual.layer4"))
        .unwrap();
    let shape: Vec<usize> = data.shape().as_slice().to_vec();
    *data = TensorData::new(vec![0.01f32; shape.iter().product()], shape);
    let name = name.clone();
    let other = Clip::load(&write("other", &trained), DType::F32, &Device::flex()).unwrap();
    assert_ne!(
        other.encode_images(&images()).unwrap(),
        before.encode_images(&images()).unwrap()
    );
    assert_eq!(
        other.encode_texts(&texts()).unwrap(),
        before.encode_texts(&texts()).unwrap()
    );
    // What has no place is refused.
    trained.push((format!("{name}x"), trained[0].1.clone()));
    let error = folder::write_folder(dest.path(), &files, &trained).unwrap_err();
    assert!(error.to_string().contains("no such tensor"), "{error}");
}

#[test]
fn a_folder_that_does_not_fit_is_refused_by_name() {
    let edit = |change: &dyn Fn(&Path)| {
        let folder = folder("quick");
        change(folder.path());
        format!(
            "{:#}",
            Clip::load(folder.path(), DType::F32, &Device::flex()).unwrap_err()
        )
    };
    let config = |from: &'static str, to: &'static str| {
        edit(&|folder| {
            let path = folder.join(CONFIG_FILE);
            let text = fs_err::read_to_string(&path).unwrap();
            assert!(text.contains(from));
            fs_err::write(path, text.replacen(from, to, 1)).unwrap();
        })
    };
    let message = config("\"embed_dim\": 16", "\"embed_dim\": 17");
    assert!(
        message.contains("`text_projection`: expected shape [32, 17], found [32, 16]"),
        "{message}"
    );
    assert!(
        message.contains("`visual.attnpool.c_proj.bias`"),
        "{message}"
    );
    let message = config("\"layers\": 3", "\"layers\": 4");
    assert!(
        message.contains("`transformer.resblocks.3.ln_1.weight`"),
        "{message}"
    );
    assert!(
        message.contains("open_clip_model.safetensors") && message.contains("missing"),
        "{message}"
    );
    let message = config("\"layers\": 3", "\"layers\": 2");
    assert!(
        message.contains("`transformer.resblocks.2.ln_1.weight`"),
        "{message}"
    );
    assert!(message.contains("not part of the model"), "{message}");
    let message = config("\"width\": 4", "\"width\": 4096");
    assert!(message.contains("do not fit the model"), "{message}");
    let message = config("\"layers\": 3", "\"layers\": -3");
    assert!(
        message.contains(CONFIG_FILE) && message.contains("`text_cfg.layers`"),
        "{message}"
    );

    let message = edit(&|folder| fs_err::remove_file(folder.join(CONFIG_FILE)).unwrap());
    assert!(message.contains(CONFIG_FILE), "{message}");
    let message = edit(&|folder| {
        fs_err::remove_file(folder.join("open_clip_model.safetensors")).unwrap();
    });
    assert!(message.contains("hint:"), "{message}");
    let message = edit(&|folder| {
        let path = folder.join("open_clip_model.safetensors");
        let bytes = fs_err::read(&path).unwrap();
        fs_err::write(path, &bytes[..bytes.len() / 2]).unwrap();
    });
    assert!(
        message.contains("open_clip_model.safetensors") && message.contains("truncated"),
        "{message}"
    );
    let message = edit(&|folder| {
        let path = folder.join(CONFIG_FILE);
        fs_err::write(path, vec![b' '; 3 << 20]).unwrap();
    });
    assert!(message.contains("longer than"), "{message}");
}
