//! JSON Schema of pipeline files, for completion in editors.

use serde_json::{Value, json};

/// The schema of a whole file.
pub fn schema() -> Value {
    json!({})
}
