//! How servers are reached, and the hub's token.

use std::{ffi::OsString, fmt, path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};

use super::url::Address;
use crate::http::secret::redact;

/// Longest file that is read as a token, in bytes.
const LONGEST_TOKEN: u64 = 4096;

/// A hub's token, whose value shows up in no text.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    value: String,
    from: String,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token(from {})", self.from)
    }
}

impl Token {
    /// A token; `from` says in messages where it came from.
    ///
    /// # Errors
    /// When it is empty or holds characters that no token has. It is not shown.
    pub fn new(value: &str, from: impl Into<String>) -> Result<Self> {
        let from = from.into();
        let value = value.trim();
        ensure!(
            !value.is_empty() && value.bytes().all(|b| b.is_ascii_graphic()),
            "{from} holds no token: printable ASCII without spaces"
        );
        Ok(Self {
            value: value.to_owned(),
            from,
        })
    }

    /// Where it came from.
    pub(super) fn from(&self) -> &str {
        &self.from
    }

    /// Value of the `Authorization` header.
    pub(super) fn header(&self) -> String {
        format!("Bearer {}", self.value)
    }

    /// `text` without it.
    pub(super) fn redact(&self, text: &str) -> String {
        redact(text, &self.value)
    }
}

/// How files are fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Address of the Hugging Face hub, or of a mirror of it.
    pub hf_endpoint: String,
    /// Token that is sent to the hub, and to nobody else.
    pub hf_token: Option<Token>,
    /// Time to find a host and to connect, TLS included.
    pub connect_timeout: Duration,
    /// Longest time in which no byte arrives.
    pub read_timeout: Duration,
    /// Attempts in a row that bring no more than a few bytes.
    pub attempts: usize,
    /// Wait before the second attempt; doubles from one to the next, up to a minute.
    pub backoff: Duration,
    /// A server that asks for a longer wait than this is given up.
    pub longest_wait: Duration,
    /// Files under way at a time, 1 to 64.
    pub parallel: usize,
    /// Existing files that are not the right ones are replaced.
    pub force: bool,
}

impl Default for Settings {
    /// The usual limits, the public hub, and no token.
    fn default() -> Self {
        Self {
            hf_endpoint: "https://huggingface.co".to_owned(),
            hf_token: None,
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(30),
            attempts: 6,
            backoff: Duration::from_secs(1),
            longest_wait: Duration::from_mins(10),
            parallel: 4,
            force: false,
        }
    }
}

impl Settings {
    /// The usual limits, with the hub and the token of the environment.
    ///
    /// The hub is `HF_ENDPOINT`. The token is `HF_TOKEN`, else the content of the file
    /// that `huggingface_hub` keeps it in: `HF_TOKEN_PATH`, `$HF_HOME/token`,
    /// `$XDG_CACHE_HOME/huggingface/token` or `~/.cache/huggingface/token`.
    ///
    /// # Errors
    /// When a variable or the file holds something else.
    pub fn from_env() -> Result<Self> {
        Self::from_env_with(&|name| std::env::var_os(name))
    }

    pub(super) fn from_env_with(env: &dyn Fn(&str) -> Option<OsString>) -> Result<Self> {
        let set = |name: &str| env(name).filter(|value| !value.is_empty());
        let mut settings = Self::default();
        if let Some(endpoint) = set("HF_ENDPOINT") {
            let endpoint = endpoint.to_string_lossy();
            settings.hf_endpoint = endpoint.trim().trim_end_matches('/').to_owned();
        }
        settings.hf_token = token(&set)?;
        settings.check()?;
        Ok(settings)
    }

    /// Checks the address and the limits.
    ///
    /// # Errors
    /// Names the setting that is wrong.
    pub fn check(&self) -> Result<()> {
        let address = self.hub()?;
        ensure!(
            !address.text().contains('?'),
            "`HF_ENDPOINT` holds a `?`\nhint: an address looks like `https://huggingface.co`"
        );
        ensure!(
            (1..=64).contains(&self.parallel),
            "`parallel` is {}, but must be from 1 to 64",
            self.parallel
        );
        ensure!(
            (1..=100).contains(&self.attempts),
            "`attempts` is {}, but must be from 1 to 100",
            self.attempts
        );
        let day = Duration::from_hours(24);
        for (name, time) in [
            ("connect_timeout", self.connect_timeout),
            ("read_timeout", self.read_timeout),
        ] {
            ensure!(
                !time.is_zero() && time <= day,
                "`{name}` must be above 0 and at most a day"
            );
        }
        ensure!(
            self.backoff <= day && self.longest_wait <= day,
            "`backoff` and `longest_wait` must be at most a day"
        );
        Ok(())
    }

    /// The hub's address.
    pub(super) fn hub(&self) -> Result<Address> {
        Address::parse(self.hf_endpoint.trim_end_matches('/'))
            .context("`HF_ENDPOINT` is not the address of a hub")
    }
}

fn token(set: &dyn Fn(&str) -> Option<OsString>) -> Result<Option<Token>> {
    if let Some(value) = set("HF_TOKEN") {
        let value = value.to_str().unwrap_or("\0").to_owned();
        return Token::new(&value, "`HF_TOKEN`").map(Some);
    }
    let cache = || {
        set("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .or_else(|| Some(PathBuf::from(set("HOME")?).join(".cache")))
    };
    let path = (set("HF_TOKEN_PATH").map(PathBuf::from))
        .or_else(|| Some(PathBuf::from(set("HF_HOME")?).join("token")))
        .or_else(|| Some(cache()?.join("huggingface/token")));
    let Some(path) = path else {
        return Ok(None);
    };
    let Ok(found) = std::fs::metadata(&path) else {
        return Ok(None);
    };
    let from = format!("`{}`", path.display());
    ensure!(
        found.is_file() && found.len() <= LONGEST_TOKEN,
        "{from} is not a file with a token"
    );
    // The file's content stays out of the error.
    let value = fs_err::read_to_string(&path).context("failed to read the hub's token")?;
    if value.trim().is_empty() {
        return Ok(None);
    }
    Token::new(&value, from).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(variables: &[(&str, &str)]) -> Result<Settings> {
        Settings::from_env_with(&|name| {
            let found = variables.iter().find(|(n, _)| *n == name);
            found.map(|(_, value)| OsString::from(value))
        })
    }

    fn sent(variables: &[(&str, &str)]) -> Option<String> {
        from(variables)
            .unwrap()
            .hf_token
            .map(|token| token.header())
    }

    #[test]
    fn the_token_is_found_where_hugging_faces_library_puts_it() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().to_str().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        assert_eq!(sent(&[("HOME", home)]), None);
        write(".cache/huggingface/token", "hf_home\n");
        write("xdg/huggingface/token", "hf_xdg");
        write("hf/token", "hf_hf");
        let named = write("named", "hf_named");
        let empty = write("empty", "\n");
        let (xdg, hf) = (format!("{home}/xdg"), format!("{home}/hf"));
        let mut variables = vec![("HOME", home)];
        assert_eq!(sent(&variables).unwrap(), "Bearer hf_home");
        variables.push(("XDG_CACHE_HOME", &xdg));
        assert_eq!(sent(&variables).unwrap(), "Bearer hf_xdg");
        variables.push(("HF_HOME", &hf));
        assert_eq!(sent(&variables).unwrap(), "Bearer hf_hf");
        variables.push(("HF_TOKEN_PATH", &named));
        assert_eq!(sent(&variables).unwrap(), "Bearer hf_named");
        variables.push(("HF_TOKEN", " hf_env\n"));
        assert_eq!(sent(&variables).unwrap(), "Bearer hf_env");
        assert_eq!(sent(&[("HF_TOKEN_PATH", &empty)]), None);
    }

    #[test]
    fn a_token_is_in_no_debug_form_and_no_error() {
        let settings = from(&[("HF_TOKEN", "hf_secret_secret")]).unwrap();
        let text = format!("{settings:?}");
        assert!(
            text.contains("`HF_TOKEN`") && !text.contains("secret"),
            "{text}"
        );
        let token = settings.hf_token.unwrap();
        assert_eq!(token.redact("hf_secret_secret?"), "[key]?");
        for wrong in ["hf secret", "secret\u{e9}"] {
            let error = format!("{:#}", from(&[("HF_TOKEN", wrong)]).unwrap_err());
            assert!(
                error.contains("`HF_TOKEN`") && !error.contains("secret"),
                "{error}"
            );
        }
    }

    #[test]
    fn the_hub_is_that_of_the_environment() {
        assert_eq!(from(&[]).unwrap().hf_endpoint, "https://huggingface.co");
        let mirror = from(&[("HF_ENDPOINT", "http://mirror.local:8080/hf/ ")]).unwrap();
        assert_eq!(mirror.hf_endpoint, "http://mirror.local:8080/hf");
        for wrong in [
            "mirror",
            "ftp://mirror",
            "https://me:secret@mirror",
            "https://m/?a=b",
        ] {
            let error = format!("{:#}", from(&[("HF_ENDPOINT", wrong)]).unwrap_err());
            assert!(
                error.contains("`HF_ENDPOINT`") && !error.contains("secret"),
                "{error}"
            );
        }
    }

    #[test]
    fn limits_out_of_range_are_named() {
        let wrong = |change: fn(&mut Settings)| {
            let mut settings = Settings::default();
            change(&mut settings);
            settings.check().unwrap_err().to_string()
        };
        assert!(wrong(|s| s.parallel = 0).contains("`parallel` is 0"));
        assert!(wrong(|s| s.attempts = 0).contains("`attempts` is 0"));
        assert!(wrong(|s| s.read_timeout = Duration::ZERO).contains("`read_timeout`"));
        assert!(wrong(|s| s.backoff = Duration::MAX).contains("`backoff`"));
    }
}
