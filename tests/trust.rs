//! `runner key` as a user runs it.

use std::{fs, os::unix::fs::PermissionsExt as _};

use runner::trust::{Subject, Trust};

use crate::space::{Ran, Space};

/// What `args` print; they must work.
fn stdout(space: &Space, args: &[&str]) -> String {
    let Ran {
        code,
        stdout,
        stderr,
    } = space.run(args);
    assert_eq!(code, 0, "{args:?}: {stderr}");
    assert_eq!(stderr, "", "{args:?}");
    stdout
}

/// What `args` say of why they do nothing, being wrong.
fn usage(space: &Space, args: &[&str]) -> String {
    let before = trust_file(space);
    let ran = space.run(args);
    assert_eq!(ran.code, 2, "{args:?}: {}", ran.stderr);
    assert_eq!(ran.stdout, "", "{args:?}");
    assert!(ran.stderr.contains("\nhint: "), "{}", ran.stderr);
    assert_eq!(trust_file(space), before, "{args:?}");
    ran.stderr
}

fn trust_file(space: &Space) -> Option<String> {
    fs::read_to_string(space.path().join("config/trust.toml")).ok()
}

fn trust(space: &Space) -> Trust {
    Trust::load(&space.path().join("config")).unwrap()
}

/// The command that `text` says to give to teammates.
fn told(text: &str) -> Vec<&str> {
    let line = text.lines().find(|line| line.contains("  runner key "));
    line.unwrap().split_whitespace().skip(1).collect()
}

#[test]
fn teammates_believe_each_other_after_one_line_each() {
    let (ana, bob) = (Space::new(), Space::new());
    let made = stdout(&ana, &["key", "new", "--name", "ana"]);
    assert!(made.starts_with("made the key `ana-1`"), "{made}");
    let trusted = stdout(&bob, &told(&made));
    assert_eq!(trusted, "trusted `ana-1` in the domain `ana`\n");
    let again = stdout(&bob, &told(&made));
    assert_eq!(again, "`ana-1` was trusted in the domain `ana` already\n");
    // `show` gives the same line, for a teammate who comes later.
    let shown = stdout(&ana, &["key", "show"]);
    assert_eq!(told(&shown), told(&made));

    let writes = trust(&ana);
    let writer = writes.writer().unwrap();
    assert_eq!(writer.domain, "ana");
    let line = writer.key.sign(Subject::Run, "a run");
    let reads = trust(&bob);
    assert!(reads.writer().is_none());
    let signer = reads.check(Subject::Run, "ana", "a run", &[&line]).unwrap();
    assert_eq!(signer.name, "ana-1");

    // A second key: the first stays good, the second is good once it is given.
    let rotated = stdout(&ana, &["key", "new"]);
    assert!(rotated.starts_with("made the key `ana-2`"), "{rotated}");
    assert!(rotated.contains("`ana-1` signs no more"), "{rotated}");
    let newer = trust(&ana);
    let second = newer.writer().unwrap().key.sign(Subject::Run, "a run");
    let refused = trust(&bob).check(Subject::Run, "ana", "a run", &[&second]);
    assert_eq!(
        refused.unwrap_err().to_string(),
        "it is signed by `ana-2`, which is no trusted key of its domain"
    );
    stdout(&bob, &told(&rotated));
    let signer = trust(&bob).check(Subject::Run, "ana", "a run", &[&second]);
    assert_eq!(signer.unwrap().name, "ana-2");

    // The first was stolen.
    let revoked = stdout(&ana, &["key", "revoke", "ana-1"]);
    stdout(&bob, &told(&revoked));
    let refused = trust(&bob).check(Subject::Run, "ana", "a run", &[&line]);
    assert_eq!(
        refused.unwrap_err().to_string(),
        "it is signed by `ana-1`, whose key was revoked"
    );
    let trusted = usage(&bob, &told(&made));
    assert!(
        trusted.contains("trust `ana-1`: it was revoked"),
        "{trusted}"
    );
}

#[test]
fn a_domain_that_a_team_shares_is_named_in_the_line_for_teammates() {
    let (ana, bob) = (Space::new(), Space::new());
    let made = stdout(&ana, &["key", "new", "--name", "ana", "--domain", "lab"]);
    stdout(&bob, &told(&made));
    let list = stdout(&bob, &["key", "show", "--json"]);
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    assert_eq!(list["own"], serde_json::Value::Null);
    assert_eq!(list["require_signatures"], true);
    assert_eq!(list["domains"][0]["name"], "lab");
    let key = list["domains"][0]["keys"][0].as_str().unwrap();
    assert!(made.contains(key), "{key}: {made}");
    stdout(&bob, &["key", "new", "--name", "bob", "--domain", "lab"]);
    let list = stdout(&bob, &["key", "show", "--json"]);
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    assert_eq!(list["own"]["domain"], "lab");
    assert_eq!(list["own"]["signs"], true);
    assert_eq!(list["domains"][0]["keys"].as_array().unwrap().len(), 2);
}

#[test]
fn wrong_words_change_nothing_and_say_why() {
    let space = Space::new();
    let made = stdout(&space, &["key", "new", "--name", "ana"]);
    let line = told(&made)[2];
    let (_, bytes) = line.split_once(':').unwrap();
    let short = &line[..line.len() - 4];
    let other = "ana-1:6kpsY+KcUgq+9VB7Ey7F+ZVHdq6+vnuSQh7qaRRG0iw=";
    let renamed = format!("eve-1:{bytes}");
    for (args, reason) in [
        (vec!["new", "--name", "Ana"], "use `Ana-1` as a key's name"),
        (vec!["new", "--name", "a/b"], "use `a/b-1` as a key's name"),
        (vec!["new", "--domain", ".."], "use `..` as a domain"),
        (vec!["new", "--domain", "local"], "every machine's own"),
        (vec!["new", "--domain", "lab"], "yours is `ana`"),
        (vec!["trust", "ana-1"], "there is no `:` in it"),
        (
            vec!["trust", short],
            "what follows `:` is not 32 bytes in base 64",
        ),
        (vec!["trust", other], "another key of this name is here"),
        (vec!["trust", &renamed], "the same key is here as `ana-1`"),
        (vec!["trust", line, "--domain", "A"], "use `A` as a domain"),
        (vec!["revoke", "bob-1"], "revoke `bob-1`: there is no such"),
        (vec!["revoke", "bob"], "use `bob` as a key's name"),
        (vec!["untrust", "bob-1"], "no domain has such a key"),
        (vec!["untrust", "ana-1"], "your own records are signed"),
    ] {
        let args = [vec!["key"], args].concat();
        let message = usage(&space, &args);
        assert!(message.contains(reason), "{args:?}: {message}");
    }
    // A secret that is pasted where a public key belongs is not printed.
    let path = space.path().join("config/keys/ana-1.key");
    let secret = fs::read_to_string(path).unwrap();
    let message = usage(&space, &["key", "trust", secret.trim_end()]);
    assert!(
        message.contains("use a secret key as a public one"),
        "{message}"
    );
    let bytes = secret.trim_end().split_once(':').unwrap().1;
    assert!(!message.contains(&bytes[..8]), "{message}");
}

#[test]
fn a_secret_key_is_in_no_output_and_for_nobody_else() {
    let space = Space::new();
    let mut all = stdout(&space, &["key", "new", "--name", "ana"]);
    all += &stdout(&space, &["key", "show"]);
    all += &stdout(&space, &["key", "show", "--json"]);
    all += &stdout(&space, &["-vv", "key", "revoke", "ana-1"]);
    all += &trust_file(&space).unwrap();
    let path = space.path().join("config/keys/ana-1.key");
    let secret = fs::read_to_string(&path).unwrap();
    let bytes = secret.trim_end().split_once(':').unwrap().1;
    assert_eq!(bytes.len(), 44);
    assert!(!all.contains(&bytes[..8]), "{all}");
    assert!(all.contains("it was your key; `runner key new`"), "{all}");

    stdout(&space, &["key", "new"]);
    let path = space.path().join("config/keys/ana-2.key");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let ran = space.run(&["key", "show"]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr.contains("may read it\nhint: chmod 600"),
        "{}",
        ran.stderr
    );
}

#[test]
fn what_is_trusted_comes_from_the_users_folder_and_not_from_the_project() {
    let space = Space::new();
    let theirs = Space::new();
    let made = stdout(&theirs, &["key", "new", "--name", "eve"]);
    let text = trust_file(&theirs).unwrap();
    for name in [
        "trust.toml",
        ".config/runner/trust.toml",
        "runner/trust.toml",
    ] {
        let path = space.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, &text).unwrap();
    }
    let shown = stdout(&space, &["key", "show"]);
    assert!(shown.contains("you trust nobody"), "{shown}");
    assert!(shown.contains("you have no key"), "{shown}");
    // A folder that is named from here is none, and none other is taken.
    let mut command = space.command(&["key", "show"]);
    let output = command.env("RUNNER_CONFIG", "runner").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("hint: set RUNNER_CONFIG"), "{message}");
    // What a person wrote wrongly is told with its line.
    let config = space.path().join("config");
    fs::create_dir_all(&config).unwrap();
    fs::write(config.join("trust.toml"), "# mine\nrequire = false\n").unwrap();
    for args in [vec!["key", "show"], told(&made)] {
        let ran = space.run(&args);
        assert_eq!(ran.code, 1);
        assert!(
            ran.stderr
                .contains("trust.toml`, line 2: unknown field `require`"),
            "{}",
            ran.stderr
        );
    }
}

#[test]
fn every_command_for_keys_has_help_with_an_example() {
    let space = Space::new();
    for command in ["new", "show", "trust", "revoke", "untrust"] {
        let help = stdout(&space, &["key", command, "--help"]);
        let example = format!("Example: runner key {command}");
        assert!(help.contains(&example), "{help}");
    }
}
