//! TOML values as this room needs them: as points, and points as text.

use toml::de::DeValue;

use super::graph::Point;
pub(super) use crate::reading::values::{as_float, as_int, as_json, describe};

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
}
