//! `runner new`: a first pipeline that works, with a comment on everything.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use clap::Args;

use super::{Exit, print};
use crate::{
    pipeline,
    project::FILE,
    reading::{names::is_valid, source::relative},
};

/// The pipeline; words in `«»` are filled in.
const PIPELINE: &str = include_str!("new/pipeline.toml");

/// What comes behind it where the project has the demo's models.
const DEMO: &str = include_str!("new/demo.toml");

/// The project's file.
const PROJECT: &str = include_str!("new/runner.toml");

/// Arguments of `new`.
#[derive(Args, Debug)]
pub struct NewArgs {
    /// The pipeline's name.
    name: String,
    /// The file to write [default: `NAME.toml` in `pipelines/`, or here if there is no such folder].
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
}

/// Writes the pipeline, and what the project lacks for it.
pub(super) fn run(args: &NewArgs) -> Result<ExitCode> {
    let name = args.name.strip_suffix(".toml").unwrap_or(&args.name);
    if !is_valid(name) {
        return Err(Exit::usage(format!(
            "`{name}` cannot be a name\nhint: names are letters, digits, `_` and `-`, and start with a letter or `_`; --to FILE says where to write"
        )));
    }
    let here = std::env::current_dir()?;
    let file = here.join(match &args.to {
        Some(file) => file.clone(),
        None => in_project(name),
    });
    let folder = file.parent().unwrap_or(&here).to_owned();
    let mut root = pipeline::project(&file);
    if !file.starts_with(&root) {
        root = folder.clone();
    }
    let demo = [folder.join("demo"), root.join("pipelines/demo")]
        .into_iter()
        .find(|demo| demo.join("clip").is_dir() && demo.join("cifar-10-batches-bin").is_dir());
    let schemas = [
        folder.join("schema.json"),
        root.join("pipelines/schema.json"),
    ];
    let schema = schemas.iter().find(|schema| schema.is_file());

    let shown = |path: &Path| {
        let short = path.strip_prefix(&here).unwrap_or(path);
        short.display().to_string()
    };
    let way = |to: &Path| relative(&folder, to).display().to_string();
    let mut text = PIPELINE.to_owned();
    if demo.is_some() {
        text.push_str(DEMO);
    }
    let demo_way = demo.as_deref().map(way).unwrap_or_default();
    for (word, value) in [
        ("«schema»", way(schema.unwrap_or(&schemas[0]))),
        ("«name»", name.to_owned()),
        ("«file»", shown(&file)),
        ("«data»", way(&root.join("data"))),
        ("«models»", way(&root.join("models"))),
        ("«demo»", demo_way),
    ] {
        // Paths may hold what TOML's quotes do not take.
        let value = value.replace('\\', "\\\\").replace('"', "\\\"");
        text = text.replace(word, &value);
    }

    fs_err::create_dir_all(&folder)?;
    if !create(&file, &text)? {
        return Err(Exit::usage(format!(
            "`{}` exists already\nhint: give another name, or another file with --to",
            shown(&file)
        )));
    }
    let mut told = format!("wrote {}\n", shown(&file));
    if schema.is_none() {
        let schema = serde_json::to_string_pretty(&pipeline::schema())? + "\n";
        if create(&schemas[0], &schema)? {
            told.push_str(&format!(
                "wrote {}, from which editors complete pipelines\n",
                shown(&schemas[0])
            ));
        }
    }
    if create(&root.join(FILE), PROJECT)? {
        told.push_str(&format!(
            "wrote {}, which marks the project's root\n",
            shown(&root.join(FILE))
        ));
    }
    told.push_str("\nnext:\n");
    let file = shown(&file);
    if demo.is_some() {
        told.push_str(&format!(
            "  runner exec {file} --profile demo    at once, with the demo's small models\n"
        ));
    }
    told.push_str(&format!(
        "  runner fetch {file}    download OpenAI's RN50 and CIFAR-10 (430 MB), or change the paths\n"
    ));
    told.push_str(&format!("  runner exec {file}\n"));
    print(&told)?;
    Ok(ExitCode::SUCCESS)
}

/// `NAME.toml` where the project has its pipelines.
fn in_project(name: &str) -> PathBuf {
    let pipelines = pipeline::project(Path::new("pipeline.toml")).join("pipelines");
    let file = format!("{name}.toml");
    if pipelines.is_dir() {
        pipelines.join(file)
    } else {
        PathBuf::from(file)
    }
}

/// Writes a file that is not there; `false` when it is.
fn create(path: &Path, text: &str) -> Result<bool> {
    match std::fs::File::create_new(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
        file => file
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map(|()| true)
            .with_context(|| format!("failed to write `{}`", path.display())),
    }
}
