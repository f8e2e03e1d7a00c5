//! The one integration-test binary; every module is a topic.

mod bad;
mod demo_run;
mod engine;
mod kill;
mod parity;
mod pipeline;
mod space;
mod store;
mod tidy;
