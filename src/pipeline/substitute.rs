//! `${x}` in TOML values: a value that is only `"${x}"` keeps the type of x.

use std::{borrow::Cow, collections::BTreeMap, ops::Range, rc::Rc, sync::Arc};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    document::Param,
    findings::Findings,
    graph::{Point, Seen},
    names::{is_valid, suggest},
    values::{as_json, describe},
};
use crate::diagnostic::{Diagnostic, Place, SourceText};

/// One dimension along which nodes are repeated.
pub(super) struct Axis<'a> {
    /// Its name.
    pub(super) name: String,
    /// Its points, distinct.
    pub(super) points: Vec<Point>,
    /// The same as TOML.
    pub(super) values: Vec<DeValue<'a>>,
    /// Where it is written.
    pub(super) place: Place,
    /// Whether `-s` gave its points.
    pub(super) set: bool,
}

/// Parameters by name.
pub(super) type Params<'a> = BTreeMap<String, Param<'a>>;

/// What names mean at one place.
pub(super) struct Scope<'s, 'a> {
    /// `[params]`.
    pub(super) params: &'s Params<'a>,
    /// Matrix and round axes of the node, with its coordinates on them.
    pub(super) axes: &'s [Rc<Axis<'a>>],
    /// Coordinates on `axes`.
    pub(super) at: &'s [usize],
    /// Sweep axes; `None` where the shape of the graph is decided.
    pub(super) sweep: Option<&'s [Axis<'a>]>,
    /// Coordinates on `sweep`; those of axes that the text does not name may be anything.
    pub(super) sweep_at: &'s [usize],
}

enum Meaning<'s, 'a> {
    /// A matrix variable or the round.
    Local(&'s DeValue<'a>),
    /// A parameter, and whether `-s` set it.
    Param(&'s DeValue<'a>, bool),
    /// A swept parameter where none is allowed.
    Swept,
    Unknown,
}

impl<'s, 'a> Scope<'s, 'a> {
    /// A scope that knows parameters alone.
    pub(super) fn of_params(params: &'s Params<'a>, sweep: &'s [Axis<'a>]) -> Self {
        Self {
            params,
            axes: &[],
            at: &[],
            sweep: Some(sweep),
            sweep_at: &[],
        }
    }

    fn meaning(&self, name: &str) -> Meaning<'s, 'a> {
        for (axis, at) in self.axes.iter().zip(self.at) {
            if axis.name == name {
                return Meaning::Local(&axis.values[*at]);
            }
        }
        for (i, axis) in self.sweep.unwrap_or_default().iter().enumerate() {
            if axis.name == name {
                return match self.sweep_at.get(i) {
                    Some(at) => Meaning::Param(&axis.values[*at], axis.set),
                    None => Meaning::Swept,
                };
            }
        }
        match self.params.get(name) {
            Some(param) => Meaning::Param(param.value.get_ref(), param.set),
            None => Meaning::Unknown,
        }
    }

    fn names(&self) -> Vec<&str> {
        let local = self.axes.iter().map(|axis| axis.name.as_str());
        let sweep = self
            .sweep
            .unwrap_or_default()
            .iter()
            .map(|a| a.name.as_str());
        let params = self.params.keys().map(String::as_str);
        local.chain(sweep).chain(params).collect()
    }
}

/// A stretch of a string.
enum Piece<'t> {
    Text(&'t str),
    Name(&'t str),
    Unclosed,
}

fn pieces(mut text: &str) -> Vec<Piece<'_>> {
    let mut out = Vec::new();
    while let Some(at) = text.find("${") {
        if text[..at].ends_with('$') {
            // `$${` stands for `${`.
            out.push(Piece::Text(&text[..at - 1]));
            out.push(Piece::Text("${"));
            text = &text[at + 2..];
            continue;
        }
        out.push(Piece::Text(&text[..at]));
        let Some(end) = text[at..].find('}') else {
            out.push(Piece::Unclosed);
            return out;
        };
        out.push(Piece::Name(text[at + 2..at + end].trim()));
        text = &text[at + end + 1..];
    }
    out.push(Piece::Text(text));
    out.retain(|piece| !matches!(piece, Piece::Text("")));
    out
}

/// Calls `each` with every name in a `${…}` below `value`.
pub(super) fn names_in(value: &DeValue<'_>, each: &mut impl FnMut(&str)) {
    match value {
        DeValue::String(text) if text.contains("${") => {
            for piece in pieces(text) {
                if let Piece::Name(name) = piece {
                    each(name);
                }
            }
        }
        DeValue::Array(list) => list.iter().for_each(|item| names_in(item.get_ref(), each)),
        DeValue::Table(table) => table
            .values()
            .for_each(|item| names_in(item.get_ref(), each)),
        _ => {}
    }
}

/// Whether a string below `value` holds `${`.
pub(super) fn has_names(value: &DeValue<'_>) -> bool {
    match value {
        DeValue::String(text) => text.contains("${"),
        DeValue::Array(list) => list.iter().any(|item| has_names(item.get_ref())),
        DeValue::Table(table) => table.values().any(|item| has_names(item.get_ref())),
        _ => false,
    }
}

/// What substitution needs besides the scope.
pub(super) struct Substitution<'f, 's, 'a> {
    /// Meanings.
    pub(super) scope: &'f Scope<'s, 'a>,
    /// The file of the values.
    pub(super) source: &'f Arc<SourceText>,
    /// Errors.
    pub(super) found: &'f mut Findings,
    /// Parameters that were seen.
    pub(super) saw: BTreeMap<String, Seen>,
}

impl<'s, 'a> Substitution<'_, 's, 'a> {
    /// `value` with every `${…}` replaced; spans stay those of the file.
    /// `None` after telling what is wrong.
    pub(super) fn value(&mut self, value: &Spanned<DeValue<'a>>) -> Option<Spanned<DeValue<'a>>> {
        let span = value.span();
        Some(Spanned::new(
            span.clone(),
            match value.get_ref() {
                DeValue::String(text) if text.contains("${") => self.text(text, &span)?,
                DeValue::Array(list) if has_names(value.get_ref()) => {
                    // Every element is looked at, so that all errors come out.
                    let items: Vec<_> = list.iter().map(|item| self.value(item)).collect();
                    DeValue::Array(items.into_iter().collect::<Option<_>>()?)
                }
                DeValue::Table(table) if has_names(value.get_ref()) => {
                    DeValue::Table(self.table(table)?)
                }
                other => other.clone(),
            },
        ))
    }

    /// A table with every `${…}` in its values replaced.
    pub(super) fn table(&mut self, table: &DeTable<'a>) -> Option<DeTable<'a>> {
        let entries: Vec<_> = table
            .iter()
            .map(|(key, value)| Some((key.clone(), self.value(value)?)))
            .collect();
        entries.into_iter().collect()
    }

    fn text(&mut self, text: &str, span: &Range<usize>) -> Option<DeValue<'a>> {
        let pieces = pieces(text);
        if let [Piece::Name(name)] = pieces[..] {
            return self.name(name, span).cloned();
        }
        let (mut out, mut good) = (String::new(), true);
        for piece in pieces {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Unclosed => {
                    good = false;
                    let raw = self.source.text.get(span.clone());
                    let last = raw.and_then(|raw| raw.rfind("${"));
                    let place = match last.map(|at| span.start + at) {
                        Some(at) => Place::new(self.source, at..at + 2),
                        None => Place::new(self.source, span.clone()),
                    };
                    self.found.push(
                        Diagnostic::at(place, "`${` is never closed")
                            .label("opened here")
                            .hint("write `$${` for the characters `${`".to_owned()),
                    );
                }
                Piece::Name(name) => match self.name(name, span) {
                    None => good = false,
                    Some(value) => {
                        if let Some(text) = scalar_text(value) {
                            out.push_str(&text);
                        } else {
                            good = false;
                            let message = format!(
                                "`{name}` is {}, which cannot stand inside a string",
                                describe(value)
                            );
                            let place = self.inside(&format!("${{{name}}}"), span);
                            self.found.push(
                                Diagnostic::at(place, message)
                                    .hint(format!("write \"${{{name}}}\" alone")),
                            );
                        }
                    }
                },
            }
        }
        good.then_some(DeValue::String(Cow::Owned(out)))
    }

    fn name(&mut self, name: &str, span: &Range<usize>) -> Option<&'s DeValue<'a>> {
        let message = match self.scope.meaning(name) {
            Meaning::Local(value) => return Some(value),
            Meaning::Param(value, set) => {
                self.saw.entry(name.to_owned()).or_insert_with(|| Seen {
                    value: as_json(value),
                    set,
                });
                return Some(value);
            }
            Meaning::Swept => format!("the swept parameter `{name}` cannot decide this"),
            Meaning::Unknown => format!("`${{{name}}}` is not defined"),
        };
        let place = self.inside(name, span);
        let mut diagnostic = Diagnostic::at(place, message);
        if self
            .scope
            .sweep
            .is_some_and(|sweep| sweep.iter().any(|a| a.name == name))
        {
            diagnostic = diagnostic
                .label("every point of a sweep has the same nodes")
                .hint("use `matrix` on the nodes instead".to_owned());
        } else if name == "round" {
            diagnostic = diagnostic.hint("`${round}` exists only inside `[rounds.…]`".to_owned());
        } else if is_valid(name) {
            let hint = suggest(name, "names here", self.scope.names())
                .or_else(|| Some(format!("define `{name}` in `[params]`")));
            diagnostic = diagnostic.label("no such parameter").hint(hint);
        } else {
            diagnostic = diagnostic
                .label("not a name")
                .hint("write `$${` for the characters `${`".to_owned());
        }
        self.found.push(diagnostic);
        None
    }

    /// Where `part` stands in the text of `span`, or all of it.
    fn inside(&self, part: &str, span: &Range<usize>) -> Place {
        let at = self.source.text.get(span.clone()).and_then(|text| {
            // The name behind its `${`, not the same letters before it.
            let from = text.find("${").unwrap_or(0);
            let from = if part.starts_with("${") {
                from
            } else {
                from + 2
            };
            let at = span.start + from + text.get(from..)?.find(part)?;
            (!part.is_empty()).then_some(at..at + part.len())
        });
        Place::new(self.source, at.unwrap_or_else(|| span.clone()))
    }
}

fn scalar_text(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::Datetime(date) => Some(date.to_string()),
        other => super::values::as_point(other).map(|point| point.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn run(toml: &str) -> (Option<serde_json::Value>, Vec<String>) {
        let source = SourceText::new(Path::new("a"), "a", toml);
        let mut params = Params::new();
        for (name, text) in [("t", "0.5"), ("n", "3"), ("w", "'red'"), ("l", "[1, 2]")] {
            let value = DeValue::parse(text).unwrap();
            let param = Param {
                value,
                place: Place::new(&source, 0..0),
                set: name == "t",
            };
            params.insert(name.to_owned(), param);
        }
        let mut found = Findings::default();
        let scope = Scope::of_params(&params, &[]);
        let mut substitution = Substitution {
            scope: &scope,
            source: &source,
            found: &mut found,
            saw: BTreeMap::new(),
        };
        let value = substitution.value(&DeValue::parse(toml).unwrap());
        let messages = found.into_diagnostics().0.into_iter().map(|d| {
            let word = source.text[d.span.unwrap()].to_owned();
            format!("{} [{word}]", d.message)
        });
        (value.map(|v| as_json(v.get_ref())), messages.collect())
    }

    #[test]
    fn a_lone_name_keeps_its_type_and_others_are_text() {
        let (value, errors) =
            run("{a = '${t}', b = 'x${n}-${ w }', c = ['${l}', '$${t}'], d = '${n}.0'}");
        assert_eq!(errors, [""; 0]);
        assert_eq!(
            value.unwrap(),
            serde_json::json!({"a": 0.5, "b": "x3-red", "c": [[1, 2], "${t}"], "d": "3.0"})
        );
    }

    #[test]
    fn every_wrong_name_is_told_and_underlined() {
        let (value, errors) = run("['${tt}', 'a ${nn} ${w', '${}', 'x${l}']");
        assert_eq!(value, None);
        assert_eq!(
            errors,
            [
                "`${tt}` is not defined [tt]",
                "`${nn}` is not defined [nn]",
                "`${` is never closed [${]",
                "`${}` is not defined ['${}']",
                "`l` is a list, which cannot stand inside a string [${l}]",
            ]
        );
    }
}
