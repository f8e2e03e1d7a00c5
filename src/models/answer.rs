//! What a language model was asked for and what it wrote: one JSON object of attributes.
//!
//! A valid answer is one object with exactly the keys `feature1` to `featureN`
//! and non-empty texts as values. Values are returned as written.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, Visitor},
};

/// Longer answers, in bytes, are not looked at.
const LONGEST: usize = 1 << 20;
/// In a text around an object, this many opening braces are tried.
const MOST_STARTS: usize = 16;

/// An answer's attributes, in the order of their keys' numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The whole answer is the object.
    Valid(Vec<String>),
    /// The object stood in a Markdown fence or among other text.
    Repaired(Vec<String>),
    /// There is no such object; the reason, as a fragment.
    Invalid(String),
}

impl Parsed {
    /// The attributes, if there are any.
    pub fn attributes(&self) -> Option<&[String]> {
        match self {
            Self::Valid(attributes) | Self::Repaired(attributes) => Some(attributes),
            Self::Invalid(_) => None,
        }
    }
}

/// What is odd about an attribute that is used all the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// It has more than the three words asked for.
    pub over_three_words: bool,
    /// It looks like the name of an attribute, such as `fur_color`.
    pub name_like: bool,
    /// It is one of the keys, such as `feature2`.
    pub field_name: bool,
}

/// Parses an answer that should hold `count` attributes.
pub fn parse(text: &str, count: usize) -> Parsed {
    if text.len() > LONGEST {
        return Parsed::Invalid(format!("longer than {LONGEST} bytes"));
    }
    let text = text.trim();
    if text.is_empty() {
        return Parsed::Invalid("empty".to_owned());
    }
    match serde_json::from_str::<Object>(text) {
        Ok(object) => match object.attributes(count) {
            Ok(attributes) => Parsed::Valid(attributes),
            Err(reason) => Parsed::Invalid(reason),
        },
        Err(error) => within(text, count, &error),
    }
}

/// The odd things about one attribute.
pub fn flags(attribute: &str) -> Flags {
    let words: Vec<&str> = attribute.split_whitespace().collect();
    Flags {
        over_three_words: words.len() > 3,
        name_like: words.len() == 1 && is_identifier(words[0]),
        field_name: words.len() == 1 && is_key(&words[0].to_lowercase()),
    }
}

/// Whether a word is several joined by underscores or by capitals.
fn is_identifier(word: &str) -> bool {
    let parts: Vec<&str> = word.split('_').collect();
    let snake = parts.len() > 1 && parts.iter().all(|part| !part.is_empty());
    let camel = word.chars().next().is_some_and(char::is_lowercase)
        && word.chars().any(char::is_uppercase)
        && word.chars().all(char::is_alphanumeric);
    snake || camel
}

fn is_key(word: &str) -> bool {
    word.strip_prefix("feature")
        .is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

/// Looks for the one object within other text.
fn within(text: &str, count: usize, whole: &serde_json::Error) -> Parsed {
    let mut found = None;
    let mut reason = None;
    let mut from = 0;
    for _ in 0..MOST_STARTS {
        let Some(start) = text[from..].find('{').map(|at| from + at) else {
            break;
        };
        let mut values = serde_json::Deserializer::from_str(&text[start..]).into_iter::<Object>();
        match values.next() {
            Some(Ok(object)) => {
                if found.is_some() {
                    return Parsed::Invalid("more than one JSON object".to_owned());
                }
                from = start + values.byte_offset().max(1);
                found = Some(object);
            }
            Some(Err(error)) => {
                reason.get_or_insert_with(|| not_json(&error));
                from = start + 1;
            }
            None => break,
        }
    }
    match found.map(|object| object.attributes(count)) {
        Some(Ok(attributes)) => Parsed::Repaired(attributes),
        Some(Err(reason)) => Parsed::Invalid(reason),
        None => Parsed::Invalid(reason.unwrap_or_else(|| not_json(whole))),
    }
}

fn not_json(error: &serde_json::Error) -> String {
    if error.is_eof() {
        "the JSON is not finished".to_owned()
    } else {
        format!("not one JSON object: {error}")
    }
}

/// An object as a list, so that a repeated key is seen.
struct Object(Vec<(String, serde_json::Value)>);

impl Object {
    fn attributes(self, count: usize) -> Result<Vec<String>, String> {
        let mut fields = BTreeMap::new();
        for (key, value) in self.0 {
            if fields.contains_key(&key) {
                return Err(format!("key `{key}` twice"));
            }
            fields.insert(key, value);
        }
        let mut attributes = Vec::with_capacity(count.min(fields.len()));
        for number in 1..=count {
            let key = format!("feature{number}");
            match fields.remove(&key) {
                None => return Err(format!("no key `{key}`")),
                Some(serde_json::Value::String(text)) if !text.trim().is_empty() => {
                    attributes.push(text);
                }
                Some(serde_json::Value::String(_)) => return Err(format!("`{key}` is empty")),
                Some(_) => return Err(format!("`{key}` is not a text")),
            }
        }
        match fields.keys().next() {
            Some(key) => Err(format!("unexpected key `{key}`")),
            None => Ok(attributes),
        }
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Object;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                    if pairs.len() > 10_000 {
                        return Err(de::Error::custom("too many keys"));
                    }
                }
                Ok(Object(pairs))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn three() -> Vec<String> {
        ["red", "two wings", "Long Tail"].map(str::to_owned).into()
    }

    #[test]
    fn a_bare_object_is_valid_and_its_values_are_kept_as_written() {
        let text = "\n {\"feature2\": \"two wings\", \"feature1\": \"red\", \"feature3\": \"Long Tail\"} \n";
        assert_eq!(parse(text, 3), Parsed::Valid(three()));
    }

    #[test]
    fn an_object_among_other_text_is_repaired() {
        let object = r#"{"feature1": "red", "feature2": "two wings", "feature3": "Long Tail"}"#;
        for text in [
            format!("```json\n{object}\n```"),
            format!("Sure! Here is the JSON: {object}"),
            format!("{object}\nI hope {{this}} helps."),
            format!("{object}."),
        ] {
            assert_eq!(parse(&text, 3), Parsed::Repaired(three()), "{text}");
        }
    }

    #[test]
    fn every_other_answer_is_invalid_with_its_reason() {
        let reason = |text: &str| match parse(text, 2) {
            Parsed::Invalid(reason) => reason,
            parsed => panic!("{text} gave {parsed:?}"),
        };
        for (text, expected) in [
            ("", "empty"),
            (r#"{"feature1": "a"}"#, "no key `feature2`"),
            (
                r#"{"feature1": "a", "feature2": "b", "feature3": "c"}"#,
                "unexpected key `feature3`",
            ),
            (
                r#"{"feature1": "a", "feature1": "b", "feature2": "c"}"#,
                "key `feature1` twice",
            ),
            (
                r#"{"feature1": "a", "feature2": " "}"#,
                "`feature2` is empty",
            ),
            (
                r#"{"feature1": "a", "feature2": ["b"]}"#,
                "`feature2` is not a text",
            ),
            (
                r#"{"feature1": "a", "feature2": "b""#,
                "the JSON is not finished",
            ),
            (
                r#"{"feature1": "a", "feature2": "b"} {"feature1": "a", "feature2": "b"}"#,
                "more than one JSON object",
            ),
        ] {
            assert_eq!(reason(text), expected, "{text}");
        }
        assert!(reason("{'feature1': 'a', 'feature2': 'b'}").starts_with("not one JSON object"));
        assert!(reason("red, round").starts_with("not one JSON object"));
        assert!(reason(&"[".repeat(100_000)).starts_with("not one JSON object"));
        assert!(reason(&"{\"a\":".repeat(100_000)).starts_with("not one JSON object"));
    }

    #[test]
    fn odd_attributes_are_flagged() {
        assert_eq!(flags("red"), Flags::default());
        assert_eq!(flags("tail-finned"), Flags::default());
        assert!(flags("a long red tail").over_three_words);
        assert!(flags("fur_color").name_like && flags("furColor").name_like);
        assert!(!flags("Boeing").name_like && !flags("long tail").name_like);
        assert!(flags("Feature2").field_name && !flags("features").field_name);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC*", count in 0usize..12) {
            parse(&text, count);
            flags(&text);
        }

        #[test]
        fn no_mutilated_object_makes_it_panic(
            cut in 0usize..80, put in "[\\{\\}\\[\\]\",:\\\\ é`]{0,6}", count in 0usize..5
        ) {
            let text = r#"{"feature1": "red", "feature2": "a é b", "feature3": "c"}"#;
            let cut = (0..=cut.min(text.len())).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
            parse(&format!("{}{put}{}", &text[..cut], &text[cut..]), count);
        }
    }
}
