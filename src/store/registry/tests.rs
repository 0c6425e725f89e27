//! Pull and push against a registry that follows a script.

mod answers;
mod blobs;
mod pushing;
#[allow(dead_code, reason = "the tests of the whole server use all of it")]
mod scripted;
mod tokens;

use super::*;
use crate::store::Error as StoreError;
use scripted::{Asked, Reply, Scripted, reply};
use std::collections::VecDeque;

fn timing() -> Timing {
    Timing {
        header: Duration::from_secs(2),
        body: Duration::from_secs(1),
        commit: Duration::from_secs(2),
        stall: Duration::from_millis(300),
        pause: Duration::from_millis(5),
    }
}

fn registry() -> (tempfile::TempDir, Registry) {
    registry_with(timing())
}

fn registry_with(timing: Timing) -> (tempfile::TempDir, Registry) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    (folder, Registry::with_timing(store, timing))
}

fn name_of(server: &Scripted) -> ModelName {
    ModelName::parse(&server.name()).unwrap()
}

fn blob() -> Vec<u8> {
    (0..300_000u32).map(|i| ((i * 7919) >> 5) as u8).collect()
}

fn manifest_of(blob: &[u8]) -> Vec<u8> {
    let layer = |media_type: &str, bytes: &[u8]| Layer {
        media_type: media_type.into(),
        digest: Digest::of(bytes),
        size: bytes.len() as u64,
        from: String::new(),
        name: String::new(),
    };
    let manifest = Manifest {
        config: Some(layer(media::CONFIG, b"{}")),
        layers: vec![layer(media::MODEL, blob)],
    };
    // As a registry may write it: not as we would.
    [&manifest.encode()[..], b"  \n"].concat()
}

/// The bytes of a blob's path, or its part where one is asked for.
fn blob_reply(asked: &Asked, ranges: bool) -> Reply {
    let blob = blob();
    let bytes = if asked.path.ends_with(&Digest::of(b"{}").to_string()) {
        b"{}".to_vec()
    } else {
        blob
    };
    match asked.range().filter(|_| ranges) {
        Some((start, end)) => {
            let range = format!("bytes {start}-{}/{}", end - 1, bytes.len());
            reply(206, &[("Content-Range", &range)], &bytes[start..end])
        }
        None => reply(200, &[], &bytes),
    }
}

/// A registry of the one model, whose blobs a script answers.
fn with_blobs(script: impl Fn(&Asked, usize) -> Reply + Send + Sync + 'static) -> Scripted {
    let manifest = manifest_of(&blob());
    Scripted::start(move |asked, n| match asked.path.contains("/manifests/") {
        true => reply(200, &[], &manifest),
        false => script(asked, n),
    })
}

/// Pulls, and returns why it failed.
async fn refusal(registry: &Registry, server: &Scripted) -> String {
    let (_, result) = pull(registry, &name_of(server)).await;
    result.expect_err("the pull fails").to_string()
}

/// Asserts that a failed pull left neither blob nor manifest.
fn check_nothing(folder: &std::path::Path, registry: &Registry, server: &Scripted) {
    let whole = files(folder);
    let whole: Vec<_> = whole.iter().filter(|f| !f.contains("-partial")).collect();
    assert!(whole.is_empty(), "{whole:?}");
    let found = registry.inner.store.manifest(&name_of(server));
    assert!(matches!(found, Err(StoreError::NotFound(_))));
}

/// Pulls, and returns the steps' statuses without repetitions.
async fn pull(registry: &Registry, name: &ModelName) -> (Vec<String>, Result<(), Error>) {
    let (steps, result) = pull_in_steps(registry, name).await;
    let mut statuses: Vec<String> = steps.into_iter().map(|step| step.status).collect();
    statuses.dedup();
    (statuses, result)
}

async fn pull_in_steps(
    registry: &Registry,
    name: &ModelName,
) -> (Vec<Progress>, Result<(), Error>) {
    let (sender, mut receiver) = mpsc::channel(16);
    let (registry, name) = (registry.clone(), name.clone());
    let task = tokio::spawn(async move { registry.pull(&name, true, &sender).await });
    let mut steps = Vec::new();
    let mut last = HashMap::new();
    while let Some(step) = receiver.recv().await {
        assert!(step.completed <= step.total, "{step:?}");
        last.insert(step.digest.clone(), step.clone());
        steps.push(step);
    }
    let result = task.await.unwrap();
    if result.is_ok() {
        let is_whole = |step: &Progress| step.completed == step.total;
        assert!(last.values().all(is_whole), "{last:?}");
    }
    (steps, result)
}

/// As Ollama cuts them: a part, sixteen, and as many as are needed.
#[test]
fn parts_of_blobs_of_every_size() {
    for (total, bytes) in [
        (40_000_000, 100_000_000),
        (1_600_000_000, 100_000_000),
        (8_000_000_000, 500_000_000),
        (32_000_000_000, 1_000_000_000),
    ] {
        assert_eq!(part_bytes(total), bytes, "{total}");
    }
}

fn steps() -> Vec<String> {
    [
        "pulling manifest".to_owned(),
        format!("pulling {}", &Digest::of(&blob()).hex()[..12]),
        format!("pulling {}", &Digest::of(b"{}").hex()[..12]),
        "verifying sha256 digest".into(),
        "writing manifest".into(),
        "success".into(),
    ]
    .to_vec()
}

fn files(folder: &std::path::Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder.join("blobs")).unwrap();
    let names = entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

fn check_whole(folder: &std::path::Path, registry: &Registry, name: &ModelName) {
    let (_, _, bytes) = registry.inner.store.manifest(name).unwrap();
    assert_eq!(bytes, manifest_of(&blob()));
    let mut wanted = [Digest::of(&blob()), Digest::of(b"{}")].map(|d| d.file_name());
    wanted.sort();
    assert_eq!(files(folder), wanted);
    let path = registry.inner.store.blob_path(&Digest::of(&blob()));
    assert_eq!(std::fs::read(path).unwrap(), blob());
}

#[tokio::test]
async fn plain_answers_and_parts_both_make_a_model() {
    for ranges in [false, true] {
        let server = Scripted::start(move |asked, _| match asked.path.contains("/manifests/") {
            true => reply(200, &[], &manifest_of(&blob())),
            false => blob_reply(asked, ranges),
        });
        let (folder, registry) = registry();
        let (statuses, result) = pull(&registry, &name_of(&server)).await;
        result.unwrap();
        assert_eq!(statuses, steps());
        check_whole(folder.path(), &registry, &name_of(&server));
        let first = &server.asked()[0];
        assert_eq!(first.path, "/v2/ns/m/manifests/t");
        assert_eq!(first.header("accept"), Some(media::MANIFEST));
        assert!(first.header("user-agent").unwrap().starts_with("ollama/"));
        // What is there is not asked for again.
        let n = server.asked().len();
        let (statuses, result) = pull(&registry, &name_of(&server)).await;
        result.unwrap();
        assert_eq!(statuses, steps());
        assert_eq!(server.asked().len(), n + 1);
    }
}

#[tokio::test]
async fn broken_and_silent_answers_are_taken_up_where_they_ended() {
    let server = Scripted::start(|asked, n| {
        if asked.path.contains("/manifests/") {
            return reply(200, &[], &manifest_of(&blob()));
        }
        let mut reply = blob_reply(asked, true);
        match n {
            // Cut off in the middle; then silent in the middle; then an error.
            1 => reply.bytes.truncate(100_000),
            2 => {
                reply.bytes.truncate(50_000);
                reply.silence = Duration::from_secs(2);
            }
            3 => return super::tests::reply(500, &[], b"no"),
            _ => {}
        }
        reply
    });
    let (folder, registry) = registry();
    pull(&registry, &name_of(&server)).await.1.unwrap();
    check_whole(folder.path(), &registry, &name_of(&server));
    let starts: Vec<_> = server.asked()[1..5]
        .iter()
        .map(|asked| asked.range().unwrap().0)
        .collect();
    assert!(
        starts.is_sorted() && starts[1] > 99_000 && starts[2] > 140_000,
        "{starts:?}"
    );
    assert_eq!(starts[2], starts[3]);
}

#[tokio::test]
async fn a_pull_that_is_dropped_goes_on_from_what_is_on_disk() {
    let server = Scripted::start(|asked, n| {
        if asked.path.contains("/manifests/") {
            return reply(200, &[], &manifest_of(&blob()));
        }
        let mut reply = blob_reply(asked, true);
        if n == 1 {
            reply.bytes.truncate(200_000);
            reply.silence = Duration::from_millis(200);
        }
        reply
    });
    let (folder, registry) = registry();
    {
        let (steps, mut receiver) = mpsc::channel(16);
        let name = name_of(&server);
        let pull = registry.pull(&name, true, &steps);
        tokio::select! {
            _ = pull => panic!("the pull ended"),
            () = async {
                loop {
                    let step = receiver.recv().await.unwrap();
                    if step.completed > 0 {
                        break;
                    }
                }
            } => {}
        }
    }
    let names = files(folder.path());
    assert!(
        names.iter().any(|name| name.ends_with("-partial")),
        "{names:?}"
    );
    // A new process, which knows only the files.
    let timing = registry.timing();
    let registry = Registry::with_timing(Store::open(folder.path()).unwrap(), timing);
    let (steps, result) = pull_in_steps(&registry, &name_of(&server)).await;
    result.unwrap();
    let first = steps.iter().find(|step| step.total > 0).unwrap();
    assert!(
        first.completed > 100_000,
        "progress begins there: {first:?}"
    );
    check_whole(folder.path(), &registry, &name_of(&server));
    let asked = server.asked();
    let resumed = asked.iter().rev().find_map(Asked::range).unwrap();
    let blobs: Vec<_> = asked.iter().filter_map(Asked::range).collect();
    assert!(
        blobs.iter().any(|range| range.0 > 100_000),
        "{blobs:?} {resumed:?}"
    );
}

#[tokio::test]
async fn bad_manifests_are_errors_that_name_them() {
    let long = vec![b' '; MAX_MANIFEST_BYTES as usize + 1];
    let traversal = br#"{"layers":[{"digest":"sha256:../../../etc/passwd","size":1}]}"#;
    for (status, body, wanted) in [
        (404, &b"x"[..], "pull model manifest: file does not exist"),
        (412, b"too old\x07", "pull model manifest: 412: too old"),
        (200, b"<html>", "cannot be used"),
        (200, traversal, "invalid digest"),
        (200, &long, "longer than"),
    ] {
        let body = body.to_vec();
        let server = Scripted::start(move |_, _| reply(status, &[], &body));
        let (_folder, registry) = registry();
        let (statuses, result) = pull(&registry, &name_of(&server)).await;
        assert_eq!(statuses, ["pulling manifest"]);
        let error = result.unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
    }
    let (_folder, registry) = registry();
    let name = ModelName::parse("127.0.0.1:1/ns/m").unwrap();
    let error = pull(&registry, &name).await.1.unwrap_err().to_string();
    let url = "http://127.0.0.1:1/v2/ns/m/manifests/latest";
    assert_eq!(
        error,
        format!(
            "pull model manifest: Get \"{url}\": dial tcp 127.0.0.1:1: connect: connection refused"
        )
    );
}

#[tokio::test]
async fn an_update_takes_what_only_the_old_version_had() {
    for keeps in [false, true] {
        let server = Scripted::start(|asked, n| match asked.path.contains("/manifests/") {
            true if n == 0 => reply(200, &[], &manifest_of(&blob())),
            true => reply(200, &[], &manifest_of(b"{}")),
            false => blob_reply(asked, true),
        });
        let (folder, registry) = registry();
        let name = name_of(&server);
        pull(&registry, &name).await.1.unwrap();
        if keeps {
            registry.inner.store.keep_replaced();
        }
        let (statuses, result) = pull(&registry, &name).await;
        result.unwrap();
        let is_told = statuses.iter().any(|s| s == "removing unused layers");
        assert_eq!(is_told, !keeps, "{statuses:?}");
        assert_eq!(statuses.last().map(String::as_str), Some("success"));
        let old = Digest::of(&blob()).file_name();
        assert_eq!(files(folder.path()).contains(&old), keeps);
    }
}

#[tokio::test]
async fn two_pulls_share_one_download() {
    let server = Scripted::start(|asked, _| {
        if asked.path.contains("/manifests/") {
            return reply(200, &[], &manifest_of(&blob()));
        }
        std::thread::sleep(Duration::from_millis(200));
        blob_reply(asked, true)
    });
    let (folder, registry) = registry();
    let name = name_of(&server);
    let (a, b) = tokio::join!(pull(&registry, &name), pull(&registry, &name));
    a.1.unwrap();
    b.1.unwrap();
    check_whole(folder.path(), &registry, &name);
    let model = Digest::of(&blob()).to_string();
    let asked = server.asked();
    assert_eq!(asked.iter().filter(|a| a.path.ends_with(&model)).count(), 1);
}

/// A registry that takes uploads, with what it has taken.
fn taking(relative: bool) -> (Scripted, Arc<Mutex<VecDeque<Vec<u8>>>>) {
    let taken: Arc<Mutex<VecDeque<Vec<u8>>>> = Arc::default();
    let log = Arc::clone(&taken);
    let server = Scripted::start(move |asked, _| {
        let host = asked.header("host").unwrap();
        let base = if relative {
            String::new()
        } else {
            format!("http://{host}")
        };
        let location = format!("{base}/v2/ns/m/blobs/uploads/1?_state=x");
        match asked.method.as_str() {
            "HEAD" => reply(404, &[], b""),
            "POST" => reply(202, &[("Location", &location)], b""),
            "PATCH" => {
                lock(&log).push_back(asked.body.clone());
                reply(202, &[("Location", &location)], b"")
            }
            "PUT" if asked.path.contains("/manifests/") => {
                lock(&log).push_back(asked.body.clone());
                reply(201, &[], b"")
            }
            _ => reply(201, &[], b""),
        }
    });
    (server, taken)
}

#[tokio::test]
async fn a_push_sends_blobs_then_the_manifest_as_it_is() {
    let source = Scripted::start(|asked, _| match asked.path.contains("/manifests/") {
        true => reply(200, &[], &manifest_of(&blob())),
        false => blob_reply(asked, true),
    });
    let (_folder, registry) = registry();
    pull(&registry, &name_of(&source)).await.1.unwrap();
    for relative in [false, true] {
        let (server, taken) = taking(relative);
        registry
            .inner
            .store
            .copy(&name_of(&source), &name_of(&server))
            .unwrap();
        let (steps, mut receiver) = mpsc::channel(64);
        registry
            .push(&name_of(&server), true, &steps)
            .await
            .unwrap();
        drop(steps);
        let mut statuses = Vec::new();
        while let Some(step) = receiver.recv().await {
            if statuses.last() != Some(&step.status) {
                statuses.push(step.status);
            }
        }
        let pushing = |bytes: &[u8]| format!("pushing {}", &Digest::of(bytes).hex()[..12]);
        let wanted = [
            "retrieving manifest".to_owned(),
            pushing(&blob()),
            pushing(b"{}"),
            "pushing manifest".into(),
            "success".into(),
        ];
        assert_eq!(statuses, wanted);
        let taken: Vec<_> = lock(&taken).drain(..).collect();
        assert_eq!(taken, [blob(), b"{}".to_vec(), manifest_of(&blob())]);
        let asked = server.asked();
        let patch = asked.iter().find(|a| a.method == "PATCH").unwrap();
        assert_eq!(patch.header("content-range"), Some("0-299999"));
        let put = asked.iter().find(|a| a.method == "PUT").unwrap();
        let digest = Digest::of(&blob()).hex();
        assert!(
            put.path
                .contains(&format!("digest=sha256%3A{digest}&etag=")),
            "{}",
            put.path
        );
        use md5::{Digest as _, Md5};
        let sums = Md5::digest(Md5::digest(blob()));
        let etag = format!("&etag={}-1", hex::encode(sums));
        assert!(put.path.ends_with(&etag), "{}", put.path);
    }
}

#[tokio::test]
async fn an_unknown_model_is_named_without_its_path() {
    let (_folder, registry) = registry();
    let (steps, mut receiver) = mpsc::channel(64);
    let name = ModelName::parse("127.0.0.1:1/ns/nope").unwrap();
    let error = registry.push(&name, true, &steps).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "model '127.0.0.1:1/ns/nope:latest' not found"
    );
    drop(steps);
    let mut statuses = Vec::new();
    while let Some(step) = receiver.recv().await {
        statuses.push(step.status);
    }
    assert_eq!(
        statuses,
        ["retrieving manifest", "couldn't retrieve manifest"]
    );
}
