//! The one namespace of a file: what a name can stand for, and what fits where.

use std::{collections::HashMap, path::Path};

use super::{
    entries::Named,
    expand::Variant,
    findings::Findings,
    models::Model,
    substitute::Axis,
    template::{Template, Templates},
};
use crate::{
    artifact::Type,
    data::{DataSpec, splits},
    diagnostic::{Diagnostic, Place},
    node::{Accept, Family, Port},
};

/// What a name can stand for.
#[derive(Clone, Copy)]
pub(super) enum Thing {
    Node(usize),
    Round(usize),
    Data(usize),
    Model(usize),
}

/// Everything that references can lead to.
pub(super) struct World<'w, 'd, 'a> {
    /// Nodes and rounds.
    pub(super) templates: &'w Templates<'d, 'a>,
    /// What each node makes, as far as that is known.
    pub(super) outputs: Vec<Option<Type>>,
    /// `[data]`.
    pub(super) data: &'w [Named<DataSpec>],
    /// `[models]`.
    pub(super) models: &'w [Named<Model>],
    /// `[sweep]`.
    pub(super) sweep: &'w [Axis<'a>],
    /// Names with what they stand for.
    pub(super) names: HashMap<&'w str, Thing>,
}

impl<'w, 'd, 'a> World<'w, 'd, 'a> {
    /// The one namespace; tells of names that are given twice.
    pub(super) fn new(
        templates: &'w Templates<'d, 'a>,
        variants: &[Vec<Variant<'a>>],
        data: &'w [Named<DataSpec>],
        models: &'w [Named<Model>],
        sweep: &'w [Axis<'a>],
        main: &Path,
        found: &mut Findings,
    ) -> Self {
        let mut world = Self {
            templates,
            outputs: variants.iter().map(|list| list.first()?.output).collect(),
            data,
            models,
            sweep,
            names: HashMap::with_capacity(templates.list.len()),
        };
        let global = |(i, t): (usize, &'w Template<'d, 'a>)| {
            t.round
                .is_none()
                .then_some((t.name.as_str(), Thing::Node(i)))
        };
        let nodes = templates.list.iter().enumerate().filter_map(global);
        let rounds = templates.rounds.iter().enumerate();
        let rounds = rounds.map(|(i, round)| (round.name.as_str(), Thing::Round(i)));
        let data = data
            .iter()
            .enumerate()
            .map(|(i, d)| (d.name.as_str(), Thing::Data(i)));
        let models = models
            .iter()
            .enumerate()
            .map(|(i, m)| (m.name.as_str(), Thing::Model(i)));
        for (name, thing) in nodes.chain(rounds).chain(data).chain(models) {
            if let Some(first) = world.names.insert(name, thing) {
                found.push(world.twice(name, thing, first, main));
                world.names.insert(name, first);
            }
        }
        for round in &templates.rounds {
            for (name, node) in &round.nodes {
                if let Some(first) = world.names.get(name) {
                    found.push(world.twice(name, Thing::Node(*node), *first, main));
                }
            }
        }
        world
    }

    /// Points at the later of two, in the file that the user named.
    fn twice(&self, name: &str, second: Thing, first: Thing, main: &Path) -> Diagnostic {
        let rank = |thing| {
            let place = self.place(thing);
            (place.source.path == main, place.span.start)
        };
        let (first, second) = if rank(first) > rank(second) {
            (second, first)
        } else {
            (first, second)
        };
        Diagnostic::at(
            self.place(second),
            format!("the name `{name}` is given twice"),
        )
        .label(format!("{} of this name", Self::sort(second)))
        .note(
            self.place(first),
            format!("{} of the same name", Self::sort(first)),
        )
        .hint("nodes, rounds, data sets and models share one namespace".to_owned())
    }

    /// What `thing` is, in words.
    pub(super) fn sort(thing: Thing) -> &'static str {
        match thing {
            Thing::Node(_) => "a node",
            Thing::Round(_) => "a round",
            Thing::Data(_) => "a data set",
            Thing::Model(_) => "a model",
        }
    }

    /// Where the name of `thing` is written.
    pub(super) fn place(&self, thing: Thing) -> Place {
        match thing {
            Thing::Node(i) => self.templates.list[i].place(),
            Thing::Round(i) => self.templates.rounds[i].place.clone(),
            Thing::Data(i) => self.data[i].place.clone(),
            Thing::Model(i) => self.models[i].place.clone(),
        }
    }

    /// What a name in a table or command stands for: a node or the result of a round.
    pub(super) fn node(&self, path: &str) -> Option<usize> {
        match path.split_once('.') {
            None => match self.names.get(path)? {
                Thing::Node(i) => Some(*i),
                Thing::Round(i) => self.templates.rounds[*i].result(),
                _ => None,
            },
            Some((head, tail)) => match self.names.get(head)? {
                Thing::Round(i) => self.templates.rounds[*i].nodes.get(tail).copied(),
                _ => None,
            },
        }
    }

    /// Names of all nodes and rounds as tables write them.
    pub(super) fn node_names(&self) -> Vec<&str> {
        let nodes = self.templates.list.iter().map(|t| t.name.as_str());
        nodes
            .chain(self.templates.rounds.iter().map(|r| r.name.as_str()))
            .collect()
    }

    /// All names that would fit the field, as one would write them.
    pub(super) fn fitting(&self, reader: &Template<'_, '_>, port: &Port) -> Vec<String> {
        let accepts = port.accepts;
        let fits = |node: usize| {
            let made = self.outputs[node];
            made.is_some_and(|made| accepts.iter().any(|accept| takes(*accept, made)))
        };
        let mut out = Vec::new();
        if let Some(round) = reader.round {
            let nodes = self.templates.rounds[round].nodes.iter();
            out.extend(
                nodes
                    .filter(|(_, i)| fits(**i))
                    .map(|(name, _)| (*name).to_owned()),
            );
            if self.templates.rounds[round].result().is_some_and(fits) {
                out.push("previous".to_owned());
            }
        }
        for (name, thing) in &self.names {
            match thing {
                Thing::Node(i) if fits(*i) => out.push((*name).to_owned()),
                // The round that this node is in is not done before it.
                Thing::Round(i) if reader.round == Some(*i) => {}
                Thing::Round(i) if self.templates.rounds[*i].result().is_some_and(fits) => {
                    let count = self.templates.rounds[*i].count;
                    out.push(format!("{name}@{count}"));
                }
                Thing::Data(i) => {
                    if accepts.contains(&Accept::Classes) {
                        out.push((*name).to_owned());
                    } else if accepts.contains(&Accept::Split)
                        && let Some(spec) = self.data[*i].all().next()
                    {
                        let splits = splits(spec);
                        if splits.is_empty() {
                            out.push((*name).to_owned());
                        }
                        out.extend(splits.iter().map(|s| format!("{name}.{s}")));
                    }
                }
                Thing::Model(i) => {
                    let family = self.models[*i].all().next().map(|model| model.spec.family);
                    let clip = family == Some(Family::Clip) && accepts.contains(&Accept::Clip);
                    let llm = family == Some(Family::Llm) && accepts.contains(&Accept::Llm);
                    if clip || llm {
                        out.push((*name).to_owned());
                    }
                }
                _ => {}
            }
        }
        out.retain(|name| *name != reader.name);
        out.sort_unstable();
        out
    }
}

/// Whether an artifact of type `made` fits `accept`.
pub(super) fn takes(accept: Accept, made: Type) -> bool {
    match accept {
        Accept::Artifact(wanted) => wanted == made,
        Accept::Classes => matches!(
            made,
            Type::ImageEmbeddings | Type::TextEmbeddings | Type::Answers | Type::Attributes
        ),
        Accept::Clip => made == Type::Weights,
        Accept::Split | Accept::Llm => false,
    }
}

/// What a field takes, in words.
pub(super) fn wanted(port: &Port) -> String {
    let words: Vec<String> = port
        .accepts
        .iter()
        .map(|accept| match accept {
            Accept::Artifact(wanted) => wanted.to_string(),
            Accept::Split => "a split of a data set".to_owned(),
            Accept::Classes => "classes".to_owned(),
            Accept::Clip => "a CLIP model".to_owned(),
            Accept::Llm => "a language model".to_owned(),
        })
        .collect();
    words.join(" or ")
}
