//! Opening files of weights: what they are is told from their first bytes.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use fs_err::File;
use safetensors::Dtype;
use serde::Deserialize;

use super::{
    Format, Weights, WeightsError,
    archive::{self, Opened},
    header, legacy,
    torch::Found,
    view::Entry,
};

/// How many bytes tell one format from another.
const LONGEST_START: u64 = 16;

/// The most files that one model may be split into.
const MAX_SHARDS: usize = 1000;

/// What Hugging Face calls the index of a model in several files, best first.
pub(crate) const INDEXES: [&str; 2] = [
    "model.safetensors.index.json",
    "pytorch_model.bin.index.json",
];

/// The scalars in which `OpenAI`'s files of CLIP keep what no shape tells.
const DESCRIPTIONS: [&str; 3] = ["input_resolution", "context_length", "vocab_size"];

/// See [`Weights::open`].
pub(super) fn single(path: &Path) -> Result<Weights, WeightsError> {
    let (file, format, found) = open_checked(path)?;
    let mut weights = Weights {
        path: path.to_owned(),
        format,
        files: vec![file],
        tensors: found.entries,
        integers: found.integers,
        skipped: found.skipped,
    };
    set_descriptions_aside(&mut weights)?;
    Ok(weights)
}

/// Which file holds which tensor.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Index {
    /// The names of the files.
    fn shards(&self) -> BTreeSet<&String> {
        self.weight_map.values().collect()
    }
}

fn malformed(path: &Path, reason: String) -> WeightsError {
    WeightsError::Malformed {
        path: path.to_owned(),
        reason,
    }
}

/// See [`Weights::shards`].
pub(super) fn shards(folder: &Path) -> Result<Vec<PathBuf>, WeightsError> {
    let (path, index) = index(folder)?;
    let shards = index.shards().into_iter().map(|name| folder.join(name));
    Ok(std::iter::once(path).chain(shards).collect())
}

/// Reads a folder's index and checks the names of the files.
fn index(folder: &Path) -> Result<(PathBuf, Index), WeightsError> {
    let [first, other] = INDEXES.map(|name| folder.join(name));
    let path = if other.exists() && !first.exists() {
        other
    } else {
        first
    };
    let malformed = |reason| malformed(&path, reason);
    let index: Index = serde_json::from_slice(&read_small(&path, header::MAX_HEADER)?)
        .map_err(|error| malformed(format!("it is not an index of weights: {error}")))?;
    let shards = index.shards();
    if shards.len() > MAX_SHARDS {
        return Err(malformed(format!("it names {} files", shards.len())));
    }
    for shard in shards {
        if Path::new(shard).file_name().and_then(|n| n.to_str()) != Some(shard) {
            return Err(malformed(format!("`{shard}` is not a plain file name")));
        }
    }
    Ok((path, index))
}

/// See [`Weights::open_sharded`].
pub(super) fn sharded(folder: &Path) -> Result<Weights, WeightsError> {
    let (path, index) = index(folder)?;
    let malformed = |reason| malformed(&path, reason);
    let mut weights = Weights {
        path: path.clone(),
        format: Format::Safetensors,
        files: Vec::new(),
        tensors: BTreeMap::new(),
        integers: BTreeMap::new(),
        skipped: Vec::new(),
    };
    for shard in index.shards() {
        let (file, format, found) = open_checked(&folder.join(shard))?;
        if weights.files.is_empty() {
            weights.format = format;
        }
        for (name, mut entry) in found.entries {
            if index.weight_map.get(&name) != Some(shard) {
                return Err(malformed(format!(
                    "tensor `{name}` is in `{shard}`, where the index does not put it"
                )));
            }
            for part in &mut entry.parts {
                part.file = weights.files.len();
            }
            weights.tensors.insert(name, entry);
        }
        weights.integers.extend(found.integers);
        weights.skipped.extend(found.skipped);
        weights.files.push(file);
    }
    if let Some((name, shard)) =
        (index.weight_map.iter()).find(|(k, _)| !weights.tensors.contains_key(*k))
    {
        return Err(malformed(format!("tensor `{name}` is not in `{shard}`")));
    }
    set_descriptions_aside(&mut weights)?;
    Ok(weights)
}

/// Opens a file and checks what it says of its tensors.
fn open_checked(path: &Path) -> Result<(File, Format, Found), WeightsError> {
    let malformed = |reason| malformed(path, reason);
    // Opening a pipe would wait for ever, so the kind of file comes first.
    let metadata = fs_err::metadata(path)?;
    if !metadata.is_file() {
        return Err(malformed("it is not a file".to_owned()));
    }
    let mut file = File::open(path)?;
    let (format, found) = read(&mut file, metadata.len()).map_err(malformed)?;
    Ok((file, format, found))
}

/// Finds out what `file` is and reads its table of tensors.
pub(super) fn read(file: &mut (impl Read + Seek), size: u64) -> Result<(Format, Found), String> {
    let failed = |error| format!("its first bytes cannot be read: {error}");
    let mut start = Vec::new();
    (file.by_ref().take(LONGEST_START))
        .read_to_end(&mut start)
        .map_err(failed)?;
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    if start.starts_with(b"PK\x03\x04") {
        return Ok(match archive::read(file, size)? {
            Opened::State(found) => (Format::Torch, found),
            Opened::Script(found) => (Format::TorchScript, found),
        });
    }
    if start.starts_with(&legacy::START) {
        return Ok((Format::TorchLegacy, legacy::read(file, size)?));
    }
    if start.starts_with(b"version https://") {
        return Err("it is a pointer of Git LFS, not the weights themselves\n\
             hint: fetch them by `git lfs pull`"
            .to_owned());
    }
    if start.starts_with(b"<") {
        return Err("it is a web page, not weights\nhint: download the file itself".to_owned());
    }
    let entries = header::read(file, size)?;
    let found = Found {
        entries,
        ..Found::default()
    };
    Ok((Format::Safetensors, found))
}

/// Moves the scalars that describe the model from the tensors to the integers.
fn set_descriptions_aside(weights: &mut Weights) -> Result<(), WeightsError> {
    let is_scalar = |entry: &Entry| entry.dtype == Dtype::I64 && entry.shape.is_empty();
    for name in DESCRIPTIONS {
        if !weights.tensors.get(name).is_some_and(is_scalar) {
            continue;
        }
        let bytes = weights.raw(name)?.bytes;
        if let Some(bytes) = bytes.first_chunk() {
            let value = i64::from_le_bytes(*bytes);
            weights.integers.insert(name.to_owned(), value);
            weights.tensors.remove(name);
        }
    }
    Ok(())
}

/// Reads a whole file that must not be longer than `most` bytes.
pub(crate) fn read_small(path: &Path, most: u64) -> Result<Vec<u8>, WeightsError> {
    let malformed = |reason| malformed(path, reason);
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
