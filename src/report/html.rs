//! A run as one HTML page that needs nothing from the network: style, script
//! and drawings are inside, and its policy forbids everything else.

use std::time::Duration;

use anyhow::{Context, Result};
use minijinja::{Environment, UndefinedBehavior, Value, context, syntax::SyntaxConfig};
use serde::Serialize;

use super::{
    chart,
    page::{Page, PageNode, State},
    sketch, svg, views, words,
};
use crate::digest::Digest;

/// Nodes with a section of their own; those that failed or ran come first.
const SECTIONS: usize = 400;

/// Letters of a raw answer, prompt or parameter.
const LONGEST: usize = 4_000;

/// One box of the summary.
#[derive(Serialize)]
struct Count {
    state: State,
    nodes: usize,
    label: &'static str,
}

/// The page as a string of HTML.
///
/// # Errors
/// Only when the template is wrong.
pub fn html(page: &Page) -> Result<String> {
    let mut env = Environment::new();
    env.set_undefined_behavior(UndefinedBehavior::Strict);
    let syntax = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build();
    env.set_syntax(syntax.context("failed to set up the page's template")?);
    env.add_filter("duration", |seconds: f64| {
        words::duration(Duration::try_from_secs_f64(seconds).unwrap_or_default())
    });
    env.add_filter("size", words::size);
    env.add_filter("count", words::count);
    env.add_filter("counted", |number: usize, noun: &str| {
        words::counted(number, noun)
    });
    env.add_filter("cut", |text: &str| cut(text));
    env.add_template("page.html", include_str!("page.html"))
        .context("failed to read the page's template")?;

    let sections = sections(page);
    let linked = |i: usize| sections.binary_search(&i).is_ok();
    let counts: Vec<_> = [
        (State::Failed, "failed"),
        (State::Blocked, "blocked"),
        (State::Ran, "ran"),
        (State::Hit, "from the cache"),
    ]
    .into_iter()
    .map(|(state, label)| Count {
        state,
        nodes: page.count(state),
        label,
    })
    .filter(|count| count.nodes > 0)
    .collect();
    let tables: Vec<_> = page
        .tables
        .iter()
        .map(|table| Value::from_safe_string(table.to_html()))
        .collect();
    let charts: Vec<_> = page
        .tables
        .iter()
        .map(|table| chart::of_table(table, table.draw?))
        .map(|svg| svg.map_or_else(|| Value::from(()), Value::from_safe_string))
        .collect();
    let curves = chart::curves(&views::curves(page));
    let confusions: Vec<_> = page
        .nodes
        .iter()
        .map(|node| node.metrics.as_ref().and_then(views::confusion))
        .collect();
    let params: Vec<Vec<(&str, String)>> = page
        .nodes
        .iter()
        .map(|node| {
            node.params
                .iter()
                .map(|(name, value)| (name.as_str(), plain(value)))
                .collect()
        })
        .collect();
    let having = |test: &dyn Fn(&PageNode) -> bool| -> Vec<usize> {
        (0..page.nodes.len())
            .filter(|i| test(&page.nodes[*i]))
            .collect()
    };
    let of_run = page.run.warnings.iter().map(|text| (None, text));
    let of_nodes = page.nodes.iter().enumerate();
    let of_nodes =
        of_nodes.flat_map(|(i, node)| node.warnings.iter().map(move |text| (Some(i), text)));
    let warnings: Vec<_> = of_run.chain(of_nodes).collect();
    let template = env
        .get_template("page.html")
        .context("failed to read the page's template")?;
    template
        .render(context! {
            page => value(page),
            counts => value(&counts),
            tables,
            charts,
            curves => Value::from_safe_string(curves),
            sections => value(&sections),
            confusions => value(&confusions),
            warnings => value(&warnings),
            params => value(&params),
            failed => having(&|node| node.state == Some(State::Failed)),
            answered => having(&|node| node.answers.is_some()),
            grouped => page.nodes.len() > sketch::MOST,
            heats => value(&views::heats(page)),
            chosen => value(&views::chosen(page)),
            graph => svg::page(&page.nodes, &linked).map(Value::from_safe_string),
            marks => context! {
                hit => Value::from_safe_string(svg::mark(State::Hit).into()),
                ran => Value::from_safe_string(svg::mark(State::Ran).into()),
                failed => Value::from_safe_string(svg::mark(State::Failed).into()),
                blocked => Value::from_safe_string(svg::mark(State::Blocked).into()),
            },
            style => Value::from_safe_string(format!("{}{}", include_str!("page.css"), svg::SHAPES)),
            script => Value::from_safe_string(include_str!("page.js").into()),
            theme => Value::from_safe_string(include_str!("theme.js").into()),
            nonce => nonce(page),
        })
        .context("failed to fill in the page's template")
}

/// A word that no text on the page can know, as it depends on all of it: only
/// scripts that carry it run.
fn nonce(page: &Page) -> String {
    let text = serde_json::to_vec(page).unwrap_or_default();
    Digest::derived("runner page nonce v1", &text).short()
}

/// Indices of the nodes with a section of their own, ascending.
fn sections(page: &Page) -> Vec<usize> {
    let mut all: Vec<usize> = (0..page.nodes.len()).collect();
    let rank = |i: &usize| match page.nodes[*i].state {
        Some(State::Failed) => 0,
        Some(State::Ran) => 1,
        Some(State::Hit) => 2,
        Some(State::Blocked) | None => 3,
    };
    all.sort_by_key(rank);
    all.truncate(SECTIONS);
    all.sort_unstable();
    all
}

/// The start of a long text.
fn cut(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!(
            "{}… ({} letters in all)",
            &text[..end],
            text.chars().count()
        ),
        None => text.to_owned(),
    }
}

/// A parameter's value: text as it is, all else as JSON.
fn plain(value: &serde_json::Value) -> String {
    match value.as_str() {
        Some(text) => cut(text),
        None => cut(&value.to_string()),
    }
}

/// Anything as a value of a template.
pub(super) fn value<T: Serialize>(any: &T) -> Value {
    from_json(serde_json::to_value(any).unwrap_or_default())
}

fn from_json(json: serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::from(()),
        serde_json::Value::Bool(x) => x.into(),
        serde_json::Value::Number(x) => match (x.as_u64(), x.as_i64(), x.as_f64()) {
            (Some(x), ..) => x.into(),
            (None, Some(x), _) => x.into(),
            (None, None, x) => x.unwrap_or(f64::NAN).into(),
        },
        serde_json::Value::String(x) => x.into(),
        serde_json::Value::Array(list) => list.into_iter().map(from_json).collect(),
        serde_json::Value::Object(map) => {
            Value::from_pairs(map.into_iter().map(|(key, x)| (key, from_json(x))))
        }
    }
}

#[cfg(test)]
mod tests;
