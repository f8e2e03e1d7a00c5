//! A declarative job-graph runner for vision-language experiments.
//!
//! One TOML file is one experiment. The flow of `runner exec` is four calls in
//! `cmd/exec.rs`: load the file into a checked graph, open the store, run what
//! changed, print the tables.
//!
//! | room | holds | may import |
//! |---|---|---|
//! | [`digest`], [`diagnostic`], [`table`], [`stats`] | digests of bytes, files, JSON; located errors; rows as text; intervals and tests | nothing |
//! | [`artifact`] | what flows along an edge, and its files | digest, table |
//! | [`pickle`] | Python's pickles read as data | nothing |
//! | `http` | proxies, certificates, waits and secrets of HTTP clients | nothing |
//! | [`fetch`] | downloads, checked and resumed | http |
//! | [`models`] | CLIP, the decoder LLM, tokenizers, preprocessing, strict weights, sampling, devices | pickle, http |
//! | [`data`] | data sets | digest, pickle |
//! | [`node`] | the contract of a kind, and what it runs in | artifact, data, models, digest |
//! | [`nodes`] | one kind a file | node, artifact, data, models, digest, stats, table |
//! | `reading` | TOML tables into Rust types, with all mistakes in words | diagnostic |
//! | [`project`] | `runner.toml`: remotes and limits of a project | diagnostic, reading |
//! | [`pipeline`] | TOML text to a checked graph | diagnostic, reading, node, nodes (the list), artifact, data, digest, fetch, table |
//! | [`trust`] | keys, signatures, and whose records are believed | digest |
//! | [`store`] | objects, records, packs of items, here and in shared caches: bytes and JSON | digest, trust, http |
//! | [`run`] | the loop: ready, key, lookup, hit or execute and commit | pipeline, node, artifact, data, digest, store |
//! | [`report`] | consumers of events and records | run, pipeline, artifact, table, stats, store, digest |
//! | [`cmd`], [`cli`] | one command a file; arguments; exit codes | everything |
//!
//! Invariants, held by `tests/tidy.rs`: models and nodes never see the store, a
//! key or an executor; the store never sees a tensor; the engine prints nothing,
//! it emits events; nobody imports `cmd` or `report`.

pub mod artifact;
pub mod cli;
pub mod cmd;
pub mod data;
pub mod diagnostic;
pub mod digest;
pub mod fetch;
mod http;
pub mod models;
pub mod node;
pub mod nodes;
pub mod pickle;
pub mod pipeline;
pub mod project;
mod reading;
pub mod report;
pub mod run;
pub mod stats;
pub mod store;
pub mod table;
pub mod trust;
