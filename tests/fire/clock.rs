//! Machines whose clock is three days off, with the collection of another one beside a run.

use std::time::SystemTime;

use super::*;

/// A node that takes long, and reads what it needs only then.
const SLOW: &str = "slow";
/// Where distributions keep the library.
const PLACES: [&str; 6] = [
    "/usr/lib/x86_64-linux-gnu/faketime",
    "/usr/lib/aarch64-linux-gnu/faketime",
    "/usr/lib64/faketime",
    "/usr/lib/faketime",
    "/usr/local/lib/faketime",
    "/opt/homebrew/lib/faketime",
];

/// The library that gives a program another time; says so if there is none.
fn library() -> Option<PathBuf> {
    let found = PLACES
        .iter()
        .map(|place| Path::new(place).join("libfaketimeMT.so.1"))
        .find(|path| path.exists());
    if found.is_none() {
        left_out(
            "wrong clocks",
            "libfaketime is not installed (Debian: `faketime`)",
        );
    }
    found
}

/// Lets a command see a clock that is this far off, such as `-3d`; nothing is the true time.
fn skew(command: &mut Command, library: &Path, by: &str) {
    if !by.is_empty() {
        command
            .env("LD_PRELOAD", library)
            .env("FAKETIME", by)
            // Waiting goes on as it does on such a machine.
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    }
}

/// Makes everything in the cache two days old.
fn age(cache: &Path) {
    let then = SystemTime::now() - Duration::from_hours(48);
    for path in files(cache) {
        let file = fs::File::open(path).unwrap();
        file.set_times(fs::FileTimes::new().set_modified(then))
            .unwrap();
    }
}

/// One case: how far the clocks of the run and of the collection are off, and whether that
/// deletes at once. Returns how many records were collected.
fn collect_beside(library: &Path, run: &str, gc: &str, empty: bool) -> u64 {
    let case = format!("run {run:?}, collection {gc:?}, at once: {empty}");
    let space = warm();
    let slow = format!(
        "[nodes.{SLOW}]\nkind = \"probe\"\nvalue = \"slow\"\nmilliseconds = 1500\n\
         inputs = [\"a0_{LONG_NAME}\"]\n"
    );
    space.write("p.toml", &(pipeline() + &slow));
    age(&space.cache());
    let mut all = vec!["exec"];
    all.extend(TWO);
    let mut command = space.command(&all);
    skew(&mut command, library, run);
    let said = space.path().join("said");
    let mut child = command
        .stdout(Stdio::null())
        .stderr(fs::File::create(&said).unwrap())
        .spawn()
        .unwrap();
    // What the run found is in use from here on; before, it was only old.
    let text = || fs::read_to_string(&said).unwrap();
    let began = std::time::Instant::now();
    while !text().contains(&format!("start  {SLOW}")) && began.elapsed() < LIMIT {
        thread::sleep(Duration::from_millis(10));
    }
    thread::sleep(Duration::from_millis(200));
    let mut records = 0;
    let status = loop {
        let mut args = vec!["cache", "gc", "--max-age", "1d", "--grace", "1h", "--json"];
        if empty {
            args.push("--empty-trash");
        }
        let mut command = space.command(&args);
        skew(&mut command, library, gc);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{case}: {output:?}");
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        records += report["records"]["files"].as_u64().unwrap();
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
    };
    assert!(status.success(), "{case}: {}", text());
    let (ran, happened) = space.exec(TWO);
    assert_eq!(ran.code, 0, "{case}: {}", ran.stderr);
    assert_eq!(happened.len(), 7, "{case}");
    assert!(
        happened.iter().all(|(_, word)| word == "hit"),
        "{case}: {happened:?}"
    );
    assert!(
        exported(&space, TWO, &case) == reference(TWO).result,
        "{case}"
    );
    assert_eq!(wrong(&space.cache()), [""; 0], "{case}");
    records
}

#[test]
fn a_clock_three_days_off_lets_a_collection_take_nothing_that_is_in_use() {
    let Some(library) = library() else {
        return;
    };
    // The test of the test: the library does what it should.
    let mut date = Command::new("date");
    skew(date.arg("+%s"), &library, "-3d");
    let told = String::from_utf8(date.output().unwrap().stdout).unwrap();
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    let behind = now.as_secs() - told.trim().parse::<u64>().unwrap();
    assert!((259_000..259_500).contains(&behind), "{behind} s behind");

    let mut cases = vec![("-3d", "", true), ("+3d", "", false), ("", "+3d", true)];
    if long() {
        cases.clear();
        for (run, gc) in [
            ("-3d", ""),
            ("+3d", ""),
            ("", "-3d"),
            ("", "+3d"),
            ("-3d", "+3d"),
        ] {
            cases.extend([(run, gc, false), (run, gc, true)].repeat(4));
        }
    }
    let count = cases.len();
    let mut collected = 0;
    for few in cases.chunks(3) {
        collected += thread::scope(|scope| {
            let one = |&(run, gc, empty): &(&'static str, &'static str, bool)| {
                let library = &library;
                scope.spawn(move || collect_beside(library, run, gc, empty))
            };
            let threads: Vec<_> = few.iter().map(one).collect();
            let counts = threads.into_iter().map(|thread| thread.join().unwrap());
            counts.sum::<u64>()
        });
    }
    saw(&format!(
        "{count} runs beside collections with a clock 3 days off: {collected} unused records \
         collected, none in use"
    ));
    // Results of the other pipeline, which nobody used for two days.
    assert!(collected >= count as u64, "{collected}");
}

#[test]
fn a_clock_that_jumps_between_two_runs_hides_no_change_and_loses_nothing() {
    let Some(library) = library() else {
        return;
    };
    for (first, second) in [("+3d", ""), ("", "-3d"), ("+3d", "-3d"), ("-3d", "+3d")] {
        let case = format!("first {first:?}, then {second:?}");
        let space = project();
        let run = |by: &str, words: &[&str]| {
            let mut all = vec!["exec"];
            all.extend(words);
            let mut command = space.command(&all);
            skew(&mut command, &library, by);
            let output = command.output().unwrap();
            let stderr = String::from_utf8(output.stderr).unwrap();
            assert!(output.status.success(), "{case}: {stderr}");
            stderr
        };
        run(first, ONE);
        let again = run(second, ONE);
        assert!(!again.contains("start  "), "{case}: {again}");
        let collected = space.run(&[
            "cache",
            "gc",
            "--max-age",
            "1d",
            "--grace",
            "1h",
            "--empty-trash",
        ]);
        assert_eq!(collected.code, 0, "{case}: {}", collected.stderr);
        let again = run(second, ONE);
        assert!(!again.contains("start  "), "{case}: {again}");
        // A change of the pipeline's file is seen, whatever the time.
        space.write("p.toml", &pipeline().replace("\"one\"", "\"two\""));
        run(second, ONE);
        assert!(
            exported(&space, ONE, &case) == reference(TWO).result,
            "{case}"
        );
        let report = open(&space).verify(false, &mut |_, _| ()).unwrap();
        assert!(report.is_clean(), "{case}: {report:?}");
    }
}
