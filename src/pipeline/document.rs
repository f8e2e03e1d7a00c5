//! The sections of a pipeline, merged: base, file, profile, `-s`.

use std::{borrow::Cow, collections::HashMap, ops::Range, sync::Arc};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    findings::Findings,
    names::{is_valid, suggest},
    substitute::{Params, has_names},
    values::{as_int, as_json},
};
pub(super) use crate::reading::values::wrong;
use crate::{
    diagnostic::{Diagnostic, Place, SourceText},
    reading::misplaced,
};

/// The version of the format that this program reads.
pub(super) const VERSION: i64 = 1;

/// Fields at the top of a file.
const FIELDS: &[&str] = &[
    "version", "name", "title", "extends", "seed", "params", "exec", "data", "models", "nodes",
    "rounds", "sweep", "profiles", "tables",
];

/// Fields of a profile.
const PROFILE_FIELDS: &[&str] = &[
    "params", "data", "models", "nodes", "rounds", "sweep", "tables", "exec",
];

/// A parameter with its value.
pub(super) struct Param<'a> {
    /// Its value.
    pub(super) value: Spanned<DeValue<'a>>,
    /// Where it was set.
    pub(super) place: Place,
    /// Whether `-s` set it.
    pub(super) set: bool,
}

/// One named table of a section.
pub(super) struct Entry<'a> {
    /// Its name.
    pub(super) name: Cow<'a, str>,
    /// The file it was written in.
    pub(super) source: Arc<SourceText>,
    /// Its name there.
    pub(super) header: Range<usize>,
    /// Its fields.
    pub(super) table: DeTable<'a>,
}

impl Entry<'_> {
    /// Where its name is written.
    pub(super) fn place(&self) -> Place {
        Place::new(&self.source, self.header.clone())
    }
}

/// Named tables in the order of their first mention.
#[derive(Default)]
pub(super) struct Section<'a> {
    /// The tables.
    pub(super) entries: Vec<Entry<'a>>,
    index: HashMap<Cow<'a, str>, usize>,
}

impl<'a> Section<'a> {
    /// The entry called `name`.
    pub(super) fn get(&self, name: &str) -> Option<&Entry<'a>> {
        Some(&self.entries[*self.index.get(name)?])
    }

    /// Takes over every table below `value`, replacing those of the same name.
    pub(super) fn absorb(
        &mut self,
        section: &str,
        source: &Arc<SourceText>,
        value: Spanned<DeValue<'a>>,
        found: &mut Findings,
    ) {
        let Some(table) = into_table(section, source, value, found) else {
            return;
        };
        for (key, value) in table {
            let header = key.span();
            let name = key.into_inner();
            check_name(&name, &Place::new(source, header.clone()), found);
            let label = format!("{section}.{name}");
            let Some(table) = into_table(&label, source, value, found) else {
                continue;
            };
            let entry = Entry {
                name: name.clone(),
                source: source.clone(),
                header,
                table,
            };
            if let Some(at) = self.index.get(&name) {
                self.entries[*at] = entry;
            } else {
                self.index.insert(name, self.entries.len());
                self.entries.push(entry);
            }
        }
    }
}

/// One axis of `[sweep]` as it was written.
pub(super) struct SweepEntry<'a> {
    /// The parameter.
    pub(super) name: String,
    /// Where it is named.
    pub(super) place: Place,
    /// Its values.
    pub(super) values: Spanned<DeValue<'a>>,
    /// Whether `-s` gave them.
    pub(super) set: bool,
}

/// Everything that the files say, merged.
#[derive(Default)]
pub(super) struct Document<'a> {
    /// Whether files of data and models may be absent.
    pub(super) absent: bool,
    /// `name` of the pipeline file itself.
    pub(super) name: Option<String>,
    /// `title` of the pipeline file itself.
    pub(super) title: Option<String>,
    /// `seed`, `None` where no file has one.
    pub(super) seed: Option<Spanned<DeValue<'a>>>,
    /// `[params]`.
    pub(super) params: Params<'a>,
    /// `[sweep]`.
    pub(super) sweep: Vec<SweepEntry<'a>>,
    /// `[exec]`.
    pub(super) exec: Option<Entry<'a>>,
    /// `[data]`.
    pub(super) data: Section<'a>,
    /// `[models]`.
    pub(super) models: Section<'a>,
    /// `[nodes]`.
    pub(super) nodes: Section<'a>,
    /// `[rounds]`.
    pub(super) rounds: Section<'a>,
    /// `[tables]`.
    pub(super) tables: Section<'a>,
    /// `[profiles]` of every file, base first.
    pub(super) profiles: Vec<(Arc<SourceText>, DeTable<'a>)>,
}

impl<'a> Document<'a> {
    /// Takes over a file. `main` is the file that the user named; the name
    /// and title of a base are not inherited.
    pub(super) fn absorb(
        &mut self,
        source: &Arc<SourceText>,
        table: DeTable<'a>,
        main: bool,
        found: &mut Findings,
    ) {
        for (key, value) in table {
            let place = Place::new(source, key.span());
            match key.get_ref().as_ref() {
                "version" | "extends" => {}
                "name" => {
                    if let Some(name) = text("name", source, &value, found) {
                        check_name(&name, &Place::new(source, value.span()), found);
                        if main {
                            self.name = Some(name);
                        }
                    }
                }
                "title" => {
                    if let Some(title) = text("title", source, &value, found)
                        && main
                    {
                        self.title = Some(title);
                    }
                }
                "seed" => match as_int(value.get_ref()) {
                    Some(seed) if seed >= 0 => self.seed = Some(value),
                    _ => found.push(wrong("seed", "a whole number, 0 or more", source, &value)),
                },
                "profiles" => {
                    if let Some(table) = into_table("profiles", source, value, found) {
                        check_profiles(source, &table, found);
                        self.profiles.push((source.clone(), table));
                    }
                }
                other if PROFILE_FIELDS.contains(&other) => {
                    self.section(other, source, &place, value, found);
                }
                other => found.push(
                    Diagnostic::at(place, format!("unknown field `{other}`"))
                        .label("no such section or field")
                        .hint(misplaced::in_pipeline(other).map_or_else(
                            || suggest(other, "a file has", FIELDS.iter().copied()),
                            |hint| Some(hint.to_owned()),
                        )),
                ),
            }
        }
    }

    /// Lays the profile called `name` over everything; `command` is the text
    /// that names it on the command line.
    pub(super) fn apply_profile(
        &mut self,
        name: &str,
        command: &Arc<SourceText>,
        found: &mut Findings,
    ) {
        let mut known = false;
        for (source, mut profiles) in std::mem::take(&mut self.profiles) {
            let Some(profile) = profiles.remove(name) else {
                self.profiles.push((source, profiles));
                continue;
            };
            known = true;
            self.profiles.push((source.clone(), profiles));
            if let DeValue::Table(profile) = profile.into_inner() {
                for (key, value) in profile {
                    let place = Place::new(&source, key.span());
                    self.section(key.get_ref(), &source, &place, value, found);
                }
            }
        }
        if !known {
            let names: Vec<_> = self
                .profiles
                .iter()
                .flat_map(|(_, table)| table.keys().map(|key| key.get_ref().as_ref()))
                .collect();
            let hint = suggest(name, "profiles", names)
                .or_else(|| Some("the file has no `[profiles]`".to_owned()));
            let start = command.text.len() - name.len();
            found.push(
                Diagnostic::at(
                    Place::new(command, start..command.text.len()),
                    format!("there is no profile `{name}`"),
                )
                .label("unknown profile")
                .hint(hint),
            );
        }
    }

    /// A section that may stand in a file and in a profile.
    fn section(
        &mut self,
        section: &str,
        source: &Arc<SourceText>,
        place: &Place,
        value: Spanned<DeValue<'a>>,
        found: &mut Findings,
    ) {
        match section {
            "params" => self.absorb_params(source, value, found),
            "sweep" => self.absorb_sweep(source, value, found),
            "data" => self.data.absorb(section, source, value, found),
            "models" => self.models.absorb(section, source, value, found),
            "nodes" => self.nodes.absorb(section, source, value, found),
            "rounds" => self.rounds.absorb(section, source, value, found),
            "tables" => self.tables.absorb(section, source, value, found),
            "exec" => {
                if let Some(table) = into_table(section, source, value, found) {
                    self.exec = Some(Entry {
                        name: "exec".into(),
                        source: source.clone(),
                        header: place.span.clone(),
                        table,
                    });
                }
            }
            _ => {}
        }
    }

    fn absorb_params(
        &mut self,
        source: &Arc<SourceText>,
        value: Spanned<DeValue<'a>>,
        found: &mut Findings,
    ) {
        for (key, value) in into_table("params", source, value, found).unwrap_or_default() {
            let place = Place::new(source, key.span());
            let name = key.into_inner().into_owned();
            check_name(&name, &place, found);
            if name == "round" {
                found.push(
                    Diagnostic::at(place.clone(), "a parameter cannot be called `round`")
                        .label("inside rounds `${round}` is the number of the round"),
                );
            }
            if has_names(value.get_ref()) {
                found.push(
                    Diagnostic::at(
                        Place::new(source, value.span()),
                        format!("the parameter `{name}` names another one"),
                    )
                    .label("parameters are plain values")
                    .hint("use both parameters where the value is needed".to_owned()),
                );
                continue;
            }
            let param = Param {
                value,
                place,
                set: false,
            };
            self.params.insert(name, param);
        }
    }

    fn absorb_sweep(
        &mut self,
        source: &Arc<SourceText>,
        value: Spanned<DeValue<'a>>,
        found: &mut Findings,
    ) {
        for (key, values) in into_table("sweep", source, value, found).unwrap_or_default() {
            let place = Place::new(source, key.span());
            check_name(key.get_ref(), &place, found);
            let entry = SweepEntry {
                name: key.into_inner().into_owned(),
                place,
                values,
                set: false,
            };
            match self.sweep.iter_mut().find(|old| old.name == entry.name) {
                Some(old) => *old = entry,
                None => self.sweep.push(entry),
            }
        }
    }
}

/// Checks `version`, without which nothing else of a file can be read.
pub(super) fn check_version(
    source: &Arc<SourceText>,
    table: &DeTable<'_>,
    found: &mut Findings,
) -> bool {
    let hint = format!("write `version = {VERSION}` at the top");
    let problem = match table.get("version") {
        None => Diagnostic::at(Place::new(source, 0..0), "missing field `version`")
            .label("a file says which version of the format it is written in")
            .hint(hint),
        Some(value) if as_int(value.get_ref()) == Some(VERSION) => return true,
        Some(value) => {
            let shown = as_json(value.get_ref());
            Diagnostic::at(
                Place::new(source, value.span()),
                format!("this program does not read version {shown} of the format"),
            )
            .label(format!("it reads version {VERSION}"))
            .hint(hint)
        }
    };
    found.push(problem);
    // A file without its version is most likely one of ours; others are not.
    table.get("version").is_none()
}

fn check_profiles(source: &Arc<SourceText>, profiles: &DeTable<'_>, found: &mut Findings) {
    for (name, profile) in profiles {
        check_name(name.get_ref(), &Place::new(source, name.span()), found);
        let Some(profile) = profile.get_ref().as_table() else {
            found.push(wrong(
                &format!("profiles.{name}"),
                "a table",
                source,
                profile,
            ));
            continue;
        };
        for key in profile
            .keys()
            .map(|key| (key.get_ref().as_ref(), key.span()))
        {
            if !PROFILE_FIELDS.contains(&key.0) {
                found.push(
                    Diagnostic::at(
                        Place::new(source, key.1),
                        format!("unknown field `{}` in a profile", key.0),
                    )
                    .label("no such section")
                    .hint(suggest(
                        key.0,
                        "a profile has",
                        PROFILE_FIELDS.iter().copied(),
                    )),
                );
            }
        }
    }
}

fn into_table<'a>(
    field: &str,
    source: &Arc<SourceText>,
    value: Spanned<DeValue<'a>>,
    found: &mut Findings,
) -> Option<DeTable<'a>> {
    if !value.get_ref().is_table() {
        found.push(wrong(field, "a table", source, &value));
        return None;
    }
    match value.into_inner() {
        DeValue::Table(table) => Some(table),
        _ => None,
    }
}

/// The string in `value`.
pub(super) fn text(
    field: &str,
    source: &Arc<SourceText>,
    value: &Spanned<DeValue<'_>>,
    found: &mut Findings,
) -> Option<String> {
    let text = value.get_ref().as_str();
    if text.is_none() {
        found.push(wrong(field, "a string", source, value));
    }
    text.map(str::to_owned)
}

/// Tells when `name` cannot be used in references.
pub(super) fn check_name(name: &str, place: &Place, found: &mut Findings) {
    if !is_valid(name) {
        found.push(
            Diagnostic::at(place.clone(), format!("`{name}` cannot be a name"))
                .label("names are letters, digits, `_` and `-`, and start with a letter or `_`"),
        );
    } else if name == "previous" {
        found.push(
            Diagnostic::at(place.clone(), "`previous` cannot be a name")
                .label("inside rounds it means the result of the round before"),
        );
    }
}
