//! Tests of the page: escaping, contents, contrast.

use serde_json::json;

use super::{
    super::{
        answers::AnswersSummary,
        page::{PageInput, Provenance, RunInfo},
        results::{Measured, build_tables},
        sample::{CLASSES, metrics, probes, refinement},
    },
    *,
};
use crate::{
    artifact::{Answer, Answers, Attributes, ClassAttributes, FileEntry, Scored},
    pipeline::Graph,
};

/// Answers with every outcome, one of them with markup in it.
fn answers(round: usize) -> AnswersSummary {
    let list = CLASSES.iter().enumerate().flat_map(|(class_index, class)| {
        (0..2).map(move |sample| {
            let nth = class_index * 2 + sample + round;
            let valid = !nth.is_multiple_of(7);
            let attributes = if valid {
                vec![WORDS[nth % WORDS.len()].to_owned()]
            } else {
                vec![]
            };
            Answer {
                class: (*class).into(),
                class_index,
                sample,
                attempt: 0,
                prompt: format!(
                    "Name three visual features of a {class}.\nAnswer with a JSON object."
                ),
                text: if valid {
                    format!("{{\"feature1\": \"{}\"}}", WORDS[nth % WORDS.len()])
                } else {
                    "Sure! <script>alert('answer')</script> {\"feature1\": ".into()
                },
                token_ids: vec![],
                attributes,
                valid,
                repaired: valid && nth.is_multiple_of(5),
                reason: (!valid).then(|| "not JSON: EOF while parsing a value at line 1".into()),
                ..Answer::default()
            }
        })
    });
    AnswersSummary::of(&Answers {
        answers: list.collect(),
        classes: CLASSES.map(str::to_owned).into(),
    })
}

const WORDS: [&str; 11] = [
    "sharp beak",
    "soft fur",
    "four legs",
    "metal hull",
    "round headlights",
    "long antlers",
    "webbed feet",
    "a flowing mane",
    "swept-back wings",
    "a cargo bed",
    "tall mast",
];

fn attributes(round: usize) -> Attributes {
    let class = |(i, name): (usize, &&str)| {
        let chosen: Vec<String> = (0..round)
            .filter(|r| !(i + r).is_multiple_of(5))
            .map(|r| WORDS[(i * 3 + r * 4) % WORDS.len()].to_owned())
            .collect();
        ClassAttributes {
            class: (*name).to_owned(),
            score: None,
            candidates: chosen
                .iter()
                .enumerate()
                .map(|(r, attribute)| Scored {
                    attribute: attribute.clone(),
                    score: (640 + i * 31 + r * 12) as f64,
                })
                .collect(),
            attributes: chosen,
            baseline: Some((630 + i * 31) as f64),
            images: Some(1000),
        }
    };
    Attributes {
        classes: CLASSES.iter().enumerate().map(class).collect(),
    }
}

/// A page with everything on it; `failed` breaks one node.
fn page(graph: &Graph, failed: bool) -> Page {
    let mut page = Page::of(graph);
    page.run = RunInfo {
        id: "r0001".into(),
        started: "a day in May".into(),
        took: Some(82.4),
        device: "cpu (2 cores)".into(),
        machine: "laptop".into(),
        version: "0.1.0".into(),
        command: "runner exec pipelines/table2.toml -s temperature=0.9".into(),
        warnings: Vec::new(),
    };
    let digest = |i: usize, salt: &str| crate::digest::Digest::of(format!("{i}{salt}").as_bytes());
    for (i, node) in page.nodes.iter_mut().enumerate() {
        let broken = failed && node.id == "prompts@3";
        let blocked = failed && node.id == "eval@3";
        let hit = matches!(
            node.id.as_str(),
            "images" | "plain" | "prompts@0" | "eval@0"
        );
        node.state = Some(match (broken, blocked, hit) {
            (true, ..) => State::Failed,
            (_, true, _) => State::Blocked,
            (_, _, true) => State::Hit,
            _ => State::Ran,
        });
        node.key = Some(digest(i, "key").to_string());
        node.params = vec![
            (
                "prompts".into(),
                json!(
                    "This is a photo of a {{ class }}{% if attributes %} because of {{ attributes | join(' and ') }}{% endif %}"
                ),
            ),
            ("seed".into(), json!(0)),
            ("temperature".into(), json!(0.9)),
        ];
        if broken {
            node.message = Some("failed to render `prompts`\n  because `attributes` is <b>not</b> a list\nhint: write `attributes | join`".into());
        }
        if blocked {
            node.message = Some("needs prompts@3, which failed".into());
        }
        if broken || blocked {
            continue;
        }
        if !hit {
            node.took = Some(0.4 + (i as f64 * 2.7) % 9.0);
            node.items = Some((i as u64 * 13, 40));
            node.why = Some("temperature 0.5 → 0.9 (set by -s); 10 of 10 answers new".into());
        }
        node.artifact = Some(digest(i, "artifact").to_string());
        node.provenance = Some(Provenance {
            computed: "a day in May".into(),
            took: Some(0.4 + (i as f64 * 2.7) % 9.0),
            machine: "laptop".into(),
            device: "cpu".into(),
            version: "0.1.0".into(),
            store: "local".into(),
        });
        let file = |name: &str, size| FileEntry {
            name: name.into(),
            digest: digest(i, name),
            size,
        };
        node.files = match node.kind.as_str() {
            "clip_encode" => vec![
                file("classes.json", 163),
                file("embeddings.safetensors", 5_120_088),
                file("items.jsonl", 871_204),
            ],
            "llm_generate" => vec![file("answers.jsonl", 12_345), file("classes.json", 90)],
            "greedy_select" => vec![file("attributes.json", 4_321)],
            _ => vec![
                file("metrics.json", 2_048),
                file("predictions.safetensors", 160_112),
            ],
        };
        let round = node
            .at
            .iter()
            .find(|(axis, _)| axis == "round")
            .and_then(|(_, r)| r.parse().ok());
        match (node.kind.as_str(), round) {
            ("llm_generate", Some(round)) => node.answers = Some(answers(round)),
            ("greedy_select", Some(round)) => node.attributes = Some(attributes(round)),
            ("zeroshot_eval", _) => node.metrics = Some(metrics(i as u64 - 15, i == 16)),
            _ => {}
        }
        if node.id == "refine.propose@2" {
            node.warnings
                .push("class `deer` has no valid answer and keeps what it had".into());
        }
    }
    page.nodes[0].inputs.push(PageInput {
        port: "images".into(),
        source: "cifar10.test".into(),
        node: None,
        digest: Some(digest(0, "data").to_string()),
    });
    let measured = |id: crate::pipeline::NodeId| match &page.nodes[id.index()] {
        node if node.state == Some(State::Failed) => Measured::Failed,
        node => node
            .metrics
            .clone()
            .map_or(Measured::Missing, |m| Measured::Metrics(Box::new(m))),
    };
    page.tables = build_tables(graph, &measured);
    page
}

/// The page without what is in files of their own, and with digests cut.
fn skeleton(html: &str) -> String {
    let mut out = String::new();
    let mut skip = false;
    for line in html.lines() {
        if line.starts_with("</style>")
            || line.starts_with("</script>")
            || line.contains("}</style>")
            || line.starts_with("</svg>")
        {
            skip = false;
        }
        if !skip {
            out += line.trim_end();
            out.push('\n');
        }
        if line.starts_with("<style>")
            || line.starts_with("<script")
            || line.starts_with("<svg class=\"graph\"")
        {
            skip = true;
        }
    }
    out
}

#[test]
fn the_page_is_whole() {
    let html = html(&page(&refinement(), true)).unwrap();
    let digests = regex::Regex::new("[0-9a-f]{64}").unwrap();
    let nonces = regex::Regex::new("nonce([-=\"]+)[0-9a-f]{8}").unwrap();
    let text = skeleton(&html);
    let text = digests.replace_all(&text, "DIGEST");
    insta::assert_snapshot!(nonces.replace_all(&text, "nonce${1}NONCE"));
}

#[test]
fn nothing_is_asked_of_the_network() {
    let html = html(&page(&refinement(), false)).unwrap();
    let html = html.replace("http://www.w3.org/2000/svg", "");
    for part in [
        "http:", "https:", "src=", "@import", "url(http", "<link", "//cdn",
    ] {
        assert!(!html.contains(part), "{part}");
    }
    assert!(html.contains("default-src 'none'"));
}

#[test]
fn markup_from_outside_stays_text() {
    let evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>";
    let mut page = page(&refinement(), true);
    page.title = Some(evil.into());
    page.name = evil.into();
    page.run.command = evil.into();
    page.run.warnings.push(evil.into());
    for node in &mut page.nodes {
        node.id = evil.into();
        node.kind = evil.into();
        node.why = Some(evil.into());
        node.message = Some(evil.into());
        node.warnings.push(evil.into());
        node.params.push((evil.into(), json!(evil)));
        node.params.push((evil.into(), json!({evil: [evil]})));
        node.inputs.push(PageInput {
            port: evil.into(),
            source: evil.into(),
            node: None,
            digest: Some(evil.into()),
        });
        for file in &mut node.files {
            file.name = evil.into();
        }
        if let Some(metrics) = &mut node.metrics {
            metrics.per_class[0].class = evil.into();
        }
        if let Some(attributes) = &mut node.attributes {
            attributes.classes[0].class = evil.into();
            attributes.classes[1].attributes.push(evil.into());
        }
        if let Some(answers) = &mut node.answers {
            answers.reasons.push((evil.into(), 1));
            for answer in &mut answers.samples {
                (answer.class, answer.text, answer.prompt) =
                    (evil.into(), evil.into(), evil.into());
                answer.reason = Some(evil.into());
                answer.attributes.push(evil.into());
            }
        }
    }
    for table in &mut page.tables {
        table.title = evil.into();
        table.name = evil.into();
        table.columns[0].head = evil.into();
        table.rows[0][0].text = evil.into();
        table.rows[0][0].detail = evil.into();
        table.notes[0].text = evil.into();
    }
    let html = html(&page).unwrap();
    assert_eq!(html.matches("<script").count(), 2, "the page's own two");
    assert!(!html.contains("<img"));
    // Quotes are escaped too, so no attribute can be left.
    assert!(!html.contains("\"'&gt;") && html.contains("&quot;&#x27;&gt;"));
}

#[test]
fn a_large_run_gives_a_page_that_can_be_opened() {
    let graph = probes(10_000, 100);
    let mut page = Page::of(&graph);
    for node in &mut page.nodes {
        node.state = Some(State::Hit);
    }
    page.nodes[9_999].state = Some(State::Failed);
    let html = html(&page).unwrap();
    assert!(html.len() < 2_000_000, "{} bytes", html.len());
    assert!(html.contains("id=\"node-9999\"") && html.contains("9,600 nodes more"));
}

#[test]
fn every_step_of_the_scale_can_be_read_in_both_themes() {
    let luminance = |hex: &str| {
        let part = |at: usize| {
            let value = f64::from(u8::from_str_radix(&hex[at..at + 2], 16).unwrap()) / 255.0;
            if value <= 0.040_45 {
                value / 12.92
            } else {
                ((value + 0.055) / 1.055).powf(2.4)
            }
        };
        0.2126 * part(0) + 0.7152 * part(2) + 0.0722 * part(4)
    };
    let css = include_str!("../page.css");
    let pair = |name: &str| {
        let start = css.find(&format!("--{name}: light-dark(")).unwrap();
        let inside = css[start..].split(['(', ')']).nth(1).unwrap();
        let colors: Vec<_> = inside.split(", ").map(|c| luminance(&c[1..])).collect();
        [colors[0], colors[1]]
    };
    for step in 0..views::STEPS {
        let (ground, text) = (pair(&format!("h{step}")), pair(&format!("t{step}")));
        for theme in 0..2 {
            let (low, high) = (
                ground[theme].min(text[theme]),
                ground[theme].max(text[theme]),
            );
            let contrast = (high + 0.05) / (low + 0.05);
            assert!(contrast >= 4.5, "step {step}: {contrast:.2}");
        }
    }
}

/// Writes pages for looking at: `RUNNER_PAGES=folder cargo test pages_to_look_at`.
#[test]
fn pages_to_look_at() {
    let folder = tempfile::tempdir().unwrap();
    let folder =
        std::env::var_os("RUNNER_PAGES").map_or_else(|| folder.path().to_owned(), Into::into);
    let graph = refinement();
    let large = super::super::sample::matrix(30, 9);
    let mut many = Page::of(&large);
    for (i, node) in many.nodes.iter_mut().enumerate() {
        node.state = Some(if i < 200 { State::Hit } else { State::Ran });
        node.metrics = (i % 30 == 0).then(|| metrics(i as u64 / 10, false));
    }
    for (name, page) in [
        ("good", page(&graph, false)),
        ("failed", page(&graph, true)),
        ("large", many),
    ] {
        std::fs::write(folder.join(format!("{name}.html")), html(&page).unwrap()).unwrap();
    }
}
