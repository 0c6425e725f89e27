//! Loading and unloading, with real files on a fake device.

mod context;
mod faults;
mod options;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use tokio::task::JoinHandle;

use super::super::fake::{FakeBackend, FakeGpu, FakeOptions, Fault};
use super::super::{Event, Request};
use super::*;
use crate::backend::BackendError;

/// A tiny model of the test models.
fn tiny(name: &str) -> PathBuf {
    let folder = std::env::var_os("OLLAMA_WGPU_TEST_MODELS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-models"),
        PathBuf::from,
    );
    let path = folder.join("tiny").join(name);
    assert!(
        path.exists(),
        "{} is missing: run scripts/test.sh, which fetches the test models",
        path.display()
    );
    path
}

fn request(name: &str) -> LoadRequest {
    LoadRequest {
        path: tiny(&format!("{name}.gguf")),
        adapters: Vec::new(),
        name: name.into(),
        digest: String::new(),
        num_ctx: None,
        num_batch: None,
        device: DeviceRequest {
            num_gpu: -1,
            main_gpu: None,
            num_thread: 0,
        },
        keep_alive: None,
    }
}

/// Models on a fake device, and how often one was opened.
fn models(options: FakeOptions, settings: ModelsSettings) -> (Models, Arc<AtomicUsize>) {
    let n_opened = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&n_opened);
    let open: OpenBackend = Arc::new(move |_: &DeviceRequest| {
        counter.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(FakeBackend::new(options)))
    });
    (Models::new(open, settings), n_opened)
}

fn simple() -> (Models, Arc<AtomicUsize>) {
    models(FakeOptions::default(), ModelsSettings::default())
}

/// A fake GPU beside the CPU.
fn models_on_gpu(gpu: FakeGpu, settings: ModelsSettings) -> Models {
    let open: OpenBackend = Arc::new(move |request: &DeviceRequest| {
        let options = FakeOptions {
            gpu: (request.num_gpu != 0).then_some(gpu),
            ..FakeOptions::default()
        };
        Ok(Box::new(FakeBackend::new(options)))
    });
    Models::new(open, settings)
}

/// Bytes of the model, and those of them on the GPU.
async fn bytes_on_gpu(gpu: FakeGpu, settings: ModelsSettings, num_gpu: i64) -> (u64, u64) {
    let models = models_on_gpu(gpu, settings);
    let mut request = request("tiny-llama");
    request.device.num_gpu = num_gpu;
    let _lease = models.acquire(&request).await.expect("it loads");
    let running = &models.running()[0];
    (running.size_bytes, running.vram_bytes)
}

const ROOMY: FakeGpu = FakeGpu {
    memory_bytes: None,
    free_bytes: u64::MAX,
    max_weights: usize::MAX,
};

#[tokio::test]
async fn as_many_layers_go_to_the_gpu_as_fit() {
    let settings = ModelsSettings::default;
    let mut last = 0;
    let mut n_parts = 0;
    for step in 0..400 {
        let gpu = FakeGpu {
            free_bytes: (60 << 20) + (step << 18),
            ..ROOMY
        };
        let (size, vram) = bytes_on_gpu(gpu, settings(), -1).await;
        assert!(vram >= last && vram <= size);
        n_parts += usize::from(vram > last && vram < size);
        last = vram;
    }
    let (size, vram) = bytes_on_gpu(ROOMY, settings(), -1).await;
    assert_eq!(vram, size);
    assert!(n_parts > 0 && last == size, "{n_parts} partial loads");
    let overhead = ModelsSettings {
        gpu_overhead: u64::MAX,
        ..settings()
    };
    assert_eq!(bytes_on_gpu(ROOMY, overhead, -1).await.1, 0);
}

#[tokio::test]
async fn a_request_names_its_number_of_layers() {
    let settings = ModelsSettings::default;
    let mut last = 0;
    for num_gpu in 1..=2 {
        let (size, vram) = bytes_on_gpu(ROOMY, settings(), num_gpu).await;
        assert!(last < vram && vram < size, "{num_gpu}: {vram} of {size}");
        last = vram;
    }
    let (size, vram) = bytes_on_gpu(ROOMY, settings(), 999).await;
    assert_eq!(vram, size);
    assert_eq!(bytes_on_gpu(ROOMY, settings(), 0).await.1, 0);
}

#[tokio::test]
async fn fewer_layers_are_tried_where_memory_runs_out() {
    let few = FakeGpu {
        max_weights: 10,
        ..ROOMY
    };
    let (size, vram) = bytes_on_gpu(few, ModelsSettings::default(), -1).await;
    assert!(0 < vram && vram < size, "{vram} of {size}");
    let models = models_on_gpu(few, ModelsSettings::default());
    let mut explicit = request("tiny-llama");
    explicit.device.num_gpu = 999;
    let refused = models.acquire(&explicit).await.err().expect("too many");
    assert!(matches!(refused, Error::WeightMemory { .. }), "{refused:?}");
    assert!(refused.to_string().contains("fewer layers"), "{refused}");
}

/// Waits for what other tasks and threads will bring about.
async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_loaded_model_is_shared() {
    let (models, n_opened) = simple();
    let a = models.acquire(&request("tiny-llama")).await.expect("loads");
    let b = models
        .acquire(&request("tiny-llama"))
        .await
        .expect("loaded");
    assert_eq!(n_opened.load(Ordering::SeqCst), 1);
    assert!(Arc::ptr_eq(a.tokenizer(), b.tokenizer()));
    let running = models.running();
    assert_eq!(running.len(), 1);
    assert_eq!(running[0].name, "tiny-llama");
    assert_eq!(running[0].context_length, a.engine().n_ctx());
    assert!(running[0].size_bytes > 0 && running[0].vram_bytes == 0);
}

#[tokio::test]
async fn other_adapters_load_the_model_anew() {
    let (models, n_opened) = simple();
    let adapted = |names: &[&str]| LoadRequest {
        adapters: names.iter().map(|name| tiny(name)).collect(),
        ..request("tiny-llama")
    };
    let one = adapted(&["tiny-llama-lora.gguf"]);
    let two = adapted(&["tiny-llama-lora.gguf", "tiny-llama-lora-second.gguf"]);
    for (wanted, n) in [(&request("tiny-llama"), 1), (&one, 2), (&one, 2), (&two, 3)] {
        models.acquire(wanted).await.expect("loads");
        assert_eq!(n_opened.load(Ordering::SeqCst), n);
        assert_eq!(models.running().len(), 1);
    }
    let other = adapted(&["tiny-qwen2-lora.gguf"]);
    let error = models.acquire(&other).await.err().expect("it is refused");
    assert!(error.to_string().contains("'qwen2'"), "{error}");
    let missing = LoadRequest {
        adapters: vec!["/nonexistent.gguf".into()],
        ..request("tiny-llama")
    };
    let error = models.acquire(&missing).await.err().expect("it is refused");
    assert!(
        error.to_string().contains("adapter: it cannot be opened"),
        "{error}"
    );
}

#[tokio::test]
async fn an_unused_model_leaves_after_its_time() {
    let (models, _) = simple();
    for millis in [0, 1] {
        let short = LoadRequest {
            keep_alive: Some(KeepAlive::For(Duration::from_millis(millis))),
            ..request("tiny-llama")
        };
        let lease = models.acquire(&short).await.expect("loads");
        assert_eq!(models.running().len(), 1);
        drop(lease);
        until(|| models.running().is_empty()).await;
    }
}

#[tokio::test]
async fn a_request_changes_the_time_for_good_and_an_unload_waits_for_users() {
    let (models, _) = simple();
    let forever = LoadRequest {
        keep_alive: Some(KeepAlive::Forever),
        ..request("tiny-llama")
    };
    drop(models.acquire(&forever).await.expect("loads"));
    let lease = models
        .acquire(&request("tiny-llama"))
        .await
        .expect("loaded");
    let hundred_years = SystemTime::now() + Duration::from_secs(100 * 365 * 86400);
    assert!(models.running()[0].expires_at > hundred_years);
    models.unload(lease.gguf().path());
    assert_eq!(models.running().len(), 1);
    drop(lease);
    until(|| models.running().is_empty()).await;
    models.unload(Path::new("/nowhere"));
}

#[tokio::test]
async fn the_idle_model_of_the_shortest_time_makes_room() {
    let settings = ModelsSettings {
        max_loaded: 2,
        ..ModelsSettings::default()
    };
    let (models, _) = models(FakeOptions::default(), settings);
    let kept = |name, seconds| LoadRequest {
        keep_alive: Some(KeepAlive::For(Duration::from_secs(seconds))),
        ..request(name)
    };
    drop(
        models
            .acquire(&kept("tiny-llama", 100))
            .await
            .expect("loads"),
    );
    drop(
        models
            .acquire(&kept("tiny-llama-f16", 1000))
            .await
            .expect("loads"),
    );
    drop(
        models
            .acquire(&kept("tiny-gemma3", 10))
            .await
            .expect("loads"),
    );
    let names: Vec<String> = models.running().into_iter().map(|m| m.name).collect();
    assert_eq!(names, ["tiny-llama-f16", "tiny-gemma3"]);
}

/// Models whose device opens only when the test says so, with what it says.
fn gated(settings: ModelsSettings) -> (Models, Arc<AtomicUsize>, mpsc::Sender<bool>) {
    let (gate, opens) = mpsc::channel::<bool>();
    let opens = Mutex::new(opens);
    let n_opened = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&n_opened);
    let open: OpenBackend = Arc::new(move |_: &DeviceRequest| {
        counter.fetch_add(1, Ordering::SeqCst);
        match opens.lock().expect("one user").recv() {
            Ok(true) => Ok(Box::new(FakeBackend::new(FakeOptions::default()))),
            _ => Err(BackendError::NoDevice {
                wanted: "gpu".into(),
                available: "none".into(),
            }),
        }
    });
    (Models::new(open, settings), n_opened, gate)
}

/// Asks for a model in a task of its own.
fn ask(models: &Models, name: &str) -> JoinHandle<Result<Lease, Error>> {
    let (models, request) = (models.clone(), request(name));
    tokio::spawn(async move { models.acquire(&request).await })
}

#[tokio::test]
async fn a_failed_load_tells_all_who_wait_for_it() {
    let (models, n_opened, gate) = gated(ModelsSettings::default());
    let first = ask(&models, "tiny-llama");
    until(|| n_opened.load(Ordering::SeqCst) == 1).await;
    let others = [ask(&models, "tiny-llama"), ask(&models, "tiny-llama")];
    let other = ask(&models, "tiny-llama-f16");
    until(|| models.inner.lock().n_waiting == 3).await;
    gate.send(false).expect("an open gate");
    gate.send(true).expect("an open gate");
    let error = first.await.expect("no panic").err().expect("no device");
    assert!(error.to_string().contains("\"gpu\" not found"), "{error}");
    for waiter in others {
        assert_eq!(waiter.await.expect("no panic").err(), Some(error.clone()));
    }
    assert!(
        other.await.expect("no panic").is_ok(),
        "another model is not concerned"
    );
    assert_eq!(n_opened.load(Ordering::SeqCst), 2);
    gate.send(true).expect("an open gate");
    assert!(
        models.acquire(&request("tiny-llama")).await.is_ok(),
        "later is another try"
    );
}

#[tokio::test]
async fn a_full_queue_refuses_and_leavers_make_room() {
    let settings = ModelsSettings {
        max_queue: 1,
        ..ModelsSettings::default()
    };
    let (models, n_opened, gate) = gated(settings);
    let first = ask(&models, "tiny-llama");
    until(|| n_opened.load(Ordering::SeqCst) == 1).await;
    let second = ask(&models, "tiny-llama-f16");
    until(|| models.inner.lock().n_waiting == 1).await;
    let refused = models.acquire(&request("tiny-gemma3")).await;
    assert_eq!(refused.err(), Some(Error::Busy));
    second.abort();
    until(|| models.inner.lock().n_waiting == 0).await;
    let third = ask(&models, "tiny-gemma3");
    gate.send(true).expect("an open gate");
    gate.send(true).expect("an open gate");
    assert!(first.await.expect("no panic").is_ok());
    assert!(third.await.expect("no panic").is_ok());
    let names = models.running().len();
    assert_eq!(names, 2);
}

#[tokio::test]
async fn a_caller_that_leaves_aborts_its_load() {
    let (models, n_opened, gate) = gated(ModelsSettings::default());
    let first = ask(&models, "tiny-llama");
    until(|| n_opened.load(Ordering::SeqCst) == 1).await;
    first.abort();
    assert!(first.await.is_err_and(|e| e.is_cancelled()));
    gate.send(true).expect("an open gate");
    gate.send(true).expect("an open gate");
    let lease = models.acquire(&request("tiny-llama")).await.expect("loads");
    assert_eq!(n_opened.load(Ordering::SeqCst), 2);
    assert_eq!(models.running().len(), 1);
    drop(lease);
}

#[tokio::test]
async fn a_context_that_does_not_fit_is_an_error_that_names_it() {
    let options = FakeOptions {
        max_pages: 3,
        ..FakeOptions::default()
    };
    let settings = ModelsSettings {
        n_parallel: 4,
        ..ModelsSettings::default()
    };
    let (models, _) = models(options, settings);
    let with = |n| LoadRequest {
        num_ctx: Some(n),
        ..request("tiny-llama")
    };
    let error = models.acquire(&with(128)).await.err().expect("four pages");
    assert!(matches!(error, Error::ContextMemory { n_ctx: 128, .. }));
    assert!(error.to_string().contains("lower num_ctx"), "{error}");
    // Fewer pages than four sequences may need, but enough for one.
    assert!(models.acquire(&with(64)).await.is_ok());
}

#[tokio::test]
async fn others_leave_when_memory_is_short() {
    let (counter, opened) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let n_opened = Arc::clone(&opened);
    // The second device is full; the third finds what the first one freed.
    let open: OpenBackend = Arc::new(move |_: &DeviceRequest| {
        let full = counter.fetch_add(1, Ordering::SeqCst) == 1;
        opened.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(FakeBackend::new(FakeOptions {
            max_pages: if full { 0 } else { usize::MAX },
            ..FakeOptions::default()
        })))
    });
    let models = Models::new(open, ModelsSettings::default());
    drop(models.acquire(&request("tiny-llama")).await.expect("loads"));
    let lease = models
        .acquire(&request("tiny-llama-f16"))
        .await
        .expect("loads");
    assert_eq!(n_opened.load(Ordering::SeqCst), 3);
    assert_eq!(models.running().len(), 1);
    drop(lease);
}

#[tokio::test]
async fn a_file_that_is_not_there_is_an_error() {
    let (models, n_opened) = simple();
    let nowhere = LoadRequest {
        path: "/nowhere/model.gguf".into(),
        ..request("tiny-llama")
    };
    let error = models.acquire(&nowhere).await.err().expect("no file");
    let text = error.to_string();
    assert!(
        text.contains("the model's file: it cannot be opened"),
        "{text}"
    );
    assert!(!text.contains("nowhere"), "clients learn no paths: {text}");
    assert_eq!(n_opened.load(Ordering::SeqCst), 0);
    assert!(models.running().is_empty());
}

#[tokio::test]
async fn a_model_whose_device_failed_is_loaded_anew() {
    let options = FakeOptions {
        fault: Some(Fault::Lost(0)),
        ..FakeOptions::default()
    };
    let (models, n_opened) = models(options, ModelsSettings::default());
    for n in 1..3 {
        let lease = models.acquire(&request("tiny-llama")).await.expect("loads");
        assert_eq!(n_opened.load(Ordering::SeqCst), n);
        let events = lease.engine().submit(Request::new(vec![1, 2, 3]));
        let event = events.expect("a place").recv().await;
        assert!(matches!(event, Some(Event::Failed(Error::Backend(_)))));
    }
    until(|| models.running().is_empty()).await;
}

#[tokio::test]
async fn shutdown_fails_requests_and_refuses_new_ones() {
    let (models, _) = simple();
    let lease = models.acquire(&request("tiny-llama")).await.expect("loads");
    models.shutdown().await;
    assert!(models.running().is_empty());
    assert!(!lease.engine().is_alive());
    let refused = models.acquire(&request("tiny-llama")).await.err();
    assert_eq!(refused, Some(Error::ShuttingDown));
    drop(lease);
}
