//! Published sets of prompt templates, by name.
//!
//! `OpenAI`'s (MIT): the 18 for CIFAR of `data/prompts.md`, the 80 for `ImageNet`
//! and the 7 that do nearly as well, both of the notebook `Prompt_Engineering_for_ImageNet`;
//! `open_clip` carries the same two.

use std::{collections::BTreeMap, sync::OnceLock};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

const SETS: &str = include_str!("prompt_sets.json");

/// The name of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum PromptSet {
    /// The 18 for CIFAR-10 and CIFAR-100: "a blurry photo of a …".
    Cifar18,
    /// The 7 for `ImageNet` that were chosen from the 80: "itap of a …".
    Imagenet7,
    /// The 80 for `ImageNet`.
    Imagenet80,
}

impl PromptSet {
    /// Its templates, in the published order.
    pub(super) fn templates(self) -> &'static [String] {
        static ALL: OnceLock<BTreeMap<String, Vec<String>>> = OnceLock::new();
        let all = ALL.get_or_init(|| serde_json::from_str(SETS).unwrap_or_default());
        let name = match self {
            Self::Cifar18 => "cifar",
            Self::Imagenet7 => "imagenet7",
            Self::Imagenet80 => "imagenet80",
        };
        all.get(name).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_sets_have_their_published_sizes_and_speak_of_the_class() {
        for (set, size, first) in [
            (PromptSet::Cifar18, 18, "a photo of a {{ class }}."),
            (PromptSet::Imagenet7, 7, "itap of a {{ class }}."),
            (PromptSet::Imagenet80, 80, "a bad photo of a {{ class }}."),
        ] {
            let templates = set.templates();
            assert_eq!(templates.len(), size);
            assert_eq!(templates[0], first);
            assert!(templates.iter().all(|t| t.contains("{{ class }}")));
            assert_eq!(templates.iter().collect::<BTreeSet<_>>().len(), size);
        }
    }
}
