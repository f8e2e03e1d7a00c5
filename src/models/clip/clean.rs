//! The cleaning that `open_clip` does before it tokenizes: ftfy, HTML
//! references, white space, lower case.
//!
//! For ASCII text the result is ftfy's own (6.3). Beyond ASCII we straighten
//! quotes, split Latin ligatures and narrow full-width forms as ftfy does, but
//! neither compose accents (NFC) nor repair wrongly decoded text; such text is
//! marked, so that somebody can be warned.

use html_escape::NAMED_ENTITIES;

/// Cleaned text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cleaned {
    /// What is tokenized.
    pub text: String,
    /// The text is not plain ASCII, so that the reference might clean it
    /// further than we do.
    pub uncertain: bool,
}

/// Cleans `text` as `open_clip`'s `SimpleTokenizer` does.
pub fn clean(text: &str) -> Cleaned {
    let text = fix_text(text);
    let text = unescape(&unescape(&text));
    let words: Vec<&str> = (text.split(is_space))
        .filter(|word| !word.is_empty())
        .collect();
    let text = words.join(" ").to_lowercase();
    Cleaned {
        uncertain: !text.is_ascii(),
        text,
    }
}

/// Python's `str.isspace`: Unicode's white space and four separators of ASCII.
fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\x1c'..='\x1f')
}

/// `ftfy.fix_text`, without the repair of encodings and without NFC.
fn fix_text(text: &str) -> String {
    // Within a text, the first line with a `<` ends the decoding of references.
    let mut references = true;
    text.split_inclusive('\n')
        .map(|line| {
            references &= !line.contains('<');
            let mut line = line.to_owned();
            // Repeated as ftfy does; each round but the last shortens the text.
            loop {
                let decoded = if references {
                    strict_unescape(&line)
                } else {
                    line.clone()
                };
                let next = fix_characters(&decoded);
                if next == line {
                    return next;
                }
                line = next;
            }
        })
        .collect()
}

/// ftfy's fixes of single characters, line breaks, terminal escapes and
/// control characters.
fn fix_characters(text: &str) -> String {
    let mut fixed = String::with_capacity(text.len());
    for c in text.chars() {
        match ligature(c) {
            Some(letters) => fixed.push_str(letters),
            None => fixed.push(narrow(c)),
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
    let mut fixed = remove_terminal_escapes(&fixed);
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

/// Full-width ASCII and the ideographic space in their usual width.
fn narrow(c: char) -> char {
    match c {
        '\u{3000}' => ' ',
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(c as u32 - 0xfee0).unwrap_or(c),
        _ => c,
    }
}

/// Drops `ESC [ digits ; … letter`.
fn remove_terminal_escapes(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("\x1b[") {
        let (before, escape) = rest.split_at(at);
        kept.push_str(before);
        let body = &escape[2..];
        let end = body.find(|c: char| !c.is_numeric() && c != ';');
        let letter = |end: &usize| body.as_bytes()[*end].is_ascii_alphabetic();
        if let Some(end) = end.filter(letter) {
            rest = &body[end + 1..];
        } else {
            kept.push_str(&escape[..2]);
            rest = body;
        }
    }
    kept.push_str(rest);
    kept
}

/// ftfy's decoding: references that end in a semicolon, also in all capitals.
fn strict_unescape(text: &str) -> String {
    let mut decoded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        let (before, reference) = rest.split_at(at);
        decoded.push_str(before);
        let body = &reference[1..];
        let digits = body.strip_prefix('#').unwrap_or(body);
        let len = (digits.bytes())
            .take_while(u8::is_ascii_alphanumeric)
            .take(25)
            .count();
        let end = body.len() - digits.len() + len;
        if !(1..=24).contains(&len) || body.as_bytes().get(end) != Some(&b';') {
            decoded.push('&');
            rest = body;
            continue;
        }
        let name = &body[..end];
        let character = if name.starts_with('#') {
            numeric(name)
                .filter(|(_, len)| *len == name.len())
                .map(|(text, _)| text)
        } else {
            named(name).map(str::to_owned).or_else(|| capitals(name))
        };
        match character {
            Some(text) if !text.contains(';') => decoded.push_str(&text),
            _ => decoded.push_str(&reference[..end + 2]),
        }
        rest = &body[end + 1..];
    }
    decoded.push_str(rest);
    decoded
}

/// A reference such as `EACUTE`, capitals of one that exists in small letters
/// only.
fn capitals(name: &str) -> Option<String> {
    let lower = name.to_ascii_lowercase();
    let shouted = name == name.to_ascii_uppercase() && name != lower;
    let ambiguous = || LEGACY.iter().any(|legacy| name.starts_with(legacy));
    named(&lower)
        .filter(|_| shouted && !ambiguous())
        .map(str::to_uppercase)
}

/// Python's `html.unescape`, the rules of HTML 5.
fn unescape(text: &str) -> String {
    let mut decoded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        let (before, reference) = rest.split_at(at);
        decoded.push_str(before);
        let body = &reference[1..];
        if let Some((character, len)) = numeric(body) {
            decoded.push_str(&character);
            rest = &body[len..];
            rest = rest.strip_prefix(';').unwrap_or(rest);
            continue;
        }
        let end = (body.char_indices())
            .take(32)
            .take_while(|(_, c)| !matches!(c, '\t' | '\n' | '\x0c' | ' ' | '<' | '&' | '#' | ';'))
            .last()
            .map_or(0, |(i, c)| i + c.len_utf8());
        let name = &body[..end];
        if body[end..].starts_with(';')
            && let Some(character) = named(name)
        {
            decoded.push_str(character);
            rest = &body[end + 1..];
            continue;
        }
        // Without a semicolon only old names count; the longest wins.
        let old = (LEGACY.iter())
            .filter(|legacy| name.starts_with(*legacy))
            .max_by_key(|l| l.len());
        if let Some(old) = old
            && let Some(character) = named(old)
        {
            decoded.push_str(character);
            rest = &body[old.len()..];
        } else {
            decoded.push('&');
            rest = body;
        }
    }
    decoded.push_str(rest);
    decoded
}

/// The character of a numeric reference `#…` at the start of `body`, and how
/// many bytes the reference has without its semicolon.
fn numeric(body: &str) -> Option<(String, usize)> {
    let digits = body.strip_prefix('#')?;
    let (radix, digits) = match digits.strip_prefix(['x', 'X']) {
        Some(hex) => (16, hex),
        None => (10, digits),
    };
    let len = digits
        .find(|c: char| !c.is_digit(radix))
        .unwrap_or(digits.len());
    if len == 0 {
        return None;
    }
    let code = u32::from_str_radix(&digits[..len], radix).unwrap_or(u32::MAX);
    let text = match code {
        0 => "\u{fffd}".to_owned(),
        0x0d => "\r".to_owned(),
        0x80..=0x9f => WINDOWS[code as usize - 0x80].to_string(),
        0x01..=0x08 | 0x0b | 0x0e..=0x1f | 0x7f | 0xfdd0..=0xfdef => String::new(),
        _ if code & 0xfffe == 0xfffe && code <= 0x10_ffff => String::new(),
        _ => char::from_u32(code).unwrap_or('\u{fffd}').to_string(),
    };
    Some((text, body.len() - digits.len() + len))
}

/// The characters of a named reference.
fn named(name: &str) -> Option<&'static str> {
    let at = NAMED_ENTITIES.binary_search_by_key(&name.as_bytes(), |(name, _)| name);
    at.ok().map(|at| NAMED_ENTITIES[at].1)
}

/// What HTML makes of the references 128 to 159: Windows' code page 1252.
const WINDOWS: [char; 32] = [
    '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}',
    '\u{90}', '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
];

/// Names that HTML also takes without a semicolon.
const LEGACY: [&str; 106] = [
    "AElig", "AMP", "Aacute", "Acirc", "Agrave", "Aring", "Atilde", "Auml", "COPY", "Ccedil",
    "ETH", "Eacute", "Ecirc", "Egrave", "Euml", "GT", "Iacute", "Icirc", "Igrave", "Iuml", "LT",
    "Ntilde", "Oacute", "Ocirc", "Ograve", "Oslash", "Otilde", "Ouml", "QUOT", "REG", "THORN",
    "Uacute", "Ucirc", "Ugrave", "Uuml", "Yacute", "aacute", "acirc", "acute", "aelig", "agrave",
    "amp", "aring", "atilde", "auml", "brvbar", "ccedil", "cedil", "cent", "copy", "curren", "deg",
    "divide", "eacute", "ecirc", "egrave", "eth", "euml", "frac12", "frac14", "frac34", "gt",
    "iacute", "icirc", "iexcl", "igrave", "iquest", "iuml", "laquo", "lt", "macr", "micro",
    "middot", "nbsp", "not", "ntilde", "oacute", "ocirc", "ograve", "ordf", "ordm", "oslash",
    "otilde", "ouml", "para", "plusmn", "pound", "quot", "raquo", "reg", "sect", "shy", "sup1",
    "sup2", "sup3", "szlig", "thorn", "times", "uacute", "ucirc", "ugrave", "uml", "uuml",
    "yacute", "yen", "yuml",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_decoded_as_html_5_does() {
        for (text, expected) in [
            ("&lt;b&gt;", "<b>"),
            ("&amp;amp;", "&amp;"),
            ("&notit;", "¬it;"),
            ("&notin;", "∉"),
            ("&notin", "¬in"),
            ("&ampx", "&x"),
            ("&#65;&#x42;&#67", "ABC"),
            ("&#128;", "€"),
            (
                "&#0;&#1;&#xD800;&#x110000;&#99999999999999;",
                "\u{fffd}\u{fffd}\u{fffd}\u{fffd}",
            ),
            ("&#xfffe;&#x1;x", "x"),
            ("&nosuch; & &; &#; &#x;", "&nosuch; & &; &#; &#x;"),
            ("&eacute&eacute;", "éé"),
        ] {
            assert_eq!(unescape(text), expected, "{text}");
        }
    }

    #[test]
    fn text_is_cleaned_as_the_reference_does() {
        for (text, expected) in [
            ("  A  Photo\tof\r\na CAT. ", "a photo of a cat."),
            ("it\u{2019}s \u{201c}big\u{201d}", "it's \"big\""),
            ("\u{1b}[31mred\u{1b}[0m", "red"),
            ("a\0b\x7fc", "abc"),
            ("&amp;amp;amp;amp;lt;", "<"),
            ("ﬁne ＡＢＣ", "fine abc"),
            ("P&EACUTE;REZ", "pérez"),
        ] {
            assert_eq!(clean(text).text, expected, "{text:?}");
        }
        assert!(!clean("it\u{2019}s").uncertain);
        assert!(clean("naïve").uncertain);
    }

    #[test]
    fn every_name_without_a_semicolon_is_known_with_one() {
        assert!(LEGACY.iter().all(|name| named(name).is_some()));
    }
}
