//! Pulls by the real server from registries with bad intentions, and by clients that do not wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::registry::{Model, last_line, pull};
use crate::scripted::{Scripted, reply};
use crate::server::Server;

/// A tag that comes to mean another manifest: with layers that are text, data, and no programs.
#[tokio::test]
async fn a_tag_that_turns_bad_fails_alone() {
    let tiny = Model::tiny();
    let loop_template = "{{ range $i := .Messages }}{{ template \"x\" . }}{{ end }}";
    let nested = "{{ if .Prompt }}".repeat(3000);
    let turns = [
        (
            tiny.clone().with("params", br#"{"num_ctx":"x"}"#),
            500,
            "num_ctx",
        ),
        (
            tiny.clone().with("params", b"[]"),
            500,
            "parameters are not valid",
        ),
        (
            tiny.clone().with("params", &b"{".repeat(50_000)),
            500,
            "parameters are not valid",
        ),
        (
            tiny.clone().with("params", &vec![b' '; 2 << 20]),
            500,
            "larger than",
        ),
        (
            tiny.clone().with("template", loop_template.as_bytes()),
            500,
            "template",
        ),
        (
            tiny.clone().with("template", nested.as_bytes()),
            500,
            "template",
        ),
        (
            tiny.clone().with("template", &[0xff; 100]),
            500,
            "not UTF-8",
        ),
        (
            tiny.clone().with("messages", br#"{"role":"x"}"#),
            500,
            "messages are not valid",
        ),
        (tiny.clone().with("system", &[0xff; 100]), 500, "not UTF-8"),
    ];
    let server = Server::start(&[]);
    let now = Arc::new(AtomicUsize::new(0));
    let models: Vec<Model> = std::iter::once(tiny)
        .chain(turns.iter().map(|turn| turn.0.clone()))
        .collect();
    let registry = {
        let now = Arc::clone(&now);
        Scripted::start(move |asked, n| models[now.load(Ordering::Relaxed)].answers()(asked, n))
    };
    pull(&server, &registry).await;
    let copy = json!({ "source": registry.name(), "destination": "kept" });
    assert_eq!(server.post("/api/copy", &copy).await.status, 200);
    for (n, (_, status, wanted)) in (1..).zip(&turns) {
        now.store(n, Ordering::Relaxed);
        let line = last_line(&server, "/api/pull", &registry.name(), true).await;
        let start = Instant::now();
        let message = json!({ "role": "user", "content": "hi" });
        let body = json!({
            "model": registry.name(), "messages": [message], "stream": false, "options": { "num_predict": 1 },
        });
        let reply = server.post("/api/chat", &body).await;
        assert!(start.elapsed() < Duration::from_secs(5));
        assert_eq!(reply.status, *status, "{wanted}: {line} {}", reply.text);
        assert!(reply.text.contains(wanted), "{wanted}: {}", reply.text);
        let kept = server
            .generate("kept", "hi", &json!({ "num_predict": 1 }))
            .await;
        assert_eq!(kept.status, 200, "{wanted}: {}", kept.text);
        let tags = server.get("/api/tags").await.text;
        assert!(tags.contains("\"kept:latest\""), "{tags}");
    }
}

/// Clients leave at the start, in the middle and near the end: transfers end with them, and nothing stays behind.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn clients_that_leave_cost_nothing() {
    let cycles = std::env::var("OLLAMA_WGPU_TEST_CYCLES").ok();
    let n_cycles = cycles.map_or(150, |text| text.parse().expect("a number"));
    let model = Model::tiny();
    let served = model.clone();
    let registry = Scripted::start(move |asked, n| {
        if asked.path.contains("/manifests/") {
            return served.answers()(asked, n);
        }
        let mut reply = served.blob_reply(asked);
        let share = [0, 50, 99][n % 3];
        reply
            .bytes
            .truncate((reply.bytes.len() * share / 100).max(200));
        reply.silence = Duration::from_millis(30);
        reply
    });
    let server = Server::start(&[]);
    let n_handles = || {
        let folder = format!("/proc/{}/fd", server.id());
        std::fs::read_dir(folder)
            .expect("the process lives")
            .count()
    };
    let leave = async |n: usize| {
        let body = json!({ "model": registry.name(), "insecure": true });
        let request = reqwest::Client::new()
            .post(server.url("/api/pull"))
            .body(body.to_string());
        let mut response = request.send().await.expect("an answer");
        for _ in 0..n % 4 {
            let _ = response.chunk().await;
        }
    };
    for n in 0..10 {
        leave(n).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (before, resident) = (n_handles(), server.resident_bytes());
    for n in 0..n_cycles {
        leave(n).await;
    }
    let start = Instant::now();
    while n_handles() > before + 4 && start.elapsed() < Duration::from_secs(5) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(
        n_handles() <= before + 4,
        "{} handles, {before} before",
        n_handles()
    );
    let more = server.resident_bytes().saturating_sub(resident);
    assert!(more < 16 << 20, "{more} bytes more than before");
    // What was fetched until then counts.
    let whole = Scripted::start(model.answers());
    pull(&server, &whole).await;
    let shown = server
        .post("/api/show", &json!({ "model": whole.name() }))
        .await;
    assert_eq!(shown.status, 200, "{}", shown.text);
}

/// Whatever listens at an address, what it says reaches the client in bounds.
#[tokio::test]
async fn services_that_are_no_registries_are_told_apart() {
    let server = Server::start(&[]);
    let page = Scripted::start(|_, _| {
        reply(
            200,
            &[("Content-Type", "text/html")],
            &b"<html>".repeat(100_000),
        )
    });
    let refusing = Scripted::start(|_, _| reply(403, &[], &b"secret ".repeat(100_000)));
    for (registry, wanted) in [(&page, "not valid JSON"), (&refusing, "403: secret secret")] {
        let line = last_line(&server, "/api/pull", &registry.name(), true).await;
        assert!(line.contains(wanted) && line.len() < 70_000, "{line:.300}");
    }
    for name in [
        "127.0.0.1:1/a/b",
        "[::1]:1/a/b",
        "localhost:99999/a/b",
        "0x7f.1:1/a/b",
    ] {
        let body = json!({ "model": name, "insecure": true, "stream": false });
        let reply = server.post("/api/pull", &body).await;
        assert!(
            (400..=500).contains(&reply.status),
            "{name}: {}",
            reply.text
        );
        assert!(reply.json()["error"].is_string(), "{name}: {}", reply.text);
    }
    assert_eq!(server.get("/api/version").await.status, 200);
}
