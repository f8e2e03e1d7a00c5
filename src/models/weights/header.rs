//! The header of a safetensors file, checked before anything else is believed.
//!
//! The format (<https://github.com/huggingface/safetensors#format>): eight
//! bytes of little-endian length, that many bytes of JSON, then the tensors'
//! bytes without holes. Beyond what the `safetensors` crate checks we bound
//! the header, refuse repeated names and compare with the file's size, so that
//! no later allocation is larger than the file.

use std::{collections::BTreeMap, fmt, io::Read};

use safetensors::tensor::TensorInfo;
use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, Visitor},
};

use super::view::{Entry, Part};

/// The longest header read, in bytes. A 70B model's has about 0.1 MiB.
pub(super) const MAX_HEADER: u64 = 16 << 20;

/// The most dimensions of a tensor.
pub(super) const MAX_RANK: usize = 8;

/// Reads and checks the header of a file of `size` bytes.
///
/// Reasons are fragments without the file's name.
pub(super) fn read(file: &mut impl Read, size: u64) -> Result<BTreeMap<String, Entry>, String> {
    let mut length = [0; 8];
    file.read_exact(&mut length)
        .map_err(|_| format!("{size} bytes are too few for a safetensors file"))?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER {
        return Err(format!(
            "its header claims {length} bytes, more than the {MAX_HEADER} allowed"
        ));
    }
    if length > size.saturating_sub(8) {
        return Err(format!(
            "its header claims {length} bytes, but the file has {size} in all; it may be truncated"
        ));
    }
    let mut json = vec![0; length as usize];
    file.read_exact(&mut json)
        .map_err(|error| format!("its header cannot be read: {error}"))?;
    let Table(infos) = serde_json::from_slice(&json)
        .map_err(|error| format!("its header is not what safetensors writes: {error}"))?;
    place(infos, 8 + length, size)
}

/// Checks that the tensors cover the bytes from `start` to `size` exactly once.
fn place(
    mut infos: Vec<(String, TensorInfo)>,
    start: u64,
    size: u64,
) -> Result<BTreeMap<String, Entry>, String> {
    infos.sort_by(|a, b| (a.1.data_offsets, &a.0).cmp(&(b.1.data_offsets, &b.0)));
    let mut entries = BTreeMap::new();
    let mut end = 0;
    for (name, info) in infos {
        let (from, to) = info.data_offsets;
        if info.shape.len() > MAX_RANK {
            return Err(format!(
                "tensor `{name}` has {} dimensions, more than {MAX_RANK}",
                info.shape.len()
            ));
        }
        if from < end {
            return Err(format!("tensor `{name}` overlaps the one before it"));
        }
        if from > end {
            return Err(format!("there is a hole before tensor `{name}`"));
        }
        let bytes = (info.shape.iter())
            .try_fold(1usize, |n, &d| n.checked_mul(d))
            .and_then(|n| n.checked_mul(info.dtype.bitsize()))
            .filter(|bits| bits % 8 == 0)
            .map(|bits| bits / 8);
        if to < from || bytes != Some(to - from) {
            return Err(format!(
                "tensor `{name}`: shape {:?} of {} does not fit the bytes {from} to {to}",
                info.shape, info.dtype
            ));
        }
        end = to;
        let entry = Entry {
            dtype: info.dtype,
            shape: info.shape,
            parts: vec![Part {
                file: 0,
                offset: start.saturating_add(from as u64),
                len: to - from,
                dims: None,
            }],
        };
        entries.insert(name, entry);
    }
    if start.checked_add(end as u64) != Some(size) {
        return Err(format!(
            "its header describes {end} bytes of tensors, but {} follow it; \
             it may be truncated",
            size - start
        ));
    }
    Ok(entries)
}

/// The header as pairs, so that a repeated name is seen.
struct Table(Vec<(String, TensorInfo)>);

impl<'de> Deserialize<'de> for Table {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Table;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Table, A::Error> {
                let mut pairs = Vec::new();
                let mut seen = std::collections::HashSet::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        map.next_value::<Option<BTreeMap<String, String>>>()?;
                        continue;
                    }
                    if !seen.insert(name.clone()) {
                        return Err(de::Error::custom(format!("tensor `{name}` is there twice")));
                    }
                    let info = map.next_value()?;
                    pairs.push((name, info));
                }
                Ok(Table(pairs))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}
