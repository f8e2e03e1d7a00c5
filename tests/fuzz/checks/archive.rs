//! What PyTorch writes: archives of state dicts and of `TorchScript` modules, and files of the time
//! before archives.

use runner::models::weights::{Format, Weights};

/// The members that an archive can be made of, all in the folder `a`.
const NAMES: [&str; 8] = [
    "data.pkl",
    "constants.pkl",
    "code/__torch__.py",
    "data/0",
    "data/1",
    "byteorder",
    "code/__torch__/a.py",
    "version",
];
/// Marks a member as compressed.
const DEFLATED: u8 = 0x80;

/// The bytes are a file if they begin like one. Otherwise they are an archive's members: a byte
/// for name and method, two of length, then the data.
pub fn check(bytes: &[u8]) -> bool {
    let whole = bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"\x80\x02\x8a\x0a");
    let made;
    let file = if whole {
        bytes
    } else {
        made = archive(bytes);
        &made
    };
    super::in_file("model.pt", file, |path| {
        let Ok(mut weights) = Weights::open(path) else {
            return false;
        };
        assert_ne!(weights.format(), Format::Safetensors);
        super::weights::hold(&mut weights, path);
        true
    })
}

fn archive(mut members: &[u8]) -> Vec<u8> {
    let (mut file, mut directory, mut count) = (Vec::new(), Vec::new(), 0_u16);
    while let [what, low, high, rest @ ..] = members {
        let len = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
        let (data, rest) = rest.split_at(len);
        members = rest;
        let name = format!("a/{}", NAMES[usize::from(what & 7)]);
        let method = if what & DEFLATED == 0 { 0_u16 } else { 8 };
        // Version, flags, method, time, checksum, both lengths, those of the name and of what
        // else there is.
        let mut fields = vec![20, 0, 0, 0];
        fields.extend(method.to_le_bytes());
        fields.extend([0; 8]);
        for _ in 0..2 {
            fields.extend((data.len() as u32).to_le_bytes());
        }
        fields.extend((name.len() as u16).to_le_bytes());
        fields.extend([0; 2]);
        directory.extend(b"PK\x01\x02\x14\x00");
        directory.extend(&fields);
        directory.extend([0; 10]);
        directory.extend((file.len() as u32).to_le_bytes());
        directory.extend(name.as_bytes());
        file.extend(b"PK\x03\x04");
        file.extend(&fields);
        file.extend(name.as_bytes());
        file.extend(data);
        count += 1;
    }
    let start = file.len() as u32;
    file.extend(&directory);
    file.extend(b"PK\x05\x06\0\0\0\0");
    file.extend(count.to_le_bytes());
    file.extend(count.to_le_bytes());
    file.extend((directory.len() as u32).to_le_bytes());
    file.extend(start.to_le_bytes());
    file.extend([0; 2]);
    file
}
