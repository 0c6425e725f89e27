//! The context where nobody names one: by the memory of the GPU, and by what is free of it.

use super::*;
use crate::backend::{BatchShape, KvType, Phase};
use crate::engine::EngineOptions;
use crate::engine::placement::for_gpu;
use crate::gguf::Gguf;
use crate::model::Model;

/// Trained for 131,072 tokens.
const LONG: &str = "tiny-gemma3-ollama";
const GIB: u64 = 1 << 30;

/// A GPU of so much memory that has room for all of the model with so long a context, and not for more.
fn gpu(gib: u64, room_for: usize) -> FakeGpu {
    FakeGpu {
        memory_bytes: Some(gib * GIB),
        free_bytes: match room_for {
            usize::MAX => u64::MAX,
            // Two layers of one head of keys and values of 2-byte numbers come on top of some 66 MB.
            n_ctx => (80 << 20) + (n_ctx * 2048) as u64,
        },
        ..ROOMY
    }
}

fn with(num_ctx: Option<usize>) -> LoadRequest {
    LoadRequest {
        num_ctx,
        ..request(LONG)
    }
}

#[tokio::test]
async fn the_memory_of_the_gpu_decides() {
    let overhead = |gpu_overhead| ModelsSettings {
        gpu_overhead,
        ..ModelsSettings::default()
    };
    let named = ModelsSettings {
        n_ctx: Some(1000),
        ..ModelsSettings::default()
    };
    for (gib, settings, n_ctx) in [
        (8, overhead(0), 4096),
        (24, overhead(0), 32_768),
        (24, overhead(2 * GIB), 4096),
        (48, overhead(0), 131_072),
        (48, named, 1000),
    ] {
        let models = models_on_gpu(gpu(gib, usize::MAX), settings);
        let lease = models.acquire(&with(None)).await.expect("it loads");
        assert_eq!(lease.engine().n_ctx(), n_ctx, "{gib} GiB");
        assert_eq!(
            models.running()[0].vram_bytes,
            models.running()[0].size_bytes
        );
    }
    // A model that is to run on the CPU, and one that was trained for less.
    let models = models_on_gpu(gpu(80, usize::MAX), ModelsSettings::default());
    let mut on_cpu = with(None);
    on_cpu.device.num_gpu = 0;
    let lease = models.acquire(&on_cpu).await.expect("it loads");
    assert_eq!(lease.engine().n_ctx(), 4096);
    let lease = models.acquire(&request("tiny-llama")).await.expect("loads");
    assert_eq!(lease.engine().n_ctx(), lease.engine().n_ctx_train());
}

#[tokio::test]
async fn a_shorter_context_comes_before_fewer_layers() {
    for (room_for, n_ctx) in [(131_072, 131_072), (80_000, 32_768), (8192, 4096)] {
        let models = models_on_gpu(gpu(48, room_for), ModelsSettings::default());
        let lease = models.acquire(&with(None)).await.expect("it loads");
        let running = &models.running()[0];
        assert_eq!(lease.engine().n_ctx(), n_ctx, "room for {room_for}");
        assert_eq!(running.vram_bytes, running.size_bytes);
        // A request that names as little does not load it anew, nor one that names nothing.
        for num_ctx in [None, Some(n_ctx)] {
            let again = models.acquire(&with(num_ctx)).await.expect("loaded");
            assert!(Arc::ptr_eq(again.tokenizer(), lease.tokenizer()));
        }
    }
    // A context that somebody named stays: layers go.
    let models = models_on_gpu(gpu(48, 8192), ModelsSettings::default());
    let lease = models.acquire(&with(Some(131_072))).await.expect("loads");
    let running = &models.running()[0];
    assert_eq!(lease.engine().n_ctx(), 131_072);
    assert!(running.vram_bytes < running.size_bytes);
}

#[tokio::test]
async fn a_cache_that_does_not_fit_after_all_is_made_smaller_or_refused() {
    let n_opened = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&n_opened);
    let open: OpenBackend = Arc::new(move |_: &DeviceRequest| {
        counter.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(FakeBackend::new(FakeOptions {
            max_pages: 32_768 / 32,
            gpu: Some(gpu(48, usize::MAX)),
            ..FakeOptions::default()
        })))
    });
    let models = Models::new(open, ModelsSettings::default());
    let mut all_layers = with(None);
    all_layers.device.num_gpu = 999;
    let lease = models.acquire(&all_layers).await.expect("it loads");
    assert_eq!(lease.engine().n_ctx(), 32_768);
    assert_eq!(n_opened.load(Ordering::SeqCst), 2);
    drop(lease);
    all_layers.num_ctx = Some(32_800);
    let refused = models.acquire(&all_layers).await.err().expect("too long");
    assert!(refused.to_string().contains("num_ctx 32800"), "{refused}");
}

#[tokio::test]
async fn others_make_room_for_the_whole_context() {
    let models = models_on_gpu(gpu(48, 8192), ModelsSettings::default());
    drop(models.acquire(&request("tiny-llama")).await.expect("loads"));
    let lease = models.acquire(&with(None)).await.expect("it loads");
    assert_eq!(lease.engine().n_ctx(), 4096);
    assert_eq!(models.running().len(), 1, "the other one left first");
}

#[tokio::test]
async fn what_a_gpu_made_of_the_options_is_no_reason_to_load_again() {
    let models = models_on_gpu(ROOMY, ModelsSettings::default());
    let wanted = LoadRequest {
        num_batch: Some(2048),
        ..request("../qwen2.5-coder-0.5b-instruct-q4_k_m")
    };
    let lease = models.acquire(&wanted).await.expect("it loads");
    assert!(lease.engine().options().n_batch < 2048, "steps are smaller");
    let again = models.acquire(&wanted);
    let again = tokio::time::timeout(Duration::from_secs(5), again).await;
    let again = again.expect("it waits for no reload").expect("loaded");
    assert!(Arc::ptr_eq(again.tokenizer(), lease.tokenizer()));
}

/// Half as many tokens of a prompt in a step, until its activations take 48 MiB or 128 tokens are left.
#[test]
fn a_gpu_s_steps_are_as_large_as_their_activations_leave() {
    const QWEN: &str = "../qwen2.5-coder-0.5b-instruct-q4_k_m.gguf";
    for (name, n_parallel, n_batch, is_smaller, fits) in [
        ("tiny-llama.gguf", 1, 2048, false, true),
        (QWEN, 1, 2048, true, true),
        (QWEN, 1, 512, false, true),
        // The logits of so many sequences do not fit, however few tokens a prompt has.
        (QWEN, 128, 2048, true, false),
        (QWEN, 128, 200, false, false),
    ] {
        let model = Model::load(&Arc::new(Gguf::open(&tiny(name)).unwrap())).unwrap();
        let options = EngineOptions {
            n_ctx: 4096,
            n_parallel,
            n_batch,
            n_waiting: 1,
            kv_type: KvType::F16,
        };
        let chosen = for_gpu(&model, &options).n_batch;
        let bytes = |n_tokens| {
            let shape = BatchShape {
                phase: Phase::Prefill,
                n_tokens,
                n_outputs: n_parallel,
            };
            model.plan(options.n_ctx, shape, None).bytes()
        };
        let what = format!("{name}, {n_parallel} at once: {chosen} of {n_batch}");
        assert_eq!(chosen < n_batch, is_smaller, "{what}");
        assert!(n_batch % chosen == 0 && chosen >= 128, "{what}");
        assert_eq!(bytes(chosen) <= 48 << 20, fits, "{what}");
        assert!(!is_smaller || bytes(2 * chosen) > 48 << 20, "{what}");
        assert!(fits || chosen < 256, "{what}");
    }
}
