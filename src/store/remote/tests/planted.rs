//! A shared folder that cannot be written, and one in which others planted things.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use super::{
    super::{Body, Fault, open},
    bytes_of, skip,
};

#[test]
fn a_folder_that_is_only_read_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let denied = |fault: Fault| assert!(matches!(fault, Fault::Denied(_)), "{fault:?}");
    // Before there is anything in it, and without one.
    let remote = open("dir", ".", folder.path(), true).unwrap();
    assert_eq!(remote.get("objects/ab/one", 9), Ok(None));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    let absent = open("dir", "a/b", folder.path(), true).unwrap();
    assert!(matches!(
        absent.get("objects/ab/one", 9),
        Err(Fault::Offline(_))
    ));
    let absent = open("dir", "a/b", folder.path(), false).unwrap();
    assert!(matches!(
        absent.get("objects/ab/one", 9),
        Err(Fault::Offline(_))
    ));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);

    let writer = open("dir", ".", folder.path(), false).unwrap();
    writer
        .put_new("objects/ab/one", Body::Bytes(b"one"))
        .unwrap();
    let all = || fs::read_dir(folder.path()).unwrap().count();
    let before = all();
    let url = format!("file://{}", folder.path().display());
    let reader = open("dir", &url, Path::new("/"), true).unwrap();
    assert_eq!(reader.get("objects/ab/one", 9), Ok(Some(b"one".to_vec())));
    denied(
        reader
            .put_new("objects/ab/two", Body::Bytes(b"x"))
            .unwrap_err(),
    );
    denied(reader.replace("objects/ab/one", b"x").unwrap_err());
    denied(reader.remove("objects/ab/one").unwrap_err());
    denied(reader.now().unwrap_err());
    assert_eq!(all(), before);

    let other = tempfile::tempdir().unwrap();
    fs::write(other.path().join("thesis.tex"), "x").unwrap();
    for read_only in [true, false] {
        let error = open("dir", ".", other.path(), read_only).unwrap_err();
        assert!(error.to_string().contains("holds no cache"), "{error}");
    }
    assert_eq!(fs::read_dir(other.path()).unwrap().count(), 1);
}

/// Plants links, pipes and folders in a shared folder, and looks that nothing outside it is read
/// or written and nothing waits.
fn nothing_planted_is_followed(user: Option<u32>) {
    let folder = tempfile::tempdir().unwrap();
    let (shared, out) = (folder.path().join("shared"), folder.path().join("out"));
    fs::create_dir_all(out.join("folder/ab")).unwrap();
    fs::write(out.join("secret"), b"secret").unwrap();
    fs::write(out.join("folder/ab/one"), b"secret").unwrap();
    let remote = open("dir", "shared", folder.path(), false).unwrap();
    remote
        .put_new("objects/ab/good", Body::Bytes(b"good"))
        .unwrap();
    let snapshot = || {
        let mut all = Vec::new();
        let mut folders = vec![out.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path.clone());
                    all.push((path, Vec::new()));
                } else {
                    all.push((path.clone(), fs::read(&path).unwrap()));
                }
            }
        }
        all.sort();
        all
    };
    let before = snapshot();
    let open_up = |path: &Path| {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    };
    for path in ["", "objects", "objects/ab", "tmp"] {
        open_up(&shared.join(path));
    }
    open_up(folder.path());
    let run = |program: &str, arguments: &[&Path]| {
        let mut command = Command::new(program);
        command.args(arguments).current_dir("/");
        if let Some(user) = user {
            command.uid(user).gid(user);
        }
        assert!(
            command.status().unwrap().success(),
            "{program} {arguments:?}"
        );
    };
    let link = |to: &Path, at: &str| run("ln", &[Path::new("-s"), to, &shared.join(at)]);
    link(&out.join("secret"), "objects/ab/link");
    link(&out.join("not-yet"), "objects/ab/dangling");
    link(&out.join("folder"), "objects/ab/folderlink");
    link(&out.join("folder"), "actions");
    link(&out.join("folder/ab"), "objects/cd");
    run("mkfifo", &[&shared.join("objects/ab/pipe")]);
    run("mkdir", &[&shared.join("objects/ab/folder")]);
    run("touch", &[&shared.join("objects/ab/folder/inside")]);
    let since = Instant::now();
    let planted = [
        "objects/ab/link",
        "objects/ab/dangling",
        "objects/ab/folderlink",
        "objects/ab/pipe",
        "objects/ab/folder",
        "objects/cd/one",
        "actions/ab/one",
    ];
    for path in planted {
        let read = |fault| matches!(fault, Fault::Wrong(_));
        assert!(remote.get(path, 99).is_err_and(read), "{path}");
        assert!(
            remote.read(path, 6, &mut Vec::new()).is_err_and(read),
            "{path}"
        );
        // A folder that is a link hides what is in it.
        assert!(!matches!(remote.stat(path), Ok(Some(_))), "{path}");
    }
    let listed = remote.list("objects", 99).unwrap();
    let listed: Vec<_> = listed.iter().map(|entry| entry.path.as_str()).collect();
    assert_eq!(listed, ["objects/ab/folder/inside", "objects/ab/good"]);
    assert!(matches!(remote.list("actions", 99), Err(Fault::Wrong(_))));
    let body = bytes_of(1, 100);
    for (number, path) in planted.into_iter().enumerate() {
        let through = path.starts_with("objects/cd") || path.starts_with("actions");
        let made = if number % 2 == 0 {
            remote
                .put_new(path, Body::Bytes(&body))
                .map(|made| assert!(made, "{path}"))
        } else {
            remote.replace(path, &body)
        };
        match made {
            Ok(()) => {
                assert!(!through, "{path}");
                assert_eq!(remote.get(path, 100), Ok(Some(body.clone())), "{path}");
            }
            Err(Fault::Wrong(_) | Fault::Denied(_)) if through => {
                assert!(remote.remove(path).is_err(), "{path}");
            }
            Err(fault) => panic!("{path}: {fault}"),
        }
    }
    // Also in place of where unfinished files are written.
    run("rmdir", &[&shared.join("tmp")]);
    link(&out.join("folder"), "tmp");
    let write = remote.put_new("objects/ab/late", Body::Bytes(b"x"));
    assert!(matches!(write, Err(Fault::Wrong(_))), "{write:?}");
    let again = open("dir", "shared", folder.path(), false).unwrap();
    assert_eq!(again.get("objects/ab/good", 4), Ok(Some(b"good".to_vec())));
    assert!(again.put_new("objects/ab/late", Body::Bytes(b"x")).is_err());
    assert_eq!(snapshot(), before, "something outside was written");
    assert!(since.elapsed() < Duration::from_secs(20));
}

#[test]
fn links_and_pipes_in_a_shared_folder_are_never_followed() {
    nothing_planted_is_followed(None);
}

#[test]
fn links_and_pipes_of_another_user_are_never_followed() {
    if !rustix::process::getuid().is_root() {
        skip("run as root to plant links and pipes as another user");
        return;
    }
    nothing_planted_is_followed(Some(65534));
}
