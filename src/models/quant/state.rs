//! What bitsandbytes notes beside a 4-bit weight: JSON in a tensor of bytes.

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value};

use super::{
    Round,
    nf4::check_blocksize,
    raw::{Take, need},
};

/// More text than this is not a state.
const MOST: usize = 4096;

/// The state of a 4-bit weight.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct State {
    /// Numbers that share a scale.
    pub blocksize: usize,
    /// The type of the numbers before.
    pub dtype: Round,
    /// [outs, ins].
    pub shape: [usize; 2],
    /// Of the scales, if they are quantised.
    pub nested: Option<NestedState>,
}

/// The state of quantised scales.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct NestedState {
    /// Scales that share a scale.
    pub blocksize: usize,
    /// Their mean.
    pub offset: f32,
}

impl State {
    /// Finds and reads the state of the weight `name`.
    pub(super) fn read(name: &str, take: &mut Take) -> Result<Self> {
        let [nf4, fp4] =
            ["nf4", "fp4"].map(|kind| format!("{name}.quant_state.bitsandbytes__{kind}"));
        let (key, kind, tensor) = match (take(&nf4)?, take(&fp4)?) {
            (Some(tensor), None) => (nf4, "nf4", tensor),
            (None, Some(tensor)) => (fp4, "fp4", tensor),
            (None, None) => (nf4.clone(), "nf4", need(take, &nf4)?),
            (Some(_), Some(_)) => bail!("tensors `{nf4}` and `{fp4}` exclude each other"),
        };
        let len = tensor.bytes.len();
        ensure!(
            len <= MOST,
            "tensor `{key}`: {len} bytes are too many for a state"
        );
        tensor.expect(&key, "U8", &[len])?;
        Self::parse(&tensor.bytes, kind).with_context(|| format!("tensor `{key}`"))
    }

    fn parse(bytes: &[u8], kind: &str) -> Result<Self> {
        let mut fields: Map<String, Value> =
            serde_json::from_slice(bytes).context("the state is not a JSON object")?;
        let mut field = |name: &str| fields.shift_remove(name).unwrap_or(Value::Null);

        let quant_type = field("quant_type");
        ensure!(
            quant_type == kind,
            "`quant_type` is {quant_type}, but the tensor's name says {kind}"
        );
        let blocksize = size(&field("blocksize"), "blocksize")?;
        let dtype = field("dtype");
        let Some(dtype) = dtype.as_str().and_then(Round::parse) else {
            bail!("`dtype` is {dtype}, not float32, bfloat16 or float16");
        };
        let shape = shape(&field("shape"))?;
        let nested = match field("nested_blocksize") {
            Value::Null => None,
            value => Some(NestedState {
                blocksize: size(&value, "nested_blocksize")?,
                offset: offset(&field("nested_offset"))?,
            }),
        };
        let dtype_of_scales = field("nested_dtype");
        ensure!(
            dtype_of_scales.is_null() || dtype_of_scales == "float32",
            "`nested_dtype` is {dtype_of_scales}, not float32"
        );
        if let Some((name, _)) = fields.iter().next() {
            bail!("field `{name}` is not understood");
        }
        Ok(Self {
            blocksize,
            dtype,
            shape,
            nested,
        })
    }
}

fn size(value: &Value, field: &str) -> Result<usize> {
    let size = value.as_u64().and_then(|size| usize::try_from(size).ok());
    let size = size.with_context(|| format!("`{field}` is {value}, not a size"))?;
    check_blocksize(size).with_context(|| format!("`{field}`"))?;
    Ok(size)
}

fn shape(value: &Value) -> Result<[usize; 2]> {
    let dims = value.as_array().map(|dims| {
        (dims.iter())
            .map(|dim| dim.as_u64().and_then(|dim| usize::try_from(dim).ok()))
            .collect::<Option<Vec<usize>>>()
    });
    let dims = dims.flatten().and_then(|dims| dims.try_into().ok());
    dims.with_context(|| format!("`shape` is {value}, not two sizes"))
}

fn offset(value: &Value) -> Result<f32> {
    let offset = value.as_f64().map(|offset| offset as f32);
    (offset.filter(|offset| offset.is_finite()))
        .with_context(|| format!("`nested_offset` is {value}, not a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [8, 24],
        "nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.25}"#;

    #[test]
    fn a_state_is_read() {
        let state = State::parse(GOOD.as_bytes(), "nf4").unwrap();
        assert_eq!(
            state,
            State {
                blocksize: 64,
                dtype: Round::Bf16,
                shape: [8, 24],
                nested: Some(NestedState {
                    blocksize: 256,
                    offset: 0.25
                }),
            }
        );
    }

    #[test]
    fn every_wrong_field_is_named() {
        for (from, to, says) in [
            ("\"nf4\"", "\"fp4\"", "`quant_type` is \"fp4\""),
            ("64", "63", "`blocksize`"),
            ("64", "-64", "`blocksize` is -64"),
            ("64", "1e300", "`blocksize` is 1e+300"),
            ("bfloat16", "float64", "`dtype` is \"float64\""),
            ("[8, 24]", "[192]", "`shape` is [192]"),
            ("[8, 24]", "[8, -24]", "`shape` is [8,-24]"),
            ("[8, 24]", "null", "`shape` is null"),
            ("256", "0", "`nested_blocksize`"),
            ("\"float32\"", "\"float16\"", "`nested_dtype`"),
            ("0.25", "1e300", "`nested_offset`"),
            ("0.25", "\"x\"", "`nested_offset`"),
            ("\"quant_type\"", "\"x\": 1, \"quant_type\"", "field `x`"),
            ("}", "", "not a JSON object"),
        ] {
            let text = GOOD.replacen(from, to, 1);
            let error = format!("{:#}", State::parse(text.as_bytes(), "nf4").unwrap_err());
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
