//! The one integration-test binary; every module is a topic.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bad;
mod clip;
mod commands;
mod demo_run;
mod docs;
mod engine;
#[path = "../src/models/endpoint/faulty.rs"]
mod faulty;
mod fire;
mod full_size;
mod fuzz;
mod hostile;
mod keys;
mod kill;
mod memory;
mod parity;
mod pipeline;
mod project;
mod providers;
mod shared;
mod space;
mod store;
mod study;
mod tidy;
mod trust;
