//! The bytes of a pack: many small values in one file, each found and verified by itself.
//!
//! ```text
//! magic 16 | count u64 | count × (key 32, offset u64, length u64, BLAKE3 of the value 32)
//! BLAKE3 of all that 32 | the values
//! ```
//! Entries are in the order of their keys, numbers are little-endian, and offsets count from the
//! first value. Equal batches make equal packs.

use std::{fs::File, io, os::unix::fs::FileExt};

use crate::digest::Digest;

const MAGIC: &[u8; 16] = b"runner-pack 1\n\0\0";
const CONTEXT: &str = "runner pack header v1";
const ENTRY: usize = 32 + 8 + 8 + 32;
const HASH: usize = 32;
const FIXED: usize = MAGIC.len() + 8;
/// The most entries in one pack.
const MOST: u64 = 1 << 20;

/// Where a value lies in a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: Digest,
    /// From the beginning of the file.
    offset: u64,
    length: u64,
    value: Digest,
}

/// The bytes of a pack of `batch`. Of equal keys the first counts.
pub(super) fn encode(batch: &[(Digest, Vec<u8>)]) -> Vec<u8> {
    let mut sorted: Vec<_> = batch.iter().collect();
    sorted.sort_by_key(|(key, _)| *key);
    sorted.dedup_by_key(|(key, _)| *key);
    let values: usize = sorted.iter().map(|(_, value)| value.len()).sum();
    let mut out = Vec::with_capacity(FIXED + sorted.len() * ENTRY + HASH + values);
    out.extend(MAGIC);
    out.extend((sorted.len() as u64).to_le_bytes());
    let mut offset = 0_u64;
    for (key, value) in &sorted {
        out.extend(key.as_bytes());
        out.extend(offset.to_le_bytes());
        out.extend((value.len() as u64).to_le_bytes());
        out.extend(Digest::of(value).as_bytes());
        offset += value.len() as u64;
    }
    let hash = Digest::derived(CONTEXT, &out);
    out.extend(hash.as_bytes());
    for (_, value) in &sorted {
        out.extend(value);
    }
    out
}

/// Reads the header of a pack of `size` bytes; `None` if it is damaged or does not fit the size.
pub(super) fn entries(file: &File, size: u64) -> io::Result<Option<Vec<Entry>>> {
    if size < (FIXED + HASH) as u64 {
        return Ok(None);
    }
    let mut fixed = [0; FIXED];
    file.read_exact_at(&mut fixed, 0)?;
    let Some(mut rest) = fixed.strip_prefix(MAGIC) else {
        return Ok(None);
    };
    let count = number(&mut rest).unwrap_or(u64::MAX);
    let begin = FIXED as u64 + count.min(MOST) * ENTRY as u64 + HASH as u64;
    if count > MOST || begin > size {
        return Ok(None);
    }
    let mut header = vec![0; begin as usize];
    file.read_exact_at(&mut header, 0)?;
    Ok(decode(&header, begin, size))
}

fn decode(header: &[u8], begin: u64, size: u64) -> Option<Vec<Entry>> {
    let (body, hash) = header.split_last_chunk::<HASH>()?;
    if Digest::derived(CONTEXT, body).as_bytes() != hash {
        return None;
    }
    let mut rest = body.get(FIXED..)?;
    let mut entries = Vec::with_capacity(rest.len() / ENTRY);
    let mut end = 0;
    while !rest.is_empty() {
        let key = digest(&mut rest)?;
        let offset = number(&mut rest)?;
        let length = number(&mut rest)?;
        let value = digest(&mut rest)?;
        if offset != end {
            return None;
        }
        end = offset.checked_add(length)?;
        entries.push(Entry {
            key,
            offset: begin + offset,
            length,
            value,
        });
    }
    let ordered = entries.is_sorted_by(|a, b| a.key < b.key);
    (ordered && begin.checked_add(end) == Some(size)).then_some(entries)
}

/// Reads the value of an entry; `None` if its bytes are not those that were written.
pub(super) fn value(file: &File, entry: &Entry) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = vec![0; entry.length as usize];
    file.read_exact_at(&mut bytes, entry.offset)?;
    Ok((Digest::of(&bytes) == entry.value).then_some(bytes))
}

fn number(rest: &mut &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(rest.split_off(..8)?.try_into().ok()?))
}

fn digest(rest: &mut &[u8]) -> Option<Digest> {
    Some(Digest::from_bytes(rest.split_off(..32)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    /// Every value that can be read from a pack of these bytes.
    fn read(bytes: &[u8]) -> Option<Vec<Option<Vec<u8>>>> {
        let file = file(bytes);
        let entries = entries(&file, bytes.len() as u64).unwrap()?;
        Some(
            entries
                .iter()
                .map(|entry| value(&file, entry).unwrap())
                .collect(),
        )
    }

    fn batch() -> Vec<(Digest, Vec<u8>)> {
        let value = |i: u8| (Digest::of(&[i]), vec![i; usize::from(i)]);
        (0..4).map(value).collect()
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let good = encode(&batch());
        let values = read(&good).unwrap();
        assert!(values.iter().all(Option::is_some));
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            if let Some(found) = read(&bad) {
                let lost = found.iter().filter(|value| value.is_none()).count();
                assert_eq!(lost, 1, "bit {bit}");
                let right = |(value, good): (&Option<_>, _)| value.is_none() || value == good;
                assert!(found.iter().zip(&values).all(right), "bit {bit}");
            }
        }
        for length in 0..good.len() {
            assert_eq!(read(&good[..length]), None, "length {length}");
        }
        assert_eq!(read(&[&good[..], b"x"].concat()), None);
    }

    #[test]
    fn a_header_that_promises_too_much_costs_nothing() {
        for count in [5, MOST, MOST + 1, u64::MAX / 80, u64::MAX] {
            let mut bytes = encode(&batch());
            bytes[16..24].copy_from_slice(&count.to_le_bytes());
            assert_eq!(read(&bytes), None, "{count}");
        }
    }

    #[test]
    fn equal_batches_make_equal_packs_in_any_order() {
        let mut other = batch();
        other.reverse();
        assert_eq!(encode(&batch()), encode(&other));
        assert_ne!(encode(&batch()), encode(&batch()[1..]));
    }
}
