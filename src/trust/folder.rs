//! The user's folder: reading and writing its files, and who else may.

use std::{
    ffi::OsString,
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{
        DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
    },
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use super::{PublicKey, SecretKey, TrustError};

/// The most bytes that `trust.toml` may have: thousands of keys.
const LONGEST: u64 = 1 << 20;
/// The most bytes of a secret key's file.
const LONGEST_SECRET: u64 = 256;

/// The folder that the variables of the environment name.
pub(super) fn of_user(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let named = |name| {
        variable(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    // A relative path would depend on where the program runs: a project could bring its own.
    if let Some(path) = named("RUNNER_CONFIG") {
        return path.is_absolute().then_some(path);
    }
    named("XDG_CONFIG_HOME")
        .filter(|path| path.is_absolute())
        .map(|path| path.join("runner"))
        .or_else(|| {
            named("HOME")
                .filter(|path| path.is_absolute())
                .map(|path| path.join(".config/runner"))
        })
}

/// Where what is trusted stands.
pub(super) fn trust_path(folder: &Path) -> PathBuf {
    folder.join("trust.toml")
}

/// Where the secret key `name` lies.
pub(super) fn secret_path(folder: &Path, name: &str) -> PathBuf {
    folder.join("keys").join(format!("{name}.key"))
}

/// The path and text of `trust.toml`; nothing if there is none.
pub(super) fn read_trust(folder: &Path) -> Result<Option<(PathBuf, String)>, TrustError> {
    let path = trust_path(folder);
    let Some((file, mode)) = open(&path)? else {
        return Ok(None);
    };
    // A group is let through: many systems give every user one of his own.
    if mode & 0o002 != 0 {
        return Err(TrustError::Exposed {
            path,
            what: "change",
            mode: "o-w",
        });
    }
    let mut text = String::new();
    let read = file.take(LONGEST + 1).read_to_string(&mut text);
    read.map_err(TrustError::io("read", &path))?;
    if text.len() as u64 > LONGEST {
        return Err(TrustError::File {
            path,
            line: None,
            message: format!("it has more than {LONGEST} bytes"),
        });
    }
    Ok(Some((path, text)))
}

/// The secret half of `public`; nothing if it is not here.
pub(super) fn read_secret(
    folder: &Path,
    public: &PublicKey,
) -> Result<Option<SecretKey>, TrustError> {
    let path = secret_path(folder, public.name());
    let Some((file, mode)) = open(&path)? else {
        return Ok(None);
    };
    if mode & 0o077 != 0 {
        return Err(TrustError::Exposed {
            path,
            what: "read",
            mode: "600",
        });
    }
    let mut text = Zeroizing::new(String::with_capacity(LONGEST_SECRET as usize + 2));
    let read = file.take(LONGEST_SECRET + 1).read_to_string(&mut text);
    read.map_err(TrustError::io("read", &path))?;
    let Some(secret) = SecretKey::from_file(&text) else {
        return Err(TrustError::BadSecret {
            path,
            reason: "it is not as `runner key new` writes it",
        });
    };
    if secret.public() != *public {
        return Err(TrustError::BadSecret {
            path,
            reason: "it is not the key that `trust.toml` has under this name",
        });
    }
    Ok(Some(secret))
}

/// A plain file for reading, and its mode.
fn open(path: &Path) -> Result<Option<(File, u32)>, TrustError> {
    // Without waiting for a writer, if it is a pipe.
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file = match file {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(TrustError::io("read", path)(error)),
    };
    let metadata = file.metadata().map_err(TrustError::io("read", path))?;
    if !metadata.is_file() {
        let error = io::Error::other("it is not a file");
        return Err(TrustError::io("read", path)(error));
    }
    Ok(Some((file, metadata.mode())))
}

/// Makes the folder with that of the keys, and holds it until the result is dropped, so that
/// of two changes at once none is lost.
pub(super) fn hold(folder: &Path) -> Result<File, TrustError> {
    let keys = folder.join("keys");
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&keys);
    made.map_err(TrustError::io("make", &keys))?;
    let held = File::open(folder).map_err(TrustError::io("open", folder))?;
    // Some network file systems have no locks; two changes in one second are then on their own.
    let _ = held.lock();
    Ok(held)
}

/// Writes a secret key where none is.
///
/// # Errors
/// Of kind `AlreadyExists` if there is one, among others.
pub(super) fn write_secret(folder: &Path, secret: &SecretKey) -> Result<(), TrustError> {
    let path = secret_path(folder, secret.name());
    let new = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path);
    let mut file = new.map_err(TrustError::io("write", &path))?;
    let mut write = || -> io::Result<()> {
        file.write_all(secret.to_file().as_bytes())?;
        file.sync_all()?;
        File::open(folder.join("keys"))?.sync_all()
    };
    write().map_err(|error| {
        let _ = fs::remove_file(&path);
        TrustError::io("write", &path)(error)
    })
}

/// Replaces `trust.toml` at once and for good.
pub(super) fn write_trust(folder: &Path, text: &str) -> Result<(), TrustError> {
    let path = trust_path(folder);
    // The file itself, where a link leads to it.
    let real = fs::canonicalize(&path).unwrap_or_else(|_| path.clone());
    let parent = real.parent().unwrap_or(folder);
    let write = || -> io::Result<()> {
        let mut file = tempfile::Builder::new()
            .prefix(".trust.")
            .permissions(Permissions::from_mode(0o644))
            .tempfile_in(parent)?;
        if let Ok(metadata) = fs::metadata(&real) {
            file.as_file().set_permissions(metadata.permissions())?;
        }
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(&real)?;
        File::open(parent)?.sync_all()
    };
    write().map_err(TrustError::io("write", &path))
}

/// Removes a secret key that was written in vain.
pub(super) fn remove_secret(folder: &Path, name: &str) {
    let _ = fs::remove_file(secret_path(folder, name));
}

/// The names of the secret keys that lie here.
pub(super) fn secret_names(folder: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(folder.join("keys")).into_iter().flatten();
    entries.filter_map(|entry| {
        let name = entry.ok()?.file_name().into_string().ok()?;
        name.strip_suffix(".key").map(str::to_owned)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::{Trust, create};

    /// Environment variables, and the folder that they lead to.
    type Case<'a> = (&'a [(&'a str, &'a str)], Option<&'a str>);

    #[test]
    fn the_folder_is_the_users_and_never_the_projects() {
        let of = |variables: &[(&str, &str)]| {
            of_user(|name| {
                let found = variables.iter().find(|(other, _)| *other == name);
                found.map(|(_, value)| value.into())
            })
        };
        let home = ("HOME", "/home/ana");
        let config = ("XDG_CONFIG_HOME", "/etc/ana");
        let table: &[Case<'_>] = &[
            (&[], None),
            (&[home], Some("/home/ana/.config/runner")),
            (&[home, config], Some("/etc/ana/runner")),
            (&[home, config, ("RUNNER_CONFIG", "/r")], Some("/r")),
            (
                &[home, ("RUNNER_CONFIG", "")],
                Some("/home/ana/.config/runner"),
            ),
            // Named, but from here: no other folder in its place.
            (&[home, ("RUNNER_CONFIG", "here")], None),
            (
                &[home, ("XDG_CONFIG_HOME", "here")],
                Some("/home/ana/.config/runner"),
            ),
            (&[("HOME", "here")], None),
        ];
        for (variables, folder) in table {
            assert_eq!(of(variables), folder.map(PathBuf::from), "{variables:?}");
        }
    }

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_secret_key_is_for_its_owner_alone() {
        let temporary = tempfile::tempdir().unwrap();
        // Nothing is there yet.
        let folder = temporary.path().join("a/b");
        let secret = create(&folder, "ana", None).unwrap().secret;
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!(mode(&secret), 0o600);
        assert_eq!(mode(&folder.join("keys")), 0o700);
        assert!(Trust::load(&folder).unwrap().writer().is_some());
        for exposed in [0o640, 0o604, 0o620, 0o602, 0o601, 0o777] {
            chmod(&secret, exposed);
            let error = Trust::load(&folder).unwrap_err().to_string();
            let hint = format!("hint: chmod 600 {}", secret.display());
            assert!(error.ends_with(&hint), "{exposed:o}: {error}");
        }
        chmod(&secret, 0o400);
        assert!(Trust::load(&folder).unwrap().writer().is_some());
    }

    #[test]
    fn a_list_that_anybody_can_write_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        create(folder.path(), "ana", None).unwrap();
        let path = trust_path(folder.path());
        chmod(&path, 0o666);
        let error = Trust::load(folder.path()).unwrap_err().to_string();
        assert!(
            error.contains("others on this machine may change it"),
            "{error}"
        );
        chmod(&path, 0o664);
        Trust::load(folder.path()).unwrap();
        // A change leaves the mode as it was, and follows a link.
        let real = folder.path().join("kept-elsewhere.toml");
        fs::rename(&path, &real).unwrap();
        std::os::unix::fs::symlink(&real, &path).unwrap();
        create(folder.path(), "ana", None).unwrap();
        assert!(fs::symlink_metadata(&path).unwrap().is_symlink());
        assert_eq!(fs::metadata(&real).unwrap().mode() & 0o777, 0o664);
        assert!(fs::read_to_string(&real).unwrap().contains("ana-2"));
    }

    #[test]
    fn a_secret_key_that_is_missing_or_wrong_signs_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let first = create(folder.path(), "ana", None).unwrap();
        let second = create(folder.path(), "ana", None).unwrap();
        let load = || Trust::load(folder.path());
        let text = fs::read_to_string(&second.secret).unwrap();
        fs::copy(&first.secret, &second.secret).unwrap();
        let error = load().unwrap_err().to_string();
        assert!(
            error.contains("not the key that `trust.toml` has"),
            "{error}"
        );
        for wrong in [
            "",
            "ana-2:",
            &text[1..],
            &format!("{text}\n"),
            &"x".repeat(10_000),
        ] {
            fs::write(&second.secret, wrong).unwrap();
            let error = load().unwrap_err().to_string();
            assert!(
                error.contains("not as `runner key new` writes it"),
                "{error}"
            );
        }
        // An editor may take the last end of line away.
        fs::write(&second.secret, text.trim_end()).unwrap();
        assert_eq!(load().unwrap().writer().unwrap().key.name(), "ana-2");
        fs::remove_file(&second.secret).unwrap();
        let trust = load().unwrap();
        assert!(trust.writer().is_none());
        let reason = trust.cannot_write().unwrap();
        assert!(
            reason.contains("ana-2.key` is not on this machine"),
            "{reason}"
        );
        assert_eq!(trust.domains().collect::<Vec<_>>(), ["ana"]);
        fs::create_dir(&second.secret).unwrap();
        let error = load().unwrap_err().to_string();
        assert!(error.contains("it is not a file"), "{error}");
    }
}
