//! One exchange with a web server, for buckets and `WebDAV` alike: time limits, proxies,
//! certificates, and words for what went wrong that hold no secret.
//!
//! Redirects are not followed: a request may carry a signature or a password, which are for the
//! address that the user wrote.

use std::{
    collections::HashMap,
    ffi::OsString,
    fmt,
    io::{self, Read},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use ureq::{
    Agent, Body, BodyReader, Error, SendBody, Timeout,
    http::{HeaderMap, HeaderValue, Request, Response, Uri, request::Parts},
    tls::TlsConfig,
};

use super::Fault;
use crate::http::{proxy, tls};

const LARGEST_HEAD: usize = 64 << 10;
/// More of a refusal is not read.
const LARGEST_REFUSAL: u64 = 16 << 10;
/// Longer bodies are sent once the server says that it wants them, or after [`PATIENCE`].
const LONG: u64 = 16 << 10;
const PATIENCE: Duration = Duration::from_millis(300);
/// A machine that offers credentials to programs in a cloud answers at once, or not at all.
const NEAREST: Duration = Duration::from_secs(1);

/// How long to wait, and how often to ask.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    /// For a connection.
    pub(super) connect: Duration,
    /// For an answer to begin, and for each piece of it.
    pub(super) idle: Duration,
    /// Mean speed, in bytes a second, below which an answer is given up once `idle` is over.
    pub(super) slowest: u64,
    /// How often a question that found no answer is asked again.
    pub(super) retries: u32,
    /// The wait before that; each is twice as long as the one before.
    pub(super) pause: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            idle: Duration::from_secs(30),
            slowest: 1024,
            retries: 2,
            pause: Duration::from_millis(200),
        }
    }
}

/// What became of an exchange that gave no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The request was not sent.
    Unsent,
    /// It may have been done.
    Unknown,
    /// The answer is none.
    Nonsense,
}

/// The variables that connections heed.
const HEEDED: [&str; 9] = [
    "http_proxy",
    "HTTP_PROXY",
    "https_proxy",
    "HTTPS_PROXY",
    "all_proxy",
    "ALL_PROXY",
    "no_proxy",
    "NO_PROXY",
    "SSL_CERT_FILE",
];

/// The connections to the servers of one remote.
pub(super) struct Wire {
    pub(super) limits: Limits,
    tls: TlsConfig,
    env: HashMap<String, OsString>,
    agents: Mutex<HashMap<String, Agent>>,
}

impl Wire {
    /// Connections that heed the variables `env` for proxies and certificates.
    pub(super) fn new(limits: Limits, mut env: HashMap<String, OsString>) -> anyhow::Result<Self> {
        env.retain(|name, _| HEEDED.contains(&name.as_str()));
        Ok(Self {
            limits,
            tls: tls::config(&|name| env.get(name).cloned())?,
            env,
            agents: Mutex::default(),
        })
    }

    /// Sends a request with a body of so many bytes. Every answer that is one is returned.
    pub(super) fn send(
        &self,
        parts: Parts,
        body: Option<(&mut dyn Read, u64)>,
    ) -> Result<Response<Body>, (Trouble, Fault)> {
        let at = authority(&parts.uri);
        let agent = self.agent(&parts.uri)?;
        let answer = match body {
            None => agent.run(Request::from_parts(parts, ())),
            Some((body, size)) => {
                let mut parts = parts;
                parts.headers.insert("content-length", size.into());
                if size > LONG {
                    // A server that refuses should say so before the body is on its way: if it
                    // closes the connection meanwhile, its refusal is lost.
                    let expect = HeaderValue::from_static("100-continue");
                    parts.headers.insert("expect", expect);
                }
                agent.run(Request::from_parts(parts, SendBody::from_reader(body)))
            }
        };
        answer.map_err(|error| self.trouble(&error, &at))
    }

    fn agent(&self, uri: &Uri) -> Result<Agent, (Trouble, Fault)> {
        let https = uri.scheme_str() == Some("https");
        let host = uri.host().unwrap_or_default();
        let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
        let origin = format!("{https} {host} {port}");
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(agent) = agents.get(&origin) {
            return Ok(agent.clone());
        }
        let env = |name: &str| self.env.get(name).cloned();
        let proxy = proxy::choose(https, host, port, &env)
            .map_err(|error| (Trouble::Unsent, Fault::Offline(error.to_string())))?;
        let connect = if is_beside(host) {
            self.limits.connect.min(NEAREST)
        } else {
            self.limits.connect
        };
        let idle = Some(self.limits.idle);
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .allow_non_standard_methods(true)
            .max_redirects(0)
            .max_response_header_size(LARGEST_HEAD)
            .max_idle_connections(64)
            .max_idle_connections_per_host(32)
            .proxy(proxy.map(|chosen| chosen.proxy))
            .tls_config(self.tls.clone())
            .user_agent(concat!(
                env!("CARGO_PKG_NAME"),
                "/",
                env!("CARGO_PKG_VERSION")
            ))
            .accept_encoding("identity")
            .timeout_resolve(Some(connect))
            .timeout_connect(Some(connect))
            .timeout_await_100(Some(PATIENCE))
            .timeout_recv_response(idle)
            .timeout_per_read(idle)
            .timeout_per_write(idle)
            .build();
        let agent = Agent::new_with_config(config);
        agents.insert(origin, agent.clone());
        Ok(agent)
    }

    fn trouble(&self, error: &Error, at: &str) -> (Trouble, Fault) {
        let idle = self.limits.idle;
        match error {
            Error::HostNotFound => unsent(format!("the name in `{at}` is not known")),
            Error::ConnectionFailed | Error::Timeout(Timeout::Resolve | Timeout::Connect) => {
                unsent(format!("no connection to `{at}`"))
            }
            Error::Tls(_) | Error::Rustls(_) | Error::Pem(_) => {
                unsent(format!("no trusted connection to `{at}`: {error}"))
            }
            Error::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                unsent(format!("`{at}` refuses connections"))
            }
            Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
                // How TLS tells of certificates, too.
                unsent(format!("no trusted connection to `{at}`: {error}"))
            }
            Error::Io(error) => unknown(format!("the connection to `{at}` broke: {error}")),
            Error::Timeout(_) => unknown(format!("`{at}` said nothing for {idle:?}")),
            // Their texts tell of the protocol only.
            Error::Protocol(error) => nonsense(format!("`{at}` does not speak HTTP: {error}")),
            _ => nonsense(format!("`{at}` does not speak HTTP")),
        }
    }

    /// Asks again, with waits between, while `ask` finds no answer.
    pub(super) fn retry<T>(
        &self,
        mut ask: impl FnMut() -> Result<T, (bool, Fault)>,
    ) -> Result<T, Fault> {
        let mut pause = self.limits.pause;
        let mut left = self.limits.retries;
        loop {
            match ask() {
                Ok(answer) => return Ok(answer),
                Err((true, Fault::Offline(reason))) if left > 0 => {
                    tracing::debug!(reason, "asked again");
                    left -= 1;
                    std::thread::sleep(pause);
                    pause *= 2;
                }
                Err((_, fault)) => return Err(fault),
            }
        }
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A proxy's address may hold a password.
        f.debug_struct("Wire").finish_non_exhaustive()
    }
}

fn unsent(text: String) -> (Trouble, Fault) {
    (Trouble::Unsent, Fault::Offline(text))
}

fn unknown(text: String) -> (Trouble, Fault) {
    (Trouble::Unknown, Fault::Offline(text))
}

fn nonsense(text: String) -> (Trouble, Fault) {
    (Trouble::Nonsense, Fault::Wrong(text))
}

/// Host and port of an address, without what may be secret in it.
pub(super) fn authority(uri: &Uri) -> String {
    let host = uri.host().unwrap_or_default();
    match uri.port_u16() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// Whether an address is one that only the machine's own surroundings answer to.
pub(super) fn is_beside(host: &str) -> bool {
    host.starts_with("169.254.")
}

/// What a status that is no success says, in general.
pub(super) fn refusal(status: u16, response: &mut Response<Body>) -> Fault {
    let code = code(response);
    let code = code.map(|code| format!(" ({code})")).unwrap_or_default();
    match status {
        401 | 403 | 407 => Fault::Denied(format!("the server answered {status}{code}")),
        408 | 425 | 429 => Fault::Offline(format!("the server is too busy: {status}{code}")),
        501 => Fault::Unsupported(format!("the server answered {status}{code}")),
        507 => Fault::Denied(format!("the server has no space left: {status}{code}")),
        500..=599 => Fault::Offline(format!("the server answered {status}{code}")),
        300..=399 => Fault::Wrong(format!(
            "the server answered {status}{code}, which leads elsewhere; name that address instead"
        )),
        _ => Fault::Wrong(format!("the server answered {status}{code}")),
    }
}

/// The word by which a bucket's server explains a refusal, such as `NoSuchBucket`.
pub(super) fn code(response: &mut Response<Body>) -> Option<String> {
    let mut bytes = Vec::new();
    // A refusal whose text does not arrive is still a refusal.
    let _ = (response.body_mut().as_reader())
        .take(LARGEST_REFUSAL)
        .read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes);
    let (_, rest) = text.split_once("<Code>")?;
    let (code, _) = rest.split_once("</Code>")?;
    // Nothing that could hold a secret or a line's end.
    let plain = (1..=64).contains(&code.len()) && code.bytes().all(|b| b.is_ascii_alphabetic());
    plain.then(|| code.to_owned())
}

/// Refuses an answer to GET that is not the entry: a page of a portal, a packed or partial one.
pub(super) fn check_body(status: u16, headers: &HeaderMap, ranged: bool) -> Result<(), Fault> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let wrong = |text: &str| Err(Fault::Wrong(text.to_owned()));
    let kind = header("content-type").unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if ["text/html", "application/xhtml+xml"].contains(&kind.to_ascii_lowercase().as_str()) {
        return wrong("the server answered with a web page");
    }
    let packed = header("content-encoding").unwrap_or("identity");
    if !packed.trim().is_empty() && !packed.trim().eq_ignore_ascii_case("identity") {
        return wrong("the server packed its answer unasked");
    }
    if status == 206 && !ranged {
        return wrong("the server answered with a part of it");
    }
    Ok(())
}

/// What an error while an answer is read says.
pub(super) fn broken(error: &io::Error) -> Fault {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    match inner {
        Some(Error::Timeout(_)) => Fault::Offline("the answer stopped".to_owned()),
        Some(Error::Protocol(error)) => Fault::Wrong(format!("the answer is broken: {error}")),
        _ if error.kind() == io::ErrorKind::InvalidData => {
            Fault::Wrong(format!("the answer is broken: {error}"))
        }
        _ => Fault::Offline(format!("the answer broke off: {error}")),
    }
}

/// The bytes of an answer, given up when they come too slowly.
pub(super) struct Paced {
    reader: BodyReader<'static>,
    since: Instant,
    count: u64,
    idle: Duration,
    slowest: u64,
}

impl Paced {
    pub(super) fn new(body: Body, limits: &Limits) -> Self {
        Self {
            reader: body.into_with_config().limit(u64::MAX).reader(),
            since: Instant::now(),
            count: 0,
            idle: limits.idle,
            slowest: limits.slowest,
        }
    }
}

impl Read for Paced {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.count += count as u64;
        let elapsed = self.since.elapsed();
        let least = self.slowest as f64 * elapsed.as_secs_f64();
        if count > 0 && elapsed > self.idle && (self.count as f64) < least {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "it comes too slowly",
            ));
        }
        Ok(count)
    }
}
