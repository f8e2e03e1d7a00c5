//! File systems that lie, or lack what others have, under a whole run.

use super::*;

/// What the file system does, the calls that do it, and whether a run may fail under it.
const LIES: [(&str, &[&str], bool); 13] = [
    (
        "says that every name is taken",
        &["linkat:error=EEXIST"],
        false,
    ),
    ("says that it linked", &["linkat:retval=0"], false),
    (
        "says that it linked or renamed",
        &["linkat:retval=0", "renameat2:retval=0"],
        false,
    ),
    (
        "says so of every renaming",
        &["linkat:retval=0", "renameat2:retval=0", "renameat:retval=0"],
        true,
    ),
    ("forgets to write", &["fsync:retval=0"], false),
    ("locks for everybody", &["flock:retval=0"], false),
    ("has no links", &["linkat:error=EPERM"], false),
    ("does not know links", &["linkat:error=EOPNOTSUPP"], false),
    ("has too many links", &["linkat:error=EMLINK"], false),
    (
        "has no links and no careful renaming",
        &["linkat:error=EPERM", "renameat2:error=EINVAL"],
        false,
    ),
    (
        "knows neither",
        &["linkat:error=ENOSYS", "renameat2:error=ENOSYS"],
        false,
    ),
    ("has no safe opening", &["openat2:error=ENOSYS"], false),
    ("forbids safe opening", &["openat2:error=EPERM"], false),
];

#[test]
fn a_file_system_that_lies_or_lacks_something_makes_no_wrong_result() {
    if !can_inject() {
        return;
    }
    let mut numbers = Numbers(0xd1b5_4a32_d192_ed03);
    let short = [numbers.below(LIES.len()), numbers.below(LIES.len())];
    for (i, (what, faults, may_fail)) in LIES.into_iter().enumerate() {
        // The first four are the ones that others got wrong.
        if !long() && i > 3 && !short.contains(&i) {
            continue;
        }
        let faults: Vec<String> = faults.iter().map(|&fault| fault.to_owned()).collect();
        for (space, words) in [(project(), ONE), (warm(), TWO)] {
            let ended = under(&space, words, &faults);
            let stderr = &ended.stderr;
            let case = format!("{what}: {}", words.len());
            if may_fail {
                assert_eq!(ended.code, Some(1), "{case}: {stderr}");
            } else {
                assert_eq!(ended.code, Some(0), "{case}: {stderr}");
                assert!(
                    exported(&space, words, &case) == reference(words).result,
                    "{case}"
                );
            }
            let told = Told::by(&space, "events.jsonl", stderr);
            heals(&space, words, &told, &case);
        }
    }
}

#[test]
fn a_name_that_is_not_found_or_stale_for_a_while_makes_no_wrong_result() {
    if !can_inject() {
        return;
    }
    let mut cases = Vec::new();
    for error in ["ESTALE", "ENOENT"] {
        for call in ["openat2", "newfstatat"] {
            for tries in [1, 2, 3, 8, 30] {
                for from in [1, 2, 3, 5, 8, 13, 21, 34] {
                    cases.push((error, call, from, tries));
                }
            }
        }
    }
    let mut numbers = Numbers(0xa076_1d64_78bd_642f);
    if !long() {
        cases = (0..12).map(|_| cases[numbers.below(cases.len())]).collect();
    }
    let (mut fired_in, mut failed, mut again) = (0, 0, 0);
    for (error, call, from, tries) in cases {
        for full in [false, true] {
            let case = format!("{call} fails by {error} {tries} times from {from}, full: {full}");
            let space = if full { warm() } else { project() };
            let fault = format!("{call}:error={error}:when={from}..{}", from + tries - 1);
            let ended = under(&space, ONE, &[fault]);
            let stderr = &ended.stderr;
            assert!(!stderr.contains("panicked"), "{case}: {stderr}");
            fired_in += usize::from(fired(&space) > 0);
            let told = Told::by(&space, "events.jsonl", stderr);
            match ended.code {
                Some(0) => assert!(
                    exported(&space, ONE, &case) == reference(ONE).result,
                    "{case}"
                ),
                Some(1) => {
                    failed += 1;
                    assert!(
                        stderr.contains("error: ") || stderr.contains("failed"),
                        "{case}"
                    );
                }
                // The call was the loader's, before the program began.
                Some(127) if stderr.contains("loading shared libraries") => {}
                code => panic!("{case}: ended by {code:?}: {stderr}"),
            }
            // A file that is stale is there: nothing may be moved away for it. One that is not
            // found time and again is gone, as far as anybody can know.
            match error {
                "ESTALE" => heals(&space, ONE, &told, &case),
                _ => mends(&space, ONE, &told, &case),
            }
            if full && error == "ESTALE" {
                again += space
                    .happened()
                    .iter()
                    .filter(|(_, word)| word == "ran")
                    .count();
            }
        }
    }
    saw(&format!(
        "{fired_in} runs with names not found or stale, {failed} failed; {again} nodes had to \
         be computed again afterwards"
    ));
    assert_eq!(again, 0);
}
