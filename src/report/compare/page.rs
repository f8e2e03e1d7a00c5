//! A comparison as one HTML page, with the style and the policy of a run's page.

use std::time::Duration;

use anyhow::{Context, Result};
use minijinja::{Environment, UndefinedBehavior, Value, context, syntax::SyntaxConfig};

use super::{
    super::{html::value, words},
    Comparison, RunSide,
};
use crate::digest::Digest;

/// Letters of a parameter.
const LONGEST: usize = 2_000;

/// What differs between two runs as a page that needs nothing from the network.
///
/// # Errors
/// Only when the template is wrong.
pub fn compare_html(a: &RunSide, b: &RunSide) -> Result<String> {
    Comparison::of(a, b).to_html()
}

impl Comparison {
    /// The comparison as a page.
    ///
    /// # Errors
    /// Only when the template is wrong.
    pub fn to_html(&self) -> Result<String> {
        let mut env = Environment::new();
        env.set_undefined_behavior(UndefinedBehavior::Strict);
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build();
        env.set_syntax(syntax.context("failed to set up the comparison's template")?);
        env.add_filter("duration", |seconds: f64| {
            words::duration(Duration::try_from_secs_f64(seconds).unwrap_or_default())
        });
        env.add_filter("counted", |number: usize, noun: &str| {
            words::counted(number, noun)
        });
        env.add_filter("cut", |text: &str| cut(text));
        env.add_filter("signed", |number: f64, decimals: usize| {
            super::tables::write(number, decimals)
        });
        env.add_template("compare.html", include_str!("../compare.html"))
            .context("failed to read the comparison's template")?;
        let template = env
            .get_template("compare.html")
            .context("failed to read the comparison's template")?;
        // No text on the page can know this word, as it depends on all of it.
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        let nonce = Digest::derived("runner comparison nonce v1", &bytes).short();
        template
            .render(context! {
                c => value(self),
                style => Value::from_safe_string(include_str!("../page.css").into()),
                script => Value::from_safe_string(include_str!("../page.js").into()),
                theme => Value::from_safe_string(include_str!("../theme.js").into()),
                nonce,
            })
            .context("failed to fill in the comparison's template")
    }
}

/// The start of a long text.
fn cut(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
