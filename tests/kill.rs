//! `kill -9` at random moments: the run after it ends as if nothing had
//! happened, and computes no finished batch a second time.

use std::{path::Path, thread::sleep, time::Duration};

use runner::artifact::{Artifact, Embeddings};

use crate::space::Space;

/// Results that are compared: the last layer of probes, and two small encodes.
const PROBES: [&str; 4] = ["n20", "n21", "n22", "n23"];
const ENCODES: [&str; 2] = ["images", "texts"];
/// Items of the probes (four nodes with twelve each), images and texts.
const ITEMS: u64 = 4 * 12 + 12 + 3;

/// Twelve probes in three layers, four of them with items, and a small encode
/// of images and texts with the demo's model.
fn pipeline() -> String {
    let demo = concat!(env!("CARGO_MANIFEST_DIR"), "/pipelines/demo");
    let mut text = format!(
        r#"
version = 1
name = "kill"
[data.pics]
format = "cifar10"
path = "{demo}/cifar-10-batches-bin"
limit = 12
[models.clip]
path = "{demo}/clip"
[nodes.images]
kind = "clip_encode"
model = "clip"
images = "pics.test"
exec = {{ batch = 3 }}
[nodes.texts]
kind = "clip_encode"
model = "clip"
classes = ["cat", "dog", "ship"]
prompts = "a photo of a {{{{ class }}}}"
exec = {{ batch = 1 }}
"#
    );
    for layer in 0..3 {
        for place in 0..4 {
            text.push_str(&format!(
                "[nodes.n{layer}{place}]\nkind = \"probe\"\nvalue = \"{layer}{place}\"\nmilliseconds = 3\n"
            ));
            if layer > 0 {
                let below = layer - 1;
                let beside = (place + 1) % 4;
                text.push_str(&format!(
                    "inputs = [\"n{below}{place}\", \"n{below}{beside}\"]\n"
                ));
            }
            if layer == 1 {
                let items: Vec<String> = (0..12).map(|i| format!("\"{place} {i}\"")).collect();
                text.push_str(&format!("items = [{}]\nbatch = 3\n", items.join(", ")));
            }
        }
    }
    text
}

fn export(space: &Space, node: &str) {
    let ran = space.run(&["show", "p.toml", node, "--to", &format!("out/{node}")]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
}

/// The probes' bytes and the encodes' embeddings.
fn results(space: &Space) -> (Vec<Vec<u8>>, Vec<Embeddings>) {
    let out = space.path().join("out");
    let probes = PROBES.map(|node| {
        export(space, node);
        std::fs::read(out.join(node).join("probe.txt")).unwrap()
    });
    let encodes = ENCODES.map(|node| {
        export(space, node);
        embeddings(&out.join(node))
    });
    (probes.into(), encodes.into())
}

fn embeddings(folder: &Path) -> Embeddings {
    Embeddings::decode(&|name| Ok(std::fs::read(folder.join(name))?)).unwrap()
}

/// Items in all packs: more than there are means that one was computed twice.
fn items(space: &Space) -> u64 {
    let stats = space.run(&["cache", "stats", "--json"]);
    let stats: serde_json::Value = serde_json::from_str(&stats.stdout).unwrap();
    stats["stats"]["items"].as_u64().unwrap()
}

/// How many kills; a longer sweep is `RUNNER_KILLS=1000`.
fn kills() -> u64 {
    std::env::var("RUNNER_KILLS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(200)
}

#[test]
fn two_hundred_kills_leave_nothing_wrong_and_lose_no_finished_batch() {
    let reference = Space::new();
    reference.write("p.toml", &pipeline());
    let begin = std::time::Instant::now();
    let ran = reference.run(&["exec", "p.toml"]);
    let mut whole = begin.elapsed().as_millis() as u64;
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let (probes, encodes) = results(&reference);
    assert_eq!(items(&reference), ITEMS);

    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut killed = 0;
    for round in 0..kills() {
        let space = Space::new();
        space.write("p.toml", &pipeline());
        // Xorshift: moments spread over a whole run and a little beyond.
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        let mut child = space.start(&["exec", "p.toml"]);
        let moment = seed % (whole + whole / 8);
        sleep(Duration::from_millis(moment));
        let _ = child.kill();
        if child.wait().unwrap().success() {
            // It was over by then: the first run was slowed by other tests.
            whole = whole.min(moment.max(1));
        } else {
            killed += 1;
        }
        let before = if space.cache().join("FORMAT").exists() {
            items(&space)
        } else {
            0
        };
        let ran = space.run(&["exec", "p.toml"]);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        let (again, embeddings) = results(&space);
        assert_eq!(again, probes);
        for (a, b) in embeddings.iter().zip(&encodes) {
            assert_eq!(a.rows, b.rows);
            assert!(
                a.data
                    .iter()
                    .zip(&b.data)
                    .all(|(x, y)| (x - y).abs() <= 1e-6)
            );
        }
        assert!(before <= ITEMS);
        assert_eq!(items(&space), ITEMS, "no finished item is computed again");
        if round % 10 == 0 {
            assert_eq!(space.run(&["cache", "verify"]).code, 0);
        }
    }
    assert!(
        killed > kills() / 2,
        "most runs were really killed: {killed}"
    );
}

#[test]
fn a_kill_at_nine_tenths_of_three_hundred_answers_loses_only_what_was_in_flight() {
    let demo = concat!(env!("CARGO_MANIFEST_DIR"), "/pipelines/demo");
    let text = format!(
        r#"
version = 1
name = "p"
[data.pics]
format = "cifar10"
path = "{demo}/cifar-10-batches-bin"
[models.llm]
path = "{demo}/llm"
[nodes.propose]
kind = "llm_generate"
model = "llm"
classes = "pics"
prompt = "attributes of a {{{{ class }}}}"
answers = 30
temperature = 1.2
json = "off"
exec = {{ batch = 8 }}
"#
    );
    let answers = |space: &Space| {
        export(space, "propose");
        std::fs::read(space.path().join("out/propose/answers.jsonl")).unwrap()
    };
    let reference = Space::new();
    reference.write("p.toml", &text);
    assert_eq!(reference.run(&["exec", "p.toml"]).code, 0);
    let space = Space::new();
    space.write("p.toml", &text);
    let mut child = space.start(&["exec", "p.toml", "--events", "events.jsonl"]);
    let written = |space: &Space| -> u64 {
        let events = space.events();
        let progress = events.iter().filter(|event| event["event"] == "progress");
        progress
            .filter_map(|event| event["done"].as_u64())
            .max()
            .unwrap_or(0)
    };
    let begun = std::time::Instant::now();
    while written(&space) < 270 && begun.elapsed() < Duration::from_mins(1) {
        sleep(Duration::from_millis(5));
    }
    let _ = child.kill();
    child.wait().unwrap();
    let (told, kept) = (written(&space), items(&space));
    assert!(
        (270..300).contains(&told),
        "{told} answers when it was killed"
    );
    // What waited for the next pack is at most one pack, or a tenth of a second.
    assert!(kept + 64 >= told, "{kept} of {told} are kept");
    let (ran, _) = space.exec(&["p.toml"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let event = (space.events().into_iter())
        .find(|event| event["event"] == "ran")
        .unwrap();
    assert_eq!(event["items"], serde_json::json!([300 - kept, kept]));
    assert_eq!(items(&space), 300);
    assert_eq!(answers(&space), answers(&reference));
}
