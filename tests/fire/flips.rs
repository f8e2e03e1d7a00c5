//! Flipped bits in the cache of a run: every one is found, and none reaches a result.

use super::*;

/// The parts of a cache whose bytes are verified.
const PARTS: [&str; 4] = ["objects", "actions", "items", "index"];

#[test]
fn every_flipped_bit_is_found_and_no_result_changes() {
    let rounds = if long() { 1000 } else { 12 };
    let mut numbers = Numbers(0x94d0_49bb_1331_11eb);
    let space = warm();
    let cache = space.cache();
    let reference = reference(ONE);
    let right = |case: &str| {
        let ran = space.run(&["exec", "p.toml"]);
        assert_eq!(ran.code, 0, "{case}: {}", ran.stderr);
        assert!(exported(&space, ONE, case) == reference.result, "{case}");
    };
    let mut found = [0; PARTS.len()];
    for round in 0..rounds {
        let part = round % PARTS.len();
        let targets = files(&cache.join(PARTS[part]));
        let target = &targets[numbers.below(targets.len())];
        let mut bytes = fs::read(target).unwrap();
        let bit = numbers.below(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        // Removed first: entries are read-only, and a bad disk is not asked.
        fs::remove_file(target).unwrap();
        fs::write(target, &bytes).unwrap();
        let name = target.strip_prefix(&cache).unwrap().to_str().unwrap();
        let case = format!("{round}: bit {bit} of {name}");

        let jail = files(&cache.join("quarantine")).len();
        // Half of the damage is met by a run before anybody looks for it.
        let meets = (round / PARTS.len()).is_multiple_of(2);
        if meets {
            let ran = space.run(&["exec", "p.toml"]);
            assert_eq!(ran.code, 0, "{case}: {}", ran.stderr);
            // A hit does not read its bytes; whoever does finds them missing, and never wrong.
            let shown = space.run(&["show", "p.toml", LAST, "--to", "shown"]);
            let bytes = fs::read(space.path().join("shown/probe.txt"));
            let _ = fs::remove_dir_all(space.path().join("shown"));
            if shown.code == 0 {
                assert!(bytes.unwrap() == reference.result, "{case}");
            } else {
                assert!(
                    shown.stderr.contains("hint: run again"),
                    "{case}: {}",
                    shown.stderr
                );
            }
        }
        let verified = space.run(&["cache", "verify"]);
        let named = verified.code == 5 && verified.stdout.contains(name);
        let moved = files(&cache.join("quarantine")).len() > jail;
        // An index that a run found damaged is written anew.
        let anew =
            PARTS[part] == "index" && meets && fs::read(target).is_ok_and(|now| now != bytes);
        assert!(
            named || (meets && (moved || anew)),
            "{case}: {} {}",
            verified.code,
            verified.stdout
        );
        found[part] += 1;
        right(&case);
        let report = open(&space).verify(false, &mut |_, _| ()).unwrap();
        assert!(report.is_clean(), "{case}: {report:?}");
    }
    let all: usize = found.iter().sum();
    assert_eq!(all, rounds);
    saw(&format!(
        "{all} of {rounds} flipped bits found, {found:?} in {PARTS:?}"
    ));
}
