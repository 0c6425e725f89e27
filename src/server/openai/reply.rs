//! Native chat replies as OpenAI's chat completions, whole or in chunks.

use crate::api::{ChatReply, LogProb, ToolCall};
use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};

const FINGERPRINT: &str = "fp_ollama";

/// The whole completion.
pub fn completion(id: &str, reply: &ChatReply) -> Value {
    let mut message = Map::new();
    message.insert("role".into(), json!(reply.message.role));
    message.insert("content".into(), json!(reply.message.content));
    insert_extras(
        &mut message,
        &reply.message.thinking,
        &reply.message.tool_calls,
    );
    let reason = finish_reason(&reply.done_reason, !reply.message.tool_calls.is_empty());
    let mut choice = choice("message", Value::Object(message), reason);
    insert_logprobs(&mut choice, &reply.logprobs);
    let mut completion = json!({
        "id": id,
        "object": "chat.completion",
        "created": created(reply),
        "model": reply.model,
        "system_fingerprint": FINGERPRINT,
        "choices": [choice],
        "usage": usage(reply),
    });
    if let Some(debug) = &reply.debug_info {
        completion["_debug_info"] = serde_json::to_value(debug).expect("plain data");
    }
    completion
}

/// Turns the replies of one stream into chunks.
pub struct Chunks {
    id: String,
    include_usage: bool,
    /// Time and model of the first reply hold for all chunks.
    first: Option<(i64, String)>,
    called_tools: bool,
}

impl Chunks {
    pub fn new(id: String, include_usage: bool) -> Self {
        Chunks {
            id,
            include_usage,
            first: None,
            called_tools: false,
        }
    }

    /// The chunks of one reply, in order; after the last reply also the finish and usage chunks.
    pub fn of(&mut self, reply: &ChatReply) -> Vec<Value> {
        let is_first = self.first.is_none();
        self.first
            .get_or_insert_with(|| (created(reply), reply.model.clone()));
        let message = &reply.message;
        let has_visible = !message.content.is_empty() || !message.tool_calls.is_empty();
        let is_empty = !has_visible && message.thinking.is_empty() && reply.logprobs.is_empty();
        let mut chunks = Vec::new();
        if !(reply.done && is_empty) || is_first {
            chunks.extend(self.deltas(reply, is_first, has_visible));
        }
        if reply.done {
            chunks.push(self.finish(reply));
            if self.include_usage {
                let mut chunk = self.chunk(json!([]));
                chunk["usage"] = usage(reply);
                chunks.push(chunk);
            }
        }
        chunks
    }

    /// One content chunk, or two when a reply has both reasoning and what follows it.
    fn deltas(&mut self, reply: &ChatReply, is_first: bool, has_visible: bool) -> Vec<Value> {
        let message = &reply.message;
        self.called_tools |= !message.tool_calls.is_empty();
        let split = has_visible && !message.thinking.is_empty();
        let mut deltas = Vec::new();
        let mut delta = Map::new();
        if is_first {
            delta.insert("role".into(), json!("assistant"));
        }
        if split {
            insert_extras(&mut delta, &message.thinking, &[]);
            deltas.push(std::mem::take(&mut delta));
        }
        delta.insert("content".into(), json!(message.content));
        insert_extras(
            &mut delta,
            if split { "" } else { &message.thinking },
            &message.tool_calls,
        );
        deltas.push(delta);
        let with_logprobs = |(i, delta)| {
            let mut choice = choice("delta", Value::Object(delta), Value::Null);
            if i == 0 {
                insert_logprobs(&mut choice, &reply.logprobs);
            }
            self.chunk(json!([choice]))
        };
        deltas.into_iter().enumerate().map(with_logprobs).collect()
    }

    fn finish(&self, reply: &ChatReply) -> Value {
        let reason = if reply.done_reason.is_empty() {
            "stop"
        } else {
            &reply.done_reason
        };
        self.chunk(json!([choice(
            "delta",
            json!({}),
            finish_reason(reason, self.called_tools)
        )]))
    }

    fn chunk(&self, choices: Value) -> Value {
        let (created, model) = self.first.as_ref().expect("set by the first reply");
        json!({
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": created,
            "model": model,
            "system_fingerprint": FINGERPRINT,
            "choices": choices,
        })
    }
}

fn choice(name: &str, content: Value, reason: Value) -> Value {
    json!({"index": 0, name: content, "finish_reason": reason})
}

/// `stop` is `tool_calls` once tools were called; nothing is null.
fn finish_reason(reason: &str, called_tools: bool) -> Value {
    match (reason, called_tools) {
        ("", _) => Value::Null,
        ("stop", true) => json!("tool_calls"),
        (other, _) => json!(other),
    }
}

fn insert_extras(target: &mut Map<String, Value>, thinking: &str, calls: &[ToolCall]) {
    if !thinking.is_empty() {
        target.insert("reasoning".into(), json!(thinking));
    }
    if !calls.is_empty() {
        target.insert("tool_calls".into(), calls.iter().map(tool_call).collect());
    }
}

fn tool_call(call: &ToolCall) -> Value {
    let arguments = serde_json::to_string(&call.function.arguments).expect("an object serialises");
    json!({
        "id": call.id,
        "index": call.function.index,
        "type": "function",
        "function": {"name": call.function.name, "arguments": arguments},
    })
}

fn insert_logprobs(choice: &mut Value, logprobs: &[LogProb]) {
    if !logprobs.is_empty() {
        choice["logprobs"] = json!({"content": logprobs});
    }
}

fn usage(reply: &ChatReply) -> Value {
    json!({
        "prompt_tokens": reply.prompt_eval_count,
        "completion_tokens": reply.eval_count,
        "total_tokens": reply.prompt_eval_count + reply.eval_count,
    })
}

fn created(reply: &ChatReply) -> i64 {
    DateTime::parse_from_rfc3339(&reply.created_at)
        .map_or_else(|_| Utc::now().timestamp(), |t| t.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Message, TokenLogProb, ToolCallFunction};

    fn reply(content: &str, thinking: &str) -> ChatReply {
        let message = Message {
            role: "assistant".into(),
            content: content.into(),
            thinking: thinking.into(),
            ..Message::default()
        };
        ChatReply {
            model: "m".into(),
            created_at: "2026-01-01T00:00:00.5Z".into(),
            message,
            ..ChatReply::default()
        }
    }

    fn done(mut reply: ChatReply, reason: &str) -> ChatReply {
        (reply.done, reply.done_reason) = (true, reason.into());
        (reply.prompt_eval_count, reply.eval_count) = (12, 6);
        reply
    }

    fn with_call(mut reply: ChatReply) -> ChatReply {
        let arguments = serde_json::from_str(r#"{"b":1,"a":{}}"#).unwrap();
        let function = ToolCallFunction {
            index: 0,
            name: "f".into(),
            arguments,
        };
        reply.message.tool_calls = vec![ToolCall {
            id: "call_1".into(),
            function,
        }];
        reply
    }

    fn frames(replies: &[ChatReply], include_usage: bool) -> Vec<Value> {
        let mut chunks = Chunks::new("chatcmpl-1".into(), include_usage);
        replies.iter().flat_map(|r| chunks.of(r)).collect()
    }

    fn delta(frame: &Value) -> String {
        frame["choices"][0]["delta"].to_string()
    }

    #[test]
    fn a_whole_completion() {
        let value = completion("chatcmpl-1", &done(reply("Hi", ""), "length"));
        assert_eq!(
            value.to_string(),
            r#"{"id":"chatcmpl-1","object":"chat.completion","created":1767225600,"model":"m","system_fingerprint":"fp_ollama","choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},"finish_reason":"length"}],"usage":{"prompt_tokens":12,"completion_tokens":6,"total_tokens":18}}"#
        );
        let called = completion("i", &done(with_call(reply("", "")), "stop"));
        assert_eq!(called["choices"][0]["finish_reason"], "tool_calls");
        let call = &called["choices"][0]["message"]["tool_calls"][0];
        assert_eq!(call["function"]["arguments"], r#"{"b":1,"a":{}}"#);
        let cut = completion("i", &done(with_call(reply("", "")), "length"));
        assert_eq!(cut["choices"][0]["finish_reason"], "length");
    }

    #[test]
    fn a_text_stream() {
        let frames = frames(
            &[reply("He", ""), reply("y", ""), done(reply("", ""), "stop")],
            true,
        );
        assert_eq!(frames.len(), 4);
        assert_eq!(delta(&frames[0]), r#"{"role":"assistant","content":"He"}"#);
        assert_eq!(delta(&frames[1]), r#"{"content":"y"}"#);
        assert_eq!(delta(&frames[2]), "{}");
        assert_eq!(frames[2]["choices"][0]["finish_reason"], "stop");
        assert_eq!(
            (&frames[3]["choices"], &frames[3]["usage"]["total_tokens"]),
            (&json!([]), &json!(18))
        );
        assert!(frames[2].get("usage").is_none());
        assert!(frames.iter().all(|f| f["created"] == 1767225600));
    }

    #[test]
    fn reasoning_is_split_from_what_follows() {
        let frames = frames(&[done(reply("b", "a"), "stop")], false);
        assert_eq!(frames.len(), 3);
        assert_eq!(delta(&frames[0]), r#"{"role":"assistant","reasoning":"a"}"#);
        assert_eq!(delta(&frames[1]), r#"{"content":"b"}"#);
    }

    #[test]
    fn tools_decide_the_finish() {
        let frames = frames(
            &[with_call(reply("", "")), done(reply("", ""), "stop")],
            false,
        );
        assert!(delta(&frames[0]).starts_with(
            r#"{"role":"assistant","content":"","tool_calls":[{"id":"call_1","index":0"#
        ));
        assert_eq!(frames[1]["choices"][0]["finish_reason"], "tool_calls");
    }

    #[test]
    fn empty_streams_and_trailers() {
        let empty = frames(&[done(reply("", ""), "")], false);
        assert_eq!(delta(&empty[0]), r#"{"role":"assistant","content":""}"#);
        assert_eq!(empty[1]["choices"][0]["finish_reason"], "stop");
        let mut trailer = done(reply("", ""), "stop");
        trailer.logprobs = vec![LogProb {
            token: "x".into(),
            logprob: -0.5,
            bytes: vec![120],
            top_logprobs: vec![TokenLogProb::default()],
        }];
        assert_eq!(frames(&[reply("x", ""), trailer], false).len(), 3);
    }
}
