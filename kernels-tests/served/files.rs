//! Damaged and lying GGUF files, uploaded and pulled: refused by name, in little time and memory, and the server lives on.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::models;
use crate::registry::{Model, digest, pull};
use crate::scripted::Scripted;
use crate::server::{Reply, Server};

fn tiny() -> Vec<u8> {
    std::fs::read(models::path("tiny/tiny-llama.gguf")).expect("a model")
}

/// The file with other bytes from some place on.
fn with(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut file = tiny();
    file[at..at + bytes.len()].copy_from_slice(bytes);
    file
}

/// The file with another 32-bit number as a key's value.
fn with_number(key: &str, value: u32) -> Vec<u8> {
    let file = tiny();
    let at = file.windows(key.len()).position(|w| w == key.as_bytes());
    let at = at.unwrap_or_else(|| panic!("{key} is in the file")) + key.len() + 4;
    with(at, &value.to_le_bytes())
}

/// Uploads a file and makes a model of it; the last line of the answer.
async fn created(server: &Server, file: &[u8], request: &Value) -> Reply {
    let url = server.url(&format!("/api/blobs/{}", digest(file)));
    let sent = reqwest::Client::new().post(url).body(file.to_vec()).send();
    let status = sent.await.expect("an answer").status();
    assert!(status.is_success(), "{status}");
    let mut body = json!({ "model": "x", "files": { "x.gguf": digest(file) }, "stream": false });
    for (key, value) in request.as_object().into_iter().flatten() {
        body[key] = value.clone();
    }
    server.post("/api/create", &body).await
}

/// Headers of every kind of lie.
fn lies() -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for n in [0, 1, 3, 4, 7, 8, 23, 24, 1000] {
        files.push((format!("{n} bytes"), tiny()[..n].to_vec()));
    }
    for magic in [b"GGML", b"gguf", b"FUGG", b"\0\0\0\0"] {
        files.push((format!("magic {magic:?}"), with(0, magic)));
    }
    for version in [0, 1, 4, u32::MAX] {
        files.push((
            format!("version {version}"),
            with(4, &version.to_le_bytes()),
        ));
    }
    for n in [1 << 63, u64::MAX, 1_000_001, 1 << 32, 65_537] {
        for (what, at) in [("tensors", 8), ("keys", 16)] {
            files.push((format!("{n} {what}"), with(at, &n.to_le_bytes())));
        }
    }
    let beyond = tiny().len() as u64 + 1;
    for n in [u64::MAX, 1 << 63, beyond] {
        files.push((format!("a key of {n} bytes"), with(24, &n.to_le_bytes())));
    }
    files
}

#[tokio::test]
async fn lying_headers_are_refused_in_little_memory() {
    let server = Server::start(&[]);
    let before = server.resident_bytes();
    for (what, file) in lies() {
        let start = Instant::now();
        for request in [json!({}), json!({ "quantize": "q8_0" })] {
            let reply = created(&server, &file, &request).await;
            assert!(
                (400..=500).contains(&reply.status),
                "{what}: {}",
                reply.text
            );
            let error = reply.json()["error"].as_str().expect("a text").to_owned();
            let home = server.home.path().to_str().expect("a plain path");
            assert!(!error.contains(home), "{what}: {error}");
        }
        assert!(start.elapsed() < Duration::from_secs(2), "{what}");
    }
    let more = server.resident_bytes().saturating_sub(before);
    assert!(more < 64 << 20, "{more} bytes");
    assert_eq!(server.get("/api/tags").await.json()["models"], json!([]));
}

/// Cut anywhere, a file is refused: also where only bytes of its last tensor are missing, and also where a new file
/// would be written from it.
#[tokio::test]
async fn cut_files_are_refused() {
    let server = Server::start(&[]);
    let whole = tiny();
    for n in 1..=40 {
        let cut = &whole[..whole.len() - 1 - (n * n * n * 31) % (whole.len() - 1)];
        let request = if n % 2 == 0 {
            json!({ "quantize": "q8_0" })
        } else {
            json!({})
        };
        let reply = created(&server, cut, &request).await;
        assert!(
            reply.text.contains("cannot be used"),
            "{} bytes: {}",
            cut.len(),
            reply.text
        );
    }
    assert_eq!(server.get("/api/tags").await.json()["models"], json!([]));
}

/// A header may be right and say what no model can have.
#[tokio::test]
async fn impossible_numbers_are_refused_at_load() {
    let server = Server::start(&[]);
    server.create("good", &models::path("tiny/tiny-llama.gguf"));
    let before = server.resident_bytes();
    for (key, values) in [
        ("llama.block_count", &[0, 1, 513, 100_000, u32::MAX][..]),
        ("llama.embedding_length", &[0, 1, 255, u32::MAX]),
        ("llama.attention.head_count", &[0, 3, 257, u32::MAX]),
        ("llama.attention.head_count_kv", &[0, 3, u32::MAX]),
        ("llama.feed_forward_length", &[0, 7, u32::MAX]),
        ("llama.context_length", &[0]),
    ] {
        for &value in values {
            let file = with_number(key, value);
            let reply = created(&server, &file, &json!({})).await;
            assert_eq!(reply.status, 200, "{key} {value}: {}", reply.text);
            let start = Instant::now();
            let reply = server
                .generate("x", "hi", &json!({ "num_predict": 1 }))
                .await;
            assert!(reply.status >= 400, "{key} {value}: {}", reply.text);
            assert!(start.elapsed() < Duration::from_secs(2), "{key} {value}");
        }
    }
    let more = server.resident_bytes().saturating_sub(before);
    assert!(more < 128 << 20, "{more} bytes");
    let reply = server
        .generate("good", "hi", &json!({ "num_predict": 1 }))
        .await;
    assert_eq!(reply.status, 200, "{}", reply.text);
}

/// What a registry gives is looked at when it is shown or loaded.
#[tokio::test]
async fn pulled_files_are_refused_when_they_are_used() {
    let server = Server::start(&[]);
    server.create("good", &models::path("tiny/tiny-llama.gguf"));
    let short = tiny();
    for file in [
        &b"GGUF"[..],
        &short[..short.len() - 1],
        b"#!/bin/sh\n",
        &with(16, &[0xff; 8]),
    ] {
        let registry = Scripted::start(Model::of(file).answers());
        pull(&server, &registry).await;
        for path in ["/api/show", "/api/generate", "/api/chat"] {
            let body = json!({ "model": registry.name(), "prompt": "x", "messages": [] });
            let reply = server.post(path, &body).await;
            assert_eq!(reply.status, 500, "{path}: {}", reply.text);
            assert!(
                reply.text.contains("cannot be used"),
                "{path}: {}",
                reply.text
            );
        }
        assert_eq!(server.get("/api/tags").await.status, 200);
    }
    let reply = server
        .generate("good", "hi", &json!({ "num_predict": 1 }))
        .await;
    assert_eq!(reply.status, 200, "{}", reply.text);
}
