//! `joint_select`: one prompt for each class, all chosen together by coordinate
//! descent on the number of images that are classified correctly.

mod descent;
mod options;

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use self::{
    descent::{Descent, Table},
    options::{Choice, options, plain, starting},
};
use crate::{
    artifact::{Artifact, Attributes, ClassAttributes, Embeddings, Output, Part, Scored, Type},
    node::{Accept, Complaint, Ctx, Done, Inputs, Kind, Node, Port},
    nodes::{
        draw::Draw,
        labelled::LabelledImages,
        vectors::{agree, sound},
    },
};

/// Bytes of similarities that are kept; beyond, each sweep computes them again.
const ROOM: usize = 1 << 30;

/// The order of classes in a sweep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Order {
    /// That of the class list.
    #[default]
    Index,
    /// Another one in each sweep.
    Random,
}

/// Parameters of `joint_select`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct JointSelect {
    /// Most passes over the classes from one start; it ends before when no class
    /// alone can become better.
    #[serde(default = "twenty")]
    #[schemars(range(min = 1))]
    sweeps: usize,
    /// Random starts after the first; the best end counts.
    #[serde(default)]
    restarts: usize,
    /// Whether the plain prompt is an option of every class.
    #[serde(default = "yes")]
    allow_none: bool,
    /// The order of classes in a sweep.
    #[serde(default)]
    order: Order,
    /// Which of the images judge the prompts.
    #[serde(default)]
    rows: Part,
    /// Random starts and orders differ between seeds; the file's `seed` by default.
    #[serde(default)]
    seed: u64,
    /// Random starts and orders differ between streams; the round by default.
    #[serde(default)]
    stream: u64,
}

const fn twenty() -> usize {
    20
}

const fn yes() -> bool {
    true
}

impl Node for JointSelect {
    fn output(&self, _: &BTreeSet<&str>) -> Type {
        Type::Attributes
    }

    fn check(&self, _: &BTreeSet<&str>) -> Vec<Complaint> {
        if self.sweeps > 0 {
            return Vec::new();
        }
        vec![Complaint {
            field: Some("sweeps"),
            message: "no class would be visited".to_owned(),
            hint: Some("`sweeps` must be at least 1".to_owned()),
        }]
    }

    fn finish(&self, inputs: &Inputs, _: &Done, ctx: &mut Ctx<'_>) -> Result<Output> {
        let images = LabelledImages::read(inputs, "images", self.rows)?;
        images.warn_absent("images", ctx);
        let texts: Embeddings = inputs.artifact("baseline")?;
        let lists: Vec<Embeddings> = inputs.artifacts("candidates")?;
        let check = |port: &str, texts: &Embeddings| {
            sound(port, texts)?;
            agree(("images", &images.embeddings), (port, texts))
        };
        check("baseline", &texts)?;
        for (i, list) in lists.iter().enumerate() {
            match lists.len() {
                1 => check("candidates", list)?,
                _ => check(&format!("candidates[{i}]"), list)?,
            }
        }
        let classes = &images.embeddings.classes;
        let stopped = || -> Result<()> {
            if (ctx.stop)() {
                bail!("stopped by the user");
            }
            Ok(())
        };

        let plain = plain("baseline", &texts)?;
        let alone: Vec<Vec<&[f32]>> = plain.iter().map(|p| vec![p.vector.as_slice()]).collect();
        let alone = Table::new(images.vectors(), &images.labels, alone, 0, &|_| Ok(()))?;
        let baseline = alone.state(vec![0; classes.len()]).right();
        let options = self.options(plain, &lists, classes, ctx.warn)?;
        let start = inputs.attributes("start")?;
        let start = if start.classes.is_empty() {
            vec![0; classes.len()]
        } else {
            starting(&start, classes, &options)?
        };

        let columns = options.iter();
        let columns = columns.map(|list| list.iter().map(|o| o.vector.as_slice()).collect());
        let table = Table::new(
            images.vectors(),
            &images.labels,
            columns.collect(),
            ROOM,
            &|class| {
                (ctx.progress)(class as u64, classes.len() as u64, "classes");
                stopped()
            },
        )?;
        let found = self.best(&table, start, &options, &|sweep, sweeps| {
            (ctx.progress)(sweep as u64, sweeps as u64, "sweeps");
            stopped()
        })?;
        if !found.settled {
            (ctx.warn)(format!(
                "the choice may still get better after sweeps = {}\nhint: raise `sweeps`",
                self.sweeps
            ));
        }
        let entry = |(class, name): (usize, &String)| {
            let options = &options[class];
            let counts = table.counts(&found.state, class);
            let scored = options.iter().zip(counts).map(|(option, count)| Scored {
                attribute: option.name(),
                score: count as f64,
            });
            ClassAttributes {
                class: name.clone(),
                attributes: options[found.state.choice()[class]].attributes.to_vec(),
                score: Some(found.state.right() as f64),
                candidates: scored.collect(),
                baseline: Some(baseline as f64),
                images: Some(images.labels.len()),
            }
        };
        let classes = classes.iter().enumerate().map(entry).collect();
        Ok(Output {
            labels: vec![images.labels_of],
            ..Attributes { classes }.output()?
        })
    }
}

impl JointSelect {
    /// What each class can choose from. Without anything else it is the plain prompt.
    fn options<'a>(
        &self,
        plain: Vec<Choice<'a>>,
        lists: &'a [Embeddings],
        classes: &[String],
        warn: &dyn Fn(String),
    ) -> Result<Vec<Vec<Choice<'a>>>> {
        let mut has = vec![false; classes.len()];
        for row in lists.iter().flat_map(|texts| &texts.rows) {
            has[row.class_index] = true;
        }
        for (class, _) in classes.iter().zip(&has).filter(|(_, has)| !**has) {
            warn(format!(
                "class `{class}` has no candidate and keeps its plain prompt"
            ));
        }
        let first = plain.into_iter().zip(has);
        let first = first.map(|(plain, has)| (self.allow_none || !has).then_some(plain));
        options(first.collect(), lists, warn)
    }

    /// The best end of all starts, of equal ones the first. `visit` is told the
    /// sweep, of how many at most, before each class.
    fn best(
        &self,
        table: &Table<'_>,
        start: Vec<usize>,
        options: &[Vec<Choice<'_>>],
        visit: &dyn Fn(usize, usize) -> Result<()>,
    ) -> Result<Descent> {
        let draw = |restart: usize, purpose: &str, sweep: usize| {
            let key = json!({
                "seed": self.seed, "stream": self.stream,
                "restart": restart, "purpose": purpose, "sweep": sweep,
            });
            Draw::new("runner joint_select draws v1", &key)
        };
        let descend = |restart: usize, start: Vec<usize>| {
            let order = |sweep: usize| match self.order {
                Order::Index => (0..options.len()).collect(),
                Order::Random => draw(restart, "order", sweep).order(options.len()),
            };
            table.descend(start, self.sweeps, &order, &|sweep, _| {
                let all = self.sweeps.saturating_mul(self.restarts.saturating_add(1));
                visit(
                    restart.saturating_mul(self.sweeps).saturating_add(sweep),
                    all,
                )
            })
        };
        let mut best = descend(0, start)?;
        for restart in 1..=self.restarts {
            let mut draw = draw(restart, "start", 0);
            let start = options.iter().map(|list| draw.below(list.len())).collect();
            let found = descend(restart, start)?;
            if found.state.right() > best.state.right() {
                best = found;
            }
        }
        Ok(best)
    }
}

impl Kind for JointSelect {
    const NAME: &'static str = "joint_select";
    const VERSION: u32 = 1;
    const PORTS: &'static [Port] = &[
        Port::required(
            "images",
            &[Accept::Artifact(Type::ImageEmbeddings)],
            "Images whose labels judge the prompts.",
        ),
        Port::required(
            "baseline",
            &[Accept::Artifact(Type::TextEmbeddings)],
            "The plain prompt of each class.",
        ),
        Port {
            many: true,
            ..Port::required(
                "candidates",
                &[Accept::Artifact(Type::TextEmbeddings)],
                "One or several lists of prompts; each prompt is an option of its class.",
            )
        },
        Port::optional(
            "start",
            &[Accept::Artifact(Type::Attributes)],
            "The choice to start from; by default the first option of each class.",
        ),
    ];
    const DRAWS: bool = true;
    const SUMMARY: &'static str =
        "chooses the prompts of all classes together, so that most images are right";
    const DOC: &'static str = r#"Chooses one prompt for each class on labelled images, all of them together. An option
of a class is its plain prompt (unless `allow_none = false`) or a row of `candidates`
with the attributes that it carries. One class after the other takes the option with
which most images, of all classes, are classified correctly while every other class
keeps what it has by then; this goes on until no class alone can become better (at
most `sweeps` passes). `greedy_select` looks at each class while all others have plain
prompts, so that two good choices can be worse together; here they cannot.

The result is never worse than its start: `start`, such as what `greedy_select` chose,
or else the first option of each class. It need not be the best of all combinations;
`restarts` random starts find better ones. Only a strictly better option is taken: of
equal ones the current one stays, else the first is taken, and an image that is equally
near to several classes counts for the one with the lowest index. A text whose
attributes an earlier option of its class carries is left out. Several templates of one
prompt are averaged.

Counts are exact. Similarities are computed once and kept while they take at most
1 GiB (images × options × 4 bytes); more of them are computed anew in each sweep.

The labels of `images` are noted in the result: `zeroshot_eval` on the same images says
that the prompts were selected on them. `rows` lets a part of them judge ("even", "odd",
"fold 1/5", "except fold 1/5"), so that the others can score honestly.

Artifact: `attributes.json` (for each class the chosen `attributes`; `score`, the images
that are right with the choices of all classes; `candidates`, every option, named by its
attributes, with the images that would be right if only this class had it; `baseline`,
those right with plain prompts; `images`).

Example, attributes of all classes together, from what a greedy selection found:

    [nodes.together]
    kind = "joint_select"
    images = "train_images"
    baseline = "plain"
    candidates = ["refine.texts@1", "refine.texts@2", "refine.texts@3"]
    start = "refine.select@3"
    restarts = 20

Example, how many attributes each class should have (`prompts@2` has the first two),
judged by images that chose none of them:

    [nodes.how_many]
    kind = "joint_select"
    images = "train_images"
    rows = "odd"
    baseline = "prompts@0"
    candidates = ["prompts@1", "prompts@2", "prompts@3"]
"#;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        artifact::{LabelUse, Metrics},
        nodes::{
            greedy_select::GreedySelect,
            in_memory::{finish, images, input, labels, texts, trials},
            zeroshot_eval::ZeroshotEval,
        },
    };

    const CLASSES: [&str; 2] = ["cat", "dog"];
    const EAST: &[f32] = &[1.0, 0.0];
    const NORTH: &[f32] = &[0.0, 1.0];
    const WEST: &[f32] = &[-1.0, 0.0];
    const NEAR_EAST: &[f32] = &[0.8, 0.6];
    const NEAR_NORTH: &[f32] = &[0.6, 0.8];
    const NORTH_WEST: &[f32] = &[-0.6, 0.8];

    fn kind() -> JointSelect {
        serde_json::from_str("{}").unwrap()
    }

    /// Two cats and two dogs at the plain prompts, and a cat nearer to the dog's.
    fn pets() -> Embeddings {
        images(
            &CLASSES,
            &[
                (0, EAST),
                (0, EAST),
                (0, NEAR_NORTH),
                (1, NORTH),
                (1, NORTH),
            ],
        )
    }

    fn plain_texts() -> Embeddings {
        texts(&CLASSES, &[(0, EAST), (1, NORTH)])
    }

    /// Either "soft" (for cats) or "wild" (for dogs) wins the fifth image; with
    /// both it is lost again.
    fn rivals() -> Embeddings {
        trials(
            &CLASSES,
            &[
                (0, &["soft"], NEAR_EAST),
                (1, &["wild"], NORTH_WEST),
                (1, &["odd"], WEST),
            ],
        )
    }

    fn select(
        node: &JointSelect,
        lists: &[&Embeddings],
        start: Option<&Attributes>,
    ) -> Result<(Attributes, Vec<String>)> {
        let mut ports = vec![
            ("images", input(&pets(), &[])),
            ("baseline", input(&plain_texts(), &[])),
        ];
        ports.extend(lists.iter().map(|list| ("candidates", input(*list, &[]))));
        ports.extend(start.map(|start| ("start", input(start, &[]))));
        let (attributes, used, warnings) = finish(node, ports)?;
        assert_eq!(used, [labels("test")], "labels chose the attributes");
        Ok((attributes, warnings))
    }

    fn chosen(attributes: &Attributes) -> Vec<Vec<&str>> {
        let classes = attributes.classes.iter();
        classes
            .map(|c| c.attributes.iter().map(String::as_str).collect())
            .collect()
    }

    fn scores(class: &ClassAttributes) -> Vec<(&str, f64)> {
        let pairs = class
            .candidates
            .iter()
            .map(|c| (c.attribute.as_str(), c.score));
        pairs.collect()
    }

    fn start(cat: &[&str], dog: &[&str]) -> Attributes {
        let entry = |class: &str, attributes: &[&str]| ClassAttributes {
            class: class.into(),
            attributes: attributes.iter().map(|a| (*a).to_owned()).collect(),
            ..ClassAttributes::default()
        };
        Attributes {
            classes: vec![entry("cat", cat), entry("dog", dog)],
        }
    }

    /// Images that are right with these two texts.
    fn right(cat: &[f32], dog: &[f32]) -> f64 {
        let classifier = texts(&CLASSES, &[(0, cat), (1, dog)]);
        let eval: ZeroshotEval = serde_json::from_str("{}").unwrap();
        let (metrics, _, _): (Metrics, Vec<LabelUse>, _) = finish(
            &eval,
            vec![
                ("images", input(&pets(), &[])),
                ("classifier", input(&classifier, &[])),
            ],
        )
        .unwrap();
        metrics.table.top1.correct as f64
    }

    #[test]
    fn every_score_is_what_an_evaluation_of_the_choice_counts() {
        let (found, warnings) = select(&kind(), &[&rivals()], None).unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        assert_eq!(chosen(&found), [vec!["soft"], vec![]]);
        let [cat, dog] = &found.classes[..] else {
            panic!("two classes");
        };
        assert_eq!(
            scores(cat),
            [("", right(EAST, NORTH)), ("soft", right(NEAR_EAST, NORTH))]
        );
        assert_eq!(
            scores(dog),
            [
                ("", right(NEAR_EAST, NORTH)),
                ("wild", right(NEAR_EAST, NORTH_WEST)),
                ("odd", right(NEAR_EAST, WEST)),
            ]
        );
        for class in [cat, dog] {
            assert_eq!(class.score, Some(right(NEAR_EAST, NORTH)));
            assert_eq!((class.baseline, class.images), (Some(4.0), Some(5)));
        }
        assert_eq!(cat.score, Some(5.0));
    }

    #[test]
    fn choices_that_are_good_apart_and_bad_together_are_mended() {
        // Alone "near north" wins the third cat; so does "turned" of the dog, and
        // with both, plain dogs would be taken for cats.
        let both = trials(
            &CLASSES,
            &[
                (0, &["near north"], NEAR_NORTH),
                (1, &["turned"], NORTH_WEST),
            ],
        );
        let (greedy, _, _): (Attributes, _, _) = finish(
            &GreedySelect::default(),
            vec![
                ("images", input(&pets(), &[])),
                ("baseline", input(&plain_texts(), &[])),
                ("candidates", input(&both, &[])),
            ],
        )
        .unwrap();
        assert_eq!(chosen(&greedy), [["near north"], ["turned"]]);
        assert_eq!(greedy.classes[0].score, Some(5.0));
        assert_eq!(greedy.classes[1].score, Some(5.0));
        assert_eq!(right(NEAR_NORTH, NORTH_WEST).to_bits(), 3.0_f64.to_bits());
        let (found, _) = select(&kind(), &[&both], Some(&greedy)).unwrap();
        assert_eq!(chosen(&found), [vec![], vec!["turned"]]);
        assert_eq!(found.classes[0].score, Some(5.0));
    }

    #[test]
    fn a_start_is_kept_unless_something_is_better() {
        // "soft" and "wild" are equally good apart: where it starts decides.
        let (found, _) = select(&kind(), &[&rivals()], Some(&start(&[], &["wild"]))).unwrap();
        assert_eq!(chosen(&found), [vec![], vec!["wild"]]);
        // Nothing chosen yet is no start at all.
        let none = Attributes::default();
        let (found, _) = select(&kind(), &[&rivals()], Some(&none)).unwrap();
        assert_eq!(chosen(&found), [vec!["soft"], vec![]]);
    }

    #[test]
    fn a_start_that_is_no_option_is_an_error() {
        let error = |node: &JointSelect, start: &Attributes| {
            let error = select(node, &[&rivals()], Some(start)).unwrap_err();
            error.to_string()
        };
        let message = error(&kind(), &start(&["soft", "warm"], &[]));
        assert!(
            message.starts_with(
                "class `cat` starts with `soft`, `warm`, but none of its options carries just that\nhint: "
            ),
            "{message}"
        );
        let strict = JointSelect {
            allow_none: false,
            ..kind()
        };
        let message = error(&strict, &start(&["soft"], &[]));
        assert_eq!(
            message,
            "class `dog` starts without attributes, but each of its options carries some\nhint: say allow_none = true"
        );
        let mut other = start(&[], &[]);
        other.classes[1].class = "cow".into();
        let message = error(&kind(), &other);
        assert_eq!(
            message,
            "`start` chooses for class `cow`, which `images` does not list"
        );
        other.classes.truncate(1);
        let message = error(&kind(), &other);
        assert!(message.starts_with("`start` chooses nothing for class `dog`\nhint: "));
    }

    #[test]
    fn the_number_of_attributes_of_each_class_is_chosen_from_several_lists() {
        // Texts of a choice, not of candidates: the first one, two, three attributes.
        let prompts = |rows: [(&[&str], &[f32]); 2]| {
            let rows = [(0, rows[0].0, rows[0].1), (1, rows[1].0, rows[1].1)];
            let mut texts = trials(&CLASSES, &rows);
            texts.rows.iter_mut().for_each(|row| row.candidate = None);
            texts
        };
        let one = prompts([(&["soft"], WEST), (&["wild"], NORTH)]);
        let two = prompts([(&["soft", "warm"], NEAR_EAST), (&["wild", "loud"], WEST)]);
        // The dog had no third attribute: its text is that of two.
        let three = prompts([
            (&["soft", "warm", "old"], NEAR_EAST),
            (&["wild", "loud"], WEST),
        ]);
        let (found, warnings) = select(&kind(), &[&one, &two, &three], None).unwrap();
        assert_eq!(chosen(&found), [vec!["soft", "warm"], vec![]]);
        let names = |i: usize| scores(&found.classes[i]).into_iter().map(|(name, _)| name);
        assert!(names(0).eq(["", "soft", "soft, warm", "soft, warm, old"]));
        assert!(names(1).eq(["", "wild", "wild, loud"]));
        assert!(warnings.is_empty(), "{warnings:?}");
    }

    #[test]
    fn without_none_a_class_takes_a_candidate_even_if_it_is_worse() {
        let strict = JointSelect {
            allow_none: false,
            ..kind()
        };
        let one = trials(&CLASSES, &[(0, &["west"], WEST)]);
        let (found, warnings) = select(&strict, &[&one], None).unwrap();
        assert_eq!(chosen(&found), [vec!["west"], vec![]]);
        assert_eq!(found.classes[0].score, Some(right(WEST, NORTH)));
        assert_eq!(found.classes[0].baseline, Some(4.0));
        assert_eq!(
            warnings,
            ["class `dog` has no candidate and keeps its plain prompt"]
        );
        let (found, _) = select(&kind(), &[&one], None).unwrap();
        assert_eq!(chosen(&found), [[""; 0], []]);
    }

    #[test]
    fn texts_that_a_result_cannot_tell_apart_are_one_option() {
        let again = trials(
            &CLASSES,
            &[(0, &["soft"], WEST), (1, &["wild"], NORTH_WEST)],
        );
        let (found, warnings) = select(&kind(), &[&rivals(), &again], None).unwrap();
        assert_eq!(scores(&found.classes[0]).len(), 2);
        assert_eq!(scores(&found.classes[1]).len(), 3);
        assert_eq!(
            found.classes[0].candidates[1].score.to_bits(),
            5.0_f64.to_bits()
        );
        assert_eq!(warnings.len(), 1);
        assert!(
            warnings[0].starts_with(
                "`cat` has different texts with the same attributes, of which the first counts\nhint: "
            ),
            "{warnings:?}"
        );
    }

    #[test]
    fn templates_of_one_prompt_are_one_option() {
        let mut list = trials(
            &CLASSES,
            &[(0, &["soft"], EAST), (0, &["soft"], NEAR_NORTH)],
        );
        for (template, row) in list.rows.iter_mut().enumerate() {
            (row.template, row.candidate) = (Some(template), None);
        }
        let (found, _) = select(&kind(), &[&list], None).unwrap();
        // Their mean points near north-east, where it wins the third cat.
        assert_eq!(chosen(&found), [vec!["soft"], vec![]]);
        assert_eq!(scores(&found.classes[0]), [("", 4.0), ("soft", 5.0)]);
    }

    #[test]
    fn random_starts_find_what_the_first_start_cannot_reach() {
        // Both candidates are near to every image: one of them alone takes all
        // images for its class, and only with both is the second cat right.
        let cats: [&[f32]; 2] = [&[0.8, 0.6, 0.0, 0.0], &[0.8, 0.0, 0.36, 0.48]];
        let dog: &[f32] = &[0.8, 0.0, 0.6, 0.0];
        let images = images(&CLASSES, &[(0, cats[0]), (0, cats[1]), (1, dog), (1, dog)]);
        let plain = texts(
            &CLASSES,
            &[(0, &[0.0, 1.0, 0.0, 0.0]), (1, &[0.0, 0.0, 1.0, 0.0])],
        );
        let near = trials(
            &CLASSES,
            &[
                (0, &["near"], &[0.8, 0.36, 0.0, 0.48]),
                (1, &["near"], &[0.8, 0.0, 0.6, 0.0]),
            ],
        );
        let run = |restarts, order, seed| -> Attributes {
            let node = JointSelect {
                restarts,
                order,
                seed,
                ..kind()
            };
            let ports = vec![
                ("images", input(&images, &[])),
                ("baseline", input(&plain, &[])),
                ("candidates", input(&near, &[])),
            ];
            finish(&node, ports).unwrap().0
        };
        let found = run(0, Order::Index, 0);
        assert_eq!(chosen(&found), [[""; 0], []]);
        assert_eq!(found.classes[0].score, Some(3.0));
        for (order, seed) in [(Order::Index, 0), (Order::Random, 0), (Order::Random, 1)] {
            let found = run(8, order, seed);
            assert_eq!(chosen(&found), [["near"], ["near"]]);
            assert_eq!(found.classes[0].score, Some(4.0));
            assert_eq!(scores(&found.classes[0]), [("", 2.0), ("near", 4.0)]);
        }
    }

    #[test]
    fn a_random_order_lets_either_of_two_rivals_come_first() {
        let mut first = BTreeSet::new();
        for seed in 0..8 {
            let node = JointSelect {
                order: Order::Random,
                seed,
                ..kind()
            };
            let (found, _) = select(&node, &[&rivals()], None).unwrap();
            assert_eq!(found.classes[0].score, Some(5.0));
            first.insert(chosen(&found).concat().concat());
        }
        assert!(first.iter().eq(["soft", "wild"]), "{first:?}");
    }

    #[test]
    fn rows_that_are_asked_for_judge_alone() {
        // Of the odd images none is the third cat, which "soft" would win.
        let node = JointSelect {
            rows: "odd".parse().unwrap(),
            ..kind()
        };
        let ports = vec![
            ("images", input(&pets(), &[])),
            ("baseline", input(&plain_texts(), &[])),
            ("candidates", input(&rivals(), &[])),
        ];
        let (found, used, _): (Attributes, _, _) = finish(&node, ports).unwrap();
        assert_eq!(chosen(&found), [[""; 0], []]);
        assert_eq!(
            (found.classes[0].score, found.classes[0].images),
            (Some(2.0), Some(2))
        );
        assert_eq!(
            used,
            [LabelUse {
                rows: "odd".into(),
                ..labels("test")
            }]
        );
    }

    #[test]
    fn too_few_sweeps_are_told() {
        let node = JointSelect {
            sweeps: 1,
            ..kind()
        };
        let late = trials(
            &CLASSES,
            &[(0, &["north"], NORTH), (1, &["turned"], NORTH_WEST)],
        );
        let (_, warnings) = select(&node, &[&late], None).unwrap();
        assert_eq!(
            warnings,
            ["the choice may still get better after sweeps = 1\nhint: raise `sweeps`"]
        );
        let none = JointSelect {
            sweeps: 0,
            ..kind()
        };
        assert_eq!(none.check(&BTreeSet::new()).len(), 1);
        assert!(node.check(&BTreeSet::new()).is_empty());
    }

    #[test]
    fn a_nonsense_input_is_refused() {
        let error = |lists: &[&Embeddings]| select(&kind(), lists, None).unwrap_err().to_string();
        let mut bad = rivals();
        bad.data[0] = f32::NAN;
        assert!(error(&[&bad]).starts_with("row 0 of `candidates` (`text 0`) holds a number"));
        assert!(
            error(&[&rivals(), &bad]).starts_with("row 0 of `candidates[1]` (`text 0`) holds"),
            "it says which list"
        );
        let wide = trials(&CLASSES, &[(0, &["soft"], &[1.0, 0.0, 0.0])]);
        assert!(
            error(&[&wide])
                .starts_with("`images` has embeddings of 2 dimensions, and `candidates` of 3")
        );
        let ports = vec![
            ("images", input(&pets(), &[])),
            (
                "baseline",
                input(
                    &trials(
                        &CLASSES,
                        &[(0, &["a"], EAST), (0, &["b"], NORTH), (1, &[], NORTH)],
                    ),
                    &[],
                ),
            ),
            ("candidates", input(&rivals(), &[])),
        ];
        let error = finish::<Attributes>(&kind(), ports)
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with(
                "the texts of class `cat` in `baseline` carry different attributes\nhint: "
            ),
            "{error}"
        );
    }
}
