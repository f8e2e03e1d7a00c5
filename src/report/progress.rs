//! Live progress on a terminal: a line for every node that has run for more
//! than a second, what is done above it, the whole below it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{Sink, journal::Journal, words, work::Work};
use crate::{
    pipeline::{Graph, NodeId},
    run::Event,
};

/// How long something must take to be shown.
const PATIENCE: Duration = Duration::from_secs(1);

/// Time between two drawings.
const TICK: Duration = Duration::from_millis(100);

/// Columns for a node's name.
const NAME: usize = 28;

/// Columns for a bar.
const BAR: usize = 20;

/// Draws to standard error, which must be a terminal.
pub struct Progress {
    live: Arc<Mutex<Live>>,
    ticker: Option<JoinHandle<()>>,
}

impl Progress {
    /// Starts to draw; `color` allows colour.
    pub fn new(color: bool) -> Self {
        Self::on(ProgressDrawTarget::stderr_with_hz(15), color)
    }

    fn on(target: ProgressDrawTarget, color: bool) -> Self {
        let live = Arc::new(Mutex::new(Live {
            screen: MultiProgress::with_draw_target(target),
            journal: Journal::new(color, true),
            running: BTreeMap::new(),
            whole: None,
            since: Instant::now(),
            nodes: 0,
            hits: 0,
            ran: 0,
            failed: 0,
            over: false,
            color,
        }));
        let shared = Arc::clone(&live);
        let ticker = thread::spawn(move || {
            loop {
                thread::park_timeout(TICK);
                let mut live = lock(&shared);
                if live.over {
                    break;
                }
                live.draw(Instant::now());
            }
        });
        Self {
            live,
            ticker: Some(ticker),
        }
    }

    fn stop(&mut self) {
        lock(&self.live).end();
        if let Some(ticker) = self.ticker.take() {
            ticker.thread().unpark();
            // It cannot panic in a way that matters here: drawing is over.
            let _ = ticker.join();
        }
    }
}

impl Sink for Progress {
    fn event(&mut self, event: &Event, graph: &Graph) {
        let over = matches!(event, Event::RunFinished { .. });
        if over {
            self.stop();
        }
        lock(&self.live).take(event, graph, Instant::now());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.stop();
    }
}

fn lock(live: &Mutex<Live>) -> MutexGuard<'_, Live> {
    // What a panicking thread left behind can still be drawn.
    live.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running node and its line, once it has one.
struct Running {
    name: String,
    work: Work,
    bar: Option<ProgressBar>,
}

impl Running {
    /// Name, bar, items, rate and time left.
    fn line(&self, now: Instant, color: bool) -> String {
        let name = fit(&self.name, NAME);
        let pace = self.work.pace(now);
        let Some((done, total)) = self.work.position() else {
            let age = words::duration(now.saturating_duration_since(self.work.since));
            let comma = if pace.is_empty() { "" } else { ", " };
            return format!("{name}  {age}{comma}{pace}");
        };
        let full = (done * BAR as u64 / total.max(1)) as usize;
        let (full, rest) = ("━".repeat(full), "─".repeat(BAR - full));
        let bar = if color {
            format!("\u{1b}[32m{full}\u{1b}[0;2m{rest}\u{1b}[0m")
        } else {
            full + &rest
        };
        let items = format!("{}/{}", words::count(done), words::count(total));
        format!("{name}  {bar}  {items}  {pace}")
            .trim_end()
            .to_owned()
    }
}

struct Live {
    screen: MultiProgress,
    journal: Journal,
    running: BTreeMap<NodeId, Running>,
    /// The line about the whole run, always last.
    whole: Option<ProgressBar>,
    since: Instant,
    nodes: usize,
    hits: usize,
    ran: usize,
    failed: usize,
    over: bool,
    color: bool,
}

impl Live {
    fn take(&mut self, event: &Event, graph: &Graph, now: Instant) {
        match event {
            Event::RunStarted { nodes, .. } => {
                self.nodes = *nodes;
                self.since = now;
            }
            Event::Started { node, .. } => {
                let running = Running {
                    name: words::clean_lines(&graph.node(*node).id).collect(),
                    work: Work::new(now),
                    bar: None,
                };
                self.running.insert(*node, running);
            }
            Event::Loading { node, .. }
            | Event::Items { node, .. }
            | Event::Batch { node, .. }
            | Event::Progress { node, .. } => {
                if let Some(running) = self.running.get_mut(node) {
                    running.work.update(event, now);
                }
            }
            Event::Hit { .. } => self.hits += 1,
            Event::Ran { node, .. } | Event::Audited { node, .. } => {
                self.ran += 1;
                self.remove(*node);
            }
            Event::Failed { node, .. } => {
                self.failed += 1;
                self.remove(*node);
            }
            Event::Held { .. }
            | Event::Blocked { .. }
            | Event::Warning { .. }
            | Event::Stopping
            | Event::RunFinished { .. } => {}
        }
        for line in self.journal.lines(event, graph) {
            let _ = self.screen.println(line);
        }
    }

    fn remove(&mut self, node: NodeId) {
        if let Some(bar) = self.running.remove(&node).and_then(|running| running.bar) {
            bar.finish_and_clear();
            self.screen.remove(&bar);
        }
    }

    /// Brings every line up to date and adds those that are due.
    fn draw(&mut self, now: Instant) {
        if now.saturating_duration_since(self.since) < PATIENCE {
            return;
        }
        let whole = self.whole.get_or_insert_with(|| {
            let bar = self.screen.add(ProgressBar::new_spinner());
            bar.set_style(style());
            bar
        });
        for running in self.running.values_mut() {
            let age = now.saturating_duration_since(running.work.since);
            if age < PATIENCE {
                continue;
            }
            // One message a line and tick: every further call would be a drawing.
            let line = running.line(now, self.color);
            let bar = running.bar.get_or_insert_with(|| {
                let bar = self.screen.insert_before(whole, ProgressBar::new_spinner());
                bar.set_style(style());
                bar
            });
            bar.set_message(line);
        }
        whole.set_message(summary(
            self.nodes,
            self.hits,
            self.ran,
            self.failed,
            self.running.len(),
            now - self.since,
        ));
    }

    /// Clears all lines that are not for keeping.
    fn end(&mut self) {
        self.over = true;
        let nodes: Vec<_> = self.running.keys().copied().collect();
        for node in nodes {
            self.remove(node);
        }
        if let Some(whole) = self.whole.take() {
            whole.finish_and_clear();
            self.screen.remove(&whole);
        }
    }
}

/// The line about the whole run.
fn summary(
    nodes: usize,
    hits: usize,
    ran: usize,
    failed: usize,
    running: usize,
    time: Duration,
) -> String {
    let done = words::count((hits + ran + failed) as u64);
    let mut words = vec![format!("{done} of {}", words::counted(nodes, "node"))];
    for (count, noun) in [
        (hits, "from the cache"),
        (ran, "ran"),
        (failed, "failed"),
        (running, "running"),
    ] {
        if count > 0 {
            words.push(format!("{} {noun}", words::count(count as u64)));
        }
    }
    words.push(words::duration(time));
    words.join(" · ")
}

/// Lines are composed here and only cut to the terminal's width there.
fn style() -> ProgressStyle {
    ProgressStyle::with_template("{wide_msg}").unwrap_or_else(|_| ProgressStyle::default_spinner())
}

/// `name` in exactly `width` columns, its end kept when it is too long.
fn fit(name: &str, width: usize) -> String {
    let length = name.chars().count();
    if length <= width {
        return format!("{name:width$}");
    }
    let end: String = name.chars().skip(length - width + 1).collect();
    format!("…{end}")
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::{
        super::sample::{refinement, story},
        *,
    };

    /// Keeps everything that was written.
    #[derive(Clone, Debug, Default)]
    struct Paper(Arc<Mutex<String>>);

    impl indicatif::TermLike for Paper {
        fn width(&self) -> u16 {
            100
        }
        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn write_line(&self, text: &str) -> io::Result<()> {
            self.0.lock().unwrap().extend([text, "\n"]);
            Ok(())
        }
        fn write_str(&self, text: &str) -> io::Result<()> {
            self.0.lock().unwrap().push_str(text);
            Ok(())
        }
        fn clear_line(&self) -> io::Result<()> {
            Ok(())
        }
        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    fn live(paper: &Paper) -> Progress {
        let target = ProgressDrawTarget::term_like_with_hz(Box::new(paper.clone()), 255);
        Progress::on(target, false)
    }

    #[test]
    fn nothing_that_takes_less_than_a_second_gets_a_bar() {
        let graph = refinement();
        let paper = Paper::default();
        let mut progress = live(&paper);
        for (_, event) in story(&graph) {
            progress.event(&event, &graph);
        }
        drop(progress);
        let text = paper.0.lock().unwrap().clone();
        assert!(
            !text.contains('━') && !text.contains("of 19 nodes"),
            "{text}"
        );
        assert!(
            text.contains("    hit  images") && text.contains(" failed  refine.select@1"),
            "{text}"
        );
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }

    #[test]
    fn a_long_node_shows_items_rate_and_time_left() {
        let graph = refinement();
        let paper = Paper::default();
        let progress = live(&paper);
        let start = Instant::now();
        let mut lines = Vec::new();
        for (at, event) in story(&graph).iter().take_while(|(at, _)| *at < 12.0) {
            let now = start + Duration::from_secs_f64(*at);
            let mut live = lock(&progress.live);
            live.take(event, &graph, now);
            live.draw(now);
            lines.extend(
                live.running
                    .values()
                    .map(|running| running.line(now, false)),
            );
        }
        drop(progress);
        insta::assert_snapshot!(lines.join("\n"));
        let text = paper.0.lock().unwrap().clone();
        assert!(text.contains("refine.propose@1              ━━"), "{text}");
        assert!(
            text.contains("4 of 19 nodes · 4 from the cache · 1 running"),
            "{text}"
        );
    }

    #[test]
    fn a_long_name_keeps_its_end() {
        assert_eq!(fit("refine.propose@2", 8), "…opose@2");
        assert_eq!(fit("a", 3), "a  ");
    }
}
