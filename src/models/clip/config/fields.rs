//! JSON tables that are read field by field, with the field's path in every
//! complaint.

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value};

/// A JSON object with the path that led to it.
pub(super) struct Fields<'a> {
    pub(super) map: &'a Map<String, Value>,
    path: String,
}

impl<'a> Fields<'a> {
    pub(super) fn of(value: &'a Value, path: &str) -> Result<Self> {
        let Value::Object(map) = value else {
            let what = if path.is_empty() { "it" } else { path };
            bail!("`{what}` is {}, not a table", shown(Some(value)));
        };
        let path = path.to_owned();
        Ok(Self { map, path })
    }

    pub(super) fn table(&self, name: &str) -> Result<Self> {
        let value =
            (self.map.get(name)).with_context(|| format!("`{}` is missing", self.full(name)))?;
        Self::of(value, &self.full(name))
    }

    pub(super) fn full(&self, name: &str) -> String {
        if self.path.is_empty() {
            return name.to_owned();
        }
        // `model_cfg` is left out, as open_clip's own files of architectures do.
        let path = self
            .path
            .trim_start_matches("model_cfg")
            .trim_start_matches('.');
        if path.is_empty() {
            name.to_owned()
        } else {
            format!("{path}.{name}")
        }
    }

    /// Refuses every field that is neither read nor neutral; a switch that is
    /// off, `null` or `open_clip`'s default is no different from its absence.
    pub(super) fn only(&self, read: &[&str], neutral: &[&str]) -> Result<()> {
        for (name, value) in self.map {
            let off = match value {
                Value::Null | Value::Bool(false) => true,
                Value::String(word) => matches!(
                    (name.as_str(), word.as_str()),
                    ("pool_type", "argmax" | "tok")
                        | ("proj_type", "linear")
                        | ("pos_embed_type", "learnable")
                        | ("block_type", "default")
                ),
                _ => false,
            };
            let known = read.contains(&name.as_str()) || neutral.contains(&name.as_str());
            ensure!(
                known || off,
                "`{}` is {}, which is not supported",
                self.full(name),
                shown(Some(value))
            );
        }
        Ok(())
    }

    pub(super) fn count(
        &self,
        name: &str,
        default: Option<usize>,
        range: std::ops::RangeInclusive<usize>,
    ) -> Result<usize> {
        let value = match (self.map.get(name), default) {
            (None | Some(Value::Null), Some(default)) => return Ok(default),
            (None | Some(Value::Null), None) => bail!("`{}` is missing", self.full(name)),
            (Some(value), _) => value,
        };
        (value.as_u64().map(|n| n as usize))
            .filter(|n| range.contains(n))
            .with_context(|| {
                format!(
                    "`{}` is {}, not a number from {} to {}",
                    self.full(name),
                    shown(Some(value)),
                    range.start(),
                    range.end()
                )
            })
    }

    pub(super) fn flag(&self, name: &str) -> Result<bool> {
        match self.map.get(name) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            value => bail!(
                "`{}` is {}, not true or false",
                self.full(name),
                shown(value)
            ),
        }
    }

    pub(super) fn word(&self, name: &str, only: &str) -> Result<()> {
        match self.map.get(name) {
            None | Some(Value::Null) => Ok(()),
            Some(Value::String(word)) if word == only => Ok(()),
            value => bail!(
                "`{}` is {}, but only \"{only}\" is supported",
                self.full(name),
                shown(value)
            ),
        }
    }

    pub(super) fn triple(&self, name: &str, default: [f32; 3]) -> Result<[f32; 3]> {
        let value = match self.map.get(name) {
            None | Some(Value::Null) => return Ok(default),
            Some(value) => value,
        };
        let numbers: Vec<f32> = (value.as_array().into_iter().flatten())
            .filter_map(|n| n.as_f64().map(|n| n as f32).filter(|n| n.is_finite()))
            .collect();
        <[f32; 3]>::try_from(numbers).ok().with_context(|| {
            format!(
                "`{}` is {}, not three numbers",
                self.full(name),
                shown(Some(value))
            )
        })
    }
}

/// A value, cut to what fits a message.
pub(super) fn shown(value: Option<&Value>) -> String {
    let text = value.map_or_else(|| "missing".to_owned(), Value::to_string);
    if text.chars().count() <= 60 {
        return text;
    }
    text.chars().take(57).chain("...".chars()).collect()
}
