//! Chat templates of models that mean harm: an error in bounded time.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::models;
use crate::server::Server;

/// More than a template may take, on a machine that does other things too.
const SOON: Duration = Duration::from_secs(6);

const MODEL: &str = "tiny/tiny-llama.gguf";

/// A model whose chat template is another text.
pub fn model_with_template(source: &str) -> Vec<u8> {
    let mut bytes = std::fs::read(models::path(MODEL)).expect("a model");
    let key = b"tokenizer.chat_template";
    let at = bytes.windows(key.len()).position(|w| w == key);
    let at = at.expect("the model has a chat template") + key.len() + 4;
    let n = usize::try_from(u64::from_le_bytes(
        bytes[at..at + 8].try_into().expect("eight bytes"),
    ))
    .expect("a length");
    assert!(source.len() <= n, "{n} bytes of template");
    bytes[at + 8..at + 8 + n].fill(b' ');
    bytes[at + 8..at + 8 + source.len()].copy_from_slice(source.as_bytes());
    bytes
}

#[tokio::test]
async fn templates_of_models_are_bounded() {
    let server = Server::start(&[]);
    let path = server.home.path().join("model.gguf");
    for source in [
        "{% if %}",
        "{% for i in range(10**9) %}{% for j in range(10**9) %}x{% endfor %}{% endfor %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{{ 'x' * 10**9 }}",
        "{% include 'other' %}",
        "{{ messages.__class__.__mro__ }}",
    ] {
        std::fs::write(&path, model_with_template(source)).expect("write");
        let (created, stderr) = server.try_create("odd", &path);
        if !created {
            assert!(stderr.contains("template"), "{source}: {stderr}");
            continue;
        }
        let body = json!({"model": "odd", "messages": [{"role": "user", "content": "x"}], "stream": false});
        let start = Instant::now();
        let reply = server.post("/api/chat", &body).await;
        assert!(start.elapsed() < SOON, "{source}: {:?}", start.elapsed());
        assert!(
            matches!(reply.status, 400 | 500),
            "{source}: {}",
            reply.text
        );
        assert!(reply.text.contains("template"), "{source}: {}", reply.text);
    }
    let raw = server
        .generate("odd", "x", &json!({"num_predict": 1}))
        .await;
    assert_eq!(raw.status, 200, "{}", server.log());
}
