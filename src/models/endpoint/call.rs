//! One exchange with a server over HTTP.

use std::{
    ffi::OsString,
    io,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};
use ureq::{
    Agent, Body, Timeout,
    config::Config,
    http::{HeaderMap, Response, Uri, uri::Scheme},
};

use super::{
    Settings,
    fault::{self, Asked, Problem, shortened},
    reply::{self, Reply},
    request::{Dialect, Request},
    secret::Key,
};
use crate::http::{proxy, retry_after, tls};

/// Longest body of a reply that is read, in bytes.
const LARGEST: u64 = 16 << 20;
/// Longest head of a reply, in bytes.
const LARGEST_HEAD: usize = 64 << 10;
/// Most models of a server that are listed.
const MOST_MODELS: usize = 1000;
/// Most models that a hint names.
const MODELS_NAMED: usize = 8;

/// Where requests go, and all they need besides their bodies.
pub(super) struct Server {
    pub(super) settings: Settings,
    /// The address without a slash at its end.
    base: String,
    key: Option<Key>,
    config: Config,
    /// Variable that named the proxy, if there is one.
    proxy: Option<&'static str>,
    /// What the server turned out not to take.
    dialect: Mutex<Dialect>,
}

impl Server {
    pub(super) fn new(
        settings: Settings,
        key: Option<Key>,
        env: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<Self> {
        let (base, uri) = address(&settings.url)?;
        let https = uri.scheme() == Some(&Scheme::HTTPS);
        let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
        let chosen = proxy::choose(https, uri.host().unwrap_or_default(), port, env)?;
        let (proxy, variable) = match chosen {
            Some(chosen) => (Some(chosen.proxy), Some(chosen.variable)),
            None => (None, None),
        };
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_idle_connections(0)
            .max_response_header_size(LARGEST_HEAD)
            .proxy(proxy)
            .tls_config(tls::config(env)?)
            .user_agent(concat!(
                env!("CARGO_PKG_NAME"),
                "/",
                env!("CARGO_PKG_VERSION")
            ))
            .accept("application/json")
            .timeout_global(Some(settings.timeout))
            .timeout_resolve(Some(settings.connect_timeout))
            .timeout_connect(Some(settings.connect_timeout))
            .build();
        Ok(Self {
            settings,
            base,
            key,
            config,
            proxy: variable,
            dialect: Mutex::default(),
        })
    }

    /// A client of its own, so that closing it closes nobody else's connections.
    pub(super) fn agent(&self) -> Agent {
        Agent::new_with_config(self.config.clone())
    }

    /// The address, for messages.
    pub(super) fn base(&self) -> &str {
        &self.base
    }

    /// Sends one request and reads its answer.
    ///
    /// A field that the server refuses is left out and the request sent again where
    /// that asks for the same; `on_learning` is told.
    pub(super) fn ask(
        &self,
        agent: &Agent,
        request: &Request,
        on_learning: &mut dyn FnMut(String),
    ) -> Result<Reply, Problem> {
        loop {
            let mut dialect = self.dialect().clone();
            let body = request.body(&self.settings, &dialect);
            let problem = match self.send(agent, &body) {
                Ok(reply) => {
                    let learnt = self.dialect().learn_of_server(reply.fingerprint.as_deref());
                    learnt.map(on_learning);
                    return Ok(reply);
                }
                Err(problem) => self.redacted(problem),
            };
            // Each turn leaves out one field more, so that they come to an end.
            if !problem.of_form || dialect.learn(&problem.reason, request).is_none() {
                return Err(problem);
            }
            // Another thread may have learnt it in the meantime.
            let learnt = self.dialect().learn(&problem.reason, request);
            learnt.map(&mut *on_learning);
        }
    }

    fn dialect(&self) -> MutexGuard<'_, Dialect> {
        self.dialect.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, agent: &Agent, body: &Map<String, Value>) -> Result<Reply, Problem> {
        let limit = self.settings.timeout;
        let mut request = agent
            .post(format!("{}/chat/completions", self.base))
            .header("content-type", "application/json")
            .header("connection", "close");
        if let Some(key) = &self.key {
            request = request.header("authorization", key.header());
        }
        let bytes = serde_json::to_vec(body)
            .map_err(|error| Problem::refused(format!("the request cannot be written: {error}")))?;
        let mut response = request
            .send(&bytes[..])
            .map_err(|error| self.problem(&error, limit))?;
        let status = response.status();
        let received = received(&mut response).map_err(|error| self.problem(&error, limit));
        if status.is_success() {
            return reply::read(&received?);
        }
        // A refusal whose text does not arrive is still a refusal.
        let problem = self.refusal(&response, &received.unwrap_or_default(), body);
        Err(match status.as_u16() {
            404 => self.with_models(agent, problem),
            _ => problem,
        })
    }

    fn refusal(
        &self,
        response: &Response<Body>,
        received: &[u8],
        sent: &Map<String, Value>,
    ) -> Problem {
        let headers = response.headers();
        let wait = retry_after::wait(
            header(headers, "retry-after"),
            header(headers, "retry-after-ms"),
            header(headers, "date"),
            Timestamp::now(),
        );
        let fields: Vec<&str> = (sent.keys().map(String::as_str))
            .filter(|name| !["model", "messages"].contains(name))
            .collect();
        let asked = Asked {
            fields: &fields,
            variable: self.key.as_ref().map(|key| key.variable.as_str()),
        };
        fault::of_status(
            response.status().as_u16(),
            received,
            header(headers, "location"),
            wait,
            &asked,
        )
    }

    /// Adds what models there are to a problem that may come from a wrong name.
    fn with_models(&self, agent: &Agent, problem: Problem) -> Problem {
        let model = &self.settings.model;
        match self.try_models(agent) {
            Ok(names) if names.is_empty() => problem.hint("the server lists no model"),
            Ok(names) if names.contains(model) => problem.hint(format!(
                "the server does list the model `{model}`; is it one for chats?"
            )),
            Ok(names) => {
                let named: Vec<String> = names
                    .iter()
                    .take(MODELS_NAMED)
                    .map(|name| format!("`{}`", shortened(name)))
                    .collect();
                let more = match names.len() - named.len() {
                    0 => String::new(),
                    more => format!(" and {more} more"),
                };
                problem.hint(format!(
                    "`model` is `{model}`, but the server has {}{more}",
                    named.join(", ")
                ))
            }
            Err(_) => problem.hint(format!(
                "is `{}` right? it usually ends in `/v1`",
                self.base
            )),
        }
    }

    /// The names of the server's models.
    pub(super) fn models(&self, agent: &Agent) -> Result<Vec<String>, Problem> {
        self.try_models(agent)
            .map_err(|problem| self.redacted(problem))
    }

    fn try_models(&self, agent: &Agent) -> Result<Vec<String>, Problem> {
        #[derive(Deserialize)]
        struct List {
            data: Vec<Model>,
        }
        #[derive(Deserialize)]
        struct Model {
            id: String,
        }
        let limit = self.settings.connect_timeout;
        let mut request = agent
            .get(format!("{}/models", self.base))
            .header("connection", "close")
            .config()
            .timeout_global(Some(limit))
            .build();
        if let Some(key) = &self.key {
            request = request.header("authorization", key.header());
        }
        let mut response = request
            .call()
            .map_err(|error| self.problem(&error, limit))?;
        let body = received(&mut response).map_err(|error| self.problem(&error, limit))?;
        if !response.status().is_success() {
            return Err(self.refusal(&response, &body, &Map::new()));
        }
        let list: List = serde_json::from_slice(&body).map_err(|error| {
            Problem::passing(format!("the reply is no list of models: {error}"))
        })?;
        Ok(list
            .data
            .into_iter()
            .map(|model| model.id)
            .take(MOST_MODELS)
            .collect())
    }

    fn redacted(&self, mut problem: Problem) -> Problem {
        if let Some(key) = &self.key {
            problem.reason = key.redact(&problem.reason);
            problem.hint = problem.hint.map(|hint| key.redact(&hint));
        }
        problem
    }

    /// What an error of the HTTP client means, where the exchange had so much time.
    fn problem(&self, error: &ureq::Error, limit: Duration) -> Problem {
        let connect = self.settings.connect_timeout.as_secs_f64();
        match error {
            ureq::Error::Io(error) => self.io_problem(error),
            ureq::Error::Timeout(Timeout::Resolve) => {
                self.unreachable(format!("the host was not found within {connect} s"))
            }
            ureq::Error::Timeout(Timeout::Connect) => {
                self.unreachable(format!("no connection within {connect} s"))
            }
            ureq::Error::Timeout(_) => {
                Problem::passing(format!("no whole answer within {} s", limit.as_secs_f64()))
                    .hint("raise `timeout`, or lower `parallel` or `max_tokens`")
            }
            ureq::Error::HostNotFound => self.unreachable("the host is not known".to_owned()),
            ureq::Error::ConnectionFailed | ureq::Error::ConnectProxyFailed(_) => {
                self.unreachable(shortened(&error.to_string()))
            }
            ureq::Error::Protocol(error) => Problem::passing(format!(
                "the reply is not proper HTTP: {}",
                shortened(&error.to_string())
            )),
            ureq::Error::LargeResponseHeader(..) => Problem::passing(format!(
                "the reply's head is longer than {LARGEST_HEAD} bytes"
            )),
            ureq::Error::BodyExceedsLimit(_) => {
                Problem::passing(format!("the reply is longer than {LARGEST} bytes"))
            }
            ureq::Error::Rustls(_) | ureq::Error::Tls(_) => self.tls_problem(&error.to_string()),
            other => Problem::hopeless(shortened(&other.to_string())),
        }
    }

    fn io_problem(&self, error: &io::Error) -> Problem {
        let text = shortened(&error.to_string());
        match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                Problem::passing("the connection was closed before the answer was complete")
            }
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe => {
                Problem::passing(format!("the connection broke: {text}"))
            }
            io::ErrorKind::InvalidData => self.tls_problem(&text),
            _ => self.unreachable(text),
        }
    }

    fn tls_problem(&self, text: &str) -> Problem {
        if text.contains("certificate") {
            return Problem::hopeless(format!("the server is not trusted: {text}")).hint(
                "if it has a certificate of your own institution, name the file of its \
                 authority (PEM) in the environment variable `SSL_CERT_FILE`",
            );
        }
        Problem::passing(format!("the encrypted connection failed: {text}"))
            .hint(format!("does `{}` speak `https`?", self.base))
    }

    fn unreachable(&self, why: String) -> Problem {
        let hint = match self.proxy {
            Some(variable) => format!(
                "it is reached through the proxy in the environment variable `{variable}`; \
                 add the host to `no_proxy` to reach it directly"
            ),
            None => format!("is the server running at `{}`?", self.base),
        };
        Problem::unreachable(why).hint(hint)
    }
}

fn received(response: &mut Response<Body>) -> Result<Vec<u8>, ureq::Error> {
    response
        .body_mut()
        .with_config()
        .limit(LARGEST)
        .read_to_vec()
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Checks an address and takes the slash from its end.
pub(super) fn address(url: &str) -> Result<(String, Uri)> {
    let base = url.trim().trim_end_matches('/');
    let example = "hint: an address looks like `http://localhost:8000/v1`";
    // It may hold a password, so it is not shown where it cannot be taken apart.
    let uri: Uri = base
        .parse()
        .with_context(|| format!("`url` is not an address\n{example}"))?;
    ensure!(
        matches!(uri.scheme_str(), Some("http" | "https")),
        "`url` does not begin with `http://` or `https://`\n{example}"
    );
    let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
    ensure!(
        !authority.contains('@'),
        "`url` holds a name or a password\n\
         hint: name the environment variable that holds the key as `api_key_env`"
    );
    ensure!(
        uri.host().is_some_and(|host| !host.is_empty()),
        "`url` names no host\n{example}"
    );
    ensure!(
        !base.contains(['?', '#']),
        "`url` holds a `?` or a `#`\n{example}"
    );
    ensure!(
        !base.ends_with("/completions"),
        "`url` is `{base}`, but `/chat/completions` is added to it\n{example}"
    );
    Ok((base.to_owned(), uri))
}

/// Least time between two requests at a rate per minute.
pub(super) fn spacing(per_minute: Option<u32>) -> Duration {
    per_minute.map_or(Duration::ZERO, |rate| Duration::from_mins(1) / rate.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_loses_its_last_slash() {
        let base = |url| address(url).unwrap().0;
        assert_eq!(base(" http://h:8000/v1/ "), "http://h:8000/v1");
        assert_eq!(
            base("https://api.openai.com/v1"),
            "https://api.openai.com/v1"
        );
        assert_eq!(base("http://[::1]:8000/v1"), "http://[::1]:8000/v1");
    }

    #[test]
    fn an_address_of_another_kind_is_refused_with_a_hint() {
        for (url, reason) in [
            ("", "`url`"),
            ("localhost:8000/v1", "`url`"),
            ("/v1", "does not begin with"),
            ("ftp://h/v1", "does not begin with"),
            ("http://me:secret@h/v1", "a name or a password"),
            ("http://h/v1?key=secret", "holds a `?`"),
            ("http://h/v1/chat/completions", "is added to it"),
            ("http://h secret/v1", "not an address"),
            ("http://", "`url`"),
        ] {
            let error = format!("{:#}", address(url).unwrap_err());
            assert!(
                error.contains(reason) && error.contains("hint: "),
                "{url}: {error}"
            );
            assert!(!error.contains("secret"), "{url}: {error}");
        }
    }
}
