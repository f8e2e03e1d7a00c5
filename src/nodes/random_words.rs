//! `random_words`: descriptors that mean nothing, as `WaffleCLIP` makes them.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::draw::Draw;
use crate::{
    artifact::{Artifact, Attributes, ClassAttributes, Output, Type},
    models::clip::words,
    node::{Accept, Complaint, Ctx, Done, Inputs, Kind, Node, Port},
};

/// What descriptors of characters are made of.
const CHARACTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";
/// Draws in a row that give nothing new before there is taken to be nothing.
const MOST_REPEATS: usize = 1000;

/// What descriptors are made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Of {
    /// Words of CLIP's vocabulary.
    Words,
    /// Letters and digits.
    Characters,
    /// One of words, one of characters, and so on.
    #[default]
    Both,
}

/// Parameters of `random_words`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RandomWords {
    /// Descriptors of each class. The paper takes 15 pairs.
    #[serde(default = "thirty")]
    #[schemars(range(min = 1))]
    count: usize,
    /// What they are made of: "words", "characters", or "both" in turn, which is
    /// the paper's way.
    #[serde(default)]
    of: Of,
    /// Words in a descriptor of words; by default as many as the classes' names
    /// have on average, as in the paper.
    #[serde(default)]
    #[schemars(range(min = 1))]
    words: Option<usize>,
    /// Cut words to the average length of a word in the classes' names, as in the
    /// paper.
    #[serde(default = "yes")]
    cut: bool,
    /// Give all classes the same descriptors, as in the paper; else each class
    /// draws its own.
    #[serde(default = "yes")]
    shared: bool,
    /// Draws differ between seeds; the file's `seed` by default.
    #[serde(default)]
    seed: u64,
    /// Draws differ between streams; the round by default.
    #[serde(default)]
    stream: u64,
}

fn thirty() -> usize {
    30
}
fn yes() -> bool {
    true
}

/// How long descriptors are, from the classes' names: `WaffleCLIP`'s `load_gpt_descriptions`
/// with mode `waffle`.
#[derive(Debug, PartialEq, Eq)]
struct Lengths {
    /// Words in a descriptor of words.
    words: usize,
    /// Letters to which a word is cut.
    letters: usize,
    /// Groups of characters in a descriptor of characters.
    groups: usize,
    /// Characters in a group.
    characters: usize,
}

impl Lengths {
    fn of(classes: &[String]) -> Self {
        // Letters of each word of each name.
        let split = |at: &[char]| -> Vec<Vec<usize>> {
            (classes.iter())
                .map(|name| {
                    let words = name.split(at).filter(|word| !word.is_empty());
                    words.map(|word| word.chars().count()).collect()
                })
                .filter(|name: &Vec<usize>| !name.is_empty())
                .collect()
        };
        let total = |names: &[Vec<usize>]| names.iter().map(Vec::len).sum::<usize>();
        let names = split(&[' ', '_']);
        let n = names.len().max(1);
        let mean = |name: &Vec<usize>| name.iter().sum::<usize>() as f64 / name.len() as f64;
        let letters = names.iter().map(mean).sum::<f64>() / n as f64;
        let words = rounded(total(&names), n).max(1);
        // Only here an underscore does not end a word.
        let names = split(&[' ']);
        let n = names.len().max(1);
        let groups = rounded(total(&names).saturating_sub(n), n) + 1;
        let longest = names.iter().filter_map(|name| name.iter().max());
        let characters = longest.sum::<usize>().div_ceil(n);
        Self {
            words,
            letters: (letters.round_ties_even() as usize).max(1),
            groups,
            // Filled up to a multiple of the groups, and by a whole one if it is one.
            characters: characters / groups + 1,
        }
    }
}

/// `sum / n` as a whole number; halves go to the even one, as in `NumPy`.
fn rounded(sum: usize, n: usize) -> usize {
    let (whole, rest) = (sum / n, sum % n);
    match (2 * rest).cmp(&n) {
        std::cmp::Ordering::Less => whole,
        std::cmp::Ordering::Equal => whole + whole % 2,
        std::cmp::Ordering::Greater => whole + 1,
    }
}

impl RandomWords {
    /// The descriptors of one class, or of all of them (`None`).
    fn descriptors(
        &self,
        class: Option<&str>,
        lengths: &Lengths,
        vocabulary: &[&str],
    ) -> Result<Vec<String>> {
        // Words and characters draw apart, so that "both" begins with those of "words".
        let draw = |of: &str| {
            let key = json!({"seed": self.seed, "stream": self.stream, "class": class, "of": of});
            Draw::new("runner random words draws v1", &key)
        };
        let (mut words, mut characters) = (draw("words"), draw("characters"));
        let mut list: Vec<String> = Vec::with_capacity(self.count);
        let mut repeats = 0;
        while list.len() < self.count {
            let of_words = match self.of {
                Of::Words => true,
                Of::Characters => false,
                Of::Both => list.len().is_multiple_of(2),
            };
            let descriptor = if of_words {
                self.of_words(lengths, vocabulary, &mut words)
            } else {
                of_characters(lengths, &mut characters)
            };
            if list.contains(&descriptor) {
                repeats += 1;
                ensure!(
                    repeats < MOST_REPEATS,
                    "no more than {} different descriptors were found, and count = {}\nhint: ask for fewer, or for more `words` in each",
                    list.len(),
                    self.count
                );
                continue;
            }
            repeats = 0;
            list.push(descriptor);
        }
        Ok(list)
    }

    fn of_words(&self, lengths: &Lengths, vocabulary: &[&str], draw: &mut Draw) -> String {
        let letters = if self.cut {
            lengths.letters
        } else {
            usize::MAX
        };
        let words: Vec<&str> = (0..self.words.unwrap_or(lengths.words))
            .map(|_| {
                let word = vocabulary[draw.below(vocabulary.len())];
                word.get(..letters).unwrap_or(word)
            })
            .collect();
        words.join(" ")
    }
}

fn of_characters(lengths: &Lengths, draw: &mut Draw) -> String {
    let groups: Vec<String> = (0..lengths.groups)
        .map(|_| {
            let characters = 0..lengths.characters;
            characters
                .map(|_| char::from(CHARACTERS[draw.below(CHARACTERS.len())]))
                .collect()
        })
        .collect();
    groups.join(", ")
}

impl Node for RandomWords {
    fn output(&self, _: &BTreeSet<&str>) -> Type {
        Type::Attributes
    }

    fn check(&self, _: &BTreeSet<&str>) -> Vec<Complaint> {
        let mut out = Vec::new();
        let mut complain = |field, message: &str, hint: &str| {
            out.push(Complaint {
                field: Some(field),
                message: message.to_owned(),
                hint: Some(hint.to_owned()),
            });
        };
        match (self.of, self.count) {
            (_, 0) => complain(
                "count",
                "no descriptor would be made",
                "it must be at least 1",
            ),
            (Of::Both, count) if count % 2 == 1 => complain(
                "count",
                "words and characters come in pairs, and this is an odd number",
                "make it even, or say of = \"words\"",
            ),
            _ => {}
        }
        match (self.of, self.words) {
            (_, Some(0)) => complain(
                "words",
                "a descriptor would be empty",
                "it must be at least 1",
            ),
            (Of::Characters, Some(_)) => complain(
                "words",
                "descriptors of characters have no words",
                "remove `words`, or say of = \"both\"",
            ),
            _ => {}
        }
        if self.of == Of::Characters && !self.cut {
            complain(
                "cut",
                "descriptors of characters have no words",
                "remove `cut`",
            );
        }
        out
    }

    fn reads(&self, port: &str, _: &BTreeSet<&str>) -> Option<&'static [&'static str]> {
        (port == "classes").then_some(&["classes"])
    }

    fn finish(&self, inputs: &Inputs, _: &Done, _: &mut Ctx<'_>) -> Result<Output> {
        let names = inputs.classes("classes")?;
        let lengths = Lengths::of(&names);
        let vocabulary = words()?;
        let shared = (self.shared)
            .then(|| self.descriptors(None, &lengths, &vocabulary))
            .transpose()?;
        let mut classes = Vec::with_capacity(names.len());
        for class in names {
            let attributes = match &shared {
                Some(shared) => shared.clone(),
                None => self.descriptors(Some(&class), &lengths, &vocabulary)?,
            };
            classes.push(ClassAttributes {
                class,
                attributes,
                ..ClassAttributes::default()
            });
        }
        Attributes { classes }.output()
    }
}

impl Kind for RandomWords {
    const NAME: &'static str = "random_words";
    const VERSION: u32 = 1;
    const PORTS: &'static [Port] = &[Port::required(
        "classes",
        &[Accept::Classes],
        "Classes that get descriptors; their names say how long those are.",
    )];
    const DRAWS: bool = true;
    const SUMMARY: &'static str =
        "makes random words and characters for each class, as WaffleCLIP does";
    const DOC: &'static str = r#"Makes descriptors that mean nothing, to see what an ensemble of prompts gains by itself:
the construction of WaffleCLIP (Roth et al., Waffling around for Performance, ICCV 2023).

A descriptor of words has as many words as a class's name has on average, drawn one by
one and cut to the average length of a word in the names. A descriptor of characters has
as many groups as a name has words, joined by ", ", and more characters in all than the
longest word of a name has on average. "both" makes pairs of one of each: 30 descriptors
are the paper's 15 pairs. All classes share them, unless `shared = false`.

Three things differ from the paper's code. Words come from CLIP's own vocabulary (5,818
words of three or more letters among its first 10,000 merges), not from descriptions that
GPT-3 wrote; characters are letters and digits, not all that occur in those descriptions;
no descriptor occurs twice in a class.

Random numbers depend on seed and stream, and on the class unless descriptors are shared.

The descriptors are candidates, each for a text of its own; the texts of a class are
averaged where they are used, and the mean is scaled to length 1. The paper averages
cosines, which leaves the mean as it is, and writes "which is" in place of "which has"
before a descriptor that begins with an a.

Artifact: `attributes.json` (for each class its descriptors as `attributes`).

Example, the paper's ensemble:

    [nodes.waffle]
    kind = "random_words"
    classes = "cifar10"

    [nodes.waffle_texts]
    kind = "clip_encode"
    model = "clip"
    classes = "cifar10"
    candidates = "waffle"
    prompts = "A photo of a {{ class }}, which has {{ candidate }}."

    [nodes.waffle_eval]
    kind = "zeroshot_eval"
    images = "images"
    classifier = "waffle_texts"
"#;
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{data::ClassList, node::Input, nodes::in_memory::finish};

    const CIFAR10: [&str; 10] = [
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    ];

    fn random(fields: &str) -> RandomWords {
        toml::from_str(fields).unwrap()
    }

    fn owned(classes: &[&str]) -> Vec<String> {
        classes.iter().map(|class| (*class).to_owned()).collect()
    }

    fn run(fields: &str, classes: &[&str]) -> Result<Vec<Vec<String>>> {
        let node = random(fields);
        assert!(node.check(&BTreeSet::new()).is_empty(), "{fields}");
        let list = Input::Classes(Arc::new(ClassList::new(owned(classes))?));
        let (found, labels, warnings): (Attributes, _, _) = finish(&node, vec![("classes", list)])?;
        assert!(labels.is_empty() && warnings.is_empty());
        for (class, entry) in classes.iter().zip(&found.classes) {
            let bare = ClassAttributes {
                class: (*class).to_owned(),
                attributes: entry.attributes.clone(),
                ..ClassAttributes::default()
            };
            assert_eq!(*entry, bare);
        }
        Ok(found
            .classes
            .into_iter()
            .map(|entry| entry.attributes)
            .collect())
    }

    #[test]
    fn lengths_are_the_papers() {
        let of = |classes: &[&str]| {
            let Lengths {
                words,
                letters,
                groups,
                characters,
            } = Lengths::of(&owned(classes));
            [words, letters, groups, characters]
        };
        // Computed in NumPy from the formulas of the paper's code.
        assert_eq!(of(&CIFAR10), [1, 5, 1, 6]);
        assert_eq!(of(&["tiger cat", "dog"]), [2, 4, 1, 5]);
        assert_eq!(
            of(&["great white shark", "tiger shark", "cock", "hen"]),
            [2, 4, 2, 3]
        );
        assert_eq!(of(&["red fox", "grey wolf", "cat bird"]), [2, 4, 2, 3]);
        assert_eq!(of(&["maple_tree", "aquarium_fish", "can"]), [2, 4, 1, 10]);
    }

    #[test]
    fn pairs_of_words_and_characters_are_shared_by_all_classes() {
        let found = run("count = 6", &CIFAR10).unwrap();
        assert_eq!(
            found[0],
            ["wip", "h4sgak", "doubl", "ukojk0", "engla", "qpay5w"]
        );
        assert!(found.iter().all(|list| *list == found[0]));
        assert_eq!(run("", &CIFAR10).unwrap()[3].len(), 30);
        let words = run("count = 3\nof = \"words\"", &CIFAR10).unwrap();
        let characters = run("count = 3\nof = \"characters\"", &CIFAR10).unwrap();
        let pairs = words[0]
            .iter()
            .zip(&characters[0])
            .flat_map(|(a, b)| [a, b]);
        assert!(
            pairs.eq(&found[0]),
            "both are the words and the characters in turn"
        );
    }

    #[test]
    fn seeds_streams_and_classes_draw_apart() {
        let draw = |fields: &str| {
            let fields = format!("count = 2\nof = \"words\"\ncut = false\n{fields}");
            let found = run(&fields, &["cat", "dog"]).unwrap();
            [found[0].join(" "), found[1].join(" ")]
        };
        assert_eq!(draw("seed = 1"), ["ipad belgium", "ipad belgium"]);
        assert_eq!(draw("stream = 1"), ["ape nasty", "ape nasty"]);
        assert_eq!(
            draw("shared = false"),
            ["basic teachers", "executive judge"]
        );
        assert_eq!(
            draw("words = 3"),
            [
                "wip double england queen chy medical",
                "wip double england queen chy medical"
            ]
        );
    }

    #[test]
    fn no_descriptor_occurs_twice_and_too_many_are_an_error() {
        // One letter a word and 24 letters that words begin with, or so.
        let of = |count: usize| run(&format!("of = \"words\"\ncount = {count}"), &["a", "b"]);
        let found = of(20).unwrap();
        let distinct: BTreeSet<&String> = found[0].iter().collect();
        assert_eq!(distinct.len(), 20);
        assert_eq!(
            of(40).unwrap_err().to_string(),
            "no more than 26 different descriptors were found, and count = 40\nhint: ask for fewer, or for more `words` in each"
        );
    }

    #[test]
    fn nonsense_is_told() {
        let complaints = |fields: &str| -> Vec<&str> {
            let found = random(fields).check(&BTreeSet::new());
            found
                .iter()
                .filter_map(|complaint| complaint.field)
                .collect()
        };
        assert_eq!(complaints("count = 0"), ["count"]);
        assert_eq!(complaints("count = 5"), ["count"]);
        assert_eq!(complaints("words = 0"), ["words"]);
        assert_eq!(
            complaints("of = \"characters\"\nwords = 2\ncut = false"),
            ["words", "cut"]
        );
        assert!(complaints("of = \"words\"\ncount = 5\nwords = 2").is_empty());
        assert!(complaints("").is_empty());
    }

    #[test]
    fn halves_are_rounded_to_even_numbers() {
        let found = [(1, 2), (3, 2), (5, 2), (4, 3), (5, 3)].map(|(sum, n)| rounded(sum, n));
        assert_eq!(found, [0, 2, 2, 1, 2]);
    }
}
