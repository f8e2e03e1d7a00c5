//! TOML values for people: described, as numbers, as JSON.

use std::sync::Arc;

use serde_json::Value;
use toml::{Spanned, de::DeValue};

use crate::diagnostic::{Diagnostic, Place, SourceText};

/// `value` in words that fit "but this is …".
pub(crate) fn describe(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a point",
        DeValue::Boolean(_) => "`true` or `false`",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// A whole number that fits 64 bits.
pub(crate) fn as_int(value: &DeValue<'_>) -> Option<i64> {
    let int = value.as_integer()?;
    i64::from_str_radix(int.as_str(), int.radix()).ok()
}

/// A finite or infinite number, whole or not.
pub(crate) fn as_float(value: &DeValue<'_>) -> Option<f64> {
    match value {
        DeValue::Float(float) => float.as_str().parse().ok(),
        other => as_int(other).map(|x| x as f64),
    }
}

/// A value as JSON; dates as their text, a number that JSON lacks as `null`.
pub(crate) fn as_json(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::from(text.as_ref()),
        DeValue::Integer(_) => as_int(value).map_or(Value::Null, Value::from),
        DeValue::Float(_) => as_float(value).map_or(Value::Null, Value::from),
        DeValue::Boolean(yes) => Value::from(*yes),
        DeValue::Datetime(date) => Value::from(date.to_string()),
        DeValue::Array(list) => list.iter().map(|item| as_json(item.get_ref())).collect(),
        DeValue::Table(table) => table
            .iter()
            .map(|(key, value)| (key.get_ref().to_string(), as_json(value.get_ref())))
            .collect::<serde_json::Map<_, _>>()
            .into(),
    }
}

/// Tells that `field` is of the wrong type.
pub(crate) fn wrong(
    field: &str,
    takes: &str,
    source: &Arc<SourceText>,
    value: &Spanned<DeValue<'_>>,
) -> Diagnostic {
    let is = match value.get_ref() {
        DeValue::Integer(_) | DeValue::Float(_) => format!("`{}`", as_json(value.get_ref())),
        other => describe(other).to_owned(),
    };
    let place = Place::new(source, value.span());
    Diagnostic::at(place, format!("`{field}` takes {takes}, but this is {is}"))
        .label(format!("not {takes}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_their_type_in_json() {
        let value = DeValue::parse("{a = [1, 0.5, true, 'x', 0x10], b = 1e3}").unwrap();
        assert_eq!(
            as_json(value.get_ref()),
            serde_json::json!({"a": [1, 0.5, true, "x", 16], "b": 1000.0})
        );
    }
}
