//! Rendering that comes to an end: in time, and in a text of bounded length.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use minijinja::{Environment, Value};

use super::shown;

/// The longest text that a template may write, in bytes.
const LONGEST_TEXT: usize = 16 << 20;
/// How long a rendering may take. Real templates take milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// An environment with one template, `chat`, and whether it once ran for too long.
#[derive(Clone)]
pub(super) struct Watched {
    pub(super) environment: Arc<Environment<'static>>,
    stuck: Arc<AtomicBool>,
}

impl Watched {
    pub(super) fn new(environment: Environment<'static>) -> Self {
        Self {
            environment: Arc::new(environment),
            stuck: Arc::default(),
        }
    }

    /// Renders the template on a thread of its own, which is left alone if it
    /// takes too long: the engine's fuel does not count what it takes to print,
    /// join or compare lists that hold each other many times over.
    pub(super) fn render(&self, names: Value) -> Result<String> {
        ensure!(
            !self.stuck.load(Ordering::Relaxed),
            "the template ran for more than {PATIENCE:?} before"
        );
        let (sender, receiver) = mpsc::sync_channel(1);
        let environment = Arc::clone(&self.environment);
        std::thread::Builder::new()
            .name("chat template".to_owned())
            .spawn(move || {
                // Nobody may be waiting any more.
                let _ = sender.send(rendered(&environment, names));
            })
            .context("failed to start a thread")?;
        match receiver.recv_timeout(PATIENCE) {
            Ok(text) => text,
            Err(mpsc::RecvTimeoutError::Disconnected) => bail!("the template engine panicked"),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                self.stuck.store(true, Ordering::Relaxed);
                bail!("the template runs for more than {PATIENCE:?}")
            }
        }
    }
}

fn rendered(environment: &Environment<'static>, names: Value) -> Result<String> {
    let mut text = Bounded(Vec::new());
    environment
        .get_template("chat")
        .and_then(|template| template.render_captured_to(names, &mut text).map(|_| ()))
        .map_err(|error| anyhow!("{}", shown(&error)))?;
    String::from_utf8(text.0).context("the template wrote a text that is not UTF-8")
}

/// A text that does not grow beyond [`LONGEST_TEXT`].
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > LONGEST_TEXT {
            return Err(io::Error::other("the text grows without end"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
