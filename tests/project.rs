//! A project's `runner.toml` as a user meets it: `new`, `remote`, and what is
//! said of wrong ones.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use runner::project::{Limits, Project};

use crate::space::Space;

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(space: &Space, name: &str) -> String {
    fs::read_to_string(space.path().join(name)).unwrap()
}

/// The demo's models and images, in a project of its own.
fn with_demo(space: &Space) {
    fs::create_dir(space.path().join("pipelines")).unwrap();
    let demo = repository().join("pipelines/demo");
    std::os::unix::fs::symlink(demo, space.path().join("pipelines/demo")).unwrap();
}

#[test]
fn a_project_says_where_results_are_shared_and_what_is_kept() {
    let space = Space::new();
    let none = Project::load(space.path()).unwrap();
    assert!(none.remotes.is_empty());
    assert_eq!(none.limits, Limits::default());
    space.write(
        "runner.toml",
        "[[remote]]\nname = \"lab\"\nurl = \"../shared\"\n[[remote]]\nurl = \"s3://b/p\"\nmode = \"read\"\nrequired = true\n[cache]\nmax_age = \"2w\"\nmax_size = \"never\"\n",
    );
    let project = Project::load(space.path()).unwrap();
    let [lab, second] = &project.remotes[..] else {
        panic!("{:?}", project.remotes);
    };
    assert_eq!(
        (lab.name.as_str(), lab.write, lab.required),
        ("lab", true, false)
    );
    let beside = space.path().parent().unwrap().join("shared");
    assert_eq!(lab.folder(&project.root), Some(beside));
    assert_eq!(
        (second.name.as_str(), second.write, second.required),
        ("remote2", false, true)
    );
    assert_eq!(second.folder(&project.root), None);
    assert_eq!(project.limits.max_age, Some(Duration::from_hours(14 * 24)));
    assert_eq!(project.limits.max_size, None);
    fs::remove_file(space.path().join("runner.toml")).unwrap();
    assert_eq!(Project::load(space.path()).unwrap(), none);
}

#[test]
fn every_mistake_in_a_projects_file_is_told_at_once() {
    let folder = repository().join("tests/bad/projects");
    let mut files: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(files.len() >= 5);
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("snapshots/bad/projects");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| {
        for path in files {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let text = fs::read_to_string(&path).unwrap();
            let errors = Project::parse(Path::new("project"), &text).unwrap_err();
            let shown = errors.render(false, 100);
            assert!(!shown.contains("hunter2"), "{shown}");
            assert!(!format!("{errors:?}").contains("hunter2"), "{name}");
            insta::assert_snapshot!(name, shown);
        }
    });
}

#[test]
fn a_wrong_projects_file_has_the_exit_code_of_a_wrong_pipeline() {
    let space = Space::new();
    space.write(
        "runner.toml",
        "[[remote]]\nurl = \"s3://ana:hunter2@b\"\n[trust]\n",
    );
    space.write(
        "a.toml",
        "version = 1\n[nodes.a]\nkind = \"probe\"\nvalue = \"x\"\n",
    );
    for args in [
        &["remote", "list"][..],
        &["remote", "add", "a", "b"],
        &["check", "a.toml"],
    ] {
        let ran = space.run(args);
        assert_eq!(ran.code, 3, "{args:?}: {}", ran.stderr);
        assert!(ran.stderr.contains("2 errors"), "{}", ran.stderr);
        assert!(ran.stderr.contains("runner.toml:2:7"), "{}", ran.stderr);
        assert!(ran.stderr.contains("runner key trust"), "{}", ran.stderr);
        assert!(!ran.stderr.contains("hunter2"), "{}", ran.stderr);
    }
    let unreadable = Space::new();
    fs::write(unreadable.path().join("runner.toml"), b"# \xff\n").unwrap();
    let ran = unreadable.run(&["remote", "list"]);
    assert_eq!(ran.code, 3, "{}", ran.stderr);
    assert!(ran.stderr.contains("not UTF-8"), "{}", ran.stderr);
}

#[test]
fn remotes_are_added_listed_and_removed() {
    let space = Space::new();
    let before = "# ours\n[cache] # big\nmax_size = \"1TB\"\n";
    space.write("runner.toml", before);
    assert!(space.run(&["remote", "list"]).stdout.contains("no remotes"));
    let ran = space.run(&["remote", "add", "team", "s3://bucket/prefix"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.starts_with("next: "), "{}", ran.stderr);
    let ran = space.run(&[
        "remote",
        "add",
        "lab",
        "/mnt/lab",
        "--read-only",
        "--required",
    ]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(ran.stderr, "");
    let ran = space.run(&["remote", "add", "far", "/nowhere/at/all", "--read-only"]);
    assert!(ran.stderr.contains("is not there"), "{}", ran.stderr);
    assert_eq!(space.run(&["remote", "remove", "far"]).code, 0);
    let listed = space.run(&["remote", "list"]);
    assert_eq!(
        listed.stdout,
        "team  s3://bucket/prefix  read-write\nlab   /mnt/lab            read, required\n"
    );
    let json: serde_json::Value =
        serde_json::from_str(&space.run(&["remote", "list", "--json"]).stdout).unwrap();
    assert_eq!(
        json[1],
        serde_json::json!({"name": "lab", "url": "/mnt/lab", "mode": "read", "required": true})
    );
    assert!(read(&space, "runner.toml").starts_with(before));

    for (args, says) in [
        (["remote", "add", "team", "x"], "already"),
        (["remote", "add", "a b", "x"], "cannot be a name"),
        (["remote", "add", "c", "s4://x"], "did you mean `s3://`?"),
        (
            ["remote", "add", "c", "https://ana:hunter2@x"],
            "environment",
        ),
    ] {
        let text = read(&space, "runner.toml");
        let ran = space.run(&args);
        assert_eq!(ran.code, 2, "{args:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(says), "{args:?}: {}", ran.stderr);
        assert!(!ran.stderr.contains("hunter2"), "{}", ran.stderr);
        assert_eq!(read(&space, "runner.toml"), text);
    }
    let ran = space.run(&["remote", "remove", "taem"]);
    assert_eq!(ran.code, 2);
    assert!(
        ran.stderr.contains("did you mean `team`?"),
        "{}",
        ran.stderr
    );
    for name in ["team", "lab"] {
        let ran = space.run(&["remote", "remove", name]);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
    }
    assert_eq!(read(&space, "runner.toml"), before);
    // Nothing unfinished is left behind.
    let files: Vec<_> = fs::read_dir(space.path()).unwrap().collect();
    assert_eq!(files.len(), 1, "{files:?}");
}

#[test]
fn a_folder_is_named_from_where_the_user_stands() {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    let space = Space::new();
    fs::create_dir(space.path().join("below")).unwrap();
    let file = space.path().join("runner.toml");
    fs::rename(&file, space.path().join("below/real.toml")).unwrap();
    symlink("below/real.toml", &file).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    let ran = space
        .command(&["remote", "add", "near", "../shared"])
        .current_dir(space.path().join("below"))
        .output()
        .unwrap();
    assert!(ran.status.success(), "{ran:?}");
    assert!(read(&space, "runner.toml").contains("url = \"shared\""));
    // The link is still one, and its file has its old mode.
    assert!(file.is_symlink());
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o640
    );
}

#[test]
fn a_new_pipeline_runs_with_the_demos_models() {
    let space = Space::new();
    with_demo(&space);
    fs::remove_file(space.path().join("runner.toml")).unwrap();
    let made = space.run(&["new", "first"]);
    assert_eq!(made.code, 0, "{}", made.stderr);
    assert!(
        made.stdout
            .contains("runner exec pipelines/first.toml --profile demo"),
        "{}",
        made.stdout
    );
    let text = read(&space, "pipelines/first.toml");
    assert!(text.starts_with("#:schema schema.json\n"), "{text}");
    assert!(!text.contains(['«', '»']), "{text}");
    assert!(space.path().join("pipelines/schema.json").is_file());
    let project = Project::load(space.path()).unwrap();
    assert!(project.remotes.is_empty());

    let ran = space.run(&["check", "pipelines/first.toml", "--profile", "demo"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let ran = space.run(&["exec", "pipelines/first.toml", "--profile", "demo"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stdout.contains("in a prompt"), "{}", ran.stdout);
    assert!(space.path().join("cache/objects").is_dir());

    let again = space.run(&["new", "first"]);
    assert_eq!(again.code, 2, "{}", again.stderr);
    assert!(again.stderr.contains("\nhint: "), "{}", again.stderr);
    assert_eq!(read(&space, "pipelines/first.toml"), text);
}

/// `text` with its examples switched on: prose is behind `# `, fields behind `#`.
fn switched_on(text: &str) -> String {
    text.lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if !rest.starts_with([' ', ':']) => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect()
}

#[test]
fn the_examples_of_a_new_project_are_right() {
    let space = Space::new();
    with_demo(&space);
    fs::remove_file(space.path().join("runner.toml")).unwrap();
    assert_eq!(space.run(&["new", "first"]).code, 0);
    let text = switched_on(&read(&space, "pipelines/first.toml"));
    assert!(text.contains("\n[rounds.refine]\n"), "{text}");
    space.write("pipelines/all.toml", &text);
    let ran = space.run(&["check", "pipelines/all.toml", "--profile", "demo,small"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let text = switched_on(&read(&space, "runner.toml"));
    let project = Project::parse(space.path(), &text).unwrap();
    assert_eq!(project.remotes.len(), 1);
    // What stands there as the default is the default.
    assert_eq!(project.limits, Limits::default());
}

#[test]
fn a_new_pipeline_goes_where_it_is_wanted() {
    let space = Space::new();
    let made = space.run(&["new", "first.toml"]);
    assert_eq!(made.code, 0, "{}", made.stderr);
    assert!(!made.stdout.contains("--profile demo"), "{}", made.stdout);
    assert!(!made.stdout.contains("runner.toml"), "{}", made.stdout);
    let text = read(&space, "first.toml");
    assert!(text.contains("path = \"models/RN50.pt\""), "{text}");
    assert!(!text.contains("profiles.demo"), "{text}");
    let made = space.run(&["new", "other", "--to", "a/b/c.toml"]);
    assert_eq!(made.code, 0, "{}", made.stderr);
    let text = read(&space, "a/b/c.toml");
    assert!(text.contains("path = \"../../models/RN50.pt\""), "{text}");
    assert!(text.contains("name = \"other\""), "{text}");
    // All that is wrong is that nothing was downloaded yet.
    let ran = space.run(&["check", "a/b/c.toml"]);
    assert_eq!(ran.code, 3);
    assert!(ran.stderr.contains("runner fetch"), "{}", ran.stderr);
    let ran = space.run(&["new", "a/b"]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("cannot be a name"), "{}", ran.stderr);
}
