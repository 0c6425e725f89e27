//! The messages of an Anthropic request: blocks of text, images, calls and their results.

use super::request::refused;
use crate::api::{ImageData, Message, Object, ToolCall, ToolCallFunction};
use crate::chat::go_json::kind;
use crate::server::error::ApiError;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// A message that is text alone.
pub fn with_role(role: &str, content: String) -> Message {
    Message {
        role: role.to_owned(),
        content,
        ..Message::default()
    }
}

/// A text, or the texts of blocks one after another.
pub fn texts(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(blocks) => blocks
            .iter()
            .filter(|block| block["type"] == "text")
            .filter_map(|block| block["text"].as_str())
            .collect(),
        _ => String::new(),
    }
}

/// One message of Anthropic's as native ones: answers of tools, and the rest; a user's answers come first.
///
/// # Errors
/// 400 with Ollama's texts.
pub fn turns(sent: &Value) -> Result<Vec<Message>, ApiError> {
    let Value::Object(_) = sent else {
        return Err(refused(format!(
            "json: cannot unmarshal {} into field messages",
            kind(sent)
        )));
    };
    let role = sent["role"].as_str().unwrap_or_default();
    let blocks = match &sent["content"] {
        Value::Array(blocks) => blocks.as_slice(),
        Value::String(text) => return Ok(vec![with_role(role, text.clone())]),
        Value::Null => return Ok(vec![with_role(role, String::new())]),
        other => {
            return Err(refused(format!(
                "json: cannot unmarshal {} into field messages.content",
                kind(other)
            )));
        }
    };
    let mut turn = with_role(role, String::new());
    let (mut results, mut has_blocks) = (Vec::new(), false);
    for block in blocks {
        match block["type"].as_str().unwrap_or_default() {
            "text" => turn.content += block["text"].as_str().unwrap_or_default(),
            "image" => turn
                .images
                .push(image(&block["source"], "invalid image source")?),
            "tool_use" | "server_tool_use" => {
                turn.tool_calls.push(call(block, turn.tool_calls.len())?)
            }
            "thinking" => block["thinking"]
                .as_str()
                .unwrap_or_default()
                .clone_into(&mut turn.thinking),
            "tool_result" => {
                results.push(tool_result(block)?);
                continue;
            }
            // Kinds that models without their own tools have no use for.
            _ => continue,
        }
        has_blocks = true;
    }
    let turn = has_blocks.then_some(turn);
    if role.eq_ignore_ascii_case("user") {
        results.extend(turn);
        return Ok(results);
    }
    Ok(turn.into_iter().chain(results).collect())
}

fn call(block: &Value, index: usize) -> Result<ToolCall, ApiError> {
    let text = |member: &str| block[member].as_str().filter(|text| !text.is_empty());
    let missing =
        |member: &str| refused(format!("tool_use block missing required '{member}' field"));
    let id = text("id").ok_or_else(|| missing("id"))?;
    let name = text("name").ok_or_else(|| missing("name"))?;
    let arguments = match &block["input"] {
        Value::Object(arguments) => arguments.clone(),
        Value::Null => Object::new(),
        other => {
            return Err(refused(format!(
                "json: cannot unmarshal {} into field input",
                kind(other)
            )));
        }
    };
    Ok(ToolCall {
        id: id.to_owned(),
        function: ToolCallFunction {
            index: i64::try_from(index).unwrap_or(i64::MAX),
            name: name.to_owned(),
            arguments,
        },
    })
}

fn tool_result(block: &Value) -> Result<Message, ApiError> {
    let blocks = block["content"].as_array();
    let images = blocks
        .into_iter()
        .flatten()
        .filter(|b| b["type"] == "image");
    Ok(Message {
        images: images
            .map(|b| image(&b["source"], "invalid tool_result image source"))
            .collect::<Result<_, _>>()?,
        tool_call_id: block["tool_use_id"].as_str().unwrap_or_default().to_owned(),
        ..with_role("tool", texts(&block["content"]))
    })
}

fn image(source: &Value, missing: &str) -> Result<ImageData, ApiError> {
    let Value::Object(_) = source else {
        return Err(refused(missing));
    };
    match source["type"].as_str().unwrap_or_default() {
        "base64" => STANDARD
            .decode(source["data"].as_str().unwrap_or_default())
            .map(ImageData)
            .map_err(|e| refused(format!("invalid base64 image data: {e}"))),
        other => Err(refused(format!(
            "invalid image source type: {other}. Only base64 images are supported."
        ))),
    }
}
