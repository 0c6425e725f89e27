//! Bad input gets a message that names the thing and the remedy, and the server lives on.

use ollama_wgpu::gguf::Gguf;
use serde_json::{Value, json};

use crate::models;
use crate::server::{Server, binary};

const SMOLLM2: &str = "smollm2-135m-instruct-q4_1.gguf";

async fn still_serves(server: &Server) {
    assert_eq!(
        server.get("/api/tags").await.status,
        200,
        "{}",
        server.log()
    );
}

/// Status and error text of a request.
async fn refusal(server: &Server, path: &str, body: &Value) -> (u16, String) {
    let reply = server.post(path, body).await;
    let error = reply.json()["error"].clone();
    (reply.status, error.as_str().unwrap_or_default().to_string())
}

#[tokio::test]
async fn a_truncated_file_is_named_as_such() {
    let server = Server::start(&[]);
    let bytes = std::fs::read(models::path("tiny/tiny-llama.gguf")).expect("a model");
    let path = server.home.path().join("short.gguf");
    for n in [10, 1000, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..n]).expect("write");
        let (created, stderr) = server.try_create("short", &path);
        assert!(!created, "{n} bytes were accepted");
        assert!(stderr.contains("Error"), "{stderr}");
    }
    still_serves(&server).await;
}

/// A tiny model in which one tensor claims another type.
fn model_with_type(number: u32) -> Vec<u8> {
    let mut bytes = std::fs::read(models::path("tiny/tiny-llama-q8_0.gguf")).expect("a model");
    let name = b"blk.0.attn_q.weight";
    let at = bytes.windows(name.len()).position(|w| w == name);
    // Two extents and their count stand between name and type.
    let at = at.expect("the tensor is in the directory") + name.len() + 4 + 16;
    assert_eq!(bytes[at..at + 4], 8u32.to_le_bytes(), "Q8_0");
    bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
    bytes
}

#[tokio::test]
async fn unsupported_types_are_refused_by_name() {
    let server = Server::start(&[]);
    let path = server.home.path().join("model.gguf");
    for (number, name) in [(9, "Q8_1"), (26, "I32"), (99, "number 99")] {
        std::fs::write(&path, model_with_type(number)).expect("write");
        refused_by_name(&server, "unsupported", &path, name).await;
    }
    still_serves(&server).await;
}

#[tokio::test]
async fn unsupported_files_are_refused_by_name() {
    let server = Server::start(&[]);
    let mut unknown = std::fs::read(models::path("tiny/tiny-llama.gguf")).expect("a model");
    let key = b"general.architecture";
    let at = unknown.windows(key.len()).position(|w| w == key);
    // The value follows the key, its type and its length.
    let at = at.expect("the key") + key.len() + 12;
    unknown[at..at + 5].copy_from_slice(b"lorem");
    let path = server.home.path().join("unknown.gguf");
    std::fs::write(&path, unknown).expect("write");
    refused_by_name(&server, "unknown", &path, "lorem").await;
    still_serves(&server).await;
}

/// SmolLM2 whose file says that it was trained for this many tokens: 23 KB of cache each.
fn with_trained_context(server: &Server, n: u32) -> std::path::PathBuf {
    let mut bytes = std::fs::read(models::path(SMOLLM2)).expect("a model");
    let key = b"llama.context_length";
    let at = bytes.windows(key.len()).position(|w| w == key);
    // After the key: the value's type, four bytes, then a 32-bit number.
    let value = at.expect("the key") + key.len() + 4;
    bytes[value..value + 4].copy_from_slice(&n.to_le_bytes());
    let path = server.home.path().join("long.gguf");
    std::fs::write(&path, bytes).expect("write");
    path
}

/// A file is refused when it is imported or when it is loaded, with a message that says `name`.
async fn refused_by_name(server: &Server, model: &str, path: &std::path::Path, name: &str) {
    let (created, mut message) = server.try_create(model, path);
    if created {
        let body = json!({ "model": model, "prompt": "x" });
        let (status, error) = refusal(server, "/api/generate", &body).await;
        assert!(status >= 400, "{model}: {status}");
        message = error;
    }
    assert!(message.contains(name), "{model}: {message}");
}

#[tokio::test]
async fn a_context_beyond_memory_is_refused() {
    let server = Server::start(&[]);
    server.create("long", &with_trained_context(&server, 16_000_000));
    let request = |n_ctx: u64| {
        let options = json!({ "num_ctx": n_ctx, "num_predict": 1 });
        json!({ "model": "long", "prompt": "x", "stream": false, "options": options })
    };
    let (status, error) = refusal(&server, "/api/generate", &request(16_000_000)).await;
    assert_eq!(status, 500, "{error}");
    assert!(error.contains("num_ctx 16000000"), "{error}");
    assert!(error.contains("lower num_ctx"), "{error}");
    let reply = server.post("/api/generate", &request(512)).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    still_serves(&server).await;
}

#[tokio::test]
async fn wrong_requests_say_what_is_wrong() {
    let server = Server::start(&[]);
    server.create("smollm2", &models::path(SMOLLM2));
    let (status, error) = refusal(&server, "/api/generate", &json!({ "model": "nosuch" })).await;
    assert_eq!((status, error.as_str()), (404, "model 'nosuch' not found"));
    let wrong = json!({ "model": "smollm2", "options": { "temperature": "hot" }, "prompt": "x" });
    let (_, error) = refusal(&server, "/api/generate", &wrong).await;
    assert!(error.contains("temperature"), "{error}");
    let (status, error) = refusal(&server, "/api/chat", &json!({ "model": 5 })).await;
    assert_eq!(status, 400, "{error}");
    let empty = json!({ "model": "smollm2", "prompt": "", "stream": false });
    let reply = server.post("/api/generate", &empty).await;
    assert_eq!(reply.json()["done_reason"], "load");
    still_serves(&server).await;
}

#[tokio::test]
async fn an_unknown_device_lists_those_there_are() {
    let output = binary()
        .args(["debug", "logits", "--tokens", "1", "--device", "warp drive"])
        .arg(models::path(SMOLLM2))
        .output()
        .expect("it runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(
        stderr.contains("warp drive") && stderr.contains("cpu"),
        "{stderr}"
    );
}

#[tokio::test]
async fn without_a_vulkan_driver_the_cpu_serves() {
    let missing = ("VK_DRIVER_FILES", "/nonexistent/icd.json");
    let server = Server::start(&[missing, ("OLLAMA_WGPU_DEVICE", "")]);
    server.create("smollm2", &models::path(SMOLLM2));
    let reply = server
        .generate("smollm2", "Hi", &json!({ "num_predict": 1 }))
        .await;
    assert_eq!(reply.status, 200, "{}", reply.text);
}

#[test]
fn a_port_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address").to_string();
    let home = tempfile::tempdir().expect("a folder");
    let output = binary()
        .arg("serve")
        .env("OLLAMA_HOST", &address)
        .env("HOME", home.path())
        .env("OLLAMA_MODELS", home.path())
        .env("OLLAMA_WGPU_DEVICE", "cpu")
        .output()
        .expect("it runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains(&address), "{stderr}");
}

#[tokio::test]
async fn texts_to_embed_of_every_kind() {
    let server = Server::start(&[]);
    server.create("bert", &models::path("tiny/tiny-bert.gguf"));
    let embed = async |body: Value| {
        let reply = server.post("/api/embed", &body).await;
        (reply.status, reply.json())
    };
    for input in [
        json!(7),
        json!([[1, 2]]),
        json!({"text": "x"}),
        json!(["a", 5]),
    ] {
        let (status, reply) = embed(json!({ "model": "bert", "input": input })).await;
        assert_eq!(
            (status, &reply["error"]),
            (400, &json!("invalid input type"))
        );
    }
    let vectors = |reply: &Value| reply["embeddings"].as_array().map_or(0, Vec::len);
    let many: Vec<String> = (0..2000).map(|i| format!("text {i}")).collect();
    let (status, reply) = embed(json!({ "model": "bert", "input": many })).await;
    assert_eq!((status, vectors(&reply)), (200, 2000));
    let more = json!({ "model": "bert", "input": vec!["a"; 100_000], "dimensions": 1 });
    let (status, reply) = embed(more).await;
    assert_eq!((status, vectors(&reply)), (200, 100_000));
    let most = (1 << 27) / 256;
    let too_many = json!({ "model": "bert", "input": vec!["a"; most + 1] });
    let why = format!(
        "too many texts: {}, and this model embeds {most} at a time",
        most + 1
    );
    assert_eq!(refusal(&server, "/api/embed", &too_many).await, (400, why));
    for (dimensions, n) in [
        (0, 256),
        (-1, 256),
        (1_000_000_000, 256),
        (256, 256),
        (1, 1),
    ] {
        let body = json!({ "model": "bert", "input": ["a", ""], "dimensions": dimensions });
        let (status, reply) = embed(body).await;
        assert_eq!((status, vectors(&reply)), (200, 2));
        assert_eq!(reply["embeddings"][0].as_array().map(Vec::len), Some(n));
    }
    let huge = "word ".repeat(100_000);
    let (status, reply) = embed(json!({ "model": "bert", "input": huge })).await;
    assert_eq!((status, &reply["prompt_eval_count"]), (200, &json!(128)));
    let whole = json!({ "model": "bert", "input": huge, "truncate": false });
    let too_long = "the input length exceeds the context length";
    assert_eq!(
        refusal(&server, "/api/embed", &whole).await,
        (400, too_long.into())
    );
    let with = |num_ctx: i64| {
        let options = json!({ "num_ctx": num_ctx });
        json!({ "model": "bert", "input": "four words of text", "options": options })
    };
    let no_room = "input after truncation exceeds maximum context length";
    assert_eq!(
        refusal(&server, "/api/embed", &with(1)).await,
        (400, no_room.into())
    );
    let still = "input exceeds maximum context length and cannot be truncated further";
    assert_eq!(
        refusal(&server, "/api/embed", &with(0)).await,
        (400, still.into())
    );
}

/// Weights that are numbers, and vectors that are none: the last norm's factors are too large.
#[tokio::test]
async fn vectors_that_are_no_numbers_are_refused() {
    let server = Server::start(&[]);
    let path = models::path("tiny/tiny-bert.gguf");
    server.create("good", &path);
    let mut bytes = std::fs::read(&path).expect("a model");
    let gguf = Gguf::open(&path).expect("a model");
    let norm = gguf.tensor("blk.1.layer_output_norm.weight");
    let norm = norm.expect("the last norm");
    for factor in bytes[norm.offset as usize..][..norm.bytes as usize].chunks_exact_mut(4) {
        factor.copy_from_slice(&f32::MAX.to_le_bytes());
    }
    let path = server.home.path().join("beyond.gguf");
    std::fs::write(&path, bytes).expect("write");
    server.create("beyond", &path);
    for (path, member, status) in [
        ("/api/embed", json!({ "input": "x" }), 400),
        ("/api/embed", json!({ "input": ["x", "y"] }), 400),
        ("/api/embeddings", json!({ "prompt": "x" }), 500),
    ] {
        let mut body = member;
        body["model"] = json!("beyond");
        let text = "embedding contains NaN or Inf values".to_owned();
        assert_eq!(refusal(&server, path, &body).await, (status, text));
        body["model"] = json!("good");
        assert_eq!(server.post(path, &body).await.status, 200, "{body}");
    }
}
