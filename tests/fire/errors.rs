//! Each file system call of a run in turn fails: once, or from then on as on a disk that is full.
//! The run says so or goes on, and never ends well with results that are lost or wrong.

use std::sync::Mutex;

use super::*;

/// Calls and the errors that the system may give for them.
const ERRORS: [(&str, &str); 24] = [
    ("write", "ENOSPC"),
    ("write", "EIO"),
    ("write", "EDQUOT"),
    ("fsync", "EIO"),
    ("fsync", "ENOSPC"),
    ("fsync", "EDQUOT"),
    ("linkat", "ENOSPC"),
    ("linkat", "EIO"),
    ("linkat", "EDQUOT"),
    ("openat", "EMFILE"),
    ("openat2", "EMFILE"),
    ("openat2", "ENFILE"),
    ("openat2", "EIO"),
    ("openat2", "ENOSPC"),
    ("mkdirat", "ENOSPC"),
    ("mkdirat", "EDQUOT"),
    ("mkdirat", "EIO"),
    ("mkdir", "ENOSPC"),
    ("renameat", "ENOSPC"),
    ("fchmod", "EIO"),
    ("unlinkat", "EIO"),
    ("read", "EIO"),
    ("getdents64", "EIO"),
    ("fcntl", "EMFILE"),
];
/// A run makes so many of one call in one thread, and hardly more.
const MOST: usize = 60;

/// Runs that failed without a hint where there is one to give.
static UNADVISED: Mutex<Vec<String>> = Mutex::new(Vec::new());

#[test]
fn a_run_in_which_any_call_fails_says_so_or_goes_on_and_never_ends_well_with_less() {
    if !can_inject() {
        return;
    }
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let mut cases = Vec::new();
    if long() {
        for (call, error) in ERRORS {
            for then in ["", "+"] {
                cases.extend([false, true].map(|warm| (call, error, then, warm, 1..=MOST)));
            }
        }
    } else {
        for _ in 0..25 {
            let (call, error) = ERRORS[numbers.below(ERRORS.len())];
            let then = ["", "+"][numbers.below(2)];
            let at = 1 + numbers.below(12);
            cases.push((call, error, then, numbers.below(3) == 0, at..=at));
        }
    }
    let results = each(&cases, |(call, error, then, begin_warm, places)| {
        let mut results = Vec::new();
        for at in places.clone() {
            results.push(fail_at(call, error, at, then, *begin_warm));
            // Beyond the last such call of a run there is nothing to find.
            if at > 3 && results.ends_with(&[None, None]) {
                break;
            }
        }
        results
    });
    let all = results.concat();
    let failed = all.iter().filter(|ended| **ended == Some(false)).count();
    let well = all.iter().filter(|ended| **ended == Some(true)).count();
    saw(&format!(
        "{} runs, errors in {} of them: {failed} failed with a message, {well} ended well with \
         right results; every repetition came to the same",
        all.len(),
        failed + well,
    ));
    assert!(failed > 3 && well > 0, "{failed} failed, {well} ended well");
    let unadvised = UNADVISED.lock().unwrap();
    let count = unadvised.len();
    assert_eq!(count, 0, "without a hint, such as: {:?}", unadvised.first());
}

/// Runs with that call failing; says whether the run ended well, nothing if no call failed.
fn fail_at(call: &str, error: &str, at: usize, then: &str, begin_warm: bool) -> Option<bool> {
    let case = format!("{call} fails by {error} at {at}{then}, warm: {begin_warm}");
    let (space, words) = if begin_warm {
        (warm(), TWO)
    } else {
        (project(), ONE)
    };
    let fault = [format!("{call}:error={error}:when={at}{then}")];
    let ended = under(&space, words, &fault);
    let fired = fired(&space);
    let told = Told::by(&space, "events.jsonl", &ended.stderr);
    let stderr = &ended.stderr;
    assert!(!stderr.contains("panicked"), "{case}: {stderr}");
    match ended.code {
        Some(0) => {
            // It says that all is well, so all is there, without another run.
            assert!(
                exported(&space, words, &case) == reference(words).result,
                "{case}"
            );
        }
        // What the message would be written to may be what fails; and a program that cannot
        // even be loaded is no run.
        Some(127) if call == "openat" || call == "read" => {}
        Some(1) if call == "write" => {}
        Some(1) => {
            assert!(
                stderr.contains("error: ") || stderr.contains("failed"),
                "{case}: {stderr}"
            );
            let advised = ["ENOSPC", "EDQUOT", "EMFILE", "ENFILE"].contains(&error);
            if advised && !stderr.contains("hint: ") {
                // What matters more is looked at first.
                UNADVISED.lock().unwrap().push(format!("{case}: {stderr}"));
            }
        }
        // The project's files come first, and what cannot be read of them is told as such.
        Some(3) if ["openat", "read"].contains(&call) => {
            assert!(stderr.contains("error: failed to read"), "{case}: {stderr}");
        }
        code => panic!("{case}: ended by {code:?}: {stderr}"),
    }
    let quarantined = error == "EIO" && ["openat2", "read"].contains(&call);
    if quarantined {
        // What could not be read was moved away, and is computed again.
        assert_eq!(wrong_but_missing(&space), [""; 0], "{case}");
        converges(&space, words, &Told::default(), &case);
    } else {
        heals(&space, words, &told, &case);
    }
    (fired > 0).then_some(ended.code == Some(0))
}

/// What is wrong in the cache, but for records whose objects were moved away.
fn wrong_but_missing(space: &Space) -> Vec<String> {
    let mut all = wrong(&space.cache());
    all.retain(|line| !line.ends_with("is not there"));
    all
}
