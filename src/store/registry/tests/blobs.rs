//! What a registry may answer where a blob is asked for, and what may lie in the way of it.

use super::*;
use futures_util::future::join_all;
use std::sync::atomic::AtomicUsize;
use std::time::Instant;

fn is_config(asked: &Asked) -> bool {
    asked.path.ends_with(&Digest::of(b"{}").to_string())
}

#[tokio::test]
async fn lies_leave_no_blob_and_no_manifest() {
    type Script = fn(&Asked, usize) -> Reply;
    let scripts: [(&str, Script, &str); 7] = [
        (
            "other bytes",
            |asked, _| {
                let mut reply = blob_reply(asked, true);
                let last = reply.bytes.len() - 1;
                reply.bytes[last] ^= 1;
                reply
            },
            "digest mismatch, file must be downloaded again",
        ),
        (
            "another range",
            |asked, _| {
                let (start, end) = asked.range().unwrap();
                let range = format!("bytes {}-{end}/300000", start + 1);
                reply(206, &[("Content-Range", &range)], &blob()[start..end])
            },
            "max retries exceeded",
        ),
        ("no such blob", |_, _| reply(404, &[], b"gone"), "404: gone"),
        (
            "a redirect to a file",
            |_, _| reply(307, &[("Location", "file:///etc/passwd")], b""),
            "neither http nor https",
        ),
        (
            "a redirect in a circle",
            |asked, _| reply(302, &[("Location", &asked.path)], b""),
            "maximum redirects exceeded (10)",
        ),
        (
            "a redirect with a password",
            |_, _| reply(302, &[("Location", "http://u:p@127.0.0.1/x")], b""),
            "password",
        ),
        (
            "416 with the length of the blob",
            |_, _| reply(416, &[("Content-Length", "300000")], b"short"),
            "max retries exceeded",
        ),
    ];
    for (what, script, wanted) in scripts {
        let server = with_blobs(script);
        let (folder, registry) = registry();
        let error = refusal(&registry, &server).await;
        assert!(error.contains(wanted), "{what}: {error}");
        check_nothing(folder.path(), &registry, &server);
    }
}

/// Without a length and without an end, and more than was asked for: only what the manifest says is taken.
#[tokio::test]
async fn bytes_beyond_the_blob_are_left() {
    let server = with_blobs(|asked, _| {
        let mut reply = blob_reply(asked, false).without_length();
        reply.endless = Some((vec![7; 1 << 16], Duration::ZERO));
        reply
    });
    let (folder, registry) = registry();
    pull(&registry, &name_of(&server)).await.1.unwrap();
    check_whole(folder.path(), &registry, &name_of(&server));
}

#[tokio::test]
async fn a_trickle_counts_as_silence() {
    let server = with_blobs(|asked, n| {
        let mut reply = blob_reply(asked, true);
        if n < 3 && !is_config(asked) {
            let rest = reply.bytes.split_off(reply.bytes.len() - 1000);
            reply.endless = Some((rest[..1].to_vec(), Duration::from_millis(10)));
            if n == 1 {
                // The whole blob in trickles would take an hour.
                reply.bytes.truncate(reply.bytes.len() - 200_000);
            }
        }
        reply
    });
    let (_folder, registry) = registry();
    let start = Instant::now();
    let (_, result) = pull(&registry, &name_of(&server)).await;
    assert!(start.elapsed() < Duration::from_secs(10));
    // What trickled was not the blob's, which its digest tells.
    assert!(
        result
            .unwrap_err()
            .to_string()
            .starts_with("digest mismatch")
    );
    pull(&registry, &name_of(&server)).await.1.unwrap();
}

#[tokio::test]
async fn a_registry_that_only_trickles_is_given_up() {
    let server = with_blobs(|_, _| {
        let mut reply = reply(200, &[("Content-Length", "300000")], b"");
        reply.silence = Duration::from_secs(1);
        reply
    });
    let hasty = Timing {
        stall: Duration::from_millis(50),
        ..timing()
    };
    let (folder, registry) = registry_with(hasty);
    let error = refusal(&registry, &server).await;
    assert!(error.contains("too little"), "{error}");
    check_nothing(folder.path(), &registry, &server);
}

#[tokio::test]
async fn refusals_are_believed_and_failures_are_not() {
    for (status, wanted) in [(403, "403: no"), (404, "404: no"), (401, "401: ")] {
        let server = with_blobs(move |_, _| reply(status, &[], b"no"));
        let (_folder, registry) = registry();
        let error = refusal(&registry, &server).await;
        assert!(error.starts_with(wanted), "{error}");
        assert_eq!(server.asked().len(), 2, "{status} is asked once");
    }
    let server = with_blobs(|_, _| reply(503, &[], b"down"));
    let (_folder, registry) = registry();
    let error = refusal(&registry, &server).await;
    assert_eq!(error, "max retries exceeded: 503: down");
    assert_eq!(server.asked().len(), 7);
    let server = with_blobs(|asked, n| match n {
        1..=5 => reply(500, &[], b""),
        _ => blob_reply(asked, true),
    });
    let (folder, registry) = super::registry();
    pull(&registry, &name_of(&server)).await.1.unwrap();
    check_whole(folder.path(), &registry, &name_of(&server));
}

#[tokio::test]
async fn a_wish_to_wait_is_followed_within_bounds() {
    let server = with_blobs(|asked, n| match n {
        1 => reply(429, &[("Retry-After", "1")], b"slow down"),
        _ => blob_reply(asked, true),
    });
    let (_folder, registry) = registry();
    let start = Instant::now();
    pull(&registry, &name_of(&server)).await.1.unwrap();
    assert!(start.elapsed() > Duration::from_millis(950));
    let wait = |seconds| {
        let retry_after = Some(Duration::from_secs(seconds));
        let body = String::new();
        let error = Error::Status {
            status: 429,
            body,
            retry_after,
        };
        error.wait(Duration::from_secs(2)).as_secs()
    };
    assert_eq!([0, 30, u64::MAX].map(wait), [2, 30, 60]);
}

#[tokio::test]
async fn other_parts_than_were_asked_for_are_refused() {
    let server = with_blobs(|asked, n| match (n, asked.range()) {
        (1, _) => reply(
            206,
            &[("Content-Type", "multipart/byteranges; boundary=x")],
            b"--x",
        ),
        (2, _) => reply(206, &[("Content-Range", "bytes 0-299999/300001")], &blob()),
        (3, _) => reply(
            206,
            &[("Content-Range", "bytes 1-299999/300000")],
            &blob()[1..],
        ),
        // Longer than was asked for.
        (_, Some((start, _))) if !is_config(asked) => {
            let range = format!("bytes {start}-299999/*");
            reply(
                206,
                &[("Content-Range", &range)],
                &[&blob()[start..], b"more"].concat(),
            )
        }
        _ => blob_reply(asked, true),
    });
    let (folder, registry) = registry();
    pull(&registry, &name_of(&server)).await.1.unwrap();
    check_whole(folder.path(), &registry, &name_of(&server));
}

/// A blob that does not match takes nothing away that was there.
#[tokio::test]
async fn a_lying_update_leaves_the_model_as_it_was() {
    let is_lying = Arc::new(AtomicUsize::new(0));
    let lies = Arc::clone(&is_lying);
    let server = Scripted::start(move |asked, _| {
        let lying = lies.load(Ordering::Relaxed) == 1;
        if asked.path.contains("/manifests/") {
            let new = if lying { b"other".to_vec() } else { blob() };
            return reply(200, &[], &manifest_of(&new));
        }
        match lying {
            true => reply(200, &[], b"wrong"),
            false => blob_reply(asked, true),
        }
    });
    let (folder, registry) = registry();
    pull(&registry, &name_of(&server)).await.1.unwrap();
    is_lying.store(1, Ordering::Relaxed);
    let error = refusal(&registry, &server).await;
    assert!(error.starts_with("digest mismatch"), "{error}");
    check_whole(folder.path(), &registry, &name_of(&server));
}

/// Part files as another program, or an attacker, may have left them.
#[tokio::test]
async fn forged_parts_are_thrown_away() {
    let part = |n: u64, offset: i64, size: i64, completed: i64| {
        format!(r#"{{"N":{n},"Offset":{offset},"Size":{size},"Completed":{completed}}}"#)
    };
    let whole = 300_000;
    for parts in [
        vec!["x".to_owned()],
        vec![String::new()],
        vec![part(0, 0, whole - 1, 0)],
        vec![part(0, 0, whole + 1, 0)],
        vec![part(0, 1, whole - 1, 0)],
        vec![part(1, 0, whole, 0)],
        vec![part(0, 0, whole, whole + 1)],
        vec![part(0, 0, whole, -1)],
        vec![part(0, 0, -whole, 0)],
        vec![part(0, 0, 200_000, 0), part(1, 100_000, 200_000, 0)],
        vec![part(0, 0, whole, 5), part(0, 0, whole, 5)],
        vec![part(0, 0, i64::MAX, 0), part(1, i64::MAX, i64::MAX, 0)],
        vec!["[".repeat(5000)],
    ] {
        let server = with_blobs(|asked, _| blob_reply(asked, true));
        let (folder, registry) = registry();
        let files = registry.inner.store.partial(&Digest::of(&blob()));
        std::fs::write(files.data(), vec![9; whole as usize]).unwrap();
        for (n, text) in (0..).zip(&parts) {
            std::fs::write(files.state(n), text).unwrap();
        }
        let (_, result) = pull(&registry, &name_of(&server)).await;
        assert!(result.is_ok(), "{parts:?}: {result:?}");
        check_whole(folder.path(), &registry, &name_of(&server));
    }
}

/// Links and pipes where a download puts its files: nothing is written or read through them.
#[cfg(unix)]
#[tokio::test]
async fn links_and_pipes_in_place_of_parts_are_thrown_away() {
    use std::os::unix::fs::symlink;
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("secret");
    let pipe = |path: &std::path::Path| {
        let path = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
        // SAFETY: a NUL-terminated path that lives through the call.
        assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
    };
    for kind in ["link", "dangling", "pipe"] {
        for place in ["data", "state", "new state"] {
            std::fs::write(&secret, "s").unwrap();
            let server = with_blobs(|asked, _| blob_reply(asked, true));
            let (folder, registry) = registry();
            let files = registry.inner.store.partial(&Digest::of(&blob()));
            let path = match place {
                "data" => files.data(),
                "state" => files.state(0),
                _ => files.new_state(0),
            };
            match kind {
                "link" => symlink(&secret, &path).unwrap(),
                "dangling" => symlink(outside.path().join("new"), &path).unwrap(),
                _ => pipe(&path),
            }
            let name = name_of(&server);
            let pulled = tokio::time::timeout(Duration::from_secs(5), pull(&registry, &name));
            pulled.await.expect("no hang").1.unwrap();
            check_whole(folder.path(), &registry, &name_of(&server));
            assert_eq!(std::fs::read(&secret).unwrap(), b"s", "{kind} {place}");
            assert!(!outside.path().join("new").exists(), "{kind} {place}");
        }
    }
}

/// Two wait for one download: it goes on while one of them is there, and ends with the last.
#[tokio::test]
async fn a_download_ends_with_the_last_who_waits() {
    let server = with_blobs(|asked, n| {
        let mut reply = blob_reply(asked, true);
        if n == 2 {
            reply.bytes.truncate(100_000);
            reply.silence = Duration::from_millis(200);
        }
        reply
    });
    let (folder, registry) = registry();
    let name = name_of(&server);
    let (steps, _receiver) = mpsc::channel(1000);
    let leaving = {
        let (registry, name) = (registry.clone(), name.clone());
        tokio::spawn(async move { registry.pull(&name, true, &steps).await })
    };
    let (steps, mut staying_steps) = mpsc::channel(1000);
    let staying = {
        let (registry, name) = (registry.clone(), name.clone());
        tokio::spawn(async move { registry.pull(&name, true, &steps).await })
    };
    while server.asked().len() < 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    leaving.abort();
    staying.await.unwrap().unwrap();
    while staying_steps.recv().await.is_some() {}
    check_whole(folder.path(), &registry, &name);
    assert!(
        lock(&registry.inner.downloads)
            .values()
            .all(|running| running.strong_count() == 0)
    );
}

/// Models with blobs in common come and go at once.
#[tokio::test(flavor = "multi_thread")]
async fn pulls_beside_deletions_lose_no_shared_blob() {
    let server = with_blobs(|asked, _| blob_reply(asked, true));
    let (folder, registry) = registry();
    let name = |tag: &str| ModelName::parse(&format!("{}/ns/m:{tag}", server.address)).unwrap();
    for round in 0..1000 {
        let other = name(&format!("t{}", round % 2));
        let deletion = {
            let (store, other) = (registry.inner.store.clone(), other.clone());
            tokio::task::spawn_blocking(move || match store.delete(&other) {
                Ok(()) | Err(StoreError::NotFound(_)) => {}
                Err(e) => panic!("{e}"),
            })
        };
        let kept = name("kept");
        // The first two are of one model.
        let pulls = [&kept, &kept, &other].map(|name| pull(&registry, name));
        for (_, result) in join_all(pulls).await {
            result.unwrap();
        }
        deletion.await.unwrap();
        registry.inner.store.manifest(&kept).unwrap();
        assert_eq!(files(folder.path()).len(), 2);
        if round % 10 == 0 {
            check_whole(folder.path(), &registry, &kept);
        }
        if round % 3 == 0 {
            registry.inner.store.delete(&kept).unwrap();
        }
    }
}
