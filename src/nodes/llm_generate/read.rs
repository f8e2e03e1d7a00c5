//! From the text of an answer to attributes, and what is odd about them.

use super::{Json, LlmGenerate};
use crate::{
    artifact::{Dropped, Flag},
    models::answer::{Parsed, clean, flags, parse},
};

/// A text after parsing.
#[derive(Default)]
pub(super) struct Read {
    pub(super) attributes: Vec<String>,
    pub(super) dropped: Vec<Dropped>,
    pub(super) flags: Vec<Flag>,
    pub(super) valid: bool,
    pub(super) repaired: bool,
    pub(super) reason: Option<String>,
}

impl LlmGenerate {
    /// Parses a text as this node's parameters say.
    pub(super) fn read(&self, text: &str) -> Read {
        if self.json == Json::Off {
            return Read {
                valid: true,
                ..Read::default()
            };
        }
        if self.json == Json::Text {
            let sentence = text.trim();
            let empty = sentence.is_empty();
            return Read {
                attributes: if empty { Vec::new() } else { vec![sentence.to_owned()] },
                valid: !empty,
                reason: empty.then(|| "it is empty".to_owned()),
                ..Read::default()
            };
        }
        let (written, repaired) = match parse(text, self.attributes) {
            Parsed::Valid(attributes) => (attributes, false),
            Parsed::Repaired(attributes) => (attributes, true),
            Parsed::Invalid(reason) => {
                return Read {
                    reason: Some(reason),
                    ..Read::default()
                };
            }
        };
        let cleaned = clean(&self.clean, &written);
        Read {
            flags: written.iter().filter_map(|attribute| flag(attribute)).collect(),
            attributes: cleaned.kept,
            dropped: (cleaned.dropped.into_iter())
                .map(|(attribute, reason)| Dropped { attribute, reason })
                .collect(),
            valid: true,
            repaired,
            reason: None,
        }
    }
}

/// What is odd about an attribute, if anything.
fn flag(attribute: &str) -> Option<Flag> {
    let odd = flags(attribute);
    let odd = [
        (odd.field_name, "field_name"),
        (odd.name_like, "name_like"),
        (odd.labelled, "labelled"),
        (odd.over_three_words, "over_three_words"),
    ];
    let odd: Vec<String> = (odd.iter().filter(|(is, _)| *is))
        .map(|(_, name)| (*name).to_owned())
        .collect();
    (!odd.is_empty()).then(|| Flag {
        attribute: attribute.to_owned(),
        odd,
    })
}
