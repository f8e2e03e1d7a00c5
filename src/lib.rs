//! A declarative job-graph runner for vision-language experiments.

pub mod digest;
pub mod store;
