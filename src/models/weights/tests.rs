//! Sound files are read exactly; every kind of broken one is refused by name.

mod crafted;
mod derive;
mod hostile;
mod torch;

use serde_json::{Value, json};

use super::*;

fn file(header: &[u8], data: &[u8]) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header);
    bytes.extend_from_slice(data);
    bytes
}

fn described(header: &Value, data: &[u8]) -> Vec<u8> {
    file(header.to_string().as_bytes(), data)
}

fn open(bytes: &[u8]) -> Result<Weights, WeightsError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tower.safetensors");
    std::fs::write(&path, bytes).unwrap();
    Weights::open(&path)
}

fn sample() -> Vec<u8> {
    let mut data = Vec::new();
    for x in [1.5f32, -2.0] {
        data.extend_from_slice(&x.to_le_bytes());
    }
    for x in [0.1f32, 65504.0] {
        data.extend_from_slice(&f16::from_f32(x).to_le_bytes());
    }
    for x in [0.1f32, 3e38] {
        data.extend_from_slice(&bf16::from_f32(x).to_le_bytes());
    }
    data.extend_from_slice(&4.6f32.to_le_bytes());
    described(
        &json!({
            "__metadata__": {"format": "pt"},
            "scale": {"dtype": "F32", "shape": [], "data_offsets": [16, 20]},
            "full": {"dtype": "F32", "shape": [1, 2], "data_offsets": [0, 8]},
            "half": {"dtype": "F16", "shape": [2], "data_offsets": [8, 12]},
            "brain": {"dtype": "BF16", "shape": [2], "data_offsets": [12, 16]},
        }),
        &data,
    )
}

#[test]
fn every_float_type_and_a_scalar_are_read_exactly() {
    let mut weights = open(&sample()).unwrap();
    assert_eq!(weights.take_f32("full", &[1, 2]).unwrap(), [1.5, -2.0]);
    let half = weights.take_f32("half", &[2]).unwrap();
    assert_eq!(half, [f16::from_f32(0.1).to_f32(), 65504.0]);
    let brain = weights.take("brain", &[2], DType::BF16).unwrap();
    assert_eq!(brain.dtype(), DType::BF16);
    assert_eq!(brain.as_slice::<bf16>().unwrap()[0], bf16::from_f32(0.1));
    assert_eq!(weights.take_f32("scale", &[]).unwrap(), [4.6]);
    weights.finish().unwrap();
}

#[test]
fn a_file_longer_than_one_piece_is_read_whole() {
    let n = view::PIECE / 4 + 7;
    let data: Vec<u8> = (0..n).flat_map(|i| (i as f32).to_le_bytes()).collect();
    let header = json!({"x": {"dtype": "F32", "shape": [n], "data_offsets": [0, 4 * n]}});
    let values = open(&described(&header, &data))
        .unwrap()
        .take_f32("x", &[n])
        .unwrap();
    let expected: Vec<f32> = (0..n).map(|i| i as f32).collect();
    assert_eq!(values, expected);
}

#[test]
fn all_differences_are_named_at_once() {
    let expected = [
        ("brain".to_owned(), vec![2]),
        ("full".to_owned(), vec![2, 1]),
        ("gone".to_owned(), vec![3]),
        ("half".to_owned(), vec![2]),
    ];
    let message = open(&sample())
        .unwrap()
        .check(&expected)
        .unwrap_err()
        .to_string();
    for part in [
        "tower.safetensors",
        "3 tensors do not fit",
        "tensor `full`: expected shape [2, 1], found [1, 2]",
        "tensor `gone` of shape [3] is missing",
        "tensor `scale` of shape [] is not part of the model",
    ] {
        assert!(message.contains(part), "{part} in {message}");
    }
    let left = open(&sample()).unwrap().finish().unwrap_err().to_string();
    assert!(
        left.contains("`brain`") && left.contains("`scale`"),
        "{left}"
    );
}

#[test]
fn whole_numbers_are_no_weights() {
    let header = json!({"n": {"dtype": "I64", "shape": [], "data_offsets": [0, 8]}});
    let error = open(&described(&header, &[0; 8]))
        .unwrap()
        .take_f32("n", &[])
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("expected F32, F16 or BF16, found I64"),
        "{error}"
    );
}

#[test]
fn broken_files_are_refused_by_name() {
    let tensor = |shape: Value, from: u64, to: u64| json!({"dtype": "F32", "shape": shape, "data_offsets": [from, to]});
    let good = sample();
    let huge = u64::MAX.to_le_bytes();
    let twice = br#"{"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}"#;
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("empty", vec![], "too few"),
        (
            "a web page",
            b"<!DOCTYPE html><html>".to_vec(),
            "it is a web page",
        ),
        ("seven bytes", vec![0; 7], "too few"),
        ("no header", vec![0; 8], "not what safetensors writes"),
        (
            "length of 2^64-1",
            huge.to_vec(),
            "more than the 16777216 allowed",
        ),
        (
            "length past the end",
            9u64.to_le_bytes().to_vec(),
            "may be truncated",
        ),
        ("cut in the header", good[..60].to_vec(), "may be truncated"),
        (
            "cut in the data",
            good[..good.len() - 1].to_vec(),
            "may be truncated",
        ),
        (
            "a byte too many",
            [good.as_slice(), &[0]].concat(),
            "but 21 follow",
        ),
        (
            "not JSON",
            file(b"hello", &[]),
            "not what safetensors writes",
        ),
        ("a list", file(b"[]", &[]), "not what safetensors writes"),
        (
            "no UTF-8",
            file(b"{\"\xff\":1}", &[]),
            "not what safetensors writes",
        ),
        (
            "nested deeply",
            file("[".repeat(100_000).as_bytes(), &[]),
            "not what safetensors",
        ),
        ("twice", file(twice, &[0; 4]), "`a` is there twice"),
        (
            "overlap",
            described(
                &json!({"a": tensor(json!([2]), 0, 8), "b": tensor(json!([2]), 4, 12)}),
                &[0; 12],
            ),
            "`b` overlaps",
        ),
        (
            "hole",
            described(
                &json!({"a": tensor(json!([1]), 0, 4), "b": tensor(json!([1]), 8, 12)}),
                &[0; 12],
            ),
            "a hole before tensor `b`",
        ),
        (
            "backwards",
            described(
                &json!({"a": tensor(json!([1]), 0, 4), "b": tensor(json!([0]), 4, 0)}),
                &[0; 4],
            ),
            "does not fit the bytes 4 to 0",
        ),
        (
            "shape lies",
            described(&json!({"a": tensor(json!([3]), 0, 8)}), &[0; 8]),
            "shape [3] of F32 does not fit the bytes 0 to 8",
        ),
        (
            "overflow",
            described(
                &json!({"a": tensor(json!([1u64 << 33, 1u64 << 33]), 0, 4)}),
                &[0; 4],
            ),
            "does not fit",
        ),
        (
            "huge offsets",
            described(
                &json!({"a": tensor(json!([1u64 << 57]), 0, 1u64 << 59)}),
                &[0; 4],
            ),
            "may be truncated",
        ),
        (
            "negative",
            described(&json!({"a": tensor(json!([-1]), 0, 4)}), &[0; 4]),
            "not what safetensors writes",
        ),
        (
            "many dimensions",
            described(&json!({"a": tensor(json!(vec![1; 9]), 0, 4)}), &[0; 4]),
            "9 dimensions",
        ),
        (
            "unknown type",
            described(
                &json!({"a": {"dtype": "F7", "shape": [], "data_offsets": [0, 4]}}),
                &[0; 4],
            ),
            "not what safetensors writes",
        ),
    ];
    for (case, bytes, reason) in cases {
        let message = open(&bytes).expect_err(case).to_string();
        assert!(message.contains("tower.safetensors"), "{case}: {message}");
        assert!(message.contains(reason), "{case}: {message}");
    }
}

#[test]
fn every_truncation_and_every_flipped_header_byte_is_harmless() {
    let good = sample();
    for end in 0..good.len() {
        open(&good[..end]).unwrap_err();
    }
    for at in 0..good.len() - 20 {
        for flip in [1, 0x20, 0x80] {
            let mut bytes = good.clone();
            bytes[at] ^= flip;
            // A changed letter of a name gives a sound file, nothing else may.
            if let Ok(weights) = open(&bytes) {
                weights
                    .check(&[("full".to_owned(), vec![1, 2])])
                    .unwrap_err();
            }
        }
    }
}

#[test]
fn a_folder_and_a_missing_file_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let error = Weights::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("it is not a file"), "{error}");
    let error = Weights::open(&folder.path().join("gone.safetensors")).unwrap_err();
    assert!(error.to_string().contains("gone.safetensors"), "{error}");
}

#[test]
fn shards_are_joined_and_an_index_that_lies_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let shard = |name: &str| {
        let header = json!({name: {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}});
        described(&header, &1f32.to_le_bytes())
    };
    std::fs::write(folder.path().join("1.safetensors"), shard("a")).unwrap();
    std::fs::write(folder.path().join("2.safetensors"), shard("b")).unwrap();
    let open = |map: Value| {
        let index = json!({"metadata": {"total_size": 8}, "weight_map": map}).to_string();
        std::fs::write(folder.path().join("model.safetensors.index.json"), index).unwrap();
        Weights::open_sharded(folder.path())
    };
    let mut weights = open(json!({"a": "1.safetensors", "b": "2.safetensors"})).unwrap();
    assert_eq!(weights.take_f32("b", &[]).unwrap(), [1.0]);
    assert_eq!(weights.names().collect::<Vec<_>>(), ["a"]);
    for (map, reason) in [
        (
            json!({"a": "2.safetensors"}),
            "tensor `b` is in `2.safetensors`",
        ),
        (
            json!({"a": "1.safetensors", "b": "1.safetensors"}),
            "tensor `b` is not in `1.safetensors`",
        ),
        (json!({"a": "../1.safetensors"}), "not a plain file name"),
        (json!({"a": "3.safetensors"}), "3.safetensors"),
        (json!(["a"]), "not an index of weights"),
    ] {
        let message = open(map).unwrap_err().to_string();
        assert!(message.contains(reason), "{reason}: {message}");
    }
}

#[test]
fn a_file_written_again_has_the_same_bytes_and_tensors() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("in.safetensors");
    std::fs::write(&source, sample()).unwrap();
    let copy = |from: &Path, to: &str| {
        let mut raws: BTreeMap<String, RawTensor> = (Weights::open(from).unwrap())
            .tensor_digest_source(|_| true)
            .map(|raw| raw.map(|raw| (raw.name.clone(), raw)))
            .collect::<Result<_, _>>()
            .unwrap();
        let tensors = (raws.values())
            .map(|raw| Tensor {
                name: raw.name.clone(),
                dtype: raw.dtype.clone(),
                shape: raw.shape.clone(),
                width: if raw.dtype == "F32" { 4 } else { 2 },
            })
            .collect();
        let to = folder.path().join(to);
        write(&to, tensors, |t| Ok(raws.remove(&t.name).unwrap())).unwrap();
        to
    };
    let once = copy(&source, "once.safetensors");
    let again = copy(&once, "again.safetensors");
    assert_eq!(
        std::fs::read(&once).unwrap(),
        std::fs::read(&again).unwrap()
    );
    let all = |path: &Path| {
        let mut weights = Weights::open(path).unwrap();
        let all: Vec<_> = weights
            .tensor_digest_source(|_| true)
            .map(Result::unwrap)
            .collect();
        all
    };
    assert_eq!(all(&source), all(&again));
}
