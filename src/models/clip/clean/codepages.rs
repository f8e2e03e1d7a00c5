//! The single-byte code pages in which text is most often decoded by mistake.
//!
//! The tables are Python's. As in ftfy, the Windows pages are "sloppy": a byte
//! without a character stands for the control character of its number, and
//! byte 1A for U+FFFD, which other software puts where a byte had no meaning.

use std::{collections::HashMap, sync::LazyLock};

/// A code page of 256 characters, the first 128 of them ASCII.
pub(in crate::models::clip) struct CodePage {
    /// The page's usual name.
    pub(in crate::models::clip) name: &'static str,
    /// Byte 1A stands for U+FFFD.
    pub(super) sloppy: bool,
    /// The characters of the bytes from 80 on.
    pub(in crate::models::clip) high: Vec<char>,
    bytes: HashMap<char, u8>,
}

impl CodePage {
    /// The bytes that give `text` when read in this page, if there are any.
    pub(super) fn encode(&self, text: &str) -> Option<Vec<u8>> {
        text.chars().map(|c| self.byte(c)).collect()
    }

    fn byte(&self, c: char) -> Option<u8> {
        match c {
            '\x1a' if self.sloppy => None,
            '\u{fffd}' if self.sloppy => Some(0x1a),
            '\0'..='\x7f' => Some(c as u8),
            _ => self.bytes.get(&c).copied(),
        }
    }
}

/// The pages, in the order in which ftfy tries them.
pub(in crate::models::clip) static PAGES: LazyLock<[CodePage; 10]> = LazyLock::new(|| {
    [
        ("latin-1", false, ""),
        ("windows-1252", true, WINDOWS_1252),
        ("windows-1251", true, WINDOWS_1251),
        ("windows-1250", true, WINDOWS_1250),
        ("windows-1253", true, WINDOWS_1253),
        ("windows-1254", true, WINDOWS_1254),
        ("windows-1257", true, WINDOWS_1257),
        ("iso-8859-2", false, ISO_8859_2),
        (MACINTOSH, false, MAC_ROMAN),
        ("cp437", false, CP437),
    ]
    .map(|(name, sloppy, table)| {
        // A table that is shorter lacks the first bytes, which are as in Latin-1.
        let given = table.chars().count();
        let latin = (0x80..=0xff).map(char::from).take(128 - given);
        let high: Vec<char> = latin.chain(table.chars()).collect();
        let bytes = high.iter().copied().zip(0x80..=0xff).collect();
        CodePage {
            name,
            sloppy,
            high,
            bytes,
        }
    })
});

/// The name of the page of old Apple computers.
pub(super) const MACINTOSH: &str = "macroman";

/// How many of [`PAGES`] resemble Latin-1: letters where it has letters.
pub(super) const LIKE_LATIN_1: usize = 7;

/// Western European.
const WINDOWS_1252: &str = "\
    €\u{81}‚ƒ„…†‡ˆ‰Š‹Œ\u{8d}Ž\u{8f}\u{90}‘’“”•–—˜™š›œ\u{9d}žŸ\
    \u{a0}¡¢£¤¥¦§¨©ª«¬\u{ad}®¯°±²³´µ¶·¸¹º»¼½¾¿\
    ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÐÑÒÓÔÕÖ×ØÙÚÛÜÝÞß\
    àáâãäåæçèéêëìíîïðñòóôõö÷øùúûüýþÿ";
/// Cyrillic.
const WINDOWS_1251: &str = "\
    ЂЃ‚ѓ„…†‡€‰Љ‹ЊЌЋЏђ‘’“”•–—\u{98}™љ›њќћџ\
    \u{a0}ЎўЈ¤Ґ¦§Ё©Є«¬\u{ad}®Ї°±Ііґµ¶·ё№є»јЅѕї\
    АБВГДЕЖЗИЙКЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯ\
    абвгдежзийклмнопрстуфхцчшщъыьэюя";
/// Central European.
const WINDOWS_1250: &str = "\
    €\u{81}‚\u{83}„…†‡\u{88}‰Š‹ŚŤŽŹ\u{90}‘’“”•–—\u{98}™š›śťžź\
    \u{a0}ˇ˘Ł¤Ą¦§¨©Ş«¬\u{ad}®Ż°±˛ł´µ¶·¸ąş»Ľ˝ľż\
    ŔÁÂĂÄĹĆÇČÉĘËĚÍÎĎĐŃŇÓÔŐÖ×ŘŮÚŰÜÝŢß\
    ŕáâăäĺćçčéęëěíîďđńňóôőö÷řůúűüýţ˙";
/// Greek.
const WINDOWS_1253: &str = "\
    €\u{81}‚ƒ„…†‡\u{88}‰\u{8a}‹\u{8c}\u{8d}\u{8e}\u{8f}\u{90}‘’“”•–—\u{98}™\u{9a}›\u{9c}\u{9d}\u{9e}\u{9f}\
    \u{a0}΅Ά£¤¥¦§¨©ª«¬\u{ad}®―°±²³΄µ¶·ΈΉΊ»Ό½ΎΏ\
    ΐΑΒΓΔΕΖΗΘΙΚΛΜΝΞΟΠΡÒΣΤΥΦΧΨΩΪΫάέήί\
    ΰαβγδεζηθικλμνξοπρςστυφχψωϊϋόύώÿ";
/// Turkish.
const WINDOWS_1254: &str = "\
    €\u{81}‚ƒ„…†‡ˆ‰Š‹Œ\u{8d}\u{8e}\u{8f}\u{90}‘’“”•–—˜™š›œ\u{9d}\u{9e}Ÿ\
    \u{a0}¡¢£¤¥¦§¨©ª«¬\u{ad}®¯°±²³´µ¶·¸¹º»¼½¾¿\
    ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏĞÑÒÓÔÕÖ×ØÙÚÛÜİŞß\
    àáâãäåæçèéêëìíîïğñòóôõö÷øùúûüışÿ";
/// Baltic.
const WINDOWS_1257: &str = "\
    €\u{81}‚\u{83}„…†‡\u{88}‰\u{8a}‹\u{8c}¨ˇ¸\u{90}‘’“”•–—\u{98}™\u{9a}›\u{9c}¯˛\u{9f}\
    \u{a0}¡¢£¤¥¦§Ø©Ŗ«¬\u{ad}®Æ°±²³´µ¶·ø¹ŗ»¼½¾æ\
    ĄĮĀĆÄÅĘĒČÉŹĖĢĶĪĻŠŃŅÓŌÕÖ×ŲŁŚŪÜŻŽß\
    ąįāćäåęēčéźėģķīļšńņóōõö÷ųłśūüżž˙";
/// Central European.
const ISO_8859_2: &str = "\
    \u{a0}Ą˘Ł¤ĽŚ§¨ŠŞŤŹ\u{ad}ŽŻ°ą˛ł´ľśˇ¸šşťź˝žż\
    ŔÁÂĂÄĹĆÇČÉĘËĚÍÎĎĐŃŇÓÔŐÖ×ŘŮÚŰÜÝŢß\
    ŕáâăäĺćçčéęëěíîďđńňóôőö÷řůúűüýţ˙";
/// Western European, of old Apple computers.
const MAC_ROMAN: &str = "\
    ÄÅÇÉÑÖÜáàâäãåçéèêëíìîïñóòôöõúùûü\
    †°¢£§•¶ß®©™´¨≠ÆØ∞±≤≥¥µ∂∑∏π∫ªºΩæø\
    ¿¡¬√ƒ≈∆«»…\u{a0}ÀÃÕŒœ–—“”‘’÷◊ÿŸ⁄€‹›ﬁﬂ\
    ‡·‚„‰ÂÊÁËÈÍÎÏÌÓÔ\u{f8ff}ÒÚÛÙıˆ˜¯˘˙˚¸˝˛ˇ";
/// of DOS.
const CP437: &str = "\
    ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒ\
    áíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐\
    └┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀\
    αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_has_256_different_characters() {
        for page in PAGES.iter() {
            assert_eq!(page.high.len(), 128, "{}", page.name);
            assert_eq!(page.bytes.len(), 128, "{}", page.name);
            assert!(page.high.iter().all(|c| !c.is_ascii()), "{}", page.name);
        }
    }

    #[test]
    fn text_is_encoded_or_known_to_be_of_another_page() {
        let encode = |name: &str, text: &str| {
            let page = PAGES.iter().find(|page| page.name == name).unwrap();
            page.encode(text)
        };
        assert_eq!(
            encode("latin-1", "é\u{85}\x1a"),
            Some(vec![0xe9, 0x85, 0x1a])
        );
        assert_eq!(encode("latin-1", "€"), None);
        assert_eq!(
            encode("windows-1252", "€\u{81}\u{fffd}"),
            Some(vec![0x80, 0x81, 0x1a])
        );
        assert_eq!(encode("windows-1252", "\x1a"), None);
        assert_eq!(encode("windows-1251", "ж"), Some(vec![0xe6]));
        assert_eq!(encode("iso-8859-2", "\u{80}ł"), Some(vec![0x80, 0xb3]));
        assert_eq!(encode("macroman", "ﬂ\u{f8ff}"), Some(vec![0xdf, 0xf0]));
        assert_eq!(encode("cp437", "░\u{a0}"), Some(vec![0xb0, 0xff]));
    }
}
