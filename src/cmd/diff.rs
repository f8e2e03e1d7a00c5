//! `runner diff`: what differs between two runs.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use clap::Args;
use serde_json::Value;

use super::{
    Exit,
    log::{MOST_ASKED, everybody},
    page::when,
    print, print_json,
    shared::open_shared,
};
use crate::{
    artifact::{Answers, Artifact, Attributes, Type},
    cli::Global,
    report::{
        AnswersSummary,
        compare::{Comparison, RunSide, SideNode},
    },
    run::{RunEntry, RunNode, read_file, read_manifest, record},
    store::Store,
    table::Table,
};

/// Arguments of `diff`.
#[derive(Args, Debug)]
pub struct DiffArgs {
    /// Two runs, by their names or the start of them [default: the last two of a pipeline].
    #[arg(num_args = 0..=2, value_name = "RUN")]
    runs: Vec<String>,
    /// Take the last two runs of this pipeline.
    #[arg(short, long, value_name = "NAME", conflicts_with = "runs")]
    pipeline: Option<String>,
    /// Write an HTML page to this file.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Compares two runs of the history.
pub(super) fn run(args: &DiffArgs, global: &Global) -> Result<ExitCode> {
    let store = open_shared(global, None)?.store;
    let runs: Vec<Run> = everybody(&store, MOST_ASKED)?
        .into_iter()
        .map(|(id, entry, _)| (id, entry))
        .collect();
    let (a, b) = chosen(args, &runs)?;
    let comparison = Comparison::of(&side(&store, a), &side(&store, b));
    if let Some(path) = &args.html {
        let page = comparison.to_html()?;
        fs_err::write(path, page).context("failed to write the comparison")?;
    }
    if args.json {
        print_json(&comparison)?;
    } else {
        print(&comparison.to_text())?;
        if let Some(path) = &args.html {
            print(&format!("\npage: {}\n", path.display()))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A run of the history with its name.
type Run = (String, RunEntry);

/// The two runs that the command line asks for, the earlier first if it names none.
fn chosen<'r>(args: &DiffArgs, runs: &'r [Run]) -> Result<(&'r Run, &'r Run)> {
    let named = |name: &String| {
        let found: Vec<&Run> = runs
            .iter()
            .filter(|(id, _)| id.starts_with(name.as_str()))
            .collect();
        match found.as_slice() {
            [run] => Ok(*run),
            [] => Err(Exit::usage(format!(
                "there is no run `{name}`\nhint: `runner log` lists them"
            ))),
            _ => Err(Exit::usage(format!(
                "`{name}` begins the names of {} runs\nhint: write more of it",
                found.len()
            ))),
        }
    };
    if let [a, b] = args.runs.as_slice() {
        return Ok((named(a)?, named(b)?));
    }
    // One run is compared with the one before it of the same pipeline.
    let last = match args.runs.first() {
        Some(name) => Some(named(name)?),
        None => (runs.iter().rev()).find(|(_, entry)| {
            args.pipeline
                .as_ref()
                .is_none_or(|name| *name == entry.pipeline)
        }),
    };
    let before = last.and_then(|(id, entry)| {
        (runs.iter().rev()).find(|(other, e)| other < id && e.pipeline == entry.pipeline)
    });
    match (before, last) {
        (Some(before), Some(last)) => Ok((before, last)),
        (None, Some((_, entry))) => Err(Exit::usage(format!(
            "there is no earlier run of `{}` to compare with\nhint: `runner log` lists all runs; name two of them",
            entry.pipeline
        ))),
        _ => Err(Exit::usage(
            "there is no run to compare\nhint: `runner log` lists them".to_owned(),
        )),
    }
}

/// All that the store still knows of a run.
fn side(store: &Store, (id, entry): &Run) -> RunSide {
    let words = |field: &str| {
        entry.provenance[field]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    RunSide {
        id: id.clone(),
        started: when(entry.started),
        command: entry.command.join(" "),
        machine: words("host"),
        version: words("program"),
        took: Some(entry.seconds),
        // Runs of before tables were kept have none.
        tables: serde_json::from_value::<Vec<Table>>(entry.tables.clone()).unwrap_or_default(),
        nodes: (entry.nodes.iter())
            .map(|(id, node)| side_node(store, id, node))
            .collect(),
    }
}

fn side_node(store: &Store, id: &str, node: &RunNode) -> SideNode {
    let mut side = SideNode {
        id: id.to_owned(),
        key: node.key.map(|key| key.to_string()),
        state: node.state.clone(),
        seconds: Some(node.seconds),
        ..SideNode::default()
    };
    // What has been collected since is not known any more.
    let here = node.key.and_then(|key| record(store, &key).ok()?);
    let shared = || Some((store.find(&node.key?)?.record, None));
    let Some((record, _)) = here.or_else(shared) else {
        return side;
    };
    let print = &record.fingerprint;
    side.kind = format!(
        "{} version {}",
        print["kind"].as_str().unwrap_or_default(),
        print["version"]
    );
    let text = |value: &Value| {
        value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned)
    };
    let params = print["params"].as_object().into_iter().flatten();
    side.params = params
        .map(|(name, value)| (name.clone(), text(value)))
        .collect();
    for (port, list) in print["inputs"].as_object().into_iter().flatten() {
        for (i, parts) in list.as_array().into_iter().flatten().enumerate() {
            let place = if i == 0 {
                String::new()
            } else {
                format!("[{i}]")
            };
            for (part, digest) in parts.as_object().into_iter().flatten() {
                side.inputs
                    .push((format!("{port}{place}.{part}"), text(digest)));
            }
        }
    }
    side.artifact = Some(record.artifact.to_string());
    if let Ok(manifest) = read_manifest(store, &record.artifact) {
        let read = |name: &str| read_file(store, &manifest, name);
        match manifest.r#type {
            Type::Attributes => side.attributes = Attributes::decode(&read).ok(),
            Type::Answers => {
                let answers = Answers::decode(&read).ok();
                side.answers = answers.map(|answers| AnswersSummary::of(&answers));
            }
            _ => {}
        }
    }
    side
}
