//! The cleaning that CLIP's references do before they tokenize: ftfy, HTML
//! references, white space, lower case.
//!
//! The result equals that of ftfy 6.3 and Python's `html`, `str.split` and
//! `str.lower`. Where it may differ, [`Cleaned::unsure`] says why: ftfy and
//! Python know the characters of the Unicode version that they come with.

mod badness;
mod characters;
pub(super) mod codepages;
mod html;
mod repair;

use std::{fmt, sync::LazyLock};

use regex::Regex;
use unicode_normalization::UnicodeNormalization;

use self::{
    characters::fix_characters,
    html::{strict_unescape, unescape},
    repair::{fix_controls, fix_encoding},
};

/// ftfy works on pieces of at most so many characters.
const LONGEST_PIECE: usize = 1_000_000;

/// Why the reference may clean a text into something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsure {
    /// What becomes of this character depends on the Unicode versions of the
    /// reference's packages, of which the oldest is 14, in Python 3.11.
    Character(char),
    /// References within references, or wrong decodings of wrong decodings, so
    /// deep that we stopped.
    Depth,
    /// A character reference of so many digits that Python fails.
    Digits,
}

impl fmt::Display for Unsure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Character(c) => write!(
                f,
                "what becomes of U+{:04X} depends on the version of Unicode\n\
                 hint: leave that character out",
                *c as u32
            ),
            Self::Depth => f.write_str(
                "its references (`&amp;amp;`) or wrong decodings (`ÃƒÂ©`) are nested too deep\n\
                 hint: write the characters themselves",
            ),
            Self::Digits => f.write_str(
                "a reference such as `&#65;` has thousands of digits\n\
                 hint: write the character itself",
            ),
        }
    }
}

/// Cleaned text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cleaned {
    /// What is tokenized.
    pub text: String,
    /// Why the reference may differ; for nearly every text it does not.
    pub unsure: Option<Unsure>,
}

/// Cleans `text` as `open_clip`'s and `OpenAI`'s `SimpleTokenizer` do.
/// `A  cafÃ© &amp; a CAT` becomes `a café & a cat`.
pub fn clean(text: &str) -> Cleaned {
    let mut work = Work::of(text);
    let fixed = fix_text(text, &mut work);
    let once = unescape(&fixed);
    let digits = html::is_refused(&fixed) || html::is_refused(&once);
    let twice = unescape(&once);
    let words: Vec<&str> = (twice.split(is_space))
        .filter(|word| !word.is_empty())
        .collect();
    let cleaned = words.join(" ");
    let unsure = (digits.then_some(Unsure::Digits))
        .or(work.exhausted.then_some(Unsure::Depth))
        .or_else(|| new_character(&cleaned).map(Unsure::Character));
    Cleaned {
        text: cleaned.to_lowercase(),
        unsure,
    }
}

/// Python's `str.isspace`: Unicode's white space and four separators of ASCII.
fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\x1c'..='\x1f')
}

/// A character whose treatment changed after Unicode 14.
fn new_character(text: &str) -> Option<char> {
    // A pattern that is constant and tested; so are the others of this folder.
    static NEW: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"\P{age=14.0}").ok());
    if text.is_ascii() {
        return None;
    }
    let new = (NEW.as_ref()?.find(text)).and_then(|found| found.as_str().chars().next());
    // Whether a sigma is the last of its word depends on these two.
    let beside_sigma = || text.chars().find(|c| matches!(c, '\u{295}' | '\u{1171e}'));
    new.or_else(|| text.contains('Σ').then(beside_sigma).flatten())
}

/// What may still be spent on one text, in bytes looked at.
///
/// ftfy works on a text until nothing changes any more, which for a few texts
/// takes time that grows with the square of their length.
struct Work {
    left: usize,
    exhausted: bool,
}

impl Work {
    /// Enough for a dozen rounds, and for hundreds on a short text.
    fn of(text: &str) -> Self {
        Self {
            left: (1 << 22) + 24 * text.len(),
            exhausted: false,
        }
    }

    /// Whether a piece of `len` bytes may be looked at once more.
    fn take(&mut self, len: usize) -> bool {
        let left = self.left.checked_sub(len + 1);
        self.exhausted |= left.is_none();
        self.left = left.unwrap_or(0);
        left.is_some()
    }
}

/// `ftfy.fix_text` with its usual settings.
fn fix_text(text: &str, work: &mut Work) -> String {
    // Within a text, the first piece with a `<` ends the decoding of references.
    let mut references = true;
    let mut fixed = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let mut rest = line;
        while !rest.is_empty() {
            let end = rest.char_indices().nth(LONGEST_PIECE);
            let (piece, after) = rest.split_at(end.map_or(rest.len(), |(at, _)| at));
            references &= !piece.contains('<');
            fixed.push_str(&fix_piece(piece, references, work));
            rest = after;
        }
    }
    fixed
}

/// Fixes a piece until nothing changes any more.
fn fix_piece(piece: &str, references: bool, work: &mut Work) -> String {
    let mut piece = piece.to_owned();
    while !is_plain(&piece) && work.take(piece.len()) {
        let decoded = if references {
            strict_unescape(&piece)
        } else {
            piece.clone()
        };
        let repaired = fix_controls(&fix_encoding(&decoded, work));
        let next: String = fix_characters(&repaired).nfc().collect();
        if next == piece {
            break;
        }
        piece = next;
    }
    piece
}

/// Text that no fix changes.
fn is_plain(text: &str) -> bool {
    (text.bytes()).all(|b| matches!(b, b'\t' | b'\n' | b'\x0c' | b' '..=b'%' | b'\''..=b'~'))
}

#[cfg(test)]
mod tests {
    use super::*;

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
            ("e\u{301}\u{323}", "ẹ\u{301}"),
            ("ｶﾞ", "ガ"),
            ("Ã‰COLE", "école"),
            ("<&amp;lt;", "<<"),
            ("<\n&amp;amp;amp;", "< &amp;"),
            ("&amp;amp;amp;\n<", "& <"),
            ("ΣΊΣΥΦΟΣ İ", "σίσυφος i\u{307}"),
        ] {
            let cleaned = clean(text);
            assert_eq!(cleaned.text, expected, "{text:?}");
            assert_eq!(cleaned.unsure, None, "{text:?}");
        }
    }

    #[test]
    fn pieces_end_after_a_million_characters() {
        // The second piece holds no `<`, but comes after one.
        let text = format!("<{}&lt;", "é".repeat(LONGEST_PIECE));
        assert!(clean(&text).text.ends_with("é<"));
        let text = format!("{}&lt;", "é".repeat(LONGEST_PIECE));
        assert!(clean(&text).text.ends_with("é<"));
        let text = format!("{}&amp;amp;amp;amp;<", "é".repeat(LONGEST_PIECE));
        assert!(clean(&text).text.ends_with("é&amp;amp;<"));
    }

    #[test]
    fn what_the_reference_may_do_otherwise_is_said() {
        assert_eq!(clean("naïve café 東京 😀").unsure, None);
        let new = '\u{1c89}';
        assert_eq!(
            clean(&format!("a {new}")).unsure,
            Some(Unsure::Character(new))
        );
        assert_eq!(clean("\u{295}").unsure, None);
        let sigma = clean("ΑΣ\u{295}").unsure;
        assert_eq!(sigma, Some(Unsure::Character('\u{295}')));
        let digits = clean(&format!("&#{}65;", "0".repeat(5000)));
        assert_eq!(
            (digits.text.as_str(), digits.unsure),
            ("a", Some(Unsure::Digits))
        );
        let deep = |depth| clean(&format!("&{}lt;", "amp;".repeat(depth)));
        assert_eq!((deep(500).text.as_str(), deep(500).unsure), ("<", None));
        assert_eq!(deep(20_000).unsure, Some(Unsure::Depth));
        assert_eq!(clean(&"é&amp;\n".repeat(200_000)).unsure, None);
        assert!(Unsure::Character(new).to_string().contains("U+1C89"));
    }

    #[test]
    fn long_and_hostile_texts_end_soon() {
        let start = std::time::Instant::now();
        for part in [
            "&amp;", "amp;", "Ã", "Ã ", "â€", "\u{301}a", "\x1b[1", "<", "&#1", "ÃƒÂ",
        ] {
            clean(&part.repeat(100_000 / part.len()));
        }
        assert!(start.elapsed().as_secs() < 30, "{:?}", start.elapsed());
    }
}
