//! The items of a response's input as native messages.

use crate::api::{ImageData, Message, Object, ToolCall, ToolCallFunction};
use crate::server::error::ApiError;
use crate::server::openai::content::{image, refused};
use serde_json::Value;

/// A text, or a list of items.
///
/// # Errors
/// 400 that names the item.
pub fn messages(input: &Value) -> Result<Vec<Message>, ApiError> {
    let items = match input {
        Value::String(text) if text.is_empty() => return Ok(Vec::new()),
        Value::String(text) => return Ok(vec![with_role("user", text.clone())]),
        Value::Array(items) => items,
        other => {
            return Err(refused(&format!(
                "input must be a string or array: {other}"
            )));
        }
    };
    for (i, item) in items.iter().enumerate() {
        check(item).map_err(|e| refused(&format!("input[{i}]: {}", e.message)))?;
    }
    let mut turns = Turns::default();
    for (i, item) in items.iter().enumerate() {
        turns.add(item, items.get(i + 1))?;
    }
    Ok(turns.finish())
}

fn with_role(role: &str, content: String) -> Message {
    Message {
        role: role.to_owned(),
        content,
        ..Message::default()
    }
}

/// The kind of an item: a message needs no `type`.
fn kind(item: &Value) -> &str {
    match item["type"].as_str() {
        Some(kind) => kind,
        None if item["role"].is_string() => "message",
        None => "",
    }
}

fn check(item: &Value) -> Result<(), ApiError> {
    match kind(item) {
        "" => Err(refused("input item missing required 'type' field")),
        "message" => check_parts(&item["content"], "content"),
        "function_call_output" => check_parts(&item["output"], "output"),
        "function_call" | "reasoning" | "web_search_call" => Ok(()),
        "item_reference" => Err(refused(
            "item_reference is not supported, as nothing is kept between requests: send the item itself, \
             as clients do with \"store\": false",
        )),
        other => Err(refused(&format!("unknown input item type: {other:?}"))),
    }
}

fn check_parts(content: &Value, what: &str) -> Result<(), ApiError> {
    let parts = match content {
        Value::String(_) | Value::Null => return Ok(()),
        Value::Array(parts) => parts,
        other => {
            return Err(refused(&format!(
                "{what} must be a string or array: {other}"
            )));
        }
    };
    let known = |part: &Value| {
        matches!(
            part["type"].as_str(),
            Some("input_text" | "output_text" | "input_image" | "input_file")
        )
    };
    match parts.iter().position(|part| !known(part)) {
        None => Ok(()),
        Some(i) => {
            let kind = parts[i]["type"].as_str().unwrap_or_default();
            Err(refused(&format!(
                "{what}[{i}]: unknown content type: {kind}"
            )))
        }
    }
}

/// The messages so far.
#[derive(Default)]
struct Turns {
    messages: Vec<Message>,
    /// Reasoning that belongs to the next message or call of the assistant.
    reasoning: String,
}

impl Turns {
    fn add(&mut self, item: &Value, next: Option<&Value>) -> Result<(), ApiError> {
        match kind(item) {
            "message" => self.message(item, next),
            "function_call" => self.call(item),
            "function_call_output" => self.output(item),
            "reasoning" => {
                let text = item["encrypted_content"].as_str();
                self.reasoning = text.unwrap_or_default().to_owned();
                Ok(())
            }
            // Earlier searches are history that no template shows.
            _ => Ok(()),
        }
    }

    fn message(&mut self, item: &Value, next: Option<&Value>) -> Result<(), ApiError> {
        let role = item["role"].as_str().unwrap_or_default();
        let (content, images) = parts(&item["content"])?;
        if role != "assistant" {
            self.messages.push(Message {
                images,
                ..with_role(role, content)
            });
            return Ok(());
        }
        // Words between a call and its output belong to the message that calls, so that the output follows it.
        let answers = next
            .filter(|next| kind(next) == "function_call_output")
            .and_then(|next| next["call_id"].as_str());
        if let (Some(id), Some(last)) = (answers, self.messages.last_mut())
            && last.tool_calls.iter().any(|call| call.id == id)
        {
            let between = if last.content.is_empty() || content.is_empty() {
                ""
            } else {
                "\n"
            };
            last.content += &format!("{between}{content}");
            return Ok(());
        }
        let thinking = std::mem::take(&mut self.reasoning);
        self.messages.push(Message {
            images,
            thinking,
            ..with_role(role, content)
        });
        Ok(())
    }

    fn call(&mut self, item: &Value) -> Result<(), ApiError> {
        let arguments = match item["arguments"].as_str().unwrap_or_default().trim() {
            "" => Object::new(),
            text => serde_json::from_str(text)
                .map_err(|e| refused(&format!("failed to parse function call arguments: {e}")))?,
        };
        if self
            .messages
            .last()
            .is_none_or(|last| last.role != "assistant")
        {
            self.messages.push(with_role("assistant", String::new()));
        }
        let last = self.messages.last_mut().expect("pushed just now");
        if !self.reasoning.is_empty() {
            last.thinking = std::mem::take(&mut self.reasoning);
        }
        last.tool_calls.push(ToolCall {
            id: item["call_id"].as_str().unwrap_or_default().to_owned(),
            function: ToolCallFunction {
                index: i64::try_from(last.tool_calls.len()).unwrap_or(i64::MAX),
                name: item["name"].as_str().unwrap_or_default().to_owned(),
                arguments,
            },
        });
        Ok(())
    }

    fn output(&mut self, item: &Value) -> Result<(), ApiError> {
        let id = item["call_id"].as_str().unwrap_or_default();
        let mut calls = self
            .messages
            .iter()
            .rev()
            .flat_map(|m| m.tool_calls.iter().rev());
        let tool_name = calls
            .find(|call| call.id == id)
            .map(|call| call.function.name.clone());
        let (content, images) = parts(&item["output"])?;
        self.messages.push(Message {
            images,
            tool_call_id: id.to_owned(),
            tool_name: tool_name.unwrap_or_default(),
            ..with_role("tool", content)
        });
        Ok(())
    }

    fn finish(mut self) -> Vec<Message> {
        if !self.reasoning.is_empty() {
            self.messages.push(Message {
                thinking: self.reasoning,
                ..with_role("assistant", String::new())
            });
        }
        self.messages
    }
}

/// The texts of parts one after another, and the images.
fn parts(content: &Value) -> Result<(String, Vec<ImageData>), ApiError> {
    let (mut text, mut images) = (String::new(), Vec::new());
    match content {
        Value::String(whole) => text.clone_from(whole),
        content => {
            for part in content.as_array().into_iter().flatten() {
                match part["type"].as_str().unwrap_or_default() {
                    "input_file" => return Err(refused("file inputs are not currently supported")),
                    "input_image" => {
                        // An uploaded file has no URL, and there are no uploads.
                        if let Some(url) = part["image_url"].as_str() {
                            images.push(ImageData(image(url)?));
                        }
                    }
                    _ => text += part["text"].as_str().unwrap_or_default(),
                }
            }
        }
    }
    Ok((text, images))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Each message in short: role, content, thinking, names of calls.
    fn short(input: Value) -> Vec<String> {
        let brief = |m: &Message| {
            let calls: Vec<&str> = m
                .tool_calls
                .iter()
                .map(|c| c.function.name.as_str())
                .collect();
            format!(
                "{}:{}:{}:{}{}",
                m.role,
                m.content,
                m.thinking,
                calls.join("+"),
                m.tool_name
            )
        };
        messages(&input).unwrap().iter().map(brief).collect()
    }

    fn refusal(input: Value) -> String {
        messages(&input).unwrap_err().message
    }

    fn call(id: &str, name: &str) -> Value {
        json!({"type": "function_call", "call_id": id, "name": name, "arguments": "{\"a\": 1}"})
    }

    fn output(id: &str) -> Value {
        json!({"type": "function_call_output", "call_id": id, "output": [{"type": "input_text", "text": "9"}]})
    }

    #[test]
    fn texts_and_messages() {
        assert_eq!(short(json!("Hi")), ["user:Hi::"]);
        assert!(short(json!("")).is_empty() && short(json!([])).is_empty());
        let parts =
            json!([{"type": "input_text", "text": "a"}, {"type": "output_text", "text": "b"}]);
        let input = json!([{"role": "developer", "content": "d"}, {"type": "message", "role": "user", "content": parts}]);
        assert_eq!(short(input), ["developer:d::", "user:ab::"]);
        let image = json!([{"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png;base64,aGk="},
            {"type": "input_image", "file_id": "f"}, {"type": "input_text", "text": "what?"}]}]);
        let found = messages(&image).unwrap();
        assert_eq!(
            (
                found.len(),
                found[0].images.len(),
                found[0].content.as_str()
            ),
            (1, 1, "what?")
        );
    }

    #[test]
    fn calls_share_a_message_and_outputs_follow() {
        let input = json!([{"role": "assistant", "content": "ok"}, call("1", "f"), call("2", "g"), output("1"), output("2"), call("3", "h")]);
        assert_eq!(
            short(input),
            [
                "assistant:ok::f+g",
                "tool:9::f",
                "tool:9::g",
                "assistant:::h"
            ]
        );
        let between =
            json!([call("1", "f"), {"role": "assistant", "content": "calling"}, output("1")]);
        assert_eq!(short(between), ["assistant:calling::f", "tool:9::f"]);
        let both = json!([{"role": "assistant", "content": "a"}, call("1", "f"),
            {"role": "assistant", "content": "b"}, output("1")]);
        assert_eq!(short(both), ["assistant:a\nb::f", "tool:9::f"]);
        let apart = json!([call("1", "f"), {"role": "assistant", "content": "x"}, call("2", "g")]);
        assert_eq!(short(apart), ["assistant:::f", "assistant:x::g"]);
        let parts = json!([call("1", "f"), {"type": "function_call_output", "call_id": "1", "output": [
            {"type": "input_text", "text": "a"}, {"type": "output_text", "text": "b"},
            {"type": "input_image", "image_url": "data:;base64,aGk="}]}]);
        let found = messages(&parts).unwrap();
        assert_eq!(
            (found[1].content.as_str(), found[1].images[0].0.as_slice()),
            ("ab", b"hi".as_slice())
        );
        let elsewhere = json!([call("1", "f"), {"role": "assistant", "content": "x"}, output("2")]);
        assert_eq!(
            short(elsewhere),
            ["assistant:::f", "assistant:x::", "tool:9::"]
        );
        let search =
            json!([{"type": "web_search_call", "id": "ws"}, {"role": "user", "content": "x"}]);
        assert_eq!(short(search), ["user:x::"]);
    }

    #[test]
    fn reasoning_goes_to_what_follows() {
        let reasoning = json!({"type": "reasoning", "encrypted_content": "hm", "summary": []});
        let input = json!([reasoning, call("1", "f"), reasoning, {"role": "assistant", "content": "b"}, reasoning]);
        assert_eq!(
            short(input),
            ["assistant::hm:f", "assistant:b:hm:", "assistant::hm:"]
        );
    }

    #[test]
    fn refusals() {
        assert!(refusal(json!(5)).starts_with("input must be a string or array: "));
        assert_eq!(
            refusal(json!([{"type": "bogus"}])),
            "input[0]: unknown input item type: \"bogus\""
        );
        assert_eq!(
            refusal(json!([{}])),
            "input[0]: input item missing required 'type' field"
        );
        let reference = json!([{"type": "item_reference", "id": "rs_1"}]);
        assert!(refusal(reference).contains("\"store\": false"));
        let with = |content: Value| refusal(json!([{"role": "user", "content": content}]));
        assert_eq!(
            with(json!([{"type": "bogus"}])),
            "input[0]: content[0]: unknown content type: bogus"
        );
        assert!(with(json!(5)).starts_with("input[0]: content must be a string or array: "));
        assert_eq!(
            with(json!([{"type": "input_file"}])),
            "file inputs are not currently supported"
        );
        assert!(
            with(json!([{"type": "input_image", "image_url": "https://a/b.png"}]))
                .starts_with("image URLs")
        );
        let mut bad = call("1", "f");
        bad["arguments"] = json!("{x");
        assert!(refusal(json!([bad])).starts_with("failed to parse function call arguments: "));
    }
}
