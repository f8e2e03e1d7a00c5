//! Pickles: a tree no larger than its bytes, the same however often it is read.

use runner::pickle::{Limits, Pickle, Value, numpy::Array};

/// The most values that one instruction makes; each takes a byte at least.
const OF_ONE: usize = 4;

/// The bytes begin with a pickle.
pub fn check(bytes: &[u8]) -> bool {
    let (pickle, len) = match Pickle::read_prefix(bytes, Limits::default()) {
        Ok(read) => read,
        Err(error) => {
            assert!(error.offset <= bytes.len());
            assert!(Pickle::read(bytes, Limits::default()).is_err());
            return false;
        }
    };
    assert!(len <= bytes.len());
    assert_eq!(
        Pickle::read(bytes, Limits::default()).is_ok(),
        len == bytes.len()
    );
    let again = Pickle::read(&bytes[..len], Limits::default()).unwrap();
    let values = pickle.values().count();
    assert!(values <= OF_ONE * len, "{values} values of {len} bytes");
    assert_eq!(again.root().position(), pickle.root().position());
    assert!(pickle.root().position() < values);

    let (mut parts, mut texts) = (0, 0);
    for (value, other) in pickle.values().zip(again.values()) {
        assert_eq!(format!("{value:?}"), format!("{other:?}"));
        parts += walked(value, values);
        texts += value.as_str().map_or(0, str::len);
        if let Ok(array) = Array::read(value) {
            let elements: usize = array.shape.iter().product();
            assert!(array.bytes.len() <= 2 * len);
            assert!(elements == 0 || array.bytes.len().is_multiple_of(elements));
        }
    }
    assert!(parts <= OF_ONE * len, "{parts} parts of {len} bytes");
    assert!(texts <= 2 * len, "texts of {texts} bytes");
    // One value too few is refused.
    let limits = |values| Limits {
        values,
        ..Limits::default()
    };
    assert!(Pickle::read_prefix(bytes, limits(values - 1)).is_err());
    true
}

/// How many parts a value has, all of them among the `values`.
fn walked(value: Value<'_>, values: usize) -> usize {
    let mut parts = 0;
    let mut visit = |part: Value<'_>| {
        assert!(part.position() < values);
        parts += 1;
    };
    value.items().into_iter().flatten().for_each(&mut visit);
    for (key, value) in value.entries().into_iter().flatten() {
        visit(key);
        visit(value);
    }
    value.persistent().into_iter().for_each(&mut visit);
    if let Some(object) = value.object() {
        visit(object.class);
        visit(object.args);
        object.kwargs.into_iter().for_each(&mut visit);
        object.state.into_iter().for_each(&mut visit);
    }
    let _ = (value.as_bool(), value.as_float(), value.as_int::<i64>());
    let _ = (value.global(), value.class(), value.to_bytes());
    let _ = value.get("state_dict").map(Value::sort);
    parts
}
