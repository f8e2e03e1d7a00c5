//! What was chosen, in numbers and words that a table can show.

use crate::artifact::{Attributes, ClassAttributes};

/// The most attributes that have a field of their own: `attribute1` … `attribute9`.
const MOST: usize = 9;

/// A value of a selection or a ranking.
pub(super) enum Chosen {
    /// A number.
    Number(f64),
    /// A count.
    Count(usize),
    /// Words.
    Words(String),
    /// There is none.
    Nothing,
    /// No selection has such a value.
    Unknown,
}

/// Fields for all classes together.
pub(super) const FIELDS: &[&str] = &["count", "candidates", "repeats", "closeness"];

/// Fields for each class; with `attribute1` … `attribute9`.
const CLASS_FIELDS: &[&str] = &[
    "attributes",
    "count",
    "candidates",
    "closeness",
    "score",
    "baseline",
];

/// Fields for each candidate of a class.
pub(super) const CANDIDATE_FIELDS: &[&str] = &["score"];

/// Names of all fields for each class.
pub(super) fn class_fields() -> Vec<String> {
    let own = CLASS_FIELDS.iter().map(|name| (*name).to_owned());
    own.chain((1..=MOST).map(|n| format!("attribute{n}")))
        .collect()
}

/// A value about all classes.
pub(super) fn of_all(attributes: &Attributes, field: &str) -> Chosen {
    let classes = &attributes.classes;
    let mean = |values: Vec<f64>| match values.len() {
        0 => Chosen::Nothing,
        n => Chosen::Number(values.iter().sum::<f64>() / n as f64),
    };
    match field {
        "count" => mean(classes.iter().map(|c| c.attributes.len() as f64).collect()),
        "candidates" => Chosen::Count(classes.iter().map(|c| c.candidates.len()).sum()),
        "repeats" => Chosen::Count(classes.iter().map(repeats).sum()),
        "closeness" => mean(classes.iter().filter_map(closeness).collect()),
        _ => Chosen::Unknown,
    }
}

/// A value about one class.
pub(super) fn of_class(entry: &ClassAttributes, field: &str) -> Chosen {
    let number = |value: Option<f64>| value.map_or(Chosen::Nothing, Chosen::Number);
    match field {
        "attributes" if entry.attributes.is_empty() => Chosen::Nothing,
        "attributes" => Chosen::Words(entry.attributes.join(", ")),
        "count" => Chosen::Count(entry.attributes.len()),
        "candidates" => Chosen::Count(entry.candidates.len()),
        "closeness" => number(closeness(entry)),
        "score" => number(entry.score),
        "baseline" => number(entry.baseline),
        _ => match field.strip_prefix("attribute").map(str::parse::<usize>) {
            Some(Ok(n)) if (1..=MOST).contains(&n) => {
                let attribute = entry.attributes.get(n - 1);
                attribute.map_or(Chosen::Nothing, |a| Chosen::Words(a.clone()))
            }
            _ => Chosen::Unknown,
        },
    }
}

/// A value about one candidate of a class, and whether it was chosen.
pub(super) fn of_candidate(
    entry: &ClassAttributes,
    candidate: &str,
    field: &str,
) -> (Chosen, bool) {
    if !CANDIDATE_FIELDS.contains(&field) {
        return (Chosen::Unknown, false);
    }
    let found = entry.candidates.iter().find(|c| c.attribute == candidate);
    let chosen = entry.attributes.iter().any(|a| a == candidate);
    (
        found.map_or(Chosen::Nothing, |c| Chosen::Number(c.score)),
        chosen,
    )
}

/// How near the candidates are to the class's word on average: of a ranking by
/// cosine, whose scores are similarities and count no images.
fn closeness(entry: &ClassAttributes) -> Option<f64> {
    let scores: Vec<f64> = entry.candidates.iter().map(|c| c.score).collect();
    let ranked = entry.images.is_none() && !scores.is_empty();
    ranked.then(|| scores.iter().sum::<f64>() / scores.len() as f64)
}

/// Candidates that the class had chosen before: of the last round's choice all
/// attributes but the last are from before.
fn repeats(entry: &ClassAttributes) -> usize {
    let before = &entry.attributes[..entry.attributes.len().saturating_sub(1)];
    let repeated = |c: &&crate::artifact::Scored| before.contains(&c.attribute);
    entry.candidates.iter().filter(repeated).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::Scored;

    fn entry(
        attributes: &[&str],
        candidates: &[(&str, f64)],
        images: Option<usize>,
    ) -> ClassAttributes {
        ClassAttributes {
            class: "cat".into(),
            attributes: attributes.iter().map(|a| (*a).to_owned()).collect(),
            candidates: (candidates.iter())
                .map(|(attribute, score)| Scored {
                    attribute: (*attribute).into(),
                    score: *score,
                })
                .collect(),
            images,
            ..ClassAttributes::default()
        }
    }

    #[test]
    fn values_of_a_class_and_of_its_candidates() {
        let entry = entry(
            &["fur", "tail"],
            &[("tail", 0.5), ("fur", 0.25), ("x", 0.0)],
            None,
        );
        assert!(matches!(of_class(&entry, "attribute2"), Chosen::Words(w) if w == "tail"));
        assert!(matches!(of_class(&entry, "attribute3"), Chosen::Nothing));
        assert!(matches!(of_class(&entry, "attribute10"), Chosen::Unknown));
        assert!(matches!(of_class(&entry, "attributes"), Chosen::Words(w) if w == "fur, tail"));
        assert!(
            matches!(of_class(&entry, "closeness"), Chosen::Number(x) if (x - 0.25).abs() < 1e-12)
        );
        assert!(
            matches!(of_candidate(&entry, "tail", "score"), (Chosen::Number(x), true) if (x - 0.5).abs() < 1e-12)
        );
        assert!(matches!(
            of_candidate(&entry, "x", "score"),
            (Chosen::Number(_), false)
        ));
        let all = Attributes {
            classes: vec![entry],
        };
        assert!(matches!(of_all(&all, "repeats"), Chosen::Count(1)));
        assert!(matches!(of_all(&all, "candidates"), Chosen::Count(3)));
    }

    #[test]
    fn scores_that_count_images_are_no_closeness() {
        let entry = entry(&["fur"], &[("fur", 12.0)], Some(20));
        assert!(matches!(of_class(&entry, "closeness"), Chosen::Nothing));
    }
}
