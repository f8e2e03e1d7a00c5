//! Published figures of tables: written in the pipeline, or in a file of their own
//! that it names as `published.toml:table4`.

use std::{
    collections::{BTreeMap, btree_map},
    path::{Path, PathBuf},
};

use serde_json::Value;
use toml::{Spanned, de::DeValue};

use super::{
    document::{Entry, wrong},
    entries::beside,
    findings::Findings,
    names::suggest,
    source::{read, shown_beside},
    values::as_json,
};
use crate::diagnostic::{Diagnostic, Place};

/// Files of figures that were read, each once.
#[derive(Default)]
pub(super) struct Figures {
    files: BTreeMap<PathBuf, Value>,
}

impl Figures {
    /// The files that were read.
    pub(super) fn files(self) -> impl Iterator<Item = PathBuf> {
        self.files.into_keys()
    }

    /// Figures by name: a table, or `"file:key"`, which leads to one.
    pub(super) fn map(
        &mut self,
        entry: &Entry<'_>,
        value: &Spanned<DeValue<'_>>,
        found: &mut Findings,
    ) -> BTreeMap<String, Value> {
        match self.value(entry, value, found) {
            Some(Value::Object(map)) => map.into_iter().collect(),
            Some(_) => {
                found.push(
                    wrong("published", "a table", &entry.source, value)
                        .hint("write `published = { 0 = 70.35, 1 = 72.91 }`".to_owned()),
                );
                BTreeMap::new()
            }
            None => BTreeMap::new(),
        }
    }

    /// Figures in an order: a list, a single one, or `"file:key"`, which leads to either.
    pub(super) fn list(
        &mut self,
        entry: &Entry<'_>,
        value: &Spanned<DeValue<'_>>,
        found: &mut Findings,
    ) -> Vec<Value> {
        match self.value(entry, value, found) {
            Some(Value::Array(list)) => list,
            Some(one @ Value::Number(_)) => vec![one],
            Some(_) => {
                let takes = "a list of figures, or a place such as \"published.toml:table3.class\"";
                found.push(wrong("published", takes, &entry.source, value));
                Vec::new()
            }
            None => Vec::new(),
        }
    }

    /// The value itself, or what its text leads to. `None` after an error.
    fn value(
        &mut self,
        entry: &Entry<'_>,
        value: &Spanned<DeValue<'_>>,
        found: &mut Findings,
    ) -> Option<Value> {
        let Some(text) = value.get_ref().as_str() else {
            return Some(as_json(value.get_ref()));
        };
        let place = Place::new(&entry.source, value.span());
        let Some((file, keys)) = text.rsplit_once(':') else {
            found.push(
                Diagnostic::at(place, format!("`{text}` names no figures"))
                    .label("a file, a colon and a key are needed")
                    .hint("write \"published.toml:table4\", for example".to_owned()),
            );
            return None;
        };
        let path = beside(&entry.source, Path::new(file));
        let shown = shown_beside(&entry.source.shown, Path::new(file));
        let whole = match self.files.entry(path) {
            btree_map::Entry::Occupied(known) => known.into_mut(),
            btree_map::Entry::Vacant(new) => {
                let text = match read(new.key(), &shown) {
                    Ok(text) => text,
                    Err(error) => {
                        found.push(Diagnostic::at(place, error.message).label("named here"));
                        return None;
                    }
                };
                match toml::from_str::<Value>(&text.text) {
                    Ok(value) => new.insert(value),
                    Err(error) => {
                        let line = text.text[..error.span().map_or(0, |span| span.start)]
                            .matches('\n')
                            .count();
                        let message = format!("`{shown}` line {}: {}", line + 1, error.message());
                        found.push(Diagnostic::at(place, message).label("named here"));
                        return None;
                    }
                }
            }
        };
        let mut at: &Value = whole;
        for key in keys.split('.') {
            match at.get(key) {
                Some(next) => at = next,
                None => {
                    let names: Vec<&str> = (at.as_object().into_iter().flatten())
                        .map(|(name, _)| name.as_str())
                        .collect();
                    let hint = suggest(key, "it has", names);
                    found.push(
                        Diagnostic::at(place, format!("`{shown}` has no `{key}`"))
                            .label("no such figures")
                            .hint(hint),
                    );
                    return None;
                }
            }
        }
        Some(at.clone())
    }
}
