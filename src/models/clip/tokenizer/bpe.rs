//! Byte-pair encoding over CLIP's merges: a word's bytes become tokens.
//!
//! The merges are `OpenAI`'s published file; see `merges/LICENSE`.

use std::{cmp::Reverse, collections::BinaryHeap, collections::HashMap, io::Read, sync::OnceLock};

use anyhow::{Context, Result, anyhow, ensure};
use flate2::read::GzDecoder;

const MERGES_GZ: &[u8] = include_bytes!("../merges/bpe_simple_vocab_16e6.txt.gz");
/// Merges used of the file; the rest were for a larger vocabulary.
const MERGES: usize = 48_894;
/// Tokens of one byte inside a word; as many follow for the last byte of one.
const BYTES: u32 = 256;

/// CLIP's vocabulary without its two special tokens.
#[derive(Debug)]
pub(super) struct Bpe {
    /// Token of each byte inside a word; [`BYTES`] more when it ends the word.
    bytes: [u32; 256],
    /// What two neighbours merge into; smaller results merge first.
    merges: HashMap<(u32, u32), u32>,
}

impl Bpe {
    /// The one table of the process, built on first use.
    pub(super) fn shared() -> Result<&'static Self> {
        static SHARED: OnceLock<Result<Bpe>> = OnceLock::new();
        let shared = SHARED.get_or_init(Self::new).as_ref();
        shared.map_err(|error| anyhow!("{error:#}"))
    }

    fn new() -> Result<Self> {
        let file = merges()?;
        let bytes = byte_tokens();
        let mut tokens: HashMap<String, u32> = HashMap::new();
        for (character, token) in byte_characters().into_iter().zip(bytes) {
            tokens.insert(character.to_string(), token);
            tokens.insert(format!("{character}</w>"), token + BYTES);
        }
        let mut merges = HashMap::new();
        for (line, token) in file.lines().skip(1).take(MERGES).zip(2 * BYTES..) {
            let (left, right) = line.split_once(' ').context("a merge is no pair")?;
            let id = |part| {
                let token = tokens.get(part).copied();
                token.context("a merge of unknown tokens")
            };
            merges.insert((id(left)?, id(right)?), token);
            tokens.insert(format!("{left}{right}"), token);
        }
        let expected = 2 * BYTES as usize + MERGES;
        ensure!(tokens.len() == expected, "{} tokens", tokens.len());
        Ok(Self { bytes, merges })
    }

    /// Appends the tokens of a word, in time near linear in its length.
    ///
    /// The reference applies the first merge of the list that fits, everywhere
    /// from left to right, then looks again. A merge only makes pairs that
    /// stand later in the list, so taking pairs from a heap, by merge and then
    /// by place, comes to the same.
    pub(super) fn encode(&self, word: &str, ids: &mut Vec<u32>) {
        let mut tokens: Vec<u32> = word.bytes().map(|b| self.bytes[usize::from(b)]).collect();
        let Some(last) = tokens.last_mut() else {
            return;
        };
        *last += BYTES;
        let end = tokens.len();
        // The neighbours of each token that is left; a merge drops its right one.
        let mut next: Vec<usize> = (1..=end).collect();
        let mut previous: Vec<usize> = (0..end).map(|i| i.wrapping_sub(1)).collect();
        let pair = |tokens: &[u32], left: usize, right: usize| {
            let pair = (*tokens.get(left)?, *tokens.get(right)?);
            self.merges
                .get(&pair)
                .map(|&merged| Reverse((merged, left)))
        };
        let pairs = (1..end).filter_map(|right| pair(&tokens, right - 1, right));
        let mut pairs: BinaryHeap<_> = pairs.collect();
        while let Some(Reverse((merged, left))) = pairs.pop() {
            let right = next[left];
            // Merged away or changed since.
            if pair(&tokens, left, right) != Some(Reverse((merged, left))) {
                continue;
            }
            tokens[left] = merged;
            tokens[right] = GONE;
            next[left] = next[right];
            if let Some(after) = previous.get_mut(next[left]) {
                *after = left;
            }
            pairs.extend(pair(&tokens, previous[left], left));
            pairs.extend(pair(&tokens, left, next[left]));
        }
        ids.extend(tokens.into_iter().filter(|&token| token != GONE));
    }
}

/// The text of the merges: a line of version, then a pair a line.
pub(super) fn merges() -> Result<String> {
    let mut file = String::new();
    GzDecoder::new(MERGES_GZ).read_to_string(&mut file)?;
    Ok(file)
}

/// Stands where a token was merged into the one before.
const GONE: u32 = u32::MAX;

/// Whether a byte stands for itself among GPT-2's printable characters.
fn is_printable(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff)
}

/// GPT-2's printable character for each byte: those that print stand for
/// themselves, the others follow from U+0100 on.
pub(in crate::models::clip) fn byte_characters() -> [char; 256] {
    let mut others = '\u{100}'..='\u{200}';
    std::array::from_fn(|byte| {
        let byte = byte as u8;
        let other = if is_printable(byte) {
            None
        } else {
            others.next()
        };
        other.unwrap_or(char::from(byte))
    })
}

/// The token of each byte: printable bytes first, then the others.
fn byte_tokens() -> [u32; 256] {
    let printable = (0..=255).filter(|&b| is_printable(b));
    let others = (0..=255).filter(|&b| !is_printable(b));
    let mut tokens = [0; 256];
    for (token, byte) in (0..).zip(printable.chain(others)) {
        tokens[usize::from(byte)] = token;
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reference's way: one merge everywhere, then the next.
    fn slowly(bpe: &Bpe, word: &str) -> Vec<u32> {
        let mut tokens: Vec<u32> = word.bytes().map(|b| bpe.bytes[usize::from(b)]).collect();
        if let Some(last) = tokens.last_mut() {
            *last += BYTES;
        }
        loop {
            let merge = |pair: &[u32]| bpe.merges.get(&(pair[0], pair[1])).copied();
            let Some(best) = tokens.windows(2).filter_map(merge).min() else {
                return tokens;
            };
            let mut merged = Vec::new();
            let mut i = 0;
            while i < tokens.len() {
                if tokens.get(i..i + 2).and_then(merge) == Some(best) {
                    merged.push(best);
                    i += 2;
                } else {
                    merged.push(tokens[i]);
                    i += 1;
                }
            }
            tokens = merged;
        }
    }

    #[test]
    fn a_heap_of_pairs_merges_as_the_reference_does() {
        let bpe = Bpe::shared().unwrap();
        let mut seed = 1u32;
        let mut below = |n: u32| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) % n
        };
        for alphabet in ["a", "ab", "ahorse", "aehilnorst", "!.?", "né東😀x"] {
            let letters: Vec<char> = alphabet.chars().collect();
            for _ in 0..400 {
                let len = below(40);
                let word: String = (0..len)
                    .map(|_| letters[below(letters.len() as u32) as usize])
                    .collect();
                let mut ids = Vec::new();
                bpe.encode(&word, &mut ids);
                assert_eq!(ids, slowly(bpe, &word), "{word}");
            }
        }
    }

    #[test]
    fn merges_make_only_pairs_that_come_later() {
        let bpe = Bpe::shared().unwrap();
        assert_eq!(bpe.merges.len(), MERGES);
        let later = |(&(left, right), &merged): (&(u32, u32), &u32)| merged > left.max(right);
        assert!(bpe.merges.iter().all(later));
    }

    #[test]
    fn a_word_of_thousands_of_letters_ends_soon() {
        let bpe = Bpe::shared().unwrap();
        let start = std::time::Instant::now();
        for letters in ["a", "ha", "airplane", "東"] {
            let mut ids = Vec::new();
            bpe.encode(&letters.repeat(200_000 / letters.len()), &mut ids);
            assert!(ids.len() > 2_000);
        }
        assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
    }
}
