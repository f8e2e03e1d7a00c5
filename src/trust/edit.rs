//! Changes to `trust.toml` that leave the rest of it, comments among them, as its owner wrote it.

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

use toml::Spanned;

use super::{
    Domain, PublicKey, SecretKey, TrustError,
    file::{self, File, conflict},
    folder, key,
};

/// What a new file begins with.
const HEAD: &str =
    "# Whose records `runner` believes. `runner key` adds lines here; edit it as you like.\n";

/// A new key.
#[derive(Debug)]
pub struct Created {
    /// Its public half.
    pub public: PublicKey,
    /// Where its secret half lies.
    pub secret: PathBuf,
    /// The domain in which it signs.
    pub domain: String,
    /// The key that signed until now.
    pub before: Option<String>,
}

/// A key that counts no more.
#[derive(Debug)]
pub struct Revoked {
    /// The key.
    pub public: PublicKey,
    /// Whether it had been revoked before.
    pub already: bool,
    /// Whether it is the key that signs own records.
    pub own: bool,
}

/// Makes a key `owner-1`, or the next number that is free, which signs from now on in `domain`.
///
/// Without a domain it is the own one, or a new one called `owner`. Keys that signed before
/// stay trusted.
///
/// # Errors
/// A name is none, the domain belongs to others, or a file cannot be read or written.
pub fn create(folder: &Path, owner: &str, domain: Option<&str>) -> Result<Created, TrustError> {
    if !key::is_owner(owner) {
        return Err(TrustError::BadName(format!("{owner}-1")));
    }
    let mut change = Change::begin(folder)?;
    let own = change.now.domains.iter().find(|d| d.write_as.is_some());
    let before = own.and_then(|own| own.write_as.clone());
    let name = domain.or(own.map(|own| own.name.as_str())).unwrap_or(owner);
    let name = key::domain_name(name)?.to_owned();
    if let Some(own) = own.filter(|own| own.name != name) {
        return Err(TrustError::Refused(format!(
            "make a key for the domain `{name}`: yours is `{}`\n\
             hint: to change that, remove `write_as` in `{}` first",
            own.name,
            folder::trust_path(folder).display()
        )));
    }
    let others = change.now.domains.iter().find(|d| d.name == name);
    if let (None, None, Some(others)) = (domain, own, others) {
        let keys: Vec<_> = others
            .keys
            .iter()
            .map(|key| format!("`{}`", key.name))
            .collect();
        return Err(TrustError::Refused(format!(
            "make a domain `{name}`: there is one with the keys {}\n\
             hint: take another name for yours, as in `runner key new --name {name}2`; \
             if you share theirs: --domain {name}",
            keys.join(", ")
        )));
    }
    let mut number = change.free_number(owner);
    let secret = loop {
        let secret = SecretKey::new(&format!("{owner}-{number}"))?;
        match folder::write_secret(folder, &secret) {
            Ok(()) => break secret,
            Err(TrustError::Io { source, .. })
                if source.kind() == std::io::ErrorKind::AlreadyExists =>
            {
                number += 1;
            }
            Err(error) => return Err(error),
        }
    };
    let public = secret.public();
    let done = change
        .add(&public, &name)
        .and_then(|()| change.write_as(&name, public.name()))
        .and_then(|()| change.commit());
    if let Err(error) = done {
        // Nobody knows it yet.
        folder::remove_secret(folder, public.name());
        return Err(match error {
            TrustError::CannotEdit { path, .. } => TrustError::CannotEdit {
                path,
                todo: format!(
                    "write the domain `{name}` as `[[domain]]` with `name` and `keys` on \
                     lines of their own, and make the key again"
                ),
            },
            error => error,
        });
    }
    Ok(Created {
        secret: folder::secret_path(folder, public.name()),
        public,
        domain: name,
        before,
    })
}

/// Trusts `key` in `domain`; false if it was trusted there.
///
/// # Errors
/// The key was revoked, another one has its name, or a file cannot be read or written.
pub fn add(folder: &Path, key: &PublicKey, domain: &str) -> Result<bool, TrustError> {
    let domain = key::domain_name(domain)?;
    let mut change = Change::begin(folder)?;
    if change.now.revoked.iter().any(|old| old.has_bytes_of(key)) {
        return Err(TrustError::Refused(format!(
            "trust `{}`: it was revoked\n\
             hint: if that was a mistake, remove it from `[revoked]` in `{}`",
            key.name,
            folder::trust_path(folder).display()
        )));
    }
    change.refuse_conflict("trust", key)?;
    let known = change.now.domains.iter().find(|d| d.name == domain);
    if known.is_some_and(|known| known.keys.contains(key)) {
        return Ok(false);
    }
    change.add(key, domain)?;
    change.commit()?;
    Ok(true)
}

/// Makes a key count nowhere, whatever it signed: one that is known by its name, or any as its
/// whole line.
///
/// # Errors
/// There is no such key, another one has its name, or a file cannot be read or written.
pub fn revoke(folder: &Path, word: &str) -> Result<Revoked, TrustError> {
    let mut change = Change::begin(folder)?;
    let public = if word.contains(':') {
        word.parse()?
    } else {
        let name = key::key_name(word)?;
        change.known(name).cloned().ok_or_else(|| {
            TrustError::Refused(format!(
                "revoke `{name}`: there is no such key here\n\
                 hint: `runner key show` lists all; another is revoked by its whole line, `{name}:…`"
            ))
        })?
    };
    change.refuse_conflict("revoke", &public)?;
    let own = |domain: &Domain| domain.write_as.as_deref() == Some(public.name());
    let own = change.now.domains.iter().any(own);
    let already = change.now.revoked.contains(&public);
    if !already {
        change.revoke(&public)?;
        change.commit()?;
    }
    Ok(Revoked {
        public,
        already,
        own,
    })
}

/// Trusts the key `name` no more; returns the domains that it was in.
///
/// # Errors
/// There is no such key, it is the own one, or a file cannot be read or written.
pub fn remove(folder: &Path, name: &str) -> Result<Vec<String>, TrustError> {
    let name = key::key_name(name)?;
    let mut change = Change::begin(folder)?;
    let mut domains = Vec::new();
    for domain in &change.now.domains {
        if domain.write_as.as_deref() == Some(name) {
            return Err(TrustError::Refused(format!(
                "forget `{name}`: your own records are signed with it\n\
                 hint: `runner key new` makes another first; if it was stolen, \
                 `runner key revoke {name}`"
            )));
        }
        if domain.keys.iter().any(|key| key.name == name) {
            domains.push(domain.name.clone());
        }
    }
    if domains.is_empty() {
        return Err(TrustError::Refused(format!(
            "forget `{name}`: no domain has such a key\nhint: `runner key show` lists all"
        )));
    }
    change.remove(name)?;
    change.commit()?;
    Ok(domains)
}

/// A change that is being made: the new text, and what it has to say when it is read.
struct Change<'a> {
    folder: &'a Path,
    text: String,
    now: File,
    /// What the owner can do where the program cannot.
    todo: String,
    _held: std::fs::File,
}

impl<'a> Change<'a> {
    fn begin(folder: &'a Path) -> Result<Self, TrustError> {
        let held = folder::hold(folder)?;
        let (path, text) = folder::read_trust(folder)?
            .unwrap_or_else(|| (folder::trust_path(folder), HEAD.to_owned()));
        Ok(Self {
            folder,
            now: file::parse(&path, &text)?,
            text,
            todo: String::new(),
            _held: held,
        })
    }

    fn keys(&self) -> impl Iterator<Item = &PublicKey> {
        let domains = self.now.domains.iter().flat_map(|domain| &domain.keys);
        domains.chain(&self.now.revoked)
    }

    fn known(&self, name: &str) -> Option<&PublicKey> {
        self.keys().find(|key| key.name == name)
    }

    fn refuse_conflict(&self, what: &str, key: &PublicKey) -> Result<(), TrustError> {
        let Some(other) = self.keys().find(|other| conflict(other, key)) else {
            return Ok(());
        };
        let (name, owner) = (&key.name, key.owner());
        Err(TrustError::Refused(if other.name == *name {
            format!(
                "{what} `{name}`: another key of this name is here already\n\
                 hint: ask {owner} which of them `runner key show` prints; \
                 `runner key untrust {name}` forgets the one that is here"
            )
        } else {
            format!(
                "{what} `{name}`: the same key is here as `{}`\n\
                 hint: use that name",
                other.name
            )
        }))
    }

    /// The first number after all those of keys that `owner` has or had here.
    fn free_number(&self, owner: &str) -> u32 {
        let names = self.keys().map(|key| key.name.clone());
        names
            .chain(folder::secret_names(self.folder))
            .filter_map(|name| {
                let (other, number) = name.rsplit_once('-')?;
                (other == owner).then(|| number.parse().ok()).flatten()
            })
            // Nobody has that many; there must be a number after the last.
            .filter(|number| *number < 1_000_000)
            .max()
            .map_or(1, |last: u32| last + 1)
    }

    fn add(&mut self, key: &PublicKey, domain: &str) -> Result<(), TrustError> {
        self.todo = format!("add \"{key}\" to the `keys` of the domain `{domain}` yourself");
        let found = self.now.domains.iter().position(|d| d.name == domain);
        let Some(at) = found else {
            self.append(&format!(
                "[[domain]]\nname = \"{domain}\"\nkeys = [\n    \"{key}\",\n]\n"
            ));
            self.now.domains.push(Domain {
                name: domain.to_owned(),
                keys: vec![key.clone()],
                write_as: None,
            });
            return Ok(());
        };
        let raw = self.raw()?;
        self.text = with_item(&self.text, &raw.domain[at].keys, &key.to_string());
        self.now.domains[at].keys.push(key.clone());
        Ok(())
    }

    fn revoke(&mut self, key: &PublicKey) -> Result<(), TrustError> {
        self.todo = format!("add \"{key}\" to the `keys` under `[revoked]` yourself");
        match self.raw()?.revoked {
            Some(raw) => self.text = with_item(&self.text, &raw.keys, &key.to_string()),
            None => self.append(&format!("[revoked]\nkeys = [\n    \"{key}\",\n]\n")),
        }
        self.now.revoked.push(key.clone());
        Ok(())
    }

    fn write_as(&mut self, domain: &str, name: &str) -> Result<(), TrustError> {
        let raw = self.raw()?;
        let found = self.now.domains.iter_mut().zip(raw.domain);
        for (domain, raw) in found.filter(|(now, _)| now.name == domain) {
            domain.write_as = Some(name.to_owned());
            match raw.write_as {
                Some(old) => self.text.replace_range(old.span(), &format!("\"{name}\"")),
                None => {
                    let end = raw.keys.span().end;
                    let rest = &self.text[end..];
                    let line_end = end + rest.find('\n').unwrap_or(rest.len());
                    self.text
                        .insert_str(line_end, &format!("\nwrite_as = \"{name}\""));
                }
            }
        }
        Ok(())
    }

    fn remove(&mut self, name: &str) -> Result<(), TrustError> {
        self.todo = format!("remove `{name}` from the `keys` of its domains yourself");
        let begin = format!("{name}:");
        // Every removal moves what comes after it.
        loop {
            let raw = self.raw()?;
            let mut items = raw.domain.iter().flat_map(|domain| domain.keys.get_ref());
            let Some(item) = items.find(|item| item.get_ref().starts_with(&begin)) else {
                break;
            };
            self.text
                .replace_range(removable(&self.text, item.span()), "");
        }
        for domain in &mut self.now.domains {
            domain.keys.retain(|key| key.name != name);
        }
        Ok(())
    }

    fn append(&mut self, block: &str) {
        if !self.text.is_empty() && !self.text.ends_with('\n') {
            self.text.push('\n');
        }
        self.text.push('\n');
        self.text.push_str(block);
    }

    /// Where things are in the text so far.
    fn raw(&self) -> Result<file::Raw, TrustError> {
        file::raw(&folder::trust_path(self.folder), &self.text).map_err(|_| self.cannot())
    }

    /// Writes the new text, if it says what it should.
    fn commit(&self) -> Result<(), TrustError> {
        let path = folder::trust_path(self.folder);
        match file::parse(&path, &self.text) {
            Ok(read) if read == self.now => folder::write_trust(self.folder, &self.text),
            _ => Err(self.cannot()),
        }
    }

    fn cannot(&self) -> TrustError {
        TrustError::CannotEdit {
            path: folder::trust_path(self.folder),
            todo: self.todo.clone(),
        }
    }
}

/// `text` with one more string at the end of `array`.
fn with_item(text: &str, array: &Spanned<Vec<Spanned<String>>>, item: &str) -> String {
    let open = array.span().start + 1;
    let close = array.span().end - 1;
    let last = array.get_ref().last().map(|last| last.span().end);
    let from = last.unwrap_or(open);
    let mut text = text.to_owned();
    let Some(line) = text[from..close].rfind('\n') else {
        // All on one line.
        match last {
            Some(end) => text.insert_str(end, &format!(", \"{item}\"")),
            None => text.insert_str(open, &format!("\"{item}\"")),
        }
        return text;
    };
    // A line of its own, before that of the closing bracket.
    text.insert_str(from + line + 1, &format!("    \"{item}\",\n"));
    if let Some(end) = last
        && !text[end..].trim_start().starts_with(',')
    {
        text.insert(end, ',');
    }
    text
}

/// What goes when the string at `item` is removed from its array: its line, if it has one of
/// its own, else also the comma.
fn removable(text: &str, item: Range<usize>) -> Range<usize> {
    let line = text[..item.start].rfind('\n').map_or(0, |at| at + 1);
    let after = &text[item.end..];
    let rest_of_line = after.split_inclusive('\n').next().unwrap_or_default();
    let rest = rest_of_line.trim_start();
    let rest = rest.strip_prefix(',').unwrap_or(rest).trim();
    if text[line..item.start].trim().is_empty() && (rest.is_empty() || rest.starts_with('#')) {
        return line..item.end + rest_of_line.len();
    }
    let blanks = |text: &str| text.len() - text.trim_start_matches([' ', '\t']).len();
    let comma = item.end + blanks(after);
    if text[comma..].starts_with(',') {
        return item.start..comma + 1 + blanks(&text[comma + 1..]);
    }
    let before = text[..item.start].trim_end();
    match before.strip_suffix(',') {
        Some(before) => before.len()..item.end,
        None => item,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::trust::Trust;

    fn key(name: &str) -> PublicKey {
        let bytes = crate::digest::Digest::of(name.as_bytes());
        let key = SecretKey::from_bytes(name, bytes.as_bytes()).unwrap();
        key.public()
    }

    /// `text` in a folder, with `ANA` and such replaced by keys.
    fn folder(text: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("trust.toml"), with_keys(text)).unwrap();
        folder
    }

    fn with_keys(text: &str) -> String {
        let mut text = text.to_owned();
        for (word, name) in [("ANA", "ana-1"), ("ADA", "ana-2"), ("BOB", "bob-1")] {
            text = text.replace(word, &key(name).to_string());
        }
        text
    }

    fn text(folder: &tempfile::TempDir) -> String {
        fs::read_to_string(folder.path().join("trust.toml")).unwrap()
    }

    #[test]
    fn a_key_is_added_where_its_domain_is_and_nothing_else_changes() {
        let table = [
            (
                "[[domain]]\nname = \"ana\"\nkeys = [] # none yet\n",
                "[[domain]]\nname = \"ana\"\nkeys = [\"ADA\"] # none yet\n",
            ),
            (
                "# mine\n[[domain]]\nkeys = [\"ANA\"] # old\nname = \"ana\"\n[revoked]\nkeys = []\n",
                "# mine\n[[domain]]\nkeys = [\"ANA\", \"ADA\"] # old\nname = \"ana\"\n[revoked]\nkeys = []\n",
            ),
            (
                "[[domain]]\nname = \"ana\"\nkeys = [\"ANA\", ]",
                "[[domain]]\nname = \"ana\"\nkeys = [\"ANA\", \"ADA\", ]",
            ),
            (
                "[[domain]]\nname = \"ana\"\nkeys = [\n  \"ANA\" # her desk, and ]\n]\n",
                "[[domain]]\nname = \"ana\"\nkeys = [\n  \"ANA\", # her desk, and ]\n    \"ADA\",\n]\n",
            ),
            (
                "[[domain]]\nname = \"ana\"\nkeys = [\n  \"ANA\", # her desk\n  # more\n]\n",
                "[[domain]]\nname = \"ana\"\nkeys = [\n  \"ANA\", # her desk\n  # more\n    \"ADA\",\n]\n",
            ),
            (
                "[[domain]]\nname = \"ana\"\nkeys = [\n]\n",
                "[[domain]]\nname = \"ana\"\nkeys = [\n    \"ADA\",\n]\n",
            ),
            (
                "domain = [{ name = \"ana\", keys = ['ANA'] }]\n",
                "domain = [{ name = \"ana\", keys = ['ANA', \"ADA\"] }]\n",
            ),
            (
                "[revoked]\nkeys = []",
                "[revoked]\nkeys = []\n\n[[domain]]\nname = \"ana\"\nkeys = [\n    \"ADA\",\n]\n",
            ),
        ];
        for (before, after) in table {
            let folder = folder(before);
            assert!(add(folder.path(), &key("ana-2"), "ana").unwrap());
            assert_eq!(text(&folder), with_keys(after));
            // A second time there is nothing to do.
            assert!(!add(folder.path(), &key("ana-2"), "ana").unwrap());
            assert_eq!(text(&folder), with_keys(after));
        }
    }

    #[test]
    fn a_key_is_removed_with_its_line_and_nothing_else_changes() {
        let table = [
            ("keys = [\"ADA\"]", "keys = []"),
            ("keys = [\"ANA\", \"ADA\"] # all", "keys = [\"ANA\"] # all"),
            ("keys = [\"ADA\", \"ANA\"]", "keys = [\"ANA\"]"),
            ("keys = [ \"ANA\" , \"ADA\" , ]", "keys = [ \"ANA\" , ]"),
            ("keys = [\"ADA\", \"ANA\", \"ADA\"]", "keys = [\"ANA\"]"),
            (
                "keys = [\n  # at home\n  \"ADA\", # laptop\n  \"ANA\",\n]",
                "keys = [\n  # at home\n  \"ANA\",\n]",
            ),
            (
                "keys = [\n  \"ANA\",\n  \"ADA\"\n]",
                "keys = [\n  \"ANA\",\n]",
            ),
            ("keys = [\"ANA\",\n  \"ADA\"]", "keys = [\"ANA\"]"),
        ];
        let whole = |keys: &str| {
            format!("[[domain]] # a\nname = \"ana\"\n{keys}\n\n# rest\n[revoked]\nkeys = []\n")
        };
        for (before, after) in table {
            let folder = folder(&whole(before));
            assert_eq!(remove(folder.path(), "ana-2").unwrap(), ["ana"]);
            assert_eq!(text(&folder), with_keys(&whole(after)));
            let error = remove(folder.path(), "ana-2").unwrap_err();
            assert!(error.is_usage(), "{error}");
        }
    }

    #[test]
    fn what_the_program_cannot_edit_it_leaves_alone() {
        let before = "domain = [{ name = \"ana\", keys = [\"ANA\"] }]\n";
        let folder = folder(before);
        let error = add(folder.path(), &key("bob-1"), "bob").unwrap_err();
        assert!(!error.is_usage());
        let error = error.to_string();
        let hint = format!("hint: add \"{}\" to the `keys`", key("bob-1"));
        assert!(error.contains(&hint), "{error}");
        let error = create(folder.path(), "ana", Some("ana")).unwrap_err();
        assert!(error.to_string().contains("make the key again"), "{error}");
        assert_eq!(text(&folder), with_keys(before));
        // Nor does a key stay behind that nobody knows.
        assert_eq!(folder::secret_names(folder.path()).count(), 0);
    }

    #[test]
    fn a_new_key_takes_the_next_number_and_the_older_ones_stay_trusted() {
        let folder = tempfile::tempdir().unwrap();
        let first = create(folder.path(), "ana", None).unwrap();
        assert_eq!(
            (first.public.name(), first.domain.as_str()),
            ("ana-1", "ana")
        );
        assert_eq!(first.before, None);
        assert!(text(&folder).starts_with("# Whose records"));
        // A key whose file is left, and one that is only known.
        fs::write(folder.path().join("keys/ana-4.key"), "").unwrap();
        add(folder.path(), &key("ana-6"), "lab").unwrap();
        add(folder.path(), &key("ana-4294967295"), "lab").unwrap();
        let second = create(folder.path(), "ana", None).unwrap();
        assert_eq!(second.public.name(), "ana-7");
        assert_eq!(second.before.as_deref(), Some("ana-1"));
        let trust = Trust::load(folder.path()).unwrap();
        assert_eq!(trust.writer().unwrap().key.name(), "ana-7");
        let line = first_secret(&first).sign(crate::trust::Subject::Record, "x");
        let signer = trust.check(crate::trust::Subject::Record, "ana", "x", &[&line]);
        assert_eq!(signer.unwrap().name, "ana-1");
        // Under another name it still goes to the own domain, and to no other.
        let third = create(folder.path(), "anna", None).unwrap();
        assert_eq!(
            (third.public.name(), third.domain.as_str()),
            ("anna-1", "ana")
        );
        let error = create(folder.path(), "ana", Some("lab")).unwrap_err();
        assert!(error.to_string().contains("yours is `ana`"), "{error}");
    }

    fn first_secret(made: &Created) -> SecretKey {
        SecretKey::from_file(&fs::read_to_string(&made.secret).unwrap()).unwrap()
    }

    #[test]
    fn the_domain_of_others_is_joined_only_by_name() {
        let folder = tempfile::tempdir().unwrap();
        add(folder.path(), &key("ana-1"), "ana").unwrap();
        let error = create(folder.path(), "ana", None).unwrap_err();
        assert!(error.is_usage());
        assert!(
            error.to_string().contains("one with the keys `ana-1`"),
            "{error}"
        );
        let made = create(folder.path(), "ana", Some("ana")).unwrap();
        assert_eq!(made.public.name(), "ana-2");
    }

    #[test]
    fn a_revoked_key_is_revoked_for_good() {
        let folder = tempfile::tempdir().unwrap();
        let first = create(folder.path(), "ana", None).unwrap();
        add(folder.path(), &key("bob-1"), "bob").unwrap();
        assert!(revoke(folder.path(), "dave-1").unwrap_err().is_usage());
        let bob = revoke(folder.path(), "bob-1").unwrap();
        assert!(!bob.already && !bob.own);
        assert!(revoke(folder.path(), "bob-1").unwrap().already);
        // One that was never trusted, so that it never will be.
        revoke(folder.path(), &key("carol-1").to_string()).unwrap();
        for name in ["bob-1", "carol-1"] {
            let error = add(folder.path(), &key(name), "x").unwrap_err();
            assert!(error.to_string().contains("it was revoked"), "{error}");
        }
        let load = || Trust::load(folder.path()).unwrap();
        assert_eq!(load().domains().collect::<Vec<_>>(), ["ana"]);
        // The own one: the next is made without a word about domains.
        assert!(revoke(folder.path(), first.public.name()).unwrap().own);
        assert!(load().writer().is_none());
        assert!(load().cannot_write().unwrap().contains("was revoked"));
        create(folder.path(), "ana", None).unwrap();
        assert_eq!(load().writer().unwrap().key.name(), "ana-2");
        // Forgetting a revoked key does not forgive it.
        remove(folder.path(), "bob-1").unwrap();
        assert!(load().is_revoked("bob-1"));
    }

    #[test]
    fn a_name_is_one_key_and_a_key_one_name() {
        let folder = tempfile::tempdir().unwrap();
        add(folder.path(), &key("bob-1"), "bob").unwrap();
        let before = text(&folder);
        let other: PublicKey = key("bob-2")
            .to_string()
            .replace("bob-2", "bob-1")
            .parse()
            .unwrap();
        let same: PublicKey = key("bob-1")
            .to_string()
            .replace("bob-1", "eve-1")
            .parse()
            .unwrap();
        for (wrong, reason) in [
            (other, "another key of this name"),
            (same, "the same key is here as `bob-1`"),
        ] {
            for error in [
                add(folder.path(), &wrong, "eve").unwrap_err(),
                revoke(folder.path(), &wrong.to_string()).unwrap_err(),
            ] {
                assert!(error.is_usage());
                assert!(error.to_string().contains(reason), "{error}");
            }
        }
        assert_eq!(text(&folder), before);
    }

    #[test]
    fn the_own_key_is_not_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        create(folder.path(), "ana", None).unwrap();
        let error = remove(folder.path(), "ana-1").unwrap_err();
        assert!(
            error
                .to_string()
                .contains("`runner key new` makes another first"),
            "{error}"
        );
        create(folder.path(), "ana", None).unwrap();
        assert_eq!(remove(folder.path(), "ana-1").unwrap(), ["ana"]);
        assert_eq!(
            Trust::load(folder.path())
                .unwrap()
                .own()
                .unwrap()
                .keys
                .len(),
            1
        );
    }

    #[test]
    fn of_changes_at_once_none_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        std::thread::scope(|scope| {
            for n in 1..=8 {
                scope.spawn(move || {
                    add(path, &key(&format!("bob-{n}")), "bob").unwrap();
                    create(path, "ana", None).unwrap();
                });
            }
        });
        let trust = Trust::load(path).unwrap();
        let keys: Vec<_> = trust.all_domains().iter().map(|d| d.keys.len()).collect();
        assert_eq!(keys, [8, 8]);
    }
}
