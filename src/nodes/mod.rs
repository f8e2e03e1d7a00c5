//! The list of kinds: a new one is a file here and a line below.

mod template;

use crate::node::KindInfo;

macro_rules! kinds {
    ($($module:ident::$params:ident,)*) => {
        $(mod $module;)*
        /// Every kind, hidden ones included.
        pub const KINDS: &[KindInfo] = &[$(KindInfo::of::<$module::$params>(),)*];
    };
}

kinds! {
    clip_encode::ClipEncode,
    finetune::Finetune,
    llm_generate::LlmGenerate,
    probe::Probe,
}

/// The kind called `name`.
pub fn kind(name: &str) -> Option<&'static KindInfo> {
    KINDS.iter().find(|kind| kind.name == name)
}
