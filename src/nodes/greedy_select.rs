//! `greedy_select`: for each class the attribute with which most images of all
//! classes are classified correctly; the study's `get_best_attribute`.

mod one_column;

use std::collections::BTreeSet;

use anyhow::{Result, bail, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::one_column::OneColumn;
use crate::{
    artifact::{Artifact, Attributes, ClassAttributes, Embeddings, Output, Part, Scored, Type},
    node::{Accept, Ctx, Done, Inputs, Kind, Node, Port},
    nodes::{
        labelled::LabelledImages,
        vectors::{Candidate, agree, candidates, class_vectors, sound},
    },
};

/// Parameters of `greedy_select`.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct GreedySelect {
    /// Leave a class as it is when no candidate makes more images right. The
    /// study always adds the best one, even if it is worse than none.
    allow_none: bool,
    /// Which of the images judge the candidates.
    rows: Part,
}

impl Node for GreedySelect {
    fn output(&self, _: &BTreeSet<&str>) -> Type {
        Type::Attributes
    }

    fn finish(&self, inputs: &Inputs, _: &Done, ctx: &mut Ctx<'_>) -> Result<Output> {
        let images = LabelledImages::read(inputs, "images", self.rows)?;
        images.warn_absent("images", ctx);
        let plain: Embeddings = inputs.artifact("baseline")?;
        let texts: Embeddings = inputs.artifact("candidates")?;
        for (port, embeddings) in [("baseline", &plain), ("candidates", &texts)] {
            sound(port, embeddings)?;
            agree(("images", &images.embeddings), (port, embeddings))?;
        }
        let plain = class_vectors("baseline", &plain)?;
        let plain: Vec<&[f32]> = plain.iter().map(Vec::as_slice).collect();
        let candidates = candidates("candidates", &texts)?;
        let scores = OneColumn::new(images.vectors(), &images.labels, &plain);
        let round = Round {
            allow_none: self.allow_none,
            knows_chosen: inputs.has("chosen"),
            later: texts.rows.iter().any(|row| row.attributes.len() > 1),
            baseline: scores.baseline(),
            images: images.labels.len(),
        };
        let chosen = inputs.attributes("chosen")?;
        let names = &images.embeddings.classes;
        let mut classes = Vec::with_capacity(names.len());
        for (index, (class, candidates)) in names.iter().zip(&candidates).enumerate() {
            if (ctx.stop)() {
                bail!("stopped by the user");
            }
            (ctx.progress)(index as u64, names.len() as u64, "classes");
            let columns: Vec<&[f32]> = candidates.iter().map(|c| c.vector.as_slice()).collect();
            let counts = scores.counts(index, &columns);
            let state = chosen.classes.iter().find(|entry| entry.class == *class);
            let state = state.cloned().unwrap_or_default();
            classes.push(round.choose(class, state, candidates, &counts, ctx.warn)?);
        }
        Ok(Output {
            labels: vec![images.labels_of],
            ..Attributes { classes }.output()?
        })
    }
}

/// What the choices of all classes share.
struct Round {
    allow_none: bool,
    /// Whether `chosen` is connected, so that a class's state is known.
    knows_chosen: bool,
    /// Whether candidates stand beside earlier attributes.
    later: bool,
    /// Images that the plain prompts get right.
    baseline: u64,
    images: usize,
}

impl Round {
    /// The class with its best candidate, or as it was.
    fn choose(
        &self,
        class: &str,
        state: ClassAttributes,
        candidates: &[Candidate<'_>],
        counts: &[u64],
        warn: &dyn Fn(String),
    ) -> Result<ClassAttributes> {
        // Strictly more: of equal candidates the first stays.
        let mut best = None;
        for (candidate, count) in candidates.iter().zip(counts) {
            if best.is_none_or(|(_, most)| *count > most) {
                best = Some((candidate, *count));
            }
        }
        let (attributes, score) = match best {
            None => {
                warn(if self.later && !self.knows_chosen {
                    format!(
                        "class `{class}` has no candidate and loses its earlier attributes\nhint: add chosen = \"previous\" to the `greedy_select` node"
                    )
                } else {
                    format!("class `{class}` has no candidate and stays as it is")
                });
                let score = if state.attributes.is_empty() {
                    Some(self.baseline as f64)
                } else {
                    state.score
                };
                (state.attributes, score)
            }
            Some((_, count)) if self.allow_none && count <= self.kept(class, &state)? => {
                let score = self.kept(class, &state)?;
                (state.attributes, Some(score as f64))
            }
            Some((candidate, count)) => (candidate.attributes.to_vec(), Some(count as f64)),
        };
        Ok(ClassAttributes {
            class: class.to_owned(),
            attributes,
            score,
            candidates: candidates
                .iter()
                .zip(counts)
                .map(|(candidate, count)| Scored {
                    attribute: candidate.name.to_owned(),
                    score: *count as f64,
                })
                .collect(),
            baseline: Some(self.baseline as f64),
            images: Some(self.images),
        })
    }

    /// Images that are right when the class stays as it is; with attributes
    /// that is what the selection that chose them counted.
    fn kept(&self, class: &str, state: &ClassAttributes) -> Result<u64> {
        ensure!(
            self.knows_chosen || !self.later,
            "`allow_none` needs to know what class `{class}` has chosen so far\nhint: add chosen = \"previous\" to the `greedy_select` node"
        );
        if state.attributes.is_empty() {
            return Ok(self.baseline);
        }
        match state.score {
            Some(score)
                if state.images == Some(self.images)
                    && state.baseline == Some(self.baseline as f64) =>
            {
                Ok(score as u64)
            }
            _ => bail!(
                "`allow_none` needs to know how many images are right with what class `{class}` has chosen so far\nhint: let `chosen` name a `greedy_select` node with the same `images` and `baseline`"
            ),
        }
    }
}

impl Kind for GreedySelect {
    const NAME: &'static str = "greedy_select";
    const VERSION: u32 = 1;
    const PORTS: &'static [Port] = &[
        Port::required(
            "images",
            &[Accept::Artifact(Type::ImageEmbeddings)],
            "Images whose labels judge the candidates.",
        ),
        Port::required(
            "baseline",
            &[Accept::Artifact(Type::TextEmbeddings)],
            "The plain prompt of each class, which all other classes keep.",
        ),
        Port::required(
            "candidates",
            &[Accept::Artifact(Type::TextEmbeddings)],
            "One prompt for each class and candidate.",
        ),
        Port::optional(
            "chosen",
            &[Accept::Artifact(Type::Attributes)],
            "Attributes chosen so far, which a class without candidates keeps.",
        ),
    ];
    const SUMMARY: &'static str =
        "chooses for each class the attribute that makes most images right";
    const DOC: &'static str = r#"Chooses an attribute for each class by trying all candidates on labelled images.

A candidate's prompt takes the place of its class's plain prompt while every other
class keeps its own; the score is the number of images, of all classes, that are then
classified correctly. The best candidate is added even if it is worse than none,
unless `allow_none = true`. Of equal candidates the first is taken, and an image that
is equally near to several classes counts for the one with the lowest index. A class
without candidates stays as it is, with a warning.

Counts are exact: they equal those of classifying every image again for every
candidate. Classes never see each other's choices, so that two good choices can be
worse together. Several templates in `baseline` or `candidates` are averaged.

The labels of `images` are noted in the result: `zeroshot_eval` on the same images
says that the prompts were selected on them. `rows` lets a part of them judge ("even",
"odd", "fold 1/5", "except fold 1/5"), so that the others can score honestly.

Artifact: `attributes.json` (for each class `attributes`, their `score`, every
candidate with its score, the `baseline` score without any candidate, `images`).

Example, inside a round:

    [rounds.refine.nodes.select]
    kind = "greedy_select"
    images = "train_images"
    baseline = "plain"
    candidates = "texts"
    chosen = "previous"
"#;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nodes::in_memory::{finish, images, input, labels, texts, trials};

    const CLASSES: [&str; 2] = ["cat", "dog"];
    const EAST: &[f32] = &[1.0, 0.0];
    const NORTH: &[f32] = &[0.0, 1.0];
    const NORTH_EAST: &[f32] = &[0.6, 0.8];
    const WEST: &[f32] = &[-1.0, 0.0];

    /// Two cats (east, north-east) and two dogs (north, north); plain prompts
    /// point east and north, so that the second cat is taken for a dog.
    fn select(
        allow_none: bool,
        candidates: &Embeddings,
        chosen: Option<&Attributes>,
    ) -> Result<(Attributes, Vec<String>)> {
        let images = images(
            &CLASSES,
            &[(0, EAST), (0, NORTH_EAST), (1, NORTH), (1, NORTH)],
        );
        let plain = texts(&CLASSES, &[(0, EAST), (1, NORTH)]);
        let mut ports = vec![
            ("images", input(&images, &[])),
            ("baseline", input(&plain, &[])),
            ("candidates", input(candidates, &[])),
        ];
        if let Some(chosen) = chosen {
            ports.push(("chosen", input(chosen, &[])));
        }
        let (attributes, used, warnings) = finish(&GreedySelect { allow_none, rows: Part::All }, ports)?;
        assert_eq!(used, [labels("test")], "labels chose the attributes");
        Ok((attributes, warnings))
    }

    fn scores(class: &ClassAttributes) -> Vec<(&str, f64)> {
        let pairs = class
            .candidates
            .iter()
            .map(|c| (c.attribute.as_str(), c.score));
        pairs.collect()
    }

    #[test]
    fn the_candidate_with_most_images_right_wins_and_the_first_of_equals() {
        let trials = trials(
            &CLASSES,
            &[
                (0, &["west"], WEST),
                (0, &["soft"], NORTH_EAST),
                (0, &["also soft"], NORTH_EAST),
                (1, &["worse"], WEST),
                (1, &["even"], NORTH),
            ],
        );
        let (found, warnings) = select(false, &trials, None).unwrap();
        // With "west" no cat is a cat; with "worse" both dogs tie and go to cat.
        assert_eq!(
            scores(&found.classes[0]),
            [("west", 2.0), ("soft", 4.0), ("also soft", 4.0)]
        );
        assert_eq!(scores(&found.classes[1]), [("worse", 2.0), ("even", 3.0)]);
        assert_eq!(found.classes[0].attributes, ["soft"]);
        assert_eq!(found.classes[1].attributes, ["even"]);
        for class in &found.classes {
            assert_eq!((class.baseline, class.images), (Some(3.0), Some(4)));
        }
        assert_eq!(found.classes[0].score, Some(4.0));
        assert!(warnings.is_empty());
    }

    #[test]
    fn the_best_is_added_even_if_worse_than_none_unless_none_is_allowed() {
        let trials = trials(
            &CLASSES,
            &[(0, &["soft"], NORTH_EAST), (1, &["worse"], WEST)],
        );
        let (found, _) = select(false, &trials, None).unwrap();
        assert_eq!(found.classes[1].attributes, ["worse"]);
        let (found, _) = select(true, &trials, None).unwrap();
        assert_eq!(found.classes[0].attributes, ["soft"]);
        assert!(found.classes[1].attributes.is_empty());
        assert_eq!(found.classes[1].score, Some(3.0));
    }

    #[test]
    fn none_competes_with_what_the_class_had_before() {
        let first = trials(
            &CLASSES,
            &[(0, &["soft"], NORTH_EAST), (1, &["even"], NORTH)],
        );
        let (chosen, _) = select(false, &first, None).unwrap();
        // Equal to the plain prompt, hence better than none but not than "soft".
        let second = trials(
            &CLASSES,
            &[(0, &["soft", "east"], EAST), (1, &["even", "same"], NORTH)],
        );
        let (found, _) = select(true, &second, Some(&chosen)).unwrap();
        assert_eq!(found.classes[0].attributes, ["soft"]);
        assert_eq!(found.classes[0].score, Some(4.0));
        assert_eq!(found.classes[1].attributes, ["even"]);
        let (found, _) = select(false, &second, Some(&chosen)).unwrap();
        assert_eq!(found.classes[0].attributes, ["soft", "east"]);

        let error = select(true, &second, None).unwrap_err().to_string();
        assert!(
            error.starts_with(
                "`allow_none` needs to know what class `cat` has chosen so far\nhint: "
            )
        );
        let mut elsewhere = chosen;
        elsewhere.classes[0].images = Some(5);
        let error = select(true, &second, Some(&elsewhere))
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("`allow_none` needs to know how many images are right"),
            "{error}"
        );
    }

    #[test]
    fn a_class_without_candidates_keeps_its_state_with_a_warning() {
        let first = trials(
            &CLASSES,
            &[(0, &["soft"], NORTH_EAST), (1, &["even"], NORTH)],
        );
        let (chosen, _) = select(false, &first, None).unwrap();
        let second = trials(&CLASSES, &[(1, &["even", "same"], NORTH)]);
        let (found, warnings) = select(false, &second, Some(&chosen)).unwrap();
        assert_eq!(found.classes[0].attributes, ["soft"]);
        assert_eq!(found.classes[0].score, Some(4.0));
        assert_eq!(
            warnings,
            ["class `cat` has no candidate and stays as it is"]
        );
        let (found, warnings) = select(false, &second, None).unwrap();
        assert!(found.classes[0].attributes.is_empty());
        assert!(
            warnings[0].starts_with(
                "class `cat` has no candidate and loses its earlier attributes\nhint: "
            )
        );

        let mut nothing = second;
        (nothing.rows, nothing.data, nothing.dim) = (Vec::new(), Vec::new(), 0);
        let (found, warnings) = select(false, &nothing, Some(&chosen)).unwrap();
        assert_eq!(found.classes[1].attributes, ["even"]);
        assert_eq!(warnings.len(), 2);
    }

    #[test]
    fn a_nonsense_input_is_refused() {
        let mut bad = trials(&CLASSES, &[(0, &["soft"], NORTH_EAST)]);
        bad.data[0] = f32::NAN;
        let error = select(false, &bad, None).unwrap_err().to_string();
        assert!(
            error.starts_with("row 0 of `candidates` (`text 0`) holds a number that is not finite")
        );
        let plain = texts(&CLASSES, &[(0, EAST)]);
        let error = select(false, &plain, None).unwrap_err().to_string();
        assert!(error.starts_with("row 0 of `candidates` carries no candidate"));
        let wide = trials(&CLASSES, &[(0, &["soft"], &[1.0, 0.0, 0.0])]);
        let error = select(false, &wide, None).unwrap_err().to_string();
        assert!(
            error.starts_with("`images` has embeddings of 2 dimensions, and `candidates` of 3")
        );
    }
}
