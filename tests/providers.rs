//! Language models that are servers and files, from outside: what is asked, what
//! is kept, what a key depends on, and what a user reads when it goes wrong.

use std::{
    process::Stdio,
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    faulty::{Act, Faulty, Seen},
    space::{Space, of},
};

const CLASSES: &str = r#"["cat", "dog", "ship", "truck", "frog"]"#;

fn pipeline(model: &str, node: &str) -> String {
    format!(
        r#"
version = 1
name = "p"
[models.llm]
{model}
[nodes.propose]
kind = "llm_generate"
model = "llm"
classes = {CLASSES}
prompt = "attributes of a {{{{ class }}}}"
attributes = 2
{node}
"#
    )
}

fn served(url: &str, more: &str, node: &str) -> String {
    pipeline(
        &format!("endpoint = \"{url}\"\nmodel = \"tiny\"\n{more}"),
        node,
    )
}

fn good(seen: &Seen) -> Act {
    let class = seen.prompt.rsplit(' ').next().unwrap_or_default();
    Act::Answer(format!(
        "{{\"feature1\": \"{class} one\", \"feature2\": \"{class} two\"}}"
    ))
}

/// The answers of the last run.
fn answers(space: &Space) -> Vec<Value> {
    let ran = space.run(&["show", "p.toml", "propose", "--to", "out"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    std::fs::read_to_string(space.path().join("out/answers.jsonl"))
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Items computed and found by the node in the last run.
fn items(space: &Space) -> Value {
    let ran = |event: &Value| event["event"] == "ran" && event["node"] == "propose";
    let events = space.events();
    events
        .iter()
        .find(|event| ran(event))
        .map_or(Value::Null, |event| event["items"].clone())
}

#[test]
fn a_server_answers_and_its_address_is_no_part_of_the_key() {
    let space = Space::new();
    let first = Faulty::start(|seen| match seen.attempt {
        // One fault that passes, one answer that is no JSON.
        0 if seen.prompt.ends_with("dog") => Act::Status(503, String::new(), "busy".to_owned()),
        0 if seen.prompt.ends_with("ship") => Act::Answer("a ship has sails".to_owned()),
        _ => good(seen),
    });
    let node = "temperature = 0.7\ntop_k = 20\nmin_p = 0.1\nstop = [\"END\"]\nmax_tokens = 77\nsystem = \"Be brief.\"";
    space.write("p.toml", &served(&first.url(), "", node));
    let (ran, happened) = space.exec(&["p.toml"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(of(&happened, "propose"), "ran");
    let list = answers(&space);
    assert_eq!(list.len(), 6, "one was asked again");
    let ship: Vec<&Value> = list.iter().filter(|a| a["class"] == "ship").collect();
    assert_eq!(
        (ship[0]["valid"].clone(), ship[0]["text"].clone()),
        (json!(false), json!("a ship has sails"))
    );
    assert_eq!(ship[1]["attributes"], json!(["ship one", "ship two"]));
    assert_eq!(ship[1]["finish"], "eos");
    assert_eq!(ship[1]["served_by"], "faulty-1");
    // What was asked for is what the node says, and no seed twice.
    let bodies: Vec<Value> = first.seen().into_iter().map(|seen| seen.body).collect();
    let asked = &bodies[0];
    assert_eq!(asked["model"], "tiny");
    assert_eq!(asked["temperature"], 0.7);
    assert_eq!(asked["top_k"], 20);
    assert_eq!(asked["min_p"], 0.1);
    assert_eq!(asked["max_tokens"], 77);
    assert_eq!(asked["stop"], json!(["END"]));
    assert_eq!(asked["messages"][0]["content"], "Be brief.");
    let seeds: std::collections::BTreeSet<String> =
        bodies.iter().map(|body| body["seed"].to_string()).collect();
    assert_eq!(
        seeds.len(),
        6,
        "one for each try, the same when a fault passed"
    );

    let second = Faulty::start(good);
    space.write("p.toml", &served(&second.url(), "parallel = 2", node));
    let (_, happened) = space.exec(&["p.toml"]);
    assert_eq!(of(&happened, "propose"), "hit");
    assert!(second.seen().is_empty());
    space.write(
        "p.toml",
        &served(&second.url(), "revision = \"2026-11\"", node),
    );
    let (_, happened) = space.exec(&["p.toml"]);
    assert_eq!(of(&happened, "propose"), "ran");
    assert_eq!(second.seen().len(), 5);
}

#[test]
fn the_key_of_a_server_is_sent_and_shows_up_nowhere() {
    const KEY: &str = "canary-7f3a91c2d4e8b605";
    let space = Space::new();
    let server = Faulty::start(|seen| match seen.attempt {
        // A server that repeats what it was sent.
        0 if seen.prompt.ends_with("cat") => {
            Act::Status(500, String::new(), format!("bad key {KEY}"))
        }
        _ => good(seen),
    });
    let text = served(&server.url(), "api_key_env = \"TEST_KEY\"", "");
    space.write("p.toml", &text);
    let absent = space.run(&["exec", "p.toml"]);
    assert_ne!(absent.code, 0);
    assert!(absent.stderr.contains("TEST_KEY"), "{}", absent.stderr);
    let out = space
        .command(&["-vv", "exec", "p.toml", "--events", "events.jsonl"])
        .env("TEST_KEY", KEY)
        .env("RUNNER_LOG", "trace")
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let authorization = &server.seen()[0].headers["authorization"];
    assert_eq!(authorization, &format!("Bearer {KEY}"));
    let told = [out.stdout, out.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(told[1].contains("500"), "the fault is told: {}", told[1]);
    for text in told {
        assert!(!text.contains(KEY), "{text}");
    }
    let mut folders = vec![space.path().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let bytes = std::fs::read(&path).unwrap();
                let found = bytes.windows(KEY.len()).any(|part| part == KEY.as_bytes());
                assert!(!found, "{}", path.display());
            }
        }
    }
}

#[test]
fn what_a_server_answered_before_it_died_is_not_asked_again() {
    let space = Space::new();
    let dying = Faulty::start(|seen| {
        if seen.before < 3 {
            good(seen)
        } else {
            Act::Status(
                401,
                String::new(),
                "{\"error\":{\"message\":\"no more\"}}".to_owned(),
            )
        }
    });
    space.write("p.toml", &served(&dying.url(), "parallel = 1", ""));
    let (ran, happened) = space.exec(&["p.toml"]);
    assert_eq!(of(&happened, "propose"), "failed");
    assert!(
        ran.stderr.contains("no more") && ran.stderr.contains("hint"),
        "{}",
        ran.stderr
    );
    let server = Faulty::start(good);
    space.write("p.toml", &served(&server.url(), "", ""));
    let (ran, _) = space.exec(&["p.toml"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(items(&space), json!([2, 3]));
    assert_eq!(server.seen().len(), 2);
}

#[test]
fn an_interrupt_ends_a_run_whose_server_hangs_and_keeps_the_rest() {
    let space = Space::new();
    let hanging = Faulty::start(|seen| {
        if seen.prompt.ends_with("frog") {
            Act::Hang
        } else {
            good(seen)
        }
    });
    space.write("p.toml", &served(&hanging.url(), "", ""));
    let mut child = space
        .command(&["exec", "p.toml"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while hanging.seen().len() < 5 && begun.elapsed() < Duration::from_secs(20) {
        sleep(Duration::from_millis(20));
    }
    // The others have long been answered.
    sleep(Duration::from_millis(500));
    let process = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(process, rustix::process::Signal::INT).unwrap();
    let asked = Instant::now();
    let status = child.wait().unwrap();
    assert!(!status.success());
    assert!(
        asked.elapsed() < Duration::from_secs(5),
        "{:?}",
        asked.elapsed()
    );
    let server = Faulty::start(good);
    space.write("p.toml", &served(&server.url(), "", ""));
    let (ran, _) = space.exec(&["p.toml"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(items(&space), json!([1, 4]));
}

#[test]
fn a_server_gets_the_schema_that_an_answer_must_have() {
    let space = Space::new();
    let server = Faulty::start(good);
    space.write("p.toml", &served(&server.url(), "", "json = \"schema\""));
    let (ran, _) = space.exec(&["p.toml"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let format = &server.seen()[0].body["response_format"];
    assert_eq!(format["type"], "json_schema");
    let required = &format["json_schema"]["schema"]["required"];
    assert_eq!(required, &json!(["feature1", "feature2"]));
}

#[test]
fn answers_of_a_file_are_parsed_cleaned_and_flagged_like_any_others() {
    let space = Space::new();
    let line = |class: &str, text: &str| json!({"class": class, "text": text}).to_string();
    let lines: Vec<String> = [
        line(
            "cat",
            r#"{"feature1": "fur_color", "feature2": "Long_Tail"}"#,
        ),
        line(
            "dog",
            "Sure!\n```json\n{\"feature1\": \"red\", \"feature2\": \"feature2\"}\n```",
        ),
        line("ship", "no JSON here"),
        line(
            "truck",
            r#"{"feature1": "big", "feature2": "a very long red thing"}"#,
        ),
        line("frog", r#"{"feature1": "green", "feature2": "wet"}"#),
    ]
    .into();
    space.write("answers.jsonl", &lines.join("\n"));
    let clean = "clean = { underscores = true, lowercase = true, drop_field_names = true }";
    space.write("p.toml", &pipeline("replay = \"answers.jsonl\"", clean));
    let (ran, _) = space.exec(&["p.toml"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("no valid answer") && ran.stderr.contains("ship"));
    let list = answers(&space);
    assert_eq!(list.len(), 5);
    assert_eq!(list[0]["attributes"], json!(["fur color", "long tail"]));
    assert_eq!(
        list[0]["flags"],
        json!([{"attribute": "fur_color", "odd": ["name_like"]}])
    );
    assert_eq!(list[1]["attributes"], json!(["red"]));
    assert_eq!(list[1]["dropped"][0]["attribute"], "feature2");
    assert_eq!(
        (&list[1]["repaired"], &list[2]["valid"]),
        (&json!(true), &json!(false))
    );
    assert_eq!(list[3]["flags"][0]["odd"], json!(["over_three_words"]));

    // Other rules read the same answers.
    space.write("p.toml", &pipeline("replay = \"answers.jsonl\"", ""));
    space.exec(&["p.toml"]);
    assert_eq!(items(&space), json!([0, 5]));
    assert_eq!(
        answers(&space)[0]["attributes"],
        json!(["fur_color", "Long_Tail"])
    );

    // More than there are.
    space.write(
        "p.toml",
        &pipeline("replay = \"answers.jsonl\"", "answers = 2"),
    );
    let (ran, happened) = space.exec(&["p.toml"]);
    assert_eq!(of(&happened, "propose"), "failed");
    assert!(
        ran.stderr.contains("answers.jsonl") && ran.stderr.contains("cat"),
        "{}",
        ran.stderr
    );
}

#[test]
fn what_one_run_wrote_can_be_replayed_in_another() {
    let space = Space::new();
    let demo = concat!(env!("CARGO_MANIFEST_DIR"), "/pipelines/demo/llm");
    let node = "temperature = 1.4\nseed = 3";
    space.write("p.toml", &pipeline(&format!("path = \"{demo}\""), node));
    let (ran, _) = space.exec(&["p.toml"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let written = answers(&space);
    assert!(written.iter().all(|answer| !answer["finish"].is_null()));
    space.write("p.toml", &pipeline("replay = \"out/answers.jsonl\"", node));
    let (ran, _) = space.exec(&["p.toml"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let key = |list: &[Value]| -> Vec<Value> {
        list.iter()
            .map(|a| {
                json!([
                    a["class"],
                    a["sample"],
                    a["attempt"],
                    a["text"],
                    a["attributes"]
                ])
            })
            .collect()
    };
    // The file is read before the artifact is written over it.
    assert_eq!(key(&answers(&space)), key(&written));
}

#[test]
fn a_local_model_can_be_held_to_a_form_and_quantised() {
    let space = Space::new();
    let demo = concat!(env!("CARGO_MANIFEST_DIR"), "/pipelines/demo/llm");
    let path = format!("path = \"{demo}\"");
    let node = "temperature = 1.4\nanswers = 10\njson = \"schema\"\nmax_chars = 20";
    space.write("p.toml", &pipeline(&path, node));
    let (ran, _) = space.exec(&["p.toml"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let list = answers(&space);
    assert_eq!(list.len(), 50, "none was asked again");
    assert!(
        list.iter()
            .all(|a| a["valid"] == true && a["repaired"] == false)
    );
    let short = |a: &Value| a.as_str().unwrap().chars().count() <= 20;
    assert!(
        list.iter()
            .flat_map(|a| a["attributes"].as_array().unwrap())
            .all(short)
    );
    let mut written = Vec::new();
    for quantize in ["nf4", "nf4-double", "int8"] {
        let model = format!("{path}\ndtype = \"bf16\"\nquantize = \"{quantize}\"");
        space.write("p.toml", &pipeline(&model, "answers = 2\njson = \"off\""));
        let (ran, happened) = space.exec(&["p.toml"]);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        assert_eq!(of(&happened, "propose"), "ran", "{quantize}");
        let texts: Vec<String> = (answers(&space).iter())
            .map(|a| a["text"].as_str().unwrap().to_owned())
            .collect();
        assert!(texts.iter().all(|text| !text.is_empty()), "{quantize}");
        written.push(texts);
    }
    assert_ne!(written[0], written[2], "4 bits and 8 are different numbers");
}

#[test]
fn fewer_rows_and_less_memory_give_the_same_answers() {
    let demo = concat!(env!("CARGO_MANIFEST_DIR"), "/pipelines/demo/llm");
    let texts = |exec: &str| {
        let space = Space::new();
        let node = format!("answers = 6\ntemperature = 1.0\nexec = {{ {exec} }}");
        space.write("p.toml", &pipeline(&format!("path = \"{demo}\""), &node));
        let (ran, _) = space.exec(&["p.toml"]);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        answers(&space)
    };
    let usual = texts("");
    assert_eq!(texts("batch = 1"), usual);
    assert_eq!(texts("kv_memory = \"4MB\""), usual);
    let space = Space::new();
    let node = "exec = { kv_memory = \"4KB\" }";
    space.write("p.toml", &pipeline(&format!("path = \"{demo}\""), node));
    let (ran, happened) = space.exec(&["p.toml"]);
    assert_eq!(of(&happened, "propose"), "failed");
    assert!(ran.stderr.contains("kv_memory"), "{}", ran.stderr);
}

#[test]
fn a_run_computes_a_damaged_result_of_its_table_again_and_a_report_says_what_it_cannot_read() {
    let space = Space::new();
    let lines: Vec<String> = ["cat", "dog", "ship", "truck", "frog"]
        .map(|class| {
            let text = json!({"feature1": format!("{class} ears"), "feature2": "red"}).to_string();
            json!({"class": class, "text": text}).to_string()
        })
        .into();
    space.write("answers.jsonl", &lines.join("\n"));
    space.write("p.toml", &pipeline("replay = \"answers.jsonl\"", ""));
    let (ran, _) = space.exec(&["p.toml"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let written = answers(&space);
    let name = blake3::hash(&std::fs::read(space.path().join("out/answers.jsonl")).unwrap())
        .to_hex()
        .to_string();
    let object = space
        .cache()
        .join("objects")
        .join(&name[..2])
        .join(&name[2..]);
    let good = std::fs::read(&object).unwrap();
    let damage = || {
        let mut bad = good.clone();
        bad[7] ^= 1;
        std::fs::remove_file(&object).unwrap();
        std::fs::write(&object, bad).unwrap();
    };

    damage();
    let ran = space.run(&["exec", "p.toml"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("ran  propose"), "{}", ran.stderr);
    assert_eq!(std::fs::read(&object).unwrap(), good);

    damage();
    let report = space.run(&["report", "p.toml"]);
    assert_eq!(report.code, 0, "{}", report.stderr);
    assert!(
        report
            .stderr
            .contains("warning: `propose`: its result is there but cannot be read"),
        "{}",
        report.stderr
    );
    let page = std::fs::read_to_string(report.stdout.trim()).unwrap();
    assert!(page.contains("its result is there but cannot be read"));
    let ran = space.run(&["exec", "p.toml"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(answers(&space), written);
}
