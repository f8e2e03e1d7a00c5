//! What a model's `config.json` says about its quantisation.

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value};

use super::Round;

/// How the linear maps of a model are quantised, or are to be.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantConfig {
    /// To what.
    pub scheme: Scheme,
    /// Modules that are left as they are (`llm_int8_skip_modules`); `None` for
    /// the output layer alone.
    pub skip: Option<Vec<String>>,
}

/// To what linear maps are quantised.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scheme {
    /// NF4 in blocks of 64 (`load_in_4bit`).
    Nf4 {
        /// Whether scales are quantised too (`bnb_4bit_use_double_quant`).
        double: bool,
        /// What products are computed in (`bnb_4bit_compute_dtype`).
        compute: Round,
    },
    /// FP4 in blocks of 64, which is read but not made here.
    Fp4 {
        /// Whether scales are quantised too.
        double: bool,
        /// What products are computed in.
        compute: Round,
    },
    /// LLM.int8 (`load_in_8bit`).
    Int8 {
        /// From which magnitude on an activation is an outlier
        /// (`llm_int8_threshold`); 0 for none.
        threshold: f32,
    },
}

impl QuantConfig {
    /// Reads `quantization_config` of a model's configuration; `None` if it has
    /// none. Fields that are absent have transformers' defaults.
    ///
    /// # Errors
    ///
    /// Another method than bitsandbytes, a field that is not understood, or a
    /// value that is not supported; the message names the field.
    pub fn parse(config: &Value) -> Result<Option<Self>> {
        match config.get("quantization_config") {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(fields)) => Self::from_fields(fields.clone())
                .context("`quantization_config` is not supported")
                .map(Some),
            Some(_) => bail!("`quantization_config` is not an object"),
        }
    }

    fn from_fields(mut fields: Map<String, Value>) -> Result<Self> {
        let mut field = |name: &str| fields.shift_remove(name).unwrap_or(Value::Null);

        let method = field("quant_method");
        ensure!(
            method.is_null() || method == "bitsandbytes",
            "`quant_method` is {method}, and only \"bitsandbytes\" is read"
        );
        let flag = |value: Value, name: &str| match value {
            Value::Null => Ok(false),
            Value::Bool(flag) => Ok(flag),
            other => bail!("`{name}` is {other}, not true or false"),
        };
        // transformers writes each of these twice.
        let either = |public: bool, private: bool| public || private;
        let four = either(
            flag(field("load_in_4bit"), "load_in_4bit")?,
            flag(field("_load_in_4bit"), "_load_in_4bit")?,
        );
        let eight = either(
            flag(field("load_in_8bit"), "load_in_8bit")?,
            flag(field("_load_in_8bit"), "_load_in_8bit")?,
        );
        let kind = field("bnb_4bit_quant_type");
        let double = flag(
            field("bnb_4bit_use_double_quant"),
            "bnb_4bit_use_double_quant",
        )?;
        let compute = dtype(&field("bnb_4bit_compute_dtype"))?;
        let storage = field("bnb_4bit_quant_storage");
        let threshold = threshold(&field("llm_int8_threshold"))?;
        let skip = modules(field("llm_int8_skip_modules"))?;
        let halves = flag(
            field("llm_int8_has_fp16_weight"),
            "llm_int8_has_fp16_weight",
        )?;
        // Says where modules may lie, which is not ours to know.
        flag(
            field("llm_int8_enable_fp32_cpu_offload"),
            "llm_int8_enable_fp32_cpu_offload",
        )?;
        if let Some((name, _)) = fields.iter().next() {
            bail!("field `{name}` is not understood");
        }

        ensure!(!halves, "`llm_int8_has_fp16_weight` is true");
        let scheme = match (four, eight) {
            (true, false) => {
                let stored = ["uint8", "int8", "float16", "bfloat16", "float32", "float64"];
                ensure!(
                    storage.is_null() || stored.iter().any(|&name| storage == name),
                    "`bnb_4bit_quant_storage` is {storage}"
                );
                match kind.as_str() {
                    Some("nf4") => Scheme::Nf4 { double, compute },
                    Some("fp4") => Scheme::Fp4 { double, compute },
                    None if kind.is_null() => Scheme::Fp4 { double, compute },
                    _ => bail!("`bnb_4bit_quant_type` is {kind}, not \"nf4\" or \"fp4\""),
                }
            }
            (false, true) => Scheme::Int8 { threshold },
            (true, true) => bail!("`load_in_4bit` and `load_in_8bit` exclude each other"),
            (false, false) => bail!("neither `load_in_4bit` nor `load_in_8bit` is true"),
        };
        Ok(Self { scheme, skip })
    }

    /// Whether a module, by its full name without `.weight`, is left as it is.
    ///
    /// A name in the list stands for the module of that name, for all below it,
    /// and for every module whose name ends so, as in transformers.
    pub fn skips(&self, module: &str) -> bool {
        let Some(skip) = &self.skip else {
            return module == "lm_head";
        };
        skip.iter().any(|name| {
            module.ends_with(name.as_str())
                || (module.strip_prefix(name.as_str()))
                    .is_some_and(|rest| rest.starts_with('.') || name.ends_with('.'))
        })
    }
}

fn dtype(value: &Value) -> Result<Round> {
    match value {
        Value::Null => Ok(Round::F32),
        Value::String(name) => {
            let name = name.strip_prefix("torch.").unwrap_or(name);
            Round::parse(name)
        }
        .with_context(|| {
            format!("`bnb_4bit_compute_dtype` is {value}, not float32, bfloat16 or float16")
        }),
        _ => bail!("`bnb_4bit_compute_dtype` is {value}, not the name of a type"),
    }
}

fn threshold(value: &Value) -> Result<f32> {
    if value.is_null() {
        return Ok(6.0);
    }
    let threshold = value.as_f64().map(|threshold| threshold as f32);
    (threshold.filter(|threshold| (0.0..=65_504.0).contains(threshold)))
        .with_context(|| format!("`llm_int8_threshold` is {value}, not a number from 0 to 65504"))
}

fn modules(value: Value) -> Result<Option<Vec<String>>> {
    let names = match value {
        Value::Null => return Ok(None),
        Value::Array(names) => names,
        other => bail!("`llm_int8_skip_modules` is {other}, not a list"),
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let names = names.into_iter().map(|name| match name {
        // transformers would take these for regular expressions.
        Value::String(name) if !name.is_empty() && name.chars().all(plain) => Ok(name),
        other => bail!("`llm_int8_skip_modules` has {other}, which is not a module's name"),
    });
    names.collect::<Result<_>>().map(Some)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(fields: &Value) -> Result<QuantConfig> {
        QuantConfig::parse(&json!({ "quantization_config": fields })).map(Option::unwrap)
    }

    #[test]
    fn a_model_that_is_not_quantised_has_none() {
        assert_eq!(QuantConfig::parse(&json!({})).unwrap(), None);
        let null = json!({ "quantization_config": null });
        assert_eq!(QuantConfig::parse(&null).unwrap(), None);
        assert!(QuantConfig::parse(&json!({ "quantization_config": 4 })).is_err());
    }

    #[test]
    fn what_is_absent_has_the_default_of_transformers() {
        let four = parse(&json!({ "load_in_4bit": true })).unwrap();
        let scheme = Scheme::Fp4 {
            double: false,
            compute: Round::F32,
        };
        assert_eq!(four, QuantConfig { scheme, skip: None });
        let eight = parse(&json!({ "load_in_8bit": true })).unwrap();
        assert_eq!(eight.scheme, Scheme::Int8 { threshold: 6.0 });
    }

    #[test]
    fn modules_are_skipped_by_beginning_and_end() {
        let config = |skip: Value| {
            parse(&json!({ "load_in_8bit": true, "llm_int8_skip_modules": skip })).unwrap()
        };
        let some = config(json!(["lm_head", "model.layers.1", "down_proj"]));
        assert!(some.skips("lm_head"));
        assert!(some.skips("model.layers.1.mlp.up_proj"));
        assert!(!some.skips("model.layers.11.mlp.up_proj"));
        assert!(some.skips("model.layers.11.mlp.down_proj"));
        // A list, even an empty one, replaces the default.
        assert!(!config(json!([])).skips("lm_head"));
        assert!(config(Value::Null).skips("lm_head"));
    }

    #[test]
    fn what_is_not_supported_is_named() {
        for (fields, says) in [
            (
                json!({ "quant_method": "gptq" }),
                "`quant_method` is \"gptq\"",
            ),
            (json!({}), "neither `load_in_4bit` nor `load_in_8bit`"),
            (
                json!({ "load_in_4bit": true, "load_in_8bit": true }),
                "exclude each other",
            ),
            (json!({ "load_in_4bit": 1 }), "`load_in_4bit` is 1"),
            (
                json!({ "load_in_4bit": true, "bnb_4bit_quant_type": "int4" }),
                "`bnb_4bit_quant_type` is \"int4\"",
            ),
            (
                json!({ "load_in_4bit": true, "bnb_4bit_compute_dtype": "int8" }),
                "`bnb_4bit_compute_dtype` is \"int8\"",
            ),
            (
                json!({ "load_in_4bit": true, "bnb_4bit_quant_storage": "int2" }),
                "`bnb_4bit_quant_storage` is \"int2\"",
            ),
            (
                json!({ "load_in_8bit": true, "llm_int8_threshold": -1 }),
                "`llm_int8_threshold` is -1",
            ),
            (
                json!({ "load_in_8bit": true, "llm_int8_has_fp16_weight": true }),
                "`llm_int8_has_fp16_weight` is true",
            ),
            (
                json!({ "load_in_8bit": true, "llm_int8_skip_modules": ["a|b"] }),
                "has \"a|b\"",
            ),
            (
                json!({ "load_in_8bit": true, "group_size": 128 }),
                "field `group_size`",
            ),
        ] {
            let error = format!("{:#}", parse(&fields).unwrap_err());
            assert!(error.contains(says), "{fields}: {error}");
        }
    }
}
