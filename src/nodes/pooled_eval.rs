//! `pooled_eval`: evaluations of separate parts of a split as one evaluation.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    artifact::{Artifact, LabelUse, Metrics, Output, Part, Type},
    node::{Accept, Ctx, Done, Inputs, Kind, Node, Port},
    nodes::verdicts::{Baseline, Outcome},
};

/// Parameters of `pooled_eval`: it has none.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct PooledEval {}

impl Node for PooledEval {
    fn output(&self, _: &BTreeSet<&str>) -> Type {
        Type::Metrics
    }

    fn finish(&self, inputs: &Inputs, _: &Done, _: &mut Ctx<'_>) -> Result<Output> {
        let parts: Vec<Metrics> = inputs.artifacts("parts")?;
        let mut outcome = pool(&parts)?;
        let mut names = Vec::new();
        if inputs.has("baseline") {
            let baseline: Metrics = inputs.artifact("baseline")?;
            outcome.baseline = Some(Baseline::of_evaluation(&baseline, &outcome)?);
            let split = outcome.scored.split.clone();
            names = outcome.rows.iter().map(|row| format!("{split}/{row}")).collect();
        }
        outcome.metrics(names)?.output()
    }
}

/// All images of `parts`, in the order of their places.
fn pool(parts: &[Metrics]) -> Result<Outcome> {
    ensure!(!parts.is_empty(), "`parts` names no evaluation");
    let first = &parts[0].table;
    let classes: Vec<String> = first.per_class.iter().map(|class| class.class.clone()).collect();
    let mut images: Vec<(i64, &Metrics, usize)> = Vec::new();
    for part in parts {
        let (scored, same) = (&part.table.scored, &first.scored);
        ensure!(
            scored.data == same.data && scored.split == same.split,
            "`parts` score different images: `{}` and `{}`\nhint: pool evaluations of the same split of the same data",
            same.split,
            scored.split
        );
        let names = part.table.per_class.iter().map(|class| &class.class);
        ensure!(
            names.eq(&classes),
            "`parts` list different classes\nhint: give all of them the same classes"
        );
        images.extend(part.rows.iter().enumerate().map(|(i, row)| (*row, part, i)));
    }
    images.sort_by_key(|(row, ..)| *row);
    for pair in images.windows(2) {
        ensure!(
            pair[0].0 != pair[1].0,
            "image {} of `{}` is scored by two of `parts`\nhint: let each score other `rows`, such as \"fold 1/2\" and \"fold 2/2\"",
            pair[0].0,
            first.scored.split
        );
    }
    let take = |get: fn(&Metrics, usize) -> i64| -> Vec<i64> {
        images.iter().map(|(_, part, i)| get(part, *i)).collect()
    };
    // Parts that together are everything are compared as everything.
    let labels = take(|part, i| part.labels[i]);
    let whole = images.iter().enumerate().all(|(i, (row, ..))| *row == i as i64);
    let rows = match parts {
        [one] => one.table.scored.rows.clone(),
        _ if whole => Part::All.to_string(),
        many => {
            let rows: Vec<&str> = many.iter().map(|part| part.table.scored.rows.as_str()).collect();
            rows.join(", ")
        }
    };
    Ok(Outcome {
        classes,
        scored: LabelUse {
            rows,
            ..first.scored.clone()
        },
        selected: parts.iter().any(|part| part.table.selected_on_this_split),
        rows: images.iter().map(|(row, ..)| *row).collect(),
        labels,
        predictions: take(|part, i| part.predictions[i]),
        ranks: take(|part, i| part.ranks[i]),
        confidence: images.iter().map(|(_, part, i)| part.confidence[*i]).collect(),
        baseline: None,
    })
}

impl Kind for PooledEval {
    const NAME: &'static str = "pooled_eval";
    const VERSION: u32 = 1;
    const PORTS: &'static [Port] = &[
        Port {
            many: true,
            ..Port::required(
                "parts",
                &[Accept::Artifact(Type::Metrics)],
                "Evaluations of parts of one split that share no image.",
            )
        },
        Port::optional(
            "baseline",
            &[Accept::Artifact(Type::Metrics)],
            "Another evaluation of these images, for the paired comparison.",
        ),
    ];
    const SUMMARY: &'static str = "puts evaluations of folds together into one";
    const DOC: &'static str = r#"Takes the predictions of several evaluations that score different images of one split,
such as the folds of a cross-validation, and counts them as one evaluation: accuracies,
intervals, confusion, and the paired comparison with `baseline`, as `zeroshot_eval` does.

It is marked `selected_on_this_split` only if one of its parts is: prompts that were
chosen on the other folds are honest.

Artifact: as that of `zeroshot_eval`.

Example, after a matrix of five folds:

    [nodes.nested]
    kind = "pooled_eval"
    parts = ["fold_eval@1", "fold_eval@2", "fold_eval@3", "fold_eval@4", "fold_eval@5"]
    baseline = "plain_eval"
"#;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        artifact::Embeddings,
        nodes::{
            in_memory::{finish, images, input, labels, texts},
            zeroshot_eval::ZeroshotEval,
        },
    };

    const EAST: &[f32] = &[1.0, 0.0];
    const NORTH: &[f32] = &[0.0, 1.0];

    fn pets() -> Embeddings {
        let rows = [(0, EAST), (1, NORTH), (0, NORTH), (1, EAST), (0, EAST)];
        images(&["cat", "dog"], &rows)
    }

    fn eval(rows: &str, chosen_on: &str) -> Metrics {
        let node: ZeroshotEval = serde_json::from_value(serde_json::json!({"rows": rows})).unwrap();
        let classifier = texts(&["cat", "dog"], &[(0, EAST), (1, NORTH)]);
        let used = LabelUse {
            rows: chosen_on.into(),
            ..labels("test")
        };
        let ports = vec![
            ("images", input(&pets(), &[])),
            ("classifier", input(&classifier, &[used])),
        ];
        finish(&node, ports).unwrap().0
    }

    fn pooled(parts: &[&Metrics], baseline: Option<&Metrics>) -> Result<Metrics> {
        let mut ports: Vec<_> = parts.iter().map(|part| ("parts", input(*part, &[]))).collect();
        ports.extend(baseline.map(|metrics| ("baseline", input(metrics, &[]))));
        Ok(finish(&PooledEval {}, ports)?.0)
    }

    #[test]
    fn folds_together_are_the_evaluation_of_everything() {
        let whole = eval("all", "even");
        let odd = eval("odd", "even");
        let even = eval("even", "odd");
        let all = pooled(&[&odd, &even], Some(&whole)).unwrap();
        assert_eq!(all.rows, [0, 1, 2, 3, 4]);
        assert_eq!((&all.predictions, &all.ranks), (&whole.predictions, &whole.ranks));
        assert_eq!(all.table.top1, whole.table.top1);
        assert_eq!(all.table.confusion, whole.table.confusion);
        assert_eq!(all.table.scored, labels("test"));
        assert!(!all.table.selected_on_this_split && whole.table.selected_on_this_split);
        let paired = all.table.paired.unwrap();
        assert_eq!((paired.won, paired.lost, paired.p_value), (0, 0, None));
        let leaky = eval("even", "all");
        assert!(pooled(&[&odd, &leaky], None).unwrap().table.selected_on_this_split);
    }

    #[test]
    fn parts_that_do_not_fit_are_refused() {
        let error = |parts: &[&Metrics]| format!("{:#}", pooled(parts, None).unwrap_err());
        let (odd, all) = (eval("odd", "even"), eval("all", "even"));
        assert!(error(&[&odd, &all]).starts_with("image 1 of `test` is scored by two of `parts`\nhint: "));
        let mut other = eval("even", "odd");
        other.table.scored.split = "train".into();
        assert!(error(&[&odd, &other]).starts_with("`parts` score different images: `test` and `train`\nhint: "));
    }
}
