//! Changes to the text of a `runner.toml` that leave the rest of it as it is,
//! comments and all.

use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::{Project, RemoteSpec};
use crate::diagnostic::Diagnostics;

/// `text` with a `[[remote]]` for `spec` at its end.
///
/// # Errors
/// What is wrong with `text`, or with what it would become: a name that is
/// taken, an address that is no good.
pub fn with_remote(root: &Path, text: &str, spec: &RemoteSpec) -> Result<String, Diagnostics> {
    Project::parse(root, text)?;
    let mut out = text.to_owned();
    if !out.is_empty() && !out.ends_with('\n') {
        out.push('\n');
    }
    if !out.trim().is_empty() {
        out.push('\n');
    }
    out.push_str("[[remote]]\n");
    let quoted = |text: &str| toml::Value::from(text).to_string();
    out.push_str(&format!("name = {}\n", quoted(&spec.name)));
    out.push_str(&format!("url = {}\n", quoted(&spec.url)));
    if !spec.write {
        out.push_str("mode = \"read\"\n");
    }
    if spec.required {
        out.push_str("required = true\n");
    }
    Project::parse(root, &out)?;
    Ok(out)
}

/// `text` without the lines of the remote called `name`; `None` where there is
/// no such remote, or where it is written in a way that lines cannot be cut from.
///
/// # Errors
/// What is wrong with `text`.
pub fn without_remote(root: &Path, text: &str, name: &str) -> Result<Option<String>, Diagnostics> {
    let project = Project::parse(root, text)?;
    let Some(at) = project.remotes.iter().position(|r| r.name == name) else {
        return Ok(None);
    };
    let Some(lines) = lines_of(text, at) else {
        return Ok(None);
    };
    let (before, after) = (&text[..lines.start], &text[lines.end..]);
    // An empty line parts two sections; none is left at the end.
    let ends = after.is_empty() && before.ends_with("\n\n");
    let before = if ends {
        &before[..before.len() - 1]
    } else {
        before
    };
    let out = format!("{before}{after}");
    let mut expected = project.remotes;
    expected.remove(at);
    let left = Project::parse(root, &out)?;
    // A remote without a name is called by its place, which may have changed.
    let same = left.remotes.len() == expected.len()
        && left.limits == project.limits
        && left
            .remotes
            .iter()
            .zip(&expected)
            .all(|(a, b)| a.url == b.url);
    Ok(same.then_some(out))
}

/// The bytes of the `at`-th `[[remote]]`, from its header to its last field,
/// and the empty lines behind it.
fn lines_of(text: &str, at: usize) -> Option<std::ops::Range<usize>> {
    let table = DeTable::parse(text).ok()?.into_inner();
    let list = table.get("remote")?.get_ref();
    let DeValue::Array(list) = list else {
        return None;
    };
    let value = list.get(at)?;
    let fields = value.get_ref().as_table()?;
    let end = fields
        .iter()
        .map(|(_, value)| value.span().end)
        .max()
        .unwrap_or(value.span().end);
    let start = text[..value.span().start].rfind('\n').map_or(0, |i| i + 1);
    let header: String = text[start..].split_whitespace().next()?.to_owned();
    if !header.starts_with("[[") {
        return None;
    }
    let end = text[end..].find('\n').map_or(text.len(), |i| end + i + 1);
    let empty: usize = text[end..]
        .split_inclusive('\n')
        .take_while(|line| line.trim().is_empty())
        .map(str::len)
        .sum();
    Some(start..end + empty)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> &'static Path {
        Path::new("/x")
    }

    fn spec(name: &str, url: &str) -> RemoteSpec {
        RemoteSpec {
            name: name.to_owned(),
            url: url.to_owned(),
            write: true,
            required: false,
        }
    }

    #[test]
    fn what_was_added_can_be_read_and_removed_again() {
        for before in [
            "",
            "# mine\n",
            "[cache] # c\nmax_age = \"5d\"\n",
            "# no end",
        ] {
            let odd = RemoteSpec {
                write: false,
                required: true,
                ..spec("lab", "/mnt/a \"b\"\\c'd")
            };
            let one = with_remote(root(), before, &spec("team", "s3://bucket/a")).unwrap();
            let two = with_remote(root(), &one, &odd).unwrap();
            assert!(two.starts_with(before), "{two}");
            let project = Project::parse(root(), &two).unwrap();
            assert_eq!(project.remotes, [spec("team", "s3://bucket/a"), odd]);
            let back = without_remote(root(), &two, "lab").unwrap().unwrap();
            assert_eq!(back, one);
            let back = without_remote(root(), &back, "team").unwrap().unwrap();
            assert_eq!(back.trim_end(), before.trim_end());
        }
    }

    #[test]
    fn only_the_lines_of_the_remote_go() {
        let text = "# first\n[[remote]] # a\nurl = \"a\" # b\n\n# second\n  [[ remote ]]\nname = \"b\"\n# inside\nurl = \"\"\"\nb\"\"\"\n\n# third\n[cache] # c\nmax_size = \"never\"\n";
        assert_eq!(
            without_remote(root(), text, "remote1").unwrap().unwrap(),
            text.replace("[[remote]] # a\nurl = \"a\" # b\n\n", "")
        );
        assert_eq!(
            without_remote(root(), text, "b").unwrap().unwrap(),
            "# first\n[[remote]] # a\nurl = \"a\" # b\n\n# second\n# third\n[cache] # c\nmax_size = \"never\"\n"
        );
        assert_eq!(without_remote(root(), text, "c"), Ok(None));
    }

    #[test]
    fn a_remote_without_lines_of_its_own_is_left() {
        let text = "remote = [{ url = \"a\" }, { url = \"b\" }]\n";
        assert_eq!(without_remote(root(), text, "remote1"), Ok(None));
        // Nor does a second one go behind such a list.
        assert!(with_remote(root(), text, &spec("c", "c")).is_err());
    }

    #[test]
    fn what_would_be_wrong_is_not_written() {
        let text = with_remote(root(), "", &spec("a", "b")).unwrap();
        assert!(with_remote(root(), &text, &spec("a", "c")).is_err());
        let error = with_remote(root(), "", &spec("a", "s3://ana:hunter2@b")).unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
        assert!(with_remote(root(), "[trust]\n", &spec("a", "c")).is_err());
    }
}
