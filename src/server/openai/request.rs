//! `/v1/chat/completions` requests as native chat requests.

use super::choices;
use super::content::refused;
use super::messages::messages;
use crate::api::{ChatRequest, Object, Think};
use crate::server::body;
use crate::server::error::ApiError;
use serde::Deserialize;
use serde_json::{Value, json};

/// The members that have an effect; all others are accepted and ignored.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Completion {
    model: String,
    messages: Vec<Value>,
    stream: bool,
    stream_options: StreamOptions,
    n: Option<i64>,
    max_tokens: Option<i64>,
    /// Newer name of `max_tokens`, which wins when both are there.
    max_completion_tokens: Option<i64>,
    seed: Option<i64>,
    stop: Value,
    temperature: Option<f64>,
    top_p: Option<f64>,
    frequency_penalty: Option<f64>,
    presence_penalty: Option<f64>,
    logit_bias: Option<Value>,
    response_format: Option<ResponseFormat>,
    tools: Vec<Value>,
    tool_choice: Option<Value>,
    parallel_tool_calls: Option<bool>,
    reasoning: Option<Reasoning>,
    reasoning_effort: String,
    logprobs: bool,
    top_logprobs: i64,
    modalities: Vec<Value>,
    functions: Vec<Value>,
    web_search_options: Value,
    #[serde(rename = "_debug_render_only")]
    debug_render_only: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct StreamOptions {
    pub include_usage: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ResponseFormat {
    #[serde(rename = "type")]
    kind: String,
    json_schema: Option<JsonSchema>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct JsonSchema {
    schema: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Reasoning {
    effort: String,
}

/// A translated request: what to run, and how to answer.
#[derive(Debug)]
pub struct Translated {
    pub chat: ChatRequest,
    /// Answers wanted.
    pub n: usize,
    pub stream: bool,
    pub include_usage: bool,
}

/// Reads and translates a body.
///
/// # Errors
/// 400 with Ollama's texts.
pub fn translate(bytes: &[u8]) -> Result<Translated, ApiError> {
    let request: Completion = body::typed(body::parse_object(bytes, "EOF")?)?;
    if request.messages.is_empty() {
        return Err(refused("[] is too short - 'messages'"));
    }
    refuse_unsupported(&request)?;
    let n = choices::checked(request.n, 1)?;
    let chat = ChatRequest {
        messages: messages(&request.messages)?,
        think: effort(&request)?,
        format: format(&request.response_format)?,
        options: options(&request),
        stream: Some(request.stream),
        tools: request.tools,
        tool_choice: request.tool_choice,
        parallel_tool_calls: request.parallel_tool_calls,
        logprobs: request.logprobs,
        top_logprobs: request.top_logprobs,
        debug_render_only: request.debug_render_only,
        model: request.model,
        ..ChatRequest::default()
    };
    Ok(Translated {
        chat,
        n,
        stream: request.stream,
        include_usage: request.stream_options.include_usage,
    })
}

/// Names what would change the answer and is not there, instead of answering without it.
fn refuse_unsupported(request: &Completion) -> Result<(), ApiError> {
    if !request.functions.is_empty() {
        return Err(refused("functions are not supported: send them as tools"));
    }
    if !request.web_search_options.is_null() {
        return Err(refused(
            "web_search_options is not supported: no model searches the web",
        ));
    }
    if request.modalities.iter().any(|kind| kind != "text") {
        return Err(refused("modalities other than \"text\" are not supported"));
    }
    let kinds = request.tools.iter().map(|tool| &tool["type"]);
    match kinds
        .filter_map(Value::as_str)
        .find(|kind| !["", "function"].contains(kind))
    {
        None => Ok(()),
        Some(kind) => Err(refused(&format!(
            "tool type {kind:?} is not supported: only functions"
        ))),
    }
}

/// Temperature and `top_p` are always sent, so they override what the model stores.
fn options(request: &Completion) -> Object {
    let mut options = Object::new();
    let mut set = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            options.insert(name.into(), value);
        }
    };
    set("stop", stops(&request.stop));
    set(
        "num_predict",
        request
            .max_tokens
            .or(request.max_completion_tokens)
            .map(Value::from),
    );
    set(
        "temperature",
        Some(json!(request.temperature.unwrap_or(1.0))),
    );
    set("seed", request.seed.map(Value::from));
    set(
        "frequency_penalty",
        request.frequency_penalty.map(Value::from),
    );
    set(
        "presence_penalty",
        request.presence_penalty.map(Value::from),
    );
    set("logit_bias", request.logit_bias.clone());
    set("top_p", Some(json!(request.top_p.unwrap_or(1.0))));
    options
}

/// One string or the strings of a list; an empty list leaves the model's stop strings in force.
fn stops(stop: &Value) -> Option<Value> {
    match stop {
        Value::String(text) => Some(json!([text])),
        Value::Array(items) => {
            let texts: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
            (!texts.is_empty()).then(|| json!(texts))
        }
        _ => None,
    }
}

fn format(format: &Option<ResponseFormat>) -> Result<Option<Value>, ApiError> {
    let Some(format) = format else {
        return Ok(None);
    };
    let schema = format.json_schema.as_ref().and_then(|s| s.schema.clone());
    format_of(&format.kind, schema)
}

/// A format of OpenAI's as the native one.
///
/// # Errors
/// 400 for one that would otherwise be ignored.
pub fn format_of(kind: &str, schema: Option<Value>) -> Result<Option<Value>, ApiError> {
    match (kind.trim().to_lowercase().as_str(), schema) {
        ("" | "text", _) => Ok(None),
        ("json_object", _) => Ok(Some(json!("json"))),
        ("json_schema", Some(schema)) => Ok(Some(schema)),
        ("json_schema", None) => Err(refused("a format of type \"json_schema\" needs a schema")),
        _ => Err(refused(&format!(
            "invalid format type {kind:?}: \"text\", \"json_object\" or \"json_schema\""
        ))),
    }
}

fn effort(request: &Completion) -> Result<Option<Think>, ApiError> {
    let effort = request
        .reasoning
        .as_ref()
        .map_or(&request.reasoning_effort, |r| &r.effort);
    think_of(effort)
}

/// An effort of OpenAI's as the native level; empty leaves the choice to the model.
pub fn think_of(effort: &str) -> Result<Option<Think>, ApiError> {
    let level = match effort {
        "" => return Ok(None),
        "none" => return Ok(Some(Think::Switch(false))),
        "minimal" => "low",
        "xhigh" | "ultra" => "max",
        "low" | "medium" | "high" | "max" => effort,
        _ => {
            return Err(refused(&format!(
                "invalid reasoning value: {effort:?} (must be \"minimal\", \"low\", \"medium\", \"high\", \
                 \"xhigh\", \"ultra\", \"max\", or \"none\")"
            )));
        }
    };
    Ok(Some(Think::Level(level.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Message;

    fn chat(body: Value) -> ChatRequest {
        translate(body.to_string().as_bytes()).unwrap().chat
    }

    fn with_messages(messages: Value) -> Vec<Message> {
        chat(json!({"model": "m", "messages": messages})).messages
    }

    fn refusal(body: Value) -> String {
        translate(body.to_string().as_bytes()).unwrap_err().message
    }

    #[test]
    fn the_least_request() {
        let chat = chat(json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}]}));
        assert_eq!(
            Value::Object(chat.options),
            json!({"temperature": 1.0, "top_p": 1.0})
        );
        assert_eq!(
            (chat.stream, chat.think, chat.format),
            (Some(false), None, None)
        );
    }

    #[test]
    fn every_option() {
        let body = json!({
            "model": "m", "messages": [{"role": "user", "content": "x"}], "max_tokens": 999, "seed": 123,
            "stop": ["a", 5, "b"], "temperature": 3.0, "frequency_penalty": 4.0, "presence_penalty": 5.0, "top_p": 6.0,
            "response_format": {"type": " JSON_object "}, "logprobs": true, "top_logprobs": 20, "logit_bias": {"5": -1},
        });
        let chat = chat(body);
        assert_eq!(
            Value::Object(chat.options),
            json!({"stop": ["a", "b"], "num_predict": 999, "temperature": 3.0, "seed": 123,
                "frequency_penalty": 4.0, "presence_penalty": 5.0, "logit_bias": {"5": -1}, "top_p": 6.0})
        );
        assert_eq!(
            (chat.format, chat.logprobs, chat.top_logprobs),
            (Some(json!("json")), true, 20)
        );
    }

    #[test]
    fn efforts() {
        let with = |effort: &str| json!({"model": "m", "messages": [{"role": "user", "content": "x"}], "reasoning_effort": effort});
        for (effort, expected) in [
            ("", None),
            ("none", Some("")),
            ("minimal", Some("low")),
            ("low", Some("low")),
            ("medium", Some("medium")),
            ("high", Some("high")),
            ("max", Some("max")),
            ("xhigh", Some("max")),
            ("ultra", Some("max")),
        ] {
            let think = chat(with(effort)).think;
            assert_eq!(think.as_ref().map(Think::level), expected, "{effort}");
        }
        assert!(
            refusal(with("extreme"))
                .starts_with("invalid reasoning value: \"extreme\" (must be \"minimal\", ")
        );
        let mut both = with("low");
        both["reasoning"] = json!({"effort": ""});
        assert_eq!(chat(both).think, None);
    }

    #[test]
    fn logprobs_are_off_unless_asked_for() {
        let with = |logprobs: Value, top: Value| {
            let chat = chat(
                json!({"messages": [{"role": "user", "content": "x"}], "logprobs": logprobs, "top_logprobs": top}),
            );
            (chat.logprobs, chat.top_logprobs)
        };
        assert_eq!(with(Value::Null, Value::Null), (false, 0));
        for n in [0, 1, 10, 20] {
            assert_eq!(with(json!(true), json!(n)), (true, n));
        }
    }

    #[test]
    fn turns_with_calls_keep_their_words() {
        let call = json!([{"id": "c", "function": {"name": "f", "arguments": ""}}]);
        let messages = with_messages(json!([
            {"role": "assistant", "content": "Let me look.", "tool_calls": call},
            {"role": "assistant", "content": "", "tool_calls": call, "reasoning": "hm"},
        ]));
        assert_eq!(messages.len(), 2);
        assert_eq!(
            (messages[0].content.as_str(), messages[0].tool_calls.len()),
            ("Let me look.", 1)
        );
        assert_eq!(
            (messages[1].content.as_str(), messages[1].thinking.as_str()),
            ("", "hm")
        );
        assert!(messages[1].tool_calls[0].function.arguments.is_empty());
    }

    #[test]
    fn parts_become_messages() {
        let messages = with_messages(json!([{"role": "user", "content": [
            {"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
        ]}]));
        assert_eq!(
            (messages[0].content.as_str(), messages[0].role.as_str()),
            ("a", "user")
        );
        assert_eq!(
            (
                messages[1].content.as_str(),
                messages[1].images[0].0.as_slice()
            ),
            ("", b"hi".as_slice())
        );
        assert!(with_messages(json!([{"role": "user", "content": []}])).is_empty());
    }

    #[test]
    fn tools_are_handed_on_as_they_are() {
        let sent = r#"[{"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object","properties":{"z":{"type":"string","enum":["b","a"],"description":"e"},"a":{"type":"integer"}},"required":["z"]}}}]"#;
        let tools: Value = serde_json::from_str(sent).unwrap();
        let body = json!({"messages": [{"role": "user", "content": "x"}], "tools": tools});
        assert_eq!(Value::Array(chat(body).tools).to_string(), sent);
    }

    #[test]
    fn tool_turns() {
        let call = |name: &str| json!([{"id": "c", "function": {"name": name, "arguments": "{\"b\":1,\"a\":2}"}}]);
        let messages = with_messages(json!([
            {"role": "assistant", "content": null, "tool_calls": call("old"), "reasoning": "why"},
            {"role": "assistant", "tool_calls": call("new")},
            {"role": "tool", "content": [{"type": "text", "text": "9"}], "tool_call_id": "c"},
            {"role": "tool", "content": "8", "name": "given"},
        ]));
        let function = &messages[0].tool_calls[0].function;
        assert_eq!(function.arguments.keys().collect::<Vec<_>>(), ["b", "a"]);
        assert_eq!(messages[0].thinking, "why");
        assert_eq!(
            (
                messages[2].tool_name.as_str(),
                messages[2].tool_call_id.as_str()
            ),
            ("new", "c")
        );
        assert_eq!(messages[3].tool_name, "given");
    }

    #[test]
    fn what_would_be_ignored_is_refused() {
        let with = |member: &str, value: Value| {
            let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "x"}]});
            body[member] = value;
            translate(body.to_string().as_bytes()).map(|_| ())
        };
        for (member, value, part) in [
            ("functions", json!([{"name": "f"}]), "send them as tools"),
            ("web_search_options", json!({}), "web_search_options"),
            ("modalities", json!(["text", "audio"]), "modalities"),
            (
                "tools",
                json!([{"type": "custom", "custom": {"name": "f"}}]),
                "\"custom\"",
            ),
        ] {
            let error = with(member, value).unwrap_err();
            assert!(error.message.contains(part), "{error}");
        }
        for (member, value) in [
            ("functions", json!([])),
            ("logit_bias", json!(null)),
            ("stream_options", json!({"include_usage": null})),
            ("reasoning", json!({"effort": null})),
            (
                "response_format",
                json!({"type": null, "json_schema": null}),
            ),
            ("function_call", json!("none")),
            ("web_search_options", json!(null)),
            ("modalities", json!(["text"])),
            ("tools", json!([{"function": {"name": "f"}}])),
            ("user", json!("u")),
            ("store", json!(true)),
            ("metadata", json!({"a": "b"})),
            ("service_tier", json!("auto")),
            ("prediction", json!({"type": "content", "content": "x"})),
            ("chat_template_kwargs", json!({})),
        ] {
            assert_eq!(with(member, value), Ok(()), "{member}");
        }
    }

    #[test]
    fn refusals() {
        let with = |message: Value| refusal(json!({"model": "m", "messages": [message]}));
        assert_eq!(
            refusal(json!({"model": "m"})),
            "[] is too short - 'messages'"
        );
        assert_eq!(
            with(json!({"role": "user", "content": 5})),
            "invalid message content type: float64"
        );
        assert_eq!(
            with(json!({"role": "user", "content": null})),
            "invalid message content type: <nil>"
        );
        let arguments = json!([{"id": "a", "function": {"name": "f", "arguments": "[1]"}}]);
        assert_eq!(
            with(json!({"role": "assistant", "tool_calls": arguments})),
            "invalid tool call arguments"
        );
        assert_eq!(translate(b"").unwrap_err().message, "EOF");
        assert!(refusal(json!({"messages": [5]})).contains("number into field messages"));
    }
}
