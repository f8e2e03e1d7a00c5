//! `runner cache verify` and `gc` of a shared cache.

use std::process::ExitCode;

use anyhow::Result;
use indicatif::ProgressBar;

use super::{
    super::{CORRUPT, UNTRUSTED, print, print_json, shared::Shared},
    counts,
};
use crate::{
    report::words::{count, size},
    store::{GcPolicy, RemoteGc},
};

/// Reads everything in the shared cache `name`.
pub(super) fn verify(
    shared: &Shared,
    name: &str,
    repair: bool,
    json: bool,
    bar: &ProgressBar,
) -> Result<ExitCode> {
    let report = shared.store.verify_remote(name, repair, &|done, total| {
        bar.set_length(total);
        bar.set_position(done);
    })?;
    bar.finish_and_clear();
    let damaged = report.problems.iter().filter(|p| !p.untrusted).count();
    let untrusted = report.problems.len() - damaged;
    let code = match (damaged, untrusted) {
        (0, 0) => ExitCode::SUCCESS,
        (0, _) => ExitCode::from(UNTRUSTED),
        _ => ExitCode::from(CORRUPT),
    };
    if json {
        print_json(&report)?;
        return Ok(code);
    }
    let mut text = String::new();
    for problem in &report.problems {
        let mended = if problem.repaired { "; put right" } else { "" };
        text.push_str(&format!("{}: {}{mended}\n", problem.path, problem.reason));
    }
    text.push_str(&format!(
        "read {} objects and {} records of `{name}` ({}): {damaged} damaged, {untrusted} not trusted\n",
        count(report.objects),
        count(report.records),
        size(report.bytes)
    ));
    print(&text)?;
    Ok(code)
}

/// Collects in the shared cache `name`.
pub(super) fn gc(shared: &Shared, name: &str, policy: &GcPolicy, json: bool) -> Result<ExitCode> {
    let report = shared.store.gc_remote(name, policy)?;
    if json {
        print_json(&report)?;
    } else {
        print(&told(&report, policy.dry_run))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn told(report: &RemoteGc, dry: bool) -> String {
    let verb = if dry { "would delete" } else { "deleted" };
    let mut text = counts(
        verb,
        &[
            ("records", report.records),
            ("broken records", report.broken),
            ("objects and packs", report.objects),
            ("other entries", report.others),
        ],
    );
    text.push_str(&format!(
        "{} entries stay ({})\n",
        count(report.kept.files),
        size(report.kept.bytes)
    ));
    text
}
