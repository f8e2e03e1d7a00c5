//! Pins: names under which keys are kept from collection.

use std::collections::BTreeMap;

use serde_json::json;

use super::{Inner, Store, StoreError, check_name};
use crate::digest::Digest;

impl Store {
    /// Keeps the records of `keys`, with their objects, and the items of spaces among `keys`,
    /// from collection under `name`; replaces what that name kept before.
    ///
    /// # Errors
    /// The name is bad, the store is read-only, or the system refused to write.
    pub fn pin(&self, name: &str, keys: &[Digest]) -> Result<(), StoreError> {
        check_name(name)?;
        let text = format!("{}\n", json!({ "keys": keys }));
        self.0.replace("pins", name, text.as_bytes(), true)
    }

    /// Removes a pin; says whether there was one.
    ///
    /// # Errors
    /// The name is bad, the store is read-only, or the system refused.
    pub fn unpin(&self, name: &str) -> Result<bool, StoreError> {
        check_name(name)?;
        if self.0.read_only {
            return Err(StoreError::ReadOnly(self.0.root.clone()));
        }
        let path = format!("pins/{name}");
        if self.0.dir.file_id(&path).is_none() {
            return Ok(false);
        }
        let removed = self.0.folder("pins").and_then(|pins| pins.unlink(name));
        removed.map_err(|error| self.0.io("remove", &path, error))?;
        Ok(true)
    }

    /// Every pin and the keys it keeps.
    ///
    /// # Errors
    /// A pin cannot be read: what it keeps is not known then.
    pub fn pins(&self) -> Result<BTreeMap<String, Vec<Digest>>, StoreError> {
        let names = self.0.dir.names_in("pins");
        let names = names.map_err(|error| self.0.io("read", "pins", error))?;
        let list = |name: String| Ok((name.clone(), self.pin_list(&name)?));
        names.into_iter().map(list).collect()
    }

    pub(super) fn pin_list(&self, name: &str) -> Result<Vec<Digest>, StoreError> {
        self.0
            .pinned(name)
            .ok_or_else(|| StoreError::BadPins(name.to_owned()))
    }
}

impl Inner {
    fn pinned(&self, name: &str) -> Option<Vec<Digest>> {
        let json = self.document(&format!("pins/{name}")).ok()??;
        serde_json::from_value(json.get("keys")?.clone()).ok()
    }
}
