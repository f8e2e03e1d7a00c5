//! What every remote must do, and what none may be made to do.

mod addresses;
mod conform;
mod faulty;
mod fire;
mod planted;

use std::{collections::HashMap, ffi::OsString, io::Write as _, time::Duration};

use super::wire::Limits;

pub(super) type Env = HashMap<String, OsString>;

pub(super) fn env(pairs: &[(&str, &str)]) -> Env {
    let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), OsString::from(value));
    pairs.iter().map(pair).collect()
}

pub(super) fn quick() -> Limits {
    Limits {
        connect: Duration::from_millis(500),
        idle: Duration::from_millis(500),
        slowest: 1024,
        retries: 1,
        pause: Duration::from_millis(1),
    }
}

pub(super) fn s3_env(endpoint: &str, key: &str, secret: &str) -> Env {
    env(&[
        ("AWS_ENDPOINT_URL", endpoint),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_ACCESS_KEY_ID", key),
        ("AWS_SECRET_ACCESS_KEY", secret),
        ("AWS_REGION", "us-east-1"),
    ])
}

/// Says loudly what is not tested without a server. To the real standard error, which the test
/// harness does not keep back.
pub(super) fn skip(text: &str) {
    let _ = writeln!(std::io::stderr(), "skipped: {text}");
}

pub(super) fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

pub(super) fn bytes_of(seed: u64, size: usize) -> Vec<u8> {
    let mut random = Random(seed | 1);
    (0..size).map(|_| random.next() as u8).collect()
}

pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 11
    }

    pub(super) fn below(&mut self, most: usize) -> usize {
        (self.next() % most as u64) as usize
    }
}

pub(super) fn full() -> bool {
    std::env::var_os("RUNNER_FIRE").is_some()
}
