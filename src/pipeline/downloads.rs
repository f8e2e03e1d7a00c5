//! `fetch` of entries of `[data]` and `[models]`: where their files come from.

use std::{collections::BTreeMap, path::Path, path::PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    Options, axes,
    document::{Entry, wrong},
    entries::{beside, variants},
    findings::Findings,
    layers::{self, Texts},
    merge,
    reading::{Subject, read},
    source::{self, normal},
};
use crate::{
    diagnostic::{Diagnostic, Diagnostics, Place},
    fetch::{Job, Source},
};

/// Where the files of an entry come from: a repository of a Hugging Face hub, or
/// one file of a URL.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct FetchTable {
    /// A repository, `owner/name`, whose files go into the folder that `path` names.
    hugging_face: Option<String>,
    /// Its commit, 40 digits; a tag or a branch can move.
    revision: Option<String>,
    /// Which files, such as "*.json"; all of them by default.
    files: Vec<String>,
    /// SHA-256 that files must have, by name.
    digests: BTreeMap<String, String>,
    /// The address of one file, which becomes `path`.
    url: Option<String>,
    /// SHA-256 that the file must have.
    sha256: Option<String>,
    /// MD5 that the file must have, for publishers that give no other: it tells
    /// damage, not an attack.
    md5: Option<String>,
}

/// Takes `fetch` out of an entry of `section`, and checks it.
pub(super) fn take(
    section: &str,
    entry: &Entry<'_>,
    table: &mut DeTable<'_>,
    found: &mut Findings,
) -> Option<Job> {
    let value = table.remove("fetch")?;
    let path = table.get("path").and_then(|path| path.get_ref().as_str());
    let Some(path) = path.map(|path| beside(&entry.source, Path::new(path))) else {
        let place = Place::new(&entry.source, value.span());
        found.push(
            Diagnostic::at(place, "`fetch` goes with `path`")
                .label("nowhere to put the files")
                .hint("add `path`, the folder or file that the download becomes".to_owned()),
        );
        return None;
    };
    job(section, entry, value, path, found)
}

fn job(
    section: &str,
    entry: &Entry<'_>,
    value: Spanned<DeValue<'_>>,
    to: PathBuf,
    found: &mut Findings,
) -> Option<Job> {
    let span = value.span();
    let table = match value.into_inner() {
        DeValue::Table(table) => table,
        other => {
            let value = Spanned::new(span, other);
            found.push(
                wrong("fetch", "a table", &entry.source, &value).hint(
                    "write `fetch = { url = \"https://…\", sha256 = \"…\" }` or `fetch = { hugging_face = \"owner/name\", revision = \"…\" }`"
                        .to_owned(),
                ),
            );
            return None;
        }
    };
    let what = format!("`fetch` of `{}`", entry.name);
    let subject = Subject {
        what: &what,
        source: &entry.source,
        header: span.clone(),
        missing: &[],
    };
    let written: FetchTable = read(&subject, table, found)?;
    let mut refuse = |message: String, hint: Option<String>| {
        let place = Place::new(&entry.source, span.clone());
        found.push(
            Diagnostic::at(place, message)
                .label("cannot be fetched")
                .hint(hint),
        );
    };
    let source = match (written.hugging_face, written.url) {
        (Some(repo), None) => {
            let Some(revision) = written.revision else {
                let hint = "add `revision`, the commit that its page shows under `Files`";
                refuse(format!("{what} has no `revision`"), Some(hint.to_owned()));
                return None;
            };
            Source::HuggingFace {
                repo,
                revision,
                files: written.files,
                sha256: written.digests,
            }
        }
        (None, Some(url)) => Source::Url {
            url,
            sha256: written.sha256,
            md5: written.md5,
        },
        _ => {
            let hint = "write `url` with `sha256`, or `hugging_face` with `revision`";
            refuse(
                format!("{what} needs one of `hugging_face` and `url`"),
                Some(hint.to_owned()),
            );
            return None;
        }
    };
    let job = Job {
        name: format!("{section}.{}", entry.name),
        source,
        to,
    };
    match job.check() {
        Ok(()) => Some(job),
        Err(error) => {
            let text = format!("{error:#}");
            let (message, hint) = text.split_once("\nhint: ").unwrap_or((&text, ""));
            refuse(
                message.to_owned(),
                (!hint.is_empty()).then(|| hint.to_owned()),
            );
            None
        }
    }
}

/// Everything that the pipeline at `path` says can be fetched, in the order of its
/// entries, data first. Nothing of it needs to be there.
///
/// # Errors
/// All errors of the file that have to do with it.
pub fn downloads(path: &Path, options: &Options) -> Result<Vec<Job>, Diagnostics> {
    let mut found = Findings::default();
    let jobs = read_all(path, options, &mut found);
    match jobs {
        Some(jobs) if found.is_empty() => Ok(jobs),
        _ => Err(found.into_diagnostics()),
    }
}

fn read_all(path: &Path, options: &Options, found: &mut Findings) -> Option<Vec<Job>> {
    let shown = path.display().to_string();
    let here = std::env::current_dir().unwrap_or_default();
    let main = match source::read(&normal(&here.join(path)), &shown) {
        Ok(main) => main,
        Err(error) => {
            found.push(*error);
            return None;
        }
    };
    let texts = Texts::default();
    let layers = layers::files(main, &texts, found)?;
    let document = merge(layers, options, &texts, found);
    let sweep = axes::sweep(&document, found);
    let mut jobs: Vec<Job> = Vec::new();
    for (name, section) in [("data", &document.data), ("models", &document.models)] {
        for entry in &section.entries {
            let read_one = |entry: &Entry<'_>, mut table: DeTable<'_>, found: &mut Findings| {
                take(name, entry, &mut table, found)
            };
            let named = variants(entry, &document.params, &sweep, found, read_one);
            for job in named.all() {
                if !jobs.contains(job) {
                    jobs.push(job.clone());
                }
            }
        }
    }
    Some(jobs)
}
