//! CIFAR's `.tar.gz` archives, read as they were downloaded, in memory and in
//! one pass. Entries count by their file names; nothing is ever written.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufReader, ErrorKind, Read},
    path::Path,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use flate2::read::GzDecoder;

use super::source::{LAYOUTS, Layout, names};
use crate::data::{Format, count, listed, shown, sniff};

/// The longest file of the data sets, CIFAR-100's `train`, has 155 MB.
pub(super) const MOST_BYTES: usize = 256 << 20;
/// All entries together, unpacked; CIFAR's have 190 MB.
const MOST_UNPACKED: u64 = 512 << 20;

/// The files of an archive that belong to the data set.
pub(super) struct Archive {
    name: String,
    pub(super) layout: &'static Layout,
    files: BTreeMap<&'static str, Vec<u8>>,
}

impl Archive {
    /// Reads the archive at `path`.
    ///
    /// # Errors
    /// When it is no archive, damaged or truncated, too large, or lacks files
    /// of `format`.
    pub(super) fn read(path: &Path, format: Format) -> Result<Self> {
        let name = shown(path);
        let mut head = Vec::new();
        fs_err::File::open(path)
            .and_then(|file| file.take(512).read_to_end(&mut head))
            .context("failed to read a data set")?;
        let packed = head.starts_with(b"\x1f\x8b");
        if !packed && head.get(257..262) != Some(b"ustar") {
            bail!(
                "`{name}` is no `.tar.gz` archive but {}\nhint: {}",
                sniff::what(&head),
                instead(path)
            );
        }
        let file = File::open(path).with_context(|| format!("failed to open `{name}`"))?;
        let reader = BufReader::with_capacity(1 << 16, file);
        let reader: Box<dyn Read> = if packed {
            Box::new(GzDecoder::new(reader))
        } else {
            Box::new(reader)
        };
        let mut files = BTreeMap::new();
        if let Err(error) = entries(reader, &mut files) {
            let whole = LAYOUTS
                .iter()
                .filter(|layout| layout.format == format)
                .map(|layout| {
                    (
                        layout.files().filter(|f| files.contains_key(f)).count(),
                        layout,
                    )
                })
                .max_by_key(|(n, _)| *n)
                .map(|(n, layout)| {
                    format!("{n} of its {} files are whole", layout.files().count())
                });
            let error = error.context(format!(
                "failed to read `{name}`, of which {}",
                whole.unwrap_or_default()
            ));
            return Err(error);
        }
        let complete = |layout: &&Layout| layout.files().all(|file| files.contains_key(file));
        let (wanted, _) = names(format);
        match LAYOUTS
            .iter()
            .filter(complete)
            .max_by_key(|layout| layout.format == format)
        {
            Some(layout) if layout.format == format => Ok(Self {
                name,
                layout,
                files,
            }),
            Some(layout) => {
                let (other, written) = names(layout.format);
                bail!(
                    "`{name}` holds {other}, not {wanted}\nhint: write format = \"{written}\", or name the archive of {wanted}"
                )
            }
            None => {
                let absent: Vec<_> = LAYOUTS
                    .iter()
                    .filter(|layout| layout.format == format)
                    .map(|layout| layout.files().filter(|f| !files.contains_key(f)).collect())
                    .min_by_key(Vec::len)
                    .unwrap_or_default();
                bail!(
                    "`{name}` lacks {} of {wanted}: {}\nhint: download it again from https://www.cs.toronto.edu/~kriz/cifar.html",
                    count(absent.len(), "file", "files"),
                    listed(&absent, 3)
                )
            }
        }
    }

    /// The bytes of the file called `name`, and the name to show for it.
    pub(super) fn take(&mut self, name: &str) -> Result<(Vec<u8>, String)> {
        let shown = format!("{}/{name}", self.name);
        match self.files.remove(name) {
            Some(bytes) => Ok((bytes, shown)),
            None => Err(anyhow!("`{shown}` is missing")),
        }
    }
}

/// What to do about a file that is no archive.
fn instead(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if LAYOUTS
        .iter()
        .any(|layout| layout.files().any(|file| file == name))
    {
        return "this is one file of the data set; name the folder that holds it".to_owned();
    }
    "name the folder or the `.tar.gz` as downloaded from https://www.cs.toronto.edu/~kriz/cifar.html"
        .to_owned()
}

/// Collects the entries of `reader` that are files of a data set.
fn entries(reader: impl Read, files: &mut BTreeMap<&'static str, Vec<u8>>) -> Result<()> {
    let mut bounded = reader.take(MOST_UNPACKED + 1);
    let result = collect(&mut bounded, files);
    ensure!(
        bounded.limit() > 0,
        "unpacked it has more than {MOST_UNPACKED} bytes, and CIFAR has not"
    );
    result
}

fn collect(reader: &mut impl Read, files: &mut BTreeMap<&'static str, Vec<u8>>) -> Result<()> {
    let mut archive = tar::Archive::new(&mut *reader);
    // Long names and attributes are of no use here, and would cost memory.
    for entry in archive.entries().map_err(|e| in_words(&e))?.raw(true) {
        let entry = entry.map_err(|e| in_words(&e))?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let path = entry.path_bytes();
        let name = path.rsplit(|b| *b == b'/').next().unwrap_or_default();
        let mut known = LAYOUTS.iter().flat_map(Layout::files);
        let Some(known) = known.find(|file| file.as_bytes() == name) else {
            continue;
        };
        let size = entry.size();
        ensure!(
            size <= MOST_BYTES as u64,
            "its file `{known}` has {size} bytes, more than any file of the data set"
        );
        let mut bytes = Vec::new();
        entry
            .take(size)
            .read_to_end(&mut bytes)
            .map_err(|e| in_words(&e))?;
        ensure!(bytes.len() as u64 == size, "{TRUNCATED}");
        ensure!(
            files.insert(known, bytes).is_none(),
            "it holds two files `{known}`"
        );
    }
    // To the end, where gzip has its checksum.
    io::copy(reader, &mut io::sink()).map_err(|e| in_words(&e))?;
    Ok(())
}

const TRUNCATED: &str =
    "the archive ends early\nhint: the download was cut short; download it again";

fn in_words(error: &io::Error) -> anyhow::Error {
    if error.kind() == ErrorKind::UnexpectedEof {
        return anyhow!("{TRUNCATED}");
    }
    anyhow!("the archive is damaged: {error}\nhint: download it again")
}
