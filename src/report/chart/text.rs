//! How much room text takes, and how it is broken and cut to fit.
//!
//! A drawing cannot ask for the font that will show it, so widths are
//! estimates on the large side, in ems of a common sans-serif font.

use unicode_width::UnicodeWidthChar as _;

use crate::table;

/// Size of all text but headings, in pixels.
pub(super) const SIZE: f64 = 12.0;

/// Height of a line.
pub(super) const LINE: f64 = 16.0;

/// Estimated width of `text` in pixels.
pub(super) fn width(text: &str) -> f64 {
    text.chars().map(ems).sum::<f64>() * SIZE
}

/// Estimated width of `text` in bold.
pub(super) fn bold_width(text: &str) -> f64 {
    width(text) * 1.15
}

fn ems(c: char) -> f64 {
    match c {
        'i' | 'j' | 'l' | '.' | ',' | ':' | ';' | '\'' | '|' | '!' => 0.32,
        ' ' | 'f' | 't' | 'r' | 'I' | '(' | ')' | '[' | ']' | '/' | '-' | '*' => 0.4,
        'm' | 'w' | 'M' | 'W' | '%' | '@' | '—' | '…' | '→' => 0.98,
        'A'..='Z' | '+' | '−' | '±' | '=' | '<' | '>' | '▲' | '▼' => 0.72,
        '0'..='9' => 0.64,
        c if c.is_ascii() => 0.62,
        c => match c.width() {
            Some(0) | None => 0.0,
            Some(1) => 0.66,
            Some(_) => 1.05,
        },
    }
}

/// `text` on one line of at most `most` pixels; what is left out is an ellipsis.
pub(super) fn cut(text: &str, most: f64) -> String {
    let text = line(text);
    if width(&text) <= most {
        return text;
    }
    let mut room = most - width("…");
    let kept: String = text
        .chars()
        .take_while(|c| {
            room -= ems(*c) * SIZE;
            room >= 0.0
        })
        .collect();
    format!("{}…", kept.trim_end())
}

/// `text` on one line of at most `most` pixels, its middle left out where need
/// be: names of one family differ at their ends.
pub(super) fn cut_middle(text: &str, most: f64) -> String {
    let text = line(text);
    if width(&text) <= most {
        return text;
    }
    let room = (most - width("…")) / 2.0;
    let take = |chars: &mut dyn Iterator<Item = char>| -> Vec<char> {
        let mut room = room;
        chars
            .take_while(|c| {
                room -= ems(*c) * SIZE;
                room >= 0.0
            })
            .collect()
    };
    let start: String = take(&mut text.chars()).into_iter().collect();
    let end: String = take(&mut text.chars().rev()).into_iter().rev().collect();
    format!("{}…{}", start.trim_end(), end.trim_start())
}

/// `text` in at most `lines` lines of at most `most` pixels, broken after
/// spaces and signs between words; the last line is cut where need be.
pub(super) fn wrap(text: &str, most: f64, lines: usize) -> Vec<String> {
    let text = line(text);
    let mut out: Vec<String> = Vec::new();
    let mut now = String::new();
    for part in parts(&text) {
        let longer = format!("{now}{part}");
        if width(longer.trim_end()) <= most || now.is_empty() || out.len() + 1 >= lines {
            now = longer;
        } else {
            out.push(std::mem::replace(&mut now, part.to_owned()));
        }
    }
    out.push(now);
    out.iter().map(|line| cut(line.trim_end(), most)).collect()
}

/// Pieces that may stand on lines of their own: each ends with a space or a
/// sign, but not within a number.
fn parts(text: &str) -> Vec<&str> {
    let mut out = Vec::new();
    let mut start = 0;
    let mut chars = text.char_indices().peekable();
    while let Some((i, c)) = chars.next() {
        let next = chars.peek().map(|(_, c)| *c);
        let sign = matches!(c, '_' | '.' | '/' | '-' | ',' | '=' | '@')
            && next.is_some_and(char::is_alphabetic);
        if c == ' ' || sign {
            out.push(&text[start..i + c.len_utf8()]);
            start = i + c.len_utf8();
        }
    }
    out.push(&text[start..]);
    out
}

/// `text` without new lines and without the characters that XML forbids.
pub(super) fn line(text: &str) -> String {
    table::one_line(text).replace(['\u{fffe}', '\u{ffff}'], "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_fits() {
        for most in [20.0, 50.0, 120.0] {
            let text = cut("a rather long name of a series, 自動車", most);
            assert!(text.ends_with('…') && width(&text) <= most, "{text}");
        }
        assert_eq!(cut("short", 100.0), "short");
        let text = cut_middle("prompts/variant_12_of_a_family.j2", 150.0);
        assert!(width(&text) <= 150.0, "{text}");
        assert!(
            text.starts_with("prompts") && text.ends_with("family.j2"),
            "{text}"
        );
    }

    #[test]
    fn lines_break_between_words_and_after_signs() {
        assert_eq!(
            wrap("eval.mean_per_class of 0.25", 78.0, 3),
            ["eval.mean_", "per_class of", "0.25"]
        );
        assert_eq!(wrap("one two", 200.0, 2), ["one two"]);
        assert_eq!(wrap("", 200.0, 2), [""]);
        let wrapped = wrap("forward-swept wings of a glider", 100.0, 2);
        assert_eq!(wrapped.len(), 2);
        assert!(wrapped.iter().all(|line| width(line) <= 100.0));
    }

    #[test]
    fn numbers_are_not_broken() {
        assert_eq!(parts("0.25 to 1,000"), ["0.25 ", "to ", "1,000"]);
    }
}
