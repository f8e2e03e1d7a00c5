//! Reads files within the limits, so that nothing later can be overrun.

use std::{
    io::Read as _,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use toml::de::{DeTable, DeValue};

use super::findings::Findings;
use crate::diagnostic::{Diagnostic, Place, SourceText};

/// Bytes that one file may have.
pub(crate) const MAX_BYTES: u64 = 4 << 20;

/// Brackets that may be open at once, and keys that may follow one another.
pub(crate) const MAX_NESTING: usize = 64;

/// Beyond this size only the first syntax error is looked for: each costs memory.
const RECOVERED_BYTES: usize = 256 << 10;

/// Syntax errors of one file that are worth telling.
const MAX_SYNTAX_ERRORS: usize = 20;

/// The text of the file at `path`, or what is wrong with it.
pub(crate) fn read(path: &Path, shown: &str) -> Result<Arc<SourceText>, Box<Diagnostic>> {
    let nothing = SourceText::new(path, shown, "");
    let failed = |message: String| Box::new(Diagnostic::whole(&nothing, message));
    let mut bytes = Vec::new();
    // Not `fs::read`: a device or a growing file must not be read without end.
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| failed(format!("failed to read `{shown}`: {}", reason(&error))))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(failed(format!(
            "`{shown}` is larger than {} MiB",
            MAX_BYTES >> 20
        )));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let before = String::from_utf8_lossy(&error.as_bytes()[..good]);
        let line = before.matches('\n').count() + 1;
        failed(format!("`{shown}` is not UTF-8 text (line {line})"))
    })?;
    let source = SourceText::new(path, shown, text);
    match source.text.find('\0') {
        None => Ok(source),
        Some(at) => Err(Box::new(
            Diagnostic::at(
                Place::new(&source, at..at + 1),
                "there is a NUL byte in this file",
            )
            .label("here")
            .hint("is this a text file?".to_owned()),
        )),
    }
}

/// An input or output error in lower case without its number.
pub(crate) fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut chars = text.chars();
    chars
        .next()
        .map(|first| first.to_lowercase().chain(chars).collect())
        .unwrap_or_default()
}

/// The document in `source`; `None` after telling what is wrong with its syntax.
pub(crate) fn parse<'i>(source: &'i Arc<SourceText>, found: &mut Findings) -> Option<DeTable<'i>> {
    if let Some(at) = too_deep(&source.text) {
        found.push(nesting(source, at));
        return None;
    }
    let (table, errors) = if source.text.len() <= RECOVERED_BYTES {
        DeTable::parse_recoverable(&source.text)
    } else {
        match DeTable::parse(&source.text) {
            Ok(table) => (table, Vec::new()),
            Err(error) => (toml::Spanned::new(0..0, DeTable::new()), vec![error]),
        }
    };
    for error in errors.iter().take(MAX_SYNTAX_ERRORS) {
        let end = source.text.len();
        let span = error.span().unwrap_or(end..end);
        let label = if error.message().starts_with("duplicate key") {
            "given before"
        } else {
            "not TOML from here"
        };
        found.push(Diagnostic::at(Place::new(source, span), error.message()).label(label));
    }
    if !errors.is_empty() {
        return None;
    }
    let table = table.into_inner();
    if let Some(at) = deep_key(&table, MAX_NESTING) {
        found.push(nesting(source, at));
        return None;
    }
    Some(table)
}

fn nesting(source: &Arc<SourceText>, at: usize) -> Diagnostic {
    Diagnostic::at(
        Place::new(source, at..at + 1),
        format!("values are nested more than {MAX_NESTING} deep"),
    )
    .label("too deep here")
}

/// Where more than [`MAX_NESTING`] brackets are open, by a scan that knows
/// only strings, comments and brackets: it runs before the parser, on any text.
fn too_deep(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let (mut depth, mut i) = (0_usize, 0);
    while i < bytes.len() {
        match bytes[i] {
            b'[' | b'{' => {
                depth += 1;
                if depth > MAX_NESTING {
                    return Some(i);
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'#' => {
                while i < bytes.len() && bytes[i] != b'\n' {
                    i += 1;
                }
            }
            quote @ (b'"' | b'\'') => i = string_end(bytes, i, quote),
            _ => {}
        }
        i += 1;
    }
    None
}

/// The last byte of the string that opens at `start`.
fn string_end(bytes: &[u8], start: usize, quote: u8) -> usize {
    let triple = bytes[start..].starts_with(&[quote; 3]);
    let mut i = start + if triple { 3 } else { 1 };
    while i < bytes.len() {
        match bytes[i] {
            b'\\' if quote == b'"' => i += 1,
            b if b == quote && !triple => return i,
            b if b == quote && bytes[i..].starts_with(&[quote; 3]) => return i + 2,
            // A string that is never closed ends with its line, as for the parser.
            b'\n' if !triple => return i,
            _ => {}
        }
        i += 1;
    }
    bytes.len()
}

/// A key below more than `left` others.
fn deep_key(table: &DeTable<'_>, left: usize) -> Option<usize> {
    table.iter().find_map(|(key, value)| {
        if left == 0 {
            return Some(key.span().start);
        }
        deep_value(value.get_ref(), left - 1)
    })
}

fn deep_value(value: &DeValue<'_>, left: usize) -> Option<usize> {
    match value {
        DeValue::Table(table) => deep_key(table, left),
        DeValue::Array(list) => list.iter().find_map(|value| {
            if left == 0 {
                return Some(value.span().start);
            }
            deep_value(value.get_ref(), left - 1)
        }),
        _ => None,
    }
}

/// `path` without `.` and, where that is the same file, without `..`: a `..`
/// behind a symbolic link stays.
pub(crate) fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir
                if matches!(out.components().next_back(), Some(Component::Normal(_)))
                    && !out.is_symlink() =>
            {
                out.pop();
            }
            Component::ParentDir
                if matches!(out.components().next_back(), Some(Component::RootDir)) => {}
            other => out.push(other),
        }
    }
    out
}

/// The way from the folder `from` to `to`, both absolute; `to` itself where
/// they share nothing.
pub(crate) fn relative(from: &Path, to: &Path) -> PathBuf {
    let (from, to) = (normal(from), normal(to));
    let pairs = from.components().zip(to.components());
    let shared = pairs.take_while(|(a, b)| a == b).count();
    let up = from.components().skip(shared);
    if shared <= 1 || up.clone().any(|part| part == Component::ParentDir) {
        return to;
    }
    let mut out: PathBuf = up.map(|_| Component::ParentDir).collect();
    out.extend(to.components().skip(shared));
    if out.as_os_str().is_empty() {
        out.push(".");
    }
    out
}

/// How `path`, named in the file that people know as `shown`, is shown.
pub(crate) fn shown_beside(shown: &str, path: &Path) -> String {
    if path.is_absolute() {
        return path.display().to_string();
    }
    let folder = Path::new(shown).parent().unwrap_or_else(|| Path::new(""));
    normal(&folder.join(path)).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_in_strings_and_comments_do_not_nest() {
        let deep = "[".repeat(100);
        assert_eq!(too_deep(&deep), Some(64));
        assert_eq!(
            too_deep(&format!("a = '{deep}'\n# {deep}\nb = \"\\\"{deep}\"")),
            None
        );
        assert_eq!(
            too_deep(&format!("a = '''\n{deep}'\n''' # ''' {deep}")),
            None
        );
        assert_eq!(
            too_deep(&format!("a = \"\"\"\n{deep}\" \\\"\"\" \"\"\"")),
            None
        );
        assert_eq!(too_deep(&"[]{}".repeat(1000)), None);
        assert!(too_deep(&format!("a = 'open\nb = {deep}")).is_some());
    }

    #[test]
    fn dotted_keys_count_as_nesting() {
        let mut found = Findings::default();
        for (keys, fine) in [(64, true), (66, false), (500, false), (50_000, false)] {
            let text = format!("{}x = 1", "a.".repeat(keys - 1));
            let source = SourceText::new(Path::new("a"), "a", text);
            assert_eq!(parse(&source, &mut found).is_some(), fine, "{keys}");
        }
    }

    #[test]
    fn paths_are_shortened_only_where_it_is_the_same_file() {
        assert_eq!(normal(Path::new("/a/b/../c/./d")), Path::new("/a/c/d"));
        assert_eq!(normal(Path::new("/../a")), Path::new("/a"));
        assert_eq!(normal(Path::new("../a")), Path::new("../a"));
        assert_eq!(shown_beside("pipelines/a.toml", Path::new("../b")), "b");
        assert_eq!(shown_beside("a.toml", Path::new("b.toml")), "b.toml");
    }

    #[test]
    fn the_way_to_another_folder_goes_up_and_down() {
        for (from, to, way) in [
            ("/x/a/b", "/x/a/c/d", "../c/d"),
            ("/x/a", "/x/a/b", "b"),
            ("/x/a", "/x/a", "."),
            ("/x/a/../b", "/x/c", "../c"),
            ("/x", "/y/z", "/y/z"),
        ] {
            assert_eq!(relative(Path::new(from), Path::new(to)), Path::new(way));
        }
    }
}
