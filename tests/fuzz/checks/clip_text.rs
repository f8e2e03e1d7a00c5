//! CLIP's own tokenizer, which is given whatever stands in a prompt or an answer.

use runner::models::clip::tokenizer::{Dialect, END, START, Tokenizer, TooLong};

/// How many tokens CLIP takes.
const CONTEXT: usize = 77;

thread_local! {
    /// One that takes no text that is too long.
    static REFUSING: Tokenizer = Tokenizer::new(Dialect::OpenClip, TooLong::Refuse).unwrap();
}

/// The bytes are a text. It is taken if none of it is cut off.
pub fn check(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let shared = Tokenizer::shared().unwrap();
    let tokens = shared.tokenize(&text, CONTEXT).unwrap();
    let whole = shared.tokenize(&text, usize::MAX).unwrap();
    let refused = REFUSING.with(|refusing| refusing.tokenize(&text, CONTEXT).is_err());
    assert_eq!(refused, tokens.truncated);
    for tokens in [&tokens, &whole] {
        assert_eq!(tokens.ids.first(), Some(&START));
        assert_eq!(tokens.ids.last(), Some(&END));
        assert!(tokens.ids.iter().all(|&id| id <= END));
        assert!(tokens.end() < tokens.ids.len());
    }
    assert!(tokens.ids.len() <= CONTEXT && !whole.truncated);
    let kept = tokens.ids.len() - 1;
    assert_eq!(tokens.ids[..kept], whole.ids[..kept]);
    assert_eq!(tokens.truncated, whole.ids.len() > CONTEXT);
    if let Some(unsure) = whole.unsure {
        assert!(!unsure.warning(&text).is_empty());
    }
    !tokens.truncated
}
