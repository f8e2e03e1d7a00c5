//! Texts that CLIP's tokenizer cuts, or that its references may read otherwise.

use anyhow::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    models::clip::tokenizer::TooLong,
    node::{Ctx, Inputs},
};

/// What becomes of texts that are too long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum LongText {
    /// Their last tokens are cut off.
    #[default]
    Cut,
    /// They are an error.
    Refuse,
}

/// Texts that a person should know of.
pub(super) struct Doubtful<'t> {
    /// The most tokens that the model takes.
    context: usize,
    cut: Vec<&'t str>,
    /// A warning each.
    unsure: Vec<String>,
}

impl Doubtful<'_> {
    /// Warns of them, one line for each kind.
    pub(super) fn warn(&self, ctx: &Ctx<'_>) {
        if let Some(first) = self.cut.first() {
            let start: String = first.chars().take(60).collect();
            (ctx.warn)(format!(
                "{} of the texts have more than {} tokens and are cut, among them `{start}…`\nhint: shorten them, or say too_long = \"refuse\"",
                self.cut.len(),
                self.context
            ));
        }
        if let Some(first) = self.unsure.first() {
            let more = match self.unsure.len() {
                1 => String::new(),
                n => format!(" ({} more texts are like it)", n - 1),
            };
            (ctx.warn)(format!("{first}{more}"));
        }
    }
}

/// Which texts are cut, and which the reference might read otherwise.
///
/// # Errors
/// When a text is too long and such are refused.
pub(super) fn doubtful<'t>(
    inputs: &Inputs,
    too_long: LongText,
    texts: impl Iterator<Item = &'t str>,
) -> Result<Doubtful<'t>> {
    let checkpoint = inputs.model("model")?.checkpoint()?;
    let tokenizer = checkpoint.tokenizer(match too_long {
        LongText::Cut => TooLong::Cut,
        LongText::Refuse => TooLong::Refuse,
    })?;
    let mut found = Doubtful {
        context: checkpoint.config().text.context,
        cut: Vec::new(),
        unsure: Vec::new(),
    };
    for text in texts {
        let tokens = tokenizer.tokenize(text, found.context)?;
        if tokens.truncated {
            found.cut.push(text);
        }
        found
            .unsure
            .extend(tokens.unsure.map(|why| why.warning(text)));
    }
    Ok(found)
}
