//! WebP to RGB: lossy and lossless, and the first frame of an animation.

use std::io::{Cursor, ErrorKind};

use anyhow::{Context, Result, anyhow, bail, ensure};
use image_webp::{DecodingError, WebPDecoder};

use super::{Pixels, check_size};

/// The bit of an extended file's flags that says "an animation".
const ANIMATED: u8 = 2;
/// The bit that says "with alpha".
const ALPHA: u8 = 16;

/// Decodes a whole file.
pub(super) fn decode(bytes: &[u8]) -> Result<Pixels> {
    let declared = number(bytes, 4, 4).unwrap_or(0);
    let Some(chunks) = bytes.get(12..declared + 8) else {
        bail!("the file is truncated");
    };
    match Chunk::first(chunks) {
        Some((head, rest))
            if head.name == b"VP8X" && head.payload.first().is_some_and(|f| f & ANIMATED != 0) =>
        {
            animated(head.payload, rest)
        }
        _ => still(bytes),
    }
}

/// A little-endian number of `size` bytes.
fn number(bytes: &[u8], at: usize, size: usize) -> Option<usize> {
    let bytes = bytes.get(at..at + size)?;
    Some(
        bytes
            .iter()
            .rev()
            .fold(0, |n, byte| n << 8 | usize::from(*byte)),
    )
}

/// A part of a file: its name, its payload, and both with size and padding.
struct Chunk<'a> {
    name: &'a [u8],
    payload: &'a [u8],
    all: &'a [u8],
}

impl<'a> Chunk<'a> {
    /// The first chunk of `bytes`, and what follows it.
    fn first(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let size = number(bytes, 4, 4)?;
        let (all, rest) = bytes.split_at_checked(8 + size.next_multiple_of(2))?;
        let chunk = Self {
            name: &bytes[..4],
            payload: &bytes[8..8 + size],
            all,
        };
        Some((chunk, rest))
    }
}

/// The first frame of an animation, as a file of its own on a canvas of clear
/// black. libwebp puts it there as it is, also where it asks to be blended.
fn animated(extended: &[u8], mut rest: &[u8]) -> Result<Pixels> {
    let damaged = || anyhow!("it is a damaged WebP: an animation without a frame");
    let side = |at| number(extended, at, 3).map(|n| n + 1).with_context(damaged);
    let (width, height) = (side(4)?, side(7)?);
    check_size(width as u64, height as u64)?;
    let frame = loop {
        let (chunk, next) = Chunk::first(rest).with_context(damaged)?;
        if chunk.name == b"ANMF" {
            break chunk.payload;
        }
        rest = next;
    };
    let field = |at| number(frame, at, 3).with_context(damaged);
    let (x, y) = (2 * field(0)?, 2 * field(3)?);
    let image = still(&file_of(frame).with_context(damaged)?)?;
    ensure!(
        (image.width, image.height) == (field(6)? + 1, field(9)? + 1)
            && x + image.width <= width
            && y + image.height <= height,
        "it is a damaged WebP: its first frame does not fit"
    );
    let mut rgb = vec![0; 3 * width * height];
    let rows = rgb.chunks_exact_mut(3 * width).skip(y);
    for (out, row) in rows.zip(image.rgb.chunks_exact(3 * image.width)) {
        out[3 * x..3 * (x + image.width)].copy_from_slice(row);
    }
    Ok(Pixels { width, height, rgb })
}

/// A file without animation that holds the image of `frame`.
fn file_of(frame: &[u8]) -> Option<Vec<u8>> {
    let (first, rest) = Chunk::first(frame.get(16..)?)?;
    let mut body = b"WEBP".to_vec();
    if first.name == b"ALPH" {
        body.extend(b"VP8X\x0a\0\0\0");
        body.extend([ALPHA, 0, 0, 0]);
        body.extend(frame.get(6..12)?);
        body.extend(first.all);
        body.extend(Chunk::first(rest)?.0.all);
    } else {
        body.extend(first.all);
    }
    let mut file = b"RIFF".to_vec();
    file.extend((body.len() as u32).to_le_bytes());
    file.extend(body);
    Some(file)
}

/// An image without animation.
fn still(bytes: &[u8]) -> Result<Pixels> {
    let mut decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(|e| in_words(&e))?;
    let (width, height) = decoder.dimensions();
    check_size(width.into(), height.into())?;
    ensure!(
        !decoder.is_animated(),
        "it is a damaged WebP: a frame is an animation"
    );
    let size = decoder
        .output_buffer_size()
        .context("it needs too much memory")?;
    let mut pixels = vec![0; size];
    decoder.read_image(&mut pixels).map_err(|e| in_words(&e))?;
    if decoder.has_alpha() {
        let count = pixels.len() / 4;
        for i in 1..count {
            pixels.copy_within(4 * i..4 * i + 3, 3 * i);
        }
        pixels.truncate(3 * count);
    }
    Ok(Pixels {
        width: width as usize,
        height: height as usize,
        rgb: pixels,
    })
}

fn in_words(error: &DecodingError) -> anyhow::Error {
    match error {
        DecodingError::IoError(error) if error.kind() == ErrorKind::UnexpectedEof => {
            anyhow!("the file is truncated")
        }
        error => anyhow!("it is a damaged WebP: {error}"),
    }
}
