//! When a request may be sent: what all workers of a call share.

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{Settings, call::spacing, workers::backoff};

/// The state behind one call: which request is next, pauses, the rate.
pub(super) struct Pace {
    state: Mutex<State>,
    changed: Condvar,
    total: usize,
    workers: usize,
    spacing: Duration,
    backoff: Duration,
    longest_wait: Duration,
    retries: usize,
}

struct State {
    next: usize,
    ended: bool,
    /// Requests on the wire.
    under_way: usize,
    /// How many may be; less than one per worker after a pause.
    allowed: f64,
    not_before: Instant,
    next_slot: Instant,
    /// Counts pauses, so that replies to requests sent before one do not start another.
    pauses: u64,
    /// Pauses since the last answer.
    in_vain: usize,
}

/// Leave to send one request.
pub(super) struct Ticket {
    pauses: u64,
}

/// What became of a server's wish for a pause.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// All requests wait from now on.
    Begun(Duration),
    /// They wait already.
    Known,
    /// It is longer than is ever waited; the call has ended.
    TooLong(Duration),
    /// This many pauses brought no answer; the call has ended.
    TooOften(usize),
}

impl Pace {
    pub(super) fn new(total: usize, workers: usize, settings: &Settings) -> Self {
        let now = Instant::now();
        Self {
            state: Mutex::new(State {
                next: 0,
                ended: false,
                under_way: 0,
                allowed: workers as f64,
                not_before: now,
                next_slot: now,
                pauses: 0,
                in_vain: 0,
            }),
            changed: Condvar::new(),
            total,
            workers,
            spacing: spacing(settings.requests_per_minute),
            backoff: settings.backoff,
            longest_wait: settings.longest_wait,
            retries: settings.retries,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is plain numbers, whole after every line.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(
        &self,
        state: MutexGuard<'a, State>,
        time: Option<Duration>,
    ) -> MutexGuard<'a, State> {
        match time {
            Some(time) => {
                self.changed
                    .wait_timeout(state, time)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0
            }
            None => self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// The next request's index; `None` where none is left or the call has ended.
    pub(super) fn take(&self) -> Option<usize> {
        let mut state = self.lock();
        if state.ended || state.next == self.total {
            return None;
        }
        state.next += 1;
        Some(state.next - 1)
    }

    /// Waits until a request may be sent; `None` where the call has ended.
    pub(super) fn enter(&self) -> Option<Ticket> {
        let mut state = self.lock();
        loop {
            if state.ended {
                return None;
            }
            if state.under_way >= state.allowed as usize {
                state = self.wait(state, None);
                continue;
            }
            let now = Instant::now();
            let ready = state.not_before.max(state.next_slot);
            if now < ready {
                state = self.wait(state, Some(ready - now));
                continue;
            }
            state.next_slot = now + self.spacing;
            state.under_way += 1;
            return Some(Ticket {
                pauses: state.pauses,
            });
        }
    }

    /// A request came back, with an answer or without.
    pub(super) fn leave(&self, _: Ticket, answered: bool) {
        let mut state = self.lock();
        state.under_way -= 1;
        if answered {
            state.in_vain = 0;
            // One more for each round of answers, as TCP does it.
            state.allowed = (state.allowed + 1.0 / state.allowed).min(self.workers as f64);
        }
        self.changed.notify_all();
    }

    /// A request came back with the wish for a pause.
    ///
    /// It halves what may be under way. Replies to requests that were sent before a
    /// pause do not lengthen it, unless they name a longer one.
    pub(super) fn pause(
        &self,
        Ticket { pauses }: Ticket,
        wish: Option<Duration>,
        jittered: fn(Duration) -> Duration,
    ) -> Verdict {
        let mut state = self.lock();
        state.under_way -= 1;
        self.changed.notify_all();
        if let Some(wish) = wish.filter(|wish| *wish > self.longest_wait) {
            state.ended = true;
            return Verdict::TooLong(wish);
        }
        let fresh = pauses == state.pauses;
        if fresh {
            state.pauses += 1;
            state.in_vain += 1;
            state.allowed = (state.allowed / 2.0).max(1.0);
        }
        // Whatever is still under way may bring an answer.
        if state.in_vain > self.retries && state.under_way == 0 {
            state.ended = true;
            return Verdict::TooOften(state.in_vain - 1);
        }
        let wait = match wish {
            Some(wish) => wish,
            None if fresh => jittered(backoff(self.backoff, state.in_vain)),
            None => return Verdict::Known,
        };
        let until = Instant::now() + wait;
        if !fresh && until <= state.not_before + self.backoff {
            return Verdict::Known;
        }
        state.not_before = state.not_before.max(until);
        Verdict::Begun(wait)
    }

    /// Waits; false where the call has ended meanwhile.
    pub(super) fn sleep(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        let mut state = self.lock();
        loop {
            if state.ended {
                return false;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            state = self.wait(state, Some(left));
        }
    }

    /// Sends nothing more.
    pub(super) fn end(&self) {
        self.lock().ended = true;
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(workers: usize, change: impl FnOnce(&mut Settings)) -> Pace {
        let mut settings = Settings::new("http://h/v1", "m");
        settings.retries = 2;
        change(&mut settings);
        Pace::new(100, workers, &settings)
    }

    fn none(_: Duration) -> Duration {
        Duration::ZERO
    }

    #[test]
    fn each_request_is_taken_once() {
        let pace = pace(2, |_| {});
        let taken: Vec<usize> = std::iter::from_fn(|| pace.take()).collect();
        assert_eq!(taken, (0..100).collect::<Vec<_>>());
        pace.end();
        assert!(pace.enter().is_none() && !pace.sleep(Duration::from_secs(9)));
    }

    #[test]
    fn replies_from_before_a_pause_count_as_one() {
        let pace = pace(3, |s| s.backoff = Duration::ZERO);
        let tickets: Vec<Ticket> = (0..3).map(|_| pace.enter().unwrap()).collect();
        let verdicts: Vec<Verdict> = tickets
            .into_iter()
            .map(|ticket| pace.pause(ticket, None, none))
            .collect();
        assert_eq!(
            verdicts,
            [
                Verdict::Begun(Duration::ZERO),
                Verdict::Known,
                Verdict::Known
            ]
        );
        let state = pace.lock();
        assert_eq!((state.in_vain, state.under_way), (1, 0));
        assert!((state.allowed - 1.5).abs() < 1e-9);
    }

    #[test]
    fn pauses_in_vain_end_the_call_but_answers_begin_the_count_anew() {
        let pace = pace(2, |_| {});
        let pause = || pace.pause(pace.enter().unwrap(), None, none);
        assert_eq!(pause(), Verdict::Begun(Duration::ZERO));
        assert_eq!(pause(), Verdict::Begun(Duration::ZERO));
        pace.leave(pace.enter().unwrap(), true);
        assert_eq!(pause(), Verdict::Begun(Duration::ZERO));
        assert_eq!(pause(), Verdict::Begun(Duration::ZERO));
        assert_eq!(pause(), Verdict::TooOften(2));
        assert!(pace.take().is_none());
    }

    #[test]
    fn a_pause_holds_everybody_and_one_that_is_too_long_ends_the_call() {
        let pace = pace(2, |s| s.longest_wait = Duration::from_secs(5));
        let begun = Instant::now();
        let wish = Duration::from_millis(60);
        assert_eq!(
            pace.pause(pace.enter().unwrap(), Some(wish), none),
            Verdict::Begun(wish)
        );
        let ticket = pace.enter().unwrap();
        assert!(begun.elapsed() >= wish);
        let wish = Duration::from_secs(6);
        assert_eq!(pace.pause(ticket, Some(wish), none), Verdict::TooLong(wish));
        assert!(pace.enter().is_none());
    }

    #[test]
    fn after_a_pause_fewer_are_under_way_until_answers_come() {
        let pace = pace(2, |s| s.backoff = Duration::ZERO);
        pace.pause(pace.enter().unwrap(), None, none);
        let only = pace.enter().unwrap();
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| sender.send(pace.enter().is_some()));
            let wait = Duration::from_millis(50);
            assert!(
                receiver.recv_timeout(wait).is_err(),
                "a second one went out"
            );
            pace.leave(only, true);
            assert!(receiver.recv_timeout(Duration::from_secs(5)).unwrap());
        });
        // The answer made room for one more.
        assert!(pace.enter().is_some());
    }

    #[test]
    fn requests_keep_the_rate() {
        let pace = pace(8, |s| s.requests_per_minute = Some(3000));
        let begun = Instant::now();
        for _ in 0..5 {
            pace.enter().unwrap();
        }
        assert!(begun.elapsed() >= Duration::from_millis(80));
    }
}
