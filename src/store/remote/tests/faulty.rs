//! A web server on 127.0.0.1 that answers each request as a test tells it to.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use crate::http::server::Server;

/// One request as the server saw it.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) method: String,
    pub(super) path: String,
    /// The head's lines, in small letters.
    pub(super) head: String,
}

/// What the server does with a request.
#[derive(Debug, Clone)]
pub(super) enum Act {
    /// These bytes, and the connection ends.
    Say(Vec<u8>),
    /// The same, but the connection stays open until the client goes away.
    Stall(Vec<u8>),
    /// These bytes, one each 20 ms.
    Drip(Vec<u8>),
    /// These bytes, then others until the client goes away or there were 64 MiB.
    Endless(Vec<u8>),
    /// The connection is reset before the request is read.
    Reset,
}

/// A proper answer.
pub(super) fn answer(status: u16, headers: &str, body: &[u8]) -> Act {
    let head = format!(
        "HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n{headers}\r\n",
        body.len()
    );
    Act::Say([head.as_bytes(), body].concat())
}

type Script = dyn Fn(&Seen) -> Act + Send + Sync;

/// The server; it ends when this is dropped.
pub(super) struct Faulty {
    server: Server,
    pub(super) answers: Arc<AtomicUsize>,
    pub(super) seen: Arc<Mutex<Vec<Seen>>>,
}

impl Faulty {
    pub(super) fn start(script: impl Fn(&Seen) -> Act + Send + Sync + 'static) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let answers = Arc::new(AtomicUsize::new(0));
        let (all, count) = (Arc::clone(&seen), Arc::clone(&answers));
        let server = Server::start(move |stream, closing| {
            count.fetch_add(1, SeqCst);
            serve(stream, &script, &all, closing)
        });
        Self {
            server,
            answers,
            seen,
        }
    }

    pub(super) fn host(&self) -> String {
        self.server.address.to_string()
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
    stream.set_write_timeout(Some(Duration::from_secs(5)))?;
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte)? == 0 {
            return Ok(());
        }
        head.push(byte[0]);
        // Closed with something unread, a connection is reset.
        if head.len() == 16 {
            let text = String::from_utf8_lossy(&head).into_owned();
            let mut words = text.split(' ');
            let seen = Seen {
                method: words.next().unwrap_or_default().to_owned(),
                path: String::new(),
                head: String::new(),
            };
            if matches!(script(&seen), Act::Reset) {
                return Ok(());
            }
        }
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let mut words = text.split(' ');
    let seen = Seen {
        method: words.next().unwrap_or_default().to_owned(),
        path: words.next().unwrap_or_default().to_owned(),
        head: text.to_lowercase(),
    };
    all.lock().unwrap().push(seen.clone());
    if seen.head.contains("expect: 100-continue") {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let length = seen.head.split("content-length: ").nth(1);
    let length = length.and_then(|rest| rest.split("\r\n").next()?.parse().ok());
    std::io::copy(
        &mut (&mut stream).take(length.unwrap_or(0)),
        &mut std::io::sink(),
    )?;
    match script(&seen) {
        Act::Say(bytes) => stream.write_all(&bytes),
        Act::Stall(bytes) => {
            stream.write_all(&bytes)?;
            hang(&mut stream, closing);
            Ok(())
        }
        Act::Drip(bytes) => {
            for byte in bytes {
                if closing.load(SeqCst) {
                    break;
                }
                stream.write_all(&[byte])?;
                thread::sleep(Duration::from_millis(20));
            }
            Ok(())
        }
        Act::Endless(bytes) => {
            stream.write_all(&bytes)?;
            let more = vec![b'x'; 1 << 16];
            for _ in 0..1024 {
                stream.write_all(&more)?;
            }
            Ok(())
        }
        Act::Reset => Ok(()),
    }
}

fn hang(stream: &mut TcpStream, closing: &AtomicBool) {
    let _ = stream.set_read_timeout(Some(Duration::from_millis(20)));
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
}
