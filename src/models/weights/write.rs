//! Safetensors written the same way every time.

use std::{
    io::{BufWriter, Write},
    path::Path,
};

use fs_err::File;
use serde_json::{Map, Value, json};

use super::{RawTensor, WeightsError};

/// What is known of a tensor before its bytes are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// The tensor's name.
    pub name: String,
    /// The element type as safetensors spells it.
    pub dtype: String,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Bytes of one element.
    pub width: usize,
}

/// Writes `tensors` to a new file at `path`, asking `bytes` for one tensor at a
/// time; the file's bytes depend on nothing but the tensors.
///
/// The order is that of the `safetensors` crate, wide elements first and then
/// by name, which keeps every tensor aligned.
///
/// # Errors
/// When writing fails or `bytes` gives a tensor of another size.
pub fn write(
    path: &Path,
    mut tensors: Vec<Tensor>,
    mut bytes: impl FnMut(&Tensor) -> Result<RawTensor, WeightsError>,
) -> Result<(), WeightsError> {
    tensors.sort_by(|a, b| (b.width, &a.name).cmp(&(a.width, &b.name)));
    let mut table = Map::new();
    table.insert("__metadata__".to_owned(), json!({"format": "pt"}));
    let mut offset = 0;
    for tensor in &tensors {
        let end = offset + tensor.shape.iter().product::<usize>() * tensor.width;
        let info =
            json!({"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [offset, end]});
        table.insert(tensor.name.clone(), info);
        offset = end;
    }
    let mut header = Value::Object(table).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut file = BufWriter::new(File::create(path)?);
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(&header)?;
    for tensor in &tensors {
        let raw = bytes(tensor)?;
        let found = (&raw.dtype, &raw.shape);
        let len = tensor.shape.iter().product::<usize>() * tensor.width;
        if found != (&tensor.dtype, &tensor.shape) || raw.bytes.len() != len {
            return Err(WeightsError::Malformed {
                path: path.to_owned(),
                reason: format!("tensor `{}` changed while it was written", tensor.name),
            });
        }
        file.write_all(&raw.bytes)?;
    }
    file.into_inner()
        .map_err(std::io::IntoInnerError::into_error)?
        .sync_all()?;
    Ok(())
}
