//! Pinned keys: a change of what counts, or of how it is hashed, has to be made
//! on purpose, because it makes every store in use a miss.

use crate::space::Space;

#[test]
fn keys_of_a_small_graph_stay_what_they_are() {
    let space = Space::new();
    space.write(
        "p.toml",
        r#"
version = 1
name = "keys"
[nodes.first]
kind = "probe"
value = "one"
[nodes.second]
kind = "probe"
value = "two"
milliseconds = 1
inputs = ["first"]
"#,
    );
    assert_eq!(space.run(&["exec", "p.toml"]).code, 0);
    let plan = space.run(&["plan", "p.toml", "--json"]);
    let plan: serde_json::Value = serde_json::from_str(&plan.stdout).unwrap();
    let keys: Vec<&str> = plan["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| node["key"].as_str().unwrap())
        .collect();
    insta::assert_debug_snapshot!(keys);
}

#[test]
fn every_declared_field_is_in_the_key_and_no_exec_field() {
    let space = Space::new();
    let key = |extra: &str| {
        space.write(
            "p.toml",
            &format!("version = 1\nname = \"keys\"\n[nodes.a]\nkind = \"probe\"\n{extra}\n"),
        );
        let plan = space.run(&["plan", "p.toml", "--json"]);
        let plan: serde_json::Value = serde_json::from_str(&plan.stdout).unwrap();
        plan["nodes"][0]["key"].as_str().unwrap().to_owned()
    };
    let base = key("");
    for field in [
        "value = \"x\"",
        "constant = true",
        "items = [\"x\"]",
        "milliseconds = 3",
        "fail = \"x\"",
        "panic = \"x\"",
    ] {
        assert_ne!(key(field), base, "{field}");
    }
    for field in [
        "exec = { batch = 3 }",
        "exec = { device = \"cpu\" }",
        "value = \"\"",
        "milliseconds = 0",
    ] {
        assert_eq!(key(field), base, "{field}");
    }
}
