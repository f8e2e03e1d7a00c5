//! Tests of the result tables.

use std::collections::BTreeMap;

use serde_json::json;

use super::{
    super::sample::{matrix, metrics, refinement, value},
    *,
};

fn all(level: impl Fn(u32) -> u64) -> impl Fn(NodeId) -> Measured {
    move |id| Measured::Metrics(Box::new(metrics(level(id.0), false)))
}

fn text(graph: &Graph, measured: &dyn Fn(NodeId) -> Measured) -> String {
    let tables = build_tables(graph, measured);
    let texts: Vec<_> = tables
        .iter()
        .map(|t| format!("[{}]\n{}", t.name, t.to_text(false, None)))
        .collect();
    texts.join("\n")
}

#[test]
fn published_figures_stand_beside_ours() {
    let graph = refinement();
    let measured = |id: NodeId| match graph.node(id).id.as_str() {
        "eval@0" => Measured::Metrics(Box::new(metrics(0, false))),
        "eval@1" => Measured::Metrics(Box::new(metrics(1, true))),
        "eval@2" => Measured::Failed,
        _ => Measured::Missing,
    };
    insta::assert_snapshot!(text(&graph, &measured));
}

#[test]
fn a_pipeline_without_tables_lists_its_evaluations() {
    let mut graph = refinement();
    graph.tables.clear();
    insta::assert_snapshot!(text(&graph, &all(|id| u64::from(id.saturating_sub(15)))));
}

#[test]
fn classes_can_be_rows_and_an_axis_columns() {
    let mut graph = refinement();
    let spec = &mut graph.tables[0];
    spec.columns = spec.rows.replace("class".into());
    spec.values[0] = value("eval.per_class", spec.values[0].instances.clone());
    spec.published = [("cat".to_owned(), json!({"1": 61.5}))].into();
    insta::assert_snapshot!(text(&graph, &all(|id| u64::from(id % 4))));
}

#[test]
fn a_mean_gives_the_sample_deviation() {
    let mut graph = matrix(3, 1);
    graph.tables[0].mean_over = Some("seed".into());
    let measured = |id: NodeId| {
        let mut table = metrics(0, false);
        table.top1.percent = [70.0, 71.0, 72.0, 60.0, 64.0, 0.0][id.index()];
        if id.0 == 5 {
            Measured::Failed
        } else {
            Measured::Metrics(Box::new(table))
        }
    };
    let table = &build_tables(&graph, &measured)[0];
    // By hand: 70, 71, 72 have mean 71 and deviation 1; 60 and 64 have 62 and √8.
    let cell = &table.rows[0][1];
    assert_eq!(
        (cell.text.as_str(), cell.detail.as_str()),
        ("71.00", "± 1.00, images ± 0.8")
    );
    let cell = &table.rows[1][1];
    assert_eq!(
        (cell.text.as_str(), cell.detail.as_str(), cell.mark),
        ("62.00", "± 2.83, images ± 0.8, 2 of 3", "†")
    );
    assert!((cell.more[0].1 - 8f64.sqrt()).abs() < 1e-12);
}

#[test]
fn an_axis_that_a_table_does_not_mention_gives_a_table_a_point() {
    let graph = matrix(2, 1);
    let tables = build_tables(&graph, &all(u64::from));
    let names: Vec<_> = tables.iter().map(|t| t.name.as_str()).collect();
    assert_eq!(names, ["seeds@seed=0", "seeds@seed=1"]);
    assert_ne!(tables[0].rows, tables[1].rows);
}

#[test]
fn several_values_and_a_comparison_fit_one_table() {
    let mut graph = refinement();
    let spec = &mut graph.tables[0];
    let instances = spec.values[0].instances.clone();
    spec.values = [
        "eval.top1",
        "eval.difference",
        "eval.images",
        "eval.top1.low",
    ]
    .map(|label| value(label, instances.clone()))
    .into();
    spec.published = [
        ("1".to_owned(), json!({"eval.difference": 2.5})),
        ("9".to_owned(), json!(1.0)),
    ]
    .into();
    insta::assert_snapshot!(text(&graph, &all(|id| u64::from(id - 15))));
}

#[test]
fn without_an_axis_values_are_rows() {
    let mut graph = refinement();
    let spec = &mut graph.tables[0];
    let one = vec![spec.values[0].instances[2]];
    spec.rows = None;
    spec.values = ["eval.top1", "eval.top5", "eval.mean_per_class"]
        .map(|l| value(l, one.clone()))
        .into();
    spec.published = BTreeMap::from([("top5".to_owned(), json!(96.0))]);
    insta::assert_snapshot!(text(&graph, &all(|_| 0)));
}

#[test]
fn a_wrong_field_is_named_with_what_exists() {
    let mut graph = refinement();
    let propose = NodeId(2);
    let images = NodeId(0);
    let spec = &mut graph.tables[0];
    let instances = spec.values[0].instances.clone();
    spec.rows = Some("temperature".into());
    spec.values = vec![
        value("eval.topl", instances.clone()),
        value("eval.per_class", instances),
        value("refine.propose.invalid_percent", vec![propose]),
        value("images.top1", vec![images]),
    ];
    spec.values[2].field = "invalid_percent".into();
    let problems = check_tables(&graph);
    let lines: Vec<_> = problems
        .iter()
        .map(|p| {
            format!(
                "{}\n  hint: {}",
                p.message,
                p.hint.as_deref().unwrap_or("none")
            )
        })
        .collect();
    insta::assert_snapshot!(lines.join("\n"));
    let tables = build_tables(&graph, &all(|_| 0));
    assert!(tables.iter().all(|t| {
        t.notes
            .iter()
            .any(|n| n.text.contains("did you mean `top1`?"))
    }));
}
