//! CIFAR's files for Python: pickled dicts with a `NumPy` array of bytes and
//! lists of labels, written by Python 2.

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::{Batch, IMAGE, count};
use crate::{
    data::{Format, Labels, sniff},
    pickle::{Limits, Pickle, Value, numpy::Array},
};

/// CIFAR-100's training file has 154 MB and 0.2 million values.
const LIMITS: Limits = Limits {
    bytes: super::archive::MOST_BYTES,
    values: 1 << 20,
};

/// The keys of labels and of class names.
pub(super) const fn keys(format: Format, labels: Labels) -> (&'static str, &'static str) {
    match (format, labels) {
        (Format::Cifar100, Labels::Fine) => ("fine_labels", "fine_label_names"),
        (Format::Cifar100, Labels::Coarse) => ("coarse_labels", "coarse_label_names"),
        _ => ("labels", "label_names"),
    }
}

fn read(bytes: &[u8]) -> Result<Pickle<'_>> {
    Pickle::read(bytes, LIMITS).map_err(|error| {
        let begins = match bytes.first() {
            Some(0x80) => String::new(),
            _ => format!(" (it is {})", sniff::what(bytes)),
        };
        anyhow!(
            "it is no whole pickle{begins}: {error}\nhint: the file is truncated or of another format; unpack or download it again"
        )
    })
}

fn field<'p>(root: Value<'p>, key: &str) -> Result<Value<'p>> {
    ensure!(
        root.entries().is_some(),
        "it holds {} instead of a dict",
        root.sort()
    );
    let keys = || -> Vec<&str> {
        let keys = root
            .entries()
            .into_iter()
            .flatten()
            .filter_map(|(key, _)| key.as_str());
        keys.take(8).collect()
    };
    root.get(key).with_context(|| {
        format!(
            "it has no `{key}` but {}\nhint: is it of another data set?",
            crate::data::listed(&keys(), 8)
        )
    })
}

/// The class names under `key`.
pub(super) fn class_names(bytes: &[u8], key: &str) -> Result<Vec<String>> {
    let pickle = read(bytes)?;
    let list = field(pickle.root(), key)?;
    let names: Option<Vec<_>> = list
        .items()
        .and_then(|items| items.map(|name| name.as_str().map(str::to_owned)).collect());
    names.with_context(|| format!("its `{key}` is no list of texts"))
}

/// Labels and pixels of one file.
pub(super) fn batch(bytes: &[u8], format: Format, labels: Labels) -> Result<Batch> {
    let pickle = read(bytes)?;
    let key = keys(format, labels).0;
    let list = field(pickle.root(), key)?;
    let labels: Option<Vec<usize>> = list
        .items()
        .and_then(|items| items.map(Value::as_int).collect());
    let labels = labels.with_context(|| format!("its `{key}` is no list of whole numbers"))?;
    let array = Array::read(field(pickle.root(), "data")?)
        .map_err(|problem| anyhow!("its `data` cannot be read: {problem}"))?;
    let images = match (array.dtype, array.shape.as_slice()) {
        ("u1", [n, IMAGE]) if !array.fortran => *n,
        (dtype, shape) => {
            bail!("its `data` is an array of {shape:?} of type {dtype}, not of [n, {IMAGE}] of u1")
        }
    };
    ensure!(
        images > 0 && images == labels.len(),
        "it has {} but {}",
        count(images, "image", "images"),
        count(labels.len(), "label", "labels")
    );
    Ok(Batch {
        labels,
        pixels: array.bytes.into_owned(),
    })
}
