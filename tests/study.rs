//! The study's pipelines, whole, with the demo's models: each runs from an empty
//! store to its tables, and what the demo was made to show, it shows.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::space::Space;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every pipeline but the parts that others extend.
fn pipelines() -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(root().join("pipelines"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "toml"))
        .filter(|path| {
            !["base", "random", "published"]
                .iter()
                .any(|name| path.file_stem().unwrap() == *name)
        })
        .collect();
    files.sort();
    files
}

/// The tables of a run, after checking that it did not fail.
fn tables(space: &Space, file: &Path, profiles: &str) -> Vec<Value> {
    let mut args = vec!["exec", file.to_str().unwrap(), "--json"];
    if !profiles.is_empty() {
        args.extend(["--profile", profiles]);
    }
    let ran = space.run(&args);
    assert_eq!(ran.code, 0, "{}: {}", file.display(), ran.stderr);
    let printed: Value = serde_json::from_str(&ran.stdout).unwrap();
    printed["tables"].as_array().unwrap().clone()
}

fn table<'t>(tables: &'t [Value], name: &str) -> &'t Value {
    tables.iter().find(|table| table["name"] == name).unwrap()
}

fn notes(table: &Value) -> Vec<&str> {
    let notes = table["notes"].as_array().unwrap();
    notes
        .iter()
        .map(|note| note["text"].as_str().unwrap())
        .collect()
}

/// The number in a row's second column.
fn number(table: &Value, row: &str) -> f64 {
    let rows = table["rows"].as_array().unwrap();
    let found = rows.iter().find(|cells| cells[0]["text"] == row).unwrap();
    found[1]["number"].as_f64().unwrap()
}

#[test]
fn every_pipeline_runs_to_its_tables_and_then_has_nothing_to_do() {
    let space = Space::new();
    let files = pipelines();
    assert!(files.len() >= 25, "{files:?}");
    let profile = |file: &Path| {
        if file.ends_with("demo.toml") {
            ""
        } else {
            "demo"
        }
    };
    for file in &files {
        let shown = file.display();
        let tables = tables(&space, file, profile(file));
        assert!(!tables.is_empty(), "{shown}");
        for table in &tables {
            let rows = table["rows"].as_array().unwrap();
            assert!(!rows.is_empty(), "{shown}: {table}");
            for cell in rows.iter().flat_map(|row| row.as_array().unwrap()) {
                let style = cell["style"].as_str().unwrap();
                assert!(style != "failed" && cell["text"] != "?", "{shown}: {table}");
            }
            // Every row has a value of ours.
            for row in rows {
                assert!(
                    row.as_array().unwrap()[1..]
                        .iter()
                        .any(|cell| cell["text"] != "" && cell["text"] != "–")
                        || table["name"] == "corrected",
                    "{shown}: {row}"
                );
            }
        }
        let published = notes_of(&tables, "contradicts itself");
        let expected: &[(&str, &str, &str)] = match file.file_stem().unwrap().to_str().unwrap() {
            "table4" | "handwritten" => &[("n = 0", "68.76", "70.35"), ("n = 1", "71.81", "72.91")],
            "table5" => &[("n = 0", "68.76", "70.35"); 3],
            _ => &[],
        };
        let expected: Vec<String> = (expected.iter())
            .map(|(column, mean, overall)| {
                format!("The published column {column} contradicts itself: the mean of its classes is {mean}, its overall accuracy {overall}.")
            })
            .collect();
        assert_eq!(published, expected, "{shown}");
    }
    for file in &files {
        let mut args = vec!["plan", file.to_str().unwrap(), "--check"];
        if !profile(file).is_empty() {
            args.extend(["--profile", profile(file)]);
        }
        let ran = space.run(&args);
        assert_eq!(ran.code, 0, "{}: {}", file.display(), ran.stdout);
    }
}

/// All notes of all tables that hold `words`.
fn notes_of(tables: &[Value], words: &str) -> Vec<String> {
    let all = tables.iter().flat_map(notes);
    all.filter(|note| note.contains(words))
        .map(str::to_owned)
        .collect()
}

#[test]
fn presets_select_elsewhere_and_only_the_study_is_marked() {
    let space = Space::new();
    let file = root().join("pipelines/table2.toml");
    let marked = |profiles: &str| {
        let tables = tables(&space, &file, profiles);
        let table = table(&tables, "table2");
        assert_eq!(table["rows"].as_array().unwrap().len(), 4);
        let last = &table["rows"][3];
        let images = last[1]["more"].as_array().unwrap().len();
        assert!(images > 0 && last[1]["number"].is_number(), "{last}");
        notes(table)
            .iter()
            .any(|note| note.contains("selected on this split"))
    };
    assert!(marked("demo"));
    for honest in ["demo,clean", "demo,half", "demo,nested"] {
        assert!(!marked(honest), "{honest}");
    }
}

/// The design's figures for the demo, over five seeds of its LLM.
#[test]
fn the_demo_shows_what_it_was_made_to_show() {
    let space = Space::new();
    let tables = tables(&space, &root().join("tests/acceptance.toml"), "");
    let accuracy = table(&tables, "accuracy");
    let [plain, best, random, swapped, tuned] =
        ["plain", "best", "random", "swapped", "tuned"].map(|arm| number(accuracy, arm));
    assert!((68.0..=72.0).contains(&plain), "plain {plain}");
    assert!(best >= plain + 2.0, "best of three {best}, plain {plain}");
    assert!(
        random <= plain - 5.0,
        "unselected random {random}, plain {plain}"
    );
    assert!(swapped <= best - 5.0, "swapped {swapped}, best {best}");
    assert!(tuned >= plain + 6.0, "fine-tuned {tuned}, plain {plain}");
    let invalid = table(&tables, "invalid");
    let (cold, hot) = (number(invalid, "cold"), number(invalid, "hot"));
    assert!(cold <= 1.0, "{cold}% invalid at 0.5");
    assert!((5.0..=25.0).contains(&hot), "{hot}% invalid at 1.4");
}
