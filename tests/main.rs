//! The one integration-test binary; every module is a topic.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bad;
mod clip;
mod demo_run;
mod docs;
mod engine;
mod hostile;
mod keys;
mod kill;
mod parity;
mod pipeline;
mod space;
mod store;
mod tidy;
