//! The list of kinds: a new one is a file here and a line below.

#[cfg(test)]
mod in_memory;
mod similarity;
mod template;
mod vectors;

use crate::node::KindInfo;

macro_rules! kinds {
    ($($module:ident::$params:ident,)*) => {
        $(mod $module;)*
        /// Every kind, hidden ones included.
        pub const KINDS: &[KindInfo] = &[$(KindInfo::of::<$module::$params>(),)*];
    };
}

kinds! {
    llm_generate::LlmGenerate,
    clip_encode::ClipEncode,
    greedy_select::GreedySelect,
    cosine_rank::CosineRank,
    zeroshot_eval::ZeroshotEval,
    finetune::Finetune,
    probe::Probe,
}

/// The kind called `name`.
pub fn kind(name: &str) -> Option<&'static KindInfo> {
    KINDS.iter().find(|kind| kind.name == name)
}
