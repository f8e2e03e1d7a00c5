//! `runner cache push` and `runner cache divergent`.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use clap::Args;

use super::{
    super::{Exit, open_store, print, print_json, shared},
    JsonArgs,
};
use crate::{cli::Global, store::PendingUpload};

/// Arguments of `push`.
#[derive(Args, Debug)]
pub struct PushArgs {
    /// A pipeline of the project, where the current folder is not in it.
    #[arg(long = "for", value_name = "FILE")]
    pipeline: Option<PathBuf>,
    /// Only what this list says, which is removed then.
    #[arg(long, hide = true)]
    detached: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Uploads what the shared caches lack.
pub(super) fn push(args: &PushArgs, global: &Global) -> Result<ExitCode> {
    let shared = shared::open_shared(global, args.pipeline.as_deref())?;
    let store = shared.store;
    if !store.is_shared() {
        return Err(Exit::usage(
            "there is no shared cache to upload to\nhint: `runner remote add team URL` names one",
        ));
    }
    if let Some(reason) = store.cannot_upload() {
        return Err(Exit::usage(reason));
    }
    match &args.detached {
        Some(list) => {
            let bytes = fs_err::read(list)?;
            let pending: Vec<PendingUpload> =
                serde_json::from_slice(&bytes).context("failed to read the list of uploads")?;
            store.resume_uploads(pending);
        }
        None => store.share_all()?,
    }
    let report = shared::finish_uploads(&store, &|| false);
    if let Some(list) = &args.detached {
        fs_err::remove_file(list)?;
    }
    if args.json {
        print_json(&report)?;
    } else {
        let mut lines = shared::told(&report);
        if lines.is_empty() {
            lines.push("the shared caches have everything that was computed here".to_owned());
        }
        print(&(lines.join("\n") + "\n"))?;
    }
    Ok(if report.is_complete() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(super::super::UNREACHABLE)
    })
}

/// Lists keys for which different results are known.
pub(super) fn divergent(args: &JsonArgs, global: &Global) -> Result<ExitCode> {
    let store = open_store(global, None)?;
    let all = store.divergences()?;
    if args.json {
        print_json(&all)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = String::new();
    for divergence in &all {
        let record = crate::run::record(&store, &divergence.key)?;
        let kind = record.map_or_else(String::new, |(record, _)| record.kind);
        text.push_str(&format!("{} {kind}\n", divergence.key.short()));
        for (i, side) in divergence.sides.iter().enumerate() {
            let stays = if i == 0 { "  (this one is used)" } else { "" };
            text.push_str(&format!(
                "  {} by {}{stays}\n",
                side.artifact.short(),
                side.by
            ));
        }
    }
    if all.is_empty() {
        text.push_str("no key has different results\n");
    }
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}
