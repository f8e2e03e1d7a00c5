//! What must hold for whatever bytes a reader is given, one check for each fuzz target.
//!
//! A check panics where something does not hold, and says whether its reader took the bytes. The
//! fuzz targets call them with bytes that libFuzzer makes, the tests with those that were kept.

#![allow(
    unreachable_pub,
    reason = "the fuzz targets are a crate of their own, the tests are not"
)]

pub mod archive;
pub mod chat_template;
pub mod clip_text;
pub mod pickle;
pub mod pipeline;
pub mod record;
pub mod safetensors;
pub mod sentencepiece;
pub mod tokenizer_json;
pub mod trust;
mod weights;

use std::path::Path;

/// A check of one target.
pub type Check = fn(&[u8]) -> bool;

thread_local! {
    /// Where readers that want a file find theirs; it is there as long as the thread.
    static FOLDER: tempfile::TempDir = tempfile::tempdir().unwrap();
}

/// Calls `check` with the folder in which a target's files may lie. Others may have been left by
/// the call before.
fn in_folder<T>(check: impl FnOnce(&Path) -> T) -> T {
    FOLDER.with(|folder| check(folder.path()))
}

/// Puts `bytes` into the file `name` of the target's folder.
fn in_file<T>(name: &str, bytes: &[u8], check: impl FnOnce(&Path) -> T) -> T {
    in_folder(|folder| {
        let path = folder.join(name);
        std::fs::write(&path, bytes).unwrap();
        check(&path)
    })
}
