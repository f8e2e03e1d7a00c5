//! `SentencePiece`'s BPE: the normaliser, the merges, and the bytes of pieces.
//!
//! The reference is `sentencepiece` itself (`normalizer.cc`, `bpe_model.cc`,
//! `sentencepiece_processor.cc`), whose ids plain text gets. A copy of a Hugging
//! Face tokenizer would not do: it ranks merges, where `SentencePiece` takes the
//! pair of the best piece and, of equal ones, the first in the text.

mod charsmap;
mod merge;
mod proto;

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, Result, bail, ensure};

pub(super) use self::charsmap::Charsmap;
use self::proto::{File, Kind, Piece};
use super::{SpecialNames, bytes::byte_of_name, finder::Finder};

/// What `SentencePiece` writes for a space.
const SPACE: char = '▁';

/// A vocabulary of pieces and how text becomes some of them.
pub(super) struct Model {
    pieces: Vec<Piece>,
    /// Pieces that merges may make.
    ids: HashMap<String, u32>,
    /// All other pieces.
    reserved: HashMap<String, u32>,
    /// The longest piece in `ids`, in bytes.
    longest: usize,
    unknown: u32,
    bytes: Option<Box<[u32; 256]>>,
    user_defined: Finder,
    charsmap: Option<Charsmap>,
    dummy_prefix: bool,
    squeeze_spaces: bool,
    names: SpecialNames,
}

impl Model {
    /// Reads a `.model` file.
    pub(super) fn read(bytes: &[u8]) -> Result<Self> {
        let file = File::read(bytes)?;
        refuse_others(&file)?;
        let mut ids = HashMap::with_capacity(file.pieces.len());
        let mut reserved = HashMap::new();
        let mut unknown = None;
        for (id, piece) in file.pieces.iter().enumerate() {
            let id = id as u32;
            let mergeable = matches!(piece.kind, Kind::Normal | Kind::UserDefined | Kind::Unused);
            let taken = if mergeable {
                ids.insert(piece.text.clone(), id)
            } else {
                reserved.insert(piece.text.clone(), id)
            };
            let both = taken.is_some()
                || (if mergeable { &reserved } else { &ids }).contains_key(&piece.text);
            ensure!(!both, "the piece `{}` is there twice", piece.text);
            if piece.kind == Kind::Unknown {
                let first = unknown.replace(id);
                ensure!(first.is_none(), "two pieces are of the type `unknown`");
            }
        }
        let unknown = unknown.context("no piece is of the type `unknown`")?;
        let bytes = byte_pieces(&file)?;
        let user_defined = of_kind(&file.pieces, Kind::UserDefined);
        let charsmap = (!file.charsmap.is_empty())
            .then(|| Charsmap::read(&file.charsmap).context("`precompiled_charsmap`"))
            .transpose()?;
        let control = |name: &String| {
            let id: Option<&u32> = reserved.get(name);
            let piece = id.and_then(|&id| file.pieces.get(id as usize));
            piece
                .filter(|piece| piece.kind == Kind::Control)
                .map(|piece| piece.text.clone())
        };
        let names = SpecialNames {
            bos: control(&file.bos_piece),
            eos: control(&file.eos_piece),
            pad: control(&file.pad_piece),
            unk: (file.pieces.get(unknown as usize)).map(|piece| piece.text.clone()),
        };
        Ok(Self {
            longest: ids.keys().map(String::len).max().unwrap_or(0),
            ids,
            reserved,
            unknown,
            bytes,
            user_defined: Finder::new(user_defined)?,
            charsmap,
            dummy_prefix: file.dummy_prefix,
            squeeze_spaces: file.squeeze_spaces,
            names,
            pieces: file.pieces,
        })
    }

    pub(super) fn names(&self) -> &SpecialNames {
        &self.names
    }

    pub(super) fn len(&self) -> usize {
        self.pieces.len()
    }

    /// The id of a piece of any type.
    pub(super) fn id(&self, text: &str) -> Option<u32> {
        (self.reserved.get(text).or_else(|| self.ids.get(text))).copied()
    }

    /// The pieces that no text becomes, by their texts; without the unknown one.
    pub(super) fn controls(&self) -> BTreeMap<String, u32> {
        of_kind(&self.pieces, Kind::Control)
    }

    /// How many bytes a byte of text can become before it is split.
    pub(super) fn expansion(&self) -> usize {
        let replaced = self.charsmap.as_ref().map_or(0, Charsmap::longest);
        SPACE.len_utf8() * replaced.max(1)
    }

    /// The ids of a text that holds no special tokens. `prefix` asks for the space
    /// before it that the file may want.
    pub(super) fn encode(&self, text: &str, prefix: bool) -> Vec<u32> {
        let normalized = self.normalize(text, prefix);
        let mut ids = Vec::new();
        let mut after_unknown = false;
        for (piece, id) in merge::split(self, &normalized) {
            match (&self.bytes, id == self.unknown) {
                (Some(bytes), true) => {
                    ids.extend(piece.bytes().map(|byte| bytes[usize::from(byte)]));
                }
                // A run of unknown pieces is one.
                (None, true) if after_unknown => {}
                _ => ids.push(id),
            }
            after_unknown = id == self.unknown;
        }
        ids
    }

    /// `Normalizer::Normalize` of `normalizer.cc`.
    fn normalize(&self, text: &str, prefix: bool) -> String {
        let mut out = String::with_capacity(text.len() + text.len() / 2 + SPACE.len_utf8());
        let mut finder = Ahead::new(&self.user_defined, text);
        let mut at = 0;
        if self.squeeze_spaces {
            while at < text.len() {
                let (length, piece) = self.normal_prefix(&mut finder, at);
                if piece != " " {
                    break;
                }
                at += length;
            }
        }
        if at == text.len() {
            return out;
        }
        if prefix && self.dummy_prefix {
            out.push(SPACE);
        }
        let mut after_space = self.squeeze_spaces;
        while at < text.len() {
            let (length, piece) = self.normal_prefix(&mut finder, at);
            let piece = if after_space {
                piece.trim_start_matches(' ')
            } else {
                piece
            };
            for character in piece.chars() {
                out.push(if character == ' ' { SPACE } else { character });
            }
            if !piece.is_empty() {
                after_space = self.squeeze_spaces && piece.ends_with(' ');
            }
            at += length;
        }
        if self.squeeze_spaces {
            out.truncate(out.trim_end_matches(SPACE).len());
        }
        out
    }

    /// What the text at `at` begins with and what that becomes: a piece that a user
    /// defined stays, else the table is asked, else a character stays.
    fn normal_prefix<'a>(&'a self, finder: &mut Ahead<'a>, at: usize) -> (usize, &'a str) {
        let rest = finder.text.get(at..).unwrap_or_default();
        let defined = finder.length_at(at);
        if let Some(piece) = defined.and_then(|length| rest.get(..length)) {
            return (piece.len(), piece);
        }
        if let Some(found) = self.charsmap.as_ref().and_then(|map| map.prefix(rest)) {
            return found;
        }
        let length = rest.chars().next().map_or(1, char::len_utf8);
        (length, rest.get(..length).unwrap_or_default())
    }

    /// The bytes that a piece stands for; none of control pieces and the unknown one.
    pub(super) fn token_bytes(&self, id: u32) -> Option<Vec<u8>> {
        let piece = self.pieces.get(id as usize)?;
        match piece.kind {
            Kind::Control | Kind::Unknown => None,
            Kind::Byte => byte_of_name(&piece.text).map(|byte| vec![byte]),
            _ => Some(piece.text.replace(SPACE, " ").into_bytes()),
        }
    }

    /// Whether [`Model::encode`] can put a space before a text.
    pub(super) fn adds_space(&self) -> bool {
        self.dummy_prefix
    }

    /// Whether of neighbouring spaces one is left, and none at the ends.
    pub(super) fn squeezes_spaces(&self) -> bool {
        self.squeeze_spaces
    }

    pub(super) fn is_byte(&self, id: u32) -> bool {
        (self.pieces.get(id as usize)).is_some_and(|piece| piece.kind == Kind::Byte)
    }

    pub(super) fn is_control(&self, id: u32) -> bool {
        (self.pieces.get(id as usize)).is_some_and(|piece| piece.kind == Kind::Control)
    }

    pub(super) fn unknown_id(&self) -> u32 {
        self.unknown
    }

    fn is_unused(&self, id: u32) -> bool {
        (self.pieces.get(id as usize)).is_some_and(|piece| piece.kind == Kind::Unused)
    }
}

/// The next piece that a user defined, looked for once.
struct Ahead<'a> {
    finder: &'a Finder,
    text: &'a str,
    next: Option<(usize, usize)>,
    searched: bool,
}

impl<'a> Ahead<'a> {
    fn new(finder: &'a Finder, text: &'a str) -> Self {
        Self {
            finder,
            text,
            next: None,
            searched: false,
        }
    }

    /// The length of the longest such piece that starts at `at`; `at` never falls.
    fn length_at(&mut self, at: usize) -> Option<usize> {
        if !self.searched || self.next.is_some_and(|(start, _)| start < at) {
            let found = self.finder.next(self.text, at);
            self.next = found.map(|found| (found.start, found.end));
            self.searched = true;
        }
        let (start, end) = self.next?;
        (start == at).then_some(end - start)
    }
}

/// Names what a file asks for that is not done here.
fn refuse_others(file: &File) -> Result<()> {
    let kind = match file.model_type {
        2 => None,
        1 => Some("unigram"),
        3 => Some("word"),
        4 => Some("char"),
        _ => Some("unknown"),
    };
    if let Some(kind) = kind {
        bail!(
            "its `model_type` is {kind}, and only BPE is read\n\
             hint: the models of the Mistral and Llama families have BPE; for others put their \
             `tokenizer.json` into the folder"
        );
    }
    ensure!(
        !file.space_behind && file.escape_spaces && !file.decoding_charsmap,
        "it has `treat_whitespace_as_suffix`, no `escape_whitespaces` or a `denormalizer_spec`, \
         none of which is read\nhint: put the model's `tokenizer.json` into the folder"
    );
    Ok(())
}

/// The ids of the pieces for single bytes, where unknown characters become these.
fn byte_pieces(file: &File) -> Result<Option<Box<[u32; 256]>>> {
    let mut ids = [None; 256];
    for (id, piece) in file.pieces.iter().enumerate() {
        if piece.kind == Kind::Byte {
            let byte = byte_of_name(&piece.text)
                .with_context(|| format!("the piece `{}` is no byte", piece.text))?;
            ensure!(
                file.byte_fallback,
                "it has pieces of bytes but no `byte_fallback`"
            );
            ids[usize::from(byte)] = Some(id as u32);
        }
    }
    if !file.byte_fallback {
        return Ok(None);
    }
    let mut all = Box::new([0; 256]);
    for (byte, id) in ids.into_iter().enumerate() {
        all[byte] = id.with_context(|| format!("it has no piece for the byte 0x{byte:02X}"))?;
    }
    Ok(Some(all))
}

fn of_kind(pieces: &[Piece], kind: Kind) -> BTreeMap<String, u32> {
    (pieces.iter().zip(0..))
        .filter(|(piece, _)| piece.kind == kind)
        .map(|(piece, id)| (piece.text.clone(), id))
        .collect()
}
