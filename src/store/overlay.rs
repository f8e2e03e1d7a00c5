//! A cache that can only be read, with a folder of one's own over it: what is computed goes into
//! the folder, and what is not there is looked for beneath.

use super::{Inner, Store, StoreError, items::space_path, publish::Place};
use crate::digest::Digest;

impl Store {
    /// Looks for what is not in this store in `beneath`, which is never written to.
    pub fn put_over(&self, beneath: Self) {
        // A second call of the same process changes nothing.
        let _ = self.0.beneath.set(beneath);
    }
}

impl Inner {
    /// Copies the packs of `space` that lie beneath and are not here; readers see one folder.
    pub(super) fn lift_packs(&self, space: &Digest) -> Result<(), StoreError> {
        let Some(Store(beneath)) = self.beneath.get() else {
            return Ok(());
        };
        let folder = space_path(space);
        for name in beneath.dir.names_in(&folder).unwrap_or_default() {
            let place = Place::new(&folder, &name);
            let path = place.path();
            let Ok(digest) = name.parse::<Digest>() else {
                continue;
            };
            if self.dir.size(&path).ok().flatten().is_some() {
                continue;
            }
            let Some(bytes) = beneath.bytes_of(&path, u64::MAX) else {
                continue;
            };
            let size = bytes.len() as u64;
            let judge = |path: &str| self.judge_pack(path, &digest, Some(size));
            self.publish(&place, self.tmp_with(&bytes)?, &judge)?;
        }
        Ok(())
    }
}
