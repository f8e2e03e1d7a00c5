//! `runner remote`: the remotes in the project's `runner.toml`.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use serde_json::json;
use unicode_width::UnicodeWidthStr as _;

use super::{Exit, print, print_json, say};
use crate::{
    diagnostic::Diagnostics,
    pipeline,
    project::{FILE, Project, RemoteSpec, edit},
    reading::source::relative,
    trust::Trust,
};

/// Where the project's results are shared.
#[derive(Subcommand, Debug)]
pub enum RemoteCommand {
    /// Add a remote to the project's `runner.toml`.
    ///
    /// URL is a folder that everybody has, or starts with s3://, gs://, az://,
    /// https:// or http://. Credentials come from the environment or from the
    /// files of the services' own tools, never from `runner.toml`:
    ///
    /// S3: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and `AWS_REGION`, or the
    /// profile `AWS_PROFILE` of ~/.aws; `AWS_ENDPOINT_URL` for another server.
    ///
    /// Google Cloud: a file named by `GOOGLE_APPLICATION_CREDENTIALS`, or what
    /// `gcloud auth application-default login` left.
    ///
    /// Azure: `AZURE_STORAGE_ACCOUNT_NAME` and `AZURE_STORAGE_ACCOUNT_KEY`.
    ///
    /// A web server: `RUNNER_REMOTE_<NAME>_TOKEN`, or `RUNNER_REMOTE_<NAME>_USER`
    /// and `RUNNER_REMOTE_<NAME>_PASSWORD`, or ~/.netrc.
    ///
    /// Example: `runner remote add team s3://bucket/prefix`
    Add(AddArgs),
    /// List the remotes.
    List(ListArgs),
    /// Remove a remote from `runner.toml`; what it holds stays where it is.
    Remove(RemoveArgs),
}

/// Arguments of `add`.
#[derive(Args, Debug)]
pub struct AddArgs {
    /// Its name in messages and commands.
    name: String,
    /// A folder or a URL.
    url: String,
    /// Take results from it and put none there.
    #[arg(long)]
    read_only: bool,
    /// End a run with exit code 7 when it cannot be reached.
    #[arg(long)]
    required: bool,
}

/// Arguments of `list`.
#[derive(Args, Debug)]
pub struct ListArgs {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Arguments of `remove`.
#[derive(Args, Debug)]
pub struct RemoveArgs {
    /// Its name.
    name: String,
}

/// Runs one of them.
pub(super) fn run(command: &RemoteCommand) -> Result<ExitCode> {
    let root = pipeline::project(Path::new("pipeline.toml"));
    match command {
        RemoteCommand::Add(args) => add(args, &root),
        RemoteCommand::List(args) => list(args, &root),
        RemoteCommand::Remove(args) => remove(args, &root),
    }
}

fn add(args: &AddArgs, root: &Path) -> Result<ExitCode> {
    let project = Project::load(root)?;
    if project
        .remotes
        .iter()
        .any(|remote| remote.name == args.name)
    {
        return Err(Exit::usage(format!(
            "there is a remote `{}` already\nhint: give another name, or `runner remote remove {}` first",
            args.name, args.name
        )));
    }
    let mut spec = RemoteSpec {
        name: args.name.clone(),
        url: args.url.clone(),
        write: !args.read_only,
        required: args.required,
    };
    // The file's paths start at the root, those of a command line here.
    let here = std::env::current_dir()?;
    if here != root && !spec.url.contains("://") && Path::new(&spec.url).is_relative() {
        spec.url = relative(root, &here.join(&spec.url)).display().to_string();
    }
    let text = written(root)?;
    let text = edit::with_remote(root, &text, &spec).map_err(|errors| refused(&errors))?;
    replace(root, &text)?;
    let mode = mode(&spec);
    print(&format!("added `{}` ({}, {mode})\n", spec.name, spec.url))?;
    next(&spec, root);
    Ok(ExitCode::SUCCESS)
}

/// Says what is still missing before anything is shared.
fn next(spec: &RemoteSpec, root: &Path) {
    if let Some(folder) = spec.folder(root)
        && !folder.exists()
        && !folder.parent().is_some_and(Path::exists)
    {
        say(&format!(
            "note: the folder `{}` is not there: nothing is shared until it is",
            folder.display()
        ));
    }
    let trust = Trust::folder().and_then(|folder| Trust::load(&folder).ok());
    if spec.write && trust.is_none_or(|trust| trust.writer().is_none()) {
        say(
            "next: `runner key new --name YOURS` makes the key that signs what you share; \
             its output says what your teammates do",
        );
    }
}

/// What is wrong with the arguments: there is no file yet whose lines could be shown.
fn refused(errors: &Diagnostics) -> anyhow::Error {
    let lines: Vec<String> = errors
        .0
        .iter()
        .map(|error| {
            let label = (!error.label.is_empty()).then(|| format!(": {}", error.label));
            let hint = error.hint.as_ref().map(|hint| format!("\nhint: {hint}"));
            format!(
                "{}{}{}",
                error.message,
                label.unwrap_or_default(),
                hint.unwrap_or_default()
            )
        })
        .collect();
    Exit::usage(lines.join("\nerror: "))
}

fn list(args: &ListArgs, root: &Path) -> Result<ExitCode> {
    let project = Project::load(root)?;
    if args.json {
        let list: Vec<_> = project
            .remotes
            .iter()
            .map(|remote| {
                json!({
                    "name": remote.name,
                    "url": remote.url,
                    "mode": mode(remote),
                    "required": remote.required,
                })
            })
            .collect();
        print_json(&list)?;
    } else if project.remotes.is_empty() {
        print("no remotes; `runner remote add NAME URL` adds one\n")?;
    } else {
        let width = |of: fn(&RemoteSpec) -> &str| {
            let widths = project.remotes.iter().map(|remote| of(remote).width());
            widths.max().unwrap_or(0)
        };
        let (names, urls) = (width(|r| &r.name), width(|r| &r.url));
        let mut text = String::new();
        for remote in &project.remotes {
            let pad = |of: &str, to: usize| " ".repeat(to - of.width());
            text.push_str(&format!(
                "{}{}  {}{}  {}{}\n",
                remote.name,
                pad(&remote.name, names),
                remote.url,
                pad(&remote.url, urls),
                mode(remote),
                if remote.required { ", required" } else { "" }
            ));
        }
        print(&text)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn mode(remote: &RemoteSpec) -> &'static str {
    if remote.write { "read-write" } else { "read" }
}

fn remove(args: &RemoveArgs, root: &Path) -> Result<ExitCode> {
    let project = Project::load(root)?;
    let names = || project.remotes.iter().map(|remote| remote.name.as_str());
    if !names().any(|name| name == args.name) {
        let hint = pipeline::nearest(&args.name, names()).map_or_else(
            || "`runner remote list` lists them".to_owned(),
            |close| format!("did you mean `{close}`?"),
        );
        return Err(Exit::usage(format!(
            "there is no remote `{}`\nhint: {hint}",
            args.name
        )));
    }
    let Some(text) = edit::without_remote(root, &written(root)?, &args.name)? else {
        return Err(Exit::usage(format!(
            "failed to cut `{}` out of `{FILE}`, since it is no `[[remote]]` with lines of its own\nhint: remove it in an editor",
            args.name
        )));
    };
    replace(root, &text)?;
    print(&format!("removed `{}`\n", args.name))?;
    Ok(ExitCode::SUCCESS)
}

/// The text of the project's file; empty when there is none.
fn written(root: &Path) -> Result<String> {
    match fs_err::read_to_string(root.join(FILE)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        read => Ok(read?),
    }
}

/// Gives the project's file the contents `text`; whoever reads it meanwhile
/// sees the old text or the new one.
fn replace(root: &Path, text: &str) -> Result<()> {
    let path = root.join(FILE);
    // A link stays a link, and the file that it means is replaced.
    let path: PathBuf = path.canonicalize().unwrap_or(path);
    let permissions = match std::fs::metadata(&path) {
        Ok(metadata) => metadata.permissions(),
        Err(_) => std::os::unix::fs::PermissionsExt::from_mode(0o666),
    };
    let write = || -> std::io::Result<()> {
        let mut file = tempfile::Builder::new()
            .prefix(".runner-")
            .suffix(".toml")
            .permissions(permissions)
            .tempfile_in(path.parent().unwrap_or(root))?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(&path)?;
        Ok(())
    };
    write().with_context(|| format!("failed to write `{}`", path.display()))
}
