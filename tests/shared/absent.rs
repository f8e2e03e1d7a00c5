//! Without data or models, or with a cache that can only be read, results are
//! still had.

use std::{io::Write as _, os::unix::fs::PermissionsExt, path::PathBuf, process::Command};

use super::{Mate, files, pipeline, team};
use crate::space::of;

/// Images and texts embedded by the demo's CLIP, and a classification with them.
const WITH_MODELS: &str = r#"
version = 1
name = "team"
[data.pics]
format = "cifar10"
path = "stuff/cifar-10-batches-bin"
limit = 40
[models.clip]
path = "stuff/clip"
family = "clip"
[nodes.images]
kind = "clip_encode"
model = "clip"
images = "pics.test"
[nodes.texts]
kind = "clip_encode"
model = "clip"
classes = "pics"
prompts = "a photo of a {{ class }}"
[nodes.eval]
kind = "zeroshot_eval"
images = "images"
classifier = "texts"
[tables.accuracy]
value = "eval.top1"
"#;

fn stuff(mate: &Mate) -> PathBuf {
    mate.space.path().join("stuff")
}

#[test]
fn a_checkout_without_data_or_models_plans_and_gets_what_a_teammate_finished() {
    let (_folder, ana, ben) = team();
    let demo = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("pipelines/demo");
    std::os::unix::fs::symlink(&demo, stuff(&ana)).unwrap();
    for mate in [&ana, &ben] {
        mate.space.write("p.toml", WITH_MODELS);
    }
    let (ran, _) = ana.exec(&[]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let table = ran.stdout;

    ben.plans_to_fetch(3);
    let (ran, happened) = ben.exec(&[]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    for node in ["images", "texts", "eval"] {
        assert_eq!(of(&happened, node), "hit", "{node}");
    }
    assert_eq!(ran.stdout, table);
    assert!(ran.stderr.contains("not all here"), "{}", ran.stderr);
    for node in ["images", "eval"] {
        let shown = ben.space.run(&["show", "p.toml", node]);
        assert!(
            shown.stdout.contains("signed    by ana-1"),
            "{}",
            shown.stderr
        );
    }
    // What nobody finished cannot be had, and the reason is the missing file.
    ben.space
        .write("p.toml", &WITH_MODELS.replace("a photo of", "a drawing of"));
    let (ran, happened) = ben.exec(&[]);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert_eq!(of(&happened, "texts"), "failed");
    assert!(ran.stderr.contains("stuff"), "{}", ran.stderr);
    // Alone, an absent file is told before anything runs.
    let (ran, _) = ben.exec(&["--offline"]);
    assert_eq!(ran.code, 3, "{}", ran.stderr);
}

/// Runs the program in Ana's project as somebody who may not write in her cache: as another user
/// where this one may write everywhere. Nothing where that cannot be done.
fn as_reader(ana: &Mate, args: &[&str]) -> Option<(i32, String)> {
    let cache = ana.space.cache();
    let home = ana.space.path().join("reader");
    let mut command = ana.space.command(args);
    if std::fs::write(cache.join("probe"), "").is_ok() {
        std::fs::remove_file(cache.join("probe")).unwrap();
        let open = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(ana.space.path(), open.clone()).unwrap();
        std::fs::create_dir_all(&home).unwrap();
        std::fs::set_permissions(&home, open).unwrap();
        let mut other = Command::new("setpriv");
        other
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(command.get_program())
            .args(command.get_args())
            .current_dir(ana.space.path());
        let probe = Command::new("setpriv")
            .args(["--reuid=65534", "--clear-groups"])
            .arg(command.get_program())
            .arg("--version")
            .output();
        if !probe.is_ok_and(|output| output.status.success()) {
            return None;
        }
        command = other;
    }
    let output = command
        .env_remove("RUNNER_CACHE")
        .env("RUNNER_STATE", home.join("state"))
        .env("RUNNER_CONFIG", home.join("config"))
        .env("NO_COLOR", "1")
        .output()
        .unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    Some((output.status.code().unwrap_or(-1), told))
}

#[test]
fn a_cache_that_can_only_be_read_is_used_and_what_is_new_goes_elsewhere() {
    let (_folder, ana, _) = team();
    ana.exec(&[]);
    let cache = ana.space.cache();
    let before = files(&cache, "/").len();
    let mode = |bits: u32| {
        let mut folders = vec![cache.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                }
            }
            std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(bits)).unwrap();
        }
    };
    mode(0o555);
    ana.space.write("p.toml", &pipeline("two"));
    let exec = ["exec", "p.toml", "--offline"];
    let Some((code, told)) = as_reader(&ana, &exec) else {
        let _ = std::io::stderr().write_all(b"skipped: no other user can run the program here\n");
        return;
    };
    assert_eq!(code, 0, "{told}");
    assert!(told.contains("can only be read"), "{told}");
    assert!(told.contains("2 hits, 1 ran"), "{told}");
    // What was computed is kept, in the user's own folder.
    let (code, told) = as_reader(&ana, &exec).unwrap();
    assert_eq!(code, 0, "{told}");
    assert!(
        told.contains("nothing to run") || told.contains("3 hits"),
        "{told}"
    );
    mode(0o755);
    assert_eq!(files(&cache, "/").len(), before);
}

#[test]
fn nothing_is_written_outside_a_shared_folder_whatever_others_plant_in_it() {
    let (folder, ana, ben) = team();
    ana.exec(&[]);
    let shared = folder.path().join("mount/shared");
    let outside = folder.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("file"), "untouched").unwrap();
    // In place of folders and files that the next upload writes.
    for name in ["recipes", "packs", "runs", "leases", "tmp"] {
        let _ = std::fs::remove_dir_all(shared.join(name));
        std::os::unix::fs::symlink(&outside, shared.join(name)).unwrap();
    }
    for path in files(&shared, "/objects/") {
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(outside.join("file"), &path).unwrap();
    }
    for path in files(&shared, "/actions/") {
        std::fs::remove_file(&path).unwrap();
        let made = Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
    }
    for mate in [&ben, &ana] {
        mate.space.write("p.toml", &pipeline("two"));
        let (ran, _) = mate.exec(&[]);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
    }
    let names: Vec<_> = std::fs::read_dir(&outside)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(names, ["file"]);
    assert_eq!(
        std::fs::read_to_string(outside.join("file")).unwrap(),
        "untouched"
    );
}
