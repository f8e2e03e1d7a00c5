//! The fields that a node's table may and must have, by its kind.

use std::{borrow::Cow, rc::Rc};

use toml::Spanned;

use super::{
    document::{Entry, wrong},
    findings::Findings,
    names::{nearest, suggest},
    template::Role,
};
use crate::{
    diagnostic::{Diagnostic, Place},
    node::KindInfo,
};

/// What the front end needs to know of a kind besides its row, computed once.
pub(super) struct KindFacts {
    /// The row.
    pub(super) info: &'static KindInfo,
    /// Names of its parameters.
    pub(super) params: Vec<String>,
    /// Those without a default.
    pub(super) required: Vec<String>,
    /// Those that hold text and nothing else.
    pub(super) texts: Vec<String>,
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
    let texts = params.into_iter().flatten();
    let texts = texts.filter(|(_, param)| param.get("type").is_some_and(|t| t == "string"));
    let required = schema.get("required").and_then(|r| r.as_array());
    KindFacts {
        info,
        texts: texts.map(|(name, _)| name.clone()).collect(),
        params: params.map_or_else(Vec::new, |p| p.keys().cloned().collect()),
        required: required.map_or_else(Vec::new, |list| {
            list.iter()
                .filter_map(|n| n.as_str().map(str::to_owned))
                .collect()
        }),
    }
}

pub(super) fn role(name: &str, facts: &KindFacts) -> Option<Role> {
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

pub(super) fn unknown_field(
    entry: &Entry<'_>,
    key: &Spanned<Cow<'_, str>>,
    facts: &KindFacts,
    meant: &mut Vec<String>,
) -> Diagnostic {
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
    meant.extend(nearest(name, known.iter().copied()).map(str::to_owned));
    Diagnostic::at(
        Place::new(&entry.source, key.span()),
        format!("unknown field `{name}` in a node of kind `{kind}`"),
    )
    .label("no such field")
    .hint(suggest(name, &format!("`{kind}` has"), known))
}

pub(super) fn kind(
    entry: &Entry<'_>,
    kinds: &mut Kinds,
    found: &mut Findings,
) -> Option<Rc<KindFacts>> {
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

/// Tells which required ports and parameters the table lacks, but for those
/// that an unknown field most likely means.
pub(super) fn missing(
    entry: &Entry<'_>,
    facts: &KindFacts,
    meant: &[String],
    found: &mut Findings,
) -> Vec<String> {
    let has = |name: &str| entry.table.contains_key(name);
    let kind = facts.info.name;
    let mut tell = |name: &str, hint: String| {
        if meant.iter().any(|meant| meant == name) {
            return;
        }
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
