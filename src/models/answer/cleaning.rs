//! Rules that change or drop attributes before they are used.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{flags, label_of};

/// Signs that are no part of an attribute at either of its ends.
const PUNCTUATION: &[char] = &[
    '.', ',', ';', ':', '!', '?', '…', '*', '•', '-', '–', '—', '"', '\'', '`', '´', '“', '”', '„',
    '‘', '’', '‚', '«', '»',
];

/// Rules for attributes, each off unless asked for.
///
/// The text is changed first, over and over until nothing changes, in the order
/// of the fields; then attributes are dropped. An attribute of which nothing is
/// left is always dropped. Cleaning twice is the same as cleaning once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[expect(clippy::struct_excessive_bools)] // Each is a rule of its own.
pub struct Cleaning {
    /// Keeps what follows a name and a colon: `wing span: large` becomes `large`.
    #[serde(skip_serializing_if = "is_off")]
    pub cut_labels: bool,
    /// Turns underscores into spaces: `long_ears` becomes `long ears`.
    #[serde(skip_serializing_if = "is_off")]
    pub underscores: bool,
    /// Removes quotes, dashes and punctuation at both ends: `"red."` becomes `red`.
    #[serde(skip_serializing_if = "is_off")]
    pub trim_punctuation: bool,
    /// One space between words, none at the ends.
    #[serde(skip_serializing_if = "is_off")]
    pub collapse_whitespace: bool,
    /// Small letters only.
    #[serde(skip_serializing_if = "is_off")]
    pub lowercase: bool,
    /// Drops attributes that are a key of the answer, such as `feature2`.
    #[serde(skip_serializing_if = "is_off")]
    pub drop_field_names: bool,
    /// Drops attributes that name something without a value: `fur_color`, `beak shape`.
    #[serde(skip_serializing_if = "is_off")]
    pub drop_names: bool,
    /// Drops attributes of more words; they are not cut, for the rest may mean
    /// something else.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_words: Option<usize>,
    /// Drops attributes that are the same as an earlier one of the list.
    #[serde(skip_serializing_if = "is_off")]
    pub drop_duplicates: bool,
}

/// Attributes after cleaning.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cleaned {
    /// What is left, in order; none is empty.
    pub kept: Vec<String>,
    /// What was dropped, as it was written, in order, and why, as a fragment.
    pub dropped: Vec<(String, String)>,
}

/// Applies the rules to a list of attributes, such as those of one answer.
pub fn clean(rules: &Cleaning, attributes: &[String]) -> Cleaned {
    let mut cleaned = Cleaned::default();
    let mut seen = BTreeSet::new();
    for written in attributes {
        let text = rules.text(written);
        let reason = rules.reason(written, &text).or_else(|| {
            let again = rules.drop_duplicates && !seen.insert(text.clone());
            again.then(|| "the same as an earlier one".to_owned())
        });
        match reason {
            Some(reason) => cleaned.dropped.push((written.clone(), reason)),
            None => cleaned.kept.push(text),
        }
    }
    cleaned
}

// The form that serde calls it in.
#[expect(clippy::trivially_copy_pass_by_ref)]
fn is_off(rule: &bool) -> bool {
    !*rule
}

impl Cleaning {
    /// The text after all changes.
    fn text(&self, written: &str) -> String {
        let mut text = written.to_owned();
        loop {
            // Ends: there are ever fewer labels, underscores, signs and capitals.
            let next = self.once(&text);
            if next == text {
                return text;
            }
            text = next;
        }
    }

    fn once(&self, text: &str) -> String {
        let mut text = match label_of(text) {
            Some((_, value)) if self.cut_labels => value.to_owned(),
            _ => text.to_owned(),
        };
        if self.underscores {
            text = text.replace('_', " ");
        }
        if self.trim_punctuation {
            let ends = |c: char| c.is_whitespace() || PUNCTUATION.contains(&c);
            text = text.trim_matches(ends).to_owned();
        }
        if self.collapse_whitespace {
            text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        }
        if self.lowercase {
            text = text.to_lowercase();
        }
        text
    }

    /// Why an attribute goes, by what was written and what became of it: changes
    /// must neither hide a name nor uncover one the next time.
    fn reason(&self, written: &str, text: &str) -> Option<String> {
        let flags = [flags(written), flags(text)];
        // A name before a value is cut off and does not count.
        let changed = self.cut_labels && flags[0].labelled;
        let flags = &flags[usize::from(changed)..];
        let words = text.split_whitespace().count();
        if words == 0 {
            Some("nothing is left".to_owned())
        } else if self.drop_field_names && flags.iter().any(|flags| flags.field_name) {
            Some("a key of the answer".to_owned())
        } else if self.drop_names && flags.iter().any(|flags| flags.name_like) {
            Some("a name without a value".to_owned())
        } else {
            (self.max_words.filter(|&most| words > most))
                .map(|most| format!("{words} words, more than {most}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all() -> Cleaning {
        Cleaning {
            cut_labels: true,
            underscores: true,
            trim_punctuation: true,
            collapse_whitespace: true,
            lowercase: true,
            drop_field_names: true,
            drop_names: true,
            max_words: Some(3),
            drop_duplicates: true,
        }
    }

    fn cleaned(rules: &Cleaning, list: &[&str]) -> Cleaned {
        let list: Vec<String> = list.iter().map(|&text| text.to_owned()).collect();
        clean(rules, &list)
    }

    #[test]
    fn without_rules_only_what_is_empty_goes() {
        let list = [
            "Red.",
            "fur_color",
            " two  wings",
            "feature1",
            "Red.",
            "a b c d",
            " ",
        ];
        let cleaned = cleaned(&Cleaning::default(), &list);
        assert_eq!(cleaned.kept, list[..6]);
        assert_eq!(
            cleaned.dropped,
            [(" ".to_owned(), "nothing is left".to_owned())]
        );
    }

    #[test]
    fn each_rule_does_one_thing() {
        let off = Cleaning::default;
        let changes = [
            (
                Cleaning {
                    cut_labels: true,
                    ..off()
                },
                "wing_span: very Large.",
                "very Large.",
            ),
            (
                Cleaning {
                    underscores: true,
                    ..off()
                },
                "Long_ears.",
                "Long ears.",
            ),
            (
                Cleaning {
                    trim_punctuation: true,
                    ..off()
                },
                "- “Tail-finned  one.”",
                "Tail-finned  one",
            ),
            (
                Cleaning {
                    collapse_whitespace: true,
                    ..off()
                },
                "  a\tB_  c. ",
                "a B_ c.",
            ),
            (
                Cleaning {
                    lowercase: true,
                    ..off()
                },
                "Red  Beak_",
                "red  beak_",
            ),
        ];
        for (rules, before, after) in changes {
            assert_eq!(cleaned(&rules, &[before]).kept, [after]);
        }
        let drops = [
            (
                Cleaning {
                    drop_field_names: true,
                    ..off()
                },
                "Feature 2",
                "a key of the answer",
            ),
            (
                Cleaning {
                    drop_names: true,
                    ..off()
                },
                "fur_color",
                "a name without a value",
            ),
            (
                Cleaning {
                    max_words: Some(2),
                    ..off()
                },
                "a long tail",
                "3 words, more than 2",
            ),
            (
                Cleaning {
                    drop_duplicates: true,
                    ..off()
                },
                "red",
                "the same as an earlier one",
            ),
            (
                Cleaning {
                    trim_punctuation: true,
                    ..off()
                },
                "...",
                "nothing is left",
            ),
        ];
        for (rules, text, reason) in drops {
            let cleaned = cleaned(&rules, &["red", text]);
            assert_eq!(cleaned.kept, ["red"], "{text}");
            assert_eq!(cleaned.dropped, [(text.to_owned(), reason.to_owned())]);
        }
    }

    #[test]
    fn all_rules_together_keep_the_values_of_a_list() {
        let list = [
            "\"Two_Wings\".",
            "Fur_Color",
            "wing span: Large",
            "feature3",
            "large",
            "long_ears",
            "body shape",
            "a very long red tail",
            "*",
            "Feature 1: green",
        ];
        let cleaned = cleaned(&all(), &list);
        assert_eq!(cleaned.kept, ["two wings", "large", "long ears", "green"]);
        let reasons = cleaned.dropped.iter().map(|(_, reason)| reason.as_str());
        let expected = [
            "a name without a value",
            "a key of the answer",
            "the same as an earlier one",
            "a name without a value",
            "5 words, more than 3",
            "nothing is left",
        ];
        assert!(reasons.eq(expected), "{:?}", cleaned.dropped);
    }

    #[test]
    fn unknown_rules_are_errors_and_the_default_is_off() {
        let read = |text: &str| serde_json::from_str::<Cleaning>(text);
        assert_eq!(read("{}").unwrap(), Cleaning::default());
        assert!(read(r#"{"lowercase": true}"#).unwrap().lowercase);
        assert!(read(r#"{"upper": true}"#).is_err());
        // What is off leaves no trace, so that a rule added later changes no key.
        let rules = read(r#"{"lowercase": true, "drop_names": false}"#).unwrap();
        assert_eq!(
            serde_json::to_string(&rules).unwrap(),
            r#"{"lowercase":true}"#
        );
    }

    fn any_rules() -> impl Strategy<Value = Cleaning> {
        let flags = prop::collection::vec(any::<bool>(), 8);
        (flags, prop::option::of(1usize..5)).prop_map(|(on, max_words)| Cleaning {
            cut_labels: on[0],
            underscores: on[1],
            trim_punctuation: on[2],
            collapse_whitespace: on[3],
            lowercase: on[4],
            drop_field_names: on[5],
            drop_names: on[6],
            max_words,
            drop_duplicates: on[7],
        })
    }

    proptest! {
        #[test]
        fn cleaning_twice_is_cleaning_once(
            rules in any_rules(),
            list in prop::collection::vec(
                prop_oneof![
                    "([a-zA-Z]{1,4}|fur|color|long|shape|feature|[0-9]|[ _:.\"'-]{1,2}){0,8}",
                    "\\PC{0,12}",
                    "[İΑΣǅß_: .]{0,6}",
                ],
                0..6,
            ),
        ) {
            let once = clean(&rules, &list);
            prop_assert!(once.kept.iter().all(|text| !text.trim().is_empty()));
            prop_assert_eq!(once.kept.len() + once.dropped.len(), list.len());
            let twice = clean(&rules, &once.kept);
            prop_assert_eq!(&twice.kept, &once.kept);
            prop_assert!(twice.dropped.is_empty());
        }
    }
}
