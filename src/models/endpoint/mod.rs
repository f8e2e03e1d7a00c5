//! Answers from a server that speaks `OpenAI`'s chat protocol: vLLM, llama.cpp, Ollama, LM Studio, `OpenAI`.
//!
//! [`Endpoint::ask`] sends `POST {url}/chat/completions`, a few at a time, and
//! hands over each answer as it arrives, so that whatever goes wrong later, what
//! was received is kept. Every exchange has a connection of its own: a server
//! that sends a byte too many cannot shift answers to other requests, and next to
//! the time a model takes, connecting costs nothing.
//!
//! What may pass is tried again: lost connections, timeouts, status 408, 409, 425,
//! 429, 500, 502 to 504, and replies that are not of the expected form. After
//! attempt `k` of a request the wait is a random part of `backoff · 2^(k-1)`, at
//! most a minute; a server's `Retry-After` holds all requests. Other refusals are
//! final for their request, and 401 and 404 for all of them.
//!
//! # What is sent
//!
//! `model`, `messages`, the token limit, all sampling parameters and `seed`, also
//! where they cut nothing off: left out, they are whatever the server likes.
//!
//! | server | `top_k` and `min_p` | where nothing is said |
//! |---|---|---|
//! | vLLM | known | the model's `generation_config.json`, unless started with `--generation-config vllm` |
//! | llama.cpp | known | `top_k` 40, `top_p` 0.95, `min_p` 0.05 |
//! | LM Studio | `top_k` known | the model's preset |
//! | Ollama | ignored, without a word | the model file's parameters |
//! | `OpenAI` | refused (400) | nothing is cut off |
//!
//! Where a server refuses a field by name that was to change nothing (`top_k` 0,
//! `min_p` 0, `top_p` 1, `temperature` 1), or `seed`, it is left out from then on. A
//! note tells so, since what the server does by itself then holds. With any other
//! value the refusal stands. `max_tokens` becomes `max_completion_tokens` where the
//! server wants that. On Ollama, `top_k` and `min_p` belong into the model file; a
//! note tells that, too.
//!
//! Of `seed` the low 31 bits are sent, which every server can hold. `stop` may hold
//! four texts at `OpenAI`. A schema goes into `response_format` as `json_schema`.

mod call;
mod fault;
#[cfg(test)]
mod faulty;
mod note;
mod pace;
mod reply;
mod request;
mod secret;
#[cfg(test)]
mod tests;
mod workers;

use std::{fmt, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value};

pub use note::{Failed, Note, Unanswered};
pub use reply::Reply;
pub use request::Request;
pub use workers::OnAnswer;

pub use super::llm::{Finish, Stopped};

use self::{call::Server, secret::Key};

/// How a server is reached and how much is asked of it at once.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Address up to and with the version: `http://host:8000/v1`.
    pub url: String,
    /// Name that the server has for the model.
    pub model: String,
    /// Environment variable that holds the key; without one, no key is sent.
    pub api_key_env: Option<String>,
    /// Requests under way at a time, 1 to 256.
    pub parallel: usize,
    /// Time for one attempt, from connecting to the last byte of the answer.
    pub timeout: Duration,
    /// Time to find the host and to connect, TLS included.
    pub connect_timeout: Duration,
    /// Attempts at a request after the first.
    pub retries: usize,
    /// Longest wait before the first retry; doubles from one to the next.
    pub backoff: Duration,
    /// A server that asks for a longer pause than this is given up.
    pub longest_wait: Duration,
    /// Requests begun per minute, retries included, evenly spaced.
    pub requests_per_minute: Option<u32>,
    /// Further fields of every request, such as vLLM's `repetition_penalty`.
    pub extra: Map<String, Value>,
}

impl Settings {
    /// Settings with the usual limits.
    pub fn new(url: impl Into<String>, model: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            model: model.into(),
            api_key_env: None,
            parallel: 8,
            timeout: Duration::from_mins(5),
            connect_timeout: Duration::from_secs(10),
            retries: 6,
            backoff: Duration::from_secs(2),
            longest_wait: Duration::from_mins(10),
            requests_per_minute: None,
            extra: Map::new(),
        }
    }

    /// Checks the address and the limits, all but what is in the environment.
    ///
    /// # Errors
    /// Names the setting that is wrong.
    pub fn check(&self) -> Result<()> {
        call::address(&self.url)?;
        if let Some(name) = &self.api_key_env {
            secret::check_name(name)?;
        }
        ensure!(!self.model.trim().is_empty(), "`model` is empty");
        ensure!(
            (1..=256).contains(&self.parallel),
            "`parallel` is {}, but must be from 1 to 256",
            self.parallel
        );
        ensure!(
            self.retries <= 100,
            "`retries` is {}, but must be at most 100",
            self.retries
        );
        ensure!(
            self.requests_per_minute != Some(0),
            "`requests_per_minute` is 0, but must be at least 1"
        );
        let day = Duration::from_hours(24);
        for (name, time) in [
            ("timeout", self.timeout),
            ("connect_timeout", self.connect_timeout),
        ] {
            ensure!(
                !time.is_zero() && time <= day,
                "`{name}` must be above 0 and at most a day"
            );
        }
        for (name, time) in [
            ("backoff", self.backoff),
            ("longest_wait", self.longest_wait),
        ] {
            ensure!(time <= day, "`{name}` must be at most a day");
        }
        request::check_extra(&self.extra)
    }
}

/// A server and how it is asked.
///
/// Its `Debug` form, its errors and its notes never hold the key.
#[derive(Clone)]
pub struct Endpoint {
    server: Arc<Server>,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("settings", &self.server.settings)
            .finish_non_exhaustive()
    }
}

impl Endpoint {
    /// Checks the settings and reads the key and the proxy from the environment;
    /// connects to nothing.
    ///
    /// Proxies are those of `https_proxy` or `http_proxy`, else `all_proxy`, unless
    /// `no_proxy` names the host (small or capital letters); this machine is never
    /// reached through one. Where `SSL_CERT_FILE` is set, the certificates in it
    /// are trusted instead of the built-in Mozilla list.
    ///
    /// # Errors
    /// When the address is not an http(s) one, a limit is out of range, or the
    /// variable of the key is not set.
    pub fn open(settings: Settings) -> Result<Self> {
        Self::open_with(settings, &|name| std::env::var_os(name))
    }

    fn open_with(
        settings: Settings,
        env: &dyn Fn(&str) -> Option<std::ffi::OsString>,
    ) -> Result<Self> {
        settings.check()?;
        let key = match &settings.api_key_env {
            Some(name) => Some(Key::read(name, env)?),
            None => None,
        };
        Ok(Self {
            server: Arc::new(Server::new(settings, key, env)?),
        })
    }

    /// The settings it was opened with.
    pub fn settings(&self) -> &Settings {
        &self.server.settings
    }

    /// Asks all requests and hands over each answer, with its request's index, as
    /// soon as it has arrived; in any order, each request at most once.
    ///
    /// `on_note` hears of waits, retries and refusals; a note that says the same
    /// again within 30 s is left out. Where `stop` says so, connections are closed
    /// and the call ends within 200 ms. All three are called on this thread.
    ///
    /// # Errors
    /// [`Stopped`] where `stop` said so; what `on_answer` returns; [`Unanswered`]
    /// where requests are left without an answer, with each one's reason. A request
    /// that is refused, filtered or keeps failing does not hold up the others. Only
    /// where nothing more is to be expected is the rest given up: the key or the
    /// model is refused, a reply redirects, the same refusal came for the first
    /// eight requests, or as many requests as are sent at a time used up all their
    /// attempts with no answer in between. What was under way is then still waited
    /// for.
    pub fn ask(
        &self,
        requests: &[Request],
        on_answer: &mut OnAnswer<'_>,
        on_note: &mut dyn FnMut(Note),
        stop: &dyn Fn() -> bool,
    ) -> Result<()> {
        for (index, request) in requests.iter().enumerate() {
            request
                .check()
                .with_context(|| format!("failed to write request {index}"))?;
        }
        workers::run(&self.server, requests.to_vec(), on_answer, on_note, stop)
    }

    /// The names of the server's models, at most 1,000, from `GET {url}/models`.
    ///
    /// # Errors
    /// When the server does not answer, or not with such a list. Tried once.
    pub fn models(&self) -> Result<Vec<String>> {
        match self.server.models(&self.server.agent()) {
            Ok(names) => Ok(names),
            Err(problem) => bail!(
                "failed to list the models of `{}`: {problem}",
                self.server.base()
            ),
        }
    }
}
