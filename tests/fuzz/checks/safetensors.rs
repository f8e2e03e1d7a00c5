//! The gate of safetensors: what it takes, the format's own crate takes, with the same tensors.

use runner::models::weights::{Format, Weights};
use safetensors::SafeTensors;

/// The bytes are a file.
pub fn check(bytes: &[u8]) -> bool {
    super::in_file("model.safetensors", bytes, |path| {
        let Ok(mut weights) = Weights::open(path) else {
            return false;
        };
        if weights.format() != Format::Safetensors {
            return false;
        }
        let raw = super::weights::hold(&mut weights, path);
        let reference = SafeTensors::deserialize(bytes).unwrap();
        assert_eq!(reference.len(), raw.len() + weights.integers().len());
        for tensor in &raw {
            let other = reference.tensor(&tensor.name).unwrap();
            assert_eq!(other.dtype().to_string(), tensor.dtype);
            assert_eq!(other.shape(), tensor.shape);
            assert_eq!(other.data(), tensor.bytes);
        }
        for (name, value) in weights.integers() {
            let other = reference.tensor(name).unwrap();
            assert_eq!(other.data(), value.to_le_bytes());
        }
        true
    })
}
