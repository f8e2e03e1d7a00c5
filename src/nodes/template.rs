//! Templates of texts and prompts: minijinja with undefined names as errors.

use std::borrow::Cow;

use anyhow::{Result, anyhow};
use minijinja::{Environment, UndefinedBehavior};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::Value;

/// One string or a list of strings; one is written as a string.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct OneOrMany(Vec<String>);

impl OneOrMany {
    /// The strings.
    pub(super) fn list(&self) -> &[String] {
        &self.0
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for OneOrMany {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [one] => one.serialize(serializer),
            many => many.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = OneOrMany;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string or a list of strings")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<OneOrMany, E> {
                Ok(OneOrMany(vec![text.to_owned()]))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<OneOrMany, A::Error> {
                let mut list = Vec::new();
                while let Some(text) = seq.next_element()? {
                    list.push(text);
                }
                Ok(OneOrMany(list))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for OneOrMany {
    fn schema_name() -> Cow<'static, str> {
        "OneOrMany".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": ["string", "array"], "items": {"type": "string"}})
    }
}

/// Templates that were read once.
pub(super) struct Templates {
    environment: Environment<'static>,
    names: Vec<String>,
}

impl Templates {
    /// Reads `sources`.
    ///
    /// # Errors
    /// When one is no valid template; the message shows the line.
    pub(super) fn new(sources: &[String]) -> Result<Self> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        // A text is no HTML: nothing is escaped.
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        let names: Vec<String> = (0..sources.len())
            .map(|i| format!("template {i}"))
            .collect();
        for (name, source) in names.iter().zip(sources) {
            environment
                .add_template_owned(name.clone(), source.clone())
                .map_err(|error| {
                    anyhow!("the template `{source}` is not valid: {}", detail(&error))
                })?;
        }
        Ok(Self { environment, names })
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    /// Text of template `i` for the names in `context`.
    ///
    /// # Errors
    /// When the template names something that is not there.
    pub(super) fn render(&self, i: usize, context: &Value) -> Result<String> {
        let template = self.environment.get_template(&self.names[i])?;
        template
            .render(minijinja::value::Serde(context))
            .map_err(|error| {
                let names: Vec<&str> = context
                    .as_object()
                    .into_iter()
                    .flatten()
                    .map(|(name, _)| name.as_str())
                    .collect();
                anyhow!(
                    "failed to fill in the template `{}`: {}\nhint: it may use {}",
                    template.source(),
                    detail(&error),
                    names.join(", ")
                )
            })
    }
}

fn detail(error: &minijinja::Error) -> String {
    error.detail().map_or_else(
        || error.kind().to_string(),
        |detail| format!("{} ({detail})", error.kind()),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_template_joins_attributes_and_escapes_nothing() {
        let templates =
            Templates::new(&["{{ class }} & {{ attributes | join(' and ') }}".to_owned()]).unwrap();
        let text = templates
            .render(0, &json!({"class": "a<b", "attributes": ["x", "y"]}))
            .unwrap();
        assert_eq!(text, "a<b & x and y");
    }

    #[test]
    fn an_unknown_name_is_an_error_that_lists_the_known_ones() {
        let templates = Templates::new(&["{{ klass }}".to_owned()]).unwrap();
        let error = templates
            .render(0, &json!({"class": "cat"}))
            .unwrap_err()
            .to_string();
        assert!(error.contains("hint: it may use class"), "{error}");
        assert!(Templates::new(&["{{ open".to_owned()]).is_err());
    }

    const ENDING: &str = ". Each attribute should be a single word or a very short phrase (max 3 words). \
        Provide the answer in strict JSON format with keys KEYS, where the values are actual \
        descriptions (for example, \"brown\", \"round\", or \"metallic\"). Do not include any \
        additional text.";
    const THREE: &str = "\"feature1\", \"feature2\", and \"feature3\"";
    const TEN: &str = "\"feature1\" to \"feature10\"";

    /// The wordings are those of `tests/demo/study.py`, which the demo's LLM was trained on.
    #[test]
    fn the_prompts_of_the_pipelines_read_as_in_the_study() {
        let attributes = include_str!("../../pipelines/prompts/attributes.j2");
        let ten = include_str!("../../pipelines/prompts/ten-attributes.j2");
        let random = include_str!("../../pipelines/prompts/random.j2");
        let sentence = include_str!("../../pipelines/prompts/sentence.j2");
        let sources = [attributes, ten, random, sentence].map(str::to_owned);
        let templates = Templates::new(&sources).unwrap();
        let heads = [
            (
                "Please generate three visual attributes that are easy to see in an image of a cat",
                THREE,
            ),
            (
                "Please generate ten visual attributes that are easy to see in an image of a cat",
                TEN,
            ),
            (
                "Please generate three random words describing an object",
                THREE,
            ),
        ];
        let nine = ["A1", "A2", "A3", "A4", "A5", "A6", "A7", "A8", "A9"];
        for (count, clause) in [
            (0, ""),
            (1, " other than 'A1', which is already chosen"),
            (2, " other than 'A1' and 'A2', which are already chosen"),
            (
                9,
                " other than 'A1' and 'A2' and 'A3' and 'A4' and 'A5' and 'A6' and 'A7' and 'A8' \
                 and 'A9', which are already chosen",
            ),
        ] {
            let context = |n: usize| json!({"class": "cat", "class_index": 3, "chosen": nine[..count], "count": n});
            for (i, (head, keys)) in heads.iter().enumerate() {
                let expected = format!("{head}{clause}{}", ENDING.replace("KEYS", keys));
                assert_eq!(templates.render(i, &context(3)).unwrap(), expected);
            }
            let text = templates.render(3, &context(1)).unwrap();
            assert_eq!(text, "Describe what a cat looks like in one sentence.");
        }
    }
}
