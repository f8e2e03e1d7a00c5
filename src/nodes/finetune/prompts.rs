//! The texts of each class, and which of them an epoch takes.

use anyhow::{Context, Result, ensure};

use crate::{artifact::Embeddings, node::Inputs, nodes::draw::Draw};

/// The texts of each class behind `port`, in row order.
pub(super) fn texts(inputs: &Inputs, port: &str) -> Result<Vec<Vec<String>>> {
    let rows: Embeddings = inputs.artifact(port)?;
    let mut prompts = vec![Vec::new(); rows.classes.len()];
    for row in rows.rows {
        let text = row
            .text
            .with_context(|| format!("`{port}` does not hold texts"))?;
        prompts
            .get_mut(row.class_index)
            .context("a prompt belongs to no class")?
            .push(text);
    }
    for (class, texts) in rows.classes.iter().zip(&prompts) {
        ensure!(
            !texts.is_empty(),
            "class `{class}` has no text in `{port}`\nhint: the LLM gave no valid answer for it, or its candidates were left out"
        );
    }
    Ok(prompts)
}

/// One prompt for each class.
pub(super) fn pick(prompts: &[Vec<String>], draw: &mut Draw) -> Vec<String> {
    prompts
        .iter()
        .map(|texts| match texts.as_slice() {
            [one] => one.clone(),
            many => many[draw.below(many.len())].clone(),
        })
        .collect()
}
