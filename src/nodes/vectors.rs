//! Embeddings of several ports brought together: the same classes, the same
//! number of dimensions, sound numbers, one vector a class.

use anyhow::{Context, Result, bail, ensure};

use crate::artifact::{Embeddings, LabelUse};

/// How far the squared length of a normalised row may be from 1: what bf16 leaves.
const SLACK: f64 = 0.02;

/// Checks that the embeddings behind `port` are finite vectors of length 1, each
/// of a known class. There may be none: a class list without candidates.
pub(super) fn sound(port: &str, embeddings: &Embeddings) -> Result<()> {
    let classes = &embeddings.classes;
    ensure!(!classes.is_empty(), "`{port}` lists no class");
    ensure!(
        embeddings.data.len() == embeddings.len() * embeddings.dim,
        "`{port}` has {} numbers for {} rows of {}",
        embeddings.data.len(),
        embeddings.len(),
        embeddings.dim
    );
    for (i, row) in embeddings.rows.iter().enumerate() {
        let what = || {
            let name = row.text.as_ref().or(row.image.as_ref());
            format!(
                "row {i} of `{port}` (`{}`)",
                name.map_or("", String::as_str)
            )
        };
        ensure!(
            row.class_index < classes.len(),
            "{} is of class {}, but `{port}` lists {} classes",
            what(),
            row.class_index,
            classes.len()
        );
        let numbers = embeddings.row(i);
        ensure!(
            numbers.iter().all(|x| x.is_finite()),
            "{} holds a number that is not finite\nhint: check the weights, or give the model dtype = \"f32\"",
            what()
        );
        let square: f64 = numbers.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
        ensure!(
            (square - 1.0).abs() <= SLACK,
            "{} has length {:.3}, but embeddings have length 1",
            what(),
            square.sqrt()
        );
    }
    Ok(())
}

/// The label of each image, and whose labels they are.
pub(super) fn labels(port: &str, images: &Embeddings) -> Result<(Vec<usize>, LabelUse)> {
    ensure!(!images.is_empty(), "`{port}` holds no image");
    let labels_of = images
        .labels_of
        .clone()
        .with_context(|| format!("the images of `{port}` have no labels"))?;
    Ok((
        images.rows.iter().map(|row| row.class_index).collect(),
        labels_of,
    ))
}

/// Checks that two ports are about the same classes and of the same model.
pub(super) fn agree(a: (&str, &Embeddings), b: (&str, &Embeddings)) -> Result<()> {
    let ((port_a, a), (port_b, b)) = (a, b);
    ensure!(
        a.dim == b.dim || a.is_empty() || b.is_empty(),
        "`{port_a}` has embeddings of {} dimensions, and `{port_b}` of {}\nhint: encode both with the same model",
        a.dim,
        b.dim
    );
    let hint = "hint: give both `clip_encode` nodes the same data set or `classes`";
    if let Some(i) =
        (0..a.classes.len().min(b.classes.len())).find(|i| a.classes[*i] != b.classes[*i])
    {
        bail!(
            "`{port_a}` and `{port_b}` list different classes: class {i} is `{}` in `{port_a}` and `{}` in `{port_b}`\n{hint}",
            a.classes[i],
            b.classes[i]
        );
    }
    ensure!(
        a.classes.len() == b.classes.len(),
        "`{port_a}` lists {} classes, and `{port_b}` {}\n{hint}",
        a.classes.len(),
        b.classes.len()
    );
    Ok(())
}

/// One vector for each class: its only row, or the renormalised mean of its rows.
pub(super) fn class_vectors(port: &str, texts: &Embeddings) -> Result<Vec<Vec<f32>>> {
    let rows = rows_by_class(port, texts)?;
    rows.iter()
        .zip(&texts.classes)
        .map(|(rows, class)| {
            mean(texts, rows).with_context(|| {
                format!("failed to average the texts of class `{class}` in `{port}`")
            })
        })
        .collect()
}

/// The plain mean of each class's rows: its product with an image is the mean of
/// the rows' similarities to it.
pub(super) fn class_means(port: &str, texts: &Embeddings) -> Result<Vec<Vec<f32>>> {
    let rows = rows_by_class(port, texts)?;
    let mean = |rows: &Vec<usize>| match rows.as_slice() {
        [row] => texts.row(*row).to_vec(),
        many => (sum(texts, many).into_iter())
            .map(|x| (x / many.len() as f64) as f32)
            .collect(),
    };
    Ok(rows.iter().map(mean).collect())
}

/// The rows of each class, of which there is at least one.
fn rows_by_class(port: &str, texts: &Embeddings) -> Result<Vec<Vec<usize>>> {
    let mut rows = vec![Vec::new(); texts.classes.len()];
    for (i, row) in texts.rows.iter().enumerate() {
        rows[row.class_index].push(i);
    }
    for (rows, class) in rows.iter().zip(&texts.classes) {
        ensure!(
            !rows.is_empty(),
            "class `{class}` has no text in `{port}`\nhint: a text for each class is made by a `clip_encode` node without `candidates`"
        );
    }
    Ok(rows)
}

/// An attribute on trial.
pub(super) struct Candidate<'a> {
    /// The attribute.
    pub(super) name: &'a str,
    /// The attributes that its text carries, itself included.
    pub(super) attributes: &'a [String],
    /// Its text's embedding, or the renormalised mean over templates.
    pub(super) vector: Vec<f32>,
}

/// The candidates of each class, in row order.
pub(super) fn candidates<'a>(port: &str, texts: &'a Embeddings) -> Result<Vec<Vec<Candidate<'a>>>> {
    for (i, row) in texts.rows.iter().enumerate() {
        ensure!(
            row.candidate.is_some(),
            "row {i} of `{port}` carries no candidate\nhint: give that `clip_encode` node `candidates = …`"
        );
    }
    variants(texts)
}

/// The texts of each class, in row order, whether or not they carry candidates;
/// without one the name is empty.
pub(super) fn variants(texts: &Embeddings) -> Result<Vec<Vec<Candidate<'_>>>> {
    // Rows of one text, one for each template, follow each other.
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (i, row) in texts.rows.iter().enumerate() {
        match groups.last_mut() {
            Some(group)
                if row.template.is_some_and(|t| t > 0) && {
                    let first = &texts.rows[group[0]];
                    (first.class_index, &first.candidate) == (row.class_index, &row.candidate)
                } =>
            {
                group.push(i);
            }
            _ => groups.push(vec![i]),
        }
    }
    let mut classes: Vec<Vec<Candidate<'_>>> = texts.classes.iter().map(|_| Vec::new()).collect();
    for group in groups {
        let row = &texts.rows[group[0]];
        let name = row.candidate.as_deref().unwrap_or_default();
        classes[row.class_index].push(Candidate {
            name,
            attributes: &row.attributes,
            vector: mean(texts, &group)
                .with_context(|| format!("failed to average the texts of candidate `{name}`"))?,
        });
    }
    Ok(classes)
}

/// The only row as it is, or the mean of several, scaled to length 1.
fn mean(texts: &Embeddings, rows: &[usize]) -> Result<Vec<f32>> {
    if let [row] = rows {
        return Ok(texts.row(*row).to_vec());
    }
    let sum = sum(texts, rows);
    let length = sum.iter().map(|x| x * x).sum::<f64>().sqrt();
    ensure!(
        length > 1e-6 * rows.len() as f64,
        "they cancel each other out"
    );
    Ok(sum.into_iter().map(|x| (x / length) as f32).collect())
}

/// The sum of several rows.
fn sum(texts: &Embeddings, rows: &[usize]) -> Vec<f64> {
    let mut sum = vec![0.0_f64; texts.dim];
    for row in rows {
        for (sum, x) in sum.iter_mut().zip(texts.row(*row)) {
            *sum += f64::from(*x);
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nodes::in_memory::texts;

    #[test]
    fn a_plain_mean_gives_the_mean_of_similarities() {
        let texts = texts(
            &["a", "b"],
            &[(0, &[1.0, 0.0]), (1, &[0.6, 0.8]), (0, &[0.0, 1.0])],
        );
        assert_eq!(
            class_means("classifier", &texts).unwrap(),
            [[0.5, 0.5], [0.6, 0.8]]
        );
    }

    fn error(result: Result<()>) -> String {
        format!("{:#}", result.unwrap_err())
    }

    #[test]
    fn texts_of_one_class_are_averaged_and_renormalised() {
        let texts = texts(
            &["a", "b"],
            &[(0, &[1.0, 0.0]), (1, &[0.6, 0.8]), (0, &[0.0, 1.0])],
        );
        let half = 0.5_f64.sqrt() as f32;
        assert_eq!(
            class_vectors("classifier", &texts).unwrap(),
            [[half, half], [0.6, 0.8]]
        );
    }

    #[test]
    fn templates_of_one_candidate_are_averaged() {
        let mut texts = texts(
            &["a"],
            &[
                (0, &[1.0, 0.0]),
                (0, &[0.0, 1.0]),
                (0, &[0.0, 1.0]),
                (0, &[0.0, 1.0]),
            ],
        );
        for (row, (name, template)) in
            texts
                .rows
                .iter_mut()
                .zip([("x", 0), ("x", 1), ("y", 0), ("y", 1)])
        {
            row.candidate = Some(name.into());
            row.template = Some(template);
        }
        let half = 0.5_f64.sqrt() as f32;
        let found = candidates("candidates", &texts).unwrap();
        let found: Vec<_> = found[0].iter().map(|c| (c.name, &c.vector[..])).collect();
        assert_eq!(found, [("x", &[half, half][..]), ("y", &[0.0, 1.0][..])]);
        texts.rows[2].candidate = None;
        let error = candidates("candidates", &texts).err().unwrap().to_string();
        assert!(error.starts_with("row 2 of `candidates` carries no candidate\nhint: "));
    }

    #[test]
    fn what_is_wrong_with_embeddings_is_named() {
        let good = texts(&["a", "b"], &[(0, &[1.0, 0.0]), (1, &[0.6, 0.8])]);
        assert!(sound("p", &good).is_ok());
        let mut bad = good.clone();
        bad.data[2] = f32::NAN;
        let message = error(sound("p", &bad));
        assert!(
            message
                .starts_with("row 1 of `p` (`text 1`) holds a number that is not finite\nhint: ")
        );
        bad.data[2] = 3.0;
        let message = error(sound("p", &bad));
        assert_eq!(
            message,
            "row 1 of `p` (`text 1`) has length 3.105, but embeddings have length 1"
        );
        bad = good.clone();
        bad.rows[0].class_index = 2;
        let message = error(sound("p", &bad));
        assert_eq!(
            message,
            "row 0 of `p` (`text 0`) is of class 2, but `p` lists 2 classes"
        );

        let wide = texts(&["a", "b"], &[(0, &[1.0, 0.0, 0.0])]);
        let message = error(agree(("p", &good), ("q", &wide)));
        assert!(message.starts_with("`p` has embeddings of 2 dimensions, and `q` of 3\nhint: "));
        let others = texts(&["a", "c"], &[(0, &[1.0, 0.0])]);
        let message = error(agree(("p", &good), ("q", &others)));
        assert!(message.starts_with(
            "`p` and `q` list different classes: class 1 is `b` in `p` and `c` in `q`\nhint: "
        ));
        let fewer = texts(&["a"], &[(0, &[1.0, 0.0])]);
        let message = error(agree(("p", &good), ("q", &fewer)));
        assert!(message.starts_with("`p` lists 2 classes, and `q` 1\nhint: "));
        let message = error(class_vectors("q", &others).map(|_| ()));
        assert!(message.starts_with("class `c` has no text in `q`\nhint: "));
        let opposite = texts(&["a"], &[(0, &[1.0, 0.0]), (0, &[-1.0, 0.0])]);
        let message = error(class_vectors("q", &opposite).map(|_| ()));
        assert_eq!(
            message,
            "failed to average the texts of class `a` in `q`: they cancel each other out"
        );
    }
}
