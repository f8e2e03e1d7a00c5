//! ftfy's fixes of single characters: ligatures, width, quotes, line breaks,
//! terminal escapes and control characters.

use std::sync::LazyLock;

use regex::Regex;
use unicode_normalization::UnicodeNormalization;

/// Every fix of this file, in ftfy's order.
pub(super) fn fix_characters(text: &str) -> String {
    let mut fixed = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            // Half and full width; none of these is a ligature.
            '\u{3000}' => fixed.push(' '),
            '\u{ff01}'..='\u{ffef}' => fixed.extend([c].into_iter().nfkc()),
            _ => match ligature(c) {
                Some(letters) => fixed.push_str(letters),
                None => fixed.push(c),
            },
        }
    }
    let fixed: String = (fixed.replace("\r\n", "\n").chars())
        .map(|c| match c {
            '\u{2bc}' | '\u{2018}'..='\u{201b}' => '\'',
            '\u{201c}'..='\u{201f}' => '"',
            '\r' | '\u{2028}' | '\u{2029}' | '\u{85}' => '\n',
            other => other,
        })
        .collect();
    let mut fixed = remove_terminal_escapes(fixed);
    fixed.retain(|c| {
        !matches!(c,
            '\0'..='\x08' | '\x0b' | '\x0e'..='\x1f' | '\x7f' | '\u{206a}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffc}')
    });
    fixed
}

/// The letters of a Latin ligature or digraph that stands as one character.
fn ligature(c: char) -> Option<&'static str> {
    Some(match c {
        'Ĳ' => "IJ",
        'ĳ' => "ij",
        'ŉ' => "ʼn",
        'Ǳ' => "DZ",
        'ǲ' => "Dz",
        'ǳ' => "dz",
        'Ǆ' => "DŽ",
        'ǅ' => "Dž",
        'ǆ' => "dž",
        'Ǉ' => "LJ",
        'ǈ' => "Lj",
        'ǉ' => "lj",
        'Ǌ' => "NJ",
        'ǋ' => "Nj",
        'ǌ' => "nj",
        'ﬀ' => "ff",
        'ﬁ' => "fi",
        'ﬂ' => "fl",
        'ﬃ' => "ffi",
        'ﬄ' => "ffl",
        'ﬅ' => "ſt",
        'ﬆ' => "st",
        _ => return None,
    })
}

/// Drops `ESC [ digits ; … letter`, which colours text in a terminal.
fn remove_terminal_escapes(text: String) -> String {
    static ESCAPE: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(r"\x1b\[[\p{Nd};]*[a-zA-Z]").ok());
    match ESCAPE.as_ref() {
        Some(escape) if text.contains('\x1b') => escape.replace_all(&text, "").into_owned(),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_fixed_as_ftfy_does() {
        for (text, expected) in [
            ("it\u{2019}s \u{201c}big\u{201d}", "it's \"big\""),
            ("a\r\nb\rc\u{2028}d\u{85}e", "a\nb\nc\nd\ne"),
            ("\u{1b}[31;1mred\u{1b}[0m\u{1b}[", "red["),
            ("\u{1b}[\u{661}m\u{1b}[²m", "[²m"),
            ("a\0b\x7fc\u{feff}d\u{206a}\u{fffc}e", "abcde"),
            ("ﬁne ﬅ ŉ Ǆ", "fine ſt 'n DŽ"),
            ("ＡＢＣ　ｳｶﾞ￦￣", "ABC ウカ\u{3099}₩ \u{304}"),
            ("\t\x0c ~", "\t\x0c ~"),
        ] {
            assert_eq!(fix_characters(text), expected, "{text:?}");
        }
    }
}
