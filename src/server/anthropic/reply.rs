//! Native chat replies as Anthropic's messages.

use crate::api::{ChatReply, ToolCall};
use serde_json::{Map, Value, json};

/// The whole message; `stop_sequences` are the request's.
pub fn message(id: &str, reply: &ChatReply, stop_sequences: &[String]) -> Value {
    let mut content = Vec::new();
    if !reply.message.thinking.is_empty() {
        content.push(thinking(&reply.message.thinking));
    }
    if !reply.message.content.is_empty() {
        content.push(json!({"type": "text", "text": reply.message.content}));
    }
    let calls = &reply.message.tool_calls;
    content.extend(
        calls
            .iter()
            .map(|call| tool_use(call, Value::Object(call.function.arguments.clone()))),
    );
    let mut message = json!({
        "id": id,
        "type": "message",
        "role": "assistant",
        "model": reply.model,
        "content": content,
    });
    for (key, value) in end(reply, !calls.is_empty(), stop_sequences) {
        message[key] = value;
    }
    message["usage"] = usage(reply);
    message
}

/// A block of reasoning. Clients insist on a signature, of which there is none: nothing is checked when it comes back.
pub fn thinking(text: &str) -> Value {
    json!({"type": "thinking", "thinking": text, "signature": ""})
}

/// A block that calls a tool.
pub fn tool_use(call: &ToolCall, input: Value) -> Value {
    json!({"type": "tool_use", "id": call.id, "name": call.function.name, "input": input})
}

/// Why the answer ended: `stop_reason`, and `stop_sequence` where one of the request's ended it.
pub fn end(reply: &ChatReply, called_tools: bool, stop_sequences: &[String]) -> Map<String, Value> {
    let matched = reply.matched_stop.and_then(|i| stop_sequences.get(i));
    let mut end = Map::new();
    match (matched, stop_reason(&reply.done_reason, called_tools)) {
        (Some(text), Some("end_turn")) => {
            end.insert("stop_reason".into(), json!("stop_sequence"));
            end.insert("stop_sequence".into(), json!(text));
        }
        (_, Some(reason)) => drop(end.insert("stop_reason".into(), json!(reason))),
        (_, None) => {}
    }
    end
}

/// Anthropic's name of the reason; none while there is none.
fn stop_reason(done_reason: &str, called_tools: bool) -> Option<&'static str> {
    match (done_reason, called_tools) {
        (_, true) => Some("tool_use"),
        ("stop", _) => Some("end_turn"),
        ("length", _) => Some("max_tokens"),
        ("", _) => None,
        _ => Some("stop_sequence"),
    }
}

/// Counts of tokens. What was in the cache is counted apart from the rest of the prompt.
pub fn usage(reply: &ChatReply) -> Value {
    json!({
        "input_tokens": reply.prompt_tokens.saturating_sub(reply.cached_tokens),
        "cache_read_input_tokens": reply.cached_tokens,
        "output_tokens": reply.eval_count,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Message, ToolCallFunction};

    #[test]
    fn blocks_come_in_order_and_only_with_content() {
        let call = ToolCall {
            id: "call_1".into(),
            function: ToolCallFunction {
                name: "f".into(),
                ..ToolCallFunction::default()
            },
        };
        let reply = |message| ChatReply {
            model: "m".into(),
            message,
            done: true,
            done_reason: "length".into(),
            prompt_tokens: 35,
            cached_tokens: 32,
            eval_count: 2,
            ..ChatReply::default()
        };
        let full = Message {
            content: "b".into(),
            thinking: "a".into(),
            tool_calls: vec![call],
            ..Message::default()
        };
        assert_eq!(
            message("msg_1", &reply(full), &[]),
            json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [
                {"type": "thinking", "thinking": "a", "signature": ""}, {"type": "text", "text": "b"},
                {"type": "tool_use", "id": "call_1", "name": "f", "input": {}},
            ], "stop_reason": "tool_use", "usage": {"input_tokens": 3, "cache_read_input_tokens": 32, "output_tokens": 2}})
        );
        let empty = message("msg_1", &reply(Message::default()), &[]);
        assert_eq!(
            (&empty["content"], &empty["stop_reason"]),
            (&json!([]), &json!("max_tokens"))
        );
    }

    #[test]
    fn reasons() {
        for (done, called, reason) in [
            ("stop", false, Some("end_turn")),
            ("stop", true, Some("tool_use")),
            ("length", true, Some("tool_use")),
            ("unload", false, Some("stop_sequence")),
            ("", false, None),
        ] {
            assert_eq!(stop_reason(done, called), reason, "{done} {called}");
        }
    }
}
