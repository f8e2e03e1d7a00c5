//! The history of runs, for people: never read as truth.

use serde_json::Value;

use super::{
    Inner, Store, StoreError, check_name, dir::Found, objects::read_exactly, publish::Place,
};

/// The longest run read back, in bytes.
const LONGEST: u64 = 64 << 20;

impl Store {
    /// Saves what is known of the run `id`, replacing what was known of that run before. It is
    /// written whole or not at all, and is on the disk afterwards.
    ///
    /// # Errors
    /// The name is bad, the store is read-only, or the system refused to write.
    pub fn save_run(&self, id: &str, json: &Value) -> Result<(), StoreError> {
        check_name(id)?;
        let text = format!("{json}\n");
        self.0
            .replace("runs", &format!("{id}.json"), text.as_bytes(), true)
    }

    /// Every run that can be read, in the order of their names.
    ///
    /// # Errors
    /// The folder cannot be read. A run that cannot is left out with a warning.
    pub fn runs(&self) -> Result<Vec<(String, Value)>, StoreError> {
        let names = self.0.dir.names_in("runs");
        let mut runs = Vec::new();
        for name in names.map_err(|error| self.0.io("read", "runs", error))? {
            let Some(id) = name.strip_suffix(".json") else {
                continue;
            };
            let path = format!("runs/{name}");
            match self.0.document(&path) {
                Ok(Some(json)) => runs.push((id.to_owned(), json)),
                Ok(None) => {}
                Err(reason) => self.0.warn(&path, &reason),
            }
        }
        Ok(runs)
    }
}

impl Inner {
    /// Writes a file whole in place of what is there.
    pub(super) fn replace(
        &self,
        folder: &str,
        name: &str,
        bytes: &[u8],
        durable: bool,
    ) -> Result<(), StoreError> {
        let durable = durable && self.durable;
        let tmp = self.tmp_with(bytes)?;
        self.overwrite(&Place::new(folder, name), tmp, 0o644, durable)
    }

    /// The JSON in the file at `path`, nothing if there is no file, or what is wrong with it.
    pub(super) fn document(&self, path: &str) -> Result<Option<Value>, String> {
        let (file, identity) = match self.dir.look(path).map_err(|error| error.to_string())? {
            Found::Absent => return Ok(None),
            Found::Strange(what, _) => return Err(what),
            Found::File(file, identity) => (file, identity),
        };
        if identity.size > LONGEST {
            return Err("it is too long".to_owned());
        }
        let bytes = read_exactly(file, identity.size).map_err(|error| error.to_string())?;
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| error.to_string())
    }
}
