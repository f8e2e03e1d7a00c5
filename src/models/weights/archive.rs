//! Zip archives of `PyTorch`: state dicts and `TorchScript` modules.
//!
//! All members lie under one folder of any name: `data.pkl`, a pickle, and
//! `data/<key>`, the bytes of one storage each; `TorchScript` archives also have
//! `constants.pkl` and `code/` (`docs/source/notes/serialization.rst` of
//! `PyTorch`).

use std::io::{Read, Seek};

use super::{
    script,
    torch::{self, Found, LIMITS, Rebuild, Storage},
    zip::{self, Members},
};
use crate::pickle::Pickle;

/// An archive's members without the name of the folder they lie under.
pub(super) struct Archive {
    pub(super) root: String,
    pub(super) members: Members,
}

impl Archive {
    /// Reads the directory of the archive in `file`.
    fn read(file: &mut (impl Read + Seek), size: u64) -> Result<Self, String> {
        let mut members = zip::read(file, size)?;
        let mut roots = (members.keys())
            .filter_map(|name| name.strip_suffix("/data.pkl"))
            .filter(|root| !root.is_empty() && !root.contains('/'));
        let root = (roots.next().map(str::to_owned)).ok_or(
            "it is a zip archive without the `data.pkl` that PyTorch writes\n\
             hint: save `model.state_dict()` by `torch.save`",
        )?;
        if let Some(other) = roots.next() {
            return Err(format!("it holds two archives, `{root}` and `{other}`"));
        }
        let prefix = format!("{root}/");
        members = members
            .into_iter()
            .filter_map(|(name, member)| Some((name.strip_prefix(&prefix)?.to_owned(), member)))
            .collect();
        Ok(Self { root, members })
    }

    /// A member of at most `most` bytes, if it is there.
    pub(super) fn contents(
        &self,
        file: &mut (impl Read + Seek),
        name: &str,
        most: u64,
    ) -> Result<Option<Vec<u8>>, String> {
        match self.members.get(name) {
            Some(member) => zip::contents(file, name, *member, most).map(Some),
            None => Ok(None),
        }
    }

    /// Where a storage's bytes start.
    fn locate(&self, storage: Storage<'_>) -> Result<u64, String> {
        let name = format!("data/{}", storage.key);
        let member = self.members.get(&name);
        let member = member.ok_or_else(|| format!("its storage `{name}` is missing"))?;
        if !member.stored {
            return Err(format!(
                "its storage `{name}` is compressed\n\
                 hint: save it again by `torch.save`, which does not compress"
            ));
        }
        if member.len != storage.len {
            return Err(format!(
                "its storage `{name}` has {} bytes instead of the {} it claims",
                member.len, storage.len
            ));
        }
        Ok(member.offset)
    }
}

/// What an archive holds.
pub(super) enum Opened {
    /// A state dict, by `torch.save`.
    State(Found),
    /// A module, by `torch.jit.save`.
    Script(Found),
}

/// Finds the tensors of the archive in `file`.
///
/// Reasons are fragments without the file's name.
pub(super) fn read(file: &mut (impl Read + Seek), size: u64) -> Result<Opened, String> {
    let archive = Archive::read(file, size)?;
    if let Some(order) = archive.contents(file, "byteorder", 64)?
        && order != b"little"
    {
        return Err(format!(
            "its byte order is `{}`, not `little`",
            order.escape_ascii()
        ));
    }
    let pickle = archive
        .contents(file, "data.pkl", LIMITS.bytes as u64)?
        .unwrap_or_default();
    let pickle = Pickle::read(&pickle, LIMITS)
        .map_err(|error| format!("`{}/data.pkl`: {error}", archive.root))?;
    let locate = |storage: Storage<'_>| archive.locate(storage);
    let mut rebuild = Rebuild::new(&locate, size);
    let names = archive.members.keys();
    if names
        .clone()
        .any(|name| name == "constants.pkl" || name.starts_with("code/"))
    {
        return script::read(&archive, file, pickle.root(), &mut rebuild).map(Opened::Script);
    }
    torch::state_dict(pickle.root(), &mut rebuild).map(Opened::State)
}
