//! Attempts: one exchange that may bring a file's next bytes, and when to try again.

use std::{
    io::Read,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use anyhow::{Error, Result};

use super::{
    Event, Source, by_hand,
    client::{Ask, Reply, backoff, page_instead},
    desk::Desk,
    hub::{self, Want},
    part::Part,
    problem::{Problem, Then, is_page},
};

/// A server that was never reached gets so many attempts at most.
const WITHOUT_CONTACT: usize = 3;
/// An attempt that brings as many bytes is not in vain.
const PROGRESS: u64 = 1 << 20;
/// Bytes read at a time.
const PIECE: usize = 256 << 10;
/// Least time between two events of bytes.
const BETWEEN_EVENTS: Duration = Duration::from_millis(100);

/// Counts what failed in a row.
pub(super) struct Attempts<'a> {
    desk: &'a Desk,
    /// For messages.
    of: &'a str,
    failed: usize,
}

impl<'a> Attempts<'a> {
    pub(super) fn new(desk: &'a Desk, of: &'a str) -> Self {
        Self {
            desk,
            of,
            failed: 0,
        }
    }

    /// Tries until it works.
    ///
    /// # Errors
    /// The last problem, or [`super::Stopped`].
    pub(super) fn until<T>(&mut self, act: impl Fn() -> Result<T, Problem>) -> Result<T> {
        loop {
            match act() {
                Ok(value) => {
                    self.desk.reached.store(true, Ordering::Relaxed);
                    return Ok(value);
                }
                Err(problem) => self.again(problem)?,
            }
        }
    }

    /// Notes that an attempt brought so many bytes.
    pub(super) fn brought(&mut self, bytes: u64) {
        if bytes >= PROGRESS {
            self.failed = 0;
        }
    }

    /// Waits for the next attempt.
    ///
    /// # Errors
    /// The problem, where there is to be none; [`super::Stopped`].
    pub(super) fn again(&mut self, problem: Problem) -> Result<()> {
        self.desk.go_on()?;
        self.failed += 1;
        let settings = &self.desk.settings;
        let mut limit = settings.attempts;
        let mut wait = backoff(settings.backoff, self.failed);
        match problem.then {
            Then::Final => return Err(self.error(problem)),
            Then::Unreachable if !self.desk.reached.load(Ordering::Relaxed) => {
                limit = limit.min(WITHOUT_CONTACT);
            }
            Then::Pause(asked) if asked > settings.longest_wait => {
                let reason = format!(
                    "{}, and wants to be left alone for {} s",
                    problem.reason,
                    asked.as_secs()
                );
                return Err(self.error(Problem { reason, ..problem }));
            }
            Then::Pause(asked) => wait = wait.max(asked),
            Then::Unreachable | Then::Retry => {}
        }
        if self.failed >= limit {
            let reason = match self.failed {
                1 => problem.reason,
                failed => format!("{} (tried {failed} times)", problem.reason),
            };
            let problem = Problem { reason, ..problem };
            return Err(self.error(problem.by_hand()));
        }
        self.desk.tell(Event::Retry {
            file: self.of.to_owned(),
            reason: problem.reason,
            wait,
        });
        Ok(self.desk.sleep(wait)?)
    }

    /// The final error, with what to download by hand where that may help.
    pub(super) fn error(&self, problem: Problem) -> Error {
        let desk = self.desk;
        let mut text = format!(
            "failed to fetch `{}` of `{}`: {}",
            self.of, desk.job.name, problem.reason
        );
        let manual = problem.by_hand.then(|| {
            let wants = desk.wanted.get().map(Vec::as_slice);
            by_hand::text(&desk.job, &desk.settings, wants)
        });
        let hints: Vec<String> = problem.hint.into_iter().chain(manual).collect();
        if !hints.is_empty() {
            text.push_str(&format!("\nhint: {}", hints.join("\n")));
        }
        Error::msg(text)
    }
}

/// Asks for the bytes that are missing and takes them in.
pub(super) fn run(desk: &Desk, want: &Want, part: &mut Part) -> Result<(), Problem> {
    if want.size == Some(part.done()) {
        return Ok(());
    }
    let page = match &desk.job.source {
        Source::HuggingFace { repo, .. } => Some(hub::page(&desk.settings.hf_endpoint, repo)),
        Source::Url { .. } => None,
    };
    let validator = part.validator().map(str::to_owned);
    let ask = Ask {
        url: &want.url,
        page: page.as_deref(),
        resume: (part.done() > 0).then_some((part.done(), validator.as_deref())),
    };
    let reply = desk.client.get(&ask)?;
    desk.reached.store(true, Ordering::Relaxed);
    check_commit(desk, want, &reply)?;
    if let Some(encoding) = reply.header("content-encoding")
        && !encoding.eq_ignore_ascii_case("identity")
    {
        return Err(Problem::last(format!(
            "`{}` sends the file encoded as `{}`, which was not asked for",
            reply.host,
            super::problem::shortened(encoding)
        )));
    }
    let Coming::Bytes(total) = begin(desk, want, part, &reply)? else {
        return Ok(());
    };
    let total = total.or(want.size);
    if let (Some(total), Some(size)) = (total, want.size)
        && total != size
    {
        return Err(Problem::retry(format!(
            "`{}` sends a file of {total} bytes, but {size} are expected",
            reply.host
        )));
    }
    desk.tell(Event::Start {
        file: want.file.clone(),
        size: total,
        resumed: part.done(),
    });
    take(desk, want, part, reply, total)
}

/// The hub says which commit a file is of.
fn check_commit(desk: &Desk, want: &Want, reply: &Reply) -> Result<(), Problem> {
    let is_hub = matches!(desk.job.source, Source::HuggingFace { .. });
    match &reply.commit {
        Some(commit)
            if is_hub && hub::is_commit(commit) && !want.url.contains(&commit.to_lowercase()) =>
        {
            Err(Problem::last(format!(
                "the hub sends it from another commit, {commit}"
            )))
        }
        _ => Ok(()),
    }
}

/// What a reply's body is to the part.
enum Coming {
    /// Its next bytes; the size of the whole file, if the reply tells it.
    Bytes(Option<u64>),
    /// Nothing: all bytes are there.
    Nothing,
}

/// Makes the part ready for a reply's body.
fn begin(desk: &Desk, want: &Want, part: &mut Part, reply: &Reply) -> Result<Coming, Problem> {
    let restart = |part: &mut Part, reason: &str| {
        desk.tell(Event::Restart {
            file: want.file.clone(),
            reason: reason.to_owned(),
        });
        part.clear()
    };
    let range = reply.header("content-range").map(range);
    match reply.status {
        206 => match range {
            Some(Some((Some(from), total)))
                if from == part.done() && total.is_none_or(|total| total > from) =>
            {
                part.resumed();
                Ok(Coming::Bytes(total))
            }
            _ => {
                restart(
                    part,
                    "the server sends another part of it than was asked for",
                )?;
                Err(Problem::retry(format!(
                    "`{}` sends another part of the file than was asked for",
                    reply.host
                )))
            }
        },
        416 => {
            if let Some(Some((None, Some(total)))) = range
                && total == part.done()
                && want.size.is_none()
            {
                part.resumed();
                return Ok(Coming::Nothing);
            }
            restart(part, "the server does not have the part that is missing")?;
            Err(Problem::retry(format!(
                "`{}` does not have the missing part of the file",
                reply.host
            )))
        }
        _ => {
            // Not yet cleared: a web page must not take the place of what is there.
            let total = reply.body.content_length();
            refuse_page(want, reply)?;
            if part.done() > 0 {
                restart(part, "the server sends it from its beginning")?;
            }
            part.note(validator(reply))?;
            Ok(Coming::Bytes(total))
        }
    }
}

/// What a later request can tell by that the file is the same: a strong `ETag`, else
/// the time of its last change (RFC 9110, 13.1.5).
fn validator(reply: &Reply) -> Option<String> {
    match reply.header("etag") {
        Some(tag) if tag.starts_with('"') => Some(tag.to_owned()),
        Some(_) => None,
        None => reply.header("last-modified").map(str::to_owned),
    }
}

/// The first byte, if it is one of a part, and the whole size, if it is known, of
/// `bytes 5-9/10`, `bytes 5-9/*` or `bytes */10`.
fn range(text: &str) -> Option<(Option<u64>, Option<u64>)> {
    let (span, total) = text.trim().strip_prefix("bytes")?.trim().split_once('/')?;
    let total = match total.trim() {
        "*" => None,
        digits => Some(digits.parse().ok()?),
    };
    let from = match span.trim() {
        "*" => None,
        span => Some(span.split_once('-')?.0.trim().parse().ok()?),
    };
    Some((from, total))
}

fn is_html(want: &Want) -> bool {
    let name = want.file.to_ascii_lowercase();
    [".html", ".htm", ".xhtml"]
        .iter()
        .any(|end| name.ends_with(end))
}

/// Refuses what says of itself that it is a web page.
fn refuse_page(want: &Want, reply: &Reply) -> Result<(), Problem> {
    let kind = reply.header("content-type").unwrap_or_default();
    if kind
        .trim_start()
        .to_ascii_lowercase()
        .starts_with("text/html")
        && !is_html(want)
    {
        return Err(page_instead(&reply.host, "the file"));
    }
    Ok(())
}

/// Reads a body to its end and writes it to the part.
fn take(
    desk: &Desk,
    want: &Want,
    part: &mut Part,
    reply: Reply,
    total: Option<u64>,
) -> Result<(), Problem> {
    let host = reply.host;
    let mut body = reply.body.into_reader();
    let mut buffer = vec![0; PIECE];
    let mut told = Instant::now();
    let tell = |done| {
        desk.tell(Event::Bytes {
            file: want.file.clone(),
            done,
            total,
        });
    };
    let ended = loop {
        let count = match body.read(&mut buffer) {
            Ok(0) => break Ok(()),
            Ok(count) => count,
            Err(error) => break Err(desk.client.body_problem(error, &host)),
        };
        let piece = &buffer[..count];
        if part.done() == 0 && is_page(piece) && !is_html(want) {
            return Err(page_instead(&host, "the file"));
        }
        if total.is_some_and(|total| part.done() + count as u64 > total) {
            part.clear()?;
            return Err(Problem::retry(format!(
                "`{host}` sends more bytes than it has said"
            )));
        }
        part.write(piece)?;
        if desk.go_on().is_err() {
            break Err(Problem::last("stopped"));
        }
        if told.elapsed() >= BETWEEN_EVENTS {
            told = Instant::now();
            tell(part.done());
        }
    };
    tell(part.done());
    ended?;
    match total {
        Some(total) if part.done() < total => Err(Problem::retry(format!(
            "`{host}` closed the connection after {} of {total} bytes",
            part.done()
        ))),
        Some(_) => Ok(()),
        None => {
            part.length_was_unknown();
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_strictly() {
        assert_eq!(range("bytes 5-9/10"), Some((Some(5), Some(10))));
        assert_eq!(range("bytes 5-9/*"), Some((Some(5), None)));
        assert_eq!(range("bytes */10"), Some((None, Some(10))));
        for text in [
            "",
            "bytes",
            "bytes 5/10",
            "bytes x-9/10",
            "items 5-9/10",
            "bytes 5-9/x",
        ] {
            assert_eq!(range(text), None, "{text}");
        }
    }
}
