//! The list of kinds: a new one is a file here and a line below.

mod candidate_pool;
mod doubtful;
mod draw;
mod epochs;
mod held;
#[cfg(test)]
mod in_memory;
mod labelled;
mod prompt_set;
mod rivals;
mod similarity;
mod template;
mod vectors;
mod verdicts;

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
    joint_select::JointSelect,
    cosine_rank::CosineRank,
    zeroshot_eval::ZeroshotEval,
    pooled_eval::PooledEval,
    attribute_list::AttributeList,
    take::Take,
    swap_attributes::SwapAttributes,
    random_words::RandomWords,
    linear_probe::LinearProbe,
    finetune::Finetune,
    coop::Coop,
    probe::Probe,
}

/// The kind called `name`.
pub fn kind(name: &str) -> Option<&'static KindInfo> {
    KINDS.iter().find(|kind| kind.name == name)
}

/// `` `a`, `b` and 3 more `` for messages about several classes.
fn listed(names: &[&str]) -> String {
    let shown: Vec<String> = names
        .iter()
        .take(4)
        .map(|name| format!("`{name}`"))
        .collect();
    match names.len() {
        0..=4 => shown.join(", "),
        n => format!("{} and {} more", shown.join(", "), n - 4),
    }
}
