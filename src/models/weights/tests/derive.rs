//! Stacked, transposed and reshaped tensors read as if stored so.

use super::{super::*, torch::fixture};

fn open() -> Weights {
    Weights::open(&fixture("torch.pt")).unwrap()
}

fn values(weights: &mut Weights, name: &str) -> Vec<f32> {
    let shape = weights.shape(name).unwrap().to_vec();
    weights.take_f32(name, &shape).unwrap()
}

#[test]
fn rows_are_stacked_in_the_order_named() {
    let mut weights = open();
    let expected = [
        values(&mut open(), "rows"),
        values(&mut open(), "base"),
        values(&mut open(), "again"),
    ]
    .concat();
    weights.stack("joint", &["rows", "base", "again"]).unwrap();
    assert_eq!(weights.shape("joint"), Some(&[10, 6][..]));
    assert!(weights.shape("rows").is_none() && weights.shape("base").is_none());
    let raw = weights.raw("joint").unwrap();
    assert_eq!((raw.dtype.as_str(), raw.bytes.len()), ("F32", 240));
    let listed = weights.tensors();
    let tensor = listed.iter().find(|t| t.name == "joint").unwrap();
    assert_eq!((&tensor.shape, tensor.width), (&vec![10, 6], 4));
    assert_eq!(values(&mut weights, "joint"), expected);
}

#[test]
fn vectors_and_views_are_stacked_too() {
    let mut weights = open();
    weights.stack("bias", &["column", "float32"]).unwrap();
    assert_eq!(
        values(&mut weights, "bias"),
        [3.0, 9.0, 15.0, 21.0, 0.0, 1.0, 1.0]
    );
    // The result may take the name of a part.
    let mut weights = open();
    weights.stack("rows", &["rows", "base"]).unwrap();
    assert_eq!(weights.shape("rows"), Some(&[6, 6][..]));
}

#[test]
fn what_does_not_stack_is_refused_by_name_and_changes_nothing() {
    let mut weights = open();
    let before = weights.tensors();
    for (to, names, reason) in [
        ("joint", &["rows", "gone"][..], "`gone` is missing"),
        (
            "joint",
            &["rows", "turned"],
            "`turned` is F32 of shape [6, 4]",
        ),
        (
            "joint",
            &["float32", "float16"],
            "`float16` is F16 of shape [3]",
        ),
        ("joint", &["rows", "rows"], "`rows` is named twice"),
        ("joint", &["scalar"], "`scalar` has no rows"),
        ("joint", &[], "of nothing"),
        ("base", &["rows", "again"], "`base` is there already"),
    ] {
        let message = weights.stack(to, names).unwrap_err().to_string();
        assert!(
            message.contains(reason) && message.contains("torch.pt"),
            "{message}"
        );
        assert!(message.contains(&format!("`{to}`")), "{message}");
    }
    assert_eq!(weights.tensors(), before);
}

#[test]
fn matrices_are_transposed_wherever_they_lie() {
    for (name, twin) in [("base", "turned"), ("turned", "base")] {
        let mut weights = open();
        weights.transpose(name).unwrap();
        let (left, right) = (weights.raw(name).unwrap(), weights.raw(twin).unwrap());
        assert_eq!((left.shape, left.bytes), (right.shape, right.bytes));
    }
    let mut weights = open();
    weights.transpose("block").unwrap();
    assert_eq!(
        values(&mut weights, "block"),
        [8.0, 14.0, 9.0, 15.0, 10.0, 16.0]
    );
    weights.reshape("base", &[3, 8]).unwrap();
    weights.transpose("base").unwrap();
    assert_eq!(values(&mut weights, "base")[..4], [0.0, 8.0, 16.0, 1.0]);
    weights.transpose("empty").unwrap();
    assert_eq!(weights.shape("empty"), Some(&[3, 0][..]));
    weights.stack("rows", &["rows", "again"]).unwrap();
    for (name, reason) in [
        ("permuted", "shape [5, 3, 4]"),
        ("scalar", "shape []"),
        ("rows", "in 2 parts"),
        ("gone", "no tensor `gone`"),
    ] {
        let message = weights.transpose(name).unwrap_err().to_string();
        assert!(message.contains(reason), "{message}");
    }
}

#[test]
fn reshaped_tensors_keep_their_row_major_order() {
    let mut weights = open();
    let before = weights.raw("turned").unwrap().bytes;
    weights.reshape("turned", &[2, 12, 1]).unwrap();
    let after = weights.raw("turned").unwrap();
    assert_eq!((after.shape, after.bytes), (vec![2, 12, 1], before));
    weights.reshape("turned", &[3, 8]).unwrap();
    let message = weights.transpose("turned").unwrap_err().to_string();
    assert!(message.contains("reshaped from strides"), "{message}");
    weights.reshape("scalar", &[1]).unwrap();
    assert_eq!(weights.take_f32("scalar", &[1]).unwrap(), [4.5]);
    for shape in [&[5, 5][..], &[], &[1 << 40, 1 << 40]] {
        let message = weights.reshape("base", shape).unwrap_err().to_string();
        assert!(
            message.contains("`base` of shape [4, 6] cannot take"),
            "{message}"
        );
    }
}

#[test]
fn made_tensors_are_written_like_stored_ones() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("made.safetensors");
    let mut weights = open();
    weights.ignore(|name| !["turned", "base", "rows"].contains(&name));
    weights.transpose("turned").unwrap();
    weights.stack("all", &["turned", "rows"]).unwrap();
    let tensors = weights.tensors();
    write(&path, tensors, |tensor| weights.raw(&tensor.name)).unwrap();
    let mut again = Weights::open(&path).unwrap();
    assert_eq!(again.names().collect::<Vec<_>>(), ["all", "base"]);
    assert_eq!(again.raw("all").unwrap(), weights.raw("all").unwrap());
    assert_eq!(
        values(&mut again, "all")[..30],
        values(&mut weights, "all")[..30]
    );
}
