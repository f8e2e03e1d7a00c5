//! One file: what is there of it, and its way into its place.

use std::{fs::File, io::Read, path::Path};

use anyhow::{Context, Result, bail};

use super::{
    Event, Fetched, Source,
    attempt::{self, Attempts},
    desk::{Desk, Found},
    hub::Want,
    names,
    part::Part,
    pin::{Difference, Hasher},
    problem::Problem,
};

/// Bytes read at a time.
const PIECE: usize = 1 << 20;
/// Most wrong files that a message names.
const NAMED: usize = 10;

/// Looks at what is in a file's place.
///
/// # Errors
/// When a folder is there, or it cannot be read; [`super::Stopped`].
pub(super) fn look(desk: &Desk, want: &Want) -> Result<Found> {
    let path = desk.path(want);
    let shown = path.display();
    let found = match std::fs::symlink_metadata(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Found::Nothing),
        // A file where a folder should be is told when the folder is made.
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => {
            return Ok(Found::Nothing);
        }
        found => found.with_context(|| format!("failed to look at `{shown}`"))?,
    };
    // A link to the right file is as good as the file.
    let found = match std::fs::metadata(&path) {
        Err(_) if found.is_symlink() => {
            return Ok(Found::Wrong(format!("`{shown}` is a link to nothing")));
        }
        found => found.with_context(|| format!("failed to look at `{shown}`"))?,
    };
    if !found.is_file() {
        bail!("`{shown}` is not a file, and a file is to be put there\nhint: move it away");
    }
    let length = found.len();
    if let Some(size) = want.size.filter(|size| *size != length) {
        return Ok(Found::Wrong(format!(
            "`{shown}` has {length} bytes, and {size} are expected"
        )));
    }
    desk.tell(Event::Checking {
        file: want.file.clone(),
        size: length,
    });
    Ok(match difference(desk, want, &path, length)? {
        None => Found::Right(fetched(want, &path, length, true)),
        Some(difference) => Found::Wrong(format!(
            "`{shown}` is {}, and {} is expected",
            difference.found, difference.expected
        )),
    })
}

fn fetched(want: &Want, path: &Path, size: u64, present: bool) -> Fetched {
    Fetched {
        path: path.to_owned(),
        size,
        digest: want
            .pins
            .first()
            .map(ToString::to_string)
            .unwrap_or_default(),
        present,
    }
}

fn difference(desk: &Desk, want: &Want, path: &Path, size: u64) -> Result<Option<Difference>> {
    let failed = || format!("failed to read `{}`", path.display());
    let mut file = File::open(path).with_context(failed)?;
    let mut hasher = Hasher::new(&want.pins, Some(size));
    let mut buffer = vec![0; PIECE];
    loop {
        desk.go_on()?;
        match file.read(&mut buffer).with_context(failed)? {
            0 => return Ok(hasher.difference()),
            count => hasher.update(&buffer[..count]),
        }
    }
}

/// Tells files that are still to be fetched from those that are there.
///
/// # Errors
/// When others are in their places and may not be replaced.
pub(super) fn sort<'a>(
    desk: &Desk,
    wants: &'a [Want],
    found: Vec<Found>,
) -> Result<(Vec<&'a Want>, Vec<Fetched>)> {
    let mut missing = Vec::new();
    let mut there = Vec::new();
    let mut wrong = Vec::new();
    for (want, found) in wants.iter().zip(found) {
        match found {
            Found::Right(fetched) => {
                desk.tell(Event::Present {
                    file: want.file.clone(),
                    size: fetched.size,
                });
                there.push(fetched);
            }
            Found::Nothing => missing.push(want),
            Found::Wrong(what) => {
                wrong.push(what);
                missing.push(want);
            }
        }
    }
    if !wrong.is_empty() && !desk.settings.force {
        let more = match wrong.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        wrong.truncate(NAMED);
        bail!(
            "`{}` would replace what is there: {}{more}\n\
             hint: `--force` replaces it; or move it away",
            desk.job.name,
            wrong.join("; ")
        );
    }
    for what in wrong {
        desk.tell(Event::Warning {
            text: format!("{what}; it is replaced"),
        });
    }
    Ok((missing, there))
}

/// Warns where the disk seems to be too small for what is to come.
pub(super) fn warn_of_room(desk: &Desk, missing: &[&Want]) {
    let needed: u64 = missing.iter().filter_map(|want| want.size).sum();
    let existing = (desk.root().ancestors())
        .map(|folder| {
            if folder == Path::new("") {
                Path::new(".")
            } else {
                folder
            }
        })
        .find(|folder| folder.exists());
    let Some(free) = existing.and_then(|folder| rustix::fs::statvfs(folder).ok()) else {
        return;
    };
    let free = free.f_bavail.saturating_mul(free.f_frsize);
    // Some file systems say 0 where they do not know.
    if free > 0 && needed > free {
        desk.tell(Event::Warning {
            text: format!(
                "`{}` needs {needed} bytes, but the disk of `{}` has {free} left",
                desk.job.name,
                desk.root().display()
            ),
        });
    }
}

/// Downloads one file, checks it, and puts it in its place.
///
/// # Errors
/// What cannot be overcome by trying again; [`super::Stopped`].
pub(super) fn file(desk: &Desk, want: &Want) -> Result<Fetched> {
    let path = desk.path(want);
    let name = match desk.job.source {
        Source::HuggingFace { .. } => want.file.as_str(),
        Source::Url { .. } => "",
    };
    names::make_folders(desk.root(), name)?;
    let (mut part, waited) = Part::open(desk, want, &path)?;
    // Another fetch may have finished it since it was looked at.
    if waited || !desk.settings.force {
        match look(desk, want)? {
            Found::Right(fetched) => {
                part.discard()?;
                desk.tell(Event::Present {
                    file: want.file.clone(),
                    size: fetched.size,
                });
                return Ok(fetched);
            }
            Found::Wrong(what) if !desk.settings.force => {
                bail!("something else has come in the meantime: {what}\nhint: move it away");
            }
            Found::Wrong(_) | Found::Nothing => {}
        }
    }
    let mut attempts = Attempts::new(desk, &want.file);
    let mut anew = false;
    loop {
        let before = part.done();
        match attempt::run(desk, want, &mut part) {
            Ok(()) => {}
            Err(problem) => {
                attempts.brought(part.done().saturating_sub(before));
                attempts.again(problem)?;
                continue;
            }
        }
        let Some(difference) = part.difference() else {
            break;
        };
        let doubtful = part.is_doubtful();
        part.clear()?;
        if doubtful && !anew {
            anew = true;
            desk.tell(Event::Restart {
                file: want.file.clone(),
                reason: "the bytes are not the expected ones; they may be of two versions, or cut"
                    .to_owned(),
            });
            continue;
        }
        return Err(attempts.error(wrong(desk, &difference)));
    }
    let size = part
        .finish(desk.settings.force)
        .with_context(|| format!("failed to fetch `{}` of `{}`", want.file, desk.job.name))?;
    let fetched = fetched(want, &path, size, false);
    desk.tell(Event::Verified {
        file: want.file.clone(),
        size,
        digest: fetched.digest.clone(),
    });
    Ok(fetched)
}

fn wrong(desk: &Desk, difference: &Difference) -> Problem {
    let problem = Problem::last(format!(
        "what was downloaded is {}, but {} is expected; it was deleted",
        difference.found, difference.expected
    ));
    problem.hint(match desk.job.source {
        Source::HuggingFace { .. } => {
            "the server, or a proxy on the way, sends other bytes than the hub lists; \
             a mirror can be named in `HF_ENDPOINT`"
        }
        Source::Url { .. } => {
            "is the digest copied right? if the publisher has changed the file, take the new one's"
        }
    })
}
