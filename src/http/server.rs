//! A listener on 127.0.0.1 for tests: each connection is served by what a test gives it.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
};

/// A listening server; it ends when this is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    closing: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves every connection on a thread of its own. `serve` is given the connection and
    /// whether the server is about to end; what it returns is part of the game.
    pub(crate) fn start(
        serve: impl Fn(TcpStream, &AtomicBool) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let closing = Arc::new(AtomicBool::new(false));
        let (serve, end) = (Arc::new(serve), Arc::clone(&closing));
        let thread = thread::spawn(move || {
            let mut handlers = Vec::new();
            for stream in listener.incoming() {
                if end.load(SeqCst) {
                    break;
                }
                let Ok(stream) = stream else { continue };
                let (serve, end) = (Arc::clone(&serve), Arc::clone(&end));
                handlers.retain(|handler: &JoinHandle<()>| !handler.is_finished());
                handlers.push(thread::spawn(move || {
                    // A client that goes away is part of the game.
                    let _ = serve(stream, &end);
                }));
            }
            for handler in handlers {
                let _ = handler.join();
            }
        });
        Self {
            address,
            closing,
            thread: Some(thread),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.closing.store(true, SeqCst);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
