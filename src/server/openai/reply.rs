//! Native chat replies as OpenAI's chat completions, whole or in chunks.

use crate::api::{ChatReply, LogProb, ToolCall};
use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};

pub const FINGERPRINT: &str = "fp_ollama";

/// The whole completion; `replies` are its choices, at least one.
pub fn completion(id: &str, replies: &[ChatReply]) -> Value {
    let first = &replies[0];
    let choices: Vec<Value> = replies.iter().enumerate().map(whole_choice).collect();
    let mut counts = Counts::default();
    replies.iter().for_each(|reply| counts.add(reply));
    let mut completion = json!({
        "id": id,
        "object": "chat.completion",
        "created": created(&first.created_at),
        "model": first.model,
        "system_fingerprint": FINGERPRINT,
        "choices": choices,
        "usage": counts.usage(),
    });
    if let Some(debug) = &first.debug_info {
        completion["_debug_info"] = serde_json::to_value(debug).expect("plain data");
    }
    completion
}

fn whole_choice((index, reply): (usize, &ChatReply)) -> Value {
    let mut message = Map::new();
    message.insert("role".into(), json!(reply.message.role));
    message.insert("content".into(), json!(reply.message.content));
    insert_extras(
        &mut message,
        &reply.message.thinking,
        &reply.message.tool_calls,
    );
    let reason = finish_reason(&reply.done_reason, !reply.message.tool_calls.is_empty());
    let mut choice = choice(index, "message", Value::Object(message), reason);
    insert_logprobs(&mut choice, &reply.logprobs);
    choice
}

/// Turns the replies of one stream into chunks.
pub struct Chunks {
    id: String,
    include_usage: bool,
    /// Time and model of the first reply hold for all chunks.
    first: Option<(i64, String)>,
    choices: Vec<Choice>,
    counts: Counts,
}

/// What is known of one answer.
#[derive(Debug, Clone, Default)]
struct Choice {
    has_begun: bool,
    called_tools: bool,
    is_done: bool,
}

impl Chunks {
    /// For a stream of `n` answers.
    pub fn new(id: String, n: usize, include_usage: bool) -> Self {
        Chunks {
            id,
            include_usage,
            first: None,
            choices: vec![Choice::default(); n],
            counts: Counts::default(),
        }
    }

    /// The chunks of one reply, in order; after the last reply of a choice also its finish chunk, and after that of
    /// the last choice the usage chunk.
    pub fn of(&mut self, index: usize, reply: &ChatReply) -> Vec<Value> {
        self.first
            .get_or_insert_with(|| (created(&reply.created_at), reply.model.clone()));
        let is_first = !std::mem::replace(&mut self.choices[index].has_begun, true);
        let message = &reply.message;
        let has_visible = !message.content.is_empty() || !message.tool_calls.is_empty();
        let is_empty = !has_visible && message.thinking.is_empty() && reply.logprobs.is_empty();
        let mut chunks = Vec::new();
        if !(reply.done && is_empty) || is_first {
            chunks.extend(self.deltas(index, reply, is_first, has_visible));
        }
        if reply.done {
            self.choices[index].is_done = true;
            self.counts.add(reply);
            chunks.push(self.finish(index, reply));
            if self.include_usage && self.choices.iter().all(|choice| choice.is_done) {
                let mut chunk = self.chunk(json!([]));
                chunk["usage"] = self.counts.usage();
                chunks.push(chunk);
            }
        }
        chunks
    }

    /// One content chunk, or two when a reply has both reasoning and what follows it.
    fn deltas(
        &mut self,
        index: usize,
        reply: &ChatReply,
        is_first: bool,
        has_visible: bool,
    ) -> Vec<Value> {
        let message = &reply.message;
        self.choices[index].called_tools |= !message.tool_calls.is_empty();
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
            let mut choice = choice(index, "delta", Value::Object(delta), Value::Null);
            if i == 0 {
                insert_logprobs(&mut choice, &reply.logprobs);
            }
            self.chunk(json!([choice]))
        };
        deltas.into_iter().enumerate().map(with_logprobs).collect()
    }

    fn finish(&self, index: usize, reply: &ChatReply) -> Value {
        let reason = if reply.done_reason.is_empty() {
            "stop"
        } else {
            &reply.done_reason
        };
        self.chunk(json!([choice(
            index,
            "delta",
            json!({}),
            finish_reason(reason, self.choices[index].called_tools)
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

fn choice(index: usize, name: &str, content: Value, reason: Value) -> Value {
    json!({"index": index, name: content, "finish_reason": reason})
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

/// Tokens of a prompt and of all answers to it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    pub prompt: u64,
    /// Those of the prompt that were in the cache.
    pub cached: u64,
    pub generated: u64,
    /// Those of the generated ones that were reasoning.
    pub reasoning: u64,
}

impl Counts {
    /// Takes one more answer to the prompt. Later ones find in the cache what the first put there.
    fn add(&mut self, answer: &ChatReply) {
        self.cached = match self.prompt {
            0 => answer.cached_tokens,
            _ => self.cached.min(answer.cached_tokens),
        };
        self.prompt = answer.prompt_eval_count;
        self.generated += answer.eval_count;
        self.reasoning += answer.reasoning_tokens;
    }

    /// OpenAI's form.
    pub fn usage(&self) -> Value {
        json!({
            "prompt_tokens": self.prompt,
            "completion_tokens": self.generated,
            "total_tokens": self.prompt + self.generated,
            "prompt_tokens_details": {"cached_tokens": self.cached},
            "completion_tokens_details": {"reasoning_tokens": self.reasoning},
        })
    }
}

/// Unix seconds of a reply's time.
pub fn created(created_at: &str) -> i64 {
    DateTime::parse_from_rfc3339(created_at)
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
        (reply.cached_tokens, reply.reasoning_tokens) = (8, 2);
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
        let mut chunks = Chunks::new("chatcmpl-1".into(), 1, include_usage);
        replies.iter().flat_map(|r| chunks.of(0, r)).collect()
    }

    fn delta(frame: &Value) -> String {
        frame["choices"][0]["delta"].to_string()
    }

    #[test]
    fn a_whole_completion() {
        let value = completion("chatcmpl-1", &[done(reply("Hi", ""), "length")]);
        assert_eq!(
            value.to_string(),
            r#"{"id":"chatcmpl-1","object":"chat.completion","created":1767225600,"model":"m","system_fingerprint":"fp_ollama","choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},"finish_reason":"length"}],"usage":{"prompt_tokens":12,"completion_tokens":6,"total_tokens":18,"prompt_tokens_details":{"cached_tokens":8},"completion_tokens_details":{"reasoning_tokens":2}}}"#
        );
        assert!((created("") - Utc::now().timestamp()).abs() <= 1);
        let called = completion("i", &[done(with_call(reply("", "")), "stop")]);
        assert_eq!(called["choices"][0]["finish_reason"], "tool_calls");
        let call = &called["choices"][0]["message"]["tool_calls"][0];
        assert_eq!(call["function"]["arguments"], r#"{"b":1,"a":{}}"#);
        let cut = completion("i", &[done(with_call(reply("", "")), "length")]);
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
    fn choices_have_their_own_roles_and_finishes_and_one_usage() {
        let mut chunks = Chunks::new("chatcmpl-1".into(), 2, true);
        let script = [
            (0, reply("a", "")),
            (1, with_call(reply("", ""))),
            (1, done(reply("", ""), "stop")),
            (0, done(reply("", ""), "stop")),
        ];
        let frames: Vec<Value> = script.iter().flat_map(|(i, r)| chunks.of(*i, r)).collect();
        let of = |frame: &Value| {
            let choice = &frame["choices"][0];
            (choice["index"].clone(), choice["finish_reason"].clone())
        };
        let expected = [
            (json!(0), Value::Null),
            (json!(1), Value::Null),
            (json!(1), json!("tool_calls")),
            (json!(0), json!("stop")),
        ];
        assert_eq!(frames[..4].iter().map(of).collect::<Vec<_>>(), expected);
        assert!(frames[..2].iter().all(|f| delta(f).contains("assistant")));
        assert_eq!(frames[4]["usage"]["completion_tokens"], 12);
        assert_eq!(frames[4]["usage"]["prompt_tokens"], 12);
        let whole = completion(
            "i",
            &[done(reply("a", ""), "stop"), done(reply("b", ""), "stop")],
        );
        assert_eq!(whole["choices"][1]["message"]["content"], "b");
        assert_eq!(whole["choices"][1]["index"], 1);
        assert_eq!(whole["usage"]["total_tokens"], 24);
    }

    #[test]
    fn reasoning_is_split_from_what_follows() {
        let frames = frames(&[done(reply("b", "a"), "stop")], false);
        assert_eq!(frames.len(), 3);
        assert_eq!(delta(&frames[0]), r#"{"role":"assistant","reasoning":"a"}"#);
        assert_eq!(delta(&frames[1]), r#"{"content":"b"}"#);
    }

    #[test]
    fn the_first_chunk_has_the_role_the_time_and_the_logprobs() {
        let mut first = reply("b", "a");
        first.logprobs = vec![LogProb::default()];
        let mut last = done(with_call(reply("", "c")), "unload");
        last.created_at = "2027-01-01T00:00:00Z".into();
        last.message.tool_calls.push(ToolCall {
            id: "call_2".into(),
            function: ToolCallFunction {
                index: 1,
                ..ToolCallFunction::default()
            },
        });
        let frames = frames(&[first, last], false);
        let has = |frame: &Value, text: &str| frame.to_string().contains(text);
        assert!(has(&frames[0], "role") && has(&frames[0], "logprobs"));
        assert!(
            frames[1..]
                .iter()
                .all(|f| !has(f, "role") && !has(f, "logprobs"))
        );
        assert!(frames.iter().all(|f| f["created"] == frames[0]["created"]));
        assert_eq!(delta(&frames[2]), r#"{"reasoning":"c"}"#);
        let calls = &frames[3]["choices"][0]["delta"]["tool_calls"];
        let identity = |i: usize| (calls[i]["id"].clone(), calls[i]["index"].clone());
        assert_eq!(
            [identity(0), identity(1)],
            [(json!("call_1"), json!(0)), (json!("call_2"), json!(1))]
        );
        assert_eq!(frames[4]["choices"][0]["finish_reason"], "unload");
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
        let cut = frames(&[done(reply("x", ""), "length")], false);
        let finish = |i: usize| &cut[i]["choices"][0]["finish_reason"];
        assert_eq!(
            (cut.len(), finish(0), finish(1)),
            (2, &Value::Null, &json!("length"))
        );
    }
}
