//! Every fixture must decode to Pillow's bytes; every damage must end in an error.

use std::{collections::BTreeMap, fs, path::PathBuf};

use super::*;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/data")
}

fn fixture(name: &str) -> Vec<u8> {
    fs::read(folder().join(name)).unwrap()
}

fn problem(bytes: &[u8]) -> String {
    format!("{:#}", decode(bytes).unwrap_err())
}

/// Width, height and CRC32 of the RGB bytes, by Pillow.
fn known() -> BTreeMap<String, (usize, usize, u32)> {
    serde_json::from_slice(&fixture("images.json")).unwrap()
}

fn crc(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

#[test]
fn every_fixture_decodes_to_the_bytes_of_pillow() {
    let known = known();
    for (end, least) in [(".png", 40), (".jpg", 30), (".webp", 11)] {
        let n = known.keys().filter(|name| name.ends_with(end)).count();
        assert!(n >= least, "only {n} {end}");
    }
    for (name, (width, height, sum)) in known {
        let image = decode(&fixture(&name)).unwrap_or_else(|error| panic!("{name}: {error:#}"));
        assert_eq!((image.width, image.height), (width, height), "{name}");
        assert_eq!(image.rgb.len(), 3 * width * height, "{name}");
        assert_eq!(crc(&image.rgb), sum, "{name}");
    }
}

/// A PNG of one row of 16-bit samples.
fn wide(colour: ::png::ColorType, samples: &[u16]) -> Vec<u8> {
    let mut out = Vec::new();
    let width = samples.len() / colour.samples();
    let mut encoder = ::png::Encoder::new(&mut out, width as u32, 1);
    encoder.set_color(colour);
    encoder.set_depth(::png::BitDepth::Sixteen);
    let bytes: Vec<u8> = samples.iter().flat_map(|s| s.to_be_bytes()).collect();
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&bytes).unwrap();
    drop(writer);
    out
}

#[test]
fn grey_of_16_bits_is_cut_off_and_colour_keeps_its_high_byte() {
    // As Pillow does; the fixtures say so too, but not in so many words.
    let grey = [0, 1, 254, 255, 256, 300, 0xffff];
    let image = decode(&wide(::png::ColorType::Grayscale, &grey)).unwrap();
    let first: Vec<u8> = image.rgb.iter().step_by(3).copied().collect();
    assert_eq!(first, [0, 1, 254, 255, 255, 255, 255]);
    let colour = [0x12ff, 0x34ff, 0xff00];
    let image = decode(&wide(::png::ColorType::Rgb, &colour)).unwrap();
    assert_eq!(image.rgb, [0x12, 0x34, 0xff]);
}

#[test]
fn orientation_is_not_looked_at() {
    for name in ["turned.jpg", "turned.png", "turned.webp"] {
        let bytes = fixture(name);
        let tag = [0x01, 0x12];
        assert!(
            bytes.windows(2).any(|w| w == tag || w == [tag[1], tag[0]]),
            "{name}"
        );
        let image = decode(&bytes).unwrap();
        assert_eq!((image.width, image.height), (24, 10), "{name}");
    }
}

#[test]
fn a_truncated_file_of_each_kind_is_an_error() {
    // Of an animated PNG more than the first image may be lacking.
    for name in known()
        .into_keys()
        .filter(|name| name != "pillow-animated.png")
    {
        let whole = fixture(&name);
        // A PNG's last chunks hold no pixels.
        let spare = if whole.starts_with(b"\x89PNG") { 13 } else { 1 };
        for length in (0..=whole.len() - spare)
            .rev()
            .step_by(whole.len() / 24 + 1)
        {
            let error = problem(&whole[..length]);
            let told = ["truncated", "empty", "begins with", "too short", "damaged"];
            assert!(
                told.iter().any(|word| error.contains(word)),
                "{name} {length}: {error}"
            );
            if length > whole.len() * 2 / 3 && name != "one-pixel.png" {
                assert!(
                    error.contains("the file is truncated"),
                    "{name} {length}: {error}"
                );
            }
        }
    }
}

#[test]
fn what_follows_the_image_does_not_matter() {
    for name in [
        "pillow-rgb.png",
        "pillow-420-baseline.jpg",
        "pillow-420-progressive.jpg",
        "lossy.webp",
    ] {
        let mut bytes = fixture(name);
        let image = decode(&bytes).unwrap();
        bytes.extend(b"\0\xff\xd8 and more");
        assert_eq!(decode(&bytes).unwrap(), image, "{name}");
    }
}

#[test]
fn bombs_are_refused_by_their_size() {
    let mut png = fixture("one-pixel.png");
    png[16..20].copy_from_slice(&20_000_u32.to_be_bytes());
    png[20..24].copy_from_slice(&20_000_u32.to_be_bytes());
    let sum = crc(&png[12..29]).to_be_bytes();
    png[29..33].copy_from_slice(&sum);
    let mut jpeg = fixture("hand-rgb-ids.jpg");
    let frame = jpeg.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
    jpeg[frame + 5..frame + 9].fill(0xff);
    let mut webp = fixture("lossless.webp");
    // 14 bits of width and of height, each less one.
    webp[21..25].copy_from_slice(&(0x3ffd << 14 | 0x3ffd_u32).to_le_bytes());
    for bytes in [png, jpeg, webp] {
        let error = problem(&bytes);
        assert!(
            error.contains("is refused: it has more than 178956970"),
            "{error}"
        );
    }
}

#[test]
fn other_formats_are_named() {
    assert_eq!(
        problem(b"GIF89a\x01\0\x01\0"),
        "it is no PNG, JPEG or WebP image but a GIF image"
    );
    assert_eq!(problem(b""), "the file is empty");
    let page = problem(b"<!doctype html><html>not found</html>");
    assert!(page.ends_with("but a web page"), "{page}");
}

#[test]
fn jpegs_that_cannot_be_read_say_why() {
    let good = fixture("hand-rgb-ids.jpg");
    let frame = good.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
    let with = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[frame + at] = value;
        problem(&bytes)
    };
    assert!(with(1, 0xc9).contains("arithmetic-coded"));
    assert!(with(1, 0xc3).contains("lossless"));
    assert!(with(4, 12).contains("12 bits"));
    assert!(with(9, 2).contains("2 components"));
    assert!(with(11, 0x51).contains("sampling factors"));
    assert!(with(12, 9).contains("quantization table is missing"));
    assert!(with(6, 0).contains("is empty") || with(5, 0).contains("is empty"));
}

#[test]
fn a_frame_that_does_not_fit_its_image_or_canvas_is_refused() {
    let whole = fixture("animated-lossy.webp");
    let frame = 8 + whole.windows(4).position(|w| w == b"ANMF").unwrap();
    for (at, value) in [(0, 30), (6, 18), (6, 20), (9, 11)] {
        let mut bytes = whole.clone();
        bytes[frame + at] = value;
        let error = problem(&bytes);
        assert!(
            error.contains("it is a damaged WebP"),
            "{at} {value}: {error}"
        );
    }
}

#[test]
fn no_damage_makes_a_decoder_panic() {
    let mut state = 7_u64;
    let mut next = |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let mut refused = 0;
    for name in known().into_keys() {
        let whole = fixture(&name);
        for _ in 0..30 {
            let mut bytes = whole.clone();
            for _ in 0..=next(3) {
                let at = next(bytes.len());
                match next(4) {
                    0 => bytes[at] ^= 1 << next(8),
                    1 => bytes[at] = [0, 0xff, 0x7f, 0x80][next(4)],
                    2 => bytes.insert(at, next(256) as u8),
                    _ => drop(bytes.remove(at)),
                }
            }
            // A damaged size may be a large one, which is slow and no danger.
            let large = bytes.starts_with(b"\xff\xd8") && bytes != whole && size(&bytes) > 1 << 22;
            if !large {
                refused += usize::from(decode(&bytes).is_err());
            }
        }
    }
    assert!(refused > 500, "{refused}");
}

/// Pixels that a JPEG's frame header states.
fn size(jpeg: &[u8]) -> usize {
    let frame = jpeg
        .windows(2)
        .position(|w| w[0] == 0xff && (0xc0..=0xc2).contains(&w[1]));
    let sides = frame
        .and_then(|at| jpeg.get(at + 5..at + 9))
        .unwrap_or(&[0; 4]);
    let side = |at: usize| usize::from(u16::from_be_bytes([sides[at], sides[at + 1]]));
    side(0) * side(2)
}
