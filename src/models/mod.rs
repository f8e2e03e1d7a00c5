//! The models and what feeds them: text, pixels and tensors in and out.

pub mod adamw;
pub mod device;
pub mod clip;
pub mod image;
pub mod weights;
