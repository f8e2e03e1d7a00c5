//! What `exec` and `report` write: tables in every format and the HTML page,
//! filled from records.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{
    artifact::{Answers, Artifact, Attributes, Manifest, Metrics, Row, Type},
    data, node,
    pipeline::{Graph, ModelSource, NodeId},
    report::{
        AnswersSummary, Measured, Page, PageNode, Provenance, RunInfo, State as PageState,
        build_tables, html,
    },
    run::{Outcome, RunEntry, State, read_file, record},
    store::{Store, StoreError},
    table::Table,
};

/// What is said where a report could not be written.
const FAILED: &str = "the results are in the cache, but the report could not be written";
/// Images won and lost that a page lists for an evaluation.
const CHANGES: usize = 100;
/// The file of trained weights that holds one line per epoch.
const CURVE: &str = "curve.json";

/// What is known of one node.
pub(super) struct Known {
    pub(super) state: Option<PageState>,
    pub(super) manifest: Option<std::sync::Arc<Manifest>>,
    pub(super) key: Option<crate::digest::Digest>,
    pub(super) artifact: Option<crate::digest::Digest>,
    /// Whether it is somebody else's, whose record need not be here.
    pub(super) shared: bool,
    pub(super) took: Option<f64>,
    pub(super) items: Option<(u64, u64)>,
    pub(super) why: String,
    pub(super) message: Option<String>,
}

/// The page of a finished run.
pub(super) fn of_run(
    graph: &Graph,
    store: &Store,
    outcome: &Outcome,
    entry: &RunEntry,
    run: &str,
) -> Page {
    let known: Vec<Known> = outcome
        .nodes
        .iter()
        .map(|node| (node, node.state == State::Done))
        .map(|(node, done)| Known {
            state: match (node.state, node.hit) {
                (State::Done, true) => Some(PageState::Hit),
                (State::Done, false) => Some(PageState::Ran),
                (State::Failed, _) => Some(PageState::Failed),
                (State::Blocked, _) => Some(PageState::Blocked),
                _ => None,
            },
            // One that was taken back and then failed still names what it had.
            manifest: node.manifest.clone().filter(|_| done),
            key: node.key,
            artifact: node.artifact.filter(|_| done),
            shared: node.by.is_some(),
            took: (!node.hit && done).then_some(node.took.as_secs_f64()),
            items: (node.items != (0, 0)).then_some(node.items),
            why: node.why.clone(),
            message: node.error.clone(),
        })
        .collect();
    let info = RunInfo {
        id: run.to_owned(),
        started: when(entry.started),
        took: Some(entry.seconds),
        device: words(&entry.provenance["device"]),
        machine: words(&entry.provenance["host"]),
        version: words(&entry.provenance["program"]),
        command: entry.command.join(" "),
        warnings: Vec::new(),
    };
    of_known(graph, store, &known, info)
}

/// The page of what is known. What the store should have and cannot give is a warning of its
/// node: the next run computes it again.
pub(super) fn of_known(graph: &Graph, store: &Store, known: &[Known], run: RunInfo) -> Page {
    let mut page = Page::of(graph);
    page.run = run;
    let mut numbers: Vec<Option<Value>> = vec![None; known.len()];
    for ((node, known), numbers) in page.nodes.iter_mut().zip(known).zip(&mut numbers) {
        node.state = known.state;
        node.took = known.took;
        node.items = known.items;
        node.why = (!known.why.is_empty()).then(|| known.why.clone());
        node.message.clone_from(&known.message);
        node.key = known.key.map(|key| key.to_string());
        node.artifact = known.artifact.map(|artifact| artifact.to_string());
        match fill(node, known, store) {
            Ok(found) => *numbers = found,
            Err(error) => node.warnings.push(unreadable(&error)),
        }
        match provenance(known, store) {
            Ok(found) => node.provenance = found,
            Err(error) => node.warnings.push(unreadable(&error)),
        }
    }
    let unread = RefCell::new(BTreeMap::new());
    let measured = |id: NodeId| {
        let node = &page.nodes[id.index()];
        if let Some(metrics) = &node.metrics {
            return Measured::Metrics(Box::new(metrics.clone()));
        }
        if let Some(attributes) = &node.attributes {
            return Measured::Attributes(Box::new(attributes.clone()));
        }
        // Texts are many: they are counted only where a table asks.
        if let Some(manifest) = &known[id.index()].manifest
            && manifest.r#type == Type::TextEmbeddings
        {
            return match read_file(store, manifest, "items.jsonl").and_then(|rows| texts(&rows)) {
                Ok(counts) => Measured::Numbers(counts),
                Err(error) => {
                    unread.borrow_mut().insert(id.index(), unreadable(&error));
                    Measured::Missing
                }
            };
        }
        match (&node.answers, &numbers[id.index()], node.state) {
            (Some(answers), _, _) => Measured::Numbers(json!(answers)),
            (_, Some(numbers), _) => Measured::Numbers(numbers.clone()),
            (_, _, Some(PageState::Failed)) => Measured::Failed,
            _ => Measured::Missing,
        }
    };
    page.tables = build_tables(graph, &measured);
    for (index, warning) in unread.into_inner() {
        page.nodes[index].warnings.push(warning);
    }
    page
}

fn unreadable(error: &anyhow::Error) -> String {
    let message = format!("{error:#}");
    // To run again is what whoever tells it advises for all nodes.
    let message = message
        .split("\nhint: run again")
        .next()
        .unwrap_or_default();
    format!("its result is there but cannot be read: {message}")
}

/// Where a node's result comes from, by its record.
fn provenance(known: &Known, store: &Store) -> Result<Option<Provenance>> {
    let found = known.key.map(|key| record(store, &key)).transpose()?;
    let Some((record, signer)) = found.flatten() else {
        ensure!(
            known.artifact.is_none() || known.shared,
            "its record is no longer in the store"
        );
        return Ok(None);
    };
    let by = &record.provenance;
    Ok(Some(Provenance {
        computed: by["started"].as_u64().map(when).unwrap_or_default(),
        took: by["seconds"].as_f64(),
        machine: words(&by["host"]),
        device: words(&by["device"]),
        version: words(&by["program"]),
        store: signer.map_or("local".to_owned(), |who| format!("shared, signed by {who}")),
    }))
}

/// Reads what the page tells of a node's result; gives what tables can count of it.
fn fill(node: &mut PageNode, known: &Known, store: &Store) -> Result<Option<Value>> {
    let Some(manifest) = &known.manifest else {
        ensure!(known.artifact.is_none(), "the list of its files is missing");
        return Ok(None);
    };
    node.files.clone_from(&manifest.files);
    let read = |name: &str| read_file(store, manifest, name);
    match manifest.r#type {
        Type::Metrics => {
            let table = Metrics::table(&read)?;
            let compared = table.paired.is_some();
            node.metrics = Some(table);
            if compared {
                node.changes = Metrics::changes(&read, CHANGES)?;
            }
        }
        Type::Attributes => node.attributes = Some(Attributes::decode(&read)?),
        Type::Answers => node.answers = Some(AnswersSummary::of(&Answers::decode(&read)?)),
        Type::Weights if manifest.file(CURVE).is_some() => {
            node.curve = serde_json::from_slice(&read(CURVE)?)?;
            return Ok(node.curve.last().map(|last| {
                json!({
                    "epochs": node.curve.len(), "loss": last.loss,
                    "accuracy_percent": last.accuracy,
                })
            }));
        }
        _ => {}
    }
    Ok(None)
}

/// The nodes of a page whose results cannot be read, each with the reason, as lines.
pub(super) fn unread(page: &Page) -> Vec<String> {
    let of = |node: &PageNode| {
        let line = |warning: &String| format!("`{}`: {warning}", node.id);
        node.warnings.iter().map(line).collect::<Vec<_>>()
    };
    page.nodes.iter().flat_map(of).collect()
}

/// What can be counted of texts: all, those of candidates, and candidates that
/// their class had chosen before.
fn texts(rows: &[u8]) -> Result<Value> {
    let lines = rows
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty());
    let rows: Vec<Row> = lines
        .map(serde_json::from_slice)
        .collect::<Result<_, _>>()?;
    let candidates = rows.iter().filter(|row| row.candidate.is_some());
    let repeats = candidates.clone().filter(|row| {
        let before = row
            .attributes
            .split_last()
            .map_or(&[][..], |(_, before)| before);
        row.candidate.as_ref().is_some_and(|c| before.contains(c))
    });
    Ok(json!({
        "texts": rows.len(), "candidates": candidates.count(), "repeats": repeats.count(),
    }))
}

/// What was found, as it is printed.
pub(super) struct Printed {
    /// The tables as text.
    pub(super) text: String,
    /// The tables as JSON.
    pub(super) json: Value,
}

/// The tables of a page as they are printed.
pub(super) fn printed(page: &Page) -> Printed {
    let tables: Vec<String> = (page.tables.iter())
        .map(|table| table.to_text(false, None))
        .collect();
    Printed {
        text: tables.join("\n"),
        json: json!({"pipeline": page.name, "tables": page.tables}),
    }
}

/// Writes tables and page to `out/<pipeline>/` in the store; returns where the page is.
///
/// # Errors
/// A file cannot be written.
pub(super) fn write(page: &Page, store: &Store, graph: &Graph) -> Result<PathBuf> {
    let folder = store.root().join("out").join(&graph.name);
    fs_err::create_dir_all(&folder)
        .map_err(|error| StoreError::io("create", &folder, error))
        .context(FAILED)?;
    for table in &page.tables {
        for (ending, content) in [
            ("txt", table.to_text(false, None)),
            ("md", table.to_markdown()),
            ("csv", table.to_csv()),
            ("tex", table.to_latex()),
        ] {
            let path = folder.join(format!("{}.{ending}", file_name(table)));
            replace(&path, content.as_bytes())?;
        }
    }
    let report = folder.join("report.html");
    replace(&report, html(page)?.as_bytes())?;
    Ok(report)
}

/// Writes a file beside its place and renames it: whoever reads it sees all of
/// it, and two runs at once leave the file of one of them.
fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let readable = std::fs::Permissions::from_mode(0o644);
    let written = || -> io::Result<()> {
        let mut file = tempfile::Builder::new()
            .prefix(".writing-")
            .permissions(readable)
            .tempfile_in(folder)?;
        file.write_all(bytes)?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    };
    written()
        .map_err(|error| StoreError::io("write", path, error))
        .context(FAILED)
}

/// A table's name as a file's.
fn file_name(table: &Table) -> String {
    table
        .name
        .chars()
        .map(|c| {
            if c.is_alphanumeric() || "-_.".contains(c) {
                c
            } else {
                '-'
            }
        })
        .collect()
}

/// Files of data sets and models: when none changed, their digests did not either.
pub(super) fn leaf_files(graph: &Graph) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for spec in graph.data.values() {
        files.extend(data::files(spec)?);
    }
    for model in graph.models.values() {
        match &model.source {
            ModelSource::Files(source) => {
                let architecture = source.architecture.as_deref();
                files.extend(node::files(&source.path, model.family, architecture)?);
            }
            ModelSource::Endpoint(_) => {}
            ModelSource::Replay(path) => files.push(path.clone()),
        }
    }
    Ok(files)
}

/// Seconds since 1970 as people write them.
pub(super) fn when(seconds: u64) -> String {
    jiff::Timestamp::from_second(seconds as i64)
        .map(|time| time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
        .unwrap_or_default()
}

fn words(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
