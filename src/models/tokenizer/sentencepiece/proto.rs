//! What a `SentencePiece` `.model` file says: a protobuf message, read field by field.
//!
//! The fields are those of `sentencepiece_model.proto`. Unknown ones are passed
//! over, as protobuf demands; the file's claims are checked against its size.

use anyhow::{Context, Result, bail, ensure};

/// The most pieces of a file. Llama 2 has 32,000, Gemma 256,000.
const MOST_PIECES: usize = 1 << 20;
/// The longest piece, in bytes. Trainers stop at 16 characters unless told otherwise.
const LONGEST_PIECE: usize = 1024;

/// What a piece is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

/// One piece of the vocabulary; its place in the file is its id.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Piece {
    pub(super) text: String,
    pub(super) score: f32,
    pub(super) kind: Kind,
}

/// The parts of a `.model` file in use.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "the fields of the file")]
pub(super) struct File {
    pub(super) pieces: Vec<Piece>,
    /// 1 for unigram, 2 for BPE, 3 for words, 4 for characters.
    pub(super) model_type: u64,
    pub(super) byte_fallback: bool,
    pub(super) space_behind: bool,
    pub(super) bos_piece: String,
    pub(super) eos_piece: String,
    pub(super) pad_piece: String,
    pub(super) charsmap: Vec<u8>,
    pub(super) decoding_charsmap: bool,
    pub(super) dummy_prefix: bool,
    pub(super) squeeze_spaces: bool,
    pub(super) escape_spaces: bool,
}

impl Default for File {
    fn default() -> Self {
        Self {
            pieces: Vec::new(),
            model_type: 1,
            byte_fallback: false,
            space_behind: false,
            bos_piece: "<s>".to_owned(),
            eos_piece: "</s>".to_owned(),
            pad_piece: "<pad>".to_owned(),
            charsmap: Vec::new(),
            decoding_charsmap: false,
            dummy_prefix: true,
            squeeze_spaces: true,
            escape_spaces: true,
        }
    }
}

impl File {
    pub(super) fn read(bytes: &[u8]) -> Result<Self> {
        let mut file = Self::default();
        for field in Fields(bytes) {
            match field? {
                (1, value) => {
                    let id = file.pieces.len();
                    ensure!(
                        id < MOST_PIECES,
                        "it has more than the {MOST_PIECES} pieces allowed"
                    );
                    let piece = value.message().and_then(piece);
                    file.pieces
                        .push(piece.with_context(|| format!("piece {id}"))?);
                }
                (2, value) => {
                    let message = value.message().and_then(|fields| file.trainer(fields));
                    message.context("`trainer_spec`")?;
                }
                (3, value) => {
                    let message = value.message().and_then(|fields| file.normalizer(fields));
                    message.context("`normalizer_spec`")?;
                }
                (5, value) => {
                    for field in value.message()? {
                        if let (2, value) = field? {
                            file.decoding_charsmap = !value.bytes()?.is_empty();
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(file)
    }

    fn trainer(&mut self, fields: Fields) -> Result<()> {
        for field in fields {
            match field? {
                (3, value) => self.model_type = value.number()?,
                (24, value) => self.space_behind = value.number()? != 0,
                (35, value) => self.byte_fallback = value.number()? != 0,
                (46, value) => self.bos_piece = value.text()?,
                (47, value) => self.eos_piece = value.text()?,
                (48, value) => self.pad_piece = value.text()?,
                _ => {}
            }
        }
        Ok(())
    }

    fn normalizer(&mut self, fields: Fields) -> Result<()> {
        for field in fields {
            match field? {
                (2, value) => self.charsmap = value.bytes()?.to_vec(),
                (3, value) => self.dummy_prefix = value.number()? != 0,
                (4, value) => self.squeeze_spaces = value.number()? != 0,
                (5, value) => self.escape_spaces = value.number()? != 0,
                _ => {}
            }
        }
        Ok(())
    }
}

fn piece(fields: Fields) -> Result<Piece> {
    let mut piece = Piece {
        text: String::new(),
        score: 0.0,
        kind: Kind::Normal,
    };
    for field in fields {
        match field? {
            (1, value) => piece.text = value.text()?,
            (2, value) => piece.score = value.float()?,
            (3, value) => {
                piece.kind = match value.number()? {
                    1 => Kind::Normal,
                    2 => Kind::Unknown,
                    3 => Kind::Control,
                    4 => Kind::UserDefined,
                    5 => Kind::Unused,
                    6 => Kind::Byte,
                    other => bail!("its type {other} is unknown"),
                }
            }
            _ => {}
        }
    }
    ensure!(!piece.text.is_empty(), "it is empty");
    ensure!(
        piece.text.len() <= LONGEST_PIECE,
        "it is longer than the {LONGEST_PIECE} bytes allowed"
    );
    ensure!(piece.score.is_finite(), "its score is {}", piece.score);
    // Zeros of both signs are equal.
    piece.score += 0.0;
    Ok(piece)
}

/// The value of a field.
#[derive(Clone, Copy)]
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Fixed([u8; 4]),
    /// Eight bytes, which no field in use has.
    Long,
}

impl<'a> Value<'a> {
    fn number(self) -> Result<u64> {
        match self {
            Self::Number(number) => Ok(number),
            _ => bail!("a field that should be a number is none"),
        }
    }

    fn bytes(self) -> Result<&'a [u8]> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => bail!("a field that should be text is none"),
        }
    }

    fn text(self) -> Result<String> {
        let text = std::str::from_utf8(self.bytes()?).context("a text is not UTF-8")?;
        Ok(text.to_owned())
    }

    fn float(self) -> Result<f32> {
        match self {
            Self::Fixed(bytes) => Ok(f32::from_le_bytes(bytes)),
            _ => bail!("a field that should be a float is none"),
        }
    }

    fn message(self) -> Result<Fields<'a>> {
        Ok(Fields(self.bytes()?))
    }
}

/// The fields of a message: their numbers and values.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Result<u64> {
        let mut number = 0;
        for at in 0..10 {
            let byte = self.take(1)?[0];
            let low = u64::from(byte & 0x7F);
            ensure!(at < 9 || low < 2, "a number has more than 64 bits");
            number |= low << (7 * at);
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        bail!("a number has more than 64 bits")
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let taken = self.0.split_at_checked(length);
        let (taken, rest) = taken.with_context(|| {
            format!(
                "{length} bytes are announced where {} are left: it is cut off or not a \
                 SentencePiece file",
                self.0.len()
            )
        })?;
        self.0 = rest;
        Ok(taken)
    }

    fn field(&mut self) -> Result<(u64, Value<'a>)> {
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Number(self.varint()?),
            1 => {
                self.take(8)?;
                Value::Long
            }
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(usize::try_from(length).unwrap_or(usize::MAX))?)
            }
            5 => Value::Fixed(self.take(4)?.try_into().context("four bytes")?),
            other => bail!("a field of wire type {other} is not read"),
        };
        ensure!(tag >> 3 != 0, "a field has the number 0");
        Ok((tag >> 3, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}
