//! Addresses of remotes: which are known, and none with a secret in it.

use std::{ops::Range, path::PathBuf};

use crate::reading::misplaced::{CREDENTIALS, in_remote};

/// Ways to reach a remote; everything else is a folder.
const SCHEMES: &[&str] = &["s3", "gs", "az", "http", "https", "file"];

/// The label of an address with a part that must not be shown.
pub(super) const HIDDEN: &str = "hidden here";

/// What is wrong with an address.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Problem {
    /// In one line; never with what should be hidden.
    pub(super) message: String,
    /// A few words under the line.
    pub(super) label: &'static str,
    /// How to mend it.
    pub(super) hint: String,
}

impl Problem {
    fn new(message: impl Into<String>, label: &'static str, hint: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            label,
            hint: hint.into(),
        }
    }
}

/// Checks that `address` can be used.
pub(super) fn check(address: &str) -> Result<(), Problem> {
    if address.contains(char::is_control) {
        return Err(Problem::new(
            "an address of a remote has no line breaks and control characters",
            "not a plain text",
            "write it in one line",
        ));
    }
    let Some((scheme, rest)) = address.split_once("://") else {
        return check_folder(address);
    };
    if !secrets(address).is_empty() {
        return Err(Problem::new(
            "an address of a remote holds no user, password or query",
            HIDDEN,
            CREDENTIALS,
        ));
    }
    if !SCHEMES.contains(&scheme) {
        let close = crate::reading::names::nearest(scheme, SCHEMES.iter().copied());
        return Err(Problem::new(
            format!("`{scheme}://` is no way to reach a remote"),
            "unknown scheme",
            close.map_or_else(
                || {
                    "a remote is a folder, or starts with s3://, gs://, az://, https:// or http://"
                        .to_owned()
                },
                |close| format!("did you mean `{close}://`?"),
            ),
        ));
    }
    if rest.contains('#') {
        return Err(Problem::new(
            "an address of a remote has no `#`",
            "not used",
            "leave out all from the `#` on",
        ));
    }
    if scheme == "file" {
        return match folder(address) {
            Some(_) => Ok(()),
            None => Err(Problem::new(
                format!("`{address}` names no folder"),
                "three slashes are needed",
                "write file:///the/whole/path, or a path alone",
            )),
        };
    }
    let host = rest.split('/').next().unwrap_or_default();
    if host.is_empty() {
        let what = if scheme.starts_with("http") {
            "host"
        } else {
            "bucket"
        };
        return Err(Problem::new(
            format!("`{address}` names no {what}"),
            "nothing behind `//`",
            format!("write {scheme}://{}/prefix", what.to_uppercase()),
        ));
    }
    if address.contains(char::is_whitespace) {
        return Err(Problem::new(
            "an address of a remote has no spaces",
            "spaces",
            "write %20 for a space",
        ));
    }
    Ok(())
}

fn check_folder(address: &str) -> Result<(), Problem> {
    if address.trim().is_empty() {
        return Err(Problem::new(
            "a remote's `url` is empty",
            "nothing here",
            "write a folder such as \"../shared-cache\", or an address such as \"s3://bucket/prefix\"",
        ));
    }
    if address.starts_with('~') {
        return Err(Problem::new(
            "`~` does not stand for a home folder here",
            "means another folder for everybody",
            "write the whole path, or one from the project's root",
        ));
    }
    for (sign, lacks) in [(":", "two slashes"), ("//", "colon")] {
        if let Some((scheme, rest)) = address.split_once(sign)
            && SCHEMES.contains(&scheme)
        {
            let label = if rest.contains('@') {
                HIDDEN
            } else {
                "no folder and no URL"
            };
            return Err(Problem::new(
                format!("`{scheme}{sign}` lacks its {lacks}"),
                label,
                format!("write {scheme}://…"),
            ));
        }
    }
    Ok(())
}

/// The folder that `address` is, if it is one.
pub(super) fn folder(address: &str) -> Option<PathBuf> {
    if let Some(path) = address.strip_prefix("file://") {
        return path.starts_with('/').then(|| decoded(path)).flatten();
    }
    (!address.contains("://")).then(|| PathBuf::from(address))
}

/// `path` with the bytes that `%20` and the like stand for.
fn decoded(path: &str) -> Option<PathBuf> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&first, mut after)) = rest.split_first() {
        if first == b'%' {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            after = &after[2..];
        } else {
            bytes.push(first);
        }
        rest = after;
    }
    String::from_utf8(bytes).ok().map(PathBuf::from)
}

/// `text` with `*` for every byte that may be part of a secret, so that places
/// in it stay where they are. This looks at the text alone, since a file with
/// a mistake is the one that gets shown; it is for people, not for reading.
pub(super) fn masked(text: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        for range in secrets(line).into_iter().chain(assigned(line)) {
            bytes[start + range.start..start + range.end].fill(b'*');
        }
        start += line.len();
    }
    String::from_utf8(bytes).unwrap_or_else(|_| "*".repeat(text.len()))
}

/// The parts of the URLs in `line` that may be a user, a password or a query.
fn secrets(line: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(at) = line[from..].find("://") {
        let start = from + at + 3;
        let length = line[start..]
            .find(['"', '\'', '`', '\n', '\r'])
            .unwrap_or(line.len() - start);
        let url = &line[start..start + length];
        let host = &url[..url.find(['/', '?', '#']).unwrap_or(url.len())];
        // A `/` in a password ends the host early; what stands before it is no port then.
        let odd = host
            .rsplit_once(':')
            .is_some_and(|(_, port)| !port.bytes().all(|b| b.is_ascii_digit()));
        if host.contains('@') || odd {
            found.push(start..start + url.rfind('@').unwrap_or(url.len()));
        }
        if let Some(query) = url.find('?') {
            found.push(start + query + 1..start + url.len());
        }
        found.retain(|range| !range.is_empty());
        from = start;
    }
    found
}

/// The strings in `line` that are given to a field with the name of a secret.
fn assigned(line: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    for (equals, _) in line.match_indices('=') {
        let before = line[..equals].trim_end().trim_end_matches(['"', '\'']);
        let name = before
            .rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-')
            .next()
            .unwrap_or_default();
        if in_remote(name) != Some(CREDENTIALS) {
            continue;
        }
        let value = line[equals + 1..].trim_start();
        let inner = value.trim_start_matches(['"', '\'']);
        let start = line.len() - inner.len();
        let end = inner.find(['"', '\'', '\n', '\r']).unwrap_or(inner.len());
        found.push(start..start + end);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked() {
        for good in [
            "../shared-cache",
            "/mnt/lab/cache",
            "file:///mnt/lab/a%20b",
            "s3://bucket",
            "s3://bucket/prefix/deeper",
            "gs://bucket/a",
            "az://container/a",
            "https://example.org:8443/cache/a@b",
            "http://[::1]:8080/cache",
            "a:b",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        let cases = [
            ("", "empty"),
            ("~/cache", "`~`"),
            ("s4://bucket", "did you mean `s3://`?"),
            ("ftp://host/a", "a remote is a folder"),
            ("s3:bucket", "lacks its two slashes"),
            ("s3//bucket/a", "`s3//` lacks its colon"),
            ("s3://", "names no bucket"),
            ("https:///a", "names no host"),
            ("file://a/b", "names no folder"),
            ("file:///a%zz", "names no folder"),
            ("s3://bucket/a b", "no spaces"),
            ("s3://bucket/a#b", "no `#`"),
            ("s3://bucket/\u{1b}[2J", "control characters"),
        ];
        for (wrong, says) in cases {
            let problem = check(wrong).unwrap_err();
            let text = format!("{} {}", problem.message, problem.hint);
            assert!(text.contains(says), "{wrong}: {text}");
            assert_ne!(problem.label, HIDDEN, "{wrong}");
        }
    }

    #[test]
    fn secrets_are_found_and_never_repeated() {
        for wrong in [
            "s3://hunter2@bucket",
            "https://ana:hunter2@host/a",
            "https://ana:hunter2/x@host/a",
            "s3://ana:hunter2",
            "https://host/a?sig=hunter2",
            "az://container/a?sv=1&sig=hunter2",
        ] {
            let problem = check(wrong).unwrap_err();
            assert_eq!(problem.label, HIDDEN, "{wrong}");
            assert_eq!(problem.hint, CREDENTIALS);
            assert!(!format!("{problem:?}").contains("hunter2"), "{wrong}");
            let line = format!("x = 1\nurl = \"{wrong}\" # é\n");
            let shown = masked(&line);
            assert_eq!(shown.len(), line.len());
            assert!(!shown.contains("hunter2"), "{shown}");
            assert!(shown.ends_with("\" # é\n"), "{shown}");
        }
        for line in [
            "password = \"hunter2\"",
            "AWS_SECRET_ACCESS_KEY='hunter2'",
            "{ url = \"s3://a\", \"token\" = \"hunter2\" }",
            "secret = \"\"\"hunter2\"\"\"",
            "token = hunter2",
        ] {
            assert!(!masked(line).contains("hunter2"), "{line}");
        }
        let fine = "name = \"token-store\"\nurl = \"https://host:80/a@b\"";
        assert_eq!(masked(fine), fine);
    }

    #[test]
    fn folders_are_told_from_urls() {
        assert_eq!(folder("../a"), Some(PathBuf::from("../a")));
        assert_eq!(folder("file:///a%20b"), Some(PathBuf::from("/a b")));
        assert_eq!(folder("s3://a"), None);
    }
}
