//! Names of files that a server lists: which are wanted, and which are safe to write.

use std::{collections::BTreeSet, path::Path};

use anyhow::{Context, Result, bail, ensure};

/// Longest name of a file in a list, in bytes.
const LONGEST: usize = 1024;
/// Ends of the names of what a download keeps beside its target.
pub(super) const PART: &str = ".part";
/// See [`PART`].
pub(super) const NOTE: &str = ".part.json";

/// Checks that a server's name for a file stays inside the folder it is put in, on
/// every system.
///
/// # Errors
/// Says what is wrong with it; the name is shown with its control characters escaped.
pub(super) fn check(name: &str) -> Result<()> {
    let refused = |why: &str| format!("the server lists a file {name:?}: {why}");
    ensure!(name.len() <= LONGEST, refused("its name is too long"));
    ensure!(
        !name.chars().any(char::is_control),
        refused("its name holds a control character")
    );
    ensure!(
        !name.contains(['\\', ':']),
        refused("`\\` and `:` leave the folder on some systems")
    );
    ensure!(!name.starts_with('/'), refused("its name is absolute"));
    for piece in name.split('/') {
        ensure!(
            !matches!(piece, "" | "." | ".."),
            refused("its name leaves the folder")
        );
        ensure!(
            !piece.eq_ignore_ascii_case(".git"),
            refused("it would change a git repository")
        );
    }
    Ok(())
}

/// Checks that the files of a list can lie beside each other.
///
/// # Errors
/// When two have the same name (also where capital and small letters are the same),
/// one is another's folder, or one has the name that another's download needs.
pub(super) fn check_together<'a>(names: impl Iterator<Item = &'a str>) -> Result<()> {
    let mut files = BTreeSet::new();
    for name in names {
        ensure!(
            files.insert(name.to_lowercase()),
            "the server lists {name:?} twice"
        );
    }
    for name in &files {
        let mut end = 0;
        while let Some(at) = name[end..].find('/') {
            ensure!(
                !files.contains(&name[..end + at]),
                "the server lists {:?} both as a file and as a folder",
                &name[..end + at]
            );
            end += at + 1;
        }
        for suffix in [PART, NOTE] {
            ensure!(
                !name
                    .strip_suffix(suffix)
                    .is_some_and(|file| files.contains(file)),
                "the server lists {name:?}, the name under which another of its files is downloaded"
            );
        }
    }
    Ok(())
}

/// Makes the folders of `name` inside `root`, which may lie anywhere.
///
/// # Errors
/// When one of them is a link or no folder: a list must not lead out of `root`.
pub(super) fn make_folders(root: &Path, name: &str) -> Result<()> {
    fs_err::create_dir_all(root).context("failed to make the folder")?;
    let mut folder = root.to_owned();
    let Some((folders, _)) = name.rsplit_once('/') else {
        return Ok(());
    };
    for piece in folders.split('/') {
        folder.push(piece);
        match fs_err::symlink_metadata(&folder) {
            Ok(found) if found.is_dir() => {}
            Ok(found) if found.is_symlink() => bail!(
                "`{}` is a link, and the server's list would be written through it\n\
                 hint: put a folder in its place, or link `{}` as a whole",
                folder.display(),
                root.display()
            ),
            Ok(_) => bail!("`{}` is in the way of a folder", folder.display()),
            Err(_) => match fs_err::create_dir(&folder) {
                // Another file's download may have made it.
                Err(_) if folder.is_dir() => {}
                made => made.context("failed to make the folder")?,
            },
        }
    }
    Ok(())
}

/// Checks that a text can pick files out of a list.
///
/// # Errors
/// When it can match no name.
pub(super) fn check_pattern(pattern: &str) -> Result<()> {
    let hint = "hint: `config.json`, `*.safetensors`, `**/*.json`; `*` does not go over `/`";
    ensure!(
        !pattern.is_empty() && !pattern.ends_with('/'),
        "`{pattern}` in `files` names no file\n{hint}"
    );
    ensure!(
        !pattern.starts_with('/') && !pattern.contains('\\'),
        "`{pattern}` in `files` is no name inside a repository\n{hint}"
    );
    Ok(())
}

/// Whether a pattern is one file's name.
pub(super) fn is_plain(pattern: &str) -> bool {
    !pattern.contains(['*', '?'])
}

/// Whether `name` matches: `?` is one character and `*` any but `/`, `**` any folders.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    let pattern: Vec<&str> = pattern.split('/').collect();
    let name: Vec<&str> = name.split('/').collect();
    general(
        &pattern,
        &name,
        |piece| *piece == "**",
        |a, b| {
            let a: Vec<char> = a.chars().collect();
            let b: Vec<char> = b.chars().collect();
            general(&a, &b, |c| *c == '*', |a, b| *a == '?' || a == b)
        },
    )
}

/// Matching with a symbol for any run; goes back to the last such symbol only, which
/// is enough and takes at most the product of both lengths.
fn general<T>(
    pattern: &[T],
    text: &[T],
    is_any: impl Fn(&T) -> bool,
    is_same: impl Fn(&T, &T) -> bool,
) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut retry = None;
    while t < text.len() {
        if p < pattern.len() && is_any(&pattern[p]) {
            retry = Some((p, t));
            p += 1;
        } else if p < pattern.len() && is_same(&pattern[p], &text[t]) {
            p += 1;
            t += 1;
        } else if let Some((at, from)) = retry {
            retry = Some((at, from + 1));
            p = at + 1;
            t = from + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(is_any)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_leave_the_folder_are_refused() {
        for name in [
            "",
            "..",
            "../x",
            "a/../../x",
            "a/./x",
            "a//x",
            "/etc/passwd",
            "C:\\x",
            "C:x",
            "a\\..\\x",
            "a\0b",
            "a\nb",
            "x/",
            ".git/hooks/post-checkout",
            "a/.GIT/config",
            &"a/".repeat(600),
        ] {
            let error = format!("{:#}", check(name).unwrap_err());
            assert!(
                error.contains("the server lists") && !error.contains('\0'),
                "{error}"
            );
        }
        for name in [
            "config.json",
            "a/b/c.bin",
            "..a",
            "a..",
            ".gitattributes",
            "ü b.txt",
        ] {
            check(name).unwrap();
        }
    }

    #[test]
    fn lists_whose_files_are_in_each_others_way_are_refused() {
        for (list, reason) in [
            (vec!["a", "b", "a"], "twice"),
            (vec!["a/X", "a/x"], "twice"),
            (vec!["a", "a/b"], "both as a file and as a folder"),
            (vec!["x/y", "x/y/z/w"], "both as a file and as a folder"),
            (vec!["x", "x.part"], "another of its files is downloaded"),
            (
                vec!["x.part.json", "x"],
                "another of its files is downloaded",
            ),
        ] {
            let error = check_together(list.iter().copied())
                .unwrap_err()
                .to_string();
            assert!(error.contains(reason), "{list:?}: {error}");
        }
        check_together(["a", "b/a", "b/c", "x.part"].into_iter()).unwrap();
    }

    #[test]
    fn folders_are_not_made_through_links() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("models/clip");
        make_folders(&root, "a/b/file").unwrap();
        make_folders(&root, "a/b/file").unwrap();
        assert!(root.join("a/b").is_dir());
        let outside = folder.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        std::os::unix::fs::symlink(&outside, root.join("link")).unwrap();
        let error = make_folders(&root, "link/b/file").unwrap_err().to_string();
        assert!(error.contains("is a link"), "{error}");
        assert!(!outside.join("b").exists());
        std::fs::write(root.join("file"), "").unwrap();
        let error = make_folders(&root, "file/x").unwrap_err().to_string();
        assert!(error.contains("in the way"), "{error}");
    }

    #[test]
    fn patterns_pick_files_as_a_shell_does() {
        for (pattern, name, expected) in [
            ("config.json", "config.json", true),
            ("config.json", "a/config.json", false),
            ("*.safetensors", "model-00001-of-00002.safetensors", true),
            ("*.safetensors", "unet/model.safetensors", false),
            ("**/*.safetensors", "unet/x/model.safetensors", true),
            ("**/*.safetensors", "model.safetensors", true),
            ("unet/**", "unet/x/y", true),
            ("unet/**", "vae/x", false),
            ("model-?.bin", "model-1.bin", true),
            ("model-?.bin", "model-12.bin", false),
            ("m*a*b", "maaab", true),
            ("m*a*b", "maaac", false),
            ("*", "", true),
            ("ü?", "üé", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} and {name}");
        }
        // Would not end if every `*` were tried with every other.
        let stars = format!("{}b", "*a".repeat(50));
        assert!(!matches(&stars, &"a".repeat(1000)));
        for pattern in ["", "a/", "/a", "a\\b"] {
            assert!(check_pattern(pattern).is_err(), "{pattern}");
        }
    }
}
