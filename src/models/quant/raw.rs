//! Tensors of a file as bytes, and which of them belong together.

use anyhow::{Context, Result, bail, ensure};

use crate::models::weights::RawTensor;

/// What an accompanying tensor's name adds to that of its weight.
const PARTS: [&str; 6] = [
    ".absmax",
    ".quant_map",
    ".nested_absmax",
    ".nested_quant_map",
    ".quant_state.bitsandbytes__nf4",
    ".quant_state.bitsandbytes__fp4",
];

/// The weight that a tensor of this name accompanies, if the name says so.
///
/// `a.weight.absmax` belongs to `a.weight`, and so does `a.SCB`.
pub fn weight_of(tensor: &str) -> Option<String> {
    if let Some(weight) = PARTS.iter().find_map(|part| tensor.strip_suffix(part)) {
        return Some(weight.to_owned());
    }
    let module = (tensor.strip_suffix(".SCB")).or_else(|| tensor.strip_suffix(".weight_format"))?;
    Some(format!("{module}.weight"))
}

/// Asks for a tensor by name; `None` if there is none of that name.
pub(super) type Take<'a> = dyn FnMut(&str) -> Result<Option<RawTensor>> + 'a;

/// A tensor that must be there.
pub(super) fn need(take: &mut Take, name: &str) -> Result<RawTensor> {
    take(name)?.with_context(|| format!("tensor `{name}` is missing"))
}

impl RawTensor {
    /// Refuses another type than `dtype`, and another shape than `shape`.
    pub(super) fn expect(&self, name: &str, dtype: &str, shape: &[usize]) -> Result<()> {
        let (found, dims) = (&self.dtype, &self.shape);
        ensure!(
            *found == dtype,
            "tensor `{name}`: expected {dtype}, found {found}"
        );
        ensure!(
            *dims == shape,
            "tensor `{name}`: expected shape {shape:?}, found {dims:?}"
        );
        Ok(())
    }

    /// Bytes of which there must be `len`.
    pub(super) fn exactly(self, name: &str, len: usize) -> Result<Vec<u8>> {
        let found = self.bytes.len();
        ensure!(
            found == len,
            "tensor `{name}`: expected {len} bytes, found {found}"
        );
        Ok(self.bytes)
    }

    /// `len` finite numbers, stored as one dimension of F32.
    pub(super) fn numbers(self, name: &str, len: usize) -> Result<Vec<f32>> {
        self.expect(name, "F32", &[len])?;
        let bytes = self.exactly(name, len * 4)?;
        let numbers: Vec<f32> = (bytes.as_chunks::<4>().0.iter())
            .map(|&bytes| f32::from_le_bytes(bytes))
            .collect();
        if let Some(at) = numbers.iter().position(|x| !x.is_finite()) {
            bail!("tensor `{name}`: number {at} is not finite");
        }
        Ok(numbers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_assigned_to_their_weight() {
        assert_eq!(weight_of("a.weight.absmax").as_deref(), Some("a.weight"));
        assert_eq!(
            weight_of("a.weight.nested_absmax").as_deref(),
            Some("a.weight")
        );
        assert_eq!(
            weight_of("a.weight.quant_state.bitsandbytes__nf4").as_deref(),
            Some("a.weight")
        );
        assert_eq!(weight_of("a.SCB").as_deref(), Some("a.weight"));
        assert_eq!(weight_of("a.weight_format").as_deref(), Some("a.weight"));
        assert_eq!(weight_of("a.weight"), None);
        assert_eq!(weight_of("a.absmaxim"), None);
    }

    #[test]
    fn numbers_that_are_not_finite_are_named() {
        let mut bytes = 1f32.to_le_bytes().to_vec();
        bytes.extend(f32::NAN.to_le_bytes());
        let tensor = RawTensor {
            name: "x.absmax".to_owned(),
            dtype: "F32".to_owned(),
            shape: vec![2],
            bytes,
        };
        let error = tensor.numbers("x.absmax", 2).unwrap_err().to_string();
        assert_eq!(error, "tensor `x.absmax`: number 1 is not finite");
    }
}
