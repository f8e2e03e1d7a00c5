//! The secrets of web servers: where they come from, and how they are kept.

use std::{collections::HashMap, ffi::OsString, fmt};

use base64::prelude::*;
use ureq::http::HeaderValue;

/// The value of an `Authorization` header.
pub(super) struct Secret(pub(super) HeaderValue);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    /// The secret of the server `name`, if the variables `env` hold one.
    pub(super) fn of(name: &str, env: &HashMap<String, OsString>) -> Result<Option<Self>, String> {
        let [token, user, password] = variables(name);
        let text = |variable: &str| env.get(variable).and_then(|value| value.to_str());
        let secret = match (text(&token), text(&user), text(&password)) {
            (Some(token), ..) => Self::sent(&format!("Bearer {}", token.trim())),
            (None, Some(user), Some(password)) => Self::basic(user, password),
            _ => return Ok(None),
        };
        secret
            .map(Some)
            .map_err(|reason| format!("{reason} (`{token}` or `{user}`)"))
    }

    /// A user and a password.
    pub(super) fn basic(user: &str, password: &str) -> Result<Self, String> {
        let both = BASE64_STANDARD.encode(format!("{user}:{password}"));
        Self::sent(&format!("Basic {both}"))
    }

    fn sent(header: &str) -> Result<Self, String> {
        let mut value = HeaderValue::from_str(header)
            .map_err(|_| "the secret for it cannot be sent".to_owned())?;
        value.set_sensitive(true);
        Ok(Self(value))
    }
}

/// The variables that may hold a token, or a user and a password, for the web server `name`.
///
/// They are named after the remote so that one server's secret is never sent to another.
pub(super) fn variables(name: &str) -> [String; 3] {
    let upper = |c: char| match c.to_ascii_uppercase() {
        c if c.is_ascii_alphanumeric() => c,
        _ => '_',
    };
    let name: String = name.chars().map(upper).collect();
    ["TOKEN", "USER", "PASSWORD"].map(|what| format!("RUNNER_REMOTE_{name}_{what}"))
}

/// Where a secret belongs that was written into an address.
pub(super) fn hint(scheme: &str, name: &str) -> String {
    match scheme {
        "s3" => "set `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY` in the environment".into(),
        "gs" => "name a file of credentials in `GOOGLE_APPLICATION_CREDENTIALS`".into(),
        "az" => "set `AZURE_STORAGE_ACCOUNT_NAME` and `AZURE_STORAGE_ACCOUNT_KEY` in the \
                 environment"
            .into(),
        _ => {
            let [token, user, password] = variables(name);
            format!("set `{token}`, or `{user}` and `{password}`, in the environment")
        }
    }
}
