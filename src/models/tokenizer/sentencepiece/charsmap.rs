//! The table of normalised characters in a `SentencePiece` file.
//!
//! Four bytes of length, a double-array trie in the layout of Darts-clone, and
//! the replacements, each ended by a zero. A value of the trie is where a
//! replacement starts.

use anyhow::{Context, Result, ensure};

/// Replacements by prefix.
#[derive(Debug)]
pub(in super::super) struct Charsmap {
    units: Vec<u32>,
    texts: String,
    longest: usize,
}

impl Charsmap {
    /// Reads the field `precompiled_charsmap`.
    pub(in super::super) fn read(blob: &[u8]) -> Result<Self> {
        let (length, rest) = blob.split_at_checked(4).context("it has no length")?;
        let length = u32::from_le_bytes(length.try_into().context("four bytes")?) as usize;
        ensure!(
            length.is_multiple_of(4) && length > 0,
            "its length is wrong"
        );
        let (trie, texts) = rest.split_at_checked(length).context("it is cut off")?;
        let units: Vec<u32> = (trie.chunks_exact(4))
            .map(|unit| u32::from_le_bytes([unit[0], unit[1], unit[2], unit[3]]))
            .collect();
        let texts = std::str::from_utf8(texts).context("its texts are not UTF-8")?;
        ensure!(texts.ends_with('\0'), "its last text has no end");
        // Only the units that hold values have the highest bit.
        let values = units.iter().filter(|&&unit| unit >> 31 == 1);
        for value in values.map(|unit| (unit & 0x7FFF_FFFF) as usize) {
            ensure!(
                value < texts.len() && texts.is_char_boundary(value),
                "a value lies outside of its texts"
            );
        }
        let longest = texts.split('\0').map(str::len).max().unwrap_or(0);
        Ok(Self {
            units,
            texts: texts.to_owned(),
            longest,
        })
    }

    /// The longest replacement, in bytes.
    pub(in super::super) fn longest(&self) -> usize {
        self.longest
    }

    /// The length of the longest prefix of `text` that is replaced, and by what.
    pub(super) fn prefix(&self, text: &str) -> Option<(usize, &str)> {
        let offset = |unit: u32| ((unit >> 10) << ((unit & (1 << 9)) >> 6)) as usize;
        let mut at = offset(*self.units.first()?);
        let mut found = None;
        for (index, byte) in text.bytes().enumerate() {
            at ^= usize::from(byte);
            let Some(&unit) = self.units.get(at) else {
                break;
            };
            if unit & (1 << 31 | 0xFF) != u32::from(byte) {
                break;
            }
            at ^= offset(unit);
            if unit >> 8 & 1 == 1
                && text.is_char_boundary(index + 1)
                && let Some(value) = self.units.get(at)
            {
                let text = self.texts.get((value & 0x7FFF_FFFF) as usize..)?;
                found = Some((index + 1, text.split('\0').next()?));
            }
        }
        found
    }
}
