//! `serve --public`: others may ask models, and change none unless the user says so.

use reqwest::{Client, Method};
use serde_json::{Value, json};

use crate::models;
use crate::registry::{Model, digest};
use crate::scripted::Scripted;
use crate::server::{Server, binary};

const KEY: &str = "alpha";

/// Status and body of a request with the key.
async fn ask(server: &Server, method: &str, path: &str, body: Value) -> (u16, String) {
    let method = method.parse::<Method>().expect("a method");
    let request = Client::new().request(method, server.url(path));
    let request = request.bearer_auth(KEY).body(body.to_string());
    let reply = request.send().await.expect("an answer");
    let status = reply.status().as_u16();
    (status, reply.text().await.expect("a body"))
}

#[tokio::test]
async fn callers_of_a_public_server_change_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let keys = folder.path().join("keys");
    std::fs::write(&keys, KEY).expect("write");
    let listed = Scripted::start(Model::tiny().answers());
    let other = Scripted::start(Model::tiny().answers());
    let server = Server::start_with(
        &["--public"],
        &[
            ("OLLAMA_WGPU_API_KEYS_FILE", keys.to_str().expect("a path")),
            ("OLLAMA_WGPU_REGISTRIES", &listed.address),
        ],
    );
    let model = listed.name();
    let pull = |name: &str| json!({ "model": name, "insecure": true });
    let without_key = server.post("/api/pull", &pull(&model)).await;
    assert_eq!(without_key.status, 401);
    assert!(listed.asked().is_empty());
    let (status, lines) = ask(&server, "POST", "/api/pull", pull(&model)).await;
    assert!(
        status == 200 && lines.ends_with("{\"status\":\"success\"}\n"),
        "{lines}"
    );
    let tags = async || ask(&server, "GET", "/api/tags", json!(null)).await;
    let before = tags().await;
    assert!(before.1.contains(&model), "{before:?}");

    let upload = format!("/api/blobs/{}", digest(b"\"data\""));
    let rows = [
        (
            "POST",
            "/api/create",
            json!({ "model": "m", "from": model }),
        ),
        (
            "POST",
            "/api/create",
            json!({ "model": "m", "from": model, "stream": false }),
        ),
        (
            "POST",
            "/api/copy",
            json!({ "source": model, "destination": "m" }),
        ),
        ("DELETE", "/api/delete", json!({ "model": model })),
        (
            "POST",
            "/api/push",
            json!({ "model": model, "insecure": true }),
        ),
        ("POST", &upload, json!("data")),
        ("POST", "/api/pull", pull(&other.name())),
        ("POST", "/api/pull", pull("127.0.0.1:1/a/b")),
        (
            "POST",
            "/api/pull",
            json!({ "model": "llama3.2", "stream": false }),
        ),
    ];
    for (method, path, body) in rows {
        let (status, text) = ask(&server, method, path, body.clone()).await;
        assert_eq!(status, 403, "{method} {path} {body}: {text}");
        let error: Value = serde_json::from_str(&text).expect("JSON");
        let error = error["error"].as_str().expect("a text");
        assert!(error.starts_with("this server "), "{path}: {error}");
    }
    assert!(other.asked().is_empty());
    assert_eq!(ask(&server, "HEAD", &upload, json!(null)).await.0, 404);
    assert_eq!(tags().await, before);

    let few = json!({ "num_predict": 2 });
    let raw = json!({ "model": model, "prompt": "a b", "raw": true, "options": few });
    assert_eq!(ask(&server, "POST", "/api/generate", raw).await.0, 200);
    let completion = json!({ "model": model, "prompt": "a b", "max_tokens": 2 });
    assert_eq!(
        ask(&server, "POST", "/v1/completions", completion).await.0,
        200
    );
}

#[tokio::test]
async fn changes_are_for_everyone_where_the_user_says_so() {
    let near = Scripted::start(Model::tiny().answers());
    let flags = ["--public", "--without-keys", "--allow-changes"];
    let server = Server::start_with(&flags, &[]);
    server.create("tiny", &models::path("tiny/tiny-llama.gguf"));
    let deleted = ask(&server, "DELETE", "/api/delete", json!({ "model": "tiny" })).await;
    assert_eq!(deleted, (200, String::new()));
    // Nobody is known, so this network stays closed.
    let pulled = json!({ "model": near.name(), "insecure": true });
    let (status, text) = ask(&server, "POST", "/api/pull", pulled).await;
    assert!(
        status == 403 && text.contains("of this server's network"),
        "{text}"
    );
    assert!(near.asked().is_empty());
}

#[test]
fn a_public_server_without_keys_does_not_start_by_oversight() {
    let folder = tempfile::tempdir().expect("a folder");
    for (flags, part) in [
        (
            &["--public"][..],
            "or add --without-keys to answer everyone",
        ),
        (
            &["--public", "--allow-changes"],
            "set OLLAMA_WGPU_API_KEYS_FILE",
        ),
        (&["--without-keys"], "go with --public"),
        (&["--public", "here"], "accepts 0 arg(s), received 1"),
    ] {
        let mut command = binary();
        command.arg("serve").args(flags).env("HOME", folder.path());
        command.env("OLLAMA_HOST", "127.0.0.1:0");
        let output = command.output().expect("it runs");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && text.contains(part),
            "{flags:?}: {text}"
        );
    }
    let help = binary()
        .args(["serve", "--help"])
        .output()
        .expect("it runs");
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    for flag in ["--public", "--without-keys", "--allow-changes"] {
        assert!(help.contains(flag), "{help}");
    }
}
