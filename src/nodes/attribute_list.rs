//! `attribute_list`: attributes written by hand, so that any list can be scored
//! without a language model.

mod source;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, anyhow, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::json;

use self::source::{Entry, Source};
use super::listed;
use crate::{
    artifact::{Artifact, Attributes, ClassAttributes, Output, Type},
    node::{Accept, Complaint, Ctx, Done, Inputs, Kind, Node, Port, TextFile},
};

/// Attributes by class.
type Lists = BTreeMap<String, Vec<String>>;

/// Parameters of `attribute_list`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AttributeList {
    /// The attributes of each class: a table such as `{ cat = ["fur", "whiskers"] }`,
    /// or a text that holds one in TOML or JSON.
    attributes: Source,
    /// The table of that text to read, where it has several.
    #[serde(default)]
    section: Option<String>,
    /// Keeps only so many of each class, the first ones; all by default.
    #[serde(default)]
    first: Option<usize>,
}

impl Serialize for AttributeList {
    /// Writes what the attributes are, not where they stand: a section of a file
    /// and the same lists in the pipeline are the same parameters.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // `check` tells what is wrong with lists that cannot be read.
        let lists = self.lists().ok();
        json!({"attributes": lists, "first": self.first}).serialize(serializer)
    }
}

impl AttributeList {
    /// The attributes of each class that is listed, or what is wrong with them.
    fn lists(&self) -> Result<Lists, Complaint> {
        let complain = |field, message: String, hint: String| Complaint {
            field: Some(field),
            message,
            hint: (!hint.is_empty()).then_some(hint),
        };
        let wrong =
            |message: &str, hint: &str| complain("attributes", message.to_owned(), hint.to_owned());
        let parsed;
        let mut table = match &self.attributes {
            Source::Table(table) => table,
            Source::Text(text) => {
                parsed = source::parse(text).map_err(|message| {
                    wrong(
                        &message,
                        "write a list for each class: cat = [\"soft fur\"]",
                    )
                })?;
                &parsed
            }
        };
        if let Some(section) = &self.section {
            if matches!(self.attributes, Source::Table(_)) {
                return Err(complain(
                    "section",
                    "a section is a part of a text, and these attributes are a table".to_owned(),
                    "remove `section`".to_owned(),
                ));
            }
            let found = table.iter().find_map(|(name, entry)| match entry {
                Entry::Table(inner) if name == section => Some(inner),
                _ => None,
            });
            let sections = table
                .iter()
                .filter(|(_, entry)| matches!(entry, Entry::Table(_)))
                .map(|(name, _)| name.as_str());
            table = found.ok_or_else(|| {
                let hint = suggest(section, "the text has", sections);
                complain("section", format!("there is no table `{section}`"), hint)
            })?;
        }
        if table.is_empty() {
            return Err(wrong("no class is listed", "write cat = [\"soft fur\"]"));
        }
        let mut lists = Lists::new();
        for (class, entry) in table {
            let Entry::List(entries) = entry else {
                return Err(match (entry, &self.section) {
                    (Entry::Table(_), None) => {
                        let hint = match self.attributes {
                            Source::Text(_) => format!("say which table: section = \"{class}\""),
                            Source::Table(_) => String::new(),
                        };
                        complain(
                            "attributes",
                            format!("`{class}` is a table of lists, not the list of a class"),
                            hint,
                        )
                    }
                    _ => wrong(
                        &format!("the attributes of `{class}` are no list of texts"),
                        &format!("write {class} = [\"soft fur\"]"),
                    ),
                });
            };
            let mut attributes = Vec::with_capacity(entries.len());
            for entry in entries {
                match entry {
                    Entry::Text(text) if text.trim().is_empty() => {
                        let message = format!("an attribute of `{class}` is empty");
                        return Err(wrong(&message, "remove it, or write it down"));
                    }
                    Entry::Text(text) => attributes.push(text.clone()),
                    _ => {
                        let message = format!("an attribute of `{class}` is not a text");
                        return Err(wrong(&message, "put quotation marks around it"));
                    }
                }
            }
            lists.insert(class.clone(), attributes);
        }
        Ok(lists)
    }
}

impl Node for AttributeList {
    fn output(&self, _: &BTreeSet<&str>) -> Type {
        Type::Attributes
    }

    fn check(&self, _: &BTreeSet<&str>) -> Vec<Complaint> {
        self.lists().err().into_iter().collect()
    }

    fn reads(&self, port: &str, _: &BTreeSet<&str>) -> Option<&'static [&'static str]> {
        (port == "classes").then_some(&["classes"])
    }

    fn finish(&self, inputs: &Inputs, _: &Done, ctx: &mut Ctx<'_>) -> Result<Output> {
        let classes = inputs.classes("classes")?;
        let lists = self.lists().map_err(|wrong| anyhow!(wrong.message))?;
        let names = || classes.iter().map(String::as_str);
        let unknown: Vec<&str> = (lists.keys().map(String::as_str))
            .filter(|listed| !names().any(|class| class == *listed))
            .collect();
        if let Some(first) = unknown.first() {
            bail!(
                "attributes are listed for {}, which `classes` does not name\nhint: {}",
                listed(&unknown),
                suggest(first, "the classes are", names())
            );
        }
        let mut few = Vec::new();
        let mut missing = Vec::new();
        let mut out = Vec::with_capacity(classes.len());
        for class in &classes {
            let all = lists.get(class).map_or(&[][..], Vec::as_slice);
            let kept = self.first.unwrap_or(all.len()).min(all.len());
            if !lists.contains_key(class) {
                missing.push(class.as_str());
            } else if self.first.is_some_and(|first| kept < first) {
                few.push(class.as_str());
            }
            out.push(ClassAttributes {
                class: class.clone(),
                attributes: all[..kept].to_vec(),
                ..ClassAttributes::default()
            });
        }
        if !missing.is_empty() {
            (ctx.warn)(format!(
                "no attributes are listed for {}: there will be none",
                listed(&missing)
            ));
        }
        if let (Some(first), false) = (self.first, few.is_empty()) {
            (ctx.warn)(format!(
                "fewer than first = {first} attributes are listed for {}: all of them are kept",
                listed(&few)
            ));
        }
        Attributes { classes: out }.output()
    }
}

/// "Did you mean", or else the names that there are.
fn suggest<'a>(word: &str, what: &str, names: impl Iterator<Item = &'a str>) -> String {
    let lower = word.to_lowercase();
    let names: Vec<&str> = names.collect();
    let near = names
        .iter()
        .map(|name| (strsim::osa_distance(&lower, &name.to_lowercase()), name))
        .filter(|(distance, _)| *distance <= 1 + word.chars().count() / 5)
        .min_by_key(|(distance, _)| *distance);
    match near {
        Some((_, name)) => format!("did you mean `{name}`?"),
        None if names.is_empty() => format!("{what} none"),
        None => format!("{what} {}", listed(&names)),
    }
}

impl Kind for AttributeList {
    const NAME: &'static str = "attribute_list";
    const VERSION: u32 = 1;
    const PORTS: &'static [Port] = &[Port::required(
        "classes",
        &[Accept::Classes],
        "Classes that have attributes.",
    )];
    const FILES: &'static [TextFile] = &[TextFile {
        field: "attributes_file",
        sets: "attributes",
    }];
    const SUMMARY: &'static str =
        "takes attributes that are written down, for scoring by themselves";
    const DOC: &'static str = r#"Takes the attributes of each class from the pipeline or from a file, so that a list
of any origin can be put into prompts and scored: a published table, another method's
choice, one's own guess. No language model is asked.

A file is TOML or JSON: a list of texts for each class. Where its lists stand in tables,
`section` says which one; nothing else of the file counts. `first` keeps the first
attributes of each class. The classes of the list must be among `classes`; one of
`classes` that is not listed gets no attribute, with a warning.

The same lists are the same parameters, wherever they are written: moving them into a
file computes nothing again.

Artifact: `attributes.json` (for each class `attributes`).

Example, in the pipeline:

    [nodes.mine]
    kind = "attribute_list"
    classes = "cifar10"
    attributes = { cat = ["soft fur", "whiskers"], dog = ["wet nose"] }

Example, the first one, two, three of a published table:

    [nodes.published]
    kind = "attribute_list"
    matrix = { n = [1, 2, 3] }
    classes = "cifar10"
    attributes_file = "published.toml"
    section = "table1"
    first = "${n}"

    [nodes.prompts]
    kind = "clip_encode"
    matrix = { n = [1, 2, 3] }
    model = "clip"
    classes = "cifar10"
    chosen = "published@${n}"
    prompts = "This is a photo of a {{ class }} because of {{ attributes | join(' and ') }}"
"#;
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::Value;

    use super::*;
    use crate::{
        data::ClassList,
        node::{Input, KindInfo},
        nodes::in_memory::finish,
    };

    const PUBLISHED: &str = include_str!("../../pipelines/published.toml");

    fn read(fields: &str) -> AttributeList {
        toml::from_str(fields).unwrap()
    }

    fn params(fields: &str) -> Value {
        serde_json::to_value(read(fields)).unwrap()
    }

    fn complaint(fields: &str) -> (&'static str, String) {
        let complaints = read(fields).check(&BTreeSet::new());
        assert_eq!(complaints.len(), 1, "{fields}");
        let complaint = &complaints[0];
        let hint = complaint.hint.as_deref().unwrap_or("none");
        let text = format!("{}\nhint: {hint}", complaint.message);
        (complaint.field.unwrap(), text)
    }

    fn run(fields: &str, classes: &[&str]) -> Result<(Vec<ClassAttributes>, Vec<String>)> {
        let classes = classes.iter().map(|class| (*class).to_owned()).collect();
        let classes = Input::Classes(Arc::new(ClassList::new(classes)?));
        let node = read(fields);
        assert!(node.check(&BTreeSet::new()).is_empty(), "{fields}");
        let (attributes, labels, warnings): (Attributes, _, _) =
            finish(&node, vec![("classes", classes)])?;
        assert!(labels.is_empty(), "no label is read");
        Ok((attributes.classes, warnings))
    }

    fn class(class: &str, attributes: &[&str]) -> ClassAttributes {
        ClassAttributes {
            class: class.to_owned(),
            attributes: attributes.iter().map(|a| (*a).to_owned()).collect(),
            ..ClassAttributes::default()
        }
    }

    #[test]
    fn classes_come_in_their_own_order_with_the_attributes_as_written() {
        let (found, warnings) = run(
            "attributes = { dog = [\" wet nose\"], cat = [\"fur_color\", \"é\", \"fur_color\"] }",
            &["cat", "dog"],
        )
        .unwrap();
        let cat = class("cat", &["fur_color", "é", "fur_color"]);
        assert_eq!(found, [cat, class("dog", &[" wet nose"])]);
        assert!(warnings.is_empty());
    }

    #[test]
    fn the_first_are_kept_and_what_is_missing_is_told() {
        let fields = |first: &str| {
            format!("{first}\nattributes = {{ a = [\"1\", \"2\", \"3\"], b = [\"4\"], d = [] }}")
        };
        let (found, warnings) = run(&fields("first = 2"), &["a", "b", "c", "d"]).unwrap();
        let expected = [
            class("a", &["1", "2"]),
            class("b", &["4"]),
            class("c", &[]),
            class("d", &[]),
        ];
        assert_eq!(found, expected);
        assert_eq!(
            warnings,
            [
                "no attributes are listed for `c`: there will be none",
                "fewer than first = 2 attributes are listed for `b`, `d`: all of them are kept",
            ]
        );
        let (found, warnings) = run(&fields("first = 0"), &["a", "b", "d"]).unwrap();
        assert!(found.iter().all(|entry| entry.attributes.is_empty()));
        assert!(warnings.is_empty());
        let (found, _) = run(&fields(""), &["a", "b", "d"]).unwrap();
        assert_eq!(found[0].attributes, ["1", "2", "3"]);
    }

    #[test]
    fn a_class_that_is_not_there_is_an_error_with_what_was_meant() {
        let error = |list: &str| {
            let fields = format!("attributes = {{ {list} }}");
            run(&fields, &["airplane", "cat"]).unwrap_err().to_string()
        };
        assert_eq!(
            error("cat = [], Airplan = [\"long\"]"),
            "attributes are listed for `Airplan`, which `classes` does not name\nhint: did you mean `airplane`?"
        );
        assert_eq!(
            error("zebra = [], dog = []"),
            "attributes are listed for `dog`, `zebra`, which `classes` does not name\nhint: the classes are `airplane`, `cat`"
        );
    }

    #[test]
    fn the_same_lists_are_the_same_parameters_wherever_they_are_written() {
        let inline = params("attributes = { dog = [\"wet nose\"], cat = [\"soft fur\"] }");
        assert_eq!(
            inline,
            json!({"attributes": {"cat": ["soft fur"], "dog": ["wet nose"]}, "first": null})
        );
        for text in [
            "attributes = '''cat = [\"soft fur\"]\ndog = ['wet nose'] # wet'''",
            "attributes = '''{\"dog\": [\"wet nose\"], \"cat\": [\"soft fur\"]}'''",
            "section = \"b\"\nattributes = '''[a]\nn = [1.5]\n[b]\ncat = [\"soft fur\"]\ndog = ['wet nose']'''",
            "section = \"b\"\nattributes = '''{\"a\": null, \"b\": {\"cat\": [\"soft fur\"], \"dog\": [\"wet nose\"]}}'''",
        ] {
            assert_eq!(params(text), inline, "{text}");
        }
        assert_ne!(
            params("first = 1\nattributes = { cat = [\"soft fur\"] }"),
            inline
        );
    }

    #[test]
    fn nonsense_is_told_at_its_field() {
        for (fields, field, text) in [
            (
                "attributes = { cat = [\"\"] }",
                "attributes",
                "an attribute of `cat` is empty\nhint: remove it, or write it down",
            ),
            (
                "attributes = { cat = [1] }",
                "attributes",
                "an attribute of `cat` is not a text\nhint: put quotation marks around it",
            ),
            (
                "attributes = { cat = \"fur\" }",
                "attributes",
                "the attributes of `cat` are no list of texts\nhint: write cat = [\"soft fur\"]",
            ),
            (
                "attributes = {}",
                "attributes",
                "no class is listed\nhint: write cat = [\"soft fur\"]",
            ),
            (
                "attributes = '''[table1]\ncat = [\"fur\"]'''",
                "attributes",
                "`table1` is a table of lists, not the list of a class\nhint: say which table: section = \"table1\"",
            ),
            (
                "section = \"tabel1\"\nattributes = '''x = 1\n[table1]\ncat = [\"fur\"]'''",
                "section",
                "there is no table `tabel1`\nhint: did you mean `table1`?",
            ),
            (
                "section = \"a\"\nattributes = '''cat = [\"fur\"]'''",
                "section",
                "there is no table `a`\nhint: the text has none",
            ),
            (
                "section = \"a\"\nattributes = { cat = [\"fur\"] }",
                "section",
                "a section is a part of a text, and these attributes are a table\nhint: remove `section`",
            ),
        ] {
            assert_eq!(complaint(fields), (field, text.to_owned()), "{fields}");
            assert!(params(fields)["attributes"].is_null());
        }
        let (field, text) = complaint("attributes = '''cat = [\"fur\"]\ndog = ['''");
        assert_eq!(field, "attributes");
        assert!(text.starts_with("line 2 is not valid TOML: "), "{text}");
        assert!(toml::from_str::<AttributeList>("attributes = 3").is_err());
        assert!(toml::from_str::<AttributeList>("attributes = {}\nsections = \"a\"").is_err());
    }

    #[test]
    fn published_tables_can_be_read() {
        let classes = [
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
        let text = format!("section = \"table1\"\nattributes = '''{PUBLISHED}'''");
        let (found, warnings) = run(&text, &classes).unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        assert_eq!(
            found[3],
            class("cat", &["fur_color", "whiskers_length", "ear_shape"])
        );
        assert_eq!(found[9].attributes[0], "rectangular shape");
        assert!(found.iter().all(|entry| entry.attributes.len() == 3));
        let text = format!("section = \"figure1\"\nattributes = '''{PUBLISHED}'''");
        let (found, _) = run(&text, &classes).unwrap();
        assert_eq!(
            found[0].attributes,
            ["two wings", "landing gear", "pressurized cabin"]
        );
    }

    #[test]
    fn the_schema_takes_a_table_or_a_text() {
        let info = KindInfo::of::<AttributeList>();
        let schema = (info.schema)().to_value();
        let attributes = &schema["properties"]["attributes"];
        assert_eq!(attributes["type"], json!(["object", "string"]));
        assert_eq!(schema["required"], json!(["attributes"]));
        for name in ["attributes", "section", "first"] {
            let description = &schema["properties"][name]["description"];
            assert!(
                description.as_str().is_some_and(|text| !text.is_empty()),
                "{name}"
            );
        }
    }
}
