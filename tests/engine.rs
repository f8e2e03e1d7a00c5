//! The engine from outside, on `probe` nodes: hits, early cut-off, items,
//! failures, damage to the store, two runners at once.

use std::path::PathBuf;

use crate::space::{Space, of};

const CHAIN: &str = r#"
version = 1
name = "chain"
[params]
word = "one"
[nodes.first]
kind = "probe"
value = "${word}"
[nodes.second]
kind = "probe"
value = "two"
constant = true
inputs = ["first"]
[nodes.third]
kind = "probe"
value = "three"
inputs = ["second"]
[nodes.aside]
kind = "probe"
value = "aside"
"#;

fn objects(space: &Space) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![space.cache().join("objects")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn records(space: &Space) -> usize {
    let mut count = 0;
    let mut folders = vec![space.cache().join("actions")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                count += 1;
            }
        }
    }
    count
}

#[test]
fn a_second_run_computes_nothing() {
    let space = Space::new();
    space.write("p.toml", CHAIN);
    let (ran, happened) = space.exec(&["p.toml"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(
        happened.iter().all(|(_, word)| word == "ran"),
        "{happened:?}"
    );
    let (ran, happened) = space.exec(&["p.toml"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(happened.len(), 4);
    assert!(
        happened.iter().all(|(_, word)| word == "hit"),
        "{happened:?}"
    );
}

#[test]
fn equal_bytes_change_nothing_downstream() {
    let space = Space::new();
    space.write("p.toml", CHAIN);
    space.exec(&["p.toml"]);
    let (_, happened) = space.exec(&["p.toml", "-s", "word=other"]);
    assert_eq!(of(&happened, "first"), "ran");
    assert_eq!(of(&happened, "second"), "ran");
    assert_eq!(
        of(&happened, "third"),
        "hit",
        "`second` gave the same bytes"
    );
    assert_eq!(of(&happened, "aside"), "hit");
}

#[test]
fn names_paths_and_order_do_not_count() {
    let space = Space::new();
    space.write("p.toml", CHAIN);
    space.exec(&["p.toml"]);
    let renamed = CHAIN.replace("first", "erster").replace("chain", "kette");
    space.write("q.toml", &renamed);
    let (_, happened) = space.exec(&["q.toml"]);
    assert!(
        happened.iter().all(|(_, word)| word == "hit"),
        "{happened:?}"
    );
}

#[test]
fn writing_a_default_out_does_not_count() {
    let space = Space::new();
    space.write("p.toml", CHAIN);
    space.exec(&["p.toml"]);
    space.write(
        "p.toml",
        &CHAIN.replace(
            "value = \"aside\"",
            "value = \"aside\"\nmilliseconds = 0\nexec = { batch = 7 }",
        ),
    );
    let (ran, happened) = space.exec(&["p.toml"]);
    assert_eq!(of(&happened, "aside"), "hit", "{}", ran.stderr);
}

#[test]
fn a_failed_node_stops_only_what_needs_it() {
    let space = Space::new();
    space.write(
        "p.toml",
        &CHAIN.replace("constant = true", "fail = \"no luck\""),
    );
    let (ran, happened) = space.exec(&["p.toml"]);
    assert_eq!(ran.code, 1);
    assert_eq!(of(&happened, "first"), "ran");
    assert_eq!(of(&happened, "second"), "failed");
    assert_eq!(of(&happened, "third"), "blocked");
    assert_eq!(of(&happened, "aside"), "ran");
    assert!(ran.stderr.contains("no luck"), "{}", ran.stderr);
}

#[test]
fn a_panic_is_a_failed_node() {
    let space = Space::new();
    space.write(
        "p.toml",
        &CHAIN.replace("constant = true", "panic = \"oh dear\""),
    );
    let (ran, happened) = space.exec(&["p.toml"]);
    assert_eq!(ran.code, 1);
    assert_eq!(of(&happened, "second"), "failed");
    assert!(ran.stderr.contains("oh dear"), "{}", ran.stderr);
}

#[test]
fn a_new_item_computes_only_itself() {
    let space = Space::new();
    let items = |list: &str| {
        format!(
            "version = 1\nname = \"items\"\n[nodes.a]\nkind = \"probe\"\nitems = [{list}]\nbatch = 2\n"
        )
    };
    space.write("p.toml", &items("\"x\", \"y\", \"z\""));
    let (ran, _) = space.exec(&["p.toml"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    space.write("p.toml", &items("\"x\", \"w\", \"y\", \"z\""));
    space.exec(&["p.toml"]);
    let event = space
        .events()
        .into_iter()
        .find(|e| e["event"] == "ran")
        .unwrap();
    assert_eq!(event["items"], serde_json::json!([1, 3]));
    let shown = space.run(&["show", "p.toml", "a"]);
    assert!(shown.stdout.contains("X W Y Z"), "{}", shown.stdout);
}

#[test]
fn a_missing_object_is_computed_again() {
    let space = Space::new();
    space.write("p.toml", CHAIN);
    space.exec(&["p.toml"]);
    let before = objects(&space);
    for object in &before {
        std::fs::remove_file(object).unwrap();
        let ran = space.run(&["exec", "p.toml"]);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        assert_eq!(objects(&space), before);
    }
}

#[test]
fn a_damaged_object_is_found_and_computed_again() {
    let space = Space::new();
    space.write("p.toml", CHAIN);
    space.exec(&["p.toml"]);
    for object in objects(&space) {
        let good = std::fs::read(&object).unwrap();
        let mut bad = good.clone();
        bad[0] ^= 1;
        std::fs::remove_file(&object).unwrap();
        std::fs::write(&object, &bad).unwrap();
        // What a reader asks for is never the damaged bytes.
        for node in ["first", "second", "third", "aside"] {
            let ran = space.run(&["exec", "p.toml"]);
            assert_eq!(ran.code, 0, "{}", ran.stderr);
            let shown = space.run(&["show", "p.toml", node, "--to", "out"]);
            let _ = shown;
        }
        let verified = space.run(&["cache", "verify"]);
        assert!([0, 5].contains(&verified.code), "{}", verified.stderr);
        let ran = space.run(&["exec", "p.toml"]);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        assert_eq!(
            std::fs::read(&object).unwrap(),
            good,
            "mended with the same bytes"
        );
    }
}

#[test]
fn only_and_until_choose_nodes() {
    let space = Space::new();
    space.write("p.toml", CHAIN);
    let (ran, _) = space.exec(&["p.toml", "--only", "second"]);
    assert_eq!(ran.code, 2, "`first` is not there yet");
    let (_, happened) = space.exec(&["p.toml", "--until", "second"]);
    assert_eq!(happened.len(), 2);
    let (ran, happened) = space.exec(&["p.toml", "--only", "second"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(happened.iter().all(|(_, word)| word == "hit"));
    let (_, happened) = space.exec(&["p.toml", "--force", "first"]);
    assert_eq!(of(&happened, "first"), "ran");
    assert_eq!(of(&happened, "second"), "hit");
}

#[test]
fn plan_and_why_say_what_exec_then_does() {
    let space = Space::new();
    space.write("p.toml", CHAIN);
    assert_eq!(space.run(&["plan", "p.toml", "--check"]).code, 4);
    space.exec(&["p.toml"]);
    let plan = space.run(&["plan", "p.toml", "--check"]);
    assert_eq!(plan.code, 0, "{}", plan.stdout);
    let plan = space.run(&["plan", "p.toml", "-s", "word=other"]);
    assert!(
        plan.stdout
            .contains("run    first: value \"one\" → \"other\" (set by -s)"),
        "{}",
        plan.stdout
    );
    assert!(plan.stdout.contains("waits  second"), "{}", plan.stdout);
    let why = space.run(&["why", "p.toml", "third", "-s", "word=other"]);
    assert!(why.stdout.contains("`first`: value"), "{}", why.stdout);
}

#[test]
fn two_runners_on_an_empty_cache_both_succeed() {
    let space = Space::new();
    let mut text = "version = 1\nname = \"two\"\n".to_owned();
    for i in 0..20 {
        text.push_str(&format!(
            "[nodes.n{i}]\nkind = \"probe\"\nvalue = \"{i}\"\nmilliseconds = 10\n"
        ));
        if i > 0 {
            text.push_str(&format!("inputs = [\"n{}\"]\n", i - 1));
        }
    }
    space.write("p.toml", &text);
    let mut runners: Vec<_> = (0..2).map(|_| space.start(&["exec", "p.toml"])).collect();
    for runner in &mut runners {
        assert!(runner.wait().unwrap().success());
    }
    assert_eq!(records(&space), 20, "each key is recorded once");
    assert_eq!(space.run(&["cache", "verify"]).code, 0);
}

#[test]
fn an_up_to_date_run_notices_a_changed_file_and_a_lost_record() {
    let space = Space::new();
    space.write("p.toml", CHAIN);
    space.run(&["exec", "p.toml"]);
    std::thread::sleep(std::time::Duration::from_millis(60));
    space.run(&["exec", "p.toml"]);
    let quick = space.run(&["exec", "p.toml"]);
    assert!(
        quick.stderr.contains("4 nodes: all up to date"),
        "{}",
        quick.stderr
    );
    std::fs::remove_file(&objects(&space)[0]).unwrap();
    let ran = space.run(&["exec", "p.toml"]);
    assert!(!ran.stderr.contains("nothing to run"), "{}", ran.stderr);
    space.write("p.toml", &CHAIN.replace("\"aside\"", "\"changed\""));
    let ran = space.run(&["exec", "p.toml"]);
    assert!(!ran.stderr.contains("nothing to run"), "{}", ran.stderr);
}

#[test]
fn what_another_pipeline_adds_to_the_store_costs_an_up_to_date_run_nothing() {
    let space = Space::new();
    space.write("p.toml", CHAIN);
    space.run(&["exec", "p.toml"]);
    let own = objects(&space);
    std::thread::sleep(std::time::Duration::from_millis(60));
    space.run(&["exec", "p.toml"]);
    let other = CHAIN.replace("\"aside\"", "\"other\"");
    space.write("other.toml", &other.replace("\"chain\"", "\"more\""));
    assert_eq!(space.run(&["exec", "other.toml"]).code, 0);
    assert!(objects(&space).len() > own.len());
    let quick = |space: &Space| {
        let ran = space.run(&["exec", "p.toml"]);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        ran.stderr.contains("4 nodes: all up to date")
    };
    assert!(quick(&space));
    // Its own results are another matter, each of them.
    for object in &own {
        std::fs::remove_file(object).unwrap();
        assert!(!quick(&space), "{}", object.display());
        assert!(object.exists() && quick(&space));
    }
}

#[test]
fn an_interrupt_stops_cleanly_and_the_next_run_goes_on() {
    let space = Space::new();
    let items: Vec<String> = (0..100).map(|i| format!("\"{i}\"")).collect();
    space.write(
        "p.toml",
        &format!(
            "version = 1\nname = \"long\"\n[nodes.a]\nkind = \"probe\"\nitems = [{}]\nbatch = 2\nmilliseconds = 50\n[nodes.b]\nkind = \"probe\"\ninputs = [\"a\"]\n",
            items.join(", ")
        ),
    );
    let child = space
        .command(&["exec", "p.toml", "--events", "first.jsonl"])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let told = || std::fs::read_to_string(space.path().join("first.jsonl")).unwrap_or_default();
    let begun = std::time::Instant::now();
    while !told().contains("\"batch\"") && begun.elapsed().as_secs() < 60 {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let process = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(process, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(8), "{stderr}");
    assert!(stderr.contains("to resume, run the same again"), "{stderr}");
    let (ran, _) = space.exec(&["p.toml"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let event = space
        .events()
        .into_iter()
        .find(|e| e["event"] == "ran" && e["node"] == "a")
        .unwrap();
    let found = event["items"][1].as_u64().unwrap();
    assert!(found >= 2, "finished batches were kept: {event}");
}

#[test]
fn a_table_that_asks_for_what_is_not_measured_is_an_error_of_the_file() {
    let space = Space::new();
    let demo = concat!(env!("CARGO_MANIFEST_DIR"), "/pipelines/demo");
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/pipelines/demo.toml"))
        .unwrap();
    let prompts = concat!(env!("CARGO_MANIFEST_DIR"), "/pipelines/prompts");
    let text = text
        .replace("\"demo/", &format!("\"{demo}/"))
        .replace("\"prompts/", &format!("\"{prompts}/"))
        .replace("eval.top5", "eval.topl");
    space.write("p.toml", &text);
    let ran = space.run(&["check", "p.toml"]);
    assert_eq!(ran.code, 3, "{}", ran.stdout);
    assert!(
        ran.stderr.contains("topl") && ran.stderr.contains("hint:"),
        "{}",
        ran.stderr
    );
}
