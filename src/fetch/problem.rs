//! What went wrong in an exchange with a server, and whether to try again.

use std::{fmt, io, time::Duration};

use serde_json::Value;

/// Longest text of a server that a message repeats, in characters.
const LONGEST: usize = 300;

/// What is to follow from a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// It may pass.
    Retry,
    /// It passes after this time.
    Pause(Duration),
    /// The server was not reached, or is not the right one; it may pass.
    Unreachable,
    /// It will not pass.
    Final,
}

/// Why an exchange gave no file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) then: Then,
    /// A lower-case fragment.
    pub(super) reason: String,
    pub(super) hint: Option<String>,
    /// What to download by hand may help.
    pub(super) by_hand: bool,
}

impl Problem {
    fn new(then: Then, reason: impl Into<String>) -> Self {
        Self {
            then,
            reason: reason.into(),
            hint: None,
            by_hand: matches!(then, Then::Unreachable),
        }
    }

    pub(super) fn retry(reason: impl Into<String>) -> Self {
        Self::new(Then::Retry, reason)
    }

    pub(super) fn pause(wait: Duration, reason: impl Into<String>) -> Self {
        Self::new(Then::Pause(wait), reason)
    }

    pub(super) fn unreachable(reason: impl Into<String>) -> Self {
        Self::new(Then::Unreachable, reason)
    }

    pub(super) fn last(reason: impl Into<String>) -> Self {
        Self::new(Then::Final, reason)
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Marks that downloading by hand may help.
    pub(super) fn by_hand(mut self) -> Self {
        self.by_hand = true;
        self
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

impl std::error::Error for Problem {}

/// What a reply with a status other than 2xx says of itself.
pub(super) struct Refusal<'a> {
    pub(super) status: u16,
    /// Host that sent it.
    pub(super) host: &'a str,
    /// The hub's `X-Error-Code`.
    pub(super) code: Option<&'a str>,
    /// The hub's `X-Error-Message`.
    pub(super) message: Option<&'a str>,
    pub(super) body: &'a [u8],
    /// The wait that it asks for.
    pub(super) wait: Option<Duration>,
    /// The repository's page, where a hub was asked.
    pub(super) page: Option<&'a str>,
    /// Where the token came from, if one was sent.
    pub(super) token: Option<&'a str>,
}

impl Refusal<'_> {
    /// The problem of this reply.
    pub(super) fn problem(&self) -> Problem {
        let said = match self.message {
            Some(message) => shortened(message),
            None => said(self.body),
        };
        let mut reason = format!("`{}` said {}", self.host, self.status);
        if !said.is_empty() {
            reason = format!("{reason}: {said}");
        }
        match (self.status, self.wait) {
            (429 | 503 | 529, Some(wait)) => Problem::pause(wait, reason),
            (408 | 425 | 429 | 500 | 502..=504 | 520..=529, _) => Problem::retry(reason),
            (401 | 403, _) => self.forbidden(Problem::last(reason)),
            (404 | 410, _) => self.missing(Problem::last(reason)),
            _ => Problem::last(reason).by_hand(),
        }
    }

    fn forbidden(&self, problem: Problem) -> Problem {
        let Some(page) = self.page else {
            return problem.hint("the file is not free to download").by_hand();
        };
        let token = match self.token {
            Some(from) => {
                format!("the token in {from} was sent; may its account read this repository?")
            }
            None => "set `HF_TOKEN` to a token of your account \
                     (https://huggingface.co/settings/tokens); none was sent"
                .to_owned(),
        };
        match self.code {
            Some("GatedRepo") => problem.hint(format!(
                "it is gated: accept its licence at {page} with your account; {token}"
            )),
            // Without a token, a hub does not tell what is private from what is not there.
            Some("RepoNotFound") => problem.hint(format!(
                "there is no such repository, or it is private: is {page} right? {token}"
            )),
            _ => problem.hint(format!(
                "if it is gated, accept its licence at {page} with your account; {token}"
            )),
        }
        .by_hand()
    }

    fn missing(&self, problem: Problem) -> Problem {
        let Some(page) = self.page else {
            return problem.hint("is `url` right, and is the file still there?");
        };
        match self.code {
            Some("RevisionNotFound") => problem.hint(format!(
                "is `revision` right? {page} lists the commits and tags"
            )),
            Some("EntryNotFound") => {
                problem.hint(format!("is `files` right? {page} lists the files"))
            }
            _ => problem.hint(format!(
                "are `hugging_face` and `revision` right? the page would be {page}"
            )),
        }
    }
}

/// The problem of writing to a disk.
pub(super) fn of_disk(error: &io::Error, path: &std::path::Path) -> Problem {
    let path = path.display();
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Problem::last(format!("the disk is full: failed to write `{path}`"))
                .hint("make room and fetch again; what has arrived is kept and the rest follows")
        }
        io::ErrorKind::FileTooLarge => Problem::last(format!(
            "failed to write `{path}`: the file system or a limit allows no file of this size"
        ))
        .hint("fetch onto another file system; see `ulimit -f` for limits"),
        _ => Problem::last(format!("failed to write `{path}`: {error}")),
    }
}

/// Whether bytes are the beginning of a web page.
pub(super) fn is_page(bytes: &[u8]) -> bool {
    let start = &bytes[..bytes.len().min(512)];
    let text = String::from_utf8_lossy(start).to_ascii_lowercase();
    let text = text.trim_start_matches('\u{feff}').trim_start();
    text.starts_with("<!doctype html") || text.starts_with("<html")
}

/// What a body says went wrong, if it says anything and is no web page.
fn said(body: &[u8]) -> String {
    if is_page(body) {
        return String::new();
    }
    let text = String::from_utf8_lossy(&body[..body.len().min(16 * LONGEST)]);
    match serde_json::from_slice::<Value>(body) {
        Ok(value) => match value.get("error").and_then(Value::as_str) {
            Some(error) => shortened(error),
            None => shortened(&text),
        },
        Err(_) => shortened(&text),
    }
}

/// A server's text on one line, without control characters, cut to a bound.
pub(super) fn shortened(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let line: String = (words.join(" ").chars())
        .filter(|c| !c.is_control())
        .collect();
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status: u16) -> Refusal<'static> {
        Refusal {
            status,
            host: "h.org",
            code: None,
            message: None,
            body: b"",
            wait: None,
            page: Some("https://h.org/a/b"),
            token: None,
        }
    }

    #[test]
    fn every_status_is_judged() {
        for status in [408, 425, 429, 500, 502, 503, 504, 522] {
            assert_eq!(refusal(status).problem().then, Then::Retry, "{status}");
        }
        for status in [301, 400, 401, 403, 404, 405, 410, 416, 451, 501] {
            assert_eq!(refusal(status).problem().then, Then::Final, "{status}");
        }
        let wait = Duration::from_secs(3);
        for status in [429, 503] {
            let asked = Refusal {
                wait: Some(wait),
                ..refusal(status)
            };
            assert_eq!(asked.problem().then, Then::Pause(wait));
        }
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let text = |status, code, token| {
            Refusal {
                code,
                token,
                ..refusal(status)
            }
            .problem()
            .to_string()
        };
        let gated = text(403, Some("GatedRepo"), None);
        assert!(
            gated.contains("accept its licence at https://h.org/a/b")
                && gated.contains("set `HF_TOKEN`"),
            "{gated}"
        );
        let refused = text(401, None, Some("`HF_TOKEN`"));
        assert!(
            refused.contains("the token in `HF_TOKEN` was sent"),
            "{refused}"
        );
        assert!(text(401, Some("RepoNotFound"), None).contains("or it is private"));
        assert!(text(404, Some("RevisionNotFound"), None).contains("is `revision` right?"));
        assert!(text(404, Some("EntryNotFound"), None).contains("is `files` right?"));
        let plain = Refusal {
            page: None,
            ..refusal(404)
        };
        assert!(plain.problem().to_string().contains("is `url` right"));
    }

    #[test]
    fn a_servers_words_are_shown_in_one_short_line() {
        let text = |body: &[u8]| {
            Refusal {
                body,
                ..refusal(500)
            }
            .problem()
            .reason
        };
        assert_eq!(
            text(b"{\"error\": \"over\\nload\"}"),
            "`h.org` said 500: over load"
        );
        assert_eq!(text(b"\x1b[31mred"), "`h.org` said 500: [31mred");
        assert_eq!(text(b" <!DOCTYPE html><p>x"), "`h.org` said 500");
        let long = text("wörd ".repeat(100_000).as_bytes());
        assert!(long.chars().count() < LONGEST + 40 && long.ends_with('…'));
    }

    #[test]
    fn a_full_disk_is_told_from_other_problems_of_writing() {
        let path = std::path::Path::new("models/a.part");
        let full = of_disk(&io::Error::from(io::ErrorKind::StorageFull), path).to_string();
        assert!(
            full.starts_with("the disk is full: failed to write `models/a.part`"),
            "{full}"
        );
        assert!(full.contains("hint: make room"), "{full}");
        let quota = of_disk(&io::Error::from(io::ErrorKind::QuotaExceeded), path);
        assert!(quota.reason.starts_with("the disk is full"));
        let other = of_disk(&io::Error::from(io::ErrorKind::PermissionDenied), path);
        assert!(other.hint.is_none());
    }
}
