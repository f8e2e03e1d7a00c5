//! Files that `torch.save` wrote before release 1.6, or was told to: five
//! pickles one after another, then the storages (`torch/serialization.py`,
//! `_legacy_save`).

use std::{
    collections::HashMap,
    io::{Read, Seek, SeekFrom},
};

use super::torch::{self, Found, LIMITS, Rebuild, Storage};
use crate::pickle::{Pickle, PickleError, Value};

/// How such files begin: protocol 2, then a whole number of ten bytes.
pub(super) const START: [u8; 15] = *b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\x2e";

/// The version of the layout after that number; there has been no other.
const VERSION: u16 = 1001;

/// How much of the file is first looked at for pickles, in bytes.
const FIRST_LOOK: u64 = 1 << 20;

/// Finds the tensors of the file of `size` bytes.
///
/// Reasons are fragments without the file's name.
pub(super) fn read(file: &mut (impl Read + Seek), size: u64) -> Result<Found, String> {
    let mut look = FIRST_LOOK;
    loop {
        let start = prefix(file, look)?;
        let result = Pickles::read(&start).and_then(|pickles| pickles.tensors(file, size));
        match result {
            // It may only seem to be truncated.
            Err(Failure::Pickle(_)) if look < size && look < LIMITS.bytes as u64 => {
                look = LIMITS.bytes as u64;
            }
            other => return other.map_err(Failure::reason),
        }
    }
}

enum Failure {
    Pickle(PickleError),
    Other(String),
}

impl Failure {
    fn reason(self) -> String {
        match self {
            Self::Pickle(error) => error.to_string(),
            Self::Other(reason) => reason,
        }
    }
}

impl From<String> for Failure {
    fn from(reason: String) -> Self {
        Self::Other(reason)
    }
}

fn prefix(file: &mut (impl Read + Seek), len: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    (file.seek(SeekFrom::Start(0)))
        .and_then(|_| file.take(len).read_to_end(&mut bytes))
        .map_err(|error| format!("its pickles cannot be read: {error}"))?;
    Ok(bytes)
}

/// The pickles that matter.
struct Pickles<'a> {
    object: Pickle<'a>,
    keys: Pickle<'a>,
    /// Where the storages start.
    end: u64,
}

impl<'a> Pickles<'a> {
    fn read(start: &'a [u8]) -> Result<Self, Failure> {
        let mut at = START.len();
        let mut next = || -> Result<Pickle<'a>, Failure> {
            let rest = start.get(at..).unwrap_or_default();
            let (pickle, len) = Pickle::read_prefix(rest, LIMITS).map_err(|error| {
                Failure::Pickle(PickleError {
                    offset: error.offset + at,
                    ..error
                })
            })?;
            at += len;
            Ok(pickle)
        };
        let (version, system, object, keys) = (next()?, next()?, next()?, next()?);
        if version.root().as_int() != Some(VERSION) {
            return Err(Failure::Other(format!(
                "its version is {:?}, not {VERSION}",
                version.root()
            )));
        }
        let little = system.root().get("little_endian").and_then(Value::as_bool);
        if little != Some(true) {
            return Err(Failure::Other("its byte order is not little".to_owned()));
        }
        Ok(Self {
            object,
            keys,
            end: at as u64,
        })
    }

    fn tensors(&self, file: &mut (impl Read + Seek), size: u64) -> Result<Found, Failure> {
        let places = self.places(file, size)?;
        let locate = |storage: Storage<'_>| match places.get(storage.key) {
            Some(&(start, len)) if len == storage.len => Ok(start),
            Some((_, len)) => Err(format!(
                "its storage has {len} bytes instead of the {} it claims",
                storage.len
            )),
            None => Err("its storage is missing".to_owned()),
        };
        let mut rebuild = Rebuild::new(&locate, size);
        Ok(torch::state_dict(self.object.root(), &mut rebuild)?)
    }

    /// Start and length of every storage, by its key.
    fn places(
        &self,
        file: &mut (impl Read + Seek),
        size: u64,
    ) -> Result<HashMap<&str, (u64, u64)>, String> {
        let widths = self.widths()?;
        let keys = self.keys.root();
        let keys = keys.items().ok_or("its storages have no list")?;
        let mut places = HashMap::new();
        let mut at = self.end;
        for key in keys {
            let (key, width) = (key.as_str())
                .and_then(|key| Some((key, *widths.get(key)?)))
                .ok_or("it lists a storage that no tensor has")?;
            let cut = || format!("storage `{key}` does not lie in the file; it may be truncated");
            let mut elements = [0; 8];
            (file.seek(SeekFrom::Start(at)))
                .and_then(|_| file.read_exact(&mut elements))
                .map_err(|_| cut())?;
            let len = u64::from_le_bytes(elements).checked_mul(width);
            let end = len.and_then(|len| (at + 8).checked_add(len));
            let (len, end) = len.zip(end.filter(|end| *end <= size)).ok_or_else(cut)?;
            if places.insert(key, (at + 8, len)).is_some() {
                return Err(format!("storage `{key}` is there twice"));
            }
            at = end;
        }
        if at != size {
            return Err(format!("{} bytes follow its storages", size - at));
        }
        Ok(places)
    }

    /// The bytes of one element of every storage, by its key.
    fn widths(&self) -> Result<HashMap<&str, u64>, String> {
        let mut widths = HashMap::new();
        for value in self.object.values() {
            // A whole module has its classes' sources kept outside too.
            let kind = (value.persistent().and_then(Value::items)).and_then(|mut id| id.next());
            if kind.and_then(Value::as_str) != Some("storage") {
                continue;
            }
            let storage = Storage::read(value)?;
            let width = storage.dtype.bitsize() as u64 / 8;
            if widths
                .insert(storage.key, width)
                .is_some_and(|other| other != width)
            {
                return Err(format!("storage `{}` has two types", storage.key));
            }
        }
        Ok(widths)
    }
}
