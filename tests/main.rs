//! The one integration-test binary; every module is a topic.

mod engine;
mod kill;
mod space;
mod store;
mod tidy;
