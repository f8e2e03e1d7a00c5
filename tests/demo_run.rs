//! The demo from outside: it runs, a second run computes nothing, a change
//! computes only what it touches, and a killed run goes on where it was.

use std::{path::PathBuf, thread::sleep, time::Duration};

use runner::artifact::{Artifact, Embeddings, Metrics};
use serde_json::json;

use crate::space::{Space, of};

fn pipelines() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("pipelines")
}

/// The demo with paths that hold anywhere, changed by `edit`.
fn demo(space: &Space, edit: impl Fn(String) -> String) {
    let text = std::fs::read_to_string(pipelines().join("demo.toml")).unwrap();
    let folder = pipelines();
    let text = text
        .replace("\"demo/", &format!("\"{}/demo/", folder.display()))
        .replace("\"prompts/", &format!("\"{}/prompts/", folder.display()));
    space.write("demo.toml", &edit(text));
}

/// Items computed and found by `node` in the last run.
fn items(space: &Space, node: &str) -> serde_json::Value {
    space
        .events()
        .into_iter()
        .find(|event| event["event"] == "ran" && event["node"] == node)
        .map_or(json!(null), |event| event["items"].clone())
}

#[test]
fn the_demo_runs_and_a_change_computes_only_what_it_touches() {
    let space = Space::new();
    demo(&space, |text| text);
    let (ran, happened) = space.exec(&["demo.toml"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(
        happened.iter().all(|(_, word)| word == "ran"),
        "{happened:?}"
    );
    assert!(
        ran.stdout.contains("Top-1 accuracy on test images"),
        "{}",
        ran.stdout
    );
    let report = std::fs::read_to_string(space.cache().join("out/demo/report.html")).unwrap();
    assert!(report.contains("refine.select@2"));

    let (again, happened) = space.exec(&["demo.toml"]);
    assert!(
        happened.iter().all(|(_, word)| word == "hit"),
        "{happened:?}"
    );
    assert_eq!(again.stdout, ran.stdout);

    let why = space.run(&["plan", "demo.toml", "-s", "temperature=0.9"]);
    assert!(
        why.stdout
            .contains("refine.propose@1: temperature 0.5 → 0.9 (set by -s); 10 of 10 items new"),
        "{}",
        why.stdout
    );
    let (hotter, happened) = space.exec(&["demo.toml", "-s", "temperature=0.9"]);
    assert_eq!(hotter.code, 0, "{}", hotter.stderr);
    for node in [
        "images",
        "train_images",
        "plain",
        "words",
        "prompts@0",
        "tuned",
        "tuned_images",
    ] {
        assert_eq!(of(&happened, node), "hit", "{node}");
    }
    assert_eq!(of(&happened, "refine.propose@1"), "ran");

    demo(&space, |text| {
        let names = [
            "airplane",
            "automobile",
            "bird",
            "cat",
            "deer",
            "dog",
            "frog",
            "horse",
            "ship",
            "lorry",
        ];
        text.replace(
            "format = \"cifar10\"",
            &format!("format = \"cifar10\"\nclass_names = {names:?}"),
        )
    });
    let (renamed, happened) = space.exec(&["demo.toml"]);
    assert_eq!(renamed.code, 0, "{}", renamed.stderr);
    assert_eq!(items(&space, "plain"), json!([1, 9]));
    assert_eq!(items(&space, "words"), json!([1, 9]));
    // The names are part of the images' artifact, the pixels are not new.
    assert_eq!(of(&happened, "images"), "ran");
    assert_eq!(items(&space, "images"), json!([0, 2000]));
    let first: Vec<u64> = serde_json::from_value(items(&space, "refine.propose@1")).unwrap();
    assert!(
        first[1] >= 9,
        "nine classes ask what they asked before: {first:?}"
    );
}

#[test]
fn a_killed_demo_ends_as_one_that_was_not() {
    let reference = Space::new();
    // A shorter one: kills are about the middle of things.
    let shorter = |text: String| text.replace("epochs = 5", "epochs = 2");
    demo(&reference, shorter);
    assert_eq!(reference.run(&["exec", "demo.toml"]).code, 0);
    let space = Space::new();
    demo(&space, shorter);
    for wait in [300, 1500, 3000, 5000, 8000] {
        let mut child = space.start(&["exec", "demo.toml"]);
        sleep(Duration::from_millis(wait));
        let _ = child.kill();
        let _ = child.wait();
    }
    let last = space.run(&["exec", "demo.toml"]);
    assert_eq!(last.code, 0, "{}", last.stderr);
    let verified = space.run(&["cache", "verify"]);
    assert_eq!(verified.code, 0, "{}", verified.stdout);
    for node in [
        "refine.propose@3",
        "refine.select@3",
        "eval@3",
        "tuned",
        "tuned_eval",
    ] {
        for from in [&reference, &space] {
            let shown = from.run(&["show", "demo.toml", node, "--to", &format!("out/{node}")]);
            assert_eq!(shown.code, 0, "{}", shown.stderr);
        }
        let folder = format!("out/{node}");
        for entry in std::fs::read_dir(reference.path().join(&folder)).unwrap() {
            let name = entry.unwrap().file_name();
            let read =
                |space: &Space| std::fs::read(space.path().join(&folder).join(&name)).unwrap();
            assert!(read(&reference) == read(&space), "{node}: {name:?} differs");
        }
    }
    let embeddings = |space: &Space| {
        let shown = space.run(&["show", "demo.toml", "images", "--to", "out/images"]);
        assert_eq!(shown.code, 0, "{}", shown.stderr);
        let folder = space.path().join("out/images");
        Embeddings::decode(&|name| Ok(std::fs::read(folder.join(name))?)).unwrap()
    };
    let (a, b) = (embeddings(&reference), embeddings(&space));
    assert_eq!(a.rows, b.rows);
    assert!(
        a.data
            .iter()
            .zip(&b.data)
            .all(|(x, y)| (x - y).abs() <= 1e-6)
    );
}

#[test]
fn the_demo_repeats_the_studys_pattern() {
    let space = Space::new();
    demo(&space, |text| text);
    let ran = space.run(&["exec", "demo.toml"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let top1 = |node: &str| {
        let folder = format!("out/{node}");
        assert_eq!(
            space
                .run(&["show", "demo.toml", node, "--to", &folder])
                .code,
            0
        );
        let folder = space.path().join(folder);
        Metrics::decode(&|name| Ok(std::fs::read(folder.join(name))?))
            .unwrap()
            .table
            .top1
            .percent
    };
    let plain = top1("eval@0");
    let best = top1("eval@1").max(top1("eval@2")).max(top1("eval@3"));
    assert!((60.0..=76.0).contains(&plain), "{plain}");
    assert!(best >= plain + 1.0, "attributes help: {best} after {plain}");
    assert!(top1("tuned_eval") >= plain + 4.0, "fine-tuning helps");
}
