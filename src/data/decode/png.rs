//! PNG to RGB: what Pillow makes of each colour type and depth.

use std::io::{Cursor, ErrorKind};

use anyhow::{Result, anyhow, bail, ensure};
use png::{
    BitDepth, ColorType, DecodeOptions, Decoder, DecodingError, InterlaceInfo, Limits,
    Transformations, expand_interlaced_row,
};

use super::{Pixels, check_size};

/// Memory for one row and for what precedes the pixels, in bytes.
const LIMITS: Limits = Limits { bytes: 256 << 20 };

/// Decodes a whole file.
pub(super) fn decode(bytes: &[u8]) -> Result<Pixels> {
    let mut options = DecodeOptions::default();
    options.set_ignore_text_chunk(true);
    options.set_ignore_iccp_chunk(true);
    let mut decoder = Decoder::new_with_options(Cursor::new(bytes), options);
    decoder.set_limits(LIMITS);
    decoder.set_transformations(Transformations::IDENTITY);
    let header = decoder.read_header_info().map_err(in_words)?;
    check_size(header.width.into(), header.height.into())?;
    let (width, height) = (header.width, header.height);
    let mut reader = decoder.read_info().map_err(in_words)?;
    let info = reader.info();
    ensure!(
        info.frame_control
            .is_none_or(|f| (f.width, f.height) == (width, height)),
        "its first frame is of another size"
    );
    let colours = Colours {
        kind: info.color_type,
        depth: info.bit_depth,
        palette: info.palette.as_deref().unwrap_or_default().to_vec(),
    };
    let (width, height) = (width as usize, height as usize);
    let stride = 3 * width;
    let mut rgb = vec![0; stride * height];
    // A row may come with up to seven pixels of padding.
    let mut buffer = vec![[0; 3]; width + 7];
    let mut y = 0;
    while let Some(row) = reader.next_interlaced_row().map_err(in_words)? {
        let count = colours.convert(row.data(), &mut buffer);
        let pixels = buffer.get(..count).unwrap_or_default().as_flattened();
        match row.interlace() {
            InterlaceInfo::Null(_) => {
                let (Some(out), Some(pixels)) = (
                    rgb.get_mut(y * stride..(y + 1) * stride),
                    pixels.get(..stride),
                ) else {
                    bail!("a row has another width");
                };
                out.copy_from_slice(pixels);
                y += 1;
            }
            InterlaceInfo::Adam7(info) => expand_interlaced_row(&mut rgb, stride, pixels, info, 24),
        }
    }
    Ok(Pixels { width, height, rgb })
}

/// How the samples of a row become colours.
struct Colours {
    kind: ColorType,
    depth: BitDepth,
    palette: Vec<u8>,
}

impl Colours {
    /// Converts all of `row`, padding included; gives the number of pixels.
    fn convert(&self, row: &[u8], out: &mut [[u8; 3]]) -> usize {
        use {BitDepth::Sixteen, ColorType as C};
        match (self.kind, self.depth) {
            (C::Rgb, Sixteen) => each(row, out, |p: &[u8; 6]| [p[0], p[2], p[4]]),
            (C::Rgba, Sixteen) => each(row, out, |p: &[u8; 8]| [p[0], p[2], p[4]]),
            (C::Rgb, _) => each(row, out, |p: &[u8; 3]| *p),
            (C::Rgba, _) => each(row, out, |p: &[u8; 4]| [p[0], p[1], p[2]]),
            (C::GrayscaleAlpha, Sixteen) => each(row, out, |p: &[u8; 4]| [p[0]; 3]),
            (C::GrayscaleAlpha, _) => each(row, out, |p: &[u8; 2]| [p[0]; 3]),
            (C::Grayscale, Sixteen) => each(row, out, |p: &[u8; 2]| {
                [if p[0] == 0 { p[1] } else { 255 }; 3]
            }),
            (C::Grayscale, depth) => {
                let scale = 255 / ((1_u16 << depth as u8) - 1) as u8;
                self.packed(row, out, |sample| [sample * scale; 3])
            }
            (C::Indexed, _) => {
                let colours = self.palette.as_chunks::<3>().0;
                self.packed(row, out, |index| {
                    colours.get(usize::from(index)).copied().unwrap_or_default()
                })
            }
        }
    }

    /// Samples of 1, 2, 4 or 8 bits, the first in the highest bits.
    fn packed(&self, row: &[u8], out: &mut [[u8; 3]], colour: impl Fn(u8) -> [u8; 3]) -> usize {
        let bits = self.depth as usize;
        let mask = ((1_u16 << bits) - 1) as u8;
        let samples = row
            .iter()
            .flat_map(|byte| (0..8 / bits).map(move |i| (byte >> (8 - bits * (i + 1))) & mask));
        out.iter_mut()
            .zip(samples)
            .map(|(out, sample)| *out = colour(sample))
            .count()
    }
}

fn each<const N: usize>(
    row: &[u8],
    out: &mut [[u8; 3]],
    colour: impl Fn(&[u8; N]) -> [u8; 3],
) -> usize {
    let pixels = row.as_chunks::<N>().0;
    out.iter_mut()
        .zip(pixels)
        .map(|(out, pixel)| *out = colour(pixel))
        .count()
}

fn in_words(error: DecodingError) -> anyhow::Error {
    match error {
        DecodingError::IoError(error) if error.kind() == ErrorKind::UnexpectedEof => {
            anyhow!("the file is truncated")
        }
        DecodingError::LimitsExceeded => anyhow!("it needs too much memory"),
        error => {
            let text = error.to_string();
            let problem = if text.starts_with("CRC") {
                "a checksum is wrong"
            } else {
                text.trim_end_matches('.')
            };
            anyhow!("it is a damaged PNG: {problem}")
        }
    }
}
