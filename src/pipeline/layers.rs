//! What a pipeline is laid together from: the file, what it extends, and the
//! command line.

use std::{borrow::Cow, cell::OnceCell, path::Path, sync::Arc};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    document::{Document, Param, check_version, text},
    entries::beside,
    findings::Findings,
    names::suggest,
    source::{parse, read, shown_beside},
    values::{as_int, describe},
};
use crate::diagnostic::{Diagnostic, Place, SourceText};

/// Files that may extend one another.
const MAX_CHAIN: usize = 16;

/// Texts that live as long as the load: values borrow from them.
#[derive(Default)]
pub(super) struct Texts {
    text: OnceCell<Arc<SourceText>>,
    next: OnceCell<Box<Texts>>,
}

impl Texts {
    /// Keeps `text`. There are few, so a list is fast enough.
    pub(super) fn keep(&self, text: Arc<SourceText>) -> &Arc<SourceText> {
        let mut at = self;
        while let Some(next) = at.next.get() {
            at = next;
        }
        at.next.get_or_init(Box::default);
        at.text.get_or_init(|| text)
    }

    /// Keeps a text that no file holds.
    pub(super) fn keep_text(&self, shown: &str, text: String) -> &Arc<SourceText> {
        self.keep(SourceText::new(Path::new(""), shown, text))
    }
}

/// The file at `main` and those that it extends, the last base first.
/// `None` when one of them cannot be used at all.
pub(super) fn files<'a>(
    main: Arc<SourceText>,
    texts: &'a Texts,
    found: &mut Findings,
) -> Option<Vec<(&'a Arc<SourceText>, DeTable<'a>)>> {
    let mut chain: Vec<(&'a Arc<SourceText>, DeTable<'a>)> = Vec::new();
    let mut next = Some(main);
    let mut good = true;
    while let Some(source) = next.take() {
        let source = texts.keep(source);
        let Some(table) = parse(source, found) else {
            good = false;
            break;
        };
        if !check_version(source, &table, found) {
            good = false;
            break;
        }
        if let Some(value) = table.get("extends") {
            match base(&chain, source, value, found) {
                Some(base) => next = Some(base),
                None => good = false,
            }
        }
        chain.push((source, table));
    }
    chain.reverse();
    // With a part of the text missing, every other error would be a guess.
    good.then_some(chain)
}

fn base(
    chain: &[(&Arc<SourceText>, DeTable<'_>)],
    source: &Arc<SourceText>,
    value: &Spanned<DeValue<'_>>,
    found: &mut Findings,
) -> Option<Arc<SourceText>> {
    let name = text("extends", source, value, found)?;
    let path = beside(source, Path::new(&name));
    let shown = shown_beside(&source.shown, Path::new(&name));
    let place = Place::new(source, value.span());
    let mut files: Vec<&Arc<SourceText>> = chain.iter().map(|(file, _)| *file).collect();
    files.push(source);
    if let Some(at) = files.iter().position(|file| file.path == path) {
        let mut names: Vec<_> = files[at..].iter().map(|file| file.shown.as_str()).collect();
        names.push(&shown);
        let message = format!("files extend each other: {}", names.join(" -> "));
        found.push(Diagnostic::at(place, message).label("back to where it began"));
        return None;
    }
    if files.len() >= MAX_CHAIN {
        let message = format!("more than {MAX_CHAIN} files extend one another");
        found.push(Diagnostic::at(place, message).label("one too many"));
        return None;
    }
    match read(&path, &shown) {
        Ok(base) => Some(base),
        Err(error) if error.span.is_some() => {
            found.push(*error);
            None
        }
        Err(error) => {
            found.push(
                Diagnostic::at(place, error.message)
                    .label(format!("the path is relative to `{}`", source.shown)),
            );
            None
        }
    }
}

/// Sets a parameter, or the points of a swept one, from `-s name=value`.
pub(super) fn set<'a>(
    document: &mut Document<'a>,
    name: &str,
    value: &str,
    texts: &'a Texts,
    found: &mut Findings,
) {
    let source = texts.keep_text("command line", format!("-s {name}={value}"));
    let start = "-s ".len();
    let place = Place::new(source, start..start + name.len());
    let at = start + name.len() + 1;
    let raw = &source.text[at..];
    let span = at..source.text.len();
    let told = |problem: String| {
        Diagnostic::at(Place::new(source, span.clone()), problem).label("of another type")
    };
    if let Some(axis) = document.sweep.iter_mut().find(|axis| axis.name == name) {
        let first = axis
            .values
            .get_ref()
            .as_array()
            .and_then(|list| list.first().cloned());
        let Some(first) = first else { return };
        match points(name, first.get_ref(), raw, texts) {
            Ok(points) => {
                let list = points
                    .into_iter()
                    .map(|value| Spanned::new(span.clone(), value));
                axis.values = Spanned::new(span.clone(), DeValue::Array(list.collect()));
                axis.place = place;
                axis.set = true;
            }
            Err(problem) => found.push(told(problem)),
        }
        return;
    }
    let Some(param) = document.params.get_mut(name) else {
        let names: Vec<&str> = document.params.keys().map(String::as_str).collect();
        let hint = suggest(name, "parameters", names)
            .or_else(|| Some("the file has no `[params]`".to_owned()));
        found.push(
            Diagnostic::at(place, format!("there is no parameter `{name}`"))
                .label("unknown parameter")
                .hint(hint),
        );
        return;
    };
    match typed(name, param.value.get_ref(), raw, texts) {
        Ok(value) => {
            *param = Param {
                value: Spanned::new(span, value),
                place,
                set: true,
            };
        }
        Err(problem) => {
            found.push(told(problem).note(param.place.clone(), "its default is here"));
        }
    }
}

/// `raw` as points of an axis whose first point is `like`: a list, or one value.
fn points<'a>(
    name: &str,
    like: &DeValue<'a>,
    raw: &'a str,
    texts: &'a Texts,
) -> Result<Vec<DeValue<'a>>, String> {
    let list = raw
        .trim_start()
        .starts_with('[')
        .then(|| DeValue::parse(raw).ok())
        .flatten();
    let Some(DeValue::Array(list)) = list.map(Spanned::into_inner) else {
        return Ok(vec![typed(name, like, raw, texts)?]);
    };
    list.into_iter()
        .map(|item| {
            let part = &raw[item.span()];
            match item.into_inner() {
                DeValue::String(text) if like.is_str() => Ok(DeValue::String(text)),
                _ => typed(name, like, part, texts),
            }
        })
        .collect()
}

/// `raw` as a value of the type of `like`.
fn typed<'a>(
    name: &str,
    like: &DeValue<'a>,
    raw: &'a str,
    texts: &'a Texts,
) -> Result<DeValue<'a>, String> {
    let wrong = || format!("`{name}` is {}, but `{raw}` is not", describe(like));
    match like {
        DeValue::String(_) => Ok(DeValue::String(Cow::Borrowed(raw))),
        DeValue::Float(_) => {
            let number: f64 = raw
                .trim()
                .parse()
                .map_err(|_| format!("`{name}` is a number, but `{raw}` is not"))?;
            let text = if number.is_nan() {
                "nan".to_owned()
            } else {
                format!("{number:?}")
            };
            let text = texts.keep_text("command line", text);
            DeValue::parse(&text.text)
                .map(Spanned::into_inner)
                .map_err(|_| wrong())
        }
        _ => {
            let value = DeValue::parse(raw.trim())
                .map_err(|_| wrong())?
                .into_inner();
            let fits = value.same_type(like) && (!value.is_integer() || as_int(&value).is_some());
            if fits { Ok(value) } else { Err(wrong()) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::values::as_json;
    use super::*;

    fn set_to(like: &str, raw: &str) -> Result<serde_json::Value, String> {
        let texts = Texts::default();
        let like = DeValue::parse(like).unwrap();
        typed("x", like.get_ref(), raw, &texts).map(|value| as_json(&value))
    }

    #[test]
    fn the_command_line_gives_values_of_the_default_s_type() {
        assert_eq!(set_to("0.5", "1").unwrap(), serde_json::json!(1.0));
        assert_eq!(set_to("0.5", ".25").unwrap(), serde_json::json!(0.25));
        assert_eq!(set_to("3", "0x10").unwrap(), serde_json::json!(16));
        assert_eq!(set_to("'a'", "12").unwrap(), serde_json::json!("12"));
        assert_eq!(set_to("false", "true").unwrap(), serde_json::json!(true));
        assert_eq!(set_to("[1]", "[2, 3]").unwrap(), serde_json::json!([2, 3]));
        assert_eq!(
            set_to("3", "0.5").unwrap_err(),
            "`x` is a whole number, but `0.5` is not"
        );
        assert_eq!(
            set_to("0.5", "hot").unwrap_err(),
            "`x` is a number, but `hot` is not"
        );
        assert!(set_to("3", "99999999999999999999").is_err());
    }

    #[test]
    fn an_axis_takes_a_list_or_one_value() {
        let texts = Texts::default();
        let like = DeValue::parse("0.5").unwrap();
        let json = |raw: &'static str| {
            let points = points("x", like.get_ref(), raw, &texts).unwrap();
            points.iter().map(as_json).collect::<Vec<_>>()
        };
        assert_eq!(
            json("[1, 0.5]"),
            [serde_json::json!(1.0), serde_json::json!(0.5)]
        );
        assert_eq!(json("2"), [serde_json::json!(2.0)]);
    }
}
