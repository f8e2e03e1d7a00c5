//! From a JPEG's samples to RGB: subsampled colour enlarged, colours converted.

use super::{Colour, Component, Frame};
use crate::data::Pixels;

/// How a component is enlarged, by libjpeg's rules for its "fancy" mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Enlarge {
    /// Each sample as often as it takes, across and down.
    Repeat(usize, usize),
    /// Twice as wide: 3/4 of the nearer sample and 1/4 of the farther one.
    Across,
    /// Twice as high, likewise.
    Down,
    /// Both.
    Both,
}

impl Enlarge {
    fn of(component: &Component, h_max: usize, v_max: usize) -> Self {
        match (h_max / component.h, v_max / component.v) {
            (2, 1) if component.width > 2 => Self::Across,
            (1, 2) => Self::Down,
            (2, 2) if component.width > 2 => Self::Both,
            (h, v) => Self::Repeat(h, v),
        }
    }
}

/// The samples of a component, to be read in full rows.
struct Plane {
    samples: Vec<u8>,
    stride: usize,
    width: usize,
    height: usize,
    enlarge: Enlarge,
    /// Sums of two rows, between the two directions.
    sums: Vec<u16>,
}

impl Plane {
    fn row(&self, y: usize) -> &[u8] {
        let start = y.min(self.height - 1) * self.stride;
        &self.samples[start..start + self.width]
    }

    /// The rows nearest and next to the full-size row `y` of a component half as high.
    fn near_and_far(&self, y: usize) -> (&[u8], &[u8]) {
        let near = y / 2;
        let far = if y.is_multiple_of(2) {
            near.saturating_sub(1)
        } else {
            near + 1
        };
        (self.row(near), self.row(far))
    }

    /// Writes the full-size row `y`; `out` is as wide as the image.
    fn enlarged(&mut self, y: usize, out: &mut [u8]) {
        match self.enlarge {
            Enlarge::Repeat(1, v) => out.copy_from_slice(&self.row(y / v)[..out.len()]),
            Enlarge::Repeat(h, v) => {
                for (out, sample) in out.chunks_mut(h).zip(self.row(y / v)) {
                    out.fill(*sample);
                }
            }
            Enlarge::Across => across(self.row(y), out),
            Enlarge::Down => {
                let bias = if y.is_multiple_of(2) { 1 } else { 2 };
                let (near, far) = self.near_and_far(y);
                for ((out, near), far) in out.iter_mut().zip(near).zip(far) {
                    *out = ((u16::from(*near) * 3 + u16::from(*far) + bias) >> 2) as u8;
                }
            }
            Enlarge::Both => {
                let mut sums = std::mem::take(&mut self.sums);
                sums.clear();
                let (near, far) = self.near_and_far(y);
                sums.extend(
                    near.iter()
                        .zip(far)
                        .map(|(n, f)| u16::from(*n) * 3 + u16::from(*f)),
                );
                both(&sums, out);
                self.sums = sums;
            }
        }
    }
}

/// A row twice as wide; libjpeg rounds left and right halves differently on purpose.
fn across(row: &[u8], out: &mut [u8]) {
    let last = row.len() - 1;
    for (x, out) in out.chunks_mut(2).enumerate() {
        let here = u16::from(row[x]) * 3;
        let left = row[x.saturating_sub(1)];
        out[0] = if x == 0 {
            row[0]
        } else {
            ((here + u16::from(left) + 1) >> 2) as u8
        };
        if let Some(out) = out.get_mut(1) {
            let right = row[(x + 1).min(last)];
            *out = if x == last {
                row[last]
            } else {
                ((here + u16::from(right) + 2) >> 2) as u8
            };
        }
    }
}

/// A row twice as wide from sums of two rows, which are four times too large.
fn both(sums: &[u16], out: &mut [u8]) {
    let last = sums.len() - 1;
    for (x, out) in out.chunks_mut(2).enumerate() {
        let here = sums[x] * 3;
        out[0] = ((here + sums[x.saturating_sub(1)] + 8) >> 4) as u8;
        if let Some(out) = out.get_mut(1) {
            *out = ((here + sums[(x + 1).min(last)] + 7) >> 4) as u8;
        }
    }
}

/// Fractional bits of the colour conversion.
const FRACTION: u32 = 16;

const fn fix(x: f64) -> i32 {
    (x * (1 << FRACTION) as f64 + 0.5) as i32
}

/// BT.601 in full range (JFIF), each product rounded as in libjpeg's tables.
fn from_ycc(y: u8, cb: u8, cr: u8) -> [u8; 3] {
    const HALF: i32 = 1 << (FRACTION - 1);
    let (y, cb, cr) = (i32::from(y), i32::from(cb) - 128, i32::from(cr) - 128);
    let red = y + ((fix(1.402) * cr + HALF) >> FRACTION);
    let green = y + ((-fix(0.344_14) * cb - fix(0.714_14) * cr + HALF) >> FRACTION);
    let blue = y + ((fix(1.772) * cb + HALF) >> FRACTION);
    [red, green, blue].map(|c| c.clamp(0, 255) as u8)
}

/// Pillow's conversion of inks (255 is full) to light.
fn from_inks(inks: [u8; 3], black: u8) -> [u8; 3] {
    let light = i32::from(255 - black);
    inks.map(|ink| {
        let product = i32::from(ink) * light + 128;
        (light - ((product + (product >> 8)) >> 8)).clamp(0, 255) as u8
    })
}

/// The image, from its samples.
pub(super) fn pixels(frame: Frame, colour: Colour) -> Pixels {
    let Frame {
        width,
        height,
        components,
        ..
    } = frame;
    let h_max = components.iter().map(|c| c.h).max().unwrap_or(1);
    let v_max = components.iter().map(|c| c.v).max().unwrap_or(1);
    let mut planes: Vec<Plane> = components
        .into_iter()
        .map(|component| Plane {
            samples: component.samples(),
            stride: 8 * component.across,
            width: component.width,
            height: component.height,
            enlarge: Enlarge::of(&component, h_max, v_max),
            sums: Vec::new(),
        })
        .collect();
    let mut rows = vec![vec![0; width]; planes.len()];
    let mut rgb = vec![0; width * height * 3];
    for (y, out) in rgb.chunks_exact_mut(3 * width).enumerate() {
        for (plane, row) in planes.iter_mut().zip(&mut rows) {
            plane.enlarged(y, row);
        }
        convert(colour, &rows, out.as_chunks_mut::<3>().0);
    }
    Pixels { width, height, rgb }
}

fn convert(colour: Colour, rows: &[Vec<u8>], out: &mut [[u8; 3]]) {
    let three = |f: fn(u8, u8, u8) -> [u8; 3], out: &mut [[u8; 3]]| {
        if let [a, b, c, ..] = rows {
            for (((out, a), b), c) in out.iter_mut().zip(a).zip(b).zip(c) {
                *out = f(*a, *b, *c);
            }
        }
    };
    match (colour, rows) {
        (Colour::Grey, rows) => {
            for (out, grey) in out.iter_mut().zip(rows.iter().flatten()) {
                *out = [*grey; 3];
            }
        }
        (Colour::Rgb, _) => three(|r, g, b| [r, g, b], out),
        (Colour::YCbCr, _) => three(from_ycc, out),
        (Colour::Cmyk | Colour::Ycck, rows) => {
            // Pillow takes all four-colour files to hold 255 minus the ink, as Adobe's do.
            three(|c, m, y| [255 - c, 255 - m, 255 - y], out);
            if colour == Colour::Ycck {
                three(from_ycc, out);
            }
            for (out, black) in out.iter_mut().zip(rows.iter().skip(3).flatten()) {
                *out = from_inks(*out, 255 - black);
            }
        }
    }
}
