//! The secrets of web servers: where they come from, and how they are kept.

use std::{collections::HashMap, ffi::OsString, fmt};

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
        let header = match (text(&token), text(&user), text(&password)) {
            (Some(token), ..) => format!("Bearer {}", token.trim()),
            (None, Some(user), Some(password)) => {
                format!("Basic {}", base64(&format!("{user}:{password}")))
            }
            _ => return Ok(None),
        };
        let mut value = HeaderValue::from_str(&header)
            .map_err(|_| format!("the secret in `{token}` or `{user}` cannot be sent"))?;
        value.set_sensitive(true);
        Ok(Some(Self(value)))
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

fn base64(text: &str) -> String {
    const SIGNS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut coded = String::new();
    for three in text.as_bytes().chunks(3) {
        let byte = |at: usize| u32::from(three.get(at).copied().unwrap_or_default());
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let sign = SIGNS[(bits >> (18 - 6 * place) & 63) as usize];
            coded.push(if place > three.len() {
                '='
            } else {
                char::from(sign)
            });
        }
    }
    coded
}
