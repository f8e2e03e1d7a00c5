//! Words that CLIP's vocabulary holds whole, for texts that shall mean nothing.

use std::sync::OnceLock;

use anyhow::{Result, anyhow};

use super::bpe;

/// Merges that are looked at; the list starts with the most frequent.
const FIRST: usize = 10_000;
/// Letters of the shortest word.
const SHORTEST: usize = 3;
/// Ends a token that ends a word.
const END_OF_WORD: &str = "</w>";

/// The words of three or more letters a to z that the first 10,000 merges of
/// CLIP's vocabulary make, in the order of the merges, which is about that of
/// frequency. Each is one token. Some are endings that can stand alone, as `ers`.
///
/// # Errors
/// Never with the merges that are built in.
pub fn words() -> Result<Vec<&'static str>> {
    static WORDS: OnceLock<Result<Vec<String>>> = OnceLock::new();
    match WORDS.get_or_init(|| Ok(whole_words(&bpe::merges()?))) {
        Ok(words) => Ok(words.iter().map(String::as_str).collect()),
        Err(error) => Err(anyhow!("{error:#}")),
    }
}

/// The words among what the first merges of `file` make.
fn whole_words(file: &str) -> Vec<String> {
    (file.lines().skip(1).take(FIRST))
        .filter_map(|merge| {
            let word = merge.replace(' ', "");
            let word = word.strip_suffix(END_OF_WORD)?;
            let plain = word.len() >= SHORTEST && word.bytes().all(|b| b.is_ascii_lowercase());
            plain.then(|| word.to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn words_are_plain_and_come_in_the_order_of_the_merges() {
        let words = words().unwrap();
        assert_eq!(words.len(), 5818);
        assert_eq!(words[..6], ["the", "ing", "and", "for", "day", "our"]);
        assert_eq!(words[5815..], ["julie", "atmosphere", "majority"]);
        assert_eq!(words.iter().collect::<BTreeSet<_>>().len(), words.len());
    }

    #[test]
    fn a_part_of_a_word_is_none_nor_is_a_sign_or_a_short_one() {
        let file = "#version\nt h\nth e</w>\na t</w>\nc afÃ©</w>\n! !!</w>\nf ur</w>\n";
        assert_eq!(whole_words(file), ["the", "fur"]);
    }

    #[test]
    fn each_word_is_one_token() {
        let bpe = bpe::Bpe::shared().unwrap();
        for word in words().unwrap() {
            let mut ids = Vec::new();
            bpe.encode(word, &mut ids);
            assert_eq!(ids.len(), 1, "{word}");
        }
    }
}
