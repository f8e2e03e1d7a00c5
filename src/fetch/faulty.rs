//! A file server on 127.0.0.1 that misbehaves as a test tells it to.

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use crate::http::server::Server;

/// One request as the server saw it.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// Path and query.
    pub(super) path: String,
    /// Header names in small letters, with their values.
    pub(super) headers: HashMap<String, String>,
    /// How many requests had the same path before.
    pub(super) attempt: usize,
    /// When it arrived.
    pub(super) at: Instant,
}

impl Seen {
    /// The first byte that is asked for, where a range is.
    pub(super) fn from(&self) -> Option<usize> {
        let range = self.headers.get("range")?;
        let digits = range.strip_prefix("bytes=")?.strip_suffix('-')?;
        digits.parse().ok()
    }
}

/// What the server does with a request.
#[derive(Clone, Debug)]
pub(super) enum Act {
    /// These bytes, as a proper server gives them: with ranges and this `ETag`.
    File(Vec<u8>, &'static str),
    /// The same, but the connection ends after so many bytes of the body.
    Cut(Vec<u8>, &'static str, usize),
    /// The same, but nothing comes after so many bytes, until the client goes away.
    Stall(Vec<u8>, &'static str, usize),
    /// A status, further header lines (each with its end), and a body.
    Status(u16, String, Vec<u8>),
    /// These bytes instead of a reply.
    Raw(Vec<u8>),
    /// Nothing, until the client goes away.
    Hang,
}

type Script = dyn Fn(&Seen) -> Act + Send + Sync;

/// The server; it ends when this is dropped.
pub(super) struct Faulty {
    server: Server,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Faulty {
    /// Starts a server that follows `script`.
    pub(super) fn start(script: impl Fn(&Seen) -> Act + Send + Sync + 'static) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&seen);
        let server = Server::start(move |stream, closing| serve(stream, &script, &all, closing));
        Self { server, seen }
    }

    /// An address where nobody listens.
    pub(super) fn nowhere() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    }

    /// The address for a client, without a slash at its end.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.server.address)
    }

    /// All requests so far.
    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// The requests for paths that contain `text`.
    pub(super) fn seen_of(&self, text: &str) -> Vec<Seen> {
        let mut seen = self.seen();
        seen.retain(|seen| seen.path.contains(text));
        seen
    }
}

fn serve(
    mut stream: TcpStream,
    script: &Script,
    all: &Mutex<Vec<Seen>>,
    closing: &AtomicBool,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte)? == 0 {
            return Ok(());
        }
        head.push(byte[0]);
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    let path = first
        .trim_start_matches("GET ")
        .trim_end_matches(" HTTP/1.1");
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
        .collect();
    let seen = {
        let mut all = all.lock().unwrap();
        let seen = Seen {
            path: path.to_owned(),
            headers,
            attempt: all.iter().filter(|seen| seen.path == path).count(),
            at: Instant::now(),
        };
        all.push(seen.clone());
        seen
    };
    act(&mut stream, &seen, script(&seen), closing)
}

/// Head and body of a proper reply with a file.
fn file(seen: &Seen, bytes: &[u8], etag: &str) -> (String, Vec<u8>) {
    let tag = format!("\"{etag}\"");
    let total = bytes.len();
    let same = seen.headers.get("if-range").is_none_or(|v| *v == tag);
    let common = format!("etag: {tag}\r\naccept-ranges: bytes\r\n");
    match seen.from().filter(|_| same) {
        Some(from) if from >= total => (
            format!(
                "HTTP/1.1 416 X\r\ncontent-range: bytes */{total}\r\ncontent-length: 0\r\n\r\n"
            ),
            Vec::new(),
        ),
        Some(from) => (
            format!(
                "HTTP/1.1 206 X\r\n{common}content-range: bytes {from}-{}/{total}\r\n\
                 content-length: {}\r\n\r\n",
                total - 1,
                total - from
            ),
            bytes[from..].to_vec(),
        ),
        None => (
            format!("HTTP/1.1 200 X\r\n{common}content-length: {total}\r\n\r\n"),
            bytes.to_vec(),
        ),
    }
}

fn act(stream: &mut TcpStream, seen: &Seen, act: Act, closing: &AtomicBool) -> std::io::Result<()> {
    match act {
        Act::File(bytes, etag) => {
            let (head, body) = file(seen, &bytes, etag);
            stream.write_all(head.as_bytes())?;
            stream.write_all(&body)
        }
        Act::Cut(bytes, etag, count) | Act::Stall(bytes, etag, count)
            if count >= file(seen, &bytes, etag).1.len() =>
        {
            self::act(stream, seen, Act::File(bytes, etag), closing)
        }
        Act::Cut(bytes, etag, count) => {
            let (head, body) = file(seen, &bytes, etag);
            stream.write_all(head.as_bytes())?;
            stream.write_all(&body[..count])
        }
        Act::Stall(bytes, etag, count) => {
            let (head, body) = file(seen, &bytes, etag);
            stream.write_all(head.as_bytes())?;
            stream.write_all(&body[..count])?;
            hang(stream, closing)
        }
        Act::Status(status, headers, body) => {
            let head = format!(
                "HTTP/1.1 {status} X\r\ncontent-length: {}\r\n{headers}\r\n",
                body.len()
            );
            stream.write_all(head.as_bytes())?;
            stream.write_all(&body)
        }
        Act::Raw(bytes) => stream.write_all(&bytes),
        Act::Hang => hang(stream, closing),
    }
}

fn hang(stream: &mut TcpStream, closing: &AtomicBool) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_millis(20)))?;
    while !closing.load(SeqCst) {
        match stream.read(&mut [0]) {
            Ok(0) => break,
            Err(error)
                if !matches!(
                    error.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                ) =>
            {
                break;
            }
            _ => {}
        }
    }
    Ok(())
}
