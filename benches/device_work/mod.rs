//! What the device's part of a served load costs: the same steps without a server.

use std::path::Path;
use std::sync::Arc;

use ollama_wgpu::backend::{Batch, BatchShape, KvType, MAX_CANDIDATES, PAGE_TOKENS, Phase};
use ollama_wgpu::cli::device;
use ollama_wgpu::gguf::Gguf;
use ollama_wgpu::model::Model;

/// Tokens of a prompt, about those of the clients.
const PROMPT: usize = 12;

/// Time that the processors worked for the threads of a process that live; none where the system does
/// not count it.
pub fn processor_seconds(process: u32) -> Option<f64> {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).ok()?;
    let nanoseconds = |task: std::fs::DirEntry| -> Option<u64> {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse().ok()
    };
    let all: Option<u64> = tasks.map(|task| nanoseconds(task.ok()?)).sum();
    all.map(|n| n as f64 * 1e-9)
}

/// Processor time of `n_runs` times a prefill of all clients' prompts and `n_tokens` decode steps.
pub fn device_seconds(
    path: &Path,
    device: &str,
    n_clients: usize,
    n_tokens: usize,
    n_runs: usize,
) -> Option<f64> {
    let gguf = Arc::new(Gguf::open(path).expect("a valid file"));
    let model = Model::load(&gguf).expect("a supported model");
    let mut backend = device::open(Some(device)).expect("a device");
    model.load_into(&mut *backend).expect("it loads");
    let n_ctx = (PROMPT + n_tokens).next_multiple_of(PAGE_TOKENS);
    let n_pages = n_clients * n_ctx / PAGE_TOKENS;
    let cache = model.cache_spec(KvType::F16, n_pages, n_clients);
    backend.alloc_cache(&cache).expect("it fits");
    let mut plan = |phase, n_tokens| {
        let shape = BatchShape {
            phase,
            n_tokens,
            n_outputs: n_clients,
        };
        let plan = model.plan(n_ctx, shape, Some(MAX_CANDIDATES));
        backend.prepare(plan).expect("a valid plan")
    };
    let prefill = plan(Phase::Prefill, n_clients * PROMPT);
    let decode = plan(Phase::Decode, n_clients);
    let mut run = || {
        let batch = step(Phase::Prefill, n_clients, 0..PROMPT, n_ctx);
        backend.run(prefill, &batch).expect("prefill");
        for at in PROMPT..PROMPT + n_tokens {
            let batch = step(Phase::Decode, n_clients, at..at + 1, n_ctx);
            backend.run(decode, &batch).expect("decode");
        }
    };
    run();
    let before = processor_seconds(std::process::id())?;
    (0..n_runs).for_each(|_| run());
    Some(processor_seconds(std::process::id())? - before)
}

/// The same positions of every client.
fn step(phase: Phase, n_clients: usize, positions: std::ops::Range<usize>, n_ctx: usize) -> Batch {
    let mut batch = Batch::single(phase, &[], 0, Vec::new());
    batch.tables.clear();
    batch.states = (0..n_clients as u32).collect();
    for client in 0..n_clients {
        for position in positions.clone() {
            batch.tokens.push((100 + 31 * client + 7 * position) as u32);
            batch.positions.push(position as u32);
            batch.slots.push((client * n_ctx + position) as u32);
            batch.sequences.push(client as u32);
        }
        let first_page = client * n_ctx / PAGE_TOKENS;
        let pages = first_page..first_page + n_ctx / PAGE_TOKENS;
        batch.tables.push(pages.map(|page| page as u32).collect());
        batch.outputs.push(batch.tokens.len() as u32 - 1);
    }
    batch
}
