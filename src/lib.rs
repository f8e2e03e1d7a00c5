//! A declarative job-graph runner for vision-language experiments.

pub mod artifact;
pub mod data;
pub mod diagnostic;
pub mod digest;
pub mod node;
pub mod nodes;
pub mod pipeline;
pub mod run;
