//! Entries of `[data]` and `[models]`, and `exec` settings: read, and looked
//! up on disk where a node names them.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use schemars::JsonSchema;
use serde::Deserialize;
use toml::{Spanned, de::DeTable};

use super::{
    document::{Entry, Section},
    findings::Findings,
    graph::{Exec, ModelSpec, Point},
    names::{nearest, quoted},
    reading::{Subject, read},
    source::{normal, shown_beside},
    substitute::{Axis, Params, Scope, Substitution, names_in},
};
use crate::{
    data::{self, DataSpec},
    diagnostic::{Diagnostic, Place, SourceText},
    digest::Digest,
    node::{Family, architectures, family},
};

/// Number formats that a model can be held in.
#[derive(Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Dtype {
    #[default]
    F32,
    F16,
    Bf16,
}

/// What a model folder holds, for folders that are not there.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum FamilyName {
    /// A CLIP model.
    Clip,
    /// A Hugging Face folder of a causal language model.
    Llm,
}

/// An entry of `[models]` as it is written.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ModelTable {
    /// The folder, or a CLIP model's file of weights, relative to the file that
    /// names it.
    path: PathBuf,
    /// A CLIP model's architecture as `open_clip` names it, such as
    /// "RN50-quickgelu", for weights without a configuration.
    #[serde(default)]
    architecture: Option<String>,
    /// Numbers of the weights; belongs to the model, never to the device.
    #[serde(default)]
    dtype: Dtype,
    /// What the folder holds; found out from its files where it is not said.
    #[serde(default)]
    family: Option<FamilyName>,
    /// `blake3:…` that the model must have; stands in for an absent folder.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    digest: Option<Digest>,
}

/// Settings that never change a result.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ExecTable {
    /// `auto`, `cpu`, `cuda` or `cuda:N`.
    #[serde(default)]
    device: Option<String>,
    /// Items computed at once.
    #[serde(default)]
    #[schemars(range(min = 1))]
    batch: Option<usize>,
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

/// A model with what its files say it is.
pub(super) struct Model {
    /// Ready for the graph, but for the family.
    pub(super) spec: ModelSpec,
    /// Why its family is not known, once somebody needs it.
    pub(super) problem: Option<Box<Diagnostic>>,
}

/// Reads all of `[data]`; paths become absolute, files are not looked at.
pub(super) fn data<'a>(
    section: &Section<'a>,
    params: &Params<'a>,
    sweep: &[Axis<'a>],
    found: &mut Findings,
) -> Vec<Named<DataSpec>> {
    let read_one = |entry: &Entry<'a>, table: DeTable<'a>, found: &mut Findings| {
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

/// Reads all of `[models]` and looks at each folder for what it holds.
pub(super) fn models<'a>(
    section: &Section<'a>,
    params: &Params<'a>,
    sweep: &[Axis<'a>],
    found: &mut Findings,
) -> Vec<Named<Model>> {
    let read_one = |entry: &Entry<'a>, table: DeTable<'a>, found: &mut Findings| {
        let what = format!("model `{}`", entry.name);
        let path_span = table
            .get("path")
            .map_or(entry.header.clone(), Spanned::span);
        let architecture_span = table
            .get("architecture")
            .map_or(entry.header.clone(), Spanned::span);
        let model: ModelTable = read(&subject(entry, &what), table, found)?;
        let path = beside(&entry.source, &model.path);
        if let Some(name) = &model.architecture {
            let known = architectures();
            if !known.contains(name) {
                let place = Place::new(&entry.source, architecture_span);
                let hint = match nearest(name, known.iter().map(String::as_str)) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("architectures: {}", quoted(&known)),
                };
                found.push(
                    Diagnostic::at(place, format!("there is no architecture `{name}`"))
                        .label("not one that is known")
                        .hint(hint),
                );
            }
        }
        let detected = match &model.architecture {
            Some(_) if path.exists() => Some(Family::Clip),
            _ => family(&path),
        };
        let written = model.family.map(|family| match family {
            FamilyName::Clip => Family::Clip,
            FamilyName::Llm => Family::Llm,
        });
        let absent_is_fine = model.digest.is_some() && written.is_some();
        let problem = (detected.is_none()
            && !absent_is_fine
            && (written.is_none() || !path.exists()))
        .then(|| {
            let shown = shown_beside(&entry.source.shown, &model.path);
            Box::new(not_a_model(
                &Place::new(&entry.source, path_span),
                &path,
                &shown,
            ))
        });
        Some(Model {
            spec: ModelSpec {
                path,
                dtype: match model.dtype {
                    Dtype::F32 => "f32",
                    Dtype::F16 => "f16",
                    Dtype::Bf16 => "bf16",
                }
                .to_owned(),
                family: written.or(detected).unwrap_or(Family::Clip),
                architecture: model.architecture,
                digest: model.digest,
            },
            problem,
        })
    };
    section
        .entries
        .iter()
        .map(|entry| variants(entry, params, sweep, found, read_one))
        .collect()
}

fn not_a_model(place: &Place, path: &Path, shown: &str) -> Diagnostic {
    if path.is_dir() {
        return Diagnostic::at(place.clone(), format!("`{shown}` is not a model folder"))
            .label("holds neither `open_clip_config.json` nor `config.json`")
            .hint(
                "a CLIP model has the first or, from transformers, the second, as a language model \
                 has; for weights without either say `architecture = \"RN50-quickgelu\"`"
                    .to_owned(),
            );
    }
    if path.is_file() {
        return Diagnostic::at(
            place.clone(),
            format!("`{shown}` is not a model that is read"),
        )
        .label("neither safetensors nor a file of PyTorch")
        .hint("download it again, or name the folder that it is in".to_owned());
    }
    Diagnostic::at(place.clone(), format!("the model `{shown}` does not exist"))
        .label("no model here")
        .hint(
            "put the model there, or pin it with `digest` and `family` to use stored results alone"
                .to_owned(),
        )
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
                .hint(
                    "put the data there, or pin it with `digest` to use stored results alone"
                        .to_owned(),
                ),
        );
    }
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
    Some(Exec {
        device: read.device,
        batch: read.batch,
    })
}

fn is_device(text: &str) -> bool {
    matches!(text, "auto" | "cpu" | "cuda")
        || text
            .strip_prefix("cuda:")
            .is_some_and(|n| n.parse::<u16>().is_ok())
}

fn subject<'s>(entry: &'s Entry<'_>, what: &'s str) -> Subject<'s> {
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
fn variants<'a, T>(
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
