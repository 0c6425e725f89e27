//! What the store makes of names, of models made of others, and of changes beside it.

use serde_json::{Value, json};

use super::{TINY, asked, server_with};
use crate::server::Server;

async fn names(server: &Server) -> Vec<String> {
    let tags = server.get("/api/tags").await.json();
    let models = tags["models"].as_array().expect("models").iter();
    models
        .map(|m| m["name"].as_str().expect("a name").to_owned())
        .collect()
}

async fn delete(server: &Server, body: Value) -> u16 {
    let request = reqwest::Client::new().delete(server.url("/api/delete"));
    request
        .body(body.to_string())
        .send()
        .await
        .expect("an answer")
        .status()
        .as_u16()
}

/// Files of the store below a folder of it.
fn stored(server: &Server, folder: &str) -> Vec<String> {
    let mut open = vec![server.home.path().join("models").join(folder)];
    let mut files = Vec::new();
    while let Some(path) = open.pop() {
        for entry in std::fs::read_dir(path).expect("a folder").flatten() {
            match entry.path().is_dir() {
                true => open.push(entry.path()),
                false => files.push(entry.path().display().to_string()),
            }
        }
    }
    files.sort();
    files
}

#[tokio::test]
async fn names_in_any_letter_case_are_one_model() {
    let server = server_with(&[TINY], &[]);
    asked(
        &server,
        "/api/create",
        json!({ "model": "TiNy", "from": "TINY", "system": "a", "stream": false }),
    )
    .await;
    asked(
        &server,
        "/api/copy",
        json!({ "source": "tINY", "destination": "TINY" }),
    )
    .await;
    assert_eq!(names(&server).await, ["tiny:latest"]);
    assert_eq!(stored(&server, "manifests").len(), 1);
    let shown = asked(&server, "/api/show", json!({ "name": "Tiny:Latest" })).await;
    assert_eq!(shown["system"], "a");
    for (source, name, listed) in [
        ("tiny", "ns/other", "ns/other:latest"),
        ("tiny", "example.com/ns/m:tag", "example.com/ns/m:tag"),
        ("tiny", "localhost:5000/ns/m", "localhost:5000/ns/m:latest"),
    ] {
        asked(
            &server,
            "/api/copy",
            json!({ "source": source, "destination": name }),
        )
        .await;
        let found = names(&server).await;
        assert!(found.iter().any(|n| n == listed), "{listed} in {found:?}");
        assert_eq!(
            delete(
                &server,
                json!({ "name": name.to_uppercase().to_lowercase() })
            )
            .await,
            200
        );
    }
    assert_eq!(names(&server).await, ["tiny:latest"]);
    assert_eq!(delete(&server, json!({ "name": "nosuch" })).await, 404);
}

#[tokio::test]
async fn shared_blobs_live_until_their_last_model() {
    let server = server_with(&[TINY], &[]);
    let before = stored(&server, "blobs");
    asked(
        &server,
        "/api/create",
        json!({ "model": "two", "from": "tiny", "system": "x", "stream": false }),
    )
    .await;
    asked(
        &server,
        "/api/copy",
        json!({ "source": "two", "destination": "three" }),
    )
    .await;
    for name in ["tiny", "two"] {
        assert_eq!(delete(&server, json!({ "model": name })).await, 200);
        let reply = server
            .generate("three", "Hi", &json!({ "num_predict": 1 }))
            .await;
        assert_eq!(reply.status, 200, "{}", reply.text);
    }
    assert_eq!(delete(&server, json!({ "model": "three" })).await, 200);
    assert!(stored(&server, "blobs").is_empty(), "of {before:?}");
    assert_eq!(server.get("/api/tags").await.text, "{\"models\":[]}");
}

#[tokio::test]
async fn parameters_merge_and_lists_and_messages_are_replaced() {
    let server = server_with(&[TINY], &[]);
    let first = json!({
        "model": "made", "from": "tiny", "stream": false, "parameters": { "temperature": 0.5, "stop": ["a", "b"] },
        "messages": [{ "role": "user", "content": "one" }], "template": "{{ .Prompt }}!", "license": ["L1", "L2"],
    });
    assert_eq!(
        asked(&server, "/api/create", first).await,
        json!({ "status": "success" })
    );
    let second = json!({
        "model": "made", "from": "made", "stream": false, "parameters": { "seed": 7, "stop": ["c"] },
        "messages": [{ "role": "user", "content": "two" }],
    });
    asked(&server, "/api/create", second).await;
    let shown = asked(&server, "/api/show", json!({ "model": "made" })).await;
    let parameters = shown["parameters"].as_str().expect("parameters");
    let mut lines: Vec<Vec<&str>> = parameters
        .lines()
        .map(|l| l.split_whitespace().collect())
        .collect();
    lines.sort();
    assert_eq!(
        lines,
        [["seed", "7"], ["stop", "\"c\""], ["temperature", "0.5"]]
    );
    assert_eq!(
        shown["messages"],
        json!([{ "role": "user", "content": "two" }])
    );
    assert_eq!(
        (&shown["template"], &shown["license"]),
        (&json!("{{ .Prompt }}!"), &json!("L1\nL2"))
    );
    assert!(shown["model_info"]["general.parameter_count"].is_u64());
    for (wrong, status, text) in [
        (
            json!({ "files": { "a.gguf": "" } }),
            400,
            "invalid digest format",
        ),
        (
            json!({ "adapters": { "a.gguf": "" }, "from": "tiny" }),
            400,
            "invalid digest format",
        ),
        (
            json!({ "files": { "../a.gguf": "sha256:0" } }),
            400,
            "file path must be relative",
        ),
        (
            json!({ "from": "tiny", "template": "{{ if }}" }),
            400,
            "template error",
        ),
        (
            json!({ "from": "tiny", "info": { "context_length": "x" } }),
            400,
            "must be a number",
        ),
        (json!({ "from": "bad name" }), 400, "invalid model name"),
        (json!({}), 400, "neither 'from' or 'files' was specified"),
    ] {
        let mut body = json!({ "model": "wrong", "stream": false });
        for (name, value) in wrong.as_object().expect("members") {
            body[name] = value.clone();
        }
        let reply = server.post("/api/create", &body).await;
        let error = reply.json()["error"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        assert!(
            reply.status == status && error.contains(text),
            "{wrong}: {} {error}",
            reply.status
        );
    }
}

#[tokio::test]
async fn the_newest_comes_first_and_changes_on_disk_appear() {
    let server = server_with(&[TINY], &[]);
    let manifests = server
        .home
        .path()
        .join("models/manifests/registry.ollama.ai/library");
    std::fs::create_dir_all(manifests.join("beside")).expect("a folder");
    std::thread::sleep(std::time::Duration::from_millis(20));
    std::fs::copy(
        manifests.join("tiny/latest"),
        manifests.join("beside/latest"),
    )
    .expect("a manifest");
    assert_eq!(names(&server).await, ["beside:latest", "tiny:latest"]);
    let tags = server.get("/api/tags").await.json();
    for model in tags["models"].as_array().expect("models") {
        assert_eq!(model["capabilities"], json!(["completion"]));
        assert_eq!(model["details"]["context_length"], 4096);
        assert_eq!(model["details"]["embedding_length"], 256);
        assert!(model["expires_at"].is_null());
    }
    std::fs::write(manifests.join("beside/latest"), "").expect("a manifest");
    assert_eq!(
        names(&server).await,
        ["tiny:latest"],
        "a damaged manifest hides its model alone"
    );
    std::fs::remove_dir_all(manifests.join("beside")).expect("removed");
}
