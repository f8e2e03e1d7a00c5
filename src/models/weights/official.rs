//! Files that `OpenAI` published, recognized by their SHA-256.

use std::{io::Read, path::Path};

use fs_err::File;
use sha2::{Digest, Sha256};

use super::{WeightsError, view::PIECE};

/// Model, length in bytes and SHA-256. The sums are the folders of the files'
/// addresses in `clip/clip.py` of <https://github.com/openai/CLIP>.
const PUBLISHED: [(&str, u64, [u8; 32]); 9] = [
    (
        "RN50",
        255_827_503,
        sum("afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762"),
    ),
    (
        "RN101",
        291_791_292,
        sum("8fa8567bab74a42d41c5915025a8e4538c3bdbe8804a470a72f30b0d94fab599"),
    ),
    (
        "RN50x4",
        421_854_225,
        sum("7e526bd135e493cef0776de27d5f42653e6b4c8bf9e0f653bb11773263205fdd"),
    ),
    (
        "RN50x16",
        661_125_706,
        sum("52378b407f34354e150460fe41077663dd5b39c54cd0bfd2b27167a4a06ec9aa"),
    ),
    (
        "RN50x64",
        1_353_500_174,
        sum("be1cfb55d75a9666199fb2206c106743da0f6468c9d327f3e0d0a543a9919d9c"),
    ),
    (
        "ViT-B/32",
        353_976_522,
        sum("40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af"),
    ),
    (
        "ViT-B/16",
        350_837_078,
        sum("5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f"),
    ),
    (
        "ViT-L/14",
        932_768_134,
        sum("b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836"),
    ),
    (
        "ViT-L/14@336px",
        934_088_680,
        sum("3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02"),
    ),
];

/// The lengths come from programs that check their downloads, not from
/// `OpenAI`; a file this much longer or shorter is hashed all the same.
const SLACK: u64 = 1 << 20;

/// Which of `OpenAI`'s CLIP models the file at `path` is, under `OpenAI`'s name
/// for it (`RN50`, `ViT-B/32`, …); `None` if it is another file, or not a file.
///
/// All of them use `QuickGELU`, which no file of weights records. Only a file of
/// a likely length is read.
///
/// # Errors
/// When it cannot be read.
pub fn official(path: &Path) -> Result<Option<&'static str>, WeightsError> {
    published(path, &PUBLISHED, SLACK)
}

fn published(
    path: &Path,
    known: &[(&'static str, u64, [u8; 32])],
    slack: u64,
) -> Result<Option<&'static str>, WeightsError> {
    let metadata = fs_err::metadata(path)?;
    let likely = |(_, len, _): &&(_, u64, _)| metadata.len().abs_diff(*len) <= slack;
    if !metadata.is_file() || !known.iter().any(|model| likely(&model)) {
        return Ok(None);
    }
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut piece = vec![0; PIECE];
    loop {
        let len = file.read(&mut piece)?;
        if len == 0 {
            break;
        }
        hash.update(&piece[..len]);
    }
    let found: [u8; 32] = hash.finalize().into();
    let model = known.iter().find(|(_, _, sum)| *sum == found);
    Ok(model.map(|(name, _, _)| *name))
}

/// The bytes of 64 hexadecimal digits, known when this is compiled.
const fn sum(digits: &str) -> [u8; 32] {
    const fn value(digit: u8) -> u8 {
        match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => panic!("no hexadecimal digit"),
        }
    }
    let digits = digits.as_bytes();
    assert!(digits.len() == 64, "a SHA-256 has 64 digits");
    let mut bytes = [0; 32];
    let mut at = 0;
    while at < 32 {
        bytes[at] = value(digits[2 * at]) << 4 | value(digits[2 * at + 1]);
        at += 1;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_recognized_by_its_bytes_and_never_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("RN50.pt");
        let abc = sum("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        let known = [("other", 3, [0; 32]), ("abc", 4, abc)];
        let check = |bytes: &[u8], slack| {
            std::fs::write(&path, bytes).unwrap();
            published(&path, &known, slack).unwrap()
        };
        assert_eq!(check(b"abc", 1), Some("abc"));
        assert_eq!(check(b"abd", 1), None);
        // Ten bytes cannot be either, so they are not hashed.
        assert_eq!(check(b"abcabcabca", 1), None);
        assert_eq!(official(&path).unwrap(), None);
        assert_eq!(official(folder.path()).unwrap(), None);
        assert!(official(&folder.path().join("gone.pt")).is_err());
    }

    #[test]
    fn the_published_sums_are_all_different() {
        let sums: std::collections::BTreeSet<_> = PUBLISHED.iter().map(|m| m.2).collect();
        assert_eq!(sums.len(), PUBLISHED.len());
        assert_eq!(PUBLISHED[0].2[..4], [0xaf, 0xeb, 0x0e, 0x10]);
    }
}
