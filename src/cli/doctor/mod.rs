//! `doctor`: which devices there are, which one models run on, whether it computes rightly, how fast it copies, and what fits.

pub mod selftest;

use super::device;
use crate::backend::Backend;
use crate::cpu;
use crate::engine::automatic_ctx;
use crate::gpu::{AdapterKind, AdapterSummary, adapters, limits};
use crate::settings::Settings;
use anyhow::{Result, bail};
use selftest::SelfTest;
use std::io::{Write, stdout};

/// Bytes of a weight of a file of this level, what lies beside the matrices included.
const LEVELS: [(&str, f64); 3] = [("Q4_K_M", 0.61), ("Q8_0", 1.07), ("F16", 2.0)];
/// Share of the memory that weights may take; the rest is for the cache and the activations.
const WEIGHTS_SHARE: f64 = 0.85;

/// Prints the findings.
///
/// # Errors
/// A device that is named but not there, or that computes something wrong: the findings up to there are printed.
pub fn doctor() -> Result<()> {
    let mut out = stdout();
    writeln!(out, "ollama-wgpu {}", env!("CARGO_PKG_VERSION"))?;
    let n_threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let set = cpu::InstructionSet::best().name();
    writeln!(out, "processor: {set}, {n_threads} threads")?;
    if let Some(bytes) = cpu::available_bytes() {
        writeln!(out, "free memory of the host: {:.1} GB", giga(bytes))?;
    }
    let all = tell_adapters(&mut out)?;
    let settings = Settings::from_env();
    let name = settings.device;
    let mut backend = device::open(name.as_deref())?;
    let chosen = backend.device();
    let why = match &name {
        Some(name) => format!("OLLAMA_WGPU_DEVICE is {name:?}"),
        None => "OLLAMA_WGPU_DEVICE is not set".to_owned(),
    };
    writeln!(
        out,
        "models run on: {} ({}; {why})",
        chosen.name, chosen.api
    )?;
    let is_software = all
        .iter()
        .any(|a| a.kind == AdapterKind::Software && a.name == chosen.name);
    if let Some(bytes) = free_bytes(&mut *backend, is_software) {
        writeln!(out, "weights that fit there: {}", what_fits(bytes))?;
    }
    let automatic = automatic_ctx(chosen.memory_bytes, settings.gpu_overhead);
    let context = settings.context_length.unwrap_or(automatic);
    writeln!(
        out,
        "context where nobody names one: {context} tokens, or what a model was trained for"
    )?;
    drop(backend);
    let open = || device::open(name.as_deref());
    let test = SelfTest::new()?;
    let speed = test.copy_speed(open()?)?;
    writeln!(
        out,
        "copies: {:.1} GB/s read and as many written",
        speed / 1e9
    )?;
    let wrong = test.wrong_products(open()?)?;
    if !wrong.is_empty() {
        bail!(
            "{} computes wrong products of {}: update its driver, or set OLLAMA_WGPU_DEVICE=cpu",
            chosen.name,
            wrong.join(", ")
        );
    }
    writeln!(
        out,
        "self-test: products of {} types are right",
        test.n_types()
    )?;
    Ok(())
}

/// Prints the adapters and their limits, and returns them.
fn tell_adapters(out: &mut impl Write) -> Result<Vec<AdapterSummary>> {
    writeln!(out, "adapters:")?;
    let all = adapters();
    for (adapter, limits) in all.iter().zip(limits()) {
        writeln!(out, "  {adapter}, driver {}", adapter.driver.trim())?;
        writeln!(
            out,
            "     {}buffers up to {:.1} GB, bindings up to {:.1} GB, {} KiB of workgroup memory, {}, prompts in {}",
            own_memory(adapter.memory_bytes),
            giga(limits.buffer_bytes),
            giga(limits.binding_bytes),
            limits.workgroup_bytes >> 10,
            match limits.subgroups {
                None => "no subgroups".to_owned(),
                Some((least, most)) if least == most => format!("subgroups of {least}"),
                Some((least, most)) => format!("subgroups of {least} to {most}"),
            },
            limits.arithmetic
        )?;
    }
    if all.is_empty() {
        writeln!(
            out,
            "  none: no GPU, or no driver for Vulkan, Metal or DX12"
        )?;
    }
    Ok(all)
}

/// How many weights, in each of some types, `bytes` of memory hold.
fn what_fits(bytes: u64) -> String {
    let fits = LEVELS.map(|(level, bytes_each)| {
        let weights = bytes as f64 * WEIGHTS_SHARE / bytes_each / 1e9;
        format!("{weights:.1} billion at {level}")
    });
    fits.join(", ")
}

/// What is free for models: of the host for the processor and for adapters that are none, else what the GPU can allocate.
fn free_bytes(backend: &mut dyn Backend, is_software: bool) -> Option<u64> {
    if !backend.device().is_gpu || is_software {
        return cpu::available_bytes();
    }
    Some(backend.free_bytes(u64::MAX >> 16))
}

/// What there is of an adapter's own, where its driver tells.
fn own_memory(bytes: Option<u64>) -> String {
    bytes.map_or(String::new(), |bytes| {
        format!("{:.1} GB of memory, ", giga(bytes))
    })
}

fn giga(bytes: u64) -> f64 {
    bytes as f64 / 1e9
}
