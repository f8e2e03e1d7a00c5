//! One shared cache: reached or not, of a known format or not.

use std::{
    collections::HashSet,
    path::Path,
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use super::RemoteOptions;
use crate::{
    digest::Digest,
    store::{
        FORMAT, StoreError, lock,
        remote::{self, Fault, OpenError, Remote},
    },
};

/// The longest `FORMAT` read.
const FORMAT_LONGEST: u64 = 64;

/// A shared cache and what this process learnt about it.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) remote: Box<dyn Remote>,
    pub(super) write: bool,
    /// What its memory in the local store is called.
    pub(super) id: String,
    /// The first answer: nothing when it is a cache of ours, or why it is left alone.
    state: OnceLock<Result<(), String>>,
    /// Whether `FORMAT` is known to be there.
    founded: AtomicBool,
    /// Objects that it has under their names with other bytes.
    pub(super) bad: Mutex<HashSet<Digest>>,
}

impl Peer {
    pub(super) fn open(options: &RemoteOptions, base: &Path) -> Result<Self, StoreError> {
        let remote = remote::open(&options.name, &options.url, base, !options.write);
        let remote = match remote {
            Ok(remote) => remote,
            // No reason to compute nothing: a run goes on without it.
            Err(OpenError::Unusable(reason)) => remote::unusable(&options.name, reason),
            Err(OpenError::Store(error)) => return Err(error),
            Err(error @ OpenError::Address { .. }) => {
                return Err(StoreError::Address(error.to_string()));
            }
        };
        Ok(Self {
            remote,
            write: options.write,
            id: Digest::of(options.url.as_bytes()).to_string()[..16].to_owned(),
            state: OnceLock::new(),
            founded: AtomicBool::new(false),
            bad: Mutex::default(),
        })
    }

    pub(super) fn name(&self) -> &str {
        self.remote.name()
    }

    /// Whether it answers and is a cache that this version knows; asked once.
    pub(super) fn reach(&self) -> Result<(), String> {
        self.state.get_or_init(|| self.look()).clone()
    }

    fn look(&self) -> Result<(), String> {
        let ours = format!("runner-cache {FORMAT} blake3\n");
        match self.remote.get("FORMAT", FORMAT_LONGEST) {
            Ok(Some(found)) if found == ours.as_bytes() => {
                self.founded.store(true, Ordering::Relaxed);
                Ok(())
            }
            Ok(Some(_)) => Err("its `FORMAT` is none that this version knows".to_owned()),
            // Empty so far; whoever uploads first makes it one.
            Ok(None) => Ok(()),
            Err(fault) => Err(fault.to_string()),
        }
    }

    /// Writes `FORMAT` if it is not there, before anything else is uploaded.
    pub(super) fn found(&self) -> Result<(), Fault> {
        if self.founded.load(Ordering::Relaxed) {
            return Ok(());
        }
        let ours = format!("runner-cache {FORMAT} blake3\n");
        let body = remote::Body::Bytes(ours.as_bytes());
        self.remote.put_new("FORMAT", body)?;
        self.founded.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// What changes with every collection there; zeros before the first one, or when it cannot
    /// be asked.
    pub(super) fn epoch(&self) -> [u8; 32] {
        let told = self.reach().ok().and_then(|()| {
            let text = self.remote.get("epoch", FORMAT_LONGEST);
            text.ok().flatten()
        });
        told.map_or([0; 32], |text| *Digest::of(&text).as_bytes())
    }

    /// Notes that an object is there with other bytes than its name says.
    pub(super) fn distrust(&self, digest: &Digest) {
        lock(&self.bad).insert(*digest);
    }

    pub(super) fn distrusts(&self, digest: &Digest) -> bool {
        lock(&self.bad).contains(digest)
    }
}
