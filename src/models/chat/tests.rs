//! Templates against transformers and mistral-common.
//!
//! The fixtures are made by `tests/fixtures/llm/tokenizer/make.py`.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use serde_json::{Value as Json, json};
use tempfile::TempDir;

use super::*;
use crate::models::tokenizer::tests::real_model;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/llm/tokenizer")
}

/// A folder of files by name.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn open(files: &[(&str, &str)]) -> Result<String> {
    ChatTemplate::open(folder(files).path())?.render("u", Some("s"))
}

fn error(files: &[(&str, &str)]) -> String {
    format!("{:#}", open(files).unwrap_err())
}

fn config(value: &Json) -> String {
    value.to_string()
}

#[test]
fn templates_render_as_in_transformers() {
    let rendered: Json =
        serde_json::from_slice(&fs::read(fixtures().join("rendered.json")).unwrap()).unwrap();
    let mut count = 0;
    for (name, cases) in rendered.as_object().unwrap() {
        let template = fixtures().join(format!("templates/{name}.jinja"));
        let folder = folder(&[
            (
                "tokenizer_config.json",
                &config(
                    &json!({"bos_token": "<s>", "eos_token": {"content": "</s>"},
                    "unk_token": "<unk>", "pad_token": "<pad>"}),
                ),
            ),
            (
                "chat_template.jinja",
                &fs::read_to_string(template).unwrap(),
            ),
        ]);
        let chat = ChatTemplate::open(folder.path()).unwrap();
        for case in cases.as_array().unwrap() {
            let text = chat.render(case[0].as_str().unwrap(), case[1].as_str());
            match (text, case[2].as_str()) {
                (Ok(text), Some(expected)) => assert_eq!(text, expected, "{name}: {case}"),
                (Err(_), None) => {}
                (text, expected) => panic!("{name}: {text:?} instead of {expected:?}"),
            }
            count += 1;
        }
    }
    assert_eq!(count, 84);
}

#[test]
fn ids_of_mistrals_file_are_those_of_mistral_common() {
    let Some(path) = real_model() else { return };
    let folder = folder(&[
        ("tokenizer_config.json", &config(&json!({"legacy": false}))),
        (
            "chat_template.jinja",
            &fs::read_to_string(fixtures().join("templates/last.jinja")).unwrap(),
        ),
    ]);
    fs::copy(&path, folder.path().join("tokenizer.model.v3")).unwrap();
    let tokenizer = Tokenizer::open_folder(folder.path()).unwrap();
    let chat = ChatTemplate::open(folder.path()).unwrap();
    let ids = |user: &str, system| chat.prompt_ids(&tokenizer, user, system).unwrap();
    assert_eq!(ids("a", None), [1, 3, 1032, 4]);
    let with_system = [1, 3, 17889, 23294, 781, 781, 29476, 4];
    assert_eq!(ids("a", Some("SYSTEM")), with_system);
    // The study's first prompt, for `airplane`.
    let inner = &STUDY[2..91];
    let study = ids(&tokenizer.decode(inner).unwrap(), None);
    assert_eq!(study, STUDY);

    let golden: Json =
        serde_json::from_slice(&fs::read(fixtures().join("ids.json")).unwrap()).unwrap();
    let cases = golden["mistral_common"].as_array().unwrap();
    assert_eq!(cases.len(), 92);
    for case in cases {
        let expected: Vec<u32> = serde_json::from_value(case[2].clone()).unwrap();
        let system = case[1].as_str();
        assert_eq!(ids(case[0].as_str().unwrap(), system), expected, "{case}");
    }
}

const STUDY: [u32; 92] = [
    1, 3, 6687, 9038, 2480, 9577, 10391, 1137, 1228, 4179, 1066, 1800, 1065, 1164, 4237, 1070,
    1032, 3191, 13977, 29491, 7834, 7604, 1791, 1115, 1032, 3460, 2475, 1210, 1032, 1983, 3253,
    15572, 1093, 3184, 29473, 29538, 3853, 1377, 7901, 1315, 1040, 5140, 1065, 8881, 10060, 5800,
    1163, 8916, 1113, 11221, 29508, 1316, 1113, 11221, 29518, 1316, 1072, 1113, 11221, 29538, 1316,
    1738, 1040, 3837, 1228, 5463, 26076, 1093, 2160, 3525, 29493, 1113, 29494, 4097, 1316, 1113,
    1656, 1316, 1210, 1113, 3011, 1223, 1062, 4913, 3146, 1227, 3792, 1475, 5638, 3013, 29491, 4,
];

#[test]
fn templates_are_looked_for_where_transformers_does() {
    let named = json!({"chat_template": [
        {"name": "tool_use", "template": "tools"},
        {"name": "default", "template": "list {{ messages[1].content }}"},
    ]});
    let jinja = ("chat_template.jinja", "file {{ messages | length }}");
    let text = json!({"chat_template": "text {{ messages[0].content }}"});
    let old = json!({"chat_template": "old"});
    let [named, text, old] = [named, text, old].map(|value| value.to_string());
    let [named, text] = [&named, &text].map(|value| ("tokenizer_config.json", value.as_str()));
    let old = ("chat_template.json", old.as_str());
    assert_eq!(open(&[jinja, text, old]).unwrap(), "file 2");
    assert_eq!(open(&[text, old]).unwrap(), "text s");
    assert_eq!(open(&[named]).unwrap(), "list u");
    assert_eq!(
        open(&[("tokenizer_config.json", "{}"), old]).unwrap(),
        "old"
    );
    for name in FILES {
        assert!([jinja.0, text.0, old.0, "special_tokens_map.json"].contains(&name));
    }
}

#[test]
fn a_folder_without_a_template_is_told_what_to_add() {
    let none = error(&[]);
    assert!(
        none.contains("no chat template") && none.contains("hint: add"),
        "{none}"
    );
    let null = error(&[("tokenizer_config.json", r#"{"chat_template": null}"#)]);
    assert!(null.contains("has no `chat_template`"), "{null}");
    let other = json!({"chat_template": [{"name": "rag", "template": ""}]});
    let other = error(&[("tokenizer_config.json", &other.to_string())]);
    assert!(
        other.contains("`rag`") && other.contains("none `default`"),
        "{other}"
    );
    let number = error(&[("tokenizer_config.json", r#"{"chat_template": 5}"#)]);
    assert!(number.contains("neither a text nor a list"), "{number}");
}

#[test]
fn special_tokens_come_from_the_first_file_that_names_them() {
    let jinja = (
        "chat_template.jinja",
        "{{ bos_token }}{{ eos_token }}{{ pad_token is defined }}",
    );
    let config = (
        "tokenizer_config.json",
        r#"{"bos_token": {"content": "<b>"}, "eos_token": null}"#,
    );
    let map = (
        "special_tokens_map.json",
        r#"{"bos_token": "<m>", "eos_token": {"content": "<e>"}}"#,
    );
    assert_eq!(open(&[jinja, config, map]).unwrap(), "<b><e>False");
    let folder = folder(&[jinja, config]);
    let model = fixtures().join("ruled.model");
    fs::copy(model, folder.path().join("tokenizer.model")).unwrap();
    let chat = ChatTemplate::open(folder.path()).unwrap();
    assert_eq!(chat.render("u", None).unwrap(), "<b></s>False");
}

#[test]
fn the_day_is_fixed_unless_another_is_given() {
    let open = |template: &str| ChatTemplate::compile(template, "t", None, None).unwrap();
    let dated = open("{{ strftime_now('%d %b %Y, %x %X %c %%x %H:%M') }}");
    assert!(dated.depends_on_date());
    let text = dated.render("u", None).unwrap();
    assert_eq!(
        text,
        "26 Jul 2024, 07/26/24 00:00:00 Fri Jul 26 00:00:00 2024 %x 00:00"
    );
    let other = dated.with_date(jiff::civil::date(2026, 1, 2));
    assert!(other.render("u", None).unwrap().starts_with("02 Jan 2026"));
    assert_eq!(other.date(), jiff::civil::date(2026, 1, 2));
    let guarded = "{% if strftime_now is defined %}{{ strftime_now('%Y') }}{% endif %}";
    assert!(open(guarded).depends_on_date());
    assert!(!open("{{ messages[0].content }} 26 Jul 2024").depends_on_date());
    let wrong = open("{{ strftime_now('%!') }}").render("u", None);
    assert!(wrong.is_err());
}

#[test]
fn a_template_that_takes_too_long_is_left_alone_and_not_asked_again() {
    // Equal lists that share nothing, of two thousand million items each.
    let grown = |name: &str| {
        let step = format!("{{% set ns.{name} = [ns.{name}, ns.{name}] %}}");
        format!("{{% for a in range(31) %}}{step}{{% endfor %}}")
    };
    let template = format!(
        "{{% set ns = namespace(x=[1], y=[1]) %}}{}{}{{{{ ns.x == ns.y }}}}",
        grown("x"),
        grown("y")
    );
    let chat = ChatTemplate::compile(&template, "t", None, None).unwrap();
    for most in [10, 1] {
        let start = Instant::now();
        let error = format!("{:#}", chat.render("a cat", None).unwrap_err());
        assert!(error.contains("`t`") && error.contains("5s"), "{error}");
        assert!(start.elapsed() < Duration::from_secs(most));
    }
}

#[test]
fn hostile_templates_end_soon_in_an_error() {
    let nested =
        |open: &str, close: &str, n: usize| format!("{}{}", open.repeat(n), close.repeat(n));
    let doubling = |step: &str| {
        format!(
            "{{% set ns = namespace(x='\"aaaa') %}}{{% for a in range(60) %}}{{% set ns.x = {step} %}}{{% endfor %}}{{{{ ns.x }}}}"
        )
    };
    // A list that holds another twice is small in memory and long in writing.
    let shared = |after: &str| {
        let step = "{% for a in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}";
        format!("{{% set ns = namespace(x=1) %}}{step}{after}")
    };
    let templates = [
        nested("{{ ", "", 13_000),
        format!("{{{{ {}1{} }}}}", "(".repeat(19_000), ")".repeat(19_000)),
        format!("{{{{ {}1{} }}}}", "[".repeat(19_000), "]".repeat(19_000)),
        format!("{{{{ {}1 }}}}", "not ".repeat(9_900)),
        format!("{{{{ {}1 }}}}", "-".repeat(39_900)),
        format!("{{{{ 1{} }}}}", " if 1 else 2".repeat(3_000)),
        format!("{{{{ a{} }}}}", ".a".repeat(19_900)),
        format!("{{{{ a{} }}}}", "[a".repeat(19_900)),
        format!("{{{{ 'a'{} }}}}", "|trim".repeat(7_900)),
        format!("{{{{ 1{} }}}}", " ~ 1".repeat(9_900)),
        format!("{{{{ 1{} }}}}", " ** 9".repeat(7_900)),
        format!("{{{{ 1{} }}}}", " and 1".repeat(6_600)),
        format!("{{{{ {}1 }}}}", "1 == 1 == ".repeat(3_900)),
        nested("{% if 1 %}", "{% endif %}", 1_800),
        nested("{% for a in range(9) %}", "{% endfor %}", 1_100),
        nested("{% macro f() %}", "{% endmacro %}", 1_300),
        nested("{% set a %}", "{% endset %}", 1_600),
        nested("{% filter trim %}", "{% endfilter %}", 1_200),
        nested("{% generation %}", "{% endgeneration %}", 1_000),
        "x".repeat(1 << 17),
        doubling("ns.x + ns.x"),
        doubling("ns.x ~ ns.x"),
        doubling("ns.x | tojson"),
        doubling("ns.x | tojson(ensure_ascii=true)"),
        shared("{{ ns.x | tojson }}"),
        shared("{{ ns.x | tojson(sort_keys=true, indent=16) }}"),
        shared("{{ ns.x }}"),
        doubling("ns.x | replace('a', 'aaaaaaaaaaaaaaaaaaaa')"),
        doubling("ns.x.replace('a', 'aaaaaaaaaaaaaaaaaaaa')"),
        doubling("ns.x | indent(100000000, true)"),
        doubling("ns.x | batch(100000000, ns.x) | list | string"),
        doubling("'%1000000000s' | format(ns.x)"),
        doubling("'{:>1000000000}'.format(ns.x)"),
        doubling("ns.x.split('') | list | string"),
        doubling("ns.x | list | join(ns.x)"),
        doubling("ns.x.join(ns.x)"),
        doubling("ns.x * 1000000000"),
        doubling("ns.x | title ~ ns.x.title()"),
        "{{ range(1000000000) | list | length }}".to_owned(),
        "{% for a in range(1000000000000) %}{% endfor %}".to_owned(),
        "{{ 9 ** 9 ** 9 ** 9 }}".to_owned(),
        "{% macro f(n) %}{{ f(n) }}{{ f(n) }}{% endmacro %}{{ f(1) }}".to_owned(),
        "{% for m in [messages] recursive %}{{ loop([messages]) }}{% endfor %}".to_owned(),
        "{% include 'chat' %}".to_owned(),
        "{% extends 'chat' %}".to_owned(),
        "{% import 'chat' as c %}{{ c }}".to_owned(),
        format!("{{{{ strftime_now('{}') }}}}", "%c".repeat(19_000)),
        format!("{{{{ strftime_now('%{}d') }}}}", "9".repeat(9)),
        "{{ raise_exception('x' ~ messages) }}".to_owned(),
    ];
    for template in templates {
        let start = Instant::now();
        let result = ChatTemplate::compile(&template, "t", None, None)
            .and_then(|chat| chat.render("a cat", None));
        let shown: String = template.chars().take(80).collect();
        // Many times what it takes, as the machine may be busy; without limits it takes for ever.
        let most = Duration::from_mins(1);
        assert!(start.elapsed() < most, "{shown} took {:?}", start.elapsed());
        // Whatever ends in time is short.
        assert!(
            result.is_err() || result.is_ok_and(|text| text.len() < 4 << 20),
            "{shown}"
        );
    }
}

#[test]
fn the_same_mark_is_taken_out_of_a_text_that_has_it() {
    let (text, starts) = unmarked("a<!/s> [!INST]", '!');
    assert_eq!(text, "a</s> [INST]");
    assert_eq!(starts, BTreeSet::from([1, 6]));
}
