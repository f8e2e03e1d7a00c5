//! `runner show`: a node's result for a person, or its files in a folder.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Args;
use serde_json::json;

use super::{
    Exit, PipelineArgs, load_with, node_called, page::when, print, print_json, shared::open_shared,
    with_upstream,
};
use crate::{
    artifact::{Answers, Artifact, Attributes, Embeddings, Manifest, Metrics, Type},
    cli::Global,
    digest::FileMemo,
    run::{Verdict, plan, read_file, read_manifest, record},
    store::{Record, Store},
};

/// Arguments of `show`.
#[derive(Args, Debug)]
pub struct ShowArgs {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// The node: `eval@2`, `refine.propose@1`.
    node: String,
    /// Write the artifact's files to this folder.
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// Print the record as JSON.
    #[arg(long)]
    json: bool,
}

/// Finds the node's record and shows it.
pub(super) fn run(args: &ShowArgs, global: &Global) -> Result<ExitCode> {
    let shared = open_shared(global, Some(&args.pipeline.file))?;
    let store = shared.store;
    let graph = load_with(&args.pipeline, store.is_shared())?;
    let id = node_called(&graph, &args.node)?;
    let memo = FileMemo::open_default();
    let plans = plan(
        &graph,
        &store,
        &memo,
        Some(&with_upstream(&graph, &[id].into())),
    )?;
    let _ = memo.save();
    let name = &graph.node(id).id;
    let key = plans
        .iter()
        .find(|(node, plan)| *node == id && matches!(plan.verdict, Verdict::Hit | Verdict::Fetch))
        .and_then(|(_, plan)| plan.key);
    let record = key.map(|key| record(&store, &key)).transpose()?.flatten();
    let Some((record, by)) = record else {
        return Err(Exit::usage(format!(
            "`{name}` has no result yet\nhint: run it with `runner exec {} --until {name}`",
            args.pipeline.file.display()
        )));
    };
    let manifest = read_manifest(&store, &record.artifact)?;
    if let Some(folder) = &args.to {
        for file in &manifest.files {
            let path = folder.join(&file.name);
            if let Some(parent) = path.parent() {
                fs_err::create_dir_all(parent)?;
            }
            fs_err::write(path, read_file(&store, &manifest, &file.name)?)?;
        }
        return print(&format!(
            "wrote {} files to {}\n",
            manifest.files.len(),
            folder.display()
        ))
        .map(|()| ExitCode::SUCCESS);
    }
    if args.json {
        print_json(&json!({
            "node": name, "key": record.key, "kind": record.kind, "artifact": record.artifact,
            "signed_by": by, "fingerprint": record.fingerprint, "provenance": record.provenance, "manifest": manifest,
        }))?;
    } else {
        print(&describe(name, &record, by.as_deref(), &manifest, &store)?)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn describe(
    name: &str,
    record: &Record,
    signer: Option<&str>,
    manifest: &Manifest,
    store: &Store,
) -> Result<String> {
    let by = &record.provenance;
    let mut text = format!(
        "{name}: {} by {}\nkey       {}\nartifact  {}\ncomputed  in {:.2} s on {} ({}) with {}\n",
        manifest.r#type,
        record.kind,
        record.key,
        record.artifact,
        by["seconds"].as_f64().unwrap_or_default(),
        by["host"].as_str().unwrap_or("?"),
        by["device"].as_str().unwrap_or("?"),
        by["program"].as_str().unwrap_or("?"),
    );
    let started = by["started"].as_u64().map(when).unwrap_or_default();
    let user = by["user"].as_str().unwrap_or("?");
    text.push_str(&format!("by        {user} {started}\n"));
    if let Some(signer) = signer {
        text.push_str(&format!("signed    by {signer}; from a shared cache\n"));
    }
    for file in &manifest.files {
        text.push_str(&format!(
            "file      {} ({} bytes, {})\n",
            file.name,
            file.size,
            file.digest.short()
        ));
    }
    text.push('\n');
    text.push_str(&content(manifest, store)?);
    Ok(text)
}

/// The most telling part of an artifact.
fn content(manifest: &Manifest, store: &Store) -> Result<String> {
    let read = |name: &str| read_file(store, manifest, name);
    Ok(match manifest.r#type {
        Type::Metrics => {
            let table = Metrics::decode(&read)?.table;
            let mut text = format!(
                "top-1 {:.2} [{:.2}, {:.2}] ({} of {})\n",
                table.top1.percent,
                table.top1.low,
                table.top1.high,
                table.top1.correct,
                table.top1.total
            );
            if let Some(top5) = table.top5 {
                text.push_str(&format!("top-5 {:.2}\n", top5.percent));
            }
            for class in &table.per_class {
                text.push_str(&format!(
                    "  {:<16} {:6.2}\n",
                    class.class, class.top1.percent
                ));
            }
            text
        }
        Type::Attributes => Attributes::decode(&read)?
            .classes
            .iter()
            .map(|class| format!("  {:<16} {}\n", class.class, class.attributes.join(", ")))
            .collect(),
        Type::Answers => {
            let answers = Answers::decode(&read)?;
            answers
                .answers
                .iter()
                .map(|a| {
                    let state = if a.valid {
                        "ok"
                    } else {
                        a.reason.as_deref().unwrap_or("not valid")
                    };
                    format!(
                        "  {:<12} answer {} try {}: {} [{state}]\n",
                        a.class,
                        a.sample,
                        a.attempt,
                        a.text.trim()
                    )
                })
                .collect()
        }
        Type::ImageEmbeddings | Type::TextEmbeddings => {
            let embeddings = Embeddings::decode(&read)?;
            let mut text = format!(
                "{} embeddings of {} numbers\n",
                embeddings.len(),
                embeddings.dim
            );
            for row in embeddings.rows.iter().take(12) {
                let what = row
                    .text
                    .as_deref()
                    .or(row.image.as_deref())
                    .unwrap_or_default();
                text.push_str(&format!("  {:<16} {what}\n", row.class));
            }
            if embeddings.len() > 12 {
                text.push_str(&format!("  … and {} more\n", embeddings.len() - 12));
            }
            text
        }
        Type::Weights => {
            "a model folder; `--to DIR` writes it where `[models]` can name it\n".to_owned()
        }
        Type::Probe => String::from_utf8_lossy(&read("probe.txt")?).into_owned() + "\n",
    })
}
