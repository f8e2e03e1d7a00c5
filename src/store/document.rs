//! Small documents that can be signed: one line of JSON, its hash, and signatures.
//!
//! ```text
//! {"…":…}                canonical JSON on one line
//! blake3:<64 hex>        the BLAKE3 of that line, in a context of its own
//! sig ana-1:<base64>     any number of signatures over that line
//! ```
//! Records are such documents, and so are the lists of packs and the runs of a shared cache.

use crate::digest::Digest;

/// A document whose hash is that of its text.
#[derive(Debug)]
pub(super) struct Document<'a> {
    /// The JSON.
    pub(super) line: &'a str,
    /// The lines of signatures, each beginning with `sig `.
    pub(super) signatures: Vec<&'a str>,
}

/// Why a document gives nothing.
#[derive(Debug)]
pub(super) struct Unreadable {
    pub(super) reason: String,
    /// Whether nobody could read it, as opposed to this version.
    pub(super) damaged: bool,
}

impl Unreadable {
    pub(super) fn damaged(reason: &str) -> Self {
        Self {
            reason: reason.to_owned(),
            damaged: true,
        }
    }
}

impl<'a> Document<'a> {
    /// Reads a document of at most `longest` bytes and compares its hash.
    pub(super) fn open(context: &str, bytes: &'a [u8], longest: usize) -> Result<Self, Unreadable> {
        if bytes.len() > longest {
            return Err(Unreadable::damaged("it is too long"));
        }
        let text = str::from_utf8(bytes).map_err(|_| Unreadable::damaged("it is not text"))?;
        let text = text
            .strip_suffix('\n')
            .ok_or_else(|| Unreadable::damaged("its last line is cut off"))?;
        let mut lines = text.split('\n');
        let line = lines.next().unwrap_or_default();
        if lines.next() != Some(hash_line(context, line).as_str()) {
            return Err(Unreadable::damaged("its hash is not that of its text"));
        }
        let signatures: Vec<_> = lines.collect();
        if !signatures.iter().all(|line| line.starts_with("sig ")) {
            return Err(Unreadable::damaged(
                "it is followed by something else than signatures",
            ));
        }
        Ok(Self { line, signatures })
    }
}

/// The text of a document: `line`, its hash, and the lines `signatures`.
pub(super) fn seal(context: &str, line: &str, signatures: &[String]) -> String {
    let mut text = format!("{line}\n{}\n", hash_line(context, line));
    for signature in signatures {
        text.push_str(signature);
        text.push('\n');
    }
    text
}

fn hash_line(context: &str, line: &str) -> String {
    format!("blake3:{}", Digest::derived(context, line.as_bytes()))
}
