//! The merges of `SentencePiece`'s BPE, as in `bpe_model.cc`.

use std::{
    cmp::{Ordering, Reverse},
    collections::{BinaryHeap, HashMap},
};

use super::{Ahead, Model};

/// A stretch of the text, linked to its neighbours; empty once it is merged away.
struct Symbol {
    start: usize,
    end: usize,
    before: Option<usize>,
    after: Option<usize>,
    /// A piece that a user defined, which is never merged.
    fixed: bool,
}

/// Two neighbours that make a piece.
struct Pair {
    score: f32,
    left: usize,
    right: usize,
    /// Their length, in bytes, when they were found.
    size: usize,
}

impl Ord for Pair {
    fn cmp(&self, other: &Self) -> Ordering {
        // The best score first, of equal ones the first in the text.
        let key = |pair: &Self| (Reverse(pair.left), pair.right, pair.size);
        (self.score.total_cmp(&other.score)).then_with(|| key(self).cmp(&key(other)))
    }
}

impl PartialOrd for Pair {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Pair {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Pair {}

/// Splits a normalised text into pieces and their ids.
pub(super) fn split<'a>(model: &Model, text: &'a str) -> Vec<(&'a str, u32)> {
    let mut merging = Merging {
        model,
        text,
        symbols: symbols(model, text),
        pairs: BinaryHeap::new(),
        parts: HashMap::new(),
    };
    for right in 1..merging.symbols.len() {
        merging.consider(Some(right - 1), Some(right));
    }
    merging.run();
    merging.pieces()
}

/// Characters, and pieces that a user defined.
fn symbols(model: &Model, text: &str) -> Vec<Symbol> {
    let mut symbols: Vec<Symbol> = Vec::with_capacity(text.len());
    let mut ahead = Ahead::new(&model.user_defined, text);
    let mut start = 0;
    while let Some(character) = text.get(start..).and_then(|rest| rest.chars().next()) {
        let defined = ahead.length_at(start);
        let end = start + defined.unwrap_or(character.len_utf8());
        let at = symbols.len();
        symbols.push(Symbol {
            start,
            end,
            before: at.checked_sub(1),
            after: (end < text.len()).then_some(at + 1),
            fixed: defined.is_some(),
        });
        start = end;
    }
    symbols
}

struct Merging<'m, 'a> {
    model: &'m Model,
    text: &'a str,
    symbols: Vec<Symbol>,
    pairs: BinaryHeap<Pair>,
    /// What a piece that is not to be used was made of: the length of its first part.
    parts: HashMap<&'a str, usize>,
}

impl<'a> Merging<'_, 'a> {
    /// Remembers two neighbours if they make a piece.
    fn consider(&mut self, left: Option<usize>, right: Option<usize>) {
        let (Some(left_at), Some(right_at)) = (left, right) else {
            return;
        };
        let (left, right) = (&self.symbols[left_at], &self.symbols[right_at]);
        let size = right.end - left.start;
        if left.fixed || right.fixed || size > self.model.longest {
            return;
        }
        let Some(piece) = self.text.get(left.start..right.end) else {
            return;
        };
        let Some(&id) = self.model.ids.get(piece) else {
            return;
        };
        if self.model.is_unused(id) {
            self.parts.insert(piece, left.end - left.start);
        }
        let score = (self.model.pieces.get(id as usize)).map_or(0.0, |piece| piece.score);
        self.pairs.push(Pair {
            score,
            left: left_at,
            right: right_at,
            size,
        });
    }

    fn run(&mut self) {
        while let Some(Pair {
            left, right, size, ..
        }) = self.pairs.pop()
        {
            let [a, b] = [&self.symbols[left], &self.symbols[right]];
            let gone = a.start == a.end || b.start == b.end;
            if gone || (a.end - a.start) + (b.end - b.start) != size {
                continue;
            }
            let (end, after) = (b.end, b.after);
            self.symbols[right].end = self.symbols[right].start;
            self.symbols[left].end = end;
            self.symbols[left].after = after;
            if let Some(after) = after {
                self.symbols[after].before = Some(left);
            }
            self.consider(self.symbols[left].before, Some(left));
            self.consider(Some(left), after);
        }
    }

    /// What is left; pieces that are not to be used are taken apart again.
    fn pieces(&self) -> Vec<(&'a str, u32)> {
        let mut out = Vec::new();
        let mut waiting = Vec::new();
        let live = self
            .symbols
            .iter()
            .filter(|symbol| symbol.start < symbol.end);
        for symbol in live {
            waiting.extend(self.text.get(symbol.start..symbol.end));
            while let Some(piece) = waiting.pop() {
                let id = self.model.ids.get(piece).copied();
                let unused = id.filter(|&id| self.model.is_unused(id));
                let parts = unused.and_then(|_| piece.split_at_checked(*self.parts.get(piece)?));
                if let Some((first, second)) = parts {
                    waiting.extend([second, first]);
                } else {
                    let id = id.filter(|_| unused.is_none());
                    out.push((piece, id.unwrap_or(self.model.unknown)));
                }
            }
        }
        out
    }
}
