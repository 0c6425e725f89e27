//! The API through its filter, over an empty store and a backend that cannot be opened.

use super::*;
use crate::api::{ChatReply, Message, ToolCall, ToolCallFunction};
use crate::backend::BackendError;
use crate::engine::ModelsSettings;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A piece of a chat's answer, the last one where there is a `reason`: what the other APIs translate.
pub fn reply(thinking: &str, content: &str, n_calls: usize, reason: &str) -> ChatReply {
    let call = ToolCall {
        id: "call_1".into(),
        function: ToolCallFunction {
            name: "f".into(),
            ..ToolCallFunction::default()
        },
    };
    ChatReply {
        model: "m".into(),
        created_at: "2026-01-01T00:00:00Z".into(),
        message: Message {
            content: content.into(),
            thinking: thinking.into(),
            tool_calls: vec![call; n_calls],
            ..Message::default()
        },
        done: !reason.is_empty(),
        done_reason: reason.into(),
        prompt_tokens: 4,
        prompt_eval_count: 4,
        eval_count: 2,
        ..ChatReply::default()
    }
}

struct Api {
    app: Arc<App>,
    _folder: TempDir,
}

impl Api {
    fn new() -> Api {
        let folder = tempfile::tempdir().unwrap();
        let no_device = |_: &_| {
            Err(BackendError::NoDevice {
                wanted: "any".into(),
                available: "none".into(),
            })
        };
        let store = Store::open(folder.path()).unwrap();
        let app = App {
            registry: Registry::new(store.clone()),
            store,
            models: Models::new(Arc::new(no_device), ModelsSettings::default()),
            settings: ServerSettings {
                loopback_only: true,
                ..ServerSettings::default()
            },
            templates: Templates::default(),
        };
        Api {
            app: Arc::new(app),
            _folder: folder,
        }
    }

    async fn ask(
        &self,
        method: &str,
        path: &str,
        body: &str,
    ) -> warp::http::Response<bytes::Bytes> {
        let request = warp::test::request()
            .method(method)
            .path(path)
            .header("host", "127.0.0.1")
            .body(body);
        request.reply(&routes(Arc::clone(&self.app))).await
    }

    /// Status and error text.
    async fn refusal(&self, method: &str, path: &str, body: Value) -> (u16, String) {
        let reply = self.ask(method, path, &body.to_string()).await;
        let value: Value = serde_json::from_slice(reply.body()).unwrap();
        let error = value["error"]
            .as_str()
            .or(value["error"]["message"].as_str());
        (
            reply.status().as_u16(),
            error.unwrap_or_default().to_owned(),
        )
    }
}

#[tokio::test]
async fn liveness_and_version() {
    let api = Api::new();
    let alive = api.ask("GET", "/", "").await;
    assert_eq!(
        (alive.status().as_u16(), alive.body().as_ref()),
        (200, b"Ollama is running".as_slice())
    );
    let version = api.ask("GET", "/api/version", "").await;
    assert_eq!(
        version.headers()["content-type"],
        "application/json; charset=utf-8"
    );
    let version: Value = serde_json::from_slice(version.body()).unwrap();
    assert_eq!(version, json!({"version": env!("CARGO_PKG_VERSION")}));
}

#[tokio::test]
async fn empty_lists() {
    let api = Api::new();
    assert_eq!(
        api.ask("GET", "/api/tags", "").await.body().as_ref(),
        b"{\"models\":[]}"
    );
    assert_eq!(
        api.ask("GET", "/api/ps", "").await.body().as_ref(),
        b"{\"models\":[]}"
    );
    assert_eq!(
        api.ask("GET", "/v1/models", "").await.body().as_ref(),
        b"{\"object\":\"list\",\"data\":null}\n"
    );
}

#[tokio::test]
async fn routing_and_access() {
    let api = Api::new();
    for (method, path, status) in [
        ("GET", "/nope", 404),
        ("GET", "/api/show", 405),
        ("HEAD", "/api/ps", 405),
        ("GET", "/api/tags/", 301),
    ] {
        assert_eq!(
            api.ask(method, path, "").await.status().as_u16(),
            status,
            "{method} {path}"
        );
    }
    let filter = routes(Arc::clone(&api.app));
    let evil = warp::test::request()
        .path("/api/tags")
        .header("host", "evil.example")
        .reply(&filter)
        .await;
    assert_eq!((evil.status().as_u16(), evil.body().len()), (403, 0));
    // Not before the slash redirect.
    let evil = warp::test::request()
        .path("/api/tags/")
        .header("host", "evil.example")
        .reply(&filter)
        .await;
    assert_eq!(evil.status().as_u16(), 301);
    // Also before 404.
    let page = warp::test::request()
        .path("/nope")
        .header("host", "127.0.0.1")
        .header("origin", "http://localhost");
    let page = page.reply(&filter).await;
    assert_eq!(
        (
            page.status().as_u16(),
            &page.headers()["access-control-allow-origin"]
        ),
        (404, &"http://localhost".parse().unwrap())
    );
}

#[tokio::test]
async fn requests_without_a_path_are_refused() {
    let api = Api::new();
    let reply = api.ask("CONNECT", "example.com:80", "").await;
    assert_eq!(reply.status().as_u16(), 400);
}

#[tokio::test]
async fn model_names_are_refused_in_each_endpoints_words() {
    let api = Api::new();
    let bad = "a//b:c:d";
    for (method, path, body, status, text) in [
        (
            "POST",
            "/api/generate",
            json!({"prompt": "x"}),
            404,
            "model '' not found",
        ),
        (
            "POST",
            "/api/generate",
            json!({"model": bad}),
            400,
            "invalid model name",
        ),
        (
            "POST",
            "/api/generate",
            json!({"model": "nope"}),
            404,
            "model 'nope' not found",
        ),
        (
            "POST",
            "/api/chat",
            json!({"messages": []}),
            400,
            "model is required",
        ),
        (
            "POST",
            "/api/chat",
            json!({"model": bad}),
            400,
            "invalid model name",
        ),
        (
            "POST",
            "/api/chat",
            json!({"model": " nope "}),
            404,
            "model ' nope ' not found",
        ),
        ("POST", "/api/show", json!({}), 400, "model is required"),
        (
            "POST",
            "/api/show",
            json!({"model": bad}),
            400,
            "invalid model name",
        ),
        (
            "POST",
            "/api/show",
            json!({"name": "nope"}),
            404,
            "model 'nope:latest' not found",
        ),
        ("DELETE", "/api/delete", json!({}), 400, "model is required"),
        (
            "DELETE",
            "/api/delete",
            json!({"model": bad}),
            400,
            "name \"a//b:c:d\" is invalid",
        ),
        (
            "DELETE",
            "/api/delete",
            json!({"name": "nope"}),
            404,
            "model 'nope' not found",
        ),
        (
            "POST",
            "/api/copy",
            json!({"destination": "a"}),
            400,
            "source \"\" is invalid",
        ),
        (
            "POST",
            "/api/copy",
            json!({"source": "a", "destination": bad}),
            400,
            "destination \"a//b:c:d\" is invalid",
        ),
        (
            "POST",
            "/api/copy",
            json!({"source": "nope", "destination": "a"}),
            404,
            "model \"nope\" not found",
        ),
        (
            "POST",
            "/api/create",
            json!({"from": "a"}),
            400,
            "invalid model name",
        ),
        (
            "POST",
            "/v1/chat/completions",
            json!({"messages": [{"role": "user", "content": "x"}]}),
            400,
            "model is required",
        ),
        (
            "POST",
            "/api/generate",
            json!({"model": "x:cloud"}),
            403,
            "ollama cloud is disabled: remote model is unavailable",
        ),
    ] {
        assert_eq!(
            api.refusal(method, path, body.clone()).await,
            (status, text.to_owned()),
            "{path} {body}"
        );
    }
}

#[tokio::test]
async fn the_order_of_checks() {
    let api = Api::new();
    // Decoding, then top_logprobs, then the model.
    let body = json!({"model": "nope", "top_logprobs": 21, "keep_alive": "10"});
    let refusal = api.refusal("POST", "/api/generate", body).await;
    assert_eq!(
        refusal,
        (400, "time: missing unit in duration \"10\"".into())
    );
    let refusal = api
        .refusal(
            "POST",
            "/api/generate",
            json!({"model": "nope", "top_logprobs": -1}),
        )
        .await;
    assert_eq!(
        refusal,
        (400, "top_logprobs must be between 0 and 20".into())
    );
}

#[tokio::test]
async fn blobs() {
    let api = Api::new();
    let digest = "sha256:b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9";
    let path = format!("/api/blobs/{digest}");
    assert_eq!(api.ask("HEAD", &path, "").await.status().as_u16(), 404);
    assert_eq!(
        api.ask("POST", &path, "something else")
            .await
            .status()
            .as_u16(),
        400
    );
    assert_eq!(api.ask("HEAD", &path, "").await.status().as_u16(), 404);
    assert_eq!(
        api.ask("POST", &path, "hello world")
            .await
            .status()
            .as_u16(),
        201
    );
    assert_eq!(
        api.ask("POST", &path, "hello world")
            .await
            .status()
            .as_u16(),
        200
    );
    assert_eq!(api.ask("HEAD", &path, "").await.status().as_u16(), 200);
    let refusal = api
        .refusal("POST", "/api/blobs/sha256:xyz", json!("data"))
        .await;
    assert_eq!(refusal, (400, "invalid digest format".into()));
}

#[tokio::test]
async fn missing_endpoints_say_so() {
    let api = Api::new();
    let (status, text) = api
        .refusal("POST", "/v1/audio/transcriptions", json!({}))
        .await;
    assert!(
        status == 501 && text.contains("not implemented yet; "),
        "{status} {text}"
    );
    let (status, text) = api
        .refusal(
            "POST",
            "/api/create",
            json!({"model": "a", "from": "127.0.0.1:1/n/m", "stream": false}),
        )
        .await;
    assert!(
        status == 500 && text.starts_with("pull model manifest: Get \"https://127.0.0.1:1/v2/n/m/"),
        "{status} {text}"
    );
}

#[tokio::test]
async fn registries_of_a_closed_network_are_forbidden() {
    let api = Api::new();
    api.app.registry.close_network(Vec::new());
    let near = "127.0.0.1:1/library/m";
    for (path, body) in [
        ("/api/pull", json!({"model": near})),
        ("/api/pull", json!({"model": near, "stream": false})),
        ("/api/push", json!({"model": near})),
        ("/api/create", json!({"model": "m", "from": near})),
    ] {
        let (status, error) = api.refusal("POST", path, body).await;
        assert_eq!(status, 403, "{path}: {error}");
        assert!(error.starts_with("127.0.0.1:1 is an address of"), "{error}");
    }
}

#[tokio::test]
async fn a_panic_in_a_handler_is_an_answer() {
    let api = Api::new();
    let incoming = Incoming {
        headers: HeaderMap::new(),
        body: BodyStream::new(
            futures_util::stream::empty::<Result<bytes::Bytes, _>>(),
            &HeaderMap::new(),
        ),
        segment: String::new(),
        received: Instant::now(),
    };
    let response = handled(
        |_, _| Box::pin(async { panic!("boom") }),
        Arc::clone(&api.app),
        incoming,
    )
    .await;
    assert_eq!(response.status().as_u16(), 500);
}
