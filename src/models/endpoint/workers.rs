//! Threads that send requests, and the one that hands over what comes back.
//!
//! Workers are detached and the call's end closes their connections, so that a
//! server that hangs holds up nobody. What all of them must agree on, the pauses
//! and the rate, is in one [`Pace`].

use std::{
    collections::{BTreeSet, hash_map::RandomState},
    hash::BuildHasher,
    mem::{Discriminant, discriminant},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use ureq::Agent;

use super::{
    call::Server,
    fault::{Problem, Then},
    note::{Failed, Note, Unanswered},
    pace::{Pace, Verdict},
    reply::Reply,
    request::Request,
};
use crate::models::llm::Stopped;

/// How often `stop` is asked.
const TICK: Duration = Duration::from_millis(25);
/// How long answers are still taken in after a stop.
const GRACE: Duration = Duration::from_millis(75);
/// Longest wait that doubling leads to.
const LONGEST_BACKOFF: Duration = Duration::from_mins(1);
/// This many prompts refused in the same words before any answer: all would be.
const SAME_REFUSALS: usize = 8;
/// At least this many requests must fail in a row before a server counts as dead.
const FEWEST_IN_A_ROW: usize = 3;
/// Where it does reply, the requests may be at fault, and it takes so many times more.
const PATIENCE: usize = 4;
/// A note that differs in numbers only is not repeated within this time.
const SAME_NOTE: Duration = Duration::from_secs(30);

/// Takes an answer and its request's index.
pub type OnAnswer<'a> = dyn FnMut(usize, Reply) -> Result<()> + 'a;

enum Event {
    Answer(usize, Reply),
    Note(Note),
    /// A request failed, and what was to follow from its last problem.
    Failed(Failed, Then),
    GaveUp(Problem),
}

/// Sends `requests` and hands over the answers; see [`super::Endpoint::ask`].
pub(super) fn run(
    server: &Arc<Server>,
    requests: Vec<Request>,
    on_answer: &mut OnAnswer<'_>,
    on_note: &mut dyn FnMut(Note),
    stop: &dyn Fn() -> bool,
) -> Result<()> {
    let total = requests.len();
    if total == 0 {
        return Ok(());
    }
    let workers = server.settings.parallel.min(total);
    let (sender, receiver) = channel();
    let call = Call {
        server: Arc::clone(server),
        agent: server.agent(),
        requests: Arc::new(requests),
        pace: Arc::new(Pace::new(total, workers, &server.settings)),
        sender,
    };
    let mut desk = Desk::new(server, &call, workers);
    for number in 0..workers {
        let call = call.clone();
        thread::Builder::new()
            .name(format!("endpoint-{number}"))
            .spawn(move || call.work())
            .context("failed to start a thread for requests")?;
    }
    // Only workers send, so that their end is seen.
    drop(call);
    desk.serve(&receiver, on_answer, on_note, stop)
}

/// The receiving side: counts, hands over, and judges when to give up.
struct Desk<'a> {
    server: &'a Server,
    agent: Agent,
    requests: Arc<Vec<Request>>,
    pace: Arc<Pace>,
    workers: usize,
    answered: usize,
    failed: Vec<Failed>,
    gave_up: Option<Problem>,
    /// Requests in a row that used up their attempts.
    spent: usize,
    /// Recent notes by kind and words.
    told: Vec<((Discriminant<Note>, String), Instant)>,
}

impl Drop for Desk<'_> {
    /// Ends the workers, however the call is left.
    fn drop(&mut self) {
        self.close();
    }
}

impl<'a> Desk<'a> {
    fn new(server: &'a Server, call: &Call, workers: usize) -> Self {
        Self {
            server,
            agent: call.agent.clone(),
            requests: Arc::clone(&call.requests),
            pace: Arc::clone(&call.pace),
            workers,
            answered: 0,
            failed: Vec::new(),
            gave_up: None,
            spent: 0,
            told: Vec::new(),
        }
    }

    /// Sends nothing more, and breaks off what is under way.
    fn close(&self) {
        self.pace.end();
        self.agent.clone().shutdown();
    }

    fn serve(
        &mut self,
        receiver: &Receiver<Event>,
        on_answer: &mut OnAnswer<'_>,
        on_note: &mut dyn FnMut(Note),
        stop: &dyn Fn() -> bool,
    ) -> Result<()> {
        loop {
            if stop() {
                return self.stopped(receiver, on_answer);
            }
            match receiver.recv_timeout(TICK) {
                Ok(event) => self.take(event, on_answer, on_note)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self.result(),
            }
        }
    }

    fn take(
        &mut self,
        event: Event,
        on_answer: &mut OnAnswer<'_>,
        on_note: &mut dyn FnMut(Note),
    ) -> Result<()> {
        match event {
            Event::Answer(index, reply) => {
                self.answered += 1;
                self.spent = 0;
                on_answer(index, reply)?;
            }
            Event::Note(note) => self.tell(note, on_note),
            Event::Failed(failed, spent) => {
                self.judge(&failed, spent);
                self.tell(Note::Failed(failed.clone()), on_note);
                self.failed.push(failed);
            }
            Event::GaveUp(problem) => self.give_up(problem),
        }
        Ok(())
    }

    /// A dead server gives the same note for every request; one is enough.
    fn tell(&mut self, note: Note, on_note: &mut dyn FnMut(Note)) {
        let words: String = (note.reason().chars())
            .filter(|c| !c.is_ascii_digit())
            .collect();
        let said = (discriminant(&note), words);
        let now = Instant::now();
        self.told
            .retain(|(_, at)| now.duration_since(*at) < SAME_NOTE);
        if !self.told.iter().any(|(told, _)| *told == said) {
            self.told.push((said, now));
            on_note(note);
        }
    }

    fn judge(&mut self, failed: &Failed, then: Then) {
        let reason = match then {
            Then::Refused => self.judge_refusal(failed),
            _ => self.judge_silence(failed, then),
        };
        if let Some(reason) = reason {
            let problem = Problem::hopeless(reason);
            self.give_up(match &failed.hint {
                Some(hint) => problem.hint(hint.clone()),
                None => problem,
            });
        }
    }

    /// Why all other requests will be refused as well, if so.
    fn judge_refusal(&mut self, failed: &Failed) -> Option<String> {
        let alike = self.failed.iter().all(|f| f.reason == failed.reason);
        if self.answered > 0 || !alike {
            return None;
        }
        let prompts: BTreeSet<&str> = (self.failed.iter().chain([failed]))
            .filter_map(|failed| self.requests.get(failed.request))
            .map(|request| request.user.as_str())
            .collect();
        (prompts.len() >= SAME_REFUSALS).then(|| {
            format!(
                "all of the first {} were refused alike: {}",
                self.failed.len() + 1,
                failed.reason
            )
        })
    }

    /// Why no other request will be answered either, if so.
    fn judge_silence(&mut self, failed: &Failed, then: Then) -> Option<String> {
        self.spent += 1;
        let enough = self.workers.max(FEWEST_IN_A_ROW);
        let enough = match then {
            Then::Reconnect => enough,
            _ => enough * PATIENCE,
        };
        (self.spent >= enough).then(|| {
            format!(
                "none of the last {} was answered in {} attempts each; the last: {}",
                self.spent,
                self.server.settings.retries + 1,
                failed.reason
            )
        })
    }

    fn give_up(&mut self, problem: Problem) {
        self.pace.end();
        self.gave_up.get_or_insert(problem);
    }

    /// Breaks off, and hands over what had just arrived.
    fn stopped(&self, receiver: &Receiver<Event>, on_answer: &mut OnAnswer<'_>) -> Result<()> {
        self.close();
        let until = Instant::now() + GRACE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match receiver.recv_timeout(left) {
                Ok(Event::Answer(index, reply)) => on_answer(index, reply)?,
                Ok(_) => {}
                Err(_) => return Err(Stopped.into()),
            }
        }
    }

    fn result(&mut self) -> Result<()> {
        if self.answered == self.requests.len() {
            return Ok(());
        }
        self.failed.sort_by_key(|failed| failed.request);
        let failed = std::mem::take(&mut self.failed);
        let (gave_up, hint) = match self.gave_up.take() {
            Some(problem) => (Some(problem.reason), problem.hint),
            None if self.answered + failed.len() < self.requests.len() => (
                Some("a thread that sends requests broke off".to_owned()),
                None,
            ),
            None => (None, failed.iter().find_map(|f| f.hint.clone())),
        };
        Err(Unanswered {
            url: self.server.base().to_owned(),
            requests: self.requests.len(),
            answered: self.answered,
            failed,
            gave_up,
            hint,
        }
        .into())
    }
}

/// What a worker needs.
#[derive(Clone)]
struct Call {
    server: Arc<Server>,
    agent: Agent,
    requests: Arc<Vec<Request>>,
    pace: Arc<Pace>,
    sender: Sender<Event>,
}

impl Call {
    /// Answers requests until none is left or the call ends.
    fn work(self) {
        while let Some(index) = self.pace.take() {
            let Some(request) = self.requests.get(index) else {
                return;
            };
            if !self.answer(index, request) {
                return;
            }
        }
    }

    /// Sends one request until its fate is known; false where the call has ended.
    fn answer(&self, index: usize, request: &Request) -> bool {
        let settings = &self.server.settings;
        let mut attempts = 0;
        loop {
            let Some(ticket) = self.pace.enter() else {
                return false;
            };
            let mut on_learning = |reason| {
                self.send(Event::Note(Note::Adapting { reason }));
            };
            let result = self.server.ask(&self.agent, request, &mut on_learning);
            let problem = match result {
                Ok(reply) => {
                    self.pace.leave(ticket, true);
                    return self.send(Event::Answer(index, reply));
                }
                Err(problem) => problem,
            };
            if let Then::Pause(wait) = problem.then {
                if !self.pause(&self.pace.pause(ticket, wait, jittered), problem) {
                    return false;
                }
                continue;
            }
            self.pace.leave(ticket, false);
            let failed = || Failed {
                request: index,
                reason: problem.reason.clone(),
                hint: problem.hint.clone(),
            };
            match problem.then {
                Then::Hopeless => {
                    self.pace.end();
                    return self.send(Event::GaveUp(problem));
                }
                then if then == Then::Refused || attempts == settings.retries => {
                    return self.send(Event::Failed(failed(), then));
                }
                _ => {}
            }
            attempts += 1;
            let wait = jittered(backoff(settings.backoff, attempts));
            let note = Note::Retrying {
                request: index,
                retry: attempts,
                retries: settings.retries,
                reason: problem.reason,
                wait,
            };
            if !self.send(Event::Note(note)) || !self.pace.sleep(wait) {
                return false;
            }
        }
    }

    /// Tells of a pause; false where it is the end.
    fn pause(&self, verdict: &Verdict, problem: Problem) -> bool {
        match *verdict {
            Verdict::Begun(wait) => self.send(Event::Note(Note::Pausing {
                reason: problem.reason,
                wait,
            })),
            Verdict::Known => true,
            Verdict::TooLong(wait) => {
                let reason = format!(
                    "{}; it asks for a pause of {} s, and at most {} s are waited",
                    problem.reason,
                    wait.as_secs(),
                    self.server.settings.longest_wait.as_secs()
                );
                self.send(Event::GaveUp(Problem::hopeless(reason)));
                false
            }
            Verdict::TooOften(times) => {
                let reason = format!(
                    "{}; after {times} pauses there was still no answer",
                    problem.reason
                );
                self.send(Event::GaveUp(
                    Problem::hopeless(reason)
                        .hint("lower `parallel`, or set `requests_per_minute`"),
                ));
                false
            }
        }
    }

    fn send(&self, event: Event) -> bool {
        self.sender.send(event).is_ok()
    }
}

/// Longest wait before the `retry`-th retry (1, 2, …).
pub(super) fn backoff(first: Duration, retry: usize) -> Duration {
    let doublings = retry.saturating_sub(1).min(30) as u32;
    first.saturating_mul(1 << doublings).min(LONGEST_BACKOFF)
}

/// A random part of a wait ("full jitter"), so that many clients spread out.
pub(super) fn jittered(wait: Duration) -> Duration {
    // A hasher of the standard library is seeded anew each time.
    let random = RandomState::new().hash_one(0u8) >> 11;
    wait.mul_f64(random as f64 / (1u64 << 53) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_minute_and_are_a_random_part() {
        let first = Duration::from_secs(2);
        let waits: Vec<u64> = (1..=8)
            .map(|retry| backoff(first, retry).as_secs())
            .collect();
        assert_eq!(waits, [2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(backoff(first, usize::MAX).as_secs(), 60);
        let parts: Vec<Duration> = (0..200).map(|_| jittered(first)).collect();
        assert!(parts.iter().all(|part| *part < first));
        let mean = parts.iter().sum::<Duration>().as_secs_f64() / 200.0;
        assert!((0.7..1.3).contains(&mean), "{mean}");
    }
}
