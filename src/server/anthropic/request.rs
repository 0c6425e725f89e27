//! `/v1/messages` requests as native chat requests.

use super::content::{texts, turns, with_role};
use crate::api::{ChatRequest, Object, Think};
use crate::chat::Tool;
use crate::server::body;
use crate::server::error::ApiError;
use serde::Deserialize;
use serde_json::{Value, json};

/// The members that have an effect; all others are accepted and ignored.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Sent {
    model: String,
    max_tokens: i64,
    messages: Vec<Value>,
    system: Value,
    stream: bool,
    temperature: Option<f64>,
    top_p: Option<f64>,
    top_k: Option<i64>,
    stop_sequences: Vec<String>,
    tools: Vec<Value>,
    tool_choice: Value,
    thinking: Value,
    output_config: Value,
    /// Older place of `output_config.format`.
    output_format: Value,
}

/// A translated request: what to run, and how to answer.
#[derive(Debug)]
pub struct Translated {
    pub chat: ChatRequest,
    pub stream: bool,
    /// Texts that end the answer, in the order in which the model watches for them.
    pub stop_sequences: Vec<String>,
}

/// A 400 found by the translation.
pub fn refused(text: impl Into<String>) -> ApiError {
    ApiError::bad_request(text)
}

/// Reads and translates a message to answer.
///
/// # Errors
/// 400 with Ollama's texts.
pub fn message(bytes: &[u8]) -> Result<Translated, ApiError> {
    translated(bytes, true)
}

/// As [`message`], for one whose tokens are counted, so that it needs no `max_tokens`.
pub fn count(bytes: &[u8]) -> Result<Translated, ApiError> {
    translated(bytes, false)
}

fn translated(bytes: &[u8], needs_max: bool) -> Result<Translated, ApiError> {
    let sent: Sent = body::typed(body::parse_object(bytes, "EOF")?)?;
    if sent.model.trim().is_empty() {
        return Err(refused("model is required"));
    }
    if needs_max && sent.max_tokens <= 0 {
        return Err(refused("max_tokens is required and must be positive"));
    }
    if sent.messages.is_empty() {
        return Err(refused("messages is required"));
    }
    let mut messages = Vec::new();
    let system = texts(&sent.system);
    if !system.is_empty() {
        messages.push(with_role("system", system));
    }
    for message in &sent.messages {
        messages.extend(turns(message)?);
    }
    let (tool_choice, parallel_tool_calls) = tool_choice(&sent.tool_choice)?;
    let chat = ChatRequest {
        messages,
        stream: Some(sent.stream),
        tools: sent.tools.iter().map(tool).collect::<Result<_, _>>()?,
        tool_choice,
        parallel_tool_calls,
        think: thinking(&sent),
        format: format(&sent)?,
        think_if_able: true,
        options: options(&sent),
        model: sent.model,
        ..ChatRequest::default()
    };
    Ok(Translated {
        chat,
        stream: sent.stream,
        stop_sequences: sent.stop_sequences,
    })
}

fn options(sent: &Sent) -> Object {
    let options = [
        (
            "num_predict",
            (sent.max_tokens > 0).then(|| json!(sent.max_tokens)),
        ),
        ("temperature", sent.temperature.map(Value::from)),
        ("top_p", sent.top_p.map(Value::from)),
        ("top_k", sent.top_k.map(Value::from)),
        (
            "stop",
            (!sent.stop_sequences.is_empty()).then(|| json!(sent.stop_sequences)),
        ),
    ];
    options
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect()
}

/// `thinking` decides; a level of effort holds where it leaves the choice open.
fn thinking(sent: &Sent) -> Option<Think> {
    match sent.thinking["type"].as_str() {
        Some("enabled") => return Some(Think::Switch(true)),
        Some("disabled") => return Some(Think::Switch(false)),
        _ => {}
    }
    let effort = sent.output_config["effort"].as_str()?.trim().to_lowercase();
    match effort.as_str() {
        "xhigh" => Some(Think::Level("high".into())),
        "low" | "medium" | "high" | "max" => Some(Think::Level(effort)),
        _ => None,
    }
}

/// The JSON Schema that the answer has to fit, if there is one.
///
/// # Errors
/// 400 for a format that would otherwise be ignored.
fn format(sent: &Sent) -> Result<Option<Value>, ApiError> {
    let format = match &sent.output_config["format"] {
        Value::Null => &sent.output_format,
        newer => newer,
    };
    match (format["type"].as_str(), &format["schema"]) {
        _ if format.is_null() => Ok(None),
        (Some("json_schema"), schema @ Value::Object(_)) => Ok(Some(schema.clone())),
        _ => Err(refused(format!(
            "invalid output_config.format {format}: a type of json_schema and a schema"
        ))),
    }
}

/// A tool in the native form.
fn tool(sent: &Value) -> Result<Value, ApiError> {
    let name = sent["name"].as_str().unwrap_or_default();
    if let Some(kind) = sent["type"].as_str().filter(|kind| *kind != "custom") {
        return Err(refused(format!(
            "tool type {kind:?} is not supported: declare a tool with an input_schema"
        )));
    }
    let tool = json!({"type": "function", "function": {
        "name": name,
        "description": sent["description"],
        "parameters": sent["input_schema"],
        "strict": sent["strict"],
    }});
    Tool::from_json(&tool)
        .map_err(|e| refused(format!("invalid input_schema for tool {name:?}: {e}")))?;
    Ok(tool)
}

/// The native choice, and whether several calls are allowed.
fn tool_choice(sent: &Value) -> Result<(Option<Value>, Option<bool>), ApiError> {
    let choice = match sent["type"].as_str() {
        None if sent.is_null() => return Ok((None, None)),
        Some("auto") => json!("auto"),
        Some("any") => json!("required"),
        Some("none") => json!("none"),
        Some("tool") => json!({"type": "function", "function": {"name": sent["name"]}}),
        _ => {
            return Err(refused(format!(
                "invalid tool_choice {sent}: a type of auto, any, tool or none"
            )));
        }
    };
    let one_only = sent["disable_parallel_tool_use"] == json!(true);
    Ok((Some(choice), one_only.then_some(false)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(more: Value) -> Result<ChatRequest, ApiError> {
        let mut body =
            json!({"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "x"}]});
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        message(body.to_string().as_bytes()).map(|t| t.chat)
    }

    fn refusal(more: Value) -> String {
        with(more).unwrap_err().message
    }

    #[test]
    fn options_are_sent_only_when_present() {
        let chat = with(json!({})).unwrap();
        assert_eq!(Value::Object(chat.options), json!({"num_predict": 5}));
        let more = json!({"temperature": 0.5, "top_p": 0.9, "top_k": 4, "stop_sequences": ["."]});
        assert_eq!(
            Value::Object(with(more).unwrap().options),
            json!({"num_predict": 5, "temperature": 0.5, "top_p": 0.9, "top_k": 4, "stop": ["."]})
        );
        let system = with(json!({"system": "a"})).unwrap();
        assert_eq!(system.messages[0].content, "a");
        let image = json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}},
            {"type": "text", "text": "b"}]}]});
        let image = with(image).unwrap();
        let turn = &image.messages[0];
        assert_eq!(
            (turn.content.as_str(), turn.images[0].0.as_slice()),
            ("ab", b"hi".as_slice())
        );
        let system =
            json!({"system": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]});
        let chat = with(system).unwrap();
        assert_eq!(
            (
                chat.messages[0].role.as_str(),
                chat.messages[0].content.as_str()
            ),
            ("system", "ab")
        );
    }

    #[test]
    fn answers_of_tools_come_before_a_user_s_words() {
        let messages = json!({"messages": [
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "tool_use", "id": "c", "name": "f", "input": {"b": 1, "a": 2}}]},
            {"role": "user", "content": [
                {"type": "text", "text": "so?"},
                {"type": "tool_result", "tool_use_id": "c", "content": [{"type": "text", "text": "9"},
                    {"type": "image", "source": {"type": "base64", "data": "aGk="}}]}]},
            {"role": "assistant", "content": [{"type": "redacted_thinking", "data": "x"}]},
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "alone"}]},
        ]});
        let messages = with(messages).unwrap().messages;
        let roles: Vec<&str> = messages.iter().map(|m| m.role.as_str()).collect();
        assert_eq!(roles, ["assistant", "tool", "user", "assistant"]);
        assert_eq!(messages[0].thinking, "hm");
        let arguments = &messages[0].tool_calls[0].function.arguments;
        assert_eq!(arguments.keys().collect::<Vec<_>>(), ["b", "a"]);
        let result = &messages[1];
        assert_eq!(
            (result.content.as_str(), result.tool_call_id.as_str()),
            ("9", "c")
        );
        assert_eq!(result.images[0].0, b"hi");
        assert_eq!(messages[3].thinking, "alone");
    }

    #[test]
    fn thinking_decides_before_effort() {
        let think = |more| with(more).unwrap().think;
        let level = |text: &str| Some(Think::Level(text.into()));
        assert_eq!(think(json!({})), None);
        assert_eq!(
            think(json!({"thinking": {"type": "enabled", "budget_tokens": 9}})),
            Some(Think::Switch(true))
        );
        let effort = |kind: &str, effort: &str| json!({"thinking": {"type": kind}, "output_config": {"effort": effort}});
        assert_eq!(
            think(effort("disabled", "high")),
            Some(Think::Switch(false))
        );
        assert_eq!(think(effort("adaptive", " High ")), level("high"));
        assert_eq!(
            think(json!({"output_config": {"effort": "xhigh"}})),
            level("high")
        );
        assert_eq!(think(json!({"output_config": {"effort": "extreme"}})), None);
    }

    #[test]
    fn formats_are_schemas_at_either_place() {
        let schema = json!({"type": "object", "properties": {}});
        let format = json!({"type": "json_schema", "schema": schema});
        for more in [
            json!({"output_config": {"format": format}}),
            json!({"output_format": format}),
        ] {
            assert_eq!(with(more).unwrap().format, Some(schema.clone()));
        }
        assert_eq!(
            with(json!({"output_config": {"format": null}}))
                .unwrap()
                .format,
            None
        );
        for format in [
            json!({"type": "xml"}),
            json!({"type": "json_schema"}),
            json!(5),
        ] {
            let text = refusal(json!({"output_config": {"format": format}}));
            assert!(text.contains("output_config.format"), "{text}");
        }
    }

    #[test]
    fn tools_and_their_choice() {
        let tools = json!([{"name": "f", "description": "d", "input_schema": {"type": "object"}}]);
        let choice = |choice: Value| with(json!({"tools": tools, "tool_choice": choice})).unwrap();
        assert_eq!(
            choice(json!({"type": "any"})).tool_choice,
            Some(json!("required"))
        );
        let one = choice(json!({"type": "tool", "name": "f", "disable_parallel_tool_use": true}));
        assert_eq!(
            one.tool_choice,
            Some(json!({"type": "function", "function": {"name": "f"}}))
        );
        assert_eq!(one.parallel_tool_calls, Some(false));
        assert_eq!(
            one.tools[0]["function"]["parameters"],
            json!({"type": "object"})
        );
        assert!(refusal(json!({"tool_choice": {"type": "x"}})).contains("invalid tool_choice"));
        let search = json!({"tools": [{"type": "web_search_20250305", "name": "web_search"}]});
        assert!(refusal(search).contains("web_search_20250305"));
    }

    #[test]
    fn refusals() {
        assert_eq!(
            refusal(json!({"model": "", "max_tokens": 0})),
            "model is required"
        );
        assert_eq!(
            refusal(json!({"max_tokens": 0})),
            "max_tokens is required and must be positive"
        );
        assert_eq!(refusal(json!({"messages": []})), "messages is required");
        let block = |block: Value| {
            refusal(json!({"messages": [{"role": "assistant", "content": [block]}]}))
        };
        assert_eq!(
            block(json!({"type": "tool_use", "name": "f"})),
            "tool_use block missing required 'id' field"
        );
        assert_eq!(
            block(json!({"type": "tool_use", "id": "a"})),
            "tool_use block missing required 'name' field"
        );
        assert_eq!(block(json!({"type": "image"})), "invalid image source");
        let image = |source: Value| block(json!({"type": "image", "source": source}));
        assert_eq!(
            image(json!({"type": "url", "url": "https://example.com/a.png"})),
            "invalid image source type: url. Only base64 images are supported."
        );
        assert!(
            image(json!({"type": "base64", "data": "*"}))
                .starts_with("invalid base64 image data: ")
        );
        let result = json!({"type": "tool_result", "content": [{"type": "image"}]});
        assert_eq!(block(result), "invalid tool_result image source");
        let bad = json!({"tools": [{"name": "f", "input_schema": {"type": 5}}]});
        assert!(refusal(bad).starts_with("invalid input_schema for tool \"f\": json: "));
        assert_eq!(message(b"").unwrap_err().message, "EOF");
        assert!(
            message(b"{x")
                .unwrap_err()
                .message
                .starts_with("invalid JSON")
        );
        assert!(count(br#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#).is_ok());
    }
}
