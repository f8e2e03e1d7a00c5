//! Where a Hugging Face folder keeps its chat template and its special tokens.

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;
use serde_json::Value;

use crate::models::{
    tokenizer::{Tokenizer, read_json},
    weights::read_small,
};

/// The files of a Hugging Face folder that may hold a chat template or special tokens.
pub const FILES: [&str; 4] = [
    "chat_template.jinja",
    "chat_template.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
];
/// The special tokens that a template sees, by the names it sees them under.
pub(super) const TOKENS: [&str; 7] = [
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
];

/// A template's text, the file it came from, and the special tokens it is given.
pub(super) struct Found {
    pub(super) template: String,
    pub(super) source: String,
    pub(super) tokens: Vec<(&'static str, String)>,
}

/// `tokenizer_config.json`, `special_tokens_map.json` or `chat_template.json`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Config {
    chat_template: Option<Value>,
    bos_token: Option<Value>,
    eos_token: Option<Value>,
    unk_token: Option<Value>,
    sep_token: Option<Value>,
    pad_token: Option<Value>,
    cls_token: Option<Value>,
    mask_token: Option<Value>,
}

impl Config {
    /// In the order of [`TOKENS`].
    fn tokens(&self) -> [Option<String>; 7] {
        [
            &self.bos_token,
            &self.eos_token,
            &self.unk_token,
            &self.sep_token,
            &self.pad_token,
            &self.cls_token,
            &self.mask_token,
        ]
        .map(|token| text_of(token.as_ref()))
    }
}

/// Reads a folder. As in transformers, `chat_template.jinja` comes before
/// `tokenizer_config.json`; `chat_template.json`, which its processors once
/// wrote, comes last.
pub(super) fn find(folder: &Path) -> Result<Found> {
    let path = folder.join("tokenizer_config.json");
    let config: Option<Config> = read_json(&path)?;
    let named_in_config = config.is_some();
    let config = config.unwrap_or_default();
    let tokens = tokens(folder, &config)?;
    let found = |template: String, path: &Path| {
        Ok(Found {
            template,
            source: path.display().to_string(),
            tokens,
        })
    };
    let jinja = folder.join("chat_template.jinja");
    if jinja.exists() {
        let bytes = read_small(&jinja, super::LONGEST as u64)?;
        let text = String::from_utf8(bytes);
        let text = text.map_err(|_| anyhow!("`{}` is not UTF-8", jinja.display()))?;
        return found(text, &jinja);
    }
    if let Some(template) = template_of(config.chat_template.as_ref(), &path)? {
        return found(template, &path);
    }
    let old = folder.join("chat_template.json");
    if let Some(config) = read_json::<Config>(&old)?
        && let Some(template) = template_of(config.chat_template.as_ref(), &old)?
    {
        return found(template, &old);
    }
    bail!(
        "no chat template in `{}`: there is no `chat_template.jinja`, and {}\n\
         hint: add the `chat_template.jinja` or the `tokenizer_config.json` of the model's \
         Hugging Face folder; a model that is not tuned for chats has neither",
        folder.display(),
        if named_in_config {
            "`tokenizer_config.json` has no `chat_template`"
        } else {
            "no `tokenizer_config.json` either"
        }
    )
}

/// The special tokens that a folder names, or else its `SentencePiece` file.
fn tokens(folder: &Path, config: &Config) -> Result<Vec<(&'static str, String)>> {
    let map: Config = read_json(&folder.join("special_tokens_map.json"))?.unwrap_or_default();
    let mut tokens = config.tokens();
    for (token, other) in tokens.iter_mut().zip(map.tokens()) {
        *token = token.take().or(other);
    }
    let [bos, eos, unk, ..] = &mut tokens;
    let known = bos.is_some() && eos.is_some();
    if !known && Tokenizer::is_pieces(folder) {
        let names = Tokenizer::open_folder(folder)?.special_names();
        for (token, name) in [(bos, names.bos), (eos, names.eos), (unk, names.unk)] {
            *token = token.take().or(name);
        }
    }
    let named = TOKENS.into_iter().zip(tokens);
    Ok(named
        .filter_map(|(name, token)| Some((name, token?)))
        .collect())
}

/// The template of a configuration: a text, or the one named `default` in a list.
fn template_of(value: Option<&Value>, path: &Path) -> Result<Option<String>> {
    let path = path.display();
    let text = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => text,
        Some(Value::Array(list)) => {
            let name = |entry: &Value| entry.get("name")?.as_str().map(str::to_owned);
            let default = (list.iter()).find(|entry| name(entry).as_deref() == Some("default"));
            let default = default.with_context(|| {
                let names: Vec<String> = list.iter().filter_map(name).take(8).collect();
                format!(
                    "`{path}` names the chat templates `{}`, but none `default`",
                    names.join("`, `")
                )
            })?;
            (default.get("template").and_then(Value::as_str))
                .with_context(|| format!("the chat template `default` of `{path}` is no text"))?
        }
        Some(_) => bail!("the `chat_template` of `{path}` is neither a text nor a list"),
    };
    Ok(Some(text.to_owned()))
}

/// A token written as a text or as an object with `content`.
fn text_of(token: Option<&Value>) -> Option<String> {
    let token = token?;
    (token.as_str())
        .or_else(|| token.get("content")?.as_str())
        .map(str::to_owned)
}
