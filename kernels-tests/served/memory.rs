//! Bounds of resident memory.

use serde_json::json;

use crate::models;
use crate::server::Server;

const MB: u64 = 1_000_000;

#[tokio::test]
async fn an_idle_server_is_small() {
    let server = Server::start(&[]);
    assert_eq!(server.get("/api/version").await.status, 200);
    let resident = server.resident_bytes();
    assert!(resident < 60 * MB, "{} MB", resident / MB);
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
