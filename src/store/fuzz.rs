//! The reader of records, opened to the fuzz targets under `tests/fuzz/` and to nobody else.
//!
//! A record's file is read where nothing is trusted yet, and the rest of the store does not let
//! anybody hand it one. Nothing here is part of what the library offers.

use serde_json::Value;

use super::{
    document,
    record::{self, Record, Written},
};
use crate::digest::Digest;

/// The bytes of a file whose first line is `line` and whose second is the hash of it.
pub fn seal(line: &str) -> Vec<u8> {
    document::seal(record::CONTEXT, line, &[]).into_bytes()
}

/// Reads the bytes of a record's file as the record of `key` in `domain`. What it keeps in
/// objects is taken for null.
///
/// # Errors
/// Why it is not such a record.
pub fn read(bytes: &[u8], key: &Digest, domain: &str) -> Result<Record, String> {
    let written = Written::decode(bytes, key, domain).map_err(|bad| bad.reason)?;
    (written.record(|_| Some(Value::Null))).ok_or_else(|| "an object is missing".to_owned())
}

/// The bytes of a record's file.
///
/// # Errors
/// Why the record cannot be written.
pub fn write(record: &Record, domain: &str) -> Result<Vec<u8>, String> {
    Written::of(record, domain).0.encode()
}
