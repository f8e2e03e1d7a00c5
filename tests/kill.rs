//! `kill -9` at random moments: a run after it ends as if nothing had happened,
//! and computes no finished batch a second time.

use std::{collections::BTreeMap, path::Path, thread::sleep, time::Duration};

use crate::space::Space;

/// Twelve nodes in three layers; four have items.
fn pipeline() -> String {
    let mut text = "version = 1\nname = \"kill\"\n".to_owned();
    for layer in 0..3 {
        for place in 0..4 {
            text.push_str(&format!("[nodes.n{layer}{place}]\nkind = \"probe\"\nvalue = \"{layer}{place}\"\nmilliseconds = 4\n"));
            if layer > 0 {
                text.push_str(&format!(
                    "inputs = [\"n{}{place}\", \"n{}{}\"]\n",
                    layer - 1,
                    layer - 1,
                    (place + 1) % 4
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

/// Every file below `folder` that holds a result, with its bytes.
fn results(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for node in ["n20", "n21", "n22", "n23"] {
        let path = folder.join(node).join("probe.txt");
        found.insert(node.to_owned(), std::fs::read(path).unwrap());
    }
    found
}

fn export(space: &Space) -> BTreeMap<String, Vec<u8>> {
    let out = space.path().join("out");
    let _ = std::fs::remove_dir_all(&out);
    for node in ["n20", "n21", "n22", "n23"] {
        let to = format!("out/{node}");
        let ran = space.run(&["show", "p.toml", node, "--to", &to]);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
    }
    results(&out)
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
    assert_eq!(reference.run(&["exec", "p.toml"]).code, 0);
    let expected = export(&reference);

    let mut space = Space::new();
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut survivors = 0;
    for round in 0..kills() {
        if round % 8 == 0 {
            space = Space::new();
            space.write("p.toml", &pipeline());
        }
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        let mut child = space.start(&["exec", "p.toml"]);
        sleep(Duration::from_millis(seed % 220));
        let _ = child.kill();
        if child.wait().unwrap().success() {
            survivors += 1;
        }
        if round % 8 == 7 {
            let (found, before) = batches(&space);
            let (ran, _) = space.exec(&["p.toml"]);
            assert_eq!(ran.code, 0, "{}", ran.stderr);
            assert_eq!(export(&space), expected);
            assert_eq!(space.run(&["cache", "verify"]).code, 0);
            let (_, after) = batches(&space);
            assert_eq!(after, 48, "every item is stored exactly once");
            assert!(before <= after && found.iter().all(|pack| pack.exists()));
        }
    }
    assert!(survivors < kills(), "some runs were really killed");
}

/// Packs of items, and how many items they hold in all.
fn batches(space: &Space) -> (Vec<std::path::PathBuf>, usize) {
    let mut packs = Vec::new();
    let mut folders = vec![space.cache().join("items")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                packs.push(path);
            }
        }
    }
    // The batch size is 3, and a batch is one pack.
    let items = packs.len() * 3;
    (packs, items)
}
