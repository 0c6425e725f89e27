//! ADAPTER: a model with a LoRA adapter is made, shown and run, and its base stays what it was.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::models;
use crate::server::Server;

fn tiny(name: &str) -> PathBuf {
    models::path(&format!("tiny/{name}.gguf"))
}

/// Makes a model of another one with an adapter: whether it worked, and what was printed.
fn adapt(server: &Server, name: &str, from: &str, adapter: &Path) -> (bool, String) {
    let text = format!("FROM {from}\nADAPTER {}\n", adapter.display());
    server.try_create_from(name, &text)
}

async fn answer(server: &Server, model: &str) -> Value {
    let message = json!({ "role": "user", "content": "one two three" });
    let body = json!({
        "model": model, "messages": [message], "stream": false,
        "options": { "temperature": 0, "num_predict": 12, "num_ctx": 256 },
    });
    let reply = server.post("/api/chat", &body).await;
    assert_eq!(reply.status, 200, "{}\n{}", reply.text, server.log());
    reply.json()["message"]["content"].clone()
}

async fn modelfile(server: &Server, model: &str) -> String {
    let shown = server.post("/api/show", &json!({ "model": model })).await;
    let shown = shown.json();
    assert_eq!(shown["capabilities"], json!(["completion"]));
    shown["modelfile"].as_str().expect("a text").to_owned()
}

#[tokio::test]
async fn an_adapter_changes_its_model_alone() {
    for device in ["cpu", "llvmpipe"] {
        let server = Server::start(&[("OLLAMA_WGPU_DEVICE", device)]);
        server.create("base", &tiny("tiny-llama-q4_k_m"));
        let before = answer(&server, "base").await;
        let lora = tiny("tiny-llama-q4_k_m-lora");
        let (done, printed) = adapt(&server, "adapted", "base", &lora);
        assert!(done, "{printed}");
        let adapted = answer(&server, "adapted").await;
        assert_ne!(adapted, before);
        assert_eq!(answer(&server, "base").await, before);
        assert_eq!(answer(&server, "adapted").await, adapted);
        // The same adapter once more.
        let (done, printed) = adapt(&server, "twice", "adapted", &lora);
        assert!(done, "{printed}");
        assert_ne!(answer(&server, "twice").await, adapted);
        let lines = async |model| {
            modelfile(&server, model)
                .await
                .matches("\nADAPTER /")
                .count()
        };
        assert_eq!(
            [
                lines("base").await,
                lines("adapted").await,
                lines("twice").await
            ],
            [0, 1, 2]
        );
        // The Modelfile that show prints makes the model again, but for the chat template of the weights.
        let text = modelfile(&server, "adapted").await;
        let (done, printed) = server.try_create_from("again", &text);
        assert!(done, "{printed}");
        let raw = async |model| {
            let options = json!({ "temperature": 0, "num_predict": 12, "num_ctx": 256 });
            server
                .generate(model, "one two three", &options)
                .await
                .json()["response"]
                .clone()
        };
        assert_eq!(raw("again").await, raw("adapted").await);
        assert_ne!(raw("again").await, raw("base").await);
    }
}

#[tokio::test]
async fn adapters_that_do_not_fit_are_refused_at_create() {
    let server = Server::start(&[]);
    server.create("base", &tiny("tiny-llama-q4_k_m"));
    let cut = server.home.path().join("cut.gguf");
    let whole = std::fs::read(tiny("tiny-llama-lora")).expect("it can be read");
    std::fs::write(&cut, &whole[..whole.len() / 2]).expect("it can be written");
    for (adapter, message) in [
        (tiny("tiny-qwen2-lora"), "the architecture 'qwen2'"),
        (tiny("tiny-llama"), "\"adapter\" is needed"),
        (cut, "truncated or damaged"),
        (server.home.path().join("models"), "is a folder"),
    ] {
        let (done, printed) = adapt(&server, "m", "base", &adapter);
        assert!(!done && printed.contains(message), "{printed}");
    }
    let shown = server.post("/api/show", &json!({ "model": "m" })).await;
    assert_eq!(shown.status, 404, "{}", shown.text);
    // What fits in shape and can still not be applied fails when the model is loaded.
    let norm = server.home.path().join("norm.gguf");
    std::fs::write(&norm, norm_adapter()).expect("it can be written");
    let (done, printed) = adapt(&server, "norm", "base", &norm);
    assert!(done, "{printed}");
    let reply = server.generate("norm", "a", &json!({})).await;
    assert_eq!(reply.status, 500, "{}", reply.text);
    assert!(
        reply.text.contains("blk.0.attn_norm.weight"),
        "{}",
        reply.text
    );
}

/// An adapter for a norm.
fn norm_adapter() -> Vec<u8> {
    use ollama_wgpu::gguf::Header;
    use ollama_wgpu::quant::QuantType;
    let mut header = Header::default();
    header.string("general.architecture", "llama");
    header.string("general.type", "adapter");
    header.string("adapter.type", "lora");
    let tensor = "blk.0.attn_norm.weight";
    header.tensor(&format!("{tensor}.lora_a"), &[256, 8], QuantType::F32);
    header.tensor(&format!("{tensor}.lora_b"), &[8, 1], QuantType::F32);
    let mut bytes = Vec::new();
    header.write(&mut bytes).expect("memory takes all");
    bytes.resize(bytes.len() + 4 * (256 * 8 + 8), 0);
    bytes
}
