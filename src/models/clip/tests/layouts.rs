//! Layouts on disk: which file is taken, and what is refused.

use super::*;
use crate::models::clip::{
    config::{CONFIG_FILE, ImageConfig},
    tokenizer::Dialect,
};

fn message(path: &Path, architecture: Option<&str>) -> String {
    format!("{:#}", Checkpoint::open(path, architecture).unwrap_err())
}

#[test]
fn an_archive_of_openai_tells_its_shape_and_is_quickgelu() {
    let folder = folder("openai/vit");
    let files = Checkpoint::open(&model(folder.path()), None).unwrap();
    let ImageConfig::Vit(vit) = &files.config().image else {
        panic!("a ViT")
    };
    assert_eq!((vit.size, vit.patch, vit.transformer.layers), (24, 8, 2));
    assert_eq!(vit.transformer.activation, config::Activation::QuickGelu);
    assert_eq!(files.tokenizer_files().1, Dialect::OpenAi);
    assert_eq!(files.files(), [model(folder.path())]);
}

#[test]
fn a_folder_that_is_both_gives_each_configuration_its_own_weights() {
    let folder = folder("hf");
    let other = super::folder("quick");
    let copy = |name: &str, to: &str| {
        fs_err::copy(other.path().join(name), folder.path().join(to)).unwrap();
    };
    copy(CONFIG_FILE, CONFIG_FILE);
    let open = || Checkpoint::open(folder.path(), None).unwrap();
    assert!(open().path().ends_with("model.safetensors"));
    assert!(matches!(open().config().image, ImageConfig::Vit(_)));
    copy("open_clip_model.safetensors", "open_clip_model.safetensors");
    assert!(open().path().ends_with("open_clip_model.safetensors"));
    assert!(matches!(open().config().image, ImageConfig::Resnet(_)));
    open().checked().unwrap();
}

#[test]
fn what_cannot_be_told_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let quick = super::folder("quick");
    let weights = quick.path().join("open_clip_model.safetensors");
    let alone = folder.path().join("w.safetensors");
    fs_err::copy(&weights, &alone).unwrap();
    assert!(message(&alone, None).contains("hint: say what it is"));
    assert!(message(folder.path(), None).contains(CONFIG_FILE));
    assert!(message(folder.path(), Some("RN5")).contains("there is no architecture `RN5`"));
    assert!(Checkpoint::open(folder.path(), Some("RN50")).is_ok());
    fs_err::copy(&weights, folder.path().join("v.pt")).unwrap();
    assert!(message(folder.path(), Some("RN50")).contains("choose among 2 files"));
    let empty = tempfile::tempdir().unwrap();
    assert!(message(empty.path(), Some("RN50")).contains("no file ends with"));
    fs_err::remove_file(&weights).unwrap();
    assert!(message(quick.path(), None).contains("no weights"));
}

#[test]
fn both_towers_of_a_folder_of_transformers_may_be_sharded() {
    let folder = folder("hf");
    let whole = Clip::load(folder.path(), DType::F32, &Device::flex()).unwrap();
    let expected = whole.encode_texts(&texts()).unwrap();
    let path = folder.path().join("model.safetensors");
    let mut weights = Weights::open(&path).unwrap();
    let (mut map, mut shards) = (serde_json::Map::new(), [Vec::new(), Vec::new()]);
    for tensor in weights.tensors() {
        let i = usize::from(tensor.name.starts_with("vision"));
        map.insert(tensor.name.clone(), format!("{i}.safetensors").into());
        shards[i].push(tensor);
    }
    for (i, tensors) in shards.into_iter().enumerate() {
        let to = folder.path().join(format!("{i}.safetensors"));
        crate::models::weights::write(&to, tensors, |t| weights.raw(&t.name)).unwrap();
    }
    fs_err::remove_file(path).unwrap();
    let index = serde_json::json!({"weight_map": map}).to_string();
    fs_err::write(folder.path().join("model.safetensors.index.json"), index).unwrap();
    let sharded = Clip::load(folder.path(), DType::F32, &Device::flex()).unwrap();
    assert_eq!(sharded.encode_texts(&texts()).unwrap(), expected);
    let files = Checkpoint::open(folder.path(), None).unwrap();
    assert!(files.is_sharded() && files.files().len() >= 4);
}

#[test]
fn a_tuned_model_can_come_from_any_layout() {
    // The tuned folder is open_clip's, with the activation and the names that fit.
    for name in ["openai/resnet", "bin"] {
        let folder = folder(name);
        let files = Checkpoint::open(&model(folder.path()), None).unwrap();
        let dest = tempfile::tempdir().unwrap();
        write_folder(dest.path(), &files, &[]).unwrap();
        let before = Clip::load(&model(folder.path()), DType::F32, &Device::flex()).unwrap();
        let after = Clip::load(dest.path(), DType::F32, &Device::flex()).unwrap();
        let text = ["a photo of a cat".to_owned()];
        assert_eq!(
            before.encode_texts(&text).unwrap(),
            after.encode_texts(&text).unwrap(),
            "{name}"
        );
        assert_eq!(
            before.encode_images(&images()).unwrap(),
            after.encode_images(&images()).unwrap()
        );
    }
}

#[test]
fn half_precision_runs_over_burn_and_stays_close() {
    for (name, dtype) in [
        ("vit", DType::F16),
        ("hf", DType::BF16),
        ("openai/resnet", DType::F16),
    ] {
        let folder = folder(name);
        let full = Clip::load(&model(folder.path()), DType::F32, &Device::flex()).unwrap();
        let half = Clip::load(&model(folder.path()), dtype, &Device::flex()).unwrap();
        let width = full.embed_dim();
        let [a, b] = [&full, &half].map(|clip| clip.encode_images(&images()).unwrap());
        let cosine = worst_cosine(&a, &b, width);
        assert!((0.998..0.999_999_9).contains(&cosine), "{name}: {cosine}");
    }
}
