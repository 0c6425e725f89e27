//! `bench`: how fast a model of the store loads, reads prompts and writes, on the device that `serve` would give it.
//!
//! It runs in the engine as a request to the server would, so sampling counts, and HTTP, templates and tokenizing do not.

mod measure;
mod report;

use super::doctor::selftest::SelfTest;
use super::profile::token_cost;
use super::{device, print, print_line, serve, usage};
use crate::backend::{BatchShape, Phase};
use crate::engine::{self, DeviceRequest, Endless, Engine, EngineOptions, Placement};
use crate::gguf::{Gguf, Lora};
use crate::model::Model;
use crate::settings::Settings;
use crate::store::{ModelName, ResolvedModel, Store};
use anyhow::{Context, Result};
use measure::{measure, warm_up};
use report::Report;
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// Places of context, if the settings and the model allow as many: enough for the longest prompt.
const N_CTX: usize = 2048;
/// Prompt tokens in one step, as `serve` has it.
const N_BATCH: usize = 512;

/// The arguments of `bench`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[arg(hide = true)]
    names: Vec<String>,
    /// The device, as in OLLAMA_WGPU_DEVICE
    #[arg(long)]
    device: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// A model that is not in the store or cannot be loaded, a device that is not there or fails.
pub fn bench(arguments: Arguments) -> Result<()> {
    let [name] = usage::exactly(arguments.names)?;
    let settings = Settings::from_env();
    let store = Store::open(&settings.models)?;
    let found = store.resolve(&ModelName::parse(&name)?)?;
    let wish = option(&found, "main_gpu").filter(|&index| index >= 0);
    let named = arguments.device.or_else(|| settings.device.clone());
    let named = named.or(wish.map(|index| index.to_string()));
    let report = run(&found, named.as_deref(), &settings)?;
    match arguments.json {
        true => print_line(&format!("{:#}", report.json())),
        false => print(&report.text()),
    }
}

/// A whole number among the options of the model.
fn option(model: &ResolvedModel, name: &str) -> Option<i64> {
    model.params.get(name).and_then(Value::as_i64)
}

fn run(found: &ResolvedModel, named: Option<&str>, settings: &Settings) -> Result<Report> {
    let start = Instant::now();
    let (model, engine) = load(found, named, settings)?;
    let load_seconds = start.elapsed().as_secs_f64();
    super::block_on(warm_up(&engine))?;
    let first_token_seconds = start.elapsed().as_secs_f64();
    let speeds = super::block_on(measure(&engine))?;
    let device = engine.device().clone();
    let (memory_bytes, gpu_bytes) = (engine.memory_bytes(), engine.gpu_bytes());
    let n_ctx = engine.n_ctx();
    engine.close();
    let is_split = 0 < gpu_bytes && gpu_bytes < memory_bytes;
    let named = if device.is_gpu { named } else { Some("cpu") };
    let generates = model.pooling().is_none();
    let copy_bytes_per_second = match is_split {
        true => None,
        // What is read, and written as fast.
        false => Some(2.0 * SelfTest::new()?.copy_speed(device::open(named)?)?),
    };
    let cost = match device.is_gpu && !is_split && generates {
        true => Some(token_cost(
            &model,
            named.unwrap_or_default(),
            measure::N_BEFORE,
        )?),
        false => None,
    };
    Ok(Report {
        name: found.name.to_string(),
        n_adapters: found.adapter_paths.len(),
        device,
        load_seconds,
        first_token_seconds,
        weight_bytes: model.weight_bytes(),
        memory_bytes,
        gpu_bytes,
        token_bytes: if generates {
            token_bytes(&model, n_ctx)
        } else {
            0
        },
        n_layers: model.config().layers.len(),
        speeds,
        copy_bytes_per_second,
        cost,
    })
}

/// All that a server loads before the first request.
fn load(
    found: &ResolvedModel,
    named: Option<&str>,
    settings: &Settings,
) -> Result<(Model, Engine)> {
    let open = |path: &Path| Gguf::open(path).map(Arc::new);
    let gguf = Arc::new(Gguf::open(&found.model_path)?.with_current_names());
    let adapter = |path| Lora::new(open(path)?).map_err(anyhow::Error::msg);
    let adapters = found.adapter_paths.iter().map(|path| adapter(path));
    let adapters = adapters.collect::<Result<Vec<Lora>>>().context("adapter")?;
    let (_, model) = engine::open(&gguf, &adapters, &|| {})?;
    let loading = serve::loading(settings);
    let open = device::opener(named.map(str::to_owned));
    let placement = Placement {
        open: &open,
        request: DeviceRequest {
            num_gpu: option(found, "num_gpu").unwrap_or(-1),
            main_gpu: None,
            num_thread: option(found, "num_thread")
                .and_then(|n| usize::try_from(n).ok())
                .unwrap_or(0),
        },
        overhead_bytes: loading.gpu_overhead,
        may_split: true,
        automatic_ctx: false,
    };
    let options = EngineOptions {
        n_ctx: loading.n_ctx.unwrap_or(N_CTX),
        n_parallel: 1,
        n_batch: N_BATCH,
        n_waiting: 1,
        kv_type: loading.kv_type,
    };
    let engine = Engine::load_placed(&model, Arc::new(Endless), &placement, options)?;
    Ok((model, engine))
}

/// Bytes of weights that a decoded token reads.
fn token_bytes(model: &Model, n_ctx: usize) -> u64 {
    let shape = BatchShape {
        phase: Phase::Decode,
        n_tokens: 1,
        n_outputs: 1,
    };
    model.token_bytes(&model.plan(n_ctx, shape, None))
}
