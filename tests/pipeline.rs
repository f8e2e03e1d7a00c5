//! Good pipelines: what graph a file stands for.

#![expect(
    clippy::unwrap_used,
    reason = "a test stops at what it does not expect"
)]

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
};

use runner::{
    artifact::Type,
    digest::Digest,
    node::Family,
    pipeline::{Graph, Instance, ModelFiles, ModelSource, ModelSpec, Options, Point, Source, load},
};
use serde_json::json;

/// Pipeline files in a folder of their own; `$DEMO` stands for the demo's folder.
struct Files(tempfile::TempDir);

impl Files {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/demo");
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text.replace("$DEMO", demo.to_str().unwrap())).unwrap();
        }
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        std::path::absolute(self.0.path()).unwrap().join(name)
    }

    fn load(&self, profile: Option<&str>, set: &[(&str, &str)]) -> Graph {
        let options = Options {
            absent: false,
            profiles: profile.map(str::to_owned).into_iter().collect(),
            set: set
                .iter()
                .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
                .collect(),
        };
        load(&self.path("a.toml"), &options).unwrap_or_else(|errors| panic!("{errors}"))
    }
}

fn graph(text: &str) -> Graph {
    Files::new(&[("a.toml", text)]).load(None, &[])
}

fn ids(graph: &Graph) -> Vec<&str> {
    graph.nodes.iter().map(|node| node.id.as_str()).collect()
}

fn node<'g>(graph: &'g Graph, id: &str) -> &'g Instance {
    let found = graph.nodes.iter().find(|node| node.id == id);
    found.unwrap_or_else(|| panic!("no `{id}` in {:?}", ids(graph)))
}

/// Where each connected port of a node leads, in words.
fn reads(graph: &Graph, id: &str) -> Vec<String> {
    let inputs = node(graph, id).inputs.iter();
    inputs
        .map(|(port, source)| match source {
            Source::Node(id) => format!("{port}: {}", graph.node(*id).id),
            Source::Empty(made) => format!("{port}: no {made}"),
            Source::Split(data, split) => format!("{port}: {data}.{split}"),
            Source::DataClasses(data) => format!("{port}: classes of {data}"),
            Source::Classes(names) => format!("{port}: {}", names.join("+")),
            Source::Model(model) => format!("{port}: {model}"),
        })
        .collect()
}

/// What holds of every graph.
fn check(graph: &Graph) {
    let mut seen = std::collections::HashSet::new();
    for id in graph.ids() {
        let node = graph.node(id);
        assert!(seen.insert(&node.id), "`{}` occurs twice", node.id);
        let needs = &graph.dependencies[id.index()];
        assert!(needs.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(
            needs.iter().all(|need| *need < id),
            "`{}` comes too early",
            node.id
        );
        for need in needs {
            assert!(graph.dependents[need.index()].contains(&id));
        }
        for (_, source) in &node.inputs {
            match source {
                Source::Node(need) => assert!(needs.contains(need)),
                Source::Split(data, _) | Source::DataClasses(data) => {
                    assert!(graph.data.contains_key(data));
                }
                Source::Model(model) => assert!(graph.models.contains_key(model)),
                _ => {}
            }
        }
    }
    let edges = |lists: &[Vec<_>]| lists.iter().map(Vec::len).sum::<usize>();
    assert_eq!(edges(&graph.dependencies), edges(&graph.dependents));
}

const STUDY: &str = r#"
#:schema schema.json
version = 1
name = "table2"
title = "Accuracy"
extends = "base.toml"
seed = 7

[params]
temperature = 0.5

[nodes.images]
kind = "clip_encode"
model = "clip"
images = "cifar10.test"

[nodes.plain]
kind = "clip_encode"
model = "clip"
classes = "cifar10"
prompts = "a photo of a {{ class }}"

[rounds.refine]
count = 3
result = "select"

[rounds.refine.nodes.propose]
kind = "llm_generate"
model = "llm"
classes = "cifar10"
prompt_file = "prompts/a.j2"
chosen = "previous"
answers = 1
attributes = 3
temperature = "${temperature}"

[rounds.refine.nodes.texts]
kind = "clip_encode"
model = "clip"
classes = "cifar10"
chosen = "previous"
candidates = "propose"
prompts = "a photo of a {{ class }} because of {{ attributes | join(' and ') }}"

[rounds.refine.nodes.select]
kind = "greedy_select"
images = "images"
baseline = "plain"
candidates = "texts"

[nodes.prompts]
kind = "clip_encode"
model = "clip"
matrix = { n = [0, 1, 2, 3] }
classes = "cifar10"
chosen = "refine@${n}"
prompts = "a {{ class }}{% if attributes %} because of {{ attributes | join(' and ') }}{% endif %}"

[nodes.eval]
kind = "zeroshot_eval"
matrix = { n = [0, 1, 2, 3] }
images = "images"
classifier = "prompts"
baseline = "prompts@0"

[tables.table2]
rows = "n"
value = "eval.top1"
published = { 0 = 70.35, 1 = 72.91 }

[profiles.demo.models.clip]
path = "$DEMO/clip"
"#;

const BASE: &str = r#"
version = 1
seed = 1
name = "base"
title = "not inherited"

[params]
temperature = 1.0
unused = "x"

[data.cifar10]
format = "cifar10"
path = "$DEMO/cifar-10-batches-bin"

[models.clip]
path = "real/clip"
dtype = "f16"

[models.llm]
path = "$DEMO/llm"

[models.absent]
path = "nobody/names/it"
"#;

fn study() -> Files {
    Files::new(&[
        ("a.toml", STUDY),
        ("base.toml", BASE),
        ("prompts/a.j2", "Attributes of a {{ class }}."),
        ("real/clip/open_clip_config.json", "{}"),
    ])
}

#[test]
fn the_study_s_file_becomes_its_graph() {
    let files = study();
    let graph = files.load(None, &[]);
    check(&graph);
    assert_eq!(
        ids(&graph),
        [
            "images",
            "plain",
            "prompts@0",
            "eval@0",
            "refine.propose@1",
            "refine.texts@1",
            "refine.select@1",
            "prompts@1",
            "eval@1",
            "refine.propose@2",
            "refine.texts@2",
            "refine.select@2",
            "prompts@2",
            "eval@2",
            "refine.propose@3",
            "refine.texts@3",
            "refine.select@3",
            "prompts@3",
            "eval@3",
        ]
    );
    assert_eq!(
        (graph.name.as_str(), graph.title.as_deref()),
        ("table2", Some("Accuracy"))
    );
    assert_eq!(
        reads(&graph, "images"),
        ["model: clip", "images: cifar10.test"]
    );
    assert_eq!(
        reads(&graph, "refine.propose@1"),
        [
            "model: llm",
            "classes: classes of cifar10",
            "chosen: no attributes"
        ]
    );
    assert_eq!(
        reads(&graph, "refine.propose@2")[2],
        "chosen: refine.select@1"
    );
    assert_eq!(
        reads(&graph, "refine.select@2"),
        [
            "images: images",
            "baseline: plain",
            "candidates: refine.texts@2"
        ]
    );
    assert_eq!(reads(&graph, "prompts@0")[2], "chosen: no attributes");
    assert_eq!(reads(&graph, "prompts@3")[2], "chosen: refine.select@3");
    assert_eq!(
        reads(&graph, "eval@2"),
        [
            "images: images",
            "classifier: prompts@2",
            "baseline: prompts@0"
        ]
    );
    let propose = node(&graph, "refine.propose@2");
    assert_eq!(propose.name, "refine.propose");
    assert_eq!(
        propose.at,
        BTreeMap::from([("round".to_owned(), Point::Int(2))])
    );
    assert_eq!(propose.output, Type::Answers);
    assert_eq!(propose.params["prompt"], "Attributes of a {{ class }}.");
    assert_eq!(propose.params["seed"], 7);
    assert_eq!(propose.params["stream"], 2);
    assert_eq!(propose.params["temperature"], 0.5);
    assert_eq!(propose.saw["temperature"].value, json!(0.5));
    assert!(!propose.saw["temperature"].set);
    assert!(node(&graph, "images").saw.is_empty());
    let table = &graph.tables[0];
    assert_eq!((table.rows.as_deref(), table.values.len()), (Some("n"), 1));
    assert_eq!(
        (
            table.values[0].field.as_str(),
            table.values[0].instances.len()
        ),
        ("top1", 4)
    );
    assert_eq!(table.published["1"], json!(72.91));
}

fn files(model: &ModelSpec) -> &ModelFiles {
    match &model.source {
        ModelSource::Files(files) => files,
        other => panic!("{other:?}"),
    }
}

#[test]
fn paths_belong_to_the_file_they_were_written_in() {
    let graph = study().load(None, &[]);
    let clip = &graph.models["clip"];
    let files = files(clip);
    assert!(files.path.ends_with("real/clip"), "{:?}", files.path);
    assert_eq!((clip.family, files.dtype.as_str()), (Family::Clip, "f16"));
    assert_eq!(graph.models["llm"].family, Family::Llm);
    assert!(!graph.models.contains_key("absent"), "nobody names it");
}

#[test]
fn every_file_that_was_read_is_listed() {
    let files = study();
    let listed = files.load(None, &[]).files;
    let expected: Vec<_> = ["a.toml", "base.toml", "prompts/a.j2"]
        .map(|name| files.path(name))
        .into();
    assert_eq!(listed, expected);
}

#[test]
fn a_profile_replaces_entries_whole() {
    let graph = study().load(Some("demo"), &[]);
    let clip = &graph.models["clip"];
    assert!(
        files(clip).path.ends_with("pipelines/demo/clip"),
        "{:?}",
        files(clip).path
    );
    assert_eq!(
        files(clip).dtype,
        "f32",
        "the base's dtype went with its entry"
    );
}

#[test]
fn the_command_line_comes_last_and_is_remembered() {
    let graph = study().load(None, &[("temperature", "1")]);
    let propose = node(&graph, "refine.propose@1");
    assert_eq!(propose.params["temperature"], json!(1.0));
    assert!(propose.saw["temperature"].set);
}

#[test]
fn a_sweep_repeats_only_what_sees_the_parameter() {
    let text = r#"
        version = 1
        [sweep]
        t = [0.2, 0.5]
        u = ["x", "y", "z"]
        [nodes.plain]
        kind = "probe"
        [nodes.direct]
        kind = "probe"
        value = "${t}"
        [nodes.through]
        kind = "probe"
        inputs = ["direct", "plain"]
        [nodes.both]
        kind = "probe"
        inputs = ["through"]
        value = "${u}"
        [nodes.picked]
        kind = "probe"
        inputs = ["both@t=0.5,u=y", "direct@t=0.2"]
        [nodes.half]
        kind = "probe"
        inputs = ["both@t=0.50"]
    "#;
    let graph = graph(text);
    check(&graph);
    assert_eq!(
        ids(&graph),
        [
            "plain",
            "direct@0.2",
            "direct@0.5",
            "through@0.2",
            "through@0.5",
            "both@t=0.2,u=x",
            "both@t=0.2,u=y",
            "both@t=0.2,u=z",
            "both@t=0.5,u=x",
            "both@t=0.5,u=y",
            "both@t=0.5,u=z",
            "picked",
            "half@x",
            "half@y",
            "half@z",
        ]
    );
    assert_eq!(
        reads(&graph, "through@0.5"),
        ["inputs: direct@0.5", "inputs: plain"]
    );
    assert_eq!(reads(&graph, "both@t=0.5,u=z"), ["inputs: through@0.5"]);
    assert_eq!(
        reads(&graph, "picked"),
        ["inputs: both@t=0.5,u=y", "inputs: direct@0.2"]
    );
    assert_eq!(reads(&graph, "half@z"), ["inputs: both@t=0.5,u=z"]);
    assert_eq!(
        node(&graph, "both@t=0.5,u=z").at["u"],
        Point::Text("z".into())
    );
    assert_eq!(node(&graph, "direct@0.2").saw["t"].value, json!(0.2));
}

#[test]
fn the_command_line_replaces_an_axis_of_the_sweep() {
    let files = Files::new(&[(
        "a.toml",
        "version = 1\nsweep.t = [0.2, 0.5]\nnodes.a = { kind = 'probe', value = '${t}' }",
    )]);
    assert_eq!(ids(&files.load(None, &[("t", "1")])), ["a@1.0"]);
    let graph = files.load(None, &[("t", "[0.3, 2, 3]")]);
    assert_eq!(ids(&graph), ["a@0.3", "a@2.0", "a@3.0"]);
    assert!(graph.nodes[0].saw["t"].set);
}

#[test]
fn a_swept_model_is_one_model_a_point() {
    let text = r#"
        version = 1
        sweep.dtype = ["f32", "bf16"]
        [models.clip]
        path = "$DEMO/clip"
        dtype = "${dtype}"
        [nodes.plain]
        kind = "clip_encode"
        model = "clip"
        classes = ["cat", "dog"]
        prompts = "a photo of a {{ class }}"
    "#;
    let graph = graph(text);
    check(&graph);
    assert_eq!(ids(&graph), ["plain@f32", "plain@bf16"]);
    assert_eq!(
        reads(&graph, "plain@bf16"),
        ["model: clip@bf16", "classes: cat+dog"]
    );
    assert_eq!(files(&graph.models["clip@bf16"]).dtype, "bf16");
}

#[test]
fn axes_of_the_same_name_match_along_an_edge() {
    let text = r#"
        version = 1
        [params]
        words = ["red", "blue"]
        [nodes.a]
        kind = "probe"
        matrix = { n = [1, 2, 3], word = "${words}" }
        value = "${n}${word}"
        [nodes.b]
        kind = "probe"
        matrix = { word = ["blue", "red"], m = [true, 1.5] }
        inputs = ["a@3", "a@n=1"]
        value = "${m}"
        [nodes.c]
        kind = "probe"
        matrix = { n = [3] }
        inputs = ["a@word='red'", "b@word=blue,m=1.50"]
    "#;
    let graph = graph(text);
    check(&graph);
    assert_eq!(graph.nodes.len(), 6 + 4 + 1);
    assert_eq!(
        reads(&graph, "b@word=red,m=true"),
        ["inputs: a@n=3,word=red", "inputs: a@n=1,word=red"]
    );
    assert_eq!(
        reads(&graph, "c@3"),
        ["inputs: a@n=3,word=red", "inputs: b@word=blue,m=1.5"]
    );
    assert_eq!(node(&graph, "a@n=2,word=blue").params["value"], "2blue");
    assert_eq!(
        node(&graph, "b@word=red,m=1.5").params["value"],
        1.5.to_string()
    );
}

#[test]
fn rounds_may_have_a_matrix_and_read_each_other() {
    let text = r#"
        version = 1
        [params]
        rounds = 2
        [nodes.start]
        kind = "probe"
        matrix = { seed = [1, 2] }
        value = "${seed}"
        [rounds.r]
        count = "${rounds}"
        result = "last"
        matrix = { seed = [1, 2] }
        [rounds.r.nodes.first]
        kind = "probe"
        inputs = ["previous", "start"]
        value = "${round}"
        [rounds.r.nodes.last]
        kind = "probe"
        inputs = ["first"]
        [rounds.s]
        count = 2
        result = "only"
        nodes.only = { kind = "probe", inputs = ["r@2,seed=1", "r.first@round=1,seed=2"] }
        [nodes.after]
        kind = "probe"
        matrix = { round = [0, 2] }
        inputs = ["s", "r@seed=1"]
    "#;
    let graph = graph(text);
    check(&graph);
    assert_eq!(
        reads(&graph, "r.first@seed=2,round=1"),
        ["inputs: no probe bytes", "inputs: start@2"]
    );
    assert_eq!(
        reads(&graph, "r.first@seed=2,round=2"),
        ["inputs: r.last@seed=2,round=1", "inputs: start@2"]
    );
    assert_eq!(
        reads(&graph, "s.only@2"),
        [
            "inputs: r.last@seed=1,round=2",
            "inputs: r.first@seed=2,round=1"
        ]
    );
    assert_eq!(
        reads(&graph, "after@0"),
        ["inputs: no probe bytes", "inputs: no probe bytes"]
    );
    assert_eq!(
        reads(&graph, "after@2"),
        ["inputs: s.only@2", "inputs: r.last@seed=1,round=2"]
    );
    assert_eq!(node(&graph, "r.first@seed=1,round=2").params["value"], "2");
}

#[test]
fn nodes_take_settings_and_the_file_has_its_own() {
    let text = r#"
        version = 1
        [exec]
        device = "cpu"
        [nodes.a]
        kind = "probe"
        exec = { device = "cuda:1", batch = 8 }
        [nodes.b]
        kind = "probe"
    "#;
    let graph = graph(text);
    assert_eq!(graph.exec.device.as_deref(), Some("cpu"));
    assert_eq!(graph.nodes[0].exec.batch, Some(8));
    assert_eq!(graph.nodes[0].exec.device.as_deref(), Some("cuda:1"));
    assert_eq!(graph.nodes[1].exec, runner::pipeline::Exec::default());
}

#[test]
fn a_pinned_model_may_be_absent() {
    let pin = Digest::of(b"");
    let text = format!(
        "version = 1
        [models.clip]
        path = 'nowhere'
        family = 'clip'
        digest = 'blake3:{pin}'
        [nodes.a]
        kind = 'clip_encode'
        model = 'clip'
        classes = ['cat', 'dog']
        prompts = 'a {{{{ class }}}}'"
    );
    let graph = graph(&text);
    assert_eq!(graph.models["clip"].digest, Some(pin));
}

#[test]
fn weights_of_a_node_are_a_model() {
    let text = r#"
        version = 1
        [data.cifar10]
        format = "cifar10"
        path = "$DEMO/cifar-10-batches-bin"
        [models.clip]
        path = "$DEMO/clip"
        [nodes.texts]
        kind = "clip_encode"
        model = "clip"
        classes = "cifar10"
        prompts = "a {{ class }}"
        [nodes.tuned]
        kind = "finetune"
        model = "clip"
        train = "cifar10.train"
        prompts = "texts"
        [nodes.images]
        kind = "clip_encode"
        model = "tuned"
        images = "cifar10.test"
    "#;
    let graph = graph(text);
    check(&graph);
    assert_eq!(
        reads(&graph, "images"),
        ["model: tuned", "images: cifar10.test"]
    );
    assert_eq!(node(&graph, "tuned").output, Type::Weights);
}

#[test]
fn tables_pick_instances_and_may_have_labels() {
    let text = r#"
        version = 1
        [sweep]
        t = [0.5]
        [nodes.e]
        kind = "probe"
        matrix = { n = [1, 2], m = [1, 2] }
        value = "${n} ${m} ${t}"
        [nodes.h]
        kind = "probe"
        matrix = { heat = [0.5, 1.0] }
        [rounds.r]
        count = 2
        result = "x"
        nodes.x = { kind = "probe" }
        [tables.a]
        title = "t"
        rows = "n"
        values = ["e@m=1.top1", { value = "e@m=2.top5", label = "Top-5" }]
        [tables.b]
        rows = "class"
        columns = "n"
        mean_over = "m"
        value = "e.per_class"
        [tables.c]
        columns = "round"
        values = ["r.top1", "r.x.top1"]
        [tables.d]
        values = ["r@2.top1", "h@0.5.top1.low", "h@1.0.curve.3", "r.x@1.curve.3"]
    "#;
    let graph = graph(text);
    let [a, b, c, d] = &graph.tables[..] else {
        panic!("four tables")
    };
    let names = |table: &runner::pipeline::TableSpec, i: usize| -> Vec<String> {
        let ids = table.values[i].instances.iter();
        ids.map(|id| graph.node(*id).id.clone()).collect()
    };
    assert_eq!(names(a, 1), ["e@n=1,m=2,t=0.5", "e@n=2,m=2,t=0.5"]);
    assert_eq!(
        (a.values[0].label.as_str(), a.values[1].label.as_str()),
        ("e@m=1.top1", "Top-5")
    );
    assert_eq!(
        (b.values[0].instances.len(), b.mean_over.as_deref()),
        (4, Some("m"))
    );
    assert_eq!(names(c, 0), names(c, 1));
    let fields: Vec<_> = (0..4)
        .map(|i| (names(d, i).join(" "), d.values[i].field.as_str()))
        .collect();
    let expected = [
        ("r.x@2", "top1"),
        ("h@0.5", "top1.low"),
        ("h@1.0", "curve.3"),
        ("r.x@1", "curve.3"),
    ];
    assert_eq!(fields, expected.map(|(id, field)| (id.to_owned(), field)));
}

#[test]
fn a_file_may_be_nearly_empty() {
    let graph = graph("version = 1");
    assert_eq!((graph.name.as_str(), graph.nodes.len()), ("a", 0));
}

#[test]
fn ten_thousand_nodes_load_quickly() {
    let mut text = String::from("version = 1\n");
    for i in 0..10_000_usize {
        let _ = writeln!(text, "[nodes.n{i}]\nkind = \"probe\"\nvalue = \"{i}\"");
        if i >= 10 {
            let _ = writeln!(text, "inputs = [\"n{}\", \"n{}\"]", i - 10, i / 2);
        }
    }
    let files = Files::new(&[("a.toml", &text)]);
    let mut best = f64::MAX;
    for _ in 0..5 {
        let start = std::time::Instant::now();
        let graph = files.load(None, &[]);
        best = best.min(start.elapsed().as_secs_f64());
        assert_eq!(graph.nodes.len(), 10_000);
    }
    // Far above what it takes: only a wrong order of growth fails here.
    assert!(best < 5.0, "{best} s");
}

#[test]
fn a_chain_of_a_hundred_thousand_instances_is_no_trouble() {
    let text = "version = 1
        [rounds.r]
        count = 100000
        result = 'x'
        nodes.x = { kind = 'probe', inputs = ['previous'] }";
    let start = std::time::Instant::now();
    let graph = graph(text);
    assert_eq!(graph.nodes.len(), 100_000);
    // Far above what it takes: only a wrong order of growth fails here.
    assert!(
        start.elapsed().as_secs_f64() < 60.0,
        "{:?}",
        start.elapsed()
    );
}
