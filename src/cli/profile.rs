//! `debug profile`: what one decoded token costs on a GPU, counted by the backend and not timed; `bench` shows it too.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::{Value, json};

use crate::backend::{
    Backend, Batch, BatchShape, KvType, MAX_CANDIDATES, PAGE_TOKENS, Phase, Sampling,
};
use crate::gguf::Gguf;
use crate::gpu::{DeviceChoice, GpuBackend, LaunchProfile, MemoryUse};
use crate::model::Model;

use super::print;

#[derive(Debug, Args)]
pub struct ProfileArgs {
    /// A GGUF file
    file: PathBuf,
    /// An index or a part of an adapter's name, such as vulkan:llvmpipe; else the best GPU
    #[arg(long, default_value = "")]
    device: String,
    /// Position of the token: attention reads as many
    #[arg(long, default_value_t = 0)]
    position: usize,
}

/// What one decoded token costs.
pub struct TokenCost {
    pub device: String,
    pub submits: u64,
    pub uploaded_bytes: u64,
    pub read_back_bytes: u64,
    pub memory: MemoryUse,
    /// Kernels that were compiled for it.
    pub n_pipelines: usize,
    pub launches: Vec<LaunchProfile>,
}

/// Runs one decode step at a position on the GPU that `device` names, the best one where it is empty.
pub fn token_cost(model: &Model, device: &str, position: usize) -> Result<TokenCost> {
    let mut backend = GpuBackend::open(&DeviceChoice::parse(device))?;
    model.load_into(&mut backend)?;
    let n_pages = position / PAGE_TOKENS + 1;
    backend.alloc_cache(&model.cache_spec(KvType::F16, n_pages, 1))?;
    let shape = BatchShape {
        phase: Phase::Decode,
        n_tokens: 1,
        n_outputs: 1,
    };
    let plan = model.plan(n_pages * PAGE_TOKENS, shape, Some(MAX_CANDIDATES));
    let plan = backend.prepare(plan)?;
    let before = backend.traffic();
    let batch = Batch::single(Phase::Decode, &[0], position, vec![0]);
    backend.start(plan, &batch, &[Some(Sampling::best())], false)?;
    backend.finish()?;
    let after = backend.traffic();
    Ok(TokenCost {
        device: backend.device().name,
        submits: after.submits - before.submits,
        uploaded_bytes: after.uploaded_bytes - before.uploaded_bytes,
        read_back_bytes: after.read_back_bytes - before.read_back_bytes,
        memory: backend.memory(),
        n_pipelines: backend.n_pipelines(),
        launches: backend.profile(plan),
    })
}

/// Prints the counts of one decode step as JSON.
pub fn profile(args: &ProfileArgs) -> Result<()> {
    let file = || args.file.display().to_string();
    let gguf = Gguf::open(&args.file).with_context(file)?;
    let gguf = Arc::new(gguf.with_current_names());
    let model = Model::load(&gguf).with_context(file)?;
    let cost = token_cost(&model, &args.device, args.position)?;
    let weight_bytes: u64 = cost.launches.iter().map(|l| l.weight_bytes).sum();
    let memory = cost.memory;
    let report = json!({
        "device": cost.device,
        "submits": cost.submits,
        "uploaded_bytes": cost.uploaded_bytes,
        "read_back_bytes": cost.read_back_bytes,
        "weight_bytes": weight_bytes,
        "weight_bytes_of_the_file": model.weight_bytes(),
        "memory": {"weights": memory.weights, "cache": memory.cache, "plans": memory.plans, "reserved": memory.reserved},
        "n_pipelines": cost.n_pipelines,
        "n_launches": cost.launches.len(),
        "launches": cost.launches.iter().map(line).collect::<Vec<_>>(),
    });
    print(&format!("{report:#}\n"))
}

fn line(launch: &LaunchProfile) -> Value {
    json!([
        launch.label,
        launch.kernel,
        launch.workgroups,
        launch.weight_bytes
    ])
}
