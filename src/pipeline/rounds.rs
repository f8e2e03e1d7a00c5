//! `[rounds.x]`: bounded loops as they are written.

use std::collections::BTreeMap;

use toml::{Spanned, de::DeValue};

use super::{
    axes::{self, MAX_INSTANCES},
    document::{Document, Entry, Section, text, wrong},
    findings::Findings,
    names::suggest,
    substitute::{Axis, Scope, Substitution},
    values::as_int,
};
use crate::diagnostic::{Diagnostic, Place};

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
    pub(super) nodes: BTreeMap<&'d str, usize>,
}

impl Round<'_> {
    /// The template of its result.
    pub(super) fn result(&self) -> Option<usize> {
        self.nodes.get(self.result.as_ref()?.0.as_str()).copied()
    }
}

/// The sections of every `[rounds.x]`, split off so that templates can borrow them.
pub(super) struct RoundText<'a> {
    /// `count`.
    pub(super) count: Option<Spanned<DeValue<'a>>>,
    /// `result`.
    pub(super) result: Option<Spanned<DeValue<'a>>>,
    /// `matrix`.
    pub(super) matrix: Option<Spanned<DeValue<'a>>>,
    /// `nodes`.
    pub(super) nodes: Section<'a>,
}

/// Splits the tables of rounds into their fields.
pub(super) fn split<'a>(document: &mut Document<'a>, found: &mut Findings) -> Vec<RoundText<'a>> {
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
        saw: BTreeMap::new(),
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

pub(super) fn result(
    entry: &Entry<'_>,
    round: &RoundText<'_>,
    nodes: &BTreeMap<&str, usize>,
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
