//! A record: what a node's key led to, and its bytes.
//!
//! Canonical JSON on one line, its BLAKE3 on the next, at most 64 KiB in all; lines that begin
//! with `sig ` may follow. Fields that a version does not know are ignored; another `v` is a
//! record that it cannot read. A fingerprint or provenance too large for that is an object, and
//! the record refers to it.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::document::{self, Document, Unreadable};
use crate::digest::{Digest, canonical};

/// The longest record file, in bytes.
pub(super) const LONGEST: usize = 64 << 10;
/// The longest value kept inside a record, in bytes.
const LONGEST_VALUE: usize = 16 << 10;
const VERSION: u32 = 1;
pub(super) const CONTEXT: &str = "runner record v1";

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
    pub(super) artifact: Digest,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) recipe: Option<Digest>,
    pub(super) outputs: Vec<Output>,
    #[serde(default)]
    fingerprint: Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) fingerprint_object: Option<Reference>,
    #[serde(default)]
    provenance: Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
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

    /// Every digest whose object, if it is one, belongs to the record.
    pub(super) fn named(&self) -> HashSet<Digest> {
        let references = self.references().map(|object| object.digest);
        references
            .chain([self.artifact])
            .chain(self.recipe)
            .collect()
    }

    /// The same record as one of the domain `domain`.
    pub(super) fn in_domain(mut self, domain: &str) -> Self {
        domain.clone_into(&mut self.domain);
        self
    }

    /// The text that a record's hash and signatures are over.
    ///
    /// # Errors
    /// The record cannot be written as JSON.
    pub(super) fn line(&self) -> Result<String, String> {
        let value = serde_json::to_value(self).map_err(|error| error.to_string())?;
        Ok(canonical(&value))
    }

    /// The bytes of the record's file.
    ///
    /// # Errors
    /// What makes it a record that could not be read back.
    pub(super) fn encode(&self) -> Result<Vec<u8>, String> {
        self.encode_signed(&[])
    }

    /// The bytes of the record's file with lines of signatures.
    ///
    /// # Errors
    /// What makes it a record that could not be read back.
    pub(super) fn encode_signed(&self, signatures: &[String]) -> Result<Vec<u8>, String> {
        let text = document::seal(CONTEXT, &self.line()?, signatures);
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

    /// Reads a record's file and checks everything but its objects and signatures.
    pub(super) fn decode(bytes: &[u8], key: &Digest, domain: &str) -> Result<Self, Unreadable> {
        Self::of_key(&Document::open(CONTEXT, bytes, LONGEST)?, key, domain)
    }

    /// Reads a record of the domain `domain` that was found by its key.
    pub(super) fn of_key(
        document: &Document<'_>,
        key: &Digest,
        domain: &str,
    ) -> Result<Self, Unreadable> {
        let written = Self::of_document(document)?;
        if written.key != *key || written.domain != domain {
            return Err(Unreadable::damaged(
                "it is the record of another key or domain",
            ));
        }
        Ok(written)
    }

    /// Reads a record of the domain `domain` that was found by its recipe.
    pub(super) fn of_recipe(
        document: &Document<'_>,
        recipe: &Digest,
        domain: &str,
    ) -> Result<Self, Unreadable> {
        let written = Self::of_document(document)?;
        if written.recipe != Some(*recipe) || written.domain != domain {
            return Err(Unreadable::damaged(
                "it is the record of another recipe or domain",
            ));
        }
        Ok(written)
    }

    /// What a document whose hash is right says.
    fn of_document(document: &Document<'_>) -> Result<Self, Unreadable> {
        let invalid = |reason: String| Unreadable {
            reason,
            damaged: false,
        };
        let line = document.line;
        let version: Version =
            serde_json::from_str(line).map_err(|error| invalid(error.to_string()))?;
        if version.v != VERSION {
            let reason = format!("it has version {}, and this is {VERSION}", version.v);
            return Err(invalid(reason));
        }
        let written: Self =
            serde_json::from_str(line).map_err(|error| invalid(error.to_string()))?;
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

/// Whether a name, joined to a folder, always lies inside that folder.
fn is_plain(name: &str) -> bool {
    name.len() <= 1024
        && !name.contains(|c: char| c.is_control() || c == '\\')
        && name
            .split('/')
            .all(|part| !matches!(part, "" | "." | "..") && part.len() <= 255)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn record() -> Record {
        Record {
            key: Digest::of(b"key"),
            outputs: vec![Output {
                name: "a/embeddings.safetensors".into(),
                digest: Digest::of(b"bytes"),
                size: 5,
            }],
            artifact: Digest::of(b"artifact"),
            kind: "clip_encode".into(),
            fingerprint: json!({"kind": "clip_encode", "params": {"x": 0.1}}),
            recipe: None,
            provenance: json!({"device": "cpu"}),
        }
    }

    fn sealed(line: &str) -> Vec<u8> {
        document::seal(CONTEXT, line, &[]).into_bytes()
    }

    fn read(bytes: &[u8]) -> Result<Record, Unreadable> {
        let written = Written::decode(bytes, &Digest::of(b"key"), "local")?;
        Ok(written.record(|_| None).unwrap())
    }

    /// Written by the first version. It must be read by every later one.
    const GOLDEN: &str = include_str!("../../tests/fixtures/store/record-v1.txt");

    #[test]
    fn a_record_of_the_first_version_is_written_and_read_as_ever() {
        let (written, values) = Written::of(&record(), "local");
        assert_eq!(values, [""; 0]);
        assert_eq!(
            String::from_utf8(written.encode().unwrap()).unwrap(),
            GOLDEN
        );
        assert_eq!(read(GOLDEN.as_bytes()).unwrap(), record());
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let good = GOLDEN.as_bytes();
        for bit in 0..good.len() * 8 {
            let mut bad = good.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&bad).is_err_and(|bad| bad.damaged), "bit {bit}");
        }
        for length in 0..good.len() {
            assert!(read(&good[..length]).is_err(), "length {length}");
        }
    }

    #[test]
    fn unknown_fields_and_signatures_are_ignored_but_another_version_is_not_read() {
        let line = GOLDEN.lines().next().unwrap();
        let more = line.replacen('{', r#"{"added_later":[1],"#, 1);
        assert_eq!(read(&sealed(&more)).unwrap(), record());
        let signed = format!("{GOLDEN}sig ana-1:AAAA\n");
        assert_eq!(read(signed.as_bytes()).unwrap(), record());
        let newer = line.replace(r#""v":1"#, r#""v":2"#);
        let unreadable = read(&sealed(&newer)).unwrap_err();
        assert_eq!(unreadable.reason, "it has version 2, and this is 1");
        assert!(!unreadable.damaged);
        // A later version may also have changed every other field.
        assert!(!read(&sealed(r#"{"v":2}"#)).unwrap_err().damaged);
    }

    #[test]
    fn hostile_records_are_not_read() {
        let line = GOLDEN.lines().next().unwrap();
        let name = "a/embeddings.safetensors";
        let table = [
            ("not JSON", "{".to_owned()),
            ("deep", "[".repeat(10_000)),
            ("empty", String::new()),
            (
                "another key",
                line.replace(&Digest::of(b"key").to_string(), &"0".repeat(64)),
            ),
            ("another domain", line.replace("local", "ci")),
            ("negative size", line.replace(r#""size":5"#, r#""size":-5"#)),
            (
                "twice the same field",
                line.replacen('{', r#"{"kind":"x","#, 1),
            ),
            ("outside", line.replace(name, "../../etc/passwd")),
            ("inside out", line.replace(name, "a/../../b")),
            ("absolute", line.replace(name, "/etc/passwd")),
            ("nameless", line.replace(name, "")),
            ("NUL", line.replace(name, "a\\u0000b")),
            ("back slash", line.replace(name, "a\\\\b")),
            ("long name", line.replace(name, &"a".repeat(256))),
            ("long", line.replace("cpu", &"c".repeat(LONGEST))),
        ];
        for (what, line) in table {
            assert!(read(&sealed(&line)).is_err(), "{what}");
        }
        assert!(read(b"\xff\xfe\n\n").is_err());
    }

    #[test]
    fn what_is_large_is_kept_beside_the_record() {
        let mut large = record();
        large.fingerprint = json!({"text": "x".repeat(100_000)});
        let (written, values) = Written::of(&large, "local");
        assert_eq!(values.len(), 1);
        let bytes = written.encode().unwrap();
        assert!(bytes.len() < 2_000);
        let written = Written::decode(&bytes, &large.key, "local").unwrap();
        assert_eq!(written.references().count(), 2);
        let load = |object: &Reference| {
            assert_eq!(object.digest, Digest::of(values[0].as_bytes()));
            serde_json::from_str(&values[0]).ok()
        };
        assert_eq!(written.record(load).unwrap(), large);
        large.outputs = vec![large.outputs[0].clone(); 600];
        let reason = Written::of(&large, "local").0.encode().unwrap_err();
        assert!(reason.contains("more than 65536"), "{reason}");
    }
}
