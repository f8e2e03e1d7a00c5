//! Nodes that differ between two runs, and by what.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{RunSide, SideNode};
use crate::artifact::{Attributes, ClassAttributes};

/// A named value in both runs; `None` where a run has none, such as a parameter
/// left at its default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pair {
    /// What it is.
    pub name: String,
    /// In the first run.
    pub a: Option<String>,
    /// In the second run.
    pub b: Option<String>,
}

/// A parameter that differs in the same way in some nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ParameterChange {
    /// The parameter with its two values.
    #[serde(flatten)]
    pub pair: Pair,
    /// The nodes.
    pub nodes: Vec<String>,
}

/// Why a node differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    /// Its own parameters or its kind.
    Own,
    /// Only what it reads.
    Inputs,
    /// Its result, or what became of it, though its key is the same or not known.
    Result,
}

/// A node of both runs that differs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NodeChange {
    /// Its name.
    pub id: String,
    /// Why.
    pub cause: Cause,
    /// What became of it.
    pub states: (String, String),
    /// Seconds that it took.
    pub seconds: (Option<f64>, Option<f64>),
    /// Its keys.
    pub keys: (Option<String>, Option<String>),
    /// Whether both artifacts are known and the same.
    pub same_result: Option<bool>,
    /// Its kind, where it differs.
    pub kind: Option<Pair>,
    /// Parameters that differ.
    pub params: Vec<Pair>,
    /// Parts of its inputs that differ.
    pub inputs: Vec<Pair>,
    /// Classes for which it chose otherwise.
    pub attributes: Vec<AttributesChange>,
    /// Counts of answers that differ.
    pub answers: Vec<AnswersChange>,
    /// All of it in short sentences, a parameter or an input each.
    pub sentences: Vec<String>,
}

/// What was chosen otherwise for a class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AttributesChange {
    /// The class.
    pub class: String,
    /// Attributes that both runs chose.
    pub kept: usize,
    /// Those that only the first chose.
    pub lost: Vec<String>,
    /// Those that only the second chose.
    pub gained: Vec<String>,
}

/// A count of answers that differs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AnswersChange {
    /// What is counted: `invalid_percent`.
    pub name: String,
    /// In the first run.
    pub a: f64,
    /// In the second run.
    pub b: f64,
}

/// Nodes of both runs, in the order of `b`.
pub(super) fn paired<'r>(a: &'r RunSide, b: &'r RunSide) -> Vec<(&'r SideNode, &'r SideNode)> {
    let of_a: BTreeMap<&str, &SideNode> = a.nodes.iter().map(|n| (n.id.as_str(), n)).collect();
    let pairs = b.nodes.iter().filter_map(|now| {
        let before = of_a.get(now.id.as_str())?;
        Some((*before, now))
    });
    pairs.collect()
}

/// Names of nodes that `a` has and `b` has not.
pub(super) fn only(a: &RunSide, b: &RunSide) -> Vec<String> {
    let of_b: BTreeSet<&str> = b.nodes.iter().map(|n| n.id.as_str()).collect();
    let missing = a.nodes.iter().filter(|n| !of_b.contains(n.id.as_str()));
    missing.map(|n| n.id.clone()).collect()
}

/// The nodes that differ.
pub(super) fn changes(a: &RunSide, b: &RunSide) -> Vec<NodeChange> {
    let pairs = paired(a, b);
    pairs
        .into_iter()
        .filter_map(|(a, b)| change(a, b))
        .collect()
}

fn change(a: &SideNode, b: &SideNode) -> Option<NodeChange> {
    // Of a node without a key, little else may be known.
    let keyed = a.key.is_some() && b.key.is_some();
    let known = |node: &SideNode| node.key.is_some() || !node.params.is_empty();
    let params = if known(a) && known(b) {
        differing(&a.params, &b.params)
    } else {
        Vec::new()
    };
    let inputs = if keyed {
        differing(&a.inputs, &b.inputs)
    } else {
        Vec::new()
    };
    let other_kind = a.kind != b.kind && !a.kind.is_empty() && !b.kind.is_empty();
    let kind = other_kind.then(|| Pair {
        name: "kind".to_owned(),
        a: Some(a.kind.clone()),
        b: Some(b.kind.clone()),
    });
    let same_result = match (&a.artifact, &b.artifact) {
        (Some(a), Some(b)) => Some(a == b),
        _ => None,
    };
    let other_key = keyed && a.key != b.key;
    let gave = |node: &SideNode| matches!(node.state.as_str(), "hit" | "ran");
    let cause = match () {
        () if kind.is_some() || !params.is_empty() => Cause::Own,
        () if other_key || !inputs.is_empty() => Cause::Inputs,
        () if same_result == Some(false) || (gave(a) != gave(b)) => Cause::Result,
        () => return None,
    };
    let mut change = NodeChange {
        id: b.id.clone(),
        cause,
        states: (a.state.clone(), b.state.clone()),
        seconds: (a.seconds, b.seconds),
        keys: (a.key.clone(), b.key.clone()),
        same_result,
        kind,
        params,
        inputs,
        attributes: match (&a.attributes, &b.attributes) {
            (Some(a), Some(b)) => chosen(a, b),
            _ => Vec::new(),
        },
        answers: counts(a, b),
        sentences: Vec::new(),
    };
    change.sentences = sentences(&change, gave(a) != gave(b));
    Some(change)
}

/// Values that differ, in the order of `b`, then those that only `a` has.
fn differing(a: &[(String, String)], b: &[(String, String)]) -> Vec<Pair> {
    let find = |list: &[(String, String)], name: &str| {
        let found = list.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.clone())
    };
    let only_a = a.iter().filter(|(name, _)| find(b, name).is_none());
    b.iter()
        .chain(only_a)
        .map(|(name, _)| Pair {
            name: name.clone(),
            a: find(a, name),
            b: find(b, name),
        })
        .filter(|pair| pair.a != pair.b)
        .collect()
}

fn chosen(a: &Attributes, b: &Attributes) -> Vec<AttributesChange> {
    let without = |list: &[String], other: &[String]| -> Vec<String> {
        list.iter()
            .filter(|x| !other.contains(x))
            .cloned()
            .collect()
    };
    let change = |now: &ClassAttributes| {
        let before = a.classes.iter().find(|class| class.class == now.class)?;
        (before.attributes != now.attributes).then(|| {
            let gained = without(&now.attributes, &before.attributes);
            AttributesChange {
                class: now.class.clone(),
                kept: now.attributes.len() - gained.len(),
                lost: without(&before.attributes, &now.attributes),
                gained,
            }
        })
    };
    b.classes.iter().filter_map(change).collect()
}

fn counts(a: &SideNode, b: &SideNode) -> Vec<AnswersChange> {
    let (Some(a), Some(b)) = (&a.answers, &b.answers) else {
        return Vec::new();
    };
    let numbers = |answers| {
        let value = serde_json::to_value(answers).unwrap_or_default();
        let fields = value.as_object().cloned().into_iter().flatten();
        let numbers = fields.filter_map(|(name, value)| Some((name, value.as_f64()?)));
        numbers.collect::<Vec<_>>()
    };
    let (a, b) = (numbers(a), numbers(b));
    a.into_iter()
        .zip(b)
        .filter(|((_, a), (_, b))| a.to_bits() != b.to_bits())
        .map(|((name, a), (_, b))| AnswersChange { name, a, b })
        .collect()
}

fn sentences(change: &NodeChange, other_fate: bool) -> Vec<String> {
    let mut out = Vec::new();
    for pair in change.kind.iter().chain(&change.params) {
        let (a, b) = in_short(pair);
        out.push(format!("{} {a} → {b}", pair.name));
    }
    for pair in &change.inputs {
        let digest = |value: &Option<String>| match value {
            Some(digest) => digest.chars().take(8).collect(),
            None => "none".to_owned(),
        };
        let (a, b) = (digest(&pair.a), digest(&pair.b));
        out.push(format!("input {} {a} → {b}", pair.name));
    }
    if out.is_empty() && change.cause == Cause::Inputs {
        out.push("another key".to_owned());
    }
    let (a, b) = &change.states;
    if other_fate {
        out.push(format!("{a} in A, {b} in B"));
    }
    match (change.same_result, change.cause) {
        (Some(true), _) => out.push("the same result all the same".to_owned()),
        (Some(false), Cause::Result) => out.push("another result from the same key".to_owned()),
        _ => {}
    }
    out
}

/// Both values of a pair in few letters: of long ones, what follows where they part.
pub(super) fn in_short(pair: &Pair) -> (String, String) {
    const MOST: usize = 48;
    const BEFORE: usize = 16;
    let text = |value: &Option<String>| match value {
        Some(text) => crate::table::one_line(text),
        None => "the default".to_owned(),
    };
    let (a, b) = (text(&pair.a), text(&pair.b));
    let alike = a.chars().zip(b.chars()).take_while(|(a, b)| a == b).count();
    let long = a.chars().count().max(b.chars().count()) > MOST;
    let mut from = if long {
        alike.saturating_sub(BEFORE)
    } else {
        0
    };
    if from > 0 {
        // From the start of a word on, where one starts before they part.
        let shared = a.chars().take(alike).skip(from);
        from += shared.take_while(|c| *c != ' ').count() + 1;
        from = from.min(alike);
    }
    let piece = |text: &str| {
        let rest: Vec<char> = text.chars().skip(from).collect();
        let start = if from > 0 { "…" } else { "" };
        let end = if rest.len() > MOST { "…" } else { "" };
        let kept: String = rest.into_iter().take(MOST).collect();
        format!("{start}{kept}{end}")
    };
    (piece(&a), piece(&b))
}

/// Parameters that differ, with the nodes where they differ in the same way.
pub(super) fn parameters(nodes: &[NodeChange]) -> Vec<ParameterChange> {
    let mut out: Vec<ParameterChange> = Vec::new();
    for node in nodes {
        for pair in &node.params {
            match out.iter_mut().find(|change| change.pair == *pair) {
                Some(change) => change.nodes.push(node.id.clone()),
                None => out.push(ParameterChange {
                    pair: pair.clone(),
                    nodes: vec![node.id.clone()],
                }),
            }
        }
    }
    out
}
