//! Labelled images behind a port, or a part of them.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};

use crate::{
    artifact::{Embeddings, LabelUse, Part},
    node::{Ctx, Inputs},
    nodes::{
        listed,
        vectors::{labels, sound},
    },
};

/// Embeddings of images with the label of each.
pub(super) struct LabelledImages {
    /// The images that were asked for.
    pub(super) embeddings: Embeddings,
    /// Class of each.
    pub(super) labels: Vec<usize>,
    /// Place of each in its split.
    pub(super) places: Vec<usize>,
    /// Whose labels these are.
    pub(super) labels_of: LabelUse,
}

impl LabelledImages {
    /// The images of `part` behind `port`.
    ///
    /// # Errors
    /// When they are no sound embeddings, have no labels, or the part is empty.
    pub(super) fn read(inputs: &Inputs, port: &str, part: Part) -> Result<Self> {
        let whole: Embeddings = inputs.artifact(port)?;
        sound(port, &whole)?;
        let (all, labels_of) = labels(port, &whole)?;
        let places = part.places(&all);
        ensure!(
            !places.is_empty(),
            "`rows = \"{part}\"` leaves none of the {} images of `{port}`",
            all.len()
        );
        let embeddings = if part.is_all() {
            whole
        } else {
            Embeddings {
                data: places.iter().flat_map(|i| whole.row(*i).to_vec()).collect(),
                rows: places.iter().map(|i| whole.rows[*i].clone()).collect(),
                ..whole
            }
        };
        Ok(Self {
            embeddings,
            labels: places.iter().map(|place| all[*place]).collect(),
            places,
            labels_of: LabelUse {
                rows: part.to_string(),
                ..labels_of
            },
        })
    }

    /// Each image's embedding.
    pub(super) fn vectors(&self) -> Vec<&[f32]> {
        self.embeddings
            .data
            .chunks_exact(self.embeddings.dim)
            .collect()
    }

    /// Tells which classes have no image among these, so that nothing about them
    /// can be judged.
    pub(super) fn warn_absent(&self, port: &str, ctx: &Ctx<'_>) {
        let seen: BTreeSet<usize> = self.labels.iter().copied().collect();
        let classes = self.embeddings.classes.iter().enumerate();
        let absent: Vec<&str> = classes
            .filter(|(class, _)| !seen.contains(class))
            .map(|(_, name)| name.as_str())
            .collect();
        if !absent.is_empty() {
            let rows = &self.labels_of.rows;
            let part = if rows == "all" {
                String::new()
            } else {
                format!(" ({rows})")
            };
            (ctx.warn)(format!(
                "`{port}`{part} holds no image of {}",
                listed(&absent)
            ));
        }
    }

    /// Each image's name.
    pub(super) fn names(&self) -> Vec<String> {
        let names = self.embeddings.rows.iter().map(|row| row.image.clone());
        names.map(Option::unwrap_or_default).collect()
    }
}
