//! Attention's memory: what the rows of a batch have seen, on the host or on the device.

use std::sync::Arc;

use super::{kv_device, kv_host};

/// A prompt that has been read: its keys and values, and what comes next.
#[derive(Clone, Debug)]
pub(super) struct Prompt {
    pub(super) memory: PromptMemory,
    /// Logits after the last token.
    pub(super) logits: Arc<[f32]>,
}

/// Keys and values of one prompt.
#[derive(Clone, Debug)]
pub(super) enum PromptMemory {
    Host(Arc<kv_host::Run>),
    Device(kv_device::Prompt),
}

/// Keys and values of the rows being answered.
#[derive(Debug)]
pub(super) enum Kv {
    Host(Vec<kv_host::Row>),
    Device(kv_device::Kv),
}
