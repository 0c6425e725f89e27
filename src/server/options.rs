//! `options`: built-in defaults, the model's stored parameters and the request's values, in rising priority.

use super::error::ApiError;
use crate::api::Object;
use serde_json::Value;

/// Stop strings of one request, and the bytes of each.
const MAX_STOPS: usize = 64;
const MAX_STOP_BYTES: usize = 4 << 10;
/// Tokens of one request whose logits are changed, and by how much at most, as OpenAI has it.
const MAX_BIASES: usize = 1024;
const MAX_BIAS: f64 = 100.0;

/// Every option with the value that holds; `None` leaves the choice to the server.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    pub num_ctx: Option<i64>,
    pub num_batch: Option<i64>,
    pub num_gpu: i64,
    pub main_gpu: Option<i64>,
    pub use_mmap: Option<bool>,
    pub num_thread: i64,
    pub draft_num_predict: Option<i64>,
    pub num_keep: i64,
    /// Negative is random.
    pub seed: i64,
    /// Negative is without a limit of its own.
    pub num_predict: i64,
    pub temperature: f32,
    pub top_k: i64,
    pub top_p: f32,
    pub min_p: f32,
    pub typical_p: f32,
    /// 0 is off, -1 the whole context.
    pub repeat_last_n: i64,
    pub repeat_penalty: f32,
    pub presence_penalty: f32,
    pub frequency_penalty: f32,
    pub stop: Vec<String>,
    /// A Lark grammar or `/regex/` that the answer must match; beyond Ollama's options.
    pub grammar: Option<String>,
    /// Tokens and what is added to their logits; beyond Ollama's options.
    pub logit_bias: Vec<(u32, f32)>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            num_ctx: None,
            num_batch: None,
            num_gpu: -1,
            main_gpu: None,
            use_mmap: None,
            num_thread: 0,
            draft_num_predict: None,
            num_keep: 4,
            seed: -1,
            num_predict: -1,
            temperature: 0.8,
            top_k: 40,
            top_p: 0.9,
            min_p: 0.0,
            typical_p: 1.0,
            repeat_last_n: 64,
            repeat_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            stop: Vec::new(),
            grammar: None,
            logit_bias: Vec::new(),
        }
    }
}

impl Options {
    /// The model's parameters, then the request's, over the defaults.
    ///
    /// # Errors
    /// 500 with Ollama's text for a value of the wrong type.
    pub fn merge(model: &Object, request: &Object) -> Result<Options, ApiError> {
        let mut options = Options::default();
        for (name, value) in model.iter().chain(request) {
            options.set(name, value)?;
        }
        Ok(options)
    }

    fn set(&mut self, name: &str, value: &Value) -> Result<(), ApiError> {
        if value.is_null() {
            return Ok(());
        }
        match name {
            "num_ctx" => self.num_ctx = Some(integer(name, value)?),
            "num_batch" => self.num_batch = Some(integer(name, value)?),
            "num_gpu" => self.num_gpu = integer(name, value)?,
            "main_gpu" => self.main_gpu = Some(integer(name, value)?),
            "use_mmap" => self.use_mmap = Some(boolean(name, value)?),
            "num_thread" => self.num_thread = integer(name, value)?,
            "draft_num_predict" => self.draft_num_predict = Some(integer(name, value)?),
            "num_keep" => self.num_keep = integer(name, value)?,
            "seed" => self.seed = integer(name, value)?,
            "num_predict" => self.num_predict = integer(name, value)?,
            "temperature" => self.temperature = float(name, value)?,
            "top_k" => self.top_k = integer(name, value)?,
            "top_p" => self.top_p = float(name, value)?,
            "min_p" => self.min_p = float(name, value)?,
            "typical_p" => self.typical_p = float(name, value)?,
            "repeat_last_n" => self.repeat_last_n = integer(name, value)?,
            "repeat_penalty" => self.repeat_penalty = float(name, value)?,
            "presence_penalty" => self.presence_penalty = float(name, value)?,
            "frequency_penalty" => self.frequency_penalty = float(name, value)?,
            "stop" => self.stop = strings(name, value)?,
            "grammar" => self.grammar = Some(string(name, value)?),
            "logit_bias" => self.logit_bias = biases(value)?,
            _ => tracing::warn!(option = name, "unknown option ignored"),
        }
        Ok(())
    }

    /// Refuses more stop strings than the output scanner should carry; empty ones are dropped.
    ///
    /// # Errors
    /// 400 that names the limit.
    pub fn checked_stops(&self) -> Result<Vec<String>, ApiError> {
        let stops: Vec<String> = self
            .stop
            .iter()
            .filter(|s| !s.is_empty())
            .cloned()
            .collect();
        if stops.len() > MAX_STOPS {
            return Err(ApiError::bad_request(format!(
                "option \"stop\" takes at most {MAX_STOPS} strings"
            )));
        }
        if stops.iter().any(|s| s.len() > MAX_STOP_BYTES) {
            let text = format!("option \"stop\" takes strings of at most {MAX_STOP_BYTES} bytes");
            return Err(ApiError::bad_request(text));
        }
        Ok(stops)
    }
}

fn wrong_type(name: &str, kind: &str) -> ApiError {
    ApiError::internal(format!("option \"{name}\" must be of {kind}"))
}

/// Any number; its fraction is cut off, and what does not fit is the nearest that does.
fn integer(name: &str, value: &Value) -> Result<i64, ApiError> {
    let exact = value.as_i64();
    exact
        .or_else(|| value.as_f64().map(|x| x as i64))
        .ok_or_else(|| wrong_type(name, "type integer"))
}

fn float(name: &str, value: &Value) -> Result<f32, ApiError> {
    let number = value
        .as_f64()
        .ok_or_else(|| wrong_type(name, "type float32"))?;
    Ok((number as f32).clamp(f32::MIN, f32::MAX))
}

fn boolean(name: &str, value: &Value) -> Result<bool, ApiError> {
    value
        .as_bool()
        .ok_or_else(|| wrong_type(name, "type boolean"))
}

fn string(name: &str, value: &Value) -> Result<String, ApiError> {
    let text = value.as_str().map(str::to_owned);
    text.ok_or_else(|| wrong_type(name, "type string"))
}

/// OpenAI's form: ids of tokens as the names of members.
fn biases(value: &Value) -> Result<Vec<(u32, f32)>, ApiError> {
    let members = value
        .as_object()
        .filter(|members| members.len() <= MAX_BIASES);
    let pair = |(id, bias): (&String, &Value)| {
        let bias = bias.as_f64().filter(|bias| bias.abs() <= MAX_BIAS)?;
        Some((id.parse().ok()?, bias as f32))
    };
    let pairs = members.and_then(|members| members.iter().map(pair).collect::<Option<Vec<_>>>());
    let mut pairs = pairs.ok_or_else(|| {
        ApiError::bad_request(format!(
            "logit_bias must be an object of at most {MAX_BIASES} ids of tokens, \
             each with a number between -{MAX_BIAS} and {MAX_BIAS}"
        ))
    })?;
    // "7" and "07" are one token.
    pairs.sort_unstable_by_key(|&(id, _)| id);
    pairs.dedup_by_key(|&mut (id, _)| id);
    Ok(pairs)
}

fn strings(name: &str, value: &Value) -> Result<Vec<String>, ApiError> {
    let items = value
        .as_array()
        .ok_or_else(|| wrong_type(name, "type array"))?;
    let texts = items.iter().map(|item| item.as_str().map(str::to_owned));
    texts
        .collect::<Option<_>>()
        .ok_or_else(|| wrong_type(name, "an array of strings"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{from_str, json};

    fn object(value: Value) -> Object {
        value.as_object().expect("an object").clone()
    }

    #[test]
    fn biases_are_read_in_openai_s_form() {
        let of = |value: Value| {
            let options = object(json!({ "logit_bias": value }));
            Options::merge(&Object::new(), &options).map(|options| options.logit_bias)
        };
        assert_eq!(
            of(json!({"9": -100, "7": 0.5})),
            Ok(vec![(7, 0.5), (9, -100.0)])
        );
        assert_eq!(of(json!({})), Ok(vec![]));
        assert_eq!(of(json!({"7": 1, "07": 1})), Ok(vec![(7, 1.0)]));
        for bad in [
            json!([]),
            json!({"a": 1}),
            json!({"-1": 1}),
            json!({"1": 101}),
            json!({"1": "x"}),
        ] {
            let error = of(bad).unwrap_err();
            assert!(error.message.starts_with("logit_bias must be"), "{error}");
        }
    }

    #[test]
    fn requests_replace_what_the_model_stores() {
        let model = object(json!({"temperature": 0.1, "stop": ["a", "b"], "num_ctx": 2048}));
        let request =
            object(json!({"stop": ["z"], "temperature": null, "num_predict": 7.9, "nonsense": 1}));
        let options = Options::merge(&model, &request).unwrap();
        assert_eq!(
            (options.temperature, options.num_ctx, options.num_predict),
            (0.1, Some(2048), 7)
        );
        assert_eq!(options.stop, ["z"]);
        assert_eq!(
            (options.top_k, options.seed, options.repeat_last_n),
            (40, -1, 64)
        );
    }

    #[test]
    fn wrong_types_have_ollamas_texts() {
        for (name, value, text) in [
            ("num_predict", json!("6"), "type integer"),
            ("use_mmap", json!("yes"), "type boolean"),
            ("temperature", json!("hot"), "type float32"),
            ("stop", json!("x"), "type array"),
            ("stop", json!([1]), "an array of strings"),
        ] {
            let request = Object::from_iter([(name.to_owned(), value)]);
            let error = Options::merge(&Object::new(), &request).unwrap_err();
            assert_eq!(
                error,
                ApiError::internal(format!("option \"{name}\" must be of {text}"))
            );
        }
    }

    #[test]
    fn extreme_numbers_saturate() {
        let request: Object = from_str(
            r#"{"num_ctx":1e300,"seed":-9223372036854775808,"num_predict":18446744073709551615,"temperature":1e308}"#,
        )
        .unwrap();
        let options = Options::merge(&Object::new(), &request).unwrap();
        assert_eq!(
            (options.num_ctx, options.num_predict),
            (Some(i64::MAX), i64::MAX)
        );
        assert_eq!((options.seed, options.temperature), (i64::MIN, f32::MAX));
    }

    #[test]
    fn stops_are_bounded_and_empty_ones_dropped() {
        let with = |stop| Options {
            stop,
            ..Options::default()
        };
        assert_eq!(
            with(vec!["".into(), "a".into()]).checked_stops().unwrap(),
            ["a"]
        );
        assert!(with(vec!["a".into(); 65]).checked_stops().is_err());
        assert!(with(vec!["a".repeat(5000)]).checked_stops().is_err());
    }
}
