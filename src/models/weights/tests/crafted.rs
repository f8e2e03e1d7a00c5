//! Archives of `PyTorch` made by hand, honest or not.

use std::io::Write;

use flate2::{Compression, write::DeflateEncoder};

use super::open;

/// A zip archive as it grows.
#[derive(Default)]
pub(super) struct Zip {
    pub(super) data: Vec<u8>,
    pub(super) directory: Vec<u8>,
    count: u16,
}

impl Zip {
    pub(super) fn of(members: &[(&str, &[u8])]) -> Self {
        let mut zip = Self::default();
        for (name, bytes) in members {
            zip.add(name, bytes);
        }
        zip
    }

    pub(super) fn add(&mut self, name: &str, bytes: &[u8]) {
        self.add_as(name, bytes, bytes.len(), 0);
    }

    pub(super) fn deflate(&mut self, name: &str, bytes: &[u8]) {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        self.add_as(name, &encoder.finish().unwrap(), bytes.len(), 8);
    }

    pub(super) fn add_as(&mut self, name: &str, bytes: &[u8], full_len: usize, method: u16) {
        let mut common = Vec::new();
        for field in [20, 0, method, 0, 0] {
            common.extend_from_slice(&u16::to_le_bytes(field));
        }
        for field in [0, bytes.len() as u32, full_len as u32] {
            common.extend_from_slice(&field.to_le_bytes());
        }
        common.extend_from_slice(&(name.len() as u16).to_le_bytes());
        common.extend_from_slice(&[0, 0]);
        let place = (self.data.len() as u32).to_le_bytes();
        self.data.extend_from_slice(b"PK\x03\x04");
        self.data.extend_from_slice(&common);
        self.data.extend_from_slice(name.as_bytes());
        self.data.extend_from_slice(bytes);
        self.directory.extend_from_slice(b"PK\x01\x02\x14\0");
        self.directory.extend_from_slice(&common);
        self.directory.extend_from_slice(&[0; 10]);
        self.directory.extend_from_slice(&place);
        self.directory.extend_from_slice(name.as_bytes());
        self.count += 1;
    }

    pub(super) fn end(&self) -> Vec<u8> {
        let mut bytes = [self.data.as_slice(), &self.directory, b"PK\x05\x06\0\0\0\0"].concat();
        bytes.extend_from_slice(&self.count.to_le_bytes());
        bytes.extend_from_slice(&self.count.to_le_bytes());
        bytes.extend_from_slice(&(self.directory.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&(self.data.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&[0, 0]);
        bytes
    }
}

pub(super) fn text(text: &str) -> Vec<u8> {
    [
        b"X",
        &(text.len() as u32).to_le_bytes()[..],
        text.as_bytes(),
    ]
    .concat()
}

pub(super) fn numbers(numbers: &[i128]) -> Vec<u8> {
    let numbers: String = numbers.iter().map(|n| format!("L{n}L\n")).collect();
    format!("({numbers}t").into_bytes()
}

/// A storage's class, elements and the offset, shape and strides of its tensor.
pub(super) type Claim<'a> = (&'a str, i128, i128, &'a [i128], &'a [i128]);

pub(super) fn tensor((class, elements, offset, shape, strides): Claim<'_>) -> Vec<u8> {
    let mut bytes = b"ctorch._utils\n_rebuild_tensor_v2\n((".to_vec();
    bytes.extend(text("storage"));
    bytes.extend(format!("ctorch\n{class}\n").into_bytes());
    bytes.extend([text("0"), text("cuda:0")].concat());
    bytes.extend(format!("L{elements}L\ntQL{offset}L\n").into_bytes());
    bytes.extend([numbers(shape), numbers(strides)].concat());
    bytes.extend(b"\x89ccollections\nOrderedDict\n)RtR");
    bytes
}

pub(super) fn dict(pairs: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let pairs = pairs.iter().flat_map(|(k, v)| [text(k), v.clone()]);
    [
        b"}(".to_vec(),
        pairs.collect::<Vec<_>>().concat(),
        b"u".to_vec(),
    ]
    .concat()
}

pub(super) fn pickled(value: &[u8]) -> Vec<u8> {
    [b"\x80\x02", value, b"."].concat()
}

/// An archive with the storage `0`, four f32, and this pickle.
pub(super) fn archive(value: &[u8]) -> Vec<u8> {
    let data: Vec<u8> = [1f32, 2.0, 3.0, 4.0].map(f32::to_le_bytes).concat();
    Zip::of(&[("any/data.pkl", &pickled(value)), ("any/data/0", &data)]).end()
}

pub(super) fn refused(bytes: &[u8], reason: &str) {
    let message = open(bytes).expect_err(reason).to_string();
    assert!(message.contains(reason), "{reason} in {message}");
    assert!(message.contains("tower.safetensors"), "{message}");
}
