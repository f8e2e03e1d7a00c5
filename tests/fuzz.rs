//! What fuzzing kept, through the same checks again: every file under `tests/fuzz/corpus/`.
//!
//! The fuzz targets themselves need cargo-fuzz; see `tests/fuzz/README.md`.

mod checks;

use std::path::{Path, PathBuf};

/// The longest file kept, in bytes.
const LONGEST: u64 = 4 << 10;
/// The most files kept for a target.
const MOST: usize = 60;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz")
}

/// The files kept for a target, in order.
fn kept(target: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder().join("corpus").join(target)).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Runs a check over what is kept for it, on a thread of its own name.
fn run(target: &str, check: checks::Check) {
    let files = kept(target);
    assert!(!files.is_empty(), "nothing is kept for `{target}`");
    let mut accepted = 0;
    for path in &files {
        let bytes = std::fs::read(path).unwrap();
        // The panic tells what does not hold.
        let Ok(good) = std::panic::catch_unwind(|| check(&bytes)) else {
            panic!("`{target}` fails on `{}`", path.display());
        };
        accepted += usize::from(good);
    }
    // A reader that takes everything, or nothing, is not what was fuzzed.
    assert!(accepted > 0, "`{target}` takes none of its files");
    assert!(accepted < files.len(), "`{target}` takes all of its files");
}

macro_rules! each {
    ($($target:ident),* $(,)?) => {
        $(#[test]
        fn $target() {
            run(stringify!($target), checks::$target::check);
        })*

        /// All targets, as they are called everywhere.
        const TARGETS: &[&str] = &[$(stringify!($target)),*];
    };
}

each! {
    archive, chat_template, clip_text, pickle, pipeline, record, safetensors, sentencepiece,
    tokenizer_json, trust,
}

#[test]
fn every_target_has_a_corpus_a_binary_and_a_line_in_the_table() {
    let manifest = std::fs::read_to_string(folder().join("Cargo.toml")).unwrap();
    let readme = std::fs::read_to_string(folder().join("README.md")).unwrap();
    let names = |inside: &str| {
        let entries = std::fs::read_dir(folder().join(inside)).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().path())
            .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names("corpus"), TARGETS);
    assert_eq!(names("fuzz_targets"), TARGETS);
    for target in TARGETS {
        let binary = format!("name = \"{target}\"\npath = \"fuzz_targets/{target}.rs\"");
        assert!(manifest.contains(&binary), "{target}");
        assert!(readme.contains(&format!("\n| `{target}` |")), "{target}");
    }
}

#[test]
fn what_is_kept_is_small() {
    for target in TARGETS {
        let files = kept(target);
        assert!(files.len() <= MOST, "{target}: {} files", files.len());
        for path in files {
            let size = path.metadata().unwrap().len();
            assert!(size <= LONGEST, "{} has {size} bytes", path.display());
        }
    }
}
