//! Error tables: status and exact text, for every endpoint and every form of a member.

use reqwest::Method;
use serde_json::{Value, json};

use super::{MINILM, TINY, server_with};
use crate::server::Server;

/// Where a text is only known in its beginning.
const BEGINS: &str = "...";

/// Status and error of a request.
pub async fn answer(server: &Server, method: &Method, path: &str, body: &str) -> (u16, String) {
    let request = reqwest::Client::new().request(method.clone(), server.url(path));
    let response = request.body(body.to_owned()).send().await;
    let response = response.expect("the server answers");
    let status = response.status().as_u16();
    let text = response.text().await.expect("a whole body");
    let last = text.lines().last().unwrap_or_default();
    let object: Value = serde_json::from_str(last).unwrap_or_default();
    let error = object["error"].as_str().unwrap_or_default();
    (status, error.to_owned())
}

/// All rows that are answered otherwise.
pub async fn check(server: &Server, rows: &[(&str, Value, u16, &str)]) {
    let mut wrong = Vec::new();
    for (path, body, status, error) in rows {
        let method = match *path {
            "/api/delete" => Method::DELETE,
            _ => Method::POST,
        };
        let found = answer(server, &method, path, &body.to_string()).await;
        let fits = match error.strip_suffix(BEGINS) {
            Some(start) => found.1.starts_with(start),
            None => found.1 == *error,
        };
        if found.0 != *status || !fits {
            wrong.push(format!("{path} {body}: {found:?}, not {status} {error:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn bodies_and_members_of_every_form() {
    let server = server_with(&[TINY, MINILM], &[]);
    for path in [
        "/api/generate",
        "/api/chat",
        "/api/show",
        "/api/create",
        "/api/copy",
        "/api/pull",
    ] {
        for (body, status, error) in [
            ("", 400, "missing request body"),
            (" \n\t", 400, "missing request body"),
            ("{\"model\": \"tiny\"", 400, "unexpected EOF"),
        ] {
            let found = answer(&server, &Method::POST, path, body).await;
            assert_eq!(found, (status, error.to_owned()), "{path} {body:?}");
        }
        for body in ["{,}", "[]", "3", "\"x\"", "{\"model\": 3, \"source\": 3}"] {
            let (status, error) = answer(&server, &Method::POST, path, body).await;
            assert!(
                status == 400 && !error.is_empty(),
                "{path} {body}: {status} {error}"
            );
        }
    }
    let mut rows = Vec::new();
    let with = |model: &str, members: Value| {
        let mut body = json!({ "model": model, "prompt": "x", "stream": false, "options": { "num_predict": 1 } });
        for (name, value) in members.as_object().expect("members") {
            body[name] = value.clone();
        }
        body
    };
    let think_values = "(must be \"high\", \"medium\", \"low\", \"max\", true, or false)";
    let think_text = format!("invalid think value: \"x\" {think_values}");
    let think_empty = format!("invalid think value: \"\" {think_values}");
    let think_number = "think must be a boolean or string (\"high\", \"medium\", \"low\", \"max\", true, or false)";
    for (members, status, error) in [
        (
            json!({ "top_logprobs": -1 }),
            400,
            "top_logprobs must be between 0 and 20",
        ),
        (
            json!({ "top_logprobs": 21 }),
            400,
            "top_logprobs must be between 0 and 20",
        ),
        (
            json!({ "keep_alive": "10" }),
            400,
            "time: missing unit in duration \"10\"",
        ),
        (
            json!({ "keep_alive": "" }),
            400,
            "time: invalid duration \"\"",
        ),
        (
            json!({ "keep_alive": true }),
            400,
            "Unsupported type: 'bool'",
        ),
        (
            json!({ "keep_alive": [] }),
            400,
            "Unsupported type: '[]interface {}'",
        ),
        (
            json!({ "keep_alive": {} }),
            400,
            "Unsupported type: 'map[string]interface {}'",
        ),
        (json!({ "think": "x" }), 400, think_text.as_str()),
        (json!({ "think": "" }), 400, think_empty.as_str()),
        (json!({ "think": 1 }), 400, think_number),
        (json!({ "think": [] }), 400, think_number),
        (
            json!({ "think": true }),
            400,
            "\"tiny\" does not support thinking",
        ),
        (
            json!({ "think": "max" }),
            400,
            "\"tiny\" does not support thinking",
        ),
        (json!({ "think": false }), 200, ""),
        (
            json!({ "raw": true, "system": "s" }),
            400,
            "raw mode does not support template, system, or context",
        ),
        (
            json!({ "raw": true, "template": "t" }),
            400,
            "raw mode does not support template, system, or context",
        ),
        (
            json!({ "raw": true, "context": [1] }),
            400,
            "raw mode does not support template, system, or context",
        ),
        (json!({ "raw": true, "context": [] }), 200, ""),
        (
            json!({ "suffix": "s" }),
            400,
            "registry.ollama.ai/library/tiny:latest does not support insert",
        ),
        (
            json!({ "suffix": "s", "raw": true }),
            400,
            "registry.ollama.ai/library/tiny:latest does not support insert",
        ),
        (json!({ "format": "xml" }), 500, "invalid format: ..."),
        (json!({ "format": 1 }), 500, "invalid format: ..."),
        (json!({ "format": "" }), 200, ""),
        (json!({ "format": null }), 200, ""),
        (
            json!({ "images": ["!!!"] }),
            400,
            "illegal base64 data at input byte 0",
        ),
        (
            json!({ "images": ["data:image/png;base64,AA=="] }),
            400,
            "illegal base64 data at input byte 4",
        ),
        (
            json!({ "options": { "temperature": "hot" } }),
            500,
            "option \"temperature\" must be of type float32",
        ),
        (
            json!({ "options": { "num_predict": "1" } }),
            500,
            "option \"num_predict\" must be of type integer",
        ),
        (
            json!({ "options": { "use_mmap": "1" } }),
            500,
            "option \"use_mmap\" must be of type boolean",
        ),
        (
            json!({ "options": { "stop": "x" } }),
            500,
            "option \"stop\" must be of type array",
        ),
        (
            json!({ "options": { "stop": [1] } }),
            500,
            "option \"stop\" must be of an array of strings",
        ),
        (
            json!({ "options": { "num_predict": 1.9, "mirostat": 1, "nonsense": [] } }),
            200,
            "",
        ),
        (json!({ "template": "{{ if }}" }), 500, "..."),
        (json!({ "stream": "no" }), 400, "..."),
        (json!({ "top_logprobs": 1.5 }), 400, "..."),
    ] {
        rows.push(("/api/generate", with("tiny", members), status, error));
    }
    let said = json!([{ "role": "user", "content": "x" }]);
    let parts = json!([{ "role": "user", "content": [{ "type": "text", "text": "x" }] }]);
    let called = json!([{ "role": "assistant", "tool_calls": [{ "function": { "name": "f", "arguments": "{}" } }] }]);
    let tools = json!([{ "type": "function", "function": { "name": "f", "parameters": { "type": "object" } } }]);
    for (model, members, status, error) in [
        ("tiny", json!({ "messages": parts }), 400, "..."),
        ("tiny", json!({ "messages": called }), 400, "..."),
        (
            "tiny",
            json!({ "messages": said, "tools": tools }),
            400,
            "registry.ollama.ai/library/tiny:latest does not support tools",
        ),
        (
            "tiny",
            json!({ "messages": said, "think": true }),
            400,
            "\"tiny\" does not support thinking",
        ),
        (
            "tiny",
            json!({ "messages": said, "options": { "seed": "1" } }),
            500,
            "option \"seed\" must be of type integer",
        ),
        (
            "minilm",
            json!({ "messages": said }),
            400,
            "\"minilm\" does not support chat",
        ),
        // What is ignored: members of other endpoints, an empty list of tools.
        (
            "tiny",
            json!({ "messages": said, "system": 3, "raw": "x", "suffix": {}, "tools": [] }),
            200,
            "",
        ),
    ] {
        rows.push(("/api/chat", with(model, members), status, error));
    }
    rows.push((
        "/api/generate",
        with("minilm", json!({})),
        400,
        "\"minilm\" does not support generate",
    ));
    for (members, status, error) in [
        (json!({ "input": 3 }), 400, "invalid input type"),
        (json!({ "input": ["a", 3] }), 400, "invalid input type"),
        (json!({ "input": {} }), 400, "invalid input type"),
        (
            json!({ "input": "a b c", "options": { "num_ctx": 1 } }),
            400,
            "...",
        ),
        (json!({ "input": [] }), 200, ""),
        (json!({ "input": "" }), 200, ""),
        (json!({ "input": null }), 200, ""),
        (json!({ "input": "a", "dimensions": 100_000 }), 200, ""),
        (json!({ "input": "a", "dimensions": -1 }), 200, ""),
    ] {
        rows.push(("/api/embed", with("minilm", members), status, error));
    }
    // The type of the input is looked at before the model is.
    rows.push((
        "/api/embed",
        json!({ "model": "nope", "input": 3 }),
        400,
        "invalid input type",
    ));
    rows.push((
        "/api/embed",
        with("tiny", json!({ "input": "a" })),
        400,
        "...",
    ));
    rows.push((
        "/api/embeddings",
        with("minilm", json!({ "prompt": "" })),
        200,
        "",
    ));
    check(&server, &rows).await;
}
