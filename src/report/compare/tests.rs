//! Tests of comparisons.

use super::*;
use crate::{
    artifact::ClassAttributes,
    table::{Cell, Column, Note},
};

const LONG: &str = "Name three visual features of a {{ class }} that tell it from {{ others }}. Answer with a JSON object";

fn node(id: &str, temperature: &str, upstream: &str) -> SideNode {
    let text = format!("{id}{temperature}{upstream}");
    let digest = |salt: &str| crate::digest::Digest::of(format!("{salt}{text}").as_bytes());
    SideNode {
        id: id.into(),
        kind: "llm_generate version 3".into(),
        key: Some(digest("key").to_string()),
        state: "ran".into(),
        seconds: Some(12.5),
        params: vec![
            ("temperature".into(), temperature.into()),
            ("seed".into(), "0".into()),
        ],
        inputs: vec![(
            "answers.answers".into(),
            crate::digest::Digest::of(upstream.as_bytes()).to_string(),
        )],
        artifact: Some(digest("artifact").to_string()),
        attributes: None,
        answers: None,
    }
}

fn chosen(cat: &[&str], dog: &[&str]) -> Attributes {
    let class = |name: &str, list: &[&str]| ClassAttributes {
        class: name.into(),
        attributes: list.iter().map(|a| (*a).to_owned()).collect(),
        score: None,
        candidates: vec![],
        baseline: None,
        images: None,
    };
    Attributes {
        classes: vec![class("cat", cat), class("dog", dog)],
    }
}

fn table(numbers: [f64; 3], failed: bool) -> Table {
    let share = |number: f64| Cell {
        detail: format!("[{:.1}, {:.1}]", number - 0.9, number + 0.9),
        more: vec![("low", number - 0.9), ("high", number + 0.9)],
        mark: "*",
        ..Cell::number(number, format!("{number:.2}"))
    };
    let published = |number: f64| Cell::number(number, format!("{number:.2}"));
    let mut rows: Vec<Vec<Cell>> = numbers
        .iter()
        .enumerate()
        .map(|(i, n)| {
            vec![
                Cell::head(i.to_string()),
                share(*n),
                published(61.0 + i as f64),
            ]
        })
        .collect();
    if failed {
        rows[2][1] = Cell::failed();
    }
    Table {
        name: "table2".into(),
        title: "Accuracy by round".into(),
        columns: vec![
            Column::words("round"),
            Column::numbers("eval.top1"),
            Column::numbers("published"),
        ],
        rows,
        notes: vec![
            Note::marked("*", "selected on this split."),
            Note::new("In brackets: the 95% Wilson interval."),
        ],
        ..Table::default()
    }
}

fn runs() -> (RunSide, RunSide) {
    let side = |id: &str, temperature: &str| RunSide {
        id: id.into(),
        started: "a day in May".into(),
        command: format!("runner exec pipelines/table2.toml -s temperature={temperature}"),
        machine: "laptop".into(),
        version: "0.1.0".into(),
        took: Some(82.4),
        tables: vec![
            table([61.3, 63.94, 64.8], false),
            Table {
                name: "other".into(),
                title: "Untouched".into(),
                ..table([50.0, 51.0, 52.0], false)
            },
        ],
        nodes: vec![
            node("images", "-", "-"),
            node("propose@1", temperature, "-"),
            node("propose@2", temperature, temperature),
            SideNode {
                params: vec![],
                ..node("choose@1", "-", temperature)
            },
            node("eval@1", "-", "-"),
        ],
    };
    let (mut a, mut b) = (
        side("20260501-101500", "0.5"),
        side("20260502-093000", "0.9"),
    );
    b.tables[0] = table([61.3, 64.30, 64.8], true);
    let mut extra = table([61.3, 64.30, 64.8], true).rows[1].clone();
    extra[0] = Cell::head("3");
    b.tables[0].rows.push(extra);
    b.nodes[1]
        .params
        .push(("prompt".into(), format!("{LONG} and nothing else.")));
    a.nodes[1]
        .params
        .push(("prompt".into(), format!("{LONG}.")));
    a.nodes[3].attributes = Some(chosen(&["fur", "whiskers"], &["a", "b"]));
    b.nodes[3].attributes = Some(chosen(&["fur", "slit pupils", "a tail"], &["b", "a"]));
    let answers = |invalid: usize| AnswersSummary {
        attempts: 40 + invalid,
        valid: 40,
        invalid_percent: 100.0 * invalid as f64 / (40 + invalid) as f64,
        ..AnswersSummary::default()
    };
    a.nodes[1].answers = Some(answers(2));
    b.nodes[1].answers = Some(answers(9));
    b.nodes[4].artifact = Some(crate::digest::Digest::of(b"other").to_string());
    b.nodes[2].state = "failed".into();
    b.nodes[2].artifact = None;
    a.nodes.push(node("old", "-", "-"));
    b.nodes.push(node("new <b>", "-", "-"));
    (a, b)
}

/// Writes pages for looking at: `RUNNER_PAGES=folder cargo test comparisons_to_look_at`.
#[test]
fn comparisons_to_look_at() {
    let (a, b) = runs();
    let pages = [
        ("compare", compare_html(&a, &b).unwrap()),
        ("compare_equal", compare_html(&a, &a).unwrap()),
    ];
    for (name, page) in pages {
        assert!(page.ends_with("</html>"), "{name}");
        if let Some(folder) = std::env::var_os("RUNNER_PAGES") {
            std::fs::write(
                std::path::Path::new(&folder).join(format!("{name}.html")),
                page,
            )
            .unwrap();
        }
    }
}

/// The page without what is in files of its own.
fn skeleton(html: &str) -> String {
    let mut out = String::new();
    let mut skip = false;
    for line in html.lines() {
        skip &= !(line.contains("</style>") || line.contains("</script>"));
        if !skip {
            out += line.trim_end();
            out.push('\n');
        }
        skip |= line.starts_with("<style>") || line.starts_with("<script");
    }
    out
}

#[test]
fn the_page_shows_all_that_differs() {
    let (a, b) = runs();
    let html = skeleton(&compare_html(&a, &b).unwrap());
    insta::with_settings!({filters => vec![("nonce([-=\"]+)[0-9a-f]{8}", "nonce${1}NONCE")]}, {
        insta::assert_snapshot!(html);
    });
}

#[test]
fn the_text_shows_all_that_differs() {
    let (a, b) = runs();
    insta::assert_snapshot!(compare_text(&a, &b));
}

#[test]
fn a_program_can_read_the_comparison() {
    let (a, b) = runs();
    let json = serde_json::to_value(Comparison::of(&a, &b)).unwrap();
    assert_eq!(json["equal"], false);
    assert_eq!(json["parameters"][0]["name"], "temperature");
    assert_eq!(
        json["parameters"][0]["nodes"],
        serde_json::json!(["propose@1", "propose@2"])
    );
    assert_eq!(json["nodes"][0]["cause"], "own");
    let cell = &json["tables"][0]["rows"][1]["cells"][0];
    assert_eq!(
        (&cell["text"], &cell["direction"]),
        (&"+0.36".into(), &"up".into())
    );
    assert!((cell["difference"].as_f64().unwrap() - 0.36).abs() < 1e-9);
    assert_eq!(json["tables"][0]["rows"][3]["presence"], "only_b");
}

#[test]
fn equal_runs_are_said_to_be_equal() {
    let (a, _) = runs();
    let mut again = a.clone();
    again.id = "another".into();
    again.started = "a day in June".into();
    again.nodes[0].state = "hit".into();
    again.nodes[0].seconds = Some(0.0);
    let comparison = Comparison::of(&a, &again);
    assert!(comparison.equal && comparison.parameters.is_empty());
    assert_eq!(comparison.same_nodes, 6);
    let text = compare_text(&a, &again);
    assert!(
        text.contains("Nothing differs: every node has the same key and gave the same result.")
    );
    assert!(text.contains("Untouched: the same in both."));
    let html = compare_html(&a, &again).unwrap();
    assert!(html.contains("Nothing differs") && !html.contains("Parameters that differ"));
}

#[test]
fn nodes_are_told_apart_by_why_they_differ() {
    let (a, b) = runs();
    let nodes = Comparison::of(&a, &b).nodes;
    let causes: Vec<_> = nodes.iter().map(|n| (n.id.as_str(), n.cause)).collect();
    assert_eq!(
        causes,
        [
            ("propose@1", Cause::Own),
            ("propose@2", Cause::Own),
            ("choose@1", Cause::Inputs),
            ("eval@1", Cause::Result),
        ]
    );
    assert_eq!(nodes[3].sentences, ["another result from the same key"]);
}

#[test]
fn a_node_that_was_blocked_differs_in_nothing_else() {
    let (a, _) = runs();
    let mut b = a.clone();
    b.nodes[1] = SideNode {
        id: "propose@1".into(),
        state: "blocked".into(),
        ..SideNode::default()
    };
    let comparison = Comparison::of(&a, &b);
    assert_eq!(comparison.nodes.len(), 1);
    assert_eq!(comparison.nodes[0].sentences, ["ran in A, blocked in B"]);
    let both = Comparison::of(&b, &b);
    assert!(both.equal);
    assert_eq!(
        both.summary,
        "Nothing differs, though 1 node gave no result in either."
    );
}

#[test]
fn another_key_with_the_same_result_is_said() {
    let (a, _) = runs();
    let mut b = a.clone();
    b.nodes[0].key = Some("0".repeat(64));
    let comparison = Comparison::of(&a, &b);
    assert_eq!(
        comparison.nodes[0].sentences,
        ["another key", "the same result all the same"]
    );
}

#[test]
fn long_values_are_cut_to_where_they_part() {
    let pair = |a: &str, b: &str| {
        nodes::in_short(&Pair {
            name: "prompt".into(),
            a: Some(a.into()),
            b: Some(b.into()),
        })
    };
    let (a, b) = pair(&format!("{LONG}."), &format!("{LONG} and nothing else."));
    assert_eq!(
        (a.as_str(), b.as_str()),
        ("…a JSON object.", "…a JSON object and nothing else.")
    );
    let (a, b) = pair(&"x".repeat(100), "y");
    assert_eq!((a.chars().count(), b.as_str()), (49, "y"));
}

#[test]
fn a_small_difference_is_not_written_as_none() {
    assert_eq!(tables::write(0.36, 2), "+0.36");
    assert_eq!(tables::write(-0.001, 2), "-1.0e-3");
    assert_eq!(tables::write(0.0, 2), "+0.00");
}

#[test]
fn tables_are_paired_by_headings_and_not_by_places() {
    let before = table([61.0, 62.0, 63.0], false);
    let mut now = before.clone();
    now.columns.swap(1, 2);
    now.rows.iter_mut().for_each(|row| row.swap(1, 2));
    now.rows.reverse();
    let changes = tables::changes(std::slice::from_ref(&before), &[now]);
    assert!(!changes[0].changed);
    let gone = tables::changes(&[before], &[]);
    assert_eq!(gone[0].presence, Presence::OnlyA);
    assert!(gone[0].changed);
}

#[test]
fn markup_from_outside_stays_text() {
    let evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>";
    let (mut a, mut b) = runs();
    for side in [&mut a, &mut b] {
        (side.id, side.started, side.command) = (evil.into(), evil.into(), evil.into());
        (side.machine, side.version) = (evil.into(), evil.into());
        for node in &mut side.nodes {
            (node.id, node.kind, node.state) =
                (format!("{evil}{}", node.id), evil.into(), evil.into());
            node.params
                .push((evil.into(), format!("{evil}{:?}", node.key)));
            node.inputs
                .push((evil.into(), format!("{evil}{:?}", node.key)));
            node.key = node.key.clone().map(|key| format!("{evil}{key}"));
        }
        let table = &mut side.tables[0];
        (table.name, table.title) = (evil.into(), evil.into());
        table.columns[1].head = evil.into();
        (table.rows[1][0].text, table.rows[1][1].detail) = (evil.into(), evil.into());
        table.notes[0].text = evil.into();
    }
    b.nodes[3].attributes = Some(chosen(&[evil], &[]));
    let html = compare_html(&a, &b).unwrap();
    assert_eq!(html.matches("<script").count(), 2, "the page's own two");
    assert!(!html.contains("<img") && html.contains("&lt;script&gt;"));
    assert!(!html.contains("\"'&gt;"));
}

#[test]
fn nothing_is_asked_of_the_network() {
    let (a, b) = runs();
    let html = compare_html(&a, &b).unwrap();
    for part in [
        "http:", "https:", "src=", "@import", "url(http", "<link", "//cdn",
    ] {
        assert!(!html.contains(part), "{part}");
    }
    assert!(html.contains("default-src 'none'"));
}
