//! `runner kinds`: the list of kinds, and a page for each.

use std::{fmt::Write as _, process::ExitCode};

use anyhow::Result;
use clap::Args;
use serde_json::{Map, Value, json};
use unicode_width::UnicodeWidthStr as _;

use super::{Exit, print, print_json};
use crate::{
    cli::Global,
    node::{Accept, KindInfo, Port},
    nodes::{KINDS, kind},
    pipeline,
};

/// Arguments of `kinds`.
#[derive(Args, Debug)]
pub struct KindsArgs {
    /// One kind in full.
    kind: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Print the JSON Schema of pipeline files, for editors:
    /// runner kinds --schema > pipelines/schema.json
    #[arg(long)]
    schema: bool,
}

/// Lists the kinds, describes one, or prints the schema.
pub(super) fn run(args: &KindsArgs, _: &Global) -> Result<ExitCode> {
    if args.schema {
        print_json(&pipeline::schema())?;
        return Ok(ExitCode::SUCCESS);
    }
    let Some(name) = &args.kind else {
        if args.json {
            print_json(&json(KINDS))?;
        } else {
            print(&list(KINDS))?;
        }
        return Ok(ExitCode::SUCCESS);
    };
    let Some(kind) = kind(name) else {
        let names = KINDS
            .iter()
            .filter(|kind| !kind.hidden)
            .map(|kind| kind.name);
        let hint = pipeline::nearest(name, names).map_or_else(
            || "`runner kinds` lists them".to_owned(),
            |close| format!("did you mean `{close}`?"),
        );
        return Err(Exit::usage(format!(
            "there is no kind `{name}`\nhint: {hint}"
        )));
    };
    if args.json {
        print_json(&json_of(kind))?;
    } else {
        print(&page(kind, 100))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The list of `kinds`, hidden ones left out.
pub(super) fn list(kinds: &[KindInfo]) -> String {
    let shown = || kinds.iter().filter(|kind| !kind.hidden);
    let width = shown().map(|kind| kind.name.width()).max().unwrap_or(0);
    let mut out = String::new();
    for kind in shown() {
        let _ = writeln!(out, "{:width$}  {}", kind.name, kind.summary);
    }
    out + "\n`runner kinds KIND` has the page of one.\n"
}

/// The page of one kind: what it does, what it reads, its parameters, in lines
/// of at most `width` columns.
pub(super) fn page(kind: &KindInfo, width: usize) -> String {
    let mut out = format!("{}: {}\n\n{}\n", kind.name, kind.summary, kind.doc.trim());
    let inputs: Vec<Entry> = kind.ports.iter().map(port_entry).collect();
    push_entries(&mut out, "Reads", &inputs, width);
    let params: Vec<Entry> = params(kind)
        .into_iter()
        .map(|param| {
            let file = kind.files.iter().find(|file| file.sets == param.name);
            let mut entry = param.entry();
            if let Some(file) = file {
                let _ = write!(entry.about, ", or `{}`", file.field);
            }
            entry
        })
        .collect();
    push_entries(&mut out, "Parameters", &params, width);
    let files: Vec<Entry> = kind
        .files
        .iter()
        .map(|file| Entry {
            name: file.field.to_owned(),
            about: "a path".to_owned(),
            doc: format!(
                "Sets `{}` to the file's text; only the text counts.",
                file.sets
            ),
        })
        .collect();
    push_entries(&mut out, "Parameters as files", &files, width);
    let draws = if kind.draws {
        "; draws random numbers, from `seed` and `stream`"
    } else {
        ""
    };
    let _ = writeln!(out, "\nVersion {}{draws}.", kind.version);
    out
}

/// Everything about `kinds` as JSON, hidden ones left out.
pub(super) fn json(kinds: &[KindInfo]) -> Value {
    kinds
        .iter()
        .filter(|kind| !kind.hidden)
        .map(json_of)
        .collect()
}

/// Everything about one kind as JSON.
pub(super) fn json_of(kind: &KindInfo) -> Value {
    let ports = kind.ports.iter().map(|port| {
        json!({
            "name": port.name,
            "accepts": port.accepts.iter().map(|accept| accept_words(*accept)).collect::<Vec<_>>(),
            "required": port.required,
            "many": port.many,
            "doc": port.doc,
        })
    });
    let files: Map<_, _> = kind
        .files
        .iter()
        .map(|f| (f.field.to_owned(), f.sets.into()))
        .collect();
    json!({
        "name": kind.name,
        "version": kind.version,
        "summary": kind.summary,
        "doc": kind.doc,
        "draws": kind.draws,
        "ports": ports.collect::<Vec<_>>(),
        "files": files,
        "parameters": (kind.schema)().to_value(),
    })
}

/// A line of a list: name, what it is, what it is for.
struct Entry {
    name: String,
    about: String,
    doc: String,
}

fn push_entries(out: &mut String, title: &str, entries: &[Entry], width: usize) {
    if entries.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n{title}");
    let name = entries
        .iter()
        .map(|entry| entry.name.width())
        .max()
        .unwrap_or(0);
    let margin = name + 4;
    for entry in entries {
        let _ = writeln!(out, "  {:name$}  {}", entry.name, entry.about);
        for line in wrap(&entry.doc, width.saturating_sub(margin).max(30)) {
            let _ = writeln!(out, "{:margin$}{line}", "");
        }
    }
}

/// `text` in lines of at most `width` columns, broken at spaces.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.width() + 1 + word.width() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

fn port_entry(port: &Port) -> Entry {
    let accepts: Vec<_> = port
        .accepts
        .iter()
        .map(|accept| accept_words(*accept))
        .collect();
    let many = if port.many { "a list of: " } else { "" };
    let need = if port.required {
        "required"
    } else {
        "optional"
    };
    Entry {
        name: port.name.to_owned(),
        about: format!("{many}{}; {need}", accepts.join(", or ")),
        doc: port.doc.to_owned(),
    }
}

fn accept_words(accept: Accept) -> String {
    match accept {
        Accept::Artifact(r#type) => format!("{type} of a node"),
        Accept::Split => "a split of a data set".to_owned(),
        Accept::Classes => "classes: a data set, a list of names, a node".to_owned(),
        Accept::Clip => "a CLIP model, or a node that outputs weights".to_owned(),
        Accept::Llm => "a language model".to_owned(),
    }
}

/// A parameter as its JSON Schema describes it.
struct Param {
    name: String,
    schema: Value,
    required: bool,
    /// `$defs` that the schema may refer to.
    definitions: Value,
}

/// The parameters of a kind in the order of its struct.
fn params(kind: &KindInfo) -> Vec<Param> {
    let schema = (kind.schema)().to_value();
    let required = |name: &str| {
        let list = schema["required"].as_array().into_iter().flatten();
        list.into_iter().any(|required| required == name)
    };
    let properties = schema["properties"].as_object().into_iter().flatten();
    properties
        .map(|(name, property)| Param {
            name: name.clone(),
            schema: property.clone(),
            required: required(name),
            definitions: schema["$defs"].clone(),
        })
        .collect()
}

impl Param {
    fn entry(self) -> Entry {
        let mut about = type_words(&self.schema, &self.definitions);
        for (key, word) in [
            ("minimum", "at least"),
            ("exclusiveMinimum", "above"),
            ("maximum", "at most"),
        ] {
            // Unsigned integers have a minimum of 0 that nobody wrote.
            match self.schema.get(key) {
                Some(bound) if bound.as_f64() != Some(0.0) || key != "minimum" => {
                    let _ = write!(about, ", {word} {bound}");
                }
                _ => {}
            }
        }
        match self.schema.get("default") {
            Some(Value::Null) | None if self.required => about += "; required",
            Some(Value::Null) | None => about += "; optional",
            Some(default) => {
                let _ = write!(about, "; default {default}");
            }
        }
        let doc = self.schema["description"].as_str().or_else(|| {
            let name = self.schema["$ref"].as_str()?.rsplit('/').next()?;
            self.definitions[name]["description"].as_str()
        });
        Entry {
            name: self.name,
            about,
            doc: doc.unwrap_or_default().to_owned(),
        }
    }
}

/// The type that a schema describes, in words.
fn type_words(schema: &Value, definitions: &Value) -> String {
    if let Some(name) = schema["$ref"]
        .as_str()
        .and_then(|path| path.rsplit('/').next())
    {
        return type_words(&definitions[name], definitions);
    }
    let choices = schema["enum"]
        .as_array()
        .or_else(|| schema["oneOf"].as_array());
    let choices = choices.or_else(|| schema["anyOf"].as_array());
    if let Some(choices) = choices {
        let words: Vec<String> = choices
            .iter()
            .filter(|choice| choice["type"] != "null")
            .map(|choice| match choice.get("const") {
                Some(constant) => constant.to_string(),
                None if choice.is_string() => choice.to_string(),
                None => type_words(choice, definitions),
            })
            .collect();
        return words.join(" or ");
    }
    let one = |name: &str| match name {
        "string" => "text".to_owned(),
        "boolean" => "true or false".to_owned(),
        "array" => match schema.get("items") {
            Some(items) => format!("a list of {}", type_words(items, definitions)),
            None => "a list".to_owned(),
        },
        "object" => "a table".to_owned(),
        other => other.to_owned(),
    };
    match &schema["type"] {
        Value::String(name) => one(name),
        Value::Array(names) => {
            let names = names
                .iter()
                .filter_map(Value::as_str)
                .filter(|name| *name != "null");
            names.map(one).collect::<Vec<_>>().join(" or ")
        }
        _ => schema
            .get("const")
            .map_or_else(|| "any value".to_owned(), Value::to_string),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use schemars::JsonSchema;
    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::{
        artifact::{Output, Type},
        node::{Ctx, Done, Inputs, Kind, Node, TextFile},
    };

    #[derive(Serialize, Deserialize, JsonSchema, Default)]
    #[serde(rename_all = "lowercase")]
    enum Json {
        /// With retries.
        #[default]
        Free,
        Off,
    }

    #[derive(Serialize, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        /// What the model is told; it sees `class` and `chosen`, and whatever else a long sentence may need to say about it.
        prompt: String,
        /// Spread of the distribution.
        #[serde(default)]
        #[schemars(range(min = 0.1, max = 2.0))]
        temperature: f64,
        /// Tokens to choose from.
        #[serde(default)]
        top_k: Option<u32>,
        /// How answers are read.
        #[serde(default)]
        json: Json,
        /// Words never to be used.
        #[serde(default)]
        avoid: Vec<String>,
    }

    impl Node for Sample {
        fn output(&self, _: &BTreeSet<&str>) -> Type {
            Type::Answers
        }
        fn finish(&self, _: &Inputs, _: &Done, _: &mut Ctx<'_>) -> anyhow::Result<Output> {
            anyhow::bail!("a sample does not run")
        }
    }

    impl Kind for Sample {
        const NAME: &'static str = "sample";
        const VERSION: u32 = 3;
        const PORTS: &'static [Port] = &[
            Port::required("model", &[Accept::Llm], "The model that answers."),
            Port::optional(
                "chosen",
                &[Accept::Artifact(Type::Attributes), Accept::Classes],
                "What was chosen so far.",
            ),
        ];
        const FILES: &'static [TextFile] = &[TextFile {
            field: "prompt_file",
            sets: "prompt",
        }];
        const DRAWS: bool = true;
        const SUMMARY: &'static str = "asks a model";
        const DOC: &'static str =
            "Asks a model about each class.\n\n    [nodes.x]\n    kind = \"sample\"";
    }

    #[test]
    fn a_page_teaches_a_kind() {
        insta::assert_snapshot!(page(&KindInfo::of::<Sample>(), 80));
    }

    #[test]
    fn hidden_kinds_are_not_listed() {
        let kinds = [
            KindInfo::of::<Sample>(),
            KindInfo {
                hidden: true,
                name: "secret",
                ..KindInfo::of::<Sample>()
            },
        ];
        insta::assert_snapshot!(list(&kinds));
        assert_eq!(json(&kinds).as_array().unwrap().len(), 1);
        assert_eq!(
            json(&kinds)[0]["parameters"]["properties"]["top_k"]["default"],
            Value::Null
        );
    }
}
