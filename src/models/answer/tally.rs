//! Counts of what was wrong with the answers of a language model.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Parsed, flags};

/// What kind of fault makes an answer invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Nothing was written.
    Empty,
    /// The JSON breaks off.
    Unfinished,
    /// It is not JSON, or not an object.
    NotAnObject,
    /// Objects, more than one.
    SeveralObjects,
    /// A key is missing.
    MissingKey,
    /// A key is there that was not asked for.
    UnexpectedKey,
    /// A key is there twice.
    RepeatedKey,
    /// A value is no text.
    NotAText,
    /// A value is an empty text.
    EmptyText,
    /// It is too long to be looked at.
    TooLong,
}

impl Fault {
    /// The kind of a reason as [`super::parse`] gives it. Answers are stored with
    /// their reasons, so a tally can be made of them later.
    pub fn of(reason: &str) -> Self {
        let starts = |start| reason.starts_with(start);
        if reason == "empty" {
            Self::Empty
        } else if starts("longer than ") {
            Self::TooLong
        } else if starts("the JSON is not finished") {
            Self::Unfinished
        } else if starts("more than one ") {
            Self::SeveralObjects
        } else if starts("no key ") {
            Self::MissingKey
        } else if starts("unexpected key ") {
            Self::UnexpectedKey
        } else if starts("key ") {
            Self::RepeatedKey
        } else if starts("`feature") && reason.ends_with("is not a text") {
            Self::NotAText
        } else if starts("`feature") && reason.ends_with("is empty") {
            Self::EmptyText
        } else {
            Self::NotAnObject
        }
    }
}

/// Counts over the answers of one node.
///
/// An answer is asked again when it is invalid. Its first attempt tells how often
/// the model fails; attributes are counted in every answer that has any.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// First attempts.
    pub answers: usize,
    /// First attempts that are the object and nothing else.
    pub valid: usize,
    /// First attempts with the object in a fence or among other text.
    pub repaired: usize,
    /// First attempts without such an object, by kind of fault.
    pub invalid: BTreeMap<Fault, usize>,
    /// First attempts that were cut at the limit of tokens.
    pub truncated: usize,
    /// Attempts after the first.
    pub repeated: usize,
    /// Attributes of all answers.
    pub attributes: usize,
    /// Attributes of more than three words.
    pub over_three_words: usize,
    /// Attributes that look like a name without a value.
    pub name_like: usize,
    /// Attributes that are a key of the answer.
    pub field_names: usize,
    /// Attributes with a name and a colon before the value.
    pub labelled: usize,
    /// Attributes that the same class had before.
    pub duplicates: usize,
    #[serde(skip)]
    seen: BTreeSet<(usize, String)>,
}

impl Tally {
    /// Counts one attempt (from 0) at an answer for a class; `truncated` says
    /// whether it was cut at the limit of tokens.
    pub fn add(&mut self, class: usize, attempt: usize, parsed: &Parsed, truncated: bool) {
        if attempt == 0 {
            self.answers += 1;
            self.truncated += usize::from(truncated);
            match parsed {
                Parsed::Valid(_) => self.valid += 1,
                Parsed::Repaired(_) => self.repaired += 1,
                Parsed::Invalid(reason) => {
                    *self.invalid.entry(Fault::of(reason)).or_default() += 1;
                }
            }
        } else {
            self.repeated += 1;
        }
        for attribute in parsed.attributes().unwrap_or_default() {
            let flags = flags(attribute);
            self.attributes += 1;
            self.over_three_words += usize::from(flags.over_three_words);
            self.name_like += usize::from(flags.name_like);
            self.field_names += usize::from(flags.field_name);
            self.labelled += usize::from(flags.labelled);
            let first = self.seen.insert((class, attribute.clone()));
            self.duplicates += usize::from(!first);
        }
    }

    /// First attempts that are invalid.
    pub fn failures(&self) -> usize {
        self.invalid.values().sum()
    }

    /// The share of first attempts that are invalid; none without answers.
    pub fn failure_rate(&self) -> Option<f64> {
        rate(self.failures(), self.answers)
    }

    /// The share of first attempts that had to be repaired; none without answers.
    pub fn repair_rate(&self) -> Option<f64> {
        rate(self.repaired, self.answers)
    }

    /// A count of attributes, such as [`Tally::name_like`], as a share of all of
    /// them; none without attributes.
    pub fn attribute_rate(&self, count: usize) -> Option<f64> {
        rate(count, self.attributes)
    }
}

fn rate(part: usize, whole: usize) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

#[cfg(test)]
mod tests {
    use super::{super::parse, *};

    #[test]
    fn every_reason_has_its_kind() {
        let long = " ".repeat((1 << 20) + 1);
        for (text, fault) in [
            ("", Fault::Empty),
            (&long, Fault::TooLong),
            (r#"{"feature1": "a""#, Fault::Unfinished),
            ("red", Fault::NotAnObject),
            ("[]", Fault::NotAnObject),
            ("{'feature1': 'a'}", Fault::NotAnObject),
            (
                r#"{"feature1": "a"} {"feature1": "a"}"#,
                Fault::SeveralObjects,
            ),
            ("{}", Fault::MissingKey),
            (r#"{"feature1": "a", "b": ""}"#, Fault::UnexpectedKey),
            (r#"{"feature1": "a", "feature1": "b"}"#, Fault::RepeatedKey),
            (r#"{"feature1": 5}"#, Fault::NotAText),
            (r#"{"feature1": ""}"#, Fault::EmptyText),
        ] {
            let Parsed::Invalid(reason) = parse(text, 1) else {
                panic!("{text}");
            };
            assert_eq!(Fault::of(&reason), fault, "{text:.40}: {reason}");
        }
    }

    #[test]
    fn failures_are_counted_in_first_attempts_and_attributes_in_all() {
        let mut tally = Tally::default();
        assert_eq!(tally.failure_rate(), None);
        let of = |values: [&str; 2]| Parsed::Valid(values.map(str::to_owned).into());
        tally.add(0, 0, &of(["red", "fur_color"]), false);
        tally.add(0, 0, &Parsed::Invalid("empty".to_owned()), true);
        tally.add(0, 1, &Parsed::Invalid("empty".to_owned()), true);
        tally.add(0, 2, &of(["red", "a long red tail"]), false);
        tally.add(
            1,
            0,
            &Parsed::Repaired(vec!["red".to_owned(), "size: feature1".to_owned()]),
            false,
        );
        assert_eq!((tally.answers, tally.valid, tally.repaired), (3, 1, 1));
        assert_eq!(
            (tally.failures(), tally.truncated, tally.repeated),
            (1, 1, 2)
        );
        assert_eq!(tally.failure_rate(), Some(1.0 / 3.0));
        assert_eq!(tally.repair_rate(), Some(1.0 / 3.0));
        assert_eq!((tally.attributes, tally.duplicates), (6, 1));
        assert_eq!(
            (tally.name_like, tally.over_three_words, tally.labelled),
            (1, 1, 1)
        );
        assert_eq!(tally.attribute_rate(tally.name_like), Some(1.0 / 6.0));
        let text = serde_json::to_string(&tally).unwrap();
        assert!(text.contains(r#""invalid":{"empty":1}"#), "{text}");
        let back: Tally = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&back).unwrap(), text);
    }
}
