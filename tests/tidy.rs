//! The house's rules that a machine can check: who imports whom, sizes, words.

use std::path::{Path, PathBuf};

/// Which rooms a room may import, over `use crate::…` and `crate::…` paths.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("artifact", &["digest", "table"]),
    ("cli", &["cmd"]),
    (
        "cmd",
        &[
            "artifact",
            "cli",
            "data",
            "diagnostic",
            "digest",
            "fetch",
            "models",
            "node",
            "nodes",
            "pipeline",
            "project",
            "reading",
            "report",
            "run",
            "store",
            "table",
            "trust",
        ],
    ),
    ("data", &["digest", "pickle"]),
    ("diagnostic", &[]),
    ("digest", &[]),
    ("fetch", &["http"]),
    ("http", &[]),
    ("models", &["http", "pickle"]),
    ("node", &["artifact", "data", "digest", "models"]),
    (
        "nodes",
        &[
            "artifact", "data", "digest", "models", "node", "stats", "table",
        ],
    ),
    ("pickle", &[]),
    (
        "pipeline",
        &[
            "artifact",
            "data",
            "diagnostic",
            "digest",
            "fetch",
            "node",
            "nodes",
            "reading",
            "table",
        ],
    ),
    ("project", &["diagnostic", "reading"]),
    ("reading", &["diagnostic"]),
    (
        "report",
        &[
            "artifact", "digest", "node", "pipeline", "run", "stats", "store", "table",
        ],
    ),
    (
        "run",
        &["artifact", "data", "digest", "node", "pipeline", "store"],
    ),
    ("stats", &[]),
    ("store", &["digest", "http", "trust"]),
    ("table", &[]),
    ("trust", &["digest"]),
];

fn sources() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// The room of a source file: the first part of its path below `src`.
fn room(path: &Path) -> String {
    let relative = path
        .strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
        .unwrap();
    let first = relative
        .components()
        .next()
        .unwrap()
        .as_os_str()
        .to_str()
        .unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// Rooms that `text` names after `crate::`, groups included.
fn imported(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let code: String = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n");
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut entry = String::new();
            for c in group.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => found.push(first_word(&std::mem::take(&mut entry))),
                    c if depth == 0 => entry.push(c),
                    _ => {}
                }
            }
            found.push(first_word(&entry));
        } else {
            found.push(
                rest.chars()
                    .take_while(|c| c.is_alphanumeric() || *c == '_')
                    .collect(),
            );
        }
    }
    found.retain(|word| !word.is_empty());
    found
}

fn first_word(text: &str) -> String {
    text.trim_start()
        .chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect()
}

#[test]
fn rooms_import_only_what_they_may() {
    let mut wrong = Vec::new();
    for path in sources() {
        let room = room(&path);
        if ["lib", "main"].contains(&room.as_str()) {
            continue;
        }
        let allowed = MAY_IMPORT.iter().find(|(name, _)| *name == room);
        let Some((_, allowed)) = allowed else {
            wrong.push(format!("{} is in no known room", path.display()));
            continue;
        };
        for other in imported(&std::fs::read_to_string(&path).unwrap()) {
            if other != room && !allowed.contains(&other.as_str()) {
                wrong.push(format!("{} imports `{other}`", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_import_check_sees_groups_and_paths() {
    assert_eq!(
        imported("use crate::{\n    a::B,\n    c::{D, e::F},\n};\nlet x = crate::g::h();"),
        ["a", "c", "g"]
    );
    assert!(imported("// use crate::a::B;").is_empty());
}

#[test]
fn every_file_opens_with_its_purpose_and_stays_small() {
    let mut wrong = Vec::new();
    for path in sources() {
        let text = std::fs::read_to_string(&path).unwrap();
        if !text.starts_with("//! ") {
            wrong.push(format!("{} does not say what it is for", path.display()));
        }
        let lines = text
            .split("#[cfg(test)]\nmod tests {")
            .next()
            .unwrap()
            .lines()
            .count();
        if lines > 500 {
            wrong.push(format!(
                "{} has {lines} lines before its tests",
                path.display()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_test_file_is_part_of_the_test_binary() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let main = std::fs::read_to_string(folder.join("main.rs")).unwrap();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap();
        if path.extension().is_some_and(|e| e == "rs") && stem != "main" {
            assert!(
                main.contains(&format!("mod {stem};")),
                "tests/{stem}.rs is not listed in tests/main.rs"
            );
        }
    }
}
