//! `tokenizer.json`: an error or a tokenizer that gives no id above its largest.

use runner::models::{chat::ChatTemplate, tokenizer::Tokenizer};

/// How many tokens are looked at one by one.
const MOST: u32 = 1000;

thread_local! {
    /// A template of one turn.
    static CHAT: ChatTemplate = {
        let turn = "{{ bos_token }}[{{ messages[0].content }}]";
        ChatTemplate::compile(turn, "it", Some("<s>".to_owned()), None).unwrap()
    };
}

/// The bytes are a file and, after a zero, the text that it is tried on.
pub fn check(bytes: &[u8]) -> bool {
    let mut parts = bytes.splitn(2, |&byte| byte == 0);
    let file = parts.next().unwrap();
    let text = parts.next().unwrap_or(b"Hello <s> caf\xc3\xa9 123\n  it's");
    let text = String::from_utf8_lossy(text);
    super::in_file("tokenizer.json", file, |path| {
        let Ok(tokenizer) = Tokenizer::open(path) else {
            return false;
        };
        let encoded = tokenizer.encode(&text);
        if let Ok(ids) = &encoded {
            assert!(ids.iter().all(|&id| id <= tokenizer.largest_id()));
            assert_eq!(tokenizer.encode(&text).unwrap(), *ids);
            let _ = tokenizer.decode(ids);
        }
        for id in 0..=tokenizer.largest_id().min(MOST) {
            assert!(
                tokenizer
                    .token_bytes(id)
                    .is_none_or(|bytes| !bytes.is_empty())
            );
        }
        let _ = tokenizer.id("<s>");
        let _ = CHAT.with(|chat| chat.prompt_ids(&tokenizer, &text, None));
        true
    })
}
