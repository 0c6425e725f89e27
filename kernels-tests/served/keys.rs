//! API keys and TLS: who may call, told in the shape of each API; the command line as a client with a key.

use std::time::{Duration, Instant};

use reqwest::{Certificate, Client, Response};
use serde_json::Value;

use crate::server::{Server, binary};

const CERTIFICATE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/kernels-tests/served/tls/cert.pem"
);
const PRIVATE_KEY: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/kernels-tests/served/tls/key.pem"
);

/// A server whose keys are those of this file.
fn server(keys: &std::path::Path) -> Server {
    let path = keys.to_str().expect("a plain path");
    Server::start(&[("OLLAMA_WGPU_API_KEYS_FILE", path)])
}

async fn get(server: &Server, path: &str, header: Option<(&str, &str)>) -> Response {
    let mut request = Client::new().get(server.url(path));
    if let Some((name, value)) = header {
        request = request.header(name, value);
    }
    request.send().await.expect("an answer")
}

#[tokio::test]
async fn only_those_with_a_key_may_call() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("keys");
    std::fs::write(&file, "# users\nalpha\nbeta\n").expect("write");
    let server = server(&file);
    for (header, status) in [
        (None, 401),
        (Some(("authorization", "Bearer gamma")), 401),
        (Some(("authorization", "Bearer alpha")), 200),
        (Some(("x-api-key", "beta")), 200),
    ] {
        for path in ["/api/tags", "/v1/models", "/api/version"] {
            assert_eq!(
                get(&server, path, header).await.status(),
                status,
                "{path} {header:?}"
            );
        }
    }
    assert_eq!(get(&server, "/", None).await.status(), 200);
    assert_eq!(get(&server, "/nope", None).await.status(), 401);
    let shape = async |path: &str| {
        let reply = Client::new()
            .post(server.url(path))
            .body("{}")
            .send()
            .await
            .expect("an answer");
        assert_eq!(
            (
                reply.status().as_u16(),
                &reply.headers()["www-authenticate"]
            ),
            (401, &"Bearer".parse().expect("a header"))
        );
        serde_json::from_str::<Value>(&reply.text().await.expect("a body")).expect("JSON")
    };
    assert!(shape("/api/chat").await["error"].is_string());
    assert_eq!(
        shape("/v1/chat/completions").await["error"]["type"],
        "api_error"
    );
    assert_eq!(
        shape("/v1/messages").await["error"]["type"],
        "authentication_error"
    );
    let models = get(
        &server,
        "/v1/models",
        Some(("anthropic-version", "2023-06-01")),
    )
    .await;
    let refused: Value = models.json().await.expect("JSON");
    assert_eq!(refused["error"]["type"], "authentication_error");
    let list = |key: &str| {
        let mut command = binary();
        command
            .arg("list")
            .env("OLLAMA_HOST", &server.address)
            .env("OLLAMA_API_KEY", key);
        command.output().expect("it runs").status.success()
    };
    assert!(list("alpha") && !list("wrong"));
}

#[cfg(unix)]
#[test]
fn keys_that_other_users_may_read_are_warned_of() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("keys");
    std::fs::write(&file, "alpha").expect("write");
    for (mode, is_told) in [(0o600, false), (0o640, true), (0o604, true)] {
        let rights = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(&file, rights).expect("its owner");
        let server = server(&file);
        while !server.log().contains("listening on") {
            std::thread::sleep(Duration::from_millis(5));
        }
        let log = server.log();
        assert_eq!(
            log.contains("may read the API keys"),
            is_told,
            "{mode:o}: {log}"
        );
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_hangup_reads_the_keys_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("keys");
    std::fs::write(&file, "alpha").expect("write");
    let server = server(&file);
    let status = async |key: &str| {
        let bearer = format!("Bearer {key}");
        get(&server, "/api/tags", Some(("authorization", &bearer)))
            .await
            .status()
            .as_u16()
    };
    assert_eq!((status("alpha").await, status("beta").await), (200, 401));
    std::fs::write(&file, "beta").expect("write");
    server.hang_up();
    let start = Instant::now();
    while status("beta").await != 200 {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "{}",
            server.log()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(status("alpha").await, 401);
    // A file that cannot be read changes nothing.
    std::fs::write(&file, "").expect("write");
    server.hang_up();
    while !server.log().contains("stay as they were") {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "{}",
            server.log()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(status("beta").await, 200);
}

#[tokio::test]
async fn tls_serves_https_and_nothing_else() {
    let server = Server::start(&[
        ("OLLAMA_WGPU_TLS_CERT", CERTIFICATE),
        ("OLLAMA_WGPU_TLS_KEY", PRIVATE_KEY),
    ]);
    let pem = std::fs::read(CERTIFICATE).expect("the certificate");
    let certificate = Certificate::from_pem(&pem).expect("a certificate");
    let client = Client::builder()
        .tls_certs_only([certificate])
        .no_proxy()
        .build()
        .expect("a client");
    let url = format!("https://{}/api/version", server.address);
    let reply = client.get(&url).send().await.expect("an answer over TLS");
    assert_eq!(reply.status(), 200);
    assert!(
        Client::new().get(&url).send().await.is_err(),
        "an unknown certificate is not trusted"
    );
    assert!(
        Client::new()
            .get(server.url("/api/version"))
            .send()
            .await
            .is_err(),
        "no plain http"
    );
    assert_eq!(
        client.get(&url).send().await.expect("still there").status(),
        200
    );
}

#[test]
fn wrong_settings_are_named_at_the_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let refusal = |variables: &[(&str, &str)]| {
        let output = binary()
            .arg("serve")
            .env("HOME", folder.path())
            .env("OLLAMA_HOST", "127.0.0.1:0")
            .env("OLLAMA_WGPU_DEVICE", "cpu")
            .envs(variables.iter().copied())
            .output()
            .expect("it runs");
        assert!(!output.status.success(), "{variables:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let text = refusal(&[("OLLAMA_WGPU_API_KEYS_FILE", "/nonexistent/keys")]);
    assert!(
        text.contains("OLLAMA_WGPU_API_KEYS_FILE") && text.contains("/nonexistent/keys"),
        "{text}"
    );
    let keys = folder.path().join("keys");
    for (content, part) in [
        ("# nobody\n", "no key in the file"),
        ("\u{0}".repeat(2 << 20).as_str(), "1 MiB"),
    ] {
        std::fs::write(&keys, content).expect("write");
        let text = refusal(&[("OLLAMA_WGPU_API_KEYS_FILE", keys.to_str().expect("a path"))]);
        assert!(text.contains(part) && text.contains("keys"), "{text}");
    }
    let text = refusal(&[("OLLAMA_WGPU_TLS_CERT", CERTIFICATE)]);
    assert!(text.contains("OLLAMA_WGPU_TLS_KEY"), "{text}");
    let text = refusal(&[
        ("OLLAMA_WGPU_TLS_CERT", CERTIFICATE),
        ("OLLAMA_WGPU_TLS_KEY", CERTIFICATE),
    ]);
    assert!(text.contains("cert.pem"), "{text}");
}
