//! OpenAI's API over a socket: several answers to one request, log-probabilities, streams, counts.

use std::time::Duration;

use serde_json::{Value, json};

use crate::models;
use crate::server::{Server, frames};
use crate::tools::extended;

const SMOLLM2: &str = "smollm2-135m-instruct-q4_1.gguf";

fn server() -> Server {
    let server = Server::start(&[]);
    server.create("smollm2", &models::path(SMOLLM2));
    server
}

fn chat(more: Value) -> Value {
    let mut body = json!({
        "model": "smollm2", "messages": [{"role": "user", "content": "Name a colour."}], "max_completion_tokens": 6,
    });
    let more = more.as_object().expect("members").clone();
    body.as_object_mut().expect("an object").extend(more);
    body
}

/// The texts of a stream's choices, from the member that holds them.
fn texts(frames: &[Value], pointer: &str) -> Vec<String> {
    let mut texts: Vec<String> = Vec::new();
    for choice in frames
        .iter()
        .flat_map(|f| f["choices"].as_array())
        .flatten()
    {
        let index = choice["index"].as_u64().expect("an index") as usize;
        texts.resize(texts.len().max(index + 1), String::new());
        texts[index] += choice
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default();
    }
    texts
}

#[tokio::test]
async fn several_answers_have_a_seed_each() {
    let server = server();
    let ask = async |more: Value| server.post("/v1/chat/completions", &chat(more)).await;
    let three = ask(json!({"n": 3, "seed": 5, "temperature": 1.5}))
        .await
        .json();
    let contents = |reply: &Value| -> Vec<String> {
        let choices = reply["choices"].as_array().expect("choices");
        let text = |c: &Value| c["message"]["content"].as_str().expect("text").to_owned();
        choices.iter().map(text).collect()
    };
    let all = contents(&three);
    for (index, content) in all.iter().enumerate() {
        let alone = ask(json!({"seed": 5 + index, "temperature": 1.5}))
            .await
            .json();
        assert_eq!(contents(&alone), [content.as_str()], "choice {index}");
        assert_eq!(three["choices"][index]["index"], index);
        assert_eq!(
            three["usage"]["prompt_tokens"],
            alone["usage"]["prompt_tokens"]
        );
    }
    assert_eq!(three["usage"]["completion_tokens"], 18);
    let stream = json!({"n": 3, "seed": 5, "temperature": 1.5, "stream": true, "stream_options": {"include_usage": true}});
    let reply = ask(stream).await;
    let frames = frames(&reply.text);
    assert_eq!(texts(&frames, "/delta/content"), all);
    let usage = &frames[frames.len() - 2]["usage"];
    assert_eq!(usage["total_tokens"], three["usage"]["total_tokens"]);
    assert_eq!(frames.last(), Some(&json!("[DONE]")));
    for n in [0, 129, -1] {
        assert_eq!(ask(json!({"n": n})).await.status, 400, "{n}");
    }
}

#[tokio::test]
async fn chat_members_that_openai_defines() {
    let server = server();
    let ask = async |more: Value| server.post("/v1/chat/completions", &chat(more)).await;
    let reply = ask(json!({"logprobs": true, "top_logprobs": 2, "temperature": 0}))
        .await
        .json();
    let entries = reply["choices"][0]["logprobs"]["content"]
        .as_array()
        .expect("log-probabilities");
    assert_eq!(
        (entries.len(), reply["usage"]["completion_tokens"].as_u64()),
        (6, Some(6))
    );
    for entry in entries {
        let top = entry["top_logprobs"].as_array().expect("alternatives");
        assert_eq!((top.len(), &top[0]["token"]), (2, &entry["token"]));
        assert!(entry["logprob"].as_f64().is_some_and(|p| p <= 0.0));
    }
    let refusal = async |more: Value| {
        let reply = ask(more).await;
        let error = reply.json()["error"].clone();
        assert_eq!(
            (reply.status, &error["type"]),
            (400, &json!("invalid_request_error"))
        );
        error["message"].as_str().expect("a text").to_owned()
    };
    let image = json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}]}]);
    assert_eq!(
        refusal(json!({"messages": image})).await,
        "\"smollm2\" does not support images"
    );
    let effort = refusal(json!({"reasoning_effort": "high"})).await;
    assert_eq!(effort, "\"smollm2\" does not support thinking");
    assert!(
        refusal(json!({"top_logprobs": 21}))
            .await
            .contains("top_logprobs")
    );
    assert_eq!(
        server.get("/v1/models/smollm2").await.json()["id"],
        "smollm2"
    );
    assert_eq!(server.get("/v1/models/nosuch").await.status, 404);
}

#[tokio::test]
async fn completions_of_openais_older_api() {
    let server = server();
    let ask = async |more: Value| {
        let mut body = json!({"model": "smollm2", "prompt": "Name a colour.", "max_tokens": 5, "temperature": 0});
        body.as_object_mut()
            .expect("an object")
            .extend(more.as_object().expect("members").clone());
        server.post("/v1/completions", &body).await
    };
    let plain = ask(json!({})).await.json();
    let text = plain["choices"][0]["text"]
        .as_str()
        .expect("text")
        .to_owned();
    assert!(!text.is_empty());
    assert_eq!(
        (&plain["object"], &plain["usage"]["completion_tokens"]),
        (&json!("text_completion"), &json!(5))
    );
    let many = ask(json!({"prompt": ["Name a colour.", "Say hi."], "n": 2, "echo": true}))
        .await
        .json();
    let of = |index: usize| {
        many["choices"][index]["text"]
            .as_str()
            .expect("text")
            .to_owned()
    };
    assert_eq!(
        [of(0), of(1)],
        [
            format!("Name a colour.{text}"),
            format!("Name a colour.{text}")
        ]
    );
    assert!(of(3).starts_with("Say hi."), "{}", of(3));
    assert_eq!(many["usage"]["completion_tokens"], 20);
    let stream =
        ask(json!({"stream": true, "logprobs": 1, "stream_options": {"include_usage": true}}))
            .await;
    let frames = frames(&stream.text);
    assert_eq!(texts(&frames, "/text"), [text.as_str()]);
    let offsets: Vec<u64> = frames
        .iter()
        .filter_map(|f| f.pointer("/choices/0/logprobs/text_offset")?.as_array())
        .flatten()
        .filter_map(Value::as_u64)
        .collect();
    assert!(
        offsets.len() == 5 && offsets[0] == 0 && offsets.is_sorted(),
        "{offsets:?}"
    );
    let usage = &frames[frames.len() - 2];
    assert_eq!(
        (&usage["choices"], &usage["usage"]),
        (&json!([]), &plain["usage"])
    );
    let stopped = ask(json!({"stop": [text.chars().next().expect("a letter").to_string()]}))
        .await
        .json();
    assert_eq!(
        (
            &stopped["choices"][0]["text"],
            &stopped["choices"][0]["finish_reason"]
        ),
        (&json!(""), &json!("stop"))
    );
}

#[tokio::test]
async fn a_bias_moves_tokens_on_both_of_openais_apis() {
    let server = server();
    let options = json!({"temperature": 0, "num_predict": 1});
    let native =
        json!({"model": "smollm2", "prompt": "Say hi.", "stream": false, "options": options});
    let native = server.post("/api/generate", &native).await.json();
    let word = native["response"].as_str().expect("text").to_owned();
    let tokens = native["context"].as_array().expect("tokens");
    let id = tokens.last().expect("one").to_string();
    let with = |bias: Value| json!({"temperature": 0, "max_tokens": 3, "max_completion_tokens": 3, "logit_bias": bias});
    let older = async |more: Value| {
        let body = json!({"model": "smollm2", "prompt": "Name a colour."});
        server.post("/v1/completions", &extended(body, &more)).await
    };
    let newer = async |more: Value| server.post("/v1/chat/completions", &chat(more)).await;
    let said = newer(with(json!({ id.as_str(): 100 }))).await.json();
    let written = older(with(json!({ id.as_str(): 100 }))).await.json();
    assert_eq!(said["choices"][0]["message"]["content"], word.repeat(3));
    assert_eq!(written["choices"][0]["text"], word.repeat(3));
    let never = json!({"prompt": "Say hi.", "logit_bias": { id.as_str(): -100 }, "temperature": 0, "max_tokens": 1});
    let never = older(never).await.json();
    assert_ne!(never["choices"][0]["text"], word.as_str());
    for bad in [
        json!({"99999999": 1}),
        json!({"x": 1}),
        json!({"1": 101}),
        json!([1]),
    ] {
        for reply in [
            newer(with(bad.clone())).await,
            older(with(bad.clone())).await,
        ] {
            assert_eq!(reply.status, 400, "{bad}: {}", reply.text);
            assert!(reply.text.contains("logit_bias"), "{}", reply.text);
        }
    }
}

/// All choices use the model that the first one got: one that waited for the model again would wait for a reload, and that for it.
#[tokio::test(flavor = "multi_thread")]
async fn choices_do_not_wait_behind_a_reload() {
    let server = Server::start(&[("OLLAMA_NUM_PARALLEL", "4")]);
    server.create("tiny", &models::path("tiny/tiny-llama-q4_k_m.gguf"));
    let several = async |path: &str, more: Value| {
        for _ in 0..20 {
            let mut body = json!({"model": "tiny", "max_tokens": 2, "n": 16});
            body.as_object_mut()
                .expect("an object")
                .extend(more.as_object().expect("members").clone());
            let reply = server.post(path, &body).await;
            assert_eq!(reply.status, 200, "{}", reply.text);
            assert_eq!(reply.json()["choices"].as_array().map(Vec::len), Some(16));
        }
    };
    let reloads = async {
        for round in 0..40 {
            let options = json!({"num_ctx": 64 + 64 * (round % 2), "num_predict": 1});
            assert_eq!(server.generate("tiny", "a", &options).await.status, 200);
        }
    };
    let messages = json!({"messages": [{"role": "user", "content": "a"}]});
    let all = async {
        tokio::join!(
            several("/v1/chat/completions", messages),
            several("/v1/completions", json!({"prompt": "a"})),
            reloads
        )
    };
    let ended = tokio::time::timeout(Duration::from_secs(60), all).await;
    ended.unwrap_or_else(|_| panic!("requests wait for each other:\n{}", server.log()));
}
