//! Variables of the server, as a user meets them: what they change, what is said at the start.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use super::{TINY, asked, server_with};
use crate::server::Server;

/// Files of a folder, sorted.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    paths
}

/// The bodies that `OLLAMA_DEBUG_LOG_REQUESTS` kept below this folder for temporary files, by their files, oldest first.
pub fn kept_bodies(temporary: &Path) -> Vec<(String, serde_json::Value)> {
    let bodies = files(temporary).into_iter().flat_map(|kept| files(&kept));
    let bodies = bodies.filter(|path| path.extension().is_some_and(|e| e == "json"));
    bodies
        .map(|path| {
            let text = std::fs::read_to_string(&path).expect("a body");
            let body = serde_json::from_str(&text).expect("JSON");
            (path.to_string_lossy().into_owned(), body)
        })
        .collect()
}

fn mode(path: &Path) -> u32 {
    let metadata = std::fs::metadata(path).expect("it is there");
    metadata.permissions().mode() & 0o777
}

#[tokio::test]
async fn requests_are_kept_for_their_user_alone_and_can_be_sent_again() {
    let temporary = tempfile::tempdir().expect("a temporary folder");
    let folder = temporary.path().to_str().expect("text");
    let server = server_with(
        &[TINY],
        &[("TMPDIR", folder), ("OLLAMA_DEBUG_LOG_REQUESTS", "1")],
    );
    let body = json!({ "model": "tiny", "prompt": "a'b \"$HOME\" \u{e9}", "stream": false, "options": { "num_predict": 1 } });
    asked(&server, "/api/generate", body.clone()).await;
    asked(&server, "/api/show", json!({ "model": "tiny" })).await;
    let kept = &files(temporary.path())[0];
    let name = kept.file_name().expect("a name").to_string_lossy();
    assert!(name.starts_with("ollama-request-logs-"), "{name}");
    assert_eq!(mode(kept), 0o700);
    let [body_file, script] = &files(kept)[..] else {
        panic!("one body and its script: {:?}", files(kept));
    };
    assert!(
        body_file
            .to_string_lossy()
            .ends_with("-000001_api_generate_body.json")
    );
    assert!(
        script
            .to_string_lossy()
            .ends_with("-000001_api_generate_request.sh")
    );
    assert_eq!((mode(body_file), mode(script)), (0o600, 0o600));
    let sent = std::fs::read_to_string(body_file).expect("the body");
    assert_eq!(sent, body.to_string());
    let log = log_with(&server, &script.display().to_string());
    assert!(!log.contains("$HOME"), "prompts stay out of the log");
    // The script finds its body wherever it is run.
    let output = Command::new("sh").arg(script).current_dir("/").output();
    let output = output.expect("sh runs");
    let reply: serde_json::Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!(
        (&reply["done"], &reply["eval_count"]),
        (&json!(true), &json!(1))
    );
    assert_eq!(files(kept).len(), 4);
}

/// The log, once this is in it: it comes through a pipe.
fn log_with(server: &Server, text: &str) -> String {
    for _ in 0..200 {
        if server.log().contains(text) {
            return server.log();
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("no {text:?} in {}", server.log());
}

#[test]
fn the_start_says_what_is_wrong_and_what_has_no_effect() {
    let variables = [
        ("OLLAMA_NUM_PARALLEL", "many"),
        ("OLLAMA_LOAD_TIMEOUT", "soon"),
        ("OLLAMA_KV_CACHE_TYPE", "q3"),
        ("OLLAMA_SCHED_SPREAD", "1"),
        ("CUDA_VISIBLE_DEVICES", "0"),
    ];
    for debug in ["0", "1"] {
        let server = Server::start(&[&variables[..], &[("OLLAMA_DEBUG", debug)]].concat());
        let log = log_with(&server, "listening on");
        for name in [
            "OLLAMA_NUM_PARALLEL",
            "OLLAMA_LOAD_TIMEOUT",
            "OLLAMA_KV_CACHE_TYPE",
        ] {
            let lines = log
                .lines()
                .filter(|line| line.contains(name) && line.contains("WARN"));
            assert_eq!(lines.count(), 1, "{name}: {log}");
        }
        for name in ["OLLAMA_SCHED_SPREAD", "CUDA_VISIBLE_DEVICES"] {
            let is_told = log.contains(&format!("{name} has no effect here"));
            assert_eq!(is_told, debug == "1", "{name}: {log}");
        }
    }
    let quiet = Server::start(&[&variables[..], &[("OLLAMA_DEBUG", "-2")]].concat());
    assert_eq!(quiet.log(), "");
}

#[tokio::test]
async fn keep_alive_and_the_number_of_models_are_the_servers() {
    let expires = async |server: &Server| {
        let load = json!({ "model": "tiny" });
        asked(server, "/api/generate", load).await;
        let running = server.get("/api/ps").await.json();
        let until = running["models"][0]["expires_at"]
            .as_str()
            .map(str::to_owned);
        until.map(|until| chrono::DateTime::parse_from_rfc3339(&until).expect("a time"))
    };
    let now = chrono::Utc::now();
    for (value, seconds) in [("90", 90), ("2m", 120), ("soon", 300), ("-1", i64::MAX)] {
        let server = server_with(&[TINY], &[("OLLAMA_KEEP_ALIVE", value)]);
        let left = (expires(&server).await.expect("it is loaded").to_utc() - now).num_seconds();
        match seconds {
            i64::MAX => assert!(left > 200 * 365 * 24 * 3600, "{value}: {left}"),
            seconds => assert!(
                (seconds - 1..seconds + 60).contains(&left),
                "{value}: {left}"
            ),
        }
    }
    let server = server_with(&[TINY], &[("OLLAMA_KEEP_ALIVE", "0")]);
    expires(&server).await;
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert_eq!(server.get("/api/ps").await.text, "{\"models\":[]}");
}

/// A proxy that refuses everything, and a line for each request.
fn proxy() -> (String, std::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = format!("http://{}", listener.local_addr().expect("its address"));
    let (lines, asked) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut head = [0; 4096];
            let n = stream.read(&mut head).expect("a request");
            let text = String::from_utf8_lossy(&head[..n]).into_owned();
            let line = text.lines().next().unwrap_or_default().to_owned();
            let answer =
                b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            stream.write_all(answer).expect("it listens");
            if lines.send(line).is_err() {
                return;
            }
        }
    });
    (address, asked)
}

#[tokio::test]
async fn registries_are_asked_through_the_environments_proxies() {
    let (address, asked) = proxy();
    let pull = |name: &str| json!({ "model": name, "insecure": true, "stream": false });
    for variable in ["HTTP_PROXY", "http_proxy"] {
        let server = Server::start(&[(variable, &address), ("NO_PROXY", "b.invalid")]);
        server.post("/api/pull", &pull("a.invalid/ns/m")).await;
        let line = asked.try_recv().expect("it was asked");
        assert_eq!(
            line,
            "GET http://a.invalid/v2/ns/m/manifests/latest HTTP/1.1"
        );
        // Not for hosts that are named, and not for secure registries where only the other proxy is set.
        server.post("/api/pull", &pull("b.invalid/ns/m")).await;
        server
            .post(
                "/api/pull",
                &json!({ "model": "c.invalid/ns/m", "stream": false }),
            )
            .await;
        assert!(asked.try_recv().is_err());
    }
    let server = Server::start(&[("HTTPS_PROXY", &address)]);
    server
        .post(
            "/api/pull",
            &json!({ "model": "a.invalid/ns/m", "stream": false }),
        )
        .await;
    let line = asked.try_recv().expect("it was asked");
    assert_eq!(line, "CONNECT a.invalid:443 HTTP/1.1");
}

#[tokio::test]
async fn what_clients_send_forges_no_line_of_the_log() {
    let server = server_with(&[TINY], &[("OLLAMA_DEBUG", "2")]);
    let forged = "x\n2026-01-01T00:00:00Z ERROR forged\r\u{1b}[2J\u{2028}\u{202e}";
    for body in [
        json!({ "model": forged, "prompt": "x" }),
        json!({ "model": "tiny", "prompt": forged, "stream": false, "options": { forged: 1, "num_predict": 1 } }),
        json!({ "model": "tiny", "prompt": "x", "options": { "num_ctx": forged } }),
        json!({ "model": "tiny", "prompt": "x", "template": forged }),
        json!({ "model": format!("127.0.0.1:1/{forged}") }),
    ] {
        for path in [
            "/api/generate",
            "/api/chat",
            "/api/pull",
            "/api/create",
            "/api/delete",
        ] {
            server.post(path, &body).await;
        }
    }
    for path in [
        "/%0aforged",
        "/api/blobs/sha256:%0d%0aforged",
        "/v1/models/%1b%5b2J",
    ] {
        server.get(path).await;
    }
    let log = log_with(&server, "forged");
    let forged = log.lines().find(|line| line.starts_with("2026-01-01"));
    assert_eq!(forged, None);
    let control = |c: char| c != '\n' && (c.is_control() || ('\u{2028}'..='\u{202e}').contains(&c));
    assert_eq!(log.find(control), None, "{log:?}");
}
