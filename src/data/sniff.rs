//! What a file is by its first bytes, in words for an error message.

/// A few words such as "a ZIP archive"; the bytes themselves where nothing is known.
pub(super) fn what(bytes: &[u8]) -> String {
    let begins = |magic: &[u8]| bytes.starts_with(magic);
    let known = if bytes.is_empty() {
        "an empty file"
    } else if begins(b"PK") {
        if contains(bytes, b".npy") {
            "a NumPy archive (`.npz`)"
        } else {
            "a ZIP archive"
        }
    } else if begins(b"\x93NUMPY") {
        "a NumPy array (`.npy`)"
    } else if begins(b"\x1f\x8b") {
        "a gzip file"
    } else if begins(b"BZh") {
        "a bzip2 file"
    } else if begins(b"\xfd7zXZ") {
        "an xz file"
    } else if begins(b"\x28\xb5\x2f\xfd") {
        "a Zstandard file"
    } else if begins(b"7z\xbc\xaf") {
        "a 7-Zip archive"
    } else if begins(b"Rar!") {
        "a RAR archive"
    } else if begins(b"\x89HDF") {
        "an HDF5 file"
    } else if begins(b"PAR1") {
        "a Parquet file"
    } else if begins(b"\x89PNG") {
        "a PNG image"
    } else if begins(b"\xff\xd8\xff") {
        "a JPEG image"
    } else if begins(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
        "a WebP image"
    } else if begins(b"GIF8") {
        "a GIF image"
    } else if begins(b"BM") {
        "a BMP image"
    } else if begins(b"II*\0") || begins(b"MM\0*") {
        "a TIFF image"
    } else if bytes.get(4..8) == Some(b"ftyp") {
        "an AVIF or HEIF image or a film"
    } else if begins(b"version https://git-lfs") {
        "a Git LFS pointer, whose file was not fetched"
    } else if is_html(bytes) {
        "a web page"
    } else {
        return unknown(bytes);
    };
    known.to_owned()
}

fn contains(bytes: &[u8], word: &[u8]) -> bool {
    let head = &bytes[..bytes.len().min(256)];
    head.windows(word.len()).any(|w| w == word)
}

fn is_html(bytes: &[u8]) -> bool {
    let head: String = bytes
        .iter()
        .take(256)
        .map(|b| b.to_ascii_lowercase() as char)
        .collect();
    head.trim_start().starts_with('<') && (head.contains("html") || head.contains("<?xml"))
}

fn unknown(bytes: &[u8]) -> String {
    let head: String = bytes
        .iter()
        .take(16)
        .map(|b| match b {
            b' '..=b'~' if *b != b'`' => *b as char,
            _ => '.',
        })
        .collect();
    format!("begins with `{head}`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_by_their_first_bytes() {
        for (bytes, words) in [
            (&b"PK\x03\x04....data.npy"[..], "a NumPy archive (`.npz`)"),
            (b"PK\x03\x04....a.txt", "a ZIP archive"),
            (b"\n<!DOCTYPE HTML><p>", "a web page"),
            (b"GIF89a", "a GIF image"),
            (b"", "an empty file"),
            (b"hello\0world", "begins with `hello.world`"),
        ] {
            assert_eq!(what(bytes), words);
        }
    }
}
