//! JPEG to RGB, byte for byte as libjpeg-turbo decodes it for Pillow.
//!
//! A JPEG file does not define its pixels to the last bit: decoders differ by
//! their rounding and by how they enlarge subsampled colour, by up to 40 units
//! at edges. So this one follows libjpeg's integer arithmetic: its "slow"
//! transform, its "fancy" enlargement of colour, its conversion to RGB, and its
//! rules for which colours a file holds.
//!
//! Sequential and progressive files of 8 bits with Huffman codes are read (ITU-T
//! T.81); arithmetic codes, 12 bits, lossless files and those that leave their
//! Huffman tables out are refused. Of damage that libjpeg passes over this makes
//! nearly always the same; progressive files that stop early it does not smooth.

mod entropy;
mod idct;
mod sample;

use anyhow::{Result, bail, ensure};

use self::entropy::{Band, Bits, Codes, Reader, Tables, ZIGZAG, next_marker};
use super::{Pixels, check_size};

/// More scans than any encoder makes; each costs time.
const MOST_SCANS: usize = 256;

/// One colour of the image.
struct Component {
    id: u8,
    /// Samples in an MCU, across and down.
    h: usize,
    v: usize,
    table: usize,
    /// The quantization table as it stood at the first scan of this component.
    quant: Option<[u16; 64]>,
    /// Size in samples, without padding.
    width: usize,
    height: usize,
    /// Blocks in a row and in a column, padded to whole MCUs.
    across: usize,
    down: usize,
    coefficients: Vec<[i16; 64]>,
}

impl Component {
    /// The samples, in rows of `8 · across`; what no scan held is mid-grey.
    fn samples(&self) -> Vec<u8> {
        let stride = 8 * self.across;
        let mut plane = vec![128; stride * 8 * self.down];
        let Some(quant) = &self.quant else {
            return plane;
        };
        for (i, coefficients) in self.coefficients.iter().enumerate() {
            let at = i / self.across * 8 * stride + i % self.across * 8;
            for (y, row) in idct::block(coefficients, quant)
                .as_chunks::<8>()
                .0
                .iter()
                .enumerate()
            {
                plane[at + y * stride..][..8].copy_from_slice(row);
            }
        }
        plane
    }
}

/// The image as its frame header describes it.
struct Frame {
    progressive: bool,
    width: usize,
    height: usize,
    components: Vec<Component>,
    /// MCUs in a row and in a column.
    across: usize,
    down: usize,
}

/// How the samples say colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Colour {
    Grey,
    Rgb,
    YCbCr,
    Cmyk,
    Ycck,
}

#[derive(Default)]
struct Decoder<'a> {
    bytes: &'a [u8],
    at: usize,
    quant: [Option<[u16; 64]>; 4],
    dc: [Option<Codes>; 4],
    ac: [Option<Codes>; 4],
    /// MCUs between restart markers; 0 for none.
    restart: usize,
    jfif: bool,
    /// The colour transform that an Adobe marker states.
    adobe: Option<u8>,
    frame: Option<Frame>,
    scans: usize,
}

/// Decodes a whole file.
pub(super) fn decode(bytes: &[u8]) -> Result<Pixels> {
    let mut decoder = Decoder {
        bytes,
        at: 2,
        ..Decoder::default()
    };
    decoder.read()?;
    let colour = decoder.colour()?;
    let Some(frame) = decoder.frame.filter(|_| decoder.scans > 0) else {
        bail!("it holds no image");
    };
    Ok(sample::pixels(frame, colour))
}

impl<'a> Decoder<'a> {
    /// Reads all markers up to the end of the image.
    fn read(&mut self) -> Result<()> {
        loop {
            let (marker, after) = next_marker(self.bytes, self.at)?;
            self.at = after;
            match marker {
                0xd9 => return Ok(()),
                0xd8 => bail!("a second image begins within it"),
                0x01 | 0xd0..=0xd7 => continue,
                _ => {}
            }
            let segment = self.segment()?;
            match marker {
                0xc0..=0xc2 => self.frame_header(marker == 0xc2, segment)?,
                0xc3 | 0xc5..=0xc7 | 0xcb | 0xcd..=0xcf => {
                    bail!("it is a lossless or hierarchical JPEG, which cannot be read")
                }
                0xc9 | 0xca => {
                    bail!("it is an arithmetic-coded JPEG, which cannot be read")
                }
                0xc4 => self.codes(segment)?,
                0xdb => self.quantization(segment)?,
                0xda => self.scan(segment)?,
                0xdd => {
                    let interval = segment.first_chunk().copied();
                    self.restart = usize::from(u16::from_be_bytes(whole(interval)?));
                }
                0xe0 if segment.len() >= 12 && segment.starts_with(b"JFIF\0") => self.jfif = true,
                0xee if segment.starts_with(b"Adobe") && segment.len() >= 12 => {
                    self.adobe = segment.get(11).copied();
                }
                0xcc | 0xdc | 0xe0..=0xef | 0xfe => {}
                _ => bail!("it has an unknown marker {marker:#04x}"),
            }
        }
    }

    /// The payload of the marker just passed.
    fn segment(&mut self) -> Result<&'a [u8]> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let Some((length, rest)) = rest.split_first_chunk() else {
            bail!("the file is truncated");
        };
        let length = usize::from(u16::from_be_bytes(*length));
        let Some(payload) = length.checked_sub(2) else {
            bail!("a segment of {length} bytes is too short");
        };
        let Some(segment) = rest.get(..payload) else {
            bail!("the file is truncated");
        };
        self.at += length;
        Ok(segment)
    }

    fn quantization(&mut self, mut segment: &[u8]) -> Result<()> {
        while let Some((head, rest)) = segment.split_first() {
            let wide = head >> 4 != 0;
            let size = if wide { 128 } else { 64 };
            let (Some(slot), Some(values)) =
                (self.quant.get_mut(usize::from(head & 15)), rest.get(..size))
            else {
                bail!("a quantization table is malformed");
            };
            let mut table = [0; 64];
            for (k, at) in ZIGZAG.into_iter().enumerate() {
                table[usize::from(at)] = if wide {
                    u16::from_be_bytes([values[2 * k], values[2 * k + 1]])
                } else {
                    u16::from(values[k])
                };
            }
            *slot = Some(table);
            segment = &rest[size..];
        }
        Ok(())
    }

    fn codes(&mut self, mut segment: &[u8]) -> Result<()> {
        while let Some((head, rest)) = segment.split_first() {
            let (counts, rest) = rest.split_first_chunk::<16>().unzip();
            let (counts, rest) = (whole(counts)?, rest.unwrap_or_default());
            let size = counts.iter().map(|n| usize::from(*n)).sum();
            let tables = if head & 0x10 == 0 {
                &mut self.dc
            } else {
                &mut self.ac
            };
            let (Some(slot), Some(symbols)) =
                (tables.get_mut(usize::from(head & !0x10)), rest.get(..size))
            else {
                bail!("a Huffman table is malformed");
            };
            *slot = Some(Codes::new(counts, symbols)?);
            segment = &rest[size..];
        }
        Ok(())
    }

    fn frame_header(&mut self, progressive: bool, segment: &[u8]) -> Result<()> {
        ensure!(self.frame.is_none(), "it has two frames");
        let (head, list) = segment.split_first_chunk::<6>().unzip();
        let [bits, h0, h1, w0, w1, count] = *whole(head)?;
        let list = list.unwrap_or_default();
        ensure!(bits == 8, "it has {bits} bits a sample, and 8 can be read");
        ensure!(
            matches!(count, 1 | 3 | 4) && list.len() == 3 * usize::from(count),
            "it has {count} components, and 1, 3 or 4 can be read"
        );
        let height = usize::from(u16::from_be_bytes([h0, h1]));
        let width = usize::from(u16::from_be_bytes([w0, w1]));
        check_size(width as u64, height as u64)?;
        let factors = |c: &[u8; 3]| (usize::from(c[1] >> 4), usize::from(c[1] & 15));
        let list = list.as_chunks::<3>().0;
        let valid = list
            .iter()
            .map(factors)
            .all(|(h, v)| (1..=4).contains(&h) && (1..=4).contains(&v));
        ensure!(valid, "it has sampling factors outside 1 to 4");
        let h_max = list.iter().map(|c| factors(c).0).max().unwrap_or(1);
        let v_max = list.iter().map(|c| factors(c).1).max().unwrap_or(1);
        let (across, down) = (width.div_ceil(8 * h_max), height.div_ceil(8 * v_max));
        let mut components = Vec::with_capacity(list.len());
        for c in list {
            let (h, v) = factors(c);
            ensure!(
                h_max % h == 0 && v_max % v == 0,
                "its sampling factors are no multiples of each other, which cannot be read"
            );
            components.push(Component {
                id: c[0],
                h,
                v,
                table: usize::from(c[2]),
                quant: None,
                width: (width * h).div_ceil(h_max),
                height: (height * v).div_ceil(v_max),
                across: across * h,
                down: down * v,
                coefficients: Vec::new(),
            });
        }
        self.frame = Some(Frame {
            progressive,
            width,
            height,
            components,
            across,
            down,
        });
        Ok(())
    }

    /// Reads the scan that follows its header.
    fn scan(&mut self, header: &[u8]) -> Result<()> {
        self.scans += 1;
        ensure!(
            self.scans <= MOST_SCANS,
            "it has more than {MOST_SCANS} scans"
        );
        let Some(frame) = &mut self.frame else {
            bail!("its pixels begin before its size is said");
        };
        let (list, last) = header
            .split_first()
            .and_then(|(n, rest)| rest.split_at_checked(2 * usize::from(*n)))
            .unzip();
        let (list, last) = (
            list.unwrap_or_default().as_chunks::<2>().0,
            last.unwrap_or_default(),
        );
        let [first, end, approximation] = *whole(last.first_chunk::<3>())?;
        let band = Band {
            progressive: frame.progressive,
            first: usize::from(first),
            last: usize::from(end),
            refines: approximation >> 4 != 0,
            low: u32::from(approximation & 15),
        };
        ensure!(
            (1..=4).contains(&list.len()) && is_possible(band, approximation, list.len()),
            "a scan header is malformed"
        );
        let mut parts: Vec<Part<'_>> = Vec::with_capacity(list.len());
        for [id, tables] in list {
            let Some(at) = frame.components.iter().position(|c| c.id == *id) else {
                bail!("a scan is of a component that the image has not");
            };
            ensure!(
                parts.iter().all(|part| part.component != at),
                "a scan names a component twice"
            );
            let component = &mut frame.components[at];
            if component.coefficients.is_empty() {
                let quant = self.quant.get(component.table).copied().flatten();
                ensure!(quant.is_some(), "a quantization table is missing");
                component.quant = quant;
                component.coefficients = vec![[0; 64]; component.across * component.down];
            }
            parts.push(Part {
                component: at,
                tables: Tables {
                    dc: self
                        .dc
                        .get(usize::from(tables >> 4))
                        .and_then(Option::as_ref),
                    ac: self
                        .ac
                        .get(usize::from(tables & 15))
                        .and_then(Option::as_ref),
                },
                mean: 0,
            });
        }
        let reader = Reader::new(Bits::new(self.bytes, self.at), band);
        self.at = read_scan(frame, &mut parts, reader, self.restart)?;
        Ok(())
    }

    /// Which colours the file holds, by libjpeg's rules.
    fn colour(&self) -> Result<Colour> {
        let ids: Vec<u8> = self
            .frame
            .iter()
            .flat_map(|f| &f.components)
            .map(|c| c.id)
            .collect();
        Ok(match (ids.as_slice(), self.adobe) {
            ([_], _) => Colour::Grey,
            ([_, _, _], Some(0)) | ([b'R', b'G', b'B'], None) if !self.jfif => Colour::Rgb,
            ([_, _, _], _) => Colour::YCbCr,
            ([_, _, _, _], None | Some(0)) => Colour::Cmyk,
            ([_, _, _, _], Some(_)) => Colour::Ycck,
            _ => bail!("it holds no image"),
        })
    }
}

/// A component's part in a scan.
struct Part<'t> {
    component: usize,
    tables: Tables<'t>,
    mean: i32,
}

/// Whether a scan header makes sense for a progressive file; others ignore it.
fn is_possible(band: Band, approximation: u8, components: usize) -> bool {
    let high = u32::from(approximation >> 4);
    let range = if band.first == 0 {
        band.last == 0
    } else {
        band.first <= band.last && band.last < 64 && components == 1
    };
    !band.progressive || (range && band.low <= 13 && (!band.refines || high == band.low + 1))
}

/// Reads all blocks of a scan; gives the position behind it.
fn read_scan(
    frame: &mut Frame,
    parts: &mut [Part<'_>],
    mut reader: Reader<'_>,
    restart: usize,
) -> Result<usize> {
    // A scan of one component has its real blocks only, one after the other.
    let alone = parts.len() == 1;
    let (across, down) = match parts {
        [part] => {
            let component = &frame.components[part.component];
            (component.width.div_ceil(8), component.height.div_ceil(8))
        }
        _ => (frame.across, frame.down),
    };
    let (mut left, mut next) = (restart, 0);
    for mcu in 0..across * down {
        if restart > 0 && left == 0 {
            reader.bits.restart(next)?;
            reader.reset();
            for part in &mut *parts {
                part.mean = 0;
            }
            next = (next + 1) & 7;
            left = restart;
        }
        left = left.saturating_sub(1);
        if reader.bits.is_dry() {
            if restart == 0 {
                break;
            }
            continue;
        }
        let (x, y) = (mcu % across, mcu / across);
        for part in &mut *parts {
            let component = &mut frame.components[part.component];
            let (h, v) = if alone {
                (1, 1)
            } else {
                (component.h, component.v)
            };
            for row in y * v..(y + 1) * v {
                for column in x * h..(x + 1) * h {
                    let block = &mut component.coefficients[row * component.across + column];
                    reader.block(part.tables, &mut part.mean, block)?;
                }
            }
        }
    }
    Ok(reader.bits.position())
}

/// What a segment begins with, if it is long enough.
fn whole<T>(part: Option<T>) -> Result<T> {
    match part {
        Some(part) => Ok(part),
        None => bail!("a segment is too short"),
    }
}
