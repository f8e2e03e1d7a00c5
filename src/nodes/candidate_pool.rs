//! The candidates that each class may try.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};

use crate::{
    artifact::{Answers, Attributes, Type},
    node::{Input, Inputs},
};

/// For each class of `classes` the candidates behind the port `candidates`, each
/// once: an LLM's attributes in (answer, key) order, or attributes as they are.
/// Of each class only the `first` count, before repeats are left out; 0 means all.
///
/// # Errors
/// When they were made for other classes.
pub(super) fn candidate_pool(
    inputs: &Inputs,
    classes: &[String],
    first: usize,
) -> Result<Vec<Vec<String>>> {
    let most = if first == 0 { usize::MAX } else { first };
    let answered = matches!(
        inputs.get("candidates")?,
        Input::Artifact { manifest, .. } if manifest.r#type == Type::Answers
    );
    let (of, lists): (Vec<String>, Vec<Vec<String>>) = if answered {
        let answers: Answers = inputs.artifact("candidates")?;
        let list = |i| (answers.raw_candidates(i).take(most).map(str::to_owned)).collect();
        let lists = (0..answers.classes.len()).map(list).collect();
        (answers.classes, lists)
    } else {
        let attributes: Attributes = inputs.artifact("candidates")?;
        (attributes.classes.into_iter())
            .map(|entry| {
                let list = entry.attributes.into_iter().take(most).collect();
                (entry.class, list)
            })
            .unzip()
    };
    ensure!(
        of == classes,
        "`candidates` were made for other classes than `classes` lists\nhint: give both nodes the same `classes`"
    );
    let once = |list: Vec<String>| {
        let mut seen = BTreeSet::new();
        (list.into_iter())
            .filter(|candidate| seen.insert(candidate.clone()))
            .collect()
    };
    Ok(lists.into_iter().map(once).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        artifact::{Answer, Artifact, ClassAttributes},
        nodes::in_memory::input,
    };

    fn pool<A: Artifact>(artifact: &A, classes: &[&str], first: usize) -> Result<Vec<Vec<String>>> {
        let mut inputs = Inputs::default();
        inputs.connect("candidates", input(artifact, &[]));
        let classes: Vec<String> = classes.iter().map(|class| (*class).to_owned()).collect();
        candidate_pool(&inputs, &classes, first)
    }

    #[test]
    fn a_budget_counts_repeats_and_each_candidate_is_tried_once() {
        let answer = |sample, attributes: &[&str]| Answer {
            class: "cat".into(),
            sample,
            attributes: attributes.iter().map(|a| (*a).to_owned()).collect(),
            valid: true,
            ..Answer::default()
        };
        let answers = Answers {
            answers: vec![answer(0, &["a", "b"]), answer(1, &["b", "c"])],
            classes: vec!["cat".into(), "dog".into()],
        };
        let classes = ["cat", "dog"];
        assert_eq!(
            pool(&answers, &classes, 0).unwrap(),
            [vec!["a", "b", "c"], vec![]]
        );
        assert_eq!(pool(&answers, &classes, 3).unwrap()[0], ["a", "b"]);
        assert_eq!(pool(&answers, &classes, 4).unwrap()[0], ["a", "b", "c"]);
        let error = pool(&answers, &["dog", "cat"], 0).unwrap_err().to_string();
        assert!(
            error.starts_with("`candidates` were made for other classes"),
            "{error}"
        );
    }

    #[test]
    fn attributes_are_candidates_as_they_are() {
        let attributes = Attributes {
            classes: vec![ClassAttributes {
                class: "cat".into(),
                attributes: vec!["a".into(), "a".into(), "b".into()],
                ..ClassAttributes::default()
            }],
        };
        assert_eq!(pool(&attributes, &["cat"], 0).unwrap(), [["a", "b"]]);
        assert_eq!(pool(&attributes, &["cat"], 2).unwrap(), [["a"]]);
    }
}
