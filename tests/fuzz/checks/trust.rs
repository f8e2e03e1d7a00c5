//! Signatures and `trust.toml`: only what the key itself signed is believed, and a change to the
//! file changes what it says and no more.

use std::{os::unix::fs::PermissionsExt as _, path::Path};

use runner::trust::{self, PublicKey, Refusal, Subject, Trust};

/// The one secret key that signs here, 32 sevens, as its file has it.
const SECRET: &str = "runner-secret ana-1:BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n";
/// Its public half.
const PUBLIC: &str = "ana-1:6kpsY+KcUgq+9VB7Ey7F+ZVHdq6+vnuSQh7qaRRG0iw=";
/// What was signed.
const LINE: &str = r#"{"key":"what ana computed"}"#;
/// What stands between the parts of an input.
const BETWEEN: &str = "\n----\n";
/// The most signatures of a document.
const MOST: usize = 16;

/// The bytes are a `trust.toml`, lines of signatures, and a key, a domain and a name to change
/// the file with, a line each.
pub fn check(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let mut parts = text.split(BETWEEN);
    let mut next = || parts.next().unwrap_or_default();
    let (file, lines, change) = (next(), next(), next());
    super::in_folder(|folder| {
        let lines: Vec<&str> = lines.lines().collect();
        let read = write(folder, file).is_some_and(|trust| believes(&trust, &lines));
        changes(folder, file, change);
        read
    })
}

/// Puts the file there, with the secret key beside it, and reads it.
fn write(folder: &Path, file: &str) -> Option<Trust> {
    let keys = folder.join("keys");
    let secret = keys.join("ana-1.key");
    if !secret.exists() {
        std::fs::create_dir_all(&keys).unwrap();
        std::fs::write(&secret, SECRET).unwrap();
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&secret, mode).unwrap();
    }
    std::fs::write(folder.join("trust.toml"), file).unwrap();
    let trust = Trust::load(folder).ok()?;
    let public: PublicKey = PUBLIC.parse().unwrap();
    if let Some(writer) = trust.writer() {
        assert_eq!(writer.key.public(), public);
        assert!(!trust.is_revoked(writer.key.name()));
    }
    let names: Vec<&str> = (trust.all_domains().iter())
        .map(|domain| domain.name.as_str())
        .collect();
    for (at, name) in names.iter().enumerate() {
        assert!(!names[..at].contains(name), "two domains `{name}`");
        assert!(*name != "local" && !name.is_empty() && !name.contains(['/', '\0']));
        assert!(*name != "." && *name != "..");
    }
    let domains = trust.all_domains().iter();
    let keys: Vec<&PublicKey> = domains
        .flat_map(|domain| &domain.keys)
        .chain(trust.revoked())
        .collect();
    let bytes = |key: &PublicKey| key.to_string().split_once(':').unwrap().1.to_owned();
    for key in &keys {
        assert_eq!(key.to_string().parse::<PublicKey>().unwrap(), **key);
        // One name, one key.
        let same =
            |other: &&PublicKey| (key.name() == other.name()) == (bytes(key) == bytes(other));
        assert!(keys.iter().all(same));
    }
    Some(trust)
}

/// Whether some domain believes the lines; whatever they are, only the key itself can have made
/// the one that counts.
fn believes(trust: &Trust, lines: &[&str]) -> bool {
    let mut believed = false;
    let good = signature();
    let mut more = lines.to_vec();
    more.push(&good);
    for domain in trust.all_domains() {
        let of =
            |subject, line: &str, lines: &[&str]| trust.check(subject, &domain.name, line, lines);
        match of(Subject::Record, LINE, &[]) {
            Ok(nobody) => assert!(!trust.require_signatures() && nobody.name == "nobody"),
            Err(refusal) => assert!(trust.require_signatures() && refusal == Refusal::Unsigned),
        }
        let known = domain.keys.iter().any(|key| key.to_string() == PUBLIC);
        let counts = known && !trust.is_revoked("ana-1");
        let result = of(Subject::Record, LINE, lines);
        if let (Ok(signer), false) = (result, lines.is_empty()) {
            assert!(counts && lines.contains(&good.as_str()));
            assert_eq!(signer.name, "ana-1");
            believed = true;
        }
        let result = of(Subject::Record, LINE, &more);
        let readable = result != Err(Refusal::Malformed);
        assert!(readable || !lines.is_empty());
        assert!(!readable || more.len() <= MOST);
        assert_eq!(result.is_ok(), counts && readable);
        let other = r#"{"key":"what ana computes"}"#;
        for (subject, line) in [
            (Subject::Record, other),
            (Subject::Pack, LINE),
            (Subject::Run, LINE),
        ] {
            assert!(of(subject, line, &more).is_err());
        }
    }
    let stranger = trust.check(Subject::Record, "no domain", LINE, &more);
    assert_eq!(stranger, Err(Refusal::UnknownDomain));
    believed
}

/// The line that signs [`LINE`].
fn signature() -> String {
    thread_local! {
        static LINES: String = {
            let folder = tempfile::tempdir().unwrap();
            let own = format!("[[domain]]\nname = \"ana\"\nkeys = [\"{PUBLIC}\"]\nwrite_as = \"ana-1\"\n");
            let trust = write(folder.path(), &own).unwrap();
            trust.writer().unwrap().key.sign(Subject::Record, LINE)
        };
    }
    LINES.with(String::clone)
}

/// Makes the changes that a person can ask for, each to the file as it was.
fn changes(folder: &Path, file: &str, change: &str) {
    let mut words = change.lines();
    let mut next = || words.next().unwrap_or_default();
    let (key, domain, name) = (next(), next(), next());
    if let Ok(key) = key.parse::<PublicKey>() {
        changed(folder, file, |before| {
            let known = |trust: &Trust| {
                let mut domains = trust.all_domains().iter();
                domains.any(|known| known.name == domain && known.keys.contains(&key))
            };
            let new = trust::add(folder, &key, domain).ok()?;
            assert_eq!(new, !known(before));
            let after = Trust::load(folder).unwrap();
            assert!(known(&after) && !after.is_revoked(key.name()));
            Some(key.name().to_owned())
        });
    }
    changed(folder, file, |before| {
        let done = trust::revoke(folder, name).ok()?;
        assert_eq!(done.already, before.revoked().contains(&done.public));
        let after = Trust::load(folder).unwrap();
        assert!(after.revoked().contains(&done.public));
        Some(done.public.name().to_owned())
    });
    changed(folder, file, |_| {
        let from = trust::remove(folder, name).ok()?;
        assert!(!from.is_empty());
        let after = Trust::load(folder).unwrap();
        let mut left = after.all_domains().iter().flat_map(|domain| &domain.keys);
        assert!(left.all(|key| key.name() != name));
        Some(name.to_owned())
    });
}

/// Makes a change, which gives the name of the key that it was about. Where it is refused, the
/// file stays as it was; where it is not, comments and what the file says of other keys do.
fn changed(folder: &Path, file: &str, change: impl FnOnce(&Trust) -> Option<String>) {
    let Some(before) = write(folder, file) else {
        return;
    };
    let name = change(&before);
    let text = std::fs::read_to_string(folder.join("trust.toml")).unwrap();
    let Some(name) = name else {
        assert_eq!(text, file);
        return;
    };
    let after = Trust::load(folder).unwrap();
    assert_eq!(besides(&after, &name), besides(&before, &name));
    let comment = |line: &&str| line.trim_start().starts_with('#');
    let left: Vec<&str> = text.lines().filter(comment).collect();
    let mut comments = file.lines().filter(comment);
    assert!(comments.all(|line| left.contains(&line)), "{text}");
}

/// What is said of keys of other names: domain, key, and whether it signs.
fn besides(trust: &Trust, name: &str) -> (bool, Vec<(String, String, bool)>) {
    let mut said = Vec::new();
    for domain in trust.all_domains() {
        for key in &domain.keys {
            let signs = domain.write_as.as_deref() == Some(key.name());
            said.push((domain.name.clone(), key.to_string(), signs));
        }
    }
    let revoked = trust.revoked().iter();
    said.extend(revoked.map(|key| ("revoked".to_owned(), key.to_string(), false)));
    let begin = format!("{name}:");
    said.retain(|(_, key, _)| !key.starts_with(&begin));
    (trust.require_signatures(), said)
}
