//! The same seed gives the same tokens, whatever else is running.

use std::time::Instant;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::models;
use crate::server::Server;

/// Prompts of different lengths, one of several pages and more than a prefill chunk.
fn prompts() -> Vec<String> {
    let mut prompts: Vec<String> = [
        "The capital of France is",
        "Once upon a time, in a small village by the sea,",
        "def fibonacci(n):",
        "1 2 3 4 5",
        "x",
        "The three laws of robotics are",
    ]
    .map(String::from)
    .into();
    prompts.push("The quick brown fox jumps over the lazy dog. ".repeat(60));
    // Shares its first pages with the one before.
    prompts.push("The quick brown fox jumps over the lazy dog. ".repeat(30) + "And then");
    prompts
}

fn options(temperature: f64, i: usize, n_predict: usize) -> Value {
    json!({
        "temperature": temperature, "seed": 100 + i, "num_predict": n_predict,
        "num_ctx": 1024, "top_k": 40, "top_p": 0.95, "repeat_penalty": 1.1,
    })
}

/// What must not change: text, number of tokens, reason.
fn essence(reply: &Value) -> Value {
    json!([
        reply["response"],
        reply["eval_count"],
        reply["done_reason"],
        reply["error"]
    ])
}

/// Each request alone on a fresh server, then all at once, twice: the second time over a cache
/// that holds their prefixes.
async fn alone_equals_together(
    variables: &[(&str, &str)],
    model: &str,
    file: &str,
    n_predict: usize,
) {
    let mut variables = variables.to_vec();
    variables.push(("OLLAMA_NUM_PARALLEL", "8"));
    let path = models::path(file);
    for temperature in [0.0, 0.8] {
        let server = Server::start(&variables);
        server.create(model, &path);
        let mut alone = Vec::new();
        for (i, prompt) in prompts().iter().enumerate() {
            let reply = server
                .generate(model, prompt, &options(temperature, i, n_predict))
                .await;
            assert_eq!(reply.status, 200, "{}\n{}", reply.text, server.log());
            alone.push(essence(&reply.json()));
        }
        let fresh = Server::start(&variables);
        fresh.create(model, &path);
        for round in 0..2 {
            let prompts = prompts();
            let all = prompts.iter().enumerate().map(|(i, prompt)| {
                let options = options(temperature, i, n_predict);
                let fresh = &fresh;
                async move { essence(&fresh.generate(model, prompt, &options).await.json()) }
            });
            let together = join_all(all).await;
            for (i, (together, alone)) in together.iter().zip(&alone).enumerate() {
                assert_eq!(
                    together, alone,
                    "prompt {i} at temperature {temperature}, round {round}"
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_streams_equal_each_alone_on_the_cpu() {
    let file = "smollm2-135m-instruct-q4_1.gguf";
    alone_equals_together(&[], "smollm2", file, 48).await;
}

/// A tiny model, since the software GPU is slow: the scheduler and all kernels are the same.
#[tokio::test(flavor = "multi_thread")]
async fn eight_streams_equal_each_alone_on_the_gpu() {
    let device = ("OLLAMA_WGPU_DEVICE", "0");
    alone_equals_together(&[device], "tiny", "tiny/tiny-llama-q4_k_m.gguf", 24).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_frees_its_place() {
    let server = Server::start(&[("OLLAMA_NUM_PARALLEL", "1")]);
    server.create("smollm2", &models::path("smollm2-135m-instruct-q4_1.gguf"));
    let endless = json!({
        "model": "smollm2", "prompt": "Count:", "raw": true, "options": { "num_predict": -1, "temperature": 0 },
    });
    for _ in 0..3 {
        let client = reqwest::Client::new();
        let request = client
            .post(server.url("/api/generate"))
            .body(endless.to_string());
        let mut response = request.send().await.expect("an answer begins");
        let first = response
            .chunk()
            .await
            .expect("a chunk")
            .expect("not the end");
        assert!(!first.is_empty());
        drop(response);
    }
    let reply = server
        .generate("smollm2", "Hi", &json!({ "num_predict": 2 }))
        .await;
    assert_eq!(reply.status, 200, "{}", reply.text);
}

/// The longest pause of a stream, while another model is loaded beside it and before, in milliseconds.
async fn longest_pauses(server: &Server) -> (u128, u128) {
    let options = json!({ "num_predict": 150, "temperature": 0, "num_ctx": 1024 });
    let body = json!({ "model": "smollm2", "prompt": "Count to a thousand:", "raw": true, "options": options });
    let request = reqwest::Client::new().post(server.url("/api/generate"));
    let mut stream = request
        .body(body.to_string())
        .send()
        .await
        .expect("an answer begins");
    let (mut alone, mut beside) = (0, 0);
    let mut load = None;
    let mut last = Instant::now();
    let mut n_pieces = 0;
    while stream.chunk().await.expect("a piece").is_some() {
        let pause = last.elapsed().as_millis();
        last = Instant::now();
        n_pieces += 1;
        match &load {
            None if n_pieces > 1 => alone = alone.max(pause),
            None => {}
            Some(_) => beside = beside.max(pause),
        }
        if n_pieces == 50 {
            let request = reqwest::Client::new().post(server.url("/api/generate"));
            let body = json!({ "model": "qwen", "stream": false });
            load = Some(tokio::spawn(request.body(body.to_string()).send()));
        }
    }
    let loaded = load
        .expect("begun")
        .await
        .expect("a task")
        .expect("an answer");
    assert_eq!(loaded.status(), 200);
    let unload = json!({ "model": "qwen", "keep_alive": 0 });
    assert_eq!(server.post("/api/generate", &unload).await.status, 200);
    (alone, beside)
}

#[tokio::test(flavor = "multi_thread")]
async fn loading_a_model_hardly_slows_the_stream_of_another() {
    let server = Server::start(&[]);
    server.create("smollm2", &models::path("smollm2-135m-instruct-q4_1.gguf"));
    server.create(
        "qwen",
        &models::path("qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"),
    );
    let mut added = Vec::new();
    // Other programs of the machine make pauses too: the best of some attempts is the server's own.
    for _ in 0..4 {
        let (alone, beside) = longest_pauses(&server).await;
        added.push(beside.saturating_sub(alone));
    }
    assert!(added.iter().min() < Some(&50), "ms added: {added:?}");
}
