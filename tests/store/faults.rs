//! File systems that refuse, fill up or lie, by injecting faults into system calls.

use std::{
    env,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::PathBuf,
    process::{Command, Stdio},
};

use super::{
    race::{JOB, command, job, seen, work},
    *,
};
use crate::fire::can_inject;

/// Does one node's work in another process under `strace` with these faults; says how it ended.
fn inject(root: &Path, faults: &[&str]) -> String {
    let inner = job(&["once", root.to_str().unwrap()]);
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o", "/dev/null"]);
    for fault in faults {
        strace.arg("-e").arg(format!("inject={fault}"));
    }
    let output = strace
        .arg(inner.get_program())
        .args(inner.get_args())
        .env(JOB, format!("once\n{}", root.display()))
        .stderr(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines();
    let line = lines.clone().find(|line| {
        ["done", "failed", "read only"]
            .iter()
            .any(|w| line.starts_with(w))
    });
    line.unwrap_or("died").to_owned()
}

#[test]
fn objects_are_on_the_disk_before_a_record_names_them() {
    if !can_inject() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let root = fs::canonicalize(folder.path()).unwrap();
    let log = root.join("quarantine");
    let inner = job(&["once", root.to_str().unwrap()]);
    let status = Command::new("strace")
        .args(["-f", "-qq", "-y", "-e", "trace=fsync,linkat", "-o"])
        .arg(&log)
        .arg(inner.get_program())
        .args(inner.get_args())
        .env(JOB, format!("once\n{}", root.display()))
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    let text = fs::read_to_string(&log).unwrap();
    fs::remove_file(&log).unwrap();
    // `fsync(3</STORE/tmp/x>) = 0` and `linkat(4</STORE/tmp>, "x", 5</STORE/objects/ab>, "y", 0) = 0`.
    let named = |line: &str| -> Vec<String> {
        let parts = line
            .split('<')
            .skip(1)
            .filter_map(|part| part.split_once('>'));
        let below = |path: &str| path.strip_prefix(root.to_str()?).map(str::to_owned);
        parts.filter_map(|(path, _)| below(path)).collect()
    };
    let mut synced: Vec<String> = Vec::new();
    let mut linked: Vec<(String, usize)> = Vec::new();
    let calls = |line: &&str| line.contains(" fsync(") || line.contains(" linkat(");
    for line in text.lines().filter(calls) {
        let paths = named(line);
        if line.contains("fsync(") {
            synced.push(paths[0].clone());
        } else {
            let file = format!("{}/{}", paths[0], line.split('"').nth(1).unwrap());
            assert!(
                synced.contains(&file),
                "{file} was linked before it was written: {text}"
            );
            linked.push((paths[1].clone(), synced.len()));
        }
    }
    let [.., object, record] = &linked[..] else {
        panic!("{text}");
    };
    assert!(object.0.starts_with("/objects/") && record.0.starts_with("/actions/local/"));
    for (folder, at) in [object, record] {
        let after = if folder == &object.0 {
            at..&record.1
        } else {
            at..&synced.len()
        };
        assert!(
            synced[*after.start..*after.end].contains(folder),
            "{folder}: {text}"
        );
        let parents = folder
            .match_indices('/')
            .map(|(end, _)| folder[..end].to_owned());
        for parent in parents {
            assert!(synced[..*after.end].contains(&parent), "{parent}: {text}");
        }
    }
}

#[test]
fn a_file_system_that_refuses_links_or_lies_about_them_loses_nothing() {
    if !can_inject() {
        return;
    }
    let table: [(&str, &[&str]); 9] = [
        ("no links", &["linkat:error=EPERM"]),
        ("links unknown", &["linkat:error=EOPNOTSUPP"]),
        ("too many links", &["linkat:error=EMLINK"]),
        (
            "no careful renaming either",
            &["linkat:error=EPERM", "renameat2:error=EINVAL"],
        ),
        ("says that the name is taken", &["linkat:error=EEXIST"]),
        ("says that it linked", &["linkat:retval=0"]),
        (
            "says so of renaming too",
            &["linkat:retval=0", "renameat2:retval=0"],
        ),
        ("forgets to write", &["fsync:retval=0"]),
        ("has no safe opening", &["openat2:error=ENOSYS"]),
    ];
    for (what, faults) in table {
        let folder = tempfile::tempdir().unwrap();
        for again in [false, true] {
            assert_eq!(
                inject(folder.path(), faults),
                "done",
                "{what}, again: {again}"
            );
            let store = open(folder.path());
            assert!(seen(&store, 0), "{what}");
            assert_eq!(part(&store, "tmp"), [""; 0], "{what}");
            assert_eq!(store.take_warnings(), [], "{what}");
        }
    }
    // One that lies about everything cannot be used, but is not believed.
    let folder = tempfile::tempdir().unwrap();
    let all = ["linkat:retval=0", "renameat2:retval=0", "renameat:retval=0"];
    assert!(inject(folder.path(), &all).starts_with("failed to "));
    assert!(!seen(&open(folder.path()), 0));
}

#[test]
fn an_error_at_any_call_is_told_and_leaves_nothing_wrong() {
    if !can_inject() {
        return;
    }
    let (mut failed, mut done) = (0, 0);
    for (call, error) in [
        ("write", "ENOSPC"),
        ("write", "EIO"),
        ("fsync", "EIO"),
        ("fsync", "EDQUOT"),
        ("openat2", "EMFILE"),
        ("openat2", "EACCES"),
        ("mkdirat", "ENOSPC"),
        ("linkat", "EIO"),
        ("linkat", "ENOSPC"),
        ("fchmod", "EPERM"),
    ] {
        // Each call in turn fails, and all after it, as on a disk that is full from then on.
        for from in [1, 2, 3, 4, 6, 9, 14, 20] {
            let folder = tempfile::tempdir().unwrap();
            let result = inject(
                folder.path(),
                &[&format!("{call}:error={error}:when={from}+")],
            );
            let case = format!("{call} fails by {error} from number {from}: {result}");
            let store = open(folder.path());
            let there = seen(&store, 0);
            match result.as_str() {
                "done" => {
                    done += 1;
                    assert!(there, "{case}");
                }
                // The test harness itself may be what could not write.
                "died" => assert_eq!(call, "write", "{case}"),
                text => {
                    failed += 1;
                    assert!(
                        text.starts_with("failed to ") || text.starts_with("read only"),
                        "{case}"
                    );
                }
            }
            // A plain repetition heals it.
            work(&store, 0);
            assert!(seen(&store, 0), "{case}");
            assert!(
                store.verify(false, &mut |_, _| ()).unwrap().is_clean(),
                "{case}"
            );
            assert_eq!(part(&open(folder.path()), "tmp"), [""; 0], "{case}");
        }
    }
    assert!(failed > 30 && done > 5, "{failed} failed, {done} done");
}

#[test]
fn a_writer_killed_at_each_call_leaves_nothing_wrong() {
    if !can_inject() {
        return;
    }
    let (mut died, mut kept) = (0, 0);
    for call in [
        "openat2", "write", "fchmod", "fsync", "linkat", "unlinkat", "mkdirat",
    ] {
        for at in 1..=12 {
            let folder = tempfile::tempdir().unwrap();
            let fault = format!("{call}:signal=SIGKILL:when={at}");
            let result = inject(folder.path(), &[&fault]);
            let store = open(folder.path());
            let there = seen(&store, 0);
            kept += usize::from(there);
            died += usize::from(result == "died");
            assert!(there || result != "done", "{fault}");
            assert_eq!(store.take_warnings(), [], "{fault}");
            work(&store, 0);
            assert!(seen(&store, 0), "{fault}");
            assert!(
                store.verify(false, &mut |_, _| ()).unwrap().is_clean(),
                "{fault}"
            );
            assert_eq!(part(&open(folder.path()), "tmp"), [""; 0], "{fault}");
        }
    }
    assert!(
        died > 40 && kept > 5,
        "{died} died, {kept} had finished their record"
    );
}

/// A folder that every user may enter, and this test binary in it.
fn for_everybody() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = folder.path().join("tests");
    fs::copy(env::current_exe().unwrap(), &program).unwrap();
    (folder, program)
}

#[test]
fn a_cache_that_may_not_be_written_is_read() {
    let (folder, program) = for_everybody();
    let root = folder.path().join("cache");
    let store = open(&root);
    work(&store, 0);
    let mut folders = vec![root.clone()];
    let mut all = folders.clone();
    while let Some(folder) = folders.pop() {
        let below = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        folders.extend(below.filter(|path| path.is_dir()));
        all.extend(folders.clone());
    }
    let set = |mode| {
        for path in &all {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
    };
    set(0o555);
    let mut command = command(&program, &["once", root.to_str().unwrap()]);
    if fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0) {
        // Nothing is forbidden to root; the work is done by somebody else.
        command.uid(65534).gid(65534);
    }
    let before = files(&root);
    let output = command.output().unwrap();
    set(0o755);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.lines().any(|line| line == "read only true"), "{text}");
    assert_eq!(files(&root), before);
}

#[test]
fn a_full_disk_is_told_with_a_hint() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("cache");
    drop(open(&root));
    // A limit on the size of files, of 1 block, stands for the disk.
    let inner = job(&["once", root.to_str().unwrap()]);
    let output = Command::new("sh")
        .args(["-c", r#"trap '' XFSZ; ulimit -f 1; exec "$@""#, "sh"])
        .arg(inner.get_program())
        .args(inner.get_args())
        .env(JOB, format!("once\n{}", root.display()))
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("failed to write in `"), "{text}");
    let store = open(&root);
    assert!(!seen(&store, 0));
    assert_eq!(part(&store, "tmp"), [""; 0]);
    work(&store, 0);
    assert!(seen(&store, 0));
}
