//! What `PyTorch` wrote is read exactly, compared with safetensors of the same.

use std::io::Read;

use super::super::*;

pub(super) fn fixture(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/weights");
    folder.join(name)
}

/// Opens a fixture kept compressed.
fn unpacked(name: &str) -> Weights {
    let file = std::fs::File::open(fixture(name)).unwrap();
    let mut bytes = Vec::new();
    let mut file = flate2::read::GzDecoder::new(file);
    file.read_to_end(&mut bytes).unwrap();
    super::open(&bytes).unwrap()
}

fn all(weights: &mut Weights) -> Vec<RawTensor> {
    let all = weights.tensor_digest_source(|_| true);
    all.map(Result::unwrap).collect()
}

/// Names, types, shapes and bytes.
fn same(left: &mut Weights, right: &mut Weights) {
    assert_eq!(left.tensors(), right.tensors());
    for (left, right) in all(left).into_iter().zip(all(right)) {
        assert_eq!(left, right);
    }
}

#[test]
fn a_module_of_openai_s_layout_is_read_under_the_names_of_its_state_dict() {
    let mut expected = unpacked("openai.safetensors.gz");
    for name in ["openai.pt.gz", "openai-1.7.pt.gz"] {
        let mut weights = unpacked(name);
        assert_eq!(weights.format(), Format::TorchScript);
        assert_eq!(weights.tensors().len(), 171, "{name}");
        same(&mut weights, &mut expected);
        let integers: Vec<_> = weights.integers().iter().collect();
        let known = [
            (&"context_length".to_owned(), &6),
            (&"input_resolution".to_owned(), &32),
            (&"vocab_size".to_owned(), &20),
        ];
        assert_eq!(integers, known, "{name}");
        assert_eq!(weights.integers(), expected.integers());
        assert!(weights.skipped().is_empty(), "{:?}", weights.skipped());
        for (tensor, dtype) in [
            ("visual.layer2.0.downsample.0.weight", "F16"),
            ("visual.layer2.0.downsample.1.running_var", "F32"),
            ("visual.layer2.1.bn3.num_batches_tracked", "I64"),
            ("visual.attnpool.positional_embedding", "F32"),
            ("transformer.resblocks.1.attn.in_proj_weight", "F16"),
            ("transformer.resblocks.1.ln_2.bias", "F32"),
            ("text_projection", "F16"),
            ("logit_scale", "F32"),
        ] {
            assert_eq!(weights.raw(tensor).unwrap().dtype, dtype, "{tensor}");
        }
    }
}

#[test]
fn a_scripted_module_gives_parameters_and_buffers_and_names_the_rest() {
    let mut weights = Weights::open(&fixture("script.pt")).unwrap();
    same(
        &mut weights,
        &mut Weights::open(&fixture("script.safetensors")).unwrap(),
    );
    assert!(weights.shape("same.weight").is_some());
    assert_eq!(weights.skipped(), ["mask", "sizes", "pair", "table"]);
    assert_eq!(weights.integers()["width"], 3);
}

#[test]
fn every_layout_and_type_of_a_state_dict_is_read() {
    let mut weights = Weights::open(&fixture("torch.pt")).unwrap();
    assert_eq!(weights.format(), Format::Torch);
    let mut expected = Weights::open(&fixture("torch.safetensors")).unwrap();
    assert_eq!(expected.format(), Format::Safetensors);
    same(&mut weights, &mut expected);
    // Converted values too, beyond the bytes.
    assert_eq!(
        weights.take_f32("steps", &[2, 2]).unwrap(),
        [0.0, 3.0, 12.0, 15.0]
    );
    let half = weights.take("turned", &[6, 4], DType::F16).unwrap();
    assert_eq!(
        half.as_slice::<f16>().unwrap()[..4],
        [0.0, 6.0, 12.0, 18.0].map(f16::from_f32)
    );
    let error = weights.take_f32("float64", &[3]).unwrap_err().to_string();
    assert!(error.contains("found F64"), "{error}");
}

#[test]
fn a_file_from_before_the_archives_is_read() {
    let mut weights = Weights::open(&fixture("legacy.pt")).unwrap();
    assert_eq!(weights.format(), Format::TorchLegacy);
    let mut expected = Weights::open(&fixture("torch.safetensors")).unwrap();
    expected.ignore(|name| name == "float8_e5m2");
    same(&mut weights, &mut expected);
}

#[test]
fn the_state_dict_of_a_checkpoint_is_found_beside_its_optimizer() {
    let mut weights = Weights::open(&fixture("checkpoint.pt")).unwrap();
    assert_eq!(weights.names().collect::<Vec<_>>(), ["module.weight"]);
    assert_eq!(weights.skipped(), ["module.note"]);
    let ones = weights.take_f32("module.weight", &[2]).unwrap();
    assert_eq!(ones, [1.0, 1.0]);
}

#[test]
fn a_whole_pickled_model_is_refused_with_what_to_do() {
    let error = Weights::open(&fixture("module.pt")).unwrap_err();
    let message = error.to_string();
    for part in [
        "module.pt",
        "an object of `torch.nn.modules.linear.Linear`, no state dict",
        "\nhint: save `model.state_dict()`",
    ] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn a_state_dict_written_as_safetensors_holds_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("again.safetensors");
    let mut weights = Weights::open(&fixture("torch.pt")).unwrap();
    let tensors = weights.tensors();
    write(&path, tensors, |tensor| weights.raw(&tensor.name)).unwrap();
    same(&mut weights, &mut Weights::open(&path).unwrap());
}

#[test]
fn shards_of_pytorch_are_joined() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let names = |weights: &Weights| weights.names().map(str::to_owned).collect::<Vec<_>>();
    let (first, second) = (fixture("torch.pt"), fixture("checkpoint.pt"));
    let mut map = serde_json::Map::new();
    for (file, to) in [(&first, "1.bin"), (&second, "2.bin")] {
        std::fs::copy(file, at(to)).unwrap();
        for name in names(&Weights::open(file).unwrap()) {
            map.insert(name, to.into());
        }
    }
    let index = serde_json::json!({"metadata": {}, "weight_map": map}).to_string();
    std::fs::write(at("pytorch_model.bin.index.json"), index).unwrap();
    let mut weights = Weights::open_sharded(folder.path()).unwrap();
    assert_eq!(weights.format(), Format::Torch);
    let turned = weights.take_f32("turned", &[6, 4]).unwrap();
    assert_eq!(turned[..2], [0.0, 6.0]);
    assert_eq!(weights.take_f32("module.weight", &[2]).unwrap(), [1.0, 1.0]);
    // An index of safetensors comes first.
    std::fs::write(at("model.safetensors.index.json"), "[]").unwrap();
    let error = Weights::open_sharded(folder.path()).unwrap_err();
    assert!(
        error.to_string().contains("model.safetensors.index.json"),
        "{error}"
    );
}

#[test]
fn names_and_values_behave_alike_in_every_format() {
    for name in ["torch.pt", "legacy.pt", "torch.safetensors"] {
        let mut weights = Weights::open(&fixture(name)).unwrap();
        weights.ignore(|name| name.contains("int") || name == "bool");
        weights.rename(|name| format!("model.{name}")).unwrap();
        assert_eq!(weights.shape("model.block"), Some(&[2, 3][..]), "{name}");
        let error = weights.check(&[("model.base".to_owned(), vec![6, 4])]);
        let message = error.unwrap_err().to_string();
        assert!(
            message.contains("`model.base`: expected shape [6, 4], found [4, 6]")
                && message.contains("`model.rows` of shape [2, 6] is not part of the model"),
            "{message}"
        );
        weights.take_f32("model.block", &[2, 3]).unwrap();
        assert!(weights.raw("model.block").is_err());
    }
}
