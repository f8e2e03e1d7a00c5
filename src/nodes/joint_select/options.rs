//! What each class can choose from: its plain prompt and every text of several
//! lists, each known by the attributes that it carries.

use anyhow::{Context, Result, bail, ensure};

use crate::{
    artifact::{Attributes, Embeddings},
    nodes::{
        listed,
        vectors::{class_vectors, variants},
    },
};

/// A text that a class can choose.
#[derive(Debug)]
pub(super) struct Choice<'a> {
    /// The attributes that it carries, in order; none for a plain prompt.
    pub(super) attributes: &'a [String],
    /// Its embedding, or the renormalised mean over templates.
    pub(super) vector: Vec<f32>,
}

impl Choice<'_> {
    /// The attributes in words, empty when there is none.
    pub(super) fn name(&self) -> String {
        self.attributes.join(", ")
    }
}

/// The plain prompt of each class, with the attributes that it may carry.
///
/// # Errors
/// When a class has no text, or texts of different attributes, which are no
/// templates of one prompt.
pub(super) fn plain<'a>(port: &str, texts: &'a Embeddings) -> Result<Vec<Choice<'a>>> {
    let vectors = class_vectors(port, texts)?;
    vectors
        .into_iter()
        .enumerate()
        .map(|(class, vector)| {
            let mut rows = texts.rows.iter().filter(|row| row.class_index == class);
            let first = rows.next().map_or(&[][..], |row| &row.attributes);
            ensure!(
                rows.all(|row| row.attributes == first),
                "the texts of class `{}` in `{port}` carry different attributes\nhint: `{port}` takes one prompt a class; connect a list of them to `candidates`",
                texts.classes[class]
            );
            Ok(Choice {
                attributes: first,
                vector,
            })
        })
        .collect()
}

/// The options of each class: those of `first`, then the texts of all `lists`. A
/// text whose attributes an earlier one carries is left out: a result could not
/// tell them apart.
///
/// # Errors
/// When the templates of a text cancel each other out.
pub(super) fn options<'a>(
    first: Vec<Option<Choice<'a>>>,
    lists: &'a [Embeddings],
    warn: &dyn Fn(String),
) -> Result<Vec<Vec<Choice<'a>>>> {
    let mut options: Vec<Vec<Choice<'a>>> = first
        .into_iter()
        .map(|choice| choice.into_iter().collect())
        .collect();
    let mut unlike = Vec::new();
    for texts in lists {
        for ((options, class), found) in
            options.iter_mut().zip(&texts.classes).zip(variants(texts)?)
        {
            for text in found {
                match options.iter().find(|o| o.attributes == text.attributes) {
                    None => options.push(Choice {
                        attributes: text.attributes,
                        vector: text.vector,
                    }),
                    Some(known) if known.vector != text.vector => unlike.push(class.as_str()),
                    Some(_) => {}
                }
            }
        }
    }
    if !unlike.is_empty() {
        unlike.dedup();
        unlike.sort_unstable();
        unlike.dedup();
        warn(format!(
            "{} has different texts with the same attributes, of which the first counts\nhint: make the texts of `baseline` and `candidates` from the same template",
            listed(&unlike)
        ));
    }
    Ok(options)
}

/// The option of each class that carries the attributes which `start` gives it.
///
/// # Errors
/// When `start` is about other classes, or no option carries just these attributes.
pub(super) fn starting(
    start: &Attributes,
    classes: &[String],
    options: &[Vec<Choice<'_>>],
) -> Result<Vec<usize>> {
    if let Some(other) = start.classes.iter().find(|c| !classes.contains(&c.class)) {
        bail!(
            "`start` chooses for class `{}`, which `images` does not list",
            other.class
        );
    }
    let choice = |(class, options): (&String, &Vec<Choice<'_>>)| {
        let entry = start.classes.iter().find(|entry| entry.class == *class);
        let entry = entry.with_context(|| {
            format!("`start` chooses nothing for class `{class}`\nhint: let `start` name a node with the same classes")
        })?;
        let found = options
            .iter()
            .position(|option| option.attributes == entry.attributes);
        found.with_context(|| match entry.attributes.as_slice() {
            [] => format!("class `{class}` starts without attributes, but each of its options carries some\nhint: say allow_none = true"),
            some => {
                let some: Vec<&str> = some.iter().map(String::as_str).collect();
                format!(
                    "class `{class}` starts with {}, but none of its options carries just that\nhint: connect the texts from which `start` was chosen to `candidates` too",
                    listed(&some)
                )
            }
        })
    };
    classes.iter().zip(options).map(choice).collect()
}
