//! What is asked of a model, as the JSON body of a chat request.

use std::collections::BTreeSet;

use anyhow::{Result, bail, ensure};
use serde_json::{Map, Value, json};

use super::Settings;

/// One answer wanted.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// A system message before the user's.
    pub system: Option<String>,
    /// What the user says.
    pub user: String,
    /// Divides the logits; 0 takes the most probable token.
    pub temperature: f64,
    /// Probability that the most probable tokens kept must hold; 1 keeps all.
    pub top_p: f64,
    /// Most probable tokens kept; 0 keeps all.
    pub top_k: usize,
    /// Least probability of a token kept, as a part of the highest; 0 keeps all.
    pub min_p: f64,
    /// Most tokens of the answer.
    pub max_tokens: usize,
    /// Texts that end the answer where they appear.
    pub stop: Vec<String>,
    /// Names the random numbers; the low 31 bits are sent.
    pub seed: u64,
    /// JSON schema that the answer is held to.
    pub schema: Option<Value>,
}

impl Default for Request {
    /// An empty question; nothing is cut off.
    fn default() -> Self {
        Self {
            system: None,
            user: String::new(),
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            max_tokens: 256,
            stop: Vec::new(),
            seed: 0,
            schema: None,
        }
    }
}

/// Fields of a request that `extra` may not set: they have settings of their own,
/// or would change what an answer is.
const RESERVED: &[&str] = &[
    "model",
    "messages",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "max_tokens",
    "max_completion_tokens",
    "stop",
    "seed",
    "response_format",
    "n",
    "stream",
    "stream_options",
];

/// What servers say of a field that they do not take.
const UNKNOWN: &[&str] = &[
    "unknown",
    "unrecognized",
    "unsupported",
    "not support",
    "not permitted",
    "not allowed",
    "unexpected",
    "extra_forbidden",
];

/// Checks the fields that a user adds to every request.
pub(super) fn check_extra(extra: &Map<String, Value>) -> Result<()> {
    for key in extra.keys() {
        ensure!(
            !RESERVED.contains(&key.as_str()),
            "`extra` sets `{key}`, which is set elsewhere or must stay as it is"
        );
    }
    Ok(())
}

/// What a server turned out not to take, and what is sent instead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Dialect {
    /// Fields that are left out.
    left_out: BTreeSet<&'static str>,
    /// The limit goes into `max_completion_tokens`.
    completion_limit: bool,
    /// It was told that this is Ollama.
    ollama: bool,
}

impl Dialect {
    /// Learns from a refusal of `request`; what was learnt, as a fragment.
    ///
    /// A field that the refusal names is left out from then on if it was to change
    /// nothing: a server that does not know `top_k` cuts off nothing by it, though
    /// it may have a default that cannot be reached.
    pub(super) fn learn(&mut self, said: &str, request: &Request) -> Option<String> {
        if !self.completion_limit
            && said.contains("max_completion_tokens")
            && said.contains("instead")
        {
            self.completion_limit = true;
            return Some("the server wants `max_completion_tokens` for the limit".to_owned());
        }
        let lower = said.to_lowercase();
        if !UNKNOWN.iter().any(|word| lower.contains(word)) {
            return None;
        }
        let words: Vec<&str> = said
            .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .collect();
        let is_one = |value: f64| (value - 1.0).abs() < f64::EPSILON;
        let off = [
            ("top_k", request.top_k == 0),
            ("min_p", request.min_p == 0.0),
            ("top_p", is_one(request.top_p)),
            ("temperature", is_one(request.temperature)),
        ];
        for (name, off) in off {
            if off && words.contains(&name) && self.left_out.insert(name) {
                return Some(format!(
                    "the server does not take `{name}`; it was to change nothing, so it is left out, \
                     and what the server does by itself holds"
                ));
            }
        }
        if words.contains(&"seed") && self.left_out.insert("seed") {
            return Some(
                "the server does not take `seed`, so its answers cannot be had again".to_owned(),
            );
        }
        None
    }

    /// Learns from an answer: Ollama takes no `top_k` and `min_p`, but does not say so.
    pub(super) fn learn_of_server(&mut self, fingerprint: Option<&str>) -> Option<String> {
        if self.ollama || fingerprint != Some("fp_ollama") {
            return None;
        }
        self.ollama = true;
        Some(
            "Ollama ignores the `top_k` and `min_p` of a request; it has those of its model file, \
             and where that has none, a `top_k` of 40"
                .to_owned(),
        )
    }

    /// Name of the field that carries the token limit.
    fn limit(&self) -> &'static str {
        if self.completion_limit {
            "max_completion_tokens"
        } else {
            "max_tokens"
        }
    }
}

impl Request {
    /// The body of the request.
    pub(super) fn body(&self, settings: &Settings, dialect: &Dialect) -> Map<String, Value> {
        let mut messages = Vec::new();
        if let Some(system) = &self.system {
            messages.push(json!({"role": "system", "content": system}));
        }
        messages.push(json!({"role": "user", "content": self.user}));
        let mut body = Map::new();
        let mut put = |name: &'static str, value: Value| {
            if !dialect.left_out.contains(name) {
                body.insert(name.to_owned(), value);
            }
        };
        put("model", json!(settings.model));
        put("messages", Value::Array(messages));
        put(dialect.limit(), json!(self.max_tokens));
        put("temperature", json!(self.temperature));
        put("top_p", json!(self.top_p));
        // All servers that know the field take -1 for all tokens, some not 0.
        let all = json!(-1);
        put(
            "top_k",
            if self.top_k == 0 {
                all
            } else {
                json!(self.top_k)
            },
        );
        put("min_p", json!(self.min_p));
        put("seed", json!(self.seed & 0x7fff_ffff));
        if !self.stop.is_empty() {
            put("stop", json!(self.stop));
        }
        if let Some(schema) = &self.schema {
            let schema = json!({"name": "answer", "strict": true, "schema": schema});
            put(
                "response_format",
                json!({"type": "json_schema", "json_schema": schema}),
            );
        }
        for (name, value) in &settings.extra {
            body.insert(name.clone(), value.clone());
        }
        body
    }

    /// Checks the ranges.
    pub(super) fn check(&self) -> Result<()> {
        let within = |name: &str, value: f64, low: f64, high: f64| {
            if value.is_finite() && value >= low && value <= high {
                return Ok(());
            }
            bail!("`{name}` is {value}, which is out of range")
        };
        within("temperature", self.temperature, 0.0, f64::MAX)?;
        within("top_p", self.top_p, f64::MIN_POSITIVE, 1.0)?;
        within("min_p", self.min_p, 0.0, 1.0)?;
        ensure!(self.max_tokens > 0, "`max_tokens` must be at least 1");
        ensure!(
            self.stop.iter().all(|text| !text.is_empty()),
            "`stop` holds an empty text"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings::new("http://localhost:1/v1", "m")
    }

    fn sent(request: &Request, settings: &Settings, dialect: &Dialect) -> String {
        Value::Object(request.body(settings, dialect)).to_string()
    }

    #[test]
    fn what_is_off_is_sent_as_off() {
        let request = Request {
            user: "hello".to_owned(),
            max_tokens: 5,
            ..Request::default()
        };
        assert_eq!(
            sent(&request, &settings(), &Dialect::default()),
            concat!(
                r#"{"model":"m","messages":[{"role":"user","content":"hello"}],"max_tokens":5,"#,
                r#""temperature":1.0,"top_p":1.0,"top_k":-1,"min_p":0.0,"seed":0}"#
            )
        );
    }

    #[test]
    fn everything_that_is_set_is_sent() {
        let request = Request {
            system: Some("be brief".to_owned()),
            user: "hello".to_owned(),
            temperature: 0.5,
            top_p: 0.9,
            top_k: 50,
            min_p: 0.1,
            max_tokens: 5,
            seed: u64::MAX,
            stop: vec!["\n".to_owned()],
            schema: Some(json!({"type": "object"})),
        };
        let mut settings = settings();
        settings.extra.insert("ignore_eos".to_owned(), json!(false));
        assert_eq!(
            sent(&request, &settings, &Dialect::default()),
            concat!(
                r#"{"model":"m","messages":[{"role":"system","content":"be brief"},"#,
                r#"{"role":"user","content":"hello"}],"max_tokens":5,"temperature":0.5,"#,
                r#""top_p":0.9,"top_k":50,"min_p":0.1,"seed":2147483647,"#,
                r#""stop":["\n"],"response_format":{"type":"json_schema","json_schema":"#,
                r#"{"name":"answer","strict":true,"schema":{"type":"object"}}},"ignore_eos":false}"#
            )
        );
    }

    #[test]
    fn a_field_that_changes_nothing_is_left_out_where_it_is_refused() {
        let request = Request {
            top_k: 3,
            ..Request::default()
        };
        let mut dialect = Dialect::default();
        let mut learn = |said: &str| dialect.learn(said, &request).is_some();
        assert!(
            !learn("Unrecognized request argument supplied: top_k"),
            "it is not off"
        );
        assert!(learn(
            "Unrecognized request arguments supplied: min_p, top_k"
        ));
        assert!(
            !learn("Unrecognized request argument supplied: min_p"),
            "known already"
        );
        assert!(learn(
            "Unsupported parameter: 'top_p' is not supported with this model."
        ));
        assert!(learn(
            r#"[{"type":"extra_forbidden","loc":["body","seed"]}]"#
        ));
        assert!(!learn("temperatures are unknown, try max_tokens"));
        assert!(!learn("temperature must be below 2"), "the field is known");
        let body = request.body(&settings(), &dialect);
        for (name, is_sent) in [
            ("top_k", true),
            ("temperature", true),
            ("min_p", false),
            ("top_p", false),
            ("seed", false),
        ] {
            assert_eq!(body.contains_key(name), is_sent, "{name}");
        }
    }

    #[test]
    fn the_limit_goes_where_the_server_wants_it() {
        let said = "Unsupported parameter: 'max_tokens' is not supported with this model. \
                    Use 'max_completion_tokens' instead.";
        let (request, mut dialect) = (Request::default(), Dialect::default());
        assert!(
            dialect
                .learn("'max_completion_tokens' is too large", &request)
                .is_none()
        );
        assert!(dialect.learn(said, &request).is_some());
        assert!(dialect.learn(said, &request).is_none());
        let body = request.body(&settings(), &dialect);
        assert_eq!(body["max_completion_tokens"], 256);
        assert!(!body.contains_key("max_tokens"));
    }

    #[test]
    fn ollama_is_told_once() {
        let mut dialect = Dialect::default();
        assert!(dialect.learn_of_server(None).is_none());
        assert!(dialect.learn_of_server(Some("fp_44709d6fcb")).is_none());
        assert!(dialect.learn_of_server(Some("fp_ollama")).is_some());
        assert!(dialect.learn_of_server(Some("fp_ollama")).is_none());
    }

    #[test]
    fn extra_fields_set_nothing_that_has_a_setting() {
        for name in RESERVED {
            let extra = Map::from_iter([((*name).to_owned(), json!(1))]);
            let error = check_extra(&extra).unwrap_err().to_string();
            assert!(error.contains(&format!("`{name}`")), "{error}");
        }
        let request = Request {
            stop: vec!["a".to_owned()],
            schema: Some(json!({})),
            ..Request::default()
        };
        for name in request.body(&settings(), &Dialect::default()).keys() {
            assert!(RESERVED.contains(&name.as_str()), "{name}");
        }
    }

    #[test]
    fn parameters_out_of_range_are_named() {
        let good = Request::default();
        assert!(good.check().is_ok());
        for (name, bad) in [
            (
                "temperature",
                Request {
                    temperature: f64::NAN,
                    ..good.clone()
                },
            ),
            (
                "temperature",
                Request {
                    temperature: -0.1,
                    ..good.clone()
                },
            ),
            (
                "top_p",
                Request {
                    top_p: 0.0,
                    ..good.clone()
                },
            ),
            (
                "min_p",
                Request {
                    min_p: 1.5,
                    ..good.clone()
                },
            ),
            (
                "max_tokens",
                Request {
                    max_tokens: 0,
                    ..good.clone()
                },
            ),
            (
                "stop",
                Request {
                    stop: vec![String::new()],
                    ..good.clone()
                },
            ),
        ] {
            let error = bad.check().unwrap_err().to_string();
            assert!(error.starts_with(&format!("`{name}`")), "{error}");
        }
    }
}
