//! `NumPy` arrays inside pickles, as their bytes, shape and element type.

use std::borrow::Cow;

use super::Value;

/// The most dimensions of an array; `NumPy` allows 64.
const MAX_RANK: usize = 64;

/// An array as it was pickled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Array<'p> {
    /// The element type without byte order, such as `u1`, `i8` or `f4`.
    pub dtype: &'p str,
    /// The byte order: `<`, `>`, or `|` where an element is one byte.
    pub order: char,
    /// Dimensions.
    pub shape: Vec<usize>,
    /// Whether the first dimension varies fastest, not the last.
    pub fortran: bool,
    /// The elements; as many bytes as type and shape say.
    pub bytes: Cow<'p, [u8]>,
}

impl<'p> Array<'p> {
    /// Reads an array of numbers, written by any version of `NumPy`:
    /// `numpy.core.multiarray._reconstruct` with a state, or `_frombuffer` as
    /// protocol 5 has it, also under `numpy._core`.
    ///
    /// # Errors
    /// With a fragment, when `value` is no array, its elements are no plain
    /// numbers, or its bytes do not fit its shape.
    pub fn read(value: Value<'p>) -> Result<Self, String> {
        let not_array = || format!("{} is no NumPy array", value.sort());
        let class = value.class().ok_or_else(not_array)?;
        let object = value.object().ok_or_else(not_array)?;
        let (shape, dtype, fortran, bytes) = match (class.module, class.name) {
            ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct") => {
                let state = object.state.ok_or("an array has no state")?;
                let [_, shape, dtype, fortran, bytes] =
                    fixed(state).ok_or("an array's state does not have five parts")?;
                let fortran = flag(fortran).ok_or("an array's order is no flag")?;
                (shape, dtype, fortran, bytes)
            }
            ("numpy.core.numeric" | "numpy._core.numeric", "_frombuffer") => {
                let [bytes, dtype, shape, order] =
                    fixed(object.args).ok_or("an array is not made of four parts")?;
                let fortran = match order.as_str() {
                    Some("C") => false,
                    Some("F") => true,
                    _ => return Err("an array's order is neither C nor F".to_owned()),
                };
                (shape, dtype, fortran, bytes)
            }
            _ => return Err(format!("`{class}` is no NumPy array")),
        };
        let (dtype, order, width) = element(dtype)?;
        let shape = dimensions(shape).ok_or("an array's shape is no list of lengths")?;
        let bytes = bytes.to_bytes().ok_or("an array's elements are no bytes")?;
        let len = shape.iter().try_fold(width, |n, &d| n.checked_mul(d));
        if len != Some(bytes.len()) {
            return Err(format!(
                "an array of shape {shape:?} and type {dtype} does not fit its {} bytes",
                bytes.len()
            ));
        }
        Ok(Self {
            dtype,
            order,
            shape,
            fortran,
            bytes,
        })
    }
}

/// The members of a tuple of just this length.
fn fixed<const N: usize>(value: Value<'_>) -> Option<[Value<'_>; N]> {
    let items: Vec<Value<'_>> = value.items().filter(|items| items.len() == N)?.collect();
    items.try_into().ok()
}

/// A bool, which Python 2's `NumPy` wrote as a number.
fn flag(value: Value<'_>) -> Option<bool> {
    value.as_bool().or_else(|| match value.as_int::<u8>()? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    })
}

fn dimensions(shape: Value<'_>) -> Option<Vec<usize>> {
    let items = shape.items().filter(|items| items.len() <= MAX_RANK)?;
    items.map(Value::as_int).collect()
}

/// Name, byte order and width of a `numpy.dtype` of plain numbers.
fn element(dtype: Value<'_>) -> Result<(&str, char, usize), String> {
    let odd = || "an array's element type is no plain number".to_owned();
    let class = dtype.class().ok_or_else(odd)?;
    if (class.module, class.name) != ("numpy", "dtype") {
        return Err(odd());
    }
    let object = dtype.object().ok_or_else(odd)?;
    let mut args = object.args.items().ok_or_else(odd)?;
    let name = args.next().and_then(Value::as_str).ok_or_else(odd)?;
    let width = match name.strip_prefix(['b', 'i', 'u', 'f']) {
        Some("1") => 1,
        Some("2") => 2,
        Some("4") => 4,
        Some("8") => 8,
        _ => {
            return Err(format!(
                "an array's element type `{name}` is no plain number"
            ));
        }
    };
    // The state is (version, byte order, …); one without a state is native,
    // which is little-endian on every machine that such files come from.
    let order = match object
        .state
        .and_then(Value::items)
        .and_then(|mut s| s.nth(1))
    {
        None => "<",
        Some(order) => order.as_str().ok_or_else(odd)?,
    };
    match (order, width) {
        ("<" | ">" | "|" | "=", 1) => Ok((name, '|', width)),
        ("<" | "=", _) => Ok((name, '<', width)),
        (">", _) => Ok((name, '>', width)),
        _ => Err(format!("an array's byte order is `{order}`")),
    }
}
