//! Strict reading of safetensors: every tensor is expected, none is left over.
//!
//! Headers are checked against the file before anything is allocated, tensors
//! are read one at a time with plain reads, and a mistake names the file and
//! every tensor concerned. The element types read are F32, F16 and BF16.

mod error;
mod header;
mod write;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use burn::tensor::{DType, TensorData};
use fs_err::File;
use half::{bf16, f16};
use safetensors::Dtype;
use serde::Deserialize;

pub use error::{Problem, WeightsError};
use header::Entry;
pub use write::{Tensor, write};

/// A name and the shape expected under it.
pub type Expected = (String, Vec<usize>);

/// The most files that one model may be split into.
const MAX_SHARDS: usize = 1000;

/// How many bytes are converted at a time.
const PIECE: usize = 1 << 20;

/// The open file or files of one model's weights.
#[derive(Debug)]
pub struct Weights {
    /// The file, or the index of a sharded one; named in errors.
    path: PathBuf,
    files: Vec<File>,
    /// Tensors not taken yet, with the position of their file.
    tensors: BTreeMap<String, (usize, Entry)>,
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
    /// Opens one safetensors file.
    ///
    /// # Errors
    /// When it cannot be read or breaks the format in any way.
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        let (file, entries) = open_checked(path)?;
        let tensors = entries.into_iter().map(|(k, e)| (k, (0, e))).collect();
        Ok(Self {
            path: path.to_owned(),
            files: vec![file],
            tensors,
        })
    }

    /// Opens the files named by `model.safetensors.index.json` in `folder`.
    ///
    /// # Errors
    /// As [`Weights::open`]; also when the index and the files disagree, or the
    /// index names a file outside `folder`.
    pub fn open_sharded(folder: &Path) -> Result<Self, WeightsError> {
        #[derive(Deserialize)]
        struct Index {
            weight_map: BTreeMap<String, String>,
        }
        let path = folder.join("model.safetensors.index.json");
        let malformed = |reason: String| WeightsError::Malformed {
            path: path.clone(),
            reason,
        };
        let index: Index = serde_json::from_slice(&read_small(&path, header::MAX_HEADER)?)
            .map_err(|error| malformed(format!("it is not a safetensors index: {error}")))?;
        let shards: BTreeSet<&String> = index.weight_map.values().collect();
        if shards.len() > MAX_SHARDS {
            return Err(malformed(format!("it names {} files", shards.len())));
        }
        let mut files = Vec::new();
        let mut tensors = BTreeMap::new();
        for shard in shards {
            if Path::new(shard).file_name().and_then(|n| n.to_str()) != Some(shard) {
                return Err(malformed(format!("`{shard}` is not a plain file name")));
            }
            let (file, entries) = open_checked(&folder.join(shard))?;
            for (name, entry) in entries {
                if index.weight_map.get(&name) != Some(shard) {
                    return Err(malformed(format!(
                        "tensor `{name}` is in `{shard}`, where the index does not put it"
                    )));
                }
                tensors.insert(name, (files.len(), entry));
            }
            files.push(file);
        }
        if let Some((name, shard)) =
            (index.weight_map.iter()).find(|(k, _)| !tensors.contains_key(*k))
        {
            return Err(malformed(format!("tensor `{name}` is not in `{shard}`")));
        }
        Ok(Self {
            path,
            files,
            tensors,
        })
    }

    /// The file, or the index of a sharded one.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names of the tensors not taken yet, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The shape of a tensor that is still there.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|(_, e)| e.shape.as_slice())
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
                return Err(WeightsError::Malformed {
                    path: self.path.clone(),
                    reason: format!("two tensors stand for `{new}`, one of them is `{name}`"),
                });
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
        let mut problems: Vec<Problem> = (expected.iter())
            .filter_map(|(name, shape)| self.problem(name, shape))
            .collect();
        let known: BTreeSet<&str> = expected.iter().map(|(name, _)| name.as_str()).collect();
        problems.extend(self.left(|name| !known.contains(name)));
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
        let Some((file, entry)) = self.tensors.remove(name) else {
            return Err(std::io::Error::from(std::io::ErrorKind::NotFound).into());
        };
        let file = &mut self.files[file];
        file.seek(SeekFrom::Start(entry.offset))?;
        convert(file, &entry, dtype)
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
            .map(|(name, (_, entry))| Tensor {
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
        let Some((file, entry)) = self.tensors.get(name) else {
            return Err(WeightsError::Malformed {
                path: self.path.clone(),
                reason: format!("it has no tensor `{name}`"),
            });
        };
        let file = &mut self.files[*file];
        file.seek(SeekFrom::Start(entry.offset))?;
        let mut bytes = vec![0; entry.len];
        file.read_exact(&mut bytes)?;
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

    fn problem(&self, name: &str, shape: &[usize]) -> Option<Problem> {
        let name = name.to_owned();
        match self.tensors.get(&name) {
            None => Some(Problem::Missing {
                name,
                shape: shape.to_vec(),
            }),
            Some((_, entry)) if entry.shape != shape => Some(Problem::Shape {
                name,
                expected: shape.to_vec(),
                found: entry.shape.clone(),
            }),
            Some((_, entry)) if !matches!(entry.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) => {
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
        extras.map(|(name, (_, entry))| Problem::Extra {
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

/// Opens a file and checks its header.
fn open_checked(path: &Path) -> Result<(File, BTreeMap<String, Entry>), WeightsError> {
    let malformed = |reason| WeightsError::Malformed {
        path: path.to_owned(),
        reason,
    };
    // Opening a pipe would wait for ever, so the kind of file comes first.
    let metadata = fs_err::metadata(path)?;
    if !metadata.is_file() {
        return Err(malformed("it is not a file".to_owned()));
    }
    let mut file = File::open(path)?;
    let entries = header::read(&mut file, metadata.len()).map_err(malformed)?;
    Ok((file, entries))
}

/// Reads a whole file that must not be longer than `most` bytes.
pub(crate) fn read_small(path: &Path, most: u64) -> Result<Vec<u8>, WeightsError> {
    let malformed = |reason| WeightsError::Malformed {
        path: path.to_owned(),
        reason,
    };
    let metadata = fs_err::metadata(path)?;
    if !metadata.is_file() {
        return Err(malformed("it is not a file".to_owned()));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(malformed(format!(
            "it is longer than the {most} bytes allowed"
        )));
    }
    Ok(bytes)
}

/// Reads one tensor from where `file` stands, converting piece by piece.
fn convert(file: &mut impl Read, entry: &Entry, dtype: DType) -> Result<TensorData, WeightsError> {
    let shape = entry.shape.clone();
    Ok(match dtype {
        DType::F16 => TensorData::new(floats(file, entry, f16::from_f32)?, shape),
        DType::BF16 => TensorData::new(floats(file, entry, bf16::from_f32)?, shape),
        _ => TensorData::new(floats(file, entry, |x| x)?, shape).convert_dtype(dtype),
    })
}

/// Every element of a tensor through f32, which is exact for the three types.
fn floats<T>(
    file: &mut impl Read,
    entry: &Entry,
    to: impl Fn(f32) -> T,
) -> std::io::Result<Vec<T>> {
    let width = entry.dtype.bitsize() / 8;
    let mut values = Vec::with_capacity(entry.len / width);
    let mut piece = vec![0; PIECE.min(entry.len)];
    let mut left = entry.len;
    while left > 0 {
        let piece = &mut piece[..PIECE.min(left)];
        file.read_exact(piece)?;
        left -= piece.len();
        match entry.dtype {
            Dtype::F16 => values
                .extend((piece.as_chunks().0.iter()).map(|&b| to(f16::from_le_bytes(b).to_f32()))),
            Dtype::BF16 => values
                .extend((piece.as_chunks().0.iter()).map(|&b| to(bf16::from_le_bytes(b).to_f32()))),
            _ => values.extend((piece.as_chunks().0.iter()).map(|&b| to(f32::from_le_bytes(b)))),
        }
    }
    Ok(values)
}

#[cfg(test)]
mod tests;
