//! Names that people may give, and "did you mean".

/// Whether `name` can be written in a reference and in `${…}`.
pub(crate) fn is_valid(name: &str) -> bool {
    let mut chars = name.chars();
    chars
        .next()
        .is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
        && name.len() <= 200
}

/// The one of `names` that was most likely meant by `word`.
pub fn nearest<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = word.to_lowercase();
    names
        .into_iter()
        .filter(|name| *name != word && name.len().abs_diff(word.len()) <= 12)
        .map(|name| {
            let other = name.to_lowercase();
            let mut score = strsim::jaro_winkler(&lower, &other);
            // Swapped or missing letters are typing errors however short the word is.
            if strsim::osa_distance(&lower, &other) <= 1 + word.len() / 5 {
                score += 0.3;
            }
            (score, name)
        })
        .filter(|(score, _)| *score > 0.85)
        .max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(a.1)))
        .map(|(_, name)| name)
}

/// A hint: the nearest name, or else all of them if they are few.
pub(crate) fn suggest<'a>(
    word: &str,
    what: &str,
    names: impl IntoIterator<Item = &'a str> + Clone,
) -> Option<String> {
    if let Some(name) = nearest(word, names.clone()) {
        return Some(format!("did you mean `{name}`?"));
    }
    let names: Vec<_> = names.into_iter().collect();
    match names.len() {
        0 => None,
        1..=24 => Some(format!("{what}: {}", quoted(&names))),
        n => Some(format!(
            "{what}: {}, and {} more",
            quoted(&names[..20]),
            n - 20
        )),
    }
}

/// `` `a`, `b`, `c` ``.
pub(crate) fn quoted<S: AsRef<str>>(names: &[S]) -> String {
    let quoted: Vec<_> = names.iter().map(|n| format!("`{}`", n.as_ref())).collect();
    quoted.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typing_error_finds_its_name() {
        let names = ["temperature", "top_k", "top_p", "model", "n"];
        assert_eq!(nearest("temprature", names), Some("temperature"));
        assert_eq!(nearest("Temperature", names), Some("temperature"));
        assert_eq!(nearest("topk", names), Some("top_k"));
        assert_eq!(nearest("modle", names), Some("model"));
        assert_eq!(nearest("zebra", names), None);
    }

    #[test]
    fn without_a_near_name_all_are_listed() {
        assert_eq!(
            suggest("zebra", "fields", ["a", "b"]).unwrap(),
            "fields: `a`, `b`"
        );
        assert_eq!(suggest("zebra", "fields", []), None);
    }

    #[test]
    fn names_are_plain_words() {
        for good in ["a", "_x", "RN50", "top-1", "a_b"] {
            assert!(is_valid(good), "{good}");
        }
        for bad in ["", "1a", "-a", "a.b", "a@2", "a b", "ä", "${x}", "a,b"] {
            assert!(!is_valid(bad), "{bad}");
        }
    }
}
