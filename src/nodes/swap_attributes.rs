//! `swap_attributes`: gives each class the attributes of another one, to tell what
//! they mean from how long they make a prompt.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{draw::Draw, listed};
use crate::{
    artifact::{Artifact, Attributes, ClassAttributes, Output, Type},
    node::{Accept, Complaint, Ctx, Done, Inputs, Kind, Node, Port},
};

/// Which class's attributes a class gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum By {
    /// Those of the class `shift` places further on, in a circle.
    #[default]
    Rotation,
    /// Those of any other class, each class's once.
    Random,
}

/// Parameters of `swap_attributes`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SwapAttributes {
    /// Whose attributes a class gets: those of the class `shift` places further on
    /// ("rotation"), or at "random" those of another class, each class's once.
    #[serde(default)]
    by: By,
    /// How far a rotation goes.
    #[serde(default = "one")]
    #[schemars(range(min = 1))]
    shift: usize,
    /// Draws differ between seeds; the file's `seed` by default.
    #[serde(default)]
    seed: u64,
    /// Draws differ between streams; the round by default.
    #[serde(default)]
    stream: u64,
}

fn one() -> usize {
    1
}

impl SwapAttributes {
    /// For each of `n` classes the one whose attributes it gets, never itself.
    fn sources(&self, n: usize) -> Result<Vec<usize>> {
        ensure!(
            n > 1,
            "the attributes of a single class cannot go to another one\nhint: give more classes"
        );
        match self.by {
            By::Rotation => {
                ensure!(
                    !self.shift.is_multiple_of(n),
                    "among {n} classes a shift of {} moves nothing\nhint: take one that {n} does not divide",
                    self.shift
                );
                Ok((0..n).map(|i| (i + self.shift % n) % n).collect())
            }
            By::Random => {
                let key = json!({"seed": self.seed, "stream": self.stream});
                let mut draw = Draw::new("runner swap draws v1", &key);
                // More than a third of all orders move everything; drawing until
                // one does makes those equally likely.
                loop {
                    let order = draw.order(n);
                    if order.iter().enumerate().all(|(i, source)| i != *source) {
                        return Ok(order);
                    }
                }
            }
        }
    }
}

impl Node for SwapAttributes {
    fn output(&self, _: &BTreeSet<&str>) -> Type {
        Type::Attributes
    }

    fn check(&self, _: &BTreeSet<&str>) -> Vec<Complaint> {
        let complain = |message: &str, hint: &str| {
            vec![Complaint {
                field: Some("shift"),
                message: message.to_owned(),
                hint: Some(hint.to_owned()),
            }]
        };
        match (self.by, self.shift) {
            (By::Rotation, 0) => complain("nothing would move", "`shift` must be at least 1"),
            (By::Random, shift) if shift != one() => complain(
                "a random order has no shift",
                "remove `shift`, or say by = \"rotation\"",
            ),
            _ => Vec::new(),
        }
    }

    fn finish(&self, inputs: &Inputs, _: &Done, ctx: &mut Ctx<'_>) -> Result<Output> {
        let given = inputs.attributes("attributes")?.classes;
        // Before the first round there is nothing to move.
        if given.is_empty() {
            return Attributes::default().output();
        }
        let mut same = Vec::new();
        let mut classes = Vec::with_capacity(given.len());
        for (entry, source) in given.iter().zip(self.sources(given.len())?) {
            let attributes = given[source].attributes.clone();
            if attributes == entry.attributes {
                same.push(entry.class.as_str());
            }
            // Scores were those of the attributes in their own class.
            classes.push(ClassAttributes {
                class: entry.class.clone(),
                attributes,
                ..ClassAttributes::default()
            });
        }
        if !same.is_empty() {
            (ctx.warn)(format!(
                "{} of {} classes get the very attributes that they had: {}",
                same.len(),
                given.len(),
                listed(&same)
            ));
        }
        Attributes { classes }.output()
    }
}

impl Kind for SwapAttributes {
    const NAME: &'static str = "swap_attributes";
    const VERSION: u32 = 1;
    const PORTS: &'static [Port] = &[Port::required(
        "attributes",
        &[Accept::Artifact(Type::Attributes)],
        "Attributes of all classes.",
    )];
    const DRAWS: bool = true;
    const SUMMARY: &'static str = "gives each class the attributes of another class";
    const DOC: &'static str = r#"Moves whole lists of attributes between classes. Prompts keep their number of words and
their style, and lose what they say of their class: an accuracy that stays is owed to the
length of prompts, one that falls to what the attributes mean.

By "rotation" class i gets the attributes of class i + `shift`; at "random" each class's
attributes go to one other class, all such ways being equally likely, drawn from seed and
stream. No class keeps its own list; where another class's list is equal, a warning says
so. Scores are dropped: they were those of another class.

Artifact: `attributes.json` (for each class `attributes`).

Example, after each of three rounds:

    [nodes.swapped]
    kind = "swap_attributes"
    matrix = { n = [0, 1, 2, 3] }
    attributes = "refine@${n}"

    [nodes.swapped_prompts]
    kind = "clip_encode"
    matrix = { n = [0, 1, 2, 3] }
    model = "clip"
    classes = "cifar10"
    chosen = "swapped@${n}"
    prompts = "This is a photo of a {{ class }}{% if attributes %} because of {{ attributes | join(' and ') }}{% endif %}"
"#;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        artifact::Scored,
        node::Input,
        nodes::in_memory::{finish, input, labels},
    };

    fn swap(fields: &str) -> SwapAttributes {
        toml::from_str(fields).unwrap()
    }

    fn run(fields: &str, lists: &[&str]) -> Result<(Vec<String>, Vec<String>)> {
        let class = |(i, list): (usize, &&str)| ClassAttributes {
            class: i.to_string(),
            attributes: list.split_whitespace().map(str::to_owned).collect(),
            score: Some(1.0),
            candidates: vec![Scored {
                attribute: "fur".into(),
                score: 1.0,
            }],
            baseline: Some(0.0),
            images: Some(2),
        };
        let given = Attributes {
            classes: lists.iter().enumerate().map(class).collect(),
        };
        let ports = vec![("attributes", input(&given, &[labels("train")]))];
        let (found, read, warnings): (Attributes, _, _) = finish(&swap(fields), ports)?;
        assert!(read.is_empty(), "no label is read");
        for (i, entry) in found.classes.iter().enumerate() {
            let bare = ClassAttributes {
                class: i.to_string(),
                attributes: entry.attributes.clone(),
                ..ClassAttributes::default()
            };
            assert_eq!(*entry, bare, "no score stays");
        }
        let lists = found.classes.iter().map(|entry| entry.attributes.join(" "));
        Ok((lists.collect(), warnings))
    }

    #[test]
    fn a_rotation_gives_each_class_the_next_ones_list() {
        let lists = ["a x", "b", "", "d"];
        let (found, warnings) = run("", &lists).unwrap();
        assert_eq!(found, ["b", "", "d", "a x"]);
        assert!(warnings.is_empty());
        let (found, _) = run("shift = 3", &lists).unwrap();
        assert_eq!(found, ["d", "a x", "b", ""]);
        let (found, _) = run("shift = 7", &lists).unwrap();
        assert_eq!(found, ["d", "a x", "b", ""]);
    }

    #[test]
    fn lists_that_stay_equal_are_counted() {
        let (found, warnings) = run("", &["a", "a", "b", ""]).unwrap();
        assert_eq!(found, ["a", "b", "", "a"]);
        assert_eq!(
            warnings,
            ["1 of 4 classes get the very attributes that they had: `0`"]
        );
        let (_, warnings) = run("by = \"random\"", &["", "", "", "", "", ""]).unwrap();
        assert_eq!(
            warnings,
            ["6 of 6 classes get the very attributes that they had: `0`, `1`, `2`, `3` and 2 more"]
        );
    }

    #[test]
    fn a_random_order_depends_on_seed_and_stream() {
        let order = |seed: u64, stream: u64| {
            let fields = format!("by = \"random\"\nseed = {seed}\nstream = {stream}");
            swap(&fields).sources(8).unwrap()
        };
        assert_eq!(order(0, 0), [1, 6, 3, 5, 7, 2, 0, 4]);
        assert_eq!(order(1, 0), [5, 2, 1, 7, 6, 3, 4, 0]);
        assert_eq!(order(0, 1), [6, 2, 3, 5, 1, 0, 7, 4]);
        let lists = ["a", "b", "c", "d", "e", "f", "g", "h"];
        let (found, _) = run("by = \"random\"", &lists).unwrap();
        assert_eq!(found.concat(), "bgdfhcae");
    }

    #[test]
    fn all_orders_that_move_everything_are_equally_likely() {
        let mut counts = std::collections::BTreeMap::new();
        for seed in 0..9000 {
            let order = swap(&format!("by = \"random\"\nseed = {seed}"))
                .sources(4)
                .unwrap();
            assert!(order.iter().enumerate().all(|(i, source)| i != *source));
            *counts.entry(order).or_insert(0_f64) += 1.0;
        }
        assert_eq!(counts.len(), 9, "derangements of four");
        let chi: f64 = counts.values().map(|c| (c - 1000.0).powi(2) / 1000.0).sum();
        // 99.9% point of chi-square with 8 degrees of freedom.
        assert!(chi < 26.13, "{chi}");
    }

    #[test]
    fn before_the_first_round_there_is_nothing_to_move() {
        let ports = vec![("attributes", Input::Empty(Type::Attributes))];
        let (found, _, warnings): (Attributes, _, _) = finish(&swap(""), ports).unwrap();
        assert_eq!(found, Attributes::default());
        assert!(warnings.is_empty());
    }

    #[test]
    fn what_cannot_be_moved_is_refused() {
        let error = |fields: &str, lists: &[&str]| run(fields, lists).unwrap_err().to_string();
        assert_eq!(
            error("shift = 4", &["a", "b"]),
            "among 2 classes a shift of 4 moves nothing\nhint: take one that 2 does not divide"
        );
        assert_eq!(
            error("by = \"random\"", &["a"]),
            "the attributes of a single class cannot go to another one\nhint: give more classes"
        );
        let complaints = |fields: &str| swap(fields).check(&BTreeSet::new()).len();
        assert_eq!(complaints("shift = 0"), 1);
        assert_eq!(complaints("by = \"random\"\nshift = 2"), 1);
        assert_eq!(complaints("by = \"random\"") + complaints("shift = 2"), 0);
    }
}
