//! Native replies as choices of `/v1/completions`, whole or in chunks.

use crate::api::{GenerateReply, LogProb, TokenLogProb};
use crate::server::openai::reply::{Counts, FINGERPRINT, created};
use serde_json::{Map, Value, json};

/// What has been written of one choice.
#[derive(Debug, Default)]
pub struct Choice {
    /// The echo of the prompt, until it is sent.
    echo: String,
    /// Characters sent.
    n_chars: usize,
}

impl Choice {
    pub fn after(echo: String) -> Choice {
        Choice { echo, n_chars: 0 }
    }

    /// A reply as a choice of OpenAI's.
    fn json(&mut self, index: usize, reply: &GenerateReply) -> Value {
        let text = std::mem::take(&mut self.echo) + &reply.response;
        let reason = match reply.done_reason.as_str() {
            "" => Value::Null,
            reason => json!(reason),
        };
        let mut choice = json!({"text": text, "index": index, "finish_reason": reason});
        if !reply.logprobs.is_empty() {
            choice["logprobs"] = logprobs(&reply.logprobs, self.n_chars);
        }
        self.n_chars += text.chars().count();
        choice
    }
}

/// OpenAI's older form: a list for each kind of fact. `offset` is where the first token's text begins.
fn logprobs(entries: &[LogProb], mut offset: usize) -> Value {
    let (mut tokens, mut chosen, mut top, mut offsets) = (vec![], vec![], vec![], vec![]);
    for entry in entries {
        offsets.push(json!(offset));
        offset += entry.token.chars().count();
        tokens.push(json!(entry.token));
        chosen.push(json!(entry.logprob));
        let pair = |p: &TokenLogProb| (p.token.clone(), json!(p.logprob));
        top.push(Value::Object(
            entry.top_logprobs.iter().map(pair).collect::<Map<_, _>>(),
        ));
    }
    json!({"tokens": tokens, "token_logprobs": chosen, "top_logprobs": top, "text_offset": offsets})
}

/// Tokens of the choices that are done, with the prompt's in each.
#[derive(Debug, Default)]
struct Done {
    n: usize,
    counts: Counts,
}

impl Done {
    fn add(&mut self, reply: &GenerateReply) {
        self.n += 1;
        self.counts.prompt += reply.prompt_eval_count;
        self.counts.cached += reply.cached_tokens;
        self.counts.generated += reply.eval_count;
        self.counts.reasoning += reply.reasoning_tokens;
    }

    /// Counts every prompt once.
    fn usage(&self, n_prompts: usize) -> Value {
        let n_each = (self.n / n_prompts).max(1) as u64;
        let once = Counts {
            prompt: self.counts.prompt / n_each,
            cached: self.counts.cached / n_each,
            ..self.counts
        };
        once.usage()
    }
}

/// The whole answer.
pub fn completion(
    id: &str,
    replies: Vec<GenerateReply>,
    mut written: Vec<Choice>,
    n_prompts: usize,
) -> Value {
    let mut done = Done::default();
    let mut choices = Vec::new();
    for (index, (reply, choice)) in replies.iter().zip(&mut written).enumerate() {
        done.add(reply);
        choices.push(choice.json(index, reply));
    }
    let mut completion = json!({
        "id": id,
        "object": "text_completion",
        "created": created(&replies[0].created_at),
        "model": replies[0].model,
        "system_fingerprint": FINGERPRINT,
        "choices": choices,
        "usage": done.usage(n_prompts),
    });
    if let Some(debug) = &replies[0].debug_info {
        completion["_debug_info"] = serde_json::to_value(debug).expect("plain data");
    }
    completion
}

/// Turns the replies of one stream into chunks.
pub struct Chunks {
    id: String,
    include_usage: bool,
    choices: Vec<Choice>,
    n_prompts: usize,
    done: Done,
}

impl Chunks {
    /// For choices of which this has been `written`.
    pub fn new(id: String, include_usage: bool, choices: Vec<Choice>, n_prompts: usize) -> Chunks {
        Chunks {
            id,
            include_usage,
            choices,
            n_prompts,
            done: Done::default(),
        }
    }

    /// The chunk of one reply, and after the last of all choices that of the usage.
    pub fn of(&mut self, index: usize, reply: GenerateReply) -> Vec<Value> {
        let choice = self.choices[index].json(index, &reply);
        let mut chunks = vec![self.chunk(&reply, json!([choice]), Value::Null)];
        if reply.done {
            self.done.add(&reply);
            if self.include_usage && self.done.n == self.choices.len() {
                let usage = self.done.usage(self.n_prompts);
                chunks.push(self.chunk(&reply, json!([]), usage));
            }
        }
        chunks
    }

    fn chunk(&self, reply: &GenerateReply, choices: Value, usage: Value) -> Value {
        let mut chunk = json!({
            "id": self.id,
            "object": "text_completion",
            "created": created(&reply.created_at),
            "choices": choices,
            "model": reply.model,
            "system_fingerprint": FINGERPRINT,
        });
        if self.include_usage {
            chunk["usage"] = usage;
        }
        chunk
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(text: &str, reason: &str) -> GenerateReply {
        let entry = LogProb {
            token: text.into(),
            logprob: -0.5,
            bytes: text.into(),
            top_logprobs: vec![TokenLogProb {
                token: text.into(),
                logprob: -0.5,
                bytes: text.into(),
            }],
        };
        GenerateReply {
            model: "m".into(),
            created_at: "2026-01-01T00:00:00Z".into(),
            response: text.into(),
            done: !reason.is_empty(),
            done_reason: reason.into(),
            prompt_eval_count: 7,
            cached_tokens: 2,
            reasoning_tokens: 1,
            eval_count: 2,
            logprobs: if text.is_empty() { vec![] } else { vec![entry] },
            ..GenerateReply::default()
        }
    }

    #[test]
    fn streams_have_offsets_an_echo_and_one_usage() {
        let choices = vec![Choice::after("pé".into()), Choice::default()];
        let mut chunks = Chunks::new("cmpl-1".into(), true, choices, 1);
        let script = [
            (0, reply("a", "")),
            (1, reply("b", "stop")),
            (0, reply("", "length")),
        ];
        let frames: Vec<Value> = script
            .into_iter()
            .flat_map(|(i, r)| chunks.of(i, r))
            .collect();
        assert_eq!(frames.len(), 4);
        assert_eq!(frames[0]["choices"][0]["text"], "péa");
        assert_eq!(frames[1]["choices"][0]["finish_reason"], "stop");
        assert_eq!(frames[2]["choices"][0]["finish_reason"], "length");
        assert!(frames[..3].iter().all(|f| f["usage"].is_null()));
        assert_eq!(
            frames[3]["usage"],
            json!({
                "prompt_tokens": 7, "completion_tokens": 4, "total_tokens": 11,
                "prompt_tokens_details": {"cached_tokens": 2}, "completion_tokens_details": {"reasoning_tokens": 2},
            })
        );
        let mut choice = Choice::default();
        choice.json(0, &reply("ab", ""));
        assert_eq!(
            choice.json(0, &reply("c", ""))["logprobs"],
            json!({"tokens": ["c"], "token_logprobs": [-0.5], "top_logprobs": [{"c": -0.5}], "text_offset": [2]})
        );
    }

    #[test]
    fn a_whole_completion() {
        let replies = vec![reply("Hi", "stop"), reply("Ho", "stop")];
        let value = completion(
            "cmpl-1",
            replies,
            vec![Choice::default(), Choice::default()],
            2,
        );
        assert_eq!(value["choices"][1]["text"], "Ho");
        assert_eq!(
            value["usage"],
            json!({
                "prompt_tokens": 14, "completion_tokens": 4, "total_tokens": 18,
                "prompt_tokens_details": {"cached_tokens": 4}, "completion_tokens_details": {"reasoning_tokens": 2},
            })
        );
    }
}
