//! `trust.toml`: its text to checked domains and keys.

use std::{ops::Range, path::Path};

use serde::Deserialize;
use toml::Spanned;

use super::{Domain, PublicKey, TrustError, key};

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct File {
    pub(super) require_signatures: bool,
    pub(super) domains: Vec<Domain>,
    pub(super) revoked: Vec<PublicKey>,
}

/// What the file says as text, and where.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    require_signatures: Option<bool>,
    #[serde(default)]
    pub(super) domain: Vec<RawDomain>,
    pub(super) revoked: Option<RawRevoked>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDomain {
    pub(super) name: Spanned<String>,
    pub(super) keys: Spanned<Vec<Spanned<String>>>,
    pub(super) write_as: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRevoked {
    pub(super) keys: Spanned<Vec<Spanned<String>>>,
}

/// Reads the text of the file at `path`, and where things are in it.
pub(super) fn raw(path: &Path, text: &str) -> Result<Raw, TrustError> {
    toml::from_str(text).map_err(|error| {
        let message = error.message().replace('\n', "; ");
        wrong(path, text, error.span(), message)
    })
}

/// Reads the text of the file at `path`.
pub(super) fn parse(path: &Path, text: &str) -> Result<File, TrustError> {
    let raw = raw(path, text)?;
    let at = |span: Range<usize>, message: String| wrong(path, text, Some(span), message);
    let mut all: Vec<PublicKey> = Vec::new();
    let mut keys = |list: &Spanned<Vec<Spanned<String>>>| {
        let mut keys = Vec::new();
        for spanned in list.get_ref() {
            let key: PublicKey = spanned
                .get_ref()
                .parse()
                .map_err(|error: TrustError| at(spanned.span(), error.to_string()))?;
            // One name would let a person revoke one key and believe another.
            if let Some(other) = all.iter().find(|other| conflict(other, &key)) {
                let message = if other.name == key.name {
                    format!(
                        "there are two keys `{}`\nhint: ask its owner for the right one, \
                         as `runner key show` prints it, and remove the other",
                        key.name
                    )
                } else {
                    format!(
                        "`{}` and `{}` are one key\nhint: keep one of the names",
                        other.name, key.name
                    )
                };
                return Err(at(spanned.span(), message));
            }
            all.push(key.clone());
            keys.push(key);
        }
        Ok(keys)
    };
    let mut domains: Vec<Domain> = Vec::new();
    for raw in &raw.domain {
        let name = key::domain_name(raw.name.get_ref())
            .map_err(|error| at(raw.name.span(), error.to_string()))?;
        if domains.iter().any(|other| other.name == name) {
            let message = format!("there are two domains `{name}`\nhint: put all keys into one");
            return Err(at(raw.name.span(), message));
        }
        let keys = keys(&raw.keys)?;
        if let Some(own) = &raw.write_as {
            if !keys.iter().any(|key| key.name == *own.get_ref()) {
                let message = "`write_as` names no key of this domain\n\
                               hint: the name of one in `keys`, such as `ana-1`";
                return Err(at(own.span(), message.to_owned()));
            }
            if let Some(other) = domains.iter().find(|other| other.write_as.is_some()) {
                let message = format!(
                    "the domain `{}` has `write_as` too\nhint: own records go to one domain",
                    other.name
                );
                return Err(at(own.span(), message));
            }
        }
        domains.push(Domain {
            name: name.to_owned(),
            keys,
            write_as: raw.write_as.as_ref().map(|own| own.get_ref().clone()),
        });
    }
    let revoked = match &raw.revoked {
        Some(revoked) => keys(&revoked.keys)?,
        None => Vec::new(),
    };
    Ok(File {
        require_signatures: raw.require_signatures.unwrap_or(true),
        domains,
        revoked,
    })
}

/// Whether only one of two keys can be right: one name, two keys, or two names, one key.
pub(super) fn conflict(a: &PublicKey, b: &PublicKey) -> bool {
    (a.name == b.name) != a.has_bytes_of(b)
}

fn wrong(path: &Path, text: &str, span: Option<Range<usize>>, message: String) -> TrustError {
    let before = span.and_then(|span| text.get(..span.start));
    TrustError::File {
        path: path.to_owned(),
        line: before.map(|before| before.matches('\n').count() + 1),
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANA: &str = "ana-1:6kpsY+KcUgq+9VB7Ey7F+ZVHdq6+vnuSQh7qaRRG0iw=";
    const BOB: &str = "bob-1:iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w=";

    fn read(text: &str) -> Result<File, String> {
        parse(Path::new("/c/trust.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn the_documented_file_is_read() {
        let text = format!(
            "require_signatures = false\n[[domain]]\nname = \"lab\"\nkeys = [\"{ANA}\"]\n\
             write_as = \"ana-1\"\n[revoked]\nkeys = [\"{BOB}\"]\n"
        );
        let file = read(&text).unwrap();
        assert!(!file.require_signatures);
        assert_eq!(file.domains.len(), 1);
        assert_eq!(file.domains[0].name, "lab");
        assert_eq!(file.domains[0].keys[0].to_string(), ANA);
        assert_eq!(file.domains[0].write_as.as_deref(), Some("ana-1"));
        assert_eq!(file.revoked[0].to_string(), BOB);
        let empty = read("").unwrap();
        assert!(empty.require_signatures && empty.domains.is_empty());
    }

    #[test]
    fn a_wrong_file_is_refused_with_its_line() {
        let domain = |name: &str, keys: &str| {
            format!("[[domain]]\nname = \"{name}\"\nkeys = [\n{keys}\n]\n")
        };
        let ana = format!("\"{ANA}\"");
        let table = [
            ("require_signature = true".to_owned(), 1, "unknown field"),
            ("\n\nrequire_signatures = 1".to_owned(), 3, "boolean"),
            ("[[domain]]\nname = ".to_owned(), 2, ""),
            (
                "[[domain]]\nname = \"ana\"".to_owned(),
                1,
                "missing field `keys`",
            ),
            (domain("ana", &ana) + "trusted = true", 6, "unknown field"),
            (
                "[revoked]\nkeys = []\nnot_after = 2026-10-01".to_owned(),
                3,
                "unknown field",
            ),
            (domain("Ana", &ana), 2, "as a domain"),
            (domain("../x", &ana), 2, "as a domain"),
            (domain("..", &ana), 2, "as a domain"),
            (domain("", &ana), 2, "as a domain"),
            (domain("local", &ana), 2, "every machine's own"),
            (domain("ana", "\"ana-1\""), 4, "there is no `:` in it"),
            (
                domain("ana", &ana) + &domain("ana", ""),
                7,
                "two domains `ana`",
            ),
            (
                domain("ana", &ana) + "write_as = \"ana-2\"",
                6,
                "no key of this domain",
            ),
            (
                format!(
                    "{0}write_as = \"ana-1\"\n{1}write_as = \"ana-1\"",
                    domain("ana", &ana),
                    domain("lab", &ana)
                ),
                12,
                "has `write_as` too",
            ),
            (
                domain("ana", &ana) + &domain("bob", &format!("\"{}\"", BOB.replace("bob", "ana"))),
                9,
                "two keys `ana-1`",
            ),
            (
                domain("ana", &ana) + &domain("bob", &ana.replace("ana", "bob")),
                9,
                "`ana-1` and `bob-1` are one key",
            ),
            (
                domain("ana", &ana) + &format!("[revoked]\nkeys = [{}]", ana.replace("-1", "-2")),
                7,
                "are one key",
            ),
        ];
        for (text, line, reason) in table {
            let error = read(&text).unwrap_err();
            let place = format!("read `/c/trust.toml`, line {line}: ");
            assert!(error.starts_with(&place), "{text}\n{error}");
            assert!(error.contains(reason), "{text}\n{error}");
        }
        // One key may write in two domains, and stand in one twice.
        read(&(domain("ana", &format!("{ana},{ana}")) + &domain("lab", &ana))).unwrap();
    }
}
