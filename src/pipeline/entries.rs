//! Entries of `[data]` and `exec` settings: read, and looked up on disk where a
//! node names them.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use schemars::JsonSchema;
use serde::Deserialize;
use toml::{Spanned, de::DeTable};

use super::{
    document::{Entry, Section},
    downloads,
    findings::Findings,
    graph::{Exec, Point},
    reading::{Subject, read},
    size::bytes,
    source::normal,
    substitute::{Axis, Params, Scope, Substitution, names_in},
};
use crate::{
    data::{self, DataSpec},
    diagnostic::{Diagnostic, Place, SourceText},
};

/// Settings that never change a result.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ExecTable {
    /// `auto`, `cpu`, `cuda` or `cuda:N`.
    #[serde(default)]
    device: Option<String>,
    /// Items computed at once; for a language model the answers written at once.
    #[serde(default)]
    #[schemars(range(min = 1))]
    batch: Option<usize>,
    /// The most memory for a language model's keys and values, such as "4GB",
    /// which is the default; fewer answers are written at once where they need more.
    #[serde(default)]
    kv_memory: Option<String>,
    /// The most memory of a GPU for a language model's weights, such as "12GB".
    /// Quantised weights that do not fit in full stay quantised, and each layer is
    /// expanded when it is used.
    #[serde(default)]
    weights_memory: Option<String>,
    /// The most memory for features of images that fine-tuning on the CPU keeps
    /// from one epoch to the next, such as "16GB"; "4GB" is the default. Those that
    /// do not fit are computed anew in every epoch.
    #[serde(default)]
    features_memory: Option<String>,
}

/// An entry of `[data]` or `[models]`, once per sweep point that it sees.
pub(super) struct Named<T> {
    /// Its name in the file.
    pub(super) name: String,
    /// Where it is written.
    pub(super) place: Place,
    /// Sweep axes that it sees, as a set of bits.
    pub(super) sees: u64,
    variants: Vec<(Vec<usize>, Option<T>)>,
}

impl<T> Named<T> {
    /// What it is at a point of the sweep.
    pub(super) fn at(&self, sweep_at: &[usize]) -> Option<&T> {
        let same =
            |at: &[usize]| (0..at.len()).all(|i| self.sees & (1 << i) == 0 || at[i] == sweep_at[i]);
        let variant = self.variants.iter().find(|(at, _)| same(at));
        variant.and_then(|(_, value)| value.as_ref())
    }

    /// All that could be read.
    pub(super) fn all(&self) -> impl Iterator<Item = &T> {
        self.variants.iter().filter_map(|(_, value)| value.as_ref())
    }

    /// Its name at a point of the sweep: `clip`, `clip@variant=small`.
    pub(super) fn id(&self, sweep: &[Axis<'_>], sweep_at: &[usize]) -> String {
        let seen: Vec<(&str, &Point)> = sweep
            .iter()
            .enumerate()
            .filter(|(i, _)| self.sees & (1 << i) != 0)
            .map(|(i, axis)| (axis.name.as_str(), &axis.points[sweep_at[i]]))
            .collect();
        super::axes::id(&self.name, &seen)
    }
}

/// Reads all of `[data]`; paths become absolute, files are not looked at.
pub(super) fn data<'a>(
    section: &Section<'a>,
    params: &Params<'a>,
    sweep: &[Axis<'a>],
    found: &mut Findings,
) -> Vec<Named<DataSpec>> {
    let read_one = |entry: &Entry<'a>, mut table: DeTable<'a>, found: &mut Findings| {
        downloads::take("data", entry, &mut table, found);
        let what = format!("data set `{}`", entry.name);
        let spans: Vec<(String, std::ops::Range<usize>)> = (table.iter())
            .map(|(field, value)| (field.get_ref().to_string(), value.span()))
            .collect();
        let mut spec: DataSpec = read(&subject(entry, &what), table, found)?;
        if let Some(mistake) = spec.mistake() {
            let span = (spans.iter())
                .find(|(field, _)| *field == mistake.field)
                .map_or(entry.header.clone(), |(_, span)| span.clone());
            found.push(
                Diagnostic::at(Place::new(&entry.source, span), mistake.message)
                    .label("does not go with the rest")
                    .hint(mistake.hint),
            );
            return None;
        }
        spec.path = beside(&entry.source, &spec.path);
        Some(spec)
    };
    section
        .entries
        .iter()
        .map(|entry| variants(entry, params, sweep, found, read_one))
        .collect()
}

/// Tells which files of a data set that a node names are absent; a pinned
/// digest stands in for them.
pub(super) fn check_data_files(
    name: &str,
    entry: &Entry<'_>,
    spec: &DataSpec,
    found: &mut Findings,
) {
    if spec.digest.is_some() {
        return;
    }
    let place = entry.table.get("path").map_or(entry.place(), |value| {
        Place::new(&entry.source, value.span())
    });
    if let Some(what) = data::absent(spec) {
        found.push(
            Diagnostic::at(place, format!("data set `{name}` lacks {what}"))
                .label("no data here, or not all of it")
                .hint(absent_hint("data", entry)),
        );
    }
}

/// What to do about an entry whose files are not there.
pub(super) fn absent_hint(section: &str, entry: &Entry<'_>) -> String {
    let (what, pin) = match section {
        "data" => ("the data", "`digest`"),
        _ => ("the model", "`digest` and `family`"),
    };
    if entry.table.contains_key("fetch") {
        return format!(
            "`runner fetch {}` downloads it, as `fetch` says; or put {what} there",
            entry.source.shown
        );
    }
    format!("put {what} there, or pin it with {pin} to use stored results alone")
}

/// Reads `exec`.
pub(super) fn exec(
    subject: &Subject<'_>,
    table: DeTable<'_>,
    found: &mut Findings,
) -> Option<Exec> {
    let span_of = |name: &str| {
        table
            .get(name)
            .map_or(subject.header.clone(), Spanned::span)
    };
    let (device_span, batch_span) = (span_of("device"), span_of("batch"));
    let (kv_span, weights_span) = (span_of("kv_memory"), span_of("weights_memory"));
    let features_span = span_of("features_memory");
    let read: ExecTable = read(subject, table, found)?;
    if let Some(device) = &read.device
        && !is_device(device)
    {
        let place = Place::new(subject.source, device_span);
        found.push(
            Diagnostic::at(place, format!("there is no device `{device}`"))
                .label("not a device")
                .hint("devices: `auto`, `cpu`, `cuda`, `cuda:0`, `cuda:1`, …".to_owned()),
        );
    }
    if read.batch == Some(0) {
        let place = Place::new(subject.source, batch_span);
        found.push(Diagnostic::at(place, "`batch` must be at least 1").label("no items at once"));
    }
    let mut size = |field: &str, text: Option<&String>, span: std::ops::Range<usize>| {
        let read = bytes(text?).and_then(|n| match n {
            0 => Err(format!("`{field}` must be more than nothing")),
            n => Ok(n),
        });
        read.map_err(|message| {
            let place = Place::new(subject.source, span);
            found.push(Diagnostic::at(place, message).label("not a size"));
        })
        .ok()
    };
    Some(Exec {
        device: read.device,
        batch: read.batch,
        kv_memory: size("kv_memory", read.kv_memory.as_ref(), kv_span),
        weights_memory: size("weights_memory", read.weights_memory.as_ref(), weights_span),
        features_memory: size(
            "features_memory",
            read.features_memory.as_ref(),
            features_span,
        ),
    })
}

fn is_device(text: &str) -> bool {
    matches!(text, "auto" | "cpu" | "cuda")
        || text
            .strip_prefix("cuda:")
            .is_some_and(|n| n.parse::<u16>().is_ok())
}

pub(super) fn subject<'s>(entry: &'s Entry<'_>, what: &'s str) -> Subject<'s> {
    Subject {
        what,
        source: &entry.source,
        header: entry.header.clone(),
        missing: &[],
    }
}

/// `path`, written in `source`, from the root of the file system.
pub(super) fn beside(source: &Arc<SourceText>, path: &Path) -> PathBuf {
    let folder = source.path.parent().unwrap_or_else(|| Path::new(""));
    normal(&folder.join(path))
}

/// Reads an entry once per combination of the sweep axes that it names.
pub(super) fn variants<'a, T>(
    entry: &Entry<'a>,
    params: &Params<'a>,
    sweep: &[Axis<'a>],
    found: &mut Findings,
    read_one: impl Fn(&Entry<'a>, DeTable<'a>, &mut Findings) -> Option<T>,
) -> Named<T> {
    let mut sees = 0_u64;
    let mut note = |name: &str| {
        if let Some(i) = sweep.iter().position(|axis| axis.name == name) {
            sees |= 1 << i;
        }
    };
    for value in entry.table.values() {
        names_in(value.get_ref(), &mut note);
    }
    let mut list = Vec::new();
    super::axes::each_point(sweep, sees, &mut |at| {
        let scope = Scope {
            params,
            axes: &[],
            at: &[],
            sweep: Some(sweep),
            sweep_at: at,
        };
        let mut substitution = Substitution {
            scope: &scope,
            source: &entry.source,
            found,
            saw: std::collections::BTreeMap::new(),
        };
        let table = substitution.table(&entry.table);
        let value = table.and_then(|table| read_one(entry, table, found));
        list.push((at.to_vec(), value));
    });
    Named {
        name: entry.name.to_string(),
        place: entry.place(),
        sees,
        variants: list,
    }
}
