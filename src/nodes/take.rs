//! `take`: some candidates of each class without weighing them, the control to
//! every way of choosing.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{candidate_pool::candidate_pool, draw::Draw, listed};
use crate::{
    artifact::{Artifact, Attributes, ClassAttributes, Output, Type},
    node::{Accept, Complaint, Ctx, Done, Inputs, Kind, Node, Port},
};

/// Which candidates are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Order {
    /// Those that come first.
    #[default]
    First,
    /// Any, all equally likely.
    Random,
}

/// Parameters of `take`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Take {
    /// How many candidates are added to each class.
    #[serde(default = "one")]
    #[schemars(range(min = 1))]
    count: usize,
    /// Which are taken: the "first", or some at "random".
    #[serde(default)]
    draw: Order,
    /// Pass over candidates that the class has chosen before. The study does not:
    /// there an attribute that the LLM names again may be taken again.
    #[serde(default = "yes")]
    skip_chosen: bool,
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
fn yes() -> bool {
    true
}

impl Take {
    /// What is taken of `candidates` for `class`.
    fn taken(&self, class: &str, candidates: &[String]) -> Vec<String> {
        let of = |places: &mut dyn Iterator<Item = usize>| {
            let places = places.take(self.count);
            places.map(|i| candidates[i].clone()).collect()
        };
        match self.draw {
            Order::First => of(&mut (0..candidates.len())),
            Order::Random => {
                let key = json!({"seed": self.seed, "stream": self.stream, "class": class});
                let order = Draw::new("runner take draws v1", &key).order(candidates.len());
                of(&mut order.into_iter())
            }
        }
    }
}

impl Node for Take {
    fn output(&self, _: &BTreeSet<&str>) -> Type {
        Type::Attributes
    }

    fn check(&self, _: &BTreeSet<&str>) -> Vec<Complaint> {
        if self.count > 0 {
            return Vec::new();
        }
        vec![Complaint {
            field: Some("count"),
            message: "no candidate would be taken".to_owned(),
            hint: Some("`count` must be at least 1".to_owned()),
        }]
    }

    fn finish(&self, inputs: &Inputs, _: &Done, ctx: &mut Ctx<'_>) -> Result<Output> {
        let names = inputs.classes("candidates")?;
        let pool = candidate_pool(inputs, &names, 0)?;
        let chosen = inputs.attributes("chosen")?;
        let chosen_of = chosen.classes.iter().map(|entry| &entry.class);
        ensure!(
            chosen.classes.is_empty() || chosen_of.eq(&names),
            "`chosen` and `candidates` list different classes\nhint: make both from the same `classes`"
        );
        let (mut none, mut few) = (Vec::new(), Vec::new());
        let mut classes = Vec::with_capacity(names.len());
        for (class, mut candidates) in names.iter().zip(pool) {
            let mut attributes = chosen.of(class).to_vec();
            if self.skip_chosen {
                candidates.retain(|candidate| !attributes.contains(candidate));
            }
            match candidates.len() {
                0 => none.push(class.as_str()),
                n if n < self.count => few.push(class.as_str()),
                _ => {}
            }
            attributes.extend(self.taken(class, &candidates));
            // Nothing was weighed: there is no score, and no list of candidates.
            classes.push(ClassAttributes {
                class: class.clone(),
                attributes,
                ..ClassAttributes::default()
            });
        }
        if !none.is_empty() {
            (ctx.warn)(format!(
                "no candidate can be taken for {}: what was chosen before stays",
                listed(&none)
            ));
        }
        if !few.is_empty() {
            (ctx.warn)(format!(
                "fewer than count = {} candidates can be taken for {}: all of them are",
                self.count,
                listed(&few)
            ));
        }
        Attributes { classes }.output()
    }
}

impl Kind for Take {
    const NAME: &'static str = "take";
    const VERSION: u32 = 1;
    const PORTS: &'static [Port] = &[
        Port::required(
            "candidates",
            &[
                Accept::Artifact(Type::Answers),
                Accept::Artifact(Type::Attributes),
            ],
            "Answers, or attributes, of which some are taken.",
        ),
        Port::optional(
            "chosen",
            &[Accept::Artifact(Type::Attributes)],
            "Attributes chosen so far, which come first.",
        ),
    ];
    const DRAWS: bool = true;
    const SUMMARY: &'static str = "takes candidates of each class without weighing them";
    const DOC: &'static str = r#"Adds `count` of each class's candidates to what was chosen so far, and weighs nothing:
the first ones, or with `draw = "random"` any. It is the control to `greedy_select` and
`cosine_rank`: what they gain over it is due to the choice, what it gains over the plain
prompt is due to the candidates.

A candidate that occurs twice counts once. One that was chosen before is passed over,
unless `skip_chosen = false`, as in the study. A class with fewer candidates gets those
that it has, one without any stays as it is, both with a warning.

Random numbers depend on seed, stream and class: each class draws by itself, and in a
round each round draws anew.

Artifact: `attributes.json` (for each class `attributes`; no score, as nothing was weighed).

Example, three rounds of random words that nobody chose:

    [rounds.unweighed]
    count = 3
    result = "taken"

    [rounds.unweighed.nodes.words]
    kind = "llm_generate"
    model = "llm"
    classes = "cifar10"
    prompt_file = "prompts/random.j2"
    chosen = "previous"

    [rounds.unweighed.nodes.taken]
    kind = "take"
    candidates = "words"
    chosen = "previous"
    draw = "random"
"#;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        artifact::{Answer, Answers},
        node::Input,
        nodes::in_memory::{finish, input, labels},
    };

    fn take(fields: &str) -> Take {
        toml::from_str(fields).unwrap()
    }

    fn attributes(classes: &[(&str, &[&str])]) -> Attributes {
        let class = |(class, attributes): &(&str, &[&str])| ClassAttributes {
            class: (*class).to_owned(),
            attributes: attributes.iter().map(|a| (*a).to_owned()).collect(),
            ..ClassAttributes::default()
        };
        Attributes {
            classes: classes.iter().map(class).collect(),
        }
    }

    fn run(
        fields: &str,
        candidates: Input,
        chosen: Option<Input>,
    ) -> Result<(Attributes, Vec<String>)> {
        let mut ports = vec![("candidates", candidates)];
        ports.extend(chosen.map(|chosen| ("chosen", chosen)));
        let (found, read, warnings) = finish(&take(fields), ports)?;
        assert!(read.is_empty(), "no label is read");
        Ok((found, warnings))
    }

    #[test]
    fn the_first_candidate_is_added_behind_what_was_chosen() {
        let candidates =
            attributes(&[("cat", &["fur", "tail", "fur", "paws"]), ("dog", &["nose"])]);
        let mut chosen = attributes(&[("cat", &["fur"]), ("dog", &[])]);
        chosen.classes[0].score = Some(7.0);
        let ports = || {
            (
                input(&candidates, &[]),
                Some(input(&chosen, &[labels("train")])),
            )
        };
        let (first, second) = ports();
        let (found, warnings) = run("", first, second).unwrap();
        assert_eq!(
            found,
            attributes(&[("cat", &["fur", "tail"]), ("dog", &["nose"])])
        );
        assert!(warnings.is_empty());
        let (first, second) = ports();
        let (found, _) = run("skip_chosen = false", first, second).unwrap();
        assert_eq!(found.classes[0].attributes, ["fur", "fur"]);
        let (found, _) = run("", input(&candidates, &[]), None).unwrap();
        assert_eq!(found.classes[0].attributes, ["fur"]);
        let empty = Some(Input::Empty(Type::Attributes));
        let (found, _) = run("", input(&candidates, &[]), empty).unwrap();
        assert_eq!(found.classes[0].attributes, ["fur"]);
    }

    #[test]
    fn answers_are_taken_in_their_order_and_invalid_ones_are_not() {
        let answer = |class_index, sample, attributes: &[&str], valid| Answer {
            class_index,
            sample,
            attributes: attributes.iter().map(|a| (*a).to_owned()).collect(),
            valid,
            ..Answer::default()
        };
        let answers = Answers {
            answers: vec![
                answer(0, 0, &["never"], false),
                answer(0, 1, &["fur", "tail"], true),
                answer(0, 2, &["tail", "paws"], true),
                answer(1, 0, &["nose"], true),
            ],
            classes: vec!["cat".into(), "dog".into()],
        };
        let (found, warnings) = run("count = 3", input(&answers, &[]), None).unwrap();
        let expected = attributes(&[("cat", &["fur", "tail", "paws"]), ("dog", &["nose"])]);
        assert_eq!(found, expected);
        assert_eq!(
            warnings,
            ["fewer than count = 3 candidates can be taken for `dog`: all of them are"]
        );
    }

    #[test]
    fn a_class_without_candidates_keeps_its_state_with_a_warning() {
        let candidates = attributes(&[("cat", &["fur"]), ("dog", &[]), ("frog", &["wet", "leg"])]);
        let chosen = attributes(&[("cat", &["fur"]), ("dog", &["nose"]), ("frog", &["wet"])]);
        let chosen = Some(input(&chosen, &[]));
        let (found, warnings) = run("count = 2", input(&candidates, &[]), chosen).unwrap();
        let expected = [
            ("cat", &["fur"][..]),
            ("dog", &["nose"]),
            ("frog", &["wet", "leg"]),
        ];
        assert_eq!(found, attributes(&expected));
        assert_eq!(
            warnings,
            [
                "no candidate can be taken for `cat`, `dog`: what was chosen before stays",
                "fewer than count = 2 candidates can be taken for `frog`: all of them are",
            ]
        );
    }

    #[test]
    fn a_random_draw_depends_on_seed_stream_and_class_alone() {
        let pool = &["a", "b", "c", "d", "e", "f", "g", "h"][..];
        let draw = |seed: u64, stream: u64, count: usize| {
            let fields =
                format!("draw = \"random\"\nseed = {seed}\nstream = {stream}\ncount = {count}");
            let candidates = attributes(&[("cat", pool), ("dog", pool)]);
            let (found, _) = run(&fields, input(&candidates, &[]), None).unwrap();
            found
                .classes
                .into_iter()
                .map(|entry| entry.attributes.concat())
                .collect::<Vec<_>>()
        };
        assert_eq!(draw(0, 0, 3), ["had", "dgb"]);
        assert_eq!(draw(1, 0, 3), ["egb", "hcd"]);
        assert_eq!(draw(0, 1, 3), ["ecf", "ehc"]);
        assert_eq!(draw(0, 0, 1), ["h", "d"]);
    }

    #[test]
    fn every_candidate_is_taken_as_often_as_the_others() {
        let pool: Vec<String> = (0..5).map(|i| i.to_string()).collect();
        let mut counts = [0_f64; 5];
        for seed in 0..5000 {
            let node = take(&format!("draw = \"random\"\nseed = {seed}"));
            let taken: usize = node.taken("cat", &pool)[0].parse().unwrap();
            counts[taken] += 1.0;
        }
        let chi: f64 = counts.iter().map(|c| (c - 1000.0).powi(2) / 1000.0).sum();
        // 99.9% point of chi-square with 4 degrees of freedom.
        assert!(chi < 18.47, "{chi}");
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(take("count = 0").check(&BTreeSet::new()).len(), 1);
        assert!(take("").check(&BTreeSet::new()).is_empty());
        assert!(toml::from_str::<Take>("draw = \"last\"").is_err());
        let candidates = attributes(&[("cat", &["fur"]), ("dog", &["nose"])]);
        let chosen = attributes(&[("dog", &["nose"]), ("cat", &[])]);
        let error = run("", input(&candidates, &[]), Some(input(&chosen, &[]))).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`chosen` and `candidates` list different classes\nhint: make both from the same `classes`"
        );
    }
}
