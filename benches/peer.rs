//! Whole models in the shape in which peers are measured: a prompt, then single tokens. Prints a
//! JSON line per device and model, medians of a few runs, so that it takes seconds on any device.
//!
//! `cargo bench --bench peer -- [DEVICE=cpu] [PART_OF_A_MODEL'S_NAME] [PROMPT_TOKENS=64]
//! [DECODE_TOKENS=8] [RUNS=3]`; models are those of `scripts/models.sh`.

#[path = "../kernels-tests/models.rs"]
mod models;

use std::sync::Arc;
use std::time::Instant;

use ollama_wgpu::backend::KvType;
use ollama_wgpu::cli::device;
use ollama_wgpu::gguf::Gguf;
use ollama_wgpu::model::{Model, Session};
use serde_json::json;

/// Seconds of a prompt and of the tokens after it.
fn run(session: &mut Session, prompt: &[u32], n_decode: usize) -> (f64, f64) {
    session.clear();
    let start = Instant::now();
    let last = prompt.len() - 1;
    session
        .prefill(prompt, |i| i == last, |_, _| {})
        .expect("prefill");
    let prefill = start.elapsed().as_secs_f64();
    let start = Instant::now();
    for i in 0..n_decode {
        session.decode(prompt[i % prompt.len()]).expect("decode");
    }
    (prefill, start.elapsed().as_secs_f64())
}

fn median(times: impl Iterator<Item = f64>) -> f64 {
    let mut times: Vec<f64> = times.collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn main() {
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let device_name = args.next().unwrap_or_else(|| "cpu".into());
    let wanted = args.next().unwrap_or_default();
    let mut number = |default| {
        args.next()
            .map_or(default, |n| n.parse().expect("a number"))
    };
    let (n_prompt, n_decode, n_runs) = (number(64), number(8), number(3));
    for name in models::REAL.iter().filter(|name| name.contains(&wanted)) {
        let gguf = Gguf::open(&models::path(name)).expect("a valid file");
        let model = Model::load(&Arc::new(gguf)).expect("a supported model");
        let start = Instant::now();
        let n_ctx = n_prompt + n_decode + 64;
        let backend = device::open(Some(&device_name)).expect("a device");
        let session = Session::new(&model, backend, KvType::F16, n_ctx, n_prompt.min(512));
        let mut session = session.expect("it loads");
        let loading = start.elapsed();
        let prompt = models::tokens(n_prompt, model.config().vocab_size);
        // The first run warms up: drivers compile at the first launch.
        let first = Instant::now();
        run(&mut session, &prompt, n_decode);
        let first = first.elapsed();
        let times: Vec<_> = (0..n_runs)
            .map(|_| run(&mut session, &prompt, n_decode))
            .collect();
        let speed = |n: usize, seconds: f64| (n as f64 / seconds * 100.0).round() / 100.0;
        let line = json!({
            "device": session.backend().device().name,
            "model": name,
            "prompt_tokens": n_prompt,
            "decode_tokens": n_decode,
            "load_ms": loading.as_millis() as u64,
            "first_run_ms": first.as_millis() as u64,
            "median_prefill_tps": speed(n_prompt, median(times.iter().map(|t| t.0))),
            "median_decode_tps": speed(n_decode, median(times.iter().map(|t| t.1))),
        });
        println!("{line}");
    }
}
