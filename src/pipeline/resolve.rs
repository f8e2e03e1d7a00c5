//! References: what a name stands for, whether it fits, which instance it means.

use std::{collections::HashMap, ops::Range};

use super::{
    axes,
    document::{Document, Entry},
    entries::{Model, Named, check_data_files},
    expand::{Ref, Variant, Written},
    findings::Findings,
    names::{nearest, quoted},
    picks::{self, Pick},
    substitute::Axis,
    template::{Template, Templates},
};
use crate::{
    artifact::Type,
    data::{DataSpec, splits},
    diagnostic::{Diagnostic, Place},
    node::{Accept, Family, Port},
};

/// Suggestions are made for this many errors; a file with more has one cause.
const SUGGESTED: usize = 200;

/// Where a reference leads, before the sweep.
#[derive(Clone)]
pub(super) enum Target {
    /// An instance of a node, with what `@` picked on sweep axes.
    Unit {
        /// The instance.
        unit: usize,
        /// Sweep axes and points.
        picks: Vec<(usize, usize)>,
    },
    /// Round 0, of this type.
    Empty(Type),
    /// A split of an entry of `[data]`.
    Split(usize, String),
    /// Class names of an entry of `[data]`.
    DataClasses(usize),
    /// Class names written out.
    Classes(Vec<String>),
    /// An entry of `[models]`.
    Model(usize),
}

/// A reference that was found to lead somewhere.
#[derive(Clone)]
pub(super) struct Link {
    /// The field.
    pub(super) port: &'static str,
    /// Where it leads.
    pub(super) target: Target,
    /// Where it is written.
    pub(super) span: Range<usize>,
}

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
    names: HashMap<&'w str, Thing>,
}

impl<'w, 'd, 'a> World<'w, 'd, 'a> {
    /// The one namespace; tells of names that are given twice.
    pub(super) fn new(
        templates: &'w Templates<'d, 'a>,
        variants: &[Vec<Variant<'a>>],
        data: &'w [Named<DataSpec>],
        models: &'w [Named<Model>],
        sweep: &'w [Axis<'a>],
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
                found.push(world.twice(name, thing, first));
                world.names.insert(name, first);
            }
        }
        for round in &templates.rounds {
            for (name, node) in &round.nodes {
                if let Some(first) = world.names.get(name) {
                    found.push(world.twice(name, Thing::Node(*node), *first));
                }
            }
        }
        world
    }

    fn twice(&self, name: &str, second: Thing, first: Thing) -> Diagnostic {
        Diagnostic::at(
            self.place(second),
            format!("the name `{name}` is given twice"),
        )
        .label(format!("{} of this name", self.sort(second)))
        .note(
            self.place(first),
            format!("{} of the same name", self.sort(first)),
        )
        .hint("nodes, rounds, data sets and models share one namespace".to_owned())
    }

    fn sort(&self, thing: Thing) -> &'static str {
        match thing {
            Thing::Node(_) => "a node",
            Thing::Round(_) => "a round",
            Thing::Data(_) => "a data set",
            Thing::Model(_) => "a model",
        }
    }

    fn place(&self, thing: Thing) -> Place {
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
}

/// Follows all references: for each node, for each of its variants.
pub(super) fn resolve<'a>(
    world: &World<'_, '_, 'a>,
    variants: &[Vec<Variant<'a>>],
    document: &Document<'a>,
    found: &mut Findings,
) -> Vec<Vec<Vec<Link>>> {
    let mut used = Used {
        data: vec![false; world.data.len()],
        models: vec![false; world.models.len()],
    };
    let mut all = Vec::with_capacity(world.templates.list.len());
    for (t, template) in world.templates.list.iter().enumerate() {
        let points = axes::combinations(world.sweep, template.sees).max(1);
        let mut list = Vec::with_capacity(variants[t].len());
        for (v, variant) in variants[t].iter().enumerate() {
            let at = axes::coordinates(&template.axes, v / points);
            let links = variant.refs.iter().filter_map(|reference| {
                let mut look = Look {
                    world,
                    template,
                    at: &at,
                    reference,
                    used: &mut used,
                    found,
                };
                Some(Link {
                    port: reference.port.name,
                    target: look.target()?,
                    span: reference.span.clone(),
                })
            });
            list.push(links.collect());
        }
        all.push(list);
    }
    for (named, _) in world.data.iter().zip(&used.data).filter(|(_, used)| **used) {
        let entry: Option<&Entry<'_>> = document.data.get(&named.name);
        for spec in named.all() {
            if let Some(entry) = entry {
                check_data_files(&named.name, entry, spec, found);
            }
        }
    }
    for (named, _) in world
        .models
        .iter()
        .zip(&used.models)
        .filter(|(_, used)| **used)
    {
        for problem in named.all().filter_map(|model| model.problem.as_ref()) {
            found.push(Diagnostic::clone(problem));
        }
    }
    all
}

struct Used {
    data: Vec<bool>,
    models: Vec<bool>,
}

/// One reference of one node at one coordinate.
struct Look<'l, 'w, 'd, 'a> {
    world: &'l World<'w, 'd, 'a>,
    template: &'l Template<'d, 'a>,
    at: &'l [usize],
    reference: &'l Ref<'a>,
    used: &'l mut Used,
    found: &'l mut Findings,
}

impl Look<'_, '_, '_, '_> {
    fn target(&mut self) -> Option<Target> {
        let text = match &self.reference.written {
            Written::Classes(names) => return Some(Target::Classes(names.clone())),
            Written::Name(text) => text,
        };
        let (path, picked) = match text.split_once('@') {
            Some((path, picked)) => (path, Some(picked)),
            None => (text.as_ref(), None),
        };
        let picks = match picked.map(picks::parse) {
            None => Vec::new(),
            Some(Ok(picks)) => picks,
            Some(Err(message)) => {
                self.tell(
                    message,
                    "wrong behind `@`",
                    Some("write `name@2` or `name@n=2,seed=1`"),
                );
                return None;
            }
        };
        if path == "previous" {
            return self.previous(&picks);
        }
        let (head, tail) = match path.split_once('.') {
            Some((head, tail)) => (head, Some(tail)),
            None => (path, None),
        };
        let local = self.template.round.filter(|_| tail.is_none());
        let local = local.and_then(|round| self.world.templates.rounds[round].nodes.get(head));
        let thing = match local {
            Some(node) => Some(Thing::Node(*node)),
            None => self.world.names.get(head).copied(),
        };
        let Some(thing) = thing else {
            self.unknown(path, head, tail);
            return None;
        };
        match (thing, tail) {
            (Thing::Node(node), None) => self.node(path, node, false, &picks),
            (Thing::Round(round), None) => {
                let result = self.world.templates.rounds[round].result()?;
                self.node(path, result, true, &picks)
            }
            (Thing::Round(round), Some(tail)) => {
                let round = &self.world.templates.rounds[round];
                if let Some(node) = round.nodes.get(tail) {
                    return self.node(path, *node, false, &picks);
                }
                let mut names: Vec<_> = round.nodes.keys().copied().collect();
                names.sort_unstable();
                let hint = super::names::suggest(tail, "its nodes", names);
                self.tell(
                    format!("round `{head}` has no node `{tail}`"),
                    "no such node",
                    hint,
                );
                None
            }
            (Thing::Data(data), tail) => self.data(data, tail, &picks),
            (Thing::Model(model), None) => self.model(model, &picks),
            (thing, Some(tail)) => {
                let message = format!(
                    "`{head}` is {} and has no part `{tail}`",
                    self.world.sort(thing)
                );
                self.tell(
                    message,
                    "no such part",
                    Some(format!("did you mean `{head}`?")),
                );
                None
            }
        }
    }

    /// Tells `message` about this reference.
    fn tell(&mut self, message: String, label: &str, hint: Option<impl Into<String>>) {
        self.found.push(
            Diagnostic::at(self.place(), message)
                .label(label)
                .hint(hint.map(Into::into)),
        );
    }

    fn place(&self) -> Place {
        Place::new(self.template.source, self.reference.span.clone())
    }

    fn port(&self) -> &'static Port {
        self.reference.port
    }

    fn previous(&mut self, picks: &[Pick]) -> Option<Target> {
        let Some(round) = self.template.round else {
            self.tell(
                "`previous` exists only inside rounds".to_owned(),
                "this node is in no round",
                Some("name a round and pick one of its results, as in `refine@1`"),
            );
            return None;
        };
        let result = self.world.templates.rounds[round].result()?;
        if !picks.is_empty() {
            self.tell(
                "`previous` takes no `@`".to_owned(),
                "it is the round before",
                None::<String>,
            );
            return None;
        }
        let axis = self
            .template
            .axes
            .iter()
            .position(|axis| axis.name == "round")?;
        let before = self.at[axis] as i64;
        let pick = Pick {
            axis: Some("round".to_owned()),
            value: before.to_string(),
        };
        self.node("previous", result, true, &[pick])
    }

    /// A node, or the result of a round (`whole`), which is empty at round 0.
    fn node(&mut self, path: &str, node: usize, whole: bool, picks: &[Pick]) -> Option<Target> {
        let made = self.world.outputs[node];
        if let Some(made) = made
            && !self
                .port()
                .accepts
                .iter()
                .any(|accept| takes(*accept, made))
        {
            let verb = if whole { "gives" } else { "makes" };
            self.misfit(
                &format!("`{path}` {verb} {made}"),
                self.world.place(Thing::Node(node)),
            );
            return None;
        }
        let target = &self.world.templates.list[node];
        if target.broken || self.template.broken {
            return None;
        }
        let found = picks::instance(
            path,
            target,
            whole,
            self.template,
            self.at,
            self.world.sweep,
            picks,
        );
        match found {
            Ok(picks::Found::Empty) => made.map(Target::Empty),
            Ok(picks::Found::Unit(local, picks)) => Some(Target::Unit {
                unit: target.first_unit + local,
                picks,
            }),
            Err(problem) => {
                self.tell(problem.message, &problem.label, problem.hint);
                None
            }
        }
    }

    fn data(&mut self, data: usize, split: Option<&str>, picks: &[Pick]) -> Option<Target> {
        let named = &self.world.data[data];
        self.used.data[data] = true;
        if !self.no_picks(&named.name, picks) {
            return None;
        }
        let known = splits(named.all().next()?.format);
        if let Some(split) = split
            && !known.contains(&split)
        {
            let message = format!("data set `{}` has no split `{split}`", named.name);
            let hint = super::names::suggest(split, "its splits", known.iter().copied());
            self.tell(message, "no such split", hint);
            return None;
        }
        let accepts = self.port().accepts;
        if accepts.contains(&Accept::Classes) {
            return Some(Target::DataClasses(data));
        }
        if !accepts.contains(&Accept::Split) {
            self.misfit(
                &format!("`{}` is a data set", named.name),
                named.place.clone(),
            );
            return None;
        }
        match split {
            Some(split) => Some(Target::Split(data, split.to_owned())),
            None if known.is_empty() => Some(Target::Split(data, String::new())),
            None => {
                let names: Vec<_> = known
                    .iter()
                    .map(|s| format!("{}.{s}", named.name))
                    .collect();
                let message = format!("`{}` takes one split of a data set", self.port().name);
                let hint = format!("`{}` has {}", named.name, quoted(&names));
                self.tell(message, "which split?", Some(hint));
                None
            }
        }
    }

    fn model(&mut self, model: usize, picks: &[Pick]) -> Option<Target> {
        let named = &self.world.models[model];
        self.used.models[model] = true;
        if !self.no_picks(&named.name, picks) {
            return None;
        }
        for variant in named.all().filter(|model| model.problem.is_none()) {
            let (accept, is) = match variant.spec.family {
                Family::Clip => (Accept::Clip, "a CLIP model"),
                Family::Llm => (Accept::Llm, "a language model"),
            };
            if !self.port().accepts.contains(&accept) {
                self.misfit(&format!("`{}` is {is}", named.name), named.place.clone());
                return None;
            }
        }
        let any = |accept| self.port().accepts.contains(&accept);
        if !any(Accept::Clip) && !any(Accept::Llm) {
            self.misfit(&format!("`{}` is a model", named.name), named.place.clone());
            return None;
        }
        Some(Target::Model(model))
    }

    fn no_picks(&mut self, name: &str, picks: &[Pick]) -> bool {
        if !picks.is_empty() {
            self.tell(
                format!("`{name}` has no instances to pick from"),
                "only nodes and rounds are repeated",
                Some(format!("write `{name}`")),
            );
        }
        picks.is_empty()
    }

    /// Tells that what a name stands for does not fit the field.
    fn misfit(&mut self, is: &str, defined: Place) {
        let port = self.port();
        let takes = wanted(port);
        let fitting = self.fitting();
        let hint = (!fitting.is_empty()).then(|| {
            let more = fitting.len().saturating_sub(5);
            let names = quoted(&fitting[..fitting.len() - more]);
            let more = if more > 0 {
                format!(", and {more} more")
            } else {
                String::new()
            };
            format!("what fits: {names}{more}")
        });
        self.found.push(
            Diagnostic::at(
                self.place(),
                format!("`{}` takes {takes}, but {is}", port.name),
            )
            .label(format!("not {takes}"))
            .note(defined, "defined here")
            .hint(hint),
        );
    }

    fn unknown(&mut self, path: &str, head: &str, tail: Option<&str>) {
        let hint = if self.found.len() >= SUGGESTED {
            None
        } else {
            let fitting = self.fitting();
            let near = nearest(path, fitting.iter().map(String::as_str));
            let names = || self.world.names.keys().copied();
            let locals = self.template.round.into_iter();
            let locals = locals.flat_map(|r| self.world.templates.rounds[r].nodes.keys().copied());
            let any = || {
                let name = nearest(head, names().chain(locals))?;
                Some(match tail {
                    Some(tail) => format!("{name}.{tail}"),
                    None => name.to_owned(),
                })
            };
            match near.map(str::to_owned).or_else(any) {
                Some(name) => Some(format!("did you mean `{name}`?")),
                None if (1..=12).contains(&fitting.len()) => {
                    Some(format!("what fits: {}", quoted(&fitting)))
                }
                None => None,
            }
        };
        self.tell(
            format!("`{head}` is not defined"),
            "no node, round, data set or model has this name",
            hint,
        );
    }

    /// All names that would fit the field, as one would write them.
    fn fitting(&self) -> Vec<String> {
        if self.found.len() >= SUGGESTED {
            return Vec::new();
        }
        let accepts = self.port().accepts;
        let world = self.world;
        let fits = |node: usize| {
            let made = world.outputs[node];
            made.is_some_and(|made| accepts.iter().any(|accept| takes(*accept, made)))
        };
        let mut out = Vec::new();
        if let Some(round) = self.template.round {
            let nodes = world.templates.rounds[round].nodes.iter();
            out.extend(
                nodes
                    .filter(|(_, i)| fits(**i))
                    .map(|(name, _)| (*name).to_owned()),
            );
        }
        for (name, thing) in &world.names {
            match thing {
                Thing::Node(i) if fits(*i) => out.push((*name).to_owned()),
                Thing::Round(i) if world.templates.rounds[*i].result().is_some_and(fits) => {
                    let count = world.templates.rounds[*i].count;
                    out.push(format!("{name}@{count}"));
                }
                Thing::Data(i) => {
                    if accepts.contains(&Accept::Classes) {
                        out.push((*name).to_owned());
                    } else if accepts.contains(&Accept::Split)
                        && let Some(spec) = world.data[*i].all().next()
                    {
                        out.extend(splits(spec.format).iter().map(|s| format!("{name}.{s}")));
                    }
                }
                Thing::Model(i) => {
                    let family = world.models[*i].all().next().map(|model| model.spec.family);
                    let clip = family == Some(Family::Clip) && accepts.contains(&Accept::Clip);
                    let llm = family == Some(Family::Llm) && accepts.contains(&Accept::Llm);
                    if clip || llm {
                        out.push((*name).to_owned());
                    }
                }
                _ => {}
            }
        }
        out.retain(|name| *name != self.template.name);
        out.sort_unstable();
        out
    }
}

/// Whether an artifact of type `made` fits `accept`.
fn takes(accept: Accept, made: Type) -> bool {
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
fn wanted(port: &Port) -> String {
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
