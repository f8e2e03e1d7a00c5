//! A declarative job-graph runner for vision-language experiments.

pub mod artifact;
pub mod cmd;
pub mod data;
pub mod digest;
pub mod node;
pub mod nodes;
pub mod pipeline;
pub mod report;
pub mod run;
pub mod table;
