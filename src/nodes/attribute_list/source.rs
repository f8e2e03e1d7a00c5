//! Lists as they are written: a table of the pipeline, or TOML or JSON in a text.

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

/// Names with their values, in the order in which they are written.
pub(super) type Table = Vec<(String, Entry)>;

/// Attributes before they are understood.
#[derive(Debug)]
pub(super) enum Source {
    /// Written in the pipeline.
    Table(Table),
    /// TOML or JSON.
    Text(String),
}

/// A value of TOML or JSON, as far as it matters here.
#[derive(Debug)]
pub(super) enum Entry {
    /// A string.
    Text(String),
    /// A list of anything.
    List(Vec<Entry>),
    /// A table, an object.
    Table(Table),
    /// A number, a truth value, nothing.
    Other,
}

/// Reads a text: JSON if it opens an object, else TOML.
///
/// # Errors
/// What is wrong, and in which line.
pub(super) fn parse(text: &str) -> Result<Table, String> {
    let found = if text.trim_start().starts_with('{') {
        serde_json::from_str(text).map_err(|error| format!("this is not valid JSON: {error}"))?
    } else {
        toml::from_str(text).map_err(|error: toml::de::Error| {
            let before = error.span().and_then(|span| text.get(..span.start));
            let line = before.unwrap_or_default().matches('\n').count() + 1;
            let reason = error.message().trim().replace('\n', ", ");
            format!("line {line} is not valid TOML: {reason}")
        })?
    };
    match found {
        Entry::Table(table) => Ok(table),
        _ => Err("this is no table".to_owned()),
    }
}

/// Reads a table; TOML refuses a name that occurs twice by itself, JSON does not.
fn table<'de, A: de::MapAccess<'de>>(mut map: A) -> Result<Table, A::Error> {
    let mut table = Table::new();
    while let Some((name, entry)) = map.next_entry::<String, Entry>()? {
        if table.iter().any(|(other, _)| *other == name) {
            return Err(de::Error::custom(format!("`{name}` occurs twice")));
        }
        table.push((name, entry));
    }
    Ok(table)
}

impl<'de> Deserialize<'de> for Source {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Source;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table of lists, or a text that holds one")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Source, E> {
                Ok(Source::Text(text.to_owned()))
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Source, A::Error> {
                table(map).map(Source::Table)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Entry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of texts")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Entry, E> {
                Ok(Entry::Text(text.to_owned()))
            }

            fn visit_bool<E>(self, _: bool) -> Result<Entry, E> {
                Ok(Entry::Other)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Entry, E> {
                Ok(Entry::Other)
            }

            fn visit_u64<E>(self, _: u64) -> Result<Entry, E> {
                Ok(Entry::Other)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Entry, E> {
                Ok(Entry::Other)
            }

            fn visit_unit<E>(self) -> Result<Entry, E> {
                Ok(Entry::Other)
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Entry, A::Error> {
                let mut list = Vec::new();
                while let Some(entry) = seq.next_element()? {
                    list.push(entry);
                }
                Ok(Entry::List(list))
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Entry, A::Error> {
                table(map).map(Entry::Table)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for Source {
    fn schema_name() -> Cow<'static, str> {
        "AttributeSource".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["object", "string"],
            "additionalProperties": {"type": "array", "items": {"type": "string"}},
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn toml_and_json_keep_their_order_and_ignore_what_is_not_text() {
        for text in [
            "b = ['x', 1]\n[a]\nday = 2025-03-01\nyes = true\nc = 1.5",
            " {\"b\": [\"x\", 1], \"a\": {\"day\": {}, \"yes\": true, \"c\": null}}",
        ] {
            let table = parse(text).unwrap();
            let [(b, Entry::List(list)), (a, Entry::Table(inner))] = table.as_slice() else {
                panic!("{table:?}");
            };
            assert_eq!((b.as_str(), a.as_str()), ("b", "a"));
            assert!(matches!(&list[..], [Entry::Text(x), Entry::Other] if x == "x"));
            let names: Vec<&str> = inner.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(names, ["day", "yes", "c"]);
        }
        assert!(parse("").unwrap().is_empty());
    }

    #[test]
    fn a_mistake_is_told_with_its_line() {
        let toml = parse("a = ['x']\n\na = ['y']").unwrap_err();
        assert!(toml.starts_with("line 3 is not valid TOML: "), "{toml}");
        assert!(!toml.contains('\n'), "{toml}");
        let json = parse("{\"a\": [\"x\"],\n\"a\": []}").unwrap_err();
        assert_eq!(
            json,
            "this is not valid JSON: `a` occurs twice at line 2 column 8"
        );
    }
}
