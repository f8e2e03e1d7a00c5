//! Tells text that was decoded in a wrong code page from text that is meant.
//!
//! The heuristic of ftfy 6.3 (`ftfy.badness`, by Robyn Speer, Apache-2.0): the
//! characters that such mistakes produce fall into kinds, and some
//! neighbourhoods of kinds hardly ever occur on purpose. The kinds and
//! neighbourhoods are ftfy's, but for two that others contain.

use std::{collections::HashMap, sync::LazyLock};

use regex::Regex;

// Kinds of characters, as bits.
const COMMON: u32 = 1;
const BAD: u32 = 1 << 1;
const LAW: u32 = 1 << 2;
const CURRENCY: u32 = 1 << 3;
const OPENING: u32 = 1 << 4;
const CLOSING: u32 = 1 << 5;
const NUMERIC: u32 = 1 << 6;
const KAOMOJI: u32 = 1 << 7;
const UPPER: u32 = 1 << 8;
const LOWER: u32 = 1 << 9;
const UPPER_COMMON: u32 = 1 << 10;
const LOWER_COMMON: u32 = 1 << 11;
const BOX: u32 = 1 << 12;
/// Control characters of Latin-1.
const C1: u32 = 1 << 13;
const A_TO_Z: u32 = 1 << 14;
const CAPITAL_A_TO_Z: u32 = 1 << 15;
const SPACE: u32 = 1 << 16;

const ACCENTED: u32 = UPPER | LOWER;
const LATIN: u32 = A_TO_Z | CAPITAL_A_TO_Z;
const PUNCTUATION: u32 = OPENING | CLOSING;
/// Kinds that are suspicious beside [`BAD`].
const ODD: u32 = ACCENTED | BOX | PUNCTUATION | CURRENCY | NUMERIC | LAW;
/// Kinds that are suspicious between two capitals of one other alphabet.
const BETWEEN: u32 = C1 | BAD | PUNCTUATION | CURRENCY;

/// One place of a neighbourhood.
enum Place {
    /// A character of these kinds.
    Kind(u32),
    /// One of these characters.
    One(&'static str),
    /// A character of these kinds or one of these characters.
    Of(u32, &'static str),
    /// A letter, digit or `_` of any script.
    Word,
    /// Anything but a letter of ASCII.
    NotLatin,
    /// Anything but the end of a line.
    Any,
}

use Place::{Any, Kind, NotLatin, Of, One, Word};

/// Neighbours that betray a wrong decoding, wherever they stand.
const NEIGHBOURS: &[&[Place]] = &[
    &[Kind(C1)],
    &[Kind(ODD | BAD), Kind(BAD)],
    &[Kind(BAD), Kind(ODD)],
    &[Kind(LATIN), Kind(LOWER_COMMON | UPPER_COMMON), Kind(BAD)],
    &[
        Kind(LOWER | LOWER_COMMON | BOX | CLOSING | CURRENCY | NUMERIC),
        Kind(UPPER),
    ],
    &[Kind(BOX | CLOSING | CURRENCY | NUMERIC), Kind(LOWER)],
    &[Kind(LOWER | BOX | CLOSING), Kind(CURRENCY)],
    &[Kind(SPACE), Kind(UPPER), Kind(CURRENCY)],
    &[Kind(UPPER | BOX), Kind(NUMERIC | LAW)],
    &[
        Kind(ACCENTED | BOX | CURRENCY | CLOSING),
        Kind(OPENING),
        Kind(NUMERIC),
    ],
    &[
        Kind(ACCENTED | CURRENCY | NUMERIC | BOX | LAW),
        Kind(CLOSING),
        Kind(OPENING),
    ],
    &[Kind(CURRENCY | NUMERIC | BOX), Kind(OPENING)],
    &[Kind(A_TO_Z), Kind(UPPER), Kind(OPENING | CURRENCY)],
    &[Kind(BOX), Kind(KAOMOJI)],
    &[
        Kind(ACCENTED | CURRENCY | NUMERIC | PUNCTUATION | LAW),
        Kind(BOX),
    ],
    &[Kind(BOX), Kind(CLOSING)],
    &[Kind(ACCENTED), Kind(PUNCTUATION), Word],
    &[One("Œœ"), NotLatin],
    &[Kind(UPPER), One("°")],
    // Windows-1252: beginnings of two bytes, then Arabic, then Indian scripts.
    &[One("ÂÃÎÐ"), Of(PUNCTUATION, "€œŠš¢£Ÿž\u{a0}\u{ad}®©°·»–—´")],
    &[One("×"), One("²³")],
    &[One("ØÙ"), ARABIC, One("ØÙ"), ARABIC],
    &[One("à"), One("²µ¹¼½¾")],
    &[Kind(A_TO_Z), One("ÃÂ"), One(" ")],
    &[Kind(A_TO_Z), Kind(SPACE), One("ÃÂ"), One(" ")],
    &[Of(A_TO_Z | CLOSING, ".,?!"), One("Â"), Of(PUNCTUATION, " ")],
    // Mac Roman.
    &[One("√"), One("±∂†≠®™´≤≥¥µø")],
    &[One("≈"), One("°¢")],
    &[One("‚"), One("Ä"), One("ìîïòôúùû†°¢π")],
    &[One("‚"), One("âó"), One("àä°ê")],
    // Windows-1251.
    &[One("в"), One("Ђ")],
    &[One("ВГРС"), Of(BETWEEN, "°µ"), One("ВГРС")],
    &[
        One("Г"),
        One("ў"),
        One("В"),
        One("Ђ"),
        One("В"),
        Any,
        Of(LATIN, " "),
    ],
    // Windows-1253.
    &[One("β"), One("€"), One("™\u{a0}Ά\u{ad}®°")],
    &[One("ΒΓΞΟ"), Of(BETWEEN, "°"), One("ΒΓΞΟ")],
];

const ARABIC: Place = Of(COMMON | CURRENCY | BAD | NUMERIC | OPENING, "ŸŠ®°µ»");

impl Place {
    fn takes(&self, c: char, kinds: u32) -> bool {
        match self {
            Kind(mask) => kinds & mask != 0,
            One(list) => list.contains(c),
            Of(mask, list) => kinds & mask != 0 || list.contains(c),
            Word => is_word(c),
            NotLatin => kinds & LATIN == 0,
            Any => c != '\n',
        }
    }
}

/// Whether some of `text` seems to have been decoded in a wrong code page.
pub(super) fn is_bad(text: &str) -> bool {
    let kinds: Vec<(char, u32)> = text.chars().map(|c| (c, kinds(c))).collect();
    let start = matches!(kinds[..], [('Â' | 'Ã', _), (' ', _), ..]);
    start
        || (0..kinds.len()).any(|at| {
            let here = &kinds[at..];
            NEIGHBOURS.iter().any(|places| {
                places.len() <= here.len()
                    && (places.iter().zip(here)).all(|(place, &(c, kinds))| place.takes(c, kinds))
            })
        })
}

fn kinds(c: char) -> u32 {
    let listed = || LISTED.get(&c).copied().unwrap_or(0);
    match c {
        'a'..='z' => A_TO_Z,
        'A'..='Z' => CAPITAL_A_TO_Z,
        '\0'..='\x7f' if super::is_space(c) => SPACE,
        '\0'..='\x7f' => 0,
        '\u{80}'..='\u{9f}' => C1,
        _ if super::is_space(c) => SPACE | listed(),
        _ => listed(),
    }
}

/// Python's `\w`.
fn is_word(c: char) -> bool {
    static WORD: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"^[\p{L}\p{N}_]$").ok());
    let mut buffer = [0; 4];
    (WORD.as_ref()).is_some_and(|word| word.is_match(c.encode_utf8(&mut buffer)))
}

static LISTED: LazyLock<HashMap<char, u32>> = LazyLock::new(|| {
    let mut listed = HashMap::new();
    for (kind, members) in KINDS {
        for c in members.chars() {
            *listed.entry(c).or_insert(0) |= kind;
        }
    }
    listed
});

/// The characters of each kind.
const KINDS: [(u32, &str); 13] = [
    (COMMON, "\u{a0}\u{ad}´·–—―’…"),
    (BAD, "¤¦¨ª¬¯¸ºƒˆˇ˘˛˜†‡‰⌐◊\u{fffd}"),
    (LAW, "§¶"),
    (CURRENCY, "¢£¥₧€"),
    (OPENING, "¡©«¿΄΅‘‚“„•‹\u{f8ff}"),
    (CLOSING, "®»˝”›™"),
    (NUMERIC, "±²³µ¹¼½¾×÷⁄№∂∆∏∑√∞∩∫≈≠≡≤≥"),
    (KAOMOJI, "°ÒÓÔÕÖÙÚÛÜòóôõöøùúûüŌŐŪŲ"),
    (
        UPPER,
        "\
        ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÐÑØÜÝĀĂĄĆČĎĐĒĖĘĚĞĢĪİĶĹĻĽŁŃŅŇŒŘŚŞŠŢŤŮŰŸŹŻŽҐ",
    ),
    (
        LOWER,
        "\
        ßàáâãäåæçèéêëìíîïðñüāăąćčďđēėęěğģīįķĺļľłœŕśşšťźżžґﬁﬂ",
    ),
    (
        UPPER_COMMON,
        "\
        ÞΆΈΉΊΌΎΏΑΒΓΔΕΖΗΘΙΚΛΜΝΞΟΠΡΣΤΥΦΧΨΩΪΫЁЂЃЄЅІЇЈЉЊЋЌЍЎЏАБВГДЕЖЗИ\
        ЙКЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯ",
    ),
    (
        LOWER_COMMON,
        "\
        άέήίΰαβγδεζηθικλμνξοπρςστυφχψωабвгдежзийклмнопрстуфхцчшщъы\
        ьэюяѐёђѓєѕіїјљњћќѝўџ",
    ),
    (
        BOX,
        "\
        │┌┐┘├┤┬┼═║╒╓╔╕╖╗╘╙╚╛╜╝╞╟╠╡╢╣╤╥╦╧╨╩╪╫╬▀▄█▌▐░▒▓",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrongly_decoded_text_is_told_from_what_is_meant() {
        for bad in [
            "sÃ³",
            "voilÃ le travail",
            "Ã la carte",
            "â€œquotedâ€\u{9d}",
            "a\u{85}b",
            "вЂ™",
            "Î±Î²",
            "√©t√©",
            "‚Äôs",
            "ā€",
            "≈°",
            "√¥",
            "Ø§Ù„Ø¹",
            "ГўВЂВ™s",
            "œ.",
        ] {
            assert!(is_bad(bad), "{bad:?}");
        }
        for good in [
            "",
            "a cat",
            "naïve café",
            "ÉCOLE",
            "São Paulo",
            "Ärger",
            "£5",
            "20 °C",
            "œuvre",
            "Рї",
            "Привет",
            "Ελλάδα",
            "½ cup",
            "“so”",
            "© 2021",
            "┌──┐",
            "日本",
            "x² + y²",
        ] {
            assert!(!is_bad(good), "{good:?}");
        }
    }
}
