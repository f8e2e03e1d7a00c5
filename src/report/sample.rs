//! A made-up pipeline with made-up results, for the tests of this room.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use serde_json::{Value, json};

use crate::{
    artifact::{ClassMetrics, LabelUse, MetricsTable, Output, Paired, Share, Type},
    digest::Digest,
    node::{Ctx, Done, Inputs, KindInfo, Node, Parsed},
    pipeline::{Exec, Graph, Instance, NodeId, Point, Source, TableSpec, TableValue},
    run::Event,
};

struct Idle;

impl Node for Idle {
    fn output(&self, _: &std::collections::BTreeSet<&str>) -> Type {
        Type::Probe
    }

    fn finish(&self, _: &Inputs, _: &Done, _: &mut Ctx<'_>) -> anyhow::Result<Output> {
        anyhow::bail!("a sample does not run")
    }
}

const fn kind(name: &'static str) -> KindInfo {
    KindInfo {
        name,
        version: 1,
        ports: &[],
        files: &[],
        draws: false,
        summary: "",
        doc: "",
        hidden: false,
        schema: || schemars::schema_for!(bool),
        parse: |_| {
            Ok(Parsed {
                node: Arc::new(Idle),
                params: Value::Null,
            })
        },
    }
}

static CLIP: KindInfo = kind("clip_encode");
static LLM: KindInfo = kind("llm_generate");
static GREEDY: KindInfo = kind("greedy_select");
static EVAL: KindInfo = kind("zeroshot_eval");

/// Builds graphs node by node.
pub(super) struct Sample(pub(super) Graph);

impl Sample {
    pub(super) fn new(name: &str) -> Self {
        Self(Graph {
            name: name.into(),
            title: None,
            nodes: Vec::new(),
            dependents: Vec::new(),
            dependencies: Vec::new(),
            data: BTreeMap::new(),
            models: BTreeMap::new(),
            tables: Vec::new(),
            files: Vec::new(),
            root: PathBuf::new(),
            exec: Exec::default(),
        })
    }

    pub(super) fn add(
        &mut self,
        name: &str,
        kind: &'static KindInfo,
        output: Type,
        at: &[(&str, Point)],
        inputs: Vec<(&'static str, Source)>,
    ) -> NodeId {
        let id = NodeId(self.0.nodes.len() as u32);
        let mut needs: Vec<NodeId> = inputs
            .iter()
            .filter_map(|(_, source)| match source {
                Source::Node(id) => Some(*id),
                _ => None,
            })
            .collect();
        needs.sort_unstable();
        needs.dedup();
        for need in &needs {
            self.0.dependents[need.index()].push(id);
        }
        let points: Vec<_> = at
            .iter()
            .map(|(axis, point)| match *axis {
                "round" | "n" if at.len() == 1 => point.to_string(),
                axis => format!("{axis}={point}"),
            })
            .collect();
        let axes = points.join(",");
        let sign = if at.is_empty() { "" } else { "@" };
        self.0.nodes.push(Instance {
            id: format!("{name}{sign}{axes}"),
            name: name.into(),
            at: at
                .iter()
                .map(|(a, p)| ((*a).to_owned(), p.clone()))
                .collect(),
            kind,
            node: Arc::new(Idle),
            params: json!({}),
            output,
            inputs,
            exec: Exec::default(),
            saw: BTreeMap::new(),
        });
        self.0.dependencies.push(needs);
        self.0.dependents.push(Vec::new());
        id
    }
}

/// Three rounds of refinement and an evaluation of each.
pub(super) fn refinement() -> Graph {
    let mut sample = Sample::new("table2");
    sample.0.title = Some("Top-1 accuracy against the number of class attributes".into());
    let clip = || ("model", Source::Model("clip".into()));
    let classes = || ("classes", Source::DataClasses("cifar10".into()));
    let split = Source::Split("cifar10".into(), "test".into());
    let images = sample.add(
        "images",
        &CLIP,
        Type::ImageEmbeddings,
        &[],
        vec![clip(), ("images", split)],
    );
    let plain = sample.add(
        "plain",
        &CLIP,
        Type::TextEmbeddings,
        &[],
        vec![clip(), classes()],
    );
    let mut previous = Source::Empty(Type::Attributes);
    let mut selections = vec![previous.clone()];
    for round in 1..=3 {
        let at = [("round", Point::Int(round))];
        let llm = ("model", Source::Model("llm".into()));
        let chosen = || ("chosen", previous.clone());
        let propose = sample.add(
            "refine.propose",
            &LLM,
            Type::Answers,
            &at,
            vec![llm, classes(), chosen()],
        );
        let texts = sample.add(
            "refine.texts",
            &CLIP,
            Type::TextEmbeddings,
            &at,
            vec![
                clip(),
                classes(),
                chosen(),
                ("candidates", Source::Node(propose)),
            ],
        );
        let select = sample.add(
            "refine.select",
            &GREEDY,
            Type::Attributes,
            &at,
            vec![
                ("images", Source::Node(images)),
                ("baseline", Source::Node(plain)),
                ("candidates", Source::Node(texts)),
            ],
        );
        previous = Source::Node(select);
        selections.push(previous.clone());
    }
    let mut prompts = Vec::new();
    for (n, chosen) in selections.into_iter().enumerate() {
        let at = [("n", Point::Int(n as i64))];
        let inputs = vec![clip(), classes(), ("chosen", chosen)];
        prompts.push(sample.add("prompts", &CLIP, Type::TextEmbeddings, &at, inputs));
    }
    let mut evaluations = Vec::new();
    for (n, classifier) in prompts.iter().enumerate() {
        let at = [("n", Point::Int(n as i64))];
        let inputs = vec![
            ("images", Source::Node(images)),
            ("classifier", Source::Node(*classifier)),
            ("baseline", Source::Node(prompts[0])),
        ];
        evaluations.push(sample.add("eval", &EVAL, Type::Metrics, &at, inputs));
    }
    sample.0.tables.push(TableSpec {
        name: "table2".into(),
        title: sample.0.title.clone(),
        rows: Some("n".into()),
        columns: None,
        values: vec![value("eval.top1", evaluations)],
        mean_over: None,
        overall: Vec::new(),
        class: None,
        draw: None,
        published: [("0", 70.35), ("1", 72.91), ("2", 70.75), ("3", 69.67)]
            .map(|(n, figure)| (n.to_owned(), json!(figure)))
            .into(),
    });
    sample.0
}

/// `count` evaluations over a matrix of seeds and `n`.
pub(super) fn matrix(seeds: i64, most: i64) -> Graph {
    let mut sample = Sample::new("seeds");
    let mut evaluations = Vec::new();
    for n in 0..=most {
        for seed in 0..seeds {
            let at = [("n", Point::Int(n)), ("seed", Point::Int(seed))];
            evaluations.push(sample.add("eval", &EVAL, Type::Metrics, &at, vec![]));
        }
    }
    sample.0.tables.push(TableSpec {
        name: "seeds".into(),
        title: None,
        rows: Some("n".into()),
        columns: None,
        values: vec![value("eval.top1", evaluations)],
        mean_over: None,
        overall: Vec::new(),
        class: None,
        draw: None,
        published: BTreeMap::new(),
    });
    sample.0
}

/// `count` probes in a chain of layers of `width`.
pub(super) fn probes(count: u32, width: u32) -> Graph {
    let mut sample = Sample::new("probes");
    for i in 0..count {
        let inputs = match i.checked_sub(width) {
            Some(before) => vec![("inputs", Source::Node(NodeId(before)))],
            None => Vec::new(),
        };
        sample.add(&format!("n{i}"), &CLIP, Type::Probe, &[], inputs);
    }
    sample.0
}

/// A value of a table, labelled as the file writes it.
pub(super) fn value(label: &str, instances: Vec<NodeId>) -> TableValue {
    TableValue {
        label: label.into(),
        instances,
        field: label
            .split_once('.')
            .map_or(label, |(_, field)| field)
            .into(),
        published: Vec::new(),
    }
}

/// A share with its Wilson interval at 95%.
pub(super) fn share(correct: u64, total: u64) -> Share {
    let (n, z) = (total as f64, 1.959_964);
    let p = correct as f64 / n;
    let middle = (p + z * z / (2.0 * n)) / (1.0 + z * z / n);
    let half = z / (1.0 + z * z / n) * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    Share {
        correct,
        total,
        percent: 100.0 * p,
        low: 100.0 * (middle - half),
        high: 100.0 * (middle + half),
    }
}

pub(super) const CLASSES: [&str; 10] = [
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
];

/// Metrics that depend on `level` and are otherwise made up.
pub(super) fn metrics(level: u64, selected: bool) -> MetricsTable {
    let per_class: Vec<_> = CLASSES
        .iter()
        .enumerate()
        .map(|(i, class)| ClassMetrics {
            class: (*class).into(),
            top1: share(540 + (i as u64 * 137 + level * 29) % 430, 1000),
            change: None,
        })
        .collect();
    let correct = per_class.iter().map(|c| c.top1.correct).sum();
    let confusion = (0..10)
        .map(|label: usize| {
            let right = per_class[label].top1.correct;
            let wrong = 1000 - right;
            let mut row: Vec<u64> = (0..10)
                .map(|p| if p == label { right } else { wrong / 9 })
                .collect();
            row[(label + 1) % 10] += wrong % 9;
            row
        })
        .collect();
    MetricsTable {
        top1: share(correct, 10_000),
        top5: Some(share(9_600 + level * 10, 10_000)),
        mean_per_class: correct as f64 / 100.0,
        per_class,
        confusion,
        paired: (level > 0).then(|| Paired {
            difference: 2.56 - level as f64,
            low: 1.96 - level as f64,
            high: 3.16 - level as f64,
            won: 612 - level,
            lost: 356,
            p_value: (!selected).then_some(0.0123 / level as f64),
        }),
        selected_on_this_split: selected,
        scored: LabelUse {
            data: Digest::of(b"labels"),
            split: "test".into(),
            rows: "all".into(),
        },
        curve: Vec::new(),
    }
}

/// A run of [`refinement`] with seconds since its start: hits, items, a
/// warning, a failure and what it blocks.
pub(super) fn story(graph: &Graph) -> Vec<(f64, Event)> {
    let node = |name: &str| {
        let found = graph.ids().find(|id| graph.node(*id).id == name);
        found.unwrap()
    };
    let key = Digest::of(b"a key");
    let mut events = vec![(
        0.0,
        Event::RunStarted {
            nodes: graph.nodes.len(),
            run: "r1".into(),
            device: "cpu (2 cores)".into(),
        },
    )];
    let mut tell = |at, event| events.push((at, event));
    for name in ["images", "plain", "prompts@0", "eval@0"] {
        tell(
            0.0,
            Event::Hit {
                node: node(name),
                key,
                by: None,
            },
        );
    }
    let propose = node("refine.propose@1");
    let why = "temperature 0.5 → 0.9 (set by -s); 10 of 10 answers new".into();
    tell(
        0.1,
        Event::Started {
            node: propose,
            key,
            why,
        },
    );
    tell(
        0.1,
        Event::Items {
            node: propose,
            total: 10,
            cached: 2,
        },
    );
    tell(
        0.1,
        Event::Loading {
            node: propose,
            model: "demo/llm".into(),
        },
    );
    for step in 0..8 {
        let at = 2.0 + f64::from(step) * 3.0;
        let (done, total, unit) = (32, 64, "tokens".to_owned());
        tell(
            at,
            Event::Progress {
                node: propose,
                done,
                total,
                unit,
            },
        );
        tell(
            at + 2.5,
            Event::Batch {
                node: propose,
                items: 1,
            },
        );
    }
    tell(
        26.0,
        Event::Warning {
            node: Some(propose),
            message: "1 of 10 answers is not valid JSON\u{1b}[31m after 3 attempts".into(),
        },
    );
    let took = Duration::from_millis(26_100);
    tell(
        26.2,
        Event::Ran {
            node: propose,
            key,
            took,
            items: (8, 2),
        },
    );
    let texts = node("refine.texts@1");
    tell(
        26.2,
        Event::Started {
            node: texts,
            key,
            why: "input `candidates` changed".into(),
        },
    );
    let took = Duration::from_millis(740);
    tell(
        27.0,
        Event::Ran {
            node: texts,
            key,
            took,
            items: (30, 0),
        },
    );
    let select = node("refine.select@1");
    tell(
        27.0,
        Event::Started {
            node: select,
            key,
            why: "input `candidates` changed".into(),
        },
    );
    tell(
        27.1,
        Event::Failed {
            node: select,
            message:
                "failed to score class `cat`\n  because it has no candidate\nhint: raise `answers`"
                    .into(),
        },
    );
    let blocked: Vec<_> = graph.ids().filter(|id| id.0 > select.0).collect();
    let blocked: Vec<_> = blocked
        .into_iter()
        .filter(|id| !["prompts@0", "eval@0"].contains(&graph.node(*id).id.as_str()))
        .collect();
    let count = blocked.len();
    for node in blocked {
        tell(27.1, Event::Blocked { node, by: select });
    }
    let took = Duration::from_millis(27_120);
    tell(
        27.1,
        Event::RunFinished {
            hits: 4,
            ran: 2,
            failed: 1,
            blocked: count,
            took,
        },
    );
    events
}
