//! What holds for every file of weights that is taken, whatever its format.

use std::path::Path;

use runner::models::weights::{RawTensor, Weights, write};

/// How many times the bytes of its file the tensors of a model may have, and their names.
const SHARING: usize = 16;

/// Reads all tensors, and writes and reads them again.
pub(super) fn hold(weights: &mut Weights, path: &Path) -> Vec<RawTensor> {
    let size = path.metadata().unwrap().len() as usize;
    let tensors = weights.tensors();
    let names = weights
        .names()
        .chain(weights.integers().keys().map(String::as_str));
    let names = names.chain(weights.skipped().iter().map(String::as_str));
    let names: usize = names.map(str::len).sum();
    assert!(names <= SHARING * size, "{names} bytes of names");

    let mut raw = Vec::new();
    for tensor in &tensors {
        let read = weights.raw(&tensor.name).unwrap();
        assert_eq!((&read.dtype, &read.shape), (&tensor.dtype, &tensor.shape));
        assert_eq!(Some(tensor.shape.as_slice()), weights.shape(&tensor.name));
        raw.push(read);
    }
    let bytes: usize = raw.iter().map(|tensor| tensor.bytes.len()).sum();
    assert!(bytes <= SHARING * size, "{bytes} bytes of tensors");
    for read in raw.iter().filter(|read| read.dtype == "F32") {
        let values = weights.take_f32(&read.name, &read.shape).unwrap();
        let again: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        assert_eq!(again, read.bytes);
    }

    // Elements of less than a byte are read, but no model has them to be written.
    let whole = |name: &str| !name.starts_with("F4") && !name.starts_with("F6");
    if !raw.iter().all(|read| whole(&read.dtype)) {
        return raw;
    }
    let copy = path.with_file_name("copy.safetensors");
    let find = |name: &str| raw.iter().find(|read| read.name == name);
    write(&copy, tensors.clone(), |tensor| {
        Ok(find(&tensor.name).unwrap().clone())
    })
    .unwrap();
    let mut again = Weights::open(&copy).unwrap();
    let scalars = again.integers().len();
    assert_eq!(again.tensors().len() + scalars, tensors.len());
    for tensor in again.tensors() {
        assert_eq!(Some(&again.raw(&tensor.name).unwrap()), find(&tensor.name));
    }
    raw
}
