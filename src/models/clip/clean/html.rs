//! HTML's character references, read as Python's `html` and as ftfy read them.

use html_escape::NAMED_ENTITIES;

/// The longest decimal reference, in digits, that Python turns into a number.
const PYTHON_DIGITS: usize = 4300;

/// ftfy's decoding: references that end in a semicolon, also in all capitals.
pub(super) fn strict_unescape(text: &str) -> String {
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
            // A semicolon would be taken for one that was not decoded.
            (numeric(name).filter(|(text, len)| *len == name.len() && text != ";"))
                .map(|(text, _)| text)
        } else {
            named(name).map(str::to_owned).or_else(|| capitals(name))
        };
        match character {
            Some(text) => decoded.push_str(&text),
            None => decoded.push_str(&reference[..end + 2]),
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
pub(super) fn unescape(text: &str) -> String {
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
            .max_by_key(|legacy| legacy.len());
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

/// Whether `text` holds a reference that Python refuses with an error.
pub(super) fn is_refused(text: &str) -> bool {
    (text.split("&#").skip(1))
        .any(|digits| digits.bytes().take_while(u8::is_ascii_digit).count() > PYTHON_DIGITS)
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
        0x80..=0x9f => windows(code as u8).to_string(),
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

/// What browsers show for the control characters 80 to 9F: those of Windows-1252.
pub(super) fn windows(byte: u8) -> char {
    let table = &super::codepages::PAGES[1].high;
    let at = usize::from(byte).checked_sub(0x80);
    (at.and_then(|at| table.get(at)).copied()).unwrap_or(char::from(byte))
}

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
            ("&#128;&#129;", "€\u{81}"),
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
    fn ftfy_decodes_what_ends_in_a_semicolon() {
        for (text, expected) in [
            ("&lt;b&gt &amp", "<b&gt &amp"),
            ("&EACUTE;&Eacute;&eACUTE;", "ÉÉ&eACUTE;"),
            ("&SZLIG;&FRAC12;&AMPX;", "SS½&AMPX;"),
            ("&semi;&#59;", ";&#59;"),
            ("&#65;&#65a;&#x1;", "A&#65a;"),
            (
                "&abcdefghijklmnopqrstuvwxyz;&;",
                "&abcdefghijklmnopqrstuvwxyz;&;",
            ),
        ] {
            assert_eq!(strict_unescape(text), expected, "{text}");
        }
    }

    #[test]
    fn numbers_too_long_for_python_are_found() {
        let reference = |digits: usize| format!("a &#{};", "0".repeat(digits));
        assert!(!is_refused(&reference(4300)));
        assert!(is_refused(&reference(4301)));
        assert!(!is_refused(&format!("&#x{}", "0".repeat(5000))));
    }

    #[test]
    fn every_name_without_a_semicolon_is_known_with_one() {
        assert!(LEGACY.iter().all(|name| named(name).is_some()));
    }
}
