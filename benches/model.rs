//! Prefill and decode of real models, by length of context, in tokens per second; embeddings of
//! short texts, in texts per second.
//!
//! `cargo bench --bench model`; models are those of `scripts/models.sh`.

mod devices;
#[path = "../kernels-tests/models.rs"]
mod models;

use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ollama_wgpu::backend::KvType;
use ollama_wgpu::gguf::Gguf;
use ollama_wgpu::model::{Embedder, Model, Session};

/// Files of `scripts/models.sh`.
const MODELS: [&str; 3] = [
    "smollm2-135m-instruct-q4_1.gguf",
    "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
    "gemma-3-270m-q4_k_m.gguf",
];
const N_BATCH: usize = 512;
const CONTEXTS: [usize; 3] = [0, 256, 1024];

/// Fixed token ids, as llama-bench feeds them: what is computed does not depend on which.
fn tokens(n: usize, n_vocab: usize) -> Vec<u32> {
    (0..n).map(|i| ((17 * i + 5) % n_vocab) as u32).collect()
}

fn session(device: &str, name: &str) -> (Session, usize) {
    let model = Model::load(&Arc::new(
        Gguf::open(&models::path(name)).expect("a valid file"),
    ))
    .expect("a supported model");
    let session = Session::new(&model, devices::open(device), KvType::F16, 2048, N_BATCH);
    (session.expect("it loads"), model.config().vocab_size)
}

fn prefill(c: &mut Criterion) {
    let mut group = c.benchmark_group("prefill");
    group.sample_size(10);
    for device in devices::names() {
        for name in MODELS {
            let (mut session, n_vocab) = session(&device, name);
            for n in [256, 1024] {
                let prompt = tokens(n, n_vocab);
                group.throughput(Throughput::Elements(n as u64));
                group.bench_function(BenchmarkId::new(format!("{device}/{name}"), n), |b| {
                    b.iter(|| {
                        session.clear();
                        session
                            .prefill(&prompt, |i| i + 1 == n, |_, _| {})
                            .expect("prefill");
                    });
                });
            }
        }
    }
}

fn decode(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode");
    group.sample_size(20).throughput(Throughput::Elements(1));
    for device in devices::names() {
        for name in MODELS {
            let (mut session, n_vocab) = session(&device, name);
            for n in CONTEXTS {
                let context = tokens(n, n_vocab);
                group.bench_function(BenchmarkId::new(format!("{device}/{name}"), n), |b| {
                    b.iter_custom(|iterations| {
                        session.clear();
                        session
                            .prefill(&context, |_| false, |_, _| {})
                            .expect("prefill");
                        let start = std::time::Instant::now();
                        for i in 0..iterations {
                            // Stay near the context under test.
                            if session.n_past() >= n + 64 {
                                session.truncate(n);
                            }
                            session.decode(i as u32 % n_vocab as u32).expect("decode");
                        }
                        start.elapsed()
                    });
                });
            }
        }
    }
}

fn embed(c: &mut Criterion) {
    const N_TEXTS: usize = 256;
    let mut group = c.benchmark_group("embed");
    group
        .sample_size(10)
        .throughput(Throughput::Elements(N_TEXTS as u64));
    let file = Gguf::open(&models::path("all-minilm-l6-v2-f16.gguf")).expect("a valid file");
    let model = Model::load(&Arc::new(file)).expect("a supported model");
    for device in devices::names() {
        let mut backend = devices::open(&device);
        model.load_into(&mut *backend).expect("it loads");
        let embedder = Embedder::prepare(&model, backend, 512, 512, 128);
        let mut embedder = embedder.expect("it is prepared");
        for n in [8, 16, 32] {
            let texts = vec![tokens(n, model.config().vocab_size); N_TEXTS];
            let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
            group.bench_function(BenchmarkId::new(&device, n), |b| {
                b.iter(|| {
                    let mut rest = &texts[..];
                    while !rest.is_empty() {
                        let n = embedder.n_fitting(rest.iter().copied());
                        embedder.embed(&rest[..n]).expect("a step");
                        rest = &rest[n..];
                    }
                });
            });
        }
    }
}

criterion_group!(benches, prefill, decode, embed);
criterion_main!(benches);
