//! A record: what a node's key led to, and its bytes.
//!
//! Canonical JSON on one line, its BLAKE3 on the next, at most 64 KiB in all; lines that begin
//! with `sig ` may follow. Fields that a version does not know are ignored; another `v` is a
//! record that it cannot read. A fingerprint or provenance too large for that is an object, and
//! the record refers to it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::digest::{Digest, canonical};

/// The longest record file, in bytes.
pub(super) const LONGEST: usize = 64 << 10;
/// The longest value kept inside a record, in bytes.
const LONGEST_VALUE: usize = 16 << 10;
const VERSION: u32 = 1;
const CONTEXT: &str = "runner record v1";

/// One output of a node: an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// A relative path with `/` between its parts.
    pub name: String,
    /// The object.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// What was computed for a key.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The node's key.
    pub key: Digest,
    /// The objects that make up the result.
    pub outputs: Vec<Output>,
    /// The digest of the artifact's manifest, by which later nodes name it. It need not be an
    /// object; if it is one, list it among the outputs.
    pub artifact: Digest,
    /// The kind of the node.
    pub kind: String,
    /// What the key was made of, readable.
    pub fingerprint: Value,
    /// The key with inputs named by their upstream nodes instead of their content.
    pub recipe: Option<Digest>,
    /// Where, when and by what it was computed; no part of any key.
    pub provenance: Value,
}

/// A value that is stored as an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Reference {
    pub(super) digest: Digest,
    pub(super) size: u64,
}

/// A record as it is written.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Written {
    v: u32,
    domain: String,
    pub(super) key: Digest,
    kind: String,
    artifact: Digest,
    #[serde(default)]
    recipe: Option<Digest>,
    pub(super) outputs: Vec<Output>,
    #[serde(default)]
    fingerprint: Value,
    #[serde(default)]
    pub(super) fingerprint_object: Option<Reference>,
    #[serde(default)]
    provenance: Value,
    #[serde(default)]
    pub(super) provenance_object: Option<Reference>,
}

/// Just enough of a record to know whether the rest can be read.
#[derive(Deserialize)]
struct Version {
    v: u32,
}

impl Written {
    /// The written form of `record`, and the values that must be stored as objects beside it.
    pub(super) fn of(record: &Record, domain: &str) -> (Self, Vec<String>) {
        let mut objects = Vec::new();
        let mut split = |value: &Value| {
            let text = canonical(value);
            if text.len() <= LONGEST_VALUE {
                return (value.clone(), None);
            }
            let reference = Reference {
                digest: Digest::of(text.as_bytes()),
                size: text.len() as u64,
            };
            objects.push(text);
            (Value::Null, Some(reference))
        };
        let (fingerprint, fingerprint_object) = split(&record.fingerprint);
        let (provenance, provenance_object) = split(&record.provenance);
        let written = Self {
            v: VERSION,
            domain: domain.to_owned(),
            key: record.key,
            kind: record.kind.clone(),
            artifact: record.artifact,
            recipe: record.recipe,
            outputs: record.outputs.clone(),
            fingerprint,
            fingerprint_object,
            provenance,
            provenance_object,
        };
        (written, objects)
    }

    /// The record, with what is stored as objects read by `load`.
    pub(super) fn record(
        self,
        mut load: impl FnMut(&Reference) -> Option<Value>,
    ) -> Option<Record> {
        let mut join = |value: Value, object: Option<Reference>| match object {
            Some(reference) => load(&reference),
            None => Some(value),
        };
        Some(Record {
            key: self.key,
            artifact: self.artifact,
            kind: self.kind,
            recipe: self.recipe,
            outputs: self.outputs,
            fingerprint: join(self.fingerprint, self.fingerprint_object)?,
            provenance: join(self.provenance, self.provenance_object)?,
        })
    }

    /// Every object that must be there for the record to hold, with its size.
    pub(super) fn references(&self) -> impl Iterator<Item = Reference> {
        let outputs = self.outputs.iter().map(|output| Reference {
            digest: output.digest,
            size: output.size,
        });
        let values = [self.fingerprint_object, self.provenance_object];
        outputs.chain(values.into_iter().flatten())
    }

    /// The bytes of the record's file.
    ///
    /// # Errors
    /// What makes it a record that could not be read back.
    pub(super) fn encode(&self) -> Result<Vec<u8>, String> {
        let value = serde_json::to_value(self).map_err(|error| error.to_string())?;
        let line = canonical(&value);
        let text = format!("{line}\n{}\n", hash_line(&line));
        if text.len() > LONGEST {
            return Err(format!(
                "it takes {} bytes, more than {LONGEST}\n\
                 hint: fewer outputs, or shorter names of outputs",
                text.len()
            ));
        }
        Self::decode(text.as_bytes(), &self.key, &self.domain).map_err(|bad| bad.reason)?;
        Ok(text.into_bytes())
    }

    /// Reads a record's file and checks everything but its objects.
    pub(super) fn decode(bytes: &[u8], key: &Digest, domain: &str) -> Result<Self, Unreadable> {
        let corrupt = |reason: &str| Unreadable {
            reason: reason.to_owned(),
            damaged: true,
        };
        if bytes.len() > LONGEST {
            return Err(corrupt("it is too long"));
        }
        let text = str::from_utf8(bytes).map_err(|_| corrupt("it is not text"))?;
        let text = text
            .strip_suffix('\n')
            .ok_or_else(|| corrupt("its last line is cut off"))?;
        let mut lines = text.split('\n');
        let line = lines.next().unwrap_or_default();
        if lines.next() != Some(hash_line(line).as_str()) {
            return Err(corrupt("its hash is not that of its text"));
        }
        if !lines.all(|line| line.starts_with("sig ")) {
            return Err(corrupt("it is followed by something else than signatures"));
        }
        let invalid = |reason: String| Unreadable {
            reason,
            damaged: false,
        };
        let version: Version =
            serde_json::from_str(line).map_err(|error| invalid(error.to_string()))?;
        if version.v != VERSION {
            let reason = format!("it has version {}, and this is {VERSION}", version.v);
            return Err(invalid(reason));
        }
        let written: Self =
            serde_json::from_str(line).map_err(|error| invalid(error.to_string()))?;
        if written.key != *key || written.domain != domain {
            return Err(corrupt("it is the record of another key or domain"));
        }
        match written
            .outputs
            .iter()
            .find(|output| !is_plain(&output.name))
        {
            Some(output) => Err(invalid(format!(
                "its output `{:?}` has no plain name",
                output.name
            ))),
            None => Ok(written),
        }
    }
}

/// Why a record's file gives no record.
#[derive(Debug)]
pub(super) struct Unreadable {
    pub(super) reason: String,
    /// Whether nobody could read it, as opposed to this version.
    pub(super) damaged: bool,
}

fn hash_line(line: &str) -> String {
    format!("blake3:{}", Digest::derived(CONTEXT, line.as_bytes()))
}

/// Whether a name, joined to a folder, always lies inside that folder.
fn is_plain(name: &str) -> bool {
    name.len() <= 1024
        && !name.contains(|c: char| c.is_control() || c == '\\')
        && name
            .split('/')
            .all(|part| !matches!(part, "" | "." | "..") && part.len() <= 255)
}
