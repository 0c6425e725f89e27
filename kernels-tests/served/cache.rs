//! `OLLAMA_KV_CACHE_TYPE`: a smaller cache answers too, and the log says where it cannot be had.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::models;
use crate::server::Server;

/// A server that has answered from a tiny model with a cache of this type.
async fn answered(kv_type: &str, model: &str) -> Server {
    let server = Server::start(&[("OLLAMA_KV_CACHE_TYPE", kv_type)]);
    server.create("tiny", &models::path(&format!("tiny/{model}.gguf")));
    let options = json!({ "num_predict": 40, "temperature": 0 });
    let reply = server.generate("tiny", "one two three", &options).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert!(
        reply.json()["eval_count"].as_u64() > Some(0),
        "{}",
        reply.text
    );
    server
}

/// Waits for a line of the log: it comes by another way than the answer.
fn wait_for_log(server: &Server, words: &[&str]) {
    let start = Instant::now();
    while !words.iter().all(|word| server.log().contains(word)) {
        let waited = start.elapsed();
        assert!(waited < Duration::from_secs(5), "{}", server.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[tokio::test]
async fn each_type_takes_less_memory_than_the_one_before() {
    let mut before = u64::MAX;
    for kv_type in ["f32", "f16", "Q8_0", "q4_0"] {
        let server = answered(kv_type, "tiny-llama").await;
        let running = server.get("/api/ps").await.json();
        let size = running["models"][0]["size"].as_u64().expect("a size");
        assert!(size < before, "{kv_type}: {size} is not below {before}");
        before = size;
        assert!(!server.log().contains("WARN"), "{}", server.log());
    }
}

#[tokio::test]
async fn an_unknown_type_is_reported() {
    let server = answered("q5_1", "tiny-llama").await;
    wait_for_log(&server, &["OLLAMA_KV_CACHE_TYPE", "q5_1", "f16 is used"]);
}

#[tokio::test]
async fn heads_that_are_not_whole_blocks_are_reported() {
    let server = answered("q8_0", "tiny-llama-odd").await;
    wait_for_log(&server, &["q8_0", "blocks of 32", "f16 instead"]);
}
