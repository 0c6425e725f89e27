//! Error tables of names, of `create`, and of what only Ollama's own site has.

use reqwest::Method;
use serde_json::json;

use super::errors::{answer, check};
use super::{TINY, server_with};
use crate::server::Server;

/// The digest of nothing that was uploaded.
const NO_BLOB: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

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
