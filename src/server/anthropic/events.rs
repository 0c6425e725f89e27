//! Native chat replies as the events of a streamed message.

use super::reply::{end, thinking, tool_use, usage};
use crate::api::{ChatReply, ToolCall};
use serde_json::{Value, json};

/// A block that takes text in pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    Text,
    Thinking,
}

impl Block {
    fn name(self) -> &'static str {
        match self {
            Block::Text => "text",
            Block::Thinking => "thinking",
        }
    }
}

/// Turns the replies of one stream into events, each with its name as `type`.
pub struct Events {
    id: String,
    has_begun: bool,
    open: Option<Block>,
    /// Of the open block, or of the next one.
    index: usize,
    /// Reasoning is over: what comes later is no block any more.
    has_thought: bool,
    called_tools: bool,
    stop_sequences: Vec<String>,
}

impl Events {
    /// `stop_sequences` are the request's.
    pub fn new(id: String, stop_sequences: Vec<String>) -> Self {
        Events {
            id,
            has_begun: false,
            open: None,
            index: 0,
            has_thought: false,
            called_tools: false,
            stop_sequences,
        }
    }

    /// The events of one reply, in order.
    pub fn of(&mut self, reply: &ChatReply) -> Vec<Value> {
        let mut events = Vec::new();
        if !std::mem::replace(&mut self.has_begun, true) {
            events.push(self.start(reply));
        }
        let message = &reply.message;
        if !message.thinking.is_empty() && !self.has_thought {
            self.write(Block::Thinking, &message.thinking, &mut events);
        }
        if !message.content.is_empty() {
            self.write(Block::Text, &message.content, &mut events);
        }
        for call in &message.tool_calls {
            self.call(call, &mut events);
        }
        if reply.done {
            self.close(&mut events);
            let delta = Value::Object(end(reply, self.called_tools, &self.stop_sequences));
            let usage = usage(reply);
            events.push(json!({"type": "message_delta", "delta": delta, "usage": usage}));
            events.push(json!({"type": "message_stop"}));
        }
        events
    }

    fn start(&self, reply: &ChatReply) -> Value {
        let mut usage = usage(reply);
        usage["output_tokens"] = json!(0);
        let message = json!({
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": reply.model,
            "content": [],
            "usage": usage,
        });
        json!({"type": "message_start", "message": message})
    }

    fn write(&mut self, block: Block, text: &str, events: &mut Vec<Value>) {
        let name = block.name();
        if self.open != Some(block) {
            self.close(events);
            self.open = Some(block);
            events.push(self.block_start(match block {
                Block::Text => json!({"type": "text", "text": ""}),
                Block::Thinking => thinking(""),
            }));
        }
        events.push(self.delta(json!({"type": format!("{name}_delta"), name: text})));
    }

    fn call(&mut self, call: &ToolCall, events: &mut Vec<Value>) {
        self.close(events);
        self.called_tools = true;
        self.has_thought = true;
        let arguments =
            serde_json::to_string(&call.function.arguments).expect("an object serialises");
        events.push(self.block_start(tool_use(call, json!({}))));
        events.push(self.delta(json!({"type": "input_json_delta", "partial_json": arguments})));
        events.push(self.block_stop());
    }

    /// Ends the open block, if there is one.
    fn close(&mut self, events: &mut Vec<Value>) {
        if let Some(block) = self.open.take() {
            self.has_thought |= block == Block::Thinking;
            events.push(self.block_stop());
        }
    }

    fn block_start(&self, block: Value) -> Value {
        json!({"type": "content_block_start", "index": self.index, "content_block": block})
    }

    fn delta(&self, delta: Value) -> Value {
        json!({"type": "content_block_delta", "index": self.index, "delta": delta})
    }

    fn block_stop(&mut self) -> Value {
        let index = self.index;
        self.index += 1;
        json!({"type": "content_block_stop", "index": index})
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::tests::reply;

    /// Each event in short: its type, and the index and kind where it has them.
    fn short(replies: &[ChatReply]) -> Vec<String> {
        let mut events = Events::new("msg_1".into(), vec!["END".into()]);
        let all = replies
            .iter()
            .flat_map(|r| events.of(r))
            .collect::<Vec<_>>();
        let brief = |event: &Value| {
            let name = event["type"]
                .as_str()
                .unwrap()
                .replace("content_block_", "");
            let kind = event["content_block"]["type"]
                .as_str()
                .or(event["delta"]["type"].as_str());
            let index = event["index"].as_u64().map(|i| i.to_string());
            [Some(name), index, kind.map(str::to_owned)]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .join(" ")
        };
        all.iter().map(brief).collect()
    }

    #[test]
    fn text() {
        let found = short(&[
            reply("", "a", 0, ""),
            reply("", "b", 0, ""),
            reply("", "", 0, "stop"),
        ]);
        let expected = [
            "message_start",
            "start 0 text",
            "delta 0 text_delta",
            "delta 0 text_delta",
            "stop 0",
            "message_delta",
            "message_stop",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn reasoning_then_a_call() {
        let found = short(&[
            reply("a", "", 0, ""),
            reply("", "", 1, ""),
            reply("", "", 0, "stop"),
        ]);
        let expected = [
            "message_start",
            "start 0 thinking",
            "delta 0 thinking_delta",
            "stop 0",
            "start 1 tool_use",
            "delta 1 input_json_delta",
            "stop 1",
            "message_delta",
            "message_stop",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn text_then_reasoning_then_text_and_no_more_reasoning() {
        let found = short(&[
            reply("", "a", 0, ""),
            reply("b", "", 0, ""),
            reply("", "c", 0, ""),
            reply("d", "", 0, "stop"),
        ]);
        let starts: Vec<&String> = found.iter().filter(|e| e.starts_with("start")).collect();
        assert_eq!(starts, ["start 0 text", "start 1 thinking", "start 2 text"]);
    }

    #[test]
    fn starts_are_empty_and_counts_are_those_of_the_model() {
        let mut events = Events::new("msg_1".into(), vec!["END".into()]);
        let cached = |reply: ChatReply| ChatReply {
            cached_tokens: 1,
            ..reply
        };
        let first = events.of(&cached(reply("", "a", 1, "")));
        assert_eq!(
            first[0]["message"]["usage"],
            json!({"input_tokens": 3, "cache_read_input_tokens": 1, "output_tokens": 0})
        );
        assert_eq!(
            first[1]["content_block"],
            json!({"type": "text", "text": ""})
        );
        assert_eq!(
            first[4]["content_block"],
            json!({"type": "tool_use", "id": "call_1", "name": "f", "input": {}})
        );
        let thinking = Events::new("msg_1".into(), Vec::new()).of(&reply("t", "", 0, ""));
        let empty = json!({"type": "thinking", "thinking": "", "signature": ""});
        assert_eq!(thinking[1]["content_block"], empty);
        assert_eq!(first[5]["delta"]["partial_json"], "{}");
        let last = events.of(&cached(reply("", "", 0, "length")));
        assert_eq!(last[0]["delta"], json!({"stop_reason": "tool_use"}));
        assert_eq!(
            last[0]["usage"],
            json!({"input_tokens": 3, "cache_read_input_tokens": 1, "output_tokens": 2})
        );
    }

    #[test]
    fn a_stop_sequence_is_told() {
        let stopped = ChatReply {
            matched_stop: Some(0),
            ..reply("", "a", 0, "stop")
        };
        let events = Events::new("msg_1".into(), vec!["END".into()]).of(&stopped);
        assert_eq!(
            events[4]["delta"],
            json!({"stop_reason": "stop_sequence", "stop_sequence": "END"})
        );
    }
}
