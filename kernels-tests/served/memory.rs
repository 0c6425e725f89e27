//! Bounds of resident memory.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;

use crate::models;
use crate::server::Server;

const MB: u64 = 1_000_000;

#[tokio::test]
async fn an_idle_server_is_small() {
    let server = Server::start(&[]);
    assert_eq!(server.get("/api/version").await.status, 200);
    let resident = server.resident_bytes();
    assert!(resident < 25 * MB, "{} MB", resident / MB);
}

/// What many requests at once have touched goes back with their models, whichever threads had it.
#[tokio::test(flavor = "multi_thread")]
async fn unloaded_models_leave_nothing_behind() {
    let server = Server::start(&[("OLLAMA_NUM_PARALLEL", "4")]);
    let names = [models::REAL[0], models::REAL[2]];
    for name in names {
        server.create(name, &models::path(name));
    }
    let idle = server.resident_bytes();
    let long = "The quick brown fox jumps over the lazy dog. ".repeat(40);
    let requests = (0..12).map(|i| {
        let mut body = json!({
            "model": names[i % 2], "options": {"num_predict": 8}, "stream": i % 2 == 0,
            "messages": [{"role": "user", "content": &long[i * 10..]}],
        });
        if i % 3 == 0 {
            body["format"] = json!({"type": "object", "properties": {"a": {"type": "integer"}}});
        }
        let server = &server;
        async move { assert_eq!(server.post("/api/chat", &body).await.status, 200) }
    });
    join_all(requests).await;
    for name in names {
        let unload = json!({"model": name, "keep_alive": 0});
        assert_eq!(server.post("/api/generate", &unload).await.status, 200);
    }
    let begun = Instant::now();
    loop {
        let more = server.resident_bytes().saturating_sub(idle);
        if more < 30 * MB {
            return;
        }
        let patience = Duration::from_secs(10);
        assert!(begun.elapsed() < patience, "{} MB stayed", more / MB);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn the_cpu_backend_adds_little_to_the_model() {
    for name in models::REAL {
        let server = Server::start(&[]);
        let path = models::path(name);
        server.create("model", &path);
        let prompt = "The quick brown fox jumps over the lazy dog. ".repeat(150);
        let options = json!({ "num_ctx": 2048, "num_predict": 40, "temperature": 0 });
        let reply = server.generate("model", &prompt, &options).await;
        assert_eq!(reply.status, 200, "{name}: {}", reply.text);
        let bound = std::fs::metadata(&path).expect("the model").len() + 150 * MB;
        let resident = server.resident_bytes();
        assert!(
            resident < bound,
            "{name}: {} MB of {} MB",
            resident / MB,
            bound / MB
        );
    }
}
