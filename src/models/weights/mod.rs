//! Strict reading of weights: every tensor is expected, none is left over.
//!
//! Safetensors and everything that `PyTorch` writes are read alike: state dicts
//! of `torch.save`, in archives or before them, and `TorchScript` modules.
//! Pickles are read as data; nothing in a file is executed. What a file claims
//! is checked against its size before anything is allocated, tensors are read
//! one at a time with plain reads, and a mistake names the file and every tensor
//! concerned. The element types read are F32, F16 and BF16.

mod archive;
mod derive;
mod error;
mod header;
mod legacy;
mod official;
mod open;
mod script;
mod torch;
mod view;
mod write;
mod zip;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::{Path, PathBuf},
};

use burn::tensor::{DType, TensorData};
use fs_err::File;
use half::{bf16, f16};
use safetensors::Dtype;

pub use error::{Problem, WeightsError};
pub use official::official;
pub(crate) use open::{INDEXES, read_small};
use view::Entry;
pub use write::{Tensor, write};

/// A name and the shape expected under it.
pub type Expected = (String, Vec<usize>);

/// What a file of weights is, told from its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Hugging Face's safetensors.
    Safetensors,
    /// A state dict in the archive that `torch.save` writes.
    Torch,
    /// A state dict as `torch.save` wrote it before release 1.6.
    TorchLegacy,
    /// A module in the archive that `torch.jit.save` writes.
    TorchScript,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Safetensors => "safetensors",
            Self::Torch => "PyTorch",
            Self::TorchLegacy => "PyTorch before 1.6",
            Self::TorchScript => "TorchScript",
        })
    }
}

/// The open file or files of one model's weights.
#[derive(Debug)]
pub struct Weights {
    /// The file, or the index of a sharded one; named in errors.
    path: PathBuf,
    format: Format,
    files: Vec<File>,
    /// Tensors not taken yet.
    tensors: BTreeMap<String, Entry>,
    integers: BTreeMap<String, i64>,
    skipped: Vec<String>,
}

/// A tensor as it lies in the file, for whoever computes a digest of a part of
/// a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawTensor {
    /// The tensor's name.
    pub name: String,
    /// The element type as safetensors spells it, such as `F16`.
    pub dtype: String,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Little-endian elements in row-major order.
    pub bytes: Vec<u8>,
}

impl Weights {
    /// Opens one file of weights, whatever its name: its first bytes tell the
    /// [`Format`].
    ///
    /// # Errors
    /// When it cannot be read, breaks its format in any way, or holds no state
    /// dict.
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        open::single(path)
    }

    /// Opens the files named by `model.safetensors.index.json` in `folder`, or
    /// by `pytorch_model.bin.index.json` if there is no such file.
    ///
    /// # Errors
    /// As [`Weights::open`]; also when the index and the files disagree, or the
    /// index names a file outside `folder`.
    pub fn open_sharded(folder: &Path) -> Result<Self, WeightsError> {
        open::sharded(folder)
    }

    /// The index that [`Weights::open_sharded`] reads, and the files that it names.
    ///
    /// # Errors
    /// When the index cannot be read or names a file outside `folder`.
    pub fn shards(folder: &Path) -> Result<Vec<PathBuf>, WeightsError> {
        open::shards(folder)
    }

    /// The file, or the index of a sharded one.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the file is, or the first of the files.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Whole numbers that describe the model rather than belong to it: the
    /// scalars `input_resolution`, `context_length` and `vocab_size` of `OpenAI`'s
    /// files, which are not among the tensors, and whole numbers among a
    /// `TorchScript` module's own attributes.
    pub fn integers(&self) -> &BTreeMap<String, i64> {
        &self.integers
    }

    /// The names of what the file holds besides: entries of a state dict that
    /// are no tensors, and attributes of a `TorchScript` module that its
    /// `state_dict()` would not list.
    pub fn skipped(&self) -> &[String] {
        &self.skipped
    }

    /// The names of the tensors not taken yet, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The shape of a tensor that is still there.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|entry| entry.shape.as_slice())
    }

    /// Forgets tensors that the model has no use for, such as counters.
    pub fn ignore(&mut self, unwanted: impl Fn(&str) -> bool) {
        self.tensors.retain(|name, _| !unwanted(name));
    }

    /// Renames tensors, for instance to drop a prefix.
    ///
    /// # Errors
    /// When two tensors would get the same name.
    pub fn rename(&mut self, new: impl Fn(&str) -> String) -> Result<(), WeightsError> {
        let mut renamed = BTreeMap::new();
        for (name, entry) in std::mem::take(&mut self.tensors) {
            let new = new(&name);
            if renamed.contains_key(&new) {
                return Err(self.malformed(format!(
                    "two tensors stand for `{new}`, one of them is `{name}`"
                )));
            }
            renamed.insert(new, entry);
        }
        self.tensors = renamed;
        Ok(())
    }

    /// Compares all tensors with a whole model's, before any is read.
    ///
    /// # Errors
    /// [`WeightsError::Mismatch`] with every missing, misshaped, wrongly typed
    /// and left-over tensor.
    pub fn check(&self, expected: &[Expected]) -> Result<(), WeightsError> {
        self.check_apart(expected, |_| false)
    }

    /// As [`Weights::check`] of all tensors but those that `apart` accepts.
    ///
    /// # Errors
    /// As [`Weights::check`].
    pub fn check_apart(
        &self,
        expected: &[Expected],
        apart: impl Fn(&str) -> bool,
    ) -> Result<(), WeightsError> {
        let mut problems: Vec<Problem> = (expected.iter())
            .filter_map(|(name, shape)| self.problem(name, shape))
            .collect();
        let known: BTreeSet<&str> = expected.iter().map(|(name, _)| name.as_str()).collect();
        problems.extend(self.left(|name| !known.contains(name) && !apart(name)));
        self.mismatch(problems)
    }

    /// Takes a tensor out, converted to `dtype` (F32, F16 or BF16).
    ///
    /// # Errors
    /// When it is missing or of another shape, or when reading fails.
    pub fn take(
        &mut self,
        name: &str,
        shape: &[usize],
        dtype: DType,
    ) -> Result<TensorData, WeightsError> {
        self.mismatch(self.problem(name, shape).into_iter().collect())?;
        // `problem` has just found it.
        let Some(entry) = self.tensors.remove(name) else {
            return Err(std::io::Error::from(std::io::ErrorKind::NotFound).into());
        };
        convert(&mut self.files, &entry, dtype)
    }

    /// Takes a tensor out as it lies in the file.
    ///
    /// # Errors
    /// When it is missing or reading fails.
    pub fn take_raw(&mut self, name: &str) -> Result<RawTensor, WeightsError> {
        let raw = self.raw(name)?;
        self.tensors.remove(name);
        Ok(raw)
    }

    /// Takes a tensor out as f32 values in row-major order.
    ///
    /// # Errors
    /// As [`Weights::take`].
    pub fn take_f32(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, WeightsError> {
        let data = self.take(name, shape, DType::F32)?;
        data.try_into_vec()
            .map_err(|error| WeightsError::Io(std::io::Error::other(error.to_string())))
    }

    /// Ends a strict load.
    ///
    /// # Errors
    /// When tensors are left over; all are named.
    pub fn finish(self) -> Result<(), WeightsError> {
        self.mismatch(self.left(|_| true).collect())
    }

    /// What is known of every tensor that is still there, in name order.
    pub fn tensors(&self) -> Vec<Tensor> {
        (self.tensors.iter())
            .map(|(name, entry)| Tensor {
                name: name.clone(),
                dtype: entry.dtype.to_string(),
                shape: entry.shape.clone(),
                width: entry.dtype.bitsize().div_ceil(8),
            })
            .collect()
    }

    /// Reads a tensor as it lies in the file, without taking it.
    ///
    /// # Errors
    /// When it is missing or reading fails.
    pub fn raw(&mut self, name: &str) -> Result<RawTensor, WeightsError> {
        let Some(entry) = self.tensors.get(name) else {
            return Err(self.missing(name));
        };
        let mut bytes = Vec::with_capacity(entry.len());
        entry.read(&mut self.files, |piece| bytes.extend_from_slice(piece))?;
        Ok(RawTensor {
            name: name.to_owned(),
            dtype: entry.dtype.to_string(),
            shape: entry.shape.clone(),
            bytes,
        })
    }

    /// The tensors whose names `keep` accepts, in name order, one read at a
    /// time. Nothing is taken.
    pub fn tensor_digest_source(
        &mut self,
        keep: impl Fn(&str) -> bool,
    ) -> impl Iterator<Item = Result<RawTensor, WeightsError>> {
        let names: Vec<String> = self
            .names()
            .filter(|name| keep(name))
            .map(str::to_owned)
            .collect();
        names.into_iter().map(|name| self.raw(&name))
    }

    fn malformed(&self, reason: String) -> WeightsError {
        WeightsError::Malformed {
            path: self.path.clone(),
            reason,
        }
    }

    fn missing(&self, name: &str) -> WeightsError {
        self.malformed(format!("it has no tensor `{name}`"))
    }

    fn problem(&self, name: &str, shape: &[usize]) -> Option<Problem> {
        let name = name.to_owned();
        match self.tensors.get(&name) {
            None => Some(Problem::Missing {
                name,
                shape: shape.to_vec(),
            }),
            Some(entry) if entry.shape != shape => Some(Problem::Shape {
                name,
                expected: shape.to_vec(),
                found: entry.shape.clone(),
            }),
            Some(entry) if !matches!(entry.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) => {
                Some(Problem::Dtype {
                    name,
                    found: entry.dtype.to_string(),
                })
            }
            Some(_) => None,
        }
    }

    fn left(&self, extra: impl Fn(&str) -> bool) -> impl Iterator<Item = Problem> {
        let extras = self.tensors.iter().filter(move |(name, _)| extra(name));
        extras.map(|(name, entry)| Problem::Extra {
            name: name.clone(),
            shape: entry.shape.clone(),
        })
    }

    fn mismatch(&self, problems: Vec<Problem>) -> Result<(), WeightsError> {
        if problems.is_empty() {
            return Ok(());
        }
        Err(WeightsError::Mismatch {
            path: self.path.clone(),
            problems,
        })
    }
}

/// Reads one tensor, converting piece by piece.
fn convert(files: &mut [File], entry: &Entry, dtype: DType) -> Result<TensorData, WeightsError> {
    let shape = entry.shape.clone();
    Ok(match dtype {
        DType::F16 => TensorData::new(floats(files, entry, f16::from_f32)?, shape),
        DType::BF16 => TensorData::new(floats(files, entry, bf16::from_f32)?, shape),
        _ => TensorData::new(floats(files, entry, |x| x)?, shape).convert_dtype(dtype),
    })
}

/// Every element of a tensor through f32, which is exact for the three types.
fn floats<T>(files: &mut [File], entry: &Entry, to: impl Fn(f32) -> T) -> std::io::Result<Vec<T>> {
    let width = entry.dtype.bitsize() / 8;
    let mut values = Vec::with_capacity(entry.len() / width);
    entry.read(files, |piece| match entry.dtype {
        Dtype::F16 => {
            let halves = piece.as_chunks().0.iter();
            values.extend(halves.map(|&b| to(f16::from_le_bytes(b).to_f32())));
        }
        Dtype::BF16 => {
            let halves = piece.as_chunks().0.iter();
            values.extend(halves.map(|&b| to(bf16::from_le_bytes(b).to_f32())));
        }
        _ => values.extend((piece.as_chunks().0.iter()).map(|&b| to(f32::from_le_bytes(b)))),
    })?;
    Ok(values)
}

#[cfg(test)]
mod tests;
