//! Folders of safetensors: `create` on the command line and over a socket, then answers.

use std::fs;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::models;
use crate::server::{Server, binary};

async fn chat(server: &Server, model: &str) -> Value {
    let reply = server
        .post(
            "/api/chat",
            &json!({
                "model": model, "stream": false, "options": { "temperature": 0, "num_predict": 12 },
                "messages": [{ "role": "user", "content": "The harbour lights" }],
            }),
        )
        .await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    reply.json()["message"]["content"].clone()
}

#[tokio::test]
async fn a_folder_answers_as_the_file_it_was_made_from() {
    let server = Server::start(&[]);
    let (is_made, text) = server.try_create("folder", &models::path("checkpoints/llama"));
    assert!(is_made, "{text}");
    assert!(
        text.contains("converting model") && text.contains("success"),
        "{text}"
    );
    server.create("file", &models::path("tiny/tiny-llama.gguf"));
    assert_eq!(chat(&server, "folder").await, chat(&server, "file").await);
    let shown = server
        .post("/api/show", &json!({ "model": "folder" }))
        .await
        .json();
    assert_eq!(shown["details"]["family"], "llama");
    assert_eq!(shown["details"]["quantization_level"], "F16");
    assert!(
        shown["template"]
            .as_str()
            .is_some_and(|template| template.contains("start_header_id")),
        "{shown}"
    );

    server.create("bert", &models::path("checkpoints/bert"));
    server.create("bert-file", &models::path("tiny/tiny-bert.gguf"));
    let mut vectors = Vec::new();
    for model in ["bert", "bert-file"] {
        let reply = server
            .post(
                "/api/embed",
                &json!({ "model": model, "input": "the other boat" }),
            )
            .await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        vectors.push(reply.json()["embeddings"].clone());
    }
    assert_eq!(vectors[0], vectors[1]);
}

#[tokio::test]
async fn a_folder_is_quantised_by_the_command_line() {
    let server = Server::start(&[]);
    // Without a Modelfile, the folder is the model.
    let run = binary()
        .args(["create", "small", "-q", "q8_0"])
        .current_dir(models::path("checkpoints/qwen3"))
        .env("HOME", server.home.path())
        .env("OLLAMA_HOST", &server.address)
        .output()
        .expect("the program runs");
    let text = String::from_utf8_lossy(&run.stderr).into_owned();
    assert!(run.status.success(), "{text}");
    assert!(
        chat(&server, "small")
            .await
            .as_str()
            .is_some_and(|text| !text.is_empty())
    );
    let shown = server
        .post("/api/show", &json!({ "model": "small" }))
        .await
        .json();
    assert_eq!(shown["details"]["quantization_level"], "Q8_0");
}

/// Uploads a checkpoint's files as a client does, and asks for a model of them.
async fn post(server: &Server, config: &Value) -> (u16, Vec<Value>) {
    let client = reqwest::Client::new();
    let folder = models::path("checkpoints/llama");
    let mut files = serde_json::Map::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        let bytes = match name.as_str() {
            "config.json" => config.to_string().into_bytes(),
            _ => fs::read(&path).expect("it can be read"),
        };
        let digest = format!("sha256:{}", hex::encode(Sha256::digest(&bytes)));
        let upload = client
            .post(server.url(&format!("/api/blobs/{digest}")))
            .body(bytes)
            .send()
            .await;
        assert_eq!(upload.expect("an answer").status(), 201);
        files.insert(name, digest.into());
    }
    let reply = server
        .post("/api/create", &json!({ "model": "m", "files": files }))
        .await;
    let lines = reply
        .text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"));
    (reply.status, lines.collect())
}

#[tokio::test]
async fn a_request_names_uploaded_files() {
    let config = fs::read(models::path("checkpoints/llama").join("config.json")).expect("settings");
    let config: Value = serde_json::from_slice(&config).expect("JSON");
    let server = Server::start(&[]);
    let (status, lines) = post(&server, &config).await;
    assert_eq!(
        (status, &lines[0]),
        (200, &json!({ "status": "converting model" }))
    );
    assert_eq!(lines.last(), Some(&json!({ "status": "success" })));
    assert!(chat(&server, "m").await.is_string());

    let server = Server::start(&[]);
    let mut unknown = config.clone();
    unknown["architectures"] = json!(["OtherForCausalLM"]);
    let (_, lines) = post(&server, &unknown).await;
    let error = lines
        .last()
        .and_then(|line| line["error"].as_str())
        .unwrap_or_default();
    assert!(
        error.starts_with("unsupported architecture \"OtherForCausalLM\""),
        "{lines:?}"
    );
    assert_eq!(server.get("/api/tags").await.json()["models"], json!([]));
}
