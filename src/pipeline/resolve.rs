//! References: what a name stands for, whether it fits, which instance it means.

use std::ops::Range;

use super::{
    axes,
    document::{Document, Entry},
    entries::check_data_files,
    expand::{Ref, Variant, Written},
    findings::Findings,
    names::{nearest, quoted},
    picks::{self, Pick},
    template::Template,
    world::{Thing, World, takes, wanted},
};
use crate::{
    artifact::Type,
    data::splits,
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
    let data = world.data.iter().zip(&used.data);
    for (named, _) in data.filter(|(_, used)| **used && !document.absent) {
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
        let here = |model: &&super::models::Model| !(document.absent && model.absent);
        let models = named.all().filter(here);
        for problem in models.filter_map(|model| model.problem.as_ref()) {
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
                    World::sort(thing)
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
        let known = splits(named.all().next()?);
        if let Some(split) = split
            && !known.iter().any(|name| name == split)
        {
            let message = format!("data set `{}` has no split `{split}`", named.name);
            let names: Vec<_> = known
                .iter()
                .map(|s| format!("{}.{s}", named.name))
                .collect();
            let hint = match nearest(split, known.iter().map(String::as_str)) {
                Some(near) => Some(format!("did you mean `{}.{near}`?", named.name)),
                None if names.is_empty() => Some(format!("write `{}`", named.name)),
                None => Some(format!("its splits: {}", quoted(&names))),
            };
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

    /// All names that would fit the field; none once many errors were told.
    fn fitting(&self) -> Vec<String> {
        if self.found.len() >= SUGGESTED {
            return Vec::new();
        }
        self.world.fitting(self.template, self.port())
    }
}
