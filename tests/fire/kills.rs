//! `kill -9` at each file system call of a run: into an empty cache, into one with half of the
//! results, and with another run alive on the same cache.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
};

use super::*;

/// The calls by which a run touches files.
const CALLS: [&str; 20] = [
    "openat",
    "openat2",
    "write",
    "pwrite64",
    "fsync",
    "linkat",
    "renameat",
    "renameat2",
    "unlinkat",
    "mkdir",
    "mkdirat",
    "fchmod",
    "close",
    "newfstatat",
    "statx",
    "getdents64",
    "read",
    "fcntl",
    "utimensat",
    "ftruncate",
];

/// What is there when the run that is killed begins.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Begin {
    Cold,
    Warm,
    Beside,
}

/// Where to kill: at the `at`-th such call of any thread.
#[derive(Debug, Clone, Copy)]
struct Point {
    begin: Begin,
    call: &'static str,
    at: usize,
}

/// The most calls of each sort that one thread of a run makes.
fn most(space: &Space, words: &[&str]) -> BTreeMap<&'static str, usize> {
    let ran = under(space, words, &CALLS.map(str::to_owned));
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let text = fs::read_to_string(space.path().join("trace")).unwrap();
    let mut counts: HashMap<(&str, &str), usize> = HashMap::new();
    for line in text.lines().filter(|line| !line.contains("resumed>")) {
        // `1234 fsync(3) = 0`
        let mut words = line.split_whitespace();
        if let (Some(thread), Some(rest)) = (words.next(), words.next())
            && let Some((call, _)) = rest.split_once('(')
        {
            *counts.entry((thread, call)).or_default() += 1;
        }
    }
    let mut most = BTreeMap::new();
    for call in CALLS {
        let of_call = counts.iter().filter(|((_, name), _)| *name == call);
        if let Some(count) = of_call.map(|(_, count)| *count).max() {
            most.insert(call, count);
        }
    }
    most
}

#[test]
fn a_run_killed_at_any_call_leaves_nothing_wrong_and_loses_nothing_told() {
    if !can_inject() {
        return;
    }
    let mut points = Vec::new();
    for (begin, space, words) in [
        (Begin::Cold, project(), ONE),
        (Begin::Warm, warm(), TWO),
        (Begin::Beside, project(), ONE),
    ] {
        for (call, most) in most(&space, words) {
            points.extend((1..=most).map(|at| Point { begin, call, at }));
        }
    }
    assert!(points.len() > 300, "{} points", points.len());
    let mut numbers = Numbers(0x2545_f491_4f6c_dd1d);
    let mut done: Vec<Kill> = Vec::new();
    let dead = |done: &[Kill]| done.iter().filter(|kill| kill.dead).count();
    if long() {
        // Every point, and again until there were a thousand kills.
        while dead(&done) < 1000 {
            assert!(done.len() < 4 * points.len(), "only {} kills", dead(&done));
            done.extend(each(&points, kill_at));
        }
    } else {
        let sample: Vec<Point> = (0..25)
            .map(|_| points[numbers.below(points.len())])
            .collect();
        done = each(&sample, kill_at);
        assert!(dead(&done) > 10, "{} kills", dead(&done));
    }
    let (killed, runs) = (dead(&done), done.len());
    let told_some = done.iter().filter(|kill| kill.had_told).count();
    let by_begin = [Begin::Cold, Begin::Warm, Begin::Beside].map(|begin| {
        let of = |kill: &&Kill| kill.dead && kill.begin == begin;
        done.iter().filter(of).count()
    });
    saw(&format!(
        "{killed} kills in {runs} runs at {} points, {by_begin:?} cold, warm and beside \
         another; {told_some} had told of something; nothing wrong, nothing lost",
        points.len()
    ));
    assert!(told_some > 0);
}

/// What came of one kill.
struct Kill {
    begin: Begin,
    /// Whether the run was killed; in another one no thread made so many calls.
    dead: bool,
    /// Whether it had told anything to be done by then.
    had_told: bool,
}

/// Kills a run there and checks everything.
fn kill_at(point: &Point) -> Kill {
    let Point { begin, call, at } = *point;
    let case = format!("{begin:?}, killed at {call} {at}");
    let (space, words) = match begin {
        Begin::Cold | Begin::Beside => (project(), ONE),
        Begin::Warm => (warm(), TWO),
    };
    let fault = [format!("{call}:signal=SIGKILL:when={at}")];
    let other = (begin == Begin::Beside).then(|| start(&space, words, "other.jsonl", &[]));
    let ended = under(&space, words, &fault);
    let mut told = Told::by(&space, "events.jsonl", &ended.stderr);
    let had_told = ended.code.is_none() && !told.is_empty();
    if let Some(other) = other {
        let ended = end(other, &case);
        assert_eq!(ended.code, Some(0), "{case}, the other: {}", ended.stderr);
        let its = Told::by(&space, "other.jsonl", &ended.stderr);
        assert_eq!(its.nodes.len(), reference(words).keys.len(), "{case}");
        told.nodes.extend(its.nodes);
    }
    assert!(
        ended.code.is_none_or(|code| code == 0),
        "{case}: {}",
        ended.stderr
    );
    heals(&space, words, &told, &case);
    if begin == Begin::Warm {
        // What was there before is still there.
        let (ran, happened) = space.exec(ONE);
        assert_eq!(ran.code, 0, "{case}: {}", ran.stderr);
        assert!(
            happened.iter().all(|(_, word)| word == "hit"),
            "{case}: {happened:?}"
        );
        assert!(
            exported(&space, ONE, &case) == reference(ONE).result,
            "{case}"
        );
    }
    Kill {
        begin,
        dead: ended.code.is_none(),
        had_told,
    }
}
