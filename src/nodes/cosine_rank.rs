//! `cosine_rank`: for each class the candidates nearest to the class's name,
//! from texts alone.

use std::{cmp::Ordering, collections::BTreeSet};

use anyhow::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    artifact::{Artifact, Attributes, ClassAttributes, Embeddings, Output, Scored, Type},
    node::{Accept, Complaint, Ctx, Done, Inputs, Kind, Node, Port},
    nodes::{
        similarity::dot,
        vectors::{agree, candidates, class_vectors, sound},
    },
};

/// Parameters of `cosine_rank`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CosineRank {
    /// How many candidates are added to each class, the nearest first.
    #[serde(default = "three")]
    #[schemars(range(min = 1))]
    top_k: usize,
}

fn three() -> usize {
    3
}

impl Node for CosineRank {
    fn output(&self, _: &BTreeSet<&str>) -> Type {
        Type::Attributes
    }

    fn check(&self, _: &BTreeSet<&str>) -> Vec<Complaint> {
        if self.top_k > 0 {
            return Vec::new();
        }
        vec![Complaint {
            field: Some("top_k"),
            message: "no candidate would be added".to_owned(),
            hint: Some("`top_k` must be at least 1".to_owned()),
        }]
    }

    fn finish(&self, inputs: &Inputs, _: &Done, ctx: &mut Ctx<'_>) -> Result<Output> {
        let words: Embeddings = inputs.artifact("words")?;
        let texts: Embeddings = inputs.artifact("candidates")?;
        sound("words", &words)?;
        sound("candidates", &texts)?;
        agree(("words", &words), ("candidates", &texts))?;
        let chosen = inputs.attributes("chosen")?;
        let vectors = class_vectors("words", &words)?;
        let candidates = candidates("candidates", &texts)?;
        let mut classes = Vec::with_capacity(vectors.len());
        for ((class, word), candidates) in words.classes.iter().zip(&vectors).zip(&candidates) {
            let mut ranking: Vec<Scored> = candidates
                .iter()
                .map(|candidate| Scored {
                    attribute: candidate.name.to_owned(),
                    score: f64::from(dot(word, &candidate.vector)),
                })
                .collect();
            // A stable order: of equal candidates the first stays ahead.
            ranking.sort_by(|a, b| b.score.partial_cmp(&a.score).unwrap_or(Ordering::Equal));
            match ranking.len() {
                0 => (ctx.warn)(format!(
                    "class `{class}` has no candidate and stays as it is"
                )),
                few if few < self.top_k => {
                    (ctx.warn)(format!(
                        "class `{class}` has {few} candidates, fewer than top_k = {}",
                        self.top_k
                    ));
                }
                _ => {}
            }
            let nearest = ranking.iter().take(self.top_k).map(|c| c.attribute.clone());
            classes.push(ClassAttributes {
                class: class.clone(),
                attributes: chosen.of(class).iter().cloned().chain(nearest).collect(),
                candidates: ranking,
                ..ClassAttributes::default()
            });
        }
        Attributes { classes }.output()
    }
}

impl Kind for CosineRank {
    const NAME: &'static str = "cosine_rank";
    const VERSION: u32 = 1;
    const PORTS: &'static [Port] = &[
        Port::required(
            "words",
            &[Accept::Artifact(Type::TextEmbeddings)],
            "The text to be near to, one for each class.",
        ),
        Port::required(
            "candidates",
            &[Accept::Artifact(Type::TextEmbeddings)],
            "One text for each class and candidate.",
        ),
        Port::optional(
            "chosen",
            &[Accept::Artifact(Type::Attributes)],
            "Attributes chosen so far, which come first.",
        ),
    ];
    const SUMMARY: &'static str = "chooses for each class the attributes nearest to its name";
    const DOC: &'static str = r#"Ranks each class's candidates by the cosine similarity of their texts to the
class's own, nearest first, and adds the first `top_k` to what was chosen so far. It
sees no image and no label. Of equal candidates the first stays ahead; a class
without candidates stays as it is, with a warning.

Artifact: `attributes.json` (for each class `attributes`, and all candidates with
their similarity, nearest first).

Example, with the bare words of class and attribute:

    [nodes.words]
    kind = "clip_encode"
    model = "clip"
    classes = "cifar10"
    prompts = "{{ class }}"

    [nodes.attribute_words]
    kind = "clip_encode"
    model = "clip"
    classes = "cifar10"
    candidates = "propose"
    prompts = "{{ candidate }}"

    [nodes.rank]
    kind = "cosine_rank"
    words = "words"
    candidates = "attribute_words"
    top_k = 3
"#;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nodes::in_memory::{finish, input, texts, trials};

    const CLASSES: [&str; 2] = ["cat", "dog"];

    fn rank(
        top_k: usize,
        candidates: &Embeddings,
        chosen: &Attributes,
    ) -> Result<(Attributes, Vec<String>)> {
        let words = texts(&CLASSES, &[(0, &[1.0, 0.0]), (1, &[0.0, 1.0])]);
        let ports = vec![
            ("words", input(&words, &[])),
            ("candidates", input(candidates, &[])),
            ("chosen", input(chosen, &[])),
        ];
        let (attributes, labels, warnings) = finish(&CosineRank { top_k }, ports)?;
        assert!(labels.is_empty(), "no label is read");
        Ok((attributes, warnings))
    }

    fn chosen() -> Attributes {
        let class = |class: &str, attributes: &[&str]| ClassAttributes {
            class: class.into(),
            attributes: attributes.iter().map(|a| (*a).to_owned()).collect(),
            ..ClassAttributes::default()
        };
        Attributes {
            classes: vec![class("cat", &["tail"]), class("dog", &[])],
        }
    }

    #[test]
    fn the_nearest_candidates_come_first_and_the_first_of_equals() {
        let trials = trials(
            &CLASSES,
            &[
                (0, &["far"], &[-0.8, 0.6]),
                (0, &["near"], &[0.8, 0.6]),
                (0, &["nearest"], &[1.0, 0.0]),
                (0, &["as near"], &[0.8, -0.6]),
                (1, &["up"], &[0.6, 0.8]),
                (1, &["side"], &[1.0, 0.0]),
            ],
        );
        let (found, warnings) = rank(2, &trials, &chosen()).unwrap();
        let cat = &found.classes[0];
        let order: Vec<&str> = cat
            .candidates
            .iter()
            .map(|c| c.attribute.as_str())
            .collect();
        assert_eq!(order, ["nearest", "near", "as near", "far"]);
        assert_eq!(
            cat.candidates[1].score.to_bits(),
            f64::from(0.8_f32).to_bits()
        );
        assert_eq!(cat.attributes, ["tail", "nearest", "near"]);
        assert_eq!(found.classes[1].attributes, ["up", "side"]);
        assert!(warnings.is_empty());
    }

    #[test]
    fn too_few_candidates_are_told_and_none_keeps_the_state() {
        let trials = trials(&CLASSES, &[(1, &["up"], &[0.6, 0.8])]);
        let (found, warnings) = rank(2, &trials, &chosen()).unwrap();
        assert_eq!(found.classes[0].attributes, ["tail"]);
        assert_eq!(found.classes[1].attributes, ["up"]);
        assert_eq!(
            warnings,
            [
                "class `cat` has no candidate and stays as it is",
                "class `dog` has 1 candidates, fewer than top_k = 2",
            ]
        );
        assert_eq!(CosineRank { top_k: 0 }.check(&BTreeSet::new()).len(), 1);
    }
}
