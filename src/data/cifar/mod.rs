//! CIFAR-10 and CIFAR-100 in every published form, all giving the same images,
//! labels and class names (<https://www.cs.toronto.edu/~kriz/cifar.html>).

mod archive;
mod binary;
mod python;
mod source;

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};

use self::source::{Form, Source, locate};
use super::{DataSpec, Images as AnyImages, Labels, Pixels, Raw, count};

const SIDE: usize = 32;
const PLANE: usize = SIDE * SIDE;
/// Bytes of an image.
const IMAGE: usize = 3 * PLANE;

/// The images of a split, planar as in the files, without their labels.
#[derive(Default)]
pub(super) struct Images(Vec<u8>);

impl Images {
    /// All pixels, image after image.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Image `i`, interleaved.
    pub(super) fn get(&self, i: usize) -> Option<Pixels> {
        let start = i.checked_mul(IMAGE)?;
        let planar = self.0.get(start..start + IMAGE)?;
        let (red, rest) = planar.split_at(PLANE);
        let (green, blue) = rest.split_at(PLANE);
        let mut rgb = Vec::with_capacity(IMAGE);
        for ((r, g), b) in red.iter().zip(green).zip(blue) {
            rgb.extend([*r, *g, *b]);
        }
        Some(Pixels {
            width: SIDE,
            height: SIDE,
            rgb,
        })
    }
}

/// What one file holds.
struct Batch {
    labels: Vec<usize>,
    /// `labels.len()` images of 3,072 bytes.
    pixels: Vec<u8>,
}

/// Reads the data set that `spec` names.
pub(super) fn read(spec: &DataSpec) -> Result<Raw> {
    let place = match locate(spec.format, &spec.path) {
        Ok(place) => place,
        Err(missing) => bail!("{}", missing.explained(spec)),
    };
    let mut source = Source::open(&place, spec.format)?;
    let layout = source.layout();
    let classes = class_names(&mut source, spec.labels)?;
    let mut splits = Vec::new();
    for (name, files) in [("train", layout.train), ("test", layout.test)] {
        let (mut labels, mut pixels) = (Vec::new(), Vec::new());
        for file in files {
            let (bytes, file) = source.take(file)?;
            let batch = match layout.form {
                Form::Binary => binary::batch(&bytes, spec.format, spec.labels),
                Form::Python => python::batch(&bytes, spec.format, spec.labels),
            }
            .with_context(|| format!("failed to read `{file}`"))?;
            drop(bytes);
            let wrong = batch
                .labels
                .iter()
                .position(|label| *label >= classes.len());
            if let Some(i) = wrong {
                bail!(
                    "image {i} of `{file}` has the label {}, but there are {}",
                    batch.labels[i],
                    count(classes.len(), "class name", "class names")
                );
            }
            labels.extend(batch.labels);
            pixels.extend(batch.pixels);
        }
        if let Some(limit) = spec.limit {
            labels.truncate(limit);
            pixels.truncate(limit.saturating_mul(IMAGE));
        }
        pixels.shrink_to_fit();
        splits.push((name.to_owned(), labels, AnyImages::Cifar(Images(pixels))));
    }
    Ok(Raw {
        classes,
        splits,
        warnings: Vec::new(),
    })
}

/// Class names in index order; CIFAR-100's underscores stay as they are.
fn class_names(source: &mut Source, labels: Labels) -> Result<Vec<String>> {
    let layout = source.layout();
    let file = match (labels, layout.names) {
        (Labels::Coarse, [_, coarse]) => coarse,
        (_, names) => names.first().context("no file names the classes")?,
    };
    let (bytes, file) = source.take(file)?;
    let names = match layout.form {
        Form::Binary => binary::class_names(&bytes),
        Form::Python => python::class_names(&bytes, layout.keys(labels).1),
    }
    .with_context(|| format!("failed to read `{file}`"))?;
    ensure!(!names.is_empty(), "`{file}` names no class");
    Ok(names)
}

/// The files of the data set; if there are none, those that would make it.
pub(super) fn files(spec: &DataSpec) -> Vec<PathBuf> {
    match locate(spec.format, &spec.path) {
        Ok(place) => place.files(),
        Err(missing) => missing.wanted(),
    }
}

/// What is lacking on disk.
pub(super) fn absent(spec: &DataSpec) -> Option<String> {
    locate(spec.format, &spec.path)
        .err()
        .map(|missing| missing.words())
}

#[cfg(test)]
mod tests;
