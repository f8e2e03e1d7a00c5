//! One command a file: what `runner COMMAND` does once its arguments are read.

pub mod graph;
pub mod kinds;
