//! A folder of wrong pipelines, each with its whole diagnostic.

#![expect(
    clippy::unwrap_used,
    reason = "a test stops at what it does not expect"
)]

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

use proptest::prelude::*;
use runner::{
    diagnostic::Diagnostics,
    pipeline::{Graph, Options, load},
};

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad");
    let entries = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries
        .filter(|path| path.extension().is_some_and(|e| e == "toml"))
        .collect();
    files.sort();
    files
}

/// Options from a first line such as `# options: --profile demo -s a=1`.
fn options(text: &str) -> Options {
    let mut options = Options::default();
    let first = text.lines().next().unwrap_or_default();
    let mut words = first
        .strip_prefix("# options: ")
        .unwrap_or_default()
        .split(' ');
    while let (Some(flag), Some(value)) = (words.next(), words.next()) {
        if flag == "--profile" {
            options.profiles.push(value.to_owned());
        } else {
            let (name, value) = value.split_once('=').unwrap();
            options.set.push((name.to_owned(), value.to_owned()));
        }
    }
    options
}

fn load_bad(path: &Path) -> Result<Graph, Diagnostics> {
    let text = String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
    // Cargo runs tests in the package's folder, so relative paths are short.
    let path = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap();
    load(path, &options(&text))
}

#[test]
fn every_bad_pipeline_has_its_diagnostic() {
    let files = files();
    assert!(files.len() >= 25, "only {} files", files.len());
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("snapshots/bad");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.add_filter(&regex::escape(env!("CARGO_MANIFEST_DIR")), "$ROOT");
    settings.bind(|| {
        for path in files {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let Err(diagnostics) = load_bad(&path) else {
                panic!("`{name}` is not bad");
            };
            assert!(!diagnostics.0.is_empty());
            insta::assert_snapshot!(name, diagnostics.render(false, 100));
        }
    });
}

#[test]
fn every_diagnostic_points_into_its_file() {
    for path in files() {
        let Err(diagnostics) = load_bad(&path) else {
            continue;
        };
        for diagnostic in &diagnostics.0 {
            let length = diagnostic.source.text.len();
            if let Some(span) = &diagnostic.span {
                assert!(
                    span.start <= span.end && span.end <= length,
                    "{path:?}: {span:?}"
                );
            }
            assert!(
                !diagnostic.message.ends_with('.'),
                "{path:?}: {}",
                diagnostic.message
            );
            assert!(
                !diagnostic.message.contains('\n'),
                "{path:?}: {}",
                diagnostic.message
            );
        }
        assert_eq!(diagnostics, diagnostics.clone().sorted());
    }
}

fn load_text(text: &[u8]) -> Result<Graph, Diagnostics> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.toml");
    std::fs::write(&path, text).unwrap();
    let result = load(&path, &Options::default());
    if let Err(diagnostics) = &result {
        assert!(!diagnostics.0.is_empty());
        let _ = diagnostics.render(true, 80);
        let _ = serde_json::to_value(diagnostics).unwrap();
    }
    result
}

#[test]
fn past_a_limit_is_a_clear_and_quick_error() {
    let mut big = String::from("version = 1\n");
    while big.len() < 5 << 20 {
        big += "# filling\n";
    }
    let mut flat = String::from("version = 1\n");
    for i in 0..100_001 {
        let _ = writeln!(flat, "[nodes.n{i}]\nkind = \"probe\"");
    }
    let cases = [
        ("[".repeat(100_000), "nested more than 64 deep"),
        ("{".repeat(100_000), "nested more than 64 deep"),
        (
            format!("a = {}", "[{a=".repeat(50_000)),
            "nested more than 64 deep",
        ),
        (format!("{}x = 1", "a.".repeat(100_000)), ""),
        (format!("[{}x]", "a.".repeat(100_000)), ""),
        ("[[a]]\n".repeat(100_000), ""),
        ("a=1\n".repeat(100_000), ""),
        ("\"".repeat(1_000_000), ""),
        ("=".repeat(1_000_000), ""),
        (big, "larger than 4 MiB"),
        (flat, "more than 100,000 node instances"),
    ];
    for (text, message) in cases {
        let start = std::time::Instant::now();
        let Err(diagnostics) = load_text(text.as_bytes()) else {
            panic!("this passes a limit: {}", &text[..40]);
        };
        let took = start.elapsed();
        let shown = diagnostics.render(false, 100);
        assert!(shown.contains(message), "{}: {shown}", &text[..40]);
        // A second on a quiet machine; tests share theirs.
        assert!(took.as_secs_f64() < 10.0, "{}: {took:?}", &text[..40]);
    }
}

const GOOD: &str = r#"version = 1
name = "a"
seed = 3
[params]
t = 0.5
[sweep]
s = [1, 2]
[nodes.a]
kind = "probe"
value = "x${t}"
[nodes.b]
kind = "probe"
matrix = { n = [0, 1], w = ["é", "b"] }
inputs = ["a", "r@${n}"]
value = "${n} ${s}"
[rounds.r]
count = 2
result = "c"
matrix = { k = [1] }
[rounds.r.nodes.c]
kind = "probe"
inputs = ["previous", "a"]
value = "$${ ${round}"
exec = { batch = 3 }
[tables.t]
rows = "n"
columns = "w"
mean_over = "s"
value = "b.top1"
published = { 0 = 1.5 }
"#;

#[test]
fn the_file_that_is_mutated_below_is_good_but_for_one_line() {
    let good = GOOD.replace("matrix = { k = [1] }\n", "");
    let graph = load_text(good.as_bytes())
        .map_err(|e| e.to_string())
        .unwrap();
    assert_eq!(graph.nodes.len(), 1 + 2 * 2 * 2 + 2);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = load_text(&bytes);
    }

    #[test]
    fn random_lines_of_toml_never_panic(
        lines in proptest::collection::vec(
            "(version = 1|\\[nodes\\.[ab]\\]|\\[rounds\\.r(\\.nodes\\.c)?\\]|\\[(params|sweep|tables\\.t|data\\.d|models\\.m|profiles\\.p\\.nodes\\.a)\\]|(kind|value|inputs|matrix|count|result|exec|rows|path|seed) = (\"probe\"|\"\\$\\{[abn]\\}\"|\"[ab]@?[0-3]?\"|[0-9.]{1,3}|\\[(\"[ab]\",?){0,2}\\]|\\{ n = \\[[0-9,]{0,4}\\] \\}|true))",
            0..16,
        )
    ) {
        let _ = load_text(format!("version = 1\n{}", lines.join("\n")).as_bytes());
    }

    #[test]
    fn mutated_good_files_never_panic(
        edits in proptest::collection::vec((0..GOOD.len(), 0_usize..4, any::<u8>(), 0_usize..30), 1..6)
    ) {
        let mut bytes = GOOD.as_bytes().to_vec();
        for (at, what, byte, length) in edits {
            let at = at.min(bytes.len());
            let end = (at + length).min(bytes.len());
            match what {
                0 => { bytes.drain(at..end); }
                1 => bytes.insert(at, byte),
                2 => { let piece = bytes[at..end].to_vec(); bytes.splice(at..at, piece); }
                _ => { let piece = bytes[at..end].to_vec(); bytes.extend(piece); }
            }
        }
        let _ = load_text(&bytes);
    }
}
