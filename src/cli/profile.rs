//! `debug profile`: what one decoded token costs on a GPU, counted by the backend and not timed.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::{Value, json};

use crate::backend::{Backend, Batch, BatchShape, KvType, MAX_CANDIDATES, PAGE_TOKENS, Phase};
use crate::gguf::Gguf;
use crate::gpu::{DeviceChoice, GpuBackend, LaunchProfile};
use crate::model::Model;

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

/// Runs one decode step and prints its counts as JSON.
pub fn profile(args: &ProfileArgs) -> Result<()> {
    let file = || args.file.display().to_string();
    let gguf = Gguf::open(&args.file).with_context(file)?;
    let gguf = Arc::new(gguf.with_current_names());
    let model = Model::load(&gguf).with_context(file)?;
    let mut backend = GpuBackend::open(&DeviceChoice::parse(&args.device))?;
    model.load_into(&mut backend)?;
    let n_pages = args.position / PAGE_TOKENS + 1;
    backend.alloc_cache(&model.cache_spec(KvType::F16, n_pages, 1))?;
    let shape = BatchShape {
        phase: Phase::Decode,
        n_tokens: 1,
        n_outputs: 1,
    };
    let plan = model.plan(n_pages * PAGE_TOKENS, shape, Some(MAX_CANDIDATES));
    let plan = backend.prepare(plan)?;
    let before = backend.traffic();
    backend.run(
        plan,
        &Batch::single(Phase::Decode, &[0], args.position, vec![0]),
    )?;
    let (after, memory) = (backend.traffic(), backend.memory());
    let launches = backend.profile(plan);
    let weight_bytes: u64 = launches.iter().map(|l| l.weight_bytes).sum();
    let report = json!({
        "device": backend.device().name,
        "submits": after.submits - before.submits,
        "uploaded_bytes": after.uploaded_bytes - before.uploaded_bytes,
        "read_back_bytes": after.read_back_bytes - before.read_back_bytes,
        "weight_bytes": weight_bytes,
        "weight_bytes_of_the_file": model.weight_bytes(),
        "memory": {"weights": memory.weights, "cache": memory.cache, "plans": memory.plans},
        "n_launches": launches.len(),
        "launches": launches.iter().map(line).collect::<Vec<_>>(),
    });
    println!("{report:#}");
    Ok(())
}

fn line(launch: &LaunchProfile) -> Value {
    json!([
        launch.label,
        launch.kernel,
        launch.workgroups,
        launch.weight_bytes
    ])
}
