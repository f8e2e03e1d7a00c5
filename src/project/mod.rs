//! `runner.toml`, the file in a project's root: its remotes, and the limits of
//! its cache. Whom somebody trusts and what opens a remote are never in it,
//! since everybody who may change the project may change this file.

pub mod edit;
mod url;

use std::{
    collections::HashMap,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Deserializer, de::Error as _};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::{
    diagnostic::{Diagnostic, Diagnostics, Place, SourceText},
    reading::{
        Subject,
        findings::Findings,
        misplaced,
        names::{is_valid, suggest},
        read,
        size::{bytes, time},
        source,
        values::wrong,
    },
};

/// The file's name.
pub const FILE: &str = "runner.toml";

/// Sections of the file.
const FIELDS: &[&str] = &["remote", "cache"];

/// A project: its root, and what its `runner.toml` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Project {
    /// The folder that the file is in.
    pub root: PathBuf,
    /// Where results are shared, in the order in which they are asked.
    pub remotes: Vec<RemoteSpec>,
    /// What the cache may hold.
    pub limits: Limits,
}

/// One `[[remote]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteSpec {
    /// Its name; no other remote of the project has it.
    pub name: String,
    /// As it is written: a folder, or a URL without user, password and query.
    pub url: String,
    /// Whether results are put there, too.
    pub write: bool,
    /// Whether a run ends when it cannot be reached.
    pub required: bool,
}

impl RemoteSpec {
    /// The folder that the remote is, if it is one: relative paths start at
    /// the project's `root`, and `file://` is left out.
    pub fn folder(&self, root: &Path) -> Option<PathBuf> {
        url::folder(&self.url).map(|path| source::normal(&root.join(path)))
    }
}

/// `[cache]`; `None` is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// What was not used for longer is collected.
    #[serde(deserialize_with = "age")]
    pub max_age: Option<Duration>,
    /// The longest unused is collected until this many bytes are left.
    #[serde(deserialize_with = "size")]
    pub max_size: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_age: Some(Duration::from_hours(90 * 24)),
            max_size: Some(200_000_000_000),
        }
    }
}

impl Project {
    /// Reads the `runner.toml` in `root`. Without one the project has no
    /// remotes and the usual limits.
    ///
    /// # Errors
    /// All that is wrong with the file, at once.
    pub fn load(root: &Path) -> Result<Self, Diagnostics> {
        let path = root.join(FILE);
        if matches!(path.try_exists(), Ok(false)) {
            return Self::parse(root, "");
        }
        match source::read(&path, &shown(&path)) {
            Ok(source) => Self::parse(root, &source.text),
            Err(error) => Err(concealed(Diagnostics::from(*error))),
        }
    }

    /// Reads `text` as if it were the `runner.toml` in `root`.
    ///
    /// # Errors
    /// All that is wrong with it, at once.
    pub fn parse(root: &Path, text: &str) -> Result<Self, Diagnostics> {
        let path = root.join(FILE);
        let source = SourceText::new(&path, shown(&path), text);
        let mut found = Findings::default();
        let mut project = Self {
            root: root.to_owned(),
            remotes: Vec::new(),
            limits: Limits::default(),
        };
        if let Some(table) = source::parse(&source, &mut found) {
            project.absorb(&source, table, &mut found);
        }
        if found.is_empty() {
            Ok(project)
        } else {
            Err(concealed(found.into_diagnostics()))
        }
    }

    fn absorb(&mut self, source: &Arc<SourceText>, table: DeTable<'_>, found: &mut Findings) {
        for (key, value) in table {
            let header = key.span();
            match key.get_ref().as_ref() {
                "remote" => self.remotes = remotes(source, value, found),
                "cache" => self.limits = limits(source, header, value, found),
                other => found.push(
                    Diagnostic::at(
                        Place::new(source, header),
                        format!("unknown field `{other}`"),
                    )
                    .label("no such section or field")
                    .hint(
                        misplaced::in_project(other)
                            .map(str::to_owned)
                            .or_else(|| suggest(other, "a project has", FIELDS.iter().copied())),
                    ),
                ),
            }
        }
    }
}

/// `diagnostics` without what may be a password: in the lines that they show
/// and in their words.
fn concealed(mut diagnostics: Diagnostics) -> Diagnostics {
    let hidden: Vec<Range<usize>> = diagnostics
        .0
        .iter()
        .filter(|diagnostic| diagnostic.label == url::HIDDEN)
        .filter_map(|diagnostic| diagnostic.span.clone())
        .collect();
    for diagnostic in &mut diagnostics.0 {
        let source = &diagnostic.source;
        let mut text = url::masked(&source.text);
        for span in &hidden {
            // A password in an odd spelling is not found by its looks.
            if text[span.clone()] == source.text[span.clone()] {
                text.replace_range(span.clone(), &"*".repeat(span.len()));
            }
        }
        diagnostic.source = SourceText::new(&source.path, source.shown.as_str(), text);
        diagnostic.message = url::masked(&diagnostic.message);
        for note in &mut diagnostic.notes {
            // Places in one and the same text share an excerpt.
            note.place.source = diagnostic.source.clone();
        }
    }
    diagnostics
}

/// How people see the file: from the current folder, if it is below.
fn shown(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    let short = path.strip_prefix(here).unwrap_or(path);
    short.display().to_string()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RemoteFields {
    name: Option<String>,
    url: String,
    #[serde(default)]
    mode: Mode,
    #[serde(default)]
    required: bool,
}

#[derive(Deserialize, Default, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum Mode {
    Read,
    #[default]
    ReadWrite,
}

fn remotes(
    source: &Arc<SourceText>,
    value: Spanned<DeValue<'_>>,
    found: &mut Findings,
) -> Vec<RemoteSpec> {
    let two_brackets = "write `[[remote]]` with two brackets, once for each remote".to_owned();
    if !value.get_ref().is_array() {
        found.push(wrong("remote", "a list of tables", source, &value).hint(two_brackets));
        return Vec::new();
    }
    let DeValue::Array(list) = value.into_inner() else {
        return Vec::new();
    };
    let mut specs = Vec::new();
    let mut places: HashMap<String, Range<usize>> = HashMap::new();
    for (i, value) in list.into_iter().enumerate() {
        if !value.get_ref().is_table() {
            found.push(wrong("remote", "tables", source, &value).hint(two_brackets.clone()));
            continue;
        }
        let header = value.span();
        let DeValue::Table(table) = value.into_inner() else {
            continue;
        };
        let span = |field| table.get(field).map(Spanned::span);
        let named = span("name").unwrap_or_else(|| header.clone());
        let addressed = span("url").unwrap_or_else(|| header.clone());
        let name = table.get("name").and_then(|name| name.get_ref().as_str());
        if let Some(name) = name
            && !is_valid(name)
        {
            found.push(
                Diagnostic::at(
                    Place::new(source, named.clone()),
                    format!("`{name}` cannot be a name"),
                )
                .label("names are letters, digits, `_` and `-`, and start with a letter or `_`"),
            );
        }
        let Some(fields) = remote_fields(source, header, table, found) else {
            continue;
        };
        let name = fields.name.unwrap_or_else(|| format!("remote{}", i + 1));
        if let Some(first) = places.get(&name) {
            found.push(
                Diagnostic::at(
                    Place::new(source, named.clone()),
                    format!("two remotes are called `{name}`"),
                )
                .label("the same name")
                .note(Place::new(source, first.clone()), "first here")
                .hint("give one of them another `name`".to_owned()),
            );
        }
        places.entry(name.clone()).or_insert(named);
        if let Err(problem) = url::check(&fields.url) {
            let diagnostic = Diagnostic::at(Place::new(source, addressed), problem.message);
            found.push(diagnostic.label(problem.label).hint(problem.hint));
        }
        specs.push(RemoteSpec {
            name,
            url: fields.url,
            write: fields.mode == Mode::ReadWrite,
            required: fields.required,
        });
    }
    specs
}

/// Reads one `[[remote]]`, after telling of the fields that are never in it.
fn remote_fields(
    source: &Arc<SourceText>,
    header: Range<usize>,
    mut table: DeTable<'_>,
    found: &mut Findings,
) -> Option<RemoteFields> {
    let mut elsewhere = Vec::new();
    for key in table.keys() {
        let name = key.get_ref().to_string();
        let Some(hint) = misplaced::in_remote(&name) else {
            continue;
        };
        found.push(
            Diagnostic::at(
                Place::new(source, key.span()),
                format!("unknown field `{name}` in a remote"),
            )
            .label("never in this file")
            .hint(hint.to_owned()),
        );
        elsewhere.push(name);
    }
    for name in elsewhere {
        table.remove(name.as_str());
    }
    let subject = Subject {
        what: "a remote",
        source,
        header,
        missing: &[],
    };
    read(&subject, table, found)
}

fn limits(
    source: &Arc<SourceText>,
    header: Range<usize>,
    value: Spanned<DeValue<'_>>,
    found: &mut Findings,
) -> Limits {
    if !value.get_ref().is_table() {
        found.push(wrong("cache", "a table", source, &value));
        return Limits::default();
    }
    let DeValue::Table(table) = value.into_inner() else {
        return Limits::default();
    };
    let subject = Subject {
        what: "`[cache]`",
        source,
        header,
        missing: &[],
    };
    read(&subject, table, found).unwrap_or_default()
}

fn age<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    limit(from, time)
}

fn size<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    limit(from, bytes)
}

/// A limit with its unit, or `never`.
fn limit<'de, D: Deserializer<'de>, T>(
    from: D,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<T>, D::Error> {
    let hint = "hint: \"never\" switches the limit off";
    let text = toml::Value::deserialize(from)?;
    let Some(text) = text.as_str() else {
        let message = "a limit is a text with its unit, such as \"90d\" or \"200GB\"";
        return Err(D::Error::custom(format!("{message}\n{hint}")));
    };
    if text == "never" {
        return Ok(None);
    }
    let limit = read(text).map_err(|error| D::Error::custom(format!("{error}\n{hint}")))?;
    Ok(Some(limit))
}
