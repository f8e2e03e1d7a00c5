//! Nodes as they are written, before they are repeated along their axes.

use std::{borrow::Cow, collections::HashMap, ops::Range, rc::Rc, sync::Arc};

use toml::{Spanned, de::DeValue};

use super::{
    axes::{self, MAX_INSTANCES},
    document::{Document, Entry, Section, text, wrong},
    findings::Findings,
    names::suggest,
    substitute::{Axis, Scope, Substitution, has_names, names_in},
    values::as_int,
};
use crate::{
    diagnostic::{Diagnostic, Place, SourceText},
    node::{KindInfo, Port, TextFile},
};

/// What the front end needs to know of a kind besides its row, computed once.
pub(super) struct KindFacts {
    /// The row.
    pub(super) info: &'static KindInfo,
    /// Names of its parameters.
    pub(super) params: Vec<String>,
    /// Those without a default.
    pub(super) required: Vec<String>,
}

/// The kinds that a file uses.
pub(super) struct Kinds {
    all: &'static [KindInfo],
    facts: Vec<Option<Rc<KindFacts>>>,
}

impl Kinds {
    /// Nothing is computed before it is asked for.
    pub(super) fn new(all: &'static [KindInfo]) -> Self {
        Self {
            all,
            facts: all.iter().map(|_| None).collect(),
        }
    }

    fn get(&mut self, name: &str) -> Option<Rc<KindFacts>> {
        let at = self.all.iter().position(|kind| kind.name == name)?;
        let facts = self.facts[at].get_or_insert_with(|| Rc::new(facts(&self.all[at])));
        Some(facts.clone())
    }

    fn names(&self) -> impl Iterator<Item = &'static str> + Clone {
        self.all
            .iter()
            .filter(|kind| !kind.hidden)
            .map(|kind| kind.name)
    }
}

fn facts(info: &'static KindInfo) -> KindFacts {
    let schema = (info.schema)();
    let params = schema.get("properties").and_then(|p| p.as_object());
    let required = schema.get("required").and_then(|r| r.as_array());
    KindFacts {
        info,
        params: params.map_or_else(Vec::new, |p| p.keys().cloned().collect()),
        required: required.map_or_else(Vec::new, |list| {
            list.iter()
                .filter_map(|n| n.as_str().map(str::to_owned))
                .collect()
        }),
    }
}

/// What a field of a node's table is.
#[derive(Clone, Copy)]
pub(super) enum Role {
    /// `exec`.
    Exec,
    /// A reference.
    Port(&'static Port),
    /// A parameter given as a file.
    File(&'static TextFile),
    /// A parameter.
    Param,
}

/// A field of a node's table that is worth reading.
pub(super) struct Field<'d, 'a> {
    /// Its name and where that is.
    pub(super) key: &'d Spanned<Cow<'a, str>>,
    /// Its value.
    pub(super) value: &'d Spanned<DeValue<'a>>,
    /// What it is.
    pub(super) role: Role,
}

/// A node as it is written.
pub(super) struct Template<'d, 'a> {
    /// `images`, `refine.propose`.
    pub(super) name: String,
    /// Its file.
    pub(super) source: &'d Arc<SourceText>,
    /// Its name there.
    pub(super) header: Range<usize>,
    /// Its kind; `None` when that is unknown.
    pub(super) kind: Option<Rc<KindFacts>>,
    /// The round it belongs to.
    pub(super) round: Option<usize>,
    /// Its axes: the matrix of its round, the round, its own matrix.
    pub(super) axes: Vec<Rc<Axis<'a>>>,
    /// Known fields.
    pub(super) fields: Vec<Field<'d, 'a>>,
    /// Required parameters whose absence has been told.
    pub(super) missing: Vec<String>,
    /// Sweep axes that its text names, as a set of bits.
    pub(super) sees: u64,
    /// Whether its axes are wrong, so that nothing can be said about its references.
    pub(super) broken: bool,
    /// Whether its text is the same at every coordinate.
    pub(super) constant: bool,
    /// Index of its first instance before the sweep.
    pub(super) first_unit: usize,
    /// How many instances it has before the sweep.
    pub(super) units: usize,
}

impl Template<'_, '_> {
    /// Where its name is written.
    pub(super) fn place(&self) -> Place {
        Place::new(self.source, self.header.clone())
    }
}

/// A bounded loop.
pub(super) struct Round<'d> {
    /// Its name.
    pub(super) name: String,
    /// Where that is written.
    pub(super) place: Place,
    /// How many times it is unrolled.
    pub(super) count: usize,
    /// Its result as it is written.
    pub(super) result: Option<(String, Place)>,
    /// Its nodes by their names inside it.
    pub(super) nodes: HashMap<&'d str, usize>,
}

impl Round<'_> {
    /// The template of its result.
    pub(super) fn result(&self) -> Option<usize> {
        self.nodes.get(self.result.as_ref()?.0.as_str()).copied()
    }
}

/// The sections of every `[rounds.x]`, split off so that templates can borrow them.
pub(super) struct RoundText<'a> {
    count: Option<Spanned<DeValue<'a>>>,
    result: Option<Spanned<DeValue<'a>>>,
    matrix: Option<Spanned<DeValue<'a>>>,
    nodes: Section<'a>,
}

/// Splits the tables of rounds into their fields.
pub(super) fn split_rounds<'a>(
    document: &mut Document<'a>,
    found: &mut Findings,
) -> Vec<RoundText<'a>> {
    let mut list = Vec::new();
    for entry in &mut document.rounds.entries {
        let mut round = RoundText {
            count: None,
            result: None,
            matrix: None,
            nodes: Section::default(),
        };
        for (key, value) in std::mem::take(&mut entry.table) {
            match key.get_ref().as_ref() {
                "count" => round.count = Some(value),
                "result" => round.result = Some(value),
                "matrix" => round.matrix = Some(value),
                "nodes" => {
                    let section = format!("rounds.{}.nodes", entry.name);
                    round.nodes.absorb(&section, &entry.source, value, found);
                }
                other => found.push(
                    Diagnostic::at(
                        Place::new(&entry.source, key.span()),
                        format!("unknown field `{other}` in a round"),
                    )
                    .label("no such field")
                    .hint(suggest(
                        other,
                        "a round has",
                        ["count", "result", "matrix", "nodes"],
                    )),
                ),
            }
        }
        list.push(round);
    }
    list
}

/// All nodes and rounds of a file.
pub(super) struct Templates<'d, 'a> {
    /// Nodes in file order.
    pub(super) list: Vec<Template<'d, 'a>>,
    /// Rounds in file order.
    pub(super) rounds: Vec<Round<'d>>,
    /// Instances in all, before the sweep.
    pub(super) units: usize,
    /// Whether there are too many to go on.
    pub(super) too_many: bool,
}

/// Looks at every node's table once: its kind, its fields, its axes.
pub(super) fn build<'d, 'a>(
    document: &'d Document<'a>,
    round_texts: &'d [RoundText<'a>],
    counts: &[usize],
    numbers: &'a str,
    sweep: &[Axis<'a>],
    kinds: &mut Kinds,
    found: &mut Findings,
) -> Templates<'d, 'a> {
    let shape = Scope::of_params(&document.params, sweep);
    let mut list: Vec<Template<'d, 'a>> = Vec::new();
    for entry in &document.nodes.entries {
        list.push(template(entry, None, Some(&[]), &shape, kinds, found));
    }
    let mut rounds = Vec::new();
    for (index, (entry, text)) in document.rounds.entries.iter().zip(round_texts).enumerate() {
        let mut axes = match &text.matrix {
            Some(matrix) => axes::matrix(matrix, &entry.source, &shape, &[], found),
            None => Some(Vec::new()),
        };
        if let Some(axes) = &mut axes {
            if let Some(axis) = axes.iter().find(|axis| axis.name == "round") {
                found.push(round_axis(&axis.place));
            }
            let rounds = axes::rounds(counts[index], entry.place(), numbers);
            axes.push(Rc::new(rounds));
        }
        let mut nodes = HashMap::new();
        for node in &text.nodes.entries {
            nodes.insert(node.name.as_ref(), list.len());
            list.push(template(
                node,
                Some((index, entry)),
                axes.as_deref(),
                &shape,
                kinds,
                found,
            ));
        }
        let result = result(entry, text, &nodes, found);
        rounds.push(Round {
            name: entry.name.to_string(),
            place: entry.place(),
            count: counts[index],
            result,
            nodes,
        });
    }
    let (mut units, mut too_many) = (0_usize, false);
    for template in &mut list {
        let lengths = template.axes.iter().map(|axis| axis.points.len());
        template.first_unit = units;
        template.units = lengths.fold(1, usize::saturating_mul);
        units = units.saturating_add(template.units);
        if units > MAX_INSTANCES && !too_many {
            too_many = true;
            found.push(axes::too_many(template.place()));
        }
    }
    Templates {
        list,
        rounds,
        units,
        too_many,
    }
}

fn round_axis(place: &Place) -> Diagnostic {
    Diagnostic::at(
        place.clone(),
        "an axis inside rounds cannot be called `round`",
    )
    .label("`round` is the number of the round here")
}

fn template<'d, 'a>(
    entry: &'d Entry<'a>,
    round: Option<(usize, &'d Entry<'a>)>,
    outer: Option<&[Rc<Axis<'a>>]>,
    shape: &Scope<'_, 'a>,
    kinds: &mut Kinds,
    found: &mut Findings,
) -> Template<'d, 'a> {
    let mut broken = outer.is_none();
    let outer = outer.unwrap_or_default();
    let mut axes = outer.to_vec();
    if let Some(matrix) = entry.table.get("matrix") {
        let own = axes::matrix(matrix, &entry.source, shape, outer, found);
        broken |= own.is_none();
        let own = own.unwrap_or_default();
        if let Some(axis) = own
            .iter()
            .find(|axis| round.is_some() && axis.name == "round")
        {
            found.push(round_axis(&axis.place));
        }
        axes.extend(own);
    }
    let kind = kind(entry, kinds, found);
    let mut fields = Vec::with_capacity(entry.table.len());
    for (key, value) in &entry.table {
        let name = key.get_ref().as_ref();
        let role = match (name, &kind) {
            ("kind" | "matrix", _) => continue,
            ("exec", _) => Role::Exec,
            (_, None) => continue,
            (_, Some(facts)) => match role(name, facts) {
                Some(role) => role,
                None => {
                    found.push(unknown_field(entry, key, facts));
                    continue;
                }
            },
        };
        fields.push(Field { key, value, role });
    }
    let missing = kind
        .as_ref()
        .map_or_else(Vec::new, |facts| missing(entry, facts, found));
    let (mut sees, mut names) = (0_u64, false);
    for field in &fields {
        if has_names(field.value.get_ref()) {
            names = true;
            names_in(field.value.get_ref(), &mut |name| {
                let swept = shape.sweep.unwrap_or_default();
                let local = axes.iter().any(|axis| axis.name == name);
                if let Some(i) = swept.iter().position(|axis| axis.name == name)
                    && !local
                {
                    sees |= 1 << i;
                }
            });
        }
    }
    let draws_in_rounds = round.is_some() && kind.as_ref().is_some_and(|facts| facts.info.draws);
    Template {
        name: match round {
            None => entry.name.to_string(),
            Some((_, round)) => format!("{}.{}", round.name, entry.name),
        },
        source: &entry.source,
        header: entry.header.clone(),
        round: round.map(|(index, _)| index),
        kind,
        axes,
        fields,
        missing,
        sees,
        broken,
        constant: !names && !draws_in_rounds,
        first_unit: 0,
        units: 0,
    }
}

fn role(name: &str, facts: &KindFacts) -> Option<Role> {
    if let Some(port) = facts.info.port(name) {
        return Some(Role::Port(port));
    }
    if let Some(file) = facts.info.files.iter().find(|file| file.field == name) {
        return Some(Role::File(file));
    }
    facts
        .params
        .iter()
        .any(|param| param == name)
        .then_some(Role::Param)
}

fn unknown_field(entry: &Entry<'_>, key: &Spanned<Cow<'_, str>>, facts: &KindFacts) -> Diagnostic {
    let name = key.get_ref().as_ref();
    let ports = facts.info.ports.iter().map(|port| port.name);
    let files = facts.info.files.iter().map(|file| file.field);
    let params = facts.params.iter().map(String::as_str);
    let known: Vec<_> = ports
        .chain(params)
        .chain(files)
        .chain(["matrix", "exec"])
        .collect();
    let kind = facts.info.name;
    Diagnostic::at(
        Place::new(&entry.source, key.span()),
        format!("unknown field `{name}` in a node of kind `{kind}`"),
    )
    .label("no such field")
    .hint(suggest(name, &format!("`{kind}` has"), known))
}

fn kind(entry: &Entry<'_>, kinds: &mut Kinds, found: &mut Findings) -> Option<Rc<KindFacts>> {
    let Some(value) = entry.table.get("kind") else {
        found.push(
            Diagnostic::at(entry.place(), format!("node `{}` has no kind", entry.name))
                .label("`kind` is missing")
                .hint(suggest("", "kinds", kinds.names())),
        );
        return None;
    };
    let Some(word) = value.get_ref().as_str() else {
        found.push(wrong("kind", "a string", &entry.source, value));
        return None;
    };
    let facts = kinds.get(word);
    if facts.is_none() {
        found.push(
            Diagnostic::at(
                Place::new(&entry.source, value.span()),
                format!("there is no kind `{word}`"),
            )
            .label("unknown kind")
            .hint(suggest(word, "kinds", kinds.names())),
        );
    }
    facts
}

/// Tells which required ports and parameters the table lacks.
fn missing(entry: &Entry<'_>, facts: &KindFacts, found: &mut Findings) -> Vec<String> {
    let has = |name: &str| entry.table.contains_key(name);
    let kind = facts.info.name;
    let mut tell = |name: &str, hint: String| {
        let message = format!("node `{}` lacks the field `{name}`", entry.name);
        found.push(
            Diagnostic::at(entry.place(), message)
                .label(format!("`{kind}` needs `{name}`"))
                .hint(hint),
        );
    };
    for port in facts
        .info
        .ports
        .iter()
        .filter(|port| port.required && !has(port.name))
    {
        tell(
            port.name,
            format!("`{}`: {}", port.name, lower_first(port.doc)),
        );
    }
    let mut told = Vec::new();
    for name in &facts.required {
        let file = facts.info.files.iter().find(|file| file.sets == *name);
        let drawn = facts.info.draws && (name == "seed" || name == "stream");
        if has(name) || drawn || file.is_some_and(|file| has(file.field)) {
            continue;
        }
        told.push(name.clone());
        tell(
            name,
            match file {
                Some(file) => format!("give `{name}`, or `{}` with the path of a text", file.field),
                None => format!("`runner kinds {kind}` tells what `{name}` is"),
            },
        );
    }
    told
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars
        .next()
        .map(|c| c.to_lowercase().to_string())
        .unwrap_or_default();
    first + chars.as_str().trim_end_matches('.')
}

/// How many times each round is unrolled; within the limit in all.
pub(super) fn counts<'a>(
    document: &Document<'a>,
    texts: &[RoundText<'a>],
    sweep: &[Axis<'a>],
    found: &mut Findings,
) -> Vec<usize> {
    let shape = Scope::of_params(&document.params, sweep);
    let mut total = 0_usize;
    let rounds = document.rounds.entries.iter().zip(texts);
    rounds
        .map(|(entry, text)| {
            let count = count(entry, text, &shape, found);
            total = total.saturating_add(count.saturating_mul(text.nodes.entries.len().max(1)));
            if total > MAX_INSTANCES {
                found.push(axes::too_many(entry.place()));
                return 1;
            }
            count
        })
        .collect()
}

fn count<'a>(
    entry: &Entry<'a>,
    text: &RoundText<'a>,
    shape: &Scope<'_, 'a>,
    found: &mut Findings,
) -> usize {
    let Some(written) = &text.count else {
        found.push(
            Diagnostic::at(
                entry.place(),
                format!("round `{}` lacks the field `count`", entry.name),
            )
            .label("how many rounds?")
            .hint("write `count = 3`".to_owned()),
        );
        return 1;
    };
    let mut substitution = Substitution {
        scope: shape,
        source: &entry.source,
        found,
        saw: std::collections::BTreeMap::new(),
    };
    let Some(value) = substitution.value(written) else {
        return 1;
    };
    match as_int(value.get_ref()) {
        Some(count) if count >= 1 => usize::try_from(count).unwrap_or(usize::MAX),
        Some(_) => {
            let place = Place::new(&entry.source, value.span());
            found
                .push(Diagnostic::at(place, "`count` must be at least 1").label("no round at all"));
            1
        }
        None => {
            found.push(wrong(
                "count",
                "a whole number, 1 or more",
                &entry.source,
                &value,
            ));
            1
        }
    }
}

fn result(
    entry: &Entry<'_>,
    round: &RoundText<'_>,
    nodes: &HashMap<&str, usize>,
    found: &mut Findings,
) -> Option<(String, Place)> {
    let names = || nodes.keys().copied().collect::<Vec<_>>();
    let Some(value) = &round.result else {
        found.push(
            Diagnostic::at(
                entry.place(),
                format!("round `{}` lacks the field `result`", entry.name),
            )
            .label("which node is its result?")
            .hint(suggest("", "its nodes", names())),
        );
        return None;
    };
    let name = text("result", &entry.source, value, found)?;
    let place = Place::new(&entry.source, value.span());
    if !nodes.contains_key(name.as_str()) {
        let mut known = names();
        known.sort_unstable();
        found.push(
            Diagnostic::at(
                place.clone(),
                format!("round `{}` has no node `{name}`", entry.name),
            )
            .label("not one of its nodes")
            .hint(suggest(&name, "its nodes", known)),
        );
    }
    Some((name, place))
}
