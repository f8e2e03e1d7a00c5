//! What is in training, kept from one epoch to the next so that it need not be
//! loaded and restored again. Nothing depends on whether it is there.

use std::{fmt, sync::Mutex};

use serde_json::Value;

use crate::digest::Digest;

/// The training of the last epoch, for the next one.
pub(super) struct Held<T>(Mutex<Option<Last<T>>>);

struct Last<T> {
    training: T,
    /// What its results depend on.
    space: Value,
    /// Digest of what its last epoch gave.
    value: Digest,
}

impl<T> Held<T> {
    /// Keeps `training` of `space`, whose last epoch gave `value`.
    pub(super) fn put(&self, training: T, space: Value, value: &[u8]) {
        if let Ok(mut held) = self.0.lock() {
            let value = Digest::of(value);
            *held = Some(Last {
                training,
                space,
                value,
            });
        }
    }

    /// The training of `space` whose last epoch gave `value`; any other is let go.
    pub(super) fn take(&self, space: &Value, value: Option<&[u8]>) -> Option<T> {
        let last = self.0.lock().ok()?.take()?;
        let goes_on = last.space == *space && value.map(Digest::of) == Some(last.value);
        goes_on.then_some(last.training)
    }

    /// Lets go of what is kept.
    pub(super) fn clear(&self) {
        if let Ok(mut held) = self.0.lock() {
            *held = None;
        }
    }
}

impl<T> Default for Held<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T> fmt::Debug for Held<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Held")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_the_training_that_goes_on_is_given_back_and_only_once() {
        let (space, other) = (json!({"seed": 1}), json!({"seed": 2}));
        let held = Held::default();
        held.put("a", space.clone(), b"epoch 0");
        assert_eq!(held.take(&space, Some(b"epoch 0")), Some("a"));
        assert_eq!(held.take(&space, Some(b"epoch 0")), None);
        for (space, value) in [
            (&other, Some(b"epoch 0".as_slice())),
            (&space, Some(b"epoch 1")),
            (&space, None),
        ] {
            held.put("a", json!({"seed": 1}), b"epoch 0");
            assert_eq!(held.take(space, value), None);
        }
        held.put("a", space.clone(), b"epoch 0");
        held.clear();
        assert_eq!(held.take(&space, Some(b"epoch 0")), None);
    }
}
