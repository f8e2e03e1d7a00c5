//! Image files to RGB, as `Image.open(file).convert("RGB")` of Pillow 13 does it.
//!
//! PNG, JPEG and WebP are told by their first bytes, whatever the file is called.
//! Every byte is Pillow's (the fixtures in `tests/fixtures/data` hold it to that):
//!
//! - Alpha and transparent colours are dropped, not blended.
//! - PNG: palettes are looked up, and an index beyond the palette is black; grey
//!   of 1, 2 or 4 bits is spread over 0 to 255; of 16-bit colour and of 16-bit
//!   grey with alpha the high byte counts; but 16-bit grey without alpha is cut
//!   off at 255, as Pillow does, which leaves most such images white.
//! - JPEG: grey, RGB, `YCbCr`, CMYK and YCCK; see [`jpeg`].
//! - Of an animation the first frame counts, on black where it leaves the canvas open.
//! - EXIF orientation, gamma and colour profiles are ignored.
//! - An image of more than 178,956,970 pixels is refused as a decompression bomb,
//!   and a file that ends before its last pixel as truncated. What follows the
//!   image in the file is not looked at.

mod jpeg;
mod png;
mod webp;

use anyhow::{Result, bail, ensure};

use super::{Pixels, sniff};

/// Changes whenever a file may decode to other pixels than before, because it is
/// part of the identity of images in folders.
pub(super) const VERSION: u32 = 1;

/// Pillow's limit: twice its `MAX_IMAGE_PIXELS`.
const MOST_PIXELS: u64 = 178_956_970;

/// Decodes a whole file.
///
/// # Errors
/// When it is of another format, damaged, truncated or too large.
pub(super) fn decode(bytes: &[u8]) -> Result<Pixels> {
    if bytes.starts_with(b"\x89PNG") {
        png::decode(bytes)
    } else if bytes.starts_with(b"\xff\xd8\xff") {
        jpeg::decode(bytes)
    } else if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
        webp::decode(bytes)
    } else if bytes.is_empty() {
        bail!("the file is empty")
    } else {
        bail!(
            "it is no PNG, JPEG or WebP image but {}",
            sniff::what(bytes)
        )
    }
}

/// Refuses sizes that no honest image has.
fn check_size(width: u64, height: u64) -> Result<()> {
    ensure!(
        width > 0 && height > 0,
        "an image of {width}×{height} pixels is empty"
    );
    ensure!(
        width.saturating_mul(height) <= MOST_PIXELS,
        "an image of {width}×{height} pixels is refused: it has more than {MOST_PIXELS}"
    );
    Ok(())
}

#[cfg(test)]
mod tests;
