//! Which options load a loaded model anew.

use super::*;

#[tokio::test]
async fn other_options_load_the_model_anew_when_its_users_have_left() {
    let (models, n_opened) = simple();
    let first = models.acquire(&request("tiny-llama")).await.expect("loads");
    let small = LoadRequest {
        num_ctx: Some(64),
        ..request("tiny-llama")
    };
    let again = models.acquire(&small);
    tokio::pin!(again);
    let early = tokio::select! {
        biased;
        _ = &mut again => true,
        () = tokio::task::yield_now() => false,
    };
    assert!(!early, "the first user is still there");
    drop(first);
    let again = again.await.expect("loads");
    assert_eq!(again.engine().n_ctx(), 64);
    assert_eq!(n_opened.load(Ordering::SeqCst), 2);
    let open = LoadRequest {
        device: DeviceRequest {
            num_gpu: -7,
            ..small.device
        },
        ..small.clone()
    };
    models
        .acquire(&open)
        .await
        .expect("negative num_gpu fits any");
    assert_eq!(n_opened.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn each_option_of_loading_is_a_reason_to_load_anew() {
    type Change = fn(&mut LoadRequest);
    let (models, n_opened) = simple();
    let base = LoadRequest {
        num_ctx: Some(512),
        ..request("tiny-llama")
    };
    let with = |change: Change| {
        let mut request = base.clone();
        change(&mut request);
        request
    };
    let changes: [(Change, usize); 9] = [
        (|_| {}, 1),
        (|r| r.name = "another name of the file".into(), 0),
        (|r| r.keep_alive = Some(KeepAlive::Forever), 0),
        (|r| r.num_batch = Some(64), 1),
        (|r| r.num_ctx = Some(256), 1),
        (|r| r.num_ctx = None, 1),
        (|r| r.device.num_gpu = 0, 1),
        (|r| r.device.main_gpu = Some(0), 1),
        (|r| r.device.num_thread = 1, 1),
    ];
    let mut n = 0;
    for (i, (change, n_loads)) in changes.into_iter().enumerate() {
        // Between two changes the base is loaded again, unless it still serves.
        models.acquire(&base).await.expect("it loads");
        n = n_opened.load(Ordering::SeqCst).max(n);
        models.acquire(&with(change)).await.expect("it loads");
        let n_more = n_opened.load(Ordering::SeqCst) - n;
        assert_eq!(n_more, if i == 0 { 0 } else { n_loads }, "change {i}");
    }
}

#[tokio::test]
async fn a_context_above_the_trained_one_is_lowered_and_no_reason_to_reload() {
    let (models, n_opened) = simple();
    let huge = |n| LoadRequest {
        num_ctx: Some(n),
        ..request("tiny-llama")
    };
    let lease = models.acquire(&huge(usize::MAX)).await.expect("loads");
    assert_eq!(lease.engine().n_ctx(), lease.engine().n_ctx_train());
    models.acquire(&huge(1 << 40)).await.expect("loaded");
    assert_eq!(n_opened.load(Ordering::SeqCst), 1);
}
