//! What can go wrong in one exchange with a server, and what is to be done about it.

use std::{fmt, time::Duration};

use serde_json::Value;

/// Longest text of a server's that a message repeats, in characters.
const LONGEST: usize = 400;

/// What follows from a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// The same request may succeed later.
    Retry,
    /// So it may, and the server was not even reached.
    Reconnect,
    /// The server wants fewer requests; all of them wait, for this long where it says.
    Pause(Option<Duration>),
    /// This request will not succeed.
    Refused,
    /// No request will succeed.
    Hopeless,
}

/// Why an exchange gave no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) then: Then,
    /// A lower-case fragment.
    pub(super) reason: String,
    pub(super) hint: Option<String>,
    /// The server refused the request as it was written (400, 422).
    pub(super) of_form: bool,
}

impl Problem {
    fn new(then: Then, reason: impl Into<String>) -> Self {
        Self {
            then,
            reason: reason.into(),
            hint: None,
            of_form: false,
        }
    }

    pub(super) fn passing(reason: impl Into<String>) -> Self {
        Self::new(Then::Retry, reason)
    }

    pub(super) fn unreachable(reason: impl Into<String>) -> Self {
        Self::new(Then::Reconnect, reason)
    }

    pub(super) fn refused(reason: impl Into<String>) -> Self {
        Self::new(Then::Refused, reason)
    }

    pub(super) fn hopeless(reason: impl Into<String>) -> Self {
        Self::new(Then::Hopeless, reason)
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    #[cfg(test)]
    pub(super) fn is_passing(&self) -> bool {
        self.then == Then::Retry
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)?;
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

/// What is known of a request when its reply has a bad status.
pub(super) struct Asked<'a> {
    /// Names of the optional fields that it had.
    pub(super) fields: &'a [&'a str],
    /// Variable of the key, if one was sent.
    pub(super) variable: Option<&'a str>,
}

/// The problem of a reply with a status other than 2xx.
///
/// `location` is its `Location` header, `wait` what it asks for in `Retry-After`.
pub(super) fn of_status(
    status: u16,
    body: &[u8],
    location: Option<&str>,
    wait: Option<Duration>,
    asked: &Asked<'_>,
) -> Problem {
    let said = said(body);
    let reason = match &said {
        Some(said) => format!("the server said {status}: {said}"),
        None => format!("the server said {status}"),
    };
    let said = said.unwrap_or_default();
    match status {
        300..=399 => Problem::hopeless(format!(
            "the server redirects to `{}`, and redirects are not followed",
            shortened(location.unwrap_or("nowhere"))
        ))
        .hint("give the address that it leads to as `url`"),
        401 => Problem::hopeless(reason).hint(match asked.variable {
            Some(variable) => format!("is the key in the environment variable `{variable}` valid here?"),
            None => "the server wants a key: name the environment variable that holds it as `api_key_env`".to_owned(),
        }),
        403 => {
            let problem = Problem::refused(reason);
            match asked.variable {
                Some(variable) => problem.hint(format!(
                    "may the key in the environment variable `{variable}` use this model?"
                )),
                None => problem,
            }
        }
        404 => Problem::hopeless(reason),
        429 if said.contains("insufficient_quota") => Problem::hopeless(reason)
            .hint("the account has no credit left; waiting does not help"),
        429 | 529 => Problem::new(Then::Pause(wait), reason),
        503 if wait.is_some() => Problem::new(Then::Pause(wait), reason),
        408 | 409 | 425 | 500 | 502..=504 | 520..=524 => Problem::passing(reason),
        _ => {
            let problem = Problem {
                of_form: matches!(status, 400 | 422),
                ..Problem::refused(reason)
            };
            match hint_for(&said, asked.fields) {
                Some(hint) => problem.hint(hint),
                None => problem,
            }
        }
    }
}

/// What a user can do where a refusal names a field that was sent.
fn hint_for(said: &str, fields: &[&str]) -> Option<String> {
    let words: Vec<&str> = said
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .collect();
    let named = fields.iter().find(|field| words.contains(*field))?;
    Some(format!(
        "the request sets `{named}`; leave it out, or change it, if this server does not take it"
    ))
}

/// What a body says went wrong, if it says anything.
fn said(body: &[u8]) -> Option<String> {
    let text = match serde_json::from_slice::<Value>(body) {
        Ok(value) => message(&value).unwrap_or_else(|| value.to_string()),
        Err(_) => {
            let start = &body[..body.len().min(16 * LONGEST)];
            without_tags(&String::from_utf8_lossy(start))
        }
    };
    let text = shortened(&text);
    (!text.is_empty()).then_some(text)
}

/// The words of a text that may be a web page.
fn without_tags(text: &str) -> String {
    if !text.trim_start().starts_with('<') {
        return text.to_owned();
    }
    let mut words = String::new();
    for piece in text.split('<') {
        let after = piece.split_once('>').map_or(piece, |(_, after)| after);
        words.push(' ');
        words.push_str(after);
    }
    words
}

/// The message in the error forms of `OpenAI`, vLLM, llama.cpp, Ollama, `FastAPI` and Mistral.
pub(super) fn message(value: &Value) -> Option<String> {
    let error = match value.get("error") {
        Some(Value::String(text)) => return Some(text.clone()),
        Some(error) if error.is_object() => error,
        _ => value,
    };
    let text = match error.get("message").or_else(|| error.get("detail"))? {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match error.get("code").or_else(|| error.get("type")) {
        Some(Value::String(code)) if !text.contains(code.as_str()) => {
            Some(format!("{text} ({code})"))
        }
        _ => Some(text),
    }
}

/// A server's text on one line, without control characters, cut to a bound.
pub(super) fn shortened(text: &str) -> String {
    let mut short = String::new();
    let mut count = 0;
    for word in text.split_whitespace() {
        if count > 0 {
            short.push(' ');
            count += 1;
        }
        for c in word.chars().filter(|c| !c.is_control()) {
            if count >= LONGEST {
                short.push('…');
                return short;
            }
            short.push(c);
            count += 1;
        }
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: u16, body: &str) -> Problem {
        let fields = ["max_tokens", "top_k"];
        let asked = Asked {
            fields: &fields,
            variable: Some("MY_KEY"),
        };
        of_status(status, body.as_bytes(), None, None, &asked)
    }

    #[test]
    fn the_message_of_every_servers_error_form_is_found() {
        for (body, expected) in [
            (
                r#"{"error":{"message":"no such model","type":"invalid_request_error","code":"model_not_found"}}"#,
                "no such model (model_not_found)",
            ),
            (
                r#"{"object":"error","message":"too long","type":"BadRequestError","code":400}"#,
                "too long",
            ),
            (
                r#"{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}"#,
                "Loading model",
            ),
            (r#"{"error":"model 'x' not found"}"#, "model 'x' not found"),
            (
                r#"{"detail":[{"loc":["body","seed"],"msg":"Extra inputs are not permitted"}]}"#,
                "Extra inputs are not permitted",
            ),
            ("<h1>\n  Bad   Gateway</h1>", "said 400: Bad Gateway"),
            ("\u{1b}[31mred", "[31mred"),
        ] {
            let problem = of(400, body);
            assert!(problem.reason.contains(expected), "{body} gave {problem:?}");
        }
        assert_eq!(of(500, "").reason, "the server said 500");
        let long = of(400, &"word ".repeat(1_000_000)).reason;
        assert!(long.chars().count() < LONGEST + 40 && long.ends_with('…'));
    }

    #[test]
    fn every_status_is_judged() {
        let then = |status| of(status, "").then;
        for status in [408, 409, 425, 500, 502, 503, 504, 522] {
            assert_eq!(then(status), Then::Retry, "{status}");
        }
        for status in [400, 402, 403, 405, 413, 415, 422, 501] {
            assert_eq!(then(status), Then::Refused, "{status}");
        }
        for status in [301, 307, 308, 401, 404] {
            assert_eq!(then(status), Then::Hopeless, "{status}");
        }
        assert_eq!(then(429), Then::Pause(None));
        let wait = Some(Duration::from_secs(3));
        let asked = Asked {
            fields: &[],
            variable: None,
        };
        for status in [429, 503] {
            assert_eq!(
                of_status(status, b"", None, wait, &asked).then,
                Then::Pause(wait)
            );
        }
        let spent = of(
            429,
            r#"{"error":{"message":"You exceeded your current quota","code":"insufficient_quota"}}"#,
        );
        assert_eq!(spent.then, Then::Hopeless);
    }

    #[test]
    fn a_refusal_hints_at_what_to_change() {
        let hint = |status, body: &str| of(status, body).hint.unwrap_or_default();
        assert!(hint(401, "").contains("`MY_KEY`"));
        assert!(hint(403, "").contains("`MY_KEY`"));
        let openai = r#"{"error":{"message":"Unrecognized request argument supplied: top_k"}}"#;
        assert!(hint(400, openai).contains("sets `top_k`"));
        assert_eq!(
            hint(400, r#"{"error":{"message":"top_kit is unknown"}}"#),
            ""
        );
    }
}
