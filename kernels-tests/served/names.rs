//! Names, digests and file names that lead elsewhere, through every endpoint that takes one; uploads that lie.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::models;
use crate::registry::{Model, digest, last_line};
use crate::scripted::{Scripted, reply};
use crate::server::Server;

/// Every file below a folder, with its size.
fn tree(folder: PathBuf) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    let mut folders = vec![folder];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
            let metadata = entry.metadata().expect("it is there");
            match metadata.is_dir() {
                true => folders.push(entry.path()),
                false => found.push((entry.path(), metadata.len())),
            }
        }
    }
    found.sort();
    found
}

/// A server with a model and a file beside its models that nobody may touch; its files.
fn server() -> (Server, Vec<(PathBuf, u64)>) {
    let server = Server::start(&[]);
    server.create("m", &models::path("tiny/tiny-llama.gguf"));
    std::fs::write(server.home.path().join("canary"), "c").expect("write");
    let files = tree(server.home.path().to_owned());
    (server, files)
}

fn check_untouched(server: &Server, files: &[(PathBuf, u64)]) {
    assert_eq!(
        tree(server.home.path().to_owned()),
        files,
        "{}",
        server.log()
    );
}

/// The texts of refusals tell nothing of the machine.
fn tells_nothing(server: &Server, text: &str) {
    let home = server.home.path().to_str().expect("a plain path");
    assert!(
        !text.contains(home) && !text.contains("/blobs") && !text.contains("0x"),
        "{text}"
    );
}

/// A request as its bytes: no client would send these.
fn raw(server: &Server, head: &str, body: &[u8]) -> String {
    let mut stream = TcpStream::connect(&server.address).expect("a connection");
    let head = format!("{head}\r\nHost: localhost\r\nConnection: close\r\n");
    let sent = stream.write_all(&[head.as_bytes(), body].concat());
    let mut answer = Vec::new();
    // A server that has refused may close before all was sent.
    let read = stream.read_to_end(&mut answer);
    assert!(
        sent.is_ok() && read.is_ok() || !answer.is_empty(),
        "no answer to {head:.80}"
    );
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn digests_in_every_place() {
    let (server, files) = server();
    let hex = "ab".repeat(32);
    let long = format!("sha256:{}", "a".repeat(1 << 20));
    let bad = [
        String::new(),
        format!("sha256:{}", &hex[1..]),
        format!("sha256:{hex}0"),
        format!("md5:{hex}"),
        "../../canary".into(),
        "sha256:../../../canary".into(),
        format!("sha256:../{}", &hex[3..]),
        "sha256-../../../etc/passwd".into(),
        format!("sha256:{}\0", &hex[1..]),
        format!("sha256:{}", "٣".repeat(32)),
        long,
    ];
    for digest in &bad {
        let maps = [
            json!({ "model": "n", "files": { "a.gguf": digest } }),
            json!({ "model": "n", "from": "m", "adapters": { "a.gguf": digest } }),
            json!({ "model": "n", "from": "m", "draft_files": { "a.gguf": digest } }),
        ];
        for body in maps {
            let reply = server.post("/api/create", &body).await;
            assert_eq!(reply.status, 400, "{digest:.100}: {:.200}", reply.text);
            assert_eq!(reply.json()["error"], "invalid digest format");
        }
    }
    let escaped = |text: &str| -> String { text.bytes().map(|b| format!("%{b:02x}")).collect() };
    for digest in bad.iter().filter(|d| !d.is_empty() && d.len() < 200) {
        for path in [
            escaped(digest),
            digest.replace('\0', "%00").replace('٣', "%d9%a3"),
        ] {
            for method in ["HEAD", "POST"] {
                let head = format!("{method} /api/blobs/{path} HTTP/1.1\r\nContent-Length: 1");
                let answer = raw(&server, &head, b"\r\nx");
                let status = answer.split(' ').nth(1).unwrap_or_default();
                assert!(
                    ["400", "404"].contains(&status),
                    "{method} {path}: {answer}"
                );
                tells_nothing(&server, &answer);
            }
        }
    }
    // Capitals are the same digest, whose bytes are others.
    let capitals = format!("/api/blobs/sha256:{}", hex.to_uppercase());
    let answer = raw(
        &server,
        &format!("POST {capitals} HTTP/1.1\r\nContent-Length: 1"),
        b"\r\nx",
    );
    assert!(answer.contains("digest mismatch, expected"), "{answer}");
    let answer = raw(
        &server,
        &format!(
            "POST /api/blobs/{} HTTP/1.1\r\nContent-Length: 1",
            "a".repeat(1 << 20)
        ),
        b"\r\nx",
    );
    let status = answer.split(' ').nth(1).unwrap_or_default();
    assert!(
        ["400", "404", "414", "431"].contains(&status),
        "{answer:.200}"
    );
    check_untouched(&server, &files);
}

#[tokio::test]
async fn names_in_every_place() {
    let (server, files) = server();
    let long = "a".repeat(81);
    let host = format!("{}/n/m", "h".repeat(351));
    let bad = [
        "../x",
        "a/../b",
        "a//b",
        "/abs",
        "a\\b",
        "C:\\x",
        "x:..",
        "x:.hidden",
        "-x",
        "host:5000/m",
        "m\tx",
        "m\nx",
        "m\0",
        "m\u{202e}",
        "con",
        "aux.txt",
        "nul:latest",
        "model.",
        "a:b:c",
        "m@sha256:ab",
        "../../canary",
        "a/b/c/d/e",
        "mödel",
        &long,
        &host,
    ];
    for name in bad {
        let requests: [(&str, Value); 12] = [
            ("/api/pull", json!({ "model": name })),
            ("/api/push", json!({ "model": name, "stream": false })),
            ("/api/create", json!({ "model": name, "from": "m" })),
            (
                "/api/create",
                json!({ "model": "n", "from": name, "stream": false }),
            ),
            ("/api/copy", json!({ "source": name, "destination": "n" })),
            ("/api/copy", json!({ "source": "m", "destination": name })),
            ("/api/show", json!({ "model": name })),
            ("/api/generate", json!({ "model": name, "prompt": "x" })),
            ("/api/chat", json!({ "model": name })),
            ("/api/embed", json!({ "model": name, "input": "x" })),
            (
                "/v1/chat/completions",
                json!({ "model": name, "messages": [{ "role": "user", "content": "x" }] }),
            ),
            (
                "/v1/messages",
                json!({ "model": name, "max_tokens": 1, "messages": [{ "role": "user", "content": "x" }] }),
            ),
        ];
        for (path, body) in requests {
            let reply = server.post(path, &body).await;
            // Ollama's push and its creation from a model report a bad name within their job.
            let statuses: &[u16] = if body["stream"] == false {
                &[400, 500]
            } else {
                &[400, 404]
            };
            assert!(
                statuses.contains(&reply.status),
                "{path} {name:?}: {} {}",
                reply.status,
                reply.text
            );
            assert!(
                reply.json()["error"].is_string() || reply.json()["error"].is_object(),
                "{}",
                reply.text
            );
            tells_nothing(&server, &reply.text.replace(name, ""));
        }
        let delete = reqwest::Client::new()
            .delete(server.url("/api/delete"))
            .body(json!({ "model": name }).to_string());
        assert_eq!(
            delete.send().await.expect("an answer").status(),
            400,
            "{name:?}"
        );
    }
    check_untouched(&server, &files);
}

#[tokio::test]
async fn file_names_of_a_creation() {
    let (server, files) = server();
    let weights = std::fs::read(models::path("tiny/tiny-llama.gguf")).expect("a model");
    let weights = digest(&weights);
    let long = "a".repeat(4096);
    for name in [
        "../a.gguf",
        "/etc/passwd",
        "a/../../b",
        ".",
        "",
        "a//b",
        "a\\..\\b",
        "C:/x.safetensors",
        "a/",
        "./a",
        &long,
    ] {
        for key in ["files", "draft_files"] {
            let mut body = json!({ "model": "n", "from": if key == "files" { "" } else { "m" } });
            body[key] = json!({ name: weights });
            let reply = server.post("/api/create", &body).await;
            assert_eq!(
                (reply.status, &reply.json()["error"]),
                (400, &json!("file path must be relative")),
                "{key} {name:.20}"
            );
        }
    }
    let many: serde_json::Map<_, _> = (0..10_000)
        .map(|i| (format!("{i}.gguf"), json!(weights)))
        .collect();
    let reply = server
        .post("/api/create", &json!({ "model": "n", "files": many }))
        .await;
    assert_eq!(reply.status, 400);
    assert!(reply.text.contains("too many files"), "{}", reply.text);
    check_untouched(&server, &files);
}

/// One model for all spellings, whichever came first.
#[tokio::test]
async fn letter_case_makes_no_twins() {
    let (server, _) = server();
    let names = async || -> Vec<String> {
        let tags = server.get("/api/tags").await.json();
        let models = tags["models"].as_array().expect("models").iter();
        models
            .map(|m| m["name"].as_str().expect("a name").to_owned())
            .collect()
    };
    for name in ["Foo", "foo", "FOO:Latest"] {
        let reply = server
            .post(
                "/api/create",
                &json!({ "model": name, "from": "M", "system": name }),
            )
            .await;
        assert!(reply.text.contains("success"), "{}", reply.text);
        assert_eq!(names().await.len(), 2);
    }
    let shown = server
        .post("/api/show", &json!({ "model": "fOO" }))
        .await
        .json();
    assert_eq!(shown["system"], "FOO:Latest");
    let copied = server
        .post("/api/copy", &json!({ "source": "m", "destination": "foo" }))
        .await;
    assert_eq!(copied.status, 200);
    assert_eq!(names().await.len(), 2);
    let delete = reqwest::Client::new()
        .delete(server.url("/api/delete"))
        .body("{\"model\":\"FOO\"}");
    assert_eq!(delete.send().await.expect("an answer").status(), 200);
    assert_eq!(names().await, ["m:latest"]);
    // A registry sees the store's spelling.
    let answers = Model::tiny().answers();
    let registry = Scripted::start(move |asked, n| match asked.method.as_str() {
        "HEAD" => reply(200, &[], b""),
        "PUT" => reply(201, &[], b""),
        _ => answers(asked, n),
    });
    let spelled = |rest: &str| format!("{}/{rest}", registry.address);
    for name in [registry.name(), spelled("NS/M:T"), spelled("Ns/m:T")] {
        for path in ["/api/pull", "/api/push"] {
            let line = last_line(&server, path, &name, true).await;
            assert_eq!(line, "{\"status\":\"success\"}", "{path} {name}");
        }
        assert_eq!(names().await, [registry.name(), "m:latest".into()]);
    }
    let manifests = server.home.path().join("models/manifests");
    assert_eq!(tree(manifests).len(), 2);
    let asked = registry.asked();
    let of_manifests = asked.iter().filter(|a| a.path.contains("/manifests/"));
    let methods: Vec<_> = of_manifests
        .map(|a| (a.path.as_str(), a.method.as_str()))
        .collect();
    let both = ["GET", "PUT"].map(|method| ("/v2/ns/m/manifests/t", method));
    assert_eq!(methods, [both, both, both].concat());
}

#[tokio::test]
async fn uploads_that_lie_leave_nothing() {
    let (server, files) = server();
    let (right, wrong) = (vec![7u8; 300_000], vec![8u8; 300_000]);
    let of_right = format!("POST /api/blobs/{} HTTP/1.1", digest(&right));
    let with = |length: usize, body: &[u8]| {
        let head = format!("{of_right}\r\nContent-Length: {length}");
        raw(&server, &head, &[b"\r\n", body].concat())
    };
    for answer in [with(wrong.len(), &wrong), with(1000, &right), with(0, b"")] {
        assert!(
            answer.contains("400") && answer.contains("digest mismatch"),
            "{answer:.300}"
        );
        tells_nothing(&server, &answer);
    }
    {
        // Half of it, then gone.
        let mut stream = TcpStream::connect(&server.address).expect("a connection");
        let head = format!("{of_right}\r\nHost: localhost\r\nContent-Length: 300000\r\n\r\n");
        stream
            .write_all(&[head.as_bytes(), &right[..100_000]].concat())
            .expect("sent");
    }
    let start = std::time::Instant::now();
    while tree(server.home.path().to_owned()) != files {
        assert!(
            start.elapsed() < std::time::Duration::from_secs(5),
            "a rest stays"
        );
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    // Many at once of one digest, half of them with other bytes.
    let uploads = (0..50).map(|i| {
        let body = if i % 2 == 0 {
            right.clone()
        } else {
            wrong.clone()
        };
        let url = server.url(&format!("/api/blobs/{}", digest(&right)));
        tokio::spawn(async move {
            let sent = reqwest::Client::new().post(url).body(body).send().await;
            sent.expect("an answer").status().as_u16()
        })
    });
    for (i, upload) in uploads.collect::<Vec<_>>().into_iter().enumerate() {
        let status = upload.await.expect("no panic");
        // Once the blob is there, a body is not looked at.
        assert!(
            matches!((i % 2, status), (0, 200 | 201) | (1, 200 | 400)),
            "{i}: {status}"
        );
    }
    let now = tree(server.home.path().to_owned());
    assert_eq!(now.len(), files.len() + 1, "one blob");
    let blob = server
        .home
        .path()
        .join("models/blobs")
        .join(digest(&right).replace(':', "-"));
    assert_eq!(std::fs::read(blob).expect("the blob"), right);
}
