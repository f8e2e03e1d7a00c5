//! The threads of a fetch, and the caller's, which hears of events and may stop them.
//!
//! The work is done on threads of its own, so that a host that is slow to be found
//! holds up nobody: [`run`] returns soon after a stop, however long that takes.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::{
    Event, Fetched, Job, Outcome, Settings, Source, Stopped,
    client::Client,
    download,
    hub::{self, Want},
};

/// How often `stop` is asked.
const TICK: Duration = Duration::from_millis(25);
/// How long a stop waits for files to be closed.
const GRACE: Duration = Duration::from_millis(500);

/// What the threads send to the caller's.
enum Message {
    Event(Event),
    End(Result<Outcome>),
}

/// What all threads of a fetch share.
pub(super) struct Desk {
    pub(super) job: Job,
    pub(super) settings: Settings,
    pub(super) client: Client,
    /// What the job wants, once it is known.
    pub(super) wanted: OnceLock<Vec<Want>>,
    /// Whether any server has answered.
    pub(super) reached: AtomicBool,
    sender: Sender<Message>,
    halted: Mutex<bool>,
    on_halt: Condvar,
}

/// Ends the threads, however the caller is left.
struct Halting<'a>(&'a Desk);

impl Drop for Halting<'_> {
    fn drop(&mut self) {
        self.0.halt();
    }
}

/// See [`super::fetch`].
pub(super) fn run(
    job: &Job,
    settings: &Settings,
    tell: &(dyn Fn(Event) + Sync),
    stop: &dyn Fn() -> bool,
) -> Result<Outcome> {
    let (sender, receiver) = channel();
    let desk = Arc::new(Desk {
        job: job.clone(),
        settings: settings.clone(),
        client: Client::new(settings)?,
        wanted: OnceLock::new(),
        reached: AtomicBool::new(false),
        sender,
        halted: Mutex::new(false),
        on_halt: Condvar::new(),
    });
    let working = Arc::clone(&desk);
    thread::Builder::new()
        .name("fetch".to_owned())
        .spawn(move || {
            let result = working.work();
            // Nobody listens where the caller has stopped.
            let _ = working.sender.send(Message::End(result));
        })
        .context("failed to start a thread for downloads")?;
    let _halting = Halting(&desk);
    attend(&desk, &receiver, tell, stop)
}

fn attend(
    desk: &Desk,
    receiver: &Receiver<Message>,
    tell: &(dyn Fn(Event) + Sync),
    stop: &dyn Fn() -> bool,
) -> Result<Outcome> {
    let mut until = None;
    loop {
        if until.is_none() && stop() {
            desk.halt();
            until = Some(Instant::now() + GRACE);
        }
        if until.is_some_and(|until| Instant::now() >= until) {
            return Err(Stopped.into());
        }
        match receiver.recv_timeout(TICK) {
            Ok(Message::Event(event)) => tell(event),
            Ok(Message::End(Err(_))) if until.is_some() => return Err(Stopped.into()),
            Ok(Message::End(result)) => return result,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => bail!("the thread of a download broke off"),
        }
    }
}

impl Desk {
    /// Says what goes on.
    pub(super) fn tell(&self, event: Event) {
        let _ = self.sender.send(Message::Event(event));
    }

    /// Ends all that is under way.
    fn halt(&self) {
        *self.halted() = true;
        self.on_halt.notify_all();
        self.client.close();
    }

    fn halted(&self) -> MutexGuard<'_, bool> {
        self.halted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes on, unless the fetch is to end.
    ///
    /// # Errors
    /// [`Stopped`].
    pub(super) fn go_on(&self) -> Result<(), Stopped> {
        if *self.halted() { Err(Stopped) } else { Ok(()) }
    }

    /// Waits.
    ///
    /// # Errors
    /// [`Stopped`], at once where the fetch is to end.
    pub(super) fn sleep(&self, time: Duration) -> Result<(), Stopped> {
        let halted = self.halted();
        let (halted, _) = self
            .on_halt
            .wait_timeout_while(halted, time, |halted| !*halted)
            .unwrap_or_else(PoisonError::into_inner);
        if *halted { Err(Stopped) } else { Ok(()) }
    }

    /// The folder that names of files are relative to.
    pub(super) fn root(&self) -> &Path {
        match self.job.source {
            Source::HuggingFace { .. } => &self.job.to,
            Source::Url { .. } => match self.job.to.parent() {
                Some(parent) if parent != Path::new("") => parent,
                _ => Path::new("."),
            },
        }
    }

    /// Where a file goes.
    pub(super) fn path(&self, want: &Want) -> PathBuf {
        match self.job.source {
            Source::HuggingFace { .. } => self.job.to.join(&want.file),
            Source::Url { .. } => self.job.to.clone(),
        }
    }

    /// The whole fetch.
    fn work(&self) -> Result<Outcome> {
        let wanted = hub::wanted(self, &self.job)?;
        let sizes: Option<Vec<u64>> = wanted.files.iter().map(|want| want.size).collect();
        self.tell(Event::Listed {
            files: wanted.files.len(),
            bytes: sizes.map(|sizes| sizes.iter().sum()),
            commit: wanted.commit.clone(),
        });
        let wants = self.wanted.get_or_init(|| wanted.files);
        // All that is there is looked at before anything is downloaded.
        let found = self.each(wants, download::look)?;
        let (missing, mut files) = download::sort(self, wants, found)?;
        download::warn_of_room(self, &missing);
        files.extend(self.each(&missing, |desk, want| download::file(desk, want))?);
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Outcome {
            commit: wanted.commit,
            files,
        })
    }

    /// Acts on all items, a few at a time; results come in the items' order. The first
    /// error ends the rest.
    fn each<T: Sync, R: Send>(
        &self,
        items: &[T],
        act: impl Fn(&Self, &T) -> Result<R> + Sync,
    ) -> Result<Vec<R>> {
        let next = AtomicUsize::new(0);
        let results = Mutex::new(Vec::with_capacity(items.len()));
        let failure = Mutex::new(None);
        let fail = |error: anyhow::Error| {
            let mut failure = failure.lock().unwrap_or_else(PoisonError::into_inner);
            // Others that end because of this one come later.
            failure.get_or_insert(error);
            drop(failure);
            self.halt();
        };
        let work = || {
            while let Some((index, item)) = {
                let index = next.fetch_add(1, Ordering::Relaxed);
                items.get(index).map(|item| (index, item))
            } {
                match self
                    .go_on()
                    .map_err(Into::into)
                    .and_then(|()| act(self, item))
                {
                    Ok(result) => results
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push((index, result)),
                    Err(error) => return fail(error),
                }
            }
        };
        thread::scope(|scope| {
            for number in 0..self.settings.parallel.min(items.len()) {
                let started = thread::Builder::new()
                    .name(format!("fetch-{number}"))
                    .spawn_scoped(scope, work);
                if let Err(error) = started {
                    fail(anyhow::Error::new(error).context("failed to start a thread"));
                }
            }
        });
        if let Some(error) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
        results.sort_by_key(|(index, _)| *index);
        Ok(results.into_iter().map(|(_, result)| result).collect())
    }
}

/// What a look at a target has found.
pub(super) enum Found {
    /// Nothing.
    Nothing,
    /// The right file.
    Right(Fetched),
    /// Something else; says what.
    Wrong(String),
}
