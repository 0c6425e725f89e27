//! Native chat replies as a response and the events of its stream.

use crate::api::{ChatReply, LogProb, Object, TokenLogProb, ToolCall};
use crate::server::error::ApiError;
use crate::server::generation::random;
use crate::server::openai::reply::created;
use chrono::Utc;
use serde_json::{Value, json};

/// What is being written.
enum Open {
    Reasoning {
        id: String,
        text: String,
    },
    Message {
        id: String,
        text: String,
        logprobs: Vec<Value>,
    },
}

/// Turns the replies of one response into events, each with its name as `type`.
pub struct Events {
    id: String,
    /// Members that repeat the request's.
    echo: Object,
    created_at: Option<i64>,
    n_events: u64,
    open: Option<Open>,
    /// Log-probabilities of text that has not come yet.
    held: Vec<Value>,
    /// Items that are complete; the open one comes after them.
    output: Vec<Value>,
    n_calls: usize,
}

impl Events {
    pub fn new(echo: Object) -> Self {
        Events {
            id: format!("resp_{:016x}", random()),
            echo,
            created_at: None,
            n_events: 0,
            open: None,
            held: Vec::new(),
            output: Vec::new(),
            n_calls: 0,
        }
    }

    /// The response to a request that does not stream.
    pub fn whole(&mut self, reply: &ChatReply) -> Value {
        let mut events = self.of(reply);
        let last = events.last_mut().expect("every reply has events");
        last["response"].take()
    }

    /// The events of one reply, in order.
    pub fn of(&mut self, reply: &ChatReply) -> Vec<Value> {
        let mut events = Vec::new();
        if self.created_at.is_none() {
            self.created_at = Some(created(&reply.created_at));
            let response = self.response("in_progress", None);
            for name in ["response.created", "response.in_progress"] {
                self.push(&mut events, name, json!({"response": response}));
            }
        }
        let message = &reply.message;
        self.held.extend(reply.logprobs.iter().map(logprob));
        if message.content.is_empty()
            && (!message.thinking.is_empty() || !message.tool_calls.is_empty())
        {
            self.held.clear();
        }
        if !message.thinking.is_empty() {
            self.think(&message.thinking, &mut events);
        }
        if !message.content.is_empty() {
            self.write(&message.content, &mut events);
        }
        for call in &message.tool_calls {
            self.call(call, &mut events);
        }
        if reply.done {
            self.finish(reply, &mut events);
        }
        events
    }

    /// The last event of a response that failed on the way.
    pub fn failure(&mut self, e: &ApiError) -> Value {
        let mut response = self.response("failed", None);
        let code = match e.status.as_u16() {
            429 => "rate_limit_exceeded",
            _ => "server_error",
        };
        response["error"] = json!({"code": code, "message": e.message});
        let mut events = Vec::new();
        self.push(
            &mut events,
            "response.failed",
            json!({"response": response}),
        );
        events.remove(0)
    }

    fn push(&mut self, events: &mut Vec<Value>, name: &str, members: Value) {
        let mut event = json!({"type": name, "sequence_number": self.n_events});
        self.n_events += 1;
        if let (Value::Object(event), Value::Object(members)) = (&mut event, members) {
            event.extend(members);
        }
        events.push(event);
    }

    /// An event of the item that is open or about to be.
    fn of_item(&mut self, events: &mut Vec<Value>, name: &str, mut members: Value) {
        members["output_index"] = json!(self.output.len());
        self.push(events, name, members);
    }

    fn think(&mut self, piece: &str, events: &mut Vec<Value>) {
        if !matches!(self.open, Some(Open::Reasoning { .. })) {
            self.close(events);
            let id = format!("rs_{:016x}", random());
            let item = json!({"id": id, "type": "reasoning", "summary": []});
            self.of_item(events, "response.output_item.added", json!({"item": item}));
            self.open = Some(Open::Reasoning {
                id,
                text: String::new(),
            });
        }
        if let Some(Open::Reasoning { id, text }) = &mut self.open {
            text.push_str(piece);
            let delta = json!({"item_id": id, "summary_index": 0, "delta": piece});
            self.of_item(events, "response.reasoning_summary_text.delta", delta);
        }
    }

    fn write(&mut self, piece: &str, events: &mut Vec<Value>) {
        if !matches!(self.open, Some(Open::Message { .. })) {
            self.close(events);
            self.open_message(events);
        }
        if let Some(Open::Message { id, text, logprobs }) = &mut self.open {
            text.push_str(piece);
            let held = std::mem::take(&mut self.held);
            let delta =
                json!({"item_id": id, "content_index": 0, "delta": piece, "logprobs": held});
            logprobs.extend(held);
            self.of_item(events, "response.output_text.delta", delta);
        }
    }

    fn open_message(&mut self, events: &mut Vec<Value>) {
        let id = format!("msg_{:016x}", random());
        let item = message(&id, "in_progress", json!([]));
        self.of_item(events, "response.output_item.added", json!({"item": item}));
        let part = json!({"item_id": id, "content_index": 0, "part": part("", &[])});
        self.of_item(events, "response.content_part.added", part);
        self.open = Some(Open::Message {
            id,
            text: String::new(),
            logprobs: Vec::new(),
        });
    }

    fn call(&mut self, call: &ToolCall, events: &mut Vec<Value>) {
        self.close(events);
        let id = format!("fc_{}_{}", self.id, self.n_calls);
        self.n_calls += 1;
        let arguments =
            serde_json::to_string(&call.function.arguments).expect("an object serialises");
        let item = |status: &str, arguments: &str| {
            json!({
                "id": id, "type": "function_call", "status": status,
                "call_id": call.id, "name": call.function.name, "arguments": arguments,
            })
        };
        let added = json!({"item": item("in_progress", "")});
        self.of_item(events, "response.output_item.added", added);
        let delta = json!({"item_id": id, "delta": arguments});
        self.of_item(events, "response.function_call_arguments.delta", delta);
        let done = json!({"item_id": id, "arguments": arguments});
        self.of_item(events, "response.function_call_arguments.done", done);
        self.complete(item("completed", &arguments), events);
    }

    /// Ends the open item, if there is one.
    fn close(&mut self, events: &mut Vec<Value>) {
        match self.open.take() {
            None => {}
            Some(Open::Reasoning { id, text }) => {
                let done = json!({"item_id": id, "summary_index": 0, "text": text});
                self.of_item(events, "response.reasoning_summary_text.done", done);
                let summary = json!([{"type": "summary_text", "text": text}]);
                let item = json!({"id": id, "type": "reasoning", "summary": summary, "encrypted_content": text});
                self.complete(item, events);
            }
            Some(Open::Message {
                id,
                text,
                mut logprobs,
            }) => {
                logprobs.append(&mut self.held);
                let done =
                    json!({"item_id": id, "content_index": 0, "text": text, "logprobs": logprobs});
                self.of_item(events, "response.output_text.done", done);
                let part = part(&text, &logprobs);
                let done = json!({"item_id": id, "content_index": 0, "part": part});
                self.of_item(events, "response.content_part.done", done);
                self.complete(message(&id, "completed", json!([part])), events);
            }
        }
    }

    fn complete(&mut self, item: Value, events: &mut Vec<Value>) {
        self.of_item(events, "response.output_item.done", json!({"item": item}));
        self.output.push(item);
    }

    fn finish(&mut self, reply: &ChatReply, events: &mut Vec<Value>) {
        // An answer without calls has a message, if an empty one.
        if self.n_calls == 0 && !matches!(self.open, Some(Open::Message { .. })) {
            self.close(events);
            self.open_message(events);
        }
        self.close(events);
        let status = match reply.done_reason.as_str() {
            "length" => "incomplete",
            _ => "completed",
        };
        let response = self.response(status, Some(reply));
        let name = format!("response.{status}");
        self.push(events, &name, json!({"response": response}));
    }

    /// The whole response as it stands.
    fn response(&self, status: &str, last: Option<&ChatReply>) -> Value {
        let details = (status == "incomplete").then(|| json!({"reason": "max_output_tokens"}));
        let mut response = json!({
            "id": self.id,
            "object": "response",
            "created_at": self.created_at,
            "completed_at": last.map(|_| Utc::now().timestamp()),
            "status": status,
            "incomplete_details": details,
            "previous_response_id": null,
            "output": self.output,
            "error": null,
            "presence_penalty": 0,
            "frequency_penalty": 0,
            "usage": last.map(usage),
            "max_tool_calls": null,
            "store": false,
            "service_tier": "default",
            "safety_identifier": null,
            "prompt_cache_key": null,
        });
        if let Value::Object(members) = &mut response {
            members.extend(self.echo.clone());
        }
        response
    }
}

fn message(id: &str, status: &str, content: Value) -> Value {
    json!({"id": id, "type": "message", "status": status, "role": "assistant", "content": content})
}

fn part(text: &str, logprobs: &[Value]) -> Value {
    json!({"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs})
}

/// With every member that OpenAI names, empty ones too.
fn logprob(entry: &LogProb) -> Value {
    let alternative =
        |p: &TokenLogProb| json!({"token": p.token, "bytes": p.bytes, "logprob": p.logprob});
    json!({
        "token": entry.token,
        "bytes": entry.bytes,
        "logprob": entry.logprob,
        "top_logprobs": entry.top_logprobs.iter().map(alternative).collect::<Vec<_>>(),
    })
}

fn usage(reply: &ChatReply) -> Value {
    json!({
        "input_tokens": reply.prompt_eval_count,
        "output_tokens": reply.eval_count,
        "total_tokens": reply.prompt_eval_count + reply.eval_count,
        "input_tokens_details": {"cached_tokens": reply.cached_tokens},
        "output_tokens_details": {"reasoning_tokens": reply.reasoning_tokens},
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::tests::reply;

    /// All events; their numbers and the places of their items are checked on the way.
    fn run(replies: &[ChatReply]) -> Vec<Value> {
        let mut events = Events::new(Object::new());
        let all: Vec<Value> = replies.iter().flat_map(|r| events.of(r)).collect();
        for (i, event) in all.iter().enumerate() {
            assert_eq!(event["sequence_number"], i);
        }
        let output = &all.last().unwrap()["response"]["output"];
        let done = all
            .iter()
            .filter(|e| e["type"] == "response.output_item.done");
        for event in done {
            let index = event["output_index"].as_u64().unwrap() as usize;
            assert_eq!(event["item"], output[index]);
        }
        all
    }

    fn names(events: &[Value]) -> Vec<String> {
        let name = |e: &Value| {
            e["type"]
                .as_str()
                .unwrap()
                .trim_start_matches("response.")
                .to_owned()
        };
        events.iter().map(name).collect()
    }

    const MESSAGE_END: [&str; 3] = ["output_text.done", "content_part.done", "output_item.done"];

    #[test]
    fn text() {
        let events = run(&[
            reply("", "a", 0, ""),
            reply("", "b", 0, ""),
            reply("", "", 0, "stop"),
        ]);
        let begin = [
            "created",
            "in_progress",
            "output_item.added",
            "content_part.added",
        ];
        let middle = ["output_text.delta", "output_text.delta"];
        let expected = [&begin[..], &middle, &MESSAGE_END, &["completed"]].concat();
        assert_eq!(names(&events), expected);
        let created = &events[0]["response"];
        assert_eq!(
            (&created["output"], &created["usage"], &created["status"]),
            (&json!([]), &json!(null), &json!("in_progress"))
        );
        let whole = &events[9]["response"];
        assert_eq!(whole["output"][0]["content"][0]["text"], "ab");
        assert_eq!(whole["usage"]["total_tokens"], 6);
        assert_eq!(whole["created_at"], 1767225600);
    }

    #[test]
    fn reasoning_then_calls_then_text() {
        let events = run(&[
            reply("a", "", 0, ""),
            reply("", "", 2, ""),
            reply("", "z", 0, ""),
            reply("", "", 0, "stop"),
        ]);
        let call = [
            "output_item.added",
            "function_call_arguments.delta",
            "function_call_arguments.done",
            "output_item.done",
        ];
        let reasoning = [
            "output_item.added",
            "reasoning_summary_text.delta",
            "reasoning_summary_text.done",
            "output_item.done",
        ];
        let text = [
            "output_item.added",
            "content_part.added",
            "output_text.delta",
        ];
        let expected = [
            &["created", "in_progress"][..],
            &reasoning,
            &call,
            &call,
            &text,
            &MESSAGE_END,
            &["completed"],
        ]
        .concat();
        assert_eq!(names(&events), expected);
        let output = events.last().unwrap()["response"]["output"]
            .as_array()
            .unwrap()
            .clone();
        let kinds: Vec<_> = output.iter().map(|i| i["type"].as_str().unwrap()).collect();
        assert_eq!(
            kinds,
            ["reasoning", "function_call", "function_call", "message"]
        );
        assert_eq!(output[0]["encrypted_content"], "a");
        assert_ne!(output[1]["id"], output[2]["id"]);
        let states: Vec<_> = events
            .iter()
            .filter(|e| e["item"]["type"] == "function_call")
            .map(|e| (&e["item"]["status"], &e["item"]["arguments"]))
            .collect();
        let (added, done) = (
            (&json!("in_progress"), &json!("")),
            (&json!("completed"), &json!("{}")),
        );
        assert_eq!(states, [added, done, added, done]);
    }

    #[test]
    fn log_probabilities_come_with_their_text_and_not_with_reasoning() {
        let with = |token: &str, reply: ChatReply| ChatReply {
            logprobs: vec![LogProb {
                token: token.into(),
                ..LogProb::default()
            }],
            ..reply
        };
        let events = run(&[
            with("t", reply("t", "", 0, "")),
            with("<", reply("", "", 0, "")),
            with("a", reply("", "<a", 0, "")),
            with("b", reply("", "b", 0, "stop")),
        ]);
        let tokens = |entries: &Value| -> Vec<String> {
            let entries = entries["logprobs"].as_array().unwrap().iter();
            entries
                .map(|e| e["token"].as_str().unwrap().to_owned())
                .collect()
        };
        let deltas = events
            .iter()
            .filter(|e| e["type"] == "response.output_text.delta");
        assert_eq!(
            deltas.map(tokens).collect::<Vec<_>>(),
            [vec!["<", "a"], vec!["b"]]
        );
        let whole = &events.last().unwrap()["response"]["output"][1]["content"][0];
        assert_eq!(tokens(whole), ["<", "a", "b"]);
        assert_eq!(
            whole["logprobs"][0],
            json!({"token": "<", "bytes": [], "logprob": 0.0, "top_logprobs": []})
        );
    }

    #[test]
    fn a_message_ends_before_calls() {
        let names = names(&run(&[reply("", "a", 1, "stop")]));
        let end = names.iter().position(|n| n == "output_text.done").unwrap();
        let call = names
            .iter()
            .position(|n| n == "function_call_arguments.delta")
            .unwrap();
        assert!(end < call);
        let around = run(&[reply("", "a", 1, ""), reply("", "b", 0, "stop")]);
        let output = &around.last().unwrap()["response"]["output"];
        let text = |i: usize| output[i]["content"][0]["text"].clone();
        assert_eq!([text(0), text(2)], ["a", "b"]);
        assert_ne!(output[0]["id"], output[2]["id"]);
    }

    #[test]
    fn whole_responses_and_their_ends() {
        let whole = |reply: ChatReply| Events::new(Object::new()).whole(&reply);
        let cut = whole(reply("", "a", 0, "length"));
        assert_eq!(
            (&cut["status"], &cut["incomplete_details"]["reason"]),
            (&json!("incomplete"), &json!("max_output_tokens"))
        );
        let empty = whole(reply("", "", 0, "load"));
        assert_eq!(
            (&empty["status"], &empty["output"][0]["content"][0]["text"]),
            (&json!("completed"), &json!(""))
        );
        assert_eq!(
            whole(reply("", "", 1, "stop"))["output"]
                .as_array()
                .unwrap()
                .len(),
            1
        );
        let failed = Events::new(Object::new()).failure(&ApiError::internal("broke"));
        assert_eq!(
            (&failed["type"], &failed["response"]["error"]["message"]),
            (&json!("response.failed"), &json!("broke"))
        );
    }
}
