//! What a registry may answer where a manifest is asked for.

use super::*;
use std::time::Instant;

/// Pulls from a registry with one answer to everything; why it failed. Nothing may be left.
async fn refused(answer: impl Fn() -> Reply + Send + Sync + 'static) -> String {
    let server = Scripted::start(move |_, _| answer());
    let (folder, registry) = registry();
    let start = Instant::now();
    let error = refusal(&registry, &server).await;
    assert!(start.elapsed() < Duration::from_secs(5), "{error}");
    assert!(error.len() < 70_000, "{} bytes", error.len());
    check_nothing(folder.path(), &registry, &server);
    error
}

fn says(error: &str, wanted: &str) {
    assert!(error.contains(wanted), "{error:.300} does not say {wanted}");
}

#[tokio::test]
async fn bodies_that_do_not_end_are_left() {
    let endless = |piece: Vec<u8>, pause: u64| {
        move || {
            let chunked = [("Transfer-Encoding", "chunked")];
            let mut reply = reply(200, &chunked, b"").without_length();
            reply.endless = Some((piece.clone(), Duration::from_millis(pause)));
            reply
        }
    };
    let large = [b"10000\r\n", &[b' '; 1 << 16][..], b"\r\n"].concat();
    says(
        &refused(endless(large, 0)).await,
        "is longer than 4194304 bytes",
    );
    let small = b"1\r\n \r\n".to_vec();
    says(&refused(endless(small, 100)).await, "within 1 s");
    let silent = || {
        let mut reply = reply(200, &[("Content-Length", "10")], b"{");
        reply.silence = Duration::from_secs(4);
        reply
    };
    says(&refused(silent).await, "within 1 s");
    // Headers that do not end: for too long, or with too many bytes.
    let slow = || Reply {
        bytes: b"HTTP/1.1 200 X\r\n".to_vec(),
        endless: Some((b"a: b\r\n".to_vec(), Duration::from_millis(100))),
        silence: Duration::ZERO,
    };
    says(&refused(slow).await, "within 2 s");
    let informed = || Reply {
        bytes: Vec::new(),
        endless: Some((
            b"HTTP/1.1 102 X\r\n\r\n".repeat(100),
            Duration::from_millis(1),
        )),
        silence: Duration::ZERO,
    };
    says(&refused(informed).await, "within 2 s");
}

#[tokio::test]
async fn headers_are_bounded() {
    let long = "x".repeat(1 << 20);
    let one = move || reply(200, &[("X-Long", &long)], b"{}");
    says(&refused(one).await, "Get \"http://127.0.0.1");
    let many = || {
        let names: Vec<String> = (0..10_000).map(|i| format!("X-{i}")).collect();
        let headers: Vec<_> = names.iter().map(|name| (name.as_str(), "v")).collect();
        reply(200, &headers, b"{}")
    };
    says(&refused(many).await, "Get \"http://127.0.0.1");
    let long = "x".repeat(1 << 20);
    let realm = move || reply(401, &[("WWW-Authenticate", &long)], b"");
    says(&refused(realm).await, "Get \"http://127.0.0.1");
    // No HTTP at all: another service listens there.
    let other = || Reply {
        bytes: b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(),
        endless: None,
        silence: Duration::ZERO,
    };
    says(&refused(other).await, "Get \"http://127.0.0.1");
}

#[tokio::test]
async fn what_is_no_manifest_is_refused() {
    let of = |body: Vec<u8>| move || reply(200, &[("Content-Type", "text/html")], &body);
    let digest = Digest::of(b"x");
    let layer = |more: &str| format!(r#"{{"layers":[{{"digest":"{digest}",{more}}}]}}"#);
    let short = format!(r#"{{"layers":[{{"digest":"sha256:{}"}}]}}"#, "a".repeat(63));
    let many = vec![format!(r#"{{"digest":"{digest}","size":1}}"#); 10_000].join(",");
    for (body, wanted) in [
        (String::new(), "not valid JSON"),
        ("<html>no</html>".into(), "not valid JSON"),
        ("null".into(), "not valid JSON"),
        (r#"{"layers":[]} trailing"#.into(), "not valid JSON"),
        (
            "{\"layers\":".to_owned() + &"[".repeat(10_000),
            "not valid JSON",
        ),
        ("{}".into(), "has no layers"),
        (r#"{"errors":[{"code":"UNKNOWN"}]}"#.into(), "has no layers"),
        (r#"{"manifests":[]}"#.into(), "has no layers"),
        (short, "invalid digest"),
        (
            r#"{"layers":[{"digest":"md5:0123"}]}"#.into(),
            "invalid digest",
        ),
        (r#"{"layers":[{"digest":""}]}"#.into(), "invalid digest"),
        (
            r#"{"config":{"digest":"sha256:../x"},"layers":[]}"#.into(),
            "invalid digest",
        ),
        (layer(r#""size":-1"#), "has the size -1"),
        (
            layer(r#""size":4611686018427387904"#),
            "more than 4398046511104",
        ),
        (layer(r#""size":9223372036854775808"#), "not valid JSON"),
        (
            format!(r#"{{"layers":[{many}]}}"#),
            "10000 layers, more than 4096",
        ),
        (
            format!(
                r#"{{"layers":[{{"digest":"{digest}","size":1}},{{"digest":"{digest}","size":2}}]}}"#
            ),
            "two sizes",
        ),
        (
            layer(r#""size":1,"mediaType":"application/vnd.ollama.image.tensor","name":"../x""#),
            "tensor by tensor",
        ),
    ] {
        says(&refused(of(body.into_bytes())).await, wanted);
    }
}

/// Nothing is unpacked: a small answer cannot become a large one.
#[tokio::test]
async fn encoded_answers_are_refused() {
    for encoding in ["gzip", "br", "zstd", "deflate"] {
        let answer = move || {
            let bomb = [0x1f, 0x8b].repeat(1000);
            reply(200, &[("Content-Encoding", encoding)], &bomb)
        };
        says(
            &refused(answer).await,
            &format!("the encoding \"{encoding}\""),
        );
    }
    let server = with_blobs(|asked, _| {
        let mut reply = blob_reply(asked, true);
        let head = b"HTTP/1.1 206 X\r\n";
        reply.bytes.splice(
            ..head.len(),
            *b"HTTP/1.1 206 X\r\nContent-Encoding: gzip\r\n",
        );
        reply
    });
    let (folder, registry) = registry();
    says(&refusal(&registry, &server).await, "the encoding \"gzip\"");
    check_nothing(folder.path(), &registry, &server);
    let asked = server.asked();
    assert!(
        asked
            .iter()
            .all(|a| a.header("accept-encoding") == Some("identity"))
    );
}

#[tokio::test]
async fn errors_are_told_in_plain_and_cut() {
    let loud = || {
        reply(
            500,
            &[],
            "\u{1b}[31mbroken\r\u{7}\nline ".repeat(50_000).as_bytes(),
        )
    };
    let error = refused(loud).await;
    says(&error, "pull model manifest: 500: [31mbroken\nline ");
    assert!(!error.contains(['\u{1b}', '\r', '\u{7}']));
    let headers = || reply(200, &[("Location", "x\r\nInjected: y")], b"{}");
    says(&refused(headers).await, "has no layers");
    // A registry that gives its error the length of the blob.
    let lying = || {
        let mut reply = reply(416, &[("Content-Length", "300000")], b"too far");
        reply.silence = Duration::from_secs(20);
        reply
    };
    says(&refused(lying).await, "416: too far");
}

/// Neither what a model says about itself nor a digest twice makes a difference.
#[tokio::test]
async fn odd_manifests_make_models_all_the_same() {
    let layer = |media_type: &str| {
        let (digest, size) = (Digest::of(&blob()), blob().len());
        format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{size}}}"#)
    };
    let manifest = format!(
        r#"{{"schemaVersion":-1,"mediaType":7,"layers":[{},{},{}],"x":[[]]}}"#,
        layer(media::MODEL),
        layer("application/unknown"),
        layer(media::MODEL),
    );
    let wanted = manifest.clone();
    let server = Scripted::start(move |asked, _| match asked.path.contains("/manifests/") {
        true => reply(200, &[], manifest.as_bytes()),
        false => blob_reply(asked, true),
    });
    let (folder, registry) = registry();
    pull(&registry, &name_of(&server)).await.1.unwrap();
    let (_, _, bytes) = registry.inner.store.manifest(&name_of(&server)).unwrap();
    assert_eq!(bytes, wanted.as_bytes());
    assert_eq!(files(folder.path()).len(), 1);
    assert_eq!(server.asked().len(), 2, "a digest is fetched once");
}
