//! Nodes as they are written, before they are repeated along their axes.

use std::{borrow::Cow, collections::BTreeMap, ops::Range, rc::Rc, sync::Arc};

use toml::{Spanned, de::DeValue};

use super::{
    axes::{self, MAX_INSTANCES},
    document::{Document, Entry},
    findings::Findings,
    kinds::{KindFacts, Kinds, kind, missing, role, unknown_field},
    rounds::{Round, RoundText, result},
    substitute::{Axis, Scope, has_names, names_in},
};
use crate::{
    diagnostic::{Diagnostic, Place, SourceText},
    node::{Port, TextFile},
};

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
    /// Whether all its fields are known and all that it needs are there.
    pub(super) sound: bool,
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
        let mut nodes = BTreeMap::new();
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
    let before = found.len();
    let kind = kind(entry, kinds, found);
    let mut fields = Vec::with_capacity(entry.table.len());
    let mut meant = Vec::new();
    for (key, value) in &entry.table {
        let name = key.get_ref().as_ref();
        let role = match (name, &kind) {
            ("kind" | "matrix", _) => continue,
            ("exec", _) => Some(Role::Exec),
            (_, kind) => kind.as_ref().and_then(|facts| role(name, facts)),
        };
        if let Some(role) = role {
            fields.push(Field { key, value, role });
        } else if let Some(facts) = &kind {
            found.push(unknown_field(entry, key, facts, &mut meant));
        }
    }
    let missing = kind
        .as_ref()
        .map_or_else(Vec::new, |facts| missing(entry, facts, &meant, found));
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
        sound: found.len() == before,
        broken,
        constant: !names && !draws_in_rounds,
        first_unit: 0,
        units: 0,
    }
}
