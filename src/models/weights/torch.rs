//! Tensors and state dicts as `torch.save` pickles them.
//!
//! A tensor is a call of `torch._utils._rebuild_tensor_v2` with a storage (a
//! persistent id that names a member of the archive), an offset, sizes and
//! strides (`torch/_utils.py`, `torch/serialization.py`). Nothing is called:
//! the arguments are read and compared with the storage.

use std::collections::BTreeMap;

use safetensors::Dtype;

use super::{
    header::MAX_RANK,
    view::{Dim, Entry, Part, in_order},
};
use crate::pickle::{Global, Limits, Value};

/// What a pickle beside weights may cost; a 70B model's has less than 1 MB.
pub(super) const LIMITS: Limits = Limits {
    bytes: 64 << 20,
    values: 4 << 20,
};

/// Where checkpoints keep the state dict, best first.
const SECTIONS: [&str; 3] = ["state_dict", "model_state_dict", "model"];

/// Tensors may share storages and repeat elements, but none may have more bytes
/// than the file, and all together not more than so many times as many. Neither
/// may their names, for a pickle can use a text again and again.
const SHARING: u64 = 16;

/// How many wrappers may lie around a tensor.
const MOST_WRAPPERS: usize = 4;

const UTILS: &str = "torch._utils";

/// What a file holds.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) entries: BTreeMap<String, Entry>,
    /// Whole numbers that are no tensors.
    pub(super) integers: BTreeMap<String, i64>,
    /// The names of all else.
    pub(super) skipped: Vec<String>,
}

impl Found {
    /// Adds a tensor.
    pub(super) fn add(&mut self, name: String, entry: Entry) -> Result<(), String> {
        if self.entries.contains_key(&name) {
            return Err(format!("tensor `{name}` is there twice"));
        }
        self.entries.insert(name, entry);
        Ok(())
    }
}

/// A storage as a persistent id describes it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Storage<'p> {
    /// What the file calls it.
    pub(super) key: &'p str,
    /// Its element type; of untyped ones, bytes.
    pub(super) dtype: Dtype,
    /// Its length in bytes.
    pub(super) len: u64,
}

impl<'p> Storage<'p> {
    /// Reads `("storage", class, key, location, elements)`.
    pub(super) fn read(value: Value<'p>) -> Result<Self, String> {
        let odd = || format!("{} stands where a storage should", value.sort());
        let id = value.persistent().ok_or_else(odd)?;
        let parts: Vec<Value<'p>> = id.items().ok_or_else(odd)?.take(7).collect();
        let (kind, class, key, elements) = match parts.as_slice() {
            [kind, class, key, _, elements] => (kind, class, key, elements),
            // Files that are no archives have a sixth part: a view into another
            // storage, which PyTorch has not written since 0.4.
            [kind, class, key, _, elements, view] if view.is_none() => (kind, class, key, elements),
            [_, _, _, _, _, _] => return Err("its storage is a view of another".to_owned()),
            _ => return Err(odd()),
        };
        let class = class.global().ok_or_else(odd)?;
        let (Some("storage"), Some(key)) = (kind.as_str(), key.as_str()) else {
            return Err(odd());
        };
        let dtype = storage_dtype(class).ok_or_else(|| format!("`{class}` is not read"))?;
        let len = (elements.as_int::<u64>())
            .and_then(|n| n.checked_mul(width(dtype) as u64))
            .ok_or("its storage has no possible length")?;
        Ok(Self { key, dtype, len })
    }
}

/// Makes entries of pickled tensors.
pub(super) struct Rebuild<'a> {
    /// Where the storage of this name starts, if it has this many bytes.
    locate: &'a dyn Fn(Storage<'_>) -> Result<u64, String>,
    size: u64,
    /// How many bytes more the tensors may have.
    left: u64,
    /// How many bytes more their names may have.
    names_left: u64,
}

impl<'a> Rebuild<'a> {
    /// For a file of `size` bytes.
    pub(super) fn new(locate: &'a dyn Fn(Storage<'_>) -> Result<u64, String>, size: u64) -> Self {
        Self {
            locate,
            size,
            left: size.saturating_mul(SHARING),
            names_left: size.saturating_mul(SHARING),
        }
    }

    /// Counts a name that is going to be kept.
    pub(super) fn name(&mut self, name: &str) -> Result<(), String> {
        self.names_left = (self.names_left.checked_sub(name.len() as u64))
            .ok_or_else(|| format!("its names have {SHARING} times the bytes of the file"))?;
        Ok(())
    }

    /// The tensor that `value` would be.
    pub(super) fn tensor(&mut self, value: Value<'_>) -> Result<Entry, String> {
        let odd = || format!("{} stands where a tensor should", value.sort());
        let mut class = value.class().ok_or_else(odd)?;
        let mut args = arguments(value).ok_or_else(odd)?;
        for _ in 0..MOST_WRAPPERS {
            match (class.module, class.name, args.as_slice()) {
                (UTILS, "_rebuild_parameter" | "_rebuild_parameter_with_state", [inner, ..]) => {
                    class = inner.class().ok_or_else(odd)?;
                    args = arguments(*inner).ok_or_else(odd)?;
                }
                ("torch._tensor", "_rebuild_from_type_v2", [function, _, inner, _]) => {
                    class = function.global().ok_or_else(odd)?;
                    args = inner.items().ok_or_else(odd)?.collect();
                }
                (UTILS, "_rebuild_tensor", &[storage, offset, size, stride])
                | (UTILS, "_rebuild_tensor_v2", &[storage, offset, size, stride, _, _]) => {
                    return self.plain([storage, offset, size, stride], None);
                }
                (UTILS, "_rebuild_tensor_v2", &[storage, offset, size, stride, _, _, bits]) => {
                    no_bits(bits)?;
                    return self.plain([storage, offset, size, stride], None);
                }
                (UTILS, "_rebuild_tensor_v3", &[storage, offset, size, stride, _, _, dtype]) => {
                    return self.plain([storage, offset, size, stride], Some(dtype));
                }
                (
                    UTILS,
                    "_rebuild_tensor_v3",
                    &[storage, offset, size, stride, _, _, dtype, bits],
                ) => {
                    no_bits(bits)?;
                    return self.plain([storage, offset, size, stride], Some(dtype));
                }
                _ => {
                    return Err(format!(
                        "what `{class}` makes of {} arguments is not read",
                        args.len()
                    ));
                }
            }
        }
        Err("too many wrappers lie around it".to_owned())
    }

    fn plain(
        &mut self,
        [storage, offset, size, stride]: [Value<'_>; 4],
        dtype: Option<Value<'_>>,
    ) -> Result<Entry, String> {
        let storage = Storage::read(storage)?;
        let dtype = match dtype {
            None => storage.dtype,
            Some(dtype) => tensor_dtype(dtype)?,
        };
        let offset: usize = offset.as_int().ok_or("its offset is no whole number")?;
        let shape = lengths(size).ok_or("its shape is no list of lengths")?;
        let strides = lengths(stride).ok_or("its strides are no list of lengths")?;
        if shape.len() != strides.len() || shape.len() > MAX_RANK {
            return Err(format!(
                "{} dimensions and {} strides are more than {MAX_RANK} or do not fit together",
                shape.len(),
                strides.len()
            ));
        }
        let start = (self.locate)(storage)?;
        let dims: Vec<Dim> = (shape.iter().zip(strides))
            .map(|(&size, stride)| Dim { size, stride })
            .collect();
        let room = storage.len / width(dtype) as u64;
        let len = bytes_inside(&dims, width(dtype), offset, room).ok_or_else(|| {
            format!("shape {shape:?} at {offset} does not fit its storage of {room} elements")
        })?;
        if len as u64 > self.size {
            return Err(format!(
                "shape {shape:?} repeats elements beyond the file's size"
            ));
        }
        self.left = (self.left.checked_sub(len as u64)).ok_or_else(|| {
            format!("with it the tensors have {SHARING} times the bytes of the file")
        })?;
        Ok(Entry {
            dtype,
            shape,
            parts: vec![Part {
                file: 0,
                offset: start + (offset * width(dtype)) as u64,
                len,
                dims: (!in_order(&dims)).then_some(dims),
            }],
        })
    }
}

/// The bytes of a tensor, if each of its elements lies in a storage of `room`
/// elements.
fn bytes_inside(dims: &[Dim], width: usize, offset: usize, room: u64) -> Option<usize> {
    let elements = dims.iter().try_fold(1usize, |n, d| n.checked_mul(d.size))?;
    let end = if elements == 0 {
        offset
    } else {
        dims.iter().try_fold(offset.checked_add(1)?, |end, d| {
            end.checked_add((d.size - 1).checked_mul(d.stride)?)
        })?
    };
    (end as u64 <= room).then_some(elements.checked_mul(width)?)
}

/// Whether a value is a tensor, readable or not.
pub(super) fn is_tensor(value: Value<'_>) -> bool {
    value.class().is_some_and(|class| {
        matches!(class.module, UTILS | "torch._tensor") && class.name.starts_with("_rebuild")
    })
}

/// Finds the state dict in what was saved and reads its tensors.
pub(super) fn state_dict(root: Value<'_>, rebuild: &mut Rebuild<'_>) -> Result<Found, String> {
    let dict = (SECTIONS.iter())
        .filter_map(|section| root.get(section))
        .chain([root])
        .find(|value| holds_tensors(*value))
        .ok_or_else(|| no_state_dict(root))?;
    let mut found = Found::default();
    for (key, value) in dict.entries().into_iter().flatten() {
        let name = key
            .as_str()
            .ok_or_else(|| format!("{} is a key of its state dict", key.sort()))?;
        rebuild.name(name)?;
        if is_tensor(value) {
            let entry =
                (rebuild.tensor(value)).map_err(|reason| format!("tensor `{name}`: {reason}"))?;
            found.add(name.to_owned(), entry)?;
        } else {
            found.skipped.push(name.to_owned());
        }
    }
    Ok(found)
}

fn holds_tensors(value: Value<'_>) -> bool {
    (value.entries()).is_some_and(|mut entries| entries.any(|(_, value)| is_tensor(value)))
}

/// Why `root` has no state dict, with what it is instead.
fn no_state_dict(root: Value<'_>) -> String {
    const SHOWN: usize = 8;
    let what = match (root.class(), root.entries()) {
        (Some(class), Some(entries)) if entries.len() == 0 => {
            format!("it holds an object of `{class}`")
        }
        (_, Some(entries)) => {
            let mut keys: Vec<String> = entries
                .take(SHOWN + 1)
                .map(|(key, _)| {
                    key.as_str()
                        .map_or(key.sort().to_owned(), |k| format!("`{k}`"))
                })
                .collect();
            if keys.len() > SHOWN {
                keys[SHOWN] = "…".to_owned();
            }
            format!("it holds a dict of {}", keys.join(", "))
        }
        (_, None) => format!("it holds {}", root.sort()),
    };
    format!(
        "{what}, no state dict\n\
         hint: save `model.state_dict()`, alone or under `state_dict`"
    )
}

fn arguments(value: Value<'_>) -> Option<Vec<Value<'_>>> {
    Some(value.object()?.args.items()?.collect())
}

/// The members of a tuple or list of lengths, or of a `torch.Size`.
fn lengths(value: Value<'_>) -> Option<Vec<usize>> {
    let value = match value.object() {
        Some(object) => {
            let class = object.class.global()?;
            let mut args = object.args.items()?;
            let inner = args.next().filter(|_| class.name == "Size")?;
            args.next().is_none().then_some(inner)?
        }
        None => value,
    };
    let items = value.items().filter(|items| items.len() <= 2 * MAX_RANK)?;
    items.map(Value::as_int).collect()
}

/// Refuses tensors whose elements are to be conjugated or negated when read.
fn no_bits(bits: Value<'_>) -> Result<(), String> {
    let set = (bits.entries())
        .is_some_and(|mut entries| entries.any(|(_, bit)| bit.as_bool() == Some(true)));
    if set {
        return Err("its elements are stored conjugated or negated".to_owned());
    }
    Ok(())
}

/// Bytes of one element; every type below has whole ones.
fn width(dtype: Dtype) -> usize {
    dtype.bitsize() / 8
}

/// The element type of a storage class.
fn storage_dtype(class: Global<'_>) -> Option<Dtype> {
    if !matches!(class.module, "torch" | "torch.cuda" | "torch.storage") {
        return None;
    }
    Some(match class.name {
        "DoubleStorage" => Dtype::F64,
        "FloatStorage" => Dtype::F32,
        "HalfStorage" => Dtype::F16,
        "BFloat16Storage" => Dtype::BF16,
        "LongStorage" => Dtype::I64,
        "IntStorage" => Dtype::I32,
        "ShortStorage" => Dtype::I16,
        "CharStorage" => Dtype::I8,
        "ByteStorage" | "UntypedStorage" => Dtype::U8,
        "BoolStorage" => Dtype::BOOL,
        "ComplexFloatStorage" => Dtype::C64,
        _ => return None,
    })
}

/// An element type by name, for tensors on untyped storages.
fn tensor_dtype(value: Value<'_>) -> Result<Dtype, String> {
    let class = value.global().ok_or("its element type has no name")?;
    Ok(match (class.module, class.name) {
        ("torch", "float64" | "double") => Dtype::F64,
        ("torch", "float32" | "float") => Dtype::F32,
        ("torch", "float16" | "half") => Dtype::F16,
        ("torch", "bfloat16") => Dtype::BF16,
        ("torch", "int64" | "long") => Dtype::I64,
        ("torch", "int32" | "int") => Dtype::I32,
        ("torch", "int16" | "short") => Dtype::I16,
        ("torch", "int8") => Dtype::I8,
        ("torch", "uint8") => Dtype::U8,
        ("torch", "uint16") => Dtype::U16,
        ("torch", "uint32") => Dtype::U32,
        ("torch", "uint64") => Dtype::U64,
        ("torch", "bool") => Dtype::BOOL,
        ("torch", "float8_e4m3fn") => Dtype::F8_E4M3,
        ("torch", "float8_e5m2") => Dtype::F8_E5M2,
        ("torch", "float8_e8m0fnu") => Dtype::F8_E8M0,
        ("torch", "float8_e4m3fnuz") => Dtype::F8_E4M3FNUZ,
        ("torch", "float8_e5m2fnuz") => Dtype::F8_E5M2FNUZ,
        ("torch", "complex64") => Dtype::C64,
        _ => return Err(format!("elements of `{class}` are not read")),
    })
}
