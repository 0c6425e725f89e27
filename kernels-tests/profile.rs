//! What a decoded token costs on a GPU, counted by the backend: bounds that need no clock and hold
//! on every device.

use std::sync::Arc;

use ollama_wgpu::backend::{
    Backend, Batch, BatchShape, KvType, MAX_CANDIDATES, PAGE_TOKENS, Penalties, Phase, PreparedId,
    Sampled, Sampling,
};
use ollama_wgpu::gguf::Gguf;
use ollama_wgpu::gpu::{self, DeviceChoice, GpuBackend};
use ollama_wgpu::model::Model;

use crate::models;

const N_CTX: usize = 512;
/// Tokens of a prefill chunk, as the server has it.
const N_BATCH: usize = 512;

/// A model on the first adapter, with both phases prepared and the plan of decode.
fn loaded(name: &str, options: gpu::Options) -> (Model, GpuBackend, PreparedId) {
    loaded_on(opened(options), name, N_CTX, 1)
}

/// The first adapter.
fn opened(options: gpu::Options) -> GpuBackend {
    let adapter = gpu::adapters().into_iter().next().expect("a GPU adapter");
    let choice = DeviceChoice::Named(adapter.index.to_string());
    GpuBackend::open_with(&choice, options).expect("it opens")
}

/// As [`loaded`], as the server prepares it for so many sequences of a context.
fn loaded_on(
    mut backend: GpuBackend,
    name: &str,
    n_ctx: usize,
    n_parallel: usize,
) -> (Model, GpuBackend, PreparedId) {
    let gguf = Gguf::open(&models::path(name)).expect("a valid file");
    let model = Model::load(&Arc::new(gguf)).expect("a supported model");
    model.load_into(&mut backend).expect("it fits");
    let n_pages = n_ctx.div_ceil(PAGE_TOKENS) * n_parallel;
    let cache = model.cache_spec(KvType::F16, n_pages, n_parallel);
    backend.alloc_cache(&cache).expect("it fits");
    let mut prepare = |phase, n_tokens| {
        let shape = BatchShape {
            phase,
            n_tokens,
            n_outputs: n_parallel,
        };
        let plan = model.plan(n_ctx, shape, Some(MAX_CANDIDATES));
        backend.prepare(plan).expect("a valid plan")
    };
    prepare(Phase::Prefill, N_BATCH);
    let decode = prepare(Phase::Decode, n_parallel);
    (model, backend, decode)
}

/// What a request with every penalty in its usual window asks for.
fn sampling() -> Sampling {
    Sampling {
        temperature: 0.8,
        top_k: 40,
        top_p: 0.9,
        log_min_p: f32::ln(0.01),
        penalties: Some(Penalties {
            repeat: 1.1,
            presence: 0.1,
            frequency: 0.1,
            before: (100..163).collect(),
        }),
        uniform: 0.75,
    }
}

#[test]
fn a_decoded_token_costs_what_it_must() {
    let (model, mut backend, decode) = loaded(models::REAL[0], gpu::Options::default());
    let sampling = [Some(sampling())];
    let step = |at| Batch::single(Phase::Decode, &[1], at, vec![0]);
    let before = backend.traffic();
    let mut start = |at, follows| {
        let started = backend.start(decode, &step(at), &sampling, follows);
        started.expect("it starts");
    };
    start(0, false);
    // The next step takes the token from the device, before the host has it.
    start(1, true);
    assert_eq!(backend.traffic().waits, before.waits);
    let tokens: Vec<Sampled> = (0..2)
        .flat_map(|_| backend.finish().expect("it runs"))
        .collect();
    let traffic = backend.traffic();
    assert_eq!(traffic.submits - before.submits, 2);
    let read_back = traffic.read_back_bytes - before.read_back_bytes;
    assert!(read_back <= 2 * 64, "{read_back} bytes read back");
    let uploaded = traffic.uploaded_bytes - before.uploaded_bytes;
    assert!(uploaded <= 2 * 1024, "{uploaded} bytes uploaded");

    // A host that waits and writes the token gets the same.
    let Sampled::Token(first) = tokens[0] else {
        panic!("the device chooses: {tokens:?}");
    };
    let written = Batch::single(Phase::Decode, &[first], 1, vec![0]);
    let started = backend.start(decode, &written, &sampling, false);
    started.expect("it starts");
    assert_eq!(backend.finish().expect("it runs"), tokens[1..]);

    let launches = backend.profile(decode);
    for kernels in by_layer(&model, &launches) {
        assert!(kernels.len() <= 8, "{kernels:?}");
    }
    // Each weight once: the embedding is the output matrix too.
    let read: u64 = launches.iter().map(|l| l.weight_bytes).sum();
    let most = model.weight_bytes() as f64 * 1.03;
    assert!(
        read as f64 <= most,
        "{read} bytes of weights, at most {most}"
    );
}

/// The kernels of each layer.
fn by_layer(model: &Model, launches: &[gpu::LaunchProfile]) -> Vec<Vec<String>> {
    let layers = 0..model.config().layers.len();
    let kernels = layers.map(|layer| {
        let scope = format!("blk.{layer}.");
        let of_layer = launches.iter().filter(|l| l.label.starts_with(&scope));
        of_layer.map(|l| l.kernel.clone()).collect()
    });
    kernels.collect()
}

/// The kernels of each layer past the first split of the cache, with the shapes of a GPU.
fn layers_on_a_gpu(name: &str) -> Vec<Vec<String>> {
    let options = gpu::Options {
        gpu_shapes: true,
        ..gpu::Options::default()
    };
    let (model, mut backend, decode) = loaded(name, options);
    let batch = Batch::single(Phase::Decode, &[1], 300, vec![0]);
    backend.run(decode, &batch).expect("it runs");
    by_layer(&model, &backend.profile(decode))
}

/// Launches of the longest layer of every family, the merge of split attention included: a dense layer is at most 8, one
/// with experts at most 10. Those of what is more than such a layer stand last.
const LAUNCHES: &[(usize, &str)] = &[
    (
        6,
        "llama llama-q4_k_m mistral3 qwen qwen2 qwen3 phi2 phi3 gemma granite minicpm",
    ),
    (
        6,
        "hunyuan-dense falcon gptneox command-r ernie4_5 chatglm arcee",
    ),
    (7, "command-r-plus stablelm-12b lfm2 qwen35"),
    (8, "gemma2 gemma3 gemma4-31b glm4 olmo2 olmo3 exaone4"),
    (8, "gpt2 bloom starcoder2 nemotron stablelm olmo"),
    (9, "llama-moe qwen3moe gpt-oss olmoe minimax-m2"),
    (
        9,
        "qwen2moe granitemoe ernie4_5-moe glm4moe deepseek dots1 hunyuan-moe",
    ),
    (10, "phimoe lfm2moe qwen3next qwen35moe"),
    // Embeddings of each layer; experts beside a dense block with norms of their own.
    (11, "gemma4"),
    (13, "gemma4-moe"),
    // Latent attention has three products more that wait for each other.
    (13, "deepseek2-lite"),
    (14, "deepseek2 deepseek3"),
    // Four streams, low-rank blocks and embeddings of each layer.
    (34, "gemma3n"),
];

#[test]
fn layers_of_every_family_are_few_launches_on_a_gpu() {
    let longest = |name: &str| {
        let layers = layers_on_a_gpu(&format!("tiny/tiny-{name}.gguf"));
        let longest = layers.into_iter().max_by_key(Vec::len);
        longest.expect("a layer")
    };
    let mut wrong = Vec::new();
    for (most, names) in LAUNCHES {
        for name in names.split(' ') {
            let kernels = longest(name);
            if kernels.len() != *most {
                wrong.push(format!("{name}: {} for {most}: {kernels:?}", kernels.len()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for (name, most) in models::REAL.into_iter().zip([6, 6, 8]) {
        let layers = layers_on_a_gpu(name);
        assert!(layers.iter().all(|layer| layer.len() == most), "{layers:?}");
    }
}

#[test]
fn a_layer_is_these_launches_on_a_gpu() {
    let dense = [
        "matmul_vec",
        "attention_decode",
        "attention_merge",
        "matmul_vec",
        "matmul_vec",
        "matmul_vec",
    ];
    assert_eq!(layers_on_a_gpu("tiny/tiny-qwen3.gguf")[0], dense);
    // The experts' router stands beside what leads into the shared ones, the choice beside what leads out of them.
    let experts = [
        "matmul_vec",
        "attention_decode",
        "attention_merge",
        "matmul_vec",
        "rms_norm",
        "matmul_vec+matmul_vec",
        "matmul_vec+moe_route",
        "matmul_experts_vec",
        "matmul_experts_vec",
    ];
    assert_eq!(layers_on_a_gpu("tiny/tiny-glm4moe.gguf")[1], experts);
}

/// The allocator's count has all that was taken from the driver, blocks that are half empty too.
#[test]
fn a_model_takes_its_weights_its_cache_and_little_more() {
    let sizes = |contexts: &[usize], parallel: &[usize]| -> Vec<(usize, usize)> {
        let pairs = contexts.iter();
        pairs
            .flat_map(|&n_ctx| parallel.iter().map(move |&n| (n_ctx, n)))
            .collect()
    };
    let grid = sizes(&[512, 1024, 2048, 4096, 8192], &[1, 2, 4, 8]);
    let corners = vec![(512, 1), (8192, 8)];
    let plain = gpu::Arithmetic::default();
    let in_arithmetic = |arithmetic| {
        opened(gpu::Options {
            arithmetic: Some(arithmetic),
            ..gpu::Options::default()
        })
    };
    // Kernels are compiled once.
    let in_floats = in_arithmetic(plain);
    let in_integers = in_arithmetic(gpu::Arithmetic {
        integers: true,
        ..plain
    });
    let in_halves = in_arithmetic(gpu::Arithmetic {
        halves: true,
        ..plain
    });
    for (what, opened, name, sizes) in [
        ("floats", &in_floats, models::REAL[0], grid),
        ("floats", &in_floats, models::REAL[1], corners.clone()),
        ("floats", &in_floats, models::REAL[2], corners.clone()),
        ("integers", &in_integers, models::REAL[1], corners.clone()),
        ("halves", &in_halves, models::REAL[1], corners),
    ] {
        for (n_ctx, n_parallel) in sizes {
            let what = format!("{name} in {what}, {n_parallel} x {n_ctx}");
            let backend = opened.sibling().expect("it opens");
            let (model, backend, _) = loaded_on(backend, name, n_ctx, n_parallel);
            let memory = backend.memory();
            let n_pages = n_ctx.div_ceil(PAGE_TOKENS) * n_parallel;
            let cache = model.cache_spec(KvType::F16, n_pages, n_parallel).bytes();
            assert_eq!(memory.cache, cache, "{what}");
            let most = model.weight_bytes() as f64 * 1.03;
            assert!(
                memory.weights as f64 <= most,
                "{what}: {memory:?}, at most {most}"
            );
            let counted = memory.weights + memory.cache + memory.plans;
            assert_eq!(backend.memory_bytes(), Some(counted));
            let reserved = memory.reserved.unwrap_or(counted);
            assert!(reserved >= counted, "{what}: {memory:?}");
            let little = reserved - memory.weights - memory.cache;
            assert!(
                little <= 64 << 20,
                "{what}: {little} bytes more: {memory:?}"
            );
        }
    }
}

/// Those of its launches, and no more for a second model of the same shapes.
#[test]
fn only_the_kernels_that_a_model_uses_are_compiled() {
    let (_, first, _) = loaded(models::REAL[0], gpu::Options::default());
    let n = first.n_pipelines();
    assert!((10..=40).contains(&n), "{n} kernels");
    let sibling = first.sibling().expect("it opens");
    let (_, second, _) = loaded_on(sibling, models::REAL[0], N_CTX, 1);
    assert_eq!(second.n_pipelines(), n);
}

#[test]
fn more_sequences_than_the_cache_is_for_are_refused() {
    let (model, mut backend, _) = loaded(models::REAL[0], gpu::Options::default());
    let shape = BatchShape {
        phase: Phase::Prefill,
        n_tokens: 2,
        n_outputs: 2,
    };
    let plan = model.plan(N_CTX, shape, None);
    let plan = backend.prepare(plan).expect("a valid plan");
    let one = backend.run(plan, &Batch::whole(&[&[1, 2]]));
    one.expect("the cache is for one");
    let two = backend.run(plan, &Batch::whole(&[&[1], &[2]]));
    let error = two.expect_err("there is no room for two tables");
    assert!(error.to_string().contains("2 sequences"), "{error}");
}

#[test]
fn two_single_tokens_of_one_sequence_are_refused() {
    let (_, mut backend, decode) =
        loaded_on(opened(gpu::Options::default()), models::REAL[0], N_CTX, 2);
    let two = |sequences: Vec<u32>| Batch {
        sequences,
        tables: vec![vec![0], vec![1]],
        states: vec![0, 1],
        ..Batch::single(Phase::Decode, &[1, 2], 0, vec![0])
    };
    let apart = backend.run(decode, &two(vec![0, 1]));
    apart.expect("two sequences");
    let error = backend
        .run(decode, &two(vec![0, 0]))
        .expect_err("one cannot see the other");
    assert!(error.to_string().contains("two of one sequence"), "{error}");
}
