//! `SentencePiece` models: an error or a tokenizer, and where every byte has a piece, a text's
//! pieces are the text.

use runner::models::tokenizer::Tokenizer;

/// Completes the model by an unknown piece, and says that it is BPE.
const COMPLETED: u8 = 1;
/// Adds a piece for every byte, and leaves the text as it is.
const WITH_BYTES: u8 = 2;
/// Which of [`CONFIGS`] lies beside it.
const CONFIG: u8 = 4 | 8;

/// Other files of the folder.
const CONFIGS: [Option<(&str, &str)>; 4] = [
    None,
    Some((
        "tokenizer_config.json",
        r#"{"legacy": false, "add_prefix_space": false}"#,
    )),
    Some((
        "tokenizer_config.json",
        r#"{"added_tokens_decoder": {
            "0": {"content": "<s>", "special": true},
            "9": {"content": "[X]", "lstrip": true, "rstrip": true},
            "11": {"content": "ab", "single_word": true}}}"#,
    )),
    Some(("added_tokens.json", r#"{"[X]": 700}"#)),
];

/// The tokens of the third of them that stand for text, whatever pieces of the model they replace.
const RENAMED: [u32; 2] = [9, 11];

/// The bytes are a byte that says what to add, the length of a text, the text, and a model.
pub fn check(bytes: &[u8]) -> bool {
    let [what, len, rest @ ..] = bytes else {
        return false;
    };
    let (text, model) = rest.split_at(usize::from(*len).min(rest.len()));
    let text = String::from_utf8_lossy(text);
    let mut model = model.to_vec();
    if what & COMPLETED != 0 {
        piece(&mut model, "<unk>", 2);
        // `trainer_spec.model_type` is BPE.
        model.extend([0x12, 2, 0x18, 2]);
    }
    if what & WITH_BYTES != 0 {
        for byte in 0..=u8::MAX {
            piece(&mut model, &format!("<0x{byte:02X}>"), 6);
        }
        // `trainer_spec.byte_fallback`; of `normalizer_spec` no table, and spaces are not removed.
        model.extend([0x12, 3, 0x98, 2, 1, 0x1a, 4, 0x12, 0, 0x20, 0]);
    }
    super::in_folder(|folder| {
        for (name, _) in CONFIGS.into_iter().flatten() {
            let _ = std::fs::remove_file(folder.join(name));
        }
        let config = usize::from(what & CONFIG) / 4;
        if let Some((name, config)) = CONFIGS[config] {
            std::fs::write(folder.join(name), config).unwrap();
        }
        let path = folder.join("tokenizer.model");
        std::fs::write(&path, &model).unwrap();
        let Ok(tokenizer) = Tokenizer::open(&path) else {
            return false;
        };
        let renamed: &[u32] = if config == 2 { &RENAMED } else { &[] };
        encoded(&tokenizer, &text, what & WITH_BYTES != 0, renamed);
        true
    })
}

/// Appends a piece of a kind by its number.
fn piece(model: &mut Vec<u8>, text: &str, kind: u8) {
    let len = text.len() as u8;
    model.extend([0x0a, len + 4, 0x0a, len]);
    model.extend(text.as_bytes());
    model.extend([0x18, kind]);
}

fn encoded(tokenizer: &Tokenizer, text: &str, with_bytes: bool, renamed: &[u32]) {
    let ids = tokenizer.encode(text).unwrap();
    assert!(ids.iter().all(|&id| id <= tokenizer.largest_id()));
    assert_eq!(tokenizer.encode(text).unwrap(), ids);
    let decoded = tokenizer.decode(&ids).unwrap();
    let bytes: Vec<Option<Vec<u8>>> = ids.iter().map(|&id| tokenizer.token_bytes(id)).collect();
    // Special tokens stand for no text. Those of a folder stand for their own, may take the spaces
    // around them, and what follows them begins with a space as the text itself does.
    let plain = !ids.iter().any(|id| renamed.contains(id));
    if with_bytes && plain && bytes.iter().all(Option::is_some) {
        // A space is written `▁`, which stays where only the pieces of its bytes can spell it.
        let spaced = |text: &str| text.replace('▁', " ");
        let whole = bytes.into_iter().flatten().flatten().collect::<Vec<u8>>();
        for said in [String::from_utf8(whole).unwrap(), decoded] {
            let (said, text) = (spaced(&said), spaced(text));
            assert!(
                said == text || said.strip_prefix(' ') == Some(text.as_str()),
                "{said:?} of {text:?}"
            );
        }
    }
}
