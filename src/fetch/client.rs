//! Exchanges with servers: who is asked, what is sent along, where redirects may lead.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io::{self, Read},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::Result;
use jiff::Timestamp;
use serde_json::Value;
use ureq::{
    Agent, Body, Timeout,
    http::{HeaderMap, Response},
    tls::TlsConfig,
};

use super::{
    Settings,
    problem::{Problem, Refusal, Then, shortened},
    url::Address,
};
use crate::http::{proxy, retry_after, tls};

/// Most redirects that are followed for one file.
const MOST_REDIRECTS: usize = 10;
/// Longest head of a reply, in bytes.
const LARGEST_HEAD: usize = 64 << 10;
/// Longest text of a refusal that is read, in bytes.
const LARGEST_REFUSAL: u64 = 64 << 10;
/// Longest page of a list of files, in bytes.
const LARGEST_LIST: u64 = 64 << 20;

/// What is asked of a server.
pub(super) struct Ask<'a> {
    pub(super) url: &'a str,
    /// The repository's page, where the hub is asked; its token goes along.
    pub(super) page: Option<&'a str>,
    /// Bytes that are there already, and what tells that the file is still the same.
    pub(super) resume: Option<(u64, Option<&'a str>)>,
}

/// A reply with a good status, or 416 to a resumed file.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Body,
    /// Host that sent it.
    pub(super) host: String,
    /// The commit that the hub says it is of.
    pub(super) commit: Option<String>,
}

impl Reply {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }
}

/// How a server is reached.
#[derive(Clone)]
struct Reached {
    agent: Agent,
    /// Variable that named the proxy.
    proxy: Option<&'static str>,
}

/// The way to all servers of one fetch.
pub(super) struct Client {
    settings: Settings,
    hub: Address,
    tls: TlsConfig,
    /// One for each server, with the variable that named its proxy, if one did; `None`
    /// once all is closed.
    agents: Mutex<Option<BTreeMap<String, Reached>>>,
    env: fn(&str) -> Option<OsString>,
}

impl Client {
    pub(super) fn new(settings: &Settings) -> Result<Self> {
        let env = |name: &str| std::env::var_os(name);
        Ok(Self {
            settings: settings.clone(),
            hub: settings.hub()?,
            tls: tls::config(&env)?,
            agents: Mutex::new(Some(BTreeMap::new())),
            env,
        })
    }

    /// Breaks off what is under way, and lets nothing else begin.
    pub(super) fn close(&self) {
        let agents = (self.agents.lock())
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        for (_, reached) in agents.into_iter().flatten() {
            reached.agent.shutdown();
        }
    }

    /// Whether a token is there that must not be sent.
    pub(super) fn withholds_token(&self) -> bool {
        self.settings.hf_token.is_some() && !self.hub.is_safe()
    }

    fn reach(&self, address: &Address) -> Result<Reached, Problem> {
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(agents) = agents.as_mut() else {
            return Err(Problem::last("the connections were closed"));
        };
        let key = address.origin();
        if let Some(reached) = agents.get(&key) {
            return Ok(reached.clone());
        }
        let chosen = proxy::choose(address.https, &address.host, address.port, &self.env)
            .map_err(|error| Problem::last(error.to_string()))?;
        let (proxy, variable) = match chosen {
            Some(chosen) => (Some(chosen.proxy), Some(chosen.variable)),
            None => (None, None),
        };
        let settings = &self.settings;
        // Each exchange has a connection of its own: what a server sends too much
        // cannot become part of another file.
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_idle_connections(0)
            .max_response_header_size(LARGEST_HEAD)
            .proxy(proxy)
            .tls_config(self.tls.clone())
            .user_agent(concat!(
                env!("CARGO_PKG_NAME"),
                "/",
                env!("CARGO_PKG_VERSION")
            ))
            .timeout_resolve(Some(settings.connect_timeout))
            .timeout_connect(Some(settings.connect_timeout))
            .timeout_recv_response(Some(settings.read_timeout))
            .timeout_per_read(Some(settings.read_timeout))
            .timeout_per_write(Some(settings.read_timeout))
            .build();
        let reached = Reached {
            agent: Agent::new_with_config(config),
            proxy: variable,
        };
        agents.insert(key, reached.clone());
        Ok(reached)
    }

    /// Asks for a file and follows redirects; the body is still to be read.
    pub(super) fn get(&self, ask: &Ask<'_>) -> Result<Reply, Problem> {
        self.follow(ask).map_err(|problem| self.redacted(problem))
    }

    fn follow(&self, ask: &Ask<'_>) -> Result<Reply, Problem> {
        let refused = |error: anyhow::Error| Problem::last(format!("{error:#}"));
        let mut address = Address::parse(ask.url).map_err(refused)?;
        let mut commit = None;
        for _ in 0..=MOST_REDIRECTS {
            let with_token = ask.page.is_some() && self.gets_token(&address);
            let response = self.send(ask, &address, with_token)?;
            if let Some(found) = header(response.headers(), "x-repo-commit") {
                commit.get_or_insert_with(|| found.to_owned());
            }
            let status = response.status().as_u16();
            if let (301 | 302 | 303 | 307 | 308, Some(location)) =
                (status, header(response.headers(), "location"))
            {
                let next = address.join(location).map_err(refused)?;
                self.check_redirect(&address, &next)?;
                address = next;
                continue;
            }
            let is_good = matches!(status, 200 | 206) || (status == 416 && ask.resume.is_some());
            if !is_good {
                return Err(self.refusal(ask, &address, with_token, response));
            }
            let (parts, body) = response.into_parts();
            return Ok(Reply {
                status,
                headers: parts.headers,
                body,
                host: address.host,
                commit,
            });
        }
        Err(Problem::last(format!(
            "`{}` redirects more than {MOST_REDIRECTS} times",
            address.host
        ))
        .by_hand())
    }

    /// The token is for the hub's own address, where nobody on the way can read it.
    fn gets_token(&self, address: &Address) -> bool {
        address.origin() == self.hub.origin() && address.is_safe()
    }

    /// Redirects must not lead from `https` to a plain connection, nor from this
    /// machine to one with another; only where the hub itself is plain, they may.
    fn check_redirect(&self, from: &Address, to: &Address) -> Result<(), Problem> {
        let plain_hub = !from.https && !self.hub.is_safe();
        if to.https || plain_hub || (!from.https && to.is_local()) {
            return Ok(());
        }
        Err(Problem::last(format!(
            "`{}` redirects to `{}` over plain `http`, which is not followed",
            from.host, to.host
        ))
        .by_hand())
    }

    fn send(
        &self,
        ask: &Ask<'_>,
        address: &Address,
        with_token: bool,
    ) -> Result<Response<Body>, Problem> {
        let reached = self.reach(address)?;
        let mut request = (reached.agent.get(address.text()))
            .header("connection", "close")
            // Sizes and ranges are those of the file itself.
            .header("accept-encoding", "identity");
        if let (true, Some(token)) = (with_token, &self.settings.hf_token) {
            request = request.header("authorization", token.header());
        }
        if let Some((from, validator)) = ask.resume {
            request = request.header("range", format!("bytes={from}-"));
            if let Some(validator) = validator {
                request = request.header("if-range", validator);
            }
        }
        request.call().map_err(|error| {
            let problem = self.problem(&error, &address.host);
            match reached.proxy {
                Some(variable) if problem.then == Then::Unreachable => problem.hint(format!(
                    "it is reached through the proxy in the environment variable `{variable}`; \
                     add the host to `no_proxy` to reach it directly"
                )),
                _ => problem,
            }
        })
    }

    fn refusal(
        &self,
        ask: &Ask<'_>,
        address: &Address,
        with_token: bool,
        mut response: Response<Body>,
    ) -> Problem {
        let mut body = Vec::new();
        // A refusal whose text does not arrive is still a refusal.
        let _ = (response.body_mut().as_reader())
            .take(LARGEST_REFUSAL)
            .read_to_end(&mut body);
        let headers = response.headers();
        let token = self.settings.hf_token.as_ref().filter(|_| with_token);
        Refusal {
            status: response.status().as_u16(),
            host: &address.host,
            code: header(headers, "x-error-code"),
            message: header(headers, "x-error-message"),
            body: &body,
            wait: retry_after::wait(
                header(headers, "retry-after"),
                None,
                header(headers, "date"),
                Timestamp::now(),
            ),
            page: ask.page.filter(|_| address.origin() == self.hub.origin()),
            token: token.map(super::Token::from),
        }
        .problem()
    }

    /// Asks the hub for JSON; gives its headers, too.
    pub(super) fn json(&self, url: &str, page: &str) -> Result<(Value, HeaderMap), Problem> {
        let ask = Ask {
            url,
            page: Some(page),
            resume: None,
        };
        let reply = self.get(&ask)?;
        let host = reply.host.clone();
        let mut bytes = Vec::new();
        (reply.body.into_reader())
            .take(LARGEST_LIST + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| self.body_problem(error, &host))?;
        if bytes.len() as u64 > LARGEST_LIST {
            return Err(Problem::last(format!(
                "`{host}` sends a list of more than {LARGEST_LIST} bytes"
            )));
        }
        let value = serde_json::from_slice(&bytes).map_err(|_| {
            if super::problem::is_page(&bytes) {
                return page_instead(&host, "a list of files");
            }
            Problem::retry(format!("`{host}` sends something that is no JSON"))
        })?;
        Ok((value, reply.headers))
    }

    /// What an error while a body was read means.
    pub(super) fn body_problem(&self, error: io::Error, host: &str) -> Problem {
        let problem = self.problem(&ureq::Error::from(error), host);
        self.redacted(problem)
    }

    fn problem(&self, error: &ureq::Error, host: &str) -> Problem {
        let connect = self.settings.connect_timeout.as_secs_f64();
        let unreachable =
            |why: String| Problem::unreachable(format!("`{host}` was not reached: {why}"));
        match error {
            ureq::Error::Timeout(Timeout::Resolve) => {
                unreachable(format!("its address was not found within {connect} s"))
            }
            ureq::Error::Timeout(Timeout::Connect) => {
                unreachable(format!("no connection within {connect} s"))
            }
            ureq::Error::Timeout(_) => Problem::retry(format!(
                "nothing came from `{host}` for {} s",
                self.settings.read_timeout.as_secs_f64()
            )),
            ureq::Error::HostNotFound => unreachable("its name is not known".to_owned()),
            ureq::Error::ConnectionFailed | ureq::Error::ConnectProxyFailed(_) => {
                unreachable(shortened(&error.to_string()))
            }
            ureq::Error::Rustls(_) | ureq::Error::Tls(_) => tls_problem(host, &error.to_string()),
            ureq::Error::Io(error) => io_problem(host, error),
            ureq::Error::Protocol(error) => Problem::retry(format!(
                "`{host}` sends no proper HTTP: {}",
                shortened(&error.to_string())
            )),
            other => Problem::last(format!("`{host}`: {}", shortened(&other.to_string()))),
        }
    }

    fn redacted(&self, mut problem: Problem) -> Problem {
        if let Some(token) = &self.settings.hf_token {
            problem.reason = token.redact(&problem.reason);
            problem.hint = problem.hint.map(|hint| token.redact(&hint));
        }
        problem
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn io_problem(host: &str, error: &io::Error) -> Problem {
    let text = shortened(&error.to_string());
    match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            Problem::retry(format!("`{host}` closed the connection before the end"))
        }
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe => {
            Problem::retry(format!("the connection to `{host}` broke: {text}"))
        }
        io::ErrorKind::InvalidData => tls_problem(host, &text),
        io::ErrorKind::ConnectionRefused => {
            Problem::unreachable(format!("`{host}` was not reached: it refuses connections"))
        }
        _ => Problem::unreachable(format!("`{host}` was not reached: {text}")),
    }
}

fn tls_problem(host: &str, text: &str) -> Problem {
    if text.contains("certificate") {
        return Problem::last(format!("`{host}` is not trusted: {}", shortened(text)))
            .hint(
                "if your institution has certificates of its own, name the file of its \
                 authority (PEM) in the environment variable `SSL_CERT_FILE`",
            )
            .by_hand();
    }
    Problem::retry(format!(
        "the encrypted connection to `{host}` failed: {}",
        shortened(text)
    ))
}

/// The problem of a web page in place of something else.
pub(super) fn page_instead(host: &str, of: &str) -> Problem {
    Problem::last(format!("`{host}` sent a web page instead of {of}"))
        .hint(
            "it may be the page of a login, of a licence, or of a network that asks for one first",
        )
        .by_hand()
}

/// Doubling waits: the one before attempt `failed + 1`.
pub(super) fn backoff(first: Duration, failed: usize) -> Duration {
    let doublings = u32::try_from(failed.saturating_sub(1)).unwrap_or(u32::MAX);
    let factor = 2_u32.saturating_pow(doublings.min(16));
    first
        .saturating_mul(factor)
        .min(Duration::from_mins(1).max(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(hub: &str) -> Client {
        let settings = Settings {
            hf_endpoint: hub.to_owned(),
            hf_token: Some(super::super::Token::new("hf_abcdefghijk", "`HF_TOKEN`").unwrap()),
            ..Settings::default()
        };
        Client::new(&settings).unwrap()
    }

    fn address(text: &str) -> Address {
        Address::parse(text).unwrap()
    }

    #[test]
    fn the_token_is_for_the_hub_alone_and_for_nobody_on_the_way() {
        let hub = client("https://huggingface.co");
        assert!(hub.gets_token(&address("https://HuggingFace.co:443/a/b")));
        for other in [
            "http://huggingface.co/a",
            "https://huggingface.co:444/a",
            "https://cdn.huggingface.co/a",
            "https://huggingface.co.evil.org/a",
        ] {
            assert!(!hub.gets_token(&address(other)), "{other}");
        }
        assert!(!hub.withholds_token());
        let plain = client("http://mirror.local");
        assert!(!plain.gets_token(&address("http://mirror.local/a")));
        assert!(plain.withholds_token());
        assert!(client("http://localhost:8080").gets_token(&address("http://localhost:8080/a")));
    }

    #[test]
    fn redirects_do_not_lead_to_plain_connections() {
        let check = |hub: &str, from: &str, to: &str| {
            client(hub)
                .check_redirect(&address(from), &address(to))
                .is_ok()
        };
        let hub = "https://huggingface.co";
        assert!(check(hub, "https://a.org", "https://b.org"));
        assert!(check(hub, "http://localhost:1", "http://127.0.0.1:2"));
        assert!(check(hub, "http://localhost:1", "https://b.org"));
        assert!(!check(hub, "https://a.org", "http://a.org"));
        assert!(!check(hub, "https://a.org", "http://localhost"));
        assert!(!check(hub, "http://localhost:1", "http://b.org"));
        assert!(check(
            "http://mirror.local",
            "http://mirror.local",
            "http://cdn.local"
        ));
        assert!(!check(
            "http://mirror.local",
            "https://a.org",
            "http://cdn.local"
        ));
    }

    #[test]
    fn waits_double_up_to_a_minute() {
        let wait = |failed| backoff(Duration::from_secs(1), failed).as_secs();
        assert_eq!([1, 2, 3, 6, 7, 1000].map(wait), [1, 2, 4, 32, 60, 60]);
        assert_eq!(backoff(Duration::from_hours(1), 3), Duration::from_hours(1));
    }

    #[test]
    fn what_a_connection_ends_with_is_told_apart() {
        let hub = client("https://huggingface.co");
        let reason = |error: ureq::Error| hub.problem(&error, "h.org");
        assert_eq!(
            reason(ureq::Error::HostNotFound).reason,
            "`h.org` was not reached: its name is not known"
        );
        assert!(reason(ureq::Error::HostNotFound).by_hand);
        let stalled = reason(ureq::Error::Timeout(Timeout::PerRead));
        assert_eq!(stalled.reason, "nothing came from `h.org` for 30 s");
        let trust = reason(ureq::Error::Tls("invalid peer certificate: Expired"));
        assert!(trust.to_string().contains("`SSL_CERT_FILE`"));
        let echoed = hub.redacted(Problem::last("no token hf_abcdefghijk"));
        assert_eq!(echoed.reason, "no token [key]");
    }
}
