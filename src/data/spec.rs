//! An entry of `[data]`, and what can be said of it without looking at the disk.

use std::{borrow::Cow, collections::BTreeMap, fmt, path::PathBuf};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::digest::Digest;

/// How a data set's files are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// CIFAR-10 as published, binary or for Python, as a folder or a `.tar.gz`; splits `train` and `test`.
    Cifar10,
    /// CIFAR-100 as published, binary or for Python, as a folder or a `.tar.gz`; splits `train` and `test`.
    Cifar100,
    /// A folder of PNG, JPEG and WebP images for each class, as torchvision's `ImageFolder` takes it.
    Folder,
}

/// Which of CIFAR-100's two label columns counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Labels {
    /// The 100 classes.
    #[default]
    Fine,
    /// The 20 groups of classes.
    Coarse,
}

/// Names of classes: a list in index order, or a table from folder names to names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClassNames {
    /// One name for each class, in index order.
    List(Vec<String>),
    /// Names for some or all class folders.
    Table(BTreeMap<String, String>),
}

/// An entry of `[data]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataSpec {
    /// How the files are laid out.
    pub format: Format,
    /// The folder, or the downloaded `.tar.gz` of CIFAR; relative to the file that names it.
    pub path: PathBuf,
    /// Which labels count (CIFAR-100 only).
    #[serde(default)]
    pub labels: Labels,
    /// Names to use in place of the files' own: a list in index order, or for folders a table such as `{ n01440764 = "tench" }`.
    #[serde(default)]
    pub class_names: Option<ClassNames>,
    /// The subfolders that hold the class folders, such as `["train", "val"]` (folders only); without it the data set has no splits and is used by its name alone.
    #[serde(default)]
    pub splits: Vec<String>,
    /// Keep only this many images of each split, for quick trials: the first ones, in folders the first of each class in turn.
    #[serde(default)]
    pub limit: Option<usize>,
    /// `blake3:…` that the data must have.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub digest: Option<Digest>,
}

/// A field that makes no sense, with what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The field of the entry.
    pub field: &'static str,
    /// What is wrong, as a sentence without its stop.
    pub message: String,
    /// What to write instead.
    pub hint: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\nhint: {}", self.message, self.hint)
    }
}

impl DataSpec {
    /// An entry of which only these two fields are written.
    pub fn new(format: Format, path: impl Into<PathBuf>) -> Self {
        Self {
            format,
            path: path.into(),
            labels: Labels::default(),
            class_names: None,
            splits: Vec::new(),
            limit: None,
            digest: None,
        }
    }

    /// The first field that does not go with the others, without a look at the disk.
    pub fn mistake(&self) -> Option<Mistake> {
        let mistake = |field, message: &str, hint: &str| {
            Some(Mistake {
                field,
                message: message.to_owned(),
                hint: hint.to_owned(),
            })
        };
        let folder = self.format == Format::Folder;
        if self.labels == Labels::Coarse && self.format != Format::Cifar100 {
            return mistake(
                "labels",
                "only CIFAR-100 has coarse labels",
                "remove `labels`",
            );
        }
        if !folder && !self.splits.is_empty() {
            return mistake(
                "splits",
                "`splits` is for folders; CIFAR has `train` and `test`",
                "remove `splits`",
            );
        }
        if !folder && matches!(self.class_names, Some(ClassNames::Table(_))) {
            return mistake(
                "class_names",
                "a table of names is for folders",
                "write a list of names in index order",
            );
        }
        if self.limit == Some(0) {
            return mistake("limit", "`limit = 0` leaves no image", "remove `limit`");
        }
        for (i, name) in self.splits.iter().enumerate() {
            if self.splits[..i].contains(name) {
                let message = format!("split `{name}` is named twice");
                return mistake("splits", &message, "name it once");
            }
            let plain = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
            if name.is_empty() || !name.chars().all(plain) {
                let message = format!("`{name}` cannot be the name of a split");
                let hint = "name a folder inside `path`, of letters, digits, `_` and `-`";
                return mistake("splits", &message, hint);
            }
        }
        None
    }
}

/// The splits that a data set has; none if it is used by its name alone.
pub fn splits(spec: &DataSpec) -> Vec<String> {
    match spec.format {
        Format::Cifar10 | Format::Cifar100 => vec!["test".to_owned(), "train".to_owned()],
        Format::Folder => spec.splits.clone(),
    }
}

impl Serialize for ClassNames {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::List(names) => names.serialize(serializer),
            Self::Table(names) => names.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for ClassNames {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = ClassNames;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of names or a table from folder names to names")
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<ClassNames, A::Error> {
                let mut names = Vec::new();
                while let Some(name) = seq.next_element()? {
                    names.push(name);
                }
                Ok(ClassNames::List(names))
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<ClassNames, A::Error> {
                let mut names = BTreeMap::new();
                while let Some((folder, name)) = map.next_entry()? {
                    names.insert(folder, name);
                }
                Ok(ClassNames::Table(names))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for ClassNames {
    fn schema_name() -> Cow<'static, str> {
        "ClassNames".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["array", "object"],
            "items": {"type": "string"},
            "additionalProperties": {"type": "string"},
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<DataSpec, toml::de::Error> {
        toml::from_str(text)
    }

    #[test]
    fn class_names_are_a_list_or_a_table() {
        let with = |names: &str| {
            read(&format!(
                "format = \"folder\"\npath = \"p\"\nclass_names = {names}"
            ))
        };
        assert_eq!(
            with("[\"cat\", \"dog\"]").unwrap().class_names,
            Some(ClassNames::List(vec!["cat".into(), "dog".into()]))
        );
        let table = with("{ n01440764 = \"tench\" }").unwrap();
        let names = BTreeMap::from([("n01440764".to_owned(), "tench".to_owned())]);
        assert_eq!(table.class_names, Some(ClassNames::Table(names)));
        let again: DataSpec =
            serde_json::from_value(serde_json::to_value(&table).unwrap()).unwrap();
        assert_eq!(again, table);
        let error = with("\"cat\"").unwrap_err();
        assert!(
            error
                .message()
                .contains("expected a list of names or a table from folder names to names"),
            "{error}"
        );
        // The error is at the value, not at the table.
        assert_eq!(error.span().map(|s| s.start), Some(43));
        assert!(with("[1]").is_err());
        assert!(with("{ a = 1 }").is_err());
    }

    #[test]
    fn unknown_fields_and_formats_are_refused() {
        assert!(read("format = \"cifar10\"\npath = \"p\"\nspilts = []").is_err());
        assert!(read("format = \"imagefolder\"\npath = \"p\"").is_err());
    }

    #[test]
    fn splits_are_known_without_the_disk() {
        let mut spec = DataSpec::new(Format::Cifar10, "nowhere");
        assert_eq!(splits(&spec), ["test", "train"]);
        spec.format = Format::Folder;
        assert!(splits(&spec).is_empty());
        spec.splits = vec!["train".into(), "val".into()];
        assert_eq!(splits(&spec), ["train", "val"]);
    }

    #[test]
    fn fields_that_do_not_go_together_are_told() {
        let field = |change: fn(&mut DataSpec)| {
            let mut spec = DataSpec::new(Format::Folder, "p");
            change(&mut spec);
            spec.mistake().map(|mistake| mistake.field)
        };
        assert_eq!(field(|_| ()), None);
        assert_eq!(field(|s| s.labels = Labels::Coarse), Some("labels"));
        assert_eq!(field(|s| s.limit = Some(0)), Some("limit"));
        assert_eq!(field(|s| s.splits = vec!["a/b".into()]), Some("splits"));
        assert_eq!(field(|s| s.splits = vec!["..".into()]), Some("splits"));
        assert_eq!(
            field(|s| s.splits = vec!["a".into(), "a".into()]),
            Some("splits")
        );
        let cifar = |s: &mut DataSpec| s.format = Format::Cifar10;
        let mut spec = DataSpec::new(Format::Folder, "p");
        spec.class_names = Some(ClassNames::Table(BTreeMap::new()));
        cifar(&mut spec);
        assert_eq!(spec.mistake().map(|m| m.field), Some("class_names"));
        let mut spec = DataSpec::new(Format::Cifar100, "p");
        spec.labels = Labels::Coarse;
        assert_eq!(spec.mistake(), None);
        spec.splits = vec!["train".into()];
        assert_eq!(spec.mistake().map(|m| m.field), Some("splits"));
    }

    #[test]
    fn every_field_is_described_in_the_schema() {
        let schema = schemars::schema_for!(DataSpec).to_value();
        let fields = schema["properties"].as_object().unwrap();
        assert_eq!(fields.len(), 7);
        for (name, field) in fields {
            assert!(field["description"].is_string(), "{name}");
        }
    }
}
