//! The messages of a `/v1/chat/completions` request as native ones.

use super::content::{self, refused};
use crate::api::{Message, Object, ToolCall, ToolCallFunction};
use crate::chat::go_json::kind;
use crate::server::body;
use crate::server::error::ApiError;
use serde::Deserialize;
use serde_json::Value;

/// A message of OpenAI's, its content still in any of its forms.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Sent {
    role: String,
    content: Value,
    reasoning: String,
    tool_calls: Option<Vec<SentCall>>,
    name: String,
    tool_call_id: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct SentCall {
    id: String,
    function: SentFunction,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct SentFunction {
    name: String,
    arguments: String,
}

/// The native messages of a request's.
///
/// # Errors
/// 400 with Ollama's texts.
pub fn messages(sent: &[Value]) -> Result<Vec<Message>, ApiError> {
    let read = |message: &Value| match message {
        Value::Object(members) => body::typed::<Sent>(members.clone()),
        other => Err(refused(&format!(
            "json: cannot unmarshal {} into field messages",
            kind(other)
        ))),
    };
    let sent: Vec<Sent> = sent.iter().map(read).collect::<Result<_, _>>()?;
    let mut messages = Vec::new();
    for message in &sent {
        messages.extend(translated(message, &sent)?);
    }
    Ok(messages)
}

/// One native message, or one for each part of an array; what belongs to the whole goes to the last of them.
fn translated(message: &Sent, all: &[Sent]) -> Result<Vec<Message>, ApiError> {
    let calls = message.tool_calls.as_deref().unwrap_or_default();
    let mut parts = match &message.content {
        Value::String(text) => vec![Message {
            content: text.clone(),
            ..Message::default()
        }],
        Value::Array(parts) => parts.iter().map(content::part).collect::<Result<_, _>>()?,
        Value::Null if message.tool_calls.is_some() => vec![Message::default()],
        other => {
            return Err(refused(&format!(
                "invalid message content type: {}",
                content::go_type(other)
            )));
        }
    };
    for part in &mut parts {
        part.role.clone_from(&message.role);
    }
    if let Some(last) = parts.last_mut() {
        last.thinking.clone_from(&message.reasoning);
        last.tool_calls = calls
            .iter()
            .enumerate()
            .map(call)
            .collect::<Result<_, _>>()?;
        last.tool_call_id.clone_from(&message.tool_call_id);
        last.tool_name = tool_name(message, all);
    }
    Ok(parts)
}

fn call((index, sent): (usize, &SentCall)) -> Result<ToolCall, ApiError> {
    let arguments = match sent.function.arguments.trim() {
        "" => Object::new(),
        text => serde_json::from_str(text).map_err(|_| refused("invalid tool call arguments"))?,
    };
    let function = ToolCallFunction {
        index: i64::try_from(index).unwrap_or(i64::MAX),
        name: sent.function.name.clone(),
        arguments,
    };
    Ok(ToolCall {
        id: sent.id.clone(),
        function,
    })
}

/// The tool that a `tool` message answers for: as named, else that of the last call with its id.
fn tool_name(message: &Sent, all: &[Sent]) -> String {
    if !message.role.eq_ignore_ascii_case("tool") {
        return String::new();
    }
    if !message.name.is_empty() || message.tool_call_id.is_empty() {
        return message.name.clone();
    }
    let mut calls = all
        .iter()
        .rev()
        .flat_map(|m| m.tool_calls.iter().flatten().rev());
    let named = calls.find(|c| c.id == message.tool_call_id);
    named.map(|c| c.function.name.clone()).unwrap_or_default()
}
