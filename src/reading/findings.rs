//! Collects what is wrong while a file is loaded; nothing is said twice.

use std::{
    collections::HashSet,
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use crate::diagnostic::{Diagnostic, Diagnostics};

/// Errors that are kept; a file with more has one cause, and it is among these.
const KEPT: usize = 10_000;

/// The errors found so far.
#[derive(Default)]
pub(crate) struct Findings {
    list: Vec<Diagnostic>,
    seen: HashSet<u64>,
}

impl Findings {
    /// Adds `diagnostic` unless the same was said of the same place: nodes
    /// with a matrix are looked at many times.
    pub(crate) fn push(&mut self, diagnostic: Diagnostic) {
        let mut hasher = DefaultHasher::new();
        diagnostic.source.shown.hash(&mut hasher);
        diagnostic.span.hash(&mut hasher);
        diagnostic.message.hash(&mut hasher);
        if self.list.len() < KEPT && self.seen.insert(hasher.finish()) {
            self.list.push(diagnostic);
        }
    }

    /// Whether nothing was found.
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How many were found.
    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    /// All of them in order.
    pub(crate) fn into_diagnostics(self) -> Diagnostics {
        Diagnostics(self.list).sorted()
    }
}
