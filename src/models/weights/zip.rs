//! Where the members of a zip archive lie, believed only after checks.
//!
//! The format is PKWARE's `APPNOTE.TXT`, of which this is the part that
//! `PyTorch` and Python's `zipfile` write: one disk, no encryption, lengths in
//! the central directory, 64-bit ones where needed. The directory and the
//! members must lie in the file one after another without overlapping; then no
//! length leads to an allocation larger than the file. Checksums are not
//! verified, for `PyTorch` can leave them out.

use std::{
    collections::BTreeMap,
    io::{Read, Seek, SeekFrom},
};

use flate2::read::DeflateDecoder;

/// The most members; a 70B model has about a thousand tensors.
const MOST_MEMBERS: u64 = 1 << 17;

/// The longest central directory, in bytes.
const LONGEST_DIRECTORY: u64 = 64 << 20;

const LOCAL: u32 = 0x0403_4b50;
const CENTRAL: u32 = 0x0201_4b50;
const END: u32 = 0x0605_4b50;
const END64: u32 = 0x0606_4b50;
const LOCATOR64: u32 = 0x0706_4b50;

const LOCAL_LEN: u64 = 30;
const CENTRAL_LEN: usize = 46;
const END_LEN: usize = 22;
const END64_LEN: usize = 56;
const LOCATOR64_LEN: usize = 20;

/// One member of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Member {
    /// The first byte of its data, counted from the start of the file.
    pub offset: u64,
    /// How many bytes the data has in the file.
    pub len: u64,
    /// Whether these are the member's own bytes, uncompressed.
    pub stored: bool,
}

/// The members by name.
pub(super) type Members = BTreeMap<String, Member>;

/// Reads the directory of a zip archive of `size` bytes.
///
/// Reasons are fragments without the file's name.
pub(super) fn read(file: &mut (impl Read + Seek), size: u64) -> Result<Members, String> {
    let (directory, entries, start) = directory(file, size)?;
    let mut fields = Fields(&directory);
    let mut members = Members::new();
    let mut ranges = Vec::new();
    for _ in 0..entries {
        let entry = fields.entry()?;
        let (name, from) = (entry.name, entry.header);
        let member = locate(file, &entry, start)?;
        ranges.push((from, member.offset + member.len, name.to_owned()));
        if members.insert(name.to_owned(), member).is_some() {
            return Err(format!("member `{name}` is there twice"));
        }
    }
    if !fields.0.is_empty() {
        return Err("its directory has more members than it says".to_owned());
    }
    ranges.sort();
    for pair in ranges.windows(2) {
        if let [(_, end, first), (next, _, second)] = pair
            && next < end
        {
            return Err(format!("members `{first}` and `{second}` overlap"));
        }
    }
    Ok(members)
}

/// Reads a whole member of at most `most` bytes, inflated if need be.
pub(super) fn contents(
    file: &mut (impl Read + Seek),
    name: &str,
    member: Member,
    most: u64,
) -> Result<Vec<u8>, String> {
    let failed = |error| format!("member `{name}` cannot be read: {error}");
    file.seek(SeekFrom::Start(member.offset)).map_err(failed)?;
    let data = file.take(member.len);
    let mut bytes = Vec::new();
    if member.stored {
        data.take(most + 1).read_to_end(&mut bytes)
    } else {
        DeflateDecoder::new(data)
            .take(most + 1)
            .read_to_end(&mut bytes)
    }
    .map_err(failed)?;
    if bytes.len() as u64 > most {
        return Err(format!("member `{name}` is longer than {most} bytes"));
    }
    Ok(bytes)
}

/// The bytes of the central directory, how many members it says it has, and
/// where it starts.
fn directory(file: &mut (impl Read + Seek), size: u64) -> Result<(Vec<u8>, u64, u64), String> {
    let tail_len = size.min((END_LEN + LOCATOR64_LEN + usize::from(u16::MAX)) as u64);
    let tail = bytes(file, size - tail_len, tail_len)?;
    let end_at = (0..=tail.len().saturating_sub(END_LEN))
        .rev()
        .find(|&at| is_end(&tail[at..]))
        .ok_or("it has no zip directory; it may be truncated")?;
    let (before, end) = tail.split_at(end_at);
    let mut end = Fields(end);
    end.skip(4)?;
    let disks = (end.u16()?, end.u16()?);
    let (here, entries) = (end.u16()?, end.u16()?);
    let (len, start) = (end.u32()?, end.u32()?);
    let mut found = (u64::from(entries), u64::from(len), u64::from(start));
    let mut stops = size - (tail.len() - end_at) as u64;
    if disks != (0, 0) || here != entries {
        return Err("it is one part of a split zip archive".to_owned());
    }
    let locator = before
        .len()
        .checked_sub(LOCATOR64_LEN)
        .map(|at| &before[at..]);
    if let Some(locator) = locator.filter(|bytes| Fields(bytes).u32() == Ok(LOCATOR64)) {
        stops -= LOCATOR64_LEN as u64;
        let mut locator = Fields(locator);
        locator.skip(8)?;
        let at = locator.u64()?;
        if at.checked_add(END64_LEN as u64) != Some(stops) {
            return Err("its 64-bit directory is not where it says".to_owned());
        }
        stops = at;
        let whole = directory64(&bytes(file, at, END64_LEN as u64)?)?;
        let agree = |short: u64, most: u64, long: u64| short == most || short == long;
        if !(agree(found.0, u16::MAX.into(), whole.0)
            && agree(found.1, u32::MAX.into(), whole.1)
            && agree(found.2, u32::MAX.into(), whole.2))
        {
            return Err("its two directories contradict each other".to_owned());
        }
        found = whole;
    }
    let (entries, len, start) = found;
    if entries > MOST_MEMBERS || len > LONGEST_DIRECTORY {
        return Err(format!(
            "its directory claims {entries} members in {len} bytes, which is too much"
        ));
    }
    if start.checked_add(len) != Some(stops) {
        return Err("its directory is not where it says; it may be truncated".to_owned());
    }
    Ok((bytes(file, start, len)?, entries, start))
}

/// Whether an end record and its comment fill `rest`.
fn is_end(rest: &[u8]) -> bool {
    let comment = || -> Result<usize, String> {
        let mut fields = Fields(rest);
        if fields.u32()? != END {
            return Err(String::new());
        }
        fields.skip(16)?;
        Ok(fields.u16()?.into())
    };
    (rest.len().checked_sub(END_LEN)).is_some_and(|len| comment() == Ok(len))
}

/// Members, length and start of the directory, by a 64-bit end record.
fn directory64(record: &[u8]) -> Result<(u64, u64, u64), String> {
    let mut fields = Fields(record);
    let signature = fields.u32()?;
    fields.skip(12)?;
    let disks = (fields.u32()?, fields.u32()?);
    let (here, entries) = (fields.u64()?, fields.u64()?);
    if signature != END64 || disks != (0, 0) || here != entries {
        return Err("its 64-bit directory is malformed".to_owned());
    }
    Ok((entries, fields.u64()?, fields.u64()?))
}

/// What the directory says of a member.
struct Listed<'a> {
    name: &'a str,
    flags: u16,
    method: u16,
    len: u64,
    full_len: u64,
    header: u64,
}

/// Finds a member's data behind its local header, before `limit`.
fn locate(file: &mut (impl Read + Seek), entry: &Listed<'_>, limit: u64) -> Result<Member, String> {
    let name = entry.name;
    // Bits 0, 6 and 13 are kinds of encryption.
    if entry.flags & 0x2041 != 0 {
        return Err(format!("member `{name}` is encrypted"));
    }
    let stored = match entry.method {
        0 => true,
        8 => false,
        method => {
            return Err(format!("member `{name}` is compressed by method {method}"));
        }
    };
    if stored && entry.len != entry.full_len {
        return Err(format!(
            "member `{name}` contradicts itself about its length"
        ));
    }
    let outside = || format!("member `{name}` does not lie in the file; it may be truncated");
    let header_end = (entry.header.checked_add(LOCAL_LEN))
        .filter(|end| *end <= limit)
        .ok_or_else(outside)?;
    let header = bytes(file, entry.header, LOCAL_LEN)?;
    let mut fields = Fields(&header);
    let signature = fields.u32()?;
    fields.skip(4)?;
    let method = fields.u16()?;
    fields.skip(16)?;
    let (name_len, extra_len) = (u64::from(fields.u16()?), u64::from(fields.u16()?));
    if signature != LOCAL || method != entry.method || name_len != name.len() as u64 {
        return Err(format!("member `{name}` is not where the directory says"));
    }
    let offset = header_end + name_len + extra_len;
    if offset.checked_add(entry.len).is_none_or(|end| end > limit) {
        return Err(outside());
    }
    if bytes(file, header_end, name_len)? != name.as_bytes() {
        return Err(format!("member `{name}` has another name at its place"));
    }
    Ok(Member {
        offset,
        len: entry.len,
        stored,
    })
}

/// Reads `len` bytes at `at`. The caller has compared both with the file.
fn bytes(file: &mut (impl Read + Seek), at: u64, len: u64) -> Result<Vec<u8>, String> {
    let mut bytes = vec![0; len as usize];
    (file.seek(SeekFrom::Start(at)))
        .and_then(|_| file.read_exact(&mut bytes))
        .map_err(|error| format!("its zip directory cannot be read: {error}"))?;
    Ok(bytes)
}

/// Little-endian numbers one after another.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn skip(&mut self, len: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self
            .0
            .split_at_checked(len)
            .ok_or("its zip directory ends too early")?;
        self.0 = rest;
        Ok(taken)
    }

    fn number<const N: usize>(&mut self) -> Result<u64, String> {
        let mut number = [0; 8];
        for (to, from) in number.iter_mut().zip(self.skip(N)?) {
            *to = *from;
        }
        Ok(u64::from_le_bytes(number))
    }

    fn u16(&mut self) -> Result<u16, String> {
        Ok(self.number::<2>()? as u16)
    }

    fn u32(&mut self) -> Result<u32, String> {
        Ok(self.number::<4>()? as u32)
    }

    fn u64(&mut self) -> Result<u64, String> {
        self.number::<8>()
    }

    /// The next member in the central directory.
    fn entry(&mut self) -> Result<Listed<'a>, String> {
        let mut fields = Fields(self.skip(CENTRAL_LEN)?);
        if fields.u32()? != CENTRAL {
            return Err("its zip directory is malformed".to_owned());
        }
        fields.skip(4)?;
        let (flags, method) = (fields.u16()?, fields.u16()?);
        fields.skip(8)?;
        let (mut len, mut full_len) = (u64::from(fields.u32()?), u64::from(fields.u32()?));
        let (name, extra, comment) = (fields.u16()?, fields.u16()?, fields.u16()?);
        fields.skip(8)?;
        let mut header = u64::from(fields.u32()?);
        let name = std::str::from_utf8(self.skip(name.into())?)
            .map_err(|_| "a member's name is not UTF-8")?;
        let mut extra = Fields(self.skip(extra.into())?);
        self.skip(comment.into())?;
        let mut wide = None;
        // The order in the extra field is fixed; only what does not fit is there.
        for short in [&mut full_len, &mut len, &mut header] {
            if *short == u64::from(u32::MAX) {
                if wide.is_none() {
                    wide = Some(extra.wide()?);
                }
                *short = wide.as_mut().map_or(Ok(*short), Fields::u64)?;
            }
        }
        Ok(Listed {
            name,
            flags,
            method,
            len,
            full_len,
            header,
        })
    }

    /// The 64-bit numbers among the extra fields.
    fn wide(&mut self) -> Result<Fields<'a>, String> {
        while !self.0.is_empty() {
            let (id, len) = (self.u16()?, self.u16()?);
            let field = self.skip(len.into())?;
            if id == 1 {
                return Ok(Fields(field));
            }
        }
        Err("a member's length is missing in the zip directory".to_owned())
    }
}
