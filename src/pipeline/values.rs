//! TOML values as this room needs them: described, as points, as JSON.

use serde_json::Value;
use toml::de::DeValue;

use super::graph::Point;

/// `value` in words that fit "but this is …".
pub(super) fn describe(value: &DeValue<'_>) -> &'static str {
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
pub(super) fn as_int(value: &DeValue<'_>) -> Option<i64> {
    let int = value.as_integer()?;
    i64::from_str_radix(int.as_str(), int.radix()).ok()
}

/// A finite or infinite number, whole or not.
pub(super) fn as_float(value: &DeValue<'_>) -> Option<f64> {
    match value {
        DeValue::Float(float) => float.as_str().parse().ok(),
        other => as_int(other).map(|x| x as f64),
    }
}

/// A scalar as a point on an axis.
pub(super) fn as_point(value: &DeValue<'_>) -> Option<Point> {
    Some(match value {
        DeValue::String(text) => Point::Text(text.as_ref().to_owned()),
        DeValue::Integer(_) => Point::Int(as_int(value)?),
        DeValue::Float(_) => Point::Float(as_float(value)?),
        DeValue::Boolean(yes) => Point::Bool(*yes),
        _ => return None,
    })
}

/// A value as JSON; dates as their text, a number that JSON lacks as `null`.
pub(super) fn as_json(value: &DeValue<'_>) -> Value {
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

/// Whether `text`, written behind an `@`, means `point`: numbers count by value.
pub(super) fn means(text: &str, point: &Point) -> bool {
    match point {
        Point::Int(x) => text.parse() == Ok(*x) || text.parse() == Ok(*x as f64),
        Point::Float(x) => text.parse() == Ok(*x),
        Point::Text(x) => text == x,
        Point::Bool(x) => text.parse() == Ok(*x),
    }
}

/// A point as it is written in the id of an instance: quoted where the text
/// could be taken for something else.
pub(super) fn written(point: &Point) -> String {
    match point {
        Point::Text(text)
            if text.is_empty()
                || text.contains(|c: char| ",=@\"'".contains(c) || c.is_whitespace()) =>
        {
            format!("{text:?}")
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_behind_an_at_count_by_value() {
        assert!(means("0.50", &Point::Float(0.5)));
        assert!(means("1", &Point::Float(1.0)));
        assert!(means("1.0", &Point::Int(1)));
        assert!(means("true", &Point::Bool(true)));
        assert!(means("1", &Point::Text("1".into())));
        assert!(!means("1.0", &Point::Text("1".into())));
        assert!(!means("x", &Point::Int(0)));
    }

    #[test]
    fn values_keep_their_type_in_json() {
        let value = DeValue::parse("{a = [1, 0.5, true, 'x', 0x10], b = 1e3}").unwrap();
        assert_eq!(
            as_json(value.get_ref()),
            serde_json::json!({"a": [1, 0.5, true, "x", 16], "b": 1000.0})
        );
    }
}
