//! Finds the first and longest of many texts.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use regex::{Regex, RegexBuilder};

/// The most texts to look for. Mistral's file has 770 control pieces.
const MOST: usize = 1 << 14;
/// Their most bytes in all.
const MOST_BYTES: usize = 1 << 18;
/// What the compiled automaton may take, in bytes.
const SIZE: usize = 64 << 20;

/// Texts with an id each.
pub(super) struct Finder {
    regex: Option<Regex>,
    ids: BTreeMap<String, u32>,
}

/// A text that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) id: u32,
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Finder {
    pub(super) fn new(ids: BTreeMap<String, u32>) -> Result<Self> {
        let bytes: usize = ids.keys().map(String::len).sum();
        ensure!(
            ids.len() <= MOST && bytes <= MOST_BYTES,
            "{} texts of {bytes} bytes stand for tokens of their own, where {MOST} texts and \
             {MOST_BYTES} bytes are allowed",
            ids.len()
        );
        let mut texts: Vec<&String> = ids.keys().filter(|text| !text.is_empty()).collect();
        texts.sort_by_key(|text| std::cmp::Reverse(text.len()));
        let texts: Vec<String> = texts.iter().map(|text| regex::escape(text)).collect();
        let regex = if texts.is_empty() {
            None
        } else {
            let regex = RegexBuilder::new(&texts.join("|")).size_limit(SIZE).build();
            Some(regex.context("failed to look for so many special tokens")?)
        };
        Ok(Self { regex, ids })
    }

    /// The first of the texts at or after `from`, the longest if several start there.
    pub(super) fn next(&self, text: &str, from: usize) -> Option<Found> {
        let found = self.regex.as_ref()?.find_at(text, from)?;
        let id = *self.ids.get(found.as_str())?;
        Some(Found {
            id,
            start: found.start(),
            end: found.end(),
        })
    }

    /// The id of one of the texts.
    pub(super) fn id(&self, text: &str) -> Option<u32> {
        self.ids.get(text).copied()
    }

    /// Every place where one of the texts starts, overlapping ones included.
    pub(super) fn starts(&self, text: &str) -> BTreeSet<usize> {
        let mut starts = BTreeSet::new();
        let mut from = 0;
        while let Some(found) = self.next(text, from) {
            starts.insert(found.start);
            let rest = text.get(found.start..).unwrap_or_default();
            from = found.start + rest.chars().next().map_or(1, char::len_utf8);
        }
        starts
    }
}
