//! A chat server on 127.0.0.1 that misbehaves as a test tells it to.
//!
//! Unit tests have it as a module; tests in `tests/` include this file by its path.

#![allow(dead_code, reason = "each of its users needs a part")]

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

/// One request as the server saw it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Method and path.
    pub(crate) target: String,
    /// Header names in small letters, with their values.
    pub(crate) headers: HashMap<String, String>,
    /// The JSON body; null where there is none.
    pub(crate) body: Value,
    /// Content of the last message.
    pub(crate) prompt: String,
    /// How many requests had the same prompt before.
    pub(crate) attempt: usize,
    /// How many requests of any kind came before.
    pub(crate) before: usize,
    /// When it arrived.
    pub(crate) at: Instant,
}

/// What the server does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// A proper answer with this text.
    Answer(String),
    /// Status 200 with this body.
    Body(String),
    /// A status, further header lines, and a body.
    Status(u16, String, String),
    /// These bytes instead of a reply; then the connection is closed.
    Raw(Vec<u8>),
    /// These bytes instead of a reply; then the connection is reset. Not within `After`.
    Reset(Vec<u8>),
    /// These bytes, one by one with this time between them.
    Drip(Vec<u8>, Duration),
    /// A body that does not end.
    Endless,
    /// Nothing, until somebody goes away.
    Hang,
    /// Something else, later.
    After(Duration, Box<Act>),
}

type Script = dyn Fn(&Seen) -> Act + Send + Sync;

struct Shared {
    script: Box<Script>,
    seen: Mutex<Vec<Seen>>,
    closing: AtomicBool,
    waiting: AtomicUsize,
    most_at_once: AtomicUsize,
    gone: AtomicUsize,
}

/// The server; it ends when this is dropped.
pub(crate) struct Faulty {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Faulty {
    /// Starts a server that follows `script`.
    pub(crate) fn start(script: impl Fn(&Seen) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self::on(listener, script)
    }

    /// Starts one at an address that was free a moment ago.
    pub(crate) fn start_at(
        address: SocketAddr,
        script: impl Fn(&Seen) -> Act + Send + Sync + 'static,
    ) -> Self {
        Self::on(TcpListener::bind(address).unwrap(), script)
    }

    fn on(listener: TcpListener, script: impl Fn(&Seen) -> Act + Send + Sync + 'static) -> Self {
        let shared = Arc::new(Shared {
            script: Box::new(script),
            seen: Mutex::default(),
            closing: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
            most_at_once: AtomicUsize::new(0),
            gone: AtomicUsize::new(0),
        });
        let address = listener.local_addr().unwrap();
        let accepting = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            let mut handlers = Vec::new();
            for stream in listener.incoming() {
                if accepting.closing.load(SeqCst) {
                    break;
                }
                let Ok(stream) = stream else { continue };
                let shared = Arc::clone(&accepting);
                handlers.push(thread::spawn(move || {
                    // A client that goes away is part of the game.
                    let _ = shared.serve(stream);
                }));
            }
            for handler in handlers {
                let _ = handler.join();
            }
        });
        Self {
            address,
            shared,
            thread: Some(thread),
        }
    }

    /// An address where nobody listens.
    pub(crate) fn nowhere() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    }

    /// The address for a client.
    pub(crate) fn url(&self) -> String {
        url(self.address)
    }

    /// All requests so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// The most clients that had to wait at a time.
    pub(crate) fn most_at_once(&self) -> usize {
        self.shared.most_at_once.load(SeqCst)
    }

    /// How many clients closed their connection while they had to wait.
    pub(crate) fn gone(&self) -> usize {
        self.shared.gone.load(SeqCst)
    }
}

/// The address of a chat server for a client.
pub(crate) fn url(address: SocketAddr) -> String {
    format!("http://{address}/v1")
}

impl Drop for Faulty {
    fn drop(&mut self) {
        self.shared.closing.store(true, SeqCst);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The text of a proper reply.
pub(crate) fn completion(text: &str) -> String {
    json!({
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "faulty-1",
        "choices": [{
            "index": 0,
            "message": {"role": "assistant", "content": text},
            "finish_reason": "stop",
        }],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
    })
    .to_string()
}

/// A whole reply of HTTP around a body.
pub(crate) fn reply(status: u16, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n{headers}\r\n{body}").into_bytes()
}

impl Shared {
    fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        self.converse(&mut stream)
    }

    fn converse(&self, stream: &mut TcpStream) -> std::io::Result<()> {
        let Some(seen) = self.read(stream)? else {
            return Ok(());
        };
        let act = (self.script)(&seen);
        if !matches!(act, Act::Reset(_)) {
            // The last byte of the request, which `read` left there.
            stream.read_exact(&mut [0])?;
        }
        self.act(stream, act)
    }

    /// Reads a request, all but its last byte: closing a connection with a byte
    /// unread resets it.
    fn read(&self, stream: &mut TcpStream) -> std::io::Result<Option<Seen>> {
        let mut head = Vec::new();
        let mut byte = [0];
        let (target, headers, length) = loop {
            // The head's last byte, too, is only looked at first.
            if stream.peek(&mut byte)? == 0 {
                return Ok(None);
            }
            head.push(byte[0]);
            if head.ends_with(b"\r\n\r\n") {
                let text = String::from_utf8_lossy(&head).into_owned();
                let mut lines = text.lines();
                let target = lines.next().unwrap_or_default();
                let target = target.trim_end_matches(" HTTP/1.1").to_owned();
                let headers: HashMap<String, String> = lines
                    .filter_map(|line| line.split_once(':'))
                    .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
                    .collect();
                let length = headers
                    .get("content-length")
                    .map_or(0, |n| n.parse().unwrap());
                break (target, headers, length);
            }
            stream.read_exact(&mut byte)?;
        };
        let mut body = vec![0; length];
        if length > 0 {
            stream.read_exact(&mut byte)?;
            stream.read_exact(&mut body[..length - 1])?;
            stream.peek(&mut byte)?;
            body[length - 1] = byte[0];
        }
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let last = body["messages"].as_array().and_then(|list| list.last());
        let prompt = last.map_or("", |last| last["content"].as_str().unwrap_or_default());
        let mut all = self.seen.lock().unwrap();
        let seen = Seen {
            target,
            headers,
            prompt: prompt.to_owned(),
            attempt: all.iter().filter(|seen| seen.prompt == prompt).count(),
            before: all.len(),
            body,
            at: Instant::now(),
        };
        all.push(seen.clone());
        Ok(Some(seen))
    }

    fn act(&self, stream: &mut TcpStream, act: Act) -> std::io::Result<()> {
        match act {
            Act::Answer(text) => stream.write_all(&reply(200, "", &completion(&text))),
            Act::Body(body) => stream.write_all(&reply(200, "", &body)),
            Act::Status(status, headers, body) => stream.write_all(&reply(status, &headers, &body)),
            Act::Raw(bytes) | Act::Reset(bytes) => stream.write_all(&bytes),
            Act::Drip(bytes, pause) => {
                for byte in bytes {
                    if !self.wait(stream, pause)? {
                        return Ok(());
                    }
                    stream.write_all(&[byte])?;
                }
                Ok(())
            }
            Act::Endless => {
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
                while !self.closing.load(SeqCst) {
                    stream.write_all(&[b' '; 1 << 14])?;
                }
                Ok(())
            }
            Act::Hang => self.wait(stream, Duration::MAX).map(|_| ()),
            Act::After(pause, act) => {
                if self.wait(stream, pause)? {
                    self.act(stream, *act)?;
                }
                Ok(())
            }
        }
    }

    /// Waits; false where the client has gone or the server is to end.
    fn wait(&self, stream: &mut TcpStream, time: Duration) -> std::io::Result<bool> {
        const TICK: Duration = Duration::from_millis(5);
        let begun = Instant::now();
        stream.set_nonblocking(true)?;
        let now = self.waiting.fetch_add(1, SeqCst) + 1;
        self.most_at_once.fetch_max(now, SeqCst);
        let mut gone = false;
        while begun.elapsed() < time && !gone && !self.closing.load(SeqCst) {
            thread::sleep(TICK.min(time.saturating_sub(begun.elapsed())));
            gone = match stream.read(&mut [0]) {
                Ok(count) => count == 0,
                Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
            };
        }
        self.waiting.fetch_sub(1, SeqCst);
        stream.set_nonblocking(false)?;
        if gone {
            self.gone.fetch_add(1, SeqCst);
        }
        Ok(!gone && !self.closing.load(SeqCst))
    }
}
