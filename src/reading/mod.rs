//! Reads a table into a Rust type and tells everything that is wrong with it,
//! field by field, in words for people.

pub(crate) mod findings;
pub(crate) mod misplaced;
pub(crate) mod names;
pub(crate) mod size;
pub(crate) mod source;
pub(crate) mod values;

use std::{ops::Range, sync::Arc};

use serde::de::DeserializeOwned;
use toml::{
    Spanned,
    de::{DeTable, DeValue, Error, ValueDeserializer},
};

use self::{findings::Findings, names::suggest};
use crate::diagnostic::{Diagnostic, Place, SourceText};

/// Where a table stands and what people call it.
pub(crate) struct Subject<'s> {
    /// `data set `cifar10``, `a node of kind `probe``.
    pub(crate) what: &'s str,
    /// Its file.
    pub(crate) source: &'s Arc<SourceText>,
    /// Its name there.
    pub(crate) header: Range<usize>,
    /// Fields whose absence has been told already.
    pub(crate) missing: &'s [String],
}

/// Reads `table` with serde.
pub(crate) fn read<T: DeserializeOwned>(
    subject: &Subject<'_>,
    table: DeTable<'_>,
    found: &mut Findings,
) -> Option<T> {
    read_with(subject, table, found, |value| {
        T::deserialize(ValueDeserializer::from(value))
    })
}

/// Reads `table` with `parse`. After an error the field at fault is left out
/// and the rest is tried again, so that every field's error comes out; what
/// could be read without those fields is given back.
pub(crate) fn read_with<'a, T>(
    subject: &Subject<'_>,
    table: DeTable<'a>,
    found: &mut Findings,
    parse: impl Fn(Spanned<DeValue<'a>>) -> Result<T, Error>,
) -> Option<T> {
    let wrap = |table| Spanned::new(subject.header.clone(), DeValue::Table(table));
    let mut error = match parse(wrap(table.clone())) {
        Ok(value) => return Some(value),
        Err(error) => error,
    };
    let mut rest = table;
    let mut dropped = subject.missing.to_vec();
    loop {
        let field = field_at(&rest, error.span().filter(|span| *span != subject.header));
        let told = missing_field(error.message())
            .is_some_and(|name| field.is_none() && dropped.iter().any(|d| d == name));
        if !told {
            found.push(explain(subject, field.as_ref(), &error));
        }
        let (name, ..) = field?;
        rest.remove(name.as_str());
        dropped.push(name);
        match parse(wrap(rest.clone())) {
            Ok(value) => return Some(value),
            Err(next) => error = next,
        }
    }
}

type Field = (String, Range<usize>, Range<usize>);

/// The field that `span` lies in: its name, key and value.
fn field_at(table: &DeTable<'_>, span: Option<Range<usize>>) -> Option<Field> {
    let span = span?;
    let within = |outer: &Range<usize>| outer.start <= span.start && span.end <= outer.end;
    table.iter().find_map(|(key, value)| {
        (within(&key.span()) || within(&value.span()))
            .then(|| (key.get_ref().to_string(), key.span(), value.span()))
    })
}

fn missing_field(message: &str) -> Option<&str> {
    message.strip_prefix("missing field `")?.split('`').next()
}

/// serde's error in our words.
fn explain(subject: &Subject<'_>, field: Option<&Field>, error: &Error) -> Diagnostic {
    let what = subject.what;
    let name = field.map_or("", |(name, ..)| name.as_str());
    let place = match (error.span(), field) {
        (Some(span), Some(_)) => Place::new(subject.source, span),
        _ => Place::new(subject.source, subject.header.clone()),
    };
    let (message, hint) = match error.message().split_once("\nhint: ") {
        Some((message, hint)) => (message, Some(hint.to_owned())),
        None => (error.message().trim_end(), None),
    };
    if let Some(missing) = missing_field(message) {
        let owner = if field.is_some() {
            format!("`{name}`")
        } else {
            what.to_owned()
        };
        return Diagnostic::at(place, format!("{owner} lacks the field `{missing}`"))
            .label(format!("`{missing}` is missing"));
    }
    if let Some((word, names)) = unknown("unknown field `", message) {
        return Diagnostic::at(place, format!("unknown field `{word}` in {what}"))
            .label("no such field")
            .hint(suggest(word, "fields", names.iter().copied()));
    }
    if let Some((word, names)) = unknown("unknown variant `", message) {
        return Diagnostic::at(place, format!("`{name}` cannot be `{word}`"))
            .label("not one of the choices")
            .hint(suggest(word, "one of", names.iter().copied()));
    }
    let types = message
        .strip_prefix("invalid type: ")
        .or_else(|| message.strip_prefix("invalid value: "))
        .and_then(|rest| rest.rsplit_once(", expected "));
    if let Some((is, takes)) = types {
        let (is, takes) = (what_is(is), what_it_takes(takes));
        return Diagnostic::at(place, format!("`{name}` takes {takes}, but this is {is}"))
            .label(format!("not {takes}"))
            .hint(hint);
    }
    let message = if name.is_empty() || message.contains(&format!("`{name}`")) {
        message.to_owned()
    } else {
        format!("`{name}`: {message}")
    };
    Diagnostic::at(place, message).hint(hint)
}

/// The word and the choices of "unknown … `word`, expected one of `a`, `b`".
fn unknown<'m>(start: &str, message: &'m str) -> Option<(&'m str, Vec<&'m str>)> {
    let (word, rest) = message.strip_prefix(start)?.split_once('`')?;
    Some((word, rest.split('`').skip(1).step_by(2).collect()))
}

/// "string \"x\"" and the like.
fn what_is(text: &str) -> String {
    let names = [
        ("string ", "the string "),
        ("integer ", "the whole number "),
        ("floating point ", "the number "),
        ("boolean ", ""),
        ("sequence", "a list"),
        ("map", "a table"),
    ];
    for (from, to) in names {
        if let Some(rest) = text.strip_prefix(from) {
            return format!("{to}{}", shorten(rest));
        }
    }
    text.to_owned()
}

/// A long value, cut.
fn shorten(text: &str) -> String {
    if text.chars().count() <= 60 {
        return text.to_owned();
    }
    let start: String = text.chars().take(50).collect();
    format!("{start}…")
}

/// The Rust types that serde names, in words.
fn what_it_takes(text: &str) -> String {
    match text.trim() {
        "f32" | "f64" => "a number".into(),
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number, 0 or more".into(),
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number".into(),
        "a nonzero usize" | "a nonzero u32" | "a nonzero u64" => "a whole number, 1 or more".into(),
        "a boolean" => "`true` or `false`".into(),
        "a sequence" => "a list".into(),
        "path string" => "a path".into(),
        "a map" => "a table".into(),
        other if other.starts_with("struct ") => "a table".into(),
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Colour {
        Red,
        Green,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[expect(dead_code, reason = "only read")]
        x: i64,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only read")]
    struct Outer {
        count: usize,
        #[serde(default)]
        heat: f64,
        #[serde(default)]
        colour: Option<Colour>,
        #[serde(default)]
        inner: Option<Inner>,
        #[serde(default)]
        words: Vec<String>,
    }

    fn errors(text: &str) -> Vec<String> {
        let source = SourceText::new(Path::new("a"), "a", text);
        let table = DeTable::parse(text).unwrap().into_inner();
        let mut found = Findings::default();
        let subject = Subject {
            what: "a thing",
            source: &source,
            header: 0..0,
            missing: &[],
        };
        let read = read::<Outer>(&subject, table, &mut found);
        let list = found.into_diagnostics().0;
        let lacks_count = list
            .iter()
            .any(|d| d.message.contains("lacks the field `count`"));
        assert_eq!(
            read.is_some(),
            !lacks_count && !text.starts_with("count = -1")
        );
        list.into_iter()
            .map(|d| format!("{} | {}", d.message, d.hint.unwrap_or_default()))
            .collect()
    }

    #[test]
    fn every_field_is_told_in_words() {
        assert_eq!(errors("count = 1\nheat = 2"), [""; 0]);
        assert_eq!(
            errors(
                "count = -1\nheat = 'hot'\ncolour = 'grene'\nheta = 1\ninner = {x = 1, y = 2}\nwords = [1]"
            ),
            [
                "`count` takes a whole number, 0 or more, but this is the whole number `-1` | ",
                "`heat` takes a number, but this is the string \"hot\" | ",
                "`colour` cannot be `grene` | did you mean `green`?",
                "unknown field `heta` in a thing | did you mean `heat`?",
                "unknown field `y` in a thing | fields: `x`",
                "`words` takes a string, but this is the whole number `1` | ",
            ]
        );
        assert_eq!(
            errors("inner = {}"),
            [
                "a thing lacks the field `count` | ",
                "`inner` lacks the field `x` | "
            ]
        );
    }
}
