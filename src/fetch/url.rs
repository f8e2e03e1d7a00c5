//! Addresses: their parts, where they lead, and whether they may be visited.

use anyhow::{Result, anyhow};
use ureq::http::Uri;

use crate::http::proxy::is_this_machine;

/// An http(s) address without a name or password in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    text: String,
    pub(super) https: bool,
    /// In small letters.
    pub(super) host: String,
    pub(super) port: u16,
}

impl Address {
    /// Takes an address apart; what follows a `#` is left out.
    ///
    /// # Errors
    /// Without showing the address where it may hold a password.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let hint = "hint: an address looks like `https://example.org/file.tar.gz`, \
                    without a name and password";
        Self::take_apart(text).map_err(|why| anyhow!("{why}\n{hint}"))
    }

    fn take_apart(text: &str) -> Result<Self, &'static str> {
        let text = text.trim();
        let text = text.split_once('#').map_or(text, |(before, _)| before);
        let uri: Uri = text.parse().map_err(|_| "it is not an address")?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err("it does not begin with `https://`");
        }
        if uri.authority().is_some_and(|a| a.as_str().contains('@')) {
            return Err("it holds a name or a password");
        }
        let host = uri.host().unwrap_or_default().to_ascii_lowercase();
        if host.is_empty() {
            return Err("it names no host");
        }
        let https = uri.scheme_str() == Some("https");
        Ok(Self {
            text: text.to_owned(),
            https,
            host,
            port: uri.port_u16().unwrap_or(if https { 443 } else { 80 }),
        })
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Scheme, host and port, which a token is for.
    pub(super) fn origin(&self) -> String {
        let scheme = if self.https { "https" } else { "http" };
        format!("{scheme}://{}:{}", self.host, self.port)
    }

    /// Whether it is the machine itself.
    pub(super) fn is_local(&self) -> bool {
        is_this_machine(self.host.trim_matches(['[', ']']))
    }

    /// Whether nobody on the way can read or change what is sent.
    pub(super) fn is_safe(&self) -> bool {
        self.https || self.is_local()
    }

    /// The address that a `Location` header in a reply of this one leads to.
    ///
    /// # Errors
    /// When it is no http(s) address. It is not shown: it may be a signed one.
    pub(super) fn join(&self, location: &str) -> Result<Self> {
        let location = location.trim();
        let path_begins = self.text.find("://").map_or(0, |at| at + 3);
        let path_at = self.text[path_begins..]
            .find(['/', '?'])
            .map_or(self.text.len(), |at| path_begins + at);
        let (root, path) = self.text.split_at(path_at);
        let path = path.split_once('?').map_or(path, |(path, _)| path);
        let has_scheme = location
            .find(':')
            .is_some_and(|at| !location[..at].contains(['/', '?', '#']));
        let joined = if has_scheme {
            location.to_owned()
        } else if location.starts_with("//") {
            format!("{}:{location}", if self.https { "https" } else { "http" })
        } else if location.starts_with('/') {
            format!("{root}{location}")
        } else if location.starts_with('?') {
            format!("{root}{path}{location}")
        } else {
            let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
            format!("{root}{folder}/{location}")
        };
        Self::take_apart(&joined)
            .map_err(|why| anyhow!("the server redirects to what is no web address: {why}"))
    }
}

/// A path for an address: all but letters, digits, `-._~` and `/` percent-encoded.
pub(super) fn encode_path(path: &str) -> String {
    encode(path, b"-._~/")
}

/// One piece of a path for an address; a `/` in it is percent-encoded, too.
pub(super) fn encode_piece(piece: &str) -> String {
    encode(piece, b"-._~")
}

fn encode(text: &str, plain: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || plain.contains(&byte) {
            out.push(byte as char);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_where_a_browser_would_go() {
        let at = Address::parse("https://a.org/x/y?q=1#f").unwrap();
        for (location, expected) in [
            ("http://b.org/z", "http://b.org/z"),
            ("//b.org/z", "https://b.org/z"),
            ("/z?a=b:c/d", "https://a.org/z?a=b:c/d"),
            ("z", "https://a.org/x/z"),
            ("?r=2", "https://a.org/x/y?r=2"),
        ] {
            assert_eq!(at.join(location).unwrap().text(), expected);
        }
        let bare = Address::parse("https://a.org").unwrap();
        assert_eq!(bare.join("z").unwrap().text(), "https://a.org/z");
        for wrong in [
            "file:///etc/passwd",
            "javascript:x",
            "http://u:secret@b.org/",
            "",
        ] {
            let joined = at.join(wrong);
            let refused = joined
                .as_ref()
                .is_err_and(|e| !format!("{e:#}").contains("secret"));
            assert!(refused || wrong.is_empty(), "{wrong}: {joined:?}");
        }
    }

    #[test]
    fn origins_differ_in_scheme_host_and_port() {
        let origin = |text| Address::parse(text).unwrap().origin();
        assert_eq!(origin("https://A.org/x"), origin("https://a.org:443/y?z"));
        for other in [
            "http://a.org",
            "https://a.org:444",
            "https://a.org.evil",
            "https://b.org",
        ] {
            assert_ne!(origin("https://a.org"), origin(other), "{other}");
        }
    }

    #[test]
    fn only_https_and_this_machine_are_safe() {
        for (text, safe) in [
            ("https://a.org", true),
            ("http://a.org", false),
            ("http://localhost:1/x", true),
            ("http://127.0.0.1", true),
            ("http://[::1]:80/", true),
            ("http://localhost.evil.org", false),
        ] {
            assert_eq!(Address::parse(text).unwrap().is_safe(), safe, "{text}");
        }
    }

    #[test]
    fn names_are_encoded_for_addresses() {
        assert_eq!(encode_path("a b/ü#?%.bin"), "a%20b/%C3%BC%23%3F%25.bin");
        assert_eq!(encode_piece("refs/pr/1"), "refs%2Fpr%2F1");
    }
}
