//! From TOML text to a checked graph.

mod graph;

pub use graph::{
    Exec, Graph, Instance, ModelSpec, NodeId, Point, Seen, Source, TableSpec, TableValue,
};
