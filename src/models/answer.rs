//! What a language model was asked for and what it wrote: one JSON object of attributes.
//!
//! A valid answer is one object with exactly the keys `feature1` to `featureN`
//! and non-empty texts as values. Values are returned as written; [`Cleaning`] has
//! rules that change or drop some.

mod cleaning;

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, Visitor},
};

pub use cleaning::{Cleaned, Cleaning, clean};

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
#[expect(clippy::struct_excessive_bools)] // Any of them may be so.
pub struct Flags {
    /// It has more than the three words asked for.
    pub over_three_words: bool,
    /// It looks like the name of an attribute, such as `fur_color` or `beak shape`.
    pub name_like: bool,
    /// It is one of the keys, such as `feature2`.
    pub field_name: bool,
    /// A name and a colon stand before the value, as in `wing_span: large`.
    pub labelled: bool,
}

/// Nouns for what an attribute is about: as the last word they ask for a value
/// rather than give one.
const NAMES: &str = "\
    appearance attribute attributes characteristic color coloration colors colour \
    colouration colours count feature features height length material materials number \
    orientation pattern patterns position proportions shape shapes size sizes span style \
    texture textures thickness type weight width wingspan";

/// Words that are values themselves: `oval shape` and `red color` say something.
const VALUES: &str = "\
    angular beige big black blocky blue boxy bright broad bronze brown bulky bumpy bushy \
    circular coarse compact conical cream cubic curly curvy cylindrical dark dense double \
    eight elliptical enormous even five flat fluffy four furry fuzzy giant glossy gold \
    golden grainy gray green grey hairy hard heavy hexagonal huge irregular large leafy \
    light little long low many massive matte medium metallic multiple narrow orange oval \
    pale pink plain pointy purple rectangular red rigid rough round scaly several sharp \
    shiny short silky silver single six sleek slender slim small smooth soft spherical spiky \
    square sticky straight symmetrical tall tan tapering thick thin three tiny transparent \
    triangular tubular two uneven uniform violet waxy white wide wooden yellow";

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
///
/// `name_like` is a guess: of the 39 attributes printed in the study it marks the
/// 13 that are names and no others. It looks at the form of the word (`fur_color`)
/// and at the last one (`beak shape`), unless a word before it is a value.
pub fn flags(attribute: &str) -> Flags {
    let label = label_of(attribute);
    Flags {
        over_three_words: attribute.split_whitespace().count() > 3,
        name_like: is_name(attribute),
        field_name: is_key(label.map_or(attribute, |(label, _)| label)),
        labelled: label.is_some(),
    }
}

/// What stands before and after a colon, if that may be a name and its value.
fn label_of(text: &str) -> Option<(&str, &str)> {
    let (label, value) = text.split_once(':')?;
    let words = label.split_whitespace().count();
    let apart = value.starts_with(char::is_whitespace) && !value.trim().is_empty();
    (apart && (1..=3).contains(&words)).then(|| (label.trim(), value.trim()))
}

/// Whether a text names an attribute and gives no value.
fn is_name(text: &str) -> bool {
    let words = words_of(text);
    let Some((last, before)) = words.split_last() else {
        return false;
    };
    let value = |word: &String| is_among(VALUES, word) || (word.len() > 4 && word.ends_with("ed"));
    if before.iter().any(value) {
        return false;
    }
    let one = text.split_whitespace().count() == 1;
    is_among(NAMES, last) || (one && is_identifier(text.trim()))
}

fn is_among(list: &str, word: &str) -> bool {
    list.split_whitespace().any(|listed| listed == word)
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

/// The words in small letters, those of identifiers apart, without other signs.
fn words_of(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut small = false;
    for c in text.chars() {
        let capital_within = small && c.is_uppercase();
        small = c.is_lowercase();
        if !c.is_alphanumeric() || capital_within {
            words.push(String::new());
        }
        if let (Some(word), true) = (words.last_mut(), c.is_alphanumeric()) {
            word.extend(c.to_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Whether a text is one of the keys, however it is written: `Feature 2`, `feature_2`.
fn is_key(text: &str) -> bool {
    let number = match &words_of(text)[..] {
        [word] => word.strip_prefix("feature").map(str::to_owned),
        [word, number] if word == "feature" => Some(number.clone()),
        _ => None,
    };
    number.is_some_and(|number| {
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    })
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
        assert!(flags("feature_2").field_name && flags("Feature 2").field_name);
        assert!(flags("feature1: red").field_name && flags("wing_span: large").labelled);
        assert!(!flags("ratio 3:1").labelled && !flags("red:").labelled);
    }

    #[test]
    fn names_in_the_study_are_told_from_values() {
        for name in [
            "beak shape",
            "tail length",
            "feather color",
            "fur_color",
            "whiskers_length",
            "ear_shape",
            "tail_curl",
            "eye_shape",
            "coat_color",
            "mane_length",
            "paint color",
            "headlight shape",
            "color",
            "Body Shape",
            "bodyShape",
            "Color.",
            "wing-span",
        ] {
            assert!(flags(name).name_like, "{name}");
        }
        for value in [
            "long",
            "tail-finned",
            "fuselage-long",
            "four-door",
            "sporty design",
            "four wheels",
            "long tail",
            "large ears",
            "spotted coat",
            "webbed feet",
            "large eyes",
            "long tongue",
            "long_ears",
            "horizontal stripes",
            "square sails",
            "white deck",
            "rectangular shape",
            "two wings",
            "landing gear",
            "pressurized cabin",
            "red",
            "spherical",
            "glossy",
            "Red color",
            "Oval shape",
            "Pippy surface",
            "striped pattern",
            "",
            "...",
        ] {
            assert!(!flags(value).name_like, "{value}");
        }
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
