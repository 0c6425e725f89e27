//! `POST /v1/completions`: the native `/api/generate` in the shape of OpenAI's older API.

use super::choices;
use super::content::{self, refused};
use super::reply::{Counts, FINGERPRINT, created};
use super::request::StreamOptions;
use super::{json_line, passed, streamed};
use crate::api::{GenerateReply, GenerateRequest, LogProb, Object, TokenLogProb};
use crate::server::error::ApiError;
use crate::server::generation::random;
use crate::server::{App, Incoming, Response, body, generate, inflate};
use futures_util::future;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Instant;

/// The members that have an effect; all others are accepted and ignored.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Completion {
    model: String,
    prompt: Value,
    suffix: String,
    stream: bool,
    stream_options: StreamOptions,
    n: Option<i64>,
    best_of: Option<i64>,
    echo: bool,
    max_tokens: Option<i64>,
    seed: Option<i64>,
    stop: Value,
    temperature: Option<f64>,
    top_p: f64,
    frequency_penalty: f64,
    presence_penalty: f64,
    logit_bias: Option<Value>,
    logprobs: Option<i64>,
    #[serde(rename = "_debug_render_only")]
    debug_render_only: bool,
}

/// A translated request: what to run, and how to answer.
#[derive(Debug)]
struct Translated {
    /// One for each choice, those of a prompt side by side.
    requests: Vec<GenerateRequest>,
    n_prompts: usize,
    stream: bool,
    include_usage: bool,
    /// Choices begin with their prompts.
    echo: bool,
}

/// Answers the endpoint.
pub async fn completions(app: Arc<App>, incoming: Incoming) -> Result<Response, ApiError> {
    let received = incoming.received;
    let translated = match inflate::translated(incoming.headers, incoming.body, translate).await? {
        Ok(translated) => translated,
        Err(e) => return Ok(e.into_openai_refusal()),
    };
    passed(answer(&app, translated, received).await)
}

async fn answer(
    app: &Arc<App>,
    translated: Translated,
    received: Instant,
) -> Result<Response, ApiError> {
    let n_prompts = translated.n_prompts;
    let echoed = |request: &GenerateRequest| match translated.echo {
        true => request.prompt.clone(),
        false => String::new(),
    };
    let written: Vec<Choice> = translated
        .requests
        .iter()
        .map(|request| Choice::after(echoed(request)))
        .collect();
    let only_renders = translated.requests.iter().any(|r| r.debug_render_only);
    let (mut choices, mut held) = (Vec::new(), None);
    for request in translated.requests {
        choices.push(choices::objects(
            generate::run(app, request, received, &mut held).await?,
        ));
    }
    drop(held);
    let id = format!("cmpl-{:016x}", random());
    if translated.stream && !only_renders {
        let mut chunks = Chunks {
            id,
            include_usage: translated.include_usage,
            choices: written,
            n_prompts,
            done: Done::default(),
        };
        return streamed(choices, move |index, reply| chunks.of(index, reply)).await;
    }
    let whole = future::try_join_all(choices.into_iter().map(generate::joined)).await?;
    Ok(json_line(&completion(&id, whole, written, n_prompts)))
}

/// Reads and translates a body.
///
/// # Errors
/// 400 that names the member.
fn translate(bytes: &[u8]) -> Result<Translated, ApiError> {
    let request: Completion = body::typed(body::parse_object(bytes, "EOF")?)?;
    let prompts = prompts(&request.prompt)?;
    let n = choices::checked(request.n, prompts.len())?;
    if request
        .best_of
        .is_some_and(|best| usize::try_from(best) != Ok(n))
    {
        return Err(refused("best_of is not supported: only the value of n"));
    }
    if request.echo && request.logprobs.is_some() {
        return Err(refused("echo and logprobs are not supported together"));
    }
    let options = options(&request)?;
    let requests = prompts
        .iter()
        .flat_map(|prompt| (0..n).map(move |index| (prompt, index)))
        .map(|(prompt, index)| GenerateRequest {
            model: request.model.clone(),
            prompt: prompt.clone(),
            suffix: request.suffix.clone(),
            options: choices::options_of(&options, index),
            stream: Some(request.stream),
            logprobs: request.logprobs.is_some(),
            top_logprobs: request.logprobs.unwrap_or_default(),
            debug_render_only: request.debug_render_only,
            ..GenerateRequest::default()
        })
        .collect();
    Ok(Translated {
        requests,
        n_prompts: prompts.len(),
        stream: request.stream,
        include_usage: request.stream_options.include_usage,
        echo: request.echo,
    })
}

/// One text, or a list of them.
fn prompts(prompt: &Value) -> Result<Vec<String>, ApiError> {
    let texts = match prompt {
        Value::Null => vec![String::new()],
        Value::String(text) => vec![text.clone()],
        Value::Array(items) => {
            let texts: Option<Vec<String>> = items
                .iter()
                .map(|item| item.as_str().map(str::to_owned))
                .collect();
            texts.ok_or_else(|| refused("prompts of tokens are not supported: send text"))?
        }
        other => {
            return Err(refused(&format!(
                "json: cannot unmarshal {} into field prompt: a string or a list of strings",
                body::kind(other)
            )));
        }
    };
    if texts.is_empty() {
        return Err(refused("[] is too short - 'prompt'"));
    }
    Ok(texts)
}

/// All but `max_tokens`, `seed`, `stop` and `logit_bias` are always sent, so they override what the model stores.
fn options(request: &Completion) -> Result<Object, ApiError> {
    let mut options = Object::from_iter([
        (
            "temperature".to_owned(),
            json!(request.temperature.unwrap_or(1.0)),
        ),
        (
            "frequency_penalty".to_owned(),
            json!(request.frequency_penalty),
        ),
        (
            "presence_penalty".to_owned(),
            json!(request.presence_penalty),
        ),
    ]);
    let top_p = if request.top_p == 0.0 {
        1.0
    } else {
        request.top_p
    };
    options.insert("top_p".into(), json!(top_p));
    if let Some(max) = request.max_tokens {
        options.insert("num_predict".into(), max.into());
    }
    if let Some(seed) = request.seed {
        options.insert("seed".into(), seed.into());
    }
    if let Some(bias) = &request.logit_bias {
        options.insert("logit_bias".into(), bias.clone());
    }
    match &request.stop {
        Value::String(text) => drop(options.insert("stop".into(), json!([text]))),
        Value::Array(items) => {
            if let Some(other) = items.iter().find(|item| !item.is_string()) {
                return Err(refused(&format!(
                    "invalid type for 'stop' field: {}",
                    content::go_type(other)
                )));
            }
            options.insert("stop".into(), json!(items));
        }
        _ => {}
    }
    Ok(options)
}

/// What has been written of one choice.
#[derive(Debug, Default)]
struct Choice {
    /// The echo of the prompt, until it is sent.
    echo: String,
    /// Characters sent.
    n_chars: usize,
}

impl Choice {
    fn after(echo: String) -> Choice {
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

fn completion(
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
struct Chunks {
    id: String,
    include_usage: bool,
    choices: Vec<Choice>,
    n_prompts: usize,
    done: Done,
}

impl Chunks {
    /// The chunk of one reply, and after the last of all choices that of the usage.
    fn of(&mut self, index: usize, reply: GenerateReply) -> Vec<Value> {
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

    fn translated(body: Value) -> Result<Translated, ApiError> {
        translate(body.to_string().as_bytes())
    }

    fn refusal(body: Value) -> String {
        translated(body).unwrap_err().message
    }

    #[test]
    fn the_least_request() {
        let found = translated(json!({"model": "m", "prompt": "p", "suffix": "s", "stream": true}));
        let found = found.unwrap();
        let request = &found.requests[0];
        assert_eq!(
            Value::Object(request.options.clone()),
            json!({"temperature": 1.0, "frequency_penalty": 0.0, "presence_penalty": 0.0, "top_p": 1.0})
        );
        assert_eq!((request.suffix.as_str(), request.stream), ("s", Some(true)));
        assert!(!request.logprobs && !request.raw && found.requests.len() == 1);
    }

    #[test]
    fn several_prompts_and_choices() {
        let body = json!({"prompt": ["a", "b"], "n": 2, "seed": 5, "logprobs": 0, "stop": "x", "top_p": 0});
        let found = translated(body).unwrap();
        let seen: Vec<_> = found
            .requests
            .iter()
            .map(|r| (r.prompt.as_str(), r.options["seed"].as_i64().unwrap()))
            .collect();
        assert_eq!(seen, [("a", 5), ("a", 6), ("b", 5), ("b", 6)]);
        let first = &found.requests[0];
        assert_eq!((first.logprobs, first.top_logprobs), (true, 0));
        assert_eq!(
            (&first.options["stop"], &first.options["top_p"]),
            (&json!(["x"]), &json!(1.0))
        );
    }

    #[test]
    fn refusals() {
        assert_eq!(
            refusal(json!({"stop": [1, 2]})),
            "invalid type for 'stop' field: float64"
        );
        assert!(refusal(json!({"prompt": [1, 2]})).contains("tokens"));
        assert!(refusal(json!({"prompt": 5})).contains("number into field prompt"));
        assert!(refusal(json!({"prompt": []})).contains("too short"));
        assert!(refusal(json!({"n": 2, "best_of": 3})).contains("best_of"));
        assert!(refusal(json!({"echo": true, "logprobs": 1})).contains("echo"));
        assert!(translated(json!({"n": 2, "best_of": 2})).is_ok());
        assert_eq!(translate(b"").unwrap_err().message, "EOF");
    }

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
        let mut chunks = Chunks {
            id: "cmpl-1".into(),
            include_usage: true,
            choices: vec![Choice::after("pé".into()), Choice::default()],
            n_prompts: 1,
            done: Done::default(),
        };
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
