//! The protocol: hosts, origins, lengths, heads and paths.

use serde_json::json;

use super::{TINY, Target};

#[test]
fn hosts_that_are_not_this_machine_are_refused() {
    let target = Target::new(&[]);
    let long = "x".repeat(10_240);
    for (host, status) in [
        ("evil.com", 403),
        ("evil.com:11434", 403),
        ("127.0.0.1.evil.com", 403),
        ("localhost.evil.com", 403),
        ("xlocalhost", 403),
        ("localhost.", 403),
        ("l\u{43e}calhost", 403),
        ("xn--lcalhost-0jg", 403),
        ("localhost@evil.com", 403),
        ("evil.com/.local", 403),
        ("evil.com#.internal", 403),
        ("8.8.8.8", 403),
        ("169.254.169.254", 403),
        (long.as_str(), 403),
        ("", 400),
        (":11434", 400),
        ("localhost\0", 400),
        ("localhost", 200),
        ("LocalHost:1", 200),
        ("a.localhost", 200),
        ("nas.local:80", 200),
        ("db.internal", 200),
        ("127.0.0.1", 200),
        ("10.0.0.1:11434", 200),
        ("[::1]:11434", 200),
    ] {
        let header = format!("Host: {host}");
        let answer = target.request("GET /api/version", &[&header], b"");
        assert_eq!(answer.status, status, "{host}");
        let body = format!("{{\"model\":\"{TINY}\"}}");
        let answer = target.request("DELETE /api/delete", &[&header], body.as_bytes());
        assert!(status == 200 || answer.status == status, "{host}");
        if status == 200 {
            assert_eq!(answer.status, 200, "{host}: {}", answer.text);
            target
                .server
                .create(TINY, &crate::models::path("tiny/tiny-llama.gguf"));
        }
    }
    let twice = ["Host: localhost", "Host: evil.com"];
    assert_eq!(target.request("GET /", &twice, b"").status, 400);
    // The target's authority is the host that counts, and HTTP/1.1 needs one.
    for (request, status) in [
        ("GET http://evil.com/ HTTP/1.1\r\nHost: localhost", 403),
        ("GET http://localhost/ HTTP/1.1\r\nHost: evil.com", 200),
        ("GET / HTTP/1.1", 400),
        ("GET / HTTP/1.0", 200),
    ] {
        let answer = target.raw(format!("{request}\r\nConnection: close\r\n\r\n").as_bytes());
        assert_eq!(answer.status, status, "{request}");
    }
    target.is_well();
}

#[test]
fn pages_of_other_sites_run_nothing() {
    let target = Target::new(&[("OLLAMA_ORIGINS", "https://*.corp.example")]);
    for (origin, is_allowed) in [
        ("http://localhost", true),
        ("https://localhost:8443", true),
        ("http://127.0.0.1:3000", true),
        ("https://0.0.0.0", true),
        ("app://x", true),
        ("file://", true),
        ("tauri://localhost", true),
        ("vscode-webview://x", true),
        ("vscode-file://x", true),
        ("https://a.corp.example", true),
        ("http://a.corp.example", false),
        ("https://a.corp.example.evil.com", false),
        ("null", false),
        ("", false),
        ("https://evil.com", false),
        ("http://localhost.evil.com", false),
        ("http://127.0.0.1.evil.com", false),
        ("http://localhost@evil.com", false),
        ("http://localhost:80@evil.com", false),
    ] {
        let header = format!("Origin: {origin}");
        let answer = target.request("GET /api/version", &[&header], b"");
        let echoed = format!("access-control-allow-origin: {origin}\r\n");
        let granted = format!("{}\r\n", answer.head).contains(&echoed);
        let expected = if is_allowed {
            (200, true)
        } else {
            (403, false)
        };
        assert_eq!((answer.status, granted), expected, "{origin}");
        // A simple request, which a browser sends without asking first: no handler may run.
        let body = json!({ "model": "nosuch" }).to_string();
        let plain = [header.as_str(), "Content-Type: text/plain"];
        for line in ["POST /api/generate", "DELETE /api/delete", "POST /api/copy"] {
            let answer = target.request(line, &plain, body.as_bytes());
            assert_eq!(answer.status == 403, !is_allowed, "{line} from {origin}");
            assert!(is_allowed || answer.text.is_empty());
        }
    }
    let two = ["Origin: http://localhost", "Origin: https://evil.com"];
    assert_eq!(target.request("GET /api/version", &two, b"").status, 403);
    target.is_well();
}

#[test]
fn preflights_of_every_route() {
    let target = Target::new(&[]);
    for path in [
        "/",
        "/api/chat",
        "/api/delete",
        "/v1/models/a",
        "/api/blobs/x",
        "/nope",
    ] {
        let line = format!("OPTIONS {path}");
        let asked = [
            "Origin: http://localhost:3000",
            "Access-Control-Request-Method: BREW",
            "Access-Control-Request-Headers: x-evil",
            "Access-Control-Request-Private-Network: true",
        ];
        let answer = target.request(&line, &asked, b"");
        let head = answer.head.to_ascii_lowercase();
        assert_eq!(answer.status, 204, "{path}");
        assert!(
            head.contains(
                "access-control-allow-methods: get,post,put,patch,delete,head,options\r\n"
            )
        );
        assert!(
            head.contains("authorization,content-type") && !head.contains("x-evil"),
            "{head}"
        );
        assert!(
            !head.contains("allow-credentials") && !head.contains("private-network"),
            "{head}"
        );
        let evil = target.request(&line, &["Origin: https://evil.com"], b"");
        assert_eq!((evil.status, evil.text.as_str()), (403, ""), "{path}");
    }
}

#[test]
fn lengths_and_chunks_that_lie() {
    let target = Target::new(&[]);
    let post = |path: &str, headers: &str, body: &[u8]| {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n\r\n"
        );
        target.raw(&[head.as_bytes(), body].concat())
    };
    let smuggled = b"0\r\n\r\nDELETE /api/delete HTTP/1.1\r\nHost: localhost\r\nContent-Length: 16\r\n\r\n{\"model\":\"tiny\"}";
    let chunks = b"zz\r\n{}\r\n0\r\n\r\n";
    let extension = [b"2;".as_slice(), &[b'a'; 100_000], b"\r\n{}\r\n0\r\n\r\n"].concat();
    let trailers = [
        b"2\r\n{}\r\n0\r\n".as_slice(),
        &b"X-A: b\r\n".repeat(20_000),
        b"\r\n",
    ]
    .concat();
    for (headers, body, statuses) in [
        (
            "Content-Length: 9223372036854775808",
            b"".as_slice(),
            [413, 413],
        ),
        ("Content-Length: 269484033", b"", [413, 413]),
        ("Content-Length: 18446744073709551616", b"", [400, 400]),
        ("Content-Length: -1", b"", [400, 400]),
        (
            "Content-Length: 5\r\nContent-Length: 6",
            b"{}   ",
            [400, 400],
        ),
        (
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            smuggled,
            [400, 400],
        ),
        ("Transfer-Encoding: gzip", b"{}", [400, 400]),
        ("Transfer-Encoding: xchunked", b"{}", [400, 400]),
        ("Transfer-Encoding: chunked", chunks, [400, 400]),
        (
            "Transfer-Encoding: chunked",
            b"FFFFFFFFFFFFFFFFF\r\n{}",
            [400, 400],
        ),
        ("Transfer-Encoding: chunked", &extension, [400, 413]),
        ("Transfer-Encoding: chunked", &trailers, [400, 431]),
        ("Content-Length: 0", b"", [400, 400]),
    ] {
        for path in ["/api/generate", "/api/show", "/v1/chat/completions"] {
            let answer = post(path, headers, body);
            assert!(
                statuses.contains(&answer.status),
                "{path} {headers}: {}",
                answer.head
            );
        }
    }
    assert_eq!(
        target.post("/api/generate", b"").error(),
        "missing request body"
    );
    // One byte more than each limit, in chunks of a megabyte.
    let megabyte = [
        format!("{:x}\r\n", 1 << 20).as_bytes(),
        &[b' '; 1 << 20],
        b"\r\n",
    ]
    .concat();
    for (path, n_megabytes) in [
        ("/api/show", 33),
        ("/api/copy", 33),
        ("/api/chat", 257),
        ("/v1/embeddings", 257),
    ] {
        let answer = post(
            path,
            "Transfer-Encoding: chunked",
            &megabyte.repeat(n_megabytes),
        );
        assert_eq!(answer.status, 413, "{path}: {}", answer.head);
    }
    target.is_well();
}

#[test]
fn refusals_reach_clients_that_are_still_sending() {
    let target = Target::new(&[]);
    let body = vec![b' '; 20 << 20];
    for (line, header, status) in [
        ("POST /api/create", "Host: evil.com", 403),
        ("POST /api/create", "Origin: https://evil.com", 403),
        ("POST /api/blobs/sha256:0", "X: a", 400),
        ("POST /api/tags", "X: a", 405),
        ("POST /nope", "X: a", 404),
    ] {
        let answer = target.request(line, &[header], &body);
        assert_eq!(answer.status, status, "{line} {header}");
    }
    target.is_well();
}

#[test]
fn heads_and_paths_of_every_kind() {
    let target = Target::new(&[]);
    let get = |path: &str| target.request(&format!("GET {path}"), &[], b"");
    let fat = format!("X-A: {}", "a".repeat(200_000));
    assert_eq!(target.request("GET /", &[&fat], b"").status, 431);
    let many: Vec<String> = (0..1000).map(|i| format!("X-{i}: a")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(target.request("GET /", &many, b"").status, 431);
    assert!([414, 431].contains(&get(&format!("/{}", "a".repeat(1 << 20))).status));
    for (path, status) in [
        ("/api/\0version", 400),
        ("/api/%00version", 400),
        ("/api/version%0d%0aX-Evil:1", 404),
        ("/api/%zz", 400),
        ("/%", 400),
        ("/v1/models/%ff", 400),
        ("/api/../x", 404),
        ("/api/%2e%2e/x", 404),
        ("/api/blobs/..%2f..%2fetc%2fpasswd", 404),
        ("/v1/models/..%2F..%2Fetc%2Fpasswd", 400),
        ("/v1/models/a%2Fb", 404),
        ("//evil.com/api/tags/", 404),
        ("/API/version", 404),
        ("*", 404),
        ("/debug/pprof", 404),
        ("/debug/vars", 404),
        ("/metrics", 404),
        ("/%61pi/version", 200),
    ] {
        assert_eq!(get(path).status, status, "{path}");
    }
    // Redirects stay on this server, and bring no header of the client's.
    for (path, location) in [
        ("/api/version/", "/api/version"),
        ("//api//version", "/api/version"),
        ("/api/../api/./tags", "/api/tags"),
        ("/api/tags/?a=%0d%0aX-Evil:1", "/api/tags?a=%0d%0aX-Evil:1"),
    ] {
        let answer = get(path);
        assert_eq!(answer.status, 301, "{path}");
        assert!(
            answer.head.contains(&format!("location: {location}\r\n")),
            "{}",
            answer.head
        );
    }
    for bytes in [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".as_slice(),
        b"GET /\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: a\r\n folded\r\n\r\n",
        b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    ] {
        let status = target.raw(bytes).status;
        assert!([0, 400].contains(&status), "{bytes:?}: {status}");
    }
    target.is_well();
}

#[test]
fn methods_of_every_route() {
    let target = Target::new(&[]);
    const ROUTES: [(&str, &[&str]); 19] = [
        ("/", &["GET", "HEAD"]),
        ("/api/version", &["GET", "HEAD"]),
        ("/api/tags", &["GET", "HEAD"]),
        ("/api/ps", &["GET"]),
        ("/api/status", &["GET"]),
        ("/api/show", &["POST"]),
        ("/api/generate", &["POST"]),
        ("/api/chat", &["POST"]),
        ("/api/embed", &["POST"]),
        ("/api/create", &["POST"]),
        ("/api/copy", &["POST"]),
        ("/api/delete", &["DELETE"]),
        ("/api/pull", &["POST"]),
        ("/api/blobs/sha256:0", &["HEAD", "POST"]),
        ("/api/user/keys/x", &["DELETE"]),
        ("/api/experimental/web_search", &["POST"]),
        ("/api/experimental/model-recommendations", &["GET"]),
        ("/v1/models", &["GET"]),
        ("/v1/chat/completions", &["POST"]),
    ];
    for (path, methods) in ROUTES {
        for method in [
            "GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW",
        ] {
            let answer = target.request(&format!("{method} {path}"), &[], b"");
            if methods.contains(&method) {
                assert_ne!(answer.status, 405, "{method} {path}");
                continue;
            }
            assert_eq!(answer.status, 405, "{method} {path}");
            let allowed = format!("allow: {}\r\n", methods.join(", "));
            assert!(
                answer.head.contains(&allowed),
                "{method} {path}: {}",
                answer.head
            );
            let text = if method == "HEAD" {
                ""
            } else {
                "405 method not allowed"
            };
            assert_eq!(answer.text, text, "{method} {path}");
        }
    }
}
