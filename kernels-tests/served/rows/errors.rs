//! Error tables: status and exact text, for every endpoint and every form of a member.

use reqwest::Method;
use serde_json::{Value, json};

use super::{MINILM, TINY, server_with};
use crate::server::Server;

/// Where a text is only known in its beginning.
const BEGINS: &str = "...";
/// The digest of nothing that was uploaded.
const NO_BLOB: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// Status and error of a request.
async fn answer(server: &Server, method: &Method, path: &str, body: &str) -> (u16, String) {
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
async fn check(server: &Server, rows: &[(&str, Value, u16, &str)]) {
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
async fn names_that_are_missing_malformed_or_unknown() {
    let server = server_with(&[TINY], &[]);
    let model = |name: &str| json!({ "model": name, "prompt": "x", "input": "x", "messages": [{"role": "user", "content": "x"}] });
    let (empty, bad, unknown) = (model(""), model("a//b"), model("Nope"));
    let mut rows = Vec::new();
    for (path, missing, malformed, absent) in [
        (
            "/api/generate",
            (404, "model '' not found"),
            (400, "invalid model name"),
            (404, "model 'Nope' not found"),
        ),
        (
            "/api/chat",
            (400, "model is required"),
            (400, "invalid model name"),
            (404, "model 'Nope' not found"),
        ),
        (
            "/api/embed",
            (404, "model '' not found"),
            (400, "invalid model name"),
            (404, "model \"Nope\" not found, try pulling it first"),
        ),
        (
            "/api/embeddings",
            (400, "model is required"),
            (400, "invalid model name"),
            (404, "model \"Nope\" not found, try pulling it first"),
        ),
        (
            "/api/show",
            (400, "model is required"),
            (400, "invalid model name"),
            (404, "model 'Nope:latest' not found"),
        ),
        (
            "/api/delete",
            (400, "model is required"),
            (400, "name \"a//b\" is invalid"),
            (404, "model 'Nope' not found"),
        ),
        (
            "/api/create",
            (400, "invalid model name"),
            (400, "invalid model name"),
            (400, "neither 'from' or 'files' was specified"),
        ),
    ] {
        for (body, (status, error)) in [(&empty, missing), (&bad, malformed), (&unknown, absent)] {
            rows.push((path, body.clone(), status, error));
        }
    }
    for (body, status, error) in [
        (
            json!({ "source": "", "destination": "b" }),
            400,
            "source \"\" is invalid",
        ),
        (
            json!({ "source": "a//b", "destination": "b" }),
            400,
            "source \"a//b\" is invalid",
        ),
        (
            json!({ "source": "tiny", "destination": "" }),
            400,
            "destination \"\" is invalid",
        ),
        (
            json!({ "source": "tiny", "destination": "b//" }),
            400,
            "destination \"b//\" is invalid",
        ),
        (
            json!({ "source": "Nope", "destination": "b" }),
            404,
            "model \"Nope\" not found",
        ),
    ] {
        rows.push(("/api/copy", body, status, error));
    }
    rows.push(("/api/pull", empty.clone(), 400, "invalid model name"));
    rows.push(("/api/pull", bad.clone(), 400, "invalid model name"));
    rows.push(("/api/push", empty.clone(), 400, "model is required"));
    rows.push(("/api/push", bad, 200, "unqualified name: ..."));
    rows.push(("/api/push", unknown, 200, "model 'Nope:latest' not found"));
    for path in ["/api/generate", "/api/chat", "/api/show"] {
        let both = "use either :local or :cloud, not both: \"tiny:local:cloud\"";
        rows.push((path, model("tiny:local:cloud"), 400, both));
        let remote = match path {
            "/api/show" => "ollama cloud is disabled: remote model details are unavailable",
            _ => "ollama cloud is disabled: remote model is unavailable",
        };
        rows.push((path, model("tiny:cloud"), 403, remote));
        rows.push((path, model("tiny:1b-cloud"), 403, remote));
    }
    for (members, status, error) in [
        (json!({ "files": {} }), 400, "unknown type"),
        (
            json!({ "files": { "a.gguf": "" } }),
            400,
            "invalid digest format",
        ),
        (
            json!({ "files": { "/a.gguf": NO_BLOB } }),
            400,
            "file path must be relative",
        ),
        (
            json!({ "files": { "a/../../b.gguf": NO_BLOB } }),
            400,
            "file path must be relative",
        ),
        (
            json!({ "files": { "a.gguf": NO_BLOB } }),
            500,
            "blob \"sha256:...",
        ),
        (
            json!({ "from": "tiny", "adapters": { "a": "" } }),
            400,
            "invalid digest format",
        ),
        (
            json!({ "from": "tiny", "draft_files": { "a": "" } }),
            400,
            "invalid digest format",
        ),
        (
            json!({ "from": "tiny", "draft_quantize": "q8_0" }),
            400,
            "--draft-quantize requires a DRAFT model",
        ),
        (
            json!({ "from": "tiny", "info": { "model_family": 3 } }),
            400,
            "info field \"model_family\" must be a string",
        ),
        (
            json!({ "from": "tiny", "info": { "context_length": "x" } }),
            400,
            "info field \"context_length\" must be a number",
        ),
        (
            json!({ "from": "tiny", "info": { "embedding_length": -1 } }),
            400,
            "info field \"embedding_length\" must be a non-negative integer",
        ),
        (
            json!({ "from": "tiny", "template": "{{ if }}" }),
            400,
            "template error: ...",
        ),
        (json!({ "from": "a//b" }), 400, "invalid model name"),
        (
            json!({ "from": "tiny", "quantize": "q9" }),
            500,
            "unsupported quantization type Q9 - supported types are F32, F16, ...",
        ),
        (json!({ "from": "tiny", "messages": 3 }), 400, "..."),
        (json!({ "from": "tiny", "license": 3 }), 400, "..."),
    ] {
        let mut body = json!({ "model": "made", "stream": false });
        for (name, value) in members.as_object().expect("members") {
            body[name] = value.clone();
        }
        rows.push(("/api/create", body, status, error));
    }
    check(&server, &rows).await;
    // The older member, blanks around a name and another letter case are understood.
    for body in [
        json!({ "name": "tiny" }),
        json!({ "model": " TINY:Latest " }),
        json!({ "model": "tiny:local" }),
        json!({ "model": "registry.ollama.ai/library/tiny:latest" }),
    ] {
        assert_eq!(server.post("/api/show", &body).await.status, 200, "{body}");
    }
}

#[tokio::test]
async fn what_only_ollamas_own_site_has() {
    let server = Server::start(&[]);
    let search = "ollama cloud is disabled: web search is unavailable";
    let fetch = "ollama cloud is disabled: web fetch is unavailable";
    let signed_out = "you are not currently signed in";
    for (method, path, body, status, error) in [
        (Method::POST, "/api/me", "", 503, "account unavailable"),
        (Method::POST, "/api/signout", "", 401, signed_out),
        (Method::DELETE, "/api/user/keys/abc", "", 401, signed_out),
        (
            Method::POST,
            "/api/experimental/web_search",
            " ",
            400,
            "missing request body",
        ),
        (
            Method::POST,
            "/api/experimental/web_search",
            "{\"query\":\"x\"}",
            403,
            search,
        ),
        (
            Method::POST,
            "/api/experimental/web_fetch",
            "",
            400,
            "missing request body",
        ),
        (
            Method::POST,
            "/api/experimental/web_fetch",
            "{}",
            403,
            fetch,
        ),
    ] {
        let found = answer(&server, &method, path, body).await;
        assert_eq!(found, (status, error.to_owned()), "{path} {body}");
    }
    let list = server.get("/api/experimental/model-recommendations").await;
    assert_eq!(
        (list.status, list.json()),
        (200, json!({ "recommendations": [] }))
    );
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
