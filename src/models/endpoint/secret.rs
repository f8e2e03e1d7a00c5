//! The key of a server: read from the environment, and kept out of every text.

use std::{ffi::OsString, fmt};

use anyhow::{Result, bail, ensure};

use crate::http::secret::redact;

/// A key whose value shows up in no message.
pub(super) struct Key {
    value: String,
    /// Variable it was read from.
    pub(super) variable: String,
}

/// Checks that a text can be the name of a variable; it is not shown, since it may
/// be the key itself.
pub(super) fn check_name(name: &str) -> Result<()> {
    let named_like_one = !name.is_empty()
        && name.len() <= 100
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    ensure!(
        named_like_one,
        "`api_key_env` is not the name of an environment variable\n\
             hint: it names the variable that holds the key, for example `OPENAI_API_KEY`; \
             the key itself does not belong into a file"
    );
    Ok(())
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key(${})", self.variable)
    }
}

impl Key {
    /// Reads the variable `name`.
    pub(super) fn read(name: &str, env: &dyn Fn(&str) -> Option<OsString>) -> Result<Self> {
        check_name(name)?;
        let Some(value) = env(name) else {
            bail!(
                "the environment variable `{name}`, which should hold the key, is not set\n\
                 hint: `export {name}=…` before the run"
            );
        };
        let value = value.to_str().unwrap_or("\0").trim();
        ensure!(
            !value.is_empty(),
            "the environment variable `{name}`, which should hold the key, is empty"
        );
        ensure!(
            value.bytes().all(|b| b.is_ascii_graphic()),
            "the environment variable `{name}` holds characters that no key has\n\
             hint: only printable ASCII without spaces"
        );
        Ok(Self {
            value: value.to_owned(),
            variable: name.to_owned(),
        })
    }

    /// Value of the `Authorization` header.
    pub(super) fn header(&self) -> String {
        format!("Bearer {}", self.value)
    }

    /// `text` without the key, nor eight or more characters of it in a row.
    pub(super) fn redact(&self, text: &str) -> String {
        redact(text, &self.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(value: &str) -> Key {
        Key::read("K", &|_| Some(value.into())).unwrap()
    }

    #[test]
    fn a_key_and_every_long_piece_of_it_are_taken_out() {
        let key = key("sk-abcdefghijklmnop");
        assert_eq!(key.redact("bad key sk-abcdefghijklmnop!"), "bad key [key]!");
        assert_eq!(key.redact("…cdefghij… and ü"), "…[key]… and ü");
        assert_eq!(key.redact("sk-abcdefghijXklmnop"), "[key]Xklmnop");
        assert_eq!(key.redact("sk-abc is short"), "sk-abc is short");
        assert_eq!(format!("{key:?}"), "Key($K)");
    }

    #[test]
    fn a_short_key_is_taken_out_whole() {
        assert_eq!(key("EMPTY").redact("key EMPTY, EMPT"), "key [key], EMPT");
    }

    #[test]
    fn what_is_no_key_is_refused_without_being_shown() {
        let refused = |name: &str, value: Option<&str>| {
            let value = value.map(OsString::from);
            format!("{:#}", Key::read(name, &|_| value.clone()).unwrap_err())
        };
        assert!(refused("K", None).contains("`K`, which should hold the key, is not set"));
        assert!(refused("K", Some(" \n")).ends_with("is empty"));
        assert!(!refused("K", Some("secret\u{e9}")).contains("secret"));
        assert!(!refused("sk-live-1234", None).contains("1234"));
        assert_eq!(key(" abc\n").header(), "Bearer abc");
    }
}
