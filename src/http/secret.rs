//! Secrets kept out of every text.

/// Runs of this many characters of a secret are taken out of texts.
const RUN: usize = 8;

/// `text` without the secret, nor eight or more characters of it in a row; `[key]`
/// stands in its place. The secret is ASCII.
pub(crate) fn redact(text: &str, secret: &str) -> String {
    let run = RUN.min(secret.len());
    if run == 0 {
        return text.to_owned();
    }
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        // The secret is ASCII, so that its pieces begin and end at characters.
        let longest = (run..=secret.len().min(rest.len()))
            .take_while(|&n| rest.get(..n).is_some_and(|piece| secret.contains(piece)))
            .last();
        match longest {
            Some(n) => {
                kept.push_str("[key]");
                rest = &rest[n..];
            }
            None => {
                kept.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_and_every_long_piece_of_it_are_taken_out() {
        let key = "sk-abcdefghijklmnop";
        assert_eq!(
            redact("bad key sk-abcdefghijklmnop!", key),
            "bad key [key]!"
        );
        assert_eq!(redact("…cdefghij… and ü", key), "…[key]… and ü");
        assert_eq!(redact("sk-abcdefghijXklmnop", key), "[key]Xklmnop");
        assert_eq!(redact("sk-abc is short", key), "sk-abc is short");
    }

    #[test]
    fn a_short_secret_is_taken_out_whole_and_an_empty_one_is_in_no_text() {
        assert_eq!(redact("key EMPTY, EMPT", "EMPTY"), "key [key], EMPT");
        assert_eq!(redact("key", ""), "key");
    }
}
