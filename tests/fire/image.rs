//! A small ext4 file system in a file, whose power can be cut: needs root and `/dev/loop`.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::Command,
    thread::sleep,
    time::Duration,
};

/// The request that shuts an ext4 file system down (`EXT4_IOC_SHUTDOWN`).
const SHUTDOWN: u32 = 0x8004_587d;

/// What becomes of what the journal holds when the power is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// It is written first: names may be there whose bytes are not.
    KeepJournal = 1,
    /// It is lost: what was not forced to the disk is gone.
    DropJournal = 2,
}

/// An image in a folder of its own, unmounted when dropped.
pub(super) struct Image {
    folder: tempfile::TempDir,
    mounted: bool,
}

/// Runs a command; what it said if it failed.
fn run(program: &str, args: &[&str], good: &[i32]) -> Result<(), String> {
    let output = Command::new(program)
        .args(args)
        .output()
        .map_err(|error| format!("`{program}` cannot be run ({error})"))?;
    if output
        .status
        .code()
        .is_some_and(|code| good.contains(&code))
    {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text.trim().lines().next().unwrap_or_default().to_owned();
    Err(format!("`{program}` failed: {line}"))
}

impl Image {
    /// A new, empty, mounted one of this size, or why there can be none here.
    pub(super) fn new(megabytes: u64) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let mut image = Self {
            folder,
            mounted: false,
        };
        let file = File::create(image.file()).map_err(|error| error.to_string())?;
        file.set_len(megabytes << 20)
            .map_err(|error| error.to_string())?;
        drop(file);
        fs::create_dir(image.root()).map_err(|error| error.to_string())?;
        let file = image.file();
        let args = ["-q", "-F", "-N", "6000", file.to_str().unwrap_or_default()];
        run("mkfs.ext4", &args, &[0])?;
        image.mount()?;
        Ok(image)
    }

    /// One whose power can be cut, or why there can be none here.
    pub(super) fn that_can_be_cut() -> Result<Self, String> {
        let mut image = Self::new(24)?;
        image.cut(Cut::DropJournal)?;
        image.repair()?;
        Ok(image)
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("image")
    }

    /// Where it is mounted.
    pub(super) fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    fn mount(&mut self) -> Result<(), String> {
        let (file, root) = (self.file(), self.root());
        let (Some(file), Some(root)) = (file.to_str(), root.to_str()) else {
            return Err("the temporary folder has a strange name".to_owned());
        };
        // The loop device goes with the last mount.
        run("mount", &["-o", "loop", file, root], &[0])?;
        self.mounted = true;
        Ok(())
    }

    fn unmount(&mut self) -> Result<(), String> {
        let root = self.root();
        let root = root.to_str().unwrap_or_default();
        let mut result = Ok(());
        for _ in 0..100 {
            result = run("umount", &[root], &[0]);
            if result.is_ok() {
                self.mounted = false;
                break;
            }
            // A writer that was just killed may still hold it.
            sleep(Duration::from_millis(50));
        }
        result
    }

    /// Cuts the power: from here on nothing reaches the disk.
    pub(super) fn cut(&self, cut: Cut) -> Result<(), String> {
        let handle = self.root();
        let handle = handle.to_str().unwrap_or_default();
        let (request, mode) = (SHUTDOWN.to_string(), (cut as u32).to_string());
        let python = "import fcntl, os, struct, sys\n\
             f = os.open(sys.argv[1], os.O_RDONLY)\n\
             fcntl.ioctl(f, int(sys.argv[2]), struct.pack('I', int(sys.argv[3])))";
        let perl = "opendir(my $d, $ARGV[0]) or die $!; my $mode = pack('L', $ARGV[2]); \
             ioctl($d, $ARGV[1], $mode) or die $!";
        run("perl", &["-e", perl, handle, &request, &mode], &[0])
            .or_else(|_| run("python3", &["-c", python, handle, &request, &mode], &[0]))
    }

    /// Starts the machine again: unmounts, checks and mends the file system, and mounts it.
    pub(super) fn repair(&mut self) -> Result<(), String> {
        self.unmount()?;
        let file = self.file();
        run(
            "e2fsck",
            &["-fy", file.to_str().unwrap_or_default()],
            &[0, 1],
        )?;
        self.mount()
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        if self.mounted && self.unmount().is_err() {
            let root = self.root();
            let _ = run("umount", &["-l", root.to_str().unwrap_or_default()], &[0]);
        }
    }
}
