//! A remote that cannot be used on this machine, as what the environment or the user's files say
//! does not allow it: it answers every question with the reason.

use std::io::Write;

use super::{Body, Entry, Fault, Remote};

/// A remote that is not asked anything.
#[derive(Debug)]
pub(super) struct Unusable {
    pub(super) name: String,
    pub(super) reason: String,
}

impl Unusable {
    fn refuse<T>(&self) -> Result<T, Fault> {
        Err(Fault::Denied(self.reason.clone()))
    }
}

impl Remote for Unusable {
    fn name(&self) -> &str {
        &self.name
    }

    fn get(&self, _path: &str, _most: u64) -> Result<Option<Vec<u8>>, Fault> {
        self.refuse()
    }

    fn read(&self, _path: &str, _size: u64, _sink: &mut dyn Write) -> Result<bool, Fault> {
        self.refuse()
    }

    fn put_new(&self, _path: &str, _body: Body<'_>) -> Result<bool, Fault> {
        self.refuse()
    }

    fn replace(&self, _path: &str, _bytes: &[u8]) -> Result<(), Fault> {
        self.refuse()
    }

    fn stat(&self, _path: &str) -> Result<Option<Entry>, Fault> {
        self.refuse()
    }

    fn list(&self, _folder: &str, _most: usize) -> Result<Vec<Entry>, Fault> {
        self.refuse()
    }

    fn remove(&self, _path: &str) -> Result<(), Fault> {
        self.refuse()
    }

    fn now(&self) -> Result<i64, Fault> {
        self.refuse()
    }
}
