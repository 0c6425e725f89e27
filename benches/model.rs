//! Prefill and decode of real models, by length of context, in tokens per second.
//!
//! `cargo bench --bench model`; models are those of `scripts/models.sh`. Where a prompt takes longer
//! than [`LONGEST`], as on a software GPU, it is run once and longer ones are left out.

mod devices;
#[path = "../kernels-tests/models.rs"]
mod models;

use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ollama_wgpu::backend::KvType;
use ollama_wgpu::gguf::Gguf;
use ollama_wgpu::model::{Model, Session};

const N_BATCH: usize = 512;
const CONTEXTS: [usize; 3] = [0, 256, 1024];
const LONGEST: Duration = Duration::from_secs(3);

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
        for name in models::REAL {
            let (mut session, n_vocab) = session(&device, name);
            for n in [256, 1024] {
                let prompt = models::tokens(n, n_vocab);
                let id = format!("{device}/{name}");
                let once = fill(&mut session, &prompt);
                if once > LONGEST {
                    let speed = n as f64 / once.as_secs_f64();
                    println!("prefill/{id}/{n}: {speed:.1} tokens/s, one run");
                    break;
                }
                group.throughput(Throughput::Elements(n as u64));
                group.bench_function(BenchmarkId::new(id, n), |b| {
                    b.iter(|| fill(&mut session, &prompt));
                });
            }
        }
    }
}

/// Runs a prompt and returns how long it took.
fn fill(session: &mut Session, prompt: &[u32]) -> Duration {
    session.clear();
    let start = Instant::now();
    let last = |i| i + 1 == prompt.len();
    session.prefill(prompt, last, |_, _| {}).expect("prefill");
    start.elapsed()
}

fn decode(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode");
    group.sample_size(20).throughput(Throughput::Elements(1));
    for device in devices::names() {
        for name in models::REAL {
            let (mut session, n_vocab) = session(&device, name);
            for n in CONTEXTS {
                let context = models::tokens(n, n_vocab);
                if fill(&mut session, &context) > LONGEST {
                    break;
                }
                group.bench_function(BenchmarkId::new(format!("{device}/{name}"), n), |b| {
                    b.iter_custom(|iterations| {
                        fill(&mut session, &context);
                        let start = Instant::now();
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

criterion_group!(benches, prefill, decode);
criterion_main!(benches);
