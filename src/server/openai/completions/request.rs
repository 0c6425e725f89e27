//! `/v1/completions` requests as native ones.

use crate::api::{GenerateRequest, Object};
use crate::chat::go_json::kind;
use crate::server::body;
use crate::server::error::ApiError;
use crate::server::openai::choices;
use crate::server::openai::content::{go_type, refused};
use crate::server::openai::request::StreamOptions;
use serde::Deserialize;
use serde_json::{Value, json};

/// The members that have an effect; all others are accepted and ignored.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Completion {
    model: String,
    prompt: Value,
    suffix: String,
    stream: bool,
    stream_options: StreamOptions,
    n: Option<i64>,
    best_of: Option<i64>,
    echo: bool,
    max_tokens: Option<i64>,
    seed: Option<i64>,
    stop: Value,
    temperature: Option<f64>,
    top_p: f64,
    frequency_penalty: f64,
    presence_penalty: f64,
    logit_bias: Option<Value>,
    logprobs: Option<i64>,
    #[serde(rename = "_debug_render_only")]
    debug_render_only: bool,
}

/// A translated request: what to run, and how to answer.
#[derive(Debug)]
pub struct Translated {
    /// One for each choice, those of a prompt side by side.
    pub requests: Vec<GenerateRequest>,
    pub n_prompts: usize,
    pub stream: bool,
    pub include_usage: bool,
    /// Choices begin with their prompts.
    pub echo: bool,
}

/// Reads and translates a body.
///
/// # Errors
/// 400 that names the member.
pub fn translate(bytes: &[u8]) -> Result<Translated, ApiError> {
    let request: Completion = body::typed(body::parse_object(bytes, "EOF")?)?;
    let prompts = prompts(&request.prompt)?;
    let n = choices::checked(request.n, prompts.len())?;
    if request
        .best_of
        .is_some_and(|best| usize::try_from(best) != Ok(n))
    {
        return Err(refused("best_of is not supported: only the value of n"));
    }
    if request.echo && request.logprobs.is_some() {
        return Err(refused("echo and logprobs are not supported together"));
    }
    let options = options(&request)?;
    let requests = prompts
        .iter()
        .flat_map(|prompt| (0..n).map(move |index| (prompt, index)))
        .map(|(prompt, index)| GenerateRequest {
            model: request.model.clone(),
            prompt: prompt.clone(),
            suffix: request.suffix.clone(),
            options: choices::options_of(&options, index),
            stream: Some(request.stream),
            logprobs: request.logprobs.is_some(),
            top_logprobs: request.logprobs.unwrap_or_default(),
            debug_render_only: request.debug_render_only,
            ..GenerateRequest::default()
        })
        .collect();
    Ok(Translated {
        requests,
        n_prompts: prompts.len(),
        stream: request.stream,
        include_usage: request.stream_options.include_usage,
        echo: request.echo,
    })
}

/// One text, or a list of them.
fn prompts(prompt: &Value) -> Result<Vec<String>, ApiError> {
    let texts = match prompt {
        Value::Null => vec![String::new()],
        Value::String(text) => vec![text.clone()],
        Value::Array(items) => {
            let texts: Option<Vec<String>> = items
                .iter()
                .map(|item| item.as_str().map(str::to_owned))
                .collect();
            texts.ok_or_else(|| refused("prompts of tokens are not supported: send text"))?
        }
        other => {
            return Err(refused(&format!(
                "json: cannot unmarshal {} into field prompt: a string or a list of strings",
                kind(other)
            )));
        }
    };
    if texts.is_empty() {
        return Err(refused("[] is too short - 'prompt'"));
    }
    Ok(texts)
}

/// All but `max_tokens`, `seed`, `stop` and `logit_bias` are always sent, so they override what the model stores.
fn options(request: &Completion) -> Result<Object, ApiError> {
    let mut options = Object::from_iter([
        (
            "temperature".to_owned(),
            json!(request.temperature.unwrap_or(1.0)),
        ),
        (
            "frequency_penalty".to_owned(),
            json!(request.frequency_penalty),
        ),
        (
            "presence_penalty".to_owned(),
            json!(request.presence_penalty),
        ),
    ]);
    let top_p = if request.top_p == 0.0 {
        1.0
    } else {
        request.top_p
    };
    options.insert("top_p".into(), json!(top_p));
    if let Some(max) = request.max_tokens {
        options.insert("num_predict".into(), max.into());
    }
    if let Some(seed) = request.seed {
        options.insert("seed".into(), seed.into());
    }
    if let Some(bias) = &request.logit_bias {
        options.insert("logit_bias".into(), bias.clone());
    }
    match &request.stop {
        Value::String(text) => drop(options.insert("stop".into(), json!([text]))),
        Value::Array(items) => {
            if let Some(other) = items.iter().find(|item| !item.is_string()) {
                return Err(refused(&format!(
                    "invalid type for 'stop' field: {}",
                    go_type(other)
                )));
            }
            options.insert("stop".into(), json!(items));
        }
        _ => {}
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(body: Value) -> Result<Translated, ApiError> {
        translate(body.to_string().as_bytes())
    }

    fn refusal(body: Value) -> String {
        translated(body).unwrap_err().message
    }

    #[test]
    fn the_least_request() {
        let found = translated(json!({"model": "m", "prompt": "p", "suffix": "s", "stream": true}));
        let found = found.unwrap();
        let request = &found.requests[0];
        assert_eq!(
            Value::Object(request.options.clone()),
            json!({"temperature": 1.0, "frequency_penalty": 0.0, "presence_penalty": 0.0, "top_p": 1.0})
        );
        assert_eq!((request.suffix.as_str(), request.stream), ("s", Some(true)));
        assert!(!request.logprobs && !request.raw && found.requests.len() == 1);
    }

    #[test]
    fn several_prompts_and_choices() {
        let body = json!({"prompt": ["a", "b"], "n": 2, "seed": 5, "logprobs": 0, "stop": "x", "top_p": 0});
        let found = translated(body).unwrap();
        let seen: Vec<_> = found
            .requests
            .iter()
            .map(|r| (r.prompt.as_str(), r.options["seed"].as_i64().unwrap()))
            .collect();
        assert_eq!(seen, [("a", 5), ("a", 6), ("b", 5), ("b", 6)]);
        let first = &found.requests[0];
        assert_eq!((first.logprobs, first.top_logprobs), (true, 0));
        assert_eq!(
            (&first.options["stop"], &first.options["top_p"]),
            (&json!(["x"]), &json!(1.0))
        );
    }

    #[test]
    fn refusals() {
        assert_eq!(
            refusal(json!({"stop": [1, 2]})),
            "invalid type for 'stop' field: float64"
        );
        assert!(refusal(json!({"prompt": [1, 2]})).contains("tokens"));
        assert!(refusal(json!({"prompt": 5})).contains("number into field prompt"));
        assert!(refusal(json!({"prompt": []})).contains("too short"));
        assert!(refusal(json!({"n": 2, "best_of": 3})).contains("best_of"));
        assert!(refusal(json!({"echo": true, "logprobs": 1})).contains("echo"));
        assert!(translated(json!({"n": 2, "best_of": 2})).is_ok());
        assert_eq!(translate(b"").unwrap_err().message, "EOF");
    }
}
