//! `/v1/responses` requests as native chat requests.

use super::input;
use crate::api::{ChatRequest, Message, Object};
use crate::server::body;
use crate::server::error::ApiError;
use crate::server::openai::content::refused;
use crate::server::openai::request::{format_of, think_of};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Levels of namespaces within each other.
const MAX_NAMESPACES: usize = 8;

/// What `include` calls log-probabilities.
const LOGPROBS: &str = "message.output_text.logprobs";

/// The members that have an effect or are echoed; all others are accepted and ignored.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Sent {
    model: String,
    input: Value,
    instructions: Option<String>,
    max_output_tokens: Option<i64>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    reasoning: Option<Reasoning>,
    text: Value,
    tools: Vec<Value>,
    tool_choice: Option<Value>,
    parallel_tool_calls: Option<bool>,
    previous_response_id: Value,
    conversation: Value,
    prompt: Value,
    include: Vec<Value>,
    top_logprobs: i64,
    truncation: Option<String>,
    background: bool,
    metadata: Option<Object>,
    stream: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Reasoning {
    effort: String,
    summary: Option<String>,
}

/// A translated request: what to run, and how to answer.
#[derive(Debug)]
pub struct Translated {
    pub chat: ChatRequest,
    /// Members of the response that repeat the request's.
    pub echo: Object,
    pub stream: bool,
}

/// Reads and translates a body.
///
/// # Errors
/// 400 with Ollama's texts; 400 without an input, and for a response that would continue an earlier one, as none is kept.
pub fn translate(bytes: &[u8]) -> Result<Translated, ApiError> {
    let sent: Sent = body::typed(body::parse_object(bytes, "EOF")?)?;
    for (name, value) in [
        ("previous_response_id", &sent.previous_response_id),
        ("conversation", &sent.conversation),
        ("prompt", &sent.prompt),
    ] {
        if !matches!(value, Value::Null) && value != "" {
            return Err(refused(&format!(
                "{name} is not supported, as nothing is kept between requests: send the whole conversation as input"
            )));
        }
    }
    if sent.input.is_null() {
        return Err(refused("input is required: a text or a list of items"));
    }
    let mut messages = Vec::new();
    if let Some(text) = sent.instructions.as_ref().filter(|text| !text.is_empty()) {
        messages.push(Message {
            role: "system".into(),
            content: text.clone(),
            ..Message::default()
        });
    }
    messages.extend(input::messages(&sent.input)?);
    let effort = sent.reasoning.as_ref().map_or("", |r| r.effort.as_str());
    let mut tools = Vec::new();
    nested(&sent.tools, "", 0, &mut tools)?;
    let chat = ChatRequest {
        model: sent.model.clone(),
        messages,
        think: think_of(effort)?,
        format: format_of(
            sent.text["format"]["type"].as_str().unwrap_or_default(),
            sent.text["format"].get("schema").cloned(),
        )?,
        options: options(&sent),
        stream: Some(sent.stream),
        tools,
        tool_choice: sent.tool_choice.clone(),
        parallel_tool_calls: sent.parallel_tool_calls,
        logprobs: sent.top_logprobs > 0 || sent.include.iter().any(|name| name == LOGPROBS),
        top_logprobs: sent.top_logprobs,
        ..ChatRequest::default()
    };
    Ok(Translated {
        chat,
        stream: sent.stream,
        echo: echo(sent),
    })
}

/// The temperature is always sent, unlike `top_p`.
fn options(sent: &Sent) -> Object {
    let temperature = json!(sent.temperature.unwrap_or(1.0));
    let mut options = Object::from_iter([("temperature".to_owned(), temperature)]);
    if let Some(max) = sent.max_output_tokens {
        options.insert("num_predict".into(), max.into());
    }
    if let Some(top_p) = sent.top_p {
        options.insert("top_p".into(), top_p.into());
    }
    options
}

/// Flat tools in the native form; those of a namespace have its name before their own.
fn nested(
    sent: &[Value],
    space: &str,
    depth: usize,
    tools: &mut Vec<Value>,
) -> Result<(), ApiError> {
    for tool in sent {
        let name = tool["name"].as_str().unwrap_or_default();
        let name = match space.is_empty() || name.starts_with(space) {
            true => name.to_owned(),
            false => format!("{space}{name}"),
        };
        match tool["type"].as_str().unwrap_or_default() {
            "function" => tools.push(json!({"type": "function", "function": {
                "name": name,
                "description": tool["description"],
                "parameters": tool["parameters"],
                "strict": tool["strict"],
            }})),
            "namespace" if depth < MAX_NAMESPACES => {
                let members = tool["tools"].as_array().map(Vec::as_slice);
                nested(
                    members.unwrap_or_default(),
                    &format!("{name}."),
                    depth + 1,
                    tools,
                )?;
            }
            other => {
                return Err(refused(&format!(
                    "tool type {other:?} is not supported: only functions and namespaces of them"
                )));
            }
        }
    }
    Ok(())
}

/// What the response repeats, in OpenAI's order.
fn echo(sent: Sent) -> Object {
    let format = match &sent.text["format"] {
        Value::Null => json!({"type": "text"}),
        format => format.clone(),
    };
    let reasoning = match sent.reasoning {
        None => Value::Null,
        Some(reasoning) => {
            let effort = Some(reasoning.effort).filter(|effort| !effort.is_empty());
            json!({"effort": effort, "summary": reasoning.summary})
        }
    };
    let instructions = sent.instructions.filter(|text| !text.is_empty());
    let members = json!({
        "model": sent.model,
        "instructions": instructions,
        "tools": sent.tools.iter().map(echoed_tool).collect::<Vec<_>>(),
        "tool_choice": sent.tool_choice.unwrap_or_else(|| json!("auto")),
        "truncation": sent.truncation.as_deref().unwrap_or("disabled"),
        "parallel_tool_calls": sent.parallel_tool_calls.unwrap_or(true),
        "text": {"format": format},
        "top_logprobs": sent.top_logprobs,
        "top_p": number(sent.top_p),
        "temperature": number(sent.temperature),
        "reasoning": reasoning,
        "max_output_tokens": sent.max_output_tokens,
        "background": sent.background,
        "metadata": sent.metadata.unwrap_or_default(),
    });
    match members {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

/// 1 where nothing was sent; whole numbers without a fraction.
fn number(sent: Option<f64>) -> Value {
    let value = sent.unwrap_or(1.0);
    match value.fract() == 0.0 && value.abs() < 1e9 {
        true => json!(value as i64),
        false => json!(value),
    }
}

/// A tool with every member that OpenAI names.
fn echoed_tool(tool: &Value) -> Value {
    if tool["type"] != "function" {
        return tool.clone();
    }
    json!({
        "type": "function",
        "name": tool["name"],
        "description": tool["description"],
        "strict": tool["strict"],
        "parameters": tool["parameters"],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Think;

    fn translated(body: Value) -> Result<Translated, ApiError> {
        translate(body.to_string().as_bytes())
    }

    fn refusal(body: Value) -> String {
        translated(body).unwrap_err().message
    }

    #[test]
    fn members_become_options_and_messages() {
        let body = json!({
            "model": "m", "input": "Hi", "instructions": "Be brief.", "max_output_tokens": 4,
            "reasoning": {"effort": "minimal"},
            "text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}},
        });
        let found = translated(body).unwrap();
        let chat = found.chat;
        let said: Vec<_> = chat
            .messages
            .iter()
            .map(|m| (m.role.as_str(), m.content.as_str()))
            .collect();
        assert_eq!(said, [("system", "Be brief."), ("user", "Hi")]);
        assert_eq!(
            Value::Object(chat.options),
            json!({"temperature": 1.0, "num_predict": 4})
        );
        assert_eq!(chat.think, Some(Think::Level("low".into())));
        assert_eq!(chat.format, Some(json!({"type": "object"})));
        assert_eq!(
            found.echo["reasoning"],
            json!({"effort": "minimal", "summary": null})
        );
        assert_eq!(
            (&found.echo["top_p"], &found.echo["max_output_tokens"]),
            (&json!(1), &json!(4))
        );
        assert!(
            translated(json!({"input": "", "text": {"format": {"type": "text"}}}))
                .unwrap()
                .chat
                .format
                .is_none()
        );
    }

    #[test]
    fn tools_are_nested_and_namespaces_expanded() {
        let function = |name: &str| json!({"type": "function", "name": name, "parameters": {"type": "object"}, "strict": true});
        let tools = json!([function("plain"), {"type": "namespace", "name": "muse", "tools": [function("bash"), function("muse.read")]}]);
        let found = translated(json!({"input": "x", "tools": tools})).unwrap();
        let names: Vec<_> = found
            .chat
            .tools
            .iter()
            .map(|t| t["function"]["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["plain", "muse.bash", "muse.read"]);
        assert_eq!(found.chat.tools[0]["function"]["strict"], true);
        assert_eq!(found.echo["tools"][0]["description"], Value::Null);
        let search = json!({"input": "x", "tools": [{"type": "web_search"}]});
        assert!(refusal(search).contains("web_search"));
    }

    #[test]
    fn log_probabilities_are_asked_for_by_either_member() {
        for (more, expected) in [
            (json!({}), (false, 0)),
            (
                json!({"include": ["reasoning.encrypted_content"]}),
                (false, 0),
            ),
            (
                json!({"include": ["message.output_text.logprobs"]}),
                (true, 0),
            ),
            (json!({"top_logprobs": 3}), (true, 3)),
        ] {
            let mut body = more.clone();
            body["input"] = json!("x");
            let found = translated(body).unwrap();
            let wanted = (found.chat.logprobs, found.chat.top_logprobs);
            assert_eq!(wanted, expected, "{more}");
            assert_eq!(found.echo["top_logprobs"], expected.1);
        }
    }

    #[test]
    fn what_needs_memory_is_refused() {
        assert!(
            refusal(json!({"input": "x", "previous_response_id": "resp_1"}))
                .contains("previous_response_id")
        );
        assert!(
            refusal(json!({"input": "x", "conversation": {"id": "c"}})).contains("conversation")
        );
        assert!(refusal(json!({"input": "x", "prompt": {"id": "pmpt_1"}})).contains("prompt"));
        assert!(
            translated(
                json!({"input": "x", "previous_response_id": null, "text": {"format": null},
            "reasoning": {"effort": null, "summary": null}})
            )
            .is_ok()
        );
        for body in [json!({}), json!({"input": null})] {
            assert!(refusal(body).starts_with("input is required"));
        }
        for format in [json!({"type": "xml"}), json!({"type": "json_schema"})] {
            let text = refusal(json!({"input": "x", "text": {"format": format}}));
            assert!(text.contains("format"), "{text}");
        }
        assert!(
            refusal(json!({"input": "x", "reasoning": {"effort": "extreme"}}))
                .starts_with("invalid reasoning value")
        );
    }
}
