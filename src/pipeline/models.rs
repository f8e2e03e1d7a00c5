//! Entries of `[models]`: a folder or file of weights, an endpoint, or a file of answers.

use std::{
    ops::Range,
    path::{Path, PathBuf},
    time::Duration,
};

use schemars::JsonSchema;
use serde::Deserialize;
use toml::{Spanned, de::DeTable};

use super::{
    document::{Entry, Section},
    downloads,
    entries::{Named, absent_hint, beside, subject, variants},
    findings::Findings,
    graph::{ModelFiles, ModelSource, ModelSpec},
    names::{nearest, quoted},
    reading::read,
    source::shown_beside,
    substitute::{Axis, Params},
};
use crate::{
    diagnostic::{Diagnostic, Place},
    digest::Digest,
    node::{EndpointModel, EndpointSettings, Family, Quantize, architectures, family},
};

/// Number formats that a model can be held in.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Dtype {
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

/// An entry of `[models]` as it is written: one of `path`, `endpoint` and
/// `replay`, with what goes with it.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ModelTable {
    /// The folder, or a CLIP model's file of weights, relative to the file that
    /// names it.
    path: Option<PathBuf>,
    /// A CLIP model's architecture as `open_clip` names it, such as
    /// "RN50-quickgelu", for weights without a configuration.
    architecture: Option<String>,
    /// Numbers of the weights, f32 by default; belongs to the model, never to the
    /// device. On the CPU products compute in f32 whatever it is, and a language
    /// model's weights stay in the type that their file has unless this says less.
    dtype: Option<Dtype>,
    /// Quantises a language model's weights while they are read, as
    /// bitsandbytes does. A folder that is quantised already needs nothing.
    quantize: Option<Quantize>,
    /// What the folder holds; found out from its files where it is not said.
    family: Option<FamilyName>,
    /// `blake3:…` that the model must have; stands in for an absent folder.
    #[schemars(with = "Option<String>")]
    digest: Option<Digest>,
    /// A language model behind an OpenAI-compatible server (vLLM, llama.cpp,
    /// Ollama, …): its address up to `/v1`. Never part of a result's key.
    endpoint: Option<String>,
    /// The model's name on that server; belongs to the key.
    model: Option<String>,
    /// Whatever tells two states of that model apart, such as a date or a
    /// commit; belongs to the key.
    revision: Option<String>,
    /// The environment variable that holds the server's key.
    api_key_env: Option<String>,
    /// Requests under way at a time, 8 by default.
    #[schemars(range(min = 1))]
    parallel: Option<usize>,
    /// Seconds that one answer may take, 300 by default.
    timeout: Option<f64>,
    /// How often a request is sent again after a fault that may pass, 6 by default.
    retries: Option<usize>,
    /// Requests a minute at most; no limit by default.
    #[schemars(range(min = 1))]
    requests_per_minute: Option<u32>,
    /// Fields that are added to every request as they are; they belong to the key.
    #[schemars(with = "Option<std::collections::BTreeMap<String, serde_json::Value>>")]
    extra: Option<serde_json::Map<String, serde_json::Value>>,
    /// A file of answers that are given instead of asking anything: JSON Lines
    /// with `class` and `text`, or one object of class to texts.
    replay: Option<PathBuf>,
}

/// A model with what its files say it is.
pub(super) struct Model {
    /// Ready for the graph, but for the family.
    pub(super) spec: ModelSpec,
    /// Why its family is not known, once somebody needs it.
    pub(super) problem: Option<Box<Diagnostic>>,
    /// Whether that is only that its files are not here.
    pub(super) absent: bool,
}

/// Fields by the field that they go with.
const BELONG: [(&str, &[&str]); 3] = [
    (
        "path",
        &["architecture", "dtype", "quantize", "family", "digest"],
    ),
    (
        "endpoint",
        &[
            "model",
            "revision",
            "api_key_env",
            "parallel",
            "timeout",
            "retries",
            "requests_per_minute",
            "extra",
        ],
    ),
    ("replay", &[]),
];

/// Reads all of `[models]` and looks at each folder for what it holds.
pub(super) fn models<'a>(
    section: &Section<'a>,
    params: &Params<'a>,
    sweep: &[Axis<'a>],
    found: &mut Findings,
) -> Vec<Named<Model>> {
    section
        .entries
        .iter()
        .map(|entry| variants(entry, params, sweep, found, read_one))
        .collect()
}

fn read_one<'a>(entry: &Entry<'a>, mut table: DeTable<'a>, found: &mut Findings) -> Option<Model> {
    downloads::take("models", entry, &mut table, found);
    let what = format!("model `{}`", entry.name);
    let spans: Vec<(String, Range<usize>)> = (table.iter())
        .map(|(field, value)| (field.get_ref().to_string(), value.span()))
        .collect();
    let place = |field: &str| {
        let span = spans.iter().find(|(name, _)| name == field);
        Place::new(
            &entry.source,
            span.map_or(entry.header.clone(), |(_, span)| span.clone()),
        )
    };
    let keys: Vec<(String, Range<usize>)> = (table.iter())
        .map(|(field, _)| (field.get_ref().to_string(), Spanned::span(field)))
        .collect();
    let model: ModelTable = read(&subject(entry, &what), table, found)?;
    if !one_source(entry, &what, &keys, found) {
        return None;
    }
    let spec = |source, family, digest| ModelSpec {
        source,
        family,
        digest,
    };
    if let Some(written) = &model.replay {
        let path = beside(&entry.source, written);
        let problem = (!path.is_file()).then(|| {
            let shown = shown_beside(&entry.source.shown, written);
            Box::new(
                Diagnostic::at(place("replay"), format!("there is no file `{shown}`"))
                    .label("no answers here")
                    .hint("the path is relative to the file that names it".to_owned()),
            )
        });
        let spec = spec(ModelSource::Replay(path), Family::Llm, None);
        return Some(Model {
            spec,
            problem,
            absent: false,
        });
    }
    if let Some(url) = &model.endpoint {
        let endpoint = endpoint(url, &model, &place, entry, found)?;
        let source = ModelSource::Endpoint(Box::new(endpoint));
        let spec = spec(source, Family::Llm, None);
        return Some(Model {
            spec,
            problem: None,
            absent: false,
        });
    }
    let written = model.path.clone()?;
    Some(folder(&written, model, &place, entry, found))
}

/// Tells fields that do not go together, and a model that is nowhere.
fn one_source(
    entry: &Entry<'_>,
    what: &str,
    keys: &[(String, Range<usize>)],
    found: &mut Findings,
) -> bool {
    let span = |field: &str| keys.iter().find(|(name, _)| name == field);
    let sources: Vec<&str> = (BELONG.iter())
        .map(|(source, _)| *source)
        .filter(|source| span(source).is_some())
        .collect();
    let tell = |found: &mut Findings, span: &Range<usize>, message: String, hint: &str| {
        let place = Place::new(&entry.source, span.clone());
        found.push(
            Diagnostic::at(place, message)
                .label("does not go with the rest")
                .hint(hint.to_owned()),
        );
    };
    let [source] = sources.as_slice() else {
        let (message, span) = match sources.get(1).and_then(|second| span(second)) {
            Some((name, span)) => (format!("{what} has `{}` and `{name}`", sources[0]), span),
            None => (format!("{what} has no `path`"), &entry.header),
        };
        let hint = "write one of `path` (a folder), `endpoint` (a server) and `replay` (a file of answers)";
        tell(found, span, message, hint);
        return false;
    };
    let mut fits = true;
    for (other, fields) in BELONG.iter().filter(|(other, _)| other != source) {
        for field in *fields {
            if let Some((_, span)) = span(field) {
                let message = format!("`{field}` goes with `{other}`, not with `{source}`");
                tell(found, span, message, &format!("leave `{field}` out"));
                fits = false;
            }
        }
    }
    fits
}

fn endpoint(
    url: &str,
    model: &ModelTable,
    place: &dyn Fn(&str) -> Place,
    entry: &Entry<'_>,
    found: &mut Findings,
) -> Option<EndpointModel> {
    let mut wrong = |field: &str, message: String, hint: &str| {
        found.push(
            Diagnostic::at(place(field), message)
                .label("cannot be")
                .hint(hint.to_owned()),
        );
    };
    let Some(name) = model.model.clone().filter(|name| !name.is_empty()) else {
        let message = format!("model `{}` does not say which model to ask for", entry.name);
        wrong(
            "model",
            message,
            "write `model = \"…\"` as the server calls it; `curl URL/models` lists them",
        );
        return None;
    };
    let defaults = EndpointSettings::new(url, &name);
    // What is no time at all is refused below like one that is too short.
    let seconds = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or_default();
    let settings = EndpointSettings {
        api_key_env: model.api_key_env.clone(),
        parallel: model.parallel.unwrap_or(defaults.parallel),
        timeout: model.timeout.map_or(defaults.timeout, seconds),
        retries: model.retries.unwrap_or(defaults.retries),
        requests_per_minute: model.requests_per_minute,
        extra: model.extra.clone().unwrap_or_default(),
        ..defaults
    };
    if let Err(error) = settings.check() {
        let text = format!("{error:#}").replace("`url`", "`endpoint`");
        let (message, hint) = text.split_once("\nhint: ").unwrap_or((&text, ""));
        // The message begins with the field that it is about.
        let named = message.split('`').nth(1).unwrap_or_default();
        let field = (BELONG[1].1.iter().copied()).find(|field| *field == named);
        let hint = match field {
            _ if !hint.is_empty() => hint,
            Some(_) => "leave it out for the default",
            None => "such as `http://localhost:8000/v1`",
        };
        wrong(field.unwrap_or("endpoint"), message.to_owned(), hint);
        return None;
    }
    Some(EndpointModel {
        settings,
        revision: model.revision.clone(),
    })
}

fn folder(
    written: &Path,
    model: ModelTable,
    place: &dyn Fn(&str) -> Place,
    entry: &Entry<'_>,
    found: &mut Findings,
) -> Model {
    let path = beside(&entry.source, written);
    if let Some(name) = &model.architecture {
        let known = architectures();
        if !known.contains(name) {
            let hint = match nearest(name, known.iter().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("architectures: {}", quoted(&known)),
            };
            found.push(
                Diagnostic::at(
                    place("architecture"),
                    format!("there is no architecture `{name}`"),
                )
                .label("not one that is known")
                .hint(hint),
            );
        }
    }
    let detected = match &model.architecture {
        Some(_) if path.exists() => Some(Family::Clip),
        _ => family(&path),
    };
    let said = model.family.map(|family| match family {
        FamilyName::Clip => Family::Clip,
        FamilyName::Llm => Family::Llm,
    });
    let absent_is_fine = model.digest.is_some() && said.is_some();
    let problem = (detected.is_none() && !absent_is_fine && (said.is_none() || !path.exists()))
        .then(|| {
            let shown = shown_beside(&entry.source.shown, written);
            Box::new(not_a_model(entry, &place("path"), &path, &shown))
        });
    let absent = said.is_some() && !path.exists();
    let family = said.or(detected).unwrap_or(Family::Clip);
    if model.quantize.is_some() && family == Family::Clip && problem.is_none() {
        found.push(
            Diagnostic::at(place("quantize"), "a CLIP model is not quantised")
                .label("goes with a language model")
                .hint("use `dtype = \"f16\"` or \"bf16\" to save memory".to_owned()),
        );
    }
    Model {
        spec: ModelSpec {
            source: ModelSource::Files(ModelFiles {
                path,
                dtype: match model.dtype {
                    None | Some(Dtype::F32) => "f32",
                    Some(Dtype::F16) => "f16",
                    Some(Dtype::Bf16) => "bf16",
                }
                .to_owned(),
                quantize: model.quantize,
                architecture: model.architecture,
            }),
            family,
            digest: model.digest,
        },
        problem,
        absent,
    }
}

fn not_a_model(entry: &Entry<'_>, place: &Place, path: &Path, shown: &str) -> Diagnostic {
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
        .hint(absent_hint("models", entry))
}
