//! What is written for people is run: the README's pipeline, every pipeline
//! file, the schema, the help of every command.

use std::path::{Path, PathBuf};

use runner::{
    nodes::KINDS,
    pipeline::{Options, load, schema},
};

use crate::space::Space;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn pipeline_files() -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(root().join("pipelines"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "toml"))
        // Figures, not a pipeline.
        .filter(|path| !path.ends_with("published.toml"))
        .collect();
    files.sort();
    files
}

#[test]
fn every_pipeline_file_checks() {
    let files = pipeline_files();
    assert!(!files.is_empty());
    for file in files {
        // Files for real models run here with the demo's.
        let options = Options {
            absent: false,
            profiles: (!file.ends_with("demo.toml"))
                .then(|| "demo".to_owned())
                .into_iter()
                .collect(),
            ..Options::default()
        };
        if let Err(errors) = load(&file, &options) {
            panic!("{}", errors.render(false, 100));
        }
    }
}

#[test]
fn the_readmes_pipeline_checks_and_runs() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let block = readme
        .split("```toml\n")
        .nth(1)
        .unwrap()
        .split("```")
        .next()
        .unwrap();
    let space = Space::new();
    let demo = root().join("pipelines/demo");
    let text = block.replace("\"demo/", &format!("\"{}/", demo.display()));
    space.write("first.toml", &text);
    let ran = space.run(&["exec", "first.toml"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stdout.contains("eval.top1"), "{}", ran.stdout);
}

#[test]
fn the_schema_in_the_repository_is_current() {
    let path = root().join("pipelines/schema.json");
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    let current = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
    assert!(
        written == current,
        "run: runner kinds --schema > pipelines/schema.json"
    );
}

#[test]
fn every_kind_is_documented_and_used_by_a_pipeline() {
    let all: String = pipeline_files()
        .iter()
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect();
    for kind in KINDS.iter().filter(|kind| !kind.hidden) {
        assert!(
            kind.doc.contains("Example") && kind.doc.contains("Artifact"),
            "{}",
            kind.name
        );
        assert!(
            all.contains(&format!("kind = \"{}\"", kind.name)),
            "no pipeline uses {}",
            kind.name
        );
        for port in kind.ports {
            assert!(port.doc.ends_with('.'), "{}.{}", kind.name, port.name);
        }
    }
}

#[test]
fn every_command_has_help_and_is_in_the_readme() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let space = Space::new();
    for command in [
        "exec",
        "plan",
        "why",
        "check",
        "graph",
        "show",
        "log",
        "report",
        "kinds",
        "new",
        "remote",
        "cache",
        "completions",
    ] {
        let help = space.run(&[command, "--help"]);
        assert_eq!(help.code, 0);
        assert!(help.stdout.contains("Usage:"), "{command}");
        assert!(
            readme.contains(&format!("`{command}")),
            "the README does not name {command}"
        );
    }
}

#[test]
fn no_file_of_the_project_holds_a_path_of_one_machine() {
    let bad = ["/ro".to_owned() + "ot/", "/wo".to_owned() + "rk/"];
    let mut folders = vec![
        root().join("src"),
        root().join("tests"),
        root().join("pipelines"),
        root().join("benches"),
    ];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(text) = std::fs::read_to_string(&path) {
                for word in &bad {
                    assert!(
                        !text.contains(word.as_str()),
                        "{} holds {word}",
                        Path::new(&path).display()
                    );
                }
            }
        }
    }
}
