//! The engine: keys, lookups, execution and commits; it prints nothing.

mod event;

pub use event::Event;
