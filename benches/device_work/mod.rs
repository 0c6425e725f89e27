//! What the device's part of a served load costs: the same steps without a server.

use std::path::Path;
use std::sync::Arc;

use ollama_wgpu::backend::{
    Backend, Batch, BatchShape, KvType, MAX_CANDIDATES, PAGE_TOKENS, Phase, PreparedId,
};
use ollama_wgpu::cli::device;
use ollama_wgpu::gguf::Gguf;
use ollama_wgpu::model::Model;

/// Tokens of a prompt, about those of the clients.
const PROMPT: usize = 12;

/// Time that the processors worked for the living threads of a process whose name is `wanted`; none
/// where the system does not count it.
pub fn processor_seconds(process: u32, wanted: impl Fn(&str) -> bool) -> Option<f64> {
    let mut nanoseconds = 0;
    for task in std::fs::read_dir(format!("/proc/{process}/task")).ok()? {
        let path = task.ok()?.path();
        let name = std::fs::read_to_string(path.join("comm")).ok()?;
        if wanted(name.trim_end()) {
            let times = std::fs::read_to_string(path.join("schedstat")).ok()?;
            nanoseconds += times.split_whitespace().next()?.parse::<u64>().ok()?;
        }
    }
    Some(nanoseconds as f64 * 1e-9)
}

/// A model and sequences of some clients, ready to run steps of them all.
pub struct DeviceWork {
    backend: Box<dyn Backend>,
    prefill: PreparedId,
    decode: PreparedId,
    n_clients: usize,
    n_ctx: usize,
}

impl DeviceWork {
    /// Loads a model for sequences of up to `n_tokens` generated tokens.
    pub fn load(path: &Path, device: &str, n_clients: usize, n_tokens: usize) -> DeviceWork {
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
        DeviceWork {
            backend,
            prefill,
            decode,
            n_clients,
            n_ctx,
        }
    }

    /// Processor time of the first `n_tokens` decode steps.
    pub fn decode_seconds(&mut self, n_tokens: usize) -> Option<f64> {
        let batch = self.step(Phase::Prefill, 0..PROMPT);
        self.backend.run(self.prefill, &batch).expect("prefill");
        let now = || processor_seconds(std::process::id(), |_| true);
        let before = now()?;
        for at in PROMPT..PROMPT + n_tokens {
            let batch = self.step(Phase::Decode, at..at + 1);
            self.backend.run(self.decode, &batch).expect("decode");
        }
        Some(now()? - before)
    }

    /// The same positions of every client.
    fn step(&self, phase: Phase, positions: std::ops::Range<usize>) -> Batch {
        let mut batch = Batch::single(phase, &[], 0, Vec::new());
        batch.tables.clear();
        batch.states = (0..self.n_clients as u32).collect();
        for client in 0..self.n_clients {
            for position in positions.clone() {
                batch.tokens.push((100 + 31 * client + 7 * position) as u32);
                batch.positions.push(position as u32);
                batch.slots.push((client * self.n_ctx + position) as u32);
                batch.sequences.push(client as u32);
            }
            let first_page = client * self.n_ctx / PAGE_TOKENS;
            let pages = first_page..first_page + self.n_ctx / PAGE_TOKENS;
            batch.tables.push(pages.map(|page| page as u32).collect());
            batch.outputs.push(batch.tokens.len() as u32 - 1);
        }
        batch
    }
}
