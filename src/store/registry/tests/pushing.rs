//! Pushes to registries that refuse, redirect or break off.

use super::*;

/// A store with the model, pushed to a registry that follows a script; how it ended, and what the registry was asked.
async fn pushed(
    script: impl Fn(&Asked, usize) -> Reply + Send + Sync + 'static,
) -> (Result<(), Error>, Vec<Asked>) {
    let hasty = Timing {
        header: Duration::from_millis(300),
        ..timing()
    };
    let (folder, registry) = holding(hasty);
    let server = Scripted::start(script);
    let name = name_of(&server);
    registry
        .inner
        .store
        .copy(&ModelName::parse("m").unwrap(), &name)
        .unwrap();
    let (steps, mut receiver) = mpsc::channel(64);
    let push = {
        let registry = registry.clone();
        tokio::spawn(async move { registry.push(&name, true, &steps).await })
    };
    while receiver.recv().await.is_some() {}
    let result = push.await.unwrap();
    check_whole(folder.path(), &registry, &name_of(&server));
    (result, server.asked())
}

/// A store that has the model `m`.
fn holding(timing: Timing) -> (tempfile::TempDir, Registry) {
    let (folder, registry) = registry_with(timing);
    for bytes in [blob(), b"{}".to_vec()] {
        let mut upload = registry
            .inner
            .store
            .upload(Digest::of(&bytes), 1 << 20)
            .unwrap();
        upload.write(&bytes).unwrap();
        upload.finish().unwrap();
    }
    let bytes = manifest_of(&blob());
    let manifest = Manifest::parse(&bytes).unwrap();
    let name = ModelName::parse("m").unwrap();
    registry
        .inner
        .store
        .publish(&name, &bytes, &manifest)
        .unwrap();
    (folder, registry)
}

/// What a registry without faults answers.
fn plain(asked: &Asked) -> Reply {
    let place = [("Location", "/v2/ns/m/blobs/uploads/1")];
    match asked.method.as_str() {
        "HEAD" => reply(404, &[], b""),
        "POST" | "PATCH" => reply(202, &place, b""),
        _ => reply(201, &[], b""),
    }
}

fn n_of(asked: &[Asked], method: &str) -> usize {
    asked.iter().filter(|a| a.method == method).count()
}

#[tokio::test]
async fn refusals_of_a_push_are_told() {
    type Script = fn(&Asked, usize) -> Reply;
    let scripts: [(Script, &str); 8] = [
        (
            |a, _| {
                if a.method == "HEAD" {
                    reply(403, &[], b"")
                } else {
                    plain(a)
                }
            },
            "403: ",
        ),
        (
            |a, _| {
                if a.method == "POST" {
                    reply(403, &[], b"read only")
                } else {
                    plain(a)
                }
            },
            "403: read only",
        ),
        (
            |a, _| {
                if a.method == "POST" {
                    reply(202, &[], b"")
                } else {
                    plain(a)
                }
            },
            "no place for the upload",
        ),
        (
            |a, _| {
                if a.method == "POST" {
                    reply(202, &[("Location", "http://127.0.0.1:9/x")], b"")
                } else {
                    plain(a)
                }
            },
            "to another host",
        ),
        (
            |a, _| {
                if a.method == "POST" {
                    reply(202, &[("Location", "file:///x")], b"")
                } else {
                    plain(a)
                }
            },
            "neither http nor https",
        ),
        (
            |a, _| {
                let is_end = a.method == "PUT" && a.path.contains("digest=");
                if is_end {
                    reply(400, &[], b"DIGEST_INVALID")
                } else {
                    plain(a)
                }
            },
            "400: DIGEST_INVALID",
        ),
        (
            |a, _| {
                if a.path.contains("/manifests/") {
                    reply(400, &[], b"MANIFEST_INVALID")
                } else {
                    plain(a)
                }
            },
            "400: MANIFEST_INVALID",
        ),
        (
            |a, _| {
                if a.method == "PATCH" {
                    reply(500, &[], b"full")
                } else {
                    plain(a)
                }
            },
            "max retries exceeded: 500: full",
        ),
    ];
    for (script, wanted) in scripts {
        let (result, asked) = pushed(script).await;
        let error = result.unwrap_err().to_string();
        assert!(error.contains(wanted), "{wanted}: {error}");
        let n_patches = if wanted.contains("retries") { 6 } else { 1 };
        assert!(n_of(&asked, "PATCH") <= 2 * n_patches, "{wanted}");
    }
}

/// A part that was refused begins anew, in a session of its own.
#[tokio::test]
async fn a_part_that_breaks_is_sent_again() {
    let (result, asked) = pushed(|asked, n| match (asked.method.as_str(), n) {
        ("PATCH", 2) => reply(502, &[], b"gateway"),
        _ => plain(asked),
    })
    .await;
    result.unwrap();
    assert_eq!(
        n_of(&asked, "POST"),
        3,
        "two for the first blob, one for the config"
    );
    let last = asked
        .iter()
        .rfind(|a| a.method == "PATCH" && a.body.len() > 2)
        .unwrap();
    assert_eq!(last.body, blob());
}

#[tokio::test]
async fn a_silent_registry_is_given_up() {
    let (result, _) = pushed(|asked, _| {
        let mut answer = plain(asked);
        if asked.method == "PATCH" {
            answer.bytes.clear();
            answer.silence = Duration::from_secs(1);
        }
        answer
    })
    .await;
    let error = result.unwrap_err().to_string();
    assert!(
        error.starts_with("max retries exceeded: the registry sent too little"),
        "{error}"
    );
}

/// The part goes to an object store without the token, and the session stays with the registry.
#[tokio::test]
async fn an_object_store_gets_the_part_and_no_token() {
    let storage = Scripted::start(|_, _| reply(200, &[], b""));
    let elsewhere = format!("http://{}/part", storage.address);
    let (result, asked) = pushed(move |asked, _| {
        let host = asked.header("host").unwrap();
        let realm = format!("Bearer realm=\"http://{host}/token\"");
        match asked.method.as_str() {
            "GET" => reply(200, &[], b"{\"token\":\"abc\"}"),
            _ if asked.header("authorization").is_none() => {
                reply(401, &[("WWW-Authenticate", &realm)], b"")
            }
            "PATCH" => {
                let headers = [
                    ("Location", elsewhere.as_str()),
                    ("Docker-Upload-Location", "/v2/ns/m/blobs/uploads/2"),
                ];
                reply(307, &headers, b"")
            }
            _ => plain(asked),
        }
    })
    .await;
    result.unwrap();
    let stored = storage.asked();
    assert_eq!(
        stored.iter().map(|a| a.body.clone()).collect::<Vec<_>>(),
        [blob(), b"{}".to_vec()]
    );
    assert!(
        stored
            .iter()
            .all(|a| a.method == "PUT" && a.header("authorization").is_none())
    );
    let ends = asked
        .iter()
        .filter(|a| a.path.starts_with("/v2/ns/m/blobs/uploads/2?digest="));
    assert_eq!(ends.count(), 2);
}

/// A layer taken from another model is mounted where the registry has that.
#[tokio::test]
async fn what_the_registry_has_is_mounted() {
    for (status, n_patches) in [(201, 0), (202, 1)] {
        let (_folder, registry) = holding(timing());
        let text = String::from_utf8(manifest_of(&blob())).unwrap();
        let from = text.replace(
            "\"size\":300000}",
            "\"size\":300000,\"from\":\"ns/base:v1\"}",
        );
        assert_ne!(text, from);
        let server = Scripted::start(move |asked, _| match asked.path.contains("mount=") {
            true => reply(status, &[("Location", "/v2/ns/m/blobs/uploads/1")], b""),
            false if asked.path.contains(&Digest::of(b"{}").to_string()) => reply(200, &[], b""),
            false => plain(asked),
        });
        let manifest = Manifest::parse(from.as_bytes()).unwrap();
        registry
            .inner
            .store
            .publish(&name_of(&server), from.as_bytes(), &manifest)
            .unwrap();
        let (steps, _receiver) = mpsc::channel(64);
        registry
            .push(&name_of(&server), true, &steps)
            .await
            .unwrap();
        let asked = server.asked();
        let post = asked.iter().find(|a| a.method == "POST").unwrap();
        assert!(post.path.ends_with("&from=ns%2Fbase"), "{}", post.path);
        assert_eq!(n_of(&asked, "PATCH"), n_patches);
        assert_eq!(asked.last().unwrap().body, from.as_bytes());
    }
}

/// A link in place of a blob does not send what it leads to.
#[cfg(unix)]
#[tokio::test]
async fn only_whole_blobs_of_the_store_are_sent() {
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("secret");
    std::fs::write(&secret, blob()).unwrap();
    for kind in ["link", "cut", "missing", "folder"] {
        let (_folder, registry) = holding(timing());
        let path = registry.inner.store.blob_path(&Digest::of(&blob()));
        std::fs::remove_file(&path).unwrap();
        match kind {
            "link" => std::os::unix::fs::symlink(&secret, &path).unwrap(),
            "cut" => std::fs::write(&path, "short").unwrap(),
            "folder" => std::fs::create_dir(&path).unwrap(),
            _ => {}
        }
        let server = Scripted::start(|asked, _| plain(asked));
        registry
            .inner
            .store
            .copy(&ModelName::parse("m").unwrap(), &name_of(&server))
            .unwrap();
        let (steps, _receiver) = mpsc::channel(64);
        let error = registry
            .push(&name_of(&server), true, &steps)
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("blob \"sha256:") && error.ends_with("not found"),
            "{kind}: {error}"
        );
        assert!(server.asked().is_empty(), "{kind}");
    }
}

/// The model is deleted at each of a push's requests in turn, and at last after all of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_push_of_what_is_deleted_meanwhile_is_whole_or_refused() {
    let mut n_pushed = 0;
    for n_before in 0..12 {
        let (folder, registry) = holding(timing());
        let store = registry.inner.store.clone();
        let name = Arc::new(OnceLock::<ModelName>::new());
        let n_asked = AtomicU64::new(0);
        let server = Scripted::start({
            let (store, name) = (store.clone(), Arc::clone(&name));
            move |asked, _| {
                if n_asked.fetch_add(1, Ordering::Relaxed) == n_before {
                    store.delete(name.get().unwrap()).unwrap();
                }
                plain(asked)
            }
        });
        let name = name.get_or_init(|| name_of(&server));
        let held = ModelName::parse("m").unwrap();
        store.copy(&held, name).unwrap();
        store.delete(&held).unwrap();
        let (steps, mut receiver) = mpsc::channel(64);
        let push = {
            let (registry, name) = (registry.clone(), name.clone());
            tokio::spawn(async move { registry.push(&name, true, &steps).await })
        };
        while receiver.recv().await.is_some() {}
        let pushed = push.await.unwrap();
        let asked = server.asked();
        let manifests = asked.iter().filter(|a| a.path.contains("/manifests/"));
        assert_eq!(manifests.count(), usize::from(pushed.is_ok()));
        match pushed {
            Ok(()) => n_pushed += 1,
            Err(Error::Store(StoreError::BlobNotFound(_))) => {}
            Err(e) => panic!("{e}"),
        }
        let is_deleted = asked.len() as u64 > n_before;
        assert_eq!(files(folder.path()).is_empty(), is_deleted);
    }
    assert!((1..12).contains(&n_pushed), "{n_pushed} were pushed");
}
