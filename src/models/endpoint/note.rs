//! What a caller is told: waits and retries on the way, and what is left in the end.

use std::{fmt, time::Duration};

/// Something that a user may want to know while waiting.
#[derive(Clone, Debug, PartialEq)]
pub enum Note {
    /// A request is tried again.
    Retrying {
        /// Its index.
        request: usize,
        /// Which retry comes next (1, 2, …).
        retry: usize,
        /// How many there can be.
        retries: usize,
        /// What went wrong.
        reason: String,
        /// Time until then.
        wait: Duration,
    },
    /// The server wants a pause, and all requests wait.
    Pausing {
        /// What it said.
        reason: String,
        /// Time until they go on.
        wait: Duration,
    },
    /// Requests are written another way from now on.
    Adapting {
        /// What the server does not take, and what follows.
        reason: String,
    },
    /// A request is left without an answer; the others go on.
    Failed(Failed),
}

impl Note {
    /// What happened, without the request and the wait.
    pub fn reason(&self) -> &str {
        match self {
            Self::Retrying { reason, .. }
            | Self::Pausing { reason, .. }
            | Self::Adapting { reason } => reason,
            Self::Failed(failed) => &failed.reason,
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Retrying {
                request,
                retry,
                retries,
                reason,
                wait,
            } => write!(
                f,
                "request {request}: {reason}; trying again in {:.1} s ({retry} of {retries})",
                wait.as_secs_f64()
            ),
            Self::Pausing { reason, wait } => {
                write!(f, "{reason}; waiting {:.1} s", wait.as_secs_f64())
            }
            Self::Adapting { reason } => f.write_str(reason),
            Self::Failed(failed) => failed.fmt(f),
        }
    }
}

/// A request without an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// Its index.
    pub request: usize,
    /// Why, as a fragment.
    pub reason: String,
    /// What can be done about it.
    pub hint: Option<String>,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "request {}: {}", self.request, self.reason)
    }
}

/// Some requests have no answer; all answers that arrived were handed over.
#[derive(Clone, Debug)]
pub struct Unanswered {
    /// The server's address.
    pub url: String,
    /// Requests asked.
    pub requests: usize,
    /// Answers handed over.
    pub answered: usize,
    /// Requests that failed on their own, in the order of their indices.
    pub failed: Vec<Failed>,
    /// Why the rest was given up, if it was.
    pub gave_up: Option<String>,
    /// What can be done about it.
    pub hint: Option<String>,
}

impl std::error::Error for Unanswered {}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMED: usize = 3;
        write!(
            f,
            "{} of {} requests to `{}` have no answer",
            self.requests - self.answered,
            self.requests,
            self.url
        )?;
        if let Some(reason) = &self.gave_up {
            write!(f, ": {reason}")?;
        } else {
            let mut before = ": ";
            for failed in self.failed.iter().take(NAMED) {
                write!(f, "{before}{failed}")?;
                before = "; ";
            }
            if self.failed.len() > NAMED {
                write!(f, "; and {} more", self.failed.len() - NAMED)?;
            }
        }
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_summed_up() {
        let failed = |request| Failed {
            request,
            reason: "too long".to_owned(),
            hint: None,
        };
        let mut left = Unanswered {
            url: "http://h/v1".to_owned(),
            requests: 9,
            answered: 4,
            failed: (0..5).map(failed).collect(),
            gave_up: None,
            hint: Some("shorten it".to_owned()),
        };
        assert_eq!(
            left.to_string(),
            "5 of 9 requests to `http://h/v1` have no answer: request 0: too long; \
             request 1: too long; request 2: too long; and 2 more\nhint: shorten it"
        );
        left.gave_up = Some("the server said 401".to_owned());
        left.hint = None;
        assert_eq!(
            left.to_string(),
            "5 of 9 requests to `http://h/v1` have no answer: the server said 401"
        );
    }
}
