//! `config.json` of a decoder: what of it is used, and refusal of what would change the numbers.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::{Map, Value};

use crate::models::{quant::QuantConfig, weights::read_small};

/// The longest configuration read, in bytes.
const LONGEST: u64 = 4 << 20;

/// The shape of a decoder of the Llama family, Mistral included.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width of the gated MLP.
    pub intermediate: usize,
    /// Blocks.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; each serves `heads / kv_heads` query heads.
    pub kv_heads: usize,
    /// Width of a head, even.
    pub head_dim: usize,
    /// Number of token ids.
    pub vocab: usize,
    /// Longest sequence, prompt and answer together.
    pub max_positions: usize,
    /// Added to the mean square before the root.
    pub norm_eps: f64,
    /// Rotary position embedding.
    pub rope: Rope,
    /// A token sees this many tokens up to and with itself; `None` sees all.
    pub window: Option<usize>,
    /// Whether the head shares the embedding's weights.
    pub tied: bool,
    /// Token ids that end an answer.
    pub eos: Vec<u32>,
    /// How the file's weights are quantised, if they are.
    pub quantization: Option<QuantConfig>,
}

/// Rotary position embedding: its base, and how its frequencies are stretched.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Base of the geometric series of wavelengths.
    pub theta: f64,
    /// Stretching for longer contexts.
    pub scaling: Scaling,
}

/// How rotary frequencies are stretched.
#[derive(Clone, Debug, PartialEq)]
pub enum Scaling {
    /// Not at all.
    None,
    /// All divided by one factor.
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// Llama 3's: long waves divided, short ones kept, a blend between.
    Llama3 {
        /// The divisor of long waves.
        factor: f64,
        /// Waves longer than `original / low` are long.
        low: f64,
        /// Waves shorter than `original / high` are short.
        high: f64,
        /// Length of the sequences trained on first.
        original: f64,
    },
}

impl Config {
    /// Reads `config.json`, and `generation_config.json` if there is one, from a
    /// Hugging Face folder.
    ///
    /// # Errors
    /// Names file and field of a setting that is missing, out of range or not
    /// supported.
    pub fn open(folder: &Path) -> Result<Self> {
        let fields = Fields::open(folder.join("config.json"))?;
        let generation = folder.join("generation_config.json");
        let generation = if generation.exists() {
            Some(Fields::open(generation)?)
        } else {
            None
        };
        Self::read(&fields, generation.as_ref())
    }

    fn read(fields: &Fields, generation: Option<&Fields>) -> Result<Self> {
        let kind = fields.text("model_type")?;
        match kind.as_deref() {
            Some("mistral" | "llama") => {}
            Some(other) => {
                return Err(fields.unsupported("model_type", &other, "`mistral` and `llama`"));
            }
            None => bail!("{} has no `model_type`", fields.shown()),
        }
        if let Some(names) = fields.get("architectures") {
            let known = ["MistralForCausalLM", "LlamaForCausalLM"];
            let fits = (names.as_array())
                .is_some_and(|names| names.iter().any(|n| known.iter().any(|k| n == k)));
            if !fits {
                return Err(fields.unsupported("architectures", &names, &known.join(" and ")));
            }
        }
        fields.refuse_unless("hidden_act", &["silu", "swish"])?;
        for bias in ["attention_bias", "mlp_bias"] {
            if fields.flag(bias)?.unwrap_or(false) {
                return Err(fields.unsupported(bias, &true, "`false`"));
            }
        }
        let quantization = QuantConfig::parse(&Value::Object(fields.map.clone()))
            .with_context(|| format!("failed to read {}", fields.shown()))?;
        let hidden = fields.size("hidden_size", 1 << 16)?;
        let heads = fields.size("num_attention_heads", 1 << 12)?;
        let kv_heads = match fields.get("num_key_value_heads") {
            // Mistral's default, in effect when the field is left out of the file.
            None if kind.as_deref() == Some("mistral") => 8,
            None => heads,
            Some(_) => fields.size("num_key_value_heads", 1 << 12)?,
        };
        ensure!(
            heads.is_multiple_of(kv_heads),
            "{}: `num_attention_heads` {heads} is no multiple of `num_key_value_heads` {kv_heads}",
            fields.shown()
        );
        let head_dim = match fields.get("head_dim") {
            Some(_) => fields.size("head_dim", 1 << 12)?,
            None => hidden / heads,
        };
        ensure!(
            head_dim > 0 && head_dim.is_multiple_of(2),
            "{}: `head_dim` is {head_dim}, but must be even",
            fields.shown()
        );
        let max_positions = fields.size("max_position_embeddings", 1 << 24)?;
        let eos = (generation.filter(|g| g.get("eos_token_id").is_some()))
            .unwrap_or(fields)
            .ids("eos_token_id")?;
        let vocab = fields.size("vocab_size", 1 << 22)?;
        Ok(Self {
            hidden,
            intermediate: fields.size("intermediate_size", 1 << 20)?,
            layers: fields.size("num_hidden_layers", 1 << 10)?,
            heads,
            kv_heads,
            head_dim,
            vocab,
            max_positions,
            norm_eps: fields.number("rms_norm_eps", 0.0..1.0)?.unwrap_or(1e-6),
            rope: rope(fields)?,
            window: window(fields, max_positions)?,
            tied: fields.flag("tie_word_embeddings")?.unwrap_or(false),
            eos,
            quantization,
        })
    }
}

/// The window, `None` where it cannot hide anything.
fn window(fields: &Fields, max_positions: usize) -> Result<Option<usize>> {
    if let Some(types) = fields.get("layer_types") {
        let all = |name: &str| {
            (types.as_array()).is_some_and(|types| types.iter().all(|t| t.as_str() == Some(name)))
        };
        if all("full_attention") {
            return Ok(None);
        }
        if !all("sliding_attention") {
            return Err(fields.unsupported("layer_types", &types, "one type for all layers"));
        }
    }
    let window = match fields.map.get("sliding_window") {
        Some(Value::Null) => return Ok(None),
        Some(_) => fields.size("sliding_window", usize::MAX)?,
        // Mistral's default, in effect when the field is left out of the file.
        None if fields.text("model_type")?.as_deref() == Some("mistral") => 4096,
        None => return Ok(None),
    };
    Ok((window < max_positions).then_some(window))
}

/// Rotary settings, from `rope_parameters` or from the older fields.
fn rope(fields: &Fields) -> Result<Rope> {
    if let Some(factor) = fields.number("partial_rotary_factor", 0.0..f64::MAX)?
        && (factor - 1.0).abs() > f64::EPSILON
    {
        return Err(fields.unsupported("partial_rotary_factor", &factor, "1"));
    }
    let name = ["rope_parameters", "rope_scaling"]
        .into_iter()
        .find(|name| fields.get(name).is_some());
    let inner = name.map(|name| fields.object(name)).transpose()?;
    let bases = 1.0..f64::MAX;
    let theta = match inner
        .as_ref()
        .map(|inner| inner.number("rope_theta", bases.clone()))
    {
        Some(Ok(Some(theta))) => theta,
        Some(Err(error)) => return Err(error),
        _ => fields.number("rope_theta", bases)?.unwrap_or(1e4),
    };
    let scaling = match &inner {
        None => Scaling::None,
        Some(inner) => scaling(inner)?,
    };
    Ok(Rope { theta, scaling })
}

fn scaling(fields: &Fields) -> Result<Scaling> {
    let kind = match fields.text("rope_type")? {
        Some(kind) => Some(kind),
        None => fields.text("type")?,
    };
    let needed = |name: &str| -> Result<f64> {
        let value = fields.number(name, f64::MIN_POSITIVE..f64::MAX)?;
        value.with_context(|| format!("{} has no `{name}`", fields.shown()))
    };
    match kind.as_deref() {
        None | Some("default") => Ok(Scaling::None),
        Some("linear") => Ok(Scaling::Linear {
            factor: needed("factor")?,
        }),
        Some("llama3") => Ok(Scaling::Llama3 {
            factor: needed("factor")?,
            low: needed("low_freq_factor")?,
            high: needed("high_freq_factor")?,
            original: needed("original_max_position_embeddings")?,
        }),
        Some(other) => {
            Err(fields.unsupported("rope_type", &other, "`default`, `linear` and `llama3`"))
        }
    }
}

/// The fields of a JSON object, and where it stands.
struct Fields {
    path: PathBuf,
    /// Name of the object within the file, with a dot at the end.
    prefix: String,
    map: Map<String, Value>,
}

impl Fields {
    fn open(path: PathBuf) -> Result<Self> {
        let bytes = read_small(&path, LONGEST)?;
        let map = serde_json::from_slice(&bytes)
            .with_context(|| format!("`{}` is not a JSON object", path.display()))?;
        Ok(Self {
            path,
            prefix: String::new(),
            map,
        })
    }

    fn shown(&self) -> String {
        format!("`{}`", self.path.display())
    }

    /// A field that is there and not null.
    fn get(&self, name: &str) -> Option<&Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    fn wrong(&self, name: &str, wanted: &str) -> anyhow::Error {
        let value = self.get(name).map(ToString::to_string).unwrap_or_default();
        let value: String = value.chars().take(80).collect();
        anyhow!(
            "{}: `{}{name}` is {value}, but must be {wanted}",
            self.shown(),
            self.prefix
        )
    }

    fn unsupported(
        &self,
        name: &str,
        value: &dyn std::fmt::Display,
        supported: &str,
    ) -> anyhow::Error {
        let value: String = value.to_string().chars().take(80).collect();
        anyhow!(
            "{}: `{}{name}` is `{value}`, which is not supported\nhint: supported: {supported}",
            self.shown(),
            self.prefix
        )
    }

    fn size(&self, name: &str, most: usize) -> Result<usize> {
        ensure!(
            self.get(name).is_some(),
            "{} has no `{}{name}`",
            self.shown(),
            self.prefix
        );
        let value = self.get(name).and_then(Value::as_u64);
        (value.and_then(|value| usize::try_from(value).ok()))
            .filter(|value| (1..=most).contains(value))
            .ok_or_else(|| self.wrong(name, &format!("a whole number from 1 to {most}")))
    }

    fn number(&self, name: &str, range: std::ops::Range<f64>) -> Result<Option<f64>> {
        if self.get(name).is_none() {
            return Ok(None);
        }
        let value = self.get(name).and_then(Value::as_f64);
        match value.filter(|value| range.contains(value)) {
            Some(value) => Ok(Some(value)),
            None => Err(self.wrong(name, &format!("a number from {:e} up", range.start))),
        }
    }

    fn flag(&self, name: &str) -> Result<Option<bool>> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => Err(self.wrong(name, "`true` or `false`")),
        }
    }

    fn text(&self, name: &str) -> Result<Option<String>> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(self.wrong(name, "a text")),
        }
    }

    fn refuse_unless(&self, name: &str, supported: &[&str]) -> Result<()> {
        match self.text(name)? {
            Some(text) if !supported.contains(&text.as_str()) => {
                Err(self.unsupported(name, &text, &supported.join(", ")))
            }
            _ => Ok(()),
        }
    }

    fn object(&self, name: &str) -> Result<Self> {
        let map = (self.get(name).and_then(Value::as_object))
            .ok_or_else(|| self.wrong(name, "an object"))?;
        Ok(Self {
            path: self.path.clone(),
            prefix: format!("{name}."),
            map: map.clone(),
        })
    }

    /// One id or a list of them.
    fn ids(&self, name: &str) -> Result<Vec<u32>> {
        let one = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        let ids = match self.map.get(name) {
            // Both families' default.
            None => Some(vec![2]),
            Some(Value::Null) => Some(Vec::new()),
            Some(Value::Array(values)) => values.iter().map(one).collect(),
            Some(value) => one(value).map(|id| vec![id]),
        };
        ids.ok_or_else(|| self.wrong(name, "a token id or a list of them"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(change: &str) -> Result<Config> {
        let mut value: Value = serde_json::from_str(
            r#"{"model_type": "mistral", "architectures": ["MistralForCausalLM"],
                "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
                "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 300,
                "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 1e6,
                "eos_token_id": 2, "hidden_act": "silu", "sliding_window": null}"#,
        )?;
        let change: Map<String, Value> = serde_json::from_str(change)?;
        for (name, field) in change {
            value[name] = field;
        }
        let map = value.as_object().cloned().unwrap_or_default();
        let fields = Fields {
            path: "folder/config.json".into(),
            prefix: String::new(),
            map,
        };
        Config::read(&fields, None)
    }

    fn rope(theta: f64) -> Rope {
        Rope {
            theta,
            scaling: Scaling::None,
        }
    }

    #[test]
    fn rotary_settings_are_read_from_old_and_new_fields() -> Result<()> {
        assert_eq!(read("{}")?.rope, rope(1e6));
        let new = read(
            r#"{"rope_theta": null, "rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}}"#,
        )?;
        assert_eq!(new.rope, rope(5e5));
        let llama = read(
            r#"{"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}}"#,
        )?;
        let stretched = Scaling::Llama3 {
            factor: 8.0,
            low: 1.0,
            high: 4.0,
            original: 8192.0,
        };
        assert_eq!(llama.rope.scaling, stretched);
        Ok(())
    }

    #[test]
    fn a_window_that_hides_nothing_is_none() -> Result<()> {
        assert_eq!(read(r#"{"sliding_window": 512}"#)?.window, None);
        assert_eq!(read(r#"{"sliding_window": 100}"#)?.window, Some(100));
        Ok(())
    }

    #[test]
    fn what_is_not_supported_is_refused_by_file_and_field() {
        for (change, field) in [
            (r#"{"model_type": "gemma"}"#, "model_type"),
            (
                r#"{"architectures": ["MixtralForCausalLM"]}"#,
                "architectures",
            ),
            (r#"{"hidden_act": "gelu"}"#, "hidden_act"),
            (r#"{"attention_bias": true}"#, "attention_bias"),
            (
                r#"{"quantization_config": {"quant_method": "gptq"}}"#,
                "quantization_config",
            ),
            (
                r#"{"rope_scaling": {"type": "yarn"}}"#,
                "rope_scaling.rope_type",
            ),
            (
                r#"{"layer_types": ["full_attention", "sliding_attention"]}"#,
                "layer_types",
            ),
            (r#"{"hidden_size": -1}"#, "hidden_size"),
            (r#"{"hidden_size": 1e300}"#, "hidden_size"),
            (r#"{"num_key_value_heads": 3}"#, "num_key_value_heads"),
            (r#"{"head_dim": 7}"#, "head_dim"),
            (r#"{"rms_norm_eps": "small"}"#, "rms_norm_eps"),
            (r#"{"eos_token_id": "two"}"#, "eos_token_id"),
        ] {
            let error = read(change).map_or_else(|error| format!("{error:#}"), |_| String::new());
            assert!(
                error.contains("folder/config.json") && error.contains(field),
                "{change} gave {error}"
            );
        }
    }
}
