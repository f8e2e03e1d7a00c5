//! Repairs text that was decoded in a wrong code page: `ftfy.fix_encoding`.
//!
//! `cafÃ©` is UTF-8 read as Latin-1. Encoding it again as Latin-1 gives bytes
//! that are UTF-8, which is hardly ever by chance; so it is read as such.

use std::{collections::HashMap, sync::LazyLock};

use regex::bytes::Regex;

use super::{
    Work,
    badness::is_bad,
    codepages::{CodePage, LIKE_LATIN_1, MACINTOSH, PAGES},
    html::windows,
};

/// Repairs `text` as often as something changes.
///
/// Calls itself through [`fix_embedded`] for parts of a text. That goes no
/// deeper than a few dozen calls: before a part of a part is looked at, either
/// the part was decoded, which leaves at most half of its characters beyond
/// ASCII, or its control characters were replaced, which happens once.
pub(super) fn fix_encoding(text: &str, work: &mut Work) -> String {
    let mut text = text.to_owned();
    while !text.is_ascii() && work.take(text.len()) && is_bad(&text) {
        match repair(&text, work) {
            Some(repaired) if repaired != text => text = repaired,
            _ => break,
        }
    }
    text
}

/// One step of the repair.
///
/// ftfy's last step, from Latin-1 to Windows-1252 where the whole text allows
/// it, gives what [`fix_controls`] gives.
fn repair(text: &str, work: &mut Work) -> Option<String> {
    (PAGES.iter().find_map(|page| decode_again(text, page)))
        .or_else(|| Some(fix_embedded(text, work)).filter(|fixed| fixed != text))
        .or_else(|| Some(fix_controls(text)))
}

/// The control characters 80 to 9F as what Windows has in their places.
pub(super) fn fix_controls(text: &str) -> String {
    let fix = |c| match c {
        '\u{80}'..='\u{9f}' => windows(c as u8),
        _ => c,
    };
    text.chars().map(fix).collect()
}

/// Reads the bytes that `text` has in `page` as UTF-8.
fn decode_again(text: &str, page: &CodePage) -> Option<String> {
    let mut bytes = page.encode(text)?;
    // In Mac Roman a lost space would be an en dash with a space after it.
    if page.name != MACINTOSH {
        bytes = restore_no_break_spaces(bytes);
    }
    if page.sloppy {
        bytes = mark_lost_bytes(bytes);
    }
    decode_utf8(&bytes)
}

/// Puts byte A0, the no-break space of Latin-1, back where some software left a
/// plain space inside a character of UTF-8.
///
/// Only where the character that it completes is a likely one.
fn restore_no_break_spaces(bytes: Vec<u8>) -> Vec<u8> {
    static SPACED: LazyLock<Option<Regex>> = LazyLock::new(|| {
        let pattern = r"(?x-u)
            [\xc2\xc3\xc5\xce\xd0\xd9]\x20
            | [\xe2\xe3]\x20[\x80-\x84\x86-\x9f\xa1-\xbf]
            | [\xe0-\xe3][\x80-\x84\x86-\x9f\xa1-\xbf]\x20
            | \xf0(?: \x20[\x80-\xbf]{2} | [\x80-\xbf]\x20[\x80-\xbf] | [\x80-\xbf]{2}\x20 )";
        Regex::new(pattern).ok()
    });
    let Some(spaced) = SPACED.as_ref().filter(|spaced| spaced.is_match(&bytes)) else {
        return bytes;
    };
    let bytes = restore_words(&bytes);
    let mut restored = Vec::with_capacity(bytes.len());
    let mut end = 0;
    for found in spaced.find_iter(&bytes) {
        restored.extend(&bytes[end..found.start()]);
        let filled = |&byte| if byte == b' ' { 0xa0 } else { byte };
        restored.extend(found.as_bytes().iter().map(filled));
        end = found.end();
    }
    restored.extend(&bytes[end..]);
    restored
}

/// A lone `à`, C3 A0, followed by the space between words: both are put back
/// where one space is left.
fn restore_words(bytes: &[u8]) -> Vec<u8> {
    // Portuguese words that do start with the letter, and a second space.
    let starts_word = |rest: &[u8]| {
        let starts: [&[u8]; 5] = [b" ", b"quele", b"quela", b"quilo", b"s "];
        starts.iter().any(|start| rest.starts_with(start))
    };
    let mut restored = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&byte, after)) = rest.split_first() {
        restored.push(byte);
        rest = after;
        if let (0xc3, [b' ', next @ ..]) = (byte, after)
            && !starts_word(next)
        {
            restored.extend(b"\xa0 ");
            rest = next;
        }
    }
    restored
}

/// Makes U+FFFD of each character of UTF-8 that lost a byte, and of byte 1A.
///
/// A lost byte is 1A here, U+FFFD before, or at most once a question mark.
fn mark_lost_bytes(bytes: Vec<u8>) -> Vec<u8> {
    static LOST: LazyLock<Option<Regex>> = LazyLock::new(|| {
        let pattern = r"(?x-u)
            [\xc2-\xdf]\x1a
            | [\xc2\xc3]\?
            | \xed[\xa0-\xaf](?:
                [\x1a?]\xed[\xb0-\xbf][\x1a?\x80-\xbf] | [\x1a?\x80-\xbf]\xed[\xb0-\xbf][\x1a?] )
            | [\xe0-\xef](?: [\x1a?][\x1a\x80-\xbf] | [\x1a\x80-\xbf][\x1a?] )
            | [\xf0-\xf4](?: [\x1a?][\x1a\x80-\xbf]{2} | [\x1a\x80-\xbf][\x1a?][\x1a\x80-\xbf]
                | [\x1a\x80-\xbf]{2}[\x1a?] )
            | \x1a";
        Regex::new(pattern).ok()
    });
    match LOST.as_ref() {
        Some(lost) => (lost.replace_all(&bytes, "\u{fffd}".as_bytes())).into_owned(),
        None => bytes,
    }
}

/// Reads UTF-8, also with Java's C0 80 for NUL and with pairs of surrogates.
fn decode_utf8(bytes: &[u8]) -> Option<String> {
    let mut text = String::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| matches!(byte, 0xc0 | 0xed)) {
        let (before, special) = rest.split_at(at);
        text.push_str(std::str::from_utf8(before).ok()?);
        let (c, len) = match special {
            // In ftfy's patterns `$` also stands before a last line break.
            [0xc0, 0x80, ..] | [0xc0, b'\n'] => ('\0', 2),
            [
                0xed,
                a @ 0xa0..=0xaf,
                b @ 0x80..=0xbf,
                0xed,
                c @ 0xb0..=0xbf,
                d,
                after @ ..,
            ] if matches!(d, 0x80..=0xbf) || (*d == b'\n' && after.is_empty()) => {
                let bits = |byte: u8, mask: u8, shift: u32| u32::from(byte & mask) << shift;
                let high = bits(*a, 0x0f, 16) | bits(*b, 0x3f, 10);
                let low = bits(*c, 0x0f, 6) | bits(*d, 0x3f, 0);
                (char::from_u32(0x1_0000 + high + low)?, 6)
            }
            [0xed, b, c, ..] => {
                let character = std::str::from_utf8(&[0xed, *b, *c]).ok()?.chars().next()?;
                (character, 3)
            }
            _ => return None,
        };
        text.push(c);
        rest = special.get(len..)?;
    }
    text.push_str(std::str::from_utf8(rest).ok()?);
    Some(text)
}

// What a character may be in UTF-8 that was read in a page like Latin-1, as bits.
/// Starts a character of two bytes: C2 to DF.
const FIRST_OF_2: u8 = 1;
/// Starts a character of three bytes: E0 to EF.
const FIRST_OF_3: u8 = 1 << 1;
/// Starts a character of four bytes that is in use: F0 or F3.
const FIRST_OF_4: u8 = 1 << 2;
/// Continues a character: 80 to BF, or a space for A0.
const CONTINUATION: u8 = 1 << 3;
/// As [`CONTINUATION`], but seldom meant for itself.
const STRICT: u8 = 1 << 4;

/// Characters that continue a character of UTF-8, yet are also common in text.
const OFTEN_MEANT: &str = "–—―‘’‚“”„•…";

static CLUES: LazyLock<HashMap<char, u8>> = LazyLock::new(|| {
    let mut clues = HashMap::from([(' ', CONTINUATION)]);
    for page in &PAGES[..LIKE_LATIN_1] {
        for (byte, &c) in (0x80..=0xffu8).zip(&page.high) {
            let clue = match byte {
                0x80..=0xbf if OFTEN_MEANT.contains(c) => CONTINUATION,
                0x80..=0xbf => CONTINUATION | STRICT,
                0xc2..=0xdf => FIRST_OF_2,
                0xe0..=0xef => FIRST_OF_3,
                0xf0 | 0xf3 => FIRST_OF_4,
                _ => 0,
            };
            *clues.entry(c).or_insert(0) |= clue;
        }
    }
    clues
});

/// Repairs the parts of `text` that look like UTF-8, each for itself.
fn fix_embedded(text: &str, work: &mut Work) -> String {
    let clues: Vec<(usize, u8)> = (text.char_indices())
        .map(|(at, c)| (at, CLUES.get(&c).copied().unwrap_or(0)))
        .chain([(text.len(), 0)])
        .collect();
    let mut fixed = String::with_capacity(text.len());
    let mut done = 0;
    let mut i = 0;
    while i + 1 < clues.len() {
        let after_garble = i > 0 && clues[i - 1].1 & STRICT != 0;
        let len = if after_garble { 0 } else { run(&clues[i..]) };
        if len == 0 {
            i += 1;
            continue;
        }
        let part = &text[clues[i].0..clues[i + len].0];
        // A part that is the whole has been tried.
        if part.len() < text.len() && is_bad(part) {
            fixed.push_str(&text[done..clues[i].0]);
            fixed.push_str(&fix_encoding(part, work));
            done = clues[i + len].0;
        }
        i += len;
    }
    fixed.push_str(&text[done..]);
    fixed
}

/// How many characters at the start of `clues` look like characters of UTF-8.
fn run(clues: &[(usize, u8)]) -> usize {
    let mut len = 0;
    'run: loop {
        for (first, continuations) in [(FIRST_OF_2, 1), (FIRST_OF_3, 2), (FIRST_OF_4, 3)] {
            if let Some([(_, start), rest @ ..]) = clues.get(len..=len + continuations)
                && start & first != 0
                && rest.iter().all(|(_, clue)| clue & CONTINUATION != 0)
            {
                len += 1 + continuations;
                continue 'run;
            }
        }
        return len;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fix(text: &str) -> String {
        fix_encoding(text, &mut Work::of(text))
    }

    #[test]
    fn wrongly_decoded_text_is_repaired() {
        for (text, expected) in [
            ("sÃ³", "só"),
            ("voilÃ le travail", "voilà le travail"),
            ("Ã quele", "àquele"),
            ("Ã  la carte", "à la carte"),
            ("âœ” No problems", "✔ No problems"),
            ("â€œ like this â€\u{fffd}", "“ like this \u{fffd}"),
            ("cafÃƒÂ©", "café"),
            ("вЂњРџСЂРёРІРµС‚вЂќ", "“Привет”"),
            ("caf√©s", "cafés"),
            ("ΓΓé¼", "ΓΓé¼"),
            ("caf├⌐", "café"),
            ("日本 â€œquotedâ€\u{9d}", "日本 “quoted”"),
            ("日本 a\u{85}b", "日本 a…b"),
            ("a\u{85}\u{81}", "a…\u{81}"),
            ("café", "café"),
        ] {
            assert_eq!(fix(text), expected, "{text:?}");
        }
    }

    #[test]
    fn variants_of_utf_8_are_read_as_ftfy_does() {
        for (bytes, expected) in [
            (&b"a\xc0\x80b"[..], Some("a\0b")),
            (b"a\xc0\n", Some("a\0")),
            (b"a\xc0\nb", None),
            (b"a\xc0", None),
            (b"\xed\x95\x9c!", Some("한!")),
            (b"\xed\xa0\xbd\xed\xb8\x80!", Some("😀!")),
            (b"\xed\xa0\xbd\xed\xb8\n", Some("\u{1f60a}")),
            (b"\xed\xa0\xbd\xed\xb8\n!", None),
            (b"\xed\xa0\xbd!!!", None),
            (b"\xed\xa0", None),
            (b"\xed", None),
            (b"\xe9!", None),
        ] {
            assert_eq!(decode_utf8(bytes).as_deref(), expected, "{bytes:x?}");
        }
    }

    #[test]
    fn deep_nesting_ends() {
        // Each round of wrong decoding doubles a character.
        let mut text = "é".to_owned();
        for _ in 0..12 {
            text = (text.bytes())
                .map(|byte| {
                    PAGES[1]
                        .high
                        .get(usize::from(byte) - 0x80)
                        .copied()
                        .unwrap_or('?')
                })
                .collect();
        }
        assert_eq!(fix(&text), "é");
        let text = format!("日{text}");
        assert_eq!(fix(&text), "日é");
    }
}
