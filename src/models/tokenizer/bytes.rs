//! The bytes of text that the tokens of a `tokenizer.json` stand for.

use tokenizers::DecoderWrapper;

/// How a vocabulary writes the bytes that its tokens stand for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Spelling {
    /// A character for each byte, as GPT-2 does.
    ByteLevel,
    /// The text itself, but for texts that stand for others; and, with `bytes`,
    /// tokens such as `<0x0A>` for single bytes.
    Pieces {
        replaced: Vec<(String, String)>,
        bytes: bool,
    },
    /// Something else.
    Other,
}

impl Spelling {
    /// Tells it from the decoder that puts tokens together.
    pub(super) fn of(decoder: Option<&DecoderWrapper>) -> Self {
        let mut replaced = Vec::new();
        let mut bytes = false;
        let mut waiting: Vec<&DecoderWrapper> = decoder.into_iter().collect();
        let known = !waiting.is_empty();
        while let Some(decoder) = waiting.pop() {
            match decoder {
                DecoderWrapper::ByteLevel(_) => return Self::ByteLevel,
                DecoderWrapper::Sequence(list) => waiting.extend(list.get_decoders().iter().rev()),
                DecoderWrapper::Replace(replace) => match replaced_text(replace) {
                    Some(text) => replaced.push((text, replace.content.clone())),
                    None => return Self::Other,
                },
                DecoderWrapper::Metaspace(space) => {
                    replaced.push((space.get_replacement().to_string(), " ".to_owned()));
                }
                DecoderWrapper::ByteFallback(_) => bytes = true,
                // These concern the first space of a text only.
                DecoderWrapper::Fuse(_) | DecoderWrapper::Strip(_) => {}
                _ => return Self::Other,
            }
        }
        if known {
            Self::Pieces { replaced, bytes }
        } else {
            Self::Other
        }
    }

    /// What `token` stands for; `literal` where the file adds it as plain text.
    pub(super) fn bytes(&self, token: &str, literal: bool) -> Option<Vec<u8>> {
        match self {
            Self::Other => None,
            Self::Pieces { bytes: true, .. } if byte_of_name(token).is_some() => {
                byte_of_name(token).map(|byte| vec![byte])
            }
            _ if literal => Some(token.as_bytes().to_vec()),
            Self::Pieces { replaced, .. } => {
                let text = (replaced.iter())
                    .fold(token.to_owned(), |text, (from, to)| text.replace(from, to));
                Some(text.into_bytes())
            }
            Self::ByteLevel => {
                let bytes: Option<Vec<u8>> = token.chars().map(byte_of_character).collect();
                Some(bytes.unwrap_or_else(|| token.as_bytes().to_vec()))
            }
        }
    }
}

/// The text that a decoder replaces, unless it is a pattern.
fn replaced_text(replace: &tokenizers::normalizers::Replace) -> Option<String> {
    let value = serde_json::to_value(replace).ok()?;
    let text = value.get("pattern")?.get("String")?.as_str()?;
    (!text.is_empty()).then(|| text.to_owned())
}

/// The byte that a token such as `<0x0A>` names.
pub(super) fn byte_of_name(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    let two = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    two.then(|| u8::from_str_radix(digits, 16).ok())?
}

/// The byte that a character stands for in GPT-2's vocabulary: printable ones for
/// themselves, the others from U+0100 on in order.
fn byte_of_character(character: char) -> Option<u8> {
    let printable = |byte: &u8| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    match u32::from(character) {
        code @ 0..=255 => Some(code as u8).filter(printable),
        code => (0..=255)
            .filter(|byte| !printable(byte))
            .nth(code as usize - 256),
    }
}
