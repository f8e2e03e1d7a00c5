//! CIFAR's binary files: records of label bytes and 3,072 planar pixels, and
//! texts with one class name a line.

use anyhow::{Context, Result, ensure};

use super::{Batch, IMAGE, count};
use crate::data::{Format, Labels};

/// One class name a line.
pub(super) fn class_names(bytes: &[u8]) -> Result<Vec<String>> {
    let text = std::str::from_utf8(bytes).context("it is no text")?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    Ok(lines.map(str::to_owned).collect())
}

/// Labels and pixels of one file. CIFAR-10's records begin with a label,
/// CIFAR-100's with the coarse and the fine one.
pub(super) fn batch(bytes: &[u8], format: Format, labels: Labels) -> Result<Batch> {
    let (label_bytes, column) = match (format, labels) {
        (Format::Cifar100, Labels::Coarse) => (2, 0),
        (Format::Cifar100, Labels::Fine) => (2, 1),
        _ => (1, 0),
    };
    let size = label_bytes + IMAGE;
    let (whole, rest) = (bytes.len() / size, bytes.len() % size);
    ensure!(
        whole > 0 && rest == 0,
        "it has {}: {} of {size} bytes and {rest} bytes more\nhint: the file is truncated or of another format; unpack or download it again",
        count(bytes.len(), "byte", "bytes"),
        count(whole, "whole record", "whole records"),
    );
    let mut batch = Batch {
        labels: Vec::with_capacity(whole),
        pixels: Vec::with_capacity(whole * IMAGE),
    };
    for record in bytes.chunks_exact(size) {
        let (labels, pixels) = record.split_at(label_bytes);
        batch.labels.push(usize::from(labels[column]));
        batch.pixels.extend(pixels);
    }
    Ok(batch)
}
